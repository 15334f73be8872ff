#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "base/loop.h"
#include "node/app_net.h"
#include "node/cmds.h"
#include "node/tool_relays.h"

struct ping_opts {
    struct tool_opts conn;
    struct tool_compat compat;
    struct cmd_strs servers;
    uint64_t count;
};

/* A stream from ourselves to ourselves: both ends are here. */
struct loopback {
    struct app_net *net;
    uint16_t port; /* of the listener */
    int out, in;   /* dialled, accepted; -1 */
    bool dialled, lost;
    struct app_net_failure failure;
};

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static void on_stream(void *arg, int fd, const struct pubkey *pk, uint16_t port)
{
    struct loopback *l = arg;
    (void)port;
    if (l->in >= 0 || !pubkey_equal(pk, &l->net->self))
        close(fd); /* a stranger, or one that comes too late */
    else
        l->in = fd;
}

static void on_listen(void *arg, uint16_t port, const struct app_net_failure *failure)
{
    struct loopback *l = arg;
    l->port = port;
    if (failure != NULL) {
        l->failure = *failure;
        l->lost = true;
    }
}

static void on_dialled(void *arg, int fd, const struct app_net_failure *failure)
{
    struct loopback *l = arg;
    l->dialled = true;
    l->out = fd;
    if (failure != NULL)
        l->failure = *failure;
}

static void drop(struct loopback *l)
{
    if (l->out >= 0)
        close(l->out);
    if (l->in >= 0)
        close(l->in);
    l->out = l->in = -1;
}

static int fail(struct loopback *l, int err, const char *text)
{
    l->failure.err = err;
    l->failure.exit = err_exit_code(err);
    snprintf(l->failure.text, sizeof(l->failure.text), "%s", text);
    return err;
}

/* Wait for what the node tells until both ends are there. */
static int connect_both(struct loopback *l, const struct pubkey *relay, uint64_t deadline_ns)
{
    uint64_t handle = 0, now;
    l->dialled = false;
    int rc = app_net_dial_via(l->net, relay, &l->net->self, l->port, on_dialled, l, &handle);
    while (rc == 0 && !l->lost && !(l->dialled && l->out < 0) && (l->out < 0 || l->in < 0)) {
        if ((now = now_ns()) >= deadline_ns)
            return fail(l, ERR_TIMEOUT, "the stream did not come back");
        rc = app_net_dispatch(l->net, (int)((deadline_ns - now) / 1000000) + 1);
    }
    if (rc != 0)
        l->failure = l->net->failure;
    return rc != 0 ? rc : l->out >= 0 && l->in >= 0 ? 0 : l->failure.err;
}

/* One byte from end to end. */
static int pass(struct loopback *l, int from, int to, uint64_t deadline_ns)
{
    struct pollfd p = {to, POLLIN, 0};
    char c = 'p';
    uint64_t now = now_ns();
    if (write(from, &c, 1) != 1 || now >= deadline_ns ||
        poll(&p, 1, (int)((deadline_ns - now) / 1000000) + 1) <= 0 || read(to, &c, 1) != 1 ||
        c != 'p')
        return fail(l, now_ns() >= deadline_ns ? ERR_TIMEOUT : ERR_RESET,
                    "the byte that was sent did not come back");
    return 0;
}

struct result {
    double setup_ms, best_ms, sum_ms;
    uint64_t n;
};

static int ping_relay(struct loopback *l, const struct pubkey *relay, uint64_t count,
                      struct result *out)
{
    uint64_t start = now_ns(), deadline = start + l->net->timeout_ms * NS_PER_MS;
    int rc = connect_both(l, relay, deadline);
    out->setup_ms = (double)(now_ns() - start) / 1e6;
    for (uint64_t i = 0; i < count && rc == 0; i++) {
        uint64_t sent = now_ns();
        if ((rc = pass(l, l->out, l->in, sent + l->net->timeout_ms * NS_PER_MS)) == 0)
            rc = pass(l, l->in, l->out, sent + l->net->timeout_ms * NS_PER_MS);
        double ms = (double)(now_ns() - sent) / 1e6;
        if (rc != 0)
            break;
        out->best_ms = out->n == 0 || ms < out->best_ms ? ms : out->best_ms;
        out->sum_ms += ms;
        out->n++;
    }
    drop(l);
    return rc;
}

/* ---- the report ---- */

static json_t *row_of(const json_t *session, const struct result *r, const char *error)
{
    json_t *row = json_pack("{s:s, s:s, s:b}", "server", tool_str(session, "server"), "address",
                            tool_str(session, "address"), "ok", error == NULL);
    if (error != NULL)
        json_object_set_new(row, "error", json_string(error));
    else
        json_object_update_new(row, json_pack("{s:f, s:f, s:f, s:I}", "setup_ms", r->setup_ms,
                                              "rtt_ms", r->best_ms, "rtt_mean_ms",
                                              r->sum_ms / (double)r->n, "count", (json_int_t)r->n));
    return row;
}

static void print_row(const struct pubkey *self, const json_t *row)
{
    char pk[PUBKEY_HEX + 1];
    if (!json_is_true(json_object_get(row, "ok"))) {
        fprintf(stderr, "kadmsg: self-ping through %s @ %s: %s\n", tool_str(row, "server"),
                tool_str(row, "address"), tool_str(row, "error"));
        return;
    }
    double ms = json_number_value(json_object_get(row, "rtt_ms"));
    bool where = tool_str(row, "address")[0] != '\0'; /* not of one's own relay */
    printf("DMSG self-ping OK\n  server:  %s%s%s\n  own pk:  %s\n  latency: %.*fms\n",
           tool_str(row, "server"), where ? " @ " : "", tool_str(row, "address"),
           pubkey_hex(pk, self), ms < 10 ? 2 : 0, ms);
}

static int ping_one(const struct ping_opts *o, struct loopback *l, const struct tool_relay *relay,
                    json_t *rows)
{
    struct result r = {0};
    json_t *session = tool_relays_session(app_net_tool(l->net), relay);
    if (session == NULL)
        return 1;
    char text[512];
    const char *error = NULL;
    int rc = 0;
    if (!json_is_true(json_object_get(session, "up"))) {
        snprintf(text, sizeof(text), "%s: %s", tool_str(session, "phase"),
                 tool_str(session, "reason"));
        error = text;
        rc = (int)tool_num(session, "exit");
    } else if (ping_relay(l, &relay->pk, o->count, &r) != 0) {
        error = l->failure.text;
        rc = l->failure.exit;
    }
    json_t *row = row_of(session, &r, error);
    if (!o->conn.json || error != NULL)
        print_row(&l->net->self, row);
    json_array_append_new(rows, row);
    json_decref(session);
    return rc != 0 ? rc : error != NULL ? 1 : 0;
}

static int ping_all(const struct ping_opts *o, struct app_net *net,
                    const struct tool_relays *relays)
{
    struct loopback l = {.net = net, .out = -1, .in = -1};
    char pk[PUBKEY_HEX + 1];
    uint64_t handle = 0;
    json_t *rows = json_array();
    int worst = 0, rc = app_net_listen(net, 0, on_stream, on_listen, &l, &handle);
    while (rc == 0 && l.port == 0 && !l.lost)
        rc = app_net_dispatch(net, -1);
    if (rc != 0 || l.lost) {
        json_decref(rows);
        return tool_fail(rc != 0 ? rc : l.failure.err, "%s",
                         rc != 0 ? net->failure.text : l.failure.text);
    }
    for (size_t i = 0; i < relays->n && !l.lost; i++) {
        rc = ping_one(o, &l, &relays->v[i], rows);
        worst = rc != 0 ? rc : worst;
    }
    if (o->conn.json)
        tool_print(json_pack("{s:s, s:b, s:O}", "public_key", pubkey_hex(pk, &net->self), "ok",
                             worst == 0, "relays", rows));
    app_net_cancel(net, handle);
    json_decref(rows);
    return worst;
}

static int run(struct cmdline *cl)
{
    static struct tool_relays relays;
    struct ping_opts *o = cl->opts;
    struct app_net *net = NULL;
    struct tool_opts opts;
    int rc = tool_relays_parse(cl, "--server", &o->servers, &relays);
    if (rc == 0)
        rc = tool_relays_apply(cl, &o->compat, &o->conn, NULL, &relays, &opts);
    if (rc == 0)
        rc = app_net_open(&net, &opts, relays.n > 0 ? TOOL_NODE : TOOL_SESSION);
    if (rc == 0)
        rc = tool_relays_fill(app_net_tool(net), &opts, &relays);
    if (rc == 0)
        rc = ping_all(o, net, &relays);
    app_net_close(net);
    return rc;
}

static const struct cmd_opt flags[] = {
    {.name = "server",
     .letter = 'S',
     CMD_STRS_AT(struct ping_opts, servers),
     .metavar = "PK|PK@HOST:PORT",
     .def_text = "every relay that there is a session to",
     .help = "relays to go through (commas, or repeated)"},
    {.name = "count",
     .letter = 'c',
     CMD_U64_AT(struct ping_opts, count),
     .min = 1,
     .max = 100000,
     .def = "3",
     .metavar = "N",
     .help = "round trips in each stream; the best one is shown"},
    {0}};
static const struct cmd_group groups[] = {
    {"Connection flags", tool_flags, offsetof(struct ping_opts, conn)},
    {TOOL_COMPAT_TITLE, tool_compat_flags_no_srv, offsetof(struct ping_opts, compat)},
    {0}};

const struct cmd cmd_self_ping = {
    .name = "self-ping",
    .help = "a stream to oneself through each relay",
    .about =
        "Shows that a relay really carries streams: one is opened through it from this key to "
        "itself, and a byte goes there and back. --server with PK@HOST:PORT needs no node and no "
        "look-up, and is done under a fresh key.\n\n"
        "With --json one object: public_key, ok, relays (server, address, ok, setup_ms, "
        "rtt_ms, rtt_mean_ms, count; or error). The exit code is that of the last failure.",
    .opts = flags,
    .groups = groups,
    .opts_size = sizeof(struct ping_opts),
    .run = run,
};
