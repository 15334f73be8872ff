/*
 * rng - random numbers of the simulator: a function of (seed, node, stream, draw), no state.
 *
 * Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", 2011)
 * turns the four numbers into 128 random bits. So a draw depends neither on the order in which nodes
 * are run nor on who else drew: one thread or many, the same numbers. Each node counts its own draws
 * per stream; the streams keep purposes apart, so that one more draw of the workload changes no
 * latency.
 *
 * Pure functions, any thread. Not for anything secret.
 *
 *     uint64_t r = rng_u64(seed, node, RNG_LOAD, draws++);
 *     uint64_t i = rng_below(r, 100);
 */
#pragma once

#include <stdint.h>

enum rng_stream {
    RNG_ENGINE, /* env_random() of the node's engine */
    RNG_NET,    /* jitter and loss */
    RNG_LOAD,   /* what users do, and when */
    RNG_CHURN,  /* lifetimes */
    RNG_SETUP,  /* keys, regions, tables by oracle */
    RNG__COUNT
};

struct rng_block {
    uint32_t w[4];
};

/* The cipher itself: for its test. */
struct rng_block rng_philox(const uint32_t ctr[4], const uint32_t key[2]);

static inline struct rng_block rng_at(uint64_t seed, uint32_t node, enum rng_stream stream,
                                      uint64_t draw)
{
    const uint32_t ctr[4] = {(uint32_t)draw, (uint32_t)(draw >> 32), node, (uint32_t)stream};
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};

    return rng_philox(ctr, key);
}

static inline uint64_t rng_u64(uint64_t seed, uint32_t node, enum rng_stream stream, uint64_t draw)
{
    struct rng_block b = rng_at(seed, node, stream, draw);

    return (uint64_t)b.w[1] << 32 | b.w[0];
}

/* [0, bound) from one 64-bit number; the bias is below bound / 2^64. */
static inline uint64_t rng_below(uint64_t r, uint64_t bound)
{
    return (uint64_t)((unsigned __int128)r * bound >> 64);
}

/* Cheap mixing of two numbers, for properties of pairs (splitmix64's finaliser). */
static inline uint64_t rng_mix(uint64_t a, uint64_t b)
{
    uint64_t z = a + b * UINT64_C(0x9e3779b97f4a7c15) + UINT64_C(0x632be59bd9b4e019);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}
