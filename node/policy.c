#include "node/policy.h"

#include <stddef.h>

static enum node_mode mode_of(const struct node_cfg *cfg)
{
    if (cfg->mode != NODE_MODE_AUTO)
        return cfg->mode;
    return cfg->discovery != NULL ? NODE_MODE_HYBRID : NODE_MODE_DHT;
}

static struct node_policy policy_of_mode(enum node_mode mode, bool serves)
{
    switch (mode) {
    case NODE_MODE_HTTP:
        return (struct node_policy){
            .phase = 1, .ask_http = true, .registers = NODE_REGISTERS_ALWAYS};
    case NODE_MODE_HYBRID:
    case NODE_MODE_DHT_FIRST:
        return (struct node_policy){.phase = mode == NODE_MODE_HYBRID ? 2 : 3,
                                    .ask_dht = true,
                                    .ask_http = true,
                                    .publish_dht = true,
                                    .registers = mode == NODE_MODE_HYBRID ? NODE_REGISTERS_ALWAYS
                                                                          : NODE_REGISTERS_UNSEEN,
                                    .push = serves};
    case NODE_MODE_AUTO:
    case NODE_MODE_DHT:
        break;
    }
    return (struct node_policy){.phase = 4, .ask_dht = true, .publish_dht = true};
}

struct node_policy node_policy_of(const struct node_cfg *cfg)
{
    bool relay = cfg->listen != NULL;
    struct node_policy p = policy_of_mode(mode_of(cfg), relay || cfg->full);
    if (cfg->lookup != NODE_LOOKUP_AUTO) {
        p.ask_dht = cfg->lookup != NODE_LOOKUP_HTTP;
        p.ask_http = cfg->lookup != NODE_LOOKUP_DHT;
    }
    if (cfg->registration != NODE_REGISTER_AUTO)
        p.registers = cfg->registration == NODE_REGISTER_ALWAYS   ? NODE_REGISTERS_ALWAYS
                      : cfg->registration == NODE_REGISTER_UNSEEN ? NODE_REGISTERS_UNSEEN
                                                                  : NODE_REGISTERS_NEVER;
    if (cfg->push != NODE_PUSH_AUTO)
        p.push = cfg->push == NODE_PUSH_ON;
    /* A relay's entry lives for two minutes only in a discovery, and others begin with it. */
    if (relay && p.registers == NODE_REGISTERS_UNSEEN)
        p.registers = NODE_REGISTERS_ALWAYS;
    if (cfg->discovery == NULL) {
        p.ask_http = p.push = false;
        p.registers = NODE_REGISTERS_NEVER;
    }
    return p;
}

bool node_policy_uses_http(const struct node_policy *p)
{
    return p->ask_http || p->push || p->registers != NODE_REGISTERS_NEVER;
}

const char *node_policy_wrong(const struct node_cfg *cfg)
{
    bool needs = cfg->mode == NODE_MODE_HTTP || cfg->mode == NODE_MODE_HYBRID ||
                 cfg->mode == NODE_MODE_DHT_FIRST;
    if (needs && cfg->discovery == NULL)
        return "--mode http, hybrid and dht-first need --discovery";
    if (cfg->discovery == NULL &&
        (cfg->lookup == NODE_LOOKUP_HTTP || cfg->lookup == NODE_LOOKUP_HYBRID ||
         cfg->registration == NODE_REGISTER_ALWAYS || cfg->registration == NODE_REGISTER_UNSEEN ||
         cfg->push == NODE_PUSH_ON))
        return "--lookup, --register and --push need --discovery";
    if (cfg->mode == NODE_MODE_HTTP && cfg->registration == NODE_REGISTER_UNSEEN)
        return "--register unseen needs the DHT: not with --mode http";
    return NULL;
}
