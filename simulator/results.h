/*
 * results - what a run leaves: the summary as JSON, and files of it.
 *
 *     summary.json     the object that `kadmsg sim run --json` prints
 *     series.csv       sums over virtual time, a row per point, names in the first row
 *     histograms.csv   name,upto,count: numbers of a step are not above upto (hist.h)
 *
 * simulator/report.h reads them again. Plain functions without state; one thread.
 *
 *     json_t *j = results_summary(&cfg, r, &use);
 *     rc = results_write("out", j, r, why, sizeof why);
 */
#pragma once

#include <jansson.h>
#include <stddef.h>

#include "simulator/sim.h"

struct results_use { /* of the machine */
    double wall_s, cpu_s;
    uint64_t rss_mib; /* peak */
};

/* What this process has used; wall_s is the caller's. */
void results_use(struct results_use *use, double wall_s);

/* A new object; NULL without memory. */
json_t *results_summary(const struct sim_cfg *cfg, const struct sim_result *r,
                        const struct results_use *use);

/* Writes the three files into the folder dir, which exists. A file is whole or not there: it gets
 * its name when everything is written. 0 or a system error with why = "path: reason". */
int results_write(const char *dir, const json_t *summary, const struct sim_result *r, char *why,
                  size_t why_cap) __attribute__((warn_unused_result));
