/* Pull and push between full nodes, with peers of every version and honesty (dht.md §2.6, §3.4,
 * §5.3, §8.2 points 8 and 11, incident 59). */
#include "base/err.h"
#include "kademlia/codec_json.h"
#include "tests/unit/kademlia/dht_items.h"
#include "tests/unit/kademlia/net.h"

#define MINUTE_MS UINT64_C(60000)
#define KEYS      40

static struct net n;
static struct seckey sks[KEYS];
static struct pubkey pks[KEYS];
static struct kad_cfg full = {.full = true, .limits = {.slots_per_key = 100000}};

static int setup(void **state)
{
    struct prop r = prop_init("sync");

    (void)state;
    net_init(&n, prop_u64(&r));
    n.json = false;
    for (size_t i = 0; i < KEYS; i++) {
        uint8_t seed[32] = {4, (uint8_t)i};
        if (crypto_keypair(&sks[i], &pks[i], seed) != 0)
            return -1;
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    net_close(&n);
    return 0;
}

/* Straight into a store, as if put long ago. */
static void store_put(struct net_node *node, const struct item_ref *item)
{
    struct store_rec r = {.target = item_target(&item->item),
                          .item = item->item,
                          .stored_ns = node->env.wall_ns,
                          .expires_ns = node->env.wall_ns + 7200 * (int64_t)NS_PER_S,
                          .origin = STORE_REPLICA,
                          .charged = item->item.k};

    assert_int_equal(node->store->ops->put(node->store, &r), 0);
}

static void fill(struct net_node *node, size_t count, uint64_t ties)
{
    for (size_t i = 0; i < count; i++) {
        char salt[16];
        snprintf(salt, sizeof salt, "s%u", (unsigned)(i / KEYS));
        uint64_t seq = prop_chance(&n.rnd, 10) ? 1 + prop_below(&n.rnd, ties) : 1000 + i;
        struct item_ref *item = dht_item(&sks[i % KEYS], seq, salt, "value");
        store_put(node, item);
        item_ref_put(item);
    }
}

static uint64_t items_of(struct net_node *node)
{
    struct store_stat st;

    node->store->ops->stat(node->store, &st);
    return st.items;
}

struct comparison {
    struct net_node *big;
    size_t missing;
};

static bool compare_one(void *arg, const struct store_rec *r)
{
    struct comparison *c = arg;
    struct store_rec got;

    c->missing += c->big->store->ops->get(c->big->store, &r->target, r->kind, &got) != 0;
    return true;
}

static size_t missing_in(struct net_node *big, struct net_node *small)
{
    struct comparison c = {.big = big};

    assert_int_equal(small->store->ops->scan(small->store, NULL, compare_one, &c), 0);
    return c.missing;
}

static struct kad_report sync_with(struct net_node *a, struct net_node *b)
{
    return net_wait(a, kad_sync(a->kad, b->peer, NULL, n.now_ns));
}

/* ---- peers of other kinds: they answer GET_ITEMS out of a list ---- */

struct listing {
    struct item_ref **items;
    size_t n;
    bool unsorted, no_targets, endless, repeat;
    size_t frame; /* longest answer in bytes of values, 0 = none */
    bool no_batch;
    unsigned pages;
};

static int by_seq(const void *a, const void *b)
{
    const struct item_ref *x = *(struct item_ref *const *)a, *y = *(struct item_ref *const *)b;

    return x->item.seq < y->item.seq ? -1 : x->item.seq > y->item.seq;
}

static bool wanted(const struct item_ref *item, const struct kad_msg *req)
{
    return item->item.seq > req->since_seq &&
           (req->salt_len == 0 || (item->item.salt_len == req->salt_len &&
                                   memcmp(item->item.salt, req->salt, req->salt_len) == 0));
}

static bool list_items(struct net_node *node, struct net_node *from, struct kad_msg *req,
                       struct kad_msg *rsp, int *fail)
{
    struct listing *l = node->arg;
    size_t limit = req->limit > 0 ? (size_t)req->limit : 1000, bytes = 0;
    uint64_t last = 0;

    (void)from;
    if (req->method == KAD_PUT_BATCH && l->no_batch) {
        *fail = KAD_FAIL_CLOSED;
        return true;
    }
    if (req->method != KAD_GET_ITEMS)
        return false;
    l->pages++;
    if (!l->unsorted) {
        qsort(l->items, l->n, sizeof *l->items, by_seq);
    } else { /* another order each time */
        for (size_t i = l->n; i > 1; i--) {
            size_t j = prop_below(&n.rnd, i);
            struct item_ref *t = l->items[i - 1];
            l->items[i - 1] = l->items[j];
            l->items[j] = t;
        }
    }
    for (size_t i = 0; i < l->n && !rsp->has_more; i++) {
        struct item_ref *item = l->items[i];
        struct kad_id target = item_target(&item->item);
        if (!l->repeat && !wanted(item, req))
            continue;
        if (rsp->n_items >= limit && (l->unsorted || item->item.seq != last)) {
            rsp->has_more = true;
            break;
        }
        last = item->item.seq;
        bytes += item->item.v_len + 200;
        assert_int_equal(kad_msg_add_item(rsp, item, l->no_targets ? NULL : &target), 0);
    }
    rsp->has_more |= l->endless;
    if (l->frame > 0 && bytes > l->frame)
        *fail = KAD_FAIL_TOO_LONG;
    return true;
}

static struct net_node *add_listing(struct listing *l, size_t count, size_t v_len)
{
    static const char *const salts[] = {"dmsg", "tp", "svc"};
    struct net_node *node = net_add(&n, NULL);
    char *v = malloc(v_len + 1);

    assert_non_null(v);
    memset(v, 'v', v_len);
    v[v_len] = '\0';
    l->items = calloc(count, sizeof *l->items);
    assert_non_null(l->items);
    for (size_t i = 0; i < count; i++) {
        struct seckey sk;
        struct pubkey pk;
        uint8_t seed[32] = {3, (uint8_t)i, (uint8_t)(i >> 8)};
        assert_int_equal(crypto_keypair(&sk, &pk, seed), 0);
        l->items[l->n++] = dht_item(&sk, 100 + i / 2, salts[i % 3], v);
    }
    free(v);
    node->mode = NET_CUSTOM;
    node->answer = list_items;
    node->arg = l;
    return node;
}

static void free_listing(struct listing *l)
{
    for (size_t i = 0; i < l->n; i++)
        item_ref_put(l->items[i]);
    free(l->items);
}

/* ---- with our own kind ---- */

/* Incident 59: every item arrives, ties and concurrent changes included; and what the other side
 * lacks is pushed. */
static void test_incident_59_pull_and_push(void **state)
{
    struct net_node *b = net_add(&n, &full), *a;

    (void)state;
    n.json = true;
    fill(b, 5000, 50);
    a = net_add(&n, &full);        /* b is its bootstrap: the first round starts by itself */
    for (int i = 0; i < 40; i++) { /* changing meanwhile */
        struct item_ref *item = dht_item(&sks[i], 100000 + (uint64_t)i, "new", "v");
        store_put(b, item);
        item_ref_put(item);
        net_run(&n, 100);
    }
    struct kad_stat st;
    net_run(&n, 2 * MINUTE_MS);
    kad_stat(a->kad, &st);
    assert_true(st.synced);
    assert_true(missing_in(a, b) <= 40); /* what came too late for the first round */
    struct kad_report r = sync_with(a, b);
    assert_int_equal(r.err, 0);
    net_report_clear(&r);
    assert_int_equal(missing_in(a, b), 0);

    for (size_t i = 0; i < 300; i++) {
        char salt[16];
        snprintf(salt, sizeof salt, "only-a-%zu", i);
        struct item_ref *item = dht_item(&sks[i % KEYS], 7, salt, "v");
        store_put(a, item);
        item_ref_put(item);
    }
    r = sync_with(a, b);
    assert_int_equal(r.err, 0);
    assert_int_equal(r.pushed, 300);
    net_report_clear(&r);
    assert_int_equal(missing_in(b, a), 0);
    r = sync_with(a, b); /* believed when it is listed, not when it was said */
    assert_int_equal(r.err, 0);
    assert_int_equal(r.pulled, 0);
    assert_int_equal(r.pushed, 0);
    net_report_clear(&r);
}

/* Pages stay below the frames of the peers, whatever is in the store (§8.2 point 8). */
static void test_pages_and_batches_fit_the_frames(void **state)
{
    static char big[ITEM_MAX_VALUE + 1];
    struct net_node *b = net_add(&n, &full), *a = net_add(&n, &full);

    (void)state;
    n.json = true; /* the codec refuses what is too long */
    memset(big, 'b', ITEM_MAX_VALUE);
    for (size_t i = 0; i < 120; i++) {
        char salt[16];
        snprintf(salt, sizeof salt, "big%zu", i);
        /* A tie that fills more than half a frame, single ones around it. */
        uint64_t seq = i >= 40 && i < 70 ? 40 : i + 1;
        struct item_ref *item = dht_item(&sks[i % KEYS], seq, salt, big);
        store_put(i % 2 == 0 ? a : b, item);
        item_ref_put(item);
    }
    net_run(&n, 5 * MINUTE_MS);
    struct kad_report r = sync_with(a, b);
    assert_int_equal(r.err, 0);
    net_report_clear(&r);
    assert_int_equal(missing_in(a, b), 0);
    assert_int_equal(missing_in(b, a), 0);
    assert_int_equal(items_of(a), items_of(b));
}

/* Many items under one number: more than any frame. The listing goes on behind them. */
static void test_tie_larger_than_a_frame(void **state)
{
    static char big[ITEM_MAX_VALUE + 1];
    struct net_node *b = net_add(&n, &full), *a = net_add(&n, NULL);

    (void)state;
    n.json = true;
    memset(big, 'b', ITEM_MAX_VALUE);
    for (size_t i = 0; i < 61; i++) {
        char salt[16];
        snprintf(salt, sizeof salt, "big%zu", i);
        struct item_ref *item = dht_item(&sks[i % KEYS], i < 60 ? 5 : 6, salt, big);
        store_put(b, item);
        item_ref_put(item);
    }
    net_run(&n, 10000);
    struct kad_report r = sync_with(a, b);
    assert_int_equal(r.err, 0);
    assert_true(r.pulled > 40);
    net_report_clear(&r);
    struct kad_id last = kad_target(&pks[60 % KEYS], "big60", 5);
    struct store_rec rec;
    assert_int_equal(a->store->ops->get(a->store, &last, ITEM_OWNER, &rec), 0);
}

/* An asker pays for what it reads. */
static void test_pages_are_charged(void **state)
{
    static char big[ITEM_MAX_VALUE + 1];
    struct kad_cfg cfg = {.full = true, .limits = {.rate_bytes_per_s = 131072}};
    struct net_node *b = net_add(&n, &cfg), *a = net_add(&n, NULL);
    unsigned answered = 0;

    (void)state;
    memset(big, 'b', ITEM_MAX_VALUE);
    for (size_t i = 0; i < 40; i++) {
        struct item_ref *item = dht_item(&sks[i], i + 1, "big", big);
        store_put(b, item);
        item_ref_put(item);
    }
    for (int i = 0; i < 20; i++) {
        struct kad_msg req, rsp;
        kad_msg_init(&req, KAD_GET_ITEMS, false);
        if (!net_ask(b, a, &req, &rsp))
            break;
        answered++;
        kad_msg_clear(&rsp);
    }
    assert_true(answered >= 2 && answered <= 5);
    net_run(&n, 20000);
    struct kad_msg req, rsp;
    kad_msg_init(&req, KAD_GET_ITEMS, false);
    assert_true(net_ask(b, a, &req, &rsp));
    kad_msg_clear(&rsp);
}

/* Refused for a while is not refused for ever: a sync waits and goes on. */
static void test_sync_outlasts_rate_limits(void **state)
{
    static char big[20001];
    struct kad_cfg cfg = {.full = true,
                          .limits = {.slots_per_key = 1000, .rate_bytes_per_s = 400000}};
    struct net_node *b = net_add(&n, &cfg), *a = net_add(&n, NULL);

    (void)state;
    memset(big, 'b', sizeof big - 1);
    for (size_t i = 0; i < 1000; i++) { /* 27 MB on the wire, 400 kB/s: some 60 s */
        char salt[16];
        snprintf(salt, sizeof salt, "s%zu", i);
        struct item_ref *item = dht_item(&sks[i % KEYS], i + 1, salt, big);
        store_put(b, item);
        item_ref_put(item);
    }
    net_run(&n, 5000);
    a->cfg.limits.slots_per_key = 1000;
    net_restart(a, true);
    net_run(&n, 5000);
    struct kad_report r = sync_with(a, b);
    assert_int_equal(r.err, 0);
    assert_int_equal(r.pulled, 1000);
    net_report_clear(&r);
}

/* ---- with others ---- */

static void pull_listing(struct listing *l, size_t count, size_t v_len, size_t want, int err)
{
    struct net_node *boot = net_add(&n, NULL), *a = net_add(&n, NULL);
    struct net_node *b = add_listing(l, count, v_len);

    (void)boot;
    a->cfg.limits.slots_per_key = 100000;
    net_restart(a, true);
    net_run(&n, 5000);
    struct kad_report r = sync_with(a, b);
    assert_int_equal(r.err, err);
    assert_int_equal(r.pulled, want);
    net_report_clear(&r);
    free_listing(l);
}

static void test_sorted_peer(void **state)
{
    struct listing l = {0};

    (void)state;
    pull_listing(&l, 2500, 5, 2500, 0);
    assert_in_range(l.pages, 3, 4);
}

static void test_peer_without_targets(void **state)
{
    struct listing l = {.no_targets = true};

    (void)state;
    pull_listing(&l, 300, 5, 300, 0);
}

/* The first builds: no order, cut at the limit. */
static void test_unsorted_peer(void **state)
{
    struct listing l = {.unsorted = true};

    (void)state;
    pull_listing(&l, 3000, 5, 3000, 0);
    assert_true(l.pages <= 3);
}

/* More than one page can hold: salt by salt. */
static void test_unsorted_peer_with_many_items(void **state)
{
    struct listing l = {.unsorted = true};

    (void)state;
    pull_listing(&l, 6000, 5, 6000, 0);
}

/* "has_more" for ever: the cursor does not grow, so it ends. */
static void test_endless_peer(void **state)
{
    struct listing l = {.endless = true}, m = {.endless = true, .repeat = true};

    (void)state;
    pull_listing(&l, 1500, 5, 1500, 0);
    assert_true(l.pages <= 4);
    struct net_node *b = add_listing(&m, 20, 5), *a = net_node(&n, 0);
    struct kad_report r = sync_with(a, b);
    assert_int_equal(r.err, 0);
    assert_int_equal(r.pulled, 20);
    net_report_clear(&r);
    assert_true(m.pages <= 3);
    free_listing(&m);
}

/* The size trap: answers too long for a frame at limit 1000, and at 100, and at 10. */
static void test_page_limit_falls_back(void **state)
{
    struct listing l = {.frame = 200000};

    (void)state;
    pull_listing(&l, 200, 30000, 200, 0);
}

static void test_page_that_never_fits(void **state)
{
    struct listing l = {.frame = 1000};

    (void)state;
    pull_listing(&l, 10, 30000, 0, ERR_TOO_LONG);
    assert_int_equal(l.pages, 4); /* 1000, 100, 10, 1 */
}

static void test_peer_without_method_5(void **state)
{
    struct net_node *boot = net_add(&n, NULL), *a = net_add(&n, NULL), *b = net_add(&n, NULL);

    (void)state;
    (void)boot;
    net_run(&n, 3000);
    b->mode = NET_CLOSES;
    struct kad_report r = sync_with(a, b);
    assert_int_equal(r.err, ERR_UNSUPPORTED);
    assert_true(r.ended_ns - r.started_ns < 60 * NS_PER_S);
    net_report_clear(&r);
    b->mode = NET_MUTE;
    r = sync_with(a, b);
    assert_int_equal(r.err, ERR_TIMEOUT);
    assert_true(r.ended_ns - r.started_ns <= 300 * NS_PER_S);
    net_report_clear(&r);
}

/* A peer that closes on PUT_BATCH gets single puts. */
static void test_peer_without_method_6(void **state)
{
    struct listing l = {.no_batch = true};
    struct net_node *b = add_listing(&l, 10, 5), *a = net_add(&n, &full); /* b: its bootstrap */

    (void)state;
    net_run(&n, 20000);
    for (size_t i = 0; i < 30; i++) {
        struct item_ref *item = dht_item(&sks[i], 9, "mine", "v");
        store_put(a, item);
        item_ref_put(item);
    }
    struct kad_report r = sync_with(a, b);
    assert_int_equal(r.err, 0);
    assert_int_equal(r.pushed, 30);
    net_report_clear(&r);
    for (size_t i = 0; i < 30; i++) {
        struct kad_id slot = kad_target(&pks[i], "mine", 4);
        struct store_rec rec;
        assert_int_equal(b->store->ops->get(b->store, &slot, ITEM_OWNER, &rec), 0);
    }
    free_listing(&l);
}

/* Forged and foreign items in a page are left out, the rest is taken. */
static void test_bad_items_in_a_page(void **state)
{
    struct listing l = {.no_targets = true};

    (void)state;
    struct net_node *boot = net_add(&n, NULL), *a = net_add(&n, NULL);
    struct net_node *b = add_listing(&l, 50, 5);
    (void)boot;
    for (size_t i = 0; i < l.n; i += 5)
        l.items[i]->item.sig.b[7] ^= 1;
    net_run(&n, 3000);
    struct kad_report r = sync_with(a, b);
    assert_int_equal(r.err, 0);
    assert_int_equal(r.pulled, 40);
    assert_int_equal(r.rejected_items, 10);
    net_report_clear(&r);
    free_listing(&l);
}

/* Only who asked for it is pushed to. */
static void test_no_push_to_strangers(void **state)
{
    struct net_node *boot = net_add(&n, NULL), *a = net_add(&n, &full), *b = net_add(&n, NULL);

    (void)state;
    (void)boot;
    net_run(&n, 20000);
    fill(a, 20, 3);
    struct kad_report r = sync_with(a, b);
    assert_int_equal(r.err, 0);
    assert_int_equal(r.pushed, 0);
    net_report_clear(&r);
    assert_int_equal(b->asked[KAD_PUT_BATCH], 0);
}

/* Signature checks that come later, in any order, and a queue that is full now and then. */
static void test_sync_with_deferred_checks(void **state)
{
    n.deferred = true;
    struct net_node *b = net_add(&n, NULL), *a = net_add(&n, NULL);

    (void)state;
    fill(b, 400, 20);
    a->cfg.limits.slots_per_key = 1000;
    net_restart(a, true);
    net_run(&n, 3000);
    uint32_t op = kad_sync(a->kad, b->peer, NULL, n.now_ns);
    a->dirty = true;
    net_run(&n, 100);
    a->env.pk_cap = 0;
    net_run(&n, 2000);
    a->env.pk_cap = 100;
    struct kad_report r = net_wait(a, op);
    assert_int_equal(r.err, 0);
    assert_true(r.pulled >= 400);
    assert_int_equal(missing_in(a, b), 0);
    net_report_clear(&r);
}

/* Incident 69: a full node that just started asks the network for what it has not pulled yet. */
static void test_incident_69_fresh_full_node(void **state)
{
    (void)state;
    for (size_t i = 0; i < 10; i++)
        net_add(&n, NULL);
    net_run(&n, 10000);
    struct kad_report r = net_put(net_node(&n, 4), "dmsg", "there");
    assert_int_equal(r.err, 0);
    net_report_clear(&r);
    struct net_node *a = net_add(&n, &full);
    struct kad_stat st;
    net_run(&n, 5);
    kad_stat(a->kad, &st);
    assert_false(st.synced);
    net_assert_value(net_get(a, &net_node(&n, 4)->pk, "dmsg", 0), "there");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_incident_59_pull_and_push, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pages_and_batches_fit_the_frames, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tie_larger_than_a_frame, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pages_are_charged, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sync_outlasts_rate_limits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sorted_peer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_peer_without_targets, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unsorted_peer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unsorted_peer_with_many_items, setup, teardown),
        cmocka_unit_test_setup_teardown(test_endless_peer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_page_limit_falls_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_page_that_never_fits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_peer_without_method_5, setup, teardown),
        cmocka_unit_test_setup_teardown(test_peer_without_method_6, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_items_in_a_page, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_push_to_strangers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sync_with_deferred_checks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_incident_69_fresh_full_node, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
