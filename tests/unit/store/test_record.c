#include "store/record.h"

#include <msgpack.h>

#include "base/cursor.h"
#include "tests/unit/prop.h"
#include "tests/unit/store/stores.h"

static uint8_t buf[RECORD_MAX_BYTES + 64];

static struct store_rec random_record(struct prop *r)
{
    static uint8_t v[ITEM_MAX_VALUE], salt[ITEM_MAX_SALT];
    struct store_rec rec = record_of(1, "", prop_u64(r) >> prop_below(r, 64), NULL);

    prop_bytes(r, rec.target.b, sizeof rec.target.b);
    prop_bytes(r, rec.item.k.b, sizeof rec.item.k.b);
    prop_bytes(r, rec.item.sig.b, sizeof rec.item.sig.b);
    rec.kind = (enum item_kind)prop_below(r, ITEM_KIND__COUNT);
    rec.item.v_len = prop_size(r, sizeof v);
    rec.item.v = rec.item.v_len > 0 || prop_chance(r, 50) ? v : NULL;
    rec.item.salt_len = prop_size(r, sizeof salt);
    rec.item.salt = salt;
    prop_bytes(r, v, rec.item.v_len < 300 ? rec.item.v_len : 300);
    prop_bytes(r, salt, rec.item.salt_len);
    rec.stored_ns = (int64_t)prop_u64(r);
    rec.expires_ns = prop_chance(r, 20) ? INT64_MAX : (int64_t)prop_u64(r);
    rec.tier = (enum item_tier)prop_below(r, 3);
    rec.origin = (enum store_origin)prop_below(r, 3);
    rec.charged = rec.item.k;
    if (prop_chance(r, 30))
        rec.charged.b[32] ^= 1;
    rec.rank_time = (int64_t)prop_u64(r) >> prop_below(r, 64);
    rec.rank_seq = prop_u64(r) >> prop_below(r, 64);
    return rec;
}

static void test_round_trip(void **state)
{
    struct prop r = prop_init("record round trip");

    (void)state;
    for (unsigned i = 0; i < 3000; i++) {
        uint8_t key[RECORD_KEY_BYTES];
        struct store_rec rec = random_record(&r), out;
        size_t n = record_encode(buf, &rec);

        assert_true(n <= RECORD_HEAD_MAX + rec.item.v_len + rec.item.salt_len);
        record_key(key, &rec.target, rec.kind);
        /* On the heap in its exact size, so that a read past the end shows. */
        uint8_t *exact = malloc(n);
        memcpy(exact, buf, n);
        assert_int_equal(record_decode(&out, key, exact, n), 0);
        assert_true(record_same(&out, &rec));
        assert_null(out.ref);
        assert_int_equal(record_decode(&out, key, exact, prop_below(&r, n)), ERR_CORRUPT);
        exact[prop_below(&r, n)] ^= (uint8_t)(1u << prop_below(&r, 8));
        assert_int_equal(record_decode(&out, key, exact, n), ERR_CORRUPT);
        key[prop_below(&r, 33)] ^= 1;
        assert_int_equal(record_decode(&out, key, buf, n), ERR_CORRUPT);
        free(exact);
    }
}

/* Whatever damage makes other bytes is seen: runs of zeros, garbage, pieces in each other's place. */
static void test_damage(void **state)
{
    struct prop r = prop_init("damaged record");

    (void)state;
    for (unsigned i = 0; i < 20000; i++) {
        uint8_t key[RECORD_KEY_BYTES], was[64];
        struct store_rec rec = random_record(&r), out;
        size_t n = record_encode(buf, &rec), len = 1 + prop_below(&r, n < 64 ? n : 64);
        uint8_t *at = buf + prop_below(&r, n - len + 1), *other = buf + prop_below(&r, n - len + 1);

        record_key(key, &rec.target, rec.kind);
        memcpy(was, at, len);
        switch (prop_below(&r, 3)) {
        case 0:
            memset(at, 0, len);
            break;
        case 1:
            prop_bytes(&r, at, len);
            break;
        default:
            memmove(at, other, len);
        }
        int want = memcmp(was, at, len) == 0 ? 0 : ERR_CORRUPT;
        assert_int_equal(record_decode(&out, key, buf, n), want);
    }
}

/* What a record costs beside value and salt: the budget counts STORE_RECORD_OVERHEAD. */
static void test_size(void **state)
{
    struct store_rec rec = record_of(1, "dmsg", UINT64_MAX, "0123456789");

    (void)state;
    rec.stored_ns = rec.expires_ns = INT64_MAX - 1;
    assert_true(record_encode(buf, &rec) - rec.item.v_len - rec.item.salt_len < 180);
}

struct packed {
    msgpack_sbuffer buf;
    msgpack_packer pk;
};

static void pack_bin(msgpack_packer *pk, size_t n)
{
    static const char zeros[ITEM_MAX_VALUE + 1];
    msgpack_pack_bin_with_body(pk, zeros, n);
}

/* A record of `fields` members, member `bad` of which is of another kind: -1 = none. */
static struct packed pack(unsigned fields, int bad, void (*put)(msgpack_packer *))
{
    struct packed p;

    msgpack_sbuffer_init(&p.buf);
    msgpack_packer_init(&p.pk, &p.buf, msgpack_sbuffer_write);
    msgpack_pack_array(&p.pk, fields);
    for (unsigned i = 0; i < fields; i++) {
        if ((int)i == bad)
            put(&p.pk);
        else if (i == 0)
            pack_bin(&p.pk, PUBKEY_BYTES + SIG_BYTES);
        else if (i == 2 || i == 3 || i == 7)
            pack_bin(&p.pk, i == 7 ? PUBKEY_BYTES : 5);
        else if (i < RECORD_FIELDS_ALL)
            msgpack_pack_int(&p.pk, 1);
        else /* members of some newer program */
            msgpack_pack_array(&p.pk, 2), msgpack_pack_str_with_body(&p.pk, "new", 3),
                msgpack_pack_double(&p.pk, 0.5);
    }
    p.pk.data = NULL;
    return p;
}

static void put_str(msgpack_packer *pk)
{
    msgpack_pack_str_with_body(pk, "x", 1);
}
static void put_float(msgpack_packer *pk)
{
    msgpack_pack_double(pk, 1.0);
}
static void put_true(msgpack_packer *pk)
{
    msgpack_pack_true(pk);
}
static void put_minus(msgpack_packer *pk)
{
    msgpack_pack_int(pk, -1);
}
static void put_long_bin(msgpack_packer *pk)
{
    pack_bin(pk, ITEM_MAX_VALUE + 1);
}
static void put_short_bin(msgpack_packer *pk)
{
    pack_bin(pk, 32);
}
static void put_three(msgpack_packer *pk)
{
    msgpack_pack_int(pk, 3);
}

static void put_twelve(msgpack_packer *pk)
{
    msgpack_pack_int(pk, 12);
}

static int parse(struct packed p)
{
    struct store_rec out;
    uint8_t *exact = malloc(p.buf.size);

    memcpy(exact, p.buf.data, p.buf.size);
    int rc = record_parse(&out, exact, p.buf.size);
    free(exact);
    msgpack_sbuffer_destroy(&p.buf);
    return rc;
}

static void test_fields(void **state)
{
    (void)state;
    assert_int_equal(parse(pack(RECORD_FIELDS, -1, NULL)), 0);
    assert_int_equal(parse(pack(RECORD_FIELDS_ALL, -1, NULL)), 0);
    assert_int_equal(parse(pack(RECORD_FIELDS_ALL + 5, -1, NULL)), 0);
    for (unsigned n = 0; n < RECORD_FIELDS_ALL; n++)
        assert_int_equal(parse(pack(n, -1, NULL)), n == RECORD_FIELDS ? 0 : ERR_CORRUPT);
    for (int i = 0; i < RECORD_FIELDS_ALL; i++) {
        assert_int_equal(parse(pack(RECORD_FIELDS_ALL, i, put_str)), ERR_CORRUPT);
        assert_int_equal(parse(pack(RECORD_FIELDS_ALL, i, put_float)), ERR_CORRUPT);
        assert_int_equal(parse(pack(RECORD_FIELDS_ALL, i, put_true)), ERR_CORRUPT);
        assert_int_equal(parse(pack(RECORD_FIELDS_ALL, i, put_long_bin)), ERR_CORRUPT);
    }
    for (int i = 0; i < RECORD_FIELDS_ALL; i++) { /* times may be negative */
        bool signed_member = i == 4 || i == 6 || i == 8;
        assert_int_equal(parse(pack(RECORD_FIELDS_ALL, i, put_minus)),
                         signed_member ? 0 : ERR_CORRUPT);
    }
    assert_int_equal(parse(pack(RECORD_FIELDS_ALL, 0, put_short_bin)), ERR_CORRUPT);
    assert_int_equal(parse(pack(RECORD_FIELDS_ALL, 7, put_short_bin)), ERR_CORRUPT);
    assert_int_equal(parse(pack(RECORD_FIELDS_ALL, 5, put_three)), ERR_CORRUPT);  /* tier 3 */
    assert_int_equal(parse(pack(RECORD_FIELDS_ALL, 5, put_twelve)), ERR_CORRUPT); /* origin 3 */
}

/* A life in whole ms takes less room than one that is not; both come back to the ns. */
static void test_life(void **state)
{
    struct store_rec rec = record_of(1, "dmsg", 7, "0123456789"), out;
    uint8_t key[RECORD_KEY_BYTES];
    static const int64_t lives[] = {7200000000000, 7200000000001, 0, -1000000, INT64_MAX - 5};

    (void)state;
    rec.stored_ns = 1700000000000000000;
    record_key(key, &rec.target, rec.kind);
    size_t first = 0;
    for (size_t i = 0; i < sizeof lives / sizeof lives[0]; i++) {
        rec.expires_ns = i == 4 ? lives[i] : rec.stored_ns + lives[i];
        size_t n = record_encode(buf, &rec);
        assert_int_equal(record_decode(&out, key, buf, n), 0);
        assert_int_equal(out.expires_ns, rec.expires_ns);
        first = i == 0 ? n : first;
        if (i == 1)
            assert_int_equal(n, first + 4);
    }
}

static void test_hostile_counts(void **state)
{
    static const char *const cases[] = {
        "ddffffffff",   "dfffffffff", "c6ffffffff", "dbffffffff", "9cc6ffffffff",
        "9cddffffffff", "c0",         "",           "9c",         "c1"};
    struct store_rec out;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        size_t n;
        uint8_t *p = hex_dup(cases[i], &n);
        assert_int_equal(record_parse(&out, p, n), ERR_CORRUPT);
        free(p);
    }
}

/* Order of index keys is the order of what they stand for. */
static void test_keys(void **state)
{
    struct prop r = prop_init("order of index keys");
    uint8_t a[RECORD_INDEX_KEY_MAX], b[RECORD_INDEX_KEY_MAX];

    (void)state;
    for (unsigned i = 0; i < 3000; i++) {
        struct store_rec x = random_record(&r), y = x;
        y.item.seq = prop_u64(&r) >> prop_below(&r, 64);
        y.expires_ns = (int64_t)prop_u64(&r) >> prop_below(&r, 64);
        y.stored_ns = (int64_t)prop_u64(&r) >> prop_below(&r, 64);
        for (unsigned ix = 0; ix < IX__COUNT; ix++) {
            size_t n = record_index_key(a, ix, &x), m = record_index_key(b, ix, &y);
            if (n == 0 || m == 0)
                continue;
            int c = memcmp(a, b, n);
            assert_int_equal(n, m);
            if (ix == IX_EXPIRY)
                assert_true((c < 0) == (x.expires_ns < y.expires_ns));
            else if (ix == IX_STORED)
                assert_true((c < 0) == (x.stored_ns < y.stored_ns));
            else
                assert_true((c < 0) == (x.item.seq < y.item.seq));
            assert_memory_equal(record_index_ref(a, n), x.target.b, 16);
            assert_int_equal(record_index_ref(a, n)[16], x.kind);
        }
    }
}

static void test_membership(void **state)
{
    struct store_rec rec = record_of(1, "s", 5, "v");
    uint8_t key[RECORD_INDEX_KEY_MAX];

    (void)state;
    assert_int_equal(record_index_key(key, IX_EXPIRY, &rec), 0);
    rec.expires_ns = INT64_MAX - 1;
    assert_int_equal(record_index_key(key, IX_EXPIRY, &rec), 8 + RECORD_REF_BYTES);
    assert_int_equal(record_index_key(key, IX_STORED, &rec), 9 + RECORD_REF_BYTES);
    assert_int_equal(key[0], 1);
    rec.origin = STORE_CACHE;
    assert_int_equal(record_index_key(key, IX_STORED, &rec), 9 + RECORD_REF_BYTES);
    assert_int_equal(key[0], 0);
    rec.origin = STORE_OWN;
    assert_int_equal(record_index_key(key, IX_STORED, &rec), 0);
    rec.origin = STORE_REPLICA;
    rec.tier = ITEM_TIER_TRUSTED;
    assert_int_equal(record_index_key(key, IX_STORED, &rec), 0);
    assert_int_equal(record_index_key(key, IX_SALT_SEQ, &rec), 2 + 8 + RECORD_REF_BYTES);
    assert_memory_equal(key, "\x01s\0\0\0\0\0\0\0\x05", 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_damage),
        cmocka_unit_test(test_size),       cmocka_unit_test(test_fields),
        cmocka_unit_test(test_life),       cmocka_unit_test(test_hostile_counts),
        cmocka_unit_test(test_keys),       cmocka_unit_test(test_membership),
    };

    if (crypto_init() != 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
