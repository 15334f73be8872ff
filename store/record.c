#include "store/record.h"

#include <assert.h>
#include <string.h>

#include <msgpack.h>

#include "base/cursor.h"
#include "base/err.h"
#include "base/mp.h"

/* Records of newer programs may nest a little and be longer than ours. */
#define SCAN_DEPTH   4
#define SCAN_OBJECTS 256

_Static_assert(RECORD_REF_BYTES - 1 <= KAD_ID_BYTES, "a ref is cut from a target");

/* ---- keys ---- */

void record_key(uint8_t out[RECORD_KEY_BYTES], const struct kad_id *target, enum item_kind kind)
{
    memcpy(out, target->b, KAD_ID_BYTES);
    out[KAD_ID_BYTES] = (uint8_t)kind;
}

void record_ref(uint8_t out[RECORD_REF_BYTES], const struct kad_id *target, enum item_kind kind)
{
    memcpy(out, target->b, RECORD_REF_BYTES - 1);
    out[RECORD_REF_BYTES - 1] = (uint8_t)kind;
}

const uint8_t *record_index_ref(const void *key, size_t n)
{
    assert(n >= RECORD_REF_BYTES);
    return (const uint8_t *)key + n - RECORD_REF_BYTES;
}

static void put_time(uint8_t *out, int64_t ns)
{
    put_be64(out, (uint64_t)ns ^ (UINT64_C(1) << 63));
}

size_t record_index_key(uint8_t out[RECORD_INDEX_KEY_MAX], enum record_index ix,
                        const struct store_rec *rec)
{
    size_t n = 0;

    switch (ix) {
    case IX_EXPIRY:
        if (rec->expires_ns == INT64_MAX)
            return 0;
        put_time(out, rec->expires_ns);
        n = 8;
        break;
    case IX_STORED:
        if (rec->tier != ITEM_TIER_PUBLIC || rec->origin == STORE_OWN)
            return 0;
        out[0] = rec->origin == STORE_CACHE ? 0 : 1;
        put_time(out + 1, rec->stored_ns);
        n = 9;
        break;
    case IX_SALT_SEQ:
        out[0] = (uint8_t)rec->item.salt_len;
        if (rec->item.salt_len > 0)
            memcpy(out + 1, rec->item.salt, rec->item.salt_len);
        n = 1 + rec->item.salt_len;
        put_be64(out + n, rec->item.seq);
        n += 8;
        break;
    case IX_SEQ:
        put_be64(out, rec->item.seq);
        n = 8;
        break;
    case IX__COUNT:
        assert(false);
    }
    record_ref(out + n, &rec->target, rec->kind);
    return n + RECORD_REF_BYTES;
}

size_t record_list_key(uint8_t out[RECORD_INDEX_KEY_MAX], const void *salt, size_t salt_len,
                       uint64_t since_seq, size_t *prefix_len)
{
    size_t n = 0;

    assert(salt_len <= ITEM_MAX_SALT && since_seq < UINT64_MAX);
    if (salt != NULL) {
        out[0] = (uint8_t)salt_len;
        memcpy(out + 1, salt, salt_len);
        n = 1 + salt_len;
    }
    *prefix_len = n;
    put_be64(out + n, since_seq + 1);
    return n + 8;
}

size_t record_expiry_bound(uint8_t out[RECORD_INDEX_KEY_MAX], int64_t wall_ns)
{
    put_time(out, wall_ns);
    memset(out + 8, 0xff, RECORD_REF_BYTES + 1);
    return 8 + RECORD_REF_BYTES + 1;
}

/* ---- order and size ---- */

uint64_t record_charge(const struct store_rec *rec)
{
    return (uint64_t)rec->item.v_len + rec->item.salt_len + STORE_RECORD_OVERHEAD;
}

bool record_newer(const struct store_rec *rec, const struct store_rec *old)
{
    if (rec->kind != ITEM_CERT)
        return rec->item.seq > old->item.seq;
    if (rec->rank_time != old->rank_time)
        return rec->rank_time > old->rank_time;
    return rec->rank_seq > old->rank_seq;
}

/* ---- encoding ---- */

uint64_t record_sum(const void *key, size_t key_len, const void *p, size_t n)
{
    uint8_t sip_key[16] = "kadmsg store";

    put_le64(sip_key + 8, crypto_siphash(sip_key, key, key_len));
    return crypto_siphash(sip_key, p, n);
}

static int write_bytes(void *arg, const char *p, size_t n)
{
    struct wr *w = arg;

    wr_bytes(w, p, n);
    return 0;
}

static void pack_bin(msgpack_packer *pk, const void *p, size_t n)
{
    msgpack_pack_bin(pk, n);
    if (n > 0)
        msgpack_pack_bin_body(pk, p, n);
}

size_t record_encode(uint8_t *out, const struct store_rec *rec)
{
    const struct item *it = &rec->item;
    struct wr w = wr_init(out, RECORD_HEAD_MAX + it->v_len + it->salt_len);
    uint8_t key[RECORD_KEY_BYTES];
    msgpack_packer pk;

    wr_room(&w, RECORD_SUM_BYTES);
    msgpack_packer_init(&pk, &w, write_bytes);
    msgpack_pack_array(&pk, RECORD_FIELDS);
    pack_bin(&pk, it->k.b, sizeof it->k.b);
    msgpack_pack_uint64(&pk, it->seq);
    pack_bin(&pk, it->sig.b, sizeof it->sig.b);
    if (it->v != NULL)
        pack_bin(&pk, it->v, it->v_len);
    else
        msgpack_pack_nil(&pk);
    pack_bin(&pk, it->salt, it->salt_len);
    msgpack_pack_int64(&pk, rec->stored_ns);
    msgpack_pack_int64(&pk, rec->expires_ns);
    msgpack_pack_uint8(&pk, (uint8_t)rec->tier);
    msgpack_pack_uint8(&pk, (uint8_t)rec->origin);
    if (pubkey_equal(&rec->charged, &it->k))
        msgpack_pack_nil(&pk);
    else
        pack_bin(&pk, rec->charged.b, sizeof rec->charged.b);
    msgpack_pack_int64(&pk, rec->rank_time);
    msgpack_pack_uint64(&pk, rec->rank_seq);
    assert(!wr_failed(&w));

    record_key(key, &rec->target, rec->kind);
    put_le64(out,
             record_sum(key, sizeof key, out + RECORD_SUM_BYTES, wr_len(&w) - RECORD_SUM_BYTES));
    return wr_len(&w);
}

/* ---- decoding ---- */

static int read_fields(struct store_rec *rec, const struct mp_doc *d)
{
    struct mp_in in = mp_doc_array(d);
    struct item *it = &rec->item;

    mp_in_fixed(&in, it->k.b, sizeof it->k.b);
    rec->ref = NULL;
    it->seq = mp_in_u64(&in, UINT64_MAX);
    mp_in_fixed(&in, it->sig.b, sizeof it->sig.b);
    it->v = mp_in_bin(&in, &it->v_len, ITEM_MAX_VALUE);
    it->salt = mp_in_bin(&in, &it->salt_len, ITEM_MAX_SALT);
    rec->stored_ns = mp_in_i64(&in);
    rec->expires_ns = mp_in_i64(&in);
    rec->tier = (enum item_tier)mp_in_u64(&in, ITEM_TIER_WHITELISTED);
    rec->origin = (enum store_origin)mp_in_u64(&in, STORE_CACHE);
    rec->charged = it->k;
    if (!mp_in_nil(&in))
        mp_in_fixed(&in, rec->charged.b, sizeof rec->charged.b);
    rec->rank_time = mp_in_i64(&in);
    rec->rank_seq = mp_in_u64(&in, UINT64_MAX);
    return mp_in_failed(&in) ? ERR_CORRUPT : 0;
}

int record_parse(struct store_rec *out, const void *p, size_t n)
{
    struct mp_doc d;
    int rc = mp_doc_open(&d, p, n, SCAN_DEPTH, SCAN_OBJECTS);

    if (rc == 0)
        rc = read_fields(out, &d); /* binaries point into p */
    mp_doc_close(&d);
    return rc == 0 || rc == ERR_NOMEM ? rc : ERR_CORRUPT;
}

int record_decode(struct store_rec *out, const uint8_t key[RECORD_KEY_BYTES], const void *p,
                  size_t n)
{
    if (n < RECORD_SUM_BYTES || key[KAD_ID_BYTES] >= ITEM_KIND__COUNT)
        return ERR_CORRUPT;
    const uint8_t *array = (const uint8_t *)p + RECORD_SUM_BYTES;
    n -= RECORD_SUM_BYTES;
    if (get_le64(p) != record_sum(key, RECORD_KEY_BYTES, array, n))
        return ERR_CORRUPT;
    memcpy(out->target.b, key, KAD_ID_BYTES);
    out->kind = (enum item_kind)key[KAD_ID_BYTES];
    return record_parse(out, array, n);
}
