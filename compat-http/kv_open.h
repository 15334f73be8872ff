/*
 * kv_open - the store of a service by its name: a Redis URL, or a folder for LMDB.
 *
 *     rc = kv_open(&o, &cfg, why, sizeof(why));
 *     …o.kv…, from the loop's thread
 *     kv_open_close(&o);
 */
#pragma once

#include "compat-http/kv_redis.h"
#include "store/kv_lmdb.h"

struct kv_open {
    struct kv *kv;
    void *wake; /* private */
};

struct kv_open_cfg {
    struct drive_loop *drive;
    struct env *env;
    const char *redis;                                  /* URL; NULL = LMDB */
    const char *password;                               /* of Redis */
    const char *dir;                                    /* of LMDB */
    unsigned commit_ms;                                 /* of LMDB; 0 = default */
    void (*state)(void *arg, int err, const char *why); /* of Redis; optional */
    void *arg;
};

int kv_open(struct kv_open *out, const struct kv_open_cfg *cfg, char *why, size_t why_size)
    __attribute__((warn_unused_result));
void kv_open_close(struct kv_open *o);
