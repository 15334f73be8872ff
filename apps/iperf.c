#include "apps/iperf.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "apps/iperf_flow.h"
#include "base/cursor.h"
#include "base/err.h"
#include "base/loop.h"

#define SAMPLES_MAX (1u << 18)
#define PING_NS     (10 * NS_PER_MS)
#define TICK_MS     50

struct samples { /* round trips in ns */
    uint64_t *v;
    size_t n, room;
};

struct ping { /* on the echo stream: one at a time */
    int fd;
    uint64_t number, sent_ns, next_ns;
    uint8_t in[8];
    size_t in_n;
    bool under_way;
    struct samples idle, loaded;
    struct samples *now; /* where they go */
};

struct flow {
    struct run *run;
    int fd;
    bool up, done;
    struct iperf_source src;
    struct iperf_sink sink;
    uint8_t result[IPERF_RESULT]; /* of the server, for up */
    size_t result_n;
};

struct run {
    struct app_net *net;
    const struct iperf_cfg *cfg;
    struct ping ping;
    struct flow flows[2 * IPERF_PARALLEL];
    size_t n;
    unsigned dialling;
    bool failed; /* a dial */
    double setup_ms;
    uint64_t start_ns, interval_ns; /* of the load; of the interval under way */
    uint64_t up_before, down_before;
    size_t loaded_before;
};

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static double seconds(uint64_t ns)
{
    return (double)ns / 1e9;
}

static bool stopped(const struct run *r)
{
    return r->cfg->stop != NULL && *r->cfg->stop != 0;
}

/* ---- samples ---- */

static void sample_add(struct samples *s, uint64_t ns)
{
    if (s->n == s->room) {
        size_t room = s->room == 0 ? 1024 : 2 * s->room;
        uint64_t *v = room <= SAMPLES_MAX ? reallocarray(s->v, room, sizeof(*v)) : NULL;
        if (v == NULL)
            return; /* what is there says enough */
        s->v = v;
        s->room = room;
    }
    s->v[s->n++] = ns;
}

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* From sample `first` on; NULL when there is none. */
static uint64_t *sorted(const struct samples *s, size_t first)
{
    size_t n = s->n - first;
    uint64_t *v = n > 0 ? calloc(n, sizeof(*v)) : NULL;
    if (v == NULL)
        return NULL;
    memcpy(v, s->v + first, n * sizeof(*v));
    qsort(v, n, sizeof(*v), by_size);
    return v;
}

static double rank_ms(const uint64_t *sorted_ns, size_t n, unsigned percent)
{
    size_t i = n * percent / 100;
    return (double)sorted_ns[i < n ? i : n - 1] / 1e6;
}

static json_t *median_json(const struct samples *s, size_t first)
{
    uint64_t *v = sorted(s, first);
    json_t *o = v != NULL ? json_real(rank_ms(v, s->n - first, 50)) : json_null();
    free(v);
    return o;
}

static json_t *latency_json(const struct samples *s)
{
    uint64_t *v = sorted(s, 0);
    if (v == NULL)
        return json_null();
    json_t *o = json_pack("{s:I, s:f, s:f, s:f, s:f}", "count", (json_int_t)s->n, "min_ms",
                          rank_ms(v, s->n, 0), "p50_ms", rank_ms(v, s->n, 50), "p99_ms",
                          rank_ms(v, s->n, 99), "max_ms", rank_ms(v, s->n, 100));
    free(v);
    return o;
}

/* ---- the echo stream ---- */

static int ping_send(struct ping *p, uint64_t now)
{
    uint8_t out[8];
    if (p->under_way || now < p->next_ns)
        return 0;
    put_be64(out, ++p->number);
    if (write(p->fd, out, sizeof(out)) != (ssize_t)sizeof(out))
        return errno == EAGAIN ? 0 : err_sys();
    p->under_way = true;
    p->sent_ns = now;
    return 0;
}

static int ping_receive(struct ping *p, uint64_t now)
{
    ssize_t n = read(p->fd, p->in + p->in_n, sizeof(p->in) - p->in_n);
    if (n <= 0)
        return n == 0 ? ERR_EOF : errno == EAGAIN || errno == EINTR ? 0 : err_sys();
    p->in_n += (size_t)n;
    if (p->in_n < sizeof(p->in))
        return 0;
    p->in_n = 0;
    if (!p->under_way || get_be64(p->in) != p->number)
        return ERR_CORRUPT;
    p->under_way = false;
    p->next_ns = now + PING_NS;
    sample_add(p->now, now - p->sent_ns);
    return 0;
}

/* ---- one flow ---- */

static int send_head(const struct run *r, int fd, enum iperf_mode mode, uint64_t seed)
{
    uint8_t out[IPERF_HEAD];
    const struct iperf_head h = {mode, r->cfg->block,
                                 (uint32_t)((r->cfg->time_ns + NS_PER_S - 1) / NS_PER_S), seed};
    iperf_head_put(out, &h);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return write(fd, out, sizeof(out)) == (ssize_t)sizeof(out) ? 0 : err_sys();
}

static int flow_begin(struct run *r, struct flow *f)
{
    uint64_t seed;
    randombytes_buf(&seed, sizeof(seed));
    iperf_sink_init(&f->sink, seed);
    int rc = f->up ? iperf_source_init(&f->src, seed, r->cfg->block) : 0;
    return rc != 0 ? rc : send_head(r, f->fd, f->up ? IPERF_UP : IPERF_DOWN, seed);
}

/* What the server has to say about what it got. */
static int read_result(struct flow *f)
{
    ssize_t n = read(f->fd, f->result + f->result_n, sizeof(f->result) - f->result_n);
    if (n <= 0)
        return n == 0 ? ERR_EOF : errno == EAGAIN || errno == EINTR ? 0 : err_sys();
    f->result_n += (size_t)n;
    if (f->result_n < sizeof(f->result))
        return 0;
    iperf_result_get(&f->sink.result, f->result);
    f->done = true;
    return f->sink.result.bytes == f->src.bytes ? 0 : ERR_CORRUPT;
}

static int flow_step(struct flow *f, uint64_t now, bool stop)
{
    int rc;
    if (!f->up) {
        rc = iperf_sink_step(&f->sink, f->fd, now);
        f->done = f->sink.done;
    } else if (!f->src.done) {
        rc = iperf_source_step(&f->src, f->fd, stop);
    } else {
        rc = read_result(f);
    }
    return rc;
}

static short flow_wants(const struct flow *f)
{
    return f->up && !f->src.done ? POLLOUT : POLLIN;
}

/* ---- dialling ---- */

static void on_flow(void *arg, int fd, const struct app_net_failure *failure)
{
    struct flow *f = arg;
    f->fd = fd;
    f->run->dialling--;
    if (failure != NULL)
        f->run->failed = true;
}

static int wait_dials(struct run *r)
{
    int rc = 0;
    while (rc == 0 && r->dialling > 0 && !r->failed && !stopped(r))
        rc = app_net_dispatch(r->net, -1);
    if (stopped(r))
        return app_net_fail(r->net, ERR_CANCELLED, "interrupted");
    return rc != 0 ? rc : r->failed ? r->net->failure.err : 0;
}

static int open_echo(struct run *r)
{
    uint64_t began = now_ns();
    int fd = app_net_dial_wait(r->net, &r->cfg->pk, r->cfg->port);
    r->setup_ms = (double)(now_ns() - began) / 1e6;
    if (fd < 0)
        return fd;
    r->ping.fd = fd;
    int rc = send_head(r, fd, IPERF_ECHO, 0);
    return rc == 0 ? 0 : app_net_fail(r->net, rc, "iperf: echo stream: %s", err_str(rc));
}

static int open_flows(struct run *r)
{
    uint64_t handle;
    int rc = 0;
    for (unsigned i = 0; i < r->cfg->parallel; i++) {
        if (r->cfg->up)
            r->flows[r->n++] = (struct flow){.run = r, .fd = -1, .up = true};
        if (r->cfg->down)
            r->flows[r->n++] = (struct flow){.run = r, .fd = -1};
    }
    for (size_t i = 0; i < r->n && rc == 0; i++) {
        rc = app_net_dial(r->net, &r->cfg->pk, r->cfg->port, on_flow, &r->flows[i], &handle);
        r->dialling += rc == 0;
    }
    if (rc == 0)
        rc = wait_dials(r);
    for (size_t i = 0; i < r->n && rc == 0; i++) {
        rc = flow_begin(r, &r->flows[i]);
        if (rc != 0)
            (void)app_net_fail(r->net, rc, "iperf: %s", err_str(rc));
    }
    return rc;
}

/* ---- measuring ---- */

static int lost(struct run *r, const char *what, int err)
{
    return app_net_fail(r->net, err, "iperf: %s: %s%s", what, err_str(err),
                        err == ERR_EOF || err == -ECONNRESET || err == -EPIPE
                            ? "; is there a kadmsg iperf server, and does it know this key?"
                            : "");
}

static int step_ping(struct run *r, short revents, uint64_t now)
{
    int rc = revents != 0 ? ping_receive(&r->ping, now) : 0;
    if (rc == 0)
        rc = ping_send(&r->ping, now);
    return rc == 0 ? 0 : lost(r, "echo stream", rc);
}

static int poll_ms(const struct run *r, uint64_t now)
{
    uint64_t wait =
        r->ping.under_way || r->ping.next_ns <= now ? TICK_MS * NS_PER_MS : r->ping.next_ns - now;
    return wait / NS_PER_MS < TICK_MS ? (int)(wait / NS_PER_MS) + 1 : TICK_MS;
}

/* The round trip with nothing else under way. */
static int measure_idle(struct run *r)
{
    uint64_t now = now_ns(), end = now + r->cfg->idle_ns,
             hard = end + r->net->timeout_ms * NS_PER_MS;
    int rc = 0;
    r->ping.now = &r->ping.idle;
    while (rc == 0 && (now < end || r->ping.under_way) && !stopped(r)) {
        struct pollfd p[2] = {{r->ping.fd, POLLIN, 0}, {app_net_fd(r->net), POLLIN, 0}};
        if (now >= hard)
            return lost(r, "echo stream", ERR_TIMEOUT);
        (void)poll(p, 2, poll_ms(r, now));
        now = now_ns();
        if (now < end || r->ping.under_way)
            rc = step_ping(r, p[0].revents, now);
        if (rc == 0 && p[1].revents != 0)
            rc = app_net_dispatch(r->net, 0);
    }
    return rc;
}

static void moved(const struct run *r, uint64_t *up, uint64_t *down)
{
    *up = *down = 0;
    for (size_t i = 0; i < r->n; i++) {
        const struct flow *f = &r->flows[i];
        *up += f->up ? f->src.bytes : 0;
        *down += f->up ? 0 : f->sink.result.bytes;
    }
}

static void report_interval(struct run *r, uint64_t now, bool last)
{
    uint64_t up, down, end = r->interval_ns + r->cfg->interval_ns;
    if (r->cfg->interval_ns == 0 || (!last && now < end) ||
        (last && now - r->interval_ns < r->cfg->interval_ns / 10))
        return;
    moved(r, &up, &down);
    r->cfg->report(r->cfg->arg, json_pack("{s:s, s:f, s:f, s:I, s:I, s:o}", "event", "interval",
                                          "from", seconds(r->interval_ns - r->start_ns), "to",
                                          seconds(now - r->start_ns), "up_bytes",
                                          (json_int_t)(up - r->up_before), "down_bytes",
                                          (json_int_t)(down - r->down_before), "rtt_ms",
                                          median_json(&r->ping.loaded, r->loaded_before)));
    r->interval_ns = now;
    r->up_before = up;
    r->down_before = down;
    r->loaded_before = r->ping.loaded.n;
}

static int step_flows(struct run *r, const struct pollfd *p, uint64_t now, size_t *left)
{
    bool stop = now - r->start_ns >= r->cfg->time_ns || stopped(r);
    *left = 0;
    for (size_t i = 0; i < r->n; i++) {
        struct flow *f = &r->flows[i];
        int rc = !f->done && p[i].revents != 0 ? flow_step(f, now, stop) : 0;
        if (rc != 0)
            return lost(r, f->up ? "stream up" : "stream down", rc);
        *left += !f->done;
    }
    return 0;
}

static int measure_load(struct run *r)
{
    struct pollfd p[2 * IPERF_PARALLEL + 2];
    size_t left = r->n;
    int rc = 0;
    uint64_t now = r->start_ns = r->interval_ns = now_ns();
    uint64_t hard = now + r->cfg->time_ns + NS_PER_S + r->net->timeout_ms * NS_PER_MS;
    r->ping.now = &r->ping.loaded;
    while (rc == 0 && left > 0) {
        if (now >= hard)
            return lost(r, "the end of the streams", ERR_TIMEOUT);
        for (size_t i = 0; i < r->n; i++)
            p[i] = (struct pollfd){r->flows[i].done ? -1 : r->flows[i].fd, flow_wants(&r->flows[i]),
                                   0};
        p[r->n] = (struct pollfd){r->ping.fd, POLLIN, 0};
        p[r->n + 1] = (struct pollfd){app_net_fd(r->net), POLLIN, 0};
        (void)poll(p, r->n + 2, poll_ms(r, now));
        now = now_ns();
        if ((rc = step_flows(r, p, now, &left)) == 0)
            rc = step_ping(r, p[r->n].revents, now);
        if (rc == 0 && p[r->n + 1].revents != 0)
            rc = app_net_dispatch(r->net, 0);
        report_interval(r, now, left == 0);
        if (stopped(r) && !r->cfg->up)
            break; /* nobody tells the server: closing does */
    }
    return rc;
}

/* ---- the result ---- */

static json_t *direction_json(const struct run *r, bool up, uint64_t *wrong)
{
    uint64_t bytes = 0, bad = 0, ns = 0;
    json_t *each = json_array();
    for (size_t i = 0; i < r->n; i++) {
        const struct iperf_result *x = &r->flows[i].sink.result;
        if (r->flows[i].up != up)
            continue;
        json_array_append_new(each, json_integer((json_int_t)x->bytes));
        bytes += x->bytes;
        bad += x->wrong;
        ns = x->ns > ns ? x->ns : ns;
    }
    *wrong += bad;
    return json_pack("{s:I, s:f, s:f, s:I, s:o}", "bytes", (json_int_t)bytes, "seconds",
                     seconds(ns), "mbit_s", ns > 0 ? (double)bytes * 8e3 / (double)ns : 0.0,
                     "wrong_bytes", (json_int_t)bad, "streams", each);
}

static int report_result(struct run *r)
{
    const struct iperf_cfg *cfg = r->cfg;
    char pk[PUBKEY_HEX + 1];
    uint64_t wrong = 0;
    json_t *o =
        json_pack("{s:s, s:s, s:i, s:s, s:i, s:i, s:f, s:f}", "event", "result", "public_key",
                  pubkey_hex(pk, &cfg->pk), "port", (int)cfg->port, "direction",
                  cfg->up && cfg->down ? "both"
                  : cfg->up            ? "up"
                                       : "down",
                  "parallel", (int)cfg->parallel, "block", (int)cfg->block, "seconds",
                  seconds(now_ns() - r->start_ns), "setup_ms", r->setup_ms);
    json_object_set_new(o, "up", cfg->up ? direction_json(r, true, &wrong) : json_null());
    json_object_set_new(o, "down", cfg->down ? direction_json(r, false, &wrong) : json_null());
    json_object_set_new(o, "latency",
                        json_pack("{s:o, s:o}", "idle", latency_json(&r->ping.idle), "loaded",
                                  latency_json(&r->ping.loaded)));
    cfg->report(cfg->arg, o);
    return wrong == 0 ? 0
                      : app_net_fail(r->net, ERR_CORRUPT, "iperf: %llu bytes arrived wrong",
                                     (unsigned long long)wrong);
}

static void run_free(struct run *r)
{
    for (size_t i = 0; i < r->n; i++) {
        if (r->flows[i].fd >= 0)
            close(r->flows[i].fd);
        iperf_source_free(&r->flows[i].src);
    }
    if (r->ping.fd >= 0)
        close(r->ping.fd);
    free(r->ping.idle.v);
    free(r->ping.loaded.v);
    free(r);
}

int iperf_run(struct app_net *net, const struct iperf_cfg *cfg)
{
    struct run *r = calloc(1, sizeof(*r));
    if (r == NULL)
        return app_net_fail(net, ERR_NOMEM, "%s", err_str(ERR_NOMEM));
    r->net = net;
    r->cfg = cfg;
    r->ping.fd = -1;
    int rc = open_echo(r);
    if (rc == 0)
        rc = measure_idle(r);
    if (rc == 0)
        rc = open_flows(r);
    if (rc == 0)
        rc = measure_load(r);
    if (rc == 0)
        rc = report_result(r);
    run_free(r);
    return rc;
}
