/* Full nodes that reconcile by range digests: what moves, what it costs, and with whom it does not work. */
#include <stdio.h>

#include "base/err.h"
#include "kademlia/item.h"
#include "tests/unit/kademlia/dht_items.h"
#include "tests/unit/kademlia/net.h"

#define KEYS 64

static struct net n;
static struct seckey sks[KEYS];
static struct pubkey pks[KEYS];

static int setup(void **state)
{
    (void)state;
    net_init(&n, prop_init("ranges").state);
    n.native = true;
    for (uint8_t i = 0; i < KEYS; i++) {
        uint8_t seed[32] = {i, 9};
        assert_int_equal(crypto_keypair(&sks[i], &pks[i], seed), 0);
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    net_close(&n);
    return 0;
}

/* Into the store of a node as it is; items that are not sent to anybody need no right signature. */
static void hold(struct net_node *node, unsigned i, uint64_t version, bool is_signed)
{
    char salt[16];
    uint64_t seq = (uint64_t)env_wall_ns(&node->env.env) + i + 1000000 * version;

    snprintf(salt, sizeof salt, "s%u", i);
    struct item it = {.k = pks[i % KEYS],
                      .seq = seq,
                      .v = (const uint8_t *)"value",
                      .v_len = 5,
                      .salt = (const uint8_t *)salt,
                      .salt_len = strlen(salt)};
    if (is_signed)
        assert_int_equal(item_sign(&it, &sks[i % KEYS]), 0);
    struct item_ref *r = item_ref_new(&it);
    struct store_rec rec = {.target = item_target(&it),
                            .item = r->item,
                            .stored_ns = env_wall_ns(&node->env.env),
                            .expires_ns = env_wall_ns(&node->env.env) + INT64_C(7200000000000),
                            .origin = STORE_REPLICA,
                            .charged = it.k,
                            .ref = r};
    assert_int_equal(node->store->ops->put(node->store, &rec), 0);
    kad_store_changed(node->kad, &rec.target, rec.kind, n.now_ns);
    item_ref_put(r);
}

struct sum {
    size_t n;
    uint64_t seqs;
};

static bool add(void *arg, const struct store_rec *r)
{
    struct sum *s = arg;

    if (r->item.salt_len > 0 && r->item.salt[0] == 's') {
        s->n++;
        s->seqs += r->item.seq;
    }
    return true;
}

static struct sum sum_of(struct net_node *node)
{
    struct sum s = {0};

    assert_int_equal(node->store->ops->scan(node->store, NULL, add, &s), 0);
    return s;
}

static void assert_same(struct net_node *a, struct net_node *b, size_t count)
{
    struct sum x = sum_of(a), y = sum_of(b);

    assert_int_equal(x.n, count);
    assert_int_equal(y.n, count);
    assert_true(x.seqs == y.seqs);
}

static const struct kad_cfg full = {.full = true, .limits = {.slots_per_key = 100000}};

static struct kad_report sync_with(struct net_node *from, struct net_node *to)
{
    return net_wait(from, kad_sync(from->kad, to->peer, NULL, n.now_ns));
}

static void test_both_ways(void **state)
{
    struct net_node *a = net_add(&n, &full), *b = net_add(&n, &full);

    (void)state;
    net_run(&n, 20000); /* the syncs of their start are over */
    for (unsigned i = 0; i < 5000; i++) {
        bool differs = i % 500 == 0;
        if (i % 1000 != 0) /* a lacks 0, 1000, …; b has 500, 1500, … in a newer version */
            hold(a, i, 0, differs);
        if (i % 1000 != 7 || i > 3000) /* b lacks 7, 1007, 2007 */
            hold(b, i, i % 1000 == 500, differs);
    }
    for (unsigned i = 7; i <= 3000; i += 1000) /* what goes to b must verify */
        hold(a, i, 1, true);
    struct kad_report r = sync_with(b, a); /* a is bootstrap of b: pushed to */
    assert_int_equal(r.err, 0);
    assert_int_equal(r.pulled, 3);
    assert_int_equal(r.pushed, 10);
    print_message("%u messages, %llu bytes\n", r.asked, (unsigned long long)r.bytes);
    assert_true(r.bytes < 40000);
    net_report_clear(&r);
    assert_true(stat_of(b).reconciled >= 1);
    assert_same(a, b, 5000);
    net_run(&n, 3000);   /* digests may be two seconds old */
    r = sync_with(b, a); /* nothing is left: one digest tells */
    assert_int_equal(r.err, 0);
    assert_int_equal(r.pulled + r.pushed, 0);
    assert_true(r.bytes < 1000);
    net_report_clear(&r);
}

/* An empty node reads pages: lists of everything would cost more. */
static void test_new_node_reads_pages(void **state)
{
    struct net_node *a = net_add(&n, &full);

    (void)state;
    for (unsigned i = 0; i < 3000; i++)
        hold(a, i, 0, true);
    struct net_node *b = net_add(&n, &full);
    net_run(&n, 60000); /* the first sync begins by itself */
    assert_same(a, b, 3000);
    assert_true(a->asked[KAD_GET_ITEMS] >= 3);
    assert_int_equal(a->asked[KAD_GET_BATCH], 0);
    assert_true(stat_of(b).synced);
}

/* Items that expired are in nobody's digest, though stores keep them for a while yet. */
static void test_expired_items_are_no_difference(void **state)
{
    struct net_node *a = net_add(&n, &full), *b = net_add(&n, &full);

    (void)state;
    for (unsigned i = 0; i < 2000; i++)
        hold(a, i, 0, false);
    net_run(&n, 7200000 + 60000);
    struct kad_report r = sync_with(b, a);
    assert_int_equal(r.err, 0);
    assert_int_equal(r.pulled, 0);
    assert_true(r.bytes < 3000);
    net_report_clear(&r);
}

static void test_regular_nodes_and_json(void **state)
{
    struct net_node *a = net_add(&n, NULL), *b = net_add(&n, &full);

    (void)state;
    net_run(&n, 2000);
    for (unsigned i = 0; i < 300; i++)
        hold(a, i, 0, true);
    struct kad_report r = sync_with(b, a); /* a is not full: it has no set to complete */
    assert_int_equal(r.err, 0);
    assert_int_equal(r.pulled, 300);
    net_report_clear(&r);
    assert_true(a->asked[KAD_RECONCILE] > 0 && a->asked[KAD_GET_ITEMS] > 0);
    assert_int_equal(stat_of(b).reconciled, 0);
}

static bool lie(struct net_node *node, struct net_node *from, struct kad_msg *req,
                struct kad_msg *rsp, int *fail)
{
    (void)node;
    (void)from;
    (void)fail;
    if (req->method != KAD_RECONCILE)
        return false;
    rsp->answers = calloc(req->n_ranges, sizeof *rsp->answers);
    assert_non_null(rsp->answers);
    for (; rsp->n_answers < req->n_ranges; rsp->n_answers++) {
        struct recon_answer *a = &rsp->answers[rsp->n_answers];
        a->is_list = true;
        a->entries = calloc(2, sizeof *a->entries); /* twice the same */
        assert_non_null(a->entries);
        a->n = 2;
    }
    return true;
}

/* Nonsense is counted, and the pages of that peer are read all the same. */
static void test_liar(void **state)
{
    struct net_node *a = net_add(&n, &full), *b = net_add(&n, &full);

    (void)state;
    net_run(&n, 2000);
    for (unsigned i = 0; i < 300; i++)
        hold(a, i, 0, true);
    a->mode = NET_CUSTOM;
    a->answer = lie;
    struct kad_report r = sync_with(b, a);
    assert_int_equal(r.err, 0);
    assert_int_equal(r.pulled, 300);
    net_report_clear(&r);
    assert_true(stat_of(b).lies[KAD_LIE_PROTOCOL] > 0);
}

/* Two halves of a full network that were apart: the newest version everywhere afterwards. */
static void test_partition_heals(void **state)
{
    struct net_node *a = net_add(&n, &full), *b = net_add(&n, &full), *c = net_add(&n, &full);

    (void)state;
    net_run(&n, 20000);
    for (unsigned i = 0; i < 1500; i++) {
        hold(a, i, i % 7 == 0, true);
        hold(b, i, i % 11 == 0, true);
        hold(c, i, i % 13 == 0, true);
    }
    for (int round = 0; round < 2; round++) {
        struct kad_report r = sync_with(b, a);
        net_report_clear(&r);
        r = sync_with(c, a);
        assert_int_equal(r.err, 0);
        net_report_clear(&r);
    }
    assert_same(a, b, 1500);
    assert_same(a, c, 1500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_both_ways, setup, teardown),
        cmocka_unit_test_setup_teardown(test_new_node_reads_pages, setup, teardown),
        cmocka_unit_test_setup_teardown(test_expired_items_are_no_difference, setup, teardown),
        cmocka_unit_test_setup_teardown(test_regular_nodes_and_json, setup, teardown),
        cmocka_unit_test_setup_teardown(test_liar, setup, teardown),
        cmocka_unit_test_setup_teardown(test_partition_heals, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
