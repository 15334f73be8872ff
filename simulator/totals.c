/*
 * What came out of a run: the sums of all shards, and of all processes where there are several.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crypto.h"
#include "base/cursor.h"
#include "simulator/users.h"

/* ---- sums ---- */

/* All members are counters. */
static void add_counts(struct sim_counts *into, const struct sim_counts *c)
{
    uint64_t *a = (uint64_t *)(void *)into;
    const uint64_t *b = (const uint64_t *)(const void *)c;

    _Static_assert(sizeof *c % sizeof *b == 0, "plain counters");
    for (size_t i = 0; i < sizeof *c / sizeof *b; i++)
        a[i] += b[i];
}

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static void sum_all(const struct sim *s, uint64_t *v, size_t n)
{
    if (s->cfg.others != NULL)
        s->cfg.others->sum(s->cfg.others->arg, v, n);
}

static void hist_all(const struct sim *s, struct hist *h)
{
    uint64_t max = h->max;

    if (s->cfg.others == NULL)
        return;
    s->cfg.others->sum(s->cfg.others->arg, &h->n, 1);
    s->cfg.others->sum(s->cfg.others->arg, &h->sum, 1);
    s->cfg.others->sum(s->cfg.others->arg, h->count, HIST_SLOTS);
    s->cfg.others->max(s->cfg.others->arg, &max, 1);
    h->max = max;
}

/* ---- nodes ---- */

/* One number of each node, relay and service that is here, 0 for the others; summed up. */
typedef uint64_t number_fn(const struct sim *s, uint32_t i);

static uint64_t *numbers(const struct sim *s, size_t n, number_fn *fn)
{
    uint64_t *v = sim_must(calloc(n, sizeof *v));

    for (size_t i = 0; i < n; i++) {
        size_t relays = s->cfg.relays.count, at = i < s->cfg.nodes ? i : i - s->cfg.nodes;
        at -= i >= s->cfg.nodes + relays ? relays : 0;
        unsigned shard = (unsigned)(at % s->shards);
        if (shard >= s->first && shard - s->first < s->locals)
            v[i] = fn(s, (uint32_t)i);
    }
    sum_all(s, v, n);
    return v;
}

static uint64_t digest_of(const struct sim *s, uint32_t i)
{
    uint32_t first = s->cfg.nodes + s->cfg.relays.count;

    if (i >= first)
        return services_digest(s, i - first);
    return i < s->cfg.nodes ? s->nodes[i].digest : s->relays[i - s->cfg.nodes].digest;
}

/* Requests served, and one; 0 for who never came. */
static uint64_t served_by(const struct sim *s, uint32_t i)
{
    return s->nodes[i].joined ? (uint64_t)s->nodes[i].served + 1 : 0;
}

static void make_digest(const struct sim *s, struct sim_result *out)
{
    size_t n = (size_t)s->cfg.nodes + s->cfg.relays.count;

    n += s->cfg.http.phase > 0 ? SIM_REC__COUNT : 0;
    uint64_t *v = numbers(s, n, digest_of);
    uint8_t *bytes = (uint8_t *)v;
    struct hash h;

    for (size_t i = 0; i < n; i++)
        put_be64(bytes + 8 * i, v[i]);
    crypto_sha256(&h, bytes, n * 8);
    free(v);
    for (unsigned i = 0; i < 4; i++)
        out->digest[i] = get_be64(h.b + 8 * i);
}

/* Gini coefficient of requests served: 0 = all the same, a million = one node serves all. */
static uint64_t gini(const struct sim *s)
{
    uint64_t *v = numbers(s, s->cfg.nodes, served_by);
    unsigned __int128 weighted = 0, sum = 0;
    uint32_t n = 0;

    for (uint32_t i = 0; i < s->cfg.nodes; i++) {
        if (v[i] > 0)
            v[n++] = v[i] - 1;
    }
    if (n > 0)
        qsort(v, n, sizeof *v, compare_u64);
    for (uint32_t i = 0; i < n; i++) {
        weighted += (unsigned __int128)(i + 1) * v[i];
        sum += v[i];
    }
    free(v);
    if (sum == 0)
        return 0;
    unsigned __int128 up = 2 * weighted * SIM_MILLION / (sum * n);
    unsigned __int128 down = (unsigned __int128)(n + 1) * SIM_MILLION / n;
    return up > down ? (uint64_t)(up - down) : 0;
}

static bool count_contact(void *arg, const struct kad_contact *c)
{
    *(uint64_t *)arg += c->unanswered < 3;
    return true;
}

/* Those that are up, and here. Returns their contacts. */
static uint64_t look_at_nodes(const struct sim *s, struct sim_result *out)
{
    uint64_t contacts = 0;

    for (uint32_t i = 0; i < s->cfg.nodes; i++) {
        const struct sim_node *n = &s->nodes[i];
        struct store_stat ss;
        if (n->kad == NULL)
            continue;
        kad_contacts(n->kad, count_contact, &contacts);
        n->store->ops->stat(n->store, &ss);
        out->stored_items += ss.items;
        hist_add(&out->load, n->served);
    }
    return contacts;
}

static uint64_t is_acknowledged(const struct sim *s, uint32_t i)
{
    return load_acknowledged(s, i, s->virtual_ns) != 0;
}

/* Full nodes that are up, and here. */
static void look_at_full(const struct sim *s, struct sim_result *out)
{
    if (s->cfg.full.count == 0)
        return;
    uint64_t *v = numbers(s, s->cfg.nodes, is_acknowledged);
    uint64_t records = 0;
    for (uint32_t i = 0; i < s->cfg.nodes; i++)
        records += v[i];
    memset(v, 0, s->cfg.nodes * sizeof *v);
    full_best(s, v);
    if (s->cfg.others != NULL)
        s->cfg.others->max(s->cfg.others->arg, v, s->cfg.nodes);
    full_look(s, v, &out->sum);
    out->sum.records = s->first == 0 ? records : 0; /* they will be summed up */
    free(v);
}

/* ---- judgement ---- */

static bool fail(struct sim_result *r, const char *what, uint64_t is, uint64_t bound)
{
    snprintf(r->failed, sizeof r->failed, "%s: %llu, expected %llu", what, (unsigned long long)is,
             (unsigned long long)bound);
    return false;
}

static bool judge(const struct sim_cfg *c, struct sim_result *r)
{
    const struct sim_counts *n = &r->sum;
    uint64_t hops = hist_mean_milli(&r->get_hops);
    uint64_t p99 = hist_percentile(&r->get_us, 9900);

    if (n->wrong > 0)
        return fail(r, "wrong values", n->wrong, 0);
    if (n->bounds > 0)
        return fail(r, "tables over their limit", n->bounds, 0);
    if (n->sampled_bad > 0)
        return fail(r, "sampled signatures that differ", n->sampled_bad, 0);
    if (n->stale * SIM_MILLION > n->gets_ok * c->expect.stale_ppm)
        return fail(r, "values older than acknowledged", n->stale,
                    n->gets_ok * c->expect.stale_ppm / SIM_MILLION);
    if (n->gets_ok * SIM_MILLION < n->gets * c->expect.success_ppm)
        return fail(r, "gets that found their item", n->gets_ok,
                    n->gets * c->expect.success_ppm / SIM_MILLION);
    if (n->watch_late * SIM_MILLION > n->watch_audits * c->expect.late_ppm)
        return fail(r, "watches that are behind", n->watch_late,
                    n->watch_audits * c->expect.late_ppm / SIM_MILLION);
    if (n->held * SIM_MILLION < n->to_hold * c->expect.held_ppm)
        return fail(r, "records that full nodes hold", n->held,
                    n->to_hold * c->expect.held_ppm / SIM_MILLION);
    if (r->http_saved_ppm < c->expect.http_saved_ppm)
        return fail(r, "HTTP requests saved (millionths)", r->http_saved_ppm,
                    c->expect.http_saved_ppm);
    if (r->before.registered_90s < c->expect.registrations)
        return fail(r, "registrations in 90 s", r->before.registered_90s, c->expect.registrations);
    if (c->expect.hops_milli > 0 && hops > c->expect.hops_milli)
        return fail(r, "mean hops (thousandths)", hops, c->expect.hops_milli);
    if (c->expect.p99_ns > 0 && p99 * NS_PER_US > c->expect.p99_ns)
        return fail(r, "p99 of gets (us)", p99, c->expect.p99_ns / NS_PER_US);
    return true;
}

/* ---- the result ---- */

/* The points of the run and one of its end. */
static void put_series(const struct sim *s, struct sim_result *out)
{
    memcpy(out->series, s->series, sizeof out->series);
    out->n_series = s->n_series < SIM_SERIES_MAX ? s->n_series : SIM_SERIES_MAX - 1;
    out->series[out->n_series++] = (struct sim_point){.at_ns = out->virtual_ns,
                                                      .events = out->sum.delivered,
                                                      .gets_ok = out->sum.gets_ok,
                                                      .gets_failed = out->sum.gets_failed,
                                                      .puts_ok = out->sum.puts_ok,
                                                      .puts_failed = out->sum.puts_failed,
                                                      .live = out->live,
                                                      .http = out->sum.http,
                                                      .http_cpu_ns = out->sum.http_cpu_ns,
                                                      .http_registered = out->sum.http_registered,
                                                      .reads_dht = out->sum.reads_dht,
                                                      .reads_http = out->sum.reads_http};
}

static void add_shards(const struct sim *s, struct sim_result *out)
{
    for (unsigned i = 0; i < s->locals; i++) {
        const struct sim_shard *sh = &s->shard[i];
        add_counts(&out->sum, &sh->sum);
        out->sum.groups_suspected += sh->engines.groups_suspected;
        out->sum.passed_over += sh->engines.passed_over;
        out->sum.diversified += sh->engines.diversified;
        out->sum.refused_group += sh->engines.refused_group;
        hist_merge(&out->get_us, &sh->get_us);
        hist_merge(&out->get_hops, &sh->get_hops);
        hist_merge(&out->get_asked, &sh->get_asked);
        hist_merge(&out->put_us, &sh->put_us);
        hist_merge(&out->http_us, &sh->http_us);
        hist_merge(&out->watch_us, &sh->watch_us);
        out->live += sh->live;
        out->queue_peak += sh->queue.peak;
    }
}

/* From here on every process has the numbers of all. */
static void add_processes(const struct sim *s, struct sim_result *out, uint64_t *contacts)
{
    uint64_t few[] = {out->live, out->queue_peak, out->stored_items, *contacts};
    struct hist *all[] = {&out->get_us,  &out->get_hops, &out->get_asked, &out->put_us,
                          &out->http_us, &out->watch_us, &out->load};

    sum_all(s, (uint64_t *)(void *)&out->sum, sizeof out->sum / sizeof(uint64_t));
    sum_all(s, few, sizeof few / sizeof few[0]);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        hist_all(s, all[i]);
    out->live = (uint32_t)few[0];
    out->queue_peak = few[1];
    out->stored_items = few[2];
    *contacts = few[3];
}

void sim_result(struct sim *s, struct sim_result *out)
{
    memset(out, 0, sizeof *out);
    add_shards(s, out);
    uint64_t contacts = look_at_nodes(s, out);
    look_at_full(s, out);
    add_processes(s, out, &contacts);
    if (out->live > 0)
        out->contacts_mean_milli = contacts * 1000 / out->live;
    out->virtual_ns = s->virtual_ns - SIM_EPOCH_NS;
    out->windows = s->windows;
    out->nodes = s->cfg.nodes;
    out->interrupted = s->interrupted;
    out->checkpoints = s->checkpoints;
    out->checkpoint_err = s->checkpoint_err;
    memcpy(out->checkpoint_why, s->checkpoint_why, sizeof out->checkpoint_why);
    put_series(s, out);
    transition_result(s, out);
    make_digest(s, out);
    out->load_gini_ppm = gini(s);
    out->passed = judge(&s->cfg, out);
}
