/* Nodes that live for half an hour on average, for a day, a tenth of them liars. */
#include "tests/unit/kademlia/cluster.h"

/* Sanitizers make this ten times as slow: a twentieth of the work. */
#ifdef __SANITIZE_ADDRESS__
#define NODES 100
#define HOURS 6
#elif defined(__SANITIZE_THREAD__)
#define NODES 100
#define HOURS 6
#else
#define NODES 500
#define HOURS 24
#endif

static struct cluster c;

static void test_a_day_of_churn(void **state)
{
    const struct cluster_cfg cfg = {.nodes = NODES,
                                    .boot = 5,
                                    .liars_percent = 10,
                                    .life_s = 1800,
                                    .away_s = 300,
                                    .nth_publishes = 3,
                                    .put_s = 3600,
                                    .get_ms = 1000,
                                    .cached_percent = 20};

    (void)state;
    cluster_init(&c, &cfg, "churn");
    cluster_run(&c, HOURS * 3600);
    cluster_assert(&c, 9990);
    cluster_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_a_day_of_churn)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
