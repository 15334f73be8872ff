#include "tests/unit/transport/relay_world.h"

#include <string.h>

#include "base/cursor.h"

static void *must(void *p)
{
    RW_MUST(p != NULL);
    return p;
}

struct rw_key rw_key_of(unsigned i)
{
    struct rw_key k;
    char seed[32];
    snprintf(seed, sizeof seed, "relay test %u", i);
    RW_MUST(crypto_keypair_from_seed(&k.sk, &k.pk, (const uint8_t *)seed, strlen(seed)) == 0);
    return k;
}

/* ---- workers ---- */

struct move {
    struct list_node node;
    unsigned member;
    struct conn *conn;
    struct relay_move m;
};

struct relay *rw_worker(const struct rw_world *w, unsigned i)
{
    return w->worker[i];
}

void rw_worker_free(struct rw_world *w, unsigned i)
{
    relay_free(w->worker[i]);
    if (w->relay == w->worker[i])
        w->relay = NULL;
    w->worker[i] = NULL;
}

static bool elsewhere(const struct rw_world *w)
{
    return w->relay != w->worker[0];
}

struct relay *rw_acceptor(struct rw_world *w)
{
    return elsewhere(w) ? w->relay : rw_worker(w, w->next_worker++ % w->workers);
}

void rw_drain(struct rw_world *w)
{
    for (unsigned i = 0; i < w->workers; i++)
        relay_drain(rw_worker(w, i));
}

unsigned rw_key_at(const struct rw_world *w, unsigned i, unsigned n)
{
    for (unsigned key = 1;; key++) {
        struct rw_key k = rw_key_of(key);
        if (crew_home(w->crew, &k.pk) == i && n-- == 0)
            return key;
    }
}

static void on_move(void *arg, unsigned member, struct conn *conn, struct relay_move *m)
{
    struct rw_world *w = arg;
    struct move *move = must(calloc(1, sizeof *move));
    move->member = member;
    move->conn = conn;
    move->m = *m;
    conn_set_user(conn, NULL, NULL);
    list_push_back(&w->moves, &move->node);
    loop_task_post(&w->net.loop, &w->arrive);
}

static void on_arrive(struct loop_task *t)
{
    struct rw_world *w = container_of(t, struct rw_world, arrive);
    struct move *move;
    while ((move = list_pop_front_as(&w->moves, struct move, node)) != NULL) {
        struct relay *r = rw_worker(w, move->member);
        if (r != NULL) {
            relay_arrive(r, move->conn, &move->m);
        } else {
            relay_move_drop(w->guard, &move->m);
            conn_close(move->conn);
        }
        free(move);
    }
}

static void trunks(struct rw_world *w)
{
    for (unsigned i = 0; i < w->workers; i++) {
        for (unsigned k = i + 1; k < w->workers; k++) {
            struct session_state a, b;
            pipe_pair(&w->net, &w->trunk[i][k], &w->trunk[k][i]);
            relay_trunk_keys(&w->env.env, &a, &b);
            RW_MUST(relay_trunk(rw_worker(w, i), k, &w->trunk[i][k]->conn, &a) == 0);
            RW_MUST(relay_trunk(rw_worker(w, k), i, &w->trunk[k][i]->conn, &b) == 0);
        }
    }
    loop_turn(&w->net.loop, pipe_now(&w->net));
}

static void many(struct rw_world *w, struct relay_cfg *cfg)
{
    struct guard_cfg gc = cfg->guard_cfg;
    memcpy(gc.hash_key, w->env.env.hash_key, sizeof gc.hash_key);
    RW_MUST(guard_new(&w->guard, &gc) == 0);
    RW_MUST(crew_new(&w->crew, w->workers, w->env.env.hash_key) == 0);
    cfg->guard = w->guard;
    cfg->crew = w->crew;
    cfg->move = on_move;
    w->arrive.fn = on_arrive;
    for (cfg->index = 0; cfg->index < w->workers; cfg->index++)
        RW_MUST(relay_new(&w->worker[cfg->index], cfg) == 0);
    trunks(w);
}

unsigned rw_workers = 1;
bool rw_deferred;

/* ---- the world ---- */

static void on_changed(void *arg)
{
    struct rw_world *w = arg;
    w->changed++;
}

void rw_init(struct rw_world *w, const struct relay_cfg *cfg)
{
    struct relay_cfg own = {0};
    memset(w, 0, sizeof *w);
    env_test_init(&w->env, 1);
    env_test_init(&w->peer_env, 2);
    w->pool = must(bufpool_new(NULL));
    pipe_net_init(&w->net, w->pool, &w->env);
    list_init(&w->peers);
    list_init(&w->raws);
    list_init(&w->moves);
    w->key = rw_key_of(0);
    w->workers = rw_workers;
    if (cfg != NULL)
        own = *cfg;
    if (!pubkey_is_null(&own.self)) {
        w->key.pk = own.self;
        w->key.sk = own.sk;
    }
    own.env = &w->env.env;
    own.loop = &w->net.loop;
    own.pool = w->pool;
    own.self = w->key.pk;
    own.sk = w->key.sk;
    own.changed = on_changed;
    own.arg = w;
    if (w->workers > 1)
        many(w, &own);
    else
        RW_MUST(relay_new(&w->worker[0], &own) == 0);
    w->relay = w->worker[0];
    w->env.deferred = rw_deferred;
    w->env.shuffle = rw_deferred;
}

void rw_twice(void (*test)(void))
{
    test();
    rw_deferred = true;
    test();
    rw_deferred = false;
}

static void stream_free(struct rw_stream *s)
{
    if (s->st != NULL)
        yamux_release(s->st, false);
    list_remove(&s->node);
    free(s->obj);
    free(s);
}

static void peer_free(struct rw_peer *p)
{
    struct rw_stream *s;
    rw_peer_close(p);
    while ((s = list_first_as(&p->streams, struct rw_stream, node)) != NULL)
        stream_free(s);
    list_remove(&p->node);
    free(p);
}

static void raw_free(struct rw_raw *r)
{
    rw_raw_close(r);
    noise_wipe(&r->noise);
    list_remove(&r->node);
    free(r->in);
    free(r->out);
    free(r);
}

void rw_free(struct rw_world *w)
{
    struct rw_peer *p;
    struct rw_raw *r;
    struct list_node *pos, *tmp;
    list_for_each(pos, tmp, &w->peers)(void) rw_peer_close(container_of(pos, struct rw_peer, node));
    list_for_each(pos, tmp, &w->raws)(void) rw_raw_close(container_of(pos, struct rw_raw, node));
    rw_run(w, NS_PER_S); /* the relay hears of it */
    if (w->relay != NULL) {
        struct relay_stat st = rw_stat(w);
        RW_MUST(st.sessions == 0 && st.handshakes == 0 && rw_all_zero(w));
    }
    for (unsigned i = 0; i < w->workers; i++)
        rw_worker_free(w, i);
    while ((p = list_first_as(&w->peers, struct rw_peer, node)) != NULL)
        peer_free(p);
    while ((r = list_first_as(&w->raws, struct rw_raw, node)) != NULL)
        raw_free(r);
    pipe_net_free(&w->net);
    guard_free(w->guard);
    crew_free(w->crew);
    RW_MUST(bufpool_in_use(w->pool) == 0);
    bufpool_free(w->pool);
    env_test_close(&w->env);
    env_test_close(&w->peer_env);
}

void rw_run(struct rw_world *w, uint64_t ns)
{
    pipe_net_run(&w->net, ns);
}

struct relay_stat rw_stat(const struct rw_world *w)
{
    struct relay_stat sum = {0}, st;
    if (elsewhere(w) && w->relay != NULL) {
        relay_stat(w->relay, &st);
        return st;
    }
    for (unsigned i = 0; i < w->workers; i++) {
        if (rw_worker(w, i) == NULL)
            continue;
        relay_stat(rw_worker(w, i), &st);
        relay_stat_add(&sum, &st);
    }
    return sum;
}

unsigned rw_code_count(const struct rw_world *w, int err)
{
    return (unsigned)rw_stat(w).refused_by_code[relay_code_index(err)];
}

bool rw_all_zero(const struct rw_world *w)
{
    struct relay_stat st = rw_stat(w);
    return st.bridges == 0 && st.setups == 0 && st.buffered == 0;
}

/* ---- streams of a peer ---- */

static uint8_t pattern(uint64_t i)
{
    return (uint8_t)(i ^ (i >> 8) ^ (i >> 17));
}

static struct rw_stream *stream_new(struct rw_peer *p, struct yamux_stream *st, bool incoming)
{
    struct rw_stream *s = must(calloc(1, sizeof *s));
    s->peer = p;
    s->st = st;
    s->incoming = incoming;
    s->echo = incoming && p->echo;
    s->keep = incoming && p->keep;
    st->user = s;
    list_push_back(&p->streams, &s->node);
    return s;
}

static void kick(struct rw_stream *s)
{
    link_kick(s->peer->link);
}

void rw_write(struct rw_stream *s, const void *p, size_t n)
{
    RW_MUST(yamux_write(s->st, p, n) == (long)n);
    kick(s);
}

void rw_fin(struct rw_stream *s)
{
    RW_MUST(yamux_close_write(s->st) == 0);
    kick(s);
}

void rw_reset(struct rw_stream *s)
{
    yamux_release(s->st, false);
    s->st = NULL;
    kick(s);
}

static void push(struct rw_stream *s)
{
    uint8_t chunk[16384];
    while (s->st != NULL && s->sent < s->to_send && !yamux_write_closed(s->st)) {
        size_t n = sizeof chunk;
        if (n > s->to_send - s->sent)
            n = (size_t)(s->to_send - s->sent);
        for (size_t i = 0; i < n; i++)
            chunk[i] = pattern(s->sent + i);
        long put = yamux_write(s->st, chunk, n);
        if (put <= 0)
            break;
        s->sent += (uint64_t)put;
        if ((size_t)put < n)
            break;
    }
    if (s->st != NULL && s->fin_behind && s->sent == s->to_send)
        (void)yamux_close_write(s->st);
}

void rw_pattern(struct rw_stream *s, uint64_t n, bool fin)
{
    s->to_send += n;
    s->fin_behind = fin;
    push(s);
    kick(s);
}

/* ---- answers ---- */

static void write_object(struct rw_stream *s, const uint8_t *obj, size_t n)
{
    RW_MUST(session_write_object(link_session(s->peer->link), s->st, obj, n) == 0);
}

static void answer_object(struct rw_stream *s, enum rw_answer how)
{
    static const uint8_t msg[49] = {2, 1};
    uint8_t obj[RELAY_OBJECT_MAX + 64] = {0};
    struct rw_key other = rw_key_of(999);
    struct object_response rsp = {.accepted = true, .noise_msg = {msg, sizeof msg}};
    struct hash digest;
    struct sig sig;
    size_t n;
    bool by_other = how == RW_WRONG_SIGNER || how == RW_REFUSE_BAD_SIG;

    object_hash(&rsp.req_hash, s->obj, s->obj_n);
    if (how == RW_REFUSE || how == RW_REFUSE_NO_REASON || how == RW_REFUSE_BAD_SIG) {
        rsp.accepted = false;
        rsp.err_code = how == RW_REFUSE_NO_REASON ? 0 : 306;
        rsp.noise_msg = (struct gob_bytes){0};
    }
    if (how == RW_WRONG_HASH)
        rsp.req_hash.b[31] ^= 1;
    RW_MUST(object_encode_response(obj, sizeof obj, &n, &rsp, OBJECT_2023) == 0);
    if (how == RW_BAD_GOB)
        obj[SIG_BYTES + 40] ^= 0x55;
    if (how == RW_LONG_OBJECT)
        n = RELAY_OBJECT_MAX + 1; /* what is behind the value does not matter */
    object_digest(&digest, obj, n);
    RW_MUST(crypto_sign_digest(&sig, by_other ? &other.sk : &s->peer->key.sk, &digest) == 0);
    object_set_sig(obj, &sig);
    write_object(s, obj, how == RW_SHORT_OBJECT ? SIG_BYTES : n);
}

static void answer(struct rw_stream *s)
{
    static const uint8_t marker[2] = {0, 0};
    enum rw_answer how = s->peer->answer;
    switch (how) {
    case RW_SILENT:
        return;
    case RW_FIN:
        (void)yamux_close_write(s->st);
        return;
    case RW_RESET:
        yamux_release(s->st, false);
        s->st = NULL;
        return;
    case RW_PING_MARKER:
        (void)yamux_write(s->st, marker, sizeof marker); /* unless the relay has ended it already */
        return;
    case RW_ACCEPT_GLUED:
        answer_object(s, RW_ACCEPT);
        s->to_send = 1000;
        s->fin_behind = true;
        push(s);
        return;
    case RW_ACCEPT:
    case RW_REFUSE:
    case RW_REFUSE_NO_REASON:
    case RW_REFUSE_BAD_SIG:
    case RW_WRONG_HASH:
    case RW_WRONG_SIGNER:
    case RW_BAD_GOB:
    case RW_SHORT_OBJECT:
    case RW_LONG_OBJECT:
        answer_object(s, how);
        return;
    }
}

/* The object that begins the stream; false while it is not there. */
static bool read_object(struct rw_stream *s)
{
    uint8_t *obj = must(malloc(SESSION_OBJECT_MAX));
    enum session_read what;
    size_t n;
    int rc =
        session_read_object(link_session(s->peer->link), s->st, &what, obj, SESSION_OBJECT_MAX, &n);
    if (rc < 0 || what != SESSION_READ_OBJECT) {
        RW_MUST(rc == ERR_AGAIN || rc == ERR_EOF || rc == 0);
        free(obj);
        return false;
    }
    s->obj = obj;
    s->obj_n = n;
    s->opened = true;
    if (s->incoming)
        answer(s);
    return s->st != NULL;
}

static void take(struct rw_stream *s, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (p[i] != pattern(s->got + i))
            s->wrong = true;
        if (s->first_n < sizeof s->first)
            s->first[s->first_n++] = p[i];
    }
    s->got += n;
    if (s->echo)
        RW_MUST(yamux_write(s->st, p, n) == (long)n);
}

/* An echo takes no more than it can pass on. */
static size_t may_read(struct rw_stream *s, size_t cap)
{
    size_t room = s->echo ? yamux_writable(s->st) : cap;
    if (room == 0 && yamux_readable(s->st) > 0)
        yamux_want_write(s->st);
    return room < cap ? room : cap;
}

static void read_bytes(struct rw_stream *s)
{
    uint8_t buf[16384];
    size_t n;
    while (s->st != NULL && !s->keep && (n = yamux_read(s->st, buf, may_read(s, sizeof buf))) > 0)
        take(s, buf, n);
    if (s->st == NULL || !yamux_eof(s->st) || s->eof)
        return;
    s->eof = true;
    if (s->echo)
        (void)yamux_close_write(s->st);
}

static bool waits_for_object(const struct rw_stream *s)
{
    /* A stream that asked for nothing reads bytes: tests of the ping marker. */
    return !s->opened && (s->incoming || s->obj_n > 0);
}

void rw_resume(struct rw_stream *s)
{
    s->keep = false;
    read_bytes(s);
    kick(s);
}

static void on_stream(struct rw_stream *s, unsigned what)
{
    if (what & YAMUX_ACKED)
        s->acked = true;
    if (what & YAMUX_RESET) {
        s->reset = true;
        s->reset_err = s->st->reset_err;
        yamux_release(s->st, false);
        s->st = NULL;
        return;
    }
    if (what & (YAMUX_READABLE | YAMUX_EOF)) {
        if (waits_for_object(s) && !read_object(s)) {
            s->eof = s->st != NULL && yamux_fin_received(s->st);
            return;
        }
        read_bytes(s);
    }
    if (what & YAMUX_WRITABLE) {
        push(s);
        if (s->echo)
            read_bytes(s);
    }
}

/* ---- peers ---- */

static void on_up(struct link *l)
{
    struct rw_peer *p = link_arg(l);
    p->up = true;
}

static void on_event(struct link *l, const struct yamux_event *ev)
{
    struct rw_peer *p = link_arg(l);
    if (ev->stream == NULL)
        return;
    if (ev->what & YAMUX_OPENED) {
        p->incoming++;
        stream_new(p, ev->stream, true);
        (void)yamux_accept(ev->stream);
    }
    on_stream(ev->stream->user, ev->what & ~(unsigned)YAMUX_OPENED);
}

/* Streams die with the session. */
static void forget_streams(struct rw_peer *p)
{
    struct list_node *pos, *tmp;
    list_for_each(pos, tmp, &p->streams)
    {
        struct rw_stream *s = container_of(pos, struct rw_stream, node);
        if (s->st != NULL)
            yamux_release(s->st, false);
        s->st = NULL;
    }
}

static void on_down(struct link *l, int err)
{
    struct rw_peer *p = link_arg(l);
    p->down = true;
    p->err = err;
    rw_peer_close(p);
}

static const struct link_owner owner = {on_up, on_event, on_down};

static struct rw_peer *peer_new(struct rw_world *w, const struct rw_key *key)
{
    struct rw_peer *p = must(calloc(1, sizeof *p));
    p->w = w;
    p->key = *key;
    p->next_port = 49152;
    p->before = rw_stat(w).sessions + rw_stat(w).replaced;
    list_init(&p->streams);
    list_push_back(&w->peers, &p->node);
    return p;
}

/* remote NULL: it was dialled. */
static void peer_link(struct rw_peer *p, struct conn *conn, const struct pubkey *remote)
{
    struct rw_world *w = p->w;
    struct session_cfg cfg = {.env = &w->peer_env.env,
                              .pool = w->pool,
                              .initiator = remote != NULL,
                              .self = p->key.pk,
                              .sk = &p->key.sk,
                              .hold_ms = SESSION_NO_HOLD,
                              .keepalive_ms = 30000};
    if (remote != NULL)
        cfg.remote = *remote;
    p->link = must(link_new(&w->net.loop, conn, &cfg, &owner, p));
}

struct rw_peer *rw_peer_start(struct rw_world *w, const struct rw_key *key, bool local)
{
    struct rw_peer *p = peer_new(w, key);
    pipe_pair(&w->net, &p->conn, &p->inner);
    peer_link(p, &p->conn->conn, &w->key.pk);
    struct relay *home = w->crew != NULL ? rw_worker(w, crew_home(w->crew, &key->pk)) : w->relay;
    relay_accept(local && !elsewhere(w) ? home : rw_acceptor(w), &p->inner->conn, local);
    return p;
}

struct rw_peer *rw_peer_accepted(struct rw_world *w, const struct rw_key *key, struct conn *conn)
{
    struct rw_peer *p = peer_new(w, key);
    p->conn = pipe_of(conn);
    p->inner = p->conn->other;
    peer_link(p, conn, NULL);
    return p;
}

/* The relay has read message 3 too. */
static bool both_up(void *arg)
{
    struct rw_peer *p = arg;
    return p->up && rw_stat(p->w).sessions + rw_stat(p->w).replaced > p->before;
}

struct rw_peer *rw_peer_new(struct rw_world *w, unsigned key)
{
    struct rw_key k = rw_key_of(key);
    struct rw_peer *p = rw_peer_start(w, &k, false);
    (void)pipe_net_until(&w->net, 5 * NS_PER_S, both_up, p);
    RW_MUST(p->up && !p->down);
    return p;
}

void rw_peer_close(struct rw_peer *p)
{
    if (p->link == NULL)
        return;
    forget_streams(p);
    link_close(p->link);
    p->link = NULL;
}

/* ---- dialling ---- */

struct rw_stream *rw_open(struct rw_peer *p)
{
    struct yamux_stream *st;
    RW_MUST(yamux_open(link_mux(p->link), NULL, pipe_now(&p->w->net), &st) == 0);
    link_kick(p->link);
    return stream_new(p, st, false);
}

struct object_request rw_request(struct rw_stream *s, const struct pubkey *dst)
{
    static const uint8_t msg[49] = {3, 2, 1};
    struct rw_peer *p = s->peer;
    return (struct object_request){.timestamp_ns = env_wall_ns(&p->w->peer_env.env),
                                   .src = {p->key.pk, p->next_port++},
                                   .dst = {*dst, 80},
                                   .noise_msg = {msg, sizeof msg}};
}

size_t rw_sign_request(uint8_t *obj, const struct object_request *req, const struct seckey *sk)
{
    struct hash digest;
    struct sig sig;
    size_t n;
    enum object_shape shape = req->ip_info ? OBJECT_2026 : OBJECT_2023;
    RW_MUST(object_encode_request(obj, OBJECT_ENCODED_MAX, &n, req, shape) == 0);
    object_digest(&digest, obj, n);
    RW_MUST(crypto_sign_digest(&sig, sk, &digest) == 0);
    object_set_sig(obj, &sig);
    return n;
}

void rw_send_request(struct rw_stream *s, const struct object_request *req, const struct seckey *sk)
{
    uint8_t obj[OBJECT_ENCODED_MAX];
    rw_send_object(s, obj, rw_sign_request(obj, req, sk));
}

void rw_send_object(struct rw_stream *s, const uint8_t *obj, size_t n)
{
    write_object(s, obj, n);
    s->obj_n = n; /* now it waits for an object */
    kick(s);
}

static bool settled(void *arg)
{
    struct rw_stream *s = arg;
    return s->opened || rw_over(s);
}

struct rw_stream *rw_dial(struct rw_peer *p, const struct pubkey *dst)
{
    struct rw_stream *s = rw_open(p);
    struct object_request req = rw_request(s, dst);
    rw_send_request(s, &req, &p->key.sk);
    (void)pipe_net_until(&p->w->net, 10 * NS_PER_S, settled, s);
    return s;
}

struct rw_stream *rw_last_incoming(struct rw_peer *p)
{
    struct rw_stream *last = NULL;
    struct list_node *pos, *tmp;
    list_for_each(pos, tmp, &p->streams)
    {
        struct rw_stream *s = container_of(pos, struct rw_stream, node);
        if (s->incoming)
            last = s;
    }
    return last;
}

bool rw_over(const struct rw_stream *s)
{
    return s->reset || s->eof || s->st == NULL;
}

int rw_verdict(const struct rw_stream *s)
{
    struct object_response rsp;
    if (!s->opened || object_decode_response(&rsp, s->obj, s->obj_n) < 0)
        return -1;
    return object_response_verdict(&rsp);
}

/* ---- raw peers ---- */

/* Append; rooms double, because a sanitizer copies at every realloc(). */
static void append(uint8_t **p, size_t *n, size_t *room, const void *more, size_t more_n)
{
    if (*room - *n < more_n) {
        *room = 2 * (*n + more_n);
        *p = must(realloc(*p, *room));
    }
    memcpy(*p + *n, more, more_n);
    *n += more_n;
}

static void raw_up(void *arg)
{
    (void)arg;
}

static void raw_input(void *arg, struct slice in, uint64_t now_ns)
{
    struct rw_raw *r = arg;
    (void)now_ns;
    append(&r->in, &r->in_n, &r->in_room, in.p, in.n);
}

static int raw_output(void *arg, struct iovec *iov, int max, uint64_t now_ns)
{
    struct rw_raw *r = arg;
    (void)now_ns;
    if (r->out_at == r->out_n || max < 1)
        return 0;
    iov[0] = (struct iovec){r->out + r->out_at, r->out_n - r->out_at};
    return 1;
}

static void raw_sent(void *arg, size_t n, uint64_t now_ns)
{
    struct rw_raw *r = arg;
    (void)now_ns;
    r->out_at += n;
    if (r->out_at == r->out_n)
        r->out_at = r->out_n = 0;
}

static void raw_down(void *arg, int err)
{
    struct rw_raw *r = arg;
    r->down = true;
    r->err = err;
}

static const struct conn_user raw_user = {raw_up, raw_input, raw_output, raw_sent, raw_down};

static void raw_never_pending(struct noise *n, int rc)
{
    (void)n;
    (void)rc;
    abort(); /* the work of peers is done at once */
}

struct rw_raw *rw_raw_start(struct rw_world *w, const struct rw_key *key)
{
    struct rw_raw *r = must(calloc(1, sizeof *r));
    r->w = w;
    r->key = *key;
    list_push_back(&w->raws, &r->node);
    pipe_pair(&w->net, &r->conn, &r->inner);
    conn_set_user(&r->conn->conn, &raw_user, r);
    struct noise_cfg cfg = {.env = &w->peer_env.env,
                            .pattern = NOISE_XK,
                            .initiator = true,
                            .sk = &r->key.sk,
                            .pk = &r->key.pk,
                            .remote = &w->key.pk,
                            .on_ready = raw_never_pending};
    RW_MUST(noise_init(&r->noise, &cfg) == 0);
    relay_accept(rw_acceptor(w), &r->inner->conn, false);
    return r;
}

size_t rw_raw_message(struct rw_raw *r, uint8_t *out)
{
    size_t n;
    RW_MUST(noise_write(&r->noise, out + 2, NOISE_OUT_MAX, &n) == 0);
    put_be16(out, (uint16_t)n);
    return n + 2;
}

void rw_raw_message_2(struct rw_raw *r)
{
    RW_MUST(r->in_n == 51 && get_be16(r->in) == 49);
    RW_MUST(noise_read(&r->noise, r->in + 2, 49) == 0);
    r->in_at = 51;
}

void rw_raw_split(struct rw_raw *r)
{
    noise_split(&r->noise, &r->tx, &r->rx);
}

struct rw_raw *rw_raw_new(struct rw_world *w, unsigned key)
{
    struct rw_key k = rw_key_of(key);
    struct rw_raw *r = rw_raw_start(w, &k);
    uint8_t msg[128];
    rw_raw_send(r, msg, rw_raw_message(r, msg));
    rw_run(w, NS_PER_MS);
    rw_raw_message_2(r);
    rw_raw_send(r, msg, rw_raw_message(r, msg));
    rw_raw_split(r);
    rw_run(w, NS_PER_MS);
    RW_MUST(!r->down);
    return r;
}

void rw_raw_close(struct rw_raw *r)
{
    if (r->closed)
        return;
    r->closed = true;
    conn_close(&r->conn->conn);
}

void rw_raw_send(struct rw_raw *r, const void *p, size_t n)
{
    if (n == 0)
        return;
    append(&r->out, &r->out_n, &r->out_room, p, n);
    conn_flush(&r->conn->conn);
}

void rw_raw_header(struct rw_raw *r, unsigned type, unsigned flags, uint32_t id, uint32_t len)
{
    uint8_t h[YAMUX_HEADER_BYTES] = {0, (uint8_t)type};
    put_be16(h + 2, (uint16_t)flags);
    put_be32(h + 4, id);
    put_be32(h + 8, len);
    rw_raw_send(r, h, sizeof h);
}

void rw_raw_data(struct rw_raw *r, unsigned flags, uint32_t id, const void *p, size_t n)
{
    rw_raw_header(r, YAMUX_T_DATA, flags, id, (uint32_t)n);
    rw_raw_send(r, p, n);
}

void rw_raw_object(struct rw_raw *r, uint32_t id, const void *obj, size_t n)
{
    uint8_t *out = must(malloc(2 + n + CIPHER_OVERHEAD));
    put_be16(out, (uint16_t)(n + CIPHER_OVERHEAD));
    RW_MUST(cipher_seal(&r->tx, out + 2, obj, n) == 0);
    rw_raw_data(r, 0, id, out, 2 + n + CIPHER_OVERHEAD);
    free(out);
}

bool rw_raw_frame(struct rw_raw *r, struct rw_frame *f)
{
    size_t left = r->in_n - r->in_at;
    const uint8_t *p = r->in + r->in_at;
    if (left < YAMUX_HEADER_BYTES)
        return false;
    *f = (struct rw_frame){p[1], get_be16(p + 2), get_be32(p + 4), get_be32(p + 8), NULL};
    size_t body = f->type == YAMUX_T_DATA ? f->len : 0;
    if (left - YAMUX_HEADER_BYTES < body)
        return false;
    f->body = p + YAMUX_HEADER_BYTES;
    r->in_at += YAMUX_HEADER_BYTES + body;
    return true;
}

bool rw_raw_expect(struct rw_raw *r, uint32_t id, unsigned flags)
{
    struct rw_frame f;
    while (rw_raw_frame(r, &f))
        if (f.id == id && (f.flags & flags) != 0)
            return true;
    return false;
}
