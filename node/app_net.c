#include "node/app_net.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/list.h"

#define TURN     64   /* packets in one dispatch */
#define GRACE_MS 5000 /* the node has the deadline; this one is for a node that hangs */

enum kind { NET_DIAL, NET_LISTEN, NET_FORWARD, NET_IP, NET_SESSIONS };

struct request {
    struct list_node node; /* in net->requests */
    enum kind kind;
    json_int_t id;
    void *arg;
    app_net_dial_fn *dialled;
    app_net_stream_fn *stream;
    app_net_listen_fn *state;
    app_net_ip_fn *ip;
    app_net_sessions_fn *told;
    struct app_net_session *rows; /* of sessions, APP_NET_SESSIONS */
    size_t n_rows;
    char *path;                   /* of a forward that is being made: where to write it */
    struct app_net_failure *last; /* of a forward */
};

struct tool_net {
    struct app_net net; /* first */
    struct tool *tool;
    struct list requests;
    size_t n;
    bool gone;                   /* the node */
    struct app_net_failure told; /* by forward_failure() */
};

static struct tool_net *of(struct app_net *net)
{
    return container_of(net, struct tool_net, net);
}

/* ---- requests ---- */

static struct request *find(struct tool_net *t, json_int_t id)
{
    struct list_node *pos, *tmp;
    list_for_each(pos, tmp, &t->requests)
    {
        struct request *r = container_of(pos, struct request, node);
        if (r->id == id)
            return r;
    }
    return NULL;
}

static void drop(struct tool_net *t, struct request *r)
{
    list_remove(&r->node);
    t->n--;
    free(r->last);
    free(r->rows);
    free(r);
}

/* Send req (taken over); the request is in the list when it returns. */
static int start(struct tool_net *t, json_t *req, enum kind kind, void *arg, struct request **out)
{
    struct request *r = NULL;
    int rc = t->gone ? ERR_RESET : t->n >= APP_NET_REQUESTS ? ERR_LIMIT : 0;
    if (rc == 0 && (r = calloc(1, sizeof(*r))) == NULL)
        rc = ERR_NOMEM;
    if (rc == 0 && kind == NET_FORWARD && (r->last = calloc(1, sizeof(*r->last))) == NULL)
        rc = ERR_NOMEM;
    if (rc == 0) {
        rc = tool_post(t->tool, req, &r->id);
        req = NULL;
    }
    json_decref(req);
    if (rc < 0) {
        free(r);
        return app_net_fail(&t->net, rc, "%s", rc == ERR_RESET ? "the node is gone" : err_str(rc));
    }
    r->kind = kind;
    r->arg = arg;
    list_push_back(&t->requests, &r->node);
    t->n++;
    *out = r;
    return 0;
}

/* ---- answers ---- */

/* A node of another version may number its errors in another way: the exit code is the contract. */
static int err_of(const json_t *o)
{
    static const int by_exit[] = {ERR_STATE,   ERR_STATE,   ERR_USAGE,   ERR_NOT_FOUND,
                                  ERR_REFUSED, ERR_TIMEOUT, ERR_NO_ROUTE};
    int code = (int)tool_num(o, "code"), exit_code = (int)tool_num(o, "exit");
    if (code < 0 && err_exit_code(code) == exit_code)
        return code;
    return by_exit[exit_code >= 0 && exit_code <= 6 ? exit_code : 1];
}

static void tell_failure(struct tool_net *t, struct request *r, int err, const char *text)
{
    struct request q = *r;
    struct app_net_failure *failure = &t->net.failure;
    (void)app_net_fail(&t->net, err, "%s", text);
    drop(t, r);
    switch (q.kind) {
    case NET_DIAL:
        q.dialled(q.arg, -1, failure);
        break;
    case NET_LISTEN:
        if (q.state != NULL)
            q.state(q.arg, 0, failure);
        break;
    case NET_IP:
        q.ip(q.arg, NULL, 0, NULL, failure);
        break;
    case NET_SESSIONS:
        q.told(q.arg, NULL, 0, failure);
        break;
    case NET_FORWARD: /* its maker waits for it, or finds the node gone */
        break;
    }
}

static void on_ip(struct tool_net *t, struct request *r, const json_t *o)
{
    struct request q = *r;
    struct pubkey server;
    uint8_t ip[16];
    const char *text = tool_str(o, "ip"), *key = tool_str(o, "server");
    size_t n = inet_pton(AF_INET, text, ip) == 1 ? 4 : inet_pton(AF_INET6, text, ip) == 1 ? 16 : 0;
    if (n == 0 || pubkey_from_hex(&server, key, strlen(key)) < 0) {
        tell_failure(t, r, ERR_FORMAT, "ip: the node's answer cannot be read");
        return;
    }
    drop(t, r);
    q.ip(q.arg, ip, n, &server, NULL);
}

static void copy_text(char *out, size_t cap, const char *text)
{
    size_t n = strnlen(text, cap - 1);
    memcpy(out, text, n);
    out[n] = '\0';
}

static void on_session_row(struct request *r, const json_t *row)
{
    const char *key = tool_str(row, "server");
    struct app_net_session *s = &r->rows[r->n_rows];
    if (r->n_rows == APP_NET_SESSIONS || pubkey_from_hex(&s->server, key, strlen(key)) < 0)
        return;
    copy_text(s->address, sizeof(s->address), tool_str(row, "address"));
    copy_text(s->last_error, sizeof(s->last_error), tool_str(row, "last_error"));
    s->up = json_is_true(json_object_get(row, "up"));
    s->streams = (unsigned)tool_num(row, "streams");
    s->rtt_us = (uint64_t)tool_num(row, "rtt_us");
    r->n_rows++;
}

static void on_sessions(struct tool_net *t, struct request *r)
{
    app_net_sessions_fn *told = r->told;
    void *arg = r->arg;
    struct app_net_session *rows = r->rows;
    size_t n = r->n_rows;
    r->rows = NULL;
    drop(t, r);
    told(arg, rows, n, NULL);
    free(rows);
}

static void on_stream(struct request *r, const json_t *o, int fd)
{
    struct pubkey pk;
    const char *key = tool_str(o, "public_key");
    if (pubkey_from_hex(&pk, key, strlen(key)) == 0)
        r->stream(r->arg, fd, &pk, (uint16_t)tool_num(o, "port"));
    else
        close(fd);
}

static void on_dial_failed(struct request *r, const json_t *o)
{
    struct app_net_failure *f = r->last;
    f->err = err_of(o);
    f->exit = err_exit_code(f->err);
    f->broken = strcmp(tool_str(o, "event"), "broken") == 0;
    strncpy(f->text, tool_str(o, "error"), sizeof(f->text) - 1);
}

static void on_path(struct request *r, const json_t *o)
{
    const char *path = tool_str(o, "path");
    if (r->path != NULL && strlen(path) < APP_NET_PATH)
        memcpy(r->path, path, strlen(path) + 1);
    r->path = NULL;
}

/* A packet for a request; takes fd over. */
static void on_packet(struct tool_net *t, struct request *r, const json_t *o, int fd)
{
    const char *event = tool_str(o, "event");
    const json_t *ok = json_object_get(o, "ok");
    if (json_is_false(ok)) {
        tell_failure(t, r, err_of(o), tool_str(o, "error"));
    } else if (r->kind == NET_DIAL && fd >= 0) {
        struct request q = *r;
        drop(t, r);
        q.dialled(q.arg, fd, NULL);
        return;
    } else if (r->kind == NET_LISTEN && fd >= 0) {
        on_stream(r, o, fd);
        return;
    } else if (r->kind == NET_LISTEN && strcmp(event, "listening") == 0) {
        if (r->state != NULL)
            r->state(r->arg, (uint16_t)tool_num(o, "port"), NULL);
    } else if (r->kind == NET_FORWARD && strcmp(event, "forwarding") == 0) {
        on_path(r, o);
    } else if (r->kind == NET_FORWARD &&
               (strcmp(event, "failed") == 0 || strcmp(event, "broken") == 0)) {
        on_dial_failed(r, o);
    } else if (r->kind == NET_IP && json_is_true(ok)) {
        on_ip(t, r, o);
    } else if (r->kind == NET_SESSIONS && json_is_true(ok)) {
        on_sessions(t, r);
    } else if (r->kind == NET_SESSIONS) {
        on_session_row(r, json_object_get(o, "row"));
    } else if (json_is_true(ok)) { /* a dial without descriptor */
        tell_failure(t, r, ERR_FORMAT, "the node's answer cannot be read");
    }
    if (fd >= 0)
        close(fd);
}

static int node_gone(struct tool_net *t, int err)
{
    struct request *r;
    t->gone = true;
    while ((r = list_first_as(&t->requests, struct request, node)) != NULL)
        tell_failure(t, r, ERR_RESET, "the node closed the control connection");
    return app_net_fail(&t->net, err, "%s",
                        err == ERR_FORMAT ? "the node's answer cannot be read"
                                          : "the node closed the control connection");
}

static int dispatch_one(struct tool_net *t, int timeout_ms)
{
    json_t *o;
    int fd, rc = tool_take(t->tool, timeout_ms, &o, &fd);
    if (rc == ERR_TIMEOUT || rc == ERR_CANCELLED)
        return rc;
    if (rc < 0)
        return node_gone(t, rc);
    struct request *r = find(t, tool_num(o, "id"));
    if (r != NULL)
        on_packet(t, r, o, fd);
    else if (fd >= 0)
        close(fd); /* it was cancelled */
    json_decref(o);
    return 0;
}

static int net_dispatch(struct app_net *net, int timeout_ms)
{
    struct tool_net *t = of(net);
    int rc = t->gone ? ERR_RESET : dispatch_one(t, timeout_ms);
    for (int i = 1; i < TURN && rc == 0; i++)
        rc = dispatch_one(t, 0);
    return rc == ERR_TIMEOUT || rc == ERR_CANCELLED ? 0 : rc;
}

/* ---- the functions of apps/net.h ---- */

static json_t *request_to(struct app_net *net, const char *cmd, const struct pubkey *pk,
                          uint16_t port)
{
    char hex[PUBKEY_HEX + 1];
    json_t *req =
        json_pack("{s:s, s:s, s:i, s:I, s:b}", "cmd", cmd, "pk", pubkey_hex(hex, pk), "port",
                  (int)port, "timeout_ms", (json_int_t)net->timeout_ms, "local", (int)net->direct);
    tool_route(of(net)->tool, req);
    return req;
}

static int net_dial_via(struct app_net *net, const struct pubkey *via, const struct pubkey *pk,
                        uint16_t port, app_net_dial_fn *done, void *arg, uint64_t *handle)
{
    char hex[PUBKEY_HEX + 1];
    struct request *r;
    json_t *req = request_to(net, "dial", pk, port);
    if (via != NULL)
        json_object_set_new(req, "via", json_string(pubkey_hex(hex, via)));
    int rc = start(of(net), req, NET_DIAL, arg, &r);
    if (rc < 0)
        return rc;
    r->dialled = done;
    *handle = (uint64_t)r->id;
    return 0;
}

static int net_dial(struct app_net *net, const struct pubkey *pk, uint16_t port,
                    app_net_dial_fn *done, void *arg, uint64_t *handle)
{
    return net_dial_via(net, NULL, pk, port, done, arg, handle);
}

static int net_listen(struct app_net *net, uint16_t port, app_net_stream_fn *stream,
                      app_net_listen_fn *state, void *arg, uint64_t *handle)
{
    struct request *r;
    json_t *req = json_pack("{s:s, s:i}", "cmd", "listen", "port", (int)port);
    int rc = start(of(net), req, NET_LISTEN, arg, &r);
    if (rc < 0)
        return rc;
    r->stream = stream;
    r->state = state;
    *handle = (uint64_t)r->id;
    return 0;
}

static int net_forward(struct app_net *net, const struct pubkey *pk, uint16_t port,
                       char path[APP_NET_PATH], uint64_t *handle)
{
    struct tool_net *t = of(net);
    struct request *r;
    path[0] = '\0';
    int rc = start(t, request_to(net, "forward", pk, port), NET_FORWARD, NULL, &r);
    if (rc < 0)
        return rc;
    json_int_t id = r->id;
    r->path = path;
    while (rc == 0 && (r = find(t, id)) != NULL && r->path != NULL)
        rc = dispatch_one(t, GRACE_MS);
    if (path[0] != '\0') {
        *handle = (uint64_t)id;
        return 0;
    }
    app_net_cancel(net, (uint64_t)id);
    if (rc == ERR_TIMEOUT)
        (void)app_net_fail(net, rc, "forward: the node does not answer");
    else if (rc == ERR_CANCELLED)
        (void)app_net_fail(net, rc, "interrupted");
    return net->failure.err;
}

static const struct app_net_failure *net_forward_failure(struct app_net *net, uint64_t handle)
{
    struct tool_net *t = of(net);
    (void)net_dispatch(net, 0);
    struct request *r = find(t, (json_int_t)handle);
    memset(&t->told, 0, sizeof(t->told));
    if (r != NULL && r->kind == NET_FORWARD) {
        t->told = *r->last;
        memset(r->last, 0, sizeof(*r->last));
    } else if (t->gone) {
        t->told = net->failure;
    }
    return &t->told;
}

static int net_lookup_ip(struct app_net *net, const struct pubkey *server, app_net_ip_fn *done,
                         void *arg, uint64_t *handle)
{
    char hex[PUBKEY_HEX + 1];
    struct request *r;
    json_t *req = json_pack("{s:s, s:I}", "cmd", "ip", "timeout_ms", (json_int_t)net->timeout_ms);
    if (server != NULL)
        json_object_set_new(req, "server", json_string(pubkey_hex(hex, server)));
    int rc = start(of(net), req, NET_IP, arg, &r);
    if (rc < 0)
        return rc;
    r->ip = done;
    *handle = (uint64_t)r->id;
    return 0;
}

static int net_sessions(struct app_net *net, app_net_sessions_fn *done, void *arg, uint64_t *handle)
{
    struct app_net_session *rows = calloc(APP_NET_SESSIONS, sizeof(*rows));
    struct request *r;
    if (rows == NULL)
        return app_net_fail(net, ERR_NOMEM, "%s", err_str(ERR_NOMEM));
    int rc = start(of(net), json_pack("{s:s}", "cmd", "sessions"), NET_SESSIONS, arg, &r);
    if (rc < 0) {
        free(rows);
        return rc;
    }
    r->told = done;
    r->rows = rows;
    *handle = (uint64_t)r->id;
    return 0;
}

static void net_cancel(struct app_net *net, uint64_t handle)
{
    struct tool_net *t = of(net);
    struct request *r = handle != 0 ? find(t, (json_int_t)handle) : NULL;
    json_int_t id;
    if (r == NULL)
        return;
    if (!t->gone)
        (void)tool_post(t->tool, json_pack("{s:s, s:I}", "cmd", "cancel", "target", r->id), &id);
    drop(t, r);
}

static int net_fd(const struct app_net *net)
{
    return tool_fd(container_of(net, struct tool_net, net)->tool);
}

static const struct app_net_ops ops = {
    .dial = net_dial,
    .dial_via = net_dial_via,
    .listen = net_listen,
    .forward = net_forward,
    .forward_failure = net_forward_failure,
    .lookup_ip = net_lookup_ip,
    .sessions = net_sessions,
    .cancel = net_cancel,
    .fd = net_fd,
    .dispatch = net_dispatch,
};

/* ---- life ---- */

static int ask_self(struct tool_net *t)
{
    json_t *o = NULL;
    int rc = tool_call(t->tool, json_pack("{s:s}", "cmd", "status"), NULL, NULL, &o, NULL);
    const char *pk = tool_str(o, "public_key");
    if (rc == 0 && pubkey_from_hex(&t->net.self, pk, strlen(pk)) < 0)
        rc = tool_fail(ERR_FORMAT, "the node's answer cannot be read");
    json_decref(o);
    return rc;
}

int app_net_open(struct app_net **out, const struct tool_opts *opts, enum tool_needs needs)
{
    struct tool_net *t = calloc(1, sizeof(*t));
    *out = NULL;
    if (t == NULL)
        return tool_fail(ERR_NOMEM, "%s", err_str(ERR_NOMEM));
    t->net.ops = &ops;
    list_init(&t->requests);
    int rc = tool_open(&t->tool, opts, needs);
    if (rc == 0)
        rc = ask_self(t);
    if (rc != 0) {
        app_net_close(&t->net);
        return rc;
    }
    t->net.timeout_ms = tool_timeout_ms(t->tool);
    t->net.direct = opts->direct;
    *out = &t->net;
    return 0;
}

void app_net_close(struct app_net *net)
{
    struct request *r;
    if (net == NULL)
        return;
    struct tool_net *t = of(net);
    while ((r = list_first_as(&t->requests, struct request, node)) != NULL)
        drop(t, r);
    tool_close(t->tool);
    free(t);
}

struct tool *app_net_tool(struct app_net *net)
{
    return of(net)->tool;
}
