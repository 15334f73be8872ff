/*
 * ctl_forward - the command "forward": a unix socket of which every accepted connection becomes a new stream to one pk:port (compat-http/stream_forward.h).
 *
 * The answers are events: {"event": "forwarding", "path"} first, {"event": "failed", "error", "exit", "code"} for each dial that failed (sent before its connection is
 * closed, so that who sees the close finds the reason). The socket lives as long as the request; what is bridged already lives on.
 *
 * Limits: FORWARDS per node. A dial has the request's timeout_ms.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"
#include "compat-http/stream_forward.h"
#include "node/node_int.h"

#define FORWARDS 1024

struct forward {
    struct node *owner;
    struct ctl_req *req;
    struct pubkey pk;
    uint16_t port;
    struct stream_forward *socket;
};

static void forward_gone(struct ctl_req *req)
{
    struct forward *f = req->user;
    stream_forward_free(f->socket);
    f->owner->forward_stat.forwards--;
    free(f);
}

static void tell(struct forward *f, const char *event, int err, const char *text)
{
    if (ctl_row_room(f->req)) /* else the tool does not listen; its connection still ends */
        ctl_event(f->req,
                  json_pack("{s:s, s:s, s:i, s:i}", "event", event, "error", text, "exit",
                            err_exit_code(err), "code", err),
                  -1);
}

static void tell_failure(void *arg, int err, const struct stream *st)
{
    struct forward *f = arg;
    char pk[PUBKEY_HEX + 1], steps[CTL_STEPS_TEXT] = "", text[CTL_STEPS_TEXT + 300];
    size_t n = 0;
    const struct client_step *s = st != NULL ? stream_dial_steps(st, &n) : NULL;
    if (n > 0)
        client_steps_text(s, n, steps, sizeof(steps));
    snprintf(text, sizeof(text), "dial %s:%u: %s%s%s%s", pubkey_hex(pk, &f->pk), f->port,
             err_str(err), n > 0 ? " (" : "", steps, n > 0 ? ")" : "");
    tell(f, "failed", err, text);
}

static void tell_broken(void *arg, int err)
{
    struct forward *f = arg;
    char pk[PUBKEY_HEX + 1], text[300];
    snprintf(text, sizeof(text), "stream with %s:%u: %s", pubkey_hex(pk, &f->pk), f->port,
             err_str(err));
    tell(f, "broken", err, text);
}

int node_forward_path(struct node *n, char path[PATHS_MAX])
{
    char name[24];
    int rc = fresh_dir_make(&n->forward_dir);
    snprintf(name, sizeof(name), "%llu", (unsigned long long)++n->forward_stat.made);
    return rc < 0 ? rc : paths_join(path, n->forward_dir.path, name);
}

static int forward_open(struct forward *f, unsigned timeout_ms, unsigned flags,
                        const struct pubkey *via)
{
    char path[PATHS_MAX];
    struct stream_forward_cfg cfg = {
        .drive = f->owner->drive,
        .client = f->owner->client,
        .bridges = &f->owner->bridges,
        .stat = &f->owner->forward_stat.streams,
        .pk = f->pk,
        .port = f->port,
        .timeout_ms = timeout_ms,
        .flags = flags,
        .via = *via,
        .failed = tell_failure,
        .broken = tell_broken,
        .arg = f,
    };
    int rc = node_forward_path(f->owner, path);
    return rc < 0 ? rc : stream_forward_new(&f->socket, &cfg, path);
}

void ctl_forward(struct ctl_req *req)
{
    struct node *n = req->node_arg;
    struct pubkey pk, via = {0};
    json_int_t port;
    unsigned timeout_ms;
    bool through = json_object_get(req->args, "via") != NULL;
    if (ctl_arg_pubkey(req, "pk", &pk) < 0 || (through && ctl_arg_pubkey(req, "via", &via) < 0) ||
        ctl_arg_timeout(req, &timeout_ms) < 0 ||
        ctl_arg_range(req, "port", 1, 65535, 80, &port) < 0)
        return;
    struct forward *f = n->forward_stat.forwards < FORWARDS ? calloc(1, sizeof(*f)) : NULL;
    if (f == NULL) {
        ctl_fail(req, ERR_LIMIT, "forward: more than %d at once", FORWARDS);
        return;
    }
    f->owner = n;
    f->req = req;
    f->pk = pk;
    f->port = (uint16_t)port;
    int rc = forward_open(f, timeout_ms, node_dial_flags(n, req), &via);
    if (rc < 0) {
        free(f);
        ctl_fail(req, rc, "forward: socket below the run directory: %s", err_str(rc));
        return;
    }
    n->forward_stat.forwards++;
    req->user = f;
    req->gone = forward_gone;
    ctl_event(
        req, json_pack("{s:s, s:s}", "event", "forwarding", "path", stream_forward_path(f->socket)),
        -1);
}
