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

struct lanes {
    uint64_t a, b;
};

static uint64_t lane(uint64_t h, uint64_t word)
{
    h = (h ^ word) * UINT64_C(0x9e3779b97f4a7c15);
    return h << 29 | h >> 35;
}

static void add_words(struct lanes *l, const uint8_t *p, size_t n)
{
    uint8_t rest[16] = {0};

    for (; n >= sizeof rest; n -= sizeof rest, p += sizeof rest) {
        l->a = lane(l->a, get_le64(p));
        l->b = lane(l->b, get_le64(p + 8));
    }
    memcpy(rest, p, n);
    l->a = lane(l->a, get_le64(rest));
    l->b = lane(l->b, get_le64(rest + 8));
}

/* Every step is one to one, so that whatever changes within one lane changes the sum; what changes in both does but
 * for one in 2^64. SipHash took a fifth of a look-up. */
static uint64_t value_sum(const uint8_t key[RECORD_KEY_BYTES], const uint8_t *p, size_t n)
{
    struct lanes l = {n, ~(uint64_t)n};

    add_words(&l, key, RECORD_KEY_BYTES);
    add_words(&l, p, n);
    return l.a ^ l.b * UINT64_C(0xd6e8feb86659fd93);
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

#define ORIGIN_SHIFT 2
#define LIFE_IN_MS   0x10 /* the time of expiry is stored_ns and so many ms */
#define MS           1000000

static bool life_in_ms(const struct store_rec *rec, uint32_t *ms)
{
    int64_t life;

    if (__builtin_sub_overflow(rec->expires_ns, rec->stored_ns, &life) || life < 0 ||
        life % MS != 0 || life / MS > UINT32_MAX)
        return false;
    *ms = (uint32_t)(life / MS);
    return true;
}

size_t record_encode(uint8_t *out, const struct store_rec *rec)
{
    const struct item *it = &rec->item;
    struct wr w = wr_init(out, RECORD_HEAD_MAX + it->v_len + it->salt_len);
    uint8_t key[RECORD_KEY_BYTES];
    msgpack_packer pk;

    wr_room(&w, RECORD_SUM_BYTES);
    msgpack_packer_init(&pk, &w, write_bytes);
    bool more = !pubkey_equal(&rec->charged, &it->k) || rec->rank_time != 0 || rec->rank_seq != 0;
    uint32_t life_ms = 0;
    bool in_ms = life_in_ms(rec, &life_ms);

    msgpack_pack_array(&pk, more ? RECORD_FIELDS_ALL : RECORD_FIELDS);
    msgpack_pack_bin(&pk, PUBKEY_BYTES + SIG_BYTES);
    msgpack_pack_bin_body(&pk, it->k.b, PUBKEY_BYTES);
    msgpack_pack_bin_body(&pk, it->sig.b, SIG_BYTES);
    msgpack_pack_uint64(&pk, it->seq);
    if (it->v != NULL)
        pack_bin(&pk, it->v, it->v_len);
    else
        msgpack_pack_nil(&pk);
    pack_bin(&pk, it->salt, it->salt_len);
    msgpack_pack_int64(&pk, rec->stored_ns);
    msgpack_pack_uint8(&pk, (uint8_t)(rec->tier | (unsigned)rec->origin << ORIGIN_SHIFT |
                                      (in_ms ? LIFE_IN_MS : 0)));
    if (in_ms)
        msgpack_pack_uint32(&pk, life_ms);
    else
        msgpack_pack_int64(&pk, rec->expires_ns);
    if (more) {
        pack_bin(&pk, rec->charged.b, sizeof rec->charged.b);
        msgpack_pack_int64(&pk, rec->rank_time);
        msgpack_pack_uint64(&pk, rec->rank_seq);
    }
    assert(!wr_failed(&w));

    record_key(key, &rec->target, rec->kind);
    put_le64(out, value_sum(key, out + RECORD_SUM_BYTES, wr_len(&w) - RECORD_SUM_BYTES));
    return wr_len(&w);
}

/* ---- decoding ---- */

static int read_fields(struct store_rec *rec, const struct mp_doc *d)
{
    struct mp_in in = mp_doc_array(d);
    struct item *it = &rec->item;

    uint8_t head[PUBKEY_BYTES + SIG_BYTES];

    rec->ref = NULL;
    memset(head, 0, sizeof head);
    mp_in_fixed(&in, head, sizeof head);
    memcpy(it->k.b, head, PUBKEY_BYTES);
    memcpy(it->sig.b, head + PUBKEY_BYTES, SIG_BYTES);
    it->seq = mp_in_u64(&in, UINT64_MAX);
    it->v = mp_in_bin(&in, &it->v_len, ITEM_MAX_VALUE);
    it->salt = mp_in_bin(&in, &it->salt_len, ITEM_MAX_SALT);
    rec->stored_ns = mp_in_i64(&in);
    uint64_t state = mp_in_u64(&in, LIFE_IN_MS | 0xf);
    rec->tier = (enum item_tier)(state & 3);
    rec->origin = (enum store_origin)(state >> ORIGIN_SHIFT & 3);
    if (rec->tier > ITEM_TIER_WHITELISTED || rec->origin > STORE_CACHE)
        mp_in_fail(&in);
    if ((state & LIFE_IN_MS) == 0)
        rec->expires_ns = mp_in_i64(&in);
    else if (__builtin_add_overflow(rec->stored_ns, (int64_t)mp_in_u64(&in, UINT32_MAX) * MS,
                                    &rec->expires_ns))
        mp_in_fail(&in);
    rec->charged = it->k;
    rec->rank_time = 0;
    rec->rank_seq = 0;
    if (in.left > 0) {
        mp_in_fixed(&in, rec->charged.b, sizeof rec->charged.b);
        rec->rank_time = mp_in_i64(&in);
        rec->rank_seq = mp_in_u64(&in, UINT64_MAX);
    }
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
    if (get_le64(p) != value_sum(key, array, n))
        return ERR_CORRUPT;
    memcpy(out->target.b, key, KAD_ID_BYTES);
    out->kind = (enum item_kind)key[KAD_ID_BYTES];
    return record_parse(out, array, n);
}
