#include "apps/splice.h"

#include <errno.h>
#include <event2/event_struct.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/env_sys.h"
#include "base/err.h"
#include "base/loop.h"

#define TURN_BYTES (256u * 1024u) /* of one direction in one callback */

/* One direction. */
struct way {
    struct splice *s;
    int from, to, index;
    struct event in, out;
    struct evbuffer *wait; /* read, not yet written */
    bool eof;              /* nothing more is read */
    bool closed;           /* the end was passed on, or nobody wants it */
    uint64_t moved_ns;     /* last byte written, or first one that waits */
};

struct splice {
    struct list_node node; /* in set->all */
    struct splices *set;
    struct way way[2];
    bool ended;
    int err;
    splice_filter_fn *filter;
    splice_done_fn *done;
    void *arg;
};

int splices_init(struct splices *set, struct event_base *base)
{
    *set = (struct splices){
        .base = base,
        .idle_ns = 3600 * NS_PER_S,
        .half_ns = 300 * NS_PER_S,
        .stall_ns = 300 * NS_PER_S,
        .piece = malloc(SPLICE_PIECE),
    };
    list_init(&set->all);
    return set->piece != NULL ? 0 : ERR_NOMEM;
}

static void splice_free(struct splice *s)
{
    for (int i = 0; i < 2; i++) {
        struct way *w = &s->way[i];
        event_del(&w->in);
        event_del(&w->out);
        if (w->wait != NULL)
            evbuffer_free(w->wait);
    }
    close(s->way[0].from);
    close(s->way[0].to);
    list_remove(&s->node);
    s->set->n--;
    free(s);
}

void splices_close(struct splices *set)
{
    struct splice *s;
    while (set->piece != NULL && (s = list_first_as(&set->all, struct splice, node)) != NULL)
        splice_free(s);
    free(set->piece);
    set->piece = NULL;
}

/* ---- the end ---- */

static void end(struct splice *s, int err)
{
    if (s->ended)
        return;
    s->ended = true;
    s->err = err;
}

/* At the end of every callback: the splice may be gone afterwards. */
static void settle(struct splice *s)
{
    if (!s->ended && s->way[0].closed && s->way[1].closed)
        end(s, 0);
    if (!s->ended)
        return;
    splice_done_fn *done = s->done;
    void *arg = s->arg;
    int err = s->err;
    struct splices *set = s->set;
    *(err == 0 ? &set->ended_clean : &set->ended_error) += 1;
    splice_free(s);
    if (done != NULL)
        done(arg, err);
}

/* Nobody takes what this direction brings. */
static void way_drop(struct way *w)
{
    event_del(&w->in);
    event_del(&w->out);
    evbuffer_drain(w->wait, evbuffer_get_length(w->wait));
    w->eof = w->closed = true;
}

static bool hung_up(int fd)
{
    struct pollfd p = {.fd = fd, .events = 0};
    return poll(&p, 1, 0) == 1 && (p.revents & (POLLHUP | POLLERR)) != 0;
}

/* The sender of w has sent its end: is it there to receive? Once we have shut down our side the kernel calls that hung up, too. */
static void check_other(struct way *w)
{
    struct way *other = &w->s->way[1 - w->index];
    if (w->eof && !other->closed && hung_up(w->from))
        way_drop(other);
}

static void way_finish(struct way *w)
{
    w->closed = true;
    (void)shutdown(w->to, SHUT_WR);
}

/* ---- bytes ---- */

static void moved(struct way *w, size_t n)
{
    w->moved_ns = env_sys_mono_ns();
    w->s->set->bytes[w->index] += n;
}

/* False: it has to wait, or this direction is over. */
static bool write_waiting(struct way *w)
{
    while (evbuffer_get_length(w->wait) > 0) {
        int n = evbuffer_write(w->wait, w->to);
        if (n > 0) {
            moved(w, (size_t)n);
        } else if (errno == EAGAIN || errno == EINTR) {
            event_del(&w->in);
            event_add(&w->out, NULL);
            return false;
        } else {
            way_drop(w);
            return false;
        }
    }
    return true;
}

/* What was read: through the filter, or straight on. */
static void take(struct way *w, const uint8_t *p, size_t n)
{
    struct splice *s = w->s;
    if (w->index == 0 && s->filter != NULL) {
        int rc = s->filter(s->arg, p, n, w->wait);
        if (rc != 0)
            end(s, rc);
        return;
    }
    ssize_t sent = send(w->to, p, n, MSG_NOSIGNAL);
    size_t done = sent > 0 ? (size_t)sent : 0;
    if (sent < 0 && errno != EAGAIN && errno != EINTR) {
        way_drop(w);
        return;
    }
    moved(w, done);
    if (done < n && evbuffer_add(w->wait, p + done, n - done) != 0)
        end(s, ERR_NOMEM);
}

/* One read. False: nothing more for now. */
static bool read_some(struct way *w, size_t *budget)
{
    uint8_t *p = w->s->set->piece;
    ssize_t n = read(w->from, p, SPLICE_PIECE);
    if (n > 0) {
        *budget = *budget > (size_t)n ? *budget - (size_t)n : 0;
        take(w, p, (size_t)n);
        return !w->s->ended && !w->closed;
    }
    if (n == 0) {
        w->eof = true;
        return true;
    }
    if (errno != EAGAIN && errno != EINTR)
        end(w->s, err_sys());
    return false;
}

static void pump(struct way *w)
{
    size_t budget = TURN_BYTES;
    while (!w->closed && !w->s->ended && write_waiting(w)) {
        if (w->eof) {
            event_del(&w->in);
            way_finish(w);
            check_other(w);
            return;
        }
        if (budget == 0 || !read_some(w, &budget))
            break;
    }
    if (!w->eof && !w->s->ended && evbuffer_get_length(w->wait) == 0)
        event_add(&w->in, NULL);
}

static void on_event(evutil_socket_t fd, short what, void *arg)
{
    struct way *w = arg;
    (void)fd, (void)what;
    pump(w);
    settle(w->s);
}

/* ---- clocks ---- */

static bool overdue(uint64_t now_ns, uint64_t since_ns, uint64_t limit_ns)
{
    return now_ns > since_ns && now_ns - since_ns > limit_ns;
}

static void check_clocks(struct splice *s, uint64_t now_ns)
{
    struct splices *set = s->set;
    const struct way *a = &s->way[0], *b = &s->way[1];
    uint64_t last = a->moved_ns > b->moved_ns ? a->moved_ns : b->moved_ns;
    size_t waiting[2] = {evbuffer_get_length(a->wait), evbuffer_get_length(b->wait)};
    set->waiting += waiting[0] + waiting[1];
    if ((waiting[0] > 0 && overdue(now_ns, a->moved_ns, set->stall_ns)) ||
        (waiting[1] > 0 && overdue(now_ns, b->moved_ns, set->stall_ns))) {
        set->ended_stall++;
        end(s, ERR_TIMEOUT);
    } else if (overdue(now_ns, last, a->closed || b->closed ? set->half_ns : set->idle_ns)) {
        set->ended_idle++;
        end(s, ERR_TIMEOUT);
    }
}

void splices_tick(struct splices *set, uint64_t now_ns)
{
    struct list_node *pos, *tmp;
    set->waiting = 0;
    list_for_each(pos, tmp, &set->all)
    {
        struct splice *s = container_of(pos, struct splice, node);
        check_clocks(s, now_ns);
        for (int i = 0; i < 2 && !s->ended; i++)
            check_other(&s->way[i]);
        settle(s);
    }
}

/* ---- making one ---- */

static int way_init(struct splice *s, int i, const struct splice_cfg *cfg)
{
    struct way *w = &s->way[i];
    *w = (struct way){.s = s,
                      .index = i,
                      .from = cfg->fd[i],
                      .to = cfg->fd[1 - i],
                      .wait = cfg->first[i] != NULL ? cfg->first[i] : evbuffer_new(),
                      .moved_ns = env_sys_mono_ns()};
    int flags = fcntl(w->from, F_GETFL);
    if (flags < 0 || fcntl(w->from, F_SETFL, flags | O_NONBLOCK) < 0)
        return err_sys();
    if (w->wait == NULL ||
        event_assign(&w->in, s->set->base, w->from, EV_READ | EV_PERSIST, on_event, w) != 0 ||
        event_assign(&w->out, s->set->base, w->to, EV_WRITE, on_event, w) != 0)
        return ERR_NOMEM;
    /* The first turn comes from the loop: nothing ends inside of splice_new(). */
    event_active(&w->in, EV_READ, 0);
    return 0;
}

static void give_up(const struct splice_cfg *cfg)
{
    for (int i = 0; i < 2; i++) {
        close(cfg->fd[i]);
        if (cfg->first[i] != NULL)
            evbuffer_free(cfg->first[i]);
    }
}

int splice_new(struct splices *set, const struct splice_cfg *cfg)
{
    struct splice *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        give_up(cfg);
        return ERR_NOMEM;
    }
    s->set = set;
    s->filter = cfg->filter;
    s->done = cfg->done;
    s->arg = cfg->arg;
    list_push_back(&set->all, &s->node);
    set->n++;
    int rc0 = way_init(s, 0, cfg), rc1 = way_init(s, 1, cfg);
    if (rc0 == 0 && rc1 == 0)
        return 0;
    splice_free(s);
    return rc0 != 0 ? rc0 : rc1;
}
