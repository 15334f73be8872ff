/*
 * The net of applications against a scripted node: a thread that answers control packets.
 */
#include "node/app_net.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/err.h"
#include "tests/unit/node/tmpdir.h"
#include "tests/unit/vectors.h"

#define WAIT_MS 10000
#define PK      "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"

static struct tmpdir home;
static struct app_net *net;
static struct pubkey peer;
static int listen_fd = -1, node_fd = -1; /* the node's ends */

/* ---- the node ---- */

/* The next request; the caller's reference. */
static json_t *node_hear(const char *cmd)
{
    static char text[4096];
    struct pollfd p = {node_fd, POLLIN, 0};
    assert_int_equal(poll(&p, 1, WAIT_MS), 1);
    ssize_t n = recv(node_fd, text, sizeof(text), 0);
    assert_true(n > 0);
    json_t *o = json_loadb(text, (size_t)n, 0, NULL);
    assert_string_equal(vec_str(o, "cmd"), cmd);
    return o;
}

static void node_say(json_t *o, int fd)
{
    char *text = json_dumps(o, JSON_COMPACT);
    union {
        char buf[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } u;
    struct iovec iov = {text, strlen(text)};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    memset(&u, 0, sizeof(u));
    if (fd >= 0) {
        msg.msg_control = u.buf;
        msg.msg_controllen = sizeof(u.buf);
        struct cmsghdr *cm = CMSG_FIRSTHDR(&msg);
        cm->cmsg_level = SOL_SOCKET;
        cm->cmsg_type = SCM_RIGHTS;
        cm->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(cm), &fd, sizeof(int));
    }
    assert_int_equal(sendmsg(node_fd, &msg, MSG_NOSIGNAL), (ssize_t)iov.iov_len);
    if (fd >= 0)
        close(fd);
    free(text);
    json_decref(o);
}

/* Hear cmd, and give back its id. */
static json_int_t node_id(const char *cmd)
{
    json_t *o = node_hear(cmd);
    json_int_t id = vec_int(o, "id");
    json_decref(o);
    return id;
}

static void *first_answer(void *arg)
{
    node_fd = accept(listen_fd, NULL, NULL);
    json_int_t id = node_id("status");
    node_say(json_pack("{s:I, s:b, s:s}", "id", id, "ok", 1, "public_key", PK), -1);
    return arg;
}

static int setup(void **state)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    pthread_t thread;
    (void)state;
    if (crypto_init() < 0 || pubkey_from_hex(&peer, PK, strlen(PK)) < 0)
        return -1;
    tmpdir_make(&home);
    snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", tmpdir_file(&home, "control"));
    listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listen_fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    assert_int_equal(listen(listen_fd, 1), 0);
    struct tool_opts opts = {.control = sa.sun_path};
    assert_int_equal(pthread_create(&thread, NULL, first_answer, NULL), 0);
    assert_int_equal(app_net_open(&net, &opts, TOOL_SESSION), 0);
    pthread_join(thread, NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    app_net_close(net);
    if (node_fd >= 0)
        close(node_fd);
    node_fd = -1;
    close(listen_fd);
    tmpdir_remove(&home);
    return 0;
}

/* ---- what the application sees ---- */

struct seen {
    int n, fd, err, exit;
    uint16_t port;
    struct pubkey pk;
    char text[APP_NET_TEXT];
    size_t ip_n;
};

static void note(struct seen *s, const struct app_net_failure *f)
{
    s->n++;
    s->err = f != NULL ? f->err : 0;
    s->exit = f != NULL ? f->exit : 0;
    snprintf(s->text, sizeof(s->text), "%s", f != NULL ? f->text : "");
}

static void on_dialled(void *arg, int fd, const struct app_net_failure *f)
{
    struct seen *s = arg;
    s->fd = fd;
    note(s, f);
}

static void on_stream(void *arg, int fd, const struct pubkey *pk, uint16_t port)
{
    struct seen *s = arg;
    s->fd = fd;
    s->pk = *pk;
    s->port = port;
    note(s, NULL);
}

static void on_listen(void *arg, uint16_t port, const struct app_net_failure *f)
{
    struct seen *s = arg;
    s->port = port;
    note(s, f);
}

static void on_ip(void *arg, const uint8_t *ip, size_t n, const struct pubkey *server,
                  const struct app_net_failure *f)
{
    struct seen *s = arg;
    s->ip_n = n;
    if (n > 0) {
        s->pk = *server;
        memcpy(s->text, ip, n);
    }
    note(s, f);
}

static int pipe_end(int *other)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    *other = fds[1];
    return fds[0];
}

static bool is_closed(int fd)
{
    struct pollfd p = {fd, POLLIN, 0};
    char c;
    return poll(&p, 1, WAIT_MS) == 1 && read(fd, &c, 1) == 0;
}

static void test_dials_out_of_order(void **state)
{
    struct seen a = {0}, b = {0};
    uint64_t ha, hb;
    int other;
    (void)state;
    assert_true(pubkey_equal(&net->self, &peer));
    net->timeout_ms = 1234;
    assert_int_equal(app_net_dial(net, &peer, 80, on_dialled, &a, &ha), 0);
    assert_int_equal(app_net_dial(net, &peer, 81, on_dialled, &b, &hb), 0);
    json_t *first = node_hear("dial");
    assert_int_equal(vec_int(first, "port"), 80);
    assert_int_equal(vec_int(first, "timeout_ms"), 1234);
    assert_string_equal(vec_str(first, "pk"), PK);
    json_int_t id_b = node_id("dial");
    node_say(json_pack("{s:I, s:b}", "id", id_b, "ok", 1), pipe_end(&other));
    node_say(json_pack("{s:I, s:b, s:s, s:i, s:i}", "id", vec_int(first, "id"), "ok", 0, "error",
                       "dial: nobody", "exit", 4, "code", ERR_DMSG_NO_LISTENER),
             -1);
    json_decref(first);
    while (a.n == 0 || b.n == 0)
        assert_int_equal(app_net_dispatch(net, WAIT_MS), 0);
    assert_int_equal(a.fd, -1);
    assert_int_equal(a.err, ERR_DMSG_NO_LISTENER);
    assert_int_equal(a.exit, 4);
    assert_string_equal(a.text, "dial: nobody");
    assert_true(b.fd >= 0);
    close(b.fd);
    assert_true(is_closed(other));
    close(other);
}

/* A node of another version: its numbers mean nothing, its exit codes do. */
static void test_foreign_numbers(void **state)
{
    static const int expected[] = {ERR_STATE,   ERR_STATE,   ERR_USAGE,   ERR_NOT_FOUND,
                                   ERR_REFUSED, ERR_TIMEOUT, ERR_NO_ROUTE};
    (void)state;
    for (int code = 2; code <= 6; code++) {
        struct seen s = {0};
        uint64_t h;
        assert_int_equal(app_net_dial(net, &peer, 80, on_dialled, &s, &h), 0);
        node_say(json_pack("{s:I, s:b, s:s, s:i, s:i}", "id", node_id("dial"), "ok", 0, "error",
                           "x", "exit", code, "code", -7777),
                 -1);
        while (s.n == 0)
            assert_int_equal(app_net_dispatch(net, WAIT_MS), 0);
        assert_int_equal(s.err, expected[code]);
    }
}

static void test_listen_and_cancel(void **state)
{
    struct seen life = {0}; /* streams and states */
    uint64_t h;
    int other;
    (void)state;
    assert_int_equal(app_net_listen(net, 80, on_stream, on_listen, &life, &h), 0);
    json_int_t id = node_id("listen");
    node_say(json_pack("{s:I, s:s, s:i}", "id", id, "event", "listening", "port", 80), -1);
    while (life.n == 0)
        assert_int_equal(app_net_dispatch(net, WAIT_MS), 0);
    assert_int_equal(life.port, 80);
    node_say(json_pack("{s:I, s:s, s:s, s:i}", "id", id, "event", "accepted", "public_key", PK,
                       "port", 49153),
             pipe_end(&other));
    while (life.n == 1)
        assert_int_equal(app_net_dispatch(net, WAIT_MS), 0);
    assert_true(pubkey_equal(&life.pk, &peer));
    assert_int_equal(life.port, 49153);
    close(life.fd);
    close(other);
    app_net_cancel(net, h);
    json_t *cancel = node_hear("cancel");
    assert_int_equal(vec_int(cancel, "target"), id);
    json_decref(cancel);
    /* what was under way is closed, and nobody is told */
    node_say(json_pack("{s:I, s:s, s:s, s:i}", "id", id, "event", "accepted", "public_key", PK,
                       "port", 49154),
             pipe_end(&other));
    assert_int_equal(app_net_dispatch(net, WAIT_MS), 0);
    assert_int_equal(life.n, 2);
    assert_true(is_closed(other));
    close(other);
    app_net_cancel(net, h);
    app_net_cancel(net, 0);
}

struct forward_node {
    const char *path, *failure;
    json_int_t id;
};

static void *answer_forward(void *arg)
{
    struct forward_node *f = arg;
    f->id = node_id("forward");
    if (f->path != NULL)
        node_say(json_pack("{s:I, s:s, s:s}", "id", f->id, "event", "forwarding", "path", f->path),
                 -1);
    else
        node_say(json_pack("{s:I, s:b, s:s, s:i, s:i}", "id", f->id, "ok", 0, "error", f->failure,
                           "exit", 1, "code", ERR_LIMIT),
                 -1);
    return NULL;
}

static int forward(struct forward_node *f, char path[APP_NET_PATH], uint64_t *h)
{
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, answer_forward, f), 0);
    int rc = app_net_forward(net, &peer, 80, path, h);
    pthread_join(thread, NULL);
    return rc;
}

static void test_forward(void **state)
{
    char path[APP_NET_PATH];
    uint64_t h = 0;
    struct forward_node good = {.path = "/run/x/1"}, bad = {.failure = "too many"};
    (void)state;
    assert_int_equal(forward(&good, path, &h), 0);
    assert_string_equal(path, "/run/x/1");
    assert_int_equal(app_net_forward_failure(net, h)->err, 0);
    node_say(json_pack("{s:I, s:s, s:s, s:i, s:i}", "id", good.id, "event", "failed", "error",
                       "dial: timed out", "exit", 5, "code", ERR_TIMEOUT),
             -1);
    const struct app_net_failure *f = app_net_forward_failure(net, h);
    assert_int_equal(f->err, ERR_TIMEOUT);
    assert_string_equal(f->text, "dial: timed out");
    assert_int_equal(app_net_forward_failure(net, h)->err, 0); /* told once */
    assert_int_equal(forward(&bad, path, &h), ERR_LIMIT);
    assert_string_equal(app_net_failure(net)->text, "too many");
}

static void test_ip(void **state)
{
    struct seen s = {0};
    uint64_t h;
    (void)state;
    assert_int_equal(app_net_lookup_ip(net, NULL, on_ip, &s, &h), 0);
    node_say(json_pack("{s:I, s:b, s:s, s:s}", "id", node_id("ip"), "ok", 1, "ip", "10.1.2.3",
                       "server", PK),
             -1);
    while (s.n == 0)
        assert_int_equal(app_net_dispatch(net, WAIT_MS), 0);
    assert_int_equal(s.ip_n, 4);
    assert_int_equal(app_net_lookup_ip(net, &peer, on_ip, &s, &h), 0);
    json_t *o = node_hear("ip");
    assert_string_equal(vec_str(o, "server"), PK);
    node_say(json_pack("{s:I, s:b, s:s}", "id", vec_int(o, "id"), "ok", 1, "ip", "rubbish"), -1);
    json_decref(o);
    while (s.n == 1)
        assert_int_equal(app_net_dispatch(net, WAIT_MS), 0);
    assert_int_equal(s.err, ERR_FORMAT);
}

static void test_limit(void **state)
{
    struct seen s = {0};
    uint64_t h;
    (void)state;
    for (int i = 0; i < APP_NET_REQUESTS; i++) {
        assert_int_equal(app_net_dial(net, &peer, 80, on_dialled, &s, &h), 0);
        (void)node_id("dial");
    }
    assert_int_equal(app_net_dial(net, &peer, 80, on_dialled, &s, &h), ERR_LIMIT);
    assert_int_equal(s.n, 0);
}

static void test_node_gone(void **state)
{
    struct seen dial = {0}, life = {0}, ip = {0};
    uint64_t h;
    (void)state;
    assert_int_equal(app_net_dial(net, &peer, 80, on_dialled, &dial, &h), 0);
    assert_int_equal(app_net_listen(net, 80, on_stream, on_listen, &life, &h), 0);
    assert_int_equal(app_net_lookup_ip(net, NULL, on_ip, &ip, &h), 0);
    for (int i = 0; i < 3; i++) {
        char text[1000];
        assert_true(recv(node_fd, text, sizeof(text), 0) > 0);
    }
    close(node_fd);
    node_fd = -1;
    assert_int_equal(app_net_dispatch(net, WAIT_MS), ERR_RESET);
    assert_int_equal(dial.n + life.n + ip.n, 3);
    assert_int_equal(dial.err, ERR_RESET);
    assert_int_equal(life.err, ERR_RESET);
    assert_int_equal(ip.err, ERR_RESET);
    assert_int_equal(app_net_dial(net, &peer, 80, on_dialled, &dial, &h), ERR_RESET);
    assert_int_equal(app_net_dispatch(net, 0), ERR_RESET);
    assert_int_equal(dial.n, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_dials_out_of_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_foreign_numbers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_listen_and_cancel, setup, teardown),
        cmocka_unit_test_setup_teardown(test_forward, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ip, setup, teardown),
        cmocka_unit_test_setup_teardown(test_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_node_gone, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
