/*
 * peers - a table of keys and their 4-byte handles: the struct kad_peers of a host.
 *
 * Handles are counted; a key leaves the table when its last reference goes, and its number is used
 * again. Entries never move. One thread. Limit: max keys (then intern gives KAD_PEER_NONE,
 * counted). About 90 bytes a key.
 *
 *     struct peers *t = peers_new(env->hash_key, 100000);
 *     struct kad_peers p = peers_ops(t);
 */
#pragma once

#include "kademlia/kad.h"

struct peers;

/* NULL when out of memory. */
struct peers *peers_new(const uint8_t hash_key[16], uint32_t max);
void peers_free(struct peers *t);
struct kad_peers peers_ops(struct peers *t);
/* Gauge and counter. */
size_t peers_len(const struct peers *t);
uint64_t peers_refused(const struct peers *t);
