/*
 * facade - the dmsg discovery's API on a node: an unmodified Go program that is pointed at it becomes DHT-first.
 *
 * The discovery itself (compat-http/disc_service.h: endpoints, checks, texts) runs on a "store" that is the node:
 *     one entry      what was registered here, else the node's look-up: cache, local store, DHT, and the discovery of --discovery beside it
 *     servers        the relays that the node knows; one whose entry is not at hand is described by its key and address, without a signature: clients take
 *                    servers as hints, and nothing of that is published anywhere
 *     clients        what was registered here, and the entries of the local DHT store
 *     a registration kept here, carried into the DHT as an item that certifies itself (design: foreign-signed, under the subject's own target), carried again every
 *                    CARRY_NS while it lives, and forwarded to the discovery
 *
 * Nobody but its owner can sign a tombstone: what is taken back is forgotten here and at the discovery, and no longer renewed in the DHT, where it ends within 10 minutes.
 *
 * Limits: REGISTERED entries (then 500); those of servers live 2 min, of clients REGISTERED_NS.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/map.h"
#include "compat-http/disc_service.h"
#include "node/keyfile.h"
#include "node/node_int.h"

#define REGISTERED    4096
#define REGISTERED_NS (86400 * NS_PER_S)
#define CARRY_NS      (240 * NS_PER_S)
#define LISTED        65536
#define SESSIONS_SAID 2048

static const char salt[] = "dmsg";

struct registered {
    struct list_node node; /* in facade->order */
    struct pubkey pk;
    uint64_t until_ns, carry_ns;
    bool client, server, visor;
    size_t n;
    char text[];
};

struct facade {
    struct kv kv;
    struct node *node;
    struct seckey carrier;
    struct disc_service *disc;
    struct service *service;
    struct map entries;
    struct list order, asks;
    struct loop_timer carry;
    struct facade_stat stat;
};

static struct facade *self_of(const struct kv *kv)
{
    return container_of((struct kv *)(uintptr_t)kv, struct facade, kv);
}

static uint64_t now_of(const struct facade *f)
{
    return f->node->loop->now_ns;
}

/* ---- what was registered here ---- */

static void registered_drop(struct facade *f, struct registered *r)
{
    (void)map_del(&f->entries, &r->pk);
    list_remove(&r->node);
    free(r);
}

static struct registered *registered_find(struct facade *f, struct kv_str key)
{
    struct pubkey pk;
    struct registered *r =
        pubkey_from_hex(&pk, key.p, key.n) == 0 ? map_get(&f->entries, &pk) : NULL;
    if (r != NULL && r->until_ns <= now_of(f)) {
        registered_drop(f, r);
        return NULL;
    }
    return r;
}

static int registered_put(struct facade *f, struct kv_str key, struct kv_str text, uint64_t ttl_ms)
{
    struct registered *old = registered_find(f, key);
    struct registered *r = calloc(1, sizeof(*r) + text.n);
    if (r == NULL)
        return ERR_NOMEM;
    if (old != NULL)
        registered_drop(f, old);
    memcpy(r->text, text.p, text.n);
    r->n = text.n;
    r->until_ns = now_of(f) + (ttl_ms != 0 ? ttl_ms * NS_PER_MS : REGISTERED_NS);
    if (pubkey_from_hex(&r->pk, key.p, key.n) < 0 || map_put(&f->entries, r) < 0) {
        free(r);
        return ERR_NO_SPACE;
    }
    list_push_back(&f->order, &r->node);
    return 0;
}

/* ---- into the DHT and to the discovery ---- */

static void carry(struct facade *f, struct registered *r)
{
    struct kad_id target = kad_target(&r->pk, salt, sizeof(salt) - 1);
    struct item it = {.seq = (uint64_t)env_wall_ns(f->node->env),
                      .v = (const uint8_t *)r->text,
                      .v_len = r->n,
                      .salt = (const uint8_t *)salt,
                      .salt_len = sizeof(salt) - 1};
    r->carry_ns = now_of(f) + env_jitter_ns(f->node->env, CARRY_NS, 20);
    if (!f->node->policy.publish_dht || item_sign(&it, &f->carrier) < 0)
        return;
    if (kad_put_signed(node_kad(f->node), &it, &target, f, now_of(f)) == 0)
        f->stat.carry_failed++;
    else
        f->stat.carried++;
    host_kick(f->node->host);
}

static void on_carry(struct loop_timer *t)
{
    struct facade *f = container_of(t, struct facade, carry);
    struct list_node *pos, *tmp;
    list_for_each(pos, tmp, &f->order)
    {
        struct registered *r = container_of(pos, struct registered, node);
        if (r->until_ns <= now_of(f))
            registered_drop(f, r);
        else if (r->carry_ns <= now_of(f))
            carry(f, r);
    }
    loop_timer_set(f->node->loop, t, now_of(f) + NS_PER_S);
}

static void on_forwarded(void *arg, const struct disc_answer *a)
{
    struct facade *f = arg;
    f->stat.forwarded += a->err == 0;
    f->stat.forward_failed += a->err != 0;
    if (a->err != 0)
        log_limited_here(LOG_HTTP, LOG_LEVEL_WARN, "entry not forwarded reason=\"%s\"", a->why);
}

static void forward(struct facade *f, bool withdraw, const char *text, size_t n)
{
    const struct disc_port *port = &f->node->disc;
    if (f->node->policy.registers != NODE_REGISTERS_NEVER && f->node->discovery != NULL)
        (void)port->send(port->arg, withdraw, text, n, on_forwarded, f);
}

static void on_stored(void *arg, const struct entry *e, const char *text, size_t n)
{
    struct facade *f = arg;
    char hex[PUBKEY_HEX + 1];
    pubkey_hex(hex, &e->static_pk);
    struct registered *r = registered_find(f, (struct kv_str){hex, PUBKEY_HEX});
    f->stat.registered++;
    if (r != NULL) {
        r->client = e->has_client;
        r->server = e->has_server;
        r->visor = strcmp(e->client_type, "visor") == 0;
        carry(f, r);
    }
    if (e->has_server)
        servers_learn(f->node, &e->static_pk, e->server.address);
    resolve_distrust(f->node->resolve, &e->static_pk); /* what is cached is older */
    forward(f, false, text, n);
}

static void on_taken_back(void *arg, const struct entry *e)
{
    forward(arg, true, e->text, e->text_len);
}

/* ---- the store that is the node ---- */

struct ask {               /* a question for several keys */
    struct list_node node; /* in facade->asks */
    struct facade *f;
    kv_done_fn *fn;
    void *arg;
    size_t n, left;
    bool starting;
    struct kv_str *v;
    struct one {
        struct ask *ask;
        uint64_t handle;
        size_t i;
    } one[];
};

static void ask_free(struct ask *a)
{
    for (size_t i = 0; i < a->n; i++) {
        resolve_cancel(a->f->node->resolve, a->one[i].handle);
        free((void *)(uintptr_t)a->v[i].p);
    }
    list_remove(&a->node);
    free(a->v);
    free(a);
}

static void ask_over(struct ask *a)
{
    struct kv_answer answer = {.v = a->v, .n = a->n};
    if (a->left > 0 || a->starting)
        return;
    a->fn(a->arg, &answer);
    ask_free(a);
}

static void keep(struct kv_str *v, const char *text, size_t n)
{
    char *copy = malloc(n);
    if (copy == NULL || n == 0) {
        free(copy);
        return;
    }
    memcpy(copy, text, n);
    v->p = copy;
    v->n = n;
}

static void on_entry(void *arg, const struct resolve_answer *r)
{
    struct one *o = arg;
    o->handle = 0;
    if (r->err == 0)
        keep(&o->ask->v[o->i], r->entry->text, r->entry->text_len);
    o->ask->left--;
    ask_over(o->ask);
}

struct known { /* is this key a relay's? */
    const char *hex;
    char addr[CONN_ADDR_MAX];
};

static void on_known(void *arg, const struct pubkey *pk, const char *addr)
{
    struct known *k = arg;
    char hex[PUBKEY_HEX + 1];
    if (memcmp(pubkey_hex(hex, pk), k->hex, PUBKEY_HEX) == 0)
        snprintf(k->addr, sizeof(k->addr), "%s", addr);
}

/* A relay whose entry is not at hand. */
static void describe(struct facade *f, struct kv_str *v, const char *hex, const char *addr)
{
    char buf[512];
    struct json_out o;
    json_out_fixed(&o, JSON_FAST, buf, sizeof(buf));
    json_out_object(&o);
    json_out_name(&o, "version");
    json_out_str(&o, ENTRY_VERSION);
    json_out_name(&o, "sequence");
    json_out_u64(&o, 0);
    json_out_name(&o, "timestamp");
    json_out_i64(&o, env_wall_ns(f->node->env));
    json_out_name(&o, "static");
    json_out_string(&o, hex, PUBKEY_HEX);
    json_out_name(&o, "server");
    json_out_object(&o);
    json_out_name(&o, "address");
    json_out_str(&o, addr);
    json_out_name(&o, "availableSessions");
    json_out_u64(&o, SESSIONS_SAID);
    json_out_object_end(&o);
    json_out_object_end(&o);
    if (o.err == 0)
        keep(v, o.p, o.len);
}

static void on_local(void *arg, const struct resolve_answer *r)
{
    struct kv_str *v = arg;
    if (r->err == 0 && r->entry->has_server)
        keep(v, r->entry->text, r->entry->text_len);
}

/* What is known without asking anybody: true when that is enough. */
static bool answer_here(struct facade *f, struct kv_str key, struct kv_str *v)
{
    struct registered *r = registered_find(f, key);
    struct known k = {.hex = key.p};
    struct pubkey pk;
    if (r != NULL) {
        f->stat.own++;
        keep(v, r->text, r->n);
        return true;
    }
    servers_each(f->node, on_known, &k);
    if (k.addr[0] == '\0' || pubkey_from_hex(&pk, key.p, key.n) < 0)
        return false;
    (void)resolve_entry(f->node->resolve, &pk, RESOLVE_LOCAL_ONLY | RESOLVE_UNCOUNTED, on_local, v);
    if (v->p == NULL)
        describe(f, v, key.p, k.addr);
    return true;
}

static int op_get(struct kv *kv, const struct kv_str *keys, size_t n, kv_done_fn *fn, void *arg)
{
    struct facade *f = self_of(kv);
    struct ask *a = calloc(1, sizeof(*a) + n * sizeof(a->one[0]));
    if (a == NULL || (a->v = calloc(n + 1, sizeof(*a->v))) == NULL) {
        free(a);
        return ERR_NOMEM;
    }
    *a = (struct ask){.f = f, .fn = fn, .arg = arg, .n = n, .left = n, .starting = true, .v = a->v};
    list_push_back(&f->asks, &a->node);
    for (size_t i = 0; i < n; i++) {
        struct pubkey pk;
        a->one[i] = (struct one){.ask = a, .i = i};
        if (keys[i].n != PUBKEY_HEX || answer_here(f, keys[i], &a->v[i]) ||
            pubkey_from_hex(&pk, keys[i].p, keys[i].n) < 0) {
            a->left--;
            continue;
        }
        uint64_t handle = resolve_entry(f->node->resolve, &pk, 0, on_entry, &a->one[i]);
        if (handle != 0)
            a->one[i].handle = handle;
    }
    a->starting = false;
    ask_over(a);
    return 0;
}

static int op_write(struct kv *kv, const struct kv_op *op, size_t n, kv_done_fn *fn, void *arg)
{
    struct facade *f = self_of(kv);
    struct kv_answer a = {0};
    for (size_t i = 0; i < n && a.err == 0; i++) {
        struct registered *r = registered_find(f, op[i].key);
        if (op[i].cmd == KV_SET)
            a.err = registered_put(f, op[i].key, op[i].value, op[i].ttl_ms);
        else if (op[i].cmd == KV_DEL && r != NULL)
            registered_drop(f, r);
    }
    fn(arg, &a);
    return 0;
}

struct keys {
    struct map seen;
    struct kv_str *v;
    size_t n, cap;
    bool visors;
    struct facade *f;
};

struct key { /* in keys->seen */
    struct pubkey pk;
    char hex[PUBKEY_HEX + 1];
};

static void add_key(struct keys *k, const struct pubkey *pk)
{
    struct key *key = k->n < LISTED ? calloc(1, sizeof(*key)) : NULL;
    if (key == NULL)
        return;
    key->pk = *pk;
    pubkey_hex(key->hex, pk);
    if (k->n == k->cap) {
        size_t cap = k->cap != 0 ? 2 * k->cap : 64;
        struct kv_str *more = realloc(k->v, cap * sizeof(*more));
        if (more == NULL) {
            free(key);
            return;
        }
        k->v = more;
        k->cap = cap;
    }
    if (map_put(&k->seen, key) < 0) {
        free(key);
        return;
    }
    k->v[k->n++] = (struct kv_str){key->hex, PUBKEY_HEX};
}

static void add_server(void *arg, const struct pubkey *pk, const char *addr)
{
    (void)addr;
    add_key(arg, pk);
}

static bool add_client(void *arg, const struct store_rec *rec)
{
    struct keys *k = arg;
    struct entry *e;
    if (rec->expires_ns <= env_wall_ns(k->f->node->env) ||
        entry_parse(&e, (const char *)rec->item.v, rec->item.v_len) < 0)
        return true;
    if (e->has_client && (!k->visors || strcmp(e->client_type, "visor") == 0))
        add_key(k, &e->static_pk);
    entry_free(e);
    return true;
}

static void add_clients(struct keys *k)
{
    struct store *s = k->f->node->store;
    struct store_page page = {
        .salt = (const uint8_t *)salt, .salt_len = sizeof(salt) - 1, .limit = LISTED};
    bool more;
    (void)s->ops->list(s, &page, add_client, k, &more);
}

static int op_members(struct kv *kv, struct kv_str set, kv_done_fn *fn, void *arg)
{
    struct facade *f = self_of(kv);
    struct list_node *pos, *tmp;
    struct keys k = {.f = f, .visors = set.n == strlen("visorClients")};
    struct key *key;
    bool servers = set.n == strlen("servers") && memcmp(set.p, "servers", set.n) == 0;
    map_init(&k.seen, MAP_KEY(struct key, pk), f->node->env->hash_key, 0);
    list_for_each(pos, tmp, &f->order)
    {
        struct registered *r = container_of(pos, struct registered, node);
        if (r->until_ns > now_of(f) && (servers ? r->server : k.visors ? r->visor : r->client))
            add_key(&k, &r->pk);
    }
    if (servers)
        servers_each(f->node, add_server, &k);
    else
        add_clients(&k);
    struct kv_answer a = {.v = k.v, .n = k.n};
    fn(arg, &a);
    for (struct map_iter it = map_iter(&k.seen); (key = map_next(&it)) != NULL;) {
        map_iter_del(&it);
        free(key);
    }
    map_free(&k.seen);
    free(k.v);
    return 0;
}

/* Nothing here is the sweep's business. */
static int op_ttl(struct kv *kv, const struct kv_str *keys, size_t n, kv_done_fn *fn, void *arg)
{
    int64_t *ttl = calloc(n + 1, sizeof(*ttl));
    struct kv_answer a = {.ttl_ms = ttl, .n = n};
    (void)kv, (void)keys;
    if (ttl == NULL)
        return ERR_NOMEM;
    for (size_t i = 0; i < n; i++)
        ttl[i] = -1;
    fn(arg, &a);
    free(ttl);
    return 0;
}

static int op_hget(struct kv *kv, struct kv_str key, const struct kv_str *fields, size_t n,
                   kv_done_fn *fn, void *arg)
{
    (void)kv, (void)key, (void)fields, (void)n, (void)fn, (void)arg;
    return ERR_UNSUPPORTED;
}

static void op_stat(const struct kv *kv, struct kv_stat *out)
{
    (void)kv;
    *out = (struct kv_stat){.ready = true};
}

static void op_close(struct kv *kv)
{
    (void)kv;
}

static const struct kv_ops ops = {"node",     op_write, op_get,  op_hget,
                                  op_members, op_ttl,   op_stat, op_close};

/* ---- life ---- */

static int read_carrier(struct facade *f, char why[NODE_WHY])
{
    struct pubkey pk;
    f->carrier = f->node->cfg.sk;
    if (f->node->cfg.publish_sk_file == NULL)
        return 0;
    int rc = keyfile_read(&f->carrier, &pk, f->node->cfg.publish_sk_file);
    if (rc < 0)
        snprintf(why, NODE_WHY, "key file %s: %s", f->node->cfg.publish_sk_file, err_str(rc));
    return rc;
}

static int serve(struct facade *f)
{
    struct node *n = f->node;
    struct disc_service_cfg disc = {
        .env = n->env,
        .loop = n->loop,
        .kv = &f->kv,
        .generation = DISC_2023, /* entries stay as they were signed */
        .test_mode = true,       /* who asks is on this machine, or in this network */
        .stored = on_stored,
        .taken_back = on_taken_back,
        .arg = f,
    };
    int rc = disc_service_new(&f->disc, &disc);
    struct service_cfg cfg = {
        .drive = n->drive,
        .env = n->env,
        .routes = disc_service_routes,
        .n_routes = disc_service_n_routes,
        .app = f->disc,
        .dropped = disc_service_dropped,
        .check_host = true,
    };
    if (rc == 0)
        rc = service_new(&f->service, &cfg);
    return rc == 0 ? service_listen(f->service, n->cfg.http) : rc;
}

static int facade_open(struct node *n, char why[NODE_WHY])
{
    struct facade *f;
    if (n->cfg.http == NULL)
        return 0;
    if ((f = calloc(1, sizeof(*f))) == NULL)
        return ERR_NOMEM;
    n->facade = f;
    f->kv.ops = &ops;
    f->node = n;
    list_init(&f->order);
    list_init(&f->asks);
    map_init(&f->entries, MAP_KEY(struct registered, pk), n->env->hash_key, REGISTERED);
    f->carry.fn = on_carry;
    loop_timer_set(n->loop, &f->carry, now_of(f) + NS_PER_S);
    int rc = read_carrier(f, why);
    if (rc == 0 && (rc = serve(f)) < 0)
        snprintf(why, NODE_WHY, "http %s: %s", n->cfg.http, err_str(rc));
    if (rc == 0)
        log_info(LOG_HTTP, "discovery API on this node addr=%s", service_addr(f->service, 0));
    return rc;
}

static void facade_close(struct node *n)
{
    struct facade *f = n->facade;
    struct registered *r;
    struct ask *a;
    if (f == NULL)
        return;
    n->facade = NULL;
    service_free(f->service);
    while ((a = list_first_as(&f->asks, struct ask, node)) != NULL)
        ask_free(a);
    disc_service_free(f->disc);
    loop_timer_cancel(n->loop, &f->carry);
    while ((r = list_first_as(&f->order, struct registered, node)) != NULL)
        registered_drop(f, r);
    map_free(&f->entries);
    seckey_wipe(&f->carrier);
    free(f);
}

const char *node_http_addr(const struct node *n)
{
    return n->facade != NULL ? service_addr(n->facade->service, 0) : NULL;
}

void facade_stat(const struct node *n, struct facade_stat *out)
{
    *out = n->facade != NULL ? n->facade->stat : (struct facade_stat){0};
}

const struct node_part node_part_facade = {.open = facade_open, .close = facade_close};
