#include "transport/drive_tcp.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <event2/dns.h>
#include <event2/listener.h>
#include <event2/util.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/addr.h"
#include "base/err.h"

#define READ_MIN    8192 /* with less room left in the shared read buffer a new one is taken */
#define IOV_MAX_OUT 64
#define REST_US     100000 /* pause of a listener or reader that ran out of something */

struct drive_tcp {
    struct carrier carrier;
    struct drive_loop *loop;
    struct bufpool *pool;
    struct buf *read_buf;
    struct evdns_base *dns; /* made for the first name that is not numeric */
    struct drive_tcp_stat stat;
};

struct tcp_conn {
    struct conn conn;
    struct drive_tcp *tcp;
    struct event *ev; /* read, write or both */
    int fd;
    short interest; /* what ev is armed for */
    bool paused, connecting, closed, broken;
    struct event *timer; /* dial time-out, or rest after lack of buffers */
    struct evdns_getaddrinfo_request *resolving;
    bool
        resolver_owes; /* evdns will call back once more, also after a cancel: the conn must live until then */
    struct evutil_addrinfo *addrs, *next_addr;
    struct loop_task flush_task, free_task, down_task;
    int down_err;
};

static struct loop *loop_of(struct tcp_conn *c)
{
    return drive_loop_loop(c->tcp->loop);
}

/* ---- interest ---- */

static void on_ready(evutil_socket_t fd, short what, void *arg);

static void interest_set(struct tcp_conn *c, short want)
{
    if (want == c->interest || c->fd < 0)
        return;
    if (c->interest != 0)
        event_del(c->ev);
    c->interest = want;
    if (want == 0)
        return;
    event_assign(c->ev, drive_loop_base(c->tcp->loop), c->fd, (short)(want | EV_PERSIST), on_ready,
                 c);
    event_add(c->ev, NULL);
}

static short read_interest(const struct tcp_conn *c)
{
    return c->paused || c->broken || c->connecting ? 0 : EV_READ;
}

/* ---- the end of a conn ---- */

static void io_stop(struct tcp_conn *c)
{
    if (c->interest != 0)
        event_del(c->ev);
    c->interest = 0;
    event_del(c->timer);
    if (c->resolving != NULL)
        evdns_getaddrinfo_cancel(c->resolving);
    c->resolving = NULL;
    if (c->addrs != NULL)
        evutil_freeaddrinfo(c->addrs);
    c->addrs = c->next_addr = NULL;
}

static void free_later(struct loop_task *task)
{
    struct tcp_conn *c = container_of(task, struct tcp_conn, free_task);
    if (c->resolver_owes)
        return; /* on_resolved() posts again */
    c->tcp->stat.conns--;
    if (c->fd >= 0)
        close(c->fd);
    event_free(c->ev);
    event_free(c->timer);
    free(c);
}

static void tcp_close(struct conn *conn)
{
    struct tcp_conn *c = (struct tcp_conn *)conn;
    if (c->closed)
        return;
    c->closed = true;
    io_stop(c);
    loop_task_cancel(loop_of(c), &c->flush_task);
    loop_task_cancel(loop_of(c), &c->down_task);
    loop_task_post(loop_of(c), &c->free_task);
}

static void tell_down(struct loop_task *task)
{
    struct tcp_conn *c = container_of(task, struct tcp_conn, down_task);
    if (!c->closed && c->conn.user != NULL)
        c->conn.user->down(c->conn.arg, c->down_err);
}

/* The pipe is broken: tell the user once, from the loop. */
static void conn_break(struct tcp_conn *c, int err)
{
    if (c->broken || c->closed)
        return;
    c->broken = true;
    c->down_err = err;
    io_stop(c);
    loop_task_cancel(loop_of(c), &c->flush_task);
    loop_task_post(loop_of(c), &c->down_task);
}

/* ---- reading and writing ---- */

static struct buf *read_buf(struct drive_tcp *t)
{
    if (t->read_buf != NULL && buf_room_len(t->read_buf) < READ_MIN) {
        buf_put(t->read_buf);
        t->read_buf = NULL;
    }
    if (t->read_buf == NULL)
        t->read_buf = buf_get(t->pool, BUF_READ_SIZE);
    return t->read_buf;
}

/* No buffer to read into: let this conn rest, others give theirs back meanwhile. */
static void read_rest(struct tcp_conn *c)
{
    struct timeval tv = {0, REST_US};
    c->tcp->stat.no_buffer++;
    interest_set(c, (short)(c->interest & ~EV_READ));
    event_add(c->timer, &tv);
}

static void read_some(struct tcp_conn *c)
{
    size_t budget = DRIVE_TCP_TURN_BYTES;
    while (budget > 0 && !c->closed && !c->broken && !c->paused) {
        struct buf *b = read_buf(c->tcp);
        if (b == NULL) {
            read_rest(c);
            return;
        }
        size_t room = buf_room_len(b);
        ssize_t n = read(c->fd, buf_room(b), room);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n <= 0) {
            conn_break(c, n == 0 ? ERR_EOF : err_sys());
            return;
        }
        c->tcp->stat.bytes_in += (uint64_t)n;
        struct slice s = buf_take(b, (size_t)n);
        c->conn.user->input(c->conn.arg, s, loop_of(c)->now_ns);
        slice_release(&s);
        if ((size_t)n < room)
            return; /* that was all: save the read() that would say so */
        budget = budget > (size_t)n ? budget - (size_t)n : 0;
    }
}

static void write_some(struct tcp_conn *c)
{
    struct iovec iov[IOV_MAX_OUT];
    for (;;) {
        uint64_t now = loop_of(c)->now_ns;
        int cnt = c->conn.user->output(c->conn.arg, iov, IOV_MAX_OUT, now);
        if (cnt == 0) {
            interest_set(c, read_interest(c));
            return;
        }
        struct msghdr msg = {.msg_iov = iov, .msg_iovlen = (size_t)cnt};
        ssize_t n = sendmsg(c->fd, &msg, MSG_NOSIGNAL); /* a tool may want its SIGPIPE elsewhere */
        if (n < 0 && errno != EAGAIN && errno != EINTR) {
            conn_break(c, err_sys());
            return;
        }
        size_t all = 0;
        for (int i = 0; i < cnt; i++)
            all += iov[i].iov_len;
        c->tcp->stat.bytes_out += n > 0 ? (uint64_t)n : 0;
        if (n > 0)
            c->conn.user->sent(c->conn.arg, (size_t)n, now);
        if (c->closed || c->broken)
            return;
        if (n < 0 || (size_t)n < all) {
            interest_set(c, (short)(read_interest(c) | EV_WRITE));
            return;
        }
    }
}

static void flush_now(struct loop_task *task)
{
    struct tcp_conn *c = container_of(task, struct tcp_conn, flush_task);
    if (!c->connecting && !c->broken && !c->closed)
        write_some(c);
}

static void tcp_flush(struct conn *conn)
{
    struct tcp_conn *c = (struct tcp_conn *)conn;
    /* While the socket is full its write event does the work. */
    if (!c->closed && !c->broken && !c->connecting && !(c->interest & EV_WRITE))
        loop_task_post(loop_of(c), &c->flush_task);
}

static void tcp_pause(struct conn *conn, bool paused)
{
    struct tcp_conn *c = (struct tcp_conn *)conn;
    if (c->closed || c->paused == paused)
        return;
    c->paused = paused;
    if (!c->broken && !c->connecting)
        interest_set(c, (short)(read_interest(c) | (c->interest & EV_WRITE)));
}

static const struct conn_ops tcp_ops = {tcp_flush, tcp_pause, tcp_close};

/* ---- making conns ---- */

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct tcp_conn *c = arg;
    (void)fd;
    (void)what;
    drive_loop_now(c->tcp->loop);
    if (c->connecting)
        conn_break(c, ERR_TIMEOUT);
    else if (!c->broken && !c->closed)
        interest_set(c, (short)(read_interest(c) | (c->interest & EV_WRITE)));
}

static struct tcp_conn *conn_alloc(struct drive_tcp *t, int fd)
{
    struct event_base *base = drive_loop_base(t->loop);
    struct tcp_conn *c = calloc(1, sizeof(*c));
    if (c == NULL)
        return NULL;
    c->ev = event_new(base, -1, 0, on_ready, c);
    c->timer = event_new(base, -1, 0, on_timer, c);
    if (c->ev == NULL || c->timer == NULL) {
        if (c->ev != NULL)
            event_free(c->ev);
        if (c->timer != NULL)
            event_free(c->timer);
        free(c);
        return NULL;
    }
    c->conn.ops = &tcp_ops;
    c->tcp = t;
    c->fd = fd;
    c->flush_task.fn = flush_now;
    c->free_task.fn = free_later;
    c->down_task.fn = tell_down;
    t->stat.conns++;
    return c;
}

static void peer_name4(struct conn *conn, const void *addr, uint16_t port)
{
    char host[INET_ADDRSTRLEN] = "";
    conn->peer_ip_len = 4;
    memcpy(conn->peer_ip, addr, 4);
    inet_ntop(AF_INET, addr, host, sizeof(host));
    snprintf(conn->peer, sizeof(conn->peer), "%s:%u", host, port);
}

static void peer_name(struct conn *conn, const struct sockaddr *sa)
{
    if (sa->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)sa;
        peer_name4(conn, &in->sin_addr, ntohs(in->sin_port));
    } else if (sa->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)sa;
        char host[INET6_ADDRSTRLEN] = "";
        if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) { /* a listener of both kinds */
            peer_name4(conn, in6->sin6_addr.s6_addr + 12, ntohs(in6->sin6_port));
            return;
        }
        conn->peer_ip_len = 16;
        memcpy(conn->peer_ip, &in6->sin6_addr, 16);
        inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
        snprintf(conn->peer, sizeof(conn->peer), "[%s]:%u", host, ntohs(in6->sin6_port));
    }
}

static void socket_options(int fd)
{
    int one = 1;
    evutil_make_socket_nonblocking(fd);
    evutil_make_socket_closeonexec(fd);
    /* Fails on a socketpair, where it is not needed. */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

struct conn *drive_tcp_adopt(struct drive_tcp *t, int fd, const char *peer)
{
    struct tcp_conn *c = conn_alloc(t, fd);
    if (c == NULL) {
        close(fd);
        return NULL;
    }
    socket_options(fd);
    snprintf(c->conn.peer, sizeof(c->conn.peer), "%s", peer);
    interest_set(c, EV_READ);
    return &c->conn;
}

void drive_tcp_pack(struct conn *conn, struct drive_tcp_parcel *out)
{
    struct tcp_conn *c = (struct tcp_conn *)conn;
    assert(!c->connecting && !c->closed && c->fd >= 0);
    *out = (struct drive_tcp_parcel){.fd = c->fd, .peer_ip_len = conn->peer_ip_len};
    memcpy(out->peer, conn->peer, sizeof(out->peer));
    memcpy(out->peer_ip, conn->peer_ip, sizeof(out->peer_ip));
    io_stop(c); /* before the descriptor may be in another loop */
    c->fd = -1;
    tcp_close(conn);
}

struct conn *drive_tcp_unpack(struct drive_tcp *t, const struct drive_tcp_parcel *p)
{
    struct conn *conn = drive_tcp_adopt(t, p->fd, p->peer);
    if (conn == NULL)
        return NULL;
    memcpy(conn->peer_ip, p->peer_ip, sizeof(conn->peer_ip));
    conn->peer_ip_len = p->peer_ip_len;
    return conn;
}

/* ---- dialling ---- */

static void dial_next(struct tcp_conn *c, int last_err)
{
    while (c->next_addr != NULL) {
        struct evutil_addrinfo *ai = c->next_addr;
        c->next_addr = ai->ai_next;
        if (c->fd >= 0) {
            interest_set(c, 0);
            close(c->fd);
        }
        c->fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (c->fd < 0) {
            last_err = err_sys();
            continue;
        }
        socket_options(c->fd);
        peer_name(&c->conn, ai->ai_addr);
        if (connect(c->fd, ai->ai_addr, (socklen_t)ai->ai_addrlen) == 0 || errno == EINPROGRESS) {
            interest_set(c, EV_WRITE);
            return;
        }
        last_err = err_sys();
    }
    c->tcp->stat.dial_failed++;
    conn_break(c, last_err);
}

static void dial_finished(struct tcp_conn *c)
{
    int err = 0;
    socklen_t len = sizeof(err);
    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0)
        err = errno;
    if (err != 0) {
        dial_next(c, err_from_errno(err));
        return;
    }
    c->connecting = false;
    io_stop(c);
    interest_set(c, EV_READ);
    c->conn.user->up(c->conn.arg);
}

static void on_ready(evutil_socket_t fd, short what, void *arg)
{
    struct tcp_conn *c = arg;
    (void)fd;
    drive_loop_now(c->tcp->loop);
    if (c->connecting) {
        dial_finished(c);
        return;
    }
    if ((what & EV_WRITE) && !c->closed && !c->broken)
        write_some(c);
    if ((what & EV_READ) && !c->closed && !c->broken)
        read_some(c);
}

static void on_resolved(int result, struct evutil_addrinfo *res, void *arg)
{
    struct tcp_conn *c = arg;
    c->resolving = NULL;
    c->resolver_owes = false;
    if (c->closed || c->broken) {
        if (res != NULL)
            evutil_freeaddrinfo(res);
        if (c->closed)
            loop_task_post(loop_of(c), &c->free_task);
        return;
    }
    drive_loop_now(c->tcp->loop);
    if (result != 0) {
        c->tcp->stat.dial_failed++;
        conn_break(c, ERR_NOT_FOUND);
        return;
    }
    c->addrs = c->next_addr = res;
    dial_next(c, ERR_NOT_FOUND);
}

static int resolve(struct tcp_conn *c, const char *host, const char *port)
{
    struct evutil_addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct drive_tcp *t = c->tcp;

    hints.ai_flags = EVUTIL_AI_NUMERICHOST;
    if (evutil_getaddrinfo(host, port, &hints, &c->addrs) == 0) {
        c->next_addr = c->addrs;
        dial_next(c, ERR_NOT_FOUND);
        return 0;
    }
    if (t->dns == NULL)
        t->dns = evdns_base_new(drive_loop_base(t->loop), EVDNS_BASE_INITIALIZE_NAMESERVERS |
                                                              EVDNS_BASE_DISABLE_WHEN_INACTIVE);
    if (t->dns == NULL)
        return ERR_NOT_FOUND;
    hints.ai_flags = EVUTIL_AI_ADDRCONFIG;
    c->resolver_owes = true;
    struct evdns_getaddrinfo_request *rq =
        evdns_getaddrinfo(t->dns, host, port, &hints, on_resolved, c);
    if (c->resolver_owes) /* else it has answered from inside, from its cache or the hosts file */
        c->resolving = rq;
    return 0;
}

static int tcp_dial(struct carrier *ca, const char *addr, unsigned timeout_ms,
                    const struct conn_user *user, void *arg, struct conn **out)
{
    struct drive_tcp *t = (struct drive_tcp *)ca;
    struct timeval tv = {timeout_ms / 1000, (suseconds_t)(timeout_ms % 1000) * 1000};
    struct addr_hostport at;
    char port[8];

    *out = NULL;
    if (addr_hostport_parse(&at, addr, strlen(addr), ADDR_STRICT, NULL) < 0)
        return ERR_FORMAT;
    struct tcp_conn *c = conn_alloc(t, -1);
    if (c == NULL)
        return ERR_NOMEM;
    snprintf(port, sizeof(port), "%u", at.port);
    snprintf(c->conn.peer, sizeof(c->conn.peer), "%s", addr);
    conn_set_user(&c->conn, user, arg);
    c->connecting = true;
    t->stat.dialled++;
    event_add(c->timer, &tv);
    int rc = resolve(c, at.host, port);
    if (rc < 0) {
        tcp_close(&c->conn);
        return rc;
    }
    *out = &c->conn;
    return 0;
}

/* ---- listening ---- */

struct drive_listener {
    struct drive_tcp *tcp;
    struct evconnlistener *ev;
    struct event *rest;
    drive_accept_fn *fn;
    drive_accept_fd_fn *fd_fn; /* in its place */
    void *arg;
    char addr[CONN_ADDR_MAX];
    bool paused;
};

static void on_accept(struct evconnlistener *ev, evutil_socket_t fd, struct sockaddr *sa, int len,
                      void *arg)
{
    struct drive_listener *l = arg;
    (void)ev;
    (void)len;
    drive_loop_now(l->tcp->loop);
    if (l->fd_fn != NULL) {
        socket_options(fd);
        l->fd_fn(l->arg, fd);
        return;
    }
    struct conn *conn = drive_tcp_adopt(l->tcp, fd, "");
    if (conn == NULL)
        return;
    l->tcp->stat.accepted++;
    peer_name(conn, sa);
    l->fn(l->arg, conn);
}

static void on_rested(evutil_socket_t fd, short what, void *arg)
{
    struct drive_listener *l = arg;
    (void)fd;
    (void)what;
    if (!l->paused)
        evconnlistener_enable(l->ev);
}

static void on_accept_error(struct evconnlistener *ev, void *arg)
{
    struct drive_listener *l = arg;
    struct timeval tv = {0, REST_US};
    l->tcp->stat.fd_exhausted++;
    evconnlistener_disable(ev);
    event_add(l->rest, &tv);
}

static int bound_addr(struct drive_listener *l)
{
    struct sockaddr_storage ss = {0};
    socklen_t len = sizeof(ss);
    struct conn name = {0};
    if (getsockname(evconnlistener_get_fd(l->ev), (struct sockaddr *)&ss, &len) < 0)
        return err_sys();
    peer_name(&name, (struct sockaddr *)&ss);
    snprintf(l->addr, sizeof(l->addr), "%s", name.peer);
    return 0;
}

/* A bound socket, or an error. Any address of IPv6 is any address at all: peers of both kinds come
 * to one listener, whatever the system's default is. */
static int bind_socket(const struct sockaddr *sa, socklen_t len, int option)
{
    int one = 1, zero = 0;
    int fd = socket(sa->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_sys();
    if (sa->sa_family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero));
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == 0 &&
        setsockopt(fd, SOL_SOCKET, option, &one, sizeof(one)) == 0 && bind(fd, sa, len) == 0)
        return fd;
    int rc = err_sys();
    close(fd);
    return rc;
}

/* The first address of a family that works; AF_UNSPEC is every family. */
static int bind_family(const struct evutil_addrinfo *res, int family)
{
    int rc = ERR_NOT_FOUND;
    for (const struct evutil_addrinfo *ai = res; ai != NULL; ai = ai->ai_next)
        if ((family == AF_UNSPEC || ai->ai_family == family) &&
            (rc = bind_socket(ai->ai_addr, (socklen_t)ai->ai_addrlen, SO_REUSEADDR)) >= 0)
            return rc;
    return rc;
}

/* Of "any host" IPv6 is asked first: it serves both. */
static int bind_listener(const struct evutil_addrinfo *res, bool any_host)
{
    int fd = bind_family(res, any_host ? AF_INET6 : AF_UNSPEC);
    return fd < 0 && any_host ? bind_family(res, AF_INET) : fd;
}

/* Takes fd over, a bound socket. One of fn and fd_fn. */
static int listener_new(struct drive_tcp *t, int fd, drive_accept_fn *fn, drive_accept_fd_fn *fd_fn,
                        void *arg, struct drive_listener **out)
{
    struct drive_listener *l = calloc(1, sizeof(*l));
    if (l == NULL) {
        close(fd);
        return ERR_NOMEM;
    }
    l->tcp = t;
    l->fn = fn;
    l->fd_fn = fd_fn;
    l->arg = arg;
    l->rest = event_new(drive_loop_base(t->loop), -1, 0, on_rested, l);
    l->ev = evconnlistener_new(drive_loop_base(t->loop), on_accept, l,
                               LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 1024, fd);
    int rc = l->ev == NULL ? err_sys() : l->rest == NULL ? ERR_NOMEM : bound_addr(l);
    if (rc < 0) {
        if (l->ev == NULL)
            close(fd);
        drive_listener_close(l);
        return rc;
    }
    evconnlistener_set_error_cb(l->ev, on_accept_error);
    *out = l;
    return 0;
}

static int listen_with(struct drive_tcp *t, const char *addr, drive_accept_fn *fn,
                       drive_accept_fd_fn *fd_fn, void *arg, struct drive_listener **out)
{
    struct evutil_addrinfo hints = {.ai_family = AF_UNSPEC,
                                    .ai_socktype = SOCK_STREAM,
                                    .ai_flags = EVUTIL_AI_PASSIVE},
                           *res = NULL;
    struct addr_hostport at;
    char port[8];

    if (addr_hostport_parse(&at, addr, strlen(addr), ADDR_PORT_0 | ADDR_ANY_HOST, NULL) < 0)
        return ERR_FORMAT;
    snprintf(port, sizeof(port), "%u", at.port);
    if (evutil_getaddrinfo(at.host[0] != '\0' ? at.host : NULL, port, &hints, &res) != 0)
        return ERR_NOT_FOUND;
    int fd = bind_listener(res, at.host[0] == '\0');
    int rc = fd < 0 ? fd : listener_new(t, fd, fn, fd_fn, arg, out);
    evutil_freeaddrinfo(res);
    return rc;
}

int drive_tcp_listen(struct drive_tcp *t, const char *addr, drive_accept_fn *fn, void *arg,
                     struct drive_listener **out)
{
    return listen_with(t, addr, fn, NULL, arg, out);
}

int drive_tcp_listen_fd(struct drive_tcp *t, const char *addr, drive_accept_fd_fn *fn, void *arg,
                        struct drive_listener **out)
{
    return listen_with(t, addr, NULL, fn, arg, out);
}

/* The first one was bound without SO_REUSEPORT, so that an address in use is an error, also for another
 * process of ours; it lets others in only afterwards. */
int drive_tcp_listen_too(struct drive_tcp *t, struct drive_listener *l, drive_accept_fn *fn,
                         void *arg, struct drive_listener **out)
{
    struct sockaddr_storage ss;
    socklen_t len = sizeof(ss);
    memset(&ss, 0, sizeof(ss)); /* an analyser does not know what getsockname() fills in */
    int one = 1, fd = evconnlistener_get_fd(l->ev);
    if (getsockname(fd, (struct sockaddr *)&ss, &len) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)) < 0)
        return err_sys();
    fd = bind_socket((struct sockaddr *)&ss, len, SO_REUSEPORT);
    return fd < 0 ? fd : listener_new(t, fd, fn, NULL, arg, out);
}

void drive_listener_close(struct drive_listener *l)
{
    if (l == NULL)
        return;
    if (l->ev != NULL)
        evconnlistener_free(l->ev);
    if (l->rest != NULL)
        event_free(l->rest);
    free(l);
}

const char *drive_listener_addr(const struct drive_listener *l)
{
    return l->addr;
}

void drive_listener_pause(struct drive_listener *l, bool paused)
{
    l->paused = paused;
    if (paused)
        evconnlistener_disable(l->ev);
    else
        evconnlistener_enable(l->ev);
}

/* ---- the driver ---- */

struct drive_tcp *drive_tcp_new(struct drive_loop *loop, struct bufpool *pool)
{
    struct drive_tcp *t = calloc(1, sizeof(*t));
    if (t == NULL)
        return NULL;
    t->carrier.name = "tcp";
    t->carrier.dial = tcp_dial;
    t->loop = loop;
    t->pool = pool;
    return t;
}

/* A resolution that was given up calls back from the event base, once for each family, and until
 * then its conn is there: a name server that does not answer must not make an orderly end an abort. */
static void let_resolver_end(struct drive_tcp *t)
{
    for (int i = 0; i < 8 && t->dns != NULL && t->stat.conns > 0; i++) {
        event_base_loop(drive_loop_base(t->loop), EVLOOP_NONBLOCK);
        loop_turn(drive_loop_loop(t->loop), drive_loop_now(t->loop));
    }
}

void drive_tcp_free(struct drive_tcp *t)
{
    if (t == NULL)
        return;
    let_resolver_end(t);
    assert(t->stat.conns == 0);
    if (t->read_buf != NULL)
        buf_put(t->read_buf);
    if (t->dns != NULL)
        evdns_base_free(t->dns, 0);
    free(t);
}

struct carrier *drive_tcp_carrier(struct drive_tcp *t)
{
    return &t->carrier;
}

void drive_tcp_stat(const struct drive_tcp *t, struct drive_tcp_stat *out)
{
    *out = t->stat;
}
