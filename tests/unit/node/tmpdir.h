/*
 * tmpdir - a directory of a test's own, as state and run directory of the program too.
 *
 *     struct tmpdir t;
 *     tmpdir_make(&t);             // XDG_STATE_HOME=<dir>/state, XDG_RUNTIME_DIR=<dir>/run
 *     tmpdir_remove(&t);
 */
#pragma once

struct tmpdir {
    char path[256];
};

void tmpdir_make(struct tmpdir *t);
/* With everything in it. */
void tmpdir_remove(struct tmpdir *t);
/* "<dir>/name" in one of 8 static buffers. */
const char *tmpdir_file(const struct tmpdir *t, const char *name);
void tmpdir_write(const struct tmpdir *t, const char *name, const char *text, unsigned mode);
