#include "node/cmds.h"
#include "node/manpage.h"

struct man_opts {
    const char *dir;
};

static int run(struct cmdline *cl)
{
    const struct man_opts *o = cl->opts;
    return manpage_write_all(cmds_root(), o->dir);
}

static const struct cmd_opt args[] = {
    {.name = "DIR", CMD_STR_AT(struct man_opts, dir), .help = "directory that exists"}, {0}};

const struct cmd cmd_man = {
    .name = "man",
    .help = "write the manual pages",
    .args = args,
    .opts_size = sizeof(struct man_opts),
    .run = run,
    .hidden = true,
};
