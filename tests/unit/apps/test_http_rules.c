#include "apps/http_rules.h"

#include <stdio.h>

#include "base/err.h"
#include "tests/unit/prop.h"
#include "tests/unit/vectors.h"

static void check_path(const char *path, int rc, const char *clean)
{
    char out[256];
    int got = http_path_clean(out, sizeof(out), path);
    if (got != rc || (rc >= 0 && strcmp(out, clean) != 0))
        fail_msg("%s: %d \"%s\", expected %d \"%s\"", path, got, got >= 0 ? out : "", rc, clean);
}

static void test_paths(void **state)
{
    (void)state;
    check_path("/", 0, "/");
    check_path("/a", 0, "/a");
    check_path("/a/", 0, "/a/");
    check_path("/a%20b/%C3%A9", 0, "/a b/\xc3\xa9");
    check_path("/a/..", 1, "/");
    check_path("/a/.", 1, "/a/");
    check_path("/a/./b", 1, "/a/b");
    check_path("/a/../b/", 1, "/b/");
    check_path("/a//b", 1, "/a/b");
    check_path("//", 1, "/");
    check_path("/.", 1, "/");
    check_path("/a/%2e%2e/b", 1, "/b");
    check_path("/...", 0, "/...");
    check_path("/..a/.b", 0, "/..a/.b");
    check_path("/..", ERR_FORMAT, "");
    check_path("/../a", ERR_FORMAT, "");
    check_path("/a/../../b", ERR_FORMAT, "");
    check_path("/%2E%2e/b", ERR_FORMAT, "");
    check_path("/a%2fb", ERR_FORMAT, "");
    check_path("/..%2fb", ERR_FORMAT, "");
    check_path("/a%00", ERR_FORMAT, "");
    check_path("/a%", ERR_FORMAT, "");
    check_path("/a%2", ERR_FORMAT, "");
    check_path("/a%zz", ERR_FORMAT, "");
    check_path("a", ERR_FORMAT, "");
    check_path("", ERR_FORMAT, "");
    check_path("*", ERR_FORMAT, "");
}

static void test_path_room(void **state)
{
    (void)state;
    char out[8];
    assert_int_equal(http_path_clean(out, sizeof(out), "/abcd"), 0);
    assert_int_equal(http_path_clean(out, sizeof(out), "/abcdefgh"), ERR_TOO_LONG);
}

/* Whatever comes: a clean path stays clean, and has no segment that leads elsewhere. */
static void test_any_path(void **state)
{
    (void)state;
    static const char pieces[][5] = {"/", "..", ".", "a", "%2e", "%2f", "//", "b", "%41", "%"};
    struct prop p = prop_init("paths");
    for (int i = 0; i < 20000; i++) {
        char path[128] = "/", out[128], again[128], enc[512];
        for (int n = (int)(prop_below(&p, 12)); n > 0; n--)
            strcat(path, pieces[prop_below(&p, 10)]);
        if (http_path_clean(out, sizeof(out), path) < 0)
            continue;
        assert_int_equal(out[0], '/');
        assert_null(strstr(out, "//"));
        assert_null(strstr(out, "/../"));
        assert_null(strstr(out, "/./"));
        assert_true(http_path_encode(enc, sizeof(enc), out));
        assert_int_equal(http_path_clean(again, sizeof(again), enc), 0);
        assert_string_equal(again, out);
    }
}

static void check_range(const char *text, uint64_t size, int rc, uint64_t first, uint64_t n)
{
    struct http_range r = {0, 0};
    int got = http_range(&r, text, size);
    if (got != rc || (rc == 1 && (r.first != first || r.n != n)))
        fail_msg("%s of %llu: %d %llu+%llu", text, (unsigned long long)size, got,
                 (unsigned long long)r.first, (unsigned long long)r.n);
}

static void test_ranges(void **state)
{
    (void)state;
    check_range("bytes=2-5", 10, 1, 2, 4);
    check_range("bytes=0-0", 10, 1, 0, 1);
    check_range("Bytes= 7-", 10, 1, 7, 3);
    check_range("bytes=-3", 10, 1, 7, 3);
    check_range("bytes=-99", 10, 1, 0, 10);
    check_range("bytes=5-99999999999999999999999", 10, 1, 5, 5);
    check_range("bytes=9-9 ", 10, 1, 9, 1);
    check_range("bytes=10-", 10, ERR_REFUSED, 0, 0);
    check_range("bytes=99999999999999999999999-", 10, ERR_REFUSED, 0, 0);
    check_range("bytes=-0", 10, ERR_REFUSED, 0, 0);
    check_range("bytes=0-", 0, ERR_REFUSED, 0, 0);
    check_range("bytes=-1", 0, ERR_REFUSED, 0, 0);
    check_range("bytes=5-2", 10, 0, 0, 0);
    check_range("bytes=-", 10, 0, 0, 0);
    check_range("bytes=", 10, 0, 0, 0);
    check_range("bytes=a-b", 10, 0, 0, 0);
    check_range("bytes=1-2,4-5", 10, 0, 0, 0);
    check_range("bytes=+1-2", 10, 0, 0, 0);
    check_range("items=1-2", 10, 0, 0, 0);
    check_range("bytes=0-18446744073709551615", UINT64_MAX, 1, 0, UINT64_MAX);
}

static void test_dates(void **state)
{
    (void)state;
    char text[HTTP_DATE_MAX];
    time_t t;
    assert_string_equal(http_date(text, 784111777), "Sun, 06 Nov 1994 08:49:37 GMT");
    static const char *const same[] = {"Sun, 06 Nov 1994 08:49:37 GMT",
                                       "Sunday, 06-Nov-94 08:49:37 GMT",
                                       "Sun Nov  6 08:49:37 1994"};
    for (int i = 0; i < 3; i++) {
        assert_true(http_date_parse(&t, same[i]));
        assert_int_equal(t, 784111777);
    }
    static const char *const bad[] = {"",
                                      "now",
                                      "Sun, 06 Nov",
                                      "Sun, 66 Nov 1994 08:49:37 GMT",
                                      "Sun, 06 Foo 1994 08:49:37 GMT",
                                      "Sun, 06 Nov 1994 28:49:37 GMT"};
    for (int i = 0; i < 6; i++)
        assert_false(http_date_parse(&t, bad[i]));
}

static void test_conditions(void **state)
{
    (void)state;
    const char *date = "Sun, 06 Nov 1994 08:49:37 GMT";
    const time_t then = 784111777;
#define CHECK(status, ...)                                                                         \
    assert_int_equal(http_conditions_check(&(struct http_conditions){__VA_ARGS__}, "\"a\"", then), \
                     status)
    CHECK(200, 0);
    CHECK(304, .if_none_match = "\"a\"");
    CHECK(304, .if_none_match = "\"x\", W/\"a\"");
    CHECK(304, .if_none_match = "*");
    CHECK(200, .if_none_match = "\"x\"");
    CHECK(200, .if_none_match = "\"x\"", .if_modified_since = date);
    CHECK(304, .if_modified_since = date);
    CHECK(200, .if_modified_since = "Sun, 06 Nov 1994 08:49:36 GMT");
    CHECK(200, .if_modified_since = "rubbish");
    CHECK(200, .if_match = "\"a\"");
    CHECK(412, .if_match = "W/\"a\"");
    CHECK(412, .if_match = "\"ab\"");
    CHECK(200, .if_match = "\"a\"", .if_unmodified_since = "Sun, 06 Nov 1994 08:49:36 GMT");
    CHECK(412, .if_unmodified_since = "Sun, 06 Nov 1994 08:49:36 GMT");
    CHECK(200, .if_unmodified_since = date);
#undef CHECK
    assert_true(http_if_range(&(struct http_conditions){0}, "\"a\"", then));
    assert_true(http_if_range(&(struct http_conditions){.if_range = "\"a\""}, "\"a\"", then));
    assert_false(http_if_range(&(struct http_conditions){.if_range = "W/\"a\""}, "\"a\"", then));
    assert_true(http_if_range(&(struct http_conditions){.if_range = date}, "\"a\"", then));
    assert_false(http_if_range(&(struct http_conditions){.if_range = date}, "\"a\"", then + 1));
}

static void test_texts(void **state)
{
    (void)state;
    char out[64], tag[HTTP_ETAG_MAX];
    assert_true(http_html_escape(out, sizeof(out), "<a&\"'>"));
    assert_string_equal(out, "&lt;a&amp;&quot;&#39;&gt;");
    assert_false(http_html_escape(out, 8, "<<<"));
    assert_true(http_path_encode(out, sizeof(out), "/a b?#%\"\n\xc3"));
    assert_string_equal(out, "/a%20b%3F%23%25%22%0A%C3");
    assert_false(http_path_encode(out, 8, "/aaaaaaaaa"));
    assert_string_equal(http_etag(tag, 16, &(struct timespec){1, 2}), "\"3b9aca02-10\"");
    assert_string_equal(http_type_of("/x/A.HTML"), "text/html; charset=utf-8");
    assert_string_equal(http_type_of("/x.d/name"), "application/octet-stream");
    assert_string_equal(http_type_of("x.unknown"), "application/octet-stream");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_paths),    cmocka_unit_test(test_path_room),
        cmocka_unit_test(test_any_path), cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_dates),    cmocka_unit_test(test_conditions),
        cmocka_unit_test(test_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
