/*
 * What this full node holds, as digests of ranges (digest.h): made by a walk over the store in slices,
 * anew when it is asked for and older than STALE_NS. A walk of 100 000 items takes about 0.1 s of
 * CPU in all. So it is right about what expired, what other processes wrote into a shared store, and
 * costs nothing while nobody reconciles. That it is some seconds old does no harm: lists are read from
 * the store, and what was put meanwhile shows as a difference that turns out to be none.
 */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "kademlia/engine.h"

#define SLICE    4096 /* records a turn */
#define STALE_NS (30 * NS_PER_S)

struct kad_inventory {
    struct kad *k;
    struct loop_timer timer;
    struct digest *digest, *next; /* next: being made */
    uint64_t made_ns, next_ns;
    bool begun; /* the walk is behind `after` */
    struct kad_id after;
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

/* The last ID in front of the range; false: the range begins with the first one. */
static bool before_range(const struct recon_range *range, struct kad_id *out)
{
    unsigned first = (unsigned)range->prefix << (DIGEST_BITS - range->bits);

    if (first == 0)
        return false;
    memset(out->b, 0xff, sizeof out->b);
    out->b[0] = (uint8_t)((first - 1) >> 8);
    out->b[1] = (uint8_t)(first - 1);
    return true;
}

static int list(void *arg, const struct recon_range *range, struct digest_entry *out, size_t max,
                size_t *n, bool *more)
{
    struct kad *k = arg;
    struct lister l = {.best = {.k = k}, .range = range, .out = out, .max = max};
    struct kad_id from = range->after;
    bool behind = range->goes_on || before_range(range, &from);
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

struct slice {
    struct best best;
    struct digest *d;
    size_t n;
    struct kad_id last;
};

static bool add_one(void *arg, const struct store_rec *r)
{
    struct slice *s = arg;

    /* A slice ends between two targets. */
    if (s->n >= SLICE && !kad_id_equal(&s->last, &r->target))
        return false;
    s->n++;
    s->last = r->target;
    if (is_best(&s->best, r)) {
        struct digest_entry e = entry_of(r);
        digest_add(s->d, &e);
    }
    return true;
}

static void walk(struct loop_timer *t)
{
    struct kad_inventory *v = container_of(t, struct kad_inventory, timer);
    struct kad *k = v->k;
    struct slice s = {.best = {.k = k}, .d = v->next};
    int rc = k->store->ops->scan(k->store, v->begun ? &v->after : NULL, add_one, &s);

    if (rc == 0 && s.n >= SLICE) {
        v->begun = true;
        v->after = s.last;
        loop_timer_set(&k->loop, &v->timer, kad_after(k, NS_PER_MS));
        return;
    }
    if (rc == 0) {
        digest_free(v->digest);
        v->digest = v->next;
        v->made_ns = v->next_ns;
    } else {
        digest_free(v->next);
    }
    v->next = NULL;
}

static void begin_walk(struct kad_inventory *v)
{
    if (v->next != NULL || (v->next = digest_new()) == NULL)
        return;
    v->begun = false;
    v->next_ns = v->k->now_ns;
    v->timer.fn = walk;
    loop_timer_set(&v->k->loop, &v->timer, v->k->now_ns);
}

const struct digest *kad_inventory(struct kad *k, uint64_t not_before_ns)
{
    struct kad_inventory *v = k->inventory;

    if (v == NULL) {
        v = k->inventory = calloc(1, sizeof *v);
        if (v == NULL)
            return NULL;
        v->k = k;
    }
    if (v->digest == NULL || v->made_ns + STALE_NS < k->now_ns || v->made_ns < not_before_ns)
        begin_walk(v);
    return v->digest != NULL && v->made_ns >= not_before_ns ? v->digest : NULL;
}

void kad_inventory_free(struct kad *k)
{
    struct kad_inventory *v = k->inventory;

    if (v == NULL)
        return;
    loop_timer_cancel(&k->loop, &v->timer);
    digest_free(v->digest);
    digest_free(v->next);
    free(v);
    k->inventory = NULL;
}
