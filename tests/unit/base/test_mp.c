#include "base/mp.h"

#include "base/err.h"
#include "tests/unit/vectors.h"

static void test_there_and_back(void **state)
{
    struct mp_out o;
    struct mp_doc d;
    size_t n;

    (void)state;
    mp_out_init(&o, 1000);
    msgpack_pack_array(&o.pk, 9);
    msgpack_pack_uint64(&o.pk, UINT64_MAX);
    msgpack_pack_int64(&o.pk, INT64_MIN);
    msgpack_pack_true(&o.pk);
    mp_out_bin(&o, "abc", 3);
    mp_out_bin(&o, NULL, 0);
    mp_out_nilbin(&o, NULL, 0);
    mp_out_str(&o, "text", 4);
    msgpack_pack_array(&o.pk, 1);
    msgpack_pack_uint8(&o.pk, 7);
    msgpack_pack_nil(&o.pk);
    assert_int_equal(o.err, 0);
    assert_int_equal(mp_doc_open(&d, o.p, o.n, 2, 20), 0);
    struct mp_in in = mp_doc_array(&d);
    assert_true(mp_in_u64(&in, UINT64_MAX) == UINT64_MAX);
    assert_true(mp_in_i64(&in) == INT64_MIN);
    assert_true(mp_in_bool(&in));
    char abc[3];
    assert_true(mp_in_fixed(&in, abc, sizeof abc));
    assert_memory_equal(abc, "abc", 3);
    assert_non_null(mp_in_bin(&in, &n, 10));
    assert_int_equal(n, 0);
    assert_null(mp_in_bin(&in, &n, 10));
    assert_memory_equal(mp_in_str(&in, &n, 4), "text", 4);
    struct mp_in inner = mp_in_array(&in, 1, 1);
    assert_int_equal(mp_in_i64(&inner), 7);
    assert_true(mp_in_nil(&in));
    assert_false(mp_in_failed(&in) || mp_in_failed(&inner));
    assert_false(mp_in_nil(&in)); /* nothing is left, which is no failure of a question */
    assert_int_equal(mp_in_u64(&in, 1), 0);
    assert_true(mp_in_failed(&in));
    mp_doc_close(&d);
    mp_out_free(&o);
}

/* Each wrong type, size and number fails, and everything after it. */
static void test_failures(void **state)
{
    static const uint8_t doc[] = {0x96, 0x05, 0xc4, 0x01, 0xff, 0xa1, 'x', 0xc0, 0x91, 0x01, 0xff};
    struct mp_doc d;
    uint8_t out[2];
    size_t n;

    (void)state;
    for (int i = 0; i < 8; i++) {
        assert_int_equal(mp_doc_open(&d, doc, sizeof doc, 2, 20), 0);
        struct mp_in in = mp_doc_array(&d);
        switch (i) {
        case 0:
            assert_int_equal(mp_in_u64(&in, 4), 0);
            break;
        case 1:
            assert_null(mp_in_bin(&in, &n, 10));
            break;
        case 2:
            assert_false(mp_in_bool(&in));
            break;
        case 3:
            assert_null(mp_in_str(&in, &n, 10));
            break;
        case 4:
            (void)mp_in_array(&in, 0, 10);
            break;
        case 5:
            mp_in_u64(&in, 5);
            assert_false(mp_in_fixed(&in, out, sizeof out));
            break;
        case 6:
            mp_in_u64(&in, 5);
            assert_null(mp_in_bin(&in, &n, 0));
            break;
        default:
            mp_in_fail(&in);
        }
        assert_true(mp_in_failed(&in));
        assert_int_equal(mp_in_u64(&in, 5), 0);
        mp_doc_close(&d);
    }
}

static void test_documents(void **state)
{
    struct mp_doc d;

    (void)state;
    assert_int_equal(mp_doc_open(&d, "\xc0\xc0", 2, 2, 10), ERR_FORMAT); /* something behind it */
    assert_int_equal(mp_doc_open(&d, "\xdd\xff\xff\xff\xff", 5, 2, 10), ERR_SHORT);
    assert_int_equal(mp_doc_open(&d, "", 0, 2, 10), ERR_SHORT);
    mp_doc_close(&d);
    assert_int_equal(mp_doc_open(&d, "\x01", 1, 2, 10), 0);
    struct mp_in in = mp_doc_array(&d); /* no array */
    assert_true(mp_in_failed(&in));
    mp_doc_close(&d);
}

static void test_room(void **state)
{
    struct mp_out o;
    static const char bytes[5000];

    (void)state;
    mp_out_init(&o, 5003);
    mp_out_bin(&o, bytes, sizeof bytes);
    assert_int_equal(o.err, 0);
    assert_int_equal(o.n, 5003);
    msgpack_pack_nil(&o.pk);
    assert_int_equal(o.err, ERR_TOO_LONG);
    assert_int_equal(o.n, 5003);
    mp_out_free(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there_and_back),
        cmocka_unit_test(test_failures),
        cmocka_unit_test(test_documents),
        cmocka_unit_test(test_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
