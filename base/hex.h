/*
 * hex - bytes to hexadecimal digits and back.
 *
 * Both directions take the same time and touch the same memory for all contents of a given length,
 * so they may be used on secret keys. Nothing is allocated; outputs are the caller's. Any thread.
 * Errors: ERR_FORMAT.
 *
 *     char text[HEX_LEN(sizeof id) + 1];
 *     hex_encode(text, id, sizeof id);
 *     if (hex_decode(id, sizeof id, text, strlen(text)) != 0)
 *         return ERR_FORMAT;
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define HEX_LEN(n) ((n)*2)

/* 2n lower-case digits and a NUL to out. Returns out. */
char *hex_encode(char *out, const void *p, size_t n);

/* Exactly `size` bytes from exactly 2 * size digits of any case; text_len is the text's length.
 * ERR_FORMAT, out is zeroed then. */
int hex_decode(void *out, size_t size, const char *text, size_t text_len)
    __attribute__((warn_unused_result));
