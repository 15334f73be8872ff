/* Random operations on the LMDB store and on the memory store: same results, same contents. */
#include <stdio.h>

#include "store/memory.h"
#include "tests/unit/prop.h"
#include "tests/unit/store/stores.h"

#define PUBLISHERS 5
#define SALTS      4

static struct store *lmdb, *model;
static const char *const salts[SALTS] = {"", "a", "dmsg", "dmsg-longer"};
static uint8_t value[5000];

static struct store_rec random_record(struct prop *r)
{
    struct store_rec rec =
        record_of((unsigned)prop_below(r, PUBLISHERS), salts[prop_below(r, SALTS)], 0, NULL);

    /* Few seqs, so that there are ties, refusals and full pages. */
    rec.item.seq = prop_chance(r, 2) ? UINT64_MAX : prop_below(r, 12);
    rec.item.v_len = prop_chance(r, 5) ? prop_below(r, sizeof value) : prop_below(r, 30);
    rec.item.v = prop_chance(r, 5) ? NULL : value;
    rec.item.v_len = rec.item.v != NULL ? rec.item.v_len : 0;
    rec.kind = (enum item_kind)prop_below(r, ITEM_KIND__COUNT);
    rec.tier = prop_chance(r, 80) ? ITEM_TIER_PUBLIC : (enum item_tier)prop_below(r, 3);
    rec.origin = (enum store_origin)prop_below(r, 3);
    rec.stored_ns = (int64_t)prop_below(r, 20);
    rec.expires_ns = prop_chance(r, 20) ? INT64_MAX : (int64_t)prop_below(r, 1000);
    if (rec.kind == ITEM_CERT) {
        rec.rank_time = (int64_t)prop_below(r, 4) - 1;
        rec.rank_seq = prop_below(r, 4);
        rec.charged.b[32] = (uint8_t)prop_below(r, 3);
    }
    if (rec.kind == ITEM_MIRROR) /* several signers for one slot */
        rec.item.k.b[32] = rec.charged.b[32] = (uint8_t)prop_below(r, 3);
    return rec;
}

struct seen {
    size_t n, stop;
    struct store_rec rec[200];
};

static const uint8_t *copy_of(const uint8_t *p, size_t n)
{
    uint8_t *q = p != NULL ? malloc(n + 1) : NULL;

    if (n > 0)
        memcpy(q, p, n);
    return q;
}

static bool note(void *arg, const struct store_rec *rec)
{
    struct seen *seen = arg;

    assert_true(seen->n < 200);
    seen->rec[seen->n] = *rec;
    struct item *it = &seen->rec[seen->n++].item;
    /* The record is the visitor's only until it returns. */
    it->v = copy_of(it->v, it->v_len);
    it->salt = copy_of(it->salt, it->salt_len);
    return seen->n != seen->stop;
}

static void assert_same_seen(struct seen *a, struct seen *b)
{
    assert_int_equal(a->n, b->n);
    for (size_t i = 0; i < a->n; i++) {
        assert_true(record_same(&a->rec[i], &b->rec[i]));
        free((void *)a->rec[i].item.v), free((void *)a->rec[i].item.salt);
        free((void *)b->rec[i].item.v), free((void *)b->rec[i].item.salt);
    }
}

static void compare_list(struct prop *r)
{
    struct seen a = {0}, b = {0};
    bool more_a, more_b;
    const char *salt = prop_chance(r, 50) ? salts[prop_below(r, SALTS)] : NULL;
    struct store_page page = {.salt = (const uint8_t *)salt,
                              .salt_len = salt != NULL ? strlen(salt) : 0,
                              .since_seq = prop_chance(r, 5) ? UINT64_MAX : prop_below(r, 13),
                              .limit = 1 + prop_below(r, 30),
                              .max_bytes = prop_chance(r, 50) ? 1 + prop_below(r, 20000) : 0};

    a.stop = b.stop = prop_chance(r, 20) ? 1 + prop_below(r, 10) : 0;
    assert_int_equal(S(lmdb)->list(lmdb, &page, note, &a, &more_a), 0);
    assert_int_equal(S(model)->list(model, &page, note, &b, &more_b), 0);
    assert_int_equal(more_a, more_b);
    assert_same_seen(&a, &b);
}

static void compare_scan(struct prop *r)
{
    struct seen a = {0}, b = {0};
    struct store_rec rec = random_record(r);
    const struct kad_id *after = prop_chance(r, 50) ? &rec.target : NULL;

    a.stop = b.stop = prop_chance(r, 20) ? 1 + prop_below(r, 10) : 0;
    assert_int_equal(S(lmdb)->scan(lmdb, after, note, &a), 0);
    assert_int_equal(S(model)->scan(model, after, note, &b), 0);
    assert_same_seen(&a, &b);
}

static void compare_usage(struct prop *r)
{
    uint64_t slots[2], bytes[2];
    struct store_rec rec = random_record(r);

    assert_int_equal(S(lmdb)->usage(lmdb, &rec.charged, &slots[0], &bytes[0]), 0);
    assert_int_equal(S(model)->usage(model, &rec.charged, &slots[1], &bytes[1]), 0);
    assert_int_equal(slots[0], slots[1]);
    assert_int_equal(bytes[0], bytes[1]);
}

static void compare_get(struct prop *r)
{
    struct store_rec rec = random_record(r), a, b;
    int rc = S(lmdb)->get(lmdb, &rec.target, rec.kind, &a);

    assert_int_equal(rc, S(model)->get(model, &rec.target, rec.kind, &b));
    if (rc == 0)
        assert_true(record_same(&a, &b));
}

static void compare_victim(struct prop *r)
{
    struct store_rec a, b;
    int rc = S(lmdb)->victim(lmdb, &a);

    assert_int_equal(rc, S(model)->victim(model, &b));
    if (rc != 0)
        return;
    assert_true(record_same(&a, &b));
    if (prop_chance(r, 50)) {
        const struct kad_id target = a.target;
        assert_int_equal(S(lmdb)->del(lmdb, &target, a.kind), 0);
        assert_int_equal(S(model)->del(model, &target, a.kind), 0);
    }
}

static void compare_stat(void)
{
    struct store_stat a, b;

    S(lmdb)->stat(lmdb, &a);
    S(model)->stat(model, &b);
    assert_int_equal(a.items, b.items);
    assert_int_equal(a.bytes, b.bytes);
    assert_memory_equal(a.by_tier, b.by_tier, sizeof a.by_tier);
    assert_memory_equal(a.by_origin, b.by_origin, sizeof a.by_origin);
    assert_int_equal(a.refused_space + a.refused_seq, b.refused_space + b.refused_seq);
    assert_int_equal(a.evicted, b.evicted);
    assert_int_equal(a.expired, b.expired);
    assert_int_equal(a.corrupt, 0);
    assert_int_equal(a.last_error, 0);
}

static void write_both(struct prop *r)
{
    struct store_rec rec = random_record(r);

    switch (prop_below(r, 10)) {
    case 0:
        assert_int_equal(S(lmdb)->del(lmdb, &rec.target, rec.kind),
                         S(model)->del(model, &rec.target, rec.kind));
        break;
    case 1:
    case 2:
        assert_int_equal(S(lmdb)->touch(lmdb, &rec), S(model)->touch(model, &rec));
        break;
    case 3:
        if (prop_chance(r, 10)) {
            int64_t wall = (int64_t)prop_below(r, 300);
            size_t max = prop_below(r, 20);
            assert_int_equal(S(lmdb)->expire(lmdb, wall, max), S(model)->expire(model, wall, max));
        }
        break;
    default:
        assert_int_equal(S(lmdb)->put(lmdb, &rec), S(model)->put(model, &rec));
    }
}

static void compare_something(struct prop *r)
{
    switch (prop_below(r, 6)) {
    case 0:
        compare_list(r);
        break;
    case 1:
        compare_scan(r);
        break;
    case 2:
        compare_usage(r);
        break;
    case 3:
        compare_get(r);
        break;
    case 4:
        compare_victim(r);
        break;
    default:
        compare_stat();
    }
}

static void run(struct prop *r, unsigned commit_ms, uint64_t budget)
{
    char why[STORE_WHY_BYTES];
    struct store_lmdb_cfg cfg;
    struct store_stat before, after;

    stores_dir();
    cfg = stores_cfg();
    cfg.commit_ms = commit_ms;
    cfg.budget_bytes = budget;
    prop_bytes(r, cfg.hash_key, sizeof cfg.hash_key);
    prop_bytes(r, value, sizeof value);
    assert_int_equal(store_lmdb_open(&lmdb, &cfg, why, sizeof why), 0);
    assert_int_equal(store_memory_new(&model, budget), 0);
    for (unsigned i = 0; i < 12000; i++) {
        write_both(r);
        if (prop_chance(r, 30))
            compare_something(r);
        if (prop_chance(r, 1))
            assert_int_equal(S(lmdb)->sync(lmdb, 10000), 0);
    }
    compare_stat();
    S(lmdb)->stat(lmdb, &before);
    S(lmdb)->close(lmdb);
    assert_int_equal(store_lmdb_open(&lmdb, &cfg, why, sizeof why), 0);
    S(lmdb)->stat(lmdb, &after);
    assert_int_equal(after.items, before.items);
    assert_int_equal(after.bytes, before.bytes);
    assert_memory_equal(after.by_tier, before.by_tier, sizeof after.by_tier);
    assert_memory_equal(after.by_origin, before.by_origin, sizeof after.by_origin);
    for (unsigned i = 0; i < 300; i++) {
        compare_get(r);
        compare_list(r);
        compare_scan(r);
        compare_usage(r);
    }
    S(lmdb)->close(lmdb);
    S(model)->close(model);
    stores_remove();
}

/* Commits as fast as they come, so that every call may see another snapshot … */
static void test_fast_commits(void **state)
{
    struct prop r = prop_init("model, commit 1 ms");

    (void)state;
    run(&r, 1, 0);
}

/* … and hardly any, so that nearly all is in the overlay. */
static void test_slow_commits(void **state)
{
    struct prop r = prop_init("model, commit 300 ms");

    (void)state;
    run(&r, 300, 0);
}

static void test_budget(void **state)
{
    struct prop r = prop_init("model, budget");

    (void)state;
    run(&r, 2, 9000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fast_commits),
        cmocka_unit_test(test_slow_commits),
        cmocka_unit_test(test_budget),
    };

    if (crypto_init() != 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
