/*
 * daemon - the frame of a daemon that serves one of the HTTP services (docs/protocol/services.md): flags and configuration file that all have, store, listeners, metrics,
 * the same over dmsg port 80, the mirror, signals.
 *
 * A command has struct daemon_opts as member `d` of its options, DAEMON_OPTS() among its flags, and a struct daemon_spec that makes the service. Life:
 *
 *     configuration file, flags -> key -> store (a Redis is waited for) -> mirror -> spec.open() -> listeners -> node -> ready … signal -> node stops -> all ends in reverse
 *
 * With a key the service is also served over dmsg: a node of this process joins the relays that the discovery (spec.own_discovery: the service itself) or the DHT tells of.
 * Errors are told on stderr. One thread.
 *
 *     static int run(struct cmdline *cl) { return daemon_run(cl, &spec, &((const struct my_opts *)cl->opts)->d); }
 */
#pragma once

#include <stdio.h>

#include "base/cmdline.h"
#include "base/env_sys.h"
#include "compat-http/kv_open.h"
#include "compat-http/service.h"
#include "node/fresh_dir.h"
#include "node/mirroring.h"
#include "node/node.h"

enum daemon_mode { DAEMON_AUTO, DAEMON_HTTP, DAEMON_DUAL, DAEMON_DMSG };

struct daemon_opts {
    const char *addr, *redis, *store, *whitelist, *metrics, *keyfile, *config, *tag, *server_type,
        *log_level, *mirror_redis, *discovery, *ignored;
    struct cmd_peers bootstrap;
    uint64_t dmsg_port, commit;
    bool test_environment, ready, trust_proxy;
    bool memory; /* a store that ends with the process */
    int mode;    /* enum daemon_mode */
    struct seckey sk;
};

/* Flags of all daemons; T is the command's struct of options. */
#define DAEMON_OPTS(T, addr_)                                                                      \
    {.name = "addr",                                                                               \
     .letter = 'a',                                                                                \
     CMD_STR_AT(T, d.addr),                                                                        \
     .def = (addr_),                                                                               \
     .metavar = "HOST:PORT",                                                                       \
     .help = "listen on this address; port 0 takes a free one"},                                   \
        {.name = "port",                                                                           \
         .letter = 'p',                                                                            \
         CMD_STR_AT(T, d.addr),                                                                    \
         .metavar = "HOST:PORT",                                                                   \
         .help = "the same as --addr"},                                                            \
        {.name = "redis",                                                                          \
         CMD_STR_AT(T, d.redis),                                                                   \
         .metavar = "URL",                                                                         \
         .def_text = "an LMDB store",                                                              \
         .help =                                                                                   \
             "keep entries in this Redis, in upstream's layout; REDIS_PASSWORD is its password"},  \
        {.name = "redisurl",                                                                       \
         .letter = 'u',                                                                            \
         CMD_STR_AT(T, d.redis),                                                                   \
         .metavar = "URL",                                                                         \
         .help = "the same as --redis"},                                                           \
        {.name = "store",                                                                          \
         CMD_STR_AT(T, d.store),                                                                   \
         .metavar = "DIR",                                                                         \
         .def_text = "a folder with the command's name in the state directory",                    \
         .help = "where entries are kept without --redis"},                                        \
        {.name = "commit",                                                                         \
         CMD_SECONDS_AT(T, d.commit),                                                              \
         .def = "2ms",                                                                             \
         .min = 1000000,                                                                           \
         .max = UINT64_C(1000000000),                                                              \
         .help = "registrations that come within this time are one write to disk"},                \
        {.name = "whitelist-keys",                                                                 \
         CMD_STR_AT(T, d.whitelist),                                                               \
         .metavar = "KEYS",                                                                        \
         .help = "network monitors that may deregister, separated by commas"},                     \
        {.name = "whitelist",                                                                      \
         .letter = 'w',                                                                            \
         CMD_STR_AT(T, d.whitelist),                                                               \
         .metavar = "KEYS",                                                                        \
         .help = "the same as --whitelist-keys"},                                                  \
        {.name = "test-environment",                                                               \
         CMD_FLAG_AT(T, d.test_environment),                                                       \
         .help = "nothing: there are no built-in lists"},                                          \
        {.name = "sk",                                                                             \
         CMD_SECKEY_AT(T, d.sk),                                                                   \
         .def_text = "not served over dmsg",                                                       \
         .help = "secret key: serve over dmsg too; others on this machine can see it, --keyfile "  \
                 "is better"},                                                                     \
        {.name = "keyfile",                                                                        \
         CMD_STR_AT(T, d.keyfile),                                                                 \
         .metavar = "FILE",                                                                        \
         .help = "file of the secret key, made when it is missing"},                               \
        {.name = "bootstrap",                                                                      \
         CMD_PEERS_AT(T, d.bootstrap),                                                             \
         .help = "full node of the DHT that entries are mirrored to; needs a key, which the full " \
                 "node has to have as --mirror"},                                                  \
        {.name = "mirror-redis",                                                                   \
         CMD_STR_AT(T, d.mirror_redis),                                                            \
         .metavar = "URL",                                                                         \
         .help = "mirror entries into this Redis, as items that Go full nodes load; needs a key; " \
                 "REDIS_PASSWORD is its password"},                                                \
        {.name = "dmsg-port",                                                                      \
         CMD_U64_AT(T, d.dmsg_port),                                                               \
         .def = "80",                                                                              \
         .min = 1,                                                                                 \
         .max = 65535,                                                                             \
         .metavar = "PORT",                                                                        \
         .help = "port of the dmsg address"},                                                      \
        {.name = "dmsgPort",                                                                       \
         CMD_U64_AT(T, d.dmsg_port),                                                               \
         .min = 1,                                                                                 \
         .max = 65535,                                                                             \
         .metavar = "PORT",                                                                        \
         .help = "the same as --dmsg-port"},                                                       \
        {.name = "metrics",                                                                        \
         .letter = 'm',                                                                            \
         CMD_STR_AT(T, d.metrics),                                                                 \
         .metavar = "HOST:PORT",                                                                   \
         .help = "serve /metrics on this address"},                                                \
        {.name = "config",                                                                         \
         .letter = 'c',                                                                            \
         CMD_STR_AT(T, d.config),                                                                  \
         .metavar = "FILE",                                                                        \
         .help = "JSON file with upstream's names for these settings; unknown ones are refused"},  \
        {.name = "trust-proxy",                                                                    \
         CMD_FLAG_AT(T, d.trust_proxy),                                                            \
         .help = "believe address headers and PROXY lines of every host, not only of this one"},   \
        {.name = "dmsg-server-type",                                                               \
         CMD_STR_AT(T, d.server_type),                                                             \
         .metavar = "TYPE",                                                                        \
         .help = "taken for compatibility; every server is used"},                                 \
        {.name = "tag",                                                                            \
         CMD_STR_AT(T, d.tag),                                                                     \
         .metavar = "TEXT",                                                                        \
         .help = "taken for compatibility"},                                                       \
        {.name = "pprofmode", CMD_STR_AT(T, d.ignored), .help = "taken for compatibility"},        \
        {.name = "pprofaddr", CMD_STR_AT(T, d.ignored), .help = "taken for compatibility"},        \
        {.name = "log-level",                                                                      \
         CMD_STR_AT(T, d.log_level),                                                               \
         .def = "info",                                                                            \
         .metavar = "LEVELS",                                                                      \
         .help = "error, warn, info, debug or trace"},                                             \
    {                                                                                              \
        .name = "ready", CMD_FLAG_AT(T, d.ready),                                                  \
        .help = "print one JSON line on stdout when it serves"                                     \
    }

struct daemon_member {
    const char *member, *flag; /* of the configuration file; flag NULL: known, and nothing to do */
};

struct daemon;

struct daemon_spec {
    const char *name;  /* of the command and of its store */
    const char *title; /* of the service, for people */
    bool own_discovery;
    const char *mode_env; /* optional: the environment variable that wins over --mode */
    const struct daemon_member *members; /* beside those that all have */
    size_t n_members;
    /* The store is open: make the service, and say in *cfg what serves it (app, routes, dropped, limits). 0 or an exit code, told. */
    int (*open)(struct daemon *m, struct service_cfg *cfg);
    void (*close)(struct daemon *m);  /* no request is under way any more; the store is open */
    void (*closed)(struct daemon *m); /* optional: the store is closed */
    void (*metrics)(struct daemon *m, FILE *out);
    void (*mirror_again)(struct daemon *m); /* optional: the mirror wants everything anew */
    void (*store_back)(struct daemon *m);   /* optional: the Redis was away and is there again */
    const char *
        pull; /* salt of what full nodes are asked for when the store may have lost it; NULL = nothing */
    void (*pulled)(struct daemon *m); /* it is in the node's store */
};

struct daemon {
    const struct daemon_spec *spec;
    const struct daemon_opts *o;
    const void *opts; /* the command's */
    void *app;        /* the command's */
    struct drive_loop *drive;
    struct env_sys env;
    struct kv_open store;
    struct mirroring *mirroring; /* NULL = none */
    struct service *service, *metrics;
    struct node *node; /* over dmsg; NULL = not */
    struct pubkey pk;
    struct seckey sk;
    bool has_key;
    const char **monitors; /* texts of keys */
    size_t n_monitors;
    /* private */
    bool stopping, served;
    struct event *sigint, *sigterm;
    bool known; /* how it is with Redis at the start */
    int redis_err;
    unsigned attempts;
    char why[200];
    char *monitor_text;
    struct fresh_dir fresh;
    char address[ADDR_DMSG_MAX + 1], url[128];
};

/* The exit code. */
int daemon_run(struct cmdline *cl, const struct daemon_spec *spec, const struct daemon_opts *o);

/* "PK:PORT" when it is served over dmsg, or NULL. */
const char *daemon_address(const struct daemon *m);
/* Keys separated by commas; *out from malloc(). 0 or an exit code, told. */
int daemon_keys(const char *flag, const char *text, struct pubkey **out, size_t *n);
/* The folder of a store that this flag names, or the one with the command's name. 0 or an exit code, told. */
int daemon_store_dir(const struct daemon *m, char out[PATHS_MAX]);
