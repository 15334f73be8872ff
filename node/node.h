/*
 * node - one running kadmsg node: roles put together on one loop.
 *
 *     main thread     client (sessions, streams), DHT engine and its RPC, look-ups, publisher,
 *                     control socket, store owner
 *     relay thread    relay role, if configured (relay_thread.h); the node is a client of its own
 *                     relay through a socketpair
 *     pk threads      public-key work of both (transport/drive_env.h)
 *     store writer    group commit (store/lmdb.h)
 *
 * Life: node_new() opens everything in the order key lock, store, relay socket, parts, so that a failure is one
 * line in `why` and nothing has been changed; node_run() serves until
 * node_stop() or a signal (node_handle_signals()), and then stops in order: entry withdrawn, streams
 * that tools hold drained, store synced. node_free() closes the sessions and releases what is left.
 *
 * Parts are what the program adds: control socket, HTTP discovery, its API, pages over HTTP. libkadmsg has a
 * node without any, and links none of what they need.
 *
 * The same struct serves a tool without a running node: memory store, no sockets, its commands come
 * through node_control_adopt() (tool.h).
 */
#pragma once

#include <stdbool.h>

#include "base/addr.h"
#include "base/crypto.h"
#include "transport/guard.h"

#define NODE_WHY 512

struct node;
struct event_base;

/* Where a node looks for entries and publishes its own (docs/operations.md). */
enum node_mode {
    NODE_MODE_AUTO, /* hybrid when there is a discovery, else dht */
    NODE_MODE_DHT,
    NODE_MODE_HYBRID,
    NODE_MODE_HTTP,
    NODE_MODE_DHT_FIRST,
};
/* Columns of node/policy.h in place of those of the mode. */
enum node_lookup { NODE_LOOKUP_AUTO, NODE_LOOKUP_DHT, NODE_LOOKUP_HYBRID, NODE_LOOKUP_HTTP };
enum node_register {
    NODE_REGISTER_AUTO,
    NODE_REGISTER_ALWAYS,
    NODE_REGISTER_UNSEEN,
    NODE_REGISTER_NEVER,
};
enum node_push { NODE_PUSH_AUTO, NODE_PUSH_ON, NODE_PUSH_OFF };
struct kad_report;
struct kad_writer;
struct node_part;

/* All parts, for cfg.parts. */
extern const struct node_part *const node_parts[];

struct node_cfg {
    struct pubkey pk;
    struct seckey sk;
    const char *listen;         /* relay role on "host:port"; NULL = none */
    const char *public_address; /* NULL: the listening address */
    bool full;
    /* Ended by NULL; NULL: none. Members of this struct that only a part knows are ignored without it:
     * discovery, http, publish_sk_file, control, health, metrics, health_on_dmsg. */
    const struct node_part *const *parts;
    const struct addr_peer *bootstrap;
    size_t n_bootstrap;
    const char *store_dir; /* NULL = memory */
    const char *discovery; /* URL of an HTTP discovery; NULL = none */
    enum node_mode mode;
    enum node_lookup lookup;
    enum node_register registration;
    enum node_push push;
    const char *http;            /* "host:port" of the discovery's API; NULL = none */
    const char *publish_sk_file; /* key that carries entries of others into the DHT; NULL = sk */
    uint64_t store_bytes;        /* 0 = default of the role */
    unsigned commit_ms;          /* 0 = 50 */
    const char *control;         /* path; NULL = no socket */
    const struct pubkey *whitelisted, *trusted, *mirrors;
    size_t n_whitelisted, n_trusted, n_mirrors;
    /* Private networks (kademlia/kad.h). */
    const struct kad_writer *writers;
    const struct pubkey *readers;
    size_t n_writers, n_readers;
    const char *network; /* name that keeps its DHT apart from others; NULL = the default one */
    /* Other relays that ours links to; who may be one, everybody if none is named; whether clients
     * may bring requests of others (transport/relay.h). */
    const struct addr_peer *peers;
    size_t n_peers;
    const struct pubkey *accepted_peers;
    size_t n_accepted_peers;
    bool accept_relayed;
    uint32_t max_sessions;    /* of the relay, in its entry; 0 = 2048 */
    struct guard_cfg guard;   /* limits of the relay: transport/guard.h */
    uint64_t key_bytes_per_s; /* that one key may bring in; 0 = no limit */
    const char *allow, *deny; /* files of keys for the relay; NULL = none */
    const char *health;       /* serve GET /health on this "host:port"; NULL = nowhere */
    const char *metrics;      /* the same with /metrics */
    bool health_on_dmsg;      /* /health on port 80 of the node's key */
    bool control_port;        /* answer pings on port 7 (transport/ctrl.h) */
    unsigned sessions;        /* wanted sessions to relays; 0 = 2 */
    unsigned pk_threads;      /* 0 = by cores, 1 … 4 */
    unsigned workers;         /* of the relay; 0 = one less than there are cores, 1 … 16 */
    bool client_only;         /* asks the DHT and serves nobody in it (kad.h); not with full */
    const char
        *proxy;   /* "host:port" of a SOCKS5 proxy that relays are dialled through; NULL = none */
    bool no_dht;  /* bootstrap are sessions only, nothing is looked up or published but by HTTP */
    bool publish; /* the entry; tools do not */
    bool lock;    /* hold the lock of the key */
    int64_t clock_offset_ns;     /* tests */
    struct event_base *base;     /* whose loop it runs on; NULL: one of its own, for node_run() */
    bool pk_inline;              /* no threads for public-key work; not with listen */
    void (*stopping)(void *arg); /* optional: the stop has begun */
    /* Optional, on SIGHUP and the command "reload": 0, or an error with the reason in why. */
    int (*reload)(void *arg, char *why, size_t cap);
    char *(*config)(void *arg); /* optional: the settings in force as JSON text, to be freed */
    /* Optional, for who drives the node by the functions of its parts (node_int.h): the stop is
     * over, in place of the end of node_run(); sessions, DHT peers or what is published may have
     * changed; a report of the engine, true when it was the caller's. */
    void (*stopped)(void *arg);
    void (*changed)(void *arg);
    bool (*report)(void *arg, const struct kad_report *r);
    void *arg;
};

int node_new(struct node **out, const struct node_cfg *cfg, char why[NODE_WHY]);
void node_free(struct node *n);
/* Serves until stopped. 0, or an error of the loop or of the store when it could not write
 * everything. */
int node_run(struct node *n);
/* Any thread. The second call stops without waiting for anything. */
void node_stop(struct node *n);

const struct pubkey *node_pk(const struct node *n);
/* "host:port" of the relay, or NULL; path of the control socket, or NULL. */
const char *node_relay_addr(const struct node *n);
/* What is published for the relay. */
const char *node_public_addr(const struct node *n);
const char *node_control_path(const struct node *n);
/* "host:port" of /health and of /metrics, or NULL. */
const char *node_health_addr(const struct node *n);
const char *node_metrics_addr(const struct node *n);
/* "host:port" of the discovery's API, or NULL. */
const char *node_http_addr(const struct node *n);
/* Serve commands on this descriptor (SOCK_SEQPACKET). Before node_run(). */
int node_control_adopt(struct node *n, int fd);
/* SIGINT and SIGTERM stop the node, a second one at once; SIGHUP calls cfg.reload; SIGPIPE is
 * ignored. Before node_run(). */
int node_handle_signals(struct node *n);
