#include "store/lmdb.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cursor.h"
#include "base/err.h"
#include "base/log.h"
#include "store/lmdb_int.h"

#define MIB           ((uint64_t)1 << 20)
#define CLOSE_WAIT_MS 30000
#define REOPEN_NS     UINT64_C(1000000000)
#define BUSY_OVERDRAW 2 /* deletions may fill the overlay this many times over */

/* ---- calls: every one starts with lmdb_enter() and ends with lmdb_leave() ---- */

static void reap(struct lmdb *s)
{
    struct list done;

    list_init(&done);
    writer_reap(s->writer, &done);
    for (struct pend *p; (p = list_pop_front_as(&done, struct pend, link)) != NULL;) {
        if (p->current)
            overlay_unlink(&s->overlay, p);
        overlay_free_pend(&s->overlay, p);
    }
}

static int begin_snapshot(struct lmdb *s)
{
    int rc = mdb_txn_begin(s->db.env, NULL, MDB_RDONLY, &s->snapshot);

    if (rc != 0)
        s->snapshot = NULL;
    else
        mdb_txn_reset(s->snapshot);
    return db_err(rc);
}

static uint64_t monotonic_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* LMDB has given up on its environment and the writer waits: only this thread may replace it. */
static int reopen(struct lmdb *s)
{
    if (monotonic_ns() < s->reopen_ns)
        return ERR_STATE;
    if (s->snapshot != NULL)
        mdb_txn_abort(s->snapshot);
    s->snapshot = NULL;
    s->reopen_ns = monotonic_ns() + REOPEN_NS;
    int rc = db_reopen(&s->db);
    if (rc == 0)
        rc = begin_snapshot(s);
    if (rc == 0)
        writer_resume(s->writer);
    log_warn(LOG_STORE, "environment opened anew result=\"%s\"", err_str(rc));
    return rc;
}

int lmdb_leave(struct lmdb *s, int rc)
{
    if (s->reading)
        mdb_txn_reset(s->snapshot);
    s->reading = false;
    return rc;
}

/* A shared store: totals are those of the snapshot, which other processes change too. What is pending
 * here is not in them yet; that is at most what is put within a commit interval. */
static int refresh(struct lmdb *s)
{
    uint64_t txn = mdb_txn_id(s->snapshot);

    if (!s->db.shared || txn == s->seen_txn)
        return 0;
    s->seen_txn = txn;
    s->cfg.budget_bytes = atomic_load(&s->db.dir.common->budget_bytes);
    int rc = row_totals(&s->db, s->snapshot, &s->totals);
    return rc == ERR_CORRUPT ? 0 : rc; /* wrong figures are no reason to stop */
}

int lmdb_enter(struct lmdb *s)
{
    int rc = 0;

    assert(!s->reading); /* no call from a visitor */
    if (s->writer != NULL) {
        reap(s);
        if (writer_is_parked(s->writer))
            rc = reopen(s);
    }
    if (rc == 0)
        rc = db_err(mdb_txn_renew(s->snapshot));
    s->reading = rc == 0;
    if (rc == 0 && (rc = refresh(s)) != 0)
        lmdb_leave(s, rc);
    return rc;
}

/* ---- reading ---- */

int lmdb_found_corrupt(struct lmdb *s, int rc)
{
    if (rc == ERR_CORRUPT) {
        s->counters.corrupt++;
        log_limited_here(LOG_STORE, LOG_LEVEL_WARN, "damaged record seen=%llu",
                         (unsigned long long)s->counters.corrupt);
    }
    return rc;
}

/* The record as it is now. Its bytes are in the overlay or the snapshot. */
static int look(struct lmdb *s, const uint8_t key[RECORD_KEY_BYTES], struct store_rec *out)
{
    const struct pend *p = overlay_find(&s->overlay, key);
    MDB_val v;

    if (p != NULL) {
        if (p->type == PEND_DEL)
            return ERR_NOT_FOUND;
        *out = p->rec;
        return 0;
    }
    int rc = row_get(&s->db, s->snapshot, key, &v);
    if (rc == 0)
        rc = record_decode(out, key, v.mv_data, v.mv_size);
    return lmdb_found_corrupt(s, rc);
}

/* Let rec point into memory of the store instead of the map, which may change after the call. */
void lmdb_keep(struct lmdb *s, const struct merge_pos *pos, struct store_rec *rec)
{
    struct item *it = &rec->item;

    if (pos != NULL && pos->pend != NULL)
        return;
    if (it->v != NULL) {
        if (it->v_len > 0)
            memcpy(s->scratch, it->v, it->v_len);
        it->v = s->scratch;
    }
    if (it->salt != NULL) {
        if (it->salt_len > 0)
            memcpy(s->scratch + it->v_len, it->salt, it->salt_len);
        it->salt = s->scratch + it->v_len;
    }
}

static int op_get(struct store *store, const struct kad_id *target, enum item_kind kind,
                  struct store_rec *out)
{
    struct lmdb *s = lmdb_of(store);
    uint8_t key[RECORD_KEY_BYTES];
    int rc = lmdb_enter(s);

    if (rc != 0)
        return rc;
    record_key(key, target, kind);
    rc = look(s, key, out);
    if (rc == 0)
        lmdb_keep(s, NULL, out);
    return lmdb_leave(s, rc);
}

static int look_usage(struct lmdb *s, const struct pubkey *charged, uint64_t *slots,
                      uint64_t *bytes)
{
    const struct usage *u = overlay_usage(&s->overlay, charged);

    if (u == NULL)
        return row_usage(&s->db, s->snapshot, charged, slots, bytes);
    *slots = u->slots;
    *bytes = u->bytes;
    return 0;
}

static int op_usage(struct store *store, const struct pubkey *charged, uint64_t *slots,
                    uint64_t *bytes)
{
    struct lmdb *s = lmdb_of(store);
    int rc = lmdb_enter(s);

    *slots = *bytes = 0;
    return rc != 0 ? rc
                   : lmdb_leave(s, lmdb_found_corrupt(s, look_usage(s, charged, slots, bytes)));
}

/* ---- room ---- */

/* Is the map what is short (then deletions help), for `size` bytes more? Pending bytes count twice:
 * pages are half full after a split, and each is written anew. */
bool lmdb_map_is_short(struct lmdb *s, uint64_t size)
{
    uint64_t epoch, room = writer_room(s->writer, &epoch);

    if (epoch != s->credit_epoch) {
        s->credit_epoch = epoch;
        s->credit = 0;
    }
    return writer_map_is_full(s->writer) || 2 * (s->overlay.bytes + size) > room;
}

/* May a write of `size` bytes that replaces `old` bytes be accepted? */
static int admit(struct lmdb *s, uint64_t size, uint64_t old)
{
    struct writer_status st;
    int error = writer_error(s->writer);

    if (lmdb_map_is_short(s, size)) {
        /* Pages of which half was deleted are still pages: two records go for each that comes, until
         * there is room again. */
        uint64_t price = size > old ? 2 * (size - old) : 0;
        if (s->credit < price)
            return ERR_NO_SPACE;
        s->credit -= price;
    } else if (error != 0) {
        return error == ERR_NO_SPACE ? ERR_NO_SPACE : ERR_BUSY;
    }
    if (s->overlay.bytes + size > s->cfg.overlay_bytes)
        return ERR_BUSY;
    if (s->overlay.count > 0) {
        writer_status(s->writer, &st);
        if (st.oldest_ns > s->cfg.stuck_ms * UINT64_C(1000000) && st.error == 0)
            return ERR_BUSY;
    }
    return 0;
}

static int admit_record(struct lmdb *s, const struct store_rec *rec, const struct store_rec *old)
{
    uint64_t size = record_charge(rec), had = old != NULL ? record_charge(old) : 0;

    if (s->cfg.budget_bytes != 0 && size > had &&
        s->totals.bytes + size - had > s->cfg.budget_bytes)
        return ERR_NO_SPACE;
    return admit(s, size, had);
}

/* ---- writing ---- */

static struct usage *ref_usage(struct lmdb *s, const struct pubkey *charged)
{
    uint64_t slots, bytes;

    if (look_usage(s, charged, &slots, &bytes) != 0)
        slots = bytes = 0;
    return overlay_usage_ref(&s->overlay, charged, slots, bytes);
}

/* Counters that p changes: references first, since only they can fail. */
static int prepare_usage(struct lmdb *s, struct pend *p, const struct store_rec *old)
{
    if (old != NULL && (p->before = ref_usage(s, &old->charged)) == NULL)
        return ERR_NOMEM;
    if (p->type != PEND_DEL && (p->after = ref_usage(s, &p->rec.charged)) == NULL)
        return ERR_NOMEM;
    return 0;
}

static void move_usage(struct lmdb *s, const struct pend *p, const struct store_rec *old)
{
    if (old != NULL) {
        p->before->slots -= p->before->slots > 0;
        uint64_t size = record_charge(old);
        p->before->bytes -= p->before->bytes > size ? size : p->before->bytes;
        if (!s->db.shared)
            row_count(&s->totals, old, -1);
    }
    if (p->type != PEND_DEL) {
        p->after->slots++;
        p->after->bytes += record_charge(&p->rec);
        if (!s->db.shared)
            row_count(&s->totals, &p->rec, +1);
    }
}

/* Make p the newest write of its key. */
static void submit(struct lmdb *s, struct pend *p, struct pend *replaced)
{
    if (replaced != NULL) {
        p->after_del = replaced->type == PEND_DEL || replaced->after_del;
        overlay_unlink(&s->overlay, replaced);
    }
    overlay_link(&s->overlay, p);
    if (!writer_enqueue(s->writer, p, replaced) || replaced == NULL)
        return;
    /* It was never written: p changes the record that `replaced` was to replace. */
    struct usage *mine = p->before;
    p->before = replaced->before;
    replaced->before = mine;
    overlay_free_pend(&s->overlay, replaced);
}

/* p replaces `old` (NULL: nothing, or a damaged record). */
static int write_record(struct lmdb *s, struct pend *p, const struct store_rec *old)
{
    if (p == NULL)
        return ERR_NOMEM;
    int rc = prepare_usage(s, p, old);
    if (rc != 0) {
        overlay_free_pend(&s->overlay, p);
        return rc;
    }
    move_usage(s, p, old);
    submit(s, p, overlay_find(&s->overlay, p->key));
    if (p->type != PEND_DEL)
        s->has_victim = false;
    return 0;
}

static int put(struct lmdb *s, const struct store_rec *rec)
{
    struct store_rec old;
    uint8_t key[RECORD_KEY_BYTES];

    record_key(key, &rec->target, rec->kind);
    int rc = look(s, key, &old);
    bool there = rc == 0;
    if (rc != 0 && rc != ERR_NOT_FOUND && rc != ERR_CORRUPT)
        return rc;
    if (there && !record_newer(rec, &old))
        return ERR_SEQ;
    rc = admit_record(s, rec, there ? &old : NULL);
    if (rc != 0)
        return rc;
    return write_record(s, pend_new_record(&s->overlay, PEND_PUT, rec), there ? &old : NULL);
}

static int op_put(struct store *store, const struct store_rec *rec)
{
    struct lmdb *s = lmdb_of(store);

    if (s->writer == NULL)
        return ERR_STATE;
    int rc = item_check_size(&rec->item);
    if (rc != 0)
        return rc;
    rc = lmdb_enter(s);
    if (rc == 0)
        rc = lmdb_leave(s, put(s, rec));
    s->counters.puts += rc == 0;
    s->counters.refused_seq += rc == ERR_SEQ;
    s->counters.refused_space += rc == ERR_NO_SPACE;
    return rc;
}

static int touch(struct lmdb *s, const struct store_rec *rec)
{
    struct store_rec old, now;
    uint8_t key[RECORD_KEY_BYTES];

    record_key(key, &rec->target, rec->kind);
    int rc = look(s, key, &old);
    if (rc != 0)
        return rc == ERR_CORRUPT ? ERR_NOT_FOUND : rc;
    rc = admit_record(s, &old, &old);
    if (rc != 0)
        return rc;
    now = old;
    now.stored_ns = rec->stored_ns;
    now.expires_ns = rec->expires_ns;
    now.tier = rec->tier;
    now.origin = rec->origin;
    return write_record(s, pend_new_record(&s->overlay, PEND_TOUCH, &now), &old);
}

static int op_touch(struct store *store, const struct store_rec *rec)
{
    struct lmdb *s = lmdb_of(store);

    if (s->writer == NULL)
        return ERR_STATE;
    int rc = lmdb_enter(s);
    if (rc == 0)
        rc = lmdb_leave(s, touch(s, rec));
    s->counters.refused_space += rc == ERR_NO_SPACE;
    return rc;
}

int lmdb_del(struct lmdb *s, const struct kad_id *target, enum item_kind kind)
{
    struct store_rec old;
    uint8_t key[RECORD_KEY_BYTES];

    record_key(key, target, kind);
    int rc = look(s, key, &old);
    bool damaged = rc == ERR_CORRUPT; /* goes like any other; what it was charged stays */
    if (rc != 0 && !damaged)
        return rc;
    if (s->overlay.bytes > BUSY_OVERDRAW * s->cfg.overlay_bytes)
        return ERR_BUSY;
    uint64_t size = damaged ? 0 : record_charge(&old);
    rc = write_record(s, pend_new_del(&s->overlay, target, kind), damaged ? NULL : &old);
    if (rc == 0)
        s->credit += size;
    return rc;
}

static int evict_or_del(struct lmdb *s, const struct kad_id *target, enum item_kind kind)
{
    uint8_t key[RECORD_KEY_BYTES];
    int rc = lmdb_del(s, target, kind);

    record_key(key, target, kind);
    if (rc != 0)
        return rc;
    s->counters.evicted += s->has_victim && memcmp(key, s->victim, sizeof key) == 0;
    s->has_victim = false;
    return 0;
}

static int op_del(struct store *store, const struct kad_id *target, enum item_kind kind)
{
    struct lmdb *s = lmdb_of(store);

    if (s->writer == NULL)
        return ERR_STATE;
    int rc = lmdb_enter(s);
    return rc != 0 ? rc : lmdb_leave(s, evict_or_del(s, target, kind));
}

/* ---- meta ---- */

static size_t meta_key(const struct lmdb *s, uint8_t key[PEND_KEY_MAX], const char *name)
{
    size_t n = strlen(name);

    assert(n > 0 && n <= STORE_NAME_MAX && !pubkey_is_null(&s->cfg.own_pk));
    memcpy(key, s->cfg.own_pk.b, PUBKEY_BYTES);
    memcpy(key + PUBKEY_BYTES, name, n);
    return PUBKEY_BYTES + n;
}

static int op_meta_get(struct store *store, const char *name, void *out, size_t cap, size_t *n)
{
    struct lmdb *s = lmdb_of(store);
    uint8_t key[PEND_KEY_MAX];
    const size_t key_len = meta_key(s, key, name);
    MDB_val v;
    int rc = lmdb_enter(s);

    *n = 0;
    if (rc != 0)
        return rc;
    const struct pend *p = overlay_find_meta(&s->overlay, key, key_len);
    if (p != NULL)
        v = db_val(p->data, p->value_len);
    else
        rc = lmdb_found_corrupt(s, row_meta_get(&s->db, s->snapshot, key, key_len, &v));
    if (rc == 0) {
        *n = v.mv_size;
        if (cap > 0 && v.mv_size > 0)
            memcpy(out, v.mv_data, v.mv_size < cap ? v.mv_size : cap);
    }
    return lmdb_leave(s, rc);
}

static int meta_put(struct lmdb *s, const char *name, const void *p, size_t n)
{
    int rc = admit(s, n + STORE_RECORD_OVERHEAD, 0);

    if (rc != 0)
        return rc;
    struct pend *m = pend_new_meta(&s->overlay, &s->cfg.own_pk, name, p, n);
    if (m == NULL)
        return ERR_NOMEM;
    submit(s, m, overlay_find_meta(&s->overlay, m->key, m->key_len));
    return 0;
}

static int op_meta_put(struct store *store, const char *name, const void *p, size_t n)
{
    struct lmdb *s = lmdb_of(store);

    assert(name[0] != '\0' && strlen(name) <= STORE_NAME_MAX);
    if (s->writer == NULL)
        return ERR_STATE;
    if (n > STORE_META_MAX)
        return ERR_TOO_LONG;
    int rc = lmdb_enter(s);
    return rc != 0 ? rc : lmdb_leave(s, meta_put(s, name, p, n));
}

/* ---- the store as a whole ---- */

static void op_stat(struct store *store, struct store_stat *out)
{
    struct lmdb *s = lmdb_of(store);
    struct writer_status st = {0};

    if (s->db.shared && lmdb_enter(s) == 0)
        lmdb_leave(s, 0);
    if (s->writer != NULL) {
        reap(s);
        writer_status(s->writer, &st);
    }
    *out = s->counters;
    out->shared = s->db.shared;
    if (s->db.shared && st.oldest_ns > s->cfg.stuck_ms * UINT64_C(1000000))
        out->busy_pid = atomic_load(&s->db.dir.common->writer);
    out->items = s->totals.items;
    out->bytes = s->totals.bytes;
    out->budget_bytes = s->cfg.budget_bytes;
    memcpy(out->by_tier, s->totals.by_tier, sizeof out->by_tier);
    memcpy(out->by_origin, s->totals.by_origin, sizeof out->by_origin);
    out->refused_seq += st.refused_seq;
    out->corrupt += st.corrupt;
    out->commits = st.commits;
    out->pending = st.pending;
    out->oldest_pending_ns = st.oldest_ns;
    out->last_error = st.error;
}

static void op_set_budget(struct store *store, uint64_t bytes)
{
    struct lmdb *s = lmdb_of(store);

    s->cfg.budget_bytes = bytes;
    if (s->db.shared)
        atomic_store(&s->db.dir.common->budget_bytes, bytes);
}

struct told {
    store_change_fn *fn;
    void *arg;
};

static void tell(void *arg, const uint8_t key[RECORD_KEY_BYTES])
{
    const struct told *t = arg;
    struct kad_id target;

    if (key == NULL) {
        t->fn(t->arg, NULL, ITEM_OWNER);
        return;
    }
    memcpy(target.b, key, sizeof target.b);
    t->fn(t->arg, &target, (enum item_kind)key[KAD_ID_BYTES]);
}

static int op_changes(struct store *store, store_change_fn *fn, void *arg)
{
    struct lmdb *s = lmdb_of(store);
    struct told t = {fn, arg};
    MDB_envinfo info;

    if (!s->db.shared || mdb_env_info(s->db.env, &info) != 0 || info.me_last_txnid == s->told_txn)
        return 0;
    int rc = lmdb_enter(s);
    if (rc != 0)
        return rc;
    s->told_txn = mdb_txn_id(s->snapshot);
    return lmdb_leave(s, row_changes(&s->db, s->snapshot, &s->last_change, tell, &t));
}

static int op_sync(struct store *store, unsigned timeout_ms)
{
    struct lmdb *s = lmdb_of(store);

    if (s->writer == NULL)
        return 0;
    /* A parked writer needs this thread first. */
    int rc = lmdb_enter(s);
    if (rc != 0)
        return rc;
    lmdb_leave(s, 0);
    rc = writer_sync(s->writer, timeout_ms);
    reap(s);
    return rc;
}

static int op_unshare(struct store *store)
{
    struct lmdb *s = lmdb_of(store);

    if (!s->db.shared)
        return 0;
    int rc = op_sync(store, CLOSE_WAIT_MS); /* then nothing is pending that the totals lack */
    if (rc == 0 && !dir_is_last(&s->db.dir))
        rc = ERR_BUSY;
    if (rc == 0 && (rc = lmdb_enter(s)) == 0) {
        s->db.shared = false;
        lmdb_leave(s, 0);
    }
    return rc;
}

static void free_all(struct lmdb *s, bool orderly)
{
    if (s->snapshot != NULL)
        mdb_txn_abort(s->snapshot);
    db_close(&s->db, orderly);
    free(s->scratch);
    free(s);
}

static void op_close(struct store *store)
{
    struct lmdb *s = lmdb_of(store);
    struct list rest;
    int error = 0;

    list_init(&rest);
    if (s->writer != NULL) {
        (void)op_sync(store, CLOSE_WAIT_MS);
        error = writer_error(s->writer);
        /* A thread that hangs in the kernel still uses all of this: leave it to the end of the
         * process. */
        if (writer_stop(s->writer, CLOSE_WAIT_MS, &rest) != 0)
            return;
    }
    for (struct pend *p; (p = list_pop_front_as(&rest, struct pend, link)) != NULL;) {
        if (p->current)
            overlay_unlink(&s->overlay, p);
        overlay_free_pend(&s->overlay, p);
    }
    assert(s->overlay.count == 0);
    free_all(s, error == 0);
}

static const struct store_ops ops = {
    .name = "lmdb",
    .get = op_get,
    .put = op_put,
    .touch = op_touch,
    .del = op_del,
    .list = lmdb_list,
    .scan = lmdb_scan,
    .usage = op_usage,
    .expire = lmdb_expire,
    .victim = lmdb_victim,
    .stat = op_stat,
    .set_budget = op_set_budget,
    .changes = op_changes,
    .unshare = op_unshare,
    .meta_get = op_meta_get,
    .meta_put = op_meta_put,
    .sync = op_sync,
    .close = op_close,
};

static void set_defaults(struct store_lmdb_cfg *cfg)
{
    cfg->path = NULL;
    if (cfg->map_size == 0)
        cfg->map_size = sizeof(size_t) > 4 ? 64 * 1024 * MIB : 1024 * MIB;
    if (cfg->overlay_bytes == 0)
        cfg->overlay_bytes = 32 * MIB;
    if (cfg->commit_count == 0)
        cfg->commit_count = 1024;
    if (cfg->commit_ms == 0)
        cfg->commit_ms = 50;
    if (cfg->stuck_ms == 0)
        cfg->stuck_ms = 5000;
}

/* The first one says whose the store is. */
static int claim(struct lmdb *s)
{
    MDB_txn *txn = NULL;
    uint64_t network = s->cfg.network;
    int rc = db_err(mdb_txn_begin(s->db.env, NULL, 0, &txn));

    if (rc != 0)
        return rc;
    rc = row_network_get(&s->db, txn, &network); /* another process may have been faster */
    if (rc == ERR_NOT_FOUND)
        rc = row_network_put(&s->db, txn, network);
    if (rc != 0) {
        mdb_txn_abort(txn);
        return rc;
    }
    rc = db_err(mdb_txn_commit(txn));
    return rc == 0 && network != s->cfg.network ? ERR_NETWORK : rc;
}

/* Items of two networks must not come together. */
static int check_network(struct lmdb *s)
{
    uint64_t network = 0;
    int rc = db_err(mdb_txn_renew(s->snapshot));

    if (rc != 0)
        return rc;
    rc = row_network_get(&s->db, s->snapshot, &network);
    mdb_txn_reset(s->snapshot);
    if (rc == 0 || (rc == ERR_NOT_FOUND && s->totals.items > 0 && s->cfg.network != 0))
        return rc == 0 && network == s->cfg.network ? 0 : ERR_NETWORK;
    return rc == ERR_NOT_FOUND && !s->cfg.read_only ? claim(s) : rc;
}

static int start(struct lmdb *s)
{
    const struct writer_cfg cfg = {.commit_ms = s->cfg.commit_ms,
                                   .commit_count = s->cfg.commit_count};
    int rc = begin_snapshot(s);

    if (rc == 0)
        rc = db_err(mdb_txn_renew(s->snapshot));
    if (rc != 0)
        return rc;
    rc = row_totals(&s->db, s->snapshot, &s->totals);
    if (rc == 0 && s->db.shared)
        rc = row_last_change(&s->db, s->snapshot, &s->last_change);
    mdb_txn_reset(s->snapshot);
    if (rc == 0 && s->cfg.has_network)
        rc = check_network(s);
    if (rc == 0 && !s->cfg.read_only)
        rc = writer_start(&s->writer, &s->db, &cfg);
    return rc;
}

/* One budget for all that share it: that of the process which had it first. */
static void set_common_budget(struct lmdb *s)
{
    uint64_t none = 0;

    if (!s->db.shared)
        return;
    if (s->db.alone)
        atomic_store(&s->db.dir.common->budget_bytes, s->cfg.budget_bytes);
    else
        (void)atomic_compare_exchange_strong(&s->db.dir.common->budget_bytes, &none,
                                             s->cfg.budget_bytes);
    s->cfg.budget_bytes = atomic_load(&s->db.dir.common->budget_bytes);
}

int store_lmdb_open(struct store **out, const struct store_lmdb_cfg *cfg, char *why,
                    size_t why_size)
{
    struct lmdb *s = calloc(1, sizeof *s);

    *out = NULL;
    int rc = ERR_NOMEM;
    if (s == NULL || (s->scratch = malloc(ITEM_MAX_VALUE + ITEM_MAX_SALT)) == NULL)
        goto fail;
    s->store.ops = &ops;
    s->cfg = *cfg;
    set_defaults(&s->cfg);
    overlay_init(&s->overlay, get_le64(cfg->hash_key));
    rc = cfg->shared ? db_open_shared(&s->db, cfg->path, s->cfg.map_size, why, why_size)
                     : db_open(&s->db, cfg->path, s->cfg.map_size, cfg->read_only, why, why_size);
    if (rc != 0) {
        free(s->scratch);
        free(s);
        return rc;
    }
    set_common_budget(s);
    rc = start(s);
    if (rc == 0) {
        *out = &s->store;
        return 0;
    }
    free_all(s, rc == ERR_NETWORK);
    s = NULL;
fail:
    snprintf(why, why_size, "store %s: %s", cfg->path,
             rc == ERR_NETWORK ? "it belongs to another network; give --store another one"
                               : err_str(rc));
    free(s);
    return rc;
}

struct db *store_lmdb_db(struct store *s)
{
    return &lmdb_of(s)->db;
}
