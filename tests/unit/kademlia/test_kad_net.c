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
        cmocka_unit_test_setup_teardown(test_client_only, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
