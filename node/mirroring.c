#include "node/mirroring.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "compat-http/kv_redis.h"
#include "compat-http/mirror_kv.h"
#include "node/node_int.h"

struct peer {
    kad_peer handle;
    uint32_t op; /* 0: not asked now */
};

#define PULL_RETRY_NS (5 * NS_PER_S)

struct mirroring {
    struct mirror *mirror;
    struct mirror_kv *redis;
    struct kv *kv;
    struct node *node;
    unsigned full; /* number of the sink of full nodes */
    bool has_full;
    bool redis_known, redis_away; /* it was there before, and is not now */
    struct peer peer[MIRRORING_PEERS];
    size_t n_peers;
    size_t left, good; /* of the batch under way */
    int err;
    struct loop_task task; /* tells of a batch that ended at once */
    struct loop *loop;
    uint64_t refused;
    const char *pull; /* salt that is still to be asked for; NULL = none */
    uint32_t pull_op; /* 0: not under way */
    size_t pull_peer;
    uint64_t pull_ns; /* not before */
    uint64_t pulls, pulled_items;
    void (*pulled)(void *arg);
    void *arg;
};

/* ---- full nodes ---- */

static void batch_over(struct mirroring *m)
{
    if (m->left == 0)
        mirror_written(m->mirror, m->full, m->good > 0 ? 0 : m->err);
}

static void on_task(struct loop_task *t)
{
    batch_over(container_of(t, struct mirroring, task));
}

static int write_full(void *arg, const struct mirror_write *w, size_t n, size_t *taken)
{
    struct mirroring *m = arg;
    struct kad_batch_item items[MIRROR_BATCH];
    if (m->node == NULL || m->n_peers == 0)
        return ERR_NO_ROUTE;
    for (size_t i = 0; i < n; i++)
        items[i] = (struct kad_batch_item){w[i].item, w[i].target};
    struct kad *kad = node_kad(m->node);
    uint64_t now = m->node->loop->now_ns;
    m->left = m->good = 0;
    m->err = ERR_BUSY;
    for (size_t i = 0; i < m->n_peers; i++) {
        struct peer *p = &m->peer[i];
        p->op = kad_put_batch(kad, p->handle, items, n, taken, m, now);
        m->left += p->op != 0;
    }
    host_kick(m->node->host);
    return m->left > 0 ? 0 : ERR_BUSY;
}

void mirroring_pull(struct mirroring *m, const char *salt)
{
    if (m != NULL && m->has_full)
        m->pull = salt;
}

void mirroring_tick(struct mirroring *m)
{
    struct client_stat st;
    if (m == NULL || m->node == NULL || m->pull == NULL || m->pull_op != 0 || m->n_peers == 0)
        return;
    uint64_t now = m->node->loop->now_ns;
    client_stat(m->node->client, &st);
    if (st.sessions_up == 0 || now < m->pull_ns)
        return;
    const struct peer *p = &m->peer[m->pull_peer++ % m->n_peers];
    m->pull_ns = now + PULL_RETRY_NS;
    m->pull_op = kad_pull(node_kad(m->node), p->handle, m->pull, strlen(m->pull), &m->pull_op, now);
    host_kick(m->node->host);
}

static void pull_over(struct mirroring *m, const struct kad_report *r)
{
    m->pull_op = 0;
    if (r->err != 0)
        return; /* the next one, a little later */
    m->pull = NULL;
    m->pulls++;
    m->pulled_items += r->pulled;
    log_info(LOG_DHT, "pulled from a full node items=%llu", (unsigned long long)r->pulled);
    if (m->pulled != NULL)
        m->pulled(m->arg);
}

bool mirroring_report(struct mirroring *m, const struct kad_report *r)
{
    if (m != NULL && r->user == &m->pull_op) {
        if (r->op == m->pull_op)
            pull_over(m, r);
        return true;
    }
    if (m == NULL || r->type != KAD_OP_BATCH || r->user != m)
        return false;
    for (size_t i = 0; i < m->n_peers; i++) {
        struct peer *p = &m->peer[i];
        if (p->op != r->op)
            continue;
        p->op = 0;
        m->left--;
        m->good += r->err == 0;
        m->err = r->err;
        m->refused += r->refused;
        if (r->refused > 0)
            log_limited_here(LOG_DHT, LOG_LEVEL_WARN,
                             "a full node refuses what is mirrored: does it have --mirror with our "
                             "key? refused=%u",
                             r->refused);
        batch_over(m);
        break;
    }
    return true;
}

static void drop_peers(struct mirroring *m)
{
    if (m->pull_op != 0)
        kad_cancel(node_kad(m->node), m->pull_op);
    m->pull_op = 0;
    for (size_t i = 0; i < m->n_peers; i++) {
        if (m->peer[i].op != 0)
            kad_cancel(node_kad(m->node), m->peer[i].op);
        host_unref(m->node->host, m->peer[i].handle);
    }
    m->n_peers = 0;
    if (m->left > 0) { /* not from inside a write */
        m->left = 0;
        m->err = ERR_CANCELLED;
        loop_task_post(m->loop, &m->task);
    }
}

void mirroring_set_node(struct mirroring *m, struct node *n)
{
    if (m == NULL)
        return;
    drop_peers(m);
    m->node = n;
    for (size_t i = 0; n != NULL && i < n->cfg.n_bootstrap && m->n_peers < MIRRORING_PEERS; i++) {
        kad_peer p = host_peer(n->host, &n->cfg.bootstrap[i].pk);
        if (p != KAD_PEER_NONE)
            m->peer[m->n_peers++] = (struct peer){.handle = p};
    }
}

/* ---- life ---- */

/* Redis was away: what it held may be lost, without any write of ours having failed. */
static void on_redis(void *arg, int err, const char *why)
{
    struct mirroring *m = arg;
    (void)why;
    if (err != 0) {
        m->redis_away = m->redis_known;
        return;
    }
    m->redis_known = true;
    if (m->redis_away)
        mirror_lost(m->mirror);
    m->redis_away = false;
}

static int open_redis(struct mirroring *m, const struct mirroring_cfg *cfg)
{
    struct kv_redis_cfg redis = {.drive = cfg->drive,
                                 .env = cfg->env,
                                 .url = cfg->redis,
                                 .password = cfg->password,
                                 .state = on_redis,
                                 .arg = m};
    int rc = kv_redis_open(&m->kv, &redis);
    return rc == 0 ? mirror_kv_new(&m->redis, m->mirror, m->kv, "redis") : rc;
}

int mirroring_open(struct mirroring **out, const struct mirroring_cfg *cfg)
{
    struct mirror_cfg mirror = {.env = cfg->env,
                                .loop = drive_loop_loop(cfg->drive),
                                .pk = cfg->pk,
                                .sk = cfg->sk,
                                .again = cfg->again,
                                .arg = cfg->arg};
    *out = NULL;
    if (cfg->redis == NULL && cfg->n_full == 0)
        return 0;
    struct mirroring *m = calloc(1, sizeof(*m));
    if (m == NULL)
        return ERR_NOMEM;
    m->loop = mirror.loop;
    m->pulled = cfg->pulled;
    m->arg = cfg->arg;
    m->task.fn = on_task;
    m->mirror = mirror_new(&mirror);
    seckey_wipe(&mirror.sk);
    int rc = m->mirror == NULL ? ERR_NOMEM : cfg->redis != NULL ? open_redis(m, cfg) : 0;
    if (rc < 0) {
        mirroring_close(m);
        return rc;
    }
    m->has_full = cfg->n_full > 0;
    if (m->has_full)
        m->full = mirror_add_sink(m->mirror, "dht", write_full, m);
    *out = m;
    return 0;
}

void mirroring_close(struct mirroring *m)
{
    if (m == NULL)
        return;
    mirroring_set_node(m, NULL);
    loop_task_cancel(m->loop, &m->task);
    kv_close(m->kv);
    mirror_kv_free(m->redis);
    mirror_free(m->mirror);
    free(m);
}

struct mirror *mirroring_mirror(struct mirroring *m)
{
    return m != NULL ? m->mirror : NULL;
}

/* ---- /metrics ---- */

static void line(FILE *out, const char *prefix, const char *name, const char *type, uint64_t v)
{
    fprintf(out, "# TYPE %s_mirror_%s %s\n%s_mirror_%s %llu\n", prefix, name, type, prefix, name,
            (unsigned long long)v);
}

static void sink_lines(FILE *out, const char *prefix, const char *name,
                       const struct mirror_stat *st, size_t offset)
{
    fprintf(out, "# TYPE %s_mirror_%s counter\n", prefix, name);
    for (size_t i = 0; i < st->n_sinks; i++)
        fprintf(out, "%s_mirror_%s{to=\"%s\"} %llu\n", prefix, name, st->sink[i].name,
                (unsigned long long)*(const uint64_t *)(const void *)((const char *)&st->sink[i] +
                                                                      offset));
}

void mirroring_metrics(struct mirroring *m, FILE *out, const char *prefix)
{
    struct mirror_stat st;
    if (m == NULL)
        return;
    mirror_stat(m->mirror, &st);
    line(out, prefix, "slots", "gauge", st.slots);
    line(out, prefix, "waiting", "gauge", st.waiting);
    line(out, prefix, "waiting_bytes", "gauge", st.bytes_waiting);
    line(out, prefix, "offered_total", "counter", st.offered);
    line(out, prefix, "unchanged_total", "counter", st.unchanged);
    line(out, prefix, "signatures_total", "counter", st.signatures);
    line(out, prefix, "deleted_total", "counter", st.deleted);
    line(out, prefix, "dropped_total", "counter", st.dropped + st.sign_failed);
    line(out, prefix, "too_long_total", "counter", st.too_long);
    line(out, prefix, "uncertified_total", "counter", st.uncertified);
    line(out, prefix, "refused_total", "counter", m->refused);
    line(out, prefix, "pulls_total", "counter", m->pulls);
    line(out, prefix, "pulled_items_total", "counter", m->pulled_items);
    sink_lines(out, prefix, "written_total", &st, offsetof(struct mirror_sink_stat, written));
    sink_lines(out, prefix, "failed_total", &st, offsetof(struct mirror_sink_stat, failed));
}
