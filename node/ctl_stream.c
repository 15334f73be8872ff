/*
 * ctl_stream - commands that open streams or ask relays: dial, listen, ping, ip, why.
 *
 * A stream leaves the node as a descriptor: one end of a socketpair goes to the tool (control.h),
 * the other one is bridged to the stream.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/err.h"
#include "node/node_int.h"

static struct node *node_of(const struct ctl_req *req)
{
    return req->node_arg;
}

/* A tool wants to hear how a stream of its request ends: its descriptor does not tell a reset from an
 * end in order. */
struct watching {
    struct list_node node; /* in the request's list */
    struct ctl_req *req;
    struct fdbridge *bridge;
    json_int_t stream; /* by which the tool knows it, of a listener; 0 = of a dial */
    struct pubkey pk;
    uint16_t port;
};

static void watch_ended(void *arg, int err)
{
    struct watching *w = arg;
    struct ctl_req *req = w->req;
    char pk[PUBKEY_HEX + 1], text[200];
    snprintf(text, sizeof(text), "stream with %s:%u: %s", pubkey_hex(pk, &w->pk), w->port,
             err_str(err));
    json_int_t stream = w->stream;
    if (stream != 0)
        list_remove(&w->node);
    free(w);
    if (stream != 0 && err != 0 && ctl_row_room(req))
        ctl_event(req,
                  json_pack("{s:s, s:I, s:s, s:i, s:i}", "event", "ended", "stream", stream,
                            "error", text, "exit", err_exit_code(err), "code", err),
                  -1);
    if (stream != 0)
        return;
    req->gone = NULL;
    if (err != 0)
        ctl_fail(req, err, "%s", text);
    else
        ctl_ok(req, NULL, -1);
}

static void watch_gone(struct ctl_req *req)
{
    struct watching *w = req->user;
    fdbridge_forget(w->bridge);
    free(w);
}

static struct watching *watch_new(struct ctl_req *req, const struct pubkey *pk, uint16_t port)
{
    struct watching *w = ctl_arg_bool(req, "watch") ? calloc(1, sizeof(*w)) : NULL;
    if (w == NULL)
        return NULL; /* the stream is there all the same */
    w->req = req;
    w->pk = *pk;
    w->port = port;
    return w;
}

static int bridge_failed(int err, struct watching **w)
{
    free(*w);
    *w = NULL;
    return err;
}

/* Bridge a stream; returns the other end, or an error (the stream is closed then). *w is told of its
 * end; freed and NULL when it could not be made. */
static int bridge_to_fd(struct node *n, struct stream *st, struct watching **w)
{
    struct fdbridge *b;
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0) {
        int rc = err_sys();
        stream_abort(st);
        return bridge_failed(rc, w);
    }
    int rc = fdbridge_new(&n->bridges, st, fds[0], fds[0], *w != NULL ? watch_ended : NULL, *w, &b);
    if (rc < 0) {
        close(fds[1]);
        return bridge_failed(rc, w);
    }
    if (*w != NULL)
        (*w)->bridge = b;
    return fds[1];
}

int node_stream_to_fd(struct node *n, struct stream *st)
{
    struct watching *nobody = NULL;
    return bridge_to_fd(n, st, &nobody);
}

/* ---- dial ---- */

struct dialling {
    struct ctl_req *req;
    struct node *node;
    struct stream *st;
    struct pubkey pk;
    uint16_t port;
    unsigned timeout_ms;
    uint64_t started_ns;
    json_t *steps; /* why */
    enum { DIAL_FD, DIAL_PING, DIAL_WHY } what;
    uint64_t handle; /* why: entry look-up under way */
};

static void dial_free(struct dialling *d)
{
    if (d->req != NULL)
        d->req->gone = NULL;
    json_decref(d->steps);
    free(d);
}

static void dial_gone(struct ctl_req *req)
{
    struct dialling *d = req->user;
    d->req = NULL;
    if (d->st != NULL)
        stream_close(d->st);
    resolve_cancel(d->node->resolve, d->handle);
    dial_free(d);
}

static double ms_since(const struct dialling *d)
{
    return (double)(d->node->loop->now_ns - d->started_ns) / 1e6;
}

static const char *phase_name(enum client_phase p)
{
    switch (p) {
    case CLIENT_PHASE_RESOLVE:
        return "resolve";
    case CLIENT_PHASE_EXISTING:
        return "existing session";
    case CLIENT_PHASE_CONNECT:
        return "new session";
    case CLIENT_PHASE_MESH:
        return "other session";
    case CLIENT_PHASE_BACKOFF:
        return "back-off";
    }
    return "";
}

static void add_steps(struct dialling *d)
{
    size_t n = 0;
    const struct client_step *s = stream_dial_steps(d->st, &n);
    for (size_t i = 0; i < n; i++) {
        json_t *o =
            json_pack("{s:s, s:b, s:I, s:s}", "step", phase_name(s[i].phase), "ok", s[i].err == 0,
                      "ms", (json_int_t)s[i].ms, "detail", s[i].err == 0 ? "" : err_str(s[i].err));
        if (!pubkey_is_null(&s[i].server))
            json_object_set_new(o, "server", ctl_key_json(&s[i].server));
        if (s[i].addr[0] != '\0')
            json_object_set_new(o, "address", json_string(s[i].addr));
        json_array_append_new(d->steps, o);
    }
}

static void why_done(struct dialling *d, int err)
{
    struct ctl_req *req = d->req;
    add_steps(d);
    /* A signed refusal came from the destination itself: it is there. */
    bool reached = err == 0 || err == ERR_DMSG_NO_LISTENER;
    json_t *o = json_pack("{s:O, s:b, s:o, s:s, s:f}", "steps", d->steps, "reached", (int)reached,
                          "public_key", ctl_key_json(&d->pk), "result",
                          reached ? "reached" : err_str(err), "ms", ms_since(d));
    stream_close(d->st);
    dial_free(d);
    ctl_ok(req, o, -1);
}

static void ping_done(struct dialling *d, int err)
{
    struct ctl_req *req = d->req;
    char pk[PUBKEY_HEX + 1], steps[CTL_STEPS_TEXT];
    if (err == 0 || err == ERR_DMSG_NO_LISTENER) {
        json_t *o = json_pack("{s:f, s:s}", "rtt_ms", ms_since(d), "via", "stream");
        if (err == 0)
            json_object_set_new(o, "relay", ctl_key_json(stream_via(d->st)));
        stream_close(d->st);
        dial_free(d);
        ctl_ok(req, o, -1);
        return;
    }
    size_t n = 0;
    const struct client_step *s = stream_dial_steps(d->st, &n);
    client_steps_text(s, n, steps, sizeof(steps));
    pubkey_hex(pk, &d->pk);
    stream_close(d->st);
    dial_free(d);
    ctl_fail(req, err, "ping %s: %s (%s)", pk, err_str(err), steps);
}

static void dial_opened(struct stream *st, void *arg)
{
    struct dialling *d = arg;
    struct ctl_req *req = d->req;
    if (d->what == DIAL_WHY) {
        why_done(d, 0);
        return;
    }
    if (d->what == DIAL_PING) {
        ping_done(d, 0);
        return;
    }
    json_t *o = json_pack("{s:o, s:i, s:f}", "relay", ctl_key_json(stream_via(st)), "local_port",
                          (int)stream_local_port(st), "ms", ms_since(d));
    struct watching *w = watch_new(req, &d->pk, d->port);
    int fd = bridge_to_fd(d->node, st, &w);
    dial_free(d);
    if (fd < 0) {
        json_decref(o);
        ctl_fail(req, fd, NULL);
    } else if (w == NULL) {
        ctl_ok(req, o, fd);
    } else {
        req->user = w;
        req->gone = watch_gone;
        json_object_set_new(o, "event", json_string("opened"));
        ctl_event(req, o, fd);
    }
}

static void dial_ended(struct stream *st, void *arg, int err)
{
    struct dialling *d = arg;
    struct ctl_req *req = d->req;
    char pk[PUBKEY_HEX + 1], steps[CTL_STEPS_TEXT];
    size_t n = 0;
    if (d->what == DIAL_WHY) {
        why_done(d, err);
        return;
    }
    if (d->what == DIAL_PING) {
        ping_done(d, err);
        return;
    }
    const struct client_step *s = stream_dial_steps(st, &n);
    client_steps_text(s, n, steps, sizeof(steps));
    pubkey_hex(pk, &d->pk);
    uint16_t port = d->port;
    stream_close(st);
    dial_free(d);
    ctl_fail(req, err, "dial %s:%u: %s (%s)", pk, port, err_str(err), steps);
}

static const struct stream_cb dial_cb = {.opened = dial_opened, .ended = dial_ended};

static struct dialling *dial_new(struct ctl_req *req, int what)
{
    struct pubkey pk;
    json_int_t port;
    unsigned timeout_ms;
    if (ctl_arg_pubkey(req, "pk", &pk) < 0 || ctl_arg_timeout(req, &timeout_ms) < 0 ||
        ctl_arg_range(req, "port", 1, 65535, KAD_PORT, &port) < 0)
        return NULL;
    struct dialling *d = calloc(1, sizeof(*d));
    if (d == NULL || (d->steps = json_array()) == NULL) {
        free(d);
        ctl_fail(req, ERR_NOMEM, NULL);
        return NULL;
    }
    d->req = req;
    d->node = node_of(req);
    d->pk = pk;
    d->what = what == DIAL_FD ? DIAL_FD : what == DIAL_PING ? DIAL_PING : DIAL_WHY;
    d->started_ns = d->node->loop->now_ns;
    d->port = (uint16_t)port;
    d->timeout_ms = timeout_ms;
    req->user = d;
    req->gone = dial_gone;
    return d;
}

static void dial_start(struct dialling *d)
{
    struct ctl_req *req = d->req;
    char pk[PUBKEY_HEX + 1];
    /* Who asks whether a key can be reached wants it tried now, whatever failed a moment ago. */
    unsigned flags = d->what == DIAL_FD ? 0 : CLIENT_DIAL_NOW;
    flags |= node_dial_flags(d->node, req);
    struct pubkey via;
    bool through = json_object_get(req->args, "via") != NULL;
    if (through && ctl_arg_pubkey(req, "via", &via) < 0) {
        d->req = NULL;
        dial_free(d);
        return;
    }
    int rc =
        client_dial(d->node->client, &d->pk, d->port, d->timeout_ms, flags, &dial_cb, d, &d->st);
    if (rc == 0 && through)
        client_dial_through(d->st, &via);
    if (rc == 0)
        return;
    pubkey_hex(pk, &d->pk);
    uint16_t port = d->port;
    dial_free(d);
    ctl_fail(req, rc, "dial %s:%u: %s", pk, port, err_str(rc));
}

void ctl_dial(struct ctl_req *req)
{
    struct dialling *d = dial_new(req, DIAL_FD);
    if (d != NULL)
        dial_start(d);
}

/* ---- ping ---- */

struct pinging {
    struct list_node node; /* in node->pings */
    struct ctl_req *req;   /* NULL: gone */
    struct pubkey pk;
    uint64_t started_ns;
};

static void ping_gone(struct ctl_req *req)
{
    ((struct pinging *)req->user)->req = NULL;
}

static void server_ponged(void *arg, int err, uint64_t rtt_ns)
{
    struct pinging *p = arg;
    struct ctl_req *req = p->req;
    char pk[PUBKEY_HEX + 1];
    if (req != NULL) {
        req->gone = NULL;
        if (err == 0)
            ctl_ok(req, json_pack("{s:f, s:s}", "rtt_ms", (double)rtt_ns / 1e6, "via", "session"),
                   -1);
        else
            ctl_fail(req, err, "ping %s: %s", pubkey_hex(pk, &p->pk), err_str(err));
    }
    list_remove(&p->node);
    free(p);
}

void ctl_pings_free(struct node *n)
{
    struct pinging *p;
    while ((p = list_pop_front_as(&n->pings, struct pinging, node)) != NULL)
        free(p);
}

/* A relay that we hold a session to is pinged in the session; everybody else by the round trip
 * of a stream's set-up. */
void ctl_ping(struct ctl_req *req)
{
    struct node *n = node_of(req);
    struct pubkey pk;
    unsigned timeout_ms;
    if (ctl_arg_pubkey(req, "pk", &pk) < 0 || ctl_arg_timeout(req, &timeout_ms) < 0)
        return;
    struct pinging *p = calloc(1, sizeof(*p));
    if (p == NULL) {
        ctl_fail(req, ERR_NOMEM, NULL);
        return;
    }
    p->pk = pk;
    p->req = req;
    if (client_ping_server(n->client, &pk, timeout_ms, server_ponged, p) == 0) {
        req->user = p;
        req->gone = ping_gone;
        list_push_back(&n->pings, &p->node);
        return;
    }
    free(p);
    struct dialling *d = dial_new(req, DIAL_PING);
    if (d != NULL)
        dial_start(d);
}

/* ---- ip ---- */

static void ip_answered(void *arg, int err, const uint8_t *ip, size_t n,
                        const struct pubkey *server)
{
    struct pinging *p = arg;
    struct ctl_req *req = p->req;
    char text[INET6_ADDRSTRLEN];
    uint64_t started_ns = p->started_ns;
    list_remove(&p->node);
    free(p);
    if (req == NULL)
        return;
    req->gone = NULL;
    if (err == 0)
        ctl_ok(req,
               json_pack("{s:s, s:o, s:f}", "ip",
                         inet_ntop(n == 4 ? AF_INET : AF_INET6, ip, text, sizeof(text)), "server",
                         ctl_key_json(server), "ms",
                         (double)(node_of(req)->loop->now_ns - started_ns) / 1e6),
               -1);
    else
        ctl_fail(req, err, "ip: %s", err_str(err));
}

/* Our address as a relay sees it (docs/protocol/apps.md §2.6); without "server": any that we
 * have a session to. */
void ctl_ip(struct ctl_req *req)
{
    struct node *n = node_of(req);
    struct pubkey server = {0};
    unsigned timeout_ms;
    bool one = json_object_get(req->args, "server") != NULL;
    if (ctl_arg_timeout(req, &timeout_ms) < 0 ||
        (one && ctl_arg_pubkey(req, "server", &server) < 0))
        return;
    struct pinging *p = calloc(1, sizeof(*p));
    if (p == NULL) {
        ctl_fail(req, ERR_NOMEM, NULL);
        return;
    }
    p->req = req;
    p->started_ns = n->loop->now_ns;
    int rc = client_lookup_ip_at(n->client, one ? &server : NULL, timeout_ms, ip_answered, p);
    if (rc < 0) {
        free(p);
        ctl_fail(req, rc, "ip: %s", rc == ERR_NOT_FOUND ? "no session to that relay" : err_str(rc));
        return;
    }
    req->user = p;
    req->gone = ping_gone;
    list_push_back(&n->pings, &p->node);
}

/* ---- why ---- */

static void why_entry(void *arg, const struct resolve_answer *a)
{
    struct dialling *d = arg;
    json_t *o = json_pack("{s:s, s:b, s:I, s:s, s:I, s:I}", "step", "entry", "ok", a->err == 0,
                          "ms", (json_int_t)a->ms, "source",
                          a->err == 0 ? resolve_source_name(a->source) : "nowhere", "hops",
                          (json_int_t)a->hops, "asked", (json_int_t)a->asked);
    d->handle = 0;
    if (a->asked > 0) {
        json_object_set_new(o, "answered", json_integer((json_int_t)a->answered));
        json_object_set_new(o, "bytes", json_integer((json_int_t)a->bytes));
        json_object_set_new(o, "end", json_string(ctl_end_name(a->end)));
    }
    if (a->err != 0) {
        json_object_set_new(o, "detail", json_string(err_str(a->err)));
    } else {
        json_t *list = json_array();
        for (size_t i = 0; a->entry->has_client && i < a->entry->client.n_delegated; i++)
            json_array_append_new(list, ctl_key_json(&a->entry->client.delegated[i]));
        json_object_set_new(o, "delegated_servers", list);
        if (a->entry->has_server)
            json_object_set_new(o, "address", json_string(entry_server_address(a->entry)));
    }
    json_array_append_new(d->steps, o);
    dial_start(d);
}

void ctl_dht_why(struct ctl_req *req)
{
    struct dialling *d = dial_new(req, DIAL_WHY);
    if (d == NULL)
        return;
    uint64_t handle = resolve_entry(d->node->resolve, &d->pk, RESOLVE_UNCOUNTED, why_entry, d);
    if (handle != 0)
        d->handle = handle;
}

/* ---- listen ---- */

struct listening {
    uint16_t port;
    struct list watches; /* of its streams */
};

static void listen_gone(struct ctl_req *req)
{
    struct listening *l = req->user;
    struct watching *w;
    while ((w = list_pop_front_as(&l->watches, struct watching, node)) != NULL) {
        fdbridge_forget(w->bridge);
        free(w);
    }
    client_unlisten(node_of(req)->client, l->port);
    free(l);
}

static void on_stream(void *arg, struct stream *st)
{
    struct ctl_req *req = arg;
    json_t *o = json_pack("{s:s, s:o, s:i}", "event", "accepted", "public_key",
                          ctl_key_json(stream_remote(st)), "port", (int)stream_remote_port(st));
    struct listening *l = req->user;
    if (!ctl_row_room(req)) {
        stream_abort(st); /* the tool does not take what it asked for */
        json_decref(o);
        return;
    }
    struct watching *w = watch_new(req, stream_remote(st), stream_remote_port(st));
    int fd = bridge_to_fd(node_of(req), st, &w);
    if (fd < 0) {
        json_decref(o);
        return;
    }
    if (w != NULL) {
        w->stream = ++node_of(req)->next_watch;
        list_push_back(&l->watches, &w->node);
        json_object_set_new(o, "stream", json_integer(w->stream));
    }
    ctl_event(req, o, fd);
}

void ctl_listen(struct ctl_req *req)
{
    struct node *n = node_of(req);
    json_int_t port;
    if (ctl_arg_range(req, "port", 0, 65535, 0, &port) < 0)
        return;
    struct listening *l = calloc(1, sizeof(*l));
    int got = l == NULL ? ERR_NOMEM : client_listen(n->client, (uint16_t)port, on_stream, req);
    if (got < 0) {
        free(l);
        ctl_fail(req, got, "listen on port %lld: %s", (long long)port, err_str(got));
        return;
    }
    list_init(&l->watches);
    l->port = (uint16_t)got;
    req->user = l;
    req->gone = listen_gone;
    ctl_event(req,
              json_pack("{s:s, s:i, s:o}", "event", "listening", "port", got, "public_key",
                        ctl_key_json(&n->cfg.pk)),
              -1);
}
