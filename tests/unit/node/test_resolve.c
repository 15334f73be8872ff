/*
 * Where is this key? Two nodes with real engines; node 1 asks, node 0 holds.
 */
#include "node/resolve.h"

#include "tests/unit/compat-http/fake_disc.h"
#include "tests/unit/kademlia/host_world.h"

static struct host_world hw;
static struct resolve *r; /* of node 1 */

static bool take(void *arg, const struct kad_report *rep)
{
    (void)arg;
    return r != NULL && resolve_report(r, rep);
}

static int setup(void **state)
{
    (void)state;
    host_world_init(&hw);
    world_relay_start(&hw.w, 0);
    r = resolve_new(&hw.w.net.loop, &hw.w.env.env);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    resolve_free(r);
    r = NULL;
    host_world_free(&hw);
    return 0;
}

static const struct pubkey *key(int i)
{
    return &hw.w.client[i].key.pk;
}

static void network(void)
{
    hw_start(&hw, 0, NULL, NULL);
    world_up(&hw.w, 0, 1);
    hw_start(&hw, 1, key(0), NULL);
    hw.node[1].take = take;
    resolve_set_host(r, hw.node[1].h);
    hw_peers(&hw, 1, 1);
    hw_peers(&hw, 0, 1);
}

/* Node 0 publishes its entry; node 1 may hold a copy afterwards: it is taken away. */
static void publish(int i, uint64_t sequence, bool everywhere)
{
    struct entry *e;
    struct hash digest;
    struct sig sig;
    char text[2048];
    assert_int_equal(entry_new_client(&e, key(i), sequence, (int64_t)sequence * 1000,
                                      &hw.w.relay_key[0].pk, 1, ""),
                     0);
    assert_int_equal(entry_digest(&digest, e), 0);
    assert_int_equal(crypto_sign_digest(&sig, &hw.w.client[i].key.sk, &digest), 0);
    assert_int_equal(entry_set_signature(e, &sig), 0);
    snprintf(text, sizeof text, "%.*s", (int)e->text_len, e->text);
    entry_free(e);
    assert_int_equal(hw_put(&hw, i, "dmsg", text), 0);
    struct kad_id target = kad_target(key(i), "dmsg", 4);
    if (!everywhere)
        assert_int_equal(hw.node[1 - i].store->ops->del(hw.node[1 - i].store, &target, ITEM_OWNER),
                         0);
}

/* ---- answers ---- */

struct got {
    unsigned calls;
    int err;
    enum resolve_source source;
    uint64_t sequence;
    void (*then)(struct got *g);
    uint64_t cancel;
    struct got *other;
};

static void on_answer(void *arg, const struct resolve_answer *a)
{
    struct got *g = arg;
    g->calls++;
    g->err = a->err;
    g->source = a->source;
    assert_true((a->err == 0) == (a->entry != NULL));
    if (g->then != NULL)
        g->then(g);
    g->sequence = a->err == 0 ? a->entry->sequence : 0; /* valid until here */
}

static bool is_answered(void *arg)
{
    return ((struct got *)arg)->calls > 0;
}

static struct got ask(const struct pubkey *pk, unsigned flags)
{
    struct got g = {0};
    uint64_t handle = resolve_entry(r, pk, flags, on_answer, &g);
    assert_true((handle == 0) == (g.calls == 1));
    if (handle != 0)
        world_until(&hw.w, is_answered, &g);
    assert_int_equal(g.calls, 1);
    return g;
}

static struct resolve_stat stat_now(void)
{
    struct resolve_stat st;
    resolve_stat(r, &st);
    return st;
}

static uint64_t gets_sent(void)
{
    struct kad_stat st;
    kad_stat(hw_kad(&hw, 1), &st);
    return st.calls_sent[KAD_GET_VALUE];
}

static void test_sources(void **state)
{
    (void)state;
    network();
    publish(0, 5, false);
    struct got g = ask(key(0), 0);
    assert_int_equal(g.err, 0);
    assert_int_equal(g.source, RESOLVE_DHT);
    assert_int_equal(g.sequence, 5);
    g = ask(key(0), 0);
    assert_int_equal(g.source, RESOLVE_CACHE);
    assert_int_equal(ask(key(2), 0).err, ERR_NOT_FOUND);
    struct resolve_stat st = stat_now();
    assert_int_equal(st.dht, 1);
    assert_int_equal(st.cache, 1);
    assert_int_equal(st.miss, 1);
    assert_int_equal(st.http, 0);
    assert_int_equal(st.waiting, 0);
    ask(key(0), RESOLVE_UNCOUNTED);
    assert_int_equal(stat_now().cache, 1);
}

static void test_local_store(void **state)
{
    (void)state;
    network();
    publish(0, 7, true); /* node 1 is a full node: it was given a copy */
    struct got g = ask(key(0), 0);
    assert_int_equal(g.source, RESOLVE_LOCAL);
    assert_int_equal(g.sequence, 7);
    assert_int_equal(stat_now().dht, 1);
    g = ask(key(0), RESOLVE_FRESH);
    assert_int_equal(g.source, RESOLVE_DHT);
}

static void test_local_only_never_asks(void **state)
{
    (void)state;
    network();
    publish(0, 5, false);
    uint64_t before = gets_sent();
    struct got g = ask(key(0), RESOLVE_LOCAL_ONLY);
    assert_int_equal(g.err, ERR_NOT_FOUND);
    world_run(&hw.w, NS_PER_S);
    assert_int_equal(gets_sent(), before);
    resolve_set_host(r, NULL); /* nor does it need an engine */
    assert_int_equal(ask(key(0), RESOLVE_LOCAL_ONLY).err, ERR_NOT_FOUND);
    assert_int_equal(ask(key(0), 0).err, ERR_NO_ROUTE);
}

static void test_nobody_to_ask(void **state)
{
    (void)state;
    hw_start(&hw, 1, NULL, NULL);
    hw.node[1].take = take;
    resolve_set_host(r, hw.node[1].h);
    assert_int_equal(ask(key(0), 0).err, ERR_NO_ROUTE);
    assert_int_equal(stat_now().entries, 0); /* that is no negative answer to be kept */
}

/* A miss is kept for 5 s, and does not hide what came meanwhile. */
static void test_negative_answers(void **state)
{
    (void)state;
    network();
    assert_int_equal(ask(key(0), 0).err, ERR_NOT_FOUND);
    struct got g = ask(key(0), 0);
    assert_int_equal(g.err, ERR_NOT_FOUND);
    assert_int_equal(g.source, RESOLVE_CACHE);
    publish(0, 1, true);
    assert_int_equal(ask(key(0), 0).err, 0);
}

static void test_negative_answer_ends(void **state)
{
    (void)state;
    network();
    assert_int_equal(ask(key(0), 0).err, ERR_NOT_FOUND);
    publish(0, 1, false);
    assert_int_equal(ask(key(0), 0).err, ERR_NOT_FOUND); /* nobody told node 1 */
    world_run(&hw.w, RESOLVE_MISS_NS);
    assert_int_equal(ask(key(0), 0).err, 0);
}

static void test_withdrawn_entry_is_a_miss(void **state)
{
    (void)state;
    network();
    publish(0, 1, true);
    assert_int_equal(hw_put(&hw, 0, "dmsg", "{}"), 0);
    struct got g = ask(key(0), 0);
    assert_int_equal(g.err, ERR_NOT_FOUND);
    assert_int_equal(g.calls, 1);
    assert_int_equal(ask(key(0), RESOLVE_FRESH).err, ERR_NOT_FOUND);
}

/* What an owner puts under "dmsg" need not be his entry. */
static void test_items_that_are_no_entry(void **state)
{
    static const char *const values[] = {"hello", "[]", "{\"static\": 5}", "{\"a\":1}"};
    (void)state;
    network();
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        assert_int_equal(hw_put(&hw, 0, "dmsg", values[i]), 0);
        assert_int_equal(ask(key(0), 0).err, ERR_NOT_FOUND);
        assert_int_equal(ask(key(0), RESOLVE_FRESH).err, ERR_NOT_FOUND);
        world_run(&hw.w, RESOLVE_MISS_NS);
    }
}

/* Another one's entry, signed and all, under an own key: never taken for the asked one. */
static void test_entry_of_another_key(void **state)
{
    struct store_rec rec;
    char text[2048];
    (void)state;
    network();
    publish(1, 9, true);
    struct kad_id target = kad_target(key(1), "dmsg", 4);
    assert_int_equal(hw.node[0].store->ops->get(hw.node[0].store, &target, ITEM_OWNER, &rec), 0);
    snprintf(text, sizeof text, "%.*s", (int)rec.item.v_len, (const char *)rec.item.v);
    assert_int_equal(hw_put(&hw, 0, "dmsg", text), 0);
    assert_int_equal(ask(key(0), 0).err, ERR_NOT_FOUND);
    assert_int_equal(ask(key(1), 0).err, 0);
}

static void test_cache_ends(void **state)
{
    (void)state;
    network();
    publish(0, 5, false);
    ask(key(0), 0);
    world_run(&hw.w, RESOLVE_CACHE_NS * 12 / 10);
    assert_true(ask(key(0), 0).source != RESOLVE_CACHE);
}

/* ---- distrust ---- */

static void test_distrust_asks_the_network(void **state)
{
    (void)state;
    network();
    publish(0, 1, false);
    assert_int_equal(ask(key(0), 0).sequence, 1);
    publish(0, 2, false);
    assert_int_equal(ask(key(0), 0).sequence, 1); /* a cache is a cache */
    resolve_distrust(r, key(0));
    struct got g = ask(key(0), 0);
    assert_int_equal(g.source, RESOLVE_DHT);
    assert_int_equal(g.sequence, 2);
    assert_int_equal(ask(key(0), 0).source, RESOLVE_CACHE);
}

/* The DHT's own dials look at the local copy in between; that is no reason to trust it again. */
static void test_local_look_up_keeps_distrust(void **state)
{
    (void)state;
    network();
    publish(0, 1, true);
    assert_int_equal(ask(key(0), 0).source, RESOLVE_LOCAL);
    resolve_distrust(r, key(0));
    assert_int_equal(ask(key(0), RESOLVE_LOCAL_ONLY | RESOLVE_UNCOUNTED).err, 0);
    assert_int_equal(ask(key(0), 0).source, RESOLVE_DHT);
}

/* A newer entry that comes into the store replaces what is cached. */
static void test_stored_record_replaces_the_cache(void **state)
{
    struct store_rec rec;
    (void)state;
    network();
    publish(0, 1, true);
    assert_int_equal(ask(key(0), 0).sequence, 1);
    publish(0, 2, true);
    assert_int_equal(ask(key(0), 0).sequence, 1); /* the test has not told it yet */
    struct kad_id target = kad_target(key(0), "dmsg", 4);
    assert_int_equal(hw.node[1].store->ops->get(hw.node[1].store, &target, ITEM_OWNER, &rec), 0);
    resolve_stored(r, &rec);
    assert_int_equal(ask(key(0), 0).sequence, 2);
    target = kad_target(key(0), "other", 5);
    assert_int_equal(hw_put(&hw, 0, "other", "x"), 0);
    assert_int_equal(hw.node[1].store->ops->get(hw.node[1].store, &target, ITEM_OWNER, &rec), 0);
    resolve_stored(r, &rec); /* not about entries */
    assert_int_equal(ask(key(0), 0).source, RESOLVE_CACHE);
}

/* ---- many at once ---- */

static void test_questions_are_shared(void **state)
{
    struct got g[50] = {{0}};
    (void)state;
    network();
    publish(0, 3, false);
    uint64_t before = gets_sent();
    for (int i = 0; i < 50; i++)
        assert_true(resolve_entry(r, key(0), 0, on_answer, &g[i]) != 0);
    assert_int_equal(stat_now().waiting, 50);
    world_until(&hw.w, is_answered, &g[49]);
    for (int i = 0; i < 50; i++) {
        assert_int_equal(g[i].calls, 1);
        assert_int_equal(g[i].sequence, 3);
    }
    assert_int_equal(gets_sent(), before + 1);
    assert_int_equal(stat_now().dht, 50);
}

static void test_too_many_waiters(void **state)
{
    static struct got g[RESOLVE_WAITERS + 1];
    (void)state;
    network();
    publish(0, 3, false);
    memset(g, 0, sizeof g);
    for (int i = 0; i <= RESOLVE_WAITERS; i++)
        resolve_entry(r, key(0), 0, on_answer, &g[i]);
    assert_int_equal(g[RESOLVE_WAITERS].calls, 1);
    assert_int_equal(g[RESOLVE_WAITERS].err, ERR_BUSY);
    world_until(&hw.w, is_answered, &g[0]);
    assert_int_equal(stat_now().waiting, 0);
}

static void test_cancel(void **state)
{
    struct got a = {0}, b = {0};
    (void)state;
    network();
    publish(0, 3, false);
    uint64_t ha = resolve_entry(r, key(0), 0, on_answer, &a);
    (void)resolve_entry(r, key(0), 0, on_answer, &b);
    resolve_cancel(r, ha);
    resolve_cancel(r, ha);
    resolve_cancel(r, 0);
    resolve_cancel(r, 12345);
    world_until(&hw.w, is_answered, &b);
    assert_int_equal(a.calls, 0);
}

/* The question goes on for the cache when everybody has lost interest. */
static void test_cancel_of_the_only_one(void **state)
{
    struct got a = {0};
    (void)state;
    network();
    publish(0, 3, false);
    resolve_cancel(r, resolve_entry(r, key(0), 0, on_answer, &a));
    world_run(&hw.w, 5 * NS_PER_S);
    assert_int_equal(a.calls, 0);
    assert_int_equal(ask(key(0), 0).source, RESOLVE_CACHE);
}

static void cancel_other(struct got *g)
{
    resolve_cancel(r, g->cancel);
}

/* The first that is told cancels the second, which is waiting for the same answer. */
static void test_cancel_from_a_callback(void **state)
{
    struct got a = {0}, *b = calloc(1, sizeof *b), c = {0};
    (void)state;
    network();
    publish(0, 3, false);
    a.then = cancel_other;
    (void)resolve_entry(r, key(0), 0, on_answer, &a);
    a.cancel = resolve_entry(r, key(0), 0, on_answer, b);
    (void)resolve_entry(r, key(0), 0, on_answer, &c);
    struct got *watched = b;
    world_run(&hw.w, NS_PER_MS);
    world_until(&hw.w, is_answered, &c);
    assert_int_equal(a.calls, 1);
    assert_int_equal(watched->calls, 0);
    assert_int_equal(stat_now().waiting, 0);
    free(b);
}

static void ask_again(struct got *g)
{
    static struct got more;
    more = (struct got){0};
    resolve_distrust(r, key(0));
    resolve_entry(r, key(0), RESOLVE_LOCAL_ONLY, on_answer, &more); /* may replace what is cached */
    resolve_entry(r, key(0), RESOLVE_FRESH, on_answer, &more);
    g->then = NULL;
}

/* A callback that asks and distrusts does not pull the entry from under itself and the others. */
static void test_asking_from_a_callback(void **state)
{
    struct got a = {.then = ask_again}, b = {.then = ask_again}, c = {.then = ask_again};
    (void)state;
    network();
    publish(0, 3, true);
    (void)resolve_entry(r, key(0), RESOLVE_FRESH, on_answer, &a);
    (void)resolve_entry(r, key(0), RESOLVE_FRESH, on_answer, &b);
    world_until(&hw.w, is_answered, &b);
    assert_int_equal(a.sequence, 3);
    assert_int_equal(b.sequence, 3);
    world_run(&hw.w, NS_PER_S);
    resolve_entry(r, key(0), 0, on_answer, &c); /* from the cache */
    assert_int_equal(c.sequence, 3);
    world_run(&hw.w, NS_PER_S);
}

static void test_free_with_questions_under_way(void **state)
{
    struct got a = {0};
    (void)state;
    network();
    assert_true(resolve_entry(r, key(2), 0, on_answer, &a) != 0);
    resolve_set_host(r, NULL);
    resolve_free(r);
    r = NULL;
    world_run(&hw.w, 60 * NS_PER_S);
    assert_int_equal(a.calls, 0);
}

/* ---- a network that cannot be asked (incident 36) ---- */

/* Behind a relay without DHT: nobody answers for 5 s. Who does not insist is told at once that nobody
 * could be asked, which is no miss. */
static void test_alone(void **state)
{
    struct got g = {0}, fresh = {0};
    (void)state;
    hw.w.net.fault.delay_ns = 100 * NS_PER_MS; /* its answers are still under way … */
    hw_start(&hw, 1, &hw.w.relay_key[0].pk, NULL);
    hw.node[1].take = take;
    resolve_set_host(r, hw.node[1].h);
    world_up(&hw.w, 1, 1);
    for (struct pipe_conn *c = hw.w.net.conns; c != NULL; c = c->next)
        c->out.frozen = true; /* … and never come */
    uint64_t began = pipe_now(&hw.w.net);
    uint64_t handle = resolve_entry(r, key(0), 0, on_answer, &g);
    uint64_t fresh_handle = resolve_entry(r, key(0), RESOLVE_FRESH, on_answer, &fresh);
    if (handle != 0)
        world_until(&hw.w, is_answered, &g);
    assert_int_equal(pipe_now(&hw.w.net) - began, RESOLVE_ALONE_NS);
    assert_int_equal(fresh.calls, 0);
    assert_int_equal(g.err, ERR_NO_ROUTE);
    struct got again = {0}; /* the same question is still open: at once */
    assert_int_equal(resolve_entry(r, key(0), 0, on_answer, &again), 0);
    assert_int_equal(again.calls, 1);
    assert_int_equal(again.err, ERR_NO_ROUTE);
    if (fresh_handle != 0)
        world_until(&hw.w, is_answered, &fresh);
    assert_int_equal(fresh.err, ERR_NO_ROUTE);
    struct resolve_stat st = stat_now();
    assert_int_equal(st.entries, 0);
    assert_int_equal(st.waiting, 0);
}

/* A key is polled around the end of its time: the network is asked once. */
static void test_polling(void **state)
{
    uint64_t asked = 0, before;
    (void)state;
    network();
    publish(0, 5, false);
    assert_int_equal(ask(key(0), 0).err, 0);
    for (int i = 0; i < 3; i++) {
        world_run(&hw.w, RESOLVE_CACHE_NS * 11 / 10 - 10 * NS_PER_S);
        struct kad_id target = kad_target(key(0), "dmsg", 4);
        (void)hw.node[1].store->ops->del(hw.node[1].store, &target, ITEM_OWNER);
        for (int k = 0; k < 20; k++) {
            before = gets_sent();
            assert_int_equal(ask(key(0), 0).err, 0);
            asked += gets_sent() - before;
            world_run(&hw.w, NS_PER_S);
        }
    }
    assert_int_equal(asked, 3);
    assert_int_equal(stat_now().miss, 0);
}

/* The network is away: what is cached serves, however old, and nothing becomes "not found". */
static void test_stale_answers_serve(void **state)
{
    (void)state;
    network();
    publish(0, 5, false);
    assert_int_equal(ask(key(0), 0).source, RESOLVE_DHT);
    world_relay_stop(&hw.w, 0);
    for (int i = 0; i < 6; i++) { /* also behind its own time */
        world_run(&hw.w, 120 * NS_PER_S);
        struct kad_id target = kad_target(key(0), "dmsg", 4);
        (void)hw.node[1].store->ops->del(hw.node[1].store, &target, ITEM_OWNER);
        struct got g = ask(key(0), 0);
        assert_int_equal(g.err, 0);
        assert_int_equal(g.source, RESOLVE_CACHE);
        assert_int_equal(g.sequence, 5);
        assert_int_not_equal(ask(key(2), 0).err, ERR_NOT_FOUND); /* unknown, not absent */
    }
    resolve_distrust(r, key(0));
    assert_int_not_equal(ask(key(0), 0).err, 0); /* but not what has failed */
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

/* ---- with a discovery beside ---- */

static struct fake_disc disc;

/* The entry of node i in the discovery. */
static void register_at(int i, uint64_t sequence, bool forged)
{
    struct entry *e;
    struct hash digest;
    struct sig sig;
    assert_int_equal(entry_new_client(&e, key(i), sequence, (int64_t)sequence * 1000,
                                      &hw.w.relay_key[0].pk, 1, ""),
                     0);
    assert_int_equal(entry_digest(&digest, e), 0);
    digest.b[0] ^= forged;
    assert_int_equal(crypto_sign_digest(&sig, &hw.w.client[i].key.sk, &digest), 0);
    assert_int_equal(entry_set_signature(e, &sig), 0);
    fake_disc_set(&disc, e->text, e->text_len);
    entry_free(e);
}

static void beside(bool http_only)
{
    fake_disc_init(&disc, &hw.w.net.loop);
    struct disc_port port = fake_disc_port(&disc);
    resolve_set_http(r, &port, http_only);
}

static void beside_end(void)
{
    resolve_set_http(r, NULL, false);
    fake_disc_free(&disc);
}

static uint64_t now(void)
{
    return hw.w.net.loop.now_ns;
}

/* No DHT peer at all: HTTP is asked at once. */
static void test_http_at_once(void **state)
{
    (void)state;
    beside(false);
    register_at(0, 7, false);
    uint64_t from = now();
    struct got g = ask(key(0), 0);
    assert_int_equal(g.err, 0);
    assert_int_equal(g.source, RESOLVE_HTTP);
    assert_int_equal(g.sequence, 7);
    assert_true(now() - from <= disc.delay_ns + 10 * NS_PER_MS);
    assert_int_equal(ask(key(0), 0).source, RESOLVE_CACHE);
    assert_int_equal(ask(key(2), 0).err, ERR_NOT_FOUND);
    struct resolve_stat st = stat_now();
    assert_true(st.http == 1 && st.cache == 1 && st.miss == 1 && st.dht == 0);
    disc.down = ERR_NO_ROUTE;
    assert_int_equal(ask(&hw.w.relay_key[0].pk, 0).err, ERR_NO_ROUTE);
    beside_end();
}

/* The DHT answers within its head start: HTTP is not asked. */
static void test_dht_wins(void **state)
{
    (void)state;
    network();
    publish(0, 5, false);
    beside(false);
    register_at(0, 4, false);
    struct got g = ask(key(0), 0);
    assert_int_equal(g.source, RESOLVE_DHT);
    assert_int_equal(g.sequence, 5);
    world_run(&hw.w, NS_PER_S);
    assert_int_equal(disc.gets, 0);
    beside_end();
}

/* "Not found" needs both, and what only one has is found; at worst HTTP's time and 60 ms more. */
static void test_both_are_asked(void **state)
{
    (void)state;
    network();
    beside(false);
    disc.delay_ns = 200 * NS_PER_MS;
    register_at(2, 3, false);
    uint64_t from = now();
    struct got g = ask(key(2), 0);
    assert_int_equal(g.source, RESOLVE_HTTP);
    assert_true(now() - from <= disc.delay_ns + 60 * NS_PER_MS);
    assert_int_equal(ask(&hw.w.relay_key[0].pk, 0).err, ERR_NOT_FOUND);
    assert_int_equal(disc.gets, 2);
    /* HTTP is slow or lies: the DHT's word stands */
    publish(0, 5, false);
    disc.delay_ns = 60 * NS_PER_S;
    register_at(0, 9, true);
    assert_int_equal(ask(key(0), RESOLVE_FRESH).source, RESOLVE_DHT);
    world_run(&hw.w, 100 * NS_PER_S);
    assert_int_equal(ask(key(0), 0).sequence, 5);
    beside_end();
}

/* Questions about one key are one request, whoever waits. */
static void test_http_single_flight(void **state)
{
    (void)state;
    struct got g[20] = {{0}};
    beside(false);
    register_at(0, 7, false);
    for (int i = 0; i < 20; i++)
        assert_true(resolve_entry(r, key(0), 0, on_answer, &g[i]) != 0);
    world_run(&hw.w, NS_PER_S);
    for (int i = 0; i < 20; i++)
        assert_int_equal(g[i].calls, 1);
    assert_int_equal(disc.gets, 1);
    beside_end();
}

/* Both find it: the first answers, the newer one is kept. */
static void test_the_other_refreshes(void **state)
{
    (void)state;
    network();
    publish(0, 5, false);
    beside(false);
    register_at(0, 9, false);
    for (int i = 0; i < 10; i++) /* the DHT seems to know nothing: HTTP starts with it */
        (void)ask(i % 2 == 0 ? key(2) : &hw.w.relay_key[0].pk, RESOLVE_FRESH);
    unsigned gets = disc.gets;
    disc.delay_ns = 300 * NS_PER_MS;
    struct got g = ask(key(0), RESOLVE_FRESH);
    assert_int_equal(g.source, RESOLVE_DHT);
    assert_int_equal(g.sequence, 5);
    world_run(&hw.w, NS_PER_S);
    assert_int_equal(disc.gets, gets + 1);
    assert_int_equal(ask(key(0), 0).sequence, 9);
    beside_end();
}

static void test_http_only(void **state)
{
    (void)state;
    network();
    publish(0, 5, false);
    beside(true);
    uint64_t before = gets_sent();
    assert_int_equal(ask(key(0), 0).err, ERR_NOT_FOUND);
    assert_int_equal(gets_sent(), before);
    beside_end();
    /* the discovery goes away while it is asked */
    beside(false);
    struct got g = {0};
    hw.node[1].take = NULL;
    assert_true(resolve_entry(r, &hw.w.relay_key[0].pk, 0, on_answer, &g) != 0);
    beside_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_alone),
        TEST(test_polling),
        TEST(test_stale_answers_serve),
        TEST(test_sources),
        TEST(test_local_store),
        TEST(test_local_only_never_asks),
        TEST(test_nobody_to_ask),
        TEST(test_negative_answers),
        TEST(test_negative_answer_ends),
        TEST(test_withdrawn_entry_is_a_miss),
        TEST(test_items_that_are_no_entry),
        TEST(test_entry_of_another_key),
        TEST(test_cache_ends),
        TEST(test_distrust_asks_the_network),
        TEST(test_local_look_up_keeps_distrust),
        TEST(test_stored_record_replaces_the_cache),
        TEST(test_questions_are_shared),
        TEST(test_too_many_waiters),
        TEST(test_cancel),
        TEST(test_cancel_of_the_only_one),
        TEST(test_cancel_from_a_callback),
        TEST(test_asking_from_a_callback),
        TEST(test_free_with_questions_under_way),
        cmocka_unit_test_setup_teardown(test_http_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dht_wins, setup, teardown),
        cmocka_unit_test_setup_teardown(test_both_are_asked, setup, teardown),
        cmocka_unit_test_setup_teardown(test_http_single_flight, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_other_refreshes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_http_only, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
