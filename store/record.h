/*
 * record - how the LMDB store writes one record, and the keys under which its indexes find it.
 *
 * Value in `records`:   8 bytes check sum | MessagePack array
 *     The sum is over key and array: it finds damaged bytes, not forgeries (each item carries a signature for
 * that). The array is
 *         key and signature 33 + 65 | seq | v | salt | stored_ns | state | life
 *     and, unless the item counts against its own key and has no rank of its own,
 *         charged 33 | rank_time | rank_seq
 *     state: tier in bits 0 and 1, origin in bits 2 and 3; bit 4: life is ms from stored_ns, else it is
 *     expires_ns. A newer program may append members, which are skipped. Bytes are pre-scanned before
 *     msgpack-c sees them.
 *
 * Keys, compared as byte strings; numbers are big-endian, signed times with the sign bit flipped
 *     slots          target 32 | kind 1
 *     IX_EXPIRY      expires 8 | ref                       not for records that never expire
 *     IX_STORED      0 cache, 1 replica | stored 8 | ref   public tier, not the node's own: victims
 *     IX_SEQ         seq 8 | ref                           listing over all salts
 *     IX_SALT_SEQ    salt length 1 | salt | seq 8 | ref    listing of one salt
 *     A ref is the first 16 bytes of the target and the kind: shorter than the key, in the same
 * order, and two targets that share it cost 2^64 hashes to find.
 *
 * Pure functions, any thread. Views: a decoded record points into the bytes that were decoded.
 * Errors: ERR_CORRUPT for whatever cannot have been written by record_encode().
 *
 *     uint8_t key[RECORD_KEY_BYTES];
 *     record_key(key, &rec.target, rec.kind);
 *     n = record_encode(buf, &rec);
 *     rc = record_decode(&rec2, key, buf, n);
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kademlia/store_if.h"

#define RECORD_FIELDS     7
#define RECORD_FIELDS_ALL 10
#define RECORD_KEY_BYTES  33
#define RECORD_REF_BYTES  17
#define RECORD_SUM_BYTES  8

/* Room that any record fits in. */
#define RECORD_HEAD_MAX  256
#define RECORD_MAX_BYTES (RECORD_HEAD_MAX + ITEM_MAX_VALUE + ITEM_MAX_SALT)

enum record_index { IX_EXPIRY, IX_STORED, IX_SEQ, IX_SALT_SEQ, IX__COUNT };

/* Longest key of an index, and of all indexes together. */
#define RECORD_INDEX_KEY_MAX (1 + ITEM_MAX_SALT + 8 + RECORD_REF_BYTES)

void record_key(uint8_t out[RECORD_KEY_BYTES], const struct kad_id *target, enum item_kind kind);
void record_ref(uint8_t out[RECORD_REF_BYTES], const struct kad_id *target, enum item_kind kind);

/* The ref at the end of an index key, and a time at its place. */
const uint8_t *record_index_ref(const void *key, size_t n);

/* Key of a record in an index; returns its length, 0 when the record is not in that index. */
size_t record_index_key(uint8_t out[RECORD_INDEX_KEY_MAX], enum record_index ix,
                        const struct store_rec *rec);

/* First key of a listing behind since_seq < UINT64_MAX; salt NULL: key of IX_SEQ, else of
 * IX_SALT_SEQ. *prefix_len bytes of it are shared by all keys of the listing. */
size_t record_list_key(uint8_t out[RECORD_INDEX_KEY_MAX], const void *salt, size_t salt_len,
                       uint64_t since_seq, size_t *prefix_len);

/* Last key with expires_ns <= wall_ns is below this one. */
size_t record_expiry_bound(uint8_t out[RECORD_INDEX_KEY_MAX], int64_t wall_ns);

/* What a record counts in every budget. */
uint64_t record_charge(const struct store_rec *rec);

/* Is `rec` newer than `old` by the order of its kind (store_if.h put)? */
bool record_newer(const struct store_rec *rec, const struct store_rec *old);

/* Sum and array into out, which has room for RECORD_HEAD_MAX + v_len + salt_len bytes. Returns the
 * length. */
size_t record_encode(uint8_t *out, const struct store_rec *rec);

/* Check the sum, then parse. ERR_CORRUPT, ERR_NOMEM. *out is defined on 0 only. */
int record_decode(struct store_rec *out, const uint8_t key[RECORD_KEY_BYTES], const void *p,
                  size_t n) __attribute__((warn_unused_result));

/* The array alone, without a sum: the part that meets hostile bytes in tests. target and kind of
 * *out are left alone. */
int record_parse(struct store_rec *out, const void *p, size_t n)
    __attribute__((warn_unused_result));

/* Sum over a key of any length and a value that is no record: SipHash. */
uint64_t record_sum(const void *key, size_t key_len, const void *p, size_t n);
