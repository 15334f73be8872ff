#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/hex.h"
#include "tests/unit/prop.h"

static void test_known(void **state)
{
    (void)state;
    static const uint8_t bytes[] = {0x00, 0x01, 0x9a, 0xf0, 0xff};
    char text[HEX_LEN(5) + 1];
    uint8_t out[5];
    assert_string_equal(hex_encode(text, bytes, 5), "00019af0ff");
    assert_int_equal(hex_decode(out, 5, "00019AF0ff", 10), 0);
    assert_memory_equal(out, bytes, 5);
    assert_string_equal(hex_encode(text, bytes, 0), "");
    assert_int_equal(hex_decode(out, 0, "", 0), 0);
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t n;
    } bad[] = {{"", 0},         {"0102", 4},     {"01020", 5},  {"0102030", 7},
               {"01020304", 8}, {"01 203", 6},   {"0x0102", 6}, {"01020g", 6},
               {"01020G", 6},   {"01020/", 6},   {"01020:", 6}, {"01020@", 6},
               {"01020`", 6},   {"01\00003", 6}, {"-10203", 6}, {"01020\xff", 6}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        uint8_t out[4] = {7, 7, 7, 7};
        assert_int_equal(hex_decode(out, 3, bad[i].text, bad[i].n), ERR_FORMAT);
        assert_memory_equal(out, ((uint8_t[]){0, 0, 0, 7}), 4);
    }
    uint8_t none;
    assert_int_equal(hex_decode(&none, 0, "0", 1), ERR_FORMAT);
}

static void test_round_trip(void **state)
{
    (void)state;
    struct prop r = prop_init("hex round trip");
    for (int i = 0; i < 500; i++) {
        uint8_t in[300], out[300];
        char text[601];
        size_t n = prop_below(&r, sizeof in + 1);
        prop_bytes(&r, in, n);
        hex_encode(text, in, n);
        assert_int_equal(strlen(text), 2 * n);
        assert_int_equal(hex_decode(out, n, text, 2 * n), 0);
        assert_memory_equal(in, out, n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
