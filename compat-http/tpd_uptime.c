/*
 * Which transports were up when (docs/protocol/services.md §5.3, §9.3): bitmaps of the last days, read some transports at a time.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "compat-http/tpd_int.h"

#define DAYS   7
#define CHUNK  32 /* transports of one read: DAYS keys each (incident 71) */
#define MOST   16384
#define SLOTS  288
#define BITMAP (SLOTS / 8)

struct ask { /* a job's extra */
    struct tpd_job *j;
    enum uptime_version v;
    struct tp_entry *row; /* of the table, so all of them are up */
    size_t n, at, chunk;
    struct json_out out;
    struct loop_timer next;      /* not from inside an answer of the store */
    char day[DAYS][TPD_DAY + 1]; /* today is the last one */
};

static void ask_free(void *extra)
{
    struct ask *k = extra;
    loop_timer_cancel(k->j->t->cfg.loop, &k->next);
    json_out_free(&k->out);
    free(k->row);
    free(k);
}

static void over(struct ask *k, int err)
{
    struct tpd_job *j = k->j;
    if (err != 0) {
        tpd_job_error(j, 500, "the store is not available");
    } else {
        json_out_array_end(&k->out);
        tpd_job_json(j, 200, &k->out); /* takes its text */
        k->out = (struct json_out){0};
    }
    tpd_job_commit(j);
}

/* ---- one transport ---- */

static unsigned count_bits(struct kv_str line)
{
    const uint8_t *p = line.p;
    unsigned n = 0;
    for (size_t i = 0; i < line.n && i < BITMAP; i++)
        n += (unsigned)__builtin_popcount(p[i]);
    return n;
}

static void write_percent(struct json_out *o, unsigned bits)
{
    char text[16];
    snprintf(text, sizeof(text), "%u.%02u", bits * 100 / SLOTS, bits * 10000 / SLOTS % 100);
    json_out_str(o, text);
}

static void write_line(struct json_out *o, struct kv_str line)
{
    const uint8_t *p = line.p;
    char text[SLOTS];
    for (size_t i = 0; i < SLOTS; i++)
        text[i] = i / 8 < line.n && (p[i / 8] & (0x80 >> i % 8)) != 0 ? '.' : ' ';
    json_out_string(o, text, SLOTS);
}

static void write_days(struct ask *k, const char *name, const struct kv_str *line, bool lines)
{
    json_out_name(&k->out, name);
    json_out_object(&k->out);
    for (size_t i = 0; i < DAYS; i++) {
        if (line[i].p == NULL)
            continue;
        json_out_name(&k->out, k->day[i]);
        if (lines)
            write_line(&k->out, line[i]);
        else
            write_percent(&k->out, count_bits(line[i]));
    }
    json_out_object_end(&k->out);
}

/* line: DAYS of them, NULL = nothing that day */
static void write_row(struct ask *k, const struct tp_entry *e, const struct kv_str *line)
{
    char id[TP_ID_TEXT + 1];
    bool any = false;
    for (size_t i = 0; i < DAYS; i++)
        any = any || line[i].p != NULL;
    json_out_object(&k->out);
    json_out_name(&k->out, "t_id");
    json_out_str(&k->out, tp_id_text(id, &e->id));
    json_out_name(&k->out, "on");
    json_out_bool(&k->out, true);
    json_out_name(&k->out, "type");
    json_out_str(&k->out, e->type);
    if (any && k->v >= UPTIME_V2)
        write_days(k, "daily", line, false);
    if (any && k->v >= UPTIME_V3)
        write_days(k, "timeline", line, true);
    json_out_object_end(&k->out);
}

/* ---- all that are asked for ---- */

static void on_lines(void *arg, const struct kv_answer *a)
{
    struct ask *k = arg;
    if (a->err != 0 || a->n != k->chunk * DAYS || k->out.err != 0) {
        over(k, a->err != 0 ? a->err : ERR_NOMEM);
        return;
    }
    for (size_t i = 0; i < k->chunk; i++)
        write_row(k, &k->row[k->at + i], a->v + i * DAYS);
    k->at += k->chunk;
    loop_timer_set(k->j->t->cfg.loop, &k->next, k->j->t->cfg.loop->now_ns);
}

static void on_next(struct loop_timer *timer)
{
    struct ask *k = container_of(timer, struct ask, next);
    struct kv_str key[CHUNK * DAYS];
    struct kv_batch text = {0};
    char id[TP_ID_TEXT + 1];
    k->chunk = k->n - k->at < CHUNK ? k->n - k->at : CHUNK;
    if (k->chunk == 0) {
        over(k, 0);
        return;
    }
    for (size_t i = 0; i < k->chunk; i++)
        for (size_t d = 0; d < DAYS; d++)
            key[i * DAYS + d] = kv_batch_text(&text, TPD_SERVICE ":tp-uptime:%s:%s:timeline",
                                              tp_id_text(id, &k->row[k->at + i].id), k->day[d]);
    int rc = text.err != 0 ? text.err : kv_get(k->j->t->cfg.kv, key, k->chunk * DAYS, on_lines, k);
    kv_batch_free(&text);
    if (rc < 0)
        over(k, rc);
}

static void add(struct ask *k, struct tpd_tp *tp)
{
    struct tpd_service *t = k->j->t;
    if (k->n == MOST || tp->stamp == t->table.stamp || strcmp(tp->e.type, "dmsg") == 0)
        return;
    tp->stamp = t->table.stamp;
    k->row[k->n++] = tp->e;
}

/* Those of the keys, or all; each once, not those of type dmsg. */
static void choose(struct ask *k, const struct uptime_spec *spec)
{
    struct tpd_table *table = &k->j->t->table;
    struct tpd_tp *tp = NULL;
    table->stamp++;
    while (spec->all && (tp = tpd_table_next(table, tp)) != NULL)
        add(k, tp);
    for (size_t i = 0; !spec->all && i < spec->n; i++) {
        const struct tpd_edge *e = tpd_table_edge(table, &spec->pk[i]);
        if (e == NULL)
            continue;
        for (struct tpd_at at = tpd_edge_first(e); (tp = tpd_edge_next(&at)) != NULL;)
            add(k, tp);
    }
}

static void begin(struct service_req *q, const struct uptime_spec *spec)
{
    struct tpd_service *t = q->app;
    size_t most = tpd_table_len(&t->table) < MOST ? tpd_table_len(&t->table) : MOST;
    struct tpd_job *j = tpd_job_new(t, q);
    if (j == NULL)
        return;
    struct ask *k = calloc(1, sizeof(*k));
    if (k == NULL || (k->row = malloc((most + 1) * sizeof(*k->row))) == NULL) {
        free(k);
        tpd_job_error(j, 500, err_str(ERR_NOMEM));
        tpd_job_commit(j);
        return;
    }
    k->j = j;
    k->v = spec->v;
    k->next.fn = on_next;
    j->extra = k;
    j->extra_free = ask_free;
    for (int d = 0; d < DAYS; d++)
        tpd_layout_day(k->day[d], tpd_now_s(t) - (int64_t)(DAYS - 1 - d) * 86400);
    choose(k, spec);
    json_out_grow(&k->out, JSON_FAST, TPD_ANSWER_MAX);
    json_out_array(&k->out);
    loop_timer_set(t->cfg.loop, &k->next, t->cfg.loop->now_ns);
}

void tpd_handle_tp_uptimes_get(struct service_req *q)
{
    struct uptime_spec spec;
    if (!tpd_begin(q))
        return;
    if (uptime_spec_query(&spec, q) < 0) {
        tpd_answer_error(q, 400, "error bad input");
        return;
    }
    begin(q, &spec);
    free(spec.pk);
}

void tpd_handle_tp_uptimes_post(struct service_req *q)
{
    struct uptime_spec spec;
    if (!tpd_begin(q))
        return;
    if (uptime_spec_body(&spec, q->body, q->body_len) < 0) {
        tpd_answer_error(q, 400, "invalid JSON body");
        return;
    }
    begin(q, &spec);
    free(spec.pk);
}
