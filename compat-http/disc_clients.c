/*
 * Lists of clients by server, from one snapshot at most 15 s old; whoever asks while it is made waits for it.
 */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "compat-http/disc_int.h"

#define SNAPSHOT_NS (15 * NS_PER_S)

static int by_server(const void *a, const void *b)
{
    const struct disc_pair *x = a, *y = b;
    int c = pubkey_cmp(&x->server, &y->server);
    return c != 0 ? c : pubkey_cmp(&x->client, &y->client);
}

static void write_clients(struct json_out *o, const struct disc_pair *p, size_t n)
{
    json_out_array(o);
    for (size_t i = 0; i < n; i++)
        json_out_hex(o, p[i].client.b, PUBKEY_BYTES);
    json_out_array_end(o);
}

/* Pairs of the server at i: how many. */
static size_t run_of(const struct disc_service *d, size_t i)
{
    size_t n = 1;
    while (i + n < d->n_pairs && pubkey_equal(&d->pair[i].server, &d->pair[i + n].server))
        n++;
    return n;
}

static void answer_clients(struct disc_job *j)
{
    struct disc_service *d = j->d;
    struct json_out o;
    size_t i = 0, n;
    json_out_grow(&o, JSON_FAST, DISC_ANSWER_MAX);
    if (j->all)
        json_out_object(&o);
    bool found = false;
    for (; i < d->n_pairs; i += n) {
        n = run_of(d, i);
        char hex[PUBKEY_HEX + 1];
        if (j->all)
            json_out_name(&o, pubkey_hex(hex, &d->pair[i].server));
        else if (!pubkey_equal(&d->pair[i].server, &j->pk))
            continue;
        found = true;
        write_clients(&o, &d->pair[i], n);
    }
    if (j->all)
        json_out_object_end(&o);
    else if (!found)
        json_out_null(&o);
    disc_finish_json(j, &o);
}

static void snapshot_over(struct disc_job *s, int err)
{
    struct disc_service *d = s->d;
    struct list waiting;
    struct disc_job *j;
    list_init(&waiting);
    list_splice(&waiting, &d->waiting);
    d->snapshot_under_way = false;
    disc_job_free(s);
    while ((j = list_pop_front_as(&waiting, struct disc_job, turn)) != NULL) {
        if (err != 0)
            disc_store_failed(j, err);
        else
            answer_clients(j);
    }
}

static bool add_pairs(struct disc_service *d, const struct entry *e, size_t *cap)
{
    size_t n = e->has_client ? e->client.n_delegated : 0;
    if (d->n_pairs + n > *cap) {
        size_t want = 2 * (d->n_pairs + n) + 64;
        struct disc_pair *more = realloc(d->pair, want * sizeof(*more));
        if (more == NULL)
            return false;
        d->pair = more;
        *cap = want;
    }
    for (size_t i = 0; i < n; i++)
        d->pair[d->n_pairs++] = (struct disc_pair){e->client.delegated[i], e->static_pk};
    return true;
}

static void on_client_entries(void *arg, const struct kv_answer *a)
{
    struct disc_job *s = arg;
    struct disc_service *d = s->d;
    size_t cap = 0;
    bool ok = a->err == 0;
    free(d->pair);
    d->pair = NULL;
    d->n_pairs = 0;
    for (size_t i = 0; ok && i < a->n; i++) {
        struct entry *e;
        if (a->v[i].p == NULL || entry_parse(&e, a->v[i].p, a->v[i].n) < 0)
            continue;
        ok = add_pairs(d, e, &cap);
        entry_free(e);
    }
    if (d->n_pairs > 0)
        qsort(d->pair, d->n_pairs, sizeof(*d->pair), by_server);
    d->pairs_ns = ok ? d->cfg.loop->now_ns + SNAPSHOT_NS : 0;
    snapshot_over(s, a->err != 0 ? a->err : ok ? 0 : ERR_NOMEM);
}

static void on_client_keys(void *arg, const struct kv_answer *a)
{
    struct disc_job *s = arg;
    int rc = a->err != 0 ? a->err : disc_peek(s->d, a->v, a->n, on_client_entries, s);
    if (rc < 0)
        snapshot_over(s, rc);
}

static void list_clients(struct service_req *q, const struct pubkey *of)
{
    struct disc_service *d = q->app;
    struct disc_job *j = disc_job_new(d, DISC_JOB_SNAPSHOT, q);
    d->stat.lists++;
    if (j == NULL) {
        disc_say(q, DISC_UNEXPECTED);
        return;
    }
    j->all = of == NULL;
    if (of != NULL)
        j->pk = *of;
    if (d->pairs_ns > d->cfg.loop->now_ns) {
        answer_clients(j);
        return;
    }
    list_push_back(&d->waiting, &j->turn);
    if (d->snapshot_under_way)
        return;
    struct disc_job *s = disc_job_new(d, DISC_JOB_SNAPSHOT, NULL);
    if (s == NULL) {
        disc_finish(j, DISC_UNEXPECTED);
        return;
    }
    d->snapshot_under_way = true;
    int rc = kv_members(d->cfg.kv, disc_clients, on_client_keys, s);
    if (rc < 0)
        snapshot_over(s, rc);
}

void disc_clients_by_server(struct service_req *q)
{
    list_clients(q, NULL);
}

void disc_clients_of(struct service_req *q)
{
    struct pubkey pk;
    if (pubkey_from_json_text(&pk, q->param[0], strlen(q->param[0])) < 0)
        disc_say(q, DISC_BAD_INPUT);
    else
        list_clients(q, &pk);
}
