#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "transport/client_int.h"

#define EXISTING_MAX 16u
#define MESH_MAX     2u /* before new sessions are made … */
#define CONNECT_MAX  2u
#define MESH_MORE    2u /* … and behind the first of these */
#define CONNECT_MORE 6u
#define CANDIDATES   (EXISTING_MAX + MESH_MAX + 2 * CONNECT_MAX + MESH_MORE + CONNECT_MORE)
#define MUTE_NS      (120 * NS_PER_S) /* a server without mesh answers nothing: not asked so long */
#define DOUBT_NS     (10 * NS_PER_S)  /* of silence, after a request went unanswered */
#define ROUTE_MAX    (sizeof((struct client_route *)NULL)->servers / sizeof(struct pubkey))

#define STAGGER_CONNECT_NS (250 * NS_PER_MS)
#define STAGGER_STREAM_NS  (750 * NS_PER_MS) /* a second stream may reach the destination too */

enum dial_state {
    DIAL_START,
    DIAL_DISTRUST, /* the resolver is told that its answer led nowhere */
    DIAL_RESOLVE,  /* waiting for it */
    DIAL_NOISE,    /* KK message 1 is being built */
    DIAL_SIGN,     /* the request is being signed */
    DIAL_LADDER,   /* attempts run */
    DIAL_FINISH,   /* KK message 2 is being read */
};

struct candidate {
    enum client_phase phase;
    struct pubkey server;
};

struct attempt {
    struct dial *dial;
    struct list_node node;
    struct candidate what;
    uint64_t began_ns;
    bool done;
    unsigned again; /* times that it was made again */
    int err;
    struct cserver_waiter waiter;
    struct ask ask;
};

struct dial {
    struct stream *stream;
    struct client *client;
    enum dial_state state;
    struct loop_task task;
    struct loop_timer stagger;
    uint64_t began_ns; /* the look-up */

    uint64_t ticket; /* in client->tickets while RESOLVE */
    unsigned flags;  /* for it */
    bool now;        /* whatever is remembered of the destination */
    bool direct;     /* route is of the static table: the caller's word, before the mesh */
    bool through;    /* the one server of route only: says nothing about the destination */
    bool answered, asked;
    int resolve_err;
    struct client_route route;

    struct noise noise;
    struct pk_wait wait;
    uint8_t *obj; /* the signed request */
    size_t obj_n;
    struct hash req_hash;
    int rc; /* of the work that was pending */

    struct candidate candidates[CANDIDATES];
    size_t n_candidates, next;
    struct pubkey tried[2 * CANDIDATES]; /* by existing or new sessions, both rounds */
    size_t n_tried;
    bool go; /* start the next candidate now */
    struct list attempts;
    struct attempt *winner;
    int last_err; /* of an attempt, the most telling one */
};

static void attempt_step(struct attempt *a, int err)
{
    const struct cserver *s = cserver_get(a->dial->client, &a->what.server);

    stream_step_add(a->dial->stream, a->what.phase, &a->what.server, s != NULL ? s->addr : "", err,
                    a->began_ns);
}

/* ---- the end of a dial ---- */

static void attempt_free(struct attempt *a)
{
    cserver_forget(&a->waiter);
    ask_cancel(&a->ask);
    list_remove(&a->node);
    free(a);
}

/* Another way was found while a server was asked for a destination of others and said nothing. */
static void attempt_mute(const struct attempt *a)
{
    struct client *c = a->dial->client;
    struct cserver *s = cserver_get(c, &a->what.server);

    if (s != NULL && a->what.phase == CLIENT_PHASE_MESH &&
        client_now(c) - a->began_ns >= STAGGER_STREAM_NS)
        s->mute_ns = client_now(c) + MUTE_NS;
}

static void attempts_stop(struct dial *d, int err)
{
    struct attempt *a;

    while ((a = list_first_as(&d->attempts, struct attempt, node)) != NULL) {
        if (!a->done)
            attempt_mute(a);
        attempt_step(a, a->done ? a->err : err);
        attempt_free(a);
    }
    d->winner = NULL;
    loop_timer_cancel(d->client->cfg.loop, &d->stagger);
}

static void ticket_drop(struct dial *d, bool cancel)
{
    struct client *c = d->client;

    if (d->ticket == 0)
        return;
    uint64_t ticket = d->ticket;
    map_del(&c->tickets, &d->ticket);
    d->ticket = 0;
    if (cancel && c->cfg.hooks.resolve_cancel != NULL)
        c->cfg.hooks.resolve_cancel(c->cfg.hooks.arg, ticket);
}

void dial_free(struct stream *st)
{
    struct dial *d = st->dial;

    if (d == NULL)
        return;
    st->dial = NULL;
    client_dest_release(d->client, &st->remote, d);
    attempts_stop(d, ERR_CANCELLED);
    loop_task_cancel(d->client->cfg.loop, &d->task);
    env_pk_cancel(d->client->cfg.env, &d->wait);
    noise_wipe(&d->noise);
    ticket_drop(d, true);
    free(d->obj);
    free(d);
}

static void give_up(struct dial *d, int err)
{
    d->client->stat.dial_failed++;
    stream_fail(d->stream, err);
}

static bool is_local(const struct dial *d)
{
    return (d->flags & CLIENT_DIAL_LOCAL) != 0;
}

/* The destination itself said no: it can be reached. */
static void refused(struct dial *d, int err)
{
    attempts_stop(d, ERR_CANCELLED);
    client_dest_reached(d->client, &d->stream->remote);
    give_up(d, err);
}

static void unreachable(struct dial *d, int err)
{
    attempts_stop(d, ERR_CANCELLED);
    if (!d->through)
        client_dest_failed(d->client, &d->stream->remote, err, is_local(d));
    give_up(d, err);
}

void dial_timeout(struct stream *st)
{
    struct dial *d = st->dial;

    /* Attempts had less than their own time: this says nothing about the destination. */
    if (d->state == DIAL_RESOLVE)
        stream_step_add(d->stream, CLIENT_PHASE_RESOLVE, NULL, "", ERR_TIMEOUT, d->began_ns);
    attempts_stop(d, ERR_TIMEOUT);
    give_up(d, ERR_TIMEOUT);
}

/* ---- candidates ---- */

static bool in_route(const struct dial *d, const struct pubkey *pk)
{
    for (size_t i = 0; i < d->route.n_servers; i++) {
        if (pubkey_equal(&d->route.servers[i], pk))
            return true;
    }
    return false;
}

static bool was_tried(const struct dial *d, const struct pubkey *pk)
{
    for (size_t i = 0; i < d->n_tried; i++) {
        if (pubkey_equal(&d->tried[i], pk))
            return true;
    }
    return false;
}

static void candidate_add(struct dial *d, enum client_phase phase, const struct pubkey *pk)
{
    if (was_tried(d, pk) || d->n_candidates == CANDIDATES ||
        d->n_tried == sizeof d->tried / sizeof d->tried[0])
        return;
    d->candidates[d->n_candidates++] = (struct candidate){phase, *pk};
    d->tried[d->n_tried++] = *pk;
}

/* Servers that lead to the destination: those of its entry, and itself when it is one. */
static void route_add(struct dial *d, const struct pubkey *pk)
{
    if (!in_route(d, pk) && d->route.n_servers < ROUTE_MAX)
        d->route.servers[d->route.n_servers++] = *pk;
}

enum up_which { UP_GOOD, UP_MUTE, UP_DOUBTFUL };

static enum up_which up_which(const struct cserver *s, enum client_phase phase)
{
    if (live_doubtful(s))
        return UP_DOUBTFUL;
    bool mute = phase == CLIENT_PHASE_MESH && client_now(s->client) < s->mute_ns;
    return mute ? UP_MUTE : UP_GOOD;
}

static void candidates_up(struct dial *d, enum client_phase phase, enum up_which which, size_t max)
{
    struct cserver *up[64];
    size_t n = client_usable(d->client, up, sizeof up / sizeof up[0]);
    size_t limit = d->n_candidates + max;

    for (size_t i = 0; i < n && d->n_candidates < limit; i++) {
        if (in_route(d, &up[i]->pk) == (phase == CLIENT_PHASE_EXISTING) &&
            up_which(up[i], phase) <= which)
            candidate_add(d, phase, &up[i]->pk);
    }
}

static void candidates_connect(struct dial *d, size_t max)
{
    size_t limit = d->n_candidates + max;

    for (size_t i = 0; i < d->route.n_servers && d->n_candidates < limit; i++) {
        const struct cserver *s = cserver_get(d->client, &d->route.servers[i]);
        if (s == NULL || !cserver_usable(s)) /* one that is up and in doubt comes last */
            candidate_add(d, CLIENT_PHASE_CONNECT, &d->route.servers[i]);
    }
}

/* What led there before, while the session is up and well. */
static void candidate_known(struct dial *d)
{
    const struct pubkey *server = client_way(d->client, &d->stream->remote);
    const struct cserver *s = server != NULL ? cserver_get(d->client, server) : NULL;

    if (s != NULL && cserver_usable(s) && !live_doubtful(s))
        candidate_add(d, in_route(d, server) ? CLIENT_PHASE_EXISTING : CLIENT_PHASE_MESH, server);
}

static void candidates_make(struct dial *d)
{
    const struct cserver *one = d->through ? cserver_get(d->client, &d->route.servers[0]) : NULL;

    d->n_candidates = d->next = 0;
    if (d->through) {
        bool up = one != NULL && one->state == CSERVER_UP;
        candidate_add(d, up ? CLIENT_PHASE_EXISTING : CLIENT_PHASE_CONNECT, &d->route.servers[0]);
        return;
    }
    if (cserver_get(d->client, &d->stream->remote) != NULL)
        route_add(d, &d->stream->remote);
    candidate_known(d);
    candidates_up(d, CLIENT_PHASE_EXISTING, UP_GOOD, EXISTING_MAX);
    if (d->direct)
        candidates_connect(d, CONNECT_MAX);
    candidates_up(d, CLIENT_PHASE_MESH, UP_GOOD, MESH_MAX);
    candidates_connect(d, CONNECT_MAX);
    candidates_up(d, CLIENT_PHASE_MESH, UP_MUTE, MESH_MORE);
    candidates_connect(d, CONNECT_MORE);
    candidates_up(d, CLIENT_PHASE_EXISTING, UP_DOUBTFUL, EXISTING_MAX);
    candidates_up(d, CLIENT_PHASE_MESH, UP_DOUBTFUL, MESH_MORE);
}

/* ---- attempts ---- */

static void wake(struct dial *d)
{
    loop_task_post(d->client->cfg.loop, &d->task);
}

static void attempt_end(struct attempt *a, int err)
{
    a->done = true;
    a->err = err;
    wake(a->dial);
}

static void attempt_answered(struct ask *ask, int err)
{
    attempt_end(container_of(ask, struct attempt, ask), err);
}

static void attempt_ask(struct attempt *a, struct cserver *s)
{
    struct dial *d = a->dial;

    a->ask.done = attempt_answered;
    a->ask.signer = d->stream->remote;
    a->ask.req = d->obj;
    a->ask.req_n = d->obj_n;
    a->ask.req_hash = &d->req_hash;
    int rc = ask_start(&a->ask, s, d->client->cfg.attempt_ms);
    if (rc != 0)
        attempt_end(a, rc);
}

static void attempt_connected(struct cserver_waiter *w, int err)
{
    struct attempt *a = container_of(w, struct attempt, waiter);

    if (err != 0)
        attempt_end(a, err);
    else
        attempt_ask(a, cserver_get(a->dial->client, &a->what.server));
}

static void attempt_begin(struct attempt *a)
{
    struct client *c = a->dial->client;
    struct cserver *s = cserver_make(c, &a->what.server);

    a->began_ns = client_now(c);
    int rc = s == NULL ? ERR_LIMIT : cserver_need(s, &a->waiter);
    if (rc == 0)
        attempt_ask(a, s);
    else if (rc != ERR_PENDING)
        attempt_end(a, rc);
}

/* The session was dropped at its very beginning and is being made again: so is the request. */
static bool attempt_again(struct attempt *a)
{
    const struct cserver *s = cserver_get(a->dial->client, &a->what.server);

    if (a->again >= HOLD_LEVEL_MAX || a->err != ERR_DMSG_SESSION_CLOSED || s == NULL ||
        s->failures > 0 || s->hold_level == 0)
        return false;
    a->again++;
    a->done = false;
    attempt_begin(a);
    return true;
}

static void attempt_start(struct dial *d, const struct candidate *what)
{
    struct client *c = d->client;
    struct attempt *a = calloc(1, sizeof *a);

    if (a == NULL) {
        d->last_err = ERR_NOMEM;
        d->go = true;
        return;
    }
    a->dial = d;
    a->what = *what;
    a->waiter.done = attempt_connected;
    list_push_back(&d->attempts, &a->node);
    attempt_begin(a);
    uint64_t wait = what->phase == CLIENT_PHASE_CONNECT ? STAGGER_CONNECT_NS : STAGGER_STREAM_NS;
    loop_timer_set(c->cfg.loop, &d->stagger, client_now(c) + wait);
}

/* Is it the destination or the session that is silent? */
static void doubt_sessions(struct dial *d)
{
    struct list_node *pos, *tmp;

    list_for_each(pos, tmp, &d->attempts)
    {
        const struct attempt *a = container_of(pos, struct attempt, node);
        struct cserver *s = cserver_get(d->client, &a->what.server);
        if (!a->done && s != NULL && cserver_usable(s) &&
            session_heard_ns(link_session(s->link)) <= a->began_ns)
            live_doubt(s, DOUBT_NS);
    }
}

static void on_stagger(struct loop_timer *t)
{
    struct dial *d = container_of(t, struct dial, stagger);

    doubt_sessions(d);
    d->go = true;
    wake(d);
}

/* What is worth telling: a time-out says less than anything else. */
static void remember_err(struct dial *d, int err)
{
    if (d->last_err == 0 || d->last_err == ERR_TIMEOUT)
        d->last_err = err;
}

static void finish(struct dial *d);

/* Take in what has ended. False: the dial is decided, and maybe gone. */
static bool attempts_collect(struct dial *d)
{
    struct list_node *pos, *tmp;

    list_for_each(pos, tmp, &d->attempts)
    {
        struct attempt *a = container_of(pos, struct attempt, node);
        if (!a->done)
            continue;
        if (a->err == 0) {
            d->winner = a;
            finish(d);
            return false;
        }
        attempt_step(a, a->err);
        if (attempt_again(a))
            continue;
        int err = a->err;
        bool final = a->ask.refused;
        if (err == ERR_TIMEOUT)
            attempt_mute(a);
        if (!final)
            client_way_failed(d->client, &d->stream->remote, &a->what.server);
        attempt_free(a);
        if (final) {
            refused(d, err);
            return false;
        }
        remember_err(d, err);
        d->go = true;
    }
    return true;
}

/* ---- the states ---- */

/* The one error of a dial that tried everything: the details are in its steps (incident 34). */
static int verdict(const struct dial *d)
{
    if (d->resolve_err != 0 && (d->last_err == 0 || !(d->flags & CLIENT_DIAL_LOCAL)))
        return d->resolve_err;
    if (d->last_err == 0)
        return ERR_NO_ROUTE;
    return d->last_err == ERR_TIMEOUT ? ERR_TIMEOUT : ERR_DMSG_CANNOT_CONNECT;
}

static void round_over(struct dial *d)
{
    const struct client_hooks *h = &d->client->cfg.hooks;

    /* Nobody could be asked: the sessions were tried first, now the look-up is waited for. */
    bool later = d->resolve_err == ERR_NO_ROUTE && !is_local(d);
    if (!d->asked || (d->flags & CLIENT_RESOLVE_FRESH) || (d->resolve_err != 0 && !later)) {
        unreachable(d, verdict(d));
        return;
    }
    d->flags |= CLIENT_RESOLVE_FRESH; /* the entry may be stale: ask once more, past all caches */
    d->state = DIAL_DISTRUST;
    if (h->distrust == NULL || later) {
        wake(d);
        return;
    }
    wake(d); /* runs behind the hook, unless that closes the stream */
    h->distrust(h->arg, &d->stream->remote);
}

static void ladder(struct dial *d)
{
    if (!attempts_collect(d))
        return;
    while (d->next < d->n_candidates && (d->go || list_empty(&d->attempts))) {
        d->go = false;
        attempt_start(d, &d->candidates[d->next++]);
    }
    if (d->next == d->n_candidates && list_empty(&d->attempts))
        round_over(d);
}

static void ladder_begin(struct dial *d)
{
    candidates_make(d);
    d->state = DIAL_LADDER;
    d->go = false;
    ladder(d);
}

static void on_noise(struct noise *n, int rc)
{
    struct dial *d = container_of(n, struct dial, noise);

    d->rc = rc;
    wake(d);
}

static void on_signed(struct pk_wait *w)
{
    wake(container_of(w, struct dial, wait));
}

/* The signed request serves all attempts: each answer has its own ephemeral key, and only one is
 * taken. */
static int request_encode(struct dial *d, const uint8_t *msg, size_t n)
{
    const struct stream *st = d->stream;
    struct client *c = d->client;
    struct object_request req = {
        .timestamp_ns = env_wall_ns(c->cfg.env),
        .src = {c->cfg.self, st->local_port},
        .dst = {st->remote, st->remote_port},
        .noise_msg = {msg, n},
    };
    uint8_t obj[OBJECT_ENCODED_MAX];

    int rc = object_encode_request(obj, sizeof obj, &d->obj_n, &req, OBJECT_2023);
    if (rc == 0 && (d->obj = malloc(d->obj_n)) == NULL)
        rc = ERR_NOMEM;
    if (rc == 0)
        memcpy(d->obj, obj, d->obj_n);
    return rc;
}

static void sign_end(struct dial *d)
{
    int rc = d->wait.res.err;

    if (rc != 0) {
        give_up(d, rc);
        return;
    }
    object_set_sig(d->obj, &d->wait.res.sig);
    object_hash(&d->req_hash, d->obj, d->obj_n);
    ladder_begin(d);
}

static void noise_step(struct dial *d)
{
    uint8_t msg[NOISE_OUT_MAX];
    size_t n;

    int rc = d->rc;
    if (rc == 0)
        rc = noise_write(&d->noise, msg, sizeof msg, &n);
    if (rc == ERR_PENDING)
        return;
    if (rc == 0)
        rc = request_encode(d, msg, n);
    if (rc == 0) {
        d->state = DIAL_SIGN;
        d->wait.done = on_signed;
        rc = client_sign(d->client, &d->wait, d->obj, d->obj_n);
    }
    if (rc == 0)
        sign_end(d);
    else if (rc != ERR_PENDING)
        give_up(d, rc);
}

/* The way is known: make the request, unless the first round did. */
static void prepare(struct dial *d)
{
    if (d->obj != NULL) {
        ladder_begin(d);
        return;
    }
    d->state = DIAL_NOISE;
    d->rc = client_noise(d->client, &d->noise, true, &d->stream->remote, on_noise);
    noise_step(d);
}

static void resolve(struct dial *d)
{
    struct client *c = d->client;
    const struct client_hooks *h = &c->cfg.hooks;

    d->state = DIAL_RESOLVE;
    d->began_ns = client_now(c);
    d->answered = false;
    d->asked = true;
    d->ticket = ++c->next_ticket;
    int rc = map_put(&c->tickets, d);
    if (rc != 0) {
        d->ticket = 0;
        give_up(d, rc);
        return;
    }
    c->stat.resolves++;
    h->resolve(h->arg, d->ticket, &d->stream->remote, d->flags);
}

static void resolved(struct dial *d)
{
    if (!d->answered)
        return;
    stream_step_add(d->stream, CLIENT_PHASE_RESOLVE, NULL, "", d->resolve_err, d->began_ns);
    if ((d->flags & CLIENT_RESOLVE_FRESH) && d->resolve_err != 0) {
        unreachable(d, d->resolve_err);
        return;
    }
    prepare(d);
}

void client_resolved(struct client *c, uint64_t ticket, int err, const struct client_route *route)
{
    struct dial *d = map_get(&c->tickets, &ticket);

    if (d == NULL)
        return;
    ticket_drop(d, false);
    d->answered = true;
    d->resolve_err = err;
    d->route.n_servers = 0;
    for (size_t i = 0; err == 0 && i < route->n_servers && i < ROUTE_MAX; i++) {
        if (!pubkey_is_null(&route->servers[i]))
            route_add(d, &route->servers[i]);
    }
    wake(d);
}

static void start(struct dial *d)
{
    struct client *c = d->client;
    const struct static_route *r = map_get(&c->routes, &d->stream->remote);
    const struct cserver *s = cserver_get(c, &d->stream->remote);

    if (d->through) {
        prepare(d);
        return;
    }
    int rc = d->now ? 0 : client_dest_allows(c, &d->stream->remote, d, is_local(d));
    if (rc != 0) {
        stream_step_add(d->stream, CLIENT_PHASE_BACKOFF, NULL, "", rc, client_now(c));
        give_up(d, rc);
        return;
    }
    if (r != NULL) {
        d->route = r->route;
        d->direct = true;
    }
    if (r != NULL || (s != NULL && s->state == CSERVER_UP) || c->cfg.hooks.resolve == NULL)
        prepare(d);
    else
        resolve(d);
}

static void winner_note(struct dial *d, const struct attempt *a)
{
    struct cserver *s = cserver_get(d->client, &a->what.server);

    if (!d->through)
        client_way_set(d->client, &d->stream->remote, &a->what.server);
    if (s != NULL && a->what.phase == CLIENT_PHASE_MESH)
        s->mute_ns = 0;
}

/* The winner's answer is authentic; the other attempts are given up. */
static void finish(struct dial *d)
{
    struct attempt *a = d->winner;
    struct stream *st = d->stream;

    d->state = DIAL_FINISH;
    if (a != NULL) {
        attempt_step(a, 0);
        endpoint_move(&st->end, &a->ask.end);
        st->via = a->what.server;
        winner_note(d, a);
        d->rc = noise_read(&d->noise, a->ask.noise, a->ask.noise_n);
        attempt_free(a);
        attempts_stop(d, ERR_CANCELLED);
    }
    if (d->rc == ERR_PENDING)
        return;
    if (d->rc != 0) {
        give_up(d, d->rc);
        return;
    }
    client_dest_reached(d->client, &d->stream->remote);
    d->client->stat.dial_ok++;
    stream_open(st, &d->noise, STREAM_NEWS_OPENED);
}

/* The one place where a dial moves on. Users' hooks are the last thing that a turn of it does. */
static void dial_run(struct loop_task *t)
{
    struct dial *d = container_of(t, struct dial, task);

    switch (d->state) {
    case DIAL_START:
        start(d);
        return;
    case DIAL_DISTRUST:
        resolve(d);
        return;
    case DIAL_RESOLVE:
        resolved(d);
        return;
    case DIAL_NOISE:
        noise_step(d);
        return;
    case DIAL_SIGN:
        sign_end(d);
        return;
    case DIAL_LADDER:
        ladder(d);
        return;
    case DIAL_FINISH:
        finish(d);
        return;
    }
}

int dial_new(struct stream *st, unsigned flags)
{
    struct client *c = st->client;
    struct dial *d = calloc(1, sizeof *d);

    if (d == NULL)
        return ERR_NOMEM;
    d->stream = st;
    d->client = c;
    d->flags = flags & CLIENT_DIAL_LOCAL;
    d->now = (flags & CLIENT_DIAL_NOW) != 0;
    d->task.fn = dial_run;
    d->stagger.fn = on_stagger;
    list_init(&d->attempts);
    st->dial = d;
    loop_task_post(c->cfg.loop, &d->task);
    return 0;
}

void client_dial_through(struct stream *st, const struct pubkey *server)
{
    struct dial *d = st->dial;

    assert(d != NULL && d->state == DIAL_START);
    d->through = true;
    d->route.servers[0] = *server;
    d->route.n_servers = 1;
}

void dial_tickets_init(struct client *c)
{
    map_init(&c->tickets, MAP_KEY(struct dial, ticket), c->cfg.env->hash_key, 0);
}

int client_dial(struct client *c, const struct pubkey *pk, uint16_t port, unsigned timeout_ms,
                unsigned flags, const struct stream_cb *cb, void *arg, struct stream **out)
{
    struct stream *st;

    *out = NULL;
    if (port == 0)
        return ERR_DMSG_REQ_DST_PORT;
    if (pubkey_is_null(pk))
        return ERR_KEY;
    if ((st = stream_new(c, STREAM_DIALLING)) == NULL)
        return c->stat.streams >= c->cfg.max_streams ? ERR_LIMIT : ERR_NOMEM;
    int rc = client_port_take(c, &st->local_port);
    if (rc == 0) {
        st->port_owned = true;
        st->remote = *pk;
        st->remote_port = port;
        rc = dial_new(st, flags);
    }
    if (rc != 0) {
        stream_drop(st, false);
        return rc;
    }
    c->stat.dials++;
    st->arg = arg;
    if (cb != NULL)
        st->cb = *cb;
    loop_timer_set(c->cfg.loop, &st->timer, client_now(c) + timeout_ms * NS_PER_MS);
    *out = st;
    return 0;
}
