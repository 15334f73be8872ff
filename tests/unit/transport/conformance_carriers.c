/* Carriers under test: memory in virtual time, good and bad, and sockets. */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "tests/unit/transport/conformance.h"
#include "tests/unit/transport/pipe.h"
#include "tests/unit/vectors.h"
#include "transport/drive_tcp.h"

/* ---- memory ---- */

static void pipe_begin_with(struct bed *b, struct pipe_fault fault)
{
    struct pipe_net *net = calloc(1, sizeof(*net));
    assert_non_null(net);
    pipe_net_init(net, b->pool, &b->env);
    net->fault = fault;
    b->own = net;
    b->loop = &net->loop;
}

static bool pipe_begin(struct bed *b)
{
    pipe_begin_with(b, (struct pipe_fault){0});
    return true;
}

static bool pipe_begin_bytes(struct bed *b)
{
    pipe_begin_with(b, (struct pipe_fault){.chunk = 7});
    return true;
}

static bool pipe_begin_far(struct bed *b)
{
    pipe_begin_with(
        b, (struct pipe_fault){.delay_ns = 100 * NS_PER_MS, .rate = 10000000, .window = 200000});
    return true;
}

static void pipe_end(struct bed *b)
{
    pipe_net_free(b->own);
    free(b->own);
}

static void pipe_make(struct bed *b, struct conn **dialler, struct conn **acceptor)
{
    struct pipe_conn *x, *y;
    pipe_pair(b->own, &x, &y);
    *dialler = &x->conn;
    *acceptor = &y->conn;
}

static bool is_set(void *arg)
{
    return *(const bool *)arg;
}

static void pipe_run(struct bed *b, const bool *stop, uint64_t ns)
{
    (void)pipe_net_until(b->own, ns, is_set, (void *)(uintptr_t)stop);
}

static const struct carrier_kind in_memory = {"memory", pipe_begin, pipe_end, pipe_make, pipe_run},
                                 in_pieces = {"memory in pieces", pipe_begin_bytes, pipe_end,
                                              pipe_make, pipe_run},
                                 far_away = {"memory, 100 ms away", pipe_begin_far, pipe_end,
                                             pipe_make, pipe_run};

/* ---- sockets ---- */

struct sockets {
    struct drive_loop *drive;
    struct drive_tcp *tcp;
    struct drive_listener *listener;
    struct conn *accepted, *dialled;
    bool dial_up, dial_down;
};

static void on_accept(void *arg, struct conn *conn)
{
    struct sockets *s = arg;
    assert_null(s->accepted);
    s->accepted = conn;
}

static bool sockets_begin(struct bed *b, const char *listen)
{
    struct sockets *s = calloc(1, sizeof(*s));
    assert_non_null(s);
    s->drive = drive_loop_new(NULL);
    assert_non_null(s->drive);
    s->tcp = drive_tcp_new(s->drive, b->pool);
    assert_non_null(s->tcp);
    b->own = s;
    b->loop = drive_loop_loop(s->drive);
    drive_loop_now(s->drive);
    return listen == NULL || drive_tcp_listen(s->tcp, listen, on_accept, s, &s->listener) == 0;
}

static bool tcp4_begin(struct bed *b)
{
    assert_true(sockets_begin(b, "127.0.0.1:0"));
    return true;
}

static bool tcp6_begin(struct bed *b)
{
    return sockets_begin(b, "[::1]:0");
}

static bool unix_begin(struct bed *b)
{
    return sockets_begin(b, NULL);
}

static void sockets_end(struct bed *b)
{
    struct sockets *s = b->own;
    loop_turn(b->loop, drive_loop_now(s->drive)); /* deferred closes */
    drive_listener_close(s->listener);
    drive_tcp_free(s->tcp);
    drive_loop_free(s->drive);
    free(s);
}

/* ---- waiting in real time ---- */

struct watch {
    struct loop_timer timer;
    struct sockets *s;
    const bool *stop;
    uint64_t until_ns;
};

static void on_watch(struct loop_timer *t)
{
    struct watch *w = container_of(t, struct watch, timer);
    struct loop *loop = drive_loop_loop(w->s->drive);
    if (*w->stop || loop->now_ns >= w->until_ns)
        drive_loop_stop(w->s->drive);
    else
        loop_timer_set(loop, t, loop->now_ns + NS_PER_MS);
}

static void sockets_run(struct bed *b, const bool *stop, uint64_t ns)
{
    struct sockets *s = b->own;
    struct watch w = {.timer.fn = on_watch, .s = s, .stop = stop};
    w.until_ns = drive_loop_now(s->drive) + ns;
    loop_timer_set(b->loop, &w.timer, b->loop->now_ns);
    assert_int_equal(drive_loop_run(s->drive), 0);
    loop_timer_cancel(b->loop, &w.timer);
}

/* ---- a dialled pair ---- */

static void dial_up(void *arg)
{
    ((struct sockets *)arg)->dial_up = true;
}

static void dial_down(void *arg, int err)
{
    (void)err;
    ((struct sockets *)arg)->dial_down = true;
}

static void dial_input(void *arg, struct slice in, uint64_t now_ns)
{
    (void)arg, (void)in, (void)now_ns;
}

static int dial_output(void *arg, struct iovec *iov, int max, uint64_t now_ns)
{
    (void)arg, (void)iov, (void)max, (void)now_ns;
    return 0;
}

static void dial_sent(void *arg, size_t n, uint64_t now_ns)
{
    (void)arg, (void)n, (void)now_ns;
}

static const struct conn_user dial_user = {dial_up, dial_input, dial_output, dial_sent, dial_down};

static void tcp_make(struct bed *b, struct conn **dialler, struct conn **acceptor)
{
    struct sockets *s = b->own;
    struct carrier *ca = drive_tcp_carrier(s->tcp);
    s->accepted = NULL;
    s->dial_up = s->dial_down = false;
    assert_int_equal(
        ca->dial(ca, drive_listener_addr(s->listener), 20000, &dial_user, s, &s->dialled), 0);
    for (int i = 0; i < 20000 && !(s->dial_up && s->accepted != NULL) && !s->dial_down; i++) {
        bool no = false;
        sockets_run(b, &no, NS_PER_MS);
    }
    assert_true(s->dial_up && s->accepted != NULL);
    *dialler = s->dialled;
    *acceptor = s->accepted;
}

static void unix_make(struct bed *b, struct conn **dialler, struct conn **acceptor)
{
    struct sockets *s = b->own;
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    *dialler = drive_tcp_adopt(s->tcp, fds[0], "one");
    *acceptor = drive_tcp_adopt(s->tcp, fds[1], "other");
    assert_true(*dialler != NULL && *acceptor != NULL);
}

static const struct carrier_kind tcp4 = {"TCP over IPv4", tcp4_begin, sockets_end, tcp_make,
                                         sockets_run},
                                 tcp6 = {"TCP over IPv6", tcp6_begin, sockets_end, tcp_make,
                                         sockets_run},
                                 local = {"socketpair", unix_begin, sockets_end, unix_make,
                                          sockets_run};

const struct carrier_kind *const carriers[] = {&in_memory, &in_pieces, &far_away, &tcp4,
                                               &tcp6,      &local,     NULL};
