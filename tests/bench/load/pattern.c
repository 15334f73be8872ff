#include <string.h>

#include "tests/bench/load/load.h"

#define PERIOD 65521u /* a prime: no loss of whole frames, windows or buffers goes unseen */
#define RUN    65536u /* longest run that can be had at once */

static uint8_t table[PERIOD + RUN];

void pattern_init(void)
{
    uint64_t x = UINT64_C(0x9e3779b97f4a7c15);
    for (size_t i = 0; i < PERIOD; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        table[i] = (uint8_t)(x >> 32);
    }
    for (size_t i = PERIOD; i < sizeof table; i++)
        table[i] = table[i - PERIOD];
}

const uint8_t *pattern_at(uint32_t seed, uint64_t at, size_t *n)
{
    if (*n > RUN)
        *n = RUN;
    return table + (seed % PERIOD + at % PERIOD) % PERIOD;
}

bool pattern_check(uint32_t seed, uint64_t at, const uint8_t *p, size_t n)
{
    while (n > 0) {
        size_t part = n;
        if (memcmp(p, pattern_at(seed, at, &part), part) != 0)
            return false;
        p += part;
        at += part;
        n -= part;
    }
    return true;
}
