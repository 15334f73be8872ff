#include "transport/record.h"

#include <stdbool.h>
#include <string.h>

#include "base/cursor.h"
#include "base/err.h"

/* Up to here a frame is copied into a buffer with others instead of taking one for itself. */
#define SMALL_FRAME 512

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

size_t record_wire_len(size_t n)
{
    size_t frames = n / RECORD_PLAIN_MAX + (n % RECORD_PLAIN_MAX != 0);
    return n + frames * RECORD_OVERHEAD;
}

size_t record_plain_fit(size_t room)
{
    size_t rest = room % RECORD_FRAME_MAX;
    return room / RECORD_FRAME_MAX * RECORD_PLAIN_MAX +
           (rest > RECORD_OVERHEAD ? rest - RECORD_OVERHEAD : 0);
}

/* A buffer size that whole frames fill, for n bytes of frames to come. */
static size_t buffer_size(size_t n)
{
    if (n >= 16 * RECORD_FRAME_MAX)
        return 16 * RECORD_FRAME_MAX;
    return n >= 4 * RECORD_FRAME_MAX ? 4 * RECORD_FRAME_MAX : smaller(n, RECORD_FRAME_MAX);
}

/* ---- writing ---- */

/* n <= RECORD_PLAIN_MAX bytes to one frame of n + RECORD_OVERHEAD bytes. */
static int seal_frame(struct cipher *tx, uint8_t *frame, const uint8_t *p, size_t n)
{
    put_be16(frame, (uint16_t)(n + CIPHER_OVERHEAD));
    return cipher_seal(tx, frame + RECORD_PREFIX_BYTES, p, n);
}

static int write_small(struct cipher *tx, struct bufq *out, const uint8_t *p, size_t n)
{
    uint8_t frame[SMALL_FRAME];

    int rc = seal_frame(tx, frame, p, n);
    return rc == 0 ? bufq_append_copy(out, frame, n + RECORD_OVERHEAD) : rc;
}

/* Fill one buffer with frames. */
static int write_buffer(struct cipher *tx, struct bufq *out, const uint8_t *p, size_t n,
                        size_t *taken)
{
    struct buf *b = buf_get(out->pool, buffer_size(record_wire_len(n)));
    size_t done = 0;
    int rc = b != NULL ? 0 : ERR_NOMEM;

    while (rc == 0 && done < n) {
        size_t part = smaller(n - done, RECORD_PLAIN_MAX), frame = part + RECORD_OVERHEAD;
        if (buf_room_len(b) < frame)
            break;
        rc = seal_frame(tx, buf_room(b), p + done, part);
        if (rc == 0)
            rc = bufq_append_slice(out, buf_take(b, frame));
        if (rc == 0)
            done += part;
    }
    buf_put(b);
    *taken += done;
    return rc;
}

/* A frame that was sealed but could not be queued is sealed again by the next call, under the next
 * counter: the receiver allows gaps. */
int record_write(struct cipher *tx, struct bufq *out, const void *p, size_t n, size_t *taken)
{
    const uint8_t *src = p;
    int rc = 0;

    *taken = 0;
    while (rc == 0 && *taken < n) {
        size_t left = n - *taken;
        if (left > SMALL_FRAME - RECORD_OVERHEAD) {
            rc = write_buffer(tx, out, src + *taken, left, taken);
        } else {
            rc = write_small(tx, out, src + *taken, left);
            *taken += rc == 0 ? left : 0;
        }
    }
    return rc;
}

/* ---- reading ---- */

/* Length field of the first frame, which is complete in the queue. 0: not yet. Or an error. */
static int frame_length(const struct bufq *in, size_t *len)
{
    uint8_t prefix[RECORD_PREFIX_BYTES];

    *len = 0;
    if (bufq_peek(in, 0, prefix, sizeof prefix) < sizeof prefix)
        return 0;
    size_t n = get_be16(prefix);
    if (n > RECORD_LENGTH_MAX)
        return ERR_TOO_LONG;
    if (n < CIPHER_OVERHEAD)
        return ERR_SHORT;
    if (bufq_len(in) - sizeof prefix >= n)
        *len = n;
    return 0;
}

/* The sealed bytes of the first frame: in place when they are in one piece, else copied to scratch.
 */
static const uint8_t *frame_body(const struct bufq *in, size_t len,
                                 uint8_t scratch[RECORD_LENGTH_MAX])
{
    struct iovec first;

    if (bufq_iov(in, &first, 1) == 1 && first.iov_len >= RECORD_PREFIX_BYTES + len)
        return (const uint8_t *)first.iov_base + RECORD_PREFIX_BYTES;
    bufq_peek(in, RECORD_PREFIX_BYTES, scratch, len);
    return scratch;
}

static int open_small(struct record_reader *r, struct bufq *out, const uint8_t *sealed, size_t len)
{
    uint8_t plain[SMALL_FRAME];

    int rc = cipher_open(&r->rx, plain, sealed, len);
    return rc == 0 ? bufq_append_copy(out, plain, len - CIPHER_OVERHEAD) : rc;
}

/* Open into *b, which is replaced when it has no room, by one that holds what else is to be opened
 * now, too. */
static int open_large(struct record_reader *r, struct bufq *out, struct buf **b, size_t ahead,
                      const uint8_t *sealed, size_t len)
{
    size_t n = len - CIPHER_OVERHEAD;

    if (*b == NULL || buf_room_len(*b) < n) {
        buf_put(*b);
        *b = buf_get(out->pool, buffer_size(ahead > n ? ahead : n));
        if (*b == NULL)
            return ERR_NOMEM;
    }
    int rc = cipher_open(&r->rx, buf_room(*b), sealed, len);
    return rc == 0 ? bufq_append_slice(out, buf_take(*b, n)) : rc;
}

static int open_frame(struct record_reader *r, struct bufq *in, struct bufq *out, struct buf **b,
                      size_t max, size_t len)
{
    size_t ahead = smaller(bufq_len(in), max - bufq_len(out));
    uint8_t scratch[RECORD_LENGTH_MAX];
    const uint8_t *sealed = frame_body(in, len, scratch);
    uint64_t counter = r->rx.counter;

    int rc = len <= SMALL_FRAME ? open_small(r, out, sealed, len)
                                : open_large(r, out, b, ahead, sealed, len);
    if (rc == 0)
        bufq_consume(in, RECORD_PREFIX_BYTES + len);
    else
        r->rx.counter = counter; /* ERR_NOMEM: the same frame is opened again */
    return rc;
}

int record_read(struct record_reader *r, struct bufq *in, struct bufq *out, size_t max)
{
    struct buf *b = NULL;
    size_t len;
    int rc = r->err;

    while (rc == 0 && bufq_len(out) < max) {
        rc = frame_length(in, &len);
        if (rc != 0 || len == 0)
            break;
        rc = open_frame(r, in, out, &b, max, len);
    }
    buf_put(b);
    if (rc != ERR_NOMEM)
        r->err = rc;
    return rc;
}

int record_eof(struct record_reader *r, const struct bufq *in)
{
    size_t len = 0;

    if (r->err == 0)
        r->err = frame_length(in, &len);
    if (r->err != 0 || len > 0)
        return r->err;
    if (bufq_len(in) == 0)
        return ERR_EOF;
    return r->err = ERR_SHORT;
}

void record_reader_wipe(struct record_reader *r)
{
    cipher_wipe(&r->rx);
    r->err = ERR_CLOSED;
}
