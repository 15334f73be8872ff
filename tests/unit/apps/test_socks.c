/*
 * SOCKS5 without sockets: every answer byte by byte, whole and in pieces; errors and their codes.
 */
#include <errno.h>
#include <string.h>

#include "apps/socks.h"
#include "base/err.h"
#include "tests/unit/prop.h"
#include "tests/unit/vectors.h"

struct result {
    enum socks_state state;
    uint8_t out[64];
    size_t out_n, used;
    struct socks_dest dest;
};

/* The conversation up to its first rest, in pieces of at most `piece` bytes. */
static struct result converse(const uint8_t *p, size_t n, size_t piece)
{
    struct socks s;
    struct result r = {0};
    socks_init(&s);
    while (r.used < n) {
        size_t used, give = n - r.used < piece ? n - r.used : piece;
        uint8_t *copy = malloc(give); /* so that a read behind the end is seen */
        memcpy(copy, p + r.used, give);
        socks_input(&s, copy, give, &used);
        free(copy);
        r.used += used;
        memcpy(r.out + r.out_n, s.out, s.out_n);
        r.out_n += s.out_n;
        s.out_n = 0;
        if (used < give || s.state == SOCKS_END)
            break;
    }
    r.state = s.state;
    r.dest = s.dest;
    return r;
}

struct row {
    const char *name, *in, *out;
    enum socks_state state;
    size_t left; /* bytes that are not the conversation's */
    const char *host;
    unsigned port;
};

static const struct row rows[] = {
    {"name", "050100 05010003 0b 6578616d706c652e6f7267 0050", "0500", SOCKS_WAIT, 0, "example.org",
     80},
    {"data behind it", "050100 05010003 01 61 ffff 474554", "0500", SOCKS_WAIT, 3, "a", 65535},
    {"IPv4", "050100 05010001 0a000001 0016", "0500", SOCKS_WAIT, 0, "10.0.0.1", 22},
    {"IPv6", "050100 05010004 20010db8000000000000000000000001 01bb", "0500", SOCKS_WAIT, 0,
     "2001:db8::1", 443},
    {"IPv4 in IPv6", "050100 05010004 00000000000000000000ffff7f000001 0050", "0500", SOCKS_WAIT, 0,
     "127.0.0.1", 80},
    {"an address as a name", "050100 05010003 09 3132372e302e302e31 0050", "0500", SOCKS_WAIT, 0,
     "127.0.0.1", 80},
    {"several methods", "0503020100 05010003 01 61 0050", "0500", SOCKS_WAIT, 0, "a", 80},
    {"no method", "0500", "05ff", SOCKS_END, 0, NULL, 0},
    {"password only", "050102 05", "05ff", SOCKS_END, 1, NULL, 0},
    {"SOCKS4", "0401005000000001 00", "", SOCKS_END, 8, NULL, 0},
    {"HTTP", "474554", "", SOCKS_END, 2, NULL, 0},
    {"version of the request", "050100 0401", "0500", SOCKS_END, 1, NULL, 0},
    {"BIND", "050100 05020001 0a000001 0016", "0500 05070001000000000000", SOCKS_END, 0, NULL, 0},
    {"UDP", "050100 05030003 01 61 0050", "0500 05070001000000000000", SOCKS_END, 0, NULL, 0},
    {"type 2", "050100 05010002 00", "0500 05080001000000000000", SOCKS_END, 1, NULL, 0},
    {"reserved", "050100 05010101 00", "0500 05010001000000000000", SOCKS_END, 1, NULL, 0},
    {"port 0", "050100 05010001 0a000001 0000", "0500 05010001000000000000", SOCKS_END, 0, NULL, 0},
    {"empty name", "050100 05010003 00 0050", "0500 05040001000000000000", SOCKS_END, 0, NULL, 0},
    {"NUL in a name", "050100 05010003 03 610062 0050", "0500 05040001000000000000", SOCKS_END, 0,
     NULL, 0},
    {"line end in a name", "050100 05010003 03 610a62 0050", "0500 05040001000000000000", SOCKS_END,
     0, NULL, 0},
    {"half a greeting", "0502 00", "", SOCKS_GREETING, 0, NULL, 0},
    {"half a request", "050100 05010003 05 6161", "0500", SOCKS_REQUEST, 0, NULL, 0},
};

static uint8_t *bytes(const char *text, size_t *n)
{
    char digits[1200];
    size_t len = 0;
    for (; *text != '\0'; text++) {
        if (*text != ' ')
            digits[len++] = *text;
    }
    digits[len] = '\0';
    return hex_dup(digits, n);
}

static void test_conversations(void **state)
{
    static const size_t pieces[] = {1000, 1, 2, 3, 7};
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        size_t in_n, want_n;
        uint8_t *in = bytes(rows[i].in, &in_n), *want = bytes(rows[i].out, &want_n);
        for (size_t k = 0; k < sizeof(pieces) / sizeof(pieces[0]); k++) {
            struct result r = converse(in, in_n, pieces[k]);
            if (r.state != rows[i].state || r.out_n != want_n || memcmp(r.out, want, want_n) != 0 ||
                in_n - r.used != rows[i].left)
                fail_msg("%s, pieces of %zu: state %d, %zu bytes out, %zu left", rows[i].name,
                         pieces[k], r.state, r.out_n, in_n - r.used);
            if (rows[i].host != NULL) {
                assert_string_equal(r.dest.host, rows[i].host);
                assert_int_equal(r.dest.port, rows[i].port);
            }
        }
        free(in);
        free(want);
    }
}

static void test_longest(void **state)
{
    uint8_t in[3 + SOCKS_IN_MAX + 5] = {5, 1, 0, 5, 1, 0, 3, 255}, many[257] = {5, 255};
    (void)state;
    memset(in + 8, 'x', 255);
    in[8 + 255] = 0x1f;
    in[8 + 256] = 0x90;
    struct result r = converse(in, sizeof(in), 100);
    assert_int_equal(r.state, SOCKS_WAIT);
    assert_int_equal(r.used, sizeof(in) - 5);
    assert_int_equal(strlen(r.dest.host), 255);
    assert_int_equal(r.dest.port, 8080);
    memset(many + 2, 7, 255);
    assert_int_equal(converse(many, sizeof(many), 1).state, SOCKS_END);
    many[256] = 0; /* the last of 255 methods will do */
    assert_int_equal(converse(many, sizeof(many), 1).state, SOCKS_REQUEST);
}

static void waiting(struct socks *s)
{
    static const uint8_t in[] = {5, 1, 0, 5, 1, 0, 3, 1, 'a', 0, 80};
    size_t used;
    socks_init(s);
    assert_int_equal(socks_input(s, in, sizeof(in), &used), SOCKS_WAIT);
    s->out_n = 0;
}

static void test_replies(void **state)
{
    static const uint8_t ip4[4] = {127, 0, 0, 1}, ip6[16] = {[15] = 1};
    static const uint8_t ok4[] = {5, 0, 0, 1, 127, 0, 0, 1, 0x12, 0x34};
    struct socks s;
    size_t used;
    (void)state;
    waiting(&s);
    socks_reply(&s, SOCKS_OK, ip4, 4, 0x1234);
    assert_int_equal(s.state, SOCKS_OPEN);
    assert_int_equal(s.out_n, sizeof(ok4));
    assert_memory_equal(s.out, ok4, sizeof(ok4));
    assert_int_equal(socks_input(&s, ip4, 4, &used), SOCKS_OPEN); /* data is not touched */
    assert_int_equal(used, 0);
    waiting(&s);
    socks_reply(&s, SOCKS_OK, ip6, 16, 1);
    assert_int_equal(s.out_n, 22);
    assert_int_equal(s.out[3], 4);
    for (unsigned code = 1; code <= 8; code++) {
        waiting(&s);
        socks_reply(&s, (enum socks_code)code, ip6, 16, 1);
        assert_int_equal(s.state, SOCKS_END);
        assert_int_equal(s.out_n, 10);
        assert_int_equal(s.out[1], code);
    }
}

/* Each cause keeps its meaning up to the browser. */
static void test_codes_of_errors(void **state)
{
    static const struct {
        int err;
        enum socks_code code;
    } want[] = {
        {0, SOCKS_OK},
        {ERR_TIMEOUT, SOCKS_TTL},
        {-ETIMEDOUT, SOCKS_TTL},
        {ERR_REFUSED, SOCKS_REFUSED},
        {ERR_DMSG_NO_LISTENER, SOCKS_REFUSED},
        {ERR_DMSG_ACCEPT_FULL, SOCKS_REFUSED},
        {-ECONNREFUSED, SOCKS_REFUSED},
        {ERR_NOT_FOUND, SOCKS_HOST_UNREACHABLE},
        {ERR_NO_ROUTE, SOCKS_HOST_UNREACHABLE},
        {ERR_DMSG_ENTRY_NOT_FOUND, SOCKS_HOST_UNREACHABLE},
        {-EHOSTUNREACH, SOCKS_HOST_UNREACHABLE},
        {ERR_RESET, SOCKS_HOST_UNREACHABLE},
        {-ENETUNREACH, SOCKS_NET_UNREACHABLE},
        {-EACCES, SOCKS_NOT_ALLOWED},
        {ERR_LIMIT, SOCKS_FAILURE},
        {ERR_NOMEM, SOCKS_FAILURE},
        {-EMFILE, SOCKS_FAILURE},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
        if (socks_code_of(want[i].err) != want[i].code)
            fail_msg("%s: code %d", err_str(want[i].err), socks_code_of(want[i].err));
    }
    for (unsigned code = 0; code < 256; code++) /* through a chain of proxies */
        assert_int_equal(socks_code_of(socks_err_of(code)), code == SOCKS_NO_ADDRESS_TYPE
                                                                ? SOCKS_NO_COMMAND
                                                            : code > 8 ? SOCKS_FAILURE
                                                                       : code);
}

/* Client and server of this module, in pieces of random sizes: the server sees the destination, the client the code, nobody eats data. */
static void talk(struct prop *r, const char *host, unsigned code)
{
    struct socks_dest dest;
    struct socks s;
    struct socks_ask a;
    uint8_t wire[400];
    size_t used, n;
    int rc = ERR_PENDING;
    assert_int_equal(socks_dest_set(&dest, host, strlen(host), 4711), 0);
    socks_init(&s);
    socks_ask_init(&a, &dest);
    for (int turn = 0; turn < 10000 && rc == ERR_PENDING; turn++) {
        n = prop_below(r, a.out_n + 1);
        memcpy(wire, a.out, n);
        socks_input(&s, wire, n, &used);
        assert_int_equal(used, n);
        memmove(a.out, a.out + n, a.out_n -= n);
        if (s.state == SOCKS_WAIT) {
            assert_string_equal(s.dest.host, dest.host);
            assert_int_equal(s.dest.ip_n, dest.ip_n);
            assert_int_equal(s.dest.port, 4711);
            socks_reply(&s, (enum socks_code)code, NULL, 0, 0);
        }
        n = prop_below(r, s.out_n + 1);
        memcpy(wire, s.out, n);
        rc = socks_ask_input(&a, wire, n, &used);
        memmove(s.out, s.out + n, s.out_n -= n);
    }
    assert_int_equal(rc, socks_err_of(code));
}

static void test_client_and_server(void **state)
{
    static const char *const hosts[] = {"a", "example.org", "10.1.2.3", "2001:db8::77"};
    struct prop r = prop_init("SOCKS client and server");
    (void)state;
    for (unsigned i = 0; i < 400; i++)
        talk(&r, hosts[i % 4], i / 4 % 9);
}

static void test_client_of_a_bad_proxy(void **state)
{
    static const struct {
        const char *in;
        int rc;
    } want[] = {{"05ff", ERR_PROTOCOL},
                {"0400", ERR_PROTOCOL},
                {"0502", ERR_PROTOCOL},
                {"0500 04000001", ERR_PENDING},
                {"0500 0400000100", ERR_PROTOCOL},
                {"0500 0500000200", ERR_PROTOCOL},
                {"0500 050500010000000000", -ECONNREFUSED},
                {"0500 050000010000000000", ERR_PENDING},
                {"0500 05000001000000000000", 0},
                {"0500 0500000301610000 aa", 0}};
    struct socks_dest dest;
    (void)state;
    assert_int_equal(socks_dest_set(&dest, "x", 1, 1), 0);
    for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
        struct socks_ask a;
        size_t n, used;
        uint8_t *in = bytes(want[i].in, &n);
        socks_ask_init(&a, &dest);
        assert_int_equal(socks_ask_input(&a, in, n, &used), want[i].rc);
        assert_true(used <= n);
        free(in);
    }
}

static void test_dest_set(void **state)
{
    struct socks_dest d;
    char name[300];
    (void)state;
    memset(name, 'a', sizeof(name));
    assert_int_equal(socks_dest_set(&d, name, 256, 1), ERR_TOO_LONG);
    assert_int_equal(socks_dest_set(&d, name, 255, 1), 0);
    assert_int_equal(socks_dest_set(&d, "", 0, 1), ERR_FORMAT);
    assert_int_equal(socks_dest_set(&d, "a b", 3, 1), ERR_FORMAT);
    assert_int_equal(socks_dest_set(&d, "\xc3\xa4", 2, 1), ERR_FORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conversations),     cmocka_unit_test(test_longest),
        cmocka_unit_test(test_replies),           cmocka_unit_test(test_codes_of_errors),
        cmocka_unit_test(test_client_and_server), cmocka_unit_test(test_client_of_a_bad_proxy),
        cmocka_unit_test(test_dest_set),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
