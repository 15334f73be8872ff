/*
 * Whole nodes in this process: start and stop, failures at every stage of the start, and an end
 * while requests of every kind are under way.
 */
#include "node/node.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/err.h"
#include "base/log.h"
#include "node/keyfile.h"
#include "node/node_int.h"
#include "tests/unit/node/tmpdir.h"
#include "tests/unit/vectors.h"

struct running {
    struct node *n;
    pthread_t thread;
    int rc, fd; /* the end of a control connection */
    struct node_cfg cfg;
    struct addr_peer boot;
};

static struct tmpdir dir;

static int setup(void **state)
{
    char why[64];
    (void)state;
    tmpdir_make(&dir);
    assert_int_equal(crypto_init(), 0);
    return log_set_levels("error", why, sizeof why);
}

static int teardown(void **state)
{
    (void)state;
    tmpdir_remove(&dir);
    return 0;
}

static struct node_cfg some_cfg(void)
{
    struct node_cfg cfg = {
        .pk_threads = 1, .full = true, .publish = true, .lock = true, .parts = node_parts};
    keyfile_fresh(&cfg.sk, &cfg.pk);
    return cfg;
}

static void *serve(void *arg)
{
    struct running *r = arg;
    r->rc = node_run(r->n);
    return NULL;
}

/* With a control connection of the test's. */
static void start(struct running *r)
{
    char why[NODE_WHY] = "";
    int fds[2];
    if (node_new(&r->n, &r->cfg, why) != 0)
        fail_msg("%s", why);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(node_control_adopt(r->n, fds[0]), 0);
    r->fd = fds[1];
    assert_int_equal(pthread_create(&r->thread, NULL, serve, r), 0);
}

static void finish(struct running *r)
{
    node_stop(r->n);
    pthread_join(r->thread, NULL);
    assert_int_equal(r->rc, 0);
    node_free(r->n);
    close(r->fd);
}

static json_t *ask(int fd, const char *text)
{
    static char packet[CONTROL_PACKET];
    struct pollfd p = {fd, POLLIN, 0};
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
    assert_int_equal(poll(&p, 1, 60000), 1);
    ssize_t n = recv(fd, packet, sizeof packet, 0);
    assert_true(n > 0);
    json_t *o = json_loadb(packet, (size_t)n, 0, NULL);
    assert_non_null(o);
    return o;
}

/* ---- life ---- */

static void test_life(void **state)
{
    struct running r = {.cfg = some_cfg()};
    char pk[PUBKEY_HEX + 1];
    (void)state;
    r.cfg.listen = "127.0.0.1:0";
    r.cfg.store_dir = tmpdir_file(&dir, "store");
    r.cfg.control = tmpdir_file(&dir, "control");
    start(&r);
    assert_string_equal(node_control_path(r.n), r.cfg.control);
    assert_string_equal(node_public_addr(r.n), node_relay_addr(r.n));
    json_t *o = ask(r.fd, "{\"cmd\": \"status\"}");
    assert_string_equal(json_string_value(json_object_get(o, "public_key")),
                        pubkey_hex(pk, &r.cfg.pk));
    assert_string_equal(json_string_value(json_object_get(o, "role")), "full+relay");
    json_decref(o);
    json_decref(ask(r.fd, "{\"cmd\": \"wait\"}")); /* a session to its own relay */
    finish(&r);
    assert_int_equal(access(tmpdir_file(&dir, "control"), F_OK), -1);
    start(&r); /* everything was given back */
    finish(&r);
}

static void test_stop_many_times(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) {
        struct running r = {.cfg = some_cfg()};
        start(&r);
        for (int k = 0; k < i; k++)
            node_stop(r.n);
        finish(&r);
    }
}

static void test_free_without_running(void **state)
{
    struct node *n;
    struct node_cfg cfg = some_cfg();
    char why[NODE_WHY];
    (void)state;
    cfg.listen = "127.0.0.1:0";
    assert_int_equal(node_new(&n, &cfg, why), 0);
    node_free(n);
    node_free(NULL);
}

/* "Any address" is not what is published. */
static void test_public_address(void **state)
{
    struct node *n;
    struct node_cfg cfg = some_cfg();
    char why[NODE_WHY];
    (void)state;
    cfg.listen = "0.0.0.0:0";
    assert_int_equal(node_new(&n, &cfg, why), 0);
    assert_int_equal(strncmp(node_relay_addr(n), "0.0.0.0:", 8), 0);
    if (strcmp(node_public_addr(n), node_relay_addr(n)) == 0) {
        /* only on a machine that has no way out at all */
        int fd = socket(AF_INET, SOCK_DGRAM, 0);
        struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9)};
        to.sin_addr.s_addr = htonl(0xc0000201);
        assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), -1);
        close(fd);
    }
    node_free(n);
    cfg.public_address = "relay.example:99";
    assert_int_equal(node_new(&n, &cfg, why), 0);
    assert_string_equal(node_public_addr(n), "relay.example:99");
    node_free(n);
}

/* ---- failures ---- */

/* Each stage fails in turn: one line that names the thing, and everything before is given back. */
static void test_failures(void **state)
{
    struct node *first, *n = NULL;
    struct node_cfg cfg = some_cfg(), other = some_cfg();
    char why[NODE_WHY], pk[PUBKEY_HEX + 1];
    (void)state;
    cfg.listen = "127.0.0.1:0";
    cfg.control = tmpdir_file(&dir, "control");
    assert_int_equal(node_new(&first, &cfg, why), 0);

    assert_int_equal(node_new(&n, &cfg, why), ERR_BUSY); /* the key */
    assert_non_null(strstr(why, pubkey_hex(pk, &cfg.pk)));
    assert_non_null(strstr(why, "another node"));

    tmpdir_write(&dir, "file", "x", 0600); /* the store */
    other.store_dir = tmpdir_file(&dir, "file");
    assert_true(node_new(&n, &other, why) < 0);
    assert_non_null(strstr(why, other.store_dir));
    other.store_dir = NULL;

    other.listen = node_relay_addr(first); /* the port */
    assert_int_equal(node_new(&n, &other, why), -EADDRINUSE);
    assert_non_null(strstr(why, other.listen));
    other.listen = "127.0.0.1:0";

    other.control = cfg.control; /* the socket */
    assert_int_equal(node_new(&n, &other, why), ERR_BUSY);
    assert_non_null(strstr(why, other.control));
    other.control = tmpdir_file(&dir, "file");
    assert_int_equal(node_new(&n, &other, why), ERR_EXISTS);
    assert_non_null(strstr(why, other.control));
    other.control = "/proc/none/control";
    assert_true(node_new(&n, &other, why) < 0);
    assert_non_null(strstr(why, other.control));

    assert_null(n);
    other.control = NULL; /* nothing of all that is left */
    assert_int_equal(node_new(&n, &other, why), 0);
    node_free(n);
    node_free(first);
}

/* ---- the end, with requests under way ---- */

static void say(int fd, const char *text)
{
    (void)send(fd, text, strlen(text), MSG_NOSIGNAL);
}

/* Every command that takes time, to keys that are there and to some that are not. */
static void ask_everything(int fd, const char *there)
{
    static const char none[] = "02a49bc0aa1b5b78f638e9189be4ed095bac5d6839c828465a8350f80ac07629c0";
    static const char *const forms[] = {
        "{\"cmd\": \"wait\", \"for\": \"dht\"}",
        "{\"cmd\": \"dht.put\", \"salt\": \"s\", \"value_base64\": \"eA==\"}",
        "{\"cmd\": \"dht.list\"}",
        "{\"cmd\": \"listen\", \"port\": 0}",
        "{\"cmd\": \"entry.publish\"}",
        "{\"cmd\": \"ip\"}",
    };
    static const char *const of_key[] = {
        "{\"cmd\": \"dht.get\", \"salt\": \"s\", \"network\": true, \"pk\": \"%s\"}",
        "{\"cmd\": \"entry.get\", \"network\": true, \"pk\": \"%s\"}",
        "{\"cmd\": \"dht.lookup\", \"trace\": true, \"pk\": \"%s\"}",
        "{\"cmd\": \"dht.sync\", \"pk\": \"%s\"}",
        "{\"cmd\": \"dht.why\", \"pk\": \"%s\"}",
        "{\"cmd\": \"dial\", \"port\": 5, \"pk\": \"%s\"}",
        "{\"cmd\": \"dial\", \"port\": 100, \"pk\": \"%s\"}",
        "{\"cmd\": \"ping\", \"pk\": \"%s\"}",
    };
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++)
        say(fd, forms[i]);
    for (size_t i = 0; i < 2 * sizeof of_key / sizeof of_key[0]; i++) {
        char text[256];
        const char *p = strstr(of_key[i / 2], "%s");
        snprintf(text, sizeof text, "%.*s%s%s", (int)(p - of_key[i / 2]), of_key[i / 2],
                 i % 2 == 0 ? there : none, p + 2);
        say(fd, text);
    }
}

/* A relay and a node that joins it. */
static void start_pair(struct running *a, struct running *b)
{
    *a = (struct running){.cfg = some_cfg()};
    a->cfg.listen = "127.0.0.1:0";
    start(a);
    *b = (struct running){.cfg = some_cfg()};
    const char *addr = node_relay_addr(a->n);
    b->boot.pk = a->cfg.pk;
    assert_int_equal(addr_hostport_parse(&b->boot.at, addr, strlen(addr), ADDR_STRICT, NULL), 0);
    b->cfg.bootstrap = &b->boot;
    b->cfg.n_bootstrap = 1;
    start(b);
}

static void end_with_requests(bool connection_first)
{
    for (unsigned ms = 0; ms < 60; ms += 12) {
        struct running a, b;
        char pk[PUBKEY_HEX + 1];
        start_pair(&a, &b);
        if (ms % 24 == 0) { /* otherwise there is not even a session yet */
            json_t *o = ask(b.fd, "{\"cmd\": \"wait\", \"for\": \"dht\"}");
            assert_true(json_is_true(json_object_get(o, "ok")));
            json_decref(o);
        }
        ask_everything(b.fd, pubkey_hex(pk, &a.cfg.pk));
        ask_everything(a.fd, pubkey_hex(pk, &b.cfg.pk));
        usleep(ms * 1000);
        if (connection_first) {
            shutdown(b.fd, SHUT_RDWR);
            shutdown(a.fd, SHUT_RDWR);
            usleep(20 * 1000);
        }
        finish(&b);
        finish(&a);
    }
}

static void test_node_ends_with_requests_under_way(void **state)
{
    (void)state;
    end_with_requests(false);
}

static void test_connection_ends_with_requests_under_way(void **state)
{
    (void)state;
    end_with_requests(true);
}

/* The relay goes while the other one asks it all sorts of things. */
static void test_relay_ends_first(void **state)
{
    struct running a, b;
    char pk[PUBKEY_HEX + 1];
    (void)state;
    start_pair(&a, &b);
    json_decref(ask(b.fd, "{\"cmd\": \"wait\", \"for\": \"dht\"}"));
    ask_everything(b.fd, pubkey_hex(pk, &a.cfg.pk));
    finish(&a);
    usleep(300 * 1000);
    finish(&b);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_life),
        TEST(test_stop_many_times),
        TEST(test_free_without_running),
        TEST(test_public_address),
        TEST(test_failures),
        TEST(test_node_ends_with_requests_under_way),
        TEST(test_connection_ends_with_requests_under_way),
        TEST(test_relay_ends_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
