/*
 * discovery - a node's way to an HTTP discovery: the client, and the sockets that lead to services over dmsg.
 *
 * A service behind dmsg:// is dialled through the sessions that are there: looking its key up could need the service itself. Sockets are kept, so that libcurl finds its
 * connections again; the one that was used longest ago makes room.
 *
 * What the discovery says of servers is a hint (compat-http/disc_client.h): the handshake proves the key.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "node/node_int.h"

#define SOCKETS   16
#define DIAL_MS   10000
#define BOOTSTRAP 8

struct service_socket {
    struct list_node node; /* in discovery->sockets, used last at the end */
    struct stream_forward *forward;
    struct pubkey pk;
    uint16_t port;
};

struct discovery {
    struct node *node;
    struct http_client *http;
    struct disc_client *client;
    struct list sockets;
    size_t n_sockets;
    uint64_t servers; /* request under way */
};

/* ---- services over dmsg ---- */

static void socket_drop(struct discovery *d, struct service_socket *s)
{
    stream_forward_free(s->forward);
    list_remove(&s->node);
    d->n_sockets--;
    free(s);
}

static struct service_socket *socket_find(struct discovery *d, const struct pubkey *pk,
                                          uint16_t port)
{
    struct list_node *pos, *tmp;
    list_for_each(pos, tmp, &d->sockets)
    {
        struct service_socket *s = container_of(pos, struct service_socket, node);
        if (s->port == port && pubkey_equal(&s->pk, pk))
            return s;
    }
    return NULL;
}

static int socket_new(struct discovery *d, const struct pubkey *pk, uint16_t port,
                      struct service_socket **out)
{
    char path[PATHS_MAX];
    struct stream_forward_cfg cfg = {
        .drive = d->node->drive,
        .client = d->node->client,
        .bridges = &d->node->bridges,
        .stat = &d->node->forward_stat.streams,
        .pk = *pk,
        .port = port,
        .timeout_ms = DIAL_MS,
        .flags = CLIENT_DIAL_LOCAL,
    };
    if (d->n_sockets >= SOCKETS)
        socket_drop(d, list_first_as(&d->sockets, struct service_socket, node));
    struct service_socket *s = calloc(1, sizeof(*s));
    if (s == NULL)
        return ERR_NOMEM;
    int rc = node_forward_path(d->node, path);
    if (rc == 0)
        rc = stream_forward_new(&s->forward, &cfg, path);
    if (rc < 0) {
        free(s);
        return rc;
    }
    s->pk = *pk;
    s->port = port;
    list_push_back(&d->sockets, &s->node);
    d->n_sockets++;
    *out = s;
    return 0;
}

static int socket_of(void *arg, const struct pubkey *pk, uint16_t port, char path[HTTP_CLIENT_PATH])
{
    struct discovery *d = arg;
    struct service_socket *s = socket_find(d, pk, port);
    int rc = s == NULL ? socket_new(d, pk, port, &s) : 0;
    if (rc < 0)
        return rc;
    list_remove(&s->node);
    list_push_back(&d->sockets, &s->node);
    snprintf(path, HTTP_CLIENT_PATH, "%s", stream_forward_path(s->forward));
    return 0;
}

/* ---- servers ---- */

/* Relays that say that they are DHT nodes are where a node without --bootstrap begins. */
static void bootstrap(struct node *n, const struct disc_answer *a)
{
    struct pubkey from[BOOTSTRAP];
    struct kad_stat st;
    size_t have = 0;
    if (n->host == NULL || n->cfg.n_bootstrap > 0)
        return;
    kad_stat(node_kad(n), &st);
    if (st.routing_peers > 0)
        return;
    for (size_t i = 0; i < a->n && have < BOOTSTRAP; i++)
        if (a->servers[i]->server.dht_bootstrap &&
            !pubkey_equal(&a->servers[i]->static_pk, &n->cfg.pk))
            from[have++] = a->servers[i]->static_pk;
    if (have > 0 && kad_bootstrap(node_kad(n), from, have, n->loop->now_ns) == 0)
        host_kick(n->host);
}

static void on_servers(void *arg, const struct disc_answer *a)
{
    struct discovery *d = arg;
    d->servers = 0;
    if (a->err != 0) {
        log_limited_here(LOG_HTTP, LOG_LEVEL_WARN,
                         "discovery does not tell of servers url=%s reason=\"%s\"",
                         disc_client_url(d->client), a->why);
        return;
    }
    servers_listed(d->node, a->servers, a->n);
    bootstrap(d->node, a);
}

static void ask_servers(struct node *n)
{
    struct discovery *d = n->discovery;
    if (d == NULL || d->servers != 0 || !n->policy.ask_http)
        return;
    d->servers = disc_client_list(
        d->client, n->relay != NULL ? DISC_ALL_SERVERS : DISC_AVAILABLE_SERVERS, on_servers, d);
}

/* ---- life ---- */

static int build(struct node *n)
{
    struct discovery *d;
    if ((d = calloc(1, sizeof(*d))) == NULL)
        return ERR_NOMEM;
    n->discovery = d;
    d->node = n;
    list_init(&d->sockets);
    struct http_client_cfg http = {
        .drive = n->drive, .env = n->env, .socket_of = socket_of, .arg = d};
    int rc = http_client_new(&d->http, &http);
    if (rc < 0)
        return rc;
    struct disc_client_cfg cfg = {.http = d->http, .env = n->env, .url = n->cfg.discovery};
    if ((rc = disc_client_new(&d->client, &cfg)) < 0)
        return rc;
    n->disc = disc_client_port(d->client);
    n->ask_servers = ask_servers;
    if (!n->policy.ask_http)
        return 0;
    resolve_set_http(n->resolve, &n->disc, !n->policy.ask_dht);
    ask_servers(n);
    return 0;
}

static int discovery_open(struct node *n, char why[NODE_WHY])
{
    int rc = node_policy_uses_http(&n->policy) ? build(n) : 0;
    if (rc < 0)
        snprintf(why, NODE_WHY, "discovery %s: %s", n->cfg.discovery, err_str(rc));
    return rc;
}

static void discovery_close(struct node *n)
{
    struct discovery *d = n->discovery;
    struct service_socket *s;
    if (d == NULL)
        return;
    publish_free(n->publish); /* asks us */
    n->publish = NULL;
    resolve_set_http(n->resolve, NULL, false);
    n->discovery = NULL;
    n->ask_servers = NULL;
    disc_client_free(d->client);
    http_client_free(d->http);
    while ((s = list_first_as(&d->sockets, struct service_socket, node)) != NULL)
        socket_drop(d, s);
    free(d);
}

const struct node_part node_part_discovery = {.open = discovery_open, .close = discovery_close};
