/* What may enter which slot, in which order it is checked, what it costs, how long it stays. */
#include "base/err.h"
#include "tests/unit/kademlia/dht_items.h"
#include "tests/unit/kademlia/net.h"
#include "transport/entry.h"

#define MINUTE_MS UINT64_C(60000)

static struct net n;
static struct seckey sks[16]; /* keys of people who are no nodes */
static struct pubkey pks[16];

static int setup(void **state)
{
    struct prop r = prop_init("accept");

    (void)state;
    net_init(&n, prop_u64(&r));
    for (size_t i = 0; i < 16; i++) {
        uint8_t seed[32] = {9, (uint8_t)i};
        if (crypto_keypair(&sks[i], &pks[i], seed) != 0)
            return -1;
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    net_close(&n);
    return 0;
}

/* Result of PUT_VALUE, or 1 when the stream was closed. */
static int put_value(struct net_node *to, struct net_node *from, struct item_ref *item,
                     const struct kad_id *target)
{
    struct kad_msg req, rsp;

    kad_msg_init(&req, KAD_PUT_VALUE, false);
    assert_int_equal(kad_msg_add_item(&req, item, target), 0);
    if (!net_ask(to, from, &req, &rsp))
        return 1;
    int result = rsp.stored ? 0 : rsp.error;
    kad_msg_clear(&rsp);
    return result;
}

static int put_text(struct net_node *to, struct net_node *from, const struct seckey *sk,
                    uint64_t seq, const char *salt, const char *v, const struct kad_id *target)
{
    struct item_ref *item = dht_item(sk, seq, salt, v);
    int result = put_value(to, from, item, target);

    item_ref_put(item);
    return result;
}

static bool holds(struct net_node *node, const struct kad_id *target, enum item_kind kind,
                  const char *v)
{
    struct store_rec r;

    return node->store->ops->get(node->store, target, kind, &r) == 0 && r.item.v_len == strlen(v) &&
           memcmp(r.item.v, v, r.item.v_len) == 0;
}

/* A signed entry of key i as text. */
static char *entry_text(size_t i, int64_t ts, uint64_t sequence)
{
    struct entry *e;
    struct hash digest;
    struct sig sig;
    struct pubkey server = pks[15];

    assert_int_equal(entry_new_client(&e, &pks[i], sequence, ts, &server, 1, ""), 0);
    assert_int_equal(entry_digest(&digest, e), 0);
    assert_int_equal(crypto_sign_digest(&sig, &sks[i], &digest), 0);
    assert_int_equal(entry_set_signature(e, &sig), 0);
    char *text = strndup(e->text, e->text_len);
    assert_non_null(text);
    entry_free(e);
    return text;
}

/* Incident 57: a signature is checked last, and bad ones cut their sender off. */
static void test_incident_57_cheap_checks_first(void **state)
{
    struct net_node *store = net_add(&n, NULL), *from = net_add(&n, NULL);
    struct kad_id elsewhere = kad_target(&pks[1], "tp", 2);

    (void)state;
    assert_int_equal(put_text(store, from, &sks[0], 10, "tp", "ten", NULL), 0);
    uint64_t verified = stat_of(store).verified;
    assert_int_equal(verified, 1);

    struct item_ref *bad = dht_item(&sks[0], 9, "tp", "nine");
    bad->item.sig.b[0] ^= 1;
    assert_int_equal(put_value(store, from, bad, NULL), ERR_SEQ); /* not: signature */
    item_ref_put(bad);
    assert_int_equal(put_text(store, from, &sks[0], 10, "tp", "ten", NULL), ERR_SEQ);
    assert_int_equal(put_text(store, from, &sks[0], 99, "tp", "foreign", &elsewhere), ERR_REFUSED);
    assert_int_equal(stat_of(store).verified, verified);

    bad = dht_item(&sks[0], 11, "tp", "eleven");
    bad->item.sig.b[0] ^= 1;
    assert_int_equal(put_value(store, from, bad, NULL), ERR_SIG);
    assert_int_equal(stat_of(store).verified, verified + 1);
    item_ref_put(bad);
}

/* Incident 56: heartbeats that change nothing cost one signature check in all, and the list that changes
 * one each time. */
static void test_incident_56_unchanged_items_cost_nothing(void **state)
{
    struct net_node *store = net_add(&n, NULL);
    struct net_node *owner = net_add_key(&n, NULL, &sks[3]), *other = net_add(&n, NULL);
    struct item_ref *item = dht_item(&sks[3], 10, "tp", "[]");

    (void)state;
    n.json = false;
    net_run(&n, 1000);
    uint64_t before = stat_of(store).verified;
    for (unsigned i = 0; i < 10000; i++) {
        assert_int_equal(put_value(store, i % 2 == 0 ? owner : other, item, NULL),
                         i == 0 ? 0 : ERR_SEQ);
        net_run(&n, 50);
    }
    assert_int_equal(stat_of(store).verified, before + 1);
    assert_true(stat_of(store).verify_skipped >= 9999);
    item_ref_put(item);
    for (unsigned i = 11; i < 21; i++)
        assert_int_equal(put_text(store, owner, &sks[3], i, "tp", "[]", NULL), 0);
    assert_int_equal(stat_of(store).verified, before + 11);
}

/* Incident 74: a node that serves strangers for days remembers a bounded number of them, and after a
 * quiet time none but its contacts. */
static void test_incident_74_strangers_are_forgotten(void **state)
{
    enum { STRANGERS = 8000 };
    struct net_node *node = net_add(&n, NULL);
    struct kad_msg req;
    size_t most = 0;

    (void)state;
    for (unsigned i = 0; i < STRANGERS; i++) {
        struct kad_id id;
        prop_bytes(&n.rnd, &id, sizeof id);
        kad_msg_init(&req, KAD_FIND_NODE, false);
        req.read_only = i % 4 != 0; /* most only ask */
        kad_request(node->kad, peers_add_id(&n.peers, &id), &req, i, n.now_ns);
        for (struct kad_act a; kad_next(node->kad, &a); kad_act_clear(&a))
            continue;
        if (i % 100 == 0) {
            size_t refs = peers_refs(&n.peers);
            most = refs > most ? refs : most;
        }
    }
    assert_true(most < 4096 + 2 * 256); /* notes, and buckets with their caches */
    net_run(&n, 300000);
    assert_true(peers_refs(&n.peers) < 2 * 256);
}

static void test_incident_57_flood_of_bad_signatures(void **state)
{
    struct net_node *store = net_add(&n, NULL), *bad = net_add(&n, NULL);
    struct net_node *good = net_add(&n, NULL);
    unsigned closed = 0;

    (void)state;
    n.json = false;
    struct item_ref *item = dht_item(&sks[0], 1, "tp", "v");
    item->item.sig.b[5] ^= 1;
    for (unsigned i = 0; i < 10000; i++) { /* in one second */
        item->item.seq = i;
        closed += put_value(store, bad, item, NULL) == 1;
        if (i % 100 == 0) {
            assert_int_equal(put_text(store, good, &sks[1], i + 1, "tp", "fine", NULL), 0);
            net_run(&n, 10);
        }
    }
    item_ref_put(item);
    assert_true(closed > 9900);
    assert_true(stat_of(store).verified < 100 + 20);
    assert_true(stat_of(store).refused_rate + stat_of(store).refused_shunned > 9900);
    assert_true(stat_of(store).shunned > 0);
    net_run(&n, 660000); /* and it is forgiven */
    assert_int_equal(put_text(store, bad, &sks[2], 1, "tp", "now good", NULL), 0);
}

/* Incident 60, the store: whoever signs what does not belong to the slot gets no place in it. */
static void test_incident_60_foreign_items_in_the_store(void **state)
{
    struct kad_cfg cfg = {.full = true, .mirrors = &pks[5], .n_mirrors = 1};
    struct net_node *store = net_add(&n, &cfg), *from = net_add(&n, NULL);
    const char *salts[] = {"dmsg", "tp"};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        const char *salt = salts[i];
        struct kad_id victim = kad_target(&pks[0], salt, strlen(salt));
        assert_int_equal(put_text(store, from, &sks[1], UINT64_MAX, salt, "evil", &victim),
                         ERR_REFUSED);
        assert_int_equal(put_text(store, from, &sks[0], 7, salt, "honest", NULL), 0);
        assert_int_equal(put_text(store, from, &sks[1], UINT64_MAX, salt, "evil", &victim),
                         ERR_REFUSED);
        /* A configured mirror has a slot of its own under the target, and ranks below. */
        assert_int_equal(put_text(store, from, &sks[5], UINT64_MAX, salt, "mirrored", &victim), 0);
        assert_true(holds(store, &victim, ITEM_OWNER, "honest"));
        assert_true(holds(store, &victim, ITEM_MIRROR, "mirrored"));
        assert_int_equal(put_text(store, from, &sks[0], 8, salt, "honest again", NULL), 0);
        net_assert_value(net_get(store, &pks[0], salt, 0), "honest again");
    }
}

static void test_incident_60_by_batch(void **state)
{
    struct net_node *store = net_add(&n, NULL), *from = net_add(&n, NULL);
    struct kad_id victim = kad_target(&pks[0], "tp", 2);
    struct kad_msg req, rsp;
    struct item_ref *items[4] = {
        dht_item(&sks[1], UINT64_MAX, "tp", "evil"), dht_item(&sks[0], 3, "tp", "honest"),
        dht_item(&sks[0], 4, "tp", "bad signature"), dht_item(&sks[0], 3, "tp", "honest")};

    (void)state;
    items[2]->item.sig.b[1] ^= 1;
    kad_msg_init(&req, KAD_PUT_BATCH, false);
    assert_int_equal(kad_msg_add_item(&req, items[0], &victim), 0);
    assert_int_equal(kad_msg_add_item(&req, items[1], NULL), 0);
    assert_int_equal(kad_msg_add_item(&req, items[2], &victim), 0);
    assert_int_equal(kad_msg_add_item(&req, items[3], &victim), 0);
    assert_true(net_ask(store, from, &req, &rsp));
    assert_int_equal(rsp.n_items, 4);
    assert_int_equal(rsp.items[0].result, ERR_REFUSED);
    assert_int_equal(rsp.items[1].result, 0);
    assert_int_equal(rsp.items[2].result, ERR_SIG);
    assert_int_equal(rsp.items[3].result, 0); /* it is there: nothing to complain of */
    kad_msg_clear(&rsp);
    assert_true(holds(store, &victim, ITEM_OWNER, "honest"));
    for (size_t i = 0; i < 4; i++)
        item_ref_put(items[i]);
}

/* Design rule 2: an entry that certifies itself may be carried by anybody. */
static void test_entries_that_certify_themselves(void **state)
{
    struct net_node *store = net_add(&n, NULL), *carrier = net_add(&n, NULL);
    struct kad_id slot = kad_target(&pks[0], "dmsg", 4), wrong = kad_target(&pks[1], "dmsg", 4);
    char *one = entry_text(0, 1000, 1), *two = entry_text(0, 2000, 0),
         *tie = entry_text(0, 2000, 1);
    char *bad = entry_text(0, 3000, 3);
    struct store_rec r;

    (void)state;
    n.deferred = true;
    store->env.deferred = true;
    assert_int_equal(put_text(store, carrier, &carrier->sk, 50, "dmsg", two, &slot), 0);
    assert_true(holds(store, &slot, ITEM_CERT, two));
    /* Ranked by the entry's time and number, never by the carrier's seq. */
    assert_int_equal(put_text(store, carrier, &carrier->sk, 99, "dmsg", one, &slot), 0);
    assert_true(holds(store, &slot, ITEM_CERT, two));
    assert_int_equal(put_text(store, carrier, &sks[3], 1, "dmsg", tie, &slot), 0);
    assert_true(holds(store, &slot, ITEM_CERT, tie));
    /* Not for another slot, not under another salt, not with a signature that does not fit. */
    assert_int_equal(put_text(store, carrier, &sks[3], 2, "dmsg", tie, &wrong), ERR_REFUSED);
    struct kad_id tp = kad_target(&pks[0], "tp", 2);
    assert_int_equal(put_text(store, carrier, &sks[3], 2, "tp", tie, &tp), ERR_REFUSED);
    char *digit = strstr(bad, "\"signature\":\"") + 20;
    *digit = *digit == '1' ? '2' : '1';
    assert_int_equal(put_text(store, carrier, &sks[3], 3, "dmsg", bad, &slot), ERR_SIG);
    assert_true(holds(store, &slot, ITEM_CERT, tie));
    /* Charged to the key of the entry. */
    assert_int_equal(store->store->ops->get(store->store, &slot, ITEM_CERT, &r), 0);
    assert_true(pubkey_equal(&r.charged, &pks[0]));
    /* The owner's own item stands before it, and beside it. */
    net_assert_value(net_get(store, &pks[0], "dmsg", 0), tie);
    assert_int_equal(put_text(store, carrier, &sks[0], 1, "dmsg", "own", NULL), 0);
    net_assert_value(net_get(store, &pks[0], "dmsg", 0), "own");
    assert_true(holds(store, &slot, ITEM_CERT, tie));
    free(one);
    free(two);
    free(tie);
    free(bad);
}

/* What a carrier brought lives ten minutes, and as long again each time it is brought again. */
static void test_carried_entries_need_renewal(void **state)
{
    struct net_node *store = net_add(&n, NULL), *carrier = net_add(&n, NULL);
    struct kad_id slot = kad_target(&pks[0], "dmsg", 4);
    char *text = entry_text(0, 1000, 1);
    uint64_t seq = 1;

    (void)state;
    for (int i = 0; i < 4; i++) {
        assert_int_equal(put_text(store, carrier, &carrier->sk, seq++, "dmsg", text, &slot), 0);
        net_run(&n, 8 * MINUTE_MS);
        struct kad_report r = net_get(store, &pks[0], "dmsg", 0);
        net_assert_value(r, text);
    }
    net_run(&n, 3 * MINUTE_MS);
    struct kad_report r = net_get(store, &pks[0], "dmsg", 0);
    assert_int_equal(r.err, ERR_NOT_FOUND);
    net_report_clear(&r);
    assert_int_equal(put_text(store, carrier, &carrier->sk, seq++, "dmsg", text, &slot), 0);
    net_assert_value(net_get(store, &pks[0], "dmsg", 0), text);
    free(text);
}

/* dht.md §8.2 point 13. */
static void test_tombstones(void **state)
{
    struct net_node *store = net_add(&n, NULL), *from = net_add(&n, NULL);
    const char *salts[] = {"dmsg", "svc:vpn"};

    (void)state;
    net_run(&n, 3000);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(put_text(store, from, &sks[0], 1, salts[i], "there", NULL), 0);
        assert_int_equal(put_text(store, from, &sks[0], 2, salts[i], "{}", NULL), 0);
        struct kad_report r = net_get(from, &pks[0], salts[i], 0);
        assert_int_equal(r.err, ERR_NOT_FOUND);
        assert_non_null(r.item); /* gone, and this is the proof */
        net_report_clear(&r);
    }
    assert_int_equal(put_text(store, from, &sks[0], 1, "other", "{}", NULL), 0);
    net_assert_value(net_get(from, &pks[0], "other", 0), "{}");
    assert_int_equal(put_text(store, from, &sks[0], 1, "tp", "[]", NULL), 0);
    net_assert_value(net_get(from, &pks[0], "tp", 0), "[]");

    /* Ours: published, kept for a lifetime, not republished. */
    struct kad_report r = net_put(from, "dmsg", "{}");
    assert_int_equal(r.err, 0);
    net_report_clear(&r);
    net_run(&n, 5 * 60 * MINUTE_MS);
    assert_int_equal(stat_of(from).republished, 0);
    assert_int_equal(net_holders(&n, &from->pk, "dmsg", 0), 0);
}

/* Incident 63: the lifetime runs from the last put, whatever is restarted. */
static void test_incident_63_restart_renews_nothing(void **state)
{
    struct kad_cfg cfg = {.trusted = &pks[1], .n_trusted = 1};
    struct net_node *store = net_add(&n, &cfg), *from = net_add(&n, NULL);

    (void)state;
    assert_int_equal(put_text(store, from, &sks[0], 1, "tp", "public", NULL), 0);
    assert_int_equal(put_text(store, from, &sks[1], 1, "tp", "trusted", NULL), 0);
    net_run(&n, 110 * MINUTE_MS);
    for (int i = 0; i < 8; i++) {
        for (size_t key = 0; key < 2; key++) {
            struct kad_report r = net_get(store, &pks[key], "tp", 0);
            assert_int_equal(r.err, 0);
            net_report_clear(&r);
        }
        net_restart(store, false);
        net_run(&n, MINUTE_MS);
    }
    net_run(&n, 3 * MINUTE_MS);
    for (size_t key = 0; key < 2; key++) { /* trust extends quota, not lifetime */
        struct kad_report r = net_get(store, &pks[key], "tp", 0);
        assert_true(r.err < 0);
        net_report_clear(&r);
    }
    /* Expired records block old numbers until they are swept, one lifetime later. */
    assert_int_equal(put_text(store, from, &sks[0], 1, "tp", "public", NULL), ERR_SEQ);
    net_run(&n, 121 * MINUTE_MS);
    struct kad_id slot = kad_target(&pks[0], "tp", 2);
    assert_false(holds(store, &slot, ITEM_OWNER, "public"));
    assert_int_equal(put_text(store, from, &sks[0], 1, "tp", "public", NULL), 0);
}

/* dht.md §8.2 point 15: what is stored neither dies nor lives on by a jump of the clock. */
static void test_clock_jumps_do_not_touch_lifetimes(void **state)
{
    struct net_node *store = net_add(&n, NULL), *from = net_add(&n, NULL);

    (void)state;
    assert_int_equal(put_text(store, from, &sks[0], 1, "tp", "v", NULL), 0);
    store->skew_ns = INT64_C(86400) * 365 * (int64_t)NS_PER_S;
    net_run(&n, 60 * MINUTE_MS);
    net_assert_value(net_get(store, &pks[0], "tp", 0), "v");
    store->skew_ns = -store->skew_ns;
    net_run(&n, 50 * MINUTE_MS);
    net_assert_value(net_get(store, &pks[0], "tp", 0), "v");
    net_run(&n, 11 * MINUTE_MS);
    struct kad_report r = net_get(store, &pks[0], "tp", 0);
    assert_true(r.err < 0);
    net_report_clear(&r);
}

/* Started with a clock far behind: what was stored under the right one is not served for years. */
static void test_started_with_a_clock_far_behind(void **state)
{
    struct net_node *store = net_add(&n, NULL), *from = net_add(&n, NULL);

    (void)state;
    assert_int_equal(put_text(store, from, &sks[0], 1, "tp", "v", NULL), 0);
    struct kad_report r = net_put(store, "dmsg", "own");
    net_report_clear(&r);
    store->skew_ns = -INT64_C(86400) * 365 * (int64_t)NS_PER_S;
    net_restart(store, false);
    r = net_get(store, &pks[0], "tp", 0);
    assert_true(r.err < 0);
    net_report_clear(&r);
    net_assert_value(net_get(store, &store->pk, "dmsg", 0), "own");
}

/* Copies that come from others are as old as their number says. */
static void test_lifetime_of_copies(void **state)
{
    struct net_node *store = net_add(&n, NULL), *owner = net_add(&n, NULL);
    struct net_node *other = net_add(&n, NULL);
    uint64_t now = (uint64_t)store->env.wall_ns;
    struct kad_id slot = kad_target(&owner->pk, "tp", 2), slot2 = kad_target(&owner->pk, "x", 1);
    struct store_rec copy, r;

    (void)state;
    assert_int_equal(put_text(store, other, &owner->sk, now - 90 * 60 * NS_PER_S, "tp", "v", NULL),
                     0);
    assert_int_equal(store->store->ops->get(store->store, &slot, ITEM_OWNER, &copy), 0);
    assert_int_equal(put_text(store, owner, &owner->sk, now - 90 * 60 * NS_PER_S, "x", "v", NULL),
                     0);
    assert_int_equal(store->store->ops->get(store->store, &slot2, ITEM_OWNER, &r), 0);
    assert_int_equal(r.expires_ns - r.stored_ns, 120 * 60 * (int64_t)NS_PER_S);
    assert_true(copy.expires_ns - r.stored_ns <= 30 * 60 * (int64_t)NS_PER_S);
}

/* Whoever hands an item on may have missed a newer one: it is served, and no answer for our own user
 * before the network was asked. What its owner puts is one. */
static void test_what_is_handed_on_is_not_fresh(void **state)
{
    struct net_node *store = net_add(&n, NULL), *owner = net_add(&n, NULL);
    struct net_node *other = net_add(&n, NULL);
    uint64_t now = (uint64_t)store->env.wall_ns;
    struct store_rec r;
    bool fresh = true;

    (void)state;
    assert_int_equal(put_text(store, other, &owner->sk, now - 2 * NS_PER_S, "x", "old", NULL), 0);
    assert_int_equal(kad_local(store->kad, &owner->pk, "x", 1, &r, &fresh, n.now_ns), 0);
    assert_false(fresh);
    assert_int_equal(put_text(store, owner, &owner->sk, now - NS_PER_S, "x", "new", NULL), 0);
    assert_int_equal(kad_local(store->kad, &owner->pk, "x", 1, &r, &fresh, n.now_ns), 0);
    assert_true(fresh);
}

/* Put count items of 20 kB under ten keys whose slots share with the node's ID no bit (far) or at
 * least two; returns how many were taken. */
static size_t flood(struct net_node *store, struct net_node *from, bool near, size_t count)
{
    static char big[20001];
    size_t taken = 0, sent = 0;

    memset(big, 'x', sizeof big - 1);
    for (unsigned i = 0; sent < count; i++) {
        char salt[16];
        snprintf(salt, sizeof salt, "%u", i / 10);
        struct kad_id slot = kad_target(&pks[i % 10], salt, strlen(salt));
        unsigned cpl = kad_id_cpl(&slot, &store->id);
        if (near ? cpl < 2 : cpl > 0)
            continue;
        taken += put_text(store, from, &sks[i % 10], 1, salt, big, NULL) == 0;
        sent++;
        net_run(&n, 1);
    }
    return taken;
}

/* Incident 65: bytes are bounded; what is ours and what is near survives a flood. */
static void test_incident_65_byte_budget(void **state)
{
    struct kad_cfg cfg = {.limits = {.max_bytes = 1 << 20, .rate_per_s = 100000}};
    struct net_node *store = net_add(&n, &cfg), *from = net_add(&n, NULL);
    struct store_stat st;

    (void)state;
    n.json = false;
    struct kad_report rep = net_put(store, "dmsg", "my own");
    assert_int_equal(rep.err, 0);
    net_report_clear(&rep);
    assert_int_equal(flood(store, from, true, 51), 51); /* 51 of them fill it */
    assert_int_equal(flood(store, from, false, 200), 0);
    assert_true(stat_of(store).refused_space >= 200);
    assert_int_equal(stat_of(store).evicted_items, 0);
    store->store->ops->stat(store->store, &st);
    assert_true(st.bytes <= 1 << 20);
    net_assert_value(net_get(store, &store->pk, "dmsg", 0), "my own");
}

/* A full node keeps the newest, within its bytes, and never gives up its own. */
static void test_incident_65_full_node(void **state)
{
    struct kad_cfg cfg = {.full = true, .limits = {.max_bytes = 1 << 20, .rate_per_s = 100000}};
    struct net_node *store = net_add(&n, &cfg), *from = net_add(&n, NULL);
    struct store_stat st;

    (void)state;
    n.json = false;
    struct kad_report rep = net_put(store, "dmsg", "my own");
    assert_int_equal(rep.err, 0);
    net_report_clear(&rep);
    assert_int_equal(flood(store, from, false, 200), 200);
    store->store->ops->stat(store->store, &st);
    assert_true(st.bytes <= 1 << 20 && st.bytes > (1 << 20) - 25000);
    assert_true(stat_of(store).evicted_items >= 149);
    net_assert_value(net_get(store, &store->pk, "dmsg", 0), "my own");
}

static void test_quota_per_key(void **state)
{
    struct kad_cfg cfg = {.whitelisted = &pks[1],
                          .n_whitelisted = 1,
                          .trusted = &pks[2],
                          .n_trusted = 1,
                          .limits = {.slots_per_key = 3, .rate_per_s = 1000}};
    struct net_node *store = net_add(&n, &cfg), *from = net_add(&n, NULL);

    (void)state;
    for (size_t key = 0; key < 3; key++) {
        for (unsigned i = 0; i < 6; i++) {
            char salt[8];
            snprintf(salt, sizeof salt, "s%u", i);
            int want = key == 0 && i >= 3 ? ERR_QUOTA : 0;
            assert_int_equal(put_text(store, from, &sks[key], 1, salt, "v", NULL), want);
        }
        assert_int_equal(put_text(store, from, &sks[key], 2, "s1", "update", NULL), 0);
    }
    assert_int_equal(stat_of(store).refused_quota, 3);
}

/* A node that cannot check signatures fast enough refuses; it neither waits nor stores. */
static void test_full_queue_of_checks(void **state)
{
    struct kad_cfg cfg = {.limits = {.max_pending = 4, .rate_per_s = 1000}};
    struct net_node *store = net_add(&n, &cfg), *from = net_add(&n, NULL);

    (void)state;
    store->env.pk_cap = 0;
    assert_int_equal(put_text(store, from, &sks[0], 1, "tp", "v", NULL), ERR_BUSY);
    assert_int_equal(stat_of(store).refused_busy, 1);
    store->env.pk_cap = 100;
    store->env.deferred = true;
    for (unsigned i = 0; i < 10; i++) { /* all at once; answers are not waited for */
        struct item_ref *item = dht_item(&sks[i], 1, "tp", "v");
        struct kad_msg m;
        kad_msg_init(&m, KAD_PUT_VALUE, false);
        assert_int_equal(kad_msg_add_item(&m, item, NULL), 0);
        item_ref_put(item);
        struct kad_act a;
        kad_request(store->kad, from->peer, &m, 1, n.now_ns);
        unsigned refused = 0;
        while (kad_next(store->kad, &a)) {
            refused += a.type == KAD_ACT_REFUSE && a.err == ERR_BUSY;
            kad_act_clear(&a);
        }
        assert_int_equal(refused, i >= 4);
    }
    assert_int_equal(stat_of(store).pending, 4);
    while (env_test_run(&store->env, 1) > 0)
        continue;
    struct kad_act a;
    unsigned replies = 0;
    while (kad_next(store->kad, &a)) {
        replies += a.type == KAD_ACT_REPLY && a.msg.stored;
        kad_act_clear(&a);
    }
    assert_int_equal(replies, 4);
    assert_int_equal(stat_of(store).pending, 0);
}

/* Incident 67: 500 requests at once from 50 peers: each is answered or refused explicitly, and who was
 * refused does not take the node for dead. */
static void test_incident_67_burst_of_requests(void **state)
{
    struct kad_cfg cfg = {.limits = {.rate_per_s = 2}}; /* bursts of 8 */
    struct net_node *store = net_add(&n, &cfg), *peers[50];
    uint32_t ops[50][10];
    unsigned refused = 0;

    (void)state;
    n.json = false;
    for (size_t i = 0; i < 50; i++)
        peers[i] = net_add(&n, NULL);
    net_run(&n, 30000);
    size_t contacts = stat_of(peers[7]).routing_peers;
    for (size_t i = 0; i < 50; i++) {
        for (size_t j = 0; j < 10; j++)
            ops[i][j] = kad_ping(peers[i]->kad, store->peer, NULL, n.now_ns);
        peers[i]->dirty = true;
    }
    for (size_t i = 0; i < 50; i++) {
        for (size_t j = 0; j < 10; j++) {
            struct kad_report r = net_wait(peers[i], ops[i][j]);
            assert_true(r.err == 0 || r.err == ERR_EOF);
            assert_true(r.ended_ns - r.started_ns < NS_PER_S);
            refused += r.err != 0;
        }
    }
    assert_in_range(refused, 50, 250);
    assert_true(stat_of(store).refused_rate >= refused);
    assert_true(stat_of(peers[7]).routing_peers >= contacts);
}

/* Requests that no codec should let through do not hurt. */
static void test_malformed_requests(void **state)
{
    struct net_node *store = net_add(&n, NULL), *from = net_add(&n, NULL);

    (void)state;
    n.json = false;
    for (unsigned method = 0; method < 12; method++) {
        struct kad_msg req, rsp;
        kad_msg_init(&req, (enum kad_method)method, false);
        bool answered = net_ask(store, from, &req, &rsp);
        bool want = method == KAD_PING || method == KAD_FIND_NODE || method == KAD_GET_VALUE ||
                    method == KAD_GET_ITEMS || method == KAD_PUT_BATCH || method == KAD_WATCH;
        assert_int_equal(answered, want);
        kad_msg_clear(&rsp);
    }
    struct kad_msg req, rsp;
    kad_msg_init(&req, KAD_PUT_BATCH, false);
    assert_int_equal(kad_msg_add_item(&req, NULL, NULL), 0);
    assert_false(net_ask(store, from, &req, &rsp));
}

static uint64_t expires_in_ms(struct net_node *node, const struct kad_id *target,
                              enum item_kind kind)
{
    struct store_rec r;

    assert_int_equal(node->store->ops->get(node->store, target, kind, &r), 0);
    return (uint64_t)(r.expires_ns - env_wall_ns(&node->env.env)) / NS_PER_MS;
}

/* What a service mirrors lives for two hours when it comes from the service, and ends when that takes it
 * back; copies that others hand on renew nothing (incident 63). */
static void test_entries_of_a_mirror(void **state)
{
    struct kad_cfg cfg = {.full = true, .mirrors = &pks[5], .n_mirrors = 1};
    struct net_node *store = net_add(&n, &cfg), *mirror = net_add_key(&n, NULL, &sks[5]),
                    *other = net_add(&n, NULL);
    struct kad_id slot = kad_target(&pks[0], "dmsg", 4);
    int64_t wall = env_wall_ns(&store->env.env);
    char *one = entry_text(0, wall, 1), *two = entry_text(0, wall + 1, 2);

    (void)state;
    assert_int_equal(put_text(store, other, &sks[6], 1, "dmsg", one, &slot), 0); /* a facade's */
    assert_true(expires_in_ms(store, &slot, ITEM_CERT) <= 10 * MINUTE_MS);
    assert_int_equal(put_text(store, mirror, &sks[5], 1, "dmsg", one, &slot), 0);
    assert_true(expires_in_ms(store, &slot, ITEM_CERT) > 110 * MINUTE_MS);
    assert_int_equal(put_text(store, mirror, &sks[5], 2, "dmsg", two, &slot), 0);
    net_run(&n, 60 * MINUTE_MS);
    assert_int_equal(put_text(store, other, &sks[5], 2, "dmsg", two, &slot), 0);
    assert_true(expires_in_ms(store, &slot, ITEM_CERT) < 61 * MINUTE_MS);
    assert_int_equal(put_text(store, mirror, &sks[5], 2, "dmsg", two, &slot), 0);
    assert_true(expires_in_ms(store, &slot, ITEM_CERT) > 110 * MINUTE_MS);
    net_assert_value(net_get(store, &pks[0], "dmsg", 0), two);

    wall = env_wall_ns(&store->env.env);
    assert_int_equal(put_text(store, mirror, &sks[5], (uint64_t)wall, "dmsg", "{}", &slot), 0);
    assert_false(holds(store, &slot, ITEM_CERT, two));
    (void)put_text(store, other, &sks[5], 2, "dmsg", two, &slot); /* an old copy */
    assert_false(holds(store, &slot, ITEM_CERT, two));
    char *back = entry_text(0, wall + 1, 3);
    assert_int_equal(put_text(store, mirror, &sks[5], 3, "dmsg", back, &slot), 0);
    net_assert_value(net_get(store, &pks[0], "dmsg", 0), back);
    free(one);
    free(two);
    free(back);
}

/* A mirror's batch: signed once for many subjects, no quota, and what the peer does not take is told. */
static void test_batch_of_a_mirror(void **state)
{
    struct kad_cfg cfg = {.full = true, .mirrors = &pks[5], .n_mirrors = 1};
    struct net_node *full = net_add(&n, &cfg), *mirror = net_add_key(&n, NULL, &sks[5]),
                    *stranger = net_add_key(&n, NULL, &sks[6]);
    struct kad_batch_item items[KAD_BATCH_ITEMS + 1];
    struct item_ref *shared = dht_item(&sks[5], 7, "tp", "[]"),
                    *evil = dht_item(&sks[6], 7, "tp", "[]");
    size_t taken;

    (void)state;
    net_run(&n, 1000);
    for (size_t i = 0; i <= KAD_BATCH_ITEMS; i++) {
        struct pubkey subject = pks[0];
        subject.b[1] = (uint8_t)i;
        subject.b[2] = (uint8_t)(i >> 8);
        items[i] = (struct kad_batch_item){shared, kad_target(&subject, "tp", 2)};
    }
    uint32_t op =
        kad_put_batch(mirror->kad, full->peer, items, KAD_BATCH_ITEMS + 1, &taken, NULL, n.now_ns);
    assert_int_equal(taken, KAD_BATCH_ITEMS);
    struct kad_report r = net_wait(mirror, op);
    assert_int_equal(r.err, 0);
    assert_int_equal(r.type, KAD_OP_BATCH);
    assert_int_equal(r.pushed, KAD_BATCH_ITEMS);
    assert_int_equal(r.refused, 0);
    net_report_clear(&r);
    assert_true(holds(full, &items[0].target, ITEM_MIRROR, "[]"));
    assert_true(holds(full, &items[KAD_BATCH_ITEMS - 1].target, ITEM_MIRROR, "[]"));

    items[0].item = evil;
    r = net_wait(stranger,
                 kad_put_batch(stranger->kad, full->peer, items, 1, &taken, NULL, n.now_ns));
    assert_int_equal(r.err, 0);
    assert_int_equal(r.refused, 1);
    net_report_clear(&r);
    full->mode = NET_DOWN;
    r = net_wait(mirror, kad_put_batch(mirror->kad, full->peer, items, 1, &taken, NULL, n.now_ns));
    assert_true(r.err != 0);
    net_report_clear(&r);
    item_ref_put(shared);
    item_ref_put(evil);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_entries_of_a_mirror, setup, teardown),
        cmocka_unit_test_setup_teardown(test_batch_of_a_mirror, setup, teardown),
        cmocka_unit_test_setup_teardown(test_incident_57_cheap_checks_first, setup, teardown),
        cmocka_unit_test_setup_teardown(test_incident_56_unchanged_items_cost_nothing, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_incident_74_strangers_are_forgotten, setup, teardown),
        cmocka_unit_test_setup_teardown(test_incident_57_flood_of_bad_signatures, setup, teardown),
        cmocka_unit_test_setup_teardown(test_incident_60_foreign_items_in_the_store, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_incident_60_by_batch, setup, teardown),
        cmocka_unit_test_setup_teardown(test_entries_that_certify_themselves, setup, teardown),
        cmocka_unit_test_setup_teardown(test_carried_entries_need_renewal, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tombstones, setup, teardown),
        cmocka_unit_test_setup_teardown(test_incident_63_restart_renews_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_clock_jumps_do_not_touch_lifetimes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_started_with_a_clock_far_behind, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lifetime_of_copies, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_handed_on_is_not_fresh, setup, teardown),
        cmocka_unit_test_setup_teardown(test_incident_65_byte_budget, setup, teardown),
        cmocka_unit_test_setup_teardown(test_incident_65_full_node, setup, teardown),
        cmocka_unit_test_setup_teardown(test_quota_per_key, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full_queue_of_checks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_incident_67_burst_of_requests, setup, teardown),
        cmocka_unit_test_setup_teardown(test_malformed_requests, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
