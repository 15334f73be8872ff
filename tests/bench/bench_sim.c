/*
 * bench_sim - the simulator: one JSON line a measurement.
 *
 *     sim_events     messages delivered to engines per second of CPU, 10 000 nodes with tables by
 *                    oracle, one thread; ceiling: the bare event queue with as many events pending
 *     sim_codec      the same with every message through the JSON codec, 1 000 nodes
 *     sim_node       memory of a node with a filled table and nothing stored, by the difference
 *                    between two sizes of network; ceiling: handles and IDs of its contacts alone
 *
 *     sim_threads    how many times faster two threads are than one, by the clock, 10 000 nodes with a latency
 *                    floor of 20 ms; ceiling: 2. Tells something on a machine with two free cores only
 *
 * CPU time but for sim_threads. The queue's ceiling is the median of REPEATS; a network runs once.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/crypto.h"
#include "simulator/queue.h"
#include "simulator/rng.h"
#include "simulator/sim.h"
#include "tests/bench/figures.h"

#define REPEATS 5
#define N_QUEUE 3000000u
#define S       UINT64_C(1000000000)

static struct sim_result result;

/* ---- the bare queue ---- */

/* Events with the latencies of messages, each taken one adds another, as in a network. */
static double queue_rate(size_t pending)
{
    struct queue q;
    struct sim_event ev = {0};
    uint64_t now = 0;

    if (queue_init(&q) != 0)
        bench_die("queue");
    for (uint32_t i = 0; i < pending; i++) {
        ev = (struct sim_event){.at_ns = rng_mix(1, i) % 100000000, .src = i, .seq = i};
        if (queue_add(&q, &ev) != 0)
            bench_die("queue");
    }
    double begun = bench_cpu_s();
    for (uint32_t i = 0; i < N_QUEUE;) {
        now += 5000000;
        while (queue_take(&q, now, &ev)) {
            ev.at_ns = now + rng_mix(ev.at_ns, i) % 100000000;
            ev.seq = i++;
            if (queue_add(&q, &ev) != 0)
                bench_die("queue");
        }
    }
    double took = bench_cpu_s() - begun;
    queue_free(&q);
    return N_QUEUE / took;
}

static double queue_ceiling(size_t pending)
{
    double v[REPEATS];

    for (int i = 0; i < REPEATS; i++)
        v[i] = queue_rate(pending);
    return bench_median(v, REPEATS);
}

/* ---- networks ---- */

static struct sim_cfg config(uint32_t nodes)
{
    struct sim_cfg c;

    sim_cfg_default(&c);
    c.nodes = nodes;
    c.join.by = SIM_JOIN_ORACLE;
    c.duration_ns = 120 * S;
    c.puts.start_ns = 0;
    c.puts.every_ns = 120 * S;
    c.gets.start_ns = 0;
    c.gets.every_ns = 60 * S;
    return c;
}

/* CPU seconds of the run, without setting up; bytes of memory at its end. */
static double run(const struct sim_cfg *cfg, uint64_t *memory)
{
    struct sim *s;
    char why[256];

    if (sim_new(&s, cfg, why, sizeof why) != 0)
        bench_die(why);
    double begun = bench_cpu_s();
    if (sim_run(s) != 0)
        bench_die("run");
    double took = bench_cpu_s() - begun;
    if (memory != NULL)
        *memory = sim_memory(s);
    sim_result(s, &result);
    sim_free(s);
    return took;
}

static void bench_events(void)
{
    struct sim_cfg c = config(10000);
    double cpu = run(&c, NULL);
    double rate = (double)result.sum.delivered / cpu;

    bench_report("sim_events", "{\"nodes\":10000}", rate, "events/core_s", cpu,
                 queue_ceiling(result.queue_peak));
    c = config(1000);
    c.codec = SIM_CODEC_JSON;
    cpu = run(&c, NULL);
    bench_report("sim_codec", "{\"nodes\":1000,\"codec\":\"json\"}",
                 (double)result.sum.delivered / cpu, "events/core_s", cpu, rate);
}

static void bench_memory(void)
{
    const uint32_t small = 10000, large = 40000;
    uint64_t memory[2];
    uint64_t contacts;

    for (int i = 0; i < 2; i++) {
        struct sim_cfg c = config(i == 0 ? small : large);
        c.puts.every_ns = c.gets.every_ns = 0;
        c.duration_ns = S;
        (void)run(&c, &memory[i]);
    }
    contacts = result.contacts_mean_milli;
    bench_report("sim_node", "{\"nodes\":40000}", (double)(memory[1] - memory[0]) / (large - small),
                 "bytes/node", 0, 65.0 + 4.0 * (double)contacts / 1000);
}

static double clock_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void bench_threads(void)
{
    double took[2], cpu = 0;

    for (unsigned i = 0; i < 2; i++) {
        struct sim_cfg c = config(10000);
        c.duration_ns = 30 * S;
        c.net.floor_ns = 20000000;
        c.threads = i + 1;
        double begun = clock_s();
        cpu = run(&c, NULL);
        took[i] = clock_s() - begun;
    }
    bench_report("sim_threads", "{\"nodes\":10000,\"threads\":2}", took[0] / took[1], "times", cpu,
                 2);
}

int main(void)
{
    if (crypto_init() != 0)
        bench_die("crypto");
    bench_events();
    bench_memory();
    bench_threads();
    return 0;
}
