/*
 * stream - an end-to-end encrypted byte pipe between two keys, as applications see it
 * (docs/protocol/dmsg.md §4).
 *
 * A stream lives on one yamux stream of a session to a relay; its payload is sealed between the two
 * ends (KK). It is made by client.h: dialled with client_dial(), or accepted by a listener. This
 * header is what an application needs afterwards; the set-up machine is stream_setup.c.
 *
 * Callbacks (struct stream_cb) come from the loop, never from inside a stream_* call:
 *     opened    a dialled stream is usable
 *     readable  bytes came, or EOF (stream_eof()); called again only after new bytes
 *     writable  there is room again after stream_write() took less than it was given
 *     ended     the stream is dead: dial failed, reset, session lost, time-out, broken frame. err
 * says why. What had come before can still be read, then only stream_close() is left. A
 * NULL callback is skipped. The details of a failed dial are in stream_dial_steps() (client.h).
 *
 *     state   DIALLING -> OPEN -> (half closed by either side) -> closed by stream_close()
 *
 * Half-close: stream_shutdown() sends FIN after what was written; the other direction goes on.
 * Through Go relays and ends the rest is lost (§4.8): request/response protocols read the whole
 * answer before they close. Truncation cannot be told from FIN: check lengths.
 *
 * Memory: what the user does not read stays in the peer's window (262 144 bytes); what it writes
 * beyond the window is not taken. Buffers are only borrowed while bytes are in flight. Idle limit:
 * none here, see stream_set_idle().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/crypto.h"

struct stream;

struct stream_cb {
    void (*opened)(struct stream *st, void *arg);
    void (*readable)(struct stream *st, void *arg);
    void (*writable)(struct stream *st, void *arg);
    void (*ended)(struct stream *st, void *arg, int err);
};

void stream_set_cb(struct stream *st, const struct stream_cb *cb, void *arg);
void *stream_arg(const struct stream *st);

const struct pubkey *stream_remote(const struct stream *st);
uint16_t stream_remote_port(const struct stream *st);
uint16_t stream_local_port(const struct stream *st);
const struct pubkey *stream_via(const struct stream *st); /* key of the relay */

/* Plaintext bytes that can be read now. */
size_t stream_readable(const struct stream *st);
size_t stream_read(struct stream *st, void *out, size_t n);
/* The same without copying: move up to max bytes to a queue of the client's pool. */
size_t stream_read_q(struct stream *st, struct bufq *to, size_t max);
bool stream_eof(const struct stream *st); /* FIN came and everything was read */

/* Seals and queues up to n bytes; returns how many were taken (less than n = no room or no buffers,
 * writable() follows; 0 while it is being dialled, opened() follows) or ERR_CLOSED / ERR_RESET. */
long stream_write(struct stream *st, const void *p, size_t n);
/* So many bytes would be taken now. */
size_t stream_writable(const struct stream *st);
/* Call writable() when there is room, also without a short write. */
void stream_want_write(struct stream *st);
/* Send FIN behind what was written. 0, ERR_STATE while it is being dialled, or the stream's error.
 */
int stream_shutdown(struct stream *st);
bool stream_shut(const struct stream *st);

/* End a stream that has been idle in both directions for so long (0 = never, default). ended() gets
 * ERR_TIMEOUT. */
void stream_set_idle(struct stream *st, uint64_t idle_ns);

/* Give the stream back: orderly (FIN, what is written goes out) or by reset. No callback
 * afterwards. */
void stream_close(struct stream *st);
void stream_abort(struct stream *st);

/* Pool of its buffers, for queues given to stream_read_q(). */
struct bufpool *stream_pool(const struct stream *st);
uint64_t stream_bytes_in(const struct stream *st);
uint64_t stream_bytes_out(const struct stream *st);
