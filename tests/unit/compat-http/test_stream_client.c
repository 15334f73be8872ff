#include "compat-http/stream_client.h"

#include "base/err.h"
#include "tests/unit/vectors.h"

#define PK "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"

static void good(const char *text, uint16_t port, const char *host, const char *http)
{
    struct stream_url u;
    char hex[PUBKEY_HEX + 1];
    const char *why = "";
    if (stream_url_parse(&u, text, &why) < 0)
        fail_msg("%s: %s", text, why);
    assert_string_equal(pubkey_hex(hex, &u.pk), PK);
    assert_int_equal(u.port, port);
    assert_string_equal(u.host, host);
    assert_string_equal(u.http, http);
    assert_int_equal(u.http[u.path], '/');
    stream_url_free(&u);
}

static void bad(const char *text, int rc)
{
    struct stream_url u;
    const char *why = NULL;
    if (stream_url_parse(&u, text, &why) != rc)
        fail_msg("%s: expected %s", text, err_str(rc));
    assert_non_null(why);
    stream_url_free(&u);
}

static void test_urls(void **state)
{
    (void)state;
    good("dmsg://" PK, 80, PK, "http://" PK "/");
    good("dmsg://" PK ":8080", 8080, PK ":8080", "http://" PK ":8080/");
    good("dmsg://" PK ":80/a/b?x=1#y", 80, PK ":80", "http://" PK ":80/a/b?x=1#y");
    good("dmsg://" PK "?x", 80, PK, "http://" PK "/?x");
    good("http://" PK "/a", 80, PK, "http://" PK "/a");
    good("any+thing.1://" PK "/a", 80, PK, "http://" PK "/a");
    bad(PK, ERR_FORMAT);
    bad(PK ":80", ERR_FORMAT);
    bad("://" PK, ERR_FORMAT);
    bad("", ERR_FORMAT);
    bad("dmsg:/" PK, ERR_FORMAT);
    bad("dmsg://", ERR_FORMAT);
    bad("dmsg:///a", ERR_FORMAT);
    bad("dmsg://zz:80/", ERR_KEY);
    bad("dmsg://example.com/", ERR_KEY);
    bad("dmsg://05be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798/", ERR_KEY);
    bad("dmsg://" PK "00/", ERR_KEY);
    bad("dmsg://" PK ":99999/", ERR_FORMAT);
    bad("dmsg://" PK ":0/", ERR_FORMAT);
    bad("dmsg://" PK ":/", ERR_FORMAT);
    bad("dmsg://" PK ":80:80/", ERR_FORMAT);
    bad("dmsg://me@" PK "/", ERR_FORMAT);
    bad("dmsg://" PK "/a b", ERR_FORMAT);
    bad("dmsg://" PK "/a\r\nX: y", ERR_FORMAT);
}

/* What the recorded tools accept and refuse. */
static void test_recorded_urls(void **state)
{
    (void)state;
    json_t *root = vectors_load("apps");
    json_t *all = json_object_get(root, "dmsg_http"), *v;
    const char *name;
    int checked = 0;
    json_object_foreach(all, name, v)
    {
        json_t *args = json_object_get(v, "args");
        size_t n = json_array_size(args);
        if (n == 0 || json_object_get(v, "wire") == NULL)
            continue;
        struct stream_url u;
        char line[200];
        const char *request = vec_str(json_object_get(v, "wire"), "request_text");
        assert_int_equal(stream_url_parse(&u, json_string_value(json_array_get(args, n - 1)), NULL),
                         0);
        snprintf(line, sizeof(line), "\r\nHost: %s\r\n", u.host);
        assert_non_null(strstr(request, line));
        snprintf(line, sizeof(line), " %s HTTP/1.1\r\n", u.http + u.path);
        assert_non_null(strstr(request, line));
        stream_url_free(&u);
        checked++;
    }
    assert_true(checked >= 6);
    struct stream_url u;
    static const char *const refused[] = {"dmsgget_bad_pk", "dmsgget_bad_port",
                                          "dmsgget_no_scheme"};
    for (size_t i = 0; i < 3; i++) {
        const json_t *args = vec_get(vec_get(all, refused[i]), "args");
        size_t n = json_array_size(args);
        assert_true(stream_url_parse(&u, json_string_value(json_array_get(args, n - 1)), NULL) < 0);
    }
    json_decref(root);
}

static void join(const char *location, const char *expected)
{
    struct stream_url base, u;
    assert_int_equal(stream_url_parse(&base, "dmsg://" PK ":8080/a/b?x=1", NULL), 0);
    assert_int_equal(stream_url_join(&u, &base, location, NULL), 0);
    assert_string_equal(u.http, expected);
    stream_url_free(&u);
    stream_url_free(&base);
}

static void test_redirects(void **state)
{
    (void)state;
    struct stream_url base, u;
    join("/c", "http://" PK ":8080/c");
    join("c?y", "http://" PK ":8080/a/c?y");
    join("../c", "http://" PK ":8080/c");
    join("http://" PK "/c", "http://" PK "/c");
    join("dmsg://" PK ":9/c", "http://" PK ":9/c");
    assert_int_equal(stream_url_parse(&base, "dmsg://" PK "/", NULL), 0);
    assert_int_equal(stream_url_join(&u, &base, "http://example.com/", NULL), ERR_KEY);
    assert_int_equal(stream_url_join(&u, &base, "//example.com/", NULL), ERR_KEY);
    assert_int_equal(stream_url_join(&u, &base, "file:///etc/passwd", NULL), ERR_FORMAT);
    stream_url_free(&base);
}

static int setup(void **state)
{
    (void)state;
    return crypto_init();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_urls),
        cmocka_unit_test(test_recorded_urls),
        cmocka_unit_test(test_redirects),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
