/*
 * Peers serve only a few streams of one caller at a time, and so many requests a second, and close
 * the others. So at most KAD_CALLS_PER_PEER calls to one peer are under way; more of them wait their
 * turn here, with the clock of their time-out running. When a known contact closes a stream all the
 * same, the call goes back to the head of the queue and the queue pauses for a while: a node that
 * reads much gets its answers later instead of none.
 */
#include <stdlib.h>

#include "kademlia/engine.h"

#define TRIES    4
#define PAUSE_NS (100 * NS_PER_MS) /* doubled for each close in a row */
#define DOUBLED  4

struct dest { /* a peer with calls under way */
    struct kad *k;
    kad_peer peer;
    unsigned under_way, closed;
    struct loop_timer pause; /* armed: nothing is sent */
    struct list waiting;     /* of calls that hold their message */
};

static void pause_over(struct loop_timer *t);

static struct dest *dest_of(struct kad *k, kad_peer peer)
{
    struct dest *d = map_get(&k->dests, &peer);

    if (d != NULL)
        return d;
    d = calloc(1, sizeof *d);
    if (d == NULL)
        return NULL;
    d->k = k;
    d->peer = peer;
    d->pause.fn = pause_over;
    list_init(&d->waiting);
    if (map_put(&k->dests, d) == 0)
        return d;
    free(d);
    return NULL;
}

/* Hand the message to the host; it is cleared when that fails. */
static bool send(struct kad_call *c, struct kad_msg *msg)
{
    struct kad *k = c->k;
    struct kad_act *a = kad_act_push(k, KAD_ACT_CALL);

    if (a == NULL) {
        kad_msg_clear(msg);
        return false;
    }
    uint64_t left = c->timeout.at_ns - k->now_ns;
    msg->sender = k->self;
    msg->read_only = k->client_only || k->leaving;
    msg->full = k->full && !k->leaving && msg->method == KAD_PING;
    msg->network = k->network;
    a->peer = c->peer;
    a->call = c->id;
    a->timeout_ms = (unsigned)(left / NS_PER_MS) + 1;
    a->msg = *msg;
    c->sent_ns = k->now_ns;
    k->stat->calls_sent[c->method]++;
    return true;
}

/* Take over the message to send it later. */
static bool hold(struct kad_call *c, struct kad_msg *msg)
{
    c->held = malloc(sizeof *c->held);
    if (c->held == NULL) {
        kad_msg_clear(msg);
        return false;
    }
    *c->held = *msg;
    c->k->calls_waiting++;
    return true;
}

static struct kad_msg take_held(struct kad_call *c)
{
    struct kad_msg msg = *c->held;

    free(c->held);
    c->held = NULL;
    list_remove(&c->in_queue);
    c->k->calls_waiting--;
    return msg;
}

static bool may_send(const struct dest *d)
{
    return d->under_way < KAD_CALLS_PER_PEER && !loop_timer_armed(&d->pause);
}

bool kad_dest_send(struct kad_call *c, struct kad_msg *msg)
{
    struct dest *d = dest_of(c->k, c->peer);

    if (d == NULL) {
        kad_msg_clear(msg);
        return false;
    }
    if (!may_send(d) && hold(c, msg)) {
        list_push_back(&d->waiting, &c->in_queue);
        return true;
    }
    bool may = may_send(d); /* else: no memory to wait */
    d->under_way++;         /* also when it fails: the end of the call takes it back */
    return may && send(c, msg);
}

static void send_waiting(struct dest *d)
{
    while (may_send(d) && !list_empty(&d->waiting)) {
        struct kad_call *next = container_of(list_first(&d->waiting), struct kad_call, in_queue);
        if (next->timeout.at_ns <= d->k->now_ns)
            break; /* about to time out, in this very turn */
        struct kad_msg msg = take_held(next);
        d->under_way++;
        (void)send(next, &msg); /* what could not be sent times out */
    }
}

static void free_if_idle(struct dest *d)
{
    if (d->under_way > 0 || !list_empty(&d->waiting))
        return;
    loop_timer_cancel(&d->k->loop, &d->pause);
    map_del(&d->k->dests, &d->peer);
    free(d);
}

static void pause_over(struct loop_timer *t)
{
    struct dest *d = container_of(t, struct dest, pause);

    send_waiting(d);
    free_if_idle(d);
}

void kad_dest_leave(struct kad_call *c)
{
    struct dest *d = map_get(&c->k->dests, &c->peer);

    if (c->held != NULL) {
        struct kad_msg msg = take_held(c);
        kad_msg_clear(&msg);
    } else if (d != NULL) {
        d->under_way--;
    }
    if (d == NULL)
        return;
    send_waiting(d);
    free_if_idle(d);
}

void kad_dest_answered(struct kad_call *c)
{
    struct dest *d = map_get(&c->k->dests, &c->peer);

    if (d != NULL)
        d->closed = 0;
}

static bool rebuild(const struct kad_call *c, struct kad_msg *msg)
{
    kad_msg_init(msg, c->method, false);
    msg->target = c->target;
    return c->item == NULL ||
           kad_msg_add_item(msg, c->item, c->has_target ? &c->target : NULL) == 0;
}

bool kad_dest_retry(struct kad_call *c)
{
    struct kad *k = c->k;
    struct dest *d = map_get(&k->dests, &c->peer);
    bool repeatable = c->method == KAD_FIND_NODE || c->method == KAD_GET_VALUE ||
                      (c->method == KAD_PUT_VALUE && c->item != NULL);
    struct kad_msg msg;

    if (d == NULL || c->held != NULL || c->op == NULL || !repeatable || ++c->tries >= TRIES ||
        !table_has(&k->table, c->peer) || !rebuild(c, &msg) || !hold(c, &msg))
        return false;
    d->under_way--;
    list_push_front(&d->waiting, &c->in_queue);
    if (!loop_timer_armed(&d->pause)) {
        loop_timer_set(&k->loop, &d->pause, kad_after(k, PAUSE_NS << d->closed));
        d->closed += d->closed < DOUBLED;
    }
    k->stat->calls_repeated++;
    return true;
}

void kad_dests_init(struct kad *k)
{
    map_init(&k->dests, MAP_KEY(struct dest, peer), k->env->hash_key, KAD_MAX_CALLS);
}
