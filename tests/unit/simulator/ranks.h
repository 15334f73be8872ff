/* Several processes for tests of the simulator: threads here, each with a simulation of its own, and what goes
 * between them is copied bytes as it would be elsewhere. */
#pragma once

#include <pthread.h>

#include "simulator/exchange.h"
#include "tests/unit/simulator/nets.h"

#define RANKS 3

struct rank {
    struct exchange_net net;
    struct sim_cfg cfg;
    struct sim_result result;
    const char *resume; /* NULL, or the checkpoint to begin from */
    char why[512];      /* it could not */
    pthread_t thread;
};

extern struct rank ranks_all[RANKS];

/* Each of n processes runs cfg on so many threads, or goes on from a checkpoint (NULL: begins). Their results are in
 * ranks_all[]. */
void ranks_run(const struct sim_cfg *cfg, unsigned n, unsigned threads, const char *resume);
/* Bytes that came to the first one in the last run. */
uint64_t ranks_bytes(void);
void ranks_free(void);
