/*
 * completion - scripts for shells, from the command table, so that they cannot offer something else
 * than --help shows.
 *
 * bash, zsh and fish complete commands, sub-commands, flags, words of a choice, files and
 * directories (by the placeholders FILE, PATH and DIR). The scripts hold the whole table; they run
 * no kadmsg. The same table gives the same bytes.
 *
 *     completion_print(stdout, cmds_root(), COMPLETION_BASH);
 */
#pragma once

#include <stdio.h>

#include "base/cmdline.h"

enum completion_shell { COMPLETION_BASH, COMPLETION_ZSH, COMPLETION_FISH };

#define COMPLETION_SHELLS "bash|zsh|fish" /* for CMD_CHOICE, in the same order */

void completion_print(FILE *out, const struct cmd *root, enum completion_shell shell);
