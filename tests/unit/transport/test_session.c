/* session: recorded handshakes and a recorded run of real peers, and public-key work at every pace. */
#include "transport/session.h"

#include "base/cursor.h"
#include "base/err.h"
#include "base/loop.h"
#include "tests/unit/transport/session_side.h"
#include "tests/unit/vectors.h"

/* ---- recorded bytes ---- */

static json_t *root;

static int load(void **state)
{
    (void)state;
    root = vectors_load("dmsg");
    return 0;
}

static int unload(void **state)
{
    (void)state;
    json_decref(root);
    return 0;
}

static void use_keys(struct session_side *p, const json_t *obj, const char *sk, const char *pk)
{
    vec_hex(obj, sk, &p->sk, sizeof p->sk);
    vec_hex(obj, pk, &p->pk, sizeof p->pk);
}

static void script_hex(struct session_side *p, const json_t *obj, const char *key)
{
    uint8_t e[32];
    vec_hex(obj, key, e, sizeof e);
    env_test_script(&p->env, e, sizeof e);
}

static void expect_out(struct session_side *p, const char *hex)
{
    size_t n;
    uint8_t *want = hex_dup(hex, &n);
    ss_take(p);
    assert_int_equal(p->out_len, n);
    assert_memory_equal(p->out, want, n);
    p->out_len = 0;
    free(want);
}

static void feed_vec(struct session_side *p, const json_t *v, const char *key, size_t chunk)
{
    size_t n;
    uint8_t *bytes = vec_hex_dup(v, key, &n);
    assert_int_equal(ss_feed(p, bytes, n, chunk), 0);
    assert_int_equal(ss_work(p), 0);
    free(bytes);
}

/* One role of the recorded XK handshake, then its sealed messages as objects. */
static void replay_xk(bool initiator, bool deferred, size_t chunk)
{
    const json_t *xk = vec_get(root, "noise_xk"), *msgs = vec_get(xk, "messages"), *v;
    const char *self = initiator ? "initiator" : "responder";
    struct session_side p;
    struct pubkey remote;
    size_t i;
    ss_init(&p, 7);
    use_keys(&p, xk, initiator ? "initiator_static_sk" : "responder_static_sk",
             initiator ? "initiator_static_pk" : "responder_static_pk");
    script_hex(&p, xk, initiator ? "initiator_ephemeral_sk" : "responder_ephemeral_sk");
    vec_hex(xk, initiator ? "responder_static_pk" : "initiator_static_pk", &remote, sizeof remote);
    p.env.deferred = deferred;
    ss_start(&p, initiator ? &remote : NULL);
    json_array_foreach(msgs, i, v)
    {
        assert_int_equal(ss_work(&p), 0);
        if (strcmp(vec_str(v, "from"), self) == 0)
            expect_out(&p, vec_str(v, "framed"));
        else
            feed_vec(&p, v, "framed", chunk);
    }
    assert_int_equal(ss_work(&p), 0);
    assert_true(p.up && session_is_up(p.s));
    assert_memory_equal(session_remote(p.s), &remote, sizeof remote);

    struct yamux_stream *st;
    assert_int_equal(yamux_open(session_mux(p.s), NULL, p.now_ns, &st), 0);
    ss_take(&p);
    p.out_len = 0;
    json_array_foreach(vec_get(xk, "transport"), i, v)
    {
        size_t n;
        uint8_t *plain = vec_hex_dup(v, "plaintext", &n), got[256];
        if (strcmp(vec_str(v, "from"), self) == 0) {
            assert_int_equal(session_write_object(p.s, st, plain, n), 0);
            size_t len;
            uint8_t *framed = vec_hex_dup(v, "framed", &len);
            ss_take(&p);
            assert_int_equal(p.out_len, YAMUX_HEADER_BYTES + len);
            assert_memory_equal(p.out + YAMUX_HEADER_BYTES, framed, len);
            p.out_len = 0;
            free(framed);
        } else {
            char head[64];
            enum session_read what;
            size_t got_n;
            snprintf(head, sizeof head, "00000000%08x%08zx", st->id,
                     strlen(vec_str(v, "framed")) / 2);
            assert_int_equal(ss_feed_hex(&p, head), 0);
            feed_vec(&p, v, "framed", chunk);
            assert_int_equal(session_read_object(p.s, st, &what, got, sizeof got, &got_n), 0);
            assert_int_equal(what, SESSION_READ_OBJECT);
            assert_int_equal(got_n, n);
            assert_memory_equal(got, plain, n);
        }
        free(plain);
    }
    ss_close(&p);
}

static void test_vector_xk(void **state)
{
    (void)state;
    for (int mode = 0; mode < 8; mode++)
        replay_xk(mode & 1, mode & 2, mode & 4 ? 1 : 65536);
}

/* A hybrid offer in message 1 is ignored: classical keys, empty answer (incident 1). */
static void test_vector_hybrid_offer(void **state)
{
    const json_t *xk = vec_get(root, "noise_2026_xk_hybrid_offer_refused");
    const json_t *msgs = vec_get(xk, "messages");
    (void)state;
    for (int deferred = 0; deferred < 2; deferred++) {
        struct session_side p;
        char framed[2][3000];
        ss_init(&p, 7);
        use_keys(&p, vec_get(root, "noise_xk"), "responder_static_sk", "responder_static_pk");
        script_hex(&p, xk, "responder_ephemeral_sk");
        p.env.deferred = deferred != 0;
        ss_start(&p, NULL);
        for (size_t i = 0; i < 3; i++) {
            const json_t *v = json_array_get(msgs, i);
            char *hex = framed[i % 2];
            snprintf(hex, sizeof framed[0], "%04llx%s", vec_int(v, "length"),
                     vec_str(v, "message"));
            if (i == 1)
                expect_out(&p, hex);
            else
                assert_int_equal(ss_feed_hex(&p, hex), 0);
            assert_int_equal(ss_work(&p), 0);
        }
        assert_true(p.up);
        ss_close(&p);
    }
}

static void vec_secret_of_role(const char *role, uint8_t out[32])
{
    const json_t *v;
    size_t i;
    json_array_foreach(vec_get(vec_get(root, "transcript"), "random_outputs"), i, v)
    {
        if (strcmp(vec_str(v, "role"), role) == 0) {
            vec_hex(v, "out", out, 32);
            return;
        }
    }
    fail_msg("no random output \"%s\"", role);
}

/* Our own SYNs in recorded bytes: the streams that we have to open. */
static void open_recorded(struct session_side *p, const uint8_t *bytes, size_t n)
{
    struct rd r = rd_init(bytes, n);
    while (rd_left(&r) > 0) {
        uint8_t version = rd_u8(&r), type = rd_u8(&r);
        uint16_t flags = rd_be16(&r);
        uint32_t id = rd_be32(&r), len = rd_be32(&r);
        if (version != 0 || rd_failed(&r))
            return; /* a body in a segment of its own */
        if (flags & YAMUX_F_SYN) {
            assert_int_equal(yamux_open(session_mux(p->s), NULL, p->now_ns, &p->streams[id]), 0);
            assert_int_equal(p->streams[id]->id, id);
        }
        rd_skip(&r, type == YAMUX_T_DATA ? len : 0);
    }
}

/* Objects that this side was sent, and those that it sent itself, sealed again by us. */
static void check_objects(struct session_side *p, const json_t *decoded, const char *self)
{
    const json_t *v;
    size_t i;
    json_array_foreach(vec_get(decoded, "streams"), i, v)
    {
        static uint8_t got[SESSION_OBJECT_MAX];
        size_t n, rest_n, got_n;
        uint8_t *object = vec_hex_dup(v, "signed_object", &n);
        struct yamux_stream *st = p->streams[vec_int(v, "stream")];
        assert_non_null(st);
        if (strcmp(vec_str(v, "from"), self) != 0) {
            enum session_read what;
            uint8_t *rest = vec_hex_dup(v, "after_object_hex", &rest_n);
            assert_int_equal(session_read_object(p->s, st, &what, got, sizeof got, &got_n), 0);
            assert_int_equal(got_n, n);
            assert_memory_equal(got, object, n);
            assert_int_equal(yamux_read(st, got, sizeof got), rest_n);
            assert_memory_equal(got, rest, rest_n);
            free(rest);
        } else {
            size_t sealed_n;
            uint8_t *sealed = vec_hex_dup(v, "object_sealed", &sealed_n);
            struct yamux_stream *out;
            assert_int_equal(yamux_open(session_mux(p->s), NULL, p->now_ns, &out), 0);
            ss_take(p);
            p->out_len = 0;
            assert_int_equal(session_write_object(p->s, out, object, n), 0);
            ss_take(p);
            assert_int_equal(p->out_len, YAMUX_HEADER_BYTES + 2 + sealed_n);
            assert_memory_equal(p->out + YAMUX_HEADER_BYTES + 2, sealed, sealed_n);
            p->out_len = 0;
            free(sealed);
        }
        free(object);
    }
}

/* Be one end of one recorded TCP connection: same handshake bytes, every object opens. */
static void replay_transcript(size_t conn, bool server, size_t chunk)
{
    const json_t *t = vec_get(root, "transcript"), *v;
    const json_t *decoded = json_array_get(vec_get(t, "decoded_by_independent_reader"), conn);
    const char *name = vec_str(decoded, "conn"), *self = server ? "server" : name;
    char role[64], key[32];
    struct session_side p;
    struct pubkey remote;
    uint8_t e[32];
    size_t i;
    ss_init(&p, 3);
    snprintf(key, sizeof key, "client_%c_sk", name[0] + 32);
    vec_hex(t, server ? "server_sk" : key, &p.sk, sizeof p.sk);
    snprintf(key, sizeof key, "client_%c_pk", name[0] + 32);
    vec_hex(t, server ? "server_pk" : key, &p.pk, sizeof p.pk);
    vec_hex(t, server ? key : "server_pk", &remote, sizeof remote);
    snprintf(role, sizeof role,
             server ? "XK ephemeral secret of the server for client %s"
                    : "XK ephemeral secret of client %s",
             name);
    vec_secret_of_role(role, e);
    env_test_script(&p.env, e, sizeof e);
    ss_start(&p, server ? NULL : &remote);

    unsigned hellos = 0;
    json_array_foreach(vec_get(t, "events"), i, v)
    {
        const json_t *c = json_object_get(v, "conn");
        if (c == NULL || strcmp(json_string_value(c), name) != 0)
            continue;
        size_t n;
        uint8_t *bytes = vec_hex_dup(v, "hex", &n);
        if (strcmp(vec_str(v, "to"), self) == 0) {
            assert_int_equal(ss_feed(&p, bytes, n, chunk), 0);
        } else if (hellos < (server ? 1 : 2)) {
            hellos++;
            expect_out(&p, vec_str(v, "hex"));
        } else {
            open_recorded(&p, bytes, n);
        }
        free(bytes);
    }
    assert_true(p.up);
    assert_memory_equal(session_remote(p.s), &remote, sizeof remote);
    ss_take(&p);
    p.out_len = 0;
    check_objects(&p, decoded, self);
    ss_close(&p);
}

static void test_transcript(void **state)
{
    (void)state;
    for (size_t conn = 0; conn < 2; conn++)
        for (int mode = 0; mode < 4; mode++)
            replay_transcript(conn, mode & 1, mode & 2 ? 1 : 65536);
}

/* ---- handshake ---- */

static void test_connect_at_any_pace(void **state)
{
    static const size_t chunks[] = {1, 2, 50, 65536};
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        for (int deferred = 0; deferred < 4; deferred++) {
            struct session_side p[2];
            struct yamux_stream *st[2];
            ss_pair_init(p);
            p[0].env.deferred = deferred & 1;
            p[1].env.deferred = deferred & 2;
            ss_pair_connect(p, chunks[i]);
            assert_true(pubkey_equal(session_remote(p[0].s), &p[1].pk));
            assert_true(pubkey_equal(session_remote(p[1].s), &p[0].pk));
            assert_true(session_initiator(p[0].s) && !session_initiator(p[1].s));
            ss_open_stream(p, st);
            assert_int_equal(session_next(p[0].s), SESSION_EV_NONE);
            ss_pair_close(p);
        }
    }
}

/* Message 3, a SYN and data in one segment (incident 4), also while the work is under way. */
static void test_bytes_behind_message_3(void **state)
{
    (void)state;
    for (int deferred = 0; deferred < 2; deferred++) {
        struct session_side p[2];
        struct yamux_stream *st;
        ss_pair_init(p);
        ss_start(&p[1], NULL);
        ss_start(&p[0], &p[1].pk);
        assert_int_equal(ss_pass(&p[0], &p[1], 65536), 0);
        assert_int_equal(ss_pass(&p[1], &p[0], 65536), 0);
        assert_int_equal(yamux_open(session_mux(p[0].s), NULL, 1, &st), 0);
        assert_int_equal(yamux_write(st, "glued", 5), 5);
        ss_take(&p[0]);
        p[1].env.deferred = deferred != 0;
        assert_int_equal(ss_feed(&p[1], p[0].out, p[0].out_len, 65536), 0);
        assert_int_equal(session_stop_reading(p[1].s), deferred);
        if (deferred) { /* more of it meanwhile */
            p[0].out_len = 0;
            assert_int_equal(yamux_write(st, "more", 4), 4);
            ss_take(&p[0]);
            assert_int_equal(ss_feed(&p[1], p[0].out, p[0].out_len, 1), 0);
        }
        assert_int_equal(ss_work(&p[1]), 0);
        assert_true(p[1].up);
        assert_false(session_stop_reading(p[1].s));
        assert_non_null(p[1].streams[1]);
        assert_int_equal(yamux_readable(p[1].streams[1]), deferred ? 9 : 5);
        ss_pair_close(p);
    }
}

/* A session that is up waits: it goes on here, or under another env and pool, with what came early. */
static void test_goes_on_elsewhere(void **state)
{
    (void)state;
    for (int moves = 0; moves < 2; moves++) {
        struct session_side p[3];
        struct session_cfg cfg = {.keepalive_ms = 30000, .wait_at_up = true};
        struct session_state st = {0}, none = {0};
        struct yamux_stream *ours;
        enum session_read what;
        uint8_t obj[SESSION_OBJECT_MAX];
        size_t n;
        ss_pair_init(p);
        ss_init(&p[2], 3);
        ss_start_cfg(&p[1], NULL, cfg);
        ss_start(&p[0], &p[1].pk);
        assert_int_equal(ss_pass(&p[0], &p[1], 65536), 0);
        assert_int_equal(ss_pass(&p[1], &p[0], 65536), 0);
        assert_int_equal(yamux_open(session_mux(p[0].s), NULL, 1, &ours), 0);
        assert_int_equal(session_write_object(p[0].s, ours, "early", 5), 0);
        assert_int_equal(ss_pass(&p[0], &p[1], 7), 0);
        assert_true(p[1].up && session_mux(p[1].s) == NULL);
        struct session_side *to = &p[1];
        if (moves) {
            assert_int_equal(session_export(p[1].s, &st), 0);
            assert_int_equal(session_error(p[1].s), ERR_CLOSED);
            assert_true(st.early_n > 5 && pubkey_equal(&st.remote, &p[0].pk));
            to = &p[2];
            cfg.env = &to->env.env;
            cfg.pool = to->pool;
            assert_non_null(to->s = session_import(&cfg, &st, to->now_ns));
            assert_memory_equal(&st, &none, sizeof st);
        } else {
            assert_int_equal(session_go(to->s), 0);
        }
        ss_pump(to);
        assert_true(to->up && session_is_up(to->s));
        assert_true(pubkey_equal(session_remote(to->s), &p[0].pk));
        struct yamux_stream *theirs = to->streams[1];
        assert_non_null(theirs);
        assert_int_equal(session_read_object(to->s, theirs, &what, obj, sizeof obj, &n), 0);
        assert_true(n == 5 && memcmp(obj, "early", 5) == 0);
        assert_int_equal(session_write_object(to->s, theirs, "answer", 6), 0);
        assert_int_equal(ss_pass(to, &p[0], 65536), 0);
        assert_int_equal(session_read_object(p[0].s, ours, &what, obj, sizeof obj, &n), 0);
        assert_true(n == 6 && memcmp(obj, "answer", 6) == 0);
        assert_int_equal(session_write_object(p[0].s, ours, "more", 4), 0);
        assert_int_equal(ss_pass(&p[0], to, 65536), 0);
        assert_int_equal(session_read_object(to->s, theirs, &what, obj, sizeof obj, &n), 0);
        assert_int_equal(n, 4);
        ss_pair_close(p);
        ss_close(&p[2]);
    }
}

static void test_input_kept_is_bounded(void **state)
{
    static uint8_t lots[65536];
    struct session_side p[2];
    (void)state;
    ss_pair_init(p);
    ss_start(&p[1], NULL);
    ss_start(&p[0], &p[1].pk);
    p[1].env.deferred = true;
    ss_take(&p[0]);
    assert_int_equal(ss_feed(&p[1], p[0].out, p[0].out_len, 65536), 0);
    assert_false(session_stop_reading(p[1].s)); /* nothing waits yet */
    assert_int_equal(ss_feed(&p[1], lots, 65000, 65536), 0);
    assert_true(session_stop_reading(p[1].s));
    assert_int_equal(ss_feed(&p[1], lots, 536, 65536), 0);
    assert_int_equal(ss_feed(&p[1], lots, 1, 65536), ERR_LIMIT);
    assert_int_equal(bufpool_in_use(p[1].pool), 0);
    ss_pair_close(p);
}

static void test_bytes_behind_message_2(void **state)
{
    (void)state;
    for (int deferred = 0; deferred < 2; deferred++) {
        struct session_side p[2];
        ss_pair_init(p);
        ss_start(&p[1], NULL);
        ss_start(&p[0], &p[1].pk);
        assert_int_equal(ss_pass(&p[0], &p[1], 65536), 0);
        ss_take(&p[1]);
        assert_true(p[1].out_cap > p[1].out_len);
        p[1].out[p[1].out_len++] = 0;
        p[0].env.deferred = deferred != 0;
        int rc = ss_feed(&p[0], p[1].out, p[1].out_len, 65536);
        if (deferred)
            rc = ss_work(&p[0]);
        assert_int_equal(rc, ERR_DMSG_EXTRA_BYTES);
        ss_pair_close(p);
    }
}

/* Freed at every stage of the work: nothing is called any more, nothing leaks. */
static void test_free_at_every_step(void **state)
{
    (void)state;
    for (size_t stop = 0; stop < 40; stop++) {
        struct session_side p[2];
        ss_pair_init(p);
        p[0].env.deferred = p[1].env.deferred = true;
        ss_start(&p[1], NULL);
        ss_start(&p[0], &p[1].pk);
        for (size_t step = 0; step < stop; step++) {
            struct session_side *a = &p[step % 2], *b = &p[1 - step % 2];
            if (env_test_run(&a->env, 1) > 0 && a->readies > 0) {
                a->readies = 0;
                assert_int_equal(session_tick(a->s, a->now_ns), 0);
            }
            ss_take(a);
            assert_int_equal(ss_feed(b, a->out, a->out_len, 65536), 0);
            a->out_len = 0;
        }
        if (stop == 5 || stop == 39)
            assert_int_equal(session_is_up(p[0].s) && session_is_up(p[1].s), stop == 39);
        ss_pair_close(p);
    }
}

static void test_full_queue_of_work(void **state)
{
    struct session_side p[2];
    (void)state;
    ss_pair_init(p);
    ss_start(&p[1], NULL);
    ss_start(&p[0], &p[1].pk);
    ss_take(&p[0]);
    p[1].env.pk_cap = 0;
    assert_int_equal(ss_feed(&p[1], p[0].out, p[0].out_len, 65536), ERR_BUSY);
    assert_int_equal(session_error(p[1].s), ERR_BUSY);
    ss_stop(&p[0]);
    p[0].env.pk_cap = 0;
    ss_start(&p[0], &p[1].pk);
    assert_int_equal(session_error(p[0].s), ERR_BUSY);
    assert_int_equal(session_tick(p[0].s, p[0].now_ns), ERR_BUSY);
    assert_int_equal(session_output(p[0].s, &(struct iovec){NULL, 0}, 1, p[0].now_ns), 0);
    ss_pair_close(p);
}

static void test_null_remote(void **state)
{
    struct session_side p;
    (void)state;
    ss_init(&p, 1);
    ss_start(&p, &(struct pubkey){{0}});
    assert_int_equal(session_error(p.s), ERR_KEY);
    ss_close(&p);
}

/* What a server meets on its port (docs/protocol/dmsg.md §8.3): closed at once. */
static void test_bad_hellos(void **state)
{
    static const struct {
        const char *hex;
        int rc;
    } cases[] = {
        {"0fff", ERR_TOO_LONG}, /* 4095 */
        {"ffff", ERR_TOO_LONG},
        {"1603", ERR_TOO_LONG}, /* a TLS hello */
        {"4745", ERR_TOO_LONG}, /* GE… */
        {"0000", ERR_SHORT},
        {"000301", 0},
        {"0003010203", ERR_SHORT},
        {"0031020000000000000000000000000000000000000000000000000000000000000005"
         "00000000000000000000000000000000",
         ERR_KEY}, /* x = 5 is not on the curve */
        {"003102fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff1"
         "00000000000000000000000000000000",
         ERR_KEY}, /* x >= p */
        {"0031000000000000000000000000000000000000000000000000000000000000000000"
         "00000000000000000000000000000000",
         ERR_KEY},
        {"00310279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
         "00000000000000000000000000000000",
         ERR_TAG}, /* a point, but not meant for us */
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (int deferred = 0; deferred < 2; deferred++) {
            struct session_side p;
            ss_init(&p, 1);
            p.env.deferred = deferred != 0;
            ss_start(&p, NULL);
            int rc = ss_feed_hex(&p, cases[i].hex);
            if (rc == 0)
                rc = ss_work(&p);
            assert_int_equal(rc, cases[i].rc);
            ss_take(&p);
            assert_int_equal(p.out_len, 0); /* without a byte */
            if (rc < 0) {
                assert_int_equal(session_error(p.s), rc);
                assert_int_equal(ss_feed_hex(&p, "00"), rc);
                assert_int_equal(session_deadline(p.s), LOOP_NEVER);
                assert_int_equal(bufpool_in_use(p.pool), 0);
            }
            ss_close(&p);
        }
    }
}

/* One bit wrong anywhere in any message: the side that reads it ends the session, or, in message 1,
 * its answer cannot be used. */
static void test_tampered_handshake(void **state)
{
    (void)state;
    for (int msg = 0; msg < 3; msg++) {
        for (size_t at = 2; at < (msg == 2 ? 67u : 51u); at += 5) {
            struct session_side p[2];
            ss_pair_init(p);
            ss_start(&p[1], NULL);
            ss_start(&p[0], &p[1].pk);
            for (int i = 0; i < msg; i++)
                assert_int_equal(ss_pass(&p[i % 2], &p[1 - i % 2], 65536), 0);
            struct session_side *from = &p[msg % 2], *to = &p[1 - msg % 2];
            ss_take(from);
            from->out[at] ^= 1;
            assert_true(ss_feed(to, from->out, from->out_len, 65536) < 0);
            assert_false(session_is_up(to->s));
            ss_pair_close(p);
        }
    }
}

static void test_wrong_server_key(void **state)
{
    struct session_side p[2];
    (void)state;
    ss_pair_init(p);
    ss_start(&p[1], NULL);
    ss_start(&p[0], &p[0].pk);
    assert_int_equal(ss_pass(&p[0], &p[1], 65536), ERR_TAG);
    ss_pair_close(p);
}

/* The client may have the server's own key. */
static void test_own_key(void **state)
{
    struct session_side p[2];
    (void)state;
    ss_pair_init(p);
    p[0].sk = p[1].sk;
    p[0].pk = p[1].pk;
    ss_pair_connect(p, 65536);
    assert_true(pubkey_equal(session_remote(p[1].s), &p[1].pk));
    ss_pair_close(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vector_xk),
        cmocka_unit_test(test_vector_hybrid_offer),
        cmocka_unit_test(test_transcript),
        cmocka_unit_test(test_connect_at_any_pace),
        cmocka_unit_test(test_bytes_behind_message_3),
        cmocka_unit_test(test_goes_on_elsewhere),
        cmocka_unit_test(test_input_kept_is_bounded),
        cmocka_unit_test(test_bytes_behind_message_2),
        cmocka_unit_test(test_free_at_every_step),
        cmocka_unit_test(test_full_queue_of_work),
        cmocka_unit_test(test_null_remote),
        cmocka_unit_test(test_bad_hellos),
        cmocka_unit_test(test_tampered_handshake),
        cmocka_unit_test(test_wrong_server_key),
        cmocka_unit_test(test_own_key),
    };
    return cmocka_run_group_tests(tests, load, unload);
}
