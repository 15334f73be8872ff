/*
 * Peers serve only a few streams of one caller at a time and close the others. So at most
 * KAD_CALLS_PER_PEER calls to one peer are under way; more of them wait their turn here, with the
 * clock of their time-out running.
 */
#include <stdlib.h>

#include "kademlia/engine.h"

struct dest { /* a peer with calls under way */
    kad_peer peer;
    unsigned under_way;
    struct list waiting; /* of calls that hold their message */
};

/* ---- sending ---- */

static struct dest *dest_of(struct kad *k, kad_peer peer)
{
    struct dest *d = map_get(&k->dests, &peer);

    if (d != NULL)
        return d;
    d = calloc(1, sizeof *d);
    if (d == NULL)
        return NULL;
    d->peer = peer;
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
    a->peer = c->peer;
    a->call = c->id;
    a->timeout_ms = (unsigned)(left / NS_PER_MS) + 1;
    a->msg = *msg;
    c->sent_ns = k->now_ns;
    k->stat.calls_sent[c->method & 7]++;
    return true;
}

/* Send, or put it into the queue of its peer. */
static bool send_or_wait(struct kad_call *c, struct kad_msg *msg)
{
    struct dest *d = dest_of(c->k, c->peer);

    if (d == NULL) {
        kad_msg_clear(msg);
        return false;
    }
    if (d->under_way < KAD_CALLS_PER_PEER) {
        d->under_way++; /* also when it fails: the end of the call takes it back */
        return send(c, msg);
    }
    c->held = malloc(sizeof *c->held);
    if (c->held == NULL) {
        d->under_way++;
        kad_msg_clear(msg);
        return false;
    }
    *c->held = *msg;
    list_push_back(&d->waiting, &c->in_queue);
    c->k->stat.calls_waiting++;
    return true;
}

static void drop_held(struct kad_call *c)
{
    kad_msg_clear(c->held);
    free(c->held);
    c->held = NULL;
    list_remove(&c->in_queue);
    c->k->stat.calls_waiting--;
}

/* A call ends: its place goes to the next one that waits. */
static void leave_dest(struct kad_call *c)
{
    struct kad *k = c->k;
    struct dest *d = map_get(&k->dests, &c->peer);

    if (c->held != NULL)
        drop_held(c);
    else if (d != NULL)
        d->under_way--;
    if (d == NULL)
        return;
    while (d->under_way < KAD_CALLS_PER_PEER && !list_empty(&d->waiting)) {
        struct kad_call *next = container_of(list_first(&d->waiting), struct kad_call, in_queue);
        if (next->timeout.at_ns <= k->now_ns)
            break; /* about to time out, in this very turn */
        struct kad_msg msg = *next->held;
        kad_msg_init(next->held, msg.method, false); /* moved out */
        drop_held(next);
        d->under_way++;
        (void)send(next, &msg); /* what could not be sent times out */
    }
    if (d->under_way == 0 && list_empty(&d->waiting)) {
        map_del(&k->dests, &d->peer);
        free(d);
    }
}

/* Free a call that is in no map any more. */
static void free_call(struct kad_call *c)
{
    leave_dest(c);
    loop_timer_cancel(&c->k->loop, &c->timeout);
    list_remove(&c->in_op);
    kad_unref(c->k, c->peer);
    free(c);
}

/* ---- what a call says about its peer ---- */

/* Does the peer live? Its answer counts for the table only. */
static void ping_contact(struct kad *k, kad_peer p)
{
    struct kad_msg ping;

    kad_msg_init(&ping, KAD_PING, false);
    if (kad_call_start(k, NULL, p, &ping, NULL) == NULL)
        table_ask_dropped(&k->table, p);
}

/* Is this failure a sign that the peer is gone? A closed stream is none: peers close streams of
 * methods that they do not know and of callers that ask too much. Only our own maintenance pings,
 * which are few, should always be answered. */
static bool counts_as_unanswered(const struct kad_call *c, enum kad_fail why)
{
    switch (why) {
    case KAD_FAIL_TIMEOUT:
    case KAD_FAIL_UNREACHABLE:
    case KAD_FAIL_FORMAT:
        return true;
    case KAD_FAIL_CLOSED:
        return c->method == KAD_PING && c->op == NULL;
    case KAD_FAIL_NO_DHT:
    case KAD_FAIL_TOO_LONG:
    case KAD_FAIL_LOCAL:
        return false;
    }
    return false;
}

static void note_failure(struct kad *k, const struct kad_call *c, enum kad_fail why)
{
    bool had_contacts = table_count(&k->table) > 0;

    k->stat.calls_failed[c->method & 7]++;
    if (why == KAD_FAIL_NO_DHT) {
        if (!kad_keyset_has(&k->bootstrap, kad_pk(k, c->peer)))
            kad_note_no_dht(k, c->peer);
        table_remove(&k->table, c->peer);
    } else if (counts_as_unanswered(c, why) && table_failed(&k->table, c->peer) == TABLE_ASK) {
        ping_contact(k, c->peer);
    }
    if (had_contacts && table_count(&k->table) == 0)
        kad_maintain_bootstrap_now(k);
}

void kad_peer_heard(struct kad *k, kad_peer p, bool answered)
{
    kad_peer ask = KAD_PEER_NONE;
    bool empty = table_count(&k->table) == 0;

    kad_note_clear_no_dht(k, p);
    enum table_result r = table_heard(&k->table, p, answered, k->now_ns, &ask);
    if (ask != KAD_PEER_NONE)
        ping_contact(k, ask);
    if (r == TABLE_INSERTED && empty)
        kad_maintain_bootstrap_now(k);
}

/* ---- calls ---- */

/* The call is over: take it out of all books first, since its owner may be freed by the callback. */
static void end_call(struct kad_call *c, struct kad_msg *rsp, enum kad_fail why)
{
    struct kad *k = c->k;

    map_del(&k->calls, &c->id);
    loop_timer_cancel(&k->loop, &c->timeout);
    list_remove(&c->in_op);
    if (rsp != NULL)
        kad_peer_heard(k, c->peer, true);
    else
        note_failure(k, c, why);
    if (c->op != NULL && c->done != NULL)
        c->done(c, rsp, why);
    free_call(c);
}

/* Nobody waits for the answer any longer. */
static void give_up(struct kad_call *c)
{
    bool sent = c->held == NULL && !kad_act_take_back(c->k, c->id);
    struct kad_act *a = sent ? kad_act_push(c->k, KAD_ACT_ABORT) : NULL;

    if (a != NULL) {
        a->call = c->id;
        a->peer = c->peer;
    }
    end_call(c, NULL, sent ? KAD_FAIL_TIMEOUT : KAD_FAIL_LOCAL);
}

static void timed_out(struct loop_timer *t)
{
    give_up(container_of(t, struct kad_call, timeout));
}

void kad_call_abandon(struct kad_call *c)
{
    c->done = NULL;
    if (c->held != NULL || c->k->now_ns - c->sent_ns >= kad_ms(c->k->lim.hedge_ms)) {
        give_up(c);
        return;
    }
    c->op = NULL;
    list_remove(&c->in_op);
}

static unsigned timeout_of(const struct kad *k, enum kad_method method)
{
    return method == KAD_GET_ITEMS || method == KAD_PUT_BATCH ? 3 * k->lim.rpc_timeout_ms
                                                              : k->lim.rpc_timeout_ms;
}

static struct kad_call *new_call(struct kad *k, struct kad_op *op, kad_peer peer,
                                 enum kad_method method)
{
    struct kad_call *c = calloc(1, sizeof *c);

    if (c == NULL)
        return NULL;
    c->k = k;
    c->op = op;
    c->peer = peer;
    c->method = method;
    c->timeout.fn = timed_out;
    do
        c->id = kad_number(&k->next_call);
    while (map_get(&k->calls, &c->id) != NULL);
    if (map_put(&k->calls, c) != 0) { /* the cap is the map's own */
        free(c);
        return NULL;
    }
    k->peers.ref(k->peers.arg, peer);
    if (op != NULL)
        list_push_back(&op->calls, &c->in_op);
    loop_timer_set(&k->loop, &c->timeout, kad_after(k, kad_ms(timeout_of(k, method))));
    return c;
}

struct kad_call *kad_call_start(struct kad *k, struct kad_op *op, kad_peer peer,
                                struct kad_msg *msg, kad_call_fn *done)
{
    struct kad_call *c = new_call(k, op, peer, msg->method);

    if (c == NULL) {
        kad_msg_clear(msg);
        return NULL;
    }
    msg->sender = k->self;
    c->done = done;
    if (send_or_wait(c, msg))
        return c;
    map_del(&k->calls, &c->id);
    free_call(c);
    return NULL;
}

void kad_calls_init(struct kad *k)
{
    map_init(&k->calls, MAP_KEY(struct kad_call, id), k->env->hash_key, KAD_MAX_CALLS);
    map_init(&k->dests, MAP_KEY(struct dest, peer), k->env->hash_key, KAD_MAX_CALLS);
}

void kad_calls_free(struct kad *k)
{
    struct kad_call *c;

    for (struct map_iter it = map_iter(&k->calls); (c = map_next(&it)) != NULL;) {
        map_iter_del(&it);
        free_call(c); /* may send others of the same peer: those acts are dropped with the rest */
    }
    map_free(&k->calls);
    map_free(&k->dests);
}

void kad_response(struct kad *k, uint32_t call, struct kad_msg *rsp, uint64_t now_ns)
{
    kad_enter(k, now_ns);
    struct kad_call *c = map_get(&k->calls, &call);
    if (c != NULL && rsp->method == c->method && rsp->response)
        end_call(c, rsp, KAD_FAIL_LOCAL);
    else if (c != NULL)
        end_call(c, NULL, KAD_FAIL_FORMAT);
    kad_msg_clear(rsp);
    kad_leave(k);
}

void kad_call_failed(struct kad *k, uint32_t call, enum kad_fail why, uint64_t now_ns)
{
    kad_enter(k, now_ns);
    struct kad_call *c = map_get(&k->calls, &call);
    if (c != NULL)
        end_call(c, NULL, why);
    kad_leave(k);
}
