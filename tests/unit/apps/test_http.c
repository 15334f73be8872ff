/*
 * The file server through socketpairs in place of streams, with the exchanges that were recorded from a Go server.
 */
#include "apps/http.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "tests/unit/node/tmpdir.h"
#include "tests/unit/vectors.h"

#define ANSWER_MS 10000

static struct tmpdir dir;
static struct http *server;
static struct http_cfg cfg;
static struct pubkey keys[2];
static volatile sig_atomic_t stop;
static char answer[1 << 20];

static int setup(void **state)
{
    (void)state;
    struct seckey sk = {.b = {[31] = 1}};
    signal(SIGPIPE, SIG_IGN);
    if (crypto_init() < 0 || seckey_pubkey(&keys[0], &sk) < 0)
        return -1;
    sk.b[31] = 2;
    if (seckey_pubkey(&keys[1], &sk) < 0)
        return -1;
    tmpdir_make(&dir);
    tmpdir_write(&dir, "a.txt", "0123456789", 0644);
    tmpdir_write(&dir, "b.html", "<p>hello</p>\n", 0644);
    tmpdir_write(&dir, "noext", "plain text here", 0644);
    mkdir(tmpdir_file(&dir, "sub"), 0755);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    tmpdir_remove(&dir);
    return 0;
}

static void start(void)
{
    cfg.dir = dir.path;
    cfg.stop = &stop;
    assert_int_equal(http_new(&server, &cfg), 0);
}

static void end(void)
{
    http_free(server);
    server = NULL;
    memset(&cfg, 0, sizeof(cfg));
}

static int call(const struct pubkey *pk)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    (void)http_add(server, fds[0], pk, 49153);
    return fds[1];
}

/* Everything until the server closes, or until n bytes of a body came behind the headers. */
static size_t hear(int fd, size_t body)
{
    size_t n = 0;
    for (;;) {
        struct pollfd p = {fd, POLLIN, 0};
        answer[n] = '\0';
        const char *blank = strstr(answer, "\r\n\r\n");
        if (blank != NULL && n - (size_t)(blank + 4 - answer) >= body)
            return n;
        assert_int_equal(poll(&p, 1, ANSWER_MS), 1);
        ssize_t got = read(fd, answer + n, sizeof(answer) - 1 - n);
        if (got <= 0)
            return n;
        n += (size_t)got;
    }
}

static const char *ask(int fd, const char *request, size_t body)
{
    assert_int_equal(send(fd, request, strlen(request), MSG_NOSIGNAL), strlen(request));
    (void)hear(fd, body);
    return answer;
}

/* Value of a header, "" when it is not there. */
static const char *value(const char *text, const char *name)
{
    static char out[256];
    char key[64];
    snprintf(key, sizeof(key), "\r\n%s: ", name);
    const char *p = strstr(text, key);
    out[0] = '\0';
    if (p != NULL)
        snprintf(out, sizeof(out), "%.*s", (int)strcspn(p + strlen(key), "\r"), p + strlen(key));
    return out;
}

static const char *body_of(const char *text)
{
    const char *p = strstr(text, "\r\n\r\n");
    return p != NULL ? p + 4 : "";
}

/* Where we differ on purpose: better types, a real page for a directory, texts of redirects and of the library's own refusals. */
static bool differs(const char *request)
{
    return strncmp(request, "GET / ", 6) == 0 || strncmp(request, "GARBAGE", 7) == 0;
}

static void check_exchange(const char *request, const char *expected)
{
    static const char *const same[] = {"Accept-Ranges", "Content-Range", "Location",
                                       "X-Content-Type-Options"};
    char theirs[256];
    bool head = strncmp(request, "HEAD", 4) == 0;
    bool ours_text = strstr(expected, " 301 ") != NULL || strstr(expected, " 400 ") != NULL;
    const char *body = body_of(expected);
    int fd = call(&keys[0]);
    const char *got = ask(fd, request, head || ours_text ? 0 : strlen(body));
    if (strncmp(got + 9, expected + 9, 3) != 0)
        fail_msg("%s answered:\n%s", request, got);
    for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++) {
        snprintf(theirs, sizeof(theirs), "%s", value(expected, same[i]));
        assert_string_equal(value(got, same[i]), theirs);
    }
    if (!ours_text) {
        snprintf(theirs, sizeof(theirs), "%s", value(expected, "Content-Length"));
        assert_string_equal(value(got, "Content-Length"), theirs);
        assert_string_equal(body_of(got), head ? "" : body);
        snprintf(theirs, sizeof(theirs), "%s", value(expected, "Content-Type"));
        assert_string_equal(value(got, "Content-Type"),
                            theirs[0] != '\0' ? theirs : "application/octet-stream");
    }
    close(fd);
}

static void test_recorded(void **state)
{
    (void)state;
    json_t *root = vectors_load("apps"), *v;
    const json_t *all = vec_get(root, "dmsg_http");
    size_t i, checked = 0;
    start();
    json_array_foreach(vec_get(all, "dmsghttp_server_exchanges"), i, v)
    {
        if (differs(vec_str(v, "request")))
            continue;
        check_exchange(vec_str(v, "request"), vec_str(v, "response"));
        checked++;
    }
    assert_int_equal(checked, 8);
    end();
    struct whitelist wl = {.v = &keys[1], .n = 1};
    cfg.whitelist = &wl;
    start();
    v = json_array_get(vec_get(all, "dmsghttp_not_whitelisted"), 0);
    check_exchange(vec_str(v, "request"), vec_str(v, "response"));
    int fd = call(&keys[1]);
    assert_string_equal(body_of(ask(fd, "GET /a.txt HTTP/1.1\r\nHost: x\r\n\r\n", 10)),
                        "0123456789");
    close(fd);
    end();
    json_decref(root);
}

static void test_keep_alive_and_pieces(void **state)
{
    (void)state;
    static const char request[] = "GET /a.txt HTTP/1.1\r\nHost: x\r\n\r\n";
    start();
    int fd = call(&keys[0]);
    for (int i = 0; i < 3; i++)
        assert_string_equal(body_of(ask(fd, request, 10)), "0123456789");
    for (size_t i = 0; i + 1 < sizeof(request); i++)
        assert_int_equal(send(fd, request + i, 1, MSG_NOSIGNAL), 1);
    (void)hear(fd, 10);
    assert_string_equal(body_of(answer), "0123456789");
    close(fd);
    end();
}

static void test_log(void **state)
{
    (void)state;
    char *text = NULL, pk[PUBKEY_HEX + 1], expected[200];
    size_t n = 0;
    FILE *log = open_memstream(&text, &n);
    cfg.log = log;
    start();
    int fd = call(&keys[0]);
    (void)ask(fd, "GET /a.txt?\"x\x7f HTTP/1.1\r\nHost: x\r\n\r\n", 10);
    close(fd);
    end();
    fclose(log);
    snprintf(expected, sizeof(expected), "%s:49153 - - [", pubkey_hex(pk, &keys[0]));
    assert_int_equal(strncmp(text, expected, strlen(expected)), 0);
    assert_non_null(strstr(text, "] \"GET /a.txt?\\x22x\\x7f HTTP/1.1\" 200 10\n"));
    free(text);
}

static void test_refused_paths(void **state)
{
    (void)state;
    static const char *const paths[] = {"/..", "/../x", "/%2e%2e/x", "/a%2fb", "/%00", "/%"};
    char request[100];
    start();
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        int fd = call(&keys[0]);
        snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", paths[i]);
        assert_string_equal(body_of(ask(fd, request, 12)), "Bad Request\n");
        close(fd);
    }
    assert_int_equal(symlink("/etc", tmpdir_file(&dir, "out")), 0);
    int fd = call(&keys[0]);
    assert_string_equal(body_of(ask(fd, "GET /out/passwd HTTP/1.1\r\nHost: x\r\n\r\n", 10)),
                        "Not Found\n");
    close(fd);
    fd = call(&keys[0]);
    (void)ask(fd, "GET /sub HTTP/1.1\r\nHost: x\r\n\r\n", 10);
    assert_string_equal(value(answer, "Location"), "/sub/");
    close(fd);
    end();
}

static void test_directory_that_is_none(void **state)
{
    (void)state;
    char path[300];
    snprintf(path, sizeof(path), "%s/a.txt", dir.path);
    cfg.dir = path;
    assert_int_equal(http_new(&server, &cfg), -ENOTDIR);
    cfg.dir = "/nonexistent";
    assert_int_equal(http_new(&server, &cfg), -ENOENT);
    assert_null(server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_recorded),
        cmocka_unit_test(test_keep_alive_and_pieces),
        cmocka_unit_test(test_log),
        cmocka_unit_test(test_refused_paths),
        cmocka_unit_test(test_directory_that_is_none),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
