/*
 * tool_key - what commands say about keys and key files (keyfile.h). Main thread; limits and errors are those of
 * keyfile.h.
 *
 *     rc = keyfile_read(&sk, &pk, path);
 *     if (rc < 0)
 *         return tool_key_tell(rc, path);
 */
#pragma once

#include <stdbool.h>

/* Say on stderr what is wrong with a key file; returns the exit code. */
int tool_key_tell(int err, const char *path);
/* Make a pair and print it, as lines or JSON; with a path write it there, and print lines without the secret. Returns
 * the exit code. */
int tool_key_gen(const char *path, bool json);
