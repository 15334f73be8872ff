/*
 * A node's own records: when they are put, what is in them, and that they are taken back.
 */
#include "node/publish.h"

#include "tests/unit/kademlia/host_world.h"
#include "transport/entry.h"

static struct host_world hw;
static struct publish *p;  /* of node 1 */
static unsigned done;      /* calls of withdraw's callback */
static unsigned put_count; /* reports of node 1's records */

static bool take(void *arg, const struct kad_report *rep)
{
    (void)arg;
    bool mine = p != NULL && publish_report(p, rep);
    put_count += mine;
    return mine;
}

static void on_changed(void *arg)
{
    (void)arg;
    if (p != NULL)
        publish_sessions_changed(p);
}

static int setup(void **state)
{
    (void)state;
    host_world_init(&hw);
    done = put_count = 0;
    for (int i = 0; i < 3; i++)
        world_relay_start(&hw.w, i);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    publish_free(p);
    p = NULL;
    host_world_free(&hw);
    return 0;
}

static const struct pubkey *key(int i)
{
    return &hw.w.client[i].key.pk;
}

static const struct pubkey *relay(int i)
{
    return &hw.w.relay_key[i].pk;
}

static void node_0(void)
{
    hw_start(&hw, 0, NULL, NULL);
    world_up(&hw.w, 0, 1);
}

static void node_1(void)
{
    struct client_cfg cfg = world_cfg(&hw.w, 1);
    cfg.hooks = (struct client_hooks){.sessions_changed = on_changed};
    hw_start(&hw, 1, key(0), &cfg);
    hw.node[1].take = take;
}

static void start(const char *server_address)
{
    struct publish_cfg cfg = {.env = &hw.w.env.env,
                              .loop = &hw.w.net.loop,
                              .client = hw.w.client[1].c,
                              .host = hw.node[1].h,
                              .self = *key(1),
                              .sk = hw.w.client[1].key.sk,
                              .server_address = server_address,
                              .max_sessions = 99,
                              .client_type = ""};
    p = publish_new(&cfg);
    assert_non_null(p);
}

static struct publish_stat stat_now(void)
{
    struct publish_stat st;
    publish_stat(p, &st);
    return st;
}

static bool stored(void *arg)
{
    (void)arg;
    return stat_now().stored > 0;
}

/* The network, with the entry published once. */
static void published(const char *server_address)
{
    node_0();
    node_1();
    start(server_address);
    world_until(&hw.w, stored, NULL);
}

/* What node 0 holds of node 1; NULL when there is none. The caller frees it. */
static struct entry *held(void)
{
    struct store_rec rec;
    struct entry *e = NULL;
    struct kad_id target = kad_target(key(1), "dmsg", 4);
    if (hw.node[0].store->ops->get(hw.node[0].store, &target, ITEM_OWNER, &rec) < 0)
        return NULL;
    int rc = entry_parse(&e, (const char *)rec.item.v, rec.item.v_len);
    assert_true(rc == 0 || rc == ERR_NOT_FOUND); /* NULL for a tombstone */
    assert_true(e == NULL || entry_verify(e) == 0);
    return e;
}

static size_t n_delegated(void)
{
    struct entry *e = held();
    size_t n = e != NULL ? e->client.n_delegated : 0;
    entry_free(e);
    return n;
}

static bool withdrawn_at_0(const char *salt)
{
    struct store_rec rec;
    struct kad_id target = kad_target(key(1), salt, strlen(salt));
    return hw.node[0].store->ops->get(hw.node[0].store, &target, ITEM_OWNER, &rec) == 0 &&
           rec.item.v_len == 2 && memcmp(rec.item.v, "{}", 2) == 0;
}

/* ---- what is published ---- */

static void test_entry(void **state)
{
    (void)state;
    published(NULL);
    struct entry *e = held();
    assert_non_null(e);
    assert_true(pubkey_equal(&e->static_pk, key(1)));
    assert_true(e->has_client && !e->has_server);
    assert_int_equal(e->client.n_delegated, 1);
    assert_true(pubkey_equal(&e->client.delegated[0], relay(0)));
    entry_free(e);
    struct publish_stat st = stat_now();
    assert_int_equal(st.published, 1);
    assert_int_equal(st.delegated, 1);
    assert_int_equal(st.last_err, 0);
    assert_int_equal(st.last_ns, pipe_now(&hw.w.net));
}

static void test_relays_entry_and_record(void **state)
{
    struct store_rec rec;
    (void)state;
    published("relay.example:8081");
    world_run(&hw.w, NS_PER_S);
    struct entry *e = held();
    assert_true(e->has_server);
    assert_string_equal(e->server.address, "relay.example:8081");
    entry_free(e);
    struct kad_id target = kad_target(key(1), "dmsg-server", 11);
    assert_int_equal(hw.node[0].store->ops->get(hw.node[0].store, &target, ITEM_OWNER, &rec), 0);
    assert_non_null(memmem(rec.item.v, rec.item.v_len, "\"address\":\"relay.example:8081\"", 30));
    assert_non_null(memmem(rec.item.v, rec.item.v_len, "\"max_sessions\":99", 17));
}

static void test_deferred_signature(void **state)
{
    (void)state;
    hw.w.env.deferred = true;
    published(NULL);
    assert_int_equal(n_delegated(), 1);
}

/* An entry without any way to its key says nothing true. */
static void test_nothing_without_a_session(void **state)
{
    (void)state;
    node_0();
    node_1();
    world_relay_stop(&hw.w, 0);
    world_up(&hw.w, 1, 0);
    start(NULL);
    world_run(&hw.w, 20 * NS_PER_S);
    assert_int_equal(stat_now().published, 0);
    assert_int_equal(stat_now().last_err, ERR_NO_ROUTE);
    world_relay_start(&hw.w, 0);
    world_until(&hw.w, stored, NULL); /* by itself, when there is one */
}

/* ---- when ---- */

/* Some kicks are one publication. */
static void test_kicks_are_collected(void **state)
{
    (void)state;
    published(NULL);
    for (int i = 0; i < 10; i++)
        publish_kick(p);
    world_run(&hw.w, 2 * NS_PER_S);
    assert_int_equal(stat_now().published, 2);
}

static void test_refreshed(void **state)
{
    (void)state;
    published(NULL);
    struct entry *e = held();
    int64_t first = e->timestamp_ns;
    entry_free(e);
    world_run(&hw.w, PUBLISH_EVERY_NS * 13 / 10);
    assert_in_range(stat_now().published, 2, 3);
    hw.w.env.wall_ns += 1;
    publish_kick(p);
    world_run(&hw.w, NS_PER_S);
    e = held();
    assert_true(e->timestamp_ns > first && e->sequence >= 2);
    entry_free(e);
}

/* A second relay is told soon. */
static void test_a_server_that_comes(void **state)
{
    (void)state;
    published(NULL);
    world_join(&hw.w, 1, 1);
    world_up(&hw.w, 1, 2);
    world_run(&hw.w, NS_PER_S);
    assert_int_equal(n_delegated(), 2);
}

/* One that is lost is told when it stays away. */
static void test_a_server_that_goes(void **state)
{
    (void)state;
    published(NULL);
    world_join(&hw.w, 1, 1);
    world_up(&hw.w, 1, 2);
    world_run(&hw.w, NS_PER_S);
    uint64_t before = stat_now().published;
    world_relay_stop(&hw.w, 1);
    world_run(&hw.w, PUBLISH_LOSS_NS / 2);
    assert_int_equal(n_delegated(), 2);
    world_run(&hw.w, PUBLISH_LOSS_NS);
    assert_int_equal(n_delegated(), 1);
    assert_int_equal(stat_now().published, before + 1);
}

static unsigned n_changes; /* of the published entry */

static void flap(uint64_t down_ns, uint64_t up_ns)
{
    size_t was = n_delegated();
    for (uint64_t ns = 0; ns < down_ns + up_ns; ns += 200 * NS_PER_MS) {
        if (ns == 0)
            world_relay_stop(&hw.w, 1);
        if (ns == down_ns)
            world_relay_start(&hw.w, 1);
        world_run(&hw.w, 200 * NS_PER_MS);
        n_changes += n_delegated() != was;
        was = n_delegated();
    }
}

/* A relay that flaps 20 times, fast or slowly, changes the entry at most twice (incident 11). */
static void test_a_server_that_flaps(void **state)
{
    static const unsigned times[][2] = {
        {200, 2000}, {2000, 20000}, {40000, 40000}, {40000, 200000}};
    (void)state;
    published(NULL);
    world_join(&hw.w, 1, 1);
    world_up(&hw.w, 1, 2);
    world_run(&hw.w, NS_PER_S);
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        n_changes = 0;
        for (int k = 0; k < 20; k++)
            flap(times[i][0] * NS_PER_MS, times[i][1] * NS_PER_MS);
        assert_true(n_changes <= 2);
    }
    world_run(&hw.w, 4000 * NS_PER_S); /* it lasts */
    assert_int_equal(n_delegated(), 2);
}

/* The only relay flaps: the same entry is right again, nothing is said. */
static void test_the_only_server_flaps(void **state)
{
    (void)state;
    published(NULL);
    uint64_t before = stat_now().published;
    for (int k = 0; k < 5; k++) {
        world_relay_stop(&hw.w, 0);
        world_run(&hw.w, 20 * NS_PER_S);
        world_relay_start(&hw.w, 0);
        world_run(&hw.w, 20 * NS_PER_S);
    }
    assert_true(stat_now().published - before <= 2); /* the regular one */
    assert_int_equal(n_delegated(), 1);
}

/* Nothing changes: 10 000 notices cost no signature (incident 56). */
static void test_unchanged(void **state)
{
    (void)state;
    published(NULL);
    uint64_t before = stat_now().published;
    for (int i = 0; i < 10000; i++) {
        publish_sessions_changed(p);
        world_run(&hw.w, 360 * NS_PER_MS);
    }
    assert_true(stat_now().published - before <= 15); /* every 5 minutes */
}

/* A node that was a relay when it was killed, and is none now: its record goes, its entry stays
 * (incident 32). */
static void test_no_relay_any_more(void **state)
{
    struct publish_stat st;
    (void)state;
    published("10.0.0.1:8081");
    assert_int_equal(hw_get(&hw, 0, key(1), "dmsg-server", 0), 0);
    assert_int_not_equal(strcmp(hw.node[0].value, "{}"), 0);
    publish_free(p); /* killed: nothing is withdrawn */
    start(NULL);
    world_run(&hw.w, 10 * NS_PER_S);
    assert_int_equal(hw_get(&hw, 0, key(1), "dmsg-server", KAD_GET_NETWORK), ERR_NOT_FOUND);
    publish_stat(p, &st);
    assert_true(st.stored > 0 && st.delegated == 1);
}

/* Alone, the node holds the entry itself; somebody else gets it as soon as there is somebody. */
static void test_first_peer(void **state)
{
    (void)state;
    world_client_start(&hw.w, 0, NULL);
    world_join(&hw.w, 0, 0);
    node_1();
    start(NULL);
    world_run(&hw.w, 5 * NS_PER_S);
    assert_true(stat_now().published > 0);
    assert_int_equal(stat_now().stored, 0);
    world_client_stop(&hw.w, 0);
    node_0();
    hw_peers(&hw, 0, 0);
    struct pubkey boot = *key(0);
    assert_int_equal(kad_bootstrap(hw_kad(&hw, 1), &boot, 1, pipe_now(&hw.w.net)), 0);
    host_kick(hw.node[1].h);
    hw_peers(&hw, 1, 1);
    publish_kick(p);
    world_until(&hw.w, stored, NULL);
}

/* There are peers, and none of them takes it: again soon, but not at once. */
static void test_nobody_takes_it(void **state)
{
    (void)state;
    published(NULL);
    uint64_t before = stat_now().published;
    hw_stop(&hw, 0); /* its contact stays in the table for a while */
    publish_kick(p);
    world_run(&hw.w, 40 * NS_PER_S);
    assert_int_equal(stat_now().stored, 0);
    assert_in_range(stat_now().published - before, 2, 16);
}

/* ---- withdrawing ---- */

static void on_done(void *arg)
{
    assert_ptr_equal(arg, &done);
    done++;
}

static bool is_done(void *arg)
{
    (void)arg;
    return done > 0;
}

/* Returns how long it took. */
static uint64_t withdraw(void)
{
    uint64_t begin = pipe_now(&hw.w.net);
    publish_withdraw(p, on_done, &done);
    assert_int_equal(done, 0); /* never from inside */
    world_until(&hw.w, is_done, NULL);
    uint64_t took = pipe_now(&hw.w.net) - begin;
    world_run(&hw.w, 10 * NS_PER_S);
    assert_int_equal(done, 1);
    return took;
}

static void test_withdraw(void **state)
{
    (void)state;
    published("relay.example:1");
    world_run(&hw.w, NS_PER_S);
    assert_true(withdraw() < NS_PER_S);
    assert_true(withdrawn_at_0("dmsg"));
    assert_true(withdrawn_at_0("dmsg-server"));
    publish_kick(p); /* too late */
    publish_sessions_changed(p);
    world_run(&hw.w, PUBLISH_EVERY_NS * 2);
    assert_true(withdrawn_at_0("dmsg"));
}

static void test_withdraw_what_never_was(void **state)
{
    (void)state;
    node_0();
    node_1();
    start(NULL);
    assert_int_equal(withdraw(), 0);
    world_run(&hw.w, 10 * NS_PER_S);
    assert_int_equal(put_count, 0);
    assert_null(held());
}

/* Nobody answers: the stop waits no longer than it says. */
static void test_withdraw_has_a_deadline(void **state)
{
    (void)state;
    published(NULL);
    for (struct pipe_conn *c = hw.w.net.conns; c != NULL; c = c->next)
        c->out.frozen = true;
    assert_int_equal(withdraw(), PUBLISH_WITHDRAW_NS);
}

/* The stop comes while the first put is under way: a peer may have it, so it gets the tombstone. */
static void test_withdraw_during_the_first_put(void **state)
{
    (void)state;
    hw.w.net.fault.delay_ns = 20 * NS_PER_MS;
    node_0();
    node_1();
    hw_peers(&hw, 1, 1);
    start(NULL);
    world_run(&hw.w, PUBLISH_DEBOUNCE_NS + NS_PER_MS);
    assert_int_equal(stat_now().published, 0); /* not yet */
    withdraw();
    assert_null(held());
    assert_true(withdrawn_at_0("dmsg"));
}

static void test_withdraw_while_signing(void **state)
{
    (void)state;
    node_0();
    node_1();
    hw_peers(&hw, 1, 1);
    start(NULL);
    hw.w.env.deferred = true;
    hw.w.net.env = NULL; /* nobody answers signatures now */
    world_run(&hw.w, PUBLISH_DEBOUNCE_NS);
    assert_true(env_test_queued(&hw.w.env) > 0);
    publish_withdraw(p, on_done, &done);
    hw.w.net.env = &hw.w.env;
    world_until(&hw.w, is_done, NULL);
    assert_int_equal(put_count, 0);
}

static void test_free_at_any_time(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 12; i++) {
        struct host_world *h = &hw;
        if (i > 0) {
            host_world_init(h);
            world_relay_start(&h->w, 0);
        }
        h->w.env.deferred = true;
        h->w.net.fault.delay_ns = 10 * NS_PER_MS;
        node_0();
        node_1();
        start("x:1");
        world_run(&h->w, PUBLISH_DEBOUNCE_NS + i * 10 * NS_PER_MS);
        publish_free(p);
        p = NULL;
        world_run(&h->w, NS_PER_S);
        if (i < 11)
            host_world_free(h);
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_entry),
        TEST(test_relays_entry_and_record),
        TEST(test_deferred_signature),
        TEST(test_nothing_without_a_session),
        TEST(test_kicks_are_collected),
        TEST(test_refreshed),
        TEST(test_a_server_that_comes),
        TEST(test_a_server_that_goes),
        TEST(test_a_server_that_flaps),
        TEST(test_the_only_server_flaps),
        TEST(test_unchanged),
        TEST(test_no_relay_any_more),
        TEST(test_first_peer),
        TEST(test_nobody_takes_it),
        TEST(test_withdraw),
        TEST(test_withdraw_what_never_was),
        TEST(test_withdraw_has_a_deadline),
        TEST(test_withdraw_during_the_first_put),
        TEST(test_withdraw_while_signing),
        TEST(test_free_at_any_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
