#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/addr.h"
#include "base/err.h"
#include "tests/unit/prop.h"

/* A key of the vectors. */
#define PK     "022e7922958aab1fb80e7a0a0e4cad0e385f6939dff6cd00321a93a3040490908f"
#define NULLPK "000000000000000000000000000000000000000000000000000000000000000000"
#define L63    "abcdefghijklmnopqrstuvwxyz0123456789-abcdefghijklmnopqrstuvwxyz"

static void test_hostport_accepted(void **state)
{
    (void)state;
    static const struct {
        const char *text, *host;
        unsigned port, flags;
        const char *canon; /* NULL = as written */
    } cases[] = {
        {"example.org:8081", "example.org", 8081, 0, NULL},
        {"A_b-c.Example:1", "A_b-c.Example", 1, 0, NULL},
        {"localhost:65535", "localhost", 65535, 0, NULL},
        {"1.2.3.4:80", "1.2.3.4", 80, 0, NULL},
        {"1.2.3.4a:80", "1.2.3.4a", 80, 0, NULL},
        {"[::1]:80", "::1", 80, 0, NULL},
        {"[2001:DB8:0:0:0:0:0:1]:80", "2001:db8::1", 80, 0, "[2001:db8::1]:80"},
        {"[::ffff:1.2.3.4]:80", "::ffff:1.2.3.4", 80, 0, NULL},
        {L63 ".x:80", L63 ".x", 80, 0, NULL},
        {"127.0.0.1:0", "127.0.0.1", 0, ADDR_PORT_0, NULL},
        {":8081", "", 8081, ADDR_ANY_HOST, NULL},
        {":0", "", 0, ADDR_ANY_HOST | ADDR_PORT_0, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct addr_hostport a;
        char text[ADDR_HOSTPORT_MAX + 1];
        const char *in = cases[i].text;
        assert_int_equal(addr_hostport_parse(&a, in, strlen(in), cases[i].flags, NULL), 0);
        assert_string_equal(a.host, cases[i].host);
        assert_int_equal(a.port, cases[i].port);
        assert_string_equal(addr_hostport_text(text, &a), cases[i].canon ? cases[i].canon : in);
    }
}

static void test_hostport_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *why;
    } cases[] = {
        {"", "not HOST:PORT"},
        {"example.org", "not HOST:PORT"},
        {":80", "host is missing"},
        {"example.org:", "port is not a number from 1 to 65535"},
        {"example.org:0", "port is not a number from 1 to 65535"},
        {"example.org:65536", "port is not a number from 1 to 65535"},
        {"example.org:99999999999999999999", "port is not a number from 1 to 65535"},
        {"example.org:080", "port is not a number from 1 to 65535"},
        {"example.org:+80", "port is not a number from 1 to 65535"},
        {"example.org:80 ", "port is not a number from 1 to 65535"},
        {"example.org:http", "port is not a number from 1 to 65535"},
        {" example.org:80", "host is not a name or an address"},
        {"exa mple:80", "host is not a name or an address"},
        {"-x.org:80", "host is not a name or an address"},
        {"x-.org:80", "host is not a name or an address"},
        {"x..org:80", "host is not a name or an address"},
        {".org:80", "host is not a name or an address"},
        {"example.org.:80", "host is not a name or an address"},
        {"ex\xc3\xa4mple.org:80", "host is not a name or an address"},
        {"http://example.org:80", "an IPv6 address needs brackets: [ADDRESS]:PORT"},
        {"a@b:80", "host is not a name or an address"},
        {L63 "x.org:80", "host is not a name or an address"},
        {L63 "." L63 "." L63 "." L63 ":80", "host name is too long"},
        {"1.2.3:80", "host is not an IPv4 address"},
        {"256.1.1.1:80", "host is not an IPv4 address"},
        {"1.2.3.04:80", "host is not an IPv4 address"},
        {"17:80", "host is not an IPv4 address"},
        {"::1:80", "an IPv6 address needs brackets: [ADDRESS]:PORT"},
        {"[::1]", "not [IPV6]:PORT"},
        {"[::1]80", "not [IPV6]:PORT"},
        {"[:80", "not [IPV6]:PORT"},
        {"[]:80", "what stands in brackets is not an IPv6 address"},
        {"[1.2.3.4]:80", "what stands in brackets is not an IPv6 address"},
        {"[fe80::1%eth0]:80", "what stands in brackets is not an IPv6 address"},
        {"[::1]:0", "port is not a number from 1 to 65535"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct addr_hostport a = {.host = "untouched"};
        const char *why = "";
        const char *in = cases[i].text;
        assert_int_equal(addr_hostport_parse(&a, in, strlen(in), 0, &why), ERR_FORMAT);
        assert_string_equal(why, cases[i].why);
        assert_string_equal(a.host, "untouched");
        assert_int_equal(addr_hostport_parse(&a, in, strlen(in), 0, NULL), ERR_FORMAT);
    }
    struct addr_hostport a;
    const char *why;
    assert_int_equal(addr_hostport_parse(&a, "a\0b:80", 6, 0, NULL), ERR_FORMAT);
    assert_int_equal(addr_hostport_parse(&a, "a:8\0", 4, 0, NULL), ERR_FORMAT);
    assert_int_equal(addr_hostport_parse(&a, "[::1\0]:80", 9, 0, NULL), ERR_FORMAT);
    assert_int_equal(addr_hostport_parse(&a, "a:65536", 7, ADDR_PORT_0, &why), ERR_FORMAT);
    assert_string_equal(why, "port is not a number from 0 to 65535");
}

static void test_peer(void **state)
{
    (void)state;
    struct addr_peer a;
    char text[ADDR_PEER_MAX + 1];
    const char *in = PK "@[::1]:8081", *why;
    assert_int_equal(addr_peer_parse(&a, in, strlen(in), NULL), 0);
    assert_string_equal(a.at.host, "::1");
    assert_int_equal(a.at.port, 8081);
    assert_int_equal(a.pk.b[1], 0x2e);
    assert_string_equal(addr_peer_text(text, &a), in);

    static const struct {
        const char *text;
        int err;
        const char *why;
    } bad[] = {
        {"", ERR_FORMAT, "not PK@HOST:PORT"},
        {PK, ERR_FORMAT, "not PK@HOST:PORT"},
        {PK ":80", ERR_FORMAT, "not PK@HOST:PORT"},
        {"@h:80", ERR_KEY, "key does not have 66 hex digits"},
        {PK "0@h:80", ERR_KEY, "key does not have 66 hex digits"},
        {NULLPK "@h:80", ERR_KEY, "key is not a public key"},
        {"0x" PK "@h:80", ERR_KEY, "key does not have 66 hex digits"},
        {PK "@", ERR_FORMAT, "not HOST:PORT"},
        {PK "@h:0", ERR_FORMAT, "port is not a number from 1 to 65535"},
        {PK "@:80", ERR_FORMAT, "host is missing"},
        {PK "@@h:80", ERR_FORMAT, "host is not a name or an address"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        why = "";
        assert_int_equal(addr_peer_parse(&a, bad[i].text, strlen(bad[i].text), &why), bad[i].err);
        assert_string_equal(why, bad[i].why);
    }
}

static void test_dmsg(void **state)
{
    (void)state;
    struct addr_dmsg a;
    char text[ADDR_DMSG_MAX + 1];
    const char *why;
    assert_int_equal(addr_dmsg_parse(&a, PK ":65535", PUBKEY_HEX + 6, NULL), 0);
    assert_int_equal(a.port, 65535);
    assert_string_equal(addr_dmsg_text(text, &a), PK ":65535");
    a.port = 0;
    assert_string_equal(addr_dmsg_text(text, &a), PK ":~");

    static const struct {
        const char *text;
        int err;
        const char *why;
    } bad[] = {
        {PK, ERR_FORMAT, "not PK:PORT"},
        {PK ":", ERR_FORMAT, "port is not a number from 1 to 65535"},
        {PK ":~", ERR_FORMAT, "port is not a number from 1 to 65535"},
        {PK ":0", ERR_FORMAT, "port is not a number from 1 to 65535"},
        {PK ":80:80", ERR_FORMAT, "port is not a number from 1 to 65535"},
        {":80", ERR_KEY, "key does not have 66 hex digits"},
        {NULLPK ":80", ERR_KEY, "key is not a public key"},
        {"dmsg://" PK ":80", ERR_KEY, "key does not have 66 hex digits"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        why = "";
        assert_int_equal(addr_dmsg_parse(&a, bad[i].text, strlen(bad[i].text), &why), bad[i].err);
        assert_string_equal(why, bad[i].why);
    }
}

/* docs/protocol/dmsg.md §1.1 "Address" */
static void test_dmsg_as_the_peers_read_it(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int err;
        const char *canon;
    } cases[] = {
        {PK ":80", 0, PK ":80"},
        {PK ":~", 0, PK ":~"},
        {PK ":", 0, PK ":~"},
        {PK, 0, PK ":~"},
        {" " PK "\t: 0080\n", 0, PK ":80"},
        {PK ":0", 0, PK ":~"},
        {"", 0, NULLPK ":~"},
        {":", 0, NULLPK ":~"},
        {" : ", 0, NULLPK ":~"},
        {":80", 0, NULLPK ":80"},
        {PK ":80:", ERR_FORMAT, NULL},
        {PK "::80", ERR_FORMAT, NULL},
        {"::", ERR_FORMAT, NULL},
        {PK ":65536", ERR_FORMAT, NULL},
        {PK ":-1", ERR_FORMAT, NULL},
        {PK ":8 0", ERR_FORMAT, NULL},
        {PK "0:80", ERR_KEY, NULL},
        {"x:80", ERR_KEY, NULL},
        {NULLPK ":80", ERR_KEY, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct addr_dmsg a;
        char text[ADDR_DMSG_MAX + 1];
        int rc = addr_dmsg_from_text(&a, cases[i].text, strlen(cases[i].text));
        assert_int_equal(rc, cases[i].err);
        if (rc == 0)
            assert_string_equal(addr_dmsg_text(text, &a), cases[i].canon);
    }
}

static void test_longest_texts_fit(void **state)
{
    (void)state;
    struct addr_peer a;
    char in[ADDR_PEER_MAX + 1], text[ADDR_PEER_MAX + 1];
    int n = snprintf(in, sizeof in, "%s@%s.%s.%s.%.61s:65535", PK, L63, L63, L63, L63);
    assert_int_equal(n, PUBKEY_HEX + 1 + ADDR_HOST_MAX + 6);
    assert_int_equal(addr_peer_parse(&a, in, (size_t)n, NULL), 0);
    assert_string_equal(addr_peer_text(text, &a), in);
}

/* Whatever is accepted is printed in a form that reads back as the same. */
static void test_round_trip(void **state)
{
    (void)state;
    struct prop r = prop_init("addr round trip");
    static const char letters[] = "0123456789.abf-_:[]~";
    unsigned accepted = 0;
    for (int i = 0; i < 200000; i++) {
        char in[24], text[ADDR_HOSTPORT_MAX + 1], again[ADDR_HOSTPORT_MAX + 1];
        size_t n = prop_below(&r, sizeof in);
        for (size_t k = 0; k < n; k++)
            in[k] = letters[prop_below(&r, sizeof letters - 1)];
        struct addr_hostport a, b;
        unsigned flags = (unsigned)prop_below(&r, 4);
        if (addr_hostport_parse(&a, in, n, flags, NULL) != 0)
            continue;
        accepted++;
        addr_hostport_text(text, &a);
        assert_int_equal(addr_hostport_parse(&b, text, strlen(text), flags, NULL), 0);
        assert_string_equal(addr_hostport_text(again, &b), text);
    }
    assert_true(accepted > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hostport_accepted),
        cmocka_unit_test(test_hostport_refused),
        cmocka_unit_test(test_peer),
        cmocka_unit_test(test_dmsg),
        cmocka_unit_test(test_dmsg_as_the_peers_read_it),
        cmocka_unit_test(test_longest_texts_fit),
        cmocka_unit_test(test_round_trip),
    };
    if (crypto_init() != 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
