/*
 * tpd_service - the transport discovery, all endpoints of docs/protocol/services.md §5, on a service frame and a key-value store.
 *
 * What it knows is in memory (tpd_table.h): read from the store at the start, changed after each write was acknowledged. Reads never wait for the store, and a Redis that is away or
 * comes back empty loses nothing: tpd_service_store_back() writes what it misses. Until the store was read, everything but /health, nonces and /statuses is answered 503 (incident 70).
 *
 * Generations. TPD_2024 answers as the SQL service of 2024 did: transports live for ever, the same id again is an error of its database, nothing of an entry is checked. TPD_2026: a
 * transport that is not registered again ends after ttl_ms, and registering it again renews it. What is stricter than upstream: the id must be that of edges and type, and the caller
 * one of the edges (incidents 49, 50), or every peer could say anything of others. A transport that is registered again unchanged is written when a third of
 * its life is over, and costs no write before (incident 47).
 *
 * Requests with httpauth go one after the other for each key (nonce_book.h).
 *
 * changed() tells whose set of transports is another one than before: once for each key, from the end of a loop turn, never for renewals, and not for what was read at the start: loaded() comes then. It may
 * call everything here but tpd_service_free().
 *
 * One thread. The stores must outlive it, and calls that are under way must be over or dropped: free the service first, then this, then close the stores.
 *
 *     rc = tpd_service_new(&t, &cfg);
 *     struct service_cfg s = {.drive = drive, .env = env, .app = t, .dropped = tpd_service_dropped};
 *     s.routes = tpd_service_routes(cfg.generation, &s.n_routes);
 *     rc = service_new(&service, &s);
 */
#pragma once

#include "compat-http/service.h"
#include "kademlia/records/tp.h"
#include "store/kv.h"

#define TPD_TTL_MS 300000

enum tpd_generation { TPD_2024, TPD_2026 };

struct tpd_service;

struct tpd_service_cfg {
    struct env *env;
    struct loop *loop;
    struct kv *kv;
    struct kv *
        nonces; /* where nonces are; NULL = kv. With TPD_2024 and a Redis: the Redis, kv is what upstream's SQL is */
    enum tpd_generation generation;
    bool testing;                /* TPD_2024: as upstream's store in memory answers */
    const char *const *monitors; /* keys that may deregister; kept */
    size_t n_monitors;
    uint64_t ttl_ms;          /* of TPD_2026; 0 = TPD_TTL_MS */
    unsigned rate;            /* requests a minute of one caller; 0 = no limit */
    size_t max;               /* transports; 0 = TPD_TABLE_MAX */
    const char *dmsg_address; /* "PK:80" for /health; NULL = none; kept */
    void (*changed)(void *arg, const struct pubkey *pk);
    void (*loaded)(void *arg); /* the store was read: the time to mirror everything */
    void *arg;
};

struct tpd_service_stat {
    size_t transports, edges, visors, waiting;        /* gauges */
    uint64_t registered, renewed, unchanged, refused, /* entries; unchanged: no write was needed */
        removed, expired, heartbeats, unauthorized, limited, store_errors, restored;
    bool ready; /* the store was read */
};

const struct service_route *tpd_service_routes(enum tpd_generation g, size_t *n);

/* 0, ERR_NOMEM. Starts to read the store. */
int tpd_service_new(struct tpd_service **out, const struct tpd_service_cfg *cfg)
    __attribute__((warn_unused_result));
void tpd_service_free(struct tpd_service *t);
/* For service_cfg.dropped: the request's answer is not needed any more. */
void tpd_service_dropped(struct service_req *q);
/* The store was away and is there again: write what it misses. */
void tpd_service_store_back(struct tpd_service *t);
void tpd_service_stat(const struct tpd_service *t, struct tpd_service_stat *out);
/* How many transports there are of a type. */
size_t tpd_service_count(const struct tpd_service *t, const char *type);

/* All transports of a key, as GET by edge gives them; tp_list_free(). None: an empty list. 0, ERR_NOMEM. */
int tpd_service_list(const struct tpd_service *t, const struct pubkey *pk, struct tp_list *out)
    __attribute__((warn_unused_result));
/* A transport that somebody else knows of (the DHT): into the table, if it is not there, as if it was registered now; tpd_service_store_back() writes what came. False: it is there, is not what
 * its id says, or there is no room or no store yet. */
bool tpd_service_take(struct tpd_service *t, const struct tp_entry *e);
/* Every key that has transports, in no order. fn must not change the service. */
void tpd_service_each(struct tpd_service *t, void (*fn)(void *arg, const struct pubkey *pk),
                      void *arg);
