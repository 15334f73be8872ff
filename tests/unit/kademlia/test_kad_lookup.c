/* Look-ups among dead, mute, slow and lying peers; what a reader accepts; what it keeps. */
#include "base/err.h"
#include "kademlia/engine.h"
#include "tests/unit/kademlia/dht_items.h"
#include "tests/unit/kademlia/net.h"

#define MINUTE_MS UINT64_C(60000)

static struct net n;

static int setup(void **state)
{
    struct prop r = prop_init("lookup");

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
    net_run(&n, 20000);
}

static void put_ok(struct net_node *node, const char *salt, const char *v)
{
    struct kad_report r = net_put(node, salt, v);

    assert_int_equal(r.err, 0);
    net_report_clear(&r);
}

/* ---- what a liar answers ---- */

struct lie {
    struct item_ref *item;
    struct pubkey *contacts;
    size_t n_contacts;
};

static bool tell_lie(struct net_node *node, struct net_node *from, struct kad_msg *req,
                     struct kad_msg *rsp, int *fail)
{
    const struct lie *lie = node->arg;

    (void)from;
    (void)fail;
    if (req->method != KAD_GET_VALUE && req->method != KAD_FIND_NODE)
        return false;
    if (lie->item != NULL && req->method == KAD_GET_VALUE)
        assert_int_equal(kad_msg_add_item(rsp, lie->item, NULL), 0);
    if (lie->n_contacts > 0) {
        rsp->closest = malloc(lie->n_contacts * sizeof *rsp->closest);
        assert_non_null(rsp->closest);
        memcpy(rsp->closest, lie->contacts, lie->n_contacts * sizeof *rsp->closest);
        rsp->n_closest = lie->n_contacts;
    }
    return true;
}

static void make_liar(struct net_node *node, struct lie *lie)
{
    node->mode = NET_CUSTOM;
    node->answer = tell_lie;
    node->arg = lie;
}

/* ---- peers that do not answer ---- */

static void test_all_peers_dead(void **state)
{
    (void)state;
    grow(12);
    struct net_node *a = net_node(&n, 11);
    const enum net_mode modes[] = {NET_DOWN, NET_MUTE, NET_CLOSES};
    for (size_t m = 0; m < 3; m++) {
        for (size_t i = 0; i < 11; i++)
            net_node(&n, i)->mode = modes[m];
        struct kad_report r = net_get(a, &net_node(&n, 3)->pk, "dmsg", KAD_GET_NETWORK);
        assert_int_equal(r.err, ERR_NO_ROUTE);
        assert_int_equal(r.answered, 0);
        assert_true(r.asked > 0 && r.failed <= r.asked);
        assert_true(r.ended_ns - r.started_ns <= 30 * NS_PER_S);
        net_report_clear(&r);
    }
    /* And the node finds back. */
    for (size_t i = 0; i < 11; i++)
        net_node(&n, i)->mode = NET_HONEST;
    net_run(&n, 2 * MINUTE_MS);
    put_ok(a, "dmsg", "back");
    net_assert_value(net_get(net_node(&n, 2), &a->pk, "dmsg", KAD_GET_NETWORK), "back");
}

/* A third of the peers never answers: look-ups overtake them. */
static void test_mute_peers_are_overtaken(void **state)
{
    (void)state;
    n.json = false;
    grow(60);
    struct net_node *a = net_node(&n, 0), *b = net_node(&n, 1);
    for (size_t i = 2; i < n.n; i += 3)
        net_node(&n, i)->mode = NET_MUTE;
    put_ok(a, "dmsg", "v");
    for (int i = 0; i < 5; i++) {
        struct kad_report r = net_get(b, &a->pk, "dmsg", KAD_GET_NETWORK | KAD_GET_NO_CACHE);
        assert_true(r.ended_ns - r.started_ns < 6 * NS_PER_S);
        net_assert_value(r, "v");
        r = net_get(b, &a->pk, "dmsg", KAD_GET_NETWORK | KAD_GET_FIRST | KAD_GET_NO_CACHE);
        assert_int_equal(r.end, KAD_END_FOUND);
        assert_true(r.ended_ns - r.started_ns < 5 * NS_PER_S);
        net_assert_value(r, "v");
    }
}

/* The trace names everybody who was asked, once, closest first, and what came of it. */
static void test_trace(void **state)
{
    (void)state;
    grow(30);
    struct net_node *a = net_node(&n, 0);
    for (size_t i = 1; i < n.n; i += 3)
        net_node(&n, i)->mode = i % 2 == 0 ? NET_DOWN : NET_MUTE;
    struct kad_id target = kad_id_of(&net_node(&n, 7)->pk);
    for (int round = 0; round < 2; round++) {
        uint32_t op = round == 0 ? kad_find_node(a->kad, &target, NULL, n.now_ns)
                                 : kad_get(a->kad, &net_node(&n, 7)->pk, "none", 4, KAD_GET_NETWORK,
                                           NULL, n.now_ns);
        kad_trace(a->kad, op);
        struct kad_report r = net_wait(a, op);
        size_t how[3] = {0};
        assert_int_equal(r.n_steps, r.asked);
        for (size_t i = 0; i < r.n_steps; i++) {
            struct kad_id id = kad_id_of(&r.steps[i].pk), before;
            how[r.steps[i].how]++;
            assert_true(r.steps[i].hop >= 1 && r.steps[i].asked_ns >= r.started_ns);
            assert_true(r.steps[i].asked_ns <= r.ended_ns);
            if (i > 0) {
                before = kad_id_of(&r.steps[i - 1].pk);
                assert_true(kad_id_closer(&r.target, &before, &id) < 0);
            }
        }
        assert_int_equal(how[KAD_STEP_ANSWERED], r.answered);
        assert_int_equal(how[KAD_STEP_FAILED], r.failed);
        assert_true(how[KAD_STEP_FAILED] + how[KAD_STEP_SILENT] > 0);
        net_report_clear(&r);
    }
    kad_trace(a->kad, 12345678); /* an operation that is over */
    struct kad_report r = net_get(a, &net_node(&n, 7)->pk, "none", KAD_GET_NETWORK);
    assert_null(r.steps);
    net_report_clear(&r);
}

/* Slow as a whole is not the same as dead. */
static void test_slow_network(void **state)
{
    (void)state;
    n.json = false;
    n.min_delay_ms = 900;
    n.max_delay_ms = 1600;
    for (size_t i = 0; i < 15; i++)
        net_add(&n, NULL);
    net_run(&n, 2 * MINUTE_MS);
    put_ok(net_node(&n, 3), "dmsg", "slow");
    struct kad_report r = net_get(net_node(&n, 9), &net_node(&n, 3)->pk, "dmsg", KAD_GET_NETWORK);
    assert_true(r.answered >= 10);
    net_assert_value(r, "slow");
}

static void test_lossy_network(void **state)
{
    (void)state;
    n.json = false;
    n.loss_percent = 10;
    grow(30);
    net_run(&n, 2 * MINUTE_MS);
    for (size_t i = 0; i < 10; i++) {
        put_ok(net_node(&n, i), "dmsg", "v");
        net_assert_value(
            net_get(net_node(&n, 29 - i), &net_node(&n, i)->pk, "dmsg", KAD_GET_NETWORK), "v");
    }
}

/* No round waits for its slowest: one mute peer costs less than one time-out. */
static void test_small_network_with_one_mute(void **state)
{
    (void)state;
    grow(5);
    net_node(&n, 2)->mode = NET_MUTE;
    put_ok(net_node(&n, 1), "dmsg", "v");
    struct kad_report r = net_get(net_node(&n, 4), &net_node(&n, 1)->pk, "dmsg", KAD_GET_NETWORK);
    assert_true(r.ended_ns - r.started_ns < 3 * NS_PER_S);
    net_assert_value(r, "v");
}

/* ---- incident 60, the reader ---- */

static void test_incident_60_foreign_answers(void **state)
{
    struct seckey sk;
    struct pubkey pk;
    uint8_t seed[32] = {1, 2, 3};

    (void)state;
    grow(25);
    struct net_node *victim = net_node(&n, 1), *reader = net_node(&n, 2);
    assert_int_equal(crypto_keypair(&sk, &pk, seed), 0);
    struct item_ref *foreign = dht_item(&sk, UINT64_MAX, "dmsg", "foreign");
    struct item_ref *forged = dht_item(&sk, UINT64_MAX, "dmsg", "forged");
    struct item_ref *moved = dht_item(&victim->sk, UINT64_MAX, "tp", "other salt");
    forged->item.k = victim->pk; /* right slot, wrong signature */
    struct lie lies[3] = {{.item = foreign}, {.item = forged}, {.item = moved}};

    for (int found = 0; found < 2; found++) {
        for (size_t i = 4; i < 25; i++)
            net_node(&n, i)->mode = NET_HONEST;
        if (found)
            put_ok(victim, "dmsg", "honest");
        for (size_t i = 4; i < 25; i++) {
            if (i % 4 != 0)
                make_liar(net_node(&n, i), &lies[i % 3]);
        }
        struct kad_report r = net_get(reader, &victim->pk, "dmsg", KAD_GET_NETWORK);
        assert_true(r.rejected_items > 0);
        if (found) {
            net_assert_value(r, "honest");
        } else {
            assert_int_equal(r.err, ERR_NOT_FOUND);
            net_report_clear(&r);
        }
        r = net_get(reader, &victim->pk, "dmsg", KAD_GET_NETWORK | KAD_GET_FIRST);
        assert_int_equal(r.err, found ? 0 : ERR_NOT_FOUND);
        net_report_clear(&r);
    }
    /* The same forgery from many peers is tried a few times at most, not once for each. */
    for (size_t i = 4; i < 25; i++)
        make_liar(net_node(&n, i), &lies[1]);
    uint64_t verified = stat_of(reader).verified;
    struct kad_report r = net_get(reader, &victim->pk, "dmsg", KAD_GET_NETWORK);
    net_report_clear(&r);
    assert_true(stat_of(reader).verified - verified <= 2);
    item_ref_put(foreign);
    item_ref_put(forged);
    item_ref_put(moved);
}

/* Different numbers at different peers: the highest wins, there is no stop at the first. */
static void test_highest_seq_wins(void **state)
{
    (void)state;
    grow(20);
    struct net_node *a = net_node(&n, 5), *reader = net_node(&n, 6);
    struct item_ref *items[3] = {dht_item(&a->sk, 10, "x", "ten"),
                                 dht_item(&a->sk, 30, "x", "thirty"),
                                 dht_item(&a->sk, 20, "x", "twenty")};
    struct lie lies[3] = {{.item = items[0]}, {.item = items[1]}, {.item = items[2]}};
    for (size_t i = 0; i < 20; i++) {
        if (i != 6)
            make_liar(net_node(&n, i), &lies[i == 13 ? 1 : i % 2 * 2]);
    }
    net_assert_value(net_get(reader, &a->pk, "x", 0), "thirty");
    for (size_t i = 0; i < 3; i++)
        item_ref_put(items[i]);
}

/* ---- incident 61: contacts in answers ---- */

static bool known(void *arg, const struct kad_contact *c)
{
    bool *is_node = arg;

    if (c->peer >= n.peers.n)
        return true;
    for (size_t i = 0; i < n.n; i++) {
        if (n.nodes[i]->peer == c->peer)
            return true;
    }
    *is_node = false;
    return true;
}

static void test_incident_61_contacts_of_liars(void **state)
{
    enum { MANY = 10000 };
    struct pubkey *keys = calloc(MANY, sizeof *keys);
    uint8_t seed[32] = {0};

    (void)state;
    assert_non_null(keys);
    n.json = false;
    grow(10);
    struct net_node *a = net_node(&n, 9), *liar = net_node(&n, 4);
    for (size_t i = 0; i < MANY; i++) {
        struct seckey sk;
        seed[0] = (uint8_t)i;
        seed[1] = (uint8_t)(i >> 8);
        seed[2] = 1;
        if (i % 50 == 0)
            assert_int_equal(crypto_keypair(&sk, &keys[i], seed), 0);
        else if (i % 50 == 1)
            keys[i] = a->pk; /* the asker */
        else if (i % 50 == 2)
            keys[i] = liar->pk; /* the liar itself */
        else if (i % 50 == 3)
            memset(&keys[i], 0, sizeof keys[i]); /* the null key */
        else
            keys[i] = keys[i - i % 50]; /* again and again */
    }
    struct lie lie = {.contacts = keys, .n_contacts = MANY};
    make_liar(liar, &lie);
    for (int i = 0; i < 20; i++) {
        struct kad_id target;
        prop_bytes(&n.rnd, target.b, sizeof target.b);
        struct kad_report r = net_wait(a, kad_find_node(a->kad, &target, NULL, n.now_ns));
        assert_int_equal(r.err, 0);
        assert_true(r.asked < 9 + 20); /* at most k of what one answer says */
        for (size_t j = 0; j < r.n_closest; j++)
            assert_false(pubkey_equal(&r.closest[j], &a->pk));
        net_report_clear(&r);
    }
    bool all_nodes = true;
    kad_contacts(a->kad, known, &all_nodes);
    assert_true(all_nodes);
    struct kad_stat st;
    kad_stat(a->kad, &st);
    assert_true(st.lies[KAD_LIE_CONTACTS] >= 8);
    assert_int_equal(st.shunned, 1);
    assert_int_equal(net_contacts(a), 8); /* the liar was dropped */
    free(keys);
}

/* Whoever calls is known by the key of the stream, whatever the body says. */
static void test_incident_61_sender_in_the_body(void **state)
{
    (void)state;
    grow(2);
    struct net_node *store = net_node(&n, 0), *from = net_add(&n, NULL);
    for (unsigned method = KAD_PING; method <= KAD_PUT_BATCH; method++) {
        struct kad_msg req, rsp;
        if (method == KAD_PUT_VALUE)
            continue;
        kad_msg_init(&req, (enum kad_method)method, false);
        if (method % 2 == 0)
            memset(&req.sender, 0, sizeof req.sender);
        else
            memset(&req.sender, 2, sizeof req.sender);
        n.json = false;
        assert_true(net_ask(store, from, &req, &rsp));
        kad_msg_clear(&rsp);
    }
    assert_int_equal(net_contacts(store), 2);
    bool all_nodes = true;
    kad_contacts(store->kad, known, &all_nodes);
    assert_true(all_nodes);
}

/* ---- incident 69 and dht.md §8.2 point 5: local copies ---- */

static void test_incident_69_stale_copies(void **state)
{
    (void)state;
    grow(30);
    struct net_node *a = net_node(&n, 5);
    put_ok(a, "dmsg", "first");
    /* A reader that is no holder. */
    struct net_node *reader = NULL;
    struct kad_id slot = kad_target(&a->pk, "dmsg", 4);
    for (size_t i = 6; i < n.n && reader == NULL; i++) {
        struct store_rec r;
        if (n.nodes[i]->store->ops->get(n.nodes[i]->store, &slot, ITEM_OWNER, &r) != 0)
            reader = n.nodes[i];
    }
    assert_non_null(reader);
    uint64_t began_ns = n.now_ns;
    struct kad_report r = net_get(reader, &a->pk, "dmsg", 0);
    assert_int_equal(r.source, KAD_SRC_DHT);
    net_assert_value(r, "first");
    r = net_get(reader, &a->pk, "dmsg", 0);
    assert_int_equal(r.source, KAD_SRC_LOCAL);
    net_assert_value(r, "first");

    put_ok(a, "dmsg", "moved");
    struct store_rec rec;
    bool fresh = false;
    assert_int_equal(kad_local(reader->kad, &a->pk, "dmsg", 4, &rec, &fresh, n.now_ns), 0);
    assert_true(fresh);
    assert_int_equal(rec.origin, STORE_CACHE);
    /* Its age counts from when the look-up began: what was put meanwhile it may have missed. */
    int64_t since_began = (int64_t)(n.now_ns - began_ns);
    assert_true(kad_steady_ns(reader->kad) - rec.stored_ns >= since_began);
    /* The dial failed: the copy is bypassed at once and brought up to date. */
    kad_distrust(reader->kad, &a->pk, "dmsg", 4);
    assert_int_equal(kad_local(reader->kad, &a->pk, "dmsg", 4, &rec, &fresh, n.now_ns), 0);
    assert_false(fresh);
    r = net_get(reader, &a->pk, "dmsg", 0);
    assert_int_equal(r.source, KAD_SRC_DHT);
    assert_true(r.ended_ns - r.started_ns < 5 * NS_PER_S);
    net_assert_value(r, "moved");

    /* Without a failure it is asked for again after five minutes at the latest; a copy that is in
     * use is revalidated before. */
    put_ok(a, "dmsg", "again");
    net_run(&n, 5 * MINUTE_MS);
    net_assert_value(net_get(reader, &a->pk, "dmsg", 0), "again");
    put_ok(a, "dmsg", "once more");
    net_run(&n, 3 * MINUTE_MS);
    net_assert_value(net_get(reader, &a->pk, "dmsg", 0), "again"); /* still fresh */
    net_run(&n, 10000);                                            /* asked in the background */
    net_assert_value(net_get(reader, &a->pk, "dmsg", 0), "once more");

    /* Copies of look-ups are no replicas: not served when old, never listed. */
    struct kad_msg req, rsp;
    net_run(&n, 6 * MINUTE_MS);
    kad_msg_init(&req, KAD_GET_VALUE, false);
    req.target = slot;
    assert_true(net_ask(reader, a, &req, &rsp));
    assert_int_equal(rsp.n_items, 0);
    kad_msg_clear(&rsp);
    kad_msg_init(&req, KAD_GET_ITEMS, false);
    assert_true(net_ask(reader, a, &req, &rsp));
    for (size_t i = 0; i < rsp.n_items; i++)
        assert_false(kad_id_equal(&rsp.items[i].target, &slot));
    kad_msg_clear(&rsp);
}

/* When the network has nothing (any more), what is not expired here is better than nothing. */
static void test_local_copy_when_nobody_answers(void **state)
{
    (void)state;
    grow(6);
    struct net_node *a = net_node(&n, 1), *b = net_node(&n, 2);
    put_ok(a, "dmsg", "v");
    for (size_t i = 0; i < 6; i++) {
        if (i != 2)
            net_node(&n, i)->mode = NET_DOWN;
    }
    net_run(&n, 10 * MINUTE_MS);
    struct kad_report r = net_get(b, &a->pk, "dmsg", 0);
    assert_int_equal(r.source, KAD_SRC_LOCAL);
    net_assert_value(r, "v");
    r = net_get(b, &a->pk, "dmsg", KAD_GET_NETWORK);
    assert_int_equal(r.err, ERR_NO_ROUTE);
    net_report_clear(&r);
    net_run(&n, 2 * 60 * MINUTE_MS); /* expired */
    r = net_get(b, &a->pk, "dmsg", 0);
    assert_true(r.err < 0);
    net_report_clear(&r);
}

/* What nobody has its owner may still have; but who looks for the way to the owner does not ask it. */
static void test_whether_the_owner_is_asked(void **state)
{
    struct seckey sk;
    struct pubkey nobody;
    uint8_t seed[32] = {7};

    (void)state;
    grow(6);
    assert_int_equal(crypto_keypair(&sk, &nobody, seed), 0);
    struct net_node *reader = net_node(&n, 1);
    struct kad_report r = net_get(reader, &nobody, "x", KAD_GET_NETWORK);
    assert_int_equal(r.err, ERR_NOT_FOUND);
    unsigned asked = r.asked, failed = r.failed;
    net_report_clear(&r);
    r = net_get(reader, &nobody, "y", KAD_GET_NETWORK | KAD_GET_NO_OWNER);
    assert_int_equal(r.err, ERR_NOT_FOUND);
    assert_int_equal(r.asked, asked - 1);
    assert_int_equal(r.failed, failed - 1);
    net_report_clear(&r);
}

/* An entry that is found carried is kept under the slot that was asked for (dht.md §3.5). */
static void test_mirrored_item_is_cached_under_the_asked_slot(void **state)
{
    struct pubkey mirror, subject;
    struct seckey mirror_sk, subject_sk;
    uint8_t seed[32] = {5};

    (void)state;
    assert_int_equal(crypto_keypair(&mirror_sk, &mirror, seed), 0);
    seed[0] = 6;
    assert_int_equal(crypto_keypair(&subject_sk, &subject, seed), 0);
    struct kad_cfg cfg = {.mirrors = &mirror, .n_mirrors = 1};
    for (size_t i = 0; i < 4; i++)
        net_add(&n, &cfg);
    net_run(&n, 10000);
    struct item_ref *item = dht_item(&mirror_sk, 5, "svc", "[1]");
    struct kad_id slot = kad_target(&subject, "svc", 3);
    struct net_node *a = net_node(&n, 1), *b = net_add(&n, &cfg);
    net_run(&n, 3000);
    struct kad_report r = net_wait(a, kad_put_signed(a->kad, &item->item, &slot, NULL, n.now_ns));
    assert_int_equal(r.err, 0);
    assert_int_equal(r.stored, 4);
    assert_int_equal(r.kind, ITEM_MIRROR);
    net_report_clear(&r);
    assert_int_equal(b->store->ops->del(b->store, &slot, ITEM_MIRROR), 0);
    r = net_get(b, &subject, "svc", 0);
    assert_int_equal(r.source, KAD_SRC_DHT);
    assert_int_equal(r.kind, ITEM_MIRROR);
    net_assert_value(r, "[1]");
    r = net_get(b, &subject, "svc", 0);
    assert_int_equal(r.source, KAD_SRC_LOCAL);
    net_assert_value(r, "[1]");
    struct net_node *stranger = net_add(&n, NULL); /* knows no mirrors */
    net_run(&n, 3000);
    r = net_get(stranger, &subject, "svc", 0);
    assert_int_equal(r.err, ERR_NOT_FOUND);
    net_report_clear(&r);
    r = net_wait(stranger, kad_put_signed(stranger->kad, &item->item, &slot, NULL, n.now_ns));
    assert_int_equal(r.err, ERR_REFUSED);
    net_report_clear(&r);
    item_ref_put(item);
}

/* Publisher's slots are used up at all who were asked: the reason comes back (upstream only logged
 * it). */
static void test_put_over_the_quota(void **state)
{
    struct kad_cfg cfg = {.limits = {.slots_per_key = 2}};
    (void)state;
    for (size_t i = 0; i < 3; i++)
        net_add(&n, &cfg);
    net_run(&n, 10000);
    struct net_node *publisher = net_add(&n, NULL);
    net_run(&n, 3000);
    put_ok(publisher, "one", "v");
    put_ok(publisher, "two", "v");
    struct kad_report r = net_put(publisher, "three", "v");
    assert_int_equal(r.err, ERR_QUOTA);
    assert_int_equal(r.refused, 3);
    net_report_clear(&r);
}

/* Incident 64, basic: newcomers in any number do not push out contacts that live. */
static void test_incident_64_elders_stay(void **state)
{
    (void)state;
    n.json = false;
    grow(50);
    struct net_node *a = net_node(&n, 0);
    struct pubkey elders[64];
    struct kad_id opposite = a->id;
    opposite.b[0] ^= 0xff;
    size_t had = kad_closest(a->kad, &opposite, elders, 20);
    assert_int_equal(had, 20);
    for (int i = 0; i < 200; i++) {
        struct net_node *sybil = net_add(&n, NULL);
        sybil->mode = NET_CUSTOM;
        static struct lie silence;
        make_liar(sybil, &silence);
        net_run(&n, 200);
    }
    net_run(&n, 5 * MINUTE_MS);
    struct pubkey now[64];
    size_t have = kad_closest(a->kad, &opposite, now, 64), kept = 0;
    for (size_t i = 0; i < had; i++) {
        for (size_t j = 0; j < have; j++)
            kept += pubkey_equal(&elders[i], &now[j]);
    }
    assert_true(kept >= 19);
    size_t found = 0;
    for (size_t i = 0; i < 20; i++) {
        struct net_node *from = net_node(&n, i), *to = net_node(&n, 49 - i);
        struct kad_report r = net_put(from, "dmsg", "v");
        net_report_clear(&r);
        r = net_get(to, &from->pk, "dmsg", KAD_GET_NETWORK);
        found += r.err == 0;
        net_report_clear(&r);
    }
    assert_true(found >= 15); /* four of five peers keep nothing */
}

/* A node whose ID shares at least that many bits with the target. */
static struct net_node *add_near(const struct kad_id *target, unsigned bits)
{
    for (;;) {
        struct seckey sk;
        struct pubkey pk;
        uint8_t seed[32];
        prop_bytes(&n.rnd, seed, sizeof seed);
        if (crypto_keypair(&sk, &pk, seed) != 0)
            continue;
        struct kad_id id = kad_id_of(&pk);
        if (kad_id_cpl(&id, target) >= bits)
            return net_add_key(&n, NULL, &sk);
    }
}

/* Takes everything, keeps nothing, and names only its like. */
static struct pubkey gang[KAD_K];

static bool betray(struct net_node *node, struct net_node *from, struct kad_msg *req,
                   struct kad_msg *rsp, int *fail)
{
    (void)node;
    (void)from;
    (void)fail;
    rsp->stored = true;
    if (req->method == KAD_GET_VALUE || req->method == KAD_FIND_NODE)
        assert_int_equal(kad_msg_set_closest(rsp, gang, KAD_K), 0);
    return req->method != KAD_PING;
}

/* Incident 64: sixty keys made around one target among fifty honest nodes. The k closest are all
 * theirs; bootstrap nodes are asked and given the item as well. */
static void test_incident_64_crowded_target(void **state)
{
    size_t found = 0;

    (void)state;
    n.json = false;
    grow(50);
    struct net_node *victim = net_node(&n, 17);
    struct kad_id target = kad_target(&victim->pk, "dmsg", 4);
    for (size_t i = 0; i < 60; i++) {
        struct net_node *sybil = add_near(&target, 8);
        if (i < KAD_K)
            gang[i] = sybil->pk;
        sybil->mode = NET_CUSTOM;
        sybil->answer = betray;
        net_run(&n, 300);
    }
    net_run(&n, 20 * MINUTE_MS);
    put_ok(victim, "dmsg", "still here");
    for (size_t i = 0; i < 50; i++) {
        struct kad_report r = net_get(net_node(&n, i), &victim->pk, "dmsg", 0);
        found += r.err == 0;
        net_report_clear(&r);
    }
    assert_true(found >= 48);
}

/* A node that reads more than its peers allow gets its answers later, not never. */
static void test_reader_above_the_rate(void **state)
{
    struct kad_cfg cfg = {.limits = {.rate_per_s = 20}}; /* bursts of 80 */
    uint32_t ops[200];
    size_t found = 0;

    (void)state;
    n.json = false;
    for (size_t i = 0; i < 3; i++)
        net_add(&n, &cfg);
    net_run(&n, 10000);
    struct net_node *a = net_node(&n, 1), *reader = net_node(&n, 2);
    put_ok(a, "dmsg", "v");
    for (size_t i = 0; i < 200; i++) {
        ops[i] = kad_get(reader->kad, &a->pk, "dmsg", 4, KAD_GET_NETWORK, NULL, n.now_ns);
        assert_int_not_equal(ops[i], 0);
    }
    for (size_t i = 0; i < 200; i++) {
        struct kad_report r = net_wait(reader, ops[i]);
        found += r.err == 0;
        net_report_clear(&r);
    }
    assert_true(found >= 195);
    assert_true(stat_of(reader).calls_repeated > 0);
    assert_int_equal(stat_of(reader).routing_peers, 2);
    net_run(&n, MINUTE_MS);
    assert_int_equal(stat_of(reader).calls, 0);
    assert_int_equal(stat_of(reader).calls_waiting, 0);
}

/* A thousand look-ups at once: each ends, the caps hold, nothing is left over. */
static void test_incident_66_many_lookups(void **state)
{
    uint32_t ops[1000];
    size_t running = 0, refused = 0, failed = 0;

    (void)state;
    n.json = false;
    grow(40);
    struct net_node *a = net_node(&n, 3);
    for (size_t i = 5; i < 40; i += 2)
        net_node(&n, i)->mode = NET_MUTE;
    for (size_t i = 0; i < 1000; i++) {
        struct kad_id target;
        prop_bytes(&n.rnd, target.b, sizeof target.b);
        ops[running] = kad_find_node(a->kad, &target, NULL, n.now_ns);
        if (ops[running] != 0)
            running++;
        else
            refused++;
        assert_true(stat_of(a).ops <= 256 + 64);
    }
    assert_int_equal(running, 256);
    assert_int_equal(refused, 744);
    for (size_t i = 0; i < running; i++) {
        struct kad_report r = net_wait(a, ops[i]);
        failed += r.err != 0;
        net_report_clear(&r);
    }
    assert_true(failed <= 25); /* 5000 requests at once: rate limits of the peers refuse some */
    net_run(&n, MINUTE_MS);
    assert_int_equal(stat_of(a).ops, 0);
    assert_int_equal(stat_of(a).calls, 0);
}

/* What is cancelled before the host has looked never reaches it. */
static void test_cancelled_before_it_was_sent(void **state)
{
    struct kad_act a;

    (void)state;
    n.no_bootstrap = true;
    struct net_node *x = net_add(&n, NULL), *y = net_add(&n, NULL);
    net_run(&n, 1000);
    uint32_t op = kad_ping(x->kad, y->peer, NULL, n.now_ns);
    n.now_ns += 2 * NS_PER_S;
    kad_tick(x->kad, n.now_ns);
    kad_cancel(x->kad, op);
    assert_true(kad_next(x->kad, &a));
    assert_int_equal(a.type, KAD_ACT_DONE);
    assert_int_equal(a.report.err, ERR_CANCELLED);
    kad_act_clear(&a);
    assert_false(kad_next(x->kad, &a));
    assert_int_equal(n.peers.list[y->peer]->refs, 0);
}

/* Incident 62: peers serve a few streams of one caller at a time, so we do not ask for more. */
static void test_incident_62_calls_to_one_peer(void **state)
{
    uint32_t calls[100];
    size_t sent = 0, done = 0;
    struct kad_act a;

    (void)state;
    n.no_bootstrap = true;
    struct net_node *x = net_add(&n, NULL), *y = net_add(&n, NULL);
    net_run(&n, 1000);
    for (size_t i = 0; i < 50; i++)
        assert_int_not_equal(kad_ping(x->kad, y->peer, NULL, n.now_ns), 0);
    while (done < 50) {
        while (kad_next(x->kad, &a)) {
            if (a.type == KAD_ACT_CALL)
                calls[sent++] = a.call;
            else if (a.type == KAD_ACT_DONE && a.report.type == KAD_OP_PING)
                done++;
            kad_act_clear(&a);
        }
        assert_true(sent <= done + 6);
        assert_true(stat_of(x).calls_waiting <= 50 - sent);
        if (done < sent && sent <= 40) {
            kad_call_failed(x->kad, calls[done], KAD_FAIL_CLOSED, n.now_ns);
        } else { /* nobody answers any more: the rest times out, in the queue too */
            n.now_ns += 10 * NS_PER_S + NS_PER_MS;
            kad_tick(x->kad, n.now_ns);
        }
    }
    assert_true(sent >= 41 && sent < 50);
    assert_int_equal(stat_of(x).calls, 0);
    assert_int_equal(stat_of(x).calls_waiting, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_all_peers_dead, setup, teardown),
        cmocka_unit_test_setup_teardown(test_mute_peers_are_overtaken, setup, teardown),
        cmocka_unit_test_setup_teardown(test_trace, setup, teardown),
        cmocka_unit_test_setup_teardown(test_slow_network, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lossy_network, setup, teardown),
        cmocka_unit_test_setup_teardown(test_small_network_with_one_mute, setup, teardown),
        cmocka_unit_test_setup_teardown(test_incident_60_foreign_answers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_highest_seq_wins, setup, teardown),
        cmocka_unit_test_setup_teardown(test_incident_61_contacts_of_liars, setup, teardown),
        cmocka_unit_test_setup_teardown(test_incident_61_sender_in_the_body, setup, teardown),
        cmocka_unit_test_setup_teardown(test_incident_69_stale_copies, setup, teardown),
        cmocka_unit_test_setup_teardown(test_local_copy_when_nobody_answers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_whether_the_owner_is_asked, setup, teardown),
        cmocka_unit_test_setup_teardown(test_mirrored_item_is_cached_under_the_asked_slot, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_put_over_the_quota, setup, teardown),
        cmocka_unit_test_setup_teardown(test_incident_64_elders_stay, setup, teardown),
        cmocka_unit_test_setup_teardown(test_incident_64_crowded_target, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cancelled_before_it_was_sent, setup, teardown),
        cmocka_unit_test_setup_teardown(test_incident_62_calls_to_one_peer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reader_above_the_rate, setup, teardown),
        cmocka_unit_test_setup_teardown(test_incident_66_many_lookups, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
