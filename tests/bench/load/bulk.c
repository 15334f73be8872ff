/*
 * bulk - how fast bytes go through, and what they cost the server: every stream sends as much as it
 * can in writes of one size, one way.
 */
#include "tests/bench/load/load.h"

static uint64_t rx_before;

static size_t ends(const struct load_opts *o)
{
    return o->pairs * 2;
}

static void ready(struct load *l)
{
    load_dial_all(l, l->o.pairs * l->o.streams);
}

static void pump(struct flow *f)
{
    size_t n = load_of_flow(f)->o.write;
    while (flow_send(f, n) == n)
        ;
}

static void finish(struct loop_timer *t)
{
    load_end(container_of(t, struct load, timer));
}

static void measure(struct loop_timer *t)
{
    struct load *l = container_of(t, struct load, timer);
    load_begin(l);
    rx_before = l->rx_bytes;
    load_after(l, l->o.seconds_ns, finish);
}

static void opened(struct flow *f)
{
    struct load *l = load_of_flow(f);
    if (!f->dialled)
        return;
    if (l->flows_open == l->flows_wanted)
        load_after(l, LOAD_WARM_UP_NS, measure);
    pump(f);
}

static void readable(struct flow *f, uint64_t n)
{
    (void)f;
    (void)n;
}

static void ended(struct flow *f, int err)
{
    load_fail(load_of_flow(f), "stream ended", err);
}

static void report(struct load *l, struct json_out *o)
{
    double bytes = (double)(l->rx_bytes - rx_before), gib = bytes / (1 << 30);
    report_number(o, "value", bytes / 1e6 / load_wall_s(l));
    json_out_name(o, "unit");
    json_out_str(o, "MB/s");
    json_out_name(o, "bytes");
    json_out_u64(o, l->rx_bytes - rx_before);
    report_server(l, o, "server_cpu_s_per_gib", load_server_cpu_s(l) / gib);
    report_number(o, "driver_cpu_s_per_gib", load_driver_cpu_s(l) / gib);
}

const struct load_mode mode_bulk = {
    .name = "bulk",
    .flags = " pairs streams write seconds e2e bare ",
    .ends = ends,
    .ready = ready,
    .opened = opened,
    .readable = readable,
    .writable = pump,
    .ended = ended,
    .report = report,
};
