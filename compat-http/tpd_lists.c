#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "compat-http/tpd_int.h"

#define AT_ONCE   2048 /* transports written in one turn of the loop (incident 71) */
#define LIST_NS   NS_PER_S
#define NOT_FOUND "transport not found"
#define BAD_ID    "transport ID is invalid"
#define BAD_KEY   "public key is invalid"

/* ---- one, and those of a key ---- */

static void show_id(struct tpd_job *j)
{
    const char *text = j->q->param[0];
    struct json_out o;
    struct tp_id id;
    const struct tpd_tp *tp = NULL;
    bool is_id = tp_id_from_text(&id, text, strlen(text)) == 0;
    if (is_id)
        tp = tpd_table_get(&j->t->table, &id);
    if (tp == NULL) {
        tpd_job_error(j, is_id ? 404 : 400, is_id ? NOT_FOUND : BAD_ID);
    } else {
        json_out_grow(&o, tpd_dialect(j->t), TPD_ANSWER_MAX);
        tp_entry_write(&o, &tp->e);
        tpd_job_json(j, 200, &o);
    }
    tpd_job_commit(j);
}

void tpd_handle_id(struct service_req *q)
{
    tpd_authorize(q, show_id);
}

static void write_edge(struct json_out *o, const struct tpd_service *t, const struct pubkey *pk)
{
    const struct tpd_edge *e = tpd_table_edge(&t->table, pk);
    struct tpd_at at = {0};
    struct tpd_tp *tp;
    json_out_grow(o, tpd_dialect(t), TPD_ANSWER_MAX);
    json_out_array(o);
    if (e != NULL)
        at = tpd_edge_first(e);
    while (e != NULL && (tp = tpd_edge_next(&at)) != NULL)
        tp_entry_write(o, &tp->e);
    json_out_array_end(o);
}

static bool has_any(const struct tpd_service *t, const struct pubkey *pk)
{
    const struct tpd_edge *e = tpd_table_edge(&t->table, pk);
    return e != NULL && e->n > 0;
}

static void show_edge(struct tpd_job *j)
{
    const char *text = j->q->param[0];
    struct json_out o;
    struct pubkey pk;
    bool old = j->t->cfg.generation == TPD_2024 && !j->t->cfg.testing;
    if (pubkey_from_json_text(&pk, text, strlen(text)) < 0) {
        tpd_job_error(j, 400, BAD_KEY);
    } else if (has_any(j->t, &pk)) {
        write_edge(&o, j->t, &pk);
        tpd_job_json(j, 200, &o);
    } else if (old) {
        tpd_job_text(j, 200, tpd_type(j->t), "null\n");
    } else {
        tpd_job_error(j, 404, NOT_FOUND);
    }
    tpd_job_commit(j);
}

void tpd_handle_edge(struct service_req *q)
{
    tpd_authorize(q, show_edge);
}

void tpd_handle_edge_v3(struct service_req *q)
{
    struct json_out o;
    struct pubkey pk;
    if (!tpd_begin(q))
        return;
    if (pubkey_from_json_text(&pk, q->param[0], strlen(q->param[0])) < 0) {
        tpd_answer_error(q, 400, BAD_KEY);
        return;
    }
    write_edge(&o, q->app, &pk);
    tpd_answer_json(q, 200, &o);
}

/* A transport between two of the keys once. */
void tpd_handle_edges(struct service_req *q)
{
    struct tpd_service *t = q->app;
    struct tpd_body in;
    struct tpd_why why;
    struct json_out o;
    struct tpd_tp *tp;
    if (!tpd_begin(q))
        return;
    if (tpd_body_keys(&in, q->body, q->body_len, &why) < 0) {
        tpd_answer_error(q, why.status, "error bad input");
        return;
    }
    t->table.stamp++;
    json_out_grow(&o, tpd_dialect(t), TPD_ANSWER_MAX);
    json_out_array(&o);
    for (size_t i = 0; i < in.n; i++) {
        const struct tpd_edge *e = tpd_table_edge(&t->table, &in.pk[i]);
        struct tpd_at at = {0};
        if (e != NULL)
            at = tpd_edge_first(e);
        while (e != NULL && (tp = tpd_edge_next(&at)) != NULL) {
            if (tp->stamp != t->table.stamp)
                tp_entry_write(&o, &tp->e);
            tp->stamp = t->table.stamp;
        }
    }
    json_out_array_end(&o);
    tpd_body_free(&in);
    tpd_answer_json(q, 200, &o);
}

/* ---- all of them ---- */

struct text { /* shared by the answers that send it */
    char *p;
    size_t n, refs;
};

struct kept {
    struct text *text; /* NULL: none was made */
    size_t count;      /* of transports in it */
    uint64_t version, made_ns;
    struct list waiting; /* jobs, by job.wait */
};

struct tpd_made {
    struct tpd_service *t;
    struct kept kept[2]; /* [1]: without transports of a key with itself */
    struct loop_timer step;
    struct json_out out;
    size_t count;
    uint64_t version; /* of the table when it began */
    int building;     /* which one; -1 = none */
};

static void release(void *arg)
{
    struct text *x = arg;
    if (--x->refs > 0)
        return;
    free(x->p);
    free(x);
}

static void answer_kept(struct service_req *q, const struct kept *k)
{
    struct tpd_service *t = q->app;
    if (k->count == 0 && t->cfg.generation == TPD_2024) {
        service_answer_text(q, 200, tpd_type(t), "null\n");
    } else if (k->count == 0) {
        tpd_answer_error(q, 404, NOT_FOUND);
    } else {
        k->text->refs++;
        service_answer_shared(q, 200, tpd_type(t), k->text->p, k->text->n, release, k->text);
    }
}

static void build_next(struct tpd_made *m);

static void built(struct tpd_made *m)
{
    struct kept *k = &m->kept[m->building];
    struct text *x = m->out.err == 0 ? calloc(1, sizeof(*x)) : NULL;
    struct list now;
    struct tpd_job *j;
    m->building = -1;
    tpd_walk_end(&m->t->table, TPD_WALK_LIST);
    if (x != NULL) {
        *x = (struct text){m->out.p, m->out.len, 1};
        if (k->text != NULL)
            release(k->text);
        *k = (struct kept){x, m->count, m->version, m->t->cfg.loop->now_ns, k->waiting};
    } else {
        json_out_free(&m->out);
    }
    list_init(&now);
    list_splice(&now, &k->waiting);
    while ((j = list_pop_front_as(&now, struct tpd_job, wait)) != NULL) {
        struct service_req *q = j->q;
        j->q = NULL;
        if (q != NULL)
            q->user = NULL;
        tpd_job_free(j);
        if (q != NULL && x != NULL)
            answer_kept(q, k);
        else if (q != NULL)
            tpd_answer_error(q, 500, err_str(ERR_NOMEM));
    }
    build_next(m);
}

static void on_step(struct loop_timer *timer)
{
    struct tpd_made *m = container_of(timer, struct tpd_made, step);
    struct tpd_tp *tp = NULL;
    for (int i = 0; i < AT_ONCE; i++) {
        if ((tp = tpd_walk_next(&m->t->table, TPD_WALK_LIST)) == NULL)
            break;
        if (m->building == 1 && pubkey_equal(&tp->e.edges[0], &tp->e.edges[1]))
            continue;
        tp_entry_write(&m->out, &tp->e);
        m->count++;
    }
    if (tp != NULL && m->out.err == 0) {
        loop_timer_set(m->t->cfg.loop, timer, m->t->cfg.loop->now_ns);
        return;
    }
    json_out_array_end(&m->out);
    tpd_line_end(&m->out);
    built(m);
}

static void build_next(struct tpd_made *m)
{
    for (int i = 0; i < 2 && m->building < 0; i++) {
        if (list_empty(&m->kept[i].waiting))
            continue;
        m->building = i;
        m->count = 0;
        m->version = m->t->table.version;
        json_out_grow(&m->out, tpd_dialect(m->t), TPD_ANSWER_MAX);
        json_out_array(&m->out);
        tpd_walk_start(&m->t->table, TPD_WALK_LIST);
        loop_timer_set(m->t->cfg.loop, &m->step, m->t->cfg.loop->now_ns);
    }
}

static struct tpd_made *made_of(struct tpd_service *t)
{
    struct tpd_made *m = t->made;
    if (m != NULL || (m = calloc(1, sizeof(*m))) == NULL)
        return m;
    m->t = t;
    m->building = -1;
    m->step.fn = on_step;
    list_init(&m->kept[0].waiting);
    list_init(&m->kept[1].waiting);
    return t->made = m;
}

void tpd_handle_all(struct service_req *q)
{
    struct tpd_service *t = q->app;
    struct tpd_made *m;
    char hide[8];
    if (!tpd_begin(q))
        return;
    if ((m = made_of(t)) == NULL) {
        tpd_answer_error(q, 500, err_str(ERR_NOMEM));
        return;
    }
    bool hides = t->cfg.generation >= TPD_2026 &&
                 service_query(q, "selfTransports", hide, sizeof(hide)) > 0 &&
                 strcmp(hide, "hide") == 0;
    struct kept *k = &m->kept[hides];
    /* A long list is made at most once a second. */
    bool young = tpd_table_len(&t->table) > AT_ONCE && t->cfg.loop->now_ns - k->made_ns < LIST_NS;
    if (k->text != NULL && (k->version == t->table.version || young)) {
        answer_kept(q, k);
        return;
    }
    struct tpd_job *j = tpd_job_new(t, q);
    if (j == NULL)
        return;
    list_push_back(&k->waiting, &j->wait);
    build_next(m);
}

void tpd_made_free(struct tpd_service *t)
{
    struct tpd_made *m = t->made;
    if (m == NULL)
        return;
    loop_timer_cancel(t->cfg.loop, &m->step);
    if (m->building >= 0)
        json_out_free(&m->out);
    for (int i = 0; i < 2; i++) {
        while (list_pop_front(&m->kept[i].waiting) != NULL)
            ;
        if (m->kept[i].text != NULL)
            release(m->kept[i].text);
    }
    free(m);
    t->made = NULL;
}
