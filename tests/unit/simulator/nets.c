#include "tests/unit/simulator/nets.h"

#include <string.h>

#include "tests/unit/vectors.h"

static struct sim_result last;

struct sim_cfg nets_calm(void)
{
    struct sim_cfg c;

    sim_cfg_default(&c);
    c.nodes = 60;
    c.duration_ns = 300 * S;
    c.join.over_ns = 20 * S;
    c.puts.every_ns = 100 * S;
    c.puts.start_ns = 30 * S;
    c.gets.every_ns = 20 * S;
    c.gets.start_ns = 140 * S;
    c.gets.network = true;
    c.expect.success_ppm = 1000000;
    c.check = true;
    return c;
}

struct sim_cfg nets_lively(void)
{
    struct sim_cfg c = nets_calm();

    c.nodes = 40;
    c.duration_ns = 120 * S;
    c.net.floor_ns = 25 * MS;
    c.net.median_ns = 50 * MS;
    c.join.over_ns = 10 * S;
    c.puts.every_ns = 40 * S;
    c.puts.start_ns = 15 * S;
    c.gets.every_ns = 10 * S;
    c.gets.start_ns = 30 * S;
    c.gets.network = false;
    c.churn.up_ns = 200 * S;
    c.churn.down_ns = 20 * S;
    c.attack.wrong_ppm = 50000;
    c.attack.eclipse = 3;
    c.attack.replay_ppm = 50000;
    c.attack.replay_every_ns = 5 * S;
    c.native_ppm = SIM_MILLION;
    c.full.count = 4;
    c.full.liars = 1;
    c.watches.share_ppm = 500000;
    c.watches.start_ns = 40 * S;
    c.watches.audit_ns = 10 * S;
    c.watches.late_ns = 60 * S;
    c.expect.late_ppm = SIM_MILLION;
    c.http.phase = 3;
    c.http.adoption_ppm = 700000;
    c.records_start_ns = 15 * S;
    for (unsigned k = 0; k < SIM_REC__COUNT; k++)
        c.record[k].every_ns = c.record[k].change_ns = c.record[k].read_ns = 30 * S;
    c.expect.success_ppm = 0;
    c.expect.stale_ppm = 1000000;
    return c;
}

void nets_same(const struct sim_result *a, const struct sim_result *b)
{
    assert_memory_equal(a->digest, b->digest, sizeof b->digest);
    assert_memory_equal(&a->sum, &b->sum, sizeof b->sum);
    assert_memory_equal(&a->get_us, &b->get_us, sizeof b->get_us);
    assert_memory_equal(&a->load, &b->load, sizeof b->load);
    assert_memory_equal(a->series, b->series, sizeof b->series);
    assert_int_equal(a->windows, b->windows);
    assert_int_equal(a->live, b->live);
    assert_int_equal(a->load_gini_ppm, b->load_gini_ppm);
    assert_int_equal(a->contacts_mean_milli, b->contacts_mean_milli);
}

const struct sim_result *nets_run(const struct sim_cfg *cfg)
{
    struct sim *s;
    char why[256];

    if (sim_new(&s, cfg, why, sizeof why) != 0)
        fail_msg("%s", why);
    assert_int_equal(sim_run(s), 0);
    sim_result(s, &last);
    sim_free(s);
    return &last;
}

void nets_refuse(const struct sim_cfg *c, const char *reason)
{
    struct sim *s;
    char why[256];

    assert_true(sim_new(&s, c, why, sizeof why) < 0);
    assert_null(s);
    if (strstr(why, reason) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", why, reason);
}
