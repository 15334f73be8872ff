/*
 * paths - where a node keeps its things, and one lock per key.
 *
 *     state    keys, stores, locks: $XDG_STATE_HOME/kadmsg, else /var/lib/kadmsg for root, else
 *              ~/.local/state/kadmsg
 *     run      control sockets: $XDG_RUNTIME_DIR/kadmsg, else /run/kadmsg for root, else
 *              <state>/run
 *
 * Directories are made with mode 0700 and refused when another user owns them or others can write
 * (ERR_UNSAFE).
 *
 * The lock of a key, <state>/locks/<pk>, is held (open file description lock: asking who has it
 * takes nothing, and it ends with the process) by the node that runs under it and names its process
 * id and control socket. A tool that is given the same key finds that node there and goes through
 * it: never two clients under one key on one machine (incident 3).
 */
#pragma once

#include <stddef.h>
#include <sys/types.h>

#include "base/crypto.h"

#define PATHS_MAX 512

int paths_state(char out[PATHS_MAX]);
int paths_run(char out[PATHS_MAX]);
/* <state>/<first 8 hex digits of pk> */
int paths_store(char out[PATHS_MAX], const struct pubkey *pk);
/* <run>/control */
int paths_control(char out[PATHS_MAX]);
/* out = dir/name. ERR_TOO_LONG. */
int paths_join(char out[PATHS_MAX], const char *dir, const char *name);
/* Make the directory and its parents, mode 0700; check the last one. */
int paths_make_dir(const char *dir);

struct keylock {
    int fd; /* -1 = not held */
};

struct keylock_owner {
    pid_t pid;
    char control[PATHS_MAX]; /* "" = none */
};

/* Take the lock of a key. ERR_BUSY: somebody else has it, *other tells who. */
int keylock_take(struct keylock *l, const struct pubkey *pk, const char *control,
                 struct keylock_owner *other);
void keylock_release(struct keylock *l);
/* Who runs under this key: 0 and *owner, or ERR_NOT_FOUND. */
int keylock_owner(struct keylock_owner *owner, const struct pubkey *pk);
