/*
 * services-config.json and dmsghttp-config.json in all their spellings.
 */
#include "compat-http/deploy_conf.h"

#include <stdio.h>

#include "base/err.h"
#include "tests/unit/vectors.h"

#define PK "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"

static char why[200];

static int parse(struct deploy_conf *c, const char *text)
{
    return deploy_conf_parse(c, text, strlen(text), "prod", why, sizeof(why));
}

#define DMSGHTTP                                                                                   \
    "{\"dmsg_servers\":[{\"static\":\"" PK "\",\"server\":{\"address\":\"203.0.113.50:30086\"}}]," \
    "\"dmsg_discovery\":\"dmsg://" PK ":80\",\"transport_discovery\":\"\","                        \
    "\"address_resolver\":\"dmsg://" PK ":81\",\"route_finder\":\"\",\"uptime_tracker\":\"\","     \
    "\"service_discovery\":\"\"}"
#define SERVICES                                                                                   \
    "{\"conf\":\"http://conf.example.org\",\"dmsg_discovery\":\"http://dmsgd.example.org\","       \
    "\"route_setup_nodes\":[\"" PK "\"],\"service_discovery\":\"https://sd.example.org\","         \
    "\"stun_servers\":[\"198.51.100.1:3478\"],\"dns_server\":\"1.1.1.1\",\"dmsg_servers\":["       \
    "{\"static\":\"" PK "\",\"server\":{\"address\":\"203.0.113.50:30086\"}}],"                    \
    "\"dmsg_discovery_dmsg\":\"dmsg://" PK ":80\"}"

static void wrote(const struct deploy_conf *c, bool services, const char *expected)
{
    struct json_out o;
    json_out_grow(&o, JSON_FAST, 1 << 20);
    if (services)
        deploy_conf_write_services(&o, c, true);
    else
        deploy_conf_write_dmsghttp(&o, c);
    assert_int_equal(o.err, 0);
    assert_int_equal(o.len, strlen(expected));
    assert_memory_equal(o.p, expected, o.len);
    json_out_free(&o);
}

static void test_both_ways(void **state)
{
    (void)state;
    struct deploy_conf c;
    assert_int_equal(parse(&c, DMSGHTTP), 0);
    assert_string_equal(c.dmsg_url[DEPLOY_DMSG_DISCOVERY], "dmsg://" PK ":80");
    assert_int_equal(c.n_servers, 1);
    wrote(&c, false, DMSGHTTP);
    deploy_conf_free(&c);
    assert_int_equal(parse(&c, "{\"test\":{},\"prod\":" SERVICES "}"), 0);
    assert_string_equal(c.url[DEPLOY_DMSG_DISCOVERY], "http://dmsgd.example.org");
    assert_string_equal(c.dmsg_url[DEPLOY_DMSG_DISCOVERY], "dmsg://" PK ":80");
    assert_string_equal(c.list[DEPLOY_STUN_SERVERS].v[0], "198.51.100.1:3478");
    assert_string_equal(c.dns_server, "1.1.1.1");
    wrote(&c, true, SERVICES);
    deploy_conf_free(&c);
}

static void test_spellings(void **state)
{
    (void)state;
    static const char *const spellings[] = {"dmsg://" PK ":80", PK ":80", PK, "dmsg://" PK};
    struct deploy_conf c;
    for (size_t i = 0; i < 4; i++) {
        char text[300];
        snprintf(text, sizeof(text), "{\"dmsg_discovery\":\"%s\",\"other\":[1]}", spellings[i]);
        assert_int_equal(parse(&c, text), 0);
        assert_string_equal(c.dmsg_url[DEPLOY_DMSG_DISCOVERY], "dmsg://" PK ":80");
        assert_null(c.url[DEPLOY_DMSG_DISCOVERY]);
        deploy_conf_free(&c);
    }
    assert_int_equal(parse(&c, "{}"), 0);
    wrote(&c, true, "{}");
    deploy_conf_free(&c);
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int err;
    } bad[] = {{"", ERR_FORMAT},
               {"[]", ERR_FORMAT},
               {"{\"test\":{}}", ERR_NOT_FOUND},
               {"{\"prod\":3}", ERR_NOT_FOUND},
               {"{\"dmsg_discovery\":\"zz\"}", ERR_KEY},
               {"{\"dmsg_discovery\":\"0000\"}", ERR_KEY},
               {"{\"stun_servers\":[1]}", ERR_FORMAT},
               {"{\"dmsg_servers\":[{}]}", ERR_FORMAT},
               {"{\"dmsg_servers\":[{\"static\":\"" PK "\",\"server\":{\"address\":\"x\"}}]}",
                ERR_FORMAT}};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct deploy_conf c;
        why[0] = '\0';
        assert_int_equal(parse(&c, bad[i].text), bad[i].err);
        assert_true(why[0] != '\0');
        deploy_conf_free(&c);
    }
    struct deploy_conf c;
    assert_true(deploy_conf_load(&c, "/nowhere/at/all", "prod", why, sizeof(why)) < 0);
    deploy_conf_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_ways),
        cmocka_unit_test(test_spellings),
        cmocka_unit_test(test_refused),
    };
    return crypto_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
