/*
 * row - records and their indexes inside one LMDB transaction.
 *
 * The only place that writes records: slots, records, indexes, counters per publisher and totals change
 * together or not at all, since the caller's transaction commits or aborts as a whole. The record
 * that is replaced is read from the transaction itself; nothing is taken on trust from the caller.
 *
 * Views: values point into the map, valid until the transaction writes again or ends. Errors as in
 * db.h; ERR_SEQ, ERR_NOT_FOUND, ERR_CORRUPT (a damaged record) leave the transaction usable, all
 * others mean abort.
 */
#pragma once

#include "store/db.h"

/* Records stand in the order in which they came first: pages of a tree that is filled in random
 * order are a third empty, which costs more than the table that leads from a slot to its record. */
#define ROW_ID_BYTES 8

struct row_totals {
    uint64_t items, bytes, by_tier[3], by_origin[3];
};

/* A write transaction with what belongs to it. */
struct row_txn {
    const struct db *db;
    MDB_txn *txn;
    struct row_totals totals; /* loaded and saved by begin and commit */
    uint64_t next_change;     /* of a shared store; 0 = not looked up yet */
    uint64_t corrupt;         /* damaged records that were overwritten or deleted */
    uint8_t *scratch;         /* RECORD_MAX_BYTES, the caller's */
};

/* Begin a write transaction; 0 or an error without one. scratch must be set. */
int row_begin(struct row_txn *t, const struct db *db) __attribute__((warn_unused_result));
int row_commit(struct row_txn *t) __attribute__((warn_unused_result));
void row_abort(struct row_txn *t);

enum row_rule {
    ROW_NEWER,         /* than the stored record */
    ROW_NEWER_OR_SAME, /* the same bytes with other times, tier or origin */
    ROW_ANY,           /* the stored record was deleted in between */
};

/* Insert or replace; ERR_SEQ when the stored record's order does not allow it. */
int row_put(struct row_txn *t, const struct store_rec *rec, enum row_rule rule)
    __attribute__((warn_unused_result));
/* ERR_NOT_FOUND when it is not there. */
int row_del(struct row_txn *t, const uint8_t key[RECORD_KEY_BYTES])
    __attribute__((warn_unused_result));
int row_meta_put(struct row_txn *t, const void *key, size_t key_len, const void *p, size_t n)
    __attribute__((warn_unused_result));

/* What other processes changed in a shared store. */
typedef void row_change_fn(void *arg, const uint8_t key[RECORD_KEY_BYTES]);

/* Number of the last change, 0 = none. */
int row_last_change(const struct db *db, MDB_txn *txn, uint64_t *number)
    __attribute__((warn_unused_result));
/* Changes behind *number, which is moved on to the last one; those of this process are left out. fn with
 * a NULL key: some are gone already, anything may have changed. */
int row_changes(const struct db *db, MDB_txn *txn, uint64_t *number, row_change_fn *fn, void *arg)
    __attribute__((warn_unused_result));

/* ---- reading, in any transaction ---- */

/* Undecoded record of an id, ROW_ID_BYTES long. ERR_CORRUPT when there is none. */
int row_fetch(const struct db *db, MDB_txn *txn, const MDB_val *id, MDB_val *out)
    __attribute__((warn_unused_result));
/* Undecoded record of a key. ERR_NOT_FOUND, ERR_CORRUPT. */
int row_get(const struct db *db, MDB_txn *txn, const uint8_t key[RECORD_KEY_BYTES], MDB_val *out)
    __attribute__((warn_unused_result));
/* Key and undecoded record that an index entry refers to; slots is a cursor of db->slots.
 * ERR_NOT_FOUND, ERR_CORRUPT. */
int row_find_ref(const struct db *db, MDB_cursor *slots, const uint8_t ref[RECORD_REF_BYTES],
                 MDB_val *key, MDB_val *out) __attribute__((warn_unused_result));
int row_usage(const struct db *db, MDB_txn *txn, const struct pubkey *charged, uint64_t *slots,
              uint64_t *bytes) __attribute__((warn_unused_result));
int row_totals(const struct db *db, MDB_txn *txn, struct row_totals *out)
    __attribute__((warn_unused_result));
/* Checked value; ERR_NOT_FOUND, ERR_CORRUPT. */
int row_meta_get(const struct db *db, MDB_txn *txn, const void *key, size_t key_len, MDB_val *out)
    __attribute__((warn_unused_result));
int row_schema_get(const struct db *db, MDB_txn *txn, uint32_t *schema)
    __attribute__((warn_unused_result));
int row_schema_put(const struct db *db, MDB_txn *txn, uint32_t schema)
    __attribute__((warn_unused_result));

/* Tag of the network whose items these are. */
int row_network_get(const struct db *db, MDB_txn *txn, uint64_t *network)
    __attribute__((warn_unused_result));
int row_network_put(const struct db *db, MDB_txn *txn, uint64_t network)
    __attribute__((warn_unused_result));

/* Add one record to totals, or take it away (sign +1, -1). */
void row_count(struct row_totals *totals, const struct store_rec *rec, int sign);
