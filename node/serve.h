/*
 * serve - what the commands that run a node have in common: where its files are, and its life from
 * the ready line to the last signal.
 *
 *     rc = serve_find(&at, &cfg, o->store, o->control);
 *     if (rc == 0)
 *         rc = serve(&cfg, o->ready);
 */
#pragma once

#include "node/node.h"
#include "node/paths.h"

struct serve_places {
    char store[PATHS_MAX], control[PATHS_MAX];
};

/* Store directory and control socket of cfg->pk: those named, or where they belong. cfg points into
 * *at. 0, or the exit code after the reason was printed. */
int serve_find(struct serve_places *at, struct node_cfg *cfg, const char *store,
               const char *control) __attribute__((warn_unused_result));
/* Run the node until it is told to stop. cfg->stopping is set here. 0 or the exit code. */
int serve(struct node_cfg *cfg, bool ready) __attribute__((warn_unused_result));
/* "kadmsg: what path: reason"; returns the exit code. */
int serve_bad(int rc, const char *what, const char *path);
