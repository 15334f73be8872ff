/*
 * memory - the item store in memory, behind kademlia/store_if.h.
 *
 * For nodes without a directory, for tests, and for the simulator, which runs very many of them in
 * one process. A record costs about 100 bytes beside its item, and the item itself is a reference
 * when the caller has a counted copy (store_rec.ref): nodes that hold the same item share its
 * bytes. A new store is one small allocation.
 *
 * Indexes are sorted arrays of 4-byte record numbers: looking up is a binary search, inserting
 * moves on average half of an array of 4 bytes a record. That is cheap to some 100 000 records, and
 * every order is a function of the contents alone. A node with more keeps them on disk.
 *
 * Nothing is durable: sync() has nothing to wait for, close() forgets everything.
 *
 * Owner: whoever called store_memory_new(), until ops->close(). One thread; counted items that are
 * shared tie all stores that share them to that thread. Callbacks of list() and scan() must not
 * change the store (assert).
 *
 * Limits: budget_bytes counts v + salt + STORE_RECORD_OVERHEAD a record, also for shared items;
 * 64 meta values. Errors as in store_if.h; ERR_NOMEM leaves the store as it was.
 *
 *     struct store *s;
 *     if (store_memory_new(&s, 64 << 20) == 0) {
 *         rc = s->ops->put(s, &rec);
 *         s->ops->close(s);
 *     }
 */
#pragma once

#include "kademlia/store_if.h"

#define STORE_MEMORY_MAX_META 64

/* budget_bytes 0 = none. 0 or ERR_NOMEM. */
int store_memory_new(struct store **out, uint64_t budget_bytes) __attribute__((warn_unused_result));
