/*
 * Questions about uptimes:
 *
 *     FLUSH (what was gathered is written) -> DAYS (who was seen; only when all are asked for) -> ROWS (key after key) -> answer
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/hex.h"
#include "base/json.h"
#include "compat-http/uptime_int.h"

#define ANSWER_MAX   ((size_t)256 << 20)
#define ROWS_OF_TURN 64
#define VERSION_MAX  256
#define LINE_BYTES   (UPTIME_SLOTS / 8)

struct asker {
    struct list_node node; /* in question->askers */
    uptime_done *done;
    void *arg;
};

struct row_key {
    struct pubkey pk;
    uint8_t days; /* bit i: it may have been seen i days ago */
};

struct row_day {
    struct uptime_question *q;
    char day[UPTIME_DAY];
    bool known;
    uint64_t count;
    char version[VERSION_MAX + 1];
    bool has_line;
    uint8_t line[LINE_BYTES];
};

struct uptime_question {
    struct list_node node; /* in u->questions */
    struct list_node wait; /* in u->waiting */
    struct uptime *u;
    struct list askers;
    enum uptime_version v;
    bool all;
    struct row_key *key;
    size_t n, cap, at;
    int day_at, err;
    struct row_day day[UPTIME_DAYS];
    unsigned left; /* calls of the row under way */
    bool starting, online;
    struct json_out out;
    struct loop_timer turn;
};

static void question_free(struct uptime_question *q)
{
    struct asker *a;
    while ((a = list_pop_front_as(&q->askers, struct asker, node)) != NULL)
        free(a);
    loop_timer_cancel(q->u->cfg.loop, &q->turn);
    list_remove(&q->node);
    list_remove(&q->wait);
    json_out_free(&q->out);
    q->u->stat.asking--;
    free(q->key);
    free(q);
}

/* ---- the answer ---- */

static void keep(struct uptime *u, struct uptime_question *q)
{
    struct uptime_kept *k = &u->kept[q->v];
    free(k->text);
    *k = (struct uptime_kept){q->out.p, q->out.len, u->cfg.loop->now_ns + UPTIME_KEPT_NS, NULL};
    json_out_grow(&q->out, JSON_FAST, 0);
    loop_timer_set(u->cfg.loop, &u->forget, u->cfg.loop->now_ns + UPTIME_KEPT_NS);
}

static void question_over(struct uptime_question *q)
{
    struct uptime *u = q->u;
    struct asker *a;
    json_out_array_end(&q->out);
    int err = q->err != 0 ? q->err : q->out.err;
    const char *text = err == 0 ? q->out.p : NULL;
    size_t n = err == 0 ? q->out.len : 0;
    if (q->all) {
        u->kept[q->v].under_way = NULL;
        if (err == 0)
            keep(u, q);
    }
    while ((a = list_pop_front_as(&q->askers, struct asker, node)) != NULL) {
        a->done(a->arg, err, text, n);
        free(a);
    }
    question_free(q);
}

static void on_forget(struct loop_timer *t)
{
    struct uptime *u = container_of(t, struct uptime, forget);
    uint64_t next = LOOP_NEVER;
    for (int i = 0; i < UPTIME__VERSIONS; i++) {
        struct uptime_kept *k = &u->kept[i];
        if (k->until_ns <= u->cfg.loop->now_ns) {
            free(k->text);
            k->text = NULL;
        } else if (k->until_ns < next) {
            next = k->until_ns;
        }
    }
    if (next != LOOP_NEVER)
        loop_timer_set(u->cfg.loop, t, next);
}

/* ---- rows ---- */

static void write_percent(struct json_out *o, uint64_t count, unsigned expected)
{
    char text[24];
    uint64_t n = count < expected ? count : expected;
    unsigned hundredths = (unsigned)((n * 100000 / expected + 5) / 10);
    snprintf(text, sizeof(text), "%u.%02u", hundredths / 100, hundredths % 100);
    json_out_str(o, text);
}

static void write_line(struct json_out *o, const uint8_t *line)
{
    char *p = json_out_plain(o, UPTIME_SLOTS);
    for (unsigned i = 0; p != NULL && i < UPTIME_SLOTS; i++)
        p[i] = line[i / 8] & (0x80u >> i % 8) ? '.' : ' ';
}

/* Oldest day first. */
static void write_days(struct uptime_question *q)
{
    struct json_out *o = &q->out;
    bool daily = false, lines = false;
    for (int i = 0; i < UPTIME_DAYS; i++) {
        daily = daily || q->day[i].known;
        lines = lines || q->day[i].has_line;
    }
    if (daily && q->v >= UPTIME_V2) {
        json_out_name(o, "daily");
        json_out_object(o);
        for (int i = UPTIME_DAYS - 1; i >= 0; i--)
            if (q->day[i].known) {
                json_out_name(o, q->day[i].day);
                write_percent(o, q->day[i].count, q->u->cfg.expected);
            }
        json_out_object_end(o);
    }
    if (lines && q->v == UPTIME_V3) {
        json_out_name(o, "timeline");
        json_out_object(o);
        for (int i = UPTIME_DAYS - 1; i >= 0; i--)
            if (q->day[i].has_line) {
                json_out_name(o, q->day[i].day);
                write_line(o, q->day[i].line);
            }
        json_out_object_end(o);
    }
}

static void write_row(struct uptime_question *q)
{
    struct json_out *o = &q->out;
    const char *version = "";
    bool known = q->online;
    for (int i = UPTIME_DAYS - 1; i >= 0; i--) {
        known = known || q->day[i].known;
        if (q->day[i].version[0] != '\0')
            version = q->day[i].version;
    }
    if (!known)
        return;
    json_out_object(o);
    json_out_name(o, "pk");
    json_out_hex(o, q->key[q->at].pk.b, PUBKEY_BYTES);
    json_out_name(o, "on");
    json_out_bool(o, q->online);
    if (version[0] != '\0') {
        json_out_name(o, "version");
        json_out_str(o, version);
    }
    write_days(q);
    json_out_object_end(o);
}

static void rows(struct uptime_question *q);

static void row_part_over(struct uptime_question *q, int err)
{
    q->err = q->err != 0 ? q->err : err;
    if (--q->left > 0 || q->starting)
        return;
    write_row(q);
    q->at++;
    rows(q);
}

static void on_hash(void *arg, const struct kv_answer *a)
{
    struct row_day *d = arg;
    char count[24] = "";
    if (a->err == 0 && a->v[0].p != NULL && a->v[0].n < sizeof(count)) {
        memcpy(count, a->v[0].p, a->v[0].n);
        d->known = true;
        d->count = strtoull(count, NULL, 10);
    }
    if (a->err == 0 && a->v[1].p != NULL)
        snprintf(d->version, sizeof(d->version), "%.*s", (int)a->v[1].n, (const char *)a->v[1].p);
    row_part_over(d->q, a->err);
}

/* The lines of the days that were asked for, then what is stored under the key itself. */
static void on_strings(void *arg, const struct kv_answer *a)
{
    struct uptime_question *q = arg;
    const struct row_key *k = &q->key[q->at];
    size_t n = 0;
    for (int i = 0; a->err == 0 && q->v == UPTIME_V3 && i < UPTIME_DAYS; i++) {
        if (!(k->days & 1u << i))
            continue;
        struct kv_str v = a->v[n++];
        q->day[i].has_line = v.p != NULL;
        if (v.p != NULL)
            memcpy(q->day[i].line, v.p, v.n < LINE_BYTES ? v.n : LINE_BYTES);
    }
    if (a->err == 0)
        q->online = q->u->cfg.online(q->u->cfg.arg, &k->pk, a->v[n]);
    row_part_over(q, a->err);
}

/* True when the row is complete already. */
static bool row_start(struct uptime_question *q)
{
    struct uptime *u = q->u;
    const struct row_key *k = &q->key[q->at];
    char hex[PUBKEY_HEX + 1], name[UPTIME_DAYS][UPTIME_KEY], hash[UPTIME_KEY];
    struct kv_str strings[UPTIME_DAYS + 1], fields[2] = {KV_STR("count"), KV_STR("version")};
    size_t n = 0;
    pubkey_hex(hex, &k->pk);
    q->starting = true;
    q->left = 1;
    q->online = false;
    for (int i = 0; i < UPTIME_DAYS; i++) {
        struct row_day *d = &q->day[i];
        d->known = d->has_line = false;
        d->version[0] = '\0';
        memset(d->line, 0, sizeof(d->line));
        if (!(k->days & 1u << i))
            continue;
        if (q->v == UPTIME_V3)
            strings[n++] = uptime_key(u, name[i], hex, d->day, ":timeline");
        q->left++;
        int rc = kv_hget(u->cfg.kv, uptime_key(u, hash, hex, d->day, ""), fields, 2, on_hash, d);
        if (rc < 0)
            row_part_over(q, rc);
    }
    strings[n++] = (struct kv_str){hex, PUBKEY_HEX};
    int rc = kv_get(u->cfg.kv, strings, n, on_strings, q);
    if (rc < 0)
        row_part_over(q, rc);
    q->starting = false;
    return q->left == 0;
}

/* Some of a turn, so that a list of all does not keep others waiting. */
static void rows(struct uptime_question *q)
{
    for (int i = 0; i < ROWS_OF_TURN; i++) {
        if (q->at == q->n || q->err != 0) {
            question_over(q);
            return;
        }
        if (!row_start(q))
            return;
        write_row(q);
        q->at++;
    }
    loop_timer_set(q->u->cfg.loop, &q->turn, q->u->cfg.loop->now_ns);
}

static void on_turn(struct loop_timer *t)
{
    rows(container_of(t, struct uptime_question, turn));
}

/* ---- days ---- */

static int by_pk(const void *a, const void *b)
{
    return pubkey_cmp(&((const struct row_key *)a)->pk, &((const struct row_key *)b)->pk);
}

static void sort_keys(struct uptime_question *q)
{
    size_t n = 0;
    if (q->n > 0)
        qsort(q->key, q->n, sizeof(*q->key), by_pk);
    for (size_t i = 0; i < q->n; i++) {
        if (n > 0 && pubkey_equal(&q->key[n - 1].pk, &q->key[i].pk))
            q->key[n - 1].days |= q->key[i].days;
        else
            q->key[n++] = q->key[i];
    }
    q->n = n;
}

static bool add_key(struct uptime_question *q, const struct row_key *k)
{
    if (q->n == q->cap) {
        size_t cap = q->cap != 0 ? 2 * q->cap : 64;
        struct row_key *more = realloc(q->key, cap * sizeof(*more));
        if (more == NULL)
            return false;
        q->key = more;
        q->cap = cap;
    }
    q->key[q->n++] = *k;
    return true;
}

static void days(struct uptime_question *q);

static void on_seen(void *arg, const struct kv_answer *a)
{
    struct uptime_question *q = arg;
    size_t n = q->n; /* those of the days before, sorted */
    q->err = a->err;
    for (size_t i = 0; i < a->n && q->err == 0 && q->n - n < UPTIME_ALL; i++) {
        struct row_key k = {.days = (uint8_t)(1u << q->day_at)};
        if (a->v[i].n == PUBKEY_HEX &&
            hex_decode(k.pk.b, PUBKEY_BYTES, a->v[i].p, PUBKEY_HEX) == 0 && !add_key(q, &k))
            q->err = ERR_NOMEM;
    }
    sort_keys(q);
    q->n = q->n < UPTIME_ALL ? q->n : UPTIME_ALL;
    q->day_at++;
    days(q);
}

static void days(struct uptime_question *q)
{
    char name[UPTIME_KEY];
    if (!q->all || q->day_at == UPTIME_DAYS || q->err != 0) {
        rows(q);
        return;
    }
    struct kv_str set = uptime_online_key(q->u, name, q->day[q->day_at].day);
    int rc = kv_members(q->u->cfg.kv, set, on_seen, q);
    if (rc < 0) {
        q->err = rc;
        rows(q);
    }
}

/* ---- asking ---- */

void uptime_flushed(struct uptime *u)
{
    struct uptime_question *q;
    struct list waiting;
    list_init(&waiting);
    list_splice(&waiting, &u->waiting);
    while ((q = list_pop_front_as(&waiting, struct uptime_question, wait)) != NULL)
        days(q);
}

static int add_asker(struct uptime_question *q, uptime_done *done, void *arg)
{
    struct asker *a = calloc(1, sizeof(*a));
    if (a == NULL)
        return ERR_NOMEM;
    a->done = done;
    a->arg = arg;
    list_push_back(&q->askers, &a->node);
    return 0;
}

static struct uptime_question *question_new(struct uptime *u, const struct uptime_spec *spec)
{
    struct uptime_question *q = calloc(1, sizeof(*q));
    if (q == NULL)
        return NULL;
    q->u = u;
    q->v = spec->v;
    q->all = spec->all;
    list_init(&q->askers);
    q->turn.fn = on_turn;
    json_out_grow(&q->out, JSON_FAST, ANSWER_MAX);
    json_out_array(&q->out);
    for (int i = 0; i < UPTIME_DAYS; i++) {
        q->day[i].q = q;
        uptime_day(q->day[i].day, env_wall_ns(u->cfg.env), i);
    }
    list_push_back(&u->questions, &q->node);
    u->stat.asking++;
    for (size_t i = 0; !q->all && i < spec->n; i++)
        if (!add_key(q, &(struct row_key){spec->pk[i], (1u << UPTIME_DAYS) - 1})) {
            question_free(q);
            return NULL;
        }
    sort_keys(q);
    return q;
}

int uptime_list(struct uptime *u, const struct uptime_spec *spec, uptime_done *done, void *arg)
{
    struct uptime_kept *k = &u->kept[spec->v];
    u->stat.lists++;
    if (spec->all && k->text != NULL && k->until_ns > u->cfg.loop->now_ns) {
        done(arg, 0, k->text, k->n);
        return 0;
    }
    if (spec->all && k->under_way != NULL)
        return add_asker(k->under_way, done, arg);
    if (u->stat.asking >= UPTIME_ASKING)
        return ERR_BUSY;
    struct uptime_question *q = question_new(u, spec);
    int rc = q != NULL ? add_asker(q, done, arg) : ERR_NOMEM;
    if (rc < 0) {
        if (q != NULL)
            question_free(q);
        return rc;
    }
    if (q->all)
        k->under_way = q;
    if (uptime_flush(u))
        list_push_back(&u->waiting, &q->wait);
    else
        days(q);
    return 0;
}

/* ---- what is asked for ---- */

static int add_text(struct uptime_spec *s, size_t *cap, const char *text, size_t n)
{
    struct pubkey pk;
    if (pubkey_from_hex(&pk, text, n) < 0)
        return 0;
    if (s->n == UPTIME_KEYS)
        return ERR_LIMIT;
    if (s->n == *cap) {
        *cap = *cap != 0 ? 2 * *cap : 16;
        struct pubkey *more = realloc(s->pk, *cap * sizeof(*more));
        if (more == NULL)
            return ERR_NOMEM;
        s->pk = more;
    }
    s->pk[s->n++] = pk;
    return 0;
}

static enum uptime_version version_of(const char *text)
{
    return strcmp(text, "v3") == 0 ? UPTIME_V3 : strcmp(text, "v2") == 0 ? UPTIME_V2 : UPTIME_PLAIN;
}

static int spec_over(struct uptime_spec *s, int rc)
{
    if (rc < 0) {
        free(s->pk);
        s->pk = NULL;
        s->n = 0;
    }
    return rc;
}

int uptime_spec_query(struct uptime_spec *spec, const struct service_req *q)
{
    char v[8], list[8192];
    size_t cap = 0, len;
    int rc = 0, n = service_query(q, "visors", list, sizeof(list));
    *spec = (struct uptime_spec){.all = n <= 0};
    if (service_query(q, "v", v, sizeof(v)) > 0)
        spec->v = version_of(v);
    for (const char *p = list; n > 0 && *p != '\0' && rc == 0; p += len + (p[len] == ';')) {
        len = strcspn(p, ";");
        rc = add_text(spec, &cap, p, len);
    }
    return spec_over(spec, rc);
}

int uptime_spec_body(struct uptime_spec *spec, const char *body, size_t n)
{
    struct json_in j = json_in_init(body, n);
    char text[256];
    size_t cap = 0, len;
    int rc = 0;
    bool any = false;
    *spec = (struct uptime_spec){0};
    if (!json_in_object(&j))
        return ERR_FORMAT;
    while (rc == 0 && json_in_member(&j)) {
        if (json_in_name_is(&j, "pks")) {
            if (json_in_array(&j))
                while (rc == 0 && json_in_element(&j)) {
                    any = true;
                    if (json_in_string(&j, text, sizeof(text), &len))
                        rc = add_text(spec, &cap, text, len);
                }
        } else if (json_in_name_is(&j, "v")) {
            if (json_in_string(&j, text, sizeof(text), &len))
                spec->v = version_of(text);
        } else {
            json_in_skip(&j);
        }
    }
    spec->all = !any;
    return spec_over(spec, rc != 0 ? rc : json_in_end_value(&j) < 0 ? ERR_FORMAT : 0);
}

/* ---- life ---- */

void uptime_questions_init(struct uptime *u)
{
    list_init(&u->questions);
    u->forget.fn = on_forget;
}

void uptime_questions_free(struct uptime *u)
{
    struct uptime_question *q;
    while ((q = list_first_as(&u->questions, struct uptime_question, node)) != NULL)
        question_free(q);
    loop_timer_cancel(u->cfg.loop, &u->forget);
    for (int i = 0; i < UPTIME__VERSIONS; i++)
        free(u->kept[i].text);
}
