/*
 * policy - what a node does with the DHT and with an HTTP discovery: the phases of the way from one to the other (docs/mirrors.md, docs/protocol/dht.md §6.3).
 *
 *     --mode      phase  look-ups    own entry                                          relays push entries back
 *     http        1      HTTP        HTTP                                               no
 *     hybrid      2      DHT, HTTP   DHT, HTTP                                          yes
 *     dht-first   3      DHT, HTTP   DHT; HTTP only while it is not seen to come there  yes
 *     dht         4      DHT         DHT                                                no
 *
 * --lookup, --register and --push change one column. Without --discovery there is only the DHT.
 *
 *     struct node_policy p = node_policy_of(&n->cfg);
 */
#pragma once

#include "node/node.h"

enum node_registers { NODE_REGISTERS_NEVER, NODE_REGISTERS_UNSEEN, NODE_REGISTERS_ALWAYS };

struct node_policy {
    unsigned phase; /* 1 … 4 */
    bool ask_dht, ask_http;
    bool publish_dht;
    enum node_registers registers; /* with the discovery */
    bool push;                     /* entries of others to the discovery */
};

struct node_policy node_policy_of(const struct node_cfg *cfg);
/* Is the discovery used at all? */
bool node_policy_uses_http(const struct node_policy *p);
/* What contradicts itself in the settings, as a text for the user; NULL: nothing. */
const char *node_policy_wrong(const struct node_cfg *cfg);
