/* How nodes come, go and misbehave: each law, trace and attack does what the manual says of it, and what
 * must be seen is seen. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crypto.h"
#include "base/err.h"
#include "tests/unit/simulator/nets.h"
#include "tests/unit/vectors.h"

/* ---- lives ---- */

/* 400 nodes by oracle whose users do nothing, for so many mean lives. */
static struct sim_cfg mortal(enum sim_law law, uint32_t shape_milli)
{
    struct sim_cfg c = nets_calm();

    c.nodes = 400;
    c.join.by = SIM_JOIN_ORACLE;
    c.join.bootstrap = 1;
    c.net.floor_ns = 100 * MS;
    c.net.median_ns = 100 * MS;
    c.puts.every_ns = c.gets.every_ns = 0;
    c.churn.law = law;
    c.churn.shape_milli = shape_milli;
    c.churn.up_ns = 100 * S;
    c.duration_ns = 30 * S;
    c.expect.success_ppm = 0;
    return c;
}

/* Of those who never come back, the share that survives a time follows from the law. */
static void survivors(enum sim_law law, uint32_t shape_milli, double expected)
{
    struct sim_cfg c = mortal(law, shape_milli);
    const struct sim_result *r = nets_run(&c);

    if (r->live < 399 * expected - 30 || r->live > 399 * expected + 30)
        fail_msg("law %d: %u of 400 live, %.0f expected", law, r->live, 399 * expected);
    uint64_t digest = r->digest[0];
    c.threads = 3;
    assert_true(nets_run(&c)->digest[0] == digest);
}

static void test_laws(void **state)
{
    (void)state;
    survivors(SIM_LAW_EXPONENTIAL, 1000, 0.741); /* e^-0.3 */
    survivors(SIM_LAW_WEIBULL, 1000, 0.741);
    survivors(SIM_LAW_WEIBULL, 500, 0.461); /* scale 50 s: e^-sqrt(0.6) */
    survivors(SIM_LAW_PARETO, 1500, 1.0);   /* nobody goes before 33.3 s */
}

static void test_pareto_needs_a_mean(void **state)
{
    struct sim_cfg c = mortal(SIM_LAW_PARETO, 1000);

    (void)state;
    nets_refuse(&c, "Pareto");
}

/* ---- traces ---- */

static char trace[] = "/tmp/kadmsg-trace-XXXXXX";

static void write_trace(const char *text)
{
    FILE *f = fopen(trace, "w");

    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static struct sim_cfg traced(void)
{
    struct sim_cfg c = nets_calm();

    c.duration_ns = 60 * S;
    c.join.over_ns = 5 * S;
    c.gets.every_ns = 0;
    c.churn.law = SIM_LAW_TRACE;
    strcpy(c.churn.trace, trace);
    return c;
}

static uint32_t live_at(const struct sim_result *r, uint64_t at_ns)
{
    size_t i = 0;

    while (i + 1 < r->n_series && r->series[i + 1].at_ns <= at_ns)
        i++;
    return r->series[i].live;
}

static void test_trace(void **state)
{
    struct sim_cfg c = traced();

    (void)state;
    write_trace("# a comment\n\n 20 5 down\n30.5 5 up\n20\t6\tdown\n40 7 up\n");
    struct sim_result r = *nets_run(&c);
    assert_int_equal(live_at(&r, 15 * S), 59); /* node 7 comes later */
    assert_int_equal(live_at(&r, 25 * S), 57);
    assert_int_equal(live_at(&r, 35 * S), 58);
    assert_int_equal(r.live, 59);
    c.threads = 4;
    assert_memory_equal(nets_run(&c)->digest, r.digest, sizeof r.digest);
}

static void test_bad_traces(void **state)
{
    struct sim_cfg c = traced();
    static const char *const bad[] = {"x 1 up\n",  "1 1\n",       "1 1 sideways\n", "1 57 up\n",
                                      "-1 1 up\n", "1 -1 down\n", "1e3 1 up\n",     "1.5.5 1 up\n"};

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char text[64];
        snprintf(text, sizeof text, "1 1 up\n%s", bad[i]);
        write_trace(text);
        nets_refuse(&c, ":2: ");
    }
    strcpy(c.churn.trace, "/nowhere/trace");
    nets_refuse(&c, "/nowhere/trace: No such file");
}

/* ---- days, waves, crowds ---- */

static void test_day(void **state)
{
    struct sim_cfg c = nets_calm();

    (void)state;
    c.gets.every_ns = 5 * S;
    c.gets.start_ns = 0;
    c.puts.start_ns = 1 * S;
    c.duration_ns = 200 * S;
    c.day.length_ns = 200 * S;
    c.day.swing_ppm = 900000;
    const struct sim_result *r = nets_run(&c);
    uint64_t morning = 0, all = r->sum.gets_ok + r->sum.gets_unpublished;
    for (size_t i = 0; i < r->n_series && r->series[i].at_ns <= 100 * S; i++)
        morning = r->series[i].gets_ok;
    assert_true(all > 1000);
    /* by day three to four times as many as by night; the first are asked before anything is there */
    assert_true(r->sum.gets_ok - morning < all * 2 / 5);
}

static void test_waves(void **state)
{
    struct sim_cfg c = nets_calm();

    (void)state;
    c.join.waves = 4;
    c.join.over_ns = 80 * S;
    c.duration_ns = 90 * S;
    c.gets.every_ns = 0;
    const struct sim_result *r = nets_run(&c);
    assert_in_range(live_at(r, 15 * S), 12, 20);
    assert_in_range(live_at(r, 35 * S), 27, 35);
    assert_int_equal(r->live, 60);
}

static void test_flash(void **state)
{
    struct sim_cfg c = nets_calm();
    uint64_t before = nets_run(&c)->sum.gets;

    (void)state;
    c.script[c.n_script++] = (struct sim_script){200 * S, 10 * S, SIM_FLASH, 500000, 0, 0};
    const struct sim_result *r = nets_run(&c);
    assert_true(r->passed);
    assert_in_range(r->sum.gets, before + 18, before + 42);
}

/* ---- attackers ---- */

static const struct sim_result *attacked(struct sim_cfg *c)
{
    c->expect.success_ppm = 900000;
    c->expect.stale_ppm = 100000;
    struct sim_result one = *nets_run(c);
    c->threads = 2;
    const struct sim_result *r = nets_run(c);
    assert_memory_equal(r->digest, one.digest, sizeof one.digest);
    c->threads = 1;
    if (!r->passed)
        fail_msg("%s", r->failed);
    return r;
}

static void test_slow(void **state)
{
    struct sim_cfg c = nets_calm();
    uint64_t quick = hist_percentile(&nets_run(&c)->get_us, 9900);

    (void)state;
    c.attack.slow_ppm = 300000;
    c.attack.slow_by_ns = 3 * S;
    assert_true(hist_percentile(&attacked(&c)->get_us, 9900) > 2 * quick);
    c.relays.count = 2;
    assert_true(hist_percentile(&attacked(&c)->get_us, 9900) > 2 * quick);
}

static void test_poison(void **state)
{
    struct sim_cfg c = nets_calm();

    (void)state;
    c.attack.poison_ppm = 200000;
    assert_true(attacked(&c)->sum.gets_ok > 100);
}

static void test_flood(void **state)
{
    struct sim_cfg c = nets_calm();

    (void)state;
    c.attack.flood_ppm = 100000;
    c.attack.flood_every_ns = 5 * S;
    assert_true(attacked(&c)->sum.floods > 50);
}

/* Incident 64: a dense crowd around a target is seen and passed, and one as thin as chance allows hides nothing
 * either, since what is put goes to bootstrap nodes too. */
static void test_eclipse(void **state)
{
    struct sim_cfg c = nets_calm();

    (void)state;
    c.nodes = 200;
    c.net.floor_ns = 25 * MS;
    c.attack.eclipse = 40;
    c.attack.eclipse_bits = 16;
    const struct sim_result *r = attacked(&c);
    assert_true(r->sum.victim_ok > 10);
    assert_int_equal(r->sum.victim_failed, 0);
    c.attack.eclipse_bits = 5;
    r = nets_run(&c);
    assert_true(r->sum.victim_ok > 10);
    assert_int_equal(r->sum.victim_failed, 0);
    assert_int_equal(r->sum.victim_stale, 0);
    c.signatures = SIM_SIG_REAL;
    nets_refuse(&c, "eclipse");
    c = nets_calm();
    c.attack.eclipse = 58;
    nets_refuse(&c, "attackers");
}

/* A relay goes down: its contacts are passed over together, and the others go on as before; a gang behind one
 * relay does not have the buckets to itself. */
static void test_relay_groups(void **state)
{
    struct sim_cfg c = nets_calm();

    (void)state;
    c.nodes = 100;
    c.duration_ns = 400 * S;
    c.relays.count = 4;
    c.relays.per_node = 1;
    c.script[c.n_script++] = (struct sim_script){
        .at_ns = 200 * S, .for_ns = 60 * S, .type = SIM_RELAY_CRASH, .relays = 1};
    c.expect.success_ppm = 700000; /* a quarter is cut off for a minute of four */
    const struct sim_result *r = attacked(&c);
    assert_true(r->sum.groups_suspected > 20);
    assert_true(r->sum.passed_over > 100);
    c.n_script = 0;
    c.attack.eclipse = 40;
    c.attack.eclipse_bits = 5;
    c.attack.eclipse_relay = true;
    c.expect.success_ppm = 990000;
    r = attacked(&c);
    assert_int_equal(r->sum.victim_failed, 0);
    assert_true(r->sum.diversified > 10);
    assert_int_equal(r->sum.groups_suspected, 0);
}

static int set_up(void **state)
{
    (void)state;
    return crypto_init() == 0 && mkstemp(trace) >= 0 ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    return remove(trace);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_laws),    cmocka_unit_test(test_pareto_needs_a_mean),
        cmocka_unit_test(test_trace),   cmocka_unit_test(test_bad_traces),
        cmocka_unit_test(test_day),     cmocka_unit_test(test_waves),
        cmocka_unit_test(test_flash),   cmocka_unit_test(test_slow),
        cmocka_unit_test(test_poison),  cmocka_unit_test(test_flood),
        cmocka_unit_test(test_eclipse), cmocka_unit_test(test_relay_groups),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
