/*
 * mirror_disc - everything that a dmsg discovery's store holds, offered to its mirror: at the start, and once an hour (docs/protocol/dht.md §5.4 "backfill").
 *
 * Reads the sets of servers and clients and their entries, MIRROR_DISC_CHUNK at a time with a pause between (incident 71). What is in the DHT and not in the store is left
 * alone: a store that was lost or is only half there says nothing about who is gone (incident 70). The hourly walk is for entries that nobody registers anew,
 * which would else end in the DHT after its lifetime; entries that did not change since the last one are not signed or written more often than that.
 *
 * The store outlives it or is closed before. One thread, the loop's.
 *
 *     w = mirror_disc_new(m, kv, loop);
 */
#pragma once

#include "compat-http/mirror.h"
#include "store/kv.h"

#define MIRROR_DISC_CHUNK    256
#define MIRROR_DISC_EVERY_NS (MIRROR_REFRESH_NS + 60 * NS_PER_S)

struct mirror_disc;

struct mirror_disc_stat {
    uint64_t walks, entries, failed;
    bool complete; /* the last walk read everything */
};

/* NULL: no memory. The first walk begins at once. */
struct mirror_disc *mirror_disc_new(struct mirror *m, struct kv *kv, struct loop *loop);
/* Everything anew, from now. */
void mirror_disc_again(struct mirror_disc *w);
/* No call is under way, or the store was closed. NULL is allowed. */
void mirror_disc_free(struct mirror_disc *w);
void mirror_disc_stat(const struct mirror_disc *w, struct mirror_disc_stat *out);
