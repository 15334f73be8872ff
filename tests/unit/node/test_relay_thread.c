/*
 * The relay's thread with real sockets: start, stop, what cannot be listened on, own and foreign
 * connections.
 */
#include "node/relay_thread.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/addr.h"
#include "base/err.h"
#include "base/log.h"
#include "tests/unit/vectors.h"
#include "transport/client.h"
#include "transport/drive_tcp.h"

static struct pk_pool *pk;
static struct buf_budget budget;
static struct relay_thread_cfg cfg;
static atomic_uint changes;
static unsigned workers;

static void on_changed(void *arg)
{
    (void)arg;
    atomic_fetch_add(&changes, 1);
}

static int setup(void **state)
{
    char why[64];
    (void)state;
    assert_int_equal(crypto_init(), 0);
    assert_int_equal(log_set_levels("error", why, sizeof why), 0);
    budget = (struct buf_budget){.cap = 64 << 20};
    pk = pk_pool_new(1, 64);
    cfg = (struct relay_thread_cfg){.listen = "127.0.0.1:0",
                                    .pk_pool = pk,
                                    .budget = &budget,
                                    .workers = workers,
                                    .changed = on_changed};
    return crypto_keypair_from_seed(&cfg.sk, &cfg.self, (const uint8_t *)"relay", 5);
}

static int teardown(void **state)
{
    (void)state;
    pk_pool_free(pk);
    return 0;
}

static int dial(const struct relay_thread *t)
{
    struct addr_hostport at;
    const char *addr = relay_thread_addr(t);
    assert_int_equal(addr_hostport_parse(&at, addr, strlen(addr), ADDR_STRICT, NULL), 0);
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(at.port)};
    assert_int_equal(inet_pton(AF_INET, at.host, &sa.sin_addr), 1);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    return fd;
}

static bool ends(int fd)
{
    char c[64];
    struct pollfd p = {fd, POLLIN, 0};
    while (poll(&p, 1, 30000) == 1) {
        if (recv(fd, c, sizeof c, MSG_DONTWAIT) <= 0)
            return true;
    }
    return false;
}

static void test_start_and_stop(void **state)
{
    struct relay_thread *t = NULL;
    struct relay_stat st;
    (void)state;
    assert_int_equal(relay_thread_start(&t, &cfg), 0);
    assert_int_equal(strncmp(relay_thread_addr(t), "127.0.0.1:", 10), 0);
    assert_string_not_equal(relay_thread_addr(t), "127.0.0.1:0");
    relay_thread_stat(t, &st);
    assert_int_equal(st.sessions, 0);
    relay_thread_stop(t);
    relay_thread_stop(NULL);
}

static void test_port_in_use(void **state)
{
    struct relay_thread *t = NULL, *second = NULL;
    (void)state;
    assert_int_equal(relay_thread_start(&t, &cfg), 0);
    struct relay_thread_cfg other = cfg;
    other.listen = relay_thread_addr(t);
    assert_int_equal(relay_thread_start(&second, &other), -EADDRINUSE);
    assert_null(second);
    close(dial(t));
    char addr[64];
    snprintf(addr, sizeof addr, "%s", relay_thread_addr(t));
    relay_thread_stop(t);
    other.listen = addr; /* and free again at once */
    assert_int_equal(relay_thread_start(&second, &other), 0);
    relay_thread_stop(second);
}

static void test_addresses_that_are_not_ours(void **state)
{
    struct relay_thread *t = NULL;
    struct relay_thread_cfg other = cfg;
    (void)state;
    other.listen = "192.0.2.1:1";
    assert_int_equal(relay_thread_start(&t, &other), -EADDRNOTAVAIL);
    other.listen = "no-such-host.invalid:1";
    assert_int_equal(relay_thread_start(&t, &other), ERR_NOT_FOUND);
    other.listen = "nonsense";
    assert_int_equal(relay_thread_start(&t, &other), ERR_FORMAT);
    assert_null(t);
}

/* Whoever is connected hears the end; what was posted last is neither lost nor leaked. */
static void test_stop_with_connections(void **state)
{
    struct relay_thread *t = NULL;
    (void)state;
    assert_int_equal(relay_thread_start(&t, &cfg), 0);
    int silent = dial(t), garbage = dial(t), own = relay_thread_pair(t);
    assert_true(own >= 0);
    char noise[512];
    memset(noise, 0xa5, sizeof noise);
    assert_int_equal(send(garbage, noise, sizeof noise, MSG_NOSIGNAL), sizeof noise);
    assert_true(ends(garbage)); /* garbage is no handshake */
    int late = relay_thread_pair(t);
    relay_thread_stop(t);
    assert_true(ends(silent) && ends(own) && ends(late));
    close(silent);
    close(garbage);
    close(own);
    close(late);
}

/* ---- two relays on threads of their own, linked ---- */

static bool linked(struct relay_thread *t, const struct pubkey *to)
{
    struct relay_peer_info info[4];
    for (int i = 0; i < 3000; i++) {
        size_t have = relay_thread_peers(t, info, 4);
        if (have == 1 && info[0].out && info[0].in && pubkey_equal(&info[0].pk, to))
            return true;
        usleep(10 * 1000);
    }
    return false;
}

static void test_linked_relays(void **state)
{
    struct relay_thread *a = NULL, *b = NULL;
    struct relay_thread_cfg other = cfg;
    struct relay_server at_a = {.pk = cfg.self}, at_b = {0};
    struct relay_stat st;
    (void)state;
    assert_int_equal(relay_thread_start(&a, &cfg), 0);
    snprintf(at_a.addr, sizeof at_a.addr, "%s", relay_thread_addr(a));
    other.peers = &at_a; /* b is told by its configuration, a while it runs */
    other.n_peers = 1;
    assert_int_equal(crypto_keypair_from_seed(&other.sk, &other.self, (const uint8_t *)"b", 1), 0);
    assert_int_equal(relay_thread_start(&b, &other), 0);
    at_b.pk = other.self;
    snprintf(at_b.addr, sizeof at_b.addr, "%s", relay_thread_addr(b));
    assert_true(relay_thread_found(a, &at_b, 1));
    assert_true(linked(a, &at_b.pk) && linked(b, &at_a.pk));
    relay_thread_stat(a, &st);
    assert_true(st.peers == 1 && st.peer_links == 2 && st.announce_ok == 1);
    assert_true(relay_thread_found(b, NULL, 0)); /* on its way when the thread ends */
    relay_thread_stop(b);
    for (int i = 0; i < 3000 && st.peers > 0; i++) {
        relay_thread_stat(a, &st);
        usleep(10 * 1000);
    }
    assert_int_equal(st.peers, 0);
    relay_thread_stop(a);
}

/* ---- a client through the socketpair, as in a node ---- */

struct own_client {
    struct drive_loop *drive;
    struct client *c;
};

static void on_sessions(void *arg)
{
    struct own_client *o = arg;
    struct client_stat st;
    client_stat(o->c, &st);
    if (st.sessions_up == 1)
        drive_loop_stop(o->drive);
}

static void give_up(struct loop_timer *t)
{
    (void)t;
    fail_msg("no session within 30 s");
}

static void test_own_client(void **state)
{
    struct relay_thread *t = NULL;
    struct own_client o;
    struct loop_timer limit = {.fn = give_up};
    struct relay_stat st = {0};
    (void)state;
    atomic_store(&changes, 0);
    assert_int_equal(relay_thread_start(&t, &cfg), 0);
    o.drive = drive_loop_new(NULL);
    struct loop *loop = drive_loop_loop(o.drive);
    struct env *env = drive_env_new(pk, o.drive);
    struct bufpool *pool = bufpool_new(&budget);
    struct drive_tcp *tcp = drive_tcp_new(o.drive, pool);
    struct client_cfg cc = {.env = env,
                            .loop = loop,
                            .pool = pool,
                            .carrier = drive_tcp_carrier(tcp),
                            .self = cfg.self,
                            .sk = cfg.sk,
                            .hooks = {.arg = &o, .sessions_changed = on_sessions}};
    assert_int_equal(client_new(&o.c, &cc), 0);
    struct conn *conn = drive_tcp_adopt(tcp, relay_thread_pair(t), "own relay");
    assert_int_equal(client_attach(o.c, &cfg.self, conn), 0);
    loop_timer_set(loop, &limit, drive_loop_now(o.drive) + 30 * NS_PER_S);
    assert_int_equal(drive_loop_run(o.drive), 0);
    loop_timer_cancel(loop, &limit);
    for (int i = 0; i < 3000 && atomic_load(&changes) == 0; i++)
        usleep(10 * 1000);
    assert_true(atomic_load(&changes) > 0);
    relay_thread_stat(t, &st);
    assert_int_equal(st.sessions, 1);
    client_free(o.c);
    loop_turn(loop, drive_loop_now(o.drive));
    drive_tcp_free(tcp);
    drive_env_free(env);
    bufpool_free(pool);
    drive_loop_free(o.drive);
    relay_thread_stop(t);
    assert_int_equal(budget.used, 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

static size_t handshakes(struct relay_thread *t)
{
    struct guard_stat st;
    guard_stat(relay_thread_guard(t), &st);
    return st.handshakes;
}

static void wait_handshakes(struct relay_thread *t, size_t n)
{
    for (int i = 0; i < 20000 && handshakes(t) != n; i++)
        poll(NULL, 0, 1);
    assert_int_equal(handshakes(t), n);
}

/* With every handshake there may be under way others wait in the system's queue, and are not refused.
 * Of one worker: another one may accept the very moment that the last place is taken. */
static void test_back_pressure(void **state)
{
    (void)state;
    struct relay_thread *t;
    struct relay_thread_cfg two = cfg;
    struct guard_stat st;
    int fd[6];
    two.guard.max_handshakes = 2;
    assert_int_equal(relay_thread_start(&t, &two), 0);
    for (int i = 0; i < 6; i++) {
        fd[i] = dial(t);
        assert_true(fd[i] >= 0);
    }
    for (int i = 0; i < 6; i += 2) { /* as soon as two have gone the next two are let in */
        wait_handshakes(t, 2);
        close(fd[i]);
        close(fd[i + 1]);
    }
    wait_handshakes(t, 0);
    guard_stat(relay_thread_guard(t), &st);
    assert_int_equal(st.refused_handshakes + st.refused_links, 0);
    relay_thread_stop(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_start_and_stop),
        TEST(test_port_in_use),
        TEST(test_addresses_that_are_not_ours),
        TEST(test_stop_with_connections),
        TEST(test_linked_relays),
        TEST(test_own_client),
    };
    const struct CMUnitTest alone[] = {TEST(test_back_pressure)};
    workers = 1;
    int failed = cmocka_run_group_tests(alone, NULL, NULL);
    for (workers = 1; workers <= 3; workers += 2)
        failed +=
            cmocka_run_group_tests_name(workers == 1 ? "one worker" : "workers", tests, NULL, NULL);
    return failed;
}
