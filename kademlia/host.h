/*
 * host - runs a kad engine over dmsg streams: the bridge between transport/client.h and
 * kademlia/kad.h.
 *
 * It owns the engine, listens on port 100 of the client (but for a client_only engine), turns KAD_ACT_CALL into a dialled stream
 * with one JSON frame each way (docs/protocol/dht.md §3.1), serves incoming ones, keeps the
 * engine's one timer, and hands finished operations to `report`.
 *
 * Start an operation with kad_get() … on host_kad() and call host_kick() afterwards; its end comes
 * as report(arg, r) from the loop, never from inside a call. r and what it points to are valid
 * during the call (take a reference of r->item to keep it).
 *
 * Limits: HOST_SERVE streams served at once, HOST_SERVE_PEER of one peer, one request a stream,
 * whole within HOST_REQUEST_MS; what is above is closed at once and counted; when all places are
 * taken, the stream that has not sent its request for longest gives way. Dials carry
 * CLIENT_DIAL_LOCAL: finding a DHT peer never asks the DHT.
 *
 * Threads: one loop. host_free() before client_free().
 */
#pragma once

#include "base/loop.h"
#include "kademlia/kad.h"
#include "transport/client.h"

#define HOST_SERVE      256
#define HOST_SERVE_PEER 8
#define HOST_REQUEST_MS 10000

struct host;

struct host_cfg {
    struct env *env;
    struct loop *loop;
    struct client *client;
    struct store *store;
    const struct kad_cfg *kad; /* copied */
    uint32_t max_peers;        /* keys known at once, 100 000 */
    void (*report)(void *arg, const struct kad_report *r);
    void (*stored)(void *arg, const struct store_rec *rec); /* optional; must not call the engine */
    void *arg;
};

struct host_stat {
    size_t serving, calling, peers; /* gauges */
    uint64_t refused_busy, refused_peer, dropped_silent, bad_frames, timeouts, bytes_in, bytes_out;
};

int host_new(struct host **out, const struct host_cfg *cfg) __attribute__((warn_unused_result));
void host_free(struct host *h);
struct kad *host_kad(struct host *h);
/* The engine may have actions: take them at the end of this turn. */
void host_kick(struct host *h);
/* Handle of a key, with a reference; give it back with host_unref(). */
kad_peer host_peer(struct host *h, const struct pubkey *pk);
void host_unref(struct host *h, kad_peer p);
const struct pubkey *host_pk(struct host *h, kad_peer p);
void host_stat(const struct host *h, struct host_stat *out);
