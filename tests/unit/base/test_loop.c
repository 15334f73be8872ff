/* heap.c is included so that its allocation can be made to fail. */
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

#include "base/loop.h"
#include "tests/unit/prop.h"

struct actor {
    struct loop *loop;
    struct loop_timer timer;
    struct loop_task task;
    int id;
    int fired, ran;
    uint64_t again_ns;    /* set the timer to this when it fires, if not LOOP_NEVER */
    int post_again;       /* post the task that many times more */
    struct actor *victim; /* cancel this one when it fires */
};

static int trace[4096];
static size_t trace_len;

static void on_timer(struct loop_timer *t)
{
    struct actor *a = container_of(t, struct actor, timer);
    assert_false(loop_timer_armed(t));
    assert_true(t->at_ns <= a->loop->now_ns);
    assert_true(a->loop->in_turn);
    a->fired++;
    if (trace_len < sizeof trace / sizeof trace[0])
        trace[trace_len++] = a->id;
    if (a->again_ns != LOOP_NEVER)
        loop_timer_set(a->loop, t, a->again_ns);
    if (a->victim != NULL)
        loop_timer_cancel(a->loop, &a->victim->timer);
}

static void on_task(struct loop_task *t)
{
    struct actor *a = container_of(t, struct actor, task);
    a->ran++;
    trace[trace_len++] = -a->id;
    if (a->post_again > 0) {
        a->post_again--;
        loop_task_post(a->loop, t);
    }
}

static void actors_init(struct actor *a, size_t n, struct loop *loop)
{
    memset(a, 0, n * sizeof *a);
    for (size_t i = 0; i < n; i++) {
        a[i].loop = loop;
        a[i].id = (int)i;
        a[i].timer.fn = on_timer;
        a[i].task.fn = on_task;
        a[i].again_ns = LOOP_NEVER;
    }
    trace_len = 0;
}

static void expect_trace(const int *ids, size_t n)
{
    assert_int_equal(trace_len, n);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(trace[i], ids[i]);
    trace_len = 0;
}

static void test_timers_fire_in_order_and_once(void **state)
{
    (void)state;
    struct loop loop;
    struct actor a[5];
    loop_init(&loop, 100);
    actors_init(a, 5, &loop);
    assert_true(loop_deadline(&loop) == LOOP_NEVER);
    loop_timer_set(&loop, &a[3].timer, 200);
    loop_timer_set(&loop, &a[1].timer, 150);
    loop_timer_set(&loop, &a[2].timer, 150);
    loop_timer_set(&loop, &a[0].timer, 50); /* past: now */
    loop_timer_set(&loop, &a[4].timer, 120);
    assert_true(a[0].timer.at_ns == 100);
    assert_true(loop_deadline(&loop) == 100);
    loop_timer_cancel(&loop, &a[4].timer);
    assert_false(loop_timer_armed(&a[4].timer));
    loop_turn(&loop, 100);
    expect_trace((int[]){0}, 1);
    assert_true(loop_deadline(&loop) == 150);
    loop_turn(&loop, 149);
    expect_trace(NULL, 0);
    loop_timer_set(&loop, &a[1].timer, 150); /* re-armed: now behind 2 */
    loop_turn(&loop, 300);
    expect_trace((int[]){2, 1, 3}, 3);
    assert_true(loop_deadline(&loop) == LOOP_NEVER);
    loop_turn(&loop, 10); /* time does not go back */
    assert_true(loop.now_ns == 300);
    loop_close(&loop);
}

static void test_a_timer_armed_in_a_turn_waits_for_the_next(void **state)
{
    (void)state;
    struct loop loop;
    struct actor a[3];
    loop_init(&loop, 0);
    actors_init(a, 3, &loop);
    a[0].again_ns = 0; /* already past when it is set */
    for (size_t i = 0; i < 3; i++)
        loop_timer_set(&loop, &a[i].timer, 10 + i);
    loop_turn(&loop, 50);
    expect_trace((int[]){0, 1, 2}, 3);
    assert_true(loop_deadline(&loop) == 50);
    loop_turn(&loop, 50);
    expect_trace((int[]){0}, 1);
    loop_timer_cancel(&loop, &a[0].timer);

    a[1].victim = &a[2];
    loop_timer_set(&loop, &a[1].timer, 60);
    loop_timer_set(&loop, &a[2].timer, 60);
    loop_turn(&loop, 60);
    expect_trace((int[]){1}, 1);
    loop_close(&loop);
}

static void test_tasks(void **state)
{
    (void)state;
    struct loop loop;
    struct actor a[3];
    loop_init(&loop, 5);
    actors_init(a, 3, &loop);
    loop_timer_set(&loop, &a[0].timer, 5);
    loop_task_post(&loop, &a[1].task);
    loop_task_post(&loop, &a[2].task);
    loop_task_post(&loop, &a[1].task);
    assert_true(loop_deadline(&loop) == 0);
    a[1].post_again = 1;
    loop_turn(&loop, 5);
    expect_trace((int[]){0, -1, -2, -1}, 4); /* timers first */
    assert_true(loop_deadline(&loop) == LOOP_NEVER);

    loop_task_post(&loop, &a[1].task);
    loop_task_cancel(&loop, &a[1].task);
    loop_task_cancel(&loop, &a[1].task);
    loop_turn(&loop, 5);
    expect_trace(NULL, 0);

    a[2].post_again = 1000; /* a task that never rests does not hold the turn */
    a[2].ran = 0;
    loop_task_post(&loop, &a[2].task);
    loop_turn(&loop, 5);
    assert_int_equal(a[2].ran, LOOP_TASK_ROUNDS);
    assert_true(loop_deadline(&loop) == 0);
    loop_turn(&loop, 5);
    assert_int_equal(a[2].ran, 2 * LOOP_TASK_ROUNDS);
    loop_task_cancel(&loop, &a[2].task);
    loop_close(&loop);
}

static int wakes;

static void count_wake(struct loop *loop)
{
    (void)loop;
    wakes++;
}

static void test_wake_only_when_the_deadline_moves_ahead(void **state)
{
    (void)state;
    struct loop loop;
    struct actor a[3];
    loop_init(&loop, 0);
    loop.wake = count_wake;
    actors_init(a, 3, &loop);
    wakes = 0;
    loop_timer_set(&loop, &a[0].timer, 100);
    assert_int_equal(wakes, 1);
    loop_timer_set(&loop, &a[1].timer, 200);
    loop_timer_set(&loop, &a[0].timer, 150);
    loop_timer_cancel(&loop, &a[1].timer);
    assert_int_equal(wakes, 1);
    loop_timer_set(&loop, &a[1].timer, 50);
    assert_int_equal(wakes, 2);
    loop_task_post(&loop, &a[2].task);
    loop_task_post(&loop, &a[1].task);
    assert_int_equal(wakes, 3);
    a[0].again_ns = 300;
    a[2].post_again = 1;
    loop_turn(&loop, 250); /* nothing inside a turn wakes */
    assert_int_equal(wakes, 3);
    loop_timer_cancel(&loop, &a[0].timer);
    loop_close(&loop);
}

static void test_out_of_memory_timers_still_fire(void **state)
{
    (void)state;
    struct loop loop;
    struct actor a[6];
    loop_init(&loop, 0);
    actors_init(a, 6, &loop);
    no_memory = true;
    for (size_t i = 0; i < 6; i++) {
        loop_timer_set(&loop, &a[i].timer, 10 * (i + 1));
        assert_true(loop_timer_armed(&a[i].timer));
    }
    assert_int_equal(heap_len(&loop.heap), 0);
    assert_true(loop_deadline(&loop) == 10);
    loop_timer_cancel(&loop, &a[0].timer);
    loop_timer_set(&loop, &a[1].timer, 15);
    assert_true(loop_deadline(&loop) == 15);

    a[1].again_ns = 0;
    a[2].victim = &a[3];
    loop_turn(&loop, 40); /* 1, 2 and 3 are due; 2 cancels 3 */
    assert_int_equal(a[2].fired, 1);
    assert_int_equal(a[3].fired, 0);
    assert_in_range(a[1].fired, 1, 2);
    a[1].again_ns = LOOP_NEVER;
    no_memory = false;
    trace_len = 0;
    loop_turn(&loop, 60); /* memory again: back into the heap, in order of time */
    expect_trace((int[]){1, 4, 5}, 3);
    assert_true(loop_deadline(&loop) == LOOP_NEVER);
    loop_close(&loop);
}

static void test_against_a_model(void **state)
{
    (void)state;
    enum { COUNT = 200 };
    struct prop r = prop_init("loop against a model");
    static struct actor a[COUNT];
    struct loop loop;
    uint64_t due[COUNT];
    loop_init(&loop, 0);
    actors_init(a, COUNT, &loop);
    for (size_t i = 0; i < COUNT; i++)
        due[i] = LOOP_NEVER;
    for (int step = 0; step < 5000; step++) {
        size_t i = prop_below(&r, COUNT);
        no_memory = prop_chance(&r, 10);
        if (prop_chance(&r, 70)) {
            due[i] = loop.now_ns + prop_below(&r, 1000);
            loop_timer_set(&loop, &a[i].timer, due[i]);
        } else if (prop_chance(&r, 50)) {
            due[i] = LOOP_NEVER;
            loop_timer_cancel(&loop, &a[i].timer);
        } else {
            uint64_t now = loop.now_ns + prop_below(&r, 200);
            for (size_t k = 0; k < COUNT; k++)
                a[k].fired = 0;
            trace_len = 0;
            loop_turn(&loop, now);
            for (size_t k = 0; k < COUNT; k++) {
                assert_int_equal(a[k].fired, due[k] <= now ? 1 : 0);
                if (due[k] <= now)
                    due[k] = LOOP_NEVER;
            }
        }
        uint64_t least = LOOP_NEVER;
        for (size_t k = 0; k < COUNT; k++) {
            assert_int_equal(loop_timer_armed(&a[k].timer), due[k] != LOOP_NEVER);
            least = due[k] < least ? due[k] : least;
        }
        assert_true(loop_deadline(&loop) == least);
    }
    no_memory = false;
    for (size_t i = 0; i < COUNT; i++)
        loop_timer_cancel(&loop, &a[i].timer);
    loop_close(&loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_timers_fire_in_order_and_once),
        cmocka_unit_test(test_a_timer_armed_in_a_turn_waits_for_the_next),
        cmocka_unit_test(test_tasks),
        cmocka_unit_test(test_wake_only_when_the_deadline_moves_ahead),
        cmocka_unit_test(test_out_of_memory_timers_still_fire),
        cmocka_unit_test(test_against_a_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
