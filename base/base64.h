/*
 * base64 - standard alphabet (+ and /) with padding, as the peers write byte strings into JSON.
 *
 * The decoder accepts what the peers' decoder accepts and refuses what it refuses
 * (docs/protocol/dht.md §3.3): CR and LF anywhere are skipped, no other blanks; padding is
 * required; the URL alphabet is refused. Spare bits of the last digit are ignored ("QR==" is
 * "QQ=="), so two texts may mean the same bytes: compare bytes, never texts.
 *
 * Not constant-time: not for secrets (use hex.h). Nothing is allocated. Any thread. Errors:
 * ERR_FORMAT, ERR_TOO_LONG.
 *
 *     n = base64_encode(text, p, len);                            // text has BASE64_LEN(len) bytes
 *     rc = base64_decode(out, sizeof out, &len, text, n);
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Digits and padding for n bytes / most bytes that n characters can hold. */
#define BASE64_LEN(n)     (((n) + 2) / 3 * 4)
#define BASE64_MAX_RAW(n) ((n) / 4 * 3)

/* Write BASE64_LEN(n) characters, no NUL. Returns how many. n <= SIZE_MAX / 2. */
size_t base64_encode(char *out, const void *p, size_t n);

/* Decode n characters into at most cap bytes; *out_len = bytes written. ERR_FORMAT, ERR_TOO_LONG
 * (more than cap bytes). */
int base64_decode(void *out, size_t cap, size_t *out_len, const char *text, size_t n)
    __attribute__((warn_unused_result));
