/*
 * follow - keeps the entries of the keys that this node talks to fresh.
 *
 * A key that is dialled a second time within FOLLOW_IDLE_NS is talked to: its entry is watched
 * (kad.h) until nobody has dialled it for FOLLOW_IDLE_NS. So a destination that moves to another
 * relay is found there by the next dial, and not by the first one that fails: what the watch brings
 * goes into the store, and from there into resolve's cache as anything else.
 *
 * Owner: the node. One loop. At most FOLLOW_MAX keys are remembered; the one that was dialled longest
 * ago gives way. follow_free() before the host.
 *
 *     struct follow *f = follow_new(loop, host, env->hash_key);
 *     follow_used(f, &pk);          // a stream to pk is dialled
 *     if (follow_report(f, r)) ...  // a report of the engine that was meant for it
 */
#pragma once

#include "base/loop.h"
#include "kademlia/host.h"

#define FOLLOW_MAX     256
#define FOLLOW_IDLE_NS (900 * NS_PER_S)

struct follow;

/* NULL: out of memory. */
struct follow *follow_new(struct loop *loop, struct host *host, const uint8_t hash_key[16]);
void follow_free(struct follow *f); /* NULL is allowed */
void follow_used(struct follow *f, const struct pubkey *pk);
bool follow_report(const struct follow *f, const struct kad_report *r);
/* Gauge: keys whose entries are watched. */
size_t follow_watched(const struct follow *f);
