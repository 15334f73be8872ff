/*
 * Floating-point numbers in both dialects. The texts of the table were printed by the peers' two
 * writers.
 */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/json_double.h"
#include "tests/unit/prop.h"

static const struct {
    double v;
    const char *fast, *std;
} table[] = {
    {0.0, "0", "0"},
    {-0.0, "0", "-0"},
    {1, "1", "1"},
    {-1, "-1", "-1"},
    {0.1, "0.1", "0.1"},
    {123456.789, "123456.789", "123456.789"},
    {1e-6, "0.000001", "0.000001"},
    {9.99e-7, "0.000001", "9.99e-7"},
    {1e-7, "0", "1e-7"},
    {4e-7, "0", "4e-7"},
    {-4e-7, "-0", "-4e-7"},
    {5e-7, "0.000001", "5e-7"},
    {1e20, "100000000000000000000", "100000000000000000000"},
    {1e21, "1e+21", "1e+21"},
    {83886079, "83886079", "83886079"},
    {83886079.5, "83886079.5", "83886079.5"},
    {1e300, "1e+300", "1e+300"},
    {5e-324, "0", "5e-324"},
    {DBL_MAX, "1.7976931348623157e+308", "1.7976931348623157e+308"},
    {0.1 + 0.2, "0.3", "0.30000000000000004"},
    {-12.000001, "-12.000001", "-12.000001"},
    {999999.9999996, "1000000", "999999.9999996"},
};

static void test_table(void **state)
{
    char text[JSON_DOUBLE_MAX + 1];
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        assert_int_equal(json_double_text(text, table[i].v, JSON_FAST), strlen(table[i].fast));
        assert_string_equal(text, table[i].fast);
        assert_int_equal(json_double_text(text, table[i].v, JSON_STD), strlen(table[i].std));
        assert_string_equal(text, table[i].std);
    }
}

static void test_not_a_number(void **state)
{
    char text[JSON_DOUBLE_MAX + 1];
    struct json_out o;
    (void)state;
    assert_int_equal(json_double_text(text, NAN, JSON_STD), 0);
    assert_int_equal(json_double_text(text, -INFINITY, JSON_FAST), 0);
    json_out_fixed(&o, JSON_STD, text, sizeof text);
    json_out_double(&o, INFINITY);
    assert_int_equal(o.err, ERR_FORMAT);
}

static void test_in_a_document(void **state)
{
    char text[64];
    struct json_out o;
    (void)state;
    json_out_fixed(&o, JSON_FAST, text, sizeof text);
    json_out_array(&o);
    json_out_double(&o, 1.25);
    json_out_double(&o, -3);
    json_out_array_end(&o);
    assert_int_equal(o.err, 0);
    assert_int_equal(o.len, 9);
    assert_memory_equal(text, "[1.25,-3]", 9);
}

/* Any finite number: the text reads back as the same one, and fits. */
static void test_reads_back(void **state)
{
    char text[JSON_DOUBLE_MAX + 1];
    (void)state;
    struct prop r = prop_init("floating-point numbers");
    for (int i = 0; i < 20000; i++) {
        uint64_t bits = prop_u64(&r);
        double v;
        memcpy(&v, &bits, sizeof v);
        if (!isfinite(v))
            continue;
        size_t n = json_double_text(text, v, JSON_STD);
        assert_in_range(n, 1, JSON_DOUBLE_MAX);
        assert_true(strtod(text, NULL) == v);
        assert_in_range(json_double_text(text, v, JSON_FAST), 1, JSON_DOUBLE_MAX);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_not_a_number),
        cmocka_unit_test(test_in_a_document),
        cmocka_unit_test(test_reads_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
