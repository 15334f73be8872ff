/*
 * cmds - the commands of the program: one cmd_*.c each, which fills in its own struct cmd; cmds.c
 * puts them into the list.
 */
#pragma once

#include "base/cmdline.h"

extern const struct cmd cmd_man, cmd_keys, cmd_node, cmd_status, cmd_dht, cmd_entry, cmd_nc,
    cmd_ping, cmd_reload, cmd_store, cmd_version, cmd_http, cmd_curl, cmd_socks, cmd_web, cmd_sim,
    cmd_ip, cmd_self_ping, cmd_conf, cmd_iperf, cmd_completion, cmd_disc, cmd_tpd;
/* Below `web`. */
extern const struct cmd cmd_web_subs[];
/* Below `server`, which cmds.c puts together. */
extern const struct cmd cmd_server_config, cmd_server_start, cmd_server_dial;

/* The whole program. Before threads are started. */
const struct cmd *cmds_root(void);
