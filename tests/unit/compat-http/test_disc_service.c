/*
 * The discovery beyond what was recorded of upstream's: later generations, lives, limits, bad input.
 */
#include "compat-http/disc_service.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/compat-http/disc_rig.h"

/* The rows of 2024 and 2026. */
static void test_later_generations(void **state)
{
    (void)state;
    struct signer visor = signer_new(), client = signer_new(), relay = signer_new(),
                  other = signer_new();
    char body[600];
    disc_start((struct disc_service_cfg){.generation = DISC_2026,
                                         .auth = "pass",
                                         .client_ttl_ms = 3600000},
               false);
    assert_true(rig_says(disc_post(client_entry(&visor, 0, &relay.pk, "visor")), 200, "new entry"));
    assert_true(rig_says(disc_post(client_entry(&client, 0, &relay.pk, "")), 200, "new entry"));
    assert_true(
        rig_says(disc_post(server_entry(&relay, 0, "203.0.113.1:1", 5, "pass")), 200, "new"));
    assert_true(
        rig_says(disc_post(server_entry(&other, 0, "203.0.113.2:1", 9, "nonsense")), 200, "new"));
    struct answer a = rig_get("/dmsg-discovery/available_servers");
    const char *first = strstr(a.body, "\"serverType\":\"community\"");
    assert_true(first != NULL && first < strstr(a.body, "\"serverType\":\"official\""));
    assert_null(strstr(a.body, "pass"));
    a = rig_get("/dmsg-discovery/visorEntries");
    snprintf(body, sizeof(body), "[\"%s\"]", visor.hex);
    assert_string_equal(a.body, body);
    snprintf(body, sizeof(body), "[\"%s\",\"zz\",\"%s\",\"%066d\"]", client.hex, visor.hex, 0);
    a = rig_request("POST", "/dmsg-discovery/entries/batch", NULL, body);
    assert_int_equal(a.status, 200);
    json_t *o = json_loads(a.body, 0, NULL);
    assert_int_equal(json_object_size(o), 2);
    assert_non_null(json_object_get(o, client.hex));
    json_decref(o);
    assert_true(rig_says(rig_request("POST", "/dmsg-discovery/entries/batch", NULL, "{}"), 400,
                         "bad input"));
    assert_true(
        rig_says(rig_request("POST", "/dmsg-discovery/entries/batch", NULL, "[1]"), 400, "bad"));
    snprintf(body, sizeof(body), "/dmsg-discovery/server/%s/clients", relay.hex);
    a = rig_get(body);
    assert_true(strstr(a.body, client.hex) != NULL && strstr(a.body, visor.hex) != NULL);
    snprintf(body, sizeof(body), "/dmsg-discovery/server/%s/clients", other.hex);
    assert_string_equal(rig_get(body).body, "null");
    assert_true(rig_says(rig_get("/dmsg-discovery/server/zz/clients"), 400, "bad input"));
    a = rig_get("/dmsg-discovery/servers/clients");
    snprintf(body, sizeof(body), "{\"%s\":[", relay.hex);
    assert_int_equal(strncmp(a.body, body, strlen(body)), 0);
    assert_true(rig_says(
        rig_request("POST", "/dmsg-discovery/entries", NULL, client_entry(&client, 1, NULL, "")),
        200, "iteration")); /* the seed's alias */
}

/* incident 51, §2.2 rule 2: members that are not known but signed survive as they are */
static void test_unknown_members(void **state)
{
    (void)state;
    struct signer s = signer_new();
    char canon[600], text[900], path[120];
    struct hash digest;
    struct sig sig;
    disc_start((struct disc_service_cfg){.generation = DISC_2026}, false);
    snprintf(canon, sizeof(canon),
             "{\"version\":\"9\",\"sequence\":1,\"timestamp\":%lld,\"static\":\"%s\",\"client\":{"
             "\"delegated_servers\":[],\"quality\":{\"a\":[1,2]}},\"later\":\"x\"}",
             (long long)rig.env.wall_ns, s.hex);
    crypto_sha256(&digest, canon, strlen(canon));
    assert_int_equal(crypto_sign_digest(&sig, &s.sk, &digest), 0);
    char hex[2 * SIG_BYTES + 1];
    for (size_t i = 0; i < SIG_BYTES; i++)
        snprintf(hex + 2 * i, 3, "%02x", sig.b[i]);
    snprintf(text, sizeof(text), "%.*s,\"signature\":\"%s\"}", (int)strlen(canon) - 1, canon, hex);
    assert_true(rig_says(disc_post(text), 200, "new entry"));
    snprintf(path, sizeof(path), "/dmsg-discovery/entry/%s", s.hex);
    assert_string_equal(rig_get(path).body, text);
}

/* incident 42: of many with the same number one is taken; the next number is taken then */
static void test_same_key_at_once(void **state)
{
    (void)state;
    struct signer s = signer_new();
    disc_start((struct disc_service_cfg){.generation = DISC_2026}, false);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    at.sin_port = htons((uint16_t)atoi(strrchr(service_addr(rig.service, 0), ':') + 1));
    int fd[20], taken = 0, refused = 0;
    char text[2000];
    assert_true(rig_says(disc_post(client_entry(&s, 0, NULL, "")), 200, "new"));
    const char *body = client_entry(&s, 1, NULL, "");
    for (int i = 0; i < 20; i++) {
        fd[i] = socket(AF_INET, SOCK_STREAM, 0);
        assert_int_equal(connect(fd[i], (struct sockaddr *)&at, sizeof(at)), 0);
        int n = snprintf(text, sizeof(text),
                         "POST /dmsg-discovery/entry/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                         "Content-Length: %zu\r\n\r\n%s",
                         strlen(body), body);
        assert_int_equal(send(fd[i], text, (size_t)n, 0), n);
    }
    for (int i = 0; i < 20; i++) {
        size_t n = 0;
        uint64_t end = drive_loop_now(rig.drive) + RIG_WAIT_NS;
        for (ssize_t k; (k = recv(fd[i], text + n, sizeof(text) - 1 - n, MSG_DONTWAIT)) != 0;) {
            n += k > 0 ? (size_t)k : 0;
            assert_true(drive_loop_now(rig.drive) < end);
            rig_turn();
        }
        text[n] = '\0';
        taken += strstr(text, " 200 ") != NULL;
        refused += strstr(text, "sequence field") != NULL;
        close(fd[i]);
    }
    assert_int_equal(taken, 1);
    assert_int_equal(refused, 19);
    assert_true(rig_says(disc_post(client_entry(&s, 2, NULL, "")), 200, "iteration"));
}

static bool is_gone(void *path)
{
    return rig_get(path).status == 404;
}

/* incident 44: what has a life ends, with its place in the sets, also over a restart */
static void test_entries_expire(void **state)
{
    (void)state;
    struct signer s = signer_new(), forever = signer_new();
    char path[120];
    disc_start((struct disc_service_cfg){.generation = DISC_2026, .client_ttl_ms = 1200}, false);
    assert_true(rig_says(disc_post(client_entry(&s, 0, NULL, "")), 200, "new"));
    assert_int_equal(disc_post(client_entry(&s, 1, NULL, "")).status, 200);
    snprintf(path, sizeof(path), "/dmsg-discovery/entry/%s", s.hex);
    rig_stop();
    disc_start((struct disc_service_cfg){.generation = DISC_2026, .client_ttl_ms = 0}, false);
    assert_true(rig_says(disc_post(client_entry(&forever, 0, NULL, "")), 200, "new"));
    rig_wait(is_gone, path);
    assert_true(rig_says(disc_post(client_entry(&s, 0, NULL, "")), 200, "wrote a new entry"));
    snprintf(path, sizeof(path), "/dmsg-discovery/entry/%s", forever.hex);
    assert_int_equal(rig_get(path).status, 200);
}

/* 512 of them, and all */
static void test_many_servers(void **state)
{
    (void)state;
    enum { N = 520 };
    disc_start((struct disc_service_cfg){.generation = DISC_2026}, false);
    for (int i = 0; i < N; i++) {
        struct signer s = signer_new();
        char addr[40];
        snprintf(addr, sizeof(addr), "203.0.113.1:%d", i + 1);
        assert_int_equal(disc_post(server_entry(&s, 0, addr, i + 1, "")).status, 200);
    }
    json_t *l = json_loads(rig_get("/dmsg-discovery/available_servers").body, 0, NULL);
    assert_int_equal(json_array_size(l), 512);
    long long last = 1000000;
    size_t i;
    json_t *v;
    json_array_foreach(l, i, v)
    {
        long long n = vec_int(vec_get(v, "server"), "availableSessions");
        assert_true(n < last);
        last = n;
    }
    json_decref(l);
    l = json_loads(rig_get("/dmsg-discovery/all_servers").body, 0, NULL);
    assert_int_equal(json_array_size(l), N);
    json_decref(l);
}

static void test_bad_input(void **state)
{
    (void)state;
    struct signer s = signer_new();
    static char text[1200000];
    disc_start((struct disc_service_cfg){.generation = DISC_2026}, false);
    assert_true(
        rig_says(rig_get("/dmsg-discovery/entry/02ffffffffffffffffffffffffffffffffffffffffffffffff"
                         "ffffffffffffffff"),
                 400, "error bad input"));
    memset(text, ' ', 1048577);
    text[1048577] = '\0';
    assert_true(rig_says(disc_post(text), 413, "Request Entity Too Large"));
    snprintf(text, sizeof(text), "%.*s,\"pad\":\"%070000d\"}",
             (int)strlen(client_entry(&s, 0, NULL, "")) - 1, client_entry(&s, 0, NULL, ""), 0);
    assert_true(rig_says(disc_post(text), 413, "Request Entity Too Large"));
    memset(text, '[', 100000);
    text[100000] = '\0';
    assert_int_equal(disc_post(text).status, 500);
    assert_int_equal(disc_post("\"x\"").status, 500);
    assert_int_equal(disc_post("{}").status, 422);
    assert_true(rig_says(disc_post(server_entry(&s, 0, "127.1.2.3:1", 1, "")), 422, "localhost"));
    assert_true(
        rig_says(disc_post(server_entry(&s, 0, "[::ffff:127.0.0.1]:1", 1, "")), 422, "localhost"));
    assert_true(rig_says(disc_post(server_entry(&s, 0, "1:2:3", 1, "")), 200, "new"));
}

/* incident 50: nothing is kept that its subject did not sign, whoever sends it */
static void test_only_what_is_signed(void **state)
{
    (void)state;
    struct signer s = signer_new(), other = signer_new();
    char text[2000], path[120];
    disc_start((struct disc_service_cfg){.generation = DISC_2026}, false);
    snprintf(text, sizeof(text), "%s", client_entry(&s, 0, NULL, ""));
    char *sig = strstr(text, ",\"signature\":");
    assert_non_null(sig);
    strcpy(sig, "}");
    assert_true(rig_says(disc_post(text), 422, "entry has no signature"));
    struct signer forged = s; /* the key of one, signed by another */
    forged.sk = other.sk;
    assert_true(rig_says(disc_post(client_entry(&forged, 0, NULL, "")), 401, "invalid signature"));
    assert_true(rig_says(
        rig_request("DELETE", "/dmsg-discovery/entry", NULL, client_entry(&forged, 0, NULL, "")),
        401, "invalid signature"));
    snprintf(path, sizeof(path), "/dmsg-discovery/entry/%s", s.hex);
    assert_int_equal(rig_get(path).status, 404);
    assert_string_equal(rig_get("/dmsg-discovery/entries").body, "[]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_later_generations, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(test_unknown_members, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(test_same_key_at_once, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(test_entries_expire, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(test_many_servers, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(test_bad_input, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(test_only_what_is_signed, rig_setup, rig_teardown),
    };
    return crypto_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
