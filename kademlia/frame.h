/*
 * frame - the frames of the DHT's JSON dialect, cut out of a stream of bytes
 * (docs/protocol/dht.md §3.2).
 *
 *     length u32be = 1 + body bytes | method u8 | body
 *
 * A struct kad_frame collects one frame from pieces of any size. Memory for the body grows with
 * what has arrived, never with what the length promises, and is freed by kad_frame_clear(). Because
 * of the limit the first byte of a frame is 0: that is how a native peer (0x93, 0x94) is told apart
 * before a frame is begun.
 *
 * Owner: one stream, one thread. Limits: max, at most KAD_FRAME_MAX, on the length field.
 * Errors: ERR_FORMAT (length 0), ERR_TOO_LONG (length above max), ERR_NOMEM; all of them are final
 * and the stream is closed without an answer.
 *
 *     struct kad_frame f;
 *     kad_frame_init(&f, KAD_FRAME_MAX);
 *     rc = kad_frame_feed(&f, p, n, &used);       // ERR_AGAIN until the frame is whole, then 0
 *     if (rc == 0)
 *         rc = kad_json_decode(&msg, f.method, false, f.body, f.body_len);
 *     kad_frame_clear(&f);
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

#define KAD_FRAME_HEAD 5
#define KAD_FRAME_MAX  4194304u /* of the length field */

struct kad_frame { /* method and body are valid once a feed function gave 0 */
    uint8_t method;
    uint8_t *body;   /* NULL while nothing of it has arrived */
    size_t body_len; /* bytes of it so far */
    /* private */
    uint8_t head[KAD_FRAME_HEAD];
    size_t head_len, want, cap, max;
};

void kad_frame_init(struct kad_frame *f, size_t max);
/* Free the body; ready for the next frame. */
void kad_frame_clear(struct kad_frame *f);

/* Take what belongs to the frame from n bytes; *used says how many were taken. 0 = whole,
 * ERR_AGAIN = more is needed, or an error. Must not be called again after an error. */
int kad_frame_feed(struct kad_frame *f, const void *p, size_t n, size_t *used)
    __attribute__((warn_unused_result));

/* The same from the front of a queue; what was taken is consumed. */
int kad_frame_feed_queue(struct kad_frame *f, struct bufq *q) __attribute__((warn_unused_result));
