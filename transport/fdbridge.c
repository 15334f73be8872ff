#include "transport/fdbridge.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"

#define READ_SIZE  (64u * 1024u)
#define HIGH       (64u * 1024u)  /* waiting for the descriptor */
#define TURN_BYTES (256u * 1024u) /* of one direction in one callback */
#define IOV_OUT    16
#define HUP_NS     (5 * NS_PER_S)

struct fdbridge {
    struct fdbridges *set;
    struct list_node node; /* in set->all */
    struct stream *st;
    int in_fd, out_fd; /* -1: closed */
    int in_flags, out_flags;
    struct event *in_ev, *out_ev;
    struct bufq out; /* read from the stream, waiting for out_fd */
    uint8_t *held;   /* read from in_fd, and the stream had no buffers for it */
    size_t held_n;
    bool in_file, out_file; /* always ready, and no event tells */
    bool out_sock;
    bool local;    /* one unix socket for both directions */
    bool out_gone; /* nobody reads there any more: what still comes is dropped */
    bool in_eof;   /* FIN was sent to the stream */
    bool out_eof;  /* its FIN was passed on */
    bool ended;
    int err;
    fdbridge_done_fn *done;
    void *arg;
    struct loop_task end_task;
    struct loop_timer hup_timer;
};

static struct loop *loop_of(const struct fdbridge *b)
{
    return drive_loop_loop(b->set->drive);
}

/* Ask for the next turn of one direction. Nothing tells when a file is ready: it always is. */
static void again(struct event *ev, bool file)
{
    if (file)
        event_active(ev, EV_TIMEOUT, 0);
    else
        event_add(ev, NULL);
}

/* ---- the end ---- */

static void fd_give_back(int *fd, int flags)
{
    if (*fd < 0)
        return;
    if (flags >= 0 && *fd <= STDERR_FILENO)
        (void)fcntl(*fd, F_SETFL, flags);
    close(*fd);
    *fd = -1;
}

/* Nothing moves any more; the descriptors stay until done() was called. */
static void stop(struct fdbridge *b)
{
    if (b->in_ev != NULL)
        event_del(b->in_ev);
    if (b->out_ev != NULL)
        event_del(b->out_ev);
    bufq_clear(&b->out);
    free(b->held);
    b->held = NULL;
    loop_timer_cancel(loop_of(b), &b->hup_timer);
}

static void fds_close(struct fdbridge *b)
{
    if (b->in_fd == b->out_fd)
        b->out_fd = -1;
    fd_give_back(&b->in_fd, b->in_flags);
    fd_give_back(&b->out_fd, b->out_flags);
}

static void unlist(struct fdbridge *b)
{
    list_remove(&b->node);
    b->set->n--;
}

/* It is not in the set any more. */
static void bridge_free(struct fdbridge *b)
{
    stop(b);
    fds_close(b);
    if (b->st != NULL)
        stream_abort(b->st);
    if (b->in_ev != NULL)
        event_free(b->in_ev);
    if (b->out_ev != NULL)
        event_free(b->out_ev);
    loop_task_cancel(loop_of(b), &b->end_task);
    free(b);
}

static void end_now(struct loop_task *t)
{
    struct fdbridge *b = container_of(t, struct fdbridge, end_task);

    unlist(b);
    if (b->done != NULL)
        b->done(b->arg, b->err);
    bridge_free(b);
}

/* orderly: what the stream took goes out; else it is reset. */
static void bridge_end(struct fdbridge *b, int err, bool orderly)
{
    if (b->ended)
        return;
    b->ended = true;
    b->err = err;
    stop(b);
    if (orderly)
        stream_close(b->st);
    else
        stream_abort(b->st);
    b->st = NULL;
    loop_task_post(loop_of(b), &b->end_task);
}

static void done_check(struct fdbridge *b)
{
    if (b->in_eof && b->out_eof)
        bridge_end(b, 0, true);
}

/* ---- stream to descriptor ---- */

/* Passes FIN on. One descriptor for both is shut down for writing only. */
static void out_finish(struct fdbridge *b)
{
    b->out_eof = true;
    if (b->in_fd == b->out_fd)
        (void)shutdown(b->out_fd, SHUT_WR);
    else
        fd_give_back(&b->out_fd, b->out_flags);
    done_check(b);
}

static ssize_t write_out(struct fdbridge *b)
{
    struct iovec iov[IOV_OUT];
    struct msghdr msg = {.msg_iov = iov};
    int n = bufq_iov(&b->out, iov, IOV_OUT);

    if (!b->out_sock)
        return writev(b->out_fd, iov, n);
    msg.msg_iovlen = (size_t)n;
    return sendmsg(b->out_fd, &msg, MSG_NOSIGNAL);
}

/* The other end of a unix socket was closed before it had read everything. What it has said before is
 * wanted all the same: servers answer and close when they do not like a request. */
static bool closed_early(const struct fdbridge *b, int errnum)
{
    return b->local && !b->in_eof && (errnum == EPIPE || errnum == ECONNRESET);
}

static void out_drop(struct fdbridge *b)
{
    b->out_gone = true;
    do
        bufq_clear(&b->out);
    while (stream_read_q(b->st, &b->out, HIGH) > 0);
    b->out_eof = stream_eof(b->st);
    done_check(b);
}

static void out_pump(struct fdbridge *b)
{
    size_t budget = TURN_BYTES;

    while (!b->ended && !b->out_eof && budget > 0) {
        if (bufq_len(&b->out) < HIGH)
            (void)stream_read_q(b->st, &b->out, HIGH - bufq_len(&b->out));
        if (bufq_len(&b->out) == 0) {
            if (stream_eof(b->st))
                out_finish(b);
            return; /* readable() follows */
        }
        ssize_t n = write_out(b);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0) {
            if (closed_early(b, errno))
                out_drop(b);
            else
                bridge_end(b, err_sys(), false);
            return;
        }
        bufq_consume(&b->out, (size_t)n);
        budget = budget > (size_t)n ? budget - (size_t)n : 0;
    }
    if (!b->ended && !b->out_eof)
        again(b->out_ev, b->out_file);
}

static void on_out(evutil_socket_t fd, short what, void *arg)
{
    struct fdbridge *b = arg;

    (void)fd, (void)what;
    drive_loop_now(b->set->drive);
    out_pump(b);
}

/* ---- descriptor to stream ---- */

/* Whether all holders of the other end of our socket are gone. */
static bool hung_up(const struct fdbridge *b)
{
    struct pollfd p = {.fd = b->in_fd, .events = 0};

    return b->in_fd == b->out_fd && poll(&p, 1, 0) == 1 && (p.revents & (POLLHUP | POLLERR)) != 0;
}

static void on_hup_timer(struct loop_timer *t)
{
    struct fdbridge *b = container_of(t, struct fdbridge, hup_timer);

    if (hung_up(b))
        bridge_end(b, 0, true);
    else
        loop_timer_set(loop_of(b), t, loop_of(b)->now_ns + HUP_NS);
}

static void in_finish(struct fdbridge *b)
{
    b->in_eof = true;
    (void)stream_shutdown(b->st);
    if (!b->out_eof && hung_up(b)) {
        bridge_end(b, 0, true); /* nobody will read the answer */
        return;
    }
    if (b->in_fd == b->out_fd)
        loop_timer_set(loop_of(b), &b->hup_timer, loop_of(b)->now_ns + HUP_NS);
    else
        fd_give_back(&b->in_fd, b->in_flags);
    done_check(b);
}

/* False: not all of it was taken; the rest is kept until writable(). */
static bool to_stream(struct fdbridge *b, const uint8_t *p, size_t n)
{
    long taken = stream_write(b->st, p, n);

    if (taken < 0) {
        bridge_end(b, (int)taken, false);
        return false;
    }
    size_t left = n - (size_t)taken;
    uint8_t *held = left > 0 ? malloc(left) : NULL;
    if (held != NULL)
        memcpy(held, p + taken, left);
    else if (left > 0)
        bridge_end(b, ERR_NOMEM, false);
    free(b->held);
    b->held = held;
    b->held_n = left;
    return left == 0;
}

/* One read. False: nothing more for now. */
static bool in_some(struct fdbridge *b, size_t *budget)
{
    uint8_t buf[READ_SIZE];
    size_t room = stream_writable(b->st);

    if (room == 0) {
        stream_want_write(b->st);
        return false;
    }
    ssize_t n = read(b->in_fd, buf, room < sizeof buf ? room : sizeof buf);
    if (n > 0) {
        *budget = *budget > (size_t)n ? *budget - (size_t)n : 0;
        return to_stream(b, buf, (size_t)n);
    }
    if (n == 0 || closed_early(b, errno))
        in_finish(b);
    else if (errno == EAGAIN)
        again(b->in_ev, b->in_file);
    else if (errno == EINTR)
        return true;
    else
        bridge_end(b, err_sys(), false);
    return false;
}

static void in_pump(struct fdbridge *b)
{
    size_t budget = TURN_BYTES;

    if (b->ended || b->in_eof || (b->held != NULL && !to_stream(b, b->held, b->held_n)))
        return;
    while (budget > 0) {
        if (!in_some(b, &budget))
            return;
    }
    again(b->in_ev, b->in_file);
}

static void on_in(evutil_socket_t fd, short what, void *arg)
{
    struct fdbridge *b = arg;

    (void)fd, (void)what;
    drive_loop_now(b->set->drive);
    in_pump(b);
}

/* ---- the stream's news ---- */

static void on_readable(struct stream *st, void *arg)
{
    struct fdbridge *b = arg;

    (void)st;
    if (b->out_gone) {
        out_drop(b);
        return;
    }
    /* While the descriptor is full its event does the work. */
    if (!b->out_eof && !event_pending(b->out_ev, EV_WRITE | EV_TIMEOUT, NULL))
        out_pump(b);
}

static void on_writable(struct stream *st, void *arg)
{
    (void)st;
    in_pump(arg);
}

/* Behind its FIN all that it had to say was said. */
static void on_ended(struct stream *st, void *arg, int err)
{
    struct fdbridge *b = arg;

    (void)st;
    bridge_end(b, b->out_eof ? 0 : err, false);
}

static const struct stream_cb stream_user = {NULL, on_readable, on_writable, on_ended};

/* ---- making one ---- */

static int fd_prepare(int fd, int *flags)
{
    *flags = fcntl(fd, F_GETFL);
    if (*flags < 0 || fcntl(fd, F_SETFL, *flags | O_NONBLOCK) < 0)
        return err_sys();
    return 0;
}

/* Regular files and most devices can't be waited for. */
static bool is_file(int fd, bool *sock)
{
    struct stat s;

    *sock = false;
    if (fstat(fd, &s) != 0)
        return false;
    *sock = S_ISSOCK(s.st_mode);
    return S_ISREG(s.st_mode) || (S_ISCHR(s.st_mode) && !isatty(fd));
}

static int events_make(struct fdbridge *b)
{
    struct event_base *base = drive_loop_base(b->set->drive);
    bool sock;

    int domain = AF_UNSPEC;
    socklen_t n = sizeof domain;

    b->local = b->in_fd == b->out_fd &&
               getsockopt(b->in_fd, SOL_SOCKET, SO_DOMAIN, &domain, &n) == 0 && domain == AF_UNIX;
    b->in_file = is_file(b->in_fd, &sock);
    b->out_file = is_file(b->out_fd, &b->out_sock);
    b->in_ev = event_new(base, b->in_file ? -1 : b->in_fd, EV_READ, on_in, b);
    b->out_ev = event_new(base, b->out_file ? -1 : b->out_fd, EV_WRITE, on_out, b);
    if (b->in_ev == NULL || b->out_ev == NULL)
        return ERR_NOMEM;
    again(b->in_ev, b->in_file);
    return 0;
}

int fdbridge_new(struct fdbridges *set, struct stream *st, int in_fd, int out_fd,
                 fdbridge_done_fn *done, void *arg, struct fdbridge **out)
{
    struct fdbridge *b = calloc(1, sizeof *b);

    *out = NULL;
    if (b == NULL) {
        stream_abort(st);
        close(in_fd);
        if (out_fd != in_fd)
            close(out_fd);
        return ERR_NOMEM;
    }
    *b = (struct fdbridge){.set = set, .st = st, .in_fd = in_fd, .out_fd = out_fd};
    b->in_flags = b->out_flags = -1;
    b->done = done;
    b->arg = arg;
    b->end_task.fn = end_now;
    b->hup_timer.fn = on_hup_timer;
    bufq_init(&b->out, stream_pool(st));
    list_push_back(&set->all, &b->node);
    set->n++;
    int rc = fd_prepare(in_fd, &b->in_flags);
    if (rc == 0 && out_fd != in_fd)
        rc = fd_prepare(out_fd, &b->out_flags);
    if (rc == 0)
        rc = events_make(b);
    if (rc != 0) {
        fdbridge_close(b);
        return rc;
    }
    stream_set_cb(st, &stream_user, b);
    *out = b;
    return 0;
}

int fdbridge_start(struct fdbridges *set, struct stream *st, int fd)
{
    struct fdbridge *b;

    return fdbridge_new(set, st, fd, fd, NULL, NULL, &b);
}

void fdbridge_forget(struct fdbridge *b)
{
    b->done = NULL;
}

void fdbridge_close(struct fdbridge *b)
{
    unlist(b);
    bridge_free(b);
}

void fdbridges_init(struct fdbridges *set, struct drive_loop *drive)
{
    set->drive = drive;
    set->n = 0;
    list_init(&set->all);
}

void fdbridges_close(struct fdbridges *set)
{
    struct fdbridge *b;

    while ((b = list_first_as(&set->all, struct fdbridge, node)) != NULL)
        fdbridge_close(b);
}
