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
#include "node/node.h"
#include "transport/crew.h"

/* What the relay lets happen; the same flags for every command that runs one. */
struct relay_flags {
    const char *allow_keys, *deny_keys;
    uint64_t max_sessions_addr, handshake_rate, max_streams, key_rate, total_rate, workers;
};

/* Their table, for a struct T with a member `relay`. */
#define CONFIG_RELAY_FLAGS(T)                                                                      \
    {.name = "max-sessions-address",                                                               \
     CMD_U64_AT(T, relay.max_sessions_addr),                                                       \
     .def_text = "2048, and no limit for this host itself",                                        \
     .min = 1,                                                                                     \
     .max = 1000000,                                                                               \
     .metavar = "N",                                                                               \
     .help = "sessions that the relay takes from one address, or IPv6 network of 64 bits"},        \
        {.name = "handshake-rate",                                                                 \
         CMD_U64_AT(T, relay.handshake_rate),                                                      \
         .def_text = "20, and no limit for this host itself",                                      \
         .min = 1,                                                                                 \
         .max = 1000000,                                                                           \
         .metavar = "N",                                                                           \
         .help = "handshakes a second of one address; ten seconds of it may come at once"},        \
        {.name = "max-streams",                                                                    \
         CMD_U64_AT(T, relay.max_streams),                                                         \
         .def_text = "500000",                                                                     \
         .min = 1,                                                                                 \
         .max = UINT32_MAX,                                                                        \
         .metavar = "N",                                                                           \
         .help = "streams that the relay carries in all"},                                         \
        {.name = "key-rate",                                                                       \
         CMD_BYTES_AT(T, relay.key_rate),                                                          \
         .def_text = "no limit",                                                                   \
         .min = 16384,                                                                             \
         .max = UINT64_C(1) << 40,                                                                 \
         .help = "bytes a second that one key may send through the relay"},                        \
        {.name = "total-rate",                                                                     \
         CMD_BYTES_AT(T, relay.total_rate),                                                        \
         .def_text = "no limit",                                                                   \
         .min = 65536,                                                                             \
         .max = UINT64_C(1) << 40,                                                                 \
         .help = "bytes a second that the relay carries in all, shared equally among keys"},       \
        {.name = "allow-keys",                                                                     \
         CMD_STR_AT(T, relay.allow_keys),                                                          \
         .metavar = "FILE",                                                                        \
         .def_text = "every key",                                                                  \
         .help = "keys that may use the relay, one a line; read again on SIGHUP"},                 \
        {.name = "deny-keys",                                                                      \
         CMD_STR_AT(T, relay.deny_keys),                                                           \
         .metavar = "FILE",                                                                        \
         .help = "keys that may not use the relay, also when they are allowed"},                   \
    {                                                                                              \
        .name = "workers", CMD_U64_AT(T, relay.workers), .min = 1, .max = CREW_MAX,                \
        .metavar = "N", .def_text = "one less than there are cores, 1 to 16",                      \
        .help = "threads of the relay"                                                             \
    }

struct node_opts {
    const char *config, *sk_file, *store, *control, *log_level, *discovery, *publish_sk_file;
    int mode, lookup, registration, push;
    struct addr_hostport listen, public_address, health, metrics, http;
    bool dmsg_health;
    bool full, ready, log_json, sample_config;
    struct cmd_peers bootstrap, peers;
    bool accept_relayed;
    struct cmd_pubkeys accepted_peers, whitelisted, trusted, mirrors, readers;
    struct cmd_strs writers; /* config_writers() */
    const char *network;
    struct relay_flags relay;
    uint64_t store_bytes, commit, sessions, pk_threads;
    uint64_t max_sessions;
};

extern const struct cmd_opt config_flags[];

void config_relay(struct node_cfg *cfg, const struct relay_flags *f);

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
