/*
 * /uptimes of 2026: a client that registers was seen.
 */
#include <stdlib.h>

#include "base/err.h"
#include "compat-http/disc_int.h"

#define HEARTBEATS 288 /* of a day */

static bool is_online(void *arg, const struct pubkey *pk, struct kv_str value)
{
    struct entry *e;
    (void)arg, (void)pk;
    if (value.p == NULL || entry_parse(&e, value.p, value.n) < 0)
        return false;
    bool online = e->has_client && e->client.n_delegated > 0;
    entry_free(e);
    return online;
}

int disc_uptime_new(struct disc_service *d)
{
    struct uptime_cfg cfg = {
        .env = d->cfg.env,
        .loop = d->cfg.loop,
        .kv = d->cfg.kv,
        .prefix = "dmsgd",
        .expected = HEARTBEATS,
        .gather_ns = d->cfg.gather_ns,
        .online = is_online,
    };
    return d->cfg.generation >= DISC_2026 ? uptime_new(&d->uptime, &cfg) : 0;
}

static void on_list(void *arg, int err, const char *text, size_t n)
{
    struct disc_job *j = arg;
    if (err != 0) {
        disc_store_failed(j, err);
        return;
    }
    if (j->q != NULL)
        service_answer(j->q, 200, SERVICE_JSON, text, n);
    j->q = NULL;
    disc_job_free(j);
}

static void list(struct service_req *q, struct uptime_spec *spec)
{
    struct disc_service *d = q->app;
    struct disc_job *j = disc_job_new(d, DISC_JOB_UPTIME, q);
    d->stat.lists++;
    if (j == NULL)
        disc_say(q, DISC_UNEXPECTED);
    else
        disc_try(j, uptime_list(d->uptime, spec, on_list, j));
    free(spec->pk);
}

void disc_uptimes_get(struct service_req *q)
{
    struct disc_service *d = q->app;
    struct uptime_spec spec;
    if (d->uptime == NULL)
        service_answer_unknown(q);
    else if (uptime_spec_query(&spec, q) < 0)
        disc_say(q, DISC_BAD_INPUT);
    else
        list(q, &spec);
}

void disc_uptimes_post(struct service_req *q)
{
    struct disc_service *d = q->app;
    struct uptime_spec spec;
    if (d->uptime == NULL)
        service_answer_unknown(q);
    else if (uptime_spec_body(&spec, q->body, q->body_len) < 0)
        service_answer_text(q, 400, SERVICE_JSON, "{\"error\":\"invalid JSON body\"}");
    else
        list(q, &spec);
}
