/*
 * Splices over real socketpairs and an event base: order, half-close, back-pressure, clocks, filters.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "apps/splice.h"
#include "base/env_sys.h"
#include "base/err.h"
#include "base/loop.h"
#include "tests/unit/prop.h"
#include "tests/unit/vectors.h"

struct world {
    struct event_base *base;
    struct splices set;
    int a, b; /* our ends: a is spliced to b */
    int done, err;
};

static void on_done(void *arg, int err)
{
    struct world *w = arg;
    w->done++;
    w->err = err;
}

static void pair(int fds[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
}

static void begin(struct world *w, struct evbuffer *first_ab, struct evbuffer *first_ba,
                  splice_filter_fn *filter)
{
    int a[2], b[2];
    memset(w, 0, sizeof(*w));
    w->base = event_base_new();
    assert_int_equal(splices_init(&w->set, w->base), 0);
    pair(a);
    pair(b);
    w->a = a[0];
    w->b = b[0];
    struct splice_cfg cfg = {.fd = {a[1], b[1]},
                             .first = {first_ab, first_ba},
                             .filter = filter,
                             .done = on_done,
                             .arg = w};
    assert_int_equal(splice_new(&w->set, &cfg), 0);
    assert_int_equal(w->set.n, 1);
}

static void turn(struct world *w)
{
    event_base_loop(w->base, EVLOOP_NONBLOCK);
}

static void finish(struct world *w)
{
    close(w->a);
    close(w->b);
    splices_close(&w->set);
    assert_int_equal(w->set.n, 0);
    event_base_free(w->base);
}

/* Everything that comes within some turns. */
static size_t drain(struct world *w, int fd, char *out, size_t cap, bool *eof)
{
    size_t n = 0;
    *eof = false;
    for (int i = 0; i < 50; i++) {
        turn(w);
        ssize_t got = read(fd, out + n, cap - n);
        if (got == 0)
            *eof = true;
        n += got > 0 ? (size_t)got : 0;
    }
    return n;
}

static void test_order_and_ends(void **state)
{
    struct world w;
    struct evbuffer *ab = evbuffer_new(), *ba = evbuffer_new();
    char got[100];
    bool eof;
    (void)state;
    evbuffer_add(ab, "first", 5);
    evbuffer_add(ba, "reply", 5);
    begin(&w, ab, ba, NULL);
    assert_int_equal(write(w.a, " second", 7), 7);
    shutdown(w.a, SHUT_WR);
    assert_int_equal(drain(&w, w.b, got, sizeof(got), &eof), 12);
    assert_memory_equal(got, "first second", 12);
    assert_true(eof);
    assert_int_equal(w.done, 0);
    assert_int_equal(write(w.b, "!", 1), 1); /* the other direction lives on */
    assert_int_equal(drain(&w, w.a, got, sizeof(got), &eof), 6);
    assert_memory_equal(got, "reply!", 6);
    assert_false(eof);
    shutdown(w.b, SHUT_WR);
    assert_int_equal(drain(&w, w.a, got, sizeof(got), &eof), 0);
    assert_true(eof);
    assert_int_equal(w.done, 1);
    assert_int_equal(w.err, 0);
    assert_int_equal(w.set.ended_clean, 1);
    assert_int_equal(w.set.bytes[0], 12);
    assert_int_equal(w.set.bytes[1], 6);
    finish(&w);
}

/* A reader that takes nothing stops the writer, and only little waits in between. */
static void test_back_pressure(void **state)
{
    static char block[32768];
    struct world w;
    size_t sent = 0, taken = 0;
    (void)state;
    begin(&w, NULL, NULL, NULL);
    for (int i = 0; i < 200; i++) {
        ssize_t n = write(w.a, block, sizeof(block));
        sent += n > 0 ? (size_t)n : 0;
        turn(&w);
    }
    assert_int_equal(write(w.a, block, 1), -1);
    splices_tick(&w.set, env_sys_mono_ns());
    assert_true(w.set.waiting > 0 && w.set.waiting <= SPLICE_PIECE);
    for (int i = 0; i < 400; i++) {
        ssize_t n = read(w.b, block, sizeof(block));
        taken += n > 0 ? (size_t)n : 0;
        turn(&w);
    }
    assert_int_equal(taken, sent);
    splices_tick(&w.set, env_sys_mono_ns());
    assert_int_equal(w.set.waiting, 0);
    finish(&w);
}

/* Random writes and reads at both ends: the bytes come out as they went in. */
static void test_random(void **state)
{
    struct prop r = prop_init("splice");
    struct world w;
    uint64_t in[2] = {0, 0}, out[2] = {0, 0};
    (void)state;
    begin(&w, NULL, NULL, NULL);
    int fd[2] = {w.a, w.b};
    for (int i = 0; i < 20000; i++) {
        uint8_t buf[5000];
        size_t k = prop_below(&r, 2), n = prop_below(&r, sizeof(buf));
        if (prop_chance(&r, 50)) {
            for (size_t j = 0; j < n; j++)
                buf[j] = (uint8_t)((in[k] + j) * 31 >> 3);
            ssize_t sent = write(fd[k], buf, n);
            in[k] += sent > 0 ? (uint64_t)sent : 0;
        } else {
            ssize_t got = read(fd[1 - k], buf, n);
            for (ssize_t j = 0; j < got; j++)
                assert_int_equal(buf[j], (uint8_t)((out[k] + (uint64_t)j) * 31 >> 3));
            out[k] += got > 0 ? (uint64_t)got : 0;
        }
        if (prop_chance(&r, 60))
            turn(&w);
    }
    assert_true(out[0] > 1000000 && out[1] > 1000000);
    finish(&w);
}

static void test_clocks(void **state)
{
    static char block[65536];
    struct world w;
    (void)state;
    begin(&w, NULL, NULL, NULL);
    turn(&w);
    splices_tick(&w.set, env_sys_mono_ns() + w.set.idle_ns - NS_PER_S);
    assert_int_equal(w.done, 0);
    splices_tick(&w.set, env_sys_mono_ns() + w.set.idle_ns + NS_PER_S);
    assert_int_equal(w.done, 1);
    assert_int_equal(w.err, ERR_TIMEOUT);
    assert_int_equal(w.set.ended_idle, 1);
    assert_int_equal(read(w.a, block, 1), 0);
    finish(&w);

    begin(&w, NULL, NULL, NULL);
    shutdown(w.a, SHUT_WR);
    for (int i = 0; i < 5; i++)
        turn(&w);
    splices_tick(&w.set, env_sys_mono_ns() + w.set.half_ns - NS_PER_S);
    assert_int_equal(w.done, 0);
    splices_tick(&w.set, env_sys_mono_ns() + w.set.half_ns + NS_PER_S);
    assert_int_equal(w.done, 1);
    finish(&w);

    begin(&w, NULL, NULL, NULL);
    for (int i = 0; i < 100; i++) {
        (void)!write(w.a, block, sizeof(block));
        turn(&w);
    }
    splices_tick(&w.set, env_sys_mono_ns() + w.set.stall_ns + NS_PER_S);
    assert_int_equal(w.done, 1);
    assert_int_equal(w.set.ended_stall, 1);
    finish(&w);
}

/* Who is gone altogether takes nothing: the other side is let go at once, not after the idle time. */
static void test_hang_up(void **state)
{
    struct world w;
    char got[10];
    bool eof;
    (void)state;
    begin(&w, NULL, NULL, NULL);
    assert_int_equal(write(w.a, "last", 4), 4);
    close(w.a);
    w.a = dup(w.b);
    assert_int_equal(drain(&w, w.b, got, sizeof(got), &eof), 4);
    assert_true(eof);
    assert_int_equal(w.done, 1);
    finish(&w);
}

static void test_receiver_leaves(void **state)
{
    static char block[65536];
    struct world w;
    (void)state;
    begin(&w, NULL, NULL, NULL);
    shutdown(w.b, SHUT_RD);
    for (int i = 0; i < 20; i++) {
        (void)!write(w.a, block, sizeof(block));
        turn(&w);
    }
    assert_int_equal(write(w.b, "still", 5), 5); /* what it sends is wanted all the same */
    bool eof;
    assert_int_equal(drain(&w, w.a, block, sizeof(block), &eof), 5);
    close(w.b);
    w.b = dup(w.a);
    for (int i = 0; i < 5; i++)
        turn(&w);
    assert_int_equal(w.done, 1);
    finish(&w);
}

static int doubled(void *arg, const uint8_t *p, size_t n, struct evbuffer *out)
{
    (void)arg;
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '!')
            return ERR_PROTOCOL;
        evbuffer_add(out, p + i, 1);
        evbuffer_add(out, p + i, 1);
    }
    return 0;
}

static void test_filter(void **state)
{
    struct world w;
    char got[100];
    bool eof;
    (void)state;
    begin(&w, NULL, NULL, doubled);
    assert_int_equal(write(w.a, "abc", 3), 3);
    assert_int_equal(drain(&w, w.b, got, sizeof(got), &eof), 6);
    assert_memory_equal(got, "aabbcc", 6);
    assert_int_equal(write(w.b, "abc", 3), 3);
    assert_int_equal(drain(&w, w.a, got, sizeof(got), &eof), 3); /* one direction only */
    assert_int_equal(write(w.a, "!", 1), 1);
    drain(&w, w.b, got, sizeof(got), &eof);
    assert_true(eof);
    assert_int_equal(w.err, ERR_PROTOCOL);
    assert_int_equal(w.set.ended_error, 1);
    finish(&w);
}

static void test_closing_all(void **state)
{
    struct world w;
    char c;
    (void)state;
    begin(&w, NULL, NULL, NULL);
    turn(&w);
    splices_close(&w.set);
    assert_int_equal(w.done, 0);
    assert_int_equal(read(w.a, &c, 1), 0);
    assert_int_equal(read(w.b, &c, 1), 0);
    finish(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order_and_ends), cmocka_unit_test(test_back_pressure),
        cmocka_unit_test(test_random),         cmocka_unit_test(test_clocks),
        cmocka_unit_test(test_hang_up),        cmocka_unit_test(test_receiver_leaves),
        cmocka_unit_test(test_filter),         cmocka_unit_test(test_closing_all),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
