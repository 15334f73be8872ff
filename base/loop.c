#include "base/loop.h"

#include <assert.h>

void loop_init(struct loop *loop, uint64_t now_ns)
{
    *loop = (struct loop){.now_ns = now_ns};
    heap_init(&loop->heap);
    list_init(&loop->tasks);
}

void loop_close(struct loop *loop)
{
    assert(!loop->in_turn && loop->spare == NULL && list_empty(&loop->tasks));
    heap_free(&loop->heap);
}

/* Tell the driver when the deadline moved ahead of `before`; inside a turn it asks anyway when the
 * turn is over. */
static void wake_if_earlier(struct loop *loop, uint64_t before)
{
    if (!loop->in_turn && loop->wake != NULL && loop_deadline(loop) < before)
        loop->wake(loop);
}

/* ---- timers ---- */

static void enqueue(struct loop *loop, struct loop_timer *t)
{
    if (heap_set(&loop->heap, &t->node, t->at_ns, loop->next_order++) == 0)
        return;
    struct loop_timer **tail = &loop->spare;
    while (*tail != NULL)
        tail = &(*tail)->next;
    *tail = t;
    t->next = NULL;
    t->spare = true;
}

static void spare_remove(struct loop *loop, struct loop_timer *t)
{
    struct loop_timer **at = &loop->spare;
    while (*at != t)
        at = &(*at)->next;
    *at = t->next;
    t->spare = false;
}

/* Give timers of the spare list another chance; what stays there and is due fires from there. */
static void spare_retry(struct loop *loop)
{
    struct loop_timer *t = loop->spare;
    loop->spare = NULL;
    while (t != NULL) {
        struct loop_timer *next = t->next;
        t->spare = false;
        enqueue(loop, t);
        t = next;
    }
}

static struct loop_timer *spare_due(const struct loop *loop)
{
    struct loop_timer *t = loop->spare;
    while (t != NULL && t->at_ns > loop->now_ns)
        t = t->next;
    return t;
}

void loop_timer_set(struct loop *loop, struct loop_timer *t, uint64_t at_ns)
{
    uint64_t before = loop_deadline(loop);
    if (t->spare)
        spare_remove(loop, t);
    /* Due times are never before now: a timer armed within a turn sorts behind all that are due in
     * it. */
    t->at_ns = at_ns > loop->now_ns ? at_ns : loop->now_ns;
    enqueue(loop, t);
    wake_if_earlier(loop, before);
}

void loop_timer_cancel(struct loop *loop, struct loop_timer *t)
{
    if (t->spare)
        spare_remove(loop, t);
    heap_remove(&loop->heap, &t->node);
}

static void run_timers(struct loop *loop)
{
    if (loop->spare != NULL)
        spare_retry(loop);

    /* What is armed from here on waits for the next turn. */
    uint64_t limit = loop->next_order;
    const struct heap_entry *e;
    while ((e = heap_min(&loop->heap)) != NULL && e->key <= loop->now_ns && e->order < limit) {
        struct loop_timer *t = container_of(heap_pop(&loop->heap), struct loop_timer, node);
        t->fn(t);
    }

    /* Out of memory. Counted first: a callback that arms again goes to the end of the list and
     * cannot keep this going. */
    size_t due = 0;
    for (struct loop_timer *t = loop->spare; t != NULL; t = t->next)
        due += t->at_ns <= loop->now_ns;
    for (struct loop_timer *t; due > 0 && (t = spare_due(loop)) != NULL; due--) {
        spare_remove(loop, t);
        t->fn(t);
    }
}

/* ---- tasks ---- */

void loop_task_post(struct loop *loop, struct loop_task *t)
{
    if (list_node_is_linked(&t->node))
        return;
    uint64_t before = loop_deadline(loop);
    list_push_back(&loop->tasks, &t->node);
    wake_if_earlier(loop, before);
}

void loop_task_cancel(struct loop *loop, struct loop_task *t)
{
    (void)loop;
    list_remove(&t->node);
}

static void run_tasks(struct loop *loop)
{
    for (int round = 0; round < LOOP_TASK_ROUNDS && !list_empty(&loop->tasks); round++) {
        struct list batch;
        list_init(&batch);
        list_splice(&batch, &loop->tasks);
        while (!list_empty(&batch)) {
            struct loop_task *t = list_pop_front_as(&batch, struct loop_task, node);
            t->fn(t);
        }
    }
}

/* ---- turn ---- */

void loop_turn(struct loop *loop, uint64_t now_ns)
{
    assert(!loop->in_turn);
    if (now_ns > loop->now_ns)
        loop->now_ns = now_ns;
    loop->in_turn = true;
    run_timers(loop);
    run_tasks(loop);
    loop->in_turn = false;
}

uint64_t loop_deadline(const struct loop *loop)
{
    if (!list_empty(&loop->tasks))
        return 0;
    uint64_t at_ns = heap_min_key(&loop->heap); /* LOOP_NEVER when empty */
    for (const struct loop_timer *t = loop->spare; t != NULL; t = t->next) {
        if (t->at_ns < at_ns)
            at_ns = t->at_ns;
    }
    return at_ns;
}

_Static_assert(LOOP_NEVER == HEAP_NO_KEY, "an empty heap means no deadline");
