#include "store/memory.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/cursor.h"
#include "base/err.h"
#include "base/list.h"

#define NO_REC UINT32_MAX

/* Orders of all records. Each ends with (target, kind), so that no two records are equal in it. */
enum order { BY_TARGET, BY_SEQ, BY_EXPIRY, BY_VICTIM, BY_CHARGED, ORDER__COUNT };
#define ALL_ORDERS ((1u << ORDER__COUNT) - 1)

/* What most records do not need. */
struct extra {
    struct pubkey charged;
    int64_t rank_time;
    uint64_t rank_seq;
};

struct rec {
    struct kad_id target;
    struct item_ref *ref;
    struct extra *extra; /* NULL: charged to item.k, rank 0 */
    int64_t stored_ns, expires_ns;
    uint8_t kind, tier, origin;
    uint32_t next_free;
};

struct meta {
    char *name;
    void *p;
    size_t n;
};

struct memory {
    struct store store;
    struct rec *recs;
    uint32_t *order[ORDER__COUNT]; /* n record numbers each */
    uint32_t *
        lead; /* first bits of the targets of order[BY_TARGET]: most looks find all they need there */
    uint32_t n, cap;
    uint32_t used_recs, free_rec; /* recs[0 … used_recs-1] were used; list of those free again */
    uint32_t victim;              /* what victim() named last: its deletion is an eviction */
    unsigned visiting;            /* depth of list() and scan() callbacks */
    struct meta *metas;
    size_t n_metas;
    struct store_stat stat;
};

static struct memory *memory_of(struct store *s)
{
    return container_of(s, struct memory, store);
}

/* ---- orders ---- */

/* A place in an order: lead or charged first, then target and kind. */
struct probe {
    uint64_t lead;
    const struct pubkey *charged;
    const struct kad_id *target;
    unsigned kind;
};

static const struct kad_id id_zero;

static const struct pubkey *charged_of(const struct rec *r)
{
    return r->extra != NULL ? &r->extra->charged : &r->ref->item.k;
}

/* Cache first, then replicas, each by age; what may not be evicted comes last. */
static uint64_t victim_lead(const struct rec *r)
{
    uint64_t class = r->origin == STORE_CACHE ? 0 : 1;
    uint64_t age = r->stored_ns > 0 ? (uint64_t)r->stored_ns : 0;

    if (r->origin == STORE_OWN || r->tier != ITEM_TIER_PUBLIC)
        class = 2;
    if (age >> 62 != 0)
        age = (UINT64_C(1) << 62) - 1;
    return class << 62 | age;
}

static struct probe probe_of(enum order o, const struct rec *r)
{
    struct probe p = {.target = &r->target, .kind = r->kind};

    switch (o) {
    case BY_TARGET:
        break;
    case BY_SEQ:
        p.lead = r->ref->item.seq;
        break;
    case BY_EXPIRY:
        p.lead = (uint64_t)r->expires_ns ^ UINT64_C(1) << 63;
        break;
    case BY_VICTIM:
        p.lead = victim_lead(r);
        break;
    case BY_CHARGED:
        p.charged = charged_of(r);
        break;
    case ORDER__COUNT:
        assert(0);
    }
    return p;
}

static int probe_cmp(const struct probe *a, const struct probe *b)
{
    int c = 0;

    if (a->lead != b->lead)
        return a->lead < b->lead ? -1 : 1;
    if (a->charged != NULL)
        c = pubkey_cmp(a->charged, b->charged);
    if (c == 0)
        c = kad_id_cmp(a->target, b->target);
    return c != 0 ? c : (int)a->kind - (int)b->kind;
}

/* First position whose record is not below the probe. */
static uint32_t lower_bound(const struct memory *m, enum order o, const struct probe *key)
{
    uint32_t lo = 0, hi = m->n;

    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        struct probe p = probe_of(o, &m->recs[m->order[o][mid]]);
        if (probe_cmp(&p, key) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static uint32_t lead_of(const struct kad_id *target)
{
    return get_be32(target->b);
}

/* m->n is the length before insertion and after removal. */
static void order_insert(struct memory *m, enum order o, uint32_t i)
{
    struct probe p = probe_of(o, &m->recs[i]);
    uint32_t *a = m->order[o], at = lower_bound(m, o, &p);

    memmove(&a[at + 1], &a[at], (m->n - at) * sizeof a[0]);
    a[at] = i;
    if (o == BY_TARGET) {
        memmove(&m->lead[at + 1], &m->lead[at], (m->n - at) * sizeof m->lead[0]);
        m->lead[at] = lead_of(p.target);
    }
}

static void order_remove(struct memory *m, enum order o, uint32_t i)
{
    struct probe p = probe_of(o, &m->recs[i]);
    uint32_t *a = m->order[o], at = lower_bound(m, o, &p);

    assert(at < m->n && a[at] == i);
    memmove(&a[at], &a[at + 1], (m->n - at - 1) * sizeof a[0]);
    if (o == BY_TARGET)
        memmove(&m->lead[at], &m->lead[at + 1], (m->n - at - 1) * sizeof m->lead[0]);
}

static void stat_count(struct memory *m, const struct rec *r, bool in)
{
    uint64_t one = in ? 1 : UINT64_MAX; /* wraps: one less */

    m->stat.by_tier[r->tier] += one;
    m->stat.by_origin[r->origin] += one;
}

static void link_rec(struct memory *m, uint32_t i, unsigned orders)
{
    for (unsigned o = 0; o < ORDER__COUNT; o++) {
        if (orders & 1u << o)
            order_insert(m, (enum order)o, i);
    }
    m->n++;
    stat_count(m, &m->recs[i], true);
}

static void unlink_rec(struct memory *m, uint32_t i, unsigned orders)
{
    for (unsigned o = 0; o < ORDER__COUNT; o++) {
        if (orders & 1u << o)
            order_remove(m, (enum order)o, i);
    }
    m->n--;
    stat_count(m, &m->recs[i], false);
}

/* ---- records ---- */

static uint32_t find(const struct memory *m, const struct kad_id *target, unsigned kind)
{
    uint32_t lead = lead_of(target), lo = 0, hi = m->n;

    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (m->lead[mid] < lead)
            lo = mid + 1;
        else
            hi = mid;
    }
    for (; lo < m->n && m->lead[lo] == lead; lo++) {
        uint32_t i = m->order[BY_TARGET][lo];
        if (m->recs[i].kind == kind && kad_id_equal(&m->recs[i].target, target))
            return i;
    }
    return NO_REC;
}

static uint64_t charge_of(const struct item *it)
{
    return (uint64_t)it->v_len + it->salt_len + STORE_RECORD_OVERHEAD;
}

static void view(struct store_rec *out, const struct rec *r)
{
    *out = (struct store_rec){
        .target = r->target,
        .kind = (enum item_kind)r->kind,
        .item = r->ref->item,
        .stored_ns = r->stored_ns,
        .expires_ns = r->expires_ns,
        .tier = (enum item_tier)r->tier,
        .origin = (enum store_origin)r->origin,
        .charged = *charged_of(r),
        .rank_time = r->extra != NULL ? r->extra->rank_time : 0,
        .rank_seq = r->extra != NULL ? r->extra->rank_seq : 0,
        .ref = r->ref,
    };
}

/* Room for one record more, before anything is changed. */
static int reserve(struct memory *m)
{
    if (m->n < m->cap)
        return 0;
    uint32_t cap = m->cap < 4 ? 4 : m->cap + m->cap / 2;
    if (cap >= NO_REC)
        return ERR_NO_SPACE;
    struct rec *recs = realloc(m->recs, cap * sizeof *recs);
    if (recs == NULL)
        return ERR_NOMEM;
    m->recs = recs;
    for (unsigned o = 0; o < ORDER__COUNT; o++) {
        uint32_t *a = realloc(m->order[o], cap * sizeof *a);
        if (a == NULL)
            return ERR_NOMEM; /* what has grown already is only larger than it must be */
        m->order[o] = a;
    }
    uint32_t *lead = realloc(m->lead, cap * sizeof *lead);
    if (lead == NULL)
        return ERR_NOMEM;
    m->lead = lead;
    m->cap = cap;
    return 0;
}

/* The parts of a record that are allocated. */
static int hold(struct rec *r, const struct store_rec *rec)
{
    assert(rec->ref == NULL || rec->ref->item.v == rec->item.v);
    r->extra = NULL;
    if (!pubkey_equal(&rec->charged, &rec->item.k) || rec->rank_time != 0 || rec->rank_seq != 0) {
        r->extra = malloc(sizeof *r->extra);
        if (r->extra == NULL)
            return ERR_NOMEM;
        *r->extra = (struct extra){
            .charged = rec->charged, .rank_time = rec->rank_time, .rank_seq = rec->rank_seq};
    }
    r->ref = rec->ref != NULL ? item_ref_get(rec->ref) : item_ref_new(&rec->item);
    if (r->ref == NULL) {
        free(r->extra);
        return ERR_NOMEM;
    }
    return 0;
}

static void let_go(struct rec *r)
{
    item_ref_put(r->ref);
    free(r->extra);
}

static void set_state(struct rec *r, const struct store_rec *rec)
{
    r->stored_ns = rec->stored_ns;
    r->expires_ns = rec->expires_ns;
    r->tier = (uint8_t)rec->tier;
    r->origin = (uint8_t)rec->origin;
}

/* Own and mirrored items are ranked by seq, carried entries by what the entry itself says. */
static bool is_newer(const struct store_rec *rec, const struct rec *r)
{
    if (rec->kind != ITEM_CERT)
        return rec->item.seq > r->ref->item.seq;
    int64_t time = r->extra != NULL ? r->extra->rank_time : 0;
    uint64_t seq = r->extra != NULL ? r->extra->rank_seq : 0;
    return rec->rank_time != time ? rec->rank_time > time : rec->rank_seq > seq;
}

static void remove_rec(struct memory *m, uint32_t i)
{
    struct rec *r = &m->recs[i];

    unlink_rec(m, i, ALL_ORDERS);
    m->stat.bytes -= charge_of(&r->ref->item);
    let_go(r);
    r->next_free = m->free_rec;
    m->free_rec = i;
}

static uint32_t take_free(struct memory *m)
{
    uint32_t i = m->free_rec;

    if (i == NO_REC)
        return m->used_recs++;
    m->free_rec = m->recs[i].next_free;
    return i;
}

/* ---- the interface ---- */

static int memory_get(struct store *s, const struct kad_id *target, enum item_kind kind,
                      struct store_rec *out)
{
    struct memory *m = memory_of(s);
    uint32_t i = find(m, target, kind);

    if (i == NO_REC)
        return ERR_NOT_FOUND;
    view(out, &m->recs[i]);
    return 0;
}

static int refuse(uint64_t *counter, int err)
{
    (*counter)++;
    return err;
}

static int memory_put(struct store *s, const struct store_rec *rec)
{
    struct memory *m = memory_of(s);
    uint32_t i = find(m, &rec->target, rec->kind);
    uint64_t before = i != NO_REC ? charge_of(&m->recs[i].ref->item) : 0;
    uint64_t after = m->stat.bytes - before + charge_of(&rec->item);
    struct rec fresh = {.target = rec->target, .kind = (uint8_t)rec->kind};

    assert(m->visiting == 0 && rec->kind < ITEM_KIND__COUNT);
    if (i != NO_REC && !is_newer(rec, &m->recs[i]))
        return refuse(&m->stat.refused_seq, ERR_SEQ);
    if (m->stat.budget_bytes != 0 && after > m->stat.budget_bytes && after > m->stat.bytes)
        return refuse(&m->stat.refused_space, ERR_NO_SPACE);
    int rc = i == NO_REC ? reserve(m) : 0;
    if (rc == 0)
        rc = hold(&fresh, rec);
    if (rc != 0)
        return rc;
    set_state(&fresh, rec);

    if (i != NO_REC) {
        unlink_rec(m, i, ALL_ORDERS);
        let_go(&m->recs[i]);
    } else {
        i = take_free(m);
    }
    m->recs[i] = fresh;
    link_rec(m, i, ALL_ORDERS);
    m->stat.bytes = after;
    m->stat.puts++;
    m->victim = NO_REC;
    return 0;
}

static int memory_touch(struct store *s, const struct store_rec *rec)
{
    const unsigned orders = 1u << BY_EXPIRY | 1u << BY_VICTIM;
    struct memory *m = memory_of(s);
    uint32_t i = find(m, &rec->target, rec->kind);

    assert(m->visiting == 0);
    if (i == NO_REC)
        return ERR_NOT_FOUND;
    unlink_rec(m, i, orders);
    set_state(&m->recs[i], rec);
    link_rec(m, i, orders);
    m->victim = NO_REC;
    return 0;
}

static int memory_del(struct store *s, const struct kad_id *target, enum item_kind kind)
{
    struct memory *m = memory_of(s);
    uint32_t i = find(m, target, kind);

    assert(m->visiting == 0);
    if (i == NO_REC)
        return ERR_NOT_FOUND;
    m->stat.evicted += i == m->victim;
    m->victim = NO_REC;
    remove_rec(m, i);
    return 0;
}

static bool visit(struct memory *m, uint32_t i, store_visit_fn *fn, void *arg)
{
    struct store_rec rec;

    view(&rec, &m->recs[i]);
    m->visiting++;
    bool more = fn(arg, &rec);
    m->visiting--;
    return more;
}

static const struct item *item_by_seq(const struct memory *m, uint32_t at)
{
    return &m->recs[m->order[BY_SEQ][at]].ref->item;
}

static bool is_on_page(const struct item *it, const struct store_page *page)
{
    return page->salt == NULL ||
           (it->salt_len == page->salt_len &&
            (it->salt_len == 0 || memcmp(it->salt, page->salt, it->salt_len) == 0));
}

/* Position of the first record at or behind `at` that belongs to the page; m->n when none does. */
static uint32_t next_match(const struct memory *m, const struct store_page *page, uint32_t at)
{
    while (at < m->n && !is_on_page(item_by_seq(m, at), page))
        at++;
    return at;
}

/* Bytes of all records of the page that have the seq of the one at `at`. */
static uint64_t tie_bytes(const struct memory *m, const struct store_page *page, uint32_t at)
{
    uint64_t seq = item_by_seq(m, at)->seq, sum = 0;

    for (; at < m->n && item_by_seq(m, at)->seq == seq; at = next_match(m, page, at + 1))
        sum += charge_of(item_by_seq(m, at));
    return sum;
}

static int memory_list(struct store *s, const struct store_page *page, store_visit_fn *fn,
                       void *arg, bool *has_more)
{
    struct memory *m = memory_of(s);
    struct probe p = {.lead = page->since_seq + 1, .target = &id_zero};
    uint64_t bytes = 0;
    size_t count = 0;

    assert(page->limit > 0);
    *has_more = false;
    if (page->since_seq == UINT64_MAX)
        return 0;
    uint32_t at = next_match(m, page, lower_bound(m, BY_SEQ, &p));
    while (at < m->n && count < page->limit) {
        uint64_t seq = item_by_seq(m, at)->seq;
        if (page->max_bytes != 0) {
            bytes += tie_bytes(m, page, at);
            if (bytes > page->max_bytes && count > 0)
                break;
        }
        bool more = true;
        for (; more && at < m->n && item_by_seq(m, at)->seq == seq;
             at = next_match(m, page, at + 1), count++)
            more = visit(m, m->order[BY_SEQ][at], fn, arg);
        if (!more)
            break;
    }
    *has_more = at < m->n;
    return 0;
}

static int memory_scan(struct store *s, const struct kad_id *after, store_visit_fn *fn, void *arg)
{
    struct memory *m = memory_of(s);
    struct probe p = {.target = after, .kind = ITEM_KIND__COUNT};
    uint32_t at = after != NULL ? lower_bound(m, BY_TARGET, &p) : 0;

    while (at < m->n && visit(m, m->order[BY_TARGET][at], fn, arg))
        at++;
    return 0;
}

static int memory_usage(struct store *s, const struct pubkey *charged, uint64_t *slots,
                        uint64_t *bytes)
{
    struct memory *m = memory_of(s);
    struct probe p = {.charged = charged, .target = &id_zero};

    *slots = *bytes = 0;
    for (uint32_t at = lower_bound(m, BY_CHARGED, &p); at < m->n; at++) {
        const struct rec *r = &m->recs[m->order[BY_CHARGED][at]];
        if (!pubkey_equal(charged_of(r), charged))
            break;
        *slots += 1;
        *bytes += charge_of(&r->ref->item);
    }
    return 0;
}

static int memory_expire(struct store *s, int64_t wall_ns, size_t max)
{
    struct memory *m = memory_of(s);
    int count = 0, most = max < INT32_MAX ? (int)max : INT32_MAX;

    assert(m->visiting == 0);
    while (m->n > 0 && count < most) {
        uint32_t i = m->order[BY_EXPIRY][0];
        /* INT64_MAX is "never", whatever the clock says. */
        if (m->recs[i].expires_ns > wall_ns || m->recs[i].expires_ns == INT64_MAX)
            break;
        remove_rec(m, i);
        count++;
    }
    m->stat.expired += (uint64_t)count;
    m->victim = NO_REC;
    return count;
}

static int memory_victim(struct store *s, struct store_rec *out)
{
    struct memory *m = memory_of(s);

    if (m->n == 0 || victim_lead(&m->recs[m->order[BY_VICTIM][0]]) >> 62 == 2)
        return ERR_NOT_FOUND;
    m->victim = m->order[BY_VICTIM][0];
    view(out, &m->recs[m->victim]);
    return 0;
}

static void memory_stat(struct store *s, struct store_stat *out)
{
    struct memory *m = memory_of(s);

    *out = m->stat;
    out->items = m->n;
}

/* Nobody else has it. */
static int memory_changes(struct store *s, store_change_fn *fn, void *arg)
{
    (void)s;
    (void)fn;
    (void)arg;
    return 0;
}

static int memory_unshare(struct store *s)
{
    (void)s;
    return 0;
}

static void memory_set_budget(struct store *s, uint64_t bytes)
{
    memory_of(s)->stat.budget_bytes = bytes;
}

/* ---- meta ---- */

static struct meta *meta_find(struct memory *m, const char *name)
{
    for (size_t i = 0; i < m->n_metas; i++) {
        if (strcmp(m->metas[i].name, name) == 0)
            return &m->metas[i];
    }
    return NULL;
}

static int memory_meta_get(struct store *s, const char *name, void *out, size_t cap, size_t *n)
{
    const struct meta *meta = meta_find(memory_of(s), name);

    if (meta == NULL)
        return ERR_NOT_FOUND;
    *n = meta->n;
    if (meta->n > 0 && cap > 0)
        memcpy(out, meta->p, meta->n < cap ? meta->n : cap);
    return 0;
}

static int meta_add(struct memory *m, const char *name, struct meta **out)
{
    if (m->n_metas == STORE_MEMORY_MAX_META)
        return ERR_LIMIT;
    struct meta *metas = realloc(m->metas, (m->n_metas + 1) * sizeof *metas);
    if (metas == NULL)
        return ERR_NOMEM;
    m->metas = metas;
    char *copy = strdup(name);
    if (copy == NULL)
        return ERR_NOMEM;
    *out = &metas[m->n_metas++];
    **out = (struct meta){.name = copy};
    return 0;
}

static int memory_meta_put(struct store *s, const char *name, const void *p, size_t n)
{
    struct memory *m = memory_of(s);
    struct meta *meta = meta_find(m, name);

    if (strlen(name) > STORE_NAME_MAX || n > STORE_META_MAX)
        return ERR_TOO_LONG;
    void *copy = malloc(n > 0 ? n : 1);
    if (copy == NULL)
        return ERR_NOMEM;
    if (n > 0)
        memcpy(copy, p, n);
    int rc = meta == NULL ? meta_add(m, name, &meta) : 0;
    if (rc != 0) {
        free(copy);
        return rc;
    }
    free(meta->p);
    meta->p = copy;
    meta->n = n;
    return 0;
}

/* ---- life ---- */

static int memory_sync(struct store *s, unsigned timeout_ms)
{
    (void)s;
    (void)timeout_ms;
    return 0;
}

static void memory_close(struct store *s)
{
    struct memory *m = memory_of(s);

    assert(m->visiting == 0);
    for (uint32_t at = 0; at < m->n; at++)
        let_go(&m->recs[m->order[BY_TARGET][at]]);
    for (unsigned o = 0; o < ORDER__COUNT; o++)
        free(m->order[o]);
    for (size_t i = 0; i < m->n_metas; i++) {
        free(m->metas[i].name);
        free(m->metas[i].p);
    }
    free(m->metas);
    free(m->lead);
    free(m->recs);
    free(m);
}

int store_memory_new(struct store **out, uint64_t budget_bytes)
{
    static const struct store_ops ops = {
        .name = "memory",
        .get = memory_get,
        .put = memory_put,
        .touch = memory_touch,
        .del = memory_del,
        .list = memory_list,
        .scan = memory_scan,
        .usage = memory_usage,
        .expire = memory_expire,
        .victim = memory_victim,
        .stat = memory_stat,
        .set_budget = memory_set_budget,
        .changes = memory_changes,
        .unshare = memory_unshare,
        .meta_get = memory_meta_get,
        .meta_put = memory_meta_put,
        .sync = memory_sync,
        .close = memory_close,
    };
    struct memory *m = calloc(1, sizeof *m);

    if (m == NULL)
        return ERR_NOMEM;
    m->store.ops = &ops;
    m->free_rec = m->victim = NO_REC;
    m->stat.budget_bytes = budget_bytes;
    *out = &m->store;
    return 0;
}
