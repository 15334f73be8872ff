#include <string.h>

#include "base/err.h"
#include "transport/client_int.h"

static void ask_stop(struct ask *a)
{
    loop_timer_cancel(a->client->cfg.loop, &a->timer);
    env_pk_cancel(a->client->cfg.env, &a->wait);
}

static void ask_fail(struct ask *a, int err)
{
    ask_stop(a);
    endpoint_release(&a->end, false);
    a->done(a, err);
}

void ask_cancel(struct ask *a)
{
    if (a->client == NULL)
        return;
    ask_stop(a);
    endpoint_release(&a->end, false);
}

/* ---- the answer ---- */

static void judged(struct pk_wait *w)
{
    struct ask *a = container_of(w, struct ask, wait);
    int err = w->res.err;

    if (err != 0) {
        ask_fail(a, ERR_DMSG_RSP_SIG);
        return;
    }
    if (a->verdict != 0) {
        a->refused = true;
        ask_fail(a, a->verdict);
        return;
    }
    ask_stop(a);
    a->done(a, 0);
}

static int keep_answer(struct ask *a, const struct object_response *rsp)
{
    if (rsp->noise_msg.n > sizeof a->noise || rsp->ip.n > sizeof a->ip)
        return ERR_TOO_LONG;
    memcpy(a->noise, rsp->noise_msg.n > 0 ? rsp->noise_msg.p : a->noise, rsp->noise_msg.n);
    memcpy(a->ip, rsp->ip.n > 0 ? rsp->ip.p : a->ip, rsp->ip.n);
    a->noise_n = rsp->noise_msg.n;
    a->ip_n = rsp->ip.n;
    a->verdict = object_response_verdict(rsp);
    return 0;
}

/* Checks of §4.6 on the dialer's side, in their order. */
static void read_answer(struct ask *a)
{
    struct client *c = a->client;
    struct object_response rsp;
    size_t n;

    int rc = client_read_object(c, &a->end, &n);
    if (rc == ERR_AGAIN)
        return;
    if (rc == 0)
        rc = object_decode_response(&rsp, c->scratch, n);
    if (rc == 0)
        rc = object_check_response(&rsp, a->req_hash);
    if (rc == 0)
        rc = keep_answer(a, &rsp);
    if (rc == 0) {
        a->answered = true;
        a->wait.done = judged;
        rc = client_verify_scratch(c, &a->wait, &a->signer, n);
    }
    if (rc == 0)
        judged(&a->wait);
    else if (rc != ERR_PENDING)
        ask_fail(a, rc);
}

/* ---- the request ---- */

/* 0, also when it has to wait for room. */
static int write_request(struct ask *a)
{
    int rc = session_write_object(link_session(a->end.server->link), a->end.mux, a->req, a->req_n);
    a->written = rc == 0;
    endpoint_kick(&a->end);
    return rc == ERR_AGAIN ? 0 : rc; /* YAMUX_WRITABLE follows */
}

static void on_event(struct endpoint *e, unsigned what, int err)
{
    struct ask *a = container_of(e, struct ask, end);

    if (what & YAMUX_RESET) {
        ask_fail(a, err);
        return;
    }
    if ((what & YAMUX_WRITABLE) && !a->written) {
        int rc = write_request(a);
        if (rc != 0) {
            ask_fail(a, rc);
            return;
        }
    }
    if ((what & (YAMUX_READABLE | YAMUX_EOF)) && !a->answered)
        read_answer(a);
}

static void on_timer(struct loop_timer *t)
{
    ask_fail(container_of(t, struct ask, timer), ERR_TIMEOUT);
}

int ask_start(struct ask *a, struct cserver *s, unsigned timeout_ms)
{
    struct client *c = s->client;
    struct yamux_stream *mux;

    a->client = c;
    a->end.event = on_event;
    a->timer.fn = on_timer;
    a->written = a->answered = a->refused = false;
    a->noise_n = a->ip_n = 0;
    int rc = yamux_open(link_mux(s->link), NULL, client_now(c), &mux);
    if (rc != 0)
        return rc;
    endpoint_attach(&a->end, s, mux);
    rc = write_request(a);
    if (rc != 0) {
        endpoint_release(&a->end, false);
        return rc;
    }
    loop_timer_set(c->cfg.loop, &a->timer, client_now(c) + timeout_ms * NS_PER_MS);
    return 0;
}
