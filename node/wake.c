#include "node/wake.h"

#include <event2/event.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CHANGES_MAX 5 /* settle times that a network which does not come to rest is waited for */

static void tell(struct wake *w, const char *why, int64_t ns)
{
    w->told_ns = w->mono_ns;
    w->owed = false;
    w->woken(w->arg, why, ns / (int64_t)NS_PER_S);
}

static bool resting(const struct wake *w)
{
    return w->told_ns != 0 && w->mono_ns - w->told_ns < WAKE_REST_NS;
}

/* ---- clocks ---- */

static int64_t away(int64_t ns)
{
    return ns < 0 ? -ns : ns;
}

void wake_tick_at(struct wake *w, uint64_t mono_ns, uint64_t boot_ns, int64_t wall_ns)
{
    int64_t mono = (int64_t)(mono_ns - w->mono_ns), boot = (int64_t)(boot_ns - w->boot_ns);
    int64_t wall = (int64_t)((uint64_t)wall_ns - (uint64_t)w->wall_ns);
    const int64_t jump = (int64_t)WAKE_JUMP_NS;
    bool first = !w->ticked;

    w->ticked = true;
    w->mono_ns = mono_ns;
    w->boot_ns = boot_ns;
    w->wall_ns = wall_ns;
    if (first)
        return;
    if (boot - mono >= jump)
        tell(w, "the machine was suspended", boot - mono);
    else if (mono >= jump)
        tell(w, "the process was stopped", mono);
    else if (away(wall - boot) >= jump)
        tell(w, "the clock jumped", wall - boot);
    else if (w->owed && !resting(w))
        tell(w, "the network changed", 0);
}

void wake_tick(struct wake *w, uint64_t mono_ns, int64_t wall_ns)
{
    struct timespec ts;
    uint64_t boot = mono_ns;

    if (clock_gettime(CLOCK_BOOTTIME, &ts) == 0)
        boot = (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
    wake_tick_at(w, mono_ns, boot, wall_ns);
}

/* ---- the network ---- */

bool wake_concerns(const void *msg, size_t n)
{
    struct nlmsghdr h;

    for (const uint8_t *p = msg; n >= sizeof h; p += NLMSG_ALIGN(h.nlmsg_len)) {
        memcpy(&h, p, sizeof h);
        if (h.nlmsg_len < sizeof h || h.nlmsg_len > n)
            return false;
        if (h.nlmsg_type == RTM_NEWADDR || h.nlmsg_type == RTM_DELADDR ||
            h.nlmsg_type == RTM_NEWROUTE || h.nlmsg_type == RTM_DELROUTE)
            return true;
        if (NLMSG_ALIGN(h.nlmsg_len) >= n)
            return false;
        n -= NLMSG_ALIGN(h.nlmsg_len);
    }
    return false;
}

static struct loop *loop_of(const struct wake *w)
{
    return drive_loop_loop(w->drive);
}

static void on_settled(struct loop_timer *t)
{
    struct wake *w = container_of(t, struct wake, settle);

    w->first_ns = 0;
    if (resting(w))
        w->owed = true; /* the tick behind the rest tells */
    else
        tell(w, "the network changed", 0);
}

void wake_network(struct wake *w)
{
    uint64_t now = loop_of(w)->now_ns;

    if (w->first_ns == 0)
        w->first_ns = now;
    if (now - w->first_ns < CHANGES_MAX * WAKE_SETTLE_NS || !loop_timer_armed(&w->settle))
        loop_timer_set(loop_of(w), &w->settle, now + WAKE_SETTLE_NS);
}

static void on_netlink(evutil_socket_t fd, short what, void *arg)
{
    struct wake *w = arg;
    uint8_t buf[8192];
    bool concerns = false;
    ssize_t n;

    (void)what;
    while ((n = recv(fd, buf, sizeof buf, MSG_DONTWAIT)) > 0)
        concerns = concerns || wake_concerns(buf, (size_t)n);
    drive_loop_now(w->drive);
    if (concerns)
        wake_network(w);
}

static void listen_netlink(struct wake *w)
{
    struct sockaddr_nl sa = {
        .nl_family = AF_NETLINK,
        .nl_groups =
            RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE,
    };

    w->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
    if (w->fd < 0)
        return;
    if (bind(w->fd, (struct sockaddr *)&sa, sizeof sa) == 0)
        w->ev = event_new(drive_loop_base(w->drive), w->fd, EV_READ | EV_PERSIST, on_netlink, w);
    if (w->ev != NULL)
        (void)event_add(w->ev, NULL);
}

/* ---- life ---- */

void wake_init(struct wake *w, struct drive_loop *drive,
               void (*woken)(void *arg, const char *why, int64_t s), void *arg)
{
    *w = (struct wake){.drive = drive, .woken = woken, .arg = arg, .fd = -1};
    w->settle.fn = on_settled;
    listen_netlink(w);
}

void wake_close(struct wake *w)
{
    if (w->drive == NULL)
        return;
    if (w->ev != NULL)
        event_free(w->ev);
    if (w->fd >= 0)
        close(w->fd);
    loop_timer_cancel(loop_of(w), &w->settle);
    w->drive = NULL;
}
