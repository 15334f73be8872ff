/*
 * json - pull parser over bytes in memory, and a writer that reproduces the peers' two JSON
 * dialects byte for byte.
 *
 * The names keep clear of jansson, which the node uses for its configuration.
 *
 * Parser
 *     struct json_in walks over a byte range that stays the caller's; nothing is copied or
 * allocated, and the range must outlive it. The grammar is RFC 8259 as the peers' standard decoder
 * applies it (docs/protocol/services.md §1 "Reading JSON", dht.md §3.3): no byte-order mark, no
 * control characters in strings, no leading zeros, lone surrogates and invalid UTF-8 become U+FFFD,
 * member names match without regard to case. Nesting is capped at JSON_DEPTH_MAX.
 *
 *     The first error sticks: from then on json_in_next() gives JSON_TOK_ERROR, the readers return
 * false and the loops end, so that one look at json_in_end_value() or json_in_end_input() after the
 * last read is enough. The two are the two modes the peers have: the first value counts and the
 * rest is ignored, or anything but blanks behind the value is an error.
 *
 *     Readers (json_in_u64, json_in_string, …) consume exactly one value. `null` leaves the output
 * as it was, as the peers do: set the default first. Duplicate members arrive in order, so the last
 * one wins by itself. A value of another type is ERR_FORMAT.
 *
 *         struct json_in j = json_in_init(body, body_len);
 *         if (json_in_object(&j))
 *             while (json_in_member(&j)) {
 *                 if (json_in_name_is(&j, "seq"))
 *                     json_in_u64(&j, &seq);
 *                 else
 *                     json_in_skip(&j);
 *             }
 *         rc = json_in_end_input(&j);
 *
 * Writer
 *     struct json_out appends to a fixed buffer of the caller's, or to one it grows up to a
 * maximum. The first error (ERR_TOO_LONG, ERR_NOMEM) sticks and nothing is written any more; check
 * o->err once at the end. Commas are put by the writer; that names and ends stand where they belong
 * is the caller's duty. JSON_FAST is the signing canon of entries, JSON_STD the standard writer
 *     (docs/protocol/services.md §1, writers A and B).
 *
 *         struct json_out o;
 *         json_out_fixed(&o, JSON_FAST, buf, sizeof buf);
 *         json_out_object(&o);
 *         json_out_name(&o, "sequence");
 *         json_out_u64(&o, 7);
 *         json_out_object_end(&o);
 *         if (o.err == 0) use(o.p, o.len);
 *
 * Errors: ERR_SHORT (input ends inside the value), ERR_FORMAT (grammar or type), ERR_LIMIT
 * (nesting), ERR_TOO_LONG (a string does not fit the caller's buffer). Threads: both structs belong
 * to one thread at a time.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JSON_DEPTH_MAX 512u

enum json_tok {
    JSON_TOK_ERROR, /* see err */
    JSON_TOK_END,   /* the value is complete; what follows it was not looked at */
    JSON_TOK_OBJECT,
    JSON_TOK_OBJECT_END,
    JSON_TOK_ARRAY,
    JSON_TOK_ARRAY_END,
    JSON_TOK_NAME,
    JSON_TOK_STRING,
    JSON_TOK_NUMBER,
    JSON_TOK_TRUE,
    JSON_TOK_FALSE,
    JSON_TOK_NULL,
};

/* Read-only for the caller. text is the token as it stands in the input, without the quotes of
 * names and strings. */
struct json_in {
    const char *pos, *end;
    int err;
    enum json_tok tok;
    const char *text;
    size_t text_len;
    bool plain; /* name or string: ASCII without escapes, so that text is what it means */
    bool held;  /* tok was looked at by json_in_peek() and not consumed */
    bool name_plain;
    uint8_t expect;
    unsigned depth;
    const char *name; /* last member name */
    size_t name_len;
    uint64_t in_object[JSON_DEPTH_MAX / 64];
};

/* ---- parser: tokens ---- */

struct json_in json_in_init(const void *p, size_t n);

/* Next token. After JSON_TOK_END and JSON_TOK_ERROR the same is returned for ever. */
enum json_tok json_in_next(struct json_in *j);

/* The token that json_in_next() will return. */
enum json_tok json_in_peek(struct json_in *j);

/* Mark the input as bad (err < 0) when the caller finds a value unacceptable; the first error
 * stays. */
void json_in_fail(struct json_in *j, int err);

/* 0 when one whole value was read; what follows is ignored. Else the error, or ERR_SHORT when it
 * was not read to its end. */
int json_in_end_value(struct json_in *j) __attribute__((warn_unused_result));

/* The same, and nothing but blanks may follow (ERR_FORMAT). */
int json_in_end_input(struct json_in *j) __attribute__((warn_unused_result));

/* ---- parser: values ---- */

/* Enter an object or array. False for null (consumed) and on errors. */
bool json_in_object(struct json_in *j);
bool json_in_array(struct json_in *j);

/* Next member of the object / element of the array that was entered; false at its end (consumed)
 * and on errors. The caller consumes the member's value or the element before the next call. */
bool json_in_member(struct json_in *j);
bool json_in_element(struct json_in *j);

/* Does the last member name equal this ASCII text, letter case ignored? Folds as the peers do:
 * U+017F is s, U+212A is k. */
bool json_in_name_is(const struct json_in *j, const char *name);

/* Index of the last member name in a list, or -1. */
int json_in_name_find(const struct json_in *j, const char *const *names, size_t count);

/* Plain decimal integers only: fraction, exponent, sign where it cannot be, or a value outside of
 * the range is ERR_FORMAT. True when a value was stored; false for null and errors. */
bool json_in_u64(struct json_in *j, uint64_t *out);
bool json_in_i64(struct json_in *j, int64_t *out);
bool json_in_uint(struct json_in *j, uint64_t max, uint64_t *out); /* 0 … max */
bool json_in_bool(struct json_in *j, bool *out);

/* Decoded string with a NUL behind it; *n is its length without (it may hold NULs). ERR_TOO_LONG
 * when it does not fit cap bytes. */
bool json_in_string(struct json_in *j, char *out, size_t cap, size_t *n);

/* Consume the value; *p, *n (may be NULL) get its text in the input, white space inside included.
 */
void json_in_skip(struct json_in *j);
void json_in_skip_text(struct json_in *j, const char **p, size_t *n);

/* ---- writer ---- */

enum json_dialect {
    JSON_FAST, /* writer A: escapes only what must be, invalid UTF-8 as it is, \u0008 and \u000c */
    JSON_STD,  /* writer B: also \u003c \u003e \u0026 \u2028 \u2029, invalid UTF-8 as \ufffd, \b and
                  \f */
};

struct json_out {
    char *p; /* the text so far, not NUL-terminated */
    size_t len, cap, max;
    int err;
    enum json_dialect dialect;
    bool grows;
    bool comma; /* a value precedes on this level */
};

/* Into the caller's buffer. */
void json_out_fixed(struct json_out *o, enum json_dialect dialect, void *buf, size_t cap);

/* Into memory of its own, at most max bytes; json_out_free() afterwards (the caller may also take
 * over o->p and free() it). */
void json_out_grow(struct json_out *o, enum json_dialect dialect, size_t max);
void json_out_free(struct json_out *o);

void json_out_object(struct json_out *o);
void json_out_object_end(struct json_out *o);
void json_out_array(struct json_out *o);
void json_out_array_end(struct json_out *o);
void json_out_name(struct json_out *o, const char *name);
void json_out_name_n(struct json_out *o, const char *name, size_t n);
void json_out_string(struct json_out *o, const void *p, size_t n);
void json_out_str(struct json_out *o, const char *s); /* NUL-terminated */
void json_out_u64(struct json_out *o, uint64_t v);
void json_out_i64(struct json_out *o, int64_t v);
/* As base/json_double.h has it; a number that is not finite is ERR_FORMAT. */
void json_out_double(struct json_out *o, double v);
void json_out_bool(struct json_out *o, bool v);
void json_out_null(struct json_out *o);

/* A value that is JSON already. */
void json_out_raw(struct json_out *o, const void *p, size_t n);

/* A string of n bytes that need no escape in either dialect (hex, base64): the caller fills the
 * returned room; NULL on errors. The room is valid until the next call. */
char *json_out_plain(struct json_out *o, size_t n);

/* Bytes as a string of lower-case hex digits. */
void json_out_hex(struct json_out *o, const uint8_t *p, size_t n);

/* Write the name the parser saw last, or consume its next value and write it anew in the writer's
 * dialect: white space goes, strings are escaped anew, numbers stay as they are. Parser errors are
 * found with json_in_end_value(). */
void json_out_copy_name(struct json_out *o, const struct json_in *j);
void json_out_copy_value(struct json_out *o, struct json_in *j);
