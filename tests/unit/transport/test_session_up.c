/* session: time limits, and the objects of stream set-up. */
#include "transport/session.h"

#include "base/cursor.h"
#include "base/err.h"
#include "base/loop.h"
#include "tests/unit/transport/session_side.h"
#include "tests/unit/vectors.h"

/* ---- time ---- */

static void test_handshake_deadline(void **state)
{
    struct session_side p;
    (void)state;
    ss_init(&p, 1);
    ss_start(&p, NULL);
    assert_int_equal(session_deadline(p.s), p.now_ns + 5 * NS_PER_S);
    /* One byte a second does not help. */
    for (int i = 0; i < 5; i++) {
        assert_int_equal(ss_feed(&p, "\0\61xyz" + i, 1, 1), 0);
        p.now_ns += NS_PER_S - 1;
        assert_int_equal(session_tick(p.s, p.now_ns), 0);
    }
    p.now_ns += 5;
    assert_int_equal(session_tick(p.s, p.now_ns), ERR_TIMEOUT);
    assert_int_equal(session_deadline(p.s), LOOP_NEVER);
    ss_close(&p);
}

static void test_handshake_deadline_while_work_is_under_way(void **state)
{
    struct session_side p[2];
    (void)state;
    ss_pair_init(p);
    p[1].env.deferred = true;
    ss_start(&p[1], NULL);
    ss_start(&p[0], &p[1].pk);
    ss_take(&p[0]);
    assert_int_equal(ss_feed(&p[1], p[0].out, p[0].out_len, 65536), 0);
    assert_true(env_test_queued(&p[1].env) > 0);
    p[1].now_ns += 5 * NS_PER_S;
    assert_int_equal(session_tick(p[1].s, p[1].now_ns), ERR_TIMEOUT);
    assert_int_equal(env_test_queued(&p[1].env), 0); /* cancelled */
    ss_pair_close(p);
}

/* The first multiplexer byte waits 60 ms behind message 3. */
static void test_hold_back(void **state)
{
    struct session_side p[2];
    struct yamux_stream *st;
    (void)state;
    ss_pair_init(p);
    ss_start(&p[1], NULL);
    ss_start_cfg(&p[0], &p[1].pk, (struct session_cfg){0});
    assert_int_equal(ss_pass(&p[0], &p[1], 65536), 0);
    assert_int_equal(ss_pass(&p[1], &p[0], 65536), 0);
    assert_true(p[0].up);
    assert_int_equal(yamux_open(session_mux(p[0].s), NULL, p[0].now_ns, &st), 0);
    p[0].now_ns +=
        NS_PER_S; /* the carrier was slow to take message 3: the pause counts from then */
    assert_int_equal(session_pending(p[0].s, p[0].now_ns), 67);
    ss_take(&p[0]);
    assert_int_equal(p[0].out_len, 67);
    assert_int_equal(session_pending(p[0].s, p[0].now_ns), 0);
    assert_int_equal(session_deadline(p[0].s), p[0].now_ns + 60 * NS_PER_MS);
    p[0].now_ns += 60 * NS_PER_MS;
    assert_int_equal(session_tick(p[0].s, p[0].now_ns), 0);
    assert_int_equal(session_pending(p[0].s, p[0].now_ns), YAMUX_HEADER_BYTES);
    ss_take(&p[0]);
    assert_int_equal(p[0].out_len, 67 + YAMUX_HEADER_BYTES);
    ss_pair_close(p);
}

/* Let time pass to the session's next deadline; returns it. */
static uint64_t next_deadline(struct session_side *p)
{
    uint64_t at = session_deadline(p->s);
    assert_true(at >= p->now_ns && at != LOOP_NEVER);
    p->now_ns = at;
    return at;
}

static void test_keepalive(void **state)
{
    struct session_side p[2];
    (void)state;
    ss_pair_init(p);
    ss_pair_connect(p, 65536);
    for (int round = 0; round < 5; round++) {
        uint64_t heard = session_heard_ns(p[0].s), at = next_deadline(&p[0]);
        assert_in_range(at - heard, 24 * NS_PER_S, 36 * NS_PER_S);
        assert_int_equal(session_tick(p[0].s, p[0].now_ns), 0);
        assert_int_equal(session_pending(p[0].s, p[0].now_ns), YAMUX_HEADER_BYTES);
        p[1].now_ns = p[0].now_ns;
        assert_int_equal(ss_pass(&p[0], &p[1], 65536), 0);
        p[0].now_ns += 9 * NS_PER_S; /* slow is not dead */
        assert_int_equal(session_tick(p[0].s, p[0].now_ns), 0);
        assert_int_equal(ss_pass(&p[1], &p[0], 65536), 0);
        assert_int_equal(session_rtt_ns(p[0].s), 9 * NS_PER_S);
        assert_int_equal(session_heard_ns(p[0].s), p[0].now_ns);
    }
    next_deadline(&p[0]);
    assert_int_equal(session_tick(p[0].s, p[0].now_ns), 0);
    ss_take(&p[0]);
    uint64_t asked = p[0].now_ns;
    assert_int_equal(next_deadline(&p[0]) - asked, 10 * NS_PER_S);
    assert_int_equal(session_tick(p[0].s, p[0].now_ns), ERR_TIMEOUT);
    ss_pair_close(p);
}

/* The multiplexer's own time limits count too. */
static void test_stream_deadline(void **state)
{
    struct session_side p[2];
    struct yamux_stream *st;
    (void)state;
    ss_pair_init(p);
    ss_pair_connect(p, 65536);
    assert_int_equal(yamux_open(session_mux(p[0].s), NULL, p[0].now_ns, &st), 0);
    ss_take(&p[0]);
    uint64_t began = p[0].now_ns;
    assert_int_equal(next_deadline(&p[0]) - began, 20 * NS_PER_S);
    assert_int_equal(session_tick(p[0].s, p[0].now_ns), 0);
    assert_int_equal(st->reset_err, ERR_TIMEOUT);
    yamux_release(st, false);
    ss_pair_close(p);
}

/* A peer that speaks is not asked. */
static void test_no_keepalive_when_heard(void **state)
{
    struct session_side p[2];
    (void)state;
    ss_pair_init(p);
    ss_pair_connect(p, 65536);
    for (int i = 0; i < 50; i++) {
        p[0].now_ns += 20 * NS_PER_S;
        assert_int_equal(session_tick(p[0].s, p[0].now_ns), 0);
        assert_int_equal(ss_feed_hex(&p[0], "000100000000000900000001"), 0);
        assert_int_equal(session_pending(p[0].s, p[0].now_ns), 0);
    }
    ss_pair_close(p);
}

static void test_write_stall(void **state)
{
    struct session_side p[2];
    struct yamux_stream *st[2];
    struct iovec iov[4];
    static uint8_t block[100000];
    (void)state;
    ss_pair_init(p);
    ss_pair_connect(p, 65536);
    ss_open_stream(p, st);
    assert_int_equal(yamux_write(st[0], block, sizeof block), sizeof block);
    assert_true(session_output(p[0].s, iov, 4, p[0].now_ns) > 0);
    assert_int_equal(session_deadline(p[0].s), p[0].now_ns + 10 * NS_PER_S);
    for (int i = 0; i < 100;
         i++) { /* a byte now and then is progress; no ping kills it meanwhile */
        p[0].now_ns += 9 * NS_PER_S;
        assert_int_equal(session_tick(p[0].s, p[0].now_ns), 0);
        assert_true(session_output(p[0].s, iov, 4, p[0].now_ns) > 0);
        session_sent(p[0].s, 1, p[0].now_ns);
    }
    p[0].now_ns += 10 * NS_PER_S;
    assert_int_equal(session_tick(p[0].s, p[0].now_ns), ERR_TIMEOUT);
    ss_pair_close(p);
}

static void test_idle_session_holds_no_buffers(void **state)
{
    struct session_side p[2];
    struct yamux_stream *st[2];
    (void)state;
    ss_pair_init(p);
    ss_pair_connect(p, 1);
    ss_open_stream(p, st);
    assert_int_equal(bufpool_in_use(p[0].pool), 0);
    assert_int_equal(bufpool_in_use(p[1].pool), 0);
    ss_pair_close(p);
}

/* ---- objects ---- */

static uint8_t big[SESSION_OBJECT_MAX + 1], got[SESSION_OBJECT_MAX];

static int read_object(struct session_side *p, struct yamux_stream *st, size_t *n)
{
    enum session_read what = SESSION_READ_MARKER;
    int rc = session_read_object(p->s, st, &what, got, sizeof got, n);
    if (rc == 0)
        assert_int_equal(what, SESSION_READ_OBJECT);
    return rc;
}

static void test_object_sizes(void **state)
{
    static const size_t sizes[] = {0, 1, 65, 348, 4070, 4096, 65509, 65510, 65511};
    struct session_side p[2];
    struct yamux_stream *st[2];
    size_t n;
    (void)state;
    ss_pair_init(p);
    ss_pair_connect(p, 65536);
    ss_open_stream(p, st);
    for (size_t i = 0; i < sizeof big; i++)
        big[i] = (uint8_t)(i * 7 + (i >> 8));
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        assert_int_equal(session_write_object(p[0].s, st[0], big, sizes[i]), 0);
        ss_take(&p[0]);
        /* Nothing before the last byte; then the object, and nothing behind it is touched. */
        assert_int_equal(ss_feed(&p[1], p[0].out, p[0].out_len - 1, i < 5 ? 1 : 65536), 0);
        assert_int_equal(read_object(&p[1], st[1], &n), ERR_AGAIN);
        assert_int_equal(ss_feed(&p[1], p[0].out + p[0].out_len - 1, 1, 1), 0);
        p[0].out_len = 0;
        assert_int_equal(yamux_write(st[0], "tail", 4), 4);
        assert_int_equal(ss_pass(&p[0], &p[1], 65536), 0);
        assert_int_equal(read_object(&p[1], st[1], &n), 0);
        assert_int_equal(n, sizes[i]);
        assert_memory_equal(got, big, n);
        assert_int_equal(yamux_read(st[1], got, sizeof got), 4);
        assert_memory_equal(got, "tail", 4);
        assert_int_equal(ss_pass(&p[1], &p[0], 65536), 0); /* credit */
    }
    assert_int_equal(session_write_object(p[0].s, st[0], big, 65512), ERR_TOO_LONG);
    assert_int_equal(session_write_object(p[0].s, st[0], big, 100), 0);
    assert_int_equal(ss_pass(&p[0], &p[1], 65536), 0);
    enum session_read what;
    assert_int_equal(session_read_object(p[1].s, st[1], &what, got, 123, &n), ERR_TOO_LONG);
    ss_pair_close(p);
}

/* Room for the whole object, or none of it; the stream is told when there is. */
static void test_object_waits_for_room(void **state)
{
    struct session_side p[2];
    struct yamux_stream *st[2];
    struct yamux_event ev;
    (void)state;
    ss_pair_init(p);
    ss_pair_connect(p, 65536);
    ss_open_stream(p, st);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(yamux_write(st[0], big, i < 3 ? 65536 : 65436), i < 3 ? 65536 : 65436);
        assert_int_equal(ss_pass(&p[0], &p[1], 65536), 0);
    }
    assert_int_equal(st[0]->send_window, 100);
    assert_int_equal(session_write_object(p[0].s, st[0], big, 100), ERR_AGAIN);
    assert_false(yamux_next(session_mux(p[0].s), &ev)); /* 100 bytes of window are no use */
    assert_int_equal(yamux_discard(st[1], 200000), 200000);
    ss_take(&p[1]);
    struct slice in = {.p = p[1].out, .n = p[1].out_len};
    assert_int_equal(session_input(p[0].s, in, p[0].now_ns), 0);
    p[1].out_len = 0;
    assert_true(yamux_next(session_mux(p[0].s), &ev));
    assert_int_equal(ev.what, YAMUX_WRITABLE);
    assert_int_equal(session_write_object(p[0].s, st[0], big, 100), 0);
    yamux_reset(st[0]);
    assert_int_equal(session_write_object(p[0].s, st[0], big, 100), ERR_CLOSED);
    ss_pair_close(p);
}

/* The sealed object of the next write, without its frame header. */
static size_t sealed_object(struct session_side *p, struct yamux_stream *st, const char *text,
                            uint8_t *out)
{
    assert_int_equal(session_write_object(p->s, st, text, strlen(text)), 0);
    ss_take(p);
    size_t n = p->out_len - YAMUX_HEADER_BYTES;
    memcpy(out, p->out + YAMUX_HEADER_BYTES, n);
    p->out_len = 0;
    return n;
}

/* Bytes as payload of stream id, from nowhere. */
static void inject(struct session_side *p, uint32_t id, const uint8_t *bytes, size_t n)
{
    uint8_t head[YAMUX_HEADER_BYTES] = {0};
    put_be32(head + 4, id);
    put_be32(head + 8, (uint32_t)n);
    assert_int_equal(ss_feed(p, head, sizeof head, sizeof head), 0);
    assert_int_equal(ss_feed(p, bytes, n, 65536), 0);
}

static void test_object_counters(void **state)
{
    struct session_side p[2];
    struct yamux_stream *st[2];
    uint8_t obj[4][64];
    size_t n[4], got_n;
    (void)state;
    ss_pair_init(p);
    ss_pair_connect(p, 65536);
    ss_open_stream(p, st);
    for (int i = 0; i < 4; i++)
        n[i] = sealed_object(&p[0], st[0], "object", obj[i]);
    /* 3, 1, 2: they overtake each other on their streams. */
    static const int order[] = {2, 0, 1};
    for (int i = 0; i < 3; i++) {
        inject(&p[1], 1, obj[order[i]], n[order[i]]);
        assert_int_equal(read_object(&p[1], st[1], &got_n), 0);
        assert_int_equal(got_n, 6);
    }
    for (int i = 0; i < 3; i++) { /* replay */
        inject(&p[1], 1, obj[i], n[i]);
        assert_int_equal(read_object(&p[1], st[1], &got_n), ERR_NONCE);
    }
    /* A forged one does not use up the counter of the genuine one (incident 15). */
    obj[3][n[3] - 1] ^= 1;
    inject(&p[1], 1, obj[3], n[3]);
    assert_int_equal(read_object(&p[1], st[1], &got_n), ERR_TAG);
    obj[3][n[3] - 1] ^= 1;
    inject(&p[1], 1, obj[3], n[3]);
    assert_int_equal(read_object(&p[1], st[1], &got_n), 0);
    memset(obj[3] + 2, 0, 8); /* counter 0 */
    inject(&p[1], 1, obj[3], n[3]);
    assert_int_equal(read_object(&p[1], st[1], &got_n), ERR_NONCE);
    memset(obj[3] + 2, 0xff, 8); /* a huge one, forged: no harm to later ones */
    inject(&p[1], 1, obj[3], n[3]);
    assert_int_equal(read_object(&p[1], st[1], &got_n), ERR_TAG);
    n[0] = sealed_object(&p[0], st[0], "later", obj[0]);
    /* 1024 newer ones make it too old. */
    for (int i = 0; i < 1024; i++)
        n[1] = sealed_object(&p[0], st[0], "newer", obj[1]);
    inject(&p[1], 1, obj[1], n[1]);
    assert_int_equal(read_object(&p[1], st[1], &got_n), 0);
    inject(&p[1], 1, obj[0], n[0]);
    assert_int_equal(read_object(&p[1], st[1], &got_n), ERR_NONCE);
    assert_true(session_is_up(p[1].s));
    ss_pair_close(p);
}

static void test_bad_objects_spare_the_session(void **state)
{
    struct session_side p[2];
    struct yamux_stream *st[2];
    enum session_read what;
    size_t n;
    (void)state;
    ss_pair_init(p);
    ss_pair_connect(p, 65536);
    ss_open_stream(p, st);
    inject(&p[1], 1, (const uint8_t[]){0, 0}, 2); /* ping marker */
    assert_int_equal(session_read_object(p[1].s, st[1], &what, got, sizeof got, &n), 0);
    assert_int_equal(what, SESSION_READ_MARKER);
    assert_int_equal(yamux_readable(st[1]), 0);
    inject(&p[1], 1, (const uint8_t[]){0, 23, 0}, 3);
    assert_int_equal(read_object(&p[1], st[1], &n), ERR_AGAIN);
    inject(&p[1], 1, big, 22);
    assert_int_equal(read_object(&p[1], st[1], &n), ERR_SHORT);
    (void)yamux_discard(st[1], 100);
    memset(big, 0xff, sizeof big);
    inject(&p[1], 1, big, 65536);
    inject(&p[1], 1, big, 1);
    assert_int_equal(read_object(&p[1], st[1], &n), ERR_TAG);
    assert_int_equal(yamux_readable(st[1]), 0);
    /* The end in the middle of one. */
    inject(&p[1], 1, (const uint8_t[]){0}, 1);
    assert_int_equal(read_object(&p[1], st[1], &n), ERR_AGAIN);
    assert_int_equal(yamux_close_write(st[0]), 0);
    assert_int_equal(ss_pass(&p[0], &p[1], 65536), 0);
    assert_int_equal(read_object(&p[1], st[1], &n), ERR_EOF);
    ss_open_stream(p, st);
    yamux_reset(st[0]);
    assert_int_equal(ss_pass(&p[0], &p[1], 65536), 0);
    assert_int_equal(read_object(&p[1], st[1], &n), ERR_RESET);
    assert_true(session_is_up(p[1].s));
    ss_pair_close(p);
}

/* Errors that users of the mux run into end the session at its next tick. */
static void test_protocol_error(void **state)
{
    struct session_side p[2];
    struct yamux_stream *st[2];
    (void)state;
    ss_pair_init(p);
    ss_pair_connect(p, 65536);
    ss_open_stream(p, st);
    assert_int_equal(session_ping(p[1].s, p[1].now_ns), 0);
    assert_int_equal(ss_feed_hex(&p[1], "010000000000000000000000"), ERR_PROTOCOL);
    assert_int_equal(session_tick(p[1].s, p[1].now_ns), ERR_PROTOCOL);
    assert_int_equal(session_ping(p[1].s, p[1].now_ns), ERR_STATE);
    assert_int_equal(session_write_object(p[1].s, st[1], "x", 1), ERR_PROTOCOL);
    assert_int_equal(session_pending(p[1].s, p[1].now_ns), 0);
    yamux_release(st[1], false); /* still the user's to give back */
    ss_pair_close(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_handshake_deadline),
        cmocka_unit_test(test_handshake_deadline_while_work_is_under_way),
        cmocka_unit_test(test_hold_back),
        cmocka_unit_test(test_keepalive),
        cmocka_unit_test(test_stream_deadline),
        cmocka_unit_test(test_no_keepalive_when_heard),
        cmocka_unit_test(test_write_stall),
        cmocka_unit_test(test_idle_session_holds_no_buffers),
        cmocka_unit_test(test_object_sizes),
        cmocka_unit_test(test_object_waits_for_room),
        cmocka_unit_test(test_object_counters),
        cmocka_unit_test(test_bad_objects_spare_the_session),
        cmocka_unit_test(test_protocol_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
