/*
 * kadmsg - the public library: the parts of a node (node.h) on the caller's base, behind opaque
 * structs.
 *
 * Every callback goes through enter_callback(): after kadmsg_free() from inside one nothing is
 * called any more, and the instance is taken apart in a turn of its own.
 */
#include "node/kadmsg.h"

#include <assert.h>
#include <event2/event.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/addr.h"
#include "base/err.h"
#include "base/log.h"
#include "base/version.h"
#include "node/keyfile.h"
#include "node/node_int.h"

#define DIAL_MS        20000
#define LOOKUP_RELAYS  ENTRY_MAX_DELEGATED
#define PK_THREADS_MAX 64
#define SESSIONS_MAX   64
#define LOG_WHY        128

_Static_assert(sizeof(struct kadmsg_pk) == sizeof(struct pubkey), "copied as they are");
_Static_assert(sizeof(struct kadmsg_sk) == sizeof(struct seckey), "copied as they are");
_Static_assert(sizeof(struct kadmsg_sig) == sizeof(struct sig), "copied as they are");

#define SAME_CODE(ours, err)                                                                       \
    _Static_assert((int)(ours) == (int)(err), "codes of kadmsg.h are those of base/err.h")
SAME_CODE(KADMSG_FORMAT, ERR_FORMAT);
SAME_CODE(KADMSG_TOO_LONG, ERR_TOO_LONG);
SAME_CODE(KADMSG_BAD_KEY, ERR_KEY);
SAME_CODE(KADMSG_BAD_SIGNATURE, ERR_SIG);
SAME_CODE(KADMSG_BUSY, ERR_BUSY);
SAME_CODE(KADMSG_LIMIT, ERR_LIMIT);
SAME_CODE(KADMSG_NO_MEMORY, ERR_NOMEM);
SAME_CODE(KADMSG_CLOSED, ERR_CLOSED);
SAME_CODE(KADMSG_RESET, ERR_RESET);
SAME_CODE(KADMSG_TIMEOUT, ERR_TIMEOUT);
SAME_CODE(KADMSG_NOT_FOUND, ERR_NOT_FOUND);
SAME_CODE(KADMSG_REFUSED, ERR_REFUSED);
SAME_CODE(KADMSG_BAD_STATE, ERR_STATE);
SAME_CODE(KADMSG_OLD_SEQ, ERR_SEQ);
SAME_CODE(KADMSG_NO_ROUTE, ERR_NO_ROUTE);
SAME_CODE(KADMSG_USAGE, ERR_USAGE);
SAME_CODE(KADMSG_OTHER_NETWORK, ERR_NETWORK);
SAME_CODE(KADMSG_NO_LISTENER, ERR_DMSG_NO_LISTENER);

struct kadmsg {
    struct event_base *base;
    struct event *free_event; /* kadmsg_free() from inside a callback */
    struct node *node;        /* NULL: not started */
    struct node_cfg cfg;
    struct addr_peer *bootstrap;
    char *store_dir, *network;
    struct kadmsg_pk pk;
    char why[NODE_WHY];
    struct list operations, streams, listeners;
    uint64_t last_op;
    unsigned depth; /* callbacks of the user's that are running */
    bool failed, stopping, dying;
    kadmsg_state_fn *on_state;
    void *state_arg;
    unsigned state_told;
    kadmsg_done_fn *stopped;
    void *stopped_arg;
};

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

struct kadmsg_stream {
    struct list_node node;
    struct kadmsg *k;
    struct stream *st;
    struct kadmsg_pk remote;
    struct kadmsg_stream_callbacks cb;
    void *arg;
};

struct listener {
    struct list_node node;
    struct kadmsg *k;
    uint16_t port;
    kadmsg_accept_fn *fn;
    void *arg;
};

static struct pubkey pk_of(const struct kadmsg_pk *pk)
{
    struct pubkey out;
    memcpy(&out, pk, sizeof(out));
    return out;
}

static void pk_set(struct kadmsg_pk *out, const struct pubkey *pk)
{
    memcpy(out, pk, sizeof(*out));
}

/* ---- errors, log ---- */

const char *kadmsg_error_text(int err)
{
    return err_str(err);
}

const char *kadmsg_version(void)
{
    return version_str();
}

static atomic_bool log_chosen;

int kadmsg_log(const char *levels)
{
    char why[LOG_WHY];
    atomic_store(&log_chosen, true);
    return log_set_levels(levels, why, sizeof(why));
}

static void log_default(void)
{
    char why[LOG_WHY];
    if (!atomic_exchange(&log_chosen, true))
        (void)!log_set_levels("off", why, sizeof(why));
}

/* ---- keys ---- */

int kadmsg_key_new(struct kadmsg_sk *sk, struct kadmsg_pk *pk)
{
    struct seckey s;
    struct pubkey p;
    int rc = crypto_init();
    if (rc < 0)
        return rc;
    keyfile_fresh(&s, &p);
    memcpy(sk, &s, sizeof(*sk));
    pk_set(pk, &p);
    seckey_wipe(&s);
    return 0;
}

int kadmsg_pk_parse(struct kadmsg_pk *pk, const char *text)
{
    struct pubkey p;
    int rc = crypto_init();
    if (rc == 0)
        rc = pubkey_from_hex(&p, text, strlen(text));
    if (rc == 0)
        pk_set(pk, &p);
    return rc;
}

int kadmsg_sk_parse(struct kadmsg_sk *sk, const char *text)
{
    struct seckey s;
    int rc = crypto_init();
    if (rc == 0)
        rc = seckey_from_hex(&s, text, strlen(text));
    if (rc == 0)
        memcpy(sk, &s, sizeof(*sk));
    seckey_wipe(&s);
    return rc;
}

int kadmsg_sk_public(struct kadmsg_pk *pk, const struct kadmsg_sk *sk)
{
    struct seckey s;
    struct pubkey p;
    int rc = crypto_init();
    memcpy(&s, sk, sizeof(s));
    if (rc == 0)
        rc = seckey_pubkey(&p, &s);
    if (rc == 0)
        pk_set(pk, &p);
    seckey_wipe(&s);
    return rc;
}

char *kadmsg_pk_text(char out[KADMSG_KEY_TEXT], const struct kadmsg_pk *pk)
{
    struct pubkey p = pk_of(pk);
    return pubkey_hex(out, &p);
}

void kadmsg_sk_wipe(struct kadmsg_sk *sk)
{
    sodium_memzero(sk, sizeof(*sk));
}

int kadmsg_sign(struct kadmsg_sig *sig, const struct kadmsg_sk *sk, const void *msg, size_t size)
{
    struct seckey s;
    struct sig made;
    int rc = crypto_init();
    memcpy(&s, sk, sizeof(s));
    if (rc == 0)
        rc = crypto_sign_msg(&made, &s, msg, size);
    if (rc == 0)
        memcpy(sig, &made, sizeof(*sig));
    seckey_wipe(&s);
    return rc;
}

int kadmsg_verify(const struct kadmsg_pk *pk, const struct kadmsg_sig *sig, const void *msg,
                  size_t size)
{
    struct pubkey p = pk_of(pk);
    struct sig s;
    int rc = crypto_init();
    memcpy(&s, sig, sizeof(s));
    return rc < 0 ? rc : crypto_verify(&p, &s, msg, size);
}

/* ---- callbacks and calls ---- */

static bool enter_callback(struct kadmsg *k)
{
    if (k->dying)
        return false;
    k->depth++;
    return true;
}

static void leave_callback(struct kadmsg *k)
{
    k->depth--;
}

/* The user calls from any of its own callbacks: the loop's clock may be old. */
static int begin_call(struct kadmsg *k)
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
    log_default();
    k->base = base;
    k->cfg = (struct node_cfg){.base = base, .pk_inline = true, .publish = true};
    list_init(&k->operations);
    list_init(&k->streams);
    list_init(&k->listeners);
    keyfile_fresh(&k->cfg.sk, &k->cfg.pk);
    pk_set(&k->pk, &k->cfg.pk);
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

static void stream_free_one(struct kadmsg_stream *s)
{
    list_remove(&s->node);
    free(s);
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
        stream_free_one(s);
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
    k->cfg.pk = pk_of(&pk);
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
    if (k->on_state == NULL || state == k->state_told || !enter_callback(k))
        return;
    k->state_told = state;
    k->on_state(k->state_arg, state);
    leave_callback(k);
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
    if (done == NULL || !enter_callback(k))
        return;
    done(k->stopped_arg);
    leave_callback(k);
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
    int rc = begin_call(k);
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
    pk_set(&v.key, &it->k);
    op->got(op->arg, 0, &v);
}

/* What a watch saw. Its user may end it in the callback. */
static void changed_value(struct operation *op, const struct kad_report *r)
{
    struct kadmsg *k = op->k;
    struct operation now = *op;
    if (!enter_callback(k))
        return;
    got(&now, r);
    leave_callback(k);
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
        if (enter_callback(k)) {
            if (now.got != NULL)
                got(&now, r);
            else
                stored(&now, r);
            leave_callback(k);
        }
        return true;
    }
    return false;
}

int kadmsg_get(struct kadmsg *k, const struct kadmsg_pk *pk, const void *salt, size_t salt_size,
               unsigned flags, kadmsg_get_fn *fn, void *arg, uint64_t *number)
{
    struct pubkey p = pk_of(pk);
    int rc = begin_call(k);
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
    struct pubkey p = pk_of(pk);
    int rc = begin_call(k);
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
    int rc = begin_call(k);
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
    if (begin_call(k) < 0)
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
    pk_set(&e.key, &a->entry->static_pk);
    e.text = a->entry->text;
    e.text_size = a->entry->text_len;
    if (a->entry->has_client)
        for (; e.n_relays < a->entry->client.n_delegated && e.n_relays < LOOKUP_RELAYS;
             e.n_relays++)
            pk_set(&relays[e.n_relays], &a->entry->client.delegated[e.n_relays]);
    if (a->entry->has_server)
        e.address = entry_server_address(a->entry);
    op->entry(op->arg, 0, &e);
}

static void on_entry(void *arg, const struct resolve_answer *a)
{
    struct operation *op = arg, now = *op;
    operation_free(op);
    if (enter_callback(now.k)) {
        tell_entry(&now, a);
        leave_callback(now.k);
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
    int rc = begin_call(k);
    if (rc < 0)
        return rc;
    struct operation *op = operation_new(k, arg);
    if (op == NULL)
        return ERR_NOMEM;
    op->entry = fn;
    op->pk = pk_of(pk);
    op->flags = flags;
    op->begin.fn = ask_entry;
    loop_task_post(k->node->loop, &op->begin);
    if (number != NULL)
        *number = op->number;
    return 0;
}

/* ---- streams ---- */

static void tell(struct kadmsg_stream *s, void (*fn)(struct kadmsg_stream *s, void *arg))
{
    struct kadmsg *k = s->k;
    if (fn == NULL || !enter_callback(k))
        return;
    fn(s, s->arg);
    leave_callback(k);
}

static void on_opened(struct stream *st, void *arg)
{
    struct kadmsg_stream *s = arg;
    (void)st;
    tell(s, s->cb.opened);
}

static void on_readable(struct stream *st, void *arg)
{
    struct kadmsg_stream *s = arg;
    (void)st;
    tell(s, s->cb.readable);
}

static void on_writable(struct stream *st, void *arg)
{
    struct kadmsg_stream *s = arg;
    (void)st;
    tell(s, s->cb.writable);
}

static void on_ended(struct stream *st, void *arg, int err)
{
    struct kadmsg_stream *s = arg;
    struct kadmsg *k = s->k;
    (void)st;
    if (s->cb.ended == NULL || !enter_callback(k))
        return;
    s->cb.ended(s, s->arg, err);
    leave_callback(k);
}

static const struct stream_cb stream_cb = {on_opened, on_readable, on_writable, on_ended};

static struct kadmsg_stream *stream_new_one(struct kadmsg *k)
{
    struct kadmsg_stream *s = calloc(1, sizeof(*s));
    if (s == NULL)
        return NULL;
    s->k = k;
    list_push_back(&k->streams, &s->node);
    return s;
}

int kadmsg_dial(struct kadmsg *k, const struct kadmsg_pk *pk, uint16_t port, unsigned timeout_ms,
                const struct kadmsg_stream_callbacks *cb, void *arg, struct kadmsg_stream **out)
{
    struct pubkey p = pk_of(pk);
    int rc = begin_call(k);
    if (rc == 0 && port == 0)
        rc = ERR_USAGE;
    if (rc < 0)
        return rc;
    struct kadmsg_stream *s = stream_new_one(k);
    if (s == NULL)
        return ERR_NOMEM;
    s->remote = *pk;
    kadmsg_stream_set_callbacks(s, cb, arg);
    rc = client_dial(k->node->client, &p, port, timeout_ms != 0 ? timeout_ms : DIAL_MS, 0,
                     &stream_cb, s, &s->st);
    if (rc < 0) {
        stream_free_one(s);
        return rc;
    }
    *out = s;
    return 0;
}

char *kadmsg_stream_steps(const struct kadmsg_stream *st, char *out, size_t cap)
{
    size_t n = 0;
    const struct client_step *steps = stream_dial_steps(st->st, &n);
    client_steps_text(steps, n, out, cap);
    return out;
}

static void on_accept(void *arg, struct stream *st)
{
    struct listener *l = arg;
    struct kadmsg *k = l->k;
    struct kadmsg_stream *s = k->dying ? NULL : stream_new_one(k);
    if (s == NULL) {
        stream_abort(st);
        return;
    }
    s->st = st;
    pk_set(&s->remote, stream_remote(st));
    stream_set_cb(st, &stream_cb, s);
    (void)enter_callback(k);
    l->fn(l->arg, s);
    leave_callback(k);
}

int kadmsg_listen(struct kadmsg *k, uint16_t port, kadmsg_accept_fn *fn, void *arg)
{
    int rc = begin_call(k);
    struct listener *l = rc == 0 ? calloc(1, sizeof(*l)) : NULL;
    if (l == NULL)
        return rc < 0 ? rc : ERR_NOMEM;
    *l = (struct listener){.k = k, .fn = fn, .arg = arg};
    rc = client_listen(k->node->client, port, on_accept, l);
    if (rc < 0) {
        free(l);
        return rc;
    }
    l->port = (uint16_t)rc;
    list_push_back(&k->listeners, &l->node);
    return rc;
}

void kadmsg_unlisten(struct kadmsg *k, uint16_t port)
{
    struct list_node *pos, *tmp;
    if (begin_call(k) < 0)
        return;
    list_for_each(pos, tmp, &k->listeners)
    {
        struct listener *l = container_of(pos, struct listener, node);
        if (l->port != port)
            continue;
        client_unlisten(k->node->client, port);
        list_remove(&l->node);
        free(l);
        return;
    }
}

void kadmsg_stream_set_callbacks(struct kadmsg_stream *st, const struct kadmsg_stream_callbacks *cb,
                                 void *arg)
{
    st->cb = *cb;
    st->arg = arg;
}

size_t kadmsg_stream_read(struct kadmsg_stream *st, void *out, size_t size)
{
    return begin_call(st->k) < 0 ? 0 : stream_read(st->st, out, size);
}

bool kadmsg_stream_eof(const struct kadmsg_stream *st)
{
    return stream_eof(st->st);
}

long kadmsg_stream_write(struct kadmsg_stream *st, const void *p, size_t size)
{
    int rc = begin_call(st->k);
    return rc < 0 ? rc : stream_write(st->st, p, size);
}

int kadmsg_stream_shutdown(struct kadmsg_stream *st)
{
    int rc = begin_call(st->k);
    return rc < 0 ? rc : stream_shutdown(st->st);
}

const struct kadmsg_pk *kadmsg_stream_remote(const struct kadmsg_stream *st)
{
    return &st->remote;
}

uint16_t kadmsg_stream_remote_port(const struct kadmsg_stream *st)
{
    return stream_remote_port(st->st);
}

uint16_t kadmsg_stream_local_port(const struct kadmsg_stream *st)
{
    return stream_local_port(st->st);
}

void kadmsg_stream_close(struct kadmsg_stream *st)
{
    (void)begin_call(st->k);
    stream_close(st->st);
    stream_free_one(st);
}

void kadmsg_stream_abort(struct kadmsg_stream *st)
{
    (void)begin_call(st->k);
    stream_abort(st->st);
    stream_free_one(st);
}
