/* Networks of hundreds of engines: nothing happens, half of them die, they are cut in two. */
#include <string.h>

#include "tests/unit/kademlia/cluster.h"

/* Sanitizers make this ten times as slow: a fifth of the nodes. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define NODES 100
#else
#define NODES 500
#endif

#define SYNC_S 4000 /* full nodes reconcile once an hour, give or take a tenth */

static struct cluster c;

static struct cluster_cfg calm(void)
{
    return (struct cluster_cfg){.nodes = NODES,
                                .boot = 5,
                                .liars_percent = 10,
                                .nth_publishes = 2,
                                .put_s = 1800,
                                .get_ms = 500,
                                .cached_percent = 20};
}

static void test_without_churn(void **state)
{
    const struct cluster_cfg cfg = calm();

    (void)state;
    cluster_init(&c, &cfg, "calm");
    cluster_run(&c, 3600);
    cluster_assert(&c, 10000);
    cluster_close(&c);
}

/* Everything as in the node but the sockets: no stand-ins for signatures. */
static void test_with_real_signatures(void **state)
{
    struct cluster_cfg cfg = calm();

    (void)state;
    cfg.nodes = 60;
    cfg.life_s = 1800;
    cfg.away_s = 300;
    cfg.get_ms = 5000;
    cfg.real_signatures = true;
    cluster_init(&c, &cfg, "real signatures");
    cluster_run(&c, 3600);
    cluster_assert(&c, 9990);
    cluster_close(&c);
}

/* Every publisher's item, also of those that died, from nodes all over the network. */
static void test_half_dies(void **state)
{
    const struct cluster_cfg cfg = calm();
    unsigned published = 0, found = 0;

    (void)state;
    cluster_init(&c, &cfg, "half dies");
    cluster_run(&c, 600);
    for (unsigned i = cfg.boot; i < NODES; i++) {
        if (c.nodes[i].role != CLUSTER_OLD && prop_chance(&c.net.rnd, 50))
            cluster_down(&c, i, true);
    }
    c.quiet = true;
    cluster_run(&c, 600); /* before anybody would publish again by itself */
    for (unsigned i = 0; i < NODES; i++) {
        if (cluster_acked(&c.nodes[i], c.net.now_ns) == 0)
            continue;
        published++;
        found += cluster_get(&c, cluster_any_up(&c), i);
    }
    print_message("%u of %u found\n", found, published);
    assert_true(published > NODES / 3);
    assert_true(found * 100 >= published * 99);
    cluster_assert(&c, 9900);
    cluster_close(&c);
}

/* ---- partition ---- */

static unsigned newest(unsigned owner)
{
    return cluster_acked(&c.nodes[owner], c.net.now_ns);
}

/* Two full nodes on either side; bootstrap nodes on both. */
static void test_partition(void **state)
{
    struct cluster_cfg cfg = calm();

    (void)state;
    cfg.full = 4;
    cfg.nodes = NODES;
    cluster_init(&c, &cfg, "partition");
    for (unsigned i = 0; i < cfg.nodes; i++)
        c.nodes[i].side = i % 2;
    cluster_run(&c, 600);
    /* What the other side has acknowledged nobody can know, and what it was before may run out. */
    struct cluster_counts before = c.n;
    c.cut = true;
    cluster_run(&c, 3600);
    c.cut = false;
    assert_int_equal(c.n.wrong, before.wrong);
    c.n = before;
    c.quiet = true;
    cluster_run(&c, SYNC_S);
    c.n = before;
    for (unsigned i = 0; i < cfg.nodes; i++) {
        if (newest(i) == 0)
            continue;
        for (unsigned full = 0; full < cfg.full; full++)
            assert_int_equal(cluster_held(&c, full, i), newest(i));
        for (unsigned n = 0; n < 4; n++)
            assert_true(cluster_get(&c, cluster_any_up(&c), i));
    }
    cluster_assert(&c, 10000);
    cluster_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_churn),
        cmocka_unit_test(test_with_real_signatures),
        cmocka_unit_test(test_half_dies),
        cmocka_unit_test(test_partition),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
