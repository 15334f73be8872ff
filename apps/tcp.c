#include "apps/tcp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/err.h"

#define BACKLOG   512
#define ADDRESSES 8 /* of one name that are tried */

union address {
    struct sockaddr sa;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

static socklen_t address_set(union address *a, const uint8_t *ip, size_t n, uint16_t port)
{
    memset(a, 0, sizeof(*a));
    if (n == 4) {
        a->v4.sin_family = AF_INET;
        a->v4.sin_port = htons(port);
        memcpy(&a->v4.sin_addr, ip, 4);
        return sizeof(a->v4);
    }
    a->v6.sin6_family = AF_INET6;
    a->v6.sin6_port = htons(port);
    memcpy(&a->v6.sin6_addr, ip, 16);
    return sizeof(a->v6);
}

/* ---- doors ---- */

struct tcp_door {
    struct list_node node; /* in hub->doors while it rests */
    struct hub *hub;
    struct evconnlistener *listener;
    uint16_t port;
    tcp_conn_fn *fn;
    void *arg;
};

static void conn_prepare(int fd)
{
    int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
}

static void on_accept(struct evconnlistener *l, evutil_socket_t fd, struct sockaddr *sa, int len,
                      void *arg)
{
    struct tcp_door *door = arg;
    (void)l, (void)sa, (void)len;
    conn_prepare(fd);
    door->fn(door->arg, fd);
}

static void on_accept_error(struct evconnlistener *l, void *arg)
{
    struct tcp_door *door = arg;
    door->hub->stat.accept_failed++;
    evconnlistener_disable(l);
    list_remove(&door->node);
    list_push_back(&door->hub->doors, &door->node);
}

void tcp_doors_tick(struct hub *hub)
{
    struct tcp_door *door;
    while ((door = list_pop_front_as(&hub->doors, struct tcp_door, node)) != NULL)
        evconnlistener_enable(door->listener);
}

static bool is_localhost(const char *host)
{
    size_t n = strlen(host);
    return strcasecmp(host, "localhost") == 0 ||
           (n > 10 && strcasecmp(host + n - 10, ".localhost") == 0);
}

static int door_listen(struct tcp_door *door, const char *address, uint16_t port)
{
    struct socks_dest d;
    union address a;
    int rc = socks_dest_set(&d, is_localhost(address) ? "127.0.0.1" : address,
                            is_localhost(address) ? 9 : strlen(address), port);
    if (rc != 0 || d.ip_n == 0)
        return ERR_FORMAT;
    socklen_t len = address_set(&a, d.ip, d.ip_n, port);
    errno = 0;
    door->listener =
        evconnlistener_new_bind(door->hub->base, on_accept, door,
                                LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE,
                                BACKLOG, &a.sa, (int)len);
    if (door->listener == NULL)
        return errno != 0 ? err_sys() : ERR_NOMEM;
    len = sizeof(a);
    if (getsockname(evconnlistener_get_fd(door->listener), &a.sa, &len) != 0)
        return err_sys();
    door->port = ntohs(a.sa.sa_family == AF_INET ? a.v4.sin_port : a.v6.sin6_port);
    evconnlistener_set_error_cb(door->listener, on_accept_error);
    return 0;
}

int tcp_door_open(struct tcp_door **out, struct hub *hub, const char *address, uint16_t port,
                  tcp_conn_fn *fn, void *arg)
{
    struct tcp_door *door = calloc(1, sizeof(*door));
    *out = NULL;
    if (door == NULL)
        return ERR_NOMEM;
    *door = (struct tcp_door){.hub = hub, .fn = fn, .arg = arg};
    int rc = door_listen(door, address, port);
    if (rc != 0) {
        tcp_door_close(door);
        return rc;
    }
    *out = door;
    return 0;
}

void tcp_door_close(struct tcp_door *door)
{
    if (door == NULL)
        return;
    list_remove(&door->node);
    if (door->listener != NULL)
        evconnlistener_free(door->listener);
    free(door);
}

uint16_t tcp_door_port(const struct tcp_door *door)
{
    return door->port;
}

/* ---- dials ---- */

struct tcp_dial {
    struct hub *hub;
    const struct netrule *rule;
    struct event *step, *deadline; /* step: connected or to be tried; */
    struct evdns_getaddrinfo_request *query;
    bool asking;    /* the resolver will call back */
    bool cancelled; /* only waits for the resolver */
    struct {
        uint8_t ip[16];
        size_t n;
    } list[ADDRESSES];
    size_t n, at;
    uint16_t port;
    int fd, err;
    tcp_dial_fn *done;
    void *arg;
};

static void dial_close_fd(struct tcp_dial *d)
{
    event_del(d->step);
    if (d->fd >= 0)
        close(d->fd);
    d->fd = -1;
}

static void dial_free(struct tcp_dial *d)
{
    if (d->step != NULL)
        event_free(d->step);
    if (d->deadline != NULL)
        event_free(d->deadline);
    free(d);
}

/* The resolver's callback comes in any case, also later: the object waits for it. */
void tcp_dial_cancel(struct tcp_dial *d)
{
    event_del(d->deadline);
    dial_close_fd(d);
    d->cancelled = true;
    if (!d->asking)
        dial_free(d);
    else if (d->query != NULL)
        evdns_getaddrinfo_cancel(d->query);
}

static void finish(struct tcp_dial *d, int err)
{
    tcp_dial_fn *done = d->done;
    void *arg = d->arg;
    int fd = d->fd;
    if (err == 0)
        d->fd = -1;
    tcp_dial_cancel(d);
    done(arg, err == 0 ? fd : -1, err);
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    finish(arg, ERR_TIMEOUT);
}

/* Start with one address. 0: wait for it. */
static int try_address(struct tcp_dial *d, size_t i)
{
    union address a;
    if (d->rule != NULL && !netrule_allows(d->rule, d->list[i].ip, d->list[i].n))
        return -EACCES;
    socklen_t len = address_set(&a, d->list[i].ip, d->list[i].n, d->port);
    d->fd = socket(a.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (d->fd < 0)
        return err_sys();
    conn_prepare(d->fd);
    if (connect(d->fd, &a.sa, len) != 0 && errno != EINPROGRESS)
        return err_sys();
    return 0;
}

static void on_step(evutil_socket_t fd, short what, void *arg);

static void try_next(struct tcp_dial *d)
{
    while (d->at < d->n) {
        int rc = try_address(d, d->at++);
        if (rc == 0) {
            event_assign(d->step, d->hub->base, d->fd, EV_WRITE, on_step, d);
            event_add(d->step, NULL);
            return;
        }
        dial_close_fd(d);
        /* An address that is forbidden says less than one that failed. */
        if (rc != -EACCES || d->err == 0)
            d->err = rc;
    }
    finish(d, d->err != 0 ? d->err : ERR_NOT_FOUND);
}

static void on_step(evutil_socket_t fd, short what, void *arg)
{
    struct tcp_dial *d = arg;
    int err = 0;
    socklen_t len = sizeof(err);
    (void)fd, (void)what;
    if (d->fd >= 0) {
        if (getsockopt(d->fd, SOL_SOCKET, SO_ERROR, &err, &len) != 0)
            err = errno;
        if (err == 0) {
            finish(d, 0);
            return;
        }
        d->err = err_from_errno(err);
        dial_close_fd(d);
    }
    try_next(d);
}

static void add_address(struct tcp_dial *d, const void *ip, size_t n)
{
    if (d->n == ADDRESSES)
        return;
    memcpy(d->list[d->n].ip, ip, n);
    d->list[d->n++].n = n;
}

static void on_resolved(int result, struct evutil_addrinfo *res, void *arg)
{
    struct tcp_dial *d = arg;
    d->asking = false;
    for (const struct evutil_addrinfo *p = res; p != NULL; p = p->ai_next) {
        const union address *a = (const union address *)(const void *)p->ai_addr;
        if (a->sa.sa_family == AF_INET)
            add_address(d, &a->v4.sin_addr, 4);
        else if (a->sa.sa_family == AF_INET6)
            add_address(d, &a->v6.sin6_addr, 16);
    }
    if (res != NULL)
        evutil_freeaddrinfo(res);
    if (d->cancelled) {
        dial_free(d);
        return;
    }
    d->query = NULL;
    if (result == EVUTIL_EAI_AGAIN)
        d->err = ERR_TIMEOUT;
    event_active(d->step, EV_TIMEOUT, 0); /* it may be called from inside of tcp_dial() */
}

static int resolve(struct tcp_dial *d, const char *host)
{
    struct evutil_addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct evdns_base *dns = hub_dns(d->hub);
    if (dns == NULL)
        return ERR_NOMEM;
    d->asking = true;
    struct evdns_getaddrinfo_request *query =
        evdns_getaddrinfo(dns, host, NULL, &hints, on_resolved, d);
    if (d->asking)
        d->query = query;
    return 0;
}

int tcp_dial(struct tcp_dial **out, struct hub *hub, const struct socks_dest *dest,
             const struct netrule *rule, unsigned timeout_ms, tcp_dial_fn *done, void *arg)
{
    static const uint8_t loopback[4] = {127, 0, 0, 1};
    struct timeval tv = {.tv_sec = timeout_ms / 1000, .tv_usec = timeout_ms % 1000 * 1000};
    struct tcp_dial *d = calloc(1, sizeof(*d));
    *out = NULL;
    if (d == NULL)
        return ERR_NOMEM;
    *d = (struct tcp_dial){
        .hub = hub, .rule = rule, .port = dest->port, .fd = -1, .done = done, .arg = arg};
    d->step = event_new(hub->base, -1, 0, on_step, d);
    d->deadline = evtimer_new(hub->base, on_deadline, d);
    int rc = d->step != NULL && d->deadline != NULL ? 0 : ERR_NOMEM;
    if (rc == 0 && (dest->ip_n > 0 || is_localhost(dest->host))) {
        add_address(d, dest->ip_n > 0 ? dest->ip : loopback, dest->ip_n > 0 ? dest->ip_n : 4);
        event_active(d->step, EV_TIMEOUT, 0);
    } else if (rc == 0) {
        rc = resolve(d, dest->host);
    }
    if (rc != 0) {
        dial_free(d);
        return rc;
    }
    evtimer_add(d->deadline, &tv);
    *out = d;
    return 0;
}
