#include <event2/event.h>
#include <sodium.h>
#include <stdio.h>

#include "base/version.h"
#include "node/cmds.h"
#include "node/tool.h"

struct version_opts {
    bool json;
};

static const struct cmd_opt flags[] = {
    {.name = "json", CMD_FLAG_AT(struct version_opts, json), .help = "print JSON"}, {0}};

static int run(struct cmdline *cl)
{
    const struct version_opts *o = cl->opts;
    if (o->json)
        tool_print(json_pack("{s:s, s:s, s:s}", "version", version_str(), "libevent",
                             event_get_version(), "libsodium", sodium_version_string()));
    else
        printf("kadmsg %s (libevent %s, libsodium %s)\n", version_str(), event_get_version(),
               sodium_version_string());
    return 0;
}

const struct cmd cmd_version = {
    .name = "version",
    .help = "print the version",
    .opts = flags,
    .opts_size = sizeof(struct version_opts),
    .run = run,
};
