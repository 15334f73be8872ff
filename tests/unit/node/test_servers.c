/*
 * Which relays a node knows: from its configuration, from records in the DHT, from entries.
 */
#include "node/node_int.h"

#include <unistd.h>

#include "tests/unit/kademlia/host_world.h"

static struct host_world hw;
static struct node n; /* node 1, as far as servers.c looks at it */

static bool take(void *arg, const struct kad_report *rep)
{
    (void)arg;
    return n.host != NULL && (resolve_report(n.resolve, rep) || servers_report(&n, rep));
}

static int setup(void **state)
{
    (void)state;
    host_world_init(&hw);
    memset(&n, 0, sizeof n);
    world_relay_start(&hw.w, 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (n.resolve != NULL) {
        resolve_set_host(n.resolve, NULL);
        n.host = NULL;
        hw_stop(&hw, 1); /* as node_free() does: what the client still asks must find its way */
        resolve_free(n.resolve);
        servers_free(&n);
    }
    host_world_free(&hw);
    return 0;
}

static const struct pubkey *key(int i)
{
    return &hw.w.client[i].key.pk;
}

/* Node 0, and node 1 with everything that servers.c needs. */
static void network(void)
{
    struct client_cfg cfg = world_cfg(&hw.w, 1);
    cfg.hooks = (struct client_hooks){.arg = &n, .find_server = servers_find};
    cfg.want = 2;
    hw_start(&hw, 0, NULL, NULL);
    world_up(&hw.w, 0, 1);
    hw_start(&hw, 1, key(0), &cfg);
    hw.node[1].take = take;
    hw_peers(&hw, 1, 1);
    n.cfg.pk = *key(1);
    n.loop = &hw.w.net.loop;
    n.env = &hw.w.env.env;
    n.client = hw.w.client[1].c;
    n.host = hw.node[1].h;
    n.store = hw.node[1].store;
    n.resolve = resolve_new(n.loop, n.env);
    resolve_set_host(n.resolve, n.host);
    list_init(&n.servers);
    list_init(&n.questions);
    servers_init(&n);
}

static struct pubkey some_key(int i)
{
    struct seckey sk;
    struct pubkey pk;
    char seed[32];
    snprintf(seed, sizeof seed, "server %d", i);
    assert_int_equal(crypto_keypair_from_seed(&sk, &pk, (uint8_t *)seed, strlen(seed)), 0);
    return pk;
}

static bool knows(const struct pubkey *pk, const char *addr)
{
    static struct client_session_info info[512];
    size_t have = client_sessions(n.client, info, 512);
    for (size_t i = 0; i < have; i++)
        if (pubkey_equal(&info[i].server, pk) && strcmp(info[i].addr, addr) == 0)
            return true;
    return false;
}

/* ---- learning ---- */

static void test_learn(void **state)
{
    struct pubkey a = some_key(1);
    (void)state;
    network();
    servers_learn(&n, &a, "one.example:1");
    servers_learn(&n, &a, "one.example:1");
    assert_int_equal(n.n_servers, 1);
    assert_true(knows(&a, "one.example:1"));
    servers_learn(&n, &a, "two.example:2"); /* it has moved */
    assert_int_equal(n.n_servers, 1);
    assert_true(knows(&a, "two.example:2"));
    servers_learn(&n, key(1), "me.example:1"); /* not oneself */
    assert_int_equal(n.n_servers, 1);
}

/* A private relay publishes an address that only its neighbours reach: what the configuration says
 * stays beside it, and in front (incident 41). */
static void test_seeds_stay(void **state)
{
    struct client_session_info info[8];
    (void)state;
    network();
    const struct pubkey *relay = &hw.w.relay_key[1].pk;
    world_relay_start(&hw.w, 1);
    servers_seed(&n, relay, "[2001:db8::1]:8081"); /* IPv6 is not there */
    servers_seed(&n, relay, world_addr(1));
    servers_seed(&n, relay, world_addr(1));
    servers_seed(&n, relay, "no address");
    world_up(&hw.w, 1, 2);
    assert_true(knows(relay, world_addr(1)));
    servers_learn_at(&n, relay, "10.0.0.1:8081", 5);
    servers_learn_at(&n, relay, "10.0.0.2:8081", 7);
    servers_learn_at(&n, relay, "10.0.0.3:8081", 6); /* older */
    assert_int_equal(n.n_servers, 1);
    world_run(&hw.w, 300 * NS_PER_S);
    assert_true(knows(relay, world_addr(1))); /* nothing was dialled again */
    uint64_t dials = hw.w.net.dials;
    world_relay_stop(&hw.w, 1);
    world_relay_start(&hw.w, 1);
    world_run(&hw.w, 2 * NS_PER_S);
    assert_int_equal(client_sessions(n.client, info, 8), 2);
    assert_true(info[0].up && info[1].up && knows(relay, world_addr(1)));
    assert_true(hw.w.net.dials - dials <= 2); /* what worked comes first */
    world_relay_stop(&hw.w, 1);
}

static void test_addresses_that_are_none(void **state)
{
    static const char *const bad[] = {"", "x", ":1", "x:0", "x:99999", "x:1\n", "x y:1", "[::1:1"};
    struct pubkey a = some_key(1);
    (void)state;
    network();
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        servers_learn(&n, &a, bad[i]);
    assert_int_equal(n.n_servers, 0);
}

/* Hundreds of invented relays push out neither the configured nor the connected ones. */
static void test_a_flood_of_records(void **state)
{
    static struct addr_peer configured;
    (void)state;
    network();
    configured.pk = some_key(1000);
    n.cfg.bootstrap = &configured;
    n.cfg.n_bootstrap = 1;
    servers_learn(&n, &configured.pk, "boot.example:1");
    servers_learn(&n, &hw.w.relay_key[0].pk, world_addr(0)); /* there is a session to this one */
    for (int i = 0; i < 600; i++) {
        struct pubkey pk = some_key(i);
        servers_learn(&n, &pk, "127.0.0.1:9");
    }
    assert_true(n.n_servers <= 128);
    world_run(&hw.w, 600 * NS_PER_S); /* the client forgets what was taken back */
    assert_true(knows(&configured.pk, "boot.example:1"));
    assert_true(knows(&hw.w.relay_key[0].pk, world_addr(0)));
    struct pubkey real = some_key(2000); /* and a new one still gets in */
    servers_learn(&n, &real, "real.example:1");
    assert_true(n.n_servers <= 128);
    assert_true(knows(&real, "real.example:1"));
    struct client_stat st;
    client_stat(n.client, &st);
    assert_int_equal(st.sessions_up, 1);
}

/* What was signed later wins, whatever comes later. */
static void test_the_newest_address_wins(void **state)
{
    struct pubkey a = some_key(1);
    (void)state;
    network();
    servers_learn_at(&n, &a, "two.example:2", 200);
    servers_learn_at(&n, &a, "one.example:1", 100);
    servers_learn(&n, &a, "zero.example:1");
    assert_true(knows(&a, "two.example:2"));
    servers_learn_at(&n, &a, "three.example:3", 300);
    assert_true(knows(&a, "three.example:3"));
}

/* ---- records in the DHT ---- */

/* Node 0 says that it is a relay; node 1 has one session where it wants two, and looks. */
static void test_pulled_from_a_peer(void **state)
{
    struct store_rec rec;
    (void)state;
    network();
    char text[256], hex[PUBKEY_HEX + 1];
    snprintf(text, sizeof text,
             "{\"address\":\"relay.example:7\",\"max_sessions\":1,\"pk\":\"%s\"}",
             pubkey_hex(hex, key(0)));
    assert_int_equal(hw_put(&hw, 0, "dmsg-server", text), 0);
    struct kad_id target = kad_target(key(0), "dmsg-server", 11);
    (void)n.store->ops->del(n.store, &target, ITEM_OWNER); /* it was pushed here already */
    assert_true(n.store->ops->get(n.store, &target, ITEM_OWNER, &rec) < 0);
    for (int i = 0; i < 30; i++) {
        servers_tick(&n);
        world_run(&hw.w, NS_PER_S);
    }
    assert_true(knows(key(0), "relay.example:7"));
    assert_int_equal(n.servers_op, 0);
}

static void test_records_that_are_none(void **state)
{
    static const char *const values[] = {
        "x", "[]", "{}", "{\"address\":5}", "{\"address\":\"x\"}", "{\"address\":\"a:1\\u0000\"}"};
    (void)state;
    network();
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        assert_int_equal(hw_put(&hw, 0, "dmsg-server", values[i]), 0);
        for (int k = 0; k < 15; k++) {
            servers_tick(&n);
            world_run(&hw.w, NS_PER_S);
        }
    }
    assert_int_equal(n.n_servers, 0);
}

/* ---- what the own relay links to ---- */

/* Node 0 at this address and nobody else; or nobody. The thread tells once a second. */
static bool relay_knows(const char *addr)
{
    struct relay_peer_info info[8];
    for (int i = 0; i < 3000; i++) {
        size_t have = relay_thread_peers(n.relay, info, 8);
        if (addr == NULL ? have == 0
                         : have == 1 && pubkey_equal(&info[0].pk, key(0)) && info[0].found &&
                               strcmp(info[0].addr, addr) == 0)
            return true;
        usleep(10 * 1000);
    }
    return false;
}

static void store_put(int node, const char *addr)
{
    char text[256];
    snprintf(text, sizeof text, addr != NULL ? "{\"address\":\"%s\"}" : "{}", addr);
    assert_int_equal(hw_put(&hw, node, "dmsg-server", text), 0);
}

static void look(int seconds)
{
    for (int i = 0; i < seconds; i++) {
        servers_tick(&n);
        world_run(&hw.w, NS_PER_S);
    }
}

/* Relays that published themselves, and no others; the newest address; until they say no more. */
static void test_links_to_what_is_recorded(void **state)
{
    struct pubkey other = some_key(3);
    struct buf_budget budget = {.cap = 64 << 20};
    struct pk_pool *pk = pk_pool_new(1, 64);
    struct relay_thread_cfg cfg = {.self = *key(1),
                                   .sk = hw.w.client[1].key.sk,
                                   .listen = "127.0.0.1:0",
                                   .pk_pool = pk,
                                   .budget = &budget};
    (void)state;
    network();
    assert_int_equal(relay_thread_start(&n.relay, &cfg), 0);
    servers_learn(&n, &other, "127.0.0.1:8"); /* known, but it did not say that it is a relay */
    store_put(0, "127.0.0.1:9");
    look(100);
    assert_true(relay_knows("127.0.0.1:9"));
    servers_learn_at(&n, key(0), "127.0.0.1:7", 1); /* older than its record */
    look(2);
    assert_true(relay_knows("127.0.0.1:9"));
    store_put(0, "127.0.0.1:10");
    look(100);
    assert_true(relay_knows("127.0.0.1:10"));
    store_put(0, NULL);
    look(100);
    assert_true(relay_knows(NULL));
    relay_thread_stop(n.relay);
    n.relay = NULL;
    pk_pool_free(pk);
}

/* ---- the client asks for an address ---- */

/* A destination delegates to a relay that only the DHT knows. */
static void test_find(void **state)
{
    struct entry *e;
    struct hash digest;
    struct sig sig;
    char text[1024];
    (void)state;
    network();
    /* node 0 is that relay: its entry has a server half */
    assert_int_equal(entry_new_server(&e, key(0), 1, 1, "r1:1", 10), 0);
    assert_int_equal(entry_digest(&digest, e), 0);
    assert_int_equal(crypto_sign_digest(&sig, &hw.w.client[0].key.sk, &digest), 0);
    assert_int_equal(entry_set_signature(e, &sig), 0);
    snprintf(text, sizeof text, "%.*s", (int)e->text_len, e->text);
    entry_free(e);
    assert_int_equal(hw_put(&hw, 0, "dmsg", text), 0);
    servers_find(&n, key(0));
    world_run(&hw.w, 5 * NS_PER_S);
    assert_int_equal(n.n_servers, 1);
    assert_true(list_empty(&n.questions));
    struct pubkey nobody = some_key(5);
    servers_find(&n, &nobody);
    world_run(&hw.w, 40 * NS_PER_S);
    assert_true(list_empty(&n.questions));
    assert_int_equal(n.n_servers, 1);
}

/* The end comes while a question is under way: nothing is left behind (seen by the sanitizer). */
static void test_free_with_a_question_under_way(void **state)
{
    struct pubkey nobody = some_key(5);
    (void)state;
    hw.w.net.fault.delay_ns = 50 * NS_PER_MS;
    network();
    servers_find(&n, &nobody);
    assert_false(list_empty(&n.questions));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_learn),
        TEST(test_seeds_stay),
        TEST(test_addresses_that_are_none),
        TEST(test_a_flood_of_records),
        TEST(test_the_newest_address_wins),
        TEST(test_pulled_from_a_peer),
        TEST(test_records_that_are_none),
        TEST(test_links_to_what_is_recorded),
        TEST(test_find),
        TEST(test_free_with_a_question_under_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
