/*
 * wake - has this machine slept, or moved? Notices what makes sessions doubtful before any of their
 * own timers does (incidents 89, 90):
 *
 *     suspended         CLOCK_BOOTTIME went on while CLOCK_MONOTONIC stood still
 *     stopped           the ticks of this process were missing (SIGSTOP, a frozen machine)
 *     clock jumped      wall clock and boot time disagree about the last tick
 *     network changed   addresses or routes came or went (rtnetlink), when it has been quiet for
 *                       WAKE_SETTLE_NS, at the latest after 5 of these
 *
 * woken() is called once for all ticks that were missed, and at most every WAKE_REST_NS; what comes
 * earlier is told behind the rest. Time is never set from anything here: durations are measured by
 * CLOCK_MONOTONIC, signatures carry CLOCK_REALTIME.
 *
 * Owner: one thread. Without netlink (a sandbox) changes of the network go unnoticed; the
 * sessions' own liveness finds out later.
 *
 *     wake_init(&w, drive, woken, arg);   every second: wake_tick(&w, now_ns, env_wall_ns(env));
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "transport/drive_loop.h"

#define WAKE_JUMP_NS   (5 * NS_PER_S) /* what is no delay of a busy machine */
#define WAKE_SETTLE_NS (500 * NS_PER_MS)
#define WAKE_REST_NS   (5 * NS_PER_S)

struct event;

struct wake {
    struct drive_loop *drive;
    void (*woken)(void *arg, const char *why, int64_t s); /* s: how long, or how far, in seconds */
    void *arg;
    uint64_t mono_ns, boot_ns, told_ns; /* of the last tick; when woken() was called */
    int64_t wall_ns;
    bool ticked, owed;
    int fd;
    struct event *ev;
    struct loop_timer settle;
    uint64_t first_ns; /* of the changes that are settling, 0 = none */
};

void wake_init(struct wake *w, struct drive_loop *drive,
               void (*woken)(void *arg, const char *why, int64_t s), void *arg);
/* Harmless on one that is all zero. */
void wake_close(struct wake *w);
/* Each second, with the loop's time and the wall clock. */
void wake_tick(struct wake *w, uint64_t mono_ns, int64_t wall_ns);
/* The same for tests, with boot time. */
void wake_tick_at(struct wake *w, uint64_t mono_ns, uint64_t boot_ns, int64_t wall_ns);
/* Does a datagram of rtnetlink tell of a change that concerns us? */
bool wake_concerns(const void *msg, size_t n);
/* The network has changed. */
void wake_network(struct wake *w);
