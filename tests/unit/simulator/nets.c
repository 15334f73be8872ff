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
