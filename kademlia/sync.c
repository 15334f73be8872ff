/*
 * Sync with one full node (docs/protocol/dht.md §5.3):
 *
 *     PULL   pages of GET_ITEMS, each item let in before the next page is asked for
 *     PUSH   what we hold and the peer did not list, in PUT_BATCH; an old peer closes the stream,
 *            then one by one in PUT_VALUE
 *
 * What a peer says it stored is not believed: the next sync sees in its listing what it lacks, and
 * sends that again.
 *
 * Pages too long for a frame are asked for again with a tenth of the limit, 1000 -> 100 -> 10 -> 1
 * (§3.4 "size traps"). The cursor moves on only over sorted pages. The first builds gave pages in no
 * order (§2.6): those are asked for again with the largest limit, and where even that does not hold
 * everything, salt by salt; what is still missed then comes with a later sync.
 */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "kademlia/codec_json.h"
#include "kademlia/engine.h"

#define RETRY_NS    (5 * NS_PER_S) /* a peer that closes the stream may have a rate limit */
#define RETRIES     4
#define SLICE       4096 /* own records looked at in one go */
#define BATCH_ITEMS 1000

static const char *const known_salts[] = {"dmsg",     "tp",         "svc",        "dmsg-server",
                                          "fullnode", "addr:stcpr", "addr:sudph", "tp:1",
                                          "tp:2",     "tp:3"};
#define N_SALTS (sizeof known_salts / sizeof known_salts[0])

struct sync {
    struct kad_op *op;
    kad_peer peer; /* a reference */
    struct loop_timer pause;
    void (*resume)(struct sync *s);
    unsigned retries;

    /* pull */
    uint64_t since;
    int64_t limit;
    bool large_failed; /* a page with the largest limit is too long */
    bool by_salt;      /* the peer does not sort: salt by salt */
    size_t salt;
    char *only;           /* one namespace, and no push: kad_pull() */
    struct kad_intake in; /* of a page */
    uint64_t *seen;       /* hashes of the slots that the peer listed; sorted before pushing */
    size_t n_seen, cap_seen;

    /* push */
    struct kad_ranges *ranges; /* instead, at first */
    bool one_by_one, any_batch, scanned_all;
    struct kad_id after;
    struct kad_msg batch; /* being sent */
};

static struct sync *of(struct kad_op *op)
{
    return op->extra;
}

static void clear(struct kad_op *op)
{
    struct sync *s = of(op);

    loop_timer_cancel(&op->k->loop, &s->pause);
    kad_ranges_free(s->ranges);
    kad_intake_clear(&s->in);
    kad_msg_clear(&s->batch);
    kad_unref(op->k, s->peer);
    free(s->seen);
    free(s->only);
    free(s);
}

static void paused(struct loop_timer *t)
{
    struct sync *s = container_of(t, struct sync, pause);

    s->resume(s);
}

static void pause_for(struct sync *s, uint64_t ns, void (*resume)(struct sync *))
{
    s->resume = resume;
    loop_timer_set(&s->op->k->loop, &s->pause, kad_after(s->op->k, ns));
}

static void finish(struct sync *s, int err)
{
    struct kad_stat *st = s->op->k->stat;

    st->sync_pulled += s->op->rep.pulled;
    st->sync_pushed += s->op->rep.pushed;
    st->sync_bytes += s->op->rep.bytes;
    kad_op_finish(s->op, err, err == 0 ? KAD_END_CLOSEST : KAD_END_TIMEOUT);
}

/* The peer closed the stream: perhaps we asked too much. */
static bool retry(struct sync *s, enum kad_fail why, void (*again)(struct sync *))
{
    if (why != KAD_FAIL_CLOSED || s->retries == 0)
        return false;
    s->retries--;
    pause_for(s, RETRY_NS, again);
    return true;
}

/* ---- slots that the peer has ---- */

static uint64_t slot_hash(const struct sync *s, const struct kad_id *target)
{
    return crypto_siphash(s->op->k->env->hash_key, target->b, sizeof target->b);
}

static bool note_seen(struct sync *s, const struct kad_id *target)
{
    if (s->n_seen == s->cap_seen) {
        size_t cap = s->cap_seen > 0 ? 2 * s->cap_seen : 256;
        uint64_t *seen = realloc(s->seen, cap * sizeof *seen);
        if (seen == NULL)
            return false;
        s->seen = seen;
        s->cap_seen = cap;
    }
    s->seen[s->n_seen++] = slot_hash(s, target);
    return true;
}

static int compare_hashes(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static bool was_seen(const struct sync *s, const struct kad_id *target)
{
    uint64_t h = slot_hash(s, target);

    return s->n_seen > 0 && bsearch(&h, s->seen, s->n_seen, sizeof h, compare_hashes) != NULL;
}

/* ---- push ---- */

static void push(struct sync *s);

struct gather {
    struct sync *s;
    struct kad_filler f;
    size_t visited;
    bool stopped;
};

static bool gather_one(void *arg, const struct store_rec *r)
{
    struct gather *g = arg;
    struct sync *s = g->s;

    if (++g->visited > SLICE || g->f.m->n_items >= BATCH_ITEMS) {
        g->stopped = true;
        return false;
    }
    if (!was_seen(s, &r->target) && !kad_fill(&g->f, r)) {
        g->stopped = true;
        return false;
    }
    s->after = r->target;
    return true;
}

/* An item in its own slot goes without a target: then the peer checks quota and seq and says what
 * came of it. */
static void drop_own_targets(struct kad_msg *m)
{
    for (size_t i = 0; i < m->n_items; i++) {
        struct kad_id own = item_target(&m->items[i].item->item);
        m->items[i].has_target = !kad_id_equal(&own, &m->items[i].target);
    }
}

static void batch_sent(struct kad_call *c, struct kad_msg *rsp, enum kad_fail why)
{
    struct sync *s = of(c->op);

    if (rsp == NULL && !s->any_batch && why == KAD_FAIL_CLOSED && s->batch.n_items > 0) {
        s->one_by_one = true; /* no such method */
    } else if (rsp == NULL) {
        if (!retry(s, why, push))
            finish(s, kad_fail_err(why));
        return;
    } else {
        s->any_batch = true;
        for (size_t i = 0; i < rsp->n_items; i++)
            s->op->rep.pushed += rsp->items[i].result == 0;
        kad_msg_clear(&s->batch);
    }
    push(s);
}

static void one_sent(struct kad_call *c, struct kad_msg *rsp, enum kad_fail why)
{
    struct sync *s = of(c->op);

    if (rsp == NULL) {
        if (!retry(s, why, push))
            finish(s, kad_fail_err(why));
        return;
    }
    s->op->rep.pushed += rsp->stored;
    item_ref_put(s->batch.items[--s->batch.n_items].item);
    push(s);
}

/* A copy of the batch, or of its last item alone. */
static bool copy_batch(const struct sync *s, struct kad_msg *out)
{
    size_t i = s->one_by_one ? s->batch.n_items - 1 : 0;

    kad_msg_init(out, s->one_by_one ? KAD_PUT_VALUE : KAD_PUT_BATCH, false);
    for (; i < s->batch.n_items; i++) {
        const struct kad_msg_item *mi = &s->batch.items[i];
        if (kad_msg_add_item(out, mi->item, mi->has_target ? &mi->target : NULL) != 0) {
            kad_msg_clear(out);
            return false;
        }
    }
    return true;
}

static void send_batch(struct sync *s)
{
    struct kad_msg m;

    if (!copy_batch(s, &m) ||
        kad_call_start(s->op->k, s->op, s->peer, &m, s->one_by_one ? one_sent : batch_sent) == NULL)
        finish(s, ERR_NOMEM);
}

/* Collect the next batch; false when only a slice of the store was looked at so far. */
static bool gather(struct sync *s)
{
    struct kad *k = s->op->k;
    struct gather g = {.s = s, .f = {.k = k, .m = &s->batch, .max_bytes = KAD_BATCH_BYTES}};
    struct kad_id after = s->after;

    kad_msg_init(&s->batch, KAD_PUT_BATCH, false);
    int rc = k->store->ops->scan(k->store, kad_id_is_zero(&after) ? NULL : &after, gather_one, &g);
    s->scanned_all = rc != 0 || !g.stopped;
    drop_own_targets(&s->batch);
    return s->batch.n_items > 0 || s->scanned_all;
}

static void push(struct sync *s)
{
    if (s->batch.n_items == 0 && !s->scanned_all && !gather(s)) {
        pause_for(s, NS_PER_MS, push); /* let others run between slices */
        return;
    }
    if (s->batch.n_items > 0)
        send_batch(s);
    else
        finish(s, 0);
}

/* Receivers of a push cannot refuse much, so only nodes that asked for it get one. */
static bool may_push(const struct sync *s)
{
    struct kad *k = s->op->k;
    const struct pubkey *pk = kad_pk(k, s->peer);

    return kad_keyset_has(&k->bootstrap, pk) || kad_tier_of(k, pk) != ITEM_TIER_PUBLIC ||
           kad_is_advertised(k, pk);
}

static void begin_push(struct sync *s)
{
    if (s->only != NULL || !may_push(s)) {
        finish(s, 0);
        return;
    }
    if (s->n_seen > 0)
        qsort(s->seen, s->n_seen, sizeof *s->seen, compare_hashes);
    s->retries = RETRIES;
    push(s);
}

/* ---- pull ---- */

static void ask_page(struct sync *s);

static bool is_sorted(const struct kad_msg *page)
{
    for (size_t i = 1; i < page->n_items; i++) {
        if (page->items[i].item->item.seq < page->items[i - 1].item->item.seq)
            return false;
    }
    return true;
}

static uint64_t max_seq(const struct kad_msg *page)
{
    uint64_t max = 0;

    for (size_t i = 0; i < page->n_items; i++) {
        uint64_t seq = page->items[i].item->item.seq;
        max = seq > max ? seq : max;
    }
    return max;
}

/* All of this listing was read: the next salt, or push. */
static void listing_done(struct sync *s)
{
    if (s->by_salt && ++s->salt < N_SALTS) {
        s->since = 0;
        ask_page(s);
        return;
    }
    begin_push(s);
}

static void page_done(struct sync *s)
{
    const struct kad_msg *page = &s->in.page;
    bool sorted = is_sorted(page), more = page->has_more && page->n_items > 0;
    uint64_t max = max_seq(page);

    kad_msg_clear(&s->in.page);
    s->retries = RETRIES;
    if (!more || (sorted && max <= s->since)) {
        listing_done(s); /* a peer that always says "more" gets nowhere */
        return;
    }
    if (!sorted && s->limit < KAD_PULL_LIMIT_MAX && !s->large_failed) {
        s->limit = KAD_PULL_LIMIT_MAX;
        ask_page(s);
        return;
    }
    if (!sorted && !s->by_salt && s->only == NULL) {
        s->by_salt = true;
        s->since = 0;
        ask_page(s);
        return;
    }
    if (max <= s->since) {
        listing_done(s);
        return;
    }
    s->since = max;
    if (s->limit < KAD_PAGE_ITEMS)
        s->limit *= 10; /* the long ones may be behind us */
    ask_page(s);
}

static void let_in_done(struct kad_intake *in)
{
    struct sync *s = container_of(in, struct sync, in);

    s->op->rep.pulled = s->in.stored;
    s->op->rep.rejected_items = (unsigned)s->in.rejected;
    page_done(s);
}

static void page_failed(struct sync *s, enum kad_fail why)
{
    s->op->rep.failed++;
    if ((why == KAD_FAIL_TOO_LONG || why == KAD_FAIL_TIMEOUT) && s->limit > 1) {
        s->large_failed |= s->limit > KAD_PAGE_ITEMS;
        s->limit = s->limit > KAD_PAGE_ITEMS ? KAD_PAGE_ITEMS / 10 : s->limit / 10;
        ask_page(s);
        return;
    }
    if (retry(s, why, ask_page))
        return;
    finish(s, why == KAD_FAIL_CLOSED && s->op->rep.answered == 0 ? ERR_UNSUPPORTED
                                                                 : kad_fail_err(why));
}

static int note_page(struct sync *s, const struct kad_msg *page)
{
    for (size_t i = 0; i < page->n_items; i++) {
        const struct kad_msg_item *mi = &page->items[i];
        if (mi->item == NULL)
            return ERR_FORMAT;
        struct kad_id slot = mi->has_target ? mi->target : item_target(&mi->item->item);
        if (!note_seen(s, &slot))
            return ERR_NOMEM;
    }
    return 0;
}

static void got_page(struct kad_call *c, struct kad_msg *rsp, enum kad_fail why)
{
    struct sync *s = of(c->op);

    if (rsp == NULL) {
        page_failed(s, why);
        return;
    }
    s->op->rep.answered++;
    s->op->rep.bytes += rsp->wire_bytes;
    int rc = note_page(s, rsp);
    if (rc != 0) {
        finish(s, rc);
        return;
    }
    kad_intake_begin(&s->in, rsp);
}

static void ask_page(struct sync *s)
{
    struct kad_msg m;

    kad_msg_init(&m, KAD_GET_ITEMS, false);
    if (s->by_salt || s->only != NULL) {
        m.salt = strdup(s->only != NULL ? s->only : known_salts[s->salt]);
        m.salt_len = m.salt != NULL ? strlen(m.salt) : 0;
    }
    m.since_seq = s->since;
    m.limit = s->limit;
    s->op->rep.asked++;
    if (kad_call_start(s->op->k, s->op, s->peer, &m, got_page) == NULL)
        finish(s, ERR_NOMEM);
}

/* NULL: the operation was not begun. only is taken over. */
static struct sync *sync_new(struct kad *k, kad_peer peer, bool internal, void *user, char *only)
{
    struct kad_op *op = kad_op_new(k, KAD_OP_SYNC, internal, user);
    struct sync *s = op != NULL ? calloc(1, sizeof *s) : NULL;

    if (s == NULL) {
        if (op != NULL)
            kad_op_free(op);
        free(only);
        return NULL;
    }
    k->peers.ref(k->peers.arg, peer);
    *s = (struct sync){
        .op = op, .peer = peer, .limit = KAD_PAGE_ITEMS, .retries = RETRIES, .only = only};
    s->pause.fn = paused;
    kad_intake_init(&s->in, k, peer, let_in_done);
    op->extra = s;
    op->clear = clear;
    kad_op_set_deadline(op, KAD_SYNC_TIMEOUT_MS);
    return s;
}

struct kad_ranges *kad_sync_ranges(struct kad_op *op)
{
    return of(op)->ranges;
}

/* Ranges were the quick way; pages work with everybody. */
static void ranges_done(struct kad_op *op, int err)
{
    struct sync *s = of(op);

    if (err == 0) {
        op->k->stat->reconciled++;
        finish(s, 0);
        return;
    }
    kad_ranges_free(s->ranges);
    s->ranges = NULL;
    ask_page(s);
}

static void begin(struct sync *s)
{
    struct kad *k = s->op->k;

    if (s->only == NULL && k->full && kad_is_native(k, s->peer))
        s->ranges = kad_ranges_begin(s->op, s->peer, may_push(s), ranges_done);
    if (s->ranges == NULL)
        ask_page(s);
}

bool kad_sync_begin(struct kad *k, kad_peer peer, bool internal, void *user, uint32_t *number,
                    void (*ended)(struct kad_op *, int))
{
    struct sync *s = sync_new(k, peer, internal, user, NULL);

    if (s == NULL)
        return false;
    s->op->ended = ended;
    if (number != NULL)
        *number = s->op->rep.op;
    begin(s);
    return true;
}

uint32_t kad_sync(struct kad *k, kad_peer peer, void *user, uint64_t now_ns)
{
    uint32_t number = 0;

    kad_enter(k, now_ns);
    (void)kad_sync_begin(k, peer, false, user, &number, NULL);
    kad_leave(k);
    return number;
}

uint32_t kad_pull(struct kad *k, kad_peer peer, const void *salt, size_t salt_len, void *user,
                  uint64_t now_ns)
{
    uint32_t number = 0;

    kad_enter(k, now_ns);
    char *only = salt_len > 0 && salt_len <= ITEM_MAX_SALT ? strndup(salt, salt_len) : NULL;
    struct sync *s = only != NULL ? sync_new(k, peer, false, user, only) : NULL;
    if (s != NULL) {
        number = s->op->rep.op;
        ask_page(s);
    }
    kad_leave(k);
    return number;
}
