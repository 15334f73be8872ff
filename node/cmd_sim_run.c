#include "node/cmd_sim.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/loop.h"
#include "node/tool.h"
#include "simulator/exchange.h"
#include "simulator/results.h"
#include "simulator/scenario.h"
#include "simulator/sim.h"
#include "simulator/trace.h"

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

/* ---- addresses ---- */

#define LOW_ADDRESS (UINT32_C(1) << 28) /* times, counters and numbers of nodes are below it */
#define MOST_TRIES  20
#define TRIES       "KADMSG_SIM_TRIES"

/* The arguments of this process; NULL when they cannot be had. */
static char **arguments(void)
{
    FILE *f = fopen("/proc/self/cmdline", "r");
    char *text = NULL, **v = NULL;
    size_t cap = 0, n = 0;

    while (f != NULL && getdelim(&text, &cap, '\0', f) > 0) {
        char **more = reallocarray(v, n + 2, sizeof *v);
        if (more == NULL)
            break;
        v = more;
        v[n++] = text;
        v[n] = NULL;
        text = NULL;
        cap = 0;
    }
    free(text);
    if (f != NULL)
        (void)fclose(f);
    return v;
}

void sim_addresses_settle(void)
{
    const char *tried = getenv(TRIES);
    unsigned long tries = tried != NULL ? strtoul(tried, NULL, 10) : 0;
    char text[24];

    if ((uint32_t)arena_program().base >= LOW_ADDRESS || tries >= MOST_TRIES)
        return;
    snprintf(text, sizeof text, "%lu", tries + 1);
    char **v = arguments();
    if (v != NULL && setenv(TRIES, text, 1) == 0)
        (void)execv("/proc/self/exe", v); /* it begins with other random addresses */
    for (size_t i = 0; v != NULL && v[i] != NULL; i++)
        free(v[i]);
    free(v);
}

/* ---- configuration ---- */

int sim_scenario(struct sim_cfg *cfg, const char *file, const char *const *set, size_t n, char *why,
                 size_t why_cap)
{
    int rc = 0;

    if (file != NULL) {
        sim_cfg_default(cfg);
        rc = scenario_read(cfg, file, why, why_cap);
    }
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = scenario_set(cfg, set[i], why, why_cap);
    return rc;
}

static int configure(struct cmdline *cl, struct sim_cfg *cfg)
{
    const struct sim_run_opts *o = cl->opts;
    char why[512];

    int rc = sim_scenario(cfg, o->file, NULL, 0, why, sizeof why);
    if (rc != 0) {
        if (is_first())
            (void)tool_fail(rc, "%s", why);
        return CMD_EXIT_FAIL;
    }
    if (sim_scenario(cfg, NULL, (const char *const *)o->set.v, o->set.n, why, sizeof why) != 0)
        return is_first() ? cmdline_usage_error(cl, "--set %s", why) : CMD_EXIT_USAGE;
    if (o->trace != NULL && cmd_sim_others != NULL)
        return is_first()
                   ? cmdline_usage_error(cl, "--trace: run it in one process, it is the same run")
                   : CMD_EXIT_USAGE;
    if (o->trace != NULL && o->out == NULL)
        return cmdline_usage_error(cl, "--trace: --out says where to");
    if (o->trace != NULL && trace_nodes(cfg, o->trace, why, sizeof why) != 0)
        return cmdline_usage_error(cl, "--trace: %s", why);
    if (cmdline_given(cl, "seed"))
        cfg->seed = o->seed;
    if (cmdline_given(cl, "threads"))
        cfg->threads = (unsigned)o->threads;
    cfg->check = o->check;
    return 0;
}

/* Checkpoints, as both commands take them. */
static int configure_saving(struct cmdline *cl, struct sim_cfg *cfg)
{
    const struct sim_run_opts *o = cl->opts;
    size_t n = o->checkpoint != NULL ? strlen(o->checkpoint) : 0;

    if (n >= sizeof cfg->checkpoint)
        return cmdline_usage_error(cl, "--checkpoint: the name is too long");
    if (n == 0 && cmdline_given(cl, "checkpoint-every"))
        return cmdline_usage_error(cl, "--checkpoint-every: --checkpoint says where to");
    if (n > 0)
        memcpy(cfg->checkpoint, o->checkpoint, n + 1);
    cfg->checkpoint_every_ns = o->checkpoint_every_ns;
    cfg->others = cmd_sim_others;
    cfg->stop = &stop;
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

static int check_memory(const struct sim_run_opts *o, uint64_t need)
{
    uint64_t have = available_bytes();

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
    struct timespec begun, shown;
    uint64_t whole_ns, first_ns, first_events; /* of the run, and where this part of it began */
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

    if (p->first_events == 0)
        p->first_events = events;
    if (since(&p->shown) < 1.0)
        return;
    double wall = since(&p->begun), done = (double)(virtual_ns - p->first_ns);
    double left = done > 0 ? wall * (double)(p->whole_ns - virtual_ns) / done : 0;
    fprintf(stderr,
            "\r%.0f of %.0f s virtual, %" PRIu32 " nodes, %" PRIu64
            " events, %.0f/s, %ld MiB, %.0f s left   ",
            (double)virtual_ns / 1e9, (double)p->whole_ns / 1e9, live, events,
            (double)(events - p->first_events) / wall, rss_mib(), left);
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

static int tell(const struct sim_run_opts *o, const struct sim_cfg *cfg, const struct sim_result *r,
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
    if (r->checkpoint_err != 0) {
        (void)tool_fail(r->checkpoint_err, "no checkpoint: %s", r->checkpoint_why);
        rc = CMD_EXIT_FAIL;
    }
    if (o->check && !r->passed) {
        (void)tool_fail(ERR_STATE, "%s: %s", o->file, r->failed);
        return CMD_EXIT_FAIL;
    }
    return rc;
}

/* Begins, or goes on: the run as its command was given, and its memory. */
typedef int open_fn(struct sim **s, const struct sim_run_opts *o, const struct sim_cfg *cfg,
                    char *why, size_t why_cap);

static int open_new(struct sim **s, const struct sim_run_opts *o, const struct sim_cfg *cfg,
                    char *why, size_t why_cap)
{
    char reason[400];
    int rc = sim_new(s, cfg, reason, sizeof reason);

    if (rc != 0)
        snprintf(why, why_cap, "%.100s: %s", o->file, reason);
    return rc;
}

static int open_saved(struct sim **s, const struct sim_run_opts *o, const struct sim_cfg *cfg,
                      char *why, size_t why_cap)
{
    return sim_resume(s, o->file, cfg, why, why_cap);
}

static int simulate(const struct sim_run_opts *o, struct sim_cfg *cfg, open_fn *open,
                    struct sim_result *r, struct progress *p)
{
    struct sim *s;
    char why[512];

    clock_gettime(CLOCK_MONOTONIC, &p->begun);
    p->shown = p->begun;
    if (!o->quiet && is_first()) {
        cfg->progress = show_progress;
        cfg->progress_arg = p;
    }
    int rc = open(&s, o, cfg, why, sizeof why);
    if (rc != 0 && is_first())
        (void)tool_fail(rc, "%s", why);
    rc = agree(rc);
    if (rc == 0) {
        p->whole_ns = sim_cfg(s)->duration_ns;
        rc = sim_run(s);
    }
    if (rc != 0) {
        sim_free(s);
        return CMD_EXIT_FAIL;
    }
    sim_result(s, r);
    if (p->any)
        fputc('\n', stderr);
    rc = tell(o, sim_cfg(s), r, since(&p->begun));
    sim_free(s);
    return rc;
}

/* What both commands do once they know what to run and what it needs. */
static int start(const struct sim_run_opts *o, struct sim_cfg *cfg, int rc, open_fn *open,
                 struct progress *p)
{
    struct sim_result *r = calloc(1, sizeof *r);
    struct sim_trace *trace = NULL;

    if (rc == 0 && r == NULL)
        rc = CMD_EXIT_FAIL;
    if (rc == 0 && is_first())
        rc = make_dir(o->out);
    if (rc == 0 && o->trace != NULL)
        rc = sim_trace_begin(&trace, o, cfg);
    rc = agree(rc);
    if (rc == 0) {
        catch_signals();
        rc = simulate(o, cfg, open, r, p);
    }
    int traced = sim_trace_end(trace);
    free(r);
    return rc != 0 ? rc : traced;
}

/* ---- sim run ---- */

int sim_run_run(struct cmdline *cl)
{
    const struct sim_run_opts *o = cl->opts;
    struct sim_cfg *cfg = calloc(1, sizeof *cfg);
    struct progress p = {0};
    int rc = cfg != NULL ? configure(cl, cfg) : CMD_EXIT_FAIL;

    if (rc == 0)
        rc = configure_saving(cl, cfg);
    if (rc == 0 && cfg->checkpoint[0] != '\0')
        sim_addresses_settle();
    if (rc == 0)
        rc = check_memory(o, sim_predict(cfg));
    rc = start(o, cfg, rc, open_new, &p);
    free(cfg);
    return rc;
}

/* ---- sim resume ---- */

int sim_resume_run(struct cmdline *cl)
{
    const struct sim_run_opts *o = cl->opts;
    struct sim_cfg *cfg = calloc(1, sizeof *cfg);
    struct progress p = {0};
    struct sim_saved saved;
    char why[512];
    int rc = CMD_EXIT_FAIL;

    if (cfg != NULL) {
        sim_cfg_default(cfg);
        rc = configure_saving(cl, cfg);
    }
    if (rc == 0) {
        rc = sim_saved(&saved, o->file, cmd_sim_others, why, sizeof why);
        if (rc != 0) { /* whoever's file it is */
            (void)tool_fail(rc, "%s", why);
            rc = CMD_EXIT_FAIL;
        }
    }
    if (rc == 0) {
        rc = check_memory(o, saved.bytes);
        p.first_ns = saved.virtual_ns;
    }
    rc = start(o, cfg, rc, open_saved, &p);
    free(cfg);
    return rc;
}

/* ---- flags ---- */

const struct cmd_opt sim_run_args[] = {
    {.name = "FILE", CMD_STR_AT(struct sim_run_opts, file), .help = "the scenario"}, {0}};

const struct cmd_opt sim_run_flags[] = {
    {.name = "seed",
     CMD_U64_AT(struct sim_run_opts, seed),
     .metavar = "N",
     .def_text = "that of the scenario",
     .help = "seed of all random numbers"},
    {.name = "threads",
     CMD_U64_AT(struct sim_run_opts, threads),
     .metavar = "N",
     .min = 1,
     .max = SIM_THREADS_MAX,
     .def = "1",
     .help = "run on so many threads; the results are the same"},
    {.name = "set",
     CMD_STRS_AT(struct sim_run_opts, set),
     .metavar = "KEY=VALUE",
     .help = "change a setting of the scenario"},
    {.name = "checkpoint",
     CMD_STR_AT(struct sim_run_opts, checkpoint),
     .metavar = "FILE",
     .help = "keep the whole state there, for sim resume"},
    {.name = "checkpoint-every",
     CMD_SECONDS_AT(struct sim_run_opts, checkpoint_every_ns),
     .metavar = "SECONDS",
     .min = 1,
     .def_text = "only when the run is interrupted",
     .help = "save so often in virtual time"},
    {.name = "trace",
     CMD_STR_AT(struct sim_run_opts, trace),
     .metavar = "NODES",
     .help = "write what these nodes are given, event by event, to trace.jsonl in DIR (5,17-20 or "
             "all)"},
    {.name = "check",
     CMD_FLAG_AT(struct sim_run_opts, check),
     .help = "look at limits while running; fail when an invariant or expectation is not met"},
    {.name = "out",
     CMD_STR_AT(struct sim_run_opts, out),
     .metavar = "DIR",
     .help = "write summary.json, series.csv and histograms.csv there"},
    {.name = "force",
     CMD_FLAG_AT(struct sim_run_opts, force),
     .help = "start although memory will not do"},
    {.name = "quiet", CMD_FLAG_AT(struct sim_run_opts, quiet), .help = "no progress line"},
    {.name = "json", CMD_FLAG_AT(struct sim_run_opts, json), .help = "print JSON"},
    {0}};

const struct cmd_opt sim_resume_args[] = {{.name = "FILE",
                                           CMD_STR_AT(struct sim_run_opts, file),
                                           .help = "what sim run --checkpoint was given"},
                                          {0}};

const struct cmd_opt sim_resume_flags[] = {
    {.name = "checkpoint",
     CMD_STR_AT(struct sim_run_opts, checkpoint),
     .metavar = "FILE",
     .help = "keep the whole state there, for sim resume"},
    {.name = "checkpoint-every",
     CMD_SECONDS_AT(struct sim_run_opts, checkpoint_every_ns),
     .metavar = "SECONDS",
     .min = 1,
     .def_text = "only when the run is interrupted",
     .help = "save so often in virtual time"},
    {.name = "check",
     CMD_FLAG_AT(struct sim_run_opts, check),
     .help = "look at limits while running; fail when an invariant or expectation is not met"},
    {.name = "out",
     CMD_STR_AT(struct sim_run_opts, out),
     .metavar = "DIR",
     .help = "write summary.json, series.csv and histograms.csv there"},
    {.name = "force",
     CMD_FLAG_AT(struct sim_run_opts, force),
     .help = "start although memory will not do"},
    {.name = "quiet", CMD_FLAG_AT(struct sim_run_opts, quiet), .help = "no progress line"},
    {.name = "json", CMD_FLAG_AT(struct sim_run_opts, json), .help = "print JSON"},
    {0}};
