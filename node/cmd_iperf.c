#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "apps/iperf.h"
#include "apps/iperf_flow.h"
#include "base/err.h"
#include "base/loop.h"
#include "node/app_net.h"
#include "node/cmds.h"
#include "node/ready.h"
#include "node/tool_compat.h"
#include "node/tool_proxy.h"

#define PORT_DEFAULT 5201

struct iperf_opts {
    struct tool_opts conn;
    struct tool_compat compat;
    const char *target;
    int direction;
    uint64_t time, interval, idle, parallel, block; /* ns; of server: */
    uint16_t port;
    struct cmd_strs wl;
    bool ready, reverse;
};

enum direction { UP, DOWN, BOTH };

static volatile sig_atomic_t stop_asked;

static void on_signal(int sig)
{
    (void)sig;
    stop_asked = 1;
}

static void catch_signals(void)
{
    struct sigaction sa = {.sa_handler = on_signal};
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static int tell(struct app_net *net)
{
    fprintf(stderr, "kadmsg: %s\n", net->failure.text);
    return net->failure.exit != 0 ? net->failure.exit : 1;
}

/* ---- client ---- */

static double real(const json_t *o, const char *name)
{
    return json_number_value(json_object_get(o, name));
}

static void print_rate(const char *what, double bytes, double seconds)
{
    printf("  %s %8.1f MB/s", what, seconds > 0 ? bytes / seconds / 1e6 : 0.0);
}

static void print_interval(const struct iperf_opts *o, const json_t *e)
{
    double took = real(e, "to") - real(e, "from");
    printf("%6.1f - %5.1f s", real(e, "from"), real(e, "to"));
    if (o->direction != DOWN)
        print_rate("up", real(e, "up_bytes"), took);
    if (o->direction != UP)
        print_rate("down", real(e, "down_bytes"), took);
    if (json_is_number(json_object_get(e, "rtt_ms")))
        printf("  round trip %.2f ms", real(e, "rtt_ms"));
    putchar('\n');
}

static void print_direction(const char *what, const json_t *d)
{
    if (!json_is_object(d))
        return;
    printf("%-5s %.1f MB in %.2f s: %.1f MB/s (%.0f Mbit/s), %s\n", what, real(d, "bytes") / 1e6,
           real(d, "seconds"), real(d, "mbit_s") / 8, real(d, "mbit_s"),
           tool_num(d, "wrong_bytes") == 0 ? "every byte checked" : "WITH WRONG BYTES");
}

static void print_latency(const char *what, const json_t *l)
{
    if (json_is_object(l))
        printf("round trip %-7s min %.2f, median %.2f, 99 %% %.2f, max %.2f ms (%lld)\n", what,
               real(l, "min_ms"), real(l, "p50_ms"), real(l, "p99_ms"), real(l, "max_ms"),
               tool_num(l, "count"));
}

static void on_report(void *arg, json_t *e)
{
    const struct iperf_opts *o = arg;
    if (o->conn.json) {
        tool_print(e);
        return;
    }
    if (strcmp(tool_str(e, "event"), "interval") == 0) {
        print_interval(o, e);
    } else {
        const json_t *latency = json_object_get(e, "latency");
        print_direction("up", json_object_get(e, "up"));
        print_direction("down", json_object_get(e, "down"));
        print_latency("idle", json_object_get(latency, "idle"));
        print_latency("loaded", json_object_get(latency, "loaded"));
    }
    fflush(stdout);
    json_decref(e);
}

/* PK or PK:PORT. */
static int parse_target(struct cmdline *cl, const struct iperf_opts *o, struct iperf_cfg *cfg)
{
    struct addr_dmsg to;
    const char *why = NULL, *text = o->target;
    if (text == NULL)
        return cmdline_usage_error(cl, "TARGET is missing: PK or PK:PORT of a kadmsg iperf server");
    text += strncmp(text, "dmsg://", 7) == 0 ? 7 : 0;
    cfg->port = PORT_DEFAULT;
    if (pubkey_from_hex(&cfg->pk, text, strlen(text)) == 0)
        return 0;
    if (addr_dmsg_parse(&to, text, strlen(text), &why) < 0)
        return cmdline_usage_error(cl, "TARGET: %s: %s", text, why);
    cfg->pk = to.pk;
    cfg->port = to.port;
    return 0;
}

static int run_client(struct cmdline *cl)
{
    struct iperf_opts *o = cl->opts;
    struct tool_opts opts;
    struct app_net *net = NULL;
    if (o->reverse)
        o->direction = DOWN;
    struct iperf_cfg cfg = {.up = o->direction != DOWN,
                            .down = o->direction != UP,
                            .parallel = (unsigned)o->parallel,
                            .block = (uint32_t)o->block,
                            .time_ns = o->time,
                            .idle_ns = o->idle,
                            .interval_ns = o->interval,
                            .stop = &stop_asked,
                            .report = on_report,
                            .arg = o};
    int rc = parse_target(cl, o, &cfg);
    if (rc == 0)
        rc = tool_compat_apply(cl, &o->compat, &o->conn, NULL, &opts);
    if (rc == 0)
        rc = app_net_open(&net, &opts, TOOL_SESSION);
    if (rc != 0)
        return rc;
    catch_signals();
    if (iperf_run(net, &cfg) < 0)
        rc = tell(net);
    app_net_close(net);
    return rc;
}

/* ---- server ---- */

static void on_ready(void *arg, const struct pubkey *pk, uint16_t port)
{
    const struct iperf_opts *o = arg;
    char hex[PUBKEY_HEX + 1];
    if (o->ready)
        ready_print(pk, port);
    fprintf(stderr, "listening on %s:%u\n", pubkey_hex(hex, pk), port);
}

static void on_ended(void *arg, const struct pubkey *pk, bool up, uint64_t bytes, uint64_t wrong)
{
    char hex[PUBKEY_HEX + 1];
    (void)arg;
    fprintf(stderr, "%s: %llu bytes %s%s\n", pubkey_hex(hex, pk), (unsigned long long)bytes,
            up ? "from there" : "to there", wrong > 0 ? ", some of them wrong" : "");
}

static int run_server(struct cmdline *cl)
{
    struct iperf_opts *o = cl->opts;
    struct whitelist wl = {0};
    struct tool_opts opts;
    struct app_net *net = NULL;
    struct iperf_server_cfg cfg = {.port = o->port,
                                   .whitelist = &wl,
                                   .stop = &stop_asked,
                                   .ready = on_ready,
                                   .ended = on_ended,
                                   .arg = o};
    int rc = tool_whitelist(cl, &o->wl, &wl);
    if (rc == 0)
        rc = tool_compat_apply(cl, &o->compat, &o->conn, NULL, &opts);
    if (rc == 0)
        rc = app_net_open(&net, &opts, TOOL_REACHABLE);
    if (rc == 0) {
        catch_signals();
        if (iperf_serve(net, &cfg) < 0)
            rc = tell(net);
    }
    app_net_close(net);
    whitelist_free(&wl);
    return rc;
}

/* ---- the table ---- */

static const struct cmd_group groups[] = {
    {"Connection flags", tool_flags, offsetof(struct iperf_opts, conn)},
    {TOOL_COMPAT_TITLE, tool_compat_flags_no_l, offsetof(struct iperf_opts, compat)},
    {0}};
static const struct cmd_opt server_flags[] = {
    {.name = "port",
     .letter = 'p',
     CMD_PORT_AT(struct iperf_opts, port),
     .def = "5201",
     .help = "dmsg port"},
    {.name = "wl",
     .letter = 'w',
     CMD_STRS_AT(struct iperf_opts, wl),
     .metavar = "PK,PK",
     .def_text = "everybody",
     .help = "keys that are served (commas, or repeated); others are closed"},
    {.name = "ready",
     CMD_FLAG_AT(struct iperf_opts, ready),
     .help = "print one JSON line on stdout when it serves"},
    {0}};
static const struct cmd_opt args[] = {{.name = "TARGET",
                                       CMD_STR_AT(struct iperf_opts, target),
                                       .optional = true,
                                       .help = "key of a node that runs kadmsg iperf server, PK or "
                                               "PK:PORT"},
                                      {0}};
static const struct cmd_opt flags[] = {
    {.name = "time",
     .letter = 't',
     CMD_SECONDS_AT(struct iperf_opts, time),
     .def = "10",
     .min = 100 * NS_PER_MS,
     .max = IPERF_TIME_MAX * NS_PER_S,
     .help = "how long bytes are sent"},
    {.name = "direction",
     .letter = 'd',
     CMD_CHOICE_AT(struct iperf_opts, direction),
     .choices = "up|down|both",
     .def = "up",
     .help = "up is towards TARGET"},
    {.name = "reverse",
     .letter = 'R',
     CMD_FLAG_AT(struct iperf_opts, reverse),
     .help = "the same as --direction down"},
    {.name = "parallel",
     .letter = 'P',
     CMD_U64_AT(struct iperf_opts, parallel),
     .metavar = "N",
     .def = "1",
     .min = 1,
     .max = IPERF_PARALLEL,
     .help = "streams in each direction"},
    {.name = "interval",
     .letter = 'i',
     CMD_SECONDS_AT(struct iperf_opts, interval),
     .def = "1",
     .max = IPERF_TIME_MAX * NS_PER_S,
     .help = "a line each so often; 0 = none"},
    {.name = "idle",
     CMD_SECONDS_AT(struct iperf_opts, idle),
     .def = "1",
     .max = IPERF_TIME_MAX * NS_PER_S,
     .help = "how long the round trip is measured before the load; 0 = not"},
    {.name = "length",
     .letter = 'l',
     CMD_BYTES_AT(struct iperf_opts, block),
     .def = "64k",
     .min = 1,
     .max = IPERF_BLOCK_MAX,
     .help = "bytes written at once"},
    {0}};

static const struct cmd subs[] = {
    {.name = "server",
     .help = "the other end, for any number of clients",
     .about =
         "Reads and checks, sends, or sends back what comes; keeps nothing. At most 256 streams "
         "at once, 1 hour each.",
     .opts = server_flags,
     .groups = groups,
     .opts_size = sizeof(struct iperf_opts),
     .run = run_server},
    {0}};

const struct cmd cmd_iperf = {
    .name = "iperf",
    .help = "throughput and latency between two keys",
    .about = "Measures the round trip of an echo stream, first alone and then beside the load, and "
             "what the receiver gets of a pattern in which every byte is checked. The other end is "
             "kadmsg iperf server. A wrong byte is a failure.\n\n"
             "With --json a line each interval (event interval: from, to, up_bytes, down_bytes, "
             "rtt_ms) and at the end one of event result: public_key, port, direction, parallel, "
             "block, seconds, setup_ms, up and down (bytes, seconds, mbit_s, wrong_bytes, streams; "
             "or null), latency (idle and loaded: count, min_ms, p50_ms, p99_ms, max_ms; or null).",
    .args = args,
    .opts = flags,
    .groups = groups,
    .opts_size = sizeof(struct iperf_opts),
    .run = run_client,
    .subs = subs,
};
