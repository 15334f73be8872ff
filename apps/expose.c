#include "apps/expose.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "apps/guest.h"
#include "apps/socks_talk.h"
#include "base/err.h"

#define TALK_MS 10000

struct expose {
    struct hub *hub;
    uint16_t port;
    bool socks;
    struct socks_dest to;
    const struct netrule *rule;
    const struct whitelist *whitelist;
    uint64_t handle;
    int state; /* ERR_PENDING, 0, or the error it ended with */
};

struct exposed {
    struct guest guest; /* first */
    struct socks_talk talk;
};

/* ---- a local port ---- */

static void on_local(struct guest *g, int err, const char *text)
{
    const struct expose *e = g->service;
    if (err == 0) {
        guest_join(g);
        return;
    }
    hub_note(g->hub, "%s: local port %u: %s", g->who, e->to.port, text);
    guest_drop(g);
}

static const struct guest_ops local_ops = {.size = sizeof(struct guest), .led = on_local};

/* ---- SOCKS5 ---- */

static void on_input(struct guest *g)
{
    struct exposed *x = (struct exposed *)g;
    const struct expose *e = g->service;
    if (socks_talk_input(g, &x->talk) == SOCKS_WAIT)
        guest_dial_tcp(g, &x->talk.socks.dest, e->rule);
}

static void on_led(struct guest *g, int err, const char *text)
{
    socks_talk_led(g, &((struct exposed *)g)->talk, err, text);
}

static const struct guest_ops socks_ops = {
    .size = sizeof(struct exposed), .input = on_input, .led = on_led};

/* ---- streams ---- */

static void on_stream(void *arg, int fd, const struct pubkey *pk, uint16_t port)
{
    struct expose *e = arg;
    char hex[PUBKEY_HEX + 1];
    if (!whitelist_allows(e->whitelist, pk)) {
        e->hub->stat.refused_key++;
        hub_note(e->hub, "%s:%u: not in the whitelist", pubkey_hex(hex, pk), port);
        close(fd);
        return;
    }
    struct guest *g = guest_new(e->hub, e->socks ? &socks_ops : &local_ops, e, fd, TALK_MS);
    if (g == NULL)
        return;
    snprintf(g->who, sizeof(g->who), "%s:%u", pubkey_hex(hex, pk), port);
    if (e->socks)
        guest_start(g);
    else
        guest_dial_tcp(g, &e->to, NULL);
}

static void on_state(void *arg, uint16_t port, const struct app_net_failure *failure)
{
    struct expose *e = arg;
    e->port = failure == NULL ? port : e->port;
    bool was_open = e->state == 0;
    e->state = failure == NULL ? 0 : failure->err;
    if (failure != NULL && was_open) { /* it cannot serve any more */
        e->hub->err = failure->err;
        hub_stop(e->hub);
    }
}

int expose_open(struct expose **out, struct hub *hub, const struct expose_cfg *cfg)
{
    struct expose *e = calloc(1, sizeof(*e));
    *out = NULL;
    if (e == NULL)
        return app_net_fail(hub->net, ERR_NOMEM, "%s", err_str(ERR_NOMEM));
    *e = (struct expose){.hub = hub,
                         .port = cfg->port,
                         .socks = cfg->to == NULL,
                         .rule = cfg->rule,
                         .whitelist = cfg->whitelist,
                         .state = ERR_PENDING};
    if (cfg->to != NULL)
        e->to = *cfg->to;
    int rc = app_net_listen(hub->net, cfg->port, on_stream, on_state, e, &e->handle);
    while (rc == 0 && e->state == ERR_PENDING)
        rc = app_net_dispatch(hub->net, -1);
    if (rc == 0)
        rc = e->state;
    if (rc != 0) {
        expose_close(e);
        return rc;
    }
    *out = e;
    return 0;
}

void expose_close(struct expose *e)
{
    if (e == NULL)
        return;
    app_net_cancel(e->hub->net, e->handle);
    free(e);
}

uint16_t expose_port(const struct expose *e)
{
    return e->port;
}
