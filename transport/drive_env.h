/*
 * drive_env - the node's env: system clock and random, public-key work in a bounded pool of threads.
 *
 * A struct pk_pool is shared by all loops of the process; each loop has a struct env of its own made from it. Requests are copied into a job, done by a pool
 * thread, and come back to their loop by drive_post(). Jobs wait in one queue per class; the threads serve OWN first and the others in turn, so
 * that a flood of handshakes delays neither stream set-up nor items. A full queue drops the request (ERR_BUSY, counted).
 *
 * Life cycle: pk_pool_new(), drive_env_new() per loop; drive_env_free() when its cores are gone and before its loop is freed: it waits for the jobs that
 * are being worked on; then pk_pool_free().
 */
#pragma once

#include "base/env.h"
#include "transport/drive_loop.h"

struct pk_pool;

/* threads 1 … 64; queue_cap requests per class and env. NULL when out of memory. */
struct pk_pool *pk_pool_new(unsigned threads, size_t queue_cap);
void pk_pool_free(struct pk_pool *p);

struct env *drive_env_new(struct pk_pool *pool, struct drive_loop *loop);
void drive_env_free(struct env *env);
/* Shift the wall clock that this env tells, ns: tests of clocks that are wrong. */
void drive_env_set_clock_offset(struct env *env, int64_t offset_ns);
