/* yamux: two muxes over a pipe that cuts anywhere, random operations against a model of what must
 * arrive; and payload spliced through a relay of two muxes. */
#include "transport/yamux.h"

#include "base/err.h"
#include "base/loop.h"
#include "tests/unit/prop.h"
#include "tests/unit/vectors.h"

#define STREAMS   400 /* ids below twice this */
#define WRITE_MAX 300000

static const uint8_t hash_key[16] = "0123456789abcde";

/* Byte number `at` of what side `from` says on stream id. */
static uint8_t content(uint32_t id, int from, uint64_t at)
{
    return (uint8_t)(id * 31 + (unsigned)from * 17 + at * 7 + (at >> 8) * 13 + (at >> 16));
}

static void fill(uint8_t *p, size_t n, uint32_t id, int from, uint64_t at)
{
    for (size_t i = 0; i < n; i++)
        p[i] = content(id, from, at + i);
}

/* ---- bytes on their way ---- */

struct wire {
    uint8_t *p;
    size_t len, cap;
};

static void wire_put(struct wire *w, const void *p, size_t n)
{
    if (w->cap - w->len < n) {
        w->cap = (w->len + n) * 2;
        w->p = realloc(w->p, w->cap);
        assert_non_null(w->p);
    }
    memcpy(w->p + w->len, p, n);
    w->len += n;
}

static void wire_drop(struct wire *w, size_t n)
{
    memmove(w->p, w->p + n, w->len - n);
    w->len -= n;
}

/* ---- the model ---- */

struct model_stream {
    struct yamux_stream *st[2]; /* handles of the two sides; NULL = none, or released */
    uint64_t wrote[2], read[2];
    bool fin[2];  /* that side has closed for writing */
    bool cut;     /* some side has reset it: bytes may be lost */
    bool gone[2]; /* that side has released it: what the other says may be lost */
};

struct world {
    struct prop r;
    struct bufpool *pool;
    struct yamux *y[2];
    struct wire wire[2]; /* from side 0, from side 1 */
    uint64_t now_ns;
    struct model_stream s[2 * STREAMS + 2];
    uint32_t opened[2];
};

static struct model_stream *model_of(struct world *w, const struct yamux_stream *st)
{
    assert_true(st->id < 2 * STREAMS + 2);
    return &w->s[st->id];
}

static void release(struct world *w, int side, struct yamux_stream *st, bool linger)
{
    struct model_stream *m = model_of(w, st);
    if (!linger)
        m->cut = true;
    m->fin[side] = true;
    m->gone[side] = true;
    m->st[side] = NULL;
    yamux_release(st, linger);
}

static void write_op(struct world *w, int side, struct yamux_stream *st)
{
    static uint8_t block[WRITE_MAX];
    struct model_stream *m = model_of(w, st);
    size_t n = prop_size(&w->r, WRITE_MAX);
    size_t room = yamux_writable(st);
    long taken;
    fill(block, n < room ? n : room, st->id, side, m->wrote[side]);
    if (prop_chance(&w->r, 50)) {
        taken = yamux_write(st, block, n);
    } else {
        size_t part = n < 65536 ? n : 65536;
        struct buf *b = buf_get(w->pool, part);
        assert_non_null(b);
        memcpy(buf_room(b), block, part < room ? part : room);
        taken = yamux_write_slice(st, buf_take(b, part));
        buf_put(b);
        n = part;
    }
    if (st->reset_err < 0 || m->fin[side]) {
        assert_int_equal(taken, st->reset_err < 0 ? st->reset_err : ERR_CLOSED);
        return;
    }
    assert_int_equal(taken, n < room ? n : room);
    m->wrote[side] += (uint64_t)taken;
}

static void check_bytes(struct world *w, int side, struct yamux_stream *st, const uint8_t *p,
                        size_t n)
{
    struct model_stream *m = model_of(w, st);
    for (size_t i = 0; i < n; i++)
        if (p[i] != content(st->id, 1 - side, m->read[side] + i))
            fail_msg("stream %u side %d: wrong byte %zu", st->id, side, (size_t)m->read[side] + i);
    m->read[side] += n;
    assert_true(m->read[side] <= m->wrote[1 - side]);
}

static void read_op(struct world *w, int side, struct yamux_stream *st, size_t max)
{
    static uint8_t got[YAMUX_WINDOW];
    size_t want = max < yamux_readable(st) ? max : yamux_readable(st), n = 0;
    switch (prop_below(&w->r, 3)) {
    case 0:
        n = yamux_read(st, got, max < sizeof got ? max : sizeof got);
        break;
    case 1: {
        struct bufq q;
        bufq_init(&q, w->pool);
        n = yamux_read_q(st, &q, max);
        assert_int_equal(bufq_read(&q, got, sizeof got), n);
        break;
    }
    default:
        n = yamux_peek(st, 0, got, max < sizeof got ? max : sizeof got);
        assert_int_equal(yamux_discard(st, n), n);
        break;
    }
    assert_int_equal(n, want);
    check_bytes(w, side, st, got, n);
}

/* Everything that was said has been heard, and nothing more. */
static void check_eof(struct world *w, int side, struct yamux_stream *st)
{
    struct model_stream *m = model_of(w, st);
    if (yamux_eof(st)) {
        assert_true(m->fin[1 - side]);
        assert_int_equal(m->read[side], m->wrote[1 - side]);
    }
}

static void handle_events(struct world *w, int side, bool finish)
{
    struct yamux_event ev;
    while (yamux_next(w->y[side], &ev)) {
        struct yamux_stream *st = ev.stream;
        if (st == NULL)
            continue;
        struct model_stream *m = model_of(w, st);
        if (ev.what & YAMUX_OPENED) {
            assert_null(m->st[side]);
            m->st[side] = st;
            if (finish || prop_chance(&w->r, 80))
                (void)yamux_accept(st);
        }
        assert_ptr_equal(m->st[side], st);
        if (ev.what & YAMUX_RESET) {
            assert_true(m->cut || m->gone[1 - side]);
            release(w, side, st, false);
            continue;
        }
        if (finish)
            read_op(w, side, st, YAMUX_WINDOW);
        check_eof(w, side, st);
    }
    assert_int_equal(yamux_error(w->y[side]), 0);
}

/* Some bytes leave a side, some arrive at the other. */
static void send_op(struct world *w, int side, size_t max)
{
    struct iovec iov[3];
    int cnt = yamux_output(w->y[side], iov, 1 + (int)prop_below(&w->r, 3));
    size_t n = 0;
    for (int i = 0; i < cnt && n < max; i++) {
        size_t part = iov[i].iov_len < max - n ? iov[i].iov_len : max - n;
        wire_put(&w->wire[side], iov[i].iov_base, part);
        n += part;
    }
    if (n > 0)
        yamux_sent(w->y[side], n, w->now_ns);
}

static void deliver_op(struct world *w, int side, size_t max)
{
    struct wire *from = &w->wire[1 - side];
    size_t n = from->len < max ? from->len : max;
    if (n > 65536)
        n = 65536;
    if (n == 0)
        return;
    struct buf *b = buf_get(w->pool, n);
    assert_non_null(b);
    memcpy(buf_room(b), from->p, n);
    struct slice in = buf_take(b, n);
    buf_put(b);
    wire_drop(from, n);
    assert_int_equal(yamux_input(w->y[side], in, w->now_ns), 0); /* credit is never overrun */
    slice_release(&in);
}

static struct yamux_stream *pick(struct world *w, int side)
{
    size_t from = prop_below(&w->r, 2 * STREAMS + 2);
    for (size_t i = 0; i < 2 * STREAMS + 2; i++) {
        struct model_stream *m = &w->s[(from + i) % (2 * STREAMS + 2)];
        if (m->st[side] != NULL)
            return m->st[side];
    }
    return NULL;
}

static void open_op(struct world *w, int side)
{
    struct yamux_stream *st;
    if (w->opened[side] == STREAMS)
        return;
    int rc = yamux_open(w->y[side], NULL, w->now_ns, &st);
    if (rc == ERR_LIMIT)
        return;
    assert_int_equal(rc, 0);
    w->opened[side]++;
    w->s[st->id].st[side] = st;
}

static void stream_op(struct world *w, int side)
{
    struct yamux_stream *st = pick(w, side);
    size_t what = prop_below(&w->r, 100);
    if (st == NULL)
        return;
    if (what < 45) {
        write_op(w, side, st);
    } else if (what < 85) {
        read_op(w, side, st, prop_size(&w->r, YAMUX_WINDOW));
    } else if (what < 89) {
        assert_int_equal(yamux_close_write(st), 0);
        model_of(w, st)->fin[side] = true;
    } else if (what < 91) {
        yamux_reset(st);
        model_of(w, st)->cut = model_of(w, st)->fin[side] = true;
        assert_true(yamux_write(st, "x", 1) < 0);
        release(w, side, st, prop_chance(&w->r, 50));
    } else if (what < 93) {
        release(w, side, st, prop_chance(&w->r, 70));
    } else if (what < 96) {
        (void)yamux_accept(st);
    } else if (what < 98) {
        yamux_want_room(st, 1 + prop_below(&w->r, YAMUX_WINDOW));
    } else {
        yamux_compact(w->y[side]);
    }
}

static void step(struct world *w)
{
    int side = (int)prop_below(&w->r, 2);
    size_t what = prop_below(&w->r, 100);
    if (what < 8)
        open_op(w, side);
    else if (what < 50)
        stream_op(w, side);
    else if (what < 70)
        send_op(w, side, prop_chance(&w->r, 20) ? prop_size(&w->r, 100) + 1 : 1 << 20);
    else if (what < 90)
        deliver_op(w, side, prop_chance(&w->r, 20) ? prop_size(&w->r, 100) + 1 : 1 << 20);
    else if (what < 92)
        (void)yamux_ping(w->y[side], w->now_ns);
    else if (what < 93)
        yamux_tick(w->y[side], w->now_ns += NS_PER_MS);
    else
        handle_events(w, side, false);
}

/* Both sides read and send until nothing moves any more. */
static void settle(struct world *w)
{
    size_t moved;
    do {
        moved = 0;
        for (int side = 0; side < 2; side++) {
            moved += yamux_pending(w->y[side]) + w->wire[side].len;
            send_op(w, side, 1 << 20);
            deliver_op(w, side, 1 << 20);
            handle_events(w, side, true);
            for (size_t id = 1; id < 2 * STREAMS + 2; id++)
                if (w->s[id].st[side] != NULL)
                    read_op(w, side, w->s[id].st[side], YAMUX_WINDOW);
        }
    } while (moved > 0);
}

static void check_all_arrived(struct world *w)
{
    for (size_t id = 1; id < 2 * STREAMS + 2; id++) {
        struct model_stream *m = &w->s[id];
        for (int side = 0; side < 2; side++) {
            if (m->st[side] != NULL && !m->cut)
                assert_int_equal(m->read[side], m->wrote[1 - side]);
        }
    }
}

static void assert_empty(struct world *w, int side)
{
    struct yamux_stat s;
    yamux_stat(w->y[side], &s);
    assert_int_equal(s.streams, 0);
    assert_int_equal(s.held, 0);
    assert_int_equal(s.unaccepted, 0);
    assert_int_equal(s.unacked, 0);
    assert_int_equal(s.rx_bytes, 0);
    assert_int_equal(s.out_bytes, 0);
    assert_int_equal(yamux_deadline(w->y[side]), LOOP_NEVER);
}

static void test_against_model(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    (void)state;
    assert_non_null(w);
    w->r = prop_init("yamux against model");
    w->pool = bufpool_new(NULL);
    for (int round = 0; round < 4; round++) {
        struct prop r = w->r;
        struct bufpool *pool = w->pool;
        memset(w, 0, sizeof *w);
        w->r = r;
        w->pool = pool;
        w->now_ns = NS_PER_S;
        for (int side = 0; side < 2; side++) {
            struct yamux_cfg cfg = {.client = side == 0, .out_high = round % 2 ? 40000 : 0};
            w->y[side] = yamux_new(&cfg, w->pool, hash_key);
            assert_non_null(w->y[side]);
        }
        for (int i = 0; i < 6000; i++)
            step(w);
        settle(w);
        check_all_arrived(w);
        /* End everything in order; then nothing may be left. */
        for (int side = 0; side < 2; side++)
            for (size_t id = 1; id < 2 * STREAMS + 2; id++)
                if (w->s[id].st[side] != NULL)
                    release(w, side, w->s[id].st[side], true);
        settle(w);
        for (int side = 0; side < 2; side++) {
            assert_empty(w, side);
            yamux_free(w->y[side]);
            free(w->wire[side].p);
        }
        assert_int_equal(bufpool_in_use(w->pool), 0);
    }
    bufpool_free(w->pool);
    free(w);
}

/* ---- source - relay - sink ---- */

struct hop {
    struct yamux *y[2]; /* dialer and acceptor */
    struct wire wire[2];
};

static void hop_init(struct hop *h, struct bufpool *pool)
{
    *h = (struct hop){0};
    for (int side = 0; side < 2; side++) {
        h->y[side] = yamux_new(&(struct yamux_cfg){.client = side == 0}, pool, hash_key);
        assert_non_null(h->y[side]);
    }
}

static size_t hop_move(struct hop *h, struct world *w, size_t max)
{
    size_t moved = 0;
    for (int side = 0; side < 2; side++) {
        w->y[side] = h->y[side];
        w->wire[side] = h->wire[side];
    }
    for (int side = 0; side < 2; side++) {
        moved += yamux_pending(h->y[side]) + w->wire[side].len;
        send_op(w, side, max);
        deliver_op(w, 1 - side, max);
    }
    for (int side = 0; side < 2; side++)
        h->wire[side] = w->wire[side];
    return moved;
}

/* Payload through two hops: all of it, in order, with the end; and what waits in the relay stays
 * within a window and an output queue. */
static void test_splice(void **state)
{
    enum { TOTAL = 3000000 };
    struct world *w = calloc(1, sizeof *w);
    struct hop a, b;
    struct yamux_stream *src, *in = NULL, *out, *sink = NULL;
    struct yamux_event ev;
    static uint8_t block[WRITE_MAX];
    uint64_t wrote = 0, got = 0;
    (void)state;
    assert_non_null(w);
    w->r = prop_init("yamux splice");
    w->pool = bufpool_new(NULL);
    hop_init(&a, w->pool);
    hop_init(&b, w->pool);
    assert_int_equal(yamux_open(a.y[0], NULL, 1, &src), 0);
    assert_int_equal(yamux_open(b.y[0], NULL, 1, &out), 0);
    bool done = false;
    for (int i = 0; i < 200000 && !done; i++) {
        if (wrote < TOTAL && prop_chance(&w->r, 30)) {
            size_t n = prop_size(&w->r, WRITE_MAX), room = yamux_writable(src);
            n = n < room ? n : room;
            n = n < TOTAL - wrote ? n : TOTAL - (size_t)wrote;
            fill(block, n, 1, 0, wrote);
            assert_int_equal(yamux_write(src, block, n), n);
            wrote += n;
            if (wrote == TOTAL)
                assert_int_equal(yamux_close_write(src), 0);
        }
        (void)hop_move(&a, w, prop_size(&w->r, 70000) + 1);
        while (yamux_next(a.y[1], &ev))
            in = ev.stream;
        if (in != NULL) {
            assert_true(yamux_splice(out, in) >= 0);
            if (yamux_eof(in) && !yamux_write_closed(out))
                assert_int_equal(yamux_close_write(out), 0);
            assert_true(yamux_rx_bytes(a.y[1]) <= YAMUX_WINDOW);
            assert_true(yamux_pending(b.y[0]) <= 262144 + 65536);
        }
        while (yamux_next(b.y[0], &ev))
            ;
        (void)hop_move(&b, w, prop_size(&w->r, 70000) + 1);
        while (yamux_next(b.y[1], &ev))
            sink = ev.stream;
        if (sink != NULL && prop_chance(&w->r, 60)) {
            size_t n = yamux_read(sink, block, prop_size(&w->r, WRITE_MAX));
            for (size_t k = 0; k < n; k++)
                assert_int_equal(block[k], content(1, 0, got + k));
            got += n;
            done = yamux_eof(sink);
        }
        while (yamux_next(a.y[0], &ev))
            ;
    }
    assert_true(done);
    assert_int_equal(got, TOTAL);
    for (int side = 0; side < 2; side++) {
        yamux_free(a.y[side]);
        yamux_free(b.y[side]);
        free(a.wire[side].p);
        free(b.wire[side].p);
    }
    assert_int_equal(bufpool_in_use(w->pool), 0);
    bufpool_free(w->pool);
    free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_model),
        cmocka_unit_test(test_splice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
