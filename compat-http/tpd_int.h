/*
 * tpd_int - what the parts of the transport discovery see of each other. Private to tpd_*.c of the service.
 *
 *     tpd_service.c  routes, /health, clocks, life        tpd_table.c   what is known
 *     tpd_job.c      requests that write, answers         tpd_layout.c  what is kept where
 *     tpd_reg.c      registration, deletion, heartbeats   tpd_body.c    what bodies say
 *     tpd_lists.c    lists of transports                  tpd_load.c    reading the store, writing what it misses
 *     tpd_stats.c    counts, versions, bandwidth           tpd_uptime.c  which transports were up when
 *
 * A request that writes is a job:
 *
 *     proved (httpauth, turn of the key) -> checks against the table -> write, with the nonce when the answer is 200 -> table -> answer
 *
 * A job exists as long as the store or its turn may call back; its request may be dropped before (job.q NULL).
 */
#pragma once

#include "compat-http/health_text.h"
#include "compat-http/nonce_book.h"
#include "compat-http/rate.h"
#include "compat-http/tpd_body.h"
#include "compat-http/tpd_layout.h"
#include "compat-http/tpd_service.h"
#include "compat-http/uptime.h"

#define TPD_ANSWER_MAX ((size_t)256 << 20)
#define TPD_WAITING    4096
#define TPD_SLOT_S     300
#define TPD_VERSION    32
#define TPD_VISORS     ((size_t)1 << 18)

struct tpd_job {
    struct list_node node; /* in service->jobs */
    struct list_node wait; /* for a list that is being made */
    struct tpd_service *t;
    struct service_req *q;
    struct nonce_turn turn;
    void (*proved)(struct tpd_job *j); /* httpauth went well; reads job.turn.pk */
    void (*done)(struct tpd_job *j);   /* the write is acknowledged; optional */
    struct tpd_body in;
    struct kv_batch batch;
    void *extra; /* the endpoint's; freed with the job, by free() or extra_free() */
    void (*extra_free)(void *extra);
    unsigned status;
    const char *type;
    char *body; /* of the answer; owned */
    size_t len;
};

struct tpd_visor {
    struct pubkey pk;
    char version[TPD_VERSION];
    int64_t seen_s;
};

struct tpd_load; /* tpd_load.c */
struct tpd_made; /* tpd_lists.c */

struct tpd_service {
    struct tpd_service_cfg cfg;
    struct kv *nonces;
    uint64_t ttl_ns; /* 0: for ever */
    struct nonce_book book;
    struct tpd_table table;
    struct map visors;
    struct uptime *uptime; /* TPD_2026 */
    struct rate rate;
    struct list jobs;
    struct loop_timer tick;
    struct loop_task tell;
    struct list seen; /* transports that are to be noted as up */
    struct loop_timer write_seen;
    bool shared; /* others read the store too */
    struct tpd_load *load;
    struct tpd_made *made;
    int64_t visors_s; /* when those that were not seen were forgotten last */
    uint64_t
        complete_ns; /* an empty store at the start: before this, not everybody has registered again (incident 70) */
    char started[HEALTH_TIME];
    struct tpd_service_stat stat;
};

/* ---- tpd_service.c ---- */

/* May this request be served now? Else it was answered (429, 503). */
bool tpd_begin(struct service_req *q);
/* It was registered: that it was up is noted soon. */
void tpd_seen(struct tpd_service *t, struct tpd_tp *tp);
/* The table has changed: changed() is told at the end of the turn. */
void tpd_tell(struct tpd_service *t);
static inline int64_t tpd_now_s(const struct tpd_service *t)
{
    return env_wall_ns(t->cfg.env) / 1000000000;
}

/* ---- tpd_job.c ---- */

/* The type of answers that upstream gives none. */
const char *tpd_type(const struct tpd_service *t);
enum json_dialect tpd_dialect(const struct tpd_service *t);
/* Lists of upstream's end in one. */
void tpd_line_end(struct json_out *o);
/* For requests without a job: {"error":"…"}, text "" = no body; a finished value with a line end, which is freed. */
void tpd_answer_error(struct service_req *q, unsigned status, const char *text);
void tpd_answer_json(struct service_req *q, unsigned status, struct json_out *o);
/* A job that goes on in proved() when the request's httpauth is good. */
void tpd_authorize(struct service_req *q, void (*proved)(struct tpd_job *j));
/* One that needs none. NULL: it was answered. */
struct tpd_job *tpd_job_new(struct tpd_service *t, struct service_req *q);
void tpd_job_free(struct tpd_job *j);
/* What a job is going to answer when its write is done. */
void tpd_job_error(struct tpd_job *j, unsigned status, const char *text);
void tpd_job_text(struct tpd_job *j, unsigned status, const char *type, const char *text);
void tpd_job_json(struct tpd_job *j, unsigned status, struct json_out *o);
/* Write the batch (and the nonce, when the answer is 200), then done(), then answer. The job is gone afterwards, or later. */
void tpd_job_commit(struct tpd_job *j);

/* ---- tpd_reg.c ---- */

void tpd_handle_register(struct service_req *q);
void tpd_handle_register_v3(struct service_req *q);
void tpd_handle_delete(struct service_req *q);
void tpd_handle_delete_batch(struct service_req *q);
void tpd_handle_deregister(struct service_req *q);
void tpd_handle_heartbeat(struct service_req *q);
/* Is this visor up: has it two transports that do not need dmsg? */
bool tpd_visor_on(const struct tpd_service *t, const struct pubkey *pk);
void tpd_visors_free(struct tpd_service *t);
struct tpd_visor *tpd_visor_make(struct tpd_service *t, const struct pubkey *pk);

/* ---- tpd_lists.c ---- */

void tpd_handle_id(struct service_req *q);
void tpd_handle_edge(struct service_req *q);
void tpd_handle_edge_v3(struct service_req *q);
void tpd_handle_edges(struct service_req *q);
void tpd_handle_all(struct service_req *q);
void tpd_made_free(struct tpd_service *t);

/* ---- tpd_stats.c ---- */

void tpd_handle_stats(struct service_req *q);
void tpd_handle_key_stats(struct service_req *q);
void tpd_handle_stats_of(struct service_req *q);
void tpd_handle_uptimes_get(struct service_req *q);
void tpd_handle_uptimes_post(struct service_req *q);
void tpd_handle_version(struct service_req *q);
void tpd_handle_versions(struct service_req *q);
void tpd_handle_bandwidth_tp(struct service_req *q);
void tpd_handle_bandwidth_visor(struct service_req *q);
void tpd_handle_metric(struct service_req *q);
void tpd_handle_metrics(struct service_req *q);
void tpd_handle_metrics_visor(struct service_req *q);
/* {"type":number,…} of all transports. */
void tpd_write_counts(struct json_out *o, const struct tpd_service *t);

/* ---- tpd_uptime.c ---- */

void tpd_handle_tp_uptimes_get(struct service_req *q);
void tpd_handle_tp_uptimes_post(struct service_req *q);

/* ---- tpd_load.c ---- */

/* Read the store, unless it was read or is being read. */
void tpd_load_start(struct tpd_service *t);
/* Write what the store misses of the table. */
void tpd_restore_start(struct tpd_service *t);
void tpd_load_free(struct tpd_service *t);
