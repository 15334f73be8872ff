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
#define FLAPS_MAX     16
#define FLAP_MAX_NS   (1800 * NS_PER_S)
#define FLAP_KEEP_NS  (3600 * NS_PER_S)

/* A server that was published, and then not any more: it has to last before it is again. */
struct flap {
    struct pubkey pk;
    unsigned times;
    uint64_t lost_ns;  /* last; 0 = free */
    uint64_t since_ns; /* it is back since then, 0 = it is not */
};

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
    struct flap flaps[FLAPS_MAX];
    struct sig put_sig; /* of the entry that was put last, as far as peers hold it … */
    uint64_t put_ns;    /* … since then; 0 = none do */
    bool probing;       /* a put is made to see whether it comes to the discovery */
    unsigned probes;    /* in vain, since it came last */
    bool retire;        /* we are no relay any more, and a record says that we are */
    struct loop_timer timer;
    struct disc_reg *reg;                       /* in the HTTP discovery; NULL = none */
    struct pubkey reg_delegated[DELEGATED_MAX]; /* what the discovery was to say last */
    size_t n_reg;
    bool withdrawing, reg_withdrawing;
    void (*withdrawn)(void *arg);
    void *withdrawn_arg;
    struct publish_stat stat;
};

static uint64_t now_of(const struct publish *p)
{
    return p->cfg.loop->now_ns;
}

static bool has_server(const struct publish *p)
{
    return p->cfg.server_address != NULL || p->retire;
}

static void arm(struct publish *p)
{
    uint64_t at = p->entry.next_ns;
    if (has_server(p) && p->server.next_ns < at)
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

/* ---- which servers are named ---- */

static bool named(const struct pubkey *list, size_t n, const struct pubkey *pk)
{
    for (size_t i = 0; i < n; i++)
        if (pubkey_equal(&list[i], pk))
            return true;
    return false;
}

static struct flap *flap_of(struct publish *p, const struct pubkey *pk)
{
    for (size_t i = 0; i < FLAPS_MAX; i++)
        if (p->flaps[i].lost_ns != 0 && pubkey_equal(&p->flaps[i].pk, pk))
            return &p->flaps[i];
    return NULL;
}

/* In place of the one that was lost longest ago. */
static void flap_note(struct publish *p, const struct pubkey *pk)
{
    struct flap *f = flap_of(p, pk);
    if (f == NULL) {
        f = &p->flaps[0];
        for (size_t i = 1; i < FLAPS_MAX; i++)
            if (p->flaps[i].lost_ns < f->lost_ns)
                f = &p->flaps[i];
        *f = (struct flap){.pk = *pk};
    }
    f->times = now_of(p) - f->lost_ns < FLAP_KEEP_NS ? f->times + 1 : 1;
    f->lost_ns = now_of(p);
    f->since_ns = 0;
}

/* When it may be named again. */
static uint64_t flap_ends(const struct flap *f)
{
    uint64_t wait = PUBLISH_FLAP_NS << (f->times < 4 ? f->times - 1 : 3);
    return f->since_ns == 0 ? LOOP_NEVER : f->since_ns + (wait < FLAP_MAX_NS ? wait : FLAP_MAX_NS);
}

/* What the entry should say now: the servers with a session, those that flap only when there is no
 * other. */
static size_t servers_now(struct publish *p, struct pubkey out[DELEGATED_MAX])
{
    struct pubkey up[DELEGATED_MAX];
    size_t n_up = client_delegated(p->cfg.client, up, DELEGATED_MAX), n = 0;
    for (size_t i = 0; i < n_up; i++) {
        struct flap *f = flap_of(p, &up[i]);
        if (f == NULL || now_of(p) >= flap_ends(f) || named(p->delegated, p->n_delegated, &up[i]))
            out[n++] = up[i];
    }
    if (n > 0)
        return n;
    memcpy(out, up, n_up * sizeof(up[0]));
    return n_up;
}

/* Who of those that flap is there; looks again when one of them has lasted. */
static void flaps_look(struct publish *p)
{
    struct pubkey up[DELEGATED_MAX];
    size_t n = client_delegated(p->cfg.client, up, DELEGATED_MAX);
    for (size_t i = 0; i < FLAPS_MAX; i++) {
        struct flap *f = &p->flaps[i];
        if (f->lost_ns == 0)
            continue;
        if (!named(up, n, &f->pk))
            f->since_ns = 0;
        else if (f->since_ns == 0)
            f->since_ns = now_of(p);
        if (flap_ends(f) > now_of(p) && flap_ends(f) < p->change_ns)
            p->change_ns = flap_ends(f);
    }
}

/* The entry that is being built names these. Without any there is none, and the last one stays what
 * it was: the same set needs no new entry. */
static void servers_take(struct publish *p, const struct pubkey *list, size_t n)
{
    p->stat.delegated = n;
    if (n == 0)
        return;
    for (size_t i = 0; i < p->n_delegated; i++)
        if (!named(list, n, &p->delegated[i]))
            flap_note(p, &p->delegated[i]);
    memcpy(p->delegated, list, n * sizeof(list[0]));
    p->n_delegated = n;
}

/* ---- the entry ---- */

static void entry_signed(struct pk_wait *w)
{
    struct publish *p = container_of(w, struct publish, sign);
    struct entry *e = p->draft;
    p->draft = NULL;
    p->signing = false;
    p->put_ns = 0;
    p->put_sig = w->res.sig;
    if (w->res.err != 0 || entry_set_signature(e, &w->res.sig) < 0 ||
        !put(p, &p->entry, e->text, e->text_len))
        schedule(p, &p->entry, PUBLISH_RETRY_NS);
    entry_free(e);
    pk_wait_wipe(w);
}

/* A discovery takes what has a higher number than its own entry. */
static void outnumber(struct publish *p)
{
    struct disc_reg_stat st = {0};
    if (p->reg != NULL)
        disc_reg_stat(p->reg, &st);
    if (st.last_ns != 0 && p->sequence <= st.sequence)
        p->sequence = st.sequence + 1;
}

static int entry_build(struct publish *p)
{
    struct pubkey list[DELEGATED_MAX];
    size_t n = servers_now(p, list);
    servers_take(p, list, n);
    if (n == 0 && p->cfg.server_address == NULL)
        return ERR_NO_ROUTE;
    if (p->cfg.http_unseen)
        outnumber(p);
    int rc = entry_new_client(&p->draft, &p->cfg.self, p->sequence++, env_wall_ns(p->cfg.env), list,
                              n, p->cfg.client_type);
    if (rc == 0 && p->cfg.server_address != NULL)
        rc = entry_add_server(p->draft, p->cfg.server_address, p->cfg.max_sessions);
    return rc;
}

/* The first kick of a registration may come before the first session, and the entry that is put is the
 * first to name it: then no later change tells of it. */
static void reg_follow(struct publish *p)
{
    struct pubkey list[DELEGATED_MAX];
    size_t n = servers_now(p, list), same = 0;
    for (size_t i = 0; i < n; i++)
        same += named(p->reg_delegated, p->n_reg, &list[i]);
    if (p->reg != NULL && n > 0 && (n != same || n != p->n_reg))
        disc_reg_kick(p->reg);
}

static void entry_publish(struct publish *p)
{
    reg_follow(p);
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
    int rc = 0;
    if (p->retire) {
        memcpy(text, "{}", n = 2);
    } else {
        snprintf(rec.address, sizeof(rec.address), "%s", p->cfg.server_address);
        rc = dmsg_server_encode(text, sizeof(text), &n, &rec);
    }
    if (rc == 0 && !put(p, &p->server, text, n))
        schedule(p, &p->server, PUBLISH_RETRY_NS);
}

/* ---- when ---- */

static bool busy(const struct publish *p, const struct record *r)
{
    return r->op != 0 || (r == &p->entry && p->signing);
}

/* A discovery forgets sooner than the DHT, where an entry lives for two hours, and relays are looked for soon. */
static uint64_t every_ns(const struct publish *p)
{
    return p->cfg.server_address != NULL || p->reg != NULL ? PUBLISH_OFTEN_NS : PUBLISH_EVERY_NS;
}

static void run(struct publish *p, struct record *r, void (*publish)(struct publish *p))
{
    if (r->next_ns > now_of(p))
        return;
    r->next_ns = now_of(p) + env_jitter_ns(p->cfg.env, every_ns(p), 20);
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

/* How many of the servers that should be named now (*n) the last entry names. */
static size_t still_published(struct publish *p, size_t *n)
{
    struct pubkey now[DELEGATED_MAX];
    size_t same = 0;
    *n = servers_now(p, now);
    for (size_t i = 0; i < *n; i++)
        same += named(p->delegated, p->n_delegated, &now[i]);
    return same;
}

/* Sessions came and went: does the entry say something else than what is so? */
static void check_change(struct publish *p)
{
    size_t n, same;
    if (p->change_ns > now_of(p))
        return;
    p->change_ns = LOOP_NEVER;
    flaps_look(p);
    same = still_published(p, &n);
    if ((same != n || same != p->n_delegated || !p->entry.out) && n > 0) {
        p->entry.next_ns = now_of(p);
        if (p->reg != NULL)
            disc_reg_kick(p->reg);
    }
}

/* What the discovery is to say of us. */
static bool reg_fill(void *arg, struct disc_self *out)
{
    struct publish *p = arg;
    size_t n = p->n_reg = servers_now(p, p->reg_delegated);
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

/* Did the entry of the DHT come to the discovery? */
static enum disc_reg_carried reg_carried(void *arg, const struct entry *stored)
{
    struct publish *p = arg;
    struct disc_reg_stat st;
    disc_reg_stat(p->reg, &st);
    bool hope = st.carried || p->probing;
    if (p->put_ns == 0) /* nobody has it yet, or not any more */
        return busy(p, &p->entry) && hope ? DISC_REG_NOT_YET : DISC_REG_MISSING;
    if (stored != NULL && stored->has_signature &&
        memcmp(stored->signature.b, p->put_sig.b, sizeof(p->put_sig.b)) == 0) {
        p->probing = false;
        p->probes = 0;
        return DISC_REG_CARRIED;
    }
    if (stored != NULL && hope && now_of(p) - p->put_ns < PUBLISH_CARRY_MAX_NS)
        return DISC_REG_NOT_YET;
    p->probing = false;
    return DISC_REG_MISSING;
}

/* Registered: see whether that is needed. */
static void reg_sent(void *arg)
{
    struct publish *p = arg;
    uint64_t wait = PUBLISH_PROBE_NS << (p->probes < 8 ? p->probes : 8);
    if (p->withdrawing)
        return;
    p->probing = true;
    p->probes++;
    schedule(p, &p->entry, wait < PUBLISH_OFTEN_NS ? wait : PUBLISH_OFTEN_NS);
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
    if (has_server(p) && !p->cfg.http_only)
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
        p->put_ns = rep->stored > 0 ? now_of(p) : 0;
        if (p->reg != NULL && p->put_ns != 0)
            disc_reg_look(p->reg, env_jitter_ns(p->cfg.env, PUBLISH_CARRY_NS, 30));
    }
    if (r == &p->server && p->retire && rep->stored > 0) {
        p->retire = r->out = false; /* those that held it know */
        return true;
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
    if (p->retire || (p->cfg.server_address != NULL && p->stat.stored == 0))
        schedule(p, &p->server, PUBLISH_DEBOUNCE_NS);
}

void publish_sessions_changed(struct publish *p)
{
    size_t n, same;
    if (p->withdrawing)
        return;
    flaps_look(p);
    same = still_published(p, &n);
    bool gained = same < n || !p->entry.out;
    uint64_t wait = env_jitter_ns(p->cfg.env, gained ? PUBLISH_DEBOUNCE_NS : PUBLISH_LOSS_NS, 20);
    if (now_of(p) + wait < p->change_ns)
        p->change_ns = now_of(p) + wait;
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
        .carried = p->cfg.http_unseen ? reg_carried : NULL,
        .sent = p->cfg.http_unseen ? reg_sent : NULL,
        .arg = p,
    };
    p->reg = disc_reg_new(&cfg);
    seckey_wipe(&cfg.sk);
    if (p->reg != NULL)
        disc_reg_kick(p->reg);
    return p->reg != NULL;
}

/* A record of an earlier run that was killed says that we are a relay (incident 32). */
static bool says_relay(struct publish *p)
{
    struct store_rec rec;
    bool fresh;
    return kad_local(host_kad(p->cfg.host), &p->cfg.self, p->server.salt, strlen(p->server.salt),
                     &rec, &fresh, now_of(p)) == 0 &&
           !(rec.item.v_len == 2 && memcmp(rec.item.v, "{}", 2) == 0);
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
    p->retire = cfg->server_address == NULL && says_relay(p);
    if (has_server(p))
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
