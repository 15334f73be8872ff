/*
 * ctl_commands - the commands of the control socket, by name.
 */
#include "node/node_int.h"

const struct ctl_cmd ctl_commands[] = {
    {"status", ctl_status},
    {"sessions", ctl_sessions},
    {"session", ctl_session},
    {"config", ctl_config},
    {"wait", ctl_wait},
    {"reload", ctl_reload},
    {"dht.get", ctl_dht_get},
    {"dht.put", ctl_dht_put},
    {"dht.lookup", ctl_dht_lookup},
    {"dht.sync", ctl_dht_sync},
    {"dht.list", ctl_dht_list},
    {"dht.peers", ctl_dht_peers},
    {"dht.status", ctl_dht_status},
    {"dht.why", ctl_dht_why},
    {"dht.full", ctl_dht_full},
    {"dht.watch", ctl_dht_watch},
    {"entry.get", ctl_entry_get},
    {"entry.publish", ctl_entry_publish},
    {"dial", ctl_dial},
    {"listen", ctl_listen},
    {"ping", ctl_ping},
    {"ip", ctl_ip},
    {"forward", ctl_forward},
    {"cancel", ctl_cancel},
    {NULL, NULL},
};
