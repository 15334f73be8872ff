#include <stdarg.h>
#include <string.h>

#include "base/cursor.h"
#include "base/err.h"
#include "base/hex.h"
#include "store/lmdb.h"
#include "store/overlay.h"
#include "store/row.h"
#include "store/tools.h"

struct verify {
    struct db *db;
    MDB_txn *txn;
    FILE *out;
    struct store_verify_report *report;
    struct row_totals totals;
    struct overlay publishers; /* used for its counters per publisher only */
};

static void __attribute__((format(printf, 2, 3))) find(struct verify *v, const char *fmt, ...)
{
    va_list ap;

    if (v->report->damaged++ >= STORE_VERIFY_LINES)
        return;
    va_start(ap, fmt);
    vfprintf(v->out, fmt, ap);
    va_end(ap);
    fputc('\n', v->out);
}

/* ---- records, and from each to its index entries ---- */

static int check_entries(struct verify *v, const struct store_rec *rec, const char *name)
{
    uint8_t key[RECORD_INDEX_KEY_MAX];

    for (unsigned ix = 0; ix < IX__COUNT; ix++) {
        size_t n = record_index_key(key, (enum record_index)ix, rec);
        MDB_val k = db_val(key, n), val;
        if (n == 0)
            continue;
        int rc = mdb_get(v->txn, v->db->index[ix], &k, &val);
        if (rc == MDB_NOTFOUND)
            find(v, "item %s: missing in %s", name, db_index_names[ix]);
        else if (rc != 0)
            return db_err(rc);
    }
    return 0;
}

static int count(struct verify *v, const struct store_rec *rec)
{
    struct usage *u = overlay_usage(&v->publishers, &rec->charged);

    if (u == NULL)
        u = overlay_usage_ref(&v->publishers, &rec->charged, 0, 0);
    if (u == NULL)
        return ERR_NOMEM;
    u->slots++;
    u->bytes += record_charge(rec);
    row_count(&v->totals, rec, +1);
    return 0;
}

static int check_slot(struct verify *v, MDB_val *key, MDB_val *id)
{
    char name[HEX_LEN(RECORD_KEY_BYTES) + 1];
    struct store_rec rec;
    MDB_val value;

    v->report->records++;
    if (key->mv_size != RECORD_KEY_BYTES) {
        find(v, "slot: key of %zu bytes", key->mv_size);
        return 0;
    }
    hex_encode(name, key->mv_data, RECORD_KEY_BYTES);
    int rc = row_fetch(v->db, v->txn, id, &value);
    if (rc == 0)
        rc = record_decode(&rec, key->mv_data, value.mv_data, value.mv_size);
    if (rc != 0 && rc != ERR_CORRUPT)
        return rc;
    if (rc != 0) {
        find(v, "item %s: the record is damaged", name);
        return 0;
    }
    rc = store_record_check(&rec);
    if (rc != 0)
        find(v, "item %s: %s", name,
             rc == ERR_SIG ? "the signature does not verify" : "not the record of this target");
    rc = count(v, &rec);
    return rc != 0 ? rc : check_entries(v, &rec, name);
}

typedef int entry_fn(struct verify *v, unsigned ix, MDB_val *key, MDB_val *value);

static int for_each(struct verify *v, MDB_dbi dbi, unsigned ix, entry_fn *fn)
{
    MDB_cursor *cursor;
    MDB_val key, value;
    int rc = mdb_cursor_open(v->txn, dbi, &cursor);

    if (rc != 0)
        return db_err(rc);
    int result = 0;
    while (result == 0 && (rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0)
        result = fn(v, ix, &key, &value);
    mdb_cursor_close(cursor);
    if (result != 0)
        return result;
    return rc == MDB_NOTFOUND ? 0 : db_err(rc);
}

static int slot_entry(struct verify *v, unsigned ix, MDB_val *key, MDB_val *value)
{
    (void)ix;
    return check_slot(v, key, value);
}

/* ---- index entries, and from each to its record ---- */

static bool leads_to_record(struct verify *v, unsigned ix, const MDB_val *key, int *rc)
{
    uint8_t want[RECORD_INDEX_KEY_MAX];
    struct store_rec rec;
    MDB_cursor *slots;
    MDB_val k, val;
    bool found = false;

    *rc = db_err(mdb_cursor_open(v->txn, v->db->slots, &slots));
    if (*rc != 0)
        return false;
    *rc = row_find_ref(v->db, slots, record_index_ref(key->mv_data, key->mv_size), &k, &val);
    if (*rc == 0 && record_decode(&rec, k.mv_data, val.mv_data, val.mv_size) == 0) {
        size_t n = record_index_key(want, (enum record_index)ix, &rec);
        found = n == key->mv_size && memcmp(want, key->mv_data, n) == 0;
    }
    mdb_cursor_close(slots);
    if (*rc == ERR_NOT_FOUND)
        *rc = 0;
    return found;
}

static int index_entry(struct verify *v, unsigned ix, MDB_val *key, MDB_val *value)
{
    char name[HEX_LEN(RECORD_REF_BYTES) + 1];
    int rc = 0;

    if (value->mv_size != 0 || key->mv_size < 8 + RECORD_REF_BYTES) {
        find(v, "%s: an entry of %zu and %zu bytes", db_index_names[ix], key->mv_size,
             value->mv_size);
    } else if (!leads_to_record(v, ix, key, &rc) && rc == 0) {
        hex_encode(name, record_index_ref(key->mv_data, key->mv_size), RECORD_REF_BYTES);
        find(v, "%s: the entry for %s leads to no such record", db_index_names[ix], name);
    }
    return rc;
}

/* ---- counters and meta values ---- */

static int publisher_entry(struct verify *v, unsigned ix, MDB_val *key, MDB_val *value)
{
    struct pubkey charged;
    char name[PUBKEY_HEX + 1];
    uint64_t slots = 0, bytes = 0;

    (void)ix;
    if (key->mv_size != PUBKEY_BYTES || value->mv_size != 16) {
        find(v, "by_publisher: an entry of %zu and %zu bytes", key->mv_size, value->mv_size);
        return 0;
    }
    memcpy(charged.b, key->mv_data, sizeof charged.b);
    struct usage *u = overlay_usage(&v->publishers, &charged);
    if (u != NULL) {
        slots = u->slots;
        bytes = u->bytes;
        overlay_usage_unref(&v->publishers, u); /* what is left at the end has no entry */
    }
    if (get_be64(value->mv_data) != slots || get_be64((uint8_t *)value->mv_data + 8) != bytes)
        find(v, "by_publisher: wrong counters of %s", pubkey_hex(name, &charged));
    return 0;
}

static void check_publishers_left(struct verify *v)
{
    char name[PUBKEY_HEX + 1];

    for (struct tree_node *n; (n = tree_first(&v->publishers.usages)) != NULL;) {
        struct usage *u = container_of(n, struct usage, node);
        find(v, "by_publisher: no counters of %s", pubkey_hex(name, &u->charged));
        overlay_usage_unref(&v->publishers, u);
    }
}

static int meta_entry(struct verify *v, unsigned ix, MDB_val *key, MDB_val *value)
{
    MDB_val out;

    (void)ix;
    (void)value;
    int rc = row_meta_get(v->db, v->txn, key->mv_data, key->mv_size, &out);
    if (rc == ERR_CORRUPT)
        find(v, "meta: a value of %zu bytes is damaged", value->mv_size);
    return rc == ERR_CORRUPT ? 0 : rc;
}

static int check_totals(struct verify *v)
{
    struct row_totals have;
    int rc = row_totals(v->db, v->txn, &have);

    if (rc == 0 && memcmp(&have, &v->totals, sizeof have) != 0)
        find(v, "totals: %llu items and %llu bytes are noted, %llu and %llu are there",
             (unsigned long long)have.items, (unsigned long long)have.bytes,
             (unsigned long long)v->totals.items, (unsigned long long)v->totals.bytes);
    return rc == ERR_CORRUPT ? 0 : rc; /* reported as a meta value */
}

/* Every slot has led to its record, so that equal numbers mean that no record is left over. */
static int check_records(struct verify *v)
{
    MDB_stat slots, records;
    int rc = mdb_stat(v->txn, v->db->slots, &slots);

    if (rc == 0)
        rc = mdb_stat(v->txn, v->db->records, &records);
    if (rc == 0 && slots.ms_entries != records.ms_entries)
        find(v, "records: %zu slots, but %zu records", slots.ms_entries, records.ms_entries);
    return db_err(rc);
}

static int check_contents(struct verify *v)
{
    int rc = for_each(v, v->db->slots, 0, slot_entry);

    if (rc == 0)
        rc = check_records(v);
    for (unsigned ix = 0; rc == 0 && ix < IX__COUNT; ix++)
        rc = for_each(v, v->db->index[ix], ix, index_entry);
    if (rc == 0)
        rc = for_each(v, v->db->publisher, 0, publisher_entry);
    if (rc == 0)
        rc = for_each(v, v->db->meta, 0, meta_entry);
    if (rc == 0)
        rc = check_totals(v);
    if (rc == 0)
        check_publishers_left(v);
    return rc;
}

int store_tool_verify(struct store *s, FILE *out, struct store_verify_report *report)
{
    struct verify v = {.db = store_lmdb_db(s), .out = out, .report = report};
    char why[128] = "";

    *report = (struct store_verify_report){0};
    int rc = db_check_pages(v.db, why, sizeof why);
    if (rc != 0) {
        find(&v, "pages: %s", why);
        return rc;
    }
    rc = db_err(mdb_txn_begin(v.db->env, NULL, MDB_RDONLY, &v.txn));
    if (rc != 0)
        return rc;
    overlay_init(&v.publishers, 0);
    rc = check_contents(&v);
    mdb_txn_abort(v.txn);
    for (struct tree_node *n; (n = tree_first(&v.publishers.usages)) != NULL;)
        overlay_usage_unref(&v.publishers, container_of(n, struct usage, node));
    if (rc == 0 && fflush(out) != 0)
        rc = err_sys();
    return rc == 0 && report->damaged > 0 ? ERR_CORRUPT : rc;
}
