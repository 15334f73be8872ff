#include "tests/unit/transport/pipe.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

#define IOVS      8
#define TURNS_MAX 1000000 /* without any time passing */

struct pipe_segment {
    struct pipe_segment *next;
    uint64_t at_ns; /* arrival */
    size_t off, n;
    uint8_t data[];
};

static void *must(void *p)
{
    if (p == NULL)
        abort();
    return p;
}

uint64_t pipe_now(const struct pipe_net *net)
{
    return net->loop.now_ns;
}

/* ---- leaving an end ---- */

static uint64_t arrival(struct pipe_conn *c, size_t n)
{
    uint64_t now = pipe_now(c->net);
    if (c->free_ns < now)
        c->free_ns = now;
    if (c->out.rate > 0)
        c->free_ns += n * NS_PER_S / c->out.rate;
    uint64_t at = c->free_ns + c->out.delay_ns;
    if (at < c->last_at_ns)
        at = c->last_at_ns;
    return c->last_at_ns = at;
}

static void arm_arrival(struct pipe_conn *c)
{
    struct loop *loop = &c->net->loop;
    uint64_t at = c->head != NULL ? c->head->at_ns : c->fin != 0 ? c->fin_at_ns : LOOP_NEVER;
    if (at == LOOP_NEVER || c->out.frozen || !c->other->open ||
        (c->other->paused && c->head != NULL))
        loop_timer_cancel(loop, &c->arrive);
    else
        loop_timer_set(loop, &c->arrive, at);
}

static void send_bytes(struct pipe_conn *c, const struct iovec *iov, int cnt, size_t n)
{
    struct pipe_segment *seg = must(malloc(sizeof *seg + n));
    *seg = (struct pipe_segment){.at_ns = arrival(c, n)};
    for (int i = 0; i < cnt && seg->n < n; i++) {
        size_t part = iov[i].iov_len < n - seg->n ? iov[i].iov_len : n - seg->n;
        memcpy(seg->data + seg->n, iov[i].iov_base, part);
        seg->n += part;
    }
    if (c->tail != NULL)
        c->tail->next = seg;
    else
        c->head = seg;
    c->tail = seg;
    c->under_way += n;
    c->sent += n;
    c->writes++;
}

/* How much this end may write now; arms its timer when the rate is what holds it up. */
static size_t may_send(struct pipe_conn *c)
{
    uint64_t now = pipe_now(c->net);
    if (c->fin != 0 || c->down_told)
        return 0;
    if (c->out.rate > 0 && c->free_ns > now) {
        loop_timer_set(&c->net->loop, &c->depart, c->free_ns);
        return 0;
    }
    /* With a rate, what leaves at once is what leaves in 20 ms. */
    size_t most = c->out.rate > 0 ? (size_t)(c->out.rate / 50) + 1 : 1u << 20;
    if (c->out.window > 0) {
        size_t room = c->out.window > c->under_way ? c->out.window - c->under_way : 0;
        most = room < most ? room : most;
    }
    return most;
}

/* Asks for output before it knows whether there is room, as a driver of sockets does. */
static void write_some(struct pipe_conn *c)
{
    while (c->conn.user != NULL && c->open && c->up && !c->out.stalled) {
        struct iovec iov[IOVS];
        size_t n = 0, most;
        int cnt = c->conn.user->output(c->conn.arg, iov, IOVS, pipe_now(c->net));
        for (int i = 0; i < cnt; i++)
            n += iov[i].iov_len;
        if (n == 0 || (most = may_send(c)) == 0)
            break;
        n = n < most ? n : most;
        send_bytes(c, iov, cnt, n);
        c->conn.user->sent(c->conn.arg, n, pipe_now(c->net));
    }
    arm_arrival(c);
}

static void on_flush(struct loop_task *t)
{
    write_some(container_of(t, struct pipe_conn, flush));
}

static void on_depart(struct loop_timer *t)
{
    write_some(container_of(t, struct pipe_conn, depart));
}

/* ---- arriving at the other end ---- */

static void tell_down(struct pipe_conn *c, int err)
{
    if (!c->open || c->down_told)
        return;
    c->down_told = true;
    if (c->conn.user != NULL)
        c->conn.user->down(c->conn.arg, err);
}

static void deliver(struct pipe_conn *to, struct pipe_segment *seg, size_t n)
{
    struct buf *b = must(buf_get(to->net->pool, n));
    memcpy(buf_room(b), seg->data + seg->off, n);
    struct slice in = buf_take(b, n);
    buf_put(b);
    seg->off += n;
    seg->n -= n;
    to->received += n;
    to->inputs++;
    if (to->conn.user != NULL)
        to->conn.user->input(to->conn.arg, in, pipe_now(to->net));
    slice_release(&in);
}

static void drop_segments(struct pipe_conn *c)
{
    while (c->head != NULL) {
        struct pipe_segment *seg = c->head;
        c->head = seg->next;
        free(seg);
    }
    c->tail = NULL;
    c->under_way = 0;
}

static void on_arrive(struct loop_timer *t)
{
    struct pipe_conn *c = container_of(t, struct pipe_conn, arrive), *to = c->other;
    uint64_t now = pipe_now(c->net);
    while (c->head != NULL && c->head->at_ns <= now && to->open && !to->paused && !c->out.frozen) {
        struct pipe_segment *seg = c->head;
        size_t n = seg->n, chunk = c->out.chunk > 0 ? c->out.chunk : BUF_READ_SIZE;
        if (n > chunk)
            n = chunk;
        c->under_way -= n;
        deliver(to, seg, n);
        if (c->head != seg || seg->n > 0) /* closed meanwhile, or more of it */
            continue;
        c->head = seg->next;
        if (c->head == NULL)
            c->tail = NULL;
        free(seg);
    }
    if (c->head == NULL && c->fin != 0 && c->fin_at_ns <= now && !c->out.frozen) {
        tell_down(to, c->fin);
        c->fin_at_ns = LOOP_NEVER;
        return;
    }
    if (c->open)
        loop_task_post(&c->net->loop, &c->flush); /* there is room again */
    arm_arrival(c);
}

/* ---- conn.h ---- */

static void op_flush(struct conn *conn)
{
    struct pipe_conn *c = pipe_of(conn);
    if (c->open && c->up)
        loop_task_post(&c->net->loop, &c->flush);
}

static void op_pause(struct conn *conn, bool paused)
{
    struct pipe_conn *c = pipe_of(conn);
    c->paused = paused;
    if (c->open && c->other != NULL)
        arm_arrival(c->other);
}

static void stop(struct pipe_conn *c)
{
    struct loop *loop = &c->net->loop;
    loop_timer_cancel(loop, &c->depart);
    loop_task_cancel(loop, &c->flush);
}

/* What was written before still arrives, then the end. What was under way to here is lost. */
static void op_close(struct conn *conn)
{
    struct pipe_conn *c = pipe_of(conn);
    if (!c->open)
        return;
    c->open = false;
    c->net->open--;
    stop(c);
    if (c->other == NULL)
        return;
    struct pipe_conn *other = c->other;
    loop_timer_cancel(&c->net->loop, &other->arrive);
    if (c->fin == 0) {
        c->fin = other->under_way > 0 ? ERR_RESET : ERR_EOF;
        c->fin_at_ns = arrival(c, 0);
    }
    arm_arrival(c);
}

static const struct conn_ops ops = {op_flush, op_pause, op_close};

void pipe_break(struct pipe_conn *c, int err)
{
    tell_down(c, err);
    if (c->other != NULL)
        tell_down(c->other, err);
}

void pipe_wake(struct pipe_conn *c)
{
    op_flush(&c->conn);
    if (c->other != NULL) {
        arm_arrival(c);
        arm_arrival(c->other);
    }
}

/* ---- making conns ---- */

static struct pipe_conn *conn_new(struct pipe_net *net, const char *peer)
{
    struct pipe_conn *c = must(calloc(1, sizeof *c));
    c->conn.ops = &ops;
    snprintf(c->conn.peer, sizeof c->conn.peer, "%s", peer);
    memcpy(c->conn.peer_ip, (const uint8_t[]){127, 0, 0, 1}, 4);
    c->conn.peer_ip_len = 4;
    c->net = net;
    c->out = net->fault;
    c->open = true;
    c->arrive.fn = on_arrive;
    c->depart.fn = on_depart;
    c->flush.fn = on_flush;
    c->next = net->conns;
    net->conns = c;
    net->open++;
    return c;
}

static void join(struct pipe_conn *a, struct pipe_conn *b)
{
    a->other = b;
    b->other = a;
    a->up = b->up = true;
}

void pipe_pair(struct pipe_net *net, struct pipe_conn **a, struct pipe_conn **b)
{
    *a = conn_new(net, "b:0");
    *b = conn_new(net, "a:0");
    join(*a, *b);
}

static struct pipe_listener **find(struct pipe_net *net, const char *addr)
{
    struct pipe_listener **at = &net->listeners;
    while (*at != NULL && strcmp((*at)->addr, addr) != 0)
        at = &(*at)->next;
    return at;
}

void pipe_listen(struct pipe_net *net, const char *addr, pipe_accept_fn *fn, void *arg)
{
    struct pipe_listener **at = find(net, addr);
    assert(*at == NULL);
    *at = must(calloc(1, sizeof **at));
    snprintf((*at)->addr, sizeof(*at)->addr, "%s", addr);
    (*at)->fn = fn;
    (*at)->arg = arg;
}

void pipe_unlisten(struct pipe_net *net, const char *addr)
{
    struct pipe_listener **at = find(net, addr), *l = *at;
    if (l == NULL)
        return;
    *at = l->next;
    free(l);
}

/* A dial has taken its time: reach the listener, or say that there is none. */
static void on_dialled(struct loop_timer *t)
{
    struct pipe_conn *c = container_of(t, struct pipe_conn, depart);
    struct pipe_net *net = c->net;
    struct pipe_listener *l = *find(net, c->conn.peer);
    c->depart.fn = on_depart;
    if (c->start_err < 0 || l == NULL) {
        net->refused++;
        tell_down(c, c->start_err < 0 ? c->start_err : ERR_REFUSED);
        return;
    }
    struct pipe_conn *accepted = conn_new(net, "dialer:0");
    join(c, accepted);
    l->fn(l->arg, &accepted->conn);
    if (c->open && c->conn.user != NULL)
        c->conn.user->up(c->conn.arg);
}

static int dial(struct carrier *ca, const char *addr, unsigned timeout_ms,
                const struct conn_user *user, void *arg, struct conn **out)
{
    struct pipe_net *net = container_of(ca, struct pipe_net, carrier);
    uint64_t limit = timeout_ms * NS_PER_MS, takes = net->dial_ns;
    if (strchr(addr, ':') == NULL)
        return ERR_FORMAT;
    net->dials++;
    struct pipe_conn *c = conn_new(net, addr);
    conn_set_user(&c->conn, user, arg);
    if (takes > limit || strncmp(addr, "hole", 4) == 0) {
        takes = limit;
        c->start_err = ERR_TIMEOUT;
    }
    c->depart.fn = on_dialled;
    loop_timer_set(&net->loop, &c->depart, pipe_now(net) + takes);
    *out = &c->conn;
    return 0;
}

/* ---- the net ---- */

void pipe_net_init(struct pipe_net *net, struct bufpool *pool, struct env_test *env)
{
    *net = (struct pipe_net){.pool = pool, .env = env, .carrier = {.name = "pipe", .dial = dial}};
    loop_init(&net->loop, 1000 * NS_PER_S);
}

static void turn(struct pipe_net *net, uint64_t now_ns)
{
    loop_turn(&net->loop, now_ns);
    if (net->env != NULL && env_test_queued(net->env) > 0)
        (void)env_test_run(net->env, net->pk_per_turn > 0 ? net->pk_per_turn : SIZE_MAX);
}

bool pipe_net_until(struct pipe_net *net, uint64_t max_ns, bool (*done)(void *arg), void *arg)
{
    uint64_t end = pipe_now(net) + max_ns;
    for (unsigned turns = 0;; turns++) {
        if (done != NULL && done(arg))
            return true;
        uint64_t at = loop_deadline(&net->loop);
        if (net->env != NULL && env_test_queued(net->env) > 0)
            at = 0;
        if (at > end)
            break;
        if (at > pipe_now(net))
            turns = 0;
        if (turns > TURNS_MAX) {
            fprintf(stderr, "pipe: the loop spins\n");
            abort();
        }
        turn(net, at > pipe_now(net) ? at : pipe_now(net));
    }
    turn(net, end);
    return done != NULL && done(arg);
}

void pipe_net_run(struct pipe_net *net, uint64_t for_ns)
{
    (void)pipe_net_until(net, for_ns, NULL, NULL);
}

void pipe_net_free(struct pipe_net *net)
{
    loop_turn(&net->loop, pipe_now(net));
    loop_turn(&net->loop, pipe_now(net));
    assert(net->open == 0);
    struct pipe_conn *c;
    while ((c = net->conns) != NULL) {
        net->conns = c->next;
        loop_timer_cancel(&net->loop, &c->arrive);
        loop_timer_cancel(&net->loop, &c->depart);
        loop_task_cancel(&net->loop, &c->flush);
        drop_segments(c);
        free(c);
    }
    while (net->listeners != NULL)
        pipe_unlisten(net, net->listeners->addr);
    loop_close(&net->loop);
}
