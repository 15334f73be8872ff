/* One run spread over several processes gives what one process gives. The processes are threads here, each
 * with a simulation of its own, and what goes between them is copied bytes as it would be elsewhere. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/crypto.h"
#include "simulator/exchange.h"
#include "tests/unit/simulator/nets.h"
#include "tests/unit/vectors.h"

#define RANKS 3

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

struct rank {
    struct exchange_net net;
    struct sim_cfg cfg;
    struct sim_result result;
    pthread_t thread;
};

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
    char why[256];

    if (sim_new(&s, &r->cfg, why, sizeof why) != 0 || sim_run(s) != 0)
        abort();
    sim_result(s, &r->result);
    sim_free(s);
    return NULL;
}

static struct rank ranks[RANKS];

static void run_on(const struct sim_cfg *cfg, unsigned n, unsigned threads)
{
    world.bytes = 0;
    assert_int_equal(pthread_barrier_init(&world.all, NULL, n), 0);
    for (unsigned i = 0; i < n; i++) {
        ranks[i].cfg = *cfg;
        ranks[i].cfg.threads = threads;
        ranks[i].cfg.others = &ranks[i].net;
        ranks[i].net = (struct exchange_net){&ranks[i], i, n, swap, gather, sum, largest};
        assert_int_equal(pthread_create(&ranks[i].thread, NULL, run_rank, &ranks[i]), 0);
    }
    for (unsigned i = 0; i < n; i++)
        (void)pthread_join(ranks[i].thread, NULL);
    pthread_barrier_destroy(&world.all);
}

/* All that comes and goes, on little time. */
static struct sim_cfg lively(void)
{
    struct sim_cfg c = nets_calm();

    c.nodes = 40;
    c.duration_ns = 120 * S;
    c.net.floor_ns = 25 * MS;
    c.net.median_ns = 50 * MS;
    c.join.over_ns = 10 * S;
    c.puts.every_ns = 40 * S;
    c.puts.start_ns = 15 * S;
    c.gets.every_ns = 10 * S;
    c.gets.start_ns = 30 * S;
    c.gets.network = false;
    c.churn.up_ns = 200 * S;
    c.churn.down_ns = 20 * S;
    c.attack.wrong_ppm = 50000;
    c.attack.eclipse = 3;
    c.attack.replay_ppm = 50000;
    c.attack.replay_every_ns = 5 * S;
    c.native_ppm = SIM_MILLION;
    c.full.count = 4;
    c.full.liars = 1;
    c.watches.share_ppm = 500000;
    c.watches.start_ns = 40 * S;
    c.watches.audit_ns = 10 * S;
    c.watches.late_ns = 60 * S;
    c.expect.late_ppm = SIM_MILLION;
    c.expect.success_ppm = 0;
    c.expect.stale_ppm = 1000000;
    return c;
}

static void test_same_on_any_ranks(void **state)
{
    struct sim_cfg c = lively();

    (void)state;
    for (unsigned with_relays = 0; with_relays < 2; with_relays++) {
        c.relays.count = with_relays * 3;
        struct sim_result one = *nets_run(&c);
        assert_true(one.sum.gets_ok > 50 && one.sum.leaves > 5);
        for (unsigned n = 1; n <= RANKS; n++) {
            run_on(&c, n, n == 2 ? 2 : 1);
            assert_true(n == 1 || world.bytes > 100000);
            for (unsigned i = 0; i < n; i++) {
                const struct sim_result *r = &ranks[i].result;
                assert_memory_equal(r->digest, one.digest, sizeof one.digest);
                assert_memory_equal(&r->sum, &one.sum, sizeof one.sum);
                assert_memory_equal(&r->get_us, &one.get_us, sizeof one.get_us);
                assert_memory_equal(&r->load, &one.load, sizeof one.load);
                assert_memory_equal(r->series, one.series, sizeof one.series);
                assert_int_equal(r->live, one.live);
                assert_int_equal(r->load_gini_ppm, one.load_gini_ppm);
                assert_int_equal(r->contacts_mean_milli, one.contacts_mean_milli);
            }
        }
    }
}

static int tear_down(void **state)
{
    (void)state;
    for (unsigned i = 0; i < RANKS; i++) {
        for (unsigned j = 0; j < RANKS; j++)
            free(world.out[i][j].v);
        free(world.in[i].v);
    }
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_same_on_any_ranks)};

    if (crypto_init() != 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, tear_down);
}
