#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "transport/client_int.h"

#define BACKOFF_MIN_MS    500u
#define BACKOFF_SOON_MS   8000u /* for a server that was up less than so long ago: */
#define SOON_NS           (600 * NS_PER_S)
#define BACKOFF_MAX_MS    60000u
#define LIFE_GOOD_NS      (2 * NS_PER_S) /* a session that lived so long clears the back-off */
#define HOLD_LIFE_NS      (5 * NS_PER_S) /* closed before, without a byte: the hold was too short? */
#define TWIN_LIFE_NS      (45 * NS_PER_S) /* closed by the server before that: maybe a twin's doing */
#define TWIN_TIMES        4u              /* so often in a row: it is one */
#define TWIN_PROBE_NS     (5 * NS_PER_MS)
#define TWIN_MIN_S        30u
#define TWIN_MAX_S        600u
#define RETRY_NS          (2 * NS_PER_S)   /* who needs a session does not retry it faster */
#define REAP_NS           (120 * NS_PER_S) /* sessions that are not held, without streams */
#define FORGET_NS         (300 * NS_PER_S) /* servers that nobody has added, without session */
#define TRIES_BEFORE_NEXT 2u               /* then another server is held instead (incident 11) */
#define WAKE_NS           NS_PER_S         /* dials after a suspend are spread over so much */
#define WAKE_LIMIT_NS     (7 * NS_PER_S)   /* sessions that are silent for so long are gone then */

/* ---- endpoints ---- */

void endpoint_attach(struct endpoint *e, struct cserver *s, struct yamux_stream *mux)
{
    e->server = s;
    e->mux = mux;
    mux->user = e;
    list_push_back(&s->endpoints, &e->node);
    s->n_endpoints += !e->probe;
}

static struct yamux_stream *endpoint_detach(struct endpoint *e)
{
    struct yamux_stream *mux = e->mux;

    e->mux = NULL;
    list_remove(&e->node);
    if (!e->probe && --e->server->n_endpoints == 0)
        e->server->unused_ns = client_now(e->server->client);
    return mux;
}

void endpoint_move(struct endpoint *to, struct endpoint *from)
{
    struct cserver *s = from->server;

    endpoint_attach(to, s, endpoint_detach(from));
}

void endpoint_release(struct endpoint *e, bool linger)
{
    if (e->mux == NULL)
        return;
    struct yamux_stream *mux = endpoint_detach(e);
    mux->user = NULL;
    yamux_release(mux, linger);
    link_kick(e->server->link);
}

void endpoint_kick(struct endpoint *e)
{
    if (e->mux != NULL)
        link_kick(e->server->link);
}

/* ---- the table ---- */

struct cserver *cserver_get(const struct client *c, const struct pubkey *pk)
{
    return map_get(&c->servers, pk);
}

struct cserver *cserver_make(struct client *c, const struct pubkey *pk)
{
    struct cserver *s = cserver_get(c, pk);

    if (s != NULL)
        return s;
    s = calloc(1, sizeof *s);
    if (s == NULL)
        return NULL;
    s->client = c;
    s->pk = *pk;
    s->unused_ns = client_now(c);
    reach_init(s);
    live_init(s);
    list_init(&s->endpoints);
    list_init(&s->waiters);
    list_init(&s->pings);
    if (map_put(&c->servers, s) != 0) {
        free(s);
        return NULL;
    }
    list_push_back(&c->order, &s->node);
    return s;
}

void cserver_drop(struct cserver *s)
{
    struct client *c = s->client;

    assert(s->state == CSERVER_DOWN && list_empty(&s->waiters) && list_empty(&s->pings));
    reach_stop(s);
    map_del(&c->servers, &s->pk);
    list_remove(&s->node);
    list_push_back(&c->dead_servers, &s->node);
    client_reap(c);
}

/* ---- states ---- */

void cserver_state_set(struct cserver *s, enum cserver_state state)
{
    struct client *c = s->client;
    bool was = s->state == CSERVER_UP, is = state == CSERVER_UP;

    c->active += state != CSERVER_DOWN;
    c->active -= s->state != CSERVER_DOWN;
    s->state = state;
    s->since_ns[state] = client_now(c);
    if (was == is)
        return;
    c->stat.sessions_up += is;
    c->stat.sessions_up -= was;
    s->unused_ns = client_now(c);
    if (is && c->stat.sessions_up == 1)
        client_dests_forget(c);
    client_changed(c);
}

static void tell_waiters(struct cserver *s, int err)
{
    struct list all;
    struct list_node *n;

    list_init(&all);
    list_splice(&all, &s->waiters);
    while ((n = list_pop_front(&all)) != NULL) {
        struct cserver_waiter *w = container_of(n, struct cserver_waiter, node);
        w->done(w, err);
    }
}

/* Drop whatever carries the session. Pointers into its mux are gone already. */
static void carrier_close(struct cserver *s)
{
    struct link *link = s->link;

    s->link = NULL;
    s->attached = s->away = false;
    reach_stop(s);
    if (link != NULL)
        link_close(link);
}

static void endpoints_lost(struct cserver *s, int err)
{
    struct list_node *n;

    while ((n = list_first(&s->endpoints)) != NULL) {
        struct endpoint *e = container_of(n, struct endpoint, node);
        endpoint_detach(e)->user = NULL;
        e->event(e, YAMUX_RESET, err);
    }
}

void cserver_close(struct cserver *s, int err)
{
    live_stop(s);
    endpoints_lost(s, err);
    cserver_pong(s, err, 0);
    carrier_close(s);
    cserver_state_set(s, CSERVER_DOWN);
    tell_waiters(s, err);
}

/* ---- back-off ---- */

/* Anything up to 0.5 s, 1 s … and at last half of the cap and up to all of it: 8 s for a server that
 * was up in the last 10 minutes, a minute for others. */
static void back_off(struct cserver *s)
{
    struct client *c = s->client;
    uint64_t now = client_now(c);
    bool soon = s->was_up_ns != 0 && now - s->was_up_ns < SOON_NS;
    uint64_t cap = soon ? BACKOFF_SOON_MS : BACKOFF_MAX_MS, least = 0;
    uint64_t ms = (uint64_t)BACKOFF_MIN_MS << (s->failures < 7 ? s->failures : 7);

    if (ms >= cap) {
        ms = cap;
        least = cap / 2 * NS_PER_MS;
    }
    s->failures++;
    s->failed_ns = now;
    s->next_dial_ns = now + least + env_random_below(c->cfg.env, ms * NS_PER_MS - least);
}

static uint64_t twin_wait_ns(const struct cserver *s)
{
    unsigned shift = s->evictions - TWIN_TIMES;
    uint64_t wait_s = shift < 5 ? (uint64_t)TWIN_MIN_S << shift : TWIN_MAX_S;

    return (wait_s < TWIN_MAX_S ? wait_s : TWIN_MAX_S) * NS_PER_S;
}

/* A session that the server closed before that was evicted, perhaps. The twin waits long too, so
 * that a long life proves nothing while there is one. */
static uint64_t twin_life_ns(const struct cserver *s)
{
    return s->evictions < TWIN_TIMES ? TWIN_LIFE_NS : 4 * twin_wait_ns(s);
}

/* Newest session wins at servers (§3.4): two programs with one key would evict each other for ever,
 * so the one that is evicted several times in a row waits long (incident 3). A server that restarts
 * looks the same but refuses meanwhile: before it comes to that it is dialled at once to see. */
static void twin_back_off(struct cserver *s)
{
    struct client *c = s->client;

    if (s->evictions < TWIN_TIMES) {
        s->next_dial_ns = client_now(c) + env_random_below(c->cfg.env, TWIN_PROBE_NS);
        return;
    }
    uint64_t wait_ns = twin_wait_ns(s);
    s->next_dial_ns = client_now(c) + wait_ns + env_random_below(c->cfg.env, wait_ns / 4);
    s->last_err = ERR_TWIN;
    c->stat.twin_evictions++;
    log_limited(&s->warn, LOG_CLIENT, LOG_LEVEL_WARN,
                "session closed by the server soon after it came up, another instance may use this "
                "key key=%s server=%s times=%u wait_s=%" PRIu64,
                LOG_PK(&c->cfg.self), LOG_PK(&s->pk), s->evictions, wait_ns / NS_PER_S);
}

static bool closed_by_peer(int err)
{
    return err == ERR_EOF || err == ERR_RESET || err == -ECONNRESET || err == -EPIPE;
}

/* A pipe that came without an address cannot be made again. */
static void forget_pipe(struct cserver *s)
{
    if (s->attached && s->n_addrs == 0)
        s->wanted = s->held = false;
}

void cserver_dial_failed(struct cserver *s, int err)
{
    log_debug(LOG_CLIENT, "session not made server=%s addr=%s reason=\"%s\"", LOG_PK(&s->pk),
              s->addr, err_str(err));
    s->last_err = err;
    s->failed_in = s->state;
    s->evictions = 0; /* a server that restarts refuses meanwhile; one with a twin does not */
    back_off(s);
    forget_pipe(s);
    cserver_close(s, err);
    client_reconcile(s->client);
}

static uint32_t hold_ms(const struct cserver *s)
{
    static const uint32_t levels[HOLD_LEVEL_MAX] = {180, 500};

    return s->hold_level == 0 ? s->client->cfg.hold_ms : levels[s->hold_level - 1];
}

/* Old servers drop a session whose first multiplexer bytes come together with the last handshake
 * message, and a loaded one reads both together although there was a pause: make it longer for this
 * server, and try again at once (docs/protocol/dmsg.md §3.1). */
static bool hold_was_short(struct cserver *s, int err, uint64_t life)
{
    const struct session *session = link_session(s->link);

    if (!closed_by_peer(err) || s->attached || s->hold_level == HOLD_LEVEL_MAX ||
        life < hold_ms(s) * NS_PER_MS || life >= HOLD_LIFE_NS ||
        session_heard_ns(session) > session_up_ns(session))
        return false;
    s->hold_level++;
    s->next_dial_ns = client_now(s->client);
    return true;
}

void cserver_session_lost(struct cserver *s, int err)
{
    uint64_t life = client_now(s->client) - s->up_ns;

    s->client->stat.session_lost++;
    log_info(LOG_CLIENT, "session lost server=%s addr=%s age_s=%" PRIu64 " reason=\"%s\"",
             LOG_PK(&s->pk), s->addr, life / NS_PER_S, err_str(err));
    s->last_err = err;
    if (life >= LIFE_GOOD_NS)
        s->failures = 0;
    s->was_up_ns = client_now(s->client);
    if (!hold_was_short(s, err, life)) {
        s->evictions = closed_by_peer(err) && life < twin_life_ns(s) ? s->evictions + 1 : 0;
        back_off(s);
    }
    if (s->evictions >= 2)
        twin_back_off(s);
    forget_pipe(s);
    cserver_close(s, ERR_DMSG_SESSION_CLOSED);
    client_reconcile(s->client);
}

/* ---- the link ---- */

static void on_up(struct link *l)
{
    struct cserver *s = link_arg(l);

    s->up_ns = s->was_up_ns = client_now(s->client);
    s->last_err = 0;
    reach_worked(s);
    log_info(LOG_CLIENT, "session up server=%s addr=%s", LOG_PK(&s->pk), s->addr);
    cserver_state_set(s, CSERVER_UP);
    live_start(s);
    tell_waiters(s, 0);
    client_reconcile(s->client);
}

static void on_event(struct link *l, const struct yamux_event *ev)
{
    struct cserver *s = link_arg(l);

    if (ev->stream == NULL) {
        if (ev->what & YAMUX_PONG) {
            live_heard(s, false);
            cserver_pong(s, 0, ev->rtt_ns);
        }
        if ((ev->what & YAMUX_GOAWAY) && !s->away) {
            s->away = true;
            client_changed(s->client);
            client_reconcile(s->client);
        }
        return;
    }
    if (ev->what & (YAMUX_OPENED | YAMUX_ACKED | YAMUX_READABLE | YAMUX_EOF))
        live_heard(s, true);
    if ((ev->what & YAMUX_OPENED) && !setup_start(s, ev->stream))
        return;
    struct endpoint *e = ev->stream->user;
    if (e == NULL)
        return;
    unsigned what = ev->what & ~(unsigned)YAMUX_OPENED;
    int err = 0;
    if (what & YAMUX_RESET) {
        err = ev->stream->reset_err != 0 ? ev->stream->reset_err : ERR_RESET;
        endpoint_release(e, false);
        what = YAMUX_RESET;
    }
    if (what != 0)
        e->event(e, what, err);
}

static void on_down(struct link *l, int err)
{
    struct cserver *s = link_arg(l);

    if (s->state == CSERVER_UP)
        cserver_session_lost(s, err);
    else
        reach_failed(s, err);
}

static const struct link_owner owner = {on_up, on_event, on_down};

int cserver_handshake(struct cserver *s, struct conn *conn)
{
    struct client *c = s->client;
    struct session_cfg cfg = {
        .env = c->cfg.env,
        .pool = c->cfg.pool,
        .initiator = true,
        .self = c->cfg.self,
        .sk = &c->cfg.sk,
        .remote = s->pk,
        .handshake_ms = 5000,
        .hold_ms = hold_ms(s),
        .keepalive_ms = 30000,
        .dead_ms = 18000,
        .mux = {.client = true, .max_streams = c->cfg.max_streams},
    };

    cserver_state_set(s, CSERVER_HANDSHAKE);
    s->link = link_new(c->cfg.loop, conn, &cfg, &owner, s);
    return s->link != NULL ? 0 : ERR_NOMEM;
}

static bool in_use(const struct cserver *s)
{
    return s->n_endpoints > 0 || !list_empty(&s->waiters) || !list_empty(&s->pings);
}

/* A session that nobody uses or asked to hold gives way. */
static bool make_room(struct client *c)
{
    struct list_node *pos, *tmp;

    if (c->active < c->cfg.max_sessions)
        return true;
    list_for_each(pos, tmp, &c->order)
    {
        struct cserver *s = container_of(pos, struct cserver, node);
        if (s->state == CSERVER_UP && !s->held && !in_use(s)) {
            cserver_close(s, ERR_CLOSED);
            return true;
        }
    }
    return false;
}

int cserver_need(struct cserver *s, struct cserver_waiter *w)
{
    struct client *c = s->client;

    if (cserver_usable(s))
        return 0;
    if (s->state == CSERVER_UP) /* going away */
        return ERR_CLOSED;
    if (s->state == CSERVER_DOWN) {
        if (s->failures > 0 && client_now(c) - s->failed_ns < RETRY_NS)
            return s->last_err;
        if (!make_room(c))
            return ERR_LIMIT;
        reach_start(s);
        if (s->state == CSERVER_DOWN)
            return s->last_err;
    }
    list_push_back(&s->waiters, &w->node);
    return ERR_PENDING;
}

void cserver_forget(struct cserver_waiter *w)
{
    list_remove(&w->node);
}

void cserver_retry(struct cserver *s)
{
    uint64_t now = client_now(s->client);

    s->failed_ns = now > RETRY_NS ? now - RETRY_NS : 0;
}

/* ---- which sessions to hold ---- */

/* The better candidate to hold: up, then the one that may be dialled sooner, then order of adding.
 */
static bool better(const struct cserver *a, const struct cserver *b)
{
    if (b == NULL || cserver_usable(a) != cserver_usable(b))
        return b == NULL || cserver_usable(a);
    return a->next_dial_ns < b->next_dial_ns;
}

static struct cserver *best_candidate(struct client *c)
{
    struct cserver *best = NULL;
    struct list_node *pos, *tmp;

    list_for_each(pos, tmp, &c->order)
    {
        struct cserver *s = container_of(pos, struct cserver, node);
        if (s->wanted && !s->held && !s->away && better(s, best))
            best = s;
    }
    return best;
}

/* Hold `want` of the wanted ones. One that was lost is tried again before another takes its place;
 * one that is up is never given up for another. */
static void choose(struct client *c)
{
    struct list_node *pos, *tmp;
    struct cserver *next;
    unsigned held = 0;

    list_for_each(pos, tmp, &c->order)
    {
        struct cserver *s = container_of(pos, struct cserver, node);
        if (s->held && c->cfg.want > 0 && s->state == CSERVER_DOWN &&
            s->failures >= TRIES_BEFORE_NEXT && (next = best_candidate(c)) != NULL &&
            better(next, s))
            s->held = false;
        held += s->held && !s->away;
    }
    while ((c->cfg.want == 0 || held < c->cfg.want) && (next = best_candidate(c)) != NULL) {
        next->held = true;
        held++;
        if (next->state == CSERVER_UP)
            client_changed(c);
    }
}

/* One server: dial what is held, end what nobody needs. Returns when to look again. */
static uint64_t look_after(struct cserver *s)
{
    struct client *c = s->client;
    uint64_t now = client_now(c);

    if (s->held && s->state == CSERVER_DOWN) {
        if (now < s->next_dial_ns)
            return s->next_dial_ns;
        if (c->active < c->cfg.max_sessions)
            reach_start(s);
        return LOOP_NEVER; /* the end of something looks again */
    }
    if (s->held || in_use(s) || (s->state != CSERVER_UP && s->state != CSERVER_DOWN))
        return LOOP_NEVER;
    if (s->state == CSERVER_DOWN && s->wanted)
        return LOOP_NEVER;
    uint64_t limit = s->state == CSERVER_UP ? REAP_NS : FORGET_NS;
    if (now - s->unused_ns < limit)
        return s->unused_ns + limit;
    if (s->state == CSERVER_UP) {
        log_debug(LOG_CLIENT, "session closed server=%s reason=\"not used\"", LOG_PK(&s->pk));
        cserver_close(s, ERR_CLOSED);
        return now + FORGET_NS;
    }
    cserver_drop(s);
    return LOOP_NEVER;
}

static void reconcile(struct client *c)
{
    struct list_node *pos, *tmp;
    uint64_t at = LOOP_NEVER;

    choose(c);
    list_for_each(pos, tmp, &c->order)
    {
        uint64_t next = look_after(container_of(pos, struct cserver, node));
        if (next < at)
            at = next;
    }
    /* Sessions go out of use without a notice: look again after a while. */
    if (c->active > 0 && at > client_now(c) + REAP_NS / 2)
        at = client_now(c) + REAP_NS / 2;
    if (at != LOOP_NEVER)
        loop_timer_set(c->cfg.loop, &c->reconcile_timer, at);
    else
        loop_timer_cancel(c->cfg.loop, &c->reconcile_timer);
}

void client_reconcile_task(struct loop_task *t)
{
    reconcile(container_of(t, struct client, reconcile_task));
}

void client_reconcile_timer(struct loop_timer *t)
{
    reconcile(container_of(t, struct client, reconcile_timer));
}

void client_reconcile(struct client *c)
{
    if (!c->freeing)
        loop_task_post(c->cfg.loop, &c->reconcile_task);
}

/* ---- what users ask for ---- */

int client_add_server_addrs(struct client *c, const struct pubkey *pk, const char *const *addrs,
                            size_t n)
{
    struct cserver *s;

    if (n == 0 || n > CLIENT_ADDRS_MAX)
        return ERR_FORMAT;
    for (size_t i = 0; i < n; i++) {
        size_t len = strnlen(addrs[i], CONN_ADDR_MAX);
        if (len == 0 || len == CONN_ADDR_MAX)
            return ERR_FORMAT;
    }
    if (pubkey_is_null(pk))
        return ERR_KEY;
    if ((s = cserver_make(c, pk)) == NULL)
        return ERR_LIMIT;
    if (reach_set(s, addrs, n)) {
        s->next_dial_ns = 0; /* what failed were the old addresses */
        s->failures = 0;
    }
    s->wanted = true;
    client_reconcile(c);
    return 0;
}

int client_add_server(struct client *c, const struct pubkey *pk, const char *addr)
{
    return client_add_server_addrs(c, pk, &addr, 1);
}

int client_attach(struct client *c, const struct pubkey *pk, struct conn *conn)
{
    struct cserver *s = cserver_make(c, pk);
    int rc = s == NULL ? ERR_LIMIT : 0;

    if (s != NULL && (s->state == CSERVER_HANDSHAKE || s->state == CSERVER_UP))
        rc = ERR_EXISTS;
    if (rc != 0) {
        conn_close(conn);
        return rc;
    }
    carrier_close(s); /* a dial under way; its waiters get this session */
    s->wanted = s->held = s->attached = true;
    if ((rc = cserver_handshake(s, conn)) != 0)
        cserver_dial_failed(s, rc);
    return rc;
}

void client_remove_server(struct client *c, const struct pubkey *pk)
{
    struct cserver *s = cserver_get(c, pk);

    if (s == NULL)
        return;
    s->wanted = s->held = false;
    if (!in_use(s) && s->state != CSERVER_DOWN)
        cserver_close(s, ERR_CLOSED);
    client_changed(c);
    client_reconcile(c);
}

/* ---- after a pause ---- */

void client_reprobe(struct client *c)
{
    struct list_node *pos, *tmp;

    list_for_each(pos, tmp, &c->order)
    {
        struct cserver *s = container_of(pos, struct cserver, node);
        if (s->state == CSERVER_UP) {
            live_doubt(s, WAKE_LIMIT_NS);
        } else if (s->state == CSERVER_DOWN && s->evictions < TWIN_TIMES) {
            s->next_dial_ns = client_now(c) + env_random_below(c->cfg.env, WAKE_NS);
            s->failures = 0;
        }
    }
    client_dests_forget(c);
    client_reconcile(c);
}

/* ---- looking in ---- */

static uint64_t rtt_of(const struct cserver *s)
{
    if (live_doubtful(s))
        return UINT64_MAX; /* last */
    uint64_t rtt = session_rtt_ns(link_session(s->link));
    return rtt != 0 ? rtt : UINT64_MAX - 1; /* not measured: behind the others */
}

size_t client_usable(const struct client *c, struct cserver **out, size_t cap)
{
    struct list_node *pos, *tmp;
    size_t n = 0;

    list_for_each(pos, tmp, &c->order)
    {
        struct cserver *s = container_of(pos, struct cserver, node);
        if (!cserver_usable(s) || n == cap)
            continue;
        size_t at = n++;
        while (at > 0 && rtt_of(s) < rtt_of(out[at - 1])) {
            out[at] = out[at - 1];
            at--;
        }
        out[at] = s;
    }
    return n;
}

size_t client_delegated(const struct client *c, struct pubkey *out, size_t cap)
{
    struct list_node *pos, *tmp;
    size_t n = 0;

    list_for_each(pos, tmp, &c->order)
    {
        const struct cserver *s = container_of(pos, struct cserver, node);
        if (s->held && cserver_usable(s) && n < cap)
            out[n++] = s->pk;
    }
    return n;
}

static void session_info(const struct cserver *s, struct client_session_info *out)
{
    memset(out, 0, sizeof *out);
    out->server = s->pk;
    memcpy(out->addr, s->addr, sizeof out->addr);
    out->streams = s->n_endpoints;
    out->failures = s->failures;
    out->last_err = s->last_err;
    out->next_dial_ns = s->next_dial_ns;
    if (s->state != CSERVER_UP)
        return;
    const struct session *session = link_session(s->link);
    out->up = true;
    out->up_ns = s->up_ns;
    out->rtt_ns = session_rtt_ns(session);
    out->heard_ns = session_heard_ns(session);
}

size_t client_sessions(const struct client *c, struct client_session_info *out, size_t cap)
{
    struct list_node *pos, *tmp;
    size_t n = 0;

    list_for_each(pos, tmp, &c->order)
    {
        if (n < cap)
            session_info(container_of(pos, struct cserver, node), &out[n]);
        n++;
    }
    return n;
}
