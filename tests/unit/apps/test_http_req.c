/*
 * Requests on their way through a proxy: what is understood, what is refused, and whole connections in pieces of any size.
 */
#include <stdio.h>
#include <string.h>

#include "apps/http_req.h"
#include "base/err.h"
#include "tests/unit/prop.h"
#include "tests/unit/vectors.h"

static long parse(struct http_req *r, const char *text)
{
    size_t n = strlen(text);
    char *exact = malloc(n + 1); /* so that a read behind the end is seen */
    memcpy(exact, text, n);
    long rc = http_req_parse(r, exact, n);
    free(exact);
    return rc;
}

static void test_heads(void **state)
{
    static const char good[] =
        "POST /a?b HTTP/1.1\r\nHost: x:1 \r\nContent-Length: 12\r\nA:\tb\r\n\r\nrest";
    struct http_req r;
    (void)state;
    assert_int_equal(http_req_parse(&r, good, sizeof(good) - 1), sizeof(good) - 1 - 4);
    assert_memory_equal(r.method.p, "POST", r.method.n);
    assert_memory_equal(r.target.p, "/a?b", r.target.n);
    assert_int_equal(r.host.n, 3);
    assert_int_equal(r.body, HTTP_LENGTH);
    assert_int_equal(r.length, 12);
    assert_false(r.upgrade);
    for (size_t n = 0; n < sizeof(good) - 1 - 4; n++) {
        char *part = strndup(good, n);
        assert_int_equal(parse(&r, part), 0);
        free(part);
    }
    assert_int_equal(http_req_parse(&r, NULL, 0),
                     0); /* an empty evbuffer has no bytes to point to */
    assert_true(parse(&r, "GET / HTTP/1.0\r\n\r\n") > 0);
    assert_int_equal(r.minor, 0);
    assert_true(parse(&r, "GET / HTTP/1.1\r\nConnection: keep-alive, Upgrade\r\n\r\n") > 0);
    assert_true(r.upgrade);
    assert_true(parse(&r, "GET / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n") > 0);
    assert_int_equal(r.body, HTTP_CHUNKED);
}

static void test_bad_heads(void **state)
{
    static const char *const bad[] = {
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        "GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\n: a\r\n\r\n",
        "GET / HTTP/1.1\r\nnocolon\r\n\r\n",
        "GET / HTTP/1.1\r\nA: \x01\r\n\r\n",
        "GET / HTTP/1.1\r\nA: b\rc\r\n\r\n",
        "GET /a b HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length:\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n",
    };
    static const char *const other[] = {"SSH-2.0-OpenSSH_9.2p1\r\n", "\x16\x03\x01",
                                        "GET / HTTP/2.0\r\n\r\n",    "GET /\r\n",
                                        "HELO host.example.org\r\n", " GET / HTTP/1.1\r\n",
                                        "GET  HTTP/1.1\r\n\r\n",     "ABCDEFGHIJKLMNOPQRSTUVWXYZ"};
    struct http_req r;
    char *big = malloc(HTTP_REQ_MAX + 100);
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        long rc = parse(&r, bad[i]);
        if (rc != ERR_FORMAT && !(i == 5 && rc == ERR_UNSUPPORTED))
            fail_msg("%ld: %s", rc, bad[i]);
    }
    for (size_t i = 0; i < sizeof(other) / sizeof(other[0]); i++) {
        if (parse(&r, other[i]) != ERR_UNSUPPORTED)
            fail_msg("%s", other[i]);
    }
    memset(big, 'a', HTTP_REQ_MAX + 100);
    memcpy(big, "GET / HTTP/1.1\r\nA: ", 19);
    assert_int_equal(http_req_parse(&r, big, HTTP_REQ_MAX), 0);
    assert_int_equal(http_req_parse(&r, big, HTTP_REQ_MAX + 1), ERR_TOO_LONG);
    memcpy(big + HTTP_REQ_MAX, "\r\n\r\n", 4);
    assert_int_equal(http_req_parse(&r, big, HTTP_REQ_MAX + 4), ERR_TOO_LONG);
    free(big);
}

static void split_is(const char *target, bool is_connect, const char *host, unsigned port,
                     const char *rest)
{
    struct http_text h, r;
    uint16_t p;
    int rc = http_target_split((struct http_text){target, strlen(target)}, is_connect, &h, &p, &r);
    if ((rc == 0) != (host != NULL))
        fail_msg("%s: %d", target, rc);
    if (host == NULL)
        return;
    assert_int_equal(h.n, strlen(host));
    assert_memory_equal(h.p, host, h.n);
    assert_int_equal(p, port);
    if (rest != NULL) {
        assert_int_equal(r.n, strlen(rest));
        assert_memory_equal(r.p, rest, r.n);
    }
}

static void test_targets(void **state)
{
    (void)state;
    split_is("http://a/b?c", false, "a", 0, "/b?c");
    split_is("HTTP://a:81", false, "a", 81, "/");
    split_is("http://[::1]:80/", false, "::1", 80, "/");
    split_is("http://a:/", false, "a", 0, "/");
    split_is("/", false, NULL, 0, NULL);
    split_is("https://a/", false, NULL, 0, NULL);
    split_is("http://", false, NULL, 0, NULL);
    split_is("http:///x", false, NULL, 0, NULL);
    split_is("http://u@a/", false, NULL, 0, NULL);
    split_is("http://a:99999/", false, NULL, 0, NULL);
    split_is("http://a?b", false, NULL, 0, NULL);
    split_is("a:443", true, "a", 443, NULL);
    split_is("[::1]:443", true, "::1", 443, NULL);
    split_is("a", true, NULL, 0, NULL);
    split_is("a:0", true, NULL, 0, NULL);
    split_is("[::1", true, NULL, 0, NULL);
    split_is("a:b", true, NULL, 0, NULL);
    struct http_text host;
    uint16_t port;
    assert_int_equal(http_authority_split((struct http_text){0}, &host, &port), ERR_FORMAT);
}

/* ---- whole connections ---- */

struct way {
    const char *host, *in, *out;
    bool one, proxy;
    int rc;
};

static const struct way ways[] = {
    {"site", "GET / HTTP/1.1\r\nHost: site.key.dmsg\r\nA: b\r\n\r\n",
     "GET / HTTP/1.1\r\nHost: site\r\nA: b\r\n\r\n", false, false, 0},
    {"site", "GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nhOST: y\r\n\r\n",
     "GET /1 HTTP/1.1\r\nHost: site\r\n\r\nGET /2 HTTP/1.1\r\nHost: site\r\n\r\n", false, false, 0},
    {"site",
     "POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nHost: x\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
     "POST / HTTP/1.1\r\nHost: site\r\nContent-Length: 9\r\n\r\nHost: x\r\nGET / HTTP/1.1\r\nHost: "
     "site\r\n\r\n",
     false, false, 0},
    {"s",
     "PUT / HTTP/1.1\r\nTransfer-Encoding: "
     "chunked\r\n\r\n5;x=y\r\nHost:\r\n0A\r\n0123456789\r\n0\r\nT: u\r\n\r\nGET / HTTP/1.1\r\n\r\n",
     "PUT / HTTP/1.1\r\nHost: s\r\nTransfer-Encoding: "
     "chunked\r\n\r\n5;x=y\r\nHost:\r\n0A\r\n0123456789\r\n0\r\nT: u\r\n\r\nGET / "
     "HTTP/1.1\r\nHost: s\r\n\r\n",
     false, false, 0},
    {"s",
     "GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x05Host:GET / "
     "HTTP/1.1\r\nHost: x\r\n\r\n",
     "GET /ws HTTP/1.1\r\nHost: s\r\nConnection: Upgrade\r\nUpgrade: "
     "websocket\r\n\r\n\x81\x05Host:GET / HTTP/1.1\r\nHost: x\r\n\r\n",
     false, false, 0},
    {"s", "SSH-2.0-x\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
     "SSH-2.0-x\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", false, false, 0},
    {"s", "GET / HTTP/1.1\r\nHost: x\r\n\r\nSSH-2.0-x\r\n", "GET / HTTP/1.1\r\nHost: s\r\n\r\n",
     false, false, ERR_FORMAT},
    {"s", "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", "", false, false, ERR_FORMAT},
    {"s", "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n",
     "PUT / HTTP/1.1\r\nHost: s\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n", false, false,
     ERR_FORMAT},
    {"s", "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
     "PUT / HTTP/1.1\r\nHost: s\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", false,
     false, ERR_FORMAT},
    {"a:8",
     "GET http://a:8/x HTTP/1.1\r\nHost: b\r\nConnection: keep-alive\r\nKeep-Alive: "
     "5\r\nProxy-Connection: x\r\nProxy-Authorization: y\r\n\r\nGET /2",
     "GET /x HTTP/1.1\r\nHost: a:8\r\nConnection: close\r\n\r\n", true, true, ERR_EOF},
    {"", "POST /x HTTP/1.1\r\nHost: b\r\nContent-Length: 3\r\n\r\nabcdef",
     "POST /x HTTP/1.1\r\nHost: b\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc", true, true,
     ERR_EOF},
    {"", "GET http://a/ws HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nmore",
     "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nmore", true, true, 0},
};

static void flow(const struct way *w, size_t piece, struct prop *r)
{
    struct http_relay x = {.one = w->one, .proxy = w->proxy};
    struct evbuffer *out = evbuffer_new();
    size_t n = strlen(w->in);
    int rc = 0;
    snprintf(x.host, sizeof(x.host), "%s", w->host);
    for (size_t at = 0; at < n && rc == 0;) {
        size_t give = r != NULL ? 1 + prop_below(r, piece) : piece;
        give = give < n - at ? give : n - at;
        uint8_t *copy = malloc(give);
        memcpy(copy, w->in + at, give);
        rc = http_relay_input(&x, copy, give, out);
        free(copy);
        at += give;
    }
    size_t got_n = evbuffer_get_length(out);
    const char *got = (const char *)evbuffer_pullup(out, -1);
    if (rc != w->rc || got_n != strlen(w->out) || (got_n > 0 && memcmp(got, w->out, got_n) != 0))
        fail_msg("pieces of %zu, %d:\n%s\n---\n%.*s", piece, rc, w->in, (int)got_n,
                 got_n > 0 ? got : "");
    evbuffer_free(out);
    http_relay_free(&x);
}

static void test_connections(void **state)
{
    struct prop r = prop_init("HTTP connections in pieces");
    (void)state;
    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        flow(&ways[i], 10000, NULL);
        flow(&ways[i], 1, NULL);
        for (int k = 0; k < 50; k++)
            flow(&ways[i], 1 + prop_below(&r, 40), &r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_heads),
        cmocka_unit_test(test_bad_heads),
        cmocka_unit_test(test_targets),
        cmocka_unit_test(test_connections),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
