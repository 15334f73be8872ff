/*
 * What this node watches for its users.
 *
 *     watch     one kad_watch() of a user
 *     slot      a target with its watches, and how it is kept up to date
 *     server    a peer that we have subscriptions with
 *     link      a subscription: slot × server, WANTED -> ASKED -> HELD
 *
 * A slot is looked up once, which also tells who keeps it: the closest of those who answered, and speak
 * the native dialect, become its servers. Without any server the slot is polled. Whatever the way, what
 * comes goes through the doors of every item (accept.c) into the store, and what the store takes is
 * told to the watches: a push that is a lie tells nobody anything, nor does an old value under a new
 * number.
 *
 * A server holds all our subscriptions under one lease, which an empty request renews; its answer
 * says how many it holds, so that one that has forgotten some is given all of them again.
 */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "kademlia/engine.h"

#define SERVERS       2 /* of one slot */
#define POLL_NS       (60 * NS_PER_S)
#define CHECK_NS      (1800 * NS_PER_S) /* a slot with servers is looked up all the same */
#define RETRY_NS      (2 * NS_PER_S)    /* when it lost a server, or too much is under way */
#define POLLS_AT_ONCE 16u
#define PACE_NS       (40 * NS_PER_MS)
#define FORGOTTEN_NS  (10 * NS_PER_S)
#define DROPS         32u
#define ASK_DELAY_NS  (10 * NS_PER_MS) /* so that many subscriptions go out together */

struct slot {
    struct kad *k;
    struct kad_id target;
    struct pubkey pk;
    uint8_t *salt;
    size_t salt_len;
    struct list watches, links;
    struct loop_timer timer;   /* next look-up */
    struct list_node in_queue; /* for a look-up */
    bool looking;
    uint64_t told; /* print of the value that the watches know; 0 = none */
};

struct watch {
    struct slot *slot;
    struct list_node in_slot;
    uint32_t number;
    void *user;
    bool knows; /* has been told what slot->told stands for */
};

struct server {
    struct kad *k;
    kad_peer peer; /* a reference */
    struct list links;
    size_t n;
    struct loop_timer timer; /* next request: new subscriptions, or the lease */
    struct kad_call *call;   /* under way */
    uint64_t renew_ns;
    struct kad_id dropped[DROPS]; /* to be unsubscribed */
    size_t n_dropped;
    bool ending; /* the request under way ends subscriptions */
    bool reset;  /* more than that: unsubscribe everything, and subscribe anew */
    struct list_node all;
};

enum link_state { WANTED, ASKED, HELD };

struct link {
    struct slot *slot;
    struct server *server;
    struct list_node in_slot, in_server;
    enum link_state state;
};

static void ask_server(struct server *s);
static void next_look_up(struct kad *k);

/* ---- objects ---- */

static void free_server(struct server *s)
{
    struct kad *k = s->k;

    loop_timer_cancel(&k->loop, &s->timer);
    if (s->call != NULL) {
        s->call->watch = NULL;
        s->call = NULL;
    }
    map_del(&k->w->servers, &s->peer);
    list_remove(&s->all);
    kad_unref(k, s->peer);
    free(s);
}

static void free_link(struct link *l)
{
    list_remove(&l->in_slot);
    list_remove(&l->in_server);
    l->server->n--;
    free(l);
}

static void ask_soon(struct server *s, uint64_t delay_ns)
{
    uint64_t at = kad_after(s->k, delay_ns);

    if (s->call == NULL && (!loop_timer_armed(&s->timer) || s->timer.at_ns > at))
        loop_timer_set(&s->k->loop, &s->timer, at);
}

/* Nobody wants this subscription any more. The last one of a server just runs out there. */
static void drop_link(struct link *l)
{
    struct server *s = l->server;

    if (l->state == HELD && s->n_dropped < DROPS)
        s->dropped[s->n_dropped++] = l->slot->target;
    else if (l->state != WANTED)
        s->reset = true;
    free_link(l);
    if (s->n > 0)
        ask_soon(s, ASK_DELAY_NS);
    else if (s->call == NULL)
        free_server(s);
}

static void schedule(struct slot *w, uint64_t delay_ns)
{
    struct kad *k = w->k;
    /* Spread by an eighth, so that what began together does not stay together. */
    uint64_t spread = env_random_below(k->env, delay_ns / 8 + 1);

    loop_timer_set(&k->loop, &w->timer, kad_after(k, delay_ns - delay_ns / 16 + spread));
}

/* Its subscriptions are lost: the slots look for others. */
static void lose_server(struct server *s)
{
    struct link *l;

    while ((l = list_first_as(&s->links, struct link, in_server)) != NULL) {
        struct slot *w = l->slot;
        free_link(l);
        if (!w->looking)
            schedule(w, RETRY_NS);
    }
    s->k->w->stat.servers_lost++;
    free_server(s);
}

static void free_slot(struct slot *w)
{
    struct kad *k = w->k;
    struct link *l;

    while ((l = list_first_as(&w->links, struct link, in_slot)) != NULL)
        drop_link(l);
    loop_timer_cancel(&k->loop, &w->timer);
    list_remove(&w->in_queue);
    map_del(&k->w->targets, &w->target);
    free(w->salt);
    free(w);
}

/* ---- telling ---- */

/* Publishing the same value anew is no change. */
static uint64_t print_of(const struct kad *k, const struct store_rec *r)
{
    uint64_t print = crypto_siphash(k->env->hash_key, r->item.v, r->item.v_len) + r->kind;

    return print != 0 ? print : 1;
}

static void tell(struct watch *u, struct item_ref *item, enum item_kind kind)
{
    struct kad *k = u->slot->k;
    struct kad_act *a = kad_act_push(k, KAD_ACT_DONE);

    u->knows = true;
    if (a == NULL)
        return;
    a->report.op = u->number;
    a->report.type = KAD_OP_WATCH;
    a->report.user = u->user;
    a->report.target = u->slot->target;
    a->report.item = item_ref_get(item);
    a->report.kind = kind;
    a->report.source = KAD_SRC_LOCAL;
    a->report.err = kad_is_tombstone(&item->item) ? ERR_NOT_FOUND : 0;
    a->report.started_ns = a->report.ended_ns = k->now_ns;
    k->w->stat.events++;
}

/* The watches of a slot learn what is best in the store, when they do not know it. */
static void tell_slot(struct slot *w)
{
    struct kad *k = w->k;
    struct list_node *n, *tmp;
    struct store_rec r;

    if (kad_store_best(k, &w->target, KAD_USE_LIVE, &r) != 0)
        return;
    struct item_ref *item = kad_rec_item(&r);
    if (item == NULL)
        return;
    enum item_kind kind = r.kind;
    uint64_t print = print_of(k, &r);
    list_for_each(n, tmp, &w->watches)
    {
        struct watch *u = container_of(n, struct watch, in_slot);
        if (print != w->told || !u->knows)
            tell(u, item, kind);
    }
    w->told = print;
    item_ref_put(item);
}

static void watch_stored(struct kad *k, const struct kad_id *target)
{
    struct slot *w = map_len(&k->w->targets) > 0 ? map_get(&k->w->targets, target) : NULL;

    if (w != NULL)
        tell_slot(w);
}

/* ---- subscriptions ---- */

static void server_due(struct loop_timer *t)
{
    ask_server(container_of(t, struct server, timer));
}

static struct server *server_of(struct kad *k, kad_peer peer)
{
    struct server *s = map_get(&k->w->servers, &peer);

    if (s != NULL)
        return s;
    s = calloc(1, sizeof *s);
    if (s == NULL)
        return NULL;
    s->k = k;
    s->peer = peer;
    s->timer.fn = server_due;
    s->renew_ns = LOOP_NEVER;
    list_init(&s->links);
    if (map_put(&k->w->servers, s) != 0) {
        free(s);
        return NULL;
    }
    k->peers.ref(k->peers.arg, peer);
    list_push_back(&k->w->all_servers, &s->all);
    return s;
}

static struct link *link_to(const struct slot *w, kad_peer peer)
{
    struct list_node *n, *tmp;

    list_for_each(n, tmp, &w->links)
    {
        struct link *l = container_of(n, struct link, in_slot);
        if (l->server->peer == peer)
            return l;
    }
    return NULL;
}

static size_t count_links(const struct slot *w)
{
    struct list_node *n, *tmp;
    size_t links = 0;

    list_for_each(n, tmp, &w->links) links++;
    return links;
}

static bool subscribe(struct slot *w, kad_peer peer)
{
    struct kad *k = w->k;

    if (link_to(w, peer) != NULL)
        return true;
    struct server *s = server_of(k, peer);
    struct link *l = s != NULL && s->n < KAD_WATCHES_PER_PEER ? calloc(1, sizeof *l) : NULL;
    if (l == NULL) {
        if (s != NULL && s->n == 0 && s->call == NULL)
            free_server(s);
        return false;
    }
    l->slot = w;
    l->server = s;
    list_push_back(&w->links, &l->in_slot);
    list_push_front(&s->links, &l->in_server); /* those that are wanted stand first */
    s->n++;
    ask_soon(s, ASK_DELAY_NS);
    return true;
}

/* The subscriptions that were asked for, in their order. Returns how many it should hold. */
static size_t take_grants(struct server *s, const struct kad_msg *rsp)
{
    struct list_node *n, *tmp;
    size_t i = 0, held = 0;

    list_for_each(n, tmp, &s->links)
    {
        struct link *l = container_of(n, struct link, in_server);
        struct slot *w = l->slot;
        if (l->state == ASKED && (i >= rsp->n_items || rsp->items[i++].result != 0)) {
            free_link(l);
            if (list_empty(&w->links) && !w->looking)
                schedule(w, POLL_NS);
            continue;
        }
        if (l->state == ASKED)
            l->state = HELD;
        held += l->state == HELD;
    }
    return held;
}

static void want_all(struct server *s)
{
    struct list_node *n, *tmp;

    list_for_each(n, tmp, &s->links) container_of(n, struct link, in_server)->state = WANTED;
}

static bool wants_more(const struct server *s)
{
    return s->reset || s->n_dropped > 0 ||
           container_of(list_first(&s->links), struct link, in_server)->state == WANTED;
}

/* What a server said to a request. */
static void server_answered(struct kad_call *c, struct kad_msg *rsp, enum kad_fail why)
{
    struct server *s = c->watch;
    uint64_t delay_ns = ASK_DELAY_NS;

    (void)why;
    s->call = NULL;
    if (rsp == NULL || (rsp->lease_s == 0 && !s->ending)) {
        lose_server(s);
        return;
    }
    if (!s->ending) {
        size_t held = take_grants(s, rsp);
        s->renew_ns = kad_after(s->k, (uint64_t)rsp->lease_s * NS_PER_S / 2);
        if (rsp->held < held) { /* it has forgotten some */
            want_all(s);
            delay_ns = FORGOTTEN_NS;
        }
    }
    if (s->n == 0)
        free_server(s);
    else if (wants_more(s))
        ask_soon(s, delay_ns);
    else
        loop_timer_set(&s->k->loop, &s->timer, s->renew_ns);
}

/* Targets of the next request, out of what is to be ended, else of what is wanted. With neither it
 * renews the lease of the rest. */
static size_t next_targets(struct server *s, struct kad_id *out)
{
    struct list_node *n, *tmp;
    size_t count = 0;

    if (s->reset)
        want_all(s);
    s->ending = s->reset || s->n_dropped > 0;
    if (s->ending) {
        count = s->reset ? 0 : s->n_dropped;
        memcpy(out, s->dropped, count * sizeof *out);
        s->n_dropped = 0;
        s->reset = false;
        return count;
    }
    list_for_each(n, tmp, &s->links)
    {
        struct link *l = container_of(n, struct link, in_server);
        if (count == KAD_MSG_MAX_TARGETS)
            break;
        if (l->state != WANTED)
            continue;
        out[count++] = l->slot->target;
        l->state = ASKED;
    }
    return count;
}

static void ask_server(struct server *s)
{
    struct kad *k = s->k;
    struct kad_id *targets = calloc(KAD_MSG_MAX_TARGETS, sizeof *targets);
    struct kad_msg m;

    if (targets == NULL) {
        lose_server(s);
        return;
    }
    kad_msg_init(&m, KAD_WATCH, false);
    int rc = kad_msg_set_targets(&m, targets, next_targets(s, targets));
    m.lease_s = s->ending ? 0 : KAD_WATCH_LEASE_S;
    free(targets);
    if (rc == 0)
        s->call = kad_call_start(k, NULL, s->peer, &m, server_answered);
    else
        kad_msg_clear(&m);
    if (s->call == NULL)
        lose_server(s);
    else
        s->call->watch = s;
}

/* ---- looking up ---- */

/* The servers of a slot: the closest two that speak the native dialect. Others are left. */
static void choose_servers(struct slot *w, const kad_peer *closest, size_t n)
{
    struct kad *k = w->k;
    kad_peer chosen[SERVERS];
    size_t n_chosen = 0;
    struct list_node *pos, *tmp;

    for (size_t i = 0; i < n && n_chosen < SERVERS; i++) {
        if (kad_is_native(k, closest[i]))
            chosen[n_chosen++] = closest[i];
    }
    list_for_each(pos, tmp, &w->links)
    {
        struct link *l = container_of(pos, struct link, in_slot);
        bool stays = false;
        for (size_t i = 0; i < n_chosen; i++)
            stays |= chosen[i] == l->server->peer;
        if (!stays && n_chosen > 0)
            drop_link(l);
    }
    for (size_t i = 0; i < n_chosen; i++)
        (void)subscribe(w, chosen[i]);
}

static void looked_up(struct kad_op *op, int err)
{
    struct kad *k = op->k;
    struct slot *w = map_get(&k->w->targets, &op->rep.target);
    kad_peer closest[TABLE_MAX_K];

    (void)err;
    k->w->polls--;
    next_look_up(k);
    if (w == NULL || !w->looking)
        return;
    w->looking = false;
    choose_servers(w, closest, kad_lookup_closest(&op->lk, closest, k->lim.k));
    tell_slot(w); /* what was there before the first change */
    if (list_empty(&w->links)) {
        k->w->stat.polls++;
        schedule(w, POLL_NS);
    } else {
        schedule(w, count_links(w) < SERVERS ? CHECK_NS / 4 : CHECK_NS);
    }
}

static void look_up(struct slot *w)
{
    struct kad *k = w->k;

    k->w->polls++;
    w->looking = true;
    if (kad_get_again(k, &w->target, looked_up)) /* may have ended already */
        return;
    k->w->polls--;
    w->looking = false;
    schedule(w, RETRY_NS);
}

/* The next slot in the queue, if it may be: one look-up in PACE_NS asks less of every single peer than it
 * lets a caller have. */
static void next_look_up(struct kad *k)
{
    if (list_empty(&k->w->queue) || k->w->polls >= POLLS_AT_ONCE || loop_timer_armed(&k->w->pace))
        return;
    loop_timer_set(&k->loop, &k->w->pace, kad_after(k, PACE_NS));
    look_up(list_pop_front_as(&k->w->queue, struct slot, in_queue));
}

static void pace_due(struct loop_timer *t)
{
    next_look_up(container_of(t, struct kad_watching, pace)->k);
}

static void slot_due(struct loop_timer *t)
{
    struct slot *w = container_of(t, struct slot, timer);

    if (w->looking || list_node_is_linked(&w->in_queue))
        return;
    list_push_back(&w->k->w->queue, &w->in_queue);
    next_look_up(w->k);
}

/* ---- users ---- */

static struct slot *slot_of(struct kad *k, const struct kad_id *target, const struct pubkey *pk,
                            const void *salt, size_t salt_len)
{
    struct slot *w = map_get(&k->w->targets, target);

    if (w != NULL)
        return w;
    w = calloc(1, sizeof *w);
    uint8_t *copy = malloc(salt_len + 1);
    if (w == NULL || copy == NULL)
        goto fail;
    if (salt_len > 0)
        memcpy(copy, salt, salt_len);
    w->k = k;
    w->target = *target;
    w->pk = *pk;
    w->salt = copy;
    w->salt_len = salt_len;
    w->timer.fn = slot_due;
    list_init(&w->watches);
    list_init(&w->links);
    if (map_put(&k->w->targets, w) == 0)
        return w;
fail:
    free(copy);
    free(w);
    return NULL;
}

uint32_t kad_watch(struct kad *k, const struct pubkey *pk, const void *salt, size_t salt_len,
                   void *user, uint64_t now_ns)
{
    uint32_t number = 0;

    if (salt_len > ITEM_MAX_SALT || kad_watching(k) == NULL ||
        map_len(&k->w->watches) >= KAD_MAX_WATCHES)
        return 0;
    kad_enter(k, now_ns);
    struct kad_id target = kad_target(pk, salt, salt_len);
    struct watch *u = calloc(1, sizeof *u);
    struct slot *w = u != NULL ? slot_of(k, &target, pk, salt, salt_len) : NULL;
    if (w == NULL) {
        free(u);
        kad_leave(k);
        return 0;
    }
    u->slot = w;
    u->user = user;
    do
        u->number = kad_number(&k->next_op);
    while (map_get(&k->ops, &u->number) != NULL || map_get(&k->w->watches, &u->number) != NULL);
    bool first = list_empty(&w->watches);
    list_push_back(&w->watches, &u->in_slot);
    if (map_put(&k->w->watches, u) == 0) {
        number = u->number;
        tell_slot(w);
        if (first)
            loop_timer_set(&k->loop, &w->timer, k->now_ns);
    } else {
        list_remove(&u->in_slot);
        free(u);
        if (list_empty(&w->watches))
            free_slot(w);
    }
    kad_leave(k);
    return number;
}

void kad_unwatch(struct kad *k, uint32_t number)
{
    kad_enter(k, k->now_ns);
    struct watch *u = k->w != NULL ? map_del(&k->w->watches, &number) : NULL;
    if (u != NULL) {
        struct slot *w = u->slot;
        list_remove(&u->in_slot);
        free(u);
        if (list_empty(&w->watches))
            free_slot(w);
    }
    kad_leave(k);
}

/* ---- what servers push ---- */

struct pushed { /* an item on its way through the doors */
    struct kad_accept accept;
    struct list_node node;
};

static void free_pushed(struct pushed *p)
{
    kad_accept_clear(&p->accept);
    list_remove(&p->node);
    free(p);
}

static void let_in(struct kad_accept *a, int err)
{
    (void)err; /* the store has told the watches, or it was nothing new */
    free_pushed(container_of(a, struct pushed, accept));
}

static void take_pushed(struct kad *k, kad_peer from, const struct kad_msg_item *mi)
{
    struct kad_id target = mi->has_target ? mi->target : item_target(&mi->item->item);
    struct slot *w = map_get(&k->w->targets, &target);
    struct link *l = w != NULL ? link_to(w, from) : NULL;
    struct pushed *p = l != NULL ? calloc(1, sizeof *p) : NULL;

    if (p == NULL) {
        k->w->stat.pushes_unasked++;
        return;
    }
    k->w->stat.pushes_got++;
    p->accept = (struct kad_accept){.via = KAD_VIA_CACHE, .done = let_in, .arg = p};
    list_push_back(&k->w->pushed, &p->node);
    if (kad_accept_begin(&p->accept, k, mi->item, &target, NULL) != ERR_PENDING)
        free_pushed(p);
}

void kad_changed(struct kad *k, kad_peer from, struct kad_msg *m, uint64_t now_ns)
{
    kad_enter(k, now_ns);
    if (m->network != k->network || k->w == NULL || map_get(&k->w->servers, &from) == NULL) {
        if (kad_watching(k) != NULL)
            k->w->stat.pushes_unasked++;
    } else if (kad_note_request(k, from)) {
        kad_note_charge(k, from, (unsigned)(m->n_items / KAD_BATCH_COST));
        for (size_t i = 0; i < m->n_items; i++)
            take_pushed(k, from, &m->items[i]);
    }
    kad_msg_clear(m);
    kad_leave(k);
}

bool kad_keeps(const struct kad *k, kad_peer peer)
{
    return k->w != NULL && (kad_is_watcher(k, peer) || map_get(&k->w->servers, &peer) != NULL);
}

/* ---- life ---- */

static void init(struct kad *k)
{
    map_init(&k->w->watches, MAP_KEY(struct watch, number), k->env->hash_key, KAD_MAX_WATCHES);
    map_init(&k->w->targets, MAP_KEY(struct slot, target), k->env->hash_key, KAD_MAX_WATCHES);
    map_init(&k->w->servers, MAP_KEY(struct server, peer), k->env->hash_key, KAD_MAX_WATCHERS);
    list_init(&k->w->pushed);
    list_init(&k->w->queue);
    k->w->pace.fn = pace_due;
    list_init(&k->w->all_servers);
}

static void free_ours(struct kad *k)
{
    struct watch *u;
    struct pushed *p;
    struct server *s;

    while ((p = list_first_as(&k->w->pushed, struct pushed, node)) != NULL)
        free_pushed(p);
    for (struct map_iter it = map_iter(&k->w->watches); (u = map_next(&it)) != NULL;) {
        map_iter_del(&it);
        struct slot *w = u->slot;
        list_remove(&u->in_slot);
        free(u);
        if (list_empty(&w->watches))
            free_slot(w);
    }
    while ((s = list_first_as(&k->w->all_servers, struct server, all)) != NULL)
        free_server(s);
    loop_timer_cancel(&k->loop, &k->w->pace);
    map_free(&k->w->watches);
    map_free(&k->w->targets);
    map_free(&k->w->servers);
}

struct kad_watching *kad_watching(struct kad *k)
{
    if (k->w == NULL && (k->w = calloc(1, sizeof *k->w)) != NULL) {
        k->w->k = k;
        init(k);
        kad_watched_init(k);
    }
    return k->w;
}

void kad_watching_free(struct kad *k)
{
    if (k->w == NULL)
        return;
    free_ours(k);
    kad_watched_free(k);
    free(k->w);
    k->w = NULL;
}

void kad_slot_changed(struct kad *k, const struct kad_id *target)
{
    if (k->w == NULL)
        return;
    kad_watched_stored(k, target);
    watch_stored(k, target);
}

void kad_watch_stat(const struct kad *k, struct kad_watch_stat *out)
{
    memset(out, 0, sizeof *out);
    if (k->w == NULL)
        return;
    *out = k->w->stat;
    out->watches = map_len(&k->w->watches);
    out->watched = k->w->n_subs;
    out->watchers = map_len(&k->w->watchers);
}
