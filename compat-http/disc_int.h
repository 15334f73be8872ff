/*
 * disc_int - what the parts of the discovery see of each other. Private to disc_*.c of the service.
 *
 *     disc_service.c  routes, /health, life            disc_layout.c   what a registration writes (§3.4)
 *     disc_job.c      jobs and how they end            disc_uptime.c   who was seen when
 *     disc_check.c    checks, the text that is kept    disc_entries.c  one entry, batch, deregistration
 *     disc_write.c    registration and deletion        disc_lists.c    keys, servers
 *     disc_sweep.c    what has expired                 disc_clients.c  clients by server
 *
 * A job exists as long as the store, the signature or its turn may call back; its request may be dropped before (job.q NULL).
 */
#pragma once

#include "base/json.h"
#include "base/list.h"
#include "base/map.h"
#include "compat-http/disc_service.h"
#include "compat-http/disc_text.h"

#define DISC_ANSWER_MAX ((size_t)256 << 20)

enum disc_kind {
    DISC_JOB_SET,
    DISC_JOB_DELETE,
    DISC_JOB_GET,
    DISC_JOB_KEYS,
    DISC_JOB_LIST, /* servers */
    DISC_JOB_BATCH,
    DISC_JOB_DEREGISTER,
    DISC_JOB_SNAPSHOT,
    DISC_JOB_SWEEP,
    DISC_JOB_UPTIME,
};

struct disc_job {
    struct list_node node; /* in service->jobs */
    struct list_node turn; /* in turn->queue while it waits for its key */
    struct disc_service *d;
    enum disc_kind kind;
    struct service_req *q; /* NULL: nobody waits for the answer */
    struct entry *entry;
    char *text; /* what is stored */
    size_t text_len;
    struct hash digest[2];
    int n_digest, at;
    struct pk_wait wait;
    bool has_turn, existed, was_server, all, clients;
    struct pubkey pk;
    char hex[PUBKEY_HEX + 1];
    char *keys;   /* lists of keys: n of PUBKEY_HEX each */
    char **names; /* batch: as they were sent */
    size_t n;
};

struct disc_turn { /* a key that is being written */
    struct pubkey pk;
    struct list queue;
};

struct disc_made { /* a list that is kept for a moment */
    char *text;
    size_t n, count;
    uint64_t until_ns;
};

struct disc_pair {
    struct pubkey server, client;
};

struct disc_service {
    struct disc_service_cfg cfg;
    struct list jobs;
    struct map turns;
    struct disc_made available, all;
    struct disc_pair *pair; /* sorted */
    size_t n_pairs;
    uint64_t pairs_ns;
    bool snapshot_under_way, sweep_under_way;
    struct list waiting; /* jobs that wait for the snapshot */
    struct loop_timer sweep;
    struct uptime *uptime; /* NULL before 2026 */
    char started[64];
    struct disc_service_stat stat;
};

/* ---- disc_job.c ---- */

/* NULL: no memory. */
struct disc_job *disc_job_new(struct disc_service *d, enum disc_kind kind, struct service_req *q);
void disc_job_free(struct disc_job *j);
/* Answers and ends: a text of the protocol; a JSON text (freed here); an error of the store. */
void disc_finish(struct disc_job *j, enum disc_text t);
void disc_finish_json(struct disc_job *j, struct json_out *o);
void disc_store_failed(struct disc_job *j, int err);
/* For what a call into the store returned: ends the job when it refused at once. */
void disc_try(struct disc_job *j, int rc);
/* For requests without a job. */
void disc_say(struct service_req *q, enum disc_text t);

/* ---- disc_check.c ---- */

/* Only the first JSON value of the body counts. As entry_parse(). */
int disc_check_parse(struct entry **out, const char *body, size_t n);
/* §3.2, steps 2 and 3. DISC_WROTE_NEW when all is well. */
enum disc_text disc_check_entry(const struct disc_service *d, const struct entry *e, bool setting);
/* Makes the text that is stored of a verified entry. 0, ERR_NOMEM. */
int disc_check_text(struct disc_job *j);

/* ---- disc_layout.c, §3.4 ---- */

extern const struct kv_str disc_servers, disc_clients, disc_visors;

struct kv_str disc_key(const char *hex);
/* kv_get() for lists. */
int disc_peek(struct disc_service *d, const struct kv_str *keys, size_t n, kv_done_fn *fn,
              void *arg);
/* A stored value that may be served. */
bool disc_is_entry(struct kv_str v);
/* Writes the job's entry; fn(job). */
void disc_layout_set(struct disc_job *j, kv_done_fn *fn);
/* Takes n keys of PUBKEY_HEX each away. As kv_write(), ERR_NOMEM. */
int disc_layout_delete(struct disc_service *d, const char *hex, size_t n, kv_done_fn *fn,
                       void *arg);

/* ---- the others ---- */

/* The key's turn is over: whoever waits for it goes on. */
void disc_turn_end(struct disc_job *j);
/* d->uptime; none before 2026. 0, ERR_NOMEM. */
int disc_uptime_new(struct disc_service *d);
/* Servers have changed. */
void disc_lists_forget(struct disc_service *d);
void disc_on_sweep(struct loop_timer *t);

service_handler disc_get, disc_set, disc_delete, disc_batch, disc_deregister;
service_handler disc_list_clients, disc_list_visors, disc_list_available, disc_list_servers;
service_handler disc_clients_by_server, disc_clients_of, disc_uptimes_get, disc_uptimes_post;
