#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "kademlia/codec_json.h"
#include "kademlia/engine.h"

#define PAGE_ROUNDS 64 /* store pages read for one answer, when most of them hold nothing to give */

/* A PUT_VALUE or PUT_BATCH whose items are being let in, one after the other. */
struct job {
    struct kad *k;
    struct list_node node;
    kad_peer from; /* a reference */
    uint64_t token;
    struct kad_msg req;
    size_t next;  /* item under way */
    bool waiting; /* for a signature check */
    struct kad_accept accept;
};

/* ---- answers ---- */

static void refuse(struct kad *k, kad_peer from, uint64_t token, int err)
{
    struct kad_act *a = kad_act_push(k, KAD_ACT_REFUSE);

    if (a == NULL)
        return;
    a->peer = from;
    a->token = token;
    a->err = err;
}

/* Bytes of values, which is what large answers consist of. */
static size_t value_bytes(const struct kad_msg *m)
{
    size_t n = 0;

    for (size_t i = 0; i < m->n_items; i++)
        n += m->items[i].item != NULL ? kad_json_item_size(&m->items[i].item->item) : 0;
    return n;
}

bool kad_is_exempt(const struct kad *k, kad_peer p)
{
    const struct pubkey *pk = kad_pk(k, p);

    return kad_tier_of(k, pk) != ITEM_TIER_PUBLIC || kad_keyset_has(&k->bootstrap, pk) ||
           kad_keyset_has(&k->mirrors, pk);
}

/* Send *rsp, whose contents move into the action. */
static void reply(struct kad *k, kad_peer from, uint64_t token, struct kad_msg *rsp)
{
    struct kad_act *a = kad_act_push(k, KAD_ACT_REPLY);

    if (a == NULL) {
        kad_msg_clear(rsp);
        return;
    }
    if (rsp->method != KAD_PUT_VALUE && rsp->method != KAD_PUT_BATCH && !kad_is_exempt(k, from))
        kad_note_bytes(k, from, value_bytes(rsp));
    a->peer = from;
    a->token = token;
    rsp->network = k->network;
    a->msg = *rsp;
    k->stat->replies[rsp->method]++;
}

/* ---- ping, find, get ---- */

static int add_closest(struct kad *k, const struct kad_id *target, struct kad_msg *rsp)
{
    kad_peer peers[KAD_K];
    struct pubkey pks[KAD_K];
    size_t n = table_closest(&k->table, target, peers, KAD_K);

    for (size_t i = 0; i < n; i++) {
        pks[i] = *kad_pk(k, peers[i]);
        rsp->native |= (uint32_t)kad_is_native(k, peers[i]) << i;
    }
    return kad_msg_set_closest(rsp, pks, n);
}

static int add_value(struct kad *k, const struct kad_id *target, struct kad_msg *rsp)
{
    struct store_rec r;

    if (kad_store_best(k, target, KAD_USE_SERVED, &r) != 0)
        return 0;
    struct item_ref *item = kad_rec_item(&r);
    if (item == NULL)
        return ERR_NOMEM;
    int rc = kad_msg_add_item(rsp, item, NULL);
    item_ref_put(item);
    return rc;
}

/* One place per target from the first one on; what would make the answer too long is left to the
 * asker to ask for again. */
static int add_values(struct kad *k, kad_peer from, const struct kad_msg *req, struct kad_msg *rsp)
{
    size_t bytes = 0;
    int rc = 0;

    if (req->n_targets == 0)
        return ERR_FORMAT;
    if (req->n_targets > KAD_BATCH_COST)
        kad_note_charge(k, from, (unsigned)(req->n_targets / KAD_BATCH_COST));
    for (size_t i = 0; rc == 0 && i < req->n_targets && bytes < KAD_FRAME_BYTES - ITEM_MAX_VALUE;
         i++) {
        struct store_rec r;
        struct item_ref *item = NULL;
        if (kad_store_best(k, &req->targets[i], KAD_USE_SERVED, &r) == 0) {
            item = kad_rec_item(&r);
            bytes += kad_json_item_size(&r.item);
        }
        rc = kad_msg_add_item(rsp, item, &req->targets[i]);
        item_ref_put(item);
    }
    return rc;
}

/* ---- get items ---- */

bool kad_fill(void *filler, const struct store_rec *r)
{
    struct kad_filler *f = filler;

    if (r->origin == STORE_CACHE || !kad_rec_is_live(f->k, r)) {
        f->last_seq = r->item.seq;
        f->any = true;
        return true;
    }
    size_t more = kad_json_item_size(&r->item);
    struct item_ref *item = NULL;
    f->full = f->m->n_items >= KAD_MSG_MAX_ITEMS || f->bytes + more > f->max_bytes;
    if (!f->full)
        item = kad_rec_item(r);
    if (item == NULL || kad_msg_add_item(f->m, item, &r->target) != 0)
        f->full = true;
    item_ref_put(item);
    if (f->full)
        return false;
    f->bytes += more;
    f->last_seq = r->item.seq;
    f->any = true;
    return true;
}

/* A page in the order (seq, target), cut before the frame gets too long for the peers. A page of the
 * store may hold nothing that may be given, so go on until there is something: an empty page tells
 * the asker that this was all. One seq may hold more than fits a frame; then the rest of it is lost to
 * this reader, which is better than a listing that nobody can get past. */
static void fill_page(struct kad *k, const struct kad_msg *req, struct kad_msg *rsp)
{
    int64_t limit = req->limit <= 0 || req->limit > KAD_PAGE_ITEMS ? KAD_PAGE_ITEMS : req->limit;
    struct kad_filler f = {.k = k, .m = rsp, .max_bytes = KAD_FRAME_BYTES};
    struct store_page page = {.salt = req->salt_len > 0 ? (const uint8_t *)req->salt : NULL,
                              .salt_len = req->salt_len,
                              .since_seq = req->since_seq,
                              .limit = (size_t)limit,
                              .max_bytes = KAD_FRAME_BYTES / 2};

    rsp->has_more = true;
    for (int i = 0; i < PAGE_ROUNDS && rsp->n_items == 0 && rsp->has_more && !f.full; i++) {
        bool more = false;
        f.any = false;
        if (k->store->ops->list(k->store, &page, kad_fill, &f, &more) != 0 || !f.any)
            more = false;
        rsp->has_more = more || f.full;
        page.since_seq = f.last_seq;
    }
}

/* ---- put ---- */

static void free_job(struct job *j)
{
    struct kad *k = j->k;

    if (j->waiting)
        kad_accept_clear(&j->accept);
    list_remove(&j->node);
    kad_unref(k, j->from);
    kad_msg_clear(&j->req);
    k->pending--;
    free(j);
}

static void finish_job(struct job *j)
{
    struct kad_msg rsp;

    kad_msg_init(&rsp, j->req.method, true);
    rsp.items = j->req.items; /* with the results; the texts are made from the items */
    rsp.n_items = j->req.n_items;
    j->req.items = NULL;
    j->req.n_items = 0;
    if (rsp.method == KAD_PUT_VALUE) {
        rsp.error = rsp.items[0].result;
        rsp.stored = rsp.error == 0;
    }
    reply(j->k, j->from, j->token, &rsp);
    free_job(j);
}

/* What the sender is told. With an explicit target "not newer" is no failure: the slot holds this
 * item or a later one, and the peers never tell such senders more (dht.md §2.3). Other refusals they
 * hide; we do not. */
static void set_result(struct job *j, int err)
{
    struct kad_msg_item *mi = &j->req.items[j->next++];

    mi->result = err == ERR_SEQ && mi->has_target ? 0 : err;
    if (err == 0 && j->req.method == KAD_PUT_VALUE)
        kad_fulls_tell(j->k, j->from, mi);
    if (err == ERR_SIG) {
        kad_note_lie(j->k, j->from, KAD_LIE_SIGNATURE);
        kad_note_charge(j->k, j->from, j->k->lim.rate_per_s);
    }
}

static void run_job(struct job *j);

static void let_in(struct kad_accept *a, int err)
{
    struct job *j = a->arg;

    kad_accept_clear(a);
    j->waiting = false;
    set_result(j, err);
    run_job(j);
}

static void run_job(struct job *j)
{
    struct kad *k = j->k;

    while (j->next < j->req.n_items) {
        struct kad_msg_item *mi = &j->req.items[j->next];
        j->accept = (struct kad_accept){.via = KAD_VIA_PUT, .done = let_in, .arg = j};
        if (j->next > 0)
            kad_note_charge(k, j->from, 1);
        int rc = kad_accept_begin(&j->accept, k, mi->item, mi->has_target ? &mi->target : NULL,
                                  kad_pk(k, j->from));
        if (rc == ERR_PENDING) {
            j->waiting = true;
            return;
        }
        kad_accept_clear(&j->accept);
        set_result(j, rc);
    }
    finish_job(j);
}

/* Take over the request's contents; false when too many wait already. */
static bool begin_job(struct kad *k, kad_peer from, struct kad_msg *req, uint64_t token)
{
    struct job *j = k->pending < k->lim.max_pending ? calloc(1, sizeof *j) : NULL;

    if (j == NULL) {
        k->stat->refused_busy++;
        return false;
    }
    j->k = k;
    j->from = from;
    j->token = token;
    j->req = *req;
    memset(req, 0, sizeof *req);
    k->peers.ref(k->peers.arg, from);
    list_push_back(&k->jobs, &j->node);
    k->pending++;
    run_job(j);
    return true;
}

void kad_serve_free(struct kad *k)
{
    struct list_node *n;

    while ((n = list_first(&k->jobs)) != NULL)
        free_job(container_of(n, struct job, node));
}

/* ---- requests ---- */

static bool has_items(const struct kad_msg *m)
{
    for (size_t i = 0; i < m->n_items; i++) {
        if (m->items[i].item == NULL)
            return false;
    }
    return m->method == KAD_PUT_BATCH || m->n_items == 1;
}

static bool is_put(enum kad_method method)
{
    return method == KAD_PUT_VALUE || method == KAD_PUT_BATCH;
}

/* What may be asked by those who are given no values: a GET_VALUE tells them who is close. */
static bool is_for_all(enum kad_method method)
{
    return method == KAD_PING || method == KAD_FIND_NODE || method == KAD_GET_VALUE ||
           is_put(method);
}

/* A peer of another network learns only that we belong to another one, and that only if it can know
 * what a network is: JSON-only peers would take us for one of theirs. */
static int serve_stranger(struct kad *k, kad_peer from, const struct kad_msg *req, uint64_t token)
{
    struct kad_msg rsp;

    k->stat->refused_network++;
    if (req->method != KAD_PING || (req->offer == 0 && req->network == 0))
        return ERR_NETWORK;
    kad_msg_init(&rsp, KAD_PING, true);
    rsp.sender = k->self;
    reply(k, from, token, &rsp);
    return 0;
}

/* Answer at once, or start a job. 0, or why the stream is to be closed. */
static int serve(struct kad *k, kad_peer from, struct kad_msg *req, uint64_t token)
{
    struct kad_msg rsp;
    size_t cost = 0;
    int rc = 0;

    if (!is_for_all(req->method) && !kad_is_reader(k, from)) {
        k->stat->refused_reader++;
        return ERR_REFUSED;
    }
    kad_msg_init(&rsp, req->method, true);
    switch (req->method) {
    case KAD_PING:
        rsp.sender = k->self;
        rsp.full = k->full;
        if (req->full)
            kad_full_said(k, from);
        break;
    case KAD_FIND_NODE:
        rc = add_closest(k, &req->target, &rsp);
        break;
    case KAD_GET_VALUE:
        if (!kad_is_exempt(k, from) && !kad_note_may_read(k, from))
            return ERR_LIMIT;
        rc = add_closest(k, &req->target, &rsp);
        if (rc == 0 && kad_is_reader(k, from))
            rc = add_value(k, &req->target, &rsp);
        else
            k->stat->refused_reader += rc == 0;
        break;
    case KAD_PUT_VALUE:
    case KAD_PUT_BATCH:
        if (!has_items(req))
            return ERR_FORMAT;
        return begin_job(k, from, req, token) ? 0 : ERR_BUSY;
    case KAD_GET_ITEMS:
        if (!kad_is_exempt(k, from) && !kad_note_may_read(k, from))
            return ERR_LIMIT;
        fill_page(k, req, &rsp);
        break;
    case KAD_GET_BATCH:
        if (!kad_is_exempt(k, from) && !kad_note_may_read(k, from))
            return ERR_LIMIT;
        rc = add_values(k, from, req, &rsp);
        break;
    case KAD_WATCH:
        rc = kad_watched_request(k, from, req, &rsp);
        break;
    case KAD_RECONCILE:
        if (!kad_is_exempt(k, from) && !kad_note_may_read(k, from))
            return ERR_LIMIT;
        rc = kad_ranges_serve(k, req, &rsp, &cost);
        break;
    default:
        return ERR_UNSUPPORTED;
    }
    if (cost > 0 && !kad_is_exempt(k, from))
        kad_note_bytes(k, from, cost);
    if (rc != 0)
        kad_msg_clear(&rsp);
    else
        reply(k, from, token, &rsp);
    return rc;
}

void kad_request(struct kad *k, kad_peer from, struct kad_msg *req, uint64_t token, uint64_t now_ns)
{
    kad_enter(k, now_ns);
    k->stat->requests[req->method < KAD_METHOD__END ? req->method : 0]++;
    if (req->network != k->network) {
        int rc = serve_stranger(k, from, req, token);
        if (rc != 0)
            refuse(k, from, token, rc);
        kad_msg_clear(req);
        kad_leave(k);
        return;
    }
    /* Whoever calls over an authenticated stream exists; the body's sender is not looked at
     * (incident 61). One that says it serves nobody would be a dead contact in a moment. */
    if (!req->read_only)
        kad_peer_heard(k, from, false, req->method != KAD_PING);
    else
        kad_peer_left(k, from);
    bool shunned = is_put(req->method) && kad_note_is_shunned(k, from);
    k->stat->refused_shunned += shunned;
    bool may = kad_is_exempt(k, from) || (!shunned && kad_note_request(k, from));
    int rc = may ? serve(k, from, req, token) : shunned ? ERR_REFUSED : ERR_LIMIT;
    if (rc != 0)
        refuse(k, from, token, rc);
    kad_msg_clear(req);
    kad_leave(k);
}
