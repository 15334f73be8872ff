#include "node/cmd_sim.h"

#include <stdio.h>

#include "node/cmds.h"
#include "simulator/scenario.h"

static int run_settings(struct cmdline *cl)
{
    const char *help, *key;

    (void)cl;
    for (size_t i = 0; (key = scenario_key(i, &help)) != NULL; i++)
        printf("%-22s %s\n", key, help);
    return 0;
}

static const struct cmd subs[] = {
    {.name = "run",
     .help = "run a scenario",
     .about =
         "Runs a network of virtual nodes, each with the DHT engine of kadmsg node, in virtual "
         "time, as the scenario file says, and prints what came out. The same scenario and "
         "seed give the same digest on any number of threads.\n\n"
         "Ctrl-C ends the run and prints what there is; a second one ends the program.",
     .args = sim_run_args,
     .opts = sim_run_flags,
     .opts_size = sizeof(struct sim_run_opts),
     .run = sim_run_run},
    {.name = "resume",
     .help = "go on from a checkpoint",
     .about = "Goes on with a run from the state that sim run --checkpoint has saved, and ends as "
              "if it had never "
              "been interrupted: with the same digest. Scenario, seed and threads are those of the "
              "saved run. "
              "The file is good for the program that wrote it, not for another build, and for as "
              "many processes.",
     .args = sim_resume_args,
     .opts = sim_resume_flags,
     .opts_size = sizeof(struct sim_run_opts),
     .run = sim_resume_run},
    {.name = "replay",
     .help = "find where a run begins to differ from its trace",
     .about = "Runs the scenario of a trace again, by this program, and stops at the first event "
              "of the traced nodes that is "
              "not the same: with its time, its node, and what came then and now. Exit code 1 "
              "then. A trace of "
              "all nodes leads to the very first difference.",
     .args = sim_replay_args,
     .opts = sim_replay_flags,
     .opts_size = sizeof(struct sim_replay_opts),
     .run = sim_replay_run},
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
