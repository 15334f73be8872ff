#include "apps/guest.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/err.h"

#define BYE_MS   2000
#define GRACE_MS 5000 /* dials have deadlines of their own; this one is for a node that hangs */
#define PIECE    16384

/* An upstream proxy that is being asked. */
struct guest_proxy {
    struct socks_dest dest;
    struct socks_ask ask;
    struct event ev;
};

static void timer_set(struct guest *g, unsigned ms)
{
    struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
    evtimer_add(&g->timer, &tv);
}

/* ---- life ---- */

static void proxy_free(struct guest *g)
{
    if (g->proxy == NULL)
        return;
    event_del(&g->proxy->ev);
    free(g->proxy);
    g->proxy = NULL;
}

static void dial_over(struct guest *g)
{
    list_remove(&g->turn);
    g->hub->dialling -= g->dialling;
    g->dialling = false;
}

static void stop(struct guest *g)
{
    event_del(&g->read_ev);
    event_del(&g->write_ev);
    event_del(&g->timer);
    dial_over(g); /* whose turn it is now is seen at the next tick */
    app_net_cancel(g->hub->net, g->handle);
    g->handle = 0;
    if (g->dial != NULL)
        tcp_dial_cancel(g->dial);
    g->dial = NULL;
    proxy_free(g);
}

/* Descriptors and buffers of a joined guest belong to its splice. */
static void guest_free(struct guest *g)
{
    stop(g);
    if (g->ops->freed != NULL)
        g->ops->freed(g);
    if (g->state != GUEST_JOINED) {
        close(g->fd);
        if (g->out_fd >= 0)
            close(g->out_fd);
        evbuffer_free(g->in);
        evbuffer_free(g->out);
    }
    list_remove(&g->node);
    hub_leave(g->hub);
    free(g);
}

void guest_drop(struct guest *g)
{
    guest_free(g);
}

void guests_close(struct hub *hub)
{
    struct guest *g;
    while ((g = list_first_as(&hub->guests, struct guest, node)) != NULL)
        guest_free(g);
}

/* ---- what the guest says ---- */

/* True: bytes came. Else the guest has ended, or nothing is there. */
static bool read_in(struct guest *g, bool *ended)
{
    uint8_t buf[PIECE];
    ssize_t n = read(g->fd, buf, sizeof(buf));
    *ended = n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
    if (n <= 0)
        return false;
    if (g->state == GUEST_TALK && evbuffer_add(g->in, buf, (size_t)n) != 0)
        *ended = true;
    return !*ended;
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct guest *g = arg;
    bool ended;
    (void)fd, (void)what;
    bool came = read_in(g, &ended);
    if (ended || evbuffer_get_length(g->in) > GUEST_IN_MAX)
        guest_free(g);
    else if (came && g->state == GUEST_TALK)
        g->ops->input(g);
}

static void on_timer(evutil_socket_t fd, short what, void *arg);
static void on_writable(evutil_socket_t fd, short what, void *arg);

struct guest *guest_new(struct hub *hub, const struct guest_ops *ops, void *service, int fd,
                        unsigned talk_ms)
{
    struct guest *g = hub_admit(hub) ? calloc(1, ops->size) : NULL;
    if (g == NULL) {
        close(fd);
        return NULL;
    }
    g->hub = hub;
    g->ops = ops;
    g->service = service;
    g->fd = fd;
    g->out_fd = -1;
    g->in = evbuffer_new();
    g->out = evbuffer_new();
    list_push_back(&hub->guests, &g->node);
    int flags = fcntl(fd, F_GETFL);
    bool ok = g->in != NULL && g->out != NULL && flags >= 0 &&
              fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0;
    event_assign(&g->read_ev, hub->base, fd, EV_READ | EV_PERSIST, on_readable, g);
    event_assign(&g->write_ev, hub->base, fd, EV_WRITE, on_writable, g);
    evtimer_assign(&g->timer, hub->base, on_timer, g);
    if (!ok) {
        guest_free(g);
        return NULL;
    }
    timer_set(g, talk_ms);
    return g;
}

void guest_start(struct guest *g)
{
    event_add(&g->read_ev, NULL);
}

/* ---- leading ---- */

void guest_wait(struct guest *g)
{
    event_del(&g->read_ev);
    g->state = GUEST_LEAD;
    timer_set(g, g->hub->net->timeout_ms + GRACE_MS);
}

static void led(struct guest *g, int fd, int err, const char *text)
{
    g->out_fd = fd;
    evtimer_del(&g->timer);
    *(err == 0 ? &g->hub->stat.dialled : &g->hub->stat.dial_failed) += 1;
    if (err == -EACCES)
        g->hub->stat.refused_rule++;
    g->ops->led(g, err, text);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct guest *g = arg;
    (void)fd, (void)what;
    if (g->state != GUEST_LEAD) {
        guest_free(g);
        return;
    }
    stop(g);
    led(g, -1, ERR_TIMEOUT, "the node does not answer");
}

static void on_stream(void *arg, int fd, const struct app_net_failure *failure)
{
    struct guest *g = arg;
    struct hub *hub = g->hub;
    g->handle = 0;
    dial_over(g);
    led(g, fd, fd >= 0 ? 0 : failure->err, fd >= 0 ? NULL : failure->text);
    guests_turn(hub);
}

static void dial_now(struct guest *g)
{
    struct app_net *net = g->hub->net;
    g->dialling = true;
    g->hub->dialling++;
    int rc = g->has_via ? app_net_dial_via(net, &g->via, &g->pk, g->port, on_stream, g, &g->handle)
                        : app_net_dial(net, &g->pk, g->port, on_stream, g, &g->handle);
    if (rc < 0) {
        dial_over(g);
        led(g, -1, rc, net->failure.text);
    }
}

void guests_turn(struct hub *hub)
{
    struct guest *g;
    while (hub->dialling < GUEST_DIALS &&
           (g = list_pop_front_as(&hub->turns, struct guest, turn)) != NULL)
        dial_now(g);
}

void guest_dial_stream(struct guest *g, const struct pubkey *via, const struct pubkey *pk,
                       uint16_t port)
{
    guest_wait(g);
    g->has_via = via != NULL;
    if (via != NULL)
        g->via = *via;
    g->pk = *pk;
    g->port = port;
    if (g->hub->dialling < GUEST_DIALS)
        dial_now(g);
    else
        list_push_back(&g->hub->turns, &g->turn);
}

static void on_tcp(void *arg, int fd, int err)
{
    struct guest *g = arg;
    g->dial = NULL;
    led(g, fd, err, err == -EACCES ? "forbidden by the rules for networks" : err_str(err));
}

void guest_dial_tcp(struct guest *g, const struct socks_dest *dest, const struct netrule *rule)
{
    guest_wait(g);
    int rc = tcp_dial(&g->dial, g->hub, dest, rule, g->hub->net->timeout_ms, on_tcp, g);
    if (rc < 0)
        led(g, -1, rc, err_str(rc));
}

/* ---- an upstream proxy ---- */

static void proxy_done(struct guest *g, int err)
{
    char text[80];
    int fd = g->out_fd;
    proxy_free(g);
    g->out_fd = -1;
    if (err != 0)
        close(fd);
    snprintf(text, sizeof(text), "the upstream proxy says: %s", err_str(err));
    led(g, err == 0 ? fd : -1, err, err == 0 ? NULL : text);
}

/* Exactly the proxy's answer is read: what follows is the destination's. */
static int proxy_read(struct guest *g)
{
    uint8_t buf[SOCKS_IN_MAX];
    size_t used;
    ssize_t n = recv(g->out_fd, buf, sizeof(buf), MSG_PEEK);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? ERR_PENDING : err_sys();
    if (n == 0)
        return ERR_EOF;
    int rc = socks_ask_input(&g->proxy->ask, buf, (size_t)n, &used);
    if (used > 0 && recv(g->out_fd, buf, used, 0) != (ssize_t)used)
        return ERR_STATE;
    return rc;
}

/* A fresh connection has room for messages of this size: what does not fit is a failure. */
static int proxy_write(struct guest *g)
{
    struct socks_ask *a = &g->proxy->ask;
    if (a->out_n > 0 && send(g->out_fd, a->out, a->out_n, MSG_NOSIGNAL) != (ssize_t)a->out_n)
        return ERR_BUSY;
    a->out_n = 0;
    return 0;
}

static void on_proxy(evutil_socket_t fd, short what, void *arg)
{
    struct guest *g = arg;
    (void)fd, (void)what;
    int rc = proxy_read(g);
    if (rc == ERR_PENDING && proxy_write(g) == 0)
        return;
    proxy_done(g, rc == ERR_PENDING ? ERR_BUSY : rc);
}

static void on_proxy_tcp(void *arg, int fd, int err)
{
    struct guest *g = arg;
    char text[80];
    g->dial = NULL;
    if (err != 0) {
        snprintf(text, sizeof(text), "the upstream proxy: %s", err_str(err));
        led(g, -1, err, text);
        return;
    }
    g->out_fd = fd;
    socks_ask_init(&g->proxy->ask, &g->proxy->dest);
    event_assign(&g->proxy->ev, g->hub->base, fd, EV_READ | EV_PERSIST, on_proxy, g);
    int rc = proxy_write(g);
    if (rc == 0)
        event_add(&g->proxy->ev, NULL);
    else
        proxy_done(g, rc);
}

void guest_dial_proxy(struct guest *g, const struct socks_dest *proxy,
                      const struct socks_dest *dest)
{
    guest_wait(g);
    g->proxy = calloc(1, sizeof(*g->proxy));
    int rc = ERR_NOMEM;
    if (g->proxy != NULL) {
        g->proxy->dest = *dest;
        event_assign(&g->proxy->ev, g->hub->base, -1, 0, on_proxy, g);
        rc = tcp_dial(&g->dial, g->hub, proxy, NULL, g->hub->net->timeout_ms, on_proxy_tcp, g);
    }
    if (rc < 0)
        led(g, -1, rc, err_str(rc));
}

/* ---- the end ---- */

void guest_say(struct guest *g, const void *p, size_t n)
{
    (void)evbuffer_add(g->out, p, n); /* without memory the guest misses its answer */
}

/* What the guest does not take now waits; what it never takes is noticed when it is read from. */
void guest_flush(struct guest *g)
{
    while (evbuffer_get_length(g->out) > 0) {
        if (evbuffer_write(g->out, g->fd) > 0)
            continue;
        if (errno == EAGAIN || errno == EINTR)
            event_add(&g->write_ev, NULL);
        return;
    }
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct guest *g = arg;
    (void)fd, (void)what;
    guest_flush(g);
    if (g->state == GUEST_BYE && !event_pending(&g->write_ev, EV_WRITE, NULL))
        (void)shutdown(g->fd, SHUT_WR);
}

/* Closing with unread bytes would take the answer back: they are read until the guest has ended, too. */
void guest_bye(struct guest *g)
{
    stop(g);
    g->state = GUEST_BYE;
    timer_set(g, BYE_MS);
    event_add(&g->read_ev, NULL);
    on_writable(g->fd, EV_WRITE, g);
}

static void on_joined_end(void *arg, int err)
{
    (void)err;
    guest_free(arg);
}

static int on_filter(void *arg, const uint8_t *p, size_t n, struct evbuffer *out)
{
    struct guest *g = arg;
    return g->filter(g, p, n, out);
}

void guest_join(struct guest *g)
{
    assert(g->out_fd >= 0);
    stop(g);
    g->state = GUEST_JOINED;
    struct splice_cfg cfg = {
        .fd = {g->fd, g->out_fd},
        .first = {g->in, g->out},
        .filter = g->filter != NULL ? on_filter : NULL,
        .done = on_joined_end,
        .arg = g,
    };
    if (splice_new(&g->hub->splices, &cfg) < 0)
        guest_free(g);
}
