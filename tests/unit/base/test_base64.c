#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/base64.h"
#include "base/err.h"
#include "tests/unit/prop.h"

/* Texts and what the standard decoder of the Go peers makes of them (Go 1.26); NULL =
 * refused. */
static const struct {
    const char *text;
    const char *raw;
} cases[] = {
    {"", ""},
    {"QQ==", "A"},
    {"QUI=", "AB"},
    {"QUJD", "ABC"},
    {"QUJDRA==", "ABCD"},
    {"+/+/", "\xfb\xff\xbf"},
    {"QR==", "A"}, /* spare bits */
    {"QUJ=", "AB"},
    {"QQ=\n=", "A"}, /* line ends */
    {"QQ==\n", "A"},
    {"\nQQ==", "A"},
    {"Q\r\nQ==", "A"},
    {"QQ\n==", "A"},
    {"QQ==\r\n\r\n", "A"},
    {"QUJD\n", "ABC"},
    {"\r\n", ""},
    {"QUI=\n", "AB"},
    {"QQ", NULL}, /* padding */
    {"QUI", NULL},
    {"Q", NULL},
    {"Q===", NULL},
    {"=", NULL},
    {"==", NULL},
    {"===", NULL},
    {"====", NULL},
    {"QQ=", NULL},
    {"QUI==", NULL},
    {"QUJD=", NULL},
    {"QUJD==", NULL},
    {"QUJD====", NULL},
    {"QQ==QQ==", NULL}, /* something behind the end */
    {"QUJDQQ==QUJD", NULL},
    {"QQ=A", NULL},
    {"QUI=Q", NULL},
    {"QQ== ", NULL}, /* other characters */
    {"Q Q==", NULL},
    {"-_-_", NULL},
    {"QQ\xc3\xa9=", NULL},
};

static void test_same_as_the_peers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t out[16];
        size_t n = 99;
        int rc = base64_decode(out, sizeof out, &n, cases[i].text, strlen(cases[i].text));
        if (cases[i].raw == NULL) {
            assert_int_equal(rc, ERR_FORMAT);
            continue;
        }
        assert_int_equal(rc, 0);
        assert_int_equal(n, strlen(cases[i].raw));
        if (n > 0)
            assert_memory_equal(out, cases[i].raw, n);
    }
    uint8_t out[4];
    size_t n;
    assert_int_equal(base64_decode(out, 4, &n, "QQ\0==", 5), ERR_FORMAT);
    assert_int_equal(base64_decode(out, 4, &n, "QQ==\0", 5), ERR_FORMAT);
}

static void test_room(void **state)
{
    (void)state;
    uint8_t out[3] = {0, 0, 0xee};
    size_t n = 0;
    assert_int_equal(base64_decode(out, 2, &n, "QUI=", 4), 0);
    assert_int_equal(n, 2);
    assert_int_equal(base64_decode(out, 2, &n, "QUJD", 4), ERR_TOO_LONG);
    assert_int_equal(out[2], 0xee);
    assert_int_equal(base64_decode(NULL, 0, &n, "", 0), 0);
    assert_int_equal(n, 0);
    assert_int_equal(base64_decode(NULL, 0, &n, "QQ==", 4), ERR_TOO_LONG);
}

static void test_encode(void **state)
{
    (void)state;
    char out[12];
    for (size_t i = 0; i < 6; i++) { /* the canonical ones of the table */
        memset(out, '#', sizeof out);
        size_t n = base64_encode(out, cases[i].raw, strlen(cases[i].raw));
        assert_int_equal(n, BASE64_LEN(strlen(cases[i].raw)));
        assert_int_equal(n, strlen(cases[i].text));
        assert_memory_equal(out, cases[i].text, n);
        assert_int_equal(out[n], '#');
    }
}

static void test_round_trip(void **state)
{
    (void)state;
    struct prop r = prop_init("base64 round trip");
    for (int i = 0; i < 500; i++) {
        uint8_t in[200], out[200];
        char text[300];
        size_t n = prop_below(&r, sizeof in + 1), got = 0;
        prop_bytes(&r, in, n);
        size_t len = base64_encode(text, in, n);
        assert_int_equal(len, BASE64_LEN(n));
        assert_true(BASE64_MAX_RAW(len) >= n);
        assert_int_equal(base64_decode(out, n, &got, text, len), 0);
        assert_int_equal(got, n);
        assert_memory_equal(in, out, n);
        /* Losing one character is never unnoticed. */
        if (len > 0) {
            size_t cut = prop_below(&r, len);
            memmove(text + cut, text + cut + 1, len - cut - 1);
            assert_int_equal(base64_decode(out, sizeof out, &got, text, len - 1), ERR_FORMAT);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_as_the_peers),
        cmocka_unit_test(test_room),
        cmocka_unit_test(test_encode),
        cmocka_unit_test(test_round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
