/*
 * The discovery against everything that was recorded of upstream's: status, body, headers that matter, and what is in Redis afterwards; on both stores. Times are the recorded
 * ones, so that the signatures are too.
 */
#include <stdio.h>

#include "tests/unit/compat-http/disc_rig.h"
#include "tests/unit/compat-http/replay.h"

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
    const json_t *req = json_object_get(v, "request");
    if (req == NULL)
        return; /* about time: test_service */
    const char *path = vec_str(req, "path"), *body = vec_str(req, "body");
    if (is_other(name))
        return;
    rig.env.wall_ns = time_of(name, body);
    struct answer a =
        rig_request(vec_str(req, "method"), path, json_object_get(req, "headers"), body);
    replay_check(v, &a, is_list(name, path), dumps);
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
