/* A relay between a fast writer and a slow reader, and others on the same sessions (incident 30). */
#include "tests/unit/vectors.h"

#include "tests/unit/transport/relay_world.h"

#define MIB (UINT64_C(1) << 20)

/* A carrier of 8 MB/s each way. */
static void limit(struct rw_peer *p)
{
    p->conn->out.rate = p->inner->out.rate = 8000000;
    p->conn->out.window = p->inner->out.window = 200000;
}

static uint64_t max_buffered(struct rw_world *w, uint64_t ns, void (*each)(void *arg), void *arg)
{
    uint64_t most = 0;
    for (uint64_t t = 0; t < ns; t += 100 * NS_PER_MS) {
        rw_run(w, 100 * NS_PER_MS);
        if (each != NULL)
            each(arg);
        struct relay_stat s = rw_stat(w);
        most = s.buffered > most ? s.buffered : most;
    }
    return most;
}

struct slow {
    struct rw_stream *st;
    uint64_t taken;
};

/* 10 KB/s. */
static void read_a_little(void *arg)
{
    static uint8_t buf[1024];
    struct slow *x = arg;
    if (x->st != NULL && x->st->st != NULL)
        x->taken += yamux_read(x->st->st, buf, sizeof buf);
    link_kick(x->st->peer->link);
}

/* Seconds that 16 MiB take from one to the other, beside the slow stream or without it. */
static uint64_t fast_ns(struct rw_world *w, struct rw_peer *a, struct rw_peer *b, struct slow *x)
{
    struct rw_stream *out = rw_dial(a, &b->key.pk);
    assert_int_equal(rw_verdict(out), 0);
    struct rw_stream *in = rw_last_incoming(b);
    uint64_t began = pipe_now(&w->net);
    rw_pattern(out, 16 * MIB, true);
    for (int i = 0; i < 6000 && in->got < 16 * MIB; i++) {
        rw_run(w, 10 * NS_PER_MS);
        if (x != NULL && i % 10 == 0)
            read_a_little(x);
    }
    assert_int_equal(in->got, 16 * MIB);
    return pipe_now(&w->net) - began;
}

static void test_slow_reader(void **state)
{
    struct rw_world w;
    struct slow x = {0};

    (void)state;
    rw_init(&w, NULL);
    struct rw_peer *a = rw_peer_new(&w, 1), *b = rw_peer_new(&w, 2);
    limit(a);
    limit(b);
    uint64_t alone = fast_ns(&w, a, b, NULL);

    b->keep = true; /* the reader of what follows is slow */
    struct rw_stream *out = rw_dial(a, &b->key.pk);
    assert_int_equal(rw_verdict(out), 0);
    x.st = rw_last_incoming(b);
    b->keep = false;
    rw_pattern(out, 1024 * MIB, false);
    uint64_t buffered = max_buffered(&w, 60 * NS_PER_S, read_a_little, &x);
    assert_true(buffered <= 2 * YAMUX_WINDOW);
    assert_true(x.taken >= 500000 && x.taken <= 700000);
    assert_true(out->sent <= x.taken + 3 * YAMUX_WINDOW); /* the writer waits, too */

    /* The session of both carries others as fast as before. */
    uint64_t beside = fast_ns(&w, a, b, &x);
    assert_true(beside * 8 <= alone * 10);
    beside = fast_ns(&w, b, a, &x);
    assert_true(beside * 8 <= alone * 10);
    assert_false(rw_over(out));
    rw_reset(out);
    rw_free(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slow_reader),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
