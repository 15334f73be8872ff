/*
 * buf - byte buffers from a pool with a global budget, slices of them, and queues of slices.
 *
 * Bytes from a socket are read into a struct buf once and then only passed on: a struct slice is a
 * counted reference to a range of a buf, a struct bufq is a FIFO of slices that can be written with
 * writev(). The relay moves payload from one session to another this way without copying it.
 *
 * Owners: a bufpool belongs to one thread; bufs, slices and queues made from it stay on that
 * thread. Several pools may share one struct buf_budget (atomic), which is the process-wide cap.
 * Memory is borrowed only while bytes are in flight: an idle session owns no buf. References are
 * counted; slice_release() and bufq_clear() give them back. A pool keeps at most BUFPOOL_KEEP_BYTES
 * of free buffers.
 *
 * Amplification: a slice pins its whole buf. Whoever parks slices for longer than a turn calls
 * bufq_compact(), which copies when less than half of what is pinned is used.
 *
 * Errors: ERR_NOMEM when the budget or memory is used up (counted in budget->drops): the caller
 * stops reading or closes that connection, nothing else.
 *
 *     struct buf *b = buf_get(pool, BUF_READ_SIZE);         // room of at least that size
 *     n = read(fd, buf_room(b), buf_room_len(b));
 *     struct slice s = buf_take(b, n);                       // slice of what was just filled
 *     bufq_append_slice(&q, s);                              // ownership of the reference moves
 *     int cnt = bufq_iov(&q, iov, 64);  n = writev(fd, iov, cnt);  bufq_consume(&q, n);
 *     buf_put(b);
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define BUF_READ_SIZE      (64u * 1024u)
#define BUFPOOL_KEEP_BYTES (1024u * 1024u)

struct buf_budget {
    atomic_size_t used; /* gauge: bytes of buffers handed out */
    size_t cap;         /* 0 = none */
    atomic_ullong drops;
};

struct bufpool; /* size classes 512, 4096, 16384 and 65536 bytes; larger requests are refused
                   (assert) */

struct buf {
    struct bufpool *pool;
    struct buf *next_free;
    uint32_t refs;
    uint32_t cap, used; /* used: bytes handed out as slices so far */
    uint8_t data[];
};

struct slice {
    struct buf *buf; /* NULL = static or borrowed bytes, nothing to release */
    const uint8_t *p;
    size_t n;
};

struct bufseg; /* one queued slice; from the pool's free list */

struct bufq {
    struct bufpool *pool;
    struct bufseg *head, *tail;
    size_t len;    /* bytes queued */
    size_t pinned; /* bytes of buffers held by it, for bufq_compact(); a buf whose slices are apart
                      counts each time */
};

/* budget may be NULL (none) and must outlive the pool. NULL when out of memory. */
struct bufpool *bufpool_new(struct buf_budget *budget);
/* All bufs must have been given back (assert). */
void bufpool_free(struct bufpool *pool);
/* Gauges: bufs handed out and bytes of free bufs kept. */
size_t bufpool_in_use(const struct bufpool *pool);
size_t bufpool_kept(const struct bufpool *pool);

/* A buf with room for at least min bytes (<= 65536), one reference; NULL when the budget is used
 * up. */
struct buf *buf_get(struct bufpool *pool, size_t min);
/* One reference more / one less; NULL is nothing to give back. */
struct buf *buf_ref(struct buf *b);
void buf_put(struct buf *b);
static inline uint8_t *buf_room(struct buf *b)
{
    return b->data + b->used;
}
static inline size_t buf_room_len(const struct buf *b)
{
    return b->cap - b->used;
}
/* The next n (<= buf_room_len) bytes of the room were filled: a slice of them, with a reference of
 * its own. */
struct slice buf_take(struct buf *b, size_t n);

/* From one thread's pool to another's. buf_leave() makes b, of one reference, nobody's: it keeps its
 * bytes and its part of the budget, which the pools share. buf_join() makes it the other pool's. */
void buf_leave(struct buf *b);
void buf_join(struct buf *b, struct bufpool *pool);
/* The same for free ones, which count for no budget: one of this capacity, or NULL; and back. */
struct buf *buf_spare(struct bufpool *pool, size_t cap);
void buf_spare_join(struct buf *b, struct bufpool *pool);
/* Free one that is nobody's; budget: that it counts for, or NULL. b may be NULL. */
void buf_discard(struct buf *b, struct buf_budget *budget);

/* A part of the same bytes with a reference of its own; off <= s.n and n <= s.n - off (assert). */
struct slice slice_sub(struct slice s, size_t off, size_t n);
void slice_release(struct slice *s);

void bufq_init(struct bufq *q, struct bufpool *pool);
void bufq_clear(struct bufq *q);
static inline size_t bufq_len(const struct bufq *q)
{
    return q->len;
}
/* Append; the reference moves into the queue on success and on failure. ERR_NOMEM. Adjacent slices
 * of one buf are merged. */
int bufq_append_slice(struct bufq *q, struct slice s);
/* Append a copy (fills the room of the last buf first when the queue owns its only slice end).
 * ERR_NOMEM leaves the queue as it was. */
int bufq_append_copy(struct bufq *q, const void *p, size_t n);
/* Fill up to max iovecs with the first bytes; returns how many. */
int bufq_iov(const struct bufq *q, struct iovec *iov, int max);
/* Drop the first n (<= len) bytes. */
void bufq_consume(struct bufq *q, size_t n);
/* Copy out and drop; returns bytes copied (<= n). */
size_t bufq_read(struct bufq *q, void *out, size_t n);
/* Copy out without dropping, from offset off; returns bytes copied. */
size_t bufq_peek(const struct bufq *q, size_t off, void *out, size_t n);
/* Move the first n (<= len) bytes to the end of another queue of the same pool without copying.
 * ERR_NOMEM moves nothing. */
int bufq_move(struct bufq *to, struct bufq *from, size_t n);
/* Take the first contiguous run, at most max bytes, as a slice with its reference; n = 0 when
 * empty. Cannot fail. */
struct slice bufq_pop(struct bufq *q, size_t max);
/* Copy into tight buffers when less than half of the pinned bytes is used. ERR_NOMEM leaves it as
 * it was. */
int bufq_compact(struct bufq *q);
