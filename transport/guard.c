#include "transport/guard.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/list.h"
#include "base/lock.h"
#include "base/loop.h"
#include "base/map.h"

#define BURST_S      10u
#define IDLE_MAX     65536u /* addresses that are remembered for their bucket alone */
#define METER_LAG_NS (100 * NS_PER_MS)

struct guard_addr {
    uint8_t ip[16];
    uint32_t pending, sessions;
    uint64_t bucket_ns; /* until when its allowance of handshakes is used up */
    struct list_node idle_node;
};

struct guard {
    struct guard_cfg cfg;
    bool loopback_free[3]; /* pending, sessions, rate: left at their defaults */
    struct lock lock;      /* of what follows, up to the atomics */
    struct map addrs;
    struct list idle; /* without connections, longest first */
    size_t n_idle;
    struct pubkey *allow, *deny; /* sorted */
    size_t n_allow, n_deny;
    struct guard_stat stat;
    _Atomic size_t streams;
    _Atomic uint64_t refused_streams;
    struct meter meter;
};

enum { FREE_PENDING, FREE_SESSIONS, FREE_RATE };

/* ---- addresses ---- */

static void group_of(uint8_t out[16], const struct conn *conn)
{
    memset(out, 0, 16);
    if (conn->peer_ip_len == 16) {
        memcpy(out, conn->peer_ip, 8);
    } else if (conn->peer_ip_len == 4) { /* ::ffff:a.b.c.d */
        out[10] = out[11] = 0xff;
        memcpy(out + 12, conn->peer_ip, 4);
    }
}

static bool is_loopback(const struct conn *conn)
{
    static const uint8_t one[16] = {[15] = 1};
    return conn->peer_ip_len == 4    ? conn->peer_ip[0] == 127
           : conn->peer_ip_len == 16 ? memcmp(conn->peer_ip, one, 16) == 0
                                     : false;
}

static void forget(struct guard *g, struct guard_addr *a)
{
    list_remove(&a->idle_node);
    g->n_idle--;
    map_del(&g->addrs, a->ip);
    free(a);
}

/* Drop those whose bucket is full again, and the oldest when there are too many. */
static void purge(struct guard *g, uint64_t now_ns)
{
    struct guard_addr *a;
    while ((a = list_first_as(&g->idle, struct guard_addr, idle_node)) != NULL &&
           (a->bucket_ns <= now_ns || g->n_idle > IDLE_MAX)) {
        g->stat.forgotten += a->bucket_ns > now_ns ? 1 : 0;
        forget(g, a);
    }
}

static struct guard_addr *addr_get(struct guard *g, const struct conn *conn)
{
    uint8_t group[16];
    group_of(group, conn);
    struct guard_addr *a = map_get(&g->addrs, group);
    if (a != NULL || (a = calloc(1, sizeof(*a))) == NULL)
        return a;
    memcpy(a->ip, group, sizeof(a->ip));
    if (map_put(&g->addrs, a) < 0) {
        free(a);
        return NULL;
    }
    list_push_back(&g->idle, &a->idle_node);
    g->n_idle++;
    return a;
}

static bool bucket_take(struct guard *g, struct guard_addr *a, uint64_t now_ns)
{
    uint64_t step = NS_PER_S / g->cfg.handshakes_per_s;
    uint64_t from = a->bucket_ns > now_ns ? a->bucket_ns : now_ns;
    if (from - now_ns > BURST_S * NS_PER_S - step)
        return false;
    a->bucket_ns = from + step;
    return true;
}

/* The counter of what forbids it, or NULL. */
static uint64_t *obstacle(struct guard *g, struct guard_addr *a, bool loopback, uint64_t now_ns)
{
    const bool *lfree = g->loopback_free;
    if (a->pending >= g->cfg.max_handshakes_addr && !(loopback && lfree[FREE_PENDING]))
        return &g->stat.refused_handshakes_addr;
    if (a->pending + a->sessions >= g->cfg.max_sessions_addr && !(loopback && lfree[FREE_SESSIONS]))
        return &g->stat.refused_sessions_addr;
    if (!(loopback && lfree[FREE_RATE]) && !bucket_take(g, a, now_ns))
        return &g->stat.refused_rate;
    return NULL;
}

static int enter(struct guard *g, const struct conn *conn, uint64_t now_ns, struct guard_addr **out)
{
    uint64_t *why = NULL;
    purge(g, now_ns);
    if (g->stat.links >= g->cfg.max_sessions)
        why = &g->stat.refused_links;
    else if (g->stat.handshakes >= g->cfg.max_handshakes)
        why = &g->stat.refused_handshakes;
    struct guard_addr *a = why == NULL ? addr_get(g, conn) : NULL;
    if (why == NULL && a == NULL)
        return ERR_NOMEM;
    if (why == NULL)
        why = obstacle(g, a, is_loopback(conn), now_ns);
    if (why != NULL) {
        (*why)++;
        return ERR_LIMIT;
    }
    if (list_node_is_linked(&a->idle_node)) {
        list_remove(&a->idle_node);
        g->n_idle--;
    }
    a->pending++;
    g->stat.handshakes++;
    g->stat.links++;
    *out = a;
    return 0;
}

int guard_enter(struct guard *g, const struct conn *conn, uint64_t now_ns, struct guard_addr **out)
{
    lock_take(&g->lock);
    int rc = enter(g, conn, now_ns, out);
    lock_give(&g->lock);
    return rc;
}

void guard_up(struct guard *g, struct guard_addr *a)
{
    lock_take(&g->lock);
    a->pending--;
    a->sessions++;
    g->stat.handshakes--;
    lock_give(&g->lock);
}

void guard_leave(struct guard *g, struct guard_addr *a, bool up)
{
    lock_take(&g->lock);
    if (up) {
        a->sessions--;
    } else {
        a->pending--;
        g->stat.handshakes--;
    }
    g->stat.links--;
    if (a->pending + a->sessions == 0) {
        list_push_back(&g->idle, &a->idle_node);
        g->n_idle++;
    }
    lock_give(&g->lock);
}

bool guard_is_full(struct guard *g)
{
    lock_take(&g->lock);
    bool full = g->stat.handshakes >= g->cfg.max_handshakes;
    lock_give(&g->lock);
    return full;
}

/* ---- streams and bytes ---- */

bool guard_stream_enter(struct guard *g)
{
    if (atomic_fetch_add_explicit(&g->streams, 1, memory_order_relaxed) < g->cfg.max_streams)
        return true;
    atomic_fetch_sub_explicit(&g->streams, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&g->refused_streams, 1, memory_order_relaxed);
    return false;
}

void guard_stream_leave(struct guard *g)
{
    atomic_fetch_sub_explicit(&g->streams, 1, memory_order_relaxed);
}

uint64_t meter_ready_ns(const struct meter *m, uint64_t now_ns)
{
    uint64_t at = atomic_load_explicit(&m->at_ns, memory_order_relaxed);
    return m->bytes_per_s == 0 || at < now_ns ? now_ns : at;
}

void meter_take(struct meter *m, uint64_t now_ns, uint64_t bytes)
{
    if (m->bytes_per_s == 0)
        return;
    uint64_t floor_ns = now_ns > METER_LAG_NS ? now_ns - METER_LAG_NS : 0;
    uint64_t ns = bytes * NS_PER_S / m->bytes_per_s;
    uint64_t was = atomic_load_explicit(&m->at_ns, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&m->at_ns, &was,
                                                  (was > floor_ns ? was : floor_ns) + ns,
                                                  memory_order_relaxed, memory_order_relaxed))
        ;
}

struct meter *guard_meter(struct guard *g)
{
    return &g->meter;
}

/* ---- access ---- */

static int compare_keys(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct pubkey));
}

static bool is_in(const struct pubkey *list, size_t n, const struct pubkey *pk)
{
    return n > 0 && bsearch(pk, list, n, sizeof(*list), compare_keys) != NULL;
}

static struct pubkey *sorted_copy(const struct pubkey *list, size_t n)
{
    struct pubkey *copy = calloc(n + 1, sizeof(*copy));
    if (copy == NULL)
        return NULL;
    if (n > 0)
        memcpy(copy, list, n * sizeof(*copy));
    qsort(copy, n, sizeof(*copy), compare_keys);
    return copy;
}

int guard_set_access(struct guard *g, const struct pubkey *allow, size_t n_allow,
                     const struct pubkey *deny, size_t n_deny)
{
    struct pubkey *a = sorted_copy(allow, n_allow), *d = sorted_copy(deny, n_deny), *old_a, *old_d;
    if (a == NULL || d == NULL) {
        free(a);
        free(d);
        return ERR_NOMEM;
    }
    lock_take(&g->lock);
    old_a = g->allow;
    old_d = g->deny;
    g->allow = a;
    g->deny = d;
    g->n_allow = n_allow;
    g->n_deny = n_deny;
    lock_give(&g->lock);
    free(old_a);
    free(old_d);
    return 0;
}

bool guard_allows(struct guard *g, const struct pubkey *pk, enum guard_who who)
{
    lock_take(&g->lock);
    bool ok = !is_in(g->deny, g->n_deny, pk) &&
              (who == GUARD_CONFIGURED || g->n_allow == 0 || is_in(g->allow, g->n_allow, pk));
    g->stat.refused_key += ok ? 0 : 1;
    lock_give(&g->lock);
    return ok;
}

/* ---- the guard itself ---- */

static void set_default(uint32_t *v, uint32_t def)
{
    *v = *v != 0 ? *v : def;
}

int guard_new(struct guard **out, const struct guard_cfg *cfg)
{
    struct guard *g = calloc(1, sizeof(*g));
    if (g == NULL)
        return ERR_NOMEM;
    g->cfg = *cfg;
    g->loopback_free[FREE_PENDING] = cfg->max_handshakes_addr == 0;
    g->loopback_free[FREE_SESSIONS] = cfg->max_sessions_addr == 0;
    g->loopback_free[FREE_RATE] = cfg->handshakes_per_s == 0;
    set_default(&g->cfg.max_sessions, 100000);
    set_default(&g->cfg.max_handshakes, 1024);
    set_default(&g->cfg.max_handshakes_addr, 64);
    set_default(&g->cfg.max_sessions_addr, 2048);
    set_default(&g->cfg.handshakes_per_s, 20);
    set_default(&g->cfg.max_streams, 500000);
    g->meter.bytes_per_s = cfg->bytes_per_s;
    lock_init(&g->lock);
    map_init(&g->addrs, MAP_KEY(struct guard_addr, ip), cfg->hash_key, 0);
    list_init(&g->idle);
    *out = g;
    return 0;
}

void guard_free(struct guard *g)
{
    struct guard_addr *a;
    if (g == NULL)
        return;
    while ((a = list_first_as(&g->idle, struct guard_addr, idle_node)) != NULL)
        forget(g, a);
    map_free(&g->addrs);
    lock_destroy(&g->lock);
    free(g->allow);
    free(g->deny);
    sodium_memzero(&g->cfg, sizeof(g->cfg));
    free(g);
}

void guard_stat(struct guard *g, struct guard_stat *out)
{
    lock_take(&g->lock);
    *out = g->stat;
    out->caps = g->cfg;
    out->addresses = map_len(&g->addrs) - g->n_idle;
    out->allowed = g->n_allow;
    out->denied = g->n_deny;
    lock_give(&g->lock);
    memset(out->caps.hash_key, 0, sizeof(out->caps.hash_key));
    out->streams = atomic_load_explicit(&g->streams, memory_order_relaxed);
    out->refused_streams = atomic_load_explicit(&g->refused_streams, memory_order_relaxed);
}
