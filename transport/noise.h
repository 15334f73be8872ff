/*
 * noise - the handshakes XK (sessions) and KK (streams) in both roles (docs/protocol/dmsg.md
 * §2.1-2.4, §2.6).
 *
 * A sans-I/O core: messages in, messages out, and two ciphers at the end. Ephemeral secrets are
 * drawn from the env (one 32-byte env_random() a handshake), so recorded transcripts can be
 * replayed; curve work is asked of env_pk() and may be answered later.
 *
 *              initiator                                responder
 *     XK   write | read | write, split          read | write | read, split
 *     KK   write | read, split                  read | write, split
 *
 *                  noise_read / noise_write           last message
 *     READ, WRITE ------------------------> … ----------------------> DONE ---- noise_split() --->
 * SPLIT |   \------ pending -------> READING, BUILDING --(done)--> next, BUILT any error
 * ------------------------------------------------------------------------------> FAILED
 *
 * Pending: noise_read() and noise_write() may return ERR_PENDING. Then cfg.on_ready(n, rc) is
 * called once from the loop, never from inside a call: for a read rc is its result; for a write rc
 * = 0 says "call noise_write() again, the message is ready". A message given to noise_read() is
 * copied where it has to be kept. on_ready may call anything, also wipe and free n.
 *
 * Payloads are sent empty and accepted and ignored in every message (2026 initiators offer 1184
 * bytes, §2.6): both sides then keep the classical keys.
 *
 * Errors end the handshake and wipe it: ERR_SHORT, ERR_TOO_LONG (message above NOISE_MESSAGE_MAX),
 * ERR_KEY (invalid point), ERR_TAG, ERR_BUSY (queue of public-key work is full), ERR_NOMEM.
 * ERR_STATE (it's not this side's turn) changes nothing.
 *
 * Owner: whoever embeds or allocates the struct; it must not move while something is pending, and
 * is needed for the handshake only. noise_wipe() on every path, it cancels what is pending. One
 * thread. Curve operations: XK 3 ECDH and 1 key pair on each side; KK 4 ECDH and 1 key pair, one
 * ECDH less when the static-static secret comes from a struct noise_cache.
 *
 *     struct noise_cfg cfg = {.env = env, .pattern = NOISE_XK, .initiator = true, .cls =
 * PK_CLASS_SESSION, .sk = &sk, .pk = &pk, .remote = &server, .on_ready = ready}; rc =
 * noise_init(&n, &cfg); rc = noise_write(&n, out, sizeof out, &len);     // ERR_PENDING: once more
 * when ready() was called rc = noise_read(&n, msg, msg_len); if (noise_done(&n)) { noise_split(&n,
 * &tx, &rx); noise_wipe(&n); }
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/env.h"
#include "transport/cipher.h"

#define NOISE_DH_BYTES    33   /* public keys, and DH outputs: 32 bytes and a zero (§1.2) */
#define NOISE_OUT_MAX     65   /* longest message that is written: XK message 3 */
#define NOISE_MESSAGE_MAX 4094 /* longest that is read: limit of a raw frame (§2.7) */

struct noise;
struct noise_cache; /* transport/noise_cache.h */

enum noise_pattern { NOISE_XK, NOISE_KK };

struct noise_cfg {
    struct env *env;
    enum noise_pattern pattern;
    bool initiator;
    enum pk_class cls;           /* queue of its public-key work */
    const struct seckey *sk;     /* own static pair; copied */
    const struct pubkey *pk;     /* belongs to sk */
    const struct pubkey *remote; /* static key of the peer; NULL for the responder of XK, who learns
                                    it from message 3 */
    struct noise_cache
        *cache; /* KK, may be NULL: static-static secrets of this sk; outlives the handshake */
    void (*on_ready)(struct noise *n, int rc);
};

enum noise_state {
    NOISE_FAILED,   /* also after noise_wipe() */
    NOISE_WRITE,    /* this side's turn */
    NOISE_BUILDING, /* a message is being built, work is pending */
    NOISE_BUILT,    /* it waits to be taken with noise_write() */
    NOISE_READ,     /* the peer's turn */
    NOISE_READING,  /* a message is being read, work is pending */
    NOISE_DONE,     /* noise_split() is possible */
    NOISE_SPLIT,
};

/* Visible so that it can be embedded; the members are private (tests compare ck, h and k with the
 * vectors). */
struct noise {
    struct env *env;
    struct noise_cache *cache;
    void (*on_ready)(struct noise *n, int rc);
    enum noise_pattern pattern;
    enum noise_state state;
    enum pk_class cls;
    bool initiator;
    bool have_ss; /* ss was computed here and goes into the cache when the message is authentic */
    uint8_t message; /* number of the message under way */
    uint8_t token;   /* next token of it */

    uint8_t ck[32], h[32], k[32]; /* symmetric state (§2.2) */
    uint64_t nonce;
    uint8_t ss[32];
    struct seckey s, e;         /* own static and ephemeral */
    struct pubkey s_pub;        /* own static */
    struct pubkey rs, re;       /* the peer's */
    struct pk_wait wait;        /* the one request under way */
    const uint8_t *in;          /* message being read: the caller's, or one of the next two */
    size_t in_len, in_pos;      /* its length, and what was read of it */
    uint8_t *in_heap;           /* copy of a long message while work is pending */
    uint8_t buf[NOISE_OUT_MAX]; /* message being built, or copy of a short one being read */
    size_t buf_len;
};

/* Start a handshake. ERR_KEY: the remote key is missing or null. (A remote key that is no point
 * fails in the first message that uses it.) */
int noise_init(struct noise *n, const struct noise_cfg *cfg) __attribute__((warn_unused_result));

/* Build the next message into out; cap >= NOISE_OUT_MAX. 0 and its length in *len; ERR_PENDING; an
 * error from the page above. */
int noise_write(struct noise *n, uint8_t *out, size_t cap, size_t *len)
    __attribute__((warn_unused_result));

/* Take the peer's next message. 0, ERR_PENDING, or an error from the page above. */
int noise_read(struct noise *n, const uint8_t *msg, size_t len) __attribute__((warn_unused_result));

/* Whose turn: noise_write() or noise_read() is the next thing to call. Both false while work is
 * pending and at the end. */
bool noise_wants_write(const struct noise *n);
bool noise_wants_read(const struct noise *n);

/* The last message was written or read. */
bool noise_done(const struct noise *n);

/* Ciphers of the two directions, with the peers' assignment: whoever wrote the last message sends
 * with the second key (§2.4). Once, and only when noise_done(); key material in n is wiped, the two
 * functions below still answer. */
void noise_split(struct noise *n, struct cipher *send, struct cipher *recv);

/* Static key of the peer. The responder of XK knows it when noise_done(), not earlier. */
const struct pubkey *noise_remote(const struct noise *n);

/* Handshake hash, 32 bytes; final when noise_done(). */
const uint8_t *noise_hash(const struct noise *n);

/* Cancel what is pending and wipe everything. Idempotent; on_ready is not called any more. n must
 * have been through noise_init() or be all zero. */
void noise_wipe(struct noise *n);
