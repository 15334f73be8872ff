/*
 * store_if - what the DHT engine needs of an item store. Backends: store/memory.c, store/lmdb.c;
 * the simulator uses memory.
 *
 * A store maps (target, kind) to one record and keeps the indexes that the engine asks for. It is a
 * plain data structure with rules about order and budget, no policy: which key may write where,
 * tiers and quotas are decided by the engine before it calls.
 *
 * Consistency: after put() returned 0 every get(), list() and count() of this process sees the
 * record. Durable backends commit in groups: a crash loses at most what was put within the last
 * commit interval (LMDB: 50 ms default), never anything older and never part of a put. sync() waits
 * for durability. put() compares sequence numbers once more inside the store, so that the caller's
 * earlier look is only an optimisation.
 *
 * Memory: a struct store_rec that get() or victim() gives points into the store and is valid until
 * the next call of any function of this store; one that a visitor of list() or scan() sees, only
 * until it returns. Copy what lives longer (item_ref_new). A visitor does not call the store.
 *
 * Threads: all functions are called by one thread, the owner. A backend may have a writer thread of
 * its own inside.
 *
 * Errors are ordinary: ERR_SEQ (not newer), ERR_NO_SPACE (byte budget, map or disk full: nothing
 * changed, counted), ERR_BUSY (the writer is stuck: nothing changed), ERR_CORRUPT (a damaged
 * record: counted, treated as absent by the engine), ERR_NOT_FOUND. Times are wall-clock ns since
 * 1970 and persisted: trust extends quota, never lifetime, and a restart does not renew anything.
 *
 *     struct store_rec r;
 *     if (store->ops->get(store, &target, ITEM_OWNER, &r) == 0 && r.expires_ns > wall_ns)
 *         reply(&r.item);
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kademlia/id.h"
#include "kademlia/item.h"

#define STORE_NAME_MAX        64      /* meta names */
#define STORE_META_MAX        1048576 /* bytes of a meta value */
#define STORE_RECORD_OVERHEAD 256     /* charged per record beside v and salt in every budget */

enum store_origin {
    STORE_OWN = 0,     /* published by this node */
    STORE_REPLICA = 1, /* put by a peer or pulled by sync: counts as a replica */
    STORE_CACHE = 2,   /* left by a look-up of ours: answers only while fresh, never counted as a
                          replica, first to be evicted */
};

struct store_rec {
    struct kad_id target;
    enum item_kind kind;
    struct item item;
    int64_t stored_ns;  /* when it was known to be the newest: put by its owner, or looked up */
    int64_t expires_ns; /* INT64_MAX = never */
    enum item_tier tier;
    enum store_origin origin;
    struct pubkey charged; /* whose quota it counts against: item.k, or the entry's static key for
                              ITEM_CERT */
    int64_t rank_time;     /* ITEM_CERT: entry timestamp and sequence; else 0 */
    uint64_t rank_seq;
    /* The counted copy that item points into, or NULL when there is none. put(): the backend may
     * keep a reference instead of a copy. get() and listings: every backend sets it (NULL: it holds
     * none); whoever wants the item for longer takes item_ref_get(ref), else item_ref_new(). */
    struct item_ref *ref;
};

struct store_stat {
    uint64_t items, bytes, budget_bytes; /* budget 0 = none */
    uint64_t by_tier[3], by_origin[3];
    uint64_t puts, refused_seq, refused_space, expired, evicted, corrupt,
        commits;                /* counters since start */
    uint64_t pending;           /* gauge: records put and not yet durable */
    uint64_t oldest_pending_ns; /* age of the oldest of them */
    bool shared;    /* items, bytes and budget are those of all processes that share it */
    int busy_pid;   /* the process that a stuck writer waits for, 0 = none */
    int last_error; /* last failure of the writer, 0 = healthy */
};

struct store_page { /* a listing in the order (seq ascending, target ascending, kind); dht.md §2.6
                     */
    const uint8_t *salt; /* NULL = every salt */
    size_t salt_len;
    uint64_t since_seq; /* exclusive */
    size_t limit;       /* > 0; a seq tie at the end is never split, so more may come */
    size_t max_bytes;   /* 0 = none; cut at a seq border before Σ(v + salt + STORE_RECORD_OVERHEAD)
                           passes it (at least one seq is given) */
};

/* A slot that another process changed; NULL: too many to be told, any may have changed. */
typedef void store_change_fn(void *arg, const struct kad_id *target, enum item_kind kind);

/* Return false to stop the listing. */
typedef bool store_visit_fn(void *arg, const struct store_rec *rec);

struct store;

struct store_ops {
    const char *name;
    int (*get)(struct store *s, const struct kad_id *target, enum item_kind kind,
               struct store_rec *out);
    /* Insert or replace. An existing record of the same (target, kind) must be older: by item.seq,
     * or by (rank_time, rank_seq) for ITEM_CERT; otherwise ERR_SEQ. Expired records still block
     * (dht.md §2.3). */
    int (*put)(struct store *s, const struct store_rec *rec);
    /* The same bytes again: only stored_ns, expires_ns, tier and origin of the record change.
     * ERR_NOT_FOUND. */
    int (*touch)(struct store *s, const struct store_rec *rec);
    int (*del)(struct store *s, const struct kad_id *target, enum item_kind kind);
    /* Calls fn for the page's records; *has_more says whether something remains behind it. */
    int (*list)(struct store *s, const struct store_page *page, store_visit_fn *fn, void *arg,
                bool *has_more);
    /* Every record once, in target order, starting behind `after` (NULL = from the start): for
     * republish, dump, reconcile. */
    int (*scan)(struct store *s, const struct kad_id *after, store_visit_fn *fn, void *arg);
    /* Slots and bytes charged to this key, without scanning. */
    int (*usage)(struct store *s, const struct pubkey *charged, uint64_t *slots, uint64_t *bytes);
    /* Delete records with expires_ns <= wall_ns, at most max of them. Returns how many, or an
     * error. */
    int (*expire)(struct store *s, int64_t wall_ns, size_t max);
    /* The record that should go first when room is needed: public tier only; cache before replica,
     * oldest stored_ns first, never STORE_OWN. ERR_NOT_FOUND. */
    int (*victim)(struct store *s, struct store_rec *out);
    void (*stat)(struct store *s, struct store_stat *out);
    /* Tell what other processes changed in a shared store since the last call; cheap when nothing was.
     * fn does not call the store. */
    int (*changes)(struct store *s, store_change_fn *fn, void *arg);
    /* From now on the store is this process's alone; ERR_BUSY when others share it now. */
    int (*unshare)(struct store *s);
    /* Another byte budget from now on, 0 = none. What is above it stays until somebody deletes it. */
    void (*set_budget)(struct store *s, uint64_t bytes);
    /* Small durable values by name ("seq/dmsg", "routing"), kept per owner key. get: copies up to
     * cap bytes, *n = full length. */
    int (*meta_get)(struct store *s, const char *name, void *out, size_t cap, size_t *n);
    int (*meta_put)(struct store *s, const char *name, const void *p, size_t n);
    /* Wait until everything put so far is durable; timeout_ms. ERR_TIMEOUT, or the writer's error.
     */
    int (*sync)(struct store *s, unsigned timeout_ms);
    /* sync, stop the writer, free. */
    void (*close)(struct store *s);
};

struct store { /* embedded first in a backend's struct */
    const struct store_ops *ops;
};
