#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "base/loop.h"
#include "node/cmd_sim.h"
#include "node/cmds.h"
#include "node/tool.h"
#include "simulator/exchange.h"
#include "simulator/results.h"
#include "simulator/scenario.h"
#include "simulator/sim.h"

struct sim_opts {
    const char *file, *out;
    uint64_t seed, threads;
    struct cmd_strs set;
    bool check, json, force, quiet;
};

static volatile sig_atomic_t stop;
const struct exchange_net *cmd_sim_others;

/* ---- several processes ---- */

/* Whoever speaks to the user. */
static bool is_first(void)
{
    return cmd_sim_others == NULL || cmd_sim_others->rank == 0;
}

/* What goes wrong in one process goes wrong in all. */
static int agree(int rc)
{
    uint64_t bad = rc != 0;

    if (cmd_sim_others == NULL)
        return rc;
    cmd_sim_others->max(cmd_sim_others->arg, &bad, 1);
    if (rc != 0 || bad == 0)
        return rc;
    if (is_first())
        (void)tool_fail(ERR_STATE, "another process could not begin");
    return CMD_EXIT_FAIL;
}

static void use_of_all(struct results_use *use)
{
    uint64_t v[] = {(uint64_t)(use->cpu_s * 1000), use->rss_mib};

    if (cmd_sim_others == NULL)
        return;
    cmd_sim_others->sum(cmd_sim_others->arg, v, 2);
    use->cpu_s = (double)v[0] / 1000;
    use->rss_mib = v[1];
}

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
        if (is_first())
            (void)tool_fail(rc, "%s", why);
        return CMD_EXIT_FAIL;
    }
    for (size_t i = 0; i < o->set.n; i++) {
        if (scenario_set(cfg, o->set.v[i], why, sizeof why) != 0)
            return is_first() ? cmdline_usage_error(cl, "--set %s", why) : CMD_EXIT_USAGE;
    }
    if (cmdline_given(cl, "seed"))
        cfg->seed = o->seed;
    if (cmdline_given(cl, "threads"))
        cfg->threads = (unsigned)o->threads;
    cfg->check = o->check;
    cfg->others = cmd_sim_others;
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

/* ---- the command ---- */

/* Before the run: a folder that cannot be written should not cost an hour. */
static int make_dir(const char *dir)
{
    struct stat st;

    if (dir == NULL || mkdir(dir, 0777) == 0)
        return 0;
    if (errno == EEXIST && stat(dir, &st) == 0) {
        if (!S_ISDIR(st.st_mode))
            errno = ENOTDIR;
        else if (access(dir, W_OK) == 0)
            return 0;
    }
    (void)tool_fail(err_sys(), "%s: %s", dir, strerror(errno));
    return CMD_EXIT_FAIL;
}

static int tell(const struct sim_opts *o, const struct sim_cfg *cfg, const struct sim_result *r,
                double wall)
{
    struct results_use use;
    char why[512];
    int rc = 0;

    results_use(&use, wall);
    use_of_all(&use);
    if (!is_first())
        return o->check && !r->passed ? CMD_EXIT_FAIL : 0;
    json_t *j = results_summary(cfg, r, &use);
    if (j == NULL) {
        (void)tool_fail(ERR_NOMEM, "%s", err_str(ERR_NOMEM));
        return CMD_EXIT_FAIL;
    }
    if (o->out != NULL && results_write(o->out, j, r, why, sizeof why) != 0) {
        (void)tool_fail(ERR_STATE, "%s", why);
        rc = CMD_EXIT_FAIL;
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
    if (!o->quiet && is_first()) {
        cfg->progress = show_progress;
        cfg->progress_arg = p;
    }
    int rc = sim_new(&s, cfg, why, sizeof why);
    if (rc != 0 && is_first())
        (void)tool_fail(rc, "%s: %s", o->file, why);
    rc = agree(rc);
    if (rc == 0)
        rc = sim_run(s);
    if (rc != 0) {
        sim_free(s);
        return CMD_EXIT_FAIL;
    }
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
    if (rc == 0 && is_first())
        rc = make_dir(o->out);
    rc = agree(rc);
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
     .help = "write summary.json, series.csv and histograms.csv there"},
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
    {.name = "report",
     .help = "make an HTML page of a run",
     .about = "Writes one HTML file with the figures of a run and curves of them, and prints its "
              "name. The file needs nothing else: it can be mailed. gnuplot draws the curves.",
     .args = sim_report_args,
     .opts = sim_report_flags,
     .opts_size = sizeof(struct sim_report_opts),
     .run = sim_report_run},
    {.name = "compare",
     .help = "show two runs side by side",
     .about = "Prints every figure that differs between two runs, and whether they were the same "
              "run to the last event.",
     .args = sim_compare_args,
     .opts = sim_compare_flags,
     .opts_size = sizeof(struct sim_compare_opts),
     .run = sim_compare_run},
    {.name = "settings", .help = "list what a scenario can set", .run = run_settings},
    {0}};

const struct cmd cmd_sim = {
    .name = "sim",
    .help = "simulate whole networks",
    .about = "Scenario files are YAML; those that come with kadmsg are in simulator/scenarios. "
             "docs/simulator.md describes what is modelled and what is not.",
    .subs = subs,
};
