#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "kademlia/engine.h"
#include "kademlia/records/fullnode.h"

#define JITTER           10 /* percent, of every period */
#define BOOTSTRAP_GAP_NS NS_PER_S
#define SWEEP_NS         (30 * NS_PER_S)
#define CALM             4 /* times as far apart refreshes are at most */
#define SWEEP_MAX        1000
#define SYNC_START_NS    (5 * NS_PER_S)
#define SYNC_NS          (3600 * NS_PER_S)
#define SYNC_RETRY_NS    (60 * NS_PER_S)
#define SYNC_ADVERTISED  16
#define ADVERT_NS        (300 * NS_PER_S)
#define HAND_ON_STEP_NS  NS_PER_S
#define HAND_ON_SLICE    256 /* records looked at in a step */
#define HAND_ON_MAX      4   /* handed on at the same time */
#define HAND_ON_LEFT_NS  (INT64_C(600) * (int64_t)NS_PER_S)
#define LOADED_MAX       64 /* contacts of an earlier life that are pinged */

static struct kad *of_timer(struct loop_timer *t, size_t offset)
{
    return (struct kad *)((char *)t - offset);
}
#define KAD_OF(t, member) of_timer(t, offsetof(struct kad, m.member))

static void arm(struct kad *k, struct loop_timer *t, uint64_t delay_ns)
{
    loop_timer_set(&k->loop, t, kad_after(k, env_jitter_ns(k->env, delay_ns, JITTER)));
}

/* ---- bootstrap (dht.md §5.2) ---- */

struct bootstrap {
    size_t waiting; /* pings without an answer */
    bool strangers; /* some belong to another network */
};

static void clear_bootstrap(struct kad_op *op)
{
    free(op->extra);
    op->k->m.bootstrapping = false;
}

static void round_done(struct kad_op *op, int err)
{
    struct kad *k = op->k;
    bool empty = table_count(&k->table) == 0;

    (void)err;
    arm(k, &k->m.bootstrap, kad_ms(k->lim.bootstrap_retry_ms) * (empty ? 1 : 10));
    if (!empty && !k->m.joined && !k->client_only) {
        k->m.join_bucket = 0;
        loop_timer_set(&k->loop, &k->m.refresh, k->now_ns);
    }
    k->m.joined = !empty;
    if (!empty && k->full && !k->m.synced && k->m.sync_keys == NULL)
        loop_timer_set(&k->loop, &k->m.sync, k->now_ns);
}

static void walked(struct kad_lookup *lk, enum kad_end end)
{
    kad_op_finish(lk->op, lk->op->rep.answered > 0 ? 0 : ERR_NO_ROUTE, end);
}

/* Everybody was asked: walk to our own ID if there is anybody to begin with. */
static void pings_done(struct kad_op *op)
{
    struct kad *k = op->k;
    const struct bootstrap *b = op->extra;

    if (table_count(&k->table) == 0) {
        kad_op_finish(op, b->strangers ? ERR_NETWORK : ERR_NO_ROUTE, KAD_END_NO_PEERS);
        return;
    }
    if (k->client_only) { /* it has no neighbourhood to meet */
        kad_op_finish(op, 0, KAD_END_CLOSEST);
        return;
    }
    k->m.self_refresh_ns = k->now_ns;
    struct kad_id self = k->table.self;
    kad_op_lookup(op, &self, false, walked);
}

static void pinged(struct kad_call *c, struct kad_msg *rsp, enum kad_fail why)
{
    struct bootstrap *b = c->op->extra;

    b->strangers |= rsp == NULL && why == KAD_FAIL_NETWORK;
    if (--b->waiting == 0)
        pings_done(c->op);
}

static bool ping(struct kad_op *op, kad_peer p)
{
    struct kad_msg m;

    kad_msg_init(&m, KAD_PING, false);
    return kad_call_start(op->k, op, p, &m, pinged) != NULL;
}

/* Bootstrap keys that are not contacts yet; none when there are contacts enough: everybody has these
 * keys, so they are asked on need only (incident 68). */
static void ping_bootstrap_keys(struct kad_op *op)
{
    struct kad *k = op->k;
    struct bootstrap *b = op->extra;

    b->waiting = 1; /* until all are sent */
    for (size_t i = 0; i < k->bootstrap.n && table_count(&k->table) < k->lim.k; i++) {
        kad_peer p = kad_intern(k, &k->bootstrap.v[i]);
        if (p == KAD_PEER_NONE)
            continue;
        if (!table_has(&k->table, p) && ping(op, p))
            b->waiting++;
        kad_unref(k, p);
    }
    if (--b->waiting == 0)
        pings_done(op);
}

static void bootstrap_due(struct loop_timer *t)
{
    struct kad *k = KAD_OF(t, bootstrap);
    struct kad_op *op;

    if (k->m.bootstrapping)
        return; /* the end of the round arms the timer */
    if (k->bootstrap.n == 0 && table_count(&k->table) == 0)
        return; /* nobody to ask: the first node of a network waits to be called */
    if (k->m.joined && table_count(&k->table) >= k->lim.k) {
        arm(k, t, 10 * kad_ms(k->lim.bootstrap_retry_ms)); /* refreshing is enough */
        return;
    }
    op = kad_op_new(k, KAD_OP_BOOTSTRAP, true, NULL);
    if (op != NULL)
        op->extra = calloc(1, sizeof(struct bootstrap));
    if (op == NULL || op->extra == NULL) {
        if (op != NULL)
            kad_op_free(op);
        arm(k, t, kad_ms(k->lim.bootstrap_retry_ms));
        return;
    }
    op->clear = clear_bootstrap;
    op->ended = round_done;
    k->m.bootstrapping = true;
    k->m.bootstrap_ns = k->now_ns;
    ping_bootstrap_keys(op);
}

void kad_maintain_bootstrap_now(struct kad *k)
{
    uint64_t at = k->m.bootstrap_ns + BOOTSTRAP_GAP_NS;

    if (!k->m.running || k->m.bootstrapping)
        return;
    if (k->m.bootstrap_ns == 0 || at < k->now_ns)
        at = k->now_ns;
    loop_timer_set(&k->loop, &k->m.bootstrap, at);
}

int kad_load_routing(struct kad *k, const uint8_t *p, size_t n, uint64_t now_ns)
{
    struct pubkey pks[LOADED_MAX];
    size_t found = 0;
    int rc = table_load(p, n, pks, LOADED_MAX, &found);

    kad_enter(k, now_ns);
    for (size_t i = 0; i < found; i++) {
        struct kad_msg m;
        kad_peer peer = kad_intern(k, &pks[i]);
        if (peer == KAD_PEER_NONE)
            continue;
        kad_msg_init(&m, KAD_PING, false);
        (void)kad_call_start(k, NULL, peer, &m, NULL);
        kad_unref(k, peer);
    }
    kad_leave(k);
    return rc;
}

/* ---- refresh of buckets and of our own neighbourhood ---- */

/* A node that joined has met its own neighbourhood only. It looks at every other range once, or a
 * network whose nodes start together stays apart until the first refresh. */
static bool is_joining(const struct kad *k)
{
    return k->m.joined && k->m.join_bucket < (int)table_refresh_span(&k->table);
}

static void refreshed(struct kad_op *op, int err)
{
    struct kad *k = op->k;

    (void)err;
    k->m.refreshing = false;
    arm(k, &k->m.refresh, is_joining(k) ? NS_PER_S / 10 : NS_PER_S);
}

static void refresh(struct kad *k, const struct kad_id *target, bool wide)
{
    k->m.refreshing = true;
    if (!kad_op_refresh(k, target, wide, refreshed)) {
        k->m.refreshing = false;
        arm(k, &k->m.refresh, 10 * NS_PER_S);
    }
}

static void refresh_bucket(struct kad *k, unsigned bucket)
{
    uint8_t random[KAD_ID_BYTES];

    env_random(k->env, random, sizeof random);
    struct kad_id id = table_range_id(&k->table, bucket, random);
    refresh(k, &id, false);
}

/* The longer nobody has failed the farther refreshes are apart: look-ups that find what is known make up most of
 * an idle node's traffic. */
static uint64_t refresh_period(const struct kad *k)
{
    uint64_t shortest = kad_ms(k->lim.refresh_ms), half = (k->now_ns - k->m.disturbed_ns) / 2;

    return half < shortest ? shortest : half < CALM * shortest ? half : CALM * shortest;
}

void kad_maintain_disturbed(struct kad *k)
{
    bool was_calm = refresh_period(k) > kad_ms(k->lim.refresh_ms);

    k->m.disturbed_ns = k->now_ns;
    if (was_calm && k->m.running && !k->m.refreshing)
        arm(k, &k->m.refresh, NS_PER_S);
}

static void refresh_due(struct loop_timer *t)
{
    struct kad *k = KAD_OF(t, refresh);
    uint64_t period = refresh_period(k), due = 0;

    if (k->m.refreshing)
        return;
    if (table_count(&k->table) == 0) {
        arm(k, t, period);
        return;
    }
    if (k->now_ns - k->m.self_refresh_ns >= period) {
        struct kad_id self = k->table.self;
        k->m.self_refresh_ns = k->now_ns;
        kad_fulls_ping(k, period);
        refresh(k, &self, true);
        return;
    }
    int bucket =
        is_joining(k) ? k->m.join_bucket++ : table_refresh_next(&k->table, period, k->now_ns, &due);
    if (bucket >= 0) {
        refresh_bucket(k, (unsigned)bucket);
        return;
    }
    uint64_t self_due = k->m.self_refresh_ns + period;
    due = due < self_due ? due : self_due;
    arm(k, t, due > k->now_ns ? due - k->now_ns : NS_PER_S);
}

/* ---- expiry ---- */

/* Records go one lifetime after they expired: until then they block older numbers, so that copies
 * which come back from elsewhere do not live again. */
static void sweep_due(struct loop_timer *t)
{
    struct kad *k = KAD_OF(t, sweep);
    int64_t before = kad_steady_ns(k) - (int64_t)kad_ms(k->lim.ttl_ms);
    int n = k->store->ops->expire(k->store, before, SWEEP_MAX);

    kad_store_trim(k);
    kad_notes_sweep(k);
    arm(k, t, n == SWEEP_MAX ? NS_PER_S / 10 : SWEEP_NS);
}

/* ---- republishing and handing on (design rule 7) ---- */

static void republish_due(struct loop_timer *t)
{
    struct kad *k = KAD_OF(t, republish);
    uint64_t next = kad_own_republish(k);

    if (next != LOOP_NEVER)
        loop_timer_set(&k->loop, t, next);
}

void kad_maintain_own_changed(struct kad *k)
{
    if (k->m.running && (!loop_timer_armed(&k->m.republish) || k->m.republish.at_ns > k->now_ns))
        loop_timer_set(&k->loop, &k->m.republish, kad_after(k, NS_PER_S));
}

struct hand_on {
    struct kad *k;
    size_t visited, n;
    struct kad_id last;
    struct kad_id targets[HAND_ON_MAX];
};

/* Are we, as far as our table knows, among the k that should hold this slot? */
static bool is_ours(const struct kad *k, const struct kad_id *target)
{
    kad_peer peers[TABLE_MAX_K];
    size_t n = table_closest(&k->table, target, peers, k->lim.k);

    return n < k->lim.k ||
           kad_id_closer(target, &k->table.self, k->peers.id(k->peers.arg, peers[n - 1])) < 0;
}

/* A pass over the store begins so often. */
static uint64_t pass_ns(const struct kad *k)
{
    return kad_ms(k->lim.republish_ms) / 2;
}

/* Worth handing on: not heard from its owner for two of the owner's periods, and with some life left
 * that everybody can read off its sequence number. Once: in the pass that finds it first. */
static bool is_orphan(const struct kad *k, const struct store_rec *r)
{
    int64_t now = kad_steady_ns(k), age = now - r->stored_ns;
    int64_t from = 2 * (int64_t)kad_ms(k->lim.republish_ms);
    int64_t to = from + (int64_t)(pass_ns(k) + pass_ns(k) / 100 * JITTER);

    return r->kind == ITEM_OWNER && r->origin == STORE_REPLICA && age >= from && age < to &&
           r->expires_ns - now > HAND_ON_LEFT_NS && kad_seq_is_clock(k, r->item.seq) &&
           is_ours(k, &r->target);
}

static bool look_at(void *arg, const struct store_rec *r)
{
    struct hand_on *h = arg;

    if (h->visited >= HAND_ON_SLICE || h->n >= HAND_ON_MAX)
        return false;
    h->visited++;
    h->last = r->target;
    if (is_orphan(h->k, r))
        h->targets[h->n++] = r->target;
    return true;
}

static void handed_on(struct kad_op *op, int err)
{
    (void)err;
    op->k->m.handing_on--;
}

static void hand_on(struct kad *k, const struct kad_id *target)
{
    struct store_rec r;

    if (k->store->ops->get(k->store, target, ITEM_OWNER, &r) != 0)
        return;
    k->m.handing_on++;
    if (kad_put_hand_on(k, &r, handed_on))
        k->stat->handed_on++;
    else
        k->m.handing_on--;
}

/* One step of the pass over the store; at its end wait for the next one. */
static void hand_on_due(struct loop_timer *t)
{
    struct kad *k = KAD_OF(t, hand_on);
    struct hand_on h = {.k = k};
    const struct kad_id *after = kad_id_is_zero(&k->m.hand_on_after) ? NULL : &k->m.hand_on_after;

    if (k->m.handing_on > 0) {
        arm(k, t, HAND_ON_STEP_NS);
        return;
    }
    int rc = k->store->ops->scan(k->store, after, look_at, &h);
    bool done = rc != 0 || (h.visited < HAND_ON_SLICE && h.n < HAND_ON_MAX);
    if (done)
        memset(&h.last, 0, sizeof h.last);
    k->m.hand_on_after = h.last;
    for (size_t i = 0; i < h.n; i++)
        hand_on(k, &h.targets[i]);
    arm(k, t, done ? pass_ns(k) : HAND_ON_STEP_NS);
}

/* ---- full nodes (dht.md §5.3) ---- */

static void synced(struct kad_op *op, int err)
{
    struct kad *k = op->k;

    k->m.syncing = false;
    k->m.sync_good += err == 0;
    /* Not from in here: the operation is still being taken down. */
    loop_timer_set(&k->loop, &k->m.sync, k->now_ns);
}

static void drop_round(struct kad *k)
{
    free(k->m.sync_keys);
    k->m.sync_keys = NULL;
}

static void end_round(struct kad *k)
{
    bool good = k->m.sync_good > 0 || k->m.n_sync_keys == 0;

    drop_round(k);
    k->m.synced |= good;
    arm(k, &k->m.sync, good ? SYNC_NS : SYNC_RETRY_NS);
}

static bool is_in_round(const struct kad *k, const struct pubkey *pk)
{
    for (size_t i = 0; i < k->m.n_sync_keys; i++) {
        if (pubkey_equal(&k->m.sync_keys[i], pk))
            return true;
    }
    return false;
}

/* Nodes that advertise themselves, as far as there is room in the round. */
static void add_advertised(struct kad *k)
{
    struct pubkey pks[SYNC_ADVERTISED];
    size_t n = kad_advertised(k, pks, SYNC_ADVERTISED);

    for (size_t i = 0; i < n && k->m.n_sync_keys < k->m.sync_room; i++) {
        if (!is_in_round(k, &pks[i]))
            k->m.sync_keys[k->m.n_sync_keys++] = pks[i];
    }
}

/* Whom to sync with in this round: bootstrap keys, then nodes that advertise themselves. */
static bool begin_round(struct kad *k)
{
    k->m.sync_room = k->bootstrap.n + SYNC_ADVERTISED;
    k->m.sync_keys = calloc(k->m.sync_room, sizeof *k->m.sync_keys);
    if (k->m.sync_keys == NULL)
        return false;
    k->m.n_sync_keys = k->bootstrap.n;
    if (k->bootstrap.n > 0)
        memcpy(k->m.sync_keys, k->bootstrap.v, k->bootstrap.n * sizeof *k->m.sync_keys);
    k->m.next_sync_key = 0;
    k->m.sync_good = 0;
    add_advertised(k);
    return true;
}

/* The next one; adverts that came with the last pull are followed in the same round. */
static void sync_next(struct kad *k)
{
    if (k->m.next_sync_key == k->m.n_sync_keys)
        add_advertised(k);
    while (k->m.next_sync_key < k->m.n_sync_keys) {
        kad_peer p = kad_intern(k, &k->m.sync_keys[k->m.next_sync_key++]);
        if (p == KAD_PEER_NONE)
            continue;
        k->m.syncing = true;
        bool begun = kad_sync_begin(k, p, true, NULL, NULL, synced);
        kad_unref(k, p);
        if (begun)
            return;
        k->m.syncing = false;
    }
    end_round(k);
}

static void sync_due(struct loop_timer *t)
{
    struct kad *k = KAD_OF(t, sync);

    if (k->m.syncing)
        return; /* its end arms the timer */
    if (!k->full) {
        drop_round(k);
        return;
    }
    if (k->m.sync_keys == NULL && !begin_round(k)) {
        arm(k, t, SYNC_RETRY_NS);
        return;
    }
    sync_next(k);
}

static void advert_due(struct loop_timer *t)
{
    struct kad *k = KAD_OF(t, advert);
    char text[FULLNODE_MAX_TEXT];
    size_t n = kad_advert_text(k, text, sizeof text);

    if (n > 0)
        (void)kad_put_own(k, "fullnode", 8, text, n, NULL);
    arm(k, t, ADVERT_NS);
}

static void start_full(struct kad *k)
{
    loop_timer_set(&k->loop, &k->m.sync, kad_after(k, SYNC_START_NS));
    loop_timer_set(&k->loop, &k->m.advert, kad_after(k, SYNC_START_NS));
}

/* A regular node takes its advert back: nobody republishes it, and readers believe it for 30 min. */
static void stop_full(struct kad *k)
{
    struct kad_id target = kad_target(&k->self, "fullnode", 8);

    loop_timer_cancel(&k->loop, &k->m.advert);
    k->m.synced = false;
    (void)kad_store_del(k, &target, ITEM_OWNER);
    kad_inventory_free(k);
}

void kad_maintain_full_changed(struct kad *k)
{
    if (k->full)
        start_full(k);
    else
        stop_full(k);
}

/* ---- size of the network ---- */

#define SIZE_BUCKETS 3 /* looked at for the size */

static bool count_bucket(void *arg, const struct kad_contact *c)
{
    uint16_t *counts = arg;

    if (c->unanswered < TABLE_DEAD)
        counts[c->bucket]++;
    return true;
}

/* IDs are uniform, so bucket i has about size / 2^(i+1) members. Full buckets show only k of them;
 * the first ones that are not full tell, and those are far from us: whoever makes up keys close to
 * our ID, or to a target that happens to be, does not change the answer much. */
uint64_t kad_network_size(const struct kad *k)
{
    uint16_t counts[KAD_ID_BITS] = {0};
    unsigned first = 0, sum = 0;

    table_contacts(&k->table, count_bucket, counts);
    while (first < KAD_ID_BITS - SIZE_BUCKETS && counts[first] >= k->lim.k)
        first++;
    for (unsigned i = 0; i < SIZE_BUCKETS; i++)
        sum += counts[first + i];
    /* sum = size * (1/2 + 1/4 + 1/8) / 2^first */
    uint64_t scale = first < 48 ? UINT64_C(1) << first : UINT64_C(1) << 48;
    uint64_t size = sum * scale * (1u << SIZE_BUCKETS) / ((1u << SIZE_BUCKETS) - 1);
    uint64_t known = table_count(&k->table) + 1;
    return size > known ? size : known;
}

/* ---- life ---- */

void kad_maintain_start(struct kad *k)
{
    k->m.running = true;
    k->m.bootstrap.fn = bootstrap_due;
    k->m.refresh.fn = refresh_due;
    k->m.sweep.fn = sweep_due;
    k->m.republish.fn = republish_due;
    k->m.hand_on.fn = hand_on_due;
    k->m.sync.fn = sync_due;
    k->m.advert.fn = advert_due;
    k->m.disturbed_ns = k->now_ns;
    k->m.self_refresh_ns = k->now_ns;
    loop_timer_set(&k->loop, &k->m.bootstrap, k->now_ns);
    if (!k->client_only)
        arm(k, &k->m.refresh, kad_ms(k->lim.refresh_ms));
    arm(k, &k->m.sweep, SWEEP_NS);
    arm(k, &k->m.hand_on, pass_ns(k));
    if (!list_empty(&k->own))
        kad_maintain_own_changed(k);
    if (k->full)
        start_full(k);
}

void kad_maintain_stop(struct kad *k)
{
    k->m.running = false;
    loop_timer_cancel(&k->loop, &k->m.bootstrap);
    loop_timer_cancel(&k->loop, &k->m.refresh);
    loop_timer_cancel(&k->loop, &k->m.sweep);
    loop_timer_cancel(&k->loop, &k->m.republish);
    loop_timer_cancel(&k->loop, &k->m.hand_on);
    loop_timer_cancel(&k->loop, &k->m.sync);
    loop_timer_cancel(&k->loop, &k->m.advert);
    drop_round(k);
}
