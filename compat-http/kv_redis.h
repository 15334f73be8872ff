/*
 * kv_redis - the key-value store of HTTP services in a Redis, asynchronously on the loop (docs/protocol/services.md §3.4).
 *
 * Each call is one transaction (MULTI … EXEC) or one command. A call that waits when the connection ends is sent again on the next one, as long as its deadline
 * (KV_REDIS_TIMEOUT_MS) allows and doing it twice is the same as once; KV_INCR and KV_HINCR that may have been done are answered ERR_RESET. What was answered 0 was
 * confirmed by Redis.
 *
 * A name is looked up without keeping the loop waiting, anew for each connection; of several addresses the next one is taken after a failure.
 *
 * Connecting goes on for ever, 100 ms to 5 s apart, jittered; state() tells of every change: 0 = ready, else why it is not (ERR_REFUSED: password). Who needs Redis
 * to start waits for it. URL: redis://[:password@]host[:port][/database]; a password of the configuration wins. unix:///path[?db=N] too.
 *
 * Errors: ERR_FORMAT (URL), ERR_NOMEM. Out of memory in Redis (maxmemory, noeviction): ERR_NO_SPACE. Limits: KV_REDIS_PENDING calls (ERR_BUSY).
 *
 *     struct kv_redis_cfg cfg = {.drive = drive, .env = env, .url = "redis://localhost:6379"};
 *     rc = kv_redis_open(&kv, &cfg);
 */
#pragma once

#include "base/env.h"
#include "store/kv.h"
#include "transport/drive_loop.h"

#define KV_REDIS_TIMEOUT_MS 3000
#define KV_REDIS_PENDING    16384

struct kv_redis_cfg {
    struct drive_loop *drive;
    struct env *env;
    const char *url;
    const char
        *name_server; /* "host:port" to ask for the URL's name, for tests; NULL = the system's */
    const char *password; /* NULL: that of the URL */
    unsigned timeout_ms;  /* 0 = KV_REDIS_TIMEOUT_MS */
    void (*state)(void *arg, int err, const char *why);
    void *arg;
};

int kv_redis_open(struct kv **out, const struct kv_redis_cfg *cfg)
    __attribute__((warn_unused_result));
