#include "base/buf.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

/* Free buffers that the pool keeps are out of bounds for the address sanitizer. */
#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define BUF_ASAN
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(BUF_ASAN)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n)   ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

#define CLASSES   4
#define KEEP_SEGS 1024 /* free queue nodes kept, 32 KiB */

static const uint32_t class_size[CLASSES] = {512, 4096, 16384, 65536};
#define CLASS_MAX class_size[CLASSES - 1]

struct bufseg {
    struct bufseg *next;
    struct slice s; /* never empty */
};

struct bufpool {
    struct buf_budget *budget;
    struct buf *free_bufs[CLASSES];
    size_t kept; /* bytes on free_bufs */
    size_t in_use;
    struct bufseg *free_segs;
    size_t free_seg_count;
};

/* ---- pool ---- */

struct bufpool *bufpool_new(struct buf_budget *budget)
{
    struct bufpool *pool = calloc(1, sizeof *pool);
    if (pool != NULL)
        pool->budget = budget;
    return pool;
}

void bufpool_free(struct bufpool *pool)
{
    if (pool == NULL)
        return;
    assert(pool->in_use == 0);
    for (unsigned c = 0; c < CLASSES; c++) {
        struct buf *b;
        while ((b = pool->free_bufs[c]) != NULL) {
            pool->free_bufs[c] = b->next_free;
            free(b);
        }
    }
    struct bufseg *seg;
    while ((seg = pool->free_segs) != NULL) {
        pool->free_segs = seg->next;
        free(seg);
    }
    free(pool);
}

size_t bufpool_in_use(const struct bufpool *pool)
{
    return pool->in_use;
}

size_t bufpool_kept(const struct bufpool *pool)
{
    return pool->kept;
}

/* The smallest class that holds n bytes. */
static unsigned class_for(size_t n)
{
    unsigned c = 0;
    while (n > class_size[c])
        c++;
    return c;
}

static bool budget_take(struct buf_budget *budget, size_t n)
{
    if (budget == NULL)
        return true;
    size_t used = atomic_load_explicit(&budget->used, memory_order_relaxed);
    do {
        if (budget->cap != 0 && (used > budget->cap || budget->cap - used < n)) {
            atomic_fetch_add_explicit(&budget->drops, 1, memory_order_relaxed);
            return false;
        }
    } while (!atomic_compare_exchange_weak_explicit(&budget->used, &used, used + n,
                                                    memory_order_relaxed, memory_order_relaxed));
    return true;
}

static void budget_give(struct buf_budget *budget, size_t n)
{
    if (budget != NULL)
        atomic_fetch_sub_explicit(&budget->used, n, memory_order_relaxed);
}

/* ---- buf ---- */

/* A free one of this class, or NULL. */
static struct buf *free_pop(struct bufpool *pool, unsigned c)
{
    struct buf *b = pool->free_bufs[c];
    if (b == NULL)
        return NULL;
    pool->free_bufs[c] = b->next_free;
    pool->kept -= b->cap;
    ASAN_UNPOISON_MEMORY_REGION(b->data, b->cap);
    return b;
}

static void free_push(struct bufpool *pool, struct buf *b)
{
    if (BUFPOOL_KEEP_BYTES - pool->kept < b->cap) {
        free(b);
        return;
    }
    unsigned c = class_for(b->cap);
    b->pool = pool;
    b->next_free = pool->free_bufs[c];
    pool->free_bufs[c] = b;
    pool->kept += b->cap;
    ASAN_POISON_MEMORY_REGION(b->data, b->cap);
}

struct buf *buf_get(struct bufpool *pool, size_t min)
{
    assert(min <= CLASS_MAX);
    unsigned c = class_for(min);
    uint32_t size = class_size[c];
    if (!budget_take(pool->budget, size))
        return NULL;

    struct buf *b = free_pop(pool, c);
    if (b == NULL) {
        b = malloc(offsetof(struct buf, data) + size);
        if (b == NULL) {
            budget_give(pool->budget, size);
            if (pool->budget != NULL)
                atomic_fetch_add_explicit(&pool->budget->drops, 1, memory_order_relaxed);
            return NULL;
        }
        b->pool = pool;
        b->cap = size;
    }
    b->next_free = NULL;
    b->refs = 1;
    b->used = 0;
    pool->in_use++;
    return b;
}

struct buf *buf_ref(struct buf *b)
{
    assert(b->refs > 0 && b->refs < UINT32_MAX);
    b->refs++;
    return b;
}

void buf_put(struct buf *b)
{
    if (b == NULL)
        return;
    assert(b->refs > 0);
    if (--b->refs > 0)
        return;

    struct bufpool *pool = b->pool;
    pool->in_use--;
    budget_give(pool->budget, b->cap);
    free_push(pool, b);
}

/* ---- from pool to pool ---- */

void buf_leave(struct buf *b)
{
    assert(b->refs == 1);
    b->pool->in_use--;
    b->pool = NULL;
}

void buf_join(struct buf *b, struct bufpool *pool)
{
    b->pool = pool;
    pool->in_use++;
}

struct buf *buf_spare(struct bufpool *pool, size_t cap)
{
    return free_pop(pool, class_for(cap));
}

void buf_spare_join(struct buf *b, struct bufpool *pool)
{
    free_push(pool, b);
}

void buf_discard(struct buf *b, struct buf_budget *budget)
{
    if (b != NULL)
        budget_give(budget, b->cap);
    free(b);
}

struct slice buf_take(struct buf *b, size_t n)
{
    assert(n <= buf_room_len(b));
    struct slice s = {.buf = buf_ref(b), .p = b->data + b->used, .n = n};
    b->used += (uint32_t)n;
    return s;
}

struct slice slice_sub(struct slice s, size_t off, size_t n)
{
    assert(off <= s.n && n <= s.n - off);
    if (s.buf != NULL)
        buf_ref(s.buf);
    return (struct slice){.buf = s.buf, .p = off != 0 ? s.p + off : s.p, .n = n};
}

void slice_release(struct slice *s)
{
    buf_put(s->buf);
    *s = (struct slice){0};
}

/* ---- queue ---- */

static struct bufseg *seg_new(struct bufpool *pool)
{
    struct bufseg *seg = pool->free_segs;
    if (seg == NULL)
        return malloc(sizeof *seg);
    pool->free_segs = seg->next;
    pool->free_seg_count--;
    return seg;
}

/* Free the node only; its reference went elsewhere. */
static void seg_free(struct bufpool *pool, struct bufseg *seg)
{
    if (pool->free_seg_count >= KEEP_SEGS) {
        free(seg);
        return;
    }
    seg->next = pool->free_segs;
    pool->free_segs = seg;
    pool->free_seg_count++;
}

/*
 * What a node adds to `pinned`: nothing when its neighbour towards the head already pins the same
 * buf. Slices of one buf normally follow each other, and then the sum is exact; otherwise it counts
 * a buf twice and compaction comes a little early.
 */
static size_t pinned_by(const struct slice *s, const struct bufseg *neighbour)
{
    if (s->buf == NULL || (neighbour != NULL && neighbour->s.buf == s->buf))
        return 0;
    return s->buf->cap;
}

static void push_seg(struct bufq *q, struct bufseg *seg)
{
    seg->next = NULL;
    q->pinned += pinned_by(&seg->s, q->tail);
    q->len += seg->s.n;
    if (q->tail != NULL)
        q->tail->next = seg;
    else
        q->head = seg;
    q->tail = seg;
}

/* Unlink the first node; the reference goes with it. */
static struct bufseg *shift_seg(struct bufq *q)
{
    struct bufseg *seg = q->head;
    q->head = seg->next;
    if (q->head == NULL)
        q->tail = NULL;
    q->len -= seg->s.n;
    q->pinned -= pinned_by(&seg->s, q->head);
    return seg;
}

static void drop_front(struct bufq *q, size_t n)
{
    q->head->s.p += n;
    q->head->s.n -= n;
    q->len -= n;
}

/* Extend the last slice by s when they touch in one buf; takes over the reference then. */
static bool merge_tail(struct bufq *q, struct slice *s)
{
    struct bufseg *tail = q->tail;
    if (tail == NULL || s->buf == NULL || tail->s.buf != s->buf || tail->s.p + tail->s.n != s->p)
        return false;
    tail->s.n += s->n;
    q->len += s->n;
    slice_release(s);
    return true;
}

void bufq_init(struct bufq *q, struct bufpool *pool)
{
    *q = (struct bufq){.pool = pool};
}

void bufq_clear(struct bufq *q)
{
    bufq_consume(q, q->len);
}

int bufq_append_slice(struct bufq *q, struct slice s)
{
    if (s.n == 0) {
        slice_release(&s);
        return 0;
    }
    if (merge_tail(q, &s))
        return 0;
    struct bufseg *seg = seg_new(q->pool);
    if (seg == NULL) {
        slice_release(&s);
        return ERR_NOMEM;
    }
    seg->s = s;
    push_seg(q, seg);
    return 0;
}

/* Size of the next buffer for n more bytes: the class that holds them, or the one below when more
 * than half would stay empty. */
static size_t tight_size(size_t n)
{
    unsigned c = class_for(n < CLASS_MAX ? n : CLASS_MAX);
    return c > 0 && n < class_size[c] / 2 ? class_size[c - 1] : class_size[c];
}

/* Append n bytes of new room in buffers of its own. ERR_NOMEM leaves nothing behind. */
static int push_room(struct bufq *q, size_t n)
{
    while (n > 0) {
        size_t size = tight_size(n), part = n < size ? n : size;
        struct buf *b = buf_get(q->pool, size);
        struct bufseg *seg = b != NULL ? seg_new(q->pool) : NULL;
        if (seg == NULL) {
            buf_put(b);
            bufq_clear(q);
            return ERR_NOMEM;
        }
        seg->s = buf_take(b, part);
        buf_put(b);
        push_seg(q, seg);
        n -= part;
    }
    return 0;
}

/* A slice of ours that nobody else has seen yet may be written to. */
static uint8_t *fresh_bytes(struct bufseg *seg)
{
    return (uint8_t *)(uintptr_t)seg->s.p;
}

/* Put all of `from` behind `to`; no node is needed for that. */
static void splice(struct bufq *to, struct bufq *from)
{
    while (from->head != NULL)
        push_seg(to, shift_seg(from));
}

int bufq_append_copy(struct bufq *q, const void *p, size_t n)
{
    const uint8_t *src = p;
    struct bufseg *tail = q->tail;
    struct buf *last = tail != NULL ? tail->s.buf : NULL;
    size_t fit = 0;
    if (last != NULL && last->refs == 1 && tail->s.p + tail->s.n == buf_room(last))
        fit = buf_room_len(last) < n ? buf_room_len(last) : n;

    struct bufq rest;
    bufq_init(&rest, q->pool);
    if (push_room(&rest, n - fit) != 0)
        return ERR_NOMEM;
    if (fit > 0) {
        memcpy(buf_room(last), src, fit);
        last->used += (uint32_t)fit;
        tail->s.n += fit;
        q->len += fit;
        src += fit;
    }
    for (struct bufseg *seg = rest.head; seg != NULL; seg = seg->next) {
        memcpy(fresh_bytes(seg), src, seg->s.n);
        src += seg->s.n;
    }
    splice(q, &rest);
    return 0;
}

int bufq_iov(const struct bufq *q, struct iovec *iov, int max)
{
    int n = 0;
    for (const struct bufseg *seg = q->head; seg != NULL && n < max; seg = seg->next, n++)
        iov[n] = (struct iovec){.iov_base = (void *)(uintptr_t)seg->s.p, .iov_len = seg->s.n};
    return n;
}

void bufq_consume(struct bufq *q, size_t n)
{
    assert(n <= q->len);
    while (n > 0 && n >= q->head->s.n) {
        struct bufseg *seg = shift_seg(q);
        n -= seg->s.n;
        slice_release(&seg->s);
        seg_free(q->pool, seg);
    }
    if (n > 0)
        drop_front(q, n);
}

size_t bufq_peek(const struct bufq *q, size_t off, void *out, size_t n)
{
    uint8_t *dst = out;
    size_t done = 0;
    for (const struct bufseg *seg = q->head; seg != NULL && done < n; seg = seg->next) {
        if (off >= seg->s.n) {
            off -= seg->s.n;
            continue;
        }
        size_t part = seg->s.n - off;
        if (part > n - done)
            part = n - done;
        memcpy(dst + done, seg->s.p + off, part);
        done += part;
        off = 0;
    }
    return done;
}

size_t bufq_read(struct bufq *q, void *out, size_t n)
{
    size_t done = bufq_peek(q, 0, out, n);
    bufq_consume(q, done);
    return done;
}

int bufq_move(struct bufq *to, struct bufq *from, size_t n)
{
    assert(to->pool == from->pool && to != from && n <= from->len);

    /* Only a slice that is cut in two needs a node more: make sure of it before anything moves. */
    size_t whole = 0;
    struct bufseg *at = from->head;
    while (at != NULL && n - whole >= at->s.n) {
        whole += at->s.n;
        at = at->next;
    }
    struct bufseg *cut = NULL;
    if (n > whole && (cut = seg_new(from->pool)) == NULL)
        return ERR_NOMEM;

    while (whole > 0) {
        struct bufseg *seg = shift_seg(from);
        whole -= seg->s.n;
        n -= seg->s.n;
        if (merge_tail(to, &seg->s))
            seg_free(to->pool, seg);
        else
            push_seg(to, seg);
    }
    if (cut != NULL) {
        assert(from->head != NULL); /* n <= len: what is left of n lies in it */
        cut->s = slice_sub(from->head->s, 0, n);
        drop_front(from, n);
        if (merge_tail(to, &cut->s))
            seg_free(to->pool, cut);
        else
            push_seg(to, cut);
    }
    return 0;
}

struct slice bufq_pop(struct bufq *q, size_t max)
{
    struct slice s = {0};
    if (q->head == NULL || max == 0)
        return s;
    if (max < q->head->s.n) {
        s = slice_sub(q->head->s, 0, max);
        drop_front(q, max);
        return s;
    }
    struct bufseg *seg = shift_seg(q);
    s = seg->s;
    seg_free(q->pool, seg);
    return s;
}

int bufq_compact(struct bufq *q)
{
    if (q->len >= q->pinned / 2)
        return 0;
    size_t after = 0;
    for (size_t left = q->len; left > 0;) {
        size_t size = tight_size(left);
        after += size;
        left -= left < size ? left : size;
    }
    if (after >= q->pinned) /* a few bytes in the smallest buffer: nothing to win */
        return 0;

    struct bufq tight;
    bufq_init(&tight, q->pool);
    if (push_room(&tight, q->len) != 0)
        return ERR_NOMEM;
    for (struct bufseg *seg = tight.head; seg != NULL; seg = seg->next)
        (void)bufq_read(q, fresh_bytes(seg), seg->s.n);
    splice(q, &tight);
    return 0;
}
