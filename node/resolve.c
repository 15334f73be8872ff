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
    uint64_t until_ns;
    bool distrusted; /* a dial by it failed: the next look-up asks the network */
    struct list_node age;
};

struct lookup { /* one question to the network, however many wait for it */
    struct pubkey pk;
    struct list waiters;
    uint32_t op;
    uint64_t started_ns;
    struct list_node node;
};

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
    struct map cache;
    struct list ages; /* oldest first */
    struct map lookups;
    struct list all_lookups;
    struct list answering; /* lookups that have ended, while their waiters are told */
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
    if (c != NULL && c->until_ns <= r->loop->now_ns) {
        cached_drop(r, c);
        return NULL;
    }
    return c;
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

static struct entry *local_entry(struct resolve *r, const struct pubkey *pk, bool *fresh,
                                 bool *withdrawn)
{
    struct store_rec rec;
    *fresh = *withdrawn = false;
    if (r->host == NULL ||
        kad_local(host_kad(r->host), pk, salt, sizeof(salt) - 1, &rec, fresh, r->loop->now_ns) < 0)
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
    struct entry *e = local_entry(r, pk, &fresh, &withdrawn);
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

static void lookup_free(struct resolve *r, struct lookup *l)
{
    map_del(&r->lookups, &l->pk);
    list_remove(&l->node);
    free(l);
}

static struct lookup *lookup_start(struct resolve *r, const struct pubkey *pk)
{
    struct lookup *l = map_get(&r->lookups, pk);
    if (l != NULL)
        return l;
    if (r->host == NULL || (l = calloc(1, sizeof(*l))) == NULL)
        return NULL;
    l->pk = *pk;
    l->started_ns = r->loop->now_ns;
    list_init(&l->waiters);
    if (map_put(&r->lookups, l) < 0) {
        free(l);
        return NULL;
    }
    list_push_back(&r->all_lookups, &l->node);
    l->op = kad_get(host_kad(r->host), pk, salt, sizeof(salt) - 1, KAD_GET_NETWORK | KAD_GET_FIRST,
                    l, r->loop->now_ns);
    if (l->op == 0) {
        lookup_free(r, l);
        return NULL;
    }
    host_kick(r->host);
    return l;
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
    map_del(&r->lookups, &l->pk);
    list_remove(&l->node);
    list_push_back(&r->answering, &l->node);
    while ((w = list_pop_front_as(&l->waiters, struct waiter, node)) != NULL) {
        r->n_waiting--;
        answer(r, w->flags, w->fn, w->arg, a);
        free(w);
    }
    list_remove(&l->node);
    free(l);
}

bool resolve_report(struct resolve *r, const struct kad_report *rep)
{
    struct lookup *l = lookup_of(r, rep);
    if (l == NULL)
        return false;
    bool withdrawn;
    struct entry *e =
        rep->err == 0 && rep->item != NULL ? entry_of(&l->pk, &rep->item->item, &withdrawn) : NULL;
    bool certain = e != NULL || rep->err == ERR_NOT_FOUND || rep->err == 0, found = e != NULL;
    struct cached *c = certain ? cache_put(r, &l->pk, e) : NULL;
    struct resolve_answer a = {
        .err = found           ? c != NULL ? 0 : ERR_NOMEM
               : rep->err != 0 ? rep->err
                               : ERR_NOT_FOUND,
        .source = rep->source == KAD_SRC_LOCAL ? RESOLVE_LOCAL : RESOLVE_DHT,
        .entry = c != NULL ? c->entry : NULL,
        .hops = rep->hops,
        .asked = rep->asked,
        .ms = (unsigned)((r->loop->now_ns - l->started_ns) / NS_PER_MS),
    };
    if (c != NULL)
        c->refs++;
    tell_waiters(r, l, &a);
    if (c != NULL)
        cached_unref(c);
    return true;
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
            a.err = r->host == NULL ? ERR_NO_ROUTE : ERR_BUSY;
        answer(r, flags, fn, arg, &a);
        return 0;
    }
    w->handle = ++r->next_handle;
    w->flags = flags;
    w->fn = fn;
    w->arg = arg;
    list_push_back(&l->waiters, &w->node);
    r->n_waiting++;
    return w->handle;
}

static struct waiter *find_waiter(const struct list *lookups, uint64_t handle)
{
    struct list_node *pos, *tmp, *wpos, *wtmp;
    list_for_each(pos, tmp, lookups)
    {
        struct lookup *l = container_of(pos, struct lookup, node);
        list_for_each(wpos, wtmp, &l->waiters)
        {
            struct waiter *w = container_of(wpos, struct waiter, node);
            if (w->handle == handle)
                return w;
        }
    }
    return NULL;
}

void resolve_cancel(struct resolve *r, uint64_t handle)
{
    struct waiter *w = handle != 0 ? find_waiter(&r->all_lookups, handle) : NULL;
    if (handle != 0 && w == NULL)
        w = find_waiter(&r->answering, handle);
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

void resolve_stat(const struct resolve *r, struct resolve_stat *out)
{
    *out = r->stat;
    out->entries = map_len(&r->cache);
    out->waiting = r->n_waiting;
}
