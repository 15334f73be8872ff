#include "simulator/rng.h"

#define ROUNDS 10

static void round_once(uint32_t c[4], const uint32_t k[2])
{
    uint64_t p0 = UINT64_C(0xD2511F53) * c[0], p1 = UINT64_C(0xCD9E8D57) * c[2];
    uint32_t c1 = c[1], c3 = c[3];

    c[0] = (uint32_t)(p1 >> 32) ^ c1 ^ k[0];
    c[1] = (uint32_t)p1;
    c[2] = (uint32_t)(p0 >> 32) ^ c3 ^ k[1];
    c[3] = (uint32_t)p0;
}

struct rng_block rng_philox(const uint32_t ctr[4], const uint32_t key[2])
{
    struct rng_block b = {{ctr[0], ctr[1], ctr[2], ctr[3]}};
    uint32_t k[2] = {key[0], key[1]};

    for (int i = 0; i < ROUNDS; i++) {
        round_once(b.w, k);
        k[0] += UINT32_C(0x9E3779B9);
        k[1] += UINT32_C(0xBB67AE85);
    }
    return b;
}
