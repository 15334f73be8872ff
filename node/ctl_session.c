/*
 * ctl_session - command "session": have a session to one relay, and tell how it was made.
 *
 *     {"cmd": "session", "pk": …, "address": "host:port"}   the address is optional
 *     {"ok": true, "up": true, "server", "address", "existing", "find_ms", "tcp_ms", "handshake_ms",
 *      "ms", "rtt_ms"}                                      rtt_ms: of a ping in the session
 *     {"ok": true, "up": false, "server", "address", "phase", "reason", "exit", "ms", …}
 */
#include <stdlib.h>

#include "base/err.h"
#include "node/node_int.h"

struct session_try {
    struct list_node node; /* in node->session_tries */
    struct node *owner;
    struct ctl_req *req; /* NULL: gone */
    struct pubkey pk;
    unsigned timeout_ms;
    json_t *answer; /* while the ping is under way */
    bool fresh;     /* a new session, not pinged yet */
};

static void try_free(struct session_try *t)
{
    if (t->req != NULL)
        t->req->gone = NULL;
    list_remove(&t->node);
    json_decref(t->answer);
    free(t);
}

void ctl_sessions_free(struct node *n)
{
    struct session_try *t;
    while ((t = list_first_as(&n->session_tries, struct session_try, node)) != NULL)
        try_free(t);
}

static void try_gone(struct ctl_req *req)
{
    ((struct session_try *)req->user)->req = NULL;
}

static double ms(uint64_t ns)
{
    return (double)ns / 1e6;
}

static const char *phase_name(enum client_connect_phase phase)
{
    switch (phase) {
    case CLIENT_CONNECT_FIND:
        return "look-up";
    case CLIENT_CONNECT_TCP:
        return "TCP connect";
    case CLIENT_CONNECT_HANDSHAKE:
        return "handshake";
    case CLIENT_CONNECT_UP:
        return "session";
    }
    return "";
}

static void answer(struct session_try *t)
{
    struct ctl_req *req = t->req;
    json_t *o = t->answer;
    t->answer = NULL;
    try_free(t);
    if (req != NULL)
        ctl_ok(req, o, -1);
    else
        json_decref(o);
}

static void failed(struct session_try *t, const char *phase, int err)
{
    json_object_update_new(t->answer,
                           json_pack("{s:b, s:s, s:s, s:i}", "up", 0, "phase", phase, "reason",
                                     err_str(err), "exit", err_exit_code(err)));
    answer(t);
}

static void on_pong(void *arg, int err, uint64_t rtt_ns)
{
    struct session_try *t = arg;
    /* What is sent right behind the handshake is held back for a moment (session.h), so the first ping of a fresh
     * session does not tell the round trip. */
    bool again = err == 0 && t->fresh;
    t->fresh = false;
    if (again)
        err = client_ping_server(t->owner->client, &t->pk, t->timeout_ms, on_pong, t);
    if (again && err == 0)
        return;
    if (err != 0) {
        failed(t, "ping", err);
        return;
    }
    json_object_set_new(t->answer, "rtt_ms", json_real(ms(rtt_ns)));
    answer(t);
}

static void on_connected(void *arg, const struct client_connect_report *r)
{
    struct session_try *t = arg;
    char pk[PUBKEY_HEX + 1];
    t->answer = json_pack("{s:b, s:s, s:s, s:b, s:f, s:f, s:f, s:f}", "up", r->err == 0, "server",
                          pubkey_hex(pk, &t->pk), "address", r->addr, "existing", (int)r->existed,
                          "find_ms", ms(r->find_ns), "tcp_ms", ms(r->tcp_ns), "handshake_ms",
                          ms(r->handshake_ns), "ms", ms(r->total_ns));
    if (t->answer == NULL || t->req == NULL) {
        answer(t);
        return;
    }
    int rc = r->err;
    t->fresh = !r->existed;
    if (rc == 0)
        rc = client_ping_server(t->owner->client, &t->pk, t->timeout_ms, on_pong, t);
    if (rc != 0)
        failed(t, r->err != 0 ? phase_name(r->phase) : "ping", rc);
}

void ctl_session(struct ctl_req *req)
{
    struct node *n = req->node_arg;
    struct pubkey pk;
    unsigned timeout_ms;
    const char *addr = ctl_arg_str(req, "address", "");
    if (ctl_arg_pubkey(req, "pk", &pk) < 0 || ctl_arg_timeout(req, &timeout_ms) < 0)
        return;
    if (addr[0] != '\0')
        servers_learn(n, &pk, addr);
    struct session_try *t = calloc(1, sizeof(*t));
    int rc = ERR_NOMEM;
    if (t != NULL) {
        *t = (struct session_try){.owner = n, .req = req, .pk = pk, .timeout_ms = timeout_ms};
        rc = client_connect(n->client, &pk, timeout_ms, on_connected, t);
    }
    if (rc < 0) {
        free(t);
        ctl_fail(req, rc, NULL);
        return;
    }
    req->user = t;
    req->gone = try_gone;
    list_push_back(&n->session_tries, &t->node);
}
