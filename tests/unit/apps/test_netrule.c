/*
 * Which addresses a proxy may connect to, and who may use it.
 */
#include <arpa/inet.h>
#include <string.h>

#include "apps/netrule.h"
#include "apps/whitelist.h"
#include "base/err.h"
#include "tests/unit/vectors.h"

static bool allows(const struct netrule *r, const char *text)
{
    uint8_t ip[16];
    size_t n = inet_pton(AF_INET, text, ip) == 1 ? 4 : inet_pton(AF_INET6, text, ip) == 1 ? 16 : 0;
    assert_true(n > 0);
    return netrule_allows(r, ip, n);
}

static void rule(struct netrule *r, const char *text, bool allow)
{
    const char *why;
    assert_int_equal(netrule_add(r, text, allow, &why), 0);
}

static void test_built_in(void **state)
{
    static const char *const no[] = {"0.0.0.0",
                                     "0.1.2.3",
                                     "10.0.0.1",
                                     "100.64.0.1",
                                     "127.0.0.1",
                                     "127.255.255.255",
                                     "169.254.169.254",
                                     "172.16.0.1",
                                     "172.31.255.255",
                                     "192.168.1.1",
                                     "192.0.0.1",
                                     "198.18.0.1",
                                     "224.0.0.1",
                                     "255.255.255.255",
                                     "::",
                                     "::1",
                                     "fc00::1",
                                     "fdff::1",
                                     "fe80::1",
                                     "febf::1",
                                     "fec0::1",
                                     "ff02::1",
                                     "2001:db8::1",
                                     "::ffff:127.0.0.1",
                                     "::ffff:10.0.0.1",
                                     "::127.0.0.1",
                                     "64:ff9b::7f00:1",
                                     "2002:7f00:1::1",
                                     "2002:c0a8:101::",
                                     "64:ff9b:1::8.8.8.8"};
    static const char *const yes[] = {"8.8.8.8",         "172.32.0.1",           "172.15.255.255",
                                      "100.63.255.255",  "100.128.0.1",          "192.167.255.255",
                                      "223.255.255.255", "2606:4700:4700::1111", "::ffff:8.8.8.8",
                                      "2002:808:808::1", "64:ff9b::808:808"};
    struct netrule r = {0}, open = {.private_ok = true};
    (void)state;
    for (size_t i = 0; i < sizeof(no) / sizeof(no[0]); i++) {
        if (allows(&r, no[i]) || !allows(&open, no[i]))
            fail_msg("%s", no[i]);
    }
    for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++) {
        if (!allows(&r, yes[i]))
            fail_msg("%s", yes[i]);
    }
}

static void test_given(void **state)
{
    struct netrule r = {0}, only = {0}, both = {0};
    (void)state;
    rule(&r, "10.1.0.0/16", true);
    rule(&r, "10.1.2.0/24", false);
    rule(&r, "8.8.0.0/16", false);
    rule(&r, "2001:4860::/32", false);
    rule(&r, "10.1.2.3", true);
    assert_true(allows(&r, "10.1.1.1"));
    assert_false(allows(&r, "10.1.2.1"));
    assert_true(allows(&r, "10.1.2.3"));
    assert_false(allows(&r, "10.2.0.1"));
    assert_false(allows(&r, "8.8.8.8"));
    assert_false(allows(&r, "::ffff:8.8.8.8"));
    assert_false(allows(&r, "2002:0808:0808::1"));
    assert_false(allows(&r, "2001:4860:4860::8888"));
    assert_true(allows(&r, "9.9.9.9"));
    rule(&only, "0.0.0.0/0", false);
    rule(&only, "::/0", false);
    rule(&only, "9.9.9.9/32", true);
    assert_true(allows(&only, "9.9.9.9"));
    assert_false(allows(&only, "9.9.9.8"));
    assert_false(allows(&only, "2606::1"));
    rule(&both, "9.0.0.0/8", true);
    rule(&both, "9.0.0.0/8", false);  /* deny before allow */
    rule(&both, "127.0.0.0/8", true); /* given before built in */
    assert_false(allows(&both, "9.9.9.9"));
    assert_true(allows(&both, "127.0.0.1"));
}

static void test_bad(void **state)
{
    static const char *const bad[] = {
        "",           "/8",           "10.0.0.0/",   "10.0.0.0/33", "10.0.0/8",    "fd00::/129",
        "10.0.0.1/8", "fd00::1/64",   "10.0.0.0/8x", "10.0.0.0/-1", "example.org", "10.0.0.0/0008",
        "300.0.0.1",  "10.0.0.128/24"};
    struct netrule r = {0};
    const char *why = NULL;
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (netrule_add(&r, bad[i], true, &why) != ERR_FORMAT)
            fail_msg("%s", bad[i]);
    }
    for (size_t i = 0; i < NETRULES; i++)
        rule(&r, "1.0.0.0/8", true);
    assert_int_equal(netrule_add(&r, "1.0.0.0/8", true, &why), ERR_LIMIT);
}

/* ---- whitelist ---- */

static struct pubkey key_of(unsigned i, char hex[PUBKEY_HEX + 1])
{
    struct seckey sk;
    struct pubkey pk;
    uint8_t seed[32] = {(uint8_t)i, (uint8_t)(i >> 8), 1};
    assert_int_equal(crypto_keypair(&sk, &pk, seed), 0);
    pubkey_hex(hex, &pk);
    return pk;
}

static void test_whitelist(void **state)
{
    struct whitelist w = {0};
    char a[PUBKEY_HEX + 1], b[PUBKEY_HEX + 1], c[PUBKEY_HEX + 1], text[300];
    struct pubkey ka = key_of(1, a), kb = key_of(2, b), kc = key_of(3, c);
    const char *bad = NULL;
    (void)state;
    assert_true(whitelist_allows(&w, &ka)); /* empty: everybody */
    for (char *p = b; *p != '\0'; p++) {
        if (*p >= 'a')
            *p = (char)(*p - 'a' + 'A');
    }
    snprintf(text, sizeof(text), "%s, %s,%s\n", a, b, a);
    assert_int_equal(whitelist_add(&w, text, &bad), 0);
    assert_int_equal(w.n, 2);
    assert_true(whitelist_allows(&w, &ka));
    assert_true(whitelist_allows(&w, &kb));
    assert_false(whitelist_allows(&w, &kc));
    assert_int_equal(whitelist_add(&w, " ,\n", &bad), 0);
    assert_int_equal(w.n, 2);
    a[PUBKEY_HEX - 1] = '\0'; /* a prefix */
    assert_int_equal(whitelist_add(&w, a, &bad), ERR_KEY);
    assert_ptr_equal(bad, a);
    snprintf(text, sizeof(text), "%s,%sff", c, c);
    assert_int_equal(whitelist_add(&w, text, &bad), ERR_KEY);
    assert_false(whitelist_allows(&w, &kc)); /* nothing of a bad list is kept */
    assert_int_equal(
        whitelist_add(&w, "000000000000000000000000000000000000000000000000000000000000000000",
                      &bad),
        ERR_KEY);
    whitelist_free(&w);
}

static void test_whitelist_of_many(void **state)
{
    struct whitelist w = {0};
    char hex[PUBKEY_HEX + 1];
    (void)state;
    for (unsigned i = 1; i < 400; i += 2) {
        key_of(i, hex);
        assert_int_equal(whitelist_add(&w, hex, NULL), 0);
    }
    assert_int_equal(w.n, 200);
    for (unsigned i = 1; i < 400; i++) {
        struct pubkey pk = key_of(i, hex);
        assert_int_equal(whitelist_allows(&w, &pk), i % 2);
    }
    whitelist_free(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_built_in),
        cmocka_unit_test(test_given),
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_whitelist),
        cmocka_unit_test(test_whitelist_of_many),
    };
    return crypto_init() != 0 || cmocka_run_group_tests(tests, NULL, NULL);
}
