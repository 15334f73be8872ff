/* relay on real sockets: a thread of its own with drive_loop, drive_tcp and the pool of drive_env,
 * as the node runs it; raw TCP clients that misbehave, and two real clients through it. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cursor.h"
#include "base/env_sys.h"
#include "base/err.h"
#include "tests/unit/vectors.h"
#include "transport/client.h"
#include "transport/drive_env.h"
#include "transport/drive_tcp.h"
#include "transport/noise.h"
#include "transport/relay.h"

#define HANDSHAKE_MS 1000

struct host { /* the relay's thread */
    pthread_t thread;
    struct drive_loop *drive;
    struct bufpool *pool;
    struct pk_pool *pk;
    struct env *env;
    struct drive_tcp *tcp;
    struct drive_listener *listener;
    struct relay *relay;
    struct seckey sk;
    struct pubkey pk_self;
    struct drive_msg stop, ask;
    pthread_mutex_t lock;
    pthread_cond_t answered;
    struct relay_stat stat; /* under lock */
    bool have_stat;
};

static void on_accept(void *arg, struct conn *conn)
{
    struct host *h = arg;
    relay_accept(h->relay, conn, false);
}

static void on_stop(struct drive_msg *m)
{
    struct host *h = container_of(m, struct host, stop);
    drive_listener_close(h->listener);
    relay_free(h->relay);
    drive_loop_stop(h->drive);
}

static void on_ask(struct drive_msg *m)
{
    struct host *h = container_of(m, struct host, ask);
    pthread_mutex_lock(&h->lock);
    relay_stat(h->relay, &h->stat);
    h->have_stat = true;
    pthread_cond_signal(&h->answered);
    pthread_mutex_unlock(&h->lock);
}

static struct relay_stat stat_of(struct host *h)
{
    pthread_mutex_lock(&h->lock);
    h->have_stat = false;
    drive_post(h->drive, &h->ask);
    while (!h->have_stat)
        pthread_cond_wait(&h->answered, &h->lock);
    struct relay_stat st = h->stat;
    pthread_mutex_unlock(&h->lock);
    return st;
}

static void *run(void *arg)
{
    struct host *h = arg;
    (void)drive_loop_run(h->drive);
    return NULL;
}

static int setup(void **state)
{
    struct host *h = calloc(1, sizeof *h);
    assert_non_null(h);
    assert_int_equal(crypto_init(), 0);
    h->drive = drive_loop_new(NULL);
    h->pool = bufpool_new(NULL);
    h->pk = pk_pool_new(2, 256);
    h->env = drive_env_new(h->pk, h->drive);
    h->tcp = drive_tcp_new(h->drive, h->pool);
    pthread_mutex_init(&h->lock, NULL);
    pthread_cond_init(&h->answered, NULL);
    h->stop.fn = on_stop;
    h->ask.fn = on_ask;
    env_keypair(h->env, &h->sk, &h->pk_self);
    struct relay_cfg cfg = {.env = h->env,
                            .loop = drive_loop_loop(h->drive),
                            .pool = h->pool,
                            .self = h->pk_self,
                            .sk = h->sk,
                            .guard_cfg = {.max_handshakes_addr = 40},
                            .handshake_ms = HANDSHAKE_MS};
    assert_int_equal(relay_new(&h->relay, &cfg), 0);
    assert_int_equal(drive_tcp_listen(h->tcp, "127.0.0.1:0", on_accept, h, &h->listener), 0);
    *state = h;
    return pthread_create(&h->thread, NULL, run, h);
}

static int teardown(void **state)
{
    struct host *h = *state;
    drive_post(h->drive, &h->stop);
    pthread_join(h->thread, NULL);
    loop_turn(drive_loop_loop(h->drive), drive_loop_now(h->drive));
    drive_tcp_free(h->tcp);
    drive_env_free(h->env);
    assert_int_equal(bufpool_in_use(h->pool), 0);
    bufpool_free(h->pool);
    drive_loop_free(h->drive);
    pk_pool_free(h->pk);
    pthread_mutex_destroy(&h->lock);
    pthread_cond_destroy(&h->answered);
    free(h);
    return 0;
}

/* ---- raw clients: blocking sockets that give up after 20 s ---- */

static int tcp_connect(struct host *h)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval tv = {20, 0};
    sa.sin_port = htons((uint16_t)atoi(strchr(drive_listener_addr(h->listener), ':') + 1));
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    return fd;
}

static void put_all(int fd, const uint8_t *p, size_t n, size_t piece)
{
    while (n > 0) {
        size_t part = piece > 0 && piece < n ? piece : n;
        ssize_t put = send(fd, p, part, MSG_NOSIGNAL);
        assert_true(put > 0);
        p += put;
        n -= (size_t)put;
    }
}

static void get_all(int fd, uint8_t *p, size_t n)
{
    while (n > 0) {
        ssize_t got = recv(fd, p, n, 0);
        assert_true(got > 0);
        p += got;
        n -= (size_t)got;
    }
}

/* The relay has closed it, without a byte. */
static void expect_end(int fd)
{
    uint8_t b;
    ssize_t n = recv(fd, &b, 1, 0);
    assert_true(n == 0 || (n < 0 && errno == ECONNRESET));
    close(fd);
}

static void never_pending(struct noise *n, int rc)
{
    (void)n;
    (void)rc;
    fail();
}

/* The handshake of a client, in pieces of so many bytes, with `extra` glued to message 3. */
static void shake_hands(struct host *h, struct env *env, int fd, size_t piece, const void *extra,
                        size_t extra_n)
{
    struct seckey sk;
    struct pubkey pk;
    struct noise n;
    uint8_t buf[256];
    size_t len;
    env_keypair(env, &sk, &pk);
    struct noise_cfg cfg = {.env = env,
                            .pattern = NOISE_XK,
                            .initiator = true,
                            .sk = &sk,
                            .pk = &pk,
                            .remote = &h->pk_self,
                            .on_ready = never_pending};
    assert_int_equal(noise_init(&n, &cfg), 0);
    assert_int_equal(noise_write(&n, buf + 2, NOISE_OUT_MAX, &len), 0);
    put_be16(buf, (uint16_t)len);
    put_all(fd, buf, len + 2, piece);
    get_all(fd, buf, 51);
    assert_int_equal(noise_read(&n, buf + 2, 49), 0);
    assert_int_equal(noise_write(&n, buf + 2, NOISE_OUT_MAX, &len), 0);
    put_be16(buf, (uint16_t)len);
    memcpy(buf + 2 + len, extra, extra_n);
    put_all(fd, buf, len + 2 + extra_n, piece);
    noise_wipe(&n);
}

/* SYN and the ping marker on stream 1. */
static const uint8_t ping[] = {0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0};

static void expect_pong(int fd)
{
    static const uint8_t want[] = {0, 1, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0,       /* ACK */
                                   0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, /* marker */
                                   0, 1, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0};      /* FIN */
    uint8_t got[sizeof want];
    get_all(fd, got, sizeof got);
    assert_memory_equal(got, want, sizeof want);
}

static void test_garbage(void **state)
{
    struct host *h = *state;
    uint8_t junk[4000];
    memset(junk, 0x47, sizeof junk);
    for (int i = 0; i < 30; i++) {
        int fd = tcp_connect(h);
        ssize_t n = send(fd, junk, 1 + 130u * (size_t)i, MSG_NOSIGNAL);
        assert_true(n > 0);
        if (i % 3 == 0) { /* closed before it is judged */
            close(fd);
            continue;
        }
        expect_end(fd);
    }
    static const char http[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    int fd = tcp_connect(h);
    put_all(fd, (const uint8_t *)http, sizeof http - 1, 0);
    expect_end(fd);
}

static void test_slow_and_half_open(void **state)
{
    struct host *h = *state;
    struct env_sys sys;
    int idle[10], slow;
    assert_int_equal(env_sys_init(&sys), 0);
    for (int i = 0; i < 10; i++) { /* nothing, or the beginning of a message */
        idle[i] = tcp_connect(h);
        if (i % 2)
            put_all(idle[i], (const uint8_t *)"\0\x31\2", 3, 0);
    }
    slow = tcp_connect(h); /* every byte a segment of its own */
    int one = 1;
    setsockopt(slow, IPPROTO_TCP, 1 /* TCP_NODELAY */, &one, sizeof one);
    shake_hands(h, &sys.env, slow, 1, ping, sizeof ping);
    expect_pong(slow);
    for (int i = 0; i < 10; i++)
        expect_end(idle[i]);
    struct relay_stat st = stat_of(h);
    assert_int_equal(st.sessions, 1);
    assert_int_equal(st.handshakes, 0);
    assert_int_equal(st.handshake_failed, 10);
    assert_int_equal(st.pings, 1);
    close(slow);
}

static void test_many_handshakes(void **state)
{
    struct host *h = *state;
    struct env_sys sys;
    int fd[30];
    assert_int_equal(env_sys_init(&sys), 0);
    for (int i = 0; i < 30; i++) {
        fd[i] = tcp_connect(h);
        shake_hands(h, &sys.env, fd[i], 0, ping, i % 2 ? sizeof ping : 0);
    }
    for (int i = 0; i < 30; i++) {
        if (i % 2 == 0)
            put_all(fd[i], ping, sizeof ping, 0);
        expect_pong(fd[i]);
    }
    assert_int_equal(stat_of(h).sessions, 30);
    for (int i = 0; i < 30; i++)
        close(fd[i]);
    while (stat_of(h).sessions > 0)
        usleep(1000);
}

/* More connections from one address than may shake hands at a time. */
static void test_connection_flood(void **state)
{
    struct host *h = *state;
    struct env_sys sys;
    int fd[60];
    assert_int_equal(env_sys_init(&sys), 0);
    for (int i = 0; i < 60; i++)
        fd[i] = tcp_connect(h);
    for (int i = 0; i < 60; i++)
        expect_end(fd[i]);
    struct relay_stat st = stat_of(h);
    assert_int_equal(st.handshakes, 0);
    assert_int_equal(st.handshake_failed + st.refused_limit, 60);
    int good = tcp_connect(h);
    shake_hands(h, &sys.env, good, 0, ping, sizeof ping);
    expect_pong(good);
    close(good);
}

/* ---- two clients of ours, in this thread ---- */

#define BULK (8u << 20)

struct side {
    struct env *env;
    struct client *c;
    struct seckey sk;
    struct pubkey pk;
    struct stream *st;
    uint64_t sent, got;
    bool opened, eof, wrong, ended;
    uint64_t to_send;
};

static uint8_t pattern(uint64_t i)
{
    return (uint8_t)(i * 5 + (i >> 13));
}

static void push(struct side *s)
{
    uint8_t chunk[8192];
    while (s->sent < s->to_send) {
        size_t n =
            sizeof chunk < s->to_send - s->sent ? sizeof chunk : (size_t)(s->to_send - s->sent);
        for (size_t i = 0; i < n; i++)
            chunk[i] = pattern(s->sent + i);
        long put = stream_write(s->st, chunk, n);
        if (put <= 0)
            return;
        s->sent += (uint64_t)put;
        if ((size_t)put < n)
            return;
    }
    if (!stream_shut(s->st))
        assert_int_equal(stream_shutdown(s->st), 0);
}

static void on_opened(struct stream *st, void *arg)
{
    struct side *s = arg;
    (void)st;
    s->opened = true;
    push(s);
}

static void on_readable(struct stream *st, void *arg)
{
    struct side *s = arg;
    uint8_t buf[8192];
    size_t n;
    while ((n = stream_read(st, buf, sizeof buf)) > 0) {
        for (size_t i = 0; i < n; i++)
            if (buf[i] != pattern(s->got + i))
                s->wrong = true;
        s->got += n;
    }
    s->eof = s->eof || stream_eof(st);
}

static void on_writable(struct stream *st, void *arg)
{
    (void)st;
    push(arg);
}

static void on_ended(struct stream *st, void *arg, int err)
{
    struct side *s = arg;
    (void)st;
    (void)err;
    s->ended = true;
}

static const struct stream_cb stream_cb = {on_opened, on_readable, on_writable, on_ended};

static void on_stream(void *arg, struct stream *st)
{
    struct side *s = arg;
    s->st = st;
    stream_set_cb(st, &stream_cb, s);
    s->to_send = 1000; /* the answer, when the other side has ended its direction */
    on_readable(st, s);
    push(s);
}

static void client_start(struct side *s, struct host *h, struct drive_loop *drive,
                         struct bufpool *pool, struct drive_tcp *tcp)
{
    struct client_cfg cfg = {.env = s->env,
                             .loop = drive_loop_loop(drive),
                             .pool = pool,
                             .carrier = drive_tcp_carrier(tcp)};
    env_keypair(s->env, &s->sk, &s->pk);
    cfg.self = s->pk;
    cfg.sk = s->sk;
    assert_int_equal(client_new(&s->c, &cfg), 0);
    assert_int_equal(client_add_server(s->c, &h->pk_self, drive_listener_addr(h->listener)), 0);
}

static bool pump(struct drive_loop *drive, bool (*done)(struct side *a, struct side *b),
                 struct side *a, struct side *b)
{
    uint64_t end = drive_loop_now(drive) + 60 * NS_PER_S;
    struct loop *loop = drive_loop_loop(drive);
    while (!done(a, b) && drive_loop_now(drive) < end) {
        (void)event_base_loop(drive_loop_base(drive), EVLOOP_NONBLOCK);
        loop_turn(loop, drive_loop_now(drive));
    }
    return done(a, b);
}

static bool both_up(struct side *a, struct side *b)
{
    struct client_stat x, y;
    client_stat(a->c, &x);
    client_stat(b->c, &y);
    return x.sessions_up == 1 && y.sessions_up == 1;
}

static bool transferred(struct side *a, struct side *b)
{
    return a->eof && b->eof;
}

static void test_two_clients(void **state)
{
    struct host *h = *state;
    struct env_sys sys;
    assert_int_equal(env_sys_init(&sys), 0);
    struct drive_loop *drive = drive_loop_new(NULL);
    struct bufpool *pool = bufpool_new(NULL);
    struct drive_tcp *tcp = drive_tcp_new(drive, pool);
    struct side a = {.env = &sys.env, .to_send = BULK}, b = {.env = &sys.env};
    client_start(&a, h, drive, pool, tcp);
    client_start(&b, h, drive, pool, tcp);
    assert_int_equal(client_listen(b.c, 80, on_stream, &b), 80);
    assert_int_equal(client_add_route(a.c, &b.pk, &h->pk_self), 0);
    assert_true(pump(drive, both_up, &a, &b));
    assert_int_equal(client_dial(a.c, &b.pk, 80, 20000, 0, &stream_cb, &a, &a.st), 0);
    assert_true(pump(drive, transferred, &a, &b));
    assert_true(!a.wrong && !b.wrong);
    assert_int_equal(b.got, BULK);
    assert_int_equal(a.got, 1000);
    assert_true(stat_of(h).bytes > BULK + 1000);
    if (a.st != NULL)
        stream_close(a.st);
    if (b.st != NULL)
        stream_close(b.st);
    client_free(a.c);
    client_free(b.c);
    loop_turn(drive_loop_loop(drive), drive_loop_now(drive));
    loop_turn(drive_loop_loop(drive), drive_loop_now(drive));
    drive_tcp_free(tcp);
    bufpool_free(pool);
    drive_loop_free(drive);
    while (stat_of(h).sessions > 0)
        usleep(1000);
    struct relay_stat st = stat_of(h);
    assert_int_equal(st.bridges, 0);
    assert_int_equal(st.buffered, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(test_garbage),          T(test_slow_and_half_open), T(test_many_handshakes),
        T(test_connection_flood), T(test_two_clients),
#undef T
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
