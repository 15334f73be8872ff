#include "base/hex.h"

#include <sodium.h>

#include "base/err.h"

char *hex_encode(char *out, const void *p, size_t n)
{
    return sodium_bin2hex(out, HEX_LEN(n) + 1, p, n);
}

int hex_decode(void *out, size_t size, const char *text, size_t text_len)
{
    size_t got = 0;
    if (text_len / 2 != size || text_len % 2 != 0 ||
        sodium_hex2bin(out, size, text, text_len, NULL, &got, NULL) != 0 || got != size) {
        sodium_memzero(out, size);
        return ERR_FORMAT;
    }
    return 0;
}
