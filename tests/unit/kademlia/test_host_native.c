/*
 * Two dialects between hosts of engines: who is spoken to how, what goes over one stream, and what
 * peers may do to it.
 */
#include "base/cursor.h"
#include "base/err.h"
#include "kademlia/codec_json.h"
#include "kademlia/codec_msgpack.h"
#include "tests/unit/kademlia/dht_items.h"
#include "tests/unit/kademlia/host_fixture.h"
#include "tests/unit/kademlia/old_peer.h"

static enum kad_dialect dialect(int i, int of)
{
    kad_peer p = host_peer(hw.node[i].h, hw_key(of));
    enum kad_dialect d = host_dialect(hw.node[i].h, p);
    host_unref(hw.node[i].h, p);
    return d;
}

static int ping(int from, int to)
{
    kad_peer p = host_peer(hw.node[from].h, hw_key(to));
    int rc =
        hw_wait(&hw, from, kad_ping(hw_kad(&hw, from), p, &hw.node[from], pipe_now(&hw.w.net)));
    host_unref(hw.node[from].h, p);
    return rc;
}

/* ---- who is spoken to how ---- */

static void test_both_native(void **state)
{
    (void)state;
    hw_two_nodes();
    assert_int_equal(ping(1, 0), 0);
    assert_int_equal(dialect(1, 0), KAD_DIALECT_NATIVE);
    assert_int_equal(dialect(0, 1), KAD_DIALECT_NATIVE);
    uint64_t json = hw_stat(1).json_calls;
    for (int i = 0; i < 20; i++) {
        char salt[16];
        snprintf(salt, sizeof salt, "s%d", i);
        assert_int_equal(hw_put(&hw, 1, salt, "hello"), 0);
        assert_int_equal(hw_get(&hw, 1, hw_key(1), salt, KAD_GET_NETWORK), 0);
        assert_string_equal(hw.node[1].value, "hello");
        assert_int_equal(hw.node[1].source, KAD_SRC_DHT);
    }
    assert_int_equal(hw_stat(1).json_calls, json); /* only the first PING was one */
    assert_true(hw_stat(1).native_calls >= 40);
    assert_int_equal(hw_stat(1).dialled + hw_stat(1).accepted, 1);
    /* and back over the stream that the other end dialled */
    json = hw_stat(0).json_calls;
    uint64_t native = hw_stat(0).native_calls;
    assert_int_equal(hw_get(&hw, 0, hw_key(1), "s1", KAD_GET_NETWORK), 0);
    assert_int_equal(hw_stat(0).json_calls, json);
    assert_true(hw_stat(0).native_calls > native);
    assert_int_equal(hw_stat(0).dialled + hw_stat(0).accepted, 1);
}

static void mixed(bool json0, bool json1)
{
    hw.node[0].json_only = json0;
    hw.node[1].json_only = json1;
    hw_two_nodes();
    assert_int_equal(hw_put(&hw, 1, "note", "hello"), 0);
    assert_int_equal(hw.node[1].stored, 1);
    assert_int_equal(hw_get(&hw, 0, hw_key(1), "note", KAD_GET_NETWORK), 0);
    assert_string_equal(hw.node[0].value, "hello");
    assert_int_equal(ping(0, 1), 0);
    assert_int_equal(ping(1, 0), 0);
    for (int i = 0; i < 2; i++) {
        struct host_stat st = hw_stat(i);
        assert_true(st.json_calls > 0);
        assert_int_equal(st.native_calls, 0);
        assert_int_equal(st.bad_frames + st.bad_native + st.fallbacks, 0);
        assert_int_equal(dialect(i, 1 - i), KAD_DIALECT_JSON);
    }
}

static void test_json_asks_native(void **state)
{
    (void)state;
    mixed(false, true);
}

static void test_native_asks_json(void **state)
{
    (void)state;
    mixed(true, false);
}

static void test_both_json(void **state)
{
    (void)state;
    mixed(true, true);
}

/* A rumour that a peer speaks the native dialect costs a stream, not an answer. */
static void test_wrong_hint(void **state)
{
    (void)state;
    hw.node[0].json_only = true;
    hw_two_nodes();
    kad_peer p = host_peer(hw.node[1].h, hw_key(0));
    host_set_dialect(hw.node[1].h, p, KAD_DIALECT_HINTED);
    assert_int_equal(hw_get(&hw, 1, hw_key(0), "nothing", KAD_GET_NETWORK), ERR_NOT_FOUND);
    assert_int_equal(hw_stat(1).fallbacks, 1);
    assert_int_equal(host_dialect(hw.node[1].h, p), KAD_DIALECT_JSON);
    host_unref(hw.node[1].h, p);
    /* which is tried again after hours */
    struct host_stat st = hw_stat(1);
    assert_int_equal(st.dialled, 0);
}

/* A peer that spoke it and came back as another program. */
static void test_downgrade(void **state)
{
    (void)state;
    hw_two_nodes();
    assert_int_equal(dialect(1, 0), KAD_DIALECT_NATIVE);
    hw_stop(&hw, 0);
    hw.node[0].json_only = true;
    hw_start(&hw, 0, NULL, NULL);
    world_up(&hw.w, 0, 1);
    world_run(&hw.w, NS_PER_S);
    for (int i = 0; i < 3 && ping(1, 0) != 0; i++)
        world_run(&hw.w, 30 * NS_PER_S);
    assert_int_equal(ping(1, 0), 0);
    assert_int_equal(dialect(1, 0), KAD_DIALECT_JSON);
}

/* ---- many calls, one stream ---- */

static void test_many_calls(void **state)
{
    enum { N = 100 };
    uint32_t op[N];
    (void)state;
    hw_two_nodes();
    assert_int_equal(ping(1, 0), 0);
    uint64_t before = hw_stat(1).native_calls;
    for (int i = 0; i < N; i++) {
        struct kad_id target = {{(uint8_t)i}};
        op[i] = kad_find_node(hw_kad(&hw, 1), &target, &hw.node[1], pipe_now(&hw.w.net));
        assert_true(op[i] != 0);
    }
    assert_int_equal(hw_wait(&hw, 1, op[N - 1]), 0);
    assert_true(hw_stat(1).native_calls - before >= N);
    assert_int_equal(hw_stat(1).dialled + hw_stat(1).accepted, 1);
}

static void test_large_value(void **state)
{
    static char big[ITEM_MAX_VALUE + 1];
    (void)state;
    hw_two_nodes();
    memset(big, 'v', ITEM_MAX_VALUE);
    assert_int_equal(hw_put(&hw, 1, "big", big), 0);
    assert_int_equal(hw.node[1].stored, 1);
    assert_int_equal(hw_get(&hw, 1, hw_key(1), "big", KAD_GET_NETWORK), 0);
    assert_true(hw_stat(1).bytes_in > ITEM_MAX_VALUE);
}

static void test_small_pieces(void **state)
{
    (void)state;
    hw.w.net.fault.chunk = 1;
    hw.w.net.fault.delay_ns = 5 * NS_PER_MS;
    hw_two_nodes();
    assert_int_equal(hw_put(&hw, 1, "note", "hello"), 0);
    assert_int_equal(hw.node[1].stored, 1);
}

static bool has_30_reports(void *arg)
{
    return ((struct hw_node *)arg)->reports == 30;
}

/* Public-key work answered later and in another order: so are the calls. */
static void test_deferred(void **state)
{
    (void)state;
    hw.w.env.deferred = hw.w.env.shuffle = true;
    hw_two_nodes();
    unsigned before = hw.node[0].accepted;
    for (int i = 0; i < 30; i++) {
        char salt[16];
        snprintf(salt, sizeof salt, "s%d", i);
        assert_true(kad_put(hw_kad(&hw, 1), salt, strlen(salt), "v", 1, false, 0, &hw.node[1],
                            pipe_now(&hw.w.net)) != 0);
    }
    host_kick(hw.node[1].h);
    world_until(&hw.w, has_30_reports, &hw.node[1]);
    assert_int_equal(hw.node[0].accepted - before, 30);
}

static void test_idle_close(void **state)
{
    (void)state;
    hw_two_nodes();
    assert_int_equal(ping(1, 0), 0);
    assert_int_equal(hw_stat(1).dialled + hw_stat(1).accepted, 1);
    world_run(&hw.w, 2 * HOST_IDLE_MS * NS_PER_MS);
    assert_int_equal(hw_stat(1).dialled + hw_stat(1).accepted, 0);
    assert_int_equal(hw_stat(0).dialled + hw_stat(0).accepted, 0);
    assert_int_equal(ping(1, 0), 0); /* and opened again */
    assert_int_equal(hw_stat(1).dialled, 1);
}

/* ---- networks ---- */

static void networks(const char *a, const char *b, bool json_b)
{
    struct kad_stat st;
    hw.node[0].network = a;
    hw.node[1].network = b;
    hw.node[1].json_only = json_b;
    hw_start(&hw, 0, NULL, NULL);
    world_up(&hw.w, 0, 1);
    hw_start(&hw, 1, hw_key(0), NULL);
    world_up(&hw.w, 1, 1);
    world_run(&hw.w, 20 * NS_PER_S);
    int err = ping(1, 0);
    assert_true(err == ERR_NETWORK || (json_b && err == ERR_EOF));
    for (int i = 0; i < 2; i++) {
        kad_stat(hw_kad(&hw, i), &st);
        assert_int_equal(st.routing_peers, 0);
    }
    kad_stat(hw_kad(&hw, 0), &st);
    assert_true(st.refused_network > 0);
    assert_true(hw_put(&hw, 1, "note", "hello") != 0 || hw.node[1].stored == 0);
    assert_int_equal(hw_get(&hw, 0, hw_key(1), "note", 0) == 0, false);
}

static void test_two_names(void **state)
{
    (void)state;
    networks("ours", "theirs", false);
}

static void test_name_and_none(void **state)
{
    (void)state;
    networks("ours", NULL, false);
}

static void test_none_and_name(void **state)
{
    (void)state;
    networks(NULL, "theirs", false);
}

static void test_name_and_json_peer(void **state)
{
    (void)state;
    networks("ours", NULL, true);
}

static void test_same_name(void **state)
{
    (void)state;
    hw.node[0].network = hw.node[1].network = "ours";
    hw_two_nodes();
    assert_int_equal(hw_put(&hw, 1, "note", "hello"), 0);
    assert_int_equal(hw.node[1].stored, 1);
    assert_int_equal(dialect(0, 1), KAD_DIALECT_NATIVE);
}

/* ---- peers that know nothing of all this ---- */

static struct old_peer old;

/* Nodes 0 and 1 of ours, and client 2, which has told node 0 of itself. */
static void with_old_peer(enum old_form form)
{
    struct kad_msg req, rsp;
    hw_two_nodes();
    world_client_start(&hw.w, 2, NULL);
    world_join(&hw.w, 2, 0);
    world_up(&hw.w, 2, 1);
    old_start(&old, &hw.w, 2, form);
    kad_msg_init(&req, KAD_PING, false);
    assert_int_equal(old_ask(&old, hw_key(0), &req, &rsp), 0);
    assert_true(pubkey_equal(&rsp.sender, hw_key(0)));
    kad_msg_clear(&rsp);
    hw_peers(&hw, 0, 2);
}

/* It takes part in everything that six methods are enough for. */
static void takes_part(enum old_form form)
{
    struct kad_msg req, rsp;
    with_old_peer(form);
    assert_int_equal(hw_put(&hw, 1, "note", "hello"), 0);
    assert_int_equal(hw.node[1].stored, 2);
    struct kad_id target = kad_target(hw_key(1), "note", 4);
    assert_true(old_has(&old, &target));
    kad_msg_init(&req, KAD_GET_VALUE, false); /* it reads of ours */
    req.target = target;
    assert_int_equal(old_ask(&old, hw_key(0), &req, &rsp), 0);
    assert_int_equal(rsp.n_items, 1);
    kad_msg_clear(&rsp);
    struct item_ref *item = dht_item(&hw.w.client[2].key.sk, 7, "its", "own");
    kad_msg_init(&req, KAD_PUT_VALUE, false); /* and puts */
    assert_int_equal(kad_msg_add_item(&req, item, NULL), 0);
    assert_int_equal(old_ask(&old, hw_key(0), &req, &rsp), 0);
    assert_true(rsp.stored);
    kad_msg_clear(&rsp);
    item_ref_put(item);
    assert_int_equal(hw_get(&hw, 1, hw_key(2), "its", KAD_GET_NETWORK), 0);
    assert_string_equal(hw.node[1].value, "own");
    /* What only it holds is found there. */
    item = dht_item(&hw.w.client[2].key.sk, 8, "only", "here");
    old.item[old.n].target = item_target(&item->item);
    old.item[old.n++].item = item;
    assert_int_equal(hw_get(&hw, 1, hw_key(2), "only", KAD_GET_NETWORK), 0);
    assert_string_equal(hw.node[1].value, "here");
    for (int i = 0; i < 2; i++) {
        assert_int_equal(dialect(i, 2), KAD_DIALECT_JSON);
        assert_int_equal(dialect(i, 1 - i), KAD_DIALECT_NATIVE);
        assert_int_equal(hw_stat(i).fallbacks, 0);
    }
}

static void test_early_peer(void **state)
{
    struct kad_msg req, rsp;
    (void)state;
    takes_part(OLD_EARLY);
    /* Two of the methods it does not have: closed, and it stays a contact. */
    kad_peer p = host_peer(hw.node[0].h, hw_key(2));
    uint32_t op = kad_sync(hw_kad(&hw, 0), p, &hw.node[0], pipe_now(&hw.w.net));
    hw_wait(&hw, 0, op);
    host_unref(hw.node[0].h, p);
    assert_true(old.closed > 0);
    hw_peers(&hw, 0, 2);
    kad_msg_init(&req, KAD_FIND_NODE, false); /* our answers fit its frames */
    assert_int_equal(old_ask(&old, hw_key(0), &req, &rsp), 0);
    assert_int_equal(rsp.n_closest, 2);
    kad_msg_clear(&rsp);
    old_free(&old);
}

static void test_late_peer(void **state)
{
    (void)state;
    takes_part(OLD_LATE);
    kad_peer p = host_peer(hw.node[0].h, hw_key(2));
    assert_int_equal(hw_wait(&hw, 0, kad_sync(hw_kad(&hw, 0), p, &hw.node[0], pipe_now(&hw.w.net))),
                     0);
    host_unref(hw.node[0].h, p);
    assert_true(old.asked[KAD_GET_ITEMS] > 0);
    assert_int_equal(old.closed, 0);
    old_free(&old);
}

/* A rumour that it speaks the native dialect: a stream that it closes, then JSON. */
static void test_rumour_of_old_peer(void **state)
{
    (void)state;
    with_old_peer(OLD_EARLY);
    kad_peer p = host_peer(hw.node[0].h, hw_key(2));
    host_set_dialect(hw.node[0].h, p, KAD_DIALECT_HINTED);
    assert_int_equal(ping(0, 2), 0);
    assert_int_equal(hw_stat(0).fallbacks, 1);
    assert_int_equal(old.closed, 1);
    assert_int_equal(host_dialect(hw.node[0].h, p), KAD_DIALECT_JSON);
    host_unref(hw.node[0].h, p);
    old_free(&old);
}

/* A private network does not take it in: it cannot say which one it belongs to. */
static void test_old_peer_and_networks(void **state)
{
    struct kad_msg req, rsp;
    struct kad_stat st;
    (void)state;
    hw.node[0].network = "ours";
    hw_start(&hw, 0, NULL, NULL);
    world_client_start(&hw.w, 2, NULL);
    world_join(&hw.w, 2, 0);
    world_up(&hw.w, 0, 1);
    world_up(&hw.w, 2, 1);
    old_start(&old, &hw.w, 2, OLD_LATE);
    for (unsigned method = KAD_PING; method <= KAD_GET_ITEMS; method++) {
        if (method == KAD_PUT_VALUE)
            continue;
        kad_msg_init(&req, (enum kad_method)method, false);
        assert_int_equal(old_ask(&old, hw_key(0), &req, &rsp), ERR_EOF);
    }
    kad_stat(hw_kad(&hw, 0), &st);
    assert_int_equal(st.refused_network, 4);
    assert_int_equal(st.routing_peers, 0);
    old_free(&old);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, hw_setup, hw_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_both_native),        TEST(test_json_asks_native),
        TEST(test_native_asks_json),   TEST(test_both_json),
        TEST(test_wrong_hint),         TEST(test_downgrade),
        TEST(test_many_calls),         TEST(test_large_value),
        TEST(test_small_pieces),       TEST(test_deferred),
        TEST(test_idle_close),         TEST(test_two_names),
        TEST(test_name_and_none),      TEST(test_none_and_name),
        TEST(test_name_and_json_peer), TEST(test_same_name),
        TEST(test_early_peer),         TEST(test_late_peer),
        TEST(test_rumour_of_old_peer), TEST(test_old_peer_and_networks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
