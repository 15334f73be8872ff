#include "store/row.h"

#include <assert.h>
#include <string.h>
#include <unistd.h>

#include "base/cursor.h"
#include "base/err.h"

#define TOTALS_BYTES 64
#define USAGE_BYTES  16

/* Keys in `meta` that belong to the store itself: the null key owns nothing else. */
static const char schema_key[PUBKEY_BYTES + 6] = {[PUBKEY_BYTES] = 's', 'c', 'h', 'e', 'm', 'a'};
static const char network_key[PUBKEY_BYTES + 7] = {
    [PUBKEY_BYTES] = 'n', 'e', 't', 'w', 'o', 'r', 'k'};
static const char totals_key[PUBKEY_BYTES + 6] = {[PUBKEY_BYTES] = 't', 'o', 't', 'a', 'l', 's'};

/* ---- small values ---- */

int row_meta_get(const struct db *db, MDB_txn *txn, const void *key, size_t key_len, MDB_val *out)
{
    MDB_val k = db_val(key, key_len);
    int rc = mdb_get(txn, db->meta, &k, out);

    if (rc != 0)
        return db_err(rc);
    if (out->mv_size < RECORD_SUM_BYTES)
        return ERR_CORRUPT;
    uint64_t sum = get_le64(out->mv_data);
    *out = db_val((uint8_t *)out->mv_data + RECORD_SUM_BYTES, out->mv_size - RECORD_SUM_BYTES);
    return sum == record_sum(key, key_len, out->mv_data, out->mv_size) ? 0 : ERR_CORRUPT;
}

static int meta_put(const struct db *db, MDB_txn *txn, const void *key, size_t key_len,
                    const void *p, size_t n)
{
    MDB_val k = db_val(key, key_len), v = {.mv_size = RECORD_SUM_BYTES + n};
    int rc = mdb_put(txn, db->meta, &k, &v, MDB_RESERVE);

    if (rc != 0)
        return db_err(rc);
    put_le64(v.mv_data, record_sum(key, key_len, p, n));
    if (n > 0)
        memcpy((uint8_t *)v.mv_data + RECORD_SUM_BYTES, p, n);
    return 0;
}

int row_meta_put(struct row_txn *t, const void *key, size_t key_len, const void *p, size_t n)
{
    return meta_put(t->db, t->txn, key, key_len, p, n);
}

int row_schema_get(const struct db *db, MDB_txn *txn, uint32_t *schema)
{
    MDB_val v;
    int rc = row_meta_get(db, txn, schema_key, sizeof schema_key, &v);

    if (rc == 0 && v.mv_size != 4)
        rc = ERR_CORRUPT;
    if (rc == 0)
        *schema = get_be32(v.mv_data);
    return rc;
}

int row_schema_put(const struct db *db, MDB_txn *txn, uint32_t schema)
{
    uint8_t v[4];

    put_be32(v, schema);
    return meta_put(db, txn, schema_key, sizeof schema_key, v, sizeof v);
}

int row_network_get(const struct db *db, MDB_txn *txn, uint64_t *network)
{
    MDB_val v;
    int rc = row_meta_get(db, txn, network_key, sizeof network_key, &v);

    if (rc == 0 && v.mv_size != 8)
        rc = ERR_CORRUPT;
    if (rc == 0)
        *network = get_be64(v.mv_data);
    return rc;
}

int row_network_put(const struct db *db, MDB_txn *txn, uint64_t network)
{
    uint8_t v[8];

    put_be64(v, network);
    return meta_put(db, txn, network_key, sizeof network_key, v, sizeof v);
}

/* ---- counters ---- */

void row_count(struct row_totals *totals, const struct store_rec *rec, int sign)
{
    uint64_t one = sign < 0 ? UINT64_MAX : 1;

    totals->items += one;
    totals->bytes += one * record_charge(rec);
    totals->by_tier[rec->tier] += one;
    totals->by_origin[rec->origin] += one;
}

_Static_assert(sizeof(struct row_totals) == TOTALS_BYTES, "eight counters");

int row_totals(const struct db *db, MDB_txn *txn, struct row_totals *out)
{
    MDB_val v;
    uint64_t counters[TOTALS_BYTES / 8];
    int rc = row_meta_get(db, txn, totals_key, sizeof totals_key, &v);

    *out = (struct row_totals){0};
    if (rc == ERR_NOT_FOUND)
        return 0;
    if (rc != 0 || v.mv_size != TOTALS_BYTES)
        return ERR_CORRUPT;
    for (size_t i = 0; i < TOTALS_BYTES / 8; i++)
        counters[i] = get_be64((uint8_t *)v.mv_data + 8 * i);
    memcpy(out, counters, sizeof *out);
    return 0;
}

static int save_totals(struct row_txn *t)
{
    uint64_t counters[TOTALS_BYTES / 8];
    uint8_t v[TOTALS_BYTES];

    memcpy(counters, &t->totals, sizeof counters);
    for (size_t i = 0; i < TOTALS_BYTES / 8; i++)
        put_be64(v + 8 * i, counters[i]);
    return meta_put(t->db, t->txn, totals_key, sizeof totals_key, v, sizeof v);
}

int row_usage(const struct db *db, MDB_txn *txn, const struct pubkey *charged, uint64_t *slots,
              uint64_t *bytes)
{
    MDB_val k = db_val(charged->b, sizeof charged->b), v;
    int rc = mdb_get(txn, db->publisher, &k, &v);

    *slots = *bytes = 0;
    if (rc == MDB_NOTFOUND)
        return 0;
    if (rc != 0)
        return db_err(rc);
    if (v.mv_size != USAGE_BYTES)
        return ERR_CORRUPT;
    *slots = get_be64(v.mv_data);
    *bytes = get_be64((uint8_t *)v.mv_data + 8);
    return 0;
}

static uint64_t moved(uint64_t n, uint64_t by, int sign)
{
    if (sign > 0)
        return n + by;
    return n >= by ? n - by : 0; /* damage that was overwritten was never counted off */
}

static int charge(struct row_txn *t, const struct pubkey *charged, uint64_t slots, uint64_t size,
                  int sign)
{
    uint64_t have, bytes;
    uint8_t v[USAGE_BYTES];
    MDB_val k = db_val(charged->b, sizeof charged->b), val = db_val(v, sizeof v);
    int rc = row_usage(t->db, t->txn, charged, &have, &bytes);

    if (rc != 0 && rc != ERR_CORRUPT)
        return rc;
    have = moved(have, slots, sign);
    bytes = moved(bytes, size, sign);
    if (have == 0) {
        int del = mdb_del(t->txn, t->db->publisher, &k, NULL);
        return del == MDB_NOTFOUND ? 0 : db_err(del);
    }
    put_be64(v, have);
    put_be64(v + 8, bytes);
    return db_err(mdb_put(t->txn, t->db->publisher, &k, &val, 0));
}

/* ---- records ---- */

int row_fetch(const struct db *db, MDB_txn *txn, const MDB_val *id, MDB_val *out)
{
    MDB_val k = *id;
    int rc = id->mv_size == ROW_ID_BYTES ? mdb_get(txn, db->records, &k, out) : MDB_NOTFOUND;

    return rc == MDB_NOTFOUND ? ERR_CORRUPT : db_err(rc);
}

int row_get(const struct db *db, MDB_txn *txn, const uint8_t key[RECORD_KEY_BYTES], MDB_val *out)
{
    MDB_val k = db_val(key, RECORD_KEY_BYTES), id;
    int rc = mdb_get(txn, db->slots, &k, &id);

    return rc != 0 ? db_err(rc) : row_fetch(db, txn, &id, out);
}

int row_find_ref(const struct db *db, MDB_cursor *slots, const uint8_t ref[RECORD_REF_BYTES],
                 MDB_val *key, MDB_val *out)
{
    const size_t prefix = RECORD_REF_BYTES - 1;
    MDB_val id;

    *key = db_val(ref, prefix);
    int rc = mdb_cursor_get(slots, key, &id, MDB_SET_RANGE);
    while (rc == 0 && key->mv_size == RECORD_KEY_BYTES && memcmp(key->mv_data, ref, prefix) == 0) {
        if (((const uint8_t *)key->mv_data)[KAD_ID_BYTES] == ref[prefix])
            return row_fetch(db, mdb_cursor_txn(slots), &id, out);
        rc = mdb_cursor_get(slots, key, &id, MDB_NEXT);
    }
    return rc == 0 ? ERR_NOT_FOUND : db_err(rc);
}

/* ---- changes of a shared store ---- */

int row_last_change(const struct db *db, MDB_txn *txn, uint64_t *number)
{
    MDB_cursor *cursor;
    MDB_val k, v;
    int rc = mdb_cursor_open(txn, db->changes, &cursor);

    *number = 0;
    if (rc != 0)
        return db_err(rc);
    rc = mdb_cursor_get(cursor, &k, &v, MDB_LAST);
    if (rc == 0 && k.mv_size == 8)
        *number = get_be64(k.mv_data);
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : db_err(rc);
}

static int log_change(struct row_txn *t, const uint8_t key[RECORD_KEY_BYTES])
{
    uint8_t number[8], value[DB_CHANGE_BYTES];
    MDB_val k = db_val(number, sizeof number), v = db_val(value, sizeof value);
    int rc = 0;

    if (!t->db->shared)
        return 0;
    if (t->next_change == 0) {
        rc = row_last_change(t->db, t->txn, &t->next_change);
        t->next_change++;
    }
    if (rc != 0)
        return rc;
    memcpy(value, key, RECORD_KEY_BYTES);
    put_be32(value + RECORD_KEY_BYTES, t->db->process);
    put_be64(number, t->next_change);
    rc = mdb_put(t->txn, t->db->changes, &k, &v, MDB_APPEND);
    if (rc == 0 && t->next_change > DB_CHANGES_MAX) {
        put_be64(number, t->next_change - DB_CHANGES_MAX);
        k = db_val(number, sizeof number);
        rc = mdb_del(t->txn, t->db->changes, &k, NULL);
    }
    t->next_change++;
    return rc == MDB_NOTFOUND ? 0 : db_err(rc);
}

int row_changes(const struct db *db, MDB_txn *txn, uint64_t *number, row_change_fn *fn, void *arg)
{
    uint8_t from[8];
    MDB_cursor *cursor;
    MDB_val k = db_val(from, sizeof from), v;
    int rc = mdb_cursor_open(txn, db->changes, &cursor);

    if (rc != 0)
        return db_err(rc);
    put_be64(from, *number + 1);
    rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
    if (rc == 0 && get_be64(k.mv_data) != *number + 1)
        fn(arg, NULL);
    for (; rc == 0; rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) {
        if (k.mv_size != 8 || v.mv_size != DB_CHANGE_BYTES)
            continue;
        const uint8_t *change = v.mv_data;
        *number = get_be64(k.mv_data);
        if (get_be32(change + RECORD_KEY_BYTES) != db->process)
            fn(arg, change);
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : db_err(rc);
}

struct state { /* a record as the indexes see it */
    bool there;
    uint64_t size;
    struct pubkey charged;
    size_t key_len[IX__COUNT];
    uint8_t key[IX__COUNT][RECORD_INDEX_KEY_MAX];
};

static void describe(struct state *s, const struct store_rec *rec)
{
    s->there = true;
    s->size = record_charge(rec);
    s->charged = rec->charged;
    for (unsigned ix = 0; ix < IX__COUNT; ix++)
        s->key_len[ix] = record_index_key(s->key[ix], (enum record_index)ix, rec);
}

static int move_indexes(struct row_txn *t, const struct state *from, const struct state *to)
{
    MDB_val nothing = {0};
    int rc = 0;

    for (unsigned ix = 0; ix < IX__COUNT && rc == 0; ix++) {
        size_t a = from->there ? from->key_len[ix] : 0, b = to->there ? to->key_len[ix] : 0;
        if (a == b && memcmp(from->key[ix], to->key[ix], a) == 0)
            continue;
        MDB_val k = db_val(from->key[ix], a);
        if (a > 0)
            rc = mdb_del(t->txn, t->db->index[ix], &k, NULL);
        if (rc == MDB_NOTFOUND) /* `store verify` finds what is missing; it is not needed here */
            rc = 0;
        k = db_val(to->key[ix], b);
        if (b > 0 && rc == 0)
            rc = mdb_put(t->txn, t->db->index[ix], &k, &nothing, 0);
    }
    return db_err(rc);
}

static int move_charge(struct row_txn *t, const struct state *from, const struct state *to)
{
    int rc = 0;

    if (from->there && to->there && from->size == to->size &&
        pubkey_equal(&from->charged, &to->charged))
        return 0;
    if (from->there)
        rc = charge(t, &from->charged, 1, from->size, -1);
    if (rc == 0 && to->there)
        rc = charge(t, &to->charged, 1, to->size, +1);
    return rc;
}

/* What stands in a slot: 0 with *rec and *s, ERR_NOT_FOUND, or ERR_CORRUPT when its bytes are damaged
 * (then the indexes cannot be told, and what they still hold leads nowhere). id is that of the slot,
 * or all zeros when there is none yet. */
static int read_old(struct row_txn *t, const uint8_t key[RECORD_KEY_BYTES],
                    uint8_t id[ROW_ID_BYTES], struct store_rec *rec, struct state *s)
{
    MDB_val k = db_val(key, RECORD_KEY_BYTES), slot, v;
    int rc = db_err(mdb_get(t->txn, t->db->slots, &k, &slot));

    s->there = false;
    memset(id, 0, ROW_ID_BYTES);
    if (rc != 0)
        return rc;
    if (slot.mv_size == ROW_ID_BYTES)
        memcpy(id, slot.mv_data, ROW_ID_BYTES);
    rc = row_fetch(t->db, t->txn, &slot, &v);
    if (rc == 0)
        rc = record_decode(rec, key, v.mv_data, v.mv_size);
    if (rc == 0)
        describe(s, rec);
    if (rc == ERR_CORRUPT)
        t->corrupt++;
    return rc;
}

/* A new slot gets the id behind the largest one. */
static int assign_id(struct row_txn *t, const uint8_t key[RECORD_KEY_BYTES],
                     uint8_t id[ROW_ID_BYTES])
{
    MDB_cursor *cursor;
    MDB_val k, v;
    uint64_t last = 0;
    int rc = mdb_cursor_open(t->txn, t->db->records, &cursor);

    if (rc != 0)
        return db_err(rc);
    rc = mdb_cursor_get(cursor, &k, &v, MDB_LAST);
    if (rc == 0 && k.mv_size == ROW_ID_BYTES)
        last = get_be64(k.mv_data);
    mdb_cursor_close(cursor);
    if (rc != 0 && rc != MDB_NOTFOUND)
        return db_err(rc);
    put_be64(id, last + 1);
    k = db_val(key, RECORD_KEY_BYTES);
    v = db_val(id, ROW_ID_BYTES);
    return db_err(mdb_put(t->txn, t->db->slots, &k, &v, 0));
}

static int write_record(struct row_txn *t, const uint8_t key[RECORD_KEY_BYTES],
                        uint8_t id[ROW_ID_BYTES], const struct store_rec *rec)
{
    /* Said so, LMDB begins a new page at the end instead of splitting the last one. */
    const unsigned how = get_be64(id) == 0 ? MDB_APPEND : 0;
    int rc = how == MDB_APPEND ? assign_id(t, key, id) : 0;

    if (rc != 0)
        return rc;
    MDB_val k = db_val(id, ROW_ID_BYTES);
    MDB_val v = db_val(t->scratch, record_encode(t->scratch, rec));
    return db_err(mdb_put(t->txn, t->db->records, &k, &v, how));
}

static bool may_replace(const struct store_rec *rec, const struct store_rec *old,
                        enum row_rule rule)
{
    switch (rule) {
    case ROW_NEWER:
        return record_newer(rec, old);
    case ROW_NEWER_OR_SAME:
        return !record_newer(old, rec);
    case ROW_ANY:
        break;
    }
    return true;
}

int row_put(struct row_txn *t, const struct store_rec *rec, enum row_rule rule)
{
    struct state from, to;
    struct store_rec old;
    uint8_t key[RECORD_KEY_BYTES], id[ROW_ID_BYTES];

    record_key(key, &rec->target, rec->kind);
    int rc = read_old(t, key, id, &old, &from);
    if (rc != 0 && rc != ERR_NOT_FOUND && rc != ERR_CORRUPT)
        return rc;
    if (rc == 0 && !may_replace(rec, &old, rule))
        return ERR_SEQ;
    if (rc == 0)
        row_count(&t->totals, &old, -1);
    describe(&to, rec);
    rc = write_record(t, key, id, rec);
    if (rc == 0)
        rc = move_indexes(t, &from, &to);
    if (rc == 0)
        rc = move_charge(t, &from, &to);
    if (rc == 0)
        rc = log_change(t, key);
    row_count(&t->totals, rec, +1);
    return rc;
}

int row_del(struct row_txn *t, const uint8_t key[RECORD_KEY_BYTES])
{
    struct state from, to = {0};
    struct store_rec old;
    uint8_t id[ROW_ID_BYTES];
    int rc = read_old(t, key, id, &old, &from);

    if (rc != 0 && rc != ERR_CORRUPT)
        return rc;
    if (rc == 0)
        row_count(&t->totals, &old, -1);
    MDB_val k = db_val(key, RECORD_KEY_BYTES);
    rc = db_err(mdb_del(t->txn, t->db->slots, &k, NULL));
    k = db_val(id, ROW_ID_BYTES);
    if (rc == 0)
        rc = db_err(mdb_del(t->txn, t->db->records, &k, NULL));
    if (rc == ERR_NOT_FOUND) /* a damaged slot */
        rc = 0;
    if (rc == 0)
        rc = move_indexes(t, &from, &to);
    if (rc == 0)
        rc = move_charge(t, &from, &to);
    if (rc == 0)
        rc = log_change(t, key);
    return rc;
}

/* ---- transaction ---- */

/* For those who wait for the lock and want to know whose it is. */
static void begin_writing(const struct db *db)
{
    if (db->dir.common != NULL)
        atomic_store(&db->dir.common->writer, getpid());
}

static void end_writing(const struct db *db)
{
    int mine = getpid();

    if (db->dir.common != NULL) /* unless the next one has the lock already */
        (void)atomic_compare_exchange_strong(&db->dir.common->writer, &mine, 0);
}

int row_begin(struct row_txn *t, const struct db *db)
{
    assert(t->scratch != NULL);
    t->db = db;
    t->next_change = 0;
    int rc = db_err(mdb_txn_begin(db->env, NULL, 0, &t->txn));
    if (rc != 0) {
        t->txn = NULL;
        return rc;
    }
    begin_writing(db);
    rc = row_totals(db, t->txn, &t->totals);
    if (rc == ERR_CORRUPT)
        rc = 0; /* wrong figures are no reason to stop storing; `store verify` tells */
    if (rc != 0)
        row_abort(t);
    return rc;
}

int row_commit(struct row_txn *t)
{
    int rc = save_totals(t);

    if (rc != 0) {
        row_abort(t);
        return rc;
    }
    rc = db_err(mdb_txn_commit(t->txn));
    end_writing(t->db);
    t->txn = NULL;
    return rc;
}

void row_abort(struct row_txn *t)
{
    if (t->txn != NULL) {
        mdb_txn_abort(t->txn);
        end_writing(t->db);
    }
    t->txn = NULL;
}
