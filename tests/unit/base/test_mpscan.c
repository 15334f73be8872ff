#include "base/mpscan.h"

#include <msgpack.h>

#include "base/err.h"
#include "tests/unit/vectors.h"

struct scan_case {
    const char *hex;
    int want;
    size_t used;
};

static void check(const struct scan_case *c, unsigned depth, size_t objects)
{
    size_t n, used = 77;
    uint8_t *p = hex_dup(c->hex, &n);

    int rc = mpscan(p, n, depth, objects, &used);
    if (rc != c->want)
        print_error("%s: %d\n", c->hex, rc);
    assert_int_equal(rc, c->want);
    assert_int_equal(used, c->want == 0 ? c->used : 77);
    free(p);
}

static void test_every_first_byte(void **state)
{
    /* Bytes that each type needs behind its first one when all of them are zero. */
    (void)state;
    for (unsigned type = 0; type < 256; type++) {
        static const uint8_t more[] = {
            /* c0 */ 0, 0, 0, 0, 1, 2, 4, 2, 3,  5, 4, 8, 1, 2, 4, 8,
            /* d0 */ 1, 2, 4, 8, 2, 3, 5, 9, 17, 1, 2, 4, 2, 4, 2, 4};
        uint8_t in[80] = {(uint8_t)type};
        size_t want = 0, used = 0;

        if (type >= 0x80 && type <= 0x8f)
            want = (type & 15) * 2;
        else if (type >= 0x90 && type <= 0x9f)
            want = type & 15;
        else if (type >= 0xa0 && type <= 0xbf)
            want = type & 31;
        else if (type >= 0xc0 && type <= 0xdf)
            want = more[type - 0xc0];
        if (type == 0xc1) {
            assert_int_equal(mpscan(in, sizeof in, 1, 100, &used), ERR_FORMAT);
            continue;
        }
        assert_int_equal(mpscan(in, sizeof in, 1, 100, &used), 0);
        assert_int_equal(used, want + 1);
        for (size_t n = 0; n <= want; n++)
            assert_int_equal(mpscan(in, n, 1, 100, &used), ERR_SHORT);
        assert_int_equal(mpscan(in, want + 1, 1, 100, NULL), 0);
    }
}

static void test_lengths(void **state)
{
    static const struct scan_case cases[] = {
        {"ddffffffff", ERR_SHORT, 0},
        {"dfffffffff", ERR_SHORT, 0},
        {"df80000000c0", ERR_SHORT, 0},
        {"c6ffffffff00", ERR_SHORT, 0},
        {"dbffffffff00", ERR_SHORT, 0},
        {"c9ffffffff0000", ERR_SHORT, 0},
        {"dcffff", ERR_SHORT, 0},
        {"deffffc0", ERR_SHORT, 0},
        {"92c0", ERR_SHORT, 0},
        {"92c0c0c0", 0, 3},
        {"c40301020304", 0, 5},
        {"81a16101", 0, 4},
        {"81a161", ERR_SHORT, 0},
        {"9192c001", 0, 4},
        {"c70005", 0, 3},
        {"92c0c1", ERR_FORMAT, 0},
        {"dd00000002c0c0", 0, 7},
        {"dc0000", 0, 3},
        {"9190", 0, 2},
        {"", ERR_SHORT, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        check(&cases[i], 4, 100);
}

static void test_limits(void **state)
{
    uint8_t deep[MPSCAN_DEPTH_MAX + 2];

    (void)state;
    check(&(struct scan_case){"93010203", 0, 4}, 1, 4);
    check(&(struct scan_case){"93010203", ERR_LIMIT, 0}, 1, 3);
    check(&(struct scan_case){"93010203", ERR_LIMIT, 0}, 0, 4);
    check(&(struct scan_case){"01", 0, 1}, 0, 1);
    check(&(struct scan_case){"01", ERR_LIMIT, 0}, 0, 0);
    check(&(struct scan_case){"90", ERR_LIMIT, 0}, 0, 5);
    memset(deep, 0x91, sizeof deep);
    deep[MPSCAN_DEPTH_MAX] = 0xc0;
    assert_int_equal(mpscan(deep, MPSCAN_DEPTH_MAX + 1, MPSCAN_DEPTH_MAX, 100, NULL), 0);
    deep[MPSCAN_DEPTH_MAX] = 0x91;
    deep[MPSCAN_DEPTH_MAX + 1] = 0xc0;
    assert_int_equal(mpscan(deep, sizeof deep, MPSCAN_DEPTH_MAX, 100, NULL), ERR_LIMIT);
}

/* What the real encoder writes passes, whole only. */
static void test_encoder(void **state)
{
    msgpack_sbuffer buf;
    msgpack_packer pk;
    static const char blob[70000];

    (void)state;
    msgpack_sbuffer_init(&buf);
    msgpack_packer_init(&pk, &buf, msgpack_sbuffer_write);
    msgpack_pack_array(&pk, 5);
    msgpack_pack_uint64(&pk, UINT64_MAX);
    msgpack_pack_bin_with_body(&pk, blob, sizeof blob);
    msgpack_pack_map(&pk, 2);
    msgpack_pack_str_with_body(&pk, "k", 1);
    msgpack_pack_double(&pk, 1.5);
    msgpack_pack_nil(&pk);
    msgpack_pack_true(&pk);
    msgpack_pack_array(&pk, 0);
    msgpack_pack_ext_with_body(&pk, blob, 300, 5);
    for (size_t n = 0; n <= buf.size; n += n < 16 || n + 320 > buf.size ? 1 : 997) {
        size_t used = 0;
        assert_int_equal(mpscan(buf.data, n, 2, 20, &used), n < buf.size ? ERR_SHORT : 0);
        assert_int_equal(used, n < buf.size ? 0 : n);
    }
    msgpack_sbuffer_destroy(&buf);
}

/* One byte more at a time says the same as everything at once, and never starts over. */
static void test_in_pieces(void **state)
{
    static const char *const whole[] = {"93010203",
                                        "9192c0c3",
                                        "81a161cb3ff8000000000000",
                                        "c403010203",
                                        "dc0003c0c0c0",
                                        "94cd0102c70205aabb90dd00000001d6010203ff05",
                                        "d9026162",
                                        "c0"};
    struct mpscan s;

    (void)state;
    for (size_t i = 0; i < sizeof whole / sizeof whole[0]; i++) {
        size_t n, used = 0;
        uint8_t *p = hex_dup(whole[i], &n);
        int want = mpscan(p, n, 8, 100, NULL);
        mpscan_begin(&s, 8, 100, n);
        int rc = ERR_AGAIN;
        for (size_t have = 0; have <= n && rc == ERR_AGAIN; have++) {
            assert_true(s.at <= n + 16);
            rc = mpscan_feed(&s, p, have, &used);
            assert_true(rc != 0 || (have == n && used == n));
        }
        assert_int_equal(rc, want);
        free(p);
    }
}

/* What cannot end within the bytes there may be is refused as soon as that shows. */
static void test_bytes_that_may_come(void **state)
{
    static const struct {
        const char *hex;
        size_t max;
        int want;
    } cases[] = {
        {"ddffffffff", 1000, ERR_TOO_LONG},
        {"c6ffffffff", 1000, ERR_TOO_LONG},
        {"dd00000100", 1000, ERR_AGAIN},
        {"c5ffff", 1000, ERR_TOO_LONG},
        {"9391c0", 3, ERR_TOO_LONG},
        {"94", 5, ERR_AGAIN},
        {"94", 4, ERR_TOO_LONG},
        {"c1", 10, ERR_FORMAT},
        {"cd01", 2, ERR_TOO_LONG},
        {"cd01", 3, ERR_AGAIN},
    };
    struct mpscan s;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        size_t n, used;
        uint8_t *p = hex_dup(cases[i].hex, &n);
        mpscan_begin(&s, 8, 1000, cases[i].max);
        if (mpscan_feed(&s, p, n, &used) != cases[i].want)
            fail_msg("%s within %zu", cases[i].hex, cases[i].max);
        free(p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_first_byte), cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_limits),           cmocka_unit_test(test_encoder),
        cmocka_unit_test(test_in_pieces),        cmocka_unit_test(test_bytes_that_may_come),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
