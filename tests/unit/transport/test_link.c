/* link: sessions over bad pipes. */
#include "transport/link.h"

#include "base/err.h"
#include "tests/unit/prop.h"
#include "tests/unit/transport/pipe.h"
#include "tests/unit/vectors.h"

/* ---- two links over a pair, with owners that write down what they hear ---- */

struct end {
    struct fixture *f;
    struct link *link;
    struct pipe_conn *conn;
    /* U up, O opened, A acked, R readable, E eof, W writable, X reset, P pong, G go away, D down */
    char log[64];
    int err;
    struct yamux_stream *st; /* the last one opened by the peer */
    size_t got;              /* bytes read by the default owner */
    bool echo, keep;         /* write back what comes; do not read */
    char close_at;           /* close the link when this letter is written down */
    void (*hook)(struct end *e, const struct yamux_event *ev);
};

struct fixture {
    struct env_test env;
    struct bufpool *pool;
    struct pipe_net net;
    struct seckey sk[2];
    struct pubkey pk[2];
    struct end end[2]; /* 0 is the initiator */
};

/* Answers to pings come whenever the keep-alive asks; they are written down where a test waits for
 * one. */
static void note(struct end *e, char what)
{
    if (what == 'P' && e->close_at != 'P')
        return;
    size_t n = strlen(e->log);
    if (n + 1 < sizeof e->log)
        e->log[n] = what;
    if (e->close_at == what && e->link != NULL) {
        link_close(e->link);
        e->link = NULL;
    }
}

static void on_up(struct link *l)
{
    note(link_arg(l), 'U');
}

static void on_down(struct link *l, int err)
{
    struct end *e = link_arg(l);
    e->err = err;
    note(e, 'D');
}

static void read_all(struct end *e, struct yamux_stream *st)
{
    uint8_t buf[4096];
    size_t n;
    while (!e->keep && (n = yamux_read(st, buf, sizeof buf)) > 0) {
        e->got += n;
        if (e->echo)
            assert_int_equal(yamux_write(st, buf, n), n);
    }
}

static void on_event(struct link *l, const struct yamux_event *ev)
{
    static const char letters[] = "OAREWXPG";
    struct end *e = link_arg(l);
    for (unsigned bit = 0; bit < 8; bit++) {
        if (ev->what & (1u << bit))
            note(e, letters[bit]);
        if (e->link == NULL)
            return;
    }
    if (e->hook != NULL) {
        e->hook(e, ev);
        return;
    }
    if (ev->what & YAMUX_OPENED) {
        e->st = ev->stream;
        assert_int_equal(yamux_accept(ev->stream), 0);
    }
    if (ev->what & YAMUX_READABLE)
        read_all(e, ev->stream);
    if (ev->what & YAMUX_RESET) {
        yamux_release(ev->stream, false);
        e->st = NULL;
    }
}

static const struct link_owner owner = {on_up, on_event, on_down};

static struct session_cfg cfg_of(struct fixture *f, int i)
{
    struct session_cfg cfg = {
        .env = &f->env.env,
        .pool = f->pool,
        .initiator = i == 0,
        .self = f->pk[i],
        .sk = &f->sk[i],
        .keepalive_ms = 30000,
    };
    if (i == 0)
        cfg.remote = f->pk[1];
    return cfg;
}

static void start_cfg(struct fixture *f, const struct session_cfg cfg[2])
{
    pipe_pair(&f->net, &f->end[0].conn, &f->end[1].conn);
    for (int i = 0; i < 2; i++) {
        f->end[i].f = f;
        f->end[i].link = link_new(&f->net.loop, &f->end[i].conn->conn, &cfg[i], &owner, &f->end[i]);
        assert_non_null(f->end[i].link);
    }
}

static void start(struct fixture *f)
{
    start_cfg(f, (struct session_cfg[]){cfg_of(f, 0), cfg_of(f, 1)});
}

static void start_up(struct fixture *f)
{
    start(f);
    pipe_net_run(&f->net, NS_PER_S);
    for (int i = 0; i < 2; i++) {
        assert_string_equal(f->end[i].log, "U");
        memset(f->end[i].log, 0, sizeof f->end[i].log);
    }
}

static struct yamux_stream *open_stream(struct end *e)
{
    struct yamux_stream *st;
    assert_int_equal(yamux_open(link_mux(e->link), NULL, pipe_now(&e->f->net), &st), 0);
    link_kick(e->link);
    return st;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    env_test_init(&f->env, 1);
    f->pool = bufpool_new(NULL);
    assert_non_null(f->pool);
    pipe_net_init(&f->net, f->pool, &f->env);
    for (int i = 0; i < 2; i++)
        env_keypair(&f->env.env, &f->sk[i], &f->pk[i]);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    if (f->net.loop.in_turn)
        return -1; /* an assertion jumped out of a turn: its message is what counts */
    for (int i = 0; i < 2; i++)
        if (f->end[i].link != NULL)
            link_close(f->end[i].link);
    pipe_net_free(&f->net);
    assert_int_equal(bufpool_in_use(f->pool), 0);
    bufpool_free(f->pool);
    env_test_close(&f->env);
    free(f);
    return 0;
}

/* ---- tests ---- */

static void test_up_and_echo(void **state)
{
    struct fixture *f = *state;
    start_up(f);
    assert_true(pubkey_equal(link_remote(f->end[0].link), &f->pk[1]));
    assert_true(pubkey_equal(link_remote(f->end[1].link), &f->pk[0]));
    f->end[1].echo = true;
    struct yamux_stream *st = open_stream(&f->end[0]);
    assert_int_equal(yamux_write(st, "hello", 5), 5);
    pipe_net_run(&f->net, NS_PER_S);
    assert_int_equal(f->end[0].got, 5);
    assert_string_equal(f->end[1].log, "OR");
    assert_string_equal(f->end[0].log, "AR");
}

/* Closed inside each of its owner's functions: not another one is called. */
static void test_close_inside_callbacks(void **state)
{
    struct fixture *f = *state;
    static const char when[] = "UARWXPGD";
    for (size_t i = 0; when[i] != '\0'; i++) {
        memset(f->end, 0, sizeof f->end);
        f->end[0].close_at = when[i];
        f->end[1].echo = true;
        start(f);
        pipe_net_run(&f->net, NS_PER_S);
        if (when[i] != 'U') {
            struct yamux *mux = link_mux(f->end[0].link);
            static uint8_t block[262144];
            struct yamux_stream *st = open_stream(&f->end[0]);
            if (when[i] == 'W') {
                f->end[1].keep = true;
                assert_int_equal(yamux_write(st, block, sizeof block), sizeof block);
                assert_int_equal(yamux_write(st, "x", 1), 0);
            } else {
                assert_int_equal(yamux_write(st, "x", 1), 1);
            }
            if (when[i] == 'P')
                assert_int_equal(yamux_ping(mux, pipe_now(&f->net)), 0);
            if (when[i] == 'G')
                yamux_go_away(link_mux(f->end[1].link), 0);
            link_kick(f->end[1].link);
            pipe_net_run(&f->net, NS_PER_MS);
            if (when[i] == 'W') {
                assert_true(yamux_discard(f->end[1].st, 262144) > 0);
                link_kick(f->end[1].link);
            }
            if (when[i] == 'X') {
                yamux_release(f->end[1].st, false);
                link_kick(f->end[1].link);
            }
            if (when[i] == 'D')
                pipe_break(f->end[0].conn, ERR_RESET);
            pipe_net_run(&f->net, NS_PER_S);
        }
        assert_null(f->end[0].link);
        size_t n = strlen(f->end[0].log);
        assert_int_equal(f->end[0].log[n - 1], when[i]);
        pipe_net_run(&f->net, 60 * NS_PER_S);
        assert_int_equal(strlen(f->end[0].log), n);
        assert_int_equal(f->end[1].log[strlen(f->end[1].log) - 1], 'D');
        link_close(f->end[1].link);
        link_close(f->end[1].link); /* twice is once */
        f->end[1].link = NULL;
    }
}

static void test_close_reaches_the_peer(void **state)
{
    struct fixture *f = *state;
    start_up(f);
    link_close(f->end[0].link);
    f->end[0].link = NULL;
    pipe_net_run(&f->net, NS_PER_S);
    assert_string_equal(f->end[1].log, "D");
    assert_int_equal(f->end[1].err, ERR_EOF);
    assert_string_equal(f->end[0].log, "");
}

static void test_close_before_the_first_turn(void **state)
{
    struct fixture *f = *state;
    f->env.deferred = true;
    start(f);
    for (int i = 0; i < 2; i++) {
        link_close(f->end[i].link);
        f->end[i].link = NULL;
    }
    pipe_net_run(&f->net, NS_PER_S);
    assert_string_equal(f->end[0].log, "");
    assert_string_equal(f->end[1].log, "");
}

/* A peer that vanished without FIN is noticed by the keep-alive, in both directions. */
static void test_freeze(void **state)
{
    struct fixture *f = *state;
    for (int frozen = 1; frozen <= 3; frozen++) {
        memset(f->end, 0, sizeof f->end);
        start_up(f);
        pipe_net_run(&f->net, 300 * NS_PER_S);
        assert_string_equal(f->end[0].log, "");
        f->end[0].conn->out.frozen = frozen & 1;
        f->end[1].conn->out.frozen = (frozen & 2) != 0;
        pipe_net_run(&f->net, 47 * NS_PER_S);
        for (int i = 0; i < 2; i++) {
            if (frozen & (2 >> i)) { /* hears nothing any more */
                assert_string_equal(f->end[i].log, "D");
                assert_int_equal(f->end[i].err, ERR_TIMEOUT);
            }
            link_close(f->end[i].link);
            f->end[i].link = NULL;
        }
    }
}

/* Keep-alive time-out, a write and a close in the same turn (incident 21). */
static void test_everything_at_once(void **state)
{
    struct fixture *f = *state;
    start_up(f);
    struct yamux_stream *st = open_stream(&f->end[0]);
    pipe_net_run(&f->net, NS_PER_S);
    f->end[0].conn->out.frozen = f->end[1].conn->out.frozen = true;
    uint64_t step = NS_PER_S / 10;
    while (f->end[0].err == 0) {
        if (yamux_writable(st) > 0)
            assert_int_equal(yamux_write(st, "x", 1), 1);
        link_kick(f->end[0].link);
        pipe_net_run(&f->net, step);
    }
    assert_int_equal(f->end[0].err, ERR_TIMEOUT);
    (void)yamux_write(st, "x", 1);
    link_kick(f->end[0].link);
    link_close(f->end[0].link);
    f->end[0].link = NULL;
    pipe_net_run(&f->net, NS_PER_S);
}

static void test_vanished_in_the_handshake(void **state)
{
    struct fixture *f = *state;
    for (int who = 0; who < 2; who++) {
        memset(f->end, 0, sizeof f->end);
        start(f);
        f->end[who].conn->out.frozen = true;
        pipe_net_run(&f->net, 5 * NS_PER_S - NS_PER_MS);
        assert_string_equal(f->end[who].log, "");
        pipe_net_run(&f->net, 2 * NS_PER_MS);
        assert_int_equal(f->end[1 - who].err, ERR_TIMEOUT);
        for (int i = 0; i < 2; i++) {
            link_close(f->end[i].link);
            f->end[i].link = NULL;
        }
    }
}

/* 9 s of delay are slow, not dead (incident 6). */
static void test_latency(void **state)
{
    struct fixture *f = *state;
    start_up(f);
    f->end[0].conn->out.delay_ns = 9 * NS_PER_S;
    pipe_net_run(&f->net, 300 * NS_PER_S);
    assert_string_equal(f->end[0].log, "");
    assert_string_equal(f->end[1].log, "");
    assert_true(session_rtt_ns(link_session(f->end[0].link)) >= 9 * NS_PER_S);
}

static void test_broken_pipe(void **state)
{
    struct fixture *f = *state;
    start_up(f);
    pipe_break(f->end[0].conn, ERR_RESET);
    pipe_break(f->end[0].conn, ERR_RESET);
    assert_string_equal(f->end[0].log, "D");
    assert_int_equal(f->end[0].err, ERR_RESET);
    link_kick(f->end[0].link);
    link_pause(f->end[0].link, true);
    pipe_net_run(&f->net, 100 * NS_PER_S);
    assert_string_equal(f->end[0].log, "D"); /* once */
}

/* The carrier takes nothing for 10 s while output waits: from the first byte on, or after some. */
static void write_stall(struct fixture *f, size_t first)
{
    memset(f->end, 0, sizeof f->end);
    start_up(f);
    static uint8_t block[100000];
    f->end[0].conn->out.window = first;
    f->end[0].conn->out.frozen = true;
    struct yamux_stream *st = open_stream(&f->end[0]);
    pipe_net_run(&f->net, 3 * NS_PER_S);
    assert_int_equal(yamux_write(st, block, sizeof block), sizeof block);
    link_kick(f->end[0].link);
    pipe_net_run(&f->net, 10 * NS_PER_S - NS_PER_MS);
    assert_string_equal(f->end[0].log, "");
    pipe_net_run(&f->net, 2 * NS_PER_MS);
    assert_int_equal(f->end[0].err, ERR_TIMEOUT);
    /* The other end does not wait for ever either (incident 19). */
    pipe_net_run(&f->net, 46 * NS_PER_S);
    assert_int_equal(f->end[1].err, ERR_TIMEOUT);
    for (int i = 0; i < 2; i++) {
        link_close(f->end[i].link);
        f->end[i].link = NULL;
    }
}

static void test_write_stall(void **state)
{
    write_stall(*state, YAMUX_HEADER_BYTES);
    write_stall(*state, 1000);
}

static void test_bad_peer(void **state)
{
    struct fixture *f = *state;
    start_up(f);
    /* Bytes of another protocol in the middle of the session. */
    struct yamux_stream *st = open_stream(&f->end[0]);
    (void)st;
    yamux_go_away(link_mux(f->end[0].link), 1);
    link_kick(f->end[0].link);
    pipe_net_run(&f->net, NS_PER_S);
    assert_int_equal(f->end[1].err, ERR_PROTOCOL);
}

/* The wrong key is a failed handshake at the server, and the end for the client. */
static void test_wrong_key(void **state)
{
    struct fixture *f = *state;
    f->pk[1] = f->pk[0];
    start(f);
    pipe_net_run(&f->net, NS_PER_S);
    assert_string_equal(f->end[1].log, "D");
    assert_int_equal(f->end[1].err, ERR_TAG);
    link_close(f->end[1].link);
    f->end[1].link = NULL;
    pipe_net_run(&f->net, NS_PER_S);
    assert_string_equal(f->end[0].log, "D");
}

static void test_bytes_one_at_a_time(void **state)
{
    struct fixture *f = *state;
    f->env.deferred = true;
    f->net.pk_per_turn = 1;
    f->net.fault.chunk = 1;
    start_up(f);
    f->end[1].echo = true;
    struct yamux_stream *st = open_stream(&f->end[0]);
    assert_int_equal(yamux_write(st, "one by one", 10), 10);
    pipe_net_run(&f->net, NS_PER_S);
    assert_int_equal(f->end[0].got, 10);
}

/* ---- transfers ---- */

struct transfer {
    struct end *from;
    struct yamux_stream *st;
    size_t total, written;
};

static uint8_t pattern(size_t at)
{
    return (uint8_t)(at * 7 + (at >> 8) * 5 + (at >> 16));
}

static void transfer_more(struct transfer *t)
{
    static uint8_t block[65536];
    while (t->written < t->total) {
        size_t n = t->total - t->written;
        n = n < sizeof block ? n : sizeof block;
        for (size_t i = 0; i < n; i++)
            block[i] = pattern(t->written + i);
        long took = yamux_write(t->st, block, n);
        assert_true(took >= 0);
        t->written += (size_t)took;
        if ((size_t)took < n)
            return;
    }
    assert_int_equal(yamux_close_write(t->st), 0);
}

static void send_hook(struct end *e, const struct yamux_event *ev)
{
    (void)e;
    if (ev->stream != NULL && ev->stream->user != NULL && (ev->what & YAMUX_WRITABLE))
        transfer_more(ev->stream->user);
}

static void sink_read(struct end *e, struct yamux_stream *st)
{
    uint8_t buf[5000];
    size_t n;
    while ((n = yamux_read(st, buf, sizeof buf)) > 0) {
        for (size_t i = 0; i < n; i++)
            assert_int_equal(buf[i], pattern(e->got + i));
        e->got += n;
    }
}

static void sink_hook(struct end *e, const struct yamux_event *ev)
{
    if (ev->what & YAMUX_OPENED) {
        e->st = ev->stream;
        assert_int_equal(yamux_accept(ev->stream), 0);
    }
    if (!e->keep && e->st != NULL && ev->stream == e->st)
        sink_read(e, ev->stream);
}

static void transfer_start(struct transfer *t, struct fixture *f, size_t total)
{
    f->end[0].hook = send_hook;
    f->end[1].hook = sink_hook;
    *t = (struct transfer){.from = &f->end[0], .st = open_stream(&f->end[0]), .total = total};
    t->st->user = t;
    transfer_more(t);
    link_kick(f->end[0].link);
}

static bool transfer_done(void *arg)
{
    struct transfer *t = arg;
    struct end *to = &t->from->f->end[1];
    return to->st != NULL && yamux_eof(to->st);
}

/* 200 ms round trip: credit comes early enough to keep the window full (incident 22). */
static void test_window_and_round_trip(void **state)
{
    struct fixture *f = *state;
    struct transfer t;
    start_up(f);
    f->end[0].conn->out.delay_ns = f->end[1].conn->out.delay_ns = 100 * NS_PER_MS;
    uint64_t began = pipe_now(&f->net);
    size_t total = 16u << 20;
    transfer_start(&t, f, total);
    assert_true(pipe_net_until(&f->net, 1000 * NS_PER_S, transfer_done, &t));
    assert_int_equal(f->end[1].got, total);
    double seconds = (double)(pipe_now(&f->net) - began) / 1e9, best = (double)YAMUX_WINDOW / 0.2;
    assert_true((double)total / seconds >= 0.8 * best);
}

/* Random faults that change while bytes flow: everything arrives, in order, with the end. */
static void test_transfer_through_faults(void **state)
{
    struct fixture *f = *state;
    struct prop r = prop_init("link through faults");
    for (int round = 0; round < 20; round++) {
        struct transfer t;
        memset(f->end, 0, sizeof f->end);
        f->env.deferred = prop_chance(&r, 50);
        start_up(f);
        transfer_start(&t, f, prop_size(&r, 400000) + 1);
        for (int i = 0; i < 400 && !transfer_done(&t); i++) {
            for (int k = 0; k < 2; k++) {
                struct pipe_conn *c = f->end[k].conn;
                c->out.delay_ns = prop_below(&r, 300) * NS_PER_MS;
                c->out.chunk = prop_chance(&r, 30) ? prop_size(&r, 100) + 1 : 0;
                c->out.rate = prop_chance(&r, 50) ? 20000 + prop_below(&r, 1000000) : 0;
                c->out.window = prop_chance(&r, 50) ? 1000 + prop_below(&r, 100000) : 0;
                c->out.stalled = prop_chance(&r, 10);
                link_pause(f->end[k].link, prop_chance(&r, 20));
                pipe_wake(c);
            }
            pipe_net_run(&f->net, prop_below(&r, 2000) * NS_PER_MS);
        }
        for (int k = 0; k < 2; k++) {
            f->end[k].conn->out = (struct pipe_fault){0};
            link_pause(f->end[k].link, false);
            pipe_wake(f->end[k].conn);
        }
        assert_true(pipe_net_until(&f->net, 100 * NS_PER_S, transfer_done, &t));
        assert_int_equal(f->end[1].got, t.total);
        for (int i = 0; i < 2; i++) {
            link_close(f->end[i].link);
            f->end[i].link = NULL;
        }
        pipe_net_run(&f->net, NS_PER_S);
    }
}

static void test_pause(void **state)
{
    struct fixture *f = *state;
    struct transfer t;
    start_up(f);
    f->end[0].conn->out.window = 50000;
    transfer_start(&t, f, 500000);
    pipe_net_run(&f->net, NS_PER_MS);
    assert_true(pipe_net_until(&f->net, NS_PER_S, transfer_done, &t));

    memset(f->end[1].log, 0, sizeof f->end[1].log);
    link_pause(f->end[1].link, true);
    f->end[1].got = 0;
    f->end[1].st = NULL;
    transfer_start(&t, f, 500000);
    pipe_net_run(&f->net, 5 * NS_PER_S);
    assert_string_equal(f->end[1].log, "");
    assert_true(f->end[0].conn->under_way == 50000);
    link_pause(f->end[1].link, false);
    assert_true(pipe_net_until(&f->net, NS_PER_S, transfer_done, &t));
}

/* A reader that sleeps holds no more than a window, and nobody else up. */
static void test_sleeping_reader(void **state)
{
    struct fixture *f = *state;
    struct transfer t;
    start_up(f);
    f->end[1].keep = true;
    transfer_start(&t, f, 2000000);
    pipe_net_run(&f->net, 100 * NS_PER_S);
    assert_int_equal(yamux_rx_bytes(link_mux(f->end[1].link)), YAMUX_WINDOW);
    assert_true(yamux_pending(link_mux(f->end[0].link)) == 0);

    struct yamux_stream *other = open_stream(&f->end[0]);
    assert_int_equal(yamux_write(other, "x", 1), 1);
    struct yamux_stream *slow = f->end[1].st;
    pipe_net_run(&f->net, NS_PER_S);
    assert_ptr_not_equal(f->end[1].st, slow);
    assert_int_equal(yamux_readable(f->end[1].st), 1);

    f->end[1].st = slow;
    f->end[1].keep = false;
    sink_read(&f->end[1], slow);
    link_kick(f->end[1].link);
    assert_true(pipe_net_until(&f->net, NS_PER_S, transfer_done, &t));
    assert_int_equal(f->end[1].got, 2000000);
}

/* A slow line full of payload: a ping is not late by more than what the carrier itself holds. */
static void test_ping_overtakes_payload(void **state)
{
    struct fixture *f = *state;
    struct transfer t;
    start_up(f);
    f->end[0].conn->out.rate = 20000;
    transfer_start(&t, f, 1000000);
    pipe_net_run(&f->net, 2 * NS_PER_S);
    assert_true(yamux_pending(link_mux(f->end[0].link)) > 100000);
    assert_int_equal(session_ping(link_session(f->end[0].link), pipe_now(&f->net)), 0);
    link_kick(f->end[0].link);
    pipe_net_run(&f->net, 5 * NS_PER_S); /* at most one frame of 64 KiB is in front of it */
    assert_true(session_rtt_ns(link_session(f->end[0].link)) > 0);
    assert_true(yamux_pending(link_mux(f->end[0].link)) > 50000);
}

/* More events at once than fit one round. */
static void test_many_streams(void **state)
{
    struct fixture *f = *state;
    struct yamux_stream *st[1000];
    start_up(f);
    f->end[1].echo = true;
    for (int i = 0; i < 1000; i++) {
        st[i] = open_stream(&f->end[0]);
        if (i % 250 == 249)
            pipe_net_run(&f->net, NS_PER_S);
    }
    for (int i = 0; i < 1000; i++)
        assert_int_equal(yamux_write(st[i], "abc", 3), 3);
    link_kick(f->end[0].link);
    pipe_net_run(&f->net, NS_PER_S);
    assert_int_equal(f->end[1].got, 3000);
    assert_int_equal(f->end[0].got, 3000);
    for (int i = 0; i < 1000; i++)
        yamux_release(st[i], false);
    link_kick(f->end[0].link);
    pipe_net_run(&f->net, NS_PER_S);
    struct yamux_stat s;
    yamux_stat(link_mux(f->end[1].link), &s);
    assert_int_equal(s.resets_in, 1000);
    assert_int_equal(s.held, 0); /* each was told, and released */
}

/* A writer goes on when output has drained, without a word from the peer. */
static void test_writer_woken_by_the_carrier(void **state)
{
    struct fixture *f = *state;
    struct session_cfg cfg[2] = {cfg_of(f, 0), cfg_of(f, 1)};
    struct transfer t;
    cfg[0].mux.out_high = 30000;
    start_cfg(f, cfg);
    pipe_net_run(&f->net, NS_PER_S);
    f->end[0].conn->out.rate = 100000;
    f->end[1].keep = true;
    transfer_start(&t, f, 200000);
    assert_true(t.written <= 30000);
    pipe_net_run(&f->net, 10 * NS_PER_S);
    assert_int_equal(yamux_readable(f->end[1].st), 200000);
}

/* A deadline that comes up before the one the timer is set for. */
static void test_earlier_deadline(void **state)
{
    struct fixture *f = *state;
    struct session_cfg cfg[2] = {cfg_of(f, 0), cfg_of(f, 1)};
    cfg[0].mux.syn_timeout_ms = 1000;
    start_cfg(f, cfg);
    pipe_net_run(&f->net, 10 * NS_PER_S);
    f->end[1].conn->out.frozen = true;
    memset(f->end[0].log, 0, sizeof f->end[0].log);
    (void)open_stream(&f->end[0]);
    pipe_net_run(&f->net, NS_PER_S + NS_PER_MS);
    assert_string_equal(f->end[0].log, "X");
}

static void keep_first_hook(struct end *e, const struct yamux_event *ev)
{
    if (ev->stream == NULL)
        return;
    if (ev->what & YAMUX_OPENED)
        assert_int_equal(yamux_accept(ev->stream), 0);
    if (ev->stream->id > 1)
        e->got += yamux_discard(ev->stream, SIZE_MAX);
}

/* Bytes that wait do not pin the read buffers they came in for longer than a turn. */
static void test_waiting_bytes_are_compacted(void **state)
{
    struct fixture *f = *state;
    static uint8_t block[60000];
    struct buf_budget budget = {0};
    struct bufpool *own = bufpool_new(&budget);
    assert_non_null(own);
    struct bufpool *pool = f->pool;
    f->net.pool = f->pool = own; /* of everything in this test */
    start_up(f);
    f->end[1].hook = keep_first_hook;
    struct yamux_stream *a = open_stream(&f->end[0]), *b = open_stream(&f->end[0]);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(yamux_write(a, block, 300), 300);
        assert_int_equal(yamux_write(b, block, sizeof block), sizeof block);
        link_kick(f->end[0].link);
        pipe_net_run(&f->net, NS_PER_S);
    }
    assert_int_equal(f->end[1].got, 20 * sizeof block);
    assert_true(budget.used <= 16384);
    for (int i = 0; i < 2; i++) {
        link_close(f->end[i].link);
        f->end[i].link = NULL;
    }
    pipe_net_run(&f->net, NS_PER_S);
    assert_int_equal(bufpool_in_use(own), 0);
    bufpool_free(own);
    f->net.pool = f->pool = pool;
}

/* While its handshake waits for public-key work, a server stops reading. */
static void test_reading_stops_while_work_waits(void **state)
{
    struct fixture *f = *state;
    struct session_cfg cfg[2] = {cfg_of(f, 0), cfg_of(f, 1)};
    struct env_test slow;
    struct transfer t;
    env_test_init(&slow, 2);
    slow.deferred = true;
    cfg[1].env = &slow.env;
    cfg[0].hold_ms = SESSION_NO_HOLD;
    start_cfg(f, cfg);
    while (f->end[0].log[0] != 'U') {
        (void)env_test_run(&slow, 1);
        pipe_net_run(&f->net, NS_PER_MS);
    }
    assert_string_equal(f->end[1].log, "");
    assert_true(env_test_queued(&slow) > 0); /* message 3 is being read */
    transfer_start(&t, f, 200000);
    pipe_net_run(&f->net, NS_PER_S);
    assert_true(f->end[1].conn->paused);
    assert_true(f->end[1].conn->received <= 51 + 67 + 65536);
    while (env_test_run(&slow, 1) > 0)
        pipe_net_run(&f->net, NS_PER_MS);
    assert_true(pipe_net_until(&f->net, NS_PER_S, transfer_done, &t));
    assert_false(f->end[1].conn->paused);
    for (int i = 0; i < 2; i++) {
        link_close(f->end[i].link);
        f->end[i].link = NULL;
    }
    pipe_net_run(&f->net, NS_PER_S);
    env_test_close(&slow);
}

/* What a relay does with the first object of a stream; a bad one ends its stream only. */
static void server_hook(struct end *e, const struct yamux_event *ev)
{
    static uint8_t obj[SESSION_OBJECT_MAX];
    enum session_read what;
    size_t n;
    if (ev->stream == NULL)
        return;
    if (ev->what & YAMUX_OPENED) /* one that is reset already cannot be accepted */
        assert_int_equal(yamux_accept(ev->stream), ev->what & YAMUX_RESET ? ERR_STATE : 0);
    int rc = session_read_object(link_session(e->link), ev->stream, &what, obj, sizeof obj, &n);
    if (rc == ERR_AGAIN)
        return;
    e->got += rc == 0 && what == SESSION_READ_OBJECT;
    yamux_release(ev->stream, rc == 0);
}

/* 1 000 streams of random bytes, early ends and resets: the session stays, the next good stream
 * works, and nothing of them is left (incident 8). */
static void test_bad_streams(void **state)
{
    struct fixture *f = *state;
    struct prop r = prop_init("bad streams");
    static uint8_t junk[3000];
    start_up(f);
    f->end[1].hook = server_hook;
    for (int i = 0; i < 1000; i++) {
        struct yamux_stream *st = open_stream(&f->end[0]);
        size_t n = prop_size(&r, sizeof junk);
        prop_bytes(&r, junk, n);
        if (n > 0)
            junk[0] &= 0x0f; /* objects that may come to an end */
        assert_int_equal(yamux_write(st, junk, n), n);
        yamux_release(st, prop_chance(&r, 70));
        if (i % 10 == 0)
            pipe_net_run(&f->net, NS_PER_MS);
    }
    pipe_net_run(&f->net, NS_PER_S);
    struct yamux_stream *good = open_stream(&f->end[0]);
    assert_int_equal(session_write_object(link_session(f->end[0].link), good, "fine", 4), 0);
    pipe_net_run(&f->net, NS_PER_S);
    assert_int_equal(f->end[1].got, 1);
    assert_int_equal(f->end[1].err, 0);
    yamux_release(good, true);
    link_kick(f->end[0].link);
    pipe_net_run(&f->net, 31 * NS_PER_S);
    for (int i = 0; i < 2; i++) {
        struct yamux_stat s;
        yamux_stat(link_mux(f->end[i].link), &s);
        assert_int_equal(s.streams + s.held + s.unaccepted + s.unacked + s.rx_bytes, 0);
    }
    assert_int_equal(bufpool_in_use(f->pool), 0);
}

/* No buffers: this link ends, and nothing else. */
static void test_out_of_buffers(void **state)
{
    struct fixture *f = *state;
    struct buf_budget budget = {.cap = 0};
    struct bufpool *poor = bufpool_new(&budget);
    struct transfer t;
    assert_non_null(poor);
    struct session_cfg cfg[2] = {cfg_of(f, 0), cfg_of(f, 1)};
    cfg[0].pool = poor;
    start_cfg(f, cfg);
    pipe_net_run(&f->net, NS_PER_S);
    transfer_start(&t, f, 1000);
    pipe_net_run(&f->net, NS_PER_S);
    assert_int_equal(f->end[1].got, 1000);
    budget.cap = 1;
    f->end[0].close_at = 'D';
    pipe_net_run(&f->net, 60 * NS_PER_S); /* the ping, or its answer, cannot be queued */
    assert_int_equal(f->end[0].err, ERR_NOMEM);
    assert_int_equal(f->end[1].err, ERR_EOF);
    assert_int_equal(bufpool_in_use(poor), 0);
    bufpool_free(poor);
}

/* ---- the carrier of the pipe ---- */

static void accept_link(void *arg, struct conn *conn)
{
    struct fixture *f = arg;
    struct session_cfg cfg = cfg_of(f, 1);
    f->end[1].conn = pipe_of(conn);
    f->end[1].link = link_new(&f->net.loop, conn, &cfg, &owner, &f->end[1]);
}

static struct conn *dialled;
static int dial_err;

static void dial_up(void *arg)
{
    struct fixture *f = arg;
    struct session_cfg cfg = cfg_of(f, 0);
    f->end[0].link = link_new(&f->net.loop, dialled, &cfg, &owner, &f->end[0]);
}

static void dial_down(void *arg, int err)
{
    (void)arg;
    dial_err = err;
    conn_close(dialled);
}

static const struct conn_user dialler = {.up = dial_up, .down = dial_down};

static int dial(struct fixture *f, const char *addr)
{
    dial_err = 0;
    return f->net.carrier.dial(&f->net.carrier, addr, 10000, &dialler, f, &dialled);
}

static void test_dial(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(dial(f, "nowhere"), ERR_FORMAT);
    assert_int_equal(dial(f, "relay:1"), 0);
    pipe_net_run(&f->net, NS_PER_S);
    assert_int_equal(dial_err, ERR_REFUSED);

    pipe_listen(&f->net, "relay:1", accept_link, f);
    f->net.dial_ns = 11 * NS_PER_S;
    assert_int_equal(dial(f, "relay:1"), 0);
    pipe_net_run(&f->net, 11 * NS_PER_S);
    assert_int_equal(dial_err, ERR_TIMEOUT);

    f->net.dial_ns = NS_PER_S;
    assert_int_equal(dial(f, "relay:1"), 0);
    pipe_net_run(&f->net, 2 * NS_PER_S);
    assert_int_equal(dial_err, 0);
    assert_string_equal(f->end[0].log, "U");
    assert_string_equal(f->end[1].log, "U");
    assert_string_equal(link_conn(f->end[0].link)->peer, "relay:1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(test_up_and_echo),
        T(test_close_inside_callbacks),
        T(test_close_reaches_the_peer),
        T(test_close_before_the_first_turn),
        T(test_freeze),
        T(test_everything_at_once),
        T(test_vanished_in_the_handshake),
        T(test_latency),
        T(test_broken_pipe),
        T(test_write_stall),
        T(test_bad_peer),
        T(test_wrong_key),
        T(test_bytes_one_at_a_time),
        T(test_window_and_round_trip),
        T(test_transfer_through_faults),
        T(test_pause),
        T(test_sleeping_reader),
        T(test_ping_overtakes_payload),
        T(test_many_streams),
        T(test_writer_woken_by_the_carrier),
        T(test_earlier_deadline),
        T(test_waiting_bytes_are_compacted),
        T(test_reading_stops_while_work_waits),
        T(test_bad_streams),
        T(test_out_of_buffers),
        T(test_dial),
#undef T
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
