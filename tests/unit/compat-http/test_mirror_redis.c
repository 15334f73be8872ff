/*
 * The mirror of a discovery in a real Redis: layout, deletion, everything at the start, a Redis that is lost.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/base64.h"
#include "base/err.h"
#include "base/hex.h"
#include "compat-http/mirror_disc.h"
#include "compat-http/mirror_kv.h"
#include "tests/unit/compat-http/disc_rig.h"

#define MANY 600

static struct mirror *mirror;
static struct mirror_kv *to_redis;
static struct mirror_disc *walk;
static struct signer service;
static uint64_t other_written, other_gone; /* of a sink beside Redis */
static struct loop_timer other_timer;

static void on_again(void *arg)
{
    (void)arg;
    if (walk != NULL)
        mirror_disc_again(walk);
}

static void on_other(struct loop_timer *t)
{
    (void)t;
    mirror_written(mirror, 1, 0);
}

static int take_other(void *arg, const struct mirror_write *w, size_t n, size_t *taken)
{
    struct loop *loop = drive_loop_loop(rig.drive);
    (void)arg;
    *taken = n;
    for (size_t i = 0; i < n; i++) {
        other_written++;
        other_gone += w[i].gone;
    }
    loop_timer_set(loop, &other_timer, loop->now_ns);
    return 0;
}

static void on_stored(void *arg, const struct entry *e, const char *text, size_t n)
{
    (void)arg;
    if (mirror != NULL)
        mirror_entry(mirror, e, text, n);
}

static void on_deleted(void *arg, const struct pubkey *pk)
{
    (void)arg;
    if (mirror != NULL)
        mirror_delete(mirror, "dmsg", pk);
}

static void open_mirror(void)
{
    struct mirror_cfg cfg = {.env = &rig.env.env,
                             .loop = drive_loop_loop(rig.drive),
                             .pk = service.pk,
                             .sk = service.sk,
                             .again = on_again};
    other_written = other_gone = 0;
    other_timer.fn = on_other;
    mirror = mirror_new(&cfg);
    assert_non_null(mirror);
    assert_int_equal(mirror_kv_new(&to_redis, mirror, rig.store.kv, "redis"), 0);
    assert_int_equal(mirror_add_sink(mirror, "other", take_other, NULL), 1);
}

static void close_mirror(void)
{
    loop_timer_cancel(drive_loop_loop(rig.drive), &other_timer);
    mirror_disc_free(walk);
    mirror_free(mirror);
    mirror_kv_free(to_redis);
    walk = NULL;
    mirror = NULL;
    to_redis = NULL;
}

static int setup(void **state)
{
    rig_setup(state);
    service = signer_new();
    disc_start((struct disc_service_cfg){.generation = DISC_2024,
                                         .stored = on_stored,
                                         .deleted = on_deleted},
               true);
    open_mirror();
    return 0;
}

static int teardown(void **state)
{
    rig_stop();
    close_mirror();
    return rig_teardown(state);
}

static bool all_written(void *arg)
{
    struct mirror_stat st;
    (void)arg;
    mirror_stat(mirror, &st);
    return st.waiting == 0 && st.sink[0].written > 0;
}

static bool walked(void *arg)
{
    struct mirror_disc_stat st;
    (void)arg;
    mirror_disc_stat(walk, &st);
    return st.walks > 0 && all_written(NULL);
}

static char *key_of(const struct pubkey *pk)
{
    static char key[80];
    struct kad_id target = kad_target(pk, "dmsg", 4);
    char hex[KAD_ID_HEX + 1];
    snprintf(key, sizeof(key), "dht:%s", kad_id_hex(hex, &target));
    return key;
}

/* The item under the subject's target, or NULL; the caller frees it. */
static json_t *item_of(const struct pubkey *pk)
{
    redisReply *r = redisCommand(redis_rig.eyes, "GET %s", key_of(pk));
    assert_non_null(r);
    json_t *v = r->type == REDIS_REPLY_STRING ? json_loadb(r->str, r->len, 0, NULL) : NULL;
    freeReplyObject(r);
    return v;
}

static long long ask_number(const char *command)
{
    redisReply *r = redisCommand(redis_rig.eyes, command);
    assert_non_null(r);
    long long n = r->type == REDIS_REPLY_ARRAY ? (long long)r->elements : r->integer;
    freeReplyObject(r);
    return n;
}

static long long delete_items(void)
{
    redisReply *r = redisCommand(redis_rig.eyes, "EVAL %s 0 dht:*",
                                 "return redis.call('DEL', unpack(redis.call('KEYS', ARGV[1])))");
    assert_non_null(r);
    long long n = r->integer;
    freeReplyObject(r);
    return n;
}

static void test_layout(void **state)
{
    struct signer s = signer_new();
    struct item it = {0};
    uint8_t value[4096];
    char text[4096], pttl[100];
    (void)state;
    snprintf(text, sizeof(text), "%s", client_entry(&s, 7, NULL, ""));
    assert_int_equal(disc_post(text).status, 200);
    rig_wait(all_written, NULL);
    json_t *v = item_of(&s.pk);
    assert_non_null(v);
    assert_string_equal(json_string_value(json_object_get(v, "k")), service.hex);
    assert_int_equal(json_integer_value(json_object_get(v, "seq")), 7);
    assert_string_equal(json_string_value(json_object_get(v, "salt")), "ZG1zZw==");
    const char *b64 = json_string_value(json_object_get(v, "v"));
    size_t n = 0;
    assert_int_equal(base64_decode(value, sizeof(value), &n, b64, strlen(b64)), 0);
    assert_int_equal(n, strlen(text));
    assert_memory_equal(value, text, n);
    it = (struct item){.k = service.pk,
                       .seq = 7,
                       .v = value,
                       .v_len = n,
                       .salt = (const uint8_t *)"dmsg",
                       .salt_len = 4};
    const char *sig = json_string_value(json_object_get(v, "sig"));
    assert_int_equal(hex_decode(it.sig.b, sizeof(it.sig.b), sig, strlen(sig)), 0);
    assert_int_equal(item_verify(&it), 0);
    json_decref(v);
    snprintf(pttl, sizeof(pttl), "PTTL %s", key_of(&s.pk));
    assert_int_equal(ask_number(pttl), -1); /* no life */
    assert_int_equal(rig_request("DELETE", "/dmsg-discovery/entry", NULL, text).status, 200);
    rig_wait(all_written, NULL);
    assert_null(item_of(&s.pk));
    assert_int_equal(other_gone, 1);
}

/* Entries that were there before: all of them in the sets that the services share, 256 of them a read. */
static void fill_store(void)
{
    for (int i = 0; i < MANY; i++) {
        struct signer other = signer_new();
        const char *text = client_entry(&other, 1, NULL, "");
        freeReplyObject(redisCommand(redis_rig.eyes, "SET %s %s", other.hex, text));
        freeReplyObject(redisCommand(redis_rig.eyes, "SADD clients %s", other.hex));
    }
}

static unsigned long mget_calls(void)
{
    redisReply *r = redisCommand(redis_rig.eyes, "INFO commandstats");
    const char *at = strstr(r->str, "cmdstat_mget:calls=");
    unsigned long n = at != NULL ? strtoul(at + 19, NULL, 10) : 0;
    freeReplyObject(r);
    return n;
}

static void test_incident_71_everything_at_the_start(void **state)
{
    (void)state;
    fill_store();
    unsigned long before = mget_calls();
    walk = mirror_disc_new(mirror, rig.store.kv, drive_loop_loop(rig.drive));
    rig_wait(walked, NULL);
    assert_int_equal(ask_number("KEYS dht:*"), MANY);
    assert_int_equal(other_written, MANY);
    assert_in_range(mget_calls() - before, 1, MANY / MIRROR_DISC_CHUNK + 2);
}

static bool walked_again(void *arg)
{
    struct mirror_disc_stat st;
    (void)arg;
    mirror_disc_stat(walk, &st);
    return st.walks > 1 && all_written(NULL);
}

/* What Go full nodes read is gone, and nothing has changed: everything is written anew. */
static void test_incident_70_items_lost_are_written_anew(void **state)
{
    (void)state;
    fill_store();
    walk = mirror_disc_new(mirror, rig.store.kv, drive_loop_loop(rig.drive));
    rig_wait(walked, NULL);
    assert_int_equal(delete_items(), MANY);
    mirror_lost(mirror);
    rig_wait(walked_again, NULL);
    assert_int_equal(ask_number("KEYS dht:*"), MANY);
}

/* Redis comes back with nothing in it: nobody is said to have gone, and whoever registers is there again. */
static void test_incident_70_empty_redis_deletes_nothing(void **state)
{
    struct signer s = signer_new(), t = signer_new();
    (void)state;
    assert_int_equal(disc_post(client_entry(&s, 1, NULL, "")).status, 200);
    assert_int_equal(disc_post(client_entry(&t, 1, NULL, "")).status, 200);
    rig_wait(all_written, NULL);
    redis_stop();
    redis_start();
    walk = mirror_disc_new(mirror, rig.store.kv, drive_loop_loop(rig.drive));
    rig_wait(walked, NULL);
    assert_int_equal(other_gone, 0);
    assert_int_equal(other_written, 2);
    const struct pubkey via = t.pk;
    assert_int_equal(disc_post(client_entry(&s, 2, &via, "")).status, 200);
    rig_wait(all_written, NULL);
    json_t *v = item_of(&s.pk);
    assert_non_null(v);
    json_decref(v);
    assert_int_equal(other_gone, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_layout, setup, teardown),
        cmocka_unit_test_setup_teardown(test_incident_71_everything_at_the_start, setup, teardown),
        cmocka_unit_test_setup_teardown(test_incident_70_items_lost_are_written_anew, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_incident_70_empty_redis_deletes_nothing, setup,
                                        teardown),
    };
    return crypto_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
