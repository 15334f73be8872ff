#include "node/cmds.h"

const struct cmd *cmds_root(void)
{
    /* The commands are described where they are written, and put together here once. */
    static struct cmd commands[48], server_subs[8],
        server = {.name = "server",
                  .help = "relays, as upstream's server command has them",
                  .subs = server_subs},
        root = {
            .name = "kadmsg",
            .help = "a DHT-first peer-to-peer node that speaks dmsg",
            .about = "kadmsg runs relays and nodes of a network that finds itself by a distributed "
                     "hash table, and the tools to use it.",
            .subs = commands,
        };
    static const struct cmd *const all[] = {
        &cmd_node,   &cmd_keys,   &cmd_conf, &cmd_dht,        &cmd_entry,   &cmd_store,
        &cmd_status, &cmd_reload, &cmd_ping, &cmd_self_ping,  &cmd_ip,      &server,
        &cmd_nc,     &cmd_iperf,  &cmd_curl, &cmd_http,       &cmd_socks,   &cmd_web,
        &cmd_disc,   &cmd_tpd,    &cmd_sim,  &cmd_completion, &cmd_version, &cmd_man,
    };
    static const struct cmd *const of_server[] = {
        &cmd_server_config,
        &cmd_server_start,
        &cmd_server_dial,
    };
    _Static_assert(sizeof(all) / sizeof(all[0]) < sizeof(commands) / sizeof(commands[0]) &&
                       sizeof(of_server) / sizeof(of_server[0]) <
                           sizeof(server_subs) / sizeof(server_subs[0]),
                   "the last one stays empty");
    for (size_t i = 0; i < sizeof(of_server) / sizeof(of_server[0]); i++)
        server_subs[i] = *of_server[i];
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        commands[i] = *all[i];
    return &root;
}
