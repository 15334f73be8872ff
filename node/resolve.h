/*
 * resolve - where is this key? The destination look-up of a node: entry cache, local store, DHT
 * network, and an HTTP discovery beside it when there is one.
 *
 * Serves the client's resolve hooks and everybody else who wants an entry. Each finished look-up is
 * counted by its source: cache (parsed entry in memory, RESOLVE_CACHE_NS), dht (local store or
 * network), http, miss. Concurrent look-ups of one key are one. A negative
 * answer is kept for 5 s only, and does not hide what the local store has got meanwhile. A failed
 * dial (distrust) drops the cached entry and makes the next look-up ask the network.
 *
 * An answer is used only when it is an entry whose static key is the asked one; its signature was
 * verified when the engine accepted it or is verified by the owner's item signature (kind OWNER:
 * signed by the subject itself). Tombstones are misses.
 *
 * With a discovery (hybrid) HTTP starts RESOLVE_HTTP_AFTER_NS after the DHT, or at once while the
 * routing table is empty, or when the DHT found less than half of what was asked of it lately. The
 * first entry wins and the other answer refreshes the cache; "not found" needs both. In http mode
 * the DHT is not asked. A server's entry that does not verify is used as the hint that it is
 * (compat-http/disc_client.h).
 *
 * Without any DHT peer a look-up waits for the first one for RESOLVE_ALONE_NS only and is then told
 * ERR_NO_ROUTE (or what the discovery said), so that the caller goes on with what else may know
 * (incident 36: that is no miss); it fills the cache all the same when it ends. RESOLVE_FRESH waits
 * for it. When nobody can be asked (anything but "not found"), an entry that was cached less than
 * RESOLVE_STALE_NS ago still answers, unless a dial by it failed.
 *
 * A callback may start, cancel and distrust anything; the entry it is shown stays valid until it
 * returns.
 *
 * Limits: RESOLVE_CACHE_MAX entries, RESOLVE_WAITERS waiting. One thread. Callbacks come from the
 * loop or from inside resolve_entry() when known at once.
 */
#pragma once

#include "compat-http/disc_client.h"
#include "kademlia/host.h"
#include "transport/entry.h"

#define RESOLVE_CACHE_MAX     16384
#define RESOLVE_CACHE_NS      (300 * NS_PER_S)
#define RESOLVE_MISS_NS       (5 * NS_PER_S)
#define RESOLVE_ALONE_NS      (600 * NS_PER_MS)
#define RESOLVE_STALE_NS      (3600 * NS_PER_S)
#define RESOLVE_WAITERS       4096
#define RESOLVE_HTTP_AFTER_NS (50 * NS_PER_MS)

struct resolve;

enum resolve_source { RESOLVE_CACHE, RESOLVE_LOCAL, RESOLVE_DHT, RESOLVE_HTTP, RESOLVE_MISS };

struct resolve_answer {
    int err; /* 0, ERR_NOT_FOUND, ERR_NO_ROUTE (no DHT peer), ERR_TIMEOUT, what HTTP says */
    enum resolve_source source;
    const struct entry *entry;          /* valid during the callback */
    unsigned hops, asked, answered, ms; /* asked 0: the DHT's peers were not needed */
    uint64_t bytes;                     /* of their answers */
    enum kad_end end;                   /* why that look-up ended */
};

typedef void resolve_fn(void *arg, const struct resolve_answer *a);

struct resolve_stat {
    uint64_t cache, dht, http, miss;
    size_t entries, waiting;
};

enum resolve_flags {
    RESOLVE_FRESH = 1,      /* do not answer from cache or local store */
    RESOLVE_LOCAL_ONLY = 2, /* do not ask the network (dials of the DHT itself) */
    RESOLVE_UNCOUNTED = 4,  /* not a destination look-up of a user */
};

struct resolve *resolve_new(struct loop *loop, struct env *env);
void resolve_free(struct resolve *r);
/* The engine comes later than the client's hooks. */
void resolve_set_host(struct resolve *r, struct host *h);
/* Ask this discovery too (NULL: no longer; copied); http_only: and only it. */
void resolve_set_http(struct resolve *r, const struct disc_port *port, bool http_only);
/* "cache", "local", "dht", "http", "miss". */
const char *resolve_source_name(enum resolve_source s);

/* Look up the entry of pk. Returns a handle for resolve_cancel(), 0 when fn was called already
 * or nothing could be started (fn is called then too). */
uint64_t resolve_entry(struct resolve *r, const struct pubkey *pk, unsigned flags, resolve_fn *fn,
                       void *arg);
void resolve_cancel(struct resolve *r, uint64_t handle);
/* A dial by the entry failed: the next look-up of pk asks the network. */
void resolve_distrust(struct resolve *r, const struct pubkey *pk);
/* A record came into the local store: what is cached about its key may be older. */
void resolve_stored(struct resolve *r, const struct store_rec *rec);
/* The engine's report of an operation whose user pointer is a look-up of ours: true when it was. */
bool resolve_report(struct resolve *r, const struct kad_report *rep);
void resolve_stat(const struct resolve *r, struct resolve_stat *out);
