#include "compat-http/disc_service.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/err.h"
#include "compat-http/disc_int.h"
#include "compat-http/health_text.h"

void disc_service_dropped(struct service_req *q)
{
    struct disc_job *j = q->user;
    if (j != NULL)
        j->q = NULL; /* what it does to the store goes on */
}

/* ---- /health ---- */

static void handle_health(struct service_req *q)
{
    struct disc_service *d = q->app;
    char buf[512];
    struct json_out o;
    json_out_fixed(&o, JSON_FAST, buf, sizeof(buf));
    json_out_object(&o);
    health_text_write(&o, NULL, d->started, d->cfg.dmsg_address);
    json_out_object_end(&o);
    service_answer(q, 200, SERVICE_JSON, o.p, o.err == 0 ? o.len : 0);
}

/* ---- life ---- */

const struct service_route disc_service_routes[] = {
    {SERVICE_GET, "/dmsg-discovery/entry/{}", disc_get, 0},
    {SERVICE_POST, "/dmsg-discovery/entry/", disc_set, 0},
    {SERVICE_POST, "/dmsg-discovery/entry/{}", disc_set, 0},
    {SERVICE_POST, "/dmsg-discovery/entries", disc_set, 0},
    {SERVICE_DELETE, "/dmsg-discovery/entry", disc_delete, 0},
    {SERVICE_GET, "/dmsg-discovery/entries", disc_list_clients, 0},
    {SERVICE_GET, "/dmsg-discovery/visorEntries", disc_list_visors, 0},
    {SERVICE_POST, "/dmsg-discovery/entries/batch", disc_batch, 0},
    {SERVICE_GET, "/dmsg-discovery/available_servers", disc_list_available, 0},
    {SERVICE_GET, "/dmsg-discovery/all_servers", disc_list_servers, 0},
    {SERVICE_GET, "/dmsg-discovery/servers/clients", disc_clients_by_server, 0},
    {SERVICE_GET, "/dmsg-discovery/server/{}/clients", disc_clients_of, 0},
    {SERVICE_DELETE, "/dmsg-discovery/deregister", disc_deregister, 0},
    {SERVICE_GET, "/uptimes", disc_uptimes_get, 0},
    {SERVICE_POST, "/uptimes", disc_uptimes_post, 0},
    {SERVICE_GET, "/health", handle_health, 0},
};
const size_t disc_service_n_routes = sizeof(disc_service_routes) / sizeof(disc_service_routes[0]);

int disc_service_new(struct disc_service **out, const struct disc_service_cfg *cfg)
{
    struct disc_service *d = calloc(1, sizeof(*d));
    *out = NULL;
    if (d == NULL)
        return ERR_NOMEM;
    d->cfg = *cfg;
    list_init(&d->jobs);
    list_init(&d->waiting);
    map_init(&d->turns, MAP_KEY(struct disc_turn, pk), cfg->env->hash_key, 0);
    if (disc_uptime_new(d) < 0) {
        free(d);
        return ERR_NOMEM;
    }
    (void)health_text_time(d->started, env_wall_ns(cfg->env));
    d->sweep.fn = disc_on_sweep;
    if (cfg->peek == NULL)
        loop_timer_set(cfg->loop, &d->sweep, cfg->loop->now_ns);
    *out = d;
    return 0;
}

void disc_service_free(struct disc_service *d)
{
    struct disc_job *j;
    struct disc_turn *t;
    if (d == NULL)
        return;
    loop_timer_cancel(d->cfg.loop, &d->sweep);
    for (struct map_iter it = map_iter(&d->turns); (t = map_next(&it)) != NULL;) {
        while (list_pop_front(&t->queue) != NULL)
            ;
        map_iter_del(&it);
        free(t);
    }
    while ((j = list_first_as(&d->jobs, struct disc_job, node)) != NULL)
        disc_job_free(j);
    uptime_free(d->uptime);
    map_free(&d->turns);
    free(d->available.text);
    free(d->all.text);
    free(d->pair);
    free(d);
}

void disc_service_stat(const struct disc_service *d, struct disc_service_stat *out)
{
    *out = d->stat;
    if (d->uptime != NULL)
        uptime_stat(d->uptime, &out->uptime);
}
