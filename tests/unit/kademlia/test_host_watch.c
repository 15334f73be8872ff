/*
 * Watches over real streams: what changes is pushed, once and no faster than it may be; what cannot be
 * pushed is polled; who has gone is forgotten.
 */
#include "base/err.h"
#include "kademlia/codec_msgpack.h"
#include "tests/unit/kademlia/dht_items.h"
#include "tests/unit/kademlia/host_fixture.h"

#define MAX_SEEN 64

struct seen { /* what the watches of a node reported */
    int i;
    unsigned n;
    char value[MAX_SEEN][32];
    int err[MAX_SEEN];
    void *user[MAX_SEEN];
};
static struct seen seen[WORLD_CLIENTS];

static bool take(void *arg, const struct kad_report *r)
{
    struct seen *s = arg;
    if (r->type != KAD_OP_WATCH)
        return false;
    assert_true(s->n < MAX_SEEN);
    assert_non_null(r->item);
    s->err[s->n] = r->err;
    s->user[s->n] = r->user;
    snprintf(s->value[s->n++], sizeof s->value[0], "%.*s", (int)r->item->item.v_len,
             (const char *)r->item->item.v);
    return true;
}

static int setup(void **state)
{
    hw_setup(state);
    memset(seen, 0, sizeof seen);
    for (int i = 0; i < WORLD_CLIENTS; i++) {
        seen[i].i = i;
        hw.node[i].take = take;
        hw.node[i].arg = &seen[i];
    }
    return 0;
}

static struct kad_stat stat_of(int i)
{
    struct kad_stat st;
    kad_stat(hw_kad(&hw, i), &st);
    return st;
}

static struct kad_watch_stat watching(int i)
{
    struct kad_watch_stat st;
    kad_watch_stat(hw_kad(&hw, i), &st);
    return st;
}

static void nodes(int n)
{
    hw_start(&hw, 0, NULL, NULL);
    world_up(&hw.w, 0, 1);
    for (int i = 1; i < n; i++) {
        hw_start(&hw, i, hw_key(0), NULL);
        world_up(&hw.w, i, 1);
    }
    for (int i = 0; i < n; i++)
        hw_peers(&hw, i, (size_t)n - 1);
    world_run(&hw.w, 2 * NS_PER_S);
}

static uint32_t watch(int i, int whose, const char *salt, void *user)
{
    uint32_t number =
        kad_watch(hw_kad(&hw, i), hw_key(whose), salt, strlen(salt), user, pipe_now(&hw.w.net));
    assert_true(number != 0);
    host_kick(hw.node[i].h);
    return number;
}

struct want {
    struct seen *s;
    unsigned n;
};

static bool has_seen(void *arg)
{
    struct want *w = arg;
    return w->s->n >= w->n;
}

static void wait_seen(int i, unsigned n)
{
    struct want w = {&seen[i], n};
    world_until(&hw.w, has_seen, &w);
}

static void expect(int i, unsigned n, const char *value)
{
    wait_seen(i, n);
    assert_int_equal(seen[i].n, n);
    assert_string_equal(seen[i].value[n - 1], value);
}

static void test_pushed(void **state)
{
    int user;
    (void)state;
    nodes(3);
    assert_int_equal(hw_put(&hw, 1, "note", "one"), 0);
    watch(2, 1, "note", &user);
    expect(2, 1, "one"); /* what is there already */
    assert_ptr_equal(seen[2].user[0], &user);
    world_run(&hw.w, 2 * NS_PER_S);
    struct kad_watch_stat st = watching(0), mine = watching(2);
    assert_true(st.watched == 1 || watching(1).watched == 1);
    assert_int_equal(mine.watches, 1);
    uint64_t begin = pipe_now(&hw.w.net);
    assert_int_equal(hw_put(&hw, 1, "note", "two"), 0);
    expect(2, 2, "two");
    assert_true(pipe_now(&hw.w.net) - begin < 2 * NS_PER_S); /* not by a poll */
    /* And the streams stay for it, and nothing is told of values that are only published anew. */
    world_run(&hw.w, 3600 * NS_PER_S);
    begin = pipe_now(&hw.w.net);
    assert_int_equal(hw_put(&hw, 1, "note", "three"), 0);
    expect(2, 3, "three");
    assert_true(pipe_now(&hw.w.net) - begin < 2 * NS_PER_S);
    assert_int_equal(watching(2).pushes_unasked, 0);
}

/* The publisher is a watcher's only neighbour: it pushes its own changes. */
static void test_publisher_pushes(void **state)
{
    (void)state;
    nodes(2);
    watch(1, 0, "note", NULL);
    world_run(&hw.w, 5 * NS_PER_S);
    assert_int_equal(seen[1].n, 0);
    assert_int_equal(watching(0).watched, 1);
    kad_put(hw_kad(&hw, 0), "note", 4, "mine", 4, false, 0, &hw.node[0], pipe_now(&hw.w.net));
    host_kick(hw.node[0].h);
    expect(1, 1, "mine");
}

static void test_tombstone(void **state)
{
    (void)state;
    nodes(2);
    assert_int_equal(hw_put(&hw, 0, "dmsg", "{\"a\":1}"), 0);
    watch(1, 0, "dmsg", NULL);
    wait_seen(1, 1);
    world_run(&hw.w, 2 * NS_PER_S);
    hw_put(&hw, 0, "dmsg", "{}");
    wait_seen(1, 2);
    assert_int_equal(seen[1].err[1], ERR_NOT_FOUND);
}

/* Ten changes in one second are one or two pushes, and the last one is among them. */
static void test_coalesced(void **state)
{
    (void)state;
    nodes(2);
    watch(1, 0, "note", NULL);
    world_run(&hw.w, 5 * NS_PER_S);
    for (int i = 0; i < 10; i++) {
        char v[16];
        snprintf(v, sizeof v, "v%d", i);
        /* without the watcher, which would get it as one of the closest */
        struct item_ref *item = dht_item(&hw.w.client[0].key.sk, (uint64_t)i + 1, "note", v);
        struct store_rec rec = {.target = item_target(&item->item),
                                .item = item->item,
                                .stored_ns = 1,
                                .expires_ns = INT64_MAX,
                                .origin = STORE_OWN,
                                .charged = item->item.k};
        assert_int_equal(hw.node[0].store->ops->put(hw.node[0].store, &rec), 0);
        kad_slot_changed(hw_kad(&hw, 0), &rec.target);
        host_kick(hw.node[0].h);
        item_ref_put(item);
        world_run(&hw.w, 50 * NS_PER_MS);
    }
    world_run(&hw.w, 3 * NS_PER_S);
    assert_in_range(seen[1].n, 1, 2);
    assert_string_equal(seen[1].value[seen[1].n - 1], "v9");
    assert_in_range(watching(0).pushes_sent, 1, 2);
}

/* A change between the look-up of a watch and its subscription is not missed. */
static void test_change_in_between(void **state)
{
    (void)state;
    nodes(2);
    watch(1, 0, "note", NULL);
    world_run(&hw.w, 5 * NS_PER_MS);
    assert_int_equal(watching(0).watched, 0); /* not yet */
    struct item_ref *item = dht_item(&hw.w.client[0].key.sk, 1, "note", "between");
    struct store_rec rec = {.target = item_target(&item->item),
                            .item = item->item,
                            .stored_ns = env_wall_ns(&hw.w.env.env),
                            .expires_ns = INT64_MAX,
                            .origin = STORE_OWN,
                            .charged = item->item.k};
    assert_int_equal(hw.node[0].store->ops->put(hw.node[0].store, &rec), 0);
    item_ref_put(item);
    expect(1, 1, "between");
}

/* JSON peers push nothing: the slot is polled. */
static void test_polled(void **state)
{
    (void)state;
    hw.node[0].json_only = true;
    nodes(2);
    watch(1, 0, "note", NULL);
    world_run(&hw.w, 5 * NS_PER_S);
    assert_int_equal(watching(0).watched, 0);
    struct item_ref *item = dht_item(&hw.w.client[0].key.sk, 1, "note", "polled");
    struct store_rec rec = {.target = item_target(&item->item),
                            .item = item->item,
                            .stored_ns = 1,
                            .expires_ns = INT64_MAX,
                            .origin = STORE_OWN,
                            .charged = item->item.k};
    assert_int_equal(hw.node[0].store->ops->put(hw.node[0].store, &rec), 0);
    item_ref_put(item);
    world_run(&hw.w, 100 * NS_PER_S);
    expect(1, 1, "polled");
    assert_true(watching(1).polls > 0);
}

static void test_two_users_of_one_slot(void **state)
{
    int a, b;
    (void)state;
    nodes(2);
    uint32_t first = watch(1, 0, "note", &a);
    watch(1, 0, "note", &b);
    world_run(&hw.w, 5 * NS_PER_S);
    assert_int_equal(watching(0).watched, 1);
    assert_int_equal(hw_put(&hw, 0, "note", "x"), 0);
    wait_seen(1, 2);
    assert_ptr_not_equal(seen[1].user[0], seen[1].user[1]);
    kad_unwatch(hw_kad(&hw, 1), first);
    world_run(&hw.w, 5 * NS_PER_S);
    assert_int_equal(hw_put(&hw, 0, "note", "y"), 0);
    wait_seen(1, 3);
    assert_ptr_equal(seen[1].user[2], &b);
    world_run(&hw.w, 5 * NS_PER_S);
    assert_int_equal(seen[1].n, 3);
}

static void test_unwatch(void **state)
{
    (void)state;
    nodes(2);
    uint32_t a = watch(1, 0, "a", NULL), b = watch(1, 0, "b", NULL);
    world_run(&hw.w, 5 * NS_PER_S);
    assert_int_equal(watching(0).watched, 2);
    kad_unwatch(hw_kad(&hw, 1), a);
    host_kick(hw.node[1].h);
    world_run(&hw.w, 5 * NS_PER_S);
    assert_int_equal(watching(0).watched, 1); /* ended by name */
    kad_unwatch(hw_kad(&hw, 1), b);
    kad_unwatch(hw_kad(&hw, 1), b);
    assert_int_equal(watching(1).watches, 0);
    world_run(&hw.w, 900 * NS_PER_S);
    assert_int_equal(watching(0).watched, 0); /* by the lease */
    assert_int_equal(watching(0).watchers, 0);
}

/* More subscriptions than one message holds, kept over many leases; then most of them end at once. */
static void test_many(void **state)
{
    enum { N = 1200 };
    static uint32_t number[N];
    (void)state;
    nodes(2);
    for (int i = 0; i < N; i++) {
        char salt[16];
        snprintf(salt, sizeof salt, "s%d", i);
        number[i] = watch(1, 0, salt, NULL);
    }
    world_run(&hw.w, 600 * NS_PER_S);
    assert_int_equal(watching(0).watched, N);
    uint64_t before = stat_of(0).requests[KAD_WATCH];
    world_run(&hw.w, 900 * NS_PER_S);
    assert_in_range(stat_of(0).requests[KAD_WATCH] - before, 2, 6); /* one renewal for all */
    assert_int_equal(watching(0).watched, N);
    for (int i = 0; i < N - 10; i++)
        kad_unwatch(hw_kad(&hw, 1), number[i]);
    host_kick(hw.node[1].h);
    world_run(&hw.w, 60 * NS_PER_S);
    assert_int_equal(watching(0).watched, 10);
}

/* A server that restarts has forgotten everything and is told again. */
static void test_server_restarts(void **state)
{
    (void)state;
    nodes(2);
    watch(1, 0, "note", NULL);
    world_run(&hw.w, 5 * NS_PER_S);
    hw_stop(&hw, 0);
    world_run(&hw.w, 5 * NS_PER_S);
    hw_start(&hw, 0, NULL, NULL);
    world_up(&hw.w, 0, 1);
    for (int i = 0; i < 40 && watching(0).watched == 0; i++)
        world_run(&hw.w, 60 * NS_PER_S);
    assert_int_equal(watching(0).watched, 1);
    hw_peers(&hw, 0, 1);
    hw_put(&hw, 0, "note", "again");
    expect(1, 1, "again");
}

/* The watcher has gone: the first push that finds no stream ends it. */
static void test_watcher_gone(void **state)
{
    (void)state;
    nodes(2);
    watch(1, 0, "note", NULL);
    world_run(&hw.w, 5 * NS_PER_S);
    assert_int_equal(watching(0).watched, 1);
    hw_stop(&hw, 1);
    world_run(&hw.w, 5 * NS_PER_S);
    struct kad_id target = kad_target(hw_key(0), "note", 4);
    hw_put(&hw, 0, "note", "x");
    kad_slot_changed(hw_kad(&hw, 0), &target);
    host_kick(hw.node[0].h);
    world_run(&hw.w, 5 * NS_PER_S);
    assert_int_equal(watching(0).watched, 0);
    assert_int_equal(watching(0).watchers_lost, 1);
}

/* What nobody asked for, and what is no true item, tells nobody anything. */
static void test_lies(void **state)
{
    struct kad_msg m;
    (void)state;
    nodes(2);
    watch(1, 0, "note", NULL);
    world_run(&hw.w, 5 * NS_PER_S);
    kad_peer from = host_peer(hw.node[1].h, hw_key(0));
    struct item_ref *other = dht_item(&hw.w.client[0].key.sk, 5, "other", "x");
    struct item_ref *forged = dht_item(&hw.w.client[2].key.sk, 5, "note", "x");
    forged->item.k = *hw_key(0);
    struct kad_id slot = kad_target(hw_key(0), "note", 4);
    kad_msg_init(&m, KAD_CHANGED, false);
    assert_int_equal(kad_msg_add_item(&m, other, NULL), 0);
    assert_int_equal(kad_msg_add_item(&m, other, &slot), 0);
    assert_int_equal(kad_msg_add_item(&m, forged, &slot), 0);
    kad_changed(hw_kad(&hw, 1), from, &m, pipe_now(&hw.w.net));
    host_kick(hw.node[1].h);
    world_run(&hw.w, 5 * NS_PER_S);
    assert_int_equal(seen[1].n, 0);
    assert_true(watching(1).pushes_unasked >= 1);
    kad_peer stranger = host_peer(hw.node[1].h, hw_key(2));
    kad_msg_init(&m, KAD_CHANGED, false);
    assert_int_equal(kad_msg_add_item(&m, forged, &slot), 0);
    kad_changed(hw_kad(&hw, 1), stranger, &m, pipe_now(&hw.w.net));
    assert_int_equal(watching(1).pushes_unasked, 2);
    host_unref(hw.node[1].h, from);
    host_unref(hw.node[1].h, stranger);
    item_ref_put(other);
    item_ref_put(forged);
}

static void test_bounds(void **state)
{
    char salt[ITEM_MAX_SALT + 1] = {0};
    (void)state;
    nodes(1);
    assert_int_equal(kad_watch(hw_kad(&hw, 0), hw_key(1), salt, sizeof salt, NULL, 0), 0);
    watch(0, 1, "alone", NULL); /* with nobody to ask */
    world_run(&hw.w, 300 * NS_PER_S);
    assert_int_equal(seen[0].n, 0);
    kad_unwatch(hw_kad(&hw, 0), 12345);
}

/* Freed with everything under way. */
static void test_free_under_way(void **state)
{
    (void)state;
    nodes(3);
    for (int i = 0; i < 100; i++) {
        char salt[16];
        snprintf(salt, sizeof salt, "s%d", i);
        watch(2, 1, salt, NULL);
        watch(1, 2, salt, NULL);
        if (i % 10 == 0)
            world_run(&hw.w, NS_PER_MS);
    }
    hw_stop(&hw, 2);
    world_run(&hw.w, NS_PER_S);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, hw_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_pushed),
        TEST(test_publisher_pushes),
        TEST(test_tombstone),
        TEST(test_coalesced),
        TEST(test_change_in_between),
        TEST(test_polled),
        TEST(test_two_users_of_one_slot),
        TEST(test_unwatch),
        TEST(test_many),
        TEST(test_server_restarts),
        TEST(test_watcher_gone),
        TEST(test_lies),
        TEST(test_bounds),
        TEST(test_free_under_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
