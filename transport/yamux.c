#include "transport/yamux.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/cursor.h"
#include "base/err.h"
#include "base/loop.h"
#include "base/map.h"

#define FRAME_MAX 65536u /* payload of one data frame that we write */
#define QUANTUM   32768u /* what one writer may queue while others wait */
/* Control frames queued: more means a peer that asks and does not read. */
#define CONTROL_ROOM (64u * 1024u)
/* What yamux_write_fits() lets through above out_high: a frame, and one piece. FIN has its own room
 * behind that. */
#define PIECE_ROOM ((size_t)FRAME_MAX + FRAME_MAX + YAMUX_HEADER_BYTES)
#define SMALL_BUF  512u /* headers and small frames share buffers of this size */
#define COPY_BELOW 256u /* shorter pieces are copied: a slice would cost and pin more */
#define PING_STALE (10 * NS_PER_S)
#define STUCK_NS   (2 * NS_PER_S)

enum state_bit {
    ST_ACKED = 1,      /* the peer has accepted our stream, or we theirs */
    ST_LOCAL_FIN = 2,  /* our FIN is queued */
    ST_REMOTE_FIN = 4, /* theirs has come */
    ST_RESET = 8,
    ST_GONE = 16, /* out of the table: both FINs or a reset */
};

struct yamux {
    struct yamux_cfg cfg;
    struct bufpool *pool;
    struct map streams; /* by id */
    uint32_t next_id;
    uint32_t unaccepted; /* theirs, waiting for yamux_accept() */
    uint32_t unacked;    /* ours, waiting for the peer's ACK */
    int err;             /* the session is lost */

    uint8_t head[YAMUX_HEADER_BYTES]; /* header being read */
    uint8_t head_len;
    bool body_fin;      /* the frame being read carries FIN: it counts behind its body */
    uint32_t body_left; /* of that frame */
    struct yamux_stream *body_stream; /* NULL: skip the body */

    /* Two queues towards the socket. `urgent` overtakes `out` between frames, so that pings, credit
     * and resets never wait behind payload; FIN stays behind the payload it ends. */
    struct bufq urgent, out;
    size_t frame_left; /* of the frame at the head of out that has been sent in part */
    struct buf *small; /* headers and small frames are cut from it */

    struct list ready;   /* streams with events */
    struct list waiting; /* writers waiting for room in out */
    struct list parked;  /* streams with unread bytes, longest untouched first */
    struct list syn;     /* ours without ACK, oldest first */
    struct list linger;  /* released, waiting for the peer's FIN, oldest first */
    struct list stuck;   /* the same, but the peer has no credit left to get there */
    struct list held;    /* closed or reset, and not yet released by the user */
    size_t rx_bytes;

    uint64_t now_ns;
    uint64_t ping_sent_ns; /* 0 = none under way */
    uint64_t pong_rtt_ns;
    uint32_t ping_id; /* of the next ping */
    bool pong, goaway_event, goaway_received, goaway_sent;
    struct yamux_stat stat;
};

_Static_assert(sizeof(struct yamux_stream) + 34 < 256,
               "an idle stream, with its slot in the table");
_Static_assert(sizeof(struct yamux) < 1024, "an idle mux");

/* ---- output ---- */

static void fail(struct yamux *y, int err)
{
    if (y->err == 0)
        y->err = err;
}

/* Room for n more bytes in the buffer that headers and small frames share; NULL without memory. */
static uint8_t *small_room(struct yamux *y, size_t n)
{
    if (y->small == NULL || buf_room_len(y->small) < n) {
        struct buf *b = buf_get(y->pool, SMALL_BUF);
        if (b == NULL)
            return NULL;
        buf_put(y->small);
        y->small = b;
    }
    return buf_room(y->small);
}

/* Append a frame header, and room for n bytes behind it, which the caller has to fill at *body. */
static int put_header(struct yamux *y, struct bufq *q, unsigned type, unsigned flags, uint32_t id,
                      uint32_t len, size_t n, uint8_t **body)
{
    uint8_t *p = small_room(y, YAMUX_HEADER_BYTES + n);
    if (p == NULL)
        return ERR_NOMEM;
    p[0] = 0;
    p[1] = (uint8_t)type;
    put_be16(p + 2, (uint16_t)flags);
    put_be32(p + 4, id);
    put_be32(p + 8, len);
    if (body != NULL)
        *body = p + YAMUX_HEADER_BYTES;
    return bufq_append_slice(q, buf_take(y->small, YAMUX_HEADER_BYTES + n));
}

/* A control frame that cannot be queued ends the session: the peer would wait for it for ever. */
static void control(struct yamux *y, struct bufq *q, unsigned type, unsigned flags, uint32_t id,
                    uint32_t value)
{
    size_t cap = (q == &y->out ? y->cfg.out_high + PIECE_ROOM : 0) + y->cfg.control_room;
    int rc = bufq_len(q) >= cap ? ERR_LIMIT : put_header(y, q, type, flags, id, value, 0, NULL);
    if (rc < 0)
        fail(y, rc);
    else
        y->stat.frames_out++;
}

static void send_rst(struct yamux *y, uint32_t id, unsigned flags)
{
    y->stat.resets_out++;
    control(y, &y->urgent, YAMUX_T_WINDOW, flags | YAMUX_F_RST, id, 0);
}

static size_t out_room(const struct yamux *y)
{
    size_t len = bufq_len(&y->out);
    return len >= y->cfg.out_high ? 0 : y->cfg.out_high - len;
}

static void stream_event(struct yamux_stream *st, unsigned what)
{
    if (st->released)
        return;
    st->events = (st->events | what) & 0xffffu;
    if (!list_node_is_linked(&st->ready_node))
        list_push_back(&st->mux->ready, &st->ready_node);
}

/* ---- life of a stream ---- */

static struct yamux_stream *stream_new(struct yamux *y, uint32_t id, void *user)
{
    struct yamux_stream *st = calloc(1, sizeof *st);
    if (st == NULL)
        return NULL;
    st->mux = y;
    st->user = user;
    st->id = id;
    st->send_window = st->recv_window = YAMUX_WINDOW;
    bufq_init(&st->rx, y->pool);
    if (map_put(&y->streams, st) < 0) {
        free(st);
        return NULL;
    }
    return st;
}

static void rx_clear(struct yamux_stream *st)
{
    st->mux->rx_bytes -= bufq_len(&st->rx);
    bufq_clear(&st->rx);
    list_remove(&st->rx_node);
    st->rx_since_ns = 0;
}

/* It no longer counts as waiting to be accepted, whoever opened it. */
static void stream_acked(struct yamux_stream *st)
{
    if (st->state & ST_ACKED)
        return;
    st->state |= ST_ACKED;
    if (st->ours)
        st->mux->unacked--;
    else
        st->mux->unaccepted--;
}

/* Take the id out of the table: nothing that arrives for it matters any more. */
static void stream_gone(struct yamux_stream *st)
{
    struct yamux *y = st->mux;
    if (st->state & ST_GONE)
        return;
    stream_acked(st);
    (void)map_del(&y->streams, &st->id);
    if (y->body_stream == st)
        y->body_stream = NULL;
    list_remove(&st->deadline_node);
    list_remove(&st->write_node);
    list_push_back(&y->held, &st->deadline_node);
    y->stat.held++;
    st->state |= ST_GONE;
}

static void stream_free(struct yamux_stream *st)
{
    stream_gone(st);
    st->mux->stat.held--;
    rx_clear(st);
    list_remove(&st->ready_node);
    list_remove(&st->deadline_node);
    free(st);
}

/* Both sides have finished: the id is free. */
static void stream_closed_check(struct yamux_stream *st)
{
    if ((st->state & ST_LOCAL_FIN) && (st->state & ST_REMOTE_FIN))
        stream_gone(st);
}

/* Reset by the peer or by us on its account. */
static void stream_die(struct yamux_stream *st, int err)
{
    stream_gone(st);
    st->state |= ST_RESET;
    st->reset_err = err;
    rx_clear(st);
    if (st->released)
        stream_free(st);
    else
        stream_event(st, YAMUX_RESET);
}

/* The table is full: a stream that only waits for a FIN nobody cares about makes room. */
static bool table_room(struct yamux *y)
{
    if (map_len(&y->streams) < y->cfg.max_streams)
        return true;
    struct list *old = list_empty(&y->stuck) ? &y->linger : &y->stuck;
    struct yamux_stream *st = list_first_as(old, struct yamux_stream, deadline_node);
    if (st == NULL)
        return false;
    send_rst(y, st->id, 0);
    stream_die(st, ERR_LIMIT);
    return true;
}

/* ---- credit (docs/protocol/dmsg.md §3.3) ---- */

/* Grant what is neither buffered nor coming nor granted, when it is half a window; or less when the
 * user has caught up, because the peer may be waiting for it a round trip away (incident 22). */
static void grant_credit(struct yamux_stream *st)
{
    struct yamux *y = st->mux;
    if (st->state & (y->cfg.exact ? ST_GONE : ST_REMOTE_FIN | ST_GONE))
        return;
    size_t coming = y->body_stream == st ? y->body_left : 0;
    size_t held = bufq_len(&st->rx) + coming + st->recv_window;
    assert(held <= YAMUX_WINDOW);
    uint32_t delta = (uint32_t)(YAMUX_WINDOW - held);
    uint32_t least = bufq_len(&st->rx) == 0 ? YAMUX_WINDOW / 8 : YAMUX_WINDOW / 2;
    if (delta < (y->cfg.exact ? 1 : least))
        return;
    control(y, &y->urgent, YAMUX_T_WINDOW, 0, st->id, delta);
    st->recv_window += delta;
}

static void rx_consumed(struct yamux_stream *st, size_t n)
{
    if (n == 0)
        return;
    struct yamux *y = st->mux;
    y->rx_bytes -= n;
    list_remove(&st->rx_node);
    st->rx_since_ns = 0;
    if (bufq_len(&st->rx) > 0) {
        st->rx_since_ns = y->now_ns;
        list_push_back(&y->parked, &st->rx_node);
    }
    grant_credit(st);
}

static void wait_for_fin(struct yamux_stream *st, struct list *l, uint64_t wait_ns)
{
    list_remove(&st->deadline_node);
    st->deadline_ns = st->mux->now_ns + wait_ns;
    list_push_back(l, &st->deadline_node);
}

/* A released stream gives no credit: a peer that has used it up can send neither the rest nor FIN.
 * It is given the time that what we wrote takes to arrive. */
static void stuck_check(struct yamux_stream *st)
{
    struct yamux *y = st->mux;
    if (st->released && st->recv_window == 0 && !(st->state & (ST_REMOTE_FIN | ST_GONE)) &&
        st->deadline_ns > y->now_ns + STUCK_NS)
        wait_for_fin(st, &y->stuck, STUCK_NS);
}

/* ---- input ---- */

/* A new stream of the peer, or NULL when it was refused. */
static struct yamux_stream *on_syn(struct yamux *y, uint32_t id)
{
    struct yamux_stream *st = NULL;
    if (!y->goaway_sent && y->unaccepted < y->cfg.accept_backlog && table_room(y))
        st = stream_new(y, id, NULL);
    if (st == NULL) {
        y->stat.refused_streams++;
        send_rst(y, id, 0);
        return NULL;
    }
    y->unaccepted++;
    stream_event(st, YAMUX_OPENED);
    return st;
}

static int on_fin(struct yamux_stream *st)
{
    if (st->state & ST_REMOTE_FIN)
        return ERR_PROTOCOL;
    st->state |= ST_REMOTE_FIN;
    stream_event(st, YAMUX_EOF);
    stream_closed_check(st);
    if (st->released && (st->state & ST_GONE))
        stream_free(st);
    return 0;
}

static void on_ack(struct yamux_stream *st)
{
    if (!st->ours || (st->state & ST_ACKED))
        return;
    stream_acked(st);
    list_remove(&st->deadline_node);
    stream_event(st, YAMUX_ACKED);
}

static int on_window(struct yamux_stream *st, unsigned flags, uint32_t delta)
{
    if (delta > UINT32_MAX - st->send_window)
        return ERR_PROTOCOL;
    st->send_window += delta;
    if (st->want_write)
        yamux_want_room(st, st->need);
    if (st->mux->cfg.exact)
        stream_event(st, YAMUX_CREDIT);
    return flags & YAMUX_F_FIN ? on_fin(st) : 0;
}

/* The header of a data frame; its body follows. */
static int on_data(struct yamux_stream *st, unsigned flags, uint32_t len)
{
    struct yamux *y = st->mux;
    if (len > st->recv_window || ((st->state & ST_REMOTE_FIN) && (flags & YAMUX_F_FIN)))
        return ERR_PROTOCOL;
    if (len == 0)
        return flags & YAMUX_F_FIN ? on_fin(st) : 0;
    if (st->state & ST_REMOTE_FIN) { /* bytes behind the end: this stream cannot be trusted */
        send_rst(y, st->id, 0);
        stream_die(st, ERR_PROTOCOL);
        return 0;
    }
    st->recv_window -= len;
    y->body_stream = st;
    y->body_fin = (flags & YAMUX_F_FIN) != 0;
    return 0;
}

static int on_stream_frame(struct yamux *y, unsigned type, unsigned flags, uint32_t id,
                           uint32_t len)
{
    struct yamux_stream *st = map_get(&y->streams, &id);

    if (type == YAMUX_T_DATA) {
        y->body_left = len;
        y->body_stream = NULL;
        y->body_fin = false;
    }
    if (flags & YAMUX_F_SYN) {
        if (st != NULL || id == 0)
            return ERR_PROTOCOL;
        st = on_syn(y, id);
    } else if (st == NULL) {
        y->stat.late_frames++;
    }
    if (st == NULL)
        return 0;
    if (flags & YAMUX_F_ACK)
        on_ack(st);
    if (flags & YAMUX_F_RST) {
        y->stat.resets_in++;
        stream_die(st, ERR_RESET);
        return 0;
    }
    return type == YAMUX_T_WINDOW ? on_window(st, flags, len) : on_data(st, flags, len);
}

static void on_ping(struct yamux *y, unsigned flags, uint32_t id)
{
    if (flags & YAMUX_F_SYN) {
        control(y, &y->urgent, YAMUX_T_PING, YAMUX_F_ACK, 0, id);
    } else if ((flags & YAMUX_F_ACK) && y->ping_sent_ns != 0 && id == y->ping_id - 1) {
        y->pong_rtt_ns = y->now_ns - y->ping_sent_ns;
        y->ping_sent_ns = 0;
        y->pong = true;
    }
}

static int on_header(struct yamux *y, const uint8_t *head)
{
    unsigned type = head[1], flags = get_be16(head + 2);
    uint32_t id = get_be32(head + 4), len = get_be32(head + 8);

    y->stat.frames_in++;
    if (head[0] != 0)
        return ERR_PROTOCOL;
    switch (type) {
    case YAMUX_T_DATA:
    case YAMUX_T_WINDOW:
        return on_stream_frame(y, type, flags, id, len);
    case YAMUX_T_PING:
        on_ping(y, flags, len);
        return 0;
    case YAMUX_T_GOAWAY:
        if (len != 0)
            return ERR_PROTOCOL;
        y->goaway_received = y->goaway_event = true;
        return 0;
    default:
        return ERR_PROTOCOL;
    }
}

static int rx_append(struct yamux_stream *st, struct slice in, size_t n)
{
    struct yamux *y = st->mux;
    int rc = n < COPY_BELOW ? bufq_append_copy(&st->rx, in.p, n)
                            : bufq_append_slice(&st->rx, slice_sub(in, 0, n));
    if (rc < 0)
        return rc;
    y->rx_bytes += n;
    if (!list_node_is_linked(&st->rx_node)) {
        st->rx_since_ns = y->now_ns;
        list_push_back(&y->parked, &st->rx_node);
    }
    stream_event(st, YAMUX_READABLE);
    return 0;
}

static int on_body(struct yamux *y, struct slice in, size_t n)
{
    struct yamux_stream *st = y->body_stream;
    int rc;

    y->body_left -= (uint32_t)n;
    y->stat.bytes_in += n;
    if (st != NULL && !st->released && (rc = rx_append(st, in, n)) < 0)
        return rc;
    if (y->body_left > 0)
        return 0;
    y->body_stream = NULL;
    if (st != NULL && y->body_fin)
        return on_fin(st);
    if (st != NULL)
        stuck_check(st);
    return 0;
}

/* Gather a header; returns how many bytes of in were taken, *rc what came of it. */
static size_t input_header(struct yamux *y, struct slice in, int *rc)
{
    if (y->head_len == 0 && in.n >= YAMUX_HEADER_BYTES) {
        *rc = on_header(y, in.p);
        return YAMUX_HEADER_BYTES;
    }
    size_t n = YAMUX_HEADER_BYTES - (size_t)y->head_len;
    if (n > in.n)
        n = in.n;
    memcpy(y->head + y->head_len, in.p, n);
    y->head_len = (uint8_t)(y->head_len + n);
    /* Whoever speaks another multiplexer is not left waiting for the rest of a header that its own
     * frames, which may be shorter, never fill (docs/protocol/dmsg.md §3.2). */
    if (y->head[0] != 0) {
        *rc = ERR_PROTOCOL;
        return n;
    }
    if (y->head_len == YAMUX_HEADER_BYTES) {
        y->head_len = 0;
        *rc = on_header(y, y->head);
    }
    return n;
}

int yamux_input(struct yamux *y, struct slice in, uint64_t now_ns)
{
    y->now_ns = now_ns;
    while (in.n > 0 && y->err == 0) {
        size_t n;
        int rc = 0;
        if (y->body_left > 0) {
            n = in.n < y->body_left ? in.n : y->body_left;
            rc = on_body(y, in, n);
        } else {
            n = input_header(y, in, &rc);
        }
        if (rc < 0)
            fail(y, rc);
        in.p += n;
        in.n -= n;
    }
    return y->err;
}

/* ---- events ---- */

/* Each of the first in the line gets its turn: as many as have room for their whole share. */
static void wake_writers(struct yamux *y)
{
    size_t room = out_room(y), given = 0;
    do {
        struct yamux_stream *st = list_pop_front_as(&y->waiting, struct yamux_stream, write_node);
        st->quota = QUANTUM;
        given += QUANTUM;
        stream_event(st, YAMUX_WRITABLE);
    } while (!list_empty(&y->waiting) && room >= given && room - given >= QUANTUM);
}

static bool time_to_wake(const struct yamux *y)
{
    return !list_empty(&y->waiting) && bufq_len(&y->out) <= y->cfg.out_high / 2;
}

/* Whether what the user asked for is possible now. */
static bool can_write(const struct yamux_stream *st)
{
    return st->need > 1 ? yamux_write_fits(st, st->need) : yamux_writable(st) > 0;
}

/* What of the stream's events is still true; 0 = nothing. */
static unsigned take_events(struct yamux_stream *st)
{
    unsigned what = st->events;
    st->events = 0;
    if (st->state & ST_RESET)
        return what & (YAMUX_OPENED | YAMUX_RESET);
    if (what & YAMUX_WRITABLE) {
        if (can_write(st)) {
            st->want_write = false;
        } else {
            what &= ~(unsigned)YAMUX_WRITABLE;
            yamux_want_room(st, st->need);
        }
    }
    return what;
}

bool yamux_next(struct yamux *y, struct yamux_event *ev)
{
    *ev = (struct yamux_event){0};
    if (y->pong || y->goaway_event) {
        ev->what =
            (y->pong ? (unsigned)YAMUX_PONG : 0u) | (y->goaway_event ? (unsigned)YAMUX_GOAWAY : 0u);
        ev->rtt_ns = y->pong_rtt_ns;
        y->pong = y->goaway_event = false;
        return true;
    }
    for (;;) {
        struct yamux_stream *st = list_pop_front_as(&y->ready, struct yamux_stream, ready_node);
        if (st != NULL) {
            ev->stream = st;
            ev->what = take_events(st);
            if (ev->what != 0)
                return true;
        } else if (time_to_wake(y)) {
            wake_writers(y);
        } else {
            ev->stream = NULL;
            return false;
        }
    }
}

bool yamux_has_events(const struct yamux *y)
{
    return y->pong || y->goaway_event || !list_empty(&y->ready) || time_to_wake(y);
}

int yamux_error(const struct yamux *y)
{
    return y->err;
}

/* ---- towards the socket ---- */

size_t yamux_pending(const struct yamux *y)
{
    return bufq_len(&y->urgent) + bufq_len(&y->out);
}

/* The first n bytes of q only. */
static int iov_prefix(const struct bufq *q, size_t n, struct iovec *iov, int max)
{
    int cnt = bufq_iov(q, iov, max);
    for (int i = 0; i < cnt; i++) {
        if (iov[i].iov_len >= n) {
            iov[i].iov_len = n;
            return i + 1;
        }
        n -= iov[i].iov_len;
    }
    return cnt;
}

int yamux_output(const struct yamux *y, struct iovec *iov, int max)
{
    int n = 0;
    if (y->frame_left > 0 && bufq_len(&y->urgent) > 0) {
        n = iov_prefix(&y->out, y->frame_left, iov, max);
        return n + bufq_iov(&y->urgent, iov + n, max - n);
    }
    n = bufq_iov(&y->urgent, iov, max);
    return n + bufq_iov(&y->out, iov + n, max - n);
}

/* Drop up to *n bytes of q, at most cap; *n is what remains. */
static size_t drop(struct bufq *q, size_t *n, size_t cap)
{
    size_t part = *n < cap ? *n : cap;
    bufq_consume(q, part);
    *n -= part;
    return part;
}

/* Whole size of the frame that begins at the head of out. */
static size_t frame_size(const struct yamux *y)
{
    uint8_t head[YAMUX_HEADER_BYTES];
    size_t got = bufq_peek(&y->out, 0, head, sizeof head);
    assert(got == sizeof head);
    return sizeof head + (head[1] == YAMUX_T_DATA ? get_be32(head + 8) : 0);
}

void yamux_sent(struct yamux *y, size_t n, uint64_t now_ns)
{
    y->now_ns = now_ns;
    y->frame_left -= drop(&y->out, &n, y->frame_left);
    (void)drop(&y->urgent, &n, bufq_len(&y->urgent));
    while (n > 0) {
        size_t size = frame_size(y);
        y->frame_left = size - drop(&y->out, &n, size);
    }
    if (yamux_pending(y) == 0) { /* an idle mux holds no buffer */
        buf_put(y->small);
        y->small = NULL;
    }
}

/* ---- time ---- */

static uint64_t first_deadline(const struct list *l)
{
    const struct yamux_stream *st = list_first_as(l, struct yamux_stream, deadline_node);
    return st != NULL ? st->deadline_ns : LOOP_NEVER;
}

uint64_t yamux_deadline(const struct yamux *y)
{
    uint64_t first = first_deadline(&y->syn), linger = first_deadline(&y->linger),
             stuck = first_deadline(&y->stuck);
    first = first < linger ? first : linger;
    return first < stuck ? first : stuck;
}

static void expire_list(struct yamux *y, struct list *l)
{
    while (first_deadline(l) <= y->now_ns) {
        struct yamux_stream *st = list_first_as(l, struct yamux_stream, deadline_node);
        send_rst(y, st->id, 0);
        stream_die(st, ERR_TIMEOUT);
    }
}

void yamux_tick(struct yamux *y, uint64_t now_ns)
{
    y->now_ns = now_ns;
    expire_list(y, &y->syn);
    expire_list(y, &y->linger);
    expire_list(y, &y->stuck);
}

void yamux_compact(struct yamux *y)
{
    struct list_node *pos, *tmp;
    list_for_each(pos, tmp, &y->parked)(void)
        bufq_compact(&container_of(pos, struct yamux_stream, rx_node)->rx);
}

/* ---- opening and accepting ---- */

int yamux_open(struct yamux *y, void *user, uint64_t now_ns, struct yamux_stream **out)
{
    y->now_ns = now_ns;
    *out = NULL;
    if (y->goaway_received)
        return ERR_CLOSED;
    if (y->next_id > UINT32_MAX - 2 && y->cfg.reuse_ids)
        y->next_id = y->cfg.client ? 1 : 2;
    /* The peer may have taken ids of our parity (nobody checks): step over those in use. */
    while (y->next_id <= UINT32_MAX - 2 && map_get(&y->streams, &y->next_id) != NULL)
        y->next_id += 2;
    if (y->unacked >= y->cfg.backlog || y->next_id > UINT32_MAX - 2 || !table_room(y))
        return ERR_LIMIT;
    struct yamux_stream *st = stream_new(y, y->next_id, user);
    if (st == NULL)
        return ERR_NOMEM;
    y->next_id += 2;
    y->unacked++;
    st->ours = true;
    control(y, &y->urgent, YAMUX_T_WINDOW, YAMUX_F_SYN, st->id, 0);
    if (y->err != 0) {
        stream_free(st);
        return y->err;
    }
    st->deadline_ns = now_ns + y->cfg.syn_timeout_ms * NS_PER_MS;
    list_push_back(&y->syn, &st->deadline_node);
    *out = st;
    return 0;
}

int yamux_accept(struct yamux_stream *st)
{
    if (st->ours || (st->state & (ST_ACKED | ST_GONE)))
        return ERR_STATE;
    control(st->mux, &st->mux->urgent, YAMUX_T_WINDOW, YAMUX_F_ACK, st->id, 0);
    stream_acked(st);
    return st->mux->err;
}

/* ---- writing ---- */

static int write_check(const struct yamux_stream *st)
{
    if (st->state & ST_RESET)
        return st->reset_err;
    return st->state & ST_LOCAL_FIN ? ERR_CLOSED : st->mux->err;
}

size_t yamux_writable(const struct yamux_stream *st)
{
    if (write_check(st) < 0)
        return 0;
    size_t n = out_room(st->mux);
    if (n > st->send_window)
        n = st->send_window;
    /* Others wait in line: nobody gets in front of them, and who was called takes his share. */
    if (n > st->quota && !list_empty(&st->mux->waiting))
        n = st->quota;
    return n;
}

uint32_t yamux_under_way(const struct yamux_stream *st)
{
    return st->send_window < YAMUX_WINDOW ? YAMUX_WINDOW - st->send_window : 0;
}

bool yamux_write_fits(const struct yamux_stream *st, size_t n)
{
    return write_check(st) == 0 && n <= st->send_window &&
           bufq_len(&st->mux->out) < st->mux->cfg.out_high + FRAME_MAX;
}

void yamux_want_room(struct yamux_stream *st, size_t n)
{
    struct yamux *y = st->mux;
    assert(n > 0 && n <= YAMUX_WINDOW);
    if (write_check(st) < 0)
        return;
    st->want_write = true;
    st->need = (uint32_t)n;
    /* Without window the peer's update wakes the stream, otherwise room in the output does. */
    if (st->send_window < n || list_node_is_linked(&st->write_node))
        return;
    if (list_empty(&y->waiting) && can_write(st))
        stream_event(st, YAMUX_WRITABLE);
    else
        list_push_back(&y->waiting, &st->write_node);
}

void yamux_want_write(struct yamux_stream *st)
{
    yamux_want_room(st, 1);
}

/* A frame whose body is copied behind its header: tiny slices would pin a buffer each. */
static int write_small(struct yamux_stream *st, struct bufq *q, size_t n)
{
    struct yamux *y = st->mux;
    uint8_t *body;
    int rc = put_header(y, &y->out, YAMUX_T_DATA, 0, st->id, (uint32_t)n, n, &body);
    if (rc == 0)
        (void)bufq_read(q, body, n);
    return rc;
}

static int write_large(struct yamux_stream *st, struct bufq *q, size_t n)
{
    struct yamux *y = st->mux;
    struct bufq frame;
    bufq_init(&frame, y->pool);
    int rc = put_header(y, &frame, YAMUX_T_DATA, 0, st->id, (uint32_t)n, 0, NULL);
    if (rc == 0)
        rc = bufq_move(&frame, q, n);
    if (rc < 0) {
        bufq_clear(&frame);
        return rc;
    }
    rc = bufq_move(&y->out, &frame, bufq_len(&frame));
    assert(rc == 0); /* whole slices need no memory */
    return 0;
}

/* One data frame of the first n bytes of q, or nothing at all: a header without its body would
 * break the session. */
static int write_frame(struct yamux_stream *st, struct bufq *q, size_t n)
{
    int rc = n < COPY_BELOW ? write_small(st, q, n) : write_large(st, q, n);
    if (rc < 0)
        return rc;
    st->send_window -= (uint32_t)n;
    st->quota -= n < st->quota ? (uint32_t)n : st->quota;
    st->mux->stat.frames_out++;
    st->mux->stat.bytes_out += n;
    return 0;
}

int yamux_write_q(struct yamux_stream *st, struct bufq *q, size_t n)
{
    int rc = write_check(st);
    assert(rc < 0 || (n <= st->send_window && n <= bufq_len(q)));
    while (n > 0 && rc == 0) {
        size_t part = n < FRAME_MAX ? n : FRAME_MAX;
        rc = write_frame(st, q, part);
        n -= part;
    }
    return rc;
}

/* Write what there is room for of the n bytes in q; returns how many. */
static long write_some(struct yamux_stream *st, struct bufq *q, size_t n)
{
    size_t room = yamux_writable(st), had = bufq_len(q);
    int rc = yamux_write_q(st, q, n < room ? n : room);
    size_t taken = had - bufq_len(q);
    if (taken == 0 && rc < 0)
        return rc;
    if (taken < n)
        yamux_want_write(st);
    return (long)taken;
}

long yamux_write(struct yamux_stream *st, const void *p, size_t n)
{
    struct bufq q;
    size_t room = yamux_writable(st);
    bufq_init(&q, st->mux->pool);
    int rc = bufq_append_copy(&q, p, n < room ? n : room);
    if (rc < 0)
        return rc;
    long taken = write_some(st, &q, n < room ? n : room);
    bufq_clear(&q);
    if (taken >= 0 && (size_t)taken < n)
        yamux_want_write(st);
    return taken;
}

long yamux_write_slice(struct yamux_stream *st, struct slice s)
{
    struct bufq q;
    size_t n = s.n;
    bufq_init(&q, st->mux->pool);
    int rc = bufq_append_slice(&q, s);
    if (rc < 0)
        return rc;
    long taken = write_some(st, &q, n);
    bufq_clear(&q);
    return taken;
}

long yamux_splice_some(struct yamux_stream *to, struct yamux_stream *from, size_t max)
{
    size_t n = bufq_len(&from->rx) < max ? bufq_len(&from->rx) : max;
    if (n == 0)
        return 0;
    /* The age of a stall counts from the last move, also when that session hears nothing itself. */
    if (from->mux->now_ns < to->mux->now_ns)
        from->mux->now_ns = to->mux->now_ns;
    long moved = write_some(to, &from->rx, n);
    if (moved > 0)
        rx_consumed(from, (size_t)moved);
    return moved;
}

long yamux_splice(struct yamux_stream *to, struct yamux_stream *from)
{
    return yamux_splice_some(to, from, SIZE_MAX);
}

/* ---- reading ---- */

size_t yamux_read(struct yamux_stream *st, void *out, size_t n)
{
    n = bufq_read(&st->rx, out, n);
    rx_consumed(st, n);
    return n;
}

size_t yamux_read_q(struct yamux_stream *st, struct bufq *to, size_t max)
{
    size_t n = bufq_len(&st->rx) < max ? bufq_len(&st->rx) : max;
    if (bufq_move(to, &st->rx, n) < 0)
        return 0;
    rx_consumed(st, n);
    return n;
}

size_t yamux_peek(const struct yamux_stream *st, size_t off, void *out, size_t n)
{
    return bufq_peek(&st->rx, off, out, n);
}

size_t yamux_discard(struct yamux_stream *st, size_t n)
{
    if (n > bufq_len(&st->rx))
        n = bufq_len(&st->rx);
    bufq_consume(&st->rx, n);
    rx_consumed(st, n);
    return n;
}

/* ---- ending ---- */

/* Openers wait for an ACK, also of a stream that is over: the last frame carries it then. */
static unsigned late_ack(const struct yamux_stream *st)
{
    return !st->ours && !(st->state & ST_ACKED) ? YAMUX_F_ACK : 0u;
}

int yamux_close_write(struct yamux_stream *st)
{
    struct yamux *y = st->mux;
    if (st->state & (ST_LOCAL_FIN | ST_RESET))
        return 0;
    control(y, &y->out, YAMUX_T_WINDOW, late_ack(st) | YAMUX_F_FIN, st->id, 0);
    if (!st->ours)
        stream_acked(st);
    st->state |= ST_LOCAL_FIN;
    st->want_write = false;
    list_remove(&st->write_node);
    stream_closed_check(st);
    return y->err;
}

void yamux_reset(struct yamux_stream *st)
{
    if (st->state & ST_RESET)
        return;
    if (!(st->state & ST_GONE))
        send_rst(st->mux, st->id, late_ack(st));
    stream_gone(st);
    rx_clear(st);
    st->state |= ST_RESET;
    st->reset_err = ERR_CLOSED;
}

bool yamux_fin_received(const struct yamux_stream *st)
{
    return (st->state & ST_REMOTE_FIN) != 0;
}

bool yamux_eof(const struct yamux_stream *st)
{
    return yamux_fin_received(st) && bufq_len(&st->rx) == 0;
}

bool yamux_write_closed(const struct yamux_stream *st)
{
    return (st->state & (ST_LOCAL_FIN | ST_RESET)) != 0;
}

void yamux_release(struct yamux_stream *st, bool linger)
{
    struct yamux *y = st->mux;
    assert(!st->released);

    if (linger)
        (void)yamux_close_write(st);
    else if (!(st->state & ST_GONE))
        yamux_reset(st);
    if (st->state & ST_GONE) {
        stream_free(st);
        return;
    }
    st->released = true;
    st->user = NULL;
    rx_clear(st);
    list_remove(&st->ready_node);
    stream_acked(st); /* the linger time bounds the wait for an ACK too */
    wait_for_fin(st, &y->linger, y->cfg.linger_ms * NS_PER_MS);
    stuck_check(st);
}

/* ---- the session's own frames ---- */

int yamux_ping(struct yamux *y, uint64_t now_ns)
{
    y->now_ns = now_ns;
    if (y->ping_sent_ns != 0 && now_ns - y->ping_sent_ns < PING_STALE)
        return ERR_BUSY;
    control(y, &y->urgent, YAMUX_T_PING, YAMUX_F_SYN, 0, y->ping_id++);
    y->ping_sent_ns = now_ns == 0 ? 1 : now_ns;
    return y->err;
}

uint64_t yamux_rtt_ns(const struct yamux *y)
{
    return y->pong_rtt_ns;
}

bool yamux_ping_pending(const struct yamux *y, uint64_t *since_ns)
{
    *since_ns = y->ping_sent_ns;
    return y->ping_sent_ns != 0;
}

void yamux_go_away(struct yamux *y, uint32_t code)
{
    if (y->goaway_sent)
        return;
    y->goaway_sent = true;
    control(y, &y->urgent, YAMUX_T_GOAWAY, 0, 0, code);
}

/* ---- the mux itself ---- */

static uint32_t or_default(uint32_t v, uint32_t def)
{
    return v != 0 ? v : def;
}

struct yamux *yamux_new(const struct yamux_cfg *cfg, struct bufpool *pool,
                        const uint8_t hash_key[16])
{
    struct yamux *y = calloc(1, sizeof *y);
    if (y == NULL)
        return NULL;
    y->cfg.client = cfg->client;
    y->cfg.max_streams = or_default(cfg->max_streams, 4096);
    y->cfg.backlog = or_default(cfg->backlog, 256);
    y->cfg.accept_backlog = or_default(cfg->accept_backlog, 512);
    y->cfg.out_high = or_default(cfg->out_high, 262144);
    y->cfg.syn_timeout_ms = or_default(cfg->syn_timeout_ms, 20000);
    y->cfg.linger_ms = or_default(cfg->linger_ms, 30000);
    y->cfg.control_room = or_default(cfg->control_room, CONTROL_ROOM);
    y->cfg.exact = cfg->exact;
    y->cfg.reuse_ids = cfg->reuse_ids;
    y->pool = pool;
    y->next_id = cfg->client ? 1 : 2;
    map_init(&y->streams, MAP_KEY(struct yamux_stream, id), hash_key, y->cfg.max_streams);
    bufq_init(&y->urgent, pool);
    bufq_init(&y->out, pool);
    list_init(&y->ready);
    list_init(&y->waiting);
    list_init(&y->parked);
    list_init(&y->syn);
    list_init(&y->linger);
    list_init(&y->stuck);
    list_init(&y->held);
    return y;
}

void yamux_free(struct yamux *y)
{
    if (y == NULL)
        return;
    struct yamux_stream *st;
    for (struct map_iter it = map_iter(&y->streams); (st = map_next(&it)) != NULL;) {
        bufq_clear(&st->rx);
        free(st);
    }
    while ((st = list_pop_front_as(&y->held, struct yamux_stream, deadline_node)) != NULL) {
        bufq_clear(&st->rx);
        free(st);
    }
    bufq_clear(&y->urgent);
    bufq_clear(&y->out);
    buf_put(y->small);
    map_free(&y->streams);
    free(y);
}

void yamux_stat(const struct yamux *y, struct yamux_stat *out)
{
    *out = y->stat;
    out->streams = (uint32_t)map_len(&y->streams);
    out->unaccepted = y->unaccepted;
    out->unacked = y->unacked;
    out->rx_bytes = y->rx_bytes;
    out->out_bytes = yamux_pending(y);
}

size_t yamux_rx_bytes(const struct yamux *y)
{
    return y->rx_bytes;
}

void yamux_each(struct yamux *y, bool (*fn)(void *arg, struct yamux_stream *st), void *arg)
{
    struct yamux_stream *st;
    for (struct map_iter it = map_iter(&y->streams); (st = map_next(&it)) != NULL;) {
        if (!st->released && !fn(arg, st))
            return;
    }
}

struct yamux_stream *yamux_longest_stalled(const struct yamux *y)
{
    return list_first_as(&y->parked, struct yamux_stream, rx_node);
}

void yamux_excuse(struct yamux_stream *st, uint64_t now_ns)
{
    if (!list_node_is_linked(&st->rx_node))
        return;
    list_remove(&st->rx_node);
    st->rx_since_ns = now_ns;
    list_push_back(&st->mux->parked, &st->rx_node);
}
