/* gob: any bytes decode or fail, in bounded time, and byte strings lie inside of the input. */
#include <assert.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/crypto.h"
#include "transport/gob.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct inner {
    struct pubkey pk;
    uint16_t port;
};

struct record {
    int64_t time;
    struct inner src;
    bool flag;
    double lat;
    struct gob_bytes noise, text;
    struct hash hash;
};

#define F(s, m, nm, ty)                                                                            \
    {                                                                                              \
        .name = (nm), .type = (ty), .offset = offsetof(struct s, m)                                \
    }

static const struct gob_field_spec inner_spec[] = {F(inner, pk, "PK", GOB_PUBKEY),
                                                   F(inner, port, "Port", GOB_U16)};
static const struct gob_field_spec spec[] = {
    F(record, time, "Timestamp", GOB_I64),
    {.name = "SrcAddr",
     .type = GOB_STRUCT,
     .offset = offsetof(struct record, src),
     .sub = inner_spec,
     .n_sub = 2},
    F(record, flag, "Accepted", GOB_BOOL),
    F(record, lat, "GeoLat", GOB_F64),
    F(record, noise, "NoiseMsg", GOB_BYTES),
    F(record, text, "GeoCountry", GOB_STRING),
    F(record, hash, "ReqHash", GOB_HASH),
};

static void inside(struct gob_bytes b, const uint8_t *data, size_t size)
{
    if (b.n > 0)
        assert(b.p >= data && b.n <= size && (size_t)(b.p - data) <= size - b.n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct record r = {0};

    if (crypto_init() < 0)
        return 0;
    if (gob_decode(&r, spec, sizeof spec / sizeof spec[0], data, size) == 0) {
        inside(r.noise, data, size);
        inside(r.text, data, size);
        if (!pubkey_is_null(&r.src.pk))
            assert(pubkey_check(&r.src.pk) == 0);
    }
    return 0;
}
