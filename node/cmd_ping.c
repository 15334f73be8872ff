#include <stdio.h>

#include "node/cmds.h"
#include "node/tool_compat.h"

struct ping_opts {
    struct tool_opts conn;
    struct tool_compat compat;
    struct pubkey pk;
    uint64_t count;
};

static int run(struct cmdline *cl)
{
    struct ping_opts *o = cl->opts;
    struct tool *t;
    char pk[PUBKEY_HEX + 1];
    pubkey_hex(pk, &o->pk);
    int rc = tool_compat_open(&t, cl, &o->compat, &o->conn, NULL, TOOL_SESSION);
    for (uint64_t i = 0; rc == 0 && i < o->count; i++) {
        json_t *answer = NULL;
        json_t *req = json_pack("{s:s, s:s, s:I}", "cmd", "ping", "pk", pk, "timeout_ms",
                                (json_int_t)tool_timeout_ms(t));
        tool_route(t, req);
        rc = tool_call(t, req, NULL, NULL, &answer, NULL);
        if (rc != 0)
            break;
        if (o->conn.json)
            tool_print(json_incref(answer));
        else
            printf("%s: %.2f ms (%s)\n", pk, json_number_value(json_object_get(answer, "rtt_ms")),
                   json_string_value(json_object_get(answer, "via")));
        json_decref(answer);
    }
    tool_close(t);
    return rc;
}

static const struct cmd_opt args[] = {
    {.name = "PK", CMD_PUBKEY_AT(struct ping_opts, pk), .help = "key of a relay or of any node"},
    {0}};
static const struct cmd_opt flags[] = {{.name = "count",
                                        .letter = 'c',
                                        CMD_U64_AT(struct ping_opts, count),
                                        .min = 1,
                                        .max = 1000000,
                                        .def = "1",
                                        .metavar = "N",
                                        .help = "how often"},
                                       {0}};
static const struct cmd_group groups[] = {
    {"Connection flags", tool_flags, offsetof(struct ping_opts, conn)},
    {TOOL_COMPAT_TITLE, tool_compat_flags, offsetof(struct ping_opts, compat)},
    {0}};

const struct cmd cmd_ping = {
    .name = "ping",
    .help = "round trip to a relay (session) or a node (stream set-up)",
    .about = "A relay that there is a session to is pinged in that session. Any other key is "
             "reached by a stream; the time is that of its set-up, one round trip from end to end.",
    .args = args,
    .opts = flags,
    .groups = groups,
    .opts_size = sizeof(struct ping_opts),
    .run = run,
};
