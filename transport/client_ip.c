#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "transport/client_int.h"

#define LOOKUPS_MAX 64u
#define SERVERS_MAX 16u

/* ---- ping ---- */

struct ping {
    struct client *client;
    struct list_node node; /* in server->pings, then in client->pongs */
    struct loop_timer timer;
    struct loop_task task;
    client_ping_fn *done;
    void *arg;
    int err;
    uint64_t rtt_ns;
};

static void ping_free(struct ping *p)
{
    loop_timer_cancel(p->client->cfg.loop, &p->timer);
    loop_task_cancel(p->client->cfg.loop, &p->task);
    list_remove(&p->node);
    free(p);
}

static void ping_tell(struct loop_task *t)
{
    struct ping *p = container_of(t, struct ping, task), copy = *p;

    ping_free(p);
    copy.done(copy.arg, copy.err, copy.rtt_ns);
}

static void ping_end(struct ping *p, int err, uint64_t rtt_ns)
{
    struct client *c = p->client;

    loop_timer_cancel(c->cfg.loop, &p->timer);
    list_remove(&p->node);
    list_push_back(&c->pongs, &p->node);
    p->err = err;
    p->rtt_ns = rtt_ns;
    loop_task_post(c->cfg.loop, &p->task);
}

void cserver_pong(struct cserver *s, int err, uint64_t rtt_ns)
{
    struct ping *p;

    while ((p = list_first_as(&s->pings, struct ping, node)) != NULL)
        ping_end(p, err, rtt_ns);
}

static void ping_timeout(struct loop_timer *t)
{
    ping_end(container_of(t, struct ping, timer), ERR_TIMEOUT, 0);
}

int client_ping_server(struct client *c, const struct pubkey *server, unsigned timeout_ms,
                       client_ping_fn *done, void *arg)
{
    struct cserver *s = cserver_get(c, server);

    if (s == NULL || s->state != CSERVER_UP)
        return ERR_NOT_FOUND;
    int rc = session_ping(link_session(s->link), client_now(c));
    if (rc != 0 && rc != ERR_BUSY) /* busy: the answer to the one under way serves too */
        return rc;
    struct ping *p = calloc(1, sizeof *p);
    if (p == NULL)
        return ERR_NOMEM;
    *p = (struct ping){.client = c, .done = done, .arg = arg};
    p->timer.fn = ping_timeout;
    p->task.fn = ping_tell;
    list_push_back(&s->pings, &p->node);
    loop_timer_set(c->cfg.loop, &p->timer, client_now(c) + timeout_ms * NS_PER_MS);
    link_kick(s->link);
    return 0;
}

/* ---- IP look-up (docs/protocol/dmsg.md §6.1) ---- */

enum iplookup_state { IPLOOKUP_NEXT, IPLOOKUP_SIGN, IPLOOKUP_ASK, IPLOOKUP_END };

struct iplookup {
    struct client *client;
    struct list_node node; /* in client->lookups */
    enum iplookup_state state;
    struct loop_task task;
    struct loop_timer timer; /* the caller's time */
    struct pubkey servers[SERVERS_MAX];
    size_t n_servers, next;
    uint16_t port;
    uint8_t obj[OBJECT_ENCODED_MAX];
    size_t obj_n;
    struct hash req_hash;
    struct pk_wait wait;
    struct ask ask;
    int err;
    struct pubkey from; /* the answer, public or not */
    uint8_t ip[16];
    size_t ip_n;
    client_ip_fn *done;
    void *arg;
};

static bool ip4_public(const uint8_t *ip)
{
    return !(ip[0] == 0 || ip[0] == 10 || ip[0] == 127 || ip[0] >= 224 ||
             (ip[0] == 100 && (ip[1] & 0xc0) == 64) || (ip[0] == 169 && ip[1] == 254) ||
             (ip[0] == 172 && (ip[1] & 0xf0) == 16) || (ip[0] == 192 && ip[1] == 168));
}

static bool ip_public(const uint8_t *ip, size_t n)
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

    if (n == 4)
        return ip4_public(ip);
    if (memcmp(ip, mapped, sizeof mapped) == 0)
        return ip4_public(ip + 12);
    return (ip[0] & 0xe0) == 0x20; /* 2000::/3 is what is given out */
}

static void iplookup_free(struct iplookup *l)
{
    struct client *c = l->client;

    loop_timer_cancel(c->cfg.loop, &l->timer);
    loop_task_cancel(c->cfg.loop, &l->task);
    env_pk_cancel(c->cfg.env, &l->wait);
    ask_cancel(&l->ask);
    client_port_give(c, l->port);
    c->n_lookups--;
    list_remove(&l->node);
    free(l);
}

static void iplookup_tell(struct iplookup *l)
{
    client_ip_fn *done = l->done;
    void *arg = l->arg;
    struct pubkey from = l->from;
    uint8_t ip[16];
    size_t n = l->ip_n;
    int err = n > 0 ? 0 : l->err;

    memcpy(ip, l->ip, sizeof ip);
    iplookup_free(l);
    done(arg, err, ip, n, n > 0 ? &from : NULL);
}

static void iplookup_end(struct iplookup *l, int err)
{
    l->state = IPLOOKUP_END;
    l->err = err;
    loop_task_post(l->client->cfg.loop, &l->task);
}

static void iplookup_next(struct iplookup *l, int err)
{
    l->err = err;
    l->state = IPLOOKUP_NEXT;
    loop_task_post(l->client->cfg.loop, &l->task);
}

/* An address that is not public is kept for the case that nobody knows better. */
static void iplookup_answered(struct ask *a, int err)
{
    struct iplookup *l = container_of(a, struct iplookup, ask);

    if (err == 0) {
        endpoint_release(&a->end, true);
        if (a->ip_n != 4 && a->ip_n != 16)
            err = ERR_UNSUPPORTED;
    }
    if (err == 0) {
        memcpy(l->ip, a->ip, a->ip_n);
        l->ip_n = a->ip_n;
        l->from = a->signer;
    }
    if (err == 0 && ip_public(l->ip, l->ip_n))
        iplookup_end(l, 0);
    else
        iplookup_next(l, err);
}

static void iplookup_ask(struct iplookup *l)
{
    struct cserver *s = cserver_get(l->client, &l->ask.signer);
    int rc = l->wait.res.err;

    l->state = IPLOOKUP_ASK;
    if (rc == 0 && (s == NULL || !cserver_usable(s)))
        rc = ERR_DMSG_SESSION_CLOSED;
    if (rc == 0) {
        object_set_sig(l->obj, &l->wait.res.sig);
        object_hash(&l->req_hash, l->obj, l->obj_n);
        l->ask.done = iplookup_answered;
        l->ask.req = l->obj;
        l->ask.req_n = l->obj_n;
        l->ask.req_hash = &l->req_hash;
        rc = ask_start(&l->ask, s, l->client->cfg.attempt_ms);
    }
    if (rc != 0)
        iplookup_next(l, rc);
}

static void iplookup_signed(struct pk_wait *w)
{
    iplookup_ask(container_of(w, struct iplookup, wait));
}

static void iplookup_sign(struct iplookup *l)
{
    struct client *c = l->client;

    if (l->next == l->n_servers) {
        iplookup_tell(l);
        return;
    }
    l->ask.signer = l->servers[l->next++];
    struct object_request req = {
        .timestamp_ns = env_wall_ns(c->cfg.env),
        .src = {c->cfg.self, l->port},
        .dst = {l->ask.signer, 1},
        .ip_info = true,
    };
    l->state = IPLOOKUP_SIGN;
    int rc = object_encode_request(l->obj, sizeof l->obj, &l->obj_n, &req, OBJECT_2026);
    if (rc == 0)
        rc = client_sign(c, &l->wait, l->obj, l->obj_n);
    if (rc == 0)
        iplookup_ask(l);
    else if (rc != ERR_PENDING)
        iplookup_next(l, rc);
}

static void iplookup_run(struct loop_task *t)
{
    struct iplookup *l = container_of(t, struct iplookup, task);

    switch (l->state) {
    case IPLOOKUP_NEXT:
        iplookup_sign(l);
        return;
    case IPLOOKUP_END:
        iplookup_tell(l);
        return;
    case IPLOOKUP_SIGN:
    case IPLOOKUP_ASK:
        return;
    }
}

static void iplookup_timeout(struct loop_timer *t)
{
    iplookup_end(container_of(t, struct iplookup, timer), ERR_TIMEOUT);
}

int client_lookup_ip(struct client *c, unsigned timeout_ms, client_ip_fn *done, void *arg)
{
    return client_lookup_ip_at(c, NULL, timeout_ms, done, arg);
}

int client_lookup_ip_at(struct client *c, const struct pubkey *server, unsigned timeout_ms,
                        client_ip_fn *done, void *arg)
{
    struct cserver *up[SERVERS_MAX], *s = server != NULL ? cserver_get(c, server) : NULL;

    if (server != NULL && (s == NULL || !cserver_usable(s)))
        return ERR_NOT_FOUND;
    struct iplookup *l = c->n_lookups < LOOKUPS_MAX ? calloc(1, sizeof *l) : NULL;

    if (l == NULL)
        return c->n_lookups < LOOKUPS_MAX ? ERR_NOMEM : ERR_LIMIT;
    int rc = client_port_take(c, &l->port);
    if (rc != 0) {
        free(l);
        return rc;
    }
    l->client = c;
    l->done = done;
    l->arg = arg;
    l->err = ERR_NO_ROUTE; /* when there is nobody to ask */
    l->task.fn = iplookup_run;
    l->timer.fn = iplookup_timeout;
    l->wait.done = iplookup_signed;
    up[0] = s;
    l->n_servers = s != NULL ? 1 : client_usable(c, up, SERVERS_MAX);
    for (size_t i = 0; i < l->n_servers; i++)
        l->servers[i] = up[i]->pk;
    list_push_back(&c->lookups, &l->node);
    c->n_lookups++;
    loop_timer_set(c->cfg.loop, &l->timer, client_now(c) + timeout_ms * NS_PER_MS);
    loop_task_post(c->cfg.loop, &l->task);
    return 0;
}

void client_lookups_free(struct client *c)
{
    struct iplookup *l;
    struct ping *p;

    while ((l = list_first_as(&c->lookups, struct iplookup, node)) != NULL)
        iplookup_free(l);
    while ((p = list_first_as(&c->pongs, struct ping, node)) != NULL)
        ping_free(p);
}
