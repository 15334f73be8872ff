/*
 * cursor - read and write positions in a byte array, with a sticky error.
 *
 * A struct rd walks over bytes that somebody sent; a struct wr fills an array of the caller. The
 * first access that does not fit marks the cursor as failed; from then on every read gives 0 or
 * NULL, every write does nothing, and the caller checks once at the end. Bounds are only ever
 * tested as "left >= n", so no length, however large, can overflow.
 *
 * Cursors are values on the caller's stack and own nothing: pointers from rd_bytes() point into the
 * input and live as long as it does. Beside them, get_be32() and its kin read and write integers at
 * an address the caller has checked already. Nothing here allocates, asserts or depends on the
 * host's byte order or alignment.
 *
 * Errors: rd_failed()/wr_failed(); the caller translates (normally ERR_SHORT or ERR_FORMAT for
 * input, ERR_TOO_LONG for output).
 *
 *     struct rd r = rd_init(p, n);
 *     h.type = rd_u8(&r);  h.id = rd_be32(&r);  body = rd_bytes(&r, h.len);
 *     if (rd_failed(&r) || rd_left(&r) != 0)
 *         return ERR_FORMAT;
 */
#pragma once

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* ---- integers at an address ---- */

#define CURSOR_INT(order, bits)                                                                    \
    static inline uint##bits##_t get_##order##bits(const void *p)                                  \
    {                                                                                              \
        uint##bits##_t v;                                                                          \
        memcpy(&v, p, sizeof v);                                                                   \
        return order##bits##toh(v);                                                                \
    }                                                                                              \
    static inline void put_##order##bits(void *p, uint##bits##_t v)                                \
    {                                                                                              \
        v = hto##order##bits(v);                                                                   \
        memcpy(p, &v, sizeof v);                                                                   \
    }

CURSOR_INT(be, 16) /* get_be16(p), put_be16(p, v) */
CURSOR_INT(be, 32)
CURSOR_INT(be, 64)
CURSOR_INT(le, 16)
CURSOR_INT(le, 32)
CURSOR_INT(le, 64)

/* ---- reading ---- */

struct rd {
    const uint8_t *p;
    size_t left; /* 0 once failed */
    bool failed;
};

/* Cursor over n bytes; p may be NULL when n is 0. */
static inline struct rd rd_init(const void *p, size_t n)
{
    return (struct rd){.p = p != NULL ? p : "", .left = n};
}

/* Mark as failed: for a value that was read but may not be. */
static inline void rd_fail(struct rd *r)
{
    r->failed = true;
    r->left = 0;
}

static inline bool rd_failed(const struct rd *r)
{
    return r->failed;
}

static inline size_t rd_left(const struct rd *r)
{
    return r->left;
}

/* The next n bytes, in place; NULL exactly when the cursor has failed (n = 0 gives a pointer too).
 */
static inline const uint8_t *rd_bytes(struct rd *r, size_t n)
{
    if (r->failed || r->left < n) {
        rd_fail(r);
        return NULL;
    }
    const uint8_t *p = r->p;
    r->p += n;
    r->left -= n;
    return p;
}

static inline void rd_skip(struct rd *r, size_t n)
{
    (void)rd_bytes(r, n);
}

/* Copy the next n bytes to out; zeros when they are not there. */
static inline void rd_copy(struct rd *r, void *out, size_t n)
{
    const uint8_t *p = rd_bytes(r, n);
    if (n == 0)
        return;
    if (p != NULL)
        memcpy(out, p, n);
    else
        memset(out, 0, n);
}

/* A cursor over the next n bytes, for an object inside; failed when they are not there (then this
 * one fails too). */
static inline struct rd rd_sub(struct rd *r, size_t n)
{
    const uint8_t *p = rd_bytes(r, n);
    return (struct rd){.p = p, .left = p != NULL ? n : 0, .failed = p == NULL};
}

static inline uint8_t rd_u8(struct rd *r)
{
    const uint8_t *p = rd_bytes(r, 1);
    return p != NULL ? *p : 0;
}

#define CURSOR_RD(order, bits)                                                                     \
    static inline uint##bits##_t rd_##order##bits(struct rd *r)                                    \
    {                                                                                              \
        const uint8_t *p = rd_bytes(r, bits / 8);                                                  \
        return p != NULL ? get_##order##bits(p) : 0;                                               \
    }

CURSOR_RD(be, 16) /* rd_be16(&r) */
CURSOR_RD(be, 32)
CURSOR_RD(be, 64)
CURSOR_RD(le, 16)
CURSOR_RD(le, 32)
CURSOR_RD(le, 64)

/* ---- writing ---- */

struct wr {
    uint8_t *p; /* start of the caller's array */
    size_t len, cap;
    bool failed;
};

/* Cursor over an array of cap bytes; p may be NULL when cap is 0. */
static inline struct wr wr_init(void *p, size_t cap)
{
    return (struct wr){.p = p, .cap = cap};
}

static inline bool wr_failed(const struct wr *w)
{
    return w->failed;
}

/* Bytes written so far; what fitted before a failure stays counted. */
static inline size_t wr_len(const struct wr *w)
{
    return w->len;
}

/* Room for the next n bytes, to be filled by the caller; NULL exactly when it fails, except that n
 * = 0 may give NULL. */
static inline uint8_t *wr_room(struct wr *w, size_t n)
{
    if (w->failed || w->cap - w->len < n) {
        w->failed = true;
        return NULL;
    }
    uint8_t *p = n != 0 ? w->p + w->len : NULL;
    w->len += n;
    return p;
}

static inline void wr_bytes(struct wr *w, const void *src, size_t n)
{
    uint8_t *p = wr_room(w, n);
    if (p != NULL)
        memcpy(p, src, n);
}

static inline void wr_u8(struct wr *w, uint8_t v)
{
    wr_bytes(w, &v, 1);
}

#define CURSOR_WR(order, bits)                                                                     \
    static inline void wr_##order##bits(struct wr *w, uint##bits##_t v)                            \
    {                                                                                              \
        uint8_t *p = wr_room(w, bits / 8);                                                         \
        if (p != NULL)                                                                             \
            put_##order##bits(p, v);                                                               \
    }

CURSOR_WR(be, 16) /* wr_be16(&w, v) */
CURSOR_WR(be, 32)
CURSOR_WR(be, 64)
CURSOR_WR(le, 16)
CURSOR_WR(le, 32)
CURSOR_WR(le, 64)

#undef CURSOR_INT
#undef CURSOR_RD
#undef CURSOR_WR
