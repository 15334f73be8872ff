#include "transport/relay.h"

#include <assert.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "transport/relay_int.h"

#define SYN_BURST_NS  (20 * NS_PER_S) /* of the SYN rate that may be saved up */
#define STALL_NS      (3 * NS_PER_S)  /* a stream that has not moved for so long stalls */
#define LOOK_NS       (NS_PER_S / 2)
#define STOP_FACTOR   4u     /* budgets that a session may hold before its socket is stopped */
#define TOLD_BYTES    65536u /* of change, before the crew is told */
#define TRUNK_STREAMS (1u << 20)
#define TRUNK_OUT     (1u << 20)
#define TRUNK_CONTROL (64u << 20)

static const int codes[16] = {
    0,
    ERR_DMSG_REQ_SIG,
    ERR_DMSG_REQ_TIME,
    ERR_DMSG_REQ_SRC_PK,
    ERR_DMSG_REQ_DST_PK,
    ERR_DMSG_REQ_SRC_PORT,
    ERR_DMSG_REQ_DST_PORT,
    ERR_DMSG_NO_LISTENER,
    ERR_DMSG_NO_NEXT_SESSION,
    ERR_DMSG_RSP_SIG,
    ERR_DMSG_RSP_HASH,
    ERR_DMSG_RSP_REJECTED,
    ERR_DMSG_OBJECT,
    ERR_TIMEOUT,
    ERR_BUSY,
    ERR_RESET,
};

unsigned relay_code_index(int err)
{
    for (unsigned i = 1; i < sizeof(codes) / sizeof(codes[0]); i++)
        if (codes[i] == err)
            return i;
    return 0;
}

/* ---- handshakes ---- */

static void handshake_end(struct rsession *s)
{
    if (s->addr != NULL && !s->up && !s->moved)
        s->relay->stat.handshakes--;
}

static void guard_end(struct rsession *s)
{
    handshake_end(s);
    if (s->addr != NULL)
        guard_leave(s->relay->guard, s->addr, s->up || s->moved);
    s->addr = NULL;
}

static enum guard_who who_is(const struct rsession *s)
{
    return s->dialled || mesh_is_configured(s->relay, &s->pk) ? GUARD_CONFIGURED : GUARD_ANYONE;
}

/* ---- budgets ---- */

static uint64_t stop_bytes(const struct relay *r)
{
    return r->cfg.session_budget * STOP_FACTOR;
}

static void stop_reading(struct rsession *s, bool stop)
{
    if (stop == s->stopped)
        return;
    s->stopped = stop;
    s->relay->stat.stopped += stop ? 1 : 0;
    link_pause(s->link, stop);
}

/* The others need to know only roughly, and what all write to is slow. */
static void tell_buffered(struct relay *r)
{
    size_t now = r->stat.buffered, was = r->told;
    if (crew_size(r->crew) == 1 || (now != 0 && now < was + TOLD_BYTES && was < now + TOLD_BYTES))
        return;
    crew_buffered_add(r->crew, now, was);
    r->told = now;
}

/* When all hold too much, whoever holds more than his share gives up some. */
static bool above_total(const struct relay *r)
{
    unsigned n = crew_size(r->crew);
    size_t own = r->stat.buffered;
    if (n == 1)
        return own > r->cfg.total_budget;
    return own > r->cfg.total_budget / n &&
           crew_buffered(r->crew) - r->told + own > r->cfg.total_budget;
}

void relay_recount(struct rsession *s)
{
    struct relay *r = s->relay;
    /* What came over a trunk counts where it came from: as far. */
    size_t now = s->up && !s->trunk ? yamux_rx_bytes(link_mux(s->link)) + s->far : 0;
    if (now == s->accounted)
        return;
    r->stat.buffered = r->stat.buffered - s->accounted + now;
    s->accounted = now;
    tell_buffered(r);
    if (now <= stop_bytes(r) / 2)
        stop_reading(s, false);
    if (now == 0)
        list_remove(&s->parked_node);
    else if (!list_node_is_linked(&s->parked_node))
        list_push_back(&r->parked, &s->parked_node);
}

/* A bridge whose bytes wait at another worker, for longer than all that wait here. */
static struct bridge *stalled_far(const struct rsession *s)
{
    const struct yamux_stream *st = yamux_longest_stalled(link_mux(s->link));
    struct bridge *b = list_first_as(&s->far_bridges, struct bridge, far_node);
    return b != NULL && (st == NULL || b->far_since_ns < st->rx_since_ns) ? b : NULL;
}

static bool kill_longest_stalled(struct rsession *s)
{
    struct yamux_stream *st = yamux_longest_stalled(link_mux(s->link));
    struct bridge *far = stalled_far(s);
    if (st == NULL && far == NULL)
        return false;
    s->relay->stat.resets_budget++;
    if (far != NULL) {
        bridge_kill(far, ERR_LIMIT);
        relay_recount(s);
        return true;
    }
    if (st->user != NULL) {
        bridge_kill(st->user, ERR_LIMIT);
    } else if (s->announce != NULL) { /* a peer that writes there more than an answer */
        mesh_announce_end(s);
    } else { /* so new that its bridge has not begun */
        yamux_release(st, false);
        link_kick(s->link);
    }
    relay_recount(s);
    return true;
}

static struct rsession *worst_session(struct relay *r)
{
    struct rsession *worst = NULL;
    struct list_node *pos, *tmp;
    list_for_each(pos, tmp, &r->parked)
    {
        struct rsession *s = container_of(pos, struct rsession, parked_node);
        if (worst == NULL || s->accounted > worst->accounted)
            worst = s;
    }
    return worst;
}

/* Its longest stalled stream has not moved for so long that it will not be missed. One that we keep
 * from moving, for the sake of the bandwidth, does not stall. */
static bool has_stalled(const struct rsession *s)
{
    uint64_t now = s->relay->cfg.loop->now_ns;
    const struct bridge *far = stalled_far(s);
    struct yamux_stream *st;
    if (far != NULL && now - far->far_since_ns >= STALL_NS)
        return true;
    while ((st = yamux_longest_stalled(link_mux(s->link))) != NULL &&
           now - st->rx_since_ns >= STALL_NS) {
        if (st->user == NULL || !bridge_waits(st->user, st))
            return true;
        yamux_excuse(st, now);
    }
    return false;
}

/* Above its budget a session loses the streams that stall. Many busy streams are no stall: those
 * may hold more for a moment, until the socket is stopped, and somebody looks again. */
static void fit_session(struct rsession *s)
{
    struct relay *r = s->relay;
    while (s->accounted > r->cfg.session_budget && has_stalled(s) && kill_longest_stalled(s))
        ;
    if (s->accounted <= r->cfg.session_budget)
        return;
    if (s->accounted > stop_bytes(r))
        stop_reading(s, true);
    if (!loop_timer_armed(&r->look_timer))
        loop_timer_set(r->cfg.loop, &r->look_timer, r->cfg.loop->now_ns + LOOK_NS);
}

/* Each round ends a stream that holds bytes, so the sum shrinks until it fits. */
void relay_account(struct rsession *s)
{
    struct relay *r = s->relay;
    struct rsession *worst;
    relay_recount(s);
    fit_session(s);
    while (above_total(r) && (worst = worst_session(r)) != NULL && kill_longest_stalled(worst))
        ;
}

/* Sessions that were above their budget: what was young then may be stalled now. A killed stream
 * may take sessions off the list, so that it is walked by turning it. */
static void on_look(struct loop_timer *t)
{
    struct relay *r = container_of(t, struct relay, look_timer);
    struct list_node *pos, *tmp;
    size_t n = 0;
    list_for_each(pos, tmp, &r->parked) n++;
    for (; n > 0 && !list_empty(&r->parked); n--) {
        struct rsession *s = list_first_as(&r->parked, struct rsession, parked_node);
        list_remove(&s->parked_node);
        list_push_back(&r->parked, &s->parked_node);
        fit_session(s);
    }
}

/* A bucket as one time stamp: each SYN moves it on by its share, it never falls behind now, and it
 * may be SYN_BURST_NS ahead. */
bool relay_syn_allowed(struct rsession *s)
{
    uint64_t rate = (uint64_t)s->relay->cfg.syn_per_s * (s->marked ? RELAY_PEER_FACTOR : 1);
    uint64_t now = s->relay->cfg.loop->now_ns, step = NS_PER_S / rate;
    uint64_t from = s->syn_ns > now ? s->syn_ns : now;
    if (now + SYN_BURST_NS - from < step)
        return false;
    s->syn_ns = from + step;
    return true;
}

/* ---- sessions ---- */

struct rsession *relay_find(struct relay *r, const struct pubkey *pk)
{
    return map_get(&r->table, pk);
}

static void changed(struct relay *r)
{
    if (r->cfg.changed != NULL && !r->freeing)
        r->cfg.changed(r->cfg.arg);
}

void relay_session_drop(struct rsession *s)
{
    struct relay *r = s->relay;
    struct list_node *n;
    mesh_gone(s); /* first, so that nobody is sent this way any more */
    while ((n = list_first(&s->legs)) != NULL) {
        struct leg *leg = container_of(n, struct leg, node);
        bridge_lost(leg->st->user, leg);
    }
    guard_end(s);
    flow_session_end(s);
    r->stat.buffered -= s->accounted;
    tell_buffered(r);
    if (s->trunk)
        r->trunks[s->member] = NULL;
    list_remove(&s->parked_node);
    list_remove(&s->node);
    bool known = false;
    if (s->up && map_get(&r->table, &s->pk) == s) { /* a successor of the same key stays */
        map_del(&r->table, &s->pk);
        known = true;
    }
    link_close(s->link);
    free(s);
    if (known)
        changed(r);
}

int relay_client(struct rsession *s)
{
    struct relay *r = s->relay;
    void *was = NULL;
    if (map_get(&r->table, &s->pk) == s)
        return 0;
    int rc = map_replace(&r->table, s, &was);
    if (rc < 0)
        return rc;
    struct rsession *old = was;
    if (old != NULL) { /* newest wins (docs/protocol/dmsg.md §3.4) */
        r->stat.replaced++;
        if (!old->announced)
            relay_session_drop(old);
    }
    changed(r);
    return 0;
}

/* Its handshake is over, here: it is counted as a session, and goes where its key belongs. True: it
 * has gone, or had to end. */
static bool went_home(struct rsession *s)
{
    struct relay *r = s->relay;
    unsigned home = crew_home(r->crew, &s->pk);
    struct relay_move m = {.addr = s->addr};
    struct conn *conn;
    if (s->dialled || s->local || s->moved)
        return false;
    guard_up(r->guard, s->addr);
    s->up = true; /* for the guard, whatever comes of it */
    if (crew_size(r->crew) == 1)
        return false;
    if (home == r->cfg.index)
        return session_go(link_session(s->link)) < 0; /* link tells of the error */
    if (link_export(s->link, &m.state, &conn) == 0) {
        s->addr = NULL;
        r->cfg.move(r->cfg.arg, home, conn, &m);
        r->stat.moved++;
    }
    relay_session_drop(s);
    return true;
}

static void session_up(struct rsession *s)
{
    struct relay *r = s->relay;
    char name[9];
    s->up = true;
    if (!s->local && !guard_allows(r->guard, &s->pk, who_is(s))) {
        r->stat.refused_key++;
        if (s->dialled)
            mesh_link_down(s, ERR_REFUSED);
        relay_session_drop(s);
        return;
    }
    log_debug(LOG_RELAY, "session up peer=%s from=%s", pubkey_short(name, &s->pk),
              link_conn(s->link)->peer);
    if (s->dialled) {
        mesh_link_up(s);
    } else if (!mesh_hold_back(s) && relay_client(s) < 0) {
        r->stat.refused_limit++;
        relay_session_drop(s);
    }
}

static void on_up(struct link *l)
{
    struct rsession *s = link_arg(l);
    if (s->trunk) {
        s->up = true;
        return;
    }
    handshake_end(s);
    s->pk = *link_remote(l);
    if (!went_home(s))
        session_up(s);
}

static void on_event(struct link *l, const struct yamux_event *ev)
{
    struct rsession *s = link_arg(l);
    if (ev->stream == NULL)
        return;
    if ((ev->what & YAMUX_OPENED) && !bridge_start(s, ev->stream))
        return; /* refused: the stream is gone */
    unsigned what = ev->what & ~(unsigned)YAMUX_OPENED;
    if (what != 0 && ev->stream->user != NULL)
        bridge_event(ev->stream->user, ev->stream, what);
    else if (what != 0 && s->announce != NULL)
        mesh_announce_event(s, ev->stream, what);
    relay_account(s);
}

static void on_down(struct link *l, int err)
{
    struct rsession *s = link_arg(l);
    char name[9] = "-";
    if (s->up || s->moved)
        pubkey_short(name, &s->pk);
    else if (!s->dialled)
        s->relay->stat.handshake_failed++;
    if (s->dialled)
        mesh_link_down(s, err);
    log_debug(LOG_RELAY, "session down peer=%s from=%s reason=\"%s\"", name, link_conn(l)->peer,
              err_str(err));
    relay_session_drop(s);
}

static const struct link_owner owner = {on_up, on_event, on_down};

static struct rsession *session_new_for(struct relay *r)
{
    struct rsession *s = calloc(1, sizeof(*s));
    if (s == NULL)
        return NULL;
    s->relay = r;
    list_init(&s->legs);
    list_init(&s->far_bridges);
    return s;
}

static struct session_cfg session_cfg_of(const struct relay *r)
{
    return (struct session_cfg){
        .env = r->cfg.env,
        .pool = r->cfg.pool,
        .self = r->cfg.self,
        .sk = &r->cfg.sk,
        .handshake_ms = r->cfg.handshake_ms,
        .keepalive_ms = 30000,
        .dead_ms = 18000, /* slow is not dead (incident 6) */
        .mux = {.max_streams = r->cfg.max_streams},
    };
}

/* Takes conn over; state: of one whose handshake was done elsewhere, or NULL. False: out of memory,
 * conn closed. */
static bool session_link(struct rsession *s, struct conn *conn, const struct session_cfg *cfg,
                         struct session_state *state)
{
    struct relay *r = s->relay;
    s->link = state != NULL ? link_import(r->cfg.loop, conn, cfg, state, &owner, s)
                            : link_new(r->cfg.loop, conn, cfg, &owner, s);
    if (s->link == NULL)
        return false;
    flow_session_init(s);
    s->id = ++r->next_id;
    list_push_back(&r->sessions, &s->node);
    return true;
}

struct rsession *relay_dialled(struct relay *r, struct conn *conn, struct target *target,
                               const struct pubkey *pk)
{
    struct rsession *s = session_new_for(r);
    if (s == NULL) {
        conn_close(conn);
        return NULL;
    }
    s->dialled = true;
    s->target = target;
    s->pk = *pk;
    struct session_cfg cfg = session_cfg_of(r);
    cfg.initiator = true;
    cfg.remote = *pk;
    if (session_link(s, conn, &cfg, NULL))
        return s;
    free(s);
    return NULL;
}

void relay_accept(struct relay *r, struct conn *conn, bool local)
{
    struct rsession *s = NULL;
    if (r->draining || (s = session_new_for(r)) == NULL)
        goto refused;
    s->local = local;
    if (!local) {
        if (guard_enter(r->guard, conn, r->cfg.loop->now_ns, &s->addr) < 0)
            goto refused;
        r->stat.handshakes++;
    }
    struct session_cfg cfg = session_cfg_of(r);
    cfg.wait_at_up = !local && crew_size(r->crew) > 1;
    if (!session_link(s, conn, &cfg, NULL)) {
        r->stat.refused_limit++;
        guard_end(s);
        free(s);
        return;
    }
    r->stat.accepted++;
    return;
refused:
    r->stat.refused_limit++;
    free(s);
    conn_close(conn);
}

/* ---- other workers ---- */

void relay_move_drop(struct guard *g, struct relay_move *m)
{
    if (m->addr != NULL)
        guard_leave(g, m->addr, true);
    m->addr = NULL;
    session_state_wipe(&m->state);
}

void relay_arrive(struct relay *r, struct conn *conn, struct relay_move *m)
{
    struct session_cfg cfg = session_cfg_of(r);
    struct rsession *s = r->draining ? NULL : session_new_for(r);
    if (s == NULL) {
        r->stat.refused_limit++;
        relay_move_drop(r->guard, m);
        conn_close(conn);
        return;
    }
    s->moved = true;
    if (session_link(s, conn, &cfg, &m->state)) {
        s->addr = m->addr;
        return;
    }
    r->stat.refused_limit++;
    relay_move_drop(r->guard, m);
    free(s);
}

/* Nobody but us is at the other end: there are no limits, and time does not end it. */
int relay_trunk(struct relay *r, unsigned member, struct conn *conn, struct session_state *st)
{
    struct session_cfg cfg = session_cfg_of(r);
    struct rsession *s = session_new_for(r);
    assert(member != r->cfg.index && member < crew_size(r->crew) && r->trunks[member] == NULL);
    cfg.keepalive_ms = 0;
    cfg.patient = true;
    cfg.mux = (struct yamux_cfg){.max_streams = TRUNK_STREAMS,
                                 .backlog = TRUNK_STREAMS,
                                 .accept_backlog = TRUNK_STREAMS,
                                 .out_high = TRUNK_OUT,
                                 .control_room = TRUNK_CONTROL,
                                 .exact = true,
                                 .reuse_ids = true};
    if (s == NULL) {
        session_state_wipe(st);
        conn_close(conn);
        return ERR_NOMEM;
    }
    s->trunk = true;
    s->member = member;
    s->pk = r->cfg.self;
    if (!session_link(s, conn, &cfg, st)) {
        free(s);
        return ERR_NOMEM;
    }
    r->trunks[member] = s;
    return 0;
}

void relay_trunk_keys(struct env *env, struct session_state *a, struct session_state *b)
{
    *a = *b = (struct session_state){0};
    a->initiator = true;
    env_random(env, a->tx.key, sizeof(a->tx.key));
    env_random(env, a->rx.key, sizeof(a->rx.key));
    b->tx = a->rx;
    b->rx = a->tx;
}

void relay_recheck(struct relay *r)
{
    struct list_node *pos, *tmp;
    list_for_each(pos, tmp, &r->sessions)
    {
        struct rsession *s = container_of(pos, struct rsession, node);
        if (!s->up || s->local || s->trunk || guard_allows(r->guard, &s->pk, who_is(s)))
            continue;
        r->stat.closed_key++;
        if (s->dialled)
            mesh_link_down(s, ERR_REFUSED);
        relay_session_drop(s);
    }
}

void relay_drain(struct relay *r)
{
    struct list_node *pos, *tmp;
    r->draining = true;
    mesh_drain(r);
    list_for_each(pos, tmp, &r->sessions)
    {
        struct rsession *s = container_of(pos, struct rsession, node);
        if (s->trunk)
            continue; /* what goes over it ends by itself */
        if (!s->up) {
            relay_session_drop(s);
            continue;
        }
        yamux_go_away(link_mux(s->link), 0);
        link_kick(s->link);
    }
}

/* ---- the relay itself ---- */

static uint32_t or32(uint32_t v, uint32_t def)
{
    return v != 0 ? v : def;
}

static uint64_t or64(uint64_t v, uint64_t def)
{
    return v != 0 ? v : def;
}

static int guard_of(struct relay *r)
{
    struct guard_cfg gc = r->cfg.guard_cfg;
    r->guard = r->cfg.guard;
    r->own_guard = r->guard == NULL;
    memcpy(gc.hash_key, r->cfg.env->hash_key, sizeof(gc.hash_key));
    return r->own_guard ? guard_new(&r->guard, &gc) : 0;
}

static int crew_of(struct relay *r)
{
    r->crew = r->cfg.crew;
    r->own_crew = r->crew == NULL;
    return r->own_crew ? crew_new(&r->crew, 1, r->cfg.env->hash_key) : 0;
}

int relay_new(struct relay **out, const struct relay_cfg *cfg)
{
    struct relay *r = calloc(1, sizeof(*r));
    if (r == NULL)
        return ERR_NOMEM;
    r->cfg = *cfg;
    r->cfg.max_streams = or32(cfg->max_streams, 2048);
    r->cfg.syn_per_s = or32(cfg->syn_per_s, 200);
    r->cfg.session_budget = or64(cfg->session_budget, UINT64_C(4) << 20);
    r->cfg.total_budget = or64(cfg->total_budget, UINT64_C(256) << 20);
    r->cfg.object_ms = or32(cfg->object_ms, 5000);
    r->cfg.response_ms = or32(cfg->response_ms, 5000);
    r->cfg.drain_ms = or32(cfg->drain_ms, 30000);
    r->cfg.idle_ms = or32(cfg->idle_ms, 300000);
    r->cfg.max_peers = or32(cfg->max_peers, 512);
    r->cfg.max_relayed = or32(cfg->max_relayed, 4096);
    map_init(&r->table, MAP_KEY(struct rsession, pk), cfg->env->hash_key, 0);
    list_init(&r->sessions);
    list_init(&r->parked);
    list_init(&r->bridges);
    r->look_timer.fn = on_look;
    flow_init(r);
    int rc = crew_of(r);
    if (rc == 0)
        rc = mesh_init(r, cfg);
    if (rc == 0)
        rc = guard_of(r);
    if (rc < 0) {
        relay_free(r);
        return rc;
    }
    *out = r;
    return 0;
}

void relay_free(struct relay *r)
{
    struct rsession *s;
    if (r == NULL)
        return;
    r->freeing = true;
    while ((s = list_first_as(&r->sessions, struct rsession, node)) != NULL)
        relay_session_drop(s);
    assert(list_empty(&r->bridges));
    mesh_free(r);
    loop_timer_cancel(r->cfg.loop, &r->look_timer);
    flow_end(r);
    map_free(&r->table);
    if (r->own_guard)
        guard_free(r->guard);
    if (r->own_crew)
        crew_free(r->crew);
    seckey_wipe(&r->cfg.sk);
    free(r);
}

/* ---- looking in ---- */

void relay_stat(const struct relay *r, struct relay_stat *out)
{
    *out = r->stat;
    out->sessions = map_len(&r->table);
    out->peers = map_len(&r->mesh.peers);
    out->missed = map_len(&r->mesh.misses);
}

void relay_stat_add(struct relay_stat *sum, const struct relay_stat *st)
{
    uint64_t to[sizeof(*sum) / sizeof(uint64_t)], from[sizeof(to) / sizeof(uint64_t)];
    uint64_t longest = sum->loop_max_ns > st->loop_max_ns ? sum->loop_max_ns : st->loop_max_ns;
    _Static_assert(sizeof(to) == sizeof(*sum), "members of one size");
    memcpy(to, sum, sizeof(to));
    memcpy(from, st, sizeof(from));
    for (size_t i = 0; i < sizeof(to) / sizeof(to[0]); i++)
        to[i] += from[i];
    memcpy(sum, to, sizeof(to));
    sum->loop_max_ns = longest;
}

uint64_t relay_sessions(const struct relay *r, uint64_t cursor, struct relay_session_info *out,
                        size_t cap, size_t *n)
{
    assert(cap > 0);
    *n = 0;
    for (struct list_node *pos = list_first(&r->sessions); pos != NULL;
         pos = list_next(&r->sessions, pos)) {
        const struct rsession *s = container_of(pos, struct rsession, node);
        struct yamux_stat st;
        if (s->id < cursor || !s->up || s->trunk)
            continue;
        if (*n == cap)
            return s->id;
        yamux_stat(link_mux(s->link), &st);
        struct relay_session_info *i = &out[(*n)++];
        *i = (struct relay_session_info){
            .pk = s->pk,
            .up_ns = session_up_ns(link_session(s->link)),
            .heard_ns = session_heard_ns(link_session(s->link)),
            .streams = st.streams,
            .buffered = s->accounted,
            .bytes_in = st.bytes_in,
            .bytes_out = st.bytes_out,
            .local = s->local,
            .peer = list_node_is_linked(&s->link_node),
        };
        memcpy(i->addr, link_conn(s->link)->peer, sizeof(i->addr));
    }
    return 0;
}
