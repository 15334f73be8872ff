/* server_conf: files of upstream's server, of every generation. */
#include "node/server_conf.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "tests/unit/vectors.h"

/* secret key 1 and its public key; another point */
#define SK   "0000000000000000000000000000000000000000000000000000000000000001"
#define PK   "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
#define PK2  "02c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5"
#define KEYS "\"public_key\": \"" PK "\", \"secret_key\": \"" SK "\""

static char why[SERVER_CONF_WHY], warned[2048];

static void warn(void *arg, const char *text)
{
    (void)arg;
    strncat(warned, text, sizeof(warned) - strlen(warned) - 2);
    strcat(warned, "\n");
}

static int parse(struct server_conf *c, const char *text)
{
    warned[0] = why[0] = '\0';
    return server_conf_parse(c, text, strlen(text), warn, NULL, why, sizeof(why));
}

static void test_2023(void **state)
{
    (void)state;
    struct server_conf c;
    assert_int_equal(parse(&c, "{" KEYS ", \"discovery\": \"http://d.example\","
                               "\"public_address\": \"192.0.2.1:8081\", \"local_address\": \":9\","
                               "\"health_endpoint_address\": \":8082\", \"log_level\": \"fatal\","
                               "\"update_interval\": 60000000000, \"max_sessions\": 100}"),
                     0);
    assert_string_equal(warned, "");
    assert_string_equal(c.discovery, "http://d.example");
    assert_string_equal(c.public_address, "192.0.2.1:8081");
    assert_string_equal(c.local_address, ":9");
    assert_string_equal(c.health, ":8082");
    assert_string_equal(c.log_level, "error");
    assert_int_equal(c.max_sessions, 100);
    assert_false(c.dht_said);
    server_conf_free(&c);
    assert_true(sodium_is_zero((const unsigned char *)&c, sizeof(c)));
}

static void test_defaults(void **state)
{
    (void)state;
    struct server_conf c;
    assert_int_equal(
        parse(&c, "{\"secret_key\": \"" SK "\", \"max_sessions\": -1, \"peers\": null}"), 0);
    assert_string_equal(c.local_address, ":8081");
    assert_string_equal(c.log_level, "info");
    assert_int_equal(c.max_sessions, 2048);
    assert_int_equal(c.pk.b[1], 0x79);
    server_conf_free(&c);
}

static void test_2026(void **state)
{
    (void)state;
    struct server_conf c;
    assert_int_equal(
        parse(&c,
              "{" KEYS
              ", \"discovery\": \"http://old.example\", \"Public_Address\": \"a.example:1\","
              "\"peers\": [{\"public_key\": \"" PK2 "\", \"address\": \"[2001:db8::1]:8081\"}],"
              "\"accepted_peer_pks\": [\"" PK2 "\"], \"announce_as_peer\": true,"
              "\"accept_peer_announcements\": false, \"enable_dht\": false,"
              "\"enable_route_setup\": true, \"ws_address\": \":80\", \"public_address_ws\": \"\","
              "\"something_new\": {\"a\": [1, 2]},"
              "\"dmsg\": [{\"discovery\": \"http://new.example\", \"sessions_count\": 3,"
              "\"advertised_address\": \"b.example:2\", \"other\": 1,"
              "\"servers\": [{\"static\": \"" PK2
              "\", \"server\": {\"address\": \"c.example:3\"}}]}]}"),
        0);
    assert_string_equal(c.discovery, "http://new.example");
    assert_string_equal(c.public_address, "b.example:2");
    assert_int_equal(c.n_peers, 1);
    assert_string_equal(c.peers[0].at.host, "2001:db8::1");
    assert_int_equal(c.n_accepted, 1);
    assert_int_equal(c.n_servers, 1);
    assert_int_equal(c.servers[0].at.port, 3);
    assert_int_equal(c.sessions, 3);
    assert_true(c.dht_said && !c.dht);
    assert_non_null(strstr(warned, "\"ws_address\" is skipped"));
    assert_non_null(strstr(warned, "\"enable_route_setup\" is skipped"));
    assert_non_null(strstr(warned, "\"something_new\" is skipped: not known"));
    assert_non_null(strstr(warned, "\"other\" is skipped: not known"));
    assert_null(strstr(warned, "public_address_ws")); /* says nothing */
    assert_null(strstr(warned, SK));
    server_conf_free(&c);
}

static void test_discovery_over_dmsg(void **state)
{
    (void)state;
    struct server_conf c;
    assert_int_equal(parse(&c, "{" KEYS ", \"discovery_dmsg\": \"dmsg://" PK2 ":80\"}"), 0);
    assert_string_equal(c.discovery, "dmsg://" PK2 ":80");
    server_conf_free(&c);
}

static void test_bad(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"", "line"},
        {"[]", "not a JSON object"},
        {"{\"secret_key\": \"" SK "\"", "line"},
        {"{\"public_key\": \"" PK "\"}", "secret_key"},
        {"{\"secret_key\": \"00\"}", "secret_key"},
        {"{\"secret_key\": 5}", "secret_key"},
        {"{\"public_key\": \"" PK2 "\", \"secret_key\": \"" SK "\"}", "public_key"},
        {"{" KEYS ", \"local_address\": 8081}", "local_address"},
        {"{" KEYS ", \"max_sessions\": \"many\"}", "max_sessions"},
        {"{" KEYS ", \"max_sessions\": 99999999999}", "max_sessions"},
        {"{" KEYS ", \"log_level\": \"loud\"}", "log_level"},
        {"{" KEYS ", \"peers\": {}}", "peers"},
        {"{" KEYS ", \"peers\": [{}]}", "peers"},
        {"{" KEYS ", \"peers\": [{\"public_key\": \"" PK2 "\", \"address\": \"x\"}]}", "peers"},
        {"{" KEYS ", \"accepted_peer_pks\": [\"x\"]}", "accepted_peer_pks"},
        {"{" KEYS ", \"enable_dht\": 1}", "enable_dht"},
        {"{" KEYS ", \"dmsg\": \"x\"}", "dmsg"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct server_conf c;
        assert_true(parse(&c, bad[i][0]) < 0);
        if (strstr(why, bad[i][1]) == NULL)
            fail_msg("%s: %s", bad[i][0], why);
        assert_null(strstr(why, SK));
        server_conf_free(&c);
    }
}

/* What is written is read again, and is the form of the peers. */
static void test_write(void **state)
{
    (void)state;
    struct seckey sk = {.b = {[31] = 1}};
    struct server_conf c;
    struct pubkey pk;
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    assert_non_null(f);
    assert_int_equal(seckey_pubkey(&pk, &sk), 0);
    server_conf_write(f, &sk, &pk, "http://d.example");
    fclose(f);
    assert_non_null(
        strstr(text, "{\n\t\"public_key\": \"" PK "\",\n\t\"secret_key\": \"" SK "\",\n"));
    assert_int_equal(parse(&c, text), 0);
    assert_string_equal(warned, "");
    assert_true(pubkey_equal(&c.pk, &pk));
    assert_int_equal(c.max_sessions, 2048);
    assert_string_equal(c.health, ":8082");
    server_conf_free(&c);
    free(text);
}

int main(void)
{
    if (crypto_init() != 0)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_2023), cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_2026), cmocka_unit_test(test_discovery_over_dmsg),
        cmocka_unit_test(test_bad),  cmocka_unit_test(test_write),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
