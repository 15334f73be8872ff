/* yamux: recorded bytes, and every frame in every state of a stream. */
#include "transport/yamux.h"

#include "base/cursor.h"
#include "base/err.h"
#include "tests/unit/transport/yamux_side.h"
#include "tests/unit/vectors.h"

static uint8_t zeros[YAMUX_HEADER_BYTES + YAMUX_WINDOW + 1];

/* ---- recorded bytes ---- */

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
        struct yamux_side s;
        struct yamux_stream *st = NULL;
        size_t n;
        uint8_t *frame = vec_hex_dup(v, "hex", &n);
        assert_true(i < 12);
        ys_init(&s, ys_pool(state), (struct yamux_cfg){.client = expect[i].client});
        if (expect[i].stream && expect[i].client)
            assert_int_equal(yamux_open(s.y, NULL, s.now_ns, &st), 0);
        else if (expect[i].stream)
            st = ys_open_accepted(&s, 1);
        if (expect[i].what == YAMUX_PONG)
            assert_int_equal(yamux_ping(s.y, s.now_ns), 0);
        ys_take_all(&s);
        s.out_len = 0;

        assert_int_equal(ys_feed(&s, frame, n, 3), expect[i].rc);
        ys_pump(&s);
        assert_int_equal(s.what, expect[i].what);
        if (s.what & YAMUX_READABLE) {
            uint8_t got[16];
            assert_int_equal(yamux_read(s.last, got, sizeof got), 5);
            assert_memory_equal(got, "hello", 5);
        }
        if (i == 4)
            assert_int_equal(st->send_window, YAMUX_WINDOW + YAMUX_WINDOW / 2);
        if (i == 7)
            assert_int_equal(ys_sent_frames(&s, YAMUX_T_PING, YAMUX_F_ACK), 1);
        free(frame);
        ys_close(&s);
    }
    assert_int_equal(i, 12);
    json_decref(root);
}

/* Output taken so far is exactly this hex, then forget it. */
static void expect_hex(struct yamux_side *s, const char *hex)
{
    size_t n;
    uint8_t *want = hex_dup(hex, &n);
    ys_take_all(s);
    assert_int_equal(s->out_len, n);
    assert_memory_equal(s->out, want, n);
    s->out_len = 0;
    free(want);
}

static void test_vector_frames_produce(void **state)
{
    struct yamux_side c, s;
    struct yamux_stream *st, *peer;
    ys_init(&c, ys_pool(state), (struct yamux_cfg){.client = true});
    ys_init(&s, ys_pool(state), (struct yamux_cfg){0});
    assert_int_equal(yamux_open(c.y, NULL, 1, &st), 0);
    expect_hex(&c, "000100010000000100000000");
    peer = ys_open_accepted(&s, 1);
    expect_hex(&s, "000100020000000100000000");
    assert_int_equal(yamux_write(st, "hello", 5), 5);
    expect_hex(&c, "00000000000000010000000568656c6c6f");
    assert_int_equal(ys_feed_frame(&s, YAMUX_T_DATA, 0, 1, YAMUX_WINDOW / 2), 0);
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
    assert_int_equal(ys_feed_frame(&s, YAMUX_T_PING, YAMUX_F_SYN, 0, 0), 0);
    expect_hex(&s, "000200020000000000000000");
    yamux_go_away(c.y, 0);
    expect_hex(&c, "000300000000000000000000");
    yamux_go_away(s.y, 2);
    expect_hex(&s, "000300000000000000000002");
    ys_close(&c);
    ys_close(&s);
}

struct replay {
    struct yamux_side s;
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
        assert_int_equal(ys_feed(&r->s, p, n, 5), 0);
        free(p);
    }
    ys_pump(&r->s);
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
    ys_init(&r.s, ys_pool(state), (struct yamux_cfg){.client = true});
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
    ys_assert_idle(&r.s);
    ys_close(&r.s);
    json_decref(root);
}

static void test_vector_exchange_server(void **state)
{
    json_t *root = vectors_load("dmsg");
    struct replay r = {.lines = vec_get(vec_get(root, "yamux"), "captured_exchange")};
    struct yamux_stream *a, *b;
    uint8_t got[8];
    ys_init(&r.s, ys_pool(state), (struct yamux_cfg){0});
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
    ys_assert_idle(&r.s);
    ys_close(&r.s);
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
static struct yamux_stream *make_state(struct yamux_side *s, enum st_state state, uint32_t *id)
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
        assert_int_equal(ys_feed_frame(s, YAMUX_T_WINDOW, YAMUX_F_SYN, 1, 0), 0);
        ys_pump(s);
        return s->opened;
    case OPEN:
    case PEER_FIN:
    case OUR_FIN:
    case BOTH_FIN:
    case LINGER:
    case OUR_RST:
        break;
    }
    st = ys_open_accepted(s, 1);
    if (state == PEER_FIN || state == BOTH_FIN)
        assert_int_equal(ys_feed_frame(s, YAMUX_T_WINDOW, YAMUX_F_FIN, 1, 0), 0);
    if (state == OUR_FIN || state == BOTH_FIN)
        assert_int_equal(yamux_close_write(st), 0);
    if (state == OUR_RST)
        yamux_reset(st);
    if (state == LINGER) {
        yamux_release(st, true);
        st = NULL;
    }
    ys_pump(s);
    return st;
}

static char judge(struct yamux_side *s, const struct yamux_stream *st, int rc,
                  struct yamux_stat before, bool held)
{
    struct yamux_stat after = ys_stat(s);
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
    struct yamux_side s;
    uint32_t id;
    ys_init(&s, ys_pool(state), (struct yamux_cfg){0});
    struct yamux_stream *st = make_state(&s, which, &id);
    struct yamux_stat before = ys_stat(&s);
    uint32_t send_window = st != NULL ? st->send_window : 0;
    unsigned rsts = (ys_take_all(&s), s.out_len = 0, 0);

    memset(zeros, 0, YAMUX_HEADER_BYTES);
    zeros[1] = (uint8_t)frames[fr].type;
    put_be16(zeros + 2, (uint16_t)frames[fr].flags);
    put_be32(zeros + 4, id);
    put_be32(zeros + 8, frames[fr].len);
    size_t n = YAMUX_HEADER_BYTES + (frames[fr].type == YAMUX_T_DATA ? frames[fr].len : 0);
    int rc = ys_feed(&s, zeros, n, chunk);
    ys_pump(&s);
    char want = outcome[which][fr], got = judge(&s, st, rc, before, st != NULL);
    if (want != got)
        fail_msg("state %d frame %d: expected '%c', got '%c' (rc %d)", which, fr, want, got, rc);

    rsts = ys_sent_frames(&s, YAMUX_T_WINDOW, YAMUX_F_RST);
    assert_int_equal(rsts, want == 'x');
    if (want == '.' && st != NULL) {
        assert_int_equal(st->send_window, send_window + (fr == F_WINDOW ? 7 : 0));
        assert_int_equal(yamux_readable(st), frames[fr].type == YAMUX_T_DATA ? frames[fr].len : 0);
    }
    if (rc ==
        0) { /* whatever came of it, the parser stands at a frame border: the next one works */
        assert_int_equal(ys_feed_frame(&s, YAMUX_T_WINDOW, YAMUX_F_SYN, 9, 0), 0);
        ys_pump(&s);
        assert_non_null(s.opened);
    } else { /* and an ended session stays ended */
        assert_int_equal(rc, ERR_PROTOCOL);
        assert_int_equal(ys_feed_frame(&s, YAMUX_T_PING, YAMUX_F_SYN, 0, 1), ERR_PROTOCOL);
        assert_int_equal(yamux_error(s.y), ERR_PROTOCOL);
    }
    ys_close(&s);
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
        struct yamux_side s;
        size_t n;
        uint8_t *p = hex_dup(cases[i].hex, &n);
        ys_init(&s, ys_pool(state), (struct yamux_cfg){0});
        assert_int_equal(ys_feed(&s, p, n, 4), cases[i].rc);
        ys_pump(&s);
        assert_false(s.what & YAMUX_PONG);
        free(p);
        ys_close(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, ys_setup, ys_teardown)
        T(test_vector_frames_parse),        T(test_vector_frames_produce),
        T(test_vector_exchange_client),     T(test_vector_exchange_server),
        T(test_every_frame_in_every_state), T(test_session_errors),
#undef T
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
