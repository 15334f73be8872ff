#include "transport/objects.h"

#include <assert.h>
#include <string.h>

#include "base/err.h"

/* Type definitions as a fresh upstream process sends them, ids 64 and up (docs/protocol/dmsg.md
 * §4.4). A response of 2023 has the ids of a process that knows the request already: both
 * directions of one protocol, one numbering. Literals end where a hex escape would swallow the next
 * letter. */

#define DEF_ADDR_PUBKEY                                                                            \
    "\x23\xff\x81\x03\x01\x01\x04"                                                                 \
    "Addr\x01\xff\x82\x00\x01\x02"                                                                 \
    "\x01\x02PK\x01\xff\x84\x00\x01\x04Port\x01\x06\x00\x00\x00"                                   \
    "\x12\xff\x83\x06\x01\x01\x06PubKey\x01\xff\x84\x00\x00\x00"

static const char def_request_2023[] =
    "\x4f\x7f\x03\x01\x01\x0dStreamRequest\x01\xff\x80\x00\x01\x04"
    "\x01\x09Timestamp\x01\x04\x00\x01\x07SrcAddr\x01\xff\x82\x00"
    "\x01\x07"
    "DstAddr\x01\xff\x82\x00\x01\x08NoiseMsg\x01\x0a\x00\x00\x00" DEF_ADDR_PUBKEY;

static const char def_request_2026[] =
    "\x66\x7f\x03\x01\x01\x0dStreamRequest\x01\xff\x80\x00\x01\x06"
    "\x01\x09Timestamp\x01\x04\x00\x01\x07SrcAddr\x01\xff\x82\x00"
    "\x01\x07"
    "DstAddr\x01\xff\x82\x00\x01\x06IPinfo\x01\x02\x00\x01\x07GeoInfo\x01\x02\x00"
    "\x01\x08NoiseMsg\x01\x0a\x00\x00\x00" DEF_ADDR_PUBKEY;

static const char def_response_2023[] =
    "\x4f\xff\x85\x03\x01\x01\x0eStreamResponse\x01\xff\x86\x00\x01\x04"
    "\x01\x07ReqHash\x01\xff\x88\x00\x01\x08"
    "Accepted\x01\x02\x00\x01\x07"
    "ErrCode\x01\x06\x00\x01\x08NoiseMsg\x01\x0a\x00\x00\x00"
    "\x16\xff\x87\x01\x01\x01\x06SHA256\x01\xff\x88\x00\x01\x06\x01\x40\x00\x00";

static const char def_response_2026[] =
    "\xff\x88\x7f\x03\x01\x01\x0eStreamResponse\x01\xff\x80\x00\x01\x09"
    "\x01\x07ReqHash\x01\xff\x82\x00\x01\x08"
    "Accepted\x01\x02\x00\x01\x02IP\x01\x0a\x00"
    "\x01\x0aGeoCountry\x01\x0c\x00\x01\x09GeoRegion\x01\x0c\x00\x01\x06GeoLat\x01\x08\x00\x01\x06G"
    "eoLon\x01\x08\x00"
    "\x01\x07"
    "ErrCode\x01\x06\x00\x01\x08NoiseMsg\x01\x0a\x00\x00\x00"
    "\x16\xff\x81\x01\x01\x01\x06SHA256\x01\xff\x82\x00\x01\x06\x01\x40\x00\x00";

static const char def_announce[] =
    "\x32\x7f\x03\x01\x01\x0cPeerAnnounce\x01\xff\x80\x00\x01\x02"
    "\x01\x09Timestamp\x01\x04\x00\x01\x05SrcPK\x01\xff\x82\x00\x00\x00"
    "\x12\xff\x81\x06\x01\x01\x06PubKey\x01\xff\x82\x00\x00\x00";

/* ---- encoding ---------------------------------------------------------------------------------
 */

/* A struct value under way: zero fields are left out and make the next delta larger. */
struct enc {
    struct wr *w;
    unsigned last;
};

static void put_field(struct enc *e, unsigned number)
{
    gob_put_uint(e->w, number - e->last);
    e->last = number;
}

static void put_end(struct enc *e)
{
    wr_u8(e->w, 0);
}

static void put_int(struct enc *e, unsigned number, int64_t v)
{
    if (v != 0) {
        put_field(e, number);
        gob_put_int(e->w, v);
    }
}

static void put_uint(struct enc *e, unsigned number, uint64_t v)
{
    if (v != 0) {
        put_field(e, number);
        gob_put_uint(e->w, v);
    }
}

static void put_float(struct enc *e, unsigned number, double v)
{
    if (v < 0 || v > 0) {
        put_field(e, number);
        gob_put_float(e->w, v);
    }
}

static void put_bytes(struct enc *e, unsigned number, struct gob_bytes v)
{
    if (v.n != 0) {
        put_field(e, number);
        gob_put_bytes(e->w, v.p, v.n);
    }
}

static void put_pubkey(struct enc *e, unsigned number, const struct pubkey *pk)
{
    if (!pubkey_is_null(pk))
        put_bytes(e, number, (struct gob_bytes){pk->b, PUBKEY_BYTES});
}

/* Structs and arrays are sent even when they are zero. */
static void put_addr(struct enc *e, unsigned number, const struct object_addr *addr)
{
    struct enc sub = {.w = e->w};

    put_field(e, number);
    put_pubkey(&sub, 1, &addr->pk);
    put_uint(&sub, 2, addr->port);
    put_end(&sub);
}

static void put_hash(struct enc *e, unsigned number, const struct hash *h)
{
    put_field(e, number);
    gob_put_uint(e->w, HASH_BYTES);
    for (size_t i = 0; i < HASH_BYTES; i++)
        gob_put_uint(e->w, h->b[i]);
}

/* Room for the signature, the definitions, then the value in a message of its own. */
static int finish(uint8_t *out, size_t cap, size_t *n, const char *def, size_t def_len,
                  const struct wr *value)
{
    struct wr w = wr_init(out, cap);
    uint8_t *sig = wr_room(&w, SIG_BYTES);

    if (sig != NULL)
        memset(sig, 0, SIG_BYTES);
    wr_bytes(&w, def, def_len);
    gob_put_uint(&w, wr_len(value));
    wr_bytes(&w, value->p, wr_len(value));
    if (wr_failed(value) || wr_failed(&w))
        return ERR_TOO_LONG;
    *n = wr_len(&w);
    return 0;
}

int object_encode_request(uint8_t *out, size_t cap, size_t *n, const struct object_request *req,
                          enum object_shape shape)
{
    bool wide = shape == OBJECT_2026;
    uint8_t buf[OBJECT_ENCODED_MAX];
    struct wr w = wr_init(buf, sizeof buf);
    struct enc e = {.w = &w};

    assert(wide || !(req->ip_info || req->geo_info));
    gob_put_int(&w, 64);
    put_int(&e, 1, req->timestamp_ns);
    put_addr(&e, 2, &req->src);
    put_addr(&e, 3, &req->dst);
    if (wide) {
        put_uint(&e, 4, req->ip_info);
        put_uint(&e, 5, req->geo_info);
    }
    put_bytes(&e, wide ? 6 : 4, req->noise_msg);
    put_end(&e);
    return wide ? finish(out, cap, n, def_request_2026, sizeof def_request_2026 - 1, &w)
                : finish(out, cap, n, def_request_2023, sizeof def_request_2023 - 1, &w);
}

int object_encode_response(uint8_t *out, size_t cap, size_t *n, const struct object_response *rsp,
                           enum object_shape shape)
{
    bool wide = shape == OBJECT_2026;
    uint8_t buf[OBJECT_ENCODED_MAX];
    struct wr w = wr_init(buf, sizeof buf);
    struct enc e = {.w = &w};

    assert(wide || (rsp->ip.n == 0 && rsp->geo_country.n == 0 && rsp->geo_region.n == 0));
    gob_put_int(&w, wide ? 64 : 67);
    put_hash(&e, 1, &rsp->req_hash);
    put_uint(&e, 2, rsp->accepted);
    if (wide) {
        put_bytes(&e, 3, rsp->ip);
        put_bytes(&e, 4, rsp->geo_country);
        put_bytes(&e, 5, rsp->geo_region);
        put_float(&e, 6, rsp->geo_lat);
        put_float(&e, 7, rsp->geo_lon);
    }
    put_uint(&e, wide ? 8 : 3, rsp->err_code);
    put_bytes(&e, wide ? 9 : 4, rsp->noise_msg);
    put_end(&e);
    return wide ? finish(out, cap, n, def_response_2026, sizeof def_response_2026 - 1, &w)
                : finish(out, cap, n, def_response_2023, sizeof def_response_2023 - 1, &w);
}

int object_encode_announce(uint8_t *out, size_t cap, size_t *n, const struct object_announce *ann)
{
    uint8_t buf[64];
    struct wr w = wr_init(buf, sizeof buf);
    struct enc e = {.w = &w};

    gob_put_int(&w, 64);
    put_int(&e, 1, ann->timestamp_ns);
    put_pubkey(&e, 2, &ann->src_pk);
    put_end(&e);
    return finish(out, cap, n, def_announce, sizeof def_announce - 1, &w);
}

/* ---- signed objects ---------------------------------------------------------------------------
 */

void object_set_sig(uint8_t *obj, const struct sig *sig)
{
    memcpy(obj, sig->b, SIG_BYTES);
}

void object_get_sig(struct sig *sig, const uint8_t *obj)
{
    memcpy(sig->b, obj, SIG_BYTES);
}

void object_digest(struct hash *out, const uint8_t *obj, size_t n)
{
    assert(n > SIG_BYTES);
    crypto_sha256(out, obj + SIG_BYTES, n - SIG_BYTES);
}

void object_hash(struct hash *out, const uint8_t *obj, size_t n)
{
    crypto_sha256(out, obj, n);
}

/* ---- decoding ---------------------------------------------------------------------------------
 */

#define FIELD(s, member, nm, ty)                                                                   \
    {                                                                                              \
        .name = (nm), .type = (ty), .offset = offsetof(struct s, member)                           \
    }
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static const struct gob_field_spec spec_addr[] = {
    FIELD(object_addr, pk, "PK", GOB_PUBKEY),
    FIELD(object_addr, port, "Port", GOB_U16),
};

#define FIELD_ADDR(member, nm)                                                                     \
    {                                                                                              \
        .name = (nm), .type = GOB_STRUCT, .offset = offsetof(struct object_request, member),       \
        .sub = spec_addr, .n_sub = COUNT(spec_addr)                                                \
    }

static const struct gob_field_spec spec_request[] = {
    FIELD(object_request, timestamp_ns, "Timestamp", GOB_I64),
    FIELD_ADDR(src, "SrcAddr"),
    FIELD_ADDR(dst, "DstAddr"),
    FIELD(object_request, ip_info, "IPinfo", GOB_BOOL),
    FIELD(object_request, geo_info, "GeoInfo", GOB_BOOL),
    FIELD(object_request, noise_msg, "NoiseMsg", GOB_BYTES),
};

static const struct gob_field_spec spec_response[] = {
    FIELD(object_response, req_hash, "ReqHash", GOB_HASH),
    FIELD(object_response, accepted, "Accepted", GOB_BOOL),
    FIELD(object_response, ip, "IP", GOB_BYTES),
    FIELD(object_response, geo_country, "GeoCountry", GOB_STRING),
    FIELD(object_response, geo_region, "GeoRegion", GOB_STRING),
    FIELD(object_response, geo_lat, "GeoLat", GOB_F64),
    FIELD(object_response, geo_lon, "GeoLon", GOB_F64),
    FIELD(object_response, err_code, "ErrCode", GOB_U16),
    FIELD(object_response, noise_msg, "NoiseMsg", GOB_BYTES),
};

static const struct gob_field_spec spec_announce[] = {
    FIELD(object_announce, timestamp_ns, "Timestamp", GOB_I64),
    FIELD(object_announce, src_pk, "SrcPK", GOB_PUBKEY),
};

static int decode(void *out, const struct gob_field_spec *spec, size_t n_spec, const uint8_t *obj,
                  size_t n)
{
    if (n <= SIG_BYTES)
        return ERR_DMSG_OBJECT;
    return gob_decode(out, spec, n_spec, obj + SIG_BYTES, n - SIG_BYTES);
}

int object_decode_request(struct object_request *out, const uint8_t *obj, size_t n)
{
    *out = (struct object_request){0};
    return decode(out, spec_request, COUNT(spec_request), obj, n);
}

int object_decode_response(struct object_response *out, const uint8_t *obj, size_t n)
{
    *out = (struct object_response){0};
    return decode(out, spec_response, COUNT(spec_response), obj, n);
}

int object_decode_announce(struct object_announce *out, const uint8_t *obj, size_t n)
{
    *out = (struct object_announce){0};
    return decode(out, spec_announce, COUNT(spec_announce), obj, n);
}

/* ---- checks -----------------------------------------------------------------------------------
 */

int object_check_request(const struct object_request *req)
{
    if (pubkey_is_null(&req->src.pk))
        return ERR_DMSG_REQ_SRC_PK;
    if (req->src.port == 0)
        return ERR_DMSG_REQ_SRC_PORT;
    if (pubkey_is_null(&req->dst.pk))
        return ERR_DMSG_REQ_DST_PK;
    if (req->dst.port == 0)
        return ERR_DMSG_REQ_DST_PORT;
    if (req->timestamp_ns <= 0)
        return ERR_DMSG_REQ_TIME;
    return 0;
}

int object_check_source(const struct object_request *req, const struct pubkey *session_pk,
                        bool foreign_ok)
{
    if (pubkey_equal(&req->src.pk, session_pk) || (foreign_ok && !req->ip_info))
        return 0;
    return ERR_DMSG_REQ_SRC_PK;
}

int object_check_destination(const struct object_request *req, const struct pubkey *self)
{
    return pubkey_equal(&req->dst.pk, self) ? 0 : ERR_DMSG_REQ_DST_PK;
}

int object_check_response(const struct object_response *rsp, const struct hash *req_hash)
{
    return memcmp(rsp->req_hash.b, req_hash->b, HASH_BYTES) == 0 ? 0 : ERR_DMSG_RSP_HASH;
}

int object_response_verdict(const struct object_response *rsp)
{
    return rsp->accepted ? 0 : err_from_dmsg_code(rsp->err_code);
}

int object_check_announce(const struct object_announce *ann, const struct pubkey *session_pk)
{
    if (pubkey_is_null(&ann->src_pk) || !pubkey_equal(&ann->src_pk, session_pk))
        return ERR_DMSG_REQ_SRC_PK;
    return 0;
}
