/* A server's addresses: dialled in order, the next one soon after a silent one; the first that
 * connects gets the handshake, alone, because the server keeps only the newest session of a key. */
#include <assert.h>
#include <string.h>

#include "base/err.h"
#include "transport/client_int.h"

#define FIND_NS    (10 * NS_PER_S)
#define STAGGER_NS (300 * NS_PER_MS)

static void try_next(struct cserver *s, int err);

/* ---- connects ---- */

static void conns_close(struct cserver *s)
{
    for (size_t i = 0; i < s->n_addrs; i++) {
        if (s->addrs[i].conn != NULL)
            conn_close(s->addrs[i].conn);
        s->addrs[i].conn = NULL;
    }
}

static void conn_up(void *arg)
{
    struct cserver_addr *a = arg;
    struct cserver *s = a->server;
    struct conn *conn = a->conn;

    a->conn = NULL;
    a->failed = true; /* until the handshake says otherwise */
    memcpy(s->addr, a->text, sizeof s->addr);
    reach_stop(s);
    int rc = cserver_handshake(s, conn);
    if (rc != 0)
        cserver_dial_failed(s, rc);
}

static void addr_failed(struct cserver_addr *a, int err)
{
    struct cserver *s = a->server;

    if (a->conn != NULL)
        conn_close(a->conn);
    a->conn = NULL;
    a->failed = true;
    memcpy(s->addr, a->text, sizeof s->addr);
    try_next(s, err);
}

static void conn_down(void *arg, int err)
{
    addr_failed(arg, err);
}

/* Before the link is there nothing is read or written. */
static void conn_input(void *arg, struct slice in, uint64_t now_ns)
{
    (void)arg, (void)in, (void)now_ns;
}

static int conn_output(void *arg, struct iovec *iov, int max, uint64_t now_ns)
{
    (void)arg, (void)iov, (void)max, (void)now_ns;
    return 0;
}

static void conn_sent(void *arg, size_t n, uint64_t now_ns)
{
    (void)arg, (void)n, (void)now_ns;
}

static const struct conn_user dial_user = {conn_up, conn_input, conn_output, conn_sent, conn_down};

/* ---- one round ---- */

/* The one that gave the last session, then in their order. */
static struct cserver_addr *next_addr(struct cserver *s)
{
    struct cserver_addr *next = NULL;

    for (size_t i = 0; i < s->n_addrs; i++) {
        struct cserver_addr *a = &s->addrs[i];
        if (!a->failed && a->conn == NULL && (next == NULL || (a->worked && !next->worked)))
            next = a;
    }
    return next;
}

static bool connecting(const struct cserver *s)
{
    for (size_t i = 0; i < s->n_addrs; i++) {
        if (s->addrs[i].conn != NULL)
            return true;
    }
    return false;
}

/* err: of the one that was tried before. */
static void try_next(struct cserver *s, int err)
{
    struct client *c = s->client;
    struct cserver_addr *a;

    while ((a = next_addr(s)) != NULL) {
        int rc = c->cfg.carrier->dial(c->cfg.carrier, a->text, c->cfg.connect_ms, &dial_user, a,
                                      &a->conn);
        memcpy(s->addr, a->text, sizeof s->addr);
        if (rc == 0) {
            loop_timer_set(c->cfg.loop, &s->timer, client_now(c) + STAGGER_NS);
            return;
        }
        a->failed = true;
        err = rc;
    }
    loop_timer_cancel(c->cfg.loop, &s->timer);
    if (!connecting(s))
        cserver_dial_failed(s, err);
}

static void round_start(struct cserver *s)
{
    for (size_t i = 0; i < s->n_addrs; i++)
        s->addrs[i].failed = false;
    loop_timer_cancel(s->client->cfg.loop, &s->timer);
    cserver_state_set(s, CSERVER_DIALLING);
    try_next(s, ERR_NOT_FOUND);
}

void reach_failed(struct cserver *s, int err)
{
    if (s->attached || next_addr(s) == NULL) {
        cserver_dial_failed(s, err);
        return;
    }
    struct link *link = s->link;
    s->link = NULL;
    link_close(link);
    cserver_state_set(s, CSERVER_DIALLING);
    try_next(s, err);
}

void reach_worked(struct cserver *s)
{
    if (s->attached)
        return;
    for (size_t i = 0; i < s->n_addrs; i++)
        s->addrs[i].worked = strcmp(s->addrs[i].text, s->addr) == 0;
}

/* ---- addresses that have to be found ---- */

static void find_address(struct loop_task *t)
{
    struct cserver *s = container_of(t, struct cserver, find_task);

    s->client->cfg.hooks.find_server(s->client->cfg.hooks.arg, &s->pk);
}

/* Its address was not found in time; or, the one that is being dialled is silent. */
static void on_timer(struct loop_timer *t)
{
    struct cserver *s = container_of(t, struct cserver, timer);

    if (s->state == CSERVER_FINDING)
        cserver_dial_failed(s, ERR_TIMEOUT);
    else if (s->state == CSERVER_DIALLING)
        try_next(s, ERR_TIMEOUT);
}

void client_server_found(struct client *c, const struct pubkey *server, int err, const char *addr)
{
    struct cserver *s = cserver_get(c, server);

    if (s == NULL || s->state != CSERVER_FINDING)
        return;
    size_t len = err == 0 ? strnlen(addr, CONN_ADDR_MAX) : 0;
    if (err == 0 && (len == 0 || len == CONN_ADDR_MAX))
        err = ERR_FORMAT;
    if (err != 0) {
        cserver_dial_failed(s, err);
        return;
    }
    if (s->n_addrs == 0) /* it may have been told all of them meanwhile */
        (void)reach_set(s, &addr, 1);
    round_start(s);
}

void reach_start(struct cserver *s)
{
    struct client *c = s->client;

    s->try_ns = client_now(c);
    if (s->n_addrs > 0) {
        round_start(s);
    } else if (c->cfg.hooks.find_server != NULL) {
        cserver_state_set(s, CSERVER_FINDING);
        loop_timer_set(c->cfg.loop, &s->timer, client_now(c) + FIND_NS);
        loop_task_post(c->cfg.loop, &s->find_task);
    } else {
        cserver_dial_failed(s, ERR_NOT_FOUND);
    }
}

void reach_stop(struct cserver *s)
{
    loop_task_cancel(s->client->cfg.loop, &s->find_task);
    loop_timer_cancel(s->client->cfg.loop, &s->timer);
    conns_close(s);
}

/* ---- which there are ---- */

static struct cserver_addr *find_in(struct cserver_addr *list, size_t n, const char *text)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(list[i].text, text) == 0)
            return &list[i];
    }
    return NULL;
}

bool reach_set(struct cserver *s, const char *const *addrs, size_t n)
{
    struct cserver_addr list[CLIENT_ADDRS_MAX], *old;
    size_t have = 0;
    bool changed = false;

    assert(n <= CLIENT_ADDRS_MAX);
    for (size_t i = 0; i < n; i++) {
        if (find_in(list, have, addrs[i]) != NULL)
            continue;
        memset(&list[have], 0, sizeof list[have]);
        memcpy(list[have].text, addrs[i], strlen(addrs[i]) + 1);
        list[have].server = s;
        if ((old = find_in(s->addrs, s->n_addrs, addrs[i])) == NULL) {
            changed = true;
        } else {
            list[have] = *old;
            old->conn = NULL;
        }
        have++;
    }
    conns_close(s); /* of those that are not among them any more */
    memcpy(s->addrs, list, have * sizeof list[0]);
    s->n_addrs = have;
    for (size_t i = 0; i < have; i++) {
        if (s->addrs[i].conn != NULL)
            conn_set_user(s->addrs[i].conn, &dial_user, &s->addrs[i]);
    }
    if (s->state == CSERVER_DOWN)
        memcpy(s->addr, s->addrs[0].text, sizeof s->addr);
    if (s->state == CSERVER_DIALLING && (changed || !connecting(s)))
        try_next(s, ERR_TIMEOUT);
    return changed;
}

void reach_init(struct cserver *s)
{
    s->find_task.fn = find_address;
    s->timer.fn = on_timer;
}
