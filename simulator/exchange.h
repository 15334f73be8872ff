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
 * Shards have numbers from 0 on through all processes; each process has as many as the others, in a
 * row. What is for another process is packed by the sender (pack.h) and handed over by one thread
 * while the others wait, through the caller's struct exchange_net: the exchange itself knows nothing
 * of messages between processes.
 *
 * Memory: on the heap, not in arenas (base/arena.h); what is sent stays where it was allocated.
 * Threads: each shard of this process is one thread; send and take are for the own shard only. The
 * first one's thread also calls the net. The meeting spins for a moment and then sleeps. Limits:
 * memory; ERR_NOMEM from exchange_send().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "simulator/queue.h"
#include "simulator/sim.h"

struct exchange;

struct exchange_span {
    const uint8_t *v;
    size_t n;
};

/* The other processes. Calls are collective: every process makes them in the same order. They do not
 * come back when a process is lost. */
struct exchange_net {
    void *arg;
    unsigned rank, ranks;
    /* Gives out[r] to process r and gets *in, what all have for this one, valid until the next call. */
    void (*swap)(void *arg, const struct exchange_span *out, struct exchange_span *in);
    /* n bytes of each, in the order of ranks. */
    void (*gather)(void *arg, const void *mine, size_t n, void *all);
    /* Each element becomes the sum, or the largest, of all. */
    void (*sum)(void *arg, uint64_t *v, size_t n);
    void (*max)(void *arg, uint64_t *v, size_t n);
};

struct exchange_report { /* of one shard, at the end of a window */
    uint64_t next_ns;
    bool stop;
    struct sim_point sums; /* of this shard */
};

/* shards: of this process. net: NULL, or for the life of the exchange. */
int exchange_new(struct exchange **out, unsigned shards, const struct exchange_net *net);
void exchange_free(struct exchange *x);

/* from is a shard of this process. */
int exchange_send(struct exchange *x, unsigned from, unsigned to, const struct sim_event *ev);
void exchange_meet(struct exchange *x, unsigned shard);
/* Wait for the other shards of this process. */
void exchange_wait(struct exchange *x);
/* What shard `to` was sent: by the n-th shard of this process, and behind these, with the number
 * exchange_sources() - 1, by other processes. The box is empty afterwards. Valid until the next
 * exchange_agree(). */
unsigned exchange_sources(const struct exchange *x);
const struct sim_event *exchange_take(struct exchange *x, unsigned source, unsigned to, size_t *n);
/* Give this shard's report, wait for the others'. The array (one per shard of all processes) is valid
 * until the next exchange_meet(). */
const struct exchange_report *exchange_agree(struct exchange *x, unsigned shard,
                                             const struct exchange_report *mine);
