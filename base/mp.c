#include "base/mp.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mpscan.h"

/* ---- reading ---- */

int mp_doc_open(struct mp_doc *d, const void *p, size_t n, unsigned max_depth, size_t max_objects)
{
    size_t used;

    msgpack_unpacked_init(&d->box);
    int rc = mpscan(p, n, max_depth, max_objects, &used);
    if (rc != 0)
        return rc;
    if (used != n)
        return ERR_FORMAT;
    switch (msgpack_unpack_next(&d->box, p, n, NULL)) {
    case MSGPACK_UNPACK_SUCCESS:
        return 0;
    case MSGPACK_UNPACK_NOMEM_ERROR:
        rc = ERR_NOMEM;
        break;
    case MSGPACK_UNPACK_EXTRA_BYTES:
    case MSGPACK_UNPACK_CONTINUE:
    case MSGPACK_UNPACK_PARSE_ERROR:
        rc = ERR_FORMAT;
        break;
    }
    mp_doc_close(d);
    return rc;
}

void mp_doc_close(struct mp_doc *d)
{
    msgpack_unpacked_destroy(&d->box);
    msgpack_unpacked_init(&d->box);
}

static struct mp_in elements(const msgpack_object *o)
{
    if (o->type != MSGPACK_OBJECT_ARRAY)
        return (struct mp_in){.failed = true};
    return (struct mp_in){.at = o->via.array.ptr, .left = o->via.array.size};
}

struct mp_in mp_doc_array(const struct mp_doc *d)
{
    return elements(&d->box.data);
}

void mp_in_fail(struct mp_in *in)
{
    in->failed = true;
    in->left = 0;
}

static const msgpack_object *take(struct mp_in *in, msgpack_object_type type)
{
    if (in->left > 0 && in->at->type == type) {
        in->left--;
        return in->at++;
    }
    mp_in_fail(in);
    return NULL;
}

bool mp_in_nil(struct mp_in *in)
{
    return in->left > 0 && in->at->type == MSGPACK_OBJECT_NIL &&
           take(in, MSGPACK_OBJECT_NIL) != NULL;
}

uint64_t mp_in_u64(struct mp_in *in, uint64_t max)
{
    const msgpack_object *o = take(in, MSGPACK_OBJECT_POSITIVE_INTEGER);

    if (o != NULL && o->via.u64 <= max)
        return o->via.u64;
    mp_in_fail(in);
    return 0;
}

int64_t mp_in_i64(struct mp_in *in)
{
    if (in->left > 0 && in->at->type == MSGPACK_OBJECT_NEGATIVE_INTEGER)
        return take(in, MSGPACK_OBJECT_NEGATIVE_INTEGER)->via.i64;
    return (int64_t)mp_in_u64(in, INT64_MAX);
}

bool mp_in_bool(struct mp_in *in)
{
    const msgpack_object *o = take(in, MSGPACK_OBJECT_BOOLEAN);

    return o != NULL && o->via.boolean;
}

const uint8_t *mp_in_bin(struct mp_in *in, size_t *n, size_t max)
{
    *n = 0;
    if (mp_in_nil(in))
        return NULL;
    const msgpack_object *o = take(in, MSGPACK_OBJECT_BIN);
    if (o == NULL || o->via.bin.size > max) {
        mp_in_fail(in);
        return NULL;
    }
    *n = o->via.bin.size;
    return (const uint8_t *)o->via.bin.ptr;
}

const char *mp_in_str(struct mp_in *in, size_t *n, size_t max)
{
    const msgpack_object *o = take(in, MSGPACK_OBJECT_STR);

    *n = 0;
    if (o == NULL || o->via.str.size > max) {
        mp_in_fail(in);
        return NULL;
    }
    *n = o->via.str.size;
    return o->via.str.ptr;
}

bool mp_in_fixed(struct mp_in *in, void *out, size_t size)
{
    size_t n;
    const uint8_t *p = mp_in_bin(in, &n, size);

    if (p == NULL || n != size) {
        mp_in_fail(in);
        return false;
    }
    memcpy(out, p, size);
    return true;
}

struct mp_in mp_in_array(struct mp_in *in, uint32_t min, uint32_t max)
{
    const msgpack_object *o = take(in, MSGPACK_OBJECT_ARRAY);

    if (o != NULL && o->via.array.size >= min && o->via.array.size <= max)
        return elements(o);
    mp_in_fail(in);
    return (struct mp_in){.failed = true};
}

/* ---- writing ---- */

#define FIRST_ROOM 1024

static int grow_and_write(void *arg, const char *p, size_t n)
{
    struct mp_out *o = arg;

    if (o->err == 0 && n > o->max - o->n)
        o->err = ERR_TOO_LONG;
    if (o->err == 0 && n > o->cap - o->n) {
        size_t cap = o->cap > 0 ? 2 * o->cap : FIRST_ROOM;
        while (cap - o->n < n)
            cap *= 2;
        uint8_t *more = realloc(o->p, cap);
        o->err = more == NULL ? ERR_NOMEM : 0;
        o->p = more != NULL ? more : o->p;
        o->cap = more != NULL ? cap : o->cap;
    }
    if (o->err != 0)
        return -1;
    memcpy(o->p + o->n, p, n);
    o->n += n;
    return 0;
}

void mp_out_init(struct mp_out *o, size_t max)
{
    memset(o, 0, sizeof *o);
    o->max = max;
    msgpack_packer_init(&o->pk, o, grow_and_write);
}

void mp_out_free(struct mp_out *o)
{
    free(o->p);
    o->p = NULL;
    o->n = o->cap = 0;
}

void mp_out_bin(struct mp_out *o, const void *p, size_t n)
{
    msgpack_pack_bin(&o->pk, n);
    if (n > 0)
        msgpack_pack_bin_body(&o->pk, p, n);
}

void mp_out_nilbin(struct mp_out *o, const void *p, size_t n)
{
    if (p != NULL)
        mp_out_bin(o, p, n);
    else
        msgpack_pack_nil(&o->pk);
}

void mp_out_str(struct mp_out *o, const char *s, size_t n)
{
    msgpack_pack_str(&o->pk, n);
    if (n > 0)
        msgpack_pack_str_body(&o->pk, s, n);
}
