#include "tests/unit/transport/session_side.h"

#include "base/loop.h"
#include "tests/unit/vectors.h"

static void on_ready(void *arg)
{
    struct session_side *p = arg;
    assert_false(p->in_call);
    p->readies++;
}

void ss_init(struct session_side *p, uint64_t seed)
{
    *p = (struct session_side){.now_ns = 100 * NS_PER_S};
    env_test_init(&p->env, seed);
    p->pool = bufpool_new(NULL);
    assert_non_null(p->pool);
    env_keypair(&p->env.env, &p->sk, &p->pk);
}

void ss_start_cfg(struct session_side *p, const struct pubkey *remote, struct session_cfg cfg)
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

void ss_start(struct session_side *p, const struct pubkey *remote)
{
    ss_start_cfg(p, remote,
                 (struct session_cfg){.hold_ms = SESSION_NO_HOLD, .keepalive_ms = 30000});
}

void ss_stop(struct session_side *p)
{
    session_free(p->s);
    p->s = NULL;
    p->out_len = 0;
    p->up = false;
    memset(p->streams, 0, sizeof p->streams);
    assert_int_equal(bufpool_in_use(p->pool), 0);
    assert_int_equal(env_test_queued(&p->env), 0);
}

void ss_close(struct session_side *p)
{
    ss_stop(p);
    bufpool_free(p->pool);
    env_test_close(&p->env);
    free(p->out);
}

/* Take what may be sent now. */
void ss_take(struct session_side *p)
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

void ss_pump(struct session_side *p)
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
int ss_work(struct session_side *p)
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
        ss_pump(p);
    return rc;
}

int ss_feed(struct session_side *p, const void *bytes, size_t n, size_t chunk)
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
            ss_pump(p);
    }
    return rc;
}

int ss_feed_hex(struct session_side *p, const char *hex)
{
    size_t n;
    uint8_t *bytes = hex_dup(hex, &n);
    int rc = ss_feed(p, bytes, n, n);
    free(bytes);
    return rc;
}

/* Move what `from` has to say to `to`, and answer its work. */
int ss_pass(struct session_side *from, struct session_side *to, size_t chunk)
{
    ss_take(from);
    int rc = ss_feed(to, from->out, from->out_len, chunk);
    from->out_len = 0;
    int after = ss_work(to);
    return rc < 0 ? rc : after;
}

void ss_pair_init(struct session_side p[2])
{
    ss_init(&p[0], 1);
    ss_init(&p[1], 2);
}

void ss_pair_connect(struct session_side p[2], size_t chunk)
{
    ss_start(&p[1], NULL);
    ss_start(&p[0], &p[1].pk);
    (void)ss_work(&p[0]);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(ss_pass(&p[0], &p[1], chunk), 0);
        assert_int_equal(ss_pass(&p[1], &p[0], chunk), 0);
    }
    assert_true(p[0].up && p[1].up);
}

void ss_pair_close(struct session_side p[2])
{
    ss_close(&p[0]);
    ss_close(&p[1]);
}

/* A stream that side 0 opens; both ends know it. */
void ss_open_stream(struct session_side p[2], struct yamux_stream *st[2])
{
    assert_int_equal(yamux_open(session_mux(p[0].s), NULL, p[0].now_ns, &st[0]), 0);
    assert_int_equal(ss_pass(&p[0], &p[1], 65536), 0);
    st[1] = p[1].streams[st[0]->id];
    assert_non_null(st[1]);
    assert_int_equal(ss_pass(&p[1], &p[0], 65536), 0);
}
