/*
 * queue - the events of one shard in the order (time, source, sequence).
 *
 * Near events lie unsorted in a ring of QUEUE_BUCKETS buckets of 2^20 ns (about 1 ms) each, 17 s in
 * all; the bucket that time has reached is a heap; what is farther off waits in a heap of its own
 * and moves into the ring when that gets near. Adding costs a few instructions, taking log2 of what
 * one bucket holds. An event may be added as long as it is not before the end of the window that
 * queue_take() was called for last (assert, to the bucket): looking at the queue moves nothing.
 *
 * Events are values of 32 bytes in chunks from a free list. The order is total: no two events have
 * the same (source, sequence). Owner: one thread. Limits: memory; ERR_NOMEM from queue_add() leaves
 * the queue as it was.
 *
 *     rc = queue_add(&q, &ev);
 *     while (queue_take(&q, end_ns, &ev))
 *         run(&ev);
 *     next_ns = queue_next(&q);
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QUEUE_BITS    20
#define QUEUE_BUCKETS 16384u
#define QUEUE_NEVER   UINT64_MAX

struct sim_event {
    uint64_t at_ns;
    uint64_t data; /* by type */
    uint32_t src, seq;
    uint32_t dst : 28;
    uint32_t type : 4;
    uint32_t aux;
};

_Static_assert(sizeof(struct sim_event) == 32, "two of them a cache line");

struct queue_heap {
    struct sim_event *v;
    size_t n, cap;
};

struct queue_chunk;

struct queue {
    struct queue_heap now, far;
    struct queue_chunk **ring, *spare;
    uint64_t *filled; /* a bit for each bucket of the ring */
    uint64_t bucket;  /* number (time >> QUEUE_BITS) of the bucket that `now` holds */
    size_t n_ring;    /* events in the ring */
    size_t n, peak;   /* events in all */
    size_t chunks;
};

/* 0 or ERR_NOMEM. */
int queue_init(struct queue *q) __attribute__((warn_unused_result));
/* Frees the memory; what data refers to is the caller's. */
void queue_free(struct queue *q);

int queue_add(struct queue *q, const struct sim_event *ev) __attribute__((warn_unused_result));

/* Time of the first event; QUEUE_NEVER when empty. */
uint64_t queue_next(const struct queue *q);

/* Some events that will come soon, the first one first, the others in no order: for looking ahead. Valid until the
 * queue changes. */
static inline const struct sim_event *queue_soon(const struct queue *q, size_t *n)
{
    *n = q->now.n;
    return q->now.v;
}

/* The first event, taken out, if it is before end_ns; else false. */
bool queue_take(struct queue *q, uint64_t end_ns, struct sim_event *out);
