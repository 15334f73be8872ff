#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/addr.h"
#include "base/err.h"
#include "compat-http/proxy_line.h"
#include "compat-http/service_int.h"

#define BACKLOG      1024
#define TURN_ACCEPTS 64
#define PREFACES_MAX 1024
#define REST_NS      (100 * NS_PER_MS)

/* The library copies the address that it is given, and hands it back: a place for the caller. */
struct caller_addr {
    sa_family_t family; /* AF_UNIX */
    struct service_caller caller;
};
_Static_assert(sizeof(struct caller_addr) <= sizeof(struct sockaddr_un), "fits into an address");

struct sconn *sconn_of(struct MHD_Connection *mc)
{
    const union MHD_ConnectionInfo *i =
        MHD_get_connection_info(mc, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return i != NULL ? i->socket_context : NULL;
}

/* ---- clocks ---- */

void sconn_set(struct sconn *c, enum sconn_state state)
{
    struct service *s = c->service;
    bool stream_idle = state == SCONN_IDLE && c->caller.stream;
    c->state = state;
    c->since_ns = s->loop->now_ns;
    list_remove(&c->node);
    list_push_back(stream_idle ? &s->stream_idle : &s->conns[state], &c->node);
}

/* The library sees the end of the descriptor and closes. */
static void end(struct sconn *c)
{
    c->closing = true;
    shutdown(c->fd, SHUT_RDWR);
}

static void sweep(struct service *s, struct list *l, unsigned ms, uint64_t *counter, bool say)
{
    static const char bad[] = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; "
                              "charset=utf-8\r\nConnection: close\r\n\r\n400 Bad Request";
    struct list_node *pos, *tmp;
    list_for_each(pos, tmp, l)
    {
        struct sconn *c = container_of(pos, struct sconn, node);
        if (s->loop->now_ns - c->since_ns < ms * NS_PER_MS)
            return;
        if (c->closing)
            continue;
        (*counter)++;
        if (say && c->begun)
            (void)!send(c->fd, bad, sizeof(bad) - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
        end(c);
    }
}

static void preface_free(struct preface *p)
{
    if (p->ev != NULL)
        event_free(p->ev);
    if (p->fd >= 0)
        close(p->fd);
    list_remove(&p->node);
    p->service->n_prefaces--;
    free(p);
}

void sconn_sweep(struct service *s)
{
    struct preface *p;
    sweep(s, &s->conns[SCONN_HEADERS], s->cfg.header_ms, &s->stat.slow_headers, true);
    sweep(s, &s->conns[SCONN_BODY], s->cfg.body_ms, &s->stat.slow_bodies, false);
    sweep(s, &s->conns[SCONN_IDLE], s->cfg.idle_ms, &s->stat.idle_closed, false);
    sweep(s, &s->stream_idle, s->cfg.stream_idle_ms, &s->stat.idle_closed, false);
    while ((p = list_first_as(&s->prefaces, struct preface, node)) != NULL &&
           s->loop->now_ns - p->since_ns >= s->cfg.header_ms * NS_PER_MS) {
        s->stat.slow_headers++;
        preface_free(p);
    }
}

/* One goes, so that another one may come. */
static bool make_room(struct service *s)
{
    struct list *from[] = {&s->conns[SCONN_HEADERS], &s->conns[SCONN_IDLE], &s->stream_idle};
    for (size_t i = 0; i < 3; i++) {
        struct list_node *pos, *tmp;
        list_for_each(pos, tmp, from[i])
        {
            struct sconn *c = container_of(pos, struct sconn, node);
            if (c->closing)
                continue;
            s->stat.evicted++;
            end(c);
            return true;
        }
    }
    return false;
}

/* ---- life of a connection ---- */

void sconn_notify(void *arg, struct MHD_Connection *mc, void **context,
                  enum MHD_ConnectionNotificationCode code)
{
    struct service *s = arg;
    struct sconn *c = *context;
    switch (code) {
    case MHD_CONNECTION_NOTIFY_STARTED: {
        const union MHD_ConnectionInfo *addr =
            MHD_get_connection_info(mc, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
        const union MHD_ConnectionInfo *fd =
            MHD_get_connection_info(mc, MHD_CONNECTION_INFO_CONNECTION_FD);
        *context = c = calloc(1, sizeof(*c));
        if (c == NULL) { /* no request of it will be answered */
            shutdown(fd->connect_fd, SHUT_RDWR);
            return;
        }
        c->service = s;
        c->fd = fd->connect_fd;
        memcpy(&c->caller, &((const struct caller_addr *)(const void *)addr->client_addr)->caller,
               sizeof(c->caller));
        s->stat.conns++;
        sconn_set(c, SCONN_HEADERS);
        break;
    }
    case MHD_CONNECTION_NOTIFY_CLOSED:
        *context = NULL;
        if (c == NULL)
            return;
        list_remove(&c->node);
        s->stat.conns--;
        free(c->uri);
        free(c);
        break;
    }
}

static int add(struct service *s, int fd, const struct service_caller *caller)
{
    union {
        struct caller_addr a;
        struct sockaddr sa;
        struct sockaddr_un un;
    } u;
    if (s->stat.conns >= s->cfg.max_conns && !make_room(s)) {
        s->stat.refused_conns++;
        close(fd);
        return ERR_LIMIT;
    }
    memset(&u, 0, sizeof(u));
    u.a.family = AF_UNIX;
    u.a.caller = *caller;
    s->stat.accepted++;
    service_run_soon(s);
    /* It closes the socket itself when it fails. */
    return MHD_add_connection(s->daemon, fd, &u.sa, sizeof(u.un)) == MHD_YES ? 0 : ERR_STATE;
}

int service_add_stream(struct service *s, int fd, const struct pubkey *pk, uint16_t port)
{
    struct service_caller caller = {.stream = true, .pk = *pk, .port = port};
    return add(s, fd, &caller);
}

/* ---- a proxy's line ---- */

/* True when it is not known yet. */
static bool look(struct service *s, int fd, struct service_caller *caller)
{
    uint8_t p[PROXY_LINE_MAX];
    struct proxy_line line;
    ssize_t n = recv(fd, p, sizeof(p), MSG_PEEK | MSG_DONTWAIT);
    int rc = n > 0 ? proxy_line_parse(&line, p, (size_t)n) : ERR_SHORT;
    if (rc == ERR_SHORT && (n > 0 || (n < 0 && errno == EAGAIN)))
        return true;
    if (rc == 0 && line.used > 0) {
        (void)!recv(fd, p, line.used, MSG_DONTWAIT);
        if (line.ip[0] != '\0') {
            memcpy(caller->ip, line.ip, sizeof(line.ip));
            caller->port = line.port;
        }
    }
    if (rc < 0) {
        s->stat.bad_proxy += n > 0;
        close(fd);
        return false;
    }
    (void)add(s, fd, caller);
    return false;
}

static void on_preface(evutil_socket_t fd, short what, void *arg)
{
    struct preface *p = arg;
    struct service *s = p->service;
    struct timeval soon = {0, 10000};
    (void)fd, (void)what;
    drive_loop_now(s->cfg.drive);
    if (!look(s, p->fd, &p->caller)) {
        p->fd = -1;
        preface_free(p);
        return;
    }
    /* What is there is left there, so it is readable all the time: look again a little later. */
    event_free(p->ev);
    p->ev = event_new(drive_loop_base(s->cfg.drive), -1, 0, on_preface, p);
    if (p->ev == NULL || event_add(p->ev, &soon) < 0)
        preface_free(p);
}

static void begin(struct service *s, int fd, struct service_caller *caller)
{
    if (!look(s, fd, caller))
        return;
    struct preface *p = s->n_prefaces < PREFACES_MAX ? calloc(1, sizeof(*p)) : NULL;
    if (p == NULL) {
        (void)add(s, fd, caller); /* then without asking; a line would be a bad request */
        return;
    }
    p->service = s;
    p->fd = fd;
    p->caller = *caller;
    p->since_ns = s->loop->now_ns;
    list_push_back(&s->prefaces, &p->node);
    s->n_prefaces++;
    p->ev = event_new(drive_loop_base(s->cfg.drive), fd, EV_READ, on_preface, p);
    if (p->ev == NULL || event_add(p->ev, NULL) < 0)
        preface_free(p);
}

/* ---- listeners ---- */

static bool is_loopback(const struct service_caller *c)
{
    return strncmp(c->ip, "127.", 4) == 0 || strcmp(c->ip, "::1") == 0;
}

static void caller_of(struct service_caller *out, const struct sockaddr_storage *a)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    struct sockaddr_in6 six;
    struct sockaddr_in four;
    memset(out, 0, sizeof(*out));
    memcpy(&six, a, sizeof(six));
    memcpy(&four, a, sizeof(four));
    bool v4 = memcmp(six.sin6_addr.s6_addr, mapped, sizeof(mapped)) == 0;
    if (a->ss_family == AF_INET)
        inet_ntop(AF_INET, &four.sin_addr, out->ip, sizeof(out->ip));
    else if (v4)
        inet_ntop(AF_INET, &six.sin6_addr.s6_addr[12], out->ip, sizeof(out->ip));
    else
        inet_ntop(AF_INET6, &six.sin6_addr, out->ip, sizeof(out->ip));
    out->port = ntohs(a->ss_family == AF_INET ? four.sin_port : six.sin6_port);
}

static void on_connection(evutil_socket_t listen_fd, short what, void *arg)
{
    struct slistener *l = arg;
    struct service *s = l->service;
    (void)what;
    drive_loop_now(s->cfg.drive);
    for (int i = 0; i < TURN_ACCEPTS; i++) {
        struct sockaddr_storage from = {0};
        struct service_caller caller;
        socklen_t len = sizeof(from);
        int one = 1,
            fd = accept4(listen_fd, (struct sockaddr *)&from, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
                s->stat.refused_conns++;
                event_del(l->ev);
                loop_timer_set(s->loop, &l->rest, s->loop->now_ns + REST_NS);
            }
            return;
        }
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        caller_of(&caller, &from);
        if (s->cfg.trust_any_proxy || is_loopback(&caller))
            begin(s, fd, &caller);
        else
            (void)add(s, fd, &caller);
    }
}

static void on_rested(struct loop_timer *t)
{
    event_add(container_of(t, struct slistener, rest)->ev, NULL);
}

static int open_listener(struct slistener *l, const struct addrinfo *a)
{
    struct sockaddr_storage bound = {0};
    socklen_t len = sizeof(bound);
    struct service_caller at;
    struct addr_hostport hp;
    char text[ADDR_HOSTPORT_MAX + 1];
    int one = 1, off = 0;
    l->fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (l->fd < 0)
        return err_sys();
    (void)setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (a->ai_family == AF_INET6)
        (void)setsockopt(l->fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    if (bind(l->fd, a->ai_addr, a->ai_addrlen) < 0 || listen(l->fd, BACKLOG) < 0 ||
        getsockname(l->fd, (struct sockaddr *)&bound, &len) < 0)
        return err_sys();
    caller_of(&at, &bound);
    snprintf(hp.host, sizeof(hp.host), "%s", at.ip);
    hp.port = at.port;
    snprintf(l->addr, sizeof(l->addr), "%s", addr_hostport_text(text, &hp));
    l->ev = event_new(drive_loop_base(l->service->cfg.drive), l->fd, EV_READ | EV_PERSIST,
                      on_connection, l);
    return l->ev != NULL && event_add(l->ev, NULL) == 0 ? 0 : ERR_NOMEM;
}

static void listener_close(struct slistener *l)
{
    if (l->ev != NULL)
        event_free(l->ev);
    if (l->fd >= 0)
        close(l->fd);
    l->ev = NULL;
    l->fd = -1;
    loop_timer_cancel(l->service->loop, &l->rest);
}

int service_listen(struct service *s, const char *addr)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *list;
    struct addr_hostport at;
    char port[8];
    if (s->n_listeners == SERVICE_LISTENERS)
        return ERR_LIMIT;
    if (addr_hostport_parse(&at, addr, strlen(addr), ADDR_PORT_0 | ADDR_ANY_HOST, NULL) < 0)
        return ERR_FORMAT;
    snprintf(port, sizeof(port), "%u", at.port);
    if (getaddrinfo(at.host[0] != '\0' ? at.host : NULL, port, &hints, &list) != 0)
        return ERR_NO_ROUTE;
    /* Everywhere means both families, by one socket. */
    const struct addrinfo *a = list;
    while (at.host[0] == '\0' && a->ai_next != NULL && a->ai_family != AF_INET6)
        a = a->ai_next;
    struct slistener *l = &s->listener[s->n_listeners];
    *l = (struct slistener){.service = s, .fd = -1, .rest = {.fn = on_rested}};
    int rc = open_listener(l, a);
    if (rc < 0 && at.host[0] == '\0' && a != list) { /* no IPv6 here */
        listener_close(l);
        rc = open_listener(l, list);
    }
    freeaddrinfo(list);
    if (rc < 0)
        listener_close(l);
    else
        s->n_listeners++;
    return rc;
}

const char *service_addr(const struct service *s, size_t i)
{
    return i < s->n_listeners ? s->listener[i].addr : NULL;
}

void service_listeners_free(struct service *s)
{
    struct preface *p;
    for (size_t i = 0; i < s->n_listeners; i++)
        listener_close(&s->listener[i]);
    s->n_listeners = 0;
    while ((p = list_first_as(&s->prefaces, struct preface, node)) != NULL)
        preface_free(p);
}
