#include "simulator/results.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/err.h"
#include "simulator/exchange.h"

/* ---- summary ---- */

static double ms(uint64_t us)
{
    return (double)us / 1000;
}

static json_t *lookups_json(const struct sim_result *r)
{
    const struct sim_counts *n = &r->sum;

    return json_pack(
        "{s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:f}", "ok", (json_int_t)n->gets_ok, "failed",
        (json_int_t)n->gets_failed, "unpublished", (json_int_t)n->gets_unpublished, "local",
        (json_int_t)n->gets_local, "p50_ms", ms(hist_percentile(&r->get_us, 5000)), "p90_ms",
        ms(hist_percentile(&r->get_us, 9000)), "p99_ms", ms(hist_percentile(&r->get_us, 9900)),
        "hops_mean", (double)hist_mean_milli(&r->get_hops) / 1000, "asked_mean",
        (double)hist_mean_milli(&r->get_asked) / 1000);
}

static json_t *counts_json(const struct sim_counts *n)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "relayed",
                     (json_int_t)n->relayed, "timers", (json_int_t)n->timers, "bytes",
                     (json_int_t)n->bytes, "lost", (json_int_t)n->lost, "cut", (json_int_t)n->cut,
                     "relay_dropped", (json_int_t)n->relay_dropped, "unreachable",
                     (json_int_t)n->unreachable, "handshakes", (json_int_t)n->handshakes, "joins",
                     (json_int_t)n->joins, "leaves", (json_int_t)n->leaves, "signed",
                     (json_int_t)n->signed_, "verified", (json_int_t)n->verified);
}

static json_t *requests_json(const struct sim_counts *n)
{
    static const char *const names[] = {NULL,        "ping",      "find_node", "get_value",
                                        "put_value", "get_items", "put_batch", "get_batch",
                                        "watch",     "changed",   "reconcile"};
    json_t *j = json_object();

    for (size_t i = 1; j != NULL && i < sizeof names / sizeof names[0]; i++)
        json_object_set_new(j, names[i], json_integer((json_int_t)n->requests[i]));
    return j;
}

static json_t *checks_json(const struct sim_result *r)
{
    const struct sim_counts *n = &r->sum;
    json_t *j = json_pack("{s:b, s:I, s:I, s:I, s:I, s:I, s:I}", "passed", r->passed, "wrong",
                          (json_int_t)n->wrong, "stale", (json_int_t)n->stale, "bounds",
                          (json_int_t)n->bounds, "rejected_answers",
                          (json_int_t)n->answers_rejected, "sampled_signatures",
                          (json_int_t)n->sampled, "sampled_bad", (json_int_t)n->sampled_bad);

    if (j != NULL && !r->passed)
        json_object_set_new(j, "failed", json_string(r->failed));
    return j;
}

static json_t *puts_json(const struct sim_result *r)
{
    return json_pack("{s:I, s:I, s:f, s:f}", "ok", (json_int_t)r->sum.puts_ok, "failed",
                     (json_int_t)r->sum.puts_failed, "p50_ms",
                     ms(hist_percentile(&r->put_us, 5000)), "p99_ms",
                     ms(hist_percentile(&r->put_us, 9900)));
}

static json_t *full_json(const struct sim_counts *n)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "pulled",
                     (json_int_t)n->sync_pulled, "pushed", (json_int_t)n->sync_pushed, "bytes",
                     (json_int_t)n->sync_bytes, "reconciled", (json_int_t)n->reconciled, "lies",
                     (json_int_t)n->lies, "lies_seen", (json_int_t)n->lies_seen, "held",
                     (json_int_t)n->held, "held_newest", (json_int_t)n->held_newest, "to_hold",
                     (json_int_t)n->to_hold, "records", (json_int_t)n->records);
}

static json_t *watches_json(const struct sim_result *r)
{
    const struct sim_counts *n = &r->sum;

    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:f, s:f}", "begun", (json_int_t)n->watches,
                     "events", (json_int_t)n->watch_events, "notes", (json_int_t)n->notes, "audits",
                     (json_int_t)n->watch_audits, "late", (json_int_t)n->watch_late, "p50_ms",
                     ms(hist_percentile(&r->watch_us, 5000)), "p99_ms",
                     ms(hist_percentile(&r->watch_us, 9900)));
}

static json_t *rates_json(const struct sim_http_rates *r)
{
    return json_pack("{s:f, s:f, s:I}", "requests_per_s", (double)r->requests_milli / 1000,
                     "cpu_share", (double)r->cpu_ppm / 1e6, "registered_90s",
                     (json_int_t)r->registered_90s);
}

static json_t *http_json(const struct sim_result *r)
{
    const struct sim_counts *n = &r->sum;
    json_t *j = json_pack(
        "{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:f}", "requests",
        (json_int_t)n->http, "gets", (json_int_t)n->http_gets, "posts", (json_int_t)n->http_posts,
        "pushes", (json_int_t)n->http_pushes, "refused", (json_int_t)n->http_refused, "fallback",
        (json_int_t)n->http_fallback, "registered", (json_int_t)n->http_registered, "mirrored",
        (json_int_t)n->http_mirrored, "cpu_s", (double)n->http_cpu_ns / 1e9, "p50_ms",
        ms(hist_percentile(&r->http_us, 5000)), "p99_ms", ms(hist_percentile(&r->http_us, 9900)),
        "saved", (double)r->http_saved_ppm / 1e6);

    if (j != NULL) {
        json_object_set_new(j, "before", rates_json(&r->before));
        json_object_set_new(j, "after", rates_json(&r->after));
    }
    return j;
}

static json_t *records_json(const struct sim_counts *n)
{
    return json_pack("{s:I, s:I, s:I}", "changes", (json_int_t)n->changes, "reads_dht",
                     (json_int_t)n->reads_dht, "reads_http", (json_int_t)n->reads_http);
}

static json_t *load_json(const struct sim_result *r)
{
    return json_pack("{s:f, s:I, s:I, s:f}", "mean", (double)hist_mean_milli(&r->load) / 1000,
                     "p50", (json_int_t)hist_percentile(&r->load, 5000), "p99",
                     (json_int_t)hist_percentile(&r->load, 9900), "gini",
                     (double)r->load_gini_ppm / 1e6);
}

void results_use(struct results_use *use, double wall_s)
{
    struct rusage ru;

    getrusage(RUSAGE_SELF, &ru);
    use->wall_s = wall_s;
    use->cpu_s = (double)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) +
                 (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6;
    use->rss_mib = (uint64_t)ru.ru_maxrss / 1024;
}

json_t *results_summary(const struct sim_cfg *cfg, const struct sim_result *r,
                        const struct results_use *use)
{
    char digest[65];

    snprintf(digest, sizeof digest, "%016" PRIx64 "%016" PRIx64 "%016" PRIx64 "%016" PRIx64,
             r->digest[0], r->digest[1], r->digest[2], r->digest[3]);
    json_t *j = json_pack(
        "{s:s, s:I, s:i, s:i, s:i, s:I, s:f, s:f, s:f, s:I, s:s, s:b, s:i, s:f, s:I}", "scenario",
        cfg->name, "seed", (json_int_t)cfg->seed, "threads", (int)cfg->threads, "processes",
        cfg->others != NULL ? (int)cfg->others->ranks : 1, "nodes", (int)r->nodes, "events",
        (json_int_t)r->sum.delivered, "virtual_s", (double)r->virtual_ns / 1e9, "wall_s",
        use->wall_s, "cpu_s", use->cpu_s, "rss_mib", (json_int_t)use->rss_mib, "digest", digest,
        "interrupted", r->interrupted, "live", (int)r->live, "contacts_mean",
        (double)r->contacts_mean_milli / 1000, "stored_items", (json_int_t)r->stored_items);
    if (j == NULL)
        return NULL;
    json_object_set_new(j, "lookups", lookups_json(r));
    json_object_set_new(j, "puts", puts_json(r));
    if (r->sum.changes + r->sum.reads_dht + r->sum.reads_http > 0)
        json_object_set_new(j, "records", records_json(&r->sum));
    if (cfg->http.phase > 0)
        json_object_set_new(j, "http", http_json(r));
    if (cfg->watches.share_ppm > 0)
        json_object_set_new(j, "watches", watches_json(r));
    if (cfg->full.count > 0)
        json_object_set_new(j, "full", full_json(&r->sum));
    json_object_set_new(j, "load", load_json(r));
    json_object_set_new(j, "network", counts_json(&r->sum));
    json_object_set_new(j, "requests", requests_json(&r->sum));
    json_object_set_new(
        j, "attack",
        json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "victim_ok", (json_int_t)r->sum.victim_ok,
                  "victim_failed", (json_int_t)r->sum.victim_failed, "victim_stale",
                  (json_int_t)r->sum.victim_stale, "floods", (json_int_t)r->sum.floods, "replays",
                  (json_int_t)r->sum.replays, "replays_taken", (json_int_t)r->sum.replays_taken));
    json_object_set_new(
        j, "relays",
        json_pack("{s:I, s:I, s:I, s:I}", "suspected", (json_int_t)r->sum.groups_suspected,
                  "passed_over", (json_int_t)r->sum.passed_over, "diversified",
                  (json_int_t)r->sum.diversified, "refused", (json_int_t)r->sum.refused_group));
    json_object_set_new(j, "checks", checks_json(r));
    return j;
}

/* ---- files ---- */

static void put_summary(FILE *f, const json_t *summary, const struct sim_result *r)
{
    (void)r;
    (void)json_dumpf(summary, f, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    fputc('\n', f);
}

static void put_series(FILE *f, const json_t *summary, const struct sim_result *r)
{
    (void)summary;
    fputs("virtual_s,events,live,gets_ok,gets_failed,puts_ok,puts_failed,http,http_cpu_ms,"
          "http_registered,reads_dht,reads_http\n",
          f);
    for (size_t i = 0; i < r->n_series; i++) {
        const struct sim_point *p = &r->series[i];
        const uint64_t rest[] = {
            p->events,          p->live,        p->gets_ok,   p->gets_failed,
            p->puts_ok,         p->puts_failed, p->http,      p->http_cpu_ns / 1000000,
            p->http_registered, p->reads_dht,   p->reads_http};
        fprintf(f, "%.3f", (double)p->at_ns / 1e9);
        for (size_t c = 0; c < sizeof rest / sizeof rest[0]; c++)
            fprintf(f, ",%" PRIu64, rest[c]);
        fputc('\n', f);
    }
}

static void put_histogram(FILE *f, const char *name, const struct hist *h)
{
    for (unsigned i = 0; i < HIST_SLOTS; i++) {
        if (h->count[i] > 0)
            fprintf(f, "%s,%" PRIu64 ",%" PRIu64 "\n", name, hist_slot_end(i), h->count[i]);
    }
}

static void put_histograms(FILE *f, const json_t *summary, const struct sim_result *r)
{
    (void)summary;
    fputs("name,upto,count\n", f);
    put_histogram(f, "get_us", &r->get_us);
    put_histogram(f, "get_hops", &r->get_hops);
    put_histogram(f, "get_asked", &r->get_asked);
    put_histogram(f, "put_us", &r->put_us);
    put_histogram(f, "http_us", &r->http_us);
    put_histogram(f, "watch_us", &r->watch_us);
    put_histogram(f, "load", &r->load);
}

static const struct output {
    const char *name;
    void (*put)(FILE *f, const json_t *summary, const struct sim_result *r);
} outputs[] = {
    {"summary.json", put_summary},
    {"series.csv", put_series},
    {"histograms.csv", put_histograms},
};

static int fail(char *why, size_t why_cap, const char *path)
{
    int err = err_sys();

    snprintf(why, why_cap, "%s: %s", path, strerror(errno));
    return err;
}

static int write_one(const struct output *o, const char *dir, const json_t *summary,
                     const struct sim_result *r, char *why, size_t why_cap)
{
    char path[1024], part[1040];

    if (snprintf(path, sizeof path, "%s/%s", dir, o->name) >= (int)sizeof path) {
        snprintf(why, why_cap, "%.200s: %s", dir, strerror(ENAMETOOLONG));
        return ERR_USAGE;
    }
    snprintf(part, sizeof part, "%s.part", path);
    FILE *f = fopen(part, "w");
    if (f == NULL)
        return fail(why, why_cap, part);
    o->put(f, summary, r);
    bool bad = ferror(f) != 0;
    bad = fclose(f) != 0 || bad;
    if (!bad && rename(part, path) == 0)
        return 0;
    int rc = fail(why, why_cap, path);
    (void)unlink(part);
    return rc;
}

int results_write(const char *dir, const json_t *summary, const struct sim_result *r, char *why,
                  size_t why_cap)
{
    int rc = 0;

    for (size_t i = 0; i < sizeof outputs / sizeof outputs[0] && rc == 0; i++)
        rc = write_one(&outputs[i], dir, summary, r, why, why_cap);
    return rc;
}
