/*
 * What this full node holds, as digests of ranges (digest.h), kept up to date leaf by leaf.
 *
 * A leaf (65 536 of them, by the first 16 bits of the target) is stale when something was written into one of its slots, or when a record in it
 * has begun or ceased to live since: the next such time is kept for each. Stale leaves are read anew from the store when somebody asks, and next
 * to each other in one scan; at first all of them are. So a digest costs what was changed since the last one, and it cannot drift: what a leaf says
 * was read whole from the store, with all its rules of who answers for a slot. Nothing of it is on disk, so nothing has to survive a crash: whatever of the
 * last writes was lost, a new process begins with what the store holds then.
 *
 * It costs 2 MiB, and nothing at all before somebody asks (a regular node never has it). A leaf is read in one piece: 15 records of a million.
 */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "kademlia/engine.h"

#define SLICE    4096 /* records a turn */
#define RUN_COST 4    /* a scan costs as much as so many records */

struct kad_inventory {
    struct kad *k;
    struct loop_timer timer;
    struct digest *digest;
    size_t n_stale;
    size_t from;     /* no leaf below it is stale */
    int64_t turn_ns; /* the earliest of turns_ns */
    bool stale[DIGEST_LEAVES];
    int64_t turns_ns[DIGEST_LEAVES]; /* when a record begins or ceases to live */
};

/* Of each target the one record that readers prefer, if others may have it. */
struct best {
    const struct kad *k;
    bool any;
    struct kad_id last;
};

static bool is_best(struct best *b, const struct store_rec *r)
{
    if ((b->any && kad_id_equal(&b->last, &r->target)) || r->origin == STORE_CACHE ||
        !kad_rec_is_live(b->k, r))
        return false;
    b->any = true;
    b->last = r->target;
    return true;
}

static struct digest_entry entry_of(const struct store_rec *r)
{
    struct digest_entry e = {.target = r->target, .kind = r->kind};

    e.rank[0] = r->kind == ITEM_CERT ? (uint64_t)r->rank_time : 0;
    e.rank[1] = r->kind == ITEM_CERT ? r->rank_seq : r->item.seq;
    return e;
}

/* ---- lists ---- */

struct lister {
    struct best best;
    const struct recon_range *range;
    struct digest_entry *out;
    size_t n, max;
    bool more;
};

static bool list_one(void *arg, const struct store_rec *r)
{
    struct lister *l = arg;

    if (!recon_range_has(l->range, &r->target))
        return false;
    if (!is_best(&l->best, r))
        return true;
    l->more = l->n == l->max;
    if (!l->more)
        l->out[l->n++] = entry_of(r);
    return !l->more;
}

/* The last ID in front of a leaf; false: it is the first one. */
static bool id_before(struct kad_id *out, unsigned leaf)
{
    if (leaf == 0)
        return false;
    memset(out->b, 0xff, sizeof out->b);
    out->b[0] = (uint8_t)((leaf - 1) >> 8);
    out->b[1] = (uint8_t)(leaf - 1);
    return true;
}

static int list(void *arg, const struct recon_range *range, struct digest_entry *out, size_t max,
                size_t *n, bool *more)
{
    struct kad *k = arg;
    struct lister l = {.best = {.k = k}, .range = range, .out = out, .max = max};
    struct kad_id from = range->after;
    bool behind =
        range->goes_on || id_before(&from, (unsigned)range->prefix << (DIGEST_BITS - range->bits));
    int rc = k->store->ops->scan(k->store, behind ? &from : NULL, list_one, &l);

    *n = l.n;
    *more = l.more;
    return rc;
}

struct recon_source kad_inventory_source(struct kad *k)
{
    return (struct recon_source){.arg = k, .list = list};
}

/* ---- digests ---- */

static void mark(struct kad_inventory *v, size_t leaf)
{
    v->n_stale += !v->stale[leaf];
    v->stale[leaf] = true;
    if (leaf < v->from)
        v->from = leaf;
}

static void mark_all(struct kad_inventory *v)
{
    memset(v->stale, true, sizeof v->stale);
    v->n_stale = DIGEST_LEAVES;
    v->from = 0;
}

/* Leaves whose records have come of age since. */
static void mark_turned(struct kad_inventory *v)
{
    int64_t now = kad_steady_ns(v->k), first = INT64_MAX;

    if (now < v->turn_ns)
        return;
    for (size_t i = 0; i < DIGEST_LEAVES; i++) {
        if (v->turns_ns[i] <= now)
            mark(v, i);
        else if (v->turns_ns[i] < first)
            first = v->turns_ns[i];
    }
    v->turn_ns = first;
}

/* Stale leaves in a row that are read in one scan. */
struct run {
    struct kad_inventory *v;
    struct best best;
    size_t leaf, n; /* n: records read */
    bool stopped;   /* at a leaf that is not stale, or because it was enough */
};

static void begin_leaf(struct run *r)
{
    digest_clear(r->v->digest, (unsigned)r->leaf);
    r->v->turns_ns[r->leaf] = INT64_MAX;
}

/* All records of the leaf were seen. Is the next one to be read too? */
static bool end_leaf(struct run *r)
{
    struct kad_inventory *v = r->v;

    v->stale[r->leaf] = false;
    v->n_stale--;
    if (v->turns_ns[r->leaf] < v->turn_ns)
        v->turn_ns = v->turns_ns[r->leaf];
    if (++r->leaf == DIGEST_LEAVES || !v->stale[r->leaf] || r->n >= SLICE)
        return false;
    begin_leaf(r);
    return true;
}

static bool add_one(void *arg, const struct store_rec *rec)
{
    struct run *r = arg;
    struct kad_inventory *v = r->v;
    const size_t leaf = digest_prefix(&rec->target, DIGEST_BITS);

    while (!r->stopped && r->leaf < leaf)
        r->stopped = !end_leaf(r);
    if (r->stopped)
        return false;
    r->n++;
    int64_t turns_ns = kad_rec_turns_ns(v->k, rec);
    if (turns_ns < v->turns_ns[leaf])
        v->turns_ns[leaf] = turns_ns;
    if (is_best(&r->best, rec)) {
        struct digest_entry e = entry_of(rec);
        digest_add(v->digest, &e);
    }
    return true;
}

/* Read the next stale leaves that stand in a row. *n grows by what that cost. On an error of the store the leaf stays stale. */
static int read_run(struct kad_inventory *v, size_t *n)
{
    struct store *s = v->k->store;
    struct run r = {.v = v, .best = {.k = v->k}, .leaf = v->from};
    struct kad_id before;

    while (!v->stale[r.leaf])
        r.leaf++;
    v->from = r.leaf;
    begin_leaf(&r);
    bool behind = id_before(&before, (unsigned)r.leaf);
    int rc = s->ops->scan(s, behind ? &before : NULL, add_one, &r);
    while (rc == 0 && !r.stopped && end_leaf(&r))
        continue; /* no records behind the last one that was seen */
    *n += r.n + RUN_COST;
    return rc;
}

/* A slice of what is stale; the rest in later turns. */
static void refresh(struct kad_inventory *v)
{
    size_t n = 0;
    int rc = 0;

    mark_turned(v);
    while (rc == 0 && v->n_stale > 0 && n < SLICE)
        rc = read_run(v, &n);
    if (rc == 0 && v->n_stale > 0)
        loop_timer_set(&v->k->loop, &v->timer, kad_after(v->k, NS_PER_MS));
}

static void on_timer(struct loop_timer *t)
{
    refresh(container_of(t, struct kad_inventory, timer));
}

static struct kad_inventory *inventory_new(struct kad *k)
{
    struct kad_inventory *v = calloc(1, sizeof *v);

    if (v == NULL || (v->digest = digest_new()) == NULL) {
        free(v);
        return NULL;
    }
    v->k = k;
    v->timer.fn = on_timer;
    v->turn_ns = INT64_MAX;
    mark_all(v);
    return v;
}

const struct digest *kad_inventory(struct kad *k)
{
    if (k->inventory == NULL && (k->inventory = inventory_new(k)) == NULL)
        return NULL;
    if (!loop_timer_armed(&k->inventory->timer))
        refresh(k->inventory);
    return k->inventory->n_stale == 0 ? k->inventory->digest : NULL;
}

void kad_inventory_changed(struct kad *k, const struct kad_id *target)
{
    if (k->inventory == NULL)
        return;
    if (target != NULL)
        mark(k->inventory, digest_prefix(target, DIGEST_BITS));
    else
        mark_all(k->inventory);
}

void kad_inventory_free(struct kad *k)
{
    struct kad_inventory *v = k->inventory;

    if (v == NULL)
        return;
    loop_timer_cancel(&k->loop, &v->timer);
    digest_free(v->digest);
    free(v);
    k->inventory = NULL;
}
