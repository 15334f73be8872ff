/*
 * dht_items - keys and items of tests/vectors/dht.json, and signed items, for the tests of kademlia
 * and store.
 *
 *     json_t *root = vectors_load("dht");
 *     struct item_ref *r = dht_vec_item(json_array_get(vec_get(root, "items_valid"), 0));
 *     item_ref_put(r);
 */
#pragma once

#include "kademlia/item.h"
#include "tests/unit/vectors.h"

/* The pair that the vectors call by this name ("key0" … "key6"); sk may be NULL. */
void dht_key(const json_t *root, const char *name, struct seckey *sk, struct pubkey *pk);

/* A member that is a number or a string of digits up to 2^64-1. */
uint64_t dht_u64(const json_t *obj, const char *key);

/* Item of a vector: k, seq, sig, salt_hex, and v_hex or v_fill with v_len. */
struct item_ref *dht_vec_item(const json_t *v);

/* A signed item; v may be NULL. */
struct item_ref *dht_item(const struct seckey *sk, uint64_t seq, const char *salt, const char *v);
