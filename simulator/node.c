#include <stdlib.h>
#include <string.h>

#include "base/cursor.h"
#include "base/err.h"
#include "simulator/users.h"
#include "store/memory.h"

#define CHECK_TICKS 16 /* limits are looked at once in so many timers */
#define MAX_CALLS   2048
#define MAX_OPS     (256 + 64)

/* Who asked: in the token of a request. */
static uint64_t token_of(const struct sim_msg *m)
{
    return (uint64_t)m->life << 60 | (uint64_t)m->from << 32 | m->call;
}

static void schedule(struct sim_shard *sh, uint32_t node, enum ev_type type, uint32_t aux,
                     uint64_t at_ns)
{
    struct sim_event ev = {.at_ns = at_ns,
                           .src = node,
                           .seq = sh->sim->nodes[node].next_seq++,
                           .dst = node & 0xfffffffu,
                           .type = type & 0xfu,
                           .aux = aux};

    if (queue_add(&sh->queue, &ev) != 0)
        abort();
}

void node_schedule(struct sim_shard *sh, uint32_t node, enum ev_type type, uint64_t at_ns)
{
    schedule(sh, node, type, 0, at_ns);
}

void node_schedule_task(struct sim_shard *sh, uint32_t node, uint32_t task, uint64_t at_ns)
{
    schedule(sh, node, EV_TASK, task, at_ns);
}

/* ---- what the engine wants ---- */

static void call_peer(struct sim_shard *sh, uint32_t node, struct kad_act *a)
{
    struct sim_msg *m = wire_new(node, a->peer, MSG_REQUEST);

    m->call = a->call;
    m->life = sh->sim->nodes[node].life;
    m->m = a->msg;
    memset(&a->msg, 0, sizeof a->msg);
    wire_send(sh, m);
}

static struct sim_msg *answer_to(uint32_t node, uint64_t token, enum msg_kind kind)
{
    struct sim_msg *m = wire_new(node, (uint32_t)(token >> 32) & 0xfffffffu, kind);

    m->call = (uint32_t)token;
    m->life = (uint8_t)(token >> 60);
    return m;
}

static void answer(struct sim_shard *sh, uint32_t node, struct kad_act *a)
{
    struct sim_msg *m = answer_to(node, a->token, MSG_ANSWER);

    m->m = a->msg;
    memset(&a->msg, 0, sizeof a->msg);
    if (sh->sim->cfg.defect == SIM_DEFECT_NO_CLOSE)
        m->m.n_closest = 0;
    if (sh->sim->nodes[node].role == ROLE_LIAR)
        full_forge(sh, node, &m->m);
    wire_send(sh, m);
}

static void notify(struct sim_shard *sh, uint32_t node, struct kad_act *a)
{
    struct sim_msg *m = wire_new(node, a->peer, MSG_NOTE);

    m->m = a->msg;
    memset(&a->msg, 0, sizeof a->msg);
    wire_send(sh, m);
}

static void refuse(struct sim_shard *sh, uint32_t node, const struct kad_act *a)
{
    struct sim_msg *m = answer_to(node, a->token, MSG_FAIL);

    m->why = KAD_FAIL_CLOSED;
    wire_send(sh, m);
}

static void act(struct sim_shard *sh, uint32_t node, struct kad_act *a)
{
    switch (a->type) {
    case KAD_ACT_CALL:
        call_peer(sh, node, a);
        break;
    case KAD_ACT_ABORT: /* its answer will find no call */
        break;
    case KAD_ACT_REPLY:
        answer(sh, node, a);
        break;
    case KAD_ACT_REFUSE:
        refuse(sh, node, a);
        break;
    case KAD_ACT_NOTE:
        notify(sh, node, a);
        break;
    case KAD_ACT_DONE:
        load_done(sh, node, &a->report);
        break;
    }
}

/* One timer event of a node counts, the earliest; when it comes too early it is set again. */
static void arm(struct sim_shard *sh, uint32_t node)
{
    struct sim_node *n = &sh->sim->nodes[node];
    uint64_t due = kad_deadline(n->kad);

    if (due < sh->now_ns)
        due = sh->now_ns;
    if (due >= n->timer_ns)
        return;
    n->timer_ns = due;
    n->timer_seq = n->next_seq;
    node_schedule(sh, node, EV_TIMER, due);
}

void node_settle(struct sim_shard *sh, uint32_t node)
{
    struct sim_node *n = &sh->sim->nodes[node];
    struct kad_act a;

    while (kad_next(n->kad, &a)) {
        act(sh, node, &a);
        kad_act_clear(&a);
    }
    arm(sh, node);
}

/* ---- coming and going ---- */

static size_t boot_keys(const struct sim *s, uint32_t node, struct pubkey out[20])
{
    uint32_t all = s->cfg.join.bootstrap, n = s->cfg.join.keys < all ? s->cfg.join.keys : all;

    for (uint32_t i = 0; i < n; i++)
        out[i] = s->keys[(node + i) % all].pk;
    return n;
}

void node_start(struct sim_shard *sh, uint32_t node, bool seeded)
{
    struct sim *s = sh->sim;
    struct sim_node *n = &s->nodes[node];
    struct pubkey boot[20], mirrors[SIM_REC__COUNT];
    size_t n_mirrors = transition_mirrors(s, mirrors);
    struct kad_cfg cfg = {.self = s->keys[node].pk,
                          .sk = keys_secret(s, node),
                          .bootstrap = boot,
                          .n_bootstrap = seeded ? 0 : boot_keys(s, node, boot),
                          .full = full_is(s, node),
                          .mirrors = mirrors,
                          .trusted = mirrors,
                          .n_mirrors = n_mirrors,
                          .n_trusted = n_mirrors,
                          .limits = s->limits,
                          .counters = full_is(s, node) ? NULL : &sh->engines};
    struct kad_peers peers = sh->peers;

    sh->node = node;
    if (n->store == NULL && store_memory_new(&n->store, 0) != 0)
        abort();
    if (!keys_is_native(s, node))
        peers.dialect = NULL;
    if (kad_new(&n->kad, &cfg, &sh->env.env, n->store, &peers, NULL, sh->now_ns) != 0)
        abort();
    n->timer_ns = LOOP_NEVER;
    n->joined = true;
    sh->live++;
    sh->sum.joins++;
    if (seeded) {
        kad_tick(n->kad, sh->now_ns); /* nobody to bootstrap from */
        oracle_fill(sh, node);
    }
}

static void drop_store(struct sim_node *n)
{
    if (n->store != NULL)
        n->store->ops->close(n->store);
    n->store = NULL;
}

void node_close(struct sim_shard *sh, uint32_t node)
{
    struct sim_node *n = &sh->sim->nodes[node];

    sh->node = node;
    kad_free(n->kad);
    n->kad = NULL;
    drop_store(n);
    free(n->streams);
    n->streams = NULL;
}

/* It stops as a machine that loses its power: nobody is told. */
static void leave(struct sim_shard *sh, uint32_t node)
{
    struct sim_node *n = &sh->sim->nodes[node];

    full_count(sh->sim, node, &sh->sum);
    watches_left(sh, node);
    kad_free(n->kad);
    n->kad = NULL;
    n->life = (uint8_t)((n->life + 1) % SIM_LIVES);
    n->timer_ns = LOOP_NEVER;
    n->timer_seq = UINT32_MAX;
    free(n->streams);
    n->streams = NULL;
    if (n->dead || !sh->sim->cfg.churn.keep)
        drop_store(n);
    sh->live--;
    sh->sum.leaves++;
}

static void join(struct sim_shard *sh, uint32_t node)
{
    if (sh->sim->nodes[node].dead || sh->sim->nodes[node].kad != NULL ||
        !transition_is_new(sh->sim, node, sh->now_ns))
        return;
    node_start(sh, node, false);
    node_settle(sh, node);
}

static void churn(struct sim_shard *sh, uint32_t node)
{
    const struct sim_cfg *cfg = &sh->sim->cfg;
    struct sim_node *n = &sh->sim->nodes[node];
    bool up = n->kad != NULL;

    if (n->dead)
        return;
    if (up)
        leave(sh, node);
    else
        join(sh, node);
    if (!up || cfg->churn.down_ns > 0)
        node_schedule(sh, node, EV_CHURN, sh->now_ns + churn_time(sh, node, !up));
}

static void killed(struct sim_shard *sh, uint32_t node)
{
    struct sim_node *n = &sh->sim->nodes[node];

    n->dead = true;
    if (n->kad != NULL)
        leave(sh, node);
}

/* ---- limits of tables ---- */

static void check_bounds(struct sim_shard *sh, uint32_t node)
{
    const struct sim_node *n = &sh->sim->nodes[node];
    struct kad_stat st;
    struct store_stat ss;
    size_t k = sh->sim->limits.k != 0 ? sh->sim->limits.k : KAD_K;

    kad_stat(n->kad, &st);
    n->store->ops->stat(n->store, &ss);
    if (st.routing_peers > st.buckets * k || st.ops > MAX_OPS || st.calls > MAX_CALLS ||
        st.pending > 512 || (ss.items > 10000 && !full_is(sh->sim, node)))
        sh->sum.bounds++;
}

/* ---- events ---- */

static void timer(struct sim_shard *sh, uint32_t node, const struct sim_event *ev)
{
    struct sim_node *n = &sh->sim->nodes[node];

    if (n->kad == NULL || n->timer_seq != ev->seq || n->timer_ns == LOOP_NEVER)
        return;
    n->timer_ns = LOOP_NEVER;
    if (kad_deadline(n->kad) <= sh->now_ns) {
        if (n->traced)
            trace_note(sh, ev);
        kad_tick(n->kad, sh->now_ns);
        sh->sum.timers++;
    }
    if (sh->sim->cfg.check && ++n->ticks % CHECK_TICKS == 0)
        check_bounds(sh, node);
    node_settle(sh, node);
}

static void request(struct sim_shard *sh, uint32_t node, struct sim_msg *m)
{
    struct sim_node *n = &sh->sim->nodes[node];

    if (n->kad == NULL) {
        sh->sum.unreachable++;
        wire_fail(sh, m, sh->sim->cfg.relays.count > 0 ? KAD_FAIL_GONE : KAD_FAIL_UNREACHABLE);
        wire_free(m);
        return;
    }
    if (n->role != ROLE_HONEST && attack_request(sh, node, m))
        return;
    n->served++;
    sh->sum.requests[m->m.method & 15]++;
    sh->sum.delivered++;
    kad_request(n->kad, m->from, &m->m, token_of(m), sh->now_ns);
    wire_free(m);
    node_settle(sh, node);
}

/* Somebody tells what is watched here, or that it can no longer be told. */
static void note(struct sim_shard *sh, uint32_t node, struct sim_msg *m)
{
    struct sim_node *n = &sh->sim->nodes[node];

    if (n->kad == NULL) {
        if (m->kind == MSG_NOTE)
            wire_gone(sh, m);
    } else {
        sh->sum.delivered++;
        sh->sum.notes += m->kind == MSG_NOTE;
        if (m->kind == MSG_NOTE)
            kad_changed(n->kad, m->from, &m->m, sh->now_ns);
        else
            kad_watcher_gone(n->kad, m->from, sh->now_ns);
        node_settle(sh, node);
    }
    wire_free(m);
}

static void message(struct sim_shard *sh, uint32_t node, struct sim_msg *m)
{
    struct sim_node *n = &sh->sim->nodes[node];

    keys_soon(sh->sim, m->m.closest, m->m.n_closest);
    for (size_t i = 0; sh->sim->shards > 1 && i < m->m.n_items; i++) {
        if (m->m.items[i].item != NULL)
            m->m.items[i].item = intern_item(&sh->items, m->m.items[i].item);
    }
    if (m->kind == MSG_REQUEST) {
        request(sh, node, m);
        return;
    }
    if (m->kind == MSG_HTTP || m->kind == MSG_MIRROR) {
        if (m->kind == MSG_HTTP)
            http_answered(sh, node, m);
        else
            http_mirror(sh, node, &m->http);
        wire_free(m);
        return;
    }
    if (m->kind == MSG_NOTE || m->kind == MSG_GONE) {
        note(sh, node, m);
        return;
    }
    if (n->kad != NULL && n->life == m->life && !replay_answered(sh, node, m)) {
        sh->sum.delivered++;
        if (m->kind == MSG_ANSWER)
            kad_response(n->kad, m->call, &m->m, sh->now_ns);
        else if (sh->sim->cfg.defect != SIM_DEFECT_NO_EVICT)
            kad_call_failed(n->kad, m->call, (enum kad_fail)m->why, sh->now_ns);
        node_settle(sh, node);
    }
    wire_free(m);
}

/* What the node was given: when, by whom, and what was in it. */
static void digest(struct sim_node *n, const struct sim_event *ev)
{
    uint64_t h = rng_mix(n->digest ^ ev->at_ns, (uint64_t)ev->src << 32 | ev->seq);

    if (ev->type == EV_MSG) {
        const struct sim_msg *m = (const struct sim_msg *)(uintptr_t)ev->data;
        h = rng_mix(h ^ m->call, (uint64_t)m->kind << 40 | (uint64_t)m->m.method << 32 |
                                     (uint64_t)m->why << 16 | m->m.n_closest);
        h = rng_mix(h, (uint64_t)m->http.subject << 32 | m->http.version);
        if (m->m.n_closest > 0)
            h = rng_mix(h, get_be64(m->m.closest[0].b + 1));
        if (m->m.n_items > 0 && m->m.items[0].item != NULL)
            h = rng_mix(h, m->m.items[0].item->item.seq);
    }
    n->digest = rng_mix(h, ev->type | (uint64_t)ev->aux << 8);
}

void node_event(struct sim_shard *sh, const struct sim_event *ev)
{
    uint32_t node = ev->dst;
    struct sim_node *n = &sh->sim->nodes[node];

    sh->node = node;
    if (ev->type != EV_TIMER) {
        digest(n, ev);
        if (n->traced)
            trace_note(sh, ev);
    }
    switch ((enum ev_type)ev->type) {
    case EV_TIMER:
        timer(sh, node, ev);
        return;
    case EV_MSG:
        message(sh, node, (struct sim_msg *)(uintptr_t)ev->data);
        return;
    case EV_RELAY: /* wire.c */
    case EV_HTTP:  /* services.c */
    case EV_CHECK: /* load.c */
        return;
    case EV_TASK:
        users_task(sh, node, ev->aux);
        break;
    case EV_JOIN:
        join(sh, node);
        break;
    case EV_CHURN:
        churn(sh, node);
        break;
    case EV_LEAVE:
        if (sh->sim->nodes[node].kad != NULL)
            leave(sh, node);
        break;
    case EV_KILL:
        killed(sh, node);
        break;
    case EV_PUT:
        load_put(sh, node);
        break;
    case EV_GET:
        load_get(sh, node);
        break;
    case EV_FLASH:
        load_flash(sh, node);
        break;
    case EV_FLOOD:
        load_flood(sh, node);
        break;
    }
    sh->sum.others++;
}
