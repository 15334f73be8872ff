#include "transport/gob.h"

#include <stdbool.h>
#include <string.h>

#include "base/err.h"

/* Predefined type ids, and the first one a sender may define. */
enum {
    ID_BOOL = 1,
    ID_INT,
    ID_UINT,
    ID_FLOAT,
    ID_BYTES,
    ID_STRING,
    ID_COMPLEX,
    ID_INTERFACE,
    ID_FIRST_USER = 64,
};

/* What a definition makes; the values are the field numbers of Go's wire type, counted from 1. */
enum kind {
    KIND_BASIC,
    KIND_ARRAY,
    KIND_SLICE,
    KIND_STRUCT,
    KIND_MAP,
    KIND_GOB_ENCODER,
    KIND_BINARY,
    KIND_TEXT,
};

/* After all definitions are read, ids are replaced by places in gob.types: one look-up a
 * definition, none a value. */
struct field {
    const uint8_t *name;
    size_t name_len;
    int64_t id;
    const struct type *type;
};

struct type {
    enum kind kind;
    int64_t id;
    int64_t elem_id, key_id;
    uint64_t len; /* array */
    const struct type *elem, *key;
    size_t first_field, n_fields;
};

struct gob {
    int err;
    size_t n_types, n_fields;
    struct type types[GOB_MAX_TYPES];
    struct field fields[GOB_MAX_FIELDS_TOTAL];
};

#define BASIC(n) [n] = {.kind = KIND_BASIC, .id = (n)}
static const struct type basic[ID_INTERFACE + 1] = {
    BASIC(ID_BOOL),  BASIC(ID_INT),    BASIC(ID_UINT),    BASIC(ID_FLOAT),
    BASIC(ID_BYTES), BASIC(ID_STRING), BASIC(ID_COMPLEX), BASIC(ID_INTERFACE),
};

/* ---- primitives -------------------------------------------------------------------------------
 */

/* The first error stays, and a cursor that had failed by itself met the end of the input. It is
 * emptied so that every loop ends. */
static void fail(struct gob *g, struct rd *r, int err)
{
    if (g->err == 0)
        g->err = rd_failed(r) ? ERR_SHORT : err;
    rd_fail(r);
}

static bool failed(struct gob *g, struct rd *r)
{
    if (rd_failed(r))
        fail(g, r, ERR_SHORT);
    return g->err != 0;
}

static uint64_t get_uint(struct gob *g, struct rd *r)
{
    uint8_t b = rd_u8(r);
    uint64_t v = 0;
    const uint8_t *p;
    size_t n;

    if (b < 0x80)
        return b;
    n = 256u - b;
    if (n > 8) {
        fail(g, r, ERR_FORMAT);
        return 0;
    }
    p = rd_bytes(r, n);
    for (size_t i = 0; p != NULL && i < n; i++)
        v = v << 8 | p[i];
    return v;
}

static int64_t get_int(struct gob *g, struct rd *r)
{
    uint64_t u = get_uint(g, r);

    return (int64_t)(u & 1 ? ~(u >> 1) : u >> 1);
}

static struct gob_bytes get_bytes(struct gob *g, struct rd *r)
{
    uint64_t n = get_uint(g, r);
    struct gob_bytes b = {0};

    if (n > rd_left(r)) {
        rd_fail(r);
        return b;
    }
    b.n = (size_t)n;
    b.p = rd_bytes(r, b.n);
    return b;
}

/* Number of the next field of a struct value, 0 at its end. */
static uint64_t next_field(struct gob *g, struct rd *r, uint64_t last, uint64_t max)
{
    uint64_t delta = get_uint(g, r);

    if (delta == 0 || rd_failed(r))
        return 0;
    if (delta > max - last) {
        fail(g, r, ERR_FORMAT);
        return 0;
    }
    return last + delta;
}

/* ---- definitions ------------------------------------------------------------------------------
 */

/* common{Name, Id} and a struct's field{Name, Id} have one shape. */
static void get_name_id(struct gob *g, struct rd *r, struct gob_bytes *name, int64_t *id)
{
    uint64_t f = 0;

    while ((f = next_field(g, r, f, 2)) != 0) {
        if (f == 1)
            *name = get_bytes(g, r);
        else
            *id = get_int(g, r);
    }
}

static void get_field_list(struct gob *g, struct rd *r, struct type *t)
{
    uint64_t count = get_uint(g, r);

    if (count > GOB_MAX_FIELDS || count > GOB_MAX_FIELDS_TOTAL - g->n_fields)
        fail(g, r, ERR_LIMIT);
    if (failed(g, r))
        return;
    t->first_field = g->n_fields;
    t->n_fields = (size_t)count;
    for (uint64_t i = 0; i < count && !failed(g, r); i++) {
        struct field *f = &g->fields[g->n_fields++];
        struct gob_bytes name = {0};

        *f = (struct field){0};
        get_name_id(g, r, &name, &f->id);
        if (name.n == 0)
            fail(g, r, ERR_FORMAT);
        f->name = name.p;
        f->name_len = name.n;
    }
}

/* One of the seven structs that a wire type may hold: common first, then up to two fields by kind.
 */
static void get_type_body(struct gob *g, struct rd *r, struct type *t)
{
    static const uint8_t members[] = {
        [KIND_ARRAY] = 3,  [KIND_SLICE] = 2,       [KIND_STRUCT] = 2, [KIND_MAP] = 3,
        [KIND_BINARY] = 1, [KIND_GOB_ENCODER] = 1, [KIND_TEXT] = 1,
    };
    struct gob_bytes name;
    int64_t id;
    uint64_t f = 0;

    while ((f = next_field(g, r, f, members[t->kind])) != 0) {
        if (f == 1)
            get_name_id(g, r, &name, &id);
        else if (t->kind == KIND_STRUCT)
            get_field_list(g, r, t);
        else if (t->kind == KIND_MAP && f == 2)
            t->key_id = get_int(g, r);
        else if (t->kind == KIND_ARRAY && f == 3)
            t->len = (uint64_t)get_int(g, r);
        else
            t->elem_id = get_int(g, r);
    }
}

static const struct type *find_type(const struct gob *g, int64_t id)
{
    if (id > 0 && id <= ID_INTERFACE)
        return &basic[id];
    for (size_t i = 0; i < g->n_types; i++)
        if (g->types[i].id == id)
            return &g->types[i];
    return NULL;
}

/* A message that defines type id. Exactly one kind, nothing behind it. */
static void get_definition(struct gob *g, struct rd *r, int64_t id)
{
    struct type *t;
    uint64_t f;

    if (id < ID_FIRST_USER || find_type(g, id) != NULL) {
        fail(g, r, ERR_FORMAT);
        return;
    }
    if (g->n_types == GOB_MAX_TYPES) {
        fail(g, r, ERR_LIMIT);
        return;
    }
    t = &g->types[g->n_types++];
    *t = (struct type){.id = id};
    f = next_field(g, r, 0, KIND_TEXT);
    if (f != 0) {
        t->kind = (enum kind)f;
        get_type_body(g, r, t);
    }
    if (f == 0 || next_field(g, r, f, KIND_TEXT) != 0 || rd_left(r) != 0)
        fail(g, r, ERR_FORMAT);
}

/* Replace ids by types. A definition that points nowhere is refused, used or not. */
static void link_types(struct gob *g, struct rd *r)
{
    for (size_t i = 0; i < g->n_fields; i++) {
        g->fields[i].type = find_type(g, g->fields[i].id);
        if (g->fields[i].type == NULL)
            fail(g, r, ERR_FORMAT);
    }
    for (size_t i = 0; i < g->n_types; i++) {
        struct type *t = &g->types[i];

        t->elem = find_type(g, t->elem_id);
        t->key = find_type(g, t->key_id);
        if ((t->kind == KIND_ARRAY || t->kind == KIND_SLICE || t->kind == KIND_MAP) &&
            t->elem == NULL)
            fail(g, r, ERR_FORMAT);
        if (t->kind == KIND_MAP && t->key == NULL)
            fail(g, r, ERR_FORMAT);
    }
}

/* Read messages up to the first value; *value gets its bytes. NULL on errors. */
static const struct type *get_messages(struct gob *g, struct rd *in, struct rd *value)
{
    for (;;) {
        uint64_t n = get_uint(g, in);
        struct rd msg;
        int64_t id;

        if (n > rd_left(in))
            rd_fail(in);
        if (failed(g, in))
            return NULL;
        msg = rd_sub(in, (size_t)n);
        id = get_int(g, &msg);
        if (failed(g, &msg))
            return NULL;
        if (id >= 0) {
            link_types(g, &msg);
            *value = msg;
            return failed(g, &msg) ? NULL : find_type(g, id);
        }
        get_definition(g, &msg, id == INT64_MIN ? 0 : -id);
        if (failed(g, &msg))
            return NULL;
    }
}

/* ---- skipping ---------------------------------------------------------------------------------
 */

static void skip(struct gob *g, struct rd *r, const struct type *t, unsigned depth);

static void skip_basic(struct gob *g, struct rd *r, const struct type *t)
{
    switch (t->id) {
    case ID_BYTES:
    case ID_STRING:
        get_bytes(g, r);
        break;
    case ID_COMPLEX:
        get_uint(g, r);
        get_uint(g, r);
        break;
    case ID_INTERFACE: /* name of the concrete type (empty: nil), its id, length, value; no
                          definitions inside */
        if (get_bytes(g, r).n > 0) {
            if (get_int(g, r) < 0)
                fail(g, r, ERR_FORMAT);
            get_bytes(g, r);
        }
        break;
    default:
        get_uint(g, r);
    }
}

static void skip_struct(struct gob *g, struct rd *r, const struct type *t, unsigned depth)
{
    uint64_t f = 0;

    while ((f = next_field(g, r, f, t->n_fields)) != 0)
        skip(g, r, g->fields[t->first_field + (size_t)f - 1].type, depth);
}

/* Every element takes at least a byte, so the loop ends with the input at the latest. */
static void skip_list(struct gob *g, struct rd *r, const struct type *t, unsigned depth)
{
    uint64_t n = get_uint(g, r);

    if (t->kind == KIND_ARRAY && n != t->len)
        fail(g, r, ERR_FORMAT);
    if (n > rd_left(r))
        rd_fail(r);
    for (uint64_t i = 0; i < n && !rd_failed(r); i++) {
        if (t->kind == KIND_MAP)
            skip(g, r, t->key, depth);
        skip(g, r, t->elem, depth);
    }
}

static void skip(struct gob *g, struct rd *r, const struct type *t, unsigned depth)
{
    if (depth == 0) {
        fail(g, r, ERR_LIMIT);
        return;
    }
    switch (t->kind) {
    case KIND_BASIC:
        skip_basic(g, r, t);
        break;
    case KIND_STRUCT:
        skip_struct(g, r, t, depth - 1);
        break;
    case KIND_ARRAY:
    case KIND_SLICE:
    case KIND_MAP:
        skip_list(g, r, t, depth - 1);
        break;
    case KIND_GOB_ENCODER:
    case KIND_BINARY:
    case KIND_TEXT:
        get_bytes(g, r);
        break;
    }
}

/* ---- decoding by a table ----------------------------------------------------------------------
 */

static const struct gob_field_spec *find_spec(const struct gob_field_spec *spec, size_t n_spec,
                                              const struct field *f)
{
    for (size_t i = 0; i < n_spec; i++)
        if (strlen(spec[i].name) == f->name_len && memcmp(spec[i].name, f->name, f->name_len) == 0)
            return &spec[i];
    return NULL;
}

static bool type_fits(const struct gob_field_spec *spec, const struct type *t)
{
    switch (spec->type) {
    case GOB_I64:
        return t->id == ID_INT;
    case GOB_U16:
        return t->id == ID_UINT;
    case GOB_BOOL:
        return t->id == ID_BOOL;
    case GOB_F64:
        return t->id == ID_FLOAT;
    case GOB_BYTES:
        return t->id == ID_BYTES;
    case GOB_STRING:
        return t->id == ID_STRING;
    case GOB_PUBKEY:
        return t->kind == KIND_BINARY;
    case GOB_HASH:
        return t->kind == KIND_ARRAY && t->len == HASH_BYTES && t->elem->id == ID_UINT;
    case GOB_STRUCT:
        return t->kind == KIND_STRUCT;
    }
    return false;
}

/* Compare the definition of t with the table; returns how many fields they share. */
static size_t check_types(struct gob *g, struct rd *r, const struct gob_field_spec *spec,
                          size_t n_spec, const struct type *t)
{
    size_t shared = 0;

    for (size_t i = 0; i < t->n_fields; i++) {
        const struct field *f = &g->fields[t->first_field + i];
        const struct gob_field_spec *s = find_spec(spec, n_spec, f);

        if (s == NULL)
            continue;
        shared++;
        if (!type_fits(s, f->type))
            fail(g, r, ERR_FORMAT);
        else if (s->type == GOB_STRUCT)
            check_types(g, r, s->sub, s->n_sub, f->type);
    }
    return shared;
}

static void get_pubkey(struct gob *g, struct rd *r, struct pubkey *pk)
{
    struct gob_bytes b = get_bytes(g, r);

    if (rd_failed(r))
        return;
    if (b.n != PUBKEY_BYTES) {
        fail(g, r, ERR_FORMAT);
        return;
    }
    memcpy(pk->b, b.p, PUBKEY_BYTES);
    if (pubkey_check(pk) < 0)
        fail(g, r, ERR_KEY);
}

static uint64_t get_uint_max(struct gob *g, struct rd *r, uint64_t max)
{
    uint64_t v = get_uint(g, r);

    if (v > max)
        fail(g, r, ERR_FORMAT);
    return v;
}

static void get_hash(struct gob *g, struct rd *r, struct hash *out)
{
    if (get_uint(g, r) != HASH_BYTES)
        fail(g, r, ERR_FORMAT);
    for (size_t i = 0; i < HASH_BYTES; i++)
        out->b[i] = (uint8_t)get_uint_max(g, r, UINT8_MAX);
}

/* The bits travel with their bytes reversed, so that short mantissas become small numbers. */
static double get_float(struct gob *g, struct rd *r)
{
    uint64_t bits = __builtin_bswap64(get_uint(g, r));
    double v;

    memcpy(&v, &bits, sizeof v);
    return v;
}

static void get_struct(struct gob *g, struct rd *r, void *out, const struct gob_field_spec *spec,
                       size_t n_spec, const struct type *t, unsigned depth);

static void get_field(struct gob *g, struct rd *r, void *to, const struct gob_field_spec *s,
                      const struct type *t, unsigned depth)
{
    switch (s->type) {
    case GOB_I64:
        *(int64_t *)to = get_int(g, r);
        break;
    case GOB_U16:
        *(uint16_t *)to = (uint16_t)get_uint_max(g, r, UINT16_MAX);
        break;
    case GOB_BOOL:
        *(bool *)to = get_uint(g, r) != 0;
        break;
    case GOB_F64:
        *(double *)to = get_float(g, r);
        break;
    case GOB_BYTES:
    case GOB_STRING:
        *(struct gob_bytes *)to = get_bytes(g, r);
        break;
    case GOB_PUBKEY:
        get_pubkey(g, r, to);
        break;
    case GOB_HASH:
        get_hash(g, r, to);
        break;
    case GOB_STRUCT:
        get_struct(g, r, to, s->sub, s->n_sub, t, depth);
        break;
    }
}

static void get_struct(struct gob *g, struct rd *r, void *out, const struct gob_field_spec *spec,
                       size_t n_spec, const struct type *t, unsigned depth)
{
    uint64_t n = 0;

    while ((n = next_field(g, r, n, t->n_fields)) != 0) {
        const struct field *f = &g->fields[t->first_field + (size_t)n - 1];
        const struct gob_field_spec *s = find_spec(spec, n_spec, f);

        if (s != NULL)
            get_field(g, r, (char *)out + s->offset, s, f->type, depth - 1);
        else
            skip(g, r, f->type, depth - 1);
    }
}

int gob_decode(void *out, const struct gob_field_spec *spec, size_t n_spec, const void *p, size_t n)
{
    struct gob g;
    struct rd in = rd_init(p, n), value = rd_init(NULL, 0);
    const struct type *t;

    /* The tables are filled as definitions come; clearing 13 KiB for every object would cost more
     * than decoding it. */
    g.err = 0;
    g.n_types = g.n_fields = 0;
    t = get_messages(&g, &in, &value);
    if (g.err < 0)
        return g.err;
    if (t == NULL || t->kind != KIND_STRUCT)
        return ERR_FORMAT;
    if (check_types(&g, &value, spec, n_spec, t) == 0 && t->n_fields > 0)
        return ERR_FORMAT;
    get_struct(&g, &value, out, spec, n_spec, t, GOB_MAX_DEPTH);
    return failed(&g, &value) ? g.err : 0;
}

/* ---- encoder ----------------------------------------------------------------------------------
 */

void gob_put_uint(struct wr *w, uint64_t v)
{
    uint8_t be[8];
    size_t n = 8;

    if (v < 0x80) {
        wr_u8(w, (uint8_t)v);
        return;
    }
    put_be64(be, v);
    while (n > 1 && be[8 - n] == 0)
        n--;
    wr_u8(w, (uint8_t)(256u - n));
    wr_bytes(w, be + 8 - n, n);
}

void gob_put_int(struct wr *w, int64_t v)
{
    uint64_t u = (uint64_t)v << 1;

    gob_put_uint(w, v < 0 ? ~u : u);
}

void gob_put_float(struct wr *w, double v)
{
    uint64_t bits;

    memcpy(&bits, &v, sizeof bits);
    gob_put_uint(w, __builtin_bswap64(bits));
}

void gob_put_bytes(struct wr *w, const void *p, size_t n)
{
    gob_put_uint(w, n);
    wr_bytes(w, p, n);
}
