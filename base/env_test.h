/*
 * env_test - struct env for tests and fuzzers: everything is settable, counted and reproducible.
 *
 * Clock     env_wall_ns() is the member wall_ns; set it.
 * Random    a ChaCha20 stream of the seed: equal seeds and equal calls give equal bytes. Outputs
 * can be scripted in front of it: a call for n bytes takes the oldest scripted output of exactly n
 * bytes if there is one (so 32-byte ephemeral keys can be given while 8-byte jitter still comes
 * from the seed). Public-key work is done at once, or with deferred = true only when env_test_run()
 * is told to: the way to test that a core survives every interleaving. Each class queues at most
 * pk_cap requests, one more is ERR_BUSY; pk_cap = 0 refuses everything, in both modes. With shuffle
 * = true the answers come in an order drawn from the seed.
 *
 * The owner calls env_test_init() and env_test_close(); close asserts that no request is left
 * (cores must cancel theirs). Not for production: the random bytes are not secret. crypto_init() is
 * called by env_test_init().
 *
 *     struct env_test t;
 *     env_test_init(&t, seed);
 *     env_test_script(&t, ephemeral_sk, 32);
 *     t.deferred = true;
 *     ... start a handshake on &t.env ...
 *     while (env_test_run(&t, 1) > 0)
 *         check();
 *     env_test_close(&t);
 */
#pragma once

#include "base/env.h"

#define ENV_TEST_PK_CAP      1024 /* default of pk_cap */
#define ENV_TEST_SCRIPT_MAX  64
#define ENV_TEST_SCRIPT_SIZE 64

struct env_test_request; /* a queued request */

struct env_test {
    struct env env; /* first member */

    int64_t wall_ns; /* starts at ENV_TEST_EPOCH_NS */
    bool deferred, shuffle;
    size_t pk_cap; /* per class */

    /* What was asked for, answered or not; for tests of how much work a protocol step costs. */
    uint64_t ops[PK_VERIFY + 1]; /* requests by operation */
    uint64_t ecdh, keygen;       /* curve multiplications in them */
    uint64_t random_calls;

    uint8_t key[32]; /* of the random stream */
    struct env_pk_stats stats[PK_CLASS__COUNT];
    struct env_test_request *queue; /* in order of arrival */
    size_t queue_len, queue_room;
    uint64_t next_ticket;
    struct {
        size_t n; /* 0 = taken */
        uint8_t b[ENV_TEST_SCRIPT_SIZE];
    } script[ENV_TEST_SCRIPT_MAX];
};

#define ENV_TEST_EPOCH_NS INT64_C(1700000000000000000)

/* hash_key is drawn from the seed too. Aborts when memory is short. */
void env_test_init(struct env_test *t, uint64_t seed);
void env_test_close(struct env_test *t);

/* Queue one output for a later env_random() of the same size; n = 1 … ENV_TEST_SCRIPT_SIZE. */
void env_test_script(struct env_test *t, const void *p, size_t n);

/* Answer up to max queued requests, also those that the callbacks submit meanwhile. Returns how
 * many. */
size_t env_test_run(struct env_test *t, size_t max);

/* Requests waiting, all classes. */
size_t env_test_queued(const struct env_test *t);
