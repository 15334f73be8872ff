/*
 * Reconciling two full nodes that speak the native dialect (reconcile.h):
 *
 *     DIGESTS  wait until our own are made
 *     ASK      RECONCILE: ranges, and their digests or lists
 *     GET      GET_BATCH of what the answers showed to be missing here, each item let in
 *     PUT      PUT_BATCH of what the peer lacks, if it is one that we push to
 *     and again, until no range is left
 *
 * A peer that holds much more than we do is read by pages instead, which is cheaper than lists of
 * nearly everything; one that does not know the method too.
 */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "kademlia/codec_json.h"
#include "kademlia/engine.h"

#define POLL_NS    (20 * NS_PER_MS)
#define NOT_YET_NS (200 * NS_PER_MS)
#define NOT_YET    100 /* times that a peer may say that its digests are not made yet */
#define GET_MAX    256 /* targets a call */
#define PUT_MAX    1000
#define PAGES_FROM 2 /* times as many items as we hold: by pages */

struct kad_ranges {
    struct kad_op *op;
    kad_peer peer; /* the operation's reference */
    bool may_push;
    unsigned not_yet;
    bool first;      /* no answer yet */
    bool own_ready;  /* r has begun */
    size_t got, put; /* so many of r.want and r.give are done */
    struct loop_timer pause;
    void (*resume)(struct kad_ranges *g);
    void (*done)(struct kad_op *op, int err);
    struct recon_source source;
    struct recon_range ranges[RECON_RANGES];
    size_t n_ranges;
    struct kad_intake in;
    size_t asked;       /* targets of the GET_BATCH under way */
    struct digest *own; /* a copy: the node's changes while we walk */
    struct recon r;
};

static void pause_for(struct kad_ranges *g, uint64_t ns, void (*resume)(struct kad_ranges *))
{
    g->resume = resume;
    loop_timer_set(&g->op->k->loop, &g->pause, kad_after(g->op->k, ns));
}

static void paused(struct loop_timer *t)
{
    struct kad_ranges *g = container_of(t, struct kad_ranges, pause);

    g->resume(g);
}

static void finish(struct kad_ranges *g, int err)
{
    g->done(g->op, err);
}

static void go_on(struct kad_ranges *g);

/* ---- put ---- */

/* The items that the peer lacks, as many as fit one message. */
static bool fill_batch(struct kad_ranges *g, struct kad_msg *m)
{
    struct kad *k = g->op->k;
    struct kad_filler f = {.k = k, .m = m, .max_bytes = KAD_BATCH_BYTES};

    kad_msg_init(m, KAD_PUT_BATCH, false);
    for (; g->put < g->r.n_give && m->n_items < PUT_MAX; g->put++) {
        struct store_rec rec;
        if (kad_store_best(k, &g->r.give[g->put], KAD_USE_SERVED, &rec) == 0 && !kad_fill(&f, &rec))
            break; /* it comes first in the next one */
    }
    for (size_t i = 0; i < m->n_items; i++) {
        struct kad_id own = item_target(&m->items[i].item->item);
        m->items[i].has_target = !kad_id_equal(&own, &m->items[i].target);
    }
    return m->n_items > 0;
}

static void was_put(struct kad_call *c, struct kad_msg *rsp, enum kad_fail why)
{
    struct kad_ranges *g = kad_sync_ranges(c->op);

    if (rsp == NULL) {
        finish(g, kad_fail_err(why));
        return;
    }
    for (size_t i = 0; i < rsp->n_items; i++)
        g->op->rep.pushed += rsp->items[i].result == 0;
    g->op->rep.bytes += rsp->wire_bytes;
    go_on(g);
}

/* ---- get ---- */

static void let_in_done(struct kad_intake *in)
{
    struct kad_ranges *g = container_of(in, struct kad_ranges, in);

    g->op->rep.pulled = in->stored;
    g->op->rep.rejected_items = (unsigned)in->rejected;
    go_on(g);
}

static void got(struct kad_call *c, struct kad_msg *rsp, enum kad_fail why)
{
    struct kad_ranges *g = kad_sync_ranges(c->op);

    if (rsp == NULL || rsp->n_items == 0 || rsp->n_items > g->asked) {
        finish(g, rsp == NULL ? kad_fail_err(why) : ERR_PROTOCOL);
        return;
    }
    g->op->rep.answered++;
    g->op->rep.bytes += rsp->wire_bytes;
    for (size_t i = 0; i < rsp->n_items; i++) { /* an item is for the slot that was asked for */
        rsp->items[i].has_target = true;
        rsp->items[i].target = g->r.want[g->got + i];
    }
    g->got += rsp->n_items;
    kad_intake_begin(&g->in, rsp);
}

/* ---- ask ---- */

static void ask(struct kad_ranges *g);

/* The first answer tells how much the peer holds. */
static bool is_for_pages(const struct kad_ranges *g, const struct kad_msg *rsp)
{
    uint64_t theirs = 0;

    for (unsigned i = 0; i < RECON_PARTS && !rsp->answers[0].is_list; i++)
        theirs += rsp->answers[0].part[i].count;
    return theirs > 1000 && theirs / PAGES_FROM > digest_items(g->own);
}

static void answered(struct kad_call *c, struct kad_msg *rsp, enum kad_fail why)
{
    struct kad_ranges *g = kad_sync_ranges(c->op);

    if (rsp == NULL) {
        finish(g, g->first ? ERR_UNSUPPORTED : kad_fail_err(why));
        return;
    }
    g->op->rep.answered++;
    g->op->rep.bytes += rsp->wire_bytes;
    if (rsp->n_answers == 0) {
        if (g->not_yet++ < NOT_YET)
            pause_for(g, NOT_YET_NS, ask);
        else
            finish(g, ERR_UNSUPPORTED);
        return;
    }
    if (g->first && is_for_pages(g, rsp)) {
        finish(g, ERR_UNSUPPORTED);
        return;
    }
    g->first = false;
    int rc = recon_take(&g->r, rsp->answers, rsp->n_answers);
    g->got = g->put = 0;
    g->n_ranges = 0;
    if (rc != 0) {
        if (rc == ERR_PROTOCOL)
            kad_note_lie(g->op->k, g->peer, KAD_LIE_PROTOCOL);
        finish(g, rc);
        return;
    }
    go_on(g);
}

static void ask(struct kad_ranges *g)
{
    struct kad_msg m;

    kad_msg_init(&m, KAD_RECONCILE, false);
    m.ranges = calloc(g->n_ranges, sizeof *m.ranges);
    if (m.ranges != NULL) {
        memcpy(m.ranges, g->ranges, g->n_ranges * sizeof *m.ranges);
        m.n_ranges = g->n_ranges;
    }
    g->op->rep.asked++;
    if (m.n_ranges == 0 || kad_call_start(g->op->k, g->op, g->peer, &m, answered) == NULL)
        finish(g, ERR_NOMEM);
}

static void get(struct kad_ranges *g)
{
    size_t left = g->r.n_want - g->got;
    struct kad_msg m;

    g->asked = left < GET_MAX ? left : GET_MAX;
    kad_msg_init(&m, KAD_GET_BATCH, false);
    g->op->rep.asked++;
    if (kad_msg_set_targets(&m, g->r.want + g->got, g->asked) != 0 ||
        kad_call_start(g->op->k, g->op, g->peer, &m, got) == NULL)
        finish(g, ERR_NOMEM);
}

static void go_on(struct kad_ranges *g)
{
    struct kad_msg m;

    if (g->got < g->r.n_want) {
        get(g);
        return;
    }
    if (g->may_push && fill_batch(g, &m)) {
        if (kad_call_start(g->op->k, g->op, g->peer, &m, was_put) == NULL)
            finish(g, ERR_NOMEM);
        return;
    }
    recon_clear(&g->r);
    g->got = g->put = 0;
    g->n_ranges = recon_next(&g->r, g->ranges, RECON_RANGES);
    if (g->n_ranges == 0)
        finish(g, 0);
    else
        ask(g);
}

static void wait_for_own(struct kad_ranges *g)
{
    const struct digest *own = kad_inventory(g->op->k);

    if (own == NULL) {
        pause_for(g, POLL_NS, wait_for_own);
        return;
    }
    g->own = digest_copy(own);
    if (g->own == NULL) {
        finish(g, ERR_NOMEM);
        return;
    }
    recon_begin(&g->r, g->own, &g->source);
    g->own_ready = true;
    go_on(g);
}

struct kad_ranges *kad_ranges_begin(struct kad_op *op, kad_peer peer, bool may_push,
                                    void (*done)(struct kad_op *op, int err))
{
    struct kad_ranges *g = calloc(1, sizeof *g);

    if (g == NULL)
        return NULL;
    g->op = op;
    g->peer = peer;
    g->may_push = may_push;
    g->first = true;
    g->done = done;
    g->source = kad_inventory_source(op->k);
    g->pause.fn = paused;
    kad_intake_init(&g->in, op->k, peer, let_in_done);
    pause_for(g, 0, wait_for_own);
    return g;
}

void kad_ranges_free(struct kad_ranges *g)
{
    if (g == NULL)
        return;
    loop_timer_cancel(&g->op->k->loop, &g->pause);
    kad_intake_clear(&g->in);
    if (g->own_ready)
        recon_end(&g->r);
    digest_free(g->own);
    free(g);
}

/* ---- the side that answers ---- */

#define ENTRY_COST 49 /* bytes on the wire, about */
#define PARTS_COST 320

/* Full nodes only: what others hold is no set that anybody could complete. Without digests yet, an
 * answer without answers. */
int kad_ranges_serve(struct kad *k, const struct kad_msg *req, struct kad_msg *rsp, size_t *cost)
{
    struct recon_source source = kad_inventory_source(k);

    *cost = 0;
    if (!k->full)
        return ERR_UNSUPPORTED;
    if (req->n_ranges == 0 || req->n_ranges > RECON_RANGES)
        return ERR_FORMAT;
    const struct digest *own = kad_inventory(k);
    if (own == NULL)
        return 0;
    rsp->answers = calloc(req->n_ranges, sizeof *rsp->answers);
    if (rsp->answers == NULL)
        return ERR_NOMEM;
    int rc = recon_serve(rsp->answers, &rsp->n_answers, req->ranges, req->n_ranges, own, &source);
    for (size_t i = 0; i < rsp->n_answers; i++)
        *cost += PARTS_COST + rsp->answers[i].n * ENTRY_COST;
    return rc;
}
