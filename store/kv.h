/*
 * kv - what HTTP services keep: strings with a life, sets, hashes, bitmaps, counters, under byte keys.
 *
 * The operations are those of Redis that the services use, so that one service runs on either backend: an LMDB environment (store/kv_lmdb.h), or a Redis whose layout
 * upstream's daemons share (compat-http/kv_redis.h).
 *
 * kv_write() does a list of operations as one: all or nothing, durable when done() says 0. Reads see what was written before by calls that have been answered. A caller that reads
 * and then writes what follows from it serialises that itself.
 *
 * done() is called once for each call that returned 0; for reads of LMDB from inside the call. What an answer points to is valid until done() returns. Keys, members and
 * values are copied by the call. Errors: ERR_BUSY (too much is under way, nothing was done, done() is not called); in answers ERR_NO_SPACE, ERR_TIMEOUT and ERR_RESET (Redis
 * is away: a write may or may not have happened), ERR_CORRUPT, ERR_FORMAT (value of another kind), system errors.
 *
 * Limits: KV_KEY_MAX bytes of key and member together, KV_OPS_MAX operations of a write. One thread, the owner's.
 *
 *     struct kv_op op[] = {{KV_SET, KV_STR("k"), {0}, KV_STR("v"), 120000, 0}, {KV_SADD, KV_STR("set"), KV_STR("k"), {0}, 0, 0}};
 *     rc = kv_write(kv, op, 2, on_written, arg);
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KV_KEY_MAX 480
#define KV_OPS_MAX 65536

struct kv_str {
    const void *p; /* NULL in answers: not there */
    size_t n;
};
#define KV_STR(s) ((struct kv_str){(s), sizeof(s) - 1})

enum kv_cmd {
    KV_SET,    /* key = value, for ttl_ms (0 = for ever) */
    KV_DEL,    /* the key, whatever it is */
    KV_EXPIRE, /* the key lives for ttl_ms from now (LMDB: a set or hash up to 1 % less), whatever it is; nothing when it is not there */
    KV_SADD,   /* member into the set */
    KV_SREM,
    KV_INCR,   /* string as a decimal number, + number */
    KV_HSET,   /* member of the hash = value */
    KV_HINCR,  /* member of the hash, + number */
    KV_SETBIT, /* bit `number` of the string, the first one is the highest of byte 0 */
};

struct kv_op {
    enum kv_cmd cmd;
    struct kv_str key, member, value;
    uint64_t ttl_ms;
    uint64_t number;
};

struct kv_answer {
    int err;
    const struct kv_str *v; /* get: in order of the keys; members */
    const int64_t *ttl_ms;  /* ttl: -1 = for ever, -2 = not there */
    size_t n;
};

typedef void kv_done_fn(void *arg, const struct kv_answer *a);

struct kv_stat {
    size_t pending; /* gauge: calls that were not answered */
    uint64_t reads, writes, failed, commits, reconnects;
    bool ready; /* Redis: connected */
    int last_err;
};

struct kv;

struct kv_ops {
    const char *name;
    int (*write)(struct kv *kv, const struct kv_op *op, size_t n, kv_done_fn *fn, void *arg);
    int (*get)(struct kv *kv, const struct kv_str *keys, size_t n, kv_done_fn *fn, void *arg);
    int (*hget)(struct kv *kv, struct kv_str key, const struct kv_str *fields, size_t n,
                kv_done_fn *fn, void *arg);
    int (*members)(struct kv *kv, struct kv_str set, kv_done_fn *fn, void *arg);
    int (*ttl)(struct kv *kv, const struct kv_str *keys, size_t n, kv_done_fn *fn, void *arg);
    void (*stat)(const struct kv *kv, struct kv_stat *out);
    void (*close)(struct kv *kv);
};

struct kv { /* first in a backend's struct */
    const struct kv_ops *ops;
};

static inline int kv_write(struct kv *kv, const struct kv_op *op, size_t n, kv_done_fn *fn,
                           void *arg)
{
    return kv->ops->write(kv, op, n, fn, arg);
}
/* Strings, also bitmaps. */
static inline int kv_get(struct kv *kv, const struct kv_str *keys, size_t n, kv_done_fn *fn,
                         void *arg)
{
    return kv->ops->get(kv, keys, n, fn, arg);
}
static inline int kv_hget(struct kv *kv, struct kv_str key, const struct kv_str *fields, size_t n,
                          kv_done_fn *fn, void *arg)
{
    return kv->ops->hget(kv, key, fields, n, fn, arg);
}
/* All members, in no order. */
static inline int kv_members(struct kv *kv, struct kv_str set, kv_done_fn *fn, void *arg)
{
    return kv->ops->members(kv, set, fn, arg);
}
static inline int kv_ttl(struct kv *kv, const struct kv_str *keys, size_t n, kv_done_fn *fn,
                         void *arg)
{
    return kv->ops->ttl(kv, keys, n, fn, arg);
}
static inline void kv_stat(const struct kv *kv, struct kv_stat *out)
{
    kv->ops->stat(kv, out);
}
/* Writes that were accepted are done first; nobody is told any more. NULL is allowed. */
static inline void kv_close(struct kv *kv)
{
    if (kv != NULL)
        kv->ops->close(kv);
}
