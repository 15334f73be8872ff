/*
 * record - stream data as sealed frames (docs/protocol/dmsg.md §2.7).
 *
 *     frame = u16be(length) | u64be(c) | AEAD        length <= 4094, of it at most 4070 bytes of
 * plaintext
 *
 * The writer cuts plaintext into frames and seals them straight into pool buffers; 4096, 16384 and
 * 65536 bytes hold whole frames exactly. The reader takes bytes as they come, split anywhere, opens
 * every frame that is complete and leaves the rest in the caller's queue; an incomplete frame is
 * never more than RECORD_FRAME_MAX - 1 bytes.
 *
 * Errors of the reader are sticky: a frame that is too long, too short to be sealed, out of order
 * or forged ends the stream for good, because nothing behind it can be trusted. ERR_NOMEM is no
 * such error on either side: nothing is lost, the call can be repeated when buffers are free again.
 * (Upstream also remembers an expired read deadline for ever; there is none here.)
 *
 * Owner: the stream, one thread; struct record_reader and the writer's struct cipher are values
 * without heap, wiped by their owner. What parks in a queue pins the buffers it was read into, see
 * bufq_compact().
 *
 *     rc = record_write(&tx, &wire, p, n, &taken);             // plaintext -> frames
 *     rc = record_read(&reader, &wire_in, &plain, 65536);      // frames -> plaintext
 *     if (peer_sent_fin) rc = record_eof(&reader, &wire_in);   // ERR_EOF: orderly
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "transport/cipher.h"

#define RECORD_PREFIX_BYTES 2
#define RECORD_FRAME_MAX    4096
#define RECORD_LENGTH_MAX   (RECORD_FRAME_MAX - RECORD_PREFIX_BYTES)                   /* 4094 */
#define RECORD_OVERHEAD     (RECORD_PREFIX_BYTES + CIPHER_OVERHEAD)                    /* 26 */
#define RECORD_PLAIN_MAX    (RECORD_FRAME_MAX - RECORD_PREFIX_BYTES - CIPHER_OVERHEAD) /* 4070 */

/* Bytes on the wire for n bytes of plaintext written at once. */
size_t record_wire_len(size_t n);

/* The most plaintext that fits into room bytes on the wire. */
size_t record_plain_fit(size_t room);

/* Append n bytes of plaintext to out as frames. *taken is how much of it was; less than n only with
 * ERR_NOMEM, or ERR_NONCE when the counter is used up. */
int record_write(struct cipher *tx, struct bufq *out, const void *p, size_t n, size_t *taken)
    __attribute__((warn_unused_result));

struct record_reader {
    struct cipher rx;
    int err; /* sticky; 0 at the start */
};

/* Open frames of in and append their plaintext to out, until no complete frame is left or out holds
 * max bytes or more (it may pass max by one frame). 0 or ERR_NOMEM (both: go on later),
 * ERR_TOO_LONG, ERR_SHORT, ERR_NONCE, ERR_TAG (sticky). What was good in front of a bad frame is in
 * out. */
int record_read(struct record_reader *r, struct bufq *in, struct bufq *out, size_t max)
    __attribute__((warn_unused_result));

/* The transport has ended behind the bytes in `in`: ERR_EOF at a frame border, ERR_SHORT inside a
 * frame (sticky), 0 when a complete frame waits for record_read(), or the reader's error. */
int record_eof(struct record_reader *r, const struct bufq *in);

/* Wipe the key; the reader refuses everything afterwards with ERR_CLOSED. */
void record_reader_wipe(struct record_reader *r);
