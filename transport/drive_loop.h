/*
 * drive_loop - runs a struct loop on a libevent base, and lets other threads post to it.
 *
 * Works on a base of its own or on the caller's (the public library). The loop takes its turn after a batch of I/O callbacks and whenever a timer
 * is due or something was posted. Descriptors' callbacks must call drive_loop_now() first, so that cores see the time of this turn.
 *
 * drive_post() is the one function here that any thread may call: the message's fn runs on the loop's thread, in order of posting per sender. A message is
 * intrusive and belongs to the loop until its fn is called; the queue is bounded by what its senders own.
 *
 *     struct drive_loop *d = drive_loop_new(NULL);  ...  drive_loop_run(d);  drive_loop_free(d);
 */
#pragma once

#include <event2/event.h>
#include <stdint.h>

#include "base/loop.h"

struct drive_loop;

struct drive_msg {
    void (*fn)(struct drive_msg *m); /* set by the sender */
    struct drive_msg *next;
};

/* base NULL: one of its own. NULL when out of memory or descriptors. */
struct drive_loop *drive_loop_new(struct event_base *base);
void drive_loop_free(struct drive_loop *d);
struct loop *drive_loop_loop(struct drive_loop *d);
struct event_base *drive_loop_base(struct drive_loop *d);

/* Update loop->now_ns from the monotonic clock; returns it. */
uint64_t drive_loop_now(struct drive_loop *d);

/* Run until drive_loop_stop(). Returns 0, or an error when the base failed. */
int drive_loop_run(struct drive_loop *d);
void drive_loop_stop(struct drive_loop *d); /* from the loop's thread */

/* Any thread. */
void drive_post(struct drive_loop *d, struct drive_msg *m);

/* Wait for a message and run those that are there, without the rest of the base: for shutting down
 * what other threads still answer to. */
void drive_loop_wait_message(struct drive_loop *d);

/* Longest turn since start, ns: a watchdog gauge. */
uint64_t drive_loop_max_turn_ns(const struct drive_loop *d);
