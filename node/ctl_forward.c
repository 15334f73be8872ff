/*
 * ctl_forward - the command "forward": a unix socket of which every accepted connection becomes a new stream to one pk:port.
 *
 * The answers are events: {"event": "forwarding", "path"} first, {"event": "failed", "error", "exit", "code"} for each dial that failed (sent before its connection is
 * closed, so that who sees the close finds the reason). The socket lives as long as the request; what is bridged already lives on.
 *
 * Limits: FORWARDS per node; FORWARD_DIALS dials under way for each, then the rest waits in the socket's backlog. A dial has the request's timeout_ms.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/err.h"
#include "node/node_int.h"

#define FORWARDS      1024
#define FORWARD_DIALS 256
#define BACKLOG       1024
#define TURN_ACCEPTS  32
#define REST_NS       (100 * NS_PER_MS) /* when there are no descriptors left */

struct forward {
    struct list_node node; /* in node->forwards */
    struct node *owner;
    struct ctl_req *req;
    struct pubkey pk;
    uint16_t port;
    unsigned timeout_ms, flags; /* of client_dial() */
    struct pubkey via;          /* the only relay to go through; null = any */
    int fd;
    struct event *ev;
    struct loop_timer rest;
    struct list dials;
    size_t n_dials;
    struct sockaddr_un sa;
};

struct forward_dial {
    struct list_node node; /* in forward->dials */
    struct forward *forward;
    struct stream *st;
    int fd; /* the accepted connection */
};

static void dial_drop(struct forward_dial *d)
{
    list_remove(&d->node);
    d->forward->n_dials--;
    free(d);
}

static void forward_free(struct forward *f)
{
    struct forward_dial *d;
    while ((d = list_first_as(&f->dials, struct forward_dial, node)) != NULL) {
        stream_close(d->st);
        close(d->fd);
        dial_drop(d);
    }
    loop_timer_cancel(f->owner->loop, &f->rest);
    if (f->ev != NULL)
        event_free(f->ev);
    if (f->fd >= 0) {
        if (f->sa.sun_path[0] != '\0')
            unlink(f->sa.sun_path);
        close(f->fd);
    }
    list_remove(&f->node);
    f->owner->forward_stat.forwards--;
    free(f);
}

static void forward_gone(struct ctl_req *req)
{
    forward_free(req->user);
}

/* ---- connections ---- */

static void tell_failure(struct forward *f, int err, const struct stream *st)
{
    char pk[PUBKEY_HEX + 1], steps[600] = "";
    size_t n = 0;
    const struct client_step *s = st != NULL ? stream_dial_steps(st, &n) : NULL;
    f->owner->forward_stat.dial_failed++;
    if (!ctl_row_room(f->req))
        return; /* the tool does not listen; its connection still ends */
    if (n > 0)
        client_steps_text(s, n, steps, sizeof(steps));
    char text[900];
    snprintf(text, sizeof(text), "dial %s:%u: %s%s%s%s", pubkey_hex(pk, &f->pk), f->port,
             err_str(err), n > 0 ? " (" : "", steps, n > 0 ? ")" : "");
    ctl_event(f->req,
              json_pack("{s:s, s:s, s:i, s:i}", "event", "failed", "error", text, "exit",
                        err_exit_code(err), "code", err),
              -1);
}

/* Accept again what had to wait. */
static void resume(struct forward *f)
{
    if (f->n_dials < FORWARD_DIALS && !loop_timer_armed(&f->rest))
        event_add(f->ev, NULL);
}

static void on_opened(struct stream *st, void *arg)
{
    struct forward_dial *d = arg;
    struct forward *f = d->forward;
    int fd = d->fd;
    dial_drop(d);
    f->owner->forward_stat.opened++;
    if (fdbridge_start(&f->owner->bridges, st, fd) < 0)
        f->owner->forward_stat.accept_failed++; /* both are closed */
    resume(f);
}

static void on_ended(struct stream *st, void *arg, int err)
{
    struct forward_dial *d = arg;
    struct forward *f = d->forward;
    tell_failure(f, err, st);
    stream_close(st);
    close(d->fd);
    dial_drop(d);
    resume(f);
}

static const struct stream_cb dial_cb = {.opened = on_opened, .ended = on_ended};

static void take(struct forward *f, int fd)
{
    struct forward_dial *d = calloc(1, sizeof(*d));
    int rc = d != NULL ? client_dial(f->owner->client, &f->pk, f->port, f->timeout_ms, f->flags,
                                     &dial_cb, d, &d->st)
                       : ERR_NOMEM;
    if (rc < 0) {
        tell_failure(f, rc, NULL);
        free(d);
        close(fd);
        return;
    }
    if (!pubkey_is_null(&f->via))
        client_dial_through(d->st, &f->via);
    d->forward = f;
    d->fd = fd;
    list_push_back(&f->dials, &d->node);
    f->n_dials++;
}

static void on_rested(struct loop_timer *t)
{
    resume(container_of(t, struct forward, rest));
}

static void on_connection(evutil_socket_t listen_fd, short what, void *arg)
{
    struct forward *f = arg;
    (void)what;
    drive_loop_now(f->owner->drive);
    for (int i = 0; i < TURN_ACCEPTS && f->n_dials < FORWARD_DIALS; i++) {
        int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            f->owner->forward_stat.accepted++;
            take(f, fd);
            continue;
        }
        if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)
            break;
        f->owner->forward_stat.accept_failed++;
        loop_timer_set(f->owner->loop, &f->rest, f->owner->loop->now_ns + REST_NS);
        return;
    }
    resume(f);
}

/* ---- the socket ---- */

static int socket_path(struct node *n, struct sockaddr_un *sa)
{
    char path[PATHS_MAX], name[24];
    int rc = fresh_dir_make(&n->forward_dir);
    snprintf(name, sizeof(name), "%llu", (unsigned long long)++n->forward_stat.made);
    if (rc == 0)
        rc = paths_join(path, n->forward_dir.path, name);
    if (rc == 0 && strlen(path) >= sizeof(sa->sun_path))
        rc = -ENAMETOOLONG;
    *sa = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (rc == 0)
        memcpy(sa->sun_path, path, strlen(path));
    return rc;
}

static int forward_open(struct forward *f)
{
    int rc = socket_path(f->owner, &f->sa);
    if (rc < 0)
        return rc;
    f->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (f->fd < 0 || bind(f->fd, (struct sockaddr *)&f->sa, sizeof(f->sa)) < 0 ||
        listen(f->fd, BACKLOG) < 0)
        return err_sys();
    f->ev = event_new(drive_loop_base(f->owner->drive), f->fd, EV_READ, on_connection, f);
    return f->ev != NULL && event_add(f->ev, NULL) == 0 ? 0 : ERR_NOMEM;
}

static struct forward *forward_new(struct ctl_req *req)
{
    struct node *n = req->node_arg;
    struct forward *f = n->forward_stat.forwards < FORWARDS ? calloc(1, sizeof(*f)) : NULL;
    if (f == NULL)
        return NULL;
    f->owner = n;
    f->req = req;
    f->fd = -1;
    f->rest.fn = on_rested;
    list_init(&f->dials);
    list_push_back(&n->forwards, &f->node);
    n->forward_stat.forwards++;
    return f;
}

void ctl_forward(struct ctl_req *req)
{
    struct pubkey pk, via = {0};
    json_int_t port;
    unsigned timeout_ms;
    bool through = json_object_get(req->args, "via") != NULL;
    if (ctl_arg_pubkey(req, "pk", &pk) < 0 || (through && ctl_arg_pubkey(req, "via", &via) < 0) ||
        ctl_arg_timeout(req, &timeout_ms) < 0 ||
        ctl_arg_range(req, "port", 1, 65535, 80, &port) < 0)
        return;
    struct forward *f = forward_new(req);
    if (f == NULL) {
        ctl_fail(req, ERR_LIMIT, "forward: more than %d at once", FORWARDS);
        return;
    }
    f->pk = pk;
    f->via = via;
    f->port = (uint16_t)port;
    f->timeout_ms = timeout_ms;
    f->flags = node_dial_flags(f->owner, req);
    int rc = forward_open(f);
    if (rc < 0) {
        forward_free(f);
        ctl_fail(req, rc, "forward: socket below the run directory: %s", err_str(rc));
        return;
    }
    req->user = f;
    req->gone = forward_gone;
    ctl_event(req, json_pack("{s:s, s:s}", "event", "forwarding", "path", f->sa.sun_path), -1);
}
