#include "simulator/exchange.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/err.h"
#include "simulator/pack.h"

#define SPINS 2000

struct box {
    struct sim_event *v;
    size_t n, cap;
};

struct exchange {
    atomic_uint arrived, round;
    unsigned shards, first, all; /* of this process, number of its first, of all processes */
    const struct exchange_net *net;
    struct box *boxes;               /* source * shards + to; the last source is other processes */
    struct pack_bytes *out;          /* shard * ranks + rank */
    struct pack_bytes *join;         /* by rank: what all shards have for it */
    struct exchange_span *spans;     /* by rank */
    struct exchange_report *reports; /* all */
    pthread_mutex_t lock;
    pthread_cond_t next; /* round has grown */
};

static unsigned ranks_of(const struct exchange *x)
{
    return x->net != NULL ? x->net->ranks : 1;
}

unsigned exchange_sources(const struct exchange *x)
{
    return x->shards + 1;
}

static int make(struct exchange *x, unsigned shards, const struct exchange_net *net)
{
    x->net = net;
    x->shards = shards;
    x->all = shards * ranks_of(x);
    x->first = net != NULL ? net->rank * shards : 0;
    x->boxes = calloc((size_t)(shards + 1) * shards, sizeof *x->boxes);
    x->out = calloc((size_t)x->all, sizeof *x->out);
    x->join = calloc(ranks_of(x), sizeof *x->join);
    x->spans = calloc(ranks_of(x), sizeof *x->spans);
    x->reports = calloc(x->all, sizeof *x->reports);
    atomic_init(&x->arrived, 0);
    atomic_init(&x->round, 0);
    (void)pthread_mutex_init(&x->lock, NULL);
    (void)pthread_cond_init(&x->next, NULL);
    if (x->boxes != NULL && x->out != NULL && x->join != NULL && x->spans != NULL &&
        x->reports != NULL)
        return 0;
    return ERR_NOMEM;
}

int exchange_new(struct exchange **out, unsigned shards, const struct exchange_net *net)
{
    struct arena *before = arena_use(NULL);
    struct exchange *x = calloc(1, sizeof *x);
    int rc = x != NULL ? make(x, shards, net) : ERR_NOMEM;

    (void)arena_use(before);
    if (rc != 0) {
        exchange_free(x);
        x = NULL;
    }
    *out = x;
    return rc;
}

static void free_bytes(struct pack_bytes *v, size_t n)
{
    for (size_t i = 0; v != NULL && i < n; i++)
        free(v[i].v);
    free(v);
}

void exchange_free(struct exchange *x)
{
    if (x == NULL)
        return;
    for (size_t i = 0; x->boxes != NULL && i < (size_t)(x->shards + 1) * x->shards; i++)
        free(x->boxes[i].v);
    free(x->boxes);
    free_bytes(x->out, x->all);
    free_bytes(x->join, ranks_of(x));
    free(x->spans);
    free(x->reports);
    (void)pthread_cond_destroy(&x->next);
    (void)pthread_mutex_destroy(&x->lock);
    free(x);
}

static void *heap_realloc(void *p, size_t n)
{
    struct arena *before = arena_use(NULL);

    p = realloc(p, n);
    (void)arena_use(before);
    return p;
}

static int box_add(struct box *b, const struct sim_event *ev)
{
    if (b->n == b->cap) {
        size_t cap = b->cap > 0 ? 2 * b->cap : 64;
        struct sim_event *v = heap_realloc(b->v, cap * sizeof *v);
        if (v == NULL)
            return ERR_NOMEM;
        b->v = v;
        b->cap = cap;
    }
    b->v[b->n++] = *ev;
    return 0;
}

static bool is_here(const struct exchange *x, unsigned shard)
{
    return shard >= x->first && shard - x->first < x->shards;
}

int exchange_send(struct exchange *x, unsigned from, unsigned to, const struct sim_event *ev)
{
    unsigned mine = from - x->first;

    if (is_here(x, to))
        return box_add(&x->boxes[(size_t)mine * x->shards + (to - x->first)], ev);
    pack_event(&x->out[(size_t)mine * ranks_of(x) + to / x->shards], to, ev);
    return 0;
}

/* ---- meeting ---- */

static void wait_for_all(struct exchange *x)
{
    unsigned round = atomic_load_explicit(&x->round, memory_order_acquire);

    if (atomic_fetch_add_explicit(&x->arrived, 1, memory_order_acq_rel) + 1 == x->shards) {
        atomic_store_explicit(&x->arrived, 0, memory_order_relaxed);
        (void)pthread_mutex_lock(&x->lock);
        atomic_store_explicit(&x->round, round + 1, memory_order_release);
        (void)pthread_cond_broadcast(&x->next);
        (void)pthread_mutex_unlock(&x->lock);
        return;
    }
    for (unsigned i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&x->round, memory_order_acquire) != round)
            return;
    }
    /* Asleep and woken, not yielding: on a busy machine whoever yields waits for everybody. */
    (void)pthread_mutex_lock(&x->lock);
    while (atomic_load_explicit(&x->round, memory_order_acquire) == round)
        (void)pthread_cond_wait(&x->next, &x->lock);
    (void)pthread_mutex_unlock(&x->lock);
}

/* What comes for the shards of this process goes into their last boxes. */
static void receive(struct exchange *x, const struct exchange_span *in)
{
    const uint8_t *p = in->v, *end = in->v + in->n;
    struct sim_event ev;
    uint32_t to;

    while (pack_read(&p, end, &to, &ev)) {
        if (box_add(&x->boxes[(size_t)x->shards * x->shards + (to - x->first)], &ev) != 0)
            abort();
    }
}

static void swap_with_others(struct exchange *x)
{
    struct exchange_span in;

    for (unsigned r = 0; r < x->net->ranks; r++) {
        struct pack_bytes *join = &x->join[r];
        join->n = 0;
        for (unsigned s = 0; s < x->shards; s++) {
            struct pack_bytes *b = &x->out[(size_t)s * x->net->ranks + r];
            pack_room(join, b->n);
            if (b->n > 0)
                memcpy(join->v + join->n, b->v, b->n);
            join->n += b->n;
            b->n = 0;
        }
        x->spans[r] = (struct exchange_span){join->v, join->n};
    }
    struct arena *before = arena_use(NULL);
    x->net->swap(x->net->arg, x->spans, &in);
    (void)arena_use(before);
    receive(x, &in);
}

void exchange_wait(struct exchange *x)
{
    wait_for_all(x);
}

void exchange_meet(struct exchange *x, unsigned shard)
{
    wait_for_all(x);
    if (x->net == NULL)
        return;
    if (shard == x->first)
        swap_with_others(x);
    wait_for_all(x);
}

const struct sim_event *exchange_take(struct exchange *x, unsigned source, unsigned to, size_t *n)
{
    struct box *b = &x->boxes[(size_t)source * x->shards + (to - x->first)];

    *n = b->n;
    b->n = 0;
    return b->v;
}

const struct exchange_report *exchange_agree(struct exchange *x, unsigned shard,
                                             const struct exchange_report *mine)
{
    x->reports[shard] = *mine;
    wait_for_all(x);
    if (x->net == NULL)
        return x->reports;
    if (shard == x->first) {
        struct exchange_report own[SIM_THREADS_MAX];
        memcpy(own, x->reports + x->first, x->shards * sizeof own[0]);
        struct arena *before = arena_use(NULL);
        x->net->gather(x->net->arg, own, x->shards * sizeof own[0], x->reports);
        (void)arena_use(before);
    }
    wait_for_all(x);
    return x->reports;
}
