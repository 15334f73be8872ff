#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "base/loop.h"
#include "node/cmds.h"
#include "node/tool_relays.h"

#define PORT_DEFAULT 80

struct dial_opts {
    struct tool_opts conn;
    struct tool_compat compat;
    const char *target;
    uint64_t wait; /* ns */
};

/* ---- a session with a relay ---- */

static void print_session(const struct dial_opts *o, json_t *a)
{
    bool up = json_is_true(json_object_get(a, "up"));
    json_object_del(a, "ok");
    json_object_del(a, "id");
    if (o->conn.json) {
        tool_print(json_incref(a));
        return;
    }
    tool_plain(a);
    if (up && json_is_true(json_object_get(a, "existing")))
        printf("session with %s at %s: was there already\n", tool_str(a, "server"),
               tool_str(a, "address"));
    else if (up)
        printf("session with %s at %s: up after %.1f ms (look-up %.1f, TCP connect %.1f, handshake "
               "%.1f)\n",
               tool_str(a, "server"), tool_str(a, "address"),
               json_number_value(json_object_get(a, "ms")),
               json_number_value(json_object_get(a, "find_ms")),
               json_number_value(json_object_get(a, "tcp_ms")),
               json_number_value(json_object_get(a, "handshake_ms")));
    if (up)
        printf("round trip %.2f ms\n", json_number_value(json_object_get(a, "rtt_ms")));
    else
        fprintf(stderr, "kadmsg: session with %s%s%s: %s: %s, after %.1f ms\n",
                tool_str(a, "server"), tool_str(a, "address")[0] != '\0' ? " at " : "",
                tool_str(a, "address"), tool_str(a, "phase"), tool_str(a, "reason"),
                json_number_value(json_object_get(a, "ms")));
}

/* The exit code; or *none: nobody knows this key as a relay. */
static int dial_relay(const struct dial_opts *o, struct tool *t, const struct tool_relay *relay,
                      bool *none)
{
    json_t *a = tool_relays_session(t, relay);
    if (a == NULL)
        return 1;
    int rc = 0;
    if (json_is_false(json_object_get(a, "ok"))) {
        fprintf(stderr, "kadmsg: %s\n", tool_str(a, "error"));
        rc = (int)tool_num(a, "exit");
    } else {
        *none = relay->addr[0] == '\0' && strcmp(tool_str(a, "phase"), "look-up") == 0;
        if (!*none)
            print_session(o, a);
        rc = json_is_true(json_object_get(a, "up")) ? 0 : (int)tool_num(a, "exit");
    }
    json_decref(a);
    return rc;
}

/* ---- a stream to any key ---- */

static int dial_stream(const struct dial_opts *o, struct tool *t, const struct pubkey *pk,
                       uint16_t port, int *fd)
{
    char hex[PUBKEY_HEX + 1];
    json_t *a = NULL;
    json_t *req = json_pack("{s:s, s:s, s:i, s:I}", "cmd", "dial", "pk", pubkey_hex(hex, pk),
                            "port", (int)port, "timeout_ms", (json_int_t)tool_timeout_ms(t));
    tool_route(t, req);
    int rc = tool_call(t, req, NULL, NULL, &a, fd);
    if (rc != 0)
        return rc;
    if (o->conn.json)
        tool_print(json_pack("{s:b, s:s, s:i, s:O, s:O}", "up", 1, "public_key", hex, "port",
                             (int)port, "relay", json_object_get(a, "relay"), "ms",
                             json_object_get(a, "ms")));
    else
        printf("stream to %s:%u: open after %.1f ms, through relay %s\n", hex, port,
               json_number_value(json_object_get(a, "ms")), tool_str(a, "relay"));
    json_decref(a);
    return 0;
}

/* ---- the command ---- */

static void stay(uint64_t ns)
{
    struct timespec left = {(time_t)(ns / NS_PER_S), (long)(ns % NS_PER_S)};
    fflush(stdout);
    (void)nanosleep(&left, NULL); /* a signal ends it */
}

static void on_signal(int sig)
{
    (void)sig;
}

/* PK@HOST:PORT and PK are relays first, PK:PORT is a stream. */
static int parse(struct cmdline *cl, const struct dial_opts *o, struct tool_relays *relays,
                 struct addr_dmsg *to)
{
    const char *text = o->target, *why = NULL;
    text += strncmp(text, "dmsg://", 7) == 0 ? 7 : 0;
    *to = (struct addr_dmsg){.port = PORT_DEFAULT};
    if (strchr(text, '@') == NULL && strchr(text, ':') != NULL) {
        relays->n = 0;
        return addr_dmsg_parse(to, text, strlen(text), &why) < 0
                   ? cmdline_usage_error(cl, "TARGET: %s: %s", text, why)
                   : 0;
    }
    int rc = tool_relays_parse(cl, "TARGET", &(struct cmd_strs){&text, 1}, relays);
    if (rc == 0 && relays->n != 1)
        return cmdline_usage_error(cl, "TARGET: %s: one relay", text);
    if (rc == 0)
        to->pk = relays->v[0].pk;
    return rc;
}

static int run(struct cmdline *cl)
{
    static struct tool_relays relays;
    struct dial_opts *o = cl->opts;
    struct tool_opts opts;
    struct addr_dmsg to;
    struct sigaction sa = {.sa_handler = on_signal};
    struct tool *t = NULL;
    int fd = -1;
    int rc = parse(cl, o, &relays, &to);
    if (rc != 0)
        return rc;
    bool relay = relays.n == 1, stream = !relay;
    rc = tool_relays_apply(cl, &o->compat, &o->conn, NULL, &relays, &opts);
    if (rc == 0)
        rc = tool_open(&t, &opts, relay && relays.v[0].addr[0] != '\0' ? TOOL_NODE : TOOL_SESSION);
    if (rc == 0 && relay)
        rc = dial_relay(o, t, &relays.v[0], &stream);
    if (t != NULL && stream)
        rc = dial_stream(o, t, &to.pk, to.port, &fd);
    if (rc == 0 && o->wait > 0) {
        sigaction(SIGINT, &sa, NULL);
        sigaction(SIGTERM, &sa, NULL);
        stay(o->wait);
    }
    if (fd >= 0)
        close(fd);
    tool_close(t);
    return rc;
}

static const struct cmd_opt args[] = {
    {.name = "TARGET",
     CMD_STR_AT(struct dial_opts, target),
     .help = "relay as PK@HOST:PORT or PK, or any node as PK:PORT"},
    {0}};
static const struct cmd_opt flags[] = {{.name = "wait",
                                        .letter = 'w',
                                        CMD_SECONDS_AT(struct dial_opts, wait),
                                        .def = "0",
                                        .max = UINT64_C(86400000000000),
                                        .help = "stay connected for so long"},
                                       {0}};
static const struct cmd_group groups[] = {
    {"Connection flags", tool_flags, offsetof(struct dial_opts, conn)},
    {TOOL_COMPAT_TITLE, tool_compat_flags, offsetof(struct dial_opts, compat)},
    {0}};

const struct cmd cmd_server_dial = {
    .name = "dial",
    .help = "try a relay: look-up, TCP connect, handshake, ping",
    .about = "Says how long each phase took, or in which one it failed and why. PK@HOST:PORT needs "
             "no look-up; the address of a PK alone is looked up, and when nobody knows it as a "
             "relay a stream to its port 80 is opened instead, as upstream's command does. PK:PORT "
             "is always a stream.\n\n"
             "Without a running node and without other flags, PK@HOST:PORT is dialled directly "
             "under a fresh key.\n\n"
             "With --json: up, server, address, existing, find_ms, tcp_ms, handshake_ms, ms, "
             "rtt_ms; or phase, reason, exit. Of a stream: up, public_key, port, relay, ms.",
    .args = args,
    .opts = flags,
    .groups = groups,
    .opts_size = sizeof(struct dial_opts),
    .run = run,
};
