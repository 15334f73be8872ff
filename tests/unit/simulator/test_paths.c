/* What messages meet on their way: latency by region, jitter, loss, relays that are short of bandwidth or CPU, or
 * down; and clocks that are wrong. Each shows where it should, and is the same on two threads. */
#include <string.h>

#include "base/crypto.h"
#include "tests/unit/simulator/nets.h"
#include "tests/unit/vectors.h"

static struct sim_result one;

static const struct sim_result *run(struct sim_cfg *c)
{
    one = *nets_run(c);
    if (!one.passed)
        fail_msg("%s", one.failed);
    c->threads = 2;
    assert_memory_equal(nets_run(c)->digest, one.digest, sizeof one.digest);
    c->threads = 1;
    return &one;
}

static uint64_t ms_at(unsigned per_10000)
{
    return hist_percentile(&one.get_us, per_10000) / 1000;
}

/* As little else as possible, in long windows. */
static struct sim_cfg plain(void)
{
    struct sim_cfg c = nets_calm();

    c.net.model = SIM_LAT_CONSTANT;
    c.net.floor_ns = 50 * MS;
    c.net.median_ns = 50 * MS;
    c.net.jitter_ppm = 0;
    return c;
}

/* Two regions: within one 50 ms, between them 200 ms. Look-ups ask nodes of both. */
static void test_regions(void **state)
{
    struct sim_cfg c = plain();

    (void)state;
    run(&c);
    uint64_t near = ms_at(5000);
    c.net.model = SIM_LAT_REGIONS;
    c.net.n_regions = 2;
    c.net.region_ns[0][0] = c.net.region_ns[1][1] = 50 * MS;
    c.net.region_ns[0][1] = c.net.region_ns[1][0] = 200 * MS;
    run(&c);
    assert_in_range(ms_at(5000), near * 3 / 2, near * 4);
    c.net.region_ns[0][1] = c.net.region_ns[1][0] = 50 * MS;
    run(&c);
    assert_int_equal(ms_at(5000), near);
}

static void test_jitter(void **state)
{
    struct sim_cfg c = plain();

    (void)state;
    run(&c);
    uint64_t steady = ms_at(5000);
    c.net.jitter_ppm = SIM_MILLION; /* up to twice as long */
    run(&c);
    assert_in_range(ms_at(5000), steady * 5 / 4, steady * 2);
}

static void test_loss(void **state)
{
    struct sim_cfg c = plain();

    (void)state;
    c.net.loss_ppm = 20000;
    c.expect.success_ppm = 980000;
    c.expect.stale_ppm = 20000;
    const struct sim_result *r = run(&c);
    uint64_t sent = r->sum.delivered + r->sum.lost;
    assert_in_range(r->sum.lost * 1000 / sent, 16, 24);
}

static struct sim_cfg behind_relays(void)
{
    struct sim_cfg c = plain();

    c.relays.count = 2;
    c.gets.every_ns = 5 * S;
    return c;
}

static void test_bandwidth(void **state)
{
    struct sim_cfg c = behind_relays();

    (void)state;
    run(&c);
    uint64_t quick = ms_at(5000);
    assert_int_equal(one.sum.relay_dropped, 0);
    c.relays.bytes_per_s = 1500000;
    run(&c);
    assert_true(ms_at(5000) > quick);
    c.relays.bytes_per_s = 30000; /* hopeless: queues fill, the rest is dropped */
    c.expect.success_ppm = 0;
    c.expect.stale_ppm = SIM_MILLION;
    assert_true(run(&c)->sum.relay_dropped > 100);
    assert_true(one.sum.gets_failed > 0);
}

static void test_relay_cpu(void **state)
{
    struct sim_cfg c = behind_relays();

    (void)state;
    c.relays.pooled = false; /* a handshake for each call */
    run(&c);
    uint64_t quick = ms_at(9000);
    c.relays.handshake_ns = 3 * MS;
    c.expect.success_ppm = 0;
    c.expect.stale_ppm = SIM_MILLION;
    run(&c);
    assert_true(ms_at(9000) > quick && one.sum.handshakes > 1000);
}

/* Both relays are down for a while: nobody hears anybody. With one of two left, life goes on. */
static void test_relay_crash(void **state)
{
    struct sim_cfg c = behind_relays();

    (void)state;
    c.script[0] = (struct sim_script){180 * S, 40 * S, SIM_RELAY_CRASH, 0, 2, 0};
    c.n_script = 1;
    c.expect.success_ppm = 0;
    c.expect.stale_ppm = SIM_MILLION;
    assert_true(run(&c)->sum.gets_failed > 50);
    uint64_t failed = one.sum.gets_failed;
    c.script[0].relays = 1;
    c.relays.per_node = 2;
    assert_true(run(&c)->sum.gets_failed < failed / 5);
}

/* Ten minutes either way hurt nobody whose items live for two hours; days do. */
static void test_clock_skew(void **state)
{
    struct sim_cfg c = plain();

    (void)state;
    c.skew_ns = 600 * S;
    assert_int_equal(run(&c)->sum.gets_failed + one.sum.stale, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_regions),    cmocka_unit_test(test_jitter),
        cmocka_unit_test(test_loss),       cmocka_unit_test(test_bandwidth),
        cmocka_unit_test(test_relay_cpu),  cmocka_unit_test(test_relay_crash),
        cmocka_unit_test(test_clock_skew),
    };
    return crypto_init() == 0 ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
}
