/*
 * The phases of the way from HTTP to the DHT, each with the discovery absent, present, slow and lying: who is found how, what is registered where.
 *
 * Node 0 is the relay's full node with the pusher, node 1 publishes itself, node 2 asks for it.
 */
#include <stdio.h>

#include "compat-http/pusher.h"
#include "node/policy.h"
#include "node/publish.h"
#include "node/resolve.h"
#include "tests/unit/compat-http/fake_disc.h"
#include "tests/unit/kademlia/host_world.h"
#include "transport/entry.h"

#define SLOW_NS (8 * NS_PER_S)

enum service { ABSENT, PRESENT, SLOW, LYING };
static const char *const service_names[] = {"absent", "present", "slow", "lying"};

static struct host_world hw;
static struct fake_disc disc;
static struct publish *p;
static struct resolve *r;
static struct pusher *pusher;
static struct node_policy policy;

static bool take_1(void *arg, const struct kad_report *rep)
{
    (void)arg;
    return p != NULL && publish_report(p, rep);
}

static bool take_2(void *arg, const struct kad_report *rep)
{
    (void)arg;
    return r != NULL && resolve_report(r, rep);
}

static void on_changed(void *arg)
{
    (void)arg;
    if (p != NULL)
        publish_sessions_changed(p);
}

static const struct pubkey *key(int i)
{
    return &hw.w.client[i].key.pk;
}

static void offer_held(void *arg, const struct pubkey *pk)
{
    struct kad_id target = kad_target(key(1), "dmsg", 4);
    struct store_rec rec;
    (void)arg, (void)pk;
    if (pusher != NULL &&
        hw.node[0].store->ops->get(hw.node[0].store, &target, ITEM_OWNER, &rec) == 0)
        pusher_offer(pusher, key(1), (const char *)rec.item.v, rec.item.v_len);
}

static void open_pusher(void)
{
    struct pusher_cfg cfg = {.env = &hw.w.env.env,
                             .loop = &hw.w.net.loop,
                             .port = fake_disc_port(&disc),
                             .again = offer_held};
    pusher = pusher_new(&cfg);
    assert_non_null(pusher);
}

/* Time passes; what comes into the store of node 0 is pushed. */
static void run(uint64_t ns)
{
    for (uint64_t end = hw.w.net.loop.now_ns + ns; hw.w.net.loop.now_ns < end;) {
        world_run(&hw.w, 200 * NS_PER_MS);
        offer_held(NULL, NULL);
    }
}

static void serve_as(enum service how)
{
    disc.down = how == ABSENT ? ERR_RESET : 0;
    disc.delay_ns = how == SLOW ? SLOW_NS : 10 * NS_PER_MS;
    disc.liar = how == LYING;
}

static struct publish_stat published(void)
{
    struct publish_stat st;
    publish_stat(p, &st);
    return st;
}

static void start_publish(void)
{
    struct disc_port port = fake_disc_port(&disc);
    struct publish_cfg cfg = {
        .env = &hw.w.env.env,
        .loop = &hw.w.net.loop,
        .client = hw.w.client[1].c,
        .host = hw.node[1].h,
        .self = *key(1),
        .sk = hw.w.client[1].key.sk,
        .client_type = "",
        .port = policy.registers != NODE_REGISTERS_NEVER ? &port : NULL,
        .http_only = !policy.publish_dht,
        .http_unseen = policy.registers == NODE_REGISTERS_UNSEEN,
    };
    p = publish_new(&cfg);
    assert_non_null(p);
}

/* As node.c puts them together. */
static void start(enum node_mode mode, enum service how)
{
    struct node_cfg client = {.mode = mode, .discovery = "http://x"}, relay = client;
    relay.listen = "127.0.0.1:0";
    policy = node_policy_of(&client);
    host_world_init(&hw);
    fake_disc_init(&disc, &hw.w.net.loop);
    serve_as(how);
    world_relay_start(&hw.w, 0);
    hw_start(&hw, 0, NULL, NULL);
    world_up(&hw.w, 0, 1);
    struct client_cfg cfg = world_cfg(&hw.w, 1);
    cfg.hooks = (struct client_hooks){.sessions_changed = on_changed};
    hw_start(&hw, 1, key(0), &cfg);
    hw.node[1].take = take_1;
    hw_start(&hw, 2, key(0), NULL);
    hw.node[2].take = take_2;
    hw_peers(&hw, 1, 1);
    hw_peers(&hw, 2, 1);
    r = resolve_new(&hw.w.net.loop, &hw.w.env.env);
    resolve_set_host(r, hw.node[2].h);
    struct disc_port port = fake_disc_port(&disc);
    if (policy.ask_http)
        resolve_set_http(r, &port, !policy.ask_dht);
    start_publish();
    if (node_policy_of(&relay).push)
        open_pusher();
}

static void stop(void)
{
    if (policy.ask_http)
        resolve_set_http(r, NULL, false);
    pusher_free(pusher);
    publish_free(p);
    resolve_free(r);
    p = NULL;
    r = NULL;
    pusher = NULL;
    fake_disc_free(&disc);
    host_world_free(&hw);
}

struct got {
    bool over;
    int err;
    enum resolve_source source;
    uint64_t ms;
};

static void on_answer(void *arg, const struct resolve_answer *a)
{
    struct got *g = arg;
    g->over = true;
    g->err = a->err;
    g->source = a->source;
    g->ms = a->ms;
}

static struct got ask(void)
{
    struct got g = {0};
    (void)resolve_entry(r, key(1), RESOLVE_FRESH, on_answer, &g);
    for (int i = 0; i < 600 && !g.over; i++)
        run(200 * NS_PER_MS);
    assert_true(g.over);
    return g;
}

/* ---- all sixteen ---- */

static void check_http(enum service how, const struct got *g)
{
    bool there = how == PRESENT || how == SLOW;
    assert_int_equal(g->err == 0, there);
    assert_true(!there || g->source == RESOLVE_HTTP);
    assert_true(how != PRESENT || g->ms < 1000);
    assert_int_equal(published().published, 0);                      /* in the DHT */
    assert_int_equal(published().http.published > 0, how != ABSENT); /* it said so */
}

static void check_both(enum service how, const struct got *g)
{
    assert_int_equal(g->err, 0);
    assert_true(how == SLOW || how == ABSENT || how == LYING ? g->source == RESOLVE_DHT : true);
    assert_true(g->ms < 1000); /* whatever the service does */
    assert_true(published().stored > 0);
    if (how == PRESENT || how == SLOW)
        assert_non_null(fake_disc_entry(&disc, key(1)));
    assert_int_equal(published().http.failed > 0, how == ABSENT);
}

static void check(unsigned phase, enum service how, const struct got *g)
{
    struct resolve_stat st;
    resolve_stat(r, &st);
    assert_int_equal(st.cache + st.dht + st.http + st.miss, 1); /* each look-up is counted once */
    assert_int_equal(st.miss, g->err != 0);
    assert_int_equal(policy.phase, phase);
    if (phase == 1) {
        check_http(how, g);
    } else if (phase < 4) {
        check_both(how, g);
        assert_int_equal(published().http.carried, phase == 3 && (how == PRESENT || how == SLOW));
    } else {
        assert_int_equal(g->err, 0);
        assert_int_equal(g->source, RESOLVE_DHT);
        assert_int_equal(disc.gets + disc.posts + disc.deletes + disc.lists, 0);
    }
}

static void test_phases(void **state)
{
    static const enum node_mode modes[] = {NODE_MODE_HTTP, NODE_MODE_HYBRID, NODE_MODE_DHT_FIRST,
                                           NODE_MODE_DHT};
    (void)state;
    for (unsigned phase = 1; phase <= 4; phase++)
        for (enum service how = ABSENT; how <= LYING; how++) {
            print_message("phase %u, service %s\n", phase, service_names[how]);
            start(modes[phase - 1], how);
            run(100 * NS_PER_S);
            struct got g = ask();
            check(phase, how, &g);
            stop();
        }
}

/* ---- phase 3: registration over HTTP stops and resumes ---- */

static bool is_current(void)
{
    struct kad_id target = kad_target(key(1), "dmsg", 4);
    const struct entry *e = fake_disc_entry(&disc, key(1));
    struct store_rec rec;
    return e != NULL &&
           hw.node[0].store->ops->get(hw.node[0].store, &target, ITEM_OWNER, &rec) == 0 &&
           e->text_len == rec.item.v_len && memcmp(e->text, rec.item.v, e->text_len) == 0;
}

static void test_registration_stops_and_resumes(void **state)
{
    (void)state;
    start(NODE_MODE_DHT_FIRST, PRESENT);
    run(60 * NS_PER_S);
    assert_true(published().http.carried); /* seen soon after the first registration */
    assert_int_equal(published().http.published, 1);
    run(3000 * NS_PER_S);
    assert_int_equal(published().http.published, 1);
    assert_true(published().published >= 8); /* in the DHT */
    assert_true(is_current());

    pusher_free(pusher); /* the way back ends */
    pusher = NULL;
    run(800 * NS_PER_S);
    assert_false(published().http.carried);
    assert_int_equal(published().http.resumed, 1);
    uint64_t before = published().http.published;
    assert_true(before >= 2);
    run(3000 * NS_PER_S);
    assert_in_range(published().http.published - before, 8, 16); /* as in phase 2 */

    open_pusher(); /* and is there again */
    run(800 * NS_PER_S);
    assert_true(published().http.carried);
    before = published().http.published;
    run(3000 * NS_PER_S);
    assert_int_equal(published().http.published, before);
    assert_true(is_current());
    stop();
}

/* The relay is away for a second; publishing begins `at` after it went. Returns when there was a session again. */
static uint64_t relay_comes_back(uint64_t at)
{
    struct pubkey servers[4];
    bool back = false;
    start(NODE_MODE_HYBRID, PRESENT);
    publish_free(p);
    p = NULL;
    fake_disc_drop(&disc, key(1));
    world_relay_stop(&hw.w, 0);
    uint64_t from = hw.w.net.loop.now_ns, now = 0;
    for (; !back || client_delegated(hw.w.client[1].c, servers, 4) == 0;
         now = hw.w.net.loop.now_ns - from) {
        if (!back && now >= NS_PER_S) {
            world_relay_start(&hw.w, 0);
            back = true;
        }
        if (p == NULL && now >= at)
            start_publish();
        world_run(&hw.w, 10 * NS_PER_MS);
    }
    return now;
}

/* The first session comes just when the node begins to publish: it is registered all the same (incident 45). */
static void test_incident_45_session_comes_while_it_begins(void **state)
{
    (void)state;
    uint64_t up = relay_comes_back(UINT64_MAX);
    start_publish();
    stop();
    assert_true(up > NS_PER_S);
    for (uint64_t k = 1; k < 50; k++) {
        assert_int_equal(relay_comes_back(up - k * 10 * NS_PER_MS), up);
        assert_non_null(p);
        run(20 * NS_PER_S);
        assert_non_null(fake_disc_entry(&disc, key(1)));
        stop();
    }
}

/* A second session comes at whatever moment of the first registration. */
static void test_changes_meanwhile(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 30; i++) {
        start(NODE_MODE_DHT_FIRST, PRESENT);
        world_relay_start(&hw.w, 1);
        world_run(&hw.w, i * 200 * NS_PER_MS);
        world_join(&hw.w, 1, 1);
        run(60 * NS_PER_S);
        assert_true(published().http.carried);
        assert_int_equal(published().delegated, 2);
        assert_true(is_current());
        uint64_t before = published().http.published;
        run(1000 * NS_PER_S);
        assert_int_equal(published().http.published, before);
        stop();
    }
}

/* Incident 70: the discovery is away for a while and comes back with nothing. */
static void test_incident_70_discovery_comes_back_empty(void **state)
{
    (void)state;
    start(NODE_MODE_DHT_FIRST, PRESENT);
    run(60 * NS_PER_S);
    assert_true(published().http.carried);
    serve_as(ABSENT);
    fake_disc_drop(&disc, key(1));
    run(1000 * NS_PER_S);
    assert_int_equal(ask().source, RESOLVE_DHT);
    serve_as(PRESENT);
    run(120 * NS_PER_S);
    assert_non_null(fake_disc_entry(&disc, key(1)));
    run(400 * NS_PER_S);
    assert_true(published().http.carried);
    stop();
}

/* Incident 70: it answers with a part of what there is; the rest is found all the same, and it gets it. */
static void test_incident_70_partial_answers(void **state)
{
    (void)state;
    start(NODE_MODE_HYBRID, PRESENT);
    run(60 * NS_PER_S);
    fake_disc_drop(&disc, key(1));
    struct got g = ask();
    assert_int_equal(g.err, 0); /* "not found" needs both */
    run(400 * NS_PER_S);
    assert_non_null(fake_disc_entry(&disc, key(1)));
    stop();
}

/* One that takes everything and has nothing is registered with as in phase 2, and no more. */
static void test_lying_discovery_costs_no_more(void **state)
{
    (void)state;
    start(NODE_MODE_DHT_FIRST, LYING);
    run(3000 * NS_PER_S);
    assert_false(published().http.carried);
    assert_in_range(published().http.published + published().http.failed, 5, 60);
    assert_true(disc.gets < 400);
    stop();
}

/* What is registered nowhere but in the DHT is taken back at the discovery too. */
static void on_withdrawn(void *arg)
{
    *(bool *)arg = true;
}

static void test_withdrawn_where_it_was_carried(void **state)
{
    bool over = false;
    (void)state;
    start(NODE_MODE_DHT_FIRST, PRESENT);
    run(1000 * NS_PER_S);
    assert_true(published().http.carried);
    publish_withdraw(p, on_withdrawn, &over);
    run(10 * NS_PER_S);
    assert_true(over);
    assert_null(fake_disc_entry(&disc, key(1)));
    stop();
}

/* ---- the settings ---- */

static void test_policies(void **state)
{
    (void)state;
    struct node_cfg cfg = {0};
    struct node_policy q = node_policy_of(&cfg);
    assert_true(q.phase == 4 && q.ask_dht && !q.ask_http && q.publish_dht && !q.push);
    assert_false(node_policy_uses_http(&q));
    assert_null(node_policy_wrong(&cfg));
    cfg.mode = NODE_MODE_DHT_FIRST;
    assert_non_null(node_policy_wrong(&cfg));
    cfg.mode = NODE_MODE_AUTO;
    cfg.push = NODE_PUSH_ON;
    assert_non_null(node_policy_wrong(&cfg));
    cfg.push = NODE_PUSH_AUTO;
    cfg.discovery = "http://x";
    q = node_policy_of(&cfg);
    assert_true(q.phase == 2 && q.ask_http && q.registers == NODE_REGISTERS_ALWAYS && !q.push);
    cfg.full = true;
    assert_true(node_policy_of(&cfg).push);
    cfg.mode = NODE_MODE_DHT_FIRST;
    assert_int_equal(node_policy_of(&cfg).registers, NODE_REGISTERS_UNSEEN);
    cfg.listen = "127.0.0.1:0";
    assert_int_equal(node_policy_of(&cfg).registers, NODE_REGISTERS_ALWAYS);
    cfg.mode = NODE_MODE_DHT;
    q = node_policy_of(&cfg);
    assert_false(node_policy_uses_http(&q));
    cfg.lookup = NODE_LOOKUP_HYBRID; /* single switches */
    cfg.push = NODE_PUSH_ON;
    cfg.registration = NODE_REGISTER_ALWAYS;
    q = node_policy_of(&cfg);
    assert_true(q.ask_dht && q.ask_http && q.push && q.registers == NODE_REGISTERS_ALWAYS);
    cfg.mode = NODE_MODE_HTTP;
    cfg.registration = NODE_REGISTER_UNSEEN;
    assert_non_null(node_policy_wrong(&cfg));
    cfg.registration = NODE_REGISTER_NEVER;
    cfg.lookup = NODE_LOOKUP_DHT;
    q = node_policy_of(&cfg);
    assert_true(q.ask_dht && !q.ask_http && q.registers == NODE_REGISTERS_NEVER);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_policies),
        cmocka_unit_test(test_phases),
        cmocka_unit_test(test_registration_stops_and_resumes),
        cmocka_unit_test(test_incident_45_session_comes_while_it_begins),
        cmocka_unit_test(test_changes_meanwhile),
        cmocka_unit_test(test_incident_70_discovery_comes_back_empty),
        cmocka_unit_test(test_incident_70_partial_answers),
        cmocka_unit_test(test_lying_discovery_costs_no_more),
        cmocka_unit_test(test_withdrawn_where_it_was_carried),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
