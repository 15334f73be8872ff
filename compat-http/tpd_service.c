#include "compat-http/tpd_service.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "compat-http/health_text.h"
#include "compat-http/tpd_int.h"

#define TICK_NS     NS_PER_S
#define ENDED_MAX   1000 /* taken out of the store in one write */
#define SEEN_MAX    1000
#define TELL_MAX    1024 /* keys told in one turn of the loop */
#define RATE_BURST  10
#define RATE_KEYS   65536
#define VISOR_S     (2 * 86400)
#define VISORS_TICK 3600
#define HEARTBEATS  288 /* of a day */
#define GATHER_NS   (5 * NS_PER_S)

/* ---- requests ---- */

static bool within_rate(struct tpd_service *t, const struct service_req *q)
{
    const struct service_caller *c = &q->caller;
    uint64_t now = t->cfg.loop->now_ns;
    if (t->cfg.rate == 0)
        return true;
    return c->stream ? rate_take(&t->rate, c->pk.b, PUBKEY_BYTES, now)
                     : rate_take(&t->rate, c->ip, strlen(c->ip), now);
}

bool tpd_begin(struct service_req *q)
{
    struct tpd_service *t = q->app;
    char text[80];
    if (!within_rate(t, q)) {
        t->stat.limited++;
        snprintf(text, sizeof(text), "Rate limit exceeded: maximum %u requests per minute\n",
                 t->cfg.rate);
        service_answer_text(q, 429, SERVICE_PLAIN, text);
        return false;
    }
    if (t->stat.ready)
        return true;
    service_answer_header(q, "Retry-After", "1");
    tpd_answer_error(q, 503, "the store is still being read");
    return false;
}

void tpd_service_dropped(struct service_req *q)
{
    struct tpd_job *j = q->user;
    if (strncmp(q->path, "/security/", 10) == 0) {
        nonce_show_dropped(q);
    } else if (j != NULL) {
        j->q = NULL; /* what it does to the store goes on */
        j->turn.q = NULL;
    }
}

static void handle_nonce(struct service_req *q)
{
    struct tpd_service *t = q->app;
    nonce_book_show(&t->book, q);
}

static void handle_gone(struct service_req *q)
{
    service_answer(q, 410, NULL, "", 0);
}

/* The service keeps no history of its own running. */
static void handle_no_recorder(struct service_req *q)
{
    if (tpd_begin(q))
        service_answer_text(q, 503, SERVICE_PLAIN, "uptime recorder not configured\n");
}

/* ---- /health ---- */

/* Everybody who was registered is: the store was read, and when it was empty a whole life of a transport has passed since (incident 70). */
static bool is_complete(const struct tpd_service *t)
{
    return t->stat.ready && t->cfg.loop->now_ns >= t->complete_ns;
}

static void handle_health(struct service_req *q)
{
    struct tpd_service *t = q->app;
    struct json_out o;
    bool late = t->cfg.generation >= TPD_2026;
    json_out_grow(&o, JSON_FAST, TPD_ANSWER_MAX);
    json_out_object(&o);
    health_text_write(&o, late ? TPD_SERVICE : NULL, t->started, t->cfg.dmsg_address);
    if (late && tpd_table_len(&t->table) > 0) {
        json_out_name(&o, "transport_counts");
        tpd_write_counts(&o, t);
    }
    if (late) {
        json_out_name(&o, "complete");
        json_out_bool(&o, is_complete(t));
    }
    json_out_object_end(&o);
    if (o.err == 0)
        service_answer_owned(q, 200, SERVICE_JSON, o.p, o.len);
    else
        json_out_free(&o);
}

/* ---- routes ---- */

/* The first N_2024 are those of 2024. */
static const struct service_route routes[] = {
    {SERVICE_GET, "/health", handle_health, 0},
    {SERVICE_GET, "/security/nonces/{}", handle_nonce, 0},
    {SERVICE_POST, "/statuses", handle_gone, 0},
    {SERVICE_GET, "/transports/id:{}", tpd_handle_id, 0},
    {SERVICE_GET, "/transports/edge:{}", tpd_handle_edge, 0},
    {SERVICE_POST, "/transports/", tpd_handle_register, 0},
    {SERVICE_DELETE, "/transports/id:{}", tpd_handle_delete, 0},
    {SERVICE_DELETE, "/transports/deregister", tpd_handle_deregister, 0},
    {SERVICE_GET, "/all-transports", tpd_handle_all, 0},
#define N_2024 9
    {SERVICE_POST, "/v3/transports/", tpd_handle_register_v3, 0},
    {SERVICE_GET, "/v3/transports/edge:{}", tpd_handle_edge_v3, 0},
    {SERVICE_POST, "/transports/delete-batch", tpd_handle_delete_batch, 0},
    {SERVICE_GET, "/v4/update", tpd_handle_heartbeat, 0},
    {SERVICE_POST, "/transports/edges", tpd_handle_edges, 0},
    {SERVICE_GET, "/all-transports/stats", tpd_handle_stats, 0},
    {SERVICE_GET, "/all-transports/per-key-stats", tpd_handle_key_stats, 0},
    {SERVICE_GET, "/transports/stats/{}", tpd_handle_stats_of, 0},
    {SERVICE_GET, "/bandwidth/transport/{}", tpd_handle_bandwidth_tp, 0},
    {SERVICE_GET, "/bandwidth/visor/{}", tpd_handle_bandwidth_visor, 0},
    {SERVICE_GET, "/metric", tpd_handle_metric, 0},
    {SERVICE_GET, "/metric/visor/{}", tpd_handle_metric, 0},
    {SERVICE_GET, "/metrics", tpd_handle_metrics, 0},
    {SERVICE_GET, "/metrics/{}", tpd_handle_metrics, 0},
    {SERVICE_GET, "/metrics/visor/{}", tpd_handle_metrics_visor, 0},
    {SERVICE_GET, "/uptimes", tpd_handle_uptimes_get, 0},
    {SERVICE_POST, "/uptimes", tpd_handle_uptimes_post, 0},
    {SERVICE_GET, "/uptimes/transports", tpd_handle_tp_uptimes_get, 0},
    {SERVICE_POST, "/uptimes/transports", tpd_handle_tp_uptimes_post, 0},
    {SERVICE_GET, "/version", tpd_handle_version, 0},
    {SERVICE_GET, "/versions", tpd_handle_versions, 0},
    {SERVICE_GET, "/versions/{}", tpd_handle_versions, 0},
    {SERVICE_GET, "/uptime/now", handle_no_recorder, 0},
    {SERVICE_GET, "/uptime/sessions", handle_no_recorder, 0},
    {SERVICE_GET, "/uptime/timeline", handle_no_recorder, 0},
    {SERVICE_GET, "/uptime/dates", handle_no_recorder, 0},
};

const struct service_route *tpd_service_routes(enum tpd_generation g, size_t *n)
{
    *n = g == TPD_2024 ? N_2024 : sizeof(routes) / sizeof(routes[0]);
    return routes;
}

/* ---- what happens by itself ---- */

static void on_tell(struct loop_task *task)
{
    struct tpd_service *t = container_of(task, struct tpd_service, tell);
    struct pubkey pk;
    for (int i = 0; i < TELL_MAX; i++) {
        if (!tpd_table_changed(&t->table, &pk))
            return;
        if (t->cfg.changed != NULL)
            t->cfg.changed(t->cfg.arg, &pk);
    }
    /* The rest with the next clock tick at the latest. */
}

void tpd_tell(struct tpd_service *t)
{
    loop_task_post(t->cfg.loop, &t->tell);
}

static void on_cleaned(void *arg, const struct kv_answer *a)
{
    struct tpd_service *t = arg;
    t->stat.store_errors +=
        a->err != 0; /* the index keeps some ids too many until the next start */
}

/* What has ended here has ended in the store, where it leaves the sets. */
static void expire(struct tpd_service *t)
{
    struct kv_batch b = {0};
    struct tpd_tp *tp;
    for (int i = 0; i < ENDED_MAX; i++) {
        if ((tp = tpd_table_ended(&t->table, t->cfg.loop->now_ns)) == NULL)
            break;
        tpd_layout_del(&b, t->shared, &tp->e);
        tpd_table_remove(&t->table, tp);
        t->stat.expired++;
    }
    if (b.n > 0 && kv_batch_write(&b, t->cfg.kv, on_cleaned, t) < 0)
        t->stat.store_errors++;
    kv_batch_free(&b);
}

/* ---- which transports were up: gathered, a crash costs five minutes of a bitmap ---- */

static void write_seen(struct tpd_service *t)
{
    struct kv_batch b = {0};
    struct tpd_tp *tp;
    int64_t now = tpd_now_s(t);
    for (int i = 0; i < SEEN_MAX; i++) {
        if ((tp = list_pop_front_as(&t->seen, struct tpd_tp, seen)) == NULL)
            break;
        tpd_layout_seen(&b, &tp->e, now);
    }
    if (b.n > 0)
        tpd_layout_seen_end(&b, now);
    if (b.n > 0 && kv_batch_write(&b, t->cfg.kv, on_cleaned, t) < 0)
        t->stat.store_errors++;
    kv_batch_free(&b);
}

static void on_seen(struct loop_timer *timer)
{
    struct tpd_service *t = container_of(timer, struct tpd_service, write_seen);
    write_seen(t);
    if (!list_empty(&t->seen))
        loop_timer_set(t->cfg.loop, timer, t->cfg.loop->now_ns);
}

void tpd_seen(struct tpd_service *t, struct tpd_tp *tp)
{
    if (t->cfg.generation < TPD_2026 || list_node_is_linked(&tp->seen))
        return;
    list_push_back(&t->seen, &tp->seen);
    if (!loop_timer_armed(&t->write_seen))
        loop_timer_set(t->cfg.loop, &t->write_seen, t->cfg.loop->now_ns + GATHER_NS);
}

static void forget_visors(struct tpd_service *t)
{
    int64_t now = tpd_now_s(t);
    struct tpd_visor *v;
    if (now < t->visors_s + VISORS_TICK)
        return;
    t->visors_s = now;
    for (struct map_iter it = map_iter(&t->visors); (v = map_next(&it)) != NULL;) {
        if (now - v->seen_s < VISOR_S)
            continue;
        map_iter_del(&it);
        free(v);
    }
}

static void on_tick(struct loop_timer *timer)
{
    struct tpd_service *t = container_of(timer, struct tpd_service, tick);
    loop_timer_set(t->cfg.loop, timer, t->cfg.loop->now_ns + TICK_NS);
    if (!t->stat.ready) {
        tpd_load_start(t);
        return;
    }
    expire(t);
    forget_visors(t);
    tpd_tell(t);
}

void tpd_service_store_back(struct tpd_service *t)
{
    tpd_load_start(t);
    tpd_restore_start(t);
}

/* ---- for others ---- */

int tpd_service_list(const struct tpd_service *t, const struct pubkey *pk, struct tp_list *out)
{
    const struct tpd_edge *e = tpd_table_edge(&t->table, pk);
    struct tpd_tp *tp;
    *out = (struct tp_list){.n = 0};
    if (e == NULL || e->n == 0)
        return 0;
    if ((out->e = malloc(e->n * sizeof(*out->e))) == NULL)
        return ERR_NOMEM;
    for (struct tpd_at at = tpd_edge_first(e); (tp = tpd_edge_next(&at)) != NULL;)
        out->e[out->n++] = tp->e;
    return 0;
}

void tpd_service_each(struct tpd_service *t, void (*fn)(void *arg, const struct pubkey *pk),
                      void *arg)
{
    const struct tpd_edge *e;
    for (struct map_iter it = map_iter(&t->table.edges); (e = map_next(&it)) != NULL;)
        if (e->n > 0)
            fn(arg, &e->pk);
}

void tpd_service_stat(const struct tpd_service *t, struct tpd_service_stat *out)
{
    *out = t->stat;
    out->transports = tpd_table_len(&t->table);
    out->edges = map_len(&t->table.edges);
    out->visors = map_len(&t->visors);
}

/* ---- life ---- */

static bool is_online(void *arg, const struct pubkey *pk, struct kv_str value)
{
    (void)value;
    return tpd_visor_on(arg, pk);
}

static int open_uptime(struct tpd_service *t)
{
    struct uptime_cfg cfg = {
        .env = t->cfg.env,
        .loop = t->cfg.loop,
        .kv = t->cfg.kv,
        .prefix = TPD_SERVICE,
        .expected = HEARTBEATS,
        .gather_ns = GATHER_NS,
        .online = is_online,
        .arg = t,
    };
    return t->cfg.generation >= TPD_2026 ? uptime_new(&t->uptime, &cfg) : 0;
}

int tpd_service_new(struct tpd_service **out, const struct tpd_service_cfg *cfg)
{
    struct tpd_service *t = calloc(1, sizeof(*t));
    *out = NULL;
    if (t == NULL)
        return ERR_NOMEM;
    t->cfg = *cfg;
    if (open_uptime(t) < 0) {
        free(t);
        return ERR_NOMEM;
    }
    t->nonces = cfg->nonces != NULL ? cfg->nonces : cfg->kv;
    t->ttl_ns =
        cfg->generation == TPD_2024 ? 0 : (cfg->ttl_ms != 0 ? cfg->ttl_ms : TPD_TTL_MS) * NS_PER_MS;
    list_init(&t->jobs);
    tpd_table_init(&t->table, cfg->env->hash_key, cfg->max);
    map_init(&t->visors, MAP_KEY(struct tpd_visor, pk), cfg->env->hash_key, TPD_VISORS);
    nonce_book_init(&t->book, t->nonces, cfg->env, cfg->loop, TPD_SERVICE);
    rate_init(&t->rate, (uint64_t)cfg->rate * 1000 / 60 + 1, RATE_BURST, RATE_KEYS,
              cfg->env->hash_key);
    (void)health_text_time(t->started, env_wall_ns(cfg->env));
    t->tell.fn = on_tell;
    t->write_seen.fn = on_seen;
    list_init(&t->seen);
    t->shared = strcmp(cfg->kv->ops->name, "lmdb") != 0;
    t->tick.fn = on_tick;
    loop_timer_set(cfg->loop, &t->tick, cfg->loop->now_ns);
    *out = t;
    return 0;
}

void tpd_service_free(struct tpd_service *t)
{
    struct tpd_job *j;
    if (t == NULL)
        return;
    loop_timer_cancel(t->cfg.loop, &t->tick);
    loop_timer_cancel(t->cfg.loop, &t->write_seen);
    while (!list_empty(&t->seen))
        write_seen(t);
    uptime_free(t->uptime);
    tpd_load_free(t);
    tpd_made_free(t);
    while ((j = list_first_as(&t->jobs, struct tpd_job, node)) != NULL)
        tpd_job_free(j);
    nonce_book_free(&t->book);
    loop_task_cancel(t->cfg.loop, &t->tell);
    tpd_visors_free(t);
    tpd_table_free(&t->table);
    rate_free(&t->rate);
    free(t);
}
