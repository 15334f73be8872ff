/*
 * open - streams set up and closed again, as many as the server manages with `inflight` of them
 * under way.
 */
#include "base/err.h"
#include "tests/bench/load/load.h"

static bool measuring;
static uint64_t done, under_way, next_pair;

static size_t ends(const struct load_opts *o)
{
    return o->pairs * 2;
}

static void dial_more(struct load *l)
{
    while (under_way < l->o.inflight && !l->failed_hard) {
        struct end *e = &l->ends[next_pair++ % l->o.pairs * 2];
        under_way++;
        (void)flow_dial(e);
    }
}

static void finish(struct loop_timer *t)
{
    load_end(container_of(t, struct load, timer));
}

static void measure(struct loop_timer *t)
{
    struct load *l = container_of(t, struct load, timer);
    load_begin(l);
    measuring = true;
    load_after(l, l->o.seconds_ns, finish);
}

static void ready(struct load *l)
{
    load_after(l, LOAD_WARM_UP_NS, measure);
    dial_more(l);
}

static void settled(struct load *l)
{
    under_way--;
    dial_more(l);
}

static void opened(struct flow *f)
{
    struct load *l = load_of_flow(f);
    if (!f->dialled)
        return;
    if (measuring) {
        done++;
        load_sample(l, l->loop->now_ns - f->started_ns);
    }
    flow_close(f);
    settled(l);
}

static void readable(struct flow *f, uint64_t n)
{
    (void)n;
    load_error(load_of_flow(f), "unasked bytes", ERR_PROTOCOL);
}

static void writable(struct flow *f)
{
    (void)f;
}

static void ended(struct flow *f, int err)
{
    (void)err;
    if (f->dialled) /* in its set-up: nobody waits for the others */
        settled(load_of_flow(f));
}

static void report(struct load *l, struct json_out *o)
{
    report_number(o, "value", (double)done / load_wall_s(l));
    json_out_name(o, "unit");
    json_out_str(o, "streams/s");
    json_out_name(o, "streams_done");
    json_out_u64(o, done);
    report_number(o, "p50_ms", (double)load_percentile(l, 50) / 1e6);
    report_number(o, "p99_ms", (double)load_percentile(l, 99) / 1e6);
    report_server(l, o, "server_cpu_ms_per_stream", load_server_cpu_s(l) * 1e3 / (double)done);
}

const struct load_mode mode_open = {
    .name = "open",
    .flags = " pairs inflight seconds e2e ",
    .tolerant = true,
    .ends = ends,
    .ready = ready,
    .opened = opened,
    .readable = readable,
    .writable = writable,
    .ended = ended,
    .report = report,
};
