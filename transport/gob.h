/*
 * gob - the part of Go's gob encoding that dmsg peers use (docs/protocol/dmsg.md §4.4).
 *
 * A gob object carries its own type definitions: numbered types, structs with named fields, then
 * one value. Numbers and order are the sender's business, so the reader matches fields by name and
 * skips, by type, what it does not know. gob_decode() fills a C struct described by a table of
 * fields; nothing is allocated, byte strings point into the input and live as long as it does.
 *
 * As with Go, what a field may be is judged by its definition, whether or not the value has it: a
 * Timestamp declared unsigned is refused. A missing field leaves the zero value. What follows the
 * first value is ignored.
 *
 * Limits, all on hostile input: GOB_MAX_TYPES definitions, GOB_MAX_FIELDS fields in a struct and
 * GOB_MAX_FIELDS_TOTAL in all, nesting GOB_MAX_DEPTH; every length is compared with the bytes left
 * before it is used, and the work is linear in the input. The decoder's state is about 13 KiB on
 * the stack.
 *
 * Errors: ERR_SHORT (ends too early), ERR_FORMAT (malformed, wrong type, value out of range),
 * ERR_LIMIT (a cap), ERR_KEY (a key that is no point). Any thread.
 *
 *     struct pair { int64_t time; uint16_t port; };
 *     static const struct gob_field_spec spec[] = {
 *         {.name = "Time", .type = GOB_I64, .offset = offsetof(struct pair, time)},
 *         {.name = "Port", .type = GOB_U16, .offset = offsetof(struct pair, port)},
 *     };
 *     struct pair v = {0};
 *     rc = gob_decode(&v, spec, 2, p, n);
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/crypto.h"
#include "base/cursor.h"

#define GOB_MAX_TYPES        64
#define GOB_MAX_FIELDS       64
#define GOB_MAX_FIELDS_TOTAL 256
#define GOB_MAX_DEPTH        16

/* C type of a field, and the gob type that it takes. */
enum gob_spec_type {
    GOB_I64,    /* int64_t           int                                     */
    GOB_U16,    /* uint16_t          uint; above 65535 is ERR_FORMAT         */
    GOB_BOOL,   /* bool              bool                                    */
    GOB_F64,    /* double            float                                   */
    GOB_BYTES,  /* struct gob_bytes  bytes                                   */
    GOB_STRING, /* struct gob_bytes  string                                  */
    GOB_PUBKEY, /* struct pubkey     binary marshaler of 33 bytes, a point   */
    GOB_HASH,   /* struct hash       array of 32 uint                        */
    GOB_STRUCT, /* the struct itself, described by sub                       */
};

struct gob_bytes {
    const uint8_t *p; /* into the input; NULL when absent */
    size_t n;
};

struct gob_field_spec {
    const char *name;
    enum gob_spec_type type;
    size_t offset; /* in the C struct */
    const struct gob_field_spec *sub;
    size_t n_sub;
};

/* Decode the value in p[0..n) into *out, which the caller has set to its defaults. On an error *out
 * may be half filled. Refused too, as in Go, is a struct that shares no field with the table
 * (unless it has no fields at all). */
int gob_decode(void *out, const struct gob_field_spec *spec, size_t n_spec, const void *p, size_t n)
    __attribute__((warn_unused_result));

/* Primitives of the encoder; definitions are constant bytes. */
void gob_put_uint(struct wr *w, uint64_t v);
void gob_put_int(struct wr *w, int64_t v);
void gob_put_float(struct wr *w, double v);
void gob_put_bytes(struct wr *w, const void *p, size_t n);
