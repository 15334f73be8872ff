#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "apps/iperf.h"
#include "apps/iperf_flow.h"
#include "base/err.h"
#include "base/loop.h"

#define TICK_MS   200
#define ECHO_ROOM 4096

enum state {
    HEAD,   /* reads what the stream is to be */
    SINK,   /* reads and checks */
    RESULT, /* writes what came of it */
    SOURCE, /* writes */
    ECHO,
    TAIL, /* waits for the client to close */
};

struct conn {
    int fd;
    struct pubkey pk;
    enum state state;
    struct iperf_head head;
    struct iperf_source src;
    struct iperf_sink sink;
    uint8_t buf[ECHO_ROOM]; /* head, result, echo */
    size_t have, at;
    uint64_t began_ns, moved_ns;
};

struct server {
    const struct iperf_server_cfg *cfg;
    struct app_net *net;
    struct conn *conns[IPERF_CONNS];
    struct pollfd poll[IPERF_CONNS + 1]; /* the net first */
    size_t n;
    bool ended; /* the listener */
};

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

/* ---- one stream ---- */

static void conn_free(struct conn *c)
{
    close(c->fd);
    iperf_source_free(&c->src);
    free(c);
}

/* Bytes into buf until n are there. 0 they are, ERR_AGAIN, or an error. */
static int read_buf(struct conn *c, size_t n)
{
    ssize_t got = read(c->fd, c->buf + c->have, n - c->have);
    if (got < 0)
        return errno == EAGAIN || errno == EINTR ? ERR_AGAIN : err_sys();
    if (got == 0)
        return ERR_EOF;
    c->have += (size_t)got;
    return c->have == n ? 0 : ERR_AGAIN;
}

static int write_buf(struct conn *c)
{
    ssize_t n = write(c->fd, c->buf + c->at, c->have - c->at);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? ERR_AGAIN : err_sys();
    c->at += (size_t)n;
    if (c->at < c->have)
        return ERR_AGAIN;
    c->at = c->have = 0;
    return 0;
}

static int begin(struct conn *c, uint64_t now)
{
    int rc = iperf_head_get(&c->head, c->buf);
    c->have = 0;
    c->began_ns = now;
    if (rc < 0)
        return rc;
    switch (c->head.mode) {
    case IPERF_UP:
        iperf_sink_init(&c->sink, c->head.seed);
        c->state = SINK;
        break;
    case IPERF_DOWN:
        c->state = SOURCE;
        return iperf_source_init(&c->src, c->head.seed, c->head.block);
    case IPERF_ECHO:
        c->state = ECHO;
        break;
    }
    return 0;
}

static int step_sink(struct conn *c, uint64_t now)
{
    int rc = iperf_sink_step(&c->sink, c->fd, now);
    if (rc == 0 && c->sink.done) {
        iperf_result_put(c->buf, &c->sink.result);
        c->have = IPERF_RESULT;
        c->state = RESULT;
    }
    return rc;
}

static int step_source(struct conn *c, uint64_t now)
{
    int rc = iperf_source_step(&c->src, c->fd, now - c->began_ns >= c->head.seconds * NS_PER_S);
    if (rc == 0 && c->src.done)
        c->state = TAIL;
    return rc;
}

static int step_echo(struct conn *c)
{
    if (c->have == 0) {
        ssize_t n = read(c->fd, c->buf, sizeof(c->buf));
        if (n == 0)
            return ERR_EOF;
        if (n < 0)
            return errno == EAGAIN || errno == EINTR ? 0 : err_sys();
        c->have = (size_t)n;
    }
    int rc = write_buf(c);
    return rc == ERR_AGAIN ? 0 : rc;
}

/* 0 to go on; anything else ends the stream. */
static int step(struct conn *c, uint64_t now)
{
    int rc = 0;
    switch (c->state) {
    case HEAD:
        rc = read_buf(c, IPERF_HEAD);
        return rc == 0 ? begin(c, now) : rc == ERR_AGAIN ? 0 : rc;
    case SINK:
        return step_sink(c, now);
    case RESULT:
        rc = write_buf(c);
        c->state = rc == 0 ? TAIL : RESULT;
        return rc == ERR_AGAIN ? 0 : rc;
    case SOURCE:
        return step_source(c, now);
    case ECHO:
        return step_echo(c);
    case TAIL: /* one byte more, or its end, is the end */
        rc = read_buf(c, 1);
        return rc == ERR_AGAIN ? 0 : ERR_EOF;
    }
    return ERR_STATE;
}

static short wants(const struct conn *c)
{
    bool writes = c->state == RESULT || c->state == SOURCE || (c->state == ECHO && c->have > 0);
    return writes ? POLLOUT : POLLIN;
}

static bool is_late(const struct conn *c, uint64_t now)
{
    return now - c->moved_ns >= (c->state == HEAD ? IPERF_HEAD_NS : IPERF_IDLE_NS);
}

/* ---- all of them ---- */

static void drop(struct server *s, size_t i)
{
    struct conn *c = s->conns[i];
    bool up = c->head.mode == IPERF_UP, down = c->head.mode == IPERF_DOWN;
    if ((up || down) && s->cfg->ended != NULL)
        s->cfg->ended(s->cfg->arg, &c->pk, up, up ? c->sink.result.bytes : c->src.bytes,
                      up ? c->sink.result.wrong : 0);
    conn_free(c);
    s->conns[i] = s->conns[--s->n];
}

static void on_stream(void *arg, int fd, const struct pubkey *pk, uint16_t port)
{
    struct server *s = arg;
    struct conn *c = NULL;
    const struct whitelist *wl = s->cfg->whitelist;
    (void)port;
    if (s->n < IPERF_CONNS && (wl == NULL || wl->n == 0 || whitelist_allows(wl, pk)))
        c = calloc(1, sizeof(*c));
    if (c == NULL) {
        close(fd);
        return;
    }
    fcntl(fd, F_SETFL, O_NONBLOCK);
    c->fd = fd;
    c->pk = *pk;
    c->moved_ns = now_ns();
    s->conns[s->n++] = c;
}

static void on_state(void *arg, uint16_t port, const struct app_net_failure *failure)
{
    struct server *s = arg;
    if (failure != NULL)
        s->ended = true;
    else if (s->cfg->ready != NULL)
        s->cfg->ready(s->cfg->arg, &s->net->self, port);
}

static void turn(struct server *s)
{
    struct pollfd *p = s->poll;
    size_t n = s->n;
    for (size_t i = 0; i < n; i++)
        p[i + 1] = (struct pollfd){s->conns[i]->fd, wants(s->conns[i]), 0};
    p[0] = (struct pollfd){app_net_fd(s->net), POLLIN, 0};
    int ready = poll(p, n + 1, TICK_MS);
    uint64_t now = now_ns();
    for (size_t i = n; i-- > 0;) {
        struct conn *c = s->conns[i];
        bool moves = ready > 0 && p[i + 1].revents != 0;
        if (moves)
            c->moved_ns = now;
        if ((moves && step(c, now) != 0) || is_late(c, now))
            drop(s, i);
    }
}

int iperf_serve(struct app_net *net, const struct iperf_server_cfg *cfg)
{
    struct server *s = calloc(1, sizeof(*s));
    uint64_t handle = 0;
    if (s == NULL)
        return app_net_fail(net, ERR_NOMEM, "%s", err_str(ERR_NOMEM));
    s->cfg = cfg;
    s->net = net;
    int rc = app_net_listen(net, cfg->port, on_stream, on_state, s, &handle);
    while (rc == 0 && !s->ended && *cfg->stop == 0) {
        turn(s);
        rc = app_net_dispatch(net, 0);
    }
    if (rc == 0 && s->ended)
        rc = net->failure.err;
    app_net_cancel(net, handle);
    while (s->n > 0)
        drop(s, s->n - 1);
    free(s);
    return rc;
}
