/*
 * The discovery on a Redis that comes and goes, is full, or wants another password.
 */
#include <stdio.h>

#include "base/err.h"
#include "compat-http/kv_redis.h"
#include "tests/unit/compat-http/disc_rig.h"

static bool is_ready(void *arg)
{
    (void)arg;
    return rig.redis_ready;
}

/* The connection is cut in the middle of a burst: what was answered 200 is there; nothing waits for ever. */
static void test_redis_connection_lost(void **state)
{
    (void)state;
    struct signer s[40];
    bool taken[40];
    disc_start((struct disc_service_cfg){.generation = DISC_2023}, true);
    for (int i = 0; i < 40; i++) {
        s[i] = signer_new();
        if (i % 10 == 5) {
            redisReply *r = redisCommand(redis_rig.eyes, "CLIENT KILL TYPE normal SKIPME yes");
            assert_non_null(r);
            freeReplyObject(r);
        }
        struct answer a = disc_post(client_entry(&s[i], 0, NULL, ""));
        taken[i] = a.status == 200;
        assert_true(taken[i] || rig_says(a, 500, "something unexpected happened"));
    }
    rig_wait(is_ready, NULL);
    int n = 0;
    for (int i = 0; i < 40; i++) {
        char path[120];
        snprintf(path, sizeof(path), "/dmsg-discovery/entry/%s", s[i].hex);
        if (taken[i])
            assert_int_equal(rig_get(path).status, 200);
        n += taken[i];
    }
    assert_true(n >= 36); /* and most were sent again on the next connection */
}

/* Redis is away: requests are refused after a while; it is back: they work, without a restart. */
static void test_redis_away(void **state)
{
    (void)state;
    struct signer s = signer_new();
    disc_start((struct disc_service_cfg){.generation = DISC_2023}, true);
    assert_int_equal(disc_post(client_entry(&s, 0, NULL, "")).status, 200);
    redis_stop();
    assert_true(rig_says(disc_post(client_entry(&s, 1, NULL, "")), 500, "unexpected"));
    assert_int_equal(rig_get("/dmsg-discovery/entries").status, 500);
    assert_int_equal(rig_get("/health").status, 200);
    redis_start();
    rig_wait(is_ready, NULL);
    assert_int_equal(disc_post(client_entry(&s, 2, NULL, "")).status, 200);
}

/* maxmemory with noeviction: refused, what is there stays and is served */
static void test_redis_full(void **state)
{
    (void)state;
    struct signer a = signer_new(), b = signer_new();
    char path[120];
    disc_start((struct disc_service_cfg){.generation = DISC_2023}, true);
    assert_int_equal(disc_post(client_entry(&a, 0, NULL, "")).status, 200);
    freeReplyObject(redisCommand(redis_rig.eyes, "CONFIG SET maxmemory-policy noeviction"));
    freeReplyObject(redisCommand(redis_rig.eyes, "CONFIG SET maxmemory 1"));
    assert_true(rig_says(disc_post(client_entry(&b, 0, NULL, "")), 500, "unexpected"));
    snprintf(path, sizeof(path), "/dmsg-discovery/entry/%s", a.hex);
    assert_int_equal(rig_get(path).status, 200);
    snprintf(path, sizeof(path), "/dmsg-discovery/entry/%s", b.hex);
    assert_int_equal(rig_get(path).status, 404);
    assert_string_equal(rig_get("/dmsg-discovery/entries").body + 69, "]"); /* one key */
    freeReplyObject(redisCommand(redis_rig.eyes, "CONFIG SET maxmemory 0"));
    assert_int_equal(disc_post(client_entry(&b, 0, NULL, "")).status, 200);
}

static int password_err;

static void on_password(void *arg, int err, const char *why)
{
    (void)arg, (void)why;
    password_err = err != 0 ? err : 1;
}

static void test_redis_password(void **state)
{
    (void)state;
    struct kv *kv;
    char url[80];
    redis_start();
    freeReplyObject(redisCommand(redis_rig.eyes, "CONFIG SET requirepass right"));
    snprintf(url, sizeof(url), "redis://:wrong@127.0.0.1:%d/2", redis_rig.port);
    struct kv_redis_cfg cfg = {
        .drive = rig.drive, .env = &rig.env.env, .url = url, .state = on_password};
    static const struct {
        const char *password;
        int err;
    } cases[] = {{NULL, ERR_REFUSED}, {"right", 1}, {"other", ERR_REFUSED}};
    for (size_t i = 0; i < 3; i++) {
        cfg.password = cases[i].password;
        password_err = 0;
        drive_loop_now(rig.drive);
        assert_int_equal(kv_redis_open(&kv, &cfg), 0);
        for (int k = 0; k < 200000 && password_err == 0; k++)
            rig_turn();
        assert_int_equal(password_err, cases[i].err);
        kv_close(kv);
    }
    cfg.url = "http://x";
    assert_int_equal(kv_redis_open(&kv, &cfg), ERR_FORMAT);
    cfg.url = "redis://h:99999";
    assert_int_equal(kv_redis_open(&kv, &cfg), ERR_FORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_redis_connection_lost, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(test_redis_away, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(test_redis_full, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(test_redis_password, rig_setup, rig_teardown),
    };
    return crypto_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
