/* Authentication by a shared secret: nothing is done for who has not proved that he knows it. */
#include "auth.h"
#include "harness.h"

static struct broker b;
static char secret_path[120];

static void write_secret(const char *text, mode_t mode)
{
    snprintf(secret_path, sizeof(secret_path), "%s/secret", b.dir);
    int fd = open(secret_path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    cr_assert(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    fchmod(fd, mode);
    close(fd);
}

static void start(void)
{
    broker_prepare(&b, (const char *[]){"--no-journal", "--secret-file", secret_path, NULL});
    write_secret("open sesame\n", 0600);
    broker_run(&b);
}

static void end(void)
{
    broker_end(&b);
}

TestSuite(auth, .init = start, .fini = end, .timeout = 60);

static struct answer attach_with(struct peer *p, uint16_t flags, const uint8_t *proof)
{
    struct wire_attach block = {.generation = 1,
                                .name = (const uint8_t *)"test",
                                .name_length = 4,
                                .proof = proof,
                                .proof_length = proof != NULL ? WIRE_PROOF_SIZE : 0};
    uint8_t bytes[512];
    wire_attach_encode(bytes, &block);
    uint32_t id = p->next_id++;
    peer_send(p, id,
              &(struct wire_request){
                  .version = 1, .operation = WIRE_ATTACH, .flags = flags, .session = 9},
              bytes, wire_attach_size(&block), NULL);
    return peer_answer(p, id);
}

static struct wire_attach_reply block_of(const struct answer *a)
{
    struct wire_attach_reply block;
    size_t used;
    cr_assert_eq(wire_attach_reply_decode(a->bytes, a->length, &block, &used), STATUS_OK);
    return block;
}

/* Asks for a nonce and makes the proof that a client with that secret gives; *exchange stays
 * usable. */
static void prepare_proof(struct peer *p, const char *secret, bool is_engine, uint8_t *nonce,
                          uint8_t *proof, struct auth_exchange *exchange)
{
    struct answer a = attach_with(p, is_engine ? WIRE_ENGINE : 0, NULL);
    cr_assert_eq(a.reply.status, STATUS_AUTH);
    struct wire_attach_reply block = block_of(&a);
    cr_assert_eq(block.proof_length, WIRE_NONCE_SIZE);
    memcpy(nonce, block.proof, WIRE_NONCE_SIZE);
    memset(proof, 0x5a, AUTH_NONCE_SIZE);
    *exchange = (struct auth_exchange){.secret = secret,
                                       .secret_length = strlen(secret),
                                       .nonce = nonce,
                                       .client_nonce = proof,
                                       .is_engine = is_engine,
                                       .name = "test",
                                       .name_length = 4};
    cr_assert(auth_client_proof(exchange, proof + AUTH_NONCE_SIZE));
}

Test(auth, right_secret_passes_and_the_broker_proves_itself)
{
    struct peer p = peer_open(&b);
    uint8_t nonce[32], proof[WIRE_PROOF_SIZE], expected[32];
    struct auth_exchange exchange;
    prepare_proof(&p, "open sesame", false, nonce, proof, &exchange);
    for (int i = 0; i < 2; i++) { /* the second as libnng repeats it */
        struct answer a = attach_with(&p, 0, proof);
        cr_assert_eq(a.reply.status, STATUS_OK);
        struct wire_attach_reply block = block_of(&a);
        cr_assert_eq(block.proof_length, 32);
        cr_assert(auth_server_proof(&exchange, expected));
        cr_assert_arr_eq(block.proof, expected, 32);
    }
    cr_assert_eq(peer_publish(&p, 9, 7, 1, "x", "y").reply.status, STATUS_OK);
    cr_assert_eq(peer_publish(&p, 0, 8, 1, "x", "y").reply.status, STATUS_OK);
    struct body list = {0};
    body_name(&list, WIRE_SUBSCRIBE, "x", false); /* a later ATTACH needs no proof */
    struct attaching attach = {.session = 9, .generation = 2};
    cr_assert_eq(peer_attach(&p, &attach, &list).reply.status, STATUS_OK);
}

/* One line each, which names the peer; who is in does not notice. */
static void expect_denied_lines(struct peer *witness, int count)
{
    char line[64];
    snprintf(line, sizeof(line), "connection of ipc peer pid %d uid ", getpid());
    broker_log_has(&b, "authentication failed");
    cr_assert_eq(broker_log_count(&b, "ended: authentication failed", line), count);
    cr_assert_eq(broker_log_count(&b, " warn ", ""), count);
    cr_assert_eq(peer_ask(witness, WIRE_QUERY, WIRE_PING, 0, 0, NULL).reply.status, STATUS_OK);
}

static struct peer witness_open(void)
{
    struct peer p = peer_open(&b);
    uint8_t nonce[32], proof[WIRE_PROOF_SIZE];
    struct auth_exchange exchange;
    prepare_proof(&p, "open sesame", false, nonce, proof, &exchange);
    cr_assert_eq(attach_with(&p, 0, proof).reply.status, STATUS_OK);
    return p;
}

Test(auth, wrong_secret_is_denied_and_ends_the_connection)
{
    struct peer witness = witness_open(), p = peer_open(&b);
    uint8_t nonce[32], proof[WIRE_PROOF_SIZE];
    struct auth_exchange exchange;
    prepare_proof(&p, "open barley", false, nonce, proof, &exchange);
    cr_assert_eq(attach_with(&p, 0, proof).reply.status, STATUS_DENIED);
    expect_closed(p.fd);
    expect_denied_lines(&witness, 1);
}

Test(auth, proof_for_another_role_is_denied)
{
    struct peer p = peer_open(&b);
    uint8_t nonce[32], proof[WIRE_PROOF_SIZE];
    struct auth_exchange exchange;
    prepare_proof(&p, "open sesame", false, nonce, proof, &exchange);
    cr_assert_eq(attach_with(&p, WIRE_ENGINE, proof).reply.status, STATUS_DENIED);
}

Test(auth, replayed_proof_on_another_connection_is_denied)
{
    struct peer p = peer_open(&b), thief = peer_open(&b);
    uint8_t nonce[32], proof[WIRE_PROOF_SIZE];
    struct auth_exchange exchange;
    prepare_proof(&p, "open sesame", false, nonce, proof, &exchange);
    cr_assert_eq(attach_with(&p, 0, proof).reply.status, STATUS_OK);
    cr_assert_eq(attach_with(&thief, 0, NULL).reply.status, STATUS_AUTH);
    cr_assert_eq(attach_with(&thief, 0, proof).reply.status, STATUS_DENIED);
    struct peer blunt = peer_open(&b); /* without asking for a nonce */
    cr_assert_eq(attach_with(&blunt, 0, proof).reply.status, STATUS_DENIED);
    expect_closed(thief.fd);
    expect_closed(blunt.fd);
    expect_denied_lines(&p, 2);
}

Test(auth, nonce_is_good_for_5_s)
{
    struct peer p = peer_open(&b);
    uint8_t nonce[32], proof[WIRE_PROOF_SIZE];
    struct auth_exchange exchange;
    prepare_proof(&p, "open sesame", false, nonce, proof, &exchange);
    int64_t until = now_ms() + 6000;
    while (now_ms() < until) { /* the broker keeps answering meanwhile */
        peer_ask(&p, WIRE_QUERY, WIRE_PING, 0, 0, NULL);
        nanosleep(&(struct timespec){0, 100000000}, NULL);
    }
    cr_assert_eq(attach_with(&p, 0, proof).reply.status, STATUS_DENIED);
}

Test(auth, every_operation_needs_it)
{
    struct peer p = peer_open(&b);
    for (uint8_t operation = WIRE_DETACH; operation <= WIRE_QUERY; operation++)
        cr_assert_eq(peer_ask(&p, operation, 0, 0, 0, NULL).reply.status, STATUS_AUTH);
    struct answer a = peer_publish(&p, 0, 7, 1, "x", "y");
    cr_assert_eq(a.reply.status, STATUS_AUTH);
    cr_assert_eq(a.reply.head, 0);
}

Test(auth, secret_file_that_everybody_can_read_or_that_is_empty_is_refused)
{
    int status;
    struct broker other;
    char path[120];
    broker_prepare(&other, (const char *[]){"--no-journal", "--secret-file", path, NULL});
    snprintf(path, sizeof(path), "%s", secret_path);
    chmod(path, 0644);
    cr_assert(!broker_try(&other, &status));
    broker_log_has(&other, "can be read by everybody");
    write_secret("\n", 0600);
    cr_assert(!broker_try(&other, &status));
    broker_log_has(&other, "it must hold 1 to 4096 bytes");
    broker_end(&other);
}
