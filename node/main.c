/*
 * kadmsg - the program: picks the command and runs it.
 */
#include <stdio.h>

#include "base/crypto.h"
#include "base/log.h"
#include "node/cmds.h"

int main(int argc, char **argv)
{
    if (crypto_init() < 0) {
        fputs("kadmsg: out of memory\n", stderr);
        return 1;
    }
    log_set_format(log_format_for_stderr());
    /* The table of the commands; each is described where it is written. */
    const struct cmd commands[] = {cmd_node, cmd_keys, cmd_dht,   cmd_entry,   cmd_status,
                                   cmd_ping, cmd_nc,   cmd_store, cmd_version, {.name = NULL}};
    const struct cmd root = {
        .name = "kadmsg",
        .help = "a DHT-first peer-to-peer node that speaks dmsg",
        .about = "kadmsg runs relays and nodes of a network that finds itself by a distributed "
                 "hash table, and the tools to use it.",
        .subs = commands,
    };
    return cmdline_main(&root, argc, argv);
}
