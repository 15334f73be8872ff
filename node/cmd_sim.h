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

struct sim_report_opts {
    const char *dir, *out;
};

struct sim_compare_opts {
    const char *a, *b, *out;
    bool json, all;
};

extern const struct cmd_opt sim_report_args[], sim_report_flags[];
extern const struct cmd_opt sim_compare_args[], sim_compare_flags[];

int sim_report_run(struct cmdline *cl);
int sim_compare_run(struct cmdline *cl);
