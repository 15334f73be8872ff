#include "tests/unit/kademlia/dht_items.h"

#include <errno.h>

void dht_key(const json_t *root, const char *name, struct seckey *sk, struct pubkey *pk)
{
    size_t i;
    const json_t *v;

    json_array_foreach(vec_get(root, "node_ids"), i, v)
    {
        if (strcmp(vec_str(v, "name"), name) != 0)
            continue;
        vec_hex(v, "pk", pk, sizeof *pk);
        if (sk != NULL)
            vec_hex(v, "sk", sk, sizeof *sk);
        return;
    }
    fail_msg("no key \"%s\"", name);
}

uint64_t dht_u64(const json_t *obj, const char *key)
{
    const json_t *v = vec_get(obj, key);
    char *end;

    if (json_is_integer(v))
        return (uint64_t)json_integer_value(v);
    errno = 0;
    uint64_t n = strtoull(vec_str(obj, key), &end, 10);
    if (errno != 0 || *end != '\0' || end == vec_str(obj, key))
        fail_msg("member \"%s\" is no number", key);
    return n;
}

struct item_ref *dht_vec_item(const json_t *v)
{
    struct item it = {.seq = dht_u64(v, "seq")};
    uint8_t *value, *salt = vec_hex_dup(v, "salt_hex", &it.salt_len);

    vec_hex(v, "k", &it.k, sizeof it.k);
    vec_hex(v, "sig", &it.sig, sizeof it.sig);
    if (json_object_get(v, "v_hex") != NULL) {
        value = vec_hex_dup(v, "v_hex", &it.v_len);
    } else {
        size_t n;
        uint8_t *fill = vec_hex_dup(v, "v_fill", &n);
        assert_int_equal(n, 1);
        it.v_len = dht_u64(v, "v_len");
        value = malloc(it.v_len);
        assert_non_null(value);
        memset(value, fill[0], it.v_len);
        free(fill);
    }
    it.v = value;
    it.salt = salt;
    struct item_ref *r = item_ref_new(&it);
    assert_non_null(r);
    free(value);
    free(salt);
    return r;
}

struct item_ref *dht_item(const struct seckey *sk, uint64_t seq, const char *salt, const char *v)
{
    struct item it = {.seq = seq,
                      .salt = (const uint8_t *)salt,
                      .salt_len = strlen(salt),
                      .v = (const uint8_t *)v,
                      .v_len = v != NULL ? strlen(v) : 0};

    assert_int_equal(item_sign(&it, sk), 0);
    struct item_ref *r = item_ref_new(&it);
    assert_non_null(r);
    return r;
}
