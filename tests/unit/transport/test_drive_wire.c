/*
 * Wires between two loops on two threads: every byte arrives once and in order, whatever the sizes of
 * writes and whoever is slower; the end; and that nothing is left in the pools.
 */
#include "transport/drive_wire.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "tests/unit/vectors.h"

#define CHUNK 200000u

struct side {
    struct drive_loop *drive;
    struct bufpool *pool;
    struct conn *conn;
    pthread_t thread;
    struct drive_msg stop;
    struct loop_timer nap;
    uint64_t to_send, sent, got;
    size_t piece; /* largest write */
    bool slow;    /* pauses now and then */
    bool wrong, ended;
    int err;
    unsigned inputs;
    uint8_t *bytes; /* the pattern, CHUNK + its period */
    sem_t *done;
};

static struct buf_budget budget;

static uint8_t pattern(uint64_t i)
{
    return (uint8_t)(i % 251);
}

static void up(void *arg)
{
    (void)arg;
}

static void input(void *arg, struct slice in, uint64_t now_ns)
{
    struct side *s = arg;
    for (size_t i = 0; i < in.n; i++)
        if (in.p[i] != pattern(s->got + i))
            s->wrong = true;
    s->got += in.n;
    if (s->slow && ++s->inputs % 4 == 0) {
        conn_pause(s->conn, true);
        loop_timer_set(drive_loop_loop(s->drive), &s->nap, now_ns + NS_PER_MS);
    }
}

static int output(void *arg, struct iovec *iov, int max, uint64_t now_ns)
{
    struct side *s = arg;
    uint64_t left = s->to_send - s->sent;
    (void)now_ns;
    size_t n = left < s->piece ? (size_t)left : s->piece;
    if (n == 0 || max < 2)
        return 0;
    size_t first = n / 3 + 1;
    uint8_t *p = s->bytes + s->sent % 251;
    iov[0] = (struct iovec){p, first};
    iov[1] = (struct iovec){p + first, n - first};
    return n > first ? 2 : 1;
}

static void sent(void *arg, size_t n, uint64_t now_ns)
{
    struct side *s = arg;
    (void)now_ns;
    s->sent += n;
    s->piece = s->piece * 7 % CHUNK + 1;
    if (s->sent == s->to_send)
        conn_close(s->conn);
}

static void down(void *arg, int err)
{
    struct side *s = arg;
    s->ended = true;
    s->err = err;
    sem_post(s->done);
}

static const struct conn_user user = {up, input, output, sent, down};

static void wake(struct loop_timer *t)
{
    struct side *s = container_of(t, struct side, nap);
    conn_pause(s->conn, false);
}

static void on_stop(struct drive_msg *m)
{
    struct side *s = container_of(m, struct side, stop);
    conn_close(s->conn);
    loop_timer_cancel(drive_loop_loop(s->drive), &s->nap);
    drive_loop_stop(s->drive);
}

static void *run(void *arg)
{
    struct side *s = arg;
    conn_flush(s->conn);
    (void)drive_loop_run(s->drive);
    return NULL;
}

static void side_init(struct side *s, sem_t *done)
{
    *s = (struct side){.piece = 1, .done = done};
    assert_non_null(s->drive = drive_loop_new(NULL));
    assert_non_null(s->pool = bufpool_new(&budget));
    assert_non_null(s->bytes = malloc(CHUNK + 251));
    for (uint64_t i = 0; i < CHUNK + 251; i++)
        s->bytes[i] = pattern(i);
    s->stop.fn = on_stop;
    s->nap.fn = wake;
}

static void pair(struct side *a, struct side *b)
{
    assert_int_equal(
        drive_wire_pair(a->drive, a->pool, b->drive, b->pool, &budget, &a->conn, &b->conn), 0);
    conn_set_user(a->conn, &user, a);
    conn_set_user(b->conn, &user, b);
}

static void side_end(struct side *s)
{
    loop_turn(drive_loop_loop(s->drive), drive_loop_now(s->drive)); /* deferred */
}

static void side_free(struct side *s)
{
    assert_int_equal(bufpool_in_use(s->pool), 0);
    bufpool_free(s->pool);
    drive_loop_free(s->drive);
    free(s->bytes);
}

/* a sends so much and closes; b reads all of it, then hears the end. What b sends meanwhile is lost. */
static void transfer(uint64_t n, uint64_t back, bool slow)
{
    struct side a, b;
    sem_t done;
    sem_init(&done, 0, 0);
    side_init(&a, &done);
    side_init(&b, &done);
    pair(&a, &b);
    a.to_send = n;
    b.to_send = back;
    b.slow = slow;
    pthread_create(&a.thread, NULL, run, &a);
    pthread_create(&b.thread, NULL, run, &b);
    while (sem_wait(&done) != 0)
        ;
    drive_post(a.drive, &a.stop);
    drive_post(b.drive, &b.stop);
    pthread_join(a.thread, NULL);
    pthread_join(b.thread, NULL);
    assert_true(b.ended && !a.ended);
    assert_int_equal(b.err, ERR_EOF);
    assert_int_equal(b.got, n);
    assert_true(!a.wrong && !b.wrong);
    side_end(&a);
    side_end(&b);
    side_free(&a);
    side_free(&b);
    assert_int_equal(budget.used, 0);
    sem_destroy(&done);
}

static void test_every_byte(void **state)
{
    (void)state;
    transfer(1, 0, false);
    transfer(30 << 20, 0, false);
    transfer(3 << 20, 0, true); /* the ring is full, the writer waits for room */
}

/* Bytes both ways, and one end that goes while the other one writes. */
static void test_both_ways(void **state)
{
    (void)state;
    transfer(20 << 20, 1 << 30, false);
}

/* Closed with full buffers in the ring: they are freed, and the budget gets them back. */
static void test_left_behind(void **state)
{
    (void)state;
    struct side a, b;
    sem_t done;
    sem_init(&done, 0, 0);
    side_init(&a, &done);
    side_init(&b, &done);
    pair(&a, &b);
    a.to_send = 1 << 30;
    a.piece = CHUNK;
    conn_flush(a.conn);
    side_end(&a);
    assert_in_range(a.sent, 1, WIRE_SLOTS * BUF_READ_SIZE);
    assert_int_equal(bufpool_in_use(a.pool), 0); /* they are under way, and count */
    assert_true(budget.used >= a.sent);
    conn_close(b.conn);
    side_end(&b);
    conn_close(a.conn);
    side_end(&a);
    side_free(&a);
    side_free(&b);
    assert_int_equal(budget.used, 0);
    sem_destroy(&done);
}

/* Without budget the writer waits until there is some. */
static void test_no_buffers(void **state)
{
    (void)state;
    struct buf_budget was = {.cap = budget.cap};
    budget.cap = 3 * BUF_READ_SIZE;
    transfer(8 << 20, 0, true);
    assert_true(budget.drops > 0);
    budget.cap = was.cap;
    budget.drops = 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_byte),
        cmocka_unit_test(test_both_ways),
        cmocka_unit_test(test_left_behind),
        cmocka_unit_test(test_no_buffers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
