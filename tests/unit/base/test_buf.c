#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/err.h"
#include "tests/unit/prop.h"

static void expect(const struct bufq *q, const void *bytes, size_t n)
{
    uint8_t *out = malloc(n + 1);
    assert_int_equal(bufq_len(q), n);
    assert_int_equal(bufq_peek(q, 0, out, n + 1), n);
    if (n > 0)
        assert_memory_equal(out, bytes, n);
    free(out);
}

/* A slice over a new buf that holds the given text. */
static struct slice text_slice(struct bufpool *pool, const char *text)
{
    struct buf *b = buf_get(pool, strlen(text));
    assert_non_null(b);
    memcpy(buf_room(b), text, strlen(text));
    struct slice s = buf_take(b, strlen(text));
    buf_put(b);
    return s;
}

static void test_classes_budget_and_reuse(void **state)
{
    (void)state;
    struct buf_budget budget = {.cap = 70000};
    struct bufpool *pool = bufpool_new(&budget);
    static const struct {
        size_t min, cap;
    } want[] = {{0, 512},      {1, 512},       {512, 512},     {513, 4096},
                {4097, 16384}, {16384, 16384}, {16385, 65536}, {65536, 65536}};
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        struct buf *b = buf_get(pool, want[i].min);
        assert_non_null(b);
        assert_int_equal(buf_room_len(b), want[i].cap);
        assert_int_equal(budget.used, want[i].cap);
        assert_int_equal(bufpool_in_use(pool), 1);
        memset(buf_room(b), 0xaa, want[i].cap);
        buf_put(b);
        assert_int_equal(budget.used, 0);
    }
    assert_int_equal(bufpool_kept(pool), 512 + 4096 + 16384 + 65536);

    struct buf *a = buf_get(pool, 65536);
    assert_int_equal(bufpool_kept(pool), 512 + 4096 + 16384);
    assert_null(buf_get(pool, 16384));
    assert_int_equal(budget.drops, 1);
    struct buf *b = buf_get(pool, 4096);
    assert_non_null(b);
    assert_null(buf_get(pool, 512));
    assert_int_equal(budget.drops, 2);
    assert_int_equal(bufpool_in_use(pool), 2);
    buf_put(a);
    buf_put(b);
    buf_put(NULL);
    bufpool_free(pool);
    bufpool_free(NULL);
}

static void test_pool_keeps_no_more_than_its_limit(void **state)
{
    (void)state;
    struct bufpool *pool = bufpool_new(NULL);
    struct buf *b[20];
    for (size_t i = 0; i < 20; i++)
        b[i] = buf_get(pool, BUF_READ_SIZE);
    assert_int_equal(bufpool_in_use(pool), 20);
    for (size_t i = 0; i < 20; i++)
        buf_put(b[i]);
    assert_int_equal(bufpool_in_use(pool), 0);
    assert_int_equal(bufpool_kept(pool), BUFPOOL_KEEP_BYTES);
    bufpool_free(pool);
}

static void test_slices_hold_their_buf(void **state)
{
    (void)state;
    struct bufpool *pool = bufpool_new(NULL);
    struct slice s = text_slice(pool, "hello world");
    assert_int_equal(s.buf->refs, 1);
    struct slice sub = slice_sub(s, 6, 5);
    slice_release(&s);
    assert_null(s.buf);
    assert_int_equal(bufpool_in_use(pool), 1);
    assert_memory_equal(sub.p, "world", 5);
    slice_release(&sub);
    slice_release(&sub);
    assert_int_equal(bufpool_in_use(pool), 0);

    struct slice fixed = {.p = (const uint8_t *)"static", .n = 6};
    sub = slice_sub(fixed, 2, 3);
    assert_null(sub.buf);
    assert_memory_equal(sub.p, "ati", 3);
    slice_release(&sub);
    bufpool_free(pool);
}

static void test_adjacent_slices_merge(void **state)
{
    (void)state;
    struct bufpool *pool = bufpool_new(NULL);
    struct bufq q;
    bufq_init(&q, pool);
    struct iovec iov[4];
    struct buf *b = buf_get(pool, 100);
    memcpy(buf_room(b), "abcdef", 6);
    struct slice one = buf_take(b, 2), two = buf_take(b, 2), three = buf_take(b, 2);
    assert_int_equal(bufq_append_slice(&q, one), 0);
    assert_int_equal(bufq_append_slice(&q, two), 0);
    assert_int_equal(bufq_iov(&q, iov, 4), 1);
    assert_int_equal(b->refs, 3); /* ours, the queue's, three */
    assert_int_equal(q.pinned, 512);
    assert_int_equal(bufq_append_slice(&q, slice_sub(three, 1, 1)), 0); /* a gap: not merged */
    assert_int_equal(bufq_iov(&q, iov, 4), 2);
    assert_int_equal(q.pinned, 512);
    slice_release(&three);
    expect(&q, "abcdf", 5);
    assert_int_equal(bufq_append_slice(&q, (struct slice){.p = (const uint8_t *)"!", .n = 1}), 0);
    assert_int_equal(bufq_append_slice(&q, (struct slice){0}), 0);
    expect(&q, "abcdf!", 6);
    assert_int_equal(bufq_iov(&q, iov, 2), 2);
    buf_put(b);
    bufq_consume(&q, 3);
    expect(&q, "df!", 3);
    bufq_clear(&q);
    assert_int_equal(q.pinned, 0);
    assert_int_equal(bufpool_in_use(pool), 0);
    bufpool_free(pool);
}

static void test_append_copy_fills_only_room_that_is_its_own(void **state)
{
    (void)state;
    struct bufpool *pool = bufpool_new(NULL);
    struct bufq q;
    bufq_init(&q, pool);
    for (int i = 0; i < 100; i++)
        assert_int_equal(bufq_append_copy(&q, "12345", 5), 0);
    assert_int_equal(bufpool_in_use(pool), 1);
    bufq_append_copy(&q, "1234567890123", 13); /* 12 bytes fit */
    assert_int_equal(bufpool_in_use(pool), 2);
    bufq_clear(&q);

    struct buf *b = buf_get(pool, 512); /* a buffer somebody still reads into */
    memcpy(buf_room(b), "head", 4);
    assert_int_equal(bufq_append_slice(&q, buf_take(b, 4)), 0);
    assert_int_equal(bufq_append_copy(&q, "tail", 4), 0);
    assert_int_equal(b->used, 4);
    expect(&q, "headtail", 8);
    buf_put(b);
    bufq_clear(&q);
    assert_int_equal(bufq_append_copy(&q, NULL, 0), 0);
    bufpool_free(pool);
}

static void test_no_memory_changes_nothing(void **state)
{
    (void)state;
    struct buf_budget budget = {.cap = 65536 + 4096};
    struct bufpool *pool = bufpool_new(&budget);
    static uint8_t big[140000];
    struct bufq q;
    bufq_init(&q, pool);
    assert_int_equal(bufq_append_copy(&q, "abc", 3), 0);
    assert_int_equal(bufq_append_copy(&q, big, sizeof big), ERR_NOMEM);
    expect(&q, "abc", 3);
    assert_int_equal(budget.used, 512);
    assert_true(budget.drops > 0);

    struct buf *b = buf_get(pool, 65536);
    assert_int_equal(bufq_append_slice(&q, buf_take(b, 2000)), 0);
    buf_put(b);
    bufq_consume(&q, 3);
    budget.cap = budget.used + 1024; /* compaction would need 4 * 512 */
    assert_int_equal(bufq_compact(&q), ERR_NOMEM);
    assert_int_equal(bufq_len(&q), 2000);
    assert_int_equal(q.pinned, 65536);
    budget.cap = 0;
    assert_int_equal(bufq_compact(&q), 0);
    assert_int_equal(bufq_len(&q), 2000);
    assert_int_equal(q.pinned, 4 * 512);
    bufq_clear(&q);
    assert_int_equal(budget.used, 0);
    bufpool_free(pool);
}

static void test_move_and_pop(void **state)
{
    (void)state;
    struct bufpool *pool = bufpool_new(NULL);
    struct bufq a, b;
    bufq_init(&a, pool);
    bufq_init(&b, pool);
    assert_int_equal(bufq_append_slice(&a, text_slice(pool, "hello ")), 0);
    assert_int_equal(bufq_append_slice(&a, text_slice(pool, "world")), 0);
    assert_int_equal(bufq_move(&b, &a, 8), 0);
    expect(&b, "hello wo", 8);
    expect(&a, "rld", 3);
    struct iovec iov[4];
    assert_int_equal(bufq_move(&b, &a, 1), 0);
    assert_int_equal(bufq_iov(&b, iov, 4), 2); /* joined with the "wo" it was cut from */
    assert_int_equal(bufq_move(&b, &a, 2), 0);
    assert_int_equal(bufq_move(&b, &a, 0), 0);
    assert_int_equal(bufq_iov(&b, iov, 4), 2);
    expect(&b, "hello world", 11);
    expect(&a, "", 0);
    assert_int_equal(a.pinned, 0);
    assert_int_equal(b.pinned, 1024);

    struct slice s = bufq_pop(&b, 4);
    assert_memory_equal(s.p, "hell", s.n);
    slice_release(&s);
    s = bufq_pop(&b, 100);
    assert_int_equal(s.n, 2);
    slice_release(&s);
    s = bufq_pop(&b, 5);
    assert_memory_equal(s.p, "world", s.n);
    slice_release(&s);
    s = bufq_pop(&b, 5);
    assert_int_equal(s.n, 0);
    assert_int_equal(bufpool_in_use(pool), 0);
    bufpool_free(pool);
}

static void test_compact_leaves_what_is_dense(void **state)
{
    (void)state;
    struct bufpool *pool = bufpool_new(NULL);
    struct bufq q;
    bufq_init(&q, pool);
    assert_int_equal(bufq_compact(&q), 0);
    assert_int_equal(bufq_append_slice(&q, text_slice(pool, "x")), 0);
    const uint8_t *before = q.len ? bufq_pop(&q, 0).p : NULL;
    assert_null(before);
    struct iovec v;
    bufq_iov(&q, &v, 1);
    before = v.iov_base;
    assert_int_equal(bufq_compact(&q), 0); /* 1 byte in the smallest class: cannot be better */
    bufq_iov(&q, &v, 1);
    assert_ptr_equal(v.iov_base, before);

    struct buf *b = buf_get(pool, 65536);
    memset(buf_room(b), 'y', 3);
    assert_int_equal(bufq_append_slice(&q, buf_take(b, 3)), 0);
    buf_put(b);
    assert_int_equal(q.pinned, 512 + 65536);
    assert_int_equal(bufq_compact(&q), 0);
    assert_int_equal(q.pinned, 512);
    expect(&q, "xyyy", 4);
    bufq_clear(&q);
    bufpool_free(pool);
}

/* ---- random operations against plain arrays ---- */

#define MODEL_MAX 400000

struct model {
    struct bufq q;
    uint8_t *bytes;
    size_t n;
};

static void model_append(struct model *m, const void *p, size_t n)
{
    memcpy(m->bytes + m->n, p, n);
    m->n += n;
}

static void model_drop(struct model *m, size_t n)
{
    memmove(m->bytes, m->bytes + n, m->n - n);
    m->n -= n;
}

static void one_step(struct prop *r, struct bufpool *pool, struct model *m, struct model *other,
                     struct buf **reading)
{
    static uint8_t tmp[MODEL_MAX];
    size_t n = prop_size(r, 70000);
    if (n > MODEL_MAX - m->n)
        n = 0;
    switch (prop_below(r, 8)) {
    case 0:
    case 1: /* a piece of the buffer that is being read into, now and then with a gap */
        if (*reading == NULL || buf_room_len(*reading) == 0) {
            buf_put(*reading);
            if ((*reading = buf_get(pool, prop_size(r, 65536))) == NULL)
                break;
        }
        n = n < buf_room_len(*reading) ? n : buf_room_len(*reading);
        prop_bytes(r, buf_room(*reading), n);
        struct slice s = buf_take(*reading, n);
        memcpy(tmp, s.p, n);
        if (bufq_append_slice(&m->q, s) == 0)
            model_append(m, tmp, n);
        break;
    case 2:
        prop_bytes(r, tmp, n);
        if (bufq_append_copy(&m->q, tmp, n) == 0)
            model_append(m, tmp, n);
        break;
    case 3:
        n = n < m->n ? n : m->n;
        bufq_consume(&m->q, n);
        model_drop(m, n);
        break;
    case 4:
        n = bufq_read(&m->q, tmp, n);
        assert_memory_equal(tmp, m->bytes, n);
        model_drop(m, n);
        break;
    case 5:
        n = n < m->n ? n : m->n;
        if (n <= MODEL_MAX - other->n && bufq_move(&other->q, &m->q, n) == 0) {
            model_append(other, m->bytes, n);
            model_drop(m, n);
        }
        break;
    case 6: {
        struct slice got = bufq_pop(&m->q, n);
        assert_true(got.n <= n && (got.n > 0 || n == 0 || m->n == 0));
        if (got.n > 0)
            assert_memory_equal(got.p, m->bytes, got.n);
        model_drop(m, got.n);
        slice_release(&got);
        break;
    }
    case 7: {
        size_t before = m->q.pinned;
        int rc = bufq_compact(&m->q);
        assert_true(m->q.pinned <= before);
        if (rc == 0)
            assert_true(m->q.pinned <= 2 * m->q.len + 1024);
        break;
    }
    }
}

static void test_against_a_model(void **state)
{
    (void)state;
    struct prop r = prop_init("bufq against a model");
    struct buf_budget budget = {.cap = 500000};
    struct bufpool *pool = bufpool_new(&budget);
    struct model m[2];
    static uint8_t copy[MODEL_MAX];
    for (size_t i = 0; i < 2; i++) {
        bufq_init(&m[i].q, pool);
        m[i].bytes = malloc(MODEL_MAX);
        m[i].n = 0;
    }
    struct buf *reading = NULL;
    for (int step = 0; step < 3000; step++) {
        size_t which = prop_below(&r, 2);
        one_step(&r, pool, &m[which], &m[!which], &reading);
        for (size_t i = 0; i < 2; i++) {
            size_t off = prop_below(&r, m[i].n + 1);
            assert_int_equal(bufq_len(&m[i].q), m[i].n);
            assert_int_equal(bufq_peek(&m[i].q, off, copy, MODEL_MAX), m[i].n - off);
            assert_memory_equal(copy, m[i].bytes + off, m[i].n - off);
            assert_true(m[i].q.pinned >= m[i].n);
        }
        assert_true(budget.used <= budget.cap);
    }
    for (size_t i = 0; i < 2; i++) {
        bufq_clear(&m[i].q);
        assert_int_equal(m[i].q.pinned, 0);
        free(m[i].bytes);
    }
    buf_put(reading);
    assert_int_equal(bufpool_in_use(pool), 0);
    assert_int_equal(budget.used, 0);
    bufpool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_classes_budget_and_reuse),
        cmocka_unit_test(test_pool_keeps_no_more_than_its_limit),
        cmocka_unit_test(test_slices_hold_their_buf),
        cmocka_unit_test(test_adjacent_slices_merge),
        cmocka_unit_test(test_append_copy_fills_only_room_that_is_its_own),
        cmocka_unit_test(test_no_memory_changes_nothing),
        cmocka_unit_test(test_move_and_pop),
        cmocka_unit_test(test_compact_leaves_what_is_dense),
        cmocka_unit_test(test_against_a_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
