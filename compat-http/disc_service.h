/*
 * disc_service - the dmsg discovery, all endpoints of docs/protocol/services.md §3.1, on a service frame and a key-value store.
 *
 * The checks of a registration come in the order of §3.2 with the texts of §3.3; what is kept is §3.4, byte for byte, so that a Go discovery may run on the same Redis before and
 * after. What is better than upstream: a key that changes its role does not break the lists, a bad point of the curve is 400, and registrations of one key are serialised, so that
 * of two with the same sequence number one is refused (incident 42). An entry whose signature covers members that are not known is kept as it came (§2.2 rule 2).
 *
 * Heartbeats (2026) are gathered for gather_ns and written together (compat-http/uptime.h), so that a registration itself is a write that may be sent again.
 *
 * Lists of servers are made at most once a second, and anew after every registration of a server here; those of clients by server are at most 15 s old. Every 10 s members whose
 * entry has expired leave the sets, and clients' entries without a life get one (incident 44; generation 2026 with client_ttl_ms).
 *
 * One thread. The store must outlive it, and calls that are under way must be over or dropped: free the service first, then this, then close the store.
 *
 *     rc = disc_service_new(&d, &cfg);
 *     struct service_cfg s = {.drive = drive, .env = env, .routes = disc_service_routes, .n_routes = disc_service_n_routes, .app = d, .dropped = disc_service_dropped};
 *     rc = service_new(&service, &s);
 */
#pragma once

#include "compat-http/service.h"
#include "compat-http/uptime.h"
#include "store/kv.h"
#include "transport/entry.h"

enum disc_generation { DISC_2023, DISC_2024, DISC_2026 };

struct disc_service;

struct disc_service_cfg {
    struct env *env;
    struct loop *loop;
    struct kv *kv;
    enum disc_generation generation;
    bool test_mode;    /* servers may have loopback addresses */
    bool load_testing; /* no signature, time and sequence is checked */
    const char *auth;  /* passphrase of official servers; "" = none; kept */
    const struct pubkey *official;
    size_t n_official;
    const char *const *monitors; /* keys that may deregister */
    size_t n_monitors;
    uint64_t client_ttl_ms;   /* 0 = for ever */
    uint64_t gather_ns;       /* heartbeats (2026) are written together after this time; 0 = soon */
    const char *dmsg_address; /* "PK:80" for /health; NULL = none */
    /* Optional: the store is a view of something else, which is not swept, and this is its kv_get() for lists: it asks nobody else. */
    int (*peek)(struct kv *kv, const struct kv_str *keys, size_t n, kv_done_fn *fn, void *arg);
    /* Optional: an entry was stored, or is gone. */
    void (*stored)(void *arg, const struct entry *e, const char *text, size_t n);
    void (*deleted)(void *arg, const struct pubkey *pk);
    /* Its owner took it back, by this signed entry. */
    void (*taken_back)(void *arg, const struct entry *e);
    void *arg;
};

struct disc_service_stat {
    size_t clients, servers, waiting; /* gauges, the first two as of the last sweep */
    uint64_t posts, refused, deletes, gets, misses, lists, store_errors;
    struct uptime_stat uptime;
};

extern const struct service_route disc_service_routes[];
extern const size_t disc_service_n_routes;

/* 0, ERR_NOMEM. Lists of keys and texts in cfg are kept, not copied. */
int disc_service_new(struct disc_service **out, const struct disc_service_cfg *cfg)
    __attribute__((warn_unused_result));
void disc_service_free(struct disc_service *d);
/* For service_cfg.dropped: the request's answer is not needed any more. */
void disc_service_dropped(struct service_req *q);
void disc_service_stat(const struct disc_service *d, struct disc_service_stat *out);
