#include "transport/noise.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "base/err.h"
#include "base/list.h"
#include "transport/noise_cache.h"

enum token { T_END, T_E, T_S, T_EE, T_ES, T_SE, T_SS };

#define MESSAGES 3
#define TOKENS   4 /* with T_END */

static const struct {
    const char *name;
    uint8_t messages;
    uint8_t tokens[MESSAGES][TOKENS];
} patterns[] = {
    [NOISE_XK] = {"Noise_XK_Secp256k1_ChaChaPoly_SHA256",
                  3,
                  {{T_E, T_ES, T_END}, {T_E, T_EE, T_END}, {T_S, T_SE, T_END}}},
    [NOISE_KK] = {"Noise_KK_Secp256k1_ChaChaPoly_SHA256",
                  2,
                  {{T_E, T_ES, T_SS, T_END}, {T_E, T_EE, T_SE, T_END}}},
};

/* ---- symmetric state, §2.2 ---- */

static void mix_hash(struct noise *n, const void *p, size_t len)
{
    struct hash h;

    crypto_sha256_2(&h, n->h, sizeof n->h, p, len);
    memcpy(n->h, h.b, sizeof n->h);
}

/* Two outputs of HKDF with chaining key ck. out1 may be ck. */
static void hkdf2(uint8_t out1[32], uint8_t out2[32], const uint8_t ck[32], const uint8_t *ikm,
                  size_t n)
{
    uint8_t t[32], block[33];

    crypto_hmac_sha256(t, ck, 32, ikm, n);
    block[0] = 1;
    crypto_hmac_sha256(block, t, sizeof t, block, 1);
    memcpy(out1, block, 32);
    block[32] = 2;
    crypto_hmac_sha256(out2, t, sizeof t, block, sizeof block);
    sodium_memzero(t, sizeof t);
    sodium_memzero(block, sizeof block);
}

/* A DH output is 33 bytes in this suite: the shared secret and a zero (§1.2). */
static void mix_dh(struct noise *n, const uint8_t shared[32])
{
    uint8_t dh[NOISE_DH_BYTES];

    memcpy(dh, shared, 32);
    dh[32] = 0;
    hkdf2(n->ck, n->k, n->ck, dh, sizeof dh);
    n->nonce = 0;
    sodium_memzero(dh, sizeof dh);
}

/* Append the encryption of p to the message being built. A key exists wherever the two patterns
 * encrypt. */
static void encrypt_and_hash(struct noise *n, const uint8_t *p, size_t len)
{
    uint8_t *out = n->buf + n->buf_len;

    assert(sizeof n->buf - n->buf_len >= len + AEAD_TAG_BYTES);
    crypto_aead_seal(out, n->k, n->nonce++, n->h, sizeof n->h, p, len);
    mix_hash(n, out, len + AEAD_TAG_BYTES);
    n->buf_len += len + AEAD_TAG_BYTES;
}

/* Take len bytes (with the tag) of the message being read. out = NULL: authenticate only. */
static int decrypt_and_hash(struct noise *n, uint8_t *out, size_t len)
{
    const uint8_t *c = n->in + n->in_pos;

    int rc = crypto_aead_open(out, n->k, n->nonce++, n->h, sizeof n->h, c, len);
    if (rc != 0)
        return rc;
    mix_hash(n, c, len);
    n->in_pos += len;
    return 0;
}

/* ---- tokens ---- */

static const uint8_t *tokens(const struct noise *n)
{
    return patterns[n->pattern].tokens[n->message];
}

static bool is_writer(const struct noise *n)
{
    return (n->message % 2 == 0) == n->initiator;
}

/* Which of the own keys a DH token multiplies: the first letter is the initiator's, the second the
 * responder's. */
static bool own_is_ephemeral(const struct noise *n, enum token t)
{
    return t == T_EE || t == (n->initiator ? T_ES : T_SE);
}

static const struct pubkey *peer_key(const struct noise *n, enum token t)
{
    return t == T_EE || t == (n->initiator ? T_SE : T_ES) ? &n->re : &n->rs;
}

/* DH tokens directly behind E that multiply the fresh key: they are asked for together with it. */
static unsigned joined_dh(const struct noise *n)
{
    const uint8_t *t = tokens(n) + n->token + 1;
    unsigned count = 0;

    while (count < 2 && t[count] != T_END && own_is_ephemeral(n, t[count]))
        count++;
    return count;
}

/* The answer in n->wait belongs to the current token; move behind it. */
static int token_end(struct noise *n)
{
    struct pk_res *res = &n->wait.res;
    int rc = res->err;

    if (rc == 0 && tokens(n)[n->token] == T_E) {
        memcpy(n->buf, res->pub.b, sizeof res->pub.b);
        n->buf_len = sizeof res->pub.b;
        mix_hash(n, res->pub.b, sizeof res->pub.b);
        unsigned joined = joined_dh(n);
        for (unsigned i = 0; i < joined; i++)
            mix_dh(n, res->shared[i]);
        n->token = (uint8_t)(n->token + 1 + joined);
    } else if (rc == 0) {
        mix_dh(n, res->shared[0]);
        if (tokens(n)[n->token] == T_SS) {
            memcpy(n->ss, res->shared[0], sizeof n->ss);
            n->have_ss = true;
        }
        n->token++;
    }
    pk_wait_wipe(&n->wait);
    return rc;
}

static int ask(struct noise *n, struct pk_req *req)
{
    req->cls = n->cls;
    int rc = env_pk(n->env, &n->wait, req);
    sodium_memzero(req, sizeof *req);
    return rc == 0 ? token_end(n) : rc;
}

static int write_ephemeral(struct noise *n)
{
    struct pk_req req = {.op = PK_EPHEMERAL};
    unsigned joined = joined_dh(n);

    do { /* practically once */
        env_random(n->env, n->e.b, sizeof n->e.b);
    } while (seckey_check(&n->e) != 0);
    req.sk = n->e;
    if (joined > 0)
        req.pk = *peer_key(n, tokens(n)[n->token + 1]);
    if (joined > 1)
        req.pk2 = *peer_key(n, tokens(n)[n->token + 2]);
    return ask(n, &req);
}

/* Whether it is a point of the curve is found out by the next token, which in every message
 * multiplies it by itself (never joined, where a null key would be skipped). */
static int read_ephemeral(struct noise *n)
{
    memcpy(n->re.b, n->in, sizeof n->re.b);
    mix_hash(n, n->re.b, sizeof n->re.b);
    n->in_pos = sizeof n->re.b;
    n->token++;
    return 0;
}

static int exchange(struct noise *n, enum token t)
{
    struct pk_req req = {.op = PK_ECDH, .pk = *peer_key(n, t)};
    uint8_t ss[32];

    if (t == T_SS && n->cache != NULL && noise_cache_get(n->cache, &n->rs, ss)) {
        mix_dh(n, ss);
        sodium_memzero(ss, sizeof ss);
        n->token++;
        return 0;
    }
    req.sk = own_is_ephemeral(n, t) ? n->e : n->s;
    return ask(n, &req);
}

static int token_begin(struct noise *n)
{
    enum token t = tokens(n)[n->token];
    int rc = 0;

    switch (t) {
    case T_E:
        return is_writer(n) ? write_ephemeral(n) : read_ephemeral(n);
    case T_S:
        if (is_writer(n))
            encrypt_and_hash(n, n->s_pub.b, sizeof n->s_pub.b);
        else
            rc = decrypt_and_hash(n, n->rs.b, sizeof n->rs.b + AEAD_TAG_BYTES);
        n->token++;
        return rc;
    case T_EE:
    case T_ES:
    case T_SE:
    case T_SS:
        return exchange(n, t);
    case T_END:
        break;
    }
    assert(false && "end of the message");
    return ERR_STATE;
}

/* ---- messages ---- */

static bool is_last(const struct noise *n)
{
    return n->message + 1 == patterns[n->pattern].messages;
}

/* Bytes of a message with an empty payload. */
static size_t fixed_len(const struct noise *n)
{
    size_t len = AEAD_TAG_BYTES;

    for (const uint8_t *t = tokens(n); *t != T_END; t++) {
        if (*t == T_E)
            len += PUBKEY_BYTES;
        if (*t == T_S)
            len += PUBKEY_BYTES + AEAD_TAG_BYTES;
    }
    return len;
}

static void forget_input(struct noise *n)
{
    free(n->in_heap); /* nothing secret: it came over the wire */
    n->in_heap = NULL;
    n->in = NULL;
}

/* Hand the turn over; only the chaining key is needed behind the last message. */
static void next_message(struct noise *n)
{
    bool last = is_last(n);

    n->message++;
    n->token = 0;
    if (!last) {
        n->state = is_writer(n) ? NOISE_WRITE : NOISE_READ;
        return;
    }
    n->state = NOISE_DONE;
    seckey_wipe(&n->s);
    seckey_wipe(&n->e);
}

/* All tokens are done: the payload, empty in what we write, ignored in what we read. */
static int message_end(struct noise *n)
{
    int rc = 0;

    if (is_writer(n))
        encrypt_and_hash(n, NULL, 0);
    else
        rc = decrypt_and_hash(n, NULL, n->in_len - n->in_pos);
    if (rc != 0)
        return rc;
    if (n->have_ss && n->cache != NULL)
        noise_cache_put(n->cache, &n->rs, n->ss);
    n->have_ss = false;
    sodium_memzero(n->ss, sizeof n->ss);
    if (is_writer(n)) {
        n->state = NOISE_BUILT;
    } else {
        forget_input(n);
        next_message(n);
    }
    return 0;
}

static int advance(struct noise *n)
{
    int rc = 0;

    while (rc == 0 && tokens(n)[n->token] != T_END)
        rc = token_begin(n);
    return rc == 0 ? message_end(n) : rc;
}

static void answered(struct pk_wait *wait)
{
    struct noise *n = container_of(wait, struct noise, wait);
    void (*ready)(struct noise *, int) = n->on_ready;

    int rc = token_end(n);
    if (rc == 0)
        rc = advance(n);
    if (rc == ERR_PENDING)
        return;
    if (rc != 0)
        noise_wipe(n);
    ready(n, rc); /* n may be gone afterwards */
}

/* ---- interface ---- */

int noise_init(struct noise *n, const struct noise_cfg *cfg)
{
    const struct pubkey *initiator = cfg->initiator ? cfg->pk : cfg->remote;
    const struct pubkey *responder = cfg->initiator ? cfg->remote : cfg->pk;
    bool knows_remote = cfg->initiator || cfg->pattern == NOISE_KK;
    const char *name = patterns[cfg->pattern].name;
    struct hash h;

    memset(n, 0, sizeof *n);
    assert(cfg->on_ready != NULL);
    if (knows_remote && (cfg->remote == NULL || pubkey_is_null(cfg->remote)))
        return ERR_KEY;
    n->env = cfg->env;
    n->cache = cfg->cache;
    n->on_ready = cfg->on_ready;
    n->pattern = cfg->pattern;
    n->initiator = cfg->initiator;
    n->cls = cfg->cls;
    n->wait.done = answered;
    n->s = *cfg->sk;
    n->s_pub = *cfg->pk;
    if (knows_remote)
        n->rs = *cfg->remote;
    n->state = cfg->initiator ? NOISE_WRITE : NOISE_READ;

    crypto_sha256(&h, name, strlen(name));
    memcpy(n->ck, h.b, sizeof n->ck);
    memcpy(n->h, h.b, sizeof n->h);
    mix_hash(n, NULL, 0); /* the prologue is empty, but it is mixed */
    if (cfg->pattern == NOISE_KK)
        mix_hash(n, initiator->b, sizeof initiator->b);
    mix_hash(n, responder->b, sizeof responder->b);
    return 0;
}

/* An error ends the handshake; a pending step leaves it where it is. */
static int settle(struct noise *n, int rc)
{
    if (rc != 0 && rc != ERR_PENDING)
        noise_wipe(n);
    return rc;
}

int noise_write(struct noise *n, uint8_t *out, size_t cap, size_t *len)
{
    if (n->state == NOISE_WRITE) {
        n->state = NOISE_BUILDING;
        n->buf_len = 0;
        int rc = settle(n, advance(n));
        if (rc != 0)
            return rc;
    }
    if (n->state == NOISE_BUILDING)
        return ERR_PENDING;
    if (n->state != NOISE_BUILT)
        return ERR_STATE;
    assert(cap >= NOISE_OUT_MAX);
    (void)cap;
    memcpy(out, n->buf, n->buf_len);
    *len = n->buf_len;
    next_message(n);
    return 0;
}

/* The caller's bytes are gone when the answer comes. */
static int keep_input(struct noise *n)
{
    uint8_t *copy = n->buf;

    if (n->in_len > sizeof n->buf) {
        copy = n->in_heap = malloc(n->in_len);
        if (copy == NULL)
            return ERR_NOMEM;
    }
    memcpy(copy, n->in, n->in_len);
    n->in = copy;
    return ERR_PENDING;
}

int noise_read(struct noise *n, const uint8_t *msg, size_t len)
{
    if (n->state != NOISE_READ)
        return ERR_STATE;
    if (len < fixed_len(n))
        return settle(n, ERR_SHORT);
    if (len > NOISE_MESSAGE_MAX)
        return settle(n, ERR_TOO_LONG);
    n->state = NOISE_READING;
    n->in = msg;
    n->in_len = len;
    n->in_pos = 0;
    int rc = advance(n);
    if (rc == ERR_PENDING)
        rc = keep_input(n);
    return settle(n, rc);
}

bool noise_wants_write(const struct noise *n)
{
    return n->state == NOISE_WRITE || n->state == NOISE_BUILT;
}

bool noise_wants_read(const struct noise *n)
{
    return n->state == NOISE_READ;
}

bool noise_done(const struct noise *n)
{
    return n->state == NOISE_DONE;
}

void noise_split(struct noise *n, struct cipher *send, struct cipher *recv)
{
    bool wrote_last = (patterns[n->pattern].messages % 2 == 1) == n->initiator;
    struct cipher *first = wrote_last ? recv : send;
    struct cipher *second = wrote_last ? send : recv;

    assert(n->state == NOISE_DONE);
    send->counter = recv->counter = 0;
    hkdf2(first->key, second->key, n->ck, NULL, 0);
    sodium_memzero(n->ck, sizeof n->ck);
    sodium_memzero(n->k, sizeof n->k);
    n->state = NOISE_SPLIT;
}

const struct pubkey *noise_remote(const struct noise *n)
{
    return &n->rs;
}

const uint8_t *noise_hash(const struct noise *n)
{
    return n->h;
}

void noise_wipe(struct noise *n)
{
    env_pk_cancel(n->env, &n->wait);
    forget_input(n);
    sodium_memzero(n, sizeof *n);
    n->state = NOISE_FAILED;
}
