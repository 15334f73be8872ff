/*
 * yamux - the stream multiplexer of a session, as a sans-I/O core (docs/protocol/dmsg.md §3.3).
 *
 * Bytes in, bytes out, streams in between. The core owns its streams; the user (session, relay,
 * client) owns the meaning of them through st->user. Payload is not copied on its way in or out
 * (pieces below 256 bytes are: that is cheaper): received bytes wait in the stream's receive queue
 * as slices of the read buffers, and yamux_splice() moves them to a stream of another mux.
 *
 *     rc = yamux_input(y, slice, now_ns);     // rc < 0: the peer broke the protocol, close
 *     while (yamux_next(y, &ev))              // what happened, each stream once per batch
 *         handle(ev.stream, ev.what);
 *     n = yamux_output(y, iov, 64); n = writev(...); yamux_sent(y, n, now_ns);
 *     yamux_tick(y, now_ns);                  // at yamux_deadline(y)
 *
 * yamux_output() and its yamux_sent() belong together: no other call on this mux in between.
 *
 * Flow control: a stream starts with 262 144 bytes each way. Credit follows consumption:
 * yamux_read(), yamux_splice() and yamux_discard() give it back (as a window update once half of
 * the window is due, or an eighth when nothing waits). Writing never exceeds yamux_writable(): the
 * peer's window or the room in the output queue, whatever is smaller, and a share of 32 KiB while
 * other writers wait in line. A writer that got less than it wanted sees YAMUX_WRITABLE later, in
 * the order of the line. Pings, window updates, SYN, ACK and RST overtake queued payload at the
 * next frame border; FIN does not.
 *
 * Life of a stream
 *
 *     yamux_open()  -> [SYN sent] -> YAMUX_ACKED -> open
 *     peer's SYN    -> YAMUX_OPENED -> yamux_accept() -> open
 *     open          -- yamux_close_write() --> half closed (FIN sent)
 *                   -- peer's FIN, YAMUX_EOF --> half closed; yamux_eof() once all has been read
 *     both FINs     -> closed;   RST from either side -> closed (YAMUX_RESET when it was the peer)
 *     yamux_release(): the user has no more interest. Never blocks. A stream that is not fully
 *     closed gets RST, which overtakes and so discards what was written; or, when linger is asked
 *     for, FIN and a deadline of 30 s, then RST; of 2 s only when the peer has used up its credit
 *     and so can't end in order. A stream lives until it is released.
 *
 * Half-close is real here: after yamux_close_write() data is still received and credit granted.
 *
 * Scope of errors: window overrun, second FIN, SYN on a live id, wrong version or type, go-away 1
 * or 2 end the session (negative return, sticky; yamux_error()); everything else concerns a stream
 * or nothing. A SYN above the backlog or above max_streams is answered with RST. Frames of unknown
 * ids are skipped. Data behind FIN resets the stream. An opened stream without ACK in syn_timeout
 * ends alone. A control frame that cannot be queued (no memory, or control_room bytes of them wait
 * because the peer floods and does not read) ends the session.
 *
 * Limits: streams, unaccepted streams, receive bytes (window), output queue, control frames.
 * Memory: an idle mux < 1 KiB, an idle stream < 256 bytes, no buffers.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/buf.h"
#include "base/list.h"

#define YAMUX_HEADER_BYTES 12
#define YAMUX_WINDOW       262144u

enum yamux_type { YAMUX_T_DATA, YAMUX_T_WINDOW, YAMUX_T_PING, YAMUX_T_GOAWAY };
enum yamux_flag { YAMUX_F_SYN = 1, YAMUX_F_ACK = 2, YAMUX_F_FIN = 4, YAMUX_F_RST = 8 };

struct yamux;

/* Bits; several may come together, handle them in this order. */
enum yamux_what {
    YAMUX_OPENED = 1,    /* a stream of the peer: accept or release it */
    YAMUX_ACKED = 2,     /* the peer accepted our stream */
    YAMUX_READABLE = 4,  /* new bytes in the receive queue */
    YAMUX_EOF = 8,       /* the peer has sent FIN; no bytes will follow what is queued */
    YAMUX_WRITABLE = 16, /* room again after a short write */
    YAMUX_RESET = 32,    /* dead; only yamux_release() is left. st->reset_err says why */
    YAMUX_PONG = 64,     /* stream NULL: our ping was answered, ev.rtt_ns */
    YAMUX_GOAWAY = 128,  /* stream NULL: the peer will take no new streams */
    YAMUX_CREDIT = 256,  /* with cfg.exact: the peer has consumed more, see yamux_under_way() */
};

struct yamux_stream { /* read-only for users but for `user` */
    struct yamux *mux;
    void *user;
    uint32_t id;
    uint32_t send_window; /* what the peer still takes */
    uint32_t recv_window; /* what the peer may still send */
    uint32_t quota;       /* what it may write while others wait in line */
    uint32_t need;        /* room that it waits for */
    struct bufq rx;       /* received, not yet consumed */
    int reset_err; /* ERR_RESET by the peer, ERR_TIMEOUT no ACK, ERR_PROTOCOL, ERR_CLOSED by us */
    unsigned state : 8, events : 16;
    bool want_write : 1, ours : 1, released : 1;
    uint64_t deadline_ns; /* SYN or close time-out, 0 = none */
    uint64_t rx_since_ns; /* since when rx has been non-empty without being touched: age of a stall;
                             0 = empty */
    struct list_node ready_node, write_node, deadline_node, rx_node;
};

struct yamux_event {
    struct yamux_stream *stream;
    unsigned what;
    uint64_t rtt_ns;
};

struct yamux_cfg {           /* 0 = default */
    bool client;             /* TCP dialer: odd ids */
    uint32_t max_streams;    /* 4096, both directions together */
    uint32_t backlog;        /* 256: ours not yet acknowledged, what old peers take */
    uint32_t accept_backlog; /* 512: the peer's not yet accepted */
    uint32_t out_high; /* 262 144: yamux_writable() is 0 while more is queued for the socket */
    uint32_t syn_timeout_ms; /* 20 000 */
    uint32_t linger_ms;      /* 30 000 */
    uint32_t control_room;   /* 65 536: bytes of control frames that may wait for the socket */
    bool exact;              /* credit follows consumption closely, and its coming is told */
    bool reuse_ids;          /* begin again when they are used up (dmsg peers may not expect it) */
};

struct yamux_stat {
    uint32_t streams, unaccepted, unacked; /* gauges: ids in use, and those not yet acknowledged */
    uint32_t held;                         /* closed, but not yet released by the user */
    size_t rx_bytes, out_bytes;
    uint64_t frames_in, frames_out, bytes_in, bytes_out; /* payload */
    uint64_t refused_streams, late_frames, resets_in, resets_out;
};

struct yamux *yamux_new(const struct yamux_cfg *cfg, struct bufpool *pool,
                        const uint8_t hash_key[16]);
/* Drops all streams; users' pointers to them die. */
void yamux_free(struct yamux *y);

/* Parse bytes from the peer. in stays the caller's; payload keeps references to its buf. 0, or a
 * negative error: close the session. */
int yamux_input(struct yamux *y, struct slice in, uint64_t now_ns)
    __attribute__((warn_unused_result));
/* Next stream with news; false when there is none. The stream stays valid until the user releases
 * it. */
bool yamux_next(struct yamux *y, struct yamux_event *ev);
/* True also when output has drained and writers wait in line: look after yamux_sent(). */
bool yamux_has_events(const struct yamux *y);
/* 0, or why the session must be closed. Functions without a result set it too: look after a batch.
 */
int yamux_error(const struct yamux *y);

size_t yamux_pending(const struct yamux *y); /* bytes waiting for the socket */
int yamux_output(const struct yamux *y, struct iovec *iov, int max);
void yamux_sent(struct yamux *y, size_t n, uint64_t now_ns);

uint64_t yamux_deadline(const struct yamux *y);
void yamux_tick(struct yamux *y, uint64_t now_ns);
/* End of a loop turn: copies parked slices that pin much more than they use (base/buf.h). */
void yamux_compact(struct yamux *y);

/* ERR_LIMIT: too many streams or unacknowledged ones; ERR_CLOSED after go-away; ERR_NOMEM. Sends
 * SYN at once; writing may start. A full table first gives up its oldest lingering stream. */
int yamux_open(struct yamux *y, void *user, uint64_t now_ns, struct yamux_stream **out)
    __attribute__((warn_unused_result));
int yamux_accept(struct yamux_stream *st);

/* Bytes that may be written now. */
size_t yamux_writable(const struct yamux_stream *st);
/* Copy up to n bytes out as data frames; returns how many were taken (0 … n), or a negative error
 * (ERR_CLOSED after close_write, ERR_RESET, ERR_NOMEM). */
long yamux_write(struct yamux_stream *st, const void *p, size_t n);
/* The same without copying; takes the reference in every case, writes the first yamux_writable()
 * bytes; returns how many. */
long yamux_write_slice(struct yamux_stream *st, struct slice s);
/* Gather: the first n (<= yamux_writable, or yamux_write_fits) bytes of q become one data frame, or
 * several of at most 64 KiB. 0 or error; q keeps what was not written. */
int yamux_write_q(struct yamux_stream *st, struct bufq *q, size_t n);
/* Bytes written that the peer has not given credit back for: those that it holds, at most. */
uint32_t yamux_under_way(const struct yamux_stream *st);
/* True when n bytes may be written as one piece, also past others that wait in line: for the
 * objects of stream set-up. The output queue may exceed its mark by 64 KiB and one such piece. */
bool yamux_write_fits(const struct yamux_stream *st, size_t n);
/* Ask for YAMUX_WRITABLE when yamux_writable() becomes positive. Implied by a short write. */
void yamux_want_write(struct yamux_stream *st);

/* The same for yamux_write_fits(st, n), n <= YAMUX_WINDOW. */
void yamux_want_room(struct yamux_stream *st, size_t n);

/* Received bytes that wait. */
static inline size_t yamux_readable(const struct yamux_stream *st)
{
    return bufq_len(&st->rx);
}
size_t yamux_read(struct yamux_stream *st, void *out, size_t n);
/* Move up to max received bytes to a queue (credit is granted). */
size_t yamux_read_q(struct yamux_stream *st, struct bufq *to, size_t max);
size_t yamux_peek(const struct yamux_stream *st, size_t off, void *out, size_t n);
size_t yamux_discard(struct yamux_stream *st, size_t n);
/* Pass received bytes of `from` on as data of `to` (another mux on the same thread). Returns bytes
 * moved (0 when nothing waits, also on a closed `to`); asks for WRITABLE on `to` when something is
 * left. */
long yamux_splice(struct yamux_stream *to, struct yamux_stream *from);
/* The same for at most max bytes; what is left above that asks for nothing. */
long yamux_splice_some(struct yamux_stream *to, struct yamux_stream *from, size_t max);

int yamux_close_write(struct yamux_stream *st);
void yamux_reset(struct yamux_stream *st);
bool yamux_fin_received(const struct yamux_stream *st);
bool yamux_eof(const struct yamux_stream *st);          /* FIN received and everything read */
bool yamux_write_closed(const struct yamux_stream *st); /* our FIN or a reset is out */
/* The user forgets the stream; its pointer is dead. linger: a half-closed stream may end in order
 * within linger_ms (2 s when the peer has no credit left for its FIN), otherwise it is reset. */
void yamux_release(struct yamux_stream *st, bool linger);

/* Send a ping; ERR_BUSY while one is under way for less than 10 s. The answer is YAMUX_PONG. */
int yamux_ping(struct yamux *y, uint64_t now_ns);
uint64_t yamux_rtt_ns(const struct yamux *y); /* of the last answered ping; 0 = none yet */
bool yamux_ping_pending(const struct yamux *y, uint64_t *since_ns);
void yamux_go_away(struct yamux *y, uint32_t code);
void yamux_stat(const struct yamux *y, struct yamux_stat *out);
/* Received bytes that wait, all streams: what a byte budget counts. */
size_t yamux_rx_bytes(const struct yamux *y);
/* The stream whose received bytes have waited longest without being touched, NULL when nothing
 * waits: whom the byte budget resets first. */
struct yamux_stream *yamux_longest_stalled(const struct yamux *y);
/* Its bytes wait for a reason of ours: from now on they have waited no time at all. */
void yamux_excuse(struct yamux_stream *st, uint64_t now_ns);
/* All streams, in no particular order; fn returns false to stop. It may not open or release
 * streams. */
void yamux_each(struct yamux *y, bool (*fn)(void *arg, struct yamux_stream *st), void *arg);
