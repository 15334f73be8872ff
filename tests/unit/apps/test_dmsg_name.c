/*
 * Host names that lead into the network, and the environment files of upstream.
 */
#include <stdio.h>
#include <string.h>

#include "apps/dmsg_name.h"
#include "apps/envfile.h"
#include "base/err.h"
#include "tests/unit/prop.h"
#include "tests/unit/vectors.h"

static struct pubkey key_of(unsigned i)
{
    struct seckey sk;
    struct pubkey pk;
    uint8_t seed[32] = {(uint8_t)i, (uint8_t)(i >> 8), 7};
    assert_int_equal(crypto_keypair(&sk, &pk, seed), 0);
    return pk;
}

static int parse(struct dmsg_name *out, const struct dmsg_aliases *a, const char *fmt, ...)
{
    char host[600];
    const char *why;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(host, sizeof(host), fmt, ap);
    va_end(ap);
    char *copy = strdup(host); /* so that a read behind the end is seen */
    char *exact = malloc(strlen(copy) + 1);
    memcpy(exact, copy, strlen(copy));
    int rc = dmsg_name_parse(out, a, ".dmsg", exact, strlen(copy), &why);
    assert_true(rc == 0 || rc == ERR_NOT_FOUND || why != NULL);
    free(copy);
    free(exact);
    return rc;
}

static void upper(char *p)
{
    for (; *p != '\0'; p++) {
        if (*p >= 'a' && *p <= 'z')
            *p = (char)(*p - 'a' + 'A');
    }
}

static void test_forms(void **state)
{
    struct pubkey pk = key_of(1);
    char hex[PUBKEY_HEX + 1], b32[DMSG_BASE32 + 1];
    struct dmsg_name n;
    (void)state;
    pubkey_hex(hex, &pk);
    dmsg_base32(b32, &pk);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(parse(&n, NULL, "%s.dmsg", hex), 0);
        assert_true(pubkey_equal(&n.pk, &pk) && !n.has_via && n.vhost[0] == '\0');
        assert_int_equal(parse(&n, NULL, "%s.dmsg.", b32), 0);
        assert_true(pubkey_equal(&n.pk, &pk));
        assert_int_equal(parse(&n, NULL, "a.b-c.%s.DMSG", b32), 0);
        assert_string_equal(n.vhost, "a.b-c");
        upper(hex);
        upper(b32);
    }
}

static void test_base32_of_many(void **state)
{
    struct prop r = prop_init("keys in base32");
    (void)state;
    for (int i = 0; i < 200; i++) {
        struct pubkey pk = key_of((unsigned)prop_below(&r, 60000));
        char b32[DMSG_BASE32 + 1];
        struct dmsg_name n;
        assert_int_equal(strlen(dmsg_base32(b32, &pk)), DMSG_BASE32);
        assert_int_equal(parse(&n, NULL, "%s.dmsg", b32), 0);
        assert_true(pubkey_equal(&n.pk, &pk));
        b32[DMSG_BASE32 - 1] = b32[DMSG_BASE32 - 1] == 'a' ? 'b' : (char)(b32[DMSG_BASE32 - 1] + 1);
        assert_int_equal(parse(&n, NULL, "%s.dmsg", b32), ERR_KEY); /* the spare bit */
    }
}

static void test_chains(void **state)
{
    struct pubkey pk = key_of(1), near = key_of(2), far = key_of(3);
    char a[PUBKEY_HEX + 1], b[PUBKEY_HEX + 1], c[PUBKEY_HEX + 1];
    struct dmsg_name n;
    (void)state;
    pubkey_hex(a, &pk);
    pubkey_hex(b, &near);
    pubkey_hex(c, &far);
    assert_int_equal(parse(&n, NULL, "%s.%s.dmsg", b, a), 0);
    assert_true(n.has_via && pubkey_equal(&n.via, &near) && pubkey_equal(&n.pk, &pk));
    assert_int_equal(parse(&n, NULL, "x.%s.%s.%s.dmsg", c, b, a), 0);
    assert_true(n.has_via && pubkey_equal(&n.via, &near));
    assert_string_equal(n.vhost, "x");
    assert_int_equal(parse(&n, NULL, "%s.x.%s.dmsg", c, a), 0); /* a key left of a name is a name */
    assert_false(n.has_via);
    assert_int_equal(parse(&n, NULL, "0123456789abcdef0123456789abcdef.%s.dmsg", a), ERR_FORMAT);
    assert_int_equal(parse(&n, NULL, "01234567-89ab-cdef-0123-456789abcdef.%s.dmsg", a),
                     ERR_FORMAT);
}

static void test_not_ours_and_wrong(void **state)
{
    struct pubkey pk = key_of(1);
    char hex[PUBKEY_HEX + 1], name[300];
    struct dmsg_name n;
    (void)state;
    pubkey_hex(hex, &pk);
    memset(name, 'a', sizeof(name));
    name[260] = '\0';
    assert_int_equal(parse(&n, NULL, "example.org"), ERR_NOT_FOUND);
    assert_int_equal(parse(&n, NULL, "%sdmsg", hex), ERR_NOT_FOUND);
    assert_int_equal(parse(&n, NULL, "%s.dmsg.org", hex), ERR_NOT_FOUND);
    assert_int_equal(parse(&n, NULL, "%s", ""), ERR_NOT_FOUND);
    assert_int_equal(parse(&n, NULL, "g"), ERR_NOT_FOUND);
    assert_int_equal(parse(&n, NULL, ".dmsg"), ERR_FORMAT);
    assert_int_equal(parse(&n, NULL, "dmsg"), ERR_FORMAT);
    assert_int_equal(parse(&n, NULL, "%s..dmsg", hex), ERR_KEY);
    assert_int_equal(parse(&n, NULL, "a..%s.dmsg", hex), ERR_FORMAT);
    assert_int_equal(parse(&n, NULL, "%s0.dmsg", hex), ERR_KEY);
    assert_int_equal(parse(&n, NULL, "%s.%s.dmsg", name, hex), ERR_TOO_LONG);
    hex[65] = hex[65] == 'z' ? 'y' : 'z';
    assert_int_equal(parse(&n, NULL, "%s.dmsg", hex), ERR_KEY);
    memset(hex, 'f', 66); /* no point of the curve */
    assert_int_equal(parse(&n, NULL, "%s.dmsg", hex), ERR_KEY);
}

static void test_aliases(void **state)
{
    static struct dmsg_aliases a;
    struct pubkey pk = key_of(5);
    char hex[PUBKEY_HEX + 1], text[200];
    struct dmsg_name n;
    (void)state;
    snprintf(text, sizeof(text), "friend=%s", pubkey_hex(hex, &pk));
    assert_int_equal(dmsg_alias_add(&a, text), 0);
    assert_int_equal(dmsg_alias_add(&a, text), ERR_EXISTS);
    text[0] = 'F';
    assert_int_equal(dmsg_alias_add(&a, text), ERR_EXISTS);
    assert_int_equal(parse(&n, &a, "www.FRIEND.dmsg"), 0);
    assert_true(pubkey_equal(&n.pk, &pk));
    assert_string_equal(n.vhost, "www");
    assert_int_equal(parse(&n, &a, "fiend.dmsg"), ERR_KEY);
    assert_int_equal(parse(&n, &a, "frien.dmsg"), ERR_KEY);
    snprintf(text, sizeof(text), "%s=%s", hex, hex); /* a key is no alias */
    assert_int_equal(dmsg_alias_add(&a, text), ERR_FORMAT);
    assert_int_equal(dmsg_alias_add(&a, "a.b=00"), ERR_FORMAT);
    assert_int_equal(dmsg_alias_add(&a, "=00"), ERR_FORMAT);
    assert_int_equal(dmsg_alias_add(&a, "ab"), ERR_FORMAT);
    assert_int_equal(dmsg_alias_add(&a, "ab=00"), ERR_KEY);
    assert_true(dmsg_suffix_ok(".dmsg") && dmsg_suffix_ok(".a.b"));
    assert_false(dmsg_suffix_ok("dmsg") || dmsg_suffix_ok("") || dmsg_suffix_ok(".") ||
                 dmsg_suffix_ok(".a.") || dmsg_suffix_ok("..a") || dmsg_suffix_ok(".a b"));
}

/* ---- environment files ---- */

static void collect(void *arg, const char *name, const char *value)
{
    char *text = arg;
    size_t n = strlen(text);
    snprintf(text + n, 400 - n, "%s=%s|", name, value);
}

static void env_is(const char *file, const char *want)
{
    char *text = strdup(file), got[400] = "";
    size_t line = 0;
    assert_int_equal(envfile_parse(text, collect, got, &line), 0);
    assert_string_equal(got, want);
    free(text);
}

static void env_fails(const char *file, size_t where)
{
    char *text = strdup(file), got[400] = "";
    size_t line = 0;
    int rc = envfile_parse(text, collect, got, &line);
    if (rc != ERR_FORMAT || line != where)
        fail_msg("%s: %d, line %zu", file, rc, line);
    free(text);
}

static void test_envfile(void **state)
{
    (void)state;
    env_is("", "");
    env_is("# nothing\n\n \t\n", "");
    env_is("A=1", "A=1|");
    env_is("A=1 # one\r\nexport B='x y' \nC=\"#\"\nD=\n", "A=1|B=x y|C=#|D=|");
    env_is("P=('8080' \"81\"\n 82 # more\n)\nQ=()\nR=('')", "P=8080|P=81|P=82|R=|");
    env_is("ADDPROXY='127.0.0.1:1080'\n", "ADDPROXY=127.0.0.1:1080|");
    env_fails("A", 1);
    env_fails("A =1", 1);
    env_fails("1A=1", 1);
    env_fails("A=1\nB='x\n'", 2);
    env_fails("A=$HOME", 1);
    env_fails("A=\"`id`\"", 1);
    env_fails("A='a''b'", 1);
    env_fails("A=a\\b", 1);
    env_fails("A=1; B=2", 1);
    env_fails("A=1 B=2", 1);
    env_fails("A=(1 2", 1);
    env_fails("A=(1\n(2))", 2);
    env_fails("A=1)", 1);
}

static void test_envfile_that_cannot_be_read(void **state)
{
    char got[400] = "";
    size_t line;
    (void)state;
    assert_int_equal(envfile_read("/nowhere/at/all", collect, got, &line), -2);
    assert_true(envfile_read("/", collect, got, &line) < 0);
    assert_int_equal(envfile_read("/dev/zero", collect, got, &line), ERR_TOO_LONG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),
        cmocka_unit_test(test_base32_of_many),
        cmocka_unit_test(test_chains),
        cmocka_unit_test(test_not_ours_and_wrong),
        cmocka_unit_test(test_aliases),
        cmocka_unit_test(test_envfile),
        cmocka_unit_test(test_envfile_that_cannot_be_read),
    };
    return crypto_init() != 0 || cmocka_run_group_tests(tests, NULL, NULL);
}
