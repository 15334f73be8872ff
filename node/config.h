/*
 * config - the settings of `kadmsg node`: one table gives the flags, their help, the checks, and
 * the configuration file.
 *
 * The file is one JSON object; its members have the names of the flags without dashes in front. A
 * switch is true or false, a flag that may be repeated may be an array, everything else a text as
 * on the command line, or a number where that fits; null is as if the member were not there.
 * Unknown members and bad values are refused with the name of the file and of the member. A value
 * on the command line wins (a list replaces the file's list).
 */
#pragma once

#include <jansson.h>
#include <stdio.h>

#include "base/cmdline.h"
#include "kademlia/kad.h"
#include "transport/crew.h"

struct node_opts {
    const char *config, *sk_file, *store, *control, *log_level, *discovery;
    int mode;
    struct addr_hostport listen, public_address, health, metrics;
    bool dmsg_health;
    bool full, ready, log_json, sample_config;
    struct cmd_peers bootstrap, peers;
    bool accept_relayed;
    struct cmd_pubkeys accepted_peers, whitelisted, trusted, mirrors, readers;
    struct cmd_strs writers; /* config_writers() */
    const char *network;
    const char *allow_keys, *deny_keys;
    uint64_t store_bytes, commit, sessions, pk_threads, workers;
    uint64_t max_sessions, max_sessions_addr, handshake_rate, max_streams, key_rate, total_rate;
};

extern const struct cmd_opt config_flags[];

/* A flag that may stand in the file too. */
bool config_is_setting(const struct cmd_opt *o);

/* The values of --allow-writer, NAMESPACE=KEY or *=KEY, into a malloc'ed array; NULL with *n = 0 when
 * there are none. ERR_USAGE with the reason in why. */
int config_writers(struct kad_writer **out, size_t *n, const struct cmd_strs *texts, char *why,
                   size_t cap) __attribute__((warn_unused_result));

#define CONFIG_FILE_MAX (1024 * 1024)
#define CONFIG_WHY      768

/* n bytes of a configuration file into a parsed command line of `kadmsg node`. 0, or ERR_FORMAT with
 * the reason in why; some settings may have been taken over then. */
int config_parse(struct cmdline *cl, const char *text, size_t n, char *why, size_t cap)
    __attribute__((warn_unused_result));

/* Read a file into a parsed command line of `kadmsg node`. 0, or the exit code after the reason
 * was printed. */
int config_load(struct cmdline *cl, const char *path);
/* Read it again while the node runs and take over what can change then: the levels of the log. 0, or
 * an error with the reason in why and nothing changed. */
int config_reload(struct cmdline *cl, const char *path, char *why, size_t cap)
    __attribute__((warn_unused_result));
/* The settings of a parsed command line of `kadmsg node`, in the form of the file; a new reference, NULL = out of
 * memory. What has neither value nor default is null. */
json_t *config_json(const struct cmdline *cl);
/* A configuration file with every setting at its default. */
void config_sample(FILE *out);
