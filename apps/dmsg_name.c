#include "apps/dmsg_name.h"

#include <ctype.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

#include "base/err.h"

#define UUID_LEN       36
#define UUID_LEN_PLAIN 32

static const char digits32[] = "abcdefghijklmnopqrstuvwxyz234567"; /* RFC 4648 §6, lower case */

char *dmsg_base32(char out[DMSG_BASE32 + 1], const struct pubkey *pk)
{
    unsigned acc = 0, bits = 0;
    size_t n = 0;
    for (size_t i = 0; i < PUBKEY_BYTES; i++) {
        acc = acc << 8 | pk->b[i];
        for (bits += 8; bits >= 5; bits -= 5)
            out[n++] = digits32[acc >> (bits - 5) & 31];
        acc &= (1u << bits) - 1;
    }
    out[n++] = digits32[acc << (5 - bits) & 31];
    out[n] = '\0';
    return out;
}

/* Exactly the 53 characters of a key, the spare bit zero: one text for one key. */
static int from_base32(struct pubkey *out, const char *p, size_t n)
{
    unsigned acc = 0, bits = 0;
    size_t at = 0;
    if (n != DMSG_BASE32)
        return ERR_KEY;
    for (size_t i = 0; i < n; i++) {
        const char *d = memchr(digits32, tolower((unsigned char)p[i]), 32);
        if (d == NULL)
            return ERR_KEY;
        acc = acc << 5 | (unsigned)(d - digits32);
        bits += 5;
        if (bits >= 8 && at < PUBKEY_BYTES) {
            bits -= 8;
            out->b[at++] = (uint8_t)(acc >> bits);
            acc &= (1u << bits) - 1;
        }
    }
    return acc == 0 ? pubkey_check(out) : ERR_KEY;
}

static int from_key(struct pubkey *out, const char *p, size_t n)
{
    return n == DMSG_BASE32 ? from_base32(out, p, n) : pubkey_from_hex(out, p, n);
}

static int label_key(struct pubkey *out, const struct dmsg_aliases *a, const char *p, size_t n)
{
    for (size_t i = 0; a != NULL && i < a->n; i++) {
        if (strlen(a->v[i].label) == n && strncasecmp(a->v[i].label, p, n) == 0) {
            *out = a->v[i].pk;
            return 0;
        }
    }
    return from_key(out, p, n);
}

/* Hexadecimal digits, with dashes in the long form: what a chain of another network has in it. */
static bool is_uuid(const char *p, size_t n)
{
    if (n != UUID_LEN && n != UUID_LEN_PLAIN)
        return false;
    for (size_t i = 0; i < n; i++) {
        bool dash = n == UUID_LEN && (i == 8 || i == 13 || i == 18 || i == 23);
        if (dash ? p[i] != '-' : !isxdigit((unsigned char)p[i]))
            return false;
    }
    return true;
}

/* ---- aliases, suffix ---- */

static bool label_ok(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!isalnum((unsigned char)p[i]) && p[i] != '-' && p[i] != '_')
            return false;
    }
    return n > 0 && n < 64;
}

int dmsg_alias_add(struct dmsg_aliases *a, const char *text)
{
    struct dmsg_alias x = {0};
    struct pubkey pk;
    const char *eq = strchr(text, '=');
    if (eq == NULL)
        return ERR_FORMAT;
    size_t n = (size_t)(eq - text);
    if (!label_ok(text, n) || from_key(&pk, text, n) == 0)
        return ERR_FORMAT;
    if (from_key(&x.pk, eq + 1, strlen(eq + 1)) < 0)
        return ERR_KEY;
    if (label_key(&pk, a, text, n) == 0)
        return ERR_EXISTS;
    if (a->n == DMSG_ALIASES)
        return ERR_LIMIT;
    memcpy(x.label, text, n);
    a->v[a->n++] = x;
    return 0;
}

bool dmsg_suffix_ok(const char *suffix)
{
    size_t n = strlen(suffix);
    if (n < 2 || n > DMSG_SUFFIX_MAX)
        return false;
    for (const char *p = suffix; *p != '\0';) {
        size_t len = strcspn(p + 1, ".");
        if (*p != '.' || !label_ok(p + 1, len))
            return false;
        p += 1 + len;
    }
    return true;
}

/* ---- names ---- */

/* The last label of the n bytes at p; *n becomes what is left of it without the dot. */
static const char *last_label(const char *p, size_t *n, size_t *label_n)
{
    size_t start = *n;
    while (start > 0 && p[start - 1] != '.')
        start--;
    *label_n = *n - start;
    *n = start > 0 ? start - 1 : 0;
    return p + start;
}

static int fail(const char **why, int err, const char *text)
{
    *why = text;
    return err;
}

int dmsg_name_parse(struct dmsg_name *out, const struct dmsg_aliases *aliases, const char *suffix,
                    const char *host, size_t n, const char **why)
{
    size_t suffix_n = strlen(suffix), label_n, rest;
    struct pubkey pk;
    memset(out, 0, sizeof(*out));
    *why = NULL;
    if (n > 0 && host[n - 1] == '.')
        n--;
    if (n + 1 < suffix_n || (n + 1 == suffix_n && strncasecmp(host, suffix + 1, n) != 0) ||
        (n >= suffix_n && strncasecmp(host + n - suffix_n, suffix, suffix_n) != 0))
        return ERR_NOT_FOUND;
    if (n > DMSG_NAME_MAX)
        return fail(why, ERR_TOO_LONG, "the name is too long");
    if (n <= suffix_n)
        return fail(why, ERR_FORMAT, "no key before the suffix");
    n -= suffix_n;
    const char *label = last_label(host, &n, &label_n);
    if (label_key(&out->pk, aliases, label, label_n) < 0)
        return fail(why, ERR_KEY, "neither a public key nor an alias before the suffix");
    for (rest = n; rest > 0;) {
        label = last_label(host, &rest, &label_n);
        if (label_n == 0)
            return fail(why, ERR_FORMAT, "an empty label");
        if (is_uuid(label, label_n))
            return fail(why, ERR_FORMAT, "a transport is no part of a dmsg name");
        if (label_key(&pk, aliases, label, label_n) < 0)
            break;
        if (!out->has_via)
            out->via = pk;
        out->has_via = true;
        n = rest;
    }
    memcpy(out->vhost, host, n);
    return 0;
}
