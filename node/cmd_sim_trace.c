/* Traces of runs (simulator/trace.h): their files, and runs that are compared with one. */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "node/cmd_sim.h"
#include "node/tool.h"
#include "simulator/trace.h"

#define HEAD_MAX 65536

/* ---- writing ---- */

struct sim_trace {
    FILE *f;
    char path[1024], part[1040];
};

static void write_event(void *arg, const struct sim_traced *ev)
{
    struct sim_trace *t = arg;
    char line[TRACE_LINE_MAX];

    (void)trace_line(line, ev);
    (void)fprintf(t->f, "%s\n", line);
}

/* What it takes to run it again. */
static json_t *head_of(const struct sim_run_opts *o, const struct sim_cfg *cfg)
{
    char *path = realpath(o->file, NULL);
    json_t *set = json_array();

    for (size_t i = 0; i < o->set.n; i++)
        (void)json_array_append_new(set, json_string(o->set.v[i]));
    json_t *j = json_pack("{s:i, s:s, s:o, s:I, s:s}", "trace", 1, "scenario",
                          path != NULL ? path : o->file, "set", set, "seed", (json_int_t)cfg->seed,
                          "nodes", o->trace);
    free(path);
    return j;
}

static int cannot(const struct sim_trace *t, int err)
{
    (void)tool_fail(err, "%s: %s", t->path, err_str(err));
    return CMD_EXIT_FAIL;
}

int sim_trace_begin(struct sim_trace **out, const struct sim_run_opts *o, struct sim_cfg *cfg)
{
    struct sim_trace *t = calloc(1, sizeof *t);

    *out = t;
    if (t == NULL)
        return CMD_EXIT_FAIL;
    if (snprintf(t->path, sizeof t->path, "%s/trace.jsonl", o->out) >= (int)sizeof t->path)
        return cannot(t, ERR_TOO_LONG);
    snprintf(t->part, sizeof t->part, "%s.part", t->path);
    t->f = fopen(t->part, "w");
    if (t->f == NULL)
        return cannot(t, err_sys());
    json_t *head = head_of(o, cfg);
    if (head == NULL || json_dumpf(head, t->f, JSON_COMPACT) != 0 || fputc('\n', t->f) == EOF) {
        json_decref(head);
        return cannot(t, ERR_NO_SPACE);
    }
    json_decref(head);
    cfg->traced = write_event;
    cfg->traced_arg = t;
    return 0;
}

int sim_trace_end(struct sim_trace *t)
{
    int rc = 0;

    if (t == NULL)
        return 0;
    if (t->f != NULL) {
        bool bad = ferror(t->f) != 0;
        bad = fclose(t->f) != 0 || bad;
        if (bad || rename(t->part, t->path) != 0) {
            rc = cannot(t, bad ? ERR_NO_SPACE : err_sys());
            (void)unlink(t->part);
        }
    }
    free(t);
    return rc;
}

/* ---- replaying ---- */

struct replay {
    FILE *f;
    uint64_t line; /* of the last event that was read; the head is the first line */
    char *text;    /* this line */
    size_t cap;
    bool over, differs;
    char now[TRACE_LINE_MAX];
    struct sim_traced ev; /* where it differs */
};

static volatile sig_atomic_t enough;

/* The next whole line, or false: the trace is over. */
static bool next_line(struct replay *r)
{
    ssize_t n = getline(&r->text, &r->cap, r->f);

    if (n <= 0 || r->text[n - 1] != '\n')
        return false;
    r->text[n - 1] = '\0';
    r->line++;
    return true;
}

static void compare(void *arg, const struct sim_traced *ev)
{
    struct replay *r = arg;

    if (r->differs || r->over)
        return;
    r->over = !next_line(r);
    if (!r->over) {
        (void)trace_line(r->now, ev);
        r->differs = strcmp(r->now, r->text) != 0;
        r->ev = *ev;
    }
    enough = r->over || r->differs;
}

static int bad_trace(const char *path, const char *why)
{
    (void)tool_fail(ERR_FORMAT, "%s: %s", path, why);
    return CMD_EXIT_FAIL;
}

/* The run that the head describes, with what the user wants to be different. */
static int configure(struct cmdline *cl, struct sim_cfg *cfg, const json_t *head)
{
    const struct sim_replay_opts *o = cl->opts;
    const char *scenario, *nodes;
    json_int_t seed;
    json_t *set;
    int version;
    char why[512];

    if (json_unpack((json_t *)(uintptr_t)head, "{s:i, s:s, s:o, s:I, s:s}", "trace", &version,
                    "scenario", &scenario, "set", &set, "seed", &seed, "nodes", &nodes) != 0)
        return bad_trace(o->file, "not a trace");
    if (version != 1)
        return bad_trace(o->file, "a trace of another version");
    int rc =
        sim_scenario(cfg, o->scenario != NULL ? o->scenario : scenario, NULL, 0, why, sizeof why);
    for (size_t i = 0; rc == 0 && i < json_array_size(set); i++) {
        const char *text = json_string_value(json_array_get(set, i));
        rc = text != NULL ? sim_scenario(cfg, NULL, &text, 1, why, sizeof why) : ERR_FORMAT;
    }
    if (rc == 0)
        rc = sim_scenario(cfg, NULL, (const char *const *)o->set.v, o->set.n, why, sizeof why);
    cfg->seed = (uint64_t)seed;
    cfg->threads = (unsigned)o->threads;
    if (rc == 0)
        rc = trace_nodes(cfg, nodes, why, sizeof why);
    if (rc != 0)
        return bad_trace(o->file, why);
    return 0;
}

static int tell(const struct sim_replay_opts *o, struct replay *r)
{
    uint64_t same = r->line - 1 - (r->differs && r->line > 0);

    if (o->json) {
        json_t *j = json_pack("{s:b, s:I}", "same", !r->differs, "events", (json_int_t)same);
        if (r->differs) {
            json_object_set_new(j, "line", json_integer((json_int_t)r->line));
            json_object_set_new(j, "trace", json_loads(r->text, 0, NULL));
            json_object_set_new(j, "now",
                                r->now[0] != '\0' ? json_loads(r->now, 0, NULL) : json_null());
        }
        tool_print(j);
    } else if (!r->differs) {
        printf("the same: %" PRIu64 " events\n", same);
    } else {
        printf("%" PRIu64 " events are the same, then line %" PRIu64 " differs", same, r->line);
        if (r->now[0] != '\0')
            printf(": %.9f s, node %" PRIu32, (double)r->ev.at_ns / 1e9, r->ev.node);
        printf("\ntrace  %s\nnow    %s\n", r->text,
               r->now[0] != '\0' ? r->now : "(the run has ended)");
    }
    return r->differs ? CMD_EXIT_FAIL : 0;
}

static int replay(const struct sim_replay_opts *o, struct sim_cfg *cfg, struct replay *r)
{
    struct sim *s;
    char why[512];

    cfg->traced = compare;
    cfg->traced_arg = r;
    cfg->stop = &enough;
    int rc = sim_new(&s, cfg, why, sizeof why);
    if (rc != 0)
        return bad_trace(o->file, why);
    rc = sim_run(s);
    sim_free(s);
    if (rc != 0)
        return bad_trace(o->file, err_str(rc));
    if (!r->differs && !r->over && next_line(r)) { /* the run ended, the trace goes on */
        r->differs = true;
        r->now[0] = '\0';
    }
    return tell(o, r);
}

int sim_replay_run(struct cmdline *cl)
{
    const struct sim_replay_opts *o = cl->opts;
    struct sim_cfg *cfg = calloc(1, sizeof *cfg);
    struct replay r = {.f = fopen(o->file, "r")};
    int rc = CMD_EXIT_FAIL;

    if (cfg == NULL || r.f == NULL) {
        (void)tool_fail(err_sys(), "%s: %s", o->file, strerror(errno));
    } else if (!next_line(&r)) {
        rc = bad_trace(o->file, "not a trace");
    } else {
        json_t *head = json_loads(r.text, 0, NULL);
        rc = configure(cl, cfg, head);
        json_decref(head);
        if (rc == 0)
            rc = replay(o, cfg, &r);
    }
    if (r.f != NULL)
        (void)fclose(r.f);
    free(r.text);
    free(cfg);
    return rc;
}

const struct cmd_opt sim_replay_args[] = {{.name = "TRACE",
                                           CMD_STR_AT(struct sim_replay_opts, file),
                                           .help = "trace.jsonl of sim run --trace"},
                                          {0}};

const struct cmd_opt sim_replay_flags[] = {
    {.name = "scenario",
     CMD_STR_AT(struct sim_replay_opts, scenario),
     .metavar = "FILE",
     .def_text = "that of the trace",
     .help = "the scenario, where it is elsewhere now"},
    {.name = "threads",
     CMD_U64_AT(struct sim_replay_opts, threads),
     .metavar = "N",
     .min = 1,
     .max = SIM_THREADS_MAX,
     .def = "1",
     .help = "run on so many threads; the results are the same"},
    {.name = "set",
     CMD_STRS_AT(struct sim_replay_opts, set),
     .metavar = "KEY=VALUE",
     .help = "change a setting, to see where that begins to matter"},
    {.name = "json", CMD_FLAG_AT(struct sim_replay_opts, json), .help = "print JSON"},
    {0}};
