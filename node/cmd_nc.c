#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/err.h"
#include "node/cmds.h"
#include "node/ready.h"
#include "node/tool_compat.h"

#define PIECE        65536
#define STREAMS      256  /* of nc -l at once */
#define LAST_WORD_MS 5000 /* of the node, when both directions have ended */
#define POLL_MS      500  /* a signal that comes just before poll() is seen then */

struct nc_opts {
    struct tool_opts conn;
    struct tool_compat compat;
    const char *target;
    uint16_t listen;
    bool echo, ready;
};

/* ---- one direction of a copy ---- */

struct copy {
    int from, to;
    bool to_is_socket;
    char buf[PIECE];
    size_t have, done;
    bool eof, closed; /* read to the end / end passed on */
};

static int copy_read(struct copy *c)
{
    ssize_t n = read(c->from, c->buf, sizeof(c->buf));
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : err_sys();
    c->eof = n == 0;
    c->have = n > 0 ? (size_t)n : 0;
    c->done = 0;
    return 0;
}

static int copy_write(struct copy *c)
{
    ssize_t n = write(c->to, c->buf + c->done, c->have - c->done);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : err_sys();
    c->done += (size_t)n;
    return 0;
}

/* The end of the input goes on as the end of this direction only. */
static void copy_finish(struct copy *c)
{
    if (!c->eof || c->closed || c->done < c->have)
        return;
    c->closed = true;
    if (c->to_is_socket)
        shutdown(c->to, SHUT_WR);
}

static int copy_step(struct copy *c, short readable, short writable)
{
    int rc = 0;
    if (c->done < c->have) {
        if (writable != 0)
            rc = copy_write(c);
    } else if (!c->eof && readable != 0) {
        rc = copy_read(c);
    }
    copy_finish(c);
    return rc;
}

static volatile sig_atomic_t stop_asked;

/* The peer takes no more: what it still sends is wanted all the same. */
static int up_step(struct copy *up, const struct pollfd p[2])
{
    int rc = copy_step(up, p[0].revents, p[1].revents);
    if (rc != -EPIPE)
        return rc;
    up->eof = up->closed = true;
    up->have = up->done = 0;
    return 0;
}

/* What the node says of the stream (0: of the one of our dial): -1 nothing yet, else the exit code. */
static int watch_event(struct tool *t, json_int_t stream, int timeout_ms)
{
    json_t *ev = NULL;
    int fd = -1, rc = tool_event(t, timeout_ms, &ev, &fd);
    if (rc != 0)
        return rc; /* told already */
    bool ours = stream != 0 && tool_num(ev, "stream") == stream;
    if (stream == 0 && json_is_true(json_object_get(ev, "ok")))
        rc = 0;
    else if (ours && strcmp(tool_str(ev, "event"), "ended") == 0)
        rc = tool_fail((int)tool_num(ev, "code"), "%s", tool_str(ev, "error"));
    else
        rc = -1;
    if (fd >= 0)
        close(fd); /* one stream at a time */
    json_decref(ev);
    return rc;
}

/* Both directions are over: was that in order? */
static int watch_last(struct tool *t, json_int_t stream)
{
    struct pollfd p = {tool_fd(t), POLLIN, 0};
    int wait_ms = stream == 0 ? LAST_WORD_MS : 0, rc = -1;
    while (rc < 0 && poll(&p, 1, wait_ms) == 1)
        rc = watch_event(t, stream, 0);
    return rc < 0 ? 0 : rc;
}

/* Standard input to the stream and back, until both directions have ended, or the node says that the
 * stream broke. */
static int relay_stdio(struct tool *t, json_int_t stream, int fd)
{
    static struct copy up, down;
    up = (struct copy){.from = STDIN_FILENO, .to = fd, .to_is_socket = true};
    down = (struct copy){.from = fd, .to = STDOUT_FILENO};
    signal(SIGPIPE, SIG_IGN);
    fcntl(fd, F_SETFL, O_NONBLOCK); /* waiting to write must not keep from reading */
    int rc = 0;
    while (rc == 0 && !stop_asked && !(up.closed && down.closed)) {
        struct pollfd p[5] = {
            {!up.eof && up.done == up.have ? up.from : -1, POLLIN, 0},
            {up.done < up.have ? up.to : -1, POLLOUT, 0},
            {!down.eof && down.done == down.have ? down.from : -1, POLLIN, 0},
            {down.done < down.have ? down.to : -1, POLLOUT, 0},
            {down.eof && down.done == down.have ? tool_fd(t) : -1, POLLIN, 0},
        };
        if (poll(p, 5, POLL_MS) < 0) {
            if (errno != EINTR)
                return tool_fail(err_sys(), "poll: %s", strerror(errno));
            continue;
        }
        rc = up_step(&up, p);
        if (rc == 0)
            rc = copy_step(&down, p[2].revents, p[3].revents);
        int ended = rc == 0 && p[4].revents != 0 ? watch_event(t, stream, 0) : -1;
        if (ended >= 0)
            return ended;
    }
    if (rc < 0)
        return tool_fail(rc, "stream: %s", err_str(rc));
    return stop_asked ? 0 : watch_last(t, stream);
}

/* ---- dial ---- */

/* A stream whose end the node tells of. The exit code. */
static int dial_watched(struct tool *t, json_t *req, int *fd)
{
    json_t *ev = NULL;
    json_object_set_new(req, "watch", json_true());
    tool_route(t, req);
    int rc = tool_send(t, req);
    if (rc == 0)
        rc = tool_event(t, -1, &ev, fd);
    json_decref(ev);
    return rc != 0 || *fd >= 0 ? rc : tool_fail(ERR_FORMAT, "the node's answer cannot be read");
}

static int dial(struct cmdline *cl, struct nc_opts *o)
{
    struct addr_dmsg to;
    struct tool *t;
    char pk[PUBKEY_HEX + 1];
    const char *why = NULL;
    int fd = -1;
    if (addr_dmsg_parse(&to, o->target, strlen(o->target), &why) < 0)
        return cmdline_usage_error(cl, "PK:PORT: %s: %s", o->target, why);
    int rc = tool_compat_open(&t, cl, &o->compat, &o->conn, NULL, TOOL_SESSION);
    if (rc == 0) {
        json_t *req = json_pack("{s:s, s:s, s:i, s:I}", "cmd", "dial", "pk", pubkey_hex(pk, &to.pk),
                                "port", (int)to.port, "timeout_ms", (json_int_t)tool_timeout_ms(t));
        rc = dial_watched(t, req, &fd);
    }
    if (rc == 0)
        rc = relay_stdio(t, 0, fd);
    if (fd >= 0)
        close(fd);
    tool_close(t);
    return rc;
}

/* ---- listen ---- */

static void on_signal(int sig)
{
    (void)sig;
    stop_asked = 1;
}

struct echo {
    struct copy *copies[STREAMS];
    size_t n;
};

static void echo_drop(struct echo *e, size_t i)
{
    close(e->copies[i]->from);
    free(e->copies[i]);
    e->copies[i] = e->copies[--e->n];
}

static void echo_add(struct echo *e, int fd)
{
    struct copy *c = e->n < STREAMS ? calloc(1, sizeof(*c)) : NULL;
    if (c == NULL) {
        close(fd);
        return;
    }
    fcntl(fd, F_SETFL, O_NONBLOCK);
    c->from = c->to = fd;
    c->to_is_socket = true;
    e->copies[e->n++] = c;
}

static void echo_step(struct echo *e, const struct pollfd *p)
{
    for (size_t i = e->n; i-- > 0;) {
        struct copy *c = e->copies[i];
        if (copy_step(c, p[i].revents & (POLLIN | POLLHUP | POLLERR),
                      p[i].revents & (POLLOUT | POLLERR)) < 0 ||
            c->closed)
            echo_drop(e, i);
    }
}

static void print_listening(const struct nc_opts *o, const json_t *ev)
{
    const char *pk = json_string_value(json_object_get(ev, "public_key"));
    int port = (int)json_integer_value(json_object_get(ev, "port"));
    struct pubkey key;
    if (o->ready && pubkey_from_hex(&key, pk, strlen(pk)) == 0)
        ready_print(&key, (uint16_t)port);
    fprintf(stderr, "listening on %s:%d\n", pk, port);
}

/* One event of the node. Returns the exit code, or -1 to go on. */
static int on_event(const struct nc_opts *o, struct tool *t, struct echo *e)
{
    json_t *ev = NULL;
    int fd = -1, rc = tool_event(t, -1, &ev, &fd);
    if (rc != 0)
        return rc;
    const char *name = json_string_value(json_object_get(ev, "event"));
    if (name != NULL && strcmp(name, "listening") == 0)
        print_listening(o, ev);
    json_int_t stream = tool_num(ev, "stream");
    json_decref(ev);
    if (fd < 0)
        return -1;
    if (o->echo) {
        echo_add(e, fd);
        return -1;
    }
    rc = relay_stdio(t, stream, fd);
    close(fd);
    return rc;
}

static int serve(const struct nc_opts *o, struct tool *t)
{
    static struct echo e;
    int rc = -1;
    while (rc < 0 && !stop_asked) {
        struct pollfd p[STREAMS + 1];
        size_t n = e.n;
        for (size_t i = 0; i < n; i++)
            p[i] = (struct pollfd){e.copies[i]->from,
                                   e.copies[i]->done < e.copies[i]->have ? POLLOUT : POLLIN, 0};
        p[n] = (struct pollfd){tool_fd(t), POLLIN, 0};
        if (poll(p, n + 1, POLL_MS) <= 0)
            continue;
        echo_step(&e, p);
        if (p[n].revents != 0)
            rc = on_event(o, t, &e);
    }
    while (e.n > 0)
        echo_drop(&e, 0);
    return rc < 0 ? 0 : rc;
}

static int listen_on(struct cmdline *cl, struct nc_opts *o)
{
    struct tool *t;
    struct sigaction sa = {.sa_handler = on_signal};
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    signal(SIGPIPE, SIG_IGN);
    int rc = tool_compat_open(&t, cl, &o->compat, &o->conn, NULL, TOOL_REACHABLE);
    if (rc == 0)
        rc = tool_send(t, json_pack("{s:s, s:i, s:b}", "cmd", "listen", "port", (int)o->listen,
                                    "watch", !o->echo));
    if (rc == 0)
        rc = serve(o, t);
    tool_close(t);
    return rc;
}

/* ---- the command ---- */

static int run(struct cmdline *cl)
{
    struct nc_opts *o = cl->opts;
    if (o->listen == 0 && o->target == NULL)
        return cmdline_usage_error(cl, "PK:PORT or -l PORT is missing");
    if (o->listen != 0 && o->target != NULL)
        return cmdline_usage_error(cl, "PK:PORT and -l exclude each other");
    return o->listen != 0 ? listen_on(cl, o) : dial(cl, o);
}

static const struct cmd_opt args[] = {{.name = "PK:PORT",
                                       CMD_STR_AT(struct nc_opts, target),
                                       .optional = true,
                                       .help = "where to connect to"},
                                      {0}};
static const struct cmd_opt flags[] = {
    {.name = "listen",
     .letter = 'l',
     CMD_PORT_AT(struct nc_opts, listen),
     .help = "accept a stream on this port instead"},
    {.name = "echo",
     CMD_FLAG_AT(struct nc_opts, echo),
     .help = "with -l: send back what comes, any number of streams at once"},
    {.name = "ready",
     CMD_FLAG_AT(struct nc_opts, ready),
     .help = "with -l: print one JSON line on stdout when it listens"},
    {0}};
static const struct cmd_group groups[] = {
    {"Connection flags", tool_flags, offsetof(struct nc_opts, conn)},
    {TOOL_COMPAT_TITLE, tool_compat_flags_no_l, offsetof(struct nc_opts, compat)},
    {0}};

const struct cmd cmd_nc = {
    .name = "nc",
    .help = "a stream to standard input and output",
    .about = "The end of standard input is passed on as the end of that direction; the other one "
             "goes on until the peer ends it too. Through a Go relay, and to Go peers, a "
             "half-closed stream is closed whole: what is still under way in the other direction "
             "is lost there.",
    .args = args,
    .opts = flags,
    .groups = groups,
    .opts_size = sizeof(struct nc_opts),
    .run = run,
};
