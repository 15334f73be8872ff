/*
 * drive_world - a loop with its TCP driver for one test: real sockets, threads and clocks. Nothing depends on how long
 * something takes; every wait ends when what is waited for is there, or fails after 20 s.
 *
 *     cmocka_unit_test_setup_teardown(test_it, dw_setup, dw_teardown)
 *     struct drive_world *f = *state;
 */
#pragma once

#include "tests/unit/vectors.h"
#include "transport/drive_loop.h"
#include "transport/drive_tcp.h"

struct drive_world {
    struct drive_loop *drive;
    struct bufpool *pool;
    struct drive_tcp *tcp;
};

int dw_setup(void **state);
int dw_teardown(void **state);
struct loop *dw_loop(struct drive_world *f);
/* One turn of its timers and deferred closes. */
void dw_turn(struct drive_world *f);
/* Runs until done(arg), which may be NULL, or so long: what done() said last. */
bool dw_run_for(struct drive_world *f, uint64_t ns, bool (*done)(void *arg), void *arg);
void dw_wait(struct drive_world *f, bool (*done)(void *arg), void *arg);
