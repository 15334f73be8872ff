/* guard: who is let in, counted by address, and what many threads share. */
#include "transport/guard.h"

#include <pthread.h>
#include <string.h>

#include "base/err.h"
#include "base/loop.h"
#include "tests/unit/vectors.h"

static struct conn from4(uint8_t a, uint8_t d)
{
    return (struct conn){.peer_ip = {a, 0, 0, d}, .peer_ip_len = 4};
}

static struct guard_stat stat_of(struct guard *g)
{
    struct guard_stat st;
    guard_stat(g, &st);
    return st;
}

static void test_life(void **state)
{
    (void)state;
    struct guard *g;
    struct guard_addr *a[3];
    struct conn c = from4(192, 1);
    assert_int_equal(guard_new(&g, &(struct guard_cfg){.max_sessions = 2}), 0);
    assert_int_equal(guard_enter(g, &c, 1, &a[0]), 0);
    assert_int_equal(guard_enter(g, &c, 1, &a[1]), 0);
    assert_int_equal(guard_enter(g, &c, 1, &a[2]), ERR_LIMIT);
    guard_up(g, a[0]);
    struct guard_stat st = stat_of(g);
    assert_true(st.links == 2 && st.handshakes == 1 && st.addresses == 1 && st.refused_links == 1);
    guard_leave(g, a[0], true);
    guard_leave(g, a[1], false);
    st = stat_of(g);
    assert_true(st.links == 0 && st.handshakes == 0 && st.addresses == 0);
    guard_free(g);
}

/* A bucket of each address: ten seconds of it at once, then as fast as it fills again. */
static void test_rate(void **state)
{
    (void)state;
    struct guard *g;
    struct guard_addr *a;
    struct conn c = from4(192, 1), other = from4(192, 2);
    unsigned ok = 0;
    assert_int_equal(guard_new(&g, &(struct guard_cfg){.handshakes_per_s = 5}), 0);
    for (uint64_t t = 0; t < 100; t++)
        if (guard_enter(g, &c, NS_PER_S, &a) == 0 && ++ok)
            guard_leave(g, a, false);
    assert_int_equal(ok, 50);
    assert_int_equal(stat_of(g).refused_rate, 50);
    assert_int_equal(guard_enter(g, &other, NS_PER_S, &a), 0);
    guard_leave(g, a, false);
    for (uint64_t t = 1; t <= 100; t++) /* ten seconds later: five in each of them */
        if (guard_enter(g, &c, NS_PER_S + t * NS_PER_S / 10, &a) == 0 && ++ok)
            guard_leave(g, a, false);
    assert_int_equal(ok, 100);
    /* Nobody is remembered for longer than the bucket. */
    assert_int_equal(guard_enter(g, &other, 100 * NS_PER_S, &a), 0);
    guard_leave(g, a, false);
    assert_int_equal(stat_of(g).forgotten, 0);
    guard_free(g);
}

/* A flood from ever new addresses costs a bounded amount of memory. */
static void test_many_addresses(void **state)
{
    (void)state;
    struct guard *g;
    struct guard_addr *a;
    assert_int_equal(guard_new(&g, &(struct guard_cfg){.max_sessions = 10}), 0);
    for (uint32_t i = 0; i < 70000; i++) {
        struct conn c = {.peer_ip_len = 16};
        memcpy(c.peer_ip + 2, &i, sizeof(i));
        assert_int_equal(guard_enter(g, &c, NS_PER_S, &a), 0);
        guard_leave(g, a, false);
    }
    assert_true(stat_of(g).forgotten >= 70000 - 65536 - 1);
    assert_int_equal(stat_of(g).addresses, 0);
    guard_free(g);
}

/* Limits per address that nobody asked for do not hold for this host itself. */
static void test_loopback(void **state)
{
    (void)state;
    struct guard *g;
    struct guard_addr *a[300], *more;
    struct conn here = from4(127, 9), six = {.peer_ip = {[15] = 1}, .peer_ip_len = 16};
    assert_int_equal(guard_new(&g, &(struct guard_cfg){0}), 0);
    for (int i = 0; i < 300; i++)
        assert_int_equal(guard_enter(g, i % 2 ? &here : &six, 1, &a[i]), 0);
    for (int i = 0; i < 300; i++)
        guard_leave(g, a[i], false);
    guard_free(g);
    assert_int_equal(guard_new(&g, &(struct guard_cfg){.max_sessions_addr = 2}), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(guard_enter(g, &here, 1, &a[i]), 0);
    guard_up(g, a[0]);
    assert_int_equal(guard_enter(g, &here, 1, &more), ERR_LIMIT);
    assert_int_equal(stat_of(g).refused_sessions_addr, 1);
    guard_leave(g, a[0], true);
    guard_leave(g, a[1], false);
    guard_free(g);
}

static struct pubkey key(uint8_t i)
{
    struct pubkey pk = {{2, i}};
    return pk;
}

static void test_access(void **state)
{
    (void)state;
    struct guard *g;
    struct pubkey k[4] = {key(9), key(3), key(7), key(1)};
    assert_int_equal(guard_new(&g, &(struct guard_cfg){0}), 0);
    assert_true(guard_allows(g, &k[0], GUARD_ANYONE));
    assert_int_equal(guard_set_access(g, k, 3, k + 2, 2), 0); /* allowed: 9 3 7, denied: 7 1 */
    assert_true(guard_allows(g, &k[0], GUARD_ANYONE));
    assert_true(guard_allows(g, &k[1], GUARD_ANYONE));
    assert_false(guard_allows(g, &k[2], GUARD_ANYONE)); /* deny wins */
    assert_false(guard_allows(g, &k[3], GUARD_CONFIGURED));
    struct pubkey stranger = key(100);
    assert_false(guard_allows(g, &stranger, GUARD_ANYONE));
    assert_true(guard_allows(g, &stranger, GUARD_CONFIGURED));
    struct guard_stat st = stat_of(g);
    assert_true(st.allowed == 3 && st.denied == 2 && st.refused_key == 3);
    assert_int_equal(guard_set_access(g, NULL, 0, NULL, 0), 0);
    assert_true(guard_allows(g, &k[3], GUARD_ANYONE));
    guard_free(g);
}

static void test_meter(void **state)
{
    (void)state;
    struct meter m = {.bytes_per_s = 1000}, none = {.bytes_per_s = 0};
    uint64_t now = 50 * NS_PER_S, taken = 0;
    meter_take(&none, now, 1 << 30);
    assert_int_equal(meter_ready_ns(&none, now), now);
    for (uint64_t t = 0; t < 1000; t++) /* ten seconds, looking every 10 ms */
        for (uint64_t at = now + t * 10 * NS_PER_MS; meter_ready_ns(&m, at) == at; taken += 50)
            meter_take(&m, at, 50);
    assert_in_range(taken, 9900, 10200);
}

struct worker {
    pthread_t thread;
    struct guard *g;
    uint64_t streams;
};

static void *work(void *arg)
{
    struct worker *w = arg;
    struct conn c = from4(10, 1);
    for (uint64_t i = 0; i < 20000; i++) {
        struct guard_addr *a;
        if (guard_enter(w->g, &c, i, &a) == 0) {
            guard_up(w->g, a);
            if (guard_stream_enter(w->g)) {
                w->streams++;
                guard_stream_leave(w->g);
            }
            guard_leave(w->g, a, true);
        }
        meter_take(guard_meter(w->g), NS_PER_S, 10);
    }
    return NULL;
}

/* Several workers: what they count comes out exactly. */
static void test_threads(void **state)
{
    (void)state;
    struct worker w[3];
    struct guard *g;
    assert_int_equal(guard_new(&g, &(struct guard_cfg){.max_streams = 2,
                                                       .max_sessions_addr = 2,
                                                       .handshakes_per_s = 1000000000,
                                                       .bytes_per_s = 1000000}),
                     0);
    for (int i = 0; i < 3; i++) {
        w[i] = (struct worker){.g = g};
        assert_int_equal(pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
    }
    uint64_t streams = 0;
    for (int i = 0; i < 3; i++) {
        pthread_join(w[i].thread, NULL);
        streams += w[i].streams;
    }
    struct guard_stat st = stat_of(g);
    assert_true(st.links == 0 && st.handshakes == 0 && st.addresses == 0 && st.streams == 0);
    assert_int_equal(streams + st.refused_streams + st.refused_sessions_addr + st.refused_rate,
                     60000);
    /* 600 000 bytes at a megabyte a second, from 100 ms ago */
    assert_int_equal(meter_ready_ns(guard_meter(g), 0),
                     NS_PER_S - 100 * NS_PER_MS + 600 * NS_PER_MS);
    guard_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_life),     cmocka_unit_test(test_rate),
        cmocka_unit_test(test_loopback), cmocka_unit_test(test_many_addresses),
        cmocka_unit_test(test_access),   cmocka_unit_test(test_meter),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
