/* session: recorded handshakes and a recorded run of real peers, public-key work at every pace,
 * time limits, and the objects of stream set-up. */
#include "transport/session.h"

#include "base/cursor.h"
#include "base/env_test.h"
#include "base/err.h"
#include "base/loop.h"
#include "tests/unit/prop.h"
#include "tests/unit/vectors.h"
#include "transport/cipher.h"

/* ---- one side: a session, its environment and its output ---- */

struct side {
    struct env_test env;
    struct bufpool *pool;
    struct session *s;
    struct seckey sk;
    struct pubkey pk;
    uint64_t now_ns;
    uint8_t *out;
    size_t out_len, out_cap;
    unsigned readies; /* calls of cfg.ready since the last look */
    bool up, in_call;
    struct yamux_stream *streams[16]; /* by id, of the peer or our own */
};

static void on_ready(void *arg)
{
    struct side *p = arg;
    assert_false(p->in_call);
    p->readies++;
}

static void side_init(struct side *p, uint64_t seed)
{
    *p = (struct side){.now_ns = 100 * NS_PER_S};
    env_test_init(&p->env, seed);
    p->pool = bufpool_new(NULL);
    assert_non_null(p->pool);
    env_keypair(&p->env.env, &p->sk, &p->pk);
}

static void side_start_cfg(struct side *p, const struct pubkey *remote, struct session_cfg cfg)
{
    cfg.env = &p->env.env;
    cfg.pool = p->pool;
    cfg.initiator = remote != NULL;
    cfg.self = p->pk;
    cfg.sk = &p->sk;
    if (remote != NULL)
        cfg.remote = *remote;
    cfg.ready = on_ready;
    cfg.arg = p;
    p->in_call = true;
    p->s = session_new(&cfg, p->now_ns);
    p->in_call = false;
    assert_non_null(p->s);
}

static void side_start(struct side *p, const struct pubkey *remote)
{
    side_start_cfg(p, remote,
                   (struct session_cfg){.hold_ms = SESSION_NO_HOLD, .keepalive_ms = 30000});
}

static void side_stop(struct side *p)
{
    session_free(p->s);
    p->s = NULL;
    p->out_len = 0;
    p->up = false;
    memset(p->streams, 0, sizeof p->streams);
    assert_int_equal(bufpool_in_use(p->pool), 0);
    assert_int_equal(env_test_queued(&p->env), 0);
}

static void side_close(struct side *p)
{
    side_stop(p);
    bufpool_free(p->pool);
    env_test_close(&p->env);
    free(p->out);
}

/* Take what may be sent now. */
static void take(struct side *p)
{
    struct iovec iov[4];
    int cnt;
    while ((cnt = session_output(p->s, iov, 4, p->now_ns)) > 0) {
        size_t n = 0;
        for (int i = 0; i < cnt; i++) {
            if (p->out_cap - p->out_len < iov[i].iov_len) {
                p->out_cap = (p->out_len + iov[i].iov_len) * 2;
                p->out = realloc(p->out, p->out_cap);
                assert_non_null(p->out);
            }
            memcpy(p->out + p->out_len, iov[i].iov_base, iov[i].iov_len);
            p->out_len += iov[i].iov_len;
            n += iov[i].iov_len;
        }
        session_sent(p->s, n, p->now_ns);
    }
}

static void pump(struct side *p)
{
    struct yamux_event ev;
    if (session_next(p->s) == SESSION_EV_UP) {
        assert_false(p->up);
        p->up = true;
    }
    while (p->up && session_mux(p->s) != NULL && yamux_next(session_mux(p->s), &ev)) {
        if (ev.stream == NULL)
            continue;
        assert_true(ev.stream->id < 16);
        p->streams[ev.stream->id] = ev.stream;
        if (ev.what & YAMUX_OPENED)
            (void)yamux_accept(ev.stream);
    }
}

/* Answer deferred work and let the session go on, until nothing is left of it. */
static int work(struct side *p)
{
    int rc = session_error(p->s);
    while (env_test_queued(&p->env) > 0) {
        (void)env_test_run(&p->env, 1);
        if (p->readies == 0)
            continue;
        p->readies = 0;
        assert_int_equal(session_deadline(p->s), session_error(p->s) < 0 ? LOOP_NEVER : 0);
        p->in_call = true;
        rc = session_tick(p->s, p->now_ns);
        p->in_call = false;
    }
    if (rc == 0)
        pump(p);
    return rc;
}

static int feed(struct side *p, const void *bytes, size_t n, size_t chunk)
{
    const uint8_t *src = bytes;
    int rc = 0;
    while (n > 0 && rc == 0) {
        size_t part = n < chunk ? n : chunk;
        struct buf *b = buf_get(p->pool, part);
        assert_non_null(b);
        memcpy(buf_room(b), src, part);
        struct slice in = buf_take(b, part);
        buf_put(b);
        p->in_call = true;
        rc = session_input(p->s, in, p->now_ns);
        p->in_call = false;
        slice_release(&in);
        src += part;
        n -= part;
        if (rc == 0)
            pump(p);
    }
    return rc;
}

static int feed_hex(struct side *p, const char *hex)
{
    size_t n;
    uint8_t *bytes = hex_dup(hex, &n);
    int rc = feed(p, bytes, n, n);
    free(bytes);
    return rc;
}

/* Move what `from` has to say to `to`, and answer its work. */
static int pass(struct side *from, struct side *to, size_t chunk)
{
    take(from);
    int rc = feed(to, from->out, from->out_len, chunk);
    from->out_len = 0;
    int after = work(to);
    return rc < 0 ? rc : after;
}

static void pair_init(struct side p[2])
{
    side_init(&p[0], 1);
    side_init(&p[1], 2);
}

static void pair_connect(struct side p[2], size_t chunk)
{
    side_start(&p[1], NULL);
    side_start(&p[0], &p[1].pk);
    (void)work(&p[0]);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pass(&p[0], &p[1], chunk), 0);
        assert_int_equal(pass(&p[1], &p[0], chunk), 0);
    }
    assert_true(p[0].up && p[1].up);
}

static void pair_close(struct side p[2])
{
    side_close(&p[0]);
    side_close(&p[1]);
}

/* A stream that side 0 opens; both ends know it. */
static void open_stream(struct side p[2], struct yamux_stream *st[2])
{
    assert_int_equal(yamux_open(session_mux(p[0].s), NULL, p[0].now_ns, &st[0]), 0);
    assert_int_equal(pass(&p[0], &p[1], 65536), 0);
    st[1] = p[1].streams[st[0]->id];
    assert_non_null(st[1]);
    assert_int_equal(pass(&p[1], &p[0], 65536), 0);
}

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

static void use_keys(struct side *p, const json_t *obj, const char *sk, const char *pk)
{
    vec_hex(obj, sk, &p->sk, sizeof p->sk);
    vec_hex(obj, pk, &p->pk, sizeof p->pk);
}

static void script_hex(struct side *p, const json_t *obj, const char *key)
{
    uint8_t e[32];
    vec_hex(obj, key, e, sizeof e);
    env_test_script(&p->env, e, sizeof e);
}

static void expect_out(struct side *p, const char *hex)
{
    size_t n;
    uint8_t *want = hex_dup(hex, &n);
    take(p);
    assert_int_equal(p->out_len, n);
    assert_memory_equal(p->out, want, n);
    p->out_len = 0;
    free(want);
}

static void feed_vec(struct side *p, const json_t *v, const char *key, size_t chunk)
{
    size_t n;
    uint8_t *bytes = vec_hex_dup(v, key, &n);
    assert_int_equal(feed(p, bytes, n, chunk), 0);
    assert_int_equal(work(p), 0);
    free(bytes);
}

/* One role of the recorded XK handshake, then its sealed messages as objects. */
static void replay_xk(bool initiator, bool deferred, size_t chunk)
{
    const json_t *xk = vec_get(root, "noise_xk"), *msgs = vec_get(xk, "messages"), *v;
    const char *self = initiator ? "initiator" : "responder";
    struct side p;
    struct pubkey remote;
    size_t i;
    side_init(&p, 7);
    use_keys(&p, xk, initiator ? "initiator_static_sk" : "responder_static_sk",
             initiator ? "initiator_static_pk" : "responder_static_pk");
    script_hex(&p, xk, initiator ? "initiator_ephemeral_sk" : "responder_ephemeral_sk");
    vec_hex(xk, initiator ? "responder_static_pk" : "initiator_static_pk", &remote, sizeof remote);
    p.env.deferred = deferred;
    side_start(&p, initiator ? &remote : NULL);
    json_array_foreach(msgs, i, v)
    {
        assert_int_equal(work(&p), 0);
        if (strcmp(vec_str(v, "from"), self) == 0)
            expect_out(&p, vec_str(v, "framed"));
        else
            feed_vec(&p, v, "framed", chunk);
    }
    assert_int_equal(work(&p), 0);
    assert_true(p.up && session_is_up(p.s));
    assert_memory_equal(session_remote(p.s), &remote, sizeof remote);

    struct yamux_stream *st;
    assert_int_equal(yamux_open(session_mux(p.s), NULL, p.now_ns, &st), 0);
    take(&p);
    p.out_len = 0;
    json_array_foreach(vec_get(xk, "transport"), i, v)
    {
        size_t n;
        uint8_t *plain = vec_hex_dup(v, "plaintext", &n), got[256];
        if (strcmp(vec_str(v, "from"), self) == 0) {
            assert_int_equal(session_write_object(p.s, st, plain, n), 0);
            size_t len;
            uint8_t *framed = vec_hex_dup(v, "framed", &len);
            take(&p);
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
            assert_int_equal(feed_hex(&p, head), 0);
            feed_vec(&p, v, "framed", chunk);
            assert_int_equal(session_read_object(p.s, st, &what, got, sizeof got, &got_n), 0);
            assert_int_equal(what, SESSION_READ_OBJECT);
            assert_int_equal(got_n, n);
            assert_memory_equal(got, plain, n);
        }
        free(plain);
    }
    side_close(&p);
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
        struct side p;
        char framed[2][3000];
        side_init(&p, 7);
        use_keys(&p, vec_get(root, "noise_xk"), "responder_static_sk", "responder_static_pk");
        script_hex(&p, xk, "responder_ephemeral_sk");
        p.env.deferred = deferred != 0;
        side_start(&p, NULL);
        for (size_t i = 0; i < 3; i++) {
            const json_t *v = json_array_get(msgs, i);
            char *hex = framed[i % 2];
            snprintf(hex, sizeof framed[0], "%04llx%s", vec_int(v, "length"),
                     vec_str(v, "message"));
            if (i == 1)
                expect_out(&p, hex);
            else
                assert_int_equal(feed_hex(&p, hex), 0);
            assert_int_equal(work(&p), 0);
        }
        assert_true(p.up);
        side_close(&p);
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
static void open_recorded(struct side *p, const uint8_t *bytes, size_t n)
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
static void check_objects(struct side *p, const json_t *decoded, const char *self)
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
            take(p);
            p->out_len = 0;
            assert_int_equal(session_write_object(p->s, out, object, n), 0);
            take(p);
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
    struct side p;
    struct pubkey remote;
    uint8_t e[32];
    size_t i;
    side_init(&p, 3);
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
    side_start(&p, server ? NULL : &remote);

    unsigned hellos = 0;
    json_array_foreach(vec_get(t, "events"), i, v)
    {
        const json_t *c = json_object_get(v, "conn");
        if (c == NULL || strcmp(json_string_value(c), name) != 0)
            continue;
        size_t n;
        uint8_t *bytes = vec_hex_dup(v, "hex", &n);
        if (strcmp(vec_str(v, "to"), self) == 0) {
            assert_int_equal(feed(&p, bytes, n, chunk), 0);
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
    take(&p);
    p.out_len = 0;
    check_objects(&p, decoded, self);
    side_close(&p);
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
            struct side p[2];
            struct yamux_stream *st[2];
            pair_init(p);
            p[0].env.deferred = deferred & 1;
            p[1].env.deferred = deferred & 2;
            pair_connect(p, chunks[i]);
            assert_true(pubkey_equal(session_remote(p[0].s), &p[1].pk));
            assert_true(pubkey_equal(session_remote(p[1].s), &p[0].pk));
            assert_true(session_initiator(p[0].s) && !session_initiator(p[1].s));
            open_stream(p, st);
            assert_int_equal(session_next(p[0].s), SESSION_EV_NONE);
            pair_close(p);
        }
    }
}

/* Message 3, a SYN and data in one segment (incident 4), also while the work is under way. */
static void test_bytes_behind_message_3(void **state)
{
    (void)state;
    for (int deferred = 0; deferred < 2; deferred++) {
        struct side p[2];
        struct yamux_stream *st;
        pair_init(p);
        side_start(&p[1], NULL);
        side_start(&p[0], &p[1].pk);
        assert_int_equal(pass(&p[0], &p[1], 65536), 0);
        assert_int_equal(pass(&p[1], &p[0], 65536), 0);
        assert_int_equal(yamux_open(session_mux(p[0].s), NULL, 1, &st), 0);
        assert_int_equal(yamux_write(st, "glued", 5), 5);
        take(&p[0]);
        p[1].env.deferred = deferred != 0;
        assert_int_equal(feed(&p[1], p[0].out, p[0].out_len, 65536), 0);
        assert_int_equal(session_stop_reading(p[1].s), deferred);
        if (deferred) { /* more of it meanwhile */
            p[0].out_len = 0;
            assert_int_equal(yamux_write(st, "more", 4), 4);
            take(&p[0]);
            assert_int_equal(feed(&p[1], p[0].out, p[0].out_len, 1), 0);
        }
        assert_int_equal(work(&p[1]), 0);
        assert_true(p[1].up);
        assert_false(session_stop_reading(p[1].s));
        assert_non_null(p[1].streams[1]);
        assert_int_equal(yamux_readable(p[1].streams[1]), deferred ? 9 : 5);
        pair_close(p);
    }
}

/* A session that is up waits: it goes on here, or under another env and pool, with what came early. */
static void test_goes_on_elsewhere(void **state)
{
    (void)state;
    for (int moves = 0; moves < 2; moves++) {
        struct side p[3];
        struct session_cfg cfg = {.keepalive_ms = 30000, .wait_at_up = true};
        struct session_state st = {0}, none = {0};
        struct yamux_stream *ours;
        enum session_read what;
        uint8_t obj[SESSION_OBJECT_MAX];
        size_t n;
        pair_init(p);
        side_init(&p[2], 3);
        side_start_cfg(&p[1], NULL, cfg);
        side_start(&p[0], &p[1].pk);
        assert_int_equal(pass(&p[0], &p[1], 65536), 0);
        assert_int_equal(pass(&p[1], &p[0], 65536), 0);
        assert_int_equal(yamux_open(session_mux(p[0].s), NULL, 1, &ours), 0);
        assert_int_equal(session_write_object(p[0].s, ours, "early", 5), 0);
        assert_int_equal(pass(&p[0], &p[1], 7), 0);
        assert_true(p[1].up && session_mux(p[1].s) == NULL);
        struct side *to = &p[1];
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
        pump(to);
        assert_true(to->up && session_is_up(to->s));
        assert_true(pubkey_equal(session_remote(to->s), &p[0].pk));
        struct yamux_stream *theirs = to->streams[1];
        assert_non_null(theirs);
        assert_int_equal(session_read_object(to->s, theirs, &what, obj, sizeof obj, &n), 0);
        assert_true(n == 5 && memcmp(obj, "early", 5) == 0);
        assert_int_equal(session_write_object(to->s, theirs, "answer", 6), 0);
        assert_int_equal(pass(to, &p[0], 65536), 0);
        assert_int_equal(session_read_object(p[0].s, ours, &what, obj, sizeof obj, &n), 0);
        assert_true(n == 6 && memcmp(obj, "answer", 6) == 0);
        assert_int_equal(session_write_object(p[0].s, ours, "more", 4), 0);
        assert_int_equal(pass(&p[0], to, 65536), 0);
        assert_int_equal(session_read_object(to->s, theirs, &what, obj, sizeof obj, &n), 0);
        assert_int_equal(n, 4);
        pair_close(p);
        side_close(&p[2]);
    }
}

static void test_input_kept_is_bounded(void **state)
{
    static uint8_t lots[65536];
    struct side p[2];
    (void)state;
    pair_init(p);
    side_start(&p[1], NULL);
    side_start(&p[0], &p[1].pk);
    p[1].env.deferred = true;
    take(&p[0]);
    assert_int_equal(feed(&p[1], p[0].out, p[0].out_len, 65536), 0);
    assert_false(session_stop_reading(p[1].s)); /* nothing waits yet */
    assert_int_equal(feed(&p[1], lots, 65000, 65536), 0);
    assert_true(session_stop_reading(p[1].s));
    assert_int_equal(feed(&p[1], lots, 536, 65536), 0);
    assert_int_equal(feed(&p[1], lots, 1, 65536), ERR_LIMIT);
    assert_int_equal(bufpool_in_use(p[1].pool), 0);
    pair_close(p);
}

static void test_bytes_behind_message_2(void **state)
{
    (void)state;
    for (int deferred = 0; deferred < 2; deferred++) {
        struct side p[2];
        pair_init(p);
        side_start(&p[1], NULL);
        side_start(&p[0], &p[1].pk);
        assert_int_equal(pass(&p[0], &p[1], 65536), 0);
        take(&p[1]);
        assert_true(p[1].out_cap > p[1].out_len);
        p[1].out[p[1].out_len++] = 0;
        p[0].env.deferred = deferred != 0;
        int rc = feed(&p[0], p[1].out, p[1].out_len, 65536);
        if (deferred)
            rc = work(&p[0]);
        assert_int_equal(rc, ERR_DMSG_EXTRA_BYTES);
        pair_close(p);
    }
}

/* Freed at every stage of the work: nothing is called any more, nothing leaks. */
static void test_free_at_every_step(void **state)
{
    (void)state;
    for (size_t stop = 0; stop < 40; stop++) {
        struct side p[2];
        pair_init(p);
        p[0].env.deferred = p[1].env.deferred = true;
        side_start(&p[1], NULL);
        side_start(&p[0], &p[1].pk);
        for (size_t step = 0; step < stop; step++) {
            struct side *a = &p[step % 2], *b = &p[1 - step % 2];
            if (env_test_run(&a->env, 1) > 0 && a->readies > 0) {
                a->readies = 0;
                assert_int_equal(session_tick(a->s, a->now_ns), 0);
            }
            take(a);
            assert_int_equal(feed(b, a->out, a->out_len, 65536), 0);
            a->out_len = 0;
        }
        if (stop == 5 || stop == 39)
            assert_int_equal(session_is_up(p[0].s) && session_is_up(p[1].s), stop == 39);
        pair_close(p);
    }
}

static void test_full_queue_of_work(void **state)
{
    struct side p[2];
    (void)state;
    pair_init(p);
    side_start(&p[1], NULL);
    side_start(&p[0], &p[1].pk);
    take(&p[0]);
    p[1].env.pk_cap = 0;
    assert_int_equal(feed(&p[1], p[0].out, p[0].out_len, 65536), ERR_BUSY);
    assert_int_equal(session_error(p[1].s), ERR_BUSY);
    side_stop(&p[0]);
    p[0].env.pk_cap = 0;
    side_start(&p[0], &p[1].pk);
    assert_int_equal(session_error(p[0].s), ERR_BUSY);
    assert_int_equal(session_tick(p[0].s, p[0].now_ns), ERR_BUSY);
    assert_int_equal(session_output(p[0].s, &(struct iovec){NULL, 0}, 1, p[0].now_ns), 0);
    pair_close(p);
}

static void test_null_remote(void **state)
{
    struct side p;
    (void)state;
    side_init(&p, 1);
    side_start(&p, &(struct pubkey){{0}});
    assert_int_equal(session_error(p.s), ERR_KEY);
    side_close(&p);
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
            struct side p;
            side_init(&p, 1);
            p.env.deferred = deferred != 0;
            side_start(&p, NULL);
            int rc = feed_hex(&p, cases[i].hex);
            if (rc == 0)
                rc = work(&p);
            assert_int_equal(rc, cases[i].rc);
            take(&p);
            assert_int_equal(p.out_len, 0); /* without a byte */
            if (rc < 0) {
                assert_int_equal(session_error(p.s), rc);
                assert_int_equal(feed_hex(&p, "00"), rc);
                assert_int_equal(session_deadline(p.s), LOOP_NEVER);
                assert_int_equal(bufpool_in_use(p.pool), 0);
            }
            side_close(&p);
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
            struct side p[2];
            pair_init(p);
            side_start(&p[1], NULL);
            side_start(&p[0], &p[1].pk);
            for (int i = 0; i < msg; i++)
                assert_int_equal(pass(&p[i % 2], &p[1 - i % 2], 65536), 0);
            struct side *from = &p[msg % 2], *to = &p[1 - msg % 2];
            take(from);
            from->out[at] ^= 1;
            assert_true(feed(to, from->out, from->out_len, 65536) < 0);
            assert_false(session_is_up(to->s));
            pair_close(p);
        }
    }
}

static void test_wrong_server_key(void **state)
{
    struct side p[2];
    (void)state;
    pair_init(p);
    side_start(&p[1], NULL);
    side_start(&p[0], &p[0].pk);
    assert_int_equal(pass(&p[0], &p[1], 65536), ERR_TAG);
    pair_close(p);
}

/* The client may have the server's own key. */
static void test_own_key(void **state)
{
    struct side p[2];
    (void)state;
    pair_init(p);
    p[0].sk = p[1].sk;
    p[0].pk = p[1].pk;
    pair_connect(p, 65536);
    assert_true(pubkey_equal(session_remote(p[1].s), &p[1].pk));
    pair_close(p);
}

/* ---- time ---- */

static void test_handshake_deadline(void **state)
{
    struct side p;
    (void)state;
    side_init(&p, 1);
    side_start(&p, NULL);
    assert_int_equal(session_deadline(p.s), p.now_ns + 5 * NS_PER_S);
    /* One byte a second does not help. */
    for (int i = 0; i < 5; i++) {
        assert_int_equal(feed(&p, "\0\61xyz" + i, 1, 1), 0);
        p.now_ns += NS_PER_S - 1;
        assert_int_equal(session_tick(p.s, p.now_ns), 0);
    }
    p.now_ns += 5;
    assert_int_equal(session_tick(p.s, p.now_ns), ERR_TIMEOUT);
    assert_int_equal(session_deadline(p.s), LOOP_NEVER);
    side_close(&p);
}

static void test_handshake_deadline_while_work_is_under_way(void **state)
{
    struct side p[2];
    (void)state;
    pair_init(p);
    p[1].env.deferred = true;
    side_start(&p[1], NULL);
    side_start(&p[0], &p[1].pk);
    take(&p[0]);
    assert_int_equal(feed(&p[1], p[0].out, p[0].out_len, 65536), 0);
    assert_true(env_test_queued(&p[1].env) > 0);
    p[1].now_ns += 5 * NS_PER_S;
    assert_int_equal(session_tick(p[1].s, p[1].now_ns), ERR_TIMEOUT);
    assert_int_equal(env_test_queued(&p[1].env), 0); /* cancelled */
    pair_close(p);
}

/* The first multiplexer byte waits 60 ms behind message 3. */
static void test_hold_back(void **state)
{
    struct side p[2];
    struct yamux_stream *st;
    (void)state;
    pair_init(p);
    side_start(&p[1], NULL);
    side_start_cfg(&p[0], &p[1].pk, (struct session_cfg){0});
    assert_int_equal(pass(&p[0], &p[1], 65536), 0);
    assert_int_equal(pass(&p[1], &p[0], 65536), 0);
    assert_true(p[0].up);
    assert_int_equal(yamux_open(session_mux(p[0].s), NULL, p[0].now_ns, &st), 0);
    p[0].now_ns +=
        NS_PER_S; /* the carrier was slow to take message 3: the pause counts from then */
    assert_int_equal(session_pending(p[0].s, p[0].now_ns), 67);
    take(&p[0]);
    assert_int_equal(p[0].out_len, 67);
    assert_int_equal(session_pending(p[0].s, p[0].now_ns), 0);
    assert_int_equal(session_deadline(p[0].s), p[0].now_ns + 60 * NS_PER_MS);
    p[0].now_ns += 60 * NS_PER_MS;
    assert_int_equal(session_tick(p[0].s, p[0].now_ns), 0);
    assert_int_equal(session_pending(p[0].s, p[0].now_ns), YAMUX_HEADER_BYTES);
    take(&p[0]);
    assert_int_equal(p[0].out_len, 67 + YAMUX_HEADER_BYTES);
    pair_close(p);
}

/* Let time pass to the session's next deadline; returns it. */
static uint64_t next_deadline(struct side *p)
{
    uint64_t at = session_deadline(p->s);
    assert_true(at >= p->now_ns && at != LOOP_NEVER);
    p->now_ns = at;
    return at;
}

static void test_keepalive(void **state)
{
    struct side p[2];
    (void)state;
    pair_init(p);
    pair_connect(p, 65536);
    for (int round = 0; round < 5; round++) {
        uint64_t heard = session_heard_ns(p[0].s), at = next_deadline(&p[0]);
        assert_in_range(at - heard, 24 * NS_PER_S, 36 * NS_PER_S);
        assert_int_equal(session_tick(p[0].s, p[0].now_ns), 0);
        assert_int_equal(session_pending(p[0].s, p[0].now_ns), YAMUX_HEADER_BYTES);
        p[1].now_ns = p[0].now_ns;
        assert_int_equal(pass(&p[0], &p[1], 65536), 0);
        p[0].now_ns += 9 * NS_PER_S; /* slow is not dead */
        assert_int_equal(session_tick(p[0].s, p[0].now_ns), 0);
        assert_int_equal(pass(&p[1], &p[0], 65536), 0);
        assert_int_equal(session_rtt_ns(p[0].s), 9 * NS_PER_S);
        assert_int_equal(session_heard_ns(p[0].s), p[0].now_ns);
    }
    next_deadline(&p[0]);
    assert_int_equal(session_tick(p[0].s, p[0].now_ns), 0);
    take(&p[0]);
    uint64_t asked = p[0].now_ns;
    assert_int_equal(next_deadline(&p[0]) - asked, 10 * NS_PER_S);
    assert_int_equal(session_tick(p[0].s, p[0].now_ns), ERR_TIMEOUT);
    pair_close(p);
}

/* The multiplexer's own time limits count too. */
static void test_stream_deadline(void **state)
{
    struct side p[2];
    struct yamux_stream *st;
    (void)state;
    pair_init(p);
    pair_connect(p, 65536);
    assert_int_equal(yamux_open(session_mux(p[0].s), NULL, p[0].now_ns, &st), 0);
    take(&p[0]);
    uint64_t began = p[0].now_ns;
    assert_int_equal(next_deadline(&p[0]) - began, 20 * NS_PER_S);
    assert_int_equal(session_tick(p[0].s, p[0].now_ns), 0);
    assert_int_equal(st->reset_err, ERR_TIMEOUT);
    yamux_release(st, false);
    pair_close(p);
}

/* A peer that speaks is not asked. */
static void test_no_keepalive_when_heard(void **state)
{
    struct side p[2];
    (void)state;
    pair_init(p);
    pair_connect(p, 65536);
    for (int i = 0; i < 50; i++) {
        p[0].now_ns += 20 * NS_PER_S;
        assert_int_equal(session_tick(p[0].s, p[0].now_ns), 0);
        assert_int_equal(feed_hex(&p[0], "000100000000000900000001"), 0);
        assert_int_equal(session_pending(p[0].s, p[0].now_ns), 0);
    }
    pair_close(p);
}

static void test_write_stall(void **state)
{
    struct side p[2];
    struct yamux_stream *st[2];
    struct iovec iov[4];
    static uint8_t block[100000];
    (void)state;
    pair_init(p);
    pair_connect(p, 65536);
    open_stream(p, st);
    assert_int_equal(yamux_write(st[0], block, sizeof block), sizeof block);
    assert_true(session_output(p[0].s, iov, 4, p[0].now_ns) > 0);
    assert_int_equal(session_deadline(p[0].s), p[0].now_ns + 10 * NS_PER_S);
    for (int i = 0; i < 100;
         i++) { /* a byte now and then is progress; no ping kills it meanwhile */
        p[0].now_ns += 9 * NS_PER_S;
        assert_int_equal(session_tick(p[0].s, p[0].now_ns), 0);
        assert_true(session_output(p[0].s, iov, 4, p[0].now_ns) > 0);
        session_sent(p[0].s, 1, p[0].now_ns);
    }
    p[0].now_ns += 10 * NS_PER_S;
    assert_int_equal(session_tick(p[0].s, p[0].now_ns), ERR_TIMEOUT);
    pair_close(p);
}

static void test_idle_session_holds_no_buffers(void **state)
{
    struct side p[2];
    struct yamux_stream *st[2];
    (void)state;
    pair_init(p);
    pair_connect(p, 1);
    open_stream(p, st);
    assert_int_equal(bufpool_in_use(p[0].pool), 0);
    assert_int_equal(bufpool_in_use(p[1].pool), 0);
    pair_close(p);
}

/* ---- objects ---- */

static uint8_t big[SESSION_OBJECT_MAX + 1], got[SESSION_OBJECT_MAX];

static int read_object(struct side *p, struct yamux_stream *st, size_t *n)
{
    enum session_read what = SESSION_READ_MARKER;
    int rc = session_read_object(p->s, st, &what, got, sizeof got, n);
    if (rc == 0)
        assert_int_equal(what, SESSION_READ_OBJECT);
    return rc;
}

static void test_object_sizes(void **state)
{
    static const size_t sizes[] = {0, 1, 65, 348, 4070, 4096, 65509, 65510, 65511};
    struct side p[2];
    struct yamux_stream *st[2];
    size_t n;
    (void)state;
    pair_init(p);
    pair_connect(p, 65536);
    open_stream(p, st);
    for (size_t i = 0; i < sizeof big; i++)
        big[i] = (uint8_t)(i * 7 + (i >> 8));
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        assert_int_equal(session_write_object(p[0].s, st[0], big, sizes[i]), 0);
        take(&p[0]);
        /* Nothing before the last byte; then the object, and nothing behind it is touched. */
        assert_int_equal(feed(&p[1], p[0].out, p[0].out_len - 1, i < 5 ? 1 : 65536), 0);
        assert_int_equal(read_object(&p[1], st[1], &n), ERR_AGAIN);
        assert_int_equal(feed(&p[1], p[0].out + p[0].out_len - 1, 1, 1), 0);
        p[0].out_len = 0;
        assert_int_equal(yamux_write(st[0], "tail", 4), 4);
        assert_int_equal(pass(&p[0], &p[1], 65536), 0);
        assert_int_equal(read_object(&p[1], st[1], &n), 0);
        assert_int_equal(n, sizes[i]);
        assert_memory_equal(got, big, n);
        assert_int_equal(yamux_read(st[1], got, sizeof got), 4);
        assert_memory_equal(got, "tail", 4);
        assert_int_equal(pass(&p[1], &p[0], 65536), 0); /* credit */
    }
    assert_int_equal(session_write_object(p[0].s, st[0], big, 65512), ERR_TOO_LONG);
    assert_int_equal(session_write_object(p[0].s, st[0], big, 100), 0);
    assert_int_equal(pass(&p[0], &p[1], 65536), 0);
    enum session_read what;
    assert_int_equal(session_read_object(p[1].s, st[1], &what, got, 123, &n), ERR_TOO_LONG);
    pair_close(p);
}

/* Room for the whole object, or none of it; the stream is told when there is. */
static void test_object_waits_for_room(void **state)
{
    struct side p[2];
    struct yamux_stream *st[2];
    struct yamux_event ev;
    (void)state;
    pair_init(p);
    pair_connect(p, 65536);
    open_stream(p, st);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(yamux_write(st[0], big, i < 3 ? 65536 : 65436), i < 3 ? 65536 : 65436);
        assert_int_equal(pass(&p[0], &p[1], 65536), 0);
    }
    assert_int_equal(st[0]->send_window, 100);
    assert_int_equal(session_write_object(p[0].s, st[0], big, 100), ERR_AGAIN);
    assert_false(yamux_next(session_mux(p[0].s), &ev)); /* 100 bytes of window are no use */
    assert_int_equal(yamux_discard(st[1], 200000), 200000);
    take(&p[1]);
    struct slice in = {.p = p[1].out, .n = p[1].out_len};
    assert_int_equal(session_input(p[0].s, in, p[0].now_ns), 0);
    p[1].out_len = 0;
    assert_true(yamux_next(session_mux(p[0].s), &ev));
    assert_int_equal(ev.what, YAMUX_WRITABLE);
    assert_int_equal(session_write_object(p[0].s, st[0], big, 100), 0);
    yamux_reset(st[0]);
    assert_int_equal(session_write_object(p[0].s, st[0], big, 100), ERR_CLOSED);
    pair_close(p);
}

/* The sealed object of the next write, without its frame header. */
static size_t sealed_object(struct side *p, struct yamux_stream *st, const char *text, uint8_t *out)
{
    assert_int_equal(session_write_object(p->s, st, text, strlen(text)), 0);
    take(p);
    size_t n = p->out_len - YAMUX_HEADER_BYTES;
    memcpy(out, p->out + YAMUX_HEADER_BYTES, n);
    p->out_len = 0;
    return n;
}

/* Bytes as payload of stream id, from nowhere. */
static void inject(struct side *p, uint32_t id, const uint8_t *bytes, size_t n)
{
    uint8_t head[YAMUX_HEADER_BYTES] = {0};
    put_be32(head + 4, id);
    put_be32(head + 8, (uint32_t)n);
    assert_int_equal(feed(p, head, sizeof head, sizeof head), 0);
    assert_int_equal(feed(p, bytes, n, 65536), 0);
}

static void test_object_counters(void **state)
{
    struct side p[2];
    struct yamux_stream *st[2];
    uint8_t obj[4][64];
    size_t n[4], got_n;
    (void)state;
    pair_init(p);
    pair_connect(p, 65536);
    open_stream(p, st);
    for (int i = 0; i < 4; i++)
        n[i] = sealed_object(&p[0], st[0], "object", obj[i]);
    /* 3, 1, 2: they overtake each other on their streams. */
    static const int order[] = {2, 0, 1};
    for (int i = 0; i < 3; i++) {
        inject(&p[1], 1, obj[order[i]], n[order[i]]);
        assert_int_equal(read_object(&p[1], st[1], &got_n), 0);
        assert_int_equal(got_n, 6);
    }
    for (int i = 0; i < 3; i++) { /* replay */
        inject(&p[1], 1, obj[i], n[i]);
        assert_int_equal(read_object(&p[1], st[1], &got_n), ERR_NONCE);
    }
    /* A forged one does not use up the counter of the genuine one (incident 15). */
    obj[3][n[3] - 1] ^= 1;
    inject(&p[1], 1, obj[3], n[3]);
    assert_int_equal(read_object(&p[1], st[1], &got_n), ERR_TAG);
    obj[3][n[3] - 1] ^= 1;
    inject(&p[1], 1, obj[3], n[3]);
    assert_int_equal(read_object(&p[1], st[1], &got_n), 0);
    memset(obj[3] + 2, 0, 8); /* counter 0 */
    inject(&p[1], 1, obj[3], n[3]);
    assert_int_equal(read_object(&p[1], st[1], &got_n), ERR_NONCE);
    memset(obj[3] + 2, 0xff, 8); /* a huge one, forged: no harm to later ones */
    inject(&p[1], 1, obj[3], n[3]);
    assert_int_equal(read_object(&p[1], st[1], &got_n), ERR_TAG);
    n[0] = sealed_object(&p[0], st[0], "later", obj[0]);
    /* 1024 newer ones make it too old. */
    for (int i = 0; i < 1024; i++)
        n[1] = sealed_object(&p[0], st[0], "newer", obj[1]);
    inject(&p[1], 1, obj[1], n[1]);
    assert_int_equal(read_object(&p[1], st[1], &got_n), 0);
    inject(&p[1], 1, obj[0], n[0]);
    assert_int_equal(read_object(&p[1], st[1], &got_n), ERR_NONCE);
    assert_true(session_is_up(p[1].s));
    pair_close(p);
}

static void test_bad_objects_spare_the_session(void **state)
{
    struct side p[2];
    struct yamux_stream *st[2];
    enum session_read what;
    size_t n;
    (void)state;
    pair_init(p);
    pair_connect(p, 65536);
    open_stream(p, st);
    inject(&p[1], 1, (const uint8_t[]){0, 0}, 2); /* ping marker */
    assert_int_equal(session_read_object(p[1].s, st[1], &what, got, sizeof got, &n), 0);
    assert_int_equal(what, SESSION_READ_MARKER);
    assert_int_equal(yamux_readable(st[1]), 0);
    inject(&p[1], 1, (const uint8_t[]){0, 23, 0}, 3);
    assert_int_equal(read_object(&p[1], st[1], &n), ERR_AGAIN);
    inject(&p[1], 1, big, 22);
    assert_int_equal(read_object(&p[1], st[1], &n), ERR_SHORT);
    (void)yamux_discard(st[1], 100);
    memset(big, 0xff, sizeof big);
    inject(&p[1], 1, big, 65536);
    inject(&p[1], 1, big, 1);
    assert_int_equal(read_object(&p[1], st[1], &n), ERR_TAG);
    assert_int_equal(yamux_readable(st[1]), 0);
    /* The end in the middle of one. */
    inject(&p[1], 1, (const uint8_t[]){0}, 1);
    assert_int_equal(read_object(&p[1], st[1], &n), ERR_AGAIN);
    assert_int_equal(yamux_close_write(st[0]), 0);
    assert_int_equal(pass(&p[0], &p[1], 65536), 0);
    assert_int_equal(read_object(&p[1], st[1], &n), ERR_EOF);
    open_stream(p, st);
    yamux_reset(st[0]);
    assert_int_equal(pass(&p[0], &p[1], 65536), 0);
    assert_int_equal(read_object(&p[1], st[1], &n), ERR_RESET);
    assert_true(session_is_up(p[1].s));
    pair_close(p);
}

/* Errors that users of the mux run into end the session at its next tick. */
static void test_protocol_error(void **state)
{
    struct side p[2];
    struct yamux_stream *st[2];
    (void)state;
    pair_init(p);
    pair_connect(p, 65536);
    open_stream(p, st);
    assert_int_equal(session_ping(p[1].s, p[1].now_ns), 0);
    assert_int_equal(feed_hex(&p[1], "010000000000000000000000"), ERR_PROTOCOL);
    assert_int_equal(session_tick(p[1].s, p[1].now_ns), ERR_PROTOCOL);
    assert_int_equal(session_ping(p[1].s, p[1].now_ns), ERR_STATE);
    assert_int_equal(session_write_object(p[1].s, st[1], "x", 1), ERR_PROTOCOL);
    assert_int_equal(session_pending(p[1].s, p[1].now_ns), 0);
    yamux_release(st[1], false); /* still the user's to give back */
    pair_close(p);
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
        cmocka_unit_test(test_handshake_deadline),
        cmocka_unit_test(test_handshake_deadline_while_work_is_under_way),
        cmocka_unit_test(test_hold_back),
        cmocka_unit_test(test_keepalive),
        cmocka_unit_test(test_stream_deadline),
        cmocka_unit_test(test_no_keepalive_when_heard),
        cmocka_unit_test(test_write_stall),
        cmocka_unit_test(test_idle_session_holds_no_buffers),
        cmocka_unit_test(test_object_sizes),
        cmocka_unit_test(test_object_waits_for_room),
        cmocka_unit_test(test_object_counters),
        cmocka_unit_test(test_bad_objects_spare_the_session),
        cmocka_unit_test(test_protocol_error),
    };
    return cmocka_run_group_tests(tests, load, unload);
}
