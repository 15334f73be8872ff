/* What visors tell of themselves, by the DHT and by HTTP services, and the way from one to the other. */
#include <string.h>

#include "base/crypto.h"
#include "tests/unit/simulator/nets.h"
#include "tests/unit/vectors.h"

static struct sim_result one;

static const struct sim_result *run(const struct sim_cfg *c)
{
    one = *nets_run(c);
    if (!one.passed)
        fail_msg("%s", one.failed);
    return &one;
}

/* The same on two threads: digest and every count. */
static void same_on_two(struct sim_cfg *c)
{
    c->threads = 2;
    const struct sim_result *r = nets_run(c);
    c->threads = 1;
    assert_memory_equal(r->digest, one.digest, sizeof one.digest);
    assert_memory_equal(&r->sum, &one.sum, sizeof one.sum);
    assert_memory_equal(r->series, one.series, sizeof one.series);
}

static struct sim_cfg telling(void)
{
    struct sim_cfg c = nets_calm();

    c.nodes = 30;
    c.net.floor_ns = 50 * MS; /* few windows: meetings are slow on a busy machine */
    c.net.median_ns = 60 * MS;
    c.join.over_ns = 10 * S;
    c.duration_ns = 220 * S;
    c.puts.every_ns = c.gets.every_ns = 0;
    c.records_start_ns = 20 * S;
    for (unsigned k = 0; k < SIM_REC__COUNT; k++) {
        c.record[k].every_ns = 40 * S;
        c.record[k].change_ns = 70 * S;
        c.record[k].read_ns = 25 * S;
    }
    c.record[SIM_REC_SVC].share_ppm = SIM_MILLION / 2;
    return c;
}

static void test_lists(void **state)
{
    struct sim_cfg c = telling();

    (void)state;
    c.record[SIM_REC_TP].count = 210; /* two chunks */
    const struct sim_result *r = run(&c);
    assert_true(r->sum.changes > 80 && r->sum.reads_dht > 200);
    assert_int_equal(r->sum.reads_http + r->sum.http, 0);
    assert_int_equal(r->sum.gets_failed, 0);
    same_on_two(&c);
}

/* Forged records do not get through, and a check that is missing is seen. */
static void test_forged_records(void **state)
{
    struct sim_cfg c = telling();

    (void)state;
    c.nodes = 40; /* with more liars: of 30 nodes this seed makes one or two of them */
    c.attack.wrong_ppm = 300000;
    c.expect.success_ppm = 900000;
    c.expect.stale_ppm = 10000;
    assert_true(run(&c)->sum.answers_rejected > 0); /* liars are soon shunned */
    c.defect = SIM_DEFECT_NO_VERIFY;
    const struct sim_result *r = nets_run(&c);
    assert_false(r->passed);
    assert_true(r->sum.wrong > 0);
}

static struct sim_cfg with_http(uint32_t phase, uint32_t adoption_ppm)
{
    struct sim_cfg c = telling();

    c.join.bootstrap = 4;
    c.http.phase = phase;
    c.http.adoption_ppm = adoption_ppm;
    c.expect.success_ppm = 990000;
    c.expect.stale_ppm = 20000;
    return c;
}

/* Who asks whom in each phase. */
static void test_phases(void **state)
{
    (void)state;
    struct sim_cfg c = with_http(1, SIM_MILLION / 2);
    const struct sim_result *r = run(&c);
    assert_int_equal(r->sum.reads_dht + r->sum.http_pushes + r->sum.http_fallback, 0);
    assert_true(r->sum.reads_http > 150 && r->sum.http_posts > 300 && r->sum.http_mirrored > 100);
    same_on_two(&c);
    c = with_http(2, SIM_MILLION / 2); /* half of the visors read what the services mirror */
    r = run(&c);
    assert_true(r->sum.reads_dht > 50 && r->sum.reads_http > 50);
    assert_int_equal(r->sum.http_pushes, 0);
    c = with_http(3, SIM_MILLION / 2);
    r = run(&c);
    assert_true(r->sum.reads_dht > 50 && r->sum.reads_http > 50 && r->sum.http_pushes > 30);
    c = with_http(4, SIM_MILLION);
    r = run(&c);
    assert_int_equal(r->sum.http + r->sum.reads_http, 0);
    assert_true(r->sum.reads_dht > 150);
}

/* Old visors have no node in the DHT until they become new ones; what they told is found all the while. */
static void test_adoption(void **state)
{
    struct sim_cfg c = with_http(1, 0);

    (void)state;
    c.duration_ns = 330 * S;
    c.http.settle_ns = 20 * S;
    c.script[0] = (struct sim_script){.at_ns = 120 * S, .type = SIM_PHASE, .phase = 2};
    c.script[1] = (struct sim_script){150 * S, 50 * S, SIM_ADOPT, 900000, 0, 0};
    c.script[2] = (struct sim_script){.at_ns = 200 * S, .type = SIM_PHASE, .phase = 4};
    c.n_script = 3;
    c.expect.http_saved_ppm = 700000;
    c.expect.registrations = 30 * 8 * 90 / 40 / 2;
    const struct sim_result *r = run(&c);
    size_t i = 0;
    while (r->series[i].at_ns < 140 * S)
        i++;
    assert_int_equal(r->series[i].live, 4);
    assert_in_range(r->live, 23, 30);
    assert_true(r->before.requests_milli > 3 * r->after.requests_milli);
    assert_true(r->before.cpu_ppm > r->after.cpu_ppm);
    same_on_two(&c);
    c.expect.http_saved_ppm = 999000;
    r = nets_run(&c);
    assert_false(r->passed);
    assert_non_null(strstr(r->failed, "HTTP requests saved"));
    c.expect.http_saved_ppm = 0;
    c.expect.registrations = 100000;
    assert_non_null(strstr(nets_run(&c)->failed, "registrations"));
}

/* Services that are down, or too slow for what they are asked. */
static void test_outage_and_overload(void **state)
{
    struct sim_cfg c = with_http(1, 0);

    (void)state;
    c.script[0] = (struct sim_script){.at_ns = 150 * S, .for_ns = 40 * S, .type = SIM_HTTP_DOWN};
    c.n_script = 1;
    c.expect.success_ppm = 500000;
    assert_true(run(&c)->sum.gets_failed > 10 && one.sum.http_refused > 50);
    c = with_http(1, 0);
    uint64_t quick = hist_percentile(&run(&c)->http_us, 9900);
    c.http.get_ns = c.http.post_ns = 500 * MS;
    c.http.queue_ns = 2 * S;
    c.expect.success_ppm = 0;
    c.expect.stale_ppm = SIM_MILLION;
    const struct sim_result *r = run(&c);
    assert_true(r->sum.http_refused > 50 && hist_percentile(&r->http_us, 9900) > 5 * quick);
    uint64_t refused = r->sum.http_refused;
    c.http.cores = 4;
    assert_true(run(&c)->sum.http_refused < refused / 2);
}

static void test_bad_settings(void **state)
{
    struct sim_cfg c = with_http(1, 0);

    (void)state;
    c.join.by = SIM_JOIN_ORACLE;
    nets_refuse(&c, "oracle");
    c = with_http(1, 0);
    c.record[SIM_REC_TP].count = 201;
    nets_refuse(&c, "at most 200");
    c = telling();
    c.script[0] = (struct sim_script){.at_ns = 1, .type = SIM_PHASE, .phase = 2};
    c.n_script = 1;
    nets_refuse(&c, "no HTTP services");
    c = with_http(1, 500000);
    c.script[0] = (struct sim_script){.type = SIM_ADOPT, .share_ppm = 400000};
    c.n_script = 1;
    nets_refuse(&c, "growing adoption");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_forged_records),
        cmocka_unit_test(test_phases),
        cmocka_unit_test(test_adoption),
        cmocka_unit_test(test_outage_and_overload),
        cmocka_unit_test(test_bad_settings),
    };
    return crypto_init() == 0 ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
}
