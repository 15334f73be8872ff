#include "simulator/exchange.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/err.h"

#define SPINS 2000

struct box {
    struct sim_event *v;
    size_t n, cap;
};

struct exchange {
    atomic_uint arrived, round;
    unsigned shards;
    struct box *boxes; /* from * shards + to */
    struct exchange_report *reports;
    pthread_mutex_t lock;
    pthread_cond_t next; /* round has grown */
};

int exchange_new(struct exchange **out, unsigned shards)
{
    struct exchange *x = calloc(1, sizeof *x);

    *out = x;
    if (x == NULL)
        return ERR_NOMEM;
    x->shards = shards;
    x->boxes = calloc((size_t)shards * shards, sizeof *x->boxes);
    x->reports = calloc(shards, sizeof *x->reports);
    atomic_init(&x->arrived, 0);
    atomic_init(&x->round, 0);
    (void)pthread_mutex_init(&x->lock, NULL);
    (void)pthread_cond_init(&x->next, NULL);
    if (x->boxes != NULL && x->reports != NULL)
        return 0;
    exchange_free(x);
    *out = NULL;
    return ERR_NOMEM;
}

void exchange_free(struct exchange *x)
{
    if (x == NULL)
        return;
    for (size_t i = 0; x->boxes != NULL && i < (size_t)x->shards * x->shards; i++)
        free(x->boxes[i].v);
    free(x->boxes);
    free(x->reports);
    (void)pthread_cond_destroy(&x->next);
    (void)pthread_mutex_destroy(&x->lock);
    free(x);
}

int exchange_send(struct exchange *x, unsigned from, unsigned to, const struct sim_event *ev)
{
    struct box *b = &x->boxes[(size_t)from * x->shards + to];

    if (b->n == b->cap) {
        size_t cap = b->cap > 0 ? 2 * b->cap : 64;
        struct sim_event *v = realloc(b->v, cap * sizeof *v);
        if (v == NULL)
            return ERR_NOMEM;
        b->v = v;
        b->cap = cap;
    }
    b->v[b->n++] = *ev;
    return 0;
}

void exchange_meet(struct exchange *x)
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

const struct sim_event *exchange_take(struct exchange *x, unsigned from, unsigned to, size_t *n)
{
    struct box *b = &x->boxes[(size_t)from * x->shards + to];

    *n = b->n;
    b->n = 0;
    return b->v;
}

const struct exchange_report *exchange_agree(struct exchange *x, unsigned shard,
                                             const struct exchange_report *mine)
{
    x->reports[shard] = *mine;
    exchange_meet(x);
    return x->reports;
}
