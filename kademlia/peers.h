/*
 * peers - a table of keys and their 4-byte handles: the struct kad_peers of a host.
 *
 * Handles are counted; a key leaves the table when its last reference goes, and its number is used
 * again. Entries never move. One thread. Limit: max keys (then intern gives KAD_PEER_NONE,
 * counted). About 100 bytes a key. Beside the key it is remembered how the peer can be spoken to, and
 * by which relays it is reached (dht.md §9.4).
 *
 *     struct peers *t = peers_new(env->hash_key, 100000);
 *     struct kad_peers p = peers_ops(t);
 */
#pragma once

#include "kademlia/kad.h"

#define PEERS_JSON_NS (UINT64_C(6) * 3600 * 1000000000) /* then a JSON peer is asked again */

#define PEERS_RELAYS 4 /* of one peer that count */

struct peers;

/* NULL when out of memory. */
struct peers *peers_new(const uint8_t hash_key[16], uint32_t max);
void peers_free(struct peers *t);
struct kad_peers peers_ops(struct peers *t);
/* Gauge and counter. */
size_t peers_len(const struct peers *t);
uint64_t peers_refused(const struct peers *t);

enum kad_dialect peers_dialect(const struct peers *t, kad_peer p, uint64_t now_ns);
void peers_set_dialect(struct peers *t, kad_peer p, enum kad_dialect d, uint64_t now_ns);

/* The relays that lead to a peer, at least one; said: these are those of its entry, which others that were only
 * seen do not replace. */
void peers_set_relays(struct peers *t, kad_peer p, const struct pubkey *relays, size_t n,
                      bool said);
/* Keys of a group's relays, sorted; 0 when it is not known (any more). */
size_t peers_relays(const struct peers *t, uint32_t group, struct pubkey out[PEERS_RELAYS]);
