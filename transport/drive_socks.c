#include "transport/drive_socks.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/addr.h"
#include "base/cursor.h"
#include "base/err.h"
#include "base/list.h"

#define REQUEST_MAX (4 + 1 + 255 + 2)
#define ANSWER_MAX  (4 + 1 + 255 + 2)

struct via {
    struct carrier ca; /* first */
    struct carrier *below;
    struct loop *loop;
    char proxy[CONN_ADDR_MAX];
    size_t open; /* conns */
};

enum state {
    CONNECTING, /* to the proxy */
    METHOD,     /* its choice of a method is awaited */
    ANSWER,     /* its answer to the request */
    OPEN,
    FAILED,
    CLOSED,
};

struct socks_conn {
    struct conn conn; /* first: the user's */
    struct via *via;
    struct conn *inner;
    enum state state;
    unsigned timeout_ms;
    struct loop_timer timer;
    struct loop_task gone; /* frees it at the end of the turn */
    uint8_t request[REQUEST_MAX], out[REQUEST_MAX], in[ANSWER_MAX];
    size_t request_n, out_n, in_n;
};

static struct socks_conn *of(struct conn *c)
{
    return container_of(c, struct socks_conn, conn);
}

/* ---- what the user calls ---- */

static void do_flush(struct conn *c)
{
    struct socks_conn *s = of(c);
    if (s->state == OPEN)
        conn_flush(s->inner);
}

static void do_pause(struct conn *c, bool paused)
{
    struct socks_conn *s = of(c);
    if (s->inner != NULL)
        conn_pause(s->inner, paused);
}

static void do_close(struct conn *c)
{
    struct socks_conn *s = of(c);
    assert(s->state != CLOSED);
    s->state = CLOSED;
    loop_timer_cancel(s->via->loop, &s->timer);
    if (s->inner != NULL)
        conn_close(s->inner);
    s->inner = NULL;
    loop_task_post(s->via->loop, &s->gone);
}

static void on_gone(struct loop_task *t)
{
    struct socks_conn *s = container_of(t, struct socks_conn, gone);
    s->via->open--;
    free(s);
}

static const struct conn_ops ops = {do_flush, do_pause, do_close};

/* ---- talking to the proxy ---- */

static void fail(struct socks_conn *s, int err)
{
    s->state = FAILED;
    loop_timer_cancel(s->via->loop, &s->timer);
    s->conn.user->down(s->conn.arg, err);
}

static void on_timer(struct loop_timer *t)
{
    fail(container_of(t, struct socks_conn, timer), ERR_TIMEOUT);
}

static void say(struct socks_conn *s, const void *p, size_t n)
{
    memcpy(s->out, p, n);
    s->out_n = n;
    conn_flush(s->inner);
}

static void on_up(void *arg)
{
    struct socks_conn *s = arg;
    s->state = METHOD;
    loop_timer_set(s->via->loop, &s->timer, s->via->loop->now_ns + s->timeout_ms * NS_PER_MS);
    say(s, "\x05\x01\x00", 3);
}

static int err_of_reply(uint8_t code)
{
    switch (code) {
    case 0:
        return 0;
    case 3:
        return -ENETUNREACH;
    case 4:
        return -EHOSTUNREACH;
    case 5:
        return -ECONNREFUSED;
    case 6:
        return ERR_TIMEOUT;
    default:
        return ERR_REFUSED;
    }
}

/* How long the answer is as far as it is known by now. */
static size_t answer_length(const struct socks_conn *s)
{
    if (s->in_n < 5)
        return 5;
    return 4u + 2 + (s->in[3] == 1 ? 4u : s->in[3] == 4 ? 16u : s->in[3] == 3 ? 1u + s->in[4] : 1u);
}

static size_t wanted(const struct socks_conn *s)
{
    return s->state == METHOD ? 2 : s->state == ANSWER ? answer_length(s) : 0;
}

static void take_method(struct socks_conn *s)
{
    s->in_n = 0;
    if (s->in[0] != 5 || s->in[1] != 0) {
        fail(s, s->in[0] == 5 ? ERR_REFUSED : ERR_FORMAT);
        return;
    }
    s->state = ANSWER;
    say(s, s->request, s->request_n);
}

static void take_answer(struct socks_conn *s)
{
    int err = s->in[0] != 5 ? ERR_FORMAT : err_of_reply(s->in[1]);
    if (err != 0) {
        fail(s, err);
        return;
    }
    s->state = OPEN;
    loop_timer_cancel(s->via->loop, &s->timer);
    s->conn.user->up(s->conn.arg);
}

/* The user may close it from inside its functions: nothing is touched then but the state, memory goes later. */
static void on_input(void *arg, struct slice in, uint64_t now_ns)
{
    struct socks_conn *s = arg;
    size_t at = 0, want;
    while ((s->state == METHOD || s->state == ANSWER) && at < in.n) {
        want = wanted(s) - s->in_n;
        size_t n = in.n - at < want ? in.n - at : want;
        memcpy(s->in + s->in_n, in.p + at, n);
        s->in_n += n;
        at += n;
        if (s->in_n < wanted(s))
            continue;
        if (s->state == METHOD)
            take_method(s);
        else
            take_answer(s);
    }
    if (s->state != OPEN || at == in.n)
        return;
    struct slice rest = slice_sub(in, at, in.n - at);
    s->conn.user->input(s->conn.arg, rest, now_ns);
    slice_release(&rest);
}

static int on_output(void *arg, struct iovec *iov, int max, uint64_t now_ns)
{
    struct socks_conn *s = arg;
    if (s->out_n > 0) {
        iov[0] = (struct iovec){s->out, s->out_n};
        return 1;
    }
    return s->state == OPEN ? s->conn.user->output(s->conn.arg, iov, max, now_ns) : 0;
}

static void on_sent(void *arg, size_t n, uint64_t now_ns)
{
    struct socks_conn *s = arg;
    if (s->out_n > 0) {
        memmove(s->out, s->out + n, s->out_n - n);
        s->out_n -= n;
        if (s->out_n == 0 && s->state == OPEN)
            conn_flush(s->inner);
    } else if (s->state == OPEN) {
        s->conn.user->sent(s->conn.arg, n, now_ns);
    }
}

static void on_down(void *arg, int err)
{
    struct socks_conn *s = arg;
    if (s->state != FAILED)
        fail(s, err);
}

static const struct conn_user talk = {on_up, on_input, on_output, on_sent, on_down};

/* ---- dialling ---- */

/* CONNECT: a name is the proxy's business. */
static int make_request(struct socks_conn *s, const char *addr)
{
    struct addr_hostport at;
    if (addr_hostport_parse(&at, addr, strlen(addr), 0, NULL) < 0)
        return ERR_FORMAT;
    size_t n = strlen(at.host);
    uint8_t *p = s->request;
    memcpy(p, "\x05\x01\x00", 3);
    if (inet_pton(AF_INET, at.host, p + 4) == 1) {
        p[3] = 1;
        n = 4;
    } else if (inet_pton(AF_INET6, at.host, p + 4) == 1) {
        p[3] = 4;
        n = 16;
    } else if (n > 0 && n <= 255) {
        p[3] = 3;
        p[4] = (uint8_t)n;
        memcpy(p + 5, at.host, n);
        n++;
    } else {
        return ERR_FORMAT;
    }
    put_be16(p + 4 + n, at.port);
    s->request_n = 4 + n + 2;
    return 0;
}

static int via_dial(struct carrier *ca, const char *addr, unsigned timeout_ms,
                    const struct conn_user *user, void *arg, struct conn **out)
{
    struct via *v = container_of(ca, struct via, ca);
    struct socks_conn *s = calloc(1, sizeof(*s));
    if (s == NULL)
        return ERR_NOMEM;
    s->conn.ops = &ops;
    conn_set_user(&s->conn, user, arg);
    s->via = v;
    s->timeout_ms = timeout_ms;
    s->timer.fn = on_timer;
    s->gone.fn = on_gone;
    memcpy(s->conn.peer, addr, strnlen(addr, sizeof(s->conn.peer) - 1));
    int rc = make_request(s, addr);
    if (rc == 0)
        rc = v->below->dial(v->below, v->proxy, timeout_ms, &talk, s, &s->inner);
    if (rc < 0) {
        free(s);
        return rc;
    }
    v->open++;
    *out = &s->conn;
    return 0;
}

struct carrier *drive_socks_new(struct loop *loop, struct carrier *below, const char *proxy)
{
    struct via *v = strlen(proxy) < CONN_ADDR_MAX ? calloc(1, sizeof(*v)) : NULL;
    if (v == NULL)
        return NULL;
    v->ca = (struct carrier){.name = "socks", .dial = via_dial};
    v->below = below;
    v->loop = loop;
    memcpy(v->proxy, proxy, strlen(proxy));
    return &v->ca;
}

void drive_socks_free(struct carrier *ca)
{
    if (ca == NULL)
        return;
    struct via *v = container_of(ca, struct via, ca);
    assert(v->open == 0);
    free(v);
}
