/*
 * old_peer - a DHT peer that speaks JSON only, for tests: what the builds of April and May 2026 do on
 * the wire (docs/protocol/dht.md §3), on a client of the world, with a codec but without an engine.
 *
 * EARLY: frames of 65 536 bytes at most, methods 1 to 4, everything else is closed. LATE: 4 MiB, six
 * methods. Both answer one request a stream, say nothing of other dialects and networks, and keep
 * the newest item of each slot, whoever brings it, in an array.
 *
 *     struct old_peer old;
 *     old_start(&old, &hw.w, 2, OLD_EARLY);          // client 2 listens on port 100
 *     old_ask(&old, key(0), &req, &rsp);             // 0, or ERR_EOF: closed without an answer
 */
#pragma once

#include "kademlia/msg.h"
#include "tests/unit/transport/client_world.h"

enum old_form { OLD_EARLY, OLD_LATE };

#define OLD_ITEMS 4096

struct old_item {
    struct kad_id target;
    struct item_ref *item;
};

struct old_peer {
    struct world *w; /* NULL: whoever owns it brings the requests */
    int client;
    enum old_form form;
    /* Of another world: with signatures of its own. NULL: item_verify() */
    int (*verify)(void *arg, const struct item *it);
    void *arg;
    struct old_item *item;
    size_t n;
    unsigned asked[KAD_METHOD__END]; /* requests that were answered */
    unsigned closed;                 /* … that were not */
    unsigned extended;               /* … with members that the builds do not know */
};

/* The client is started and joined to relay 0 already. */
void old_start(struct old_peer *o, struct world *w, int client, enum old_form form);
void old_free(struct old_peer *o);
/* Without a client: the answer to a request to the peer with this key. False: closed without one. */
bool old_answer(struct old_peer *o, const struct pubkey *self, struct kad_msg *req,
                struct kad_msg *rsp);
/* One request to another key; takes over req's contents. */
int old_ask(struct old_peer *o, const struct pubkey *to, struct kad_msg *req, struct kad_msg *rsp);
bool old_has(const struct old_peer *o, const struct kad_id *target);
/* What an answer or request may have at most, in bytes. */
size_t old_frame_max(const struct old_peer *o);
