/*
 * manpage - manual pages from the command table, so that they cannot say something else than
 * --help.
 *
 * One page for the program (kadmsg.1), one for each of its commands (kadmsg-dht.1), and one for the
 * configuration file (kadmsg.conf.5), in mdoc. The same table gives the same bytes. The pages lie
 * in docs/man/; `make man` writes them, and a test compares.
 *
 *     manpage_write_all(cmds_root(), "docs/man");
 */
#pragma once

#include <stdio.h>

#include "base/cmdline.h"

/* Writes every page to a directory that exists. 0, or the exit code after the reason was
 * printed. */
int manpage_write_all(const struct cmd *root, const char *dir);
/* One page; name "kadmsg", "kadmsg-COMMAND" or "kadmsg.conf". ERR_NOT_FOUND. */
int manpage_print(FILE *out, const struct cmd *root, const char *name);
