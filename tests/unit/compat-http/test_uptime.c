/*
 * Who was seen when: what is kept of it, on both stores, and what /uptimes tells.
 */
#include "compat-http/uptime.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"
#include "tests/unit/compat-http/disc_rig.h"

#define NOON INT64_C(1767182400000000000) /* 2025-12-31T12:00:00Z */
#define DAY  (INT64_C(86400) * 1000000000)
#define SLOT (INT64_C(300) * 1000000000)

static const struct disc_service_cfg of_2026 = {.generation = DISC_2026};

static void register_client(struct signer *s, uint64_t seq, const struct pubkey *via,
                            const char *type)
{
    assert_true(rig_says(disc_post(client_entry(s, seq, via, type)), 200, "wrote"));
}

static void check_lists(bool with_redis)
{
    struct signer visor, other, stranger;
    char path[300], want[1400], line[UPTIME_SLOTS + 1], body[300];
    rig.env.wall_ns = NOON;
    disc_start(of_2026, with_redis);
    visor = signer_new();
    other = signer_new();
    stranger = signer_new();
    register_client(&visor, 0, &other.pk, "visor");
    register_client(&visor, 1, &other.pk, "visor");
    rig.env.wall_ns += SLOT;
    register_client(&visor, 2, &other.pk, "visor");
    rig.env.wall_ns = NOON + DAY;
    register_client(&visor, 3, &other.pk, "visor");
    register_client(&other, 0, NULL, "");

    snprintf(path, sizeof(path), "/uptimes?visors=%s", other.hex);
    snprintf(want, sizeof(want), "[{\"pk\":\"%s\",\"on\":false}]", other.hex);
    assert_string_equal(rig_get(path).body, want);
    snprintf(path, sizeof(path), "/uptimes?v=v2&visors=%s;%s;nonsense", visor.hex, stranger.hex);
    snprintf(want, sizeof(want),
             "[{\"pk\":\"%s\",\"on\":true,\"version\":\"visor\",\"daily\":{\"2025-12-31\":\"1.04\","
             "\"2026-01-01\":\"0.35\"}}]",
             visor.hex);
    assert_string_equal(rig_get(path).body, want);
    snprintf(body, sizeof(body), "{\"pks\":[\"%s\"],\"v\":\"v2\"}", visor.hex);
    assert_string_equal(rig_request("POST", "/uptimes", NULL, body).body, want);

    memset(line, ' ', UPTIME_SLOTS);
    line[UPTIME_SLOTS] = '\0';
    line[144] = '.';
    snprintf(path, sizeof(path), "/uptimes?v=v3&visors=%s", visor.hex);
    snprintf(want, sizeof(want),
             "\"timeline\":{\"2025-12-31\":\"%.145s.%s\",\"2026-01-01\":\"%s\"}}]", line,
             line + 146, line);
    assert_non_null(strstr(rig_get(path).body, want));

    struct answer all = rig_get("/uptimes");
    assert_non_null(strstr(all.body, visor.hex));
    assert_non_null(strstr(all.body, other.hex));
    assert_null(strstr(all.body, "daily"));
    assert_true(rig_says(rig_request("POST", "/uptimes", NULL, "{\"pks\":"), 400,
                         "{\"error\":\"invalid JSON body\"}"));
    rig_stop();
}

static void test_lists_lmdb(void **state)
{
    (void)state;
    check_lists(false);
}

static void test_lists_redis(void **state)
{
    (void)state;
    check_lists(true);
}

/* 2023 and 2024 have no such path. */
static void test_not_before_2026(void **state)
{
    (void)state;
    disc_start((struct disc_service_cfg){.generation = DISC_2024}, false);
    assert_true(rig_says(rig_get("/uptimes"), 404, "404 page not found\n"));
    assert_int_equal(rig_request("POST", "/uptimes", NULL, "{}").status, 404);
}

static char *redis_text(const char *command, ...)
{
    static char text[300];
    va_list ap;
    va_start(ap, command);
    redisReply *r = redisvCommand(redis_rig.eyes, command, ap);
    va_end(ap);
    assert_non_null(r);
    if (r->type == REDIS_REPLY_INTEGER)
        snprintf(text, sizeof(text), "%lld", r->integer);
    else
        snprintf(text, sizeof(text), "%.*s", (int)r->len, r->type == REDIS_REPLY_NIL ? "" : r->str);
    freeReplyObject(r);
    return text;
}

static bool is_written(void *hex)
{
    return redis_text("EXISTS dmsgd:uptime:%s:2025-12-31:timeline", (const char *)hex)[0] == '1';
}

/* Byte for byte what upstream keeps (§3.4). */
static void test_layout_in_redis(void **state)
{
    (void)state;
    struct signer s;
    rig.env.wall_ns = NOON + SLOT; /* slot 145: the second bit of byte 18 */
    disc_start(of_2026, true);
    s = signer_new();
    register_client(&s, 0, NULL, "visor");
    rig_wait(is_written, s.hex);
    assert_string_equal(redis_text("DBSIZE"), "6"); /* entry, clients, visorClients and these: */
    assert_string_equal(redis_text("HLEN dmsgd:uptime:%s:2025-12-31", s.hex), "3");
    assert_string_equal(redis_text("HGET dmsgd:uptime:%s:2025-12-31 count", s.hex), "1");
    assert_string_equal(redis_text("HGET dmsgd:uptime:%s:2025-12-31 version", s.hex), "visor");
    assert_string_equal(redis_text("HGET dmsgd:uptime:%s:2025-12-31 last_seen", s.hex),
                        "1767182700");
    assert_string_equal(redis_text("SISMEMBER dmsgd:uptime:online:2025-12-31 %s", s.hex), "1");
    assert_string_equal(redis_text("STRLEN dmsgd:uptime:%s:2025-12-31:timeline", s.hex), "19");
    assert_string_equal(redis_text("GETBIT dmsgd:uptime:%s:2025-12-31:timeline 145", s.hex), "1");
    assert_string_equal(redis_text("BITCOUNT dmsgd:uptime:%s:2025-12-31:timeline", s.hex), "1");
    static const char *const tails[] = {"", ":timeline"};
    for (int i = 0; i < 2; i++) {
        int ttl = atoi(redis_text("TTL dmsgd:uptime:%s:2025-12-31%s", s.hex, tails[i]));
        assert_true(ttl > 8 * 86400 - 60 && ttl <= 8 * 86400);
    }
    int ttl = atoi(redis_text("TTL dmsgd:uptime:online:2025-12-31"));
    assert_true(ttl > 8 * 86400 - 60 && ttl <= 8 * 86400);
}

/* ---- without a discovery around it ---- */

static bool never(void *arg, const struct pubkey *pk, struct kv_str value)
{
    (void)arg, (void)pk, (void)value;
    return false;
}

static struct uptime *bare(uint64_t gather_ns)
{
    struct uptime *u;
    struct uptime_cfg cfg = {.env = &rig.env.env,
                             .loop = drive_loop_loop(rig.drive),
                             .kv = rig.store.kv,
                             .prefix = "p",
                             .expected = 288,
                             .gather_ns = gather_ns,
                             .online = never};
    assert_int_equal(uptime_new(&u, &cfg), 0);
    return u;
}

struct told {
    int n, err;
    char *text;
};

static void on_told(void *arg, int err, const char *text, size_t n)
{
    struct told *t = arg;
    t->n++;
    t->err = err;
    free(t->text);
    t->text = err == 0 ? strndup(text, n) : NULL;
}

static bool both_told(void *arg)
{
    const struct told *t = arg;
    return t[0].n == 1 && t[1].n == 1;
}

/* Notes of one key are one write, of many keys few; what was gathered survives the end; those who ask for all at once get one answer. */
static void test_gathered(void **state)
{
    (void)state;
    enum { KEYS = 700 };
    struct uptime_spec all = {.v = UPTIME_V2, .all = true};
    struct told told[2] = {0};
    struct uptime_stat st;
    struct pubkey pk;
    rig.env.wall_ns = NOON;
    rig_open_store(false);
    struct uptime *u = bare(3600 * NS_PER_S);
    for (int i = 0; i < KEYS; i++) {
        memset(&pk, 0, sizeof(pk));
        pk.b[0] = 2;
        pk.b[31] = (uint8_t)(i / 256);
        pk.b[32] = (uint8_t)i;
        for (int k = 0; k < 3; k++)
            uptime_note(u, &pk, "v1", 2);
    }
    uptime_stat(u, &st);
    assert_int_equal(st.gathered, KEYS);
    assert_int_equal(st.writes, 0);
    uptime_free(u);

    kv_open_close(&rig.store);
    rig_open_store(false);
    u = bare(0);
    assert_int_equal(uptime_list(u, &all, on_told, &told[0]), 0);
    assert_int_equal(uptime_list(u, &all, on_told, &told[1]), 0);
    rig_wait(both_told, told);
    json_t *list = json_loads(told[0].text, 0, NULL);
    assert_int_equal(json_array_size(list), KEYS);
    for (size_t i = 0; i < KEYS; i++) {
        const json_t *row = json_array_get(list, i);
        assert_string_equal(vec_str(vec_get(row, "daily"), "2025-12-31"), "1.04");
        assert_string_equal(vec_str(row, "version"), "v1");
    }
    json_decref(list);
    assert_string_equal(told[1].text, told[0].text);
    free(told[0].text);
    free(told[1].text);
    uptime_free(u);
    kv_open_close(&rig.store);
}

/* More keys than are gathered: the others are counted, and the next slot takes notes again. */
static void test_gathered_has_a_cap(void **state)
{
    (void)state;
    struct uptime_stat st;
    rig.env.wall_ns = NOON;
    rig_open_store(false);
    struct uptime *u = bare(3600 * NS_PER_S);
    for (uint32_t i = 0; i < 2 * UPTIME_GATHERED + 10; i++) {
        struct pubkey pk = {
            .b = {2, [29] = (uint8_t)(i >> 24), (uint8_t)(i >> 16), (uint8_t)(i >> 8), (uint8_t)i}};
        uptime_note(u, &pk, "", 0); /* the loop does not turn: the first flush stays under way */
    }
    uptime_stat(u, &st);
    assert_int_equal(st.gathered, UPTIME_GATHERED);
    assert_int_equal(st.lost, 10);
    uptime_free(u);
    kv_open_close(&rig.store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_lists_lmdb, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(test_lists_redis, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(test_not_before_2026, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(test_layout_in_redis, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(test_gathered, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(test_gathered_has_a_cap, rig_setup, rig_teardown),
    };
    return crypto_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
