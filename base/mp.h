/*
 * mp - MessagePack with the manners of base/: a cursor with a sticky error over what msgpack-c has
 * unpacked, and a growing output that msgpack-c's packer writes to.
 *
 * Reading. mp_doc_open() looks the bytes over with mpscan first, so that hostile counts never reach
 * msgpack-c, and unpacks them. struct mp_in walks the elements of one array: each function takes
 * the next one and marks the cursor as failed when there is none or it has another type; a failed
 * cursor gives zeros, and the caller asks once, at the end, for mp_in_failed(). Elements behind
 * those that are read are ignored: arrays may grow in later versions. Binaries and texts point into
 * the bytes that were given.
 *
 * Writing. mp_out_init(); msgpack_pack_…(&o->pk, …); what could not be allocated, or would pass
 * max, is remembered in o->err.
 *
 * One owner each, any thread. Errors: those of mpscan(), ERR_FORMAT (bytes behind the object, or no
 * array), ERR_NOMEM, ERR_TOO_LONG.
 *
 *     struct mp_doc d;
 *     int rc = mp_doc_open(&d, p, n, 4, 100);
 *     struct mp_in in = mp_doc_array(&d);
 *     seq = mp_in_u64(&in, UINT64_MAX);
 *     if (rc == 0 && mp_in_failed(&in))
 *         rc = ERR_FORMAT;
 *     mp_doc_close(&d);
 */
#pragma once

#include <msgpack.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mp_doc {
    msgpack_unpacked box;
};

/* Exactly one object of n bytes. On errors there is nothing to read, and closing is harmless. */
int mp_doc_open(struct mp_doc *d, const void *p, size_t n, unsigned max_depth, size_t max_objects)
    __attribute__((warn_unused_result));
void mp_doc_close(struct mp_doc *d);

struct mp_in {
    const msgpack_object *at;
    uint32_t left; /* elements */
    bool failed;
};

/* Elements of the document, which must be an array. */
struct mp_in mp_doc_array(const struct mp_doc *d);

static inline bool mp_in_failed(const struct mp_in *in)
{
    return in->failed;
}
void mp_in_fail(struct mp_in *in);
/* Is the next element nil? It is taken then. */
bool mp_in_nil(struct mp_in *in);
/* Numbers of 0 … max; INT64_MIN … INT64_MAX. */
uint64_t mp_in_u64(struct mp_in *in, uint64_t max);
int64_t mp_in_i64(struct mp_in *in);
bool mp_in_bool(struct mp_in *in);
/* At most max bytes; NULL for nil (which is no failure) and after one. An empty one is not NULL. */
const uint8_t *mp_in_bin(struct mp_in *in, size_t *n, size_t max);
const char *mp_in_str(struct mp_in *in, size_t *n, size_t max);
/* A binary of exactly this size, copied out; false (failed) for everything else. */
bool mp_in_fixed(struct mp_in *in, void *out, size_t size);
/* The next element, an array of min … max elements. */
struct mp_in mp_in_array(struct mp_in *in, uint32_t min, uint32_t max);

struct mp_out {
    msgpack_packer pk;
    uint8_t *p; /* malloc'ed */
    size_t n, cap, max;
    int err;
};

/* o must not move afterwards. */
void mp_out_init(struct mp_out *o, size_t max);
void mp_out_free(struct mp_out *o);
/* A binary; p may be NULL when n is 0. */
void mp_out_bin(struct mp_out *o, const void *p, size_t n);
/* The same, but nil for NULL. */
void mp_out_nilbin(struct mp_out *o, const void *p, size_t n);
void mp_out_str(struct mp_out *o, const char *s, size_t n);
