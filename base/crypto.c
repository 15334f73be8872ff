#include "base/crypto.h"

#include <assert.h>
#include <string.h>

#include <secp256k1.h>
#include <secp256k1_ecdh.h>
#include <secp256k1_recovery.h>
#include <sodium.h>

#include "base/err.h"
#include "base/hex.h"

_Static_assert(HASH_BYTES == crypto_hash_sha256_BYTES, "SHA-256");
_Static_assert(AEAD_KEY_BYTES == crypto_aead_chacha20poly1305_ietf_KEYBYTES, "AEAD key");
_Static_assert(AEAD_TAG_BYTES == crypto_aead_chacha20poly1305_ietf_ABYTES, "AEAD tag");

/* Written by crypto_init() before threads start, read-only afterwards. */
static secp256k1_context *ctx;

int crypto_init(void)
{
    uint8_t blind[32];

    if (ctx != NULL)
        return 0;
    if (sodium_init() < 0)
        return ERR_NOMEM;
    ctx = secp256k1_context_create(SECP256K1_CONTEXT_NONE);
    if (ctx == NULL)
        return ERR_NOMEM;
    /* Blinding against side channels; it does not change any result. */
    randombytes_buf(blind, sizeof blind);
    int done = secp256k1_context_randomize(ctx, blind);
    sodium_memzero(blind, sizeof blind);
    if (!done) {
        secp256k1_context_destroy(ctx);
        ctx = NULL;
        return ERR_NOMEM;
    }
    return 0;
}

/* ---- keys ---- */

bool pubkey_is_null(const struct pubkey *pk)
{
    return pk->b[0] == 0 && sodium_is_zero(pk->b, sizeof pk->b) != 0;
}

bool pubkey_equal(const struct pubkey *a, const struct pubkey *b)
{
    return memcmp(a->b, b->b, sizeof a->b) == 0;
}

int pubkey_cmp(const struct pubkey *a, const struct pubkey *b)
{
    return memcmp(a->b, b->b, sizeof a->b);
}

/* The null key fails here by its prefix byte. */
static int point_parse(secp256k1_pubkey *out, const struct pubkey *pk)
{
    assert(ctx != NULL);
    return secp256k1_ec_pubkey_parse(ctx, out, pk->b, sizeof pk->b) ? 0 : ERR_KEY;
}

static void point_write(struct pubkey *out, const secp256k1_pubkey *point)
{
    size_t n = sizeof out->b;
    int done = secp256k1_ec_pubkey_serialize(ctx, out->b, &n, point, SECP256K1_EC_COMPRESSED);
    assert(done && n == sizeof out->b);
    (void)done;
}

int pubkey_check(const struct pubkey *pk)
{
    secp256k1_pubkey point;
    return point_parse(&point, pk);
}

int pubkey_from_hex(struct pubkey *out, const char *text, size_t n)
{
    struct pubkey pk;

    if (hex_decode(pk.b, sizeof pk.b, text, n) != 0 || pubkey_check(&pk) != 0)
        return ERR_KEY;
    *out = pk;
    return 0;
}

int pubkey_from_json_text(struct pubkey *out, const char *text, size_t n)
{
    size_t zeros = 0;

    while (zeros < n && text[zeros] == '0')
        zeros++;
    if (zeros < n)
        return pubkey_from_hex(out, text, n);
    memset(out, 0, sizeof *out);
    return 0;
}

char *pubkey_hex(char out[PUBKEY_HEX + 1], const struct pubkey *pk)
{
    return hex_encode(out, pk->b, sizeof pk->b);
}

char *pubkey_short(char out[9], const struct pubkey *pk)
{
    return hex_encode(out, pk->b, 4);
}

int seckey_check(const struct seckey *sk)
{
    assert(ctx != NULL);
    return secp256k1_ec_seckey_verify(ctx, sk->b) ? 0 : ERR_KEY;
}

int seckey_from_hex(struct seckey *out, const char *text, size_t n)
{
    struct seckey sk = {{0}};
    int rc = ERR_KEY;

    if (hex_decode(sk.b, sizeof sk.b, text, n) == 0)
        rc = seckey_check(&sk);
    if (rc == 0)
        *out = sk;
    seckey_wipe(&sk);
    return rc;
}

int seckey_pubkey(struct pubkey *out, const struct seckey *sk)
{
    secp256k1_pubkey point;

    assert(ctx != NULL);
    if (!secp256k1_ec_pubkey_create(ctx, &point, sk->b))
        return ERR_KEY;
    point_write(out, &point);
    return 0;
}

void seckey_wipe(struct seckey *sk)
{
    sodium_memzero(sk, sizeof *sk);
}

int crypto_keypair(struct seckey *sk, struct pubkey *pk, const uint8_t random32[32])
{
    memcpy(sk->b, random32, sizeof sk->b);
    int rc = seckey_pubkey(pk, sk);
    if (rc != 0)
        seckey_wipe(sk);
    return rc;
}

/* step() of docs/protocol/dmsg.md §1.1: hash until the hash is a scalar. */
static void seed_step(struct seckey *out, const struct hash *from)
{
    struct hash h = *from;

    do {
        crypto_sha256(&h, h.b, sizeof h.b);
        memcpy(out->b, h.b, sizeof out->b);
    } while (seckey_check(out) != 0);
    sodium_memzero(&h, sizeof h);
}

/* Hash function for secp256k1_ecdh() that keeps the point: x and y become its compressed form. */
static int keep_point(unsigned char *out, const unsigned char *x32, const unsigned char *y32,
                      void *data)
{
    (void)data;
    out[0] = (unsigned char)(0x02 | (y32[31] & 1));
    memcpy(out + 1, x32, 32);
    return 1;
}

/* mix() of docs/protocol/dmsg.md §1.1. */
static int seed_mix(struct hash *out, const uint8_t *seed, size_t n)
{
    struct hash h, h2;
    struct seckey s, p;
    struct pubkey product;
    secp256k1_pubkey point;
    int rc = ERR_KEY;

    crypto_sha256(&h, seed, n);
    crypto_sha256(&h2, h.b, sizeof h.b);
    seed_step(&s, &h);
    seed_step(&p, &h2);
    if (secp256k1_ec_pubkey_create(ctx, &point, p.b) &&
        secp256k1_ecdh(ctx, product.b, &point, s.b, keep_point, NULL)) {
        crypto_sha256_2(out, h.b, sizeof h.b, product.b, sizeof product.b);
        rc = 0;
    }
    sodium_memzero(&h, sizeof h);
    sodium_memzero(&h2, sizeof h2);
    sodium_memzero(&product, sizeof product);
    seckey_wipe(&s);
    seckey_wipe(&p);
    return rc;
}

int crypto_keypair_from_seed(struct seckey *sk, struct pubkey *pk, const uint8_t *seed, size_t n)
{
    struct hash mixed, h;

    assert(ctx != NULL);
    int rc = seed_mix(&mixed, seed, n);
    if (rc != 0)
        return rc;
    crypto_sha256_2(&h, seed, n, mixed.b, sizeof mixed.b);
    seed_step(sk, &h);
    sodium_memzero(&mixed, sizeof mixed);
    sodium_memzero(&h, sizeof h);
    return seckey_pubkey(pk, sk);
}

/* ---- public-key operations ---- */

int crypto_ecdh(uint8_t out[32], const struct seckey *sk, const struct pubkey *pk)
{
    secp256k1_pubkey point;
    int rc = point_parse(&point, pk);

    if (rc != 0)
        return rc;
    /* libsecp256k1's own hash function is SHA-256 of the compressed point, as the peers do. */
    return secp256k1_ecdh(ctx, out, &point, sk->b, NULL, NULL) ? 0 : ERR_KEY;
}

static int sign_with(struct sig *out, const struct seckey *sk, const struct hash *digest,
                     secp256k1_nonce_function nonce, const void *nonce_data)
{
    secp256k1_ecdsa_recoverable_signature sig;
    int recid = 0;

    assert(ctx != NULL);
    if (sodium_is_zero(digest->b, sizeof digest->b))
        return ERR_SIG;
    if (!secp256k1_ecdsa_sign_recoverable(ctx, &sig, digest->b, sk->b, nonce, nonce_data))
        return ERR_KEY;
    secp256k1_ecdsa_recoverable_signature_serialize_compact(ctx, out->b, &recid, &sig);
    out->b[64] = (uint8_t)recid;
    return 0;
}

int crypto_sign_digest(struct sig *out, const struct seckey *sk, const struct hash *digest)
{
    return sign_with(out, sk, digest, NULL, NULL);
}

int crypto_sign_msg(struct sig *out, const struct seckey *sk, const void *msg, size_t n)
{
    struct hash digest;

    crypto_sha256(&digest, msg, n);
    return crypto_sign_digest(out, sk, &digest);
}

/* A second attempt would mean that the given nonce is unusable: fail instead of drawing another. */
static int given_nonce(unsigned char *nonce32, const unsigned char *msg32,
                       const unsigned char *key32, const unsigned char *algo16, void *data,
                       unsigned int attempt)
{
    (void)msg32;
    (void)key32;
    (void)algo16;
    memcpy(nonce32, data, 32);
    return attempt == 0;
}

int crypto_sign_with_nonce(struct sig *out, const struct seckey *sk, const struct hash *digest,
                           const uint8_t nonce32[32])
{
    return sign_with(out, sk, digest, given_nonce, nonce32);
}

/* Key that made the signature, by the low two bits of the recovery id as the peers take it. */
static int recover(struct pubkey *out, const struct sig *sig, const struct hash *digest)
{
    secp256k1_ecdsa_recoverable_signature rsig;
    secp256k1_pubkey point;

    assert(ctx != NULL);
    if (sodium_is_zero(digest->b, sizeof digest->b) ||
        !secp256k1_ecdsa_recoverable_signature_parse_compact(ctx, &rsig, sig->b, sig->b[64] & 3) ||
        !secp256k1_ecdsa_recover(ctx, &point, &rsig, digest->b))
        return ERR_SIG;
    point_write(out, &point);
    return 0;
}

/* The two byte checks of docs/protocol/dmsg.md §1.3; s in (n/2, 2^255) is accepted on purpose. */
static bool sig_is_malleable(const struct sig *sig)
{
    return sig->b[32] >= 0x80 || sig->b[64] >= 4;
}

int crypto_verify_digest(const struct pubkey *pk, const struct sig *sig, const struct hash *digest)
{
    struct pubkey signer;

    if (pubkey_is_null(pk))
        return ERR_KEY;
    if (sig_is_malleable(sig) || recover(&signer, sig, digest) != 0 || !pubkey_equal(&signer, pk))
        return ERR_SIG;
    return 0;
}

int crypto_verify(const struct pubkey *pk, const struct sig *sig, const void *msg, size_t n)
{
    struct hash digest;

    crypto_sha256(&digest, msg, n);
    return crypto_verify_digest(pk, sig, &digest);
}

/* Same set as crypto_verify_digest(), in the peers' order of checks, because the first one names
 * the failure. */
const char *crypto_verify_text(const struct pubkey *pk, const struct sig *sig,
                               const struct hash *digest)
{
    struct pubkey signer;

    if (recover(&signer, sig, digest) != 0)
        return "Failed to recover pubkey from signature";
    if (!pubkey_equal(&signer, pk))
        return "Recovered pubkey does not match pubkey";
    if (sig_is_malleable(sig))
        return "VerifySignatureRecoverPubKey, VerifySignatureValidity failed";
    return NULL;
}

/* ---- symmetric ---- */

void crypto_sha256(struct hash *out, const void *p, size_t n)
{
    crypto_hash_sha256(out->b, p, n);
}

void crypto_sha256_2(struct hash *out, const void *p, size_t n, const void *q, size_t m)
{
    crypto_hash_sha256_state st;

    crypto_hash_sha256_init(&st);
    crypto_hash_sha256_update(&st, p, n);
    crypto_hash_sha256_update(&st, q, m);
    crypto_hash_sha256_final(&st, out->b);
    sodium_memzero(&st, sizeof st);
}

void crypto_sha256_v(struct hash *out, const struct iovec *parts, size_t n_parts)
{
    crypto_hash_sha256_state st;

    crypto_hash_sha256_init(&st);
    for (size_t i = 0; i < n_parts; i++) {
        if (parts[i].iov_len > 0)
            crypto_hash_sha256_update(&st, parts[i].iov_base, parts[i].iov_len);
    }
    crypto_hash_sha256_final(&st, out->b);
    sodium_memzero(&st, sizeof st);
}

void crypto_hmac_sha256(uint8_t out[32], const uint8_t *key, size_t key_len, const void *p,
                        size_t n)
{
    crypto_auth_hmacsha256_state st;

    crypto_auth_hmacsha256_init(&st, key, key_len);
    crypto_auth_hmacsha256_update(&st, p, n);
    crypto_auth_hmacsha256_final(&st, out);
    sodium_memzero(&st, sizeof st);
}

static void aead_nonce(uint8_t out[crypto_aead_chacha20poly1305_ietf_NPUBBYTES], uint64_t nonce)
{
    memset(out, 0, 4);
    for (int i = 0; i < 8; i++)
        out[4 + i] = (uint8_t)(nonce >> (8 * i));
}

void crypto_aead_seal(uint8_t *c, const uint8_t key[32], uint64_t nonce, const void *ad,
                      size_t ad_len, const uint8_t *p, size_t n)
{
    uint8_t npub[crypto_aead_chacha20poly1305_ietf_NPUBBYTES];

    aead_nonce(npub, nonce);
    crypto_aead_chacha20poly1305_ietf_encrypt(c, NULL, p, n, ad, ad_len, NULL, npub, key);
}

int crypto_aead_open(uint8_t *p, const uint8_t key[32], uint64_t nonce, const void *ad,
                     size_t ad_len, const uint8_t *c, size_t c_len)
{
    uint8_t npub[crypto_aead_chacha20poly1305_ietf_NPUBBYTES];

    if (c_len < AEAD_TAG_BYTES)
        return ERR_SHORT;
    aead_nonce(npub, nonce);
    size_t n = c_len - AEAD_TAG_BYTES;
    if (crypto_aead_chacha20poly1305_ietf_decrypt_detached(p, NULL, c, n, c + n, ad, ad_len, npub,
                                                           key) != 0) {
        if (p != NULL)
            sodium_memzero(p, n);
        return ERR_TAG;
    }
    return 0;
}

uint64_t crypto_siphash(const uint8_t key[16], const void *p, size_t n)
{
    uint8_t out[crypto_shorthash_siphash24_BYTES];
    uint64_t v = 0;

    crypto_shorthash_siphash24(out, p, n, key);
    for (int i = 0; i < 8; i++)
        v |= (uint64_t)out[i] << (8 * i);
    return v;
}
