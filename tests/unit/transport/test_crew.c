/*
 * What the members of a crew share: homes of keys, slots and what each tells the others.
 */
#include "transport/crew.h"

#include "base/crypto.h"
#include "tests/unit/transport/relay_world.h"
#include "tests/unit/vectors.h"

static const uint8_t hash_key[16] = {1, 2, 3};

static void test_homes(void **state)
{
    (void)state;
    struct crew *c, *same, *alone;
    unsigned at[5] = {0};
    assert_int_equal(crew_new(&c, 5, hash_key), 0);
    assert_int_equal(crew_new(&same, 5, hash_key), 0);
    assert_int_equal(crew_new(&alone, 1, hash_key), 0);
    assert_int_equal(crew_size(c), 5);
    for (unsigned i = 0; i < 500; i++) {
        struct rw_key k = rw_key_of(i);
        unsigned home = crew_home(c, &k.pk);
        assert_true(home < 5);
        assert_int_equal(crew_home(same, &k.pk), home);
        assert_int_equal(crew_home(alone, &k.pk), 0);
        at[home]++;
    }
    for (unsigned i = 0; i < 5; i++)
        assert_in_range(at[i], 60, 140); /* these keys and this hash key are always the same */
    crew_free(c);
    crew_free(same);
    crew_free(alone);
    crew_free(NULL);
}

/* A quarter for one key, all for all; what is given back can be taken again. */
static void test_slots(void **state)
{
    (void)state;
    struct crew *c;
    struct share *s[20];
    size_t n = 0;
    assert_int_equal(crew_new(&c, 2, hash_key), 0);
    for (unsigned key = 0; key < 5; key++) {
        struct rw_key k = rw_key_of(key);
        for (int i = 0; i < 6; i++) {
            struct share *one = crew_slot_take(c, &k.pk, 16);
            assert_int_equal(one != NULL, i < 4 && key < 4);
            if (one != NULL)
                s[n++] = one;
        }
    }
    assert_int_equal(n, 16);
    crew_slot_give(c, s[--n]);
    struct rw_key other = rw_key_of(77);
    assert_non_null(s[n++] = crew_slot_take(c, &other.pk, 16));
    assert_null(crew_slot_take(c, &other.pk, 16));
    while (n > 0)
        crew_slot_give(c, s[--n]);
    assert_non_null(s[0] = crew_slot_take(c, &other.pk, 1)); /* a quarter of little is one */
    crew_slot_give(c, s[0]);
    crew_free(c); /* asserts that none is left */
}

static void test_numbers(void **state)
{
    (void)state;
    struct crew *c;
    struct rw_key k = rw_key_of(1);
    assert_int_equal(crew_new(&c, 3, hash_key), 0);
    crew_links_set(c, 0, 2);
    crew_links_set(c, 2, 5);
    crew_links_set(c, 0, 1);
    assert_int_equal(crew_links(c, 0), 1);
    assert_int_equal(crew_links(c, 1), 0);
    assert_int_equal(crew_links_all(c), 6);
    uint64_t ways = crew_ways(c);
    crew_ways_changed(c);
    assert_int_not_equal(crew_ways(c), ways);
    crew_buffered_add(c, 1000, 0);
    crew_buffered_add(c, 500, 700);
    assert_int_equal(crew_buffered(c), 800);
    assert_int_equal(crew_heard_ns(c, &k.pk), 0);
    crew_heard(c, &k.pk, 12345);
    assert_int_equal(crew_heard_ns(c, &k.pk), 12345);
    crew_free(c);
}

int main(void)
{
    if (crypto_init() != 0)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_homes),
        cmocka_unit_test(test_slots),
        cmocka_unit_test(test_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
