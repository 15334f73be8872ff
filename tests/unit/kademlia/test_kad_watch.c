/* Watches by the thousand: every cap, on both sides, and what polling costs where nobody pushes. */
#include "base/err.h"
#include "kademlia/engine.h"
#include "store/memory.h"
#include "tests/unit/kademlia/lone.h"
#include "tests/unit/kademlia/net.h"

static struct lone l;

static int setup(void **state)
{
    struct store *s;

    (void)state;
    lone_init(&l, 3);
    assert_int_equal(store_memory_new(&s, 0), 0);
    l.cfg.limits.rate_per_s = 100000;
    lone_start(&l, s);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    lone_close(&l);
    return 0;
}

static struct kad_watch_stat watching(struct kad *kad)
{
    struct kad_watch_stat st;

    kad_watch_stat(kad, &st);
    return st;
}

/* ---- what peers watch here ---- */

static struct kad_id target_of(unsigned i)
{
    struct pubkey pk = {{2}};

    return kad_target(&pk, &i, sizeof i);
}

/* Subscribes to the slots first … first + n - 1; returns how many were granted, or -1: stream closed. */
static int subscribe(kad_peer from, unsigned first, size_t n, unsigned lease_s)
{
    struct kad_id targets[KAD_MSG_MAX_TARGETS];
    struct kad_msg req, rsp;
    int granted = 0;

    assert_true(n <= KAD_MSG_MAX_TARGETS);
    for (size_t i = 0; i < n; i++)
        targets[i] = target_of(first + (unsigned)i);
    kad_msg_init(&req, KAD_WATCH, false);
    req.lease_s = lease_s;
    assert_int_equal(kad_msg_set_targets(&req, targets, n), 0);
    if (!lone_ask(&l, from, &req, &rsp))
        return -1;
    assert_int_equal(rsp.n_items, n);
    for (size_t i = 0; i < n; i++) {
        assert_true(rsp.items[i].result == 0 || rsp.items[i].result == ERR_LIMIT);
        granted += rsp.items[i].result == 0;
    }
    kad_msg_clear(&rsp);
    return granted;
}

static unsigned fill(kad_peer from, unsigned n)
{
    unsigned granted = 0;

    for (unsigned i = 0; i < n; i += KAD_MSG_MAX_TARGETS) {
        size_t count = n - i < KAD_MSG_MAX_TARGETS ? n - i : KAD_MSG_MAX_TARGETS;
        int got = subscribe(from, i, count, 600);
        assert_true(got >= 0);
        granted += (unsigned)got;
        lone_pass(&l, NS_PER_MS);
    }
    return granted;
}

static kad_peer peer(unsigned number)
{
    struct pubkey pk = lone_key(number, NULL);

    return peers_add(&l.peers, &pk);
}

static void test_cap_of_a_peer(void **state)
{
    kad_peer one = peer(1), other = peer(2);

    (void)state;
    assert_int_equal(fill(one, KAD_WATCHES_PER_PEER), KAD_WATCHES_PER_PEER);
    assert_int_equal(subscribe(one, 1000000, 3, 600), 0);
    assert_int_equal(watching(l.kad).refused, 3);
    assert_int_equal(watching(l.kad).watched, KAD_WATCHES_PER_PEER);
    assert_int_equal(subscribe(one, 5, 1, 600), 1); /* that it has already */
    assert_int_equal(subscribe(other, 1000000, 3, 600), 3);
    assert_int_equal(subscribe(one, 7, 1, 0), 1); /* ends one: there is room for another */
    assert_int_equal(subscribe(one, 1000000, 3, 600), 1);
    lone_pass(&l, 601 * (int64_t)NS_PER_S); /* nobody renewed */
    assert_int_equal(watching(l.kad).watched, 0);
    assert_int_equal(watching(l.kad).watchers, 0);
}

static void test_cap_of_all(void **state)
{
    const unsigned peers = KAD_MAX_WATCHED / KAD_WATCHES_PER_PEER;

    (void)state;
    for (unsigned i = 0; i < peers; i++)
        assert_int_equal(fill(peer(1 + i), KAD_WATCHES_PER_PEER), KAD_WATCHES_PER_PEER);
    assert_int_equal(watching(l.kad).watched, KAD_MAX_WATCHED);
    assert_int_equal(subscribe(peer(100), 0, 5, 600), 0);
    assert_int_equal(watching(l.kad).refused, 5);
    kad_watcher_gone(l.kad, peer(1), l.now_ns);
    assert_int_equal(watching(l.kad).watched, KAD_MAX_WATCHED - KAD_WATCHES_PER_PEER);
    assert_int_equal(subscribe(peer(100), 0, 5, 600), 5);
}

static void test_cap_of_watchers(void **state)
{
    (void)state;
    for (unsigned i = 0; i < KAD_MAX_WATCHERS; i++)
        assert_int_equal(subscribe(peer(1 + i), i, 1, 600), 1);
    assert_int_equal(watching(l.kad).watchers, KAD_MAX_WATCHERS);
    assert_int_equal(subscribe(peer(1 + KAD_MAX_WATCHERS), 0, 1, 600), -1);
    assert_int_equal(watching(l.kad).watchers, KAD_MAX_WATCHERS);
    kad_watcher_gone(l.kad, peer(1), l.now_ns);
    assert_int_equal(subscribe(peer(1 + KAD_MAX_WATCHERS), 0, 1, 600), 1);
}

/* ---- what this node watches ---- */

static uint32_t watch_number(struct kad *kad, const struct pubkey *pk, unsigned i, uint64_t now_ns)
{
    char salt[16];
    int n = snprintf(salt, sizeof salt, "s%u", i);

    return kad_watch(kad, pk, salt, (size_t)n, NULL, now_ns);
}

static void test_cap_of_own_watches(void **state)
{
    struct pubkey pk = lone_key(1, NULL);
    uint32_t first = watch_number(l.kad, &pk, 0, l.now_ns);

    (void)state;
    assert_true(first != 0);
    for (unsigned i = 1; i < KAD_MAX_WATCHES; i++)
        assert_true(watch_number(l.kad, &pk, i, l.now_ns) != 0);
    assert_int_equal(watch_number(l.kad, &pk, KAD_MAX_WATCHES, l.now_ns), 0);
    assert_int_equal(watching(l.kad).watches, KAD_MAX_WATCHES);
    kad_unwatch(l.kad, first);
    assert_true(watch_number(l.kad, &pk, KAD_MAX_WATCHES, l.now_ns) != 0);
    lone_pass(&l, 60 * (int64_t)NS_PER_S); /* with nobody to ask */
    assert_int_equal(watching(l.kad).watches, KAD_MAX_WATCHES);
}

static struct net n;

static int setup_net(void **state)
{
    (void)state;
    net_init(&n, prop_init("watch").state);
    return 0;
}

static int teardown_net(void **state)
{
    (void)state;
    net_close(&n);
    return 0;
}

static unsigned reports_of(const struct net_node *node, const char *value)
{
    unsigned count = 0;

    for (size_t i = 0; i < node->n_reports; i++) {
        const struct item_ref *item = node->reports[i].item;
        count += node->reports[i].type == KAD_OP_WATCH && item != NULL &&
                 item->item.v_len == strlen(value) &&
                 memcmp(item->item.v, value, item->item.v_len) == 0;
    }
    return count;
}

/* A thousand watches where every peer speaks JSON: each is asked about once in a minute, and hears of a change. */
static void test_polled_by_the_thousand(void **state)
{
    enum { WATCHES = 1000, CHANGED = 617 };
    struct net_node *publisher = net_add(&n, NULL), *watcher = net_add(&n, NULL);

    (void)state;
    net_add(&n, NULL);
    net_run(&n, 20000);
    for (unsigned i = 0; i < WATCHES; i++)
        assert_true(watch_number(watcher->kad, &publisher->pk, i, n.now_ns) != 0);
    net_run(&n, 60000); /* all of them have been looked up */
    assert_in_range(watching(watcher->kad).polls, WATCHES, WATCHES * 11 / 10);
    for (int minute = 0; minute < 3; minute++) {
        uint64_t before = watching(watcher->kad).polls;
        net_run(&n, 60000);
        uint64_t polls = watching(watcher->kad).polls - before;
        assert_in_range(polls, WATCHES * 9 / 10, WATCHES * 11 / 10);
    }
    char salt[16];
    snprintf(salt, sizeof salt, "s%d", CHANGED);
    struct kad_report r = net_put(publisher, salt, "new");
    assert_int_equal(r.err, 0);
    net_report_clear(&r);
    net_run(&n, 120000);
    assert_int_equal(reports_of(watcher, "new"), 1);
}

#define LONE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LONE(test_cap_of_a_peer),
        LONE(test_cap_of_all),
        LONE(test_cap_of_watchers),
        LONE(test_cap_of_own_watches),
        cmocka_unit_test_setup_teardown(test_polled_by_the_thousand, setup_net, teardown_net),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
