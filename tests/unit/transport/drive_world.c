#include "tests/unit/transport/drive_world.h"

int dw_setup(void **state)
{
    struct drive_world *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->drive = drive_loop_new(NULL);
    f->pool = bufpool_new(NULL);
    f->tcp = drive_tcp_new(f->drive, f->pool);
    assert_true(f->drive != NULL && f->pool != NULL && f->tcp != NULL);
    *state = f;
    return 0;
}

void dw_turn(struct drive_world *f)
{
    struct loop *loop = drive_loop_loop(f->drive);
    loop_turn(loop, drive_loop_now(f->drive));
}

int dw_teardown(void **state)
{
    struct drive_world *f = *state;
    dw_turn(f);
    drive_tcp_free(f->tcp);
    assert_int_equal(bufpool_in_use(f->pool), 0);
    bufpool_free(f->pool);
    drive_loop_free(f->drive);
    free(f);
    return 0;
}

struct loop *dw_loop(struct drive_world *f)
{
    return drive_loop_loop(f->drive);
}

struct watch { /* ends the run: condition true, or time over */
    struct loop_timer timer;
    struct drive_world *f;
    bool (*done)(void *arg);
    void *arg;
    uint64_t until_ns;
    bool ok;
};

static void on_watch(struct loop_timer *t)
{
    struct watch *w = container_of(t, struct watch, timer);
    struct loop *loop = dw_loop(w->f);
    w->ok = w->done != NULL && w->done(w->arg);
    if (w->ok || loop->now_ns >= w->until_ns)
        drive_loop_stop(w->f->drive);
    else
        loop_timer_set(loop, t, loop->now_ns + NS_PER_MS);
}

bool dw_run_for(struct drive_world *f, uint64_t ns, bool (*done)(void *arg), void *arg)
{
    struct watch w = {.f = f, .done = done, .arg = arg, .timer.fn = on_watch};
    w.until_ns = drive_loop_now(f->drive) + ns;
    loop_timer_set(dw_loop(f), &w.timer, dw_loop(f)->now_ns);
    assert_int_equal(drive_loop_run(f->drive), 0);
    loop_timer_cancel(dw_loop(f), &w.timer);
    return w.ok;
}

void dw_wait(struct drive_world *f, bool (*done)(void *arg), void *arg)
{
    assert_true(dw_run_for(f, 20 * NS_PER_S, done, arg));
}
