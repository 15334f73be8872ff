#include "simulator/fixed.h"

#include <stdbool.h>

/* Quantiles of the normal distribution at p = 0.5 + i / 512, the last one at 1 - 1 / 4096; Q16. */
static const int32_t normal[257] = {
    0,      321,    642,    963,    1283,   1604,   1925,   2246,   2567,   2889,   3210,   3531,
    3852,   4174,   4495,   4817,   5139,   5461,   5783,   6105,   6427,   6750,   7072,   7395,
    7718,   8041,   8365,   8688,   9012,   9336,   9660,   9985,   10310,  10634,  10960,  11285,
    11611,  11937,  12263,  12590,  12917,  13244,  13572,  13900,  14228,  14557,  14886,  15215,
    15545,  15875,  16206,  16537,  16869,  17200,  17533,  17865,  18199,  18532,  18867,  19201,
    19536,  19872,  20208,  20545,  20882,  21220,  21559,  21898,  22237,  22577,  22918,  23259,
    23601,  23944,  24287,  24631,  24976,  25321,  25668,  26014,  26362,  26710,  27059,  27409,
    27759,  28111,  28463,  28816,  29170,  29525,  29880,  30237,  30594,  30952,  31311,  31671,
    32032,  32394,  32758,  33122,  33487,  33853,  34220,  34588,  34958,  35328,  35700,  36072,
    36446,  36821,  37198,  37575,  37954,  38334,  38715,  39098,  39482,  39868,  40254,  40642,
    41032,  41423,  41816,  42210,  42605,  43002,  43401,  43801,  44203,  44607,  45012,  45419,
    45828,  46239,  46651,  47066,  47482,  47900,  48320,  48742,  49166,  49592,  50021,  50451,
    50884,  51318,  51756,  52195,  52637,  53081,  53528,  53977,  54428,  54883,  55340,  55799,
    56262,  56727,  57195,  57666,  58140,  58617,  59097,  59581,  60067,  60557,  61051,  61548,
    62048,  62552,  63060,  63572,  64087,  64607,  65131,  65659,  66191,  66727,  67268,  67814,
    68364,  68920,  69480,  70045,  70616,  71192,  71774,  72361,  72954,  73554,  74159,  74771,
    75389,  76015,  76647,  77286,  77933,  78588,  79250,  79921,  80600,  81288,  81985,  82691,
    83408,  84134,  84871,  85618,  86377,  87148,  87931,  88727,  89536,  90358,  91196,  92048,
    92917,  93802,  94704,  95625,  96565,  97526,  98507,  99512,  100540, 101594, 102675, 103784,
    104924, 106096, 107304, 108549, 109834, 111164, 112540, 113968, 115453, 116999, 118613, 120303,
    122076, 123944, 125918, 128013, 130248, 132646, 135235, 138055, 141156, 144610, 148519, 153042,
    158437, 165184, 174330, 189113, 228531,
};

/* 2^(2^-i) for i = 1 … 32, with 62 bits behind the point. */
static const uint64_t roots[32] = {
    UINT64_C(6521908912666391106), UINT64_C(5484249825272419511), UINT64_C(5029079263719320435),
    UINT64_C(4815862801830788490), UINT64_C(4712668792719003883), UINT64_C(4661903986662671289),
    UINT64_C(4636727017470743990), UINT64_C(4624189567668517720), UINT64_C(4617933561212708776),
    UINT64_C(4614808732577250068), UINT64_C(4613247111281068008), UINT64_C(4612466498810092974),
    UINT64_C(4612076242109103707), UINT64_C(4611881126141011236), UINT64_C(4611783571252412753),
    UINT64_C(4611734794581956353), UINT64_C(4611710406440186475), UINT64_C(4611698212417665819),
    UINT64_C(4611692115418496524), UINT64_C(4611689066921934630), UINT64_C(4611687542674409371),
    UINT64_C(4611686780550835663), UINT64_C(4611686399489096040), UINT64_C(4611686208958238036),
    UINT64_C(4611686113692811986), UINT64_C(4611686066060099699), UINT64_C(4611686042243743740),
    UINT64_C(4611686030335565806), UINT64_C(4611686024381476851), UINT64_C(4611686021404432376),
    UINT64_C(4611686019915910140), UINT64_C(4611686019171649022),
};

uint64_t fixed_log2(uint64_t x)
{
    unsigned whole = 63u - (unsigned)__builtin_clzll(x);
    uint64_t m = x << (63 - whole); /* 1 ≤ m < 2 with 63 bits behind the point */
    uint64_t frac = 0;

    /* Squaring doubles the logarithm: what passes 2 is the next bit. */
    for (int i = 0; i < 32; i++) {
        unsigned __int128 sq = (unsigned __int128)m * m;
        frac <<= 1;
        if (sq >> 127 != 0) {
            frac |= 1;
            m = (uint64_t)(sq >> 64);
        } else {
            m = (uint64_t)(sq >> 63);
        }
    }
    return (uint64_t)whole << 32 | frac;
}

uint64_t fixed_exp2(int64_t x)
{
    int64_t whole = x >> 32;
    uint32_t frac = (uint32_t)x;
    uint64_t m = UINT64_C(1) << 62;

    if (whole >= 32)
        return UINT64_MAX;
    if (whole < -32)
        return 0;
    for (unsigned i = 0; i < 32; i++) {
        if (frac & UINT32_C(1) << (31 - i))
            m = (uint64_t)((unsigned __int128)m * roots[i] >> 62);
    }
    return whole >= 30 ? m << (whole - 30) : m >> (30 - whole);
}

uint64_t fixed_mul(uint64_t a, uint64_t b)
{
    unsigned __int128 p = (unsigned __int128)a * b >> 32;

    return p > UINT64_MAX ? UINT64_MAX : (uint64_t)p;
}

uint64_t fixed_exponential(uint64_t random, uint64_t mean)
{
    /* -ln(u), u = (random + 1) / 2^64 */
    uint64_t log2_u = random == UINT64_MAX ? UINT64_C(64) << 32 : fixed_log2(random + 1);
    uint64_t bits = (UINT64_C(64) << 32) - log2_u;

    return fixed_mul(mean, fixed_mul(bits, FIXED_LN2));
}

uint64_t fixed_weibull(uint64_t random, uint32_t shape_milli)
{
    uint64_t e = fixed_exponential(random, FIXED_ONE);

    if (e == 0)
        return 0;
    int64_t log2_e = (int64_t)fixed_log2(e) - (INT64_C(32) << 32);
    return fixed_exp2((int64_t)((__int128)log2_e * 1000 / shape_milli));
}

uint64_t fixed_pareto(uint64_t random, uint32_t shape_milli)
{
    uint64_t bits = (UINT64_C(64) << 32) - fixed_log2(random | 1);

    return fixed_exp2((int64_t)((unsigned __int128)bits * 1000 / shape_milli));
}

int32_t fixed_normal(uint64_t random)
{
    bool upper = random >> 63 != 0;
    uint64_t p = (upper ? random : ~random) << 1; /* distance from the middle */
    unsigned i = (unsigned)(p >> 56);
    int64_t part = (int64_t)(p >> 24 & UINT32_MAX);
    int64_t z = normal[i] + ((int64_t)(normal[i + 1] - normal[i]) * part >> 32);

    return (int32_t)(upper ? z : -z);
}

uint64_t fixed_zipf_weight(uint64_t rank, uint32_t s_milli)
{
    uint64_t exponent = (uint64_t)((unsigned __int128)fixed_log2(rank) * s_milli / 1000);

    return fixed_exp2(-(int64_t)exponent);
}
