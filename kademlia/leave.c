/*
 * Going for good, or for long: the opposite of handover.c. Each item that we hold as one of the k closest
 * to its slot goes to its heir, the contact that is the k-th closest once we are gone. When they have answered,
 * our nearest contacts are told (PING, read only), who drop us at once instead of after some time-outs; not
 * sooner, as a batch says that whoever sends it lives.
 *
 * One walk over the store, of at most VISITED records, in one turn. Who stores nothing of the k closest
 * has no heirs; in a network of no more than k nodes everybody has everything. The host waits for the report,
 * which comes within GIVE_MS and TELL_MS, and frees the engine.
 */
#include <stdlib.h>

#include "base/err.h"
#include "kademlia/codec_json.h"
#include "kademlia/engine.h"

#define GIVE_MS   1200 /* for the heirs */
#define TELL_MS   800  /* for the farewell */
#define VISITED   16384
#define HEIRS     64
#define FAREWELLS 64

struct heir {
    kad_peer peer;
    size_t bytes;
    struct kad_msg batch;
};

struct walk {
    struct kad *k;
    size_t visited, n;
    struct heir heir[HEIRS];
};

/* Who holds the slot instead of us; KAD_PEER_NONE: it is not ours, or nobody is missing. */
static kad_peer heir_of(const struct kad *k, const struct kad_id *target)
{
    kad_peer peers[TABLE_MAX_K];
    size_t n = table_closest(&k->table, target, peers, k->lim.k);

    if (n < k->lim.k ||
        kad_id_closer(target, &k->table.self, k->peers.id(k->peers.arg, peers[n - 1])) > 0)
        return KAD_PEER_NONE;
    return peers[n - 1];
}

static struct heir *batch_for(struct walk *w, kad_peer p)
{
    for (size_t i = 0; i < w->n; i++) {
        if (w->heir[i].peer == p)
            return &w->heir[i];
    }
    if (w->n == HEIRS)
        return NULL;
    struct heir *h = &w->heir[w->n++];
    h->peer = p;
    h->bytes = 0;
    kad_msg_init(&h->batch, KAD_PUT_BATCH, false);
    return h;
}

static bool look_at(void *arg, const struct store_rec *r)
{
    struct walk *w = arg;

    if (w->visited++ >= VISITED)
        return false;
    if (!kad_is_to_be_given(w->k, r))
        return true;
    kad_peer p = heir_of(w->k, &r->target);
    struct heir *h = p != KAD_PEER_NONE ? batch_for(w, p) : NULL;
    size_t size = kad_json_item_size(&r->item);
    if (h == NULL || h->bytes + size > KAD_BATCH_BYTES)
        return true;
    struct item_ref *item = kad_rec_item(r);
    if (item != NULL && kad_msg_add_item(&h->batch, item, NULL) == 0)
        h->bytes += size;
    item_ref_put(item);
    return true;
}

/* ---- what is under way ---- */

static void say_farewell(struct kad_op *op);

/* A stage is over when all have answered. While one begins there is an answer too many to wait for. */
static void end_one(struct kad_op *op)
{
    if (op->rep.answered + op->rep.failed < op->rep.asked)
        return;
    if (op->timeout != NULL)
        say_farewell(op);
    else
        kad_op_finish(op, 0, KAD_END_CLOSEST);
}

static void answered(struct kad_call *c, struct kad_msg *rsp, enum kad_fail why)
{
    struct kad_op *op = c->op;

    (void)why;
    *(rsp != NULL ? &op->rep.answered : &op->rep.failed) += 1;
    for (size_t i = 0; rsp != NULL && c->method == KAD_PUT_BATCH && i < rsp->n_items; i++)
        op->rep.pushed += rsp->items[i].result == 0;
    end_one(op);
}

static void send(struct kad_op *op, kad_peer p, struct kad_msg *m)
{
    op->rep.asked++;
    if (kad_call_start(op->k, op, p, m, answered) == NULL)
        op->rep.failed++;
}

static void give(struct kad_op *op)
{
    struct walk *w = calloc(1, sizeof *w);

    if (w == NULL)
        return;
    w->k = op->k;
    (void)op->k->store->ops->scan(op->k->store, NULL, look_at, w);
    for (size_t i = 0; i < w->n; i++)
        send(op, w->heir[i].peer, &w->heir[i].batch);
    free(w);
}

static void say_farewell(struct kad_op *op)
{
    struct kad *k = op->k;
    kad_peer peers[FAREWELLS];
    size_t n = table_closest(&k->table, &k->table.self, peers, FAREWELLS);

    op->timeout = NULL;
    kad_op_set_deadline(op, TELL_MS);
    op->rep.asked++;
    for (size_t i = 0; i < n; i++) {
        struct kad_msg m;
        kad_msg_init(&m, KAD_PING, false);
        send(op, peers[i], &m);
    }
    op->rep.asked--;
    end_one(op);
}

uint32_t kad_leave_network(struct kad *k, void *user, uint64_t now_ns)
{
    uint32_t number = 0;

    kad_enter(k, now_ns);
    struct kad_op *op = k->client_only ? NULL : kad_op_new(k, KAD_OP_LEAVE, false, user);
    if (op != NULL) {
        number = op->rep.op;
        kad_op_set_deadline(op, GIVE_MS);
        op->timeout = say_farewell;
        k->leaving = true;
        op->rep.asked++;
        give(op);
        op->rep.asked--;
        end_one(op);
    }
    kad_leave(k);
    return number;
}

void kad_peer_left(struct kad *k, kad_peer p)
{
    kad_full_lost(k, p);
    if (table_remove(&k->table, p) && table_count(&k->table) == 0)
        kad_maintain_bootstrap_now(k);
}
