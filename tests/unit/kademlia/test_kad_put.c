/* Publishing: sequence numbers, repeated puts, lifetimes of what was published. */
#include "base/err.h"
#include "tests/unit/kademlia/dht_items.h"
#include "tests/unit/kademlia/net.h"

#define HOUR_MS UINT64_C(3600000)
#define DAY_NS  (INT64_C(86400) * (int64_t)NS_PER_S)

static struct net n;

static int setup(void **state)
{
    struct prop r = prop_init("put");

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
    for (size_t i = 0; i < count; i++)
        net_add(&n, NULL);
    net_run(&n, 10000);
}

static uint64_t put_ok(struct net_node *node, const char *v)
{
    struct kad_report r = net_put(node, "dmsg", v);
    uint64_t seq;

    assert_int_equal(r.err, 0);
    assert_non_null(r.item);
    seq = r.item->item.seq;
    net_report_clear(&r);
    return seq;
}

/* Incident 53: the sequence number never goes back, whatever becomes of store and clock. */
static void test_incident_53_seq_after_restart(void **state)
{
    (void)state;
    grow(6);
    struct net_node *a = net_node(&n, 3), *b = net_node(&n, 5);
    uint64_t seq = put_ok(a, "first");
    assert_true(seq > (uint64_t)a->env.wall_ns - 60 * NS_PER_S);

    const int64_t skews[] = {-DAY_NS, 3650 * DAY_NS, 0, 0};
    for (size_t i = 0; i < sizeof skews / sizeof skews[0]; i++) {
        char v[16];
        a->skew_ns = skews[i];
        net_restart(a, i != 2);
        net_run(&n, 5000);
        snprintf(v, sizeof v, "life %zu", i);
        uint64_t next = put_ok(a, v);
        assert_true(next > seq);
        seq = next;
        net_assert_value(net_get(b, &a->pk, "dmsg", KAD_GET_NETWORK), v);
        assert_int_equal(net_holders(&n, &a->pk, "dmsg", seq), n.n);
    }
}

/* Nobody else is up and the clock is behind: what the store remembers is enough. */
static void test_seq_is_persisted(void **state)
{
    (void)state;
    n.no_bootstrap = true;
    struct net_node *a = net_add(&n, NULL);
    uint64_t seq = put_ok(a, "first");
    struct kad_id target = kad_target(&a->pk, "dmsg", 4);
    assert_int_equal(a->store->ops->del(a->store, &target, ITEM_OWNER), 0);
    a->skew_ns = -DAY_NS;
    net_restart(a, false);
    uint64_t next = put_ok(a, "second"); /* numbers are kept up to a minute ahead */
    assert_true(next > seq && next <= seq + 61 * NS_PER_S);
}

static const struct store_ops *real_ops;
static unsigned syncs;

static int counting_sync(struct store *s, unsigned timeout_ms)
{
    syncs++;
    return real_ops->sync(s, timeout_ms);
}

static int failing_sync(struct store *s, unsigned timeout_ms)
{
    (void)s, (void)timeout_ms;
    return ERR_NO_SPACE;
}

/* A number is durable before it leaves the node; the disk is waited for once a minute, not for each. */
static void test_seq_is_durable_first(void **state)
{
    (void)state;
    grow(3);
    struct net_node *a = net_node(&n, 1);
    real_ops = a->store->ops;
    struct store_ops ops = *real_ops;
    ops.sync = counting_sync;
    a->store->ops = &ops;
    syncs = 0;
    uint64_t seq = put_ok(a, "one");
    assert_int_equal(syncs, 1);
    assert_true(put_ok(a, "two") > seq);
    assert_int_equal(syncs, 1);

    net_run(&n, 120000);
    ops.sync = failing_sync;
    struct kad_report r = net_put(a, "dmsg", "three");
    assert_int_equal(r.err, ERR_NO_SPACE);
    net_report_clear(&r);
    net_assert_value(net_get(net_node(&n, 2), &a->pk, "dmsg", KAD_GET_NETWORK), "two");
    ops.sync = counting_sync;
    (void)put_ok(a, "four");
    a->store->ops = real_ops;
}

static void test_seq_at_its_end(void **state)
{
    (void)state;
    grow(3);
    struct net_node *a = net_node(&n, 1);
    struct kad_report r =
        net_wait(a, kad_put(a->kad, "x", 1, "last", 4, true, UINT64_MAX, NULL, n.now_ns));
    assert_int_equal(r.err, 0);
    assert_int_equal(r.stored, 2);
    net_report_clear(&r);
    r = net_put(a, "x", "one more");
    assert_int_equal(r.err, ERR_SEQ);
    net_report_clear(&r);
    net_restart(a, true); /* the network remembers */
    net_run(&n, 3000);
    r = net_put(a, "x", "one more");
    assert_int_equal(r.err, ERR_SEQ);
    net_report_clear(&r);
    net_assert_value(net_get(a, &a->pk, "x", 0), "last");
}

static void test_forced_seq_below_is_refused(void **state)
{
    (void)state;
    grow(3);
    struct net_node *a = net_node(&n, 0);
    struct kad_report r = net_wait(a, kad_put(a->kad, "x", 1, "5", 1, true, 5, NULL, n.now_ns));
    assert_int_equal(r.err, 0);
    assert_int_equal(r.item->item.seq, 5);
    net_report_clear(&r);
    r = net_wait(a, kad_put(a->kad, "x", 1, "4", 1, true, 4, NULL, n.now_ns));
    assert_int_equal(r.err, ERR_SEQ);
    net_report_clear(&r);
    net_assert_value(net_get(net_node(&n, 1), &a->pk, "x", KAD_GET_NETWORK), "5");
}

/* The value of the later call wins, whichever look-up is quicker. */
static void test_two_puts_of_one_slot(void **state)
{
    (void)state;
    grow(8);
    struct net_node *a = net_node(&n, 2);
    uint32_t one = kad_put(a->kad, "x", 1, "older", 5, false, 0, NULL, n.now_ns);
    uint32_t two = kad_put(a->kad, "x", 1, "newer", 5, false, 0, NULL, n.now_ns);
    uint32_t other = kad_put(a->kad, "y", 1, "other", 5, false, 0, NULL, n.now_ns);
    struct kad_report r = net_wait(a, one);
    assert_int_equal(r.err, ERR_CANCELLED);
    net_report_clear(&r);
    r = net_wait(a, two);
    assert_int_equal(r.err, 0);
    net_report_clear(&r);
    r = net_wait(a, other);
    assert_int_equal(r.err, 0);
    net_report_clear(&r);
    net_assert_value(net_get(net_node(&n, 7), &a->pk, "x", KAD_GET_NETWORK), "newer");
}

static int ask_put(struct net_node *to, struct net_node *from, struct item_ref *item,
                   const struct kad_id *target)
{
    struct kad_msg req, rsp;

    kad_msg_init(&req, KAD_PUT_VALUE, false);
    req.sender = from->pk;
    assert_int_equal(kad_msg_add_item(&req, item, target), 0);
    assert_true(net_ask(to, from, &req, &rsp));
    int result = rsp.stored ? 0 : rsp.error;
    assert_true(rsp.stored == (rsp.error == 0));
    kad_msg_clear(&rsp);
    return result;
}

static int64_t expiry(struct net_node *node, const struct item_ref *item)
{
    struct kad_id target = item_target(&item->item);
    struct store_rec r;

    assert_int_equal(node->store->ops->get(node->store, &target, ITEM_OWNER, &r), 0);
    return r.expires_ns;
}

/* Incident 54: on the wire as the peers do it; the owner's repetition renews the lifetime inside,
 * somebody else's does not. */
static void test_incident_54_same_seq_again(void **state)
{
    (void)state;
    grow(3);
    struct net_node *owner = net_node(&n, 0), *store = net_node(&n, 1), *other = net_node(&n, 2);
    struct item_ref *five = dht_item(&owner->sk, 5, "s", "five");
    struct item_ref *five_b = dht_item(&owner->sk, 5, "s", "five, too");
    struct item_ref *four = dht_item(&owner->sk, 4, "s", "four");
    struct item_ref *six = dht_item(&owner->sk, 6, "s", "six");

    assert_int_equal(ask_put(store, owner, five, NULL), 0);
    int64_t at = expiry(store, five);
    net_run(&n, 60000);
    assert_int_equal(ask_put(store, other, five, NULL), ERR_SEQ);
    assert_int_equal(expiry(store, five), at);
    assert_int_equal(ask_put(store, owner, five, NULL), ERR_SEQ);
    assert_true(expiry(store, five) >= at + 60 * (int64_t)NS_PER_S);
    assert_int_equal(ask_put(store, owner, five_b, NULL), ERR_SEQ);
    assert_int_equal(ask_put(store, owner, four, NULL), ERR_SEQ);
    assert_int_equal(ask_put(store, owner, six, NULL), 0);
    item_ref_put(five);
    item_ref_put(five_b);
    item_ref_put(four);
    item_ref_put(six);
}

/* dht.md §8.2 point 6. */
static void test_pushing_an_equal_item_is_no_failure(void **state)
{
    (void)state;
    grow(5);
    struct net_node *a = net_node(&n, 1);
    struct seckey sk;
    struct pubkey pk;
    uint8_t seed[32] = {7};
    assert_int_equal(crypto_keypair(&sk, &pk, seed), 0);
    struct item_ref *item = dht_item(&sk, 77, "tp", "[]");
    for (int i = 0; i < 2; i++) {
        struct kad_report r =
            net_wait(a, kad_put_signed(a->kad, &item->item, NULL, NULL, n.now_ns));
        assert_int_equal(r.err, 0);
        assert_int_equal(r.stored, 4);
        net_report_clear(&r);
    }
    item->item.sig.b[3] ^= 1;
    item->item.seq++;
    struct kad_report r = net_wait(a, kad_put_signed(a->kad, &item->item, NULL, NULL, n.now_ns));
    assert_int_equal(r.err, ERR_SIG);
    net_report_clear(&r);
    item->item.seq -= 2; /* older, and forged: nothing goes out */
    uint64_t asked = net_node(&n, 0)->asked[KAD_PUT_VALUE];
    r = net_wait(a, kad_put_signed(a->kad, &item->item, NULL, NULL, n.now_ns));
    assert_int_equal(r.err, ERR_SIG);
    net_report_clear(&r);
    item_ref_put(item);
    item = dht_item(&sk, 76, "tp", "old");
    r = net_wait(a, kad_put_signed(a->kad, &item->item, NULL, NULL, n.now_ns));
    assert_int_equal(r.err, ERR_SEQ);
    net_report_clear(&r);
    item_ref_put(item);
    assert_int_equal(net_node(&n, 0)->asked[KAD_PUT_VALUE], asked);
}

/* Numbers of more slots than are remembered: the oldest that is not in use is forgotten. */
static void test_many_own_slots(void **state)
{
    (void)state;
    n.no_bootstrap = true;
    n.json = false;
    struct net_node *a = net_add(&n, NULL);
    for (unsigned i = 0; i < 1100; i++) {
        char salt[16];
        snprintf(salt, sizeof salt, "svc:%u", i);
        struct kad_report r = net_put(a, salt, "{}");
        assert_int_equal(r.err, 0);
        net_report_clear(&r);
    }
    net_restart(a, false);
    struct kad_report r = net_put(a, "svc:1099", "{}");
    assert_int_equal(r.err, 0);
    net_report_clear(&r);
}

static void test_sizes(void **state)
{
    static uint8_t big[ITEM_MAX_VALUE + 1];
    char salt[ITEM_MAX_SALT + 1];

    (void)state;
    grow(2);
    struct net_node *a = net_node(&n, 0);
    memset(salt, 's', sizeof salt);
    assert_int_equal(kad_put(a->kad, "x", 1, big, sizeof big, false, 0, NULL, n.now_ns), 0);
    assert_int_equal(kad_put(a->kad, salt, sizeof salt, "v", 1, false, 0, NULL, n.now_ns), 0);
    struct kad_report r = net_wait(
        a, kad_put(a->kad, salt, ITEM_MAX_SALT, big, ITEM_MAX_VALUE, false, 0, NULL, n.now_ns));
    assert_int_equal(r.err, 0);
    assert_int_equal(r.stored, 1);
    net_report_clear(&r);
}

/* A put to a network of which everybody refuses or fails is an error. */
static void test_put_that_nobody_takes(void **state)
{
    (void)state;
    grow(4);
    struct net_node *a = net_node(&n, 0);
    for (size_t i = 1; i < 4; i++)
        net_node(&n, i)->mode = NET_MUTE;
    struct kad_report r = net_put(a, "x", "v");
    assert_true(r.err == ERR_NO_ROUTE || r.err == ERR_TIMEOUT);
    assert_int_equal(r.stored, 0);
    assert_true(r.ended_ns - r.started_ns <= 60 * NS_PER_S);
    net_report_clear(&r);
    net_assert_value(net_get(a, &a->pk, "x", 0), "v"); /* our own copy is there */
}

static void test_cancel(void **state)
{
    (void)state;
    grow(6);
    struct net_node *a = net_node(&n, 4);
    uint32_t ops[] = {
        kad_put(a->kad, "x", 1, "v", 1, false, 0, NULL, n.now_ns),
        kad_get(a->kad, &net_node(&n, 1)->pk, "dmsg", 4, KAD_GET_NETWORK, NULL, n.now_ns),
        kad_find_node(a->kad, &a->id, NULL, n.now_ns),
        kad_ping(a->kad, net_node(&n, 2)->peer, NULL, n.now_ns),
        kad_sync(a->kad, net_node(&n, 3)->peer, NULL, n.now_ns)};
    net_run(&n, 15);
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++) {
        kad_cancel(a->kad, ops[i]);
        struct kad_report r = net_wait(a, ops[i]);
        assert_int_equal(r.err, ERR_CANCELLED);
        net_report_clear(&r);
    }
    kad_cancel(a->kad, 12345);
    struct kad_stat st;
    net_run(&n, 60000);
    kad_stat(a->kad, &st);
    assert_int_equal(st.ops, 0);
    assert_int_equal(st.calls, 0);
}

/* A republish that falls due while its owner's user puts a new value neither cancels that nor brings the
 * old value back under a higher number. */
static void test_republish_gives_way(void **state)
{
    struct kad_cfg cfg = {.limits = {.republish_ms = 5000}};

    (void)state;
    n.min_delay_ms = 300;
    n.max_delay_ms = 600;
    net_add(&n, NULL);
    net_add(&n, NULL);
    struct net_node *a = net_add(&n, &cfg), *reader = net_node(&n, 0);
    net_run(&n, 10000);
    for (unsigned i = 0; i < 30; i++) {
        char text[16];
        snprintf(text, sizeof text, "value %u", i);
        struct kad_report r = net_put(a, "note", text);
        assert_int_equal(r.err, 0);
        net_report_clear(&r);
        net_run(&n, prop_below(&n.rnd, 2000));
        net_assert_value(net_get(reader, &a->pk, "note", KAD_GET_NETWORK), text);
    }
    assert_true(stat_of(a).republished > 5);
}

/* Incident 68: republished in time, an item outlives the churn of its holders; and a publisher that
 * comes back goes on with it. */
static void test_incident_68_republish_survives_churn(void **state)
{
    (void)state;
    n.json = false;
    grow(40);
    struct net_node *a = net_node(&n, 7);
    uint64_t seq = put_ok(a, "stays");
    for (int hour = 0; hour < 4; hour++) {
        for (int i = 0; i < 12; i++) { /* 30 % an hour leave, as many come */
            struct net_node *victim = net_node(&n, 8 + prop_below(&n.rnd, n.n - 8));
            victim->mode = NET_DOWN;
            if (victim->kad != NULL)
                net_stop(victim);
            net_add(&n, NULL);
            net_run(&n, HOUR_MS / 12);
        }
        if (hour == 1)
            net_restart(a, false);
        net_run(&n, 300000);
        struct kad_report r = net_get(net_node(&n, n.n - 1), &a->pk, "dmsg", KAD_GET_NETWORK);
        assert_int_equal(r.err, 0);
        assert_true(r.item->item.seq > seq);
        net_assert_value(r, "stays");
    }
}

/* Rule 7: the owner is gone for good; its item lives out its lifetime although all first holders
 * but one leave. Afterwards it is gone everywhere, and nobody brings it back (incident 63). */
static void test_handed_on_but_not_for_ever(void **state)
{
    (void)state;
    n.json = false;
    grow(30);
    struct net_node *a = net_node(&n, 29);
    uint64_t seq = put_ok(a, "orphan");
    net_stop(a);
    a->mode = NET_DOWN;
    struct kad_id target = kad_target(&a->pk, "dmsg", 4);
    struct store_rec r;
    size_t left = 0;
    for (size_t i = 1; i < 29; i++) {
        struct net_node *h = net_node(&n, i);
        if (h->store->ops->get(h->store, &target, ITEM_OWNER, &r) == 0 && left++ > 0) {
            net_stop(h);
            h->mode = NET_DOWN;
        }
    }
    assert_true(left >= 18);
    for (int i = 0; i < 20; i++)
        net_add(&n, NULL);
    net_run(&n, HOUR_MS * 7 / 4);
    net_assert_value(net_get(net_node(&n, n.n - 1), &a->pk, "dmsg", KAD_GET_NETWORK), "orphan");
    assert_true(net_holders(&n, &a->pk, "dmsg", seq) > 5);
    net_run(&n, HOUR_MS * 3 / 4);
    for (size_t i = 0; i < n.n; i++) {
        if (n.nodes[i]->kad == NULL)
            continue;
        struct kad_report g = net_get(n.nodes[i], &a->pk, "dmsg", 0);
        assert_int_equal(g.err, ERR_NOT_FOUND);
        net_report_clear(&g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_incident_53_seq_after_restart, setup, teardown),
        cmocka_unit_test_setup_teardown(test_seq_is_durable_first, setup, teardown),
        cmocka_unit_test_setup_teardown(test_seq_is_persisted, setup, teardown),
        cmocka_unit_test_setup_teardown(test_seq_is_durable_first, setup, teardown),
        cmocka_unit_test_setup_teardown(test_seq_at_its_end, setup, teardown),
        cmocka_unit_test_setup_teardown(test_forced_seq_below_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_two_puts_of_one_slot, setup, teardown),
        cmocka_unit_test_setup_teardown(test_incident_54_same_seq_again, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pushing_an_equal_item_is_no_failure, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_own_slots, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sizes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_put_that_nobody_takes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cancel, setup, teardown),
        cmocka_unit_test_setup_teardown(test_republish_gives_way, setup, teardown),
        cmocka_unit_test_setup_teardown(test_incident_68_republish_survives_churn, setup, teardown),
        cmocka_unit_test_setup_teardown(test_handed_on_but_not_for_ever, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
