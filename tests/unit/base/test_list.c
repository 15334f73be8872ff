#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/list.h"

struct thing {
    int id;
    struct list_node node;
};

static void expect(const struct list *l, const int *ids, size_t n)
{
    const struct list_node *at = list_first(l);
    for (size_t i = 0; i < n; i++) {
        assert_non_null(at);
        assert_int_equal(container_of(at, struct thing, node)->id, ids[i]);
        assert_ptr_equal(at->next->prev, at);
        at = list_next(l, at);
    }
    assert_null(at);
    assert_int_equal(list_empty(l), n == 0);
}

static void test_order_and_removal(void **state)
{
    (void)state;
    struct thing t[4] = {{.id = 0}, {.id = 1}, {.id = 2}, {.id = 3}};
    struct list l;
    list_init(&l);
    expect(&l, NULL, 0);
    assert_null(list_pop_front(&l));
    assert_null(list_first_as(&l, struct thing, node));

    list_remove(&t[0].node); /* unlinked: nothing happens */
    list_push_back(&l, &t[1].node);
    list_push_back(&l, &t[2].node);
    list_push_front(&l, &t[0].node);
    list_insert_before(&t[2].node, &t[3].node);
    expect(&l, (int[]){0, 1, 3, 2}, 4);

    list_remove(&t[1].node);
    assert_false(list_node_is_linked(&t[1].node));
    list_remove(&t[1].node);
    expect(&l, (int[]){0, 3, 2}, 3);
    assert_int_equal(list_first_as(&l, struct thing, node)->id, 0);
    assert_int_equal(list_pop_front_as(&l, struct thing, node)->id, 0);
    expect(&l, (int[]){3, 2}, 2);
}

static void test_splice(void **state)
{
    (void)state;
    struct thing t[4] = {{.id = 0}, {.id = 1}, {.id = 2}, {.id = 3}};
    struct list a, b;
    list_init(&a);
    list_init(&b);
    list_splice(&a, &b);
    expect(&a, NULL, 0);

    list_push_back(&b, &t[0].node);
    list_push_back(&b, &t[1].node);
    list_splice(&a, &b);
    expect(&a, (int[]){0, 1}, 2);
    expect(&b, NULL, 0);

    list_push_back(&b, &t[2].node);
    list_push_back(&b, &t[3].node);
    list_splice(&a, &b);
    expect(&a, (int[]){0, 1, 2, 3}, 4);
    list_splice(&a, &b);
    expect(&a, (int[]){0, 1, 2, 3}, 4);
    list_splice(&b, &a);
    expect(&a, NULL, 0);
    expect(&b, (int[]){0, 1, 2, 3}, 4);
}

static void test_for_each_removes_the_current_node(void **state)
{
    (void)state;
    struct thing t[5] = {{.id = 0}, {.id = 1}, {.id = 2}, {.id = 3}, {.id = 4}};
    struct list l;
    list_init(&l);
    for (size_t i = 0; i < 5; i++)
        list_push_back(&l, &t[i].node);
    struct list_node *at, *tmp;
    int seen = 0;
    list_for_each(at, tmp, &l)
    {
        assert_int_equal(container_of(at, struct thing, node)->id, seen++);
        if (seen % 2 == 1)
            list_remove(at);
    }
    assert_int_equal(seen, 5);
    expect(&l, (int[]){1, 3}, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order_and_removal),
        cmocka_unit_test(test_splice),
        cmocka_unit_test(test_for_each_removes_the_current_node),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
