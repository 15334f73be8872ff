/*
 * The transport discovery on a Redis that it shares with upstream's layout, that comes and goes, is full, or wants another password.
 */
#include <stdio.h>
#include <time.h>

#include "base/err.h"
#include "compat-http/kv_redis.h"
#include "tests/unit/compat-http/tpd_rig.h"

static const struct tpd_service_cfg cfg_2026 = {.generation = TPD_2026};

static bool is_ready(void *arg)
{
    (void)arg;
    return rig.redis_ready;
}

static size_t known(const struct signer *s)
{
    struct tp_list l;
    assert_int_equal(tpd_service_list(tpd_of_rig(), &s->pk, &l), 0);
    size_t n = l.n;
    tp_list_free(&l);
    return n;
}

static char *ask(const char *fmt, const char *arg)
{
    static char text[2048];
    redisReply *r = redisCommand(redis_rig.eyes, fmt, arg);
    assert_non_null(r);
    if (r->type == REDIS_REPLY_INTEGER)
        snprintf(text, sizeof(text), "%lld", r->integer);
    else
        snprintf(text, sizeof(text), "%s", r->str != NULL ? r->str : "");
    freeReplyObject(r);
    return text;
}

/* ---- one layout ---- */

static const char *today(void)
{
    static char day[16];
    time_t now = (time_t)(rig.env.wall_ns / 1000000000);
    struct tm tm;
    gmtime_r(&now, &tm);
    strftime(day, sizeof(day), "%Y-%m-%d", &tm);
    return day;
}

/* Hash, set, bitmap; gathered for some seconds. */
static bool is_noted_up(void *arg)
{
    redisReply *r = redisCommand(redis_rig.eyes, "KEYS transport-discovery:tp-uptime:*");
    size_t n = r->elements;
    (void)arg;
    freeReplyObject(r);
    return n == 3;
}

/* The dump of a registration and a heartbeat, as §5.4 has it. */
static void test_layout(void **state)
{
    (void)state;
    struct signer a = signer_new(), b = signer_new();
    const char *id = tpd_id(&a, &b, "stcpr");
    const struct signer *low = pubkey_cmp(&a.pk, &b.pk) < 0 ? &a : &b, *high = low == &a ? &b : &a;
    char want[1024];
    tpd_start(cfg_2026, true);
    assert_int_equal(
        tpd_call(&a, "POST", "/transports/", tpd_entry(&a, &b, "stcpr", "user")).status, 201);
    snprintf(want, sizeof(want),
             "{\"id\":\"%s\",\"edge_a\":\"%s\",\"edge_b\":\"%s\",\"type\":\"stcpr\",\"label\":"
             "\"user\",\"lat_min\":0,\"lat_max\":0,\"lat_avg\":0,\"bandwidth\":0,\"last_update\":%"
             "lld}",
             id, low->hex, high->hex, (long long)(rig.env.wall_ns / 1000000000));
    assert_string_equal(ask("GET transport-discovery:tp:%s", id), want);
    assert_string_equal(ask("SISMEMBER transport-discovery:tp:_index %s", id), "1");
    assert_string_equal(ask("TTL transport-discovery:tp:%s", "_index"), "-1");
    for (int i = 0; i < 2; i++) {
        const struct signer *s = i == 0 ? &a : &b;
        assert_string_equal(ask("SCARD transport-discovery:edge:%s", s->hex), "1");
        int ttl = atoi(ask("TTL transport-discovery:edge:%s", s->hex));
        assert_true(ttl > 0 && ttl <= 300);
    }
    rig_wait(is_noted_up, NULL);
    int life = atoi(ask("TTL transport-discovery:tp-uptime:online:%s", today()));
    assert_true(life > 0 && life <= 36 * 3600);
    redisReply *r;
    /* a nonce counts with an answer of 200 */
    assert_int_equal(tpd_call(&a, "GET", "/v4/update", "").status, 200);
    assert_string_equal(ask("GET transport-discovery:nonces:%s", a.hex), "1");
    assert_string_equal(ask("TTL transport-discovery:nonces:%s", a.hex), "-1");
    r = redisCommand(redis_rig.eyes, "SISMEMBER transport-discovery:nonces %b", a.pk.b,
                     (size_t)PUBKEY_BYTES);
    assert_int_equal(r->integer, 1);
    freeReplyObject(r);
    /* and all is gone with the transport */
    char path[100];
    snprintf(path, sizeof(path), "/transports/id:%s", id);
    assert_int_equal(tpd_call(&a, "DELETE", path, "").status, 200);
    assert_string_equal(ask("EXISTS transport-discovery:tp:%s", id), "0");
    assert_string_equal(ask("EXISTS transport-discovery:tp:%s", "_index"), "0");
    assert_string_equal(ask("EXISTS transport-discovery:edge:%s", b.hex), "0");
}

/* What another service wrote is served, and what it measured is kept when it is registered again; a nonce goes on where it was. */
static void test_after_another_service(void **state)
{
    (void)state;
    struct signer a = signer_new(), b = signer_new();
    char id[40], value[1024];
    snprintf(id, sizeof(id), "%s", tpd_id(&a, &b, "sudph"));
    tpd_start(cfg_2026, true); /* starts Redis */
    rig_stop();
    snprintf(value, sizeof(value),
             "{\"id\":\"%s\",\"edge_a\":\"%s\",\"edge_b\":\"%s\",\"type\":\"sudph\",\"label\":"
             "\"automatic\",\"lat_min\":1200,\"lat_max\":3400,\"lat_avg\":2300.5,\"bandwidth\":"
             "77,\"last_update\":1}",
             id, a.hex, b.hex);
    freeReplyObject(
        redisCommand(redis_rig.eyes, "SET transport-discovery:tp:%s %s EX 300", id, value));
    freeReplyObject(redisCommand(redis_rig.eyes, "SADD transport-discovery:tp:_index %s", id));
    freeReplyObject(redisCommand(redis_rig.eyes, "SADD transport-discovery:edge:%s %s", a.hex, id));
    freeReplyObject(redisCommand(redis_rig.eyes, "SADD transport-discovery:edge:%s %s", b.hex, id));
    freeReplyObject(redisCommand(redis_rig.eyes, "SET transport-discovery:nonces:%s 41", a.hex));
    rig.keep_redis = true;
    tpd_start(cfg_2026, true);
    assert_int_equal(known(&a), 1);
    assert_true(rig_says(rig_get("/metrics"), 200, "\"lat_avg\":2300.5"));
    assert_int_equal(tpd_nonce(&a), 41);
    assert_int_equal(tpd_ask(&a, 41, "GET", "/v4/update", "").status, 200);
    assert_int_equal(
        tpd_call(&b, "POST", "/transports/", tpd_entry(&a, &b, "sudph", "user")).status, 201);
    assert_non_null(
        strstr(ask("GET transport-discovery:tp:%s", id), "\"lat_avg\":2300.5,\"bandwidth\":77,"));
    assert_non_null(strstr(ask("GET transport-discovery:tp:%s", id), "\"label\":\"user\""));
}

/* Generation 2024: beside a Go service of that time only nonces are shared. */
static void test_nonces_only(void **state)
{
    (void)state;
    struct signer a = signer_new(), b = signer_new();
    tpd_start((struct tpd_service_cfg){.generation = TPD_2024}, true);
    assert_int_equal(
        tpd_call(&a, "POST", "/transports/", tpd_entry(&a, &b, "stcpr", "user")).status, 201);
    assert_string_equal(ask("DBSIZE", ""), "0");
    char path[120];
    snprintf(path, sizeof(path), "/transports/edge:%s", a.hex);
    assert_int_equal(tpd_call(&a, "GET", path, "").status, 200);
    assert_string_equal(ask("DBSIZE", ""), "2");
    rig_stop();
    rig.keep_redis = true;
    tpd_start((struct tpd_service_cfg){.generation = TPD_2024}, true);
    assert_int_equal(known(&a), 1);
    assert_int_equal(tpd_nonce(&a), 1);
}

/* ---- Redis comes and goes ---- */

/* The connection is cut in the middle of a burst: what was answered 201 is there; nothing waits for ever. */
static void test_connection_lost(void **state)
{
    (void)state;
    struct signer s[40], b = signer_new();
    bool taken[40];
    int n = 0;
    tpd_start(cfg_2026, true);
    for (int i = 0; i < 40; i++) {
        s[i] = signer_new();
        if (i % 10 == 5)
            freeReplyObject(redisCommand(redis_rig.eyes, "CLIENT KILL TYPE normal SKIPME yes"));
        struct answer a =
            tpd_ask(&s[i], 0, "POST", "/transports/", tpd_entry(&s[i], &b, "stcpr", "user"));
        taken[i] = a.status == 201;
        assert_true(taken[i] || rig_says(a, 500, "the store is not available"));
    }
    rig_wait(is_ready, NULL);
    for (int i = 0; i < 40; i++) {
        if (taken[i]) {
            assert_int_equal(known(&s[i]), 1);
            assert_string_equal(ask("EXISTS transport-discovery:tp:%s", tpd_id(&s[i], &b, "stcpr")),
                                "1");
        }
        n += taken[i];
    }
    assert_true(n >= 36); /* and most were sent again on the next connection */
}

static bool is_restored(void *id)
{
    return redis_rig.eyes != NULL && strcmp(ask("EXISTS transport-discovery:tp:%s", id), "1") == 0;
}

/* incident 70: Redis is away: reads go on, writes are refused; it comes back empty: nothing that was acknowledged is lost */
static void test_redis_comes_back_empty(void **state)
{
    (void)state;
    struct signer a = signer_new(), b = signer_new(), c = signer_new();
    char id[40];
    snprintf(id, sizeof(id), "%s", tpd_id(&a, &b, "stcpr"));
    tpd_start(cfg_2026, true);
    assert_int_equal(
        tpd_call(&a, "POST", "/transports/", tpd_entry(&a, &b, "stcpr", "user")).status, 201);
    redis_stop();
    assert_true(rig_says(rig_get("/all-transports"), 200, id));
    assert_int_equal(rig_get("/health").status, 200);
    assert_true(rig_says(tpd_ask(&c, 0, "POST", "/transports/", tpd_entry(&c, &b, "stcpr", "user")),
                         500, "the store is not available"));
    assert_int_equal(known(&c), 0);
    redis_start();
    rig_wait(is_restored, id);
    int ttl = atoi(ask("PTTL transport-discovery:tp:%s", id));
    assert_true(ttl > 0 && ttl <= TPD_TTL_MS);
    rig_wait(is_ready, NULL);
    assert_int_equal(
        tpd_call(&c, "POST", "/transports/", tpd_entry(&c, &b, "stcpr", "user")).status, 201);
}

/* maxmemory with noeviction: refused, what is there stays and is served */
static void test_redis_full(void **state)
{
    (void)state;
    struct signer a = signer_new(), b = signer_new(), c = signer_new();
    tpd_start(cfg_2026, true);
    assert_int_equal(
        tpd_call(&a, "POST", "/transports/", tpd_entry(&a, &b, "stcpr", "user")).status, 201);
    freeReplyObject(redisCommand(redis_rig.eyes, "CONFIG SET maxmemory-policy noeviction"));
    freeReplyObject(redisCommand(redis_rig.eyes, "CONFIG SET maxmemory 1"));
    assert_true(rig_says(tpd_call(&c, "POST", "/transports/", tpd_entry(&c, &b, "stcpr", "user")),
                         500, "the store is not available"));
    assert_int_equal(known(&c), 0);
    assert_true(rig_says(rig_get("/all-transports"), 200, a.hex));
    /* an answer of 200 that cannot be counted is none */
    assert_int_equal(tpd_call(&a, "GET", "/v4/update", "").status, 500);
    assert_int_equal(tpd_nonce(&a), 0);
    freeReplyObject(redisCommand(redis_rig.eyes, "CONFIG SET maxmemory 0"));
    assert_int_equal(
        tpd_call(&c, "POST", "/transports/", tpd_entry(&c, &b, "stcpr", "user")).status, 201);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_layout, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(test_after_another_service, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(test_nonces_only, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(test_connection_lost, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(test_redis_comes_back_empty, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(test_redis_full, rig_setup, rig_teardown),
    };
    return crypto_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
