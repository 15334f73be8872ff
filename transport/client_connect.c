#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "transport/client_int.h"

struct connecting {
    struct client *client;
    struct list_node node; /* in client->connects */
    struct pubkey server;
    struct cserver_waiter waiter;
    struct loop_timer timer;
    struct loop_task task;
    client_connect_fn *done;
    void *arg;
    uint64_t began_ns;
    bool waits; /* the waiter is with the server */
    struct client_connect_report report;
};

static void connecting_free(struct connecting *x)
{
    if (x->waits)
        cserver_forget(&x->waiter);
    loop_timer_cancel(x->client->cfg.loop, &x->timer);
    loop_task_cancel(x->client->cfg.loop, &x->task);
    list_remove(&x->node);
    free(x);
}

static void tell(struct loop_task *t)
{
    struct connecting *x = container_of(t, struct connecting, task);
    struct client_connect_report r = x->report;
    client_connect_fn *done = x->done;
    void *arg = x->arg;

    connecting_free(x);
    done(arg, &r);
}

static enum client_connect_phase phase_of(enum cserver_state state)
{
    switch (state) {
    case CSERVER_DOWN:
    case CSERVER_FINDING:
        return CLIENT_CONNECT_FIND;
    case CSERVER_DIALLING:
        return CLIENT_CONNECT_TCP;
    case CSERVER_HANDSHAKE:
        return CLIENT_CONNECT_HANDSHAKE;
    case CSERVER_UP:
        return CLIENT_CONNECT_UP;
    }
    return CLIENT_CONNECT_FIND;
}

/* From the entry into one state to the first one behind it, as far as this try came. */
static uint64_t spent_ns(const struct connecting *x, const struct cserver *s, unsigned state,
                         uint64_t end_ns)
{
    uint64_t from = s->since_ns[state];

    if (from < x->began_ns || from == 0)
        return 0;
    for (unsigned later = state + 1; later <= CSERVER_UP; later++) {
        if (s->since_ns[later] >= from && s->since_ns[later] >= x->began_ns)
            return s->since_ns[later] - from;
    }
    return end_ns - from;
}

static void finish(struct connecting *x, const struct cserver *s, int err)
{
    struct client_connect_report *r = &x->report;
    uint64_t now = client_now(x->client);

    r->err = err;
    memcpy(r->addr, s->addr, sizeof r->addr);
    r->phase = err == 0                   ? CLIENT_CONNECT_UP
               : s->state == CSERVER_DOWN ? phase_of(s->failed_in)
                                          : phase_of(s->state);
    r->find_ns = spent_ns(x, s, CSERVER_FINDING, now);
    r->tcp_ns = spent_ns(x, s, CSERVER_DIALLING, now);
    r->handshake_ns = spent_ns(x, s, CSERVER_HANDSHAKE, now);
    r->total_ns = now - x->began_ns;
    loop_timer_cancel(x->client->cfg.loop, &x->timer);
    loop_task_post(x->client->cfg.loop, &x->task);
}

static void waited(struct cserver_waiter *w, int err)
{
    struct connecting *x = container_of(w, struct connecting, waiter);

    x->waits = false;
    finish(x, cserver_get(x->client, &x->server), err);
}

static void timed_out(struct loop_timer *t)
{
    struct connecting *x = container_of(t, struct connecting, timer);

    cserver_forget(&x->waiter);
    x->waits = false;
    finish(x, cserver_get(x->client, &x->server), ERR_TIMEOUT);
}

int client_connect(struct client *c, const struct pubkey *server, unsigned timeout_ms,
                   client_connect_fn *done, void *arg)
{
    struct cserver *s = cserver_get(c, server);
    bool fresh = s == NULL;

    if (fresh)
        s = cserver_make(c, server);
    struct connecting *x = s != NULL ? calloc(1, sizeof *x) : NULL;
    if (x == NULL) {
        if (fresh && s != NULL)
            cserver_drop(s);
        return s == NULL ? ERR_LIMIT : ERR_NOMEM;
    }
    *x = (struct connecting){.client = c, .server = *server, .done = done, .arg = arg};
    /* A try that is under way is what is told about. */
    x->began_ns = s->state == CSERVER_DOWN || s->state == CSERVER_UP ? client_now(c) : s->try_ns;
    x->waiter.done = waited;
    x->timer.fn = timed_out;
    x->task.fn = tell;
    x->report.existed = cserver_usable(s);
    list_push_back(&c->connects, &x->node);
    cserver_retry(s);
    int rc = cserver_need(s, &x->waiter);
    x->waits = rc == ERR_PENDING;
    if (x->waits)
        loop_timer_set(c->cfg.loop, &x->timer, client_now(c) + timeout_ms * NS_PER_MS);
    else
        finish(x, s, rc);
    return 0;
}

void client_connects_free(struct client *c)
{
    struct connecting *x;

    while ((x = list_first_as(&c->connects, struct connecting, node)) != NULL)
        connecting_free(x);
}
