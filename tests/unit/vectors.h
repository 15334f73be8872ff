/*
 * vectors - read tests/vectors/<name>.json in tests; a missing file, member or a wrong type fails
 * the test.
 *
 * The files are found below KADMSG_SRC, or below the current folder (tests run from the root of the
 * tree).
 *
 *     json_t *root = vectors_load("dmsg");
 *     const json_t *v;
 *     size_t i;
 *     json_array_foreach(vec_get(root, "ecdh"), i, v) {
 *         uint8_t want[32];
 *         vec_hex(v, "shared32", want, sizeof want);
 *     }
 *     json_decref(root);
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

/* Whole file as a new reference. 18446744073709551615 becomes a text. */
json_t *vectors_load(const char *name);

/* Member of an object; borrowed. */
const json_t *vec_get(const json_t *obj, const char *key);
const char *vec_str(const json_t *obj, const char *key);
long long vec_int(const json_t *obj, const char *key);
bool vec_bool(const json_t *obj, const char *key);

/* Member that is hex of exactly n bytes. */
void vec_hex(const json_t *obj, const char *key, void *out, size_t n);

/* Member that is hex of any length. The result is the caller's (free()) and has exactly *n bytes,
 * so that the address sanitizer sees a read past the end. */
uint8_t *vec_hex_dup(const json_t *obj, const char *key, size_t *n);

/* The same for a text at hand. */
uint8_t *hex_dup(const char *text, size_t *n);
