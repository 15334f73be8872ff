/*
 * What peers watch here: they subscribe to slots, and are told when one changes
 * (docs/protocol/dht-native.md §5).
 *
 *     watched      a slot, with the subscriptions to it
 *     watcher      a peer, with all of its subscriptions and one lease for them
 *
 * A change makes the slot dirty. One timer works off the dirty ones: all that is due goes to each
 * watcher in one notification, a slot at most once in PUSH_GAP_NS, its newest item only. What a watcher
 * has not the tokens for waits for the next time; what cannot be delivered ends its subscriptions.
 */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "kademlia/codec_json.h"
#include "kademlia/engine.h"

#define PUSH_GAP_NS   (NS_PER_S)
#define PUSH_DELAY_NS (20 * NS_PER_MS) /* so that what changes together goes out together */
#define PUSH_BYTES    262144u          /* items of one notification */
#define JUST_NOW_NS   ((int64_t)(30 * NS_PER_S))

struct watched {
    struct kad_id target;
    struct list subs; /* struct sub, by slot */
    struct list_node dirty;
    uint32_t version; /* of the item: counts its changes */
    uint64_t pushed_ns;
};

struct watcher {
    struct kad *k;
    kad_peer peer; /* a reference */
    struct list_node all;
    struct list subs;
    size_t n;
    struct loop_timer lease;
    struct kad_msg note; /* of this round */
    size_t note_bytes;
    struct list_node told; /* in the list of this round */
};

struct sub {
    struct watched *slot;
    struct watcher *who;
    struct list_node by_slot, by_watcher;
    uint32_t version; /* that it was told */
};

/* ---- slots that have changed ---- */

static uint64_t due_ns(const struct watched *w, uint64_t now_ns)
{
    uint64_t gap = w->pushed_ns != 0 ? w->pushed_ns + PUSH_GAP_NS : 0;

    return gap > now_ns + PUSH_DELAY_NS ? gap : now_ns + PUSH_DELAY_NS;
}

static void arm(struct kad *k, uint64_t at_ns)
{
    if (!loop_timer_armed(&k->w->push) || k->w->push.at_ns > at_ns)
        loop_timer_set(&k->loop, &k->w->push, at_ns);
}

static void make_dirty(struct kad *k, struct watched *w)
{
    if (!list_node_is_linked(&w->dirty))
        list_push_back(&k->w->dirty, &w->dirty);
    arm(k, due_ns(w, k->now_ns));
}

/* ---- subscriptions ---- */

static void free_sub(struct sub *s)
{
    struct kad *k = s->who->k;
    struct watched *w = s->slot;

    list_remove(&s->by_slot);
    list_remove(&s->by_watcher);
    s->who->n--;
    k->w->n_subs--;
    free(s);
    if (!list_empty(&w->subs))
        return;
    list_remove(&w->dirty);
    map_del(&k->w->slots, &w->target);
    free(w);
}

static void forget_all(struct watcher *who)
{
    struct sub *s;

    while ((s = list_first_as(&who->subs, struct sub, by_watcher)) != NULL)
        free_sub(s);
}

static void free_watcher(struct watcher *who)
{
    struct kad *k = who->k;

    forget_all(who);
    loop_timer_cancel(&k->loop, &who->lease);
    list_remove(&who->told);
    list_remove(&who->all);
    kad_msg_clear(&who->note);
    map_del(&k->w->watchers, &who->peer);
    kad_unref(k, who->peer);
    free(who);
}

static void lease_over(struct loop_timer *t)
{
    struct watcher *who = container_of(t, struct watcher, lease);

    who->k->w->stat.watchers_lost++;
    free_watcher(who);
}

static struct watcher *watcher_of(struct kad *k, kad_peer peer)
{
    struct watcher *who = map_get(&k->w->watchers, &peer);

    if (who != NULL)
        return who;
    who = calloc(1, sizeof *who);
    if (who == NULL)
        return NULL;
    who->k = k;
    who->peer = peer;
    who->lease.fn = lease_over;
    list_init(&who->subs);
    if (map_put(&k->w->watchers, who) != 0) {
        free(who);
        return NULL;
    }
    k->peers.ref(k->peers.arg, peer);
    list_push_back(&k->w->all, &who->all);
    return who;
}

static struct watched *slot_of(struct kad *k, const struct kad_id *target)
{
    struct watched *w = map_get(&k->w->slots, target);

    if (w != NULL)
        return w;
    w = calloc(1, sizeof *w);
    if (w == NULL)
        return NULL;
    w->target = *target;
    list_init(&w->subs);
    if (map_put(&k->w->slots, w) == 0)
        return w;
    free(w);
    return NULL;
}

static struct sub *find_sub(struct kad *k, const struct watcher *who, const struct kad_id *target)
{
    struct watched *w = map_get(&k->w->slots, target);
    struct list_node *n, *tmp;

    if (w == NULL)
        return NULL;
    list_for_each(n, tmp, &w->subs)
    {
        struct sub *s = container_of(n, struct sub, by_slot);
        if (s->who == who)
            return s;
    }
    return NULL;
}

/* What a slot holds the watcher has looked up itself, unless it came after that: from its owner, or
 * handed on (which is dated back, see accept.c). */
static bool came_just_now(struct kad *k, const struct kad_id *target)
{
    struct store_rec r;

    if (kad_store_best(k, target, KAD_USE_SERVED, &r) != 0)
        return false;
    int64_t age = kad_steady_ns(k) - r.stored_ns,
            handed_on = age - (int64_t)kad_ms(k->lim.cache_fresh_ms);
    return age < JUST_NOW_NS || (handed_on >= 0 && handed_on < JUST_NOW_NS);
}

static int subscribe(struct kad *k, struct watcher *who, const struct kad_id *target)
{
    if (find_sub(k, who, target) != NULL)
        return 0;
    if (who->n >= KAD_WATCHES_PER_PEER || k->w->n_subs >= KAD_MAX_WATCHED) {
        k->w->stat.refused++;
        return ERR_LIMIT;
    }
    struct watched *w = slot_of(k, target);
    struct sub *s = w != NULL ? calloc(1, sizeof *s) : NULL;
    if (s == NULL) {
        if (w != NULL && list_empty(&w->subs)) {
            map_del(&k->w->slots, &w->target);
            free(w);
        }
        return ERR_BUSY;
    }
    s->slot = w;
    s->who = who;
    s->version = w->version;
    if (came_just_now(k, target)) {
        s->version--;
        make_dirty(k, w);
    }
    list_push_back(&w->subs, &s->by_slot);
    list_push_back(&who->subs, &s->by_watcher);
    who->n++;
    k->w->n_subs++;
    return 0;
}

static int answer_one(struct kad_msg *rsp, int result)
{
    int rc = kad_msg_add_item(rsp, NULL, NULL);

    if (rc == 0)
        rsp->items[rsp->n_items - 1].result = result;
    return rc;
}

int kad_watched_request(struct kad *k, kad_peer from, const struct kad_msg *req,
                        struct kad_msg *rsp)
{
    struct watcher *who = kad_watching(k) != NULL ? watcher_of(k, from) : NULL;
    int rc = who == NULL ? ERR_BUSY : 0;

    if (rc == 0 && req->n_targets > KAD_BATCH_COST)
        kad_note_charge(k, from, (unsigned)(req->n_targets / KAD_BATCH_COST));
    if (who != NULL && req->lease_s == 0 && req->n_targets == 0)
        forget_all(who);
    for (size_t i = 0; rc == 0 && i < req->n_targets; i++) {
        struct sub *s = req->lease_s == 0 ? find_sub(k, who, &req->targets[i]) : NULL;
        int result = req->lease_s > 0 ? subscribe(k, who, &req->targets[i]) : 0;
        if (s != NULL)
            free_sub(s);
        rc = answer_one(rsp, result);
    }
    if (who == NULL)
        return rc;
    rsp->lease_s = req->lease_s < KAD_WATCH_LEASE_S ? req->lease_s : KAD_WATCH_LEASE_S;
    rsp->held = (unsigned)who->n;
    if (who->n == 0)
        free_watcher(who);
    else if (req->lease_s > 0)
        loop_timer_set(&k->loop, &who->lease, kad_after(k, (uint64_t)rsp->lease_s * NS_PER_S));
    return rc;
}

void kad_watcher_gone(struct kad *k, kad_peer peer, uint64_t now_ns)
{
    kad_enter(k, now_ns);
    struct watcher *who = k->w != NULL ? map_get(&k->w->watchers, &peer) : NULL;
    if (who != NULL) {
        k->w->stat.watchers_lost++;
        free_watcher(who);
    }
    kad_leave(k);
}

bool kad_is_watcher(const struct kad *k, kad_peer peer)
{
    return map_get(&k->w->watchers, &peer) != NULL;
}

/* ---- pushing ---- */

void kad_watched_stored(struct kad *k, const struct kad_id *target)
{
    struct watched *w = map_len(&k->w->slots) > 0 ? map_get(&k->w->slots, target) : NULL;

    if (w == NULL)
        return;
    w->version++;
    make_dirty(k, w);
}

static void send_note(struct watcher *who)
{
    struct kad *k = who->k;
    struct kad_act *a = who->note.n_items > 0 ? kad_act_push(k, KAD_ACT_NOTE) : NULL;

    if (a != NULL) {
        k->w->stat.pushes_sent++;
        k->w->stat.pushed_items += who->note.n_items;
        kad_note_bytes(k, who->peer, who->note_bytes);
        a->peer = who->peer;
        a->msg = who->note;
        a->msg.network = k->network;
        memset(&who->note, 0, sizeof who->note);
    }
    kad_msg_clear(&who->note);
    who->note_bytes = 0;
}

/* Into the notification of its watcher. False when it may not have more now. */
static bool tell(struct sub *s, struct item_ref *item, struct list *round)
{
    struct watcher *who = s->who;
    struct kad *k = who->k;
    size_t bytes = kad_json_item_size(&item->item);

    if (!kad_is_exempt(k, who->peer) && !kad_note_may_read(k, who->peer)) {
        k->w->stat.pushes_held++;
        return false;
    }
    if (who->note_bytes + bytes > PUSH_BYTES || who->note.n_items >= KAD_MSG_MAX_ITEMS)
        send_note(who);
    if (!list_node_is_linked(&who->told)) {
        kad_msg_init(&who->note, KAD_CHANGED, false);
        list_push_back(round, &who->told);
    }
    who->note.method = KAD_CHANGED;
    who->note_bytes += bytes;
    if (kad_msg_add_item(&who->note, item, &s->slot->target) != 0)
        return false;
    s->version = s->slot->version;
    return true;
}

/* Everybody who watches this slot and was not told yet. True when nobody is left. */
static bool push_slot(struct kad *k, struct watched *w, struct list *round)
{
    struct list_node *n, *tmp;
    struct store_rec r;
    bool all = true;

    if (kad_store_best(k, &w->target, KAD_USE_SERVED, &r) != 0)
        return true; /* gone again */
    struct item_ref *item = kad_rec_item(&r);
    if (item == NULL)
        return false;
    list_for_each(n, tmp, &w->subs)
    {
        struct sub *s = container_of(n, struct sub, by_slot);
        if (s->version != w->version && kad_is_reader(k, s->who->peer))
            all &= tell(s, item, round);
    }
    item_ref_put(item);
    w->pushed_ns = k->now_ns;
    return all;
}

static void push_due(struct loop_timer *t)
{
    struct kad *k = container_of(t, struct kad_watching, push)->k;
    struct list round;
    struct list_node *n, *tmp;
    struct watcher *who;
    uint64_t next = LOOP_NEVER;

    list_init(&round);
    list_for_each(n, tmp, &k->w->dirty)
    {
        struct watched *w = container_of(n, struct watched, dirty);
        bool waits = w->pushed_ns != 0 && k->now_ns - w->pushed_ns < PUSH_GAP_NS;
        if (!waits && push_slot(k, w, &round)) {
            list_remove(&w->dirty);
            continue;
        }
        uint64_t at = w->pushed_ns + PUSH_GAP_NS;
        next = at < next ? at : next;
    }
    while ((who = list_pop_front_as(&round, struct watcher, told)) != NULL)
        send_note(who);
    if (next != LOOP_NEVER)
        arm(k, next > k->now_ns ? next : kad_after(k, PUSH_GAP_NS));
}

/* ---- life ---- */

void kad_watched_init(struct kad *k)
{
    map_init(&k->w->slots, MAP_KEY(struct watched, target), k->env->hash_key, KAD_MAX_WATCHED);
    map_init(&k->w->watchers, MAP_KEY(struct watcher, peer), k->env->hash_key, KAD_MAX_WATCHERS);
    list_init(&k->w->dirty);
    list_init(&k->w->all);
    k->w->push.fn = push_due;
}

void kad_watched_free(struct kad *k)
{
    struct watcher *who;

    while ((who = list_first_as(&k->w->all, struct watcher, all)) != NULL)
        free_watcher(who);
    loop_timer_cancel(&k->loop, &k->w->push);
    map_free(&k->w->slots);
    map_free(&k->w->watchers);
}
