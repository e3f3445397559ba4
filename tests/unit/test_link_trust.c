/* A broker that lies, and one that has to prove itself. */
#include "auth.h"
#include "link_fixture.h"

static void open_plain(void)
{
    fixture_open(NULL);
}

TestSuite(link_trust, .init = open_plain, .fini = fixture_close, .timeout = 60);

/* ---- a broker that sends nonsense ends the connection and nothing else ---- */

static void expect_end_after(const void *bytes, size_t length)
{
    unsigned before = f.connections;
    broker_write(bytes, length);
    WAIT_FOR(f.closed);
    broker_attach(before + 1, 0, 0);
}

Test(link_trust, a_hello_that_is_not_of_a_rep)
{
    link_start(f.io.link);
    WAIT_FOR(f.connections == 1);
    broker_write("HTTP/1.1", 8);
    WAIT_FOR(f.closed);
    broker_attach(2, 0, 0);
}

Test(link_trust, garbage_lengths_and_foreign_ids)
{
    uint8_t reply[9 + 4 + WIRE_REPLY_SIZE] = {1, 0, 0, 0, 0, 0, 0, 0, 4 + WIRE_REPLY_SIZE, 0x80};
    link_start(f.io.link);
    broker_attach(1, 0, 0);
    expect_end_after("\2\0\0\0\0\0\0\0\x24", 9);
    expect_end_after("\1\x80\0\0\0\0\0\0\0", 9);
    expect_end_after("\1\0\0\0\0\0\0\0\2ab", 11);
    expect_end_after("\1\0\0\0\0\0\0\0\4\1\2\3\4", 13);
    expect_end_after("\1\0\0\0\0\0\0\0\6\x80\0\0\1\1\1", 15);
    put_u32be(reply + 9, 0x80000000u | 0xffffff); /* never asked */
    wire_reply_encode(reply + 13,
                      &(struct wire_reply){.version = 1, .operation = WIRE_FETCH, .epoch = EPOCH});
    expect_end_after(reply, sizeof(reply));
    put_u32be(reply + 9, credits[0].id);
    reply[13] = 9; /* another version */
    expect_end_after(reply, sizeof(reply));
    reply[13] = 1;
    put_u32be(reply + 9, credits[0].id);
    put_u64le(reply + 13 + 8, EPOCH + 1);
    expect_end_after(reply, sizeof(reply));
}

Test(link_trust, an_attach_reply_that_cannot_be_true)
{
    link_start(f.io.link);
    f.head = 10;
    broker_attach(1, 0, 0);
    broker_hang_up();
    broker_accept(2);
    struct asked a = broker_next(WIRE_ATTACH);
    broker_attach_ok(&a, 0, 1); /* a sequence that was never sent */
    WAIT_FOR(f.closed);
    broker_accept(3);
    a = broker_next(WIRE_ATTACH);
    f.head = 9; /* below what it sent, and no new epoch */
    broker_attach_ok(&a, 0, 0);
    WAIT_FOR(f.closed);
    broker_accept(4);
    a = broker_next(WIRE_ATTACH);
    broker_ok(&a, 0); /* no block */
    WAIT_FOR(f.closed);
    f.head = 10;
    broker_attach(5, 0, 0);
}

Test(link_trust, replies_in_every_portion_of_bytes)
{
    struct block *block = subscribe_to("a");
    link_start(f.io.link);
    broker_attach(1, 0, 0);
    struct batch_bytes b = {.length = 0};
    batch_message(&b, 1, "a", "one");
    uint8_t bytes[512];
    bytes[0] = 1;
    put_u64be(bytes + 1, 4 + WIRE_REPLY_SIZE + b.length);
    put_u32be(bytes + 9, credits[0].id);
    wire_reply_encode(bytes + 13, &(struct wire_reply){.version = 1,
                                                       .operation = WIRE_FETCH,
                                                       .epoch = EPOCH,
                                                       .records = 1,
                                                       .head = 1,
                                                       .value = 1});
    memcpy(bytes + 45, b.bytes, b.length);
    for (size_t i = 0; i < 45 + b.length; i++) {
        expect_no_callback();
        broker_write(bytes + i, 1);
        event_base_loop(f.io.base, EVLOOP_NONBLOCK);
    }
    expect_callback(CALLBACK_DELIVERY, "one");
    block_unref(block);
}

/* ---- authentication ---- */

static void open_secret(void)
{
    fixture_open("open sesame\n");
}

TestSuite(link_secret, .init = open_secret, .fini = fixture_close, .timeout = 60);

static const uint8_t NONCE[AUTH_NONCE_SIZE] = "the broker's nonce, 32 bytes lo";

static void reply_with_block(const struct asked *a, enum status status, const uint8_t *proof)
{
    uint8_t bytes[128];
    struct wire_attach_reply block = {.record_max = 1 << 20, .proof = proof, .proof_length = 32};
    wire_attach_reply_encode(bytes, &block);
    broker_reply(a->id, (struct wire_reply){.operation = WIRE_ATTACH, .status = (uint8_t)status},
                 bytes, wire_attach_reply_size(&block));
}

static struct auth_exchange exchange_of(const struct asked *a)
{
    return (struct auth_exchange){.secret = "open sesame",
                                  .secret_length = 11,
                                  .nonce = NONCE,
                                  .client_nonce = a->attach.proof,
                                  .name = "worker",
                                  .name_length = 6};
}

/* Up to the ATTACH that carries the proof, which must be right and come before any name. */
static struct asked expect_proof(unsigned connection)
{
    uint8_t wanted[AUTH_MAC_SIZE];
    broker_accept(connection);
    struct asked a = broker_next(WIRE_ATTACH);
    cr_assert_eq(a.attach.proof_length, 0);
    cr_assert_eq(a.header.records, 0);
    cr_assert_eq(a.header.flags, WIRE_MORE);
    reply_with_block(&a, STATUS_AUTH, NONCE);
    a = broker_next(WIRE_ATTACH);
    cr_assert_eq(a.header.records, 0);
    cr_assert_eq(a.header.flags, WIRE_MORE);
    cr_assert_eq(a.attach.proof_length, WIRE_PROOF_SIZE);
    struct auth_exchange exchange = exchange_of(&a);
    cr_assert(auth_client_proof(&exchange, wanted));
    cr_assert_eq(memcmp(a.attach.proof + 32, wanted, 32), 0);
    return a;
}

Test(link_secret, both_sides_prove_it_before_any_channel_is_named)
{
    struct block *block = subscribe_to("secret channel");
    uint8_t proof[AUTH_MAC_SIZE];
    link_start(f.io.link);
    struct asked a = expect_proof(1);
    struct auth_exchange exchange = exchange_of(&a);
    cr_assert(auth_server_proof(&exchange, proof));
    reply_with_block(&a, STATUS_OK, proof);
    a = broker_next(WIRE_ATTACH);
    cr_assert_eq(a.header.flags, 0);
    cr_assert_eq(a.attach.proof_length, 0);
    expect_record(&a, 0, WIRE_SUBSCRIBE, "secret channel", "", 0);
    broker_attach_ok(&a, 0, 0);
    WAIT_FOR(link_is_attached(f.io.link));
    cr_assert_null(f.io.link->secret);
    block_unref(block);
}

Test(link_secret, a_broker_that_does_not_know_it_is_left)
{
    uint8_t proof[AUTH_MAC_SIZE];
    link_start(f.io.link);
    struct asked a = expect_proof(1);
    struct auth_exchange exchange = exchange_of(&a);
    cr_assert(auth_client_proof(&exchange, proof)); /* reflects what it got */
    reply_with_block(&a, STATUS_OK, proof);
    WAIT_FOR(f.closed);
    broker_accept(2); /* does not ask at all */
    a = broker_next(WIRE_ATTACH);
    broker_attach_ok(&a, 0, 0);
    WAIT_FOR(f.closed);
    a = expect_proof(3); /* asks twice */
    reply_with_block(&a, STATUS_AUTH, NONCE);
    WAIT_FOR(f.closed);
}

Test(link_trust, a_broker_that_wants_a_secret_when_there_is_none)
{
    link_start(f.io.link);
    broker_accept(1);
    struct asked a = broker_next(WIRE_ATTACH);
    reply_with_block(&a, STATUS_AUTH, NONCE);
    WAIT_FOR(f.closed);
    broker_attach(2, 0, 0);
}
