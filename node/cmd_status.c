#include <stdio.h>

#include "node/cmds.h"
#include "node/tool.h"

struct status_opts {
    struct tool_opts conn;
};

static const char *str(const json_t *o, const char *name)
{
    const char *s = json_string_value(json_object_get(o, name));
    return s != NULL ? s : "";
}

static long long num(const json_t *o, const char *name)
{
    return (long long)json_number_value(json_object_get(o, name));
}

static void print_text(const json_t *o)
{
    const json_t *l = json_object_get(o, "lookups"), *relay = json_object_get(o, "relay"),
                 *store = json_object_get(o, "store"), *entry = json_object_get(o, "entry");
    printf("public key     %s\n", str(o, "public_key"));
    printf("node id        %s\n", str(o, "node_id"));
    printf("role           %s, up %lld s, %s\n", str(o, "role"), num(o, "uptime_s"),
           str(o, "health"));
    if (json_is_object(relay))
        printf(
            "relay          %s, published as %s: %lld sessions, %lld streams, %lld bytes relayed\n",
            str(relay, "listen"), str(relay, "public_address"), num(relay, "sessions"),
            num(relay, "bridges"), num(relay, "bytes"));
    printf("sessions       %lld to relays\n", num(o, "sessions_up"));
    printf("routing table  %lld peers\n", num(o, "routing_peers"));
    printf("store          %lld items, %lld bytes (%s)\n", num(o, "stored_items"),
           num(store, "bytes"), str(store, "backend"));
    if (json_is_object(entry))
        printf("entry          published %lld times, held by %lld peers, %lld delegated servers\n",
               num(entry, "times"), num(entry, "stored"), num(entry, "delegated"));
    printf("look-ups       cache %lld, dht %lld, http %lld, miss %lld\n", num(l, "cache"),
           num(l, "dht"), num(l, "http"), num(l, "miss"));
    printf("version        %s, process %lld\n", str(o, "version"), num(o, "pid"));
}

static int run(struct cmdline *cl)
{
    const struct status_opts *o = cl->opts;
    struct tool *t;
    json_t *answer = NULL;
    int rc = tool_open(&t, &o->conn, TOOL_NODE);
    if (rc == 0)
        rc = tool_call(t, json_pack("{s:s}", "cmd", "status"), NULL, NULL, &answer, NULL);
    if (rc == 0 && o->conn.json)
        tool_print(json_incref(answer));
    else if (rc == 0)
        print_text(answer);
    json_decref(answer);
    tool_close(t);
    return rc;
}

static const struct cmd_group groups[] = {
    {"Connection flags", tool_flags, offsetof(struct status_opts, conn)}, {0}};

const struct cmd cmd_status = {
    .name = "status",
    .help = "one look at a running node",
    .groups = groups,
    .opts_size = sizeof(struct status_opts),
    .run = run,
};
