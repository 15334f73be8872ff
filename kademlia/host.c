#include "kademlia/host_int.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"

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

/* ---- calls ---- */

/* Did a relay that the peer is said to be behind answer that it is not there? */
static bool is_gone(const struct stream *st)
{
    size_t n = 0;
    const struct client_step *steps = st != NULL ? stream_dial_steps(st, &n) : NULL;

    for (size_t i = 0; i < n; i++) {
        bool near =
            steps[i].phase == CLIENT_PHASE_EXISTING || steps[i].phase == CLIENT_PHASE_CONNECT;
        if (near && (steps[i].err == ERR_EOF || steps[i].err == ERR_DMSG_NO_NEXT_SESSION))
            return true;
    }
    return false;
}

enum kad_fail host_fail(const struct stream *st, int err, bool sent)
{
    if (err == ERR_DMSG_NO_LISTENER)
        return KAD_FAIL_NO_DHT;
    if (err == ERR_TIMEOUT)
        return KAD_FAIL_TIMEOUT;
    if (sent)
        return KAD_FAIL_CLOSED;
    return is_gone(st) ? KAD_FAIL_GONE : KAD_FAIL_UNREACHABLE;
}

void host_seen_through(struct host *h, kad_peer peer, const struct stream *st)
{
    if (stream_via(st) != NULL)
        peers_set_relays(h->peers, peer, stream_via(st), 1, false);
}

void host_call_failed(struct host *h, uint32_t call, enum kad_fail why)
{
    if (call == 0)
        return;
    kad_call_failed(h->kad, call, why, host_now(h));
    host_kick(h);
}

/* Over the pool to those who speak the native dialect, else, and when it is full, in JSON. */
static void call_start(struct host *h, struct kad_act *a)
{
    bool native =
        !h->cfg.json_only && (native_has(h, a->peer) ||
                              peers_dialect(h->peers, a->peer, host_now(h)) >= KAD_DIALECT_HINTED);

    if (native && native_call(h, a->peer, a->call, a->timeout_ms, &a->msg) == 0)
        return;
    json_call(h, a->peer, a->call, a->timeout_ms, &a->msg);
}

/* ---- the loop's side ---- */

static void act(struct host *h, struct kad_act *a)
{
    switch (a->type) {
    case KAD_ACT_CALL:
        call_start(h, a);
        return;
    case KAD_ACT_ABORT:
        if (!native_abort(h, a->call))
            json_abort(h, a->call);
        return;
    case KAD_ACT_REPLY:
    case KAD_ACT_REFUSE:
        if (!native_reply(h, a))
            json_reply(h, a); /* or the caller is gone */
        return;
    case KAD_ACT_NOTE:
        if (native_note(h, a->peer, &a->msg) != 0)
            kad_watcher_gone(h->kad, a->peer, host_now(h));
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
    kad_tick(h->kad, host_now(h));
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
    h->network = cfg->kad->network;
    h->read_only = cfg->kad->client_only;
    h->cfg.self = cfg->kad->self;
    h->self = kad_id_of(&cfg->kad->self);
    json_init(h);
    native_init(h);
    h->peers = peers_new(cfg->env->hash_key, cfg->max_peers != 0 ? cfg->max_peers : 100000);
    if (h->peers == NULL)
        goto fail;
    h->ops = peers_ops(h->peers);
    struct kad_hooks hooks = {
        .arg = h, .ready = ready, .stored = cfg->stored != NULL ? stored : NULL};
    rc = kad_new(&h->kad, cfg->kad, cfg->env, cfg->store, &h->ops, &hooks, cfg->loop->now_ns);
    h->listening = rc == 0 && !cfg->kad->client_only;
    if (h->listening && (rc = client_listen(cfg->client, KAD_PORT, json_accept, h)) < 0)
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
    if (h == NULL)
        return;
    if (h->listening)
        client_unlisten(h->cfg.client, KAD_PORT);
    json_free(h);
    native_free(h);
    loop_timer_cancel(h->cfg.loop, &h->timer);
    loop_task_cancel(h->cfg.loop, &h->pump);
    kad_free(h->kad);
    peers_free(h->peers);
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

void host_set_relays(struct host *h, const struct pubkey *pk, const struct pubkey *relays, size_t n)
{
    kad_peer p = host_peer(h, pk);

    if (p == KAD_PEER_NONE)
        return;
    peers_set_relays(h->peers, p, relays, n, true);
    host_unref(h, p);
}

size_t host_relays(const struct host *h, uint32_t group, struct pubkey *out, size_t cap)
{
    struct pubkey all[PEERS_RELAYS];
    size_t n = peers_relays(h->peers, group, all);

    n = n < cap ? n : cap;
    memcpy(out, all, n * sizeof *out);
    return n;
}

void host_stat(const struct host *h, struct host_stat *out)
{
    *out = h->stat;
    out->peers = peers_len(h->peers);
}

enum kad_dialect host_dialect(struct host *h, kad_peer p)
{
    return peers_dialect(h->peers, p, host_now(h));
}

void host_set_dialect(struct host *h, kad_peer p, enum kad_dialect d)
{
    peers_set_dialect(h->peers, p, d, host_now(h));
}
