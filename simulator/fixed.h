/*
 * fixed - fixed-point functions for times and choices: no floating point, no libm, so that every
 * machine and compiler gets the same events.
 *
 * Q32 = 32 bits behind the point. Errors are below 2^-28 for the logarithm and 2^-26 relative for
 * the power; the normal quantile is interpolated from a table of 257 points and ends at ±3.49 (1 in
 * 2000 on each side is cut to the last interval).
 *
 * Pure functions, any thread.
 *
 *     uint64_t life_ns = fixed_exponential(rng_u64(...), mean_ns);
 */
#pragma once

#include <stdint.h>

#define FIXED_ONE (UINT64_C(1) << 32)
#define FIXED_LN2 UINT64_C(2977044472) /* ln 2, Q32 */

/* log2(x), x > 0, as Q32. */
uint64_t fixed_log2(uint64_t x);

/* 2^x, x in Q32, result in Q32: 0 below 2^-32, UINT64_MAX from 2^32 on. */
uint64_t fixed_exp2(int64_t x);

/* a * b, b in Q32; saturates. */
uint64_t fixed_mul(uint64_t a, uint64_t b);

/* Exponential variate with this mean from 64 random bits; at most 45 times the mean. */
uint64_t fixed_exponential(uint64_t random, uint64_t mean);

/* Weibull variate with scale 1 and this shape (thousandths, at least 300), Q32: (-ln u)^(1/shape). */
uint64_t fixed_weibull(uint64_t random, uint32_t shape_milli);

/* Pareto variate with minimum 1 and this shape (thousandths), Q32: u^(-1/shape); ends at 2^32. */
uint64_t fixed_pareto(uint64_t random, uint32_t shape_milli);

/* Standard normal quantile of p = random / 2^64, as Q16. */
int32_t fixed_normal(uint64_t random);

/* Weight of rank r (1 …) in a Zipf distribution with exponent s_milli / 1000: r^-s as Q32. */
uint64_t fixed_zipf_weight(uint64_t rank, uint32_t s_milli);

/* This many millionths of v. */
static inline uint64_t fixed_ppm(uint64_t v, uint32_t ppm)
{
    return (uint64_t)((unsigned __int128)v * ppm / 1000000);
}
