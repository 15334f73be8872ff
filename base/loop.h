/*
 * loop - timers and deferred work of one thread, without an event library.
 *
 * A struct loop is the part of an event loop that cores need: what time is it, call me at that
 * time, call me at the end of this turn. It knows no descriptors. Somebody drives it:
 * transport/drive_loop.c by libevent in the node, tests and the simulator by virtual time.
 *
 * Owner: one thread. Timers and tasks are intrusive (embedded in the object they serve), so posting
 * a task allocates nothing, and arming a timer only lets the heap grow. Neither can fail: a timer
 * for which the heap has no memory goes to a plain list that is searched in each turn until there
 * is memory again; it still fires when it is due, and only its place among timers of the same turn
 * may differ.
 *
 * Life cycle: loop_init(); then, again and again, loop_turn(now_ns) which sets loop->now_ns, runs
 * due timers in order of (time, arming order), then runs deferred tasks until none is left (tasks
 * posted by tasks run in the same turn, at most LOOP_TASK_ROUNDS rounds, the rest next turn);
 * loop_deadline() says when to call again. loop_close() asserts that nothing is armed.
 *
 * Rules: no callback re-enters its caller, so cores finish their work, then post a task or a timer;
 * destruction is deferred to the end of the turn by posting a task. `now_ns` is monotonic and
 * constant within a turn.
 *
 *     static void fire(struct loop_timer *t) { struct thing *x = container_of(t, struct thing,
 * timer); ... } x->timer.fn = fire; loop_timer_set(loop, &x->timer, loop->now_ns + 5 * NS_PER_S);
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/heap.h"
#include "base/list.h"

#define NS_PER_US        UINT64_C(1000)
#define NS_PER_MS        UINT64_C(1000000)
#define NS_PER_S         UINT64_C(1000000000)
#define LOOP_NEVER       UINT64_MAX
#define LOOP_TASK_ROUNDS 64

struct loop_timer {
    void (*fn)(struct loop_timer *t); /* set once by the owner */
    uint64_t at_ns;                   /* due time while armed */
    struct heap_node node;
    bool spare;              /* armed, but on the spare list */
    struct loop_timer *next; /* on the spare list */
};

struct loop_task {
    void (*fn)(struct loop_task *t); /* set once by the owner */
    struct list_node node;           /* list_node_is_linked() = posted */
};

struct loop {
    uint64_t now_ns; /* monotonic time of this turn */
    struct heap heap;
    struct loop_timer *spare; /* armed timers the heap has no memory for */
    uint64_t next_order;      /* arming order: breaks ties, so that runs are reproducible */
    struct list tasks;
    /* Optional: called when something armed or posted outside loop_turn() makes loop_deadline()
     * earlier, so that the driver re-arms. It may not call back into the loop. */
    void (*wake)(struct loop *loop);
    void *driver;
    bool in_turn;
};

void loop_init(struct loop *loop, uint64_t now_ns);

/* Free the heap. Armed timers or posted tasks at this point are a bug (assert), and so is a call
 * from inside a turn. */
void loop_close(struct loop *loop);

/* Arm or re-arm for at_ns (a time already past fires in the next turn, never from inside this
 * call). O(log n). */
void loop_timer_set(struct loop *loop, struct loop_timer *t, uint64_t at_ns);

/* Disarm; harmless when not armed. Part of every destroy function. */
void loop_timer_cancel(struct loop *loop, struct loop_timer *t);

static inline bool loop_timer_armed(const struct loop_timer *t)
{
    return heap_node_is_in(&t->node) || t->spare;
}

/* Run the task once at the end of this turn (or in the next one when called outside a turn).
 * Posting it twice is posting it once. */
void loop_task_post(struct loop *loop, struct loop_task *t);

/* Take a posted task back; harmless when it is not posted. */
void loop_task_cancel(struct loop *loop, struct loop_task *t);

/* One turn at the given time. now_ns going back is treated as standing still. Not from inside a
 * turn (assert). */
void loop_turn(struct loop *loop, uint64_t now_ns);

/* Time of the next turn that is needed: 0 = at once (tasks are waiting), LOOP_NEVER = none. */
uint64_t loop_deadline(const struct loop *loop);
