#include "transport/client.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "base/err.h"
#include "transport/client_int.h"

#define SS_CACHE     256u
#define ROUTES_MAX   4096u
#define DESTS_MAX    1024u
#define WAYS_MAX     1024u
#define SERVERS_MORE 4u /* servers that are remembered, for each session that may be there */

/* ---- ports (docs/protocol/dmsg.md §4.9) ---- */

static bool port_used(const struct client *c, unsigned port)
{
    return (c->ports[port / 8] & 1u << port % 8) != 0;
}

static void port_mark(struct client *c, unsigned port)
{
    c->ports[port / 8] = (uint8_t)(c->ports[port / 8] | 1u << port % 8);
    c->stat.ports++;
}

int client_port_take(struct client *c, uint16_t *port)
{
    unsigned at = c->last_port;

    for (unsigned i = 0; i < 65536 - CLIENT_PORT_FIRST; i++) {
        at = at == 65535 ? CLIENT_PORT_FIRST : at + 1;
        if (port_used(c, at))
            continue;
        port_mark(c, at);
        *port = c->last_port = (uint16_t)at;
        return 0;
    }
    return ERR_LIMIT;
}

void client_port_give(struct client *c, uint16_t port)
{
    assert(port_used(c, port));
    c->ports[port / 8] = (uint8_t)(c->ports[port / 8] & ~(1u << port % 8));
    c->stat.ports--;
}

/* ---- listeners ---- */

struct listener *client_listener(const struct client *c, uint16_t port)
{
    return map_get(&c->listeners, &port);
}

int client_listen(struct client *c, uint16_t port, client_accept_fn *on_accept, void *arg)
{
    struct listener *l;

    if (port != 0 && port_used(c, port))
        return ERR_DMSG_PORT_OCCUPIED;
    if ((l = calloc(1, sizeof *l)) == NULL)
        return ERR_NOMEM;
    int rc = 0;
    if (port == 0)
        rc = client_port_take(c, &port);
    else
        port_mark(c, port);
    if (rc == 0) {
        *l = (struct listener){port, on_accept, arg, 0, ++c->next_serial};
        rc = map_put(&c->listeners, l);
        if (rc == 0)
            return port;
        client_port_give(c, port);
    }
    free(l);
    return rc;
}

void client_unlisten(struct client *c, uint16_t port)
{
    struct listener *l = map_del(&c->listeners, &port);

    if (l == NULL)
        return;
    client_port_give(c, port);
    free(l);
}

/* ---- routes of direct mode ---- */

int client_add_route(struct client *c, const struct pubkey *pk, const struct pubkey *server)
{
    struct static_route *r = map_get(&c->routes, pk);

    if (r == NULL) {
        if ((r = calloc(1, sizeof *r)) == NULL)
            return ERR_NOMEM;
        r->pk = *pk;
        int rc = map_put(&c->routes, r);
        if (rc != 0) {
            free(r);
            return rc;
        }
    }
    for (size_t i = 0; i < r->route.n_servers; i++) {
        if (pubkey_equal(&r->route.servers[i], server))
            return 0;
    }
    if (r->route.n_servers == sizeof r->route.servers / sizeof r->route.servers[0])
        return ERR_LIMIT;
    r->route.servers[r->route.n_servers++] = *server;
    return 0;
}

/* ---- objects ---- */

int client_read_object(struct client *c, struct endpoint *e, size_t *n)
{
    enum session_read what;

    if (c->scratch == NULL && (c->scratch = malloc(SESSION_OBJECT_MAX)) == NULL)
        return ERR_NOMEM;
    int rc = session_read_object(link_session(e->server->link), e->mux, &what, c->scratch,
                                 SESSION_OBJECT_MAX, n);
    endpoint_kick(e); /* credit */
    if (rc == 0 && what != SESSION_READ_OBJECT)
        rc = ERR_DMSG_OBJECT; /* only servers answer the ping marker (§3.5) */
    return rc;
}

int client_verify_scratch(struct client *c, struct pk_wait *w, const struct pubkey *pk, size_t n)
{
    struct pk_req req = {.op = PK_VERIFY, .cls = PK_CLASS_STREAM, .pk = *pk};

    object_digest(&req.digest, c->scratch, n);
    object_get_sig(&req.sig, c->scratch);
    return env_pk(c->cfg.env, w, &req);
}

int client_sign(struct client *c, struct pk_wait *w, const uint8_t *obj, size_t n)
{
    struct pk_req req = {.op = PK_SIGN, .cls = PK_CLASS_OWN, .sk = c->cfg.sk};

    object_digest(&req.digest, obj, n);
    int rc = env_pk(c->cfg.env, w, &req);
    sodium_memzero(&req, sizeof req);
    return rc;
}

int client_noise(struct client *c, struct noise *n, bool initiator, const struct pubkey *remote,
                 void (*on_ready)(struct noise *n, int rc))
{
    struct noise_cfg cfg = {
        .env = c->cfg.env,
        .pattern = NOISE_KK,
        .initiator = initiator,
        .cls = PK_CLASS_STREAM,
        .sk = &c->cfg.sk,
        .pk = &c->cfg.self,
        .remote = remote,
        .cache = c->cache,
        .on_ready = on_ready,
    };
    return noise_init(n, &cfg);
}

/* ---- the end of a turn ---- */

static void map_free_objects(struct map *m)
{
    struct map_iter it = map_iter(m);
    void *obj;

    while ((obj = map_next(&it)) != NULL)
        free(obj);
    map_free(m);
}

static void client_free_memory(struct client *c)
{
    assert(list_empty(&c->streams) && list_empty(&c->lookups) && list_empty(&c->order));
    map_free(&c->servers);
    map_free(&c->tickets);
    map_free_objects(&c->routes);
    map_free_objects(&c->dests);
    client_ways_free(c);
    map_free_objects(&c->listeners);
    noise_cache_free(c->cache);
    free(c->scratch);
    seckey_wipe(&c->cfg.sk);
    free(c);
}

static void reap(struct loop_task *t)
{
    struct client *c = container_of(t, struct client, reap_task);
    struct stream *st;
    struct cserver *s;

    while ((st = list_pop_front_as(&c->dead_streams, struct stream, node)) != NULL)
        stream_free(st);
    while ((s = list_pop_front_as(&c->dead_servers, struct cserver, node)) != NULL)
        free(s);
    if (c->freeing)
        client_free_memory(c);
}

void client_reap(struct client *c)
{
    loop_task_post(c->cfg.loop, &c->reap_task);
}

static void tell_changed(struct loop_task *t)
{
    struct client *c = container_of(t, struct client, changed_task);

    c->cfg.hooks.sessions_changed(c->cfg.hooks.arg);
}

void client_changed(struct client *c)
{
    if (c->cfg.hooks.sessions_changed != NULL && !c->freeing)
        loop_task_post(c->cfg.loop, &c->changed_task);
}

/* ---- the client ---- */

static unsigned or_default(unsigned v, unsigned def)
{
    return v != 0 ? v : def;
}

int client_new(struct client **out, const struct client_cfg *cfg)
{
    struct client *c = calloc(1, sizeof *c);
    const uint8_t *hash_key = cfg->env->hash_key;

    *out = NULL;
    if (c == NULL)
        return ERR_NOMEM;
    if ((c->cache = noise_cache_new(SS_CACHE, hash_key)) == NULL) {
        free(c);
        return ERR_NOMEM;
    }
    c->cfg = *cfg;
    c->cfg.max_sessions = or_default(cfg->max_sessions, 64);
    c->cfg.max_streams = or_default(cfg->max_streams, 16384);
    c->cfg.backlog = or_default(cfg->backlog, 256);
    c->cfg.attempt_ms = or_default(cfg->attempt_ms, 5000);
    c->cfg.connect_ms = or_default(cfg->connect_ms, 10000);
    c->last_port = CLIENT_PORT_FIRST; /* counted up before use: 49153 is the first */
    map_init(&c->servers, MAP_KEY(struct cserver, pk), hash_key,
             (size_t)c->cfg.max_sessions * SERVERS_MORE);
    map_init(&c->routes, MAP_KEY(struct static_route, pk), hash_key, ROUTES_MAX);
    map_init(&c->dests, MAP_KEY(struct destination, pk), hash_key, DESTS_MAX);
    map_init(&c->ways, MAP_KEY(struct way, pk), hash_key, WAYS_MAX);
    list_init(&c->way_ages);
    map_init(&c->listeners, MAP_KEY(struct listener, port), hash_key, 65535);
    dial_tickets_init(c);
    list_init(&c->order);
    list_init(&c->streams);
    list_init(&c->lookups);
    list_init(&c->pongs);
    list_init(&c->connects);
    list_init(&c->dead_streams);
    list_init(&c->dead_servers);
    c->reap_task.fn = reap;
    c->changed_task.fn = tell_changed;
    c->reconcile_task.fn = client_reconcile_task;
    c->reconcile_timer.fn = client_reconcile_timer;
    *out = c;
    return 0;
}

void client_free(struct client *c)
{
    struct stream *st;
    struct cserver *s;

    if (c == NULL)
        return;
    assert(!c->freeing);
    c->freeing = true;
    while ((st = list_first_as(&c->streams, struct stream, node)) != NULL)
        stream_drop(st, false);
    while ((s = list_first_as(&c->order, struct cserver, node)) != NULL) {
        cserver_close(s, ERR_CLOSED);
        cserver_drop(s);
    }
    client_lookups_free(c);
    client_connects_free(c);
    loop_timer_cancel(c->cfg.loop, &c->reconcile_timer);
    loop_task_cancel(c->cfg.loop, &c->reconcile_task);
    loop_task_cancel(c->cfg.loop, &c->changed_task);
    client_reap(c);
}

void client_stat(const struct client *c, struct client_stat *out)
{
    *out = c->stat;
    out->sessions = c->active;
    out->listeners = map_len(&c->listeners);
    out->destinations = map_len(&c->dests) + map_len(&c->ways);
}
