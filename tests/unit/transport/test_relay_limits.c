/* relay: which keys come in, caps over all sessions, bandwidth and who gets it. */
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

static struct guard *guard_with(const struct guard_cfg *cfg)
{
    struct guard *g;
    assert_int_equal(guard_new(&g, cfg), 0);
    return g;
}

static struct rw_peer *try_peer(struct rw_world *w, unsigned i)
{
    struct rw_key k = rw_key_of(i);
    struct rw_peer *p = rw_peer_start(w, &k, false);
    rw_run(w, 10 * NS_PER_MS);
    return p;
}

/* ---- keys ---- */

static void test_deny_and_allow(void **state)
{
    (void)state;
    struct rw_world w;
    struct guard *g = guard_with(&(struct guard_cfg){0});
    struct pubkey a = rw_key_of(1).pk, b = rw_key_of(2).pk;
    rw_init(&w, &(struct relay_cfg){.guard = g});
    assert_int_equal(guard_set_access(g, NULL, 0, &a, 1), 0);
    assert_true(try_peer(&w, 1)->down);
    struct rw_peer *pb = try_peer(&w, 2);
    assert_false(pb->down);
    assert_int_equal(rw_stat(&w).refused_key, 1);
    assert_int_equal(rw_stat(&w).sessions, 1);
    /* Only a, from now on: b goes when the lists are looked at again, with its streams. */
    rw_open(pb);
    assert_int_equal(guard_set_access(g, &a, 1, NULL, 0), 0);
    relay_recheck(w.relay);
    rw_run(&w, 10 * NS_PER_MS);
    assert_true(pb->down);
    assert_int_equal(rw_stat(&w).closed_key, 1);
    assert_true(try_peer(&w, 2)->down);
    struct rw_peer *pa = try_peer(&w, 1);
    assert_false(pa->down);
    struct rw_peer *own = rw_peer_start(&w, &w.key, true);
    rw_run(&w, 10 * NS_PER_MS);
    assert_true(own->up); /* whatever the lists say */
    relay_recheck(w.relay);
    assert_int_equal(rw_stat(&w).sessions, 2);
    assert_int_equal(guard_set_access(g, NULL, 0, &b, 1), 0);
    relay_recheck(w.relay);
    assert_int_equal(rw_stat(&w).sessions, 2);
    rw_free(&w);
    guard_free(g);
}

/* A denied key does not come in behind another one either. */
static void test_denied_source(void **state)
{
    (void)state;
    struct rw_world w;
    struct guard *g = guard_with(&(struct guard_cfg){0});
    struct rw_key bad = rw_key_of(7);
    rw_init(&w, &(struct relay_cfg){.guard = g, .accept_relayed = true});
    struct rw_peer *a = rw_peer_new(&w, 1), *b = rw_peer_new(&w, 2);
    assert_int_equal(guard_set_access(g, NULL, 0, &bad.pk, 1), 0);
    for (int denied = 1; denied >= 0; denied--) {
        struct rw_stream *s = rw_open(a);
        struct object_request req = rw_request(s, &b->key.pk);
        req.src.pk = bad.pk;
        rw_send_request(s, &req, &bad.sk);
        rw_run(&w, 100 * NS_PER_MS);
        assert_int_equal(b->incoming, denied ? 0 : 1);
        assert_int_equal(rw_stat(&w).refused_key, 1);
        assert_int_equal(guard_set_access(g, NULL, 0, NULL, 0), 0);
    }
    rw_free(&w);
    guard_free(g);
}

/* ---- caps in all ---- */

static void test_streams_in_all(void **state)
{
    (void)state;
    struct rw_world w;
    struct guard *g = guard_with(&(struct guard_cfg){.max_streams = 3});
    struct guard_stat st;
    rw_init(&w, &(struct relay_cfg){.guard = g});
    struct rw_peer *a = rw_peer_new(&w, 1), *b = rw_peer_new(&w, 2), *c = rw_peer_new(&w, 3);
    struct pair p[3] = {join(a, b), join(b, c), join(c, a)};
    struct rw_stream *over = rw_dial(a, &c->key.pk);
    assert_true(over->reset);
    guard_stat(g, &st);
    assert_true(st.streams == 3 && st.refused_streams == 1);
    rw_reset(p[1].src);
    rw_run(&w, NS_PER_MS);
    join(a, c);
    rw_free(&w);
    guard_stat(g, &st);
    assert_true(st.streams == 0 && st.links == 0 && st.addresses == 0);
    guard_free(g);
}

static void test_sessions_of_address(void **state)
{
    (void)state;
    struct rw_world w;
    rw_init(&w, &(struct relay_cfg){.guard_cfg = {.max_sessions_addr = 2}});
    struct rw_peer *a = rw_peer_new(&w, 1), *b = rw_peer_new(&w, 2);
    assert_true(try_peer(&w, 3)->down);
    rw_peer_close(a);
    rw_run(&w, NS_PER_MS);
    assert_false(try_peer(&w, 3)->down);
    assert_false(b->down);
    rw_free(&w);
}

/* A flood of connections of one address is stopped before anything is computed for it. */
static void test_handshake_rate(void **state)
{
    (void)state;
    struct rw_world w;
    rw_init(&w, &(struct relay_cfg){.guard_cfg = {.handshakes_per_s = 2}});
    unsigned ok = 0;
    for (unsigned i = 0; i < 40; i++)
        ok += try_peer(&w, 10 + i)->up ? 1 : 0;
    assert_int_equal(ok, 20);
    assert_int_equal(rw_stat(&w).refused_limit, 20);
    rw_run(&w, NS_PER_S);
    assert_true(try_peer(&w, 100)->up);
    rw_free(&w);
}

/* ---- bandwidth ---- */

static void test_rate_of_key(void **state)
{
    (void)state;
    struct rw_world w;
    rw_init(&w, &(struct relay_cfg){.key_bytes_per_s = 100000});
    struct rw_peer *a = rw_peer_new(&w, 1), *b = rw_peer_new(&w, 2), *c = rw_peer_new(&w, 3);
    struct pair one = join(a, b), two = join(a, b), other = join(c, b);
    rw_pattern(one.src, 1 << 20, true);
    rw_pattern(two.src, 1 << 20, true);
    rw_pattern(other.src, 400000, true);
    rw_pattern(one.dst, 300000, true); /* and what b sends is b's */
    uint64_t got = 0;
    for (int t = 1; t <= 50; t++) {
        rw_run(&w, 100 * NS_PER_MS);
        got = one.dst->got + two.dst->got;
        assert_in_range(got, 0, 10000 * (uint64_t)t + 30000);
    }
    assert_in_range(got, 480000, 530000);                            /* all of what there is … */
    assert_in_range(one.dst->got, got / 2 - 20000, got / 2 + 20000); /* … in equal shares */
    assert_true(other.dst->eof && other.dst->got == 400000 && !other.dst->wrong);
    assert_true(one.src->got == 300000);
    assert_true(rw_stat(&w).throttled > 10 && rw_stat(&w).throttle_waits == 2);
    rw_run(&w, 20 * NS_PER_S);
    assert_true(one.dst->eof && two.dst->eof && !one.dst->wrong && !two.dst->wrong);
    assert_int_equal(rw_stat(&w).throttle_waits, 0);
    rw_free(&w);
}

/* Many streams of one key and one of another share the whole as one to one. */
static void test_rate_in_all(void **state)
{
    (void)state;
    struct rw_world w;
    rw_init(&w, &(struct relay_cfg){.guard_cfg = {.bytes_per_s = 200000}});
    struct rw_peer *a = rw_peer_new(&w, 1), *b = rw_peer_new(&w, 2), *c = rw_peer_new(&w, 3);
    struct pair many[16], single = join(c, b);
    for (int i = 0; i < 16; i++) {
        many[i] = join(a, b);
        rw_pattern(many[i].src, 1 << 20, true);
    }
    rw_pattern(single.src, 4 << 20, true);
    rw_run(&w, 10 * NS_PER_S);
    uint64_t got = 0;
    for (int i = 0; i < 16; i++)
        got += many[i].dst->got;
    assert_in_range(got + single.dst->got, 1900000, 2100000);
    assert_in_range(single.dst->got, 900000, 1100000);
    /* A stream may wait for its turn for longer than a stalled one may stall. */
    assert_int_equal(rw_stat(&w).resets_budget, 0);
    rw_run(&w, 110 * NS_PER_S);
    for (int i = 0; i < 16; i++)
        assert_true(many[i].dst->eof && many[i].dst->got == 1 << 20 && !many[i].dst->wrong);
    assert_true(single.dst->eof && !single.dst->wrong);
    rw_free(&w);
}

/* What waits for its share is no stall: the byte budget spares it, and takes those that stall. */
static void test_waiting_is_no_stall(void **state)
{
    (void)state;
    struct rw_world w;
    rw_init(&w, &(struct relay_cfg){.key_bytes_per_s = 65536, .session_budget = 700000});
    struct rw_peer *a = rw_peer_new(&w, 1), *b = rw_peer_new(&w, 2);
    struct pair p[20];
    for (int i = 0; i < 20; i++) {
        p[i] = join(a, b);
        rw_pattern(p[i].src, 100000, true);
    }
    rw_run(&w, 10 * NS_PER_S);
    assert_true(rw_stat(&w).buffered > 700000);
    rw_run(&w, 25 * NS_PER_S);
    assert_int_equal(rw_stat(&w).resets_budget, 0);
    for (int i = 0; i < 20; i++)
        assert_true(p[i].dst->eof && p[i].dst->got == 100000 && !p[i].dst->wrong);
    rw_free(&w);
}

/* Streams and sessions end while they wait; a limit that nobody reaches costs nothing. */
static void test_ends_while_waiting(void **state)
{
    (void)state;
    struct prop r = prop_init("ends while waiting");
    for (int round = 0; round < 40; round++) {
        struct rw_world w;
        rw_init(&w, &(struct relay_cfg){.key_bytes_per_s = 20000 + prop_below(&r, 200000),
                                        .guard_cfg = {.bytes_per_s = 100000}});
        struct rw_peer *p[3] = {rw_peer_new(&w, 1), rw_peer_new(&w, 2), rw_peer_new(&w, 3)};
        struct pair pairs[12];
        for (int i = 0; i < 12; i++) {
            pairs[i] = join(p[i % 3], p[(i + 1) % 3]);
            rw_pattern(pairs[i].src, 200000, true);
        }
        for (int i = 0; i < 12; i++) {
            rw_run(&w, prop_below(&r, 200) * NS_PER_MS);
            if (prop_below(&r, 2) == 0 && !rw_over(pairs[i].src))
                rw_reset(pairs[i].src);
        }
        rw_peer_close(p[prop_below(&r, 3)]);
        rw_run(&w, prop_below(&r, 3000) * NS_PER_MS);
        rw_free(&w); /* checks that nothing is left */
    }
    struct rw_world w;
    rw_init(&w, &(struct relay_cfg){.key_bytes_per_s = 10000000});
    struct rw_peer *a = rw_peer_new(&w, 1), *b = rw_peer_new(&w, 2);
    struct pair p = join(a, b);
    rw_pattern(p.src, 200000, true);
    rw_run(&w, NS_PER_S);
    assert_true(p.dst->eof);
    rw_free(&w);
}

int main(void)
{
    if (crypto_init() != 0)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_deny_and_allow),     cmocka_unit_test(test_denied_source),
        cmocka_unit_test(test_streams_in_all),     cmocka_unit_test(test_sessions_of_address),
        cmocka_unit_test(test_handshake_rate),     cmocka_unit_test(test_rate_of_key),
        cmocka_unit_test(test_rate_in_all),        cmocka_unit_test(test_waiting_is_no_stall),
        cmocka_unit_test(test_ends_while_waiting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
