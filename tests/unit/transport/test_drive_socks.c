/* Dials through a SOCKS5 proxy: what it is told, what it may answer, and that bytes pass as they are. */
#include "transport/drive_socks.h"

#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "tests/unit/transport/pipe.h"
#include "tests/unit/vectors.h"

struct side { /* a user of a conn: what it heard, what it sends */
    struct conn *conn;
    uint8_t got[4096];
    size_t got_n;
    uint8_t out[4096];
    size_t out_n;
    int up, down, err;
};

static struct {
    struct env_test env;
    struct bufpool *pool;
    struct pipe_net net;
    struct carrier *ca;
    struct side user, proxy;
} w;

static void side_up(void *arg)
{
    ((struct side *)arg)->up++;
}

static void side_input(void *arg, struct slice in, uint64_t now_ns)
{
    struct side *s = arg;
    (void)now_ns;
    assert_true(in.n <= sizeof s->got - s->got_n);
    memcpy(s->got + s->got_n, in.p, in.n);
    s->got_n += in.n;
}

static int side_output(void *arg, struct iovec *iov, int max, uint64_t now_ns)
{
    struct side *s = arg;
    (void)max, (void)now_ns;
    iov[0] = (struct iovec){s->out, s->out_n};
    return s->out_n > 0;
}

static void side_sent(void *arg, size_t n, uint64_t now_ns)
{
    struct side *s = arg;
    (void)now_ns;
    memmove(s->out, s->out + n, s->out_n - n);
    s->out_n -= n;
}

static void side_down(void *arg, int err)
{
    struct side *s = arg;
    s->down++;
    s->err = err;
}

static const struct conn_user side_user = {side_up, side_input, side_output, side_sent, side_down};

static void on_accept(void *arg, struct conn *conn)
{
    (void)arg;
    w.proxy.conn = conn;
    conn_set_user(conn, &side_user, &w.proxy);
}

static int setup(void **state)
{
    (void)state;
    memset(&w, 0, sizeof w);
    env_test_init(&w.env, 1);
    w.pool = bufpool_new(NULL);
    pipe_net_init(&w.net, w.pool, &w.env);
    pipe_listen(&w.net, "proxy:1080", on_accept, NULL);
    w.ca = drive_socks_new(&w.net.loop, &w.net.carrier, "proxy:1080");
    assert_non_null(w.ca);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (w.user.conn != NULL)
        conn_close(w.user.conn);
    if (w.proxy.conn != NULL)
        conn_close(w.proxy.conn);
    pipe_net_run(&w.net, NS_PER_S);
    drive_socks_free(w.ca);
    pipe_unlisten(&w.net, "proxy:1080");
    pipe_net_free(&w.net);
    assert_int_equal(bufpool_in_use(w.pool), 0);
    bufpool_free(w.pool);
    env_test_close(&w.env);
    return 0;
}

static void dial(const char *addr)
{
    assert_int_equal(w.ca->dial(w.ca, addr, 3000, &side_user, &w.user, &w.user.conn), 0);
    pipe_net_run(&w.net, 100 * NS_PER_MS);
}

static void say(struct side *s, const void *p, size_t n)
{
    memcpy(s->out + s->out_n, p, n);
    s->out_n += n;
    conn_flush(s->conn);
    pipe_net_run(&w.net, 100 * NS_PER_MS);
}

static void heard(struct side *s, const void *p, size_t n)
{
    assert_int_equal(s->got_n, n);
    assert_memory_equal(s->got, p, n);
    s->got_n = 0;
}

static void open_through(const char *addr, const void *request, size_t n)
{
    dial(addr);
    heard(&w.proxy, "\x05\x01\x00", 3);
    say(&w.proxy, "\x05\x00", 2);
    heard(&w.proxy, request, n);
    assert_int_equal(w.user.up, 0);
}

static void test_name(void **state)
{
    (void)state;
    open_through("relay.example:8081", "\x05\x01\x00\x03\x0drelay.example\x1f\x91", 20);
    say(&w.proxy, "\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x00", 10);
    assert_int_equal(w.user.up, 1);
    assert_string_equal(w.user.conn->peer, "relay.example:8081");
    say(&w.user, "hello", 5);
    heard(&w.proxy, "hello", 5);
    say(&w.proxy, "world", 5);
    heard(&w.user, "world", 5);
    conn_close(w.proxy.conn);
    w.proxy.conn = NULL;
    pipe_net_run(&w.net, NS_PER_S);
    assert_int_equal(w.user.down, 1);
    assert_int_equal(w.user.err, ERR_EOF);
}

/* The answer in pieces, with a name in it, and the first bytes of the destination right behind it. */
static void test_pieces(void **state)
{
    static const char answer[] = "\x05\x00\x00\x03\x03www\x00\x50glued";
    (void)state;
    w.net.fault.chunk = 1;
    open_through("127.0.0.1:80", "\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50", 10);
    say(&w.proxy, answer, 10 + 5);
    assert_int_equal(w.user.up, 1);
    heard(&w.user, "glued", 5);
}

static void test_ipv6(void **state)
{
    (void)state;
    open_through("[::1]:80", "\x05\x01\x00\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x50", 22);
    say(&w.proxy, "\x05\x00\x00\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0x", 23);
    assert_int_equal(w.user.up, 1);
    heard(&w.user, "x", 1);
}

static void fails(const void *method, const void *answer, size_t n, int err)
{
    teardown(NULL);
    setup(NULL);
    dial("h:1");
    say(&w.proxy, method, 2);
    if (answer != NULL)
        say(&w.proxy, answer, n);
    assert_int_equal(w.user.up, 0);
    assert_int_equal(w.user.down, 1);
    assert_int_equal(w.user.err, err);
}

static void test_refusals(void **state)
{
    (void)state;
    fails("\x05\xff", NULL, 0, ERR_REFUSED);
    fails("\x05\x02", NULL, 0, ERR_REFUSED); /* a password was not offered */
    fails("HT", NULL, 0, ERR_FORMAT);
    fails("\x05\x00", "\x05\x05\x00\x01\0\0\0\0\0\0", 10, -ECONNREFUSED);
    fails("\x05\x00", "\x05\x03\x00\x01\0\0\0\0\0\0", 10, -ENETUNREACH);
    fails("\x05\x00", "\x05\x04\x00\x01\0\0\0\0\0\0", 10, -EHOSTUNREACH);
    fails("\x05\x00", "\x05\x06\x00\x01\0\0\0\0\0\0", 10, ERR_TIMEOUT);
    fails("\x05\x00", "\x05\x02\x00\x01\0\0\0\0\0\0", 10, ERR_REFUSED);
    fails("\x05\x00", "\x04\x00\x00\x01\0\0\0\0\0\0", 10, ERR_FORMAT);
}

static void test_silent_and_absent(void **state)
{
    (void)state;
    dial("h:1");
    pipe_net_run(&w.net, 4 * NS_PER_S);
    assert_int_equal(w.user.err, ERR_TIMEOUT);
    assert_int_equal(w.user.down, 1);
    conn_close(w.user.conn);
    w.user.conn = NULL;
    pipe_unlisten(&w.net, "proxy:1080");
    assert_int_equal(w.ca->dial(w.ca, "h:1", 3000, &side_user, &w.user, &w.user.conn), 0);
    pipe_net_run(&w.net, 4 * NS_PER_S);
    assert_int_equal(w.user.down, 2);
    struct conn *none = NULL;
    assert_int_equal(w.ca->dial(w.ca, "no address", 3000, &side_user, &w.user, &none), ERR_FORMAT);
    assert_null(none);
}

/* Closed in every state: nobody is called any more, nothing is left. */
static void test_closed_at_any_time(void **state)
{
    (void)state;
    for (int at = 0; at < 4; at++) {
        teardown(NULL);
        setup(NULL);
        w.net.fault.delay_ns = 10 * NS_PER_MS;
        assert_int_equal(w.ca->dial(w.ca, "h:1", 3000, &side_user, &w.user, &w.user.conn), 0);
        if (at > 0)
            pipe_net_run(&w.net, 100 * NS_PER_MS);
        if (at > 1)
            say(&w.proxy, "\x05\x00", 2);
        if (at > 2)
            say(&w.proxy, "\x05\x00\x00\x01\0\0\0\0\0\0", 10);
        conn_close(w.user.conn);
        w.user.conn = NULL;
        pipe_net_run(&w.net, NS_PER_S);
        assert_int_equal(w.user.down, 0);
        assert_int_equal(w.user.up, at > 2);
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(test_name),
                                       TEST(test_pieces),
                                       TEST(test_ipv6),
                                       TEST(test_refusals),
                                       TEST(test_silent_and_absent),
                                       TEST(test_closed_at_any_time)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
