#include "background.h"

#include "log.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* The starter's side: one byte is success, the pipe's end without one is the daemon's early death.
 */
static void await_and_exit(int ready)
{
    char byte;
    ssize_t got;
    do
        got = read(ready, &byte, 1);
    while (got < 0 && errno == EINTR);
    _exit(got == 1 ? 0 : 1);
}

int background_enter(void)
{
    int ready[2];
    close_range(3, ~0U, 0);
    if (pipe2(ready, O_CLOEXEC) != 0) {
        log_error("cannot go to the background: %s", strerror(errno));
        return -1;
    }
    pid_t daemon = fork();
    if (daemon < 0) {
        log_error("cannot go to the background: %s", strerror(errno));
        return -1;
    }
    if (daemon > 0) {
        close(ready[1]);
        await_and_exit(ready[0]);
    }
    close(ready[0]);
    setsid();
    if (chdir("/") != 0)
        log_warn("cannot change to /: %s", strerror(errno));
    return ready[1];
}
