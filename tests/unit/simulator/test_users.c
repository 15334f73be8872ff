/* Watches, full nodes, those that lie, and old versions put again: each does what the manual says, is the same
 * on any number of threads, and what goes wrong is counted. */
#include <stdio.h>
#include <string.h>

#include "base/crypto.h"
#include "kademlia/msg.h"
#include "tests/unit/simulator/nets.h"
#include "tests/unit/vectors.h"

static struct sim_result one;

static const struct sim_result *run_once(const struct sim_cfg *c)
{
    one = *nets_run(c);
    if (!one.passed)
        fail_msg("%s", one.failed);
    return &one;
}

/* The same on two threads. */
static const struct sim_result *run_twice(struct sim_cfg *c)
{
    (void)run_once(c);
    c->threads = 2;
    const struct sim_result *r = nets_run(c);
    c->threads = 1;
    assert_memory_equal(r->digest, one.digest, sizeof one.digest);
    assert_memory_equal(&r->watch_us, &one.watch_us, sizeof one.watch_us);
    assert_int_equal(r->sum.held, one.sum.held);
    return &one;
}

static struct sim_cfg watched(void)
{
    struct sim_cfg c = nets_calm();

    c.native_ppm = SIM_MILLION;
    c.net.floor_ns = 25 * MS;
    c.net.median_ns = 50 * MS;
    c.watches.share_ppm = SIM_MILLION / 2;
    c.watches.each = 3;
    c.watches.start_ns = 100 * S;
    c.watches.audit_ns = 20 * S;
    c.watches.late_ns = 30 * S;
    return c;
}

static void test_watches_are_pushed(void **state)
{
    struct sim_cfg c = watched();

    (void)state;
    const struct sim_result *r = run_twice(&c);
    assert_in_range(r->sum.watches, 45, 135);
    assert_true(r->sum.notes > 50 && r->watch_us.n > 50 && r->sum.watch_audits > 100);
    assert_int_equal(r->sum.watch_late, 0);
    assert_true(hist_percentile(&r->watch_us, 9900) < 10 * SIM_MILLION);
}

/* Nobody pushes to nodes that speak JSON only: they ask once a minute, and an audit that expects more sees it. */
static void test_watches_without_pushes(void **state)
{
    struct sim_cfg c = watched();

    (void)state;
    c.native_ppm = 0;
    c.watches.late_ns = 2 * S;
    c.puts.every_ns = 50 * S;
    const struct sim_result *r = nets_run(&c);
    assert_int_equal(r->sum.notes, 0);
    assert_true(r->sum.watch_events > 0 && r->sum.watch_late > 0);
    assert_false(r->passed);
    assert_non_null(strstr(r->failed, "watches that are behind"));
}

/* Watchers that leave and come back begin anew, and those that pushed to them are told. */
static void test_watchers_come_and_go(void **state)
{
    struct sim_cfg c = watched();

    (void)state;
    c.churn.up_ns = 100 * S;
    c.churn.down_ns = 20 * S;
    c.churn.start_ns = 110 * S;
    c.expect.success_ppm = 500000;
    c.expect.stale_ppm = SIM_MILLION;
    c.expect.late_ppm = 300000;
    const struct sim_result *r = run_twice(&c);
    assert_true(r->sum.leaves > 20 && r->sum.watches > 100);
}

static struct sim_cfg with_full_nodes(uint32_t count, uint32_t liars)
{
    struct sim_cfg c = nets_calm();

    c.native_ppm = SIM_MILLION;
    c.full.count = count;
    c.full.liars = liars;
    c.net.floor_ns = 100 * MS;
    c.net.median_ns = 100 * MS;
    c.puts.every_ns = 1200 * S;
    c.puts.start_ns = 0;
    c.gets.every_ns = 0;
    c.kad.k = 8;
    c.duration_ns = 66 * 60 * S;
    c.expect.held_ppm = 950000;
    return c;
}

static void test_full_nodes(void **state)
{
    struct sim_cfg c = with_full_nodes(6, 0);

    (void)state;
    c.codec = SIM_CODEC_NATIVE;
    const struct sim_result *r = run_twice(&c);
    assert_true(r->sum.reconciled > 10 && r->sum.sync_pulled + r->sum.sync_pushed > 20);
    /* What is put goes to full nodes too, and they give it to each other. */
    assert_true(r->sum.to_hold >= 6 * 57 && r->sum.held >= 6 * 57);
}

/* By pages, as with the peers that have no other dialect. */
static void test_full_nodes_by_pages(void **state)
{
    struct sim_cfg c = with_full_nodes(6, 0);

    (void)state;
    c.native_ppm = 0;
    c.expect.held_ppm = 900000;
    const struct sim_result *r = run_once(&c);
    assert_int_equal(r->sum.reconciled, 0);
    assert_true(r->sum.requests[KAD_GET_ITEMS] > 10);
}

static void test_lying_full_nodes(void **state)
{
    struct sim_cfg c = with_full_nodes(8, 4);

    (void)state;
    const struct sim_result *r = run_once(&c);
    assert_true(r->sum.lies > 20 && r->sum.lies_seen > 0 && r->sum.answers_rejected == 0);
    c = with_full_nodes(6, 4);
    nets_refuse(&c, "liars");
    c = with_full_nodes(61, 0);
    nets_refuse(&c, "full");
}

/* Nobody takes an old version for a newer one; nodes that have just come take it for want of any. */
static void test_replay(void **state)
{
    struct sim_cfg c = nets_calm();

    (void)state;
    c.net.floor_ns = 25 * MS;
    c.puts.every_ns = 40 * S;
    c.attack.replay_ppm = 200000;
    c.attack.replay_every_ns = 5 * S;
    const struct sim_result *r = run_twice(&c);
    assert_true(r->sum.replays > 500);
    assert_int_equal(r->sum.stale, 0);
    c.churn.up_ns = 60 * S;
    c.churn.down_ns = 10 * S;
    c.churn.start_ns = 60 * S;
    c.expect.success_ppm = 900000;
    c.expect.stale_ppm = 20000;
    assert_true(run_twice(&c)->sum.replays_taken > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_watches_are_pushed),
        cmocka_unit_test(test_watches_without_pushes),
        cmocka_unit_test(test_watchers_come_and_go),
        cmocka_unit_test(test_full_nodes),
        cmocka_unit_test(test_full_nodes_by_pages),
        cmocka_unit_test(test_lying_full_nodes),
        cmocka_unit_test(test_replay),
    };
    return crypto_init() == 0 ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
}
