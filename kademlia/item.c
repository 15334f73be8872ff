#include "kademlia/item.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/cursor.h"
#include "base/err.h"

int item_check_size(const struct item *it)
{
    return it->v_len <= ITEM_MAX_VALUE && it->salt_len <= ITEM_MAX_SALT ? 0 : ERR_TOO_LONG;
}

static struct iovec part(const void *p, size_t n)
{
    return (struct iovec){.iov_base = (void *)(uintptr_t)p, .iov_len = n};
}

void item_digest(struct hash *out, const struct item *it)
{
    uint8_t head[12], middle[4];

    /* Go writes both lengths as 32 bits too; anything longer is refused before it gets here. */
    assert(it->v_len <= UINT32_MAX && it->salt_len <= UINT32_MAX);
    put_be64(head, it->seq);
    put_be32(head + 8, (uint32_t)it->v_len);
    put_be32(middle, (uint32_t)it->salt_len);
    const struct iovec parts[] = {part(head, sizeof head), part(it->v, it->v_len),
                                  part(middle, sizeof middle), part(it->salt, it->salt_len)};
    crypto_sha256_v(out, parts, sizeof parts / sizeof parts[0]);
}

struct kad_id item_target(const struct item *it)
{
    return kad_target(&it->k, it->salt, it->salt_len);
}

static bool bytes_equal(const void *p, size_t n, const void *q, size_t m)
{
    return n == m && (n == 0 || memcmp(p, q, n) == 0);
}

bool item_salt_is(const struct item *it, const char *salt)
{
    return bytes_equal(it->salt, it->salt_len, salt, strlen(salt));
}

bool item_equal(const struct item *a, const struct item *b)
{
    return a->seq == b->seq && pubkey_equal(&a->k, &b->k) &&
           bytes_equal(a->sig.b, sizeof a->sig.b, b->sig.b, sizeof b->sig.b) &&
           bytes_equal(a->v, a->v_len, b->v, b->v_len) &&
           bytes_equal(a->salt, a->salt_len, b->salt, b->salt_len);
}

int item_verify(const struct item *it)
{
    struct hash digest;

    item_digest(&digest, it);
    return crypto_verify_digest(&it->k, &it->sig, &digest);
}

int item_sign(struct item *it, const struct seckey *sk)
{
    struct hash digest;
    int rc = seckey_pubkey(&it->k, sk);

    if (rc != 0)
        return rc;
    item_digest(&digest, it);
    return crypto_sign_digest(&it->sig, sk, &digest);
}

struct item_ref *item_ref_new(const struct item *it)
{
    struct item_ref *r;

    assert(it->v != NULL || it->v_len == 0);
    if (it->v_len > SIZE_MAX / 4 || it->salt_len > SIZE_MAX / 4)
        return NULL;
    r = malloc(sizeof *r + it->v_len + it->salt_len);
    if (r == NULL)
        return NULL;
    uint8_t *v = (uint8_t *)(r + 1), *salt = v + it->v_len;
    r->refs = 1;
    r->item = *it;
    r->item.v = it->v != NULL ? v : NULL; /* "null" and "" stay different texts */
    r->item.salt = it->salt_len > 0 ? salt : NULL;
    if (it->v_len > 0)
        memcpy(v, it->v, it->v_len);
    if (it->salt_len > 0)
        memcpy(salt, it->salt, it->salt_len);
    return r;
}

struct item_ref *item_ref_get(struct item_ref *r)
{
    assert(r->refs > 0 && r->refs < UINT32_MAX);
    r->refs++;
    return r;
}

void item_ref_put(struct item_ref *r)
{
    if (r == NULL)
        return;
    assert(r->refs > 0);
    if (--r->refs == 0)
        free(r);
}

/* The texts of crypto_verify_text() with the prefix that the DHT puts before them. */
static const char *signature_text(const struct item *it)
{
    static const char *const texts[] = {
        "dht: invalid signature: Failed to recover pubkey from signature",
        "dht: invalid signature: Recovered pubkey does not match pubkey",
        "dht: invalid signature: VerifySignatureRecoverPubKey, VerifySignatureValidity failed",
    };
    static const size_t prefix = sizeof "dht: invalid signature: " - 1;
    struct hash digest;

    item_digest(&digest, it);
    const char *why = crypto_verify_text(&it->k, &it->sig, &digest);
    for (size_t i = 0; why != NULL && i < sizeof texts / sizeof texts[0]; i++) {
        if (strcmp(texts[i] + prefix, why) == 0)
            return texts[i];
    }
    return texts[1]; /* it does verify: the caller's reason was another key */
}

const char *item_error_text(int err, const struct item *it)
{
    switch (err) {
    case ERR_TOO_LONG: /* the value is checked first */
        return it->v_len > ITEM_MAX_VALUE ? "dht: value exceeds max size"
                                          : "dht: salt exceeds max size";
    case ERR_SIG:
    case ERR_KEY:
        return signature_text(it);
    case ERR_SEQ:
        return "dht: sequence number must increase";
    case ERR_QUOTA:
        return "dht: rate limit exceeded for public key";
    default:
        return NULL;
    }
}
