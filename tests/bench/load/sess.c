/*
 * sess - sessions of fresh keys, set up and closed as soon as the server has answered a ping on
 * them.
 */
#include "base/err.h"
#include "tests/bench/load/load.h"

static size_t ends(const struct load_opts *o)
{
    return o->count;
}

static void up(struct end *e)
{
    load_sample(e->load, e->load->loop->now_ns - e->started_ns);
    end_close(e);
}

static void opened(struct flow *f)
{
    load_error(load_of_flow(f), "unasked stream", ERR_PROTOCOL);
    flow_close(f);
}

static void readable(struct flow *f, uint64_t n)
{
    (void)f;
    (void)n;
}

static void writable(struct flow *f)
{
    (void)f;
}

static void ended(struct flow *f, int err)
{
    (void)f;
    (void)err;
}

static void report(struct load *l, struct json_out *o)
{
    report_number(o, "value", (double)l->up / load_wall_s(l));
    json_out_name(o, "unit");
    json_out_str(o, "sessions/s");
    json_out_name(o, "sessions_done");
    json_out_u64(o, l->up);
    report_number(o, "p50_ms", (double)load_percentile(l, 50) / 1e6);
    report_number(o, "p99_ms", (double)load_percentile(l, 99) / 1e6);
    report_server(l, o, "server_cpu_ms_per_session", load_server_cpu_s(l) * 1e3 / (double)l->up);
}

const struct load_mode mode_sess = {
    .name = "sess",
    .flags = " count inflight ",
    .tolerant = true,
    .ends = ends,
    .up = up,
    .ready = load_end,
    .opened = opened,
    .readable = readable,
    .writable = writable,
    .ended = ended,
    .report = report,
};
