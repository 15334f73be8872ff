#include "kademlia/codec_msgpack.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/cursor.h"
#include "base/err.h"
#include "base/mp.h"

#define MAX_NAME 16

enum { PING_FULL = 1, PING_READ_ONLY = 2 }; /* flags of a PING and its answer */

static const char *const names[KAD_METHOD__END] = {
    [KAD_PING] = "ping",           [KAD_FIND_NODE] = "find", [KAD_GET_VALUE] = "get",
    [KAD_PUT_VALUE] = "put",       [KAD_GET_ITEMS] = "list", [KAD_PUT_BATCH] = "put_many",
    [KAD_GET_BATCH] = "get_many",  [KAD_WATCH] = "watch",    [KAD_CHANGED] = "changed",
    [KAD_RECONCILE] = "reconcile",
};

const char *kad_mp_method_name(unsigned method)
{
    return method < KAD_METHOD__END ? names[method] : NULL;
}

static unsigned method_of(const char *name, size_t n)
{
    for (unsigned i = KAD_PING; i < KAD_METHOD__END; i++) {
        if (strlen(names[i]) == n && memcmp(names[i], name, n) == 0)
            return i;
    }
    return 0;
}

/* ---- codes of refusals (dht-native.md §3) ---- */

static const struct {
    uint8_t code;
    int err;
} codes[] = {
    {0, 0},           {1, ERR_REFUSED},      {2, ERR_TOO_LONG}, {3, ERR_SIG},
    {4, ERR_SEQ},     {5, ERR_QUOTA},        {6, ERR_BUSY},     {7, ERR_NO_SPACE},
    {8, ERR_LIMIT},   {9, ERR_SHUTDOWN},     {10, ERR_NETWORK}, {11, ERR_UNSUPPORTED},
    {12, ERR_FORMAT}, {13, ERR_QUOTA_GROUP},
};

static uint8_t code_of(int err)
{
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        if (codes[i].err == err)
            return codes[i].code;
    }
    return 1;
}

static int err_of(uint64_t code)
{
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        if (codes[i].code == code)
            return codes[i].err;
    }
    return ERR_REFUSED;
}

/* ---- reading ---- */

static int add_item(struct kad_msg *m, const struct item *it, const struct kad_id *target)
{
    struct item_ref *r = item_ref_new(it);
    int rc = r != NULL ? kad_msg_add_item(m, r, target) : ERR_NOMEM;

    item_ref_put(r);
    return rc;
}

/* [k, seq, sig, v, salt] and perhaps the slot. */
static int read_item(struct kad_msg *m, struct mp_in *in)
{
    struct mp_in f = mp_in_array(in, 5, UINT32_MAX);
    struct kad_id target;
    struct item it = {0};

    mp_in_fixed(&f, it.k.b, sizeof it.k.b);
    it.seq = mp_in_u64(&f, UINT64_MAX);
    mp_in_fixed(&f, it.sig.b, sizeof it.sig.b);
    it.v = mp_in_bin(&f, &it.v_len, KAD_MP_MAX); /* too long is the engine's to say */
    it.salt = mp_in_bin(&f, &it.salt_len, KAD_MP_MAX);
    bool has_target = f.left > 0 && !mp_in_nil(&f) && mp_in_fixed(&f, target.b, sizeof target.b);
    if (mp_in_failed(&f) || (it.k.b[0] != 2 && it.k.b[0] != 3)) {
        mp_in_fail(in);
        return ERR_FORMAT;
    }
    return add_item(m, &it, has_target && !kad_id_is_zero(&target) ? &target : NULL);
}

static int read_items(struct kad_msg *m, struct mp_in *in, bool gaps)
{
    struct mp_in list = mp_in_array(in, 0, KAD_MSG_MAX_ITEMS);
    int rc = 0;

    while (rc == 0 && list.left > 0)
        rc = gaps && mp_in_nil(&list) ? kad_msg_add_item(m, NULL, NULL) : read_item(m, &list);
    return rc;
}

static int read_results(struct kad_msg *m, struct mp_in *in)
{
    struct mp_in list = mp_in_array(in, 0, KAD_MSG_MAX_ITEMS);
    int rc = 0;

    while (rc == 0 && list.left > 0) {
        rc = kad_msg_add_item(m, NULL, NULL);
        uint64_t code = mp_in_u64(&list, UINT8_MAX);
        if (rc == 0)
            m->items[m->n_items - 1].result = err_of(code);
    }
    if (mp_in_failed(&list))
        mp_in_fail(in);
    return rc;
}

/* Keys one after the other, and a number whose bit i says that the i-th one speaks this dialect. */
static int read_contacts(struct kad_msg *m, struct mp_in *in)
{
    struct pubkey pks[KAD_K];
    size_t n, kept = 0;
    const uint8_t *p = mp_in_bin(in, &n, 2 * KAD_K * sizeof pks[0].b);
    uint64_t native = mp_in_u64(in, UINT64_MAX);

    if (n % sizeof pks[0].b != 0)
        mp_in_fail(in);
    for (size_t i = 0; !mp_in_failed(in) && i < n / sizeof pks[0].b; i++) {
        const uint8_t *key = p + i * sizeof pks[0].b;
        if ((key[0] != 2 && key[0] != 3) || kept >= KAD_K) {
            m->bad_contacts++;
            continue;
        }
        memcpy(pks[kept].b, key, sizeof pks[0].b);
        m->native |= (uint32_t)(native >> i & 1) << kept;
        kept++;
    }
    return kad_msg_set_closest(m, pks, kept);
}

static int read_targets(struct kad_msg *m, struct mp_in *in)
{
    size_t n;
    const uint8_t *p = mp_in_bin(in, &n, KAD_MSG_MAX_TARGETS * KAD_ID_BYTES);
    static const struct kad_id none;

    if (n % KAD_ID_BYTES != 0)
        mp_in_fail(in);
    _Static_assert(sizeof none == KAD_ID_BYTES, "targets are copied as they are");
    return mp_in_failed(in)
               ? ERR_FORMAT
               : kad_msg_set_targets(m, p != NULL ? (const void *)p : &none, n / KAD_ID_BYTES);
}

static int read_salt(struct kad_msg *m, struct mp_in *in)
{
    size_t n;
    const uint8_t *p = mp_in_bin(in, &n, KAD_MP_MAX);

    if (p == NULL)
        return 0;
    char *copy = malloc(n + 1);
    if (copy == NULL)
        return ERR_NOMEM;
    memcpy(copy, p, n);
    copy[n] = '\0';
    m->salt = copy;
    m->salt_len = n;
    return 0;
}

/* ---- digests of ranges: packed, since there are many ---- */

#define RANGE_BYTES 3 /* bits, prefix; with 0x80 in bits the target that a list goes on behind */
#define RANGE_MAX   (RANGE_BYTES + KAD_ID_BYTES)
#define RANGE_GOES  0x80
#define PART_BYTES  (4 + DIGEST_BYTES)
#define ENTRY_BYTES (KAD_ID_BYTES + 1 + 16)

static int read_ranges(struct kad_msg *m, struct mp_in *in)
{
    size_t n;
    const uint8_t *p = mp_in_bin(in, &n, RECON_RANGES * RANGE_MAX);
    struct rd r = rd_init(p, p != NULL ? n : 0);

    m->ranges = calloc(RECON_RANGES, sizeof *m->ranges);
    if (m->ranges == NULL)
        return ERR_NOMEM;
    while (!rd_failed(&r) && rd_left(&r) > 0 && m->n_ranges < RECON_RANGES) {
        struct recon_range *range = &m->ranges[m->n_ranges++];
        uint8_t bits = rd_u8(&r);
        range->bits = bits & (uint8_t)~RANGE_GOES;
        range->prefix = rd_be16(&r);
        range->goes_on = (bits & RANGE_GOES) != 0;
        if (range->goes_on)
            rd_copy(&r, range->after.b, KAD_ID_BYTES);
    }
    if (rd_failed(&r) || rd_left(&r) > 0)
        mp_in_fail(in);
    return 0;
}

static void read_parts(struct recon_answer *a, struct mp_in *in)
{
    uint8_t bytes[RECON_PARTS * PART_BYTES];

    if (!mp_in_fixed(in, bytes, sizeof bytes))
        return;
    for (size_t i = 0; i < RECON_PARTS; i++) {
        a->part[i].count = get_be32(bytes + i * PART_BYTES);
        memcpy(a->part[i].sum, bytes + i * PART_BYTES + 4, DIGEST_BYTES);
    }
}

static int read_entries(struct recon_answer *a, struct mp_in *in)
{
    size_t n;
    const uint8_t *p = mp_in_bin(in, &n, RECON_LIST_ITEM * ENTRY_BYTES);

    if (n % ENTRY_BYTES != 0)
        mp_in_fail(in);
    if (mp_in_failed(in))
        return 0;
    a->is_list = true;
    a->entries = calloc(n / ENTRY_BYTES + 1, sizeof *a->entries);
    if (a->entries == NULL)
        return ERR_NOMEM;
    for (; a->n < n / ENTRY_BYTES; a->n++, p += ENTRY_BYTES) {
        struct digest_entry *e = &a->entries[a->n];
        memcpy(e->target.b, p, KAD_ID_BYTES);
        if (p[KAD_ID_BYTES] >= ITEM_KIND__COUNT)
            mp_in_fail(in);
        e->kind = (enum item_kind)p[KAD_ID_BYTES];
        e->rank[0] = get_be64(p + KAD_ID_BYTES + 1);
        e->rank[1] = get_be64(p + KAD_ID_BYTES + 9);
    }
    a->more = mp_in_bool(in);
    return 0;
}

/* An array for each range: its parts, or its list and whether that was cut. */
static int read_answers(struct kad_msg *m, struct mp_in *in)
{
    struct mp_in list = mp_in_array(in, 0, RECON_RANGES);
    int rc = 0;

    m->answers = calloc(RECON_RANGES, sizeof *m->answers);
    if (m->answers == NULL)
        return ERR_NOMEM;
    while (rc == 0 && list.left > 0 && !mp_in_failed(&list)) {
        struct mp_in one = mp_in_array(&list, 1, UINT32_MAX);
        struct recon_answer *a = &m->answers[m->n_answers++];
        if (one.left == 1)
            read_parts(a, &one);
        else
            rc = read_entries(a, &one);
        if (mp_in_failed(&one))
            mp_in_fail(&list);
    }
    if (mp_in_failed(&list))
        mp_in_fail(in);
    return rc;
}

static void read_ping(struct kad_msg *m, struct mp_in *in)
{
    m->offer = (unsigned)mp_in_u64(in, UINT32_MAX);
    m->network = mp_in_u64(in, UINT64_MAX);
    uint64_t flags = mp_in_u64(in, UINT64_MAX);
    m->full = (flags & PING_FULL) != 0;
    m->read_only = (flags & PING_READ_ONLY) != 0;
    if (m->offer == 0)
        mp_in_fail(in);
}

static int read_request(struct kad_msg *m, struct mp_in *in)
{
    switch (m->method) {
    case KAD_PING:
        read_ping(m, in);
        return 0;
    case KAD_FIND_NODE:
    case KAD_GET_VALUE:
        mp_in_fixed(in, m->target.b, sizeof m->target.b);
        return 0;
    case KAD_PUT_VALUE:
        return read_item(m, in);
    case KAD_GET_ITEMS: {
        int rc = read_salt(m, in);
        m->since_seq = mp_in_u64(in, UINT64_MAX);
        m->limit = (int64_t)mp_in_u64(in, INT32_MAX);
        return rc;
    }
    case KAD_PUT_BATCH:
    case KAD_CHANGED:
        return read_items(m, in, false);
    case KAD_GET_BATCH:
        return read_targets(m, in);
    case KAD_WATCH: {
        int rc = read_targets(m, in);
        m->lease_s = (unsigned)mp_in_u64(in, UINT32_MAX);
        return rc;
    }
    case KAD_RECONCILE:
        return read_ranges(m, in);
    case KAD_METHOD__END:
        break;
    }
    return ERR_UNSUPPORTED;
}

static int read_response(struct kad_msg *m, struct mp_in *in)
{
    switch (m->method) {
    case KAD_PING:
        read_ping(m, in);
        return 0;
    case KAD_FIND_NODE:
        return read_contacts(m, in);
    case KAD_GET_VALUE: {
        int rc = mp_in_nil(in) ? 0 : read_item(m, in);
        return rc == 0 ? read_contacts(m, in) : rc;
    }
    case KAD_PUT_VALUE:
        m->error = err_of(mp_in_u64(in, UINT8_MAX));
        m->stored = m->error == 0;
        return 0;
    case KAD_GET_ITEMS: {
        int rc = read_items(m, in, false);
        m->has_more = mp_in_bool(in);
        return rc;
    }
    case KAD_PUT_BATCH:
        return read_results(m, in);
    case KAD_GET_BATCH:
        return read_items(m, in, true);
    case KAD_WATCH: {
        int rc = read_results(m, in);
        m->lease_s = (unsigned)mp_in_u64(in, UINT32_MAX);
        m->held = (unsigned)mp_in_u64(in, UINT32_MAX);
        return rc;
    }
    case KAD_RECONCILE:
        return read_answers(m, in);
    case KAD_CHANGED:
    case KAD_METHOD__END:
        break;
    }
    return ERR_UNSUPPORTED;
}

static int decode(struct kad_msg *out, unsigned method, bool response, const void *body, size_t n)
{
    struct mp_doc d;

    kad_msg_init(out, (enum kad_method)method, response);
    if (method < KAD_PING || method >= KAD_METHOD__END)
        return ERR_UNSUPPORTED;
    out->wire_bytes = n;
    int rc = mp_doc_open(&d, body, n, KAD_MP_DEPTH, KAD_MP_OBJECTS);
    if (rc == 0) {
        struct mp_in in = mp_doc_array(&d);
        rc = response ? read_response(out, &in) : read_request(out, &in);
        if (rc == 0 && mp_in_failed(&in))
            rc = ERR_FORMAT;
    }
    mp_doc_close(&d);
    if (rc != 0)
        kad_msg_clear(out);
    return rc;
}

/* ---- writing ---- */

static void put_item(struct mp_out *o, const struct kad_msg_item *mi)
{
    const struct item *it = &mi->item->item;

    msgpack_pack_array(&o->pk, mi->has_target ? 6 : 5);
    mp_out_bin(o, it->k.b, sizeof it->k.b);
    msgpack_pack_uint64(&o->pk, it->seq);
    mp_out_bin(o, it->sig.b, sizeof it->sig.b);
    mp_out_nilbin(o, it->v, it->v_len);
    mp_out_bin(o, it->salt, it->salt_len);
    if (mi->has_target)
        mp_out_bin(o, mi->target.b, sizeof mi->target.b);
}

static void put_items(struct mp_out *o, const struct kad_msg *m)
{
    msgpack_pack_array(&o->pk, m->n_items);
    for (size_t i = 0; i < m->n_items; i++) {
        if (m->items[i].item == NULL)
            msgpack_pack_nil(&o->pk);
        else
            put_item(o, &m->items[i]);
    }
}

static void put_results(struct mp_out *o, const struct kad_msg *m)
{
    msgpack_pack_array(&o->pk, m->n_items);
    for (size_t i = 0; i < m->n_items; i++)
        msgpack_pack_uint8(&o->pk, code_of(m->items[i].result));
}

static void put_contacts(struct mp_out *o, const struct kad_msg *m)
{
    _Static_assert(sizeof(struct pubkey) == PUBKEY_BYTES, "keys are written as they are");
    mp_out_bin(o, m->closest, m->n_closest * sizeof(struct pubkey));
    msgpack_pack_uint32(&o->pk, m->native);
}

static void put_targets(struct mp_out *o, const struct kad_msg *m)
{
    mp_out_bin(o, m->targets, m->n_targets * KAD_ID_BYTES);
}

static void put_ranges(struct mp_out *o, const struct kad_msg *m)
{
    uint8_t bytes[RECON_RANGES * RANGE_MAX], *p = bytes;

    assert(m->n_ranges <= RECON_RANGES);
    for (size_t i = 0; i < m->n_ranges; i++) {
        const struct recon_range *r = &m->ranges[i];
        *p++ = (uint8_t)(r->bits | (r->goes_on ? RANGE_GOES : 0));
        put_be16(p, r->prefix);
        p += 2;
        if (r->goes_on) {
            memcpy(p, r->after.b, KAD_ID_BYTES);
            p += KAD_ID_BYTES;
        }
    }
    mp_out_bin(o, bytes, (size_t)(p - bytes));
}

static void put_parts(struct mp_out *o, const struct recon_answer *a)
{
    uint8_t bytes[RECON_PARTS * PART_BYTES];

    for (size_t i = 0; i < RECON_PARTS; i++) {
        put_be32(bytes + i * PART_BYTES, a->part[i].count);
        memcpy(bytes + i * PART_BYTES + 4, a->part[i].sum, DIGEST_BYTES);
    }
    msgpack_pack_array(&o->pk, 1);
    mp_out_bin(o, bytes, sizeof bytes);
}

static void put_entries(struct mp_out *o, const struct recon_answer *a)
{
    uint8_t e[ENTRY_BYTES];

    msgpack_pack_array(&o->pk, 2);
    msgpack_pack_bin(&o->pk, a->n * ENTRY_BYTES);
    for (size_t i = 0; i < a->n; i++) {
        memcpy(e, a->entries[i].target.b, KAD_ID_BYTES);
        e[KAD_ID_BYTES] = (uint8_t)a->entries[i].kind;
        put_be64(e + KAD_ID_BYTES + 1, a->entries[i].rank[0]);
        put_be64(e + KAD_ID_BYTES + 9, a->entries[i].rank[1]);
        msgpack_pack_bin_body(&o->pk, e, sizeof e);
    }
    if (a->more)
        msgpack_pack_true(&o->pk);
    else
        msgpack_pack_false(&o->pk);
}

static void put_answers(struct mp_out *o, const struct kad_msg *m)
{
    msgpack_pack_array(&o->pk, m->n_answers);
    for (size_t i = 0; i < m->n_answers; i++) {
        if (m->answers[i].is_list)
            put_entries(o, &m->answers[i]);
        else
            put_parts(o, &m->answers[i]);
    }
}

static void put_ping(struct mp_out *o, const struct kad_msg *m)
{
    msgpack_pack_array(&o->pk, 3);
    msgpack_pack_uint32(&o->pk, KAD_NATIVE_VERSION);
    msgpack_pack_uint64(&o->pk, m->network);
    msgpack_pack_uint8(&o->pk,
                       (uint8_t)((m->full ? PING_FULL : 0) | (m->read_only ? PING_READ_ONLY : 0)));
}

static void put_request(struct mp_out *o, const struct kad_msg *m)
{
    switch (m->method) {
    case KAD_PING:
        put_ping(o, m);
        return;
    case KAD_FIND_NODE:
    case KAD_GET_VALUE:
        msgpack_pack_array(&o->pk, 1);
        mp_out_bin(o, m->target.b, sizeof m->target.b);
        return;
    case KAD_PUT_VALUE:
        assert(m->n_items == 1);
        msgpack_pack_array(&o->pk, 1);
        put_item(o, &m->items[0]);
        return;
    case KAD_GET_ITEMS:
        msgpack_pack_array(&o->pk, 3);
        mp_out_nilbin(o, m->salt_len > 0 ? m->salt : NULL, m->salt_len);
        msgpack_pack_uint64(&o->pk, m->since_seq);
        msgpack_pack_uint32(&o->pk, m->limit > 0 ? (uint32_t)m->limit : 0);
        return;
    case KAD_PUT_BATCH:
    case KAD_CHANGED:
        msgpack_pack_array(&o->pk, 1);
        put_items(o, m);
        return;
    case KAD_GET_BATCH:
        msgpack_pack_array(&o->pk, 1);
        put_targets(o, m);
        return;
    case KAD_WATCH:
        msgpack_pack_array(&o->pk, 2);
        put_targets(o, m);
        msgpack_pack_uint32(&o->pk, m->lease_s);
        return;
    case KAD_RECONCILE:
        msgpack_pack_array(&o->pk, 1);
        put_ranges(o, m);
        return;
    case KAD_METHOD__END:
        return;
    }
}

static void put_response(struct mp_out *o, const struct kad_msg *m)
{
    switch (m->method) {
    case KAD_PING:
        put_ping(o, m);
        return;
    case KAD_FIND_NODE:
        msgpack_pack_array(&o->pk, 2);
        put_contacts(o, m);
        return;
    case KAD_GET_VALUE:
        msgpack_pack_array(&o->pk, 3);
        if (m->n_items > 0)
            put_item(o, &m->items[0]);
        else
            msgpack_pack_nil(&o->pk);
        put_contacts(o, m);
        return;
    case KAD_PUT_VALUE:
        msgpack_pack_array(&o->pk, 1);
        msgpack_pack_uint8(&o->pk, m->stored ? 0 : code_of(m->error));
        return;
    case KAD_GET_ITEMS:
        msgpack_pack_array(&o->pk, 2);
        put_items(o, m);
        if (m->has_more)
            msgpack_pack_true(&o->pk);
        else
            msgpack_pack_false(&o->pk);
        return;
    case KAD_PUT_BATCH:
        msgpack_pack_array(&o->pk, 1);
        put_results(o, m);
        return;
    case KAD_GET_BATCH:
        msgpack_pack_array(&o->pk, 1);
        put_items(o, m);
        return;
    case KAD_WATCH:
        msgpack_pack_array(&o->pk, 3);
        put_results(o, m);
        msgpack_pack_uint32(&o->pk, m->lease_s);
        msgpack_pack_uint32(&o->pk, m->held);
        return;
    case KAD_RECONCILE:
        msgpack_pack_array(&o->pk, 1);
        put_answers(o, m);
        return;
    case KAD_CHANGED:
    case KAD_METHOD__END:
        return;
    }
}

static int finish(struct mp_out *o, uint8_t **out, size_t *n)
{
    if (o->err != 0) {
        mp_out_free(o);
        return o->err;
    }
    *out = o->p;
    *n = o->n;
    return 0;
}

static int encode(uint8_t **out, size_t *n, struct kad_msg *m, uint32_t id)
{
    bool note = m->method == KAD_CHANGED;
    const char *name = kad_mp_method_name(m->method);
    struct mp_out o;

    if (name == NULL || (note && m->response))
        return ERR_UNSUPPORTED;
    mp_out_init(&o, KAD_MP_MAX);
    msgpack_pack_array(&o.pk, note ? 3 : 4);
    msgpack_pack_uint8(&o.pk, m->response ? KAD_MP_RESPONSE : note ? KAD_MP_NOTE : KAD_MP_REQUEST);
    if (!note)
        msgpack_pack_uint32(&o.pk, id);
    if (m->response)
        msgpack_pack_nil(&o.pk);
    else
        mp_out_str(&o, name, strlen(name));
    if (m->response)
        put_response(&o, m);
    else
        put_request(&o, m);
    int rc = finish(&o, out, n);
    if (rc == 0)
        m->wire_bytes = *n;
    return rc;
}

int kad_mp_encode_error(uint8_t **out, size_t *n, uint32_t id, int err)
{
    struct mp_out o;
    const char *text = err_str(err);

    mp_out_init(&o, KAD_MP_MAX);
    msgpack_pack_array(&o.pk, 4);
    msgpack_pack_uint8(&o.pk, KAD_MP_RESPONSE);
    msgpack_pack_uint32(&o.pk, id);
    msgpack_pack_array(&o.pk, 2);
    msgpack_pack_uint8(&o.pk, code_of(err));
    mp_out_str(&o, text, strlen(text));
    msgpack_pack_nil(&o.pk);
    return finish(&o, out, n);
}

static size_t item_size(const struct item *it)
{
    /* Heads of the array, of five binaries and of the number are at most 5 bytes each. */
    return 7 * 5 + 9 + sizeof it->k + sizeof it->sig + KAD_ID_BYTES + it->v_len + it->salt_len;
}

const struct kad_codec kad_codec_msgpack = {
    .name = "msgpack",
    .encode = encode,
    .decode = decode,
    .item_size = item_size,
};

/* ---- messages out of a stream ---- */

void kad_mp_frame_init(struct kad_mp_frame *f)
{
    memset(f, 0, sizeof *f);
    mpscan_begin(&f->scan, KAD_MP_DEPTH, KAD_MP_OBJECTS, KAD_MP_MAX);
}

void kad_mp_frame_clear(struct kad_mp_frame *f)
{
    free(f->p);
    kad_mp_frame_init(f);
}

#define KEEP 4096u /* bytes of room that stay for the next message */

void kad_mp_frame_next(struct kad_mp_frame *f)
{
    if (f->cap > KEEP) {
        kad_mp_frame_clear(f);
        return;
    }
    f->n = 0;
    mpscan_begin(&f->scan, KAD_MP_DEPTH, KAD_MP_OBJECTS, KAD_MP_MAX);
}

/* Memory grows with what has come, doubled. */
static int keep(struct kad_mp_frame *f, const void *p, size_t n)
{
    if (n > f->cap - f->n) {
        size_t cap = f->cap > 0 ? f->cap : 256;
        while (cap - f->n < n)
            cap *= 2;
        uint8_t *more = realloc(f->p, cap);
        if (more == NULL)
            return ERR_NOMEM;
        f->p = more;
        f->cap = cap;
    }
    memcpy(f->p + f->n, p, n);
    f->n += n;
    return 0;
}

static int step_over(struct rd *r, size_t *size)
{
    int rc = mpscan(r->p, r->left, KAD_MP_DEPTH, KAD_MP_OBJECTS, size);

    if (rc == 0)
        rd_skip(r, *size);
    return rc;
}

/* nil, or [code, text]; anything else is an error too. */
static int read_error(const uint8_t *p, size_t n)
{
    struct mp_doc d;

    if (n == 1 && p[0] == 0xc0)
        return 0;
    if (mp_doc_open(&d, p, n, KAD_MP_DEPTH, KAD_MP_OBJECTS) != 0)
        return ERR_REFUSED;
    struct mp_in in = mp_doc_array(&d);
    uint64_t code = mp_in_u64(&in, UINT8_MAX);
    int err = mp_in_failed(&in) || code == 0 ? ERR_REFUSED : err_of(code);
    mp_doc_close(&d);
    return err;
}

/* The head is small and of few forms: it is read by hand, the rest by msgpack-c. */
static bool read_id(struct rd *r, uint32_t *id)
{
    uint8_t b = rd_u8(r);

    if (b <= 0x7f)
        *id = b;
    else if (b == 0xcc)
        *id = rd_u8(r);
    else if (b == 0xcd)
        *id = rd_be16(r);
    else if (b == 0xce)
        *id = rd_be32(r);
    else
        rd_fail(r);
    return !rd_failed(r);
}

static unsigned read_name(struct rd *r)
{
    uint8_t b = rd_u8(r);
    size_t n = b >= 0xa0 && b <= 0xbf ? b & 31u : 0;
    const char *name = (const char *)rd_bytes(r, n);

    if (n == 0 || n > MAX_NAME || rd_failed(r)) {
        rd_fail(r);
        return 0;
    }
    return method_of(name, n);
}

static int read_head(struct kad_mp_head *h, const uint8_t *p, size_t n)
{
    struct rd r = rd_init(p, n);
    uint8_t first = rd_u8(&r), type = rd_u8(&r);
    size_t size = 0;

    *h = (struct kad_mp_head){.type = (enum kad_mp_type)type, .size = n};
    if (type > KAD_MP_NOTE || first != (type == KAD_MP_NOTE ? 0x93 : 0x94))
        return ERR_FORMAT;
    if (type != KAD_MP_NOTE && !read_id(&r, &h->id))
        return ERR_FORMAT;
    if (type == KAD_MP_RESPONSE) {
        const uint8_t *error = r.p;
        if (step_over(&r, &size) != 0)
            return ERR_FORMAT;
        h->error = read_error(error, size);
    } else {
        h->method = read_name(&r);
    }
    h->body = r.p;
    return rd_failed(&r) || step_over(&r, &h->body_len) != 0 || rd_left(&r) != 0 ? ERR_FORMAT : 0;
}

int kad_mp_frame_feed(struct kad_mp_frame *f, const void *p, size_t n, size_t *used,
                      struct kad_mp_head *head)
{
    size_t size, before = f->n;
    int rc = before > 0 ? keep(f, p, n) : 0;

    *used = 0;
    if (rc != 0)
        return rc;
    /* What is whole already is read where it stands. */
    rc = mpscan_feed(&f->scan, before > 0 ? f->p : p, before + n, &size);
    if (rc == ERR_AGAIN) {
        *used = n;
        rc = before > 0 || n == 0 ? 0 : keep(f, p, n);
        return rc != 0 ? rc : ERR_AGAIN;
    }
    if (rc != 0)
        return rc;
    *used = size - before;
    return read_head(head, before > 0 ? f->p : p, size);
}
