/*
 * id - node IDs, targets and XOR distance (docs/protocol/dht.md §1.1). Pure values, any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/crypto.h"
#include "base/cursor.h"

#define KAD_ID_BYTES 32
#define KAD_ID_HEX   64
#define KAD_ID_BITS  256

struct kad_id {
    uint8_t b[KAD_ID_BYTES];
};

/* H(pk), over the 33 raw bytes. */
struct kad_id kad_id_of(const struct pubkey *pk);
/* target(pk, salt) = H(pk | salt); salt_len <= 200; an empty salt gives the owner's NodeID. */
struct kad_id kad_target(const struct pubkey *pk, const void *salt, size_t salt_len);

/* Tag of a private network's name: the first 8 bytes of H("kadmsg network " | name), never 0; 0 for
 * the default network, which has no name (NULL or ""). */
uint64_t kad_network_tag(const char *name);

bool kad_id_equal(const struct kad_id *a, const struct kad_id *b);
bool kad_id_is_zero(const struct kad_id *a);
int kad_id_cmp(const struct kad_id *a, const struct kad_id *b);

/* Which of a and b is closer to t: <0 a, 0 equal, >0 b. Distance is XOR as a 256-bit big-endian
 * number. */
int kad_id_closer(const struct kad_id *t, const struct kad_id *a, const struct kad_id *b);

/* First 64 bits of the distance: they nearly always tell which of two IDs is closer. */
static inline uint64_t kad_id_distance64(const struct kad_id *a, const struct kad_id *b)
{
    return get_be64(a->b) ^ get_be64(b->b);
}

/* Number of leading zero bits of a XOR b: 0 … 256. */
unsigned kad_id_cpl(const struct kad_id *a, const struct kad_id *b);

/* Bucket of peer in self's table: cpl clamped to 255 (0 = farthest half). */
unsigned kad_id_bucket(const struct kad_id *self, const struct kad_id *peer);

/* 64 lower-case digits and NUL; parse takes exactly 64 digits of any case (ERR_FORMAT). */
char *kad_id_hex(char out[KAD_ID_HEX + 1], const struct kad_id *id);
int kad_id_from_hex(struct kad_id *out, const char *text, size_t n);
