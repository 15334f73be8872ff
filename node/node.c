#include "node/node.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cursor.h"
#include "base/err.h"
#include "base/log.h"
#include "node/node_int.h"
#include "store/lmdb.h"
#include "store/memory.h"
#include "transport/drive_socks.h"

#define BUFFER_BUDGET   (UINT64_C(512) << 20)
#define PK_QUEUE        2048
#define HOUSEKEEPING_NS (NS_PER_S)
#define OUTSIDE_NS      (50 * NS_PER_MS)
#define OUTSIDE_MAX     4096
#define DRAIN_NS        (2 * NS_PER_S)
#define DRAIN_LOOK_NS   (20 * NS_PER_MS)
#define HEALTH_NS       (5 * NS_PER_S)
#define ROUTING_SAVE_NS (60 * NS_PER_S)
#define META_ROUTING    "routing"
#define ROUTING_MAX     (64u * 1024u)

/* ---- parts ---- */

static int open_parts(struct node *n, char why[NODE_WHY])
{
    int rc = 0;
    for (const struct node_part *const *p = n->cfg.parts; rc >= 0 && p != NULL && *p != NULL; p++)
        rc = (*p)->open(n, why);
    return rc;
}

static void close_parts(struct node *n)
{
    const struct node_part *const *p = n->cfg.parts;
    size_t count = 0;
    while (p != NULL && p[count] != NULL)
        count++;
    while (count > 0)
        p[--count]->close(n);
}

static void tick_parts(struct node *n)
{
    for (const struct node_part *const *p = n->cfg.parts; p != NULL && *p != NULL; p++)
        if ((*p)->tick != NULL)
            (*p)->tick(n);
}

static bool report_to_parts(struct node *n, const struct kad_report *r)
{
    bool taken = false;
    for (const struct node_part *const *p = n->cfg.parts; !taken && p != NULL && *p != NULL; p++)
        taken = (*p)->report != NULL && (*p)->report(n, r);
    return taken;
}

static void changed(struct node *n)
{
    for (const struct node_part *const *p = n->cfg.parts; p != NULL && *p != NULL; p++)
        if ((*p)->changed != NULL)
            (*p)->changed(n);
    if (n->cfg.changed != NULL)
        n->cfg.changed(n->cfg.arg);
}

/* ---- the client's questions ---- */

struct route_query { /* one question of the client; the handle to cancel it is in here */
    struct node *node;
    uint64_t ticket, handle;
    struct list_node node_link;
};

static void route_answer(void *arg, const struct resolve_answer *a)
{
    struct route_query *q = arg;
    struct client_route route = {.n_servers = 0};
    int err = a->err;
    if (err == 0) {
        const struct entry_client *c = &a->entry->client;
        size_t max = sizeof(route.servers) / sizeof(route.servers[0]);
        if (a->entry->has_client)
            for (size_t i = 0; i < c->n_delegated && route.n_servers < max; i++)
                route.servers[route.n_servers++] = c->delegated[i];
        if (a->entry->has_server && route.n_servers < max) /* a relay is reached through itself */
            route.servers[route.n_servers++] = a->entry->static_pk;
        if (route.n_servers == 0)
            err = ERR_DMSG_NO_DELEGATED;
        else if (q->node->host != NULL)
            host_set_relays(q->node->host, &a->entry->static_pk, route.servers, route.n_servers);
        if (a->entry->has_server)
            servers_learn_at(q->node, &a->entry->static_pk, entry_server_address(a->entry),
                             a->entry->timestamp_ns);
    }
    struct client *client = q->node->client;
    uint64_t ticket = q->ticket;
    list_remove(&q->node_link);
    free(q);
    client_resolved(client, ticket, err, &route);
}

static struct list *queries(struct node *n)
{
    return &n->queries;
}

static void on_resolve(void *arg, uint64_t ticket, const struct pubkey *pk, unsigned flags)
{
    struct node *n = arg;
    struct route_query *q = calloc(1, sizeof(*q));
    unsigned how =
        (flags & CLIENT_RESOLVE_FRESH ? (unsigned)RESOLVE_FRESH : 0u) |
        (flags & CLIENT_DIAL_LOCAL ? (unsigned)(RESOLVE_LOCAL_ONLY | RESOLVE_UNCOUNTED) : 0u);
    if (q == NULL) {
        client_resolved(n->client, ticket, ERR_NOMEM, NULL);
        return;
    }
    if (n->follow != NULL && (flags & CLIENT_DIAL_LOCAL) == 0)
        follow_used(n->follow, pk);
    q->node = n;
    q->ticket = ticket;
    list_push_back(queries(n), &q->node_link);
    uint64_t handle = resolve_entry(n->resolve, pk, how, route_answer, q);
    if (handle != 0) /* otherwise it was answered from inside, and q is gone */
        q->handle = handle;
}

static void on_resolve_cancel(void *arg, uint64_t ticket)
{
    struct node *n = arg;
    struct list_node *pos, *tmp;
    list_for_each(pos, tmp, queries(n))
    {
        struct route_query *q = container_of(pos, struct route_query, node_link);
        if (q->ticket != ticket)
            continue;
        resolve_cancel(n->resolve, q->handle);
        list_remove(pos);
        free(q);
        return;
    }
}

static void on_distrust(void *arg, const struct pubkey *pk)
{
    struct node *n = arg;
    resolve_distrust(n->resolve, pk);
}

static void on_sessions_changed(void *arg)
{
    struct node *n = arg;
    if (n->publish != NULL)
        publish_sessions_changed(n->publish);
    changed(n);
}

/* ---- the engine's reports ---- */

static void look_for_peers(struct node *n)
{
    struct kad_stat st;
    kad_stat(node_kad(n), &st);
    bool have = st.routing_peers > 0;
    if (have && !n->have_peers && n->publish != NULL)
        publish_kick(n->publish); /* now there is somebody to hold our records */
    n->have_peers = have;
}

/* The bootstrap nodes answer, and belong to another network: waiting will not help. */
static void note_network(struct node *n, bool other)
{
    if (other && !n->other_network)
        log_warn(LOG_DHT, "the bootstrap nodes belong to another network network=%s",
                 n->cfg.network != NULL ? n->cfg.network : "(default)");
    n->other_network = other;
}

static void begin_drain(struct node *n);

/* The last thing that an engine does in order. */
static void left_network(struct node *n, const struct kad_report *r)
{
    log_info(LOG_DHT, "left the network handed_on=%llu told=%u", (unsigned long long)r->pushed,
             r->answered);
    begin_drain(n);
}

static void on_report(void *arg, const struct kad_report *r)
{
    struct node *n = arg;
    bool taken = (n->follow != NULL && follow_report(n->follow, r)) ||
                 resolve_report(n->resolve, r) ||
                 (n->publish != NULL && publish_report(n->publish, r)) || servers_report(n, r) ||
                 report_to_parts(n, r) || (n->cfg.report != NULL && n->cfg.report(n->cfg.arg, r));
    (void)taken; /* bootstrap and refresh are nobody's */
    if (r->type == KAD_OP_BOOTSTRAP)
        note_network(n, r->err == ERR_NETWORK);
    if (r->type == KAD_OP_LEAVE)
        left_network(n, r);
    look_for_peers(n);
    changed(n);
}

/* A record was accepted into the store. */
static void on_stored(void *arg, const struct store_rec *rec)
{
    struct node *n = arg;
    resolve_stored(n->resolve, rec);
    servers_stored(n, rec);
    for (const struct node_part *const *p = n->cfg.parts; p != NULL && *p != NULL; p++)
        if ((*p)->stored != NULL)
            (*p)->stored(n, rec);
}

/* ---- after a suspend, a clock jump, or a change of the network ---- */

static void on_wake(void *arg, const char *why, int64_t s)
{
    struct node *n = arg;
    log_info(LOG_NODE, "sessions are asked whether they live reason=\"%s\" s=%lld", why,
             (long long)s);
    client_reprobe(n->client);
}

/* ---- housekeeping ---- */

static void routing_save(struct node *n)
{
    uint8_t *p = malloc(ROUTING_MAX);
    size_t len = 0;
    if (p != NULL && kad_save_routing(node_kad(n), p, ROUTING_MAX, &len) == 0)
        (void)n->store->ops->meta_put(n->store, META_ROUTING, p, len);
    free(p);
}

static void routing_load(struct node *n)
{
    uint8_t *p = malloc(ROUTING_MAX);
    size_t len = 0;
    if (p != NULL && n->store->ops->meta_get(n->store, META_ROUTING, p, ROUTING_MAX, &len) == 0 &&
        len <= ROUTING_MAX)
        (void)kad_load_routing(node_kad(n), p, len, n->loop->now_ns);
    free(p);
}

const char *node_health(struct node *n)
{
    struct kad_stat kad;
    struct client_stat client;
    if (n->stopping)
        return "stopping";
    struct store_stat store;
    n->store->ops->stat(n->store, &store);
    if (store.busy_pid != 0) {
        snprintf(n->health_text, sizeof(n->health_text), "store busy, pid %d", store.busy_pid);
        return n->health_text;
    }
    client_stat(n->client, &client);
    if (client.sessions_up == 0)
        return "no session to any relay";
    kad_stat(node_kad(n), &kad);
    if (kad.alone && n->cfg.n_bootstrap > 0)
        return "no DHT peer answers";
    return "ok";
}

/* A change that lasts is worth a line: at the start, and between two sessions, everything is
 * missing for a moment. */
static void log_health(struct node *n)
{
    const char *now = node_health(n);
    if (n->cfg.control == NULL) /* a tool tells of its own failures */
        return;
    if (n->health == NULL)
        n->health = "ok";
    if (strcmp(now, n->health) == 0 || n->stopping) {
        n->health_ns = n->loop->now_ns;
        return;
    }
    if (n->loop->now_ns - n->health_ns < HEALTH_NS)
        return;
    n->health = now;
    if (strcmp(now, "ok") == 0)
        log_info(LOG_NODE, "health is ok again");
    else
        log_warn(LOG_NODE, "health is not ok reason=\"%s\"", now);
}

static void on_housekeeping(struct loop_timer *t)
{
    struct node *n = container_of(t, struct node, housekeeping);
    look_for_peers(n);
    wake_tick(&n->wake, n->loop->now_ns, env_wall_ns(n->env));
    if (n->loop->now_ns - n->routing_saved_ns >= ROUTING_SAVE_NS) {
        n->routing_saved_ns = n->loop->now_ns;
        routing_save(n);
    }
    servers_tick(n);
    log_health(n);
    tick_parts(n);
    changed(n);
    loop_timer_set(n->loop, t, n->loop->now_ns + HOUSEKEEPING_NS);
}

/* ---- a store that is shared with other full nodes of this host ---- */

struct outside {
    size_t n;
    bool more; /* than at[] tells */
    struct {
        struct kad_id target;
        enum item_kind kind;
    } at[OUTSIDE_MAX];
};

static void note_outside(void *arg, const struct kad_id *target, enum item_kind kind)
{
    struct outside *o = arg;
    if (target == NULL || o->n == OUTSIDE_MAX) {
        o->more = true;
        return;
    }
    o->at[o->n].target = *target;
    o->at[o->n++].kind = kind;
}

static void on_outside(struct loop_timer *t)
{
    struct node *n = container_of(t, struct node, outside);
    struct outside *o = malloc(sizeof(*o));
    if (o != NULL) {
        o->n = 0;
        o->more = false;
        (void)n->store->ops->changes(n->store, note_outside, o);
        for (size_t i = 0; i < o->n; i++)
            kad_store_changed(node_kad(n), &o->at[i].target, o->at[i].kind, n->loop->now_ns);
        if (o->more)
            kad_store_changed(node_kad(n), NULL, ITEM_OWNER, n->loop->now_ns);
        if (o->n > 0)
            host_kick(n->host);
    }
    free(o);
    loop_timer_set(n->loop, t, n->loop->now_ns + OUTSIDE_NS);
}

/* ---- building ---- */

static int fail(char why[NODE_WHY], int err, const char *what, const char *name)
{
    snprintf(why, NODE_WHY, "%s %s: %s", what, name, err_str(err));
    return err;
}

static int open_lock(struct node *n, char why[NODE_WHY])
{
    struct keylock_owner other;
    char pk[PUBKEY_HEX + 1];
    int rc = keylock_take(&n->lock, &n->cfg.pk, n->cfg.control, &other);
    if (rc == ERR_BUSY)
        snprintf(why, NODE_WHY, "key %s: another node runs under this key, process %ld",
                 pubkey_hex(pk, &n->cfg.pk), (long)other.pid);
    else if (rc < 0)
        fail(why, rc, "lock of key", pubkey_hex(pk, &n->cfg.pk));
    return rc;
}

static uint64_t store_budget(const struct node *n)
{
    return n->cfg.store_bytes != 0 ? n->cfg.store_bytes
           : n->cfg.full           ? UINT64_C(1) << 30
                                   : UINT64_C(64) << 20;
}

int node_set_full(struct node *n, bool full)
{
    int rc = full ? 0 : n->store->ops->unshare(n->store);
    if (rc < 0 || n->cfg.full == full)
        return rc;
    n->cfg.full = full;
    n->store->ops->set_budget(n->store, store_budget(n));
    kad_set_full(node_kad(n), full);
    host_kick(n->host);
    log_info(LOG_NODE, "full node %s", full ? "on" : "off");
    return 0;
}

static int open_store(struct node *n, char why[NODE_WHY])
{
    uint64_t bytes = store_budget(n);
    if (n->cfg.store_dir == NULL) {
        int rc = store_memory_new(&n->store, bytes);
        return rc == 0 ? 0 : fail(why, rc, "store", "(memory)");
    }
    struct store_lmdb_cfg cfg = {
        .path = n->cfg.store_dir,
        .own_pk = n->cfg.pk,
        .budget_bytes = bytes,
        .commit_ms = n->cfg.commit_ms,
        .network = kad_network_tag(n->cfg.network),
        .has_network = true,
        .shared = n->cfg.full,
    };
    memcpy(cfg.hash_key, n->env->hash_key, sizeof(cfg.hash_key));
    return store_lmdb_open(&n->store, &cfg, why, NODE_WHY);
}

static int open_pk_pool(struct node *n)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned threads = n->cfg.pk_threads != 0 ? n->cfg.pk_threads
                       : cores > 4            ? 4
                       : cores > 1            ? (unsigned)cores
                                              : 1;
    if ((n->pk_pool = pk_pool_new(threads, PK_QUEUE)) == NULL ||
        (n->env = drive_env_new(n->pk_pool, n->drive)) == NULL)
        return ERR_NOMEM;
    drive_env_set_clock_offset(n->env, n->cfg.clock_offset_ns);
    return 0;
}

static int open_loop(struct node *n)
{
    n->budget.cap = BUFFER_BUDGET;
    if ((n->drive = drive_loop_new(n->cfg.base)) == NULL)
        return ERR_NOMEM;
    n->loop = drive_loop_loop(n->drive);
    n->started_ns = n->health_ns = drive_loop_now(n->drive);
    fdbridges_init(&n->bridges, n->drive);
    int rc = n->cfg.pk_inline ? env_sys_init(&n->env_sys) : open_pk_pool(n);
    if (rc < 0)
        return rc;
    if (n->cfg.pk_inline)
        n->env = &n->env_sys.env;
    if ((n->pool = bufpool_new(&n->budget)) == NULL ||
        (n->tcp = drive_tcp_new(n->drive, n->pool)) == NULL)
        return ERR_NOMEM;
    return 0;
}

static int open_client(struct node *n)
{
    if (n->cfg.proxy != NULL && (n->drive_socks = drive_socks_new(
                                     n->loop, drive_tcp_carrier(n->tcp), n->cfg.proxy)) == NULL)
        return ERR_NOMEM;
    struct client_cfg cfg = {
        .env = n->env,
        .loop = n->loop,
        .pool = n->pool,
        .carrier = n->drive_socks != NULL ? n->drive_socks : drive_tcp_carrier(n->tcp),
        .self = n->cfg.pk,
        .sk = n->cfg.sk,
        .hooks = {n, on_resolve, on_resolve_cancel, servers_find, on_distrust, on_sessions_changed},
        .want = n->cfg.sessions != 0 ? n->cfg.sessions : 2,
    };
    int rc = client_new(&n->client, &cfg);
    seckey_wipe(&cfg.sk);
    return rc < 0 || n->relay == NULL ? rc : node_attach_relay(n);
}

static int open_dht(struct node *n)
{
    struct pubkey *boot = calloc(n->cfg.n_bootstrap + 1, sizeof(*boot));
    if (boot == NULL)
        return ERR_NOMEM;
    for (size_t i = 0; i < n->cfg.n_bootstrap; i++)
        boot[i] = n->cfg.bootstrap[i].pk;
    struct kad_cfg kad = {
        .self = n->cfg.pk,
        .sk = n->cfg.sk,
        .full = n->cfg.full,
        .client_only = n->cfg.client_only,
        .whitelisted = n->cfg.whitelisted,
        .n_whitelisted = n->cfg.n_whitelisted,
        .trusted = n->cfg.trusted,
        .n_trusted = n->cfg.n_trusted,
        .mirrors = n->cfg.mirrors,
        .n_mirrors = n->cfg.n_mirrors,
        .writers = n->cfg.writers,
        .n_writers = n->cfg.n_writers,
        .readers = n->cfg.readers,
        .n_readers = n->cfg.n_readers,
        .network = kad_network_tag(n->cfg.network),
        .bootstrap = boot,
        .n_bootstrap = n->cfg.no_dht ? 0 : n->cfg.n_bootstrap,
        .limits = {.max_bytes = n->cfg.store_bytes},
    };
    struct host_cfg cfg = {
        .env = n->env,
        .loop = n->loop,
        .client = n->client,
        .store = n->store,
        .kad = &kad,
        .report = on_report,
        .stored = on_stored,
        .arg = n,
    };
    int rc = host_new(&n->host, &cfg);
    seckey_wipe(&kad.sk);
    free(boot);
    if (rc < 0)
        return rc;
    resolve_set_host(n->resolve, n->host);
    routing_load(n);
    if (n->cfg.client_only || n->cfg.no_dht)
        return 0;
    n->follow = follow_new(n->loop, n->host, n->env->hash_key);
    return n->follow != NULL ? 0 : ERR_NOMEM;
}

static int open_publish(struct node *n)
{
    const struct node_policy *how = &n->policy;
    if (!n->cfg.publish || (n->cfg.no_dht && how->publish_dht))
        return 0;
    struct publish_cfg cfg = {
        .port = how->registers != NODE_REGISTERS_NEVER && n->discovery != NULL ? &n->disc : NULL,
        .http_only = !how->publish_dht,
        .http_unseen = how->registers == NODE_REGISTERS_UNSEEN,
        .env = n->env,
        .loop = n->loop,
        .client = n->client,
        .host = n->host,
        .self = n->cfg.pk,
        .sk = n->cfg.sk,
        .server_address = n->relay != NULL ? n->public_addr : NULL,
        .max_sessions = n->cfg.max_sessions != 0 ? n->cfg.max_sessions : 2048,
        .client_type = "",
    };
    n->publish = publish_new(&cfg);
    seckey_wipe(&cfg.sk);
    return n->publish != NULL ? 0 : ERR_NOMEM;
}

static void on_stop(struct drive_msg *m);
static void drain(struct loop_timer *t);

static int build(struct node *n, char why[NODE_WHY])
{
    int rc = n->cfg.lock ? open_lock(n, why) : 0;
    if (rc == 0 && (rc = open_loop(n)) < 0)
        fail(why, rc, "event loop", "");
    if (rc == 0)
        rc = open_store(n, why);
    if (rc == 0)
        rc = node_open_relay(n, why);
    if (rc == 0) {
        servers_init(n);
        n->resolve = resolve_new(n->loop, n->env);
        rc = n->resolve == NULL ? ERR_NOMEM : open_client(n);
        wake_init(&n->wake, n->drive, on_wake, n);
        wake_tick(&n->wake, n->loop->now_ns, env_wall_ns(n->env));
        if (rc == 0)
            rc = open_dht(n);
        if (rc < 0)
            return fail(why, rc, "node", "");
        if ((rc = open_parts(n, why)) < 0)
            return rc;
        rc = open_publish(n);
        if (rc == 0 && n->cfg.control_port)
            rc = ctrl_new(&n->ctrl, n->client);
        if (rc < 0)
            fail(why, rc, "node", "");
    }
    if (rc == 0)
        tick_parts(n);
    return rc;
}

int node_new(struct node **out, const struct node_cfg *cfg, char why[NODE_WHY])
{
    struct node *n = calloc(1, sizeof(*n));
    if (n == NULL)
        return fail(why, ERR_NOMEM, "node", "");
    n->cfg = *cfg;
    n->policy = node_policy_of(cfg);
    n->lock.fd = -1;
    n->housekeeping.fn = on_housekeeping;
    n->drain_timer.fn = drain;
    n->stop_msg.fn = on_stop;
    list_init(&n->waits);
    list_init(&n->pings);
    list_init(&n->session_tries);
    list_init(&n->publishing);
    n->forward_dir.fd = -1;
    list_init(&n->queries);
    list_init(&n->questions);
    list_init(&n->operations);
    list_init(&n->watching);
    list_init(&n->servers);
    int rc = build(n, why);
    if (rc < 0) {
        node_free(n);
        return rc;
    }
    for (size_t i = 0; i < cfg->n_bootstrap; i++) {
        char addr[ADDR_HOSTPORT_MAX + 1];
        if (!pubkey_equal(&cfg->bootstrap[i].pk, &cfg->pk))
            servers_seed(n, &cfg->bootstrap[i].pk, addr_hostport_text(addr, &cfg->bootstrap[i].at));
    }
    loop_timer_set(n->loop, &n->housekeeping, n->loop->now_ns + HOUSEKEEPING_NS);
    n->outside.fn = on_outside;
    struct store_stat st;
    n->store->ops->stat(n->store, &st);
    if (st.shared)
        loop_timer_set(n->loop, &n->outside, n->loop->now_ns + OUTSIDE_NS);
    *out = n;
    return 0;
}

void node_free(struct node *n)
{
    struct list_node *pos, *tmp;
    if (n == NULL)
        return;
    n->stopping = true; /* a stop that was posted comes too late */
    ctrl_free(n->ctrl);
    close_parts(n);
    publish_free(n->publish);
    n->publish = NULL; /* what is closed below still reports changes */
    if (n->host != NULL)
        resolve_set_host(n->resolve, NULL);
    follow_free(n->follow);
    n->follow = NULL;
    host_free(n->host);
    n->host = NULL;
    if (n->drive != NULL)
        fdbridges_close(&n->bridges);
    client_free(n->client);
    list_for_each(pos, tmp, queries(n))
    {
        list_remove(pos);
        free(container_of(pos, struct route_query, node_link));
    }
    resolve_free(n->resolve);
    relay_thread_stop(n->relay);
    servers_free(n);
    wake_close(&n->wake);
    if (n->drive != NULL) {
        loop_timer_cancel(n->loop, &n->housekeeping);
        loop_timer_cancel(n->loop, &n->outside);
        loop_timer_cancel(n->loop, &n->drain_timer);
        loop_turn(n->loop, drive_loop_now(n->drive)); /* deferred closes */
    }
    drive_socks_free(n->drive_socks);
    drive_tcp_free(n->tcp);
    if (n->store != NULL)
        n->store->ops->close(n->store);
    if (n->pk_pool != NULL)
        drive_env_free(n->env);
    if (n->pool != NULL)
        bufpool_free(n->pool);
    if (n->sigint != NULL)
        event_free(n->sigint);
    if (n->sigterm != NULL)
        event_free(n->sigterm);
    if (n->sighup != NULL)
        event_free(n->sighup);
    drive_loop_free(n->drive);
    pk_pool_free(n->pk_pool);
    keylock_release(&n->lock);
    seckey_wipe(&n->cfg.sk);
    free(n);
}

/* ---- running and stopping ---- */

static void finished(struct node *n)
{
    if (n->cfg.stopped != NULL)
        n->cfg.stopped(n->cfg.arg);
    else
        drive_loop_stop(n->drive);
}

/* Streams that tools hold have DRAIN_NS to get rid of what was written to them. */
static void drain(struct loop_timer *t)
{
    struct node *n = container_of(t, struct node, drain_timer);
    if (n->bridges.n == 0 || n->loop->now_ns >= n->drain_until_ns)
        finished(n);
    else
        loop_timer_set(n->loop, t, n->loop->now_ns + DRAIN_LOOK_NS);
}

static void begin_drain(struct node *n)
{
    loop_timer_set(n->loop, &n->drain_timer, n->loop->now_ns + DRAIN_LOOK_NS);
}

/* Then others get what we hold. A tool's node holds nothing for anybody. */
static void withdrawn(void *arg)
{
    struct node *n = arg;
    bool leaves = n->host != NULL && kad_leave_network(node_kad(n), n, n->loop->now_ns) != 0;
    if (!leaves) {
        begin_drain(n);
        return;
    }
    n->drain_until_ns = n->loop->now_ns + DRAIN_NS;
    host_kick(n->host);
}

static void begin_stop(struct node *n)
{
    if (n->stopping) { /* asked twice: do not wait for anybody */
        log_info(LOG_NODE, "stopping at once");
        finished(n);
        return;
    }
    n->stopping = true;
    log_info(LOG_NODE, "stopping");
    routing_save(n);
    if (n->cfg.stopping != NULL)
        n->cfg.stopping(n->cfg.arg);
    n->drain_until_ns = n->loop->now_ns + DRAIN_NS;
    if (n->publish != NULL)
        publish_withdraw(n->publish, withdrawn, n);
    else
        withdrawn(n);
}

static void on_stop(struct drive_msg *m)
{
    struct node *n = container_of(m, struct node, stop_msg);
    atomic_store(&n->stop_posted, false);
    begin_stop(n);
}

void node_stop(struct node *n)
{
    if (!atomic_exchange(&n->stop_posted, true))
        drive_post(n->drive, &n->stop_msg);
}

static void on_signal(evutil_socket_t sig, short what, void *arg)
{
    struct node *n = arg;
    (void)sig;
    (void)what;
    drive_loop_now(n->drive);
    begin_stop(n);
}

static void on_hangup(evutil_socket_t sig, short what, void *arg)
{
    struct node *n = arg;
    char why[NODE_WHY];
    (void)sig;
    (void)what;
    drive_loop_now(n->drive);
    (void)node_reload(n, why);
}

int node_handle_signals(struct node *n)
{
    struct event_base *base = drive_loop_base(n->drive);
    signal(SIGPIPE, SIG_IGN);
    n->sigint = evsignal_new(base, SIGINT, on_signal, n);
    n->sigterm = evsignal_new(base, SIGTERM, on_signal, n);
    n->sighup = evsignal_new(base, SIGHUP, on_hangup, n);
    if (n->sigint == NULL || n->sigterm == NULL || n->sighup == NULL ||
        event_add(n->sigint, NULL) < 0 || event_add(n->sigterm, NULL) < 0 ||
        event_add(n->sighup, NULL) < 0)
        return ERR_NOMEM;
    return 0;
}

int node_run(struct node *n)
{
    int rc = drive_loop_run(n->drive);
    int synced = n->store->ops->sync(n->store, 5000);
    if (synced < 0)
        log_error(LOG_STORE, "not everything could be written reason=\"%s\"", err_str(synced));
    return rc < 0 ? rc : synced;
}

const struct pubkey *node_pk(const struct node *n)
{
    return &n->cfg.pk;
}

const char *node_relay_addr(const struct node *n)
{
    return n->relay != NULL ? n->relay_addr : NULL;
}

const char *node_public_addr(const struct node *n)
{
    return n->public_addr;
}
