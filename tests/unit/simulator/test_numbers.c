/* rng, fixed, hist: floating point is for comparing only. */
#include <math.h>

#include "simulator/fixed.h"
#include "simulator/hist.h"
#include "simulator/rng.h"
#include "tests/unit/prop.h"
#include "tests/unit/vectors.h"

/* Known answers of philox4x32-10, published with the authors' own implementation. */
static void test_philox(void **state)
{
    static const struct {
        uint32_t ctr[4], key[2], out[4];
    } v[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct rng_block b = rng_philox(v[i].ctr, v[i].key);
        assert_memory_equal(b.w, v[i].out, sizeof b.w);
    }
}

static void test_keyed(void **state)
{
    uint64_t one = rng_u64(1, 2, RNG_NET, 3);

    (void)state;
    assert_true(one == rng_u64(1, 2, RNG_NET, 3));
    assert_true(one != rng_u64(2, 2, RNG_NET, 3));
    assert_true(one != rng_u64(1, 3, RNG_NET, 3));
    assert_true(one != rng_u64(1, 2, RNG_LOAD, 3));
    assert_true(one != rng_u64(1, 2, RNG_NET, 4));
    assert_true(one != rng_u64(1, 2, RNG_NET, 3 + (UINT64_C(1) << 32)));
    assert_int_equal(rng_below(UINT64_MAX, 10), 9);
    assert_int_equal(rng_below(0, 10), 0);
}

static double q32(uint64_t v)
{
    return (double)v / 4294967296.0;
}

static void test_lives(void **state)
{
    struct prop r = prop_init("laws of lives against libm");

    (void)state;
    for (int i = 0; i < 5000; i++) {
        uint64_t random = prop_u64(&r);
        double u = ((double)random + 1) / 18446744073709551616.0;
        double weibull = pow(-log(u), 1 / 0.6), pareto = pow(u, -1 / 1.5);
        assert_true(fabs(q32(fixed_weibull(random, 600)) - weibull) < 1e-5 * weibull + 1e-6);
        assert_true(fabs(q32(fixed_pareto(random, 1500)) - pareto) < 1e-6 * pareto);
    }
    assert_true(fixed_weibull(UINT64_MAX, 600) == 0);
    assert_true(fixed_pareto(0, 300) == UINT64_MAX);
}

static void test_logarithm(void **state)
{
    struct prop r = prop_init("fixed point against libm");

    (void)state;
    assert_true(fixed_log2(1) == 0);
    assert_true(fixed_log2(UINT64_C(1) << 63) == UINT64_C(63) << 32);
    for (int i = 0; i < 20000; i++) {
        uint64_t x = prop_u64(&r) >> prop_below(&r, 64) | 1;
        assert_true(fabs(q32(fixed_log2(x)) - log2((double)x)) < 1e-8);
        int64_t e = (int64_t)(prop_u64(&r) >> 27) * (prop_chance(&r, 50) ? 1 : -1) / 5;
        double want = exp2((double)e / 4294967296.0), is = q32(fixed_exp2(e));
        if (want > 1e-9 && want < 4e9)
            assert_true(fabs(is - want) < 1e-8 * want + 1e-9);
    }
    assert_true(fixed_exp2(INT64_C(40) << 32) == UINT64_MAX);
    assert_true(fixed_exp2(-(INT64_C(40) << 32)) == 0);
    assert_true(fixed_mul(UINT64_MAX, FIXED_ONE * 2) == UINT64_MAX);
}

/* Mean and spread of what is drawn, and that inverse functions rise. */
static void test_distributions(void **state)
{
    enum { N = 100000 };
    double sum = 0, squares = 0, exp_sum = 0;
    int below = 0;

    (void)state;
    for (uint32_t i = 0; i < N; i++) {
        uint64_t u = ((uint64_t)i << 32 | 0x80000000u) / N * 4294967296u;
        double z = fixed_normal(u) / 65536.0;
        sum += z;
        squares += z * z;
        double e = (double)fixed_exponential(u, 1000000) / 1e6;
        exp_sum += e;
        below += e < 1.0;
        if (i > 0)
            assert_true(fixed_normal(u) >=
                        fixed_normal(((uint64_t)(i - 1) << 32 | 0x80000000u) / N * 4294967296u));
    }
    assert_true(fabs(sum / N) < 0.001);
    assert_true(fabs(sqrt(squares / N) - 1) < 0.01);
    assert_true(fabs(exp_sum / N - 1) < 0.01);
    assert_true(fabs((double)below / N - (1 - exp(-1))) < 0.001);
    assert_true(fixed_exponential(0, 1000) > 44000 && fixed_exponential(UINT64_MAX, 1000) == 0);
    assert_true(fixed_zipf_weight(1, 900) == FIXED_ONE);
    assert_true(fabs(q32(fixed_zipf_weight(1000, 900)) - pow(1000, -0.9)) < 1e-7);
    assert_true(fixed_zipf_weight(77, 0) == FIXED_ONE);
}

static void test_histogram(void **state)
{
    static struct hist h, other;
    struct prop r = prop_init("percentiles");

    (void)state;
    assert_int_equal(hist_percentile(&h, 5000), 0);
    for (uint64_t i = 1; i <= 1000; i++)
        hist_add(&h, i);
    assert_int_equal(hist_percentile(&h, 0), 1);
    assert_in_range(hist_percentile(&h, 5000), 500, 532);
    assert_in_range(hist_percentile(&h, 9900), 990, 1000);
    assert_int_equal(hist_percentile(&h, 10000), 1000);
    assert_int_equal(hist_mean_milli(&h), 500500);
    hist_add(&other, UINT64_MAX);
    hist_add(&other, 0);
    hist_merge(&h, &other);
    assert_int_equal(h.n, 1002);
    assert_true(hist_percentile(&h, 10000) == UINT64_MAX);
    for (int i = 0; i < 10000; i++) { /* one number: every percentile is it, within the step */
        static struct hist one;
        uint64_t v = prop_u64(&r) >> prop_below(&r, 64);
        memset(&one, 0, sizeof one);
        hist_add(&one, v);
        assert_true(hist_percentile(&one, 5000) == v);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_philox),        cmocka_unit_test(test_keyed),
        cmocka_unit_test(test_lives),         cmocka_unit_test(test_logarithm),
        cmocka_unit_test(test_distributions), cmocka_unit_test(test_histogram),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
