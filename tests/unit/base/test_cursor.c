#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/cursor.h"

static const uint8_t digits[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

static void test_integers_at_an_address(void **state)
{
    (void)state;
    const uint8_t *odd = digits + 1; /* unaligned on purpose */
    assert_int_equal(get_be16(odd), 0x0203);
    assert_int_equal(get_be32(odd), 0x02030405);
    assert_true(get_be64(odd) == UINT64_C(0x0203040506070809));
    assert_int_equal(get_le16(odd), 0x0302);
    assert_int_equal(get_le32(odd), 0x05040302);
    assert_true(get_le64(odd) == UINT64_C(0x0908070605040302));

    uint8_t out[9] = {0};
    put_be16(out + 1, 0x0203);
    assert_memory_equal(out + 1, odd, 2);
    put_be32(out + 1, 0x02030405);
    assert_memory_equal(out + 1, odd, 4);
    put_be64(out + 1, UINT64_C(0x0203040506070809));
    assert_memory_equal(out + 1, odd, 8);
    put_le16(out + 1, 0x0302);
    put_le16(out + 3, 0x0504);
    assert_memory_equal(out + 1, odd, 4);
    put_le32(out + 1, 0x05040302);
    assert_memory_equal(out + 1, odd, 4);
    put_le64(out + 1, UINT64_C(0x0908070605040302));
    assert_memory_equal(out + 1, odd, 8);
    assert_int_equal(out[0], 0);
}

static void test_read(void **state)
{
    (void)state;
    struct rd r = rd_init(digits, sizeof digits);
    assert_int_equal(rd_u8(&r), 1);
    assert_int_equal(rd_be16(&r), 0x0203);
    assert_int_equal(rd_le32(&r), 0x07060504);
    assert_ptr_equal(rd_bytes(&r, 2), digits + 7);
    rd_skip(&r, 1);
    struct rd sub = rd_sub(&r, 3);
    assert_int_equal(rd_be16(&sub), 0x0b0c);
    assert_int_equal(rd_left(&sub), 1);
    uint8_t two[2];
    rd_copy(&r, two, 2);
    assert_memory_equal(two, digits + 13, 2);
    assert_int_equal(rd_left(&r), 0);
    assert_non_null(rd_bytes(&r, 0));
    assert_false(rd_failed(&r));
    r = rd_init(digits, 8);
    assert_true(rd_be64(&r) == UINT64_C(0x0102030405060708));
    r = rd_init(digits, 8);
    assert_true(rd_le64(&r) == UINT64_C(0x0807060504030201));
    r = rd_init(digits, 6);
    assert_int_equal(rd_be32(&r), 0x01020304);
    assert_int_equal(rd_le16(&r), 0x0605);
    assert_false(rd_failed(&r));
}

static void test_read_failure_sticks(void **state)
{
    (void)state;
    struct rd r = rd_init(digits, 3);
    assert_int_equal(rd_be32(&r), 0);
    assert_true(rd_failed(&r));
    assert_int_equal(rd_left(&r), 0);
    assert_int_equal(rd_u8(&r), 0); /* would have fitted */
    assert_null(rd_bytes(&r, 0));
    uint8_t two[2] = {9, 9};
    rd_copy(&r, two, 2);
    assert_int_equal(two[0] + two[1], 0);

    r = rd_init(digits, 3);
    assert_null(rd_bytes(&r, SIZE_MAX));
    assert_true(rd_failed(&r));

    r = rd_init(digits, 3);
    struct rd sub = rd_sub(&r, 4);
    assert_true(rd_failed(&sub));
    assert_true(rd_failed(&r));
    assert_int_equal(rd_u8(&sub), 0);

    r = rd_init(NULL, 0);
    assert_non_null(rd_bytes(&r, 0));
    rd_copy(&r, NULL, 0);
    assert_false(rd_failed(&r));
    rd_fail(&r);
    assert_true(rd_failed(&r));
}

static void test_write(void **state)
{
    (void)state;
    uint8_t out[29];
    struct wr w = wr_init(out, sizeof out);
    wr_u8(&w, 1);
    wr_be16(&w, 0x0203);
    wr_le16(&w, 0x0504);
    wr_be32(&w, 0x06070809);
    wr_le32(&w, 0x0d0c0b0a);
    wr_be64(&w, 1);
    wr_le64(&w, 1);
    assert_int_equal(wr_len(&w), 29);
    assert_memory_equal(out, digits, 13);
    assert_int_equal(out[20], 1);
    assert_int_equal(out[21], 1);
    wr_bytes(&w, NULL, 0);
    assert_false(wr_failed(&w));
    wr_u8(&w, 1);
    assert_true(wr_failed(&w));
    assert_int_equal(wr_len(&w), 29);
}

static void test_write_failure_sticks(void **state)
{
    (void)state;
    uint8_t out[4] = {0, 0, 0, 0xee};
    struct wr w = wr_init(out, 3);
    wr_u8(&w, 7);
    wr_bytes(&w, digits, 3);
    assert_true(wr_failed(&w));
    wr_u8(&w, 8); /* would have fitted */
    assert_int_equal(wr_len(&w), 1);
    assert_null(wr_room(&w, SIZE_MAX));
    assert_memory_equal(out, ((uint8_t[]){7, 0, 0, 0xee}), 4);
    w = wr_init(NULL, 0);
    wr_bytes(&w, digits, 1);
    assert_true(wr_failed(&w));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_integers_at_an_address), cmocka_unit_test(test_read),
        cmocka_unit_test(test_read_failure_sticks),    cmocka_unit_test(test_write),
        cmocka_unit_test(test_write_failure_sticks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
