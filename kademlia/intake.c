/*
 * Items of a page that came from a peer we asked: several are let in at a time, so that signature checks
 * fill all threads of the pool. Order does not matter: of two versions the store keeps the newer one.
 */
#include <string.h>

#include "base/err.h"
#include "kademlia/engine.h"

#define BUSY_NS (100 * NS_PER_MS)

static void run(struct kad_intake *in);

static void settle(struct kad_intake *in, struct kad_intake_slot *s, int err)
{
    kad_accept_clear(&s->accept);
    in->under_way--;
    if (err == ERR_BUSY) { /* the queue of signature checks is full: this one again, later */
        s->state = KAD_INTAKE_AGAIN;
        in->again++;
        return;
    }
    s->state = KAD_INTAKE_FREE;
    in->stored += err == 0;
    if (err == ERR_SIG)
        kad_note_lie(in->k, in->from, KAD_LIE_SIGNATURE);
    in->rejected += err == ERR_SIG || err == ERR_REFUSED;
}

static void checked(struct kad_accept *a, int err)
{
    struct kad_intake_slot *s = container_of(a, struct kad_intake_slot, accept);
    struct kad_intake *in = a->arg;

    settle(in, s, err);
    run(in);
}

static void start(struct kad_intake *in, struct kad_intake_slot *s, size_t i)
{
    const struct kad_msg_item *mi = &in->page.items[i];

    s->state = KAD_INTAKE_CHECKING;
    s->item = i;
    s->accept = (struct kad_accept){.via = KAD_VIA_PULL, .done = checked, .arg = in};
    in->under_way++;
    int rc = kad_accept_begin(&s->accept, in->k, mi->item, mi->has_target ? &mi->target : NULL,
                              kad_pk(in->k, in->from));
    if (rc != ERR_PENDING)
        settle(in, s, rc);
}

/* The next item that is one: an answer to GET_BATCH has gaps. */
static bool next_item(struct kad_intake *in, size_t *i)
{
    while (in->next < in->page.n_items && in->page.items[in->next].item == NULL)
        in->next++;
    *i = in->next;
    return in->next < in->page.n_items;
}

static void fill(struct kad_intake *in, struct kad_intake_slot *s)
{
    size_t i;

    if (s->state == KAD_INTAKE_AGAIN) {
        in->again--;
        start(in, s, s->item);
    }
    while (s->state == KAD_INTAKE_FREE && in->again == 0 && next_item(in, &i)) {
        in->next++;
        start(in, s, i);
    }
}

static void run(struct kad_intake *in)
{
    size_t i;

    if (loop_timer_armed(&in->pause))
        return;
    for (size_t s = 0; s < KAD_INTAKE_SLOTS; s++)
        fill(in, &in->slot[s]);
    if (in->again > 0)
        loop_timer_set(&in->k->loop, &in->pause, kad_after(in->k, BUSY_NS));
    else if (in->under_way == 0 && !next_item(in, &i))
        in->done(in);
}

static void paused(struct loop_timer *t)
{
    run(container_of(t, struct kad_intake, pause));
}

void kad_intake_init(struct kad_intake *in, struct kad *k, kad_peer from,
                     void (*done)(struct kad_intake *in))
{
    memset(in, 0, sizeof *in);
    in->k = k;
    in->from = from;
    in->done = done;
    in->pause.fn = paused;
}

void kad_intake_begin(struct kad_intake *in, struct kad_msg *page)
{
    kad_msg_clear(&in->page);
    in->page = *page;
    memset(page, 0, sizeof *page);
    in->next = 0;
    run(in);
}

void kad_intake_clear(struct kad_intake *in)
{
    loop_timer_cancel(&in->k->loop, &in->pause);
    for (size_t s = 0; s < KAD_INTAKE_SLOTS; s++) {
        if (in->slot[s].state == KAD_INTAKE_CHECKING)
            kad_accept_clear(&in->slot[s].accept);
    }
    kad_msg_clear(&in->page);
}
