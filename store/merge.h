/*
 * merge - one walk over an index as it is now: the committed snapshot with the overlay over it.
 *
 * Both sides are ordered by the same keys. An entry of the snapshot whose record has a pending
 * write is left out: the overlay has the newer one, or its deletion. Use within one call of the
 * store: the walk holds cursors of its read transaction, and the overlay must not change meanwhile.
 *
 *     struct merge m;
 *     rc = merge_open(&m, db, txn, &overlay, IX_SEQ);
 *     if (rc == 0) rc = merge_seek(&m, key, key_len, prefix_len);
 *     while (rc == 0 && (rc = merge_next(&m, &pos)) == 0)
 *         if (merge_record(&m, &pos, &rec) == 0) use(&rec);
 *     merge_close(&m);          // rc is ERR_NOT_FOUND at the end
 */
#pragma once

#include "store/overlay.h"
#include "store/row.h"

#define MERGE_KEYS IX__COUNT /* in place of an index: all records by target and kind */

struct merge {
    const struct db *db;
    const struct overlay *overlay;
    const struct tree *tree;
    unsigned ix;
    MDB_cursor *cursor, *slots; /* slots: to look up what an index entry refers to */
    uint8_t prefix[RECORD_INDEX_KEY_MAX];
    size_t prefix_len;
    bool in_snapshot; /* key and value are the snapshot's next */
    MDB_val key, value;
    struct tree_node *node; /* the overlay's next */
};

struct merge_pos {
    const uint8_t *key;
    size_t key_len;
    const struct pend *pend; /* NULL: the entry is the snapshot's */
    MDB_val value;           /* MERGE_KEYS: id of the snapshot's record */
};

/* *m is defined in any case, for merge_close(). */
int merge_open(struct merge *m, const struct db *db, MDB_txn *txn, const struct overlay *overlay,
               unsigned ix) __attribute__((warn_unused_result));
void merge_close(struct merge *m);

/* Go to the first entry >= key; the walk ends where the first prefix_len bytes differ from key's.
 */
int merge_seek(struct merge *m, const void *key, size_t key_len, size_t prefix_len)
    __attribute__((warn_unused_result));

/* The next entry, or ERR_NOT_FOUND. merge_peek() does not step over it. Keys stay valid until the
 * next call. */
int merge_next(struct merge *m, struct merge_pos *pos) __attribute__((warn_unused_result));
int merge_peek(struct merge *m, struct merge_pos *pos) __attribute__((warn_unused_result));

/* The record of an entry, pointing into overlay or map. ERR_CORRUPT: damaged, or the index leads
 * nowhere. */
int merge_record(struct merge *m, const struct merge_pos *pos, struct store_rec *out)
    __attribute__((warn_unused_result));
