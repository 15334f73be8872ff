/* drive_loop: turns, messages and timers over a real libevent base. */
#include "transport/drive_loop.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#define HANG_S 20

struct world {
    struct drive_loop *drive;
    struct loop *loop;
    struct loop_timer far;
    struct loop_task task;
    struct drive_msg msg;
    unsigned far_fired, tasks;
};

static void on_far(struct loop_timer *t)
{
    container_of(t, struct world, far)->far_fired++;
}

static void on_task(struct loop_task *t)
{
    struct world *w = container_of(t, struct world, task);
    w->tasks++;
    drive_loop_stop(w->drive);
}

static void on_msg(struct drive_msg *m)
{
    struct world *w = container_of(m, struct world, msg);
    loop_task_post(w->loop, &w->task);
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    assert_non_null(w);
    w->drive = drive_loop_new(NULL);
    assert_non_null(w->drive);
    w->loop = drive_loop_loop(w->drive);
    w->far.fn = on_far;
    w->task.fn = on_task;
    w->msg.fn = on_msg;
    alarm(HANG_S); /* a turn that never comes ends the program */
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    alarm(0);
    loop_timer_cancel(w->loop, &w->far);
    drive_loop_free(w->drive);
    free(w);
    return 0;
}

/* Arming a timer asks for a turn; the run that begins afterwards must not forget that it was asked. */
static void test_timer_armed_before_the_run_does_not_hold_tasks_up(void **state)
{
    struct world *w = *state;
    loop_timer_set(w->loop, &w->far, drive_loop_now(w->drive) + 3600 * NS_PER_S);
    drive_post(w->drive, &w->msg);
    assert_int_equal(drive_loop_run(w->drive), 0);
    assert_int_equal(w->tasks, 1);
    assert_int_equal(w->far_fired, 0);
}

static void test_task_posted_before_the_run(void **state)
{
    struct world *w = *state;
    loop_task_post(w->loop, &w->task);
    assert_int_equal(drive_loop_run(w->drive), 0);
    assert_int_equal(w->tasks, 1);
}

static void *post(void *arg)
{
    struct world *w = arg;
    drive_post(w->drive, &w->msg);
    return NULL;
}

static void test_message_of_another_thread(void **state)
{
    struct world *w = *state;
    pthread_t thread;
    loop_timer_set(w->loop, &w->far, drive_loop_now(w->drive) + 3600 * NS_PER_S);
    assert_int_equal(pthread_create(&thread, NULL, post, w), 0);
    assert_int_equal(drive_loop_run(w->drive), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(w->tasks, 1);
}

/* A timer that is moved to an earlier time from a message fires then. */
static void on_sooner(struct drive_msg *m)
{
    struct world *w = container_of(m, struct world, msg);
    loop_timer_set(w->loop, &w->far, w->loop->now_ns + NS_PER_MS);
}

static void on_soon(struct loop_timer *t)
{
    struct world *w = container_of(t, struct world, far);
    w->far_fired++;
    loop_task_post(w->loop, &w->task);
}

static void test_timer_moved_forward(void **state)
{
    struct world *w = *state;
    w->msg.fn = on_sooner;
    w->far.fn = on_soon;
    loop_timer_set(w->loop, &w->far, drive_loop_now(w->drive) + 3600 * NS_PER_S);
    drive_post(w->drive, &w->msg);
    assert_int_equal(drive_loop_run(w->drive), 0);
    assert_int_equal(w->far_fired, 1);
    assert_int_equal(w->tasks, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_timer_armed_before_the_run_does_not_hold_tasks_up,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_task_posted_before_the_run, setup, teardown),
        cmocka_unit_test_setup_teardown(test_message_of_another_thread, setup, teardown),
        cmocka_unit_test_setup_teardown(test_timer_moved_forward, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
