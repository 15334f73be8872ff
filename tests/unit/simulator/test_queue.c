#include "simulator/queue.h"

#include <stdlib.h>
#include <string.h>

#include "tests/unit/prop.h"
#include "tests/unit/vectors.h"

static struct sim_event event(uint64_t at, uint32_t src, uint32_t seq)
{
    return (struct sim_event){.at_ns = at, .src = src, .seq = seq, .data = at ^ src ^ seq};
}

static int compare(const void *a, const void *b)
{
    const struct sim_event *x = a, *y = b;

    if (x->at_ns != y->at_ns)
        return x->at_ns < y->at_ns ? -1 : 1;
    if (x->src != y->src)
        return x->src < y->src ? -1 : 1;
    return x->seq < y->seq ? -1 : x->seq > y->seq;
}

static void test_order(void **state)
{
    struct queue q;
    struct sim_event ev;

    (void)state;
    assert_int_equal(queue_init(&q), 0);
    assert_true(queue_next(&q) == QUEUE_NEVER);
    assert_false(queue_take(&q, UINT64_MAX, &ev));
    queue_free(&q);
    assert_int_equal(queue_init(&q), 0);
    const struct sim_event in[] = {event(5, 2, 1), event(5, 1, 9), event(5, 1, 2), event(4, 9, 9)};
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(queue_add(&q, &in[i]), 0);
    assert_int_equal(queue_next(&q), 4);
    const size_t want[] = {3, 2, 1, 0};
    for (size_t i = 0; i < 4; i++) {
        assert_true(queue_take(&q, 6, &ev));
        assert_memory_equal(&ev, &in[want[i]], sizeof ev);
    }
    assert_false(queue_take(&q, 6, &ev));
    queue_free(&q);
}

/* Far beyond the ring, and nearer things added after that: the ring must not have moved. */
static void test_far_then_near(void **state)
{
    const uint64_t far = UINT64_C(3600000000000), horizon = (uint64_t)QUEUE_BUCKETS << QUEUE_BITS;
    struct queue q;
    struct sim_event ev;

    (void)state;
    assert_int_equal(queue_init(&q), 0);
    const struct sim_event in[] = {event(far, 1, 1), event(far + 1, 1, 2), event(horizon, 1, 3),
                                   event(horizon - 1, 1, 4), event(7, 1, 5)};
    assert_int_equal(queue_add(&q, &in[0]), 0);
    assert_int_equal(queue_next(&q), far);
    assert_false(queue_take(&q, 10, &ev));
    for (size_t i = 1; i < 5; i++)
        assert_int_equal(queue_add(&q, &in[i]), 0);
    assert_int_equal(queue_next(&q), 7);
    const size_t want[] = {4, 3, 2, 0, 1};
    for (size_t i = 0; i < 5; i++) {
        assert_true(queue_take(&q, QUEUE_NEVER, &ev));
        assert_int_equal(ev.at_ns, in[want[i]].at_ns);
    }
    assert_true(queue_next(&q) == QUEUE_NEVER);
    assert_int_equal(q.n, 0);
    queue_free(&q);
}

/* Windows as the simulator runs them, against a sorted array. */
static void test_model(void **state)
{
    enum { N = 20000 };
    static const uint64_t spans[] = {1000, 5000000, 2000000000, UINT64_C(30000000000),
                                     900000000000};
    struct prop r = prop_init("queue against a sorted array");
    struct sim_event *all = calloc(N, sizeof *all), ev;
    size_t added = 0, taken = 0;
    uint64_t now = 0;
    struct queue q;

    (void)state;
    assert_non_null(all);
    assert_int_equal(queue_init(&q), 0);
    while (taken < N) {
        for (size_t i = prop_below(&r, 40); i > 0 && added < N; i--, added++) {
            all[added] = event(now + prop_u64(&r) % spans[prop_below(&r, 5)],
                               (uint32_t)prop_below(&r, 3), (uint32_t)added);
            assert_int_equal(queue_add(&q, &all[added]), 0);
        }
        qsort(all + taken, added - taken, sizeof *all, compare);
        uint64_t next = queue_next(&q);
        assert_true(next == (added > taken ? all[taken].at_ns : QUEUE_NEVER));
        if (next == QUEUE_NEVER)
            continue;
        uint64_t end = (added == N || prop_chance(&r, 50) ? next : now) + 5000000;
        while (queue_take(&q, end, &ev)) {
            assert_memory_equal(&ev, &all[taken], sizeof ev);
            taken++;
        }
        assert_true(taken == added || all[taken].at_ns >= end);
        now = end;
    }
    assert_int_equal(q.n, 0);
    queue_free(&q);
    free(all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_far_then_near),
        cmocka_unit_test(test_model),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
