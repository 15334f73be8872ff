#include "transport/cipher.h"

#include <stdbool.h>
#include <string.h>

#include <sodium.h>

#include "base/cursor.h"
#include "base/err.h"

int cipher_seal(struct cipher *c, uint8_t *out, const uint8_t *p, size_t n)
{
    if (c->counter == UINT64_MAX)
        return ERR_NONCE;
    c->counter++;
    crypto_aead_seal(out + CIPHER_COUNTER_BYTES, c->key, c->counter, NULL, 0, p, n);
    put_be64(out, c->counter);
    return 0;
}

static int open_body(const struct cipher *c, uint64_t counter, uint8_t *out, const uint8_t *sealed,
                     size_t len)
{
    return crypto_aead_open(out, c->key, counter, NULL, 0, sealed + CIPHER_COUNTER_BYTES,
                            len - CIPHER_COUNTER_BYTES);
}

int cipher_open(struct cipher *c, uint8_t *out, const uint8_t *sealed, size_t len)
{
    if (len < CIPHER_OVERHEAD)
        return ERR_SHORT;
    uint64_t counter = get_be64(sealed);
    if (counter <= c->counter)
        return ERR_NONCE;
    int rc = open_body(c, counter, out, sealed, len);
    if (rc == 0)
        c->counter = counter;
    return rc;
}

/* Counter n owns bit n mod 1024; the bits stand for max - 1023 … max. */
static uint64_t *window_word(struct nonce_window *w, uint64_t n)
{
    return &w->seen[n % NONCE_WINDOW / 64];
}

static uint64_t window_bit(uint64_t n)
{
    return UINT64_C(1) << n % 64;
}

static bool window_allows(struct nonce_window *w, uint64_t n)
{
    if (n == 0)
        return false;
    if (n > w->max)
        return true;
    return w->max - n < NONCE_WINDOW && (*window_word(w, n) & window_bit(n)) == 0;
}

static void window_mark(struct nonce_window *w, uint64_t n)
{
    if (n > w->max && n - w->max >= NONCE_WINDOW) {
        memset(w->seen, 0, sizeof w->seen);
        w->max = n;
    }
    /* The bits of the numbers that were skipped belonged to older ones. */
    while (w->max < n) {
        w->max++;
        *window_word(w, w->max) &= ~window_bit(w->max);
    }
    *window_word(w, n) |= window_bit(n);
}

int cipher_open_window(const struct cipher *c, struct nonce_window *w, uint8_t *out,
                       const uint8_t *sealed, size_t len)
{
    if (len < CIPHER_OVERHEAD)
        return ERR_SHORT;
    uint64_t counter = get_be64(sealed);
    if (!window_allows(w, counter))
        return ERR_NONCE;
    int rc = open_body(c, counter, out, sealed, len);
    if (rc == 0)
        window_mark(w, counter);
    return rc;
}

void cipher_wipe(struct cipher *c)
{
    sodium_memzero(c, sizeof *c);
}
