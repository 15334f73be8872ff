#include <stdlib.h>
#include <string.h>

#include "base/cursor.h"
#include "base/err.h"
#include "kademlia/engine.h"

#define REVALIDATE_GAP_NS (30 * NS_PER_S) /* between two revalidations of one slot */

/* ---- operations in general ---- */

static void deadline_passed(struct loop_timer *t)
{
    struct kad_op *op = container_of(t, struct kad_op, deadline);

    if (op->lk.running)
        kad_lookup_end(&op->lk, KAD_END_TIMEOUT);
    else if (op->timeout != NULL)
        op->timeout(op);
    else
        kad_op_finish(op, ERR_TIMEOUT, KAD_END_TIMEOUT);
}

void kad_op_set_deadline(struct kad_op *op, unsigned timeout_ms)
{
    loop_timer_set(&op->k->loop, &op->deadline, kad_after(op->k, kad_ms(timeout_ms)));
}

struct kad_op *kad_op_new(struct kad *k, enum kad_op_type type, bool internal, void *user)
{
    if (internal ? k->n_internal >= KAD_MAX_INTERNAL : k->n_ops >= k->lim.max_ops)
        return NULL;
    struct kad_op *op = calloc(1, sizeof *op);
    if (op == NULL)
        return NULL;
    op->k = k;
    op->internal = internal;
    op->rep.type = type;
    op->rep.user = user;
    op->rep.started_ns = k->now_ns;
    op->deadline.fn = deadline_passed;
    op->lk.op = op;
    list_init(&op->calls);
    do
        op->rep.op = kad_number(&k->next_op);
    while (map_get(&k->ops, &op->rep.op) != NULL);
    if (map_put(&k->ops, op) != 0) {
        free(op);
        return NULL;
    }
    list_push_back(&k->op_list, &op->node);
    *(internal ? &k->n_internal : &k->n_ops) += 1;
    kad_op_set_deadline(op, k->lim.op_timeout_ms);
    return op;
}

void kad_op_free(struct kad_op *op)
{
    struct kad *k = op->k;
    struct list_node *n, *tmp;

    kad_lookup_clear(&op->lk);
    list_for_each(n, tmp, &op->calls)
    {
        kad_call_abandon(container_of(n, struct kad_call, in_op));
    }
    if (op->clear != NULL)
        op->clear(op);
    kad_put_free(op->put);
    loop_timer_cancel(&k->loop, &op->deadline);
    map_del(&k->ops, &op->rep.op);
    list_remove(&op->node);
    *(op->internal ? &k->n_internal : &k->n_ops) -= 1;
    item_ref_put(op->rep.item);
    free(op->rep.closest);
    free(op->rep.steps);
    free(op);
}

void kad_op_finish(struct kad_op *op, int err, enum kad_end end)
{
    struct kad *k = op->k;
    bool told = !op->internal || op->rep.type == KAD_OP_BOOTSTRAP;
    struct kad_act *a = told ? kad_act_push(k, KAD_ACT_DONE) : NULL;

    op->rep.err = err;
    op->rep.end = end;
    op->rep.ended_ns = k->now_ns;
    if (op->trace && a != NULL)
        kad_lookup_steps(&op->lk, &op->rep);
    if (op->ended != NULL)
        op->ended(op, err);
    if (a != NULL) {
        a->report = op->rep; /* the item and the list move along */
        op->rep.item = NULL;
        op->rep.closest = NULL;
        op->rep.steps = NULL;
    }
    kad_op_free(op);
}

void kad_cancel(struct kad *k, uint32_t op_number)
{
    kad_enter(k, k->now_ns);
    struct kad_op *op = map_get(&k->ops, &op_number);
    if (op != NULL && !op->internal)
        kad_op_finish(op, ERR_CANCELLED, KAD_END_CANCELLED);
    kad_leave(k);
}

void kad_trace(struct kad *k, uint32_t op_number)
{
    struct kad_op *op = map_get(&k->ops, &op_number);
    if (op != NULL)
        op->trace = true;
}

void kad_op_lookup(struct kad_op *op, const struct kad_id *target, bool value, kad_lookup_fn *ended)
{
    op->rep.target = *target;
    op->lk.target = *target;
    op->lk.value = value;
    op->lk.ended = ended;
    kad_lookup_begin(&op->lk);
}

/* Error of a look-up that brought nothing: nobody there, nobody answered, or nothing found. */
static int nothing_found(const struct kad_op *op)
{
    return op->rep.answered == 0 ? ERR_NO_ROUTE : ERR_NOT_FOUND;
}

/* ---- find ---- */

static void found_nodes(struct kad_lookup *lk, enum kad_end end)
{
    struct kad_op *op = lk->op;
    kad_peer peers[TABLE_MAX_K];
    size_t n = kad_lookup_closest(lk, peers, op->k->lim.k);

    op->rep.closest = n > 0 ? calloc(n, sizeof *op->rep.closest) : NULL;
    for (size_t i = 0; op->rep.closest != NULL && i < n; i++)
        op->rep.closest[op->rep.n_closest++] = *kad_pk(op->k, peers[i]);
    kad_op_finish(op, n > 0 ? 0 : ERR_NO_ROUTE, end);
}

uint32_t kad_find_node(struct kad *k, const struct kad_id *target, void *user, uint64_t now_ns)
{
    uint32_t number = 0;

    kad_enter(k, now_ns);
    struct kad_op *op = kad_op_new(k, KAD_OP_FIND_NODE, false, user);
    if (op != NULL) {
        number = op->rep.op;
        kad_op_lookup(op, target, false, found_nodes);
    }
    kad_leave(k);
    return number;
}

bool kad_op_refresh(struct kad *k, const struct kad_id *target, bool wide,
                    void (*ended)(struct kad_op *, int))
{
    struct kad_op *op = kad_op_new(k, KAD_OP_REFRESH, true, NULL);

    if (op == NULL)
        return false;
    op->ended = ended;
    op->lk.wide = wide;
    kad_op_lookup(op, target, false, found_nodes);
    return true;
}

/* ---- get ---- */

static void finish_get(struct kad_op *op, struct item_ref *item, enum item_kind kind,
                       enum kad_source source, enum kad_end end)
{
    op->rep.item = item;
    op->rep.kind = kind;
    op->rep.source = source;
    kad_op_finish(op, kad_is_tombstone(&item->item) ? ERR_NOT_FOUND : 0, end);
}

/* Answer from the store; false when it has nothing. */
static bool get_local(struct kad_op *op, enum kad_use use, enum kad_end end)
{
    struct store_rec r;

    if (kad_store_best(op->k, &op->rep.target, use, &r) != 0)
        return false;
    struct item_ref *item = kad_rec_item(&r);
    if (item == NULL)
        return false;
    if (use == KAD_USE_FRESH)
        kad_revalidate(op->k, &r, false);
    finish_get(op, item, r.kind, KAD_SRC_LOCAL, end);
    return true;
}

/* Keep what was found: under the asked slot, whoever signed it (dht.md §3.5 "caching trap"). */
static void keep_found(struct kad_op *op)
{
    uint64_t age_ms = (op->k->now_ns - op->rep.started_ns + NS_PER_MS - 1) / NS_PER_MS;
    struct kad_accept a = {.via = KAD_VIA_CACHE, .verified = true, .age_ms = (uint32_t)age_ms};

    (void)kad_accept_begin(&a, op->k, op->lk.best.item, &op->rep.target, NULL);
    kad_accept_clear(&a);
}

/* What we hold and the network does not show, or only an older one of, still counts. */
static bool local_is_better(struct kad_op *op)
{
    struct store_rec r;

    if ((op->flags & KAD_GET_NETWORK) != 0 ||
        kad_store_best(op->k, &op->rep.target, KAD_USE_LIVE, &r) != 0)
        return false;
    if (op->lk.best.item == NULL || r.kind != op->lk.best.kind)
        return op->lk.best.item == NULL || r.kind < op->lk.best.kind;
    return r.kind == ITEM_CERT
               ? r.rank_time > op->lk.best.rank_time ||
                     (r.rank_time == op->lk.best.rank_time && r.rank_seq > op->lk.best.rank_seq)
               : r.item.seq > op->lk.best.item->item.seq;
}

static void got(struct kad_lookup *lk, enum kad_end end)
{
    struct kad_op *op = lk->op;

    if (local_is_better(op) && get_local(op, KAD_USE_LIVE, end))
        return;
    if (lk->best.item == NULL) {
        kad_op_finish(op, nothing_found(op), end);
        return;
    }
    if ((op->flags & KAD_GET_NO_CACHE) == 0)
        keep_found(op);
    op->rep.hops = lk->best.hop;
    finish_get(op, item_ref_get(lk->best.item), lk->best.kind, KAD_SRC_DHT, end);
}

uint32_t kad_get(struct kad *k, const struct pubkey *pk, const void *salt, size_t salt_len,
                 unsigned flags, void *user, uint64_t now_ns)
{
    uint32_t number = 0;

    if (salt_len > ITEM_MAX_SALT)
        return 0;
    kad_enter(k, now_ns);
    struct kad_op *op = kad_op_new(k, KAD_OP_GET, false, user);
    if (op != NULL) {
        number = op->rep.op;
        op->flags = flags;
        op->rep.target = kad_target(pk, salt, salt_len);
        op->lk.first = (flags & KAD_GET_FIRST) != 0;
        if ((flags & KAD_GET_NO_OWNER) == 0)
            op->lk.owner = *pk;
        struct kad_id target = op->rep.target;
        if ((flags & KAD_GET_NETWORK) != 0 || !get_local(op, KAD_USE_FRESH, KAD_END_LOCAL))
            kad_op_lookup(op, &target, true, got);
    }
    kad_leave(k);
    return number;
}

/* ---- revalidation ---- */

static bool was_revalidated(struct kad *k, const struct kad_id *target)
{
    uint64_t prefix = get_be64(target->b);

    if (k->recent == NULL)
        k->recent = calloc(KAD_RECENT, sizeof *k->recent);
    if (k->recent == NULL)
        return false;
    for (unsigned i = 0; i < KAD_RECENT; i++) {
        struct kad_recent *r = &k->recent[i];
        if (r->target == prefix && r->at_ns != 0 && k->now_ns - r->at_ns < REVALIDATE_GAP_NS)
            return true;
    }
    k->recent[k->next_recent] = (struct kad_recent){.target = prefix, .at_ns = k->now_ns};
    k->next_recent = (k->next_recent + 1) % KAD_RECENT;
    return false;
}

bool kad_get_again(struct kad *k, const struct kad_id *target, void (*ended)(struct kad_op *, int))
{
    struct kad_op *op = kad_op_new(k, KAD_OP_GET, true, NULL);

    if (op == NULL)
        return false;
    op->flags = KAD_GET_NETWORK;
    op->ended = ended;
    kad_op_lookup(op, target, true, got);
    return true;
}

void kad_revalidate(struct kad *k, const struct store_rec *r, bool now)
{
    int64_t age = kad_steady_ns(k) - r->stored_ns;
    struct kad_id target = r->target;

    if (r->origin == STORE_OWN || (!now && age < (int64_t)kad_ms(k->lim.cache_fresh_ms) / 2))
        return;
    if (was_revalidated(k, &target) && !now)
        return;
    (void)kad_get_again(k, &target, NULL);
}

/* ---- ping ---- */

static void pinged(struct kad_call *c, struct kad_msg *rsp, enum kad_fail why)
{
    struct kad_op *op = c->op;

    op->rep.answered = rsp != NULL;
    op->rep.failed = rsp == NULL;
    op->rep.bytes = rsp != NULL ? rsp->wire_bytes : 0;
    kad_op_finish(op, rsp != NULL ? 0 : kad_fail_err(why),
                  why == KAD_FAIL_TIMEOUT && rsp == NULL ? KAD_END_TIMEOUT : KAD_END_CLOSEST);
}

uint32_t kad_ping(struct kad *k, kad_peer peer, void *user, uint64_t now_ns)
{
    uint32_t number = 0;
    struct kad_msg m;

    kad_enter(k, now_ns);
    struct kad_op *op = kad_op_new(k, KAD_OP_PING, false, user);
    if (op != NULL) {
        number = op->rep.op;
        op->rep.asked = 1;
        kad_msg_init(&m, KAD_PING, false);
        if (kad_call_start(k, op, peer, &m, pinged) == NULL)
            kad_op_finish(op, ERR_LIMIT, KAD_END_NO_PEERS);
    }
    kad_leave(k);
    return number;
}

int kad_fail_err(enum kad_fail why)
{
    switch (why) {
    case KAD_FAIL_TIMEOUT:
        return ERR_TIMEOUT;
    case KAD_FAIL_UNREACHABLE:
    case KAD_FAIL_GONE:
        return ERR_NO_ROUTE;
    case KAD_FAIL_NO_DHT:
        return ERR_UNSUPPORTED;
    case KAD_FAIL_CLOSED:
        return ERR_EOF;
    case KAD_FAIL_FORMAT:
        return ERR_FORMAT;
    case KAD_FAIL_TOO_LONG:
        return ERR_TOO_LONG;
    case KAD_FAIL_LOCAL:
        return ERR_LIMIT;
    case KAD_FAIL_NETWORK:
        return ERR_NETWORK;
    }
    return ERR_PROTOCOL;
}
