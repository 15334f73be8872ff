/* pages: texts over HTTP, to whom they belong. */
#include "compat-http/pages.h"

#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tests/unit/vectors.h"

#define WAIT_MS 20000
#define SECOND  UINT64_C(1000000000)

static const struct page_spec specs[] = {{"/health", "application/json"},
                                         {"/metrics", "text/plain"}};

/* A connection over the loopback address; its other end is handed to the pages. */
static int tcp(struct pages *p, unsigned which)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(at);
    int l = socket(AF_INET, SOCK_STREAM, 0), c = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(l >= 0 && c >= 0);
    assert_int_equal(bind(l, (struct sockaddr *)&at, len), 0);
    assert_int_equal(listen(l, 1), 0);
    assert_int_equal(getsockname(l, (struct sockaddr *)&at, &len), 0);
    assert_int_equal(connect(c, (struct sockaddr *)&at, len), 0);
    int s = accept4(l, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    assert_true(s >= 0);
    close(l);
    assert_int_equal(pages_serve_tcp(p, s, which), 0);
    return c;
}

static int stream(struct pages *p, unsigned which)
{
    static const struct pubkey pk = {{2, 1}};
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(pages_serve_stream(p, fds[0], &pk, which), 0);
    return fds[1];
}

/* Ask on a connection that is closed afterwards; the status. out: the whole answer. */
static int ask(int fd, const char *request, char out[4096])
{
    int status = 0;
    size_t n = 0;
    assert_int_equal(send(fd, request, strlen(request), MSG_NOSIGNAL), strlen(request));
    for (;;) {
        struct pollfd p = {fd, POLLIN, 0};
        assert_int_equal(poll(&p, 1, WAIT_MS), 1);
        ssize_t got = read(fd, out + n, 4095 - n);
        if (got <= 0)
            break;
        n += (size_t)got;
    }
    out[n] = '\0';
    close(fd);
    assert_int_equal(sscanf(out, "HTTP/1.1 %d", &status), 1);
    return status;
}

#define GET(path, host) "GET " path " HTTP/1.1\r\nHost: " host "\r\nConnection: close\r\n\r\n"

static void test_pages(void **state)
{
    (void)state;
    struct pages *p;
    char out[4096];
    assert_int_equal(pages_new(&p, specs, 2), 0);
    assert_int_equal(ask(tcp(p, PAGES_ALL), GET("/health", "localhost"), out), 200);
    assert_non_null(strstr(out, "Content-Length: 0\r\n"));
    pages_set(p, 0, "{\"a\":1}", 7);
    pages_set(p, 1, "x 1\n", 4);
    assert_int_equal(ask(tcp(p, PAGES_ALL), GET("/health", "127.0.0.1:80"), out), 200);
    assert_non_null(strstr(out, "application/json\r\n"));
    assert_non_null(strstr(out, "\r\n\r\n{\"a\":1}"));
    assert_int_equal(ask(tcp(p, PAGES_ALL), GET("/metrics", "[::1]"), out), 200);
    assert_non_null(strstr(out, "\r\n\r\nx 1\n"));
    pages_set(p, 1, "x 2\n", 4);
    assert_int_equal(ask(tcp(p, 2), GET("/metrics", "LOCALHOST:1"), out), 200);
    assert_non_null(strstr(out, "\r\n\r\nx 2\n"));
    assert_int_equal(ask(tcp(p, 1), GET("/metrics", "localhost"), out), 404); /* not there */
    assert_int_equal(ask(tcp(p, 1), GET("/health/", "localhost"), out), 404);
    assert_int_equal(ask(tcp(p, 1),
                         "POST /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                         "Content-Length: 3\r\n\r\nabc",
                         out),
                     405);
    assert_int_equal(ask(tcp(p, 1),
                         "HEAD /health HTTP/1.1\r\nHost: localhost\r\n"
                         "Connection: close\r\n\r\n",
                         out),
                     200);
    assert_null(strstr(out, "{"));
    pages_free(p);
}

/* A browser that a name of a stranger's led here; over a stream every name is right. */
static void test_names(void **state)
{
    (void)state;
    struct pages *p;
    char out[4096];
    assert_int_equal(pages_new(&p, specs, 2), 0);
    assert_int_equal(ask(tcp(p, 1), GET("/health", "evil.example"), out), 403);
    assert_int_equal(ask(tcp(p, 1), GET("/health", "127.0.0.1.evil.example:80"), out), 403);
    assert_int_equal(ask(tcp(p, 1), GET("/health", "localhost.evil.example"), out), 403);
    assert_int_equal(ask(stream(p, 1), GET("/health", "02aa.dmsg"), out), 200);
    assert_int_equal(ask(stream(p, 1), GET("/metrics", "02aa.dmsg"), out), 404);
    struct pages_stat st;
    pages_stat(p, &st);
    assert_true(st.served >= 5 && st.refused_limit == 0);
    pages_free(p);
}

static size_t conns(struct pages *p)
{
    struct pages_stat st;
    pages_stat(p, &st);
    return st.conns;
}

/* 200 clients that write a byte of their header now and then: others are served, and the slow ones
 * are gone when their time is over (incident 94). */
static void test_squatters(void **state)
{
    (void)state;
    struct pages *p;
    char out[4096];
    int fd[200];
    assert_int_equal(pages_new(&p, specs, 2), 0);
    pages_tick(p, SECOND);
    for (int i = 0; i < 200; i++) {
        fd[i] = stream(p, 1);
        assert_int_equal(send(fd[i], "G", 1, MSG_NOSIGNAL), 1);
    }
    assert_int_equal(ask(tcp(p, 1), GET("/health", "localhost"), out), 200);
    assert_non_null(strstr(out, "Connection: close\r\n"));
    for (int s = 2; s < 60 && conns(p) > 0; s++) {
        pages_tick(p, (uint64_t)s * SECOND);
        for (int i = 0; i < 200; i++)
            (void)send(fd[i], "E", 1, MSG_NOSIGNAL); /* progress is no excuse */
        struct timespec pause = {0, 20000000};
        nanosleep(&pause, NULL);
    }
    assert_int_equal(conns(p), 0);
    for (int i = 0; i < 200; i++)
        close(fd[i]);
    pages_free(p);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_pages), cmocka_unit_test(test_names),
                                       cmocka_unit_test(test_squatters)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
