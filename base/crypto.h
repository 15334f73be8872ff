/*
 * crypto - keys, ECDH, signatures, hash, HKDF and AEAD exactly as the peers compute them.
 *
 * Thin over libsecp256k1 and libsodium. Everything here is synchronous and pure; protocol cores do
 * not call the public-key functions themselves but ask for them through env.h, so that they may run
 * elsewhere. Outputs come first, inputs after. Values are fixed-size structs that may be copied; a
 * struct seckey is wiped by its owner with seckey_wipe().
 *
 * crypto_init() is called once, before any other function and before threads start; afterwards
 * every function may be used from any thread. One secp256k1 context exists, randomised at start.
 *
 * There is ONE signature check in the program, crypto_verify(): recovery id 0..3, top bit of s
 * clear, recovery succeeds and gives the expected key (docs/protocol/dmsg.md §1.3). A plain ECDSA
 * verify differs on high-s signatures and would split the network.
 *
 *     struct seckey sk; struct pubkey pk; struct sig sig;
 *     crypto_keypair(&sk, &pk, seed32);
 *     crypto_sign_msg(&sig, &sk, msg, len);
 *     assert(crypto_verify(&pk, &sig, msg, len) == 0);
 *     seckey_wipe(&sk);
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define PUBKEY_BYTES   33
#define PUBKEY_HEX     66
#define SECKEY_BYTES   32
#define SIG_BYTES      65
#define SIG_HEX        130
#define HASH_BYTES     32
#define AEAD_KEY_BYTES 32
#define AEAD_TAG_BYTES 16

struct pubkey {
    uint8_t b[PUBKEY_BYTES]; /* compressed point, or 33 zero bytes: the null key */
};
struct seckey {
    uint8_t b[SECKEY_BYTES]; /* big-endian scalar, 1 … n-1 */
};
struct sig {
    uint8_t b[SIG_BYTES]; /* r(32) | s(32) | recovery id(1) */
};
struct hash {
    uint8_t b[HASH_BYTES];
};

_Static_assert(sizeof(struct pubkey) == PUBKEY_BYTES, "keys go on the wire as they are");
_Static_assert(sizeof(struct sig) == SIG_BYTES, "signatures go on the wire as they are");

/* Set up libsodium and the secp256k1 context. Idempotent. 0 or ERR_NOMEM. */
int crypto_init(void) __attribute__((warn_unused_result));

/* ---- keys (docs/protocol/dmsg.md §1.1) ---- */

bool pubkey_is_null(const struct pubkey *pk);
bool pubkey_equal(const struct pubkey *a, const struct pubkey *b);
int pubkey_cmp(const struct pubkey *a, const struct pubkey *b); /* as 33-byte strings; <0, 0, >0 */

/* 0 when the 33 bytes are a point of the curve (x >= p refused), else ERR_KEY. The null key is
 * ERR_KEY too. */
int pubkey_check(const struct pubkey *pk) __attribute__((warn_unused_result));

/* Text of exactly 66 hex digits, any case, valid point; else ERR_KEY. n is the text's length. For
 * command lines and files. */
int pubkey_from_hex(struct pubkey *out, const char *text, size_t n)
    __attribute__((warn_unused_result));

/* The peers' JSON rule: as above, but a text made only of '0' (any length, also empty) is the null
 * key. */
int pubkey_from_json_text(struct pubkey *out, const char *text, size_t n)
    __attribute__((warn_unused_result));

/* 66 lower-case digits and a NUL. Returns out. */
char *pubkey_hex(char out[PUBKEY_HEX + 1], const struct pubkey *pk);

/* First 8 digits and a NUL: the short form for logs. Returns out. */
char *pubkey_short(char out[9], const struct pubkey *pk);

int seckey_check(const struct seckey *sk) __attribute__((warn_unused_result)); /* 0 or ERR_KEY */
int seckey_from_hex(struct seckey *out, const char *text, size_t n)
    __attribute__((warn_unused_result));
int seckey_pubkey(struct pubkey *out, const struct seckey *sk) __attribute__((warn_unused_result));
void seckey_wipe(struct seckey *sk);

/* Key pair from 32 uniformly random bytes: ERR_KEY (probability 2^-128) when they are no scalar;
 * draw again then. */
int crypto_keypair(struct seckey *sk, struct pubkey *pk, const uint8_t random32[32])
    __attribute__((warn_unused_result));

/* Deterministic pair from a seed text, as the peers' tools do (docs/protocol/dmsg.md §1.1 "mix").
 * For tools and tests. */
int crypto_keypair_from_seed(struct seckey *sk, struct pubkey *pk, const uint8_t *seed, size_t n);

/* ---- public-key operations (normally reached through env_pk()) ---- */

/* out = SHA-256(compressed(sk · pk)), docs/protocol/dmsg.md §1.2. ERR_KEY for an invalid point or
 * scalar. */
int crypto_ecdh(uint8_t out[32], const struct seckey *sk, const struct pubkey *pk)
    __attribute__((warn_unused_result));

/* Sign SHA-256(msg), or a ready digest. Low s, RFC 6979 nonce. ERR_KEY; an all-zero digest is
 * refused with ERR_SIG. */
int crypto_sign_msg(struct sig *out, const struct seckey *sk, const void *msg, size_t n)
    __attribute__((warn_unused_result));
int crypto_sign_digest(struct sig *out, const struct seckey *sk, const struct hash *digest)
    __attribute__((warn_unused_result));
/* The same with a given nonce, so that recorded signatures can be compared byte for byte. Tests
 * only. */
int crypto_sign_with_nonce(struct sig *out, const struct seckey *sk, const struct hash *digest,
                           const uint8_t nonce32[32]);

/* 0 when the signature is one that the peers accept for this key, else ERR_SIG (or ERR_KEY for a
 * null key). */
int crypto_verify(const struct pubkey *pk, const struct sig *sig, const void *msg, size_t n)
    __attribute__((warn_unused_result));
int crypto_verify_digest(const struct pubkey *pk, const struct sig *sig, const struct hash *digest)
    __attribute__((warn_unused_result));
/* The peers' text for the failure: recover failed, key differs, or malleable form
 * (docs/protocol/dmsg.md §1.3, dht.md §2.2). NULL when it verifies. */
const char *crypto_verify_text(const struct pubkey *pk, const struct sig *sig,
                               const struct hash *digest);

/* ---- symmetric ---- */

void crypto_sha256(struct hash *out, const void *p, size_t n);
void crypto_sha256_2(struct hash *out, const void *p, size_t n, const void *q,
                     size_t m); /* H(p | q) */
/* H of all parts one behind the other; a part of length 0 may have any pointer. */
void crypto_sha256_v(struct hash *out, const struct iovec *parts, size_t n_parts);
void crypto_hmac_sha256(uint8_t out[32], const uint8_t *key, size_t key_len, const void *p,
                        size_t n);

/* ChaCha20-Poly1305 IETF with nonce 00000000 | u64le(n). c has room for n+16. ad may be NULL with
 * ad_len 0. In place (c == p) is allowed. */
void crypto_aead_seal(uint8_t *c, const uint8_t key[32], uint64_t nonce, const void *ad,
                      size_t ad_len, const uint8_t *p, size_t n);
/* c has c_len >= 16 bytes; p gets c_len-16. ERR_SHORT, ERR_TAG (then p is wiped). In place is
 * allowed. p = NULL: only check the tag. */
int crypto_aead_open(uint8_t *p, const uint8_t key[32], uint64_t nonce, const void *ad,
                     size_t ad_len, const uint8_t *c, size_t c_len)
    __attribute__((warn_unused_result));

/* SipHash-2-4 with a 16-byte key: for hash tables, never for security decisions. */
uint64_t crypto_siphash(const uint8_t key[16], const void *p, size_t n);
