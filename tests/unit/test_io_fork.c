#include "descriptors.h"
#include "io_harness.h"
#include <criterion/criterion.h>
#include <pthread.h>
#include <sys/wait.h>

static struct io_thread *io;
static struct io_config config;

static void setup(void)
{
    config = harness_config();
    io = harness_start(&config);
}

static void teardown(void)
{
    io_thread_stop(io);
}

TestSuite(io_fork, .init = setup, .fini = teardown, .timeout = 60);

static struct peer opened(struct io_thread *of)
{
    struct peer p = harness_websocket(of);
    harness_expect_head(p.fd);
    harness_expect_callback(of, CALLBACK_OPEN);
    return p;
}

/* How many sockets with our side of a pair the process has: the browsers' ends are subtracted by
 * the caller, who knows them. */
static unsigned open_sockets(void)
{
    unsigned count = 0;
    for (int fd = 0; fd < 1024; fd++) {
        char path[40], target[64];
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        ssize_t n = readlink(path, target, sizeof(target) - 1);
        if (n > 7 && memcmp(target, "socket:", 7) == 0)
            count++;
    }
    return count;
}

static void expect_child_ok(pid_t pid)
{
    int status;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFEXITED(status));
    cr_assert_eq(WEXITSTATUS(status), 0, "check %d of the child failed", WEXITSTATUS(status));
}

static int in_child(struct peer *peers, int n, unsigned sockets_before)
{
    if (open_sockets() != sockets_before - (unsigned)n)
        return 1;
    for (int i = 0; i < n; i++) {
        struct client *c = peers[i].client;
        if (client_is_open(c) || client_pending(c) != -1)
            return 2;
        if (harness_write(&peers[i], "from the child"))
            return 3;
        commands_close(c, 1000);
        if (commands_subscribe_client(c, "a", 1, false, NULL, NULL) ||
            commands_publish(io, "a", 1, "x", 1, false) || commands_shutdown(io))
            return 4;
        client_unref(c);
    }
    if (io_wait_clients(io, 10))
        return 5;
    io_thread_stop(io); /* does nothing: it is the parent's */
    if (io_generation() != 1)
        return 6;
    struct io_thread *own = harness_start(&config);
    struct peer p = opened(own);
    if (!harness_write(&p, "mine"))
        return 7;
    harness_expect(p.fd, "\x81\x04mine", 6);
    harness_leave(&p);
    io_thread_stop(own);
    return 0;
}

Test(io_fork, a_child_closes_its_copies_and_the_parents_clients_go_on)
{
    enum { PEERS = 20 };
    struct peer peers[PEERS];
    for (int i = 0; i < PEERS; i++)
        peers[i] = opened(io);
    unsigned sockets = open_sockets();
    pid_t pid = fork();
    if (pid == 0)
        _exit(in_child(peers, PEERS, sockets));
    expect_child_ok(pid);
    for (int i = 0; i < PEERS; i++) {
        cr_assert(client_is_open(peers[i].client));
        cr_assert(harness_write(&peers[i], "hi"));
        harness_expect(peers[i].fd, "\x81\x02hi", 4);
        harness_send_text(peers[i].fd, "ho");
        harness_expect_message(io, "ho", false);
    }
    for (int i = 0; i < PEERS; i++)
        harness_leave(&peers[i]);
    cr_assert(io_wait_clients(io, WAIT_MS));
}

Test(io_fork, a_close_in_the_parent_reaches_the_browser_though_a_child_lives)
{
    int hold[2];
    cr_assert_eq(pipe(hold), 0);
    struct peer p = opened(io);
    pid_t pid = fork();
    if (pid == 0) {
        char byte;
        close(hold[1]);
        close(p.fd);
        _exit(read(hold[0], &byte, 1) != 0);
    }
    close(hold[0]);
    commands_close(p.client, 1000);
    harness_expect(p.fd, "\x88\x02\x03\xe8", 4);
    harness_send_close(p.fd, 1000);
    harness_expect_eof(p.fd);
    close(hold[1]);
    expect_child_ok(pid);
    harness_leave(&p);
}

Test(io_fork, a_copy_that_somebody_keeps_holds_nothing_open)
{
    int pair[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    int copy = dup(pair[0]);
    cr_assert(descriptors_add(pair[0]));
    descriptors_close(pair[0], true);
    harness_expect_eof(pair[1]);
    close(copy);
    close(pair[1]);
}

Test(io_fork, descriptors_past_the_table_are_refused)
{
    cr_assert_not(descriptors_add(-1));
    cr_assert_not(descriptors_add(65536));
}

Test(io_fork, a_child_that_was_forked_before_any_start_begins_on_its_own)
{
    io_thread_stop(io);
    pid_t pid = fork();
    if (pid == 0) {
        struct io_thread *own = harness_start(&config);
        struct peer p = opened(own);
        harness_leave(&p);
        harness_expect_callback(own, CALLBACK_CLOSE);
        io_thread_stop(own);
        _exit(0);
    }
    expect_child_ok(pid);
    io = harness_start(&config);
}

/* The address sanitizer of gcc 12 does not guard its allocator over a fork: a child
 * that is forked while the I/O thread allocates waits for ever for a lock that nobody holds. */
#if defined(__SANITIZE_ADDRESS__)
enum { FORK_IS_SAFE_ANY_TIME = false };
#else
enum { FORK_IS_SAFE_ANY_TIME = true };
#endif

/* Forks at any moment: the I/O thread may be in the middle of whatever it does. */
Test(io_fork, children_forked_while_clients_come_and_go_can_start_their_own,
     .disabled = !FORK_IS_SAFE_ANY_TIME)
{
    for (int i = 0; i < 40; i++) {
        struct peer peers[8];
        for (int j = 0; j < 8; j++) {
            peers[j] = harness_websocket(io);
            harness_write(&peers[j], "x");
        }
        pid_t pid = fork();
        if (pid == 0) {
            for (int j = 0; j < 8; j++)
                harness_leave(&peers[j]);
            struct io_thread *own = harness_start(&config);
            struct peer p = opened(own);
            harness_leave(&p);
            harness_expect_callback(own, CALLBACK_CLOSE);
            io_thread_stop(own);
            _exit(0);
        }
        for (int j = 0; j < 8; j++)
            harness_leave(&peers[j]);
        expect_child_ok(pid);
    }
    cr_assert(io_wait_clients(io, WAIT_MS));
}
