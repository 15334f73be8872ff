/*
 * mirror - what a central service holds, as items of the DHT that are signed by the service's key (docs/protocol/dht.md §5.4, services.md §12).
 *
 *     the service ─ mirror_entry(), mirror_transports(), mirror_set(), mirror_delete() ─► slot of each subject
 *     slots that changed within MIRROR_GATHER_NS ─► one signature for each value ─► sinks: a Redis, full nodes of the DHT
 *
 * A slot always holds the whole value of its subject (a list, an entry), never an element of it. What a slot holds is known by a hash: a value that is what was
 * written less than MIRROR_REFRESH_NS ago is neither signed nor written, so that the cost is one of changes and not of registrations. Of an entry, sequence,
 * timestamp and signature do not count as content. Several changes of a slot before it is written are one.
 *
 * Numbers: an entry's own sequence, at least 1 (a visor's self-published item has to stay the newer one everywhere), else the wall clock, never twice the same. A deletion is
 * a tombstone with a number of the clock; a sink that keeps no tombstones is told `gone`.
 *
 * Each sink is written MIRROR_BATCH slots at a time, one batch under way. A batch that failed is repeated with what the slots hold then, 1 s to 60 s later
 * (jittered), so that a sink that was away gets the present state and no history. When it is back it may have lost everything (incident 70): hashes are forgotten, and the owner is asked to
 * offer all anew, at most every MIRROR_AGAIN_NS. The service never waits for any of this.
 *
 * Limits: MIRROR_SLOTS slots (those not written for a while make room; else dropped, counted), MIRROR_BYTES of values that are not written everywhere,
 * ITEM_MAX_VALUE bytes a value (too_long; transports are cut into chunks). One thread, the loop's. Errors are counted, none is the caller's business.
 *
 *     struct mirror_cfg cfg = {.env = env, .loop = loop, .pk = pk, .sk = sk};
 *     m = mirror_new(&cfg);
 *     mirror_add_sink(m, "redis", write, arg);
 *     mirror_entry(m, e, text, n);
 */
#pragma once

#include "base/env.h"
#include "base/loop.h"
#include "kademlia/item.h"
#include "kademlia/records/tp_chunks.h"
#include "transport/entry.h"

#define MIRROR_REFRESH_NS (3600 * NS_PER_S)
#define MIRROR_GATHER_NS  (50 * NS_PER_MS)
#define MIRROR_AGAIN_NS   (30 * NS_PER_S)
#define MIRROR_SLOTS      262144
#define MIRROR_BYTES      (UINT64_C(64) << 20)
#define MIRROR_BATCH      256
#define MIRROR_SINKS      2
#define MIRROR_SALT_MAX   15

struct mirror;

struct mirror_cfg {
    struct env *env;
    struct loop *loop;
    struct pubkey pk;
    struct seckey sk; /* copied, wiped */
    /* Optional: a sink was away and may have lost what it was given; what was written is forgotten, and everything should be offered again. From the loop. */
    void (*again)(void *arg);
    void *arg;
};

struct mirror_write {
    struct kad_id target;
    struct item_ref *item;
    bool gone; /* the item is a tombstone */
};

/* Write the first *taken (at least one) of n slots. 0: mirror_written() comes later, from the loop, and what w points to stays until then; else an error. */
typedef int mirror_write_fn(void *arg, const struct mirror_write *w, size_t n, size_t *taken);

struct mirror_stat {
    size_t slots, waiting;  /* gauges; waiting: of the sink that has most to do */
    uint64_t bytes_waiting; /* gauge */
    uint64_t offered, unchanged, signatures, deleted, dropped, too_long, sign_failed, lost,
        uncertified;
    struct mirror_sink_stat {
        const char *name;
        uint64_t written, batches, failed;
        int last_err;
        uint64_t last_ns; /* of the last success, 0 = none */
    } sink[MIRROR_SINKS];
    size_t n_sinks;
};

/* NULL: no memory. */
struct mirror *mirror_new(const struct mirror_cfg *cfg);
/* Nothing more is written; the owner sees to it that no sink calls mirror_written() afterwards. NULL is allowed. */
void mirror_free(struct mirror *m);
/* Before anything is mirrored. Returns the sink's number. The name is kept, not copied. */
unsigned mirror_add_sink(struct mirror *m, const char *name, mirror_write_fn *fn, void *arg);
/* The batch of this sink is over. */
void mirror_written(struct mirror *m, unsigned sink, int err);
/* A sink that was away is there again: no need to wait for the next try. */
void mirror_kick(struct mirror *m, unsigned sink);
/* A sink may have lost what was written. */
void mirror_lost(struct mirror *m);

struct mirror_value {
    const char *salt; /* at most MIRROR_SALT_MAX bytes */
    const void *v;
    size_t n;
    bool has_seq;
    uint64_t seq;  /* else the clock's */
    uint64_t hash; /* of what counts as content; 0: mirror_hash() of v */
};

/* FNV-1a, 64 bits: the hash of upstream's mirrors (dht.md §5.4). */
uint64_t mirror_hash(const void *p, size_t n);
/* This is the whole value of these subjects now. */
void mirror_set(struct mirror *m, const struct mirror_value *v, const struct pubkey *subjects,
                size_t n);
void mirror_delete(struct mirror *m, const char *salt, const struct pubkey *subject);
/* A signed entry as it is stored: salt "dmsg". A server's goes without what the discovery put into it, and not at all when it does not verify then (uncertified). */
void mirror_entry(struct mirror *m, const struct entry *e, const char *text, size_t n);
/* All transports of the subject: salts "tp", "tp:1", …; an empty list is a deletion. */
void mirror_transports(struct mirror *m, const struct pubkey *subject, const struct tp_list *l);
void mirror_stat(const struct mirror *m, struct mirror_stat *out);
