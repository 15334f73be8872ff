/*
 * One put, from the value to the k closest peers:
 *
 *     kad_put()          LOOKUP (GET_VALUE: who is closest, and which seq of ours is out there)
 *                          -> number, persist, SIGN -> own store -> SEND
 *     kad_put_signed()   CHECK (signatures) -> own store -> LOOKUP (FIND_NODE) -> SEND
 *     kad_put_hand_on()  LOOKUP (FIND_NODE) -> SEND
 */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "kademlia/engine.h"

enum stage { STAGE_CHECK, STAGE_LOOKUP, STAGE_SIGN, STAGE_SEND };

struct kad_put {
    struct kad_op *op;
    enum stage stage;
    struct item_ref *item; /* own puts: not shared before it is signed */
    bool own, has_seq;
    bool foreign_slot; /* target is sent along */
    struct pk_wait sign;
    struct kad_accept accept; /* put_signed: into the own store */
    enum kad_end end;         /* of the look-up */
    kad_peer *to;             /* references */
    size_t n_to, next_to, under_way;
    int refusal; /* what all that refused gave as their reason, or ERR_REFUSED */
};

void kad_put_free(struct kad_put *put)
{
    if (put == NULL)
        return;
    env_pk_cancel(put->op->k->env, &put->sign);
    pk_wait_wipe(&put->sign);
    kad_accept_clear(&put->accept);
    for (size_t i = 0; i < put->n_to; i++)
        kad_unref(put->op->k, put->to[i]);
    free(put->to);
    item_ref_put(put->item);
    free(put);
}

static struct kad_op *new_put(struct kad *k, const struct item *it, bool internal, void *user)
{
    struct kad_op *op = kad_op_new(k, KAD_OP_PUT, internal, user);

    if (op == NULL)
        return NULL;
    op->put = calloc(1, sizeof *op->put);
    if (op->put != NULL) {
        op->put->op = op;
        op->put->item = item_ref_new(it);
    }
    if (op->put == NULL || op->put->item == NULL) {
        kad_op_free(op);
        return NULL;
    }
    return op;
}

/* ---- sending ---- */

static void send_more(struct kad_put *put);

static int result_of(const struct kad_put *put)
{
    const struct kad_report *rep = &put->op->rep;

    if (rep->stored > 0 || put->end == KAD_END_NO_PEERS)
        return 0; /* without peers the own store is all there is (dht.md §3.5) */
    if (put->n_to == 0)
        return ERR_NO_ROUTE;
    if (rep->refused == 0)
        return ERR_TIMEOUT;
    /* Other reasons are the peers' own, and would read here like a full disk of ours. */
    return put->refusal == ERR_SEQ || put->refusal == ERR_QUOTA || put->refusal == ERR_QUOTA_GROUP
               ? put->refusal
               : ERR_REFUSED;
}

static void sent(struct kad_call *c, struct kad_msg *rsp, enum kad_fail why)
{
    struct kad_put *put = c->op->put;
    struct kad_report *rep = &c->op->rep;

    (void)why;
    put->under_way--;
    if (rsp == NULL) {
        rep->failed++;
    } else if (rsp->stored || (rsp->error == ERR_SEQ && !put->own)) {
        if (put->own && rsp->stored)
            kad_own_acked(c->k, &put->item->item, c->peer);
        rep->stored++; /* who has it already, or something newer, needs nothing */
    } else {
        put->refusal = rep->refused == 0 || put->refusal == rsp->error ? rsp->error : ERR_REFUSED;
        rep->refused++;
    }
    send_more(put);
}

static bool send_one(struct kad_put *put, kad_peer to)
{
    struct kad_msg m;

    kad_msg_init(&m, KAD_PUT_VALUE, false);
    if (kad_msg_add_item(&m, put->item, put->foreign_slot ? &put->op->rep.target : NULL) != 0) {
        kad_msg_clear(&m);
        return false;
    }
    return kad_call_start(put->op->k, put->op, to, &m, sent) != NULL;
}

static void send_more(struct kad_put *put)
{
    while (put->to != NULL && put->under_way < KAD_PUT_PARALLEL && put->next_to < put->n_to) {
        if (send_one(put, put->to[put->next_to++]))
            put->under_way++;
        else
            put->op->rep.failed++;
    }
    if (put->under_way == 0)
        kad_op_finish(put->op, result_of(put), put->end);
}

/* Time is up: what was accepted counts. */
static void timed_out(struct kad_op *op)
{
    int err = op->put->stage == STAGE_SEND ? result_of(op->put) : ERR_TIMEOUT;

    kad_op_finish(op, err, KAD_END_TIMEOUT);
}

static void begin_sending(struct kad_put *put)
{
    put->stage = STAGE_SEND;
    put->op->rep.item = item_ref_get(put->item);
    /* The look-up may have used up the time; the puts have their own. */
    kad_op_set_deadline(put->op, 2 * put->op->k->lim.rpc_timeout_ms);
    send_more(put);
}

/* ---- own items ---- */

static void signed_now(struct kad_put *put)
{
    struct kad *k = put->op->k;
    struct item *it = &put->item->item;
    struct kad_accept a = {.via = KAD_VIA_OWN, .verified = true};
    int rc = put->sign.res.err;

    it->sig = put->sign.res.sig;
    pk_wait_wipe(&put->sign);
    if (rc == 0) {
        rc = kad_accept_begin(&a, k, put->item, NULL, &k->self);
        kad_accept_clear(&a);
    }
    if (rc == ERR_SEQ || rc == ERR_KEY || rc == ERR_SIG) {
        kad_op_finish(put->op, rc, put->end);
        return;
    }
    /* A full store keeps us from holding it ourselves, not from publishing it. */
    if (rc == 0)
        kad_own_published(k, it->salt, it->salt_len, !kad_is_tombstone(it));
    begin_sending(put);
}

static void sign_done(struct pk_wait *w)
{
    signed_now(container_of(w, struct kad_put, sign));
}

static void sign(struct kad_put *put)
{
    struct kad *k = put->op->k;
    struct pk_req req = {.op = PK_SIGN, .cls = PK_CLASS_OWN, .sk = k->sk};

    put->stage = STAGE_SIGN;
    put->sign.done = sign_done;
    item_digest(&req.digest, &put->item->item);
    int rc = env_pk(k->env, &put->sign, &req);
    seckey_wipe(&req.sk);
    if (rc == 0)
        signed_now(put);
    else if (rc != ERR_PENDING)
        kad_op_finish(put->op, rc, put->end);
}

static uint64_t max64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* Above everything that this key was seen to have used, and above the clock, so that a node whose
 * store was lost climbs too (incident 53). 0 when there is no number left. */
static uint64_t next_seq(const struct kad_put *put)
{
    struct kad *k = put->op->k;
    const struct item *it = &put->item->item;
    const struct kad_found *best = &put->op->lk.best;
    int64_t wall = env_wall_ns(k->env);
    uint64_t seq = wall > 0 ? (uint64_t)wall : 0;
    struct store_rec r;

    seq = max64(seq, kad_own_seq(k, it->salt, it->salt_len));
    if (best->item != NULL && best->kind == ITEM_OWNER)
        seq = max64(seq, best->item->item.seq);
    if (k->store->ops->get(k->store, &put->op->rep.target, ITEM_OWNER, &r) == 0)
        seq = max64(seq, r.item.seq);
    return seq + 1;
}

static void number_and_sign(struct kad_put *put)
{
    struct kad *k = put->op->k;
    struct item *it = &put->item->item;

    if (!put->has_seq)
        it->seq = next_seq(put);
    int rc = it->seq == 0 && !put->has_seq ? ERR_SEQ : 0;
    if (rc == 0)
        rc = kad_own_set(k, it->salt, it->salt_len, it->seq);
    if (rc != 0)
        kad_op_finish(put->op, rc, put->end);
    else
        sign(put);
}

/* ---- the walk ---- */

static void looked_up(struct kad_lookup *lk, enum kad_end end)
{
    struct kad_put *put = lk->op->put;
    struct kad *k = lk->op->k;
    kad_peer peers[TABLE_MAX_K + KAD_LOOKUP_ANCHORS + KAD_PUT_FULLS];
    size_t n = kad_lookup_closest(lk, peers, k->lim.k);

    n += kad_lookup_anchors(lk, k->lim.k, peers + n);
    n = kad_fulls_add(k, &lk->target, peers, n);
    put->end = end;
    put->to = n > 0 ? calloc(n, sizeof *put->to) : NULL;
    for (size_t i = 0; put->to != NULL && i < n; i++) {
        k->peers.ref(k->peers.arg, peers[i]);
        put->to[put->n_to++] = peers[i];
    }
    if (put->own)
        number_and_sign(put);
    else
        begin_sending(put);
}

static void look_up(struct kad_put *put, const struct kad_id *target)
{
    put->stage = STAGE_LOOKUP;
    put->op->timeout = timed_out;
    put->op->lk.publishes = put->own || !put->op->internal;
    kad_op_lookup(put->op, target, put->own, looked_up);
}

/* The put of our own slot that has not drawn its number yet; there is at most one, beside `by`. */
static struct kad_op *undecided(struct kad *k, const struct kad_op *by, const struct kad_id *target)
{
    struct list_node *n, *tmp;

    list_for_each(n, tmp, &k->op_list)
    {
        struct kad_op *op = container_of(n, struct kad_op, node);
        if (op != by && op->put != NULL && op->put->own && op->put->stage != STAGE_SEND &&
            kad_id_equal(&op->rep.target, target))
            return op;
    }
    return NULL;
}

bool kad_put_is_coming(struct kad *k, const struct kad_id *target)
{
    return undecided(k, NULL, target) != NULL;
}

/* Two puts of one slot: the later value must win, so the earlier one may not draw its number after
 * it. */
static void supersede(struct kad *k, const struct kad_op *by, const struct kad_id *target)
{
    struct kad_op *op = undecided(k, by, target);

    if (op != NULL)
        kad_op_finish(op, ERR_CANCELLED, KAD_END_CANCELLED);
}

static struct kad_op *put_own(struct kad *k, const struct item *it, bool internal, void *user)
{
    struct kad_op *op = new_put(k, it, internal, user);

    if (op == NULL)
        return NULL;
    op->put->own = true;
    op->rep.target = item_target(it);
    supersede(k, op, &op->rep.target);
    return op;
}

static bool is_too_long(size_t salt_len, size_t v_len)
{
    return salt_len > ITEM_MAX_SALT || v_len > ITEM_MAX_VALUE;
}

uint32_t kad_put(struct kad *k, const void *salt, size_t salt_len, const void *v, size_t v_len,
                 bool has_seq, uint64_t seq, void *user, uint64_t now_ns)
{
    struct item it = {.k = k->self, .v = v, .v_len = v_len, .salt = salt, .salt_len = salt_len};
    uint32_t number = 0;

    if (is_too_long(salt_len, v_len))
        return 0;
    kad_enter(k, now_ns);
    it.seq = has_seq ? seq : 0;
    struct kad_op *op = put_own(k, &it, false, user);
    if (op != NULL) {
        struct kad_id target = op->rep.target;
        number = op->rep.op;
        op->put->has_seq = has_seq;
        look_up(op->put, &target);
    }
    kad_leave(k);
    return number;
}

bool kad_put_own(struct kad *k, const void *salt, size_t salt_len, const void *v, size_t v_len,
                 void (*ended)(struct kad_op *, int))
{
    struct item it = {.k = k->self, .v = v, .v_len = v_len, .salt = salt, .salt_len = salt_len};
    struct kad_op *op = put_own(k, &it, true, NULL);

    if (op == NULL)
        return false;
    struct kad_id target = op->rep.target;
    op->ended = ended;
    look_up(op->put, &target);
    return true;
}

bool kad_put_hand_on(struct kad *k, const struct store_rec *rec,
                     void (*ended)(struct kad_op *, int))
{
    struct kad_id target = rec->target;
    struct kad_op *op = new_put(k, &rec->item, true, NULL);

    if (op == NULL)
        return false;
    op->ended = ended;
    op->put->foreign_slot = rec->kind != ITEM_OWNER;
    look_up(op->put, &target);
    return true;
}

/* ---- items signed already ---- */

static void accepted(struct kad_put *put, int err)
{
    struct kad_id target = put->accept.check.cls.target;

    /* That our own store has it, or no room for it, is no reason not to publish it. */
    if (err != 0 && !put->accept.settled && err != ERR_NO_SPACE && err != ERR_QUOTA &&
        err != ERR_QUOTA_GROUP) {
        kad_op_finish(put->op, err, KAD_END_LOCAL);
        return;
    }
    put->foreign_slot = put->accept.check.cls.kind != ITEM_OWNER;
    put->op->rep.kind = put->accept.check.cls.kind;
    look_up(put, &target);
}

static void accept_done(struct kad_accept *a, int err)
{
    accepted(container_of(a, struct kad_put, accept), err);
}

uint32_t kad_put_signed(struct kad *k, const struct item *it, const struct kad_id *target,
                        void *user, uint64_t now_ns)
{
    uint32_t number = 0;

    if (is_too_long(it->salt_len, it->v_len))
        return 0;
    kad_enter(k, now_ns);
    struct kad_op *op = new_put(k, it, false, user);
    if (op != NULL) {
        struct kad_put *put = op->put;
        number = op->rep.op;
        put->accept.via = KAD_VIA_LOCAL;
        put->accept.done = accept_done;
        int rc = kad_accept_begin(&put->accept, k, put->item, target, NULL);
        if (rc != ERR_PENDING)
            accepted(put, rc);
    }
    kad_leave(k);
    return number;
}
