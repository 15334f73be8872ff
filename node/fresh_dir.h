/*
 * fresh_dir - a directory of this process below the run directory (paths.h), for sockets that come and go.
 *
 * Its name is random, its mode 0700, and it is locked (flock on the directory) for as long as the process lives. Those that dead processes left behind are removed
 * when the next one is made. One thread.
 *
 *     struct fresh_dir d = {.fd = -1};
 *     if (fresh_dir_make(&d) == 0)
 *         …d.path…
 *     fresh_dir_remove(&d);
 */
#pragma once

#include "node/paths.h"

struct fresh_dir {
    int fd; /* -1 = none */
    char path[PATHS_MAX];
};

/* 0 also when it is there already; -errno, ERR_UNSAFE, ERR_TOO_LONG, ERR_NOT_FOUND (no run directory). */
int fresh_dir_make(struct fresh_dir *d) __attribute__((warn_unused_result));
/* With the files in it. */
void fresh_dir_remove(struct fresh_dir *d);
