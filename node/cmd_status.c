#include <stdio.h>

#include "node/cmds.h"
#include "node/tool.h"

struct status_opts {
    struct tool_opts conn;
};

static void print_mesh(const json_t *mesh)
{
    size_t i;
    const json_t *p;
    printf("other relays   %lld linked by %lld links, %lld streams, %lld forwarded, %lld failed\n",
           tool_num(mesh, "peers"), tool_num(mesh, "links"), tool_num(mesh, "relayed"),
           tool_num(mesh, "forwarded"), tool_num(mesh, "forward_failed"));
    json_array_foreach(json_object_get(mesh, "known"), i, p)
    {
        const char *err = tool_str(p, "last_error");
        printf("               %s at %s: link %s%s%s\n", tool_str(p, "public_key"),
               tool_str(p, "address"), tool_str(p, "link"), err[0] != '\0' ? ", last error: " : "",
               err);
    }
}

/* What the relay refused, or made wait, since it was started; nothing in a quiet life. */
static void print_limits(const json_t *limits)
{
    static const char *const names[] = {
        "refused_links", "refused_handshakes", "refused_handshakes_address",
        "refused_rate",  "refused_streams",    "refused_sessions_address",
        "refused_key",   "closed_key",         "syn_limited",
        "throttled",     "resets_budget",      "resets_idle",
        "resets_drain",  "sockets_stopped",    "descriptors_exhausted",
        "accept_rests",  "no_buffer",
    };
    const char *before = "limits met    ";
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        long long n = tool_num(limits, names[i]);
        if (n == 0)
            continue;
        printf("%s %s %lld", before, names[i], n);
        before = ",";
    }
    if (before[0] == ',')
        putchar('\n');
}

/* With an HTTP discovery: how far on the way to the DHT, and what went to it. */
static void print_discovery(const json_t *o)
{
    const json_t *http = json_object_get(o, "http"), *push = json_object_get(o, "push");
    if (tool_num(o, "phase") < 4)
        printf(
            "discovery      phase %lld, registering: %s; sent %lld times, %lld failed, seen there "
            "from the DHT %lld times\n",
            tool_num(o, "phase"), tool_str(o, "registering"), tool_num(http, "published"),
            tool_num(http, "publish_failed"), tool_num(http, "seen"));
    if (json_is_object(push))
        printf("pushed there   %lld entries, %lld waiting%s\n", tool_num(push, "pushed"),
               tool_num(push, "waiting"),
               json_is_true(json_object_get(push, "away")) ? ", it does not answer" : "");
}

static void print_text(const json_t *o)
{
    const json_t *l = json_object_get(o, "lookups"), *relay = json_object_get(o, "relay"),
                 *store = json_object_get(o, "store"), *entry = json_object_get(o, "entry");
    printf("public key     %s\n", tool_str(o, "public_key"));
    printf("node id        %s\n", tool_str(o, "node_id"));
    printf("role           %s, up %lld s, %s\n", tool_str(o, "role"), tool_num(o, "uptime_s"),
           tool_str(o, "health"));
    if (json_is_object(relay))
        printf(
            "relay          %s, published as %s: %lld sessions, %lld streams, %lld bytes relayed\n",
            tool_str(relay, "listen"), tool_str(relay, "public_address"),
            tool_num(relay, "sessions"), tool_num(relay, "bridges"), tool_num(relay, "bytes"));
    if (json_is_object(relay))
        print_mesh(json_object_get(relay, "mesh"));
    if (json_is_object(relay))
        print_limits(json_object_get(relay, "limits"));
    printf("sessions       %lld to relays\n", tool_num(o, "sessions_up"));
    printf("routing table  %lld peers\n", tool_num(o, "routing_peers"));
    printf("store          %lld items, %lld bytes (%s)\n", tool_num(o, "stored_items"),
           tool_num(store, "bytes"), tool_str(store, "backend"));
    if (json_is_object(entry))
        printf("entry          published %lld times, held by %lld peers, %lld delegated servers\n",
               tool_num(entry, "times"), tool_num(entry, "stored"), tool_num(entry, "delegated"));
    printf("look-ups       cache %lld, dht %lld, http %lld, miss %lld\n", tool_num(l, "cache"),
           tool_num(l, "dht"), tool_num(l, "http"), tool_num(l, "miss"));
    print_discovery(o);
    printf("version        %s, process %lld\n", tool_str(o, "version"), tool_num(o, "pid"));
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
