/*
 * The discovery against everything that was recorded of upstream's: status, body, headers that matter, and what is in Redis afterwards; on both stores. Times are the recorded
 * ones, so that the signatures are too.
 */
#include "compat-http/disc_service.h"

#include <arpa/inet.h>
#include <errno.h>
#include <hiredis/hiredis.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/env_test.h"
#include "base/err.h"
#include "compat-http/kv_open.h"
#include "tests/unit/node/tmpdir.h"
#include "tests/unit/vectors.h"

#define WAIT_NS (30 * NS_PER_S)

static struct drive_loop *drive;
static struct env_test env;
static struct kv_open store;
static struct disc_service *disc;
static struct service *service;
static struct tmpdir dir;
static pid_t redis_pid;
static int redis_port;
static redisContext *redis; /* the test's own eyes */
static bool redis_ready;

/* ---- processes and connections ---- */

static void turn(void)
{
    event_base_loop(drive_loop_base(drive), EVLOOP_NONBLOCK);
    usleep(100);
}

static int free_port(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(at);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &len), 0);
    close(fd);
    return ntohs(at.sin_port);
}

static void redis_start(void)
{
    char port[8];
    redis_port = redis_port != 0 ? redis_port : free_port();
    snprintf(port, sizeof(port), "%d", redis_port);
    redis_pid = fork();
    assert_true(redis_pid >= 0);
    if (redis_pid == 0) {
        if (freopen("/dev/null", "w", stdout) == NULL)
            _exit(1);
        execlp("redis-server", "redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "",
               "--appendonly", "no", (char *)NULL);
        _exit(127);
    }
    for (int i = 0; i < 300; i++) {
        redis = redisConnect("127.0.0.1", redis_port);
        if (redis != NULL && redis->err == 0)
            return;
        redisFree(redis);
        redis = NULL;
        usleep(100000);
    }
    fail_msg("redis-server does not start");
}

static void redis_stop(void)
{
    if (redis != NULL)
        redisFree(redis);
    redis = NULL;
    if (redis_pid > 0) {
        kill(redis_pid, SIGKILL);
        waitpid(redis_pid, NULL, 0);
    }
    redis_pid = 0;
}

static void on_redis(void *arg, int err, const char *why)
{
    (void)arg, (void)why;
    redis_ready = err == 0;
}

static void open_store(bool with_redis)
{
    char url[64], why[300];
    struct kv_open_cfg cfg = {
        .drive = drive, .env = &env.env, .dir = tmpdir_file(&dir, "kv"), .state = on_redis};
    if (with_redis) {
        if (redis_pid == 0)
            redis_start();
        redisReply *r = redisCommand(redis, "FLUSHALL");
        assert_non_null(r);
        freeReplyObject(r);
        snprintf(url, sizeof(url), "redis://127.0.0.1:%d", redis_port);
        cfg.redis = url;
        redis_ready = false;
    }
    if (kv_open(&store, &cfg, why, sizeof(why)) < 0)
        fail_msg("%s", why);
    for (int i = 0; with_redis && !redis_ready && i < 200000; i++)
        turn();
}

static void start(struct disc_service_cfg cfg, bool with_redis)
{
    open_store(with_redis);
    cfg.env = &env.env;
    cfg.loop = drive_loop_loop(drive);
    cfg.kv = store.kv;
    assert_int_equal(disc_service_new(&disc, &cfg), 0);
    struct service_cfg s = {.drive = drive,
                            .env = &env.env,
                            .routes = disc_service_routes,
                            .n_routes = disc_service_n_routes,
                            .app = disc,
                            .dropped = disc_service_dropped,
                            .header_ms = 30000,
                            .body_ms = 30000};
    assert_int_equal(service_new(&service, &s), 0);
    assert_int_equal(service_listen(service, "127.0.0.1:0"), 0);
}

static void stop(void)
{
    service_free(service);
    disc_service_free(disc);
    kv_open_close(&store);
    service = NULL;
    disc = NULL;
}

static int setup(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    env_test_init(&env, 1);
    drive = drive_loop_new(NULL);
    tmpdir_make(&dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    stop();
    redis_stop();
    redis_port = 0;
    drive_loop_free(drive);
    env_test_close(&env);
    tmpdir_remove(&dir);
    return 0;
}

struct answer {
    int status;
    char head[4096];
    char *body;
};

static struct answer request(const char *method, const char *path, const json_t *headers,
                             const char *body)
{
    static char text[2 << 20];
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct answer a = {0};
    const char *name;
    json_t *v;
    at.sin_port = htons((uint16_t)atoi(strrchr(service_addr(service, 0), ':') + 1));
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    int n = snprintf(text, sizeof(text), "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n",
                     method, path);
    json_object_foreach((json_t *)(uintptr_t)headers, name, v)
    {
        if (strcmp(name, "Content-Length") != 0)
            n += snprintf(text + n, sizeof(text) - (size_t)n, "%s: %s\r\n", name,
                          json_string_value(v));
    }
    n += snprintf(text + n, sizeof(text) - (size_t)n, "Content-Length: %zu\r\n\r\n%s", strlen(body),
                  body);
    for (int sent = 0; sent < n;) {
        ssize_t k = send(fd, text + sent, (size_t)(n - sent), MSG_DONTWAIT | MSG_NOSIGNAL);
        if (k < 0 && errno != EAGAIN)
            break;
        sent += k > 0 ? (int)k : 0;
        turn();
    }
    size_t len = 0;
    uint64_t end = drive_loop_now(drive) + WAIT_NS;
    for (;;) {
        ssize_t k = recv(fd, text + len, sizeof(text) - 1 - len, MSG_DONTWAIT);
        if (k == 0 || (k < 0 && errno != EAGAIN))
            break;
        len += k > 0 ? (size_t)k : 0;
        assert_true(drive_loop_now(drive) < end);
        turn();
    }
    close(fd);
    text[len] = '\0';
    a.body = strstr(text, "\r\n\r\n");
    assert_non_null(a.body);
    a.body += 4;
    snprintf(a.head, sizeof(a.head), "%.*s", (int)(a.body - text), text);
    a.status = atoi(text + 9);
    return a;
}

static struct answer post(const char *body)
{
    return request("POST", "/dmsg-discovery/entry/", NULL, body);
}

static struct answer get(const char *path)
{
    return request("GET", path, NULL, "");
}

/* ---- replaying ---- */

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
        return env.wall_ns;
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
    redisReply *t = redisCommand(redis, "TYPE %s", key), *r,
               *ttl = redisCommand(redis, "PTTL %s", key);
    assert_string_equal(t->str, vec_str(want, "type"));
    if (strcmp(t->str, "string") == 0) {
        r = redisCommand(redis, "GET %s", key);
        assert_string_equal(r->str, vec_str(want, "value"));
    } else {
        const json_t *members = vec_get(want, "members");
        size_t i;
        json_t *m;
        r = redisCommand(redis, "SMEMBERS %s", key);
        assert_int_equal(r->elements, json_array_size(members));
        json_array_foreach(members, i, m)
        {
            redisReply *is = redisCommand(redis, "SISMEMBER %s %s", key, json_string_value(m));
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
    if (redis == NULL || json_object_size(dump) == 0)
        return;
    redisReply *size = redisCommand(redis, "DBSIZE");
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
    env.wall_ns = time_of(name, body);
    struct answer a = request(vec_str(req, "method"), path, json_object_get(req, "headers"), body);
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
    start(cfg, with_redis);
    json_array_foreach(vec_get(root, list), i, v)
    {
        replay_one(v, with_redis);
    }
    stop();
}

static void replay_all(bool with_redis)
{
    json_t *root = vectors_load("discovery");
    const json_t *keys = vec_get(root, "keys");
    const char *monitors[] = {vec_str(vec_get(keys, "monitor"), "pk")};
    struct disc_service_cfg cfg = {.generation = DISC_2023, .monitors = monitors, .n_monitors = 1};
    replay(root, "transcripts_production_mode", cfg, with_redis);
    tmpdir_remove(&dir);
    tmpdir_make(&dir);
    struct disc_service_cfg test = {
        .generation = DISC_2023, .test_mode = true, .dmsg_address = "02…:80"};
    replay(root, "transcripts_test_mode", test, with_redis);
    tmpdir_remove(&dir);
    tmpdir_make(&dir);
    struct disc_service_cfg load = {.generation = DISC_2023, .load_testing = true};
    replay(root, "transcripts_load_testing", load, with_redis);
    tmpdir_remove(&dir);
    tmpdir_make(&dir);
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

/* ---- entries of our own ---- */

struct signer {
    struct seckey sk;
    struct pubkey pk;
    char hex[PUBKEY_HEX + 1];
};

static struct signer signer_new(void)
{
    struct signer s;
    env_keypair(&env.env, &s.sk, &s.pk);
    pubkey_hex(s.hex, &s.pk);
    return s;
}

static const char *finish(struct signer *s, struct entry *e)
{
    static char text[4096];
    struct hash digest;
    struct sig sig;
    assert_int_equal(entry_digest(&digest, e), 0);
    assert_int_equal(crypto_sign_digest(&sig, &s->sk, &digest), 0);
    assert_int_equal(entry_set_signature(e, &sig), 0);
    snprintf(text, sizeof(text), "%.*s", (int)e->text_len, e->text);
    entry_free(e);
    return text;
}

static const char *client_entry(struct signer *s, uint64_t seq, const struct pubkey *via,
                                const char *type)
{
    struct entry *e;
    assert_int_equal(entry_new_client(&e, &s->pk, seq, env.wall_ns, via, via != NULL, type), 0);
    return finish(s, e);
}

static const char *server_entry(struct signer *s, uint64_t seq, const char *addr, int64_t free_n,
                                const char *type)
{
    struct entry *e;
    assert_int_equal(entry_new_server(&e, &s->pk, seq, env.wall_ns, addr, free_n), 0);
    e->server.server_type = type;
    return finish(s, e);
}

static bool says(struct answer a, int status, const char *part)
{
    if (a.status == status && strstr(a.body, part) != NULL)
        return true;
    print_error("%d %s\n", a.status, a.body);
    return false;
}

/* The rows of 2024 and 2026. */
static void test_later_generations(void **state)
{
    (void)state;
    struct signer visor = signer_new(), client = signer_new(), relay = signer_new(),
                  other = signer_new();
    char body[600];
    start((struct disc_service_cfg){.generation = DISC_2026,
                                    .auth = "pass",
                                    .client_ttl_ms = 3600000},
          false);
    assert_true(says(post(client_entry(&visor, 0, &relay.pk, "visor")), 200, "new entry"));
    assert_true(says(post(client_entry(&client, 0, &relay.pk, "")), 200, "new entry"));
    assert_true(says(post(server_entry(&relay, 0, "203.0.113.1:1", 5, "pass")), 200, "new"));
    assert_true(says(post(server_entry(&other, 0, "203.0.113.2:1", 9, "nonsense")), 200, "new"));
    struct answer a = get("/dmsg-discovery/available_servers");
    const char *first = strstr(a.body, "\"serverType\":\"community\"");
    assert_true(first != NULL && first < strstr(a.body, "\"serverType\":\"official\""));
    assert_null(strstr(a.body, "pass"));
    a = get("/dmsg-discovery/visorEntries");
    snprintf(body, sizeof(body), "[\"%s\"]", visor.hex);
    assert_string_equal(a.body, body);
    snprintf(body, sizeof(body), "[\"%s\",\"zz\",\"%s\",\"%066d\"]", client.hex, visor.hex, 0);
    a = request("POST", "/dmsg-discovery/entries/batch", NULL, body);
    assert_int_equal(a.status, 200);
    json_t *o = json_loads(a.body, 0, NULL);
    assert_int_equal(json_object_size(o), 2);
    assert_non_null(json_object_get(o, client.hex));
    json_decref(o);
    assert_true(
        says(request("POST", "/dmsg-discovery/entries/batch", NULL, "{}"), 400, "bad input"));
    assert_true(says(request("POST", "/dmsg-discovery/entries/batch", NULL, "[1]"), 400, "bad"));
    snprintf(body, sizeof(body), "/dmsg-discovery/server/%s/clients", relay.hex);
    a = get(body);
    assert_true(strstr(a.body, client.hex) != NULL && strstr(a.body, visor.hex) != NULL);
    snprintf(body, sizeof(body), "/dmsg-discovery/server/%s/clients", other.hex);
    assert_string_equal(get(body).body, "null");
    assert_true(says(get("/dmsg-discovery/server/zz/clients"), 400, "bad input"));
    a = get("/dmsg-discovery/servers/clients");
    snprintf(body, sizeof(body), "{\"%s\":[", relay.hex);
    assert_int_equal(strncmp(a.body, body, strlen(body)), 0);
    assert_true(
        says(request("POST", "/dmsg-discovery/entries", NULL, client_entry(&client, 1, NULL, "")),
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
    start((struct disc_service_cfg){.generation = DISC_2026}, false);
    snprintf(canon, sizeof(canon),
             "{\"version\":\"9\",\"sequence\":1,\"timestamp\":%lld,\"static\":\"%s\",\"client\":{"
             "\"delegated_servers\":[],\"quality\":{\"a\":[1,2]}},\"later\":\"x\"}",
             (long long)env.wall_ns, s.hex);
    crypto_sha256(&digest, canon, strlen(canon));
    assert_int_equal(crypto_sign_digest(&sig, &s.sk, &digest), 0);
    char hex[2 * SIG_BYTES + 1];
    for (size_t i = 0; i < SIG_BYTES; i++)
        snprintf(hex + 2 * i, 3, "%02x", sig.b[i]);
    snprintf(text, sizeof(text), "%.*s,\"signature\":\"%s\"}", (int)strlen(canon) - 1, canon, hex);
    assert_true(says(post(text), 200, "new entry"));
    snprintf(path, sizeof(path), "/dmsg-discovery/entry/%s", s.hex);
    assert_string_equal(get(path).body, text);
}

/* incident 42: of many with the same number one is taken; the next number is taken then */
static void test_same_key_at_once(void **state)
{
    (void)state;
    struct signer s = signer_new();
    start((struct disc_service_cfg){.generation = DISC_2026}, false);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    at.sin_port = htons((uint16_t)atoi(strrchr(service_addr(service, 0), ':') + 1));
    int fd[20], taken = 0, refused = 0;
    char text[2000];
    assert_true(says(post(client_entry(&s, 0, NULL, "")), 200, "new"));
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
        uint64_t end = drive_loop_now(drive) + WAIT_NS;
        for (ssize_t k; (k = recv(fd[i], text + n, sizeof(text) - 1 - n, MSG_DONTWAIT)) != 0;) {
            n += k > 0 ? (size_t)k : 0;
            assert_true(drive_loop_now(drive) < end);
            turn();
        }
        text[n] = '\0';
        taken += strstr(text, " 200 ") != NULL;
        refused += strstr(text, "sequence field") != NULL;
        close(fd[i]);
    }
    assert_int_equal(taken, 1);
    assert_int_equal(refused, 19);
    assert_true(says(post(client_entry(&s, 2, NULL, "")), 200, "iteration"));
}

static void wait_until(bool (*done)(void *arg), void *arg)
{
    uint64_t end = drive_loop_now(drive) + WAIT_NS;
    while (!done(arg)) {
        assert_true(drive_loop_now(drive) < end);
        turn();
    }
}

static bool is_gone(void *path)
{
    return get(path).status == 404;
}

/* incident 44: what has a life ends, with its place in the sets, also over a restart */
static void test_entries_expire(void **state)
{
    (void)state;
    struct signer s = signer_new(), forever = signer_new();
    char path[120];
    start((struct disc_service_cfg){.generation = DISC_2026, .client_ttl_ms = 1200}, false);
    assert_true(says(post(client_entry(&s, 0, NULL, "")), 200, "new"));
    assert_int_equal(post(client_entry(&s, 1, NULL, "")).status, 200);
    snprintf(path, sizeof(path), "/dmsg-discovery/entry/%s", s.hex);
    stop();
    start((struct disc_service_cfg){.generation = DISC_2026, .client_ttl_ms = 0}, false);
    assert_true(says(post(client_entry(&forever, 0, NULL, "")), 200, "new"));
    wait_until(is_gone, path);
    assert_true(says(post(client_entry(&s, 0, NULL, "")), 200, "wrote a new entry"));
    snprintf(path, sizeof(path), "/dmsg-discovery/entry/%s", forever.hex);
    assert_int_equal(get(path).status, 200);
}

/* 512 of them, and all */
static void test_many_servers(void **state)
{
    (void)state;
    enum { N = 520 };
    start((struct disc_service_cfg){.generation = DISC_2026}, false);
    for (int i = 0; i < N; i++) {
        struct signer s = signer_new();
        char addr[40];
        snprintf(addr, sizeof(addr), "203.0.113.1:%d", i + 1);
        assert_int_equal(post(server_entry(&s, 0, addr, i + 1, "")).status, 200);
    }
    json_t *l = json_loads(get("/dmsg-discovery/available_servers").body, 0, NULL);
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
    l = json_loads(get("/dmsg-discovery/all_servers").body, 0, NULL);
    assert_int_equal(json_array_size(l), N);
    json_decref(l);
}

static void test_bad_input(void **state)
{
    (void)state;
    struct signer s = signer_new();
    static char text[1200000];
    start((struct disc_service_cfg){.generation = DISC_2026}, false);
    assert_true(says(get("/dmsg-discovery/entry/02ffffffffffffffffffffffffffffffffffffffffffffffff"
                         "ffffffffffffffff"),
                     400, "error bad input"));
    memset(text, ' ', 1048577);
    text[1048577] = '\0';
    assert_true(says(post(text), 413, "Request Entity Too Large"));
    snprintf(text, sizeof(text), "%.*s,\"pad\":\"%070000d\"}",
             (int)strlen(client_entry(&s, 0, NULL, "")) - 1, client_entry(&s, 0, NULL, ""), 0);
    assert_true(says(post(text), 413, "Request Entity Too Large"));
    memset(text, '[', 100000);
    text[100000] = '\0';
    assert_int_equal(post(text).status, 500);
    assert_int_equal(post("\"x\"").status, 500);
    assert_int_equal(post("{}").status, 422);
    assert_true(says(post(server_entry(&s, 0, "127.1.2.3:1", 1, "")), 422, "localhost"));
    assert_true(says(post(server_entry(&s, 0, "[::ffff:127.0.0.1]:1", 1, "")), 422, "localhost"));
    assert_true(says(post(server_entry(&s, 0, "1:2:3", 1, "")), 200, "new"));
}

/* incident 50: nothing is kept that its subject did not sign, whoever sends it */
static void test_only_what_is_signed(void **state)
{
    (void)state;
    struct signer s = signer_new(), other = signer_new();
    char text[2000], path[120];
    start((struct disc_service_cfg){.generation = DISC_2026}, false);
    snprintf(text, sizeof(text), "%s", client_entry(&s, 0, NULL, ""));
    char *sig = strstr(text, ",\"signature\":");
    assert_non_null(sig);
    strcpy(sig, "}");
    assert_true(says(post(text), 422, "entry has no signature"));
    struct signer forged = s; /* the key of one, signed by another */
    forged.sk = other.sk;
    assert_true(says(post(client_entry(&forged, 0, NULL, "")), 401, "invalid signature"));
    assert_true(
        says(request("DELETE", "/dmsg-discovery/entry", NULL, client_entry(&forged, 0, NULL, "")),
             401, "invalid signature"));
    snprintf(path, sizeof(path), "/dmsg-discovery/entry/%s", s.hex);
    assert_int_equal(get(path).status, 404);
    assert_string_equal(get("/dmsg-discovery/entries").body, "[]");
}

/* ---- Redis comes and goes ---- */

static bool is_ready(void *arg)
{
    (void)arg;
    return redis_ready;
}

/* The connection is cut in the middle of a burst: what was answered 200 is there; nothing waits for ever. */
static void test_redis_connection_lost(void **state)
{
    (void)state;
    struct signer s[40];
    bool taken[40];
    start((struct disc_service_cfg){.generation = DISC_2023}, true);
    for (int i = 0; i < 40; i++) {
        s[i] = signer_new();
        if (i % 10 == 5) {
            redisReply *r = redisCommand(redis, "CLIENT KILL TYPE normal SKIPME yes");
            assert_non_null(r);
            freeReplyObject(r);
        }
        struct answer a = post(client_entry(&s[i], 0, NULL, ""));
        taken[i] = a.status == 200;
        assert_true(taken[i] || says(a, 500, "something unexpected happened"));
    }
    wait_until(is_ready, NULL);
    int n = 0;
    for (int i = 0; i < 40; i++) {
        char path[120];
        snprintf(path, sizeof(path), "/dmsg-discovery/entry/%s", s[i].hex);
        if (taken[i])
            assert_int_equal(get(path).status, 200);
        n += taken[i];
    }
    assert_true(n >= 36); /* and most were sent again on the next connection */
}

/* Redis is away: requests are refused after a while; it is back: they work, without a restart. */
static void test_redis_away(void **state)
{
    (void)state;
    struct signer s = signer_new();
    start((struct disc_service_cfg){.generation = DISC_2023}, true);
    assert_int_equal(post(client_entry(&s, 0, NULL, "")).status, 200);
    redis_stop();
    assert_true(says(post(client_entry(&s, 1, NULL, "")), 500, "unexpected"));
    assert_int_equal(get("/dmsg-discovery/entries").status, 500);
    assert_int_equal(get("/health").status, 200);
    redis_start();
    wait_until(is_ready, NULL);
    assert_int_equal(post(client_entry(&s, 2, NULL, "")).status, 200);
}

/* maxmemory with noeviction: refused, what is there stays and is served */
static void test_redis_full(void **state)
{
    (void)state;
    struct signer a = signer_new(), b = signer_new();
    char path[120];
    start((struct disc_service_cfg){.generation = DISC_2023}, true);
    assert_int_equal(post(client_entry(&a, 0, NULL, "")).status, 200);
    freeReplyObject(redisCommand(redis, "CONFIG SET maxmemory-policy noeviction"));
    freeReplyObject(redisCommand(redis, "CONFIG SET maxmemory 1"));
    assert_true(says(post(client_entry(&b, 0, NULL, "")), 500, "unexpected"));
    snprintf(path, sizeof(path), "/dmsg-discovery/entry/%s", a.hex);
    assert_int_equal(get(path).status, 200);
    snprintf(path, sizeof(path), "/dmsg-discovery/entry/%s", b.hex);
    assert_int_equal(get(path).status, 404);
    assert_string_equal(get("/dmsg-discovery/entries").body + 69, "]"); /* one key */
    freeReplyObject(redisCommand(redis, "CONFIG SET maxmemory 0"));
    assert_int_equal(post(client_entry(&b, 0, NULL, "")).status, 200);
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
    freeReplyObject(redisCommand(redis, "CONFIG SET requirepass right"));
    snprintf(url, sizeof(url), "redis://:wrong@127.0.0.1:%d/2", redis_port);
    struct kv_redis_cfg cfg = {.drive = drive, .env = &env.env, .url = url, .state = on_password};
    static const struct {
        const char *password;
        int err;
    } cases[] = {{NULL, ERR_REFUSED}, {"right", 1}, {"other", ERR_REFUSED}};
    for (size_t i = 0; i < 3; i++) {
        cfg.password = cases[i].password;
        password_err = 0;
        drive_loop_now(drive);
        assert_int_equal(kv_redis_open(&kv, &cfg), 0);
        for (int k = 0; k < 200000 && password_err == 0; k++)
            turn();
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
        cmocka_unit_test_setup_teardown(test_transcripts_redis, setup, teardown),
        cmocka_unit_test_setup_teardown(test_transcripts_lmdb, setup, teardown),
        cmocka_unit_test_setup_teardown(test_later_generations, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unknown_members, setup, teardown),
        cmocka_unit_test_setup_teardown(test_same_key_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_entries_expire, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_servers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_input, setup, teardown),
        cmocka_unit_test_setup_teardown(test_only_what_is_signed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_redis_connection_lost, setup, teardown),
        cmocka_unit_test_setup_teardown(test_redis_away, setup, teardown),
        cmocka_unit_test_setup_teardown(test_redis_full, setup, teardown),
        cmocka_unit_test_setup_teardown(test_redis_password, setup, teardown),
    };
    return crypto_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
