/* keylist: files of keys, read whole or not at all. */
#include "node/keylist.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "tests/unit/node/tmpdir.h"
#include "tests/unit/vectors.h"

#define K1 "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
#define K2 "02C6047F9441ED7D6D3045406E95C07CD85C778E4B8CEF3CA7ABAC09B95C709EE5"

static int load(struct keylist *l, const char *text, char why[256])
{
    struct tmpdir dir;
    tmpdir_make(&dir);
    tmpdir_write(&dir, "keys", text, 0600);
    int rc = keylist_load(l, tmpdir_file(&dir, "keys"), why, 256);
    tmpdir_remove(&dir);
    return rc;
}

static void test_good(void **state)
{
    (void)state;
    struct keylist l;
    char why[256];
    assert_int_equal(load(&l, "", why), 0);
    assert_int_equal(l.n, 0);
    keylist_free(&l);
    assert_int_equal(load(&l, "# a\n\n  " K1 " # b\r\n" K2, why), 0);
    assert_int_equal(l.n, 2);
    assert_int_equal(l.keys[1].b[1], 0xc6);
    keylist_free(&l);
    assert_null(l.keys);
}

static void test_bad(void **state)
{
    (void)state;
    static const char *const bad[] = {K1 "\n" K1 "0\n", K1 "\n" K2 " " K1, K1 "\nx\n" K2,
                                      K1 "\n000000"};
    struct keylist l;
    char why[256];
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_true(load(&l, bad[i], why) < 0);
        assert_non_null(strstr(why, "line 2: not a public key"));
        assert_null(l.keys);
    }
    assert_true(keylist_load(&l, "/nowhere/at/all", why, sizeof(why)) < 0);
    assert_non_null(strstr(why, "/nowhere/at/all"));
}

static void test_many(void **state)
{
    (void)state;
    struct keylist l;
    char why[256], *text = malloc(300 * (sizeof(K1) + 1));
    assert_non_null(text);
    text[0] = '\0';
    for (int i = 0; i < 300; i++)
        strcat(text, K1 "\n");
    assert_int_equal(load(&l, text, why), 0);
    assert_int_equal(l.n, 300);
    keylist_free(&l);
    free(text);
}

int main(void)
{
    if (crypto_init() != 0)
        return 1;
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_good), cmocka_unit_test(test_bad),
                                       cmocka_unit_test(test_many)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
