#include <stdlib.h>

#include "kademlia/engine.h"

/* Free a call that is in no map any more. */
static void free_call(struct kad_call *c)
{
    kad_dest_leave(c);
    item_ref_put(c->item);
    loop_timer_cancel(&c->k->loop, &c->timeout);
    list_remove(&c->in_op);
    kad_unref(c->k, c->peer);
    free(c);
}

/* ---- what a call says about its peer ---- */

void kad_ping_contact(struct kad *k, kad_peer p)
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
    case KAD_FAIL_GONE:
    case KAD_FAIL_FORMAT:
        return true;
    case KAD_FAIL_CLOSED:
        return c->method == KAD_PING && c->op == NULL;
    case KAD_FAIL_NO_DHT:
    case KAD_FAIL_TOO_LONG:
    case KAD_FAIL_LOCAL:
    case KAD_FAIL_NETWORK:
        return false;
    }
    return false;
}

static void note_failure(struct kad *k, const struct kad_call *c, enum kad_fail why)
{
    bool had_contacts = table_count(&k->table) > 0;

    k->stat->calls_failed[c->method]++;
    if (counts_as_unanswered(c, why))
        kad_full_lost(k, c->peer);
    if (why == KAD_FAIL_NO_DHT || why == KAD_FAIL_NETWORK) {
        if (!kad_keyset_has(&k->bootstrap, kad_pk(k, c->peer)))
            kad_note_no_dht(k, c->peer);
        table_remove(&k->table, c->peer);
    } else if (why == KAD_FAIL_FORMAT) {
        kad_note_lie(k, c->peer, KAD_LIE_PROTOCOL);
    }
    if (why == KAD_FAIL_TIMEOUT || why == KAD_FAIL_UNREACHABLE) {
        kad_group_failed(k, c->peer, c->sent_ns);
        kad_maintain_disturbed(k);
    }
    /* It is not the contact's fault when its relays are down, and it will be back with them. */
    if (why != KAD_FAIL_NO_DHT && why != KAD_FAIL_NETWORK && counts_as_unanswered(c, why) &&
        !kad_group_is_suspect(k, c->peer) && table_failed(&k->table, c->peer) == TABLE_ASK)
        kad_ping_contact(k, c->peer);
    if (had_contacts && table_count(&k->table) == 0)
        kad_maintain_bootstrap_now(k);
}

void kad_peer_heard(struct kad *k, kad_peer p, bool answered, bool probe)
{
    kad_peer ask = KAD_PEER_NONE;
    bool empty = table_count(&k->table) == 0;

    kad_note_clear_no_dht(k, p);
    kad_group_heard(k, p);
    if (kad_note_is_shunned(k, p))
        return;
    uint64_t diversified = k->table.diversified;
    enum table_result r = table_heard(&k->table, p, answered, k->now_ns, probe ? &ask : NULL);
    if (ask != KAD_PEER_NONE)
        kad_ping_contact(k, ask);
    k->stat->diversified += k->table.diversified - diversified;
    if (r == TABLE_INSERTED)
        kad_handover_newcomer(k, p);
    if (r == TABLE_INSERTED && k->full && kad_is_native(k, p))
        kad_ping_contact(k, p); /* so that it knows what we are */
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
    if (rsp != NULL && rsp->full)
        kad_full_said(k, c->peer);
    if (rsp != NULL)
        kad_peer_heard(k, c->peer, true, c->method != KAD_PING);
    else
        note_failure(k, c, why);
    if (c->done != NULL && (c->op != NULL || c->watch != NULL))
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

/* What is needed to ask again; pages and batches are repeated by those who sent them. */
static void keep_for_retry(struct kad_call *c, const struct kad_msg *msg)
{
    c->target = msg->target;
    if (msg->method == KAD_PUT_VALUE) {
        c->item = item_ref_get(msg->items[0].item);
        c->has_target = msg->items[0].has_target;
        c->target = msg->items[0].target;
    }
}

struct kad_call *kad_call_start(struct kad *k, struct kad_op *op, kad_peer peer,
                                struct kad_msg *msg, kad_call_fn *done)
{
    struct kad_call *c = new_call(k, op, peer, msg->method);

    if (c == NULL) {
        kad_msg_clear(msg);
        return NULL;
    }
    c->done = done;
    keep_for_retry(c, msg);
    if (kad_dest_send(c, msg))
        return c;
    map_del(&k->calls, &c->id);
    free_call(c);
    return NULL;
}

void kad_calls_init(struct kad *k)
{
    map_init(&k->calls, MAP_KEY(struct kad_call, id), k->env->hash_key, KAD_MAX_CALLS);
    kad_dests_init(k);
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
    if (c != NULL && rsp->network != k->network) {
        end_call(c, NULL, KAD_FAIL_NETWORK);
    } else if (c != NULL && rsp->method == c->method && rsp->response) {
        kad_dest_answered(c);
        end_call(c, rsp, KAD_FAIL_LOCAL);
    } else if (c != NULL) {
        end_call(c, NULL, KAD_FAIL_FORMAT);
    }
    kad_msg_clear(rsp);
    kad_leave(k);
}

void kad_call_failed(struct kad *k, uint32_t call, enum kad_fail why, uint64_t now_ns)
{
    kad_enter(k, now_ns);
    struct kad_call *c = map_get(&k->calls, &call);
    if (c != NULL && !(why == KAD_FAIL_CLOSED && kad_dest_retry(c)))
        end_call(c, NULL, why);
    kad_leave(k);
}
