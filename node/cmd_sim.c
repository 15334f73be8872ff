#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "base/loop.h"
#include "node/cmds.h"
#include "node/tool.h"
#include "simulator/scenario.h"
#include "simulator/sim.h"

struct sim_opts {
    const char *file, *out;
    uint64_t seed, threads;
    struct cmd_strs set;
    bool check, json, force, quiet;
};

static volatile sig_atomic_t stop;

static void on_signal(int sig)
{
    (void)sig;
    stop = 1;
}

static void catch_signals(void)
{
    struct sigaction sa = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};

    (void)sigaction(SIGINT, &sa, NULL); /* a second one ends the program */
    (void)sigaction(SIGTERM, &sa, NULL);
}

/* ---- configuration ---- */

static int configure(struct cmdline *cl, struct sim_cfg *cfg)
{
    const struct sim_opts *o = cl->opts;
    char why[512];

    sim_cfg_default(cfg);
    int rc = scenario_read(cfg, o->file, why, sizeof why);
    if (rc != 0) {
        (void)tool_fail(rc, "%s", why);
        return CMD_EXIT_FAIL;
    }
    for (size_t i = 0; i < o->set.n; i++) {
        if (scenario_set(cfg, o->set.v[i], why, sizeof why) != 0)
            return cmdline_usage_error(cl, "--set %s", why);
    }
    if (cmdline_given(cl, "seed"))
        cfg->seed = o->seed;
    if (cmdline_given(cl, "threads"))
        cfg->threads = (unsigned)o->threads;
    cfg->check = o->check;
    return 0;
}

static uint64_t available_bytes(void)
{
    FILE *f = fopen("/proc/meminfo", "r");
    static const char name[] = "MemAvailable:";
    char line[128];
    uint64_t kib = 0;

    while (f != NULL && kib == 0 && fgets(line, sizeof line, f) != NULL) {
        if (strncmp(line, name, sizeof name - 1) == 0)
            kib = strtoull(line + sizeof name - 1, NULL, 10);
    }
    if (f != NULL)
        (void)fclose(f);
    return kib * 1024;
}

static int check_memory(const struct sim_opts *o, const struct sim_cfg *cfg)
{
    uint64_t need = sim_predict(cfg), have = available_bytes();

    if (o->force || have == 0 || need <= have)
        return 0;
    (void)tool_fail(ERR_NOMEM,
                    "%s: about %" PRIu64 " MiB of memory are needed, %" PRIu64
                    " MiB are free (--force starts all the same)",
                    o->file, need >> 20, have >> 20);
    return CMD_EXIT_FAIL;
}

/* ---- progress ---- */

struct progress {
    const struct sim_cfg *cfg;
    struct timespec begun, shown;
    bool any;
};

static double since(const struct timespec *t)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - t->tv_sec) + (double)(now.tv_nsec - t->tv_nsec) / 1e9;
}

static long rss_mib(void)
{
    FILE *f = fopen("/proc/self/statm", "r");
    char line[128], *end = line;
    long pages = 0;

    if (f != NULL && fgets(line, sizeof line, f) != NULL) {
        (void)strtol(line, &end, 10); /* size; the next one is what is resident */
        pages = strtol(end, NULL, 10);
    }
    if (f != NULL)
        (void)fclose(f);
    return pages * (sysconf(_SC_PAGESIZE) / 1024) / 1024;
}

static void show_progress(void *arg, uint64_t virtual_ns, uint64_t events, uint32_t live)
{
    struct progress *p = arg;

    if (since(&p->shown) < 1.0)
        return;
    double wall = since(&p->begun), part = (double)virtual_ns / (double)p->cfg->duration_ns;
    double left = part > 0 ? wall / part - wall : 0;
    fprintf(stderr,
            "\r%.0f of %.0f s virtual, %" PRIu32 " nodes, %" PRIu64
            " events, %.0f/s, %ld MiB, %.0f s left   ",
            (double)virtual_ns / 1e9, (double)p->cfg->duration_ns / 1e9, live, events,
            (double)events / wall, rss_mib(), left);
    (void)fflush(stderr);
    clock_gettime(CLOCK_MONOTONIC, &p->shown);
    p->any = true;
}

/* ---- results ---- */

static double ms(uint64_t us)
{
    return (double)us / 1000;
}

static json_t *lookups_json(const struct sim_result *r)
{
    const struct sim_counts *n = &r->sum;

    return json_pack(
        "{s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:f}", "ok", (json_int_t)n->gets_ok, "failed",
        (json_int_t)n->gets_failed, "unpublished", (json_int_t)n->gets_unpublished, "local",
        (json_int_t)n->gets_local, "p50_ms", ms(hist_percentile(&r->get_us, 5000)), "p90_ms",
        ms(hist_percentile(&r->get_us, 9000)), "p99_ms", ms(hist_percentile(&r->get_us, 9900)),
        "hops_mean", (double)hist_mean_milli(&r->get_hops) / 1000, "asked_mean",
        (double)hist_mean_milli(&r->get_asked) / 1000);
}

static json_t *counts_json(const struct sim_counts *n)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "relayed",
                     (json_int_t)n->relayed, "timers", (json_int_t)n->timers, "bytes",
                     (json_int_t)n->bytes, "lost", (json_int_t)n->lost, "cut", (json_int_t)n->cut,
                     "relay_dropped", (json_int_t)n->relay_dropped, "unreachable",
                     (json_int_t)n->unreachable, "handshakes", (json_int_t)n->handshakes, "joins",
                     (json_int_t)n->joins, "leaves", (json_int_t)n->leaves, "signed",
                     (json_int_t)n->signed_, "verified", (json_int_t)n->verified);
}

static json_t *requests_json(const struct sim_counts *n)
{
    static const char *const names[] = {NULL,        "ping",      "find_node", "get_value",
                                        "put_value", "get_items", "put_batch"};
    json_t *j = json_object();

    for (size_t i = 1; j != NULL && i < sizeof names / sizeof names[0]; i++)
        json_object_set_new(j, names[i], json_integer((json_int_t)n->requests[i]));
    return j;
}

static json_t *checks_json(const struct sim_result *r)
{
    const struct sim_counts *n = &r->sum;
    json_t *j = json_pack("{s:b, s:I, s:I, s:I, s:I, s:I, s:I}", "passed", r->passed, "wrong",
                          (json_int_t)n->wrong, "stale", (json_int_t)n->stale, "bounds",
                          (json_int_t)n->bounds, "rejected_answers",
                          (json_int_t)n->answers_rejected, "sampled_signatures",
                          (json_int_t)n->sampled, "sampled_bad", (json_int_t)n->sampled_bad);

    if (j != NULL && !r->passed)
        json_object_set_new(j, "failed", json_string(r->failed));
    return j;
}

static json_t *puts_json(const struct sim_result *r)
{
    return json_pack("{s:I, s:I, s:f, s:f}", "ok", (json_int_t)r->sum.puts_ok, "failed",
                     (json_int_t)r->sum.puts_failed, "p50_ms",
                     ms(hist_percentile(&r->put_us, 5000)), "p99_ms",
                     ms(hist_percentile(&r->put_us, 9900)));
}

static json_t *load_json(const struct sim_result *r)
{
    return json_pack("{s:f, s:I, s:I, s:f}", "mean", (double)hist_mean_milli(&r->load) / 1000,
                     "p50", (json_int_t)hist_percentile(&r->load, 5000), "p99",
                     (json_int_t)hist_percentile(&r->load, 9900), "gini",
                     (double)r->load_gini_ppm / 1e6);
}

static json_t *summary(const struct sim_cfg *cfg, const struct sim_result *r, double wall)
{
    struct rusage ru;
    char digest[65];
    double cpu;

    getrusage(RUSAGE_SELF, &ru);
    cpu = (double)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) +
          (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6;
    snprintf(digest, sizeof digest, "%016" PRIx64 "%016" PRIx64 "%016" PRIx64 "%016" PRIx64,
             r->digest[0], r->digest[1], r->digest[2], r->digest[3]);
    json_t *j = json_pack(
        "{s:s, s:I, s:i, s:i, s:I, s:f, s:f, s:f, s:I, s:s, s:b, s:i, s:f, s:I}", "scenario",
        cfg->name, "seed", (json_int_t)cfg->seed, "threads", (int)cfg->threads, "nodes",
        (int)r->nodes, "events", (json_int_t)r->sum.delivered, "virtual_s",
        (double)r->virtual_ns / 1e9, "wall_s", wall, "cpu_s", cpu, "rss_mib",
        (json_int_t)(ru.ru_maxrss / 1024), "digest", digest, "interrupted", r->interrupted, "live",
        (int)r->live, "contacts_mean", (double)r->contacts_mean_milli / 1000, "stored_items",
        (json_int_t)r->stored_items);
    if (j == NULL)
        return NULL;
    json_object_set_new(j, "lookups", lookups_json(r));
    json_object_set_new(j, "puts", puts_json(r));
    json_object_set_new(j, "load", load_json(r));
    json_object_set_new(j, "network", counts_json(&r->sum));
    json_object_set_new(j, "requests", requests_json(&r->sum));
    json_object_set_new(j, "checks", checks_json(r));
    return j;
}

static void print_text(const json_t *j)
{
    const char *key;
    json_t *v;

    json_object_foreach((json_t *)(uintptr_t)j, key, v)
    {
        char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
        printf("%-14s %s\n", key, text != NULL ? text : "");
        free(text);
    }
}

/* ---- files ---- */

static int open_out(FILE **f, const char *dir, const char *name)
{
    char path[1024];
    int n = snprintf(path, sizeof path, "%s/%s", dir, name);

    *f = n > 0 && (size_t)n < sizeof path ? fopen(path, "w") : NULL;
    if (*f != NULL)
        return 0;
    (void)tool_fail(err_sys(), "%s/%s: %s", dir, name, strerror(errno));
    return CMD_EXIT_FAIL;
}

static int close_out(FILE *f, const char *dir, const char *name)
{
    bool bad = ferror(f) != 0;

    if (fclose(f) == 0 && !bad)
        return 0;
    (void)tool_fail(err_sys(), "%s/%s: %s", dir, name, strerror(errno));
    return CMD_EXIT_FAIL;
}

static int write_files(const char *dir, const json_t *j, const struct sim_result *r)
{
    FILE *f;

    int rc = open_out(&f, dir, "summary.json");
    if (rc != 0)
        return rc;
    (void)json_dumpf(j, f, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    rc = close_out(f, dir, "summary.json");
    if (rc == 0)
        rc = open_out(&f, dir, "series.csv");
    if (rc != 0)
        return rc;
    fprintf(f, "virtual_s,events,live,gets_ok,gets_failed,puts_ok,puts_failed\n");
    for (size_t i = 0; i < r->n_series; i++) {
        const struct sim_point *p = &r->series[i];
        fprintf(f, "%.3f,%" PRIu64 ",%" PRIu32 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 "\n",
                (double)p->at_ns / 1e9, p->events, p->live, p->gets_ok, p->gets_failed, p->puts_ok,
                p->puts_failed);
    }
    return close_out(f, dir, "series.csv");
}

/* Before the run: a folder that cannot be written should not cost an hour. */
static int make_dir(const char *dir)
{
    if (dir == NULL || mkdir(dir, 0777) == 0 || errno == EEXIST)
        return dir == NULL || access(dir, W_OK) == 0
                   ? 0
                   : (tool_fail(err_sys(), "%s: %s", dir, strerror(errno)), CMD_EXIT_FAIL);
    (void)tool_fail(err_sys(), "%s: %s", dir, strerror(errno));
    return CMD_EXIT_FAIL;
}

/* ---- the command ---- */

static int tell(const struct sim_opts *o, const struct sim_cfg *cfg, const struct sim_result *r,
                double wall)
{
    json_t *j = summary(cfg, r, wall);
    int rc = j != NULL && o->out != NULL ? write_files(o->out, j, r) : 0;

    if (j == NULL) {
        (void)tool_fail(ERR_NOMEM, "%s", err_str(ERR_NOMEM));
        return CMD_EXIT_FAIL;
    }
    if (o->json) {
        tool_print(j);
    } else {
        print_text(j);
        json_decref(j);
    }
    if (o->check && !r->passed) {
        (void)tool_fail(ERR_STATE, "%s: %s", o->file, r->failed);
        return CMD_EXIT_FAIL;
    }
    return rc;
}

static int simulate(const struct sim_opts *o, struct sim_cfg *cfg, struct sim_result *r,
                    struct progress *p)
{
    struct sim *s;
    char why[512];

    clock_gettime(CLOCK_MONOTONIC, &p->begun);
    p->shown = p->begun;
    p->cfg = cfg;
    cfg->stop = &stop;
    if (!o->quiet) {
        cfg->progress = show_progress;
        cfg->progress_arg = p;
    }
    int rc = sim_new(&s, cfg, why, sizeof why);
    if (rc == 0)
        rc = sim_run(s);
    else
        (void)tool_fail(rc, "%s: %s", o->file, why);
    if (rc != 0)
        return CMD_EXIT_FAIL;
    sim_result(s, r);
    if (p->any)
        fputc('\n', stderr);
    rc = tell(o, cfg, r, since(&p->begun));
    sim_free(s);
    return rc;
}

static int run(struct cmdline *cl)
{
    const struct sim_opts *o = cl->opts;
    struct sim_cfg *cfg = calloc(1, sizeof *cfg);
    struct sim_result *r = calloc(1, sizeof *r);
    struct progress p = {0};
    int rc = cfg != NULL && r != NULL ? configure(cl, cfg) : CMD_EXIT_FAIL;

    if (rc == 0)
        rc = check_memory(o, cfg);
    if (rc == 0)
        rc = make_dir(o->out);
    if (rc == 0) {
        catch_signals();
        rc = simulate(o, cfg, r, &p);
    }
    free(cfg);
    free(r);
    return rc;
}

static int run_settings(struct cmdline *cl)
{
    const char *help, *key;

    (void)cl;
    for (size_t i = 0; (key = scenario_key(i, &help)) != NULL; i++)
        printf("%-22s %s\n", key, help);
    return 0;
}

static const struct cmd_opt run_args[] = {
    {.name = "FILE", CMD_STR_AT(struct sim_opts, file), .help = "the scenario"}, {0}};

static const struct cmd_opt run_flags[] = {
    {.name = "seed",
     CMD_U64_AT(struct sim_opts, seed),
     .metavar = "N",
     .def_text = "that of the scenario",
     .help = "seed of all random numbers"},
    {.name = "threads",
     CMD_U64_AT(struct sim_opts, threads),
     .metavar = "N",
     .min = 1,
     .max = SIM_THREADS_MAX,
     .def = "1",
     .help = "run on so many threads; the results are the same"},
    {.name = "set",
     CMD_STRS_AT(struct sim_opts, set),
     .metavar = "KEY=VALUE",
     .help = "change a setting of the scenario"},
    {.name = "check",
     CMD_FLAG_AT(struct sim_opts, check),
     .help = "look at limits while running; fail when an invariant or expectation is not met"},
    {.name = "out",
     CMD_STR_AT(struct sim_opts, out),
     .metavar = "DIR",
     .help = "write summary.json and series.csv there"},
    {.name = "force",
     CMD_FLAG_AT(struct sim_opts, force),
     .help = "start although memory will not do"},
    {.name = "quiet", CMD_FLAG_AT(struct sim_opts, quiet), .help = "no progress line"},
    {.name = "json", CMD_FLAG_AT(struct sim_opts, json), .help = "print JSON"},
    {0}};

static const struct cmd subs[] = {
    {.name = "run",
     .help = "run a scenario",
     .about =
         "Runs a network of virtual nodes, each with the DHT engine of kadmsg node, in virtual "
         "time, as the scenario file says, and prints what came out. The same scenario and "
         "seed give the same digest on any number of threads.\n\n"
         "Ctrl-C ends the run and prints what there is; a second one ends the program.",
     .args = run_args,
     .opts = run_flags,
     .opts_size = sizeof(struct sim_opts),
     .run = run},
    {.name = "settings", .help = "list what a scenario can set", .run = run_settings},
    {0}};

const struct cmd cmd_sim = {
    .name = "sim",
    .help = "simulate whole networks",
    .about = "Scenario files are YAML; those that come with kadmsg are in simulator/scenarios. "
             "docs/simulator.md describes what is modelled and what is not.",
    .subs = subs,
};
