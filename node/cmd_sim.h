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
    const char *file, *out, *checkpoint;
    uint64_t seed, threads, checkpoint_every_ns;
    struct cmd_strs set;
    bool check, json, force, quiet;
};

struct sim_report_opts {
    const char *dir, *out;
};

struct sim_compare_opts {
    const char *a, *b, *out;
    bool json, all;
};

extern const struct cmd_opt sim_run_args[], sim_run_flags[];
extern const struct cmd_opt sim_resume_args[], sim_resume_flags[];
extern const struct cmd_opt sim_report_args[], sim_report_flags[];
extern const struct cmd_opt sim_compare_args[], sim_compare_flags[];

/* Where this program lies in memory must not look like small numbers in a checkpoint (base/arena.h): begins it
 * anew, elsewhere, when it does. */
void sim_addresses_settle(void);

int sim_run_run(struct cmdline *cl);
int sim_resume_run(struct cmdline *cl);
int sim_report_run(struct cmdline *cl);
int sim_compare_run(struct cmdline *cl);
