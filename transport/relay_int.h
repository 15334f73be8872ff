/*
 * relay_int - what relay.c (sessions, limits), bridge.c (one stream's way through the relay) and
 * mesh.c (links to other relays) share, and relay_flow.c (bandwidth). Private to them.
 *
 *     struct relay    one per loop; table of sessions by key
 *     struct rsession one link; in the table once up, unless a newer one of its key took its place
 *     struct bridge   one stream from its first byte to the end of its relaying; has one leg per
 *                     session it touches
 */
#pragma once

#include "base/list.h"
#include "base/map.h"
#include "transport/crew.h"
#include "transport/guard.h"
#include "transport/mesh.h"
#include "transport/objects.h"
#include "transport/relay.h"
#include "transport/session.h"

#define RELAY_PEER_FACTOR 10u /* limits of one key, for a relay: it speaks for many clients */

struct target;

struct rsession {
    struct relay *relay;
    struct link *link;
    uint64_t id;      /* growing in relay->sessions: cursor of relay_sessions() */
    struct pubkey pk; /* key in relay->table once up */
    struct list_node node;
    struct list legs;             /* struct leg of every bridge that uses this session */
    struct guard_addr *addr;      /* it counts for; NULL: local, or dialled by us */
    size_t accounted;             /* of relay->buffered */
    size_t far;                   /* of it: what came from here and waits at other workers … */
    struct list far_bridges;      /* … in these bridges, longest untouched first */
    struct list_node parked_node; /* in relay->parked while accounted > 0 */
    uint64_t syn_ns;              /* until when its allowance of SYNs is used up */
    bool up, local;
    bool stopped;    /* not read from: it holds too much */
    bool moved;      /* its handshake was done by another worker */
    bool trunk;      /* to another worker; not to a peer */
    unsigned member; /* trunk: which */

    /* relay_flow.c */
    struct list waiting; /* struct leg: may not move their bytes yet */
    struct list_node hungry_node;
    struct loop_timer flow_timer;
    struct meter meter; /* of what it brings in */

    /* mesh.h */
    bool dialled;               /* by us, to a relay */
    bool announced;             /* its announcement was accepted */
    bool marked;                /* may carry requests of foreign sources */
    bool lame;                  /* does not answer announcements: asked last */
    struct target *target;      /* that it was dialled for */
    struct announce *announce;  /* ours, under way */
    struct loop_timer decide;   /* armed: neither client nor link yet */
    struct list_node link_node; /* in mesh.links */
    uint64_t link_no;
    uint64_t
        silent_ns; /* since then something was asked and nothing at all came, if heard before */
};

struct relay {
    struct relay_cfg cfg;
    struct map table; /* struct rsession by pk */
    struct guard *guard;
    bool own_guard;
    struct crew *crew;
    bool own_crew;
    struct rsession *trunks[CREW_MAX]; /* NULL: none, or ourselves */
    size_t told;                       /* what crew_buffered() knows of our stat.buffered */
    struct list sessions;
    struct list parked;           /* sessions with buffered bytes */
    struct loop_timer look_timer; /* while one of them is above its budget */
    struct list bridges;
    struct mesh mesh;
    struct list hungry; /* sessions whose line waits for the meter of all */
    struct loop_timer flow_timer;
    struct leg *served; /* whose turn it is */
    uint64_t next_id;
    bool draining, freeing;
    struct relay_stat stat;
    uint8_t
        object[SESSION_OBJECT_MAX]; /* the object being read, before it gets memory of its own */
};

struct leg {
    struct rsession *session;
    struct yamux_stream *st;
    struct list_node node;      /* in session->legs while st is there */
    struct list_node wait_node; /* in session->waiting: what st has received may not move yet */
};

enum bridge_state {
    BRIDGE_OBJECT,          /* waiting for the first object of the source */
    BRIDGE_VERIFY_REQUEST,  /* its signature is being checked */
    BRIDGE_SIGN,            /* our answer to an IP look-up or announcement is being signed */
    BRIDGE_ANSWER,          /* writing an answer of our own: to these, or to a ping marker */
    BRIDGE_FORWARD,         /* writing the request to the destination */
    BRIDGE_RESPONSE,        /* waiting for its answer */
    BRIDGE_VERIFY_RESPONSE, /* the answer's signature is being checked */
    BRIDGE_RETURN,          /* writing the answer to the source */
    BRIDGE_OPEN,            /* bytes both ways */
};

struct setup; /* what only the set-up needs; freed when the bridge is open */

struct bridge {
    struct relay *relay;
    enum bridge_state state;
    struct leg src, dst;
    struct setup *setup;
    struct share *share; /* its slot, if it has one */
    struct loop_timer timer;
    uint64_t moved_ns; /* last time that bytes were relayed */
    struct list_node node;
    /* One leg is a trunk: bytes of the other one's session that went there and were not consumed. */
    struct list_node far_node;
    uint64_t far_since_ns;
    uint32_t far;
    bool half; /* FIN has gone through in one direction */
};

/* A new stream of s: starts a bridge (true), or refuses it and releases the stream. */
bool bridge_start(struct rsession *s, struct yamux_stream *st);
/* What one of its streams has received may move now. */
void bridge_resume(struct bridge *b, struct yamux_stream *st);
/* That has to wait for the bandwidth's sake. */
bool bridge_waits(const struct bridge *b, const struct yamux_stream *st);
/* News of one of its streams. */
void bridge_event(struct bridge *b, struct yamux_stream *st, unsigned what);
/* End it now, both streams reset; frees b. err: why, for the counters of streams not yet open. */
void bridge_kill(struct bridge *b, int err);
/* The session of one of its streams ends. Frees b, unless another way is tried. */
void bridge_lost(struct bridge *b, struct leg *leg);

/* Client session of this key that streams go to, or NULL. */
struct rsession *relay_find(struct relay *r, const struct pubkey *pk);
/* Streams to its key go to this session from now on; an older one that is nothing else is closed. */
int relay_client(struct rsession *s) __attribute__((warn_unused_result));
/* A session over a conn that we dialled; NULL: out of memory, conn closed. */
struct rsession *relay_dialled(struct relay *r, struct conn *conn, struct target *target,
                               const struct pubkey *pk);
/* End a session; frees it. */
void relay_session_drop(struct rsession *s);
/* Bring the gauges of received bytes up to date: after everything that consumes or drops some. */
void relay_recount(struct rsession *s);
/* Recount what the session holds, and enforce the budgets. May kill bridges of any session, also
 * the caller's: call it last. */
void relay_account(struct rsession *s);
/* Take one SYN of the session's allowance. */
bool relay_syn_allowed(struct rsession *s);

/* How many bytes that came on this leg may be relayed now; 0: it waits in line, and
 * bridge_resume() comes. */
size_t flow_may(struct leg *from);
/* So many of them were. */
void flow_moved(struct leg *from, size_t n);
/* The leg ends. */
void flow_leave(struct leg *leg);
static inline bool flow_waits(const struct leg *leg)
{
    return list_node_is_linked(&leg->wait_node);
}
void flow_session_init(struct rsession *s);
void flow_session_end(struct rsession *s);
void flow_init(struct relay *r);
void flow_end(struct relay *r);
