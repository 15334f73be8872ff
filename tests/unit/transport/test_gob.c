/* gob: primitives, recorded objects of Go, foreign shapes, and everything hostile that a definition
 * or a value can hold. */
#include "transport/gob.h"

#include <stdio.h>

#include "base/err.h"
#include "tests/unit/vectors.h"

#define LEN(a) (sizeof(a) / sizeof((a)[0]))

struct addr {
    struct pubkey pk;
    uint16_t port;
};

struct record {
    int64_t time;
    struct addr src, dst;
    bool flag;
    double lat;
    struct gob_bytes noise, text;
    struct hash hash;
};

#define F(s, m, nm, ty)                                                                            \
    {                                                                                              \
        .name = (nm), .type = (ty), .offset = offsetof(struct s, m)                                \
    }

static const struct gob_field_spec addr_spec[] = {F(addr, pk, "PK", GOB_PUBKEY),
                                                  F(addr, port, "Port", GOB_U16)};
static const struct gob_field_spec spec[] = {
    F(record, time, "Timestamp", GOB_I64),
    {.name = "SrcAddr",
     .type = GOB_STRUCT,
     .offset = offsetof(struct record, src),
     .sub = addr_spec,
     .n_sub = 2},
    {.name = "DstAddr",
     .type = GOB_STRUCT,
     .offset = offsetof(struct record, dst),
     .sub = addr_spec,
     .n_sub = 2},
    F(record, flag, "Flag", GOB_BOOL),
    F(record, lat, "Lat", GOB_F64),
    F(record, noise, "NoiseMsg", GOB_BYTES),
    F(record, text, "Text", GOB_STRING),
    F(record, hash, "Hash", GOB_HASH),
};

static int decode(struct record *r, const void *p, size_t n)
{
    *r = (struct record){0};
    return gob_decode(r, spec, LEN(spec), p, n);
}

/* ---- a small encoder of definitions, for shapes that no recording has ---- */

struct msg {
    uint8_t b[4096];
    struct wr w;
};

static struct msg *msg(void)
{
    static struct msg pool[8];
    static unsigned next;
    struct msg *m = &pool[next++ % 8];

    m->w = wr_init(m->b, sizeof m->b);
    return m;
}

static struct wr out;
static uint8_t out_bytes[1 << 16];

static void begin(void)
{
    out = wr_init(out_bytes, sizeof out_bytes);
}

static void send_msg(const struct msg *m)
{
    assert_false(wr_failed(&m->w));
    gob_put_bytes(&out, m->b, wr_len(&m->w));
    assert_false(wr_failed(&out));
}

static void put_common(struct wr *w, const char *name, int id)
{
    gob_put_uint(w, 1);
    gob_put_bytes(w, name, strlen(name));
    gob_put_uint(w, 1);
    gob_put_int(w, id);
    gob_put_uint(w, 0);
}

/* Start of a definition: type id, kind (field number in the wire type), common. */
static struct msg *define(int id, unsigned kind)
{
    struct msg *m = msg();

    gob_put_int(&m->w, -id);
    gob_put_uint(&m->w, kind);
    gob_put_uint(&m->w, 1);
    put_common(&m->w, "T", id);
    return m;
}

static void define_end(struct msg *m)
{
    gob_put_uint(&m->w, 0);
    gob_put_uint(&m->w, 0);
    send_msg(m);
}

/* struct id { names[i] ids[i] } */
static void define_struct(int id, const char *const *names, const int *ids, size_t n)
{
    struct msg *m = define(id, 3);

    gob_put_uint(&m->w, 1);
    gob_put_uint(&m->w, n);
    for (size_t i = 0; i < n; i++)
        put_common(&m->w, names[i], ids[i]);
    define_end(m);
}

/* array (1), slice (2) or map (4) of elem; len and key where they apply */
static void define_list(int id, unsigned kind, int elem, int64_t len, int key)
{
    struct msg *m = define(id, kind);

    gob_put_uint(&m->w, 1);
    gob_put_int(&m->w, kind == 4 ? key : elem);
    if (kind == 1 || kind == 4) {
        gob_put_uint(&m->w, 1);
        gob_put_int(&m->w, kind == 4 ? elem : len);
    }
    define_end(m);
}

static struct msg *value(int id)
{
    struct msg *m = msg();

    gob_put_int(&m->w, id);
    return m;
}

static int decode_out(struct record *r)
{
    uint8_t *copy = malloc(wr_len(&out));
    int rc;

    memcpy(copy, out_bytes, wr_len(&out));
    rc = decode(r, copy, wr_len(&out));
    free(copy);
    return rc;
}

/* A struct of one field of this type, whose value is written by the caller. */
static struct msg *one_field(const char *name, int type)
{
    const char *const names[] = {name, "Timestamp"};
    const int ids[] = {type, 2};
    struct msg *m;

    define_struct(70, names, ids, 2);
    m = value(70);
    gob_put_uint(&m->w, 1);
    return m;
}

/* Its end: Timestamp 7, so that the reader is known to have found the way behind the first field.
 */
static int finish(struct msg *m, struct record *r)
{
    gob_put_uint(&m->w, 1);
    gob_put_int(&m->w, 7);
    gob_put_uint(&m->w, 0);
    send_msg(m);
    return decode_out(r);
}

/* ---- tests ---- */

static void test_primitives(void **state)
{
    static const struct {
        uint64_t v;
        const char *bytes;
        size_t n;
    } uints[] = {
        {0, "\x00", 1},
        {127, "\x7f", 1},
        {128, "\xff\x80", 2},
        {255, "\xff\xff", 2},
        {256, "\xfe\x01\x00", 3},
        {65536, "\xfd\x01\x00\x00", 4},
        {UINT64_MAX, "\xf8\xff\xff\xff\xff\xff\xff\xff\xff", 9},
    };
    static const struct {
        int64_t v;
        const char *bytes;
        size_t n;
    } ints[] = {
        {0, "\x00", 1},
        {-1, "\x01", 1},
        {1, "\x02", 1},
        {-64, "\x7f", 1},
        {64, "\xff\x80", 2},
        {-65, "\xff\x81", 2},
        {INT64_MAX, "\xf8\xff\xff\xff\xff\xff\xff\xff\xfe", 9},
        {INT64_MIN, "\xf8\xff\xff\xff\xff\xff\xff\xff\xff", 9},
    };
    uint8_t buf[16];

    (void)state;
    for (size_t i = 0; i < LEN(uints); i++) {
        struct wr w = wr_init(buf, sizeof buf);
        gob_put_uint(&w, uints[i].v);
        assert_int_equal(wr_len(&w), uints[i].n);
        assert_memory_equal(buf, uints[i].bytes, uints[i].n);
    }
    for (size_t i = 0; i < LEN(ints); i++) {
        struct wr w = wr_init(buf, sizeof buf);
        struct record r;

        gob_put_int(&w, ints[i].v);
        assert_int_equal(wr_len(&w), ints[i].n);
        assert_memory_equal(buf, ints[i].bytes, ints[i].n);
        /* And back. */
        begin();
        const char *const names[] = {"Timestamp"};
        const int ids[] = {2};
        define_struct(65, names, ids, 1);
        struct msg *m = value(65);
        gob_put_uint(&m->w, 1);
        gob_put_int(&m->w, ints[i].v);
        gob_put_uint(&m->w, 0);
        send_msg(m);
        assert_int_equal(decode_out(&r), 0);
        assert_true(r.time == ints[i].v);
    }
    struct wr w = wr_init(buf, sizeof buf);
    gob_put_float(&w, 17.0); /* the example of Go's documentation of the format: fe 31 40 */
    assert_int_equal(wr_len(&w), 3);
    assert_memory_equal(buf, "\xfe\x31\x40", 3);
}

static void test_recorded(void **state)
{
    json_t *root = vectors_load("dmsg");
    const json_t *v, *list = vec_get(vec_get(root, "gob"), "decode");
    size_t i;

    (void)state;
    assert_int_equal(json_array_size(list), 12);
    json_array_foreach(list, i, v)
    {
        size_t n, noise_len;
        uint8_t *gob = vec_hex_dup(v, "gob", &n), *noise;
        bool ok = strcmp(vec_str(v, "error"), "") == 0;
        struct record r;
        struct pubkey pk;
        int rc = decode(&r, gob, n);

        if ((rc == 0) != ok)
            fail_msg("%s: %s", vec_str(v, "note"), err_str(rc));
        if (ok) {
            assert_true(r.time == vec_int(v, "timestamp"));
            assert_int_equal(r.src.port, vec_int(v, "src_port"));
            assert_int_equal(r.dst.port, vec_int(v, "dst_port"));
            vec_hex(v, "src_pk", &pk, sizeof pk);
            assert_true(pubkey_equal(&pk, &r.src.pk));
            vec_hex(v, "dst_pk", &pk, sizeof pk);
            assert_true(pubkey_equal(&pk, &r.dst.pk));
            noise = vec_hex_dup(v, "noise_msg", &noise_len);
            assert_int_equal(noise_len, r.noise.n);
            if (noise_len > 0)
                assert_memory_equal(noise, r.noise.p, noise_len);
            free(noise);
        }
        free(gob);
    }
    json_decref(root);
}

/* Each prefix of a recorded object is refused, and reading it stays inside of it. */
static void test_truncated(void **state)
{
    json_t *root = vectors_load("dmsg");
    const json_t *list = vec_get(vec_get(root, "gob"), "decode");
    size_t n;
    uint8_t *gob = vec_hex_dup(json_array_get(list, 0), "gob", &n);
    struct record r;

    (void)state;
    for (size_t k = 0; k < n; k++) {
        uint8_t *copy = malloc(k > 0 ? k : 1);

        memcpy(copy, gob, k);
        assert_int_equal(decode(&r, copy, k), ERR_SHORT);
        free(copy);
    }
    assert_int_equal(decode(&r, gob, n), 0);
    assert_int_equal(decode(&r, NULL, 0), ERR_SHORT);
    free(gob);
    json_decref(root);
}

/* A field of every type that a sender may add is skipped exactly. */
static void test_skip_unknown(void **state)
{
    struct record r;
    struct msg *m;

    (void)state;
    for (int t = 1; t <= 6; t++) { /* bool … string */
        begin();
        m = one_field("New", t);
        if (t >= 5)
            gob_put_bytes(&m->w, "abc", 3);
        else
            gob_put_uint(&m->w, 1);
        assert_int_equal(finish(m, &r), 0);
        assert_true(r.time == 7);
    }
    begin(); /* complex: two floats */
    m = one_field("New", 7);
    gob_put_float(&m->w, 1.5);
    gob_put_float(&m->w, 2.5);
    assert_int_equal(finish(m, &r), 0);
    assert_true(r.time == 7);

    begin(); /* interface: name, id, length, value */
    m = one_field("New", 8);
    gob_put_bytes(&m->w, "int", 3);
    gob_put_int(&m->w, 2);
    gob_put_bytes(&m->w, "\0\2", 2);
    assert_int_equal(finish(m, &r), 0);
    assert_true(r.time == 7);
    begin(); /* nil interface */
    m = one_field("New", 8);
    gob_put_uint(&m->w, 0);
    assert_int_equal(finish(m, &r), 0);
    assert_true(r.time == 7);

    for (unsigned kind = 5; kind <= 7; kind++) { /* the three marshalers */
        begin();
        define_end(define(66, kind));
        m = one_field("New", 66);
        gob_put_bytes(&m->w, "whatever", 8);
        assert_int_equal(finish(m, &r), 0);
        assert_true(r.time == 7);
    }
    begin(); /* map[string]array[2]slice[]uint */
    define_list(66, 4, 67, 0, 6);
    define_list(67, 1, 68, 2, 0);
    define_list(68, 2, 3, 0, 0);
    m = one_field("New", 66);
    gob_put_uint(&m->w, 1);
    gob_put_bytes(&m->w, "k", 1);
    gob_put_uint(&m->w, 2);
    gob_put_uint(&m->w, 1);
    gob_put_uint(&m->w, 999);
    gob_put_uint(&m->w, 0);
    assert_int_equal(finish(m, &r), 0);
    assert_true(r.time == 7);
}

static void test_all_known_types(void **state)
{
    static const char *const names[] = {"Flag", "Lat", "Text", "Hash", "NoiseMsg"};
    static const int ids[] = {1, 4, 6, 66, 5};
    struct record r;
    struct msg *m;

    (void)state;
    begin();
    define_list(66, 1, 3, 32, 0);
    define_struct(70, names, ids, 5);
    m = value(70);
    gob_put_uint(&m->w, 1);
    gob_put_uint(&m->w, 1);
    gob_put_uint(&m->w, 1);
    gob_put_float(&m->w, -8.25);
    gob_put_uint(&m->w, 1);
    gob_put_bytes(&m->w, "CH", 2);
    gob_put_uint(&m->w, 1);
    gob_put_uint(&m->w, 32);
    for (unsigned i = 0; i < 32; i++)
        gob_put_uint(&m->w, 240 + i % 16);
    gob_put_uint(&m->w, 1);
    gob_put_bytes(&m->w, "", 0);
    gob_put_uint(&m->w, 0);
    send_msg(m);
    assert_int_equal(decode(&r, out_bytes, wr_len(&out)), 0);
    assert_true(r.flag && r.lat < -8.2 && r.lat > -8.3 && r.text.n == 2 && r.noise.n == 0);
    assert_memory_equal(r.text.p, "CH", 2);
    assert_int_equal(r.hash.b[0], 240);
    assert_int_equal(r.hash.b[31], 255);
}

/* A known name with another type is refused, also when the value does not have the field. */
static void test_wrong_types(void **state)
{
    static const char *const names[] = {"Timestamp", "SrcAddr", "Flag", "Lat",
                                        "NoiseMsg",  "Text",    "Hash"};
    static const int right[] = {2, 0, 1, 4, 5, 6, 67};

    (void)state;
    for (size_t i = 0; i < LEN(names); i++) {
        for (int t = 1; t <= 70; t++) {
            struct record r;
            struct msg *m;

            if (t > 8 && t < 66)
                continue;
            begin();
            define_list(66, 1, 3, 31,
                        0); /* array of another length, of another element, slice, text marshaler */
            define_list(67, 1, 3, 32, 0);
            define_list(68, 1, 2, 32, 0);
            define_list(69, 2, 3, 0, 0);
            define_end(define(70, 7));
            define_struct(71, &names[i], &t, 1);
            m = value(71);
            gob_put_uint(&m->w, 0);
            send_msg(m);
            assert_int_equal(decode_out(&r), t == right[i] ? 0 : ERR_FORMAT);
        }
    }
}

static int decode_hash_of(uint64_t count, uint64_t byte)
{
    static const char *const names[] = {"Hash"};
    static const int ids[] = {66};
    struct record r;
    struct msg *m;

    begin();
    define_list(66, 1, 3, 32, 0);
    define_struct(70, names, ids, 1);
    m = value(70);
    gob_put_uint(&m->w, 1);
    gob_put_uint(&m->w, count);
    for (unsigned i = 0; i < 32; i++)
        gob_put_uint(&m->w, byte);
    gob_put_uint(&m->w, 0);
    send_msg(m);
    return decode_out(&r);
}

static void test_value_ranges(void **state)
{
    (void)state;
    assert_int_equal(decode_hash_of(32, 255), 0);
    assert_int_equal(decode_hash_of(32, 256), ERR_FORMAT);
    assert_int_equal(decode_hash_of(31, 1), ERR_FORMAT);
    assert_int_equal(decode_hash_of(33, 1), ERR_FORMAT);
}

static int decode_key(const void *key, size_t n)
{
    static const char *const outer[] = {"SrcAddr"}, *const inner[] = {"PK"};
    static const int outer_ids[] = {71}, inner_ids[] = {66};
    struct record r;
    struct msg *m;

    begin();
    define_end(define(66, 6));
    define_struct(71, inner, inner_ids, 1);
    define_struct(70, outer, outer_ids, 1);
    m = value(70);
    gob_put_uint(&m->w, 1);
    gob_put_uint(&m->w, 1);
    gob_put_bytes(&m->w, key, n);
    gob_put_uint(&m->w, 0);
    gob_put_uint(&m->w, 0);
    send_msg(m);
    return decode_out(&r);
}

static void test_keys(void **state)
{
    struct seckey sk;
    struct pubkey pk, bad = {{2}};

    (void)state;
    assert_int_equal(crypto_keypair_from_seed(&sk, &pk, (const uint8_t *)"gob", 3), 0);
    assert_int_equal(decode_key(&pk, 33), 0);
    bad.b[32] = 5; /* x = 5 is not on the curve */
    assert_int_equal(decode_key(&bad, 33), ERR_KEY);
    memset(bad.b + 1, 0xff, 32); /* x >= p */
    assert_int_equal(decode_key(&bad, 33), ERR_KEY);
    memset(&bad, 0, sizeof bad);
    assert_int_equal(decode_key(&bad, 33), ERR_KEY);
    assert_int_equal(decode_key(&pk, 32), ERR_FORMAT);
    assert_int_equal(decode_key(&pk, 0), ERR_FORMAT);
}

static int decode_raw(const char *hex)
{
    size_t n;
    uint8_t *p = hex_dup(hex, &n);
    struct record r;
    int rc = decode(&r, p, n);

    free(p);
    return rc;
}

static void test_hostile_bytes(void **state)
{
    static const struct {
        const char *hex;
        int rc;
    } cases[] = {
        {"00", ERR_SHORT},                      /* empty message */
        {"fb0100000000", ERR_SHORT},            /* message of 2^32 bytes */
        {"fa010000000000", ERR_SHORT},          /* 2^40 */
        {"f8ffffffffffffffff", ERR_SHORT},      /* 2^64-1 */
        {"f701000000000000000000", ERR_FORMAT}, /* number of nine bytes */
        {"80", ERR_FORMAT},                     /* number of 128 bytes */
        {"020200", ERR_FORMAT},                 /* value of a predefined type */
        {"03ff8000", ERR_FORMAT},               /* value of an undefined type */
        {"020102", ERR_FORMAT},                 /* definition of id 1: the sender's begin at 64 */
        {"0101", ERR_FORMAT},
        {"0af8ffffffffffffffff00", ERR_FORMAT}, /* definition of the smallest id there is */
        {"04ff830000", ERR_FORMAT},             /* definition of nothing */
        {"05ff83080000", ERR_FORMAT},           /* of an eighth kind */
        {"05ff83030000"
         "03ff8400",
         0},                            /* struct without fields: all zero */
        {"06ff8303000000", ERR_FORMAT}, /* bytes behind a definition */
        {"05ff83030000"
         "05ff83030000",
         ERR_FORMAT}, /* defined twice */
        {"07ff830302f80000", ERR_SHORT},
    };

    (void)state;
    for (size_t i = 0; i < LEN(cases); i++) {
        int rc = decode_raw(cases[i].hex);
        if (rc != cases[i].rc)
            fail_msg("%s: %d instead of %d", cases[i].hex, rc, cases[i].rc);
    }
}

/* Field numbers beyond the definition, and lists longer than what is left. */
static void test_hostile_values(void **state)
{
    struct record r;
    struct msg *m;

    (void)state;
    begin();
    m = one_field("New", 2);
    gob_put_int(&m->w, 1);
    gob_put_uint(&m->w, 2);
    send_msg(m);
    assert_int_equal(decode_out(&r), ERR_FORMAT);
    begin();
    m = one_field("New", 2);
    gob_put_int(&m->w, 1);
    gob_put_uint(&m->w, UINT64_MAX);
    send_msg(m);
    assert_int_equal(decode_out(&r), ERR_FORMAT);

    for (unsigned kind = 1; kind <= 4; kind += kind == 2 ? 2 : 1) {
        static const uint64_t counts[] = {1000, (uint64_t)1 << 40, UINT64_MAX};
        for (size_t i = 0; i < LEN(counts); i++) {
            begin();
            define_list(66, kind, 2, (int64_t)counts[i], 2);
            m = one_field("New", 66);
            gob_put_uint(&m->w, counts[i]);
            assert_int_equal(finish(m, &r), ERR_SHORT);
        }
    }
    begin(); /* array shorter than its definition */
    define_list(66, 1, 2, 3, 0);
    m = one_field("New", 66);
    gob_put_uint(&m->w, 2);
    gob_put_int(&m->w, 1);
    gob_put_int(&m->w, 1);
    assert_int_equal(finish(m, &r), ERR_FORMAT);
    begin(); /* reference to a type that nobody defined */
    m = one_field("New", 99);
    gob_put_uint(&m->w, 0);
    assert_int_equal(finish(m, &r), ERR_FORMAT);
    begin(); /* definition inside of an interface value */
    m = one_field("New", 8);
    gob_put_bytes(&m->w, "T", 1);
    gob_put_int(&m->w, -80);
    gob_put_uint(&m->w, 0);
    assert_int_equal(finish(m, &r), ERR_FORMAT);
}

/* Chain of slices, the last of them of itself: types are few, values nest as deep as they like. */
static int decode_nested(unsigned depth)
{
    struct record r;
    struct msg *m;

    begin();
    define_list(66, 2, 66, 0, 0);
    m = one_field("New", 66);
    for (unsigned i = 1; i < depth; i++)
        gob_put_uint(&m->w, 1);
    gob_put_uint(&m->w, 0);
    return finish(m, &r);
}

static void test_caps(void **state)
{
    const char *names[GOB_MAX_FIELDS + 1];
    char text[GOB_MAX_FIELDS + 1][8];
    int ids[GOB_MAX_FIELDS + 1];
    struct record r;
    struct msg *m;

    (void)state;
    assert_int_equal(decode_nested(GOB_MAX_DEPTH - 1), 0);
    assert_int_equal(decode_nested(GOB_MAX_DEPTH), ERR_LIMIT);
    assert_int_equal(decode_nested(1000), ERR_LIMIT);

    for (int n = GOB_MAX_TYPES - 1; n <= 1000; n += n < GOB_MAX_TYPES ? 1 : 936) {
        begin();
        for (int i = 0; i < n; i++)
            define_list(100 + i, 2, i == 0 ? 2 : 99 + i, 0, 0);
        m = one_field("New", 100);
        gob_put_uint(&m->w, 0);
        assert_int_equal(finish(m, &r), n < GOB_MAX_TYPES ? 0 : ERR_LIMIT);
    }
    for (size_t i = 0; i <= GOB_MAX_FIELDS; i++) {
        snprintf(text[i], sizeof text[i], "F%zu", i);
        names[i] = i == 0 ? "Flag" : text[i];
        ids[i] = 1;
    }
    for (size_t n = GOB_MAX_FIELDS; n <= GOB_MAX_FIELDS + 1; n++) {
        begin();
        define_struct(70, names, ids, n);
        m = value(70);
        gob_put_uint(&m->w, 0);
        send_msg(m);
        assert_int_equal(decode_out(&r), n <= GOB_MAX_FIELDS ? 0 : ERR_LIMIT);
    }
    for (int n = 4; n <= 5; n++) { /* 256 fields in all, and more */
        begin();
        for (int i = 0; i < n; i++)
            define_struct(70 + i, names, ids, GOB_MAX_FIELDS);
        m = value(70);
        gob_put_uint(&m->w, 0);
        send_msg(m);
        assert_int_equal(decode_out(&r), n <= 4 ? 0 : ERR_LIMIT);
    }
}

static void test_names(void **state)
{
    static const char *const none[] = {"timestamp", "Timestam", "Timestampx"}, *const empty[] = {
                                                                                   "Timestamp", ""};
    static const int ids[] = {2, 2, 2};
    struct record r;
    struct msg *m;

    (void)state;
    begin(); /* names are compared exactly, and one has to be known */
    define_struct(70, none, ids, 3);
    m = value(70);
    gob_put_uint(&m->w, 0);
    send_msg(m);
    assert_int_equal(decode_out(&r), ERR_FORMAT);
    begin();
    define_struct(70, empty, ids, 2);
    m = value(70);
    gob_put_uint(&m->w, 0);
    send_msg(m);
    assert_int_equal(decode_out(&r), ERR_FORMAT);
}

static int setup(void **state)
{
    (void)state;
    return crypto_init();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_primitives),
        cmocka_unit_test(test_recorded),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_skip_unknown),
        cmocka_unit_test(test_all_known_types),
        cmocka_unit_test(test_wrong_types),
        cmocka_unit_test(test_value_ranges),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_hostile_bytes),
        cmocka_unit_test(test_hostile_values),
        cmocka_unit_test(test_caps),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
