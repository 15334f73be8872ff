/* relay: bytes both ways, half-close, resets, time-outs, byte budgets, and that nothing is left. */
#include "transport/relay.h"

#include "tests/unit/prop.h"
#include "tests/unit/transport/relay_world.h"
#include "tests/unit/vectors.h"

struct pair { /* an open bridge */
    struct rw_stream *src, *dst;
};

static struct pair join(struct rw_peer *a, struct rw_peer *b)
{
    struct pair p = {.src = rw_dial(a, &b->key.pk)};
    assert_int_equal(rw_verdict(p.src), 0);
    p.dst = rw_last_incoming(b);
    assert_non_null(p.dst);
    return p;
}

/* ---- bytes ---- */

static void test_both_ways(void **state)
{
    (void)state;
    static const struct pipe_fault faults[] = {
        {0}, {.chunk = 1000}, {.window = 3000}, {.delay_ns = 20 * NS_PER_MS}, {.rate = 400000}};
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        struct rw_world w;
        rw_init(&w, NULL);
        w.net.fault = faults[i];
        struct rw_peer *a = rw_peer_new(&w, 1), *b = rw_peer_new(&w, 2);
        struct pair p = join(a, b);
        rw_pattern(p.src, 1 << 20, true);
        rw_pattern(p.dst, 1500000, true);
        for (int t = 0; t < 300; t++) {
            rw_run(&w, 100 * NS_PER_MS);
            assert_true(rw_stat(&w).buffered <= 2 * YAMUX_WINDOW);
        }
        assert_true(p.src->eof && p.dst->eof && !p.src->wrong && !p.dst->wrong);
        assert_int_equal(p.dst->got, 1 << 20);
        assert_int_equal(p.src->got, 1500000);
        assert_int_equal(rw_stat(&w).bytes, (1 << 20) + 1500000);
        assert_true(rw_all_zero(&w));
        rw_free(&w);
    }
}

static void test_many_streams(void **state)
{
    (void)state;
    struct rw_world w;
    struct pair p[40];
    rw_init(&w, NULL);
    w.net.fault.window = 100000;
    struct rw_peer *a = rw_peer_new(&w, 1), *b = rw_peer_new(&w, 2);
    for (int i = 0; i < 40; i++)
        p[i] = join(i % 2 ? a : b, i % 2 ? b : a);
    for (int i = 0; i < 40; i++) {
        rw_pattern(p[i].src, 100000 + 1000u * (unsigned)i, true);
        rw_pattern(p[i].dst, 70000, true);
    }
    rw_run(&w, NS_PER_S);
    for (int i = 0; i < 40; i++) {
        assert_int_equal(p[i].dst->got, 100000 + 1000 * i);
        assert_int_equal(p[i].src->got, 70000);
        assert_true(p[i].src->eof && p[i].dst->eof && !p[i].src->wrong && !p[i].dst->wrong);
    }
    assert_int_equal(rw_stat(&w).resets_budget, 0);
    rw_free(&w);
}

/* What comes right behind the response, also FIN, with public-key work pending meanwhile. */
static void test_glued_answer(void **state)
{
    (void)state;
    for (int deferred = 0; deferred < 2; deferred++) {
        struct rw_world w;
        rw_init(&w, NULL);
        w.env.deferred = deferred;
        struct rw_peer *a = rw_peer_new(&w, 1), *b = rw_peer_new(&w, 2);
        b->answer = RW_ACCEPT_GLUED;
        struct pair p = join(a, b);
        rw_run(&w, NS_PER_MS);
        assert_true(p.src->eof && !p.src->wrong);
        assert_int_equal(p.src->got, 1000);
        rw_pattern(p.src, 500000, true); /* the other direction is open */
        rw_run(&w, NS_PER_S);
        assert_true(p.dst->eof && !p.dst->wrong);
        assert_int_equal(p.dst->got, 500000);
        assert_true(rw_all_zero(&w));
        rw_free(&w);
    }
}

/* The dialer ended its direction before the answer came. */
static void test_early_fin(void **state)
{
    (void)state;
    struct rw_world w;
    rw_init(&w, NULL);
    w.env.deferred = true;
    struct rw_peer *a = rw_peer_new(&w, 1), *b = rw_peer_new(&w, 2);
    struct rw_stream *s = rw_open(a);
    struct object_request req = rw_request(s, &b->key.pk);
    rw_send_request(s, &req, &a->key.sk);
    rw_pattern(s, 5000, true);
    rw_run(&w, NS_PER_MS);
    struct rw_stream *in = rw_last_incoming(b);
    assert_int_equal(rw_verdict(s), 0);
    assert_true(in->eof && in->got == 5000);
    rw_pattern(in, 7000, true);
    rw_run(&w, NS_PER_MS);
    assert_true(s->eof && s->got == 7000);
    assert_true(rw_all_zero(&w));
    rw_free(&w);
}

/* ---- the end of one direction (incident 24) ---- */

static void half_close(bool by_dst)
{
    struct rw_world w;
    rw_init(&w, NULL);
    struct rw_peer *a = rw_peer_new(&w, 1), *b = rw_peer_new(&w, 2);
    struct pair p = join(a, b);
    struct rw_stream *first = by_dst ? p.dst : p.src, *second = by_dst ? p.src : p.dst;
    rw_pattern(first, 10, true);
    rw_run(&w, NS_PER_MS); /* EOF of the request arrives at once */
    assert_true(second->eof && second->got == 10 && !first->eof);
    assert_int_equal(rw_stat(&w).bridges, 1);
    rw_run(&w, 25 * NS_PER_S);
    rw_pattern(second, 900000, false); /* the answer flows, beyond one window */
    rw_run(&w, 25 * NS_PER_S);
    assert_int_equal(first->got, 900000);
    assert_true(!first->eof && !first->wrong);
    rw_pattern(second, 5, true);
    rw_run(&w, NS_PER_MS);
    assert_true(first->eof && first->got == 900005);
    assert_true(!first->reset && !second->reset);
    assert_int_equal(rw_stat(&w).bridges, 0);
    assert_int_equal(rw_stat(&w).resets_drain, 0);
    rw_free(&w);
}

static void test_half_close(void **state)
{
    (void)state;
    half_close(false);
    half_close(true);
}

/* FIN waits behind bytes that the other side does not take yet. */
static void test_fin_behind_bytes(void **state)
{
    (void)state;
    struct rw_world w;
    rw_init(&w, NULL);
    struct rw_peer *a = rw_peer_new(&w, 1), *b = rw_peer_new(&w, 2);
    b->keep = true;
    struct pair p = join(a, b);
    rw_pattern(p.src, 400000, true);
    rw_run(&w, NS_PER_S);
    assert_false(p.dst->eof);
    assert_in_range(rw_stat(&w).buffered, 100000, YAMUX_WINDOW);
    rw_resume(p.dst);
    rw_run(&w, NS_PER_MS);
    assert_true(p.dst->eof && !p.dst->wrong);
    assert_int_equal(p.dst->got, 400000);
    assert_int_equal(rw_stat(&w).buffered, 0);
    rw_pattern(p.dst, 1, true);
    rw_run(&w, NS_PER_MS);
    assert_true(p.src->eof && p.src->got == 1);
    assert_true(rw_all_zero(&w));
    rw_free(&w);
}

/* News of a FIN that has been passed on already: it waits behind more than a round of events, while
 * the receiver's credit moves the last bytes. The other direction stays open. */
static void test_stale_news(void **state)
{
    (void)state;
    struct rw_world w;
    static struct pair p[300];
    rw_init(&w, &(struct relay_cfg){.syn_per_s = 10000});
    struct rw_peer *a = rw_peer_new(&w, 1), *b = rw_peer_new(&w, 2);
    for (int i = 0; i < 300; i++)
        p[i] = join(a, b);
    struct pair *last = &p[299];
    last->src->keep = true;
    rw_pattern(last->dst, YAMUX_WINDOW + 1000, false); /* the last of it waits in the relay */
    rw_run(&w, NS_PER_S);
    assert_in_range(rw_stat(&w).buffered, 1000, 2000); /* the response took some of the window */
    for (int i = 0; i < 299; i++)
        rw_pattern(p[i].dst, 1, false);
    rw_fin(last->dst);
    rw_resume(last->src);
    rw_run(&w, NS_PER_MS);
    assert_true(last->src->eof && last->src->got == YAMUX_WINDOW + 1000);
    assert_int_equal(rw_stat(&w).bridges, 300);
    rw_pattern(last->src, 5000, true);
    rw_run(&w, NS_PER_MS);
    assert_true(last->dst->eof && last->dst->got == 5000 && !last->dst->reset);
    rw_free(&w);
}

static void test_drain_timeout(void **state)
{
    (void)state;
    struct rw_world w;
    rw_init(&w, NULL);
    struct rw_peer *a = rw_peer_new(&w, 1), *b = rw_peer_new(&w, 2);
    struct pair p = join(a, b);
    rw_fin(p.src);
    for (int i = 0; i < 10; i++) { /* as long as something moves it lives */
        rw_run(&w, 20 * NS_PER_S);
        rw_pattern(p.dst, 10, false);
    }
    rw_run(&w, 29 * NS_PER_S);
    assert_int_equal(rw_stat(&w).bridges, 1);
    rw_run(&w, 2 * NS_PER_S);
    assert_true(p.src->reset && p.dst->reset);
    assert_int_equal(p.src->got, 100);
    assert_int_equal(rw_stat(&w).resets_drain, 1);
    assert_int_equal(rw_stat(&w).bridges, 0);
    assert_true(!a->down && !b->down);
    rw_free(&w);
}

static void test_idle_timeout(void **state)
{
    (void)state;
    struct rw_world w;
    rw_init(&w, NULL);
    struct rw_peer *a = rw_peer_new(&w, 1), *b = rw_peer_new(&w, 2);
    struct pair idle = join(a, b), one_way = join(a, b);
    for (int i = 0; i < 3; i++) {
        rw_run(&w, 99 * NS_PER_S);
        rw_pattern(one_way.dst, 1, false);
    }
    assert_int_equal(rw_stat(&w).bridges, 2);
    rw_run(&w, 5 * NS_PER_S);
    assert_true(idle.src->reset && idle.dst->reset);
    assert_true(!rw_over(one_way.src) && !rw_over(one_way.dst));
    assert_int_equal(rw_stat(&w).resets_idle, 1);
    rw_run(&w, 290 * NS_PER_S);
    assert_int_equal(rw_stat(&w).bridges, 1);
    rw_run(&w, 10 * NS_PER_S);
    assert_int_equal(rw_stat(&w).bridges, 0);
    assert_int_equal(rw_stat(&w).resets_idle, 2);
    rw_free(&w);
}

/* ---- the end of a side ---- */

static void test_reset_midway(void **state)
{
    (void)state;
    for (int by_dst = 0; by_dst < 2; by_dst++) {
        struct rw_world w;
        rw_init(&w, NULL);
        w.net.fault.rate = 1000000;
        struct rw_peer *a = rw_peer_new(&w, 1), *b = rw_peer_new(&w, 2);
        struct pair p = join(a, b), other = join(a, b);
        rw_pattern(p.src, 1 << 20, false);
        rw_pattern(p.dst, 1 << 20, false);
        rw_pattern(other.src, 300000, true);
        rw_run(&w, 100 * NS_PER_MS);
        rw_reset(by_dst ? p.dst : p.src);
        rw_run(&w, 5 * NS_PER_S);
        assert_true((by_dst ? p.src : p.dst)->reset);
        assert_true(other.dst->eof && other.dst->got == 300000 && !other.dst->wrong);
        assert_int_equal(rw_stat(&w).bridges, 1);
        assert_int_equal(rw_stat(&w).buffered, 0);
        rw_free(&w);
    }
}

static void test_session_lost_midway(void **state)
{
    (void)state;
    for (int who = 0; who < 3; who++) {
        struct rw_world w;
        rw_init(&w, NULL);
        struct rw_peer *a = rw_peer_new(&w, 1), *b = rw_peer_new(&w, 2);
        struct pair p = join(a, b), back = join(b, a), loop = join(b, b);
        b->conn->out.rate = a->conn->out.rate = 500000;
        rw_pattern(p.src, 1 << 20, false);
        rw_pattern(p.dst, 1 << 20, false);
        rw_pattern(back.src, 1 << 20, true);
        rw_pattern(loop.src, 1 << 20, true);
        rw_run(&w, 200 * NS_PER_MS);
        if (who == 2)
            pipe_break(b->inner, ERR_RESET);
        else
            rw_peer_close(who == 0 ? b : a);
        rw_run(&w, 200 * NS_PER_MS);
        struct rw_stream *left = who == 1 ? p.dst : p.src;
        assert_true(left->reset);
        assert_int_equal(rw_stat(&w).bridges, who == 1 ? 1 : 0);
        assert_int_equal(rw_stat(&w).sessions, 1);
        rw_free(&w);
    }
}

/* Incident 19: a peer that stops reading TCP is closed after 10 s without progress, and both ends
 * of what it had hear of it. */
static void test_stopped_reader(void **state)
{
    (void)state;
    struct rw_world w;
    rw_init(&w, NULL);
    struct rw_peer *a = rw_peer_new(&w, 1), *b = rw_peer_new(&w, 2);
    struct pair p = join(a, b);
    b->inner->out.window = 1000;
    conn_pause(&b->conn->conn, true);
    rw_pattern(p.src, 1 << 20, false);
    rw_run(&w, 9 * NS_PER_S);
    assert_int_equal(rw_stat(&w).sessions, 2);
    /* One window in each of the workers that it passes. */
    assert_in_range(rw_stat(&w).buffered, 1, (rw_workers > 1 ? 2 : 1) * YAMUX_WINDOW);
    rw_run(&w, 2 * NS_PER_S);
    assert_int_equal(rw_stat(&w).sessions, 1);
    assert_true(p.src->reset && !a->down);
    conn_pause(&b->conn->conn, false);
    rw_run(&w, NS_PER_S);
    assert_true(b->down);
    assert_true(rw_all_zero(&w));
    rw_free(&w);
}

/* ---- byte budgets ---- */

#define STALLED 6
/* What four stalled streams hold. With workers also what the receiver's window has lost to the object
 * before, and for a moment what moves between them. */
#define FOUR_WINDOWS ((1u << 20) + (rw_workers > 1 ? 150000u : 0))

static void test_session_budget(void **state)
{
    (void)state;
    struct rw_world w;
    struct pair p[STALLED], good, stranger;
    rw_init(&w, &(struct relay_cfg){.session_budget = FOUR_WINDOWS});
    struct rw_peer *a = rw_peer_new(&w, 1), *b = rw_peer_new(&w, 2), *c = rw_peer_new(&w, 3);
    good = join(a, c);
    stranger = join(c, b);
    for (int i = 0; i < STALLED; i++) {
        b->keep = true;
        p[i] = join(a, b);
        rw_pattern(p[i].src, 2 * YAMUX_WINDOW, false); /* one in b's window, one in the relay */
        rw_run(&w, NS_PER_S);
        rw_pattern(good.src, 100000, false);
        rw_pattern(stranger.src, 100000, false);
        rw_run(&w, NS_PER_S);
        assert_true(rw_stat(&w).buffered <= FOUR_WINDOWS);
    }
    /* Four fit; the two that stood longest went, on both sides. */
    assert_int_equal(rw_stat(&w).resets_budget, STALLED - 4);
    for (int i = 0; i < STALLED; i++) {
        assert_int_equal(p[i].src->reset, i < STALLED - 4);
        assert_int_equal(p[i].dst->reset, i < STALLED - 4);
    }
    /* The others did not notice. */
    assert_int_equal(good.dst->got, STALLED * 100000);
    assert_int_equal(stranger.dst->got, STALLED * 100000);
    for (int i = STALLED - 4; i < STALLED; i++)
        rw_resume(p[i].dst);
    rw_run(&w, NS_PER_S);
    for (int i = STALLED - 4; i < STALLED; i++)
        assert_true(p[i].dst->got == 2 * YAMUX_WINDOW && !p[i].dst->wrong);
    assert_int_equal(rw_stat(&w).buffered, 0);
    rw_free(&w);
}

/* Who drains slowly but drains is not the longest stalled. */
static void test_budget_spares_who_moves(void **state)
{
    (void)state;
    struct rw_world w;
    struct pair dead[4], slow;
    rw_init(&w, &(struct relay_cfg){.session_budget = FOUR_WINDOWS});
    struct rw_peer *a = rw_peer_new(&w, 1), *b = rw_peer_new(&w, 2), *c = rw_peer_new(&w, 3);
    slow = join(a, c);
    c->inner->out.rate = 20000;
    rw_pattern(slow.src, 800000, true);
    rw_run(&w, NS_PER_S);
    b->keep = true;
    for (int i = 0; i < 4; i++) {
        dead[i] = join(a, b);
        rw_pattern(dead[i].src, 2 * YAMUX_WINDOW, false);
        rw_run(&w, 2 * NS_PER_S);
    }
    rw_run(&w, 60 * NS_PER_S);
    assert_int_equal(rw_stat(&w).resets_budget, 1);
    assert_true(dead[0].src->reset);
    assert_true(slow.dst->eof && slow.dst->got == 800000 && !slow.dst->wrong);
    rw_free(&w);
}

/* Many streams that all move: nobody is reset, the sender is held back. */
static void test_budget_lets_busy_streams(void **state)
{
    (void)state;
    enum { BUSY = 40, EACH_SENDS = 600000 };
    struct rw_world w;
    struct pair p[BUSY];
    rw_init(&w, &(struct relay_cfg){.session_budget = 1 << 20});
    struct rw_peer *a = rw_peer_new(&w, 1), *b = rw_peer_new(&w, 2);
    for (int i = 0; i < BUSY; i++)
        p[i] = join(a, b);
    b->inner->out.rate = 4000000;
    for (int i = 0; i < BUSY; i++)
        rw_pattern(p[i].src, EACH_SENDS, true);
    for (int i = 0; i < 100; i++) {
        rw_run(&w, NS_PER_S / 10);
        assert_true(rw_stat(&w).buffered <= 5 << 20); /* 4 budgets, and what was read at once */
    }
    assert_true(rw_stat(&w).stopped > 0);
    assert_int_equal(rw_stat(&w).resets_budget, 0);
    assert_int_equal(rw_stat(&w).buffered, 0);
    for (int i = 0; i < BUSY; i++)
        assert_true(p[i].dst->eof && p[i].dst->got == EACH_SENDS && !p[i].dst->wrong);
    rw_free(&w);
}

/* A stopped socket is read again when what made it stop was reset. */
static void test_budget_stop_ends(void **state)
{
    (void)state;
    enum { STUCK = 20 };
    struct rw_world w;
    struct pair p[STUCK], good;
    rw_init(&w, &(struct relay_cfg){.session_budget = FOUR_WINDOWS});
    struct rw_peer *a = rw_peer_new(&w, 1), *b = rw_peer_new(&w, 2), *c = rw_peer_new(&w, 3);
    good = join(a, c);
    b->keep = true;
    for (int i = 0; i < STUCK; i++)
        p[i] = join(a, b);
    for (int i = 0; i < STUCK; i++)
        rw_pattern(p[i].src, 2 * YAMUX_WINDOW, false);
    rw_run(&w, NS_PER_S);
    assert_true(rw_stat(&w).stopped > 0);
    assert_int_equal(rw_stat(&w).resets_budget, 0);
    rw_pattern(good.src, 100000, false);
    rw_run(&w, 10 * NS_PER_S);
    assert_true(rw_stat(&w).buffered <= FOUR_WINDOWS);
    assert_int_equal(rw_stat(&w).resets_budget, STUCK - 4);
    assert_int_equal(good.dst->got, 100000);
    rw_free(&w);
}

/* One that the receiver holds and, when that has arrived there, one for the relay: what moves between
 * workers counts too. */
static void two_windows(struct rw_world *w, struct rw_stream *s, size_t less)
{
    rw_pattern(s, YAMUX_WINDOW, false);
    rw_run(w, NS_PER_S);
    rw_pattern(s, YAMUX_WINDOW - less, false);
    rw_run(w, NS_PER_S);
}

static void test_total_budget(void **state)
{
    (void)state;
    struct rw_world w;
    struct pair p[5], more;
    rw_init(&w, &(struct relay_cfg){.total_budget = FOUR_WINDOWS});
    struct rw_peer *sink = rw_peer_new(&w, 1), *src[4];
    sink->keep = true;
    for (unsigned i = 0; i < 3; i++) {
        src[i] = rw_peer_new(&w, 10 + i);
        p[i] = join(src[i], sink);
        two_windows(&w, p[i].src, 0);
    }
    more = join(src[1], sink); /* src[1] holds most */
    two_windows(&w, more.src, 4096);
    assert_int_equal(rw_stat(&w).resets_budget, 0);
    src[3] = rw_peer_new(&w, 20);
    p[3] = join(src[3], sink);
    two_windows(&w, p[3].src, 0);
    assert_true(rw_stat(&w).buffered <= FOUR_WINDOWS);
    assert_int_equal(rw_stat(&w).resets_budget, 1);
    /* Of several workers, the one whose share it is looks for the worst among its own. */
    if (rw_workers == 1)
        assert_true(p[1].src->reset && !more.src->reset && !p[0].src->reset && !p[3].src->reset);
    rw_free(&w);
}

/* Bytes of other sessions that have been drained meanwhile count no more, although those sessions
 * had no event of their own since. */
static void test_drained_bytes_do_not_count(void **state)
{
    (void)state;
    struct rw_world w;
    struct pair p[8];
    rw_init(&w, &(struct relay_cfg){.total_budget = 600000});
    struct rw_peer *sink = rw_peer_new(&w, 1);
    for (unsigned i = 0; i < 8; i++) {
        sink->keep = true;
        p[i] = join(rw_peer_new(&w, 10 + i), sink);
        rw_pattern(p[i].src, 2 * YAMUX_WINDOW, false);
        rw_run(&w, NS_PER_S);
        assert_in_range(rw_stat(&w).buffered, 1, FOUR_WINDOWS - 3 * YAMUX_WINDOW);
        rw_resume(p[i].dst);
        rw_run(&w, NS_PER_S);
        assert_int_equal(rw_stat(&w).buffered, 0);
        assert_int_equal(p[i].dst->got, 2 * YAMUX_WINDOW);
    }
    assert_int_equal(rw_stat(&w).resets_budget, 0);
    rw_free(&w);
}

/* Bytes sent ahead of the answer count too; streams still in their set-up are reset as well. */
static void test_budget_in_setup(void **state)
{
    (void)state;
    struct rw_world w;
    static const uint8_t junk[65536];
    rw_init(&w, &(struct relay_cfg){.session_budget = 1 << 20});
    struct rw_raw *r = rw_raw_new(&w, 1);
    struct rw_peer *b = rw_peer_new(&w, 2);
    b->answer = RW_SILENT;
    for (uint32_t i = 0; i < 10; i++) {
        uint8_t obj[OBJECT_ENCODED_MAX];
        struct object_request req = {.timestamp_ns = 1,
                                     .src = {r->key.pk, (uint16_t)(1 + i)},
                                     .dst = {b->key.pk, 80},
                                     .noise_msg = {junk, 49}};
        uint32_t id = 1 + 2 * i;
        rw_raw_header(r, YAMUX_T_WINDOW, YAMUX_F_SYN, id, 0);
        rw_raw_object(r, id, obj, rw_sign_request(obj, &req, &r->key.sk));
        for (int k = 0; k < 3; k++)
            rw_raw_data(r, 0, id, junk, sizeof junk);
        rw_run(&w, 10 * NS_PER_MS);
    }
    assert_int_equal(rw_stat(&w).resets_budget, 0); /* all young */
    rw_run(&w, 4 * NS_PER_S);
    assert_true(rw_stat(&w).buffered <= 1 << 20);
    assert_int_equal(rw_stat(&w).resets_budget, 5);
    assert_int_equal(rw_stat(&w).setups, 5);
    assert_int_equal(rw_stat(&w).stream_failed, 5);
    rw_run(&w, 6 * NS_PER_S);
    assert_int_equal(rw_stat(&w).setups, 0);
    assert_int_equal(rw_stat(&w).buffered, 0);
    assert_false(r->down);
    rw_free(&w);
}

/* Both ends of a stream in one session: one kill takes two streams from it. */
static void test_budget_loopback(void **state)
{
    (void)state;
    struct rw_world w;
    struct pair p[6];
    rw_init(&w, &(struct relay_cfg){.session_budget = 700000});
    struct rw_peer *a = rw_peer_new(&w, 1);
    a->keep = true;
    for (int i = 0; i < 6; i++) {
        p[i] = join(a, a);
        p[i].src->keep = true;
        rw_pattern(p[i].src, 2 * YAMUX_WINDOW, false);
        rw_pattern(p[i].dst, 2 * YAMUX_WINDOW, false);
        rw_run(&w, 4 * NS_PER_S);
        assert_true(rw_stat(&w).buffered <= 700000);
    }
    assert_true(rw_stat(&w).resets_budget >= 4);
    assert_false(a->down);
    rw_free(&w);
}

/* ---- nothing is left ---- */

#define SESSIONS 16
#define EACH     625 /* 10 000 bridges */

/* Incident 16: of ten thousand bridges some vanish, some half-close, some stay silent. */
static void test_ten_thousand(void **state)
{
    (void)state;
    struct rw_world w;
    struct rw_peer *a[SESSIONS], *b[SESSIONS];
    rw_init(&w, &(struct relay_cfg){.syn_per_s = 100000});
    for (unsigned i = 0; i < SESSIONS; i++) {
        a[i] = rw_peer_new(&w, 100 + i);
        b[i] = rw_peer_new(&w, 200 + i);
    }
    for (unsigned k = 0; k < EACH; k++)
        for (unsigned i = 0; i < SESSIONS; i++) {
            struct pair p = join(a[i], b[(i + k) % SESSIONS]);
            switch ((i + k) % 5) {
            case 0:
                rw_pattern(p.src, 3000, true);
                break;
            case 1:
                rw_reset(p.dst);
                break;
            case 2:
                p.dst->keep = true;
                rw_pattern(p.src, 2000, false);
                break;
            case 3:
                rw_pattern(p.dst, 100, true);
                break;
            default:
                break;
            }
        }
    rw_run(&w, NS_PER_MS);
    assert_int_equal(rw_stat(&w).stream_ok, SESSIONS * EACH);
    assert_int_equal(rw_stat(&w).bridges, SESSIONS * EACH * 4 / 5);
    for (unsigned i = 0; i < SESSIONS; i += 2) {
        rw_peer_close(a[i]);
        b[i]->conn->out.frozen = b[i]->inner->out.frozen = true;
    }
    rw_run(&w, 60 * NS_PER_S); /* the frozen ones are found out */
    assert_int_equal(rw_stat(&w).sessions, SESSIONS);
    rw_run(&w, 245 * NS_PER_S); /* idle_ms and 5 s since it all began */
    assert_int_equal(rw_stat(&w).bridges, 0);
    assert_int_equal(rw_stat(&w).setups, 0);
    assert_int_equal(rw_stat(&w).buffered, 0);
    assert_int_equal(bufpool_in_use(w.pool), 0);
    for (unsigned i = 0; i < SESSIONS; i++)
        b[i]->conn->out.frozen = false;
    rw_free(&w);
}

/* A storm of everything on bad pipes; whatever arrives is right, and in the end nothing is left. */
#define ACTORS 6

static struct rw_stream *any_stream(struct prop *r, struct rw_peer *p)
{
    size_t n = 0, at;
    struct list_node *pos, *tmp;
    list_for_each(pos, tmp, &p->streams) n++;
    if (n == 0)
        return NULL;
    at = n > 12 ? n - 1 - prop_below(r, 12) : prop_below(r, n);
    list_for_each(pos, tmp, &p->streams) if (at-- == 0) break;
    struct rw_stream *s = container_of(pos, struct rw_stream, node);
    return s->st != NULL && s->opened ? s : NULL;
}

static void act_on_stream(struct prop *r, struct rw_stream *s)
{
    size_t what = prop_below(r, 10);
    if (what < 6 && !s->fin_behind && !s->echo)
        rw_pattern(s, prop_size(r, 400000), prop_chance(r, 20));
    else if (what == 6)
        s->keep = true;
    else if (what < 9)
        rw_resume(s);
    else
        rw_reset(s);
}

static void storm_dial(struct prop *r, struct rw_peer *p, unsigned i)
{
    struct rw_key dst =
        rw_key_of(prop_chance(r, 5) ? 77u : 1u + (i + (unsigned)prop_below(r, 4)) % ACTORS);
    struct rw_stream *s;
    struct yamux_stream *st;
    if (prop_chance(r, 10)) {
        s = rw_open(p);
        if (prop_chance(r, 50))
            (void)yamux_write(s->st, "\0\0", 2);
        return;
    }
    s = rw_open(p);
    st = s->st;
    struct object_request req = rw_request(s, &dst.pk);
    if (yamux_write_fits(st, 1000))
        rw_send_request(s, &req, &p->key.sk);
}

static void storm(struct prop *r, bool deferred)
{
    struct rw_world w;
    struct rw_peer *p[ACTORS];
    rw_init(&w, &(struct relay_cfg){.session_budget = 900000, .total_budget = 1500000});
    w.env.deferred = w.env.shuffle = deferred;
    w.net.pk_per_turn = 1 + prop_below(r, 4);
    for (unsigned i = 0; i < ACTORS; i++) {
        w.net.fault = (struct pipe_fault){.delay_ns = prop_below(r, 3) * NS_PER_MS,
                                          .chunk = prop_chance(r, 30) ? 1 + prop_below(r, 5000) : 0,
                                          .window = prop_chance(r, 30) ? 4096 : 0};
        p[i] = rw_peer_new(&w, 1 + i);
    }
    for (int step = 0; step < 1500; step++) {
        unsigned i = (unsigned)prop_below(r, ACTORS);
        if (p[i]->link == NULL || prop_chance(r, 1)) { /* comes back, maybe as its own successor */
            if (prop_chance(r, 50))
                rw_peer_close(p[i]);
            p[i] = rw_peer_new(&w, 1 + i);
        }
        p[i]->answer = prop_chance(r, 80) ? RW_ACCEPT : (enum rw_answer)prop_below(r, RW_RESET + 1);
        p[i]->echo = prop_chance(r, 30);
        p[i]->keep = !p[i]->echo && prop_chance(r, 10);
        struct yamux_stat ms;
        yamux_stat(link_mux(p[i]->link), &ms);
        if (prop_chance(r, 40) && ms.unacked < 100) {
            storm_dial(r, p[i], i);
        } else {
            struct rw_stream *s = any_stream(r, p[i]);
            if (s != NULL)
                act_on_stream(r, s);
        }
        if (prop_chance(r, 60))
            rw_run(&w, prop_below(r, 20) * NS_PER_MS);
        assert_true(rw_stat(&w).buffered <= 1500000);
    }
    rw_run(&w, 400 * NS_PER_S); /* idle and drain times pass */
    assert_true(rw_all_zero(&w));
    struct relay_stat st = rw_stat(&w);
    assert_int_equal(st.stream_ok + st.stream_failed + st.pings, st.streams);
    assert_true(st.stream_ok > 50 && st.bytes > 1000000);
    struct list_node *pos, *tmp, *pos2, *tmp2;
    list_for_each(pos, tmp, &w.peers)
    {
        struct rw_peer *peer = container_of(pos, struct rw_peer, node);
        list_for_each(pos2, tmp2, &peer->streams)
        {
            struct rw_stream *s = container_of(pos2, struct rw_stream, node);
            assert_true(!s->wrong || (!s->incoming && s->obj_n == 0)); /* ping marker */
        }
    }
    rw_free(&w);
}

static void test_storm(void **state)
{
    (void)state;
    struct prop r = prop_init("relay storm");
    storm(&r, false);
    storm(&r, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_ways),
        cmocka_unit_test(test_many_streams),
        cmocka_unit_test(test_glued_answer),
        cmocka_unit_test(test_early_fin),
        cmocka_unit_test(test_half_close),
        cmocka_unit_test(test_fin_behind_bytes),
        cmocka_unit_test(test_stale_news),
        cmocka_unit_test(test_drain_timeout),
        cmocka_unit_test(test_idle_timeout),
        cmocka_unit_test(test_reset_midway),
        cmocka_unit_test(test_session_lost_midway),
        cmocka_unit_test(test_stopped_reader),
        cmocka_unit_test(test_session_budget),
        cmocka_unit_test(test_budget_spares_who_moves),
        cmocka_unit_test(test_budget_lets_busy_streams),
        cmocka_unit_test(test_budget_stop_ends),
        cmocka_unit_test(test_total_budget),
        cmocka_unit_test(test_drained_bytes_do_not_count),
        cmocka_unit_test(test_budget_in_setup),
        cmocka_unit_test(test_budget_loopback),
        cmocka_unit_test(test_storm),
    };
    const struct CMUnitTest alone[] = {cmocka_unit_test(test_ten_thousand)};
    int failed = cmocka_run_group_tests(alone, NULL, NULL);
    for (rw_workers = 1; rw_workers <= 3; rw_workers += 2)
        failed +=
            cmocka_run_group_tests_name(rw_workers == 1 ? "alone" : "workers", tests, NULL, NULL);
    return failed;
}
