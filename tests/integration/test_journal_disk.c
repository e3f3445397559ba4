/* The journal (delivery.md, rules 1 and 2) on file systems that are full or read-only: one clear
 * line, and what was there is kept. In a mount namespace of the test's own. */
#include "harness.h"
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>

static struct broker b;
static char disk[100], journal[120];

TestSuite(journal_disk, .timeout = 120);

/* A tmpfs of that many KiB at `disk`, seen by this test's processes alone. */
static void mount_disk(const char *kib)
{
    char options[32];
    broker_prepare(&b, (const char *[]){"--journal", journal, "--journal-size", "64K", NULL});
    snprintf(disk, sizeof(disk), "%s/disk", b.dir);
    snprintf(journal, sizeof(journal), "%s/journal", disk);
    snprintf(options, sizeof(options), "size=%sk", kib);
    cr_assert(mkdir(disk, 0700) == 0);
    if ((unshare(CLONE_NEWNS) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) ||
        mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", disk, "tmpfs", 0, options) != 0) {
        rmdir(disk);
        rmdir(b.dir);
        cr_skip_test("no mount namespace here");
    }
}

static void unmount_disk(void)
{
    umount2(disk, MNT_DETACH);
    broker_end(&b);
}

static void expect_refusal(const char *line)
{
    int status = 0;
    cr_assert(!broker_try(&b, &status), "it started");
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 1, "status %x", (unsigned)status);
    broker_log_has(&b, line);
}

static void fill_disk(void)
{
    static char block[4096];
    char path[120];
    snprintf(path, sizeof(path), "%s/filling", disk);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    while (write(fd, block, sizeof(block)) > 0)
        ;
    cr_assert_eq(errno, ENOSPC);
    close(fd);
}

static void free_disk(void)
{
    char path[120];
    snprintf(path, sizeof(path), "%s/filling", disk);
    unlink(path);
}

Test(journal_disk, rule_1_a_full_disk_refuses_the_start_and_leaves_nothing_behind)
{
    struct stat there;
    mount_disk("32");
    expect_refusal("cannot allocate 65536 bytes for the journal");
    cr_assert(stat(journal, &there) != 0, "half a journal was left");
    unmount_disk();
}

Test(journal_disk, rule_1_a_journal_with_holes_on_a_full_disk_is_kept_and_serves_again)
{
    mount_disk("128");
    broker_run(&b);
    struct peer p = peer_open(&b);
    cr_assert_eq(peer_publish(&p, 0, 7, 1, "a", "one").reply.value, 1);
    uint64_t epoch = p.epoch;
    peer_close(&p);
    broker_signal(&b, SIGKILL);

    /* what a copy leaves out: everything behind the first pages is a hole */
    static uint8_t begin[8192];
    int fd = open(journal, O_RDWR);
    cr_assert(fd >= 0 && pread(fd, begin, sizeof(begin), 0) == (ssize_t)sizeof(begin));
    cr_assert(ftruncate(fd, 0) == 0 && ftruncate(fd, 4096 + 65536) == 0);
    cr_assert(pwrite(fd, begin, sizeof(begin), 0) == (ssize_t)sizeof(begin));
    close(fd);
    fill_disk();
    expect_refusal("cannot allocate the space of the journal");

    free_disk();
    broker_run(&b);
    p = peer_open(&b);
    cr_assert_eq(peer_publish(&p, 0, 7, 2, "a", "two").reply.value, 2);
    cr_assert_eq(p.epoch, epoch);
    peer_close(&p);
    broker_signal(&b, SIGTERM);
    unmount_disk();
}

Test(journal_disk, rule_1_a_disk_that_becomes_full_does_not_matter)
{
    mount_disk("128");
    broker_run(&b);
    fill_disk();
    struct peer p = peer_open(&b);
    static char payload[8000];
    memset(payload, 'x', sizeof(payload) - 1);
    for (uint64_t i = 1; i <= 40; i++) { /* five times round the ring */
        struct answer a = peer_publish(&p, 0, 7, i, "a", payload);
        cr_assert(a.reply.status == STATUS_OK && a.reply.value == i);
    }
    peer_close(&p);
    int status = broker_signal(&b, SIGTERM);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    unmount_disk();
}

Test(journal_disk, rule_1_a_read_only_disk_refuses_the_start_and_keeps_the_journal)
{
    mount_disk("128");
    broker_run(&b);
    struct peer p = peer_open(&b);
    cr_assert_eq(peer_publish(&p, 0, 7, 1, "a", "one").reply.value, 1);
    peer_close(&p);
    broker_signal(&b, SIGKILL);
    cr_assert(mount("tmpfs", disk, "tmpfs", MS_REMOUNT | MS_RDONLY, NULL) == 0);
    expect_refusal("Read-only file system");
    cr_assert(mount("tmpfs", disk, "tmpfs", MS_REMOUNT, NULL) == 0);
    broker_run(&b);
    broker_log_has(&b, "messages 1 to 1");
    broker_signal(&b, SIGTERM);
    unmount_disk();
}

Test(journal_disk, rule_1_a_limit_of_file_sizes_is_told_and_is_no_signal)
{
    struct rlimit limit = {.rlim_cur = 32768, .rlim_max = 32768};
    broker_prepare(&b, (const char *[]){"--journal-size", "64K", NULL});
    cr_assert(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    signal(SIGXFSZ, SIG_DFL);
    expect_refusal("File too large");
    broker_end(&b);
}
