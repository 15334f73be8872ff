/*
 * The pool of native streams.
 *
 *     dialled    DIALLING -> OPEN (its PING and the calls behind it go out) -> GREETED (PING answered)
 *     accepted   OPEN -> GREETED (PING came)
 *     any        -> freed: ended by the peer, broken, idle, or for room
 *
 * Both ends may call over a stream that is greeted; calls may be written behind the PING before it is
 * answered. With two streams to one peer, those that were dialled at the same time, both ends use
 * the one whose dialler has the lower NodeID; the other one is drained and closed by its dialler.
 *
 * A dialled stream that ends before it was greeted, to a peer that never said itself that it speaks
 * this dialect, was a rumour: its calls are repeated in JSON. What a call was is kept until then.
 */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "kademlia/codec_msgpack.h"
#include "kademlia/host_int.h"

#define GREETING        0u                 /* number of the first PING; the engine's are never 0 */
#define JOBS_MAX        64u                /* requests of one stream with the engine */
#define OUT_MAX         (8u << 20)         /* bytes that wait for one peer */
#define HELD_MAX        ((size_t)64 << 20) /* bytes of messages under way, all streams */
#define ACCEPTED_OF_ONE 2u /* streams of one peer: the living one, and its successor */
#define READ_PIECE      8192u
#define SILENT_NS       (5 * NS_PER_S) /* a call this old, and nothing heard since: the stream is dead */

struct con {
    struct host *host;
    struct stream *st;
    kad_peer peer; /* a reference */
    struct list_node node;
    struct of_peer *of;
    struct list_node in_peer;
    bool dialled, greeted;
    bool sent;      /* something was written */
    bool read_only; /* the peer serves nobody, so it said in its PING */
    bool stranger;  /* of another network: to be closed when its PING is answered */
    uint64_t network;
    struct kad_mp_frame in;
    uint8_t *out; /* written up to out_at */
    size_t out_at, out_n, out_cap;
    struct list calls; /* struct con_call */
    struct list jobs;  /* struct con_job */
    unsigned n_jobs;
    uint64_t used_ns, heard_ns;
    struct loop_timer timer; /* greeting, then idleness */
    struct loop_task flush;
};

struct of_peer { /* the streams to one peer, oldest first */
    kad_peer peer;
    struct list cons;
};

struct con_call { /* ours, under way */
    struct con *con;
    struct list_node node;
    uint32_t id; /* the engine's number */
    enum kad_method method;
    unsigned timeout_ms;
    uint64_t sent_ns;
    struct kad_msg msg; /* to repeat it in JSON */
};

struct con_job { /* the peer's, with the engine */
    struct con *con;
    struct list_node node;
    uint64_t token;
    uint32_t id; /* the peer's number */
};

/* ---- life of a stream ---- */

static void free_call(struct con_call *cc)
{
    map_del(&cc->con->host->native_calls, &cc->id);
    list_remove(&cc->node);
    kad_msg_clear(&cc->msg);
    free(cc);
}

static void free_job(struct con_job *j)
{
    map_del(&j->con->host->native_jobs, &j->token);
    list_remove(&j->node);
    j->con->n_jobs--;
    free(j);
}

/* Its calls have been seen to. */
static void free_con(struct con *c, bool abort)
{
    struct host *h = c->host;
    struct con_call *cc;
    struct con_job *j;

    while ((cc = list_first_as(&c->calls, struct con_call, node)) != NULL)
        free_call(cc);
    while ((j = list_first_as(&c->jobs, struct con_job, node)) != NULL)
        free_job(j); /* the engine's answer finds nobody */
    if (c->st != NULL && abort)
        stream_abort(c->st);
    else if (c->st != NULL)
        stream_close(c->st);
    loop_timer_cancel(h->cfg.loop, &c->timer);
    loop_task_cancel(h->cfg.loop, &c->flush);
    *(c->dialled ? &h->stat.dialled : &h->stat.accepted) -= 1;
    h->native_held -= kad_mp_frame_held(&c->in);
    kad_mp_frame_clear(&c->in);
    list_remove(&c->node);
    list_remove(&c->in_peer);
    if (list_empty(&c->of->cons)) {
        map_del(&h->native_peers, &c->peer);
        free(c->of);
    }
    h->ops.unref(h->ops.arg, c->peer);
    free(c->out);
    free(c);
}

/* Was it only said by others that the peer speaks this dialect? */
static bool was_rumour(const struct con *c)
{
    return c->dialled && !c->greeted &&
           peers_dialect(c->host->peers, c->peer, host_now(c->host)) != KAD_DIALECT_NATIVE;
}

static void repeat_in_json(struct host *h, kad_peer peer, struct con_call *cc)
{
    uint64_t waited_ms = (host_now(h) - cc->sent_ns) / NS_PER_MS;

    if (cc->method > KAD_PUT_BATCH || waited_ms >= cc->timeout_ms)
        host_call_failed(h, cc->id, KAD_FAIL_CLOSED);
    else
        json_call(h, peer, cc->id, cc->timeout_ms - (unsigned)waited_ms, &cc->msg);
}

/* The stream is over: its calls fail, or go another way. */
static void end_con(struct con *c, enum kad_fail why)
{
    struct host *h = c->host;
    kad_peer peer = c->peer;
    struct list calls;
    struct con_call *cc;
    bool again = was_rumour(c) && why == KAD_FAIL_CLOSED;

    list_init(&calls);
    while ((cc = list_first_as(&c->calls, struct con_call, node)) != NULL) {
        map_del(&h->native_calls, &cc->id);
        list_remove(&cc->node);
        list_push_back(&calls, &cc->node);
    }
    h->ops.ref(h->ops.arg, peer);
    if (again) {
        peers_set_dialect(h->peers, peer, KAD_DIALECT_JSON, host_now(h));
        h->stat.fallbacks++;
    } else if (c->dialled && !c->greeted && why == KAD_FAIL_CLOSED) {
        /* It spoke it once; perhaps it is another program now. */
        peers_set_dialect(h->peers, peer, KAD_DIALECT_UNKNOWN, host_now(h));
    }
    free_con(c, true);
    while ((cc = list_first_as(&calls, struct con_call, node)) != NULL) {
        list_remove(&cc->node);
        if (again)
            repeat_in_json(h, peer, cc);
        else
            host_call_failed(h, cc->id, why);
        kad_msg_clear(&cc->msg);
        free(cc);
    }
    h->ops.unref(h->ops.arg, peer);
}

static bool is_idle(const struct con *c)
{
    return list_empty(&c->calls) && list_empty(&c->jobs) && c->out_at == c->out_n;
}

/* Must it stay although nothing is under way? */
static bool is_kept(const struct con *c)
{
    return kad_keeps(c->host->kad, c->peer);
}

static void timer_due(struct loop_timer *t)
{
    struct con *c = container_of(t, struct con, timer);
    struct host *h = c->host;

    if (!c->greeted && !c->dialled) {
        h->stat.timeouts++;
        end_con(c, KAD_FAIL_TIMEOUT);
    } else if (host_now(h) - c->used_ns < HOST_IDLE_MS * NS_PER_MS) {
        loop_timer_set(h->cfg.loop, t, c->used_ns + HOST_IDLE_MS * NS_PER_MS);
    } else if (!list_empty(&c->calls) || is_kept(c)) { /* the engine's clocks end its calls */
        loop_timer_set(h->cfg.loop, t, host_now(h) + HOST_IDLE_MS * NS_PER_MS);
    } else {
        end_con(c, KAD_FAIL_CLOSED);
    }
}

static void used(struct con *c)
{
    c->used_ns = host_now(c->host);
    list_remove(&c->node);
    list_push_back(&c->host->cons, &c->node);
}

/* Does this end's NodeID win, when both have dialled? */
static bool we_are_lower(const struct host *h, kad_peer peer)
{
    return kad_id_cmp(&h->self, h->ops.id(h->ops.arg, peer)) < 0;
}

/* The stream that calls to this peer take; NULL = none. */
static struct con *find(struct host *h, kad_peer peer)
{
    struct of_peer *of = map_get(&h->native_peers, &peer);
    struct list_node *n, *tmp;
    struct con *best = NULL;

    if (of == NULL)
        return NULL;
    list_for_each(n, tmp, &of->cons)
    {
        struct con *c = container_of(n, struct con, in_peer);
        if (c->stranger || (!c->dialled && !c->greeted))
            continue;
        /* The later one of those from one side; of both sides that of the lower NodeID. */
        if (best == NULL || best->dialled == c->dialled || c->dialled == we_are_lower(h, peer))
            best = c;
    }
    return best;
}

/* ---- writing ---- */

/* Everything that a turn brought goes out in one piece. */
static void flush_out(struct con *c)
{
    while (c->out_at < c->out_n) {
        size_t n = c->out_n - c->out_at;
        long put = stream_write(c->st, c->out + c->out_at, n < HOST_PIECE ? n : HOST_PIECE);
        if (put <= 0)
            break; /* writable() or ended() follows */
        c->sent = true;
        c->out_at += (size_t)put;
        c->host->stat.bytes_out += (uint64_t)put;
    }
    if (c->out_at < c->out_n)
        return;
    c->out_at = c->out_n = 0;
    if (c->out_cap > HOST_PIECE) {
        free(c->out);
        c->out = NULL;
        c->out_cap = 0;
    }
}

/* Nothing is wanted of it any more, and all is said: a stranger has got its answer, or both ends
 * have dialled and use the other stream. */
static bool is_done(const struct con *c)
{
    if (!c->greeted || !is_idle(c))
        return false;
    if (!c->dialled)
        return c->stranger;
    const struct con *best = find(c->host, c->peer);
    return best != c && best != NULL && best->greeted;
}

static void flush_due(struct loop_task *t)
{
    struct con *c = container_of(t, struct con, flush);

    flush_out(c);
    if (is_done(c))
        free_con(c, false);
}

/* Queue bytes for the end of the turn. */
static int put_out(struct con *c, const uint8_t *p, size_t n)
{
    struct host *h = c->host;

    if (n > OUT_MAX - (c->out_n - c->out_at))
        return ERR_LIMIT;
    if (n > c->out_cap - c->out_n && c->out_at > 0) {
        memmove(c->out, c->out + c->out_at, c->out_n - c->out_at);
        c->out_n -= c->out_at;
        c->out_at = 0;
    }
    if (n > c->out_cap - c->out_n) {
        size_t cap = c->out_cap > 0 ? c->out_cap : 1024;
        while (cap - c->out_n < n)
            cap *= 2;
        uint8_t *more = realloc(c->out, cap);
        if (more == NULL)
            return ERR_NOMEM;
        c->out = more;
        c->out_cap = cap;
    }
    memcpy(c->out + c->out_n, p, n);
    c->out_n += n;
    loop_task_post(h->cfg.loop, &c->flush);
    return 0;
}

static int put_msg(struct con *c, struct kad_msg *m, uint32_t id)
{
    uint8_t *p;
    size_t n;
    int rc = kad_codec_msgpack.encode(&p, &n, m, id);

    if (rc != 0)
        return rc;
    rc = put_out(c, p, n);
    free(p);
    return rc;
}

static int put_error(struct con *c, uint32_t id, int err)
{
    uint8_t *p;
    size_t n;
    int rc = kad_mp_encode_error(&p, &n, id, err);

    if (rc != 0)
        return rc;
    rc = put_out(c, p, n);
    free(p);
    return rc;
}

/* ---- reading ---- */

/* A request of the peer. 0, or why the stream must end. */
static int take_request(struct con *c, const struct kad_mp_head *head)
{
    struct host *h = c->host;
    struct kad_msg req;

    if (!c->greeted && !c->dialled && head->method != KAD_PING)
        return ERR_PROTOCOL;
    if (head->method == 0 || head->method == KAD_CHANGED)
        return put_error(c, head->id, ERR_UNSUPPORTED);
    int rc = kad_codec_msgpack.decode(&req, head->method, false, head->body, head->body_len);
    if (rc != 0)
        return rc;
    if (!c->greeted && !c->dialled) {
        c->greeted = true;
        c->network = req.network;
        c->read_only = req.read_only;
        c->stranger = req.network != h->network;
        peers_set_dialect(h->peers, c->peer, KAD_DIALECT_NATIVE, host_now(h));
    }
    struct con_job *j = c->n_jobs < JOBS_MAX ? calloc(1, sizeof *j) : NULL;
    if (j != NULL) {
        j->con = c;
        j->id = head->id;
        j->token = ++h->next_token;
    }
    if (j == NULL || map_put(&h->native_jobs, j) != 0) {
        free(j);
        kad_msg_clear(&req);
        h->stat.refused_calls++;
        return put_error(c, head->id, ERR_BUSY);
    }
    list_push_back(&c->jobs, &j->node);
    c->n_jobs++;
    req.network = c->network;
    req.read_only = c->read_only;
    req.wire_bytes = head->size;
    kad_request(h->kad, c->peer, &req, j->token, host_now(h));
    host_kick(h);
    return 0;
}

static enum kad_fail fail_of_error(int err)
{
    return err == ERR_NETWORK ? KAD_FAIL_NETWORK : KAD_FAIL_CLOSED;
}

/* The answer to our first PING. */
static int take_greeting(struct con *c, const struct kad_mp_head *head)
{
    struct kad_msg rsp;

    if (c->greeted || head->error != 0)
        return head->error != 0 ? head->error : ERR_PROTOCOL;
    int rc = kad_codec_msgpack.decode(&rsp, KAD_PING, true, head->body, head->body_len);
    if (rc != 0)
        return rc;
    c->network = rsp.network;
    kad_msg_clear(&rsp);
    if (c->network != c->host->network)
        return ERR_NETWORK;
    c->greeted = true;
    peers_set_dialect(c->host->peers, c->peer, KAD_DIALECT_NATIVE, host_now(c->host));
    return 0;
}

static int take_response(struct con *c, const struct kad_mp_head *head)
{
    struct host *h = c->host;
    struct kad_msg rsp;

    if (head->id == GREETING && c->dialled)
        return take_greeting(c, head);
    if (!c->greeted)
        return ERR_PROTOCOL;
    struct con_call *cc = map_get(&h->native_calls, &head->id);
    if (cc == NULL || cc->con != c)
        return 0; /* late */
    uint32_t id = cc->id;
    enum kad_method method = cc->method;
    free_call(cc);
    if (head->error != 0) {
        host_call_failed(h, id, fail_of_error(head->error));
        return 0;
    }
    int rc = kad_codec_msgpack.decode(&rsp, method, true, head->body, head->body_len);
    if (rc != 0) {
        host_call_failed(h, id, KAD_FAIL_FORMAT);
        return rc;
    }
    rsp.network = c->network;
    rsp.wire_bytes = head->size;
    kad_response(h->kad, id, &rsp, host_now(h));
    host_kick(h);
    return 0;
}

static int take_note(struct con *c, const struct kad_mp_head *head)
{
    struct host *h = c->host;
    struct kad_msg m;

    if (!c->greeted)
        return ERR_PROTOCOL;
    if (head->method != KAD_CHANGED || c->stranger)
        return 0; /* of a later version */
    int rc = kad_codec_msgpack.decode(&m, head->method, false, head->body, head->body_len);
    if (rc != 0)
        return rc;
    m.network = c->network;
    m.wire_bytes = head->size;
    kad_changed(h->kad, c->peer, &m, host_now(h));
    host_kick(h);
    return 0;
}

static int take(struct con *c, const struct kad_mp_head *head)
{
    switch (head->type) {
    case KAD_MP_REQUEST:
        return take_request(c, head);
    case KAD_MP_RESPONSE:
        return take_response(c, head);
    case KAD_MP_NOTE:
        return take_note(c, head);
    }
    return ERR_FORMAT;
}

/* All whole messages of these bytes. 0, or why the stream must end. */
static int feed(struct con *c, const uint8_t *p, size_t n)
{
    struct host *h = c->host;
    struct kad_mp_head head;

    while (n > 0) {
        size_t used_n, before = kad_mp_frame_held(&c->in);
        int rc = kad_mp_frame_feed(&c->in, p, n, &used_n, &head);
        if (rc == 0) {
            rc = take(c, &head);
            kad_mp_frame_next(&c->in);
        } else if (rc == ERR_AGAIN) {
            rc = 0;
        }
        h->native_held += kad_mp_frame_held(&c->in) - before;
        if (rc == 0 && h->native_held > HELD_MAX)
            rc = ERR_LIMIT;
        if (rc != 0)
            return rc;
        p += used_n;
        n -= used_n;
    }
    return 0;
}

static void broken(struct con *c, int err)
{
    struct host *h = c->host;

    if (err == ERR_LIMIT && c->out_n - c->out_at > 0)
        h->stat.dropped_slow++;
    else if (err != ERR_NETWORK)
        h->stat.bad_native++;
    log_limited_here(LOG_DHT, LOG_LEVEL_DEBUG, "native stream closed peer=%s reason=\"%s\"",
                     LOG_PK(stream_remote(c->st)), err_str(err));
    end_con(c, fail_of_error(err));
}

static void con_readable(struct stream *st, void *arg)
{
    struct con *c = arg;
    struct host *h = c->host;
    uint8_t piece[READ_PIECE];
    int rc = 0;
    size_t n;

    used(c);
    c->heard_ns = host_now(h);
    while (rc == 0 && (n = stream_read(st, piece, sizeof piece)) > 0) {
        h->stat.bytes_in += n;
        rc = feed(c, piece, n);
    }
    if (rc != 0)
        broken(c, rc);
    else if (stream_eof(st))
        end_con(c, KAD_FAIL_CLOSED);
    else if (is_done(c))
        free_con(c, false);
}

static void con_writable(struct stream *st, void *arg)
{
    struct con *c = arg;

    (void)st;
    if (c->out_at < c->out_n)
        loop_task_post(c->host->cfg.loop, &c->flush);
}

static void con_opened(struct stream *st, void *arg)
{
    struct con *c = arg;

    host_seen_through(c->host, c->peer, st);
    con_writable(st, c);
}

static void con_ended(struct stream *st, void *arg, int err)
{
    struct con *c = arg;

    end_con(c, host_fail(st, err, c->sent));
}

static const struct stream_cb con_cb = {
    .opened = con_opened,
    .readable = con_readable,
    .writable = con_writable,
    .ended = con_ended,
};

/* ---- the pool ---- */

static struct of_peer *of_peer(struct host *h, kad_peer peer)
{
    struct of_peer *of = map_get(&h->native_peers, &peer);

    if (of != NULL || (of = calloc(1, sizeof *of)) == NULL)
        return of;
    of->peer = peer;
    list_init(&of->cons);
    if (map_put(&h->native_peers, of) == 0)
        return of;
    free(of);
    return NULL;
}

static struct con *new_con(struct host *h, kad_peer peer, bool dialled)
{
    struct con *c = calloc(1, sizeof *c);
    struct of_peer *of = c != NULL ? of_peer(h, peer) : NULL;

    if (of == NULL) {
        free(c);
        return NULL;
    }
    c->of = of;
    list_push_back(&of->cons, &c->in_peer);
    c->host = h;
    c->peer = peer;
    c->dialled = dialled;
    c->network = h->network;
    c->used_ns = host_now(h);
    c->timer.fn = timer_due;
    c->flush.fn = flush_due;
    kad_mp_frame_init(&c->in);
    list_init(&c->calls);
    list_init(&c->jobs);
    h->ops.ref(h->ops.arg, peer);
    list_push_back(&h->cons, &c->node);
    *(dialled ? &h->stat.dialled : &h->stat.accepted) += 1;
    loop_timer_set(h->cfg.loop, &c->timer,
                   c->used_ns + (dialled ? HOST_IDLE_MS : HOST_REQUEST_MS) * NS_PER_MS);
    return c;
}

/* The least recently used stream of that direction that nobody waits for; of one peer, if given. */
static struct con *find_idle(struct host *h, bool dialled)
{
    struct list_node *n, *tmp;

    list_for_each(n, tmp, &h->cons)
    {
        struct con *c = container_of(n, struct con, node);
        if (c->dialled == dialled && is_idle(c) && !is_kept(c))
            return c;
    }
    return NULL;
}

static bool make_room(struct host *h, bool dialled)
{
    size_t most = !dialled                  ? HOST_ACCEPTED
                  : h->cfg.max_dialled != 0 ? h->cfg.max_dialled
                                            : HOST_DIALLED;

    if ((dialled ? h->stat.dialled : h->stat.accepted) < most)
        return true;
    struct con *c = find_idle(h, dialled);
    if (c == NULL)
        return false;
    h->stat.pool_evicted++;
    free_con(c, false);
    return true;
}

/* The older streams of this peer: it has lost them, or has more than it may. */
static void trim_accepted(struct host *h, kad_peer peer)
{
    struct of_peer *of = map_get(&h->native_peers, &peer);
    struct list_node *n, *tmp;
    struct con *oldest = NULL;
    unsigned more = 0;

    if (of == NULL)
        return;
    list_for_each(n, tmp, &of->cons)
    {
        struct con *c = container_of(n, struct con, in_peer);
        if (c->dialled)
            continue;
        if (oldest == NULL)
            oldest = c;
        more++;
    }
    if (more >= ACCEPTED_OF_ONE)
        end_con(oldest, KAD_FAIL_CLOSED);
}

void native_accept(struct host *h, struct stream *st, const uint8_t *p, size_t n)
{
    kad_peer peer = host_peer(h, stream_remote(st));
    struct con *c = NULL;

    if (peer == KAD_PEER_NONE) {
        stream_close(st);
        return;
    }
    trim_accepted(h, peer);
    if (make_room(h, false))
        c = new_con(h, peer, false);
    host_unref(h, peer);
    if (c == NULL) {
        h->stat.refused_busy++;
        stream_close(st);
        return;
    }
    c->st = st;
    host_seen_through(h, peer, st);
    stream_set_cb(st, &con_cb, c);
    int rc = feed(c, p, n);
    if (rc != 0)
        broken(c, rc);
    else
        con_readable(st, c);
}

static struct con *dial(struct host *h, kad_peer peer, unsigned timeout_ms)
{
    struct kad_msg ping;

    if (!make_room(h, true)) {
        h->stat.pool_full++;
        return NULL;
    }
    struct con *c = new_con(h, peer, true);
    if (c == NULL)
        return NULL;
    int rc = client_dial(h->cfg.client, host_pk(h, peer), KAD_PORT, timeout_ms, CLIENT_DIAL_LOCAL,
                         &con_cb, c, &c->st);
    kad_msg_init(&ping, KAD_PING, false);
    ping.network = h->network;
    ping.read_only = h->read_only;
    if (rc == 0)
        rc = put_msg(c, &ping, GREETING);
    if (rc == 0)
        return c;
    free_con(c, true);
    return NULL;
}

bool native_has(struct host *h, kad_peer peer)
{
    return find(h, peer) != NULL;
}

/* ---- the engine's side ---- */

int native_call(struct host *h, kad_peer peer, uint32_t call, unsigned timeout_ms,
                struct kad_msg *msg)
{
    struct con *c = find(h, peer);
    struct con_call *cc = calloc(1, sizeof *cc);
    int rc = ERR_LIMIT;

    if (cc != NULL && c == NULL)
        c = dial(h, peer, timeout_ms);
    if (c == NULL || cc == NULL)
        goto fail;
    cc->con = c;
    cc->id = call;
    cc->method = msg->method;
    cc->timeout_ms = timeout_ms;
    cc->sent_ns = host_now(h);
    rc = map_put(&h->native_calls, cc);
    if (rc != 0)
        goto fail;
    list_push_back(&c->calls, &cc->node);
    rc = put_msg(c, msg, call);
    if (rc != 0) {
        free_call(cc);
        return rc;
    }
    cc->msg = *msg;
    memset(msg, 0, sizeof *msg);
    used(c);
    h->stat.native_calls++;
    return 0;
fail:
    free(cc);
    return rc;
}

bool native_abort(struct host *h, uint32_t call)
{
    struct con_call *cc = map_get(&h->native_calls, &call);

    if (cc == NULL)
        return false;
    struct con *c = cc->con;
    bool dead = c->heard_ns < cc->sent_ns && host_now(h) - cc->sent_ns >= SILENT_NS;
    free_call(cc);
    if (dead)
        end_con(c, KAD_FAIL_TIMEOUT);
    return true;
}

bool native_reply(struct host *h, struct kad_act *a)
{
    struct con_job *j = map_get(&h->native_jobs, &a->token);

    if (j == NULL)
        return false;
    struct con *c = j->con;
    uint32_t id = j->id;
    free_job(j);
    int rc = a->type == KAD_ACT_REFUSE ? put_error(c, id, a->err) : put_msg(c, &a->msg, id);
    if (rc == ERR_TOO_LONG)
        rc = put_error(c, id, rc);
    if (rc != 0)
        broken(c, rc);
    else
        used(c);
    return true;
}

int native_note(struct host *h, kad_peer peer, struct kad_msg *msg)
{
    struct con *c = find(h, peer);

    if (c == NULL || !c->greeted)
        return ERR_NOT_FOUND;
    int rc = put_msg(c, msg, 0);
    if (rc == 0)
        used(c);
    return rc;
}

/* ---- life ---- */

void native_init(struct host *h)
{
    list_init(&h->cons);
    map_init(&h->native_peers, MAP_KEY(struct of_peer, peer), h->cfg.env->hash_key, 0);
    map_init(&h->native_calls, MAP_KEY(struct con_call, id), h->cfg.env->hash_key, 0);
    map_init(&h->native_jobs, MAP_KEY(struct con_job, token), h->cfg.env->hash_key,
             (HOST_ACCEPTED + HOST_DIALLED) * JOBS_MAX);
}

void native_free(struct host *h)
{
    struct con *c;

    while ((c = list_first_as(&h->cons, struct con, node)) != NULL)
        free_con(c, true);
    map_free(&h->native_peers);
    map_free(&h->native_calls);
    map_free(&h->native_jobs);
}
