/*
 * The transport discovery of 2026, and what it does better than upstream's.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "base/hex.h"
#include "compat-http/httpauth.h"
#include "compat-http/tpd_int.h"
#include "tests/unit/compat-http/tpd_rig.h"

static const struct tpd_service_cfg cfg_2026 = {.generation = TPD_2026};

static const char *edge_path(const char *prefix, const struct signer *s)
{
    static char path[140];
    snprintf(path, sizeof(path), "%s%s", prefix, s->hex);
    return path;
}

static size_t count_of(struct answer a)
{
    json_t *l = json_loads(a.body, 0, NULL);
    size_t n = json_array_size(l);
    assert_int_equal(a.status, 200);
    json_decref(l);
    return n;
}

/* What the table says of a key, without asking over HTTP. */
static size_t known(const struct signer *s)
{
    struct tp_list l;
    assert_int_equal(tpd_service_list(tpd_of_rig(), &s->pk, &l), 0);
    size_t n = l.n;
    tp_list_free(&l);
    return n;
}

static struct tpd_service_stat stat_now(void)
{
    struct tpd_service_stat s;
    tpd_service_stat(tpd_of_rig(), &s);
    return s;
}

/* ---- endpoints ---- */

static void test_register_and_read(void **state)
{
    (void)state;
    struct signer a = signer_new(), b = signer_new(), c = signer_new();
    char path[140], body[400];
    tpd_start(cfg_2026, false);
    assert_true(rig_says(rig_get("/all-transports"), 404, "{\"error\":\"transport not found\"}\n"));
    assert_true(
        rig_says(tpd_call(&a, "GET", edge_path("/transports/edge:", &a), ""), 404, "not found"));
    struct answer r = tpd_call(&a, "POST", "/transports/", tpd_entry(&a, &b, "stcpr", "user"));
    assert_true(rig_says(r, 201, "\"signatures\":["));
    assert_non_null(strstr(r.head, "Content-Type: application/json\r\n"));
    assert_int_equal(
        tpd_call(&a, "POST", "/transports/", tpd_entry(&a, &b, "stcpr", "user")).status, 201);
    r = tpd_call(&b, "POST", "/v3/transports/", tpd_bare(&c, &b, "dmsg", "automatic"));
    assert_true(rig_says(r, 201, "\"label\":\"automatic\"}]\n"));
    /* by id, in other spellings too; by edge; all */
    snprintf(path, sizeof(path), "/transports/id:%s", tpd_id(&a, &b, "stcpr"));
    assert_true(rig_says(tpd_call(&c, "GET", path, ""), 200, "\"type\":\"stcpr\""));
    snprintf(path, sizeof(path), "/transports/id:{%s}", tpd_id(&b, &c, "dmsg"));
    assert_true(rig_says(tpd_call(&c, "GET", path, ""), 200, "\"type\":\"dmsg\""));
    assert_true(
        rig_says(tpd_call(&c, "GET", "/transports/id:zz", ""), 400, "transport ID is invalid"));
    assert_int_equal(count_of(tpd_call(&c, "GET", edge_path("/transports/edge:", &b), "")), 2);
    assert_int_equal(count_of(rig_get(edge_path("/v3/transports/edge:", &a))), 1);
    struct signer nobody = signer_new();
    assert_string_equal(rig_get(edge_path("/v3/transports/edge:", &nobody)).body, "[]\n");
    assert_true(rig_says(rig_get("/v3/transports/edge:zz"), 400, "public key is invalid"));
    assert_int_equal(count_of(rig_get("/all-transports")), 2);
    /* of several keys, each once */
    snprintf(body, sizeof(body), "[\"%s\",\"%s\",\"zz\"]", b.hex, a.hex);
    assert_int_equal(count_of(rig_request("POST", "/transports/edges", NULL, body)), 2);
    assert_true(
        rig_says(rig_request("POST", "/transports/edges", NULL, "{}"), 500, "error bad input"));
    assert_true(
        rig_says(rig_request("POST", "/transports/edges", NULL, "[1"), 400, "error bad input"));
    /* counts */
    assert_string_equal(
        rig_get("/all-transports/stats").body,
        "{\"total_transports\":2,\"by_type\":{\"dmsg\":1,\"stcpr\":1},\"unique_visors\":3}\n");
    assert_string_equal(rig_get(edge_path("/transports/stats/", &b)).body,
                        "{\"total\":2,\"by_type\":{\"dmsg\":1,\"stcpr\":1}}\n");
    snprintf(body, sizeof(body), "\"%s\":{\"total\":1,\"stcpr\":1}", a.hex);
    assert_true(rig_says(rig_get("/all-transports/per-key-stats"), 200, body));
    assert_true(rig_says(rig_get("/health"), 200, "\"transport_counts\":{\"dmsg\":1,\"stcpr\":1}"));
    assert_true(rig_says(rig_get("/metric"), 200, "{\"transports\":2,"));
    assert_int_equal(count_of(rig_get("/metrics")), 2);
    snprintf(path, sizeof(path), "/metrics/%s", tpd_id(&a, &b, "stcpr"));
    assert_int_equal(count_of(rig_get(path)), 1);
    assert_int_equal(count_of(rig_get(edge_path("/metrics/visor/", &c))), 1);
    assert_true(rig_says(rig_get("/uptime/now"), 503, "uptime recorder not configured\n"));
    assert_int_equal(rig_request("POST", "/statuses", NULL, "[]").status, 410);
}

static void test_self_transports(void **state)
{
    (void)state;
    struct signer a = signer_new(), b = signer_new();
    tpd_start(cfg_2026, false);
    assert_int_equal(
        tpd_call(&a, "POST", "/v3/transports/", tpd_bare(&a, &a, "dmsg", "user")).status, 201);
    assert_int_equal(count_of(rig_get("/all-transports")), 1);
    assert_int_equal(rig_get("/all-transports?selfTransports=hide").status, 404);
    assert_int_equal(
        tpd_call(&a, "POST", "/v3/transports/", tpd_bare(&a, &b, "dmsg", "user")).status, 201);
    assert_int_equal(count_of(rig_get("/all-transports?selfTransports=hide")), 1);
    assert_int_equal(known(&a), 2);
}

static void test_delete(void **state)
{
    (void)state;
    struct signer a = signer_new(), b = signer_new(), c = signer_new();
    char path[140], body[400];
    tpd_start(cfg_2026, false);
    (void)tpd_call(&a, "POST", "/transports/", tpd_entry(&a, &b, "stcpr", "user"));
    (void)tpd_call(&a, "POST", "/transports/", tpd_entry(&a, &b, "sudph", "user"));
    (void)tpd_call(&a, "POST", "/transports/", tpd_entry(&a, &c, "sudph", "user"));
    snprintf(path, sizeof(path), "/transports/id:%s", tpd_id(&a, &b, "stcpr"));
    assert_true(rig_says(tpd_call(&c, "DELETE", path, ""), 400, "transport ID is invalid"));
    assert_true(rig_says(tpd_call(&b, "DELETE", path, ""), 200, "transport deleted"));
    assert_true(rig_says(tpd_call(&b, "DELETE", path, ""), 404, "transport not found"));
    /* twice the same, one of others, one that is none, one that is not there */
    snprintf(body, sizeof(body), "[\"%s\",\"%s\",\"%s\",\"zz\",\"%s\"]", tpd_id(&a, &b, "sudph"),
             tpd_id(&a, &b, "sudph"), tpd_id(&a, &c, "sudph"), tpd_id(&b, &c, "x"));
    assert_string_equal(tpd_call(&b, "POST", "/transports/delete-batch", body).body,
                        "{\"deleted\":1,\"skipped\":4}\n");
    assert_true(
        rig_says(tpd_call(&b, "POST", "/transports/delete-batch", "{"), 400, "error bad input"));
    assert_true(
        rig_says(tpd_call(&b, "POST", "/transports/delete-batch", "{}"), 500, "error bad input"));
    assert_int_equal(known(&b), 0);
    assert_int_equal(known(&a), 1);
}

/* What is refused of a batch: by the old way all from there on, by the new one only itself. */
static void test_batches(void **state)
{
    (void)state;
    struct signer a = signer_new(), b = signer_new(), c = signer_new();
    static char body[4096];
    char one[1024];
    tpd_start(cfg_2026, false);
    snprintf(one, sizeof(one), "%s", tpd_entry(&a, &b, "stcpr", "user") + 1);
    one[strlen(one) - 1] = '\0';
    snprintf(body, sizeof(body), "[%s,%s", one, tpd_entry(&b, &c, "stcpr", "user") + 1);
    assert_true(rig_says(tpd_call(&a, "POST", "/transports/", body), 403, "not an edge"));
    assert_int_equal(known(&a), 1);
    assert_int_equal(known(&c), 0);
    snprintf(one, sizeof(one), "%s", tpd_bare(&b, &c, "stcpr", "user") + 1);
    one[strlen(one) - 1] = '\0';
    snprintf(body, sizeof(body), "[%s,%s", one, tpd_bare(&a, &c, "stcpr", "user") + 1);
    struct answer r = tpd_call(&a, "POST", "/v3/transports/", body);
    assert_int_equal(r.status, 201);
    assert_non_null(strstr(r.body, tpd_id(&a, &c, "stcpr")));
    assert_null(strstr(r.body, tpd_id(&b, &c, "stcpr")));
    snprintf(body, sizeof(body), "%s", tpd_bare(&b, &c, "stcpr", "user"));
    assert_string_equal(tpd_call(&a, "POST", "/v3/transports/", body).body, "[]\n");
    assert_int_equal(known(&c), 1);
    /* an id that is not that of edges and type */
    snprintf(body, sizeof(body), "%s", tpd_entry(&a, &b, "sudph", "user"));
    memcpy(strstr(body, "sudph"), "stcpr", 5);
    assert_true(
        rig_says(tpd_call(&a, "POST", "/transports/", body), 400, "transport ID is invalid"));
    assert_true(
        rig_says(tpd_call(&a, "POST", "/transports/", "[{"), 400, "unexpected end of JSON input"));
    assert_int_equal(tpd_call(&a, "POST", "/transports/", "[{\"entry\":null}]").status, 500);
    assert_int_equal(tpd_call(&a, "POST", "/transports/", "[[]]").status, 500);
    assert_int_equal(tpd_call(&a, "POST", "/transports/", "[]").status, 201);
}

static void test_heartbeats_and_versions(void **state)
{
    (void)state;
    struct signer a = signer_new(), b = signer_new();
    char want[200], path[200];
    tpd_start(cfg_2026, false);
    assert_true(rig_says(tpd_call(&a, "GET", "/v4/update?version=v1.3.29", ""), 200,
                         "{\"status\":\"ok\"}\n"));
    assert_int_equal(tpd_nonce(&a), 1);
    assert_int_equal(rig_get("/v4/update?version=v1").status, 401);
    assert_string_equal(rig_get("/version").body, "{\"v1.3.29\":1}\n");
    snprintf(want, sizeof(want), "[{\"pk\":\"%s\",\"version\":\"v1.3.29\",\"on\":false}]\n", a.hex);
    assert_string_equal(rig_get("/versions").body, want);
    assert_string_equal(rig_get("/versions?on=true").body, "[]\n");
    /* on: two transports that do not need dmsg */
    (void)tpd_call(&a, "POST", "/v3/transports/", tpd_bare(&a, &b, "stcpr", "user"));
    (void)tpd_call(&a, "POST", "/v3/transports/", tpd_bare(&a, &b, "dmsg", "user"));
    assert_string_equal(rig_get("/versions?on=true").body, "[]\n");
    (void)tpd_call(&a, "POST", "/v3/transports/", tpd_bare(&a, &b, "sudph", "user"));
    assert_true(rig_says(rig_get("/versions?on=true"), 200, "\"on\":true"));
    snprintf(path, sizeof(path), "/versions/%s", b.hex);
    assert_string_equal(rig_get(path).body, "[]\n");
    assert_int_equal(stat_now().heartbeats, 1);
}

static bool is_seen(void *want)
{
    return strstr(rig_get("/uptimes?v=v2").body, want) != NULL;
}

static void test_uptimes(void **state)
{
    (void)state;
    struct signer a = signer_new();
    char want[120];
    tpd_start(cfg_2026, true);
    assert_int_equal(tpd_call(&a, "GET", "/v4/update?version=v1.3.29", "").status, 200);
    snprintf(want, sizeof(want), "{\"pk\":\"%s\",\"on\":false,\"version\":\"v1.3.29\",\"daily\":{",
             a.hex);
    rig_wait(is_seen, want); /* heartbeats are gathered */
    assert_true(rig_says(rig_request("POST", "/uptimes", NULL, "x"), 400, "invalid JSON body"));
    redisReply *r = redisCommand(redis_rig.eyes, "KEYS transport-discovery:uptime:*");
    assert_int_equal(r->elements, 3);
    freeReplyObject(r);
}

static bool is_noted(void *want)
{
    return strstr(rig_get("/uptimes/transports?v=v3").body, want) != NULL;
}

static void test_uptimes_of_transports(void **state)
{
    (void)state;
    struct signer a = signer_new(), b = signer_new();
    char want[200], path[200];
    tpd_start(cfg_2026, false);
    (void)tpd_call(&a, "POST", "/transports/", tpd_entry(&a, &b, "dmsg", "user"));
    for (int i = 0; i < 40; i++) { /* several reads */
        char type[16];
        snprintf(type, sizeof(type), "t%d", i);
        (void)tpd_call(&a, "POST", "/transports/", tpd_entry(&a, &b, type, "user"));
    }
    snprintf(want, sizeof(want), "\"timeline\":{\"");
    rig_wait(is_noted, want); /* they are gathered */
    snprintf(want, sizeof(want), "{\"t_id\":\"%s\",\"on\":true,\"type\":\"t7\",\"daily\":{\"",
             tpd_id(&a, &b, "t7"));
    struct answer r = rig_get("/uptimes/transports?v=v3");
    assert_int_equal(count_of(r), 40);
    assert_non_null(strstr(r.body, want));
    assert_non_null(strstr(r.body, ":\"0.34\"}")); /* one of 288 */
    const char *line = strstr(r.body, "\"timeline\":{\"");
    assert_int_equal(strcspn(line + 26, "\""), 288);
    struct signer nobody = signer_new();
    snprintf(path, sizeof(path), "/uptimes/transports?visors=%s", nobody.hex);
    assert_string_equal(rig_get(path).body, "[]\n");
    snprintf(path, sizeof(path), "/uptimes/transports?visors=%s;%s", a.hex, b.hex);
    r = rig_get(path);
    assert_int_equal(count_of(r), 40);
    assert_null(strstr(r.body, "daily"));
    assert_int_equal(rig_request("POST", "/uptimes/transports", NULL, "x").status, 400);
    assert_int_equal(count_of(rig_request("POST", "/uptimes/transports", NULL, "{\"v\":\"v2\"}")),
                     40);
}

/* ---- incidents ---- */

/* incident 44: what is not registered again is gone after its life, at first and after renewals, from all lists and from the store; also over a restart */
static bool is_bare(void *arg)
{
    return known(arg) == 0;
}

static void test_transports_expire(void **state)
{
    (void)state;
    struct signer a = signer_new(), b = signer_new();
    char body[1024];
    snprintf(body, sizeof(body), "%s", tpd_entry(&a, &b, "stcpr", "user"));
    tpd_start(cfg_2026, true);
    assert_int_equal(tpd_call(&a, "POST", "/transports/", body).status, 201);
    rig_stop();
    redisReply *r =
        redisCommand(redis_rig.eyes, "PTTL transport-discovery:tp:%s", tpd_id(&a, &b, "stcpr"));
    assert_true(r->integer > 0 && r->integer <= TPD_TTL_MS);
    freeReplyObject(r);
    rig.keep_redis = true;
    tpd_start((struct tpd_service_cfg){.generation = TPD_2026, .ttl_ms = 1000}, true);
    rig_wait(is_bare, &a);
    assert_int_equal(rig_get("/all-transports").status, 404);
    assert_int_equal(tpd_call(&a, "POST", "/transports/", body).status, 201);
    assert_int_equal(tpd_call(&a, "POST", "/transports/", body).status, 201);
    rig_wait(is_bare, &a);
    assert_true(stat_now().expired >= 2);
    assert_true(stat_now().registered >= 1);
}

/* incident 47: unchanged transports that are registered again cost no write before a third of their life is over */
static void test_unchanged_is_not_written(void **state)
{
    (void)state;
    struct signer a = signer_new(), b = signer_new();
    struct kv_stat before, after;
    char body[1024];
    tpd_start(cfg_2026, false);
    snprintf(body, sizeof(body), "%s", tpd_entry(&a, &b, "stcpr", "user"));
    assert_int_equal(tpd_call(&a, "POST", "/transports/", body).status, 201);
    kv_stat(rig.store.kv, &before);
    for (int i = 0; i < 50; i++)
        assert_int_equal(tpd_call(&a, "POST", "/transports/", body).status, 201);
    kv_stat(rig.store.kv, &after);
    assert_int_equal(after.writes, before.writes);
    assert_int_equal(stat_now().unchanged, 50);
    /* another label is another thing to say */
    assert_int_equal(
        tpd_call(&b, "POST", "/transports/", tpd_entry(&a, &b, "stcpr", "automatic")).status, 201);
    kv_stat(rig.store.kv, &after);
    assert_true(after.writes > before.writes);
    assert_true(rig_says(rig_get("/all-transports"), 200, "\"label\":\"automatic\""));
}

/* incident 49: nonces that are replayed, skipped or used twice at once are refused; of many with one number one is taken */
static void test_nonces(void **state)
{
    (void)state;
    struct signer a = signer_new();
    const char *path = "/v4/update";
    tpd_start(cfg_2026, false);
    assert_int_equal(tpd_ask(&a, 0, "GET", path, "").status, 200);
    assert_true(rig_says(tpd_ask(&a, 0, "GET", path, ""), 401, "SW-Nonce does not match"));
    assert_true(rig_says(tpd_ask(&a, 5, "GET", path, ""), 401, "SW-Nonce does not match"));
    assert_int_equal(tpd_ask(&a, 1, "GET", path, "").status, 200);
    assert_int_equal(tpd_nonce(&a), 2);
    /* an answer of another status leaves it */
    assert_int_equal(tpd_ask(&a, 2, "GET", "/transports/id:zz", "").status, 400);
    assert_int_equal(tpd_nonce(&a), 2);
    assert_int_equal(stat_now().unauthorized, 2);
}

static void test_one_nonce_at_once(void **state)
{
    (void)state;
    enum { N = 20 };
    struct signer s = signer_new();
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct hash digest;
    struct sig sig;
    char hex[2 * SIG_BYTES + 1], text[1000];
    int fd[N], taken = 0, refused = 0;
    tpd_start(cfg_2026, false);
    at.sin_port = htons((uint16_t)atoi(strrchr(service_addr(rig.service, 0), ':') + 1));
    httpauth_digest(&digest, "", 0, 0);
    assert_int_equal(crypto_sign_digest(&sig, &s.sk, &digest), 0);
    int n = snprintf(text, sizeof(text),
                     "GET /v4/update HTTP/1.1\r\nHost: x\r\nConnection: close\r\nSW-Public: "
                     "%s\r\nSW-Nonce: 0\r\n"
                     "SW-Sig: %s\r\n\r\n",
                     s.hex, hex_encode(hex, sig.b, SIG_BYTES));
    for (int i = 0; i < N; i++) {
        fd[i] = socket(AF_INET, SOCK_STREAM, 0);
        assert_int_equal(connect(fd[i], (struct sockaddr *)&at, sizeof(at)), 0);
        assert_int_equal(send(fd[i], text, (size_t)n, 0), n);
    }
    for (int i = 0; i < N; i++) {
        char got[2000];
        size_t len = 0;
        uint64_t end = drive_loop_now(rig.drive) + RIG_WAIT_NS;
        for (ssize_t k; (k = recv(fd[i], got + len, sizeof(got) - 1 - len, MSG_DONTWAIT)) != 0;) {
            len += k > 0 ? (size_t)k : 0;
            assert_true(drive_loop_now(rig.drive) < end);
            rig_turn();
        }
        got[len] = '\0';
        taken += strstr(got, " 200 ") != NULL;
        refused += strstr(got, "SW-Nonce does not match") != NULL;
        close(fd[i]);
    }
    assert_int_equal(taken, 1);
    assert_int_equal(refused, N - 1);
    assert_int_equal(tpd_nonce(&s), 1);
}

/* incident 49: over a stream the key of the channel is the caller, whatever headers say, and no nonce is read or counted */
static void test_over_a_stream(void **state)
{
    (void)state;
    struct signer a = signer_new(), b = signer_new(), evil = signer_new();
    static char text[4096], got[4096];
    int fd[2];
    tpd_start(cfg_2026, false);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
    assert_int_equal(service_add_stream(rig.service, fd[0], &evil.pk, 49152), 0);
    const char *body = tpd_bare(&a, &b, "stcpr", "user");
    for (int round = 0; round < 2; round++) { /* one of others, then an own one */
        int n = snprintf(text, sizeof(text),
                         "POST /v3/transports/ HTTP/1.1\r\nHost: x\r\nSW-Public: %s\r\nSW-Nonce: "
                         "7\r\nSW-Sig: 00\r\n"
                         "Content-Length: %zu\r\n\r\n%s",
                         a.hex, strlen(body), body);
        assert_int_equal(send(fd[1], text, (size_t)n, 0), n);
        size_t len = 0;
        uint64_t end = drive_loop_now(rig.drive) + RIG_WAIT_NS;
        got[0] = '\0';
        while (strstr(got, "]\n") == NULL) {
            ssize_t k = recv(fd[1], got + len, sizeof(got) - 1 - len, MSG_DONTWAIT);
            len += k > 0 ? (size_t)k : 0;
            got[len] = '\0';
            assert_true(drive_loop_now(rig.drive) < end);
            rig_turn();
        }
        assert_non_null(strstr(got, " 201 "));
        assert_true((strstr(got, "\r\n\r\n[]\n") != NULL) == (round == 0));
        body = tpd_bare(&evil, &b, "stcpr", "user");
    }
    close(fd[1]);
    assert_int_equal(known(&a), 0);
    assert_int_equal(known(&evil), 1);
    assert_int_equal(tpd_nonce(&evil), 0);
}

/* incident 50: nothing is told of a key that did not say it itself, over both ways to register; nothing leaves that is not consistent */
static void test_only_own_transports(void **state)
{
    (void)state;
    struct signer a = signer_new(), b = signer_new(), evil = signer_new();
    char body[2048];
    tpd_start(cfg_2026, false);
    snprintf(body, sizeof(body), "%s", tpd_entry(&a, &b, "stcpr", "user"));
    assert_int_equal(tpd_call(&evil, "POST", "/transports/", body).status, 403);
    /* signed with the key of another, in its name */
    struct signer forged = a;
    forged.sk = evil.sk;
    assert_true(rig_says(tpd_call(&forged, "POST", "/transports/", body), 401,
                         "Recovered pubkey does not match pubkey"));
    assert_int_equal(known(&a), 0);
    assert_int_equal(rig_get("/all-transports").status, 404);
    assert_int_equal(tpd_call(&a, "POST", "/transports/", body).status, 201);
    struct tp_list l;
    assert_int_equal(tpd_service_list(tpd_of_rig(), &b.pk, &l), 0);
    assert_int_equal(l.n, 1);
    struct tp_id id = tp_id_of(&l.e[0].edges[0], &l.e[0].edges[1], l.e[0].type);
    assert_memory_equal(&id, &l.e[0].id, sizeof(id));
    tp_list_free(&l);
}

/* ---- limits ---- */

static int connect_rig(const char *request)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0), n = (int)strlen(request);
    at.sin_port = htons((uint16_t)atoi(strrchr(service_addr(rig.service, 0), ':') + 1));
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(send(fd, request, (size_t)n, 0), n);
    return fd;
}

/* One pass of the loop, and not until nothing is left to do. */
static void one_turn(void)
{
    event_base_loop(drive_loop_base(rig.drive), EVLOOP_ONCE | EVLOOP_NONBLOCK);
    usleep(100);
}

/* incident 71: a list of everything is made in pieces, and who asks for something else meanwhile does not wait for its end; those who ask for it at once get one text */
static void test_long_list_in_pieces(void **state)
{
    (void)state;
    enum { N = 60000, LISTS = 3 };
    struct signer a = signer_new();
    struct tpd_service *t;
    struct tpd_tp *tp;
    char byte;
    int list[LISTS], other;
    tpd_start(cfg_2026, false);
    t = tpd_of_rig();
    for (int i = 0; i < N; i++) {
        struct tp_entry e = {.edges = {a.pk, a.pk}};
        snprintf(e.type, sizeof(e.type), "t%d", i);
        e.edges[1].b[32] = (uint8_t)i; /* several edges, each with room */
        e.id = tp_id_of(&e.edges[0], &e.edges[1], e.type);
        if (i % 5 > 0)
            e.edges[0].b[31] = (uint8_t)(i % 5);
        assert_int_equal(tpd_table_put(&t->table, &e, TPD_FOR_EVER, &tp), 0);
    }
    for (int i = 0; i < LISTS; i++)
        list[i] = connect_rig("GET /all-transports HTTP/1.1\r\nHost: x\r\n\r\n");
    uint64_t end = drive_loop_now(rig.drive) + RIG_WAIT_NS;
    while (t->stat.waiting < LISTS) { /* they are asked, and it is being made */
        assert_true(drive_loop_now(rig.drive) < end);
        one_turn();
    }
    other = connect_rig("GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
    while (recv(other, &byte, 1, MSG_DONTWAIT) != 1) {
        assert_true(drive_loop_now(rig.drive) < end);
        one_turn();
    }
    assert_int_equal(t->stat.waiting, LISTS);
    while (t->stat.waiting > 0) {
        assert_true(drive_loop_now(rig.drive) < end);
        one_turn();
    }
    for (int i = 0; i < LISTS; i++)
        close(list[i]);
    close(other);
}

static void test_rate(void **state)
{
    (void)state;
    char text[80];
    int ok = 0;
    tpd_start((struct tpd_service_cfg){.generation = TPD_2026, .rate = 1}, false);
    for (int i = 0; i < 10; i++)
        ok += rig_get("/all-transports/stats").status == 200;
    assert_int_equal(ok, 10);
    struct answer a = rig_get("/all-transports/stats");
    assert_true(rig_says(a, 429, "Rate limit exceeded: maximum 1 requests per minute\n"));
    /* not these, and not another address */
    assert_int_equal(rig_get("/health").status, 200);
    assert_int_equal(rig_request("POST", "/statuses", NULL, "").status, 410);
    snprintf(text, sizeof(text), "203.0.113.7");
    json_t *headers = json_pack("{s:s}", "X-Real-IP", text);
    assert_int_equal(rig_request("GET", "/all-transports/stats", headers, "").status, 200);
    json_decref(headers);
    assert_true(stat_now().limited >= 1);
}

static void test_too_many(void **state)
{
    (void)state;
    struct signer a = signer_new(), b = signer_new();
    static char body[1 << 20];
    size_t n = 0;
    tpd_start((struct tpd_service_cfg){.generation = TPD_2026, .max = 2}, false);
    assert_int_equal(tpd_call(&a, "POST", "/transports/", tpd_entry(&a, &b, "1", "")).status, 201);
    assert_int_equal(tpd_call(&a, "POST", "/transports/", tpd_entry(&a, &b, "2", "")).status, 201);
    assert_true(rig_says(tpd_call(&a, "POST", "/transports/", tpd_entry(&a, &b, "3", "")), 500,
                         "too many transports"));
    assert_int_equal(tpd_call(&a, "POST", "/transports/", tpd_entry(&a, &b, "2", "")).status, 201);
    body[n++] = '[';
    for (int i = 0; i < 5000; i++)
        n += (size_t)sprintf(body + n, "%s{\"entry\":{}}", i > 0 ? "," : "");
    strcpy(body + n, "]");
    assert_true(rig_says(tpd_call(&a, "POST", "/transports/", body), 400, "too many elements"));
    memset(body, ' ', sizeof(body) - 1);
    body[sizeof(body) - 1] = '\0';
    assert_int_equal(tpd_call(&a, "POST", "/transports/", body).status, 400);
    memset(body, '[', 100000);
    body[100000] = '\0';
    assert_int_equal(tpd_call(&a, "POST", "/transports/", body).status, 400);
}

/* ---- restarts ---- */

/* incident 70: until the store was read nobody is told "nothing"; a store that was lost is not complete before everybody could have come again */
static void test_warming(void **state)
{
    (void)state;
    struct signer a = signer_new(), b = signer_new();
    struct tpd_service_cfg cfg = cfg_2026;
    tpd_start(cfg, false);
    assert_true(rig_says(rig_get("/health"), 200, "\"complete\":false"));
    assert_int_equal(
        tpd_call(&a, "POST", "/transports/", tpd_entry(&a, &b, "stcpr", "user")).status, 201);
    rig_stop();
    tpd_start(cfg, false);
    assert_int_equal(known(&a), 1);
    assert_true(rig_says(rig_get("/health"), 200, "\"complete\":true"));
    rig_stop();
    /* a store that does not answer yet */
    rig_open_store(true);
    redis_stop();
    struct tpd_service *t;
    size_t n;
    cfg.env = &rig.env.env;
    cfg.loop = drive_loop_loop(rig.drive);
    cfg.kv = rig.store.kv;
    assert_int_equal(tpd_service_new(&t, &cfg), 0);
    rig.app = t;
    rig.app_free = tpd_rig_free;
    const struct service_route *routes = tpd_service_routes(TPD_2026, &n);
    rig_serve(routes, n, t, tpd_service_dropped);
    assert_true(rig_says(rig_get("/all-transports"), 503, "the store is still being read"));
    assert_true(rig_says(rig_get(edge_path("/v3/transports/edge:", &a)), 503, "still"));
    assert_true(rig_says(rig_get("/health"), 200, "\"complete\":false"));
    redis_start();
    rig_wait(tpd_is_ready, NULL);
    assert_int_equal(rig_get("/all-transports").status, 404);
}

/* Everything is there again after a restart, with what is left of its life; bad values in the store are passed over. */
static void test_restart(void **state)
{
    (void)state;
    enum { N = 700 }; /* several pieces */
    struct signer a = signer_new();
    tpd_start(cfg_2026, true);
    for (int i = 0; i < N; i++) {
        struct signer b = {.pk = a.pk};
        char type[16];
        snprintf(type, sizeof(type), "t%d", i);
        snprintf(b.hex, sizeof(b.hex), "%s", a.hex);
        b.sk = a.sk;
        assert_int_equal(
            tpd_call(&a, "POST", "/v3/transports/", tpd_bare(&a, &b, type, "user")).status, 201);
    }
    rig_stop();
    freeReplyObject(redisCommand(redis_rig.eyes, "SADD transport-discovery:tp:_index nonsense"));
    freeReplyObject(redisCommand(redis_rig.eyes, "SADD transport-discovery:tp:_index %s",
                                 "00000000-0000-0000-0000-000000000001"));
    freeReplyObject(redisCommand(
        redis_rig.eyes, "SET transport-discovery:tp:00000000-0000-0000-0000-000000000001 {}"));
    rig.keep_redis = true;
    tpd_start(cfg_2026, true);
    assert_int_equal(known(&a), N);
    assert_int_equal(count_of(rig_get("/all-transports")), N);
    assert_int_equal(stat_now().transports, N);
}

/* ---- what others are told ---- */

static struct {
    unsigned told, loaded;
    struct pubkey last;
} hook;

static void on_changed(void *arg, const struct pubkey *pk)
{
    (void)arg;
    hook.told++;
    hook.last = *pk;
}

static void on_loaded(void *arg)
{
    (void)arg;
    hook.loaded++;
}

static bool is_told(void *n)
{
    return hook.told >= *(unsigned *)n;
}

static void count_key(void *arg, const struct pubkey *pk)
{
    (void)pk;
    ++*(unsigned *)arg;
}

static void test_changes_are_told(void **state)
{
    (void)state;
    struct signer a = signer_new(), b = signer_new();
    char path[100];
    unsigned want = 2, keys = 0;
    struct tpd_service_cfg cfg = {
        .generation = TPD_2026, .changed = on_changed, .loaded = on_loaded};
    memset(&hook, 0, sizeof(hook));
    tpd_start(cfg, false);
    assert_int_equal(hook.loaded, 1);
    (void)tpd_call(&a, "POST", "/transports/", tpd_entry(&a, &b, "stcpr", "user"));
    rig_wait(is_told, &want);
    (void)tpd_call(&a, "POST", "/transports/", tpd_entry(&a, &b, "stcpr", "user")); /* a renewal */
    assert_int_equal(hook.told, 2);
    tpd_service_each(tpd_of_rig(), count_key, &keys);
    assert_int_equal(keys, 2);
    snprintf(path, sizeof(path), "/transports/id:%s", tpd_id(&a, &b, "stcpr"));
    (void)tpd_call(&a, "DELETE", path, "");
    want = 4;
    rig_wait(is_told, &want);
    assert_int_equal(known(&a), 0);
    rig_stop();
    cfg.ttl_ms = 1000;
    tpd_start(cfg, false);
    (void)tpd_call(&a, "POST", "/transports/", tpd_entry(&a, &a, "stcpr", "user"));
    want = 6; /* came, and ended by itself */
    rig_wait(is_told, &want);
    assert_true(pubkey_equal(&hook.last, &a.pk));
    /* what was there before is not told, but loaded() */
    rig_stop();
    cfg.ttl_ms = 0;
    tpd_start(cfg, false);
    (void)tpd_call(&a, "POST", "/transports/", tpd_entry(&a, &b, "stcpr", "user"));
    want = 8;
    rig_wait(is_told, &want);
    rig_stop();
    memset(&hook, 0, sizeof(hook));
    tpd_start(cfg, false);
    assert_int_equal(hook.loaded, 1);
    assert_int_equal(hook.told, 0);
}

/* ---- bandwidth that others have written ---- */

static void test_bandwidth(void **state)
{
    (void)state;
    struct signer a = signer_new(), b = signer_new();
    char path[140], day[16];
    time_t now = (time_t)(rig.env.wall_ns / 1000000000);
    struct tm tm;
    tpd_start(cfg_2026, true);
    gmtime_r(&now, &tm);
    strftime(day, sizeof(day), "%Y-%m-%d", &tm);
    freeReplyObject(redisCommand(
        redis_rig.eyes, "HSET transport-discovery:bw:daily:%s:%s bandwidth 12345 updated_at 99",
        tpd_id(&a, &b, "stcpr"), day));
    snprintf(path, sizeof(path), "/bandwidth/transport/%s?period=daily&limit=7",
             tpd_id(&a, &b, "stcpr"));
    struct answer r = rig_get(path);
    assert_int_equal(count_of(r), 1);
    assert_non_null(strstr(r.body, "\"period\":\"daily\",\"period_key\":\""));
    assert_non_null(strstr(r.body, "\"bandwidth\":12345,\"updated_at\":99}"));
    snprintf(path, sizeof(path), "/bandwidth/visor/%s", a.hex);
    assert_string_equal(rig_get(path).body, "[]\n");
    snprintf(path, sizeof(path), "/bandwidth/visor/%s?period=weekly", a.hex);
    assert_int_equal(rig_get(path).status, 400);
    assert_int_equal(rig_get("/bandwidth/transport/zz").status, 400);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_register_and_read, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(test_self_transports, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(test_delete, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(test_batches, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(test_heartbeats_and_versions, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(test_uptimes, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(test_uptimes_of_transports, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(test_transports_expire, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(test_unchanged_is_not_written, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(test_nonces, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(test_one_nonce_at_once, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(test_over_a_stream, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(test_only_own_transports, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(test_long_list_in_pieces, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(test_rate, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(test_too_many, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(test_warming, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(test_restart, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(test_changes_are_told, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(test_bandwidth, rig_setup, rig_teardown),
    };
    return crypto_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
