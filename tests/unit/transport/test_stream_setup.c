/* Stream set-up of the client, both sides, against a server and peers that do everything wrong. */
#include "tests/unit/transport/raw_server.h"

#include "base/cursor.h"

struct fixture {
    struct raw_server s;
    struct raw_peer p;
    struct app *app; /* of the client's end */
};

static void start(struct fixture *f)
{
    memset(f, 0, sizeof *f);
    raw_start(&f->s);
    raw_peer_init(&f->p, &f->s, 1);
}

static struct client_stat stat_of(struct fixture *f)
{
    struct client_stat s;

    client_stat(f->s.w.client[0].c, &s);
    return s;
}

static void stop(struct fixture *f)
{
    noise_wipe(&f->p.noise);
    raw_stop(&f->s);
}

/* The session is there, and the next good stream works. */
static void session_is_fine(struct fixture *f)
{
    struct world_client *c = &f->s.w.client[0];

    c->echo = true;
    size_t before = c->n_in;
    struct raw_stream *x = raw_dial(&f->s, &f->p, 80);
    assert_int_equal(c->n_in, before + 1);
    raw_send(&f->p, &f->s, x, "good", 4);
    raw_run(&f->s, 10 * NS_PER_MS);
    assert_int_equal(c->in[before].got_n, 4);
    assert_int_equal(yamux_readable(x->st), 4 + RECORD_OVERHEAD);
    app_close(&c->in[before]);
    app_free(&c->in[before]);
    c->n_in = before;
    raw_release(&f->s, x);
    raw_run(&f->s, NS_PER_S);
    assert_int_equal(stat_of(f).session_lost, 0);
}

/* ---- the responder ---- */

struct spoil {
    const char *what;
    void (*fn)(struct fixture *f, struct object_request *req, uint8_t *msg);
    int answer; /* code of a signed refusal; 0: closed without a word */
};

static void bad_port(struct fixture *f, struct object_request *req, uint8_t *msg)
{
    (void)f, (void)msg;
    req->dst.port = 99;
}
static void bad_dst(struct fixture *f, struct object_request *req, uint8_t *msg)
{
    (void)msg;
    req->dst.pk = f->s.w.client[1].key.pk;
}
static void no_src(struct fixture *f, struct object_request *req, uint8_t *msg)
{
    (void)f, (void)msg;
    req->src.pk = (struct pubkey){{0}};
}
static void no_src_port(struct fixture *f, struct object_request *req, uint8_t *msg)
{
    (void)f, (void)msg;
    req->src.port = 0;
}
static void no_dst(struct fixture *f, struct object_request *req, uint8_t *msg)
{
    (void)f, (void)msg;
    req->dst.pk = (struct pubkey){{0}};
}
static void no_dst_port(struct fixture *f, struct object_request *req, uint8_t *msg)
{
    (void)f, (void)msg;
    req->dst.port = 0;
}
static void no_time(struct fixture *f, struct object_request *req, uint8_t *msg)
{
    (void)f, (void)msg;
    req->timestamp_ns = 0;
}
static void past(struct fixture *f, struct object_request *req, uint8_t *msg)
{
    (void)f, (void)msg;
    req->timestamp_ns = -5;
}
static void no_noise(struct fixture *f, struct object_request *req, uint8_t *msg)
{
    (void)f, (void)msg;
    req->noise_msg.n = 0;
}
static void short_noise(struct fixture *f, struct object_request *req, uint8_t *msg)
{
    (void)f, (void)msg;
    req->noise_msg.n = 48;
}
static void bad_point(struct fixture *f, struct object_request *req, uint8_t *msg)
{
    (void)f, (void)req;
    memset(msg + 1, 0xff, 32);
}
static void bad_tag(struct fixture *f, struct object_request *req, uint8_t *msg)
{
    (void)f, (void)req;
    msg[40] ^= 1;
}
static void foreign_src(struct fixture *f, struct object_request *req, uint8_t *msg)
{
    (void)msg;
    req->src.pk = f->s.w.client[2].key.pk; /* signed by somebody else */
}

static const struct spoil spoils[] = {
    {"no listener", bad_port, ERR_DMSG_NO_LISTENER},
    {"other destination", bad_dst, ERR_DMSG_REQ_DST_PK},
    {"no source", no_src, 0},
    {"no source port", no_src_port, 0},
    {"no destination", no_dst, 0},
    {"no destination port", no_dst_port, 0},
    {"timestamp 0", no_time, 0},
    {"negative timestamp", past, 0},
    {"no handshake", no_noise, 0},
    {"short handshake", short_noise, 0},
    {"no point", bad_point, 0},
    {"bad tag", bad_tag, 0},
    {"foreign signature", foreign_src, 0},
};

static void test_bad_requests(void **state)
{
    struct fixture f;

    (void)state;
    for (unsigned deferred = 0; deferred < 2; deferred++) {
        start(&f);
        for (size_t i = 0; i < sizeof spoils / sizeof spoils[0]; i++) {
            uint8_t msg[NOISE_OUT_MAX];
            struct object_request req;
            struct raw_stream *x = raw_open(&f.s);
            uint64_t refused = stat_of(&f).refused;

            raw_request(&f.p, &f.s, 80, msg, &req);
            spoils[i].fn(&f, &req, msg);
            raw_sign_request(&f.p, &req, &f.p.key.sk);
            f.s.w.env.deferred = deferred == 1;
            raw_object(&f.s, x, f.p.obj, f.p.obj_n);
            raw_run(&f.s, 20 * NS_PER_MS);
            f.s.w.env.deferred = false;
            int rc = raw_take_response(&f.p, &f.s, x);
            if (spoils[i].answer != 0) {
                assert_int_equal(rc, spoils[i].answer);
                assert_true(x->eof);
            } else {
                assert_int_equal(rc, ERR_RESET);
            }
            assert_int_equal(stat_of(&f).refused, refused + 1);
            assert_int_equal(stat_of(&f).streams, 0);
            raw_release(&f.s, x);
        }
        session_is_fine(&f);
        stop(&f);
    }
}

/* Right in all but its signature. */
static void test_bad_signature(void **state)
{
    uint8_t msg[NOISE_OUT_MAX];
    struct object_request req;
    struct fixture f;

    (void)state;
    start(&f);
    for (int i = 0; i < 3; i++) {
        struct raw_stream *x = raw_open(&f.s);
        raw_request(&f.p, &f.s, 80, msg, &req);
        raw_sign_request(&f.p, &req, i == 0 ? &f.s.w.relay_key[0].sk : &f.p.key.sk);
        if (i == 1)
            f.p.obj[5] ^= 1;
        if (i == 2)
            memset(f.p.obj, 0, SIG_BYTES);
        raw_object(&f.s, x, f.p.obj, f.p.obj_n);
        raw_run(&f.s, 20 * NS_PER_MS);
        assert_true(x->reset);
        assert_int_equal(f.s.w.client[0].n_in, 0);
    }
    session_is_fine(&f);
    stop(&f);
}

/* Timestamps far away are nobody's business (§4.6). */
static void test_far_timestamps(void **state)
{
    static const int64_t times[] = {1, INT64_MAX};
    struct fixture f;

    (void)state;
    start(&f);
    for (size_t i = 0; i < 2; i++) {
        uint8_t msg[NOISE_OUT_MAX];
        struct object_request req;
        struct raw_stream *x = raw_open(&f.s);

        raw_request(&f.p, &f.s, 80, msg, &req);
        req.timestamp_ns = times[i];
        raw_sign_request(&f.p, &req, &f.p.key.sk);
        raw_object(&f.s, x, f.p.obj, f.p.obj_n);
        raw_run(&f.s, 20 * NS_PER_MS);
        assert_int_equal(raw_take_response(&f.p, &f.s, x), 0);
    }
    stop(&f);
}

/* Not even an object. */
static void test_no_object(void **state)
{
    static const uint8_t marker[2] = {0, 0}, shorter[9] = {0, 7, 1, 2, 3, 4, 5, 6, 7};
    static uint8_t garbage[65537];
    struct fixture f;

    (void)state;
    start(&f);
    garbage[0] = garbage[1] = 0xff;
    const struct {
        const void *p;
        size_t n;
    } bytes[] = {{marker, 2}, {shorter, 9}, {garbage, 65537}};
    for (size_t i = 0; i < 3; i++) {
        struct raw_stream *x = raw_open(&f.s);
        raw_write(&f.s, x, bytes[i].p, bytes[i].n);
        raw_run(&f.s, 20 * NS_PER_MS);
        assert_true(x->reset);
    }
    for (size_t n = 1; n <= 70; n++) { /* sealed, but no signed object */
        struct raw_stream *x = raw_open(&f.s);
        raw_object(&f.s, x, garbage, n);
        raw_run(&f.s, 20 * NS_PER_MS);
        assert_true(x->reset);
    }
    struct raw_stream *x = raw_open(&f.s); /* FIN in the middle */
    raw_write(&f.s, x, garbage, 100);
    raw_fin(&f.s, x);
    raw_run(&f.s, 20 * NS_PER_MS);
    assert_true(x->reset);
    assert_int_equal(stat_of(&f).bad_objects, 74);
    assert_int_equal(stat_of(&f).streams, 0);
    session_is_fine(&f);
    stop(&f);
}

/* A stream that says nothing has 5 s, and nobody waits for it. */
static void test_silence(void **state)
{
    struct fixture f;

    (void)state;
    start(&f);
    struct raw_stream *x = raw_open(&f.s);
    raw_write(&f.s, x, "\1", 1);
    raw_run(&f.s, NS_PER_S);
    session_is_fine(&f);
    raw_run(&f.s, 2500 * NS_PER_MS);
    assert_false(x->reset);
    assert_int_equal(stat_of(&f).streams, 1);
    raw_run(&f.s, 1000 * NS_PER_MS);
    assert_true(x->reset);
    assert_int_equal(stat_of(&f).streams, 0);
    stop(&f);
}

/* The object byte by byte. */
static void test_slow_object(void **state)
{
    uint8_t msg[NOISE_OUT_MAX];
    struct object_request req;
    struct fixture f;

    (void)state;
    start(&f);
    struct raw_stream *x = raw_open(&f.s);
    raw_request(&f.p, &f.s, 80, msg, &req);
    raw_sign_request(&f.p, &req, &f.p.key.sk);
    f.s.w.client[0].echo = true;
    for (struct pipe_conn *c = f.s.w.net.conns; c != NULL; c = c->next)
        c->out.chunk = 1;
    raw_object(&f.s, x, f.p.obj, f.p.obj_n);
    raw_run(&f.s, 20 * NS_PER_MS);
    assert_int_equal(raw_take_response(&f.p, &f.s, x), 0);
    stop(&f);
}

/* 1 000 streams of rubbish, early closes and silence (incident 8). */
static void test_rubbish(void **state)
{
    struct prop r = prop_init("rubbish");
    struct fixture f;
    uint8_t bytes[600];

    (void)state;
    start(&f);
    for (int i = 0; i < 1000; i++) {
        struct raw_stream *x = raw_open(&f.s);
        size_t n = prop_below(&r, sizeof bytes);
        prop_bytes(&r, bytes, n);
        if (prop_chance(&r, 30) && n >= 2)
            put_be16(bytes, (uint16_t)(n - 2));
        if (prop_chance(&r, 70) && n > 0)
            raw_write(&f.s, x, bytes, n);
        else if (prop_chance(&r, 50) && n > 0)
            raw_object(&f.s, x, bytes, n);
        if (prop_chance(&r, 30))
            raw_fin(&f.s, x);
        if (prop_chance(&r, 30))
            raw_run(&f.s, prop_below(&r, 100) * NS_PER_MS);
        if (prop_chance(&r, 30))
            raw_release(&f.s, x);
    }
    raw_run(&f.s, 10 * NS_PER_S);
    assert_int_equal(stat_of(&f).streams, 0);
    assert_int_equal(stat_of(&f).sessions_up, 1);
    session_is_fine(&f);
    stop(&f);
}

/* ---- limits ---- */

static void ask_for(struct fixture *f, struct raw_peer *p, struct raw_stream **x, uint16_t port)
{
    uint8_t msg[NOISE_OUT_MAX];
    struct object_request req;

    *x = raw_open(&f->s);
    raw_request(p, &f->s, port, msg, &req);
    raw_sign_request(p, &req, &p->key.sk);
    raw_object(&f->s, *x, p->obj, p->obj_n);
}

/* More set-ups at a time than the backlog: a signed refusal 401 (incident 18). */
static void test_backlog(void **state)
{
    struct fixture f;
    struct raw_peer p[6];
    struct raw_stream *x[6];
    unsigned open = 0, full = 0;

    (void)state;
    start(&f);
    world_client_stop(&f.s.w, 0);
    raw_run(&f.s, NS_PER_S);
    f.s.down = f.s.up = false;
    struct client_cfg cfg = world_cfg(&f.s.w, 0);
    cfg.backlog = 4;
    world_client_start(&f.s.w, 0, &cfg);
    world_join(&f.s.w, 0, 0);
    raw_run(&f.s, NS_PER_S);
    assert_true(f.s.up);
    for (int i = 0; i < 6; i++) {
        raw_peer_init(&p[i], &f.s, i);
        ask_for(&f, &p[i], &x[i], 80);
    }
    f.s.w.env.deferred = true; /* all of them are at the same step */
    raw_run(&f.s, NS_PER_S);
    f.s.w.env.deferred = false;
    for (int i = 0; i < 6; i++) {
        int rc = raw_take_response(&p[i], &f.s, x[i]);
        open += rc == 0;
        full += rc == ERR_DMSG_ACCEPT_FULL;
        noise_wipe(&p[i].noise);
    }
    assert_int_equal(open, 4);
    assert_int_equal(full, 2);
    session_is_fine(&f); /* the places are free again */
    stop(&f);
}

/* No capacity for public-key work: this stream is refused, nothing else. */
static void test_busy(void **state)
{
    struct fixture f;
    struct raw_stream *x;

    (void)state;
    start(&f);
    f.s.w.env.pk_cap = 0;
    ask_for(&f, &f.p, &x, 80);
    raw_run(&f.s, 20 * NS_PER_MS);
    assert_true(x->reset);
    f.s.w.env.pk_cap = ENV_TEST_PK_CAP;
    session_is_fine(&f);
    stop(&f);
}

static void accept_nothing(void *arg, struct stream *st)
{
    (void)arg, (void)st;
    fail_msg("the listener is gone");
}

/* The listener goes while a stream is in set-up. */
static void test_unlisten_during_set_up(void **state)
{
    struct fixture f;
    struct raw_stream *x;
    bool done_all = false;

    (void)state;
    start(&f);
    assert_int_equal(client_listen(f.s.w.client[0].c, 90, accept_nothing, NULL), 90);
    for (size_t steps = 0; steps < 10; steps++) {
        ask_for(&f, &f.p, &x, 90);
        f.s.w.env.deferred = true;
        f.s.w.net.env = NULL; /* only what the test runs */
        raw_run(&f.s, NS_PER_MS);
        done_all |= env_test_run(&f.s.w.env, steps) < steps;
        client_unlisten(f.s.w.client[0].c, 90);
        f.s.w.net.env = &f.s.w.env;
        raw_run(&f.s, NS_PER_S);
        f.s.w.env.deferred = false;
        assert_int_equal(stat_of(&f).streams, 0);
        raw_release(&f.s, x);
        assert_int_equal(client_listen(f.s.w.client[0].c, 90, accept_nothing, NULL), 90);
    }
    assert_true(done_all); /* the last rounds unlisten just before the user would hear of it */
    session_is_fine(&f);
    stop(&f);
}

/* ---- data that is wrong ---- */

static void spoil_frame(struct fixture *f, struct raw_stream *x, int how, int *want)
{
    uint8_t frame[64];
    struct cipher copy = f->p.tx;

    put_be16(frame, 4 + CIPHER_OVERHEAD);
    assert_int_equal(cipher_seal(&f->p.tx, frame + 2, (const uint8_t *)"evil", 4), 0);
    size_t n = 2 + 4 + CIPHER_OVERHEAD;
    switch (how) {
    case 0: /* tag */
        frame[n - 1] ^= 1;
        *want = ERR_TAG;
        break;
    case 1: /* counter does not rise */
        copy.counter = 0;
        assert_int_equal(cipher_seal(&copy, frame + 2, (const uint8_t *)"evil", 4), 0);
        *want = ERR_NONCE;
        break;
    case 2: /* prefix too long */
        put_be16(frame, 4095);
        *want = ERR_TOO_LONG;
        break;
    case 3: /* prefix 0 */
        put_be16(frame, 0);
        *want = ERR_SHORT;
        break;
    default: /* FIN in mid-frame */
        n -= 3;
        *want = ERR_SHORT;
    }
    raw_write(&f->s, x, frame, n);
    if (how == 4)
        raw_fin(&f->s, x);
}

static void test_bad_frames(void **state)
{
    struct fixture f;

    (void)state;
    start(&f);
    for (int how = 0; how < 5; how++) {
        struct world_client *c = &f.s.w.client[0];
        int want = 0;

        c->echo = false;
        struct raw_stream *x = raw_dial(&f.s, &f.p, 80);
        struct app *a = &c->in[c->n_in - 1];
        raw_send(&f.p, &f.s, x, "fine", 4);
        spoil_frame(&f, x, how, &want);
        raw_run(&f.s, 20 * NS_PER_MS);
        assert_int_equal(a->err, want);
        assert_int_equal(a->got_n, 4); /* what was good in front of it */
        assert_memory_equal(a->got, "fine", 4);
        assert_false(a->eof);
        assert_true(x->reset);
        app_close(a);
        app_free(a);
        c->n_in--;
        session_is_fine(&f);
    }
    stop(&f);
}

/* Empty frames and frames with gaps in the counter are legal. */
static void test_odd_frames(void **state)
{
    uint8_t frame[64];
    struct fixture f;

    (void)state;
    start(&f);
    struct raw_stream *x = raw_dial(&f.s, &f.p, 80);
    struct app *a = &f.s.w.client[0].in[0];
    put_be16(frame, CIPHER_OVERHEAD);
    for (int i = 0; i < 3; i++) {
        f.p.tx.counter += 1000;
        assert_int_equal(cipher_seal(&f.p.tx, frame + 2, frame, 0), 0);
        raw_write(&f.s, x, frame, 2 + CIPHER_OVERHEAD);
        raw_run(&f.s, NS_PER_MS);
        assert_string_equal(a->log, "A"); /* nothing to read */
        raw_run(&f.s, NS_PER_MS);
    }
    raw_send(&f.p, &f.s, x, "data", 4);
    raw_run(&f.s, NS_PER_MS);
    assert_int_equal(a->got_n, 4);
    raw_fin(&f.s, x);
    raw_run(&f.s, NS_PER_MS);
    assert_true(a->eof);
    stop(&f);
}

/* ---- the dialer ---- */

enum wrong {
    RIGHT,
    RIGHT_AND_DATA, /* in one write */
    WRONG_HASH,
    WRONG_SIGNER,
    WRONG_NOISE,
    NO_NOISE,
    REFUSAL_306,
    REFUSAL_UNKNOWN,
    REFUSAL_WITHOUT_CODE,
    MARKER,
    GARBAGE,
    END,
    RESET,
    SILENCE,
    WRONGS
};

static const int wrong_err[WRONGS] = {[REFUSAL_306] = ERR_DMSG_NO_LISTENER,
                                      [REFUSAL_UNKNOWN] = ERR_DMSG_RSP_REJECTED,
                                      [REFUSAL_WITHOUT_CODE] = ERR_DMSG_RSP_REJECTED,
                                      [WRONG_NOISE] = ERR_TAG,
                                      [NO_NOISE] = ERR_SHORT,
                                      [WRONG_HASH] = ERR_DMSG_CANNOT_CONNECT,
                                      [WRONG_SIGNER] = ERR_DMSG_CANNOT_CONNECT,
                                      [MARKER] = ERR_DMSG_CANNOT_CONNECT,
                                      [GARBAGE] = ERR_DMSG_CANNOT_CONNECT,
                                      [END] = ERR_DMSG_CANNOT_CONNECT,
                                      [RESET] = ERR_DMSG_CANNOT_CONNECT,
                                      [SILENCE] = ERR_TIMEOUT};

/* Of the step, where it says more. */
static const int wrong_step[WRONGS] = {[WRONG_HASH] = ERR_DMSG_RSP_HASH,
                                       [WRONG_SIGNER] = ERR_DMSG_RSP_SIG,
                                       [MARKER] = ERR_DMSG_OBJECT,
                                       [END] = ERR_EOF,
                                       [RESET] = ERR_RESET,
                                       [SILENCE] = ERR_TIMEOUT};

static void answer(struct fixture *f, struct raw_stream *x, enum wrong how)
{
    static const uint8_t marker[2] = {0, 0};
    uint8_t msg[NOISE_OUT_MAX];
    struct object_request req;
    size_t n;

    raw_take_request(&f->p, &f->s, x, &req, msg, &n);
    struct object_response rsp = {.req_hash = f->p.hash, .accepted = true, .noise_msg = {msg, n}};
    const struct seckey *sk = &f->p.key.sk;
    switch (how) {
    case SILENCE:
        return;
    case RESET:
        raw_release(&f->s, x);
        return;
    case END:
        raw_fin(&f->s, x);
        return;
    case MARKER:
        raw_write(&f->s, x, marker, 2);
        return;
    case GARBAGE:
        raw_object(&f->s, x,
                   "no response at all, and yet longer than a signature has to be, isn't it?", 72);
        return;
    case WRONG_HASH:
        rsp.req_hash.b[3] ^= 1;
        break;
    case WRONG_SIGNER:
        sk = &f->s.w.relay_key[0].sk;
        break;
    case WRONG_NOISE:
        msg[45] ^= 1;
        break;
    case NO_NOISE:
        rsp.noise_msg.n = 0;
        break;
    case REFUSAL_306:
        rsp = (struct object_response){.req_hash = f->p.hash, .err_code = 306};
        break;
    case REFUSAL_UNKNOWN:
        rsp = (struct object_response){.req_hash = f->p.hash, .err_code = 4711};
        break;
    case REFUSAL_WITHOUT_CODE:
        rsp = (struct object_response){.req_hash = f->p.hash};
        break;
    case RIGHT:
    case RIGHT_AND_DATA:
    case WRONGS:
        break;
    }
    raw_sign_response(&f->p, &rsp, sk);
    raw_object(&f->s, x, f->p.obj, f->p.obj_n);
    if (how == RIGHT_AND_DATA)
        raw_send(&f->p, &f->s, x, "at once", 7);
}

static void answered(struct fixture *f, enum wrong how)
{
    struct app a;
    size_t n;

    app_init(&a, &f->s.w);
    app_dial(&a, 0, &f->p.key.pk, 80, 20000);
    raw_run(&f->s, 10 * NS_PER_MS);
    struct raw_stream *x = f->s.opened;
    answer(f, x, how);
    raw_run(&f->s, 20 * NS_PER_MS);
    if (how == SILENCE) {
        assert_false(app_saw(&a, 'E'));
        raw_run(&f->s, 5 * NS_PER_S);
    }
    assert_int_equal(a.err, wrong_err[how]);
    if (wrong_err[how] == 0) {
        assert_true(app_saw(&a, 'O'));
        app_send(&a, "to you", 6);
        raw_run(&f->s, 20 * NS_PER_MS);
        assert_int_equal(a.got_n, how == RIGHT_AND_DATA ? 7 : 0);
        assert_int_equal(yamux_readable(x->st), 6 + RECORD_OVERHEAD);
    }
    const struct client_step *s = stream_dial_steps(a.st, &n);
    if (wrong_step[how] != 0)
        assert_int_equal(s[0].err, wrong_step[how]);
    app_close(&a);
    app_free(&a);
    raw_release(&f->s, x);
    raw_run(&f->s, 100 * NS_PER_S); /* memory of failure */
    struct client_stat st = stat_of(f);
    assert_int_equal(st.streams, 0);
    assert_int_equal(st.ports, st.listeners);
    assert_int_equal(st.session_lost, 0);
}

static void test_bad_answers(void **state)
{
    (void)state;
    for (unsigned deferred = 0; deferred < 2; deferred++) {
        struct fixture f;
        start(&f);
        assert_int_equal(client_add_route(f.s.w.client[0].c, &f.p.key.pk, &f.s.w.relay_key[0].pk),
                         0);
        for (enum wrong how = RIGHT; how < WRONGS; how++)
            answered(&f, how);
        answered(&f, RIGHT);
        stop(&f);
    }
}

/* The request as the protocol wants it. */
static void test_request(void **state)
{
    struct fixture f;
    struct app a;
    uint8_t msg[NOISE_OUT_MAX];
    struct object_request req;
    struct hash digest;
    struct sig sig;
    size_t n;

    (void)state;
    start(&f);
    assert_int_equal(client_add_route(f.s.w.client[0].c, &f.p.key.pk, &f.s.w.relay_key[0].pk), 0);
    f.s.w.env.wall_ns = 1234567890;
    app_init(&a, &f.s.w);
    app_dial(&a, 0, &f.p.key.pk, 4321, 20000);
    raw_run(&f.s, 10 * NS_PER_MS);
    raw_take_request(&f.p, &f.s, f.s.opened, &req, msg, &n);
    assert_int_equal(req.timestamp_ns, 1234567890);
    assert_true(pubkey_equal(&req.src.pk, &f.s.w.client[0].key.pk));
    assert_int_equal(req.src.port, 49153);
    assert_true(pubkey_equal(&req.dst.pk, &f.p.key.pk));
    assert_int_equal(req.dst.port, 4321);
    assert_false(req.ip_info);
    assert_int_equal(req.noise_msg.n, 49);
    object_digest(&digest, f.p.obj, f.p.obj_n);
    object_get_sig(&sig, f.p.obj);
    assert_int_equal(crypto_verify_digest(&req.src.pk, &sig, &digest), 0);
    app_close(&a);
    app_free(&a);
    stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_requests),   cmocka_unit_test(test_bad_signature),
        cmocka_unit_test(test_far_timestamps), cmocka_unit_test(test_no_object),
        cmocka_unit_test(test_silence),        cmocka_unit_test(test_slow_object),
        cmocka_unit_test(test_rubbish),        cmocka_unit_test(test_backlog),
        cmocka_unit_test(test_busy),           cmocka_unit_test(test_unlisten_during_set_up),
        cmocka_unit_test(test_bad_frames),     cmocka_unit_test(test_odd_frames),
        cmocka_unit_test(test_bad_answers),    cmocka_unit_test(test_request),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
