#include "store/tree.h"

#include <stdio.h>
#include <time.h>

#include "base/cursor.h"
#include "base/list.h"
#include "tests/unit/vectors.h"

#define COUNT 2000

struct thing {
    struct tree_node node;
    uint8_t key[12];
    size_t key_len;
    bool in;
};

static struct thing things[COUNT];
static uint64_t rng;

static uint64_t draw(uint64_t bound)
{
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return (rng >> 33) % bound;
}

static const struct thing *thing_of(const struct tree_node *n)
{
    return n != NULL ? container_of(n, const struct thing, node) : NULL;
}

/* The model: a scan over all things for the least one above the key. */
static const struct thing *model(const void *key, size_t n, bool equal)
{
    const struct thing *best = NULL;

    for (size_t i = 0; i < COUNT; i++) {
        const struct thing *t = &things[i];
        int c = tree_key_cmp(t->key, t->key_len, key, n);
        if (t->in && (c > 0 || (c == 0 && equal)) &&
            (best == NULL || tree_key_cmp(t->key, t->key_len, best->key, best->key_len) < 0))
            best = t;
    }
    return best;
}

static void test_order_of_keys(void **state)
{
    (void)state;
    assert_true(tree_key_cmp("", 0, "", 0) == 0);
    assert_true(tree_key_cmp(NULL, 0, "a", 1) < 0);
    assert_true(tree_key_cmp("a", 1, "ab", 2) < 0);
    assert_true(tree_key_cmp("ab", 2, "a", 1) > 0);
    assert_true(tree_key_cmp("b", 1, "ab", 2) > 0);
    assert_true(tree_key_cmp("\xff", 1, "\x01", 1) > 0);
}

static void test_against_model(void **state)
{
    struct tree t;
    size_t count = 0;

    (void)state;
    tree_init(&t, draw(1u << 30));
    assert_null(tree_first(&t));
    for (size_t i = 0; i < COUNT; i++) {
        /* Mostly rising keys (what indexes see), of several lengths, with common prefixes. */
        put_be64(things[i].key, i % 3 != 0 ? i : draw(100) << 40 | i);
        put_be32(things[i].key + 8, (uint32_t)draw(1000));
        things[i].key_len = i % 2 == 0 ? 12 : 8;
    }
    for (unsigned round = 0; round < 20000; round++) {
        struct thing *x = &things[draw(COUNT)];

        if (x->in)
            tree_remove(&t, &x->node);
        else
            tree_insert(&t, &x->node, x->key, x->key_len);
        count += x->in ? (size_t)-1 : 1;
        x->in = !x->in;
        assert_int_equal(t.count, count);
        if (round % 20 != 0)
            continue;
        const struct thing *y = &things[draw(COUNT)];
        assert_ptr_equal(thing_of(tree_find(&t, y->key, y->key_len)), y->in ? y : NULL);
        assert_ptr_equal(thing_of(tree_seek(&t, y->key, y->key_len)),
                         model(y->key, y->key_len, true));
        assert_ptr_equal(thing_of(tree_after(&t, y->key, y->key_len)),
                         model(y->key, y->key_len, false));
    }
    const struct tree_node *last = NULL;
    for (const struct tree_node *n = tree_first(&t); n != NULL; n = tree_next(&t, n)) {
        if (last != NULL)
            assert_true(tree_key_cmp(last->key, last->key_len, n->key, n->key_len) < 0);
        last = n;
        count--;
    }
    assert_int_equal(count, 0);
}

static size_t depth_of(const struct tree *t, const struct tree_node *n)
{
    size_t depth = 0;

    for (const struct tree_node *at = t->root; at != n; depth++)
        at = tree_key_cmp(n->key, n->key_len, at->key, at->key_len) < 0 ? at->left : at->right;
    return depth;
}

static void test_depth_of_sorted_input(void **state)
{
    struct tree t;

    (void)state;
    tree_init(&t, draw(1u << 30));
    for (size_t i = 0; i < COUNT; i++) {
        put_be64(things[i].key, i);
        tree_insert(&t, &things[i].node, things[i].key, 8);
    }
    for (size_t i = 0; i < COUNT; i++)
        assert_true(depth_of(&t, &things[i].node) < 60); /* 2 log2(COUNT) = 22 is the mean */
    while (t.root != NULL)
        tree_remove(&t, t.root);
    assert_int_equal(t.count, 0);
}

int main(void)
{
    const char *seed = getenv("KADMSG_SEED");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order_of_keys),
        cmocka_unit_test(test_against_model),
        cmocka_unit_test(test_depth_of_sorted_input),
    };

    rng = seed != NULL ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL);
    print_message("KADMSG_SEED=%llu\n", (unsigned long long)rng);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
