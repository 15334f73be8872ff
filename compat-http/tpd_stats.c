#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "compat-http/tpd_int.h"

#define TYPES    64 /* that are counted apart; the rest is "other" */
#define DAYS_MAX 35
#define BAD_ID   "transport ID is invalid"
#define BAD_KEY  "public key is invalid"

/* ---- counts ---- */

struct tally {
    struct {
        const char *type;
        size_t n;
    } row[TYPES];
    size_t n, total;
};

static void tally_add(struct tally *y, const char *type)
{
    size_t i = 0;
    while (i < y->n && strcmp(y->row[i].type, type) != 0)
        i++;
    if (i == TYPES) {
        y->row[i = TYPES - 1].type = "other";
    } else if (i == y->n) {
        y->row[y->n].n = 0;
        y->row[y->n++].type = type;
    }
    y->row[i].n++;
    y->total++;
}

static int by_type(const void *a, const void *b)
{
    const char *const *x = a, *const *y = b; /* first in a row */
    return strcmp(*x, *y);
}

static void tally_write(struct json_out *o, struct tally *y)
{
    qsort(y->row, y->n, sizeof(y->row[0]), by_type);
    for (size_t i = 0; i < y->n; i++) {
        json_out_name(o, y->row[i].type);
        json_out_u64(o, y->row[i].n);
    }
}

static void tally_edge(struct tally *y, const struct tpd_edge *e)
{
    struct tpd_at at = {0};
    struct tpd_tp *tp;
    *y = (struct tally){.n = 0};
    if (e != NULL)
        at = tpd_edge_first(e);
    while (e != NULL && (tp = tpd_edge_next(&at)) != NULL)
        tally_add(y, tp->e.type);
}

static void tally_all(struct tally *y, const struct tpd_service *t)
{
    *y = (struct tally){.n = 0};
    for (struct tpd_tp *tp = NULL; (tp = tpd_table_next(&t->table, tp)) != NULL;)
        tally_add(y, tp->e.type);
}

size_t tpd_service_count(const struct tpd_service *t, const char *type)
{
    size_t n = 0;
    for (struct tpd_tp *tp = NULL; (tp = tpd_table_next(&t->table, tp)) != NULL;)
        n += strcmp(tp->e.type, type) == 0;
    return n;
}

void tpd_write_counts(struct json_out *o, const struct tpd_service *t)
{
    struct tally y;
    tally_all(&y, t);
    json_out_object(o);
    tally_write(o, &y);
    json_out_object_end(o);
}

void tpd_handle_stats(struct service_req *q)
{
    struct tpd_service *t = q->app;
    struct json_out o;
    if (!tpd_begin(q))
        return;
    json_out_grow(&o, JSON_FAST, TPD_ANSWER_MAX);
    json_out_object(&o);
    json_out_name(&o, "total_transports");
    json_out_u64(&o, tpd_table_len(&t->table));
    json_out_name(&o, "by_type");
    tpd_write_counts(&o, t);
    json_out_name(&o, "unique_visors");
    json_out_u64(&o, map_len(&t->table.edges));
    json_out_object_end(&o);
    tpd_answer_json(q, 200, &o);
}

void tpd_handle_key_stats(struct service_req *q)
{
    struct tpd_service *t = q->app;
    struct tpd_edge *e;
    struct json_out o;
    struct tally y;
    char hex[PUBKEY_HEX + 1];
    if (!tpd_begin(q))
        return;
    json_out_grow(&o, JSON_FAST, TPD_ANSWER_MAX);
    json_out_object(&o);
    for (struct map_iter it = map_iter(&t->table.edges); (e = map_next(&it)) != NULL;) {
        if (e->n == 0)
            continue;
        tally_edge(&y, e);
        json_out_name(&o, pubkey_hex(hex, &e->pk));
        json_out_object(&o);
        json_out_name(&o, "total");
        json_out_u64(&o, y.total);
        tally_write(&o, &y);
        json_out_object_end(&o);
    }
    json_out_object_end(&o);
    tpd_answer_json(q, 200, &o);
}

void tpd_handle_stats_of(struct service_req *q)
{
    struct tpd_service *t = q->app;
    struct json_out o;
    struct pubkey pk;
    struct tally y;
    if (!tpd_begin(q))
        return;
    if (pubkey_from_json_text(&pk, q->param[0], strlen(q->param[0])) < 0) {
        tpd_answer_error(q, 400, BAD_KEY);
        return;
    }
    tally_edge(&y, tpd_table_edge(&t->table, &pk));
    json_out_grow(&o, JSON_FAST, TPD_ANSWER_MAX);
    json_out_object(&o);
    json_out_name(&o, "total");
    json_out_u64(&o, y.total);
    json_out_name(&o, "by_type");
    json_out_object(&o);
    tally_write(&o, &y);
    json_out_object_end(&o);
    json_out_object_end(&o);
    tpd_answer_json(q, 200, &o);
}

/* ---- versions ---- */

/* Is this text in a list with commas? NULL: no list, everything is. */
static bool listed(const char *list, const char *text)
{
    return list == NULL || strstr(list, text) != NULL;
}

void tpd_handle_version(struct service_req *q)
{
    struct tpd_service *t = q->app;
    struct tpd_visor *v;
    struct json_out o;
    struct tally y = {.n = 0};
    if (!tpd_begin(q))
        return;
    for (struct map_iter it = map_iter(&t->visors); (v = map_next(&it)) != NULL;)
        if (v->version[0] != '\0')
            tally_add(&y, v->version);
    json_out_grow(&o, JSON_FAST, TPD_ANSWER_MAX);
    json_out_object(&o);
    tally_write(&o, &y);
    json_out_object_end(&o);
    tpd_answer_json(q, 200, &o);
}

static void write_version(struct json_out *o, const struct tpd_visor *v, bool on)
{
    char hex[PUBKEY_HEX + 1];
    json_out_object(o);
    json_out_name(o, "pk");
    json_out_str(o, pubkey_hex(hex, &v->pk));
    json_out_name(o, "version");
    json_out_str(o, v->version);
    json_out_name(o, "on");
    json_out_bool(o, on);
    json_out_object_end(o);
}

/* Those of a list of keys (NULL = all), all or by whether they are up. */
void tpd_handle_versions(struct service_req *q)
{
    struct tpd_service *t = q->app;
    const char *list = q->param[0];
    struct tpd_visor *v;
    struct json_out o;
    char which[8] = "all";
    if (!tpd_begin(q))
        return;
    (void)service_query(q, "on", which, sizeof(which));
    bool all = strcmp(which, "true") != 0 && strcmp(which, "false") != 0;
    json_out_grow(&o, JSON_FAST, TPD_ANSWER_MAX);
    json_out_array(&o);
    for (struct map_iter it = map_iter(&t->visors); (v = map_next(&it)) != NULL;) {
        char hex[PUBKEY_HEX + 1];
        bool on = tpd_visor_on(t, &v->pk);
        if (listed(list, pubkey_hex(hex, &v->pk)) && (all || on == (which[0] == 't')))
            write_version(&o, v, on);
    }
    json_out_array_end(&o);
    tpd_answer_json(q, 200, &o);
}

/* ---- uptimes ---- */

static void on_uptimes(void *arg, int err, const char *text, size_t n)
{
    struct tpd_job *j = arg;
    if (err != 0) {
        tpd_job_error(j, 500, "the store is not available");
    } else if ((j->body = malloc(n + 1)) == NULL) {
        tpd_job_error(j, 500, err_str(ERR_NOMEM));
    } else {
        memcpy(j->body, text, n);
        j->body[n] = '\n';
        j->len = n + 1;
        j->status = 200;
        j->type = SERVICE_JSON;
    }
    tpd_job_commit(j);
}

static void uptimes(struct service_req *q, struct uptime_spec *spec)
{
    struct tpd_service *t = q->app;
    struct tpd_job *j = tpd_job_new(t, q);
    int rc = j != NULL ? uptime_list(t->uptime, spec, on_uptimes, j) : 0;
    free(spec->pk);
    if (rc < 0) {
        tpd_job_error(j, 503, err_str(rc));
        tpd_job_commit(j);
    }
}

void tpd_handle_uptimes_get(struct service_req *q)
{
    struct uptime_spec spec;
    if (!tpd_begin(q))
        return;
    if (uptime_spec_query(&spec, q) < 0)
        tpd_answer_error(q, 400, "error bad input");
    else
        uptimes(q, &spec);
}

void tpd_handle_uptimes_post(struct service_req *q)
{
    struct uptime_spec spec;
    if (!tpd_begin(q))
        return;
    if (uptime_spec_body(&spec, q->body, q->body_len) < 0)
        tpd_answer_error(q, 400, "invalid JSON body");
    else
        uptimes(q, &spec);
}

/* ---- bandwidth: what others wrote into the store ---- */

struct day {
    struct ask *ask;
    char day[TPD_DAY + 1];
    char bandwidth[24], updated[24]; /* decimal; "" = nothing */
};

struct ask { /* a job's extra */
    struct tpd_job *j;
    char id[PUBKEY_HEX + 1];
    size_t n, left; /* answers that are awaited */
    int err;
    struct day day[DAYS_MAX];
};

static void keep_number(char out[24], struct kv_str v)
{
    const char *p = v.p;
    out[0] = '\0';
    if (p == NULL || v.n == 0 || v.n > 20)
        return;
    for (size_t i = 0; i < v.n; i++)
        if (p[i] < '0' || p[i] > '9')
            return;
    memcpy(out, p, v.n);
    out[v.n] = '\0';
}

static void write_day(struct json_out *o, const struct ask *k, const struct day *d)
{
    json_out_object(o);
    json_out_name(o, "transport_id");
    json_out_str(o, k->id);
    json_out_name(o, "period");
    json_out_str(o, "daily");
    json_out_name(o, "period_key");
    json_out_str(o, d->day);
    json_out_name(o, "bandwidth");
    json_out_u64(o, strtoull(d->bandwidth, NULL, 10));
    json_out_name(o, "updated_at");
    json_out_u64(o, strtoull(d->updated, NULL, 10));
    json_out_object_end(o);
}

static void tell_bandwidth(struct ask *k)
{
    struct tpd_job *j = k->j;
    struct json_out o;
    json_out_grow(&o, JSON_FAST, TPD_ANSWER_MAX);
    json_out_array(&o);
    for (size_t i = 0; i < k->n; i++)
        if (k->day[i].bandwidth[0] != '\0')
            write_day(&o, k, &k->day[i]);
    json_out_array_end(&o);
    if (k->err != 0) {
        json_out_free(&o);
        tpd_job_error(j, 500, "the store is not available");
    } else {
        tpd_job_json(j, 200, &o);
    }
    tpd_job_commit(j);
}

static void day_over(struct ask *k, int err)
{
    k->err = k->err != 0 ? k->err : err;
    if (--k->left == 0)
        tell_bandwidth(k);
}

static void on_day(void *arg, const struct kv_answer *a)
{
    struct day *d = arg;
    if (a->err == 0 && a->n == 2) {
        keep_number(d->bandwidth, a->v[0]);
        keep_number(d->updated, a->v[1]);
    }
    day_over(d->ask, a->err);
}

/* The last days, today first. */
static void ask_days(struct ask *k, const char *prefix)
{
    const struct kv_str fields[] = {KV_STR("bandwidth"), KV_STR("updated_at")};
    struct kv *kv = k->j->t->cfg.kv;
    int64_t now = tpd_now_s(k->j->t);
    size_t n = k->n;
    k->left = n + 1; /* answers may come from inside the calls */
    for (size_t i = 0; i < n; i++) {
        struct day *d = &k->day[i];
        struct kv_batch text = {0};
        d->ask = k;
        tpd_layout_day(d->day, now - (int64_t)i * 86400);
        struct kv_str key = kv_batch_text(&text, "%s:%s:%s", prefix, k->id, d->day);
        int rc = text.err != 0 ? text.err : kv_hget(kv, key, fields, 2, on_day, d);
        kv_batch_free(&text);
        if (rc < 0)
            day_over(k, rc);
    }
    day_over(k, 0);
}

/* id: the text in the key, and in the answer. */
static void show_bandwidth(struct service_req *q, const char *prefix, const char *id)
{
    char period[16] = "daily", limit[8] = "7";
    (void)service_query(q, "period", period, sizeof(period));
    (void)service_query(q, "limit", limit, sizeof(limit));
    unsigned long n = strtoul(limit, NULL, 10);
    if (strcmp(period, "daily") != 0 || n == 0) {
        tpd_answer_error(q, 400, n == 0 ? "limit is invalid" : "period is invalid");
        return;
    }
    struct tpd_job *j = tpd_job_new(q->app, q);
    struct ask *k = j != NULL ? calloc(1, sizeof(*k)) : NULL;
    if (j == NULL)
        return;
    if ((j->extra = k) == NULL) {
        tpd_job_error(j, 500, err_str(ERR_NOMEM));
        tpd_job_commit(j);
        return;
    }
    k->j = j;
    snprintf(k->id, sizeof(k->id), "%s", id);
    k->n = n < DAYS_MAX ? n : DAYS_MAX;
    ask_days(k, prefix);
}

void tpd_handle_bandwidth_tp(struct service_req *q)
{
    char text[TP_ID_TEXT + 1];
    struct tp_id id;
    if (!tpd_begin(q))
        return;
    if (tp_id_from_text(&id, q->param[0], strlen(q->param[0])) < 0)
        tpd_answer_error(q, 400, BAD_ID);
    else
        show_bandwidth(q, TPD_SERVICE ":bw:daily", tp_id_text(text, &id));
}

void tpd_handle_bandwidth_visor(struct service_req *q)
{
    char hex[PUBKEY_HEX + 1];
    struct pubkey pk;
    if (!tpd_begin(q))
        return;
    if (pubkey_from_json_text(&pk, q->param[0], strlen(q->param[0])) < 0)
        tpd_answer_error(q, 400, BAD_KEY);
    else
        show_bandwidth(q, TPD_SERVICE ":bw:visor:daily", pubkey_hex(hex, &pk));
}

/* ---- metrics: what is measured of transports (shapes of our own, services.md §5.3) ---- */

static bool chosen(const struct tpd_tp *tp, const char *ids, const char *pks)
{
    char id[TP_ID_TEXT + 1], hex[PUBKEY_HEX + 1];
    if (!listed(ids, tp_id_text(id, &tp->e.id)))
        return false;
    return pks == NULL || listed(pks, pubkey_hex(hex, &tp->e.edges[0])) ||
           listed(pks, pubkey_hex(hex, &tp->e.edges[1]));
}

static void write_metrics(struct json_out *o, const struct tpd_tp *tp)
{
    char id[TP_ID_TEXT + 1];
    json_out_object(o);
    json_out_name(o, "t_id");
    json_out_str(o, tp_id_text(id, &tp->e.id));
    json_out_name(o, "type");
    json_out_str(o, tp->e.type);
    json_out_name(o, "lat_min");
    json_out_double(o, tp->quality.lat_min);
    json_out_name(o, "lat_max");
    json_out_double(o, tp->quality.lat_max);
    json_out_name(o, "lat_avg");
    json_out_double(o, tp->quality.lat_avg);
    json_out_name(o, "bandwidth");
    json_out_double(o, tp->quality.bandwidth);
    json_out_object_end(o);
}

static void list_metrics(struct service_req *q, const char *ids, const char *pks)
{
    struct tpd_service *t = q->app;
    struct json_out o;
    if (!tpd_begin(q))
        return;
    json_out_grow(&o, JSON_FAST, TPD_ANSWER_MAX);
    json_out_array(&o);
    for (struct tpd_tp *tp = NULL; (tp = tpd_table_next(&t->table, tp)) != NULL;)
        if (chosen(tp, ids, pks))
            write_metrics(&o, tp);
    json_out_array_end(&o);
    tpd_answer_json(q, 200, &o);
}

void tpd_handle_metrics(struct service_req *q)
{
    list_metrics(q, q->param[0], NULL);
}

void tpd_handle_metrics_visor(struct service_req *q)
{
    list_metrics(q, NULL, q->param[0]);
}

/* Of all, or of those of some keys: how many, mean latency of those that have one, bandwidth together. */
void tpd_handle_metric(struct service_req *q)
{
    struct tpd_service *t = q->app;
    double latency = 0, bandwidth = 0;
    size_t n = 0, measured = 0;
    struct json_out o;
    if (!tpd_begin(q))
        return;
    for (struct tpd_tp *tp = NULL; (tp = tpd_table_next(&t->table, tp)) != NULL;) {
        if (!chosen(tp, NULL, q->param[0]))
            continue;
        n++;
        measured += tp->quality.lat_avg > 0;
        latency += tp->quality.lat_avg;
        bandwidth += tp->quality.bandwidth;
    }
    json_out_grow(&o, JSON_FAST, TPD_ANSWER_MAX);
    json_out_object(&o);
    json_out_name(&o, "transports");
    json_out_u64(&o, n);
    json_out_name(&o, "lat_avg");
    json_out_double(&o, measured > 0 ? latency / (double)measured : 0);
    json_out_name(&o, "bandwidth");
    json_out_double(&o, bandwidth);
    json_out_object_end(&o);
    tpd_answer_json(q, 200, &o);
}
