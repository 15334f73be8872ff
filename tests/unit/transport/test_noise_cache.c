#include "transport/noise_cache.h"

#include "tests/unit/prop.h"
#include "tests/unit/vectors.h"

static const uint8_t hash_key[16] = {1, 2, 3};

static struct pubkey key(size_t i)
{
    struct pubkey pk = {{2}};
    memcpy(pk.b + 1, &i, sizeof i);
    return pk;
}

static void put(struct noise_cache *c, size_t i, uint8_t value)
{
    struct pubkey pk = key(i);
    uint8_t secret[32];
    memset(secret, value, sizeof secret);
    noise_cache_put(c, &pk, secret);
}

/* The value, or -1. */
static int get(struct noise_cache *c, size_t i)
{
    struct pubkey pk = key(i);
    uint8_t secret[32];
    if (!noise_cache_get(c, &pk, secret))
        return -1;
    assert_int_equal(secret[0], secret[31]);
    return secret[0];
}

static void test_least_recently_used_goes(void **state)
{
    struct noise_cache *c = noise_cache_new(3, hash_key);
    struct noise_cache_stats st;

    (void)state;
    assert_int_equal(get(c, 1), -1);
    for (uint8_t i = 1; i <= 3; i++)
        put(c, i, i);
    assert_int_equal(get(c, 1), 1); /* 2 is now the oldest */
    put(c, 4, 4);
    assert_int_equal(get(c, 2), -1);
    assert_int_equal(get(c, 1), 1);
    assert_int_equal(get(c, 3), 3);
    assert_int_equal(get(c, 4), 4);
    put(c, 1, 9); /* renewing evicts nobody */
    assert_int_equal(get(c, 1), 9);
    noise_cache_stats(c, &st);
    assert_int_equal(st.hits, 5);
    assert_int_equal(st.misses, 2);
    assert_int_equal(st.evicted, 1);
    assert_int_equal(st.used, 3);
    assert_int_equal(st.cap, 3);
    noise_cache_free(c);
    noise_cache_free(NULL);
}

/* Against a plain array ordered by last use. */
static void test_model(void **state)
{
    enum { KEYS = 60, STEPS = 20000 };
    struct prop r = prop_init("noise cache");

    (void)state;
    for (size_t cap = 1; cap <= 40; cap += 13) {
        struct noise_cache *c = noise_cache_new(cap, hash_key);
        uint64_t used[KEYS] = {0}; /* time of last use, 0 = not there */
        int value[KEYS];
        size_t have = 0;

        for (uint64_t now = 1; now < STEPS; now++) {
            size_t i = prop_below(&r, KEYS);
            if (prop_chance(&r, 50)) {
                assert_int_equal(get(c, i), used[i] != 0 ? value[i] : -1);
                used[i] = used[i] != 0 ? now : 0;
                continue;
            }
            if (used[i] == 0 && have == cap) {
                size_t oldest = KEYS;
                for (size_t k = 0; k < KEYS; k++)
                    if (used[k] != 0 && (oldest == KEYS || used[k] < used[oldest]))
                        oldest = k;
                used[oldest] = 0;
                have--;
            }
            have += used[i] == 0;
            used[i] = now;
            value[i] = (int)prop_below(&r, 256);
            put(c, i, (uint8_t)value[i]);
        }
        noise_cache_free(c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_least_recently_used_goes),
        cmocka_unit_test(test_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
