#include "transport/drive_loop.h"

#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"

struct drive_loop {
    struct loop loop;
    struct event_base *base;
    bool own_base, armed_now;
    struct event *turn;   /* timer and activation of the next turn */
    struct event *wakeup; /* eventfd: messages of other threads */
    int wake_fd;
    pthread_mutex_t lock;
    struct drive_msg *head, **tail; /* under lock */
    uint64_t max_turn_ns;
};

static uint64_t monotonic_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

uint64_t drive_loop_now(struct drive_loop *d)
{
    uint64_t now = monotonic_ns();
    if (now > d->loop.now_ns)
        d->loop.now_ns = now;
    return d->loop.now_ns;
}

static void arm(struct drive_loop *d)
{
    if (d->armed_now) /* adding the timer would take the activation back; that turn arms again */
        return;
    uint64_t at = loop_deadline(&d->loop);
    if (at == LOOP_NEVER) {
        event_del(d->turn);
        return;
    }
    uint64_t now = monotonic_ns();
    uint64_t wait_us = at > now ? (at - now + NS_PER_US - 1) / NS_PER_US : 0;
    struct timeval tv = {(time_t)(wait_us / 1000000), (suseconds_t)(wait_us % 1000000)};
    event_add(d->turn, &tv);
}

static void on_turn(evutil_socket_t fd, short what, void *arg)
{
    struct drive_loop *d = arg;
    (void)fd;
    (void)what;
    uint64_t start = monotonic_ns();
    d->armed_now = false;
    loop_turn(&d->loop, start);
    uint64_t took = monotonic_ns() - start;
    if (took > d->max_turn_ns)
        d->max_turn_ns = took;
    arm(d);
}

/* Something was armed or posted from a descriptor's callback: take a turn behind the callbacks that are active now. */
static void on_wake(struct loop *loop)
{
    struct drive_loop *d = loop->driver;
    if (d->armed_now)
        return;
    d->armed_now = true;
    event_active(d->turn, EV_TIMEOUT, 0);
}

static void on_messages(evutil_socket_t fd, short what, void *arg)
{
    struct drive_loop *d = arg;
    uint64_t count;
    (void)what;
    ssize_t got = read(fd, &count, sizeof(count));
    (void)got; /* the queue tells what there is */
    pthread_mutex_lock(&d->lock);
    struct drive_msg *m = d->head;
    d->head = NULL;
    d->tail = &d->head;
    pthread_mutex_unlock(&d->lock);
    drive_loop_now(d);
    while (m != NULL) {
        struct drive_msg *next = m->next; /* fn may post m again */
        m->fn(m);
        m = next;
    }
}

void drive_loop_wait_message(struct drive_loop *d)
{
    struct pollfd p = {d->wake_fd, POLLIN, 0};
    (void)poll(&p, 1, -1); /* interrupted: the caller looks again */
    on_messages(d->wake_fd, 0, d);
}

void drive_post(struct drive_loop *d, struct drive_msg *m)
{
    m->next = NULL;
    pthread_mutex_lock(&d->lock);
    bool first = d->head == NULL;
    *d->tail = m;
    d->tail = &m->next;
    pthread_mutex_unlock(&d->lock);
    if (first) {
        uint64_t one = 1;
        ssize_t put = write(d->wake_fd, &one, sizeof(one));
        (void)put; /* EAGAIN: the counter is not zero, the loop is woken anyway */
    }
}

struct drive_loop *drive_loop_new(struct event_base *base)
{
    struct drive_loop *d = calloc(1, sizeof(*d));
    if (d == NULL)
        return NULL;
    d->own_base = base == NULL;
    d->base = base != NULL ? base : event_base_new();
    d->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    d->tail = &d->head;
    pthread_mutex_init(&d->lock, NULL);
    loop_init(&d->loop, monotonic_ns());
    if (d->base != NULL && d->wake_fd >= 0) {
        d->turn = event_new(d->base, -1, 0, on_turn, d);
        d->wakeup = event_new(d->base, d->wake_fd, EV_READ | EV_PERSIST, on_messages, d);
    }
    if (d->turn == NULL || d->wakeup == NULL || event_add(d->wakeup, NULL) < 0) {
        drive_loop_free(d);
        return NULL;
    }
    d->loop.wake = on_wake;
    d->loop.driver = d;
    return d;
}

void drive_loop_free(struct drive_loop *d)
{
    if (d == NULL)
        return;
    loop_close(&d->loop);
    if (d->turn != NULL)
        event_free(d->turn);
    if (d->wakeup != NULL)
        event_free(d->wakeup);
    if (d->wake_fd >= 0)
        close(d->wake_fd);
    if (d->own_base && d->base != NULL)
        event_base_free(d->base);
    pthread_mutex_destroy(&d->lock);
    free(d);
}

struct loop *drive_loop_loop(struct drive_loop *d)
{
    return &d->loop;
}

struct event_base *drive_loop_base(struct drive_loop *d)
{
    return d->base;
}

int drive_loop_run(struct drive_loop *d)
{
    arm(d);
    return event_base_loop(d->base, EVLOOP_NO_EXIT_ON_EMPTY) < 0 ? ERR_STATE : 0;
}

void drive_loop_stop(struct drive_loop *d)
{
    event_base_loopbreak(d->base);
}

uint64_t drive_loop_max_turn_ns(const struct drive_loop *d)
{
    return d->max_turn_ns;
}
