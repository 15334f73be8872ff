/*
 * client_int - what the files of the client share. Private to them.
 *
 *     client.c          the client itself, its ports and listeners, what can be looked into
 *     client_session.c  servers: which sessions to hold, back-off, twins
 *     client_reach.c    a server's addresses, and dialling it by them
 *     client_live.c     liveness of the sessions that are up
 *     client_dial.c     the ladder of one dialled stream
 *     client_dest.c     memory of destinations: what failed lately, which server led there
 *     client_steps.c    the report of a dial
 *     client_ask.c      one signed request and its answer on one session (dial, IP look-up)
 *     client_ip.c       IP look-up and ping
 *     client_connect.c  a session on demand, and the report of its making
 *     stream_setup.c    the responder's side of stream set-up
 *     stream.c          an open stream: data, half-close, end
 *
 * Users' functions are called from loop tasks only, and nothing of the client is touched behind
 * such a call but the object whose task it is: memory of streams, servers and the client itself
 * goes in the reap task. So a user may close anything, the client included, from its functions.
 */
#pragma once

#include "base/env.h"
#include "base/list.h"
#include "base/log.h"
#include "base/map.h"
#include "transport/client.h"
#include "transport/noise.h"
#include "transport/noise_cache.h"
#include "transport/objects.h"
#include "transport/record.h"

#define CLIENT_PORT_FIRST 49152u /* of the ephemeral ones */
#define CLIENT_STEPS_MAX  48u
#define HOLD_LEVEL_MAX    2u    /* the hold is made longer so often */
#define CLIENT_SETUP_MS   5000u /* an incoming stream's whole set-up (§4.7) */

/* ---- what uses a yamux stream of a session ---- */

struct cserver;

struct endpoint {
    /* News (YAMUX_…). With YAMUX_RESET the yamux stream is already given back, err says why. */
    void (*event)(struct endpoint *e, unsigned what, int err);
    struct cserver *server;
    struct yamux_stream *mux; /* NULL: none, or none any more */
    struct list_node node;    /* in server->endpoints while mux is there */
    bool probe;               /* of client_live.c: does not count as use of the session */
};

void endpoint_attach(struct endpoint *e, struct cserver *s, struct yamux_stream *mux);
/* The yamux stream changes its user. */
void endpoint_move(struct endpoint *to, struct endpoint *from);
/* Give the yamux stream back, in order (linger) or by reset; harmless when there is none. */
void endpoint_release(struct endpoint *e, bool linger);
/* Something was written, read or asked for. */
void endpoint_kick(struct endpoint *e);

/* ---- servers ---- */

enum cserver_state {
    CSERVER_DOWN,
    CSERVER_FINDING, /* its address */
    CSERVER_DIALLING,
    CSERVER_HANDSHAKE,
    CSERVER_UP,
};

struct cserver_waiter { /* somebody who needs the session */
    void (*done)(struct cserver_waiter *w, int err);
    struct list_node node;
};

struct cserver_addr {
    struct cserver *server;
    char text[CONN_ADDR_MAX];
    struct conn *conn; /* being connected */
    bool failed;       /* in this round of dials */
    bool worked;       /* the last session came by this one: tried first */
};

struct liveness { /* client_live.c */
    struct endpoint end;
    struct loop_timer timer;
    uint64_t asked_ns; /* when the echo was asked for, 0 = nothing is under way */
    uint64_t proof_ns; /* when the server has last served a stream */
    uint64_t doubt_ns; /* when it was asked because it was silent, 0 = no doubt */
    uint64_t limit_ns; /* then it is given up, if it is silent until then */
    unsigned missed;   /* echoes in a row */
    bool offered;      /* it has echoed before: not every server does */
    bool answered;     /* the stream was accepted, or answered in another way */
};

struct cserver {
    struct client *client;
    struct pubkey pk;      /* key in client->servers */
    struct list_node node; /* in client->order, as they were added; or client->dead_servers */
    struct cserver_addr addrs[CLIENT_ADDRS_MAX];
    size_t n_addrs;
    char addr[CONN_ADDR_MAX]; /* of the session, or what was tried last */
    enum cserver_state state;
    bool wanted;   /* given by client_add_server() or client_attach() */
    bool held;     /* one of the sessions to hold: dialled again when lost */
    bool away;     /* it has sent go-away: no new streams */
    bool attached; /* the present session is a pipe of client_attach() */
    struct link *link;
    struct liveness live;
    struct list endpoints, waiters, pings;
    unsigned n_endpoints, failures, evictions, hold_level;
    int last_err;
    uint64_t up_ns, next_dial_ns, failed_ns, unused_ns;
    uint64_t was_up_ns; /* last; 0 = never. How patient the back-off is */
    uint64_t mute_ns;   /* until then it is no way to destinations of other servers */
    uint64_t try_ns;    /* when the last try began */
    uint64_t since_ns[CSERVER_UP + 1]; /* when each state was entered last */
    enum cserver_state failed_in;      /* where the last try ended */
    struct loop_task find_task;
    struct loop_timer timer; /* limit of FINDING; then, when to try the next address too */
    struct log_limit warn;
};

struct cserver *cserver_get(const struct client *c, const struct pubkey *pk);
/* The same, made when it is not there. NULL: no memory, or too many. */
struct cserver *cserver_make(struct client *c, const struct pubkey *pk);
static inline bool cserver_usable(const struct cserver *s)
{
    return s->state == CSERVER_UP && !s->away;
}
/* Needs the session: 0 it is there, ERR_PENDING w->done comes, or why it can't be had. */
int cserver_need(struct cserver *s, struct cserver_waiter *w) __attribute__((warn_unused_result));
void cserver_forget(struct cserver_waiter *w);
/* The last failure does not count: the next one who needs the session dials. */
void cserver_retry(struct cserver *s);
/* Close its session and everything on it, without dialling again. */
void cserver_close(struct cserver *s, int err);
/* Forget it; it is DOWN and nobody needs it. */
void cserver_drop(struct cserver *s);
/* Look over all servers at the end of this turn. */
void client_reconcile(struct client *c);
void client_reconcile_task(struct loop_task *t);
void client_reconcile_timer(struct loop_timer *t);
/* Usable sessions: those without doubt first, then the fastest. Returns how many were written. */
size_t client_usable(const struct client *c, struct cserver **out, size_t cap);

/* The dial of a server, or its handshake, has failed. */
void cserver_dial_failed(struct cserver *s, int err);
void cserver_session_lost(struct cserver *s, int err);
void cserver_state_set(struct cserver *s, enum cserver_state state);
/* Handshake over this pipe; takes it over. */
int cserver_handshake(struct cserver *s, struct conn *conn) __attribute__((warn_unused_result));

/* ---- a server's addresses ---- */

/* Dial it: by its addresses, or by one that is asked for. Ends in cserver_handshake() or in
 * cserver_dial_failed(), also at once. */
void reach_start(struct cserver *s);
void reach_stop(struct cserver *s);
/* The handshake over the address that answered first failed: go on with the next one. */
void reach_failed(struct cserver *s, int err);
/* A session came up by s->addr. */
void reach_worked(struct cserver *s);
void reach_init(struct cserver *s);
/* True when one of them is new. */
bool reach_set(struct cserver *s, const char *const *addrs, size_t n);

/* ---- liveness ---- */

void live_init(struct cserver *s);
void live_start(struct cserver *s); /* its session is up */
void live_stop(struct cserver *s);
/* The server has answered a ping, or (stream) served one of our streams or opened one. */
void live_heard(struct cserver *s, bool stream);
/* Something went unanswered: ask now, and give the session up if nothing is heard for limit_ns. */
void live_doubt(struct cserver *s, uint64_t limit_ns);
/* It was asked, and has been silent since. */
bool live_doubtful(const struct cserver *s);

/* ---- ping and IP look-up ---- */

void cserver_pong(struct cserver *s, int err, uint64_t rtt_ns);
void client_lookups_free(struct client *c);
void client_connects_free(struct client *c);

/* ---- one request on one session ---- */

struct ask {
    struct endpoint end;
    struct client *client;
    void (*done)(struct ask *a, int err); /* set by the owner; err as ask_start() says */
    struct pubkey signer;                 /* of the answer */
    const uint8_t *req;                   /* the signed object; the owner's */
    size_t req_n;
    const struct hash *req_hash; /* the owner's */
    struct pk_wait wait;
    struct loop_timer timer;
    bool written, answered;
    bool refused; /* the signer has refused it, err is its reason */
    int verdict;
    uint8_t noise[OBJECT_NOISE_MAX]; /* of the answer */
    size_t noise_n;
    uint8_t ip[16];
    size_t ip_n;
};

/* Send the request; signer, req, req_hash and done are set. done() comes once, from the loop: 0 =
 * accepted (the endpoint is open, the owner takes or releases it), or an error (it is released):
 * ERR_TIMEOUT, ERR_EOF (closed without an answer), a reset, a bad answer, a refusal. An error
 * returned here means no done(). */
int ask_start(struct ask *a, struct cserver *s, unsigned timeout_ms)
    __attribute__((warn_unused_result));
void ask_cancel(struct ask *a);

/* ---- streams ---- */

enum stream_state {
    STREAM_DIALLING,
    STREAM_ACCEPTING,
    STREAM_OPEN,
    STREAM_CLOSING, /* given back by its user, sealed bytes still wait for room */
    STREAM_DEAD,    /* ended, and not yet given back */
    STREAM_FREE,    /* in client->dead_streams */
};

struct dial;
struct setup;

struct stream {
    struct endpoint end;
    struct client *client;
    enum stream_state state;
    struct stream_cb cb;
    void *arg;
    struct pubkey remote, via;
    uint16_t remote_port, local_port;
    bool port_owned;
    bool eof;        /* FIN at a frame border */
    bool fin_wanted; /* FIN follows what is in out */
    bool short_write;
    uint8_t news; /* STREAM_NEWS_…, delivered by task */
    int err;
    struct loop_task task;
    struct loop_timer timer; /* set-up; then idle, or a pause without buffers */
    struct list_node node;   /* in client->streams */
    struct cipher tx;
    struct record_reader rx;
    struct bufq wire;  /* received, not yet opened */
    struct bufq plain; /* opened, not yet read */
    struct bufq out;   /* sealed, no window yet; less than a frame */
    uint64_t idle_ns, moved_ns, rest_ns;
    uint64_t bytes_in, bytes_out;
    struct dial *dial;   /* DIALLING */
    struct setup *setup; /* ACCEPTING */
    struct client_step *steps;
    size_t n_steps;
};

enum stream_news {
    STREAM_NEWS_ACCEPTED = 1,
    STREAM_NEWS_OPENED = 2,
    STREAM_NEWS_READABLE = 4,
    STREAM_NEWS_WRITABLE = 8,
    STREAM_NEWS_ENDED = 16,
};

/* NULL: limit or memory. */
struct stream *stream_new(struct client *c, enum stream_state state);
/* Set-up is done, the endpoint is attached. */
void stream_open(struct stream *st, struct noise *noise, enum stream_news how);
/* The stream is dead; its user is told. */
void stream_fail(struct stream *st, int err);
/* Nobody knows it (any more): give everything back. */
void stream_drop(struct stream *st, bool linger);
void stream_idle_arm(struct stream *st);
void stream_free(struct stream *st); /* memory; by the reap task */

/* ---- set-up ---- */

/* A stream of the server. False: refused, mux is gone. */
bool setup_start(struct cserver *s, struct yamux_stream *mux);
void setup_event(struct stream *st, unsigned what);
void setup_free(struct stream *st);
void setup_timeout(struct stream *st);

void dial_tickets_init(struct client *c);
int dial_new(struct stream *st, unsigned flags);
void dial_free(struct stream *st);
/* The time of the caller is over. */
void dial_timeout(struct stream *st);
void stream_step_add(struct stream *st, enum client_phase phase, const struct pubkey *server,
                     const char *addr, int err, uint64_t began_ns);

/* ---- memory of failed dials ---- */

struct destination { /* a key that could not be reached lately */
    struct pubkey pk;
    unsigned failures;
    uint64_t until_ns;
    int err;
    const struct dial *probe; /* the one dial that may try */
    bool local;               /* found by a dial that may not ask the network: only those wait */
};

/* 0, and nobody else may until client_dest_release(); or the last error: it is too soon, or
 * somebody is finding out. */
int client_dest_allows(struct client *c, const struct pubkey *pk, const struct dial *who,
                       bool local);
void client_dest_release(struct client *c, const struct pubkey *pk, const struct dial *who);
void client_dest_failed(struct client *c, const struct pubkey *pk, int err, bool local);
void client_dest_reached(struct client *c, const struct pubkey *pk);
/* Sessions are there again after there were none: what failed meanwhile says nothing. */
void client_dests_forget(struct client *c);

struct way { /* the server that has led to a key last */
    struct pubkey pk, server;
    struct list_node node; /* in client->way_ages, oldest first */
};

void client_way_set(struct client *c, const struct pubkey *pk, const struct pubkey *server);
/* NULL: none is known. */
const struct pubkey *client_way(const struct client *c, const struct pubkey *pk);
/* It did not lead there any more. */
void client_way_failed(struct client *c, const struct pubkey *pk, const struct pubkey *server);
void client_ways_free(struct client *c);

/* ---- listeners ---- */

struct listener {
    uint16_t port;
    client_accept_fn *fn;
    void *arg;
    unsigned setups; /* streams in set-up */
    uint64_t serial; /* tells it from a later one on the same port */
};

struct listener *client_listener(const struct client *c, uint16_t port);
int client_port_take(struct client *c, uint16_t *port); /* an ephemeral one */
void client_port_give(struct client *c, uint16_t port);

/* ---- the client ---- */

struct static_route {
    struct pubkey pk;
    struct client_route route;
};

struct client {
    struct client_cfg cfg;
    struct map servers; /* struct cserver by pk */
    struct list order;  /* the same, as they were added */
    struct map routes;  /* struct static_route by pk */
    struct map dests;   /* struct destination by pk */
    struct map ways;    /* struct way by pk */
    struct list way_ages;
    struct map listeners; /* struct listener by port */
    struct map tickets;   /* struct dial that waits for a look-up, by ticket */
    struct list streams, lookups, pongs, connects;
    unsigned n_lookups;
    struct list dead_streams, dead_servers;
    struct noise_cache *cache;
    uint8_t *scratch; /* SESSION_OBJECT_MAX, for one object at a time */
    uint8_t ports[65536 / 8];
    uint16_t last_port;
    unsigned active; /* servers that are not DOWN */
    unsigned setups; /* incoming streams in set-up */
    uint64_t next_ticket, next_serial;
    bool freeing;
    struct loop_task reap_task, reconcile_task, changed_task;
    struct loop_timer reconcile_timer;
    struct client_stat stat;
};

void client_reap(struct client *c); /* at the end of the turn */
void client_changed(struct client *c);
/* Read one object of an endpoint into c->scratch. As session_read_object(); the marker is
 * ERR_DMSG_OBJECT. */
int client_read_object(struct client *c, struct endpoint *e, size_t *n)
    __attribute__((warn_unused_result));
/* Check the signature of the object in c->scratch. As env_pk(). */
int client_verify_scratch(struct client *c, struct pk_wait *w, const struct pubkey *pk, size_t n)
    __attribute__((warn_unused_result));
/* Sign an encoded object with the client's key, then object_set_sig() with w->res.sig. */
int client_sign(struct client *c, struct pk_wait *w, const uint8_t *obj, size_t n)
    __attribute__((warn_unused_result));
/* A KK handshake with remote. */
int client_noise(struct client *c, struct noise *n, bool initiator, const struct pubkey *remote,
                 void (*on_ready)(struct noise *n, int rc)) __attribute__((warn_unused_result));
static inline uint64_t client_now(const struct client *c)
{
    return c->cfg.loop->now_ns;
}
