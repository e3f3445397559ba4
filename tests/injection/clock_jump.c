#include "clock_jump.h"
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define PATH_VARIABLE "CLOCK_JUMP"

static struct clock_jump *jump;

static struct clock_jump *map(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, sizeof(*jump)) != 0)
        return NULL;
    void *at = mmap(NULL, sizeof(*jump), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return at == MAP_FAILED ? NULL : at;
}

struct clock_jump *clock_jump_begin(const char *path, const char *library)
{
    jump = map(path);
    if (jump == NULL || setenv(PATH_VARIABLE, path, 1) != 0 ||
        setenv("LD_PRELOAD", library, 1) != 0)
        return NULL;
    return jump;
}

__attribute__((constructor)) static void begin_in_program(void)
{
    const char *path = getenv(PATH_VARIABLE);
    if (path != NULL)
        jump = map(path);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (failed != 0 || jump == NULL)
        return failed;
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)
        now->tv_sec += jump->wall_s;
    else if (clock == CLOCK_MONOTONIC || clock == CLOCK_MONOTONIC_COARSE)
        now->tv_sec += jump->monotonic_s;
    return 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    (void)zone;
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *result)
{
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (result != NULL)
        *result = exact.tv_sec;
    return exact.tv_sec;
}
