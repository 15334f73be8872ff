#include "kademlia/host.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "base/map.h"
#include "kademlia/codec_json.h"
#include "kademlia/peers.h"

#define WRITE_PIECE 65536u
#define READ_PIECE  65536u

struct host {
    struct host_cfg cfg;
    struct peers *peers;
    struct kad_peers ops;
    struct kad *kad;
    struct loop_timer timer;
    struct loop_task pump;
    struct list serving; /* struct exchange of accepted streams */
    struct list calling; /* … of dialled ones */
    struct map by_token; /* serving exchanges whose request is with the engine */
    struct map callers;  /* struct caller: streams served by peer */
    uint64_t next_token;
    bool listening;
    struct host_stat stat;
};

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
    bool answered; /* serving: the response is being written; calling: the engine knows the end */
};

/* ---- pumping the engine ---- */

void host_kick(struct host *h)
{
    loop_task_post(h->cfg.loop, &h->pump);
}

static void ready(void *arg)
{
    host_kick(arg);
}

static void stored(void *arg, const struct store_rec *rec)
{
    struct host *h = arg;
    h->cfg.stored(h->cfg.arg, rec);
}

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
        long put = stream_write(x->st, x->out + x->out_at, n < WRITE_PIECE ? n : WRITE_PIECE);
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
    uint8_t *piece = malloc(READ_PIECE);
    int rc = piece == NULL ? ERR_NOMEM : ERR_AGAIN;
    size_t n, used;
    while (rc == ERR_AGAIN && (n = stream_read(x->st, piece, READ_PIECE)) > 0) {
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

static void serve_readable(struct stream *st, void *arg)
{
    struct exchange *x = arg;
    struct host *h = x->host;
    struct kad_msg req;
    (void)st;
    if (x->token != 0 || x->answered)
        return; /* one request per stream */
    int rc = read_frame(x);
    if (rc == ERR_AGAIN)
        return;
    if (rc == 0)
        rc = kad_json_decode(&req, x->in.method, false, x->in.body, x->in.body_len);
    if (rc < 0) {
        h->stat.bad_frames++;
        log_debug(LOG_DHT, "request refused peer=%s reason=\"%s\"", LOG_PK(stream_remote(st)),
                  err_str(rc));
        exchange_free(x, false);
        return;
    }
    req.wire_bytes = KAD_FRAME_HEAD + x->in.body_len;
    x->token = ++h->next_token;
    if (map_put(&h->by_token, x) < 0) {
        x->token = 0;
        kad_msg_clear(&req);
        exchange_free(x, false);
        return;
    }
    kad_request(h->kad, x->peer, &req, x->token, h->cfg.loop->now_ns);
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

static void on_accept(void *arg, struct stream *st)
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
    x->caller = c;
    c->streams++;
    h->stat.serving++;
    list_push_back(&h->serving, &x->node);
    loop_timer_set(h->cfg.loop, &x->deadline, h->cfg.loop->now_ns + HOST_REQUEST_MS * NS_PER_MS);
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

static void reply(struct host *h, struct kad_act *a)
{
    struct exchange *x = map_get(&h->by_token, &a->token);
    if (x == NULL)
        return; /* the caller is gone */
    map_del(&h->by_token, &x->token);
    x->token = 0;
    x->answered = true;
    if (a->type == KAD_ACT_REFUSE || kad_json_encode(&x->out, &x->out_n, &a->msg) < 0) {
        exchange_free(x, false);
        return;
    }
    serve_write(x);
}

/* ---- calling ---- */

static enum kad_fail fail_of(const struct exchange *x, int err)
{
    if (err == ERR_DMSG_NO_LISTENER)
        return KAD_FAIL_NO_DHT;
    if (err == ERR_TIMEOUT)
        return KAD_FAIL_TIMEOUT;
    return x->out_at > 0 ? KAD_FAIL_CLOSED : KAD_FAIL_UNREACHABLE;
}

static void call_end(struct exchange *x, enum kad_fail why)
{
    struct host *h = x->host;
    uint32_t call = x->call;
    exchange_free(x, true);
    kad_call_failed(h->kad, call, why, h->cfg.loop->now_ns);
    host_kick(h);
}

static void call_opened(struct stream *st, void *arg)
{
    struct exchange *x = arg;
    (void)st;
    int rc = write_out(x);
    if (rc < 0 && rc != ERR_AGAIN)
        call_end(x, KAD_FAIL_CLOSED);
}

static void call_readable(struct stream *st, void *arg)
{
    struct exchange *x = arg;
    struct host *h = x->host;
    struct kad_msg rsp;
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
    rsp.wire_bytes = KAD_FRAME_HEAD + x->in.body_len;
    uint32_t call = x->call;
    exchange_free(x, false);
    kad_response(h->kad, call, &rsp, h->cfg.loop->now_ns);
    host_kick(h);
}

static void call_ended(struct stream *st, void *arg, int err)
{
    struct exchange *x = arg;
    (void)st;
    call_end(x, fail_of(x, err));
}

static const struct stream_cb call_cb = {
    .opened = call_opened,
    .readable = call_readable,
    .writable = call_opened,
    .ended = call_ended,
};

static void call_start(struct host *h, struct kad_act *a)
{
    struct exchange *x = exchange_new(h);
    if (x == NULL) {
        kad_call_failed(h->kad, a->call, KAD_FAIL_LOCAL, h->cfg.loop->now_ns);
        return;
    }
    x->call = a->call;
    x->method = a->msg.method;
    h->stat.calling++;
    list_push_back(&h->calling, &x->node);
    int rc = kad_json_encode(&x->out, &x->out_n, &a->msg);
    if (rc == 0)
        rc = client_dial(h->cfg.client, host_pk(h, a->peer), KAD_PORT, a->timeout_ms,
                         CLIENT_DIAL_LOCAL, &call_cb, x, &x->st);
    if (rc < 0) {
        exchange_free(x, true);
        kad_call_failed(h->kad, a->call, KAD_FAIL_LOCAL, h->cfg.loop->now_ns);
    }
}

static void call_abort(struct host *h, uint32_t call)
{
    struct list_node *pos, *tmp;
    list_for_each(pos, tmp, &h->calling)
    {
        struct exchange *x = container_of(pos, struct exchange, node);
        if (x->call == call) {
            exchange_free(x, true);
            return;
        }
    }
}

/* ---- the loop's side ---- */

static void act(struct host *h, struct kad_act *a)
{
    switch (a->type) {
    case KAD_ACT_CALL:
        call_start(h, a);
        return;
    case KAD_ACT_ABORT:
        call_abort(h, a->call);
        return;
    case KAD_ACT_REPLY:
    case KAD_ACT_REFUSE:
        reply(h, a);
        return;
    case KAD_ACT_DONE:
        h->cfg.report(h->cfg.arg, &a->report);
        return;
    }
}

static void rearm(struct host *h)
{
    uint64_t at = kad_deadline(h->kad);
    if (at == LOOP_NEVER)
        loop_timer_cancel(h->cfg.loop, &h->timer);
    else
        loop_timer_set(h->cfg.loop, &h->timer, at);
}

static void pump(struct loop_task *t)
{
    struct host *h = container_of(t, struct host, pump);
    struct kad_act a;
    while (kad_next(h->kad, &a)) {
        act(h, &a);
        kad_act_clear(&a);
    }
    rearm(h);
}

static void on_timer(struct loop_timer *t)
{
    struct host *h = container_of(t, struct host, timer);
    kad_tick(h->kad, h->cfg.loop->now_ns);
    host_kick(h);
}

/* ---- life ---- */

int host_new(struct host **out, const struct host_cfg *cfg)
{
    struct host *h = calloc(1, sizeof(*h));
    int rc = ERR_NOMEM;
    if (h == NULL)
        return rc;
    h->cfg = *cfg;
    h->cfg.kad = NULL;
    h->timer.fn = on_timer;
    h->pump.fn = pump;
    list_init(&h->serving);
    list_init(&h->calling);
    map_init(&h->by_token, MAP_KEY(struct exchange, token), cfg->env->hash_key, HOST_SERVE);
    map_init(&h->callers, MAP_KEY(struct caller, pk), cfg->env->hash_key, HOST_SERVE);
    h->peers = peers_new(cfg->env->hash_key, cfg->max_peers != 0 ? cfg->max_peers : 100000);
    if (h->peers == NULL)
        goto fail;
    h->ops = peers_ops(h->peers);
    struct kad_hooks hooks = {
        .arg = h, .ready = ready, .stored = cfg->stored != NULL ? stored : NULL};
    rc = kad_new(&h->kad, cfg->kad, cfg->env, cfg->store, &h->ops, &hooks, cfg->loop->now_ns);
    h->listening = rc == 0 && !cfg->kad->client_only;
    if (h->listening && (rc = client_listen(cfg->client, KAD_PORT, on_accept, h)) < 0)
        h->listening = false;
    if (rc < 0)
        goto fail;
    host_kick(h);
    *out = h;
    return 0;
fail:
    host_free(h);
    return rc;
}

void host_free(struct host *h)
{
    struct exchange *x;
    if (h == NULL)
        return;
    if (h->listening)
        client_unlisten(h->cfg.client, KAD_PORT);
    while ((x = list_first_as(&h->serving, struct exchange, node)) != NULL)
        exchange_free(x, true);
    while ((x = list_first_as(&h->calling, struct exchange, node)) != NULL)
        exchange_free(x, true);
    loop_timer_cancel(h->cfg.loop, &h->timer);
    loop_task_cancel(h->cfg.loop, &h->pump);
    kad_free(h->kad);
    peers_free(h->peers);
    map_free(&h->by_token);
    map_free(&h->callers);
    free(h);
}

struct kad *host_kad(struct host *h)
{
    return h->kad;
}

kad_peer host_peer(struct host *h, const struct pubkey *pk)
{
    return h->ops.intern(h->ops.arg, pk);
}

void host_unref(struct host *h, kad_peer p)
{
    h->ops.unref(h->ops.arg, p);
}

const struct pubkey *host_pk(struct host *h, kad_peer p)
{
    return h->ops.pk(h->ops.arg, p);
}

void host_stat(const struct host *h, struct host_stat *out)
{
    *out = h->stat;
    out->peers = peers_len(h->peers);
}
