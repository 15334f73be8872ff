/*
 * The engine over real clients, streams and a relay in memory: operations from end to end, and what
 * peers may do to the listener of port 100.
 */
#include "kademlia/host.h"

#include "kademlia/codec_json.h"
#include "tests/unit/kademlia/dht_items.h"
#include "tests/unit/kademlia/host_fixture.h"

/* ---- operations ---- */

static void test_ping(void **state)
{
    (void)state;
    hw_two_nodes();
    kad_peer p = host_peer(hw.node[1].h, hw_key(0));
    assert_true(pubkey_equal(host_pk(hw.node[1].h, p), hw_key(0)));
    assert_int_equal(hw_wait(&hw, 1, kad_ping(hw_kad(&hw, 1), p, &hw.node[1], pipe_now(&hw.w.net))),
                     0);
    host_unref(hw.node[1].h, p);
    struct host_stat st = hw_stat(1);
    assert_true(st.bytes_out > 0 && st.bytes_in > 0);
    assert_int_equal(st.calling, 0);
}

static void test_put_and_get(void **state)
{
    (void)state;
    hw_two_nodes();
    assert_int_equal(hw_put(&hw, 1, "note", "hello"), 0);
    assert_int_equal(hw.node[1].stored, 1);
    assert_int_equal(hw_get(&hw, 0, hw_key(1), "note", 0), 0);
    assert_string_equal(hw.node[0].value, "hello");
    assert_int_equal(hw.node[0].source, KAD_SRC_LOCAL);
    assert_int_equal(hw_get(&hw, 1, hw_key(1), "note", KAD_GET_NETWORK), 0);
    assert_int_equal(hw.node[1].source, KAD_SRC_DHT);
    assert_int_equal(hw_get(&hw, 1, hw_key(0), "nothing", KAD_GET_NETWORK), ERR_NOT_FOUND);
    assert_true(hw.node[0].accepted > 0); /* the hook of the host's user */
}

/* A value of 64 KiB does not fit into one write, nor into one window's part. */
static void test_large_value(void **state)
{
    static char big[ITEM_MAX_VALUE + 1];
    (void)state;
    hw_two_nodes();
    memset(big, 'v', ITEM_MAX_VALUE);
    assert_int_equal(hw_put(&hw, 1, "big", big), 0);
    assert_int_equal(hw.node[1].stored, 1);
    assert_int_equal(hw_get(&hw, 1, hw_key(1), "big", KAD_GET_NETWORK), 0);
    assert_int_equal(hw.node[1].source, KAD_SRC_DHT);
    assert_true(hw_stat(1).bytes_in > ITEM_MAX_VALUE);
}

/* The same in pieces of one byte, with a link that takes its time. */
static void test_small_pieces(void **state)
{
    (void)state;
    hw.w.net.fault.chunk = 1;
    hw.w.net.fault.delay_ns = 5 * NS_PER_MS;
    hw_two_nodes();
    assert_int_equal(hw_put(&hw, 1, "note", "hello"), 0);
    assert_int_equal(hw.node[1].stored, 1);
}

/* Public-key work answered later, as in a node. */
static void test_deferred(void **state)
{
    (void)state;
    hw.w.env.deferred = hw.w.env.shuffle = true;
    hw_two_nodes();
    assert_int_equal(hw_put(&hw, 1, "note", "later"), 0);
    assert_int_equal(hw_get(&hw, 0, hw_key(1), "note", 0), 0);
    assert_string_equal(hw.node[0].value, "later");
}

static void test_peer_without_dht(void **state)
{
    (void)state;
    hw_start(&hw, 0, NULL, NULL);
    world_client_start(&hw.w, 2, NULL); /* a client that has no DHT */
    world_join(&hw.w, 2, 0);
    world_up(&hw.w, 0, 1);
    world_up(&hw.w, 2, 1);
    kad_peer p = host_peer(hw.node[0].h, hw_key(2));
    assert_true(hw_wait(&hw, 0, kad_ping(hw_kad(&hw, 0), p, &hw.node[0], pipe_now(&hw.w.net))) < 0);
    host_unref(hw.node[0].h, p);
    struct kad_stat st;
    kad_stat(hw_kad(&hw, 0), &st);
    assert_int_equal(st.routing_peers, 0);
    assert_int_equal(st.neg_cached, 1); /* told by the refusal, not guessed from a failure */
}

static void test_peer_vanishes_in_a_call(void **state)
{
    (void)state;
    hw.w.net.fault.delay_ns = 5 * NS_PER_MS;
    hw_two_nodes();
    kad_peer p = host_peer(hw.node[1].h, hw_key(0));
    uint32_t op = kad_ping(hw_kad(&hw, 1), p, &hw.node[1], pipe_now(&hw.w.net));
    host_kick(hw.node[1].h);
    world_run(&hw.w, NS_PER_MS);
    hw_stop(&hw, 0);
    assert_true(hw_wait(&hw, 1, op) < 0);
    host_unref(hw.node[1].h, p);
    assert_int_equal(hw_stat(1).calling, 0);
}

/* Freed in the middle of everything: nothing is left, nothing is called. */
static void test_free_with_calls_under_way(void **state)
{
    (void)state;
    hw_two_nodes();
    for (int i = 0; i < 20; i++)
        assert_true(kad_put(hw_kad(&hw, 1), "s", 1, "v", 1, false, 0, &hw.node[1],
                            pipe_now(&hw.w.net)) != 0);
    host_kick(hw.node[1].h);
    world_run(&hw.w, 0);
    unsigned reports = hw.node[1].reports;
    hw_stop(&hw, 1);
    world_run(&hw.w, 60 * NS_PER_S);
    assert_int_equal(hw.node[1].reports, reports);
    assert_int_equal(hw_stat(0).serving, 0);
}

static void test_port_taken(void **state)
{
    (void)state;
    hw_start(&hw, 0, NULL, NULL);
    struct kad_cfg kad = {.self = *hw_key(0), .sk = hw.w.client[0].key.sk};
    struct host_cfg cfg = {.env = &hw.w.env.env,
                           .loop = &hw.w.net.loop,
                           .client = hw.w.client[0].c,
                           .store = hw.node[0].store,
                           .kad = &kad,
                           .report = NULL};
    struct host *second = NULL;
    assert_int_equal(host_new(&second, &cfg), ERR_DMSG_PORT_OCCUPIED);
    assert_null(second);
    world_up(&hw.w, 0, 1);
    hw_start(&hw, 1, hw_key(0), NULL); /* and the first one still listens */
    hw_peers(&hw, 1, 1);
}

/* ---- what strangers send to port 100 ---- */

/* Client 2 has streams of its own to node 0. */
static void two_nodes_and_a_stranger(void)
{
    hw_two_nodes();
    world_client_start(&hw.w, 2, NULL);
    world_join(&hw.w, 2, 0);
    world_up(&hw.w, 2, 1);
}

static void open_stream(struct app *a, int client)
{
    app_init(a, &hw.w);
    app_dial(a, client, hw_key(0), KAD_PORT, 10000);
    assert_int_equal(app_wait_open(a), 0);
}

/* Sends it and waits for the end of the stream. */
static void say(struct app *a, int client, const void *p, size_t n)
{
    open_stream(a, client);
    app_send(a, p, n);
    world_until(&hw.w, app_is_over, a);
}

static void done(struct app *a)
{
    app_close(a);
    app_free(a);
}

static size_t ping_frame(int client, uint8_t **out)
{
    struct kad_msg m;
    size_t n;
    kad_msg_init(&m, KAD_PING, false);
    m.sender = *hw_key(client);
    assert_int_equal(kad_json_encode(out, &n, &m), 0);
    kad_msg_clear(&m);
    return n;
}

static void honest_ping_works(void)
{
    kad_peer p = host_peer(hw.node[1].h, hw_key(0));
    uint64_t begin = pipe_now(&hw.w.net);
    assert_int_equal(hw_wait(&hw, 1, kad_ping(hw_kad(&hw, 1), p, &hw.node[1], begin)), 0);
    assert_true(pipe_now(&hw.w.net) - begin < NS_PER_S);
    host_unref(hw.node[1].h, p);
}

static void test_one_request_a_stream(void **state)
{
    struct app a;
    uint8_t *frame, twice[2048];
    (void)state;
    two_nodes_and_a_stranger();
    size_t n = ping_frame(2, &frame);
    memcpy(twice, frame, n);
    memcpy(twice + n, frame, n);
    say(&a, 2, frame, n);
    size_t one = a.got_n;
    assert_true(one > KAD_FRAME_HEAD);
    done(&a);
    say(&a, 2, twice, 2 * n); /* what follows the first is not read */
    assert_int_equal(a.got_n, one);
    done(&a);
    free(frame);
    assert_int_equal(hw_stat(0).serving, 0);
}

/* More bytes while the engine still checks the signature of the request. */
static void test_second_request_while_the_first_waits(void **state)
{
    struct app a;
    struct kad_msg m;
    struct kad_stat st;
    uint8_t *frame;
    size_t n;
    (void)state;
    hw.w.env.deferred = true;
    two_nodes_and_a_stranger();
    struct item_ref *item = dht_item(&hw.w.client[2].key.sk, 1, "s", "v");
    kad_msg_init(&m, KAD_PUT_VALUE, false);
    m.sender = *hw_key(2);
    assert_int_equal(kad_msg_add_item(&m, item, NULL), 0);
    assert_int_equal(kad_json_encode(&frame, &n, &m), 0);
    kad_msg_clear(&m);
    item_ref_put(item);
    open_stream(&a, 2);
    kad_stat(hw_kad(&hw, 0), &st);
    uint64_t before = st.requests[KAD_PUT_VALUE];
    app_send(&a, frame, n);
    hw.w.net.env = NULL; /* nobody answers */
    world_run(&hw.w, 100 * NS_PER_MS);
    app_send(&a, frame, n);
    world_run(&hw.w, 100 * NS_PER_MS);
    kad_stat(hw_kad(&hw, 0), &st);
    assert_int_equal(st.requests[KAD_PUT_VALUE], before + 1);
    hw.w.net.env = &hw.w.env;
    world_until(&hw.w, app_is_over, &a);
    assert_non_null(memmem(a.got, a.got_n, "\"stored\":true", 13));
    done(&a);
    free(frame);
    assert_int_equal(hw_stat(0).serving, 0);
}

static void test_garbage(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
        bool answered;
    } bad[] = {
        {"\0\0\0\x03\x01{}x", 8, true},     /* something behind it is not read */
        {"\0\0\0\x05\x01nope", 9, true},    /* the body of a ping does not matter (dht.md §3.4) */
        {"\0\0\0\x05\x02nope", 9, false},   /* not JSON */
        {"\0\0\0\x01\x63", 5, false},       /* no such method */
        {"\xff\xff\xff\xff\x01", 5, false}, /* longer than allowed */
        {"\0\0\0\0", 4, false},             /* nothing in it */
        {"\0\0\0\x09\x01half", 9, false},   /* less than it promises */
        {"GET / HTTP/1.1\r\n\r\n", 18, false},
        {"\x93\x00\x01\xa4ping", 8, false}, /* MessagePack-RPC: a request has four elements */
    };
    unsigned refused = 0;
    (void)state;
    two_nodes_and_a_stranger();
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct app a;
        open_stream(&a, 2);
        a.shut = true;
        app_send(&a, bad[i].bytes, bad[i].n);
        world_until(&hw.w, app_is_over, &a);
        assert_true((a.got_n > 0) == bad[i].answered);
        refused += !bad[i].answered;
        done(&a);
    }
    world_run(&hw.w, NS_PER_S);
    assert_int_equal(hw_stat(0).bad_frames + hw_stat(0).bad_native, refused);
    assert_int_equal(hw_stat(0).serving, 0);
    honest_ping_works();
}

static void test_random_bytes(void **state)
{
    struct prop r = prop_init("random bytes to port 100");
    (void)state;
    two_nodes_and_a_stranger();
    for (int i = 0; i < 100; i++) {
        uint8_t bytes[64];
        struct app a;
        prop_bytes(&r, bytes, sizeof bytes);
        open_stream(&a, 2);
        a.shut = true;
        app_send(&a, bytes, prop_below(&r, sizeof bytes) + 1);
        world_until(&hw.w, app_is_over, &a);
        done(&a);
    }
    world_run(&hw.w, NS_PER_S);
    assert_int_equal(hw_stat(0).serving, 0);
    honest_ping_works();
}

/* Silent streams are bounded by peer and end after the request's time (incident 62). */
static void test_silent_streams(void **state)
{
    enum { N = 200 };
    static struct app a[N];
    unsigned open = 0;
    (void)state;
    two_nodes_and_a_stranger();
    for (int i = 0; i < N; i++) {
        open_stream(&a[i], 2);
        if (i % 5 > 0)
            app_send(&a[i], "\0\0\1\0", (size_t)(i % 5));
    }
    world_run(&hw.w, 100 * NS_PER_MS);
    struct host_stat st = hw_stat(0);
    assert_int_equal(st.serving, HOST_SERVE_PEER);
    assert_int_equal(st.refused_peer, N - HOST_SERVE_PEER);
    for (int i = 0; i < N; i++)
        open += !app_is_over(&a[i]);
    assert_int_equal(open, HOST_SERVE_PEER);
    honest_ping_works();
    world_run(&hw.w, HOST_REQUEST_MS * NS_PER_MS);
    st = hw_stat(0);
    assert_int_equal(st.serving, 0);
    assert_int_equal(st.timeouts, HOST_SERVE_PEER);
    for (int i = 0; i < N; i++) {
        assert_true(app_is_over(&a[i]));
        done(&a[i]);
    }
}

/* One byte a second keeps nobody alive: the time is that of the whole request. */
static void test_trickle(void **state)
{
    struct app a;
    uint8_t *frame;
    (void)state;
    two_nodes_and_a_stranger();
    size_t n = ping_frame(2, &frame);
    open_stream(&a, 2);
    for (size_t i = 0; i < n && !app_is_over(&a); i++) {
        app_send(&a, frame + i, 1);
        world_run(&hw.w, NS_PER_S);
        assert_true(i <= HOST_REQUEST_MS / 1000);
    }
    assert_true(app_is_over(&a));
    assert_int_equal(a.got_n, 0);
    done(&a);
    free(frame);
}

/* Enough keys take all places with silence: the oldest of them gives way to who has something to
 * say. */
static void test_silent_streams_of_many_keys(void **state)
{
    enum { KEYS = HOST_SERVE / HOST_SERVE_PEER };
    static struct app a[HOST_SERVE], greedy;
    static struct client *c[KEYS];
    (void)state;
    hw.node[1].json_only = true; /* a stream for each request */
    hw_two_nodes();
    for (int k = 0; k < KEYS; k++) {
        char seed[32];
        struct client_cfg cfg = world_cfg(&hw.w, 2);
        snprintf(seed, sizeof seed, "silent %d", k);
        assert_int_equal(
            crypto_keypair_from_seed(&cfg.sk, &cfg.self, (uint8_t *)seed, strlen(seed)), 0);
        assert_int_equal(client_new(&c[k], &cfg), 0);
        assert_int_equal(client_add_server(c[k], &hw.w.relay_key[0].pk, world_addr(0)), 0);
    }
    world_run(&hw.w, NS_PER_S);
    for (int i = 0; i < HOST_SERVE; i++) {
        app_init(&a[i], &hw.w);
        assert_int_equal(
            client_dial(c[i % KEYS], hw_key(0), KAD_PORT, 5000, 0, &app_cb, &a[i], &a[i].st), 0);
    }
    world_run(&hw.w, NS_PER_S);
    assert_int_equal(hw_stat(0).serving, HOST_SERVE);
    /* Who has all the streams of a peer already costs nobody a place. */
    app_init(&greedy, &hw.w);
    assert_int_equal(client_dial(c[1], hw_key(0), KAD_PORT, 5000, 0, &app_cb, &greedy, &greedy.st),
                     0);
    world_run(&hw.w, NS_PER_S);
    assert_true(app_is_over(&greedy));
    assert_int_equal(hw_stat(0).refused_peer, 1);
    assert_int_equal(hw_stat(0).dropped_silent, 0);
    done(&greedy);
    honest_ping_works();
    assert_int_equal(hw_stat(0).dropped_silent, 1);
    assert_int_equal(hw_stat(0).refused_busy, 0);
    for (int i = 0; i < HOST_SERVE; i++)
        done(&a[i]);
    for (int k = 0; k < KEYS; k++)
        client_free(c[k]);
    world_run(&hw.w, NS_PER_S);
    assert_int_equal(hw_stat(0).serving, 0);
}

/* The asker goes while the engine still checks a signature. */
static void test_asker_goes_before_the_answer(void **state)
{
    (void)state;
    hw.w.env.deferred = true;
    two_nodes_and_a_stranger();
    uint8_t *frame;
    size_t n = ping_frame(2, &frame);
    for (int i = 0; i < 10; i++) {
        struct app a;
        open_stream(&a, 2);
        app_send(&a, frame, n);
        stream_abort(a.st);
        a.st = NULL;
        world_run(&hw.w, i * NS_PER_MS);
        app_free(&a);
    }
    free(frame);
    world_run(&hw.w, NS_PER_S);
    assert_int_equal(hw_stat(0).serving, 0);
    honest_ping_works();
}

/* Peers are remembered as long as somebody refers to them, and no longer. */
static void test_peers_are_given_back(void **state)
{
    (void)state;
    two_nodes_and_a_stranger();
    size_t before = hw_stat(0).peers;
    for (int i = 0; i < 20; i++) {
        struct app a;
        say(&a, 2, "\0\0\0\x05\x02nope", 9);
        done(&a);
    }
    world_run(&hw.w, NS_PER_S);
    assert_int_equal(hw_stat(0).peers, before);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, hw_setup, hw_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_ping),
        TEST(test_put_and_get),
        TEST(test_large_value),
        TEST(test_small_pieces),
        TEST(test_deferred),
        TEST(test_peer_without_dht),
        TEST(test_peer_vanishes_in_a_call),
        TEST(test_free_with_calls_under_way),
        TEST(test_port_taken),
        TEST(test_one_request_a_stream),
        TEST(test_second_request_while_the_first_waits),
        TEST(test_garbage),
        TEST(test_random_bytes),
        TEST(test_silent_streams),
        TEST(test_trickle),
        TEST(test_silent_streams_of_many_keys),
        TEST(test_asker_goes_before_the_answer),
        TEST(test_peers_are_given_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
