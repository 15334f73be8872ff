#include "simulator/scenario.h"

#include <glob.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "tests/unit/vectors.h"

#define S UINT64_C(1000000000)

static struct sim_cfg cfg;
static char why[512];

static int parse(const char *text)
{
    FILE *f = fmemopen((void *)(uintptr_t)text, strlen(text), "r");

    assert_non_null(f);
    sim_cfg_default(&cfg);
    why[0] = '\0';
    int rc = scenario_parse(&cfg, f, "x.yaml", why, sizeof why);
    fclose(f);
    return rc;
}

static void test_values(void **state)
{
    (void)state;
    assert_int_equal(parse("# a comment\n"
                           "name: n\n"
                           "about: |\n  several\n  lines\n"
                           "nodes: 20k\n"
                           "duration: 1.5h\n"
                           "signatures: real\n"
                           "join: {by: oracle, over: 0}\n"
                           "net:\n  latency: regions\n  loss: 0.25%\n  sigma: 0.5 # here too\n"
                           "regions: [[10ms, 80ms], [80ms, 12ms]]\n"
                           "gets: {network: yes, zipf: 1.1}\n"
                           "kad: {hedge: 500ms}\n"
                           "events:\n"
                           "  - {at: 5min, do: kill, share: 30%}\n"
                           "  - {at: 6min, do: partition, share: 500ppm, for: 2min}\n"),
                     0);
    assert_string_equal(cfg.name, "n");
    assert_int_equal(cfg.nodes, 20000);
    assert_int_equal(cfg.duration_ns, 5400 * S);
    assert_int_equal(cfg.signatures, SIM_SIG_REAL);
    assert_int_equal(cfg.join.by, SIM_JOIN_ORACLE);
    assert_int_equal(cfg.join.over_ns, 0);
    assert_int_equal(cfg.net.loss_ppm, 2500);
    assert_int_equal(cfg.net.sigma_milli, 500);
    assert_int_equal(cfg.net.n_regions, 2);
    assert_int_equal(cfg.net.region_ns[1][0], 80000000);
    assert_true(cfg.gets.network && !cfg.gets.first);
    assert_int_equal(cfg.gets.zipf_milli, 1100);
    assert_int_equal(cfg.kad.hedge_ms, 500);
    assert_int_equal(cfg.n_script, 2);
    assert_int_equal(cfg.script[0].share_ppm, 300000);
    assert_int_equal(cfg.script[1].type, SIM_PARTITION);
    assert_int_equal(cfg.script[1].for_ns, 120 * S);
}

static void refused(const char *text, const char *reason)
{
    assert_int_equal(parse(text), ERR_FORMAT);
    if (strstr(why, reason) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", why, reason);
}

static void test_mistakes(void **state)
{
    (void)state;
    refused("", "x.yaml:1: the file is empty");
    refused("nodes: 1\nnodez: 2\n", "x.yaml:2: there is no setting \"nodez\"");
    refused("net:\n  floor: 5\n", "x.yaml:2: net.floor: \"5\" is not a time");
    refused("net:\n  floor: 5 ms\n", "x.yaml:2: net.floor");
    refused("a: 1\n  b: 2\n", "x.yaml:2: ");
    refused("\nnodes: 0\n", "x.yaml:2: nodes: 0 is out of range");
    refused("nodes: 99999999999999999999999\n", "is not a number");
    refused("nodes: [1]\n", "x.yaml:1: nodes: a single value");
    refused("join: {by: magic}\n", "\"magic\" is none of protocol|oracle");
    refused("net: {loss: 101%}\n", "out of range");
    refused("net: {loss: 1}\n", "is not a share");
    refused("nodes: 5\n\nnodes: 6\n", "x.yaml:3: \"nodes\" stands here twice");
    refused("events: 5\n", "a list is expected");
    refused("events:\n - {at: 1s, do: dance}\n", "x.yaml:2: do: \"dance\"");
    refused("events:\n - {at: 1s, do: kill}\n", "does not say how many");
    refused("events:\n - {at: 1s, when: 1}\n", "no member \"when\"");
    refused("regions: [[1ms, 2ms]]\n", "a row of 1 latencies");
    refused("- 1\n", "a mapping");
    refused("name: 0123456789012345678901234567890123456789012345678901234567890123\n",
            "longer than");
}

static void test_set(void **state)
{
    (void)state;
    sim_cfg_default(&cfg);
    assert_int_equal(scenario_set(&cfg, "net.median=80ms", why, sizeof why), 0);
    assert_int_equal(cfg.net.median_ns, 80000000);
    assert_int_equal(scenario_set(&cfg, "net.median", why, sizeof why), ERR_USAGE);
    assert_int_equal(scenario_set(&cfg, "no.such=1", why, sizeof why), ERR_USAGE);
    assert_non_null(strstr(why, "no.such"));
    assert_true(scenario_read(&cfg, "/nowhere/x.yaml", why, sizeof why) < 0);
    assert_non_null(strstr(why, "/nowhere/x.yaml"));
}

/* Every scenario that is shipped can be read, and says how much memory it will take. */
static void test_shipped(void **state)
{
    glob_t g;

    (void)state;
    assert_int_equal(glob("simulator/scenarios/*.yaml", 0, NULL, &g), 0);
    assert_true(g.gl_pathc >= 5);
    for (size_t i = 0; i < g.gl_pathc; i++) {
        sim_cfg_default(&cfg);
        if (scenario_read(&cfg, g.gl_pathv[i], why, sizeof why) != 0)
            fail_msg("%s", why);
        assert_string_not_equal(cfg.name, "unnamed");
        assert_in_range(sim_predict(&cfg), 1000000, UINT64_C(12000000000));
    }
    globfree(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_mistakes),
        cmocka_unit_test(test_set),
        cmocka_unit_test(test_shipped),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
