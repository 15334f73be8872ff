/* The LMDB store as its owner sees it; damage, full disks and crashes are in test_lmdb_faults. */
#include "store/lmdb.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/store/stores.h"

static struct store *s;
static const char *dir;

static int setup(void **state)
{
    (void)state;
    dir = stores_dir();
    s = stores_open();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (s != NULL)
        S(s)->close(s);
    stores_remove();
    return 0;
}

static void reopen(void)
{
    S(s)->close(s);
    s = stores_open();
}

static struct store_stat stat_of(void)
{
    struct store_stat st;

    S(s)->stat(s, &st);
    return st;
}

static void put(const struct store_rec *rec)
{
    assert_int_equal(S(s)->put(s, rec), 0);
}

static void sync_all(void)
{
    assert_int_equal(S(s)->sync(s, 10000), 0);
}

/* Run a check on the overlay, on the committed state and on a reopened store. */
static void in_all_states(void (*check)(void))
{
    check();
    sync_all();
    assert_int_equal(stat_of().pending, 0);
    check();
    reopen();
    check();
}

static void check_get(void)
{
    struct store_rec a = record_of(1, "dmsg", 5, "hello"), null = record_of(2, "", 1, NULL);
    struct store_rec empty = record_of(3, "", 1, "");

    assert_stored(s, &a);
    assert_stored(s, &null);
    assert_stored(s, &empty);
    a.kind = ITEM_CERT;
    assert_absent(s, &a);
    assert_int_equal(stat_of().items, 3);
    assert_int_equal(stat_of().bytes, 3 * STORE_RECORD_OVERHEAD + 9);
}

static void test_get(void **state)
{
    struct store_rec a = record_of(1, "dmsg", 5, "hello"), null = record_of(2, "", 1, NULL);
    struct store_rec empty = record_of(3, "", 1, "");

    (void)state;
    put(&a);
    put(&null);
    put(&empty);
    in_all_states(check_get);
}

static void check_seq(void)
{
    struct store_rec rec = record_of(1, "x", 5, "five"), low = record_of(1, "x", 4, "four");
    struct store_rec same = record_of(1, "x", 5, "other");

    assert_int_equal(S(s)->put(s, &low), ERR_SEQ);
    assert_int_equal(S(s)->put(s, &same), ERR_SEQ);
    assert_int_equal(S(s)->put(s, &rec), ERR_SEQ);
    assert_stored(s, &rec);
    assert_int_equal(stat_of().items, 1);
}

static void test_seq(void **state)
{
    struct store_rec rec = record_of(1, "x", 4, "four");

    (void)state;
    put(&rec);
    rec = record_of(1, "x", 5, "five");
    put(&rec);
    in_all_states(check_seq);
    rec = record_of(1, "x", UINT64_MAX, "last");
    put(&rec);
    assert_int_equal(S(s)->put(s, &rec), ERR_SEQ);
}

static struct store_rec cert(uint64_t seq, int64_t rank_time, uint64_t rank_seq)
{
    struct store_rec rec = record_of(9, "dmsg", seq, "entry");

    rec.kind = ITEM_CERT;
    rec.rank_time = rank_time;
    rec.rank_seq = rank_seq;
    rec.charged.b[32] = 77;
    return rec;
}

static void check_cert(void)
{
    const struct store_rec older[] = {cert(UINT64_MAX, 9, 99), cert(UINT64_MAX, 10, 5),
                                      cert(UINT64_MAX, 10, 4)};
    struct store_rec have = cert(1, 10, 5);

    for (size_t i = 0; i < sizeof older / sizeof older[0]; i++)
        assert_int_equal(S(s)->put(s, &older[i]), ERR_SEQ);
    assert_stored(s, &have);
}

/* Carried entries are ranked by the entry, never by the carrier's seq. */
static void test_cert(void **state)
{
    struct store_rec rec = cert(100, 10, 4);

    (void)state;
    put(&rec);
    rec = cert(1, 10, 5);
    put(&rec);
    in_all_states(check_cert);
    rec = cert(0, 11, 0);
    put(&rec);
    assert_stored(s, &rec);
}

static void usage_of(const struct store_rec *rec, uint64_t *slots, uint64_t *bytes)
{
    assert_int_equal(S(s)->usage(s, &rec->charged, slots, bytes), 0);
}

static void check_usage(void)
{
    uint64_t slots, bytes;
    const struct store_rec one = record_of(1, "", 0, NULL), two = record_of(2, "", 0, NULL);
    const struct store_rec carried = cert(0, 0, 0), nobody = record_of(99, "", 0, NULL);

    usage_of(&one, &slots, &bytes);
    assert_int_equal(slots, 2);
    assert_int_equal(bytes, 2 * STORE_RECORD_OVERHEAD + 1 + 1 + 1 + 3);
    usage_of(&carried, &slots, &bytes);
    assert_int_equal(slots, 1);
    assert_int_equal(bytes, STORE_RECORD_OVERHEAD + 9);
    usage_of(&two, &slots, &bytes);
    assert_int_equal(slots, 0);
    assert_int_equal(bytes, 0);
    usage_of(&nobody, &slots, &bytes);
    assert_int_equal(slots, 0);
}

static void test_usage(void **state)
{
    struct store_rec rec = record_of(1, "a", 1, "x");

    (void)state;
    put(&rec);
    rec = record_of(1, "b", 1, "longer");
    put(&rec);
    sync_all();
    rec = record_of(1, "b", 2, "new");
    put(&rec);
    rec = record_of(2, "a", 1, "gone");
    put(&rec);
    assert_int_equal(S(s)->del(s, &rec.target, rec.kind), 0);
    rec = cert(1, 1, 1);
    put(&rec);
    in_all_states(check_usage);
}

static void check_deleted(void)
{
    struct store_rec a = record_of(1, "a", 2, "x"), b = record_of(2, "b", 1, "back");
    uint64_t slots, bytes;

    assert_absent(s, &a);
    assert_stored(s, &b);
    assert_int_equal(S(s)->del(s, &a.target, a.kind), ERR_NOT_FOUND);
    assert_int_equal(stat_of().items, 1);
    usage_of(&a, &slots, &bytes);
    assert_int_equal(slots, 0);
}

/* Deletion before and after the commit, and a lower seq after a deletion. */
static void test_del(void **state)
{
    struct store_rec a = record_of(1, "a", 2, "x"), b = record_of(2, "b", 5, "first");

    (void)state;
    put(&a);
    put(&b);
    assert_int_equal(S(s)->del(s, &b.target, b.kind), 0);
    sync_all();
    assert_int_equal(S(s)->del(s, &a.target, a.kind), 0);
    b = record_of(2, "b", 1, "back");
    put(&b);
    in_all_states(check_deleted);
}

static void check_touched(void)
{
    struct store_rec want = record_of(1, "a", 5, "x");

    want.stored_ns = 7777;
    want.expires_ns = 8888;
    want.tier = ITEM_TIER_TRUSTED;
    want.origin = STORE_OWN;
    assert_stored(s, &want);
    assert_int_equal(stat_of().by_tier[ITEM_TIER_TRUSTED], 1);
    assert_int_equal(stat_of().by_origin[STORE_OWN], 1);
    assert_int_equal(stat_of().by_origin[STORE_REPLICA], 0);
}

/* Before the commit, after it, and over a deletion. */
static void test_touch(void **state)
{
    struct store_rec rec = record_of(1, "a", 5, "x");

    (void)state;
    assert_int_equal(S(s)->touch(s, &rec), ERR_NOT_FOUND);
    put(&rec);
    for (int64_t i = 0; i < 3; i++) {
        rec.stored_ns = 7775 + i;
        rec.expires_ns = 8886 + i;
        rec.tier = ITEM_TIER_TRUSTED;
        rec.origin = STORE_OWN;
        assert_int_equal(S(s)->touch(s, &rec), 0);
        if (i != 1)
            sync_all();
    }
    in_all_states(check_touched);
    assert_int_equal(S(s)->del(s, &rec.target, rec.kind), 0);
    assert_int_equal(S(s)->touch(s, &rec), ERR_NOT_FOUND);
}

/* ---- incident 63: nothing lives longer because the process was restarted ---- */

static void test_expiry_is_not_renewed(void **state)
{
    const int64_t hour = INT64_C(3600) * 1000000000, put_ns = 1000 * hour;
    struct store_rec rec = record_of(1, "a", 5, "x"), for_ever = record_of(2, "b", 5, "y"), out;

    (void)state;
    rec.stored_ns = for_ever.stored_ns = put_ns;
    rec.expires_ns = put_ns + 2 * hour;
    rec.tier = ITEM_TIER_TRUSTED; /* trust extends quota, not lifetime */
    put(&rec);
    put(&for_ever);
    for (int i = 0; i < 10; i++) {
        reopen();
        assert_int_equal(S(s)->expire(s, put_ns + 2 * hour - 1, 1000), 0);
        assert_int_equal(S(s)->get(s, &rec.target, rec.kind, &out), 0);
        assert_true(out.stored_ns == rec.stored_ns && out.expires_ns == rec.expires_ns);
    }
    assert_int_equal(S(s)->expire(s, put_ns + 2 * hour, 1000), 1);
    assert_absent(s, &rec);
    reopen();
    assert_absent(s, &rec);
    assert_int_equal(S(s)->expire(s, INT64_MAX, 1000), 0);
    assert_stored(s, &for_ever);
}

static void test_expire_in_parts(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 1000; i++) {
        struct store_rec rec = record_of(i, "a", 5, "x");
        rec.expires_ns = i;
        put(&rec);
        if (i == 500)
            sync_all();
    }
    assert_int_equal(S(s)->expire(s, 899, 10), 10);
    assert_int_equal(S(s)->expire(s, 899, 600), 600);
    struct store_rec gone = record_of(609, "a", 5, "x"), there = record_of(610, "a", 5, "x");
    there.expires_ns = 610;
    assert_absent(s, &gone);
    assert_stored(s, &there);
    assert_int_equal(S(s)->expire(s, 899, SIZE_MAX), 290);
    assert_int_equal(S(s)->expire(s, 899, SIZE_MAX), 0);
    assert_int_equal(stat_of().items, 100);
    assert_int_equal(stat_of().expired, 900);
    sync_all();
    assert_int_equal(stat_of().items, 100);
    assert_int_equal(S(s)->expire(s, -1, SIZE_MAX), 0);
}

/* ---- victims ---- */

static void check_victim(void)
{
    struct store_rec out;

    assert_int_equal(S(s)->victim(s, &out), 0);
    assert_int_equal(out.item.k.b[4], 4);
    assert_stored(s, &out);
}

static void test_victim(void **state)
{
    struct store_rec rec, out;

    (void)state;
    assert_int_equal(S(s)->victim(s, &out), ERR_NOT_FOUND);
    for (unsigned i = 1; i <= 6; i++) {
        rec = record_of(i, "", 1, "v");
        rec.stored_ns = 100 - i;
        rec.origin = i == 3 || i == 4 ? STORE_CACHE : i == 5 ? STORE_OWN : STORE_REPLICA;
        rec.tier = i == 6 ? ITEM_TIER_WHITELISTED : ITEM_TIER_PUBLIC;
        put(&rec);
    }
    in_all_states(check_victim);
    static const unsigned order[] = {4, 3, 2, 1};
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(S(s)->victim(s, &out), 0);
        assert_int_equal(out.item.k.b[4], order[i]);
        const struct kad_id target = out.target;
        assert_int_equal(S(s)->del(s, &target, out.kind), 0);
    }
    assert_int_equal(S(s)->victim(s, &out), ERR_NOT_FOUND);
    assert_int_equal(stat_of().evicted, 4);
    assert_int_equal(stat_of().items, 2);
}

/* ---- budget ---- */

static void test_budget(void **state)
{
    char why[STORE_WHY_BYTES];
    struct store_lmdb_cfg cfg = stores_cfg();
    struct store_rec a = record_of(1, "", 1, "0123456789"), b = record_of(2, "", 1, "0123456789");
    struct store_rec longer = record_of(1, "", 2, "0123456789a"),
                     equal = record_of(1, "", 2, "9876543210");

    (void)state;
    S(s)->close(s);
    cfg.budget_bytes = 2 * STORE_RECORD_OVERHEAD + 19;
    assert_int_equal(store_lmdb_open(&s, &cfg, why, sizeof why), 0);
    put(&a);
    assert_int_equal(S(s)->put(s, &b), ERR_NO_SPACE);
    assert_absent(s, &b);
    b = record_of(2, "", 1, "012345678");
    put(&b);
    sync_all();
    assert_int_equal(S(s)->put(s, &longer), ERR_NO_SPACE);
    assert_stored(s, &a);
    put(&equal);
    assert_int_equal(stat_of().refused_space, 2);
    assert_int_equal(stat_of().bytes, cfg.budget_bytes);
    assert_int_equal(S(s)->del(s, &b.target, b.kind), 0);
    longer = record_of(1, "", 3, "0123456789a");
    put(&longer);
}

static void test_too_long(void **state)
{
    static uint8_t v[ITEM_MAX_VALUE + 1], salt[ITEM_MAX_SALT + 1];
    struct store_rec rec = record_of(1, "", 1, NULL);

    (void)state;
    rec.item.v = v;
    rec.item.salt = salt;
    rec.item.v_len = sizeof v;
    assert_int_equal(S(s)->put(s, &rec), ERR_TOO_LONG);
    rec.item.v_len--;
    rec.item.salt_len = sizeof salt;
    assert_int_equal(S(s)->put(s, &rec), ERR_TOO_LONG);
    rec.item.salt_len--;
    memset(v, 0xa5, sizeof v);
    memset(salt, 0x5a, sizeof salt);
    put(&rec);
    assert_stored(s, &rec);
    reopen();
    assert_stored(s, &rec);
}

/* ---- meta ---- */

static void test_meta(void **state)
{
    static uint8_t big[STORE_META_MAX + 1];
    char out[16], why[STORE_WHY_BYTES], name[STORE_NAME_MAX + 1];
    size_t n;

    (void)state;
    memset(name, 'n', STORE_NAME_MAX);
    name[STORE_NAME_MAX] = '\0';
    assert_int_equal(S(s)->meta_get(s, "seq/dmsg", out, sizeof out, &n), ERR_NOT_FOUND);
    assert_int_equal(S(s)->meta_put(s, "seq/dmsg", "1", 1), 0);
    assert_int_equal(S(s)->meta_put(s, "seq/dmsg", "22", 2), 0);
    assert_int_equal(S(s)->meta_put(s, name, NULL, 0), 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(S(s)->meta_get(s, "seq/dmsg", out, sizeof out, &n), 0);
        assert_int_equal(n, 2);
        assert_memory_equal(out, "22", 2);
        out[1] = '?';
        assert_int_equal(S(s)->meta_get(s, "seq/dmsg", out, 1, &n), 0);
        assert_int_equal(n, 2);
        assert_memory_equal(out, "2?", 2);
        assert_int_equal(S(s)->meta_get(s, name, NULL, 0, &n), 0);
        assert_int_equal(n, 0);
        if (i == 0)
            sync_all();
        else
            reopen();
    }
    memset(big, 7, sizeof big);
    assert_int_equal(S(s)->meta_put(s, "big", big, sizeof big), ERR_TOO_LONG);
    assert_int_equal(S(s)->meta_put(s, "big", big, sizeof big - 1), 0);
    reopen();
    assert_int_equal(S(s)->meta_get(s, "big", out, sizeof out, &n), 0);
    assert_int_equal(n, STORE_META_MAX);
    /* Another node's key in the same folder sees nothing of it. */
    S(s)->close(s);
    struct store_lmdb_cfg cfg = stores_cfg();
    cfg.own_pk.b[1] ^= 1;
    assert_int_equal(store_lmdb_open(&s, &cfg, why, sizeof why), 0);
    assert_int_equal(S(s)->meta_get(s, "seq/dmsg", out, sizeof out, &n), ERR_NOT_FOUND);
}

/* ---- folder and lock ---- */

static int open_again(const struct store_lmdb_cfg *cfg, char why[STORE_WHY_BYTES])
{
    struct store *other = NULL;
    int rc = store_lmdb_open(&other, cfg, why, STORE_WHY_BYTES);

    assert_true((rc == 0) == (other != NULL));
    if (other != NULL)
        S(other)->close(other);
    return rc;
}

static void test_lock(void **state)
{
    char why[STORE_WHY_BYTES], want[STORE_WHY_BYTES];
    struct store_lmdb_cfg cfg = stores_cfg();

    (void)state;
    assert_int_equal(open_again(&cfg, why), ERR_BUSY);
    snprintf(want, sizeof want, "store %s: in use by process %ld", dir, (long)getpid());
    assert_string_equal(why, want);
    S(s)->close(s);
    s = NULL;
    assert_int_equal(open_again(&cfg, why), 0);
}

static void test_folder(void **state)
{
    char why[STORE_WHY_BYTES], path[4200];
    struct stat st;
    struct store_lmdb_cfg cfg = stores_cfg();

    (void)state;
    S(s)->close(s);
    s = NULL;
    assert_int_equal(chmod(dir, 0755), 0);
    assert_int_equal(open_again(&cfg, why), 0);
    assert_int_equal(stat(dir, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_int_equal(chmod(dir, 0720), 0);
    assert_int_equal(open_again(&cfg, why), ERR_UNSAFE);
    assert_non_null(strstr(why, dir));
    assert_int_equal(chmod(dir, 0702), 0);
    assert_int_equal(open_again(&cfg, why), ERR_UNSAFE);
    assert_int_equal(chmod(dir, 0700), 0);

    /* A file in the way, at the end and in the middle. */
    snprintf(path, sizeof path, "%s/data.mdb", dir);
    cfg.path = path;
    assert_int_equal(open_again(&cfg, why), -ENOTDIR);
    assert_non_null(strstr(why, path));
    snprintf(path, sizeof path, "%s/data.mdb/below", dir);
    assert_int_equal(open_again(&cfg, why), -ENOTDIR);

    /* Made with its parents, all closed to others. */
    snprintf(path, sizeof path, "%s/a", dir);
    cfg.read_only = true;
    assert_int_equal(open_again(&cfg, why), -ENOENT);
    cfg.read_only = false;
    snprintf(path, sizeof path, "%s/a/b", dir);
    assert_int_equal(open_again(&cfg, why), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    static const char *const files[] = {"a/b/data.mdb", "a/b/lock.mdb", "a/b/kadmsg.lock",
                                        "a/b/clean"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, files[i]);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0600);
        assert_int_equal(unlink(path), 0);
    }
    snprintf(path, sizeof path, "%s/a/b", dir);
    assert_int_equal(rmdir(path), 0);
    snprintf(path, sizeof path, "%s/a", dir);
    assert_int_equal(rmdir(path), 0);
}

/* A second look at a store that is open and being written: no lock, no write, committed state. */
static void test_read_only(void **state)
{
    char why[STORE_WHY_BYTES];
    struct store *reader;
    struct store_lmdb_cfg cfg = stores_cfg();
    struct store_rec rec = record_of(1, "a", 1, "x"), later = record_of(2, "a", 1, "y");
    size_t n;

    (void)state;
    cfg.read_only = true;
    S(s)->close(s); /* LMDB must not be opened twice in one process: take turns */
    s = NULL;
    assert_int_equal(open_again(&cfg, why), 0);
    s = stores_open();
    put(&rec);
    S(s)->close(s);
    s = NULL;
    assert_int_equal(store_lmdb_open(&reader, &cfg, why, sizeof why), 0);
    assert_stored(reader, &rec);
    assert_int_equal(S(reader)->put(reader, &later), ERR_STATE);
    assert_int_equal(S(reader)->touch(reader, &rec), ERR_STATE);
    assert_int_equal(S(reader)->del(reader, &rec.target, rec.kind), ERR_STATE);
    assert_int_equal(S(reader)->expire(reader, INT64_MAX, 1), ERR_STATE);
    assert_int_equal(S(reader)->meta_put(reader, "n", "v", 1), ERR_STATE);
    assert_int_equal(S(reader)->meta_get(reader, "n", NULL, 0, &n), ERR_NOT_FOUND);
    assert_int_equal(S(reader)->sync(reader, 1), 0);
    S(reader)->close(reader);
}

/* Many items: a put is no scan, and the figures are right after a restart. */
static void test_many(void **state)
{
    enum { COUNT = 100000 };
    struct store_rec rec;
    char v[32];
    uint64_t slots, bytes;

    (void)state;
    for (unsigned i = 0; i < COUNT; i++) {
        snprintf(v, sizeof v, "value %u", i);
        rec = record_of(i % 5000, i % 3 == 0 ? "dmsg" : i % 3 == 1 ? "tp" : "svc", i, v);
        rec.target.b[0] = (uint8_t)i; /* slots of their own */
        rec.target.b[1] = (uint8_t)(i >> 8);
        rec.target.b[2] = (uint8_t)(i >> 16);
        int rc;
        while ((rc = S(s)->put(s, &rec)) == ERR_BUSY)
            sync_all();
        assert_int_equal(rc, 0);
    }
    reopen();
    assert_int_equal(stat_of().items, COUNT);
    const struct store_rec publisher = record_of(17, "", 0, NULL);
    usage_of(&publisher, &slots, &bytes);
    assert_int_equal(slots, COUNT / 5000);
    assert_stored(s, &rec);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_get),
        TEST(test_seq),
        TEST(test_cert),
        TEST(test_usage),
        TEST(test_del),
        TEST(test_touch),
        TEST(test_victim),
        TEST(test_budget),
        TEST(test_too_long),
        TEST(test_meta),
        TEST(test_lock),
        TEST(test_folder),
        TEST(test_read_only),
        TEST(test_many),
        TEST(test_expiry_is_not_renewed),
        TEST(test_expire_in_parts),
    };

    if (crypto_init() != 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
