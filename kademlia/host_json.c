#include "kademlia/host_int.h"

#include <assert.h>
#include <stdlib.h>

#include "base/err.h"
#include "base/log.h"
#include "kademlia/codec_json.h"
#include "kademlia/codec_msgpack.h"

struct caller { /* how many streams of one peer are being served */
    struct pubkey pk;
    unsigned streams;
};

/* One request and one response on one stream, on either side of it. */
struct exchange {
    struct host *host;
    struct stream *st;
    struct list_node node;
    struct kad_frame in;
    uint8_t *out; /* encoded frame, written up to out_at */
    size_t out_n, out_at;
    struct loop_timer deadline; /* serving only: calls are bounded by their dial and the engine */
    struct caller *caller;      /* serving only */
    kad_peer peer;
    uint64_t token; /* serving: the engine's handle, 0 before and after */
    uint32_t call;  /* calling */
    enum kad_method method;
    bool offered;  /* serving: a PING that offered the native dialect */
    bool answered; /* serving: the response is being written; calling: the engine knows the end */
};

/* ---- exchanges ---- */

static void exchange_free(struct exchange *x, bool abort)
{
    struct host *h = x->host;
    loop_timer_cancel(h->cfg.loop, &x->deadline);
    if (x->st != NULL && abort)
        stream_abort(x->st);
    else if (x->st != NULL)
        stream_close(x->st);
    if (x->token != 0)
        map_del(&h->by_token, &x->token);
    if (x->caller != NULL) {
        h->stat.serving--;
        if (--x->caller->streams == 0) {
            map_del(&h->callers, &x->caller->pk);
            free(x->caller);
        }
    } else {
        h->stat.calling--;
    }
    if (x->peer != KAD_PEER_NONE)
        h->ops.unref(h->ops.arg, x->peer);
    kad_frame_clear(&x->in);
    free(x->out);
    list_remove(&x->node);
    free(x);
}

/* 0 = all written, ERR_AGAIN = the rest later, or the stream is dead. */
static int write_out(struct exchange *x)
{
    while (x->out_at < x->out_n) {
        size_t n = x->out_n - x->out_at;
        long put = stream_write(x->st, x->out + x->out_at, n < HOST_PIECE ? n : HOST_PIECE);
        if (put < 0)
            return (int)put;
        if (put == 0)
            return ERR_AGAIN;
        x->out_at += (size_t)put;
        x->host->stat.bytes_out += (uint64_t)put;
    }
    return 0;
}

/* Read towards one whole frame: 0, ERR_AGAIN, ERR_EOF or why it is none. */
static int read_frame(struct exchange *x)
{
    uint8_t *piece = malloc(HOST_PIECE);
    int rc = piece == NULL ? ERR_NOMEM : ERR_AGAIN;
    size_t n, used;
    while (rc == ERR_AGAIN && (n = stream_read(x->st, piece, HOST_PIECE)) > 0) {
        x->host->stat.bytes_in += n;
        rc = kad_frame_feed(&x->in, piece, n,
                            &used); /* what follows the frame is never read (dht.md §3.1) */
    }
    free(piece);
    return rc == ERR_AGAIN && stream_eof(x->st) ? ERR_EOF : rc;
}

/* ---- serving ---- */

static void serve_write(struct exchange *x)
{
    int rc = write_out(x);
    if (rc != ERR_AGAIN)
        exchange_free(x, rc < 0);
}

/* Does the stream begin with the other dialect? It goes over to the pool then. */
static bool is_native(struct exchange *x)
{
    struct host *h = x->host;
    struct stream *st = x->st;
    uint8_t first;
    size_t used;

    if (x->in.head_len > 0 || h->cfg.json_only || stream_read(st, &first, 1) == 0)
        return false;
    h->stat.bytes_in++;
    if (!KAD_MP_FIRST(first)) {
        int rc = kad_frame_feed(&x->in, &first, 1, &used);
        assert(rc == ERR_AGAIN); /* one byte is no whole frame */
        (void)rc;
        return false;
    }
    x->st = NULL;
    exchange_free(x, false);
    native_accept(h, st, &first, 1);
    return true;
}

/* A PING tells the dialect of who sent it. */
static void note_offer(struct host *h, kad_peer peer, const struct kad_msg *m)
{
    if (m->method == KAD_PING)
        peers_set_dialect(h->peers, peer,
                          m->offer >= KAD_NATIVE_VERSION && !h->cfg.json_only ? KAD_DIALECT_NATIVE
                                                                              : KAD_DIALECT_JSON,
                          host_now(h));
}

static void serve_readable(struct stream *st, void *arg)
{
    struct exchange *x = arg;
    struct host *h = x->host;
    struct kad_msg req = {0};
    (void)st;
    if (x->token != 0 || x->answered)
        return; /* one request per stream */
    if (is_native(x))
        return;
    int rc = read_frame(x);
    if (rc == ERR_AGAIN)
        return;
    if (rc == 0)
        rc = kad_json_decode(&req, x->in.method, false, x->in.body, x->in.body_len);
    if (rc < 0) {
        h->stat.bad_frames++;
        log_limited_here(LOG_DHT, LOG_LEVEL_DEBUG, "request refused peer=%s reason=\"%s\"",
                         LOG_PK(stream_remote(st)), err_str(rc));
        exchange_free(x, false);
        return;
    }
    x->offered = req.offer > 0 && !h->cfg.json_only;
    note_offer(h, x->peer, &req);
    x->token = ++h->next_token;
    if (map_put(&h->by_token, x) < 0) {
        x->token = 0;
        kad_msg_clear(&req);
        exchange_free(x, false);
        return;
    }
    kad_request(h->kad, x->peer, &req, x->token, host_now(h));
    host_kick(h);
}

static void serve_writable(struct stream *st, void *arg)
{
    struct exchange *x = arg;
    (void)st;
    if (x->answered)
        serve_write(x);
}

static void serve_ended(struct stream *st, void *arg, int err)
{
    (void)st;
    (void)err;
    exchange_free(arg, false);
}

static void serve_timeout(struct loop_timer *t)
{
    struct exchange *x = container_of(t, struct exchange, deadline);
    x->host->stat.timeouts++;
    exchange_free(x, true);
}

static const struct stream_cb serve_cb = {
    .readable = serve_readable,
    .writable = serve_writable,
    .ended = serve_ended,
};

static struct caller *caller_of(struct host *h, const struct pubkey *pk)
{
    struct caller *c = map_get(&h->callers, pk);
    if (c != NULL)
        return c;
    if ((c = calloc(1, sizeof(*c))) == NULL)
        return NULL;
    c->pk = *pk;
    if (map_put(&h->callers, c) < 0) {
        free(c);
        return NULL;
    }
    return c;
}

static struct exchange *exchange_new(struct host *h)
{
    struct exchange *x = calloc(1, sizeof(*x));
    if (x == NULL)
        return NULL;
    x->host = h;
    x->peer = KAD_PEER_NONE;
    x->deadline.fn = serve_timeout;
    kad_frame_init(&x->in, KAD_FRAME_MAX);
    return x;
}

/* All places are taken: the stream that has been silent longest gives way (incident 62). */
static bool drop_silent(struct host *h)
{
    struct list_node *pos, *tmp;
    list_for_each(pos, tmp, &h->serving)
    {
        struct exchange *x = container_of(pos, struct exchange, node);
        if (x->token == 0 && !x->answered) {
            h->stat.dropped_silent++;
            exchange_free(x, true);
            return true;
        }
    }
    return false;
}

void json_accept(void *arg, struct stream *st)
{
    struct host *h = arg;
    struct caller *c = NULL;
    struct exchange *x = NULL;
    kad_peer peer = KAD_PEER_NONE;

    /* Its own share first: whoever has used that up must not cost others their places. */
    if ((c = map_get(&h->callers, stream_remote(st))) != NULL && c->streams >= HOST_SERVE_PEER) {
        h->stat.refused_peer++;
        goto refused;
    }
    c = NULL; /* what is dropped now may be its last stream */
    if (h->stat.serving >= HOST_SERVE && !drop_silent(h)) {
        h->stat.refused_busy++;
        goto refused;
    }
    if ((c = caller_of(h, stream_remote(st))) == NULL)
        goto refused;
    peer = host_peer(h, stream_remote(st));
    if (peer == KAD_PEER_NONE || (x = exchange_new(h)) == NULL)
        goto refused;
    x->st = st;
    x->peer = peer;
    host_seen_through(h, peer, st);
    x->caller = c;
    c->streams++;
    h->stat.serving++;
    list_push_back(&h->serving, &x->node);
    loop_timer_set(h->cfg.loop, &x->deadline, host_now(h) + HOST_REQUEST_MS * NS_PER_MS);
    stream_set_cb(st, &serve_cb, x);
    serve_readable(st, x);
    return;
refused:
    if (peer != KAD_PEER_NONE)
        host_unref(h, peer);
    if (c != NULL && c->streams == 0) {
        map_del(&h->callers, &c->pk);
        free(c);
    }
    stream_close(st);
}

bool json_reply(struct host *h, struct kad_act *a)
{
    struct exchange *x = map_get(&h->by_token, &a->token);
    if (x == NULL)
        return false;
    if (x->offered && a->msg.method == KAD_PING)
        a->msg.offer = KAD_NATIVE_VERSION;
    map_del(&h->by_token, &x->token);
    x->token = 0;
    x->answered = true;
    if (a->type == KAD_ACT_REFUSE || kad_json_encode(&x->out, &x->out_n, &a->msg) < 0) {
        exchange_free(x, false);
        return true;
    }
    serve_write(x);
    return true;
}

/* ---- calling ---- */

static void call_end(struct exchange *x, enum kad_fail why)
{
    struct host *h = x->host;
    uint32_t call = x->call;
    if (call == 0) /* it does not answer the question, then */
        peers_set_dialect(h->peers, x->peer, KAD_DIALECT_JSON, host_now(h));
    exchange_free(x, true);
    host_call_failed(h, call, why);
}

/* A peer of whom nothing is known has answered in JSON: does it speak the other dialect too? */
static void ask_dialect(struct host *h, kad_peer peer)
{
    struct kad_msg ping;

    if (h->cfg.json_only || peers_dialect(h->peers, peer, host_now(h)) != KAD_DIALECT_UNKNOWN)
        return;
    kad_msg_init(&ping, KAD_PING, false);
    ping.sender = h->cfg.self;
    ping.network = h->network;
    ping.read_only = h->read_only;
    json_call(h, peer, 0, HOST_REQUEST_MS, &ping);
}

static void call_opened(struct stream *st, void *arg)
{
    struct exchange *x = arg;
    host_seen_through(x->host, x->peer, st);
    int rc = write_out(x);
    if (rc < 0 && rc != ERR_AGAIN)
        call_end(x, KAD_FAIL_CLOSED);
}

static void call_readable(struct stream *st, void *arg)
{
    struct exchange *x = arg;
    struct host *h = x->host;
    struct kad_msg rsp = {0};
    (void)st;
    int rc = read_frame(x);
    if (rc == ERR_AGAIN)
        return;
    if (rc == 0)
        rc = kad_json_decode(&rsp, x->method, true, x->in.body, x->in.body_len);
    if (rc < 0) {
        if (rc != ERR_EOF)
            h->stat.bad_frames++;
        call_end(x, rc == ERR_EOF        ? KAD_FAIL_CLOSED
                    : rc == ERR_TOO_LONG ? KAD_FAIL_TOO_LONG
                                         : KAD_FAIL_FORMAT);
        return;
    }
    uint32_t call = x->call;
    note_offer(h, x->peer, &rsp);
    ask_dialect(h, x->peer);
    exchange_free(x, false);
    if (call == 0)
        kad_msg_clear(&rsp);
    else
        kad_response(h->kad, call, &rsp, host_now(h));
    host_kick(h);
}

static void call_ended(struct stream *st, void *arg, int err)
{
    struct exchange *x = arg;
    call_end(x, host_fail(st, err, x->out_at > 0));
}

static const struct stream_cb call_cb = {
    .opened = call_opened,
    .readable = call_readable,
    .writable = call_opened,
    .ended = call_ended,
};

void json_call(struct host *h, kad_peer peer, uint32_t call, unsigned timeout_ms,
               struct kad_msg *msg)
{
    struct exchange *x = exchange_new(h);
    if (x == NULL) {
        host_call_failed(h, call, KAD_FAIL_LOCAL);
        return;
    }
    x->call = call;
    x->method = msg->method;
    h->ops.ref(h->ops.arg, peer);
    x->peer = peer;
    h->stat.calling++;
    h->stat.json_calls++;
    list_push_back(&h->calling, &x->node);
    if (msg->method == KAD_PING && !h->cfg.json_only)
        msg->offer = KAD_NATIVE_VERSION;
    int rc = kad_json_encode(&x->out, &x->out_n, msg);
    if (rc == 0)
        rc = client_dial(h->cfg.client, host_pk(h, peer), KAD_PORT, timeout_ms, CLIENT_DIAL_LOCAL,
                         &call_cb, x, &x->st);
    if (rc < 0) {
        exchange_free(x, true);
        host_call_failed(h, call, KAD_FAIL_LOCAL);
    }
}

bool json_abort(struct host *h, uint32_t call)
{
    struct list_node *pos, *tmp;
    list_for_each(pos, tmp, &h->calling)
    {
        struct exchange *x = container_of(pos, struct exchange, node);
        if (x->call == call) {
            exchange_free(x, true);
            return true;
        }
    }
    return false;
}

/* ---- life ---- */

void json_init(struct host *h)
{
    list_init(&h->serving);
    list_init(&h->calling);
    map_init(&h->by_token, MAP_KEY(struct exchange, token), h->cfg.env->hash_key, HOST_SERVE);
    map_init(&h->callers, MAP_KEY(struct caller, pk), h->cfg.env->hash_key, HOST_SERVE);
}

void json_free(struct host *h)
{
    struct exchange *x;
    while ((x = list_first_as(&h->serving, struct exchange, node)) != NULL)
        exchange_free(x, true);
    while ((x = list_first_as(&h->calling, struct exchange, node)) != NULL)
        exchange_free(x, true);
    map_free(&h->by_token);
    map_free(&h->callers);
}
