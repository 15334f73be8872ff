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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_first_byte),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_encoder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
