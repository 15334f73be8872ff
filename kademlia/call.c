#include <stdlib.h>

#include "kademlia/engine.h"

/* Free a call that is in no map any more. */
static void free_call(struct kad_call *c)
{
    loop_timer_cancel(&c->k->loop, &c->timeout);
    list_remove(&c->in_op);
    kad_unref(c->k, c->peer);
    free(c);
}

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

static void push_abort(struct kad *k, uint32_t id, kad_peer peer)
{
    struct kad_act *a = kad_act_push(k, KAD_ACT_ABORT);

    if (a != NULL) {
        a->call = id;
        a->peer = peer;
    }
}

static void timed_out(struct loop_timer *t)
{
    struct kad_call *c = container_of(t, struct kad_call, timeout);

    push_abort(c->k, c->id, c->peer);
    end_call(c, NULL, KAD_FAIL_TIMEOUT);
}

static unsigned timeout_of(const struct kad *k, enum kad_method method)
{
    return method == KAD_GET_ITEMS || method == KAD_PUT_BATCH ? 3 * k->lim.rpc_timeout_ms
                                                              : k->lim.rpc_timeout_ms;
}

static struct kad_call *new_call(struct kad *k, struct kad_op *op, kad_peer peer)
{
    struct kad_call *c = calloc(1, sizeof *c);

    if (c == NULL)
        return NULL;
    c->k = k;
    c->op = op;
    c->peer = peer;
    c->sent_ns = k->now_ns;
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
    return c;
}

struct kad_call *kad_call_start(struct kad *k, struct kad_op *op, kad_peer peer,
                                struct kad_msg *msg, kad_call_fn *done)
{
    struct kad_call *c = new_call(k, op, peer);
    struct kad_act *a = c != NULL ? kad_act_push(k, KAD_ACT_CALL) : NULL;

    if (a == NULL) {
        if (c != NULL) {
            map_del(&k->calls, &c->id);
            free_call(c);
        }
        kad_msg_clear(msg);
        return NULL;
    }
    c->method = msg->method;
    c->done = done;
    msg->sender = k->self;
    a->peer = peer;
    a->call = c->id;
    a->timeout_ms = timeout_of(k, msg->method);
    a->msg = *msg;
    loop_timer_set(&k->loop, &c->timeout, kad_after(k, kad_ms(a->timeout_ms)));
    k->stat.calls_sent[msg->method & 7]++;
    return c;
}

void kad_call_abandon(struct kad_call *c)
{
    if (!c->late) {
        c->op = NULL;
        list_remove(&c->in_op);
        return;
    }
    c->done = NULL;
    push_abort(c->k, c->id, c->peer);
    end_call(c, NULL, KAD_FAIL_TIMEOUT);
}

void kad_calls_free(struct kad *k)
{
    struct kad_call *c;

    for (struct map_iter it = map_iter(&k->calls); (c = map_next(&it)) != NULL;) {
        map_iter_del(&it);
        free_call(c);
    }
    map_free(&k->calls);
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
