/*
 * The recorded transcript of real peers (vectors dmsg.json: transcript) against our client: the
 * recorded server bytes go in, what comes out is compared byte for byte with what the recorded
 * client sent.
 *
 * Ephemeral keys are scripted through env_random(). Signatures of the recording were made with
 * drawn nonces, ours are RFC 6979: the env of this test signs with the recorded nonces instead.
 */
#include "tests/unit/transport/client_world.h"

#include "base/log.h"

/* ---- an env that signs with given nonces ---- */

static struct {
    const struct env_ops *real;
    struct env_ops ops;
    uint8_t nonce[4][32];
    size_t n, used;
} signer;

static int pk_with_nonce(struct env *env, struct pk_wait *wait, const struct pk_req *req)
{
    if (req->op != PK_SIGN || signer.used == signer.n)
        return signer.real->pk(env, wait, req);
    wait->res.err =
        crypto_sign_with_nonce(&wait->res.sig, &req->sk, &req->digest, signer.nonce[signer.used++]);
    return 0;
}

/* ---- the server's side of the conn: bytes as they are ---- */

struct tap {
    struct conn *conn;
    uint8_t *in;
    size_t in_n;
    const uint8_t *out;
    size_t out_n;
};

static void tap_up(void *arg)
{
    (void)arg;
}

static void tap_input(void *arg, struct slice in, uint64_t now_ns)
{
    struct tap *t = arg;

    (void)now_ns;
    t->in = realloc(t->in, t->in_n + in.n);
    assert_non_null(t->in);
    memcpy(t->in + t->in_n, in.p, in.n);
    t->in_n += in.n;
}

static int tap_output(void *arg, struct iovec *iov, int max, uint64_t now_ns)
{
    struct tap *t = arg;

    (void)now_ns, (void)max;
    if (t->out_n == 0)
        return 0;
    iov[0] = (struct iovec){(void *)(uintptr_t)t->out, t->out_n};
    return 1;
}

static void tap_sent(void *arg, size_t n, uint64_t now_ns)
{
    struct tap *t = arg;

    (void)now_ns;
    t->out += n;
    t->out_n -= n;
}

static void tap_down(void *arg, int err)
{
    (void)arg, (void)err;
}

static const struct conn_user tap_user = {tap_up, tap_input, tap_output, tap_sent, tap_down};

static void tap_accept(void *arg, struct conn *conn)
{
    struct tap *t = arg;

    t->conn = conn;
    conn_set_user(conn, &tap_user, t);
}

/* ---- the replay ---- */

struct replay {
    struct world w;
    json_t *doc;
    const json_t *root; /* the transcript */
    struct tap tap;
    size_t compared;
    struct app app;
    struct pubkey server, other;
};

static void key_read(struct world_key *k, const json_t *root, const char *who)
{
    char name[32];

    snprintf(name, sizeof name, "client_%s_sk", who);
    vec_hex(root, name, k->sk.b, sizeof k->sk.b);
    snprintf(name, sizeof name, "client_%s_pk", who);
    vec_hex(root, name, k->pk.b, sizeof k->pk.b);
}

static void script(struct replay *r, const char *const *ephemerals, const char *const *nonces,
                   size_t n_nonces)
{
    const json_t *draw;
    size_t i;

    signer.n = signer.used = 0;
    json_array_foreach(vec_get(r->root, "random_outputs"), i, draw)
    {
        const char *role = vec_str(draw, "role");
        uint8_t out[32];
        vec_hex(draw, "out", out, sizeof out);
        for (const char *const *e = ephemerals; *e != NULL; e++) {
            if (strcmp(role, *e) == 0)
                env_test_script(&r->w.env, out, sizeof out);
        }
        for (size_t k = 0; k < n_nonces; k++) {
            if (strncmp(role, "signature nonce", 15) == 0 && strstr(role, nonces[k]) != NULL)
                memcpy(signer.nonce[signer.n++], out, sizeof out);
        }
    }
    assert_int_equal(signer.n, n_nonces);
    signer.real = r->w.env.env.ops;
    signer.ops = *signer.real;
    signer.ops.pk = pk_with_nonce;
    r->w.env.env.ops = &signer.ops;
}

static bool has_bytes(void *arg)
{
    struct replay *r = arg;
    return r->tap.in_n >= r->compared;
}

/* The next bytes that our client sends are these. */
static void expect(struct replay *r, const json_t *event)
{
    size_t n, from = r->compared;
    uint8_t *want = vec_hex_dup(event, "hex", &n);

    r->compared += n;
    world_until(&r->w, has_bytes, r);
    assert_memory_equal(r->tap.in + from, want, n);
    free(want);
}

static void feed(struct replay *r, const json_t *event)
{
    size_t n;
    uint8_t *bytes = vec_hex_dup(event, "hex", &n);

    r->tap.out = bytes;
    r->tap.out_n = n;
    conn_flush(r->tap.conn);
    world_run(&r->w, NS_PER_MS);
    assert_int_equal(r->tap.out_n, 0);
    free(bytes);
}

static void start(struct replay *r, int client)
{
    char why[64];

    memset(r, 0, sizeof *r);
    r->doc = vectors_load("dmsg");
    r->root = vec_get(r->doc, "transcript");
    world_init(&r->w);
    assert_int_equal(log_set_levels("error", why, sizeof why), 0);
    vec_hex(r->root, "server_pk", r->server.b, sizeof r->server.b);
    key_read(&r->w.client[0].key, r->root, client == 0 ? "a" : "b");
    pipe_listen(&r->w.net, "r0:1", tap_accept, &r->tap);
    app_init(&r->app, &r->w);
}

static void finish(struct replay *r)
{
    assert_int_equal(signer.used, signer.n);
    app_close(&r->app);
    app_free(&r->app);
    world_client_stop(&r->w, 0);
    conn_close(r->tap.conn);
    free(r->tap.in);
    json_decref(r->doc);
    world_run(&r->w, NS_PER_S);
    world_free(&r->w);
}

static const json_t *decoded_object(const struct replay *r, int conn, size_t stream)
{
    const json_t *c =
        json_array_get(vec_get(r->root, "decoded_by_independent_reader"), (size_t)conn);
    return vec_get(json_array_get(vec_get(c, "streams"), stream), "object");
}

/* What the recorded application of client A did. */
static void act_a(struct replay *r, const char *action)
{
    if (strcmp(action, "dial B:80") == 0) {
        r->w.env.wall_ns = vec_int(decoded_object(r, 0, 0), "Timestamp");
        app_dial(&r->app, 0, &r->other, 80, 20000);
    } else if (strcmp(action, "stream open") == 0) {
        assert_int_equal(app_wait_open(&r->app), 0);
        assert_int_equal(stream_local_port(r->app.st), 49153);
        assert_true(pubkey_equal(stream_via(r->app.st), &r->server));
        app_send(&r->app, "ping over dmsg", 14);
    } else if (strcmp(action, "close stream") == 0) {
        assert_int_equal(r->app.got_n, 19);
        assert_memory_equal(r->app.got, "echo:ping over dmsg", 19);
        app_close(&r->app);
    } else if (strcmp(action, "dial B:81 (no listener)") == 0) {
        app_free(&r->app);
        app_init(&r->app, &r->w);
        r->w.env.wall_ns = vec_int(decoded_object(r, 0, 2), "Timestamp");
        app_dial(&r->app, 0, &r->other, 81, 20000);
    } else {
        assert_string_equal(action, "dial failed");
        assert_int_equal(app_wait_open(&r->app), ERR_TIMEOUT);
    }
}

static void test_client_a(void **state)
{
    static const char *const ephemerals[] = {"XK ephemeral secret of client A",
                                             "KK ephemeral secret, initiator A", NULL};
    static const char *const nonces[] = {"0cf24f", "d2f53d"};
    struct replay r;
    const json_t *ev;
    size_t i, compared = 0;

    (void)state;
    start(&r, 0);
    script(&r, ephemerals, nonces, 2);
    vec_hex(r.root, "client_b_pk", r.other.b, sizeof r.other.b);
    struct client_cfg cfg = world_cfg(&r.w, 0);
    cfg.attempt_ms = 30000;
    cfg.no_probes = true; /* the recording answers none */
    world_client_start(&r.w, 0, &cfg);
    assert_int_equal(client_add_server(r.w.client[0].c, &r.server, "r0:1"), 0);
    assert_int_equal(client_add_route(r.w.client[0].c, &r.other, &r.server), 0);
    json_array_foreach(vec_get(r.root, "events"), i, ev)
    {
        const json_t *conn = json_object_get(ev, "conn"), *act = json_object_get(ev, "action");
        if (act != NULL) {
            act_a(&r, json_string_value(act));
        } else if (conn != NULL && strcmp(json_string_value(conn), "A") == 0) {
            bool ours = strcmp(vec_str(ev, "from"), "A") == 0;
            (ours ? expect : feed)(&r, ev);
            compared += ours;
        }
    }
    assert_int_equal(compared, 8);
    finish(&r);
}

static void accept_b(void *arg, struct stream *st)
{
    struct replay *r = arg;

    assert_int_equal(stream_remote_port(st), 49153);
    app_take(&r->app, st);
}

/* The recorded application of client B: "echo:" in front of what comes, then close at EOF. */
static void act_b(struct app *a)
{
    static const char answer[] = "echo:ping over dmsg";

    if (a->st != NULL && a->got_n == 14 && a->send_n == 0) {
        assert_memory_equal(a->got, "ping over dmsg", 14);
        app_send(a, answer, sizeof answer - 1);
    }
    if (a->eof)
        app_close(a);
}

static void test_client_b(void **state)
{
    static const char *const ephemerals[] = {"XK ephemeral secret of client B",
                                             "KK ephemeral secret, responder B", NULL};
    static const char *const nonces[] = {"907930"};
    struct replay r;
    const json_t *ev;
    size_t i, compared = 0;

    (void)state;
    start(&r, 1);
    script(&r, ephemerals, nonces, 1);
    struct client_cfg cfg = world_cfg(&r.w, 0);
    cfg.no_probes = true;
    world_client_start(&r.w, 0, &cfg);
    assert_int_equal(client_add_server(r.w.client[0].c, &r.server, "r0:1"), 0);
    assert_int_equal(client_listen(r.w.client[0].c, 80, accept_b, &r), 80);
    json_array_foreach(vec_get(r.root, "events"), i, ev)
    {
        const json_t *conn = json_object_get(ev, "conn");
        if (conn == NULL || strcmp(json_string_value(conn), "B") != 0)
            continue;
        bool ours = strcmp(vec_str(ev, "from"), "B") == 0;
        (ours ? expect : feed)(&r, ev);
        compared += ours;
        act_b(&r.app);
    }
    /* The recorded client said nothing more to the request for a port without listener; ours sends
     * a signed refusal and FIN (§4.6). */
    assert_int_equal(compared, 8);
    assert_true(r.tap.in_n > r.compared);
    struct client_stat s;
    client_stat(r.w.client[0].c, &s);
    assert_int_equal(s.accepted, 1);
    assert_int_equal(s.refused, 1);
    finish(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_client_a),
        cmocka_unit_test(test_client_b),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
