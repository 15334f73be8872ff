#include "base/base64.h"

#include "base/err.h"

static const char alphabet[64] __attribute__((nonstring)) =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

size_t base64_encode(char *out, const void *p, size_t n)
{
    const uint8_t *src = p;
    char *dst = out;
    for (; n > 0; dst += 4) {
        size_t part = n < 3 ? n : 3;
        uint32_t v = (uint32_t)src[0] << 16;
        v |= part > 1 ? (uint32_t)src[1] << 8 : 0;
        v |= part > 2 ? src[2] : 0;
        dst[0] = alphabet[v >> 18];
        dst[1] = alphabet[v >> 12 & 63];
        dst[2] = part > 1 ? alphabet[v >> 6 & 63] : '=';
        dst[3] = part > 2 ? alphabet[v & 63] : '=';
        src += part;
        n -= part;
    }
    return (size_t)(dst - out);
}

/* Value of a digit, -1 for everything else. */
static int digit(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

int base64_decode(void *out, size_t cap, size_t *out_len, const char *text, size_t n)
{
    uint8_t *dst = out;
    size_t len = 0, pads = 0;
    uint32_t acc = 0;
    unsigned digits = 0; /* of the present group of four */
    for (size_t i = 0; i < n; i++) {
        char c = text[i];
        if (c == '\r' || c == '\n')
            continue;
        if (c == '=') {
            pads++;
            continue;
        }
        int v = digit(c);
        if (v < 0 || pads > 0)
            return ERR_FORMAT;
        acc = acc << 6 | (uint32_t)v;
        digits = (digits + 1) % 4;
        if (digits == 1) /* six bits: no whole byte yet */
            continue;
        if (len == cap)
            return ERR_TOO_LONG;
        dst[len++] = (uint8_t)(acc >> (digits == 2 ? 4 : digits == 3 ? 2 : 0));
    }
    if (digits == 1 || pads != (4 - digits) % 4)
        return ERR_FORMAT;
    *out_len = len;
    return 0;
}
