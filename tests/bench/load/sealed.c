/*
 * Clients and streams as an application has them (transport/client.h), for --e2e.
 */
#include "base/err.h"
#include "tests/bench/load/load.h"
#include "transport/client.h"

#define SESSION_NS (20 * NS_PER_S)
#define DIAL_MS    20000

/* ---- callbacks of a stream ---- */

static void on_opened(struct stream *st, void *arg)
{
    struct flow *f = arg;
    flow_hold(f);
    f->seed = flow_seed(&f->end->pk, stream_local_port(st));
    flow_opened(f);
    flow_release(f);
}

static void on_readable(struct stream *st, void *arg)
{
    struct flow *f = arg;
    (void)st;
    flow_hold(f);
    flow_step(f, false);
    flow_release(f);
}

static void on_writable(struct stream *st, void *arg)
{
    struct flow *f = arg;
    (void)st;
    flow_hold(f);
    flow_step(f, true);
    flow_release(f);
}

static void on_ended(struct stream *st, void *arg, int err)
{
    struct flow *f = arg;
    (void)st;
    flow_hold(f);
    flow_lost(f, err);
    flow_release(f);
}

static const struct stream_cb stream_cb = {on_opened, on_readable, on_writable, on_ended};

static void on_accept(void *arg, struct stream *st)
{
    struct end *e = arg;
    struct flow *f = flow_new(e, false);
    if (f == NULL) {
        stream_abort(st);
        return;
    }
    f->stream = st;
    f->seed = flow_seed(stream_remote(st), stream_remote_port(st));
    stream_set_cb(st, &stream_cb, f);
    flow_hold(f);
    flow_opened(f);
    flow_release(f);
}

/* ---- the client ---- */

static void on_sessions(void *arg)
{
    struct end *e = arg;
    struct pubkey server;
    bool up = client_delegated(e->client, &server, 1) > 0;
    if (up == e->up)
        return;
    loop_timer_cancel(e->load->loop, &e->timer);
    if (up)
        end_settled(e);
    else
        load_fail(e->load, "session lost", ERR_EOF);
}

static void on_timeout(struct loop_timer *t)
{
    end_failed(container_of(t, struct end, timer), ERR_TIMEOUT);
}

int sealed_start(struct end *e)
{
    struct load *l = e->load;
    char addr[ADDR_HOSTPORT_MAX + 1];
    struct client_cfg cfg = {
        .env = &l->sys.env,
        .loop = l->loop,
        .pool = l->pool,
        .carrier = drive_tcp_carrier(l->tcp),
        .self = e->pk,
        .sk = e->sk,
        .hooks = {.arg = e, .sessions_changed = on_sessions},
    };
    int rc = client_new(&e->client, &cfg);
    if (rc == 0)
        rc = client_listen(e->client, LOAD_PORT, on_accept, e);
    if (rc >= 0)
        rc = client_add_route(e->client, &end_partner(e)->pk, &l->o.pk);
    if (rc >= 0)
        rc = client_add_server(e->client, &l->o.pk, addr_hostport_text(addr, &l->o.addr));
    e->timer.fn = on_timeout;
    loop_timer_set(l->loop, &e->timer, l->loop->now_ns + SESSION_NS);
    return rc < 0 ? rc : 0;
}

bool sealed_dial(struct flow *f)
{
    struct end *e = f->end;
    int rc = client_dial(e->client, &end_partner(e)->pk, LOAD_PORT, DIAL_MS, 0, &stream_cb, f,
                         &f->stream);
    if (rc < 0)
        load_fail(e->load, "dial", rc);
    return rc == 0;
}

void sealed_free(struct flow *f)
{
    if (f->linger)
        stream_close(f->stream);
    else
        stream_abort(f->stream);
}
