/* yamux: recorded bytes, every frame in every state of a stream, limits, credit, fairness, and two
 * muxes against a model. */
#include "transport/yamux.h"

#include "base/cursor.h"
#include "base/err.h"
#include "base/loop.h"
#include "tests/unit/prop.h"
#include "tests/unit/vectors.h"

static const uint8_t hash_key[16] = "0123456789abcde";

/* ---- one mux, its output, and what its events said ---- */

struct side {
    struct bufpool *pool;
    struct yamux *y;
    uint64_t now_ns;
    uint8_t *out; /* everything it sent and nobody has looked at */
    size_t out_len, out_cap;
    struct yamux_stream *last; /* of the latest event with a stream */
    unsigned what;             /* union of the events since the last pump() */
    struct yamux_stream *opened;
};

static void side_init(struct side *s, struct bufpool *pool, struct yamux_cfg cfg)
{
    *s = (struct side){.pool = pool, .now_ns = NS_PER_S};
    s->y = yamux_new(&cfg, pool, hash_key);
    assert_non_null(s->y);
}

static void side_close(struct side *s)
{
    yamux_free(s->y);
    free(s->out);
}

/* Take up to max bytes of output, as a socket would. */
static size_t take(struct side *s, size_t max)
{
    struct iovec iov[5];
    int n = yamux_output(s->y, iov, 5);
    size_t done = 0;
    for (int i = 0; i < n && done < max; i++) {
        size_t part = iov[i].iov_len < max - done ? iov[i].iov_len : max - done;
        if (s->out_cap - s->out_len < part) {
            s->out_cap = (s->out_len + part) * 2;
            s->out = realloc(s->out, s->out_cap);
            assert_non_null(s->out);
        }
        memcpy(s->out + s->out_len, iov[i].iov_base, part);
        s->out_len += part;
        done += part;
    }
    if (done > 0)
        yamux_sent(s->y, done, s->now_ns);
    return done;
}

static void take_all(struct side *s)
{
    while (take(s, SIZE_MAX) > 0)
        ;
    assert_int_equal(yamux_pending(s->y), 0);
}

static void pump(struct side *s)
{
    struct yamux_event ev;
    s->what = 0;
    s->last = s->opened = NULL;
    while (yamux_next(s->y, &ev)) {
        s->what |= ev.what;
        if (ev.stream != NULL)
            s->last = ev.stream;
        if (ev.what & YAMUX_OPENED)
            s->opened = ev.stream;
    }
}

/* Feed n bytes in pieces of at most chunk, each in a buffer of its own as from a socket. */
static int feed(struct side *s, const void *p, size_t n, size_t chunk)
{
    const uint8_t *src = p;
    int rc = 0;
    while (n > 0 && rc == 0) {
        size_t part = n < chunk ? n : chunk;
        struct buf *b = buf_get(s->pool, part);
        assert_non_null(b);
        memcpy(buf_room(b), src, part);
        struct slice in = buf_take(b, part);
        buf_put(b);
        rc = yamux_input(s->y, in, s->now_ns);
        slice_release(&in);
        src += part;
        n -= part;
    }
    return rc;
}

#define MAX_BODY 65536
static uint8_t zeros[YAMUX_HEADER_BYTES + YAMUX_WINDOW + 1];

/* A frame with a body of zeros. */
static int feed_frame(struct side *s, unsigned type, unsigned flags, uint32_t id, uint32_t len)
{
    size_t n = YAMUX_HEADER_BYTES + (type == YAMUX_T_DATA ? len : 0);
    uint8_t *f = calloc(1, n);
    assert_non_null(f);
    f[1] = (uint8_t)type;
    put_be16(f + 2, (uint16_t)flags);
    put_be32(f + 4, id);
    put_be32(f + 8, len);
    int rc = feed(s, f, n, MAX_BODY);
    free(f);
    return rc;
}

struct frame {
    unsigned type, flags;
    uint32_t id, len;
    const uint8_t *body;
};

/* Parse the next frame of what was taken; false at the end. */
static bool next_frame(const struct side *s, size_t *at, struct frame *f)
{
    if (*at == s->out_len)
        return false;
    const uint8_t *p = s->out + *at;
    assert_true(s->out_len - *at >= YAMUX_HEADER_BYTES);
    assert_int_equal(p[0], 0);
    *f = (struct frame){p[1], get_be16(p + 2), get_be32(p + 4), get_be32(p + 8),
                        p + YAMUX_HEADER_BYTES};
    *at += YAMUX_HEADER_BYTES;
    if (f->type == YAMUX_T_DATA) {
        assert_true(s->out_len - *at >= f->len);
        *at += f->len;
    }
    return true;
}

/* Takes all output; how many frames of this type have all of these flags. */
static unsigned sent_frames(struct side *s, unsigned type, unsigned flags)
{
    struct frame f;
    unsigned n = 0;
    take_all(s);
    for (size_t at = 0; next_frame(s, &at, &f);)
        n += f.type == type && (f.flags & flags) == flags;
    s->out_len = 0;
    return n;
}

static struct yamux_stat stat_of(const struct side *s)
{
    struct yamux_stat st;
    yamux_stat(s->y, &st);
    return st;
}

static void assert_idle(const struct side *s)
{
    struct yamux_stat st = stat_of(s);
    assert_int_equal(st.streams, 0);
    assert_int_equal(st.held, 0);
    assert_int_equal(st.unaccepted, 0);
    assert_int_equal(st.unacked, 0);
    assert_int_equal(st.rx_bytes, 0);
    assert_int_equal(st.out_bytes, 0);
    assert_int_equal(yamux_deadline(s->y), LOOP_NEVER);
    assert_int_equal(yamux_error(s->y), 0);
}

struct pool_fixture {
    struct buf_budget budget;
    struct bufpool *pool;
};

static int pool_setup(void **state)
{
    struct pool_fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->pool = bufpool_new(&f->budget);
    assert_non_null(f->pool);
    *state = f;
    return 0;
}

static int pool_teardown(void **state)
{
    struct pool_fixture *f = *state;
    assert_int_equal(bufpool_in_use(f->pool), 0);
    bufpool_free(f->pool);
    free(f);
    return 0;
}

static struct bufpool *pool_of(void **state)
{
    return ((struct pool_fixture *)*state)->pool;
}

/* ---- recorded bytes ---- */

static struct yamux_stream *open_accepted(struct side *s, uint32_t id)
{
    assert_int_equal(feed_frame(s, YAMUX_T_WINDOW, YAMUX_F_SYN, id, 0), 0);
    pump(s);
    assert_non_null(s->opened);
    assert_int_equal(yamux_accept(s->opened), 0);
    return s->opened;
}

/* What a sample frame means to a mux, and what our own API produces for it. */
struct sample {
    bool client; /* our side when it is received */
    bool stream; /* stream 1 exists already */
    unsigned what;
    int rc;
};

static void test_vector_frames_parse(void **state)
{
    static const struct sample expect[12] = {
        {false, false, YAMUX_OPENED, 0},
        {true, true, YAMUX_ACKED, 0},
        {false, true, YAMUX_READABLE, 0},
        {false, false, YAMUX_OPENED | YAMUX_READABLE, 0},
        {false, true, 0, 0},
        {false, true, YAMUX_EOF, 0},
        {false, true, YAMUX_RESET, 0},
        {false, false, 0, 0},
        {false, false, YAMUX_PONG, 0},
        {false, false, YAMUX_GOAWAY, 0},
        {false, false, 0, ERR_PROTOCOL},
        {false, false, 0, ERR_PROTOCOL},
    };
    json_t *root = vectors_load("dmsg");
    const json_t *v;
    size_t i;
    json_array_foreach(vec_get(vec_get(root, "yamux"), "frames"), i, v)
    {
        struct side s;
        struct yamux_stream *st = NULL;
        size_t n;
        uint8_t *frame = vec_hex_dup(v, "hex", &n);
        assert_true(i < 12);
        side_init(&s, pool_of(state), (struct yamux_cfg){.client = expect[i].client});
        if (expect[i].stream && expect[i].client)
            assert_int_equal(yamux_open(s.y, NULL, s.now_ns, &st), 0);
        else if (expect[i].stream)
            st = open_accepted(&s, 1);
        if (expect[i].what == YAMUX_PONG)
            assert_int_equal(yamux_ping(s.y, s.now_ns), 0);
        take_all(&s);
        s.out_len = 0;

        assert_int_equal(feed(&s, frame, n, 3), expect[i].rc);
        pump(&s);
        assert_int_equal(s.what, expect[i].what);
        if (s.what & YAMUX_READABLE) {
            uint8_t got[16];
            assert_int_equal(yamux_read(s.last, got, sizeof got), 5);
            assert_memory_equal(got, "hello", 5);
        }
        if (i == 4)
            assert_int_equal(st->send_window, YAMUX_WINDOW + YAMUX_WINDOW / 2);
        if (i == 7)
            assert_int_equal(sent_frames(&s, YAMUX_T_PING, YAMUX_F_ACK), 1);
        free(frame);
        side_close(&s);
    }
    assert_int_equal(i, 12);
    json_decref(root);
}

/* Output taken so far is exactly this hex, then forget it. */
static void expect_hex(struct side *s, const char *hex)
{
    size_t n;
    uint8_t *want = hex_dup(hex, &n);
    take_all(s);
    assert_int_equal(s->out_len, n);
    assert_memory_equal(s->out, want, n);
    s->out_len = 0;
    free(want);
}

static void test_vector_frames_produce(void **state)
{
    struct side c, s;
    struct yamux_stream *st, *peer;
    side_init(&c, pool_of(state), (struct yamux_cfg){.client = true});
    side_init(&s, pool_of(state), (struct yamux_cfg){0});
    assert_int_equal(yamux_open(c.y, NULL, 1, &st), 0);
    expect_hex(&c, "000100010000000100000000");
    peer = open_accepted(&s, 1);
    expect_hex(&s, "000100020000000100000000");
    assert_int_equal(yamux_write(st, "hello", 5), 5);
    expect_hex(&c, "00000000000000010000000568656c6c6f");
    assert_int_equal(feed_frame(&s, YAMUX_T_DATA, 0, 1, YAMUX_WINDOW / 2), 0);
    assert_int_equal(yamux_discard(peer, YAMUX_WINDOW / 2 - 1), YAMUX_WINDOW / 2 - 1);
    assert_int_equal(yamux_pending(s.y), 0);
    assert_int_equal(yamux_discard(peer, 1), 1);
    expect_hex(&s, "000100000000000100020000");
    assert_int_equal(yamux_close_write(st), 0);
    expect_hex(&c, "000100040000000100000000");
    yamux_release(peer, false);
    expect_hex(&s, "000100080000000100000000");
    assert_int_equal(yamux_ping(c.y, 1), 0);
    expect_hex(&c, "000200010000000000000000");
    assert_int_equal(feed_frame(&s, YAMUX_T_PING, YAMUX_F_SYN, 0, 0), 0);
    expect_hex(&s, "000200020000000000000000");
    yamux_go_away(c.y, 0);
    expect_hex(&c, "000300000000000000000000");
    yamux_go_away(s.y, 2);
    expect_hex(&s, "000300000000000000000002");
    side_close(&c);
    side_close(&s);
}

struct replay {
    struct side s;
    const json_t *lines;
    size_t at;
};

/* The next lines of the recording, as long as they come from the other side: feed them. */
static void replay_in(struct replay *r, const char *from, size_t lines)
{
    while (lines-- > 0) {
        const json_t *v = json_array_get(r->lines, r->at++);
        size_t n;
        uint8_t *p = vec_hex_dup(v, "hex", &n);
        assert_string_equal(vec_str(v, "from"), from);
        assert_int_equal(feed(&r->s, p, n, 5), 0);
        free(p);
    }
    pump(&r->s);
}

static void replay_out(struct replay *r, const char *from, size_t lines)
{
    char hex[256] = "";
    while (lines-- > 0) {
        const json_t *v = json_array_get(r->lines, r->at++);
        assert_string_equal(vec_str(v, "from"), from);
        assert_true(strlen(hex) + strlen(vec_str(v, "hex")) < sizeof hex);
        strcat(hex, vec_str(v, "hex"));
    }
    expect_hex(&r->s, hex);
}

static void test_vector_exchange_client(void **state)
{
    json_t *root = vectors_load("dmsg");
    struct replay r = {.lines = vec_get(vec_get(root, "yamux"), "captured_exchange")};
    struct yamux_stream *a, *b;
    uint8_t got[8];
    side_init(&r.s, pool_of(state), (struct yamux_cfg){.client = true});
    assert_int_equal(yamux_open(r.s.y, NULL, 1, &a), 0);
    replay_out(&r, "client", 1);
    replay_in(&r, "server", 1);
    assert_int_equal(r.s.what, YAMUX_ACKED);
    assert_int_equal(yamux_write(a, "hello", 5), 5);
    replay_out(&r, "client", 2);
    replay_in(&r, "server", 2);
    assert_int_equal(yamux_read(a, got, sizeof got), 5);
    assert_memory_equal(got, "world", 5);
    assert_int_equal(yamux_close_write(a), 0);
    replay_out(&r, "client", 1);
    replay_in(&r, "server", 2);
    assert_int_equal(r.s.what, YAMUX_EOF | YAMUX_OPENED);
    assert_true(yamux_eof(a));
    b = r.s.opened;
    assert_int_equal(yamux_accept(b), 0);
    replay_out(&r, "client", 1);
    replay_in(&r, "server", 1);
    assert_int_equal(yamux_close_write(b), 0);
    replay_out(&r, "client", 1);
    assert_int_equal(yamux_ping(r.s.y, 1), 0);
    replay_out(&r, "client", 1);
    replay_in(&r, "server", 2);
    assert_int_equal(r.s.what, YAMUX_PONG);
    replay_out(&r, "client", 1);
    yamux_go_away(r.s.y, 0);
    replay_out(&r, "client", 1);
    assert_int_equal(r.at, json_array_size(r.lines));
    yamux_release(a, false);
    yamux_release(b, true);
    assert_idle(&r.s);
    side_close(&r.s);
    json_decref(root);
}

static void test_vector_exchange_server(void **state)
{
    json_t *root = vectors_load("dmsg");
    struct replay r = {.lines = vec_get(vec_get(root, "yamux"), "captured_exchange")};
    struct yamux_stream *a, *b;
    uint8_t got[8];
    side_init(&r.s, pool_of(state), (struct yamux_cfg){0});
    replay_in(&r, "client", 1);
    a = r.s.opened;
    assert_int_equal(yamux_accept(a), 0);
    replay_out(&r, "server", 1);
    replay_in(&r, "client", 2);
    assert_int_equal(yamux_read(a, got, sizeof got), 5);
    assert_memory_equal(got, "hello", 5);
    assert_int_equal(yamux_write(a, "world", 5), 5);
    replay_out(&r, "server", 2);
    replay_in(&r, "client", 1);
    assert_int_equal(r.s.what, YAMUX_EOF);
    assert_int_equal(yamux_close_write(a), 0);
    replay_out(&r, "server", 1);
    assert_int_equal(yamux_open(r.s.y, NULL, 1, &b), 0);
    replay_out(&r, "server", 1);
    replay_in(&r, "client", 1);
    assert_int_equal(r.s.what, YAMUX_ACKED);
    assert_int_equal(yamux_close_write(b), 0);
    replay_out(&r, "server", 1);
    replay_in(&r, "client", 2);
    replay_out(&r, "server", 1);
    assert_int_equal(yamux_ping(r.s.y, 1), 0);
    replay_out(&r, "server", 1);
    replay_in(&r, "client", 2);
    assert_int_equal(r.s.what, YAMUX_PONG | YAMUX_GOAWAY);
    assert_int_equal(r.at, json_array_size(r.lines));
    assert_int_equal(yamux_open(r.s.y, NULL, 1, &(struct yamux_stream *){NULL}), ERR_CLOSED);
    yamux_release(a, true);
    yamux_release(b, false);
    assert_idle(&r.s);
    side_close(&r.s);
    json_decref(root);
}

/* ---- every frame in every state (docs/protocol/dmsg.md §3.3, §8.3) ---- */

enum st_state { NONE, NEW, OPEN, PEER_FIN, OUR_FIN, BOTH_FIN, LINGER, OUR_RST, SYN_SENT, STATES };
enum fr {
    F_DATA,   /* 5 bytes */
    F_EMPTY,  /* data of no bytes */
    F_WINDOW, /* 7 more */
    F_SYN,
    F_DATA_SYN,
    F_ACK,
    F_DATA_ACK,
    F_FIN,
    F_DATA_FIN,
    F_RST,
    F_OVERRUN,   /* data of a window and one byte */
    F_OVERFLOW,  /* window update that sums above 2^32 */
    F_LATE_FLAG, /* an unknown flag bit */
    FRAMES
};

static const struct {
    unsigned type, flags;
    uint32_t len;
} frames[FRAMES] = {
    [F_DATA] = {YAMUX_T_DATA, 0, 5},
    [F_EMPTY] = {YAMUX_T_DATA, 0, 0},
    [F_WINDOW] = {YAMUX_T_WINDOW, 0, 7},
    [F_SYN] = {YAMUX_T_WINDOW, YAMUX_F_SYN, 0},
    [F_DATA_SYN] = {YAMUX_T_DATA, YAMUX_F_SYN, 5},
    [F_ACK] = {YAMUX_T_WINDOW, YAMUX_F_ACK, 0},
    [F_DATA_ACK] = {YAMUX_T_DATA, YAMUX_F_ACK, 5},
    [F_FIN] = {YAMUX_T_WINDOW, YAMUX_F_FIN, 0},
    [F_DATA_FIN] = {YAMUX_T_DATA, YAMUX_F_FIN, 5},
    [F_RST] = {YAMUX_T_WINDOW, YAMUX_F_RST, 0},
    [F_OVERRUN] = {YAMUX_T_DATA, 0, YAMUX_WINDOW + 1},
    [F_OVERFLOW] = {YAMUX_T_WINDOW, 0, UINT32_MAX},
    [F_LATE_FLAG] = {YAMUX_T_WINDOW, 0x10, 0},
};

/*
 * E the session ends      . nothing but what the frame carries     n a new stream
 * f EOF, still half open  g gone: id free                           a acknowledged
 * R reset by the peer     x reset by us, with RST on the wire       i ignored, counted as late
 */
static const char *const outcome[STATES] = {
    /*            D0WS+AaFfROV? */
    [NONE] = "iiinniiiiiiii",     [NEW] = "...EE..ffREE.",     [OPEN] = "...EE..ffREE.",
    [PEER_FIN] = "x..EE.xEEREE.", [OUR_FIN] = "...EE..ggREE.", [BOTH_FIN] = "iiinniiiiiiii",
    [LINGER] = "...EE..gggEE.",   [OUR_RST] = "iiinniiiiiiii", [SYN_SENT] = "...EEaaffREE.",
};

/* A mux with stream `id` in that state; NULL when the user does not hold it. */
static struct yamux_stream *make_state(struct side *s, enum st_state state, uint32_t *id)
{
    struct yamux_stream *st = NULL;
    *id = state == SYN_SENT ? 2 : 1;
    switch (state) {
    case NONE:
    case STATES:
        return NULL;
    case SYN_SENT:
        assert_int_equal(yamux_open(s->y, NULL, s->now_ns, &st), 0);
        return st;
    case NEW:
        assert_int_equal(feed_frame(s, YAMUX_T_WINDOW, YAMUX_F_SYN, 1, 0), 0);
        pump(s);
        return s->opened;
    case OPEN:
    case PEER_FIN:
    case OUR_FIN:
    case BOTH_FIN:
    case LINGER:
    case OUR_RST:
        break;
    }
    st = open_accepted(s, 1);
    if (state == PEER_FIN || state == BOTH_FIN)
        assert_int_equal(feed_frame(s, YAMUX_T_WINDOW, YAMUX_F_FIN, 1, 0), 0);
    if (state == OUR_FIN || state == BOTH_FIN)
        assert_int_equal(yamux_close_write(st), 0);
    if (state == OUR_RST)
        yamux_reset(st);
    if (state == LINGER) {
        yamux_release(st, true);
        st = NULL;
    }
    pump(s);
    return st;
}

static char judge(struct side *s, const struct yamux_stream *st, int rc, struct yamux_stat before,
                  bool held)
{
    struct yamux_stat after = stat_of(s);
    if (rc < 0)
        return 'E';
    if (s->opened != NULL)
        return 'n';
    if (after.late_frames > before.late_frames)
        return 'i';
    if (s->what & YAMUX_RESET)
        return st->reset_err == ERR_RESET && after.resets_out == before.resets_out ? 'R' : 'x';
    if (after.streams < before.streams)
        return !held || yamux_eof(st) || (s->what & YAMUX_EOF) ? 'g' : '?';
    if (s->what & YAMUX_EOF)
        return 'f';
    return s->what & YAMUX_ACKED ? 'a' : '.';
}

static void check_cell(void **state, enum st_state which, enum fr fr, size_t chunk)
{
    struct side s;
    uint32_t id;
    side_init(&s, pool_of(state), (struct yamux_cfg){0});
    struct yamux_stream *st = make_state(&s, which, &id);
    struct yamux_stat before = stat_of(&s);
    uint32_t send_window = st != NULL ? st->send_window : 0;
    unsigned rsts = (take_all(&s), s.out_len = 0, 0);

    memset(zeros, 0, YAMUX_HEADER_BYTES);
    zeros[1] = (uint8_t)frames[fr].type;
    put_be16(zeros + 2, (uint16_t)frames[fr].flags);
    put_be32(zeros + 4, id);
    put_be32(zeros + 8, frames[fr].len);
    size_t n = YAMUX_HEADER_BYTES + (frames[fr].type == YAMUX_T_DATA ? frames[fr].len : 0);
    int rc = feed(&s, zeros, n, chunk);
    pump(&s);
    char want = outcome[which][fr], got = judge(&s, st, rc, before, st != NULL);
    if (want != got)
        fail_msg("state %d frame %d: expected '%c', got '%c' (rc %d)", which, fr, want, got, rc);

    rsts = sent_frames(&s, YAMUX_T_WINDOW, YAMUX_F_RST);
    assert_int_equal(rsts, want == 'x');
    if (want == '.' && st != NULL) {
        assert_int_equal(st->send_window, send_window + (fr == F_WINDOW ? 7 : 0));
        assert_int_equal(yamux_readable(st), frames[fr].type == YAMUX_T_DATA ? frames[fr].len : 0);
    }
    if (rc ==
        0) { /* whatever came of it, the parser stands at a frame border: the next one works */
        assert_int_equal(feed_frame(&s, YAMUX_T_WINDOW, YAMUX_F_SYN, 9, 0), 0);
        pump(&s);
        assert_non_null(s.opened);
    } else { /* and an ended session stays ended */
        assert_int_equal(rc, ERR_PROTOCOL);
        assert_int_equal(feed_frame(&s, YAMUX_T_PING, YAMUX_F_SYN, 0, 1), ERR_PROTOCOL);
        assert_int_equal(yamux_error(s.y), ERR_PROTOCOL);
    }
    side_close(&s);
}

static void test_every_frame_in_every_state(void **state)
{
    for (enum st_state st = 0; st < STATES; st++) {
        assert_int_equal(strlen(outcome[st]), FRAMES);
        for (enum fr fr = 0; fr < FRAMES; fr++) {
            check_cell(state, st, fr, MAX_BODY);
            check_cell(state, st, fr, 7);
            if (fr != F_OVERRUN)
                check_cell(state, st, fr, 1);
        }
    }
}

static void test_session_errors(void **state)
{
    static const struct {
        const char *hex;
        int rc;
    } cases[] = {
        {"010100010000000100000000", ERR_PROTOCOL}, /* version 1 */
        {"000400000000000000000000", ERR_PROTOCOL}, /* type 4 */
        {"00ff00000000000000000000", ERR_PROTOCOL},
        {"000300000000000000000001", ERR_PROTOCOL}, /* go away */
        {"000300000000000000000002", ERR_PROTOCOL},
        {"000300000000000000000007", ERR_PROTOCOL},
        {"000100010000000000000000", ERR_PROTOCOL}, /* stream 0 */
        {"000300000000000000000000", 0},
        {"000100010000000200000000", 0}, /* even id of the dialer */
        {"000200020000000000000063", 0}, /* an answer nobody asked for */
        {"0002000000000000000000aa", 0}, /* a ping without a flag */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct side s;
        size_t n;
        uint8_t *p = hex_dup(cases[i].hex, &n);
        side_init(&s, pool_of(state), (struct yamux_cfg){0});
        assert_int_equal(feed(&s, p, n, 4), cases[i].rc);
        pump(&s);
        assert_false(s.what & YAMUX_PONG);
        free(p);
        side_close(&s);
    }
}

/* ---- limits ---- */

static void test_backlog_of_the_peer(void **state)
{
    struct side s;
    struct yamux_stream *first = NULL;
    side_init(&s, pool_of(state), (struct yamux_cfg){0});
    for (uint32_t i = 0; i < 513; i++) {
        assert_int_equal(feed_frame(&s, YAMUX_T_WINDOW, YAMUX_F_SYN, 1 + 2 * i, 0), 0);
        pump(&s);
        assert_int_equal(s.opened != NULL, i < 512);
        if (i == 0)
            first = s.opened;
    }
    assert_int_equal(sent_frames(&s, YAMUX_T_WINDOW, YAMUX_F_RST), 1);
    assert_int_equal(stat_of(&s).refused_streams, 1);
    assert_int_equal(stat_of(&s).unaccepted, 512);
    assert_int_equal(yamux_accept(first), 0);
    assert_int_equal(yamux_accept(first), ERR_STATE);
    assert_int_equal(feed_frame(&s, YAMUX_T_WINDOW, YAMUX_F_SYN, 5001, 0), 0);
    /* A reset gives its place back too. */
    assert_int_equal(feed_frame(&s, YAMUX_T_WINDOW, YAMUX_F_RST, 5001, 0), 0);
    assert_int_equal(feed_frame(&s, YAMUX_T_WINDOW, YAMUX_F_SYN, 5003, 0), 0);
    assert_int_equal(stat_of(&s).refused_streams, 1);
    side_close(&s);
}

static void test_backlog_of_ours(void **state)
{
    struct side c;
    struct yamux_stream *st, *first = NULL, *second = NULL;
    side_init(&c, pool_of(state), (struct yamux_cfg){.client = true});
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
    assert_int_equal(feed_frame(&c, YAMUX_T_WINDOW, YAMUX_F_ACK, 1, 0), 0);
    assert_int_equal(yamux_open(c.y, NULL, c.now_ns, &st), 0);
    assert_int_equal(feed_frame(&c, YAMUX_T_WINDOW, YAMUX_F_RST, 5, 0), 0);
    assert_int_equal(yamux_open(c.y, NULL, c.now_ns, &st), 0);
    yamux_release(second, false);
    assert_int_equal(yamux_open(c.y, NULL, c.now_ns, &st), 0);
    yamux_release(st, true);
    assert_int_equal(yamux_open(c.y, NULL, c.now_ns, &st), 0);
    assert_int_equal(yamux_open(c.y, NULL, c.now_ns, &st), ERR_LIMIT);
    assert_int_equal(stat_of(&c).unacked, 256);

    assert_int_equal(yamux_deadline(c.y), c.now_ns + 20 * NS_PER_S);
    c.now_ns += 20 * NS_PER_S;
    yamux_tick(c.y, c.now_ns);
    pump(&c);
    assert_int_equal(c.last->reset_err, ERR_TIMEOUT);
    assert_int_equal(stat_of(&c).unacked, 0);
    assert_int_equal(stat_of(&c).streams, 2); /* the acknowledged one, and one that lingers */
    assert_false(yamux_write_closed(first));
    assert_int_equal(sent_frames(&c, YAMUX_T_WINDOW, YAMUX_F_RST), 1 + 256);
    side_close(&c);
}

static void test_table_full_and_linger(void **state)
{
    struct side c;
    struct yamux_stream *st, *a;
    unsigned rsts = 0;
    side_init(&c, pool_of(state),
              (struct yamux_cfg){.client = true, .max_streams = 3, .linger_ms = 1000});
    for (int i = 0; i < 3; i++)
        assert_int_equal(yamux_open(c.y, NULL, c.now_ns, &a), 0);
    assert_int_equal(yamux_open(c.y, NULL, c.now_ns, &st), ERR_LIMIT);
    assert_int_equal(feed_frame(&c, YAMUX_T_WINDOW, YAMUX_F_SYN, 2, 0), 0);
    assert_int_equal(stat_of(&c).refused_streams, 1);

    /* Streams that only wait for the peer's FIN do not keep new ones out. */
    for (int i = 0; i < 100000; i++) {
        yamux_release(a, true);
        assert_int_equal(yamux_open(c.y, NULL, c.now_ns, &a), 0);
        rsts += sent_frames(&c, YAMUX_T_WINDOW, YAMUX_F_RST);
    }
    assert_int_equal(stat_of(&c).streams, 3);
    yamux_release(a, true);
    assert_int_equal(rsts + sent_frames(&c, YAMUX_T_WINDOW, YAMUX_F_RST), 1 + 100000);
    c.now_ns += NS_PER_S - 1;
    yamux_tick(c.y, c.now_ns);
    assert_int_equal(stat_of(&c).streams, 3);
    yamux_tick(c.y, ++c.now_ns);
    assert_int_equal(sent_frames(&c, YAMUX_T_WINDOW, YAMUX_F_RST), 1);
    assert_int_equal(stat_of(&c).streams, 2);
    side_close(&c);
}

/* Nobody reads a released stream. A peer that has used up its credit cannot even end it: it is reset
 * soon, while others have the time to finish. */
static void test_peer_stuck_behind_a_release(void **state)
{
    struct side s;
    side_init(&s, pool_of(state), (struct yamux_cfg){0});
    for (uint32_t id = 1; id <= 7; id += 2) {
        struct yamux_stream *st = open_accepted(&s, id);
        uint32_t before = id == 7 ? YAMUX_WINDOW : 0, left = YAMUX_WINDOW - before - (id == 3);
        for (uint32_t n = before; n > 0; n -= 32768)
            assert_int_equal(feed_frame(&s, YAMUX_T_DATA, 0, id, 32768), 0);
        yamux_release(st, true);
        for (uint32_t n; left > 0; left -= n) {
            n = left < 32768 ? left : 32768;
            assert_int_equal(
                feed_frame(&s, YAMUX_T_DATA, id == 5 && left == n ? YAMUX_F_FIN : 0, id, n), 0);
        }
    }
    assert_int_equal(stat_of(&s).streams, 3); /* 5 has ended in order */
    assert_int_equal(yamux_deadline(s.y), s.now_ns + 2 * NS_PER_S);
    (void)sent_frames(&s, YAMUX_T_WINDOW, YAMUX_F_RST);
    s.now_ns += 2 * NS_PER_S;
    yamux_tick(s.y, s.now_ns);
    assert_int_equal(sent_frames(&s, YAMUX_T_WINDOW, YAMUX_F_RST), 2); /* 1 and 7 */
    assert_int_equal(stat_of(&s).streams, 1);
    assert_int_equal(yamux_deadline(s.y), s.now_ns + 28 * NS_PER_S);
    assert_int_equal(feed_frame(&s, YAMUX_T_DATA, YAMUX_F_FIN, 3, 1), 0);
    assert_int_equal(stat_of(&s).streams, 0);
    side_close(&s);
}

/* Ids of our parity taken by the peer are stepped over. */
static void test_foreign_parity(void **state)
{
    struct side c;
    struct yamux_stream *st;
    side_init(&c, pool_of(state), (struct yamux_cfg){.client = true});
    (void)open_accepted(&c, 1);
    (void)open_accepted(&c, 5);
    assert_int_equal(yamux_open(c.y, NULL, c.now_ns, &st), 0);
    assert_int_equal(st->id, 3);
    assert_int_equal(yamux_open(c.y, NULL, c.now_ns, &st), 0);
    assert_int_equal(st->id, 7);
    side_close(&c);
}

static void test_ping_flood(void **state)
{
    struct side s;
    int rc = 0;
    unsigned n = 0;
    side_init(&s, pool_of(state), (struct yamux_cfg){0});
    /* Read now and then: any number is answered. */
    for (unsigned i = 0; i < 20000; i++) {
        assert_int_equal(feed_frame(&s, YAMUX_T_PING, YAMUX_F_SYN, 0, i), 0);
        if (i % 1000 == 0)
            (void)sent_frames(&s, YAMUX_T_PING, YAMUX_F_ACK);
    }
    (void)sent_frames(&s, YAMUX_T_PING, YAMUX_F_ACK);
    /* Never read: bounded, then the session ends. */
    while (rc == 0 && n++ < 20000)
        rc = feed_frame(&s, YAMUX_T_PING, YAMUX_F_SYN, 0, n);
    assert_int_equal(rc, ERR_LIMIT);
    assert_in_range(yamux_pending(s.y), 60000, 70000);
    side_close(&s);
}

static void test_window_flood_costs_nothing(void **state)
{
    struct side s;
    side_init(&s, pool_of(state), (struct yamux_cfg){0});
    struct yamux_stream *st = open_accepted(&s, 1);
    take_all(&s);
    for (unsigned i = 0; i < 50000; i++)
        assert_int_equal(feed_frame(&s, YAMUX_T_WINDOW, 0, 1 + 2 * (i % 2), 1), 0);
    assert_int_equal(st->send_window, YAMUX_WINDOW + 25000);
    assert_int_equal(yamux_pending(s.y), 0);
    assert_int_equal(bufpool_in_use(s.pool), 0);
    side_close(&s);
}

/* 1-byte frames: a whole window of them, unread, does not pin much more than the window. */
static void test_one_byte_frames(void **state)
{
    struct pool_fixture *f = *state;
    struct side s;
    uint8_t chunk[13 * 5000], got[5000];
    side_init(&s, f->pool, (struct yamux_cfg){0});
    struct yamux_stream *st = open_accepted(&s, 1);
    take_all(&s);
    for (size_t i = 0; i < 5000; i++) {
        memset(chunk + 13 * i, 0, 13);
        chunk[13 * i + 7] = 1;
        chunk[13 * i + 11] = 1;
        chunk[13 * i + 12] = (uint8_t)i;
    }
    for (int i = 0; i < 52; i++)
        assert_int_equal(feed(&s, chunk, sizeof chunk, MAX_BODY), 0);
    assert_int_equal(yamux_readable(st), 260000);
    assert_in_range(f->budget.used, 260000, 260000 + 65536);
    for (int i = 0; i < 52; i++) {
        assert_int_equal(yamux_read(st, got, sizeof got), sizeof got);
        assert_int_equal(got[4999], (uint8_t)4999);
    }
    assert_int_equal(st->recv_window, YAMUX_WINDOW);
    side_close(&s);
}

/* The same on the way out: what waits costs little more than its bytes. */
static void test_small_writes(void **state)
{
    struct pool_fixture *f = *state;
    struct side s;
    struct frame fr;
    side_init(&s, f->pool, (struct yamux_cfg){0});
    struct yamux_stream *in = open_accepted(&s, 1), *out = open_accepted(&s, 3);
    take_all(&s);
    s.out_len = 0;
    for (int i = 0; i < 10000; i++) {
        assert_int_equal(feed_frame(&s, YAMUX_T_DATA, 0, 1, 1), 0);
        assert_int_equal(yamux_splice(out, in), 1);
    }
    assert_int_equal(yamux_pending(s.y), 13 * 10000);
    assert_true(f->budget.used <= 13 * 10000 * 11 / 10);
    take_all(&s);
    size_t at = 0, n = 0;
    while (next_frame(&s, &at, &fr))
        n += fr.type == YAMUX_T_DATA && fr.id == 3 && fr.len == 1;
    assert_int_equal(n, 10000);
    side_close(&s);
}

/* Pieces that stay do not keep the read buffers around them. */
static void test_compact(void **state)
{
    struct pool_fixture *f = *state;
    struct side s;
    static uint8_t chunk[12 + 300 + 12 * 1000];
    side_init(&s, f->pool, (struct yamux_cfg){0});
    struct yamux_stream *st = open_accepted(&s, 1);
    take_all(&s);
    for (size_t i = 0; i < 1000; i++)
        chunk[312 + 12 * i + 1] = YAMUX_T_WINDOW; /* of an unknown stream */
    chunk[7] = 1;
    put_be32(chunk + 8, 300);
    for (int i = 0; i < 20; i++) {
        memset(chunk + 12, i, 300);
        assert_int_equal(feed(&s, chunk, sizeof chunk, sizeof chunk), 0);
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
    side_close(&s);
}

/* ---- credit and order ---- */

/* cfg.exact: each byte that is consumed is granted at once, also behind a FIN, and the writer hears of
 * it and knows how much waits at the other end. */
static void test_exact_credit(void **state)
{
    struct side s;
    struct yamux_stream *ours;
    uint8_t got[1000];
    side_init(&s, pool_of(state), (struct yamux_cfg){.client = true, .exact = true});
    struct yamux_stream *st = open_accepted(&s, 2);
    take_all(&s);
    s.out_len = 0;
    assert_int_equal(feed_frame(&s, YAMUX_T_DATA, YAMUX_F_FIN, 2, 1000), 0);
    for (size_t n = 1; n <= 400; n *= 20) {
        struct frame f;
        size_t at = 0;
        assert_int_equal(yamux_read(st, got, n), n);
        take_all(&s);
        assert_true(next_frame(&s, &at, &f) && f.type == YAMUX_T_WINDOW && f.len == n);
        assert_false(next_frame(&s, &at, &f));
        s.out_len = 0;
    }
    assert_int_equal(yamux_open(s.y, NULL, s.now_ns, &ours), 0);
    assert_int_equal(feed_frame(&s, YAMUX_T_WINDOW, YAMUX_F_ACK, ours->id, 0), 0);
    assert_int_equal(yamux_write(ours, got, 1000), 1000);
    assert_int_equal(yamux_under_way(ours), 1000);
    pump(&s);
    assert_int_equal(feed_frame(&s, YAMUX_T_WINDOW, 0, ours->id, 300), 0);
    pump(&s);
    assert_true(s.last == ours && s.what == YAMUX_CREDIT);
    assert_int_equal(yamux_under_way(ours), 700);
    assert_int_equal(feed_frame(&s, YAMUX_T_WINDOW, 0, ours->id, 700), 0);
    assert_int_equal(yamux_under_way(ours), 0);
    side_close(&s);
}

static void test_credit_follows_consumption(void **state)
{
    struct side s;
    struct frame f;
    uint8_t got[1000];
    side_init(&s, pool_of(state), (struct yamux_cfg){0});
    struct yamux_stream *st = open_accepted(&s, 1);
    take_all(&s);
    s.out_len = 0;
    for (int i = 0; i < 4; i++)
        assert_int_equal(feed_frame(&s, YAMUX_T_DATA, 0, 1, YAMUX_WINDOW / 4), 0);
    assert_int_equal(st->recv_window, 0);
    assert_int_equal(yamux_pending(s.y), 0); /* received is not consumed */

    uint64_t granted = 0, read = 0;
    while (yamux_readable(st) > 0) {
        read += yamux_read(st, got, sizeof got);
        take_all(&s);
        size_t at = 0;
        while (next_frame(&s, &at, &f))
            granted += f.len;
        s.out_len = 0;
        assert_true(granted <= read && read - granted < YAMUX_WINDOW / 2);
    }
    assert_int_equal(st->recv_window, granted);
    /* No more credit for a stream that has ended. */
    assert_int_equal(feed_frame(&s, YAMUX_T_DATA, YAMUX_F_FIN, 1, (uint32_t)granted), 0);
    assert_int_equal(yamux_discard(st, YAMUX_WINDOW), granted);
    assert_int_equal(yamux_pending(s.y), 0);
    assert_true(yamux_eof(st));
    side_close(&s);
}

static void test_parked_order(void **state)
{
    struct side s;
    uint8_t got[10];
    side_init(&s, pool_of(state), (struct yamux_cfg){0});
    struct yamux_stream *a = open_accepted(&s, 1), *b = open_accepted(&s, 3);
    assert_null(yamux_longest_stalled(s.y));
    assert_int_equal(feed_frame(&s, YAMUX_T_DATA, 0, 1, 20), 0);
    s.now_ns += 5;
    assert_int_equal(feed_frame(&s, YAMUX_T_DATA, 0, 3, 20), 0);
    assert_int_equal(feed_frame(&s, YAMUX_T_DATA, 0, 1, 20), 0);
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
    assert_int_equal(feed_frame(&s, YAMUX_T_DATA, 0, 1, 20), 0); /* nobody reads it */
    assert_int_equal(yamux_rx_bytes(s.y), 0);
    side_close(&s);
}

/* Pings, credit and resets overtake queued payload, at a frame border; FIN does not. */
static void test_urgent_frames_overtake(void **state)
{
    struct side s;
    struct frame f;
    static uint8_t payload[100000];
    side_init(&s, pool_of(state), (struct yamux_cfg){0});
    struct yamux_stream *st = open_accepted(&s, 1);
    take_all(&s);
    s.out_len = 0;
    assert_int_equal(yamux_write(st, payload, sizeof payload), sizeof payload);
    assert_int_equal(take(&s, 5000), 5000); /* in the middle of the first frame */
    assert_int_equal(feed_frame(&s, YAMUX_T_PING, YAMUX_F_SYN, 0, 77), 0);
    assert_int_equal(yamux_close_write(st), 0);
    while (take(&s, 777) > 0) /* cut anywhere, also within the ping */
        ;
    size_t at = 0;
    assert_true(next_frame(&s, &at, &f) && f.type == YAMUX_T_DATA && f.len == 65536);
    assert_true(next_frame(&s, &at, &f) && f.type == YAMUX_T_PING && f.len == 77);
    assert_true(next_frame(&s, &at, &f) && f.type == YAMUX_T_DATA &&
                f.len == sizeof payload - 65536);
    assert_true(next_frame(&s, &at, &f) && f.flags == YAMUX_F_FIN);
    assert_false(next_frame(&s, &at, &f));
    side_close(&s);
}

/* Several writers with more to say than there is room for: each gets its share, nobody starves. */
static void test_fair_writers(void **state)
{
    enum { N = 9 };
    static const uint8_t block[65536];
    struct side s;
    struct yamux_stream *st[N];
    uint64_t wrote[N] = {0};
    struct yamux_event ev;
    side_init(&s, pool_of(state), (struct yamux_cfg){.out_high = 131072});
    for (uint32_t i = 0; i < N; i++) {
        st[i] = open_accepted(&s, 1 + 2 * i);
        st[i]->user = &wrote[i];
        assert_int_equal(feed_frame(&s, YAMUX_T_WINDOW, 0, st[i]->id, 1u << 30), 0);
    }
    for (int i = 0; i < N; i++) {
        long n = yamux_write(st[i], block, sizeof block);
        assert_true(n >= 0);
        wrote[i] += (uint64_t)n;
    }
    for (int round = 0; round < 2000; round++) {
        (void)take(&s, 20000);
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
    side_close(&s);
}

/* A writer without window waits for the peer's update only; others are not held up. */
static void test_stalled_stream_holds_up_nobody(void **state)
{
    static const uint8_t block[65536];
    struct side s;
    side_init(&s, pool_of(state), (struct yamux_cfg){0});
    struct yamux_stream *a = open_accepted(&s, 1), *b = open_accepted(&s, 3);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(yamux_write(a, block, sizeof block), sizeof block);
        take_all(&s);
    }
    assert_int_equal(yamux_write(a, block, 1), 0);
    pump(&s);
    assert_int_equal(s.what & YAMUX_WRITABLE, 0);
    assert_int_equal(yamux_write(b, block, sizeof block), sizeof block);
    take_all(&s);
    assert_int_equal(feed_frame(&s, YAMUX_T_WINDOW, 0, 1, 10), 0);
    pump(&s);
    assert_int_equal(s.what, YAMUX_WRITABLE);
    assert_ptr_equal(s.last, a);
    assert_int_equal(yamux_write(a, block, 100), 10);
    side_close(&s);
}

static void test_objects_fit_past_the_line(void **state)
{
    static uint8_t block[300000];
    struct side s;
    struct bufq q;
    side_init(&s, pool_of(state), (struct yamux_cfg){0});
    struct yamux_stream *a = open_accepted(&s, 1), *b = open_accepted(&s, 3),
                        *c = open_accepted(&s, 5);
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
    side_close(&s);
}

/* ---- ends ---- */

static void test_half_close_both_ways(void **state)
{
    struct side s;
    uint8_t got[10];
    side_init(&s, pool_of(state), (struct yamux_cfg){0});
    struct yamux_stream *st = open_accepted(&s, 1);
    assert_int_equal(yamux_close_write(st), 0);
    assert_int_equal(yamux_close_write(st), 0);
    assert_int_equal(yamux_write(st, "x", 1), ERR_CLOSED);
    assert_int_equal(sent_frames(&s, YAMUX_T_WINDOW, YAMUX_F_FIN), 1);
    /* The other direction lives on, with credit, as long as it likes. */
    for (int i = 0; i < 100; i++) {
        assert_int_equal(feed_frame(&s, YAMUX_T_DATA, 0, 1, 60000), 0);
        assert_int_equal(yamux_discard(st, 60000), 60000);
    }
    assert_int_equal(feed_frame(&s, YAMUX_T_DATA, YAMUX_F_FIN, 1, 10), 0);
    pump(&s);
    assert_int_equal(s.what, YAMUX_READABLE | YAMUX_EOF);
    assert_false(yamux_eof(st));
    assert_int_equal(stat_of(&s).streams, 0);
    assert_int_equal(stat_of(&s).held, 1); /* what came can still be read */
    assert_int_equal(yamux_read(st, got, sizeof got), 10);
    assert_true(yamux_eof(st));
    yamux_release(st, false);
    take_all(&s);
    assert_idle(&s);
    side_close(&s);
}

static void test_refused_by_release_is_acknowledged(void **state)
{
    for (int linger = 0; linger < 2; linger++) {
        struct side s;
        side_init(&s, pool_of(state), (struct yamux_cfg){0});
        assert_int_equal(feed_frame(&s, YAMUX_T_WINDOW, YAMUX_F_SYN, 1, 0), 0);
        pump(&s);
        yamux_release(s.opened, linger != 0);
        assert_int_equal(stat_of(&s).unaccepted, 0);
        assert_int_equal(
            sent_frames(&s, YAMUX_T_WINDOW, YAMUX_F_ACK | (linger ? YAMUX_F_FIN : YAMUX_F_RST)), 1);
        if (linger)
            assert_int_equal(feed_frame(&s, YAMUX_T_WINDOW, YAMUX_F_FIN, 1, 0), 0);
        assert_idle(&s);
        side_close(&s);
    }
}

/* Behind a reset nothing else is news. */
static void test_reset_hides_other_news(void **state)
{
    struct side s;
    side_init(&s, pool_of(state), (struct yamux_cfg){0});
    (void)open_accepted(&s, 1);
    for (uint32_t id = 1; id < 4; id += 2) {
        if (id == 3)
            assert_int_equal(feed_frame(&s, YAMUX_T_WINDOW, YAMUX_F_SYN, id, 0), 0);
        assert_int_equal(feed_frame(&s, YAMUX_T_DATA, YAMUX_F_FIN, id, 10), 0);
        assert_int_equal(feed_frame(&s, YAMUX_T_WINDOW, YAMUX_F_RST, id, 0), 0);
        pump(&s);
        assert_int_equal(s.what, id == 1 ? YAMUX_RESET : YAMUX_OPENED | YAMUX_RESET);
        assert_int_equal(yamux_readable(s.last), 0);
        assert_int_equal(yamux_accept(s.last), ERR_STATE);
    }
    side_close(&s);
}

/* The frame being read belongs to a stream that goes away in the middle of it. */
static void test_release_in_the_middle_of_a_frame(void **state)
{
    static const uint8_t head[12] = {0, 0, 0, YAMUX_F_FIN, 0, 0, 0, 1, 0, 0, 4, 0};
    for (int how = 0; how < 3; how++) {
        struct side s;
        uint8_t body[1024] = {0};
        side_init(&s, pool_of(state), (struct yamux_cfg){0});
        struct yamux_stream *st = open_accepted(&s, 1);
        (void)open_accepted(&s, 3);
        assert_int_equal(feed(&s, head, sizeof head, 12), 0);
        assert_int_equal(feed(&s, body, 500, 100), 0);
        if (how == 0)
            yamux_reset(st);
        else
            yamux_release(st, how == 1);
        assert_int_equal(feed(&s, body, 524, 100), 0);
        assert_int_equal(feed_frame(&s, YAMUX_T_DATA, 0, 3, 7), 0);
        pump(&s);
        assert_int_equal(s.what, YAMUX_READABLE);
        assert_int_equal(yamux_readable(s.last), 7);
        assert_int_equal(stat_of(&s).streams, 1);
        side_close(&s);
    }
}

static void test_go_away(void **state)
{
    struct side s;
    struct yamux_stream *st;
    side_init(&s, pool_of(state), (struct yamux_cfg){0});
    struct yamux_stream *old = open_accepted(&s, 1);
    yamux_go_away(s.y, 0);
    yamux_go_away(s.y, 0);
    assert_int_equal(sent_frames(&s, YAMUX_T_GOAWAY, 0), 1);
    assert_int_equal(feed_frame(&s, YAMUX_T_WINDOW, YAMUX_F_SYN, 3, 0), 0);
    assert_int_equal(sent_frames(&s, YAMUX_T_WINDOW, YAMUX_F_RST), 1);
    assert_int_equal(feed_frame(&s, YAMUX_T_GOAWAY, 0, 0, 0), 0);
    pump(&s);
    assert_int_equal(s.what, YAMUX_GOAWAY);
    assert_int_equal(yamux_open(s.y, NULL, s.now_ns, &st), ERR_CLOSED);
    assert_int_equal(yamux_write(old, "x", 1), 1); /* existing ones go on */
    side_close(&s);
}

static void test_ping(void **state)
{
    struct side s;
    struct yamux_event ev;
    uint64_t since;
    side_init(&s, pool_of(state), (struct yamux_cfg){0});
    assert_false(yamux_ping_pending(s.y, &since));
    assert_int_equal(yamux_ping(s.y, s.now_ns), 0);
    assert_int_equal(yamux_ping(s.y, s.now_ns), ERR_BUSY);
    assert_true(yamux_ping_pending(s.y, &since));
    assert_int_equal(since, s.now_ns);
    s.now_ns += 5 * NS_PER_MS;
    assert_int_equal(feed_frame(&s, YAMUX_T_PING, YAMUX_F_ACK, 0, 0), 0);
    assert_true(yamux_next(s.y, &ev));
    assert_int_equal(ev.what, YAMUX_PONG);
    assert_int_equal(ev.rtt_ns, 5 * NS_PER_MS);
    assert_false(yamux_next(s.y, &ev));
    /* One that was never answered does not stand in the way for ever, and its late answer is none.
     */
    assert_int_equal(yamux_ping(s.y, s.now_ns), 0);
    s.now_ns += 10 * NS_PER_S;
    assert_int_equal(yamux_ping(s.y, s.now_ns), 0);
    assert_int_equal(feed_frame(&s, YAMUX_T_PING, YAMUX_F_ACK, 0, 1), 0);
    assert_false(yamux_next(s.y, &ev));
    assert_int_equal(feed_frame(&s, YAMUX_T_PING, YAMUX_F_ACK, 0, 2), 0);
    assert_true(yamux_next(s.y, &ev));
    side_close(&s);
}

/* ---- no memory ---- */

static void test_out_of_buffers(void **state)
{
    static uint8_t block[30000];
    struct pool_fixture *f = *state;
    struct side s;
    side_init(&s, f->pool, (struct yamux_cfg){0});
    struct yamux_stream *st = open_accepted(&s, 1);
    take_all(&s);
    f->budget.cap = 16384;
    /* Nothing is taken, and nothing is broken. */
    assert_int_equal(yamux_write(st, block, sizeof block), ERR_NOMEM);
    assert_int_equal(yamux_pending(s.y), 0);
    assert_int_equal(st->send_window, YAMUX_WINDOW);
    assert_int_equal(yamux_write(st, block, 8000), 8000);
    assert_int_equal(yamux_error(s.y), 0);
    take_all(&s);
    /* A control frame that cannot be sent ends the session. */
    f->budget.cap = 1;
    assert_int_equal(yamux_close_write(st), ERR_NOMEM);
    assert_int_equal(yamux_error(s.y), ERR_NOMEM);
    f->budget.cap = 0;
    assert_int_equal(feed_frame(&s, YAMUX_T_PING, YAMUX_F_SYN, 0, 0), ERR_NOMEM);
    side_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, pool_setup, pool_teardown)
        T(test_vector_frames_parse),
        T(test_vector_frames_produce),
        T(test_vector_exchange_client),
        T(test_vector_exchange_server),
        T(test_every_frame_in_every_state),
        T(test_session_errors),
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
