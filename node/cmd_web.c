#include "node/cmds.h"

const struct cmd cmd_web = {
    .name = "web",
    .help = "web sites and TCP ports over dmsg",
    .subs = cmd_web_subs,
};
