/* relay: the set-up of streams and its limits (docs/protocol/dmsg.md §4.6, §6.1, §8.3). */
#include "transport/relay.h"

#include "base/cursor.h"
#include "tests/unit/prop.h"
#include "tests/unit/transport/relay_world.h"
#include "tests/unit/vectors.h"

/* ---- streams that come to nothing ---- */

static void no_object(void)
{
    struct rw_world w;
    rw_init(&w, NULL);
    struct rw_peer *a = rw_peer_new(&w, 1);
    struct rw_stream *s = rw_open(a), *t = rw_open(a);
    rw_write(t, "\1", 1); /* half of a prefix */
    rw_run(&w, 4990 * NS_PER_MS);
    assert_true(s->acked && !rw_over(s) && !rw_over(t));
    assert_int_equal(rw_stat(&w).setups, 2);
    rw_run(&w, 20 * NS_PER_MS);
    assert_true(s->eof && t->eof);
    assert_int_equal(rw_stat(&w).setups, 0);
    assert_int_equal(rw_code_count(&w, ERR_TIMEOUT), 2);
    rw_free(&w);
}

static void test_no_object(void **state)
{
    (void)state;
    rw_twice(no_object);
}

static void ping_marker(void)
{
    struct rw_world w;
    rw_init(&w, NULL);
    struct rw_peer *a = rw_peer_new(&w, 1);
    for (int i = 0; i < 3; i++) {
        struct rw_stream *s = rw_open(a);
        rw_write(s, "\0", 1);
        rw_run(&w, NS_PER_MS); /* in two pieces */
        assert_int_equal(s->got, 0);
        rw_write(s, "\0", 1);
        rw_run(&w, NS_PER_MS);
        assert_int_equal(s->got, 2);
        assert_memory_equal(s->first, "\0\0", 2);
        assert_true(s->eof);
        rw_fin(s);
    }
    assert_int_equal(rw_stat(&w).pings, 3);
    assert_int_equal(rw_stat(&w).stream_failed, 0);
    rw_free(&w);
}

static void test_ping_marker(void **state)
{
    (void)state;
    rw_twice(ping_marker);
}

/* Nothing leaves to `full` any more, and its output queue is filled from c: bulk up to the mark,
 * then objects, which may exceed it. */
static void fill_output(struct rw_world *w, struct rw_peer *c, struct rw_peer *full)
{
    struct rw_stream *bulk[3];
    for (int i = 0; i < 3; i++)
        assert_int_equal(rw_verdict(bulk[i] = rw_dial(c, &full->key.pk)), 0);
    full->inner->out.stalled = true;
    for (int i = 0; i < 3; i++)
        rw_pattern(bulk[i], 250000, false);
    rw_run(w, 10 * NS_PER_MS);
    for (unsigned i = 0; i < 200; i++) {
        struct rw_stream *s = rw_open(c);
        struct object_request req = rw_request(s, &full->key.pk);
        rw_send_request(s, &req, &c->key.sk);
        rw_run(w, NS_PER_MS);
    }
}

static void let_flow(struct rw_peer *full)
{
    full->inner->out.stalled = false;
    pipe_wake(full->inner);
}

/* The marker is not lost when the session's output is full: late 2026 clients live on it. */
static void test_ping_marker_full_output(void **state)
{
    (void)state;
    struct rw_world w;
    rw_init(&w, NULL);
    struct rw_peer *a = rw_peer_new(&w, 1), *b = rw_peer_new(&w, 2);
    fill_output(&w, a, b);
    struct rw_stream *ping = rw_open(b);
    rw_write(ping, "\0\0", 2);
    rw_run(&w, NS_PER_S);
    assert_int_equal(rw_stat(&w).pings, 0);
    let_flow(b);
    rw_run(&w, NS_PER_S);
    assert_int_equal(rw_stat(&w).pings, 1);
    assert_int_equal(ping->got, 2);
    assert_true(ping->eof);
    rw_free(&w);
}

/* Objects that cannot be opened: each refuses its stream only. */
static void sealed_objects(void)
{
    struct rw_world w;
    rw_init(&w, NULL);
    struct rw_peer *b = rw_peer_new(&w, 2);
    struct rw_raw *r = rw_raw_new(&w, 1);
    uint8_t big[65537], obj[OBJECT_ENCODED_MAX], sealed[4][OBJECT_ENCODED_MAX];
    struct object_request req = {
        .timestamp_ns = 1, .src = {r->key.pk, 1}, .dst = {b->key.pk, 2}, .noise_msg = {obj, 49}};
    uint32_t id = 1;
    size_t n;

    memset(big, 0x5a, sizeof big);
    memset(big, 0xff, 2);
    rw_raw_data(r, YAMUX_F_SYN, id, big, sizeof big);
    rw_run(&w, NS_PER_MS);
    assert_true(rw_raw_expect(r, id, YAMUX_F_FIN));

    for (uint16_t len = 1; len < 26; len++) { /* shorter than counter and tag */
        uint8_t small[32] = {0};
        put_be16(small, len);
        id += 2;
        rw_raw_data(r, YAMUX_F_SYN, id, small, 2u + len);
        rw_run(&w, NS_PER_MS);
        assert_true(rw_raw_expect(r, id, YAMUX_F_FIN));
    }
    for (size_t k = 0; k < 4; k++) { /* counters 1 … 4 */
        req.src.port++;
        n = rw_sign_request(obj, &req, &r->key.sk);
        put_be16(sealed[k], (uint16_t)(n + CIPHER_OVERHEAD));
        assert_int_equal(cipher_seal(&r->tx, sealed[k] + 2, obj, n), 0);
    }
    n += 2 + CIPHER_OVERHEAD;
    for (size_t i = 0; i < 3; i++) { /* 3, 1, 2 are all right */
        static const size_t order[] = {2, 0, 1};
        rw_raw_data(r, YAMUX_F_SYN, id += 2, sealed[order[i]], n);
        rw_run(&w, NS_PER_MS);
        assert_int_equal(b->incoming, i + 1);
    }
    assert_int_equal(rw_stat(&w).stream_ok, 3);
    rw_raw_data(r, YAMUX_F_SYN, id += 2, sealed[1], n); /* again */
    sealed[3][40] ^= 1;                                 /* forged */
    rw_raw_data(r, YAMUX_F_SYN, id += 2, sealed[3], n);
    memset(sealed[2] + 2, 0, 8); /* counter 0 */
    rw_raw_data(r, YAMUX_F_SYN, id += 2, sealed[2], n);
    rw_run(&w, NS_PER_MS);
    for (uint32_t bad = id - 4; bad <= id; bad += 2)
        assert_true(rw_raw_expect(r, bad, YAMUX_F_FIN));
    sealed[3][40] ^= 1; /* the forgery has not used the counter up */
    rw_raw_data(r, YAMUX_F_SYN, id += 2, sealed[3], n);
    rw_run(&w, NS_PER_MS);
    assert_int_equal(b->incoming, 4);
    assert_false(r->down);
    /* A replay under a new counter is forwarded like any other: the dialer of a replay cannot read
     * the answer (§4.6). */
    rw_raw_header(r, YAMUX_T_WINDOW, YAMUX_F_SYN, id += 2, 0);
    rw_raw_object(r, id, obj, n - 2 - CIPHER_OVERHEAD);
    rw_run(&w, NS_PER_MS);
    assert_int_equal(b->incoming, 5);
    rw_free(&w);
}

static void test_sealed_objects(void **state)
{
    (void)state;
    rw_twice(sealed_objects);
}

static void field_checks(void)
{
    struct rw_world w;
    rw_init(&w, NULL);
    struct rw_peer *a = rw_peer_new(&w, 1), *b = rw_peer_new(&w, 2);
    static const struct {
        int what, err;
    } rows[] = {
        {0, ERR_DMSG_REQ_SIG},
        {1, ERR_DMSG_REQ_SRC_PK},
        {2, ERR_DMSG_REQ_SRC_PORT},
        {3, ERR_DMSG_REQ_DST_PORT},
        {4, ERR_DMSG_REQ_SRC_PK},
        {5, ERR_DMSG_REQ_DST_PK},
        {6, ERR_DMSG_REQ_TIME},
        {7, ERR_DMSG_REQ_TIME},
        {8, ERR_DMSG_NO_NEXT_SESSION},
        {9, 0},
        {10, 0},
    };
    struct rw_key stranger = rw_key_of(50);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct rw_stream *s = rw_open(a);
        struct object_request req = rw_request(s, &b->key.pk);
        const struct seckey *sk = &a->key.sk;
        unsigned before = rw_code_count(&w, rows[i].err), in = b->incoming;
        switch (rows[i].what) {
        case 0: /* signed by another key */
            sk = &stranger.sk;
            break;
        case 1: /* foreign source, rightly signed by it */
            req.src.pk = stranger.pk;
            sk = &stranger.sk;
            break;
        case 2:
            req.src.port = 0;
            break;
        case 3:
            req.dst.port = 0;
            break;
        case 4:
            req.src.pk = (struct pubkey){{0}};
            break;
        case 5:
            req.dst.pk = (struct pubkey){{0}};
            break;
        case 6:
            req.timestamp_ns = 0;
            break;
        case 7:
            req.timestamp_ns = -5;
            break;
        case 8:
            req.dst.pk = stranger.pk;
            break;
        case 9: /* far past, far future: there is no clock check */
            req.timestamp_ns = 1;
            break;
        case 10:
            req.timestamp_ns = INT64_MAX;
            break;
        }
        rw_send_request(s, &req, sk);
        rw_run(&w, NS_PER_MS);
        if (rows[i].err == 0) {
            assert_int_equal(rw_verdict(s), 0);
            assert_int_equal(b->incoming, in + 1);
        } else {
            assert_true(s->eof && !s->opened);
            assert_int_equal(rw_code_count(&w, rows[i].err), before + 1);
            assert_int_equal(b->incoming, in);
        }
    }
    assert_true(!a->down && !b->down);
    assert_int_equal(rw_stat(&w).stream_failed, 9);
    assert_int_equal(rw_stat(&w).stream_ok, 2);
    rw_free(&w);
}

static void test_field_checks(void **state)
{
    (void)state;
    rw_twice(field_checks);
}

/* Every gob of the vectors as a request: nothing of it is a valid one here. */
static void test_gob_corners(void **state)
{
    (void)state;
    json_t *root = vectors_load("dmsg");
    const json_t *v;
    struct rw_world w;
    size_t i;
    rw_init(&w, NULL);
    struct rw_raw *r = rw_raw_new(&w, 1);
    uint32_t id = 1;
    json_array_foreach(vec_get(vec_get(root, "gob"), "decode"), i, v)
    {
        size_t n;
        uint8_t *gob = vec_hex_dup(v, "gob", &n), *obj = calloc(1, n + SIG_BYTES);
        struct hash digest;
        struct sig sig;
        memcpy(obj + SIG_BYTES, gob, n);
        crypto_sha256(&digest, gob, n);
        assert_int_equal(crypto_sign_digest(&sig, &r->key.sk, &digest), 0);
        object_set_sig(obj, &sig);
        rw_raw_header(r, YAMUX_T_WINDOW, YAMUX_F_SYN, id, 0);
        rw_raw_object(r, id, obj, n + SIG_BYTES);
        rw_run(&w, NS_PER_MS);
        assert_true(rw_raw_expect(r, id, YAMUX_F_FIN));
        id += 2;
        free(gob);
        free(obj);
    }
    assert_true(i > 5);
    unsigned before = rw_code_count(&w, ERR_DMSG_OBJECT);
    for (size_t n = 0; n <= SIG_BYTES; n += 22) { /* too short for a signature */
        static const uint8_t zeros[SIG_BYTES + 2];
        rw_raw_header(r, YAMUX_T_WINDOW, YAMUX_F_SYN, id, 0);
        rw_raw_object(r, id, zeros, n);
        rw_run(&w, NS_PER_MS);
        assert_true(rw_raw_expect(r, id, YAMUX_F_FIN));
        id += 2;
    }
    assert_int_equal(rw_code_count(&w, ERR_DMSG_OBJECT), before + 3);
    assert_false(r->down);
    rw_free(&w);
    json_decref(root);
}

/* Incident 8: a thousand streams of random bytes, some cut short; the next good one works. */
static void random_streams(void)
{
    struct prop rnd = prop_init("random streams");
    struct rw_world w;
    rw_init(&w, &(struct relay_cfg){.syn_per_s = 100000});
    struct rw_peer *a = rw_peer_new(&w, 1), *b = rw_peer_new(&w, 2);
    for (int i = 0; i < 1000; i++) {
        uint8_t junk[600];
        size_t n = 1 + prop_size(&rnd, sizeof junk - 1);
        struct rw_stream *s = rw_open(a);
        prop_bytes(&rnd, junk, n);
        if (prop_chance(&rnd, 50)) /* a length that comes */
            put_be16(junk, (uint16_t)prop_below(&rnd, n > 2 ? n : 1));
        if (n > 1 && junk[0] == 0 && junk[1] == 0)
            junk[1] = 30;
        rw_write(s, junk, n);
        if (prop_chance(&rnd, 20))
            rw_fin(s);
        else if (prop_chance(&rnd, 20))
            rw_reset(s);
        if (prop_chance(&rnd, 30))
            rw_run(&w, NS_PER_MS);
    }
    rw_run(&w, 6 * NS_PER_S);
    assert_true(!a->down && !b->down);
    assert_int_equal(rw_stat(&w).setups, 0);
    assert_int_equal(rw_stat(&w).stream_failed, rw_stat(&w).streams);
    assert_true(rw_stat(&w).streams > 500); /* some are reset before they are seen */
    assert_int_equal(rw_verdict(rw_dial(a, &b->key.pk)), 0);
    rw_free(&w);
}

static void test_random_streams(void **state)
{
    (void)state;
    rw_twice(random_streams);
}

/* ---- the destination ---- */

static void answers(void)
{
    struct rw_world w;
    rw_init(&w, NULL);
    struct rw_peer *a = rw_peer_new(&w, 1), *b = rw_peer_new(&w, 2);
    static const struct {
        enum rw_answer how;
        int verdict; /* -1: the stream just ends */
        int err;     /* counted */
    } rows[] = {
        {RW_ACCEPT, 0, 0},
        {RW_REFUSE, ERR_DMSG_NO_LISTENER, ERR_DMSG_NO_LISTENER},
        {RW_REFUSE_NO_REASON, ERR_DMSG_RSP_REJECTED, ERR_DMSG_RSP_REJECTED},
        {RW_REFUSE_BAD_SIG, -1, ERR_DMSG_RSP_SIG},
        {RW_WRONG_SIGNER, -1, ERR_DMSG_RSP_SIG},
        {RW_WRONG_HASH, -1, ERR_DMSG_RSP_HASH},
        {RW_BAD_GOB, -1, ERR_FORMAT},
        {RW_SHORT_OBJECT, -1, ERR_DMSG_OBJECT},
        {RW_LONG_OBJECT, -1, ERR_TOO_LONG},
        {RW_PING_MARKER, -1, ERR_DMSG_OBJECT},
        {RW_FIN, -1, ERR_EOF},
        {RW_RESET, -1, ERR_RESET},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        unsigned before = rw_code_count(&w, rows[i].err);
        uint64_t t = pipe_now(&w.net);
        b->answer = rows[i].how;
        struct rw_stream *s = rw_dial(a, &b->key.pk);
        rw_run(&w, 10 * NS_PER_MS);
        assert_true(pipe_now(&w.net) - t < 100 * NS_PER_MS);
        assert_int_equal(rw_verdict(s), rows[i].verdict);
        if (rows[i].err != 0) {
            assert_true(s->eof && !s->reset); /* in order, after what was passed on */
            assert_int_equal(rw_code_count(&w, rows[i].err), before + 1);
            assert_int_equal(rw_stat(&w).setups + rw_stat(&w).bridges, 0);
        }
        struct rw_stream *in = rw_last_incoming(b);
        if (rows[i].how == RW_REFUSE)
            assert_true(in->eof && !in->reset);
        if (s->st != NULL)
            rw_reset(s);
        rw_run(&w, NS_PER_MS);
    }
    assert_true(!a->down && !b->down);
    rw_free(&w);
}

static void test_answers(void **state)
{
    (void)state;
    rw_twice(answers);
}

static void never_answers(void)
{
    struct rw_world w;
    rw_init(&w, NULL);
    struct rw_peer *a = rw_peer_new(&w, 1), *b = rw_peer_new(&w, 2);
    uint64_t t = pipe_now(&w.net);
    b->answer = RW_SILENT;
    struct rw_stream *s = rw_dial(a, &b->key.pk);
    assert_in_range(pipe_now(&w.net) - t, 4900 * NS_PER_MS, 5100 * NS_PER_MS);
    assert_true(s->eof);
    rw_run(&w, NS_PER_MS);
    assert_true(rw_last_incoming(b)->reset);
    assert_int_equal(rw_code_count(&w, ERR_TIMEOUT), 1);

    s = rw_open(a); /* the answer's time begins with the request */
    rw_run(&w, 4 * NS_PER_S);
    struct object_request req = rw_request(s, &b->key.pk);
    rw_send_request(s, &req, &a->key.sk);
    rw_run(&w, 4900 * NS_PER_MS);
    assert_false(rw_over(s));
    rw_run(&w, 200 * NS_PER_MS);
    assert_true(s->eof);
    rw_free(&w);
}

static void test_never_answers(void **state)
{
    (void)state;
    rw_twice(never_answers);
}

/* The source, or the destination, vanishes at every stage of the set-up. */
static void vanish(void)
{
    for (int who = 0; who < 2; who++)
        for (unsigned turns = 0; turns < 40; turns++) {
            struct rw_world w;
            rw_init(&w, NULL);
            w.net.fault.delay_ns = NS_PER_MS;
            w.net.pk_per_turn = 1;
            struct rw_peer *a = rw_peer_new(&w, 1), *b = rw_peer_new(&w, 2);
            struct rw_stream *s = rw_open(a);
            struct object_request req = rw_request(s, &b->key.pk);
            b->answer = RW_ACCEPT_GLUED;
            rw_send_request(s, &req, &a->key.sk);
            for (unsigned i = 0; i < turns; i++)
                rw_run(&w, NS_PER_MS / 4);
            rw_peer_close(who == 0 ? a : b);
            rw_run(&w, 100 * NS_PER_MS);
            assert_int_equal(rw_stat(&w).sessions, 1);
            assert_true(rw_all_zero(&w));
            if (who == 1)
                assert_true(rw_over(s));
            rw_free(&w);
        }
}

static void test_vanish(void **state)
{
    (void)state;
    rw_twice(vanish);
}

/* The request, or the answer, meets an output queue that is full: it waits, without spinning (the
 * pipe aborts on that), and goes when there is room; or its time runs out. */
static void no_room(void)
{
    for (int back = 0; back < 2; back++)
        for (int too_long = 0; too_long < 2; too_long++) {
            struct rw_world w;
            rw_init(&w, NULL);
            struct rw_peer *a = rw_peer_new(&w, 1), *b = rw_peer_new(&w, 2),
                           *c = rw_peer_new(&w, 3);
            struct rw_peer *full = back ? a : b;
            fill_output(&w, c, full);
            struct rw_stream *s = rw_open(a);
            struct object_request req = rw_request(s, &b->key.pk);
            rw_send_request(s, &req, &a->key.sk);
            rw_run(&w, NS_PER_S);
            assert_false(s->opened);
            if (too_long)
                rw_run(&w, 5 * NS_PER_S);
            let_flow(full);
            rw_run(&w, NS_PER_S);
            if (too_long)
                assert_true(rw_over(s) && !s->opened);
            else
                assert_int_equal(rw_verdict(s), 0);
            assert_true(!a->down && !b->down && !c->down);
            rw_free(&w);
        }
}

static void test_no_room(void **state)
{
    (void)state;
    rw_twice(no_room);
}

/* ---- special destinations ---- */

static void loopback(void)
{
    struct rw_world w;
    rw_init(&w, NULL);
    struct rw_peer *a = rw_peer_new(&w, 1);
    a->echo = true;
    struct rw_stream *s = rw_dial(a, &a->key.pk);
    assert_int_equal(rw_verdict(s), 0);
    rw_pattern(s, 300000, true);
    rw_run(&w, NS_PER_S);
    assert_true(s->eof && !s->wrong);
    assert_int_equal(s->got, 300000);
    assert_int_equal(rw_stat(&w).bridges, 0);
    assert_int_equal(rw_stat(&w).bytes, 600000);
    rw_free(&w);
}

static void test_loopback(void **state)
{
    (void)state;
    rw_twice(loopback);
}

static void own_key(void)
{
    struct rw_world w;
    rw_init(&w, NULL);
    struct rw_peer *a = rw_peer_new(&w, 1);
    struct rw_stream *s = rw_dial(a, &w.key.pk);
    assert_true(s->eof && !s->opened); /* nobody is attached: closed */
    assert_int_equal(rw_code_count(&w, ERR_DMSG_NO_NEXT_SESSION), 1);

    struct rw_peer *own = rw_peer_start(&w, &w.key, true);
    rw_run(&w, NS_PER_MS);
    assert_true(own->up);
    assert_int_equal(rw_stat(&w).handshakes, 0);
    s = rw_dial(a, &w.key.pk);
    assert_int_equal(rw_verdict(s), 0);
    assert_int_equal(own->incoming, 1);
    assert_int_equal(rw_verdict(rw_dial(own, &a->key.pk)), 0);
    rw_free(&w);
}

static void test_own_key(void **state)
{
    (void)state;
    rw_twice(own_key);
}

/* The answer of the relay to an IP look-up; NULL when there was none. */
static struct rw_stream *ip_lookup(struct rw_peer *p, const struct pubkey *dst, uint16_t port)
{
    struct rw_stream *s = rw_open(p);
    struct object_request req = rw_request(s, dst);
    req.dst.port = port;
    req.ip_info = true;
    req.noise_msg = (struct gob_bytes){0};
    rw_send_request(s, &req, &p->key.sk);
    rw_run(p->w, 10 * NS_PER_MS);
    return s;
}

static void ip_lookups(void)
{
    struct rw_world w;
    struct object_response rsp;
    struct hash digest;
    struct sig sig;
    rw_init(&w, NULL);
    struct rw_peer *a = rw_peer_new(&w, 1), *b = rw_peer_new(&w, 2);
    struct rw_key k6 = rw_key_of(3);
    for (int i = 0; i < 4; i++) {
        if (i == 2) { /* a client with the server's own key must not break it (§8.3) */
            struct rw_peer *own = rw_peer_start(&w, &w.key, false);
            rw_run(&w, NS_PER_MS);
            assert_true(own->up);
        }
        struct rw_stream *s = ip_lookup(a, &w.key.pk, (uint16_t)(1 + i));
        assert_true(s->opened && s->eof);
        assert_int_equal(object_decode_response(&rsp, s->obj, s->obj_n), 0);
        object_digest(&digest, s->obj, s->obj_n);
        object_get_sig(&sig, s->obj);
        assert_int_equal(crypto_verify_digest(&w.key.pk, &sig, &digest), 0);
        assert_true(rsp.accepted && rsp.ip.n == 4);
        assert_memory_equal(rsp.ip.p, "\x7f\0\0\1", 4);
        assert_int_equal(rw_stat(&w).ip_lookups, i + 1);
    }
    /* IPv6. */
    struct rw_peer *six = rw_peer_start(&w, &k6, false);
    six->inner->conn.peer_ip_len = 16;
    memset(six->inner->conn.peer_ip, 0xfd, 16);
    rw_run(&w, NS_PER_MS);
    struct rw_stream *s = ip_lookup(six, &w.key.pk, 1);
    assert_int_equal(object_decode_response(&rsp, s->obj, s->obj_n), 0);
    assert_int_equal(rsp.ip.n, 16);
    /* To another key the flag means nothing: forwarded like any other. */
    s = ip_lookup(a, &b->key.pk, 1);
    assert_int_equal(rw_verdict(s), 0);
    assert_int_equal(b->incoming, 1);
    assert_int_equal(rw_stat(&w).ip_lookups, 5);
    assert_int_equal(rw_stat(&w).bridges, 1);
    rw_free(&w);
}

static void test_ip_lookups(void **state)
{
    (void)state;
    rw_twice(ip_lookups);
}

/* ---- limits of streams ---- */

static void test_syn_bucket(void **state)
{
    (void)state;
    struct rw_world w;
    rw_init(&w, &(struct relay_cfg){.syn_per_s = 10});
    struct rw_raw *r = rw_raw_new(&w, 1);
    uint32_t id = 1;
    uint64_t ok = 0;
    for (int i = 0; i < 220; i++, id += 2) /* two hundred at once */
        rw_raw_data(r, YAMUX_F_SYN, id, (const uint8_t[2]){0, 0}, 2);
    rw_run(&w, NS_PER_MS);
    assert_int_equal(rw_stat(&w).pings, ok = 200);
    assert_int_equal(rw_stat(&w).syn_limited, 20);
    for (int i = 0; i < 97; i++, id += 2) { /* then ten per second, however they are spread */
        rw_raw_data(r, YAMUX_F_SYN, id, (const uint8_t[2]){0, 0}, 2);
        rw_run(&w, 31 * NS_PER_MS);
    }
    assert_in_range(rw_stat(&w).pings - ok, 29, 31);
    ok = rw_stat(&w).pings;
    rw_run(&w, 30 * NS_PER_S); /* no more than two hundred are saved up */
    for (int i = 0; i < 220; i++, id += 2)
        rw_raw_data(r, YAMUX_F_SYN, id, (const uint8_t[2]){0, 0}, 2);
    rw_run(&w, NS_PER_MS);
    assert_int_equal(rw_stat(&w).pings - ok, 200);
    assert_false(r->down);
    /* Refusals are RST, before any signature was looked at. */
    assert_true(rw_raw_expect(r, id - 2, YAMUX_F_RST));
    assert_int_equal(w.env.ops[PK_VERIFY], 0);
    rw_free(&w);
}

/* 513 SYNs in one segment: one too many waits, RST for that one. */
static void test_backlog(void **state)
{
    (void)state;
    struct rw_world w;
    rw_init(&w, &(struct relay_cfg){.syn_per_s = 10000});
    struct rw_raw *r = rw_raw_new(&w, 1);
    for (uint32_t i = 0; i < 513; i++)
        rw_raw_header(r, YAMUX_T_WINDOW, YAMUX_F_SYN, 1 + 2 * i, 0);
    rw_run(&w, NS_PER_MS);
    assert_int_equal(rw_stat(&w).setups, 512);
    assert_true(rw_raw_expect(r, 1025, YAMUX_F_RST));
    assert_false(r->down);
    rw_run(&w, 6 * NS_PER_S);
    assert_int_equal(rw_stat(&w).setups, 0);
    rw_free(&w);
}

static void test_max_streams(void **state)
{
    (void)state;
    struct rw_world w;
    rw_init(&w, &(struct relay_cfg){.max_streams = 8});
    struct rw_peer *a = rw_peer_new(&w, 1), *b = rw_peer_new(&w, 2);
    struct rw_stream *s[9];
    for (int i = 0; i < 9; i++)
        s[i] = rw_dial(a, &b->key.pk);
    assert_int_equal(rw_verdict(s[7]), 0);
    assert_true(s[8]->reset);
    /* The other direction is full too: the destination cannot be reached, its dialer is told. */
    struct rw_peer *c = rw_peer_new(&w, 3);
    struct rw_stream *t = rw_dial(c, &b->key.pk);
    assert_true(t->eof && !t->opened);
    rw_reset(s[0]);
    rw_run(&w, NS_PER_MS);
    assert_int_equal(rw_verdict(rw_dial(c, &b->key.pk)), 0);
    rw_free(&w);
}

/* The pool of public-key work is full: streams and handshakes are refused, not kept. */
static void test_pk_busy(void **state)
{
    (void)state;
    struct rw_world w;
    rw_init(&w, NULL);
    struct rw_peer *a = rw_peer_new(&w, 1), *b = rw_peer_new(&w, 2);
    struct rw_key k = rw_key_of(3);
    w.env.pk_cap = 0;
    struct rw_stream *s = rw_dial(a, &b->key.pk);
    assert_true(s->eof && !s->opened);
    assert_int_equal(rw_code_count(&w, ERR_BUSY), 1);
    struct rw_raw *r = rw_raw_start(&w, &k);
    uint8_t msg[128];
    rw_raw_send(r, msg, rw_raw_message(r, msg));
    rw_run(&w, NS_PER_MS);
    assert_true(r->down);
    w.env.pk_cap = ENV_TEST_PK_CAP;
    assert_int_equal(rw_verdict(rw_dial(a, &b->key.pk)), 0);
    rw_free(&w);
}

/* Pings and credit for nothing: memory stays bounded, and who does not read is dropped. */
static void test_floods(void **state)
{
    (void)state;
    struct rw_world w;
    rw_init(&w, NULL);
    struct rw_raw *r = rw_raw_new(&w, 1);
    for (uint32_t i = 0; i < 20000; i++)
        rw_raw_header(r, YAMUX_T_PING, YAMUX_F_SYN, 0, i);
    rw_run(&w, NS_PER_S);
    if (!r->down) { /* read by the peer: answered one by one */
        struct rw_frame f;
        for (uint32_t i = 0; i < 20000; i++)
            assert_true(rw_raw_frame(r, &f) && f.type == YAMUX_T_PING && f.len == i);
    }
    r = rw_raw_new(&w, 1);
    r->inner->out.stalled = true;
    for (uint32_t i = 0; i < 20000; i++)
        rw_raw_header(r, YAMUX_T_PING, YAMUX_F_SYN, 0, i);
    rw_run(&w, NS_PER_MS);
    assert_true(r->down);

    r = rw_raw_new(&w, 1);
    rw_raw_header(r, YAMUX_T_WINDOW, YAMUX_F_SYN, 1, 0);
    for (uint32_t i = 0; i < 20000; i++)
        rw_raw_header(r, YAMUX_T_WINDOW, 0, 1, 1);
    rw_run(&w, NS_PER_MS);
    assert_false(r->down);

    /* 1-byte frames into streams that nobody reads: what they pin stays near what they hold. */
    for (uint32_t i = 0; i < 40000; i++)
        rw_raw_data(r, 0, 1, "\xff", 1);
    rw_run(&w, 100 * NS_PER_MS);
    assert_false(r->down);
    assert_int_equal(rw_stat(&w).buffered, 40000);
    assert_in_range(bufpool_in_use(w.pool), 1, 40000 / 512 + 16); /* buffers of 512 bytes */
    rw_free(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_object),
        cmocka_unit_test(test_ping_marker),
        cmocka_unit_test(test_ping_marker_full_output),
        cmocka_unit_test(test_sealed_objects),
        cmocka_unit_test(test_field_checks),
        cmocka_unit_test(test_gob_corners),
        cmocka_unit_test(test_random_streams),
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_never_answers),
        cmocka_unit_test(test_vanish),
        cmocka_unit_test(test_no_room),
        cmocka_unit_test(test_loopback),
        cmocka_unit_test(test_own_key),
        cmocka_unit_test(test_ip_lookups),
        cmocka_unit_test(test_syn_bucket),
        cmocka_unit_test(test_backlog),
        cmocka_unit_test(test_max_streams),
        cmocka_unit_test(test_pk_busy),
        cmocka_unit_test(test_floods),
    };
    int failed = 0;
    for (rw_workers = 1; rw_workers <= 3; rw_workers += 2)
        failed +=
            cmocka_run_group_tests_name(rw_workers == 1 ? "alone" : "workers", tests, NULL, NULL);
    return failed;
}
