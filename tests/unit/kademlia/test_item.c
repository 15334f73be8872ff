#include "kademlia/item.h"

#include "base/err.h"
#include "kademlia/msg.h"
#include "tests/unit/kademlia/dht_items.h"

static json_t *root;

static int setup(void **state)
{
    (void)state;
    root = vectors_load("dht");
    return crypto_init();
}

static int teardown(void **state)
{
    (void)state;
    json_decref(root);
    return 0;
}

static void test_valid(void **state)
{
    size_t i, n, digests = 0;
    const json_t *v;

    (void)state;
    json_array_foreach(vec_get(root, "items_valid"), i, v)
    {
        struct item_ref *r = dht_vec_item(v);
        struct hash digest, want;
        struct kad_id target, want_target;

        item_digest(&digest, &r->item);
        if (json_object_get(v, "payload_sha256") != NULL) {
            vec_hex(v, "payload_sha256", &want, sizeof want);
            assert_memory_equal(&digest, &want, sizeof want);
            digests++;
        }
        if (json_object_get(v, "payload_hex") != NULL) {
            uint8_t *payload = vec_hex_dup(v, "payload_hex", &n);
            crypto_sha256(&want, payload, n);
            assert_memory_equal(&digest, &want, sizeof want);
            free(payload);
        }
        target = item_target(&r->item);
        vec_hex(v, "target", &want_target, sizeof want_target);
        assert_true(kad_id_equal(&target, &want_target));
        assert_int_equal(item_check_size(&r->item), 0);
        if (item_verify(&r->item) != 0)
            fail_msg("%s", vec_str(v, "name"));

        /* Ours over the same bytes is as good; its bytes are not the same (the peers' nonce is
         * random). */
        struct seckey sk;
        struct item own = r->item;
        vec_hex(v, "sk", &sk, sizeof sk);
        assert_int_equal(item_sign(&own, &sk), 0);
        assert_true(pubkey_equal(&own.k, &r->item.k));
        assert_int_equal(item_verify(&own), 0);
        item_ref_put(r);
    }
    assert_int_equal(i, 13);
    assert_int_equal(digests, 12);
}

/* What the store answers: sizes first, then the signature. */
static int check(const struct item *it)
{
    int rc = item_check_size(it);
    return rc != 0 ? rc : item_verify(it);
}

static void test_invalid(void **state)
{
    size_t i;
    const json_t *v;

    (void)state;
    json_array_foreach(vec_get(root, "items_invalid"), i, v)
    {
        struct item_ref *r = dht_vec_item(v);
        int rc = check(&r->item);

        assert_int_not_equal(rc, 0);
        assert_string_equal(item_error_text(rc, &r->item), vec_str(v, "error"));
        item_ref_put(r);
    }
    assert_int_equal(i, 15);
}

static void test_error_texts(void **state)
{
    struct item it = {.v_len = 0};

    (void)state;
    assert_string_equal(item_error_text(ERR_SEQ, &it), "dht: sequence number must increase");
    assert_string_equal(item_error_text(ERR_QUOTA, &it), "dht: rate limit exceeded for public key");
    assert_null(item_error_text(ERR_BUSY, &it));
    assert_null(item_error_text(0, &it));
}

/* Each bit of seq, value and salt is signed, and so is the border between the two. */
static void test_every_bit_is_signed(void **state)
{
    struct seckey sk;
    struct pubkey pk;

    (void)state;
    dht_key(root, "key0", &sk, &pk);
    struct item_ref *r = dht_item(&sk, 1, "salt", "value");
    assert_int_equal(item_verify(&r->item), 0);
    for (unsigned bit = 0; bit < 64; bit++) {
        struct item bad = r->item;
        bad.seq ^= UINT64_C(1) << bit;
        assert_int_equal(item_verify(&bad), ERR_SIG);
    }
    uint8_t v[] = "value", salt[] = "salt";
    struct item bad = r->item;
    bad.v = v;
    bad.salt = salt;
    for (unsigned bit = 0; bit < 8 * 5; bit++) {
        v[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(item_verify(&bad), ERR_SIG);
        v[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (unsigned bit = 0; bit < 8 * 4; bit++) {
        salt[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(item_verify(&bad), ERR_SIG);
        salt[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    assert_int_equal(item_verify(&bad), 0);
    bad.v_len = 4;
    assert_int_equal(item_verify(&bad), ERR_SIG);
    item_ref_put(r);
}

static void test_equal(void **state)
{
    struct seckey sk;
    struct pubkey pk;

    (void)state;
    dht_key(root, "key1", &sk, &pk);
    struct item_ref *a = dht_item(&sk, 1, "s", "v");
    struct item b = a->item;
    assert_true(item_equal(&a->item, &b));
    b.seq++;
    assert_false(item_equal(&a->item, &b));
    b = a->item;
    b.k.b[5] ^= 1;
    assert_false(item_equal(&a->item, &b));
    b = a->item;
    b.sig.b[64] ^= 1;
    assert_false(item_equal(&a->item, &b));
    b = a->item;
    b.v = (const uint8_t *)"w";
    assert_false(item_equal(&a->item, &b));
    b.v_len = 0;
    assert_false(item_equal(&a->item, &b));
    b = a->item;
    b.salt = (const uint8_t *)"t";
    assert_false(item_equal(&a->item, &b));
    assert_true(item_salt_is(&a->item, "s"));
    assert_false(item_salt_is(&a->item, "s2"));
    assert_false(item_salt_is(&a->item, ""));
    item_ref_put(a);
}

static void test_ref(void **state)
{
    struct seckey sk;
    struct pubkey pk;
    char v[] = "value";

    (void)state;
    dht_key(root, "key2", &sk, &pk);
    struct item_ref *a = dht_item(&sk, 1, "", v);
    v[0] = 'V'; /* a copy */
    assert_memory_equal(a->item.v, "value", 5);
    assert_null(a->item.salt);
    assert_ptr_equal(item_ref_get(a), a);
    assert_int_equal(a->refs, 2);
    item_ref_put(a);
    struct item_ref *b = item_ref_new(&a->item);
    item_ref_put(a);
    assert_memory_equal(b->item.v, "value", 5);
    item_ref_put(b);
    item_ref_put(NULL);

    /* "null" and "" are the same bytes, but not the same text. */
    struct item_ref *null = dht_item(&sk, 1, "s", NULL), *empty = dht_item(&sk, 1, "s", "");
    assert_null(null->item.v);
    assert_non_null(empty->item.v);
    assert_true(item_equal(&null->item, &empty->item));
    item_ref_put(null);
    item_ref_put(empty);
}

static void test_msg(void **state)
{
    struct seckey sk;
    struct pubkey pk, pks[KAD_K];
    struct kad_msg m;
    struct kad_id target = {{9}};

    (void)state;
    dht_key(root, "key3", &sk, &pk);
    struct item_ref *it = dht_item(&sk, 1, "s", "v");
    kad_msg_init(&m, KAD_PUT_BATCH, false);
    assert_int_equal(m.method, KAD_PUT_BATCH);
    assert_false(m.response);
    for (size_t i = 0; i < KAD_MSG_MAX_ITEMS; i++)
        assert_int_equal(kad_msg_add_item(&m, it, i % 2 != 0 ? &target : NULL), 0);
    assert_int_equal(kad_msg_add_item(&m, it, NULL), ERR_LIMIT);
    assert_int_equal(it->refs, 1 + KAD_MSG_MAX_ITEMS);
    assert_int_equal(m.n_items, KAD_MSG_MAX_ITEMS);
    assert_false(m.items[0].has_target);
    assert_true(m.items[1].has_target);
    assert_true(kad_id_equal(&m.items[1].target, &target));
    for (size_t i = 0; i < KAD_K; i++)
        pks[i] = pk;
    assert_int_equal(kad_msg_set_closest(&m, pks, KAD_K), 0);
    assert_int_equal(kad_msg_set_closest(&m, pks, 3), 0);
    assert_int_equal(m.n_closest, 3);
    m.salt = strdup("salt");
    kad_msg_clear(&m);
    assert_int_equal(m.n_items, 0);
    assert_null(m.closest);
    assert_int_equal(it->refs, 1);
    kad_msg_clear(&m); /* harmless */
    item_ref_put(it);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_valid),       cmocka_unit_test(test_invalid),
        cmocka_unit_test(test_error_texts), cmocka_unit_test(test_every_bit_is_signed),
        cmocka_unit_test(test_equal),       cmocka_unit_test(test_ref),
        cmocka_unit_test(test_msg),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
