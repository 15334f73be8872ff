/*
 * A look-up keeps its candidates sorted by distance and walks towards the target:
 *
 *     NEW -> ASKED -> ANSWERED
 *              |  \-> FAILED          (time-out, unreachable, closed, no memory)
 *              v
 *            SILENT                   overtaken: still welcome, the next one is asked in its stead
 *
 * A candidate is overtaken after hedge_ms, or sooner when the answers of this look-up come quickly. A
 * silent one does not count as live once its patience is over: three times what the slowest answer
 * of this look-up took, at least hedge_ms. While nobody has answered at all, the network may
 * be slow as a whole and only the time-out of the call ends the waiting.
 *
 * Keys are free, so somebody may have made k of them around a target (incident 64), and hide what is there. So
 * what is published goes to a few nodes more that are not chosen by distance alone and cannot be crowded out: full
 * nodes, and the bootstrap nodes closest to the target. They are asked, with the owner of the slot, where the k
 * closest gave nothing, or only a few of them the best item, or are denser than a network of this size explains: then what they gave may be old.
 *
 * Of the alpha closest new candidates those come first that are behind other relays than those under way.
 * Candidates behind relays that seem to be down (group.c) are passed over, until nobody else gave anything.
 */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "kademlia/engine.h"

#define MAX_LIVE 128 /* candidates that have not failed */
#define MAX_ALL  256 /* with the failed ones, which are kept so as not to be asked again */
#define RARE     4   /* a copy at fewer than one in four of the k closest is suspicious */
#define DENSER   3   /* times the expected density is suspicious */

enum state { NEW, ASKED, SILENT, ANSWERED, FAILED };

struct kad_cand {
    kad_peer peer; /* a reference */
    uint8_t state;
    uint8_t hop;  /* 1 = from our own table */
    bool anchor;  /* asked whatever its distance */
    bool blamed;  /* its silence was held against its relays */
    uint64_t far; /* first bits of its distance */
    uint64_t asked_ns;
};

struct answer_check { /* verification of an item in an answer */
    struct list_node node;
    struct kad_lookup *lk;
    struct kad_check check;
    kad_peer from; /* a reference */
    unsigned hop;
    unsigned others; /* that gave the same meanwhile */
};

static void step(struct kad_lookup *lk);

static struct kad *engine(const struct kad_lookup *lk)
{
    return lk->op->k;
}

/* ---- candidates ---- */

static const struct kad_id *cand_id(const struct kad_lookup *lk, size_t i)
{
    const struct kad *k = engine(lk);

    return k->peers.id(k->peers.arg, lk->cands[i].peer);
}

/* Is a candidate closer than this one that is so far: <0, 0 (the same), >0. The first bits nearly
 * always tell. */
static int compare(const struct kad_lookup *lk, size_t i, const struct kad_id *id, uint64_t far)
{
    if (lk->cands[i].far != far)
        return lk->cands[i].far < far ? -1 : 1;
    return kad_id_closer(&lk->target, cand_id(lk, i), id);
}

/* Where an ID stands or would stand in the order of distance. */
static size_t position(const struct kad_lookup *lk, const struct kad_id *id, uint64_t far,
                       bool *found)
{
    size_t lo = 0, hi = lk->n;

    *found = false;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int c = compare(lk, mid, id, far);
        if (c == 0) {
            *found = true;
            return mid;
        }
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static size_t count_live(const struct kad_lookup *lk)
{
    size_t n = 0;

    for (size_t i = 0; i < lk->n; i++)
        n += lk->cands[i].state != FAILED;
    return n;
}

static void remove_cand(struct kad_lookup *lk, size_t i)
{
    kad_unref(engine(lk), lk->cands[i].peer);
    memmove(&lk->cands[i], &lk->cands[i + 1], (lk->n - i - 1) * sizeof lk->cands[0]);
    lk->n--;
}

/* Drop the farthest candidate that was not asked yet and stands at this position or behind it. */
static bool drop_farthest(struct kad_lookup *lk, size_t at)
{
    size_t last = lk->n;

    while (last > at && lk->cands[last - 1].state != NEW)
        last--;
    if (last <= at)
        return false;
    remove_cand(lk, last - 1);
    return true;
}

static bool is_crammed(const struct kad_lookup *lk)
{
    return lk->n >= MAX_ALL || count_live(lk) >= MAX_LIVE;
}

/* Room for one candidate at that position, at the cost of a farther one. */
static bool make_room(struct kad_lookup *lk, size_t at)
{
    if (is_crammed(lk) && !drop_farthest(lk, at))
        return false;
    if (lk->n < lk->cap)
        return true;
    size_t cap = lk->cap > 0 ? 2 * lk->cap : 32;
    struct kad_cand *v = realloc(lk->cands, cap * sizeof *v);
    if (v == NULL)
        return false;
    lk->cands = v;
    lk->cap = cap;
    return true;
}

/* A peer that may know more. Takes over the reference. */
static struct kad_cand *add(struct kad_lookup *lk, kad_peer p, const struct kad_id *id,
                            unsigned hop)
{
    struct kad *k = engine(lk);
    uint64_t far = kad_id_distance64(&lk->target, id);
    bool found;
    size_t at = position(lk, id, far, &found);

    if (found || kad_note_is_no_dht(k, p) || kad_note_is_shunned(k, p) || !make_room(lk, at)) {
        kad_unref(k, p);
        return NULL;
    }
    memmove(&lk->cands[at + 1], &lk->cands[at], (lk->n - at) * sizeof lk->cands[0]);
    lk->cands[at] = (struct kad_cand){
        .peer = p, .state = NEW, .hop = (uint8_t)(hop < 255 ? hop : 255), .far = far};
    lk->n++;
    return &lk->cands[at];
}

/* Contacts of an answer; an honest one has at most k. The table of peers knows the ID of a key it
 * holds, which is cheaper than hashing the key again. */
static void add_contacts(struct kad_lookup *lk, const struct kad_msg *rsp, kad_peer from,
                         unsigned hop)
{
    struct kad *k = engine(lk);
    size_t n = rsp->n_closest < k->lim.k ? rsp->n_closest : k->lim.k;

    if (rsp->bad_contacts > 0 || rsp->n_closest > KAD_K)
        kad_note_lie(k, from, KAD_LIE_CONTACTS);
    for (size_t i = 0; i < n; i++) {
        kad_peer p = kad_intern(k, &rsp->closest[i]);
        if (p == KAD_PEER_NONE)
            continue;
        if ((rsp->native >> i & 1) != 0 && k->peers.hint != NULL)
            k->peers.hint(k->peers.arg, p, KAD_DIALECT_HINTED);
        add(lk, p, k->peers.id(k->peers.arg, p), hop);
    }
}

/* Start from the routing table; with hardly anybody in it, from the bootstrap keys too. */
static void add_first(struct kad_lookup *lk)
{
    struct kad *k = engine(lk);
    kad_peer peers[TABLE_MAX_K];
    size_t n = table_closest(&k->table, &lk->target, peers, k->lim.k);

    for (size_t i = 0; i < n; i++) {
        k->peers.ref(k->peers.arg, peers[i]);
        add(lk, peers[i], k->peers.id(k->peers.arg, peers[i]), 1);
    }
    for (size_t i = 0; n < k->lim.alpha && i < k->bootstrap.n && i < k->lim.k; i++) {
        kad_peer p = kad_intern(k, &k->bootstrap.v[i]);
        if (p != KAD_PEER_NONE)
            add(lk, p, k->peers.id(k->peers.arg, p), 1);
    }
}

/* ---- items in answers ---- */

bool kad_found_better(const struct kad_found *a, const struct kad_found *b)
{
    if (b->item == NULL || a->kind != b->kind)
        return b->item == NULL || a->kind < b->kind;
    if (a->kind != ITEM_CERT)
        return a->item->item.seq > b->item->item.seq;
    return a->rank_time != b->rank_time ? a->rank_time > b->rank_time : a->rank_seq > b->rank_seq;
}

static struct kad_found found_of(const struct kad_check *c, unsigned hop)
{
    return (struct kad_found){.item = c->item,
                              .kind = c->cls.kind,
                              .rank_time = c->cls.rank_time,
                              .rank_seq = c->cls.rank_seq,
                              .hop = hop};
}

static void reject(struct kad_lookup *lk)
{
    lk->op->rep.rejected_items++;
    engine(lk)->stat->rejected_answers++;
}

static void keep_bad(struct kad_lookup *lk, struct item_ref *item)
{
    reject(lk);
    if (lk->n_bad < KAD_LOOKUP_BAD)
        lk->bad[lk->n_bad++] = item_ref_get(item);
}

static void keep_good(struct kad_lookup *lk, const struct answer_check *ac)
{
    struct kad_found f = found_of(&ac->check, ac->hop);

    if (!kad_found_better(&f, &lk->best)) {
        lk->agree += kad_found_better(&lk->best, &f) ? 0 : 1 + ac->others;
        return;
    }
    lk->agree = 1 + ac->others;
    item_ref_put(lk->best.item);
    lk->best = f;
    item_ref_get(f.item);
}

static void free_check(struct answer_check *ac)
{
    list_remove(&ac->node);
    kad_unref(engine(ac->lk), ac->from);
    kad_check_clear(&ac->check);
    free(ac);
}

/* ERR_BUSY is no verdict: the queue of signature checks was full. */
static void judged(struct answer_check *ac, int err)
{
    if (err == 0)
        keep_good(ac->lk, ac);
    else if (err == ERR_SIG) {
        keep_bad(ac->lk, ac->check.item);
        kad_note_lie(engine(ac->lk), ac->from, KAD_LIE_SIGNATURE);
    }
    free_check(ac);
}

static void verified(struct kad_check *c, int err)
{
    struct answer_check *ac = container_of(c, struct answer_check, check);
    struct kad_lookup *lk = ac->lk;

    judged(ac, err);
    step(lk);
}

/* Is the verdict about this item known already, or on its way? */
static bool is_known(struct kad_lookup *lk, const struct item *it, kad_peer from)
{
    struct list_node *n, *tmp;

    for (unsigned i = 0; i < lk->n_bad; i++) {
        if (item_equal(&lk->bad[i]->item, it)) {
            reject(lk);
            kad_note_lie(engine(lk), from, KAD_LIE_SIGNATURE);
            return true;
        }
    }
    list_for_each(n, tmp, &lk->checks)
    {
        struct answer_check *ac = container_of(n, struct answer_check, node);
        if (!item_equal(&ac->check.item->item, it))
            continue;
        ac->others++;
        return true;
    }
    return false;
}

/* The local copy was verified when it was stored. */
static bool is_stored(struct kad_lookup *lk, const struct kad_check *c)
{
    struct kad *k = engine(lk);
    struct store_rec r;

    return k->store->ops->get(k->store, &lk->target, c->cls.kind, &r) == 0 &&
           item_equal(&r.item, &c->item->item);
}

/* An item counts when it fits the question; it is verified unless it could not win anyway. */
static void take_item(struct kad_lookup *lk, struct item_ref *item, kad_peer from, unsigned hop)
{
    struct kad *k = engine(lk);
    struct answer_check *ac;

    if (kad_own_is_behind(k, &item->item, from))
        kad_note_lie(k, from, KAD_LIE_STALE);
    if (item_check_size(&item->item) != 0 || is_known(lk, &item->item, from))
        return;
    ac = calloc(1, sizeof *ac);
    if (ac == NULL)
        return;
    ac->lk = lk;
    ac->hop = hop;
    ac->from = from;
    k->peers.ref(k->peers.arg, from);
    ac->check.k = k;
    ac->check.item = item_ref_get(item);
    ac->check.done = verified;
    list_push_back(&lk->checks, &ac->node);
    if (kad_classify(k, &item->item, &lk->target, &ac->check.cls) != 0) {
        reject(lk);
        kad_note_lie(k, from, KAD_LIE_TARGET);
        free_check(ac);
        return;
    }
    struct kad_found f = found_of(&ac->check, hop);
    if (!kad_found_better(&f, &lk->best) || is_stored(lk, &ac->check)) {
        k->stat->verify_skipped++;
        judged(ac, 0);
        return;
    }
    int rc = kad_check_begin(&ac->check);
    if (rc != ERR_PENDING)
        judged(ac, rc);
}

/* ---- asking ---- */

static struct kad_cand *cand_of(struct kad_lookup *lk, kad_peer p)
{
    for (size_t i = 0; i < lk->n; i++) {
        if (lk->cands[i].peer == p)
            return &lk->cands[i];
    }
    return NULL;
}

static void answered(struct kad_call *call, struct kad_msg *rsp, enum kad_fail why)
{
    struct kad_lookup *lk = &call->op->lk;
    struct kad_report *rep = &lk->op->rep;
    struct kad_cand *c = cand_of(lk, call->peer);

    (void)why;
    if (c == NULL || !lk->running)
        return;
    if (c->state == ASKED)
        lk->in_flight--;
    c->state = rsp != NULL ? ANSWERED : FAILED;
    if (rsp == NULL) {
        rep->failed++;
        step(lk);
        return;
    }
    unsigned hop = c->hop;
    uint64_t took = engine(lk)->now_ns - c->asked_ns;
    if (took > lk->slowest_ns)
        lk->slowest_ns = took;
    rep->answered++;
    rep->bytes += rsp->wire_bytes;
    if (hop > rep->hops)
        rep->hops = hop;
    add_contacts(lk, rsp, call->peer, hop + 1); /* moves candidates: c is not valid any more */
    if (lk->value && rsp->n_items > 0 && rsp->items[0].item != NULL)
        take_item(lk, rsp->items[0].item, call->peer, hop);
    step(lk);
}

/* Do the relays that lead there seem to be down? */
static bool is_suspect(const struct kad_lookup *lk, const struct kad_cand *c)
{
    return !lk->desperate && kad_group_is_suspect(engine(lk), c->peer);
}

static void ask(struct kad_lookup *lk, struct kad_cand *c)
{
    struct kad *k = engine(lk);
    struct kad_msg m;

    kad_msg_init(&m, lk->value ? KAD_GET_VALUE : KAD_FIND_NODE, false);
    m.target = lk->target;
    lk->op->rep.asked++;
    c->asked_ns = k->now_ns;
    if (kad_call_start(k, lk->op, c->peer, &m, answered) == NULL) {
        c->state = FAILED;
        lk->op->rep.failed++;
        return;
    }
    c->state = ASKED;
    lk->in_flight++;
    if (is_suspect(lk, c))
        kad_group_probed(k, c->peer);
    k->stat->lookup_messages++;
}

/* ---- the walk ---- */

/* How long one is waited for before the next one is asked. */
static uint64_t hedge_ns(const struct kad_lookup *lk)
{
    uint64_t most = kad_ms(engine(lk)->lim.hedge_ms), quick = 3 * lk->slowest_ns;

    if (lk->op->rep.answered == 0 || quick > most)
        return most;
    return quick > most / 5 ? quick : most / 5;
}

static uint64_t patience_ns(const struct kad_lookup *lk)
{
    uint64_t hedge = kad_ms(engine(lk)->lim.hedge_ms);

    if (lk->op->rep.answered == 0)
        return LOOP_NEVER;
    return lk->slowest_ns > hedge / 3 ? 3 * lk->slowest_ns : hedge;
}

/* Asked, and silent for longer than anybody waits, or behind relays that are down. */
static bool is_given_up(const struct kad_lookup *lk, const struct kad_cand *c)
{
    return c->state == SILENT &&
           (engine(lk)->now_ns - c->asked_ns >= patience_ns(lk) || is_suspect(lk, c));
}

/* Must this one still be asked or waited for? */
static bool is_open(const struct kad_lookup *lk, const struct kad_cand *c)
{
    return c->state == NEW || c->state == ASKED || (c->state == SILENT && !is_given_up(lk, c));
}

/* Is one under way that is behind the same relays? */
static bool shares_relays(const struct kad_lookup *lk, const struct kad_cand *c)
{
    const struct kad *k = engine(lk);
    uint32_t group = kad_group_of(k, c->peer);

    for (size_t i = 0; group != KAD_GROUP_NONE && i < lk->n; i++) {
        if (lk->cands[i].state == ASKED && kad_group_of(k, lk->cands[i].peer) == group)
            return true;
    }
    return false;
}

/* The candidate to ask, among the k closest that live and the anchors: of the alpha closest new ones the
 * first that is behind other relays than those under way, else the closest. *done: all of them have
 * answered. Those behind relays that are down are passed over, but for one now and then. */
static struct kad_cand *next_cand(const struct kad_lookup *lk, bool *done)
{
    struct kad *k = engine(lk);
    struct kad_cand *first = NULL;
    unsigned live = 0, fresh = 0;

    *done = true;
    for (size_t i = 0; i < lk->n && (live < k->lim.k || lk->anchored || lk->wide); i++) {
        struct kad_cand *c = &lk->cands[i];
        if (live >= k->lim.k && !c->anchor)
            continue;
        if (c->state == NEW && is_suspect(lk, c) && !kad_group_may_probe(k, c->peer))
            continue;
        if (is_open(lk, c))
            *done = false;
        if (c->state == NEW && (k->peers.group == NULL || !shares_relays(lk, c)))
            return c;
        if (c->state == NEW && first == NULL)
            first = c;
        if (c->state == NEW && ++fresh >= k->lim.alpha)
            break;
        /* A silent one is overtaken: it counts for the end of the walk only. */
        live += c->state != SILENT && c->state != FAILED;
    }
    return first;
}

/* Are the k closest more crowded than a network of this size can be? */
static bool is_crowded(const struct kad_lookup *lk)
{
    struct kad *k = engine(lk);
    kad_peer peers[TABLE_MAX_K];
    uint64_t size = kad_network_size(k);
    size_t n = kad_lookup_closest(lk, peers, k->lim.k);

    if (size <= k->lim.k || n == 0 || n < k->lim.k)
        return false; /* everybody was asked */
    const struct kad_id *farthest = k->peers.id(k->peers.arg, peers[n - 1]);
    return kad_id_distance64(&lk->target, farthest) < UINT64_MAX / size * k->lim.k / DENSER;
}

/* One more to ask, whatever its distance. Takes over the reference. */
static bool add_anchor(struct kad_lookup *lk, kad_peer p)
{
    struct kad *k = engine(lk);

    if (p == KAD_PEER_NONE)
        return false;
    if (is_crammed(lk))
        (void)drop_farthest(lk, 0); /* a crowd of made-up keys must not leave it without a place */
    struct kad_cand *c = add(lk, p, k->peers.id(k->peers.arg, p), 1);
    if (c == NULL) /* met on the way, then */
        c = cand_of(lk, p);
    if (c == NULL || c->state == FAILED)
        return false;
    c->anchor = true;
    return true;
}

/* A bootstrap key, any. */
static void add_bootstrap(struct kad_lookup *lk)
{
    struct kad *k = engine(lk);
    size_t n = k->bootstrap.n, first = n > 0 ? env_random_below(k->env, n) : 0;

    for (size_t i = 0; i < n; i++) {
        if (add_anchor(lk, kad_intern(k, &k->bootstrap.v[(first + i) % n])))
            return;
    }
}

/* The bootstrap keys closest to the target, so that whoever puts and whoever gets choose the same ones, and
 * no single one is asked by all. */
static size_t closest_bootstrap(const struct kad_lookup *lk, const struct pubkey **keys, size_t max)
{
    const struct kad *k = engine(lk);
    struct kad_id best[KAD_LOOKUP_ANCHORS];
    size_t n = 0;

    for (size_t i = 0; i < k->bootstrap.n; i++) {
        struct kad_id id = kad_id_of(&k->bootstrap.v[i]);
        size_t at = n;
        while (at > 0 && kad_id_closer(&lk->target, &id, &best[at - 1]) < 0)
            at--;
        if (at == max)
            continue;
        n += n < max;
        memmove(&best[at + 1], &best[at], (n - at - 1) * sizeof best[0]);
        memmove(&keys[at + 1], &keys[at], (n - at - 1) * sizeof(keys[0]));
        best[at] = id;
        keys[at] = &k->bootstrap.v[i];
    }
    return n;
}

/* Full nodes, as far as any are known, then bootstrap nodes; and the owner of the slot. False when there is
 * none. */
static bool add_anchors(struct kad_lookup *lk)
{
    struct kad *k = engine(lk);
    kad_peer fulls[KAD_PUT_FULLS];
    const struct pubkey *keys[KAD_LOOKUP_ANCHORS];
    /* What is put is sent to full nodes without asking them. */
    size_t n_fulls = kad_fulls_add(k, &lk->target, fulls, 0), n;
    unsigned added = 0;

    lk->anchored = true;
    for (size_t i = 0; i < n_fulls && !lk->publishes; i++) {
        k->peers.ref(k->peers.arg, fulls[i]);
        added += add_anchor(lk, fulls[i]);
    }
    n = closest_bootstrap(lk, keys, KAD_LOOKUP_ANCHORS - 1 - n_fulls);
    for (size_t i = 0; i < n; i++)
        added += add_anchor(lk, kad_intern(k, keys[i]));
    if (!pubkey_is_null(&lk->owner))
        added += add_anchor(lk, kad_intern(k, &lk->owner));
    return added > 0;
}

/* Did hardly any of the k closest give the best item? Most of them hold it, unless they are not those that
 * it was put to. */
static bool is_rare(const struct kad_lookup *lk)
{
    unsigned k = engine(lk)->lim.k, answered = lk->op->rep.answered;

    return lk->agree * RARE < (answered < k ? answered : k);
}

/* Are the k closest not to be relied on alone? */
static bool needs_anchors(const struct kad_lookup *lk)
{
    return lk->op->rep.answered == 0 || (lk->value && list_empty(&lk->checks) && is_rare(lk)) ||
           is_crowded(lk);
}

/* Was anybody passed over who could have what nobody else gave? */
static bool needs_suspects(const struct kad_lookup *lk)
{
    if (lk->desperate || engine(lk)->groups_suspect == 0)
        return false;
    return lk->op->rep.answered == 0 || (lk->value && lk->best.item == NULL);
}

void kad_lookup_end(struct kad_lookup *lk, enum kad_end why)
{
    struct kad *k = engine(lk);

    lk->running = false;
    loop_timer_cancel(&k->loop, &lk->hedge);
    k->stat->lookups++;
    k->stat->lookup_hops += lk->op->rep.hops;
    for (size_t i = 0; k->groups_suspect > 0 && i < lk->n; i++)
        k->stat->passed_over += lk->cands[i].state == NEW && is_suspect(lk, &lk->cands[i]);
    lk->ended(lk, why); /* may free everything */
}

/* When the next candidate becomes silent, or a silent one is given up. */
static void arm_hedge(struct kad_lookup *lk)
{
    struct kad *k = engine(lk);
    uint64_t at = LOOP_NEVER, patience = patience_ns(lk);

    for (size_t i = 0; i < lk->n; i++) {
        const struct kad_cand *c = &lk->cands[i];
        uint64_t due = LOOP_NEVER;
        if (c->state == ASKED)
            due = c->asked_ns + hedge_ns(lk);
        else if (c->state == SILENT && patience != LOOP_NEVER && !is_given_up(lk, c))
            due = c->asked_ns + patience;
        if (due < at)
            at = due;
    }
    if (at == LOOP_NEVER)
        loop_timer_cancel(&k->loop, &lk->hedge);
    else
        loop_timer_set(&k->loop, &lk->hedge, at);
}

static bool is_found(const struct kad_lookup *lk)
{
    return lk->first && lk->best.item != NULL && lk->best.kind == ITEM_OWNER;
}

static void ask_more(struct kad_lookup *lk, bool *done)
{
    for (struct kad_cand *c; (c = next_cand(lk, done)) != NULL;) {
        if (lk->in_flight >= engine(lk)->lim.alpha)
            break;
        ask(lk, c);
    }
}

/* Ask on, or end. The last thing that any event does: the look-up may be gone afterwards. */
static void step(struct kad_lookup *lk)
{
    bool done = false;

    if (!lk->running)
        return;
    if (is_found(lk)) {
        kad_lookup_end(lk, KAD_END_FOUND);
        return;
    }
    ask_more(lk, &done);
    if (done && !lk->anchored && needs_anchors(lk) && add_anchors(lk))
        ask_more(lk, &done);
    if (done && needs_suspects(lk)) {
        lk->desperate = true;
        ask_more(lk, &done);
    }
    if (done && list_empty(&lk->checks))
        kad_lookup_end(lk, KAD_END_CLOSEST);
    else
        arm_hedge(lk);
}

static void hedge_due(struct loop_timer *t)
{
    struct kad_lookup *lk = container_of(t, struct kad_lookup, hedge);
    struct kad *k = engine(lk);

    for (size_t i = 0; i < lk->n; i++) {
        struct kad_cand *c = &lk->cands[i];
        if (c->state == ASKED && k->now_ns - c->asked_ns >= hedge_ns(lk)) {
            c->state = SILENT;
            lk->in_flight--;
        }
        if (c->state == SILENT && !c->blamed && k->now_ns - c->asked_ns >= patience_ns(lk)) {
            c->blamed = true;
            kad_group_failed(k, c->peer, c->asked_ns);
        }
    }
    step(lk);
}

void kad_lookup_begin(struct kad_lookup *lk)
{
    struct kad *k = engine(lk);

    list_init(&lk->checks);
    lk->hedge.fn = hedge_due;
    lk->running = true;
    table_looked_up(&k->table, &lk->target, k->now_ns);
    add_first(lk);
    if (lk->wide)
        add_bootstrap(lk);
    if (lk->n > 0 && lk->publishes)
        (void)add_anchors(lk);
    if (lk->n == 0)
        kad_lookup_end(lk, KAD_END_NO_PEERS);
    else
        step(lk);
}

void kad_lookup_clear(struct kad_lookup *lk)
{
    struct list_node *n, *tmp;

    lk->running = false;
    loop_timer_cancel(&engine(lk)->loop, &lk->hedge);
    if (lk->checks.head.next != NULL) {
        list_for_each(n, tmp, &lk->checks)
        {
            free_check(container_of(n, struct answer_check, node));
        }
    }
    while (lk->n > 0)
        kad_unref(engine(lk), lk->cands[--lk->n].peer);
    free(lk->cands);
    lk->cands = NULL;
    lk->cap = 0;
    while (lk->n_bad > 0)
        item_ref_put(lk->bad[--lk->n_bad]);
    item_ref_put(lk->best.item);
    lk->best.item = NULL;
}

void kad_lookup_steps(const struct kad_lookup *lk, struct kad_report *rep)
{
    rep->steps = calloc(lk->n + 1, sizeof *rep->steps);
    for (size_t i = 0; rep->steps != NULL && i < lk->n; i++) {
        const struct kad_cand *c = &lk->cands[i];
        if (c->state == NEW)
            continue;
        rep->steps[rep->n_steps++] = (struct kad_step){
            .pk = *kad_pk(engine(lk), c->peer),
            .hop = c->hop,
            .how = c->state == ANSWERED ? KAD_STEP_ANSWERED
                   : c->state == FAILED ? KAD_STEP_FAILED
                                        : KAD_STEP_SILENT,
            .asked_ns = c->asked_ns,
        };
    }
}

size_t kad_lookup_closest(const struct kad_lookup *lk, kad_peer *out, size_t n)
{
    size_t found = 0;

    for (size_t i = 0; i < lk->n && found < n; i++) {
        if (lk->cands[i].state == ANSWERED)
            out[found++] = lk->cands[i].peer;
    }
    return found;
}

size_t kad_lookup_anchors(const struct kad_lookup *lk, size_t n, kad_peer out[KAD_LOOKUP_ANCHORS])
{
    size_t found = 0, closer = 0;

    for (size_t i = 0; i < lk->n && found < KAD_LOOKUP_ANCHORS; i++) {
        const struct kad_cand *c = &lk->cands[i];
        if (c->state == ANSWERED && c->anchor && closer >= n)
            out[found++] = c->peer;
        closer += c->state == ANSWERED;
    }
    return found;
}
