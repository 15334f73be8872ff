#include "transport/link.h"

#include <stdlib.h>

#include "base/err.h"

#define EVENTS_PER_ROUND 256 /* then other links come first */

struct link {
    struct loop *loop;
    struct conn *conn;
    struct session *session;
    const struct link_owner *owner;
    void *arg;
    struct loop_timer timer; /* may fire early: it is not re-armed when the deadline moves back */
    struct loop_task task;   /* what is left to do this turn; in the end, to free the link */
    bool closed;             /* by the owner: it hears nothing more */
    bool ended;              /* down() was called */
    bool paused, conn_paused;
};

/* ---- what follows from news of the session ---- */

static bool alive(const struct link *l)
{
    return !l->closed && !l->ended;
}

static void end(struct link *l, int err)
{
    if (!alive(l))
        return;
    l->ended = true;
    loop_timer_cancel(l->loop, &l->timer);
    l->owner->down(l, err);
}

static void apply_pause(struct link *l)
{
    bool paused = l->paused || session_stop_reading(l->session);
    if (paused != l->conn_paused) {
        l->conn_paused = paused;
        conn_pause(l->conn, paused);
    }
}

static void arm(struct link *l)
{
    uint64_t at = session_deadline(l->session);
    if (at != LOOP_NEVER && (!loop_timer_armed(&l->timer) || at < l->timer.at_ns))
        loop_timer_set(l->loop, &l->timer, at);
}

/* Tell the owner; it may close the link in any of these calls. */
static void tell_events(struct link *l)
{
    struct yamux_event ev;
    if (session_next(l->session) == SESSION_EV_UP)
        l->owner->up(l);
    struct yamux *mux = session_mux(l->session);
    for (int i = 0; mux != NULL && alive(l) && yamux_next(mux, &ev); i++) {
        l->owner->event(l, &ev);
        if (i == EVENTS_PER_ROUND) {
            loop_task_post(l->loop, &l->task);
            return;
        }
    }
}

/* Something happened: pass it on, then see that output, reading and timer are as they must be. */
static void service(struct link *l)
{
    if (!alive(l))
        return;
    tell_events(l);
    if (session_error(l->session) < 0)
        end(l, session_error(l->session));
    if (!alive(l))
        return;
    apply_pause(l);
    if (session_pending(l->session, l->loop->now_ns) > 0)
        conn_flush(l->conn);
    arm(l);
}

/* ---- from the loop ---- */

static void tick(struct link *l)
{
    if (!alive(l))
        return;
    int rc = session_tick(l->session, l->loop->now_ns);
    if (rc < 0)
        end(l, rc);
    else
        service(l);
}

static void on_task(struct loop_task *t)
{
    struct link *l = container_of(t, struct link, task);
    if (l->closed) {
        session_free(l->session);
        free(l);
        return;
    }
    tick(l);
    if (alive(l) && session_mux(l->session) != NULL)
        yamux_compact(session_mux(l->session));
}

static void on_timer(struct loop_timer *t)
{
    struct link *l = container_of(t, struct link, timer);
    tick(l);
}

/* Only schedules: called from within the environment's own work. */
static void on_ready(void *arg)
{
    struct link *l = arg;
    loop_task_post(l->loop, &l->task);
}

/* ---- from the conn ---- */

static void on_up(void *arg)
{
    (void)arg; /* dialled conns are handed over when they are up */
}

static void on_input(void *arg, struct slice in, uint64_t now_ns)
{
    struct link *l = arg;
    if (!alive(l))
        return;
    int rc = session_input(l->session, in, now_ns);
    if (rc < 0)
        end(l, rc);
    else
        service(l);
    /* Bytes that stay must not pin the read buffer longer than this turn. */
    if (alive(l) && session_mux(l->session) != NULL && yamux_rx_bytes(session_mux(l->session)) > 0)
        loop_task_post(l->loop, &l->task);
}

static int on_output(void *arg, struct iovec *iov, int max, uint64_t now_ns)
{
    struct link *l = arg;
    if (!alive(l))
        return 0;
    int n = session_output(l->session, iov, max, now_ns);
    arm(l); /* from now on the carrier's progress is watched */
    return n;
}

static void on_sent(void *arg, size_t n, uint64_t now_ns)
{
    struct link *l = arg;
    if (!alive(l))
        return;
    session_sent(l->session, n, now_ns);
    if (session_mux(l->session) != NULL && yamux_has_events(session_mux(l->session)))
        loop_task_post(l->loop, &l->task);
    arm(l);
}

static void on_down(void *arg, int err)
{
    end(arg, err);
}

static const struct conn_user user = {on_up, on_input, on_output, on_sent, on_down};

/* ---- the owner's calls ---- */

static struct link *link_make(struct loop *loop, struct conn *conn, const struct session_cfg *cfg,
                              struct session_state *st, const struct link_owner *owner, void *arg)
{
    struct link *l = calloc(1, sizeof *l);
    if (l == NULL)
        goto fail;
    l->loop = loop;
    l->conn = conn;
    l->owner = owner;
    l->arg = arg;
    l->timer.fn = on_timer;
    l->task.fn = on_task;
    struct session_cfg own = *cfg;
    own.ready = on_ready;
    own.arg = l;
    l->session =
        st != NULL ? session_import(&own, st, loop->now_ns) : session_new(&own, loop->now_ns);
    if (l->session == NULL)
        goto fail;
    conn_set_user(conn, &user, l);
    loop_task_post(loop, &l->task); /* first bytes, or an error, and the timer */
    return l;
fail:
    free(l);
    if (st != NULL)
        session_state_wipe(st);
    conn_close(conn);
    return NULL;
}

struct link *link_new(struct loop *loop, struct conn *conn, const struct session_cfg *cfg,
                      const struct link_owner *owner, void *arg)
{
    return link_make(loop, conn, cfg, NULL, owner, arg);
}

struct link *link_import(struct loop *loop, struct conn *conn, const struct session_cfg *cfg,
                         struct session_state *st, const struct link_owner *owner, void *arg)
{
    return link_make(loop, conn, cfg, st, owner, arg);
}

/* Nothing more is heard of it; its memory goes at the end of the turn. */
static void leave(struct link *l)
{
    l->closed = true;
    loop_timer_cancel(l->loop, &l->timer);
    loop_task_post(l->loop, &l->task);
}

int link_export(struct link *l, struct session_state *out, struct conn **conn)
{
    int rc = session_export(l->session, out);
    if (rc < 0)
        return rc;
    *conn = l->conn;
    leave(l);
    return 0;
}

void link_close(struct link *l)
{
    if (l->closed)
        return;
    conn_close(l->conn);
    leave(l);
}

void link_kick(struct link *l)
{
    loop_task_post(l->loop, &l->task);
}

void link_pause(struct link *l, bool paused)
{
    l->paused = paused;
    if (alive(l))
        apply_pause(l);
}

void *link_arg(const struct link *l)
{
    return l->arg;
}

struct session *link_session(const struct link *l)
{
    return l->session;
}

struct yamux *link_mux(const struct link *l)
{
    return session_mux(l->session);
}

const struct pubkey *link_remote(const struct link *l)
{
    return session_remote(l->session);
}

const struct conn *link_conn(const struct link *l)
{
    return l->conn;
}
