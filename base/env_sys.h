/*
 * env_sys - struct env over the operating system: real clocks, real random, public-key work at
 * once.
 *
 * For tools and other programs with one connection at a time, where a millisecond of work in place
 * harms nobody; a node uses transport/drive_env.h. The owner embeds or allocates a struct env_sys;
 * nothing has to be freed. One thread per env. env_pk() never answers ERR_PENDING or ERR_BUSY here.
 *
 *     struct env_sys sys;
 *     if (env_sys_init(&sys) != 0) ...
 *     session_init(&s, &sys.env, ...);
 */
#pragma once

#include "base/env.h"

struct env_sys {
    struct env env; /* first member */
    struct env_pk_stats stats[PK_CLASS__COUNT];
};

/* Calls crypto_init() and draws the hash key. 0 or ERR_NOMEM. */
int env_sys_init(struct env_sys *sys) __attribute__((warn_unused_result));

/* Monotonic clock in ns, for whoever drives a loop (loop_turn()); cores get it as now_ns. */
uint64_t env_sys_mono_ns(void);

/* The two that every other real env shares. */
int64_t env_sys_wall_ns(struct env *env);
void env_sys_random(struct env *env, void *out, size_t n);
