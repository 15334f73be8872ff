/*
 * mirror_kv - a sink of the mirror: the Redis that Go full nodes load at their start (docs/protocol/dht.md §5.5).
 *
 *     dht:<64 hex digits of the target> = the item as JSON, without a life; what is gone is deleted
 *
 * Sequence numbers are not compared: the service's word is written over what is there, as upstream's mirrors do. A batch is one transaction of at most MIRROR_BATCH
 * commands (incident 71).
 *
 * The store outlives the sink or is closed before; in either case nothing is said to the mirror afterwards. One thread.
 *
 *     rc = mirror_kv_new(&sink, m, kv, "redis");
 */
#pragma once

#include "compat-http/mirror.h"
#include "store/kv.h"

struct mirror_kv;

/* Adds itself to the mirror; name is kept. 0, ERR_NOMEM. */
int mirror_kv_new(struct mirror_kv **out, struct mirror *m, struct kv *kv, const char *name)
    __attribute__((warn_unused_result));
/* No call is under way, or the store was closed. NULL is allowed. */
void mirror_kv_free(struct mirror_kv *s);
