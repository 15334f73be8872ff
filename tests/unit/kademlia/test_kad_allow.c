/* Private networks: whose items may be where, and who is given values. */
#include "base/err.h"
#include "kademlia/item.h"
#include "tests/unit/kademlia/dht_items.h"
#include "tests/unit/kademlia/net.h"

static struct net n;

static int setup(void **state)
{
    (void)state;
    net_init(&n, 56);
    return crypto_init();
}

static int teardown(void **state)
{
    (void)state;
    net_close(&n);
    return 0;
}

static void key(uint8_t first, struct seckey *sk, struct pubkey *pk)
{
    uint8_t seed[32] = {first};

    assert_int_equal(crypto_keypair(sk, pk, seed), 0);
}

/* Put an item of sk to one node by hand; what it answered. */
static bool put(struct net_node *to, struct net_node *from, const struct seckey *sk,
                const char *salt, const char *v)
{
    struct item_ref *it = dht_item(sk, 7, salt, v);
    struct kad_msg req, rsp;

    kad_msg_init(&req, KAD_PUT_VALUE, false);
    assert_int_equal(kad_msg_add_item(&req, it, NULL), 0);
    assert_true(net_ask(to, from, &req, &rsp));
    bool stored = rsp.stored;
    kad_msg_clear(&rsp);
    item_ref_put(it);
    return stored;
}

static void test_writers(void **state)
{
    struct seckey listed_sk, other_sk, any_sk;
    struct pubkey listed, other, any;

    (void)state;
    key(1, &listed_sk, &listed);
    key(2, &other_sk, &other);
    key(3, &any_sk, &any);
    const struct kad_writer w[] = {{NS_TP, listed}, {NS_OPAQUE, listed}};
    const struct kad_cfg cfg = {.writers = w, .n_writers = 2};
    struct net_node *a = net_add(&n, &cfg), *b = net_add(&n, NULL);

    net_run(&n, 3000);
    assert_true(put(a, b, &listed_sk, "tp", "[]"));
    assert_false(put(a, b, &other_sk, "tp", "[]"));
    assert_false(put(a, b, &other_sk, "tp:1", "[]")); /* chunks too */
    assert_false(put(a, b, &other_sk, "chat", "x"));  /* opaque */
    assert_true(put(a, b, &listed_sk, "chat", "x"));
    assert_true(put(a, b, &other_sk, "svc", "[1]")); /* a namespace without a list is open */
    struct kad_stat st;
    kad_stat(a->kad, &st);
    assert_int_equal(st.refused_writer, 3);

    const struct kad_writer all[] = {{NS__COUNT, any}, {NS_SVC, listed}};
    const struct kad_cfg strict = {.writers = all, .n_writers = 2};
    struct net_node *c = net_add(&n, &strict);
    net_run(&n, 3000);
    assert_true(put(c, b, &any_sk, "svc", "[1]")); /* * stands for every namespace */
    assert_true(put(c, b, &any_sk, "fullnode", "{}"));
    assert_true(put(c, b, &listed_sk, "svc", "[1]"));
    assert_false(put(c, b, &listed_sk, "tp", "[]"));
    assert_false(put(c, b, &other_sk, "svc", "[1]"));
}

/* A node's own items are its own matter, and an answer from outside is not believed either. */
static void test_writers_and_answers(void **state)
{
    struct seckey listed_sk;
    struct pubkey listed;

    (void)state;
    key(1, &listed_sk, &listed);
    const struct kad_writer w = {NS__COUNT, listed};
    const struct kad_cfg cfg = {.writers = &w, .n_writers = 1};
    struct net_node *open = net_add(&n, NULL), *a = net_add(&n, &cfg), *b = net_add(&n, NULL);

    net_run(&n, 3000);
    struct kad_report r = net_put(a, "note", "mine");
    assert_int_equal(r.err, 0);
    assert_int_equal(r.stored, 2);
    net_report_clear(&r);
    net_assert_value(net_get(a, &a->pk, "note", 0), "mine");
    r = net_put(b, "note", "other's");
    assert_int_equal(r.stored, 1); /* the open node alone */
    net_report_clear(&r);
    net_assert_value(net_get(open, &b->pk, "note", KAD_GET_NETWORK), "other's");
    r = net_get(a, &b->pk, "note", KAD_GET_NETWORK);
    assert_int_equal(r.err, ERR_NOT_FOUND);
    assert_true(r.rejected_items > 0);
    net_report_clear(&r);
}

/* What is in the store since before the list is not given away any more. */
static void test_writers_list_is_new(void **state)
{
    struct seckey listed_sk;
    struct pubkey listed;

    (void)state;
    key(1, &listed_sk, &listed);
    struct net_node *a = net_add(&n, NULL), *b = net_add(&n, NULL);
    net_run(&n, 3000);
    struct kad_report r = net_put(b, "note", "x");
    assert_int_equal(r.stored, 1);
    net_report_clear(&r);
    assert_int_equal(net_holders(&n, &b->pk, "note", 0), 2);
    const struct kad_writer w = {NS__COUNT, listed};
    a->cfg.writers = &w;
    a->cfg.n_writers = 1;
    net_restart(a, false);
    net_run(&n, 3000);
    struct kad_msg req, rsp;
    kad_msg_init(&req, KAD_GET_VALUE, false);
    req.target = kad_target(&b->pk, "note", 4);
    assert_true(net_ask(a, b, &req, &rsp));
    assert_int_equal(rsp.n_items, 0);
    kad_msg_clear(&rsp);
    a->cfg.n_writers = 0;
}

static bool gives_value(struct net_node *to, struct net_node *from, const struct kad_id *target)
{
    struct kad_msg req, rsp;

    kad_msg_init(&req, KAD_GET_VALUE, false);
    req.target = *target;
    assert_true(net_ask(to, from, &req, &rsp));
    bool given = rsp.n_items > 0 && rsp.items[0].item != NULL;
    assert_true(rsp.n_closest > 0); /* routing goes on for everybody */
    kad_msg_clear(&rsp);
    return given;
}

static bool gives_list(struct net_node *to, struct net_node *from)
{
    struct kad_msg req, rsp;

    kad_msg_init(&req, KAD_GET_ITEMS, false);
    if (!net_ask(to, from, &req, &rsp))
        return false;
    bool given = rsp.n_items > 0;
    kad_msg_clear(&rsp);
    return given;
}

static void test_readers(void **state)
{
    struct seckey reader_sk, trusted_sk;
    struct pubkey reader, trusted;

    (void)state;
    key(1, &reader_sk, &reader);
    key(2, &trusted_sk, &trusted);
    const struct kad_cfg cfg = {
        .readers = &reader, .n_readers = 1, .trusted = &trusted, .n_trusted = 1};
    struct net_node *a = net_add(&n, &cfg), *r = net_add_key(&n, NULL, &reader_sk),
                    *t = net_add_key(&n, NULL, &trusted_sk), *x = net_add(&n, NULL);

    net_run(&n, 3000);
    struct kad_report rep = net_put(x, "note", "x");
    assert_true(rep.stored > 0); /* writing is not reading */
    net_report_clear(&rep);
    struct kad_id slot = kad_target(&x->pk, "note", 4);
    assert_true(gives_value(a, r, &slot));
    assert_true(gives_value(a, t, &slot));
    assert_false(gives_value(a, x, &slot));
    assert_true(gives_list(a, r));
    assert_true(gives_list(a, t));
    assert_false(gives_list(a, x));
    struct kad_stat st;
    kad_stat(a->kad, &st);
    assert_true(st.refused_reader >= 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_writers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_writers_and_answers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_writers_list_is_new, setup, teardown),
        cmocka_unit_test_setup_teardown(test_readers, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
