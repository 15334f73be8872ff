/* Networks of engines: joining, getting and putting, from one node to a hundred. */
#include "base/err.h"
#include "tests/unit/kademlia/net.h"

static struct net n;

static int setup(void **state)
{
    struct prop r = prop_init("net");

    (void)state;
    net_init(&n, prop_u64(&r));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    net_close(&n);
    return 0;
}

static void grow(size_t count)
{
    for (size_t i = 0; i < count; i++) {
        net_add(&n, NULL);
        if (i % 10 == 9)
            net_run(&n, 500);
    }
    net_run(&n, 10000);
}

static void test_one_node(void **state)
{
    struct net_node *a = net_add(&n, NULL);
    struct kad_stat st;

    (void)state;
    net_run(&n, 60000);
    struct kad_report r = net_put(a, "dmsg", "one");
    assert_int_equal(r.err, 0); /* the own store is all there is */
    assert_int_equal(r.end, KAD_END_NO_PEERS);
    net_report_clear(&r);
    net_assert_value(net_get(a, &a->pk, "dmsg", 0), "one");
    r = net_get(a, &a->pk, "tp", 0);
    assert_int_equal(r.err, ERR_NO_ROUTE);
    net_report_clear(&r);
    kad_stat(a->kad, &st);
    assert_false(st.alone); /* it is its own bootstrap: there is nobody to miss */
    assert_int_equal(st.network_size_estimate, 1);
}

static void test_two_nodes(void **state)
{
    (void)state;
    grow(2);
    struct net_node *a = net_node(&n, 0), *b = net_node(&n, 1);
    assert_int_equal(net_contacts(a), 1);
    assert_int_equal(net_contacts(b), 1);
    struct kad_report r = net_put(a, "dmsg", "hello");
    assert_int_equal(r.err, 0);
    assert_int_equal(r.stored, 1);
    net_report_clear(&r);
    net_assert_value(net_get(b, &a->pk, "dmsg", 0), "hello");
    net_assert_value(net_get(b, &a->pk, "dmsg", KAD_GET_NETWORK), "hello");
}

static void put_and_get(size_t count)
{
    grow(count);
    for (size_t i = 0; i < 10; i++) {
        struct net_node *from = net_node(&n, prop_below(&n.rnd, count));
        struct net_node *to = net_node(&n, prop_below(&n.rnd, count));
        char text[32];
        snprintf(text, sizeof text, "value %zu", i);
        struct kad_report r = net_put(from, "dmsg", text);
        assert_int_equal(r.err, 0);
        assert_true(r.stored >= (count > 20 ? 20 : count - 1));
        net_report_clear(&r);
        net_assert_value(net_get(to, &from->pk, "dmsg", KAD_GET_NETWORK), text);
        net_assert_value(net_get(to, &from->pk, "dmsg", KAD_GET_NETWORK | KAD_GET_FIRST), text);
    }
}

static void test_three_nodes(void **state)
{
    (void)state;
    put_and_get(3);
}

static void test_five_nodes(void **state)
{
    (void)state;
    put_and_get(5);
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(net_contacts(net_node(&n, i)), 4);
}

static void test_twenty_nodes_deferred(void **state)
{
    (void)state;
    n.deferred = true;
    put_and_get(20);
}

static void test_hundred_nodes(void **state)
{
    (void)state;
    n.json = false; /* the codec has its own tests */
    put_and_get(100);
}

/* How many of the k nodes whose IDs are truly closest to a slot, its owner apart, hold it. */
static size_t closest_holders(const struct net_node *owner, const char *salt)
{
    struct kad_id target = kad_target(&owner->pk, salt, strlen(salt));
    size_t held = 0;

    for (size_t i = 0; i < n.n; i++) {
        struct net_node *node = net_node(&n, i);
        struct store_rec r;
        size_t closer = 0;
        for (size_t j = 0; j < n.n; j++)
            closer += net_node(&n, j) != owner &&
                      kad_id_closer(&target, &net_node(&n, j)->id, &node->id) < 0;
        if (node != owner && closer < KAD_K &&
            node->store->ops->get(node->store, &target, ITEM_OWNER, &r) == 0)
            held++;
    }
    return held;
}

/* What is put lies at the k closest to its slot, and at hardly anybody else. */
static void test_stored_at_the_closest(void **state)
{
    (void)state;
    n.json = false;
    grow(80);
    net_run(&n, 60000);
    for (size_t i = 0; i < 20; i++) {
        struct net_node *from = net_node(&n, prop_below(&n.rnd, 80));
        char salt[16];
        snprintf(salt, sizeof salt, "salt %zu", i);
        struct kad_report r = net_put(from, salt, "v");
        assert_int_equal(r.err, 0);
        net_report_clear(&r);
        assert_true(closest_holders(from, salt) >= KAD_K - 1);
        assert_in_range(net_holders(&n, &from->pk, salt, 0), KAD_K, KAD_K + 4);
    }
}

/* Full nodes get what is put whatever the distance: a bootstrap node, and one that has said what it is; from
 * a peer that speaks JSON only through those who hold its item. */
static void test_full_nodes_get_everything(void **state)
{
    struct kad_cfg full = {.full = true};

    (void)state;
    n.native = true;
    net_add(&n, &full);
    grow(70);
    struct net_node *late = net_add(&n, &full), *old = net_add(&n, NULL);
    old->json_only = true;
    net_run(&n, 60000);
    for (size_t i = 0; i < 20; i++) {
        struct net_node *from = i < 15 ? net_node(&n, 1 + prop_below(&n.rnd, 60)) : old;
        char salt[16];
        snprintf(salt, sizeof salt, "salt %zu", i);
        struct kad_report r = net_put(from, salt, "v");
        assert_int_equal(r.err, 0);
        net_report_clear(&r);
        net_run(&n, 5000);
        struct kad_id target = kad_target(&from->pk, salt, strlen(salt));
        struct net_node *both[] = {net_node(&n, 0), late};
        struct store_rec rec;
        size_t held = 0;
        for (size_t j = 0; j < 2; j++)
            held += both[j]->store->ops->get(both[j]->store, &target, ITEM_OWNER, &rec) == 0;
        assert_true(held >= 1);
    }
    net_run(&n, 70 * 60 * 1000); /* they have reconciled */
    struct store_stat a, b;
    late->store->ops->stat(late->store, &a);
    net_node(&n, 0)->store->ops->stat(net_node(&n, 0)->store, &b);
    assert_true(a.items >= 20 && b.items >= 20);
    assert_int_equal(a.items, b.items);
}

/* Tools come and go under fresh keys: they put and get, and nobody's routing table knows of them. */
static void test_client_only(void **state)
{
    struct kad_cfg cfg = {.client_only = true};
    size_t contacts[8];
    (void)state;
    grow(8);
    for (size_t i = 0; i < 8; i++)
        contacts[i] = net_contacts(net_node(&n, i));
    for (size_t i = 0; i < 10; i++) {
        struct net_node *tool = net_add(&n, &cfg);
        char text[32];
        net_run(&n, 2000);
        assert_true(net_contacts(tool) > 0);
        snprintf(text, sizeof text, "value %zu", i);
        struct kad_report r = net_put(tool, "dmsg", text);
        assert_int_equal(r.err, 0);
        assert_int_equal(r.stored, 8);
        net_report_clear(&r);
        net_assert_value(net_get(net_node(&n, i % 8), &tool->pk, "dmsg", KAD_GET_NETWORK), text);
        net_assert_value(net_get(tool, &tool->pk, "dmsg", KAD_GET_NETWORK), text);
        net_run(&n, 30 * 60 * 1000); /* also what it does by itself tells nobody */
        tool->mode = NET_NO_DHT;
        net_stop(tool);
    }
    for (size_t i = 0; i < 8; i++)
        assert_int_equal(net_contacts(net_node(&n, i)), contacts[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_one_node, setup, teardown),
        cmocka_unit_test_setup_teardown(test_two_nodes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_three_nodes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_five_nodes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_twenty_nodes_deferred, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hundred_nodes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stored_at_the_closest, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full_nodes_get_everything, setup, teardown),
        cmocka_unit_test_setup_teardown(test_client_only, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
