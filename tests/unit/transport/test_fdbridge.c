/* fdbridge: descriptors bridged to streams, over real sockets and a real loop. */
#include "transport/fdbridge.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/env_sys.h"
#include "base/err.h"
#include "base/log.h"
#include "tests/unit/prop.h"
#include "tests/unit/vectors.h"
#include "transport/client.h"
#include "transport/drive_tcp.h"
#include "transport/relay.h"

/* Two clients and a relay on 127.0.0.1. The server side of each stream is bridged too. */
struct fixture {
    struct env_sys sys;
    struct bufpool *pool;
    struct drive_loop *drive;
    struct drive_tcp *tcp;
    struct drive_listener *listener;
    struct relay *relay;
    struct client *client[2];
    struct pubkey pk[3];
    struct fdbridges set;
    struct stream *st; /* dialled */
    bool opened;
    int done_calls, done_err;
    int server_fd; /* other end of the accepted side's socketpair */
};

static void on_conn(void *arg, struct conn *conn)
{
    relay_accept(arg, conn, false);
}

static void stop_soon(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    event_base_loopbreak(arg);
}

/* Turns of the loop until the flag is set; at most 20 s. */
static void run_until(struct fixture *f, const bool *flag)
{
    struct event_base *base = drive_loop_base(f->drive);
    struct timeval tv = {20, 0};
    struct event *limit = event_new(base, -1, 0, stop_soon, base);

    event_add(limit, &tv);
    while (!*flag && event_pending(limit, EV_TIMEOUT, NULL))
        event_base_loop(base, EVLOOP_ONCE);
    event_free(limit);
    assert_true(*flag);
}

static void run_for(struct fixture *f, int ms)
{
    struct event_base *base = drive_loop_base(f->drive);
    struct timeval tv = {ms / 1000, ms % 1000 * 1000};

    event_base_loopexit(base, &tv);
    event_base_loop(base, EVLOOP_NO_EXIT_ON_EMPTY);
}

static void on_accept(void *arg, struct stream *st)
{
    struct fixture *f = arg;
    int fd[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
    f->server_fd = fd[1];
    assert_int_equal(fdbridge_start(&f->set, st, fd[0]), 0);
}

static void client_start(struct fixture *f, int i)
{
    struct client_cfg cfg = {.env = &f->sys.env,
                             .loop = drive_loop_loop(f->drive),
                             .pool = f->pool,
                             .carrier = drive_tcp_carrier(f->tcp)};

    env_keypair(&f->sys.env, &cfg.sk, &cfg.self);
    f->pk[i] = cfg.self;
    assert_int_equal(client_new(&f->client[i], &cfg), 0);
    assert_int_equal(client_add_server(f->client[i], &f->pk[2], drive_listener_addr(f->listener)),
                     0);
}

static void start(struct fixture *f)
{
    memset(f, 0, sizeof *f);
    assert_int_equal(log_set_levels("error", (char[64]){0}, 64), 0);
    assert_int_equal(env_sys_init(&f->sys), 0);
    f->pool = bufpool_new(NULL);
    f->drive = drive_loop_new(NULL);
    f->tcp = drive_tcp_new(f->drive, f->pool);
    fdbridges_init(&f->set, f->drive);
    f->server_fd = -1;
    struct relay_cfg cfg = {.env = &f->sys.env, .loop = drive_loop_loop(f->drive), .pool = f->pool};
    env_keypair(&f->sys.env, &cfg.sk, &cfg.self);
    f->pk[2] = cfg.self;
    assert_int_equal(relay_new(&f->relay, &cfg), 0);
    assert_int_equal(drive_tcp_listen(f->tcp, "127.0.0.1:0", on_conn, f->relay, &f->listener), 0);
    client_start(f, 0);
    client_start(f, 1);
    assert_int_equal(client_listen(f->client[1], 80, on_accept, f), 80);
}

static void stop(struct fixture *f)
{
    fdbridges_close(&f->set);
    assert_int_equal(f->set.n, 0);
    if (f->server_fd >= 0)
        close(f->server_fd);
    client_free(f->client[0]);
    client_free(f->client[1]);
    relay_free(f->relay);
    drive_listener_close(f->listener);
    run_for(f, 20);
    drive_tcp_free(f->tcp);
    drive_loop_free(f->drive);
    assert_int_equal(bufpool_in_use(f->pool), 0);
    bufpool_free(f->pool);
}

static void on_done(void *arg, int err)
{
    struct fixture *f = arg;

    f->done_calls++;
    f->done_err = err;
}

static void on_opened(struct stream *st, void *arg)
{
    struct fixture *f = arg;

    (void)st;
    f->opened = true;
}

static void on_ended(struct stream *st, void *arg, int err)
{
    (void)st, (void)arg;
    fail_msg("stream ended: %s", err_str(err));
}

static bool is_up(const struct fixture *f, int i)
{
    struct client_stat s;

    client_stat(f->client[i], &s);
    return s.sessions_up == 1;
}

/* An open stream to the other client, whose end is bridged to server_fd. */
static void dial(struct fixture *f)
{
    static const struct stream_cb cb = {.opened = on_opened, .ended = on_ended};
    struct pubkey relay = f->pk[2];

    for (int i = 0; i < 500 && !(is_up(f, 0) && is_up(f, 1)); i++)
        run_for(f, 10);
    assert_int_equal(client_add_route(f->client[0], &f->pk[1], &relay), 0);
    assert_int_equal(client_dial(f->client[0], &f->pk[1], 80, 10000, 0, &cb, f, &f->st), 0);
    run_until(f, &f->opened);
    for (int i = 0; i < 500 && f->server_fd < 0; i++)
        run_for(f, 2);
    assert_true(f->server_fd >= 0);
}

/* ---- a descriptor of the test's ---- */

struct side {
    int fd;
    uint8_t *in;
    size_t in_n, in_cap;
    const uint8_t *out;
    size_t out_n, out_at;
    bool eof;
};

/* As much as goes, without blocking. */
static void side_work(struct side *s)
{
    ssize_t n;

    while (s->out_at < s->out_n && (n = write(s->fd, s->out + s->out_at, s->out_n - s->out_at)) > 0)
        s->out_at += (size_t)n;
    while (!s->eof && s->in_n < s->in_cap) {
        n = read(s->fd, s->in + s->in_n, s->in_cap - s->in_n);
        if (n < 0)
            return;
        s->eof = n == 0;
        s->in_n += (size_t)n;
    }
}

static void work_until(struct fixture *f, struct side *a, struct side *b, const bool *flag)
{
    for (int i = 0; i < 5000 && !*flag; i++) {
        side_work(a);
        side_work(b);
        run_for(f, 2);
    }
    assert_true(*flag);
}

static struct side side_make(int fd, size_t cap)
{
    struct side s = {.fd = fd, .in = malloc(cap), .in_cap = cap};

    assert_non_null(s.in);
    assert_true(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    return s;
}

static uint8_t *noise_bytes(size_t n)
{
    struct prop r = prop_init("fdbridge");
    uint8_t *p = malloc(n);

    assert_non_null(p);
    prop_bytes(&r, p, n);
    return p;
}

/* ---- tests ---- */

#define MIB (1024u * 1024u)

static void test_both_directions_and_half_close(void **state)
{
    struct fixture f;
    struct fdbridge *b;
    uint8_t *data = noise_bytes(2 * MIB);
    int fd[2];

    (void)state;
    start(&f);
    dial(&f);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
    assert_int_equal(fdbridge_new(&f.set, f.st, fd[0], fd[0], on_done, &f, &b), 0);
    struct side a = side_make(fd[1], 2 * MIB), z = side_make(f.server_fd, 2 * MIB);
    a.out = data;
    a.out_n = MIB + 5;
    for (int i = 0; i < 5000 && z.in_n < a.out_n; i++) {
        side_work(&a);
        side_work(&z);
        run_for(&f, 1);
    }
    assert_int_equal(z.in_n, a.out_n);
    assert_false(z.eof);
    assert_int_equal(shutdown(a.fd, SHUT_WR), 0);
    work_until(&f, &a, &z, &z.eof);
    assert_memory_equal(z.in, data, a.out_n);
    assert_int_equal(f.done_calls, 0);
    z.out = data + 7; /* the answer goes the other way behind the end of the question */
    z.out_n = MIB;
    while (z.out_at < z.out_n) {
        side_work(&a);
        side_work(&z);
        run_for(&f, 1);
    }
    assert_int_equal(shutdown(z.fd, SHUT_WR), 0);
    work_until(&f, &a, &z, &a.eof);
    assert_int_equal(a.in_n, MIB);
    assert_memory_equal(a.in, data + 7, MIB);
    for (int i = 0; i < 1000 && f.set.n > 0; i++)
        run_for(&f, 5);
    assert_int_equal(f.set.n, 0);
    assert_int_equal(f.done_calls, 1);
    assert_int_equal(f.done_err, 0);
    close(a.fd);
    free(a.in);
    free(z.in);
    free(data);
    stop(&f);
}

/* nc < file > file: neither descriptor can be waited for. */
static void test_files(void **state)
{
    struct fixture f;
    struct fdbridge *b;
    size_t n = 300000;
    uint8_t *data = noise_bytes(n), *back = malloc(n + 1);
    FILE *in = tmpfile(), *out = tmpfile();

    (void)state;
    assert_true(back != NULL && in != NULL && out != NULL);
    assert_int_equal(write(fileno(in), data, n), n);
    assert_int_equal(lseek(fileno(in), 0, SEEK_SET), 0);
    start(&f);
    dial(&f);
    assert_int_equal(fdbridge_new(&f.set, f.st, dup(fileno(in)), dup(fileno(out)), on_done, &f, &b),
                     0);
    struct side z = side_make(f.server_fd, n + 1), none = side_make(dup(fileno(in)), 1);
    none.eof = true;
    work_until(&f, &none, &z, &z.eof);
    assert_int_equal(z.in_n, n);
    z.out = z.in;
    z.out_n = n;
    while (z.out_at < n) {
        side_work(&z);
        run_for(&f, 1);
    }
    assert_int_equal(shutdown(z.fd, SHUT_WR), 0);
    for (int i = 0; i < 1000 && f.done_calls == 0; i++)
        run_for(&f, 5);
    assert_int_equal(f.done_calls, 1);
    assert_int_equal(f.done_err, 0);
    assert_int_equal(pread(fileno(out), back, n + 1, 0), n);
    assert_memory_equal(back, data, n);
    fclose(in);
    fclose(out);
    close(none.fd);
    free(none.in);
    free(z.in);
    free(back);
    free(data);
    stop(&f);
}

/* What the far side does not read stays with the writer, and arrives when it does. */
static void test_back_pressure(void **state)
{
    struct fixture f;
    struct fdbridge *b;
    uint8_t *data = noise_bytes(8 * MIB);
    int fd[2];

    (void)state;
    start(&f);
    dial(&f);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
    assert_int_equal(fdbridge_new(&f.set, f.st, fd[0], fd[0], on_done, &f, &b), 0);
    struct side a = side_make(fd[1], 16), z = side_make(f.server_fd, 8 * MIB);
    a.out = data;
    a.out_n = 8 * MIB;
    size_t before = 1;
    while (before != a.out_at) { /* until it stands still */
        before = a.out_at;
        for (int i = 0; i < 30; i++) {
            side_work(&a);
            run_for(&f, 1);
        }
    }
    assert_true(a.out_at > 262144 && a.out_at < 4 * MIB);
    for (int i = 0; i < 10000 && z.in_n < a.out_n; i++) {
        side_work(&a);
        side_work(&z);
        run_for(&f, 1);
    }
    assert_int_equal(z.in_n, a.out_n);
    assert_memory_equal(z.in, data, a.out_n);
    close(a.fd);
    free(a.in);
    free(z.in);
    free(data);
    stop(&f);
}

/* The relay goes: both descriptors read the end, done() hears why. */
static void test_stream_dies(void **state)
{
    struct fixture f;
    struct fdbridge *b;
    int fd[2];
    char c;

    (void)state;
    start(&f);
    dial(&f);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
    assert_int_equal(fdbridge_new(&f.set, f.st, fd[0], fd[0], on_done, &f, &b), 0);
    relay_free(f.relay);
    f.relay = NULL;
    for (int i = 0; i < 1000 && f.set.n > 0; i++)
        run_for(&f, 5);
    assert_int_equal(f.done_calls, 1);
    assert_int_equal(f.done_err, ERR_DMSG_SESSION_CLOSED);
    assert_int_equal(read(fd[1], &c, 1), 0);
    assert_int_equal(read(f.server_fd, &c, 1), 0);
    close(fd[1]);
    stop(&f);
}

/* The program behind the socket is gone: the bridge does not wait for an answer. */
static void test_descriptor_dies(void **state)
{
    struct fixture f;
    struct fdbridge *b;
    int fd[2];

    (void)state;
    start(&f);
    dial(&f);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
    assert_int_equal(fdbridge_new(&f.set, f.st, fd[0], fd[0], on_done, &f, &b), 0);
    assert_int_equal(write(fd[1], "last words", 10), 10);
    close(fd[1]);
    struct side z = side_make(f.server_fd, 64);
    for (int i = 0; i < 1000 && !z.eof; i++) {
        side_work(&z);
        run_for(&f, 2);
    }
    assert_int_equal(z.in_n, 10);
    assert_memory_equal(z.in, "last words", 10);
    assert_int_equal(f.done_calls, 1);
    assert_int_equal(f.done_err, 0);
    free(z.in);
    stop(&f);
}

/* A program that answers and closes without reading the rest, as HTTP servers do: the answer arrives,
 * whether the rest is there already or still comes. */
static void test_descriptor_answers_and_closes(void **state)
{
    (void)state;
    for (int late = 0; late < 2; late++) {
        struct fixture f;
        struct fdbridge *b;
        uint8_t *data = noise_bytes(MIB);
        char got[64];
        ssize_t n, in = 0;
        int fd[2];

        start(&f);
        dial(&f);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
        assert_int_equal(fdbridge_new(&f.set, f.st, fd[0], fd[0], on_done, &f, &b), 0);
        run_for(&f, 20); /* the other end is accepted */
        if (!late)
            assert_true(write(f.server_fd, data, MIB) > 0);
        run_for(&f, 50);
        assert_int_equal(write(fd[1], "too long", 8), 8);
        close(fd[1]);
        if (late)
            assert_true(write(f.server_fd, data, MIB) > 0);
        for (int i = 0; i < 1000; i++) {
            n = read(f.server_fd, got + in, sizeof got - (size_t)in);
            if (n == 0)
                break;
            in += n > 0 ? n : 0;
            run_for(&f, 2);
        }
        assert_int_equal(n, 0);
        assert_int_equal(in, 8);
        assert_memory_equal(got, "too long", 8);
        assert_int_equal(f.done_calls, 1);
        assert_int_equal(f.done_err, 0);
        free(data);
        stop(&f);
    }
}

/* Closing the set in mid-air leaves nothing behind: stop() looks. */
static void test_close_under_way(void **state)
{
    struct fixture f;
    struct fdbridge *b;
    uint8_t *data = noise_bytes(MIB);
    int fd[2];

    (void)state;
    start(&f);
    dial(&f);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
    assert_int_equal(fdbridge_new(&f.set, f.st, fd[0], fd[0], on_done, &f, &b), 0);
    assert_true(write(fd[1], data, MIB) > 0);
    run_for(&f, 1);
    assert_int_equal(f.set.n, 2);
    fdbridge_close(b);
    assert_int_equal(f.set.n, 1);
    assert_int_equal(f.done_calls, 0);
    close(fd[1]);
    free(data);
    stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_directions_and_half_close),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_back_pressure),
        cmocka_unit_test(test_stream_dies),
        cmocka_unit_test(test_descriptor_dies),
        cmocka_unit_test(test_descriptor_answers_and_closes),
        cmocka_unit_test(test_close_under_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
