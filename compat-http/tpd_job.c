#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "compat-http/tpd_int.h"

/* ---- answers ---- */

const char *tpd_type(const struct tpd_service *t)
{
    return t->cfg.generation == TPD_2024 ? SERVICE_PLAIN : SERVICE_JSON;
}

enum json_dialect tpd_dialect(const struct tpd_service *t)
{
    return t->cfg.generation == TPD_2024 ? JSON_STD : JSON_FAST;
}

void tpd_line_end(struct json_out *o)
{
    o->comma = false; /* it is no other value */
    json_out_raw(o, "\n", 1);
}

/* Returns its length; 0 for an empty text. */
static size_t error_text(const struct tpd_service *t, char *out, size_t cap, const char *text)
{
    struct json_out o;
    if (*text == '\0')
        return 0;
    json_out_fixed(&o, tpd_dialect(t), out, cap - 1);
    json_out_object(&o);
    json_out_name(&o, "error");
    json_out_str(&o, text);
    json_out_object_end(&o);
    size_t n = o.err == 0 ? o.len : 0;
    out[n] = '\n';
    return n + 1;
}

void tpd_answer_error(struct service_req *q, unsigned status, const char *text)
{
    const struct tpd_service *t = q->app;
    char buf[512];
    size_t n = error_text(t, buf, sizeof(buf), text);
    service_answer(q, status, n > 0 ? tpd_type(t) : NULL, buf, n);
}

void tpd_answer_json(struct service_req *q, unsigned status, struct json_out *o)
{
    tpd_line_end(o);
    if (o->err == 0) {
        service_answer_owned(q, status, tpd_type(q->app), o->p, o->len);
        return;
    }
    json_out_free(o);
    tpd_answer_error(q, 500, err_str(o->err));
}

/* ---- jobs ---- */

struct tpd_job *tpd_job_new(struct tpd_service *t, struct service_req *q)
{
    struct tpd_job *j = t->stat.waiting < TPD_WAITING ? calloc(1, sizeof(*j)) : NULL;
    if (j == NULL) {
        tpd_answer_error(q, 503, err_str(ERR_BUSY));
        return NULL;
    }
    j->t = t;
    j->q = q;
    j->turn.auth.by_channel = true; /* until a turn says otherwise: no nonce is counted */
    q->user = j;
    list_push_back(&t->jobs, &j->node);
    t->stat.waiting++;
    return j;
}

void tpd_job_free(struct tpd_job *j)
{
    nonce_turn_leave(&j->turn);
    if (j->q != NULL)
        j->q->user = NULL;
    list_remove(&j->node);
    list_remove(&j->wait);
    j->t->stat.waiting--;
    tpd_body_free(&j->in);
    kv_batch_free(&j->batch);
    if (j->extra_free != NULL)
        j->extra_free(j->extra);
    else
        free(j->extra);
    free(j->body);
    free(j);
}

void tpd_job_error(struct tpd_job *j, unsigned status, const char *text)
{
    char buf[512];
    size_t n = error_text(j->t, buf, sizeof(buf), text);
    free(j->body);
    j->body = n > 0 ? malloc(n) : NULL;
    j->len = j->body != NULL ? n : 0;
    if (j->body != NULL)
        memcpy(j->body, buf, n);
    j->status = status;
    j->type = n > 0 ? tpd_type(j->t) : NULL;
}

void tpd_job_text(struct tpd_job *j, unsigned status, const char *type, const char *text)
{
    free(j->body);
    j->body = strdup(text);
    j->len = j->body != NULL ? strlen(text) : 0;
    j->status = j->body != NULL ? status : 500;
    j->type = type;
}

void tpd_job_json(struct tpd_job *j, unsigned status, struct json_out *o)
{
    tpd_line_end(o);
    if (o->err != 0) {
        tpd_job_error(j, 500, err_str(o->err));
        json_out_free(o);
        return;
    }
    free(j->body);
    j->body = o->p;
    j->len = o->len;
    j->status = status;
    j->type = tpd_type(j->t);
}

static void answer(struct tpd_job *j)
{
    struct service_req *q = j->q;
    char *body = j->body;
    unsigned status = j->status;
    const char *type = j->type;
    size_t n = j->len;
    j->body = NULL;
    j->q = NULL;
    if (q != NULL)
        q->user = NULL;
    tpd_job_free(j);
    if (q != NULL)
        service_answer_owned(q, status, type, body, n);
    else
        free(body);
}

/* What it was going to say is not true. */
static void store_failed(struct tpd_job *j, int err)
{
    j->t->stat.store_errors++;
    log_limited_here(LOG_HTTP, LOG_LEVEL_WARN, "store of the transport discovery reason=\"%s\"",
                     err_str(err));
    tpd_job_error(j, 500, "the store is not available");
    answer(j);
}

static void finish(struct tpd_job *j)
{
    if (j->done != NULL)
        j->done(j);
    answer(j);
}

static void on_counted(void *arg, const struct kv_answer *a)
{
    struct tpd_job *j = arg;
    if (a->err != 0)
        store_failed(j, a->err);
    else
        finish(j);
}

/* The nonce has a store of its own, or everything is written. */
static void count(struct tpd_job *j)
{
    struct kv_op op[NONCE_OPS];
    size_t n = j->status == 200 && j->t->nonces != j->t->cfg.kv ? nonce_turn_ops(&j->turn, op) : 0;
    int rc = n > 0 ? kv_write(j->t->nonces, op, n, on_counted, j) : 0;
    if (rc < 0)
        store_failed(j, rc);
    else if (n == 0)
        finish(j);
}

static void on_written(void *arg, const struct kv_answer *a)
{
    struct tpd_job *j = arg;
    if (a->err != 0)
        store_failed(j, a->err);
    else
        count(j);
}

void tpd_job_commit(struct tpd_job *j)
{
    struct tpd_service *t = j->t;
    struct kv_op op[NONCE_OPS];
    size_t n = j->status == 200 && t->nonces == t->cfg.kv ? nonce_turn_ops(&j->turn, op) : 0;
    for (size_t i = 0; i < n; i++)
        kv_batch_add(&j->batch, op[i]);
    if (j->batch.n == 0 && j->batch.err == 0) {
        count(j);
        return;
    }
    int rc = kv_batch_write(&j->batch, t->cfg.kv, on_written, j);
    if (rc < 0)
        store_failed(j, rc);
}

/* ---- who asks ---- */

static void on_turn(struct nonce_turn *turn, int err)
{
    struct tpd_job *j = container_of(turn, struct tpd_job, turn);
    if (err == 0) {
        j->proved(j);
        return;
    }
    if (err == ERR_REFUSED) {
        j->t->stat.unauthorized++;
        j->q = NULL; /* answered */
        tpd_job_free(j);
        return;
    }
    if (err == ERR_CANCELLED)
        tpd_job_free(j);
    else
        store_failed(j, err);
}

void tpd_authorize(struct service_req *q, void (*proved)(struct tpd_job *j))
{
    struct tpd_service *t = q->app;
    struct tpd_job *j = tpd_begin(q) ? tpd_job_new(t, q) : NULL;
    if (j == NULL)
        return;
    j->proved = proved;
    j->turn.fn = on_turn;
    nonce_turn_enter(&t->book, &j->turn, q);
}
