/*
 * Names, asked of a name server of the test's: one that answers, one that says no, and one that says nothing.
 */
#include "compat-http/name_lookup.h"

#include <arpa/inet.h>
#include <event2/dns.h>
#include <event2/dns_struct.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/err.h"
#include "compat-http/kv_redis.h"
#include "tests/unit/compat-http/service_rig.h"

static int fd; /* of the name server */
static struct evdns_server_port *server;
static char server_addr[40];
static unsigned asked;
static enum { ANSWERS, REFUSES, SILENT } manner;

static void on_question(struct evdns_server_request *q, void *arg)
{
    struct in_addr a = {htonl(INADDR_LOOPBACK)};
    (void)arg;
    asked++;
    if (manner == SILENT) {
        evdns_server_request_drop(q);
        return;
    }
    bool four = q->questions[0]->type == EVDNS_TYPE_A;
    if (manner == ANSWERS && four)
        evdns_server_request_add_a_reply(q, q->questions[0]->name, 1, &a, 60);
    evdns_server_request_respond(q, manner == REFUSES ? 3 : 0);
}

static int setup(void **state)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(at);
    rig_setup(state);
    fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &len), 0);
    snprintf(server_addr, sizeof(server_addr), "127.0.0.1:%d", ntohs(at.sin_port));
    server = evdns_add_server_port_with_base(drive_loop_base(rig.drive), fd, 0, on_question, NULL);
    assert_non_null(server);
    asked = 0;
    return 0;
}

static int teardown(void **state)
{
    evdns_close_server_port(server);
    for (int i = 0; i < 10; i++)
        rig_turn(); /* what was cancelled */
    close(fd);
    return rig_teardown(state);
}

struct got {
    int calls, err;
    size_t n;
    char first[INET6_ADDRSTRLEN];
};

static void on_name(void *arg, int err, const char (*addr)[INET6_ADDRSTRLEN], size_t n)
{
    struct got *g = arg;
    g->calls++;
    g->err = err;
    g->n = n;
    if (n > 0)
        snprintf(g->first, sizeof(g->first), "%s", addr[0]);
}

static bool is_told(void *arg)
{
    return ((struct got *)arg)->calls > 0;
}

static struct got look_up(struct name_lookup *l, const char *host)
{
    struct got g = {0};
    name_lookup_start(l, host, on_name, &g);
    rig_wait(is_told, &g);
    return g;
}

static void test_names(void **state)
{
    (void)state;
    struct name_lookup *l = name_lookup_new(rig.drive, server_addr);
    struct got g = look_up(l, "192.0.2.7");
    assert_true(g.err == 0 && g.n == 1);
    assert_string_equal(g.first, "192.0.2.7");
    g = look_up(l, "::1");
    assert_string_equal(g.first, "::1");
    g = look_up(l, "localhost");
    assert_string_equal(g.first, "127.0.0.1");
    assert_int_equal(asked, 0);
    manner = ANSWERS;
    g = look_up(l, "redis.example.org");
    assert_true(g.err == 0 && g.calls == 1 && asked > 0);
    assert_string_equal(g.first, "127.0.0.1");
    manner = REFUSES;
    g = look_up(l, "nobody.example.org");
    assert_true(g.err == ERR_NOT_FOUND && g.n == 0);
    name_lookup_free(l);
}

static bool is_asked(void *arg)
{
    return asked > *(unsigned *)arg;
}

/* Nobody is told of what was cancelled, replaced, or under way at the end. */
static void test_cancelled(void **state)
{
    (void)state;
    struct got a = {0}, b = {0};
    unsigned none = 0;
    struct name_lookup *l = name_lookup_new(rig.drive, server_addr);
    manner = SILENT;
    name_lookup_start(l, "one.example.org", on_name, &a);
    rig_wait(is_asked, &none);
    name_lookup_start(l, "192.0.2.7", on_name, &b);
    assert_true(a.calls == 0 && b.calls == 1);
    name_lookup_start(l, "two.example.org", on_name, &a);
    name_lookup_cancel(l);
    name_lookup_start(l, "three.example.org", on_name, &a);
    name_lookup_free(l);
    for (int i = 0; i < 20; i++)
        rig_turn();
    assert_int_equal(a.calls, 0);
}

/* ---- Redis behind a name ---- */

static struct kv *redis_at(const char *host)
{
    static char url[80];
    struct kv *kv;
    snprintf(url, sizeof(url), "redis://%s:%d", host, redis_rig.port != 0 ? redis_rig.port : 1);
    struct kv_redis_cfg cfg = {
        .drive = rig.drive, .env = &rig.env.env, .url = url, .name_server = server_addr};
    drive_loop_now(rig.drive);
    assert_int_equal(kv_redis_open(&kv, &cfg), 0);
    return kv;
}

static bool is_ready(void *arg)
{
    struct kv_stat st;
    kv_stat(arg, &st);
    return st.ready;
}

static void test_redis_behind_a_name(void **state)
{
    (void)state;
    redis_start();
    manner = ANSWERS;
    struct kv *kv = redis_at("redis.example.org");
    rig_wait(is_ready, kv);
    kv_close(kv);
}

struct written {
    int calls, err;
};

static void on_written(void *arg, const struct kv_answer *a)
{
    struct written *w = arg;
    w->calls++;
    w->err = a->err;
}

static bool is_written(void *arg)
{
    return ((struct written *)arg)->calls > 0;
}

/* A name server that says nothing: calls end by their own deadline, and the loop turned meanwhile. */
static void test_redis_behind_a_slow_name_server(void **state)
{
    (void)state;
    struct written w = {0};
    struct kv_op op = {.cmd = KV_SET, .key = KV_STR("k"), .value = KV_STR("v")};
    unsigned none = 0;
    manner = SILENT;
    struct kv *kv = redis_at("redis.example.org");
    assert_int_equal(kv_write(kv, &op, 1, on_written, &w), 0);
    rig_wait(is_asked, &none);
    assert_int_equal(w.calls, 0);
    rig_wait(is_written, &w);
    assert_int_equal(w.err, ERR_TIMEOUT);
    kv_close(kv);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_names, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cancelled, setup, teardown),
        cmocka_unit_test_setup_teardown(test_redis_behind_a_name, setup, teardown),
        cmocka_unit_test_setup_teardown(test_redis_behind_a_slow_name_server, setup, teardown),
    };
    return crypto_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
