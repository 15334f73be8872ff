/* drive_tcp: connections, names, listeners, descriptors that are used up. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/err.h"
#include "tests/unit/transport/drive_world.h"

struct end { /* one conn */
    struct drive_world *f;
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
    struct drive_world *f;
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

static struct server *listen_at(struct drive_world *f, const char *addr)
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

static int dial(struct drive_world *f, struct end *e, const char *addr, unsigned ms)
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
    struct drive_world *f = *state;
    struct server *s = listen_at(f, "127.0.0.1:0");
    struct end e = {.to_send = 3 << 20, .taken = 2 << 20};
    assert_int_equal(strncmp(drive_listener_addr(s->l), "127.0.0.1:", 10), 0);
    assert_int_not_equal(strcmp(drive_listener_addr(s->l), "127.0.0.1:0"), 0);
    assert_int_equal(dial(f, &e, drive_listener_addr(s->l), 5000), 0);
    assert_string_equal(e.log, ""); /* never from inside the call */
    dw_wait(f, told, &e);
    dw_wait(f, accepted_one, s);
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
    dw_wait(f, got_all, &e);
    dw_wait(f, got_all, &s->end[0]);
    assert_true(!e.wrong && !s->end[0].wrong);
    end_close(&e);
    dw_wait(f, down, &s->end[0]);
    assert_int_equal(s->end[0].err, ERR_EOF);
    assert_string_equal(s->end[0].log, "d");
    struct drive_tcp_stat st;
    drive_tcp_stat(f->tcp, &st);
    assert_int_equal(st.accepted, 1);
    assert_int_equal(st.dialled, 1);
    assert_int_equal(st.dial_failed, 0);
    assert_int_equal(st.conns, 1);
    server_free(s);
    dw_turn(f);
    drive_tcp_stat(f->tcp, &st);
    assert_int_equal(st.conns, 0);
}

static void test_reset_is_told(void **state)
{
    struct drive_world *f = *state;
    struct server *s = listen_at(f, "127.0.0.1:0");
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct linger hard = {1, 0};
    sa.sin_port = htons((uint16_t)atoi(strchr(drive_listener_addr(s->l), ':') + 1));
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    dw_wait(f, accepted_one, s);
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    close(fd);
    dw_wait(f, down, &s->end[0]);
    assert_int_equal(s->end[0].err, -ECONNRESET);
    server_free(s);
}

static void test_refused_and_bad_addresses(void **state)
{
    struct drive_world *f = *state;
    struct server *s = listen_at(f, "127.0.0.1:0");
    char addr[CONN_ADDR_MAX];
    struct end e = {0}, bad = {0};
    snprintf(addr, sizeof addr, "%s", drive_listener_addr(s->l));
    struct drive_listener *twice = NULL;
    assert_int_equal(drive_tcp_listen(f->tcp, addr, on_accept, s, &twice), -EADDRINUSE);
    assert_null(twice);
    server_free(s);
    assert_int_equal(dial(f, &e, addr, 5000), 0);
    dw_wait(f, told, &e);
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
    struct drive_world *f = *state;
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
    dw_wait(f, told, &e);
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
    struct drive_world *f = *state;
    struct server *s = listen_at(f, "127.0.0.1:0");
    struct end e = {.to_send = 16 << 20, .pause_after_first = false};
    s->end[0].pause_after_first = true;
    assert_int_equal(dial(f, &e, drive_listener_addr(s->l), 5000), 0);
    dw_wait(f, accepted_one, s);
    dw_wait(f, told, &e);
    conn_flush(e.conn);
    (void)dw_run_for(f, 100 * NS_PER_MS, nothing, NULL);
    assert_true(s->end[0].got <= DRIVE_TCP_TURN_BYTES); /* one callback's worth */
    assert_true(e.sent < e.to_send);                    /* the sockets are full */
    conn_pause(s->end[0].conn, true);                   /* again: nothing */
    uint64_t got = s->end[0].got;
    (void)dw_run_for(f, 20 * NS_PER_MS, nothing, NULL);
    assert_int_equal(s->end[0].got, got);
    conn_pause(s->end[0].conn, false);
    s->end[0].taken = e.to_send;
    dw_wait(f, got_all, &s->end[0]);
    assert_false(s->end[0].wrong);
    /* Paused while the end comes: it is told when reading goes on. */
    conn_pause(s->end[0].conn, true);
    end_close(&e);
    (void)dw_run_for(f, 20 * NS_PER_MS, nothing, NULL);
    assert_string_equal(s->end[0].log, "");
    conn_pause(s->end[0].conn, false);
    dw_wait(f, down, &s->end[0]);
    server_free(s);
}

/* conn_close() inside every callback. */
static void test_close_inside(void **state)
{
    struct drive_world *f = *state;
    for (int i = 0; i < 3; i++) {
        struct server *s = listen_at(f, "127.0.0.1:0");
        struct end e = {.to_send = 100000};
        e.close_at = i == 0 ? 'u' : '\0';
        s->end[0].close_at = i == 1 ? 'i' : i == 2 ? 'd' : '\0';
        assert_int_equal(dial(f, &e, drive_listener_addr(s->l), 5000), 0);
        dw_wait(f, accepted_one, s);
        dw_wait(f, told, &e);
        if (i > 0)
            conn_flush(e.conn);
        if (i == 0)
            dw_wait(f, down, &s->end[0]);
        if (i == 1) {
            dw_wait(f, down, &e); /* it hears of the other's close */
            assert_null(s->end[0].conn);
        }
        if (i == 2) {
            s->end[0].taken = e.to_send;
            dw_wait(f, got_all, &s->end[0]);
            end_close(&e);
            dw_wait(f, down, &s->end[0]);
            assert_null(s->end[0].conn);
        }
        end_close(&e);
        server_free(s);
        dw_turn(f);
        struct drive_tcp_stat st;
        drive_tcp_stat(f->tcp, &st);
        assert_int_equal(st.conns, 0);
    }
}

static bool is_gone(void *arg)
{
    struct drive_world *f = arg;
    struct drive_tcp_stat st;
    drive_tcp_stat(f->tcp, &st);
    return st.conns == 0;
}

/* Names: one of the hosts file, one that cannot be, and a dial that is given up while the resolver
 * works. */
static void test_names(void **state)
{
    struct drive_world *f = *state;
    struct server *s = listen_at(f, "127.0.0.1:0");
    char addr[64];
    struct end e = {0}, none = {0}, cancelled = {0};
    snprintf(addr, sizeof addr, "localhost%s", strchr(drive_listener_addr(s->l), ':'));
    assert_int_equal(dial(f, &cancelled, "no-such-host.invalid:80", 5000), 0);
    end_close(&cancelled);
    assert_int_equal(dial(f, &e, addr, 5000), 0);
    dw_wait(f, told, &e);
    assert_string_equal(e.log, "u");
    assert_int_equal(dial(f, &none, "no-such-host.invalid:80", 300), 0);
    assert_string_equal(none.log, "");
    dw_wait(f, told, &none);
    assert_string_equal(none.log, "d");
    assert_true(none.err == ERR_NOT_FOUND || none.err == ERR_TIMEOUT);
    end_close(&none);
    end_close(&e);
    server_free(s);
    dw_wait(f, is_gone, f);
    assert_string_equal(cancelled.log, "");
}

/* The driver goes while the resolver has not answered: the teardown is the test. */
static void test_end_while_resolving(void **state)
{
    struct drive_world *f = *state;
    struct end a = {0}, b = {0};
    assert_int_equal(dial(f, &a, "no-such-host.invalid:80", 5000), 0);
    assert_int_equal(dial(f, &b, "no-other-host.invalid:80", 5000), 0);
    end_close(&a);
    end_close(&b);
}

static void test_listener_pause(void **state)
{
    struct drive_world *f = *state;
    struct server *s = listen_at(f, "127.0.0.1:0");
    struct end e = {0}, other = {0};
    drive_listener_pause(s->l, true);
    assert_int_equal(dial(f, &e, drive_listener_addr(s->l), 5000), 0);
    dw_wait(f, told, &e); /* by the kernel */
    (void)dw_run_for(f, 20 * NS_PER_MS, nothing, NULL);
    assert_int_equal(s->n, 0);
    drive_listener_pause(s->l, false);
    dw_wait(f, accepted_one, s);
    assert_int_equal(dial(f, &other, drive_listener_addr(s->l), 5000), 0);
    dw_wait(f, accepted_two, s);
    end_close(&e);
    end_close(&other);
    server_free(s);
}

/* Out of descriptors: the listener rests, counts it, and goes on when there are some again. */
static void test_descriptors_used_up(void **state)
{
    struct drive_world *f = *state;
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
    (void)dw_run_for(f, 250 * NS_PER_MS, nothing, NULL);
    uint64_t rests = (drive_loop_now(f->drive) - begin) / (100 * NS_PER_MS);
    struct drive_tcp_stat st;
    drive_tcp_stat(f->tcp, &st);
    while (n > 0)
        close(spare[--n]);
    setrlimit(RLIMIT_NOFILE, &old);
    assert_in_range(st.fd_exhausted, 1, rests + 2); /* it does not spin */
    assert_int_equal(s->n, 0);
    dw_wait(f, accepted_one, s);
    end_close(&e);
    server_free(s);
}

/* A listener for both families tells IPv4 peers by their IPv4 address. */
static void test_mapped_address(void **state)
{
    struct drive_world *f = *state;
    struct server s = {.f = f};
    struct end e = {0};
    int rc = drive_tcp_listen(f->tcp, "[::ffff:127.0.0.1]:0", on_accept, &s, &s.l);
    if (rc < 0) { /* a machine without IPv6 must say so */
        assert_true(rc == -EAFNOSUPPORT || rc == -EADDRNOTAVAIL);
        return;
    }
    assert_int_equal(strncmp(drive_listener_addr(s.l), "127.0.0.1:", 10), 0);
    assert_int_equal(dial(f, &e, drive_listener_addr(s.l), 5000), 0);
    dw_wait(f, accepted_one, &s);
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
    struct drive_world *f = *state;
    struct server s = {.f = f};
    struct end four = {0}, six = {0};
    char addr[64];
    assert_int_equal(drive_tcp_listen(f->tcp, ":0", on_accept, &s, &s.l), 0);
    const char *bound = drive_listener_addr(s.l), *port = strrchr(bound, ':');
    snprintf(addr, sizeof(addr), "127.0.0.1%s", port);
    assert_int_equal(dial(f, &four, addr, 5000), 0);
    dw_wait(f, accepted_one, &s);
    assert_int_equal(s.end[0].conn->peer_ip_len, 4);
    end_close(&four);
    end_close(&s.end[0]);
    if (has_ipv6()) {
        assert_int_equal(strncmp(bound, "[::]:", 5), 0);
        s.n = 0;
        snprintf(addr, sizeof(addr), "[::1]%s", port);
        assert_int_equal(dial(f, &six, addr, 5000), 0);
        dw_wait(f, accepted_one, &s);
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
    struct drive_world f = {0};
    struct buf_budget budget = {.cap = 200000};
    struct buf *hold[16];
    size_t n = 0;
    f.drive = drive_loop_new(NULL);
    f.pool = bufpool_new(&budget);
    f.tcp = drive_tcp_new(f.drive, f.pool);
    struct server *s = listen_at(&f, "127.0.0.1:0");
    struct end e = {.to_send = 100000};
    assert_int_equal(dial(&f, &e, drive_listener_addr(s->l), 5000), 0);
    dw_wait(&f, accepted_one, s);
    dw_wait(&f, told, &e);
    while (n < 16 && (hold[n] = buf_get(f.pool, BUF_READ_SIZE)) != NULL)
        n++;
    assert_true(n > 0 && n < 16);
    conn_flush(e.conn);
    uint64_t begin = drive_loop_now(f.drive);
    (void)dw_run_for(&f, 50 * NS_PER_MS, nothing, NULL);
    uint64_t rests = (drive_loop_now(f.drive) - begin) / (100 * NS_PER_MS);
    assert_int_equal(s->end[0].got, 0);
    struct drive_tcp_stat st;
    drive_tcp_stat(f.tcp, &st);
    assert_in_range(st.no_buffer, 1, rests + 2);
    while (n > 0)
        buf_put(hold[--n]);
    s->end[0].taken = e.to_send;
    dw_wait(&f, got_all, &s->end[0]);
    assert_false(s->end[0].wrong);
    end_close(&e);
    server_free(s);
    dw_turn(&f);
    drive_tcp_free(f.tcp);
    bufpool_free(f.pool);
    drive_loop_free(f.drive);
}

static void test_adopt(void **state)
{
    struct drive_world *f = *state;
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
    dw_wait(f, got_all, &b);
    assert_false(b.wrong);
    end_close(&a);
    dw_wait(f, down, &b);
    end_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, dw_setup, dw_teardown)
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
#undef T
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
