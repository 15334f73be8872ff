/*
 * config - the settings of `kadmsg node`: one table gives the flags, their help, the checks, and the configuration file.
 *
 * The file is one JSON object; its members have the names of the flags without dashes in front. Strings, numbers and booleans are taken as the text a flag would be
 * given; lists are arrays. Unknown members and bad values are refused with the name of the file and of the member. A value on the command line wins.
 */
#pragma once

#include <stdio.h>

#include "base/cmdline.h"

struct node_opts {
    const char *config, *sk_file, *store, *control, *log_level;
    struct addr_hostport listen, public_address;
    bool full, ready, log_json, sample_config;
    struct cmd_peers bootstrap;
    struct cmd_pubkeys whitelisted, trusted, mirrors;
    uint64_t store_bytes, commit, max_sessions, sessions, pk_threads;
};

extern const struct cmd_opt config_flags[];

#define CONFIG_FILE_MAX (1024 * 1024)

/* Read a file into a parsed command line of `kadmsg node`. 0, or the exit code after the reason was printed. */
int config_load(struct cmdline *cl, const char *path);
/* A configuration file with every setting at its default. */
void config_sample(FILE *out);
