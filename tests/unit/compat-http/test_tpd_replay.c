/*
 * The transport discovery against everything that was recorded of upstream's: status, body, headers that matter, and what is in Redis afterwards; on both stores. Nonces are those of the
 * records, so that the signatures are too.
 */
#include <stdio.h>

#include "base/hex.h"
#include "compat-http/tpd_body.h"
#include "tests/unit/compat-http/replay.h"
#include "tests/unit/compat-http/tpd_rig.h"

static void replay(const json_t *list, struct tpd_service_cfg cfg, bool with_redis)
{
    const json_t *v;
    size_t i;
    tpd_start(cfg, with_redis);
    json_array_foreach(list, i, v)
    {
        const json_t *req = vec_get(v, "request");
        const char *path = vec_str(req, "path");
        struct answer a = rig_request(vec_str(req, "method"), path, json_object_get(req, "headers"),
                                      vec_str(req, "body"));
        bool as_set = a.body[0] == '[' && (strcmp(path, "/all-transports") == 0 ||
                                           strncmp(path, "/transports/edge:", 17) == 0);
        replay_check(v, &a, as_set, with_redis && json_object_get(v, "redis_after") != NULL);
    }
    assert_true(i > 4);
    rig_stop();
}

static void replay_all(bool with_redis)
{
    json_t *root = vectors_load("services");
    const json_t *tpd = vec_get(root, "transport_discovery");
    const char *monitors[] = {vec_str(vec_get(vec_get(root, "keys"), "monitor"), "pk")};
    struct tpd_service_cfg cfg = {.generation = TPD_2024, .monitors = monitors, .n_monitors = 1};
    assert_int_equal(json_array_size(vec_get(tpd, "transcripts")), 41);
    replay(vec_get(tpd, "transcripts"), cfg, with_redis);
    tmpdir_remove(&rig.dir);
    tmpdir_make(&rig.dir);
    cfg.testing = true;
    replay(vec_get(tpd, "transcripts_memory_mode"), cfg, with_redis);
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

/* Ids, signed bytes and signatures of entries, as they were recorded. */
static void test_entry_vectors(void **state)
{
    (void)state;
    json_t *root = vectors_load("services");
    const json_t *v;
    size_t i;
    json_array_foreach(vec_get(root, "transport_entry_vectors"), i, v)
    {
        const char *text = vec_str(v, "signed_entry_json_array");
        struct tpd_body b;
        struct tpd_why why;
        struct json_out o;
        struct hash digest, want;
        char id[TP_ID_TEXT + 1];
        assert_int_equal(tpd_body_signed(&b, text, strlen(text), &why), 0);
        assert_int_equal(b.n, 1);
        const struct tp_entry *e = &b.e[0].e;
        struct tp_id made = tp_id_of(&e->edges[0], &e->edges[1], e->type);
        assert_string_equal(tp_id_text(id, &made), vec_str(v, "t_id"));
        assert_string_equal(tp_id_text(id, &e->id), vec_str(v, "t_id"));
        assert_string_equal(e->label, vec_str(v, "label"));
        tpd_signed_digest(&digest, e);
        vec_hex(v, "sha256", want.b, sizeof(want.b));
        assert_memory_equal(digest.b, want.b, sizeof(want.b));
        /* A key with itself signs once. */
        bool self = pubkey_equal(&e->edges[0], &e->edges[1]);
        assert_true(self == (b.e[0].sig[1].b[0] == 0));
        for (int k = 0; k < (self ? 1 : 2); k++) {
            struct hash other = digest;
            other.b[k] ^= 1;
            assert_int_equal(crypto_verify_digest(&e->edges[k], &b.e[0].sig[k], &digest), 0);
            assert_true(crypto_verify_digest(&e->edges[k], &b.e[0].sig[k], &other) < 0);
        }
        json_out_grow(&o, JSON_STD, 4096);
        json_out_array(&o);
        tpd_signed_write(&o, &b.e[0]);
        json_out_array_end(&o);
        assert_int_equal(o.len, strlen(text));
        assert_memory_equal(o.p, text, o.len);
        json_out_free(&o);
        tpd_body_free(&b);
    }
    assert_int_equal(i, 7);
    json_decref(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_transcripts_redis, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(test_transcripts_lmdb, rig_setup, rig_teardown),
        cmocka_unit_test(test_entry_vectors),
    };
    return crypto_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
