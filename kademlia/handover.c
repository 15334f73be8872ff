/*
 * Handing over to newcomers: a node that has just become a contact gets the items that it should hold from
 * now on, from the one of their holders that is closest to them, so that each comes once. Without that a
 * look-up that ends at the newcomer finds nothing there until the owner publishes anew.
 *
 * A while after newcomers came, one walk over the store in slices for some of them; the others wait for
 * the next walk. What a newcomer gets goes in small batches, as its rate limit has them. Who speaks no PUT_BATCH closes the stream, and waits for the
 * owner as before. Nothing is handed over in the first minute: a node that joins itself meets everybody.
 */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "kademlia/engine.h"

#define YOUNG_NS  (60 * NS_PER_S)
#define SETTLE_NS (5 * NS_PER_S)
#define STEP_NS   (500 * NS_PER_MS)
#define SLICE     512 /* records a step */
#define LEFT_NS   (INT64_C(600) * (int64_t)NS_PER_S)
#define BATCH_MAX 24 /* items a step, for one newcomer */

struct kad_handover {
    struct kad *k;
    struct loop_timer timer;
    kad_peer to[KAD_HANDOVER_WAITING]; /* references; the first n are those of this walk */
    size_t n, waiting;                 /* all of them */
    struct kad_id after;
};

struct pass {
    struct kad_handover *h;
    struct kad_msg batch[KAD_HANDOVER_MAX];
    size_t visited;
    bool full;
};

static void wait_a_while(struct kad_handover *h)
{
    loop_timer_set(&h->k->loop, &h->timer,
                   kad_after(h->k, env_jitter_ns(h->k->env, SETTLE_NS, 20)));
}

/* The walk is over; those who came meanwhile are next. */
static void end_walk(struct kad_handover *h)
{
    for (size_t i = 0; i < h->n; i++)
        kad_unref(h->k, h->to[i]);
    h->waiting -= h->n;
    memmove(h->to, h->to + h->n, h->waiting * sizeof h->to[0]);
    h->n = 0;
    if (h->waiting > 0)
        wait_a_while(h);
}

/* Is this the one that gives: closer to the item than all contacts but the newcomers? */
static bool is_giver(const struct kad_handover *h, const struct kad_id *target,
                     const kad_peer *closest, size_t n)
{
    const struct kad *k = h->k;

    for (size_t i = 0; i < n; i++) {
        bool is_new = false;
        for (size_t j = 0; j < h->waiting; j++)
            is_new |= h->to[j] == closest[i];
        if (!is_new)
            return kad_id_closer(target, &k->table.self, k->peers.id(k->peers.arg, closest[i])) < 0;
    }
    return true;
}

/* Only what shows its age by its number: anything else would live a whole lifetime again at each one
 * that it is handed to (incident 63). */
bool kad_is_to_be_given(const struct kad *k, const struct store_rec *r)
{
    return r->kind == ITEM_OWNER && r->origin != STORE_CACHE && kad_rec_is_live(k, r) &&
           (r->origin == STORE_OWN || r->expires_ns - kad_steady_ns(k) > LEFT_NS) &&
           kad_seq_is_clock(k, r->item.seq);
}

static bool look_at(void *arg, const struct store_rec *r)
{
    struct pass *p = arg;
    struct kad_handover *h = p->h;
    kad_peer closest[TABLE_MAX_K];

    if (p->visited++ >= SLICE || p->full)
        return false;
    h->after = r->target;
    if (!kad_is_to_be_given(h->k, r))
        return true;
    size_t n = table_closest(&h->k->table, &r->target, closest, h->k->lim.k);
    if (!is_giver(h, &r->target, closest, n))
        return true;
    for (size_t j = 0; j < h->n; j++) {
        bool among = false;
        for (size_t i = 0; i < n; i++)
            among |= closest[i] == h->to[j];
        struct kad_id own = item_target(&r->item);
        struct item_ref *item = among ? kad_rec_item(r) : NULL;
        if (item != NULL)
            (void)kad_msg_add_item(&p->batch[j], item,
                                   kad_id_equal(&own, &r->target) ? NULL : &r->target);
        item_ref_put(item);
        p->full |= p->batch[j].n_items >= BATCH_MAX;
    }
    return true;
}

static void send_batches(struct pass *p)
{
    struct kad *k = p->h->k;

    for (size_t j = 0; j < p->h->n; j++) {
        struct kad_msg *m = &p->batch[j];
        k->stat->handed_over += m->n_items;
        if (m->n_items > 0)
            (void)kad_call_start(k, NULL, p->h->to[j], m, NULL);
        else
            kad_msg_clear(m);
    }
}

static void step(struct loop_timer *t)
{
    struct kad_handover *h = container_of(t, struct kad_handover, timer);
    struct kad *k = h->k;
    struct pass p = {.h = h};

    bool begun = h->n > 0;
    if (!begun)
        h->n = h->waiting < KAD_HANDOVER_MAX ? h->waiting : KAD_HANDOVER_MAX;
    for (size_t j = 0; j < h->n; j++)
        kad_msg_init(&p.batch[j], KAD_PUT_BATCH, false);
    int rc = k->store->ops->scan(k->store, begun ? &h->after : NULL, look_at, &p);
    send_batches(&p);
    if (rc != 0 || (p.visited <= SLICE && !p.full))
        end_walk(h);
    else
        loop_timer_set(&k->loop, &h->timer, kad_after(k, STEP_NS));
}

void kad_handover_newcomer(struct kad *k, kad_peer peer)
{
    struct kad_handover *h = k->handover;
    struct store_stat st;

    if (k->now_ns - k->born_ns < YOUNG_NS || k->client_only)
        return;
    k->store->ops->stat(k->store, &st);
    if (st.items == 0)
        return;
    if (h == NULL) {
        h = k->handover = calloc(1, sizeof *h);
        if (h == NULL)
            return;
        h->k = k;
        h->timer.fn = step;
    }
    if (h->waiting == KAD_HANDOVER_WAITING)
        return; /* its owner gives it what it should have */
    k->peers.ref(k->peers.arg, peer);
    h->to[h->waiting++] = peer;
    if (!loop_timer_armed(&h->timer))
        wait_a_while(h);
}

void kad_handover_free(struct kad *k)
{
    struct kad_handover *h = k->handover;

    if (h == NULL)
        return;
    loop_timer_cancel(&k->loop, &h->timer);
    while (h->waiting > 0)
        kad_unref(k, h->to[--h->waiting]);
    free(h);
    k->handover = NULL;
}
