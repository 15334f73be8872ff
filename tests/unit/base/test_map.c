/* The source is included so that its allocation can be made to fail. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static bool no_memory;

static void *maybe_calloc(size_t n, size_t size)
{
    return no_memory ? NULL : calloc(n, size);
}

#define calloc maybe_calloc
#include "base/map.c"
#undef calloc

#include "tests/unit/prop.h"

static const uint8_t zero_key[16];

struct thing {
    int before;
    uint8_t key[33];
    bool in; /* what the model says */
    bool seen;
};

#define N 3000

static struct thing things[N];

static void things_init(void)
{
    memset(things, 0, sizeof things);
    for (size_t i = 0; i < N; i++) {
        memcpy(things[i].key + 20, &i, sizeof i);
        things[i].key[0] = 2;
    }
}

static void check_all(struct map *m)
{
    size_t count = 0;
    for (size_t i = 0; i < N; i++) {
        assert_ptr_equal(map_get(m, things[i].key), things[i].in ? &things[i] : NULL);
        count += things[i].in;
        things[i].seen = false;
    }
    assert_int_equal(map_len(m), count);
    assert_true(m->len <= m->cap / 4 * 3);
    struct thing *t;
    for (struct map_iter it = map_iter(m); (t = map_next(&it)) != NULL; count--) {
        assert_true(t->in && !t->seen);
        t->seen = true;
    }
    assert_int_equal(count, 0);
}

static void test_basics(void **state)
{
    (void)state;
    struct map m;
    void *old;
    things_init();
    map_init(&m, MAP_KEY(struct thing, key), zero_key, 0);
    assert_int_equal(map_bytes(&m), 0);
    assert_null(map_get(&m, things[0].key));
    assert_null(map_del(&m, things[0].key));
    struct map_iter it = map_iter(&m);
    assert_null(map_next(&it));

    assert_int_equal(map_put(&m, &things[0]), 0);
    assert_int_equal(map_put(&m, &things[0]), ERR_EXISTS);
    assert_ptr_equal(map_get(&m, things[0].key), &things[0]);
    assert_null(map_get(&m, things[1].key));

    struct thing twin = things[0];
    assert_int_equal(map_put(&m, &twin), ERR_EXISTS);
    assert_int_equal(map_replace(&m, &twin, &old), 0);
    assert_ptr_equal(old, &things[0]);
    assert_ptr_equal(map_get(&m, things[0].key), &twin);
    assert_int_equal(map_replace(&m, &things[1], &old), 0);
    assert_null(old);
    assert_int_equal(map_len(&m), 2);
    assert_ptr_equal(map_del(&m, things[0].key), &twin);
    assert_null(map_del(&m, things[0].key));
    assert_int_equal(map_len(&m), 1);
    map_free(&m);
    assert_int_equal(map_len(&m), 0);
    assert_null(map_get(&m, things[1].key));
    assert_int_equal(map_put(&m, &things[1]), 0);
    map_free(&m);
}

static void test_limit_and_memory(void **state)
{
    (void)state;
    struct map m;
    void *old;
    things_init();
    map_init(&m, MAP_KEY(struct thing, key), zero_key, 7);
    no_memory = true;
    assert_int_equal(map_put(&m, &things[0]), ERR_NOMEM);
    assert_int_equal(map_replace(&m, &things[0], &old), ERR_NOMEM);
    no_memory = false;
    for (size_t i = 0; i < 6; i++)
        assert_int_equal(map_put(&m, &things[i]), 0);
    no_memory = true;
    assert_int_equal(map_put(&m, &things[6]), ERR_NOMEM);
    assert_int_equal(map_len(&m), 6);
    no_memory = false;
    assert_int_equal(map_put(&m, &things[6]), 0);
    assert_int_equal(map_put(&m, &things[7]), ERR_LIMIT);
    assert_int_equal(map_replace(&m, &things[8], &old), ERR_LIMIT);
    assert_int_equal(m.refused, 2);
    struct thing twin = things[3];
    assert_int_equal(map_replace(&m, &twin, &old), 0); /* needs no room */
    assert_int_equal(map_put(&m, &things[0]), ERR_EXISTS);
    assert_int_equal(m.refused, 2);
    map_free(&m);
}

static void test_size_follows_the_entries(void **state)
{
    (void)state;
    struct map m;
    things_init();
    map_init(&m, MAP_KEY(struct thing, key), zero_key, 0);
    for (size_t i = 0; i < N; i++)
        assert_int_equal(map_put(&m, &things[i]), 0);
    assert_true(map_bytes(&m) / N <= 32);
    no_memory = true; /* shrinking that fails is no failure */
    for (size_t i = 0; i < N / 2; i++)
        assert_non_null(map_del(&m, things[i].key));
    no_memory = false;
    for (size_t i = N / 2; i < N - 1; i++)
        assert_non_null(map_del(&m, things[i].key));
    assert_int_equal(m.cap, MIN_CAP);
    assert_ptr_equal(map_get(&m, things[N - 1].key), &things[N - 1]);
    map_free(&m);
}

static void test_integer_keys(void **state)
{
    (void)state;
    struct num {
        uint32_t id;
    } nums[300];
    struct map m;
    map_init(&m, MAP_KEY(struct num, id), zero_key, 0);
    for (uint32_t i = 0; i < 300; i++) {
        nums[i].id = i * 2 + 1;
        assert_int_equal(map_put(&m, &nums[i]), 0);
    }
    for (uint32_t id = 0; id < 600; id++)
        assert_ptr_equal(map_get(&m, &id), id % 2 == 1 ? &nums[id / 2] : NULL);
    map_free(&m);
}

/* Small tables that are nearly full have runs across the end; delete a random part while iterating.
 */
static void test_delete_while_iterating(void **state)
{
    (void)state;
    struct prop r = prop_init("map, deletion while iterating");
    for (int round = 0; round < 500; round++) {
        uint8_t key[16];
        struct map m;
        prop_bytes(&r, key, sizeof key);
        things_init();
        map_init(&m, MAP_KEY(struct thing, key), key, 0);
        size_t count = prop_below(&r, 200), given = 0, deleted = 0;
        unsigned percent = (unsigned)prop_below(&r, 101);
        for (size_t i = 0; i < count; i++) {
            assert_int_equal(map_put(&m, &things[i]), 0);
            things[i].in = true;
        }
        struct thing *t;
        for (struct map_iter it = map_iter(&m); (t = map_next(&it)) != NULL; given++) {
            assert_false(t->seen);
            t->seen = true;
            if (prop_chance(&r, percent)) {
                map_iter_del(&it);
                t->in = false;
                deleted++;
            }
        }
        assert_int_equal(given, count);
        assert_int_equal(map_len(&m), count - deleted);
        check_all(&m);
        map_free(&m);
    }
}

static void test_against_a_model(void **state)
{
    (void)state;
    struct prop r = prop_init("map against a model");
    uint8_t key[16];
    struct map m;
    prop_bytes(&r, key, sizeof key);
    things_init();
    map_init(&m, MAP_KEY(struct thing, key), key, 0);
    for (int step = 0; step < 40000; step++) {
        struct thing *t = &things[prop_below(&r, N)];
        if (prop_chance(&r, step / 10000 % 2 == 0 ? 75 : 20)) {
            assert_int_equal(map_put(&m, t), t->in ? ERR_EXISTS : 0);
            t->in = true;
        } else {
            assert_ptr_equal(map_del(&m, t->key), t->in ? t : NULL);
            t->in = false;
        }
        if (step % 1000 == 0)
            check_all(&m);
    }
    check_all(&m);
    map_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_basics),
        cmocka_unit_test(test_limit_and_memory),
        cmocka_unit_test(test_size_follows_the_entries),
        cmocka_unit_test(test_integer_keys),
        cmocka_unit_test(test_delete_while_iterating),
        cmocka_unit_test(test_against_a_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
