#include <stdio.h>

#include "node/cmds.h"
#include "node/tool_compat.h"

struct entry_opts {
    struct tool_opts conn;
    struct tool_compat compat;
    struct pubkey pk;
    bool network;
};

static int get(struct cmdline *cl)
{
    struct entry_opts *o = cl->opts;
    struct tool *t;
    char pk[PUBKEY_HEX + 1];
    json_t *answer = NULL;
    int rc = tool_compat_open(&t, cl, &o->compat, &o->conn, NULL, TOOL_DHT);
    if (rc == 0)
        rc = tool_call(t,
                       json_pack("{s:s, s:s, s:b}", "cmd", "entry.get", "pk",
                                 pubkey_hex(pk, &o->pk), "network", (int)o->network),
                       NULL, NULL, &answer, NULL);
    if (rc == 0 && o->conn.json)
        tool_print(json_incref(answer));
    else if (rc == 0)
        tool_print(json_incref(json_object_get(answer, "entry")));
    json_decref(answer);
    tool_close(t);
    return rc;
}

static int publish(struct cmdline *cl)
{
    struct entry_opts *o = cl->opts;
    struct tool *t;
    json_t *answer = NULL;
    if (o->compat.direct)
        return cmdline_usage_error(cl, "--direct: this command is about the DHT");
    int rc = tool_compat_open(&t, cl, &o->compat, &o->conn, NULL, TOOL_REACHABLE);
    if (rc == 0)
        rc = tool_call(t, json_pack("{s:s}", "cmd", "entry.publish"), NULL, NULL, &answer, NULL);
    if (rc == 0 && o->conn.json)
        tool_print(json_incref(answer));
    else if (rc == 0)
        printf("published with %lld relays, held by %lld peers%s\n", tool_num(answer, "delegated"),
               tool_num(answer, "stored"),
               tool_is_own(t) ? "; it is withdrawn now, with the node of this command" : "");
    json_decref(answer);
    tool_close(t);
    return rc;
}

static const struct cmd_group groups[] = {
    {"Connection flags", tool_flags, offsetof(struct entry_opts, conn)},
    {TOOL_COMPAT_TITLE, tool_compat_flags_dht, offsetof(struct entry_opts, compat)},
    {0}};
static const struct cmd_opt get_args[] = {
    {.name = "PK", CMD_PUBKEY_AT(struct entry_opts, pk), .help = "whose entry"}, {0}};
static const struct cmd_opt get_flags[] = {{.name = "network",
                                            CMD_FLAG_AT(struct entry_opts, network),
                                            .help = "do not answer from cache or store"},
                                           {0}};

static const struct cmd subs[] = {{.name = "get",
                                   .help = "the signed entry of a key, DHT first",
                                   .args = get_args,
                                   .opts = get_flags,
                                   .groups = groups,
                                   .opts_size = sizeof(struct entry_opts),
                                   .run = get},
                                  {.name = "publish",
                                   .help = "publish this node's entry now",
                                   .about = "Without a running node the entry is that of the "
                                            "command's own node, and is withdrawn at its end.",
                                   .groups = groups,
                                   .opts_size = sizeof(struct entry_opts),
                                   .run = publish},
                                  {0}};

const struct cmd cmd_entry = {.name = "entry", .help = "signed dmsg entries", .subs = subs};
