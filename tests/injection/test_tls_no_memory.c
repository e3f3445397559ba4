/* Each allocation of a TLS connection fails, OpenSSL's own and ours, alone and with all that
 * follow: a handshake or a connection may fail and says why, nothing is left, and with memory again
 * the next pair works. */
#include "no_memory.h"

#include "../certificates.h"
#include "tls_filter.h"
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <string.h>

static char dir[64], ca_path[96], cert_path[96], crl_path[96];
static struct authority ca;

static void *openssl_malloc(size_t size, const char *file, int line)
{
    (void)file, (void)line;
    return __wrap_malloc(size);
}

static void *openssl_realloc(void *old, size_t size, const char *file, int line)
{
    (void)file, (void)line;
    return __wrap_realloc(old, size);
}

static void openssl_free(void *old, const char *file, int line)
{
    (void)file, (void)line;
    free(old);
}

static int openssl_asks_here;

/* Before what the libraries of the test framework do with OpenSSL when they are loaded. */
static void ask_here(void)
{
    openssl_asks_here = CRYPTO_set_mem_functions(openssl_malloc, openssl_realloc, openssl_free);
}

__attribute__((section(".preinit_array"), used)) static void (*const first)(void) = ask_here;

static void begin(void)
{
    cr_assert(openssl_asks_here);
    strcpy(dir, "/tmp/brokerd-tls-XXXXXX");
    cr_assert(mkdtemp(dir) != NULL);
    snprintf(ca_path, sizeof(ca_path), "%s/ca.pem", dir);
    snprintf(cert_path, sizeof(cert_path), "%s/cert.pem", dir);
    snprintf(crl_path, sizeof(crl_path), "%s/crl.pem", dir);
    ca = authority_make("the tests' authority");
    pem_write(ca_path, ca.certificate, NULL);
    identity_write(cert_path, "DNS:broker.test", 3600, &ca);
    revocation_list_write(crl_path, &ca, 0, 3600, false);
}

static void end(void)
{
    authority_free(&ca);
    remove(ca_path);
    remove(cert_path);
    remove(crl_path);
    remove(dir);
}

TestSuite(tls_no_memory, .init = begin, .fini = end, .timeout = 250);

static struct tls_context *contexts[2]; /* server, client */

static bool contexts_open(void)
{
    char why[2][TLS_REASON_MAX];
    contexts[0] = tls_server_context_new(&(struct tls_settings){.cert_file = cert_path}, why[0]);
    contexts[1] = tls_client_context_new(
        &(struct tls_settings){.ca_file = ca_path, .crl_file = crl_path}, why[1]);
    for (int i = 0; i < 2; i++)
        cr_assert(contexts[i] != NULL || why[i][0] != 0, "a refusal without a reason");
    return contexts[0] != NULL && contexts[1] != NULL;
}

static void contexts_close(void)
{
    for (int i = 0; i < 2; i++) {
        tls_context_free(contexts[i]);
        contexts[i] = NULL;
    }
}

/* Carries what waits; false when the other side has no room for it. */
static bool carry(struct tls_filter *from, struct tls_filter *to, bool *moved)
{
    size_t length;
    const uint8_t *bytes = tls_filter_output(from, &length);
    if (length == 0)
        return true;
    uint8_t *room = tls_filter_room(to, length);
    if (room == NULL)
        return false;
    memcpy(room, bytes, length);
    tls_filter_commit(to, length);
    tls_filter_sent(from, length);
    *moved = true;
    return true;
}

/* What comes until nothing moves; false once it has failed. */
static bool exchange(struct tls_filter *sides[2], size_t received[2])
{
    static uint8_t plain[65536];
    for (bool moved = true; moved;) {
        moved = false;
        for (int i = 0; i < 2; i++) {
            if (!carry(sides[i], sides[1 - i], &moved))
                return false;
        }
        for (int i = 0; i < 2; i++) {
            size_t got;
            enum tls_result result = tls_filter_read(sides[i], plain, sizeof(plain), &got);
            received[i] += got;
            if (result == TLS_FAILED) {
                cr_assert(tls_filter_reason(sides[i])[0] != 0, "a failure without a reason");
                return false;
            }
        }
    }
    return true;
}

/* A connection from hello to goodbye with 40 KB each way; false when it failed. */
static bool converse(void)
{
    static const uint8_t text[40000];
    struct tls_filter *sides[2] = {tls_filter_new(contexts[0], NULL),
                                   tls_filter_new(contexts[1], "broker.test")};
    size_t received[2] = {0};
    bool ok = sides[0] != NULL && sides[1] != NULL && exchange(sides, received) &&
              tls_filter_is_open(sides[0]) && tls_filter_is_open(sides[1]);
    for (int i = 0; i < 2 && ok; i++) {
        size_t taken;
        ok = tls_filter_write(sides[i], text, sizeof(text), &taken) == TLS_OK &&
             exchange(sides, received) && received[1 - i] == taken;
    }
    for (int i = 0; i < 2; i++) {
        if (sides[i] != NULL)
            tls_filter_close(sides[i]);
        tls_filter_free(sides[i]);
    }
    return ok;
}

static void expect_all_in_order(long n)
{
    cr_assert_eq(ERR_peek_error(), 0, "allocation %ld: an error was left for the next", n);
    cr_assert(converse(), "allocation %ld: no connection when there is memory again", n);
}

/* From one allocation to the next that fails; valgrind, where a handshake takes a second, wants
 * every fifth (scripts/valgrind). */
static long step(void)
{
    const char *text = getenv("NO_MEMORY_STEP");
    return text == NULL ? 1 : atol(text);
}

static long converse_without_memory(bool stays)
{
    for (long n = 0;; n += step()) {
        no_memory_begin(n, stays);
        bool ok = converse();
        if (!no_memory_end()) {
            cr_assert(ok);
            return n;
        }
        expect_all_in_order(n);
    }
}

Test(tls_no_memory, any_allocation_of_a_connection_may_fail)
{
    cr_assert(contexts_open());
    cr_assert(converse()); /* what OpenSSL makes once */
    long alone = converse_without_memory(false);
    cr_assert_gt(alone, 100, "only %ld allocations", alone);
    contexts_close();
}

Test(tls_no_memory, no_memory_for_a_while_in_a_connection)
{
    cr_assert(contexts_open());
    cr_assert(converse());
    converse_without_memory(true);
    contexts_close();
}

Test(tls_no_memory, files_that_cannot_be_read_for_want_of_memory_are_refused_with_a_reason)
{
    cr_assert(contexts_open());
    contexts_close();
    for (long n = 0, failed = 1; failed; n += step()) {
        no_memory_begin(n, n % 2 == 0);
        bool ok = contexts_open();
        failed = no_memory_end();
        cr_assert(ok || failed);
        contexts_close();
        if (n % 50 == 0) {
            cr_assert(contexts_open());
            expect_all_in_order(n);
            contexts_close();
        }
    }
}
