/* Liveness of sessions. Pings of the multiplexer prove the link only, not that the server still
 * serves streams (incident 5): a stream with the ping marker is opened at the start of a session and
 * then each minute in which no stream moved. A server that offers the echo has to give it; one that
 * does not (2023) has to accept the stream. Two misses in a row end the session (incident 6).
 *
 * Who waits for a stream and hears nothing asks at once (live_doubt): until a byte comes the session
 * is the last one that dials use. */
#include <string.h>

#include "base/err.h"
#include "transport/client_int.h"

#define FIRST_NS     (200 * NS_PER_MS) /* sessions that are made for one dial are spared the probe */
#define PERIOD_NS    (60 * NS_PER_S)
#define PERIOD_JIT   25 /* percent */
#define ECHO_NS      (18 * NS_PER_S)
#define MISSES       2u
#define DOUBT_NS     (1500 * NS_PER_MS) /* an answer takes longer only when something is wrong */
#define MARKER_BYTES 2

static void arm(struct cserver *s, uint64_t at)
{
    loop_timer_set(s->client->cfg.loop, &s->live.timer, at);
}

static void arm_period(struct cserver *s)
{
    arm(s, client_now(s->client) + env_jitter_ns(s->client->cfg.env, PERIOD_NS, PERIOD_JIT));
}

/* ---- the echo ---- */

static void echo_end(struct cserver *s, bool good)
{
    struct liveness *l = &s->live;

    endpoint_release(&l->end, false);
    l->asked_ns = 0;
    l->missed = good ? 0 : l->missed + 1;
    if (l->missed >= MISSES)
        cserver_session_lost(s, ERR_TIMEOUT);
    else if (good)
        arm_period(s);
    else
        arm(s, client_now(s->client)); /* once more */
}

static void on_event(struct endpoint *e, unsigned what, int err)
{
    struct liveness *l = container_of(e, struct liveness, end);
    struct cserver *s = e->server;
    uint8_t marker[MARKER_BYTES];

    (void)err;
    if (what & (YAMUX_ACKED | YAMUX_EOF | YAMUX_RESET))
        l->answered = true;
    if ((what & YAMUX_READABLE) && yamux_readable(e->mux) >= MARKER_BYTES) {
        (void)yamux_read(e->mux, marker, sizeof marker);
        l->offered = true;
        echo_end(s, true);
    } else if (what & (YAMUX_EOF | YAMUX_RESET)) {
        if (s->state == CSERVER_UP && s->link != NULL)
            echo_end(s, !l->offered); /* one that does not know the marker has refused it */
    }
}

static void echo_ask(struct cserver *s)
{
    static const uint8_t marker[MARKER_BYTES] = {0, 0};
    struct liveness *l = &s->live;
    struct yamux_stream *mux;

    if (s->away || yamux_open(link_mux(s->link), NULL, client_now(s->client), &mux) != 0) {
        arm_period(s);
        return;
    }
    endpoint_attach(&l->end, s, mux);
    l->answered = false;
    l->asked_ns = client_now(s->client);
    (void)yamux_write(mux, marker, sizeof marker);
    link_kick(s->link);
    arm(s, client_now(s->client) + ECHO_NS);
}

/* ---- time ---- */

static void on_timer(struct loop_timer *t)
{
    struct liveness *l = container_of(t, struct liveness, timer);
    struct cserver *s = container_of(l, struct cserver, live);
    uint64_t now = client_now(s->client);

    if (l->doubt_ns != 0 && now >= l->limit_ns) {
        cserver_session_lost(s, ERR_TIMEOUT);
        return;
    }
    if (l->doubt_ns != 0) {
        arm(s, l->limit_ns);
    } else if (l->asked_ns != 0) {
        if (now - l->asked_ns >= ECHO_NS)
            echo_end(s, l->answered && !l->offered);
        else
            arm(s, l->asked_ns + ECHO_NS);
    } else if (now - l->proof_ns < PERIOD_NS / 2 && l->proof_ns > s->up_ns) {
        arm_period(s);
    } else {
        echo_ask(s);
    }
}

void live_heard(struct cserver *s, bool stream)
{
    s->live.doubt_ns = 0;
    if (stream)
        s->live.proof_ns = client_now(s->client);
}

void live_doubt(struct cserver *s, uint64_t limit_ns)
{
    struct liveness *l = &s->live;
    uint64_t now = client_now(s->client);

    if (s->state != CSERVER_UP || s->client->cfg.no_probes)
        return;
    if (l->doubt_ns != 0) { /* asked already */
        if (now + limit_ns < l->limit_ns)
            l->limit_ns = now + limit_ns;
    } else {
        l->doubt_ns = now;
        l->limit_ns = now + limit_ns;
        (void)session_ping(link_session(s->link), now); /* busy: one is under way */
        link_kick(s->link);
    }
    if (l->limit_ns < l->timer.at_ns || !loop_timer_armed(&l->timer))
        arm(s, l->limit_ns);
}

bool live_doubtful(const struct cserver *s)
{
    return s->live.doubt_ns != 0 && client_now(s->client) - s->live.doubt_ns >= DOUBT_NS;
}

/* ---- life ---- */

void live_init(struct cserver *s)
{
    s->live.timer.fn = on_timer;
}

void live_start(struct cserver *s)
{
    struct liveness *l = &s->live;

    *l = (struct liveness){.timer = l->timer, .end = {.event = on_event, .probe = true}};
    l->proof_ns = client_now(s->client);
    if (s->client->cfg.no_probes)
        return;
    (void)session_ping(link_session(s->link), client_now(s->client)); /* orders sessions, too */
    link_kick(s->link);
    arm(s, client_now(s->client) + env_jitter_ns(s->client->cfg.env, FIRST_NS, 50));
}

void live_stop(struct cserver *s)
{
    loop_timer_cancel(s->client->cfg.loop, &s->live.timer);
    s->live.doubt_ns = s->live.asked_ns = 0;
    if (s->link != NULL)
        endpoint_release(&s->live.end, false);
}
