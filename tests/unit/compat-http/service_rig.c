#include "tests/unit/compat-http/service_rig.h"

#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

struct service_rig rig;

void rig_turn(void)
{
    event_base_loop(drive_loop_base(rig.drive), EVLOOP_NONBLOCK);
    usleep(100);
}

static void on_redis(void *arg, int err, const char *why)
{
    (void)arg, (void)why;
    rig.redis_ready = err == 0;
    if (err == 0 && rig.app_free != NULL && rig.store_back != NULL)
        rig.store_back();
}

void rig_open_store(bool with_redis)
{
    char url[64], why[300];
    struct kv_open_cfg cfg = {.drive = rig.drive,
                              .env = &rig.env.env,
                              .dir = tmpdir_file(&rig.dir, "kv"),
                              .state = on_redis};
    if (with_redis) {
        if (redis_rig.pid == 0)
            redis_start();
        if (!rig.keep_redis) {
            redisReply *r = redisCommand(redis_rig.eyes, "FLUSHALL");
            assert_non_null(r);
            freeReplyObject(r);
        }
        rig.keep_redis = false;
        snprintf(url, sizeof(url), "redis://127.0.0.1:%d", redis_rig.port);
        cfg.redis = url;
        rig.redis_ready = false;
    }
    if (kv_open(&rig.store, &cfg, why, sizeof(why)) < 0)
        fail_msg("%s", why);
    for (int i = 0; with_redis && !rig.redis_ready && i < 200000; i++)
        rig_turn();
}

void rig_serve(const struct service_route *routes, size_t n, void *app,
               void (*dropped)(struct service_req *q))
{
    struct service_cfg s = {.drive = rig.drive,
                            .env = &rig.env.env,
                            .routes = routes,
                            .n_routes = n,
                            .app = app,
                            .dropped = dropped,
                            .header_ms = 30000,
                            .body_ms = 30000};
    assert_int_equal(service_new(&rig.service, &s), 0);
    assert_int_equal(service_listen(rig.service, "127.0.0.1:0"), 0);
}

void rig_stop(void)
{
    service_free(rig.service);
    if (rig.app_free != NULL)
        rig.app_free(rig.app);
    kv_open_close(&rig.store);
    rig.service = NULL;
    rig.app_free = NULL;
}

int rig_setup(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    env_test_init(&rig.env, 1);
    rig.drive = drive_loop_new(NULL);
    tmpdir_make(&rig.dir);
    return 0;
}

int rig_teardown(void **state)
{
    (void)state;
    rig_stop();
    redis_stop();
    redis_rig.port = 0;
    drive_loop_free(rig.drive);
    env_test_close(&rig.env);
    tmpdir_remove(&rig.dir);
    return 0;
}

struct answer rig_request(const char *method, const char *path, const json_t *headers,
                          const char *body)
{
    static char text[2 << 20];
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct answer a = {0};
    const char *name;
    json_t *v;
    at.sin_port = htons((uint16_t)atoi(strrchr(service_addr(rig.service, 0), ':') + 1));
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
        rig_turn();
    }
    size_t len = 0;
    uint64_t end = drive_loop_now(rig.drive) + RIG_WAIT_NS;
    for (;;) {
        ssize_t k = recv(fd, text + len, sizeof(text) - 1 - len, MSG_DONTWAIT);
        if (k == 0 || (k < 0 && errno != EAGAIN))
            break;
        len += k > 0 ? (size_t)k : 0;
        assert_true(drive_loop_now(rig.drive) < end);
        rig_turn();
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

struct answer rig_get(const char *path)
{
    return rig_request("GET", path, NULL, "");
}

bool rig_says(struct answer a, int status, const char *part)
{
    if (a.status == status && strstr(a.body, part) != NULL)
        return true;
    print_error("%d %s\n", a.status, a.body);
    return false;
}

void rig_wait(bool (*done)(void *arg), void *arg)
{
    uint64_t end = drive_loop_now(rig.drive) + RIG_WAIT_NS;
    while (!done(arg)) {
        assert_true(drive_loop_now(rig.drive) < end);
        rig_turn();
    }
}

struct signer signer_new(void)
{
    struct signer s;
    env_keypair(&rig.env.env, &s.sk, &s.pk);
    pubkey_hex(s.hex, &s.pk);
    return s;
}
