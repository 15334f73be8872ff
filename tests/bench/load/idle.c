/*
 * idle - what the server needs for sessions, and for streams between them, on which nothing
 * happens. Streams are spread evenly over the pairs; the server's memory is taken before all, with
 * the sessions, and at the end of the hold with the streams.
 */
#include "tests/bench/load/load.h"

#define SETTLE_NS (2 * NS_PER_S) /* what set-up has borrowed is given back */

static struct usage with_sessions;

static size_t ends(const struct load_opts *o)
{
    return (o->sessions + 1) & ~(size_t)1;
}

static void finish(struct loop_timer *t)
{
    load_end(container_of(t, struct load, timer));
}

static void hold(struct loop_timer *t)
{
    struct load *l = container_of(t, struct load, timer);
    load_begin(l);
    load_after(l, l->o.hold_ns, finish);
}

static void sessions_settled(struct loop_timer *t)
{
    struct load *l = container_of(t, struct load, timer);
    (void)usage_take(&with_sessions, l->o.pid);
    if (l->o.streams > 0)
        load_dial_all(l, l->o.streams);
    else
        hold(t);
}

static void ready(struct load *l)
{
    load_after(l, SETTLE_NS, sessions_settled);
}

static void opened(struct flow *f)
{
    struct load *l = load_of_flow(f);
    if (f->dialled && l->flows_open == l->flows_wanted)
        load_after(l, SETTLE_NS, hold);
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
    load_fail(load_of_flow(f), "stream ended", err);
}

static double grown(uint64_t from, uint64_t to, uint64_t by)
{
    return by > 0 ? ((double)to - (double)from) / (double)by : 0;
}

static void report(struct load *l, struct json_out *o)
{
    report_server(l, o, "value", grown(l->first.anon_kib, with_sessions.anon_kib, l->n_ends));
    json_out_name(o, "unit");
    json_out_str(o, "KiB/session");
    report_server(l, o, "kib_per_stream",
                  grown(with_sessions.anon_kib, l->after.anon_kib, l->o.streams));
    report_server(l, o, "server_rss_anon_kib_before", (double)l->first.anon_kib);
}

const struct load_mode mode_idle = {
    .name = "idle",
    .flags = " sessions streams inflight hold ",
    .ends = ends,
    .ready = ready,
    .opened = opened,
    .readable = readable,
    .writable = writable,
    .ended = ended,
    .report = report,
};
