#include "compat-http/stream_forward.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/err.h"

#define BACKLOG      1024
#define TURN_ACCEPTS 32
#define REST_NS      (100 * NS_PER_MS) /* when there are no descriptors left */

struct stream_forward {
    struct stream_forward_cfg cfg;
    struct loop *loop;
    struct stream_forward_stat own; /* when the owner has none */
    int fd;
    bool bound;
    struct event *ev;
    struct loop_timer rest;
    struct list dials, carried;
    size_t n_dials;
    struct sockaddr_un sa;
};

struct carried {           /* an open stream whose end the owner wants to know */
    struct list_node node; /* in forward->carried */
    struct stream_forward *forward;
    struct fdbridge *bridge;
};

struct forward_dial {
    struct list_node node; /* in forward->dials */
    struct stream_forward *forward;
    struct stream *st;
    int fd; /* the accepted connection */
};

static void dial_drop(struct forward_dial *d)
{
    list_remove(&d->node);
    d->forward->n_dials--;
    free(d);
}

void stream_forward_free(struct stream_forward *f)
{
    struct forward_dial *d;
    struct carried *c;
    if (f == NULL)
        return;
    while ((c = list_pop_front_as(&f->carried, struct carried, node)) != NULL) {
        fdbridge_forget(c->bridge);
        free(c);
    }
    while ((d = list_first_as(&f->dials, struct forward_dial, node)) != NULL) {
        stream_close(d->st);
        close(d->fd);
        dial_drop(d);
    }
    loop_timer_cancel(f->loop, &f->rest);
    if (f->ev != NULL)
        event_free(f->ev);
    if (f->bound)
        unlink(f->sa.sun_path);
    if (f->fd >= 0)
        close(f->fd);
    free(f);
}

/* ---- connections ---- */

static void tell_failure(struct stream_forward *f, int err, const struct stream *st)
{
    f->cfg.stat->dial_failed++;
    if (f->cfg.failed != NULL)
        f->cfg.failed(f->cfg.arg, err, st);
}

/* Accept again what had to wait. */
static void resume(struct stream_forward *f)
{
    if (f->n_dials < STREAM_FORWARD_DIALS && !loop_timer_armed(&f->rest))
        event_add(f->ev, NULL);
}

static void on_carried(void *arg, int err)
{
    struct carried *c = arg;
    struct stream_forward *f = c->forward;
    list_remove(&c->node);
    free(c);
    if (err != 0)
        f->cfg.broken(f->cfg.arg, err);
}

static int carry(struct stream_forward *f, struct stream *st, int fd)
{
    struct carried *c = f->cfg.broken != NULL ? calloc(1, sizeof(*c)) : NULL;
    if (c == NULL)
        return fdbridge_start(f->cfg.bridges, st, fd);
    c->forward = f;
    int rc = fdbridge_new(f->cfg.bridges, st, fd, fd, on_carried, c, &c->bridge);
    if (rc == 0)
        list_push_back(&f->carried, &c->node);
    else
        free(c);
    return rc;
}

static void on_opened(struct stream *st, void *arg)
{
    struct forward_dial *d = arg;
    struct stream_forward *f = d->forward;
    int fd = d->fd;
    dial_drop(d);
    f->cfg.stat->opened++;
    if (carry(f, st, fd) < 0)
        f->cfg.stat->accept_failed++; /* both are closed */
    resume(f);
}

static void on_ended(struct stream *st, void *arg, int err)
{
    struct forward_dial *d = arg;
    struct stream_forward *f = d->forward;
    tell_failure(f, err, st);
    stream_close(st);
    close(d->fd);
    dial_drop(d);
    resume(f);
}

static const struct stream_cb dial_cb = {.opened = on_opened, .ended = on_ended};

static void take(struct stream_forward *f, int fd)
{
    struct forward_dial *d = calloc(1, sizeof(*d));
    int rc = d != NULL ? client_dial(f->cfg.client, &f->cfg.pk, f->cfg.port, f->cfg.timeout_ms,
                                     f->cfg.flags, &dial_cb, d, &d->st)
                       : ERR_NOMEM;
    if (rc < 0) {
        tell_failure(f, rc, NULL);
        free(d);
        close(fd);
        return;
    }
    if (!pubkey_is_null(&f->cfg.via))
        client_dial_through(d->st, &f->cfg.via);
    d->forward = f;
    d->fd = fd;
    list_push_back(&f->dials, &d->node);
    f->n_dials++;
}

static void on_rested(struct loop_timer *t)
{
    resume(container_of(t, struct stream_forward, rest));
}

static void on_connection(evutil_socket_t listen_fd, short what, void *arg)
{
    struct stream_forward *f = arg;
    (void)what;
    drive_loop_now(f->cfg.drive);
    for (int i = 0; i < TURN_ACCEPTS && f->n_dials < STREAM_FORWARD_DIALS; i++) {
        int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            f->cfg.stat->accepted++;
            take(f, fd);
            continue;
        }
        if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)
            break;
        f->cfg.stat->accept_failed++;
        loop_timer_set(f->loop, &f->rest, f->loop->now_ns + REST_NS);
        return;
    }
    resume(f);
}

/* ---- the socket ---- */

static int open_socket(struct stream_forward *f, const char *path)
{
    if (strlen(path) >= sizeof(f->sa.sun_path))
        return ERR_TOO_LONG;
    f->sa.sun_family = AF_UNIX;
    memcpy(f->sa.sun_path, path, strlen(path));
    f->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (f->fd < 0 || bind(f->fd, (struct sockaddr *)&f->sa, sizeof(f->sa)) < 0)
        return err_sys();
    f->bound = true;
    if (listen(f->fd, BACKLOG) < 0)
        return err_sys();
    f->ev = event_new(drive_loop_base(f->cfg.drive), f->fd, EV_READ, on_connection, f);
    return f->ev != NULL && event_add(f->ev, NULL) == 0 ? 0 : ERR_NOMEM;
}

int stream_forward_new(struct stream_forward **out, const struct stream_forward_cfg *cfg,
                       const char *path)
{
    struct stream_forward *f = calloc(1, sizeof(*f));
    *out = NULL;
    if (f == NULL)
        return ERR_NOMEM;
    f->cfg = *cfg;
    f->loop = drive_loop_loop(cfg->drive);
    if (f->cfg.stat == NULL)
        f->cfg.stat = &f->own;
    f->fd = -1;
    f->rest.fn = on_rested;
    list_init(&f->dials);
    list_init(&f->carried);
    int rc = open_socket(f, path);
    if (rc < 0) {
        stream_forward_free(f);
        return rc;
    }
    *out = f;
    return 0;
}

const char *stream_forward_path(const struct stream_forward *f)
{
    return f->sa.sun_path;
}
