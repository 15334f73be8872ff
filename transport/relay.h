/*
 * relay - the server side: sessions of many keys, and bridges between their streams
 * (docs/protocol/dmsg.md §3.4, §4, §6; design §5).
 *
 * The relay accepts links (relay_accept), keeps one session per key (newest wins, the old one is
 * closed; removal compares the session, not the key), reads the first object of every stream its
 * clients open, and either answers it itself (ping marker, IP look-up) or forwards it, unchanged
 * and re-sealed, to the session of the destination key; when the destination's signed response has
 * come back and is right, the two yamux streams become a bridge.
 *
 *     stream of A:  OBJECT    5 s for the whole object or marker
 *                   CHECK     token bucket, fields, then one signature
 *                   FORWARD   5 s for B's response and its signature
 *                   BRIDGE    bytes both ways
 *     any failure:  the stream is closed at once; a correctly signed refusal of B is passed on first
 *
 * Bridge: payload moves from one mux to the other without copy; credit is granted to the sender
 * only as the other side drains. FIN is passed per direction. After the first one the other
 * direction goes on until it ends too; when nothing moved for drain_ms meanwhile, RST on both
 * sides. When a whole side has ended (reset, session lost) the other is reset at once. A bridge
 * silent in both directions for idle_ms is reset. One object, one teardown (incident 16).
 *
 * Byte budgets: received and not yet drained bytes count per session (4 MiB) and in total (256
 * MiB). Above the session's budget its streams are reset that have not moved for 3 s, stalled
 * longest first (counted); streams that move are let be, for a sender with many of them fills their
 * windows in no time. At four times the budget the session's socket is stopped until half of that
 * is drained. Above the total the session that holds most loses its longest stalled streams, young
 * or old. What waits for a socket to take it is bounded by the mux (out_high) and, in all, by the
 * pool's own budget.
 *
 * Streams to keys that have no session here are forwarded over other relays, at most two in all.
 * With cfg.carrier the relay dials those of cfg.peers and relay_mesh_found(), announces itself to
 * them, and serves these links in both directions; others may do the same to it (mesh.h).
 *
 * A stream to the relay's own key is bridged to the relay's own local client if one is attached
 * under the same key (relay_accept with local = true: the node's DHT listener, port 100), an IP
 * look-up is answered here, everything else is closed.
 *
 * Limits: what guard.h counts before anything is computed for a stranger (links, handshakes pending
 * and per second, in all and per address; streams in all; which keys may come in), streams per
 * session, SYNs per session per second, size of a set-up object (RELAY_OBJECT_MAX), all counted.
 * Bandwidth, off by default: bytes per second that one key brings in, and in all; streams wait for
 * their turn then, keys share equally. A peer can never end another one's session. Threads: one
 * relay belongs to one loop; several share a guard. Errors of peers are counters and debug lines.
 *
 * Workers: relays of one crew (crew.h) are one server on several threads. A connection may be accepted
 * by any of them; when its handshake is over the session moves to the home of its key (cfg.move). To
 * each other they are connected by trunks: sessions between the same two ends, without handshake,
 * whose streams carry what the workers relay for each other.
 *
 *     A --- home of A ===trunk=== home of B --- B
 *
 * The home of A judges the request, B's finds the session (or leads the search in the mesh), and both
 * have a bridge; of a stream, only the one that A's session is part of counts and watches time.
 *
 *     relay_new(&r, &cfg);
 *     drive_tcp_listen(tcp, "0.0.0.0:8081", on_accept, r, &listener);
 *     static void on_accept(void *r, struct conn *conn) { relay_accept(r, conn, false); }
 *     relay_free(r);
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/env.h"
#include "base/loop.h"
#include "transport/conn.h"
#include "transport/crew.h"
#include "transport/guard.h"
#include "transport/link.h"

/* Largest plaintext of a request or response that is forwarded. Real ones have 350 to 1 600 bytes;
 * each holds memory while its set-up lasts. */
#define RELAY_OBJECT_MAX 8192u

struct relay;

struct relay_server { /* another relay */
    struct pubkey pk;
    char addr[CONN_ADDR_MAX]; /* "host:port" */
};

/* A session between two workers. */
struct relay_move {
    struct session_state state;
    struct guard_addr *addr;
};

struct relay_cfg { /* 0 = default */
    struct env *env;
    struct loop *loop;
    struct bufpool *pool;
    struct pubkey self;
    struct seckey sk;    /* copied, wiped on free */
    struct guard *guard; /* shared with other relays, outlives this one. NULL: one of its own */
    struct guard_cfg guard_cfg; /* of its own guard; hash_key is filled in */
    uint64_t key_bytes_per_s; /* that one key may bring in, a relay ten times that; 0 = no limit */
    uint32_t max_streams;     /* per session, 2 048 */
    uint32_t syn_per_s;       /* per session, 200; twenty seconds of it may come at once */
    uint64_t session_budget;  /* 4 MiB */
    uint64_t total_budget;    /* 256 MiB */
    uint32_t handshake_ms;    /* 5 000, from the connection to message 3 */
    uint32_t object_ms;       /* 5 000 */
    uint32_t response_ms;     /* 5 000 */
    uint32_t drain_ms;        /* 30 000 */
    uint32_t idle_ms;         /* 300 000 */
    /* mesh; lists are copied */
    struct carrier *carrier; /* dials other relays; NULL: none are dialled */
    const struct relay_server *peers;
    size_t n_peers;
    const struct pubkey *accepted; /* not empty: only these and cfg.peers are taken for relays */
    size_t n_accepted;
    bool accept_relayed;  /* take requests of foreign sources from clients too */
    uint32_t max_peers;   /* that announced themselves, 512 */
    uint32_t max_relayed; /* streams over the mesh, 4 096; a quarter of them per key */
    /* workers */
    struct crew *crew; /* shared, outlives this relay; NULL: it is alone */
    unsigned index;    /* of this relay in it */
    /* With a crew of several: give conn and m to that member, on its thread: relay_arrive(). Takes
     * both over. */
    void (*move)(void *arg, unsigned member, struct conn *conn, struct relay_move *m);
    /* optional: the set of client sessions changed (published entry, status). It may not free the
     * relay. */
    void (*changed)(void *arg);
    void *arg;
};

int relay_new(struct relay **out, const struct relay_cfg *cfg) __attribute__((warn_unused_result));
/* Closes all sessions. Their links go at the end of the turn (link.h): run one before loop, pool or
 * env are closed. Not from inside changed(). */
void relay_free(struct relay *r);

/* Take over an accepted connection. local: a pipe inside this process (own client), which no limit
 * holds for. Over a limit: closed at once, counted. */
void relay_accept(struct relay *r, struct conn *conn, bool local);
/* The guard's lists of keys have changed: sessions of keys that may not come in any more end. */
void relay_recheck(struct relay *r);
/* Conn is what is left of the one that cfg.move() got. */
void relay_arrive(struct relay *r, struct conn *conn, struct relay_move *m);
/* It cannot be given to anybody: its conn is closed by the caller. */
void relay_move_drop(struct guard *g, struct relay_move *m);
/* The session to another member, over a pipe inside the process. Both ends get states of one pair of
 * keys (relay_trunk_keys), wiped in every case. To be done before anything is accepted; when it ends,
 * all streams over it end too and nothing takes its place. 0 or ERR_NOMEM: conn closed. */
int relay_trunk(struct relay *r, unsigned member, struct conn *conn, struct session_state *st)
    __attribute__((warn_unused_result));
void relay_trunk_keys(struct env *env, struct session_state *a, struct session_state *b);
/* No new sessions and streams, pending handshakes end; existing ones go on (graceful stop). */
void relay_drain(struct relay *r);

struct relay_stat {                                 /* uint64_t all of them: relay_stat_add() */
    uint64_t sessions, handshakes, bridges, setups; /* gauges */
    uint64_t buffered;                              /* bytes received and not drained */
    uint64_t accepted, handshake_failed, refused_limit, replaced;
    uint64_t moved; /* sessions that went to another worker behind their handshake */
    uint64_t streams, stream_ok, stream_failed,
        refused_by_code[16]; /* why stream_failed: index by relay_code_index() */
    uint64_t stopped;        /* times that a socket was not read for the sake of the budget */
    uint64_t throttle_waits; /* gauge: streams that wait for their share of the bandwidth */
    uint64_t throttled;      /* times that one had to */
    uint64_t refused_key, closed_key; /* sessions of keys that may not come in */
    uint64_t resets_budget, resets_idle, resets_drain, syn_limited, pings, ip_lookups;
    uint64_t bytes; /* payload bridged */
    /* mesh */
    uint64_t peers, peer_links, relayed, missed; /* gauges: relays, links to them, slots, misses */
    uint64_t dials, dial_failed, announced, announce_ok; /* ours: links dialled, announcements */
    uint64_t announce_accepted, announce_refused;        /* theirs */
    uint64_t forwarded, forward_failed, miss_hits, slot_refused, misses_full;
    /* filled by who drives the loop */
    uint64_t loop_max_ns, fd_exhausted, no_buffer, accept_rests;
};
void relay_stat(const struct relay *r, struct relay_stat *out);
/* Of several workers: sums; the longest of loop_max_ns. */
void relay_stat_add(struct relay_stat *sum, const struct relay_stat *st);
/* 1 … 15 for dmsg errors 300 … 307, 350 … 352, 370, time-out, busy, reset; 0 for every other. */
unsigned relay_code_index(int err);

/* All relays that were found elsewhere, each with its newest address; takes the place of the list
 * before. Null keys, the own one, doubles and addresses that are too long are skipped. */
void relay_mesh_found(struct relay *r, const struct relay_server *list, size_t n);

struct relay_peer_info {
    struct pubkey pk;
    char addr[CONN_ADDR_MAX]; /* of the link, or what is dialled; empty: none known */
    bool configured, found, announced;
    bool out, in; /* a link that we dialled, one that it announced */
    uint32_t failures;
    int last_err;   /* of the last dial or link */
    uint64_t up_ns; /* of the link in use, 0 = none */
    uint32_t streams;
};
/* Up to cap other relays that are known; returns how many there are. */
size_t relay_peers(const struct relay *r, struct relay_peer_info *out, size_t cap);

struct relay_session_info {
    struct pubkey pk;
    char addr[CONN_ADDR_MAX];
    uint64_t up_ns, heard_ns;
    uint32_t streams;
    size_t buffered;
    uint64_t bytes_in, bytes_out;
    bool local, peer; /* peer: a link of the mesh */
};
/* Up to cap (> 0) sessions behind cursor (0 = start), oldest first; returns the next cursor, 0 = no
 * more. Each session that is there all the time is told exactly once, whatever happens between two
 * calls. A call walks the list of sessions once. */
uint64_t relay_sessions(const struct relay *r, uint64_t cursor, struct relay_session_info *out,
                        size_t cap, size_t *n);
