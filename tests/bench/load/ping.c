/*
 * ping - the time of a round trip through the server: one stream, one message under way, which the
 * other end sends back when it has the whole of it.
 */
#include "tests/bench/load/load.h"

static size_t ends(const struct load_opts *o)
{
    (void)o;
    return 2;
}

static void ready(struct load *l)
{
    load_dial_all(l, 1);
}

/* f->mark is how much it may have sent by now. */
static void push(struct flow *f)
{
    while (f->sent < f->mark && flow_send(f, f->mark - f->sent) > 0)
        ;
}

static void ask(struct flow *f)
{
    f->started_ns = env_sys_mono_ns();
    f->mark += load_of_flow(f)->o.size;
    push(f);
}

static void opened(struct flow *f)
{
    if (!f->dialled)
        return;
    load_begin(load_of_flow(f));
    ask(f);
}

static void answered(struct flow *f)
{
    struct load *l = load_of_flow(f);
    load_sample(l, env_sys_mono_ns() - f->started_ns);
    if (l->n_samples == l->o.count)
        load_end(l);
    else
        ask(f);
}

static void readable(struct flow *f, uint64_t n)
{
    (void)n;
    if (f->got % load_of_flow(f)->o.size != 0)
        return;
    if (f->dialled) {
        answered(f);
        return;
    }
    f->mark = f->got;
    push(f);
}

static void ended(struct flow *f, int err)
{
    load_fail(load_of_flow(f), "stream ended", err);
}

static void report(struct load *l, struct json_out *o)
{
    report_number(o, "value", (double)load_percentile(l, 50) / 1e3);
    json_out_name(o, "unit");
    json_out_str(o, "us");
    report_number(o, "p99_us", (double)load_percentile(l, 99) / 1e3);
    report_server(l, o, "server_cpu_us_per_message",
                  load_server_cpu_s(l) * 1e6 / (double)l->n_samples / 2);
}

const struct load_mode mode_ping = {
    .name = "ping",
    .flags = " size count e2e bare ",
    .ends = ends,
    .ready = ready,
    .opened = opened,
    .readable = readable,
    .writable = push,
    .ended = ended,
    .report = report,
};
