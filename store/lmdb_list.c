/* Listings, scans, victims and expiry of the LMDB store: walks over the snapshot with the overlay over it. */
#include <assert.h>
#include <string.h>

#include "base/cursor.h"
#include "base/err.h"
#include "store/lmdb_int.h"

#define EXPIRE_CHUNK 256

/* ---- listings ---- */

struct listing {
    struct lmdb *s;
    const struct store_page *page;
    store_visit_fn *fn;
    void *arg;
    struct merge m;
    size_t count;
    uint64_t bytes, seq; /* given so far; seq of the last one */
};

static uint64_t seq_of(const struct merge_pos *pos)
{
    return pos->key_len >= 8 + RECORD_REF_BYTES
               ? get_be64(pos->key + pos->key_len - RECORD_REF_BYTES - 8)
               : 0;
}

/* Bytes of all records with the seq of `at`, the entry given last, counted no further than beyond
 * `enough`. The walk stays where it is. */
static int tie_bytes(struct listing *l, const struct merge_pos *at, uint64_t enough, uint64_t *sum)
{
    struct merge_pos pos;
    struct store_rec rec;
    uint8_t start[RECORD_INDEX_KEY_MAX];
    const uint64_t seq = seq_of(at);
    const size_t start_len = at->key_len;
    int rc;

    *sum = 0;
    memcpy(start, at->key, start_len);
    rc = merge_seek(&l->m, start, start_len, l->m.prefix_len);
    while (rc == 0 && *sum <= enough && (rc = merge_next(&l->m, &pos)) == 0 &&
           seq_of(&pos) == seq) {
        if (merge_record(&l->m, &pos, &rec) == 0)
            *sum += record_charge(&rec);
    }
    if (rc == 0 || rc == ERR_NOT_FOUND)
        rc = merge_seek(&l->m, start, start_len, l->m.prefix_len);
    return rc != 0 ? rc : merge_next(&l->m, &pos);
}

/* Does the page end before this entry? It may only end between two seqs. */
static int page_ends(struct listing *l, const struct merge_pos *at, uint64_t size, bool *ends)
{
    const uint64_t max = l->page->max_bytes, left = l->bytes < max ? max - l->bytes : 0;
    struct merge_pos next;
    int rc = 0;

    *ends = false;
    if (l->count == 0 || seq_of(at) == l->seq)
        return 0;
    if (l->count >= l->page->limit) {
        *ends = true;
        return 0;
    }
    if (max == 0)
        return 0;
    if (size <= left && merge_peek(&l->m, &next) == 0 && seq_of(&next) == seq_of(at))
        rc = tie_bytes(l, at, left, &size);
    *ends = size > left;
    return rc;
}

static int run_list(struct listing *l, bool *has_more)
{
    struct merge_pos pos;
    struct store_rec rec;
    int rc;

    while ((rc = merge_next(&l->m, &pos)) == 0) {
        rc = lmdb_found_corrupt(l->s, merge_record(&l->m, &pos, &rec));
        if (rc == ERR_CORRUPT)
            continue;
        if (rc == 0)
            rc = page_ends(l, &pos, record_charge(&rec), has_more);
        if (rc != 0 || *has_more)
            return rc;
        l->seq = seq_of(&pos);
        l->count++;
        l->bytes += record_charge(&rec);
        if (!l->fn(l->arg, &rec)) {
            *has_more = merge_peek(&l->m, &pos) == 0;
            return 0;
        }
    }
    return rc == ERR_NOT_FOUND ? 0 : rc;
}

int lmdb_list(struct store *store, const struct store_page *page, store_visit_fn *fn, void *arg,
              bool *has_more)
{
    struct lmdb *s = lmdb_of(store);
    struct listing l = {.s = s, .page = page, .fn = fn, .arg = arg};
    uint8_t key[RECORD_INDEX_KEY_MAX];
    size_t prefix_len;

    assert(page->limit > 0);
    *has_more = false;
    if (page->since_seq == UINT64_MAX || page->salt_len > ITEM_MAX_SALT)
        return 0;
    int rc = lmdb_enter(s);
    if (rc != 0)
        return rc;
    size_t n = record_list_key(key, page->salt, page->salt_len, page->since_seq, &prefix_len);
    rc = merge_open(&l.m, &s->db, s->snapshot, &s->overlay,
                    page->salt != NULL ? IX_SALT_SEQ : IX_SEQ);
    if (rc == 0)
        rc = merge_seek(&l.m, key, n, prefix_len);
    if (rc == 0)
        rc = run_list(&l, has_more);
    merge_close(&l.m);
    return lmdb_leave(s, rc);
}

int lmdb_scan(struct store *store, const struct kad_id *after, store_visit_fn *fn, void *arg)
{
    struct lmdb *s = lmdb_of(store);
    struct merge m;
    struct merge_pos pos;
    struct store_rec rec;
    uint8_t key[RECORD_KEY_BYTES];
    int rc = lmdb_enter(s);

    if (rc != 0)
        return rc;
    if (after != NULL)
        record_key(key, after, ITEM_KIND__COUNT); /* behind all kinds of this target */
    rc = merge_open(&m, &s->db, s->snapshot, &s->overlay, MERGE_KEYS);
    if (rc == 0)
        rc = merge_seek(&m, key, after != NULL ? sizeof key : 0, 0);
    bool go_on = true;
    while (rc == 0 && go_on && (rc = merge_next(&m, &pos)) == 0) {
        rc = lmdb_found_corrupt(s, merge_record(&m, &pos, &rec));
        if (rc == 0)
            go_on = fn(arg, &rec);
        else if (rc == ERR_CORRUPT)
            rc = 0;
    }
    merge_close(&m);
    return lmdb_leave(s, rc == ERR_NOT_FOUND ? 0 : rc);
}

/* The first sound record of an index. */
static int first_of(struct lmdb *s, enum record_index ix, struct store_rec *out)
{
    struct merge m;
    struct merge_pos pos;
    int rc = merge_open(&m, &s->db, s->snapshot, &s->overlay, ix);

    if (rc == 0)
        rc = merge_seek(&m, NULL, 0, 0);
    while (rc == 0 && (rc = merge_next(&m, &pos)) == 0) {
        rc = lmdb_found_corrupt(s, merge_record(&m, &pos, out));
        if (rc == 0) {
            lmdb_keep(s, &pos, out);
            break;
        }
        if (rc == ERR_CORRUPT)
            rc = 0;
    }
    merge_close(&m);
    return rc;
}

int lmdb_victim(struct store *store, struct store_rec *out)
{
    struct lmdb *s = lmdb_of(store);

    /* While the disk is full nothing is gained by deleting, and old data are worth more than new. */
    if (s->writer != NULL && writer_error(s->writer) != 0 && !lmdb_map_is_short(s, 0))
        return ERR_NOT_FOUND;
    int rc = lmdb_enter(s);
    if (rc != 0)
        return rc;
    rc = first_of(s, IX_STORED, out);
    s->has_victim = rc == 0;
    if (rc == 0)
        record_key(s->victim, &out->target, out->kind);
    return lmdb_leave(s, rc);
}

/* ---- expiry ---- */

struct due {
    struct kad_id target;
    enum item_kind kind;
};

/* The next records that are due, at most max of them; *n says how many. *key is where the walk
 * begins and, afterwards, goes on. */
static int collect_due(struct lmdb *s, int64_t wall_ns, struct due *due, size_t max, size_t *n,
                       uint8_t key[RECORD_INDEX_KEY_MAX], size_t *key_len)
{
    uint8_t bound[RECORD_INDEX_KEY_MAX];
    const size_t bound_len = record_expiry_bound(bound, wall_ns);
    struct merge m;
    struct merge_pos pos;
    struct store_rec rec;
    int rc = merge_open(&m, &s->db, s->snapshot, &s->overlay, IX_EXPIRY);

    *n = 0;
    if (rc == 0)
        rc = merge_seek(&m, key, *key_len, 0);
    while (rc == 0 && *n < max && (rc = merge_next(&m, &pos)) == 0) {
        if (tree_key_cmp(pos.key, pos.key_len, bound, bound_len) >= 0) {
            rc = ERR_NOT_FOUND;
            break;
        }
        memcpy(key, pos.key, pos.key_len);
        *key_len = pos.key_len;
        rc = lmdb_found_corrupt(s, merge_record(&m, &pos, &rec));
        /* A damaged record is not deleted: what stands there is for people to look at. */
        if (rc == 0 && rec.expires_ns <= wall_ns)
            due[(*n)++] = (struct due){rec.target, rec.kind};
        if (rc == ERR_CORRUPT)
            rc = 0;
    }
    merge_close(&m);
    return rc == ERR_NOT_FOUND ? 0 : rc;
}

static int expire_due(struct lmdb *s, int64_t wall_ns, size_t max)
{
    struct due due[EXPIRE_CHUNK];
    uint8_t key[RECORD_INDEX_KEY_MAX];
    size_t done = 0, n = 1, key_len = 0;
    int rc = 0;

    if (max > INT32_MAX)
        max = INT32_MAX;
    while (rc == 0 && n > 0 && done < max) {
        size_t want = max - done < EXPIRE_CHUNK ? max - done : EXPIRE_CHUNK;
        rc = collect_due(s, wall_ns, due, want, &n, key, &key_len);
        for (size_t i = 0; i < n && rc == 0; i++) {
            rc = lmdb_del(s, &due[i].target, due[i].kind);
            done += rc == 0;
        }
    }
    s->counters.expired += done;
    s->has_victim = false;
    return rc != 0 && done == 0 ? rc : (int)done;
}

int lmdb_expire(struct store *store, int64_t wall_ns, size_t max)
{
    struct lmdb *s = lmdb_of(store);

    if (s->writer == NULL)
        return ERR_STATE;
    int rc = lmdb_enter(s);
    return rc != 0 ? rc : lmdb_leave(s, expire_due(s, wall_ns, max));
}
