/*
 * pusher - the way back: entries of the DHT into a dmsg discovery (docs/protocol/dht.md §6.2, services.md §12).
 *
 *     pusher_offer()  an entry came into the local store      -> POST, unless the discovery has it
 *     pusher_seen()   the discovery's own mirror brought it   -> the discovery has it
 *
 * No loop: a text that was pushed, that the discovery refused as old, or that came from its mirror is not sent again, whatever number it travels under. What is refused for
 * itself (signature, address) is not sent again either.
 *
 * Entries of one key are one: the newest by (timestamp, sequence) waits, older ones are dropped. PUSHER_FLIGHT requests are under way; with the discovery away one, 1 s to 60 s apart
 * (jittered). What was pushed is looked for every PUSHER_PROBE_NS, PUSHER_PROBES keys at a time, and after every time away: a key that is missing is asked for again
 * (cfg.again with the key), and when none of them is there the discovery has lost everything: all is forgotten and everything asked for (cfg.again with NULL; incident 70).
 *
 * Only entries are pushed. Transports and services can be registered only by their owner (httpauth), which a relay is not.
 *
 * Limits: PUSHER_QUEUE entries waiting (dropped above, counted), PUSHER_KNOWN keys known (the oldest is forgotten). One thread, the loop's.
 *
 *     p = pusher_new(&cfg);
 *     pusher_offer(p, &pk, text, n);
 */
#pragma once

#include "base/loop.h"
#include "compat-http/disc_client.h"

#define PUSHER_FLIGHT   4
#define PUSHER_QUEUE    16384
#define PUSHER_KNOWN    65536
#define PUSHER_PROBES   3
#define PUSHER_PROBE_NS (30 * NS_PER_S)

struct pusher;

struct pusher_cfg {
    struct env *env;
    struct loop *loop;
    struct disc_port port;
    /* Offer what there is of this key, or (NULL) of all. From the loop; may call pusher_offer() at once or later. */
    void (*again)(void *arg, const struct pubkey *pk);
    void *arg;
};

struct pusher_stat {
    size_t waiting, known; /* gauges */
    uint64_t pushed, skipped, refused_old, refused, failed, dropped, probes, missing, refills;
    bool away; /* the last request failed */
    int last_err;
    uint64_t last_ns; /* of the last answer, 0 = none */
};

/* NULL: no memory. */
struct pusher *pusher_new(const struct pusher_cfg *cfg);
/* Requests are cancelled. NULL is allowed. */
void pusher_free(struct pusher *p);
/* n bytes of JSON: the entry of pk. What is no entry of this key is dropped. */
void pusher_offer(struct pusher *p, const struct pubkey *pk, const char *text, size_t n);
void pusher_seen(struct pusher *p, const struct pubkey *pk, const char *text, size_t n);
/* Its owner took it back: nothing of it waits, and it is not looked for. */
void pusher_gone(struct pusher *p, const struct pubkey *pk);
/* Nothing is known of what the discovery has: everything is asked for. */
void pusher_refill(struct pusher *p);
void pusher_stat(const struct pusher *p, struct pusher_stat *out);
