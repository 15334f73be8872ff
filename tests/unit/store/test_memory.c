#include "store/memory.h"

#include "base/err.h"
#include "tests/unit/kademlia/dht_items.h"
#include "tests/unit/prop.h"

#define S(store) (store)->ops

static json_t *root;
static struct store *store;

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
    return store_memory_new(&store, 0);
}

static int teardown(void **state)
{
    (void)state;
    S(store)->close(store);
    return 0;
}

/* A record of an item in its own slot. */
static struct store_rec rec_of(struct item_ref *r)
{
    return (struct store_rec){.target = item_target(&r->item),
                              .kind = ITEM_OWNER,
                              .item = r->item,
                              .expires_ns = INT64_MAX,
                              .tier = ITEM_TIER_PUBLIC,
                              .origin = STORE_REPLICA,
                              .charged = r->item.k,
                              .ref = r};
}

/* Unsigned items do: signatures are no business of the store. */
static struct store_rec make_rec(unsigned key, uint64_t seq, const char *salt, const char *v)
{
    struct item it = {.seq = seq,
                      .salt = (const uint8_t *)salt,
                      .salt_len = strlen(salt),
                      .v = (const uint8_t *)v,
                      .v_len = strlen(v)};

    it.k.b[0] = 2;
    it.k.b[1] = (uint8_t)key;
    return (struct store_rec){.target = item_target(&it),
                              .item = it,
                              .expires_ns = INT64_MAX,
                              .origin = STORE_REPLICA,
                              .charged = it.k};
}

static int put(const struct store_rec *rec)
{
    return S(store)->put(store, rec);
}

static uint64_t count(void)
{
    struct store_stat st;

    S(store)->stat(store, &st);
    return st.items;
}

static bool stored_is(const struct kad_id *target, enum item_kind kind, const char *v)
{
    struct store_rec out;

    assert_int_equal(S(store)->get(store, target, kind, &out), 0);
    return out.item.v_len == strlen(v) && memcmp(out.item.v, v, out.item.v_len) == 0;
}

/* The first of store_sequences: rules of seq in one slot, on recorded items. */
static void test_sequence_vectors(void **state)
{
    size_t i;
    const json_t *seq = json_array_get(vec_get(root, "store_sequences"), 0), *op;

    (void)state;
    assert_string_equal(vec_str(seq, "name"), "sequence rules");
    json_array_foreach(vec_get(seq, "ops"), i, op)
    {
        const json_t *p = vec_get(op, "put");
        struct seckey sk;
        struct pubkey pk;
        dht_key(root, vec_str(p, "key"), &sk, &pk);
        struct item_ref *r = dht_item(&sk, dht_u64(p, "seq"), vec_str(p, "salt"), vec_str(p, "v"));
        struct store_rec rec = rec_of(r);
        int want = strcmp(vec_str(op, "result"), "ok") == 0 ? 0 : ERR_SEQ;

        if (want != 0)
            assert_string_equal(item_error_text(want, &r->item), vec_str(op, "result"));
        assert_int_equal(put(&rec), want);
        assert_true(stored_is(&rec.target, ITEM_OWNER, vec_str(op, "stored_v_after")));
        assert_int_equal(count(), 1);
        item_ref_put(r);
    }
    assert_int_equal(i, 11);
}

/* store_sequences, "mirror puts and own puts share one slot": here kinds have slots of their own
 * under one target (design §6, rule 2), so a mirror can neither replace nor block the owner's item.
 * Among mirrored items, and among own ones, seq decides as upstream. */
static void test_mirror_vectors(void **state)
{
    size_t i;
    const json_t *seq = json_array_get(vec_get(root, "store_sequences"), 4), *op;
    struct pubkey subject;

    (void)state;
    assert_string_equal(vec_str(seq, "name"),
                        "mirror puts and own puts share one slot; only seq decides");
    dht_key(root, "key3", NULL, &subject);
    const struct kad_id target = kad_target(&subject, "tp", 2);
    uint64_t best[2] = {0, 0};
    json_array_foreach(vec_get(seq, "ops"), i, op)
    {
        const json_t *own = json_object_get(op, "put");
        const json_t *p = own != NULL ? own : vec_get(op, "put_mirror");
        struct seckey sk;
        struct pubkey pk;
        dht_key(root, vec_str(p, own != NULL ? "key" : "signer"), &sk, &pk);
        struct item_ref *r = dht_item(&sk, dht_u64(p, "seq"), vec_str(p, "salt"), vec_str(p, "v"));
        struct store_rec rec = rec_of(r);
        rec.target = target;
        rec.kind = own != NULL ? ITEM_OWNER : ITEM_MIRROR;
        uint64_t *b = &best[own != NULL];

        assert_int_equal(put(&rec), r->item.seq > *b ? 0 : ERR_SEQ);
        if (r->item.seq > *b) {
            *b = r->item.seq;
            assert_true(stored_is(&target, rec.kind, vec_str(p, "v")));
        }
        item_ref_put(r);
    }
    assert_int_equal(i, 7);
    /* Upstream ends with "mirror8" alone. */
    assert_true(stored_is(&target, ITEM_OWNER, "own7"));
    assert_true(stored_is(&target, ITEM_MIRROR, "mirror8"));
}

struct listed {
    const json_t *want; /* "seq:key/salt" in order */
    size_t n;
};

static bool match_listed(void *arg, const struct store_rec *rec)
{
    struct listed *l = arg;
    const char *text = json_string_value(json_array_get(l->want, l->n++));
    unsigned long long seq;
    char key[16], salt[16], got[16] = "";
    struct pubkey pk;

    assert_non_null(text);
    assert_int_equal(sscanf(text, "%llu:%15[^/]/%15s", &seq, key, salt), 3);
    dht_key(root, key, NULL, &pk);
    memcpy(got, rec->item.salt, rec->item.salt_len);
    assert_string_equal(got, salt);
    assert_true(rec->item.seq == seq);
    assert_true(pubkey_equal(&rec->item.k, &pk));
    return true;
}

static void test_page_vectors(void **state)
{
    size_t i;
    const json_t *v, *pages = vec_get(root, "get_items_pages");

    (void)state;
    json_array_foreach(vec_get(pages, "store"), i, v)
    {
        struct seckey sk;
        struct pubkey pk;
        struct kad_id want;
        dht_key(root, vec_str(v, "key"), &sk, &pk);
        struct item_ref *r = dht_item(&sk, dht_u64(v, "seq"), vec_str(v, "salt"), "v");
        struct store_rec rec = rec_of(r);
        vec_hex(v, "target", &want, sizeof want);
        assert_true(kad_id_equal(&rec.target, &want));
        assert_int_equal(put(&rec), 0);
        item_ref_put(r);
    }
    assert_int_equal(i, 8);
    json_array_foreach(vec_get(pages, "queries"), i, v)
    {
        struct listed l = {.want = vec_get(v, "items")};
        const char *salt = vec_str(v, "salt");
        long long limit = vec_int(v, "limit");
        bool more;
        /* Empty salt and a limit of 0 or less are the wire's way to say all, and 1000. */
        struct store_page page = {.salt = salt[0] != '\0' ? (const uint8_t *)salt : NULL,
                                  .salt_len = strlen(salt),
                                  .since_seq = dht_u64(v, "since_seq"),
                                  .limit = limit > 0 ? (size_t)limit : 1000};

        assert_int_equal(S(store)->list(store, &page, match_listed, &l, &more), 0);
        assert_int_equal(l.n, json_array_size(l.want));
        assert_int_equal(more, vec_bool(v, "has_more"));
    }
    assert_int_equal(i, 13);
}

static bool count_visit(void *arg, const struct store_rec *rec)
{
    (void)rec;
    return --*(int *)arg != 0;
}

/* Byte limit: cut at a border of seqs, at least one seq is given, ties are never split. */
static void test_page_bytes(void **state)
{
    const size_t each = STORE_RECORD_OVERHEAD + 4 + 1;
    struct store_page page = {.limit = 1000};
    bool more;
    int left;

    (void)state;
    for (unsigned i = 0; i < 12; i++) { /* seqs 1 1 1 2 2 2 3 3 3 4 4 4 */
        struct store_rec rec = make_rec(i, 1 + i / 3, "s", "four");
        assert_int_equal(put(&rec), 0);
    }
    const struct {
        size_t max_bytes;
        int want;
        bool more;
    } cases[] = {
        {1, 3, true},        {3 * each, 3, true},    {6 * each - 1, 3, true},
        {6 * each, 6, true}, {12 * each, 12, false}, {12 * each - 1, 9, true},
        {0, 12, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        page.max_bytes = cases[i].max_bytes;
        left = 0;
        assert_int_equal(S(store)->list(store, &page, count_visit, &left, &more), 0);
        assert_int_equal(-left, cases[i].want);
        assert_int_equal(more, cases[i].more);
    }
    /* The caller stops: something remains, unless it was the last. */
    page.max_bytes = 0;
    left = 5;
    assert_int_equal(S(store)->list(store, &page, count_visit, &left, &more), 0);
    assert_int_equal(left, 0);
    assert_true(more);
    left = 12;
    assert_int_equal(S(store)->list(store, &page, count_visit, &left, &more), 0);
    assert_false(more);
    page.since_seq = UINT64_MAX;
    left = 0;
    assert_int_equal(S(store)->list(store, &page, count_visit, &left, &more), 0);
    assert_int_equal(left, 0);
    assert_false(more);
    /* A filter for the empty salt is no "every salt". */
    page = (struct store_page){.salt = (const uint8_t *)"", .limit = 10};
    assert_int_equal(S(store)->list(store, &page, count_visit, &left, &more), 0);
    assert_int_equal(left, 0);
}

/* Carried entries are ranked by what the entry says, not by the carrier's seq. */
static void test_cert_rank(void **state)
{
    struct store_rec rec = make_rec(1, 100, "dmsg", "a"), out;

    (void)state;
    rec.kind = ITEM_CERT;
    rec.rank_time = 50;
    rec.rank_seq = 7;
    rec.charged.b[5] = 9;
    assert_int_equal(put(&rec), 0);
    assert_int_equal(S(store)->get(store, &rec.target, ITEM_CERT, &out), 0);
    assert_int_equal(out.rank_time, 50);
    assert_int_equal(out.rank_seq, 7);
    assert_true(pubkey_equal(&out.charged, &rec.charged));

    rec.item.seq = 1000;
    assert_int_equal(put(&rec), ERR_SEQ);
    rec.rank_time = 49;
    rec.rank_seq = 8;
    assert_int_equal(put(&rec), ERR_SEQ);
    rec.rank_time = 50;
    assert_int_equal(put(&rec), 0);
    rec.item.seq = 1;
    rec.rank_time = 51;
    rec.rank_seq = 0;
    assert_int_equal(put(&rec), 0);

    uint64_t slots, bytes;
    assert_int_equal(S(store)->usage(store, &rec.charged, &slots, &bytes), 0);
    assert_int_equal(slots, 1);
    assert_int_equal(bytes, STORE_RECORD_OVERHEAD + 5);
    assert_int_equal(S(store)->usage(store, &rec.item.k, &slots, &bytes), 0);
    assert_int_equal(slots, 0);
    assert_int_equal(S(store)->get(store, &rec.target, ITEM_OWNER, &out), ERR_NOT_FOUND);
}

static void test_budget(void **state)
{
    const uint64_t each = STORE_RECORD_OVERHEAD + 1 + 10;
    struct store_rec out, rec;
    struct store_stat st;

    (void)state;
    S(store)->close(store);
    assert_int_equal(store_memory_new(&store, 3 * each), 0);
    for (unsigned i = 0; i < 3; i++) {
        rec = make_rec(i, 1, "s", "0123456789");
        assert_int_equal(put(&rec), 0);
    }
    rec = make_rec(3, 1, "s", "");
    assert_int_equal(put(&rec), ERR_NO_SPACE);
    rec = make_rec(0, 2, "s", "0123456789A"); /* one byte more than what it replaces */
    assert_int_equal(put(&rec), ERR_NO_SPACE);
    assert_true(stored_is(&rec.target, ITEM_OWNER, "0123456789"));
    rec = make_rec(0, 2, "s", "012345678");
    assert_int_equal(put(&rec), 0);
    S(store)->stat(store, &st);
    assert_int_equal(st.items, 3);
    assert_int_equal(st.bytes, 3 * each - 1);
    assert_int_equal(st.budget_bytes, 3 * each);
    assert_int_equal(st.refused_space, 2);
    assert_int_equal(st.puts, 4);
    rec = make_rec(1, 1, "s", "");
    assert_int_equal(S(store)->del(store, &rec.target, ITEM_OWNER), 0);
    assert_int_equal(S(store)->del(store, &rec.target, ITEM_OWNER), ERR_NOT_FOUND);
    assert_int_equal(S(store)->get(store, &rec.target, ITEM_OWNER, &out), ERR_NOT_FOUND);
    rec = make_rec(3, 1, "s", "");
    assert_int_equal(put(&rec), 0);
}

static void test_victim(void **state)
{
    static const struct {
        int64_t stored;
        enum store_origin origin;
        enum item_tier tier;
    } recs[] = {
        {10, STORE_OWN, ITEM_TIER_PUBLIC},        {11, STORE_REPLICA, ITEM_TIER_TRUSTED},
        {12, STORE_CACHE, ITEM_TIER_WHITELISTED}, {30, STORE_REPLICA, ITEM_TIER_PUBLIC},
        {20, STORE_REPLICA, ITEM_TIER_PUBLIC},    {90, STORE_CACHE, ITEM_TIER_PUBLIC},
        {80, STORE_CACHE, ITEM_TIER_PUBLIC},      {-5, STORE_REPLICA, ITEM_TIER_PUBLIC},
    };
    static const int order[] = {6, 5, 7, 4, 3};
    struct store_rec rec, out;
    struct store_stat st;

    (void)state;
    assert_int_equal(S(store)->victim(store, &out), ERR_NOT_FOUND);
    for (unsigned i = 0; i < 8; i++) {
        rec = make_rec(i, 1, "s", "v");
        rec.stored_ns = recs[i].stored;
        rec.origin = recs[i].origin;
        rec.tier = recs[i].tier;
        assert_int_equal(put(&rec), 0);
    }
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(S(store)->victim(store, &out), 0);
        assert_int_equal(out.item.k.b[1], order[i]);
        assert_int_equal(S(store)->del(store, &out.target, out.kind), 0);
    }
    assert_int_equal(S(store)->victim(store, &out), ERR_NOT_FOUND);
    rec = make_rec(0, 1, "s", "v");
    assert_int_equal(S(store)->del(store, &rec.target, rec.kind), 0);
    S(store)->stat(store, &st);
    assert_int_equal(st.evicted, 5); /* the last deletion was none */
    assert_int_equal(st.items, 2);
    assert_int_equal(st.by_tier[ITEM_TIER_TRUSTED], 1);
    assert_int_equal(st.by_origin[STORE_CACHE], 1);
    assert_int_equal(st.by_origin[STORE_REPLICA], 1);
    assert_int_equal(st.by_origin[STORE_OWN], 0);
}

static void test_touch_and_expire(void **state)
{
    struct store_rec rec, out;
    struct store_stat st;

    (void)state;
    for (unsigned i = 0; i < 10; i++) {
        rec = make_rec(i, 5, "s", "v");
        rec.expires_ns = 100 + (int64_t)i;
        rec.origin = STORE_CACHE;
        assert_int_equal(put(&rec), 0);
    }
    rec = make_rec(0, 1, "x", "y"); /* other bytes under a new target */
    assert_int_equal(S(store)->touch(store, &rec), ERR_NOT_FOUND);
    rec = make_rec(0, 0, "s", "ignored");
    rec.stored_ns = 77;
    rec.expires_ns = 1000;
    rec.origin = STORE_REPLICA;
    rec.tier = ITEM_TIER_TRUSTED;
    assert_int_equal(S(store)->touch(store, &rec), 0);
    assert_int_equal(S(store)->get(store, &rec.target, ITEM_OWNER, &out), 0);
    assert_int_equal(out.item.seq, 5);
    assert_int_equal(out.stored_ns, 77);
    assert_int_equal(out.expires_ns, 1000);
    assert_int_equal(out.tier, ITEM_TIER_TRUSTED);
    assert_int_equal(out.origin, STORE_REPLICA);
    assert_true(stored_is(&rec.target, ITEM_OWNER, "v"));

    assert_int_equal(S(store)->expire(store, 100, 99), 0);
    assert_int_equal(S(store)->expire(store, 105, 2), 2);
    assert_int_equal(S(store)->expire(store, 105, SIZE_MAX), 3);
    assert_int_equal(count(), 5);
    /* An expired record that was not swept still blocks (dht.md §2.3). */
    rec = make_rec(9, 5, "s", "again");
    assert_int_equal(put(&rec), ERR_SEQ);
    rec = make_rec(20, 1, "s", "for ever");
    assert_int_equal(put(&rec), 0);
    assert_int_equal(S(store)->expire(store, INT64_MAX, SIZE_MAX), 5);
    assert_int_equal(count(), 1);
    S(store)->stat(store, &st);
    assert_int_equal(st.expired, 10);
    assert_int_equal(st.by_tier[ITEM_TIER_PUBLIC], 1);
    assert_int_equal(st.by_tier[ITEM_TIER_TRUSTED], 0);
}

/* Stores share a counted item instead of copying it. */
static void test_shared_items(void **state)
{
    struct store_rec rec = make_rec(1, 1, "s", "v"), out;
    struct item_ref *r = item_ref_new(&rec.item);
    struct store *other;

    (void)state;
    assert_int_equal(store_memory_new(&other, 0), 0);
    rec.item = r->item;
    rec.ref = r;
    assert_int_equal(put(&rec), 0);
    assert_int_equal(S(other)->put(other, &rec), 0);
    assert_int_equal(r->refs, 3);
    assert_int_equal(S(store)->get(store, &rec.target, ITEM_OWNER, &out), 0);
    assert_ptr_equal(out.ref, r);
    S(other)->close(other);
    assert_int_equal(r->refs, 2);
    assert_int_equal(S(store)->del(store, &rec.target, ITEM_OWNER), 0);
    assert_int_equal(r->refs, 1);
    item_ref_put(r);

    /* Without one it makes its own copy. */
    char v[] = "mine";
    rec = make_rec(1, 1, "s", v);
    assert_int_equal(put(&rec), 0);
    v[0] = 'x';
    assert_true(stored_is(&rec.target, ITEM_OWNER, "mine"));
    assert_int_equal(S(store)->get(store, &rec.target, ITEM_OWNER, &out), 0);
    assert_non_null(out.ref);
}

static void test_meta(void **state)
{
    char name[STORE_NAME_MAX + 2], buf[8] = "";
    size_t n = 99;
    uint8_t *big = calloc(1, STORE_META_MAX + 1);

    (void)state;
    assert_non_null(big);
    assert_int_equal(S(store)->meta_get(store, "a", buf, 8, &n), ERR_NOT_FOUND);
    assert_int_equal(S(store)->meta_put(store, "a", "12345", 5), 0);
    assert_int_equal(S(store)->meta_put(store, "b", "", 0), 0);
    assert_int_equal(S(store)->meta_get(store, "a", buf, 3, &n), 0);
    assert_int_equal(n, 5);
    assert_string_equal(buf, "123");
    assert_int_equal(S(store)->meta_put(store, "a", "xyzxyzx", 7), 0);
    assert_int_equal(S(store)->meta_get(store, "a", buf, 8, &n), 0);
    assert_int_equal(n, 7);
    assert_string_equal(buf, "xyzxyzx");
    assert_int_equal(S(store)->meta_get(store, "b", NULL, 0, &n), 0);
    assert_int_equal(n, 0);
    memset(name, 'n', sizeof name);
    name[STORE_NAME_MAX + 1] = '\0';
    assert_int_equal(S(store)->meta_put(store, name, "v", 1), ERR_TOO_LONG);
    name[STORE_NAME_MAX] = '\0';
    assert_int_equal(S(store)->meta_put(store, name, "v", 1), 0);
    assert_int_equal(S(store)->meta_put(store, "a", big, STORE_META_MAX + 1), ERR_TOO_LONG);
    assert_int_equal(S(store)->meta_put(store, "a", big, STORE_META_MAX), 0);
    for (unsigned i = 3; i < STORE_MEMORY_MAX_META; i++) {
        snprintf(name, sizeof name, "seq/%u", i);
        assert_int_equal(S(store)->meta_put(store, name, "v", 1), 0);
    }
    assert_int_equal(S(store)->meta_put(store, "one more", "v", 1), ERR_LIMIT);
    assert_int_equal(S(store)->meta_put(store, "a", "v", 1), 0);
    assert_int_equal(S(store)->sync(store, 0), 0);
    free(big);
}

/* ---- against a plain model ---- */

#define SPACE 60 /* possible (target, kind) */

struct model {
    bool present[SPACE];
    struct store_rec rec[SPACE];
    char v[SPACE][32];
};

static struct model model;

static struct store_rec random_rec(struct prop *r, unsigned *where)
{
    static char v[32];
    unsigned i = (unsigned)prop_below(r, SPACE);
    size_t n = prop_below(r, 20);

    for (size_t j = 0; j < n; j++)
        v[j] = (char)('a' + prop_below(r, 26));
    v[n] = '\0';
    struct store_rec rec =
        make_rec(i / 15, prop_below(r, 12), (const char *[]){"a", "b", "c", "d", ""}[i % 5], v);
    rec.kind = (enum item_kind)(i / 5 % 3);
    if (rec.kind == ITEM_CERT) {
        rec.rank_time = (int64_t)prop_below(r, 4);
        rec.rank_seq = prop_below(r, 3);
        rec.charged.b[7] = (uint8_t)prop_below(r, 2);
    }
    rec.tier = (enum item_tier)prop_below(r, 3);
    rec.origin = (enum store_origin)prop_below(r, 3);
    rec.stored_ns = (int64_t)prop_below(r, 50);
    rec.expires_ns = prop_chance(r, 20) ? INT64_MAX : (int64_t)prop_below(r, 100);
    *where = i;
    return rec;
}

static bool model_newer(const struct store_rec *a, const struct store_rec *b)
{
    if (a->kind != ITEM_CERT)
        return a->item.seq > b->item.seq;
    return a->rank_time > b->rank_time ||
           (a->rank_time == b->rank_time && a->rank_seq > b->rank_seq);
}

static void model_set(unsigned i, const struct store_rec *rec)
{
    model.present[i] = true;
    model.rec[i] = *rec;
    memcpy(model.v[i], rec->item.v, rec->item.v_len);
    model.rec[i].item.v = (const uint8_t *)model.v[i];
}

static void assert_same(const struct store_rec *got, const struct store_rec *want)
{
    assert_true(kad_id_equal(&got->target, &want->target));
    assert_int_equal(got->kind, want->kind);
    assert_true(item_equal(&got->item, &want->item));
    assert_true(got->stored_ns == want->stored_ns && got->expires_ns == want->expires_ns);
    assert_true(got->tier == want->tier && got->origin == want->origin);
    assert_true(pubkey_equal(&got->charged, &want->charged));
    assert_true(got->rank_time == want->rank_time && got->rank_seq == want->rank_seq);
}

struct walk {
    size_t n, limit;
    struct store_rec last;
    bool by_seq;
};

static bool walk_step(void *arg, const struct store_rec *rec)
{
    struct walk *w = arg;
    size_t i;

    for (i = 0; i < SPACE; i++) {
        if (model.present[i] && model.rec[i].kind == rec->kind &&
            kad_id_equal(&model.rec[i].target, &rec->target))
            break;
    }
    assert_true(i < SPACE);
    assert_same(rec, &model.rec[i]);
    if (w->n > 0) {
        int c = kad_id_cmp(&w->last.target, &rec->target);
        c = c != 0 ? c : (int)w->last.kind - (int)rec->kind;
        if (w->by_seq && w->last.item.seq != rec->item.seq)
            c = w->last.item.seq < rec->item.seq ? -1 : 1;
        assert_true(c < 0);
    }
    w->last = *rec;
    w->n++;
    return true;
}

static void check_orders(struct prop *r)
{
    struct store_page page = {.limit = 1000, .since_seq = prop_below(r, 12)};
    struct walk w = {.by_seq = false}, by_seq = {.by_seq = true};
    struct store_stat st;
    uint64_t n = 0, later = 0, bytes = 0, slots, used, tier[3] = {0};
    struct pubkey who = make_rec((unsigned)prop_below(r, 4), 0, "", "").charged;
    uint64_t own = 0;
    bool more;

    for (size_t i = 0; i < SPACE; i++) {
        const struct store_rec *rec = &model.rec[i];
        if (!model.present[i])
            continue;
        n++;
        later += rec->item.seq > page.since_seq;
        bytes += rec->item.v_len + rec->item.salt_len + STORE_RECORD_OVERHEAD;
        tier[rec->tier]++;
        own += pubkey_equal(&rec->charged, &who);
    }
    S(store)->stat(store, &st);
    assert_int_equal(st.items, n);
    assert_int_equal(st.bytes, bytes);
    assert_memory_equal(st.by_tier, tier, sizeof tier);
    assert_int_equal(S(store)->scan(store, NULL, walk_step, &w), 0);
    assert_int_equal(w.n, n);
    assert_int_equal(S(store)->list(store, &page, walk_step, &by_seq, &more), 0);
    assert_int_equal(by_seq.n, later);
    assert_false(more);
    assert_int_equal(S(store)->usage(store, &who, &slots, &used), 0);
    assert_int_equal(slots, own);
    if (n > 0) { /* continue behind a target */
        struct kad_id after = w.last.target;
        int left = 0;
        S(store)->scan(store, &after, count_visit, &left);
        assert_int_equal(left, 0);
    }
}

static void model_expire(int64_t wall_ns)
{
    size_t n = 0;
    for (size_t i = 0; i < SPACE; i++) {
        bool gone = model.present[i] && model.rec[i].expires_ns <= wall_ns;
        n += gone;
        model.present[i] &= !gone;
    }
    assert_int_equal(S(store)->expire(store, wall_ns, 1000), n);
}

static void test_property(void **state)
{
    struct prop r = prop_init("memory store");
    unsigned i;

    (void)state;
    memset(&model, 0, sizeof model);
    for (int round = 0; round < 20000; round++) {
        struct store_rec rec = random_rec(&r, &i), out;
        switch (prop_below(&r, 8)) {
        case 0:
            assert_int_equal(S(store)->del(store, &rec.target, rec.kind),
                             model.present[i] ? 0 : ERR_NOT_FOUND);
            model.present[i] = false;
            break;
        case 1:
            assert_int_equal(S(store)->touch(store, &rec), model.present[i] ? 0 : ERR_NOT_FOUND);
            model.rec[i].stored_ns = rec.stored_ns;
            model.rec[i].expires_ns = rec.expires_ns;
            model.rec[i].tier = rec.tier;
            model.rec[i].origin = rec.origin;
            break;
        case 2:
            if (round % 50 == 0)
                model_expire((int64_t)prop_below(&r, 100));
            break;
        default: {
            bool ok = !model.present[i] || model_newer(&rec, &model.rec[i]);
            assert_int_equal(put(&rec), ok ? 0 : ERR_SEQ);
            if (ok)
                model_set(i, &rec);
            break;
        }
        }
        int rc = S(store)->get(store, &rec.target, rec.kind, &out);
        assert_int_equal(rc, model.present[i] ? 0 : ERR_NOT_FOUND);
        if (rc == 0)
            assert_same(&out, &model.rec[i]);
        if (round % 16 == 0)
            check_orders(&r);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_sequence_vectors), TEST(test_mirror_vectors),
        TEST(test_page_vectors),     TEST(test_page_bytes),
        TEST(test_cert_rank),        TEST(test_budget),
        TEST(test_victim),           TEST(test_touch_and_expire),
        TEST(test_shared_items),     TEST(test_meta),
        TEST(test_property),
    };
    return cmocka_run_group_tests(tests, setup_all, teardown_all);
}
