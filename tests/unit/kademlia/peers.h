/*
 * peers - a small table of peers behind struct kad_peers, for tests. References are counted, and
 * peers_close() fails the test when one is left.
 *
 *     struct peers p;
 *     peers_init(&p);
 *     kad_peer a = peers_add(&p, &pk);         // real key
 *     kad_peer b = peers_add_id(&p, &id);      // made-up key with this very ID
 *     table_init(&t, &self, &p.ops, 20, 0);
 *     ...
 *     peers_close(&p);
 */
#pragma once

#include "kademlia/kad.h"

struct peers_one {
    struct pubkey pk;
    struct kad_id id;
    unsigned refs;
    uint32_t group;
};

struct peers {
    struct kad_peers ops;
    struct peers_one **list; /* each stays where it is: engines keep pointers to keys for a while */
    size_t n, cap;
    uint32_t *index; /* by key, open addressing: number + 1 */
    size_t index_cap;
};

void peers_init(struct peers *p);
void peers_close(struct peers *p);

/* Without a reference. The same key twice is the same peer. */
kad_peer peers_add(struct peers *p, const struct pubkey *pk);
kad_peer peers_add_id(struct peers *p, const struct kad_id *id);

/* Behind which relays it is; KAD_GROUP_NONE at first. */
void peers_set_group(struct peers *p, kad_peer peer, uint32_t group);

/* All references to all peers. */
size_t peers_refs(const struct peers *p);
