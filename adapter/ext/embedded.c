#include "embedded.h"
#include "descriptors.h"
#include "io_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    POLL_MS = 5,            /* how often a start under way is looked at */
    START_LIMIT_MS = 10000, /* then the lock is given up, so that others may try */
    RETRY_MS = 1000,
    IDLE_EXIT_SECONDS = 5
};

extern char **environ;

struct embedded {
    struct io_thread *io;
    char *socket_path;
    char *lock_path;
    char *log_path;
    char *program;
    struct event *poll;
    int lock_fd; /* held while a start is under way, else -1 */
    pid_t pid;   /* of `brokerd --background` */
    uint64_t started_ms;
    uint64_t failed_ms; /* 0: the last start did not fail */
    bool complained;    /* since the last start that did not fail */
};

static char *with_suffix(const char *path, const char *suffix)
{
    char *joined = NULL;
    return asprintf(&joined, "%s%s", path, suffix) < 0 ? NULL : joined;
}

static void start_ended(struct embedded *e)
{
    descriptors_close(e->lock_fd, false);
    e->lock_fd = -1;
    e->pid = 0;
}

/* Told once, not every second until somebody has mended it. */
static enum log_level next_level(struct embedded *e)
{
    enum log_level level = e->complained ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR;
    e->failed_ms = e->io->now_ms;
    e->complained = true;
    return level;
}

static void start_failed(struct embedded *e, const char *what)
{
    io_log(e->io, next_level(e),
           "the application's broker did not start: %s. The program is %s, its own words are in "
           "%s. BROKERD_BIN names another program, BROKERD_URL a broker that runs already",
           what, e->program, e->log_path);
}

static void look_at_start(evutil_socket_t fd, short what, void *context)
{
    (void)fd, (void)what;
    struct embedded *e = context;
    int status = 0;
    pid_t ended = waitpid(e->pid, &status, WNOHANG);
    bool late = e->io->now_ms - e->started_ms > START_LIMIT_MS;
    if (ended == 0 && !late) {
        static const struct timeval soon = {0, POLL_MS * 1000};
        evtimer_add(e->poll, &soon);
        return;
    }
    /* ECHILD: the server reaps all its children and has taken ours, too; connecting will tell. */
    if (ended > 0 && !(WIFEXITED(status) && WEXITSTATUS(status) == 0))
        start_failed(e, "it ended at once");
    else if (ended == 0)
        start_failed(e, "it did not begin to listen within 10 s");
    else {
        e->failed_ms = 0;
        e->complained = false;
    }
    start_ended(e);
}

struct embedded *embedded_new(struct io_thread *io, const char *socket_path, const char *program)
{
    struct embedded *e = calloc(1, sizeof(*e));
    if (!e)
        return NULL;
    e->io = io;
    e->lock_fd = -1;
    e->socket_path = strdup(socket_path);
    e->program = strdup(program);
    e->lock_path = with_suffix(socket_path, ".start");
    e->log_path = with_suffix(socket_path, ".log");
    e->poll = evtimer_new(io->base, look_at_start, e);
    if (!e->socket_path || !e->program || !e->lock_path || !e->log_path || !e->poll) {
        embedded_free(e);
        return NULL;
    }
    return e;
}

void embedded_free(struct embedded *e)
{
    if (!e)
        return;
    if (e->lock_fd >= 0)
        start_ended(e);
    if (e->poll)
        event_free(e->poll);
    free(e->socket_path);
    free(e->program);
    free(e->lock_path);
    free(e->log_path);
    free(e);
}

/* True when somebody accepts at the socket: another process was faster. */
static bool is_served(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address.sun_path))
        return false;
    memcpy(address.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return false;
    bool served = connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0 || errno == EAGAIN;
    close(fd);
    return served;
}

static int spawn_broker(struct embedded *e)
{
    char *url = NULL, idle[16];
    if (asprintf(&url, "ipc://%s", e->socket_path) < 0)
        return ENOMEM;
    snprintf(idle, sizeof(idle), "%d", IDLE_EXIT_SECONDS);
    char *arguments[] = {e->program,         "--background", "--listen", url,
                         "--exit-when-idle", idle,           NULL};

    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&files, 1, e->log_path,
                                     O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW, 0600);
    posix_spawn_file_actions_adddup2(&files, 1, 2);

    /* This thread blocks every signal, and a Ruby server ignores some: the broker starts afresh. */
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);

    int error = posix_spawn(&e->pid, e->program, &files, &attributes, arguments, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&files);
    free(url);
    return error;
}

/* The start lock, or false when another process has it. */
static bool take_lock(struct embedded *e)
{
    int fd = open(e->lock_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        const char *reason = strerror(errno);
        io_log(e->io, next_level(e), "the application's broker cannot be started: %s: %s",
               e->lock_path, reason);
        return false;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0 || !descriptors_add(fd)) {
        close(fd);
        return false;
    }
    e->lock_fd = fd;
    return true;
}

void embedded_start(struct embedded *e)
{
    if (e->lock_fd >= 0 || (e->failed_ms && e->io->now_ms - e->failed_ms < RETRY_MS))
        return;
    if (!take_lock(e))
        return;
    if (is_served(e->socket_path)) {
        start_ended(e);
        return;
    }
    int error = spawn_broker(e);
    if (error) {
        start_failed(e, strerror(error));
        start_ended(e);
        return;
    }
    e->started_ms = e->io->now_ms;
    static const struct timeval soon = {0, POLL_MS * 1000};
    evtimer_add(e->poll, &soon);
}
