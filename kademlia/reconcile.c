#include "kademlia/reconcile.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

#define STEP_BITS 4

bool recon_range_has(const struct recon_range *r, const struct kad_id *target)
{
    return r->bits == 0 || digest_prefix(target, r->bits) == r->prefix;
}

bool recon_range_is_valid(const struct recon_range *r)
{
    return r->bits <= DIGEST_BITS && r->bits % STEP_BITS == 0 && r->prefix < 1u << r->bits &&
           (!r->goes_on || recon_range_has(r, &r->after));
}

static int cmp_ids(const struct kad_id *a, const struct kad_id *b)
{
    return memcmp(a->b, b->b, KAD_ID_BYTES);
}

/* ---- the side that answers ---- */

static int serve_list(struct recon_answer *out, const struct recon_range *range, size_t room,
                      const struct recon_source *source)
{
    size_t max = room < RECON_LIST_ITEM ? room : RECON_LIST_ITEM;

    out->is_list = true;
    out->entries = calloc(max, sizeof *out->entries);
    if (out->entries == NULL)
        return ERR_NOMEM;
    return source->list(source->arg, range, out->entries, max, &out->n, &out->more);
}

static void serve_parts(struct recon_answer *out, const struct recon_range *range,
                        const struct digest *own)
{
    for (unsigned i = 0; i < RECON_PARTS; i++)
        out->part[i] =
            digest_range(own, range->bits + STEP_BITS, (unsigned)range->prefix << STEP_BITS | i);
}

int recon_serve(struct recon_answer *out, size_t *n_out, const struct recon_range *ranges, size_t n,
                const struct digest *own, const struct recon_source *source)
{
    size_t room = RECON_ENTRIES;
    int rc = 0;

    *n_out = 0;
    for (size_t i = 0; rc == 0 && i < n && room > RECON_LIST_MAX; i++) {
        const struct recon_range *r = &ranges[i];
        if (!recon_range_is_valid(r))
            return ERR_FORMAT;
        out[i] = (struct recon_answer){.is_list = false};
        bool whole = r->bits == DIGEST_BITS || r->goes_on ||
                     digest_range(own, r->bits, r->prefix).count <= RECON_LIST_MAX;
        if (whole)
            rc = serve_list(&out[i], r, room, source);
        else
            serve_parts(&out[i], r, own);
        room -= out[i].n;
        ++*n_out;
    }
    return rc;
}

void recon_answer_clear(struct recon_answer *a)
{
    free(a->entries);
    *a = (struct recon_answer){.is_list = false};
}

/* ---- the side that asks ---- */

void recon_begin(struct recon *r, const struct digest *own, const struct recon_source *source)
{
    memset(r, 0, sizeof *r);
    r->own = own;
    r->source = source;
    r->n_stack = 1; /* everything: 0 bits */
}

void recon_end(struct recon *r)
{
    free(r->want);
    free(r->give);
    memset(r, 0, sizeof *r);
}

void recon_clear(struct recon *r)
{
    r->n_want = r->n_give = 0;
}

size_t recon_next(struct recon *r, struct recon_range *out, size_t max)
{
    assert(max > 0 && max <= RECON_RANGES);
    for (r->n_asked = 0; r->n_asked < max && r->n_stack > 0; r->n_asked++)
        out[r->n_asked] = r->asked[r->n_asked] = r->stack[--r->n_stack];
    r->ranges += r->n_asked;
    return r->n_asked;
}

/* The stack holds what is left of at most RECON_RANGES ranges for each of five depths, as the deepest
 * ones are asked for first. */
static void push(struct recon *r, const struct recon_range *range)
{
    assert(r->n_stack < RECON_STACK);
    r->stack[r->n_stack++] = *range;
}

static int note(struct kad_id **list, size_t *n, size_t *cap, const struct kad_id *target)
{
    if (*n == *cap) {
        size_t more = *cap > 0 ? 2 * *cap : 64;
        struct kad_id *grown = realloc(*list, more * sizeof *grown);
        if (grown == NULL)
            return ERR_NOMEM;
        *list = grown;
        *cap = more;
    }
    (*list)[(*n)++] = *target;
    return 0;
}

static int want(struct recon *r, const struct kad_id *target)
{
    return note(&r->want, &r->n_want, &r->cap_want, target);
}

static int give(struct recon *r, const struct kad_id *target)
{
    return note(&r->give, &r->n_give, &r->cap_give, target);
}

static int take_parts(struct recon *r, const struct recon_range *range,
                      const struct recon_answer *a)
{
    if (range->bits == DIGEST_BITS || range->goes_on)
        return ERR_PROTOCOL; /* must be a list */
    for (unsigned i = 0; i < RECON_PARTS; i++) {
        struct recon_range part = {.bits = (uint8_t)(range->bits + STEP_BITS),
                                   .prefix = (uint16_t)((unsigned)range->prefix << STEP_BITS | i)};
        struct digest_part own = digest_range(r->own, part.bits, part.prefix);
        if (!digest_part_equal(&own, &a->part[i]))
            push(r, &part);
    }
    return 0;
}

static int check_list(const struct recon_range *range, const struct recon_answer *a)
{
    const struct kad_id *last = range->goes_on ? &range->after : NULL;

    for (size_t i = 0; i < a->n; i++) {
        const struct digest_entry *e = &a->entries[i];
        if (!recon_range_has(range, &e->target) || e->kind >= ITEM_KIND__COUNT ||
            (last != NULL && cmp_ids(&e->target, last) <= 0))
            return ERR_PROTOCOL;
        last = &e->target;
    }
    return a->more && a->n == 0 ? ERR_PROTOCOL : 0;
}

/* Own items of the range one after the other, a page at a time. */
struct own_list {
    const struct recon_source *source;
    struct recon_range range;
    struct digest_entry page[RECON_LIST_ITEM];
    size_t n, at;
    bool more;
};

static int own_page(struct own_list *l)
{
    l->at = l->n = 0;
    return l->source->list(l->source->arg, &l->range, l->page, RECON_LIST_ITEM, &l->n, &l->more);
}

/* The next own item, NULL at the end. */
static int own_next(struct own_list *l, const struct digest_entry **out)
{
    *out = NULL;
    while (l->at == l->n && l->more) {
        if (l->n > 0) {
            l->range.goes_on = true;
            l->range.after = l->page[l->n - 1].target;
        }
        int rc = own_page(l);
        if (rc != 0)
            return rc;
        if (l->n == 0)
            l->more = false;
    }
    if (l->at < l->n)
        *out = &l->page[l->at++];
    return 0;
}

static int compare(struct recon *r, const struct digest_entry *own,
                   const struct digest_entry *theirs)
{
    int c = digest_entry_cmp(own, theirs);

    if (c == 0)
        return 0;
    return c < 0 ? give(r, &own->target) : want(r, &own->target);
}

/* Both lists are in the order of targets: one walk. What is behind the end of a list that was cut is
 * compared with what comes then. */
static int merge(struct recon *r, struct own_list *own, const struct recon_answer *a)
{
    const struct digest_entry *mine;
    size_t i = 0;
    int rc = own_next(own, &mine);

    while (rc == 0 && (i < a->n || (mine != NULL && !a->more))) {
        int c = i == a->n ? -1 : mine == NULL ? 1 : cmp_ids(&mine->target, &a->entries[i].target);
        if (c < 0)
            rc = give(r, &mine->target);
        else if (c > 0)
            rc = want(r, &a->entries[i].target);
        else
            rc = compare(r, mine, &a->entries[i]);
        if (rc == 0 && c <= 0)
            rc = own_next(own, &mine);
        i += c >= 0;
    }
    return rc;
}

static int take_list(struct recon *r, const struct recon_range *range, const struct recon_answer *a)
{
    int rc = check_list(range, a);

    if (rc != 0)
        return rc;
    struct own_list *own = calloc(1, sizeof *own);
    if (own == NULL)
        return ERR_NOMEM;
    *own = (struct own_list){.source = r->source, .range = *range, .more = true};
    rc = merge(r, own, a);
    free(own);
    r->entries += a->n;
    if (rc == 0 && a->more) {
        struct recon_range rest = *range;
        rest.goes_on = true;
        rest.after = a->entries[a->n - 1].target;
        push(r, &rest);
    }
    return rc;
}

int recon_take(struct recon *r, const struct recon_answer *answers, size_t n)
{
    int rc = 0;

    if (n == 0 || n > r->n_asked)
        return ERR_PROTOCOL;
    while (r->n_asked > n)
        push(r, &r->asked[--r->n_asked]);
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = answers[i].is_list ? take_list(r, &r->asked[i], &answers[i])
                                : take_parts(r, &r->asked[i], &answers[i]);
    return rc;
}
