/* The frame reader and writer of a stream. The key is the initiator's of the KK vector, so that its
 * frames are valid here.
 *
 * First byte: bit 0 = the rest is plaintext, else frames; the other bits choose the sizes of the
 * pieces that it is cut in. frames      read at once and in pieces: plaintext and outcome must be
 * the same plaintext   written in pieces, read in pieces: must come out as it went in */
#include <stdlib.h>
#include <string.h>

#include "base/cursor.h"
#include "base/err.h"
#include "transport/record.h"

#define MUST(x)                                                                                    \
    do {                                                                                           \
        if (!(x))                                                                                  \
            abort();                                                                               \
    } while (0)

static const struct cipher start = {.key = {0x3e, 0x52, 0x9d, 0x37, 0x09, 0xc8, 0x73, 0xb9,
                                            0x31, 0x34, 0x56, 0xe2, 0x3e, 0xf8, 0xba, 0xf9,
                                            0xb9, 0xb7, 0xd1, 0xa4, 0x20, 0xa0, 0x11, 0x6a,
                                            0x48, 0x7a, 0x6e, 0xf3, 0x82, 0x16, 0xad, 0x7a}};

struct reader {
    struct record_reader r;
    struct bufq in, out;
};

static void reader_open(struct reader *x, struct bufpool *pool)
{
    x->r = (struct record_reader){.rx = start};
    bufq_init(&x->in, pool);
    bufq_init(&x->out, pool);
}

static void reader_close(struct reader *x)
{
    bufq_clear(&x->in);
    bufq_clear(&x->out);
}

/* Give n bytes in pieces of the size, with plaintext limits. An error has to stick. */
static void give(struct reader *x, const uint8_t *p, size_t n, size_t piece)
{
    while (n > 0) {
        size_t part = piece < n ? piece : n, before = bufq_len(&x->out);
        int was = x->r.err;
        MUST(bufq_append_copy(&x->in, p, part) == 0);
        int rc = record_read(&x->r, &x->in, &x->out, before + piece);
        MUST(was == 0 || (rc == was && bufq_len(&x->out) == before));
        p += part;
        n -= part;
    }
    int rc;
    size_t before;
    do { /* what the limits left */
        before = bufq_len(&x->out);
        rc = record_read(&x->r, &x->in, &x->out, SIZE_MAX);
    } while (rc == 0 && bufq_len(&x->out) > before);
    MUST(rc == x->r.err && rc != ERR_NOMEM);
    MUST(rc != 0 || bufq_len(&x->in) < RECORD_FRAME_MAX);
}

static uint8_t *dup_queue(const struct bufq *q)
{
    size_t n = bufq_len(q);
    uint8_t *p = malloc(n + 1);
    MUST(p != NULL && bufq_peek(q, 0, p, n) == n);
    return p;
}

static void frames(struct bufpool *pool, const uint8_t *p, size_t n, size_t piece)
{
    struct reader whole, pieces;

    reader_open(&whole, pool);
    reader_open(&pieces, pool);
    give(&whole, p, n, n + 1);
    give(&pieces, p, n, piece);
    MUST(whole.r.err == pieces.r.err && whole.r.rx.counter == pieces.r.rx.counter);
    MUST(bufq_len(&whole.out) == bufq_len(&pieces.out));
    uint8_t *a = dup_queue(&whole.out), *b = dup_queue(&pieces.out);
    MUST(memcmp(a, b, bufq_len(&whole.out)) == 0);
    free(a);
    free(b);
    MUST(record_eof(&whole.r, &whole.in) == record_eof(&pieces.r, &pieces.in));
    reader_close(&whole);
    reader_close(&pieces);
}

static void plaintext(struct bufpool *pool, const uint8_t *p, size_t n, size_t piece)
{
    struct reader x;
    struct bufq wire;
    struct cipher tx = start;
    size_t taken;

    reader_open(&x, pool);
    bufq_init(&wire, pool);
    for (size_t at = 0; at < n; at += taken) {
        size_t part = piece < n - at ? piece : n - at, before = bufq_len(&wire);
        MUST(record_write(&tx, &wire, p + at, part, &taken) == 0 && taken == part);
        MUST(bufq_len(&wire) - before == record_wire_len(part));
    }
    uint8_t *bytes = dup_queue(&wire);
    give(&x, bytes, bufq_len(&wire), piece);
    MUST(bufq_len(&x.out) == n);
    uint8_t *back = dup_queue(&x.out);
    MUST(n == 0 || memcmp(back, p, n) == 0);
    MUST(record_eof(&x.r, &x.in) == ERR_EOF);
    free(bytes);
    free(back);
    bufq_clear(&wire);
    reader_close(&x);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rd in = rd_init(data, size);
    uint8_t flags = rd_u8(&in);
    size_t piece = (size_t)1 << (flags >> 1) % 16, n = rd_left(&in);
    struct bufpool *pool = bufpool_new(NULL);

    MUST(crypto_init() == 0 && pool != NULL);
    if (flags & 1)
        plaintext(pool, rd_bytes(&in, n), n, piece);
    else
        frames(pool, rd_bytes(&in, n), n, piece);
    bufpool_free(pool);
    return 0;
}
