#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "compat-http/disc_int.h"
#include "compat-http/httpauth.h"

#define BATCH_MAX 1000

/* ---- one entry ---- */

static void on_entry(void *arg, const struct kv_answer *a)
{
    struct disc_job *j = arg;
    j->d->stat.gets++;
    if (a->err != 0) {
        disc_store_failed(j, a->err);
        return;
    }
    if (a->n == 0 || a->v[0].p == NULL) {
        j->d->stat.misses++;
        disc_finish(j, DISC_NO_ENTRY);
        return;
    }
    struct kv_str v = disc_is_entry(a->v[0]) ? a->v[0] : KV_STR("null");
    if (j->q != NULL)
        service_answer(j->q, 200, SERVICE_JSON, v.p, v.n);
    j->q = NULL;
    disc_job_free(j);
}

void disc_get(struct service_req *q)
{
    struct disc_service *d = q->app;
    struct pubkey pk;
    if (pubkey_from_json_text(&pk, q->param[0], strlen(q->param[0])) < 0) {
        disc_say(q, DISC_BAD_INPUT);
        return;
    }
    struct disc_job *j = disc_job_new(d, DISC_JOB_GET, q);
    if (j == NULL) {
        disc_say(q, DISC_UNEXPECTED);
        return;
    }
    pubkey_hex(j->hex, &pk);
    struct kv_str key = disc_key(j->hex);
    disc_try(j, kv_get(d->cfg.kv, &key, 1, on_entry, j));
}

/* ---- lists of keys in a body ---- */

/* A JSON list of texts, at most max; the caller frees both. ERR_FORMAT, ERR_LIMIT. */
static int read_texts(const struct service_req *q, char ***out, size_t *n, size_t max)
{
    struct json_in j = json_in_init(q->body, q->body_len);
    char text[256];
    size_t len, cap = 0;
    *out = NULL;
    *n = 0;
    int rc = 0;
    if (json_in_peek(&j) != JSON_TOK_ARRAY)
        return ERR_FORMAT;
    (void)json_in_array(&j);
    while (rc == 0 && json_in_element(&j)) {
        if (json_in_peek(&j) != JSON_TOK_STRING)
            rc = ERR_FORMAT;
        else if (*n == max)
            rc = ERR_LIMIT;
        else if (json_in_string(&j, text, sizeof(text), &len)) {
            if (*n == cap) {
                cap = cap != 0 ? 2 * cap : 16;
                char **more = realloc(*out, cap * sizeof(char *));
                if (more == NULL)
                    return ERR_NOMEM;
                *out = more;
            }
            if (((*out)[*n] = strndup(text, len)) == NULL)
                return ERR_NOMEM;
            (*n)++;
        }
    }
    return rc != 0 ? rc : j.err != 0 ? ERR_FORMAT : 0;
}

static void on_batch(void *arg, const struct kv_answer *a)
{
    struct disc_job *j = arg;
    struct json_out o;
    if (a->err != 0) {
        disc_store_failed(j, a->err);
        return;
    }
    json_out_grow(&o, JSON_FAST, DISC_ANSWER_MAX);
    json_out_object(&o);
    for (size_t i = 0; i < a->n && i < j->n; i++) {
        if (a->v[i].p == NULL || !disc_is_entry(a->v[i]))
            continue;
        json_out_name(&o, j->names[i]);
        json_out_raw(&o, a->v[i].p, a->v[i].n);
    }
    json_out_object_end(&o);
    disc_finish_json(j, &o);
}

/* The job's texts as keys of the store; those that are no keys leave the list. False when there was one. */
static bool names_to_keys(struct disc_job *j)
{
    size_t n = 0;
    bool good = true;
    j->keys = malloc(j->n * PUBKEY_HEX + 1);
    if (j->keys == NULL)
        return false;
    for (size_t i = 0; i < j->n; i++) {
        struct pubkey pk;
        char hex[PUBKEY_HEX + 1];
        if (pubkey_from_json_text(&pk, j->names[i], strlen(j->names[i])) < 0) {
            free(j->names[i]);
            good = false;
            continue;
        }
        memcpy(j->keys + n * PUBKEY_HEX, pubkey_hex(hex, &pk), PUBKEY_HEX);
        j->names[n++] = j->names[i];
    }
    j->n = n;
    return good;
}

void disc_batch(struct service_req *q)
{
    struct disc_service *d = q->app;
    struct disc_job *j = disc_job_new(d, DISC_JOB_BATCH, q);
    if (j == NULL) {
        disc_say(q, DISC_UNEXPECTED);
        return;
    }
    if (read_texts(q, &j->names, &j->n, BATCH_MAX) < 0) {
        disc_finish(j, DISC_BAD_INPUT);
        return;
    }
    (void)names_to_keys(j);
    struct kv_str *keys = calloc(j->n + 1, sizeof(*keys));
    if (keys == NULL || j->keys == NULL) {
        free(keys);
        disc_finish(j, DISC_UNEXPECTED);
        return;
    }
    for (size_t i = 0; i < j->n; i++)
        keys[i] = disc_key(j->keys + i * PUBKEY_HEX);
    disc_try(j, kv_get(d->cfg.kv, keys, j->n, on_batch, j));
    free(keys);
}

static void on_deregistered(void *arg, const struct kv_answer *a)
{
    struct disc_job *j = arg;
    struct disc_service *d = j->d;
    struct pubkey pk;
    if (a->err != 0) {
        disc_store_failed(j, a->err);
        return;
    }
    disc_lists_forget(d);
    for (size_t i = 0; d->cfg.deleted != NULL && i < j->n; i++)
        if (pubkey_from_hex(&pk, j->keys + i * PUBKEY_HEX, PUBKEY_HEX) == 0)
            d->cfg.deleted(d->cfg.arg, &pk);
    if (j->q != NULL)
        service_answer_text(j->q, 200, SERVICE_JSON, "null");
    j->q = NULL;
    disc_job_free(j);
}

void disc_deregister(struct service_req *q)
{
    struct disc_service *d = q->app;
    unsigned status = httpauth_monitor(q, d->cfg.monitors, d->cfg.n_monitors);
    struct disc_job *j = status == 0 ? disc_job_new(d, DISC_JOB_DEREGISTER, q) : NULL;
    if (j == NULL) {
        service_answer(q, status != 0 ? status : 500, NULL, "", 0);
        return;
    }
    if (read_texts(q, &j->names, &j->n, KV_OPS_MAX / 4) < 0) {
        service_answer(q, 400, NULL, "", 0);
        j->q = NULL;
        disc_job_free(j);
        return;
    }
    if (!names_to_keys(j)) {
        disc_finish(j, DISC_BAD_INPUT);
        return;
    }
    disc_try(j, disc_layout_delete(d, j->keys, j->n, on_deregistered, j));
}
