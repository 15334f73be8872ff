#include "node/cmds.h"

const struct cmd *cmds_root(void)
{
    /* The commands are described where they are written, and put together here once. */
    static struct cmd commands[32],
        root = {
            .name = "kadmsg",
            .help = "a DHT-first peer-to-peer node that speaks dmsg",
            .about = "kadmsg runs relays and nodes of a network that finds itself by a distributed "
                     "hash table, and the tools to use it.",
            .subs = commands,
        };
    static const struct cmd *const all[] = {&cmd_node,  &cmd_keys,   &cmd_dht,     &cmd_entry,
                                            &cmd_store, &cmd_status, &cmd_reload,  &cmd_ping,
                                            &cmd_nc,    &cmd_curl,   &cmd_http,    &cmd_socks,
                                            &cmd_web,   &cmd_sim,    &cmd_version, &cmd_man};
    _Static_assert(sizeof(all) / sizeof(all[0]) < sizeof(commands) / sizeof(commands[0]),
                   "the last one stays empty");
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        commands[i] = *all[i];
    return &root;
}
