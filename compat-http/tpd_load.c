/*
 * What the store has is read once, in pieces: index -> values and lives of 256 at a time -> sorted by their end -> table. And the other way: what the store has lost is written again.
 */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "compat-http/tpd_int.h"

#define CHUNK 256 /* of keys in one command (incident 71) */

struct found {
    struct tpd_stored s;
    uint64_t until_ns;
};

enum phase { IDLE, INDEX, VALUES, LIVES, VISORS, VERSIONS };

struct tpd_load {
    struct tpd_service *t;
    struct loop_timer next; /* not from inside an answer of the store */
    enum phase phase;
    struct tp_id *id; /* of the index */
    size_t n_ids, at, chunk;
    struct found *found;
    size_t n_found, before; /* before this chunk */
    struct pubkey *visor;
    size_t n_visors;
    /* restoring */
    struct loop_timer step;
    struct tp_id lost[CHUNK];
    size_t n_lost;
    bool restoring;
};

static void forget(struct tpd_load *l)
{
    free(l->id);
    free(l->found);
    free(l->visor);
    l->id = NULL;
    l->found = NULL;
    l->visor = NULL;
    l->n_ids = l->at = l->n_found = l->n_visors = 0;
    l->phase = IDLE;
}

/* The clock tries again. */
static void failed(struct tpd_load *l, int err)
{
    l->t->stat.store_errors++;
    log_limited_here(LOG_HTTP, LOG_LEVEL_WARN, "transports cannot be read reason=\"%s\"",
                     err_str(err));
    forget(l);
}

static void soon(struct tpd_load *l, enum phase phase)
{
    l->phase = phase;
    loop_timer_set(l->t->cfg.loop, &l->next, l->t->cfg.loop->now_ns);
}

/* ---- visors of today ---- */

static void loaded(struct tpd_load *l)
{
    struct tpd_service *t = l->t;
    forget(l);
    log_info(LOG_HTTP, "transports read n=%zu", tpd_table_len(&t->table));
    t->stat.ready = true;
    if (t->cfg.loaded != NULL)
        t->cfg.loaded(t->cfg.arg);
}

static void on_version(void *arg, const struct kv_answer *a)
{
    struct tpd_load *l = arg;
    struct tpd_visor *v = a->err == 0 && a->n == 2 ? tpd_visor_make(l->t, &l->visor[l->at]) : NULL;
    if (v != NULL && a->v[0].p != NULL && a->v[0].n < sizeof(v->version)) {
        memcpy(v->version, a->v[0].p, a->v[0].n);
        v->version[a->v[0].n] = '\0';
    }
    if (v != NULL && a->v[1].p != NULL && a->v[1].n < 20) {
        char text[20] = {0};
        memcpy(text, a->v[1].p, a->v[1].n);
        v->seen_s = strtoll(text, NULL, 10);
    }
    l->at++;
    soon(l, VERSIONS);
}

static void ask_version(struct tpd_load *l)
{
    const struct kv_str fields[] = {KV_STR("version"), KV_STR("last_seen")};
    char day[TPD_DAY + 1], hex[PUBKEY_HEX + 1];
    struct kv_batch text = {0};
    if (l->at >= l->n_visors) {
        loaded(l);
        return;
    }
    struct kv_str key =
        kv_batch_text(&text, TPD_SERVICE ":uptime:%s:%s", pubkey_hex(hex, &l->visor[l->at]),
                      tpd_layout_day(day, tpd_now_s(l->t)));
    int rc = kv_hget(l->t->cfg.kv, key, fields, 2, on_version, l);
    kv_batch_free(&text);
    if (rc < 0)
        loaded(l); /* versions come with the next heartbeats */
}

static void on_visors(void *arg, const struct kv_answer *a)
{
    struct tpd_load *l = arg;
    l->visor = a->err == 0 ? malloc((a->n + 1) * sizeof(*l->visor)) : NULL;
    for (size_t i = 0; l->visor != NULL && i < a->n; i++)
        if (pubkey_from_hex(&l->visor[l->n_visors], a->v[i].p, a->v[i].n) == 0)
            l->n_visors++;
    l->at = 0;
    soon(l, VERSIONS);
}

static void ask_visors(struct tpd_load *l)
{
    char day[TPD_DAY + 1];
    struct kv_batch text = {0};
    struct kv_str key =
        kv_batch_text(&text, TPD_SERVICE ":uptime:online:%s", tpd_layout_day(day, tpd_now_s(l->t)));
    int rc = l->t->cfg.generation == TPD_2024 ? ERR_NOT_FOUND
                                              : kv_members(l->t->cfg.kv, key, on_visors, l);
    kv_batch_free(&text);
    if (rc < 0)
        loaded(l);
}

/* ---- transports ---- */

static int by_end(const void *a, const void *b)
{
    const struct found *x = a, *y = b;
    return x->until_ns < y->until_ns ? -1 : x->until_ns > y->until_ns;
}

static void into_table(struct tpd_load *l)
{
    struct tpd_service *t = l->t;
    struct tpd_tp *tp;
    if (l->n_found > 0)
        qsort(l->found, l->n_found, sizeof(*l->found), by_end);
    for (size_t i = 0; i < l->n_found; i++) {
        const struct found *f = &l->found[i];
        if (tpd_table_put(&t->table, &f->s.e, f->until_ns, &tp) < 0)
            continue; /* counted there */
        tp->quality = f->s.quality;
        tp->stored_ns =
            f->until_ns == TPD_FOR_EVER || f->until_ns < t->ttl_ns ? 0 : f->until_ns - t->ttl_ns;
    }
    tpd_table_forget_changes(&t->table);
    if (l->n_found == 0 && t->ttl_ns != 0)
        t->complete_ns = t->cfg.loop->now_ns + t->ttl_ns;
    soon(l, VISORS);
}

static void next_chunk(struct tpd_load *l)
{
    l->at += l->chunk;
    if (l->at < l->n_ids)
        soon(l, VALUES);
    else
        into_table(l);
}

/* Lives longer than ours are cut, so that the order of the table is that of renewals. */
static void on_lives(void *arg, const struct kv_answer *a)
{
    struct tpd_load *l = arg;
    struct tpd_service *t = l->t;
    uint64_t now = t->cfg.loop->now_ns;
    if (a->err != 0) {
        failed(l, a->err);
        return;
    }
    for (size_t i = 0; i < a->n && l->before + i < l->n_found; i++) {
        uint64_t ttl = a->ttl_ms[i] < 0 ? UINT64_MAX : (uint64_t)a->ttl_ms[i] * NS_PER_MS;
        if (a->ttl_ms[i] == -2)
            ttl = 0; /* it ended in between */
        l->found[l->before + i].until_ns =
            t->ttl_ns == 0 ? TPD_FOR_EVER : now + (ttl < t->ttl_ns ? ttl : t->ttl_ns);
    }
    next_chunk(l);
}

static struct kv_str *keys_of(char (*text)[TPD_KEY_MAX], struct kv_str *key, const struct tp_id *id)
{
    *key = (struct kv_str){*text, tpd_layout_key(*text, id)};
    return key;
}

static void ask_lives(struct tpd_load *l)
{
    char text[CHUNK][TPD_KEY_MAX];
    struct kv_str key[CHUNK];
    size_t n = l->n_found - l->before;
    for (size_t i = 0; i < n; i++)
        keys_of(&text[i], &key[i], &l->found[l->before + i].s.e.id);
    int rc = n > 0 ? kv_ttl(l->t->cfg.kv, key, n, on_lives, l) : 0;
    if (rc < 0)
        failed(l, rc);
    else if (n == 0)
        next_chunk(l);
}

static void on_values(void *arg, const struct kv_answer *a)
{
    struct tpd_load *l = arg;
    if (a->err != 0) {
        failed(l, a->err);
        return;
    }
    l->before = l->n_found;
    for (size_t i = 0; i < a->n; i++)
        if (a->v[i].p != NULL &&
            tpd_layout_read(&l->found[l->n_found].s, a->v[i].p, a->v[i].n) == 0)
            l->n_found++;
    soon(l, LIVES);
}

static void ask_values(struct tpd_load *l)
{
    char text[CHUNK][TPD_KEY_MAX];
    struct kv_str key[CHUNK];
    l->chunk = l->n_ids - l->at < CHUNK ? l->n_ids - l->at : CHUNK;
    for (size_t i = 0; i < l->chunk; i++)
        keys_of(&text[i], &key[i], &l->id[l->at + i]);
    int rc = l->chunk > 0 ? kv_get(l->t->cfg.kv, key, l->chunk, on_values, l) : 0;
    if (rc < 0)
        failed(l, rc);
    else if (l->chunk == 0)
        into_table(l);
}

static void on_index(void *arg, const struct kv_answer *a)
{
    struct tpd_load *l = arg;
    if (a->err != 0) {
        failed(l, a->err);
        return;
    }
    l->id = malloc((a->n + 1) * sizeof(*l->id));
    l->found = calloc(a->n + 1, sizeof(*l->found));
    if (l->id == NULL || l->found == NULL) {
        failed(l, ERR_NOMEM);
        return;
    }
    for (size_t i = 0; i < a->n; i++)
        if (tp_id_from_text(&l->id[l->n_ids], a->v[i].p, a->v[i].n) == 0)
            l->n_ids++;
    soon(l, VALUES);
}

static void on_next(struct loop_timer *timer)
{
    struct tpd_load *l = container_of(timer, struct tpd_load, next);
    switch (l->phase) {
    case VALUES:
        ask_values(l);
        break;
    case LIVES:
        ask_lives(l);
        break;
    case VISORS:
        ask_visors(l);
        break;
    case VERSIONS:
        ask_version(l);
        break;
    case IDLE:
    case INDEX:
        break;
    }
}

static void on_step(struct loop_timer *timer);

static struct tpd_load *load_of(struct tpd_service *t)
{
    struct tpd_load *l = t->load;
    if (l != NULL || (l = calloc(1, sizeof(*l))) == NULL)
        return l;
    l->t = t;
    l->next.fn = on_next;
    l->step.fn = on_step;
    return t->load = l;
}

void tpd_load_start(struct tpd_service *t)
{
    struct tpd_load *l = load_of(t);
    if (l == NULL || t->stat.ready || l->phase != IDLE)
        return;
    l->phase = INDEX;
    int rc = kv_members(t->cfg.kv, TPD_INDEX, on_index, l);
    if (rc < 0)
        failed(l, rc);
}

/* ---- what the store has lost ---- */

static void restore_over(struct tpd_load *l, int err)
{
    l->restoring = false;
    tpd_walk_end(&l->t->table, TPD_WALK_RESTORE);
    l->t->stat.store_errors += err != 0; /* it is away again, and will be back */
}

static void restore_soon(struct tpd_load *l)
{
    loop_timer_set(l->t->cfg.loop, &l->step, l->t->cfg.loop->now_ns);
}

static void on_restored(void *arg, const struct kv_answer *a)
{
    struct tpd_load *l = arg;
    if (a->err != 0)
        restore_over(l, a->err);
    else
        restore_soon(l);
}

static void on_missing(void *arg, const struct kv_answer *a)
{
    struct tpd_load *l = arg;
    struct tpd_service *t = l->t;
    struct kv_batch b = {0};
    uint64_t now = t->cfg.loop->now_ns;
    for (size_t i = 0; a->err == 0 && i < a->n && i < l->n_lost; i++) {
        struct tpd_tp *tp = tpd_table_get(&t->table, &l->lost[i]);
        if (a->ttl_ms[i] != -2 || tp == NULL || tp->until_ns <= now)
            continue;
        uint64_t left = t->ttl_ns == 0 ? 0 : (tp->until_ns - now) / NS_PER_MS + 1;
        tpd_layout_set(&b, t->shared, &tp->e, &tp->quality, left, tpd_now_s(t));
        t->stat.restored++;
    }
    int rc = a->err;
    if (rc == 0 && b.n > 0)
        rc = kv_batch_write(&b, t->cfg.kv, on_restored, l);
    else if (rc == 0)
        restore_soon(l);
    kv_batch_free(&b);
    if (rc < 0)
        restore_over(l, rc);
}

static void on_step(struct loop_timer *timer)
{
    char text[CHUNK][TPD_KEY_MAX];
    struct tpd_load *l = container_of(timer, struct tpd_load, step);
    struct kv_str key[CHUNK];
    struct tpd_tp *tp;
    l->n_lost = 0;
    while (l->n_lost < CHUNK && (tp = tpd_walk_next(&l->t->table, TPD_WALK_RESTORE)) != NULL) {
        l->lost[l->n_lost] = tp->e.id;
        keys_of(&text[l->n_lost], &key[l->n_lost], &tp->e.id);
        l->n_lost++;
    }
    int rc = l->n_lost > 0 ? kv_ttl(l->t->cfg.kv, key, l->n_lost, on_missing, l) : 0;
    if (rc < 0 || l->n_lost == 0)
        restore_over(l, rc);
}

/* From its beginning, also when it is under way: what was looked at may have been lost since. */
void tpd_restore_start(struct tpd_service *t)
{
    struct tpd_load *l = load_of(t);
    if (l == NULL || !t->stat.ready)
        return;
    tpd_walk_start(&t->table, TPD_WALK_RESTORE);
    if (!l->restoring)
        restore_soon(l);
    l->restoring = true;
}

void tpd_load_free(struct tpd_service *t)
{
    struct tpd_load *l = t->load;
    if (l == NULL)
        return;
    loop_timer_cancel(t->cfg.loop, &l->next);
    loop_timer_cancel(t->cfg.loop, &l->step);
    forget(l);
    free(l);
    t->load = NULL;
}
