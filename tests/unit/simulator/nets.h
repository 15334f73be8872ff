/* Networks for tests of the simulator. */
#pragma once

#include "simulator/sim.h"

#define S  UINT64_C(1000000000)
#define MS UINT64_C(1000000)

/* 60 nodes for five minutes. Nothing fails: everything must be found. */
struct sim_cfg nets_calm(void);

/* 40 nodes for two minutes: all that comes and goes, on little time. */
struct sim_cfg nets_lively(void);

/* The same run to the last event, by all figures. */
void nets_same(const struct sim_result *a, const struct sim_result *b);

/* Runs it; valid until the next call. */
const struct sim_result *nets_run(const struct sim_cfg *cfg);

/* The settings are refused for a reason that has this word. */
void nets_refuse(const struct sim_cfg *c, const char *reason);
