#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "kademlia/engine.h"

#define MIB UINT64_C(1048576)

/* ---- configuration ---- */

static unsigned or_default(unsigned given, unsigned standard)
{
    return given != 0 ? given : standard;
}

static uint64_t or_default64(uint64_t given, uint64_t standard)
{
    return given != 0 ? given : standard;
}

/* The default of what the store may hold depends on the role. */
static void set_room(struct kad *k)
{
    k->lim.max_items = or_default(k->given_max_items, k->full ? 0 : 10000);
    k->lim.max_bytes = or_default64(k->given_max_bytes, k->full ? 1024 * MIB : 64 * MIB);
}

/* Limits in force: what was given, else the default. */
static void set_limits(struct kad *k, const struct kad_limits *g)
{
    k->given_max_items = g->max_items;
    k->given_max_bytes = g->max_bytes;
    k->lim = (struct kad_limits){
        .k = or_default(g->k, KAD_K),
        .alpha = or_default(g->alpha, 3),
        .rpc_timeout_ms = or_default(g->rpc_timeout_ms, 10000),
        .hedge_ms = or_default(g->hedge_ms, 1000),
        .op_timeout_ms = or_default(g->op_timeout_ms, 30000),
        .max_ops = or_default(g->max_ops, 256),
        .max_pending = or_default(g->max_pending, 512),
        .slots_per_key = or_default(g->slots_per_key, 50),
        .slots_per_group = g->slots_per_group,
        .ttl_ms = or_default(g->ttl_ms, 7200000),
        .cert_ttl_ms = or_default(g->cert_ttl_ms, 600000),
        .cache_fresh_ms = or_default(g->cache_fresh_ms, 300000),
        .neg_ttl_ms = or_default(g->neg_ttl_ms, 600000),
        .refresh_ms = or_default(g->refresh_ms, 900000),
        .republish_ms = or_default(g->republish_ms, 1800000),
        .bootstrap_retry_ms = or_default(g->bootstrap_retry_ms, 30000),
        .rate_per_s = or_default(g->rate_per_s, 50),
        .rate_bytes_per_s = or_default64(g->rate_bytes_per_s, MIB),
        .clock_skew_ms = or_default(g->clock_skew_ms, 300000),
    };
    if (k->lim.k > KAD_K)
        k->lim.k = KAD_K; /* an answer has no more contacts */
    set_room(k);
}

static int compare_keys(const void *a, const void *b)
{
    return pubkey_cmp(a, b);
}

static int keyset_set(struct kad_keyset *s, const struct pubkey *pks, size_t n)
{
    struct pubkey *v = NULL;

    if (n > 0) {
        v = calloc(n, sizeof *v);
        if (v == NULL)
            return ERR_NOMEM;
        memcpy(v, pks, n * sizeof *v);
        qsort(v, n, sizeof *v, compare_keys);
    }
    free(s->v);
    *s = (struct kad_keyset){.v = v, .n = n};
    return 0;
}

bool kad_keyset_has(const struct kad_keyset *s, const struct pubkey *pk)
{
    return s->n > 0 && bsearch(pk, s->v, s->n, sizeof *s->v, compare_keys) != NULL;
}

enum item_tier kad_tier_of(const struct kad *k, const struct pubkey *signer)
{
    if (kad_keyset_has(&k->whitelisted, signer))
        return ITEM_TIER_WHITELISTED;
    return kad_keyset_has(&k->trusted, signer) ? ITEM_TIER_TRUSTED : ITEM_TIER_PUBLIC;
}

/* Bootstrap keys: ours among them is nobody to ask. */
static int set_bootstrap(struct kad *k, const struct pubkey *pks, size_t n)
{
    int rc = keyset_set(&k->bootstrap, pks, n);
    size_t kept = 0;

    for (size_t i = 0; rc == 0 && i < n; i++) {
        if (!pubkey_equal(&k->bootstrap.v[i], &k->self))
            k->bootstrap.v[kept++] = k->bootstrap.v[i];
    }
    if (rc == 0)
        k->bootstrap.n = kept;
    return rc;
}

static int set_keys(struct kad *k, const struct kad_cfg *cfg)
{
    int rc = keyset_set(&k->whitelisted, cfg->whitelisted, cfg->n_whitelisted);

    if (rc == 0)
        rc = keyset_set(&k->trusted, cfg->trusted, cfg->n_trusted);
    if (rc == 0)
        rc = keyset_set(&k->mirrors, cfg->mirrors, cfg->n_mirrors);
    if (rc == 0)
        rc = keyset_set(&k->readers, cfg->readers, cfg->n_readers);
    if (rc == 0)
        rc = kad_allow_set(k, cfg->writers, cfg->n_writers);
    if (rc == 0)
        rc = set_bootstrap(k, cfg->bootstrap, cfg->n_bootstrap);
    return rc;
}

/* ---- life ---- */

int kad_new(struct kad **out, const struct kad_cfg *cfg, struct env *env, struct store *store,
            const struct kad_peers *peers, const struct kad_hooks *hooks, uint64_t now_ns)
{
    struct kad *k = calloc(1, sizeof *k);

    *out = NULL;
    if (k == NULL)
        return ERR_NOMEM;
    k->stat = cfg->counters != NULL ? cfg->counters : calloc(1, sizeof *k->stat);
    if (k->stat == NULL) {
        free(k);
        return ERR_NOMEM;
    }
    k->own_stat = cfg->counters == NULL;
    k->env = env;
    k->store = store;
    k->peers = *peers;
    if (hooks != NULL)
        k->hooks = *hooks;
    k->self = cfg->self;
    k->sk = cfg->sk;
    k->full = cfg->full;
    k->client_only = cfg->client_only;
    k->network = cfg->network;
    set_limits(k, &cfg->limits);
    k->now_ns = k->born_ns = now_ns;
    k->born_wall_ns = env_wall_ns(env);
    loop_init(&k->loop, now_ns);
    list_init(&k->acts);
    list_init(&k->op_list);
    list_init(&k->jobs);
    list_init(&k->own);
    kad_calls_init(k);
    map_init(&k->ops, MAP_KEY(struct kad_op, rep.op), env->hash_key, 0);
    kad_notes_init(k);
    struct kad_id self = kad_id_of(&k->self);
    table_init(&k->table, &self, &k->peers, k->lim.k, now_ns);
    int rc = set_keys(k, cfg);
    if (rc != 0) {
        kad_free(k);
        return rc;
    }
    struct store_stat st;
    store->ops->stat(store, &st);
    k->shared = st.shared;
    k->inside++;
    kad_own_load(k);
    kad_maintain_start(k);
    k->inside--;
    *out = k;
    return 0;
}

void kad_free(struct kad *k)
{
    struct kad_op *op;
    struct list_node *n, *tmp;

    if (k == NULL)
        return;
    k->inside++; /* nobody is told any more */
    kad_maintain_stop(k);
    list_for_each(n, tmp, &k->op_list)
    {
        op = container_of(n, struct kad_op, node);
        kad_op_free(op);
    }
    kad_watching_free(k);
    kad_serve_free(k);
    kad_inventory_free(k);
    kad_handover_free(k);
    kad_fulls_free(k);
    kad_calls_free(k);
    map_free(&k->ops);
    kad_notes_free(k);
    kad_groups_free(k);
    table_close(&k->table);
    kad_own_free(k);
    for (struct kad_act a; kad_next(k, &a);)
        kad_act_clear(&a);
    loop_close(&k->loop);
    free(k->whitelisted.v);
    free(k->trusted.v);
    free(k->mirrors.v);
    free(k->bootstrap.v);
    free(k->readers.v);
    free(k->writers);
    free(k->recent);
    if (k->own_stat)
        free(k->stat);
    seckey_wipe(&k->sk);
    free(k);
}

void kad_enter(struct kad *k, uint64_t now_ns)
{
    k->inside++;
    if (now_ns > k->now_ns)
        k->now_ns = now_ns;
}

void kad_leave(struct kad *k)
{
    assert(k->inside > 0);
    k->inside--;
}

void kad_soon(const struct kad *k)
{
    const char *p = (const char *)&k->now_ns, *end = (const char *)&k->hot_end;

    for (; p < end; p += 64)
        __builtin_prefetch(p);
}

uint64_t kad_deadline(const struct kad *k)
{
    return loop_deadline(&k->loop);
}

void kad_tick(struct kad *k, uint64_t now_ns)
{
    kad_enter(k, now_ns);
    loop_turn(&k->loop, k->now_ns);
    kad_leave(k);
}

int64_t kad_steady_ns(const struct kad *k)
{
    return k->born_wall_ns + (int64_t)(k->now_ns - k->born_ns);
}

kad_peer kad_intern(const struct kad *k, const struct pubkey *pk)
{
    if (pubkey_is_null(pk) || pubkey_equal(pk, &k->self))
        return KAD_PEER_NONE;
    return k->peers.intern(k->peers.arg, pk);
}

int kad_bootstrap(struct kad *k, const struct pubkey *pks, size_t n, uint64_t now_ns)
{
    kad_enter(k, now_ns);
    int rc = set_bootstrap(k, pks, n);
    if (rc == 0)
        kad_maintain_bootstrap_now(k);
    kad_leave(k);
    return rc;
}

void kad_set_full(struct kad *k, bool full)
{
    if (k->full == full)
        return;
    kad_enter(k, k->now_ns);
    k->full = full;
    set_room(k);
    kad_store_trim(k);
    kad_maintain_full_changed(k);
    kad_leave(k);
}

/* ---- actions ---- */

struct act_node {
    struct list_node node;
    struct kad_act act;
};

struct kad_act *kad_act_push(struct kad *k, enum kad_act_type type)
{
    struct act_node *n = calloc(1, sizeof *n);

    if (n == NULL) {
        k->stat->dropped_acts++;
        return NULL;
    }
    n->act.type = type;
    n->act.peer = KAD_PEER_NONE;
    list_push_back(&k->acts, &n->node);
    if (k->inside == 0 && !k->signalled && k->hooks.ready != NULL) {
        k->signalled = true;
        k->hooks.ready(k->hooks.arg);
    }
    return &n->act;
}

bool kad_act_take_back(struct kad *k, uint32_t call)
{
    struct list_node *pos, *tmp;

    list_for_each(pos, tmp, &k->acts)
    {
        struct act_node *n = container_of(pos, struct act_node, node);
        if (n->act.type != KAD_ACT_CALL || n->act.call != call)
            continue;
        list_remove(&n->node);
        kad_act_clear(&n->act);
        free(n);
        return true;
    }
    return false;
}

bool kad_next(struct kad *k, struct kad_act *out)
{
    struct act_node *n = list_pop_front_as(&k->acts, struct act_node, node);

    if (n == NULL) {
        k->signalled = false;
        return false;
    }
    *out = n->act;
    free(n);
    return true;
}

void kad_act_clear(struct kad_act *a)
{
    kad_msg_clear(&a->msg);
    item_ref_put(a->report.item);
    free(a->report.closest);
    free(a->report.steps);
    memset(a, 0, sizeof *a);
}

/* ---- looking in ---- */

void kad_stat(const struct kad *k, struct kad_stat *out)
{
    *out = *k->stat;
    out->pending = k->pending;
    out->calls_waiting = k->calls_waiting;
    out->shunning = k->shunning;
    out->groups_suspect = k->groups_suspect;
    out->routing_peers = table_count(&k->table);
    out->buckets = table_buckets(&k->table);
    out->ops = k->n_ops + k->n_internal;
    out->calls = map_len(&k->calls);
    out->evictions = k->table.evictions;
    out->alone = out->routing_peers == 0 && k->bootstrap.n > 0;
    out->synced = k->m.synced;
    out->network_size_estimate = kad_network_size(k);
}

void kad_contacts(const struct kad *k, kad_contact_fn *fn, void *arg)
{
    table_contacts(&k->table, fn, arg);
}

size_t kad_closest(const struct kad *k, const struct kad_id *target, struct pubkey *out, size_t n)
{
    kad_peer peers[TABLE_MAX_K];
    size_t found = table_closest(&k->table, target, peers, n < TABLE_MAX_K ? n : TABLE_MAX_K);

    for (size_t i = 0; i < found; i++)
        out[i] = *kad_pk(k, peers[i]);
    return found;
}

int kad_save_routing(const struct kad *k, uint8_t *out, size_t cap, size_t *n)
{
    return table_save(&k->table, out, cap, n);
}

void kad_seed_contact(struct kad *k, kad_peer p, uint64_t now_ns)
{
    kad_enter(k, now_ns);
    (void)table_heard(&k->table, p, true, k->now_ns, NULL);
    kad_leave(k);
}

static int look(struct kad *k, const struct pubkey *pk, const void *salt, size_t salt_len,
                struct store_rec *out, bool *fresh, bool used, uint64_t now_ns)
{
    if (salt_len > ITEM_MAX_SALT)
        return ERR_NOT_FOUND;
    kad_enter(k, now_ns);
    struct kad_id target = kad_target(pk, salt, salt_len);
    int rc = kad_store_best(k, &target, KAD_USE_LIVE, out);
    if (rc == 0 && used) {
        kad_revalidate(k, out, false);
        rc = kad_store_best(k, &target, KAD_USE_LIVE, out); /* the view may have moved */
    }
    *fresh = rc == 0 && kad_rec_is_fresh(k, out);
    kad_leave(k);
    return rc;
}

int kad_local(struct kad *k, const struct pubkey *pk, const void *salt, size_t salt_len,
              struct store_rec *out, bool *fresh, uint64_t now_ns)
{
    return look(k, pk, salt, salt_len, out, fresh, true, now_ns);
}

int kad_peek(struct kad *k, const struct pubkey *pk, const void *salt, size_t salt_len,
             struct store_rec *out, bool *fresh, uint64_t now_ns)
{
    return look(k, pk, salt, salt_len, out, fresh, false, now_ns);
}

void kad_distrust(struct kad *k, const struct pubkey *pk, const void *salt, size_t salt_len)
{
    struct store_rec r;

    if (salt_len > ITEM_MAX_SALT)
        return;
    kad_enter(k, k->now_ns);
    struct kad_id target = kad_target(pk, salt, salt_len);
    if (kad_store_best(k, &target, KAD_USE_LIVE, &r) == 0 && r.origin != STORE_OWN) {
        r.stored_ns = 0; /* as old as can be: not fresh until the network has confirmed it */
        if (k->store->ops->touch(k->store, &r) == 0)
            kad_revalidate(k, &r, true);
    }
    kad_leave(k);
}
