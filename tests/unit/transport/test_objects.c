/* objects: recorded StreamRequest, StreamResponse and PeerAnnounce, byte for byte both ways, and
 * the checks in their order. */
#include "transport/objects.h"

#include <stdio.h>

#include "base/err.h"
#include "tests/unit/vectors.h"

static json_t *root;

static bool is(const json_t *v, const char *key, const char *want)
{
    const char *s = json_string_value(json_object_get(v, key));

    return s != NULL && strcmp(s, want) == 0;
}

static long long num(const json_t *v, const char *key)
{
    return json_integer_value(json_object_get(v, key));
}

/* Optional hex member; the caller frees *mem. */
static struct gob_bytes opt_hex(const json_t *v, const char *key, uint8_t **mem)
{
    struct gob_bytes b = {0};

    *mem = NULL;
    if (json_object_get(v, key) != NULL) {
        *mem = vec_hex_dup(v, key, &b.n);
        b.p = *mem;
    }
    return b;
}

static bool same(struct gob_bytes a, struct gob_bytes b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static struct object_request want_request(const json_t *v, uint8_t **mem)
{
    struct object_request r = {
        .timestamp_ns = num(v, "timestamp"),
        .src.port = (uint16_t)num(v, "src_port"),
        .dst.port = (uint16_t)num(v, "dst_port"),
        .ip_info = json_is_true(json_object_get(v, "ipinfo")),
        .geo_info = json_is_true(json_object_get(v, "geoinfo")),
        .noise_msg = opt_hex(v, "noise_msg", mem),
    };

    vec_hex(v, "src_pk", &r.src.pk, PUBKEY_BYTES);
    vec_hex(v, "dst_pk", &r.dst.pk, PUBKEY_BYTES);
    return r;
}

static struct gob_bytes opt_text(const json_t *v, const char *key)
{
    const char *s = json_string_value(json_object_get(v, key));

    return (struct gob_bytes){(const uint8_t *)s, s != NULL ? strlen(s) : 0};
}

static struct object_response want_response(const json_t *v, uint8_t **mem, uint8_t **ip)
{
    struct object_response r = {
        .accepted = json_is_true(json_object_get(v, "accepted")),
        .err_code = (uint16_t)num(v, "err_code"),
        .ip = opt_hex(v, "ip", ip),
        .geo_country = opt_text(v, "geo_country"),
        .geo_region = opt_text(v, "geo_region"),
        .geo_lat = json_number_value(json_object_get(v, "geo_lat")),
        .geo_lon = json_number_value(json_object_get(v, "geo_lon")),
        .noise_msg = opt_hex(v, "noise_msg", mem),
    };

    vec_hex(v, "req_hash", &r.req_hash, HASH_BYTES);
    return r;
}

static void assert_request(const struct object_request *a, const struct object_request *b)
{
    assert_true(a->timestamp_ns == b->timestamp_ns);
    assert_true(pubkey_equal(&a->src.pk, &b->src.pk) && a->src.port == b->src.port);
    assert_true(pubkey_equal(&a->dst.pk, &b->dst.pk) && a->dst.port == b->dst.port);
    assert_true(a->ip_info == b->ip_info && a->geo_info == b->geo_info);
    assert_true(same(a->noise_msg, b->noise_msg));
}

static void assert_response(const struct object_response *a, const struct object_response *b)
{
    assert_memory_equal(&a->req_hash, &b->req_hash, HASH_BYTES);
    assert_true(a->accepted == b->accepted && a->err_code == b->err_code);
    assert_true(same(a->ip, b->ip) && same(a->noise_msg, b->noise_msg));
    assert_true(same(a->geo_country, b->geo_country) && same(a->geo_region, b->geo_region));
    assert_memory_equal(&a->geo_lat, &b->geo_lat, sizeof a->geo_lat);
    assert_memory_equal(&a->geo_lon, &b->geo_lon, sizeof a->geo_lon);
}

/* The signed object of a vector: recorded, or its gob behind an empty signature. */
static uint8_t *object_of(const json_t *v, size_t *n)
{
    size_t gob_len;
    uint8_t *gob, *obj;

    if (json_object_get(v, "signed_object") != NULL)
        return vec_hex_dup(v, "signed_object", n);
    gob = vec_hex_dup(v, "gob", &gob_len);
    obj = calloc(1, SIG_BYTES + gob_len);
    memcpy(obj + SIG_BYTES, gob, gob_len);
    free(gob);
    *n = SIG_BYTES + gob_len;
    return obj;
}

/* Sign as the recording did (given nonce), or take the recorded signature over; then all bytes are
 * equal. */
static void assert_encoded(const json_t *v, uint8_t *mine, size_t mine_len, const uint8_t *obj,
                           size_t n)
{
    struct hash digest, hash, want;
    struct sig sig;

    assert_int_equal(mine_len, n);
    assert_memory_equal(mine + SIG_BYTES, obj + SIG_BYTES, n - SIG_BYTES);
    if (json_object_get(v, "sign_nonce_k") != NULL) {
        struct seckey sk;
        uint8_t k[32];

        vec_hex(v, "signer_sk", &sk, sizeof sk);
        vec_hex(v, "sign_nonce_k", k, sizeof k);
        object_digest(&digest, mine, mine_len);
        assert_int_equal(crypto_sign_with_nonce(&sig, &sk, &digest, k), 0);
    } else {
        object_get_sig(&sig, obj);
    }
    object_set_sig(mine, &sig);
    assert_memory_equal(mine, obj, n);
    if (json_object_get(v, "hash") != NULL) {
        vec_hex(v, "hash", &want, sizeof want);
        object_hash(&hash, mine, mine_len);
        assert_memory_equal(&hash, &want, sizeof want);
    }
}

/* The code that the peers' text begins with; "" is none. */
static unsigned code_of(const char *text)
{
    unsigned code = 0;

    sscanf(text, "dmsg error %u", &code);
    return code;
}

static void verify_request(const json_t *v, const struct object_request *req, const uint8_t *obj,
                           size_t n)
{
    int rc = object_check_request(req);

    if (rc == 0) {
        struct hash digest;
        struct sig sig;

        object_get_sig(&sig, obj);
        object_digest(&digest, obj, n);
        rc = crypto_verify_digest(&req->src.pk, &sig, &digest) == 0 ? 0 : ERR_DMSG_REQ_SIG;
    }
    assert_int_equal(err_dmsg_code(rc), code_of(vec_str(v, "verify_error")));
}

/* The responses of gob.objects answer its first request, whose destination signs them. */
static void verify_response(const char *want, const struct object_response *rsp, const uint8_t *obj,
                            size_t n, const json_t *request)
{
    struct hash req_hash, digest;
    struct pubkey dst;
    struct sig sig;
    int rc;

    vec_hex(request, "hash", &req_hash, sizeof req_hash);
    vec_hex(request, "dst_pk", &dst, sizeof dst);
    rc = object_check_response(rsp, &req_hash);
    if (rc == 0) {
        object_get_sig(&sig, obj);
        object_digest(&digest, obj, n);
        rc = crypto_verify_digest(&dst, &sig, &digest) == 0 ? object_response_verdict(rsp)
                                                            : ERR_DMSG_RSP_SIG;
    }
    assert_int_equal(err_dmsg_code(rc), code_of(want));
}

static void check_request(const json_t *v, size_t *verified)
{
    uint8_t mine[OBJECT_ENCODED_MAX], *mem;
    size_t n, mine_len;
    uint8_t *obj = object_of(v, &n);
    struct object_request got, want = want_request(v, &mem);
    bool wide = num(v, "shape") == 2026 || json_object_get(v, "is_announcement") != NULL;

    assert_int_equal(object_decode_request(&got, obj, n), 0);
    assert_request(&got, &want);
    assert_int_equal(object_encode_request(mine, sizeof mine, &mine_len, &want,
                                           wide ? OBJECT_2026 : OBJECT_2023),
                     0);
    /* The 2026 objects of this section come from a process that had encoded others before: other
     * type ids. */
    if (json_object_get(v, "signed_object") != NULL)
        assert_encoded(v, mine, mine_len, obj, n);
    assert_int_equal(object_decode_request(&got, mine, mine_len), 0);
    assert_request(&got, &want);
    if (json_object_get(v, "verify_error") != NULL) {
        verify_request(v, &got, obj, n);
        (*verified)++;
    }
    free(mem);
    free(obj);
}

static void check_response(const json_t *v, const json_t *first, size_t *verified)
{
    uint8_t mine[OBJECT_ENCODED_MAX], *mem, *ip;
    size_t n, mine_len;
    uint8_t *obj = object_of(v, &n);
    struct object_response got, want = want_response(v, &mem, &ip);
    bool wide = num(v, "shape") != 2023;
    const json_t *verdict = json_object_get(v, "verify_error_against_ordinary_dial");

    assert_int_equal(object_decode_response(&got, obj, n), 0);
    assert_response(&got, &want);
    assert_int_equal(object_encode_response(mine, sizeof mine, &mine_len, &want,
                                            wide ? OBJECT_2026 : OBJECT_2023),
                     0);
    if (json_object_get(v, "signed_object") != NULL)
        assert_encoded(v, mine, mine_len, obj, n);
    assert_int_equal(object_decode_response(&got, mine, mine_len), 0);
    assert_response(&got, &want);
    if (verdict != NULL) {
        verify_response(json_string_value(verdict), &got, obj, n, first);
        (*verified)++;
    }
    free(mem);
    free(ip);
    free(obj);
}

static void test_recorded(void **state)
{
    const json_t *v, *list = vec_get(vec_get(root, "gob"), "objects");
    size_t i, requests = 0, responses = 0;

    (void)state;
    assert_int_equal(json_array_size(list), 20);
    json_array_foreach(list, i, v)
    {
        if (is(v, "type", "StreamRequest"))
            check_request(v, &requests);
        else
            check_response(v, json_array_get(list, 0), &responses);
    }
    assert_int_equal(requests, 10);
    assert_int_equal(responses, 8);
}

/* What a server decides about an object on a session of session_pk. */
static bool is_announcement(const uint8_t *obj, size_t n, const struct pubkey *session_pk)
{
    struct object_announce ann;
    struct hash digest;
    struct sig sig;

    if (object_decode_announce(&ann, obj, n) < 0 || object_check_announce(&ann, session_pk) < 0)
        return false;
    object_get_sig(&sig, obj);
    object_digest(&digest, obj, n);
    return crypto_verify_digest(&ann.src_pk, &sig, &digest) == 0;
}

static void check_announce(const json_t *v, size_t i)
{
    struct object_announce got, want = {.timestamp_ns = num(v, "timestamp")};
    uint8_t mine[OBJECT_ENCODED_MAX];
    size_t n, mine_len;
    uint8_t *obj = object_of(v, &n);

    vec_hex(v, "src_pk", &want.src_pk, PUBKEY_BYTES);
    assert_int_equal(object_decode_announce(&got, obj, n), 0);
    assert_true(got.timestamp_ns == want.timestamp_ns && pubkey_equal(&got.src_pk, &want.src_pk));
    assert_int_equal(object_encode_announce(mine, sizeof mine, &mine_len, &want), 0);
    if (i != 1) /* the second has the type ids of a process that had sent a request before */
        assert_encoded(v, mine, mine_len, obj, n);
    free(obj);
}

static void test_2026(void **state)
{
    const json_t *v, *list = vec_get(vec_get(root, "gob_2026"), "objects");
    size_t i, decided = 0, none = 0;

    (void)state;
    assert_int_equal(json_array_size(list), 9);
    json_array_foreach(list, i, v)
    {
        size_t n;
        uint8_t *obj = object_of(v, &n);
        struct object_response rsp;

        if (is(v, "type", "PeerAnnounce"))
            check_announce(v, i);
        else if (is(v, "type", "StreamRequest"))
            check_request(v, &none);
        else
            check_response(v, NULL, &none);
        if (json_object_get(v, "is_announcement") != NULL) {
            struct pubkey session_pk;

            vec_hex(v, "session_remote_pk", &session_pk, sizeof session_pk);
            assert_int_equal(is_announcement(obj, n, &session_pk), vec_bool(v, "is_announcement"));
            decided++;
        }
        if (json_object_get(v, "request_error") != NULL) {
            struct object_request req;

            assert_int_equal(object_decode_request(&req, obj, n), 0);
            assert_int_equal(err_dmsg_code(object_check_request(&req)),
                             vec_int(v, "request_error"));
        }
        if (json_object_get(v, "verify_error") != NULL) {
            assert_int_equal(object_decode_response(&rsp, obj, n), 0);
            assert_int_equal(err_dmsg_code(object_response_verdict(&rsp)),
                             code_of(vec_str(v, "verify_error")));
        }
        free(obj);
    }
    assert_int_equal(decided, 6);
}

/* Several faults at once: the first of the order decides. */
static void test_order_of_checks(void **state)
{
    struct object_request good = {.timestamp_ns = 1, .src = {{{2}}, 1}, .dst = {{{3}}, 1}},
                          req = {0};

    (void)state;
    assert_int_equal(object_check_request(&req), ERR_DMSG_REQ_SRC_PK);
    req.src.pk = good.src.pk;
    assert_int_equal(object_check_request(&req), ERR_DMSG_REQ_SRC_PORT);
    req.src.port = 1;
    assert_int_equal(object_check_request(&req), ERR_DMSG_REQ_DST_PK);
    req.dst.pk = good.dst.pk;
    assert_int_equal(object_check_request(&req), ERR_DMSG_REQ_DST_PORT);
    req.dst.port = 1;
    assert_int_equal(object_check_request(&req), ERR_DMSG_REQ_TIME);
    req.timestamp_ns = -1;
    assert_int_equal(object_check_request(&req), ERR_DMSG_REQ_TIME);
    req.timestamp_ns = INT64_MAX; /* far future is fine */
    assert_int_equal(object_check_request(&req), 0);
}

static void test_source_and_destination(void **state)
{
    struct object_request req = {.timestamp_ns = 1, .src = {{{2}}, 1}, .dst = {{{3}}, 1}};

    (void)state;
    assert_int_equal(object_check_source(&req, &req.src.pk, false), 0);
    assert_int_equal(object_check_source(&req, &req.dst.pk, false), ERR_DMSG_REQ_SRC_PK);
    assert_int_equal(object_check_source(&req, &req.dst.pk, true), 0);
    req.ip_info = true;
    assert_int_equal(object_check_source(&req, &req.dst.pk, true), ERR_DMSG_REQ_SRC_PK);
    assert_int_equal(object_check_source(&req, &req.src.pk, false), 0);
    assert_int_equal(object_check_destination(&req, &req.dst.pk), 0);
    assert_int_equal(object_check_destination(&req, &req.src.pk), ERR_DMSG_REQ_DST_PK);
}

static void test_too_short(void **state)
{
    static const uint8_t zeros[SIG_BYTES + 1];
    struct object_request req;
    struct object_response rsp;
    struct object_announce ann;

    (void)state;
    for (size_t n = 0; n <= SIG_BYTES; n++) {
        assert_int_equal(object_decode_request(&req, zeros, n), ERR_DMSG_OBJECT);
        assert_int_equal(object_decode_response(&rsp, zeros, n), ERR_DMSG_OBJECT);
        assert_int_equal(object_decode_announce(&ann, zeros, n), ERR_DMSG_OBJECT);
    }
    assert_int_equal(object_decode_request(&req, zeros, SIG_BYTES + 1), ERR_SHORT);
}

/* Largest fields fit the constant; every smaller buffer is an error and stays untouched behind its
 * end. */
static void test_sizes(void **state)
{
    uint8_t noise[OBJECT_NOISE_MAX], ip[16] = {0}, text[OBJECT_TEXT_MAX] = {0},
                                     buf[OBJECT_ENCODED_MAX + 1];
    struct object_response rsp = {.accepted = true,
                                  .err_code = 65535,
                                  .ip = {ip, sizeof ip},
                                  .geo_country = {text, sizeof text},
                                  .geo_region = {text, sizeof text},
                                  .geo_lat = 1.1,
                                  .geo_lon = -1.1,
                                  .noise_msg = {noise, sizeof noise}};
    struct object_response got;
    size_t n = 0, k;

    (void)state;
    memset(noise, 0xff, sizeof noise);
    memset(&rsp.req_hash, 0xff, sizeof rsp.req_hash);
    assert_int_equal(object_encode_response(buf, OBJECT_ENCODED_MAX, &n, &rsp, OBJECT_2026), 0);
    assert_int_equal(object_decode_response(&got, buf, n), 0);
    assert_response(&got, &rsp);
    for (size_t cap = 0; cap < n; cap++) {
        memset(buf, 0x5a, sizeof buf);
        assert_int_equal(object_encode_response(buf, cap, &k, &rsp, OBJECT_2026), ERR_TOO_LONG);
        assert_int_equal(buf[cap], 0x5a);
    }
    uint8_t huge[2 * OBJECT_ENCODED_MAX] = {0};
    rsp.noise_msg = (struct gob_bytes){huge, sizeof huge};
    assert_int_equal(object_encode_response(buf, sizeof buf, &n, &rsp, OBJECT_2026), ERR_TOO_LONG);
}

/* One bit anywhere in a signed request: it no longer decodes, no longer passes the fields, or no
 * longer verifies. */
static void test_every_bit_counts(void **state)
{
    const json_t *v = json_array_get(vec_get(vec_get(root, "gob"), "objects"), 0);
    size_t n;
    uint8_t *obj = object_of(v, &n);
    struct pubkey session_pk;

    (void)state;
    vec_hex(v, "src_pk", &session_pk, sizeof session_pk);
    for (size_t bit = 0; bit < 8 * n; bit++) {
        struct object_request req;
        struct hash digest;
        struct sig sig;
        bool ok;

        obj[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        ok = object_decode_request(&req, obj, n) == 0 && object_check_request(&req) == 0;
        if (ok) {
            object_get_sig(&sig, obj);
            object_digest(&digest, obj, n);
            ok = crypto_verify_digest(&req.src.pk, &sig, &digest) == 0;
        }
        assert_false(ok);
        obj[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
    free(obj);
}

static int setup(void **state)
{
    (void)state;
    root = vectors_load("dmsg");
    return crypto_init();
}

static int teardown(void **state)
{
    (void)state;
    json_decref(root);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_recorded),         cmocka_unit_test(test_2026),
        cmocka_unit_test(test_order_of_checks),  cmocka_unit_test(test_source_and_destination),
        cmocka_unit_test(test_too_short),        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_every_bit_counts),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
