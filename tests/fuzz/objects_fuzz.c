/* Stream objects: what decodes can be encoded again and means the same. */
#include <assert.h>
#include <string.h>

#include "transport/objects.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool same(struct gob_bytes a, struct gob_bytes b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static bool encodable(struct gob_bytes noise)
{
    return noise.n <= OBJECT_NOISE_MAX;
}

static void request(const uint8_t *data, size_t size)
{
    uint8_t buf[OBJECT_ENCODED_MAX];
    struct object_request a, b;
    size_t n;

    if (object_decode_request(&a, data, size) < 0 || !encodable(a.noise_msg))
        return;
    assert(object_encode_request(buf, sizeof buf, &n, &a, OBJECT_2026) == 0);
    assert(object_decode_request(&b, buf, n) == 0);
    assert(a.timestamp_ns == b.timestamp_ns && a.src.port == b.src.port &&
           a.dst.port == b.dst.port);
    assert(pubkey_equal(&a.src.pk, &b.src.pk) && pubkey_equal(&a.dst.pk, &b.dst.pk));
    assert(a.ip_info == b.ip_info && a.geo_info == b.geo_info && same(a.noise_msg, b.noise_msg));
    assert(object_check_request(&a) == object_check_request(&b));
}

static void response(const uint8_t *data, size_t size)
{
    uint8_t buf[OBJECT_ENCODED_MAX];
    struct object_response a, b;
    size_t n;

    if (object_decode_response(&a, data, size) < 0 || !encodable(a.noise_msg) || a.ip.n > 16 ||
        a.geo_country.n > OBJECT_TEXT_MAX || a.geo_region.n > OBJECT_TEXT_MAX)
        return;
    assert(object_encode_response(buf, sizeof buf, &n, &a, OBJECT_2026) == 0);
    assert(object_decode_response(&b, buf, n) == 0);
    assert(memcmp(&a.req_hash, &b.req_hash, sizeof a.req_hash) == 0 && a.err_code == b.err_code);
    assert(object_response_verdict(&a) == object_response_verdict(&b));
    assert(same(a.ip, b.ip) && same(a.geo_country, b.geo_country) &&
           same(a.noise_msg, b.noise_msg));
}

static void announce(const uint8_t *data, size_t size)
{
    uint8_t buf[OBJECT_ENCODED_MAX];
    struct object_announce a, b;
    size_t n;

    if (object_decode_announce(&a, data, size) < 0)
        return;
    assert(object_encode_announce(buf, sizeof buf, &n, &a) == 0);
    assert(object_decode_announce(&b, buf, n) == 0);
    assert(a.timestamp_ns == b.timestamp_ns && pubkey_equal(&a.src_pk, &b.src_pk));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (crypto_init() < 0)
        return 0;
    request(data, size);
    response(data, size);
    announce(data, size);
    return 0;
}
