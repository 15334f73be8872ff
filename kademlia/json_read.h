/*
 * json_read - texts and keys out of JSON with the peers' rules, for the codecs of this folder.
 *
 * Strings are nearly always plain and are then used where they stand; the rest is decoded into a
 * scratch buffer that is used again and again. Errors stick in the parser: ERR_FORMAT, ERR_NOMEM.
 * One thread.
 *
 *     struct json_scratch s = {0};
 *     if (json_read_text(&j, &s, &text, &n)) ...
 *     json_scratch_free(&s);
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/crypto.h"
#include "base/json.h"

struct json_scratch { /* all zero at first */
    char *p;
    size_t cap;
};

void json_scratch_free(struct json_scratch *s);

/* The next value as a string, not NUL-terminated, valid until the next call with this scratch or
 * the end of the input's life. False for null (consumed) and errors. */
bool json_read_text(struct json_in *j, struct json_scratch *s, const char **text, size_t *n);

/* A key as the peers read it (dht.md §3.3); null leaves it alone. */
void json_read_pubkey(struct json_in *j, struct json_scratch *s, struct pubkey *pk);

/* Reads the members of a record that is one object into rec, and reads over those it does not know. */
typedef void json_members_fn(struct json_in *j, struct json_scratch *s, void *rec);

/* A whole input that is one object: rec is cleared, filled in by fn, and cleared again on errors: ERR_FORMAT (also
 * for null), ERR_TOO_LONG (fn says so), ERR_NOMEM. */
int json_read_record(void *rec, size_t size, const void *p, size_t n, json_members_fn *fn)
    __attribute__((warn_unused_result));

/* The next value as a text of at most cap - 1 bytes without NUL, and a NUL behind it; a longer one,
 * or one with a NUL, is ERR_FORMAT. null leaves it alone. */
void json_read_short(struct json_in *j, struct json_scratch *s, char *out, size_t cap);
