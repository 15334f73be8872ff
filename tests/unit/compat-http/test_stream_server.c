#include "compat-http/stream_server.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/err.h"
#include "tests/unit/vectors.h"

#define WAIT_MS 10000
#define SECOND  UINT64_C(1000000000)

static struct stream_server *server;
static struct pubkey keys[3];

/* Answers with who calls and what was asked for. */
static enum MHD_Result on_request(void *arg, struct MHD_Connection *mc, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *n, void **state)
{
    static int seen;
    char text[1024], pk[PUBKEY_HEX + 1];
    (void)arg, (void)url, (void)method, (void)version, (void)data;
    if (*state == NULL || *n > 0) {
        *state = &seen;
        *n = 0;
        return MHD_YES;
    }
    const struct stream_peer *peer = stream_server_peer(mc);
    snprintf(text, sizeof(text), "%s:%u %s", pubkey_hex(pk, &peer->pk), peer->port,
             stream_server_uri(mc));
    struct MHD_Response *r =
        MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_COPY);
    enum MHD_Result ok = MHD_queue_response(mc, 200, r);
    MHD_destroy_response(r);
    return ok;
}

static int setup(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    if (crypto_init() < 0)
        return -1;
    for (uint8_t i = 0; i < 3; i++) {
        struct seckey sk = {.b = {[31] = (uint8_t)(i + 1)}};
        if (seckey_pubkey(&keys[i], &sk) < 0)
            return -1;
    }
    return 0;
}

static void start(struct stream_server_cfg cfg)
{
    cfg.handler = on_request;
    assert_int_equal(stream_server_new(&server, &cfg), 0);
    stream_server_tick(server, SECOND);
}

static int call(int key, uint16_t port, int expected)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(stream_server_add(server, fds[0], &keys[key], port), expected);
    return fds[1];
}

/* One read; 0 at the end. */
static ssize_t hear(int fd, char *out, size_t cap)
{
    struct pollfd p = {fd, POLLIN, 0};
    assert_int_equal(poll(&p, 1, WAIT_MS), 1);
    ssize_t n = read(fd, out, cap - 1);
    out[n > 0 ? n : 0] = '\0';
    return n > 0 ? n : 0;
}

static void say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* A round trip: the server knows the connection then. */
static void greet(int fd, char *out, size_t cap)
{
    say(fd, "GET /%2e?x=%41 HTTP/1.1\r\nHost: x\r\n\r\n");
    size_t n = 0;
    while (strstr(out, "/%2e?x=%41") == NULL) {
        ssize_t got = hear(fd, out + n, cap - n);
        assert_true(got > 0);
        n += (size_t)got;
    }
}

static void test_who_calls(void **state)
{
    (void)state;
    char expected[200], pk[PUBKEY_HEX + 1];
    int fd[3];
    start((struct stream_server_cfg){0});
    for (int i = 0; i < 3; i++)
        fd[i] = call(i, (uint16_t)(49153 + i), 0);
    for (int i = 2; i >= 0; i--) {
        char text[2048] = "";
        greet(fd[i], text, sizeof(text));
        snprintf(expected, sizeof(expected), "\r\n\r\n%s:%d /%%2e?x=%%41", pubkey_hex(pk, &keys[i]),
                 49153 + i);
        assert_non_null(strstr(text, expected));
    }
    struct stream_server_stat stat;
    stream_server_stat(server, &stat);
    assert_int_equal(stat.conns, 3);
    assert_int_equal(stat.accepted, 3);
    for (int i = 0; i < 3; i++)
        close(fd[i]);
    stream_server_free(server);
}

static void test_limits(void **state)
{
    (void)state;
    struct stream_server_stat stat;
    char text[2048] = "";
    start((struct stream_server_cfg){.max_conns = 3, .max_per_peer = 2});
    int a = call(0, 1, 0), b = call(0, 2, 0);
    greet(a, text, sizeof(text));
    text[0] = '\0';
    greet(b, text, sizeof(text));
    int refused = call(0, 3, ERR_LIMIT);
    assert_int_equal(hear(refused, text, sizeof(text)), 0);
    int c = call(1, 4, 0);
    text[0] = '\0';
    greet(c, text, sizeof(text));
    int also = call(2, 5, ERR_LIMIT);
    assert_int_equal(hear(also, text, sizeof(text)), 0);
    stream_server_stat(server, &stat);
    assert_int_equal(stat.refused_limit, 2);
    assert_int_equal(stat.conns, 3);
    close(a), close(b), close(c), close(refused), close(also);
    stream_server_free(server);
}

static void test_slow_headers(void **state)
{
    (void)state;
    struct stream_server_stat stat;
    char text[2048] = "";
    start((struct stream_server_cfg){.header_s = 5});
    int idle = call(0, 1, 0), silent = call(1, 2, 0), slow = call(2, 3, 0);
    greet(idle, text, sizeof(text)); /* between two requests it may wait */
    say(slow, "GET / HTTP/1.1\r\nHost: x\r\nX: y");
    do /* the server has taken all three */
        stream_server_stat(server, &stat);
    while (stat.conns < 3);
    stream_server_tick(server, 5 * SECOND);
    stream_server_stat(server, &stat);
    assert_int_equal(stat.slow_headers, 0);
    stream_server_tick(server, 6 * SECOND);
    assert_int_equal(hear(silent, text, sizeof(text)), 0);
    while (hear(slow, text, sizeof(text)) > 0)
        assert_null(strstr(text, " 200 "));
    text[0] = '\0';
    greet(idle, text, sizeof(text));
    stream_server_stat(server, &stat);
    assert_int_equal(stat.slow_headers, 2);
    close(idle), close(silent), close(slow);
    stream_server_free(server);
}

static void test_too_large(void **state)
{
    (void)state;
    char text[4096], big[40000];
    start((struct stream_server_cfg){0});
    int fd = call(0, 1, 0);
    memset(big, 'y', sizeof(big) - 1);
    big[sizeof(big) - 1] = '\0';
    say(fd, "GET / HTTP/1.1\r\nHost: x\r\nX: ");
    (void)send(fd, big, sizeof(big) - 1, MSG_NOSIGNAL);
    size_t n = 0;
    for (ssize_t got; n < 100 && (got = hear(fd, text + n, sizeof(text) - n)) > 0;)
        n += (size_t)got;
    text[n] = '\0';
    assert_non_null(strstr(text, " 431 "));
    close(fd);
    stream_server_free(server);
}

static void test_end_with_clients(void **state)
{
    (void)state;
    char text[2048] = "";
    start((struct stream_server_cfg){0});
    int fd = call(0, 1, 0), fresh = call(1, 2, 0);
    greet(fd, text, sizeof(text));
    stream_server_free(server);
    assert_int_equal(hear(fd, text, sizeof(text)), 0);
    assert_int_equal(hear(fresh, text, sizeof(text)), 0);
    close(fd), close(fresh);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_who_calls),        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_slow_headers),     cmocka_unit_test(test_too_large),
        cmocka_unit_test(test_end_with_clients),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
