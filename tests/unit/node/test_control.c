/*
 * The control socket: a real one, a loop that the test turns itself, clients with plain sockets.
 */
#include "node/control.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/crypto.h"
#include "base/err.h"
#include "base/log.h"
#include "node/paths.h"
#include "tests/unit/node/tmpdir.h"
#include "tests/unit/vectors.h"

static struct tmpdir dir;
static struct drive_loop *drive;
static struct control *ctl;
static char path[PATHS_MAX];

/* ---- commands for the test ---- */

static struct ctl_req *kept[CONTROL_REQS + 8]; /* answered later */
static size_t n_kept, n_gone;
static unsigned rows_left;
static size_t rows_sent;

static void cmd_echo(struct ctl_req *req)
{
    ctl_ok(req, json_pack("{s:O}", "args", req->args), -1);
}

static void cmd_fail(struct ctl_req *req)
{
    ctl_fail(req, ERR_NOT_FOUND, "no \"%.10s\"", ctl_arg_str(req, "what", ""));
}

static void keep_gone(struct ctl_req *req)
{
    for (size_t i = 0; i < n_kept; i++)
        if (kept[i] == req)
            kept[i] = NULL;
    n_gone++;
}

static void cmd_keep(struct ctl_req *req)
{
    req->gone = keep_gone;
    kept[n_kept++] = req;
}

static void cmd_timed(struct ctl_req *req)
{
    unsigned ms;
    if (ctl_arg_timeout(req, &ms) < 0)
        return;
    ctl_set_timeout(req, ms);
    cmd_keep(req);
}

static void cmd_fd(struct ctl_req *req)
{
    int fds[2];
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    assert_int_equal(write(fds[1], "through", 7), 7);
    close(fds[1]);
    ctl_ok(req, NULL, fds[0]);
}

static void more_rows(struct ctl_req *req)
{
    while (rows_left > 0 && ctl_row_room(req)) {
        rows_left--;
        rows_sent++;
        ctl_row(req, json_pack("{s:i, s:s}", "left", (int)rows_left, "pad",
                               "0123456789012345678901234567890123456789"));
    }
    if (rows_left == 0)
        ctl_ok(req, NULL, -1);
}

static void cmd_rows(struct ctl_req *req)
{
    rows_sent = 0;
    req->room = more_rows;
    more_rows(req);
}

static void cmd_args(struct ctl_req *req)
{
    struct pubkey pk;
    json_int_t n;
    unsigned ms;
    if (ctl_arg_pubkey(req, "pk", &pk) < 0 || ctl_arg_range(req, "n", 1, 9, 5, &n) < 0 ||
        ctl_arg_timeout(req, &ms) < 0)
        return;
    ctl_ok(req, json_pack("{s:I, s:i}", "n", n, "ms", (int)ms), -1);
}

static void cmd_big(struct ctl_req *req)
{
    static char text[CONTROL_PACKET + 1];
    memset(text, 'x', CONTROL_PACKET);
    ctl_ok(req, json_pack("{s:s}", "text", text), -1);
}

static const struct ctl_cmd cmds[] = {{"echo", cmd_echo}, {"fail", cmd_fail},   {"keep", cmd_keep},
                                      {"fd", cmd_fd},     {"rows", cmd_rows},   {"args", cmd_args},
                                      {"big", cmd_big},   {"timed", cmd_timed}, {NULL, NULL}};

/* ---- the test's side ---- */

static int setup(void **state)
{
    char why[64];
    (void)state;
    assert_int_equal(crypto_init(), 0);
    assert_int_equal(log_set_levels("error", why, sizeof why), 0);
    tmpdir_make(&dir);
    assert_int_equal(paths_control(path), 0);
    drive = drive_loop_new(NULL);
    assert_int_equal(control_new(&ctl, drive, path, cmds, NULL), 0);
    n_kept = n_gone = 0;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    control_free(ctl);
    drive_loop_free(drive);
    tmpdir_remove(&dir);
    return 0;
}

static void turn(void)
{
    for (int i = 0; i < 20; i++)
        event_base_loop(drive_loop_base(drive), EVLOOP_NONBLOCK);
}

static int connect_raw(void)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    strcpy(sa.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int room = 2 * CONTROL_PACKET;
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room), 0);
    if (connect(fd, (struct sockaddr *)&sa, sizeof sa) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static int client(void)
{
    int fd = connect_raw();
    assert_true(fd >= 0);
    turn();
    return fd;
}

static void say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
    turn();
}

/* The next packet, or NULL when there is none; *closed when there never will be. */
static json_t *hear(int fd, bool *closed, int *got_fd)
{
    static char text[CONTROL_PACKET + 1];
    union {
        char buf[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } u;
    struct iovec iov = {text, sizeof text};
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = u.buf, .msg_controllen = sizeof u.buf};
    ssize_t n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
    if (closed != NULL)
        *closed = n == 0 || (n < 0 && errno != EAGAIN);
    if (got_fd != NULL) {
        struct cmsghdr *cm = n > 0 ? CMSG_FIRSTHDR(&msg) : NULL;
        *got_fd = -1;
        if (cm != NULL)
            memcpy(got_fd, CMSG_DATA(cm), sizeof(int));
    }
    if (n <= 0)
        return NULL;
    json_t *o = json_loadb(text, (size_t)n, 0, NULL);
    assert_non_null(o);
    return o;
}

/* One request, one answer. */
static json_t *ask(int fd, const char *text)
{
    say(fd, text);
    json_t *o = hear(fd, NULL, NULL);
    assert_non_null(o);
    return o;
}

static bool is_closed(int fd)
{
    bool closed = false;
    turn();
    json_t *o;
    while ((o = hear(fd, &closed, NULL)) != NULL)
        json_decref(o);
    return closed;
}

static void assert_str(const json_t *o, const char *name, const char *want)
{
    assert_string_equal(json_string_value(json_object_get(o, name)), want);
}

static long long num(const json_t *o, const char *name)
{
    assert_true(json_is_integer(json_object_get(o, name)));
    return json_integer_value(json_object_get(o, name));
}

static struct control_stat stat_now(void)
{
    struct control_stat st;
    control_stat(ctl, &st);
    return st;
}

/* ---- requests ---- */

static void test_answers(void **state)
{
    (void)state;
    int fd = client();
    json_t *o = ask(fd, "{\"id\": 7, \"cmd\": \"echo\", \"x\": [1]}");
    assert_int_equal(num(o, "id"), 7);
    assert_true(json_is_true(json_object_get(o, "ok")));
    assert_int_equal(json_array_size(json_object_get(json_object_get(o, "args"), "x")), 1);
    json_decref(o);
    o = ask(fd, "{\"id\": 8, \"cmd\": \"fail\", \"what\": \"thing\"}");
    assert_true(json_is_false(json_object_get(o, "ok")));
    assert_str(o, "error", "no \"thing\"");
    assert_int_equal(num(o, "exit"), 3);
    json_decref(o);
    o = ask(fd, "{\"id\": 9, \"cmd\": \"no such\"}");
    assert_str(o, "error", "this node does not know the command \"no such\"");
    json_decref(o);
    o = ask(fd, "{}");
    assert_true(json_is_false(json_object_get(o, "ok")));
    json_decref(o);
    close(fd);
    turn();
    assert_int_equal(stat_now().conns, 0);
}

/* Cut in the middle of a character, what is quoted is still an answer. */
static void test_quoted_text_is_cut_well(void **state)
{
    (void)state;
    int fd = client();
    json_t *o = ask(fd, "{\"cmd\": \"fail\", \"what\": \"123456789\xc3\xa4\"}");
    assert_str(o, "error", "no \"123456789?\"");
    json_decref(o);
    close(fd);
}

static void test_arguments(void **state)
{
    static const char pk[] = "02a49bc0aa1b5b78f638e9189be4ed095bac5d6839c828465a8350f80ac07629c0";
    static const struct {
        const char *more, *error;
    } bad[] = {{"\"n\": 0", "n: not a number from 1 to 9"},
               {"\"n\": 10", "n: not a number from 1 to 9"},
               {"\"n\": -9223372036854775808", "n: not a number from 1 to 9"},
               {"\"n\": \"5\"", "n: not a number from 1 to 9"},
               {"\"n\": 5.5", "n: not a number from 1 to 9"},
               {"\"n\": null", "n: not a number from 1 to 9"},
               {"\"timeout_ms\": -1", "timeout_ms: not a number from 1 to 86400000"},
               {"\"timeout_ms\": 0", "timeout_ms: not a number from 1 to 86400000"},
               {"\"timeout_ms\": 4294967297", "timeout_ms: not a number from 1 to 86400000"}};
    char text[512];
    (void)state;
    int fd = client();
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        snprintf(text, sizeof text, "{\"cmd\": \"args\", \"pk\": \"%s\", %s}", pk, bad[i].more);
        json_t *o = ask(fd, text);
        assert_str(o, "error", bad[i].error);
        assert_int_equal(num(o, "exit"), 2);
        json_decref(o);
    }
    json_t *o = ask(fd, "{\"cmd\": \"args\", \"pk\": \"zz\"}");
    assert_str(o, "error", "pk: not a public key: \"zz\"");
    json_decref(o);
    o = ask(fd, "{\"cmd\": \"args\", \"pk\": 5}");
    assert_str(o, "error", "pk: not a public key: \"\"");
    json_decref(o);
    snprintf(text, sizeof text, "{\"cmd\": \"args\", \"pk\": \"%s\", \"n\": 9}", pk);
    o = ask(fd, text);
    assert_int_equal(num(o, "n"), 9);
    assert_int_equal(num(o, "ms"), 20000);
    json_decref(o);
    close(fd);
}

static void test_packets_that_are_no_request(void **state)
{
    static const char *const bad[] = {"x",     "[]",  "5", "{", "{\"id\": 1, \"id\": 2}",
                                      "{} {}", "\xff"};
    (void)state;
    int good = client();
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        int fd = client();
        say(fd, bad[i]);
        assert_true(is_closed(fd));
        close(fd);
    }
    assert_int_equal(stat_now().bad_packets, sizeof bad / sizeof bad[0]);
    json_decref(ask(good, "{\"cmd\": \"echo\"}")); /* nobody else was hurt */
    assert_int_equal(stat_now().conns, 1);
    close(good);
}

static void test_packet_sizes(void **state)
{
    static char text[CONTROL_PACKET + 2];
    (void)state;
    int fd = client();
    memset(text, ' ', sizeof text);
    memcpy(text, "{\"cmd\":\"fail\"}", 14);
    assert_int_equal(send(fd, text, CONTROL_PACKET, 0), CONTROL_PACKET);
    turn();
    json_t *o = hear(fd, NULL, NULL);
    assert_str(o, "error", "no \"\"");
    json_decref(o);
    assert_int_equal(send(fd, text, CONTROL_PACKET + 1, 0), CONTROL_PACKET + 1);
    assert_true(is_closed(fd));
    assert_int_equal(stat_now().bad_packets, 1);
    close(fd);
}

/* An answer that cannot be sent ends the connection: nobody waits for it. */
static void test_answer_that_is_too_long(void **state)
{
    (void)state;
    int fd = client();
    say(fd, "{\"cmd\": \"big\"}");
    assert_true(is_closed(fd));
    assert_int_equal(stat_now().dropped, 1);
    assert_int_equal(stat_now().conns, 0);
    close(fd);
}

static void test_too_many_requests(void **state)
{
    (void)state;
    int fd = client();
    for (int i = 0; i < CONTROL_REQS; i++)
        say(fd, "{\"cmd\": \"keep\"}");
    assert_int_equal(n_kept, CONTROL_REQS);
    json_t *o = ask(fd, "{\"id\": 65, \"cmd\": \"keep\"}");
    assert_int_equal(num(o, "id"), 65);
    assert_true(json_is_false(json_object_get(o, "ok")));
    json_decref(o);
    assert_int_equal(n_kept, CONTROL_REQS);
    assert_int_equal(stat_now().requests, CONTROL_REQS);
    ctl_ok(kept[0], NULL, -1); /* one ends: room for another one */
    json_decref(hear(fd, NULL, NULL));
    say(fd, "{\"cmd\": \"keep\"}");
    assert_int_equal(n_kept, CONTROL_REQS + 1);
    close(fd);
    turn();
    assert_int_equal(n_gone, CONTROL_REQS);
    assert_int_equal(stat_now().requests, 0);
}

static void test_too_many_connections(void **state)
{
    int fds[CONTROL_CONNS + 1];
    (void)state;
    for (int i = 0; i <= CONTROL_CONNS; i++)
        fds[i] = client();
    assert_int_equal(stat_now().conns, CONTROL_CONNS);
    assert_int_equal(stat_now().refused_limit, 1);
    assert_true(is_closed(fds[CONTROL_CONNS]));
    for (int i = 0; i <= CONTROL_CONNS; i++)
        close(fds[i]);
    turn();
    assert_int_equal(stat_now().conns, 0);
}

/* A request with a time is failed when it is over, and its handler is told. */
static void test_timeout(void **state)
{
    (void)state;
    int fd = client();
    say(fd, "{\"id\": 3, \"cmd\": \"timed\", \"timeout_ms\": 20}");
    assert_int_equal(n_kept, 1);
    json_t *o = NULL;
    for (int i = 0; i < 1000 && o == NULL; i++) {
        usleep(10 * 1000);
        turn();
        o = hear(fd, NULL, NULL);
    }
    assert_int_equal(num(o, "id"), 3);
    assert_int_equal(num(o, "exit"), 5);
    assert_str(o, "error", "timed: timed out after 20 ms");
    json_decref(o);
    assert_int_equal(n_gone, 1);
    assert_null(kept[0]);
    say(fd, "{\"cmd\": \"timed\", \"timeout_ms\": 60000}"); /* answered in time */
    ctl_ok(kept[1], NULL, -1);
    json_decref(hear(fd, NULL, NULL));
    say(fd, "{\"cmd\": \"timed\", \"timeout_ms\": 60000}"); /* or the connection goes */
    close(fd);
    turn();
    assert_int_equal(n_gone, 2);
    assert_int_equal(stat_now().requests, 0);
}

/* ---- ends ---- */

static void test_client_gone_before_the_answer(void **state)
{
    (void)state;
    int fd = client();
    say(fd, "{\"cmd\": \"keep\"}");
    say(fd, "{\"cmd\": \"keep\"}");
    close(fd);
    turn();
    assert_int_equal(n_gone, 2);
    assert_null(kept[0]);
    assert_int_equal(stat_now().conns, 0);
}

/* It goes while the node is about to answer: noticed by writing, and it is gone all the same. */
static void test_client_gone_at_the_answer(void **state)
{
    (void)state;
    int fd = client();
    say(fd, "{\"cmd\": \"keep\"}");
    say(fd, "{\"cmd\": \"keep\"}");
    close(fd);
    ctl_ok(kept[0], NULL, -1);
    kept[0] = NULL;
    turn();
    assert_int_equal(n_gone, 1);
    assert_int_equal(stat_now().conns, 0);
}

static void test_server_gone(void **state)
{
    (void)state;
    int fd = client();
    say(fd, "{\"cmd\": \"keep\"}");
    control_free(ctl);
    ctl = NULL;
    assert_int_equal(n_gone, 1);
    assert_true(is_closed(fd));
    assert_int_equal(access(path, F_OK), -1);
    close(fd);
}

/* ---- rows ---- */

static void test_rows_wait_for_room(void **state)
{
    (void)state;
    int fd = client();
    rows_left = 100000;
    say(fd, "{\"cmd\": \"rows\"}");
    assert_true(rows_left > 90000); /* nobody reads */
    size_t stuck = rows_sent;
    turn();
    assert_int_equal(rows_sent, stuck);
    unsigned got = 0;
    long long expect = 99999;
    for (bool done = false; !done;) {
        json_t *o = hear(fd, NULL, NULL);
        if (o == NULL) {
            turn();
            continue;
        }
        const json_t *row = json_object_get(o, "row");
        if (row != NULL)
            assert_int_equal(num(row, "left"), expect--);
        done = json_is_true(json_object_get(o, "ok"));
        got += row != NULL;
        json_decref(o);
    }
    assert_int_equal(got, 100000);
    close(fd);
}

/* A source of rows that is taken as fast as it gives does not keep the loop for itself. */
static void test_rows_share_the_loop(void **state)
{
    (void)state;
    int fd = client();
    rows_left = 100000;
    const char *text = "{\"cmd\": \"rows\"}";
    assert_int_equal(send(fd, text, strlen(text), 0), strlen(text));
    event_base_loop(drive_loop_base(drive), EVLOOP_NONBLOCK);
    assert_true(rows_sent <= CONTROL_TURN);
    close(fd);
}

static void test_gone_while_rows_wait(void **state)
{
    (void)state;
    int fd = client();
    rows_left = 100000;
    say(fd, "{\"cmd\": \"rows\"}");
    close(fd);
    turn();
    assert_int_equal(stat_now().conns, 0);
    assert_int_equal(stat_now().requests, 0);
}

/* ---- descriptors ---- */

static void test_descriptor(void **state)
{
    char text[8] = "";
    int got = -1;
    (void)state;
    int fd = client();
    say(fd, "{\"cmd\": \"fd\"}");
    json_t *o = hear(fd, NULL, &got);
    assert_true(got >= 0);
    assert_int_equal(read(got, text, sizeof text), 7);
    assert_string_equal(text, "through");
    json_decref(o);
    close(got);
    close(fd);
}

static unsigned open_fds(void)
{
    unsigned n = 0;
    for (int i = 0; i < 1024; i++)
        n += fcntl(i, F_GETFD) >= 0;
    return n;
}

/* What is passed to the node, or waits for a client that goes, is closed. */
static void test_no_descriptor_leaks(void **state)
{
    (void)state;
    unsigned before = open_fds();
    int fd = client();
    rows_left = 100000;
    say(fd, "{\"cmd\": \"rows\"}"); /* the socket is full now */
    say(fd, "{\"cmd\": \"fd\"}");
    close(fd);
    turn();
    fd = client();
    union {
        char buf[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } u;
    struct iovec iov = {(void *)(uintptr_t) "{\"cmd\": \"echo\"}", 15};
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = u.buf, .msg_controllen = sizeof u.buf};
    struct cmsghdr *cm = CMSG_FIRSTHDR(&msg);
    cm->cmsg_level = SOL_SOCKET;
    cm->cmsg_type = SCM_RIGHTS;
    cm->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(cm), &fd, sizeof fd);
    assert_int_equal(sendmsg(fd, &msg, 0), 15);
    turn();
    json_decref(hear(fd, NULL, NULL));
    close(fd);
    turn();
    assert_int_equal(open_fds(), before);
}

/* ---- the socket itself ---- */

static void test_socket_is_private(void **state)
{
    struct stat st;
    (void)state;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    *strrchr(path, '/') = '\0';
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
}

static void test_living_socket_is_refused(void **state)
{
    struct control *second = NULL;
    (void)state;
    assert_int_equal(control_new(&second, drive, path, cmds, NULL), ERR_BUSY);
    assert_null(second);
    int fd = client(); /* the first one still serves */
    json_decref(ask(fd, "{\"cmd\": \"echo\"}"));
    close(fd);
}

static void test_stale_socket_is_taken_over(void **state)
{
    (void)state;
    control_free(ctl);
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    strcpy(sa.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    close(fd); /* as after kill -9 */
    assert_int_equal(access(path, F_OK), 0);
    assert_int_equal(control_new(&ctl, drive, path, cmds, NULL), 0);
    fd = client();
    json_decref(ask(fd, "{\"cmd\": \"echo\"}"));
    close(fd);
}

static void test_path_that_is_no_socket(void **state)
{
    struct control *c = NULL;
    struct stat st;
    (void)state;
    tmpdir_write(&dir, "run/kadmsg/file", "precious", 0600);
    assert_int_equal(control_new(&c, drive, tmpdir_file(&dir, "run/kadmsg/file"), cmds, NULL),
                     ERR_EXISTS);
    assert_int_equal(stat(tmpdir_file(&dir, "run/kadmsg/file"), &st), 0);
    assert_int_equal(st.st_size, 8);
}

static void test_unusable_places(void **state)
{
    struct control *c = NULL;
    char text[200];
    (void)state;
    memset(text, 'x', sizeof text - 1);
    text[0] = '/';
    text[sizeof text - 1] = '\0';
    assert_int_equal(control_new(&c, drive, text, cmds, NULL), -ENAMETOOLONG);
    assert_int_equal(mkdir(tmpdir_file(&dir, "open"), 0700), 0);
    assert_int_equal(chmod(tmpdir_file(&dir, "open"), 0777), 0);
    assert_int_equal(control_new(&c, drive, tmpdir_file(&dir, "open/s"), cmds, NULL), ERR_UNSAFE);
    tmpdir_write(&dir, "plain", "", 0600);
    assert_int_equal(control_new(&c, drive, tmpdir_file(&dir, "plain/s"), cmds, NULL), -ENOTDIR);
    assert_null(c);
}

/* Many processes start at once over one stale socket: exactly one of them gets it. */
static void test_race_for_a_stale_socket(void **state)
{
    enum { N = 8 };
    pid_t child[N];
    int won = 0, go[2];
    (void)state;
    control_free(ctl);
    ctl = NULL;
    for (int round = 0; round < 20; round++) {
        struct sockaddr_un sa = {.sun_family = AF_UNIX};
        strcpy(sa.sun_path, path);
        unlink(path);
        int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
        assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof sa), 0);
        close(fd);
        assert_int_equal(pipe(go), 0);
        for (int i = 0; i < N; i++) {
            if ((child[i] = fork()) != 0)
                continue;
            char c;
            struct drive_loop *d = drive_loop_new(NULL);
            struct control *mine = NULL;
            close(go[1]);
            (void)!read(go[0], &c, 1); /* all at once */
            int rc = control_new(&mine, d, path, cmds, NULL);
            if (rc == 0)
                pause(); /* it lives */
            _exit(rc == ERR_BUSY ? 1 : 2);
        }
        close(go[0]);
        close(go[1]);
        int losers = 0, status;
        while (losers < N - 1 && waitpid(-1, &status, 0) > 0) {
            assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
            losers++;
        }
        won += waitpid(-1, &status, WNOHANG) == 0; /* one is left */
        for (int i = 0; i < N; i++)
            kill(child[i], SIGKILL);
        while (waitpid(-1, &status, 0) > 0)
            ;
    }
    assert_int_equal(won, 20);
}

/* ---- other users, no descriptors ---- */

static void test_another_user_is_refused(void **state)
{
    (void)state;
    int status;
    if (geteuid() != 0)
        return; /* only root can become somebody else: CI runs as root */
    /* Let him reach the socket file at all: the check of the user id is behind the modes. */
    assert_int_equal(chmod(path, 0666), 0);
    for (char p[PATHS_MAX], *slash = strcpy(p, path) + strlen(path);
         (slash = memrchr(p, '/', (size_t)(slash - p))) != NULL && slash > p + 5;) {
        *slash = '\0';
        (void)chmod(p, 0755);
    }
    pid_t child = fork();
    if (child == 0) {
        if (setgid(65534) < 0 || setuid(65534) < 0)
            _exit(3);
        int fd = connect_raw();
        char c;
        if (fd < 0)
            _exit(4);
        struct pollfd p = {fd, POLLIN, 0};
        poll(&p, 1, 5000);
        _exit(recv(fd, &c, 1, 0) == 0 ? 0 : 5);
    }
    while (waitpid(child, &status, WNOHANG) == 0)
        turn();
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_int_equal(stat_now().refused_user, 1);
    assert_int_equal(stat_now().conns, 0);
}

/* Without descriptors the listener rests instead of spinning, and serves again afterwards. */
static void test_out_of_descriptors(void **state)
{
    struct rlimit old, low;
    (void)state;
    int fd = client(), waiting = connect_raw();
    json_decref(ask(fd, "{\"cmd\": \"echo\"}")); /* accepts the second one too */
    close(waiting);
    turn();
    waiting = connect_raw();
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    low = old;
    low.rlim_cur = 3;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    turn();
    turn();
    struct control_stat st = stat_now();
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    assert_int_equal(st.accept_failed, 1);
    assert_int_equal(st.conns, 1);
    for (int i = 0; i < 100 && stat_now().conns < 2; i++) {
        usleep(10 * 1000);
        turn();
    }
    json_decref(ask(waiting, "{\"cmd\": \"echo\"}"));
    close(waiting);
    close(fd);
}

static void test_adopted_descriptor(void **state)
{
    int fds[2];
    (void)state;
    control_free(ctl);
    assert_int_equal(control_new(&ctl, drive, NULL, cmds, NULL), 0); /* no socket at all */
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, fds), 0);
    assert_int_equal(control_adopt(ctl, fds[0]), 0);
    json_decref(ask(fds[1], "{\"cmd\": \"echo\"}"));
    close(fds[1]);
    turn();
    assert_int_equal(stat_now().conns, 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_answers),
        TEST(test_quoted_text_is_cut_well),
        TEST(test_arguments),
        TEST(test_packets_that_are_no_request),
        TEST(test_packet_sizes),
        TEST(test_answer_that_is_too_long),
        TEST(test_too_many_requests),
        TEST(test_too_many_connections),
        TEST(test_timeout),
        TEST(test_client_gone_before_the_answer),
        TEST(test_client_gone_at_the_answer),
        TEST(test_server_gone),
        TEST(test_rows_wait_for_room),
        TEST(test_rows_share_the_loop),
        TEST(test_gone_while_rows_wait),
        TEST(test_descriptor),
        TEST(test_no_descriptor_leaks),
        TEST(test_socket_is_private),
        TEST(test_living_socket_is_refused),
        TEST(test_stale_socket_is_taken_over),
        TEST(test_path_that_is_no_socket),
        TEST(test_unusable_places),
        TEST(test_race_for_a_stale_socket),
        TEST(test_another_user_is_refused),
        TEST(test_out_of_descriptors),
        TEST(test_adopted_descriptor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
