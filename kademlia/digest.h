/*
 * digest - sums over the items of a store by ranges of their targets, to find out cheaply where two
 * full nodes differ.
 *
 * A range is a prefix of targets of 0, 4, 8, 12 or 16 bits. Its digest is the number of items in it
 * and the sum, modulo 2^128, of the first half of SHA-256(target | kind | rank): whatever order items
 * were added in, equal sets have equal digests, and single items can be added and taken away. What an
 * item says is not in it, only which version of it is there.
 *
 * Whoever may publish many items at will could make up two sets of equal sums (the generalised birthday
 * problem over 2^128 needs millions of items for that); what is won is that full nodes do not notice a
 * difference in these items before their next pull by pages. Never used as a proof of anything.
 *
 * Memory: DIGEST_LEAVES * 24 bytes, 1.5 MiB. One thread.
 *
 *     struct digest *d = digest_new();
 *     digest_add(d, &entry);
 *     struct digest_part p = digest_range(d, 4, 0xa);   // targets that begin with the digit a
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kademlia/item.h"

#define DIGEST_BITS   16 /* of the smallest range */
#define DIGEST_LEAVES (1u << DIGEST_BITS)
#define DIGEST_BYTES  16

/* One item as far as two stores can differ in it. */
struct digest_entry {
    struct kad_id target;
    enum item_kind kind;
    uint64_t rank[2]; /* owner's and mirror's: 0, seq; carried entries: time, sequence */
};

struct digest_part {
    uint32_t count;
    uint8_t sum[DIGEST_BYTES];
};

struct digest;

struct digest *digest_new(void); /* empty; NULL when out of memory */
struct digest *digest_copy(const struct digest *d);
void digest_free(struct digest *d);
void digest_add(struct digest *d, const struct digest_entry *e);
void digest_del(struct digest *d, const struct digest_entry *e);
/* Take all items of a leaf away, 0 <= leaf < DIGEST_LEAVES. */
void digest_clear(struct digest *d, unsigned leaf);
uint64_t digest_items(const struct digest *d);

/* bits is 0, 4, 8, 12 or 16; prefix < 2^bits. */
struct digest_part digest_range(const struct digest *d, unsigned bits, unsigned prefix);
bool digest_part_equal(const struct digest_part *a, const struct digest_part *b);

/* First so many bits of a target as a number. */
static inline unsigned digest_prefix(const struct kad_id *target, unsigned bits)
{
    return ((unsigned)target->b[0] << 8 | target->b[1]) >> (DIGEST_BITS - bits);
}

/* Which of two versions of one target readers prefer: <0 the first, >0 the second, 0 the same. */
int digest_entry_cmp(const struct digest_entry *a, const struct digest_entry *b);
