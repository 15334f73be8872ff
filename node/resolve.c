#include "node/resolve.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "base/map.h"

struct cached {
    unsigned refs; /* the cache's, and one while somebody is shown the entry */
    struct pubkey pk;
    struct entry *entry; /* NULL: known not to be there */
    uint64_t until_ns;   /* then the network is asked; what it was is kept for RESOLVE_STALE_NS */
    bool distrusted;     /* a dial by it failed: the next look-up asks the network */
    struct list_node age;
};

struct lookup { /* one question to the network, however many wait for it */
    struct resolve *owner;
    struct pubkey pk;
    struct list waiters;
    uint32_t op;   /* in the DHT; 0: that is over */
    uint64_t http; /* the discovery's handle; 0: not asked now */
    bool http_over;
    struct loop_timer http_timer;
    bool told;             /* the waiters; what else comes refreshes the cache */
    bool mapped;           /* it is the one in resolve->lookups */
    int dht_err, http_err; /* why it is not found there; 0: was not asked */
    unsigned hops, asked, answered;
    uint64_t bytes;
    enum kad_end end;
    uint64_t started_ns;
    struct loop_timer alone_timer; /* armed while there is no DHT peer … */
    bool alone;                    /* … and there was none in time */
    struct list_node node;
};

#define RECENT        32 /* look-ups in the DHT that its hit rate is taken of */
#define RECENT_ENOUGH 8

struct waiter {
    struct list_node node; /* in lookup->waiters */
    uint64_t handle;
    unsigned flags;
    resolve_fn *fn;
    void *arg;
};

struct resolve {
    struct loop *loop;
    struct env *env;
    struct host *host;
    struct disc_port port; /* get NULL: no discovery */
    bool http_only;
    uint32_t recent; /* a bit for each of the last look-ups in the DHT: found */
    unsigned n_recent;
    struct map cache;
    struct list ages; /* oldest first */
    struct map lookups;
    struct list all_lookups;
    struct list answering; /* lookups that have ended, while their waiters are told */
    struct list impatient; /* waiters that are being told before their look-up has ended */
    size_t n_waiting;
    uint64_t next_handle;
    struct resolve_stat stat;
};

static const char salt[] = "dmsg";

/* ---- cache ---- */

static void cached_unref(struct cached *c)
{
    if (--c->refs > 0)
        return;
    entry_free(c->entry);
    free(c);
}

static void cached_drop(struct resolve *r, struct cached *c)
{
    map_del(&r->cache, &c->pk);
    list_remove(&c->age);
    cached_unref(c);
}

static struct cached *cache_get(struct resolve *r, const struct pubkey *pk)
{
    struct cached *c = map_get(&r->cache, pk);
    uint64_t now = r->loop->now_ns;
    if (c == NULL || c->until_ns > now)
        return c;
    if (c->entry == NULL || now - c->until_ns >= RESOLVE_STALE_NS)
        cached_drop(r, c);
    return NULL;
}

/* What was known before nobody could be asked any more. */
static struct cached *cache_stale(struct resolve *r, const struct pubkey *pk)
{
    struct cached *c = map_get(&r->cache, pk);
    return c != NULL && c->entry != NULL && !c->distrusted ? c : NULL;
}

/* Takes the entry over, in place of what there was. NULL: no memory, the entry is gone. */
static struct cached *cache_put(struct resolve *r, const struct pubkey *pk, struct entry *e)
{
    struct cached *c = map_get(&r->cache, pk);
    if (c != NULL)
        cached_drop(r, c);
    while (map_len(&r->cache) >= RESOLVE_CACHE_MAX)
        cached_drop(r, list_first_as(&r->ages, struct cached, age));
    if ((c = calloc(1, sizeof(*c))) != NULL)
        c->pk = *pk;
    if (c == NULL || map_put(&r->cache, c) < 0) {
        free(c);
        entry_free(e);
        return NULL;
    }
    list_push_back(&r->ages, &c->age);
    c->refs = 1;
    c->entry = e;
    c->until_ns = r->loop->now_ns +
                  (e != NULL ? env_jitter_ns(r->env, RESOLVE_CACHE_NS, 10) : RESOLVE_MISS_NS);
    return c;
}

void resolve_distrust(struct resolve *r, const struct pubkey *pk)
{
    struct cached *c = map_get(&r->cache, pk);
    if (c != NULL)
        c->distrusted = true;
    if (r->host != NULL) {
        kad_distrust(host_kad(r->host), pk, salt, sizeof(salt) - 1);
        host_kick(r->host);
    }
}

/* ---- answers ---- */

/* An entry out of an item, when it is one of the asked key; *withdrawn when it is a tombstone. */
static struct entry *entry_of(const struct pubkey *pk, const struct item *it, bool *withdrawn)
{
    struct entry *e = NULL;
    int rc = entry_parse(&e, (const char *)it->v, it->v_len);
    *withdrawn = rc == ERR_NOT_FOUND;
    if (rc < 0)
        return NULL;
    if (!pubkey_equal(&e->static_pk, pk) || !e->has_signature) {
        entry_free(e);
        return NULL;
    }
    return e;
}

static void count(struct resolve *r, unsigned flags, enum resolve_source source)
{
    if (flags & RESOLVE_UNCOUNTED)
        return;
    switch (source) {
    case RESOLVE_CACHE:
        r->stat.cache++;
        return;
    case RESOLVE_LOCAL:
    case RESOLVE_DHT:
        r->stat.dht++;
        return;
    case RESOLVE_HTTP:
        r->stat.http++;
        return;
    case RESOLVE_MISS:
        r->stat.miss++;
        return;
    }
}

static void answer(struct resolve *r, unsigned flags, resolve_fn *fn, void *arg,
                   const struct resolve_answer *a)
{
    count(r, flags, a->err == 0 ? a->source : RESOLVE_MISS);
    fn(arg, a);
}

static struct entry *local_entry(struct resolve *r, const struct pubkey *pk, bool local_only,
                                 bool *fresh, bool *withdrawn)
{
    struct store_rec rec;
    *fresh = *withdrawn = false;
    if (r->host == NULL)
        return NULL;
    struct kad *k = host_kad(r->host);
    uint64_t now = r->loop->now_ns;
    int rc = local_only ? kad_peek(k, pk, salt, sizeof(salt) - 1, &rec, fresh, now)
                        : kad_local(k, pk, salt, sizeof(salt) - 1, &rec, fresh, now);
    if (rc < 0)
        return NULL;
    return entry_of(pk, &rec.item, withdrawn);
}

/* Show what is in the cache; whatever fn does, the entry outlives it. */
static void answer_cached(struct resolve *r, struct cached *c, enum resolve_source source,
                          unsigned flags, resolve_fn *fn, void *arg)
{
    struct resolve_answer a = {
        .err = c->entry != NULL ? 0 : ERR_NOT_FOUND, .source = source, .entry = c->entry};
    c->refs++;
    answer(r, flags, fn, arg, &a);
    cached_unref(c);
}

/* What can be said without asking anybody. True when it was answered. */
static bool answer_now(struct resolve *r, const struct pubkey *pk, unsigned flags, resolve_fn *fn,
                       void *arg)
{
    struct cached *c = cache_get(r, pk);
    bool local_only = (flags & RESOLVE_LOCAL_ONLY) != 0, fresh, withdrawn,
         distrusted = c != NULL && c->distrusted;

    if (c != NULL && c->entry != NULL && !distrusted) {
        answer_cached(r, c, RESOLVE_CACHE, flags, fn, arg);
        return true;
    }
    if (distrusted && !local_only)
        return false;
    struct entry *e = local_entry(r, pk, local_only, &fresh, &withdrawn);
    if ((e != NULL || withdrawn) && fresh && !distrusted) {
        c = cache_put(r, pk, e);
        if (c != NULL)
            answer_cached(r, c, RESOLVE_LOCAL, flags, fn, arg);
        return c != NULL;
    }
    if (e != NULL && local_only) { /* old, but all there is; the next user still asks the network */
        struct resolve_answer a = {.source = RESOLVE_LOCAL, .entry = e};
        answer(r, flags, fn, arg, &a);
        entry_free(e);
        return true;
    }
    entry_free(e);
    if (c == NULL || local_only)
        return false;
    answer_cached(r, c, RESOLVE_CACHE, flags, fn, arg); /* known to be missing */
    return true;
}

/* ---- asking the network ---- */

static void lookup_unmap(struct resolve *r, struct lookup *l)
{
    if (l->mapped)
        (void)map_del(&r->lookups, &l->pk);
    l->mapped = false;
}

static void lookup_free(struct resolve *r, struct lookup *l)
{
    lookup_unmap(r, l);
    if (l->http != 0)
        r->port.cancel(r->port.arg, l->http);
    loop_timer_cancel(r->loop, &l->http_timer);
    loop_timer_cancel(r->loop, &l->alone_timer);
    list_remove(&l->node);
    free(l);
}

static bool has_peers(const struct resolve *r)
{
    struct kad_stat st;
    if (r->host == NULL)
        return false;
    kad_stat(host_kad(r->host), &st);
    return st.routing_peers > 0;
}

static struct lookup *lookup_of(struct resolve *r, const struct kad_report *rep)
{
    struct list_node *pos, *tmp;
    list_for_each(pos, tmp, &r->all_lookups)
    {
        struct lookup *l = container_of(pos, struct lookup, node);
        if (rep->user == l && rep->op == l->op)
            return l;
    }
    return NULL;
}

/* From now on a new question about this key is a new look-up; the waiters can still be cancelled by
 * those that are told before them. */
static void tell_waiters(struct resolve *r, struct lookup *l, const struct resolve_answer *a)
{
    struct waiter *w;
    lookup_unmap(r, l);
    l->told = true;
    list_remove(&l->node);
    list_push_back(&r->answering, &l->node);
    while ((w = list_pop_front_as(&l->waiters, struct waiter, node)) != NULL) {
        r->n_waiting--;
        answer(r, w->flags, w->fn, w->arg, a);
        free(w);
    }
    list_remove(&l->node);
    list_push_back(&r->all_lookups, &l->node);
}

/* e, which is taken over, or NULL: not found. */
static void tell(struct resolve *r, struct lookup *l, struct entry *e, int err,
                 enum resolve_source source)
{
    bool found = e != NULL, certain = found || err == ERR_NOT_FOUND;
    struct cached *c = certain ? cache_put(r, &l->pk, e) : cache_stale(r, &l->pk);
    struct resolve_answer a = {
        .err = c != NULL && c->entry != NULL ? 0
               : found                       ? ERR_NOMEM
                                             : err,
        .source = certain ? source : RESOLVE_CACHE,
        .entry = c != NULL ? c->entry : NULL,
        .hops = l->hops,
        .asked = l->asked,
        .answered = l->answered,
        .bytes = l->bytes,
        .end = l->end,
        .ms = (unsigned)((r->loop->now_ns - l->started_ns) / NS_PER_MS),
    };
    if (c != NULL)
        c->refs++;
    tell_waiters(r, l, &a);
    if (c != NULL)
        cached_unref(c);
}

/* Another source answered before; the newer entry stays. */
static void refresh(struct resolve *r, struct lookup *l, struct entry *e)
{
    struct cached *c = cache_get(r, &l->pk);
    if (c == NULL || c->entry == NULL || entry_cmp(e, c->entry) > 0)
        (void)cache_put(r, &l->pk, e);
    else
        entry_free(e);
}

/* The DHT's word counts when it knew somebody to ask, else the discovery's. */
static int miss_err(const struct lookup *l)
{
    if (l->dht_err == ERR_NOT_FOUND || l->http_err == 0)
        return l->dht_err;
    return l->http_err;
}

/* There is no DHT peer, and no other source has an answer: what is said to those that do not insist.
 * The entry, if any, is the cache's. */
static struct resolve_answer alone_answer(struct resolve *r, const struct lookup *l)
{
    const struct cached *c = l->http_err == ERR_NOT_FOUND ? NULL : cache_stale(r, &l->pk);
    return (struct resolve_answer){
        .err = c != NULL          ? 0
               : l->http_err != 0 ? l->http_err
                                  : ERR_NO_ROUTE,
        .source = RESOLVE_CACHE,
        .entry = c != NULL ? c->entry : NULL,
        .ms = (unsigned)((r->loop->now_ns - l->started_ns) / NS_PER_MS),
    };
}

static bool is_alone(const struct lookup *l)
{
    return l->alone && l->http_over && !l->told;
}

/* The look-up goes on, and is asked again for each of them: a callback may change the cache. */
static void tell_impatient(struct resolve *r, struct lookup *l)
{
    struct list_node *pos, *tmp;
    struct waiter *w;
    list_for_each(pos, tmp, &l->waiters)
    {
        if (container_of(pos, struct waiter, node)->flags & RESOLVE_FRESH)
            continue;
        list_remove(pos);
        list_push_back(&r->impatient, pos);
    }
    while ((w = list_pop_front_as(&r->impatient, struct waiter, node)) != NULL) {
        struct resolve_answer a = alone_answer(r, l);
        struct cached *c = a.entry != NULL ? cache_stale(r, &l->pk) : NULL;
        r->n_waiting--;
        if (c != NULL)
            c->refs++;
        answer(r, w->flags, w->fn, w->arg, &a);
        if (c != NULL)
            cached_unref(c);
        free(w);
    }
}

static void on_alone(struct loop_timer *t)
{
    struct lookup *l = container_of(t, struct lookup, alone_timer);
    l->alone = !has_peers(l->owner); /* otherwise they are asked now */
    if (is_alone(l))
        tell_impatient(l->owner, l);
}

/* A source has said its word: e (taken over), or NULL. */
static void source_over(struct resolve *r, struct lookup *l, struct entry *e,
                        enum resolve_source source)
{
    bool over = l->op == 0 && l->http_over;
    if (e != NULL && l->told)
        refresh(r, l, e);
    else if (e != NULL)
        tell(r, l, e, 0, source);
    else if (over && !l->told)
        tell(r, l, NULL, miss_err(l), RESOLVE_MISS);
    else if (is_alone(l))
        tell_impatient(r, l);
    if (over)
        lookup_free(r, l);
}

/* ---- the discovery ---- */

static void on_http(void *arg, const struct disc_answer *a)
{
    struct lookup *l = arg;
    struct resolve *r = l->owner;
    struct entry *e = NULL;
    l->http = 0;
    l->http_over = true;
    l->http_err = a->err;
    if (a->err == 0)
        l->http_err = entry_parse(&e, a->entry->text, a->entry->text_len);
    if (e != NULL && l->told && !a->verified) { /* a hint is no news */
        entry_free(e);
        e = NULL;
    }
    source_over(r, l, e, RESOLVE_HTTP);
}

static void http_start(struct resolve *r, struct lookup *l)
{
    loop_timer_cancel(r->loop, &l->http_timer);
    l->http = r->port.get(r->port.arg, &l->pk, on_http, l);
    if (l->http != 0)
        return;
    l->http_over = true;
    l->http_err = ERR_NOMEM;
    source_over(r, l, NULL, RESOLVE_MISS);
}

static void on_http_timer(struct loop_timer *t)
{
    struct lookup *l = container_of(t, struct lookup, http_timer);
    http_start(l->owner, l);
}

/* ---- the DHT ---- */

static void note_hit(struct resolve *r, bool found)
{
    r->recent = r->recent << 1 | (found ? 1u : 0u);
    r->n_recent += r->n_recent < RECENT;
}

/* Is it worth waiting a moment for the DHT alone? */
static bool dht_is_good(struct resolve *r)
{
    if (r->n_recent >= RECENT_ENOUGH && 2u * (unsigned)__builtin_popcount(r->recent) < r->n_recent)
        return false;
    return has_peers(r);
}

bool resolve_report(struct resolve *r, const struct kad_report *rep)
{
    struct lookup *l = lookup_of(r, rep);
    if (l == NULL)
        return false;
    bool withdrawn;
    struct entry *e =
        rep->err == 0 && rep->item != NULL ? entry_of(&l->pk, &rep->item->item, &withdrawn) : NULL;
    l->op = 0;
    l->dht_err = rep->err != 0 ? rep->err : ERR_NOT_FOUND;
    l->hops = rep->hops;
    l->asked = rep->asked;
    l->answered = rep->answered;
    l->bytes = rep->bytes;
    l->end = rep->end;
    note_hit(r, e != NULL);
    if (loop_timer_armed(&l->http_timer)) {
        loop_timer_cancel(r->loop, &l->http_timer);
        if (e == NULL) {
            http_start(r, l);
            return true;
        }
        l->http_over = true; /* not needed */
    }
    source_over(r, l, e, rep->source == KAD_SRC_LOCAL ? RESOLVE_LOCAL : RESOLVE_DHT);
    return true;
}

static void dht_start(struct resolve *r, struct lookup *l)
{
    l->dht_err = ERR_NO_ROUTE;
    if (r->http_only || r->host == NULL)
        return;
    /* Whoever is to be asked for its own entry must have been found already; and a session of a Go
     * client that is just beginning ends when a stream to it comes too early. */
    l->op = kad_get(host_kad(r->host), &l->pk, salt, sizeof(salt) - 1,
                    KAD_GET_NETWORK | KAD_GET_FIRST | KAD_GET_NO_OWNER, l, r->loop->now_ns);
    if (l->op == 0)
        l->dht_err = ERR_BUSY;
    else
        host_kick(r->host);
}

static struct lookup *lookup_start(struct resolve *r, const struct pubkey *pk)
{
    struct lookup *l = map_get(&r->lookups, pk);
    if (l != NULL)
        return l;
    if ((r->host == NULL && r->port.get == NULL) || (l = calloc(1, sizeof(*l))) == NULL)
        return NULL;
    l->owner = r;
    l->pk = *pk;
    l->started_ns = r->loop->now_ns;
    l->http_timer.fn = on_http_timer;
    l->alone_timer.fn = on_alone;
    l->http_over = r->port.get == NULL;
    list_init(&l->waiters);
    if (map_put(&r->lookups, l) < 0) {
        free(l);
        return NULL;
    }
    l->mapped = true;
    list_push_back(&r->all_lookups, &l->node);
    dht_start(r, l);
    if (l->op == 0 && l->http_over) {
        lookup_free(r, l);
        return NULL;
    }
    if (l->op != 0 && !has_peers(r))
        loop_timer_set(r->loop, &l->alone_timer, r->loop->now_ns + RESOLVE_ALONE_NS);
    if (!l->http_over)
        loop_timer_set(r->loop, &l->http_timer,
                       r->loop->now_ns +
                           (l->op != 0 && dht_is_good(r) ? RESOLVE_HTTP_AFTER_NS : 0));
    return l;
}

void resolve_stored(struct resolve *r, const struct store_rec *rec)
{
    struct cached *c;
    if (rec->item.salt_len == sizeof(salt) - 1 &&
        memcmp(rec->item.salt, salt, sizeof(salt) - 1) == 0 &&
        (c = map_get(&r->cache, &rec->charged)) != NULL)
        cached_drop(r, c);
}

uint64_t resolve_entry(struct resolve *r, const struct pubkey *pk, unsigned flags, resolve_fn *fn,
                       void *arg)
{
    struct resolve_answer a = {.err = ERR_NOT_FOUND, .source = RESOLVE_MISS};
    if (!(flags & RESOLVE_FRESH) && answer_now(r, pk, flags, fn, arg))
        return 0;
    struct lookup *l = flags & RESOLVE_LOCAL_ONLY ? NULL : lookup_start(r, pk);
    struct waiter *w = l != NULL && r->n_waiting < RESOLVE_WAITERS ? calloc(1, sizeof(*w)) : NULL;
    if (w == NULL) {
        if (!(flags & RESOLVE_LOCAL_ONLY))
            a.err = r->host == NULL && r->port.get == NULL ? ERR_NO_ROUTE : ERR_BUSY;
        answer(r, flags, fn, arg, &a);
        return 0;
    }
    w->handle = ++r->next_handle;
    w->flags = flags;
    w->fn = fn;
    w->arg = arg;
    list_push_back(&l->waiters, &w->node);
    r->n_waiting++;
    uint64_t handle = w->handle;
    if (!is_alone(l) || (flags & RESOLVE_FRESH))
        return handle;
    tell_impatient(r, l); /* that was found out already */
    return 0;
}

static struct waiter *find_in(const struct list *waiters, uint64_t handle)
{
    struct list_node *pos, *tmp;
    list_for_each(pos, tmp, waiters)
    {
        struct waiter *w = container_of(pos, struct waiter, node);
        if (w->handle == handle)
            return w;
    }
    return NULL;
}

static struct waiter *find_waiter(const struct list *lookups, uint64_t handle)
{
    struct list_node *pos, *tmp;
    list_for_each(pos, tmp, lookups)
    {
        struct waiter *w = find_in(&container_of(pos, struct lookup, node)->waiters, handle);
        if (w != NULL)
            return w;
    }
    return NULL;
}

void resolve_cancel(struct resolve *r, uint64_t handle)
{
    struct waiter *w = handle != 0 ? find_waiter(&r->all_lookups, handle) : NULL;
    if (handle != 0 && w == NULL)
        w = find_waiter(&r->answering, handle);
    if (handle != 0 && w == NULL)
        w = find_in(&r->impatient, handle);
    if (w == NULL)
        return;
    list_remove(&w->node); /* the question itself goes on: its answer fills the cache */
    r->n_waiting--;
    free(w);
}

/* ---- life ---- */

struct resolve *resolve_new(struct loop *loop, struct env *env)
{
    struct resolve *r = calloc(1, sizeof(*r));
    if (r == NULL)
        return NULL;
    r->loop = loop;
    r->env = env;
    map_init(&r->cache, MAP_KEY(struct cached, pk), env->hash_key, 0);
    map_init(&r->lookups, MAP_KEY(struct lookup, pk), env->hash_key, 0);
    list_init(&r->ages);
    list_init(&r->all_lookups);
    list_init(&r->answering);
    list_init(&r->impatient);
    return r;
}

void resolve_free(struct resolve *r)
{
    struct cached *c;
    struct lookup *l;
    struct waiter *w;
    if (r == NULL)
        return;
    while ((l = list_first_as(&r->all_lookups, struct lookup, node)) != NULL) {
        while ((w = list_pop_front_as(&l->waiters, struct waiter, node)) != NULL)
            free(w);
        lookup_free(r, l);
    }
    while ((c = list_first_as(&r->ages, struct cached, age)) != NULL)
        cached_drop(r, c);
    map_free(&r->cache);
    map_free(&r->lookups);
    free(r);
}

void resolve_set_host(struct resolve *r, struct host *h)
{
    r->host = h;
}

void resolve_set_http(struct resolve *r, const struct disc_port *port, bool http_only)
{
    struct list_node *pos, *tmp;
    list_for_each(pos, tmp, &r->all_lookups)
    {
        struct lookup *l = container_of(pos, struct lookup, node);
        if (l->http != 0)
            r->port.cancel(r->port.arg, l->http);
        l->http = 0;
        if (loop_timer_armed(&l->http_timer) || !l->http_over) {
            loop_timer_cancel(r->loop, &l->http_timer);
            l->http_over = true;
            l->http_err = ERR_CANCELLED;
            source_over(r, l, NULL, RESOLVE_MISS);
        }
    }
    r->port = port != NULL ? *port : (struct disc_port){0};
    r->http_only = http_only;
}

const char *resolve_source_name(enum resolve_source s)
{
    static const char *const names[] = {[RESOLVE_CACHE] = "cache",
                                        [RESOLVE_LOCAL] = "local",
                                        [RESOLVE_DHT] = "dht",
                                        [RESOLVE_HTTP] = "http",
                                        [RESOLVE_MISS] = "miss"};
    return names[s];
}

void resolve_stat(const struct resolve *r, struct resolve_stat *out)
{
    *out = r->stat;
    out->entries = map_len(&r->cache);
    out->waiting = r->n_waiting;
}
