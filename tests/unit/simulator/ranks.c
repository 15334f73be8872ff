#include "tests/unit/simulator/ranks.h"

#include <stdlib.h>
#include <string.h>

#include "tests/unit/vectors.h"

struct rank ranks_all[RANKS];

struct copy {
    uint8_t *v;
    size_t n;
};

static struct {
    pthread_barrier_t all;
    struct copy out[RANKS][RANKS]; /* from, to */
    struct copy in[RANKS];
    const void *given[RANKS];
    uint64_t bytes;
} world;

static void put(struct copy *c, const void *v, size_t n)
{
    c->v = realloc(c->v, c->n + n + 1);
    if (n > 0)
        memcpy(c->v + c->n, v, n);
    c->n += n;
}

static unsigned number(void *arg)
{
    return ((struct rank *)arg)->net.rank;
}

static void swap(void *arg, const struct exchange_span *out, struct exchange_span *in)
{
    unsigned me = number(arg), ranks = ((struct rank *)arg)->net.ranks;

    for (unsigned r = 0; r < ranks; r++) {
        world.out[me][r].n = 0;
        put(&world.out[me][r], out[r].v, out[r].n);
    }
    (void)pthread_barrier_wait(&world.all);
    world.in[me].n = 0;
    for (unsigned r = 0; r < ranks; r++)
        put(&world.in[me], world.out[r][me].v, world.out[r][me].n);
    (void)pthread_barrier_wait(&world.all);
    *in = (struct exchange_span){world.in[me].v, world.in[me].n};
    if (me == 0)
        world.bytes += in->n;
}

static void gather(void *arg, const void *mine, size_t n, void *all)
{
    world.given[number(arg)] = mine;
    (void)pthread_barrier_wait(&world.all);
    for (unsigned r = 0; r < ((struct rank *)arg)->net.ranks; r++)
        memcpy((uint8_t *)all + r * n, world.given[r], n);
    (void)pthread_barrier_wait(&world.all);
}

static void reduce(void *arg, uint64_t *v, size_t n, bool max)
{
    unsigned ranks = ((struct rank *)arg)->net.ranks;
    uint64_t *all = malloc(ranks * n * sizeof *all);

    gather(arg, v, n * sizeof *v, all);
    memset(v, 0, n * sizeof *v);
    for (size_t i = 0; i < ranks * n; i++) {
        if (!max)
            v[i % n] += all[i];
        else if (all[i] > v[i % n])
            v[i % n] = all[i];
    }
    free(all);
}

static void sum(void *arg, uint64_t *v, size_t n)
{
    reduce(arg, v, n, false);
}

static void largest(void *arg, uint64_t *v, size_t n)
{
    reduce(arg, v, n, true);
}

static void *run_rank(void *arg)
{
    struct rank *r = arg;
    struct sim *s;

    r->why[0] = '\0';
    int rc = r->resume != NULL ? sim_resume(&s, r->resume, &r->cfg, r->why, sizeof r->why)
                               : sim_new(&s, &r->cfg, r->why, sizeof r->why);
    if (rc != 0)
        return NULL;
    if (sim_run(s) != 0)
        abort();
    sim_result(s, &r->result);
    sim_free(s);
    return NULL;
}

void ranks_run(const struct sim_cfg *cfg, unsigned n, unsigned threads, const char *resume)
{
    world.bytes = 0;
    assert_int_equal(pthread_barrier_init(&world.all, NULL, n), 0);
    for (unsigned i = 0; i < n; i++) {
        ranks_all[i].cfg = *cfg;
        ranks_all[i].cfg.threads = threads;
        ranks_all[i].cfg.others = &ranks_all[i].net;
        ranks_all[i].resume = resume;
        ranks_all[i].net = (struct exchange_net){&ranks_all[i], i, n, swap, gather, sum, largest};
        assert_int_equal(pthread_create(&ranks_all[i].thread, NULL, run_rank, &ranks_all[i]), 0);
    }
    for (unsigned i = 0; i < n; i++)
        (void)pthread_join(ranks_all[i].thread, NULL);
    pthread_barrier_destroy(&world.all);
}

uint64_t ranks_bytes(void)
{
    return world.bytes;
}

void ranks_free(void)
{
    for (unsigned i = 0; i < RANKS; i++) {
        for (unsigned j = 0; j < RANKS; j++)
            free(world.out[i][j].v);
        free(world.in[i].v);
    }
}
