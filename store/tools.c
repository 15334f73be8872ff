#include "store/tools.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/base64.h"
#include "base/err.h"
#include "base/json.h"
#include "store/db.h"
#include "store/lmdb.h"
#include "store/tools_int.h"
#include "transport/entry.h"

#define PIECE_BYTES    (1u << 20)
#define LINE_MAX_BYTES (256u << 10)

const char *const store_kind_names[ITEM_KIND__COUNT] = {"owner", "cert", "mirror"};
const char *const store_tier_names[3] = {"public", "trusted", "whitelisted"};
const char *const store_origin_names[3] = {"own", "replica", "cache"};

/* ---- does a record stand where it belongs ---- */

static int check_cert(const struct store_rec *rec)
{
    struct entry *e;

    if (!item_salt_is(&rec->item, "dmsg") ||
        entry_parse(&e, (const char *)rec->item.v, rec->item.v_len) != 0)
        return ERR_REFUSED;
    const struct kad_id slot = kad_target(&e->static_pk, "dmsg", 4);
    int rc = ERR_REFUSED;
    if (kad_id_equal(&slot, &rec->target) && pubkey_equal(&e->static_pk, &rec->charged) &&
        e->timestamp_ns == rec->rank_time && e->sequence == rec->rank_seq)
        rc = entry_verify(e) == 0 ? 0 : ERR_SIG;
    entry_free(e);
    return rc;
}

int store_record_check(const struct store_rec *rec)
{
    const struct kad_id own = item_target(&rec->item);

    if (item_check_size(&rec->item) != 0 || item_verify(&rec->item) != 0)
        return ERR_SIG;
    switch (rec->kind) {
    case ITEM_OWNER:
        return kad_id_equal(&own, &rec->target) ? 0 : ERR_REFUSED;
    case ITEM_CERT:
        return check_cert(rec);
    case ITEM_MIRROR:
    case ITEM_KIND__COUNT:
        break;
    }
    return 0;
}

/* ---- stat ---- */

struct figures {
    struct store_stat st;
    uint64_t publishers, metas, file_bytes, map_bytes, used_bytes, free_bytes, last_txn;
};

static uint64_t entries(MDB_txn *txn, MDB_dbi dbi)
{
    MDB_stat st;

    return mdb_stat(txn, dbi, &st) == 0 ? st.ms_entries : 0;
}

static int measure(struct store *s, struct figures *f)
{
    struct db *db = store_lmdb_db(s);
    MDB_txn *txn;
    MDB_envinfo info;
    MDB_stat st;
    struct stat file;
    int rc = db_err(mdb_txn_begin(db->env, NULL, MDB_RDONLY, &txn));

    if (rc != 0)
        return rc;
    s->ops->stat(s, &f->st);
    mdb_env_info(db->env, &info);
    mdb_env_stat(db->env, &st);
    f->publishers = entries(txn, db->publisher);
    f->metas = entries(txn, db->meta);
    f->file_bytes = fstatat(db->dir.fd, "data.mdb", &file, 0) == 0 ? (uint64_t)file.st_size : 0;
    f->map_bytes = info.me_mapsize;
    f->used_bytes = (info.me_last_pgno + 1) * st.ms_psize;
    f->free_bytes = db_free_pages(txn) * st.ms_psize;
    f->last_txn = info.me_last_txnid;
    mdb_txn_abort(txn);
    return 0;
}

static void put_counts(struct json_out *o, const char *name, const char *const names[3],
                       const uint64_t counts[3])
{
    json_out_name(o, name);
    json_out_object(o);
    for (unsigned i = 0; i < 3; i++) {
        json_out_name(o, names[i]);
        json_out_u64(o, counts[i]);
    }
    json_out_object_end(o);
}

static int print_json(const struct figures *f, FILE *out)
{
    char buf[2048];
    struct json_out o;
    const struct {
        const char *name;
        uint64_t value;
    } numbers[] = {
        {"items", f->st.items},        {"bytes", f->st.bytes},        {"publishers", f->publishers},
        {"metas", f->metas},           {"schema", DB_SCHEMA},         {"file_bytes", f->file_bytes},
        {"used_bytes", f->used_bytes}, {"free_bytes", f->free_bytes}, {"map_bytes", f->map_bytes},
        {"transactions", f->last_txn},
    };

    json_out_fixed(&o, JSON_FAST, buf, sizeof buf);
    json_out_object(&o);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        json_out_name(&o, numbers[i].name);
        json_out_u64(&o, numbers[i].value);
    }
    put_counts(&o, "by_tier", store_tier_names, f->st.by_tier);
    put_counts(&o, "by_origin", store_origin_names, f->st.by_origin);
    json_out_object_end(&o);
    if (o.err != 0)
        return o.err;
    return fwrite(o.p, 1, o.len, out) == o.len && fputc('\n', out) != EOF ? 0 : err_sys();
}

static int print_text(const struct figures *f, FILE *out)
{
    const double mib = 1 << 20;
    int n = fprintf(out,
                    "items         %llu (%.1f MiB as the budget counts)\n"
                    "tiers         public %llu, trusted %llu, whitelisted %llu\n"
                    "origins       own %llu, replica %llu, cache %llu\n"
                    "publishers    %llu\n"
                    "schema        %u\n"
                    "file          %.1f MiB, of which %.1f MiB free for new records\n"
                    "map           %.0f MiB of addresses\n",
                    (unsigned long long)f->st.items, (double)f->st.bytes / mib,
                    (unsigned long long)f->st.by_tier[0], (unsigned long long)f->st.by_tier[1],
                    (unsigned long long)f->st.by_tier[2], (unsigned long long)f->st.by_origin[0],
                    (unsigned long long)f->st.by_origin[1], (unsigned long long)f->st.by_origin[2],
                    (unsigned long long)f->publishers, DB_SCHEMA, (double)f->file_bytes / mib,
                    (double)f->free_bytes / mib, (double)f->map_bytes / mib);
    return n >= 0 ? 0 : err_sys();
}

int store_tool_stat(struct store *s, FILE *out, bool json)
{
    struct figures f = {0};
    int rc = measure(s, &f);

    if (rc != 0)
        return rc;
    return json ? print_json(&f, out) : print_text(&f, out);
}

/* ---- dump ---- */

/* A piece of a dump: it is printed when the read transaction has ended, so that a slow reader of the
 * output does not keep old pages of a running node alive. */
struct dump {
    FILE *piece; /* in memory */
    size_t bytes;
    struct kad_id last; /* target of the last record in it */
    uint64_t records;
    bool full;
    int rc;
};

static void put_hex(struct json_out *o, const char *name, const void *p, size_t n)
{
    json_out_name(o, name);
    json_out_hex(o, p, n);
}

static void put_base64(struct json_out *o, const char *name, const uint8_t *p, size_t n)
{
    json_out_name(o, name);
    if (p == NULL) {
        json_out_null(o);
        return;
    }
    char *room = json_out_plain(o, BASE64_LEN(n));
    if (room != NULL)
        base64_encode(room, p, n);
}

static void put_name(struct json_out *o, const char *name, const char *value)
{
    json_out_name(o, name);
    json_out_str(o, value);
}

static void put_time(struct json_out *o, const char *name, int64_t ns)
{
    json_out_name(o, name);
    if (ns == INT64_MAX)
        json_out_null(o);
    else
        json_out_i64(o, ns);
}

static void put_record(struct json_out *o, const struct store_rec *rec)
{
    const struct item *it = &rec->item;

    json_out_object(o);
    put_hex(o, "target", rec->target.b, sizeof rec->target.b);
    put_name(o, "kind", store_kind_names[rec->kind]);
    put_hex(o, "k", it->k.b, sizeof it->k.b);
    json_out_name(o, "seq");
    json_out_u64(o, it->seq);
    put_hex(o, "sig", it->sig.b, sizeof it->sig.b);
    put_base64(o, "v", it->v, it->v_len);
    put_base64(o, "salt", it->salt != NULL ? it->salt : (const uint8_t *)"", it->salt_len);
    put_time(o, "stored_ns", rec->stored_ns);
    put_time(o, "expires_ns", rec->expires_ns);
    put_name(o, "tier", store_tier_names[rec->tier]);
    put_name(o, "origin", store_origin_names[rec->origin]);
    put_hex(o, "charged", rec->charged.b, sizeof rec->charged.b);
    json_out_name(o, "rank_time");
    json_out_i64(o, rec->rank_time);
    json_out_name(o, "rank_seq");
    json_out_u64(o, rec->rank_seq);
    json_out_object_end(o);
}

static bool dump_record(void *arg, const struct store_rec *rec)
{
    struct dump *d = arg;
    struct json_out o;

    /* A piece ends between two targets: the next one begins behind its last. */
    d->full = d->bytes >= PIECE_BYTES && !kad_id_equal(&d->last, &rec->target);
    if (d->full)
        return false;
    json_out_grow(&o, JSON_FAST, LINE_MAX_BYTES);
    put_record(&o, rec);
    d->rc = o.err;
    if (d->rc == 0 && (fwrite(o.p, 1, o.len, d->piece) != o.len || fputc('\n', d->piece) == EOF))
        d->rc = err_sys();
    d->bytes += o.len;
    json_out_free(&o);
    d->last = rec->target;
    d->records += d->rc == 0;
    return d->rc == 0;
}

/* Print what comes behind `after`, up to the end or the end of a piece (d->full). */
static int dump_piece(struct store *s, struct dump *d, const struct kad_id *after, FILE *out)
{
    char *text = NULL;
    size_t n = 0;

    d->full = false;
    d->bytes = 0;
    d->piece = open_memstream(&text, &n);
    if (d->piece == NULL)
        return ERR_NOMEM;
    int rc = s->ops->scan(s, after, dump_record, d);
    if (fclose(d->piece) != 0 && rc == 0)
        rc = ERR_NOMEM;
    if (rc == 0)
        rc = d->rc;
    if (rc == 0 && fwrite(text, 1, n, out) != n)
        rc = err_sys();
    free(text);
    return rc;
}

int store_tool_dump(struct store *s, FILE *out, struct store_dump_report *report)
{
    struct dump d = {0};
    struct store_stat before, st;

    *report = (struct store_dump_report){0};
    s->ops->stat(s, &before);
    int rc = dump_piece(s, &d, NULL, out);
    while (rc == 0 && d.full) {
        const struct kad_id after = d.last;
        rc = dump_piece(s, &d, &after, out);
    }
    s->ops->stat(s, &st);
    report->records = d.records;
    report->damaged = st.corrupt - before.corrupt;
    if (rc == 0 && fflush(out) != 0)
        rc = err_sys();
    return rc == 0 && report->damaged > 0 ? ERR_CORRUPT : rc;
}
