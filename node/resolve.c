#include "node/resolve.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "base/map.h"

struct cached {
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
    size_t n_waiting;
    uint64_t next_handle;
    struct resolve_stat stat;
};

static const char salt[] = "dmsg";

/* ---- cache ---- */

static void cached_free(struct resolve *r, struct cached *c)
{
    map_del(&r->cache, &c->pk);
    list_remove(&c->age);
    entry_free(c->entry);
    free(c);
}

static struct cached *cache_get(struct resolve *r, const struct pubkey *pk)
{
    struct cached *c = map_get(&r->cache, pk);
    if (c != NULL && c->until_ns <= r->loop->now_ns) {
        cached_free(r, c);
        return NULL;
    }
    return c;
}

/* Takes the entry over. */
static struct cached *cache_put(struct resolve *r, const struct pubkey *pk, struct entry *e)
{
    struct cached *c = map_get(&r->cache, pk);
    if (c == NULL) {
        while (map_len(&r->cache) >= RESOLVE_CACHE_MAX)
            cached_free(r, list_first_as(&r->ages, struct cached, age));
        if ((c = calloc(1, sizeof(*c))) != NULL)
            c->pk = *pk;
        if (c == NULL || map_put(&r->cache, c) < 0) {
            free(c);
            entry_free(e);
            return NULL;
        }
    } else {
        entry_free(c->entry);
        list_remove(&c->age);
    }
    list_push_back(&r->ages, &c->age);
    c->entry = e;
    c->distrusted = false;
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

/* An entry out of an item, when it is one of the asked key. */
static struct entry *entry_of(const struct pubkey *pk, const struct item *it)
{
    struct entry *e = NULL;
    if (entry_parse(&e, (const char *)it->v, it->v_len) < 0)
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

static struct entry *local_entry(struct resolve *r, const struct pubkey *pk, bool stale_too)
{
    struct store_rec rec;
    bool fresh = false;
    if (r->host == NULL ||
        kad_local(host_kad(r->host), pk, salt, sizeof(salt) - 1, &rec, &fresh, r->loop->now_ns) < 0)
        return NULL;
    return fresh || stale_too ? entry_of(pk, &rec.item) : NULL;
}

/* What can be said without asking anybody. True when it was answered. */
static bool answer_now(struct resolve *r, const struct pubkey *pk, unsigned flags, resolve_fn *fn,
                       void *arg)
{
    struct cached *c = cache_get(r, pk);
    struct resolve_answer a = {.source = RESOLVE_CACHE};

    if (c != NULL && !c->distrusted) {
        a.err = c->entry != NULL ? 0 : ERR_NOT_FOUND;
        a.entry = c->entry;
        if (c->entry != NULL || !(flags & RESOLVE_LOCAL_ONLY)) {
            answer(r, flags, fn, arg, &a);
            return true;
        }
    }
    if (c != NULL && c->distrusted && !(flags & RESOLVE_LOCAL_ONLY))
        return false;
    struct entry *e = local_entry(r, pk, (flags & RESOLVE_LOCAL_ONLY) != 0);
    if (e == NULL)
        return false;
    c = cache_put(r, pk, e);
    if (c == NULL)
        return false;
    a.source = RESOLVE_LOCAL;
    a.entry = c->entry;
    answer(r, flags, fn, arg, &a);
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

bool resolve_report(struct resolve *r, const struct kad_report *rep)
{
    struct list_node *pos, *tmp;
    struct lookup *l = NULL;
    list_for_each(pos, tmp, &r->all_lookups)
    {
        if (rep->user == container_of(pos, struct lookup, node))
            l = rep->user;
    }
    if (l == NULL || l->op != rep->op)
        return false;
    struct entry *e =
        rep->err == 0 && rep->item != NULL ? entry_of(&l->pk, &rep->item->item) : NULL;
    bool certain = e != NULL || rep->err == ERR_NOT_FOUND || rep->err == 0;
    struct cached *c = certain ? cache_put(r, &l->pk, e) : NULL;
    struct resolve_answer a = {
        .err = e != NULL && c != NULL ? 0
               : rep->err != 0        ? rep->err
                                      : ERR_NOT_FOUND,
        .source = rep->source == KAD_SRC_LOCAL ? RESOLVE_LOCAL : RESOLVE_DHT,
        .entry = c != NULL ? c->entry : NULL,
        .hops = rep->hops,
        .asked = rep->asked,
        .ms = (unsigned)((r->loop->now_ns - l->started_ns) / NS_PER_MS),
    };
    struct list waiters;
    list_init(&waiters);
    list_splice(&waiters, &l->waiters);
    lookup_free(r, l);
    struct waiter *w;
    while ((w = list_pop_front_as(&waiters, struct waiter, node)) != NULL) {
        r->n_waiting--;
        answer(r, w->flags, w->fn, w->arg, &a);
        free(w);
    }
    return true;
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

void resolve_cancel(struct resolve *r, uint64_t handle)
{
    struct list_node *pos, *tmp, *wpos, *wtmp;
    if (handle == 0)
        return;
    list_for_each(pos, tmp, &r->all_lookups)
    {
        struct lookup *l = container_of(pos, struct lookup, node);
        list_for_each(wpos, wtmp, &l->waiters)
        {
            struct waiter *w = container_of(wpos, struct waiter, node);
            if (w->handle != handle)
                continue;
            list_remove(&w->node);
            r->n_waiting--;
            free(w);
            return; /* the question itself goes on: its answer fills the cache */
        }
    }
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
        cached_free(r, c);
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
