#include "node/publish.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "kademlia/records/dmsg_server.h"
#include "transport/entry.h"

#define DELEGATED_MAX 64

struct record {
    const char *salt;
    uint32_t op; /* 0 = none under way */
    bool dirty;  /* publish again */
    bool out;    /* a peer may hold it: it has to be withdrawn */
    uint64_t next_ns;
};

struct publish {
    struct publish_cfg cfg;
    struct record entry, server;
    struct pk_wait sign;
    bool signing;
    struct entry *draft; /* being signed */
    uint64_t sequence;
    uint64_t change_ns; /* when to see whether the sessions are still those of the entry */
    struct pubkey delegated[DELEGATED_MAX]; /* of the entry that was put last */
    size_t n_delegated;
    struct loop_timer timer;
    struct disc_reg *reg; /* in the HTTP discovery; NULL = none */
    struct pubkey reg_delegated[DELEGATED_MAX];
    bool withdrawing, reg_withdrawing;
    void (*withdrawn)(void *arg);
    void *withdrawn_arg;
    struct publish_stat stat;
};

static uint64_t now_of(const struct publish *p)
{
    return p->cfg.loop->now_ns;
}

static void arm(struct publish *p)
{
    uint64_t at = p->entry.next_ns;
    if (p->cfg.server_address != NULL && p->server.next_ns < at)
        at = p->server.next_ns;
    if (p->change_ns < at)
        at = p->change_ns;
    loop_timer_set(p->cfg.loop, &p->timer, at);
}

static void schedule(struct publish *p, struct record *r, uint64_t in_ns)
{
    uint64_t at = now_of(p) + in_ns;
    if (at < r->next_ns)
        r->next_ns = at;
    arm(p);
}

static bool put(struct publish *p, struct record *r, const char *value, size_t n)
{
    r->op =
        kad_put(host_kad(p->cfg.host), r->salt, strlen(r->salt), value, n, false, 0, r, now_of(p));
    if (r->op == 0) {
        p->stat.failed++;
        return false;
    }
    r->out = true;
    host_kick(p->cfg.host);
    return true;
}

/* ---- the entry ---- */

static void entry_signed(struct pk_wait *w)
{
    struct publish *p = container_of(w, struct publish, sign);
    struct entry *e = p->draft;
    p->draft = NULL;
    p->signing = false;
    if (w->res.err != 0 || entry_set_signature(e, &w->res.sig) < 0 ||
        !put(p, &p->entry, e->text, e->text_len))
        schedule(p, &p->entry, PUBLISH_RETRY_NS);
    entry_free(e);
    pk_wait_wipe(w);
}

static int entry_build(struct publish *p)
{
    size_t n = client_delegated(p->cfg.client, p->delegated, DELEGATED_MAX);
    p->stat.delegated = p->n_delegated = n;
    if (n == 0 && p->cfg.server_address == NULL)
        return ERR_NO_ROUTE;
    int rc = entry_new_client(&p->draft, &p->cfg.self, p->sequence++, env_wall_ns(p->cfg.env),
                              p->delegated, n, p->cfg.client_type);
    if (rc == 0 && p->cfg.server_address != NULL)
        rc = entry_add_server(p->draft, p->cfg.server_address, p->cfg.max_sessions);
    return rc;
}

static void entry_publish(struct publish *p)
{
    if (p->cfg.http_only) {
        p->stat.delegated = p->n_delegated =
            client_delegated(p->cfg.client, p->delegated, DELEGATED_MAX);
        p->entry.out = p->n_delegated > 0;
        return;
    }
    struct pk_req req = {.op = PK_SIGN, .cls = PK_CLASS_OWN, .sk = p->cfg.sk};
    int rc = entry_build(p);
    if (rc == 0)
        rc = entry_digest(&req.digest, p->draft);
    if (rc < 0) {
        entry_free(p->draft);
        p->draft = NULL;
        p->stat.last_err = rc;
        sodium_memzero(&req, sizeof(req));
        return; /* the next change of sessions comes back here */
    }
    p->signing = true;
    p->sign.done = entry_signed;
    rc = env_pk(p->cfg.env, &p->sign, &req);
    sodium_memzero(&req, sizeof(req));
    if (rc == 0) {
        entry_signed(&p->sign);
    } else if (rc != ERR_PENDING) {
        p->signing = false;
        entry_free(p->draft);
        p->draft = NULL;
        schedule(p, &p->entry, PUBLISH_RETRY_NS);
    }
}

/* ---- a relay's record (docs/protocol/dht.md §4) ---- */

static void server_publish(struct publish *p)
{
    char text[DMSG_SERVER_MAX_TEXT];
    struct dmsg_server_rec rec = {
        .dht_bootstrap = true, .max_sessions = p->cfg.max_sessions, .pk = p->cfg.self};
    size_t n = 0;
    snprintf(rec.address, sizeof(rec.address), "%s", p->cfg.server_address);
    if (dmsg_server_encode(text, sizeof(text), &n, &rec) == 0 && !put(p, &p->server, text, n))
        schedule(p, &p->server, PUBLISH_RETRY_NS);
}

/* ---- when ---- */

static bool busy(const struct publish *p, const struct record *r)
{
    return r->op != 0 || (r == &p->entry && p->signing);
}

static void run(struct publish *p, struct record *r, void (*publish)(struct publish *p))
{
    if (r->next_ns > now_of(p))
        return;
    r->next_ns = now_of(p) + env_jitter_ns(p->cfg.env, PUBLISH_EVERY_NS, 20);
    if (busy(p, r))
        r->dirty = true;
    else
        publish(p);
}

static void withdraw_end(struct publish *p)
{
    if (!p->withdrawing || p->withdrawn == NULL)
        return;
    void (*done)(void *arg) = p->withdrawn;
    p->withdrawn = NULL;
    loop_timer_cancel(p->cfg.loop, &p->timer);
    done(p->withdrawn_arg);
}

static void withdraw_done(struct publish *p)
{
    if (p->entry.op == 0 && p->server.op == 0 && !p->reg_withdrawing)
        withdraw_end(p);
}

static void reg_withdrawn(void *arg)
{
    struct publish *p = arg;
    p->reg_withdrawing = false;
    withdraw_done(p);
}

/* How many of the servers that there are sessions to now (*n) the last entry names. */
static size_t still_published(const struct publish *p, size_t *n)
{
    struct pubkey now[DELEGATED_MAX];
    size_t same = 0;
    *n = client_delegated(p->cfg.client, now, DELEGATED_MAX);
    for (size_t i = 0; i < *n; i++)
        for (size_t k = 0; k < p->n_delegated; k++)
            same += pubkey_equal(&now[i], &p->delegated[k]);
    return same;
}

/* Sessions came and went: does the entry say something else than what is so? */
static void check_change(struct publish *p)
{
    size_t n, same;
    if (p->change_ns > now_of(p))
        return;
    p->change_ns = LOOP_NEVER;
    same = still_published(p, &n);
    if (same != n || same != p->n_delegated || !p->entry.out) {
        p->entry.next_ns = now_of(p);
        if (p->reg != NULL)
            disc_reg_kick(p->reg);
    }
}

/* What the discovery is to say of us. */
static bool reg_fill(void *arg, struct disc_self *out)
{
    struct publish *p = arg;
    size_t n = client_delegated(p->cfg.client, p->reg_delegated, DELEGATED_MAX);
    *out = (struct disc_self){
        .client = n > 0 || p->cfg.server_address != NULL,
        .delegated = p->reg_delegated,
        .n_delegated = n,
        .client_type = p->cfg.client_type,
        .server = p->cfg.server_address != NULL,
        .address = p->cfg.server_address,
        .available_sessions = p->cfg.max_sessions,
    };
    return out->client || out->server;
}

static void on_timer(struct loop_timer *t)
{
    struct publish *p = container_of(t, struct publish, timer);
    if (p->withdrawing) {
        withdraw_end(p);
        return;
    }
    check_change(p);
    run(p, &p->entry, entry_publish);
    if (p->cfg.server_address != NULL && !p->cfg.http_only)
        run(p, &p->server, server_publish);
    arm(p);
}

static bool has_peers(const struct publish *p)
{
    struct kad_stat st;
    kad_stat(host_kad(p->cfg.host), &st);
    return st.routing_peers > 0;
}

bool publish_report(struct publish *p, const struct kad_report *rep)
{
    struct record *r = rep->user;
    if ((r != &p->entry && r != &p->server) || r->op != rep->op || rep->op == 0)
        return false;
    r->op = 0;
    if (r == &p->entry) {
        p->stat.published++;
        p->stat.stored = rep->stored;
        p->stat.last_err = rep->err;
        p->stat.last_ns = now_of(p);
    }
    if (p->withdrawing) {
        withdraw_done(p);
        return true;
    }
    /* Alone it is enough to hold it here; with peers somebody else should have it soon. */
    if (r->dirty || (rep->stored == 0 && has_peers(p)))
        schedule(p, r,
                 r->dirty ? PUBLISH_DEBOUNCE_NS : env_jitter_ns(p->cfg.env, PUBLISH_RETRY_NS, 50));
    r->dirty = false;
    return true;
}

void publish_kick(struct publish *p)
{
    if (p->withdrawing)
        return;
    schedule(p, &p->entry, PUBLISH_DEBOUNCE_NS);
    if (p->cfg.server_address != NULL && p->stat.stored == 0)
        schedule(p, &p->server, PUBLISH_DEBOUNCE_NS);
}

void publish_sessions_changed(struct publish *p)
{
    size_t n, same = still_published(p, &n);
    bool gained = same < n || !p->entry.out;
    uint64_t at = now_of(p) + (gained ? PUBLISH_DEBOUNCE_NS : PUBLISH_LOSS_NS);
    if (p->withdrawing || at >= p->change_ns)
        return;
    p->change_ns = at;
    arm(p);
}

/* The tombstone of a record that was put; nothing of it is repeated. */
static void withdraw(struct publish *p, struct record *r)
{
    r->op = 0; /* what is under way is overtaken by the tombstone's higher number */
    if (r->out)
        (void)put(p, r, "{}", 2);
}

void publish_withdraw(struct publish *p, void (*done)(void *arg), void *arg)
{
    p->withdrawing = true;
    p->withdrawn = done;
    p->withdrawn_arg = arg;
    env_pk_cancel(p->cfg.env, &p->sign);
    p->signing = false;
    entry_free(p->draft);
    p->draft = NULL;
    withdraw(p, &p->entry);
    withdraw(p, &p->server);
    p->reg_withdrawing = p->reg != NULL;
    if (p->reg != NULL)
        disc_reg_withdraw(p->reg, reg_withdrawn, p);
    bool waits = p->entry.op != 0 || p->server.op != 0 || p->reg_withdrawing;
    loop_timer_set(p->cfg.loop, &p->timer, now_of(p) + (waits ? PUBLISH_WITHDRAW_NS : 0));
}

/* ---- life ---- */

static bool open_reg(struct publish *p, const struct disc_port *port)
{
    struct disc_reg_cfg cfg = {
        .env = p->cfg.env,
        .loop = p->cfg.loop,
        .port = *port,
        .self = p->cfg.self,
        .sk = p->cfg.sk,
        .fill = reg_fill,
        .arg = p,
    };
    p->reg = disc_reg_new(&cfg);
    seckey_wipe(&cfg.sk);
    if (p->reg != NULL)
        disc_reg_kick(p->reg);
    return p->reg != NULL;
}

struct publish *publish_new(const struct publish_cfg *cfg)
{
    struct publish *p = calloc(1, sizeof(*p));
    if (p == NULL)
        return NULL;
    p->cfg = *cfg;
    if (cfg->port != NULL && !open_reg(p, cfg->port)) {
        seckey_wipe(&p->cfg.sk);
        free(p);
        return NULL;
    }
    p->entry.salt = "dmsg";
    p->server.salt = "dmsg-server";
    p->timer.fn = on_timer;
    p->entry.next_ns = p->server.next_ns = p->change_ns = LOOP_NEVER;
    schedule(p, &p->entry, PUBLISH_DEBOUNCE_NS);
    if (cfg->server_address != NULL)
        schedule(p, &p->server, PUBLISH_DEBOUNCE_NS);
    return p;
}

void publish_free(struct publish *p)
{
    if (p == NULL)
        return;
    disc_reg_free(p->reg);
    env_pk_cancel(p->cfg.env, &p->sign);
    loop_timer_cancel(p->cfg.loop, &p->timer);
    entry_free(p->draft);
    seckey_wipe(&p->cfg.sk);
    free(p);
}

void publish_stat(const struct publish *p, struct publish_stat *out)
{
    *out = p->stat;
    if (p->reg != NULL)
        disc_reg_stat(p->reg, &out->http);
}
