/* Memory of destinations. Those that could not be reached (incident 35): a dead one costs a ladder now and
 * then, not one for every caller. Those that could: the server that led there is asked first. */
#include <stdlib.h>

#include "transport/client_int.h"

#define DEST_MIN_NS  (2 * NS_PER_S) /* 2, 6, 18, 54, 60 s … */
#define DEST_MAX_NS  (60 * NS_PER_S)
#define DEST_KEEP_NS (120 * NS_PER_S)

/* Drop what is older than that. */
static void purge(struct client *c, uint64_t before_ns)
{
    struct map_iter it = map_iter(&c->dests);
    struct destination *x;

    while ((x = map_next(&it)) != NULL) {
        if (x->probe == NULL && x->until_ns <= before_ns) {
            map_iter_del(&it);
            free(x);
        }
    }
}

void client_dests_forget(struct client *c)
{
    purge(c, UINT64_MAX);
}

static struct destination *dest_make(struct client *c, const struct pubkey *pk)
{
    struct destination *x = map_get(&c->dests, pk);

    if (x != NULL)
        return x;
    if (map_len(&c->dests) >= c->dests.max && client_now(c) > DEST_KEEP_NS)
        purge(c, client_now(c) - DEST_KEEP_NS);
    if ((x = calloc(1, sizeof *x)) == NULL)
        return NULL;
    x->pk = *pk;
    if (map_put(&c->dests, x) != 0) {
        free(x);
        return NULL;
    }
    return x;
}

void client_dest_failed(struct client *c, const struct pubkey *pk, int err, bool local)
{
    struct destination *x = dest_make(c, pk);
    uint64_t wait = DEST_MIN_NS;

    if (x == NULL || (client_now(c) < x->until_ns && (local || !x->local)))
        return; /* the latter: one of several at the same time */
    x->local = local;
    for (unsigned i = 0; i < x->failures && wait < DEST_MAX_NS; i++)
        wait *= 3;
    x->failures++;
    x->err = err;
    x->until_ns = client_now(c) + (wait < DEST_MAX_NS ? wait : DEST_MAX_NS);
}

void client_dest_reached(struct client *c, const struct pubkey *pk)
{
    free(map_del(&c->dests, pk));
}

int client_dest_allows(struct client *c, const struct pubkey *pk, const struct dial *who,
                       bool local)
{
    struct destination *x = map_get(&c->dests, pk);

    if (x == NULL || (x->local && !local))
        return 0;
    if (client_now(c) < x->until_ns || x->probe != NULL)
        return x->err;
    x->probe = who;
    return 0;
}

void client_dest_release(struct client *c, const struct pubkey *pk, const struct dial *who)
{
    struct destination *x = map_get(&c->dests, pk);

    if (x != NULL && x->probe == who)
        x->probe = NULL;
}

/* ---- ways ---- */

static void way_drop(struct client *c, struct way *w)
{
    map_del(&c->ways, &w->pk);
    list_remove(&w->node);
    free(w);
}

void client_way_set(struct client *c, const struct pubkey *pk, const struct pubkey *server)
{
    struct way *w = map_get(&c->ways, pk);

    if (w != NULL) {
        w->server = *server;
        return;
    }
    if (map_len(&c->ways) >= c->ways.max)
        way_drop(c, list_first_as(&c->way_ages, struct way, node));
    if ((w = calloc(1, sizeof *w)) == NULL)
        return;
    w->pk = *pk;
    w->server = *server;
    if (map_put(&c->ways, w) != 0) {
        free(w);
        return;
    }
    list_push_back(&c->way_ages, &w->node);
}

const struct pubkey *client_way(const struct client *c, const struct pubkey *pk)
{
    const struct way *w = map_get(&c->ways, pk);

    return w != NULL ? &w->server : NULL;
}

void client_way_failed(struct client *c, const struct pubkey *pk, const struct pubkey *server)
{
    struct way *w = map_get(&c->ways, pk);

    if (w != NULL && pubkey_equal(&w->server, server))
        way_drop(c, w);
}

void client_ways_free(struct client *c)
{
    struct way *w;

    while ((w = list_first_as(&c->way_ages, struct way, node)) != NULL)
        way_drop(c, w);
    map_free(&c->ways);
}
