#include <stdio.h>

#include "node/cmds.h"
#include "node/tool.h"

struct reload_opts {
    struct tool_opts conn;
};

static int run(struct cmdline *cl)
{
    const struct reload_opts *o = cl->opts;
    struct tool *t;
    json_t *answer = NULL;
    int rc = tool_open(&t, &o->conn, TOOL_NODE);
    if (rc == 0)
        rc = tool_call(t, json_pack("{s:s}", "cmd", "reload"), NULL, NULL, &answer, NULL);
    if (rc == 0 && o->conn.json)
        tool_print(json_incref(answer));
    else if (rc == 0)
        printf("reloaded: %lld keys allowed, %lld denied\n", tool_num(answer, "allowed"),
               tool_num(answer, "denied"));
    json_decref(answer);
    tool_close(t);
    return rc;
}

static const struct cmd_group groups[] = {
    {"Connection flags", tool_flags, offsetof(struct reload_opts, conn)}, {0}};

const struct cmd cmd_reload = {
    .name = "reload",
    .help = "let a running node read its files again",
    .about = "As SIGHUP does: log-level of the configuration file, and the files of --allow-keys "
             "and --deny-keys. Sessions to the relay of keys that may not come in any more are "
             "closed. A file that cannot be read changes nothing, and the command fails.",
    .groups = groups,
    .opts_size = sizeof(struct reload_opts),
    .run = run,
};
