/*
 * envfile - files of shell assignments, as upstream's proxies read them (docs/protocol/apps.md §1.5): NAME=value, NAME='value', NAME=('a' "b" c).
 *
 * Only that is understood: comments from # on, blank lines, export before a name, arrays over several lines; quotes of both kinds without anything special inside. A
 * substitution ($, `), a backslash or anything else is an error, not a guess. Limit: ENVFILE_MAX bytes. Any thread.
 */
#pragma once

#include <stddef.h>

#define ENVFILE_MAX 65536

/* One value; an array calls once for each element, an empty one not at all. */
typedef void envfile_fn(void *arg, const char *name, const char *value);

/* text is changed. ERR_FORMAT: *line (from 1) is where. */
int envfile_parse(char *text, envfile_fn *fn, void *arg, size_t *line)
    __attribute__((warn_unused_result));
/* Also -errno, ERR_TOO_LONG, ERR_NOMEM. */
int envfile_read(const char *path, envfile_fn *fn, void *arg, size_t *line)
    __attribute__((warn_unused_result));
