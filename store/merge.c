#include "store/merge.h"

#include <string.h>

#include "base/err.h"

int merge_open(struct merge *m, const struct db *db, MDB_txn *txn, const struct overlay *overlay,
               unsigned ix)
{
    *m = (struct merge){.db = db, .overlay = overlay, .ix = ix};
    m->tree = ix == MERGE_KEYS ? &overlay->by_key : &overlay->by_index[ix];
    int rc = mdb_cursor_open(txn, ix == MERGE_KEYS ? db->slots : db->index[ix], &m->cursor);
    if (rc != 0)
        m->cursor = NULL;
    else if (ix != MERGE_KEYS && (rc = mdb_cursor_open(txn, db->slots, &m->slots)) != 0)
        m->slots = NULL;
    return db_err(rc);
}

void merge_close(struct merge *m)
{
    if (m->cursor != NULL)
        mdb_cursor_close(m->cursor);
    if (m->slots != NULL)
        mdb_cursor_close(m->slots);
    m->cursor = m->slots = NULL;
}

static bool in_range(const struct merge *m, const void *key, size_t n)
{
    return n >= m->prefix_len && memcmp(key, m->prefix, m->prefix_len) == 0;
}

/* Does an entry of the snapshot stand for itself, or is there a pending write of its record? */
static bool is_hidden(const struct merge *m)
{
    if (m->ix == MERGE_KEYS)
        return overlay_find(m->overlay, m->key.mv_data) != NULL;
    return overlay_hides(m->overlay, record_index_ref(m->key.mv_data, m->key.mv_size));
}

static size_t least_key(const struct merge *m)
{
    return m->ix == MERGE_KEYS ? RECORD_KEY_BYTES : RECORD_REF_BYTES;
}

/* Settle on a snapshot entry at or behind the cursor; rc is what moving the cursor gave. */
static int settle_snapshot(struct merge *m, int rc)
{
    m->in_snapshot = false;
    while (rc == 0 && in_range(m, m->key.mv_data, m->key.mv_size)) {
        if (m->key.mv_size >= least_key(m) && (m->overlay->count == 0 || !is_hidden(m))) {
            m->in_snapshot = true;
            return 0;
        }
        rc = mdb_cursor_get(m->cursor, &m->key, &m->value, MDB_NEXT);
    }
    return rc == MDB_NOTFOUND ? 0 : db_err(rc);
}

/* Deletions are in the tree of keys, but not in the walk. */
static void settle_overlay(struct merge *m)
{
    while (m->node != NULL && m->ix == MERGE_KEYS &&
           container_of(m->node, struct pend, by_key)->type == PEND_DEL)
        m->node = tree_next(m->tree, m->node);
    if (m->node != NULL && !in_range(m, m->node->key, m->node->key_len))
        m->node = NULL;
}

int merge_seek(struct merge *m, const void *key, size_t key_len, size_t prefix_len)
{
    m->prefix_len = prefix_len;
    if (prefix_len > 0)
        memcpy(m->prefix, key, prefix_len);
    m->node = tree_seek(m->tree, key, key_len);
    settle_overlay(m);
    m->key = db_val(key, key_len);
    int rc = key_len > 0 ? mdb_cursor_get(m->cursor, &m->key, &m->value, MDB_SET_RANGE)
                         : mdb_cursor_get(m->cursor, &m->key, &m->value, MDB_FIRST);
    return settle_snapshot(m, rc);
}

static const struct pend *pend_of(const struct merge *m, const struct tree_node *n)
{
    if (m->ix == MERGE_KEYS)
        return container_of(n, struct pend, by_key);
    return (const struct pend *)(const void *)((const char *)n - offsetof(struct pend, by_index) -
                                               m->ix * sizeof *n);
}

int merge_peek(struct merge *m, struct merge_pos *pos)
{
    if (m->node == NULL && !m->in_snapshot)
        return ERR_NOT_FOUND;
    if (m->node == NULL || (m->in_snapshot && tree_key_cmp(m->key.mv_data, m->key.mv_size,
                                                           m->node->key, m->node->key_len) < 0))
        *pos = (struct merge_pos){m->key.mv_data, m->key.mv_size, NULL, m->value};
    else
        *pos = (struct merge_pos){m->node->key, m->node->key_len, pend_of(m, m->node), {0}};
    return 0;
}

int merge_next(struct merge *m, struct merge_pos *pos)
{
    int rc = merge_peek(m, pos);

    if (rc != 0)
        return rc;
    if (pos->pend != NULL) {
        m->node = tree_next(m->tree, m->node);
        settle_overlay(m);
        return 0;
    }
    return settle_snapshot(m, mdb_cursor_get(m->cursor, &m->key, &m->value, MDB_NEXT));
}

int merge_record(struct merge *m, const struct merge_pos *pos, struct store_rec *out)
{
    MDB_val key, value;
    int rc = 0;

    if (pos->pend != NULL) {
        *out = pos->pend->rec;
        return 0;
    }
    if (m->ix == MERGE_KEYS) {
        key = db_val(pos->key, pos->key_len);
        rc = row_fetch(m->db, mdb_cursor_txn(m->cursor), &pos->value, &value);
    } else {
        rc = row_find_ref(m->db, m->slots, record_index_ref(pos->key, pos->key_len), &key, &value);
    }
    if (rc == 0 && key.mv_size == RECORD_KEY_BYTES)
        return record_decode(out, key.mv_data, value.mv_data, value.mv_size);
    return rc == 0 || rc == ERR_NOT_FOUND ? ERR_CORRUPT : rc;
}
