#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "compat-http/disc_int.h"

#define SERVERS_LISTED 512
#define LIST_NS        NS_PER_S

void disc_lists_forget(struct disc_service *d)
{
    d->available.until_ns = d->all.until_ns = 0;
}

/* ---- keys ---- */

static void on_keys(void *arg, const struct kv_answer *a)
{
    struct disc_job *j = arg;
    struct json_out o;
    if (a->err != 0) {
        disc_store_failed(j, a->err);
        return;
    }
    json_out_grow(&o, JSON_FAST, DISC_ANSWER_MAX);
    json_out_array(&o);
    for (size_t i = 0; i < a->n; i++)
        json_out_string(&o, a->v[i].p, a->v[i].n);
    json_out_array_end(&o);
    disc_finish_json(j, &o);
}

static void list_keys(struct service_req *q, struct kv_str set)
{
    struct disc_service *d = q->app;
    struct disc_job *j = disc_job_new(d, DISC_JOB_KEYS, q);
    d->stat.lists++;
    if (j == NULL)
        disc_say(q, DISC_UNEXPECTED);
    else
        disc_try(j, kv_members(d->cfg.kv, set, on_keys, j));
}

void disc_list_clients(struct service_req *q)
{
    list_keys(q, disc_clients);
}

void disc_list_visors(struct service_req *q)
{
    list_keys(q, disc_visors);
}

/* ---- servers ---- */

struct listed {
    int64_t sessions;
    struct kv_str text;
};

static int by_sessions(const void *a, const void *b)
{
    const struct listed *x = a, *y = b;
    return x->sessions < y->sessions ? 1 : x->sessions > y->sessions ? -1 : 0;
}

static void answer_list(struct disc_job *j, const struct disc_made *m)
{
    if (m->count == 0) {
        disc_finish(j, DISC_NO_SERVERS);
        return;
    }
    if (j->q != NULL)
        service_answer(j->q, 200, SERVICE_JSON, m->text, m->n);
    j->q = NULL;
    disc_job_free(j);
}

static size_t pick_listed(struct listed *l, const struct kv_answer *a, bool all)
{
    size_t n = 0;
    for (size_t i = 0; i < a->n; i++) {
        struct entry *e;
        if (a->v[i].p == NULL || !disc_is_entry(a->v[i]))
            continue;
        l[n] = (struct listed){0, a->v[i]};
        if (all) {
            n++;
            continue;
        }
        if (entry_parse(&e, a->v[i].p, a->v[i].n) < 0)
            continue;
        l[n].sessions = e->server.available_sessions;
        n += e->has_server && e->server.available_sessions > 0;
        entry_free(e);
    }
    if (!all)
        qsort(l, n, sizeof(*l), by_sessions);
    return n;
}

static void on_servers(void *arg, const struct kv_answer *a)
{
    struct disc_job *j = arg;
    struct disc_service *d = j->d;
    struct disc_made *m = j->all ? &d->all : &d->available;
    struct listed *l = calloc(a->n + 1, sizeof(*l));
    struct json_out o;
    if (a->err != 0 || l == NULL) {
        free(l);
        disc_store_failed(j, a->err != 0 ? a->err : ERR_NOMEM);
        return;
    }
    size_t n = pick_listed(l, a, j->all);
    json_out_grow(&o, JSON_FAST, DISC_ANSWER_MAX);
    json_out_array(&o);
    for (size_t i = 0; i < n; i++)
        json_out_raw(&o, l[i].text.p, l[i].text.n);
    json_out_array_end(&o);
    free(l);
    if (o.err != 0) {
        json_out_free(&o);
        disc_finish(j, DISC_UNEXPECTED);
        return;
    }
    free(m->text);
    *m = (struct disc_made){o.p, o.len, n, d->cfg.loop->now_ns + LIST_NS};
    answer_list(j, m);
}

/* In an order of chance; of the available ones at most 512, taken before it is looked at them. */
static void on_server_keys(void *arg, const struct kv_answer *a)
{
    struct disc_job *j = arg;
    struct disc_service *d = j->d;
    struct kv_str *keys = calloc(a->n + 1, sizeof(*keys));
    size_t n = a->n;
    if (a->err != 0 || keys == NULL) {
        free(keys);
        disc_store_failed(j, a->err != 0 ? a->err : ERR_NOMEM);
        return;
    }
    /* They point into the answer: the next call copies them, or is over before this one. */
    if (n > 0)
        memcpy(keys, a->v, n * sizeof(*keys));
    for (size_t i = n; i > 1; i--) {
        size_t k = (size_t)env_random_below(d->cfg.env, i);
        struct kv_str t = keys[i - 1];
        keys[i - 1] = keys[k];
        keys[k] = t;
    }
    if (!j->all && n > SERVERS_LISTED)
        n = SERVERS_LISTED;
    disc_try(j, disc_peek(d, keys, n, on_servers, j));
    free(keys);
}

static void list_servers(struct service_req *q, bool all)
{
    struct disc_service *d = q->app;
    struct disc_job *j = disc_job_new(d, DISC_JOB_LIST, q);
    const struct disc_made *m = all ? &d->all : &d->available;
    d->stat.lists++;
    if (j == NULL) {
        disc_say(q, DISC_UNEXPECTED);
        return;
    }
    j->all = all;
    if (m->until_ns > d->cfg.loop->now_ns)
        answer_list(j, m);
    else
        disc_try(j, kv_members(d->cfg.kv, disc_servers, on_server_keys, j));
}

void disc_list_available(struct service_req *q)
{
    list_servers(q, false);
}

void disc_list_servers(struct service_req *q)
{
    list_servers(q, true);
}
