/*
 * fullnode - the advert of a full node, salt "fullnode" (docs/protocol/dht.md §4, §5.3):
 *
 *     {"pk":KEY,"stored_items":N,"full_node":true,"ts":NS}
 *
 * Whoever signs it says it of its own key; a reader believes it for FULLNODE_FRESH_NS. The tombstone
 * is `{}`, which decodes to full_node = false.
 *
 * Pure, values only, any thread. Errors: ERR_FORMAT; encoding: ERR_TOO_LONG.
 *
 *     struct fullnode_rec rec;
 *     if (fullnode_decode(&rec, it->v, it->v_len) == 0 &&
 *         fullnode_check(&rec, &it->k, env_wall_ns(env)) == 0)
 *         use(&rec.pk);
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/crypto.h"

#define FULLNODE_FRESH_NS INT64_C(1800000000000)
#define FULLNODE_MAX_TEXT 192

struct fullnode_rec {
    struct pubkey pk; /* null: not said */
    uint64_t stored_items;
    bool full_node;
    int64_t ts; /* wall clock of the signer, ns since 1970 */
};

int fullnode_decode(struct fullnode_rec *out, const void *v, size_t n)
    __attribute__((warn_unused_result));
int fullnode_encode(char *out, size_t cap, size_t *n, const struct fullnode_rec *rec)
    __attribute__((warn_unused_result));
/* Is it the subject's own and not stale? 0, ERR_NOT_FOUND (a tombstone), ERR_REFUSED (of somebody
 * else), ERR_TIMEOUT (older than half an hour, or so far ahead). */
int fullnode_check(const struct fullnode_rec *rec, const struct pubkey *subject, int64_t wall_ns)
    __attribute__((warn_unused_result));
