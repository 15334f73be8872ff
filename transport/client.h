/*
 * client - a key's presence on the network: sessions to relays, listening ports, dialled streams
 * (docs/protocol/dmsg.md §4, §5.4-5.6).
 *
 * Sessions. Of the servers that it was given (client_add_server) the client holds `want` sessions,
 * most wanted first, and opens more when a destination needs one; those are closed again when they
 * were not used for 2 minutes. want = 0 means one thing: all of them are held; what was opened for a
 * destination beyond these is closed all the same (incident 10). A lost session is dialled again
 * after anything up to 0.5 s, 1 s … 8 s (a minute when the server was not up in the last 10; reset after 2 s of
 * life), so that a server that comes back is found within 10 s; after two failed tries
 * another server is held in its place, and one that is up is never given up for another (incidents
 * 11, 13). An intentionally closed session is not dialled again (incident 9). One dial at a time per
 * server key (incident 12). Who is closed by the server within 45 s of coming up, several times in a
 * row, has a twin (another program with this key; the newest session wins) and waits 30 s … 10 min,
 * with a warning (incident 3). hooks->sessions_changed tells, once a turn, that the verified set
 * changed: client_delegated() is what the published entry is derived from.
 *
 * Addresses. A server has up to 4: they are dialled 300 ms apart, the one that worked last first,
 * and the first that connects and proves the key gets the session.
 *
 * Liveness. At the start of a session and each minute in which no stream moved a stream is opened
 * with the ping marker (§3.5); two answers in a row that did not come within 18 s end the session
 * (incidents 5, 6). Servers of 2023 do not echo: there it is enough that they accept the stream.
 * A dial that hears nothing for 750 ms has the session pinged: while that is not answered (1.5 s)
 * dials use all others first, after 10 s it is lost. client_reprobe() asks all of them, with 7 s.
 *
 * A server of 2023 drops a session whose first mux bytes it reads together with the last handshake
 * message. We wait hold_ms in between; when the session is closed before a byte came, 180 and then
 * 500 ms for this server, and what had asked for the session asks again.
 *
 * Dialling PK:port:  1. what led there last; then sessions that are up to a server the destination
 * delegates to, or to the destination itself if it is a server
 *                    2. other sessions that are up (the server mesh), 2 of them
 *                    3. new sessions to its delegated servers, 2 of them (before 2 in direct mode)
 *                    4. 2 more sessions that are up, 6 more new ones
 *                    5. sessions of which it is doubtful whether they live
 * One follows the other at once when it failed, and when it has been silent for 750 ms (250 ms for
 * a connect) without giving up the silent one. The first signed answer of the destination decides. A
 * server that said nothing while another way led there is not asked for others' destinations for 2
 * minutes, but behind new sessions (incident 28).
 * Each attempt has attempt_ms (5 s; 20 s towards servers of 2023 is reached by the whole timeout);
 * every attempt is a step in the report (server, phase, reason, ms), which is what `dht why` and
 * error messages show. Where the destination is, is asked of hooks->resolve; a failed dial calls
 * hooks->distrust once and asks again with CLIENT_RESOLVE_FRESH before it gives up. The static table
 * of direct mode (client_add_route) is asked first, and a key that is a server with a session needs
 * no look-up. A destination that could not be reached is left alone for 2 s, 6 s … 60 s: dials then
 * end at once with the last error, and afterwards one of them tries for all (incident 35). Its own
 * refusal, or the end of the caller's time, counts as no failure.
 *
 * Errors of a dial: the destination's own refusal (306, 401 …), the look-up's error, ERR_TIMEOUT when
 * everything timed out, ERR_NO_ROUTE when there was nobody to ask, else 202; the steps say more.
 *
 * Listening. client_listen(port): accepted streams come by callback; up to `backlog` (256) streams
 * may be in set-up at once per port, beyond it the dialer gets a signed refusal 401. A request for
 * a port without listener gets a signed refusal 306. One bad stream never ends the session
 * (incident 8). Set-up of an incoming stream has 5 s.
 *
 * Ports. Ephemeral ports 49153 … 65535, 49152 …; owned by the stream object and freed with it, on
 * every exit (incident 17).
 *
 * Callbacks come from the loop only. Threads: one. client_free() closes all sessions and frees all
 * streams without a callback: users close their streams before, or drop their pointers.
 *
 *     client_new(&c, &cfg);  client_add_server(c, &relay_pk, "127.0.0.1:8081");
 *     client_listen(c, 80, on_accept, arg);
 *     client_dial(c, &pk, 80, 20000, 0, &cb, arg, &st);
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/env.h"
#include "base/loop.h"
#include "transport/conn.h"
#include "transport/link.h"
#include "transport/stream.h"

struct client;

#define CLIENT_ADDRS_MAX 4 /* of one server */

struct client_route { /* where a key can be reached */
    struct pubkey servers[16];
    size_t n_servers;
};

enum client_flags {
    /* the look-up of the destination must not ask the network: dials of the DHT itself. Not found
     * then means: try the sessions that are up */
    CLIENT_DIAL_LOCAL = 1,
    /* to hooks->resolve only */
    CLIENT_RESOLVE_FRESH = 2,
    /* somebody wants to know: try also what failed lately */
    CLIENT_DIAL_NOW = 4,
};

struct client_hooks {
    void *arg;
    /* Find the delegated servers of pk. Answer later, or at once from inside, with
     * client_resolved(c, ticket, …). flags: CLIENT_RESOLVE_FRESH (cached copies failed),
     * CLIENT_DIAL_LOCAL (as given to client_dial). */
    void (*resolve)(void *arg, uint64_t ticket, const struct pubkey *pk, unsigned flags);
    void (*resolve_cancel)(void *arg, uint64_t ticket);
    /* Find the address of a server key that the client has none for. Answer with
     * client_server_found(). */
    void (*find_server)(void *arg, const struct pubkey *server);
    void (*distrust)(void *arg, const struct pubkey *pk); /* dials by this entry failed */
    void (*sessions_changed)(void *arg);
};

struct client_cfg {
    struct env *env;
    struct loop *loop;
    struct bufpool *pool;
    struct carrier *carrier;
    struct pubkey self;
    struct seckey sk;          /* copied, wiped on free */
    struct client_hooks hooks; /* NULL members: not used */
    unsigned want;             /* sessions to hold; 0 = all that were added */
    unsigned max_sessions;     /* 64 */
    unsigned max_streams;      /* 16 384 */
    unsigned backlog;          /* 256 */
    unsigned attempt_ms;       /* 5 000 */
    unsigned connect_ms;       /* 10 000: TCP connect; + 5 000 handshake */
    unsigned hold_ms;          /* session.h; 60 */
    bool no_probes;            /* sessions are not asked whether they live: replays */
};

int client_new(struct client **out, const struct client_cfg *cfg)
    __attribute__((warn_unused_result));
void client_free(struct client *c);

/* Hold a session to this server (idempotent; a new address replaces the old one). addr "host:port".
 */
int client_add_server(struct client *c, const struct pubkey *pk, const char *addr);
/* The same with all its addresses, 1 … CLIENT_ADDRS_MAX, best first. */
int client_add_server_addrs(struct client *c, const struct pubkey *pk, const char *const *addrs,
                            size_t n);
/* The machine was suspended, its clock jumped, or its network changed: ask all sessions whether they
 * live, dial within a second what is not up, forget what failed (incidents 89, 90). */
void client_reprobe(struct client *c);
/* An already open pipe to a server (a node to its own relay): used once, when it ends the address,
 * if any, is dialled. */
int client_attach(struct client *c, const struct pubkey *pk, struct conn *conn);
void client_remove_server(struct client *c, const struct pubkey *pk);
/* Direct mode: pk is reached through server, without look-up. */
int client_add_route(struct client *c, const struct pubkey *pk, const struct pubkey *server);

void client_resolved(struct client *c, uint64_t ticket, int err, const struct client_route *route);
void client_server_found(struct client *c, const struct pubkey *server, int err, const char *addr);

/* Accept streams on a port. on_accept gets an open stream and must set callbacks or close it. port
 * 0 takes a free ephemeral one. Returns the port or an error: ERR_DMSG_PORT_OCCUPIED. */
typedef void client_accept_fn(void *arg, struct stream *st);
int client_listen(struct client *c, uint16_t port, client_accept_fn *on_accept, void *arg);
void client_unlisten(struct client *c, uint16_t port);

/* Start a dial. The stream exists at once (for cancel by stream_close); cb->opened or cb->ended
 * follows. timeout_ms bounds everything. Immediate errors: ERR_LIMIT (ports or streams), ERR_NOMEM,
 * ERR_KEY, ERR_DMSG_REQ_DST_PORT (port 0). */
int client_dial(struct client *c, const struct pubkey *pk, uint16_t port, unsigned timeout_ms,
                unsigned flags, const struct stream_cb *cb, void *arg, struct stream **out)
    __attribute__((warn_unused_result));
/* Right behind client_dial(): only through this server, whatever the destination's entry says. Failing says nothing about the destination. */
void client_dial_through(struct stream *st, const struct pubkey *server);

/* IP look-up through any session that offers it (§6.1). done(arg, err, ip, 4|16, server). */
typedef void client_ip_fn(void *arg, int err, const uint8_t *ip, size_t n,
                          const struct pubkey *server);
int client_lookup_ip(struct client *c, unsigned timeout_ms, client_ip_fn *done, void *arg);
/* The same through one server; NULL = any. ERR_NOT_FOUND: no session to it. */
int client_lookup_ip_at(struct client *c, const struct pubkey *server, unsigned timeout_ms,
                        client_ip_fn *done, void *arg);

/* Have a session to this server now, whatever failed a moment ago; its address comes from client_add_server() or is
 * asked of hooks->find_server. It is no session to hold: unused it is closed after a while. done(arg, r) comes from
 * the loop, once; r is valid during the call. ERR_NOMEM, ERR_LIMIT (too many servers). */
enum client_connect_phase {
    CLIENT_CONNECT_FIND, /* its address */
    CLIENT_CONNECT_TCP,
    CLIENT_CONNECT_HANDSHAKE,
    CLIENT_CONNECT_UP,
};
struct client_connect_report {
    int err;                         /* 0 = there is a session */
    enum client_connect_phase phase; /* in which it failed; UP when it did not */
    bool existed;                    /* it was there before */
    char addr[CONN_ADDR_MAX];        /* "" = never known */
    uint64_t find_ns, tcp_ns, handshake_ns,
        total_ns; /* how long each phase took; 0 = not entered */
};
typedef void client_connect_fn(void *arg, const struct client_connect_report *r);
int client_connect(struct client *c, const struct pubkey *server, unsigned timeout_ms,
                   client_connect_fn *done, void *arg) __attribute__((warn_unused_result));

/* Session ping through yamux to a server with a live session. done(arg, err, rtt_ns). */
typedef void client_ping_fn(void *arg, int err, uint64_t rtt_ns);
int client_ping_server(struct client *c, const struct pubkey *server, unsigned timeout_ms,
                       client_ping_fn *done, void *arg);

enum client_phase {
    CLIENT_PHASE_RESOLVE,
    CLIENT_PHASE_EXISTING,
    CLIENT_PHASE_CONNECT,
    CLIENT_PHASE_MESH,
    CLIENT_PHASE_BACKOFF, /* not tried: it failed lately, err is that failure */
};

struct client_step { /* one thing that was tried by a dial */
    enum client_phase phase;
    struct pubkey server; /* null for RESOLVE */
    int err;              /* 0 = worked */
    uint32_t ms;
    char addr[CONN_ADDR_MAX];
};
/* Steps of a stream's dial, oldest first; valid while the stream is. At most 48 are kept. */
const struct client_step *stream_dial_steps(const struct stream *st, size_t *n);
/* "existing 02ab…: timed out after 5000 ms; connect 03cd… 127.0.0.1:9: connection refused after 0 ms" */
void client_steps_text(const struct client_step *steps, size_t n, char *out, size_t cap);

struct client_session_info {
    struct pubkey server;
    char addr[CONN_ADDR_MAX];
    bool up;
    uint64_t up_ns, rtt_ns, heard_ns, next_dial_ns;
    unsigned streams, failures;
    int last_err;
};
/* Copies up to cap; returns how many there are. */
size_t client_sessions(const struct client *c, struct client_session_info *out, size_t cap);
/* Servers with a verified session, for the entry. */
size_t client_delegated(const struct client *c, struct pubkey *out, size_t cap);

struct client_stat {
    size_t sessions_up, sessions, streams, ports, listeners; /* gauges */
    size_t destinations; /* that are remembered: failed ones, and ways to others */
    uint64_t dials, dial_ok, dial_failed, accepted, refused, bad_objects, resolves, session_lost,
        twin_evictions;
};
void client_stat(const struct client *c, struct client_stat *out);
