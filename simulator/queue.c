#include "simulator/queue.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

#define CHUNK_EVENTS 15
#define MASK         (QUEUE_BUCKETS - 1)

struct queue_chunk {
    struct queue_chunk *next;
    size_t n;
    struct sim_event ev[CHUNK_EVENTS];
};

/* ---- heaps ---- */

static bool before(const struct sim_event *a, const struct sim_event *b)
{
    if (a->at_ns != b->at_ns)
        return a->at_ns < b->at_ns;
    return a->src != b->src ? a->src < b->src : a->seq < b->seq;
}

static int heap_room(struct queue_heap *h, size_t more)
{
    if (h->n + more <= h->cap)
        return 0;
    size_t cap = h->cap * 2 > h->n + more ? h->cap * 2 : h->n + more + 16;
    struct sim_event *v = realloc(h->v, cap * sizeof *v);
    if (v == NULL)
        return ERR_NOMEM;
    h->v = v;
    h->cap = cap;
    return 0;
}

/* There is room. */
static void heap_push(struct queue_heap *h, const struct sim_event *ev)
{
    size_t i = h->n++;

    while (i > 0 && before(ev, &h->v[(i - 1) / 4])) {
        h->v[i] = h->v[(i - 1) / 4];
        i = (i - 1) / 4;
    }
    h->v[i] = *ev;
}

/* Put ev into the hole at i, where everything below is later than what was there. */
static void sift_down(struct queue_heap *h, size_t i, struct sim_event ev)
{
    for (;;) {
        size_t child = 4 * i + 1, best = child;
        if (child >= h->n)
            break;
        for (size_t c = child + 1; c < child + 4 && c < h->n; c++) {
            if (before(&h->v[c], &h->v[best]))
                best = c;
        }
        if (!before(&h->v[best], &ev))
            break;
        h->v[i] = h->v[best];
        i = best;
    }
    h->v[i] = ev;
}

static struct sim_event heap_pop_first(struct queue_heap *h)
{
    struct sim_event first = h->v[0], last = h->v[--h->n];

    if (h->n > 0)
        sift_down(h, 0, last);
    return first;
}

static void heapify(struct queue_heap *h)
{
    for (size_t i = h->n / 4 + 1; i-- > 0;) {
        if (i < h->n)
            sift_down(h, i, h->v[i]);
    }
}

/* ---- ring ---- */

static struct queue_chunk *new_chunk(struct queue *q)
{
    struct queue_chunk *c = q->spare;

    if (c != NULL) {
        q->spare = c->next;
        return c;
    }
    q->chunks++;
    return malloc(sizeof *c);
}

static void mark(struct queue *q, uint64_t bucket, bool filled)
{
    uint64_t *word = &q->filled[(bucket & MASK) / 64], bit = UINT64_C(1) << (bucket & 63);

    *word = filled ? *word | bit : *word & ~bit;
}

static int ring_add(struct queue *q, const struct sim_event *ev)
{
    struct queue_chunk **head = &q->ring[ev->at_ns >> QUEUE_BITS & MASK], *c = *head;

    if (c == NULL || c->n == CHUNK_EVENTS) {
        c = new_chunk(q);
        if (c == NULL)
            return ERR_NOMEM;
        c->next = *head;
        c->n = 0;
        *head = c;
        mark(q, ev->at_ns >> QUEUE_BITS, true);
    }
    c->ev[c->n++] = *ev;
    q->n_ring++;
    return 0;
}

static size_t bucket_count(const struct queue_chunk *c)
{
    size_t n = 0;

    for (; c != NULL; c = c->next)
        n += c->n;
    return n;
}

/* The events of the current bucket become the heap. When there is no memory, they stay in the ring
 * and the next call tries again; time does not pass them. */
static bool open_bucket(struct queue *q)
{
    struct queue_chunk **head = &q->ring[q->bucket & MASK], *c;
    size_t n = bucket_count(*head);

    if (n == 0)
        return true;
    if (heap_room(&q->now, n) != 0)
        return false;
    while ((c = *head) != NULL) {
        memcpy(&q->now.v[q->now.n], c->ev, c->n * sizeof c->ev[0]);
        q->now.n += c->n;
        *head = c->next;
        c->next = q->spare;
        q->spare = c;
    }
    q->n_ring -= n;
    mark(q, q->bucket, false);
    heapify(&q->now);
    return true;
}

/* What was far and has come into the range of the ring. */
static bool bring_near(struct queue *q)
{
    while (q->far.n > 0 && q->far.v[0].at_ns >> QUEUE_BITS < q->bucket + QUEUE_BUCKETS) {
        if (ring_add(q, &q->far.v[0]) != 0)
            return false;
        (void)heap_pop_first(&q->far);
    }
    return true;
}

/* Out of memory in the middle of a run: nothing sensible can follow. */
static void must(bool ok)
{
    if (!ok)
        abort();
}

/* ---- the queue ---- */

int queue_init(struct queue *q)
{
    memset(q, 0, sizeof *q);
    q->ring = calloc(QUEUE_BUCKETS, sizeof(struct queue_chunk *));
    q->filled = calloc(QUEUE_BUCKETS / 64, sizeof *q->filled);
    if (q->ring != NULL && q->filled != NULL)
        return 0;
    queue_free(q);
    return ERR_NOMEM;
}

static void free_chunks(struct queue_chunk *c)
{
    while (c != NULL) {
        struct queue_chunk *next = c->next;
        free(c);
        c = next;
    }
}

void queue_free(struct queue *q)
{
    for (size_t i = 0; q->ring != NULL && i < QUEUE_BUCKETS; i++)
        free_chunks(q->ring[i]);
    free_chunks(q->spare);
    free(q->ring);
    free(q->filled);
    free(q->now.v);
    free(q->far.v);
    memset(q, 0, sizeof *q);
}

int queue_add(struct queue *q, const struct sim_event *ev)
{
    uint64_t bucket = ev->at_ns >> QUEUE_BITS;
    int rc;

    assert(bucket >= q->bucket);
    if (bucket == q->bucket) {
        rc = heap_room(&q->now, 1);
        if (rc == 0)
            heap_push(&q->now, ev);
    } else if (bucket < q->bucket + QUEUE_BUCKETS) {
        rc = ring_add(q, ev);
    } else {
        rc = heap_room(&q->far, 1);
        if (rc == 0)
            heap_push(&q->far, ev);
    }
    q->n += rc == 0;
    if (q->n > q->peak)
        q->peak = q->n;
    return rc;
}

/* The first bucket of the ring that holds anything; n_ring > 0. */
static uint64_t first_filled(const struct queue *q)
{
    uint64_t b = q->bucket + 1;

    for (;;) {
        uint64_t word = q->filled[(b & MASK) / 64] >> (b & 63);
        if (word != 0)
            return b + (unsigned)__builtin_ctzll(word);
        b = (b | 63) + 1;
    }
}

uint64_t queue_next(const struct queue *q)
{
    uint64_t at = QUEUE_NEVER;

    if (q->now.n > 0)
        return q->now.v[0].at_ns;
    if (q->n_ring == 0)
        return q->far.n > 0 ? q->far.v[0].at_ns : QUEUE_NEVER;
    for (const struct queue_chunk *c = q->ring[first_filled(q) & MASK]; c != NULL; c = c->next) {
        for (size_t i = 0; i < c->n; i++)
            at = c->ev[i].at_ns < at ? c->ev[i].at_ns : at;
    }
    return at;
}

/* Move on to the next bucket that holds anything, not behind `last`. False at its end. */
static bool advance(struct queue *q, uint64_t last)
{
    uint64_t next = last;

    if (q->bucket >= last)
        return false;
    if (q->n_ring > 0)
        next = first_filled(q);
    else if (q->far.n > 0)
        next = q->far.v[0].at_ns >> QUEUE_BITS;
    q->bucket = next < last ? next : last;
    must(bring_near(q));
    must(open_bucket(q));
    return true;
}

bool queue_take(struct queue *q, uint64_t end_ns, struct sim_event *out)
{
    assert(end_ns > 0);
    while (q->now.n == 0) {
        if (!advance(q, (end_ns - 1) >> QUEUE_BITS))
            return false;
    }
    if (q->now.v[0].at_ns >= end_ns)
        return false;
    q->n--;
    *out = heap_pop_first(&q->now);
    return true;
}
