/*
 * The HTTP client on a real loop against a real server.
 */
#include "compat-http/http_client.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/env_sys.h"
#include "base/err.h"
#include "compat-http/stream_client.h"
#include "tests/unit/compat-http/http_peer.h"
#include "tests/unit/vectors.h"

#define DEADLINE_NS (30 * NS_PER_S)

static struct http_peer peer;
static struct drive_loop *drive;
static struct env_sys env;
static struct http_client *client;

struct got {
    unsigned calls;
    int err;
    long status;
    char body[2048];
    size_t len;
    unsigned attempts;
    bool why;
    void (*then)(struct got *g);
    uint64_t other;
};

static void on_answer(void *arg, const struct http_answer *a)
{
    struct got *g = arg;
    g->calls++;
    g->err = a->err;
    g->status = a->status;
    g->len = a->len;
    g->attempts = a->attempts;
    g->why = a->why[0] != '\0';
    snprintf(g->body, sizeof(g->body), "%s", a->body);
    if (g->then != NULL)
        g->then(g);
}

static int setup(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    memset(&peer, 0, sizeof(peer));
    http_peer_start(&peer);
    drive = drive_loop_new(NULL);
    assert_non_null(drive);
    assert_int_equal(env_sys_init(&env), 0);
    struct http_client_cfg cfg = {.drive = drive, .env = &env.env};
    assert_int_equal(http_client_new(&client, &cfg), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    http_client_free(client);
    drive_loop_free(drive);
    http_peer_stop(&peer);
    return 0;
}

struct watch {
    struct loop_timer timer;
    bool over;
};

static void on_late(struct loop_timer *t)
{
    container_of(t, struct watch, timer)->over = true;
}

/* Until the answer is there. */
static void wait_for(const struct got *g)
{
    struct loop *loop = drive_loop_loop(drive);
    struct watch w = {.timer = {.fn = on_late}};
    drive_loop_now(drive);
    loop_timer_set(loop, &w.timer, loop->now_ns + DEADLINE_NS);
    while (g->calls == 0 && !w.over)
        event_base_loop(drive_loop_base(drive), EVLOOP_ONCE);
    loop_timer_cancel(loop, &w.timer);
    assert_int_equal(g->calls, 1);
}

static uint64_t start(struct got *g, const char *method, const char *path, struct http_request req)
{
    char url[256];
    snprintf(url, sizeof(url), "%s%s", path[0] == '/' ? peer.url : "", path);
    req.method = method;
    req.url = url;
    drive_loop_now(drive);
    uint64_t handle = http_client_start(client, &req, on_answer, g);
    assert_true(handle != 0);
    assert_int_equal(g->calls, 0); /* never from inside */
    return handle;
}

static struct got ask(const char *method, const char *path, struct http_request req)
{
    struct got g = {0};
    start(&g, method, path, req);
    wait_for(&g);
    assert_true((g.err != 0) == g.why);
    return g;
}

static struct http_client_stat stat_now(void)
{
    struct http_client_stat st;
    http_client_stat(client, &st);
    return st;
}

/* ---- */

static void test_requests(void **state)
{
    (void)state;
    struct got g = ask("GET", "/ok", (struct http_request){0});
    assert_int_equal(g.err, 0);
    assert_int_equal(g.status, 200);
    assert_string_equal(g.body, "fine");
    g = ask("POST", "/echo", (struct http_request){.body = "a=1", .body_len = 3});
    assert_string_equal(g.body, "POST a=1");
    assert_string_equal(ask("POST", "/echo", (struct http_request){0}).body, "POST ");
    g = ask("DELETE", "/echo", (struct http_request){.body = "gone", .body_len = 4});
    assert_string_equal(g.body, "DELETE gone");
    assert_string_equal(ask("DELETE", "/echo", (struct http_request){0}).body, "DELETE ");
    assert_int_equal(ask("GET", "/nothing", (struct http_request){0}).status, 404);
    assert_int_equal(stat_now().running, 0);
}

/* incident 48: no new connection, and so no new handshake over dmsg, for each request */
static void test_connections_are_kept(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++)
        assert_int_equal(ask("GET", "/ok", (struct http_request){0}).status, 200);
    assert_int_equal(peer.connections, 1);
    assert_int_equal(peer.requests, 20);
    /* one that the server closed is replaced without anybody noticing */
    assert_int_equal(ask("GET", "/old", (struct http_request){0}).status, 200);
    assert_int_equal(ask("GET", "/ok", (struct http_request){0}).status, 200);
    assert_int_equal(ask("POST", "/echo", (struct http_request){0}).status, 200);
}

static void test_single_flight(void **state)
{
    (void)state;
    struct got g[50] = {{0}};
    for (int i = 0; i < 50; i++)
        start(&g[i], "GET", "/ok", (struct http_request){0});
    for (int i = 0; i < 50; i++) {
        if (g[i].calls == 0)
            wait_for(&g[i]);
        assert_string_equal(g[i].body, "fine");
    }
    assert_int_equal(peer.requests, 1);
    assert_int_equal(stat_now().joined, 49);
    /* POSTs are not the same even when they look so */
    memset(g, 0, sizeof(g));
    for (int i = 0; i < 3; i++)
        start(&g[i], "POST", "/echo", (struct http_request){0});
    for (int i = 0; i < 3; i++)
        if (g[i].calls == 0)
            wait_for(&g[i]);
    assert_int_equal(peer.requests, 4);
}

static void test_retries(void **state)
{
    (void)state;
    struct got g = ask("GET", "/busy/2", (struct http_request){.timeout_ms = 30000});
    assert_string_equal(g.body, "late");
    assert_int_equal(g.attempts, 3);
    assert_int_equal(stat_now().retried, 2);
    peer.requests = 0;
    g = ask("GET", "/busy/9", (struct http_request){.attempts = 2, .timeout_ms = 30000});
    assert_int_equal(g.status, 503); /* what it says in the end */
    assert_int_equal(peer.requests, 2);
    peer.requests = 0;
    assert_int_equal(ask("POST", "/busy/9", (struct http_request){0}).status, 503);
    assert_int_equal(peer.requests, 1); /* nothing is done twice */
    peer.requests = 0;
    g = ask("GET", "/close", (struct http_request){.timeout_ms = 30000});
    assert_int_equal(g.err, ERR_RESET);
    assert_int_equal(g.attempts, 3);
    peer.requests = 0;
    assert_int_equal(ask("POST", "/close", (struct http_request){0}).err, ERR_RESET);
    assert_int_equal(peer.requests, 1);
}

static void test_failures(void **state)
{
    (void)state;
    assert_int_equal(ask("GET", "/slow", (struct http_request){.timeout_ms = 200}).err,
                     ERR_TIMEOUT);
    assert_int_equal(stat_now().timeouts, 1);
    struct http_request once = {.attempts = 1};
    assert_int_equal(ask("GET", "http://127.0.0.1:1/", once).err, ERR_NO_ROUTE);
    assert_int_equal(ask("GET", "ftp://127.0.0.1/", once).err, ERR_UNSUPPORTED);
    assert_int_equal(ask("GET", "http://[::1", once).err, ERR_FORMAT);
    assert_int_equal(
        ask("GET", "dmsg://0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798/",
            once)
            .err,
        ERR_UNSUPPORTED); /* there are no streams */
    assert_int_equal(stat_now().running, 0);
}

static void test_bodies_are_bounded(void **state)
{
    (void)state;
    struct got g = ask("GET", "/big/100000", (struct http_request){.max_body = 100000});
    assert_int_equal(g.err, 0);
    assert_int_equal(g.len, 100000);
    g = ask("GET", "/big/100001", (struct http_request){.max_body = 100000});
    assert_int_equal(g.err, ERR_TOO_LONG);
    assert_int_equal(g.attempts, 1);
    assert_int_equal(g.len, 0);
    assert_int_equal(stat_now().too_long, 1);
}

static void cancel_other(struct got *g)
{
    http_client_cancel(client, g->other);
}

static void test_cancel(void **state)
{
    (void)state;
    struct got a = {.then = cancel_other}, b = {0}, c = {0};
    start(&a, "GET", "/ok", (struct http_request){0});
    a.other = start(&b, "GET", "/ok", (struct http_request){0});
    wait_for(&a);
    assert_int_equal(b.calls, 0);
    uint64_t h = start(&c, "GET", "/slow", (struct http_request){0});
    http_client_cancel(client, h);
    http_client_cancel(client, h);
    assert_int_equal(stat_now().running, 0);
    assert_int_equal(ask("GET", "/ok", (struct http_request){0}).status, 200);
    assert_int_equal(b.calls + c.calls, 0);
    start(&c, "GET", "/slow", (struct http_request){0}); /* under way at the end */
}

static void test_flood(void **state)
{
    (void)state;
    static struct got g[HTTP_CLIENT_MAX + 1];
    memset(g, 0, sizeof(g));
    for (int i = 0; i <= HTTP_CLIENT_MAX; i++) {
        char path[32];
        snprintf(path, sizeof(path), "/slow?%d", i);
        start(&g[i], "GET", path, (struct http_request){.attempts = 1});
    }
    wait_for(&g[HTTP_CLIENT_MAX]);
    assert_int_equal(g[HTTP_CLIENT_MAX].err, ERR_BUSY);
    assert_int_equal(stat_now().running, HTTP_CLIENT_MAX);
    assert_int_equal(stat_now().busy, 1);
}

/* ---- dmsg:// through a unix socket ---- */

static char socket_path[108];
static unsigned asked;

static int socket_of(void *arg, const struct pubkey *pk, uint16_t port, char path[HTTP_CLIENT_PATH])
{
    (void)arg;
    asked++;
    if (port != 80)
        return ERR_NO_ROUTE;
    assert_int_equal(pk->b[0], 2);
    snprintf(path, HTTP_CLIENT_PATH, "%s", socket_path);
    return 0;
}

static void test_dmsg_urls(void **state)
{
    (void)state;
#define KEY "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    char dir[] = "/tmp/kadmsg-test-XXXXXX";
    assert_non_null(mkdtemp(dir));
    snprintf(socket_path, sizeof(socket_path), "%s/s", dir);
    memcpy(at.sun_path, socket_path, sizeof(at.sun_path));
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(listen(fd, 8), 0);
    http_client_free(client);
    struct http_client_cfg cfg = {.drive = drive, .env = &env.env, .socket_of = socket_of};
    assert_int_equal(http_client_new(&client, &cfg), 0);
    assert_int_equal(ask("GET", "dmsg://" KEY ":81/", (struct http_request){.attempts = 1}).err,
                     ERR_NO_ROUTE);
    assert_int_equal(ask("GET", "dmsg://zz/", (struct http_request){.attempts = 1}).err, ERR_KEY);
    struct got g = {0};
    start(&g, "GET", "dmsg://" KEY "/health", (struct http_request){.timeout_ms = 20000});
    /* the request arrives on the socket, as plain HTTP with the key as host */
    char request[1024] = "";
    int conn = -1;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    while (conn < 0) {
        event_base_loop(drive_loop_base(drive), EVLOOP_ONCE | EVLOOP_NONBLOCK);
        conn = accept(fd, NULL, NULL);
    }
    size_t n = 0;
    while (strstr(request, "\r\n\r\n") == NULL) {
        event_base_loop(drive_loop_base(drive), EVLOOP_ONCE | EVLOOP_NONBLOCK);
        ssize_t got = recv(conn, request + n, sizeof(request) - 1 - n, MSG_DONTWAIT);
        n += got > 0 ? (size_t)got : 0;
        request[n] = '\0';
    }
    assert_non_null(strstr(request, "GET /health HTTP/1.1\r\n"));
    assert_non_null(strstr(request, "Host: " KEY "\r\n"));
    static const char reply[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
    assert_int_equal(send(conn, reply, sizeof(reply) - 1, 0), sizeof(reply) - 1);
    wait_for(&g);
    assert_string_equal(g.body, "{}");
    assert_int_equal(asked, 2);
    close(conn);
    close(fd);
    unlink(socket_path);
    rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_requests, setup, teardown),
        cmocka_unit_test_setup_teardown(test_connections_are_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(test_single_flight, setup, teardown),
        cmocka_unit_test_setup_teardown(test_retries, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failures, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bodies_are_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cancel, setup, teardown),
        cmocka_unit_test_setup_teardown(test_flood, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dmsg_urls, setup, teardown),
    };
    return crypto_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
