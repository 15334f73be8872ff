/*
 * Signed requests as they were recorded, and the parsers of the frame.
 */
#include "compat-http/httpauth.h"

#include <stdio.h>

#include "base/err.h"
#include "base/loop.h"
#include "compat-http/proxy_line.h"
#include "compat-http/rate.h"
#include "tests/unit/vectors.h"

static char text[HTTPAUTH_TEXT];

static void test_recorded(void **state)
{
    (void)state;
    json_t *root = vectors_load("services");
    const json_t *v;
    size_t i;
    json_array_foreach(vec_get(root, "httpauth_vectors"), i, v)
    {
        struct httpauth a;
        struct hash digest, want;
        char nonce[24];
        const char *body = vec_str(v, "body");
        const char *largest = json_string_value(json_object_get(v, "nonce"));
        uint64_t n = largest != NULL ? strtoull(largest, NULL, 10) : (uint64_t)vec_int(v, "nonce");
        snprintf(nonce, sizeof(nonce), "%llu", (unsigned long long)n);
        httpauth_digest(&digest, body, strlen(body), n);
        vec_hex(v, "sha256", &want, sizeof(want));
        assert_memory_equal(&digest, &want, sizeof(want));
        assert_true(httpauth_parse(&a, vec_str(v, "pk"), vec_str(v, "SW-Sig"), nonce, text));
        assert_true(httpauth_check(&a, n, body, strlen(body), text));
        assert_false(httpauth_check(&a, n + 1, body, strlen(body), text));
        assert_string_equal(text, "SW-Nonce does not match");
        assert_false(httpauth_check(&a, n, "other", 5, text));
        assert_string_equal(text, "Recovered pubkey does not match pubkey");
    }
    assert_int_equal(i, 5);
    json_decref(root);
}

/* Every 401 that was recorded, wherever it stands in the file. */
static size_t refusals(const json_t *v)
{
    const char *name;
    json_t *m;
    size_t i, n = 0;
    const json_t *req = json_object_get(v, "request"), *res = json_object_get(v, "response");
    if (req != NULL && res != NULL && json_integer_value(json_object_get(res, "status")) == 401) {
        const json_t *h = json_object_get(req, "headers");
        const char *body = json_string_value(json_object_get(req, "body"));
        struct httpauth a;
        bool ok = httpauth_parse(&a, json_string_value(json_object_get(h, "SW-Public")),
                                 json_string_value(json_object_get(h, "SW-Sig")),
                                 json_string_value(json_object_get(h, "SW-Nonce")), text) &&
                  httpauth_check(&a, 0, body, strlen(body), text);
        assert_false(ok);
        json_t *said = json_loads(vec_str(res, "body"), 0, NULL);
        assert_string_equal(vec_str(vec_get(said, "error"), "message"), text);
        json_decref(said);
        n++;
    }
    json_object_foreach((json_t *)(uintptr_t)v, name, m)
    {
        n += refusals(m);
    }
    json_array_foreach(v, i, m)
    {
        n += refusals(m);
    }
    return n;
}

static void test_refusals(void **state)
{
    (void)state;
    json_t *root = vectors_load("services");
    assert_in_range(refusals(root), 9, 50);
    json_decref(root);
}

static void test_monitor(void **state)
{
    (void)state;
    json_t *root = vectors_load("discovery");
    const json_t *v;
    size_t i, seen = 0;
    const char *list[] = {vec_str(vec_get(vec_get(root, "keys"), "monitor"), "pk")};
    json_array_foreach(vec_get(root, "transcripts_production_mode"), i, v)
    {
        const json_t *req = vec_get(v, "request");
        if (strcmp(vec_str(req, "path"), "/dmsg-discovery/deregister") != 0)
            continue;
        const json_t *h = json_object_get(req, "headers");
        unsigned status =
            httpauth_monitor_check(json_string_value(json_object_get(h, "NM-PK")),
                                   json_string_value(json_object_get(h, "NM-Sign")), list, 1);
        unsigned said = (unsigned)vec_int(vec_get(v, "response"), "status");
        bool of_the_body = strcmp(vec_str(v, "name"), "deregister: body not a list") == 0 ||
                           strcmp(vec_str(v, "name"), "deregister: bad key in list") == 0;
        assert_int_equal(status, said == 200 || of_the_body ? 0 : said);
        seen++;
    }
    assert_int_equal(seen, 7);
    json_decref(root);
}

static void test_proxy_lines(void **state)
{
    (void)state;
    static const struct {
        const char *p;
        int rc;
        size_t used;
        const char *ip;
        uint16_t port;
    } cases[] = {{"GET / HTTP", 0, 0, "", 0},
                 {"P", ERR_SHORT, 0, "", 0},
                 {"PUT /", 0, 0, "", 0},
                 {"PROXY TCP4 1.2.3.4 5.6.7.8 11 22\r\nX", 0, 34, "1.2.3.4", 11},
                 {"PROXY TCP6 ::1 ::2 11 22\r\n", 0, 26, "::1", 11},
                 {"PROXY UNKNOWN\r\n", 0, 15, "", 0},
                 {"PROXY UNKNOWN a b c d e\r\n", 0, 25, "", 0},
                 {"PROXY TCP4 1.2.3.4 5.6.7.8 11 22\r", ERR_SHORT, 0, "", 0},
                 {"PROXY TCP4 1.2.3.4 5.6.7.8 11\r\n", ERR_FORMAT, 0, "", 0},
                 {"PROXY TCP4 1.2.3.4 5.6.7.8 11 22 33\r\n", ERR_FORMAT, 0, "", 0},
                 {"PROXY TCP4 1.2.3 5.6.7.8 11 22\r\n", ERR_FORMAT, 0, "", 0},
                 {"PROXY TCP4 1.2.3.4 5.6.7.8 99999 22\r\n", ERR_FORMAT, 0, "", 0},
                 {"PROXY \n", ERR_FORMAT, 0, "", 0}};
    struct proxy_line l;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(proxy_line_parse(&l, (const uint8_t *)cases[i].p, strlen(cases[i].p)),
                         cases[i].rc);
        assert_int_equal(l.used, cases[i].used);
        if (cases[i].rc != 0)
            continue;
        assert_string_equal(l.ip, cases[i].ip);
        assert_int_equal(l.port, cases[i].port);
    }
    uint8_t v2[28] = {13, 10, 13, 10, 0, 13, 10, 0x51, 0x55, 0x49, 0x54, 10, 0x21, 0x11,
                      0,  12, 1,  2,  3, 4,  5,  6,    7,    8,    0,    80, 0,    81};
    assert_int_equal(proxy_line_parse(&l, v2, 27), ERR_SHORT);
    assert_int_equal(proxy_line_parse(&l, v2, 28), 0);
    assert_string_equal(l.ip, "1.2.3.4");
    assert_true(l.used == 28 && l.port == 80);
    v2[12] = 0x20; /* LOCAL */
    assert_int_equal(proxy_line_parse(&l, v2, 28), 0);
    assert_true(l.used == 28 && l.ip[0] == '\0');
    v2[12] = 0x31;
    assert_int_equal(proxy_line_parse(&l, v2, 28), ERR_FORMAT);
    v2[12] = 0x21, v2[15] = 11;
    assert_int_equal(proxy_line_parse(&l, v2, 28), ERR_FORMAT);
    v2[14] = 0xff;
    assert_int_equal(proxy_line_parse(&l, v2, 28), ERR_FORMAT);
}

static void test_rates(void **state)
{
    (void)state;
    static const uint8_t hash_key[16] = {1};
    struct rate r;
    uint64_t now = NS_PER_S;
    unsigned taken = 0;
    rate_init(&r, 500, 10, 4, hash_key); /* 30 a minute, 10 at once */
    for (int i = 0; i < 50; i++)
        taken += rate_take(&r, "a", 1, now);
    assert_int_equal(taken, 10);
    for (int i = 0; i < 600; i++) {
        now += NS_PER_S / 10;
        taken += rate_take(&r, "a", 1, now);
    }
    assert_in_range(taken, 39, 40);
    assert_true(rate_take(&r, "b", 1, now) && rate_take(&r, "c", 1, now) &&
                rate_take(&r, "d", 1, now));
    assert_false(rate_take(&r, "e", 1, now)); /* no room … */
    assert_int_equal(r.no_room, 1);
    now += 60 * NS_PER_S;
    assert_true(rate_take(&r, "e", 1, now)); /* … until the others are full again */
    rate_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_recorded), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_monitor),  cmocka_unit_test(test_proxy_lines),
        cmocka_unit_test(test_rates),
    };
    return crypto_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
