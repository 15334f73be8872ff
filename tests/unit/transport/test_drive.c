/* drive_loop, drive_tcp and drive_env: real sockets, threads and clocks. Nothing here depends on
 * how long something takes; every wait ends when what is waited for is there, or fails after 20 s. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/err.h"
#include "tests/unit/vectors.h"
#include "transport/drive_env.h"
#include "transport/drive_loop.h"
#include "transport/drive_tcp.h"

struct fixture {
    struct drive_loop *drive;
    struct bufpool *pool;
    struct drive_tcp *tcp;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->drive = drive_loop_new(NULL);
    f->pool = bufpool_new(NULL);
    f->tcp = drive_tcp_new(f->drive, f->pool);
    assert_true(f->drive != NULL && f->pool != NULL && f->tcp != NULL);
    *state = f;
    return 0;
}

static void turn(struct fixture *f)
{
    struct loop *loop = drive_loop_loop(f->drive);
    loop_turn(loop, drive_loop_now(f->drive));
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    turn(f);
    drive_tcp_free(f->tcp);
    assert_int_equal(bufpool_in_use(f->pool), 0);
    bufpool_free(f->pool);
    drive_loop_free(f->drive);
    free(f);
    return 0;
}

static struct loop *loop_of(struct fixture *f)
{
    return drive_loop_loop(f->drive);
}

/* ---- waiting ---- */

struct watch { /* ends the run: condition true, or time over */
    struct loop_timer timer;
    struct fixture *f;
    bool (*done)(void *arg);
    void *arg;
    uint64_t until_ns;
    bool ok;
};

static void on_watch(struct loop_timer *t)
{
    struct watch *w = container_of(t, struct watch, timer);
    struct loop *loop = loop_of(w->f);
    w->ok = w->done != NULL && w->done(w->arg);
    if (w->ok || loop->now_ns >= w->until_ns)
        drive_loop_stop(w->f->drive);
    else
        loop_timer_set(loop, t, loop->now_ns + NS_PER_MS);
}

static bool run_for(struct fixture *f, uint64_t ns, bool (*done)(void *arg), void *arg)
{
    struct watch w = {.f = f, .done = done, .arg = arg, .timer.fn = on_watch};
    w.until_ns = drive_loop_now(f->drive) + ns;
    loop_timer_set(loop_of(f), &w.timer, loop_of(f)->now_ns);
    assert_int_equal(drive_loop_run(f->drive), 0);
    loop_timer_cancel(loop_of(f), &w.timer);
    return w.ok;
}

static void wait_until(struct fixture *f, bool (*done)(void *arg), void *arg)
{
    assert_true(run_for(f, 20 * NS_PER_S, done, arg));
}

/* ---- drive_loop ---- */

#define SENDERS  4
#define MESSAGES 2000

struct note {
    struct drive_msg msg;
    struct sender *from;
    unsigned nr;
};

struct sender {
    pthread_t thread;
    struct drive_loop *drive;
    struct note note[MESSAGES];
    unsigned got;
    bool disorder;
    pthread_t seen_on;
};

static void on_note(struct drive_msg *m)
{
    struct note *n = (struct note *)m;
    struct sender *s = n->from;
    if (n->nr != s->got++)
        s->disorder = true;
    s->seen_on = pthread_self();
}

static void *send_notes(void *arg)
{
    struct sender *s = arg;
    for (unsigned i = 0; i < MESSAGES; i++) {
        s->note[i] = (struct note){.msg.fn = on_note, .from = s, .nr = i};
        drive_post(s->drive, &s->note[i].msg);
    }
    return NULL;
}

static bool all_notes(void *arg)
{
    struct sender *s = arg;
    for (unsigned i = 0; i < SENDERS; i++)
        if (s[i].got < MESSAGES)
            return false;
    return true;
}

static void test_posts_of_threads(void **state)
{
    struct fixture *f = *state;
    struct sender *s = calloc(SENDERS, sizeof *s);
    for (unsigned i = 0; i < SENDERS; i++) {
        s[i].drive = f->drive;
        assert_int_equal(pthread_create(&s[i].thread, NULL, send_notes, &s[i]), 0);
    }
    wait_until(f, all_notes, s);
    for (unsigned i = 0; i < SENDERS; i++) {
        pthread_join(s[i].thread, NULL);
        assert_int_equal(s[i].got, MESSAGES);
        assert_false(s[i].disorder);
        assert_true(pthread_equal(s[i].seen_on, pthread_self()));
    }
    free(s);
}

/* A message may be posted again from its own function; messages posted before the loop runs are
 * not lost. */
struct again {
    struct drive_msg msg;
    struct fixture *f;
    unsigned n;
};

static void on_again(struct drive_msg *m)
{
    struct again *a = (struct again *)m;
    if (++a->n < 100)
        drive_post(a->f->drive, m);
}

static bool again_done(void *arg)
{
    return ((struct again *)arg)->n == 100;
}

static void test_post_again(void **state)
{
    struct fixture *f = *state;
    struct again a = {.msg.fn = on_again, .f = f};
    drive_post(f->drive, &a.msg);
    wait_until(f, again_done, &a);
}

struct order {
    struct loop_timer timer[8];
    struct loop_task task;
    struct loop *loop;
    unsigned fired;
    bool wrong, task_ran;
    uint64_t last_ns;
};

static struct order *the_order;

static void on_order(struct loop_timer *t)
{
    struct order *o = the_order;
    if (t != &o->timer[o->fired++] || t->at_ns > o->loop->now_ns || o->loop->now_ns < o->last_ns)
        o->wrong = true;
    o->last_ns = o->loop->now_ns;
    if (o->fired == 3)
        loop_task_post(o->loop, &o->task);
}

static void on_order_task(struct loop_task *t)
{
    (void)t;
    the_order->task_ran = true;
}

static bool order_done(void *arg)
{
    struct order *o = arg;
    return o->fired == 8 && o->task_ran;
}

static void test_timers(void **state)
{
    struct fixture *f = *state;
    struct order o = {.loop = loop_of(f), .task.fn = on_order_task};
    uint64_t now = drive_loop_now(f->drive);
    the_order = &o;
    for (unsigned i = 8; i-- > 0;) {
        o.timer[i].fn = on_order;
        loop_timer_set(o.loop, &o.timer[i], now + (1 + 2 * i) * NS_PER_MS);
    }
    wait_until(f, order_done, &o);
    assert_false(o.wrong);
    assert_true(drive_loop_max_turn_ns(f->drive) > 0);
}

/* ---- drive_tcp ---- */

struct end { /* one conn */
    struct fixture *f;
    struct conn *conn;
    char log[32]; /* u up, d down */
    int err;
    uint64_t got, sent, to_send, taken;
    bool wrong;
    uint8_t chunk[32768];
    char close_at; /* close the conn inside this callback: u, i, d */
    bool pause_after_first;
};

static uint8_t pattern(uint64_t i)
{
    return (uint8_t)(i * 7 + (i >> 11));
}

static void end_close(struct end *e)
{
    if (e->conn != NULL)
        conn_close(e->conn);
    e->conn = NULL;
}

static void end_note(struct end *e, char what)
{
    size_t n = strlen(e->log);
    if (n + 1 < sizeof e->log)
        e->log[n] = what;
    if (e->close_at == what)
        end_close(e);
}

static void on_up(void *arg)
{
    end_note(arg, 'u');
}

static void on_input(void *arg, struct slice in, uint64_t now_ns)
{
    struct end *e = arg;
    (void)now_ns;
    for (size_t i = 0; i < in.n; i++)
        if (in.p[i] != pattern(e->got + i))
            e->wrong = true;
    e->got += in.n;
    if (e->close_at == 'i')
        end_close(e);
    if (e->pause_after_first) {
        e->pause_after_first = false;
        conn_pause(e->conn, true);
    }
}

static int on_output(void *arg, struct iovec *iov, int max, uint64_t now_ns)
{
    struct end *e = arg;
    (void)now_ns;
    size_t n = sizeof e->chunk;
    assert_true(max >= 1);
    if (n > e->to_send - e->sent)
        n = (size_t)(e->to_send - e->sent);
    for (size_t i = 0; i < n; i++)
        e->chunk[i] = pattern(e->sent + i);
    iov[0] = (struct iovec){e->chunk, n};
    return n > 0 ? 1 : 0;
}

static void on_sent(void *arg, size_t n, uint64_t now_ns)
{
    struct end *e = arg;
    (void)now_ns;
    e->sent += n;
}

static void on_down(void *arg, int err)
{
    struct end *e = arg;
    e->err = err;
    end_note(e, 'd');
}

static const struct conn_user user = {on_up, on_input, on_output, on_sent, on_down};

struct server {
    struct fixture *f;
    struct drive_listener *l;
    struct end end[8];
    unsigned n;
};

static void on_accept(void *arg, struct conn *conn)
{
    struct server *s = arg;
    assert_true(s->n < 8);
    struct end *e = &s->end[s->n++];
    e->f = s->f;
    e->conn = conn;
    conn_set_user(conn, &user, e);
}

static struct server *listen_at(struct fixture *f, const char *addr)
{
    struct server *s = calloc(1, sizeof *s);
    assert_non_null(s);
    s->f = f;
    assert_int_equal(drive_tcp_listen(f->tcp, addr, on_accept, s, &s->l), 0);
    return s;
}

static void server_free(struct server *s)
{
    for (unsigned i = 0; i < s->n; i++)
        end_close(&s->end[i]);
    drive_listener_close(s->l);
    free(s);
}

static int dial(struct fixture *f, struct end *e, const char *addr, unsigned ms)
{
    struct carrier *ca = drive_tcp_carrier(f->tcp);
    e->f = f;
    return ca->dial(ca, addr, ms, &user, e, &e->conn);
}

static bool told(void *arg)
{
    return ((struct end *)arg)->log[0] != '\0';
}
static bool down(void *arg)
{
    return strchr(((struct end *)arg)->log, 'd') != NULL;
}
static bool accepted_one(void *arg)
{
    return ((struct server *)arg)->n >= 1;
}
static bool accepted_two(void *arg)
{
    return ((struct server *)arg)->n >= 2;
}
static bool got_all(void *arg)
{
    struct end *e = arg;
    return e->got == e->taken; /* taken: what is expected */
}
static bool nothing(void *arg)
{
    (void)arg;
    return false;
}

static void test_dial_bytes_eof(void **state)
{
    struct fixture *f = *state;
    struct server *s = listen_at(f, "127.0.0.1:0");
    struct end e = {.to_send = 3 << 20, .taken = 2 << 20};
    assert_int_equal(strncmp(drive_listener_addr(s->l), "127.0.0.1:", 10), 0);
    assert_int_not_equal(strcmp(drive_listener_addr(s->l), "127.0.0.1:0"), 0);
    assert_int_equal(dial(f, &e, drive_listener_addr(s->l), 5000), 0);
    assert_string_equal(e.log, ""); /* never from inside the call */
    wait_until(f, told, &e);
    wait_until(f, accepted_one, s);
    assert_string_equal(e.log, "u");
    assert_string_equal(e.conn->peer, drive_listener_addr(s->l));
    struct conn *in = s->end[0].conn;
    assert_int_equal(in->peer_ip_len, 4);
    assert_memory_equal(in->peer_ip, "\x7f\0\0\1", 4);
    assert_int_equal(strncmp(in->peer, "127.0.0.1:", 10), 0);
    /* Both directions at once, more than the socket holds. */
    s->end[0].to_send = 2 << 20;
    s->end[0].taken = 3 << 20;
    conn_flush(e.conn);
    conn_flush(in);
    wait_until(f, got_all, &e);
    wait_until(f, got_all, &s->end[0]);
    assert_true(!e.wrong && !s->end[0].wrong);
    end_close(&e);
    wait_until(f, down, &s->end[0]);
    assert_int_equal(s->end[0].err, ERR_EOF);
    assert_string_equal(s->end[0].log, "d");
    struct drive_tcp_stat st;
    drive_tcp_stat(f->tcp, &st);
    assert_int_equal(st.accepted, 1);
    assert_int_equal(st.dialled, 1);
    assert_int_equal(st.dial_failed, 0);
    assert_int_equal(st.conns, 1);
    server_free(s);
    turn(f);
    drive_tcp_stat(f->tcp, &st);
    assert_int_equal(st.conns, 0);
}

static void test_reset_is_told(void **state)
{
    struct fixture *f = *state;
    struct server *s = listen_at(f, "127.0.0.1:0");
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct linger hard = {1, 0};
    sa.sin_port = htons((uint16_t)atoi(strchr(drive_listener_addr(s->l), ':') + 1));
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    wait_until(f, accepted_one, s);
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    close(fd);
    wait_until(f, down, &s->end[0]);
    assert_int_equal(s->end[0].err, -ECONNRESET);
    server_free(s);
}

static void test_refused_and_bad_addresses(void **state)
{
    struct fixture *f = *state;
    struct server *s = listen_at(f, "127.0.0.1:0");
    char addr[CONN_ADDR_MAX];
    struct end e = {0}, bad = {0};
    snprintf(addr, sizeof addr, "%s", drive_listener_addr(s->l));
    struct drive_listener *twice = NULL;
    assert_int_equal(drive_tcp_listen(f->tcp, addr, on_accept, s, &twice), -EADDRINUSE);
    assert_null(twice);
    server_free(s);
    assert_int_equal(dial(f, &e, addr, 5000), 0);
    wait_until(f, told, &e);
    assert_string_equal(e.log, "d");
    assert_int_equal(e.err, -ECONNREFUSED);
    end_close(&e);
    static const char *const wrong[] = {"", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:65536", ":80"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(dial(f, &bad, wrong[i], 5000), ERR_FORMAT);
        assert_null(bad.conn);
    }
    assert_int_equal(drive_tcp_listen(f->tcp, "127.0.0.1", on_accept, NULL, &twice), ERR_FORMAT);
    struct drive_tcp_stat st;
    drive_tcp_stat(f->tcp, &st);
    assert_int_equal(st.dial_failed, 1);
}

/* A listener whose queue is full lets SYNs wait: the dial ends by its own time. */
static void test_dial_timeout(void **state)
{
    struct fixture *f = *state;
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof sa;
    int fd = socket(AF_INET, SOCK_STREAM, 0), filler[8];
    char addr[64];
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    assert_int_equal(listen(fd, 0), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
    snprintf(addr, sizeof addr, "127.0.0.1:%u", ntohs(sa.sin_port));
    for (int i = 0; i < 8; i++) {
        filler[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        (void)connect(filler[i], (struct sockaddr *)&sa, sizeof sa);
    }
    struct end e = {0}, cancelled = {0};
    assert_int_equal(dial(f, &e, addr, 200), 0);
    assert_int_equal(dial(f, &cancelled, addr, 200), 0);
    end_close(&cancelled);
    wait_until(f, told, &e);
    assert_string_equal(e.log, "d");
    assert_int_equal(e.err, ERR_TIMEOUT);
    assert_string_equal(cancelled.log, ""); /* a closed conn calls nobody */
    end_close(&e);
    for (int i = 0; i < 8; i++)
        close(filler[i]);
    close(fd);
}

static void test_pause(void **state)
{
    struct fixture *f = *state;
    struct server *s = listen_at(f, "127.0.0.1:0");
    struct end e = {.to_send = 16 << 20, .pause_after_first = false};
    s->end[0].pause_after_first = true;
    assert_int_equal(dial(f, &e, drive_listener_addr(s->l), 5000), 0);
    wait_until(f, accepted_one, s);
    wait_until(f, told, &e);
    conn_flush(e.conn);
    (void)run_for(f, 100 * NS_PER_MS, nothing, NULL);
    assert_true(s->end[0].got <= DRIVE_TCP_TURN_BYTES); /* one callback's worth */
    assert_true(e.sent < e.to_send);                    /* the sockets are full */
    conn_pause(s->end[0].conn, true);                   /* again: nothing */
    uint64_t got = s->end[0].got;
    (void)run_for(f, 20 * NS_PER_MS, nothing, NULL);
    assert_int_equal(s->end[0].got, got);
    conn_pause(s->end[0].conn, false);
    s->end[0].taken = e.to_send;
    wait_until(f, got_all, &s->end[0]);
    assert_false(s->end[0].wrong);
    /* Paused while the end comes: it is told when reading goes on. */
    conn_pause(s->end[0].conn, true);
    end_close(&e);
    (void)run_for(f, 20 * NS_PER_MS, nothing, NULL);
    assert_string_equal(s->end[0].log, "");
    conn_pause(s->end[0].conn, false);
    wait_until(f, down, &s->end[0]);
    server_free(s);
}

/* conn_close() inside every callback. */
static void test_close_inside(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 3; i++) {
        struct server *s = listen_at(f, "127.0.0.1:0");
        struct end e = {.to_send = 100000};
        e.close_at = i == 0 ? 'u' : '\0';
        s->end[0].close_at = i == 1 ? 'i' : i == 2 ? 'd' : '\0';
        assert_int_equal(dial(f, &e, drive_listener_addr(s->l), 5000), 0);
        wait_until(f, accepted_one, s);
        wait_until(f, told, &e);
        if (i > 0)
            conn_flush(e.conn);
        if (i == 0)
            wait_until(f, down, &s->end[0]);
        if (i == 1) {
            wait_until(f, down, &e); /* it hears of the other's close */
            assert_null(s->end[0].conn);
        }
        if (i == 2) {
            s->end[0].taken = e.to_send;
            wait_until(f, got_all, &s->end[0]);
            end_close(&e);
            wait_until(f, down, &s->end[0]);
            assert_null(s->end[0].conn);
        }
        end_close(&e);
        server_free(s);
        turn(f);
        struct drive_tcp_stat st;
        drive_tcp_stat(f->tcp, &st);
        assert_int_equal(st.conns, 0);
    }
}

static bool is_gone(void *arg)
{
    struct fixture *f = arg;
    struct drive_tcp_stat st;
    drive_tcp_stat(f->tcp, &st);
    return st.conns == 0;
}

/* Names: one of the hosts file, one that cannot be, and a dial that is given up while the resolver
 * works. */
static void test_names(void **state)
{
    struct fixture *f = *state;
    struct server *s = listen_at(f, "127.0.0.1:0");
    char addr[64];
    struct end e = {0}, none = {0}, cancelled = {0};
    snprintf(addr, sizeof addr, "localhost%s", strchr(drive_listener_addr(s->l), ':'));
    assert_int_equal(dial(f, &cancelled, "no-such-host.invalid:80", 5000), 0);
    end_close(&cancelled);
    assert_int_equal(dial(f, &e, addr, 5000), 0);
    wait_until(f, told, &e);
    assert_string_equal(e.log, "u");
    assert_int_equal(dial(f, &none, "no-such-host.invalid:80", 300), 0);
    assert_string_equal(none.log, "");
    wait_until(f, told, &none);
    assert_string_equal(none.log, "d");
    assert_true(none.err == ERR_NOT_FOUND || none.err == ERR_TIMEOUT);
    end_close(&none);
    end_close(&e);
    server_free(s);
    wait_until(f, is_gone, f);
    assert_string_equal(cancelled.log, "");
}

/* The driver goes while the resolver has not answered: the teardown is the test. */
static void test_end_while_resolving(void **state)
{
    struct fixture *f = *state;
    struct end a = {0}, b = {0};
    assert_int_equal(dial(f, &a, "no-such-host.invalid:80", 5000), 0);
    assert_int_equal(dial(f, &b, "no-other-host.invalid:80", 5000), 0);
    end_close(&a);
    end_close(&b);
}

static void test_listener_pause(void **state)
{
    struct fixture *f = *state;
    struct server *s = listen_at(f, "127.0.0.1:0");
    struct end e = {0}, other = {0};
    drive_listener_pause(s->l, true);
    assert_int_equal(dial(f, &e, drive_listener_addr(s->l), 5000), 0);
    wait_until(f, told, &e); /* by the kernel */
    (void)run_for(f, 20 * NS_PER_MS, nothing, NULL);
    assert_int_equal(s->n, 0);
    drive_listener_pause(s->l, false);
    wait_until(f, accepted_one, s);
    assert_int_equal(dial(f, &other, drive_listener_addr(s->l), 5000), 0);
    wait_until(f, accepted_two, s);
    end_close(&e);
    end_close(&other);
    server_free(s);
}

/* Out of descriptors: the listener rests, counts it, and goes on when there are some again. */
static void test_descriptors_used_up(void **state)
{
    struct fixture *f = *state;
    struct server *s = listen_at(f, "127.0.0.1:0");
    struct rlimit old, small;
    struct end e = {0};
    int spare[256];
    size_t n = 0;
    assert_int_equal(dial(f, &e, drive_listener_addr(s->l), 5000), 0); /* its socket is there */
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    small = old;
    small.rlim_cur = 128;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &small), 0);
    while (n < 256 && (spare[n] = dup(0)) >= 0)
        n++;
    assert_true(n < 256);
    uint64_t begin = drive_loop_now(f->drive);
    (void)run_for(f, 250 * NS_PER_MS, nothing, NULL);
    uint64_t rests = (drive_loop_now(f->drive) - begin) / (100 * NS_PER_MS);
    struct drive_tcp_stat st;
    drive_tcp_stat(f->tcp, &st);
    while (n > 0)
        close(spare[--n]);
    setrlimit(RLIMIT_NOFILE, &old);
    assert_in_range(st.fd_exhausted, 1, rests + 2); /* it does not spin */
    assert_int_equal(s->n, 0);
    wait_until(f, accepted_one, s);
    end_close(&e);
    server_free(s);
}

/* A listener for both families tells IPv4 peers by their IPv4 address. */
static void test_mapped_address(void **state)
{
    struct fixture *f = *state;
    struct server s = {.f = f};
    struct end e = {0};
    int rc = drive_tcp_listen(f->tcp, "[::ffff:127.0.0.1]:0", on_accept, &s, &s.l);
    if (rc < 0) { /* a machine without IPv6 must say so */
        assert_true(rc == -EAFNOSUPPORT || rc == -EADDRNOTAVAIL);
        return;
    }
    assert_int_equal(strncmp(drive_listener_addr(s.l), "127.0.0.1:", 10), 0);
    assert_int_equal(dial(f, &e, drive_listener_addr(s.l), 5000), 0);
    wait_until(f, accepted_one, &s);
    assert_int_equal(s.end[0].conn->peer_ip_len, 4);
    assert_memory_equal(s.end[0].conn->peer_ip, "\x7f\0\0\1", 4);
    end_close(&e);
    end_close(&s.end[0]);
    drive_listener_close(s.l);
}

/* Some machines have the protocol and no address. */
static bool has_ipv6(void)
{
    struct sockaddr_in6 at = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok = fd >= 0 && bind(fd, (struct sockaddr *)&at, sizeof(at)) == 0;
    if (fd >= 0)
        close(fd);
    return ok;
}

/* ":port" is every address of both families; the limits see who comes by which. */
static void test_any_host(void **state)
{
    struct fixture *f = *state;
    struct server s = {.f = f};
    struct end four = {0}, six = {0};
    char addr[64];
    assert_int_equal(drive_tcp_listen(f->tcp, ":0", on_accept, &s, &s.l), 0);
    const char *bound = drive_listener_addr(s.l), *port = strrchr(bound, ':');
    snprintf(addr, sizeof(addr), "127.0.0.1%s", port);
    assert_int_equal(dial(f, &four, addr, 5000), 0);
    wait_until(f, accepted_one, &s);
    assert_int_equal(s.end[0].conn->peer_ip_len, 4);
    end_close(&four);
    end_close(&s.end[0]);
    if (has_ipv6()) {
        assert_int_equal(strncmp(bound, "[::]:", 5), 0);
        s.n = 0;
        snprintf(addr, sizeof(addr), "[::1]%s", port);
        assert_int_equal(dial(f, &six, addr, 5000), 0);
        wait_until(f, accepted_one, &s);
        assert_int_equal(s.end[0].conn->peer_ip_len, 16);
        assert_int_equal(s.end[0].conn->peer_ip[15], 1);
        end_close(&six);
        end_close(&s.end[0]);
    }
    drive_listener_close(s.l);
}

/* A pool without buffers: reading rests and goes on later, nothing is lost. */
static void test_no_buffers(void **state)
{
    (void)state;
    struct fixture f = {0};
    struct buf_budget budget = {.cap = 200000};
    struct buf *hold[16];
    size_t n = 0;
    f.drive = drive_loop_new(NULL);
    f.pool = bufpool_new(&budget);
    f.tcp = drive_tcp_new(f.drive, f.pool);
    struct server *s = listen_at(&f, "127.0.0.1:0");
    struct end e = {.to_send = 100000};
    assert_int_equal(dial(&f, &e, drive_listener_addr(s->l), 5000), 0);
    wait_until(&f, accepted_one, s);
    wait_until(&f, told, &e);
    while (n < 16 && (hold[n] = buf_get(f.pool, BUF_READ_SIZE)) != NULL)
        n++;
    assert_true(n > 0 && n < 16);
    conn_flush(e.conn);
    uint64_t begin = drive_loop_now(f.drive);
    (void)run_for(&f, 50 * NS_PER_MS, nothing, NULL);
    uint64_t rests = (drive_loop_now(f.drive) - begin) / (100 * NS_PER_MS);
    assert_int_equal(s->end[0].got, 0);
    struct drive_tcp_stat st;
    drive_tcp_stat(f.tcp, &st);
    assert_in_range(st.no_buffer, 1, rests + 2);
    while (n > 0)
        buf_put(hold[--n]);
    s->end[0].taken = e.to_send;
    wait_until(&f, got_all, &s->end[0]);
    assert_false(s->end[0].wrong);
    end_close(&e);
    server_free(s);
    turn(&f);
    drive_tcp_free(f.tcp);
    bufpool_free(f.pool);
    drive_loop_free(f.drive);
}

static void test_adopt(void **state)
{
    struct fixture *f = *state;
    int fds[2];
    struct end a = {.f = f, .to_send = 500000}, b = {.f = f, .taken = 500000};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    a.conn = drive_tcp_adopt(f->tcp, fds[0], "left");
    b.conn = drive_tcp_adopt(f->tcp, fds[1], "right");
    conn_set_user(a.conn, &user, &a);
    conn_set_user(b.conn, &user, &b);
    assert_string_equal(a.conn->peer, "left");
    assert_int_equal(a.conn->peer_ip_len, 0);
    assert_int_equal(fcntl(fds[0], F_GETFL) & O_NONBLOCK, O_NONBLOCK);
    assert_int_equal(fcntl(fds[0], F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    conn_flush(a.conn);
    wait_until(f, got_all, &b);
    assert_false(b.wrong);
    end_close(&a);
    wait_until(f, down, &b);
    end_close(&b);
}

/* ---- drive_env ---- */

struct work {
    struct pk_wait wait;
    unsigned done;
    pthread_t on;
};

static void on_work(struct pk_wait *w)
{
    struct work *k = container_of(w, struct work, wait);
    k->done++;
    k->on = pthread_self();
}

static bool work_done(void *arg)
{
    return ((struct work *)arg)->done > 0;
}

static struct pk_req sign_request(const struct seckey *sk, enum pk_class cls)
{
    struct pk_req req = {.op = PK_SIGN, .cls = cls, .sk = *sk};
    memset(req.digest.b, 7, sizeof req.digest.b);
    return req;
}

static void test_pool_results(void **state)
{
    struct fixture *f = *state;
    struct pk_pool *pool = pk_pool_new(2, 64);
    struct env *env = drive_env_new(pool, f->drive);
    struct seckey sk;
    struct pubkey pk;
    assert_int_equal(crypto_init(), 0);
    env_keypair(env, &sk, &pk);
    struct work *w = calloc(40, sizeof *w);
    for (int i = 0; i < 40; i++) {
        struct pk_req req = sign_request(&sk, (enum pk_class)(i % PK_CLASS__COUNT));
        w[i].wait.done = on_work;
        assert_int_equal(env_pk(env, &w[i].wait, &req), ERR_PENDING);
    }
    for (int i = 0; i < 40; i++) {
        struct hash digest;
        memset(digest.b, 7, sizeof digest.b);
        wait_until(f, work_done, &w[i]);
        assert_int_equal(w[i].done, 1);
        assert_int_equal(w[i].wait.res.err, 0);
        assert_int_equal(crypto_verify_digest(&pk, &w[i].wait.res.sig, &digest), 0);
        assert_true(pthread_equal(w[i].on, pthread_self())); /* on the loop's thread */
        assert_int_equal(w[i].wait.ticket, 0);
        pk_wait_wipe(&w[i].wait);
    }
    struct env_pk_stats st;
    env->ops->pk_stats(env, PK_CLASS_ITEM, &st);
    assert_int_equal(st.submitted, 10);
    assert_int_equal(st.queued, 0);
    free(w);
    drive_env_free(env);
    pk_pool_free(pool);
}

/* A class is full until answers are delivered: refused and counted, other classes go on. */
static void test_pool_full(void **state)
{
    struct fixture *f = *state;
    struct pk_pool *pool = pk_pool_new(1, 4);
    struct env *env = drive_env_new(pool, f->drive);
    struct seckey sk;
    struct pubkey pk;
    struct work w[6];
    struct env_pk_stats st;
    memset(w, 0, sizeof w);
    env_keypair(env, &sk, &pk);
    struct pk_req session = sign_request(&sk, PK_CLASS_SESSION),
                  stream = sign_request(&sk, PK_CLASS_STREAM);
    for (int i = 0; i < 6; i++)
        w[i].wait.done = on_work;
    for (int i = 0; i < 4; i++)
        assert_int_equal(env_pk(env, &w[i].wait, &session), ERR_PENDING);
    assert_int_equal(env_pk(env, &w[4].wait, &session), ERR_BUSY);
    assert_int_equal(w[4].wait.ticket, 0);
    assert_int_equal(env_pk(env, &w[4].wait, &session), ERR_BUSY);
    assert_int_equal(env_pk(env, &w[5].wait, &stream), ERR_PENDING);
    env->ops->pk_stats(env, PK_CLASS_SESSION, &st);
    assert_int_equal(st.queued, 4);
    assert_int_equal(st.submitted, 4);
    assert_int_equal(st.dropped, 2);
    wait_until(f, work_done, &w[3]);
    wait_until(f, work_done, &w[5]);
    assert_int_equal(env_pk(env, &w[4].wait, &session), ERR_PENDING);
    wait_until(f, work_done, &w[4]);
    drive_env_free(env);
    pk_pool_free(pool);
}

/* Cancelled work is never answered, wherever it was; the wait can be used again at once. */
static void test_pool_cancel(void **state)
{
    struct fixture *f = *state;
    struct pk_pool *pool = pk_pool_new(1, 64);
    struct env *env = drive_env_new(pool, f->drive);
    struct seckey sk;
    struct pubkey pk;
    struct work w[40];
    memset(w, 0, sizeof w);
    env_keypair(env, &sk, &pk);
    struct pk_req req = sign_request(&sk, PK_CLASS_STREAM);
    for (int i = 0; i < 40; i++) {
        w[i].wait.done = on_work;
        assert_int_equal(env_pk(env, &w[i].wait, &req), ERR_PENDING);
        if (i % 2 == 0) {
            env_pk_cancel(env, &w[i].wait);
            env_pk_cancel(env, &w[i].wait);
        }
    }
    wait_until(f, work_done, &w[39]);
    for (int i = 0; i < 40; i++)
        assert_int_equal(w[i].done, i % 2);
    assert_int_equal(env_pk(env, &w[0].wait, &req), ERR_PENDING);
    wait_until(f, work_done, &w[0]);
    /* Freed while cancelled work is under way. */
    for (int i = 0; i < 20; i++) {
        assert_int_equal(env_pk(env, &w[i].wait, &req), ERR_PENDING);
        env_pk_cancel(env, &w[i].wait);
    }
    drive_env_free(env);
    pk_pool_free(pool);
    for (int i = 0; i < 20; i++)
        assert_true(w[i].done <= 1);
}

/* A flood of handshakes does not delay stream set-up, let alone our own signatures (incident 31). */
#define FLOOD 4000

struct flood {
    struct work session[FLOOD], stream, own;
    unsigned done, stream_at, own_at;
};

static struct flood *the_flood;

static void on_flood(struct pk_wait *w)
{
    struct flood *fl = the_flood;
    fl->done++;
    if (w == &fl->stream.wait)
        fl->stream_at = fl->done;
    if (w == &fl->own.wait)
        fl->own_at = fl->done;
}

static bool flood_done(void *arg)
{
    return ((struct flood *)arg)->done == FLOOD + 2;
}

static void test_pool_is_fair(void **state)
{
    struct fixture *f = *state;
    struct pk_pool *pool = pk_pool_new(1, FLOOD);
    struct env *env = drive_env_new(pool, f->drive);
    struct flood *fl = calloc(1, sizeof *fl);
    struct seckey sk;
    struct pubkey pk;
    env_keypair(env, &sk, &pk);
    the_flood = fl;
    for (int i = 0; i < FLOOD + 2; i++) {
        struct work *w = i < FLOOD ? &fl->session[i] : i == FLOOD ? &fl->stream : &fl->own;
        struct pk_req req = sign_request(&sk, i < FLOOD    ? PK_CLASS_SESSION
                                              : i == FLOOD ? PK_CLASS_STREAM
                                                           : PK_CLASS_OWN);
        w->wait.done = on_flood;
        assert_int_equal(env_pk(env, &w->wait, &req), ERR_PENDING);
    }
    wait_until(f, flood_done, fl);
    assert_in_range(fl->stream_at, 1, FLOOD); /* first come would be first served at FLOOD + 1 */
    assert_in_range(fl->own_at, 1, FLOOD);
    free(fl);
    drive_env_free(env);
    pk_pool_free(pool);
}

static void test_clock_offset(void **state)
{
    struct fixture *f = *state;
    struct pk_pool *pool = pk_pool_new(1, 4);
    struct env *env = drive_env_new(pool, f->drive);
    int64_t before = env_wall_ns(env);
    drive_env_set_clock_offset(env, -INT64_C(3600000000000));
    assert_true(env_wall_ns(env) < before);
    uint8_t a[32] = {0}, b[32] = {0};
    env_random(env, a, sizeof a);
    env_random(env, b, sizeof b);
    assert_memory_not_equal(a, b, sizeof a);
    drive_env_free(env);
    pk_pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(test_posts_of_threads),
        T(test_post_again),
        T(test_timers),
        T(test_dial_bytes_eof),
        T(test_reset_is_told),
        T(test_refused_and_bad_addresses),
        T(test_dial_timeout),
        T(test_pause),
        T(test_close_inside),
        T(test_names),
        T(test_end_while_resolving),
        T(test_listener_pause),
        T(test_descriptors_used_up),
        T(test_mapped_address),
        T(test_any_host),
        cmocka_unit_test(test_no_buffers),
        T(test_adopt),
        T(test_pool_results),
        T(test_pool_full),
        T(test_pool_cancel),
        T(test_pool_is_fair),
        T(test_clock_offset),
#undef T
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
