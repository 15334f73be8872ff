/*
 * mirror_tpd - the transports of a transport discovery in the DHT, and back (docs/protocol/dht.md §5.4).
 *
 *     mirror_tpd_changed()  a key's set is another one  -> its whole list, in chunks
 *     mirror_tpd_all()      everything, MIRROR_TPD_STEP keys a turn: at the start, after a loss, and once an hour, since items end in the DHT
 *     mirror_tpd_take()     a list of the DHT           -> what the discovery lacks of it
 *
 * Transports from a key to itself are left out. A discovery that knows nothing of a key says nothing about it: only changed() deletes (incident 70).
 *
 * The discovery and the mirror outlive it. One thread, the loop's.
 */
#pragma once

#include "compat-http/mirror.h"
#include "compat-http/tpd_service.h"

#define MIRROR_TPD_STEP     64
#define MIRROR_TPD_EVERY_NS (MIRROR_REFRESH_NS + 60 * NS_PER_S)

struct mirror_tpd;

struct mirror_tpd_stat {
    uint64_t walks, keys, taken;
};

/* NULL: no memory. */
struct mirror_tpd *mirror_tpd_new(struct mirror *m, struct tpd_service *t, struct loop *loop);
/* NULL is allowed. */
void mirror_tpd_free(struct mirror_tpd *w);
void mirror_tpd_changed(struct mirror_tpd *w, const struct pubkey *pk);
void mirror_tpd_all(struct mirror_tpd *w);
/* A value of salt "tp" that the subject published itself, or (NULL) that was mirrored by us. How many transports of it were new. */
size_t mirror_tpd_take(struct mirror_tpd *w, const struct pubkey *subject, const void *v, size_t n);
void mirror_tpd_stat(const struct mirror_tpd *w, struct mirror_tpd_stat *out);
