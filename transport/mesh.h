/*
 * mesh - a relay's links to other relays (docs/protocol/dmsg.md §5.2, §5.3). Private to relay.c and
 * bridge.c; what the relay's owner sees of it is in relay.h.
 *
 * Targets. For every relay that is configured (cfg.peers) or found (relay_mesh_found()) there is a
 * struct target, one per key: one dial under way or one link at a time. The address that was found
 * last is dialled first, the configured one when that fails. A key that is in neither list any more
 * is not dialled again; its link stays as long as it lives. The relay's own key is never dialled.
 *
 *     WAIT --timer--> DIAL --up--> LINK --ended--> WAIT
 *               ^       | failed                    |
 *               +-------+  1 s, × 1.5 … 60 s, back to 1 s after a life of 30 s
 *
 * Links. Streams to other relays are opened only on links that we dialled and on inbound sessions
 * that announced themselves; both are in mesh.links, the newest of each key in mesh.peers. An
 * ended link is replaced by another one of its key. All of them are marked (rsession.marked):
 * requests of foreign sources are taken there, and go to clients of this relay only, so that no
 * path has more than two relays.
 *
 * What an inbound session is depends on its key. Unknown: a client, until it announces itself; then
 * it is a link too. Known (a target, or announced before): marked and in no table until the first of
 *
 *     its announcement       never a client; a link when accepted
 *     a request of its own   a client like others, no longer marked
 *     one of a foreign key   a client, marked
 *     5 s                    a client; marked unless its key has another link
 *
 * so that one key may hold a link and a client session, and neither ends the other.
 *
 * Slots. A stream takes one when it comes from or goes to a marked session, when its source is
 * foreign, or when it is forwarded; at most max_relayed in all, a quarter of them per key of the
 * session that it came in on (incident 29). One object owns it: its bridge.
 *
 * Search. The destination itself first when it is a relay, then links by age, then those of other
 * members, then, in the same order, those that may lead nowhere: that do not answer announcements, or are silent. One after the other: asked at the
 * same time, two relays may both open the stream. Each has response_ms, one that gives no byte at
 * all 1.5 s.
 *
 * Misses. A destination that every peer asked has denied is refused at once for 2 s, the next time
 * in a row 4 s … 30 s: a client that was moving is found soon, one that is gone costs little. A
 * peer that did not answer in time for a destination is not asked for it again for 60 s. Both are
 * in one table of 8 192; when it is full, what has expired goes, else nothing is added.
 *
 * Workers. A key belongs to the mesh of its home (crew.h): that relay dials it, and every session of
 * it comes there. A search is led by the home of its destination, which asks its own links, then each
 * other member for all of its links, over the trunk.
 *
 * One thread, the relay's. Every limit has a counter in struct relay_stat.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/list.h"
#include "base/loop.h"
#include "base/map.h"
#include "transport/relay.h"

struct announce;
struct rsession;
struct share;
struct yamux_stream;

struct mesh {
    struct map peers;       /* struct rsession by pk: where streams are opened */
    struct list links;      /* struct rsession, by link_no */
    struct map targets;     /* struct target by pk: every key known as a relay's */
    struct list order;      /* struct target */
    struct list forgetting; /* struct target that only announced itself, oldest first */
    struct map misses;      /* struct miss by key */
    uint64_t next_link, round, purged_ns;
    uint64_t ways; /* crew_ways() when the misses were looked at last */
};

/* How far the search for a destination has come. */
struct mesh_walk {
    uint64_t last;        /* rank of the link that was asked last */
    unsigned asked, gone; /* peers; those that ended the stream without an answer */
    struct pubkey peer;   /* who is being asked */
    bool own_links;       /* do not ask other workers: one of them is asking us … */
    bool doubtful;        /* … for those links; or, of a trunk that is asked, what it shall ask */
};

struct relay;

int mesh_init(struct relay *r, const struct relay_cfg *cfg) __attribute__((warn_unused_result));
/* Dials end, no new ones. */
void mesh_drain(struct relay *r);
/* After the sessions. */
void mesh_free(struct relay *r);

/* An inbound session is up. False: it is a client, now. */
bool mesh_hold_back(struct rsession *s);
/* A session that we dialled is up. */
void mesh_link_up(struct rsession *s);
/* Why a session that we dialled ends by itself; mesh_gone() follows. */
void mesh_link_down(struct rsession *s, int err);
/* A session ends: it is in no list of the mesh afterwards. */
void mesh_gone(struct rsession *s);
/* News of the stream by which we announce ourselves. */
void mesh_announce_event(struct rsession *s, struct yamux_stream *st, unsigned what);
/* It must end now. */
void mesh_announce_end(struct rsession *s);

/* A valid announcement of its own key came on s: is it accepted? Repeating it changes nothing. */
bool mesh_announced(struct rsession *s);
/* A valid request came on s: its source is the session's key, or not. */
void mesh_requested(struct rsession *s, bool own);

/* The operator has named this relay: in cfg.peers or cfg.accepted. */
bool mesh_is_configured(const struct relay *r, const struct pubkey *pk);

/* There is somebody to ask. */
bool mesh_has_links(const struct relay *r);
/* The next link (or trunk) to ask for dst, or NULL. A request that came from src is not sent back to it. */
struct rsession *mesh_next(struct relay *r, struct mesh_walk *w, const struct pubkey *dst,
                           const struct pubkey *src);
/* The link that mesh_next() gave last led nowhere, because of err. */
void mesh_failed(struct relay *r, struct mesh_walk *w, const struct pubkey *dst, int err);
/* The link has given no byte since it was asked for something at that time: asked last until it does. */
void mesh_silent(struct rsession *s, uint64_t asked_ns);
/* No link is left: remember it when all of them denied. */
void mesh_missed(struct relay *r, const struct mesh_walk *w, const struct pubkey *dst);
bool mesh_is_missed(struct relay *r, const struct pubkey *dst);
/* dst was reached through a peer, or its key was heard of. */
void mesh_found(struct relay *r, const struct pubkey *dst);

/* A slot for a stream that came from this key, or NULL. */
struct share *mesh_slot_take(struct relay *r, const struct pubkey *src);
void mesh_slot_give(struct relay *r, struct share *share);
