/* Blocks of an arena: sizes, threads, and that all of it comes back from a file, with pointers. */
#include "base/arena.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "tests/unit/prop.h"
#include "tests/unit/vectors.h"

#define BLOCKS 2000

static struct arena *fresh(unsigned number)
{
    struct arena *a;

    assert_int_equal(arena_new(&a, number), 0);
    return a;
}

static bool is_in(const void *p, unsigned number)
{
    return (uintptr_t)p - (ARENA_BASE + number * ARENA_SPAN) < ARENA_SPAN;
}

/* ---- blocks ---- */

/* Sizes of all kinds: small ones, those around borders of classes, a few larger than a slab. */
static size_t draw_size(struct prop *rng)
{
    uint64_t r = prop_u64(rng);

    switch (r % 8) {
    case 0:
        return r >> 32 & 0xffff;
    case 1:
        return (UINT64_C(1) << (r >> 8) % 17) + (r >> 16) % 3 - 1;
    case 2:
        return r % 64 == 2 ? 200000 + (r >> 32 & 0xffff) : 0;
    default:
        return r >> 32 & 0x3ff;
    }
}

static void test_blocks(void **state)
{
    static struct {
        uint8_t *p, fill;
        size_t n;
    } v[BLOCKS];
    struct prop rng = prop_init("arena");
    struct arena *a = fresh(0);

    (void)state;
    memset(v, 0, sizeof v);
    struct arena *before = arena_use(a);
    assert_null(before);
    for (unsigned turn = 0; turn < 40000; turn++) {
        unsigned i = (unsigned)(prop_u64(&rng) % BLOCKS);
        size_t n = draw_size(&rng);
        for (size_t k = 0; k < v[i].n; k++) {
            if (v[i].p[k] != v[i].fill)
                fail_msg("a block was overwritten");
        }
        if (turn % 3 == 0) {
            free(v[i].p);
            v[i].p = calloc(1, n);
            for (size_t k = 0; k < n; k++)
                assert_int_equal(v[i].p[k], 0);
        } else {
            uint8_t old = v[i].fill;
            size_t had = v[i].n < n ? v[i].n : n;
            v[i].p = realloc(v[i].p, n + 1);
            for (size_t k = 0; k < had; k++)
                assert_int_equal(v[i].p[k], old);
        }
        assert_true(is_in(v[i].p, 0) && (uintptr_t)v[i].p % 16 == 0);
        v[i].n = n;
        v[i].fill = (uint8_t)turn;
        memset(v[i].p, v[i].fill, n);
    }
    char *text = strdup("text"), *part = strndup("text", 2);
    assert_true(is_in(text, 0) && is_in(part, 0));
    assert_string_equal(text, "text");
    assert_string_equal(part, "te");
    volatile size_t much = SIZE_MAX / 2; /* not seen by the compiler */
    assert_null(calloc(much, 4));
    assert_null(reallocarray(NULL, much, 4));
    much = ARENA_SPAN;
    assert_null(malloc(much));
    (void)arena_use(NULL);
    char *heap = malloc(10);
    assert_false(is_in(heap, 0));
    (void)arena_use(a);
    heap = realloc(heap, 5000); /* it stays on the heap */
    assert_false(is_in(heap, 0));
    free(heap);
    for (unsigned i = 0; i < BLOCKS; i++)
        free(v[i].p);
    free(text);
    free(part);
    assert_int_equal(arena_used(a), 0);
    size_t taken = arena_taken(a);
    for (unsigned i = 0; i < 1000; i++)
        free(malloc(100)); /* used again, not taken anew */
    assert_int_equal(arena_taken(a), taken);
    (void)arena_use(before);
    arena_free(a);
}

static void test_numbers(void **state)
{
    struct arena *a = fresh(3), *b;

    (void)state;
    assert_int_equal(arena_new(&b, 3), ERR_EXISTS);
    assert_int_equal(arena_new(&b, 3 + ARENA_COUNT), ERR_EXISTS);
    assert_null(b);
    arena_free(a);
    arena_free(fresh(3));
    arena_free(NULL);
}

/* ---- threads ---- */

#define PASSED 20000

static void *passed[PASSED];

static void *free_all(void *arg)
{
    (void)arena_use(arg);
    for (unsigned i = 0; i < PASSED; i++)
        free(passed[i]);
    return NULL;
}

/* What another thread frees comes back to the arena it is from. */
static void test_freed_elsewhere(void **state)
{
    struct arena *a = fresh(0), *b = fresh(1);
    pthread_t thread;
    size_t taken = 0;

    (void)state;
    for (unsigned round = 0; round < 4; round++) {
        (void)arena_use(a);
        for (unsigned i = 0; i < PASSED; i++) {
            passed[i] = malloc(64);
            memset(passed[i], 1, 64);
        }
        (void)arena_use(NULL);
        assert_int_equal(arena_used(a), PASSED * 64);
        assert_true(round == 0 || arena_taken(a) == taken);
        taken = arena_taken(a);
        assert_int_equal(pthread_create(&thread, NULL, free_all, round % 2 == 0 ? b : NULL), 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_int_equal(arena_used(a), 0);
        assert_int_equal(arena_used(b), 0);
    }
    arena_free(a);
    arena_free(b);
}

/* ---- files ---- */

static uint8_t *file;
static size_t file_n, file_at;

static int put(void *arg, const void *p, size_t n)
{
    (void)arg;
    file = realloc(file, file_n + n);
    memcpy(file + file_n, p, n);
    file_n += n;
    return 0;
}

static int get(void *arg, void *p, size_t n)
{
    (void)arg;
    if (file_n - file_at < n)
        return ERR_SHORT;
    memcpy(p, file + file_at, n);
    file_at += n;
    return 0;
}

struct thing {
    struct thing *next;
    int (*fn)(int);
    const char *name;
    uint64_t number;
};

static int twice(int n)
{
    return 2 * n;
}

static void test_comes_back(void **state)
{
    static const char name[] = "a constant";
    struct arena_program program = arena_program();
    struct arena *a = fresh(7);
    struct thing *first = NULL;

    (void)state;
    assert_true((uintptr_t)twice - program.base < program.size);
    assert_true((uintptr_t)name - program.base < program.size);
    (void)arena_use(a);
    for (uint64_t i = 0; i < 10000; i++) {
        struct thing *t = malloc(sizeof *t), *hole = malloc(500);
        *t = (struct thing){first, twice, name, i};
        first = t;
        free(hole);
    }
    (void)arena_use(NULL);
    arena_set_root(a, first);
    size_t used = arena_used(a), taken = arena_taken(a);
    assert_int_equal(arena_save(a, put, NULL), 0);
    arena_free(a);

    struct arena_program moved = program;
    moved.base -= 4096 * 5; /* it lay elsewhere then: pointers are off by as much */
    for (unsigned lay_elsewhere = 0; lay_elsewhere < 2; lay_elsewhere++) {
        file_at = 0;
        assert_int_equal(arena_load(&a, 7, lay_elsewhere ? &moved : &program, get, NULL), 0);
        assert_int_equal(file_at, file_n);
        assert_int_equal(arena_used(a), used);
        assert_int_equal(arena_taken(a), taken);
        const struct thing *t = arena_root(a);
        for (uint64_t i = 10000; i-- > 0; t = t->next) {
            assert_int_equal(t->number, i);
            assert_int_equal((uintptr_t)t->fn, (uintptr_t)twice + lay_elsewhere * 4096 * 5);
            assert_int_equal((uintptr_t)t->name, (uintptr_t)name + lay_elsewhere * 4096 * 5);
        }
        assert_null(t);
        (void)arena_use(a);
        free(malloc(24));
        (void)arena_use(NULL);
        arena_free(a);
    }
    file_at = 0;
    assert_int_equal(arena_load(&a, 8, &program, get, NULL), ERR_CORRUPT);
    for (size_t cut = 0; cut < file_n; cut += file_n / 50) {
        size_t whole = file_n;
        file_n = cut;
        file_at = 0;
        assert_int_equal(arena_load(&a, 7, &program, get, NULL), ERR_SHORT);
        file_n = whole;
        assert_null(a);
    }
    free(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_freed_elsewhere),
        cmocka_unit_test(test_comes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
