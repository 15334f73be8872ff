#include "node/follow.h"

#include <stdlib.h>

#include "base/map.h"

static const char salt[] = "dmsg";

struct follow {
    struct loop *loop;
    struct host *host;
    struct map by_pk;
    struct list lru; /* dialled longest ago first */
    struct loop_timer timer;
    size_t watched;
};

struct one {
    struct pubkey pk;
    struct list_node node;
    uint64_t used_ns;
    uint32_t watch; /* 0 = none yet */
};

static void forget(struct follow *f, struct one *o)
{
    if (o->watch != 0) {
        kad_unwatch(host_kad(f->host), o->watch);
        f->watched--;
    }
    map_del(&f->by_pk, &o->pk);
    list_remove(&o->node);
    free(o);
}

static void arm(struct follow *f)
{
    const struct one *o = list_first_as(&f->lru, struct one, node);

    if (o != NULL)
        loop_timer_set(f->loop, &f->timer, o->used_ns + FOLLOW_IDLE_NS);
}

static void idle_due(struct loop_timer *t)
{
    struct follow *f = container_of(t, struct follow, timer);
    struct one *o;

    while ((o = list_first_as(&f->lru, struct one, node)) != NULL &&
           f->loop->now_ns - o->used_ns >= FOLLOW_IDLE_NS)
        forget(f, o);
    arm(f);
}

static struct one *remember(struct follow *f, const struct pubkey *pk)
{
    struct one *o = calloc(1, sizeof(*o));

    if (map_len(&f->by_pk) >= FOLLOW_MAX)
        forget(f, list_first_as(&f->lru, struct one, node));
    if (o == NULL)
        return NULL;
    o->pk = *pk;
    if (map_put(&f->by_pk, o) == 0)
        return o;
    free(o);
    return NULL;
}

void follow_used(struct follow *f, const struct pubkey *pk)
{
    struct one *o = map_get(&f->by_pk, pk);
    bool again = o != NULL;

    if (!again && (o = remember(f, pk)) == NULL)
        return;
    list_remove(&o->node);
    list_push_back(&f->lru, &o->node);
    o->used_ns = f->loop->now_ns;
    if (again && o->watch == 0) {
        o->watch = kad_watch(host_kad(f->host), pk, salt, sizeof(salt) - 1, f, f->loop->now_ns);
        f->watched += o->watch != 0;
        host_kick(f->host);
    }
    arm(f);
}

/* The store's hook has told resolve already. */
bool follow_report(const struct follow *f, const struct kad_report *r)
{
    return r->type == KAD_OP_WATCH && r->user == f;
}

size_t follow_watched(const struct follow *f)
{
    return f->watched;
}

struct follow *follow_new(struct loop *loop, struct host *host, const uint8_t hash_key[16])
{
    struct follow *f = calloc(1, sizeof(*f));

    if (f == NULL)
        return NULL;
    f->loop = loop;
    f->host = host;
    f->timer.fn = idle_due;
    map_init(&f->by_pk, MAP_KEY(struct one, pk), hash_key, FOLLOW_MAX);
    list_init(&f->lru);
    return f;
}

void follow_free(struct follow *f)
{
    struct one *o;

    if (f == NULL)
        return;
    while ((o = list_first_as(&f->lru, struct one, node)) != NULL)
        forget(f, o);
    loop_timer_cancel(f->loop, &f->timer);
    map_free(&f->by_pk);
    free(f);
}
