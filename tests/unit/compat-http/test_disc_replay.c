/*
 * The discovery against everything that was recorded of upstream's: status, body, headers that matter, and what is in Redis afterwards; on both stores. Times are the recorded
 * ones, so that the signatures are too.
 */
#include <stdio.h>

#include "tests/unit/compat-http/disc_rig.h"

/* When the service was asked: so that the timestamp means what the name of the transcript says. */
static int64_t time_of(const char *name, const char *body)
{
    static const struct {
        const char *part;
        int64_t s;
    } shifts[] = {{"70 s old", 70},
                  {"55 s old", 55},
                  {"3 s ahead", -3},
                  {"8 s ahead", -8},
                  {"with old timestamp", 75}};
    const char *at = strstr(body, "\"timestamp\":");
    int64_t t = at != NULL ? strtoll(at + 12, NULL, 10) : 0;
    if (t == 0)
        return rig.env.wall_ns;
    for (size_t i = 0; i < sizeof(shifts) / sizeof(shifts[0]); i++)
        if (strstr(name, shifts[i].part) != NULL)
            return t + shifts[i].s * 1000000000;
    return t;
}

static bool is_list(const char *name, const char *path)
{
    /* those two have as many free sessions each */
    return strcmp(name, "available servers") == 0 || strstr(path, "all_servers") != NULL ||
           strstr(path, "/entries") != NULL;
}

/* Lists in any order are equal when they have the same elements. */
static bool same_set(const char *a, const char *b)
{
    json_t *x = json_loads(a, 0, NULL), *y = json_loads(b, 0, NULL), *v;
    size_t i, found = 0;
    if (!json_is_array(x) || !json_is_array(y)) {
        bool same = x != NULL && json_equal(x, y);
        json_decref(x);
        json_decref(y);
        return same;
    }
    json_array_foreach(x, i, v)
    {
        size_t k;
        json_t *w;
        json_array_foreach(y, k, w)
        {
            found += (size_t)json_equal(v, w);
        }
    }
    bool same = found == json_array_size(x) && found == json_array_size(y);
    json_decref(x);
    json_decref(y);
    return same;
}

static const char *content_type(const char *head)
{
    static char type[80];
    const char *at = strstr(head, "Content-Type: ");
    type[0] = '\0';
    if (at != NULL)
        snprintf(type, sizeof(type), "%.*s", (int)strcspn(at + 14, "\r"), at + 14);
    return type;
}

static void compare_key(const char *key, const json_t *want)
{
    redisReply *t = redisCommand(redis_rig.eyes, "TYPE %s", key), *r,
               *ttl = redisCommand(redis_rig.eyes, "PTTL %s", key);
    assert_string_equal(t->str, vec_str(want, "type"));
    if (strcmp(t->str, "string") == 0) {
        r = redisCommand(redis_rig.eyes, "GET %s", key);
        assert_string_equal(r->str, vec_str(want, "value"));
    } else {
        const json_t *members = vec_get(want, "members");
        size_t i;
        json_t *m;
        r = redisCommand(redis_rig.eyes, "SMEMBERS %s", key);
        assert_int_equal(r->elements, json_array_size(members));
        json_array_foreach(members, i, m)
        {
            redisReply *is =
                redisCommand(redis_rig.eyes, "SISMEMBER %s %s", key, json_string_value(m));
            assert_int_equal(is->integer, 1);
            freeReplyObject(is);
        }
    }
    const json_t *life = vec_get(want, "ttl_ms");
    if (json_is_integer(life)) {
        long long most = json_integer_value(life) > 120000 ? 180000 : 120000;
        if (ttl->integer <= 0 || ttl->integer > most)
            fail_msg("%s lives for %lld ms, not %lld", key, ttl->integer, most);
    } else {
        assert_int_equal(ttl->integer, -1);
    }
    freeReplyObject(t);
    freeReplyObject(r);
    freeReplyObject(ttl);
}

static void compare_dump(const json_t *dump)
{
    const char *key;
    json_t *want;
    if (redis_rig.eyes == NULL || json_object_size(dump) == 0)
        return;
    redisReply *size = redisCommand(redis_rig.eyes, "DBSIZE");
    assert_int_equal(size->integer, json_object_size(dump));
    freeReplyObject(size);
    json_object_foreach((json_t *)(uintptr_t)dump, key, want)
    {
        compare_key(key, want);
    }
}

/* What is done better, or is not in the file as it was sent. */
static bool is_other(const char *name)
{
    static const char *const names[] = {
        "entry: hex of right length but not a curve point",
        "set: 2026 client entry with client_type and protocol sent to the 2023 service",
        "oversized body 5 MiB (2023: no limit, accepted)",
        "2 MiB version, wrong signature",
        "200 delegated servers (accepted, no limit)",
        "available_servers then",
        "stored value is not JSON: GET",
        "stored value is not JSON: POST",
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

static void replay_one(const json_t *v, bool dumps)
{
    const char *name = vec_str(v, "name");
    const json_t *req = json_object_get(v, "request"), *res = json_object_get(v, "response");
    if (req == NULL)
        return; /* about time: test_service */
    const char *path = vec_str(req, "path"), *body = vec_str(req, "body");
    if (is_other(name))
        return;
    rig.env.wall_ns = time_of(name, body);
    struct answer a =
        rig_request(vec_str(req, "method"), path, json_object_get(req, "headers"), body);
    const char *said = json_string_value(json_object_get(res, "body"));
    said = said != NULL ? said : "";
    const char *type =
        json_string_value(json_object_get(json_object_get(res, "headers"), "Content-Type"));
    if (a.status != vec_int(res, "status"))
        fail_msg("%s: %d %s", name, a.status, a.body);
    if (strcmp(content_type(a.head), type != NULL ? type : "") != 0)
        fail_msg("%s: %s", name, a.head);
    bool nosniff =
        json_object_get(json_object_get(res, "headers"), "X-Content-Type-Options") != NULL;
    assert_true(nosniff == (strstr(a.head, "X-Content-Type-Options: nosniff") != NULL));
    if (strcmp(path, "/health") == 0) {
        bool address = strstr(said, "dmsg_address") != NULL;
        assert_true(vec_int(res, "status") != 200 ||
                    (strncmp(a.body, "{\"build_info\":{\"version\":\"", 26) == 0 &&
                     address == (strstr(a.body, ",\"dmsg_address\":\"") != NULL)));
    } else if (is_list(name, path) ? !same_set(a.body, said) : strcmp(a.body, said) != 0) {
        fail_msg("%s: %s\nnot %s", name, a.body, said);
    }
    if (dumps)
        compare_dump(json_object_get(v, "redis_after"));
}

static void replay(const json_t *root, const char *list, struct disc_service_cfg cfg,
                   bool with_redis)
{
    const json_t *v;
    size_t i;
    disc_start(cfg, with_redis);
    json_array_foreach(vec_get(root, list), i, v)
    {
        replay_one(v, with_redis);
    }
    rig_stop();
}

static void replay_all(bool with_redis)
{
    json_t *root = vectors_load("discovery");
    const json_t *keys = vec_get(root, "keys");
    const char *monitors[] = {vec_str(vec_get(keys, "monitor"), "pk")};
    struct disc_service_cfg cfg = {.generation = DISC_2023, .monitors = monitors, .n_monitors = 1};
    replay(root, "transcripts_production_mode", cfg, with_redis);
    tmpdir_remove(&rig.dir);
    tmpdir_make(&rig.dir);
    struct disc_service_cfg test = {
        .generation = DISC_2023, .test_mode = true, .dmsg_address = "02…:80"};
    replay(root, "transcripts_test_mode", test, with_redis);
    tmpdir_remove(&rig.dir);
    tmpdir_make(&rig.dir);
    struct disc_service_cfg load = {.generation = DISC_2023, .load_testing = true};
    replay(root, "transcripts_load_testing", load, with_redis);
    tmpdir_remove(&rig.dir);
    tmpdir_make(&rig.dir);
    replay(root, "transcripts_corner_cases", cfg, with_redis);
    json_decref(root);
}

static void test_transcripts_redis(void **state)
{
    (void)state;
    replay_all(true);
}

static void test_transcripts_lmdb(void **state)
{
    (void)state;
    replay_all(false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_transcripts_redis, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(test_transcripts_lmdb, rig_setup, rig_teardown),
    };
    return crypto_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
