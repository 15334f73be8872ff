/*
 * lone - one engine with a store and no network, for tests that call it directly: the clock is the test's,
 * requests come from made-up peers, and answers are read from the queue of actions.
 *
 *     struct lone l;
 *     lone_init(&l, seed);
 *     l.cfg.full = true;
 *     lone_start(&l, store);             // takes the store over
 *     lone_pass(&l, 5 * NS_PER_S);
 *     lone_close(&l);                    // fails the test when a reference is left
 */
#pragma once

#include "base/env_test.h"
#include "base/loop.h"
#include "kademlia/kad.h"
#include "tests/unit/kademlia/peers.h"

struct lone {
    struct env_test env;
    struct peers peers;
    struct store *store;
    struct kad *kad;
    struct kad_cfg cfg;
    uint64_t now_ns;
};

void lone_init(struct lone *l, uint64_t seed);
/* Begin with l->cfg on this store, or end and leave it open. */
void lone_start(struct lone *l, struct store *store);
void lone_stop(struct lone *l);
void lone_close(struct lone *l);

/* Everything that is due; actions are dropped. */
void lone_tick(struct lone *l);
void lone_pass(struct lone *l, int64_t ns);

/* The key pair of a number. */
struct pubkey lone_key(unsigned number, struct seckey *sk);

/* A request of that peer, taken over: its answer, which the caller clears, or false when the stream is closed. */
bool lone_ask(struct lone *l, kad_peer from, struct kad_msg *req, struct kad_msg *rsp);
