/*
 * lmdb_int - what the files of the LMDB store share (lmdb.h): lmdb.c has opening, single records and the whole,
 * lmdb_list.c what walks over indexes. Private to store/. One thread, the owner's; errors as in store_if.h.
 */
#pragma once

#include "store/lmdb.h"
#include "store/merge.h"
#include "store/writer.h"

struct lmdb {
    struct store store;
    struct store_lmdb_cfg cfg; /* path NULL */
    struct db db;
    struct writer *writer; /* NULL: read-only */
    struct overlay overlay;
    MDB_txn *snapshot; /* reset between calls; NULL: the environment is gone */
    bool reading;      /* within a call */
    uint8_t *scratch;  /* record that get() gave out last */
    struct row_totals totals;
    struct store_stat counters;
    uint8_t victim[RECORD_KEY_BYTES]; /* what victim() named last: its deletion is an eviction */
    bool has_victim;
    uint64_t reopen_ns;             /* not before: the file was not usable */
    uint64_t seen_txn, last_change; /* of a shared store: what totals and changes() are of */
    uint64_t told_txn;
    uint64_t credit, credit_epoch; /* bytes freed by deletions while space is short */
};

static inline struct lmdb *lmdb_of(struct store *s)
{
    return container_of(s, struct lmdb, store);
}

/* Every call starts with enter(), and if that gave 0 ends with leave(), which passes rc on. */
int lmdb_enter(struct lmdb *s);
int lmdb_leave(struct lmdb *s, int rc);

/* Counts and logs ERR_CORRUPT; returns rc. */
int lmdb_found_corrupt(struct lmdb *s, int rc);
/* Let rec point into memory of the store instead of the map, which may change after the call. pos (may be NULL) is where
 * it was found. */
void lmdb_keep(struct lmdb *s, const struct merge_pos *pos, struct store_rec *rec);
/* Is the map what is short (then deletions help), for `size` bytes more? */
bool lmdb_map_is_short(struct lmdb *s, uint64_t size);
int lmdb_del(struct lmdb *s, const struct kad_id *target, enum item_kind kind);

/* ---- lmdb_list.c: functions of struct store_ops ---- */

int lmdb_list(struct store *store, const struct store_page *page, store_visit_fn *fn, void *arg,
              bool *has_more);
int lmdb_scan(struct store *store, const struct kad_id *after, store_visit_fn *fn, void *arg);
int lmdb_victim(struct store *store, struct store_rec *out);
int lmdb_expire(struct store *store, int64_t wall_ns, size_t max);
