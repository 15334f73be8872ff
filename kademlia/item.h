/*
 * item - the signed, sequenced value that the DHT stores (docs/protocol/dht.md §2).
 *
 * struct item is a view: v and salt point into somebody's memory. struct item_ref is a counted,
 * immutable copy on the heap, one allocation; the engine, look-ups and replies share it (items are
 * interned: a page of 1000 items holds references, not copies). A count belongs to one thread.
 *
 * Kinds (design: foreign items never compete with the owner's)
 *     ITEM_OWNER   k is the subject: target(k, salt) is the slot
 *     ITEM_CERT    signed by somebody else, salt "dmsg", and the value is an entry that certifies
 *                  itself: its own signature verifies and target(static, "dmsg") is the slot.
 *                  Ranked among its kind by the entry's (timestamp, sequence), never by the
 *                  carrier's seq
 *     ITEM_MIRROR  signed by a configured mirror key
 * Readers prefer OWNER over CERT over MIRROR; each kind has a slot of its own under the same
 * target.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/crypto.h"
#include "kademlia/id.h"

#define ITEM_MAX_VALUE 65536
#define ITEM_MAX_SALT  200

enum item_kind { ITEM_OWNER = 0, ITEM_CERT = 1, ITEM_MIRROR = 2, ITEM_KIND__COUNT };

enum item_tier {
    ITEM_TIER_PUBLIC = 0,
    ITEM_TIER_TRUSTED = 1,
    ITEM_TIER_WHITELISTED = 2,
};

struct item {
    struct pubkey k;
    uint64_t seq;
    struct sig sig;
    const uint8_t *v; /* v_len bytes; NULL with v_len 0: the writer had none ("null") */
    size_t v_len;
    const uint8_t *salt;
    size_t salt_len;
};

struct item_ref {
    uint32_t refs;
    struct item item; /* v and salt point behind this struct */
};

/* Size limits only: 0, ERR_TOO_LONG. */
int item_check_size(const struct item *it) __attribute__((warn_unused_result));

/* H(seq u64be | len(v) u32be | v | len(salt) u32be | salt): what is signed (dht.md §2.2). */
void item_digest(struct hash *out, const struct item *it);

/* Own slot of the item: target(k, salt). */
struct kad_id item_target(const struct item *it);

bool item_salt_is(const struct item *it, const char *salt);
/* The bytes are the same in every member. */
bool item_equal(const struct item *a, const struct item *b);

/* Signature check and signing at once, on this thread: tools, tests, store verify. The engine goes
 * through env_pk(). */
int item_verify(const struct item *it) __attribute__((warn_unused_result));
int item_sign(struct item *it, const struct seckey *sk)
    __attribute__((warn_unused_result)); /* k and sig are filled */

/* Counted copy; NULL when out of memory. */
struct item_ref *item_ref_new(const struct item *it);
struct item_ref *item_ref_get(struct item_ref *r);
void item_ref_put(struct item_ref *r); /* NULL is allowed */

/* Why an item was refused, with the text that peers expect on the wire (dht.md §2.3). NULL for
 * errors without one. */
const char *item_error_text(int err, const struct item *it);
