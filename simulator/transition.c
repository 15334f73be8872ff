/*
 * The way from HTTP services to the DHT (docs/protocol/dht.md §6.3), as a scenario plays it: the phase
 * and the share of visors of the new kind change with its events. Visors of the old kind know HTTP
 * only, and have no DHT node; those of the new kind
 *
 *     phase   write to                       read from
 *     1       HTTP                           HTTP
 *     2       HTTP                           DHT, then HTTP
 *     3       DHT; a relay pushes to HTTP    DHT, then HTTP
 *     4       DHT; services look on          DHT
 *
 * In every phase the services mirror what they are given by POST into the DHT.
 */
#include <inttypes.h>
#include <stdio.h>

#include "base/err.h"
#include "simulator/users.h"

unsigned transition_phase(const struct sim *s, uint64_t now_ns)
{
    unsigned phase = s->cfg.http.phase;

    for (size_t i = 0; i < s->cfg.n_script; i++) {
        const struct sim_script *e = &s->cfg.script[i];
        if (e->type == SIM_PHASE && now_ns >= SIM_EPOCH_NS + e->at_ns)
            phase = e->phase;
    }
    return phase;
}

static uint64_t adopts_at(const struct sim *s, uint32_t node)
{
    return rng_below(node_trait(s, node, TRAIT_ADOPTS), SIM_MILLION);
}

/* When this visor becomes one of the new kind: 0 from the beginning, UINT64_MAX never. */
uint64_t transition_time(const struct sim *s, uint32_t node)
{
    uint64_t draw = adopts_at(s, node), share = s->cfg.http.adoption_ppm;

    if (s->cfg.http.phase == 0 || node < full_behind(&s->cfg) || draw < share)
        return 0;
    for (size_t i = 0; i < s->cfg.n_script; i++) {
        const struct sim_script *e = &s->cfg.script[i];
        if (e->type != SIM_ADOPT)
            continue;
        if (draw < e->share_ppm) /* one after the other while it lasts */
            return SIM_EPOCH_NS + e->at_ns +
                   (uint64_t)((unsigned __int128)e->for_ns * (draw - share) /
                              (e->share_ppm - share));
        share = e->share_ppm > share ? e->share_ppm : share;
    }
    return UINT64_MAX;
}

bool transition_is_new(const struct sim *s, uint32_t node, uint64_t now_ns)
{
    return s->cfg.http.phase == 0 || now_ns >= transition_time(s, node);
}

bool transition_is_down(const struct sim *s, uint64_t now_ns)
{
    for (size_t i = 0; i < s->cfg.n_script; i++) {
        const struct sim_script *e = &s->cfg.script[i];
        uint64_t from = SIM_EPOCH_NS + e->at_ns;
        if (e->type == SIM_HTTP_DOWN && now_ns >= from &&
            (e->for_ns == 0 || now_ns < from + e->for_ns))
            return true;
    }
    return false;
}

size_t transition_mirrors(const struct sim *s, struct pubkey out[SIM_REC__COUNT])
{
    size_t n = s->cfg.join.bootstrap < SIM_REC__COUNT ? s->cfg.join.bootstrap : SIM_REC__COUNT;

    for (size_t i = 0; i < n; i++)
        out[i] = s->keys[i].pk;
    return s->cfg.http.phase > 0 ? n : 0;
}

int transition_check(const struct sim_cfg *c, char *why, size_t cap)
{
    uint64_t at = 0;
    uint32_t share = c->http.adoption_ppm;

    if (c->http.phase > 0 && c->join.by == SIM_JOIN_ORACLE) {
        snprintf(why, cap,
                 "http.phase: visors that come to the DHT do so by protocol, not by oracle");
        return ERR_USAGE;
    }
    if (c->http.phase > 0 && c->record[SIM_REC_TP].count > 200) {
        snprintf(why, cap, "transports.count: services mirror lists of at most 200");
        return ERR_USAGE;
    }
    for (size_t i = 0; i < c->n_script; i++) {
        const struct sim_script *e = &c->script[i];
        bool mine = e->type == SIM_PHASE || e->type == SIM_ADOPT;
        if ((mine || e->type == SIM_HTTP_DOWN) && c->http.phase == 0) {
            snprintf(why, cap, "events: there are no HTTP services (http.phase)");
            return ERR_USAGE;
        }
        if (mine && (e->at_ns < at || (e->type == SIM_ADOPT && e->share_ppm < share))) {
            snprintf(why, cap, "events: phases and growing adoption in the order of time");
            return ERR_USAGE;
        }
        at = mine ? e->at_ns : at;
        share = e->type == SIM_ADOPT ? e->share_ppm : share;
    }
    return 0;
}

/* ---- before and after ---- */

static const struct sim_point *point_at(const struct sim_result *r, uint64_t at_ns)
{
    size_t i = 0;

    while (i + 1 < r->n_series && r->series[i].at_ns < at_ns)
        i++;
    return &r->series[i];
}

static uint64_t rate_milli(uint64_t from, uint64_t to, uint64_t ns)
{
    return ns > 0 ? (uint64_t)((unsigned __int128)(to - from) * 1000 * NS_PER_S / ns) : 0;
}

static struct sim_http_rates rates(const struct sim_result *r, uint64_t from_ns, uint64_t to_ns)
{
    const struct sim_point *a = point_at(r, from_ns), *b = point_at(r, to_ns);
    uint64_t ns = b->at_ns > a->at_ns ? b->at_ns - a->at_ns : 0;

    return (struct sim_http_rates){
        .requests_milli = rate_milli(a->http, b->http, ns),
        .cpu_ppm = rate_milli(a->http_cpu_ns, b->http_cpu_ns, ns) / SIM_MILLION,
        .registered_90s = rate_milli(a->http_registered, b->http_registered, ns) * 90 / 1000,
    };
}

/* The first change, and the end of the last one. */
static void span_of(const struct sim_cfg *c, uint64_t *first, uint64_t *last)
{
    *first = c->duration_ns;
    *last = 0;
    for (size_t i = 0; i < c->n_script; i++) {
        const struct sim_script *e = &c->script[i];
        if (e->type != SIM_PHASE && e->type != SIM_ADOPT)
            continue;
        *first = e->at_ns < *first ? e->at_ns : *first;
        *last = e->at_ns + e->for_ns > *last ? e->at_ns + e->for_ns : *last;
    }
}

void transition_result(const struct sim *s, struct sim_result *r)
{
    const struct sim_cfg *c = &s->cfg;
    uint64_t first, last, begun = c->records_start_ns;

    if (c->http.phase == 0)
        return;
    for (unsigned k = 0; k < SIM_REC__COUNT; k++) /* by then all have registered and read */
        begun = c->record[k].every_ns + c->records_start_ns > begun
                    ? c->record[k].every_ns + c->records_start_ns
                    : begun;
    span_of(c, &first, &last);
    r->before = rates(r, begun, first);
    r->after = last > 0 ? rates(r, last + c->http.settle_ns, r->virtual_ns) : r->before;
    if (r->before.requests_milli > r->after.requests_milli)
        r->http_saved_ppm = (uint32_t)((r->before.requests_milli - r->after.requests_milli) *
                                       SIM_MILLION / r->before.requests_milli);
}
