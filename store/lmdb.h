/*
 * lmdb - the durable item store: kademlia's store interface over an LMDB environment.
 *
 * Layers, each a module of its own: dir (folder, lock), pages (is the file sound), db (environment,
 * schema), record (bytes and keys), row (a record with its indexes in one transaction), overlay
 * (writes under way), writer (group commit). This one puts them together: calls see the committed
 * snapshot with the overlay over it.
 *
 * What is promised (docs/decisions/0003-store.md)
 *  - put, touch, del and meta_put return before the write is durable; it is after commit_ms at
 * most, or after sync(). kill -9 or a power cut loses at most that, and never a part of a write.
 *  - A read transaction never outlives a call: pages are reusable at once, the file does not grow.
 *  - Map full and disk full: ERR_NO_SPACE, nothing that is there is touched. Whatever was accepted
 * before the failure stays visible and is written as soon as that is possible. Deletions go on
 * being accepted: when the map is short two of them make room for a put of their size; while the
 * disk is full they would gain nothing, and victim() names none.
 *  - The writer stuck for more than stuck_ms, or more than overlay_bytes pending: ERR_BUSY.
 *  - One process at a time: a second one gets ERR_BUSY and a line that names the first. Unless all of
 * them open it as shared: then budget, quotas and eviction are common, each sees what the others have
 * committed, changes() tells which slots that were, and only the writer thread waits for the others'
 * transactions. When one of them hangs in a transaction for stuck_ms puts are ERR_BUSY here, and
 * stat.busy_pid says who it is.
 *
 * Threads: as store_if.h says, one owner; the writer is the only thread beside it. Do not fork with
 * an open store.
 *
 * Limits: keys of 33 bytes, values of ITEM_MAX_VALUE, map 64 GiB of address space (1 GiB on 32 bit)
 * of which only used pages take memory or disk.
 *
 *     char why[STORE_WHY_BYTES];
 *     struct store *s;
 *     struct store_lmdb_cfg cfg = {.path = dir, .own_pk = pk};
 *     if (store_lmdb_open(&s, &cfg, why, sizeof why) != 0)
 *         return fail("%s", why);
 */
#pragma once

#include "kademlia/store_if.h"

#define STORE_WHY_BYTES 512

struct store_lmdb_cfg {
    const char *path;      /* folder; copied; made when it is missing */
    struct pubkey own_pk;  /* owner of meta values; the null key: they are not used */
    uint8_t hash_key[16];  /* random; orders of trees in memory depend on it */
    uint64_t budget_bytes; /* of all records as record_charge() counts; 0 = none */
    uint64_t map_size;     /* 0 = 64 GiB */
    size_t overlay_bytes;  /* 0 = 32 MiB */
    size_t commit_count;   /* writes that are committed without waiting; 0 = 1024 */
    unsigned commit_ms;    /* 0 = 50 */
    unsigned stuck_ms;     /* 0 = 5 000 */
    bool shared;           /* with other processes that say so too: full nodes of one host */
    /* Whose items these are, kad_network_tag(): a store that belongs to another network is ERR_NETWORK, one
     * that has none yet, and no items unless the tag is 0, belongs to this one from now on. All processes
     * that share it are of one network. With has_network only. */
    uint64_t network;
    bool has_network;
    bool read_only; /* no lock, no writer: everything that changes gives ERR_STATE */
};

/* Open or make a store. Errors of db.h, with one line for people in why (no newline). */
int store_lmdb_open(struct store **out, const struct store_lmdb_cfg *cfg, char *why,
                    size_t why_size) __attribute__((warn_unused_result));

struct db;
/* The environment below, for store tools; valid until close. */
struct db *store_lmdb_db(struct store *s);
