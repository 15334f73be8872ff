/*
 * kv_lmdb - the key-value store of HTTP services in an LMDB environment of its own (docs/decisions/0003-store.md for how LMDB is used).
 *
 * Reads are done at once, from the committed state. Writes go to a thread that commits all that have come within commit_ms in one transaction, and are answered after that:
 * what was acknowledged survives kill -9 and power cuts. The thread calls wake() (on itself!) when there are answers; the owner then calls kv_lmdb_reap().
 *
 * A full disk or map is ERR_NO_SPACE for the writes that need room; deletions go on. What has expired is not seen any more, and is deleted within seconds.
 *
 * Layout: one database "kv" with keys  's' key -> expiry ms u64, value;  'm' key 0 member;  'h' key 0 member -> value;  'e' key -> expiry of a set or hash;  'x' expiry key: what expires when.
 *
 * Folder, permissions and lock as in store/dir.h (ERR_UNSAFE, ERR_BUSY). Keys must not hold zero bytes when they are sets or hashes.
 *
 *     struct kv_lmdb_cfg cfg = {.path = dir, .wake = wake, .wake_arg = me, .wall_ms = clock};
 *     rc = kv_lmdb_open(&kv, &cfg, why, sizeof(why));
 */
#pragma once

#include "store/kv.h"

#define KV_LMDB_PENDING 65536

struct kv_lmdb_cfg {
    const char *path;
    uint64_t map_size;  /* 0 = 16 GiB of address space (1 GiB on 32 bit) */
    unsigned commit_ms; /* 0 = 2 */
    void (*wake)(void *arg);
    void *wake_arg;
    /* Wall clock in ms, from any thread; NULL = the system's. */
    uint64_t (*wall_ms)(void *arg);
    void *wall_arg;
};

int kv_lmdb_open(struct kv **out, const struct kv_lmdb_cfg *cfg, char *why, size_t why_size)
    __attribute__((warn_unused_result));
/* Answer what has been committed. */
void kv_lmdb_reap(struct kv *kv);
