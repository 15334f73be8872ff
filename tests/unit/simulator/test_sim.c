/* Whole networks: the same seed gives the same run however it is executed, and what goes wrong in a
 * network is seen. */
#include "simulator/sim.h"

#include <stdio.h>
#include <string.h>

#include "base/crypto.h"
#include "base/err.h"
#include "simulator/scenario.h"
#include "tests/unit/simulator/nets.h"
#include "tests/unit/vectors.h"

/* A busy little network in which everything happens that the simulator knows. */
static struct sim_cfg busy(void)
{
    struct sim_cfg c;

    sim_cfg_default(&c);
    c.nodes = 60;
    c.duration_ns = 200 * S;
    c.net.floor_ns = 25 * MS; /* few windows: meetings are slow on a busy machine */
    c.net.median_ns = 50 * MS;
    c.join.over_ns = 20 * S;
    c.sample = 10;
    c.skew_ns = 100 * MS;
    c.net.loss_ppm = 2000;
    c.relays.count = 3;
    c.relays.per_node = 2;
    c.puts.every_ns = 100 * S;
    c.puts.start_ns = 20 * S;
    c.gets.every_ns = 20 * S;
    c.gets.start_ns = 40 * S;
    c.churn.up_ns = 200 * S;
    c.churn.down_ns = 30 * S;
    c.churn.start_ns = 60 * S;
    c.attack.mute_ppm = 50000;
    c.attack.wrong_ppm = 50000;
    c.attack.stale_ppm = 50000;
    c.script[0] = (struct sim_script){120 * S, 20 * S, SIM_PARTITION, 300000, 0, 0};
    c.script[1] = (struct sim_script){150 * S, 20 * S, SIM_RELAY_CRASH, 0, 1, 0};
    c.script[2] = (struct sim_script){180 * S, 0, SIM_KILL, 100000, 0, 0};
    c.n_script = 3;
    c.expect.stale_ppm = 1000000;
    c.check = true;
    return c;
}

static void test_same_on_any_threads(void **state)
{
    struct sim_cfg c = busy();
    struct sim_result one = *nets_run(&c);
    static const unsigned threads[] = {1, 2, 4};

    (void)state;
    assert_true(one.sum.relayed > 0 && one.sum.lost > 0 && one.sum.cut > 0);
    assert_true(one.sum.leaves > 0 && one.sum.answers_rejected > 0 && one.sum.gets_ok > 0);
    assert_true(one.sum.sampled > 0);
    for (size_t i = 0; i < 3; i++) {
        c.threads = threads[i];
        nets_same(nets_run(&c), &one);
    }
    c.seed++;
    assert_memory_not_equal(nets_run(&c)->digest, one.digest, sizeof one.digest);
}

static void test_oracle(void **state)
{
    struct sim_cfg c = nets_calm();

    (void)state;
    c.nodes = 400;
    c.join.by = SIM_JOIN_ORACLE;
    c.duration_ns = 200 * S;
    struct sim_result one = *nets_run(&c);
    assert_true(one.passed);
    assert_true(one.contacts_mean_milli > 60000);
    c.net.floor_ns = 25 * MS;
    one = *nets_run(&c);
    c.threads = 3;
    assert_memory_equal(nets_run(&c)->digest, one.digest, sizeof one.digest);
}

/* A ping is no reason to ping: without users only the first walk and what follows from it is heard. */
static void test_quiet(void **state)
{
    struct sim_cfg c = nets_calm();

    (void)state;
    c.nodes = 600;
    c.join.by = SIM_JOIN_ORACLE;
    c.puts.share_ppm = 20000;
    c.gets.every_ns = 0;
    c.duration_ns = 300 * S;
    const struct sim_result *r = nets_run(&c);
    uint64_t others = r->sum.requests[2] + r->sum.requests[3] + r->sum.requests[4];
    assert_true(others > 0);
    assert_in_range(r->sum.requests[1], 1, 2 * others);
}

static void test_codecs_and_signatures(void **state)
{
    struct sim_cfg c = nets_calm();

    (void)state;
    c.nodes = 25;
    c.duration_ns = 200 * S;
    c.codec = SIM_CODEC_JSON;
    c.signatures = SIM_SIG_REAL;
    const struct sim_result *r = nets_run(&c);
    if (!r->passed)
        fail_msg("%s", r->failed);
    assert_true(r->sum.gets_ok > 20);
    assert_int_equal(r->sum.gets_failed, 0);
}

/* Forged and misplaced items of attackers must not get through … */
static struct sim_cfg under_attack(void)
{
    struct sim_cfg c = nets_calm();

    c.attack.wrong_ppm = 200000;
    c.expect.success_ppm = 900000;
    c.expect.stale_ppm = 1000000;
    return c;
}

static void test_forged_items(void **state)
{
    struct sim_cfg c = under_attack();
    const struct sim_result *r = nets_run(&c);

    (void)state;
    assert_true(r->sum.answers_rejected > 100);
    assert_int_equal(r->sum.wrong, 0);
    assert_true(r->passed);
}

/* … and when nobody checks signatures, the invariant sees it. */
static void test_defect_no_verify(void **state)
{
    struct sim_cfg c = under_attack();

    (void)state;
    c.defect = SIM_DEFECT_NO_VERIFY;
    const struct sim_result *r = nets_run(&c);
    assert_true(r->sum.wrong > 0);
    assert_false(r->passed);
    assert_non_null(strstr(r->failed, "wrong values"));
}

static void test_defect_no_contacts(void **state)
{
    struct sim_cfg c = nets_calm();

    (void)state;
    /* Without bootstrap keys, and a third of the publishers gone: the k closest are all there is. */
    c.nodes = 300;
    c.join.by = SIM_JOIN_ORACLE;
    c.kad.k = 8;
    c.duration_ns = 240 * S;
    c.script[c.n_script++] =
        (struct sim_script){.at_ns = 135 * S, .type = SIM_KILL, .share_ppm = 330000};
    c.expect.success_ppm = 990000;
    const struct sim_result *r = nets_run(&c);
    if (!r->passed)
        fail_msg("%s", r->failed);
    c.defect = SIM_DEFECT_NO_CLOSE;
    r = nets_run(&c);
    assert_false(r->passed);
}

/* Half of the nodes die. Buckets forget them within minutes, or every look-up waits for them. */
static void test_defect_no_evict(void **state)
{
    struct sim_cfg c = nets_calm();

    (void)state;
    c.nodes = 200;
    c.net.floor_ns = 25 * MS;
    c.net.median_ns = 50 * MS;
    c.join.over_ns = 30 * S;
    c.duration_ns = 420 * S;
    c.gets.start_ns = 340 * S;
    c.gets.every_ns = 40 * S;
    c.puts.start_ns = 40 * S;
    c.puts.every_ns = 60 * S;
    c.script[0] = (struct sim_script){.at_ns = 100 * S, .type = SIM_KILL, .share_ppm = 500000};
    c.n_script = 1;
    c.expect.success_ppm = 990000;
    c.expect.p99_ns = 4 * S;
    const struct sim_result *r = nets_run(&c);
    if (!r->passed)
        fail_msg("%s", r->failed);
    c.defect = SIM_DEFECT_NO_EVICT;
    r = nets_run(&c);
    assert_false(r->passed);
}

static void test_stop(void **state)
{
    static volatile sig_atomic_t stop = 1;
    struct sim_cfg c = nets_calm();

    (void)state;
    c.stop = &stop;
    c.threads = 2;
    const struct sim_result *r = nets_run(&c);
    assert_true(r->interrupted);
    assert_int_equal(r->sum.delivered, 0);
}

static void test_bad_settings(void **state)
{
    struct sim_cfg c = nets_calm();

    (void)state;
    c.join.bootstrap = c.nodes;
    nets_refuse(&c, "join.bootstrap");
    c = nets_calm();
    c.net.model = SIM_LAT_REGIONS;
    nets_refuse(&c, "regions");
    c = nets_calm();
    c.net.model = SIM_LAT_MATRIX;
    strcpy(c.net.matrix, "/nowhere/matrix");
    nets_refuse(&c, "/nowhere/matrix");
    c = busy();
    c.relays.count = 0;
    nets_refuse(&c, "relays crash");
    c = nets_calm();
    c.attack.mute_ppm = c.attack.wrong_ppm = 600000;
    nets_refuse(&c, "attackers");
}

static void test_matrix(void **state)
{
    struct sim_cfg c = nets_calm();
    char file[] = "/tmp/kadmsg-matrix-XXXXXX";
    int fd = mkstemp(file);
    FILE *f = fd >= 0 ? fdopen(fd, "w") : NULL;

    (void)state;
    assert_non_null(f);
    fprintf(f, "0 60.5 200\n60.5 0 NaN\n200 100.25 0\n");
    fclose(f);
    c.net.model = SIM_LAT_MATRIX;
    strcpy(c.net.matrix, file);
    const struct sim_result *r = nets_run(&c);
    assert_true(r->passed);
    assert_true(r->sum.gets_ok > 0);
    uint64_t p50 = hist_percentile(&r->get_us, 5000);
    f = fopen(file, "w");
    assert_non_null(f);
    fprintf(
        f, "0 0.0605 0.2\n0.0605 0.001 0\n0.2 0.10025 0\n"); /* 0: not measured, unless to itself */
    fclose(f);
    c.net.matrix_unit = SIM_UNIT_S;
    assert_int_equal(hist_percentile(&nets_run(&c)->get_us, 5000), p50);
    f = fopen(file, "w");
    assert_non_null(f);
    fprintf(f, "1 2 3\n");
    fclose(f);
    nets_refuse(&c, "square");
    remove(file);
}

/* What is shipped for a first look, as it is. */
static void test_tiny(void **state)
{
    struct sim_cfg c;
    char why[256];

    (void)state;
    sim_cfg_default(&c);
    assert_int_equal(scenario_read(&c, "simulator/scenarios/tiny.yaml", why, sizeof why), 0);
    c.check = true;
    const struct sim_result *r = nets_run(&c);
    if (!r->passed)
        fail_msg("%s", r->failed);
    assert_true(r->sum.gets_ok > 500);
    assert_int_equal(r->live, 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_on_any_threads),
        cmocka_unit_test(test_oracle),
        cmocka_unit_test(test_quiet),
        cmocka_unit_test(test_codecs_and_signatures),
        cmocka_unit_test(test_forged_items),
        cmocka_unit_test(test_defect_no_verify),
        cmocka_unit_test(test_defect_no_contacts),
        cmocka_unit_test(test_defect_no_evict),
        cmocka_unit_test(test_stop),
        cmocka_unit_test(test_bad_settings),
        cmocka_unit_test(test_matrix),
        cmocka_unit_test(test_tiny),
    };

    if (crypto_init() != 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
