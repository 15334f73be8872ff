/*
 * guest - a connection that came to us, from the first byte until it is led to where it wants to go.
 *
 *      TALK ──guest_dial_*()──► LEAD ──led(), guest_join()──► JOINED (a splice)
 *        │                        │
 *        └───────guest_bye()──────┴──► BYE: the rest of the answer is sent, then it is closed
 *
 * A service embeds struct guest as the first member of its own object and gives a table of functions:
 *   input   TALK: bytes are in g->in. What is left there when it is joined goes to the destination first.
 *   led     the dial ended: 0 and g->out_fd is the destination, or an error with its text. Joins, or says something and leaves.
 *   freed   optional: release what the service added.
 * guest_dial_*(), guest_bye(), guest_join() and guest_drop() are the last thing a callback does with its guest: it may be gone afterwards.
 *
 * Deadlines: TALK as given; LEAD net->timeout_ms; BYE 2 s; then the splice's. Limits: the hub's for all, GUEST_IN_MAX bytes in TALK (then it is dropped), GUEST_DIALS
 * streams being dialled at once: relays and peers hold only so many in their queues. Who comes then waits for a turn, within the deadline of LEAD.
 * Nothing is read in LEAD: what comes waits in the kernel.
 */
#pragma once

#include <event2/event_struct.h>

#include "apps/hub.h"
#include "apps/tcp.h"

#define GUEST_IN_MAX (64u * 1024u)
#define GUEST_DIALS  128u

struct guest;

struct guest_ops {
    size_t size; /* of the service's object */
    void (*input)(struct guest *g);
    void (*led)(struct guest *g, int err, const char *text);
    void (*freed)(struct guest *g);
};

enum guest_state { GUEST_TALK, GUEST_LEAD, GUEST_BYE, GUEST_JOINED };

struct guest {
    struct list_node node; /* in hub->guests */
    struct hub *hub;
    const struct guest_ops *ops;
    void *service;
    enum guest_state state;
    int fd, out_fd; /* out_fd: -1 until led */
    struct evbuffer *in, *out;
    struct event read_ev, write_ev, timer;
    uint64_t handle;
    struct list_node turn; /* in hub->turns: waits to dial */
    bool dialling;         /* counted in hub->dialling */
    bool has_via;
    struct pubkey via, pk; /* of the stream */
    uint16_t port;
    struct tcp_dial *dial;
    struct guest_proxy *proxy; /* while an upstream proxy is asked */
    splice_filter_fn *filter;  /* set before guest_join(); its argument is the guest */
    char who[PUBKEY_HEX + 8];  /* for notes: PK:PORT, or "" */
};

/* Takes fd over. NULL: the limit, or no memory; fd is closed then. talk_ms: deadline of TALK. */
struct guest *guest_new(struct hub *hub, const struct guest_ops *ops, void *service, int fd,
                        unsigned talk_ms);
/* Call after the service's fields are set: reading begins. A service without input() dials instead. */
void guest_start(struct guest *g);

/* via NULL: any way. */
void guest_dial_stream(struct guest *g, const struct pubkey *via, const struct pubkey *pk,
                       uint16_t port);
void guest_dial_tcp(struct guest *g, const struct socks_dest *dest, const struct netrule *rule);
/* The same through a SOCKS5 proxy, which gets dest as it is. */
void guest_dial_proxy(struct guest *g, const struct socks_dest *proxy,
                      const struct socks_dest *dest);
/* Bytes for the guest, behind what was said before; sent when it is joined or leaves. */
void guest_say(struct guest *g, const void *p, size_t n);
/* In TALK: send now what was said. The guest lives on. */
void guest_flush(struct guest *g);
void guest_join(struct guest *g);
/* LEAD without a dial: the service waits for an answer of the network, whose handle it puts into g->handle. led() comes only when that takes too long. */
void guest_wait(struct guest *g);
void guest_bye(struct guest *g);
void guest_drop(struct guest *g);

/* For the hub: free all; let those dial who wait for a turn. */
void guests_close(struct hub *hub);
void guests_turn(struct hub *hub);
