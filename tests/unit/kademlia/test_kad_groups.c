/* Peers behind the same relays: their quota, whom look-ups ask, relays that are down. */
#include "base/err.h"
#include "tests/unit/kademlia/dht_items.h"
#include "tests/unit/kademlia/net.h"

#define MINUTE_MS UINT64_C(60000)
#define KEYS      24

static struct net n;
static struct prop rnd;
static struct seckey sks[KEYS];
static struct pubkey pks[KEYS];

static int setup(void **state)
{
    (void)state;
    rnd = prop_init("groups");
    net_init(&n, prop_u64(&rnd));
    n.json = false;
    for (size_t i = 0; i < KEYS; i++) {
        uint8_t seed[32];
        do
            prop_bytes(&rnd, seed, sizeof seed);
        while (crypto_keypair(&sks[i], &pks[i], seed) != 0);
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    net_close(&n);
    return 0;
}

static void set_group(const struct net_node *node, uint32_t group)
{
    peers_set_group(&n.peers, node->peer, group);
}

static void set_key_group(size_t key, uint32_t group)
{
    peers_set_group(&n.peers, peers_add(&n.peers, &pks[key]), group);
}

static struct kad_group_info group_of(const struct net_node *node, uint32_t group)
{
    struct kad_group_info v[KAD_MAX_GROUPS];
    size_t found = kad_groups(node->kad, v, KAD_MAX_GROUPS);

    for (size_t i = 0; i < found; i++) {
        if (v[i].group == group)
            return v[i];
    }
    return (struct kad_group_info){.group = group};
}

/* ---- the quota ---- */

/* An item of that key and slot, brought by another peer: 0 or the refusal. */
static int put(struct net_node *store, struct net_node *from, size_t key, unsigned slot,
               uint64_t seq)
{
    char salt[16];
    struct kad_msg req, rsp;

    snprintf(salt, sizeof salt, "s%u", slot);
    struct item_ref *item = dht_item(&sks[key], seq, salt, "some value");
    kad_msg_init(&req, KAD_PUT_VALUE, false);
    assert_int_equal(kad_msg_add_item(&req, item, NULL), 0);
    item_ref_put(item);
    assert_true(net_ask(store, from, &req, &rsp));
    int rc = rsp.stored ? 0 : rsp.error;
    kad_msg_clear(&rsp);
    return rc;
}

/* Alone, publishers behind one relay may have the whole store; beside others, a half of it: then they are
 * refused new slots with a reason of its own, and may renew what they have. */
static void test_group_quota(void **state)
{
    struct kad_cfg cfg = {.limits = {.max_items = 40, .rate_per_s = 100000}};
    struct net_node *store = net_add(&n, &cfg), *from = net_add(&n, NULL);

    (void)state;
    for (size_t key = 0; key < KEYS; key++)
        set_key_group(key, key == 0 ? 2 : 1);
    for (size_t key = 1; key < KEYS; key++)
        assert_int_equal(put(store, from, key, 0, 1), 0); /* 23 of 40, and nobody else is here */
    assert_int_equal(group_of(store, 1).slots, KEYS - 1);
    assert_int_equal(put(store, from, 0, 0, 1), 0);
    assert_int_equal(group_of(store, 2).slots, 1);
    assert_int_equal(put(store, from, 1, 1, 1), ERR_QUOTA_GROUP);
    assert_int_equal(put(store, from, 2, 1, 1), ERR_QUOTA_GROUP);
    assert_int_equal(stat_of(store).refused_group, 2);
    assert_int_equal(stat_of(store).refused_quota, 0);
    assert_int_equal(put(store, from, 1, 0, 2), 0);
    assert_int_equal(group_of(store, 1).slots, KEYS - 1);
    for (unsigned slot = 1; slot < 10; slot++)
        assert_int_equal(put(store, from, 0, slot, 1), 0);
    assert_int_equal(group_of(store, 2).slots, 10);
    /* What lapses makes room again. Key 1 renewed at the same time as all others here. */
    net_run(&n, 150 * MINUTE_MS);
    assert_int_equal(group_of(store, 1).slots, 0);
    assert_int_equal(put(store, from, 0, 10, 1), 0);
    assert_int_equal(put(store, from, 1, 1, 1), 0);
}

/* Whose relays nobody knows pays with those of the peer that brings it; whom the operator trusts does not. */
static void test_who_pays(void **state)
{
    struct kad_cfg cfg = {
        .trusted = &pks[1], .n_trusted = 1, .limits = {.slots_per_group = 3, .rate_per_s = 100000}};
    struct net_node *store = net_add(&n, &cfg), *from = net_add(&n, NULL), *other;

    (void)state;
    other = net_add(&n, NULL);
    set_group(from, 1);
    set_group(other, 2);
    set_key_group(3, 3);
    assert_int_equal(put(store, other, 2, 0, 1), 0); /* so that group 1 is not alone */
    for (unsigned slot = 0; slot < 5; slot++)
        assert_int_equal(put(store, from, 0, slot, 1), slot < 3 ? 0 : ERR_QUOTA_GROUP);
    assert_int_equal(put(store, from, 1, 0, 1), 0);
    assert_int_equal(put(store, from, 3, 0, 1), 0);
    assert_int_equal(group_of(store, 1).slots, 3);
    assert_int_equal(group_of(store, 2).slots, 1);
    assert_int_equal(group_of(store, 3).slots, 1);
    assert_int_equal(stat_of(store).refused_group, 2);
}

/* Random puts and renewals while time passes, against a list of what each group has alive. */
static void test_quota_model(void **state)
{
    struct kad_cfg cfg = {
        .limits = {.slots_per_group = 12, .rate_per_s = 100000, .ttl_ms = 800000}};
    struct net_node *store = net_add(&n, &cfg), *from = net_add(&n, NULL);
    struct {
        uint64_t seq, until_ns;
    } held[KEYS][4] = {0};
    const uint64_t ttl_ns = 800 * NS_PER_S, window_ns = ttl_ns / 8;

    (void)state;
    for (size_t key = 0; key < KEYS; key++)
        set_key_group(key, 1 + (uint32_t)key % 3);
    for (int i = 0; i < 3000; i++) {
        size_t key = prop_below(&rnd, KEYS);
        unsigned slot = (unsigned)prop_below(&rnd, 4);
        unsigned alive = 0, lapsing = 0, others = 0;
        for (size_t k = 0; k < KEYS; k++) {
            for (unsigned s = 0; s < 4; s++) {
                uint64_t until = held[k][s].until_ns;
                bool mine = k % 3 == key % 3;
                alive += mine && until > n.now_ns;
                lapsing += mine && until + window_ns > n.now_ns && until <= n.now_ns;
                others += !mine && until > n.now_ns;
            }
        }
        /* Expired ones stay for a while, to block lower numbers, and may be renewed. */
        bool had = held[key][slot].until_ns > n.now_ns;
        bool may_have = held[key][slot].until_ns + ttl_ns + MINUTE_MS * NS_PER_MS > n.now_ns;
        int rc = put(store, from, key, slot, held[key][slot].seq + 1);
        if (rc == ERR_QUOTA_GROUP) {
            assert_false(had);
            assert_true(alive + lapsing >= 12);
        } else {
            assert_int_equal(rc, 0);
            assert_true(may_have || alive < 12 || others == 0);
            held[key][slot].seq++;
            held[key][slot].until_ns = n.now_ns + ttl_ns;
            alive += !had;
        }
        assert_in_range(group_of(store, 1 + (uint32_t)key % 3).slots, alive, alive + lapsing);
        if (prop_below(&rnd, 4) == 0)
            net_run(&n, 1 + prop_below(&rnd, 200) * 1000);
    }
    assert_true(stat_of(store).refused_group > 10);
}

/* ---- look-ups ---- */

/* A network in groups 1, 2 … of about the same size. */
static void grow(size_t count, uint32_t groups)
{
    for (size_t i = 0; i < count; i++)
        set_group(net_add(&n, NULL), 1 + (uint32_t)(i % groups));
    net_run(&n, 30000);
}

static struct kad_report traced_get(struct net_node *node, const struct pubkey *pk,
                                    const char *salt)
{
    uint32_t op = kad_get(node->kad, pk, salt, strlen(salt), KAD_GET_NETWORK, NULL, n.now_ns);

    assert_int_not_equal(op, 0);
    kad_trace(node->kad, op);
    return net_wait(node, op);
}

/* What a look-up has under way goes through different relays. */
static void test_paths_are_split(void **state)
{
    (void)state;
    grow(30, 3);
    for (size_t i = 0; i < 30; i++) {
        const struct pubkey *pk = &net_node(&n, 29 - i)->pk;
        struct kad_id target = kad_target(pk, "none", 4);
        struct pubkey closest[4];
        bool seen[4] = {false}, near[4] = {false};
        unsigned first = 0;
        assert_int_equal(kad_closest(net_node(&n, i)->kad, &target, closest, 4), 4);
        for (size_t c = 0; c < 4; c++)
            near[n.peers.list[peers_add(&n.peers, &closest[c])]->group] = true;
        struct kad_report r = traced_get(net_node(&n, i), pk, "none");
        for (size_t s = 0; s < r.n_steps; s++) {
            if (r.steps[s].asked_ns != r.started_ns)
                continue;
            seen[n.peers.list[peers_add(&n.peers, &r.steps[s].pk)]->group] = true;
            first++;
        }
        assert_int_equal(first, 3);
        /* The closest one, and then another group when there is any among the next three. */
        if (near[1] + near[2] + near[3] >= 2)
            assert_true(seen[1] + seen[2] + seen[3] >= 2);
        net_report_clear(&r);
    }
}

static void set_mode(uint32_t group, enum net_mode mode)
{
    for (size_t i = 0; i < n.n; i++) {
        if (n.peers.list[net_node(&n, i)->peer]->group == group)
            net_node(&n, i)->mode = mode;
    }
}

static unsigned silent_steps(const struct kad_report *r)
{
    unsigned silent = 0;

    for (size_t i = 0; i < r->n_steps; i++)
        silent += r->steps[i].how != KAD_STEP_ANSWERED;
    return silent;
}

/* A relay fails: after four of its contacts were waited for, none of the others is, and all of them are
 * contacts still; it answers: they are asked again. */
static void test_relay_down_and_up(void **state)
{
    (void)state;
    grow(60, 3);
    struct net_node *a = net_node(&n, 0); /* of group 1 */
    size_t contacts = net_contacts(a);
    struct kad_report r = net_put(net_node(&n, 3), "dmsg", "v");
    assert_int_equal(r.err, 0);
    net_report_clear(&r);
    set_mode(2, NET_MUTE);
    for (size_t i = 0; i < 20 && stat_of(a).groups_suspect == 0; i++) {
        r = traced_get(a, &net_node(&n, i)->pk, "none");
        net_report_clear(&r);
    }
    assert_int_equal(stat_of(a).groups_suspect, 1);
    assert_int_not_equal(group_of(a, 2).suspect_ns, 0);
    assert_int_equal(group_of(a, 1).suspect_ns, 0);
    for (size_t i = 0; i < 20; i++) {
        r = traced_get(a, &net_node(&n, 3)->pk, "dmsg");
        assert_int_equal(r.err, 0);
        assert_true(silent_steps(&r) <= 1); /* the probe */
        assert_true(r.ended_ns - r.started_ns < NS_PER_S);
        net_report_clear(&r);
    }
    assert_true(stat_of(a).passed_over > 0);
    net_run(&n, 40000);
    assert_int_equal(net_contacts(a), contacts);
    set_mode(2, NET_HONEST);
    net_run(&n, 10000); /* the next one may be tried */
    for (int i = 0; i < 2; i++) {
        r = traced_get(a, &net_node(&n, 3)->pk, "dmsg");
        net_report_clear(&r);
    }
    net_run(&n, 2000);
    assert_int_equal(stat_of(a).groups_suspect, 0);
    uint64_t passed = stat_of(a).passed_over;
    r = traced_get(a, &net_node(&n, 3)->pk, "dmsg");
    assert_int_equal(silent_steps(&r), 0);
    assert_int_equal(stat_of(a).passed_over, passed);
    net_report_clear(&r);
}

/* A request of one of them is enough. */
static void test_relay_is_back_with_the_first_word(void **state)
{
    struct kad_msg req, rsp;

    (void)state;
    grow(40, 2);
    struct net_node *a = net_node(&n, 0), *b = net_node(&n, 1);
    set_mode(2, NET_MUTE);
    for (size_t i = 0; i < 20 && stat_of(a).groups_suspect == 0; i++) {
        struct kad_report r = traced_get(a, &net_node(&n, i)->pk, "none");
        net_report_clear(&r);
    }
    assert_int_equal(stat_of(a).groups_suspect, 1);
    kad_msg_init(&req, KAD_PING, false);
    assert_true(net_ask(a, b, &req, &rsp));
    kad_msg_clear(&rsp);
    assert_int_equal(stat_of(a).groups_suspect, 0);
}

/* With one relay there is nothing to choose: whatever happened, everybody is asked. */
static void test_one_relay(void **state)
{
    (void)state;
    grow(30, 1);
    struct net_node *a = net_node(&n, 5), *b = net_node(&n, 6);
    struct kad_report r = net_put(b, "dmsg", "v");
    assert_int_equal(r.err, 0);
    net_report_clear(&r);
    for (size_t i = 0; i < n.n; i++)
        net_node(&n, i)->mode = i == 5 ? NET_HONEST : NET_MUTE;
    r = traced_get(a, &b->pk, "dmsg");
    assert_int_not_equal(r.err, 0);
    net_report_clear(&r);
    assert_int_equal(stat_of(a).groups_suspect, 1);
    for (size_t i = 0; i < n.n; i++)
        net_node(&n, i)->mode = NET_HONEST;
    net_assert_value(traced_get(a, &b->pk, "dmsg"), "v");
    assert_int_equal(stat_of(a).groups_suspect, 0);
    assert_int_equal(stat_of(a).diversified, 0);
}

/* Single dead or mute contacts are no sign, since others of their group answer meanwhile; where chance puts
 * several at the end of a look-up, the next one clears that up. */
static void test_dead_contacts_are_no_dead_relay(void **state)
{
    (void)state;
    grow(60, 2);
    struct net_node *a = net_node(&n, 0);
    for (size_t i = 1; i < 60; i += 5) /* a fifth of each group */
        net_node(&n, i)->mode = i % 2 == 1 ? NET_MUTE : NET_DOWN;
    for (size_t i = 0; i < 40; i++) {
        struct kad_report r = traced_get(a, &net_node(&n, 59 - i)->pk, "none");
        net_report_clear(&r);
        net_run(&n, 3000);
    }
    assert_in_range(stat_of(a).groups_suspected, 0, 4);
    net_run(&n, 20000);
    for (size_t i = 0; i < 3 && stat_of(a).groups_suspect > 0; i++) {
        struct kad_report r = traced_get(a, &net_node(&n, i)->pk, "none");
        net_report_clear(&r);
    }
    assert_int_equal(stat_of(a).groups_suspect, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_group_quota, setup, teardown),
        cmocka_unit_test_setup_teardown(test_who_pays, setup, teardown),
        cmocka_unit_test_setup_teardown(test_quota_model, setup, teardown),
        cmocka_unit_test_setup_teardown(test_paths_are_split, setup, teardown),
        cmocka_unit_test_setup_teardown(test_relay_down_and_up, setup, teardown),
        cmocka_unit_test_setup_teardown(test_relay_is_back_with_the_first_word, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_relay, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dead_contacts_are_no_dead_relay, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
