/*
 * Watches: some nodes watch entries of others, drawn by the popularity of look-ups. Two things are
 * asked: how long after its publisher began to put it a watcher heard of a version, and, in audits,
 * whether any watcher still believes an older version than it should by then.
 */
#include <stdlib.h>

#include "base/err.h"
#include "simulator/users.h"

struct watch {
    uint32_t target, version; /* version: what it knows, 0 = nothing */
    uint64_t since_ns;        /* 0: not begun in this life */
};

struct watcher {
    struct watch watch[SIM_WATCHES_MAX];
};

int watches_init(struct sim *s)
{
    if (s->cfg.watches.share_ppm == 0)
        return 0;
    s->watchers = calloc(s->cfg.nodes, sizeof(struct watcher *));
    s->put_ns = calloc(s->cfg.nodes, sizeof *s->put_ns);
    return s->watchers != NULL && s->put_ns != NULL ? 0 : ERR_NOMEM;
}

void watches_free(struct sim *s)
{
    for (uint32_t i = 0; s->watchers != NULL && i < s->cfg.nodes; i++)
        free(s->watchers[i]);
    free(s->watchers);
    free(s->put_ns);
}

static bool has_watches(const struct sim *s, uint32_t node)
{
    return s->watchers != NULL && s->nodes[node].role == ROLE_HONEST &&
           draw_share(node_trait(s, node, TRAIT_WATCHES), s->cfg.watches.share_ppm);
}

void watches_schedule(struct sim_shard *sh, uint32_t node)
{
    const struct sim_cfg *c = &sh->sim->cfg;

    if (!has_watches(sh->sim, node))
        return;
    uint64_t start = SIM_EPOCH_NS + c->watches.start_ns +
                     rng_below(node_draw(sh, node, RNG_LOAD), c->watches.audit_ns);
    node_schedule_task(sh, node, TASK_WATCH, start);
    node_schedule_task(sh, node, TASK_AUDIT, start + c->watches.audit_ns);
}

static void begin(struct sim_shard *sh, uint32_t node, unsigned i)
{
    struct sim *s = sh->sim;
    struct watch *w = &s->watchers[node]->watch[i];

    if (w->since_ns != 0)
        return;
    if (kad_watch(s->nodes[node].kad, &s->keys[w->target].pk, SIM_SALT, 3,
                  (void *)(uintptr_t)(USER_WATCH | i), sh->now_ns) == 0)
        return; /* the next audit tries again */
    w->since_ns = sh->now_ns;
    sh->sum.watches++;
}

void watches_begin(struct sim_shard *sh, uint32_t node)
{
    struct sim *s = sh->sim;

    if (s->n_publishers == 0)
        return;
    if (s->watchers[node] == NULL) {
        struct watcher *w = sim_must(calloc(1, sizeof *w));
        for (uint32_t i = 0; i < s->cfg.watches.each; i++)
            w->watch[i].target = load_draw_target(s, node_draw(sh, node, RNG_LOAD));
        s->watchers[node] = w;
    }
    if (s->nodes[node].kad == NULL)
        return;
    for (uint32_t i = 0; i < s->cfg.watches.each; i++)
        begin(sh, node, i);
    node_settle(sh, node);
}

void watches_audit(struct sim_shard *sh, uint32_t node)
{
    const struct sim_cfg *c = &sh->sim->cfg;
    const struct watcher *w = sh->sim->watchers[node];

    node_schedule_task(sh, node, TASK_AUDIT, sh->now_ns + c->watches.audit_ns);
    for (uint32_t i = 0; w != NULL && i < c->watches.each; i++) {
        const struct watch *v = &w->watch[i];
        if (v->since_ns == 0 || sh->now_ns - v->since_ns < c->watches.late_ns)
            continue;
        struct sim_check check = {.kind = CHECK_AUDIT,
                                  .started_ns = sh->now_ns - c->watches.late_ns,
                                  .target = v->target,
                                  .version = v->version};
        load_post_check(sh, &check);
    }
    watches_begin(sh, node); /* those that a new life has yet to begin */
}

void watches_left(struct sim_shard *sh, uint32_t node)
{
    struct watcher *w = sh->sim->watchers != NULL ? sh->sim->watchers[node] : NULL;

    for (uint32_t i = 0; w != NULL && i < sh->sim->cfg.watches.each; i++) {
        w->watch[i].since_ns = 0;
        w->watch[i].version = 0;
    }
}

void watches_told(struct sim_shard *sh, uint32_t node, const struct kad_report *r)
{
    struct sim *s = sh->sim;
    struct watch *w = &s->watchers[node]->watch[(uint32_t)(uintptr_t)r->user];
    struct sim_check c = {.kind = CHECK_WATCH, .started_ns = sh->now_ns, .target = w->target};

    if (r->item == NULL)
        return;
    sh->sum.watch_events++;
    c.found = true;
    c.wrong = !load_read_value(s, &r->item->item, w->target, &c.version);
    c.local = w->version == 0 || c.version <= w->version; /* no news */
    if (c.version > w->version)
        w->version = c.version;
    load_post_check(sh, &c);
}

void watches_judge(struct sim_shard *sh, const struct sim_check *c)
{
    const struct sim_node *n = &sh->sim->nodes[c->target];

    if (c->kind == CHECK_AUDIT) {
        uint32_t must = load_acknowledged(sh->sim, c->target, c->started_ns);
        sh->sum.watch_audits += must != 0;
        sh->sum.watch_late += must != 0 && c->version < must;
        return;
    }
    sh->sum.wrong += c->wrong || c->version > n->version;
    if (!c->local && c->version == n->version)
        hist_add(&sh->watch_us, (c->started_ns - sh->sim->put_ns[c->target]) / NS_PER_US);
}
