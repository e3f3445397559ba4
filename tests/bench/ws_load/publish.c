#include "load.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { OUT_MAX = 64 << 20 };

static bool out_reserve(struct load *load, size_t more)
{
    if (load->out_length + more <= load->out_capacity)
        return true;
    if (load->out_length + more > OUT_MAX)
        return load_fail(load, "the server does not take what the publisher sends");
    load->out_capacity = 2 * (load->out_length + more);
    load->out = realloc(load->out, load->out_capacity);
    return true;
}

static void arm(struct load *load, bool armed)
{
    struct epoll_event event = {.events = armed ? EPOLLIN | EPOLLOUT : EPOLLIN,
                                .data.ptr = &load->publisher};
    if (load->out_armed != armed && load->command_pipe < 0)
        epoll_ctl(load->epoll, EPOLL_CTL_MOD, load->publisher.fd, &event);
    load->out_armed = armed;
}

/* Several messages of one turn leave in one write. */
bool load_publish_flush(struct load *load)
{
    if (load->out_length == 0)
        return true;
    ssize_t n = load->command_pipe >= 0
                    ? write(load->command_pipe, load->out, load->out_length)
                    : send(load->publisher.fd, load->out, load->out_length, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN && errno != EINTR)
        return load_fail(load, "the publisher's connection is gone: %s", strerror(errno));
    if (n > 0) {
        load->out_length -= (size_t)n;
        memmove(load->out, load->out + n, load->out_length);
    }
    arm(load, load->out_length > 0);
    return true;
}

bool load_publish(struct load *load, uint64_t sent_at)
{
    static char *text;
    static size_t text_capacity;
    const struct options *o = load->options;
    const char *format = o->publish_format != NULL ? o->publish_format : "%s";
    const char *mark = strstr(format, "%s");
    size_t before = (size_t)(mark - format), after = strlen(mark + 2),
           length = before + o->size + after;
    if (text_capacity < length + 1) {
        text = realloc(text, length + 1);
        text_capacity = length + 1;
    }
    memcpy(text, format, before);
    message_write(text + before, o->size, load->sent, sent_at);
    memcpy(text + before + o->size, mark + 2, after);
    if (!out_reserve(load, length + 14))
        return false;
    if (load->command_pipe >= 0) {
        text[length] = '\n';
        memcpy(load->out + load->out_length, text, length + 1);
        load->out_length += length + 1;
    } else {
        load->out_length += frame_encode(load->out + load->out_length, 1, text, length);
    }
    load->arrived[load->sent % (2 * WINDOW_MAX)] = 0;
    load->sent++;
    return true;
}
