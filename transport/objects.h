/*
 * objects - what dmsg entities say to each other while a stream is set up: StreamRequest,
 * StreamResponse, PeerAnnounce.
 *
 * A signed object is `signature(65) | gob` (docs/protocol/dmsg.md §4.2). It crosses servers
 * unchanged. Its digest, which is signed, is H(gob); its hash, by which a response names its
 * request, is H(signature | gob). This module encodes and decodes the three, and makes the checks
 * of §4.6 in their order. It signs and verifies nothing: the caller gives object_digest() to
 * env_pk().
 *
 * Encoding: object_encode_*() leaves room for the signature; sign the digest, then
 * object_set_sig().
 *
 *     uint8_t obj[OBJECT_ENCODED_MAX];
 *     size_t n;
 *     rc = object_encode_request(obj, sizeof obj, &n, &req, OBJECT_2023);
 *     object_digest(&digest, obj, n);   …sign…   object_set_sig(obj, &sig); object_hash(&req_hash,
 * obj, n);
 *
 * Receiving a request, at a server and at a destination:
 *
 *     object_decode_request()      anything but 0: close the stream
 *     object_check_request()       302 304 303 305 301
 *     verify digest by req.src.pk  else ERR_DMSG_REQ_SIG (300)
 *     server:      object_check_source()   302       destination: object_check_destination()   303
 *
 * Receiving a response: object_decode_response(), object_check_response() (351), verify by the
 * destination's key (else ERR_DMSG_RSP_SIG, 350), object_response_verdict() (0 or the error of the
 * refusal).
 *
 * A server looks at the object of every stream as an announcement first (§5.2): it is one when
 * object_decode_announce() gives 0, src_pk is the session's key (object_check_announce) and the
 * signature by src_pk is right; else it is judged as a request.
 *
 * Ownership: byte strings of decoded objects point into the input. No allocation, any thread.
 * Errors: as gob.h, and ERR_DMSG_OBJECT (370) for an object too short to hold a signature.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/crypto.h"
#include "transport/gob.h"

#define OBJECT_ENCODED_MAX 2048u /* any object that this module encodes */
#define OBJECT_NOISE_MAX                                                                           \
    1233u /* KK message 1 with a hybrid offer (§2.6); message 2 has at most 1137 */
#define OBJECT_TEXT_MAX 64u /* country and region */

/* Which fields the type definition lists. Receivers match by name, so 2023 serves whenever the
 * fields of 2026 are not used. */
enum object_shape {
    OBJECT_2023,
    OBJECT_2026, /* with IPinfo, GeoInfo; IP, Geo… */
};

struct object_addr {
    struct pubkey pk; /* null: absent */
    uint16_t port;
};

struct object_request {
    int64_t timestamp_ns; /* wall clock */
    struct object_addr src, dst;
    bool ip_info, geo_info;
    struct gob_bytes noise_msg; /* KK message 1 */
};

struct object_response {
    struct hash req_hash;
    bool accepted;
    uint16_t err_code;
    struct gob_bytes ip; /* 4 or 16 bytes */
    struct gob_bytes geo_country, geo_region;
    double geo_lat, geo_lon;
    struct gob_bytes noise_msg; /* KK message 2 */
};

struct object_announce {
    int64_t timestamp_ns;
    struct pubkey src_pk;
};

/* ---- encoding ---- */

/* 65 zero bytes and the gob into out[cap], length in *n. Byte-identical to the first such object of
 * an upstream process. ERR_TOO_LONG when it does not fit (never with OBJECT_ENCODED_MAX and fields
 * within the limits above). Fields that the shape lacks must be zero (assert). */
int object_encode_request(uint8_t *out, size_t cap, size_t *n, const struct object_request *req,
                          enum object_shape shape) __attribute__((warn_unused_result));
int object_encode_response(uint8_t *out, size_t cap, size_t *n, const struct object_response *rsp,
                           enum object_shape shape) __attribute__((warn_unused_result));
int object_encode_announce(uint8_t *out, size_t cap, size_t *n, const struct object_announce *ann)
    __attribute__((warn_unused_result));

/* ---- signed objects as bytes (n > SIG_BYTES) ---- */

void object_set_sig(uint8_t *obj, const struct sig *sig);
void object_get_sig(struct sig *sig, const uint8_t *obj);
void object_digest(struct hash *out, const uint8_t *obj, size_t n);
void object_hash(struct hash *out, const uint8_t *obj, size_t n);

/* ---- decoding; obj[0..n) is the plaintext of a session object ---- */

int object_decode_request(struct object_request *out, const uint8_t *obj, size_t n)
    __attribute__((warn_unused_result));
int object_decode_response(struct object_response *out, const uint8_t *obj, size_t n)
    __attribute__((warn_unused_result));
int object_decode_announce(struct object_announce *out, const uint8_t *obj, size_t n)
    __attribute__((warn_unused_result));

/* ---- checks of §4.6, in this order ---- */

/* Fields: 302 null source, 304 source port 0, 303 null destination, 305 destination port 0, 301
 * timestamp not above 0. Before the signature. */
int object_check_request(const struct object_request *req) __attribute__((warn_unused_result));

/* Server, after the signature: the source is the session's key. foreign_ok: the session may carry
 * requests of others (§5.3-4), never IP requests. 0 or 302. */
int object_check_source(const struct object_request *req, const struct pubkey *session_pk,
                        bool foreign_ok) __attribute__((warn_unused_result));

/* Destination, after the signature: the request is for this key. 0 or 303. */
int object_check_destination(const struct object_request *req, const struct pubkey *self)
    __attribute__((warn_unused_result));

/* Before the signature: the response answers this request. 0 or 351. */
int object_check_response(const struct object_response *rsp, const struct hash *req_hash)
    __attribute__((warn_unused_result));

/* After the signature: 0 when accepted, else the error of its code; 352 for none and for unknown
 * ones. */
int object_response_verdict(const struct object_response *rsp) __attribute__((warn_unused_result));

/* Before the signature: source key is not null and the session's. 0 or 302. */
int object_check_announce(const struct object_announce *ann, const struct pubkey *session_pk)
    __attribute__((warn_unused_result));
