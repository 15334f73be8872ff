#include "base/crypto.h"

#include "base/err.h"
#include "tests/unit/vectors.h"

static json_t *root;

static int setup(void **state)
{
    (void)state;
    root = vectors_load("dmsg");
    return crypto_init();
}

static int teardown(void **state)
{
    (void)state;
    json_decref(root);
    return 0;
}

static void test_pairs(void **state)
{
    size_t i;
    const json_t *v, *keys = vec_get(root, "keys");

    (void)state;
    assert_int_equal(json_array_size(vec_get(keys, "pairs")), 7);
    json_array_foreach(vec_get(keys, "pairs"), i, v)
    {
        struct seckey sk, sk2;
        struct pubkey pk, pk2, want;
        char hex[PUBKEY_HEX + 1], brief[9];

        vec_hex(v, "sk", &sk, sizeof sk);
        vec_hex(v, "pk", &want, sizeof want);
        assert_int_equal(seckey_check(&sk), 0);
        assert_int_equal(seckey_pubkey(&pk, &sk), 0);
        assert_true(pubkey_equal(&pk, &want));
        assert_int_equal(pubkey_cmp(&pk, &want), 0);
        assert_int_equal(pubkey_check(&pk), 0);
        assert_false(pubkey_is_null(&pk));
        assert_ptr_equal(pubkey_hex(hex, &pk), hex);
        assert_string_equal(hex, vec_str(v, "pk"));
        assert_ptr_equal(pubkey_short(brief, &pk), brief);
        assert_int_equal(strlen(brief), 8);
        assert_memory_equal(brief, hex, 8);
        assert_int_equal(crypto_keypair(&sk2, &pk2, sk.b), 0);
        assert_memory_equal(&sk2, &sk, sizeof sk);
        assert_true(pubkey_equal(&pk2, &want));
        assert_int_equal(seckey_from_hex(&sk2, vec_str(v, "sk"), 64), 0);
        assert_memory_equal(&sk2, &sk, sizeof sk);
        seckey_wipe(&sk2);
        assert_int_equal(seckey_check(&sk2), ERR_KEY);
    }
}

static void test_from_seed(void **state)
{
    size_t i, n;
    const json_t *v;

    (void)state;
    json_array_foreach(vec_get(vec_get(root, "keys"), "from_seed"), i, v)
    {
        struct seckey sk, want_sk;
        struct pubkey pk, want_pk;
        uint8_t *seed = vec_hex_dup(v, "seed", &n);

        vec_hex(v, "sk", &want_sk, sizeof want_sk);
        vec_hex(v, "pk", &want_pk, sizeof want_pk);
        assert_int_equal(crypto_keypair_from_seed(&sk, &pk, seed, n), 0);
        assert_memory_equal(&sk, &want_sk, sizeof sk);
        assert_true(pubkey_equal(&pk, &want_pk));
        free(seed);
    }
    assert_int_equal(i, 3);
}

static void test_pubkey_parse(void **state)
{
    size_t i;
    const json_t *v;

    (void)state;
    json_array_foreach(vec_get(vec_get(root, "keys"), "pubkey_parse"), i, v)
    {
        const char *text = vec_str(v, "hex");
        size_t n = strlen(text);
        struct pubkey pk, want;
        bool ok = vec_str(v, "parse_error")[0] == '\0';
        bool json_ok = vec_str(v, "json_text_error")[0] == '\0';

        vec_hex(v, "json_text_value", &want, sizeof want);
        memset(&pk, 0xee, sizeof pk);
        assert_int_equal(pubkey_from_hex(&pk, text, n), ok ? 0 : ERR_KEY);
        assert_int_equal(pk.b[0], ok ? want.b[0] : 0xee); /* untouched when refused */
        assert_int_equal(pubkey_from_json_text(&pk, text, n), json_ok ? 0 : ERR_KEY);
        if (json_ok)
            assert_true(pubkey_equal(&pk, &want));
    }
    assert_int_equal(i, 12);
}

static void test_pubkey_text_lengths(void **state)
{
    const char *good = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f8179800";
    struct pubkey pk;

    (void)state;
    for (size_t n = 0; n <= strlen(good); n++)
        assert_int_equal(pubkey_from_hex(&pk, good, n), n == PUBKEY_HEX ? 0 : ERR_KEY);
    /* The JSON rule: any number of zeros, but nothing else beside them. */
    char zeros[200];
    memset(zeros, '0', sizeof zeros);
    for (size_t n = 0; n <= sizeof zeros; n++) {
        assert_int_equal(pubkey_from_json_text(&pk, zeros, n), 0);
        assert_true(pubkey_is_null(&pk));
        assert_int_equal(pubkey_check(&pk), ERR_KEY);
    }
    assert_int_equal(pubkey_from_json_text(&pk, "0 ", 2), ERR_KEY);
    assert_int_equal(pubkey_from_json_text(&pk, "00\0000", 4), ERR_KEY);
}

static void test_seckey_parse(void **state)
{
    size_t i;
    const json_t *v;

    (void)state;
    json_array_foreach(vec_get(vec_get(root, "keys"), "seckey_parse"), i, v)
    {
        const char *text = vec_str(v, "hex");
        struct seckey sk;
        struct pubkey pk;
        struct sig sig;
        uint8_t out[32];

        assert_string_not_equal(vec_str(v, "parse_error"), "");
        assert_int_equal(seckey_from_hex(&sk, text, strlen(text)), ERR_KEY);
        if (strlen(text) != 64)
            continue;
        vec_hex(v, "hex", &sk, sizeof sk);
        assert_int_equal(seckey_check(&sk), ERR_KEY);
        assert_int_equal(seckey_pubkey(&pk, &sk), ERR_KEY);
        assert_int_equal(crypto_sign_msg(&sig, &sk, "x", 1), ERR_KEY);
        assert_int_equal(
            pubkey_from_hex(
                &pk, "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798", 66),
            0);
        assert_int_equal(crypto_ecdh(out, &sk, &pk), ERR_KEY);
        uint8_t seed[32];
        memcpy(seed, sk.b, sizeof seed);
        assert_int_equal(crypto_keypair(&sk, &pk, seed), ERR_KEY);
    }
    assert_int_equal(i, 4);
}

static void test_ecdh(void **state)
{
    size_t i;
    const json_t *v;

    (void)state;
    json_array_foreach(vec_get(root, "ecdh"), i, v)
    {
        struct seckey sk, peer_sk;
        struct pubkey pk, peer_pk;
        uint8_t want[32], got[32];

        vec_hex(v, "sk", &sk, sizeof sk);
        vec_hex(v, "pk", &pk, sizeof pk);
        vec_hex(v, "peer_sk", &peer_sk, sizeof peer_sk);
        vec_hex(v, "peer_pk", &peer_pk, sizeof peer_pk);
        vec_hex(v, "shared32", want, sizeof want);
        assert_int_equal(crypto_ecdh(got, &sk, &peer_pk), 0);
        assert_memory_equal(got, want, sizeof want);
        assert_int_equal(crypto_ecdh(got, &peer_sk, &pk), 0);
        assert_memory_equal(got, want, sizeof want);
        peer_pk.b[0] = 4;
        assert_int_equal(crypto_ecdh(got, &sk, &peer_pk), ERR_KEY);
        memset(&peer_pk, 0, sizeof peer_pk);
        assert_int_equal(crypto_ecdh(got, &sk, &peer_pk), ERR_KEY);
    }
    assert_int_equal(i, 10);
}

static void test_sign(void **state)
{
    size_t i, n;
    const json_t *v;

    (void)state;
    json_array_foreach(vec_get(root, "sign"), i, v)
    {
        struct seckey sk;
        struct pubkey pk;
        struct sig want, sig;
        struct hash digest, want_digest;
        uint8_t nonce[32], *payload = vec_hex_dup(v, "payload", &n);

        vec_hex(v, "sk", &sk, sizeof sk);
        vec_hex(v, "pk", &pk, sizeof pk);
        vec_hex(v, "sig", &want, sizeof want);
        vec_hex(v, "sha256", &want_digest, sizeof want_digest);
        vec_hex(v, "nonce_k", nonce, sizeof nonce);
        crypto_sha256(&digest, payload, n);
        assert_memory_equal(&digest, &want_digest, sizeof digest);
        assert_int_equal(crypto_sign_with_nonce(&sig, &sk, &digest, nonce), 0);
        assert_memory_equal(&sig, &want, sizeof sig);
        assert_int_equal(crypto_verify(&pk, &sig, payload, n), 0);
        assert_int_equal(crypto_sign_msg(&sig, &sk, payload, n), 0);
        assert_int_equal(crypto_verify(&pk, &sig, payload, n), 0);
        assert_true(sig.b[32] < 0x80);
        free(payload);
    }
    assert_int_equal(i, 9);
}

static void test_sign_refuses(void **state)
{
    struct seckey sk;
    struct pubkey pk;
    struct sig sig;
    struct hash zero = {{0}}, digest;
    uint8_t bad_nonce[32] = {0};

    (void)state;
    assert_int_equal(crypto_keypair_from_seed(&sk, &pk, (const uint8_t *)"a", 1), 0);
    assert_int_equal(crypto_sign_digest(&sig, &sk, &zero), ERR_SIG);
    crypto_sha256(&digest, "a", 1);
    assert_int_equal(crypto_sign_with_nonce(&sig, &sk, &digest, bad_nonce), ERR_KEY);
    assert_int_equal(crypto_sign_digest(&sig, &sk, &digest), 0);
    assert_int_equal(crypto_verify_digest(&pk, &sig, &digest), 0);
    assert_int_equal(crypto_verify_digest(&pk, &sig, &zero), ERR_SIG);
    memset(&pk, 0, sizeof pk);
    assert_int_equal(crypto_verify_digest(&pk, &sig, &digest), ERR_KEY);
}

static void test_verify(void **state)
{
    size_t i, n, accepted = 0;
    const json_t *v;

    (void)state;
    json_array_foreach(vec_get(root, "verify"), i, v)
    {
        struct pubkey pk;
        struct sig sig;
        struct hash digest;
        uint8_t *payload = vec_hex_dup(v, "payload", &n);
        bool ok = vec_bool(v, "ok");

        vec_hex(v, "pk", &pk, sizeof pk);
        vec_hex(v, "sig", &sig, sizeof sig);
        if (crypto_verify(&pk, &sig, payload, n) != (ok ? 0 : ERR_SIG))
            fail_msg("verify: %s", vec_str(v, "note"));
        crypto_sha256(&digest, payload, n);
        const char *text = crypto_verify_text(&pk, &sig, &digest);
        assert_int_equal(text == NULL, ok);
        if (text != NULL)
            assert_string_equal(text, vec_str(v, "error"));
        accepted += ok;
        free(payload);
    }
    assert_int_equal(i, 24);
    assert_in_range(accepted, 2, 23); /* the list has both kinds */
}

/* Every bit of a signature matters. */
static void test_verify_bit_flips(void **state)
{
    struct seckey sk;
    struct pubkey pk;
    struct sig sig;

    (void)state;
    assert_int_equal(crypto_keypair_from_seed(&sk, &pk, (const uint8_t *)"flip", 4), 0);
    assert_int_equal(crypto_sign_msg(&sig, &sk, "message", 7), 0);
    for (size_t bit = 0; bit < 8 * sizeof sig; bit++) {
        struct sig bad = sig;
        bad.b[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(crypto_verify(&pk, &bad, "message", 7), ERR_SIG);
    }
    assert_int_equal(crypto_verify(&pk, &sig, "messagf", 7), ERR_SIG);
}

static void check_hex(const void *got, const char *want_hex)
{
    size_t n;
    uint8_t *want = hex_dup(want_hex, &n);
    assert_memory_equal(got, want, n);
    free(want);
}

/* FIPS 180-4 example, RFC 4231 cases 1 and 6, SipHash paper's appendix A, RFC 8439 A.5 */
static void test_symmetric(void **state)
{
    struct hash h, h2;
    uint8_t key[131], mac[32];

    (void)state;
    crypto_sha256(&h, "abc", 3);
    check_hex(&h, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    crypto_sha256_2(&h2, "a", 1, "bc", 2);
    assert_memory_equal(&h, &h2, sizeof h);
    memset(key, 0x0b, 20);
    crypto_hmac_sha256(mac, key, 20, "Hi There", 8);
    check_hex(mac, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    memset(key, 0xaa, sizeof key);
    const char *text = "Test Using Larger Than Block-Size Key - Hash Key First";
    crypto_hmac_sha256(mac, key, sizeof key, text, strlen(text));
    check_hex(mac, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
    uint8_t count[16];
    for (size_t i = 0; i < sizeof count; i++)
        count[i] = (uint8_t)i;
    assert_true(crypto_siphash(count, count, 15) == UINT64_C(0xa129ca6149be45e5));
}

/* Key and nonce of RFC 8439 §2.8.2 do not have the form 00000000|n; the peers' vectors cover the
 * bytes, this covers the rules. */
static void test_aead(void **state)
{
    uint8_t key[32] = {1}, buf[64 + AEAD_TAG_BYTES], sealed[64 + AEAD_TAG_BYTES], plain[64];

    (void)state;
    for (size_t i = 0; i < sizeof plain; i++)
        plain[i] = (uint8_t)(i * 3);
    for (size_t n = 0; n <= sizeof plain; n++) {
        size_t m = n + AEAD_TAG_BYTES;
        crypto_aead_seal(sealed, key, 7, "ad", 2, plain, n);
        memcpy(buf, plain, n);
        crypto_aead_seal(buf, key, 7, "ad", 2, buf, n); /* in place */
        assert_memory_equal(buf, sealed, m);
        assert_int_equal(crypto_aead_open(buf, key, 7, "ad", 2, buf, m), 0);
        assert_memory_equal(buf, plain, n);
        assert_int_equal(crypto_aead_open(buf, key, 8, "ad", 2, sealed, m), ERR_TAG);
        assert_int_equal(crypto_aead_open(NULL, key, 7, "ad", 2, sealed, m), 0);
        assert_int_equal(crypto_aead_open(NULL, key, 8, "ad", 2, sealed, m), ERR_TAG);
        for (size_t i = 0; i < n; i++)
            assert_int_equal(buf[i], 0);
        assert_int_equal(crypto_aead_open(buf, key, 7, "aD", 2, sealed, m), ERR_TAG);
        assert_int_equal(crypto_aead_open(buf, key, 7, NULL, 0, sealed, m), ERR_TAG);
        assert_int_equal(crypto_aead_open(buf, key, 7, "ad", 2, sealed, 15), ERR_SHORT);
    }
    /* Both halves of the counter reach the nonce. */
    crypto_aead_seal(sealed, key, UINT64_C(1) << 56, NULL, 0, plain, 4);
    assert_int_equal(crypto_aead_open(buf, key, 0, NULL, 0, sealed, 20), ERR_TAG);
    assert_int_equal(crypto_aead_open(buf, key, UINT64_C(1) << 56, NULL, 0, sealed, 20), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pairs),        cmocka_unit_test(test_from_seed),
        cmocka_unit_test(test_pubkey_parse), cmocka_unit_test(test_pubkey_text_lengths),
        cmocka_unit_test(test_seckey_parse), cmocka_unit_test(test_ecdh),
        cmocka_unit_test(test_sign),         cmocka_unit_test(test_sign_refuses),
        cmocka_unit_test(test_verify),       cmocka_unit_test(test_verify_bit_flips),
        cmocka_unit_test(test_symmetric),    cmocka_unit_test(test_aead),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
