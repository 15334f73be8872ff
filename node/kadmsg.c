/*
 * kadmsg - the public library: the parts of a node (node.h) on the caller's base, behind opaque
 * structs.
 *
 * kadmsg_free() from inside a callback: the instance is taken apart in a turn of its own.
 */
#include "node/kadmsg.h"

#include <assert.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/addr.h"
#include "base/err.h"
#include "base/log.h"
#include "node/kadmsg_int.h"
#include "node/keyfile.h"

#define LOOKUP_RELAYS  ENTRY_MAX_DELEGATED
#define PK_THREADS_MAX 64
#define SESSIONS_MAX   64

struct operation {
    struct list_node node;
    struct kadmsg *k;
    uint64_t number;
    uint32_t kad;    /* of the engine; 0: an entry is asked for */
    uint64_t handle; /* of that question, 0 = not yet asked */
    struct pubkey pk;
    unsigned flags;
    struct loop_task begin;
    kadmsg_get_fn *got;
    kadmsg_put_fn *put;
    kadmsg_entry_fn *entry;
    bool watch; /* goes on; got is called again and again */
    void *arg;
};

/* ---- callbacks and calls ---- */

bool kadmsg_enter_callback(struct kadmsg *k)
{
    if (k->dying)
        return false;
    k->depth++;
    return true;
}

void kadmsg_leave_callback(struct kadmsg *k)
{
    k->depth--;
}

/* The user calls from any of its own callbacks: the loop's clock may be old. */
int kadmsg_begin_call(struct kadmsg *k)
{
    if (k->node == NULL || k->dying)
        return ERR_STATE;
    if (!k->node->loop->in_turn)
        drive_loop_now(k->node->drive);
    return 0;
}

/* ---- life ---- */

static void free_now(struct kadmsg *k);

static void on_free(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    free_now(arg);
}

int kadmsg_new(struct kadmsg **out, struct event_base *base)
{
    int rc = crypto_init();
    struct kadmsg *k = rc == 0 ? calloc(1, sizeof(*k)) : NULL;
    if (k == NULL)
        return ERR_NOMEM;
    kadmsg_log_default();
    k->base = base;
    k->cfg = (struct node_cfg){.base = base, .pk_inline = true, .publish = true};
    list_init(&k->operations);
    list_init(&k->streams);
    list_init(&k->listeners);
    keyfile_fresh(&k->cfg.sk, &k->cfg.pk);
    kadmsg_pk_set(&k->pk, &k->cfg.pk);
    if ((k->free_event = event_new(base, -1, 0, on_free, k)) == NULL) {
        free_now(k);
        return ERR_NOMEM;
    }
    *out = k;
    return 0;
}

static void operation_free(struct operation *op)
{
    if (op->k->node != NULL)
        loop_task_cancel(op->k->node->loop, &op->begin);
    list_remove(&op->node);
    free(op);
}

static void free_now(struct kadmsg *k)
{
    struct operation *op;
    struct kadmsg_stream *s;
    struct listener *l;
    k->dying = true;
    while ((op = list_first_as(&k->operations, struct operation, node)) != NULL) {
        if (op->handle != 0)
            resolve_cancel(k->node->resolve, op->handle);
        operation_free(op);
    }
    node_free(k->node);
    while ((s = list_first_as(&k->streams, struct kadmsg_stream, node)) != NULL)
        kadmsg_stream_free(s);
    while ((l = list_pop_front_as(&k->listeners, struct listener, node)) != NULL)
        free(l);
    if (k->free_event != NULL)
        event_free(k->free_event);
    seckey_wipe(&k->cfg.sk);
    free(k->bootstrap);
    free(k->store_dir);
    free(k->network);
    free(k);
}

void kadmsg_free(struct kadmsg *k)
{
    if (k == NULL)
        return;
    assert(!k->dying);
    k->dying = true;
    if (k->depth > 0)
        event_active(k->free_event, EV_TIMEOUT, 0);
    else
        free_now(k);
}

static bool settled(const struct kadmsg *k)
{
    return k->node != NULL || k->failed || k->dying;
}

int kadmsg_set_key(struct kadmsg *k, const struct kadmsg_sk *sk)
{
    struct kadmsg_pk pk;
    if (settled(k))
        return ERR_STATE;
    int rc = kadmsg_sk_public(&pk, sk);
    if (rc < 0)
        return rc;
    memcpy(&k->cfg.sk, sk, sizeof(k->cfg.sk));
    k->cfg.pk = kadmsg_pk_of(&pk);
    k->pk = pk;
    return 0;
}

static int set_number(struct kadmsg *k, enum kadmsg_setting what, uint64_t value)
{
    switch (what) {
    case KADMSG_SET_FULL:
        k->cfg.full = value == 1;
        return value <= 1 ? 0 : ERR_USAGE;
    case KADMSG_SET_PUBLISH:
        k->cfg.publish = value == 1;
        return value <= 1 ? 0 : ERR_USAGE;
    case KADMSG_SET_SESSIONS:
        k->cfg.sessions = (unsigned)value;
        return value >= 1 && value <= SESSIONS_MAX ? 0 : ERR_USAGE;
    case KADMSG_SET_PK_THREADS:
        k->cfg.pk_threads = (unsigned)value;
        k->cfg.pk_inline = value == 0;
        return value <= PK_THREADS_MAX ? 0 : ERR_USAGE;
    case KADMSG_SET_STORE_BYTES:
        k->cfg.store_bytes = value;
        return value > 0 ? 0 : ERR_USAGE;
    case KADMSG_SET_LOCK:
        k->cfg.lock = value == 1;
        return value <= 1 ? 0 : ERR_USAGE;
    }
    return ERR_USAGE;
}

int kadmsg_set(struct kadmsg *k, enum kadmsg_setting what, uint64_t value)
{
    struct node_cfg before = k->cfg;
    if (settled(k))
        return ERR_STATE;
    int rc = set_number(k, what, value);
    if (rc < 0)
        k->cfg = before;
    seckey_wipe(&before.sk);
    return rc;
}

int kadmsg_add_bootstrap(struct kadmsg *k, const char *peer)
{
    struct addr_peer at;
    const char *why = "";
    if (settled(k))
        return ERR_STATE;
    int rc = addr_peer_parse(&at, peer, strlen(peer), &why);
    if (rc < 0) {
        snprintf(k->why, sizeof(k->why), "bootstrap: %s", why);
        return ERR_FORMAT;
    }
    size_t n = k->cfg.n_bootstrap;
    struct addr_peer *all = reallocarray(k->bootstrap, n + 1, sizeof(*all));
    if (all == NULL)
        return ERR_NOMEM;
    all[n] = at;
    k->cfg.bootstrap = k->bootstrap = all;
    k->cfg.n_bootstrap = n + 1;
    return 0;
}

/* Keep a copy of a text setting, in *kept and *used. */
static int set_text(struct kadmsg *k, char **kept, const char **used, const char *text)
{
    if (settled(k))
        return ERR_STATE;
    char *copy = strdup(text);
    if (copy == NULL)
        return ERR_NOMEM;
    free(*kept);
    *used = *kept = copy;
    return 0;
}

int kadmsg_set_store(struct kadmsg *k, const char *dir)
{
    return set_text(k, &k->store_dir, &k->cfg.store_dir, dir);
}

int kadmsg_set_network(struct kadmsg *k, const char *name)
{
    return set_text(k, &k->network, &k->cfg.network, name);
}

const char *kadmsg_why(const struct kadmsg *k)
{
    return k->why;
}

const struct kadmsg_pk *kadmsg_public_key(const struct kadmsg *k)
{
    return &k->pk;
}

unsigned kadmsg_state(const struct kadmsg *k)
{
    struct client_stat client;
    struct kad_stat kad;
    struct publish_stat publish = {.stored = 0};
    if (k->node == NULL || k->node->host == NULL || k->dying)
        return 0;
    client_stat(k->node->client, &client);
    kad_stat(node_kad(k->node), &kad);
    if (k->node->publish != NULL)
        publish_stat(k->node->publish, &publish);
    return (client.sessions_up > 0 ? KADMSG_CONNECTED : 0u) |
           (kad.routing_peers > 0 ? KADMSG_JOINED : 0u) |
           (publish.stored > 0 && !k->stopping ? KADMSG_FOUND : 0u);
}

static void on_changed(void *arg)
{
    struct kadmsg *k = arg;
    unsigned state = kadmsg_state(k);
    if (k->on_state == NULL || state == k->state_told || !kadmsg_enter_callback(k))
        return;
    k->state_told = state;
    k->on_state(k->state_arg, state);
    kadmsg_leave_callback(k);
}

void kadmsg_on_state(struct kadmsg *k, kadmsg_state_fn *fn, void *arg)
{
    k->on_state = fn;
    k->state_arg = arg;
}

static void on_stopped(void *arg)
{
    struct kadmsg *k = arg;
    kadmsg_done_fn *done = k->stopped;
    k->stopped = NULL;
    if (done == NULL || !kadmsg_enter_callback(k))
        return;
    done(k->stopped_arg);
    kadmsg_leave_callback(k);
}

static bool on_report(void *arg, const struct kad_report *r);

int kadmsg_start(struct kadmsg *k)
{
    if (settled(k))
        return ERR_STATE;
    k->cfg.stopped = on_stopped;
    k->cfg.changed = on_changed;
    k->cfg.report = on_report;
    k->cfg.arg = k;
    int rc = node_new(&k->node, &k->cfg, k->why);
    k->failed = rc < 0;
    seckey_wipe(&k->cfg.sk);
    return rc;
}

int kadmsg_stop(struct kadmsg *k, kadmsg_done_fn *done, void *arg)
{
    int rc = kadmsg_begin_call(k);
    if (rc < 0)
        return rc;
    k->stopping = true;
    k->stopped = done;
    k->stopped_arg = arg;
    node_stop(k->node);
    return 0;
}

/* ---- values ---- */

static struct operation *operation_new(struct kadmsg *k, void *arg)
{
    struct operation *op = calloc(1, sizeof(*op));
    if (op == NULL)
        return NULL;
    op->k = k;
    op->arg = arg;
    op->number = ++k->last_op;
    list_push_back(&k->operations, &op->node);
    return op;
}

static int operation_begun(struct operation *op, uint32_t kad, uint64_t *number)
{
    struct kadmsg *k = op->k;
    if (kad == 0) {
        operation_free(op);
        return ERR_BUSY;
    }
    op->kad = kad;
    if (number != NULL)
        *number = op->number;
    host_kick(k->node->host);
    return 0;
}

static void got(struct operation *op, const struct kad_report *r)
{
    int err = r->err == 0 && r->item == NULL ? ERR_NOT_FOUND : r->err;
    if (err != 0) {
        op->got(op->arg, err, NULL);
        return;
    }
    const struct item *it = &r->item->item;
    struct kadmsg_value v = {
        .salt = it->salt,
        .salt_size = it->salt_len,
        .value = it->v,
        .value_size = it->v_len,
        .seq = it->seq,
        .local = r->source == KAD_SRC_LOCAL,
        .hops = r->hops,
        .asked = r->asked,
    };
    kadmsg_pk_set(&v.key, &it->k);
    op->got(op->arg, 0, &v);
}

/* What a watch saw. Its user may end it in the callback. */
static void changed_value(struct operation *op, const struct kad_report *r)
{
    struct kadmsg *k = op->k;
    struct operation now = *op;
    if (!kadmsg_enter_callback(k))
        return;
    got(&now, r);
    kadmsg_leave_callback(k);
}

static void stored(struct operation *op, const struct kad_report *r)
{
    struct kadmsg_put_result result = {
        .seq = r->item != NULL ? r->item->item.seq : 0, .asked = r->asked, .stored = r->stored};
    if (op->put != NULL)
        op->put(op->arg, node_put_err(op->k->node, r), &result);
}

static bool on_report(void *arg, const struct kad_report *r)
{
    struct kadmsg *k = arg;
    struct list_node *pos, *tmp;
    list_for_each(pos, tmp, &k->operations)
    {
        struct operation *op = container_of(pos, struct operation, node);
        if (op->kad != r->op || (void *)op != r->user)
            continue;
        if (op->watch) {
            changed_value(op, r);
            return true;
        }
        struct operation now = *op;
        operation_free(op);
        if (kadmsg_enter_callback(k)) {
            if (now.got != NULL)
                got(&now, r);
            else
                stored(&now, r);
            kadmsg_leave_callback(k);
        }
        return true;
    }
    return false;
}

int kadmsg_get(struct kadmsg *k, const struct kadmsg_pk *pk, const void *salt, size_t salt_size,
               unsigned flags, kadmsg_get_fn *fn, void *arg, uint64_t *number)
{
    struct pubkey p = kadmsg_pk_of(pk);
    int rc = kadmsg_begin_call(k);
    if (rc == 0 && salt_size > ITEM_MAX_SALT)
        rc = ERR_TOO_LONG;
    if (rc < 0)
        return rc;
    struct operation *op = operation_new(k, arg);
    if (op == NULL)
        return ERR_NOMEM;
    op->got = fn;
    return operation_begun(op,
                           kad_get(node_kad(k->node), &p, salt, salt_size,
                                   flags & KADMSG_NETWORK ? KAD_GET_NETWORK : 0, op,
                                   k->node->loop->now_ns),
                           number);
}

int kadmsg_watch(struct kadmsg *k, const struct kadmsg_pk *pk, const void *salt, size_t salt_size,
                 kadmsg_get_fn *fn, void *arg, uint64_t *number)
{
    struct pubkey p = kadmsg_pk_of(pk);
    int rc = kadmsg_begin_call(k);
    if (rc == 0 && salt_size > ITEM_MAX_SALT)
        rc = ERR_TOO_LONG;
    if (rc < 0)
        return rc;
    struct operation *op = operation_new(k, arg);
    if (op == NULL)
        return ERR_NOMEM;
    op->got = fn;
    op->watch = true;
    return operation_begun(
        op, kad_watch(node_kad(k->node), &p, salt, salt_size, op, k->node->loop->now_ns), number);
}

int kadmsg_put(struct kadmsg *k, const void *salt, size_t salt_size, const void *value,
               size_t value_size, kadmsg_put_fn *fn, void *arg, uint64_t *number)
{
    int rc = kadmsg_begin_call(k);
    if (rc == 0 && (salt_size > ITEM_MAX_SALT || value_size > ITEM_MAX_VALUE))
        rc = ERR_TOO_LONG;
    if (rc < 0)
        return rc;
    struct operation *op = operation_new(k, arg);
    if (op == NULL)
        return ERR_NOMEM;
    op->put = fn;
    return operation_begun(op,
                           kad_put(node_kad(k->node), salt, salt_size, value, value_size, false, 0,
                                   op, k->node->loop->now_ns),
                           number);
}

void kadmsg_cancel(struct kadmsg *k, uint64_t number)
{
    struct list_node *pos, *tmp;
    if (kadmsg_begin_call(k) < 0)
        return;
    list_for_each(pos, tmp, &k->operations)
    {
        struct operation *op = container_of(pos, struct operation, node);
        if (op->number != number)
            continue;
        uint32_t kad = op->kad;
        bool watch = op->watch;
        if (op->handle != 0)
            resolve_cancel(k->node->resolve, op->handle);
        operation_free(op);
        if (watch) {
            kad_unwatch(node_kad(k->node), kad);
            host_kick(k->node->host);
        } else if (kad != 0) {
            kad_cancel(node_kad(k->node), kad);
            host_kick(k->node->host);
        }
        return;
    }
}

/* ---- entries ---- */

static void tell_entry(const struct operation *op, const struct resolve_answer *a)
{
    struct kadmsg_pk relays[LOOKUP_RELAYS];
    struct kadmsg_entry e = {.relays = relays};
    if (a->err != 0) {
        op->entry(op->arg, a->err, NULL);
        return;
    }
    kadmsg_pk_set(&e.key, &a->entry->static_pk);
    e.text = a->entry->text;
    e.text_size = a->entry->text_len;
    if (a->entry->has_client)
        for (; e.n_relays < a->entry->client.n_delegated && e.n_relays < LOOKUP_RELAYS;
             e.n_relays++)
            kadmsg_pk_set(&relays[e.n_relays], &a->entry->client.delegated[e.n_relays]);
    if (a->entry->has_server)
        e.address = entry_server_address(a->entry);
    op->entry(op->arg, 0, &e);
}

static void on_entry(void *arg, const struct resolve_answer *a)
{
    struct operation *op = arg, now = *op;
    operation_free(op);
    if (kadmsg_enter_callback(now.k)) {
        tell_entry(&now, a);
        kadmsg_leave_callback(now.k);
    }
}

/* From the loop, so that an answer known at once does not come from inside kadmsg_entry_get(). */
static void ask_entry(struct loop_task *t)
{
    struct operation *op = container_of(t, struct operation, begin);
    uint64_t handle = resolve_entry(op->k->node->resolve, &op->pk,
                                    op->flags & KADMSG_NETWORK ? RESOLVE_FRESH : 0, on_entry, op);
    if (handle != 0) /* otherwise it was answered, and op is gone */
        op->handle = handle;
}

int kadmsg_entry_get(struct kadmsg *k, const struct kadmsg_pk *pk, unsigned flags,
                     kadmsg_entry_fn *fn, void *arg, uint64_t *number)
{
    int rc = kadmsg_begin_call(k);
    if (rc < 0)
        return rc;
    struct operation *op = operation_new(k, arg);
    if (op == NULL)
        return ERR_NOMEM;
    op->entry = fn;
    op->pk = kadmsg_pk_of(pk);
    op->flags = flags;
    op->begin.fn = ask_entry;
    loop_task_post(k->node->loop, &op->begin);
    if (number != NULL)
        *number = op->number;
    return 0;
}
