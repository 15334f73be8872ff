/*
 * relay_flow - the bandwidth limits of a relay (relay.h): who may move bytes now, who waits in line.
 *
 * Bytes are charged to the session that they came from and to the relay. A direction of a bridge that
 * may not move waits in its session's line; a session with such a line waits for its own meter
 * (flow_timer), then for the relay's (relay.hungry). They are served in turn, FLOW_QUANTUM bytes
 * each: sessions get equal shares of the whole, streams equal shares of their session. Timers run
 * only while somebody waits, and not more often than every 5 ms.
 */
#include "base/err.h"
#include "transport/relay_int.h"

#define FLOW_QUANTUM 16384u
#define FLOW_TICK_NS (5 * NS_PER_MS)
#define FLOW_ROUNDS  256 /* quanta in one turn of the loop */

static uint64_t now_of(const struct relay *r)
{
    return r->cfg.loop->now_ns;
}

static bool is_open(const struct relay *r, const struct meter *m)
{
    return meter_ready_ns(m, now_of(r)) == now_of(r);
}

static void arm(struct relay *r, struct loop_timer *t, uint64_t at_ns)
{
    uint64_t soonest = now_of(r) + FLOW_TICK_NS;
    if (!loop_timer_armed(t))
        loop_timer_set(r->cfg.loop, t, at_ns > soonest ? at_ns : soonest);
}

/* Where a session with a line waits next. */
static void session_queue(struct rsession *s)
{
    struct relay *r = s->relay;
    if (list_empty(&s->waiting) || list_node_is_linked(&s->hungry_node) ||
        loop_timer_armed(&s->flow_timer))
        return;
    if (!is_open(r, &s->meter)) {
        arm(r, &s->flow_timer, meter_ready_ns(&s->meter, now_of(r)));
        return;
    }
    list_push_back(&r->hungry, &s->hungry_node);
    if (r->served == NULL)
        arm(r, &r->flow_timer, meter_ready_ns(guard_meter(r->guard), now_of(r)));
}

static void enqueue(struct leg *leg)
{
    struct relay *r = leg->session->relay;
    if (list_node_is_linked(&leg->wait_node))
        return;
    list_push_back(&leg->session->waiting, &leg->wait_node);
    r->stat.throttled++;
    r->stat.throttle_waits++;
    session_queue(leg->session);
}

void flow_leave(struct leg *leg)
{
    if (!list_node_is_linked(&leg->wait_node))
        return;
    list_remove(&leg->wait_node);
    leg->session->relay->stat.throttle_waits--;
}

static void serve(struct relay *r)
{
    struct meter *all = guard_meter(r->guard);
    struct rsession *s;
    for (int i = 0; i < FLOW_ROUNDS && !list_empty(&r->hungry) && is_open(r, all); i++) {
        s = list_pop_front_as(&r->hungry, struct rsession, hungry_node);
        struct leg *leg = list_first_as(&s->waiting, struct leg, wait_node);
        if (leg == NULL)
            continue; /* whoever waited has ended */
        flow_leave(leg);
        r->served = leg;
        bridge_resume(leg->st->user, leg->st); /* may end it */
        r->served = NULL;
        session_queue(s);
    }
    if (!list_empty(&r->hungry))
        arm(r, &r->flow_timer, meter_ready_ns(all, now_of(r)));
}

static void on_relay_timer(struct loop_timer *t)
{
    serve(container_of(t, struct relay, flow_timer));
}

static void on_session_timer(struct loop_timer *t)
{
    session_queue(container_of(t, struct rsession, flow_timer));
}

size_t flow_may(struct leg *from)
{
    struct rsession *s = from->session;
    struct relay *r = s->relay;
    const struct meter *all = guard_meter(r->guard);
    if ((s->meter.bytes_per_s == 0 && all->bytes_per_s == 0) || s->trunk)
        return SIZE_MAX; /* what comes over a trunk was charged where it came from */
    if (r->served == from || (list_empty(&s->waiting) && list_empty(&r->hungry) &&
                              is_open(r, all) && is_open(r, &s->meter)))
        return FLOW_QUANTUM;
    if (yamux_readable(from->st) > 0)
        enqueue(from);
    return 0;
}

void flow_moved(struct leg *from, size_t n)
{
    struct rsession *s = from->session;
    struct relay *r = s->relay;
    struct meter *all = guard_meter(r->guard);
    if ((s->meter.bytes_per_s == 0 && all->bytes_per_s == 0) || s->trunk)
        return;
    meter_take(all, now_of(r), n);
    /* a relay speaks for many clients */
    meter_take(&s->meter, now_of(r), s->marked ? n / RELAY_PEER_FACTOR : n);
    if (n == FLOW_QUANTUM && yamux_readable(from->st) > 0)
        enqueue(from);
}

void flow_session_init(struct rsession *s)
{
    list_init(&s->waiting);
    s->flow_timer.fn = on_session_timer;
    s->meter.bytes_per_s = s->local ? 0 : s->relay->cfg.key_bytes_per_s;
}

void flow_session_end(struct rsession *s)
{
    loop_timer_cancel(s->relay->cfg.loop, &s->flow_timer);
    list_remove(&s->hungry_node);
}

void flow_init(struct relay *r)
{
    list_init(&r->hungry);
    r->flow_timer.fn = on_relay_timer;
}

void flow_end(struct relay *r)
{
    loop_timer_cancel(r->cfg.loop, &r->flow_timer);
}
