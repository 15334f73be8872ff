/*
 * scenario - scenario files: YAML (libyaml) checked against one table of settings.
 *
 * A file is a mapping of sections (`net:`, `gets:` …) with settings; `events:` is a list. Numbers
 * have units: 30s, 5ms, 2h, 1d; 12.5%; 20k, 3M. Every mistake is reported with file and line.
 *
 *     rc = scenario_read(&cfg, "x.yaml", why, sizeof why);        // ERR_FORMAT: why = file:line: …
 *     rc = scenario_set(&cfg, "net.loss=1%", why, sizeof why);
 */
#pragma once

#include <stddef.h>
#include <stdio.h>

#include "simulator/sim.h"

/* 0; ERR_FORMAT or a system error, with the reason in why. Files that the scenario names (matrix,
 * trace) stand beside it unless their names begin with /. *cfg was filled by sim_cfg_default(). */
int scenario_read(struct sim_cfg *cfg, const char *file, char *why, size_t why_cap)
    __attribute__((warn_unused_result));
/* The same from an open stream; name is for messages. */
int scenario_parse(struct sim_cfg *cfg, FILE *f, const char *name, char *why, size_t why_cap)
    __attribute__((warn_unused_result));

/* section.key=value; ERR_USAGE. */
int scenario_set(struct sim_cfg *cfg, const char *assignment, char *why, size_t why_cap)
    __attribute__((warn_unused_result));

/* The n-th setting (0 …) for documents and help; NULL behind the last. */
const char *scenario_key(size_t n, const char **help);
