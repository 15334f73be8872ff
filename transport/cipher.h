/*
 * cipher - one direction of a sealed channel after a Noise handshake (docs/protocol/dmsg.md §2.5).
 *
 *     sealed message = u64be(c) | ChaCha20-Poly1305(key, nonce = u64le(c), ad = "", plaintext)
 *
 * The sender counts c = 1, 2, 3 …, and no number is used twice: the counter moves before anything
 * is sealed, and a used-up counter is an error. The receiver has one of two rules, by what the
 * channel carries:
 *
 *     cipher_open()         stream data: c must be larger than the last one accepted, gaps are
 * allowed cipher_open_window()  session objects, which overtake each other on their multiplexer
 * streams: each c once, and not older than the newest 1024
 *
 * Upstream moves its receive counter (2023 streams, 2026 sessions) before it has checked the tag,
 * so that one forged number blocks all genuine ones below it; 2023 sessions accept every c again
 * and again. Here a number counts only after the tag was right. An honest peer can't tell the
 * difference.
 *
 * Values without heap; the owner wipes them with cipher_wipe(). One thread each.
 *
 *     cipher_seal(&tx, out, plain, n);                      out has n + CIPHER_OVERHEAD bytes
 *     rc = cipher_open(&rx, plain, sealed, len);            plain has len - CIPHER_OVERHEAD bytes
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/crypto.h"

#define CIPHER_COUNTER_BYTES 8
#define CIPHER_OVERHEAD      (CIPHER_COUNTER_BYTES + AEAD_TAG_BYTES) /* 24 */
#define NONCE_WINDOW         1024

struct cipher {
    uint8_t key[AEAD_KEY_BYTES];
    uint64_t counter; /* last one sent, or accepted by cipher_open(); 0 = none */
};

struct nonce_window { /* all zero at the start */
    uint64_t max;     /* largest counter accepted */
    uint64_t seen[NONCE_WINDOW / 64];
};

/* Seal n bytes into out (n + CIPHER_OVERHEAD bytes). p may be out + CIPHER_COUNTER_BYTES (in
 * place). ERR_NONCE after 2^64 - 1 messages. */
int cipher_seal(struct cipher *c, uint8_t *out, const uint8_t *p, size_t n)
    __attribute__((warn_unused_result));

/* Open a sealed message of len bytes into out (len - CIPHER_OVERHEAD bytes; may be sealed +
 * CIPHER_COUNTER_BYTES). ERR_SHORT: less than CIPHER_OVERHEAD; ERR_NONCE: counter not larger than
 * the last; ERR_TAG. On an error the state is as before. */
int cipher_open(struct cipher *c, uint8_t *out, const uint8_t *sealed, size_t len)
    __attribute__((warn_unused_result));

/* The same with the window rule; c->counter is not used. ERR_NONCE: counter 0, older than the
 * window, or seen. */
int cipher_open_window(const struct cipher *c, struct nonce_window *w, uint8_t *out,
                       const uint8_t *sealed, size_t len) __attribute__((warn_unused_result));

void cipher_wipe(struct cipher *c);
