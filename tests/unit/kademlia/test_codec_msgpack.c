#include "kademlia/codec_msgpack.h"

#include "base/err.h"
#include "tests/unit/kademlia/dht_items.h"
#include "tests/unit/prop.h"

static json_t *root;

static int setup(void **state)
{
    (void)state;
    root = vectors_load("dht_native");
    return crypto_init();
}

static int teardown(void **state)
{
    (void)state;
    json_decref(root);
    return 0;
}

static const char *name_of(const json_t *v)
{
    return vec_str(v, "name");
}

static uint8_t *bytes_of(const json_t *v, size_t *n)
{
    return hex_dup(vec_str(v, "hex"), n);
}

/* The whole message in pieces of this size. */
static int feed(struct kad_mp_frame *f, const uint8_t *p, size_t n, size_t piece,
                struct kad_mp_head *head)
{
    size_t used, at = 0;
    int rc = ERR_AGAIN;

    while (rc == ERR_AGAIN && at < n) {
        size_t some = piece < n - at ? piece : n - at;
        rc = kad_mp_frame_feed(f, p + at, some, &used, head);
        assert_true(rc != 0 || used <= some);
        at += used;
    }
    assert_true(rc != 0 || at == n);
    return rc;
}

static bool is_note(const json_t *v)
{
    return json_integer_value(json_object_get(v, "type")) == KAD_MP_NOTE;
}

static unsigned method_of(const json_t *v)
{
    const char *name = json_string_value(json_object_get(v, "method"));

    for (unsigned i = 1; name != NULL && i < KAD_METHOD__END; i++) {
        if (kad_mp_method_name(i) != NULL && strcmp(kad_mp_method_name(i), name) == 0)
            return i;
    }
    return 0;
}

/* What is read is written as it was. */
static void check_message(const json_t *v, size_t piece)
{
    struct kad_mp_frame f;
    struct kad_mp_head head;
    struct kad_msg m;
    size_t n, again_n;
    uint8_t *p = bytes_of(v, &n), *again;

    kad_mp_frame_init(&f);
    assert_int_equal(feed(&f, p, n, piece, &head), 0);
    assert_int_equal(head.type, json_integer_value(json_object_get(v, "type")));
    assert_int_equal(head.size, n);
    if (!is_note(v))
        assert_int_equal(head.id, json_integer_value(json_object_get(v, "id")));
    unsigned method = method_of(v);
    if (head.type != KAD_MP_RESPONSE)
        assert_int_equal(head.method, method);
    if (json_object_get(v, "error") != NULL)
        assert_int_equal(head.error, ERR_NETWORK);
    if (method != 0) {
        assert_int_equal(kad_codec_msgpack.decode(&m, method, head.type == KAD_MP_RESPONSE,
                                                  head.body, head.body_len),
                         0);
        assert_int_equal(kad_codec_msgpack.encode(&again, &again_n, &m, head.id), 0);
        if (json_object_get(v, "again") == NULL) {
            assert_int_equal(again_n, n);
            assert_memory_equal(again, p, n);
        }
        free(again);
        kad_msg_clear(&m);
    }
    kad_mp_frame_clear(&f);
    free(p);
}

static void test_vectors(void **state)
{
    size_t i;
    const json_t *v;

    (void)state;
    json_array_foreach(vec_get(root, "messages"), i, v)
    {
        print_message("%s\n", name_of(v));
        for (size_t piece = 1; piece < 8; piece++)
            check_message(v, piece);
        check_message(v, 1 << 20);
    }
    assert_true(i > 25);
}

/* One message of the vectors, decoded. */
static void decode(struct kad_msg *m, const char *name)
{
    size_t i, n, used;
    const json_t *v;
    struct kad_mp_frame f;
    struct kad_mp_head head;

    json_array_foreach(vec_get(root, "messages"), i, v)
    {
        if (strcmp(name_of(v), name) != 0)
            continue;
        uint8_t *p = bytes_of(v, &n);
        kad_mp_frame_init(&f);
        assert_int_equal(kad_mp_frame_feed(&f, p, n, &used, &head), 0);
        assert_int_equal(kad_codec_msgpack.decode(m, method_of(v), head.type == KAD_MP_RESPONSE,
                                                  head.body, head.body_len),
                         0);
        kad_mp_frame_clear(&f);
        free(p);
        return;
    }
    fail_msg("no message \"%s\"", name);
}

static void test_fields(void **state)
{
    struct kad_msg m;

    (void)state;
    decode(&m, "ping of a full node in a private network");
    assert_int_equal(m.offer, 1);
    assert_true(m.network == UINT64_C(0x1122334455667788) && m.full && !m.read_only);
    decode(&m, "ping of a client that serves nobody");
    assert_true(m.read_only && !m.full && m.network == 0);
    decode(&m, "find answer");
    assert_int_equal(m.n_closest, 5);
    assert_int_equal(m.native, 21);
    kad_msg_clear(&m);
    decode(&m, "get answer");
    assert_int_equal(m.n_items, 1);
    assert_int_equal(item_verify(&m.items[0].item->item), 0);
    assert_true(item_salt_is(&m.items[0].item->item, "dmsg"));
    kad_msg_clear(&m);
    decode(&m, "get answer without item");
    assert_int_equal(m.n_items, 0);
    assert_int_equal(m.n_closest, 1);
    kad_msg_clear(&m);
    decode(&m, "put into an explicit slot");
    assert_true(m.items[0].has_target && m.items[0].target.b[31] == 31);
    kad_msg_clear(&m);
    decode(&m, "put answer: a newer one is held");
    assert_true(!m.stored && m.error == ERR_SEQ);
    decode(&m, "put_many answer");
    assert_int_equal(m.items[1].result, ERR_SIG);
    kad_msg_clear(&m);
    decode(&m, "get_many answer");
    assert_true(m.items[0].item != NULL && m.items[1].item == NULL);
    kad_msg_clear(&m);
    decode(&m, "watch answer");
    assert_int_equal(m.items[1].result, ERR_LIMIT);
    assert_true(m.lease_s == 600 && m.held == 1);
    kad_msg_clear(&m);
}

/* Refused, whether whole or in pieces, and nothing is allocated for what is only promised. */
static void test_bad(void **state)
{
    size_t i;
    const json_t *v;

    (void)state;
    json_array_foreach(vec_get(root, "bad"), i, v)
    {
        struct kad_mp_frame f;
        struct kad_mp_head head;
        struct kad_msg m;
        size_t n;
        uint8_t *p = bytes_of(v, &n);
        for (size_t piece = 1; piece <= n; piece += piece == 1 ? n - 1 + (n == 1) : 1) {
            kad_mp_frame_init(&f);
            int rc = feed(&f, p, n, piece, &head);
            if (rc == 0) {
                bool answer = json_object_get(v, "find_answer") != NULL;
                rc = kad_codec_msgpack.decode(&m, answer ? KAD_FIND_NODE : head.method, answer,
                                              head.body, head.body_len);
            }
            if (rc == 0)
                fail_msg("\"%s\" was taken", name_of(v));
            if (rc == ERR_AGAIN)
                fail_msg("\"%s\" is waited for", name_of(v));
            assert_true(f.cap <= 4 * n + 1024);
            kad_mp_frame_clear(&f);
        }
        free(p);
    }
}

/* Several messages in one piece, and the rest of one in the next. */
static void test_stream_of_messages(void **state)
{
    struct prop r = prop_init("messages in a stream");
    uint8_t all[8192];
    size_t n = 0, i, one_n;
    const json_t *v;
    unsigned want = 0, got = 0;
    struct kad_mp_frame f;
    struct kad_mp_head head;

    (void)state;
    json_array_foreach(vec_get(root, "messages"), i, v)
    {
        uint8_t *p = bytes_of(v, &one_n);
        if (n + one_n <= sizeof all) {
            memcpy(all + n, p, one_n);
            n += one_n;
            want++;
        }
        free(p);
    }
    for (int round = 0; round < 50; round++) {
        kad_mp_frame_init(&f);
        got = 0;
        for (size_t at = 0; at < n;) {
            size_t used, piece = 1 + prop_below(&r, 700);
            piece = piece < n - at ? piece : n - at;
            int rc = kad_mp_frame_feed(&f, all + at, piece, &used, &head);
            assert_true(rc == 0 || rc == ERR_AGAIN);
            assert_true(used <= piece && (rc == 0 || used == piece));
            at += used;
            if (rc == 0) {
                kad_mp_frame_next(&f);
                got++;
            }
        }
        assert_int_equal(got, want);
        assert_int_equal(kad_mp_frame_held(&f), 0);
        kad_mp_frame_clear(&f);
    }
}

/* Errors come back as what they were. */
static void test_errors(void **state)
{
    static const int errors[] = {ERR_REFUSED,  ERR_TOO_LONG, ERR_SIG,         ERR_SEQ,
                                 ERR_QUOTA,    ERR_BUSY,     ERR_NO_SPACE,    ERR_LIMIT,
                                 ERR_SHUTDOWN, ERR_NETWORK,  ERR_UNSUPPORTED, ERR_FORMAT};
    (void)state;
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        struct kad_mp_frame f;
        struct kad_mp_head head;
        uint8_t *p;
        size_t n, used;
        assert_int_equal(kad_mp_encode_error(&p, &n, 7, errors[i]), 0);
        kad_mp_frame_init(&f);
        assert_int_equal(kad_mp_frame_feed(&f, p, n, &used, &head), 0);
        assert_int_equal(head.error, errors[i]);
        assert_int_equal(head.id, 7);
        kad_mp_frame_clear(&f);
        free(p);
    }
}

/* A page as large as there may be: the estimate holds. */
static void test_item_size(void **state)
{
    static char v[ITEM_MAX_VALUE + 1];
    struct seckey sk;
    struct pubkey pk;
    struct kad_msg m;
    uint8_t *p;
    size_t n, sum = 64;

    (void)state;
    assert_int_equal(crypto_keypair_from_seed(&sk, &pk, (const uint8_t *)"size", 4), 0);
    kad_msg_init(&m, KAD_GET_ITEMS, true);
    for (size_t len = 0; len <= ITEM_MAX_VALUE; len = 2 * len + 1) {
        memset(v, 'v', len);
        v[len] = '\0';
        struct item_ref *item = dht_item(&sk, UINT64_MAX, "some salt", v);
        struct kad_id target = item_target(&item->item);
        assert_int_equal(kad_msg_add_item(&m, item, &target), 0);
        sum += kad_codec_msgpack.item_size(&item->item);
        item_ref_put(item);
    }
    assert_int_equal(kad_codec_msgpack.encode(&p, &n, &m, UINT32_MAX), 0);
    assert_true(n <= sum && n > sum - 64 * 17);
    free(p);
    kad_msg_clear(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors), cmocka_unit_test(test_fields),
        cmocka_unit_test(test_bad),     cmocka_unit_test(test_stream_of_messages),
        cmocka_unit_test(test_errors),  cmocka_unit_test(test_item_size),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
