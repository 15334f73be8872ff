#include "kademlia/table.h"

#include "base/err.h"
#include "base/loop.h"
#include "tests/unit/kademlia/dht_items.h"
#include "tests/unit/kademlia/peers.h"
#include "tests/unit/prop.h"

#define K 20

static json_t *root;
static struct peers peers;
static struct table t;
static struct kad_id self;
static uint64_t now;

static int setup_all(void **state)
{
    (void)state;
    root = vectors_load("dht");
    return crypto_init();
}

static int teardown_all(void **state)
{
    (void)state;
    json_decref(root);
    return 0;
}

static int setup(void **state)
{
    (void)state;
    memset(&self, 0x5a, sizeof self);
    now = 1000 * NS_PER_S;
    peers_init(&peers);
    table_init(&t, &self, &peers.ops, K, now);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    table_close(&t);
    peers_close(&peers);
    return 0;
}

/* A peer of that bucket; n tells apart. */
static kad_peer peer_in(unsigned bucket, unsigned n)
{
    uint8_t bits[KAD_ID_BYTES] = {0};

    assert_true(n < 0x10000 && bucket < 240);
    bits[30] = (uint8_t)(n >> 8);
    bits[31] = (uint8_t)n;
    struct kad_id id = table_range_id(&t, bucket, bits);
    assert_int_equal(kad_id_bucket(&self, &id), bucket);
    return peers_add_id(&peers, &id);
}

static enum table_result hear(kad_peer p)
{
    return table_heard(&t, p, true, now, NULL);
}

/* K contacts of one bucket, a minute apart; afterwards the oldest is peer_in(bucket, 0). */
static void fill(unsigned bucket)
{
    for (unsigned i = 0; i < K; i++) {
        now += 60 * NS_PER_S;
        assert_int_equal(hear(peer_in(bucket, i)), TABLE_INSERTED);
    }
    now += 60 * NS_PER_S;
}

static void test_closest_vectors(void **state)
{
    size_t i, j;
    const json_t *v, *name;

    (void)state;
    for (i = 0; i < 7; i++) {
        struct pubkey pk;
        char key[8];
        snprintf(key, sizeof key, "key%zu", i);
        dht_key(root, key, NULL, &pk);
        assert_int_equal(hear(peers_add(&peers, &pk)), TABLE_INSERTED);
    }
    json_array_foreach(vec_get(root, "closest_order"), i, v)
    {
        struct kad_id target;
        kad_peer out[K];

        vec_hex(v, "target", &target, sizeof target);
        assert_int_equal(table_closest(&t, &target, out, K), 7);
        json_array_foreach(vec_get(v, "closest_first"), j, name)
        {
            struct pubkey pk;
            dht_key(root, json_string_value(name), NULL, &pk);
            assert_memory_equal(peers.ops.pk(peers.ops.arg, out[j]), &pk, sizeof pk);
        }
        assert_int_equal(j, 7);
        assert_int_equal(table_closest(&t, &target, out, 3), 3);
        assert_int_equal(table_closest(&t, &target, out, 0), 0);
    }
    assert_int_equal(i, 3);
}

static void test_self_is_never_stored(void **state)
{
    kad_peer me = peers_add_id(&peers, &self), ask;

    (void)state;
    assert_int_equal(table_heard(&t, me, true, now, &ask), TABLE_SELF);
    assert_int_equal(table_count(&t), 0);
    assert_false(table_has(&t, me));
    assert_int_equal(table_failed(&t, me), TABLE_UNKNOWN);
    /* The nearest possible neighbour is one, in the last bucket. */
    struct kad_id id = self;
    id.b[31] ^= 1;
    kad_peer next = peers_add_id(&peers, &id), out[2];
    assert_int_equal(hear(next), TABLE_INSERTED);
    assert_int_equal(table_closest(&t, &self, out, 2), 1);
    assert_int_equal(out[0], next);
    assert_int_equal(table_buckets(&t), 1);
}

/* dht.md §8.2, 3: the head of a full bucket is pinged; it lives, so the newcomer stays outside. */
static void test_full_bucket_head_lives(void **state)
{
    kad_peer ask, head, newcomer;

    (void)state;
    fill(3);
    head = peer_in(3, 0);
    newcomer = peer_in(3, 100);
    assert_int_equal(table_heard(&t, newcomer, true, now, &ask), TABLE_FULL);
    assert_int_equal(ask, head);
    assert_false(table_has(&t, newcomer));
    /* One question at a time. */
    assert_int_equal(table_heard(&t, peer_in(3, 101), false, now, &ask), TABLE_FULL);
    assert_int_equal(ask, KAD_PEER_NONE);

    assert_int_equal(table_heard(&t, head, true, now, &ask), TABLE_REFRESHED);
    assert_int_equal(ask, KAD_PEER_NONE);
    assert_true(table_has(&t, head));
    assert_false(table_has(&t, newcomer));
    assert_int_equal(table_count(&t), K);
    /* The next newcomer leads to the next oldest. */
    assert_int_equal(table_heard(&t, peer_in(3, 102), true, now, &ask), TABLE_FULL);
    assert_int_equal(ask, peer_in(3, 1));
    /* Other buckets have room. */
    assert_int_equal(hear(peer_in(4, 0)), TABLE_INSERTED);
}

/* dht.md §8.2, 3: a dead head gives way, after two questions, to the most recent newcomer. */
static void test_full_bucket_head_is_dead(void **state)
{
    kad_peer ask, head;

    (void)state;
    fill(3);
    head = peer_in(3, 0);
    for (unsigned i = 100; i < 103; i++)
        assert_int_equal(table_heard(&t, peer_in(3, i), true, now, &ask), TABLE_FULL);
    assert_int_equal(table_failed(&t, head), TABLE_ASK);
    assert_true(table_has(&t, head));
    assert_int_equal(table_failed(&t, head), TABLE_REPLACED);
    assert_false(table_has(&t, head));
    assert_true(table_has(&t, peer_in(3, 102)));
    assert_false(table_has(&t, peer_in(3, 101)));
    assert_int_equal(table_count(&t), K);
    assert_int_equal(t.evictions, 1);
    assert_int_equal(peers.list[head]->refs, 0);
}

/* Newcomers in plenty must not turn into pings in plenty. */
static void test_quiet(void **state)
{
    kad_peer ask;

    (void)state;
    for (unsigned i = 0; i < K; i++)
        hear(peer_in(0, i));
    for (unsigned i = 0; i < 1000; i++) {
        assert_int_equal(table_heard(&t, peer_in(0, 100 + i), false, now, &ask), TABLE_FULL);
        assert_int_equal(ask, KAD_PEER_NONE);
    }
    assert_int_equal(peers_refs(&peers), K + TABLE_CACHE);
    now += TABLE_QUIET_NS;
    table_heard(&t, peer_in(0, 100), false, now, &ask);
    assert_int_equal(ask, peer_in(0, 0));
    table_ask_dropped(&t, ask);
    table_heard(&t, peer_in(0, 101), false, now, &ask);
    assert_int_equal(ask, peer_in(0, 0));
}

/* A peer that waits and is heard again moves to the front; one that fails is out. */
static void test_cache_order(void **state)
{
    kad_peer head;

    (void)state;
    fill(1);
    head = peer_in(1, 0);
    for (unsigned i = 100; i < 104; i++)
        hear(peer_in(1, i));
    assert_int_equal(hear(peer_in(1, 101)), TABLE_FULL);
    assert_int_equal(table_failed(&t, peer_in(1, 103)), TABLE_REMOVED);
    assert_int_equal(t.evictions, 0);
    table_failed(&t, head);
    assert_int_equal(table_failed(&t, head), TABLE_REPLACED);
    assert_true(table_has(&t, peer_in(1, 101)));
    assert_int_equal(table_failed(&t, peer_in(1, 1)), TABLE_ASK);
    assert_int_equal(table_failed(&t, peer_in(1, 1)), TABLE_REPLACED);
    assert_true(table_has(&t, peer_in(1, 102)));
}

/* Without anybody waiting: doubtful, hidden, revived, forgotten. */
static void test_failures(void **state)
{
    kad_peer p = peer_in(7, 1), other = peer_in(7, 2), out[4];
    struct kad_id target = self;

    (void)state;
    hear(p);
    hear(other);
    for (unsigned i = 1; i < TABLE_DEAD; i++) {
        assert_int_equal(table_failed(&t, p), TABLE_KEPT);
        assert_int_equal(table_closest(&t, &target, out, 4), 2);
    }
    assert_int_equal(table_failed(&t, p), TABLE_KEPT);
    assert_int_equal(table_closest(&t, &target, out, 4), 1);
    assert_int_equal(out[0], other);
    assert_int_equal(table_count(&t), 1);
    assert_true(table_has(&t, p));

    assert_int_equal(hear(p), TABLE_REFRESHED);
    assert_int_equal(table_count(&t), 2);
    for (unsigned i = 1; i < TABLE_FORGET; i++)
        assert_int_equal(table_failed(&t, p), TABLE_KEPT);
    assert_int_equal(table_failed(&t, p), TABLE_REMOVED);
    assert_false(table_has(&t, p));
    assert_int_equal(table_count(&t), 1);
    assert_int_equal(table_failed(&t, p), TABLE_UNKNOWN);
}

/* Calling in shows life, not that the caller can be reached. */
static void test_calling_in_is_half_an_answer(void **state)
{
    kad_peer p = peer_in(0, 0);

    (void)state;
    hear(p);
    table_failed(&t, p);
    table_failed(&t, p);
    table_failed(&t, p);
    assert_int_equal(table_count(&t), 0);
    assert_int_equal(table_heard(&t, p, false, now, NULL), TABLE_REFRESHED);
    assert_int_equal(table_count(&t), 1);
    table_failed(&t, p);
    assert_int_equal(table_count(&t), 1);
    table_failed(&t, p);
    assert_int_equal(table_count(&t), 0);
}

/* A dead contact of a full bucket yields to the next newcomer at once. */
static void test_dead_yields(void **state)
{
    kad_peer ask;

    (void)state;
    fill(2);
    for (unsigned i = 0; i < TABLE_DEAD; i++)
        table_failed(&t, peer_in(2, 5));
    assert_int_equal(table_heard(&t, peer_in(2, 100), false, now, &ask), TABLE_INSERTED);
    assert_int_equal(ask, KAD_PEER_NONE);
    assert_false(table_has(&t, peer_in(2, 5)));
    assert_int_equal(table_count(&t), K);
}

static void test_remove(void **state)
{
    kad_peer ask;

    (void)state;
    fill(2);
    table_heard(&t, peer_in(2, 100), false, now, &ask);
    table_heard(&t, peer_in(2, 101), false, now, &ask);
    assert_true(table_remove(&t, peer_in(2, 100)));
    assert_false(table_remove(&t, peer_in(2, 100)));
    assert_true(table_remove(&t, peer_in(2, 3)));
    assert_true(table_has(&t, peer_in(2, 101)));
    assert_int_equal(table_count(&t), K);
    assert_true(table_remove(&t, peer_in(2, 4)));
    assert_int_equal(table_count(&t), K - 1);
    assert_int_equal(t.evictions, 0);
}

static void test_refresh(void **state)
{
    const uint64_t every = 900 * NS_PER_S;
    uint64_t due;

    (void)state;
    assert_int_equal(table_refresh_next(&t, every, now + 10 * every, &due), -1);
    assert_true(due == UINT64_MAX);
    hear(peer_in(5, 0));
    /* Buckets 0 … 5 have never been looked up since the table's birth. */
    assert_int_equal(table_refresh_next(&t, every, now, &due), -1);
    assert_true(due > now + every - 2 * NS_PER_S && due <= now + every);
    now += every;
    for (unsigned i = 0; i <= 5; i++) {
        uint8_t random[KAD_ID_BYTES];
        memset(random, 0x33, sizeof random);
        int index = table_refresh_next(&t, every, now, NULL);
        assert_int_equal(index, i);
        struct kad_id id = table_range_id(&t, (unsigned)index, random);
        assert_int_equal(kad_id_bucket(&self, &id), index);
        table_looked_up(&t, &id, now);
    }
    assert_int_equal(table_refresh_next(&t, every, now, &due), -1);
    assert_true(due > now);
    /* What lies deeper than every contact refreshes the deepest bucket. */
    now += every - 10 * NS_PER_S;
    table_looked_up(&t, &self, now);
    now += 10 * NS_PER_S;
    for (unsigned i = 0; i < 5; i++) {
        int index = table_refresh_next(&t, every, now, NULL);
        assert_int_equal(index, i);
        struct kad_id id = table_range_id(&t, i, self.b);
        table_looked_up(&t, &id, now);
    }
    assert_int_equal(table_refresh_next(&t, every, now, NULL), -1);
}

static void test_range_id(void **state)
{
    struct prop r = prop_init("range ids");
    struct kad_id seen = {{0}};

    (void)state;
    for (unsigned i = 0; i < KAD_ID_BITS; i++) {
        uint8_t random[KAD_ID_BYTES];
        prop_bytes(&r, random, sizeof random);
        struct kad_id id = table_range_id(&t, i, random);
        assert_int_equal(kad_id_cpl(&self, &id), i);
        for (unsigned j = 0; i == 0 && j < KAD_ID_BYTES; j++)
            seen.b[j] = id.b[j] ^ random[j];
    }
    /* Everything behind the bit that must differ is random. */
    for (unsigned j = 1; j < KAD_ID_BYTES; j++)
        assert_int_equal(seen.b[j], 0);
}

struct seen {
    unsigned n;
    unsigned bucket;
    uint64_t last;
};

static bool count_contact(void *arg, const struct kad_contact *c)
{
    struct seen *s = arg;

    assert_true(c->bucket >= s->bucket);
    if (c->bucket == s->bucket)
        assert_true(c->last_seen_ns >= s->last);
    assert_true(c->last_seen_ns <= now && now - c->last_seen_ns < 3000 * NS_PER_S);
    s->bucket = c->bucket;
    s->last = c->last_seen_ns;
    return ++s->n < 25;
}

static void test_contacts(void **state)
{
    struct seen s = {0};

    (void)state;
    fill(3);
    fill(9);
    table_contacts(&t, count_contact, &s);
    assert_int_equal(s.n, 25);
    assert_int_equal(s.bucket, 9);
    assert_int_equal(table_buckets(&t), 2);
}

static kad_peer real_peer(unsigned n)
{
    struct seckey sk;
    struct pubkey pk;

    assert_int_equal(crypto_keypair_from_seed(&sk, &pk, (const uint8_t *)&n, sizeof n), 0);
    return peers_add(&peers, &pk);
}

static void test_save_load(void **state)
{
    uint8_t buf[8192];
    struct pubkey keys[256];
    size_t n, count;

    (void)state;
    assert_int_equal(table_save(&t, buf, sizeof buf, &n), 0);
    assert_int_equal(n, 3);
    assert_int_equal(table_load(buf, n, keys, 256, &count), 0);
    assert_int_equal(count, 0);

    for (unsigned i = 0; i < 100; i++)
        hear(real_peer(i));
    size_t total = t.total;
    assert_int_equal(table_save(&t, buf, sizeof buf, &n), 0);
    assert_int_equal(n, 3 + total * PUBKEY_BYTES);
    assert_int_equal(table_load(buf, n, keys, 256, &count), 0);
    assert_int_equal(count, total);
    for (size_t i = 0; i < count; i++)
        assert_true(table_has(&t, peers_add(&peers, &keys[i])));
    assert_int_equal(table_load(buf, n, keys, 5, &count), 0);
    assert_int_equal(count, 5);

    /* Cut short: whole keys, and no bucket is lost as long as there is room for one each. */
    size_t buckets = table_buckets(&t), cut = 3 + buckets * PUBKEY_BYTES;
    assert_int_equal(table_save(&t, buf, cut + 5, &n), 0);
    assert_int_equal(n, cut);
    assert_int_equal(table_load(buf, n, keys, 256, &count), 0);
    bool has[KAD_ID_BITS] = {false};
    for (size_t i = 0; i < count; i++) {
        struct kad_id id = kad_id_of(&keys[i]);
        assert_false(has[kad_id_bucket(&self, &id)]);
        has[kad_id_bucket(&self, &id)] = true;
    }
    for (size_t cap = 0; cap < 3; cap++)
        assert_int_equal(table_save(&t, buf, cap, &n), ERR_TOO_LONG);
}

static void test_load_damaged(void **state)
{
    uint8_t buf[512];
    struct pubkey keys[16];
    size_t n, count = 99;

    (void)state;
    for (unsigned i = 0; i < 4; i++)
        hear(real_peer(i));
    assert_int_equal(table_save(&t, buf, sizeof buf, &n), 0);
    for (size_t cut = 0; cut < n; cut++) {
        assert_int_equal(table_load(buf, cut, keys, 16, &count), ERR_CORRUPT);
        assert_int_equal(count, 0);
    }
    assert_int_equal(table_load(buf, n + 1, keys, 16, &count), ERR_CORRUPT);
    buf[0] = 2;
    assert_int_equal(table_load(buf, n, keys, 16, &count), ERR_VERSION);
    buf[0] = 0;
    assert_int_equal(table_load(buf, n, keys, 16, &count), ERR_CORRUPT);
    buf[0] = 1;
    memset(buf + 3 + PUBKEY_BYTES, 0xff, PUBKEY_BYTES);
    assert_int_equal(table_load(buf, n, keys, 16, &count), ERR_CORRUPT);
    assert_int_equal(count, 0);
}

/* ---- against a plain model ---- */

static const struct kad_id *sort_target;

static int by_distance(const void *a, const void *b)
{
    const kad_peer *x = a, *y = b;
    return kad_id_closer(sort_target, peers.ops.id(peers.ops.arg, *x),
                         peers.ops.id(peers.ops.arg, *y));
}

struct live {
    kad_peer list[600];
    size_t n, dead;
    unsigned per_bucket[KAD_ID_BITS];
};

static bool note_live(void *arg, const struct kad_contact *c)
{
    struct live *l = arg;

    assert_int_equal(kad_id_bucket(&self, peers.ops.id(peers.ops.arg, c->peer)), c->bucket);
    assert_true(++l->per_bucket[c->bucket] <= K);
    if (c->unanswered >= TABLE_DEAD)
        l->dead++;
    else
        l->list[l->n++] = c->peer;
    return true;
}

static void check_against_model(struct prop *r, size_t n)
{
    struct live l = {.n = 0};
    struct kad_id target;
    kad_peer out[TABLE_MAX_K];

    table_contacts(&t, note_live, &l);
    assert_int_equal(l.n, table_count(&t));
    assert_int_equal(l.n + l.dead, t.total);
    prop_bytes(r, &target, sizeof target);
    size_t near = prop_below(r, 40);
    for (size_t i = 0; i < near; i++) /* share some bits with self */
        target.b[i / 8] =
            (uint8_t)((target.b[i / 8] & ~(0x80u >> i % 8)) | (self.b[i / 8] & (0x80u >> i % 8)));
    if (prop_chance(r, 10))
        target = self;
    sort_target = &target;
    qsort(l.list, l.n, sizeof l.list[0], by_distance);
    size_t got = table_closest(&t, &target, out, n);
    assert_int_equal(got, l.n < n ? l.n : n);
    for (size_t i = 0; i < got; i++)
        assert_int_equal(out[i], l.list[i]);
}

static void test_property(void **state)
{
    struct prop r = prop_init("routing table");
    kad_peer all[600];

    (void)state;
    for (size_t i = 0; i < 600; i++) {
        uint8_t random[KAD_ID_BYTES];
        prop_bytes(&r, random, sizeof random);
        unsigned bucket = (unsigned)prop_below(&r, 12);
        struct kad_id id = table_range_id(&t, prop_chance(&r, 50) ? bucket / 4 : bucket, random);
        all[i] = peers_add_id(&peers, &id);
    }
    for (int round = 0; round < 20000; round++) {
        kad_peer p = all[prop_below(&r, 600)];
        bool had = table_has(&t, p);
        switch (prop_below(&r, 10)) {
        case 0:
        case 1:
        case 2:
        case 3:
            assert_int_equal(table_failed(&t, p) == TABLE_UNKNOWN && had, false);
            break;
        case 4:
            table_remove(&t, p);
            assert_false(table_has(&t, p));
            break;
        default: {
            kad_peer ask;
            enum table_result res = table_heard(&t, p, prop_chance(&r, 70), now, &ask);
            assert_int_equal(had, res == TABLE_REFRESHED);
            assert_int_equal(table_has(&t, p), res != TABLE_FULL);
            if (ask != KAD_PEER_NONE)
                assert_true(res == TABLE_FULL && table_has(&t, ask));
            break;
        }
        }
        now += prop_below(&r, 20) * NS_PER_S;
        if (round % 20 == 0)
            check_against_model(&r, 1 + prop_below(&r, TABLE_MAX_K));
    }
    assert_true(t.evictions > 0);
}

/* ---- contacts behind the same relays ---- */

static kad_peer peer_of(unsigned bucket, unsigned i, uint32_t group)
{
    kad_peer p = peer_in(bucket, i);

    peers_set_group(&peers, p, group);
    return p;
}

struct group_count {
    uint32_t group;
    unsigned contacts;
};

static bool count_group(void *arg, const struct kad_contact *c)
{
    struct group_count *count = arg;

    count->contacts += c->group == count->group;
    return true;
}

static unsigned contacts_of(uint32_t group)
{
    struct group_count count = {.group = group};

    table_contacts(&t, count_group, &count);
    return count.contacts;
}

/* Incident 64: one relay may have a whole bucket; who answers from behind another one gets up to a quarter
 * of it, whoever only calls does not, and no third relay gets more. */
static void test_groups_in_a_full_bucket(void **state)
{
    (void)state;
    for (unsigned i = 0; i < K; i++) {
        now += 60 * NS_PER_S;
        assert_int_equal(hear(peer_of(3, i, 1)), TABLE_INSERTED);
    }
    now += 60 * NS_PER_S;
    assert_int_equal(hear(peer_of(3, 100, 1)), TABLE_FULL);
    assert_int_equal(hear(peer_of(3, 101, KAD_GROUP_NONE)), TABLE_FULL);
    assert_int_equal(table_heard(&t, peer_of(3, 102, 2), false, now, NULL), TABLE_FULL);
    assert_int_equal(contacts_of(1), K);
    assert_int_equal(hear(peer_of(3, 102, 2)), TABLE_INSERTED);
    assert_false(table_has(&t, peer_in(3, 0))); /* the one that was not heard for longest */
    for (unsigned i = 1; i < 20; i++) {
        enum table_result r = hear(peer_of(3, 110 + i, 2 + i % 3));
        assert_int_equal(r, i < K / 4 ? TABLE_INSERTED : TABLE_FULL);
    }
    assert_int_equal(contacts_of(1), TABLE_GROUP_SHARE(K));
    assert_int_equal(table_count(&t), K);
    assert_int_equal(t.diversified, K / 4);
    /* A place that becomes free goes to one of another group before one of the big one. */
    assert_int_equal(hear(peer_of(3, 140, 5)), TABLE_FULL);
    assert_int_equal(hear(peer_of(3, 141, 1)), TABLE_FULL);
    assert_true(table_remove(&t, peer_in(3, 119)) || table_remove(&t, peer_in(3, 102)));
    assert_true(table_has(&t, peer_in(3, 140)));
    assert_false(table_has(&t, peer_in(3, 141)));
}

/* Random contacts of four groups in three buckets: no bucket shrinks for the sake of groups, and a group that
 * has no more than its own places loses none to others that answer. */
static void test_groups_random(void **state)
{
    struct prop r = prop_init("table groups");

    (void)state;
    for (int i = 0; i < 20000; i++) {
        unsigned bucket = (unsigned)prop_below(&r, 3);
        unsigned number = (unsigned)prop_below(&r, 60);
        uint32_t group = number < 54 ? 1 : 2 + number % 3;
        unsigned before[5] = {0};
        size_t live = table_count(&t);
        uint64_t gone = t.evictions, diversified = t.diversified;
        for (uint32_t g = 1; g <= 4; g++)
            before[g] = contacts_of(g);
        now += prop_below(&r, 100) * NS_PER_S;
        (void)table_heard(&t, peer_of(bucket, number, group), prop_chance(&r, 70), now, NULL);
        assert_true(table_count(&t) >= live);
        for (uint32_t g = 2; g <= 4;
             g++) /* never more than a quarter of a bucket belongs to them */
            assert_true(contacts_of(g) >= before[g]);
        assert_true(contacts_of(1) + 1 >= before[1]);
        assert_int_equal(t.evictions - gone, t.diversified - diversified);
        if (t.diversified > diversified)
            assert_int_not_equal(group, 1);
    }
    assert_true(t.diversified > 0);
    assert_int_equal(table_count(&t), 3 * K);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_closest_vectors),
        TEST(test_groups_in_a_full_bucket),
        TEST(test_groups_random),
        TEST(test_self_is_never_stored),
        TEST(test_full_bucket_head_lives),
        TEST(test_full_bucket_head_is_dead),
        TEST(test_quiet),
        TEST(test_cache_order),
        TEST(test_failures),
        TEST(test_calling_in_is_half_an_answer),
        TEST(test_dead_yields),
        TEST(test_remove),
        TEST(test_refresh),
        TEST(test_range_id),
        TEST(test_contacts),
        TEST(test_save_load),
        TEST(test_load_damaged),
        TEST(test_property),
    };
    return cmocka_run_group_tests(tests, setup_all, teardown_all);
}
