/*
 * exchange - how shards hand events to each other and agree on the next window.
 *
 * Each shard runs its window alone and sends what is for other shards; then all meet: what was sent
 * is received, and everybody learns the earliest event of all. The rule that makes this right is the
 * caller's: an event for another shard is never earlier than the end of the window it was sent in.
 *
 *     run the window [start, end)      exchange_send()
 *     exchange_meet()                  everybody has finished sending
 *     receive                          exchange_take() from each shard
 *     exchange_agree()                 what everybody reports, e.g. the time of the next event
 *
 * This is the place for shards on other machines: the same three calls over messages.
 *
 * Threads: shard s is one thread; send and take are for the own shard only. The meeting spins for a
 * moment and then sleeps. Limits: memory; ERR_NOMEM from exchange_send().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "simulator/queue.h"
#include "simulator/sim.h"

struct exchange;

struct exchange_report { /* of one shard, at the end of a window */
    uint64_t next_ns;
    bool stop;
    struct sim_point sums; /* of this shard */
};

int exchange_new(struct exchange **out, unsigned shards);
void exchange_free(struct exchange *x);

int exchange_send(struct exchange *x, unsigned from, unsigned to, const struct sim_event *ev);
void exchange_meet(struct exchange *x);
/* What `from` sent to `to`; the box is empty afterwards. Valid until the next exchange_agree(). */
const struct sim_event *exchange_take(struct exchange *x, unsigned from, unsigned to, size_t *n);
/* Give this shard's report, wait for the others'. The array (one per shard) is valid until the next
 * exchange_meet(). */
const struct exchange_report *exchange_agree(struct exchange *x, unsigned shard,
                                             const struct exchange_report *mine);
