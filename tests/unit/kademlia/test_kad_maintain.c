/* Joining, refreshing, negative cache, full buckets, adverts: what goes on without being asked. */
#include "base/err.h"
#include "kademlia/engine.h"
#include "tests/unit/kademlia/dht_items.h"
#include "tests/unit/kademlia/net.h"

#define MINUTE_MS UINT64_C(60000)

static struct net n;

static int setup(void **state)
{
    struct prop r = prop_init("maintain");

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

/* Incident 58: nodes that start before their bootstrap find each other soon after it appears. */
static void test_incident_58_bootstrap_appears_late(void **state)
{
    (void)state;
    for (int order = 0; order < 3; order++) {
        size_t first = n.n;
        struct net_node *boot = net_add(&n, NULL); /* each round is a network of its own */
        net_set_boot(&n, &boot->pk, 1);
        boot->mode = NET_DOWN;
        net_stop(boot);
        for (int i = 0; i < 5; i++) {
            net_add(&n, NULL);
            net_run(&n, prop_below(&n.rnd, 30000));
        }
        net_run(&n, 10 * MINUTE_MS);
        for (size_t i = first + 1; i < n.n; i++) {
            assert_true(stat_of(net_node(&n, i)).alone);
            assert_int_equal(stat_of(net_node(&n, i)).neg_cached, 0);
        }
        boot->mode = NET_HONEST;
        net_start(boot);
        net_run(&n, MINUTE_MS);
        for (size_t i = first; i < n.n; i++) {
            assert_int_equal(net_contacts(net_node(&n, i)), 5);
            assert_false(stat_of(net_node(&n, i)).alone);
        }
        for (size_t i = first; i < n.n; i++)
            net_node(&n, i)->mode = NET_DOWN;
        net_set_boot(&n, NULL, 0);
    }
}

/* The same when the bootstrap is reached but has no DHT yet: that is not remembered for it. */
static void test_incident_58_bootstrap_without_dht(void **state)
{
    (void)state;
    struct net_node *boot = net_add(&n, NULL);
    boot->mode = NET_NO_DHT;
    for (int i = 0; i < 5; i++)
        net_add(&n, NULL);
    net_run(&n, 10 * MINUTE_MS);
    boot->mode = NET_HONEST;
    net_run(&n, MINUTE_MS);
    for (size_t i = 0; i < n.n; i++)
        assert_int_equal(net_contacts(net_node(&n, i)), 5);
}

/* A peer that names one other peer in every answer. */
static bool name_peer(struct net_node *node, struct net_node *from, struct kad_msg *req,
                      struct kad_msg *rsp, int *fail)
{
    (void)from;
    (void)fail;
    if (req->method != KAD_GET_VALUE && req->method != KAD_FIND_NODE)
        return false;
    assert_int_equal(kad_msg_set_closest(rsp, node->arg, 1), 0);
    return true;
}

/* A look-up of a; how many requests it sent to x. */
static uint64_t look_up(struct net_node *a, struct net_node *x)
{
    uint64_t before = x->asked[KAD_GET_VALUE];
    struct kad_report r = net_get(a, &x->pk, "dmsg", KAD_GET_NETWORK);

    net_report_clear(&r);
    return x->asked[KAD_GET_VALUE] - before;
}

/* dht.md §8.2 point 10. */
static void test_negative_cache(void **state)
{
    struct net_node *boot = net_add(&n, NULL), *a = net_add(&n, NULL), *x = net_add(&n, NULL);

    (void)state;
    net_run(&n, 10000);
    assert_int_equal(net_contacts(a), 2);
    boot->mode = NET_CUSTOM;
    boot->answer = name_peer;
    boot->arg = &x->pk;
    x->mode = NET_NO_DHT;
    assert_int_equal(look_up(a, x), 1);
    assert_int_equal(stat_of(a).neg_cached, 1);
    assert_int_equal(net_contacts(a), 1);
    assert_int_equal(look_up(a, x), 0);
    /* It expires … */
    net_stop(x);
    net_run(&n, 11 * MINUTE_MS);
    net_start(x);
    assert_int_equal(look_up(a, x), 1);
    assert_int_equal(look_up(a, x), 0);
    /* … and a call of the peer clears it at once. */
    x->mode = NET_HONEST;
    struct kad_report r = net_wait(x, kad_ping(x->kad, a->peer, NULL, n.now_ns));
    assert_int_equal(r.err, 0);
    net_report_clear(&r);
    assert_int_equal(look_up(a, x), 1);
    /* Time-outs, unreachability and closed streams are not remembered. */
    const enum net_mode modes[] = {NET_MUTE, NET_CLOSES, NET_HONEST};
    uint64_t cached = stat_of(a).neg_cached;
    for (size_t i = 0; i < 3; i++) {
        x->mode = modes[i];
        assert_true(look_up(a, x) >= 1); /* a closed stream is tried again */
        net_run(&n, 15000);
    }
    assert_int_equal(stat_of(a).neg_cached, cached);
}

/* dht.md §8.2 point 3, through the engine: a dead head gives way, a living one does not. */
static void test_full_bucket(void **state)
{
    (void)state;
    n.no_bootstrap = true;
    n.json = false;
    struct net_node *a = net_add(&n, NULL), *far[24];
    for (size_t i = 0; i < 24;) {
        struct net_node *x = net_add(&n, NULL);
        if (kad_id_cpl(&x->id, &a->id) == 0)
            far[i++] = x;
    }
    struct kad_report r;
    for (size_t i = 0; i < 20; i++) {
        r = net_wait(far[i], kad_ping(far[i]->kad, a->peer, NULL, n.now_ns));
        net_report_clear(&r);
    }
    assert_int_equal(net_contacts(a), 20);
    net_run(&n, MINUTE_MS);
    uint64_t pings = 0, pinged = 0;
    for (size_t i = 0; i < 20; i++)
        pings += far[i]->asked[KAD_PING];
    r = net_wait(far[20], kad_ping(far[20]->kad, a->peer, NULL, n.now_ns));
    net_report_clear(&r);
    net_run(&n, 1000);
    for (size_t i = 0; i < 20; i++)
        pinged += far[i]->asked[KAD_PING];
    assert_true(pinged > pings); /* the head was asked and lives */
    assert_int_equal(net_contacts(a), 20);
    assert_int_equal(stat_of(a).evictions, 0);

    for (size_t i = 0; i < 20; i++)
        far[i]->mode = NET_DOWN;
    net_run(&n, MINUTE_MS);
    for (size_t i = 21; i < 24; i++) {
        r = net_wait(far[i], kad_ping(far[i]->kad, a->peer, NULL, n.now_ns));
        net_report_clear(&r);
        net_run(&n, MINUTE_MS);
    }
    assert_true(stat_of(a).evictions >= 1);
    assert_int_equal(net_contacts(a), 20);
}

/* Incident 68: bootstrap nodes are not everybody's favourite. */
static void test_incident_68_bootstrap_on_need_only(void **state)
{
    (void)state;
    n.json = false;
    for (size_t i = 0; i < 40; i++)
        net_add(&n, NULL);
    net_run(&n, 10 * MINUTE_MS);
    struct net_node *boot = net_node(&n, 0);
    uint64_t before = 0, boot_before = 0, all = 0, at_boot = 0;
    for (size_t i = 0; i < n.n; i++)
        before += net_node(&n, i)->asked[KAD_PING] + net_node(&n, i)->asked[KAD_FIND_NODE];
    boot_before = boot->asked[KAD_PING] + boot->asked[KAD_FIND_NODE];
    net_run(&n, 60 * MINUTE_MS);
    for (size_t i = 0; i < n.n; i++)
        all += net_node(&n, i)->asked[KAD_PING] + net_node(&n, i)->asked[KAD_FIND_NODE];
    at_boot = boot->asked[KAD_PING] + boot->asked[KAD_FIND_NODE] - boot_before;
    all -= before;
    assert_true(at_boot * 10 < all); /* 2.5 % would be its share */
}

/* Buckets without traffic are looked up; so is our own ID. Nobody else's activity is needed. */
static void test_refresh_keeps_the_table(void **state)
{
    (void)state;
    n.json = false;
    for (size_t i = 0; i < 30; i++)
        net_add(&n, NULL);
    net_run(&n, 20 * MINUTE_MS);
    for (size_t i = 0; i < n.n; i++)
        assert_true(net_contacts(net_node(&n, i)) >= 20);
    /* Half of the network leaves; the rest forgets it without being told. */
    for (size_t i = 15; i < 30; i++)
        net_node(&n, i)->mode = NET_DOWN;
    net_run(&n, 120 * MINUTE_MS);
    for (size_t i = 0; i < 15; i++)
        assert_int_equal(stat_of(net_node(&n, i)).routing_peers, 14);
}

/* Incident 66: with half of the peers mute for a day, buckets are looked up on schedule in every single hour, no
 * hour costs more than the first, and nothing is left waiting. */
static void test_incident_66_half_mute_for_a_day(void **state)
{
    uint64_t looked_up[20] = {0};

    (void)state;
    n.json = false;
    for (size_t i = 0; i < 40; i++)
        net_add(&n, NULL);
    net_run(&n, 20 * MINUTE_MS);
    for (size_t i = 20; i < 40; i++)
        net_node(&n, i)->mode = NET_MUTE;
    for (unsigned hour = 0; hour < 24; hour++) {
        uint64_t before = n.messages;
        for (size_t i = 0; i < 20; i++)
            looked_up[i] = stat_of(net_node(&n, i)).lookups;
        net_run(&n, 60 * MINUTE_MS);
        for (size_t i = 0; i < 20; i++) {
            uint64_t more = stat_of(net_node(&n, i)).lookups - looked_up[i];
            assert_in_range(more, 3, 40);
        }
        assert_true(n.messages - before < 20 * 3600);
    }
    for (size_t i = 0; i < 20; i++) {
        struct kad_stat st = stat_of(net_node(&n, i));
        assert_true(st.routing_peers >= 19);
        assert_in_range(st.calls, 0, 20);
        assert_int_equal(st.calls_waiting, 0);
    }
}

/* An idle node of a quiet network is quiet. */
static void test_idle_traffic_is_bounded(void **state)
{
    (void)state;
    n.json = false;
    for (size_t i = 0; i < 20; i++)
        net_add(&n, NULL);
    net_run(&n, 10 * MINUTE_MS);
    uint64_t before = n.messages;
    net_run(&n, 60 * MINUTE_MS);
    uint64_t per_node_and_hour = (n.messages - before) / 20;
    print_message("messages a node and hour: %llu\n", (unsigned long long)per_node_and_hour);
    assert_true(per_node_and_hour < 3600);
}

static void test_routing_table_is_saved_and_loaded(void **state)
{
    static uint8_t saved[65536];
    size_t len = 0;

    (void)state;
    n.json = false;
    for (size_t i = 0; i < 30; i++)
        net_add(&n, NULL);
    net_run(&n, 20000);
    struct net_node *a = net_node(&n, 12);
    assert_true(net_contacts(a) >= 20);
    assert_int_equal(kad_save_routing(a->kad, saved, sizeof saved, &len), 0);
    net_node(&n, 0)->mode = NET_DOWN; /* the only bootstrap */
    net_restart(a, true);
    net_run(&n, 5000);
    assert_int_equal(net_contacts(a), 0);
    assert_int_equal(kad_load_routing(a->kad, saved, len, n.now_ns), 0);
    assert_int_equal(net_contacts(a), 0); /* nobody enters unheard */
    a->dirty = true;
    net_run(&n, 30000);
    assert_true(net_contacts(a) >= 20);
    assert_true(kad_load_routing(a->kad, saved, 2, n.now_ns) < 0);
}

/* ---- adverts, dht.md §8.2 point 14 ---- */

static void put_raw(struct net_node *to, struct net_node *from, struct item_ref *item)
{
    struct kad_msg req, rsp;

    kad_msg_init(&req, KAD_PUT_VALUE, false);
    assert_int_equal(kad_msg_add_item(&req, item, NULL), 0);
    assert_true(net_ask(to, from, &req, &rsp));
    assert_true(rsp.stored);
    kad_msg_clear(&rsp);
}

static void put_advert(struct net_node *to, struct net_node *from, const struct pubkey *named,
                       int64_t ts, bool full)
{
    char text[256], hex[PUBKEY_HEX + 1];

    snprintf(text, sizeof text, "{\"pk\":\"%s\",\"stored_items\":3,\"full_node\":%s,\"ts\":%lld}",
             pubkey_hex(hex, named), full ? "true" : "false", (long long)ts);
    struct item_ref *item = dht_item(&from->sk, 1, "fullnode", text);
    put_raw(to, from, item);
    item_ref_put(item);
}

/* Who is pulled from: fresh, true, its own, not ourselves, once although bootstrap too. */
static void test_adverts(void **state)
{
    struct kad_cfg cfg = {.full = true};
    struct net_node *boot = net_add(&n, NULL), *a, *x[6];
    const int64_t half_hour = INT64_C(1800) * (int64_t)NS_PER_S;

    (void)state;
    for (size_t i = 0; i < 6; i++)
        x[i] = net_add(&n, NULL);
    net_run(&n, 1000);
    int64_t now = boot->env.wall_ns;
    put_advert(boot, x[0], &x[0]->pk, now, true);
    put_advert(boot, x[1], &x[1]->pk, now - half_hour - 1, true); /* stale */
    put_advert(boot, x[2], &x[3]->pk, now, true);                 /* pk is not the signer */
    put_advert(boot, x[4], &x[4]->pk, now, false);                /* not full */
    put_advert(boot, boot, &boot->pk, now, true);                 /* a bootstrap key */
    struct item_ref *junk = dht_item(&x[5]->sk, 1, "fullnode", "{\"pk\":[1,2],\"ts\":{}}");
    put_raw(boot, x[5], junk);
    item_ref_put(junk);
    a = net_add(&n, &cfg);
    net_run(&n, 30000);
    assert_int_equal(x[0]->asked[KAD_GET_ITEMS], 1);
    assert_int_equal(boot->asked[KAD_GET_ITEMS], 1);
    for (size_t i = 1; i < 6; i++)
        assert_int_equal(x[i]->asked[KAD_GET_ITEMS], 0);
    assert_int_equal(a->asked[KAD_GET_ITEMS], 0);
    assert_true(stat_of(a).synced);
}

/* A full node publishes its advert with clock numbers, above those of its earlier life, every five
 * minutes; a node that is no longer full takes it back. */
static void test_own_advert(void **state)
{
    struct kad_cfg cfg = {.full = true};
    struct net_node *boot = net_add(&n, NULL), *a = net_add(&n, &cfg);

    (void)state;
    net_run(&n, 20000);
    struct kad_report r = net_get(boot, &a->pk, "fullnode", KAD_GET_NETWORK);
    assert_int_equal(r.err, 0);
    uint64_t seq = r.item->item.seq;
    assert_true(seq > (uint64_t)a->env.wall_ns - 60 * NS_PER_S);
    net_report_clear(&r);
    net_restart(a, true);
    net_run(&n, 20000);
    r = net_get(boot, &a->pk, "fullnode", KAD_GET_NETWORK);
    assert_true(r.item->item.seq > seq);
    seq = r.item->item.seq;
    net_report_clear(&r);
    net_run(&n, 6 * MINUTE_MS);
    r = net_get(boot, &a->pk, "fullnode", KAD_GET_NETWORK);
    assert_true(r.item->item.seq > seq);
    seq = r.item->item.seq;
    net_report_clear(&r);
    kad_set_full(a->kad, false);
    net_run(&n, 40 * MINUTE_MS);
    assert_int_equal(net_holders(&n, &a->pk, "fullnode", 0), 1); /* what others still have */
    assert_int_equal(net_holders(&n, &a->pk, "fullnode", seq), 1);
    kad_set_full(a->kad, true);
    net_run(&n, 20000);
    assert_int_equal(net_holders(&n, &a->pk, "fullnode", 0), 2);
}

/* Creating and freeing an engine at every point of its life leaves nothing behind. */
static void test_freed_at_any_time(void **state)
{
    struct kad_cfg cfg = {.full = true};

    (void)state;
    n.deferred = true;
    for (size_t i = 0; i < 8; i++)
        net_add(&n, i % 2 == 0 ? &cfg : NULL);
    for (int i = 0; i < 100; i++) {
        struct net_node *a = net_node(&n, 1 + prop_below(&n.rnd, 7));
        char v[16];
        snprintf(v, sizeof v, "%d", i);
        (void)kad_put(a->kad, "x", 1, v, strlen(v), false, 0, NULL, n.now_ns);
        (void)kad_get(a->kad, &net_node(&n, 3)->pk, "x", 1, KAD_GET_NETWORK, NULL, n.now_ns);
        a->dirty = true;
        net_run(&n, prop_below(&n.rnd, 120));
        net_restart(a, prop_chance(&n.rnd, 30));
        net_run(&n, prop_below(&n.rnd, 300));
    }
}

/* Nodes that join get what they should hold from then on: the items outlive all who held them before,
 * though nobody published them anew. */
static void test_handover_to_closer_nodes(void **state)
{
    enum { OLD = 10, NEW = 12, ITEMS = 20 };
    const struct kad_cfg cfg = {.limits = {.k = 4}};
    char salt[16];
    int found = 0;

    (void)state;
    for (int i = 0; i < OLD; i++)
        net_add(&n, &cfg);
    net_run(&n, 20000);
    struct net_node *publisher = net_node(&n, 1);
    for (int i = 0; i < ITEMS; i++) {
        snprintf(salt, sizeof salt, "s%d", i);
        struct kad_report r = net_put(publisher, salt, "value");
        assert_int_equal(r.err, 0);
        net_report_clear(&r);
    }
    net_run(&n, 90000);
    for (int i = 0; i < NEW; i++) {
        net_add(&n, &cfg);
        net_run(&n, 20000);
    }
    net_run(&n, 30000);
    uint64_t given = 0;
    for (int i = 0; i < OLD; i++) {
        struct kad_stat st;
        kad_stat(net_node(&n, (size_t)i)->kad, &st);
        given += st.handed_over;
    }
    assert_true(given > 0);
    for (int i = 1; i < OLD; i++)
        net_stop(net_node(&n, (size_t)i));
    net_run(&n, 1200000); /* tables heal */
    net_stop(net_node(&n, 0));
    for (int i = 0; i < ITEMS; i++) {
        snprintf(salt, sizeof salt, "s%d", i);
        struct kad_report r =
            net_get(net_node(&n, (size_t)(OLD + i % NEW)), &publisher->pk, salt, KAD_GET_NETWORK);
        found += r.err == 0;
        net_report_clear(&r);
    }
    print_message("%d of %d found\n", found, ITEMS);
    assert_true(found >= ITEMS / 2); /* with buckets of four some newcomers wait for a place */
}

static bool knows(struct net_node *node, struct net_node *who)
{
    struct pubkey pks[64];
    size_t m = kad_closest(node->kad, &who->id, pks, 64);

    for (size_t i = 0; i < m; i++) {
        if (pubkey_equal(&pks[i], &who->pk))
            return true;
    }
    return false;
}

static void leave(struct net_node *node)
{
    struct kad_report r = net_wait(node, kad_leave_network(node->kad, NULL, n.now_ns));

    assert_int_equal(r.err, 0);
    assert_true(r.ended_ns - r.started_ns <= 2 * NS_PER_S);
    net_report_clear(&r);
    node->mode = NET_DOWN;
    net_stop(node);
}

/* Nodes that leave in order give what they hold to those who are closest then: all who held an item at
 * first leave, its publisher too, within a minute, and it is still held as often. Nobody keeps them as
 * contacts. */
static void test_graceful_leave(void **state)
{
    (void)state;
    n.json = false;
    n.native = true;
    for (size_t i = 0; i < 60; i++)
        net_add(&n, NULL);
    net_run(&n, 5 * MINUTE_MS);
    struct net_node *owner = net_node(&n, 7), *holders[NET_MAX];
    struct kad_report r = net_put(owner, "dmsg", "here");
    assert_int_equal(r.err, 0);
    net_report_clear(&r);
    size_t count = 0, first = net_holders(&n, &owner->pk, "dmsg", 0);
    struct kad_id slot = kad_target(&owner->pk, "dmsg", 4);
    struct store_rec rec;
    for (size_t i = 1; i < n.n; i++) {
        struct net_node *node = net_node(&n, i);
        if (node->store->ops->get(node->store, &slot, ITEM_OWNER, &rec) == 0)
            holders[count++] = node;
    }
    assert_true(count >= 20);
    for (size_t i = 0; i < count; i++) {
        struct pubkey known[64];
        size_t told = kad_closest(holders[i]->kad, &holders[i]->id, known, 64);
        leave(holders[i]);
        net_run(&n, 2000);
        for (size_t j = 0; j < n.n * told; j++) {
            struct net_node *node = net_node(&n, j / told);
            assert_true(node->kad == NULL || !pubkey_equal(&node->pk, &known[j % told]) ||
                        !knows(node, holders[i]));
        }
    }
    size_t left = net_holders(&n, &owner->pk, "dmsg", 0);
    print_message("%zu held it, %zu left, %zu hold it\n", first, count, left);
    assert_true(left >=
                12); /* tables are not the same everywhere; without heirs none would be left */
    net_assert_value(net_get(net_node(&n, 0), &owner->pk, "dmsg", KAD_GET_NETWORK), "here");
}

/* Alone, and in a network where everybody has everything, there is nobody to wait for. */
static void test_leave_without_heirs(void **state)
{
    (void)state;
    struct net_node *a = net_add(&n, NULL);
    net_run(&n, 1000);
    leave(a);
    struct kad_cfg tool = {.client_only = true};
    struct net_node *b = net_add(&n, &tool);
    assert_int_equal(kad_leave_network(b->kad, NULL, n.now_ns), 0);
}

/* Memory of an idle node beside its configuration. */
static void test_small_when_idle(void **state)
{
    (void)state;
    assert_true(sizeof(struct kad) < 2560);
}

static uint64_t finds_within(uint64_t minutes)
{
    uint64_t count = 0;

    for (size_t i = 0; i < n.n; i++)
        count -= net_node(&n, i)->asked[KAD_FIND_NODE];
    net_run(&n, minutes * MINUTE_MS);
    for (size_t i = 0; i < n.n; i++)
        count += net_node(&n, i)->asked[KAD_FIND_NODE];
    return count;
}

/* Ranges are looked at less often while nobody fails, and as often as before when somebody does. */
static void test_quiet_network_refreshes_less(void **state)
{
    (void)state;
    n.json = false;
    for (int i = 0; i < 30; i++) /* more than k: smaller ones walk to their own IDs all the time */
        net_add(&n, NULL);
    net_run(&n, 5 * MINUTE_MS);
    uint64_t first = finds_within(60);
    net_run(&n, 120 * MINUTE_MS);
    uint64_t later = finds_within(120) / 2;
    print_message("requests an hour: %u, then %u\n", (unsigned)first, (unsigned)later);
    assert_true(later > 0 && later * 2 < first);
    struct net_node *node = net_node(&n, 5);
    assert_true(n.now_ns - node->kad->m.disturbed_ns > 120 * 60 * NS_PER_S);
    for (size_t i = 10; i < 20; i++)
        net_node(&n, i)->mode = NET_DOWN;
    uint64_t before = stat_of(node).calls_sent[KAD_FIND_NODE]; /* the first one may come at once */
    struct kad_report r = net_get(node, &net_node(&n, 7)->pk, "none", KAD_GET_NETWORK);
    net_report_clear(&r);
    net_run(&n, 20 * MINUTE_MS); /* a quarter of an hour, give or take some */
    assert_true(n.now_ns - node->kad->m.disturbed_ns < 21 * 60 * NS_PER_S);
    assert_true(stat_of(node).calls_sent[KAD_FIND_NODE] > before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_handover_to_closer_nodes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_graceful_leave, setup, teardown),
        cmocka_unit_test_setup_teardown(test_leave_without_heirs, setup, teardown),
        cmocka_unit_test_setup_teardown(test_incident_58_bootstrap_appears_late, setup, teardown),
        cmocka_unit_test_setup_teardown(test_incident_58_bootstrap_without_dht, setup, teardown),
        cmocka_unit_test_setup_teardown(test_negative_cache, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full_bucket, setup, teardown),
        cmocka_unit_test_setup_teardown(test_incident_68_bootstrap_on_need_only, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refresh_keeps_the_table, setup, teardown),
        cmocka_unit_test_setup_teardown(test_incident_66_half_mute_for_a_day, setup, teardown),
        cmocka_unit_test_setup_teardown(test_idle_traffic_is_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_routing_table_is_saved_and_loaded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_adverts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_own_advert, setup, teardown),
        cmocka_unit_test_setup_teardown(test_freed_at_any_time, setup, teardown),
        cmocka_unit_test_setup_teardown(test_small_when_idle, setup, teardown),
        cmocka_unit_test_setup_teardown(test_quiet_network_refreshes_less, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
