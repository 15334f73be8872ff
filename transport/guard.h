/*
 * guard - what all workers of one relay share: counts and caps, the bandwidth in total, and the
 * lists of keys that may come in (design §4, §5).
 *
 * Everything that is asked for before any public-key work is done for a stranger is here:
 * guard_enter() for a connection that was accepted, guard_up() when its handshake is over,
 * guard_leave() at its end. Who counts as one address: an IPv4 address, or an IPv6 network of 64
 * bits, in which addresses are free.
 *
 *     accept --enter--> handshake --up--> session --leave-->
 *                 \-- refused: ERR_LIMIT, counted by reason
 *
 * Limits: links (sessions and handshakes), handshakes pending in all and per address, sessions per
 * address, handshakes per address and second (a bucket that holds ten seconds), streams in all.
 * The limits per address that are left at their default do not hold for loopback: a proxy on this
 * host speaks for everybody.
 *
 * Access: with an allow list only its keys come in, with a deny list its keys do not; deny wins.
 *
 * Threads: any; a guard outlives the relays that use it. Links and lists are under one lock, taken
 * when a session or stream is set up and never on the way of bytes; streams and bandwidth are
 * atomics.
 *
 *     guard_new(&g, &(struct guard_cfg){.hash_key = key});
 *     rc = guard_enter(g, conn, now_ns, &addr);    // 0: handshake; guard_up(); guard_leave()
 *     if (!guard_allows(g, &pk)) ...
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/crypto.h"
#include "transport/conn.h"

struct guard;
struct guard_addr; /* one address that is connected */

struct guard_cfg { /* 0 = default */
    uint8_t hash_key[16];
    uint32_t max_sessions;        /* with handshakes; 100 000 */
    uint32_t max_handshakes;      /* pending, 1 024 */
    uint32_t max_handshakes_addr; /* 64 */
    uint32_t max_sessions_addr;   /* with handshakes, 2 048 */
    uint32_t handshakes_per_s;    /* per address, 20; ten seconds of it may come at once */
    uint32_t max_streams;         /* of all sessions, 500 000 */
    uint64_t bytes_per_s;         /* relayed in all, 0 = no limit */
};

int guard_new(struct guard **out, const struct guard_cfg *cfg) __attribute__((warn_unused_result));
void guard_free(struct guard *g);

/* A connection was accepted: it may begin a handshake (0, *out), or is to be closed (ERR_LIMIT,
 * ERR_NOMEM). */
int guard_enter(struct guard *g, const struct conn *conn, uint64_t now_ns, struct guard_addr **out)
    __attribute__((warn_unused_result));
/* Its handshake has become a session. */
void guard_up(struct guard *g, struct guard_addr *a);
/* Its end; up: it was a session. */
void guard_leave(struct guard *g, struct guard_addr *a, bool up);
/* So many handshakes are pending that accepting should rest. */
bool guard_is_full(struct guard *g);

/* One more stream; false: there are too many. */
bool guard_stream_enter(struct guard *g);
void guard_stream_leave(struct guard *g);

/* A limit of bytes per second as one time stamp: what is taken moves it on, it falls at most 100 ms
 * behind, and while it is ahead nobody may take. */
struct meter {
    _Atomic uint64_t at_ns;
    uint64_t bytes_per_s; /* 0 = no limit */
};
/* When something may be taken: now_ns or later. */
uint64_t meter_ready_ns(const struct meter *m, uint64_t now_ns);
/* bytes < 2^34 */
void meter_take(struct meter *m, uint64_t now_ns, uint64_t bytes);
/* Of all bytes that are relayed. */
struct meter *guard_meter(struct guard *g);

/* Replace the lists (copied); n_allow = 0: everybody who is not denied. 0 or ERR_NOMEM. */
int guard_set_access(struct guard *g, const struct pubkey *allow, size_t n_allow,
                     const struct pubkey *deny, size_t n_deny) __attribute__((warn_unused_result));
enum guard_who {
    GUARD_ANYONE,
    GUARD_CONFIGURED, /* named by the operator elsewhere: needs not to be on the allow list */
};
bool guard_allows(struct guard *g, const struct pubkey *pk, enum guard_who who);

struct guard_stat {
    struct guard_cfg caps;                        /* as they are in force */
    size_t links, handshakes, addresses, streams; /* gauges */
    size_t allowed, denied;                       /* keys on the lists */
    uint64_t refused_links, refused_handshakes, refused_handshakes_addr, refused_sessions_addr,
        refused_rate, refused_streams, refused_key; /* counters */
    uint64_t forgotten; /* addresses whose bucket was given up for want of room */
};
void guard_stat(struct guard *g, struct guard_stat *out);
