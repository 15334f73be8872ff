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

static void *maybe_reallocarray(void *p, size_t n, size_t size)
{
    return no_memory ? NULL : reallocarray(p, n, size);
}

#define reallocarray maybe_reallocarray
#include "base/heap.c"
#undef reallocarray

#include "base/list.h"
#include "tests/unit/prop.h"

#define N 2000

struct item {
    struct heap_node node;
    uint64_t key, order; /* what the heap was told */
};

static struct item items[N];

/* Every entry knows its position, and no child comes before its parent. */
static void check(const struct heap *h)
{
    for (size_t i = 0; i < h->len; i++) {
        assert_int_equal(h->v[i].node->slot, i + 1);
        assert_false(i > 0 && before(&h->v[i], &h->v[(i - 1) / ARITY]));
        const struct item *it = container_of(h->v[i].node, struct item, node);
        assert_true(h->v[i].key == it->key && h->v[i].order == it->order);
    }
    assert_true(h->cap <= MIN_CAP || h->len >= h->cap / 4);
}

static struct item *model_min(void)
{
    struct item *best = NULL;
    for (size_t i = 0; i < N; i++) {
        struct item *it = &items[i];
        if (!heap_node_is_in(&it->node))
            continue;
        if (best == NULL || it->key < best->key ||
            (it->key == best->key && it->order < best->order))
            best = it;
    }
    return best;
}

static void test_against_a_model(void **state)
{
    (void)state;
    struct prop r = prop_init("heap against a model");
    struct heap h;
    heap_init(&h);
    size_t count = 0;
    memset(items, 0, sizeof items);
    for (uint64_t step = 0; step < 20000; step++) {
        struct item *it = &items[prop_below(&r, N)];
        bool was_in = heap_node_is_in(&it->node);
        /* Phases of growing and of draining. */
        if (prop_chance(&r, step / 5000 % 2 == 0 ? 80 : 20)) {
            it->key = prop_below(&r, 50);
            it->order = step;
            assert_int_equal(heap_set(&h, &it->node, it->key, it->order), 0);
            assert_true(heap_key(&h, &it->node) == it->key);
            count += !was_in;
        } else if (prop_chance(&r, 50)) {
            heap_remove(&h, &it->node);
            count -= was_in;
        } else {
            struct item *want = model_min();
            struct heap_node *got = heap_pop(&h);
            assert_ptr_equal(got, want != NULL ? &want->node : NULL);
            assert_true(want == NULL || !heap_node_is_in(got));
            count -= want != NULL;
        }
        assert_int_equal(heap_len(&h), count);
        if (step % 64 == 0)
            check(&h);
    }
    struct item *want;
    while ((want = model_min()) != NULL) {
        assert_true(heap_min_key(&h) == want->key);
        assert_ptr_equal(heap_min(&h)->node, &want->node);
        assert_ptr_equal(heap_pop(&h), &want->node);
    }
    assert_null(heap_pop(&h));
    assert_null(heap_min(&h));
    assert_true(heap_min_key(&h) == HEAP_NO_KEY);
    heap_free(&h);
}

static void test_ties_leave_in_order(void **state)
{
    (void)state;
    struct heap h;
    heap_init(&h);
    memset(items, 0, sizeof items);
    for (size_t i = 0; i < 100; i++)
        assert_int_equal(heap_set(&h, &items[i * 37 % 100].node, 5, i * 37 % 100), 0);
    for (size_t i = 0; i < 100; i++)
        assert_ptr_equal(heap_pop(&h), &items[i].node);
    heap_free(&h);
}

static void test_no_memory(void **state)
{
    (void)state;
    struct heap h;
    heap_init(&h);
    memset(items, 0, sizeof items);
    no_memory = true;
    assert_int_equal(heap_set(&h, &items[0].node, 1, 1), ERR_NOMEM);
    assert_false(heap_node_is_in(&items[0].node));
    no_memory = false;
    for (size_t i = 0; i < MIN_CAP; i++)
        assert_int_equal(heap_set(&h, &items[i].node, i, 0), 0);
    no_memory = true;
    assert_int_equal(heap_set(&h, &items[MIN_CAP].node, 0, 0), ERR_NOMEM);
    assert_int_equal(heap_set(&h, &items[3].node, 99, 0), 0); /* in already: needs none */
    assert_int_equal(heap_len(&h), MIN_CAP);
    no_memory = false;
    for (size_t i = MIN_CAP; i < 1000; i++)
        assert_int_equal(heap_set(&h, &items[i].node, i, 0), 0);
    no_memory = true; /* shrinking that fails is no failure */
    for (size_t i = 0; i < 1000; i++)
        heap_remove(&h, &items[i].node);
    heap_remove(&h, &items[0].node);
    assert_int_equal(heap_len(&h), 0);
    no_memory = false;
    heap_free(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_a_model),
        cmocka_unit_test(test_ties_leave_in_order),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
