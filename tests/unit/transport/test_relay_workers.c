/*
 * Several workers of one relay, on one loop with trunks that the test can make bad: where sessions go,
 * what crosses, and what happens when a trunk or a worker ends. What holds for any number of workers is
 * in test_relay, test_relay_setup, test_relay_bridge and the tests of the mesh, which run with three of
 * them too.
 */
#include "tests/unit/prop.h"
#include "tests/unit/transport/relay_world.h"
#include "tests/unit/vectors.h"

#define WORKERS 3

static void start(struct rw_world *w, const struct relay_cfg *cfg)
{
    rw_workers = WORKERS;
    rw_init(w, cfg);
}

static struct relay_stat at_worker(const struct rw_world *w, unsigned i)
{
    struct relay_stat st;
    relay_stat(rw_worker(w, i), &st);
    return st;
}

/* The n-th key of worker i, connected. */
static struct rw_peer *peer_at(struct rw_world *w, unsigned i, unsigned n)
{
    return rw_peer_new(w, rw_key_at(w, i, n));
}

static void trunks_delayed(struct rw_world *w, uint64_t ns)
{
    for (unsigned i = 0; i < WORKERS; i++)
        for (unsigned k = 0; k < WORKERS; k++)
            if (i != k)
                w->trunk[i][k]->out.delay_ns = ns;
}

/* Wherever it was accepted, a session is with the home of its key afterwards; the limits that it counts
 * for come with it, and go when it ends. */
static void test_sessions_go_home(void **state)
{
    (void)state;
    struct rw_world w;
    struct rw_peer *p[4 * WORKERS];
    start(&w, NULL);
    for (unsigned i = 0; i < 4 * WORKERS; i++)
        p[i] = peer_at(&w, i % WORKERS, i / WORKERS); /* accepted by each in turn */
    w.next_worker = 1;
    for (unsigned i = 0; i < WORKERS; i++)
        assert_int_equal(at_worker(&w, i).sessions, 4);
    struct rw_peer *far = peer_at(&w, 0, 9); /* accepted by worker 1 */
    assert_int_equal(at_worker(&w, 1).moved, 1);
    assert_int_equal(at_worker(&w, 0).sessions, 5);
    struct guard_stat g;
    guard_stat(w.guard, &g);
    assert_int_equal(g.links, 4 * WORKERS + 1);
    assert_int_equal(g.handshakes, 0);
    rw_peer_close(far);
    for (unsigned i = 0; i < 4 * WORKERS; i++)
        rw_peer_close(p[i]);
    rw_run(&w, NS_PER_S);
    guard_stat(w.guard, &g);
    assert_int_equal(g.links, 0);
    assert_int_equal(g.addresses, 0);
    rw_free(&w);
}

/* The newest session of a key wins, also when it was accepted by another worker than the older one. */
static void test_takeover(void **state)
{
    (void)state;
    struct rw_world w;
    start(&w, NULL);
    struct rw_peer *old = peer_at(&w, 2, 0), *b = peer_at(&w, 0, 0);
    for (unsigned i = 0; i < 2 * WORKERS; i++) { /* each worker in turn accepts it */
        struct rw_peer *next = peer_at(&w, 2, 0);
        rw_run(&w, NS_PER_MS);
        assert_true(old->down && !next->down);
        assert_int_equal(rw_verdict(rw_dial(b, &next->key.pk)), 0);
        old = next;
    }
    assert_int_equal(rw_stat(&w).replaced, 2 * WORKERS);
    assert_int_equal(rw_stat(&w).sessions, 2);
    rw_free(&w);
}

/* The cap of all sessions and that of an address hold for the workers together. */
static void test_limits(void **state)
{
    (void)state;
    struct rw_world w;
    start(&w, &(struct relay_cfg){.guard_cfg = {.max_sessions = 5}});
    for (unsigned i = 0; i < 5; i++)
        (void)rw_peer_new(&w, 10 + i);
    for (unsigned i = 0; i < WORKERS; i++) {
        struct rw_key k = rw_key_of(20 + i);
        struct rw_peer *late = rw_peer_start(&w, &k, false);
        rw_run(&w, NS_PER_S);
        assert_true(late->down);
    }
    assert_int_equal(rw_stat(&w).refused_limit, WORKERS);
    rw_free(&w);
}

/* Bytes cross in both directions while trunks are slow and cut what they carry into pieces. */
static void test_crossing_bytes(void **state)
{
    (void)state;
    static const size_t chunks[] = {0, 1000, 77};
    for (size_t i = 0; i < sizeof chunks / sizeof chunks[0]; i++) {
        struct rw_world w;
        start(&w, NULL);
        trunks_delayed(&w, NS_PER_MS);
        w.trunk[0][1]->out.chunk = w.trunk[1][0]->out.chunk = chunks[i];
        struct rw_peer *a = peer_at(&w, 0, 0), *b = peer_at(&w, 1, 0);
        struct rw_stream *s = rw_dial(a, &b->key.pk);
        assert_int_equal(rw_verdict(s), 0);
        struct rw_stream *in = rw_last_incoming(b);
        rw_pattern(s, 1500000, false);
        rw_pattern(in, 1200000, true); /* half-close: the other direction goes on */
        rw_run(&w, 5 * NS_PER_S);
        assert_true(s->eof && s->got == 1200000 && !s->wrong);
        assert_true(in->got == 1500000 && !in->wrong && !in->eof);
        rw_pattern(s, 10, true);
        rw_run(&w, NS_PER_S);
        assert_true(in->eof && in->got == 1500010);
        assert_true(!s->reset && !in->reset);
        assert_int_equal(rw_stat(&w).bytes, 1500010 + 1200000); /* once each */
        assert_int_equal(rw_stat(&w).stream_ok, 1);
        assert_int_equal(at_worker(&w, 1).stream_ok, 0);
        assert_true(rw_all_zero(&w));
        rw_free(&w);
    }
}

/* A reader that stops fills the window of its stream in both workers, and nobody else waits for it. */
static void test_back_pressure(void **state)
{
    (void)state;
    struct rw_world w;
    start(&w, NULL);
    struct rw_peer *a = peer_at(&w, 0, 0), *b = peer_at(&w, 1, 0), *c = peer_at(&w, 1, 1);
    b->keep = true;
    struct rw_stream *stuck = rw_dial(a, &b->key.pk), *good = rw_dial(a, &c->key.pk);
    rw_pattern(stuck, 5 << 20, true);
    rw_run(&w, NS_PER_S);
    assert_in_range(rw_stat(&w).buffered, YAMUX_WINDOW, 2 * YAMUX_WINDOW);
    assert_int_equal(at_worker(&w, 1).buffered, 0); /* all of it counts where it came from */
    for (int i = 0; i < 10; i++) {
        rw_pattern(good, 1 << 20, i == 9);
        rw_run(&w, NS_PER_S / 10);
    }
    assert_true(rw_last_incoming(c)->eof && rw_last_incoming(c)->got == 10 << 20);
    rw_resume(rw_last_incoming(b));
    rw_run(&w, NS_PER_S);
    assert_true(rw_last_incoming(b)->eof && rw_last_incoming(b)->got == 5 << 20);
    assert_true(!rw_last_incoming(b)->wrong);
    assert_int_equal(rw_stat(&w).buffered, 0);
    rw_free(&w);
}

/* A reset on either side, and the loss of either session, ends all of the stream at once. */
static void test_ends(void **state)
{
    (void)state;
    for (int how = 0; how < 4; how++) {
        struct rw_world w;
        start(&w, NULL);
        struct rw_peer *a = peer_at(&w, 0, 0), *b = peer_at(&w, 2, 0);
        struct rw_stream *s = rw_dial(a, &b->key.pk), *in = rw_last_incoming(b);
        rw_pattern(s, 300000, false);
        rw_run(&w, NS_PER_MS);
        if (how < 2)
            rw_reset(how == 0 ? s : in);
        else
            rw_peer_close(how == 2 ? a : b);
        rw_run(&w, 10 * NS_PER_MS);
        if (how == 0)
            assert_true(in->reset);
        if (how == 1)
            assert_true(s->reset);
        assert_true(rw_all_zero(&w));
        rw_free(&w);
    }
}

/* Why a request came to nothing is known where it came from. */
static void test_reasons(void **state)
{
    (void)state;
    struct rw_world w;
    start(&w, NULL);
    struct rw_peer *a = peer_at(&w, 0, 0), *b = peer_at(&w, 1, 0);
    struct rw_key nobody = rw_key_of(rw_key_at(&w, 1, 7));
    assert_int_equal(rw_verdict(rw_dial(a, &nobody.pk)), -1);
    b->answer = RW_SILENT;
    assert_int_equal(rw_verdict(rw_dial(a, &b->key.pk)), -1);
    b->answer = RW_WRONG_SIGNER;
    assert_int_equal(rw_verdict(rw_dial(a, &b->key.pk)), -1);
    struct relay_stat st = at_worker(&w, 0);
    assert_int_equal(st.refused_by_code[relay_code_index(ERR_DMSG_NO_NEXT_SESSION)], 1);
    assert_int_equal(st.refused_by_code[relay_code_index(ERR_TIMEOUT)], 1);
    assert_int_equal(st.refused_by_code[relay_code_index(ERR_DMSG_RSP_SIG)], 1);
    assert_int_equal(st.stream_failed, 3);
    assert_int_equal(at_worker(&w, 1).stream_failed, 0);
    rw_free(&w);
}

/* A trunk that breaks takes its streams with it, and nothing else. */
static void test_broken_trunk(void **state)
{
    (void)state;
    struct rw_world w;
    start(&w, NULL);
    struct rw_peer *a = peer_at(&w, 0, 0), *b = peer_at(&w, 1, 0), *c = peer_at(&w, 2, 0);
    struct rw_stream *lost = rw_dial(a, &b->key.pk), *good = rw_dial(a, &c->key.pk);
    rw_pattern(lost, 200000, false);
    rw_pattern(good, 200000, false);
    rw_run(&w, NS_PER_MS);
    pipe_break(w.trunk[0][1], ERR_RESET);
    rw_run(&w, NS_PER_S);
    assert_true(lost->reset && rw_last_incoming(b)->reset);
    assert_true(!a->down && !b->down && !good->reset);
    assert_int_equal(rw_verdict(rw_dial(a, &b->key.pk)), -1); /* the way is gone for good … */
    assert_int_equal(rw_verdict(rw_dial(c, &b->key.pk)), 0);  /* … others are not */
    rw_pattern(good, 10, true);
    rw_run(&w, NS_PER_S);
    assert_int_equal(rw_last_incoming(c)->got, 200010);
    rw_free(&w);
}

/* A worker ends in the middle of everything, at any moment; the others go on. */
static void test_worker_stops(void **state)
{
    (void)state;
    for (unsigned steps = 0; steps < 40; steps++) {
        struct rw_world w;
        start(&w, NULL);
        trunks_delayed(&w, NS_PER_MS);
        struct rw_peer *a = peer_at(&w, 0, 0), *b = peer_at(&w, 1, 0), *c = peer_at(&w, 2, 0);
        struct rw_stream *s = rw_dial(a, &c->key.pk);
        rw_pattern(s, 1 << 20, false);
        struct rw_stream *t = rw_open(c);
        struct object_request req = rw_request(t, &a->key.pk);
        rw_send_request(t, &req, &c->key.sk);
        struct rw_key k = rw_key_of(rw_key_at(&w, 2, 5));
        (void)rw_peer_start(&w, &k, false); /* its handshake, or its move, is under way */
        rw_run(&w, steps * NS_PER_MS / 4);
        rw_worker_free(&w, 2);
        w.next_worker = 0;
        rw_run(&w, NS_PER_S);
        assert_true(c->down && !a->down && !b->down);
        assert_true(s->reset || rw_over(s));
        assert_int_equal(rw_verdict(rw_dial(a, &b->key.pk)), 0);
        assert_int_equal(rw_stat(&w).sessions, 2);
        rw_free(&w);
    }
}

/* Many streams between all workers, some of which end at any time: gauges come back to nothing. */
static void test_storm(void **state)
{
    (void)state;
    struct rw_world w;
    struct prop r = prop_init("workers");
    struct rw_peer *p[2 * WORKERS];
    start(&w, &(struct relay_cfg){.syn_per_s = 1000, .session_budget = 1 << 20});
    trunks_delayed(&w, NS_PER_MS / 3);
    for (unsigned i = 0; i < 2 * WORKERS; i++) {
        p[i] = peer_at(&w, i % WORKERS, i / WORKERS);
        p[i]->echo = i % 2 == 0;
    }
    for (int i = 0; i < 600; i++) {
        struct rw_peer *from = p[prop_below(&r, 2 * WORKERS)], *to = p[prop_below(&r, 2 * WORKERS)];
        struct rw_stream *s = rw_open(from);
        struct object_request req = rw_request(s, &to->key.pk);
        rw_send_request(s, &req, &from->key.sk);
        rw_run(&w, prop_below(&r, 4) * NS_PER_MS);
        if (s->st != NULL && s->opened)
            rw_pattern(s, prop_below(&r, 400000), prop_chance(&r, 60));
        if (s->st != NULL && prop_chance(&r, 20))
            rw_reset(s);
    }
    rw_run(&w, 400 * NS_PER_S); /* idle and drain times pass */
    assert_true(rw_all_zero(&w));
    rw_free(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sessions_go_home), cmocka_unit_test(test_takeover),
        cmocka_unit_test(test_limits),           cmocka_unit_test(test_crossing_bytes),
        cmocka_unit_test(test_back_pressure),    cmocka_unit_test(test_ends),
        cmocka_unit_test(test_reasons),          cmocka_unit_test(test_broken_trunk),
        cmocka_unit_test(test_worker_stops),     cmocka_unit_test(test_storm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
