/* drive_loop: posts of threads, timers. */
#include <pthread.h>

#include "base/err.h"
#include "tests/unit/transport/drive_world.h"

#define SENDERS  4
#define MESSAGES 2000

struct note {
    struct drive_msg msg;
    struct sender *from;
    unsigned nr;
};

struct sender {
    pthread_t thread;
    struct drive_loop *drive;
    struct note note[MESSAGES];
    unsigned got;
    bool disorder;
    pthread_t seen_on;
};

static void on_note(struct drive_msg *m)
{
    struct note *n = (struct note *)m;
    struct sender *s = n->from;
    if (n->nr != s->got++)
        s->disorder = true;
    s->seen_on = pthread_self();
}

static void *send_notes(void *arg)
{
    struct sender *s = arg;
    for (unsigned i = 0; i < MESSAGES; i++) {
        s->note[i] = (struct note){.msg.fn = on_note, .from = s, .nr = i};
        drive_post(s->drive, &s->note[i].msg);
    }
    return NULL;
}

static bool all_notes(void *arg)
{
    struct sender *s = arg;
    for (unsigned i = 0; i < SENDERS; i++)
        if (s[i].got < MESSAGES)
            return false;
    return true;
}

static void test_posts_of_threads(void **state)
{
    struct drive_world *f = *state;
    struct sender *s = calloc(SENDERS, sizeof *s);
    for (unsigned i = 0; i < SENDERS; i++) {
        s[i].drive = f->drive;
        assert_int_equal(pthread_create(&s[i].thread, NULL, send_notes, &s[i]), 0);
    }
    dw_wait(f, all_notes, s);
    for (unsigned i = 0; i < SENDERS; i++) {
        pthread_join(s[i].thread, NULL);
        assert_int_equal(s[i].got, MESSAGES);
        assert_false(s[i].disorder);
        assert_true(pthread_equal(s[i].seen_on, pthread_self()));
    }
    free(s);
}

/* A message may be posted again from its own function; messages posted before the loop runs are
 * not lost. */
struct again {
    struct drive_msg msg;
    struct drive_world *f;
    unsigned n;
};

static void on_again(struct drive_msg *m)
{
    struct again *a = (struct again *)m;
    if (++a->n < 100)
        drive_post(a->f->drive, m);
}

static bool again_done(void *arg)
{
    return ((struct again *)arg)->n == 100;
}

static void test_post_again(void **state)
{
    struct drive_world *f = *state;
    struct again a = {.msg.fn = on_again, .f = f};
    drive_post(f->drive, &a.msg);
    dw_wait(f, again_done, &a);
}

struct order {
    struct loop_timer timer[8];
    struct loop_task task;
    struct loop *loop;
    unsigned fired;
    bool wrong, task_ran;
    uint64_t last_ns;
};

static struct order *the_order;

static void on_order(struct loop_timer *t)
{
    struct order *o = the_order;
    if (t != &o->timer[o->fired++] || t->at_ns > o->loop->now_ns || o->loop->now_ns < o->last_ns)
        o->wrong = true;
    o->last_ns = o->loop->now_ns;
    if (o->fired == 3)
        loop_task_post(o->loop, &o->task);
}

static void on_order_task(struct loop_task *t)
{
    (void)t;
    the_order->task_ran = true;
}

static bool order_done(void *arg)
{
    struct order *o = arg;
    return o->fired == 8 && o->task_ran;
}

static void test_timers(void **state)
{
    struct drive_world *f = *state;
    struct order o = {.loop = dw_loop(f), .task.fn = on_order_task};
    uint64_t now = drive_loop_now(f->drive);
    the_order = &o;
    for (unsigned i = 8; i-- > 0;) {
        o.timer[i].fn = on_order;
        loop_timer_set(o.loop, &o.timer[i], now + (1 + 2 * i) * NS_PER_MS);
    }
    dw_wait(f, order_done, &o);
    assert_false(o.wrong);
    assert_true(drive_loop_max_turn_ns(f->drive) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, dw_setup, dw_teardown)
        T(test_posts_of_threads),
        T(test_post_again),
        T(test_timers),
#undef T
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
