#include "compat-http/stream_server.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/err.h"
#include "base/list.h"

#define MAX_CONNS     1024
#define MAX_PER_PEER  256
#define IDLE_S        150
#define HEADER_S      10
#define CONN_MEMORY   (16u * 1024u)
#define NS_PER_SECOND UINT64_C(1000000000)

enum conn_state { CONN_HEADERS, CONN_REQUEST, CONN_IDLE };

struct server_conn {
    struct list_node node; /* in server->conns */
    struct stream_server *server;
    struct stream_peer peer;
    enum conn_state state;
    uint64_t ticks; /* of the server, when it came into this state */
    int fd;
    char *uri;
};

struct stream_server {
    struct stream_server_cfg cfg;
    struct MHD_Daemon *daemon;
    pthread_mutex_t lock; /* of all below */
    struct list conns;
    uint64_t now_ns;
    struct stream_server_stat stat;
};

/* The library copies the address it is given and hands it back: a place for the peer's identity. */
struct peer_addr {
    sa_family_t family; /* AF_UNIX */
    struct stream_peer peer;
};
_Static_assert(sizeof(struct peer_addr) <= sizeof(struct sockaddr_un), "fits into an address");

static struct server_conn *conn_of(struct MHD_Connection *c)
{
    const union MHD_ConnectionInfo *i =
        MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return i != NULL ? i->socket_context : NULL;
}

/* ---- life of a connection; the server's thread ---- */

static void conn_set(struct server_conn *c, enum conn_state state)
{
    struct stream_server *s = c->server;
    pthread_mutex_lock(&s->lock);
    s->stat.requests -= c->state == CONN_REQUEST;
    s->stat.requests += state == CONN_REQUEST;
    s->stat.served += c->state == CONN_REQUEST && state != CONN_REQUEST;
    c->state = state;
    c->ticks = s->now_ns;
    pthread_mutex_unlock(&s->lock);
}

static void conn_started(struct stream_server *s, struct MHD_Connection *mc, void **context)
{
    const union MHD_ConnectionInfo *addr =
        MHD_get_connection_info(mc, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    const union MHD_ConnectionInfo *fd =
        MHD_get_connection_info(mc, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct server_conn *c = calloc(1, sizeof(*c));
    *context = c;
    if (c == NULL) { /* no request of it will be answered */
        shutdown(fd->connect_fd, SHUT_RDWR);
        return;
    }
    c->server = s;
    c->fd = fd->connect_fd;
    memcpy(&c->peer, &((const struct peer_addr *)(const void *)addr->client_addr)->peer,
           sizeof(c->peer));
    pthread_mutex_lock(&s->lock);
    c->ticks = s->now_ns;
    list_push_back(&s->conns, &c->node);
    s->stat.conns++;
    pthread_mutex_unlock(&s->lock);
}

static void conn_closed(struct stream_server *s, struct server_conn *c)
{
    if (c == NULL)
        return;
    conn_set(c, CONN_IDLE);
    pthread_mutex_lock(&s->lock);
    list_remove(&c->node);
    s->stat.conns--;
    pthread_mutex_unlock(&s->lock);
    free(c->uri);
    free(c);
}

static void on_connection(void *arg, struct MHD_Connection *mc, void **context,
                          enum MHD_ConnectionNotificationCode code)
{
    switch (code) {
    case MHD_CONNECTION_NOTIFY_STARTED:
        conn_started(arg, mc, context);
        break;
    case MHD_CONNECTION_NOTIFY_CLOSED:
        conn_closed(arg, *context);
        *context = NULL;
        break;
    }
}

/* ---- requests ---- */

static void *on_uri(void *arg, const char *uri, struct MHD_Connection *mc)
{
    struct server_conn *c = conn_of(mc);
    (void)arg;
    if (c != NULL) {
        free(c->uri);
        c->uri = strdup(uri);
        conn_set(c, CONN_HEADERS);
    }
    return NULL;
}

static size_t no_unescape(void *arg, struct MHD_Connection *mc, char *s)
{
    (void)arg, (void)mc;
    return strlen(s);
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *mc, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *n, void **state)
{
    struct stream_server *s = arg;
    struct server_conn *c = conn_of(mc);
    if (c == NULL)
        return MHD_NO;
    if (c->state == CONN_HEADERS)
        conn_set(c, CONN_REQUEST);
    return s->cfg.handler(s->cfg.arg, mc, url, method, version, data, n, state);
}

static void on_completed(void *arg, struct MHD_Connection *mc, void **state,
                         enum MHD_RequestTerminationCode code)
{
    struct stream_server *s = arg;
    struct server_conn *c = conn_of(mc);
    if (s->cfg.completed != NULL)
        s->cfg.completed(s->cfg.arg, mc, state, code);
    if (c != NULL)
        conn_set(c, CONN_IDLE);
}

const struct stream_peer *stream_server_peer(struct MHD_Connection *mc)
{
    return &conn_of(mc)->peer;
}

const char *stream_server_uri(struct MHD_Connection *mc)
{
    const struct server_conn *c = conn_of(mc);
    return c != NULL && c->uri != NULL ? c->uri : "";
}

/* ---- any thread ---- */

static bool over_limit(struct stream_server *s, const struct pubkey *pk)
{
    struct list_node *pos, *tmp;
    size_t of_peer = 0;
    list_for_each(pos, tmp, &s->conns)
    {
        of_peer += pubkey_equal(&container_of(pos, struct server_conn, node)->peer.pk, pk);
    }
    return s->stat.conns >= s->cfg.max_conns || of_peer >= s->cfg.max_per_peer;
}

int stream_server_add(struct stream_server *s, int fd, const struct pubkey *pk, uint16_t port)
{
    union {
        struct peer_addr a;
        struct sockaddr sa;
        struct sockaddr_un un;
    } u;
    memset(&u, 0, sizeof(u));
    u.a.family = AF_UNIX;
    u.a.peer = (struct stream_peer){*pk, port};
    pthread_mutex_lock(&s->lock);
    bool over = over_limit(s, pk);
    s->stat.accepted += !over;
    s->stat.refused_limit += over;
    pthread_mutex_unlock(&s->lock);
    if (over) {
        close(fd);
        return ERR_LIMIT;
    }
    /* It closes the socket itself when it fails. */
    return MHD_add_connection(s->daemon, fd, &u.sa, sizeof(u.un)) == MHD_YES ? 0 : ERR_STATE;
}

void stream_server_tick(struct stream_server *s, uint64_t now_ns)
{
    struct list_node *pos, *tmp;
    uint64_t limit = s->cfg.header_s * NS_PER_SECOND;
    pthread_mutex_lock(&s->lock);
    list_for_each(pos, tmp, &s->conns)
    {
        struct server_conn *c = container_of(pos, struct server_conn, node);
        if (c->ticks == 0)
            c->ticks = now_ns; /* it came before the first tick */
        if (c->state != CONN_HEADERS || now_ns - c->ticks < limit)
            continue;
        c->ticks = now_ns;
        s->stat.slow_headers++;
        shutdown(c->fd, SHUT_RDWR); /* its thread sees the end, and closes */
    }
    s->now_ns = now_ns;
    pthread_mutex_unlock(&s->lock);
}

void stream_server_stat(struct stream_server *s, struct stream_server_stat *out)
{
    pthread_mutex_lock(&s->lock);
    *out = s->stat;
    pthread_mutex_unlock(&s->lock);
}

/* ---- life ---- */

static void discard_log(void *arg, const char *fmt, va_list ap)
{
    (void)arg, (void)fmt, (void)ap; /* what peers do wrong is answered and counted */
}

int stream_server_new(struct stream_server **out, const struct stream_server_cfg *cfg)
{
    struct stream_server *s = calloc(1, sizeof(*s));
    *out = NULL;
    if (s == NULL)
        return ERR_NOMEM;
    s->cfg = *cfg;
    s->cfg.max_conns = cfg->max_conns != 0 ? cfg->max_conns : MAX_CONNS;
    s->cfg.max_per_peer = cfg->max_per_peer != 0 ? cfg->max_per_peer : MAX_PER_PEER;
    s->cfg.header_s = cfg->header_s != 0 ? cfg->header_s : HEADER_S;
    list_init(&s->conns);
    pthread_mutex_init(&s->lock, NULL);
    s->daemon = MHD_start_daemon(
        MHD_USE_NO_LISTEN_SOCKET | MHD_USE_ITC | MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_ERROR_LOG,
        0, NULL, NULL, on_request, s, MHD_OPTION_EXTERNAL_LOGGER, discard_log, NULL,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, s, MHD_OPTION_NOTIFY_COMPLETED, on_completed,
        s, MHD_OPTION_URI_LOG_CALLBACK, on_uri, s, MHD_OPTION_UNESCAPE_CALLBACK, no_unescape, NULL,
        MHD_OPTION_CONNECTION_LIMIT, s->cfg.max_conns, MHD_OPTION_CONNECTION_TIMEOUT,
        cfg->idle_s != 0 ? cfg->idle_s : IDLE_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        cfg->conn_memory != 0 ? cfg->conn_memory : (size_t)CONN_MEMORY,
        MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
    if (s->daemon == NULL) {
        stream_server_free(s);
        return ERR_STATE;
    }
    *out = s;
    return 0;
}

void stream_server_free(struct stream_server *s)
{
    if (s == NULL)
        return;
    if (s->daemon != NULL)
        MHD_stop_daemon(s->daemon);
    pthread_mutex_destroy(&s->lock);
    free(s);
}
