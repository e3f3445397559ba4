#include "bytes.h"
#include "journal.h"
#include "log.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_MAX_HERE = 4096, ASIDE_MAX = 1000 };

/* The kernel's boot id, or an empty string: then no file counts as being of this boot. */
static void read_boot_id(char boot[40])
{
    memset(boot, 0, 40);
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (read(fd, boot, 36) != 36)
        memset(boot, 0, 40);
    close(fd);
}

/* Opens the file and locks it. Another broker may move the file away between the two: then again.
 */
static int open_locked(const char *path)
{
    for (int i = 0; i < 100; i++) {
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0) {
            log_error("cannot open the journal %s: %s", path, strerror(errno));
            return -1;
        }
        if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
            if (errno == EWOULDBLOCK)
                log_error("the journal %s belongs to another broker that is running", path);
            else
                log_error("cannot lock the journal %s: %s", path, strerror(errno));
            close(fd);
            return -1;
        }
        struct stat opened, there;
        if (fstat(fd, &opened) == 0 && lstat(path, &there) == 0 && opened.st_ino == there.st_ino &&
            opened.st_dev == there.st_dev) {
            if (S_ISREG(opened.st_mode))
                return fd;
            log_error("the journal %s is not a regular file", path);
            close(fd);
            return -1;
        }
        close(fd);
    }
    log_error("the journal %s keeps being replaced", path);
    return -1;
}

static bool map_file(struct journal *j, uint64_t size, const char *path)
{
    void *mapping =
        mmap(NULL, size + JOURNAL_HEADER_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, j->fd, 0);
    if (mapping == MAP_FAILED) {
        log_error("cannot map the journal %s: %s", path, strerror(errno));
        return false;
    }
    j->header = mapping;
    return true;
}

/*
 * What the kernel reads ahead lies in large folios, and with those a message cost the broker up to
 * 1.4 times as much (docs/benchmarks.md). Only recovery, which is behind us, reads from a disk.
 */
static void map_by_page(const struct journal *j)
{
    madvise(j->header, j->size + JOURNAL_HEADER_SIZE, MADV_RANDOM);
}

static void unmap(struct journal *j)
{
    if (j->header != NULL)
        munmap(j->header, j->size + JOURNAL_HEADER_SIZE);
    free(j->index);
    j->header = NULL;
    j->index = NULL;
}

/* The file is empty: it gets its full size, a header and a new epoch. */
static bool make(struct journal *j, const char *path, uint64_t size)
{
    int error = posix_fallocate(j->fd, 0, (off_t)(size + JOURNAL_HEADER_SIZE));
    if (error != 0) {
        log_error("cannot allocate %llu bytes for the journal %s: %s", (unsigned long long)size,
                  path, strerror(error));
        unlink(path);
        return false;
    }
    if (!map_file(j, size, path))
        return false;
    struct journal_header *header = j->header;
    header->format = JOURNAL_FORMAT;
    header->epoch = journal_new_epoch();
    header->size = size;
    read_boot_id(header->boot);
    atomic_signal_fence(memory_order_seq_cst);
    memcpy(header->magic, JOURNAL_MAGIC, sizeof(header->magic));
    j->size = size;
    if (journal_prepare(j, header))
        return true;
    log_error("cannot open the journal %s: out of memory", path);
    return false;
}

/* Why the header of a file of `length` bytes cannot be used; NULL: it can. */
static const char *header_fault(const struct journal_header *header, uint64_t length)
{
    char boot[40];
    read_boot_id(boot);
    if (memcmp(header->magic, JOURNAL_MAGIC, sizeof(header->magic)) != 0)
        return "it is not a journal";
    if (header->format != JOURNAL_FORMAT)
        return "it has another format version";
    if (header->size < JOURNAL_SIZE_MIN || header->size % 4096 != 0 ||
        header->size > length - JOURNAL_HEADER_SIZE)
        return "it is shorter than its header says";
    if (header->epoch == 0)
        return "it has no epoch";
    if (header->clean != 1 && (boot[0] == 0 || memcmp(header->boot, boot, sizeof(boot)) != 0))
        return "it was not closed before the machine restarted";
    return NULL;
}

enum taking { TAKEN, UNUSABLE, REFUSED };

/* Takes an existing file over. UNUSABLE: *fault says why. REFUSED: the file may be good but space
 * or memory is short; logged, and the file is left alone. */
static enum taking take_over(struct journal *j, const char *path, uint64_t length,
                             struct origins *origins, const char **fault)
{
    struct journal_header header;
    *fault = "it is shorter than a header";
    if (length < JOURNAL_HEADER_SIZE ||
        pread(j->fd, &header, sizeof(header), 0) != (ssize_t)sizeof(header))
        return UNUSABLE;
    *fault = header_fault(&header, length);
    if (*fault != NULL)
        return UNUSABLE;
    /* a copy may have holes, and a full disk must not become SIGBUS */
    int error = posix_fallocate(j->fd, 0, (off_t)(header.size + JOURNAL_HEADER_SIZE));
    if (error != 0) {
        log_error("cannot allocate the space of the journal %s: %s", path, strerror(error));
        return REFUSED;
    }
    if (!map_file(j, header.size, path))
        return REFUSED;
    j->size = header.size;
    if (!journal_prepare(j, j->header)) {
        log_error("cannot open the journal %s: out of memory", path);
        return REFUSED;
    }
    if (!journal_recover(j, origins, fault))
        return UNUSABLE;
    j->header->clean = 0;
    read_boot_id(j->header->boot);
    return TAKEN;
}

/* The file keeps existing under another name. */
static bool move_aside(const char *path, const char *fault)
{
    char aside[PATH_MAX_HERE];
    for (int i = 1; i <= ASIDE_MAX; i++) {
        snprintf(aside, sizeof(aside), "%s.aside-%d", path, i);
        struct stat there;
        if (lstat(aside, &there) == 0)
            continue;
        if (rename(path, aside) == 0) {
            log_warn("the journal %s cannot be used: %s; it is now %s and a new epoch begins", path,
                     fault, aside);
            return true;
        }
        break;
    }
    log_error("the journal %s cannot be used: %s; moving it aside failed: %s", path, fault,
              strerror(errno));
    return false;
}

static bool replace(struct journal *j, const char *path, uint64_t size, const char *fault)
{
    unmap(j);
    int old = j->fd;
    bool moved = move_aside(path, fault);
    if (moved)
        j->fd = open_locked(path);
    close(old);
    if (!moved || j->fd < 0) {
        j->fd = -1;
        return false;
    }
    return make(j, path, size);
}

bool journal_open_file(struct journal *j, const char *path, uint64_t size, struct origins *origins)
{
    *j = (struct journal){.fd = open_locked(path)};
    if (j->fd < 0)
        return false;
    struct stat file;
    const char *fault = NULL;
    bool ok = fstat(j->fd, &file) == 0;
    enum taking taking = TAKEN;
    if (ok && file.st_size == 0) {
        ok = make(j, path, size);
        if (ok)
            log_info("made the journal %s of %llu bytes", path, (unsigned long long)size);
    } else if (ok) {
        taking = take_over(j, path, (uint64_t)file.st_size, origins, &fault);
        ok = taking == TAKEN;
        if (ok)
            log_info("took over the journal %s: messages %llu to %llu", path,
                     (unsigned long long)j->first_id, (unsigned long long)j->last_id);
    }
    if (taking == UNUSABLE) {
        origins_clear(origins);
        ok = replace(j, path, size, fault);
    }
    if (ok)
        map_by_page(j);
    if (ok && j->size != size)
        log_warn("the journal %s keeps its size of %llu bytes; remove it to have %llu", path,
                 (unsigned long long)j->size, (unsigned long long)size);
    if (!ok) {
        unmap(j);
        if (j->fd >= 0)
            close(j->fd);
        j->fd = -1;
    }
    return ok;
}

void journal_close(struct journal *j)
{
    if (j->header == NULL)
        return;
    /* what could not be written is not called clean: after a restart of the machine it is no good
     */
    if (j->fd >= 0 && msync(j->header, j->size + JOURNAL_HEADER_SIZE, MS_SYNC) == 0) {
        j->header->clean = 1;
        msync(j->header, JOURNAL_HEADER_SIZE, MS_SYNC);
    }
    unmap(j);
    if (j->fd >= 0)
        close(j->fd);
    j->fd = -1;
}
