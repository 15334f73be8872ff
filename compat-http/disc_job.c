#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"
#include "base/log.h"
#include "compat-http/disc_int.h"

struct disc_job *disc_job_new(struct disc_service *d, enum disc_kind kind, struct service_req *q)
{
    struct disc_job *j = calloc(1, sizeof(*j));
    if (j == NULL)
        return NULL;
    j->d = d;
    j->kind = kind;
    j->q = q;
    if (q != NULL)
        q->user = j;
    list_push_back(&d->jobs, &j->node);
    d->stat.waiting++;
    return j;
}

void disc_job_free(struct disc_job *j)
{
    env_pk_cancel(j->d->cfg.env, &j->wait);
    if (j->q != NULL)
        j->q->user = NULL;
    list_remove(&j->turn);
    disc_turn_end(j);
    list_remove(&j->node);
    j->d->stat.waiting--;
    entry_free(j->entry);
    for (size_t i = 0; j->names != NULL && i < j->n; i++)
        free(j->names[i]);
    free(j->names);
    free(j->keys);
    free(j->text);
    free(j);
}

void disc_say(struct service_req *q, enum disc_text t)
{
    char text[200];
    int n = snprintf(text, sizeof(text), "{\"message\":\"%s\",\"code\":%u}", disc_text_message(t),
                     disc_text_status(t));
    service_answer(q, disc_text_status(t), SERVICE_JSON, text, (size_t)n);
}

void disc_finish(struct disc_job *j, enum disc_text t)
{
    j->d->stat.refused +=
        disc_text_err(t) != 0 && (j->kind == DISC_JOB_SET || j->kind == DISC_JOB_DELETE);
    if (j->q != NULL)
        disc_say(j->q, t);
    j->q = NULL;
    disc_job_free(j);
}

void disc_finish_json(struct disc_job *j, struct json_out *o)
{
    if (o->err != 0) {
        json_out_free(o);
        disc_finish(j, DISC_UNEXPECTED);
        return;
    }
    if (j->q != NULL)
        service_answer_owned(j->q, 200, SERVICE_JSON, o->p, o->len);
    else
        json_out_free(o);
    j->q = NULL;
    disc_job_free(j);
}

/* The store did not do it. */
void disc_store_failed(struct disc_job *j, int err)
{
    j->d->stat.store_errors++;
    log_limited_here(LOG_HTTP, LOG_LEVEL_WARN, "store of the discovery reason=\"%s\"",
                     err_str(err));
    disc_finish(j, DISC_UNEXPECTED);
}

/* For calls into the store: when it refuses at once. */
void disc_try(struct disc_job *j, int rc)
{
    if (rc < 0)
        disc_store_failed(j, rc);
}
