/*
 * When nodes come and go: waves of joining, lives by a law or a trace, days and nights. All of it is
 * integers: laws are quantile functions of 64 random bits (fixed.h).
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "simulator/fixed.h"
#include "simulator/world.h"

#define MEAN_POINTS 65536
#define LIFE_MAX    (3650 * 86400 * NS_PER_S)
#define TRACE_LINE  256

/* ---- laws ---- */

/* What a variate of scale 1 is multiplied with, so that the mean is what the scenario says. */
static uint64_t scale_of(const struct sim_cfg *c)
{
    unsigned __int128 sum = 0;

    if (c->churn.law == SIM_LAW_PARETO) /* mean = shape / (shape - 1) */
        return (uint64_t)((unsigned __int128)c->churn.up_ns * (c->churn.shape_milli - 1000) /
                          c->churn.shape_milli);
    if (c->churn.law != SIM_LAW_WEIBULL)
        return 0;
    for (uint64_t i = 0; i < MEAN_POINTS; i++) {
        uint64_t middle = (2 * i + 1) * (UINT64_MAX / (2 * MEAN_POINTS));
        sum += fixed_weibull(middle, c->churn.shape_milli);
    }
    uint64_t mean = (uint64_t)(sum / MEAN_POINTS);
    return (uint64_t)(((unsigned __int128)c->churn.up_ns << 32) / (mean > 0 ? mean : 1));
}

static uint64_t life(struct sim_shard *sh, uint32_t node)
{
    const struct sim *s = sh->sim;
    uint64_t random = node_draw(sh, node, RNG_CHURN), ns = 0;

    switch (s->cfg.churn.law) {
    case SIM_LAW_EXPONENTIAL:
        ns = fixed_exponential(random, s->cfg.churn.up_ns);
        break;
    case SIM_LAW_WEIBULL:
        ns = fixed_mul(s->life_scale, fixed_weibull(random, s->cfg.churn.shape_milli));
        break;
    case SIM_LAW_PARETO:
        ns = fixed_mul(s->life_scale, fixed_pareto(random, s->cfg.churn.shape_milli));
        break;
    case SIM_LAW_TRACE:
        break;
    }
    return 1 + (ns < LIFE_MAX ? ns : LIFE_MAX);
}

/* ---- day and night ---- */

/* Sine of the hour where the node is, times the swing: -swing … swing, in millionths. Bhaskara's
 * fraction 16 h(1 - h) / (5 - 4 h(1 - h)) for half a turn h, at most 0.0017 off. */
static int64_t daylight(const struct sim *s, uint32_t node)
{
    const struct sim_cfg *c = &s->cfg;
    uint64_t zone = rng_below(node_trait(s, node, TRAIT_ZONE), c->day.zones);
    uint64_t at = shard_of((struct sim *)(uintptr_t)s, node)->now_ns - SIM_EPOCH_NS +
                  c->day.length_ns / c->day.zones * zone;
    uint64_t turn =
        (uint64_t)(((unsigned __int128)(at % c->day.length_ns) << 32) / c->day.length_ns);
    uint64_t h = turn << 1 & UINT32_MAX, product = h * (UINT32_MAX - h) >> 32;
    int64_t sine = (int64_t)((16 * product << 20) / (5 * FIXED_ONE - 4 * product));

    sine = sine * c->day.swing_ppm >> 20;
    return turn >> 31 != 0 ? -sine : sine;
}

bool churn_is_active(struct sim_shard *sh, uint32_t node)
{
    const struct sim_cfg *c = &sh->sim->cfg;

    if (c->day.swing_ppm == 0)
        return true;
    int64_t most = (int64_t)SIM_MILLION + c->day.swing_ppm;
    uint64_t r = rng_below(node_draw(sh, node, RNG_LOAD), (uint64_t)most);
    return (int64_t)r < (int64_t)SIM_MILLION + daylight(sh->sim, node);
}

uint64_t churn_busiest(const struct sim_cfg *c, uint64_t every_ns)
{
    return (uint64_t)((unsigned __int128)every_ns * SIM_MILLION / (SIM_MILLION + c->day.swing_ppm));
}

uint64_t churn_time(struct sim_shard *sh, uint32_t node, bool up)
{
    const struct sim_cfg *c = &sh->sim->cfg;

    if (up)
        return life(sh, node);
    uint64_t mean = c->churn.down_ns;
    if (c->day.swing_ppm > 0)
        mean = fixed_ppm(mean, (uint32_t)((int64_t)SIM_MILLION - daylight(sh->sim, node)));
    return 1 + fixed_exponential(node_draw(sh, node, RNG_CHURN), mean);
}

/* ---- joining ---- */

/* The bootstrap nodes are there at once, the others one after the other, or in waves that take a
 * twentieth of the time between them. */
uint64_t churn_join_time(const struct sim *s, uint32_t node)
{
    const struct sim_cfg *c = &s->cfg;
    uint64_t over = c->join.over_ns, n = c->join.waves > 0 ? c->join.waves : c->nodes;
    uint64_t slot = c->join.waves > 0 ? over / n / 20 : over / n;
    uint64_t turn = c->join.waves > 0 ? node % n : node;

    if (node < c->join.bootstrap)
        return SIM_EPOCH_NS + node * NS_PER_MS;
    return SIM_EPOCH_NS + NS_PER_S + (uint64_t)((unsigned __int128)over * turn / n) +
           rng_below(node_trait(s, node, TRAIT_JOIN), slot + 1);
}

/* ---- traces ---- */

static int compare_steps(const void *a, const void *b)
{
    const struct sim_step *x = a, *y = b;

    if (x->node != y->node)
        return x->node < y->node ? -1 : 1;
    return x->at_ns < y->at_ns ? -1 : x->at_ns > y->at_ns;
}

/* "SECONDS NODE up|down"; true when the line is one, or nothing. */
static bool read_step(const struct sim *s, char *line, struct sim_step *st, bool *any)
{
    char *end, *p = line + strspn(line, " \t");

    *any = *p != '\0' && *p != '\n' && *p != '#';
    if (!*any)
        return true;
    uint64_t whole = strtoull(p, &end, 10), frac = 0, unit = NS_PER_S;
    if (end == p || *p == '-' || whole > LIFE_MAX / NS_PER_S)
        return false;
    p = end;
    if (*p == '.') {
        for (p++; *p >= '0' && *p <= '9' && unit > 1; p++, unit /= 10)
            frac = frac * 10 + (uint64_t)(*p - '0');
        for (; unit > 1; unit /= 10)
            frac *= 10;
    }
    if (*p != ' ' && *p != '\t')
        return false;
    uint64_t node = strtoull(p, &end, 10);
    if (end == p || node >= s->cfg.nodes - s->cfg.join.bootstrap)
        return false;
    p = end + strspn(end, " \t");
    p[strcspn(p, " \t\r\n")] = '\0';
    *st = (struct sim_step){.at_ns = SIM_EPOCH_NS + whole * NS_PER_S + frac,
                            .node = s->cfg.join.bootstrap + (uint32_t)node,
                            .up = strcmp(p, "up") == 0};
    return st->up || strcmp(p, "down") == 0;
}

static int add_step(struct sim *s, size_t *cap, const struct sim_step *st)
{
    if (s->n_steps == *cap) {
        size_t more = *cap > 0 ? 2 * *cap : 1024;
        struct sim_step *v = realloc(s->steps, more * sizeof *v);
        if (v == NULL)
            return ERR_NOMEM;
        s->steps = v;
        *cap = more;
    }
    s->steps[s->n_steps++] = *st;
    return 0;
}

static int read_trace(struct sim *s, FILE *f, char *why, size_t why_cap)
{
    char line[TRACE_LINE];
    size_t cap = 0, number = 0;
    struct sim_step st;
    bool any;
    int rc = 0;

    while (rc == 0 && fgets(line, sizeof line, f) != NULL) {
        number++;
        if (!read_step(s, line, &st, &any)) {
            snprintf(why, why_cap,
                     "%s:%zu: \"SECONDS NODE up|down\" with a node below %" PRIu32 " is expected",
                     s->cfg.churn.trace, number, s->cfg.nodes - s->cfg.join.bootstrap);
            return ERR_FORMAT;
        }
        if (any)
            rc = add_step(s, &cap, &st);
    }
    return rc;
}

int churn_init(struct sim *s, char *why, size_t why_cap)
{
    s->life_scale = scale_of(&s->cfg);
    if (s->cfg.churn.law != SIM_LAW_TRACE)
        return 0;
    FILE *f = fopen(s->cfg.churn.trace, "r");
    if (f == NULL) {
        int rc = err_sys();
        snprintf(why, why_cap, "%s: %s", s->cfg.churn.trace, strerror(errno));
        return rc;
    }
    int rc = read_trace(s, f, why, why_cap);
    (void)fclose(f);
    if (rc == 0 && s->n_steps > 0)
        qsort(s->steps, s->n_steps, sizeof *s->steps, compare_steps);
    return rc;
}

/* The first step of a node; n_steps when it has none. */
static size_t first_step(const struct sim *s, uint32_t node)
{
    size_t lo = 0, hi = s->n_steps;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (s->steps[mid].node < node)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < s->n_steps && s->steps[lo].node == node ? lo : s->n_steps;
}

bool churn_starts_up(const struct sim *s, uint32_t node)
{
    size_t i = first_step(s, node);

    return i == s->n_steps || !s->steps[i].up;
}

void churn_schedule(struct sim_shard *sh, uint32_t node)
{
    const struct sim *s = sh->sim;

    if (node < s->cfg.join.bootstrap)
        return; /* somebody must stay whom everybody knows */
    if (s->cfg.churn.law != SIM_LAW_TRACE) {
        if (s->cfg.churn.up_ns > 0)
            node_schedule(sh, node, EV_CHURN,
                          SIM_EPOCH_NS + s->cfg.churn.start_ns + churn_time(sh, node, true));
        return;
    }
    for (size_t i = first_step(s, node); i < s->n_steps && s->steps[i].node == node; i++)
        node_schedule(sh, node, s->steps[i].up ? EV_JOIN : EV_LEAVE, s->steps[i].at_ns);
}
