/*
 * host - runs a kad engine over dmsg streams: the bridge between transport/client.h and
 * kademlia/kad.h.
 *
 * It owns the engine, listens on port 100 of the client (but for a client_only engine), sends calls and serves requests in two
 * dialects, keeps the engine's one timer, and hands finished operations to `report`.
 *
 * JSON (docs/protocol/dht.md §3.1): one stream a call, for everybody. Native
 * (docs/protocol/dht-native.md): peers that offered it in a PING, or of whom others say that they
 * speak it, are called over a pool of streams that carry any number of calls in both directions;
 * the first byte tells which dialect an accepted stream has. A peer without the offer is spoken to
 * in JSON for 6 h, or until its next PING.
 *
 * Start an operation with kad_get() … on host_kad() and call host_kick() afterwards; its end comes
 * as report(arg, r) from the loop, never from inside a call. r and what it points to are valid
 * during the call (take a reference of r->item to keep it).
 *
 * Limits: HOST_SERVE streams served at once, HOST_SERVE_PEER of one peer, one request a stream,
 * whole within HOST_REQUEST_MS; what is above is closed at once and counted; when all places are
 * taken, the stream that has not sent its request for longest gives way. The pool has at most
 * HOST_DIALLED dialled and HOST_ACCEPTED accepted streams; the least recently used idle one gives
 * way, and with none idle calls go out in JSON. A stream idle for HOST_IDLE_MS is closed. Dials carry
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
#define HOST_DIALLED    64
#define HOST_ACCEPTED   64
#define HOST_IDLE_MS    90000

struct host;

struct host_cfg {
    struct env *env;
    struct loop *loop;
    struct client *client;
    struct store *store;
    const struct kad_cfg *kad; /* copied */
    uint32_t max_peers;        /* keys known at once, 100 000 */
    unsigned max_dialled;      /* native streams; 0 = HOST_DIALLED */
    bool json_only;            /* neither offer the native dialect nor understand it */
    void (*report)(void *arg, const struct kad_report *r);
    void (*stored)(void *arg, const struct store_rec *rec); /* optional; must not call the engine */
    void *arg;
    struct pubkey self; /* filled in */
};

struct host_stat {
    size_t serving, calling, peers; /* gauges */
    size_t dialled, accepted;       /* gauges: native streams */
    uint64_t json_calls, native_calls;
    uint64_t fallbacks;     /* native streams that came to nothing, calls repeated in JSON */
    uint64_t pool_full;     /* calls in JSON because no native stream was idle */
    uint64_t pool_evicted;  /* idle streams closed for others */
    uint64_t bad_native;    /* streams closed for what they carried */
    uint64_t dropped_slow;  /* … because the peer does not read */
    uint64_t refused_calls; /* requests above what one stream may have under way */
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
/* How this peer is spoken to. */
enum kad_dialect host_dialect(struct host *h, kad_peer p);
/* … from now on, because the user knows better. */
void host_set_dialect(struct host *h, kad_peer p, enum kad_dialect d);
/* The servers that this key's entry delegates to; kept as long as the key is known here. */
void host_set_relays(struct host *h, const struct pubkey *pk, const struct pubkey *relays,
                     size_t n);
/* Relays of a group of peers, as peers_relays(). */
size_t host_relays(const struct host *h, uint32_t group, struct pubkey *out, size_t cap);
void host_stat(const struct host *h, struct host_stat *out);
