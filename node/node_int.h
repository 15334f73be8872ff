/*
 * node_int - what the parts of a node see of each other: assembly (node.c) and the command handlers
 * of the control socket (ctl_*.c). Private to node/.
 */
#pragma once

#include "base/buf.h"
#include "base/env_sys.h"
#include "base/err.h"
#include "compat-http/pusher.h"
#include "compat-http/stream_forward.h"
#include "kademlia/host.h"
#include "node/control.h"
#include "node/face.h"
#include "node/follow.h"
#include "node/fresh_dir.h"
#include "node/node.h"
#include "node/paths.h"
#include "node/policy.h"
#include "node/publish.h"
#include "node/relay_thread.h"
#include "node/resolve.h"
#include "node/wake.h"
#include "transport/client.h"
#include "transport/ctrl.h"
#include "transport/drive_env.h"
#include "transport/drive_tcp.h"
#include "transport/fdbridge.h"

struct forward_stat {
    size_t forwards; /* gauge */
    uint64_t made;
    struct stream_forward_stat streams;
};

struct health;

struct node {
    struct node_cfg cfg; /* strings and lists belong to the caller of node_new() */
    struct node_policy policy;
    char relay_addr[CONN_ADDR_MAX], public_addr[CONN_ADDR_MAX], control_path[PATHS_MAX];
    struct buf_budget budget;
    struct drive_loop *drive;
    struct loop *loop;
    struct pk_pool *pk_pool;
    struct env *env;
    struct env_sys env_sys; /* pk_inline */
    struct bufpool *pool;
    struct drive_tcp *tcp;
    struct carrier *drive_socks; /* cfg.proxy */
    struct store *store;
    struct client *client;
    struct host *host;
    struct resolve *resolve;
    struct follow *follow;               /* NULL: a tool, which is gone in a moment */
    struct discovery *discovery;         /* discovery.c; NULL = none */
    void (*ask_servers)(struct node *n); /* its way to servers_listed(), soon; NULL without it */
    struct disc_port disc;               /* of it */
    struct push *push;                   /* push.c; NULL = none */
    struct facade *facade;               /* facade.c; NULL = none */
    struct publish *publish;
    struct relay_thread *relay;
    struct control *control;
    struct ctrl *ctrl;
    struct health *health_http;
    struct wake wake;
    struct fdbridges bridges; /* streams that tools hold */
    struct keylock lock;
    struct loop_timer outside; /* the store is shared: what others changed */
    struct loop_timer housekeeping, drain_timer;
    uint64_t drain_until_ns;
    struct list waits;         /* ctl "wait" requests: see ctl_status.c */
    struct list publishing;    /* requests that wait for the entry to be published: ctl_dht.c */
    struct list operations;    /* of the engine that requests wait for: ctl_dht.c */
    struct list watching;      /* requests that are told of changes: ctl_dht.c */
    json_int_t next_watch;     /* number of an accepted stream: ctl_stream.c */
    struct list pings;         /* and questions for our address, for requests: ctl_stream.c */
    struct list session_tries; /* ctl_session.c */
    bool other_network;        /* so the bootstrap nodes said */
    struct forward_stat forward_stat;
    struct fresh_dir forward_dir;
    struct list queries;   /* the client's questions where a key is */
    struct list questions; /* the client's questions for a relay's address: servers.c */
    struct list servers;   /* known relays, see servers.c */
    size_t n_servers;
    uint64_t servers_round;   /* of the look into the store */
    bool servers_dirty;       /* the relay does not know yet what changed */
    uint32_t servers_op;      /* pull of relay records under way */
    uint64_t servers_next_ns; /* when to look for more */
    uint64_t routing_saved_ns;
    atomic_bool relay_changed_posted, stop_posted;
    struct drive_msg stop_msg, relay_changed_msg;
    bool stopping, have_peers;
    const char *health; /* as it was logged last */
    char health_text[48];
    uint64_t health_ns; /* since when it is something else */
    uint64_t started_ns;
    struct event *sigint, *sigterm, *sighup;
};

static inline struct kad *node_kad(struct node *n)
{
    return host_kad(n->host);
}

/* The outcome of a put. The first node of a network is alone and holds the item itself: a success
 * with stored = 0. */
static inline int node_put_err(const struct node *n, const struct kad_report *r)
{
    return r->err == ERR_NO_ROUTE && n->cfg.n_bootstrap == 0 ? 0 : r->err;
}

/* enum client_flags of a dial for a request: "local", and what the node's mode says. */
static inline unsigned node_dial_flags(const struct node *n, const struct ctl_req *req)
{
    return n->cfg.no_dht || ctl_arg_bool(req, "local") ? CLIENT_DIAL_LOCAL : 0;
}

/* What the program adds to a node (node.h). node.c knows it by this table alone. All but open and close may
 * be NULL. */
struct node_part {
    int (*open)(struct node *n,
                char why[NODE_WHY]); /* with client and engine, before anything is published */
    void (*close)(struct node *n);   /* also when open() failed, or was not called */
    void (*tick)(struct node *n);    /* once a second, and first when all is open */
    void (*changed)(struct node *n); /* as cfg.changed */
    bool (*report)(struct node *n, const struct kad_report *r);  /* as cfg.report */
    void (*stored)(struct node *n, const struct store_rec *rec); /* accepted into the local store */
};

/* Opened in this order, closed in the other one. */
extern const struct node_part
    node_part_discovery;                        /* discovery.c: the HTTP discovery beside the DHT */
extern const struct node_part node_part_push;   /* push.c: entries of the DHT to the discovery */
extern const struct node_part node_part_facade; /* facade.c: the discovery's API on this node */
extern const struct node_part node_part_health; /* health.c: /health and /metrics */
extern const struct node_part
    node_part_control; /* ctl_part.c: the control socket and its commands */

/* Room for the steps of a dial in an error message: every server that was tried. */
#define CTL_STEPS_TEXT 4096

/* "ok", or what is wrong; static. */
const char *node_health(struct node *n);
/* own_relay.c: the relay, if cfg.listen says so; a session to it, through a socketpair. */
int node_open_relay(struct node *n, char why[NODE_WHY]) __attribute__((warn_unused_result));
int node_attach_relay(struct node *n);

/* ctl_stream.c: one end of a socketpair that leads to the stream, which is taken over; or an error. */
int node_stream_to_fd(struct node *n, struct stream *st);

/* reload.c: the keys that may come to the relay, from their files. 0, or an error with the reason in
 * why and nothing changed. */
int node_load_keys(struct node *n, char why[NODE_WHY]) __attribute__((warn_unused_result));
/* Them, and what cfg.reload reads again; failures are logged, the first one is in why. */
int node_reload(struct node *n, char why[NODE_WHY]);

/* Tables of command handlers, ended by a NULL name. */
extern const struct ctl_cmd ctl_commands[];

/* ctl_status.c, ctl_dht.c, ctl_stream.c, ctl_forward.c */
void ctl_status(struct ctl_req *req);
void ctl_sessions(struct ctl_req *req);
void ctl_wait(struct ctl_req *req);
void ctl_reload(struct ctl_req *req);
void ctl_wait_check(struct node *n);
void ctl_dht_get(struct ctl_req *req);
void ctl_dht_put(struct ctl_req *req);
void ctl_dht_lookup(struct ctl_req *req);
void ctl_dht_sync(struct ctl_req *req);
void ctl_dht_list(struct ctl_req *req);
void ctl_dht_peers(struct ctl_req *req);
void ctl_dht_status(struct ctl_req *req);
void ctl_dht_why(struct ctl_req *req);
void ctl_dht_full(struct ctl_req *req);
void ctl_dht_watch(struct ctl_req *req);
void ctl_entry_get(struct ctl_req *req);
void ctl_entry_publish(struct ctl_req *req);
void ctl_dial(struct ctl_req *req);
void ctl_listen(struct ctl_req *req);
void ctl_ping(struct ctl_req *req);
void ctl_ip(struct ctl_req *req);
void ctl_forward(struct ctl_req *req);
void ctl_session(struct ctl_req *req);
void ctl_config(struct ctl_req *req);
void ctl_sessions_free(struct node *n);
/* ctl_forward.c: a fresh path for a socket that leads to streams. */
int node_forward_path(struct node *n, char path[PATHS_MAX]) __attribute__((warn_unused_result));
/* A report of the engine for an operation that a request waits for. */
const char *ctl_end_name(enum kad_end end);
json_t *ctl_key_json(const struct pubkey *pk);
json_t *ctl_id_json(const struct kad_id *id);
/* How look-ups of entries ended: cache, dht, http, miss. */
json_t *ctl_lookups_json(struct node *n);
bool ctl_report(struct node *n, const struct kad_report *r);
/* The entry may have been published. */
void ctl_publish_check(struct node *n);
void ctl_operations_free(struct node *n);
void ctl_pings_free(struct node *n);

/* facade.c. Zeros: there is none. */
void facade_stat(const struct node *n, struct face_stat *out);

/* push.c. Offer everything that is live in the store. */
void push_all(struct node *n);
/* False, and zeros: it is not done. */
bool push_stat(const struct node *n, struct pusher_stat *out);

/* servers.c: which relays this node holds sessions to. */
void servers_init(struct node *n);
void servers_free(struct node *n);
/* Become a full node or a regular one while running; the store's default budget changes along. ERR_BUSY:
 * other full nodes share the store, which regular ones never do. */
int node_set_full(struct node *n, bool full);

/* An address of the configuration: stays beside what the server publishes. */
void servers_seed(struct node *n, const struct pubkey *pk, const char *addr);
/* A server's address became known (record under "dmsg-server", entry with a server half). */
void servers_learn(struct node *n, const struct pubkey *pk, const char *addr);
/* The same from something signed at this wall clock time: what is older than what is known changes nothing. */
void servers_learn_at(struct node *n, const struct pubkey *pk, const char *addr, int64_t wall_ns);
/* Every relay that is known, this node's own too. */
void servers_each(struct node *n, void (*fn)(void *arg, const struct pubkey *pk, const char *addr),
                  void *arg);
/* Entries of all servers that the discovery has. */
void servers_listed(struct node *n, struct entry *const *list, size_t count);
/* The local store accepted a record: perhaps a relay's. */
void servers_stored(struct node *n, const struct store_rec *rec);
void servers_tick(struct node *n);
/* The client's find_server hook. */
void servers_find(void *arg, const struct pubkey *server);
/* A DHT peer that may hold everything: a bootstrap node, or any; false when there is none. */
bool servers_full_peer(struct node *n, struct pubkey *out);
bool servers_report(struct node *n, const struct kad_report *r);
