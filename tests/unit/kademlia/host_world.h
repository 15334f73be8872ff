/*
 * host_world - hosts of DHT engines over clients and relays in memory (client_world.h), for tests.
 *
 * Node i is client i of the world with a memory store and an engine of its own; every node is
 * joined to relay 0 unless told otherwise. Time is virtual.
 *
 *     struct host_world hw;
 *     host_world_init(&hw);
 *     world_relay_start(&hw.w, 0);
 *     hw_start(&hw, 0, NULL);                 // full node, alone
 *     hw_start(&hw, 1, &hw.w.client[0].key.pk);
 *     uint32_t op = kad_ping(...);  host_kick(hw.node[1].h);  hw_wait(&hw, 1, op);
 */
#pragma once

#include "kademlia/host.h"
#include "tests/unit/transport/client_world.h"

struct hw_node {
    struct host_world *hw;
    int i;
    struct host *h;
    struct store *store;
    bool json_only; /* set before it is started: a peer of the Go builds, as far as one can see */
    const char *network; /* the same: its private network */
    unsigned max_dialled;
    /* the last report of an operation that was asked for */
    uint32_t op;
    int err;
    unsigned stored, asked, reports;
    enum kad_source source;
    char value[128];
    unsigned accepted; /* calls of the stored hook */
    /* optional: sees every report first; true = it was his */
    bool (*take)(void *arg, const struct kad_report *r);
    void *arg;
};

struct host_world {
    struct world w;
    struct hw_node node[WORLD_CLIENTS];
};

void host_world_init(struct host_world *hw);
void host_world_free(struct host_world *hw);
/* Node i, a full one, with this bootstrap key (NULL = none). cfg NULL: the world's. */
void hw_start(struct host_world *hw, int i, const struct pubkey *bootstrap,
              const struct client_cfg *cfg);
void hw_stop(struct host_world *hw, int i);
/* Until the operation is reported; its error. */
int hw_wait(struct host_world *hw, int i, uint32_t op);
int hw_get(struct host_world *hw, int i, const struct pubkey *pk, const char *salt, unsigned flags);
int hw_put(struct host_world *hw, int i, const char *salt, const char *value);
/* Until node i has n contacts. */
void hw_peers(struct host_world *hw, int i, size_t n);
struct kad *hw_kad(struct host_world *hw, int i);
