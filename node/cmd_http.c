#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "apps/http.h"
#include "base/err.h"
#include "node/app_net.h"
#include "node/cmds.h"
#include "node/ready.h"
#include "node/tool_compat.h"
#include "node/tool_proxy.h"

struct http_opts {
    struct tool_opts conn;
    struct tool_compat compat;
    const char *dir, *log;
    uint16_t port;
    struct cmd_strs wl;
    bool ready, no_listing, quiet;
    uint64_t max_conns, max_per_key;
};

static volatile sig_atomic_t stop_asked;

static void on_signal(int sig)
{
    (void)sig;
    stop_asked = stop_asked + 1;
}

static void on_ready(void *arg, const struct pubkey *pk, uint16_t port)
{
    const struct http_opts *o = arg;
    char hex[PUBKEY_HEX + 1];
    if (o->ready)
        ready_print(pk, port);
    fprintf(stderr, "serving %s on dmsg://%s:%u/\n", o->dir, pubkey_hex(hex, pk), port);
}

static int open_log(const struct http_opts *o, FILE **log)
{
    *log = o->quiet ? NULL : stderr;
    if (o->log == NULL)
        return 0;
    *log = fopen(o->log, "ae");
    return *log != NULL ? 0 : tool_fail(err_sys(), "%s: %s", o->log, strerror(errno));
}

static int serve(const struct http_cfg *cfg, const struct tool_opts *conn)
{
    struct app_net *net = NULL;
    struct http *h = NULL;
    char summary[256];
    int rc = http_new(&h, cfg);
    if (rc < 0)
        return tool_fail(rc, "%s: %s", cfg->dir, err_str(rc));
    rc = app_net_open(&net, conn, TOOL_REACHABLE);
    if (rc == 0 && http_run(h, net) < 0) {
        fprintf(stderr, "kadmsg: %s\n", app_net_failure(net)->text);
        rc = app_net_failure(net)->exit;
    }
    if (net != NULL)
        fprintf(stderr, "served %s\n", http_summary(h, summary, sizeof(summary)));
    http_free(h);
    app_net_close(net);
    return rc;
}

static int run(struct cmdline *cl)
{
    struct whitelist wl = {0};
    struct http_opts *o = cl->opts;
    struct tool_opts conn;
    struct sigaction sa = {.sa_handler = on_signal};
    struct http_cfg cfg = {.dir = o->dir,
                           .port = o->port,
                           .whitelist = &wl,
                           .no_listing = o->no_listing,
                           .max_conns = (unsigned)o->max_conns,
                           .max_per_peer = (unsigned)o->max_per_key,
                           .stop = &stop_asked,
                           .ready = on_ready,
                           .arg = o};
    int rc = tool_whitelist(cl, &o->wl, &wl);
    if (rc == 0)
        rc = tool_compat_apply(cl, &o->compat, &o->conn, "DMSGHTTP_SK", &conn);
    if (rc == 0)
        rc = open_log(o, &cfg.log);
    if (rc != 0) {
        whitelist_free(&wl);
        return rc;
    }
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    signal(SIGPIPE, SIG_IGN);
    rc = serve(&cfg, &conn);
    if (o->log != NULL && fclose(cfg.log) != 0)
        rc = tool_fail(err_sys(), "%s: %s", o->log, strerror(errno));
    whitelist_free(&wl);
    return rc;
}

static const struct cmd_opt flags[] = {
    {.name = "dir",
     .letter = 'd',
     CMD_STR_AT(struct http_opts, dir),
     .metavar = "DIR",
     .def = ".",
     .help = "what to serve"},
    {.name = "port",
     .letter = 'p',
     CMD_PORT_AT(struct http_opts, port),
     .def = "80",
     .help = "dmsg port"},
    {.name = "wl",
     .letter = 'w',
     CMD_STRS_AT(struct http_opts, wl),
     .metavar = "PK,PK",
     .def_text = "everybody",
     .help = "keys that are served (commas, or repeated); others get 403"},
    {.name = "log",
     CMD_STR_AT(struct http_opts, log),
     .metavar = "FILE",
     .def_text = "standard error",
     .help = "append a line for each request, in the common log format"},
    {.name = "quiet", CMD_FLAG_AT(struct http_opts, quiet), .help = "no such lines"},
    {.name = "no-listing",
     CMD_FLAG_AT(struct http_opts, no_listing),
     .help = "a directory without index.html is not found"},
    {.name = "max-conns",
     CMD_U64_AT(struct http_opts, max_conns),
     .metavar = "N",
     .def = "1024",
     .min = 1,
     .max = 65536,
     .help = "connections at once"},
    {.name = "max-per-key",
     CMD_U64_AT(struct http_opts, max_per_key),
     .metavar = "N",
     .def = "256",
     .min = 1,
     .max = 65536,
     .help = "connections at once of one key"},
    {.name = "ready",
     CMD_FLAG_AT(struct http_opts, ready),
     .help = "print one JSON line on stdout when it serves"},
    {0}};
static const struct cmd_group groups[] = {
    {"Connection flags", tool_flags, offsetof(struct http_opts, conn)},
    {TOOL_COMPAT_TITLE, tool_compat_flags, offsetof(struct http_opts, compat)},
    {0}};

const struct cmd cmd_http = {
    .name = "http",
    .help = "serve a directory over dmsg",
    .about =
        "Files below the directory, read-only: ranges, conditional requests, index.html, lists of "
        "directories. Symbolic links are followed as long as they stay inside. The server is on "
        "the key of the node it runs on (or of --sk-file), and is found through the DHT. Letters "
        "are those of upstream's tool of 2023; a request's line in the log is in the common "
        "format, with key and port of the caller as its address.\n\n"
        "With --wl only streams of these keys are served; the key of a stream is proven when the "
        "stream is made. The first SIGINT or SIGTERM lets requests under way end, the second one "
        "does not.",
    .opts = flags,
    .groups = groups,
    .opts_size = sizeof(struct http_opts),
    .run = run,
};
