#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "compat-http/tpd_int.h"

#define BAD_ID    "transport ID is invalid"
#define NOT_FOUND "transport not found"
#define BAD_INPUT "error bad input"
/* What upstream's database says (§5.2); clients of 2024 see it. */
#define DUPLICATE                                                                                  \
    "ERROR: duplicate key value violates unique constraint \"transports_transport_id_key\" "       \
    "(SQLSTATE 23505)"

static bool is_edge(const struct tp_entry *e, const struct pubkey *pk)
{
    return pubkey_equal(&e->edges[0], pk) || pubkey_equal(&e->edges[1], pk);
}

static uint64_t until(const struct tpd_service *t)
{
    return t->ttl_ns != 0 ? t->cfg.loop->now_ns + t->ttl_ns : TPD_FOR_EVER;
}

/* ---- visors ---- */

struct tpd_visor *tpd_visor_make(struct tpd_service *t, const struct pubkey *pk)
{
    struct tpd_visor *v = map_get(&t->visors, pk);
    if (v != NULL || (v = calloc(1, sizeof(*v))) == NULL)
        return v;
    v->pk = *pk;
    if (map_put(&t->visors, v) == 0)
        return v;
    free(v);
    return NULL;
}

void tpd_visors_free(struct tpd_service *t)
{
    struct tpd_visor *v;
    for (struct map_iter it = map_iter(&t->visors); (v = map_next(&it)) != NULL;) {
        map_iter_del(&it);
        free(v);
    }
    map_free(&t->visors);
}

bool tpd_visor_on(const struct tpd_service *t, const struct pubkey *pk)
{
    const struct tpd_edge *e = tpd_table_edge(&t->table, pk);
    struct tpd_at at = {0};
    struct tpd_tp *tp;
    int direct = 0;
    if (e != NULL)
        at = tpd_edge_first(e);
    while (e != NULL && direct < 2 && (tp = tpd_edge_next(&at)) != NULL)
        direct += strcmp(tp->e.type, "dmsg") != 0;
    return direct >= 2;
}

/* It was heard of, with this version ("" = it said none). */
static void note_visor(struct tpd_job *j, const char *version)
{
    struct tpd_visor *v = tpd_visor_make(j->t, &j->turn.pk);
    if (v == NULL)
        return;
    if (*version != '\0')
        snprintf(v->version, sizeof(v->version), "%s", version);
    v->seen_s = tpd_now_s(j->t);
}

static void heartbeat(struct tpd_job *j)
{
    char version[TPD_VERSION];
    if (service_query(j->q, "version", version, sizeof(version)) < 0)
        version[0] = '\0';
    j->t->stat.heartbeats++;
    note_visor(j, version);
    uptime_note(j->t->uptime, &j->turn.pk, version, strlen(version));
    tpd_job_text(j, 200, SERVICE_JSON, "{\"status\":\"ok\"}\n");
    tpd_job_commit(j);
}

void tpd_handle_heartbeat(struct service_req *q)
{
    tpd_authorize(q, heartbeat);
}

/* ---- registration ---- */

/* What is there unchanged is written again only when a third of its life is over, and noted as up once in five minutes. */
static void write_one(struct tpd_job *j, struct tpd_signed *s)
{
    static const struct tpd_quality nothing;
    struct tpd_service *t = j->t;
    struct tpd_tp *tp = tpd_table_get(&t->table, &s->e.id);
    int64_t now = tpd_now_s(t);
    bool same = tp != NULL && tpd_same(&tp->e, &s->e);
    s->written = !same || (t->ttl_ns != 0 && t->cfg.loop->now_ns - tp->stored_ns >= t->ttl_ns / 3);
    t->stat.registered += tp == NULL;
    t->stat.renewed += tp != NULL;
    t->stat.unchanged += !s->written;
    if (tp != NULL) /* it must not end while the write is under way */
        tpd_table_renew(&t->table, tp, until(t));
    if (s->written) {
        if (tp != NULL && !same)
            tpd_layout_del(&j->batch, j->t->shared, &tp->e);
        tpd_layout_set(&j->batch, t->shared, &s->e, tp != NULL ? &tp->quality : &nothing,
                       t->ttl_ns / NS_PER_MS, now);
    }
}

static void registered(struct tpd_job *j)
{
    struct tpd_service *t = j->t;
    int64_t slot = tpd_now_s(t) / TPD_SLOT_S;
    for (size_t i = 0; i < j->in.n; i++) {
        struct tpd_tp *tp;
        if (tpd_table_put(&t->table, &j->in.e[i].e, until(t), &tp) < 0)
            continue; /* counted there */
        if (tp->slot != slot)
            tpd_seen(t, tp);
        tp->slot = slot;
        if (j->in.e[i].written)
            tp->stored_ns = t->cfg.loop->now_ns;
    }
    tpd_tell(t);
}

/* NULL, or what is wrong with it; *status then. */
static const char *check_one(struct tpd_job *j, size_t i, unsigned *status)
{
    struct tpd_service *t = j->t;
    const struct tp_entry *e = &j->in.e[i].e;
    bool there = tpd_table_get(&t->table, &e->id) != NULL;
    *status = 500;
    if (t->cfg.generation == TPD_2024) {
        for (size_t k = 0; !there && k < i; k++)
            there = memcmp(&j->in.e[k].e.id, &e->id, sizeof(e->id)) == 0;
        if (there && !t->cfg.testing)
            return DUPLICATE;
    } else {
        struct tp_id id = tp_id_of(&e->edges[0], &e->edges[1], e->type);
        *status = 400;
        if (memcmp(&id, &e->id, sizeof(id)) != 0 || pubkey_is_null(&e->edges[0]) ||
            pubkey_is_null(&e->edges[1]))
            return BAD_ID;
        *status = 403;
        if (!is_edge(e, &j->turn.pk))
            return "not an edge of the transport";
    }
    *status = 500;
    return there || (tpd_table_room(&t->table, &e->edges[0], i + 1) &&
                     tpd_table_room(&t->table, &e->edges[1], i + 1))
               ? NULL
               : "too many transports";
}

static void echo(struct tpd_job *j, bool bare)
{
    struct json_out o;
    json_out_grow(&o, tpd_dialect(j->t), TPD_ANSWER_MAX);
    json_out_array(&o);
    for (size_t i = 0; i < j->in.n; i++) {
        if (bare)
            tp_entry_write(&o, &j->in.e[i].e);
        else
            tpd_signed_write(&o, &j->in.e[i]);
    }
    json_out_array_end(&o);
    tpd_job_json(j, 201, &o);
}

/* One after the other, until the first that is refused; what came before it stays. */
static void register_signed(struct tpd_job *j)
{
    struct tpd_why why;
    const char *wrong = NULL;
    unsigned status;
    size_t n = 0;
    if (tpd_body_signed(&j->in, j->q->body, j->q->body_len, &why) < 0) {
        tpd_job_error(j, why.status, why.text);
        tpd_job_commit(j);
        return;
    }
    while (n < j->in.n && (wrong = check_one(j, n, &status)) == NULL)
        write_one(j, &j->in.e[n++]);
    if (wrong == NULL) {
        echo(j, false);
    } else {
        j->t->stat.refused++;
        tpd_job_error(j, status, wrong);
    }
    j->in.n = n;
    j->done = registered;
    tpd_job_commit(j);
}

/* Those that are refused are left out. */
static void register_bare(struct tpd_job *j)
{
    const char *version = service_header(j->q, "SW-Visor-Version");
    struct tpd_why why;
    unsigned status;
    size_t n = 0;
    if (tpd_body_bare(&j->in, j->q->body, j->q->body_len, &why) < 0) {
        tpd_job_error(j, why.status, why.text);
        tpd_job_commit(j);
        return;
    }
    for (size_t i = 0; i < j->in.n; i++) {
        j->in.e[n] = j->in.e[i];
        if (check_one(j, n, &status) == NULL)
            write_one(j, &j->in.e[n++]);
        else
            j->t->stat.refused++;
    }
    j->in.n = n;
    if (version != NULL && strlen(version) < TPD_VERSION)
        note_visor(j, version);
    echo(j, true);
    j->done = registered;
    tpd_job_commit(j);
}

bool tpd_service_take(struct tpd_service *t, const struct tp_entry *e)
{
    struct tp_id id = tp_id_of(&e->edges[0], &e->edges[1], e->type);
    struct tpd_tp *tp;
    if (!t->stat.ready || memcmp(&id, &e->id, sizeof(id)) != 0 ||
        tpd_table_get(&t->table, &id) != NULL || !tpd_table_room(&t->table, &e->edges[0], 1) ||
        !tpd_table_room(&t->table, &e->edges[1], 1) ||
        tpd_table_put(&t->table, e, until(t), &tp) < 0)
        return false;
    t->stat.registered++;
    tpd_tell(t);
    return true;
}

void tpd_handle_register(struct service_req *q)
{
    tpd_authorize(q, register_signed);
}

void tpd_handle_register_v3(struct service_req *q)
{
    tpd_authorize(q, register_bare);
}

/* ---- deletion ---- */

/* Those that were written as gone, when the store has it. */
static void removed(struct tpd_job *j)
{
    for (size_t i = 0; i < j->in.n; i++) {
        struct tpd_tp *tp = tpd_table_get(&j->t->table, &j->in.id[i]);
        if (tp == NULL)
            continue;
        tpd_table_remove(&j->t->table, tp);
        j->t->stat.removed++;
    }
    tpd_tell(j->t);
}

static int by_id(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct tp_id));
}

/* Keeps those of the list that may be taken away, once each. by: NULL = a monitor, all. */
static void remove_listed(struct tpd_job *j, const struct pubkey *by)
{
    struct tpd_body *in = &j->in;
    size_t n = 0;
    if (in->n > 0)
        qsort(in->id, in->n, sizeof(*in->id), by_id);
    for (size_t i = 0; i < in->n; i++) {
        const struct tpd_tp *tp = tpd_table_get(&j->t->table, &in->id[i]);
        if (tp == NULL || (n > 0 && by_id(&in->id[n - 1], &in->id[i]) == 0) ||
            (by != NULL && !is_edge(&tp->e, by)))
            continue;
        tpd_layout_del(&j->batch, j->t->shared, &tp->e);
        in->id[n++] = tp->e.id;
    }
    in->n = n;
    j->done = removed;
}

static void delete_one(struct tpd_job *j)
{
    const char *text = j->q->param[0];
    struct tp_id id;
    bool is_id = tp_id_from_text(&id, text, strlen(text)) == 0;
    const struct tpd_tp *tp = is_id ? tpd_table_get(&j->t->table, &id) : NULL;
    if (!is_id || (tp != NULL && !is_edge(&tp->e, &j->turn.pk))) {
        tpd_job_error(j, 400, BAD_ID);
    } else if (tp == NULL) {
        tpd_job_error(j, 404, NOT_FOUND);
    } else if ((j->in.id = malloc(sizeof(id))) == NULL) {
        tpd_job_error(j, 500, err_str(ERR_NOMEM));
    } else {
        j->in.id[0] = id;
        j->in.n = 1;
        remove_listed(j, &j->turn.pk);
        tpd_job_text(j, 200, SERVICE_PLAIN, "transport deleted");
    }
    tpd_job_commit(j);
}

static void delete_many(struct tpd_job *j)
{
    struct tpd_why why;
    char text[80];
    if (tpd_body_ids(&j->in, j->q->body, j->q->body_len, &why) < 0) {
        tpd_job_error(j, why.status, BAD_INPUT);
        tpd_job_commit(j);
        return;
    }
    size_t asked = j->in.n + j->in.bad;
    remove_listed(j, &j->turn.pk);
    snprintf(text, sizeof(text), "{\"deleted\":%zu,\"skipped\":%zu}\n", j->in.n, asked - j->in.n);
    tpd_job_text(j, 200, SERVICE_JSON, text);
    tpd_job_commit(j);
}

void tpd_handle_delete(struct service_req *q)
{
    tpd_authorize(q, delete_one);
}

void tpd_handle_delete_batch(struct service_req *q)
{
    tpd_authorize(q, delete_many);
}

/* For each that is none upstream writes an error, goes on, and says null all the same. */
static void tell_deregistered(struct tpd_job *j)
{
    static const char line[] = "{\"error\":\"" BAD_ID "\"}\n";
    size_t n = j->in.bad * (sizeof(line) - 1);
    char *text = malloc(n + 5);
    if (text == NULL) {
        tpd_job_error(j, 500, err_str(ERR_NOMEM));
        return;
    }
    for (size_t i = 0; i < j->in.bad; i++)
        memcpy(text + i * (sizeof(line) - 1), line, sizeof(line) - 1);
    memcpy(text + n, "null", 5);
    tpd_job_text(j, j->in.bad > 0 ? 400 : 200, j->in.bad > 0 ? tpd_type(j->t) : SERVICE_JSON, text);
    free(text);
}

void tpd_handle_deregister(struct service_req *q)
{
    struct tpd_service *t = q->app;
    struct tpd_why why;
    if (!tpd_begin(q))
        return;
    unsigned status = httpauth_monitor(q, t->cfg.monitors, t->cfg.n_monitors);
    if (status != 0) {
        t->stat.unauthorized++;
        service_answer(q, status, NULL, "", 0);
        return;
    }
    struct tpd_job *j = tpd_job_new(t, q);
    if (j == NULL)
        return;
    if (tpd_body_ids(&j->in, q->body, q->body_len, &why) < 0) {
        tpd_job_error(j, 400, "");
    } else {
        remove_listed(j, NULL);
        tell_deregistered(j);
    }
    tpd_job_commit(j);
}
