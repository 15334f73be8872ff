#include "apps/net.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"

int app_net_fail(struct app_net *net, int err, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(net->failure.text, sizeof(net->failure.text), fmt, ap);
    va_end(ap);
    net->failure.err = err;
    net->failure.exit = err_exit_code(err);
    return err;
}

struct waiting {
    bool done;
    int err;
    int fd;
    uint8_t *ip;
    size_t n;
    struct pubkey server;
};

static int wait_done(struct app_net *net, struct waiting *w, uint64_t handle)
{
    int rc = 0;
    while (rc == 0 && !w->done)
        rc = app_net_dispatch(net, -1);
    if (!w->done)
        app_net_cancel(net, handle);
    return w->done ? w->err : rc;
}

static void on_dialled(void *arg, int fd, const struct app_net_failure *failure)
{
    struct waiting *w = arg;
    w->done = true;
    w->fd = fd;
    w->err = fd < 0 ? failure->err : 0;
}

int app_net_dial_wait(struct app_net *net, const struct pubkey *pk, uint16_t port)
{
    struct waiting w = {.fd = -1};
    uint64_t handle;
    int rc = app_net_dial(net, pk, port, on_dialled, &w, &handle);
    if (rc == 0)
        rc = wait_done(net, &w, handle);
    return rc < 0 ? rc : w.fd;
}

static void on_ip(void *arg, const uint8_t *ip, size_t n, const struct pubkey *server,
                  const struct app_net_failure *failure)
{
    struct waiting *w = arg;
    w->done = true;
    w->err = n == 0 ? failure->err : 0;
    if (n == 0)
        return;
    memcpy(w->ip, ip, n);
    w->n = n;
    w->server = *server;
}

int app_net_lookup_ip_wait(struct app_net *net, const struct pubkey *server, uint8_t ip[16],
                           size_t *n, struct pubkey *answered)
{
    struct waiting w = {.fd = -1, .ip = ip};
    uint64_t handle;
    int rc = app_net_lookup_ip(net, server, on_ip, &w, &handle);
    if (rc == 0)
        rc = wait_done(net, &w, handle);
    *n = w.n;
    *answered = w.server;
    return rc;
}
