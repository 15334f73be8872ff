#include "simulator/sim.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/cursor.h"
#include "base/err.h"
#include "simulator/fixed.h"
#include "simulator/users.h"

#define PROGRESS_WINDOWS 64
#define AHEAD            9 /* events of which look_ahead() fetches the node, the engine */
#define NEXT             3

/* Bytes, measured (docs/simulator.md): engine, store, keys and queue of a node without contacts, of which more
 * than half are what a run adds (notes of peers, messages under way, copies of found items); one contact;
 * one stored item. */
#define NODE_BYTES    6000
#define SHARED_BYTES  300 /* of a node in another process */
#define CONTACT_BYTES 8
#define BUCKET_BYTES  40
#define ITEM_BYTES    330

void sim_cfg_default(struct sim_cfg *cfg)
{
    *cfg = (struct sim_cfg){
        .name = "unnamed",
        .seed = 1,
        .duration_ns = 600 * NS_PER_S,
        .nodes = 100,
        .threads = 1,
        .sample = 1000,
        .join = {.over_ns = 60 * NS_PER_S, .bootstrap = 3, .keys = 3},
        .net = {.model = SIM_LAT_LOGNORMAL,
                .floor_ns = 5 * NS_PER_MS,
                .median_ns = 40 * NS_PER_MS,
                .sigma_milli = 500,
                .jitter_ppm = 50000},
        .relays = {.per_node = 1,
                   .bytes_per_s = 12500000,
                   .message_ns = 20000,
                   .handshake_ns = 150000,
                   .queue_ns = 2 * NS_PER_S,
                   .pooled = true},
        .puts = {.share_ppm = SIM_MILLION,
                 .every_ns = 3600 * NS_PER_S,
                 .start_ns = 120 * NS_PER_S,
                 .bytes = 300},
        .records_start_ns = 120 * NS_PER_S,
        .record = {{.share_ppm = SIM_MILLION, .count = 1},
                   {.share_ppm = SIM_MILLION, .count = 8},
                   {.share_ppm = 100000, .count = 2},
                   {.share_ppm = SIM_MILLION, .count = 1}},
        .http = {.cores = 1,
                 .get_ns = 10700,
                 .post_ns = 120000,
                 .mirror_ns = 30000,
                 .queue_ns = 5 * NS_PER_S,
                 .ttl_ns = 300 * NS_PER_S,
                 .mirror_every_ns = 3600 * NS_PER_S,
                 .push_every_ns = 1800 * NS_PER_S,
                 .settle_ns = 600 * NS_PER_S},
        .watches = {.each = 4,
                    .start_ns = 180 * NS_PER_S,
                    .audit_ns = 60 * NS_PER_S,
                    .late_ns = 150 * NS_PER_S},
        .churn = {.shape_milli = 1000},
        .day = {.zones = 1, .length_ns = 86400 * NS_PER_S},
        .attack = {.eclipse_bits = 32,
                   .slow_by_ns = 4 * NS_PER_S,
                   .flood_every_ns = 10 * NS_PER_S,
                   .replay_every_ns = 30 * NS_PER_S},
        .gets = {.every_ns = 600 * NS_PER_S, .start_ns = 300 * NS_PER_S, .zipf_milli = 900},
    };
}

/* ---- memory ---- */

uint64_t sim_predict(const struct sim_cfg *cfg)
{
    uint64_t k = cfg->kad.k != 0 ? cfg->kad.k : KAD_K, buckets = 1;

    while (buckets < 40 && k << buckets < cfg->nodes)
        buckets++;
    uint64_t items = cfg->puts.every_ns > 0 ? k * cfg->puts.share_ppm / SIM_MILLION : 0;
    uint64_t node = NODE_BYTES + buckets * (k * CONTACT_BYTES + BUCKET_BYTES) + items * ITEM_BYTES +
                    (items > 0 ? cfg->puts.bytes : 0);
    uint64_t here = cfg->nodes / (cfg->others != NULL ? cfg->others->ranks : 1);
    return here * node + (cfg->nodes - here) * SHARED_BYTES + cfg->threads * UINT64_C(16000000);
}

/* ---- shards in parallel ---- */

struct task {
    struct sim_shard *shard;
    void (*fn)(struct sim_shard *sh);
    pthread_t thread;
};

static void *run_task(void *arg)
{
    struct task *t = arg;
    struct arena *before = arena_use(t->shard->arena);

    t->fn(t->shard);
    (void)arena_use(before);
    return NULL;
}

/* fn for every shard, each on a thread of its own, the first on this one. */
static int in_parallel(struct sim *s, void (*fn)(struct sim_shard *sh))
{
    struct task tasks[SIM_THREADS_MAX];
    unsigned started = 1;
    int rc = 0;

    assert(s->locals > 0 && s->locals <= SIM_THREADS_MAX);
    for (unsigned i = 0; i < s->locals; i++)
        tasks[i] = (struct task){.shard = &s->shard[i], .fn = fn};
    while (rc == 0 && started < s->locals) {
        rc = pthread_create(&tasks[started].thread, NULL, run_task, &tasks[started]);
        started += rc == 0;
    }
    if (rc != 0)
        abort(); /* the others wait for this shard already */
    run_task(&tasks[0]);
    for (unsigned i = 1; i < started; i++)
        (void)pthread_join(tasks[i].thread, NULL);
    return rc;
}

/* ---- creation ---- */

static void free_arenas(struct arena *const *v, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        arena_free(v[i]);
}

static int check_cfg(const struct sim_cfg *cfg, char *why, size_t cap)
{
    const struct sim_cfg *c = cfg;

    if (c->join.bootstrap >= c->nodes && c->nodes > 1) {
        snprintf(why, cap, "join.bootstrap: %u of %u nodes", c->join.bootstrap, c->nodes);
        return ERR_USAGE;
    }
    if (c->n_trace > 0 && c->others != NULL) {
        snprintf(why, cap, "events can be traced in one process only");
        return ERR_USAGE;
    }
    if (c->nodes + (uint64_t)c->relays.count > SIM_NODES_MAX || c->threads > SIM_THREADS_MAX ||
        c->threads == 0 || c->nodes == 0) {
        snprintf(why, cap, "too many nodes, relays or threads");
        return ERR_USAGE;
    }
    if (c->full.count > c->nodes || c->full.liars + (uint64_t)c->join.bootstrap > full_behind(c)) {
        snprintf(why, cap, "full: more than there are, or liars among the bootstrap nodes");
        return ERR_USAGE;
    }
    if ((uint64_t)c->attack.mute_ppm + c->attack.wrong_ppm + c->attack.stale_ppm +
                c->attack.slow_ppm + c->attack.poison_ppm + c->attack.flood_ppm +
                c->attack.replay_ppm >
            SIM_MILLION ||
        (uint64_t)c->attack.eclipse + full_behind(c) > c->nodes) {
        snprintf(why, cap, "attackers: more than all nodes");
        return ERR_USAGE;
    }
    if (c->attack.eclipse > 0 && c->signatures == SIM_SIG_REAL) {
        snprintf(why, cap, "attackers.eclipse: IDs can be chosen with signatures: model only");
        return ERR_USAGE;
    }
    if (c->churn.law == SIM_LAW_PARETO && c->churn.shape_milli <= 1000) {
        snprintf(why, cap, "churn.shape: a Pareto law has a mean only above 1");
        return ERR_USAGE;
    }
    int rc = transition_check(c, why, cap);
    if (rc != 0)
        return rc;
    for (size_t i = 0; i < c->n_script; i++) {
        if (c->script[i].type == SIM_RELAY_CRASH && c->script[i].relays > c->relays.count) {
            snprintf(why, cap, "events: %u relays crash, there are %u", c->script[i].relays,
                     c->relays.count);
            return ERR_USAGE;
        }
    }
    return 0;
}

static int init_shard(struct sim *s, unsigned i, struct arena *arena)
{
    struct sim_shard *sh = &s->shard[i];

    sh->sim = s;
    sh->id = s->first + i;
    sh->arena = arena;
    sh->now_ns = SIM_EPOCH_NS;
    simenv_init(&sh->env, sh);
    sh->peers = keys_peers(sh);
    struct arena *before = arena_use(arena);
    int rc = queue_init(&sh->queue);
    (void)arena_use(before);
    return rc;
}

static int init_shards(struct sim *s)
{
    int rc = 0;

    s->shards = s->locals * (s->cfg.others != NULL ? s->cfg.others->ranks : 1);
    s->shard = calloc(s->locals, sizeof *s->shard);
    if (s->shard == NULL)
        return ERR_NOMEM;
    for (unsigned i = 0; rc == 0 && i < s->locals; i++)
        rc = init_shard(s, i, s->arenas[i]);
    return rc == 0 ? exchange_new(&s->exchange, s->locals, s->cfg.others) : rc;
}

/* Of all processes: the work is shared between the threads of this one. */
static void init_nodes(struct sim_shard *sh)
{
    struct sim *s = sh->sim;

    for (uint32_t i = sh->id - s->first; i < s->cfg.nodes; i += s->locals) {
        struct sim_node *n = &s->nodes[i];
        n->timer_ns = LOOP_NEVER;
        n->next_seq = 1;
        n->role = (uint8_t)attack_role(s, i);
        n->traced = trace_has(&s->cfg, i);
        for (size_t e = 0; e < s->cfg.n_script; e++) {
            if (s->cfg.script[e].type == SIM_PARTITION &&
                draw_share(node_trait(s, i, TRAIT_SCRIPT + (uint32_t)e),
                           s->cfg.script[e].share_ppm))
                n->sides |= UINT32_C(1) << e;
        }
        keys_make(s, i);
    }
}

static void set_limits(struct sim *s)
{
    s->limits = (struct kad_limits){
        .k = s->cfg.kad.k,
        .alpha = s->cfg.kad.alpha,
        .rpc_timeout_ms = s->cfg.kad.rpc_timeout_ms,
        .hedge_ms = s->cfg.kad.hedge_ms,
        .refresh_ms = s->cfg.kad.refresh_ms,
        .republish_ms = s->cfg.kad.republish_ms,
        .ttl_ms = s->cfg.kad.ttl_ms,
        .cache_fresh_ms = s->cfg.kad.cache_fresh_ms,
        .rate_per_s = s->cfg.kad.rate_per_s,
    };
    if (s->cfg.defect == SIM_DEFECT_NO_EVICT)
        s->limits.rpc_timeout_ms = 3600000; /* nor by itself */
}

static int init(struct sim *s, char *why, size_t why_cap)
{
    s->nodes = calloc(s->cfg.nodes, sizeof *s->nodes);
    s->relays = calloc((size_t)s->cfg.relays.count + 1, sizeof *s->relays);
    if (s->nodes == NULL || s->relays == NULL)
        return ERR_NOMEM;
    set_limits(s);
    int rc = init_shards(s);
    if (rc == 0)
        rc = latency_init(s, why, why_cap);
    if (rc == 0)
        rc = keys_init(s);
    if (rc == 0)
        rc = in_parallel(s, init_nodes);
    if (rc == 0)
        rc = keys_index(s);
    if (rc == 0)
        rc = load_init(s);
    if (rc == 0)
        rc = attack_init(s);
    if (rc == 0)
        rc = users_init(s);
    if (rc == 0)
        rc = churn_init(s, why, why_cap);
    s->end_ns = SIM_EPOCH_NS + s->cfg.duration_ns;
    s->virtual_ns = SIM_EPOCH_NS;
    return rc;
}

/* Either all shards have an arena or none has one: then there are no checkpoints, and no more. */
static void get_arenas(struct arena **v, unsigned first, unsigned n)
{
    memset(v, 0, n * sizeof *v);
    for (unsigned i = 0; i < n; i++) {
        if (arena_new(&v[i], first + i) != 0) {
            free_arenas(v, i);
            memset(v, 0, n * sizeof *v);
            return;
        }
    }
}

int sim_new(struct sim **out, const struct sim_cfg *cfg, char *why, size_t why_cap)
{
    *out = NULL;
    snprintf(why, why_cap, "not enough memory");
    int rc = check_cfg(cfg, why, why_cap);
    if (rc != 0)
        return rc;
    unsigned locals = cfg->threads < cfg->nodes ? cfg->threads : cfg->nodes;
    unsigned first = cfg->others != NULL ? locals * cfg->others->rank : 0;
    struct arena *arenas[SIM_THREADS_MAX] = {0};
    get_arenas(arenas, first, locals);
    struct arena *before = arena_use(arenas[0]);
    struct sim *s = calloc(1, sizeof *s);
    if (s != NULL) {
        s->cfg = *cfg;
        s->locals = locals;
        s->first = first;
        memcpy(s->arenas, arenas, sizeof arenas);
        rc = init(s, why, why_cap);
    }
    (void)arena_use(before);
    if (s == NULL)
        free_arenas(arenas, locals);
    if (s == NULL || rc != 0) {
        sim_free(s);
        return s == NULL ? ERR_NOMEM : rc;
    }
    if (arenas[0] != NULL)
        arena_set_root(arenas[0], s);
    *out = s;
    return 0;
}

/* ---- the start of a run ---- */

static void schedule_load(struct sim_shard *sh, uint32_t i)
{
    struct sim *s = sh->sim;
    const struct sim_cfg *c = &s->cfg;
    bool honest = s->nodes[i].role == ROLE_HONEST;

    if (honest && c->puts.every_ns > 0 &&
        draw_share(node_trait(s, i, TRAIT_PUBLISHES), c->puts.share_ppm))
        node_schedule(sh, i, EV_PUT,
                      SIM_EPOCH_NS + c->puts.start_ns +
                          rng_below(node_draw(sh, i, RNG_LOAD), c->puts.every_ns));
    if (s->nodes[i].role == ROLE_FLOOD)
        node_schedule(sh, i, EV_FLOOD,
                      SIM_EPOCH_NS + c->puts.start_ns +
                          rng_below(node_draw(sh, i, RNG_LOAD), c->attack.flood_every_ns));
    if (honest && c->gets.every_ns > 0)
        node_schedule(sh, i, EV_GET,
                      SIM_EPOCH_NS + c->gets.start_ns +
                          rng_below(node_draw(sh, i, RNG_LOAD), c->gets.every_ns));
}

/* What the script does to single nodes. */
static void schedule_script(struct sim_shard *sh, uint32_t i)
{
    struct sim *s = sh->sim;

    for (size_t e = 0; e < s->cfg.n_script; e++) {
        const struct sim_script *ev = &s->cfg.script[e];
        uint64_t at = SIM_EPOCH_NS + ev->at_ns;
        if (!draw_share(node_trait(s, i, TRAIT_SCRIPT + (uint32_t)e), ev->share_ppm))
            continue;
        if (ev->type == SIM_KILL && i >= s->cfg.join.bootstrap)
            node_schedule(sh, i, EV_KILL, at);
        if (ev->type == SIM_FLASH && s->nodes[i].role == ROLE_HONEST)
            node_schedule(sh, i, EV_FLASH,
                          at + rng_below(rng_mix(node_trait(s, i, TRAIT_SCRIPT + (uint32_t)e), 1),
                                         ev->for_ns + 1));
    }
}

static void begin(struct sim_shard *sh)
{
    struct sim *s = sh->sim;

    for (uint32_t i = sh->id; i < sh->sim->cfg.nodes; i += sh->sim->shards) {
        if (s->cfg.stop != NULL && *s->cfg.stop != 0)
            return;
        if (!churn_starts_up(s, i)) {
            s->nodes[i].joined = false; /* its trace brings it */
        } else if (s->cfg.join.by == SIM_JOIN_ORACLE) {
            node_start(sh, i, true);
            node_settle(sh, i);
        } else {
            uint64_t at = churn_join_time(s, i), upgrade = transition_time(s, i);
            if (upgrade != UINT64_MAX)
                node_schedule(sh, i, EV_JOIN, upgrade > at ? upgrade : at);
        }
        schedule_load(sh, i);
        users_schedule(sh, i);
        churn_schedule(sh, i);
        schedule_script(sh, i);
    }
}

/* ---- windows ---- */

/* Nearly every event is for a node whose memory is in no cache. What the next ones need is fetched while this one
 * is handled: nodes and messages of those that come a little later, engines of those that come next. */
static void look_ahead(struct sim_shard *sh)
{
    const struct sim *s = sh->sim;
    size_t n;
    const struct sim_event *v = queue_soon(&sh->queue, &n);

    for (size_t i = 1; i < n && i < AHEAD; i++) {
        if (v[i].dst < s->cfg.nodes) {
            __builtin_prefetch(&s->nodes[v[i].dst]);
            __builtin_prefetch(&s->nodes[v[i].dst].digest);
        }
        const struct sim_msg *m = (const void *)(uintptr_t)v[i].data;
        if (m != NULL) {
            __builtin_prefetch(m);
            __builtin_prefetch(&m->from);
        }
    }
    for (size_t i = 0; i < n && i < NEXT; i++) {
        if (v[i].dst < s->cfg.nodes && s->nodes[v[i].dst].kad != NULL)
            kad_soon(s->nodes[v[i].dst].kad);
    }
}

static void run_window(struct sim_shard *sh, uint64_t end_ns)
{
    struct sim_event ev;

    while (queue_take(&sh->queue, end_ns, &ev)) {
        look_ahead(sh);
        sh->now_ns = ev.at_ns;
        if (ev.type == EV_RELAY)
            wire_relay(sh, &ev);
        else if (ev.type == EV_HTTP)
            services_event(sh, &ev);
        else
            node_event(sh, &ev);
    }
}

static void receive(struct sim_shard *sh)
{
    struct sim *s = sh->sim;

    for (unsigned from = 0; from < exchange_sources(s->exchange); from++) {
        size_t n;
        const struct sim_event *ev = exchange_take(s->exchange, from, sh->id, &n);
        for (size_t i = 0; i < n; i++) {
            if (ev[i].type == EV_CHECK) {
                struct sim_check *c = (struct sim_check *)(uintptr_t)ev[i].data;
                load_check(sh, c);
                free(c);
            } else if (queue_add(&sh->queue, &ev[i]) != 0)
                abort();
        }
    }
}

static struct exchange_report report(const struct sim_shard *sh)
{
    return (struct exchange_report){
        .next_ns = queue_next(&sh->queue),
        .stop = sh->sim->cfg.stop != NULL && *sh->sim->cfg.stop != 0,
        .sums = {.events = sh->sum.delivered,
                 .gets_ok = sh->sum.gets_ok,
                 .gets_failed = sh->sum.gets_failed,
                 .puts_ok = sh->sum.puts_ok,
                 .puts_failed = sh->sum.puts_failed,
                 .live = sh->live,
                 .http = sh->sum.http,
                 .http_cpu_ns = sh->sum.http_cpu_ns,
                 .http_registered = sh->sum.http_registered,
                 .reads_dht = sh->sum.reads_dht,
                 .reads_http = sh->sum.reads_http},
    };
}

static struct sim_point sum_of(const struct exchange_report *r, unsigned n, uint64_t at_ns)
{
    struct sim_point p = {0};
    uint64_t *sum = (uint64_t *)(void *)&p;

    for (unsigned i = 0; i < n; i++) {
        const uint64_t *v = (const uint64_t *)(const void *)&r[i].sums;
        for (size_t j = 0; j < sizeof p / sizeof *sum; j++)
            sum[j] += v[j];
    }
    p.at_ns = at_ns - SIM_EPOCH_NS;
    return p;
}

/* What the first shard does for all: time series and progress. */
static void keep_books(struct sim *s, const struct exchange_report *r, uint64_t now_ns)
{
    uint64_t step = s->cfg.duration_ns / (SIM_SERIES_MAX - 2) + 1;

    if (step < NS_PER_S)
        step = NS_PER_S;
    if (s->n_series < SIM_SERIES_MAX && now_ns - SIM_EPOCH_NS >= s->n_series * step)
        s->series[s->n_series++] = sum_of(r, s->shards, now_ns);
    if (s->cfg.progress != NULL && s->windows % PROGRESS_WINDOWS == 0) {
        struct sim_point p = sum_of(r, s->shards, now_ns);
        s->cfg.progress(s->cfg.progress_arg, p.at_ns, p.events, (uint32_t)p.live);
    }
    s->windows++;
    s->virtual_ns = now_ns;
}

/* The first event of all, and whether any process was told to stop. */
static uint64_t first_event(const struct sim *s, const struct exchange_report *all, bool *stop)
{
    uint64_t next = QUEUE_NEVER;

    *stop = false;
    for (unsigned i = 0; i < s->shards; i++) {
        next = all[i].next_ns < next ? all[i].next_ns : next;
        *stop = *stop || all[i].stop;
    }
    return next;
}

static void run_shard(struct sim_shard *sh)
{
    struct sim *s = sh->sim;
    uint64_t end = s->virtual_ns, begun = end, next;
    bool again = s->resumed, stop;

    for (;; again = false) {
        exchange_meet(s->exchange, sh->id);
        receive(sh);
        load_judge(sh);
        struct exchange_report mine = report(sh);
        const struct exchange_report *all = exchange_agree(s->exchange, sh->id, &mine);
        next = first_event(s, all, &stop);
        if (sh->id == s->first && !again)
            keep_books(s, all, end);
        sh->trace_box ^= 1;
        if (sh->id == s->first)
            trace_give(s, sh->trace_box ^ 1);
        if (!again && checkpoint_is_due(s, begun, next, stop)) {
            if (sh->id == s->first)
                checkpoint_save(s);
            exchange_wait(s->exchange);
        }
        if (stop || next >= s->end_ns) {
            if (sh->id == s->first)
                s->interrupted = stop;
            break;
        }
        begun = next;
        end = next + s->cfg.net.floor_ns;
        if (end > s->end_ns)
            end = s->end_ns;
        run_window(sh, end);
    }
    sh->now_ns = s->end_ns;
}

int sim_run(struct sim *s)
{
    int rc = 0;

    if (!s->resumed) {
        rc = s->cfg.join.by == SIM_JOIN_ORACLE ? oracle_init(s) : 0;
        if (rc == 0)
            rc = in_parallel(s, begin);
        oracle_free(s);
    }
    if (rc == 0)
        rc = in_parallel(s, run_shard);
    if (rc == 0 && !s->interrupted)
        s->virtual_ns = s->end_ns;
    return rc;
}

const struct sim_cfg *sim_cfg(const struct sim *s)
{
    return &s->cfg;
}

uint64_t sim_memory(const struct sim *s)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < s->locals && s->arenas[i] != NULL; i++)
        n += arena_taken(s->arenas[i]);
    return n;
}

/* ---- the end ---- */

static void end_shard(struct sim_shard *sh)
{
    struct sim_event ev;

    for (uint32_t i = sh->id; i < sh->sim->cfg.nodes; i += sh->sim->shards)
        node_close(sh, i);
    while (sh->queue.n > 0 && queue_take(&sh->queue, QUEUE_NEVER, &ev)) {
        if (ev.type == EV_MSG || ev.type == EV_RELAY || ev.type == EV_HTTP)
            wire_free((struct sim_msg *)(uintptr_t)ev.data);
    }
    intern_free(&sh->items);
    queue_free(&sh->queue);
    free(sh->checks);
    free(sh->traced[0].v);
    free(sh->traced[1].v);
}

/* Arenas go at once; that nothing was left in them shows that whoever allocated has freed. */
static void free_world(struct arena *const *arenas, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        assert(arenas[i] == NULL || arena_used(arenas[i]) == 0);
    free_arenas(arenas, n);
}

void sim_free(struct sim *s)
{
    struct arena *arenas[SIM_THREADS_MAX];

    if (s == NULL)
        return;
    unsigned n = s->locals;
    memcpy(arenas, s->arenas, sizeof arenas);
    if (s->nodes != NULL && s->shard != NULL)
        (void)in_parallel(s, end_shard);
    exchange_free(s->exchange);
    oracle_free(s);
    free(s->shard);
    free(s->nodes);
    free(s->relays);
    free(s->keys);
    free(s->key_index);
    free(s->lat_table);
    free(s->matrix);
    free(s->rows);
    free(s->publishers);
    free(s->popularity);
    free(s->steps);
    free(s->attackers);
    users_free(s);
    free(s);
    free_world(arenas, n);
}
