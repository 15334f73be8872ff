/*
 * The frame of services on a real loop: routes, callers, clocks, limits, and what strangers send.
 */
#include "compat-http/service.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/env_sys.h"
#include "base/err.h"
#include "tests/unit/vectors.h"

#define WAIT_NS (30 * NS_PER_S)

static struct drive_loop *drive;
static struct env_sys env;
static struct service *service;
static struct service_req *held[8];
static size_t n_held, n_dropped;

/* Who calls, and what was asked. */
static void on_echo(struct service_req *q)
{
    char text[2048], pk[PUBKEY_HEX + 1];
    int n = snprintf(text, sizeof(text), "%s|%s|%s|%s|%u|%s",
                     q->caller.stream ? pubkey_hex(pk, &q->caller.pk) : q->caller.ip,
                     q->param[0] != NULL ? q->param[0] : "", q->param[1] != NULL ? q->param[1] : "",
                     q->query, (unsigned)q->body_len, q->body_len < 100 ? q->body : "…");
    service_answer(q, 200, SERVICE_PLAIN, text, (size_t)n);
}

static void on_later(struct service_req *q)
{
    assert_true(n_held < 8);
    held[n_held++] = q;
}

static void on_dropped(struct service_req *q)
{
    (void)q;
    n_dropped++;
}

static const struct service_route routes[] = {
    {SERVICE_GET, "/echo", on_echo, 0},        {SERVICE_POST, "/echo", on_echo, 4096},
    {SERVICE_GET, "/echo/{}", on_echo, 0},     {SERVICE_GET, "/echo/{}/x/{}", on_echo, 0},
    {SERVICE_GET, "/t/id:{}", on_echo, 0},     {SERVICE_GET, "/later", on_later, 0},
    {SERVICE_POST, "/echo/", on_echo, 100000},
};

static void start(struct service_cfg cfg)
{
    cfg.drive = drive;
    cfg.env = &env.env;
    cfg.routes = routes;
    cfg.n_routes = sizeof(routes) / sizeof(routes[0]);
    cfg.dropped = on_dropped;
    /* The test and the service share a thread: a stall is nobody's slowness. */
    cfg.header_ms = cfg.header_ms != 0 ? cfg.header_ms : 60000;
    cfg.body_ms = cfg.body_ms != 0 ? cfg.body_ms : 60000;
    cfg.idle_ms = cfg.idle_ms != 0 ? cfg.idle_ms : 60000;
    assert_int_equal(service_new(&service, &cfg), 0);
    assert_int_equal(service_listen(service, "127.0.0.1:0"), 0);
}

static int setup(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    drive = drive_loop_new(NULL);
    assert_int_equal(env_sys_init(&env), 0);
    n_held = n_dropped = 0;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    service_free(service);
    service = NULL;
    drive_loop_free(drive);
    return 0;
}

/* ---- a client that owns its bytes ---- */

static struct service_stat stat_now(void)
{
    struct service_stat st;
    service_stat(service, &st);
    return st;
}

static int dial(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    at.sin_port = htons((uint16_t)atoi(strrchr(service_addr(service, 0), ':') + 1));
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    return fd;
}

static void turn(void)
{
    event_base_loop(drive_loop_base(drive), EVLOOP_NONBLOCK);
    usleep(200);
}

static void say_n(int fd, const char *text, size_t n)
{
    while (n > 0) {
        ssize_t sent = send(fd, text, n, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0)
            return; /* it does not listen any more */
        text += sent;
        n -= (size_t)sent;
        turn();
    }
}

static void say(int fd, const char *text)
{
    say_n(fd, text, strlen(text));
}

/* Everything until the other side ends, or until `until` is in it. */
static const char *hear(int fd, const char *until)
{
    static char text[200000];
    size_t n = 0;
    uint64_t end = drive_loop_now(drive) + WAIT_NS;
    text[0] = '\0';
    while (drive_loop_now(drive) < end && (until == NULL || strstr(text, until) == NULL)) {
        turn();
        ssize_t got = recv(fd, text + n, sizeof(text) - 1 - n, MSG_DONTWAIT);
        if (got == 0 || (got < 0 && errno != EAGAIN))
            break;
        n += got > 0 ? (size_t)got : 0;
        text[n] = '\0';
    }
    assert_true(drive_loop_now(drive) < end);
    return text;
}

static const char *ask(const char *request)
{
    int fd = dial();
    say(fd, request);
    const char *text = hear(fd, NULL);
    close(fd);
    return text;
}

#define END "Host: x\r\nConnection: close\r\n\r\n"

static void expect(const char *request, const char *status, const char *body)
{
    const char *text = ask(request), *head = strstr(text, "\r\n\r\n");
    if (strstr(text, status) != text + 9 || head == NULL ||
        (body != NULL && strcmp(head + 4, body) != 0))
        fail_msg("%s gives %s", request, text);
}

/* ---- */

static void test_routes(void **state)
{
    (void)state;
    start((struct service_cfg){0});
    expect("GET /echo HTTP/1.1\r\n" END, "200", "127.0.0.1||||0|");
    expect("GET /echo?a=1&b HTTP/1.1\r\n" END, "200", "127.0.0.1|||a=1&b|0|");
    expect("GET /echo/one HTTP/1.1\r\n" END, "200", "127.0.0.1|one|||0|");
    expect("GET /echo/one/x/two?q HTTP/1.1\r\n" END, "200", "127.0.0.1|one|two|q|0|");
    expect("GET /t/id:7 HTTP/1.1\r\n" END, "200", "127.0.0.1|7|||0|");
    expect("GET /t/id: HTTP/1.1\r\n" END, "404", "404 page not found\n");
    expect("GET /echo/%2e%2e HTTP/1.1\r\n" END, "200", "127.0.0.1|%2e%2e|||0|");
    expect("GET /echo/../echo HTTP/1.1\r\n" END, "404", NULL);
    expect("GET //echo HTTP/1.1\r\n" END, "404", NULL);
    expect("GET /ECHO HTTP/1.1\r\n" END, "404", NULL);
    expect("GET /echo/ HTTP/1.1\r\n" END, "405", "");
    expect("GET / HTTP/1.1\r\n" END, "404", "404 page not found\n");
    assert_non_null(strstr(ask("GET /x HTTP/1.1\r\n" END), "X-Content-Type-Options: nosniff\r\n"));
    expect("HEAD /echo HTTP/1.1\r\n" END, "405", "");
    expect("PUT /echo HTTP/1.1\r\n" END, "405", "");
    expect("BREW /echo HTTP/1.1\r\n" END, "405", "");
    expect("POST /echo HTTP/1.1\r\nContent-Length: 5\r\n" END "hello", "200",
           "127.0.0.1||||5|hello");
    expect("POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" END
           "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
           "200", "127.0.0.1||||5|abcde");
    char path[600];
    snprintf(path, sizeof(path), "GET /echo/%0300d HTTP/1.1\r\n" END, 1);
    expect(path, "404", NULL); /* longer than any {} */
    assert_int_equal(stat_now().requests, 0);
}

static void test_callers(void **state)
{
    (void)state;
    start((struct service_cfg){0});
    expect("GET /echo HTTP/1.1\r\nX-Real-IP: 198.51.100.7\r\n" END, "200", "198.51.100.7||||0|");
    expect("GET /echo HTTP/1.1\r\nX-Forwarded-For: 2001:db8::1 , 10.0.0.1\r\n" END, "200",
           "2001:db8::1||||0|");
    expect("GET /echo HTTP/1.1\r\nTrue-Client-IP: 1.1.1.1\r\nX-Real-IP: 2.2.2.2\r\n" END, "200",
           "1.1.1.1||||0|");
    expect("GET /echo HTTP/1.1\r\nX-Real-IP: nonsense\r\n" END, "200", "127.0.0.1||||0|");
    expect("PROXY TCP4 203.0.113.9 10.0.0.1 4711 80\r\nGET /echo HTTP/1.1\r\n" END, "200",
           "203.0.113.9||||0|");
    expect("PROXY UNKNOWN\r\nGET /echo HTTP/1.1\r\n" END, "200", "127.0.0.1||||0|");
    int fd = dial();
    static const char v2[] =
        "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x07\x0a\0\0\1\x12\x67\0P";
    say_n(fd, v2, 10); /* in two parts */
    for (int i = 0; i < 20; i++)
        turn();
    say_n(fd, v2 + 10, sizeof(v2) - 1 - 10);
    say(fd, "GET /echo HTTP/1.1\r\n" END);
    const char *text = hear(fd, NULL);
    if (strstr(text, "203.0.113.7||||0|") == NULL)
        fail_msg("%s", text);
    close(fd);
    assert_string_equal(ask("PROXY TCP4 nonsense\r\nGET /echo HTTP/1.1\r\n" END), "");
    assert_int_equal(stat_now().bad_proxy, 1);
}

/* incident 49: over a stream the caller is the stream's key, whatever the headers say */
static void test_streams(void **state)
{
    (void)state;
    start((struct service_cfg){.stream_rate = 1, .stream_burst = 3});
    struct seckey sk = {.b = {[31] = 1}};
    struct pubkey pk;
    int fds[2];
    char expected[200], hex[PUBKEY_HEX + 1];
    assert_int_equal(seckey_pubkey(&pk, &sk), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    assert_int_equal(service_add_stream(service, fds[0], &pk, 49152), 0);
    snprintf(expected, sizeof(expected), "%s||||0|", pubkey_hex(hex, &pk));
    for (int i = 0; i < 3; i++) { /* several on one connection */
        say(fds[1], "GET /echo HTTP/1.1\r\nHost: x\r\nX-Real-IP: 1.2.3.4\r\nSW-Public: 02\r\n\r\n");
        assert_non_null(strstr(hear(fds[1], "||||0|"), expected));
    }
    say(fds[1], "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
    const char *text = hear(fds[1], "exceeded\n");
    assert_non_null(strstr(text, " 429 "));
    assert_non_null(strstr(text, "Retry-After: 1\r\n"));
    close(fds[1]);
    expect("GET /echo HTTP/1.1\r\n" END, "200", NULL); /* TCP is not limited */
}

static void test_bodies(void **state)
{
    (void)state;
    start((struct service_cfg){.body_total = 60000});
    static char text[200000];
    int head = snprintf(text, sizeof(text), "POST /echo HTTP/1.1\r\nContent-Length: 4096\r\n" END);
    memset(text + head, 'x', 4096);
    text[head + 4096] = '\0';
    expect(text, "200", "127.0.0.1||||4096|…");
    expect("POST /echo HTTP/1.1\r\nContent-Length: 4097\r\n" END, "413",
           "{\"message\":\"Request Entity Too Large\",\"code\":413}");
    expect("POST /echo HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n" END, "413", NULL);
    head = snprintf(text, sizeof(text),
                    "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" END "2000\r\n");
    memset(text + head, 'x', 0x2000);
    strcpy(text + head + 0x2000, "\r\n0\r\n\r\n");
    expect(text, "413", NULL);
    head = snprintf(text, sizeof(text), "POST /echo/ HTTP/1.1\r\nContent-Length: 90000\r\n" END);
    memset(text + head, 'x', 90000);
    text[head + 90000] = '\0';
    expect(text, "503", NULL);                   /* all bodies together */
    assert_in_range(stat_now().too_large, 2, 3); /* the library has a word in it too */
    assert_int_equal(stat_now().refused_memory, 1);
    assert_int_equal(stat_now().body_bytes, 0);
}

static void test_header_bombs(void **state)
{
    (void)state;
    start((struct service_cfg){.header_ms = 3000}); /* what is no request ends by this */
    static char text[100000];
    int n = snprintf(text, sizeof(text), "GET /echo HTTP/1.1\r\nX: ");
    memset(text + n, 'y', 20000);
    strcpy(text + n + 20000, "\r\n" END);
    const char *got = ask(text);
    assert_true(strstr(got, " 431 ") != NULL || got[0] == '\0');
    n = snprintf(text, sizeof(text), "GET /echo HTTP/1.1\r\n");
    for (int i = 0; i < 4000; i++)
        n += snprintf(text + n, sizeof(text) - (size_t)n, "A%d: b\r\n", i);
    snprintf(text + n, sizeof(text) - (size_t)n, END);
    got = ask(text);
    assert_true(strstr(got, " 431 ") != NULL || got[0] == '\0');
    n = snprintf(text, sizeof(text), "GET /");
    memset(text + n, 'z', 30000);
    strcpy(text + n + 30000, " HTTP/1.1\r\n" END);
    got = ask(text);
    assert_true(strstr(got, " 414 ") != NULL || strstr(got, " 431 ") != NULL || got[0] == '\0');
    (void)ask("\0\1\2\3\r\n\r\n");
    (void)ask("GET\r\n\r\n");
    (void)ask("\r\n\r\n\r\n\r\nGET /echo\r\n\r\n");
    expect("GET /echo HTTP/1.1\r\n" END, "200", NULL);
}

/* A browser that was led here by a stranger's name is told nothing. */
static void test_host_names(void **state)
{
    (void)state;
    start((struct service_cfg){.check_host = true});
    expect("GET /echo HTTP/1.1\r\nConnection: close\r\nHost: evil.example\r\n\r\n", "403",
           "not by this name\n");
    expect("GET /echo HTTP/1.1\r\nConnection: close\r\nHost: localhost:80\r\n\r\n", "200", NULL);
    expect("GET /echo HTTP/1.1\r\nConnection: close\r\nHost: [::1]:80\r\n\r\n", "200", NULL);
    expect("GET /echo HTTP/1.1\r\nConnection: close\r\nHost: 10.0.0.1\r\n\r\n", "200", NULL);
}

/* Incident 94. Hundreds of slow ones at once: each is ended by its own clock, others are served meanwhile. */
static void test_slow_connections(void **state)
{
    (void)state;
    start((struct service_cfg){.header_ms = 600, .body_ms = 600, .idle_ms = 600});
    enum { SLOW = 300 };
    static int fd[SLOW];
    for (int i = 0; i < SLOW; i++) {
        fd[i] = dial();
        say(fd[i], i % 3 == 0   ? ""
                   : i % 3 == 1 ? "GET /echo HTTP/1.1\r\nHost: x\r\nX: "
                                : "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhi");
    }
    expect("GET /echo HTTP/1.1\r\n" END, "200", "127.0.0.1||||0|");
    const char *text = hear(fd[1], NULL);
    assert_true(strncmp(text, "HTTP/1.1 400 Bad Request\r\n", 26) == 0);
    for (int i = 0; i < SLOW; i++) {
        (void)hear(fd[i], NULL);
        close(fd[i]);
    }
    struct service_stat st = stat_now();
    assert_int_equal(st.slow_bodies, SLOW / 3);
    assert_int_equal(st.slow_headers, SLOW * 2 / 3);
    int idle = dial();
    say(idle, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
    (void)hear(idle, "||||0|");
    assert_string_equal(hear(idle, NULL), ""); /* and then it is closed */
    close(idle);
    assert_int_equal(stat_now().idle_closed, 1);
}

static void test_full(void **state)
{
    (void)state;
    start((struct service_cfg){.max_conns = 20});
    int fd[60];
    for (int i = 0; i < 60; i++) {
        fd[i] = dial();
        say(fd[i], "GET /echo HTTP/1.1\r\n");
        turn();
    }
    for (int i = 0; i < 100 && stat_now().conns > 20; i++)
        turn();
    assert_in_range(stat_now().evicted, 40, 60);
    expect("GET /echo HTTP/1.1\r\n" END, "200", "127.0.0.1||||0|");
    for (int i = 0; i < 60; i++)
        close(fd[i]);
}

static void test_later(void **state)
{
    (void)state;
    start((struct service_cfg){0});
    int a = dial(), b = dial();
    say(a, "GET /later HTTP/1.1\r\n" END);
    say(b, "GET /later HTTP/1.1\r\n" END);
    while (n_held < 2)
        turn();
    assert_int_equal(stat_now().requests, 2);
    expect("GET /echo HTTP/1.1\r\n" END, "200", NULL); /* nobody waits for them */
    close(b); /* gone, but the request is still ours to answer */
    for (int i = 0; i < 20; i++)
        turn();
    service_answer_text(held[1], 200, NULL, "for nobody");
    service_answer_header(held[0], "X-A", "b");
    service_answer_owned(held[0], 201, SERVICE_JSON, strdup("{}"), 2);
    const char *text = hear(a, NULL);
    assert_non_null(strstr(text, " 201 "));
    assert_non_null(strstr(text, "X-A: b\r\n"));
    assert_non_null(strstr(text, "\r\n\r\n{}"));
    close(a);
    assert_int_equal(stat_now().requests, 0);
    a = dial();
    say(a, "GET /later HTTP/1.1\r\n" END);
    while (n_held < 3)
        turn();
    service_free(service);
    service = NULL;
    assert_int_equal(n_dropped, 1);
    close(a);
}

static void test_queries(void **state)
{
    (void)state;
    char out[8];
    assert_int_equal(service_query_find("a=1&b=x%20y+z&a=2&c", "a", out, 8), 1);
    assert_string_equal(out, "1");
    assert_int_equal(service_query_find("a=1&b=x%20y+z&a=2&c", "b", out, 8), 5);
    assert_string_equal(out, "x y z");
    assert_int_equal(service_query_find("a=1&c", "c", out, 8), 0);
    assert_int_equal(service_query_find("ab=1", "a", out, 8), ERR_NOT_FOUND);
    assert_int_equal(service_query_find("", "a", out, 8), ERR_NOT_FOUND);
    assert_int_equal(service_query_find("a=%4", "a", out, 8), ERR_FORMAT);
    assert_int_equal(service_query_find("a=%00", "a", out, 8), ERR_FORMAT);
    assert_int_equal(service_query_find("a=12345678", "a", out, 8), ERR_TOO_LONG);
}

static void test_listeners(void **state)
{
    (void)state;
    start((struct service_cfg){0});
    assert_int_equal(service_listen(service, "nonsense"), ERR_FORMAT);
    assert_true(service_listen(service, service_addr(service, 0)) < 0);
    assert_null(service_addr(service, 1));
    assert_int_equal(service_listen(service, ":0"), 0);
    assert_non_null(service_addr(service, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_routes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_callers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_streams, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bodies, setup, teardown),
        cmocka_unit_test_setup_teardown(test_header_bombs, setup, teardown),
        cmocka_unit_test_setup_teardown(test_host_names, setup, teardown),
        cmocka_unit_test_setup_teardown(test_slow_connections, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full, setup, teardown),
        cmocka_unit_test_setup_teardown(test_later, setup, teardown),
        cmocka_unit_test(test_queries),
        cmocka_unit_test_setup_teardown(test_listeners, setup, teardown),
    };
    return crypto_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
