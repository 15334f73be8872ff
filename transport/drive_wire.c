#include "transport/drive_wire.h"

#include <event2/event.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/err.h"

#define IOV_MAX_OUT 64
#define REST_NS     (10 * NS_PER_MS)

/* One direction. A slot belongs to the writer from head + WIRE_SLOTS on, to the reader up to tail. */
struct ring {
    struct buf *slot[WIRE_SLOTS];  /* full ones, and empty ones on their way back */
    _Alignas(64) atomic_uint tail; /* moved by the writer */
    atomic_bool writer_waits;      /* for room */
    atomic_bool ended;             /* the writer writes no more */
    _Alignas(64) atomic_uint head; /* moved by the reader */
    atomic_bool reader_waits;      /* for bytes */
};

struct wire;

struct wire_end {
    struct conn conn; /* first member */
    struct wire *wire;
    struct drive_loop *drive;
    struct bufpool *pool;
    struct ring *in, *out;
    int wake_fd; /* written by the other end */
    struct event *wake;
    struct wire_end *other; /* only its wake_fd is used */
    bool closed, paused, told;
    struct loop_task flush_task, read_task, free_task;
    struct loop_timer rest; /* without buffers */
};

struct wire {
    struct ring ring[2];
    struct wire_end end[2];
    struct buf_budget *budget;
    atomic_uint users; /* ends not yet freed */
};

static struct loop *loop_of(const struct wire_end *e)
{
    return drive_loop_loop(e->drive);
}

static void wake(const struct wire_end *e)
{
    uint64_t one = 1;
    ssize_t put = write(e->wake_fd, &one, sizeof(one));
    (void)put; /* EAGAIN: it is awake */
}

/* Who waits sets its flag, then looks again; who has changed something looks at the flag afterwards.
 * All four in one order (seq_cst), so that one of them sees the other. */
static void wake_if(const struct wire_end *who, atomic_bool *waits)
{
    if (atomic_load(waits) && atomic_exchange(waits, false))
        wake(who);
}

/* ---- reading ---- */

static unsigned filled(const struct ring *r)
{
    return atomic_load(&r->tail) - atomic_load_explicit(&r->head, memory_order_relaxed);
}

/* The next full buffer, now in our pool. */
static struct buf *take(struct wire_end *e)
{
    struct ring *r = e->in;
    unsigned head = atomic_load_explicit(&r->head, memory_order_relaxed);
    struct buf **slot = &r->slot[head % WIRE_SLOTS], *b = *slot;
    *slot = buf_spare(e->pool, b->cap);
    buf_join(b, e->pool);
    atomic_store(&r->head, head + 1);
    wake_if(e->other, &r->writer_waits);
    return b;
}

static void deliver(struct wire_end *e, struct buf *b)
{
    struct slice s = {.buf = b, .p = b->data, .n = b->used};
    e->conn.user->input(e->conn.arg, s, loop_of(e)->now_ns);
    slice_release(&s);
}

static bool may_read(const struct wire_end *e)
{
    return !e->closed && !e->paused && e->conn.user != NULL;
}

/* Nothing is there, and nothing will come: tell it once. */
static void end_of_input(struct wire_end *e)
{
    if (!atomic_load(&e->in->ended) || filled(e->in) > 0 || e->told || !may_read(e))
        return;
    e->told = true;
    e->conn.user->down(e->conn.arg, ERR_EOF);
}

static void read_some(struct loop_task *t)
{
    struct wire_end *e = container_of(t, struct wire_end, read_task);
    size_t budget = WIRE_TURN_BYTES;
    while (may_read(e)) {
        if (filled(e->in) == 0) {
            atomic_store(&e->in->reader_waits, true);
            if (filled(e->in) == 0) {
                end_of_input(e);
                return;
            }
        }
        if (budget == 0) {
            wake(e); /* behind what else the loop has to do */
            return;
        }
        struct buf *b = take(e);
        budget = budget > b->used ? budget - b->used : 0;
        deliver(e, b);
    }
}

/* ---- writing ---- */

static bool has_room(const struct ring *r)
{
    return atomic_load_explicit(&r->tail, memory_order_relaxed) - atomic_load(&r->head) <
           WIRE_SLOTS;
}

static size_t iov_bytes(const struct iovec *iov, int cnt)
{
    size_t n = 0;
    for (int i = 0; i < cnt; i++)
        n += iov[i].iov_len;
    return n;
}

/* As much as fits into one buffer; NULL: there is none. */
static struct buf *gather(struct bufpool *pool, const struct iovec *iov, int cnt)
{
    size_t all = iov_bytes(iov, cnt);
    struct buf *b = buf_get(pool, all < BUF_READ_SIZE ? all : BUF_READ_SIZE);
    for (int i = 0; b != NULL && i < cnt; i++) {
        size_t n = iov[i].iov_len < buf_room_len(b) ? iov[i].iov_len : buf_room_len(b);
        memcpy(buf_room(b), iov[i].iov_base, n);
        b->used += (uint32_t)n;
    }
    return b;
}

static void put(struct wire_end *e, struct buf *b)
{
    struct ring *r = e->out;
    unsigned tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
    struct buf **slot = &r->slot[tail % WIRE_SLOTS], *empty = *slot;
    buf_leave(b);
    *slot = b;
    atomic_store(&r->tail, tail + 1);
    wake_if(e->other, &r->reader_waits);
    if (empty != NULL)
        buf_spare_join(empty, e->pool);
}

static void write_some(struct loop_task *t)
{
    struct wire_end *e = container_of(t, struct wire_end, flush_task);
    struct iovec iov[IOV_MAX_OUT];
    while (!e->closed) {
        uint64_t now = loop_of(e)->now_ns;
        int cnt = e->conn.user->output(e->conn.arg, iov, IOV_MAX_OUT, now);
        if (cnt == 0)
            return;
        if (!has_room(e->out)) {
            atomic_store(&e->out->writer_waits, true);
            if (!has_room(e->out))
                return; /* woken when there is */
        }
        struct buf *b = gather(e->pool, iov, cnt);
        if (b == NULL) { /* others give theirs back meanwhile */
            loop_timer_set(loop_of(e), &e->rest, now + REST_NS);
            return;
        }
        size_t n = b->used;
        put(e, b);
        e->conn.user->sent(e->conn.arg, n, now);
    }
}

static void on_rested(struct loop_timer *t)
{
    struct wire_end *e = container_of(t, struct wire_end, rest);
    loop_task_post(loop_of(e), &e->flush_task);
}

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
    struct wire_end *e = arg;
    (void)fd;
    (void)what;
    drive_loop_now(e->drive);
    loop_task_post(loop_of(e), &e->read_task);
    loop_task_post(loop_of(e), &e->flush_task);
}

/* ---- conn.h ---- */

static void wire_flush(struct conn *conn)
{
    struct wire_end *e = (struct wire_end *)conn;
    if (!e->closed && e->conn.user != NULL)
        loop_task_post(loop_of(e), &e->flush_task);
}

static void wire_pause(struct conn *conn, bool paused)
{
    struct wire_end *e = (struct wire_end *)conn;
    e->paused = paused;
    if (!paused && !e->closed)
        loop_task_post(loop_of(e), &e->read_task);
}

static void wire_close(struct conn *conn)
{
    struct wire_end *e = (struct wire_end *)conn;
    if (e->closed)
        return;
    e->closed = true;
    event_del(e->wake);
    loop_task_cancel(loop_of(e), &e->flush_task);
    loop_task_cancel(loop_of(e), &e->read_task);
    loop_timer_cancel(loop_of(e), &e->rest);
    atomic_store(&e->out->ended, true);
    wake_if(e->other, &e->out->reader_waits);
    loop_task_post(loop_of(e), &e->free_task);
}

static const struct conn_ops wire_ops = {wire_flush, wire_pause, wire_close};

/* ---- life ---- */

static void ring_clear(struct ring *r, struct buf_budget *budget)
{
    unsigned head = atomic_load(&r->head), tail = atomic_load(&r->tail);
    for (unsigned i = 0; i < WIRE_SLOTS; i++) {
        bool full = (i - head) % WIRE_SLOTS < tail - head;
        buf_discard(r->slot[i], full ? budget : NULL);
    }
}

/* The other end may still write to our eventfd: descriptors and memory go when both are closed. */
static void wire_free(struct wire *w)
{
    for (int i = 0; i < 2; i++) {
        ring_clear(&w->ring[i], w->budget);
        if (w->end[i].wake_fd >= 0)
            close(w->end[i].wake_fd);
    }
    free(w);
}

static void free_later(struct loop_task *t)
{
    struct wire_end *e = container_of(t, struct wire_end, free_task);
    event_free(e->wake);
    if (atomic_fetch_sub(&e->wire->users, 1) == 1)
        wire_free(e->wire);
}

static int end_init(struct wire *w, int i, struct drive_loop *drive, struct bufpool *pool)
{
    struct wire_end *e = &w->end[i];
    e->conn.ops = &wire_ops;
    snprintf(e->conn.peer, sizeof(e->conn.peer), "worker");
    e->wire = w;
    e->drive = drive;
    e->pool = pool;
    e->in = &w->ring[i];
    e->out = &w->ring[1 - i];
    e->other = &w->end[1 - i];
    e->flush_task.fn = write_some;
    e->read_task.fn = read_some;
    e->free_task.fn = free_later;
    e->rest.fn = on_rested;
    atomic_init(&e->in->reader_waits, true);
    if ((e->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) < 0)
        return err_sys();
    /* Edge-triggered: it is never read. */
    e->wake =
        event_new(drive_loop_base(drive), e->wake_fd, EV_READ | EV_PERSIST | EV_ET, on_wake, e);
    return e->wake == NULL || event_add(e->wake, NULL) < 0 ? ERR_NOMEM : 0;
}

int drive_wire_pair(struct drive_loop *loop_a, struct bufpool *pool_a, struct drive_loop *loop_b,
                    struct bufpool *pool_b, struct buf_budget *budget, struct conn **a,
                    struct conn **b)
{
    struct wire *w = aligned_alloc(64, (sizeof(*w) + 63) / 64 * 64);
    if (w == NULL)
        return ERR_NOMEM;
    memset(w, 0, sizeof(*w));
    w->budget = budget;
    w->end[0].wake_fd = w->end[1].wake_fd = -1;
    atomic_init(&w->users, 2);
    int rc = end_init(w, 0, loop_a, pool_a);
    if (rc == 0)
        rc = end_init(w, 1, loop_b, pool_b);
    if (rc < 0) {
        for (int i = 0; i < 2; i++)
            if (w->end[i].wake != NULL)
                event_free(w->end[i].wake);
        wire_free(w);
        return rc;
    }
    *a = &w->end[0].conn;
    *b = &w->end[1].conn;
    return 0;
}
