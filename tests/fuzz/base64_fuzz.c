/* Any text as base64 and as hex: never out of bounds, and what is accepted survives a round trip.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "base/err.h"
#include "base/hex.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_base64(const char *text, size_t n)
{
    size_t cap = BASE64_MAX_RAW(n), len = 0, again = 0;
    uint8_t *raw = malloc(cap + 1), *raw2 = malloc(cap + 1);
    char *canon = malloc(BASE64_LEN(cap) + 1);
    int rc = base64_decode(raw, cap, &len, text, n);
    if (rc == 0) {
        assert(len <= cap);
        size_t m = base64_encode(canon, raw, len);
        assert(m <= n);
        assert(base64_decode(raw2, len, &again, canon, m) == 0);
        assert(again == len && memcmp(raw, raw2, len) == 0);
        if (len > 0)
            assert(base64_decode(raw2, len - 1, &again, text, n) == ERR_TOO_LONG);
    } else {
        assert(rc == ERR_FORMAT || rc == ERR_TOO_LONG);
    }
    free(raw);
    free(raw2);
    free(canon);
}

static void try_hex(const char *text, size_t n)
{
    uint8_t *raw = malloc(n / 2 + 1);
    char *canon = malloc(n + 2);
    if (hex_decode(raw, n / 2, text, n) == 0) {
        hex_encode(canon, raw, n / 2);
        for (size_t i = 0; i < n; i++)
            assert((canon[i] | 0x20) == (text[i] | 0x20));
    }
    free(raw);
    free(canon);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    try_base64((const char *)data, size);
    try_hex((const char *)data, size);
    return 0;
}
