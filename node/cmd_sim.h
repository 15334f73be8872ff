/*
 * cmd_sim - the sub-commands of `kadmsg sim` that have a file of their own: their options and what
 * runs. cmd_sim.c has the list.
 */
#pragma once

#include <stdbool.h>

#include "base/cmdline.h"

struct exchange_net;

/* The other processes of this run (simulator/exchange.h), all of which run the same command; NULL: there
 * are none. Set before the command runs. */
extern const struct exchange_net *cmd_sim_others;

struct sim_run_opts { /* of sim run; sim resume has some of them */
    const char *file, *out, *checkpoint, *trace;
    uint64_t seed, threads, checkpoint_every_ns;
    struct cmd_strs set;
    bool check, json, force, quiet;
};

struct sim_replay_opts {
    const char *file, *scenario;
    uint64_t threads;
    struct cmd_strs set;
    bool json;
};

struct sim_report_opts {
    const char *dir, *out, *pictures;
};

struct sim_compare_opts {
    const char *a, *b, *out;
    bool json, all;
};

extern const struct cmd_opt sim_run_args[], sim_run_flags[];
extern const struct cmd_opt sim_resume_args[], sim_resume_flags[];
extern const struct cmd_opt sim_replay_args[], sim_replay_flags[];
extern const struct cmd_opt sim_report_args[], sim_report_flags[];
extern const struct cmd_opt sim_compare_args[], sim_compare_flags[];

/* Where this program lies in memory must not look like small numbers in a checkpoint (base/arena.h): begins it
 * anew, elsewhere, when it does. */
void sim_addresses_settle(void);

struct sim_cfg;

/* The settings of a scenario (file NULL: of what was read before), changed by so many key=value. 0 or an
 * error with the reason, ERR_USAGE when a setting is wrong. */
int sim_scenario(struct sim_cfg *cfg, const char *file, const char *const *set, size_t n, char *why,
                 size_t why_cap);

/* The file of o->trace in the folder o->out, which is there: cfg->traced writes to it. An exit code; end it in
 * any case. */
struct sim_trace;
int sim_trace_begin(struct sim_trace **out, const struct sim_run_opts *o, struct sim_cfg *cfg);
/* It gets its name. NULL: there is none. */
int sim_trace_end(struct sim_trace *t);

int sim_run_run(struct cmdline *cl);
int sim_resume_run(struct cmdline *cl);
int sim_replay_run(struct cmdline *cl);
int sim_report_run(struct cmdline *cl);
int sim_compare_run(struct cmdline *cl);
