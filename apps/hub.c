#include "apps/hub.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "apps/guest.h"
#include "apps/tcp.h"
#include "base/env_sys.h"
#include "base/err.h"
#include "base/log.h"

#define TICK_MS     250
#define FDS_PER_CON 3 /* both ends, and one more in the node when it is in this process */
#define FDS_OTHER   128

static void fail(struct hub *hub, int err)
{
    hub->err = err;
    event_base_loopbreak(hub->base);
}

static void on_net(evutil_socket_t fd, short what, void *arg)
{
    struct hub *hub = arg;
    (void)fd, (void)what;
    int rc = app_net_dispatch(hub->net, 0);
    if (rc < 0)
        fail(hub, rc);
}

static void on_signal(evutil_socket_t sig, short what, void *arg)
{
    (void)sig, (void)what;
    hub_stop(arg);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct hub *hub = arg;
    (void)fd, (void)what;
    splices_tick(&hub->splices, env_sys_mono_ns());
    tcp_doors_tick(hub);
    guests_turn(hub);
}

/* Connections beyond what the descriptors are enough for would take them from those that are there. */
static size_t fit_to_fd_limit(size_t max_conns)
{
    struct rlimit r;
    rlim_t want = (rlim_t)max_conns * FDS_PER_CON + FDS_OTHER;
    if (getrlimit(RLIMIT_NOFILE, &r) != 0 || r.rlim_cur >= want)
        return max_conns;
    rlim_t had = r.rlim_cur;
    r.rlim_cur = r.rlim_max < want ? r.rlim_max : want;
    if (setrlimit(RLIMIT_NOFILE, &r) != 0)
        r.rlim_cur = had;
    if (r.rlim_cur >= want)
        return max_conns;
    size_t fit = r.rlim_cur > FDS_OTHER ? (size_t)(r.rlim_cur - FDS_OTHER) / FDS_PER_CON : 0;
    fit = fit > 0 ? fit : 1;
    log_warn(LOG_APP, "at most %zu connections: the limit of descriptors is %llu", fit,
             (unsigned long long)r.rlim_cur);
    return fit;
}

static int events_make(struct hub *hub)
{
    struct timeval tick = {.tv_usec = TICK_MS * 1000};
    struct event_base *b = hub->base;
    hub->events[0] = event_new(b, app_net_fd(hub->net), EV_READ | EV_PERSIST, on_net, hub);
    hub->events[1] = evsignal_new(b, SIGINT, on_signal, hub);
    hub->events[2] = evsignal_new(b, SIGTERM, on_signal, hub);
    hub->events[3] = event_new(b, -1, EV_PERSIST, on_tick, hub);
    for (size_t i = 0; i < 4; i++) {
        if (hub->events[i] == NULL || event_add(hub->events[i], i == 3 ? &tick : NULL) != 0)
            return ERR_NOMEM;
    }
    return 0;
}

int hub_new(struct hub **out, struct app_net *net, size_t max_conns)
{
    struct hub *hub = calloc(1, sizeof(*hub));
    *out = NULL;
    if (hub == NULL)
        return ERR_NOMEM;
    hub->net = net;
    hub->max_conns = max_conns;
    hub->started_ns = env_sys_mono_ns();
    list_init(&hub->guests);
    list_init(&hub->turns);
    list_init(&hub->doors);
    hub->base = event_base_new();
    int rc = hub->base != NULL ? splices_init(&hub->splices, hub->base) : ERR_NOMEM;
    if (rc == 0)
        rc = events_make(hub);
    if (rc != 0) {
        hub_free(hub);
        return rc;
    }
    signal(SIGPIPE, SIG_IGN);
    hub->max_conns = fit_to_fd_limit(max_conns);
    *out = hub;
    return 0;
}

void hub_free(struct hub *hub)
{
    if (hub == NULL)
        return;
    guests_close(hub);
    if (hub->base != NULL)
        splices_close(&hub->splices);
    if (hub->dns != NULL)
        evdns_base_free(hub->dns, 0);
    for (size_t i = 0; i < 4; i++) {
        if (hub->events[i] != NULL)
            event_free(hub->events[i]);
    }
    if (hub->base != NULL)
        event_base_free(hub->base);
    free(hub);
}

int hub_run(struct hub *hub)
{
    hub->err = 0;
    on_net(-1, 0, hub); /* what came while something was waited for raises no event */
    if (hub->err == 0 && event_base_dispatch(hub->base) < 0)
        return app_net_fail(hub->net, ERR_STATE, "the event loop failed");
    return hub->err;
}

void hub_stop(struct hub *hub)
{
    event_base_loopbreak(hub->base);
}

bool hub_admit(struct hub *hub)
{
    if (hub->conns >= hub->max_conns) {
        hub->stat.refused_limit++;
        return false;
    }
    hub->conns++;
    hub->stat.admitted++;
    return true;
}

void hub_leave(struct hub *hub)
{
    hub->conns--;
}

void hub_note(struct hub *hub, const char *fmt, ...)
{
    struct hub_note *note = &hub->notes[hub->n_notes++ % HUB_NOTES];
    va_list ap;
    note->when = time(NULL);
    va_start(ap, fmt);
    vsnprintf(note->text, sizeof(note->text), fmt, ap);
    va_end(ap);
    log_limited_here(LOG_APP, LOG_LEVEL_WARN, "%s", note->text);
}

struct evdns_base *hub_dns(struct hub *hub)
{
    if (hub->dns != NULL)
        return hub->dns;
    hub->dns = evdns_base_new(hub->base, EVDNS_BASE_DISABLE_WHEN_INACTIVE);
    /* Without a readable resolv.conf it asks 127.0.0.1, as the system's resolver does. */
    if (hub->dns != NULL)
        (void)evdns_base_resolv_conf_parse(hub->dns, DNS_OPTIONS_ALL, "/etc/resolv.conf");
    return hub->dns;
}
