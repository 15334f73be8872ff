/* yamux: limits, credit, fairness, and how streams end. */
#include "transport/yamux.h"

#include "base/cursor.h"
#include "base/err.h"
#include "base/loop.h"
#include "tests/unit/transport/yamux_side.h"
#include "tests/unit/vectors.h"

/* ---- limits ---- */

static void test_backlog_of_the_peer(void **state)
{
    struct yamux_side s;
    struct yamux_stream *first = NULL;
    ys_init(&s, ys_pool(state), (struct yamux_cfg){0});
    for (uint32_t i = 0; i < 513; i++) {
        assert_int_equal(ys_feed_frame(&s, YAMUX_T_WINDOW, YAMUX_F_SYN, 1 + 2 * i, 0), 0);
        ys_pump(&s);
        assert_int_equal(s.opened != NULL, i < 512);
        if (i == 0)
            first = s.opened;
    }
    assert_int_equal(ys_sent_frames(&s, YAMUX_T_WINDOW, YAMUX_F_RST), 1);
    assert_int_equal(ys_stat(&s).refused_streams, 1);
    assert_int_equal(ys_stat(&s).unaccepted, 512);
    assert_int_equal(yamux_accept(first), 0);
    assert_int_equal(yamux_accept(first), ERR_STATE);
    assert_int_equal(ys_feed_frame(&s, YAMUX_T_WINDOW, YAMUX_F_SYN, 5001, 0), 0);
    /* A reset gives its place back too. */
    assert_int_equal(ys_feed_frame(&s, YAMUX_T_WINDOW, YAMUX_F_RST, 5001, 0), 0);
    assert_int_equal(ys_feed_frame(&s, YAMUX_T_WINDOW, YAMUX_F_SYN, 5003, 0), 0);
    assert_int_equal(ys_stat(&s).refused_streams, 1);
    ys_close(&s);
}

static void test_backlog_of_ours(void **state)
{
    struct yamux_side c;
    struct yamux_stream *st, *first = NULL, *second = NULL;
    ys_init(&c, ys_pool(state), (struct yamux_cfg){.client = true});
    for (uint32_t i = 0; i < 256; i++) {
        assert_int_equal(yamux_open(c.y, NULL, c.now_ns, &st), 0);
        assert_int_equal(st->id, 1 + 2 * i);
        if (i == 0)
            first = st;
        else if (i == 1)
            second = st;
    }
    assert_int_equal(yamux_open(c.y, NULL, c.now_ns, &st), ERR_LIMIT);
    assert_null(st);
    /* ACK, reset by the peer, our own release, time-out: each gives the place back (incident 20).
     */
    assert_int_equal(ys_feed_frame(&c, YAMUX_T_WINDOW, YAMUX_F_ACK, 1, 0), 0);
    assert_int_equal(yamux_open(c.y, NULL, c.now_ns, &st), 0);
    assert_int_equal(ys_feed_frame(&c, YAMUX_T_WINDOW, YAMUX_F_RST, 5, 0), 0);
    assert_int_equal(yamux_open(c.y, NULL, c.now_ns, &st), 0);
    yamux_release(second, false);
    assert_int_equal(yamux_open(c.y, NULL, c.now_ns, &st), 0);
    yamux_release(st, true);
    assert_int_equal(yamux_open(c.y, NULL, c.now_ns, &st), 0);
    assert_int_equal(yamux_open(c.y, NULL, c.now_ns, &st), ERR_LIMIT);
    assert_int_equal(ys_stat(&c).unacked, 256);

    assert_int_equal(yamux_deadline(c.y), c.now_ns + 20 * NS_PER_S);
    c.now_ns += 20 * NS_PER_S;
    yamux_tick(c.y, c.now_ns);
    ys_pump(&c);
    assert_int_equal(c.last->reset_err, ERR_TIMEOUT);
    assert_int_equal(ys_stat(&c).unacked, 0);
    assert_int_equal(ys_stat(&c).streams, 2); /* the acknowledged one, and one that lingers */
    assert_false(yamux_write_closed(first));
    assert_int_equal(ys_sent_frames(&c, YAMUX_T_WINDOW, YAMUX_F_RST), 1 + 256);
    ys_close(&c);
}

static void test_table_full_and_linger(void **state)
{
    struct yamux_side c;
    struct yamux_stream *st, *a;
    unsigned rsts = 0;
    ys_init(&c, ys_pool(state),
            (struct yamux_cfg){.client = true, .max_streams = 3, .linger_ms = 1000});
    for (int i = 0; i < 3; i++)
        assert_int_equal(yamux_open(c.y, NULL, c.now_ns, &a), 0);
    assert_int_equal(yamux_open(c.y, NULL, c.now_ns, &st), ERR_LIMIT);
    assert_int_equal(ys_feed_frame(&c, YAMUX_T_WINDOW, YAMUX_F_SYN, 2, 0), 0);
    assert_int_equal(ys_stat(&c).refused_streams, 1);

    /* Streams that only wait for the peer's FIN do not keep new ones out. */
    for (int i = 0; i < 100000; i++) {
        yamux_release(a, true);
        assert_int_equal(yamux_open(c.y, NULL, c.now_ns, &a), 0);
        rsts += ys_sent_frames(&c, YAMUX_T_WINDOW, YAMUX_F_RST);
    }
    assert_int_equal(ys_stat(&c).streams, 3);
    yamux_release(a, true);
    assert_int_equal(rsts + ys_sent_frames(&c, YAMUX_T_WINDOW, YAMUX_F_RST), 1 + 100000);
    c.now_ns += NS_PER_S - 1;
    yamux_tick(c.y, c.now_ns);
    assert_int_equal(ys_stat(&c).streams, 3);
    yamux_tick(c.y, ++c.now_ns);
    assert_int_equal(ys_sent_frames(&c, YAMUX_T_WINDOW, YAMUX_F_RST), 1);
    assert_int_equal(ys_stat(&c).streams, 2);
    ys_close(&c);
}

/* Nobody reads a released stream. A peer that has used up its credit cannot even end it: it is reset
 * soon, while others have the time to finish. */
static void test_peer_stuck_behind_a_release(void **state)
{
    struct yamux_side s;
    ys_init(&s, ys_pool(state), (struct yamux_cfg){0});
    for (uint32_t id = 1; id <= 7; id += 2) {
        struct yamux_stream *st = ys_open_accepted(&s, id);
        uint32_t before = id == 7 ? YAMUX_WINDOW : 0, left = YAMUX_WINDOW - before - (id == 3);
        for (uint32_t n = before; n > 0; n -= 32768)
            assert_int_equal(ys_feed_frame(&s, YAMUX_T_DATA, 0, id, 32768), 0);
        yamux_release(st, true);
        for (uint32_t n; left > 0; left -= n) {
            n = left < 32768 ? left : 32768;
            assert_int_equal(
                ys_feed_frame(&s, YAMUX_T_DATA, id == 5 && left == n ? YAMUX_F_FIN : 0, id, n), 0);
        }
    }
    assert_int_equal(ys_stat(&s).streams, 3); /* 5 has ended in order */
    assert_int_equal(yamux_deadline(s.y), s.now_ns + 2 * NS_PER_S);
    (void)ys_sent_frames(&s, YAMUX_T_WINDOW, YAMUX_F_RST);
    s.now_ns += 2 * NS_PER_S;
    yamux_tick(s.y, s.now_ns);
    assert_int_equal(ys_sent_frames(&s, YAMUX_T_WINDOW, YAMUX_F_RST), 2); /* 1 and 7 */
    assert_int_equal(ys_stat(&s).streams, 1);
    assert_int_equal(yamux_deadline(s.y), s.now_ns + 28 * NS_PER_S);
    assert_int_equal(ys_feed_frame(&s, YAMUX_T_DATA, YAMUX_F_FIN, 3, 1), 0);
    assert_int_equal(ys_stat(&s).streams, 0);
    ys_close(&s);
}

/* Ids of our parity taken by the peer are stepped over. */
static void test_foreign_parity(void **state)
{
    struct yamux_side c;
    struct yamux_stream *st;
    ys_init(&c, ys_pool(state), (struct yamux_cfg){.client = true});
    (void)ys_open_accepted(&c, 1);
    (void)ys_open_accepted(&c, 5);
    assert_int_equal(yamux_open(c.y, NULL, c.now_ns, &st), 0);
    assert_int_equal(st->id, 3);
    assert_int_equal(yamux_open(c.y, NULL, c.now_ns, &st), 0);
    assert_int_equal(st->id, 7);
    ys_close(&c);
}

static void test_ping_flood(void **state)
{
    struct yamux_side s;
    int rc = 0;
    unsigned n = 0;
    ys_init(&s, ys_pool(state), (struct yamux_cfg){0});
    /* Read now and then: any number is answered. */
    for (unsigned i = 0; i < 20000; i++) {
        assert_int_equal(ys_feed_frame(&s, YAMUX_T_PING, YAMUX_F_SYN, 0, i), 0);
        if (i % 1000 == 0)
            (void)ys_sent_frames(&s, YAMUX_T_PING, YAMUX_F_ACK);
    }
    (void)ys_sent_frames(&s, YAMUX_T_PING, YAMUX_F_ACK);
    /* Never read: bounded, then the session ends. */
    while (rc == 0 && n++ < 20000)
        rc = ys_feed_frame(&s, YAMUX_T_PING, YAMUX_F_SYN, 0, n);
    assert_int_equal(rc, ERR_LIMIT);
    assert_in_range(yamux_pending(s.y), 60000, 70000);
    ys_close(&s);
}

static void test_window_flood_costs_nothing(void **state)
{
    struct yamux_side s;
    ys_init(&s, ys_pool(state), (struct yamux_cfg){0});
    struct yamux_stream *st = ys_open_accepted(&s, 1);
    ys_take_all(&s);
    for (unsigned i = 0; i < 50000; i++)
        assert_int_equal(ys_feed_frame(&s, YAMUX_T_WINDOW, 0, 1 + 2 * (i % 2), 1), 0);
    assert_int_equal(st->send_window, YAMUX_WINDOW + 25000);
    assert_int_equal(yamux_pending(s.y), 0);
    assert_int_equal(bufpool_in_use(s.pool), 0);
    ys_close(&s);
}

/* 1-byte frames: a whole window of them, unread, does not pin much more than the window. */
static void test_one_byte_frames(void **state)
{
    struct yamux_pool *f = *state;
    struct yamux_side s;
    uint8_t chunk[13 * 5000], got[5000];
    ys_init(&s, f->pool, (struct yamux_cfg){0});
    struct yamux_stream *st = ys_open_accepted(&s, 1);
    ys_take_all(&s);
    for (size_t i = 0; i < 5000; i++) {
        memset(chunk + 13 * i, 0, 13);
        chunk[13 * i + 7] = 1;
        chunk[13 * i + 11] = 1;
        chunk[13 * i + 12] = (uint8_t)i;
    }
    for (int i = 0; i < 52; i++)
        assert_int_equal(ys_feed(&s, chunk, sizeof chunk, MAX_BODY), 0);
    assert_int_equal(yamux_readable(st), 260000);
    assert_in_range(f->budget.used, 260000, 260000 + 65536);
    for (int i = 0; i < 52; i++) {
        assert_int_equal(yamux_read(st, got, sizeof got), sizeof got);
        assert_int_equal(got[4999], (uint8_t)4999);
    }
    assert_int_equal(st->recv_window, YAMUX_WINDOW);
    ys_close(&s);
}

/* The same on the way out: what waits costs little more than its bytes. */
static void test_small_writes(void **state)
{
    struct yamux_pool *f = *state;
    struct yamux_side s;
    struct yamux_frame fr;
    ys_init(&s, f->pool, (struct yamux_cfg){0});
    struct yamux_stream *in = ys_open_accepted(&s, 1), *out = ys_open_accepted(&s, 3);
    ys_take_all(&s);
    s.out_len = 0;
    for (int i = 0; i < 10000; i++) {
        assert_int_equal(ys_feed_frame(&s, YAMUX_T_DATA, 0, 1, 1), 0);
        assert_int_equal(yamux_splice(out, in), 1);
    }
    assert_int_equal(yamux_pending(s.y), 13 * 10000);
    assert_true(f->budget.used <= 13 * 10000 * 11 / 10);
    ys_take_all(&s);
    size_t at = 0, n = 0;
    while (ys_next_frame(&s, &at, &fr))
        n += fr.type == YAMUX_T_DATA && fr.id == 3 && fr.len == 1;
    assert_int_equal(n, 10000);
    ys_close(&s);
}

/* Pieces that stay do not keep the read buffers around them. */
static void test_compact(void **state)
{
    struct yamux_pool *f = *state;
    struct yamux_side s;
    static uint8_t chunk[12 + 300 + 12 * 1000];
    ys_init(&s, f->pool, (struct yamux_cfg){0});
    struct yamux_stream *st = ys_open_accepted(&s, 1);
    ys_take_all(&s);
    for (size_t i = 0; i < 1000; i++)
        chunk[312 + 12 * i + 1] = YAMUX_T_WINDOW; /* of an unknown stream */
    chunk[7] = 1;
    put_be32(chunk + 8, 300);
    for (int i = 0; i < 20; i++) {
        memset(chunk + 12, i, 300);
        assert_int_equal(ys_feed(&s, chunk, sizeof chunk, sizeof chunk), 0);
    }
    assert_int_equal(f->budget.used, 20 * 16384);
    yamux_compact(s.y);
    assert_true(f->budget.used <= 8192);
    assert_int_equal(yamux_readable(st), 6000);
    for (int i = 0; i < 20; i++) {
        uint8_t got[300];
        assert_int_equal(yamux_read(st, got, sizeof got), sizeof got);
        assert_true(got[0] == i && got[299] == i);
    }
    ys_close(&s);
}

/* ---- credit and order ---- */

/* cfg.exact: each byte that is consumed is granted at once, also behind a FIN, and the writer hears of
 * it and knows how much waits at the other end. */
static void test_exact_credit(void **state)
{
    struct yamux_side s;
    struct yamux_stream *ours;
    uint8_t got[1000];
    ys_init(&s, ys_pool(state), (struct yamux_cfg){.client = true, .exact = true});
    struct yamux_stream *st = ys_open_accepted(&s, 2);
    ys_take_all(&s);
    s.out_len = 0;
    assert_int_equal(ys_feed_frame(&s, YAMUX_T_DATA, YAMUX_F_FIN, 2, 1000), 0);
    for (size_t n = 1; n <= 400; n *= 20) {
        struct yamux_frame f;
        size_t at = 0;
        assert_int_equal(yamux_read(st, got, n), n);
        ys_take_all(&s);
        assert_true(ys_next_frame(&s, &at, &f) && f.type == YAMUX_T_WINDOW && f.len == n);
        assert_false(ys_next_frame(&s, &at, &f));
        s.out_len = 0;
    }
    assert_int_equal(yamux_open(s.y, NULL, s.now_ns, &ours), 0);
    assert_int_equal(ys_feed_frame(&s, YAMUX_T_WINDOW, YAMUX_F_ACK, ours->id, 0), 0);
    assert_int_equal(yamux_write(ours, got, 1000), 1000);
    assert_int_equal(yamux_under_way(ours), 1000);
    ys_pump(&s);
    assert_int_equal(ys_feed_frame(&s, YAMUX_T_WINDOW, 0, ours->id, 300), 0);
    ys_pump(&s);
    assert_true(s.last == ours && s.what == YAMUX_CREDIT);
    assert_int_equal(yamux_under_way(ours), 700);
    assert_int_equal(ys_feed_frame(&s, YAMUX_T_WINDOW, 0, ours->id, 700), 0);
    assert_int_equal(yamux_under_way(ours), 0);
    ys_close(&s);
}

static void test_credit_follows_consumption(void **state)
{
    struct yamux_side s;
    struct yamux_frame f;
    uint8_t got[1000];
    ys_init(&s, ys_pool(state), (struct yamux_cfg){0});
    struct yamux_stream *st = ys_open_accepted(&s, 1);
    ys_take_all(&s);
    s.out_len = 0;
    for (int i = 0; i < 4; i++)
        assert_int_equal(ys_feed_frame(&s, YAMUX_T_DATA, 0, 1, YAMUX_WINDOW / 4), 0);
    assert_int_equal(st->recv_window, 0);
    assert_int_equal(yamux_pending(s.y), 0); /* received is not consumed */

    uint64_t granted = 0, read = 0;
    while (yamux_readable(st) > 0) {
        read += yamux_read(st, got, sizeof got);
        ys_take_all(&s);
        size_t at = 0;
        while (ys_next_frame(&s, &at, &f))
            granted += f.len;
        s.out_len = 0;
        assert_true(granted <= read && read - granted < YAMUX_WINDOW / 2);
    }
    assert_int_equal(st->recv_window, granted);
    /* No more credit for a stream that has ended. */
    assert_int_equal(ys_feed_frame(&s, YAMUX_T_DATA, YAMUX_F_FIN, 1, (uint32_t)granted), 0);
    assert_int_equal(yamux_discard(st, YAMUX_WINDOW), granted);
    assert_int_equal(yamux_pending(s.y), 0);
    assert_true(yamux_eof(st));
    ys_close(&s);
}

static void test_parked_order(void **state)
{
    struct yamux_side s;
    uint8_t got[10];
    ys_init(&s, ys_pool(state), (struct yamux_cfg){0});
    struct yamux_stream *a = ys_open_accepted(&s, 1), *b = ys_open_accepted(&s, 3);
    assert_null(yamux_longest_stalled(s.y));
    assert_int_equal(ys_feed_frame(&s, YAMUX_T_DATA, 0, 1, 20), 0);
    s.now_ns += 5;
    assert_int_equal(ys_feed_frame(&s, YAMUX_T_DATA, 0, 3, 20), 0);
    assert_int_equal(ys_feed_frame(&s, YAMUX_T_DATA, 0, 1, 20), 0);
    assert_ptr_equal(yamux_longest_stalled(s.y), a);
    assert_int_equal(b->rx_since_ns - a->rx_since_ns, 5);
    assert_int_equal(yamux_read(a, got, sizeof got), 10); /* touched */
    assert_ptr_equal(yamux_longest_stalled(s.y), b);
    assert_int_equal(yamux_rx_bytes(s.y), 50);
    yamux_release(b, false);
    assert_ptr_equal(yamux_longest_stalled(s.y), a);
    assert_int_equal(yamux_rx_bytes(s.y), 30);
    yamux_release(a, true);
    assert_int_equal(yamux_rx_bytes(s.y), 0);
    assert_null(yamux_longest_stalled(s.y));
    assert_int_equal(ys_feed_frame(&s, YAMUX_T_DATA, 0, 1, 20), 0); /* nobody reads it */
    assert_int_equal(yamux_rx_bytes(s.y), 0);
    ys_close(&s);
}

/* Pings, credit and resets overtake queued payload, at a frame border; FIN does not. */
static void test_urgent_frames_overtake(void **state)
{
    struct yamux_side s;
    struct yamux_frame f;
    static uint8_t payload[100000];
    ys_init(&s, ys_pool(state), (struct yamux_cfg){0});
    struct yamux_stream *st = ys_open_accepted(&s, 1);
    ys_take_all(&s);
    s.out_len = 0;
    assert_int_equal(yamux_write(st, payload, sizeof payload), sizeof payload);
    assert_int_equal(ys_take(&s, 5000), 5000); /* in the middle of the first frame */
    assert_int_equal(ys_feed_frame(&s, YAMUX_T_PING, YAMUX_F_SYN, 0, 77), 0);
    assert_int_equal(yamux_close_write(st), 0);
    while (ys_take(&s, 777) > 0) /* cut anywhere, also within the ping */
        ;
    size_t at = 0;
    assert_true(ys_next_frame(&s, &at, &f) && f.type == YAMUX_T_DATA && f.len == 65536);
    assert_true(ys_next_frame(&s, &at, &f) && f.type == YAMUX_T_PING && f.len == 77);
    assert_true(ys_next_frame(&s, &at, &f) && f.type == YAMUX_T_DATA &&
                f.len == sizeof payload - 65536);
    assert_true(ys_next_frame(&s, &at, &f) && f.flags == YAMUX_F_FIN);
    assert_false(ys_next_frame(&s, &at, &f));
    ys_close(&s);
}

/* Several writers with more to say than there is room for: each gets its share, nobody starves. */
static void test_fair_writers(void **state)
{
    enum { N = 9 };
    static const uint8_t block[65536];
    struct yamux_side s;
    struct yamux_stream *st[N];
    uint64_t wrote[N] = {0};
    struct yamux_event ev;
    ys_init(&s, ys_pool(state), (struct yamux_cfg){.out_high = 131072});
    for (uint32_t i = 0; i < N; i++) {
        st[i] = ys_open_accepted(&s, 1 + 2 * i);
        st[i]->user = &wrote[i];
        assert_int_equal(ys_feed_frame(&s, YAMUX_T_WINDOW, 0, st[i]->id, 1u << 30), 0);
    }
    for (int i = 0; i < N; i++) {
        long n = yamux_write(st[i], block, sizeof block);
        assert_true(n >= 0);
        wrote[i] += (uint64_t)n;
    }
    for (int round = 0; round < 2000; round++) {
        (void)ys_take(&s, 20000);
        s.out_len = 0;
        /* The greedy one tries at every turn, asked or not. */
        long n = yamux_write(st[0], block, sizeof block);
        assert_true(n >= 0);
        wrote[0] += (uint64_t)n;
        while (yamux_next(s.y, &ev)) {
            assert_int_equal(ev.what, YAMUX_WRITABLE);
            n = yamux_write(ev.stream, block, sizeof block);
            assert_true(n > 0);
            *(uint64_t *)ev.stream->user += (uint64_t)n;
        }
    }
    uint64_t least = UINT64_MAX, most = 0;
    for (int i = 0; i < N; i++) {
        least = wrote[i] < least ? wrote[i] : least;
        most = wrote[i] > most ? wrote[i] : most;
    }
    assert_true(least > 3000000);
    assert_true(most <= least + least / 4); /* acting before one's event wins a place, no more */
    ys_close(&s);
}

/* A writer without window waits for the peer's update only; others are not held up. */
static void test_stalled_stream_holds_up_nobody(void **state)
{
    static const uint8_t block[65536];
    struct yamux_side s;
    ys_init(&s, ys_pool(state), (struct yamux_cfg){0});
    struct yamux_stream *a = ys_open_accepted(&s, 1), *b = ys_open_accepted(&s, 3);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(yamux_write(a, block, sizeof block), sizeof block);
        ys_take_all(&s);
    }
    assert_int_equal(yamux_write(a, block, 1), 0);
    ys_pump(&s);
    assert_int_equal(s.what & YAMUX_WRITABLE, 0);
    assert_int_equal(yamux_write(b, block, sizeof block), sizeof block);
    ys_take_all(&s);
    assert_int_equal(ys_feed_frame(&s, YAMUX_T_WINDOW, 0, 1, 10), 0);
    ys_pump(&s);
    assert_int_equal(s.what, YAMUX_WRITABLE);
    assert_ptr_equal(s.last, a);
    assert_int_equal(yamux_write(a, block, 100), 10);
    ys_close(&s);
}

static void test_objects_fit_past_the_line(void **state)
{
    static uint8_t block[300000];
    struct yamux_side s;
    struct bufq q;
    ys_init(&s, ys_pool(state), (struct yamux_cfg){0});
    struct yamux_stream *a = ys_open_accepted(&s, 1), *b = ys_open_accepted(&s, 3),
                        *c = ys_open_accepted(&s, 5);
    assert_int_equal(yamux_write(a, block, 200000), 200000);
    assert_int_equal(yamux_write(b, block, 200000), 62144 - 4 * YAMUX_HEADER_BYTES);
    assert_int_equal(yamux_writable(c), 0);
    assert_true(yamux_write_fits(c, 65537));
    assert_false(yamux_write_fits(a, 65537)); /* its window */
    bufq_init(&q, s.pool);
    assert_int_equal(bufq_append_copy(&q, block, 65537), 0);
    assert_int_equal(yamux_write_q(c, &q, 65537), 0);
    assert_int_equal(bufq_len(&q), 0);
    assert_false(yamux_write_fits(c, 1)); /* not a second one */
    ys_close(&s);
}

/* ---- ends ---- */

static void test_half_close_both_ways(void **state)
{
    struct yamux_side s;
    uint8_t got[10];
    ys_init(&s, ys_pool(state), (struct yamux_cfg){0});
    struct yamux_stream *st = ys_open_accepted(&s, 1);
    assert_int_equal(yamux_close_write(st), 0);
    assert_int_equal(yamux_close_write(st), 0);
    assert_int_equal(yamux_write(st, "x", 1), ERR_CLOSED);
    assert_int_equal(ys_sent_frames(&s, YAMUX_T_WINDOW, YAMUX_F_FIN), 1);
    /* The other direction lives on, with credit, as long as it likes. */
    for (int i = 0; i < 100; i++) {
        assert_int_equal(ys_feed_frame(&s, YAMUX_T_DATA, 0, 1, 60000), 0);
        assert_int_equal(yamux_discard(st, 60000), 60000);
    }
    assert_int_equal(ys_feed_frame(&s, YAMUX_T_DATA, YAMUX_F_FIN, 1, 10), 0);
    ys_pump(&s);
    assert_int_equal(s.what, YAMUX_READABLE | YAMUX_EOF);
    assert_false(yamux_eof(st));
    assert_int_equal(ys_stat(&s).streams, 0);
    assert_int_equal(ys_stat(&s).held, 1); /* what came can still be read */
    assert_int_equal(yamux_read(st, got, sizeof got), 10);
    assert_true(yamux_eof(st));
    yamux_release(st, false);
    ys_take_all(&s);
    ys_assert_idle(&s);
    ys_close(&s);
}

static void test_refused_by_release_is_acknowledged(void **state)
{
    for (int linger = 0; linger < 2; linger++) {
        struct yamux_side s;
        ys_init(&s, ys_pool(state), (struct yamux_cfg){0});
        assert_int_equal(ys_feed_frame(&s, YAMUX_T_WINDOW, YAMUX_F_SYN, 1, 0), 0);
        ys_pump(&s);
        yamux_release(s.opened, linger != 0);
        assert_int_equal(ys_stat(&s).unaccepted, 0);
        assert_int_equal(
            ys_sent_frames(&s, YAMUX_T_WINDOW, YAMUX_F_ACK | (linger ? YAMUX_F_FIN : YAMUX_F_RST)),
            1);
        if (linger)
            assert_int_equal(ys_feed_frame(&s, YAMUX_T_WINDOW, YAMUX_F_FIN, 1, 0), 0);
        ys_assert_idle(&s);
        ys_close(&s);
    }
}

/* Behind a reset nothing else is news. */
static void test_reset_hides_other_news(void **state)
{
    struct yamux_side s;
    ys_init(&s, ys_pool(state), (struct yamux_cfg){0});
    (void)ys_open_accepted(&s, 1);
    for (uint32_t id = 1; id < 4; id += 2) {
        if (id == 3)
            assert_int_equal(ys_feed_frame(&s, YAMUX_T_WINDOW, YAMUX_F_SYN, id, 0), 0);
        assert_int_equal(ys_feed_frame(&s, YAMUX_T_DATA, YAMUX_F_FIN, id, 10), 0);
        assert_int_equal(ys_feed_frame(&s, YAMUX_T_WINDOW, YAMUX_F_RST, id, 0), 0);
        ys_pump(&s);
        assert_int_equal(s.what, id == 1 ? YAMUX_RESET : YAMUX_OPENED | YAMUX_RESET);
        assert_int_equal(yamux_readable(s.last), 0);
        assert_int_equal(yamux_accept(s.last), ERR_STATE);
    }
    ys_close(&s);
}

/* The frame being read belongs to a stream that goes away in the middle of it. */
static void test_release_in_the_middle_of_a_frame(void **state)
{
    static const uint8_t head[12] = {0, 0, 0, YAMUX_F_FIN, 0, 0, 0, 1, 0, 0, 4, 0};
    for (int how = 0; how < 3; how++) {
        struct yamux_side s;
        uint8_t body[1024] = {0};
        ys_init(&s, ys_pool(state), (struct yamux_cfg){0});
        struct yamux_stream *st = ys_open_accepted(&s, 1);
        (void)ys_open_accepted(&s, 3);
        assert_int_equal(ys_feed(&s, head, sizeof head, 12), 0);
        assert_int_equal(ys_feed(&s, body, 500, 100), 0);
        if (how == 0)
            yamux_reset(st);
        else
            yamux_release(st, how == 1);
        assert_int_equal(ys_feed(&s, body, 524, 100), 0);
        assert_int_equal(ys_feed_frame(&s, YAMUX_T_DATA, 0, 3, 7), 0);
        ys_pump(&s);
        assert_int_equal(s.what, YAMUX_READABLE);
        assert_int_equal(yamux_readable(s.last), 7);
        assert_int_equal(ys_stat(&s).streams, 1);
        ys_close(&s);
    }
}

static void test_go_away(void **state)
{
    struct yamux_side s;
    struct yamux_stream *st;
    ys_init(&s, ys_pool(state), (struct yamux_cfg){0});
    struct yamux_stream *old = ys_open_accepted(&s, 1);
    yamux_go_away(s.y, 0);
    yamux_go_away(s.y, 0);
    assert_int_equal(ys_sent_frames(&s, YAMUX_T_GOAWAY, 0), 1);
    assert_int_equal(ys_feed_frame(&s, YAMUX_T_WINDOW, YAMUX_F_SYN, 3, 0), 0);
    assert_int_equal(ys_sent_frames(&s, YAMUX_T_WINDOW, YAMUX_F_RST), 1);
    assert_int_equal(ys_feed_frame(&s, YAMUX_T_GOAWAY, 0, 0, 0), 0);
    ys_pump(&s);
    assert_int_equal(s.what, YAMUX_GOAWAY);
    assert_int_equal(yamux_open(s.y, NULL, s.now_ns, &st), ERR_CLOSED);
    assert_int_equal(yamux_write(old, "x", 1), 1); /* existing ones go on */
    ys_close(&s);
}

static void test_ping(void **state)
{
    struct yamux_side s;
    struct yamux_event ev;
    uint64_t since;
    ys_init(&s, ys_pool(state), (struct yamux_cfg){0});
    assert_false(yamux_ping_pending(s.y, &since));
    assert_int_equal(yamux_ping(s.y, s.now_ns), 0);
    assert_int_equal(yamux_ping(s.y, s.now_ns), ERR_BUSY);
    assert_true(yamux_ping_pending(s.y, &since));
    assert_int_equal(since, s.now_ns);
    s.now_ns += 5 * NS_PER_MS;
    assert_int_equal(ys_feed_frame(&s, YAMUX_T_PING, YAMUX_F_ACK, 0, 0), 0);
    assert_true(yamux_next(s.y, &ev));
    assert_int_equal(ev.what, YAMUX_PONG);
    assert_int_equal(ev.rtt_ns, 5 * NS_PER_MS);
    assert_false(yamux_next(s.y, &ev));
    /* One that was never answered does not stand in the way for ever, and its late answer is none.
     */
    assert_int_equal(yamux_ping(s.y, s.now_ns), 0);
    s.now_ns += 10 * NS_PER_S;
    assert_int_equal(yamux_ping(s.y, s.now_ns), 0);
    assert_int_equal(ys_feed_frame(&s, YAMUX_T_PING, YAMUX_F_ACK, 0, 1), 0);
    assert_false(yamux_next(s.y, &ev));
    assert_int_equal(ys_feed_frame(&s, YAMUX_T_PING, YAMUX_F_ACK, 0, 2), 0);
    assert_true(yamux_next(s.y, &ev));
    ys_close(&s);
}

/* ---- no memory ---- */

static void test_out_of_buffers(void **state)
{
    static uint8_t block[30000];
    struct yamux_pool *f = *state;
    struct yamux_side s;
    ys_init(&s, f->pool, (struct yamux_cfg){0});
    struct yamux_stream *st = ys_open_accepted(&s, 1);
    ys_take_all(&s);
    f->budget.cap = 16384;
    /* Nothing is taken, and nothing is broken. */
    assert_int_equal(yamux_write(st, block, sizeof block), ERR_NOMEM);
    assert_int_equal(yamux_pending(s.y), 0);
    assert_int_equal(st->send_window, YAMUX_WINDOW);
    assert_int_equal(yamux_write(st, block, 8000), 8000);
    assert_int_equal(yamux_error(s.y), 0);
    ys_take_all(&s);
    /* A control frame that cannot be sent ends the session. */
    f->budget.cap = 1;
    assert_int_equal(yamux_close_write(st), ERR_NOMEM);
    assert_int_equal(yamux_error(s.y), ERR_NOMEM);
    f->budget.cap = 0;
    assert_int_equal(ys_feed_frame(&s, YAMUX_T_PING, YAMUX_F_SYN, 0, 0), ERR_NOMEM);
    ys_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, ys_setup, ys_teardown)
        T(test_backlog_of_the_peer),
        T(test_backlog_of_ours),
        T(test_table_full_and_linger),
        T(test_peer_stuck_behind_a_release),
        T(test_foreign_parity),
        T(test_ping_flood),
        T(test_window_flood_costs_nothing),
        T(test_one_byte_frames),
        T(test_small_writes),
        T(test_compact),
        T(test_credit_follows_consumption),
        T(test_exact_credit),
        T(test_parked_order),
        T(test_urgent_frames_overtake),
        T(test_fair_writers),
        T(test_stalled_stream_holds_up_nobody),
        T(test_objects_fit_past_the_line),
        T(test_half_close_both_ways),
        T(test_refused_by_release_is_acknowledged),
        T(test_reset_hides_other_news),
        T(test_release_in_the_middle_of_a_frame),
        T(test_go_away),
        T(test_ping),
        T(test_out_of_buffers),
#undef T
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
