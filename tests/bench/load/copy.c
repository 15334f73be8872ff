/*
 * copy - a relay that does nothing but copy: what comes on one connection goes out on the other,
 * connections are paired in the order of their coming. Its processor time is the ceiling of a relay
 * that reads as much at once. One thread, one buffer; what the other side does not take at once is
 * kept, and nothing is read until it is gone.
 */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/err.h"
#include "tests/bench/load/load.h"

#define TURN_BYTES DRIVE_TCP_TURN_BYTES /* as our driver: then the others come */

struct side {
    int fd;
    uint32_t interest;
    struct side *other; /* NULL: not paired yet */
    uint8_t *kept;      /* for this side */
    size_t kept_n;
};

static int ep;
static struct side *unpaired;
static uint8_t buf[BUF_READ_SIZE];

static void interest(struct side *s, uint32_t want)
{
    struct epoll_event ev = {.events = want, .data.ptr = s};
    if (s->interest != want)
        epoll_ctl(ep, EPOLL_CTL_MOD, s->fd, &ev);
    s->interest = want;
}

/* The pair is over; memory stays, events of this round may still point to it. */
static void hang_up(struct side *s)
{
    struct side *both[] = {s, s->other};
    for (int i = 0; i < 2; i++)
        if (both[i] != NULL && both[i]->fd >= 0) {
            close(both[i]->fd);
            both[i]->fd = -1;
        }
    if (s == unpaired)
        unpaired = NULL;
}

static void update(struct side *s)
{
    uint32_t want = s->other != NULL && s->other->kept_n == 0 ? EPOLLIN : 0u;
    interest(s, want | (s->kept_n > 0 ? EPOLLOUT : 0u));
}

/* False: the connection is broken. */
static bool send_to(struct side *s, const uint8_t *p, size_t n)
{
    ssize_t done = write(s->fd, p, n);
    if (done < 0 && errno != EAGAIN && errno != EINTR)
        return false;
    size_t sent = done > 0 ? (size_t)done : 0;
    if (sent < n && (s->kept != NULL || (s->kept = malloc(sizeof buf)) != NULL))
        memmove(s->kept, p + sent, n - sent);
    s->kept_n = n - sent;
    return s->kept_n == 0 || s->kept != NULL;
}

static bool copy_some(struct side *s)
{
    for (size_t total = 0; total < TURN_BYTES && s->other->kept_n == 0;) {
        ssize_t n = read(s->fd, buf, sizeof buf);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return true;
        if (n <= 0 || !send_to(s->other, buf, (size_t)n))
            return false;
        if ((size_t)n < sizeof buf)
            return true;
        total += (size_t)n;
    }
    return true;
}

static void on_side(struct side *s, uint32_t what)
{
    bool ok = s->fd >= 0;
    if (ok && (what & EPOLLOUT) && s->kept_n > 0)
        ok = send_to(s, s->kept, s->kept_n);
    if (ok && (what & (EPOLLIN | EPOLLHUP | EPOLLERR)))
        ok = s->other != NULL && copy_some(s);
    if (!ok) {
        hang_up(s);
        return;
    }
    update(s);
    if (s->other != NULL)
        update(s->other);
}

static void on_accept(int listener)
{
    int one = 1, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    struct side *s = fd >= 0 ? calloc(1, sizeof *s) : NULL;
    if (s == NULL) {
        if (fd >= 0)
            close(fd);
        return;
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    s->fd = fd;
    struct epoll_event ev = {.events = 0, .data.ptr = s};
    epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
    if (unpaired == NULL) {
        unpaired = s;
        return;
    }
    s->other = unpaired;
    unpaired->other = s;
    unpaired = NULL;
    update(s);
    update(s->other);
}

static int listen_at(const struct addr_hostport *at)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *res = NULL;
    char port[8];
    snprintf(port, sizeof port, "%u", at->port);
    if (getaddrinfo(at->host[0] != '\0' ? at->host : NULL, port, &hints, &res) != 0)
        return ERR_NOT_FOUND;
    int fd = socket(res->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, res->ai_addr, res->ai_addrlen) < 0 || listen(fd, 1024) < 0) {
        int rc = err_sys();
        if (fd >= 0)
            close(fd);
        fd = rc;
    }
    freeaddrinfo(res);
    return fd;
}

static void say_ready(int fd, struct addr_hostport at)
{
    char text[ADDR_HOSTPORT_MAX + 1];
    struct sockaddr_in6 sa; /* the port is at the same place for IPv4 */
    socklen_t len = sizeof sa;
    if (getsockname(fd, (struct sockaddr *)&sa, &len) == 0)
        at.port = ntohs(sa.sin6_port);
    printf("{\"event\":\"ready\",\"relay\":\"%s\"}\n", addr_hostport_text(text, &at));
    fflush(stdout);
}

int copy_run(struct load *l)
{
    struct epoll_event ev = {.events = EPOLLIN}, evs[64];
    int fd = listen_at(&l->o.addr);
    if (fd < 0 || (ep = epoll_create1(EPOLL_CLOEXEC)) < 0 ||
        epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) < 0) {
        fprintf(stderr, "kadmsg-load: listen: %s\n", err_str(fd < 0 ? fd : err_sys()));
        return CMD_EXIT_FAIL;
    }
    say_ready(fd, l->o.addr);
    for (;;) { /* until a signal ends the process */
        int n = epoll_wait(ep, evs, 64, -1);
        for (int i = 0; i < n; i++) {
            if (evs[i].data.ptr == NULL)
                on_accept(fd);
            else
                on_side(evs[i].data.ptr, evs[i].events);
        }
    }
}
