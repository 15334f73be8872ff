#include "node/face.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/hex.h"
#include "base/log.h"
#include "node/face_int.h"

#define TICK_NS NS_PER_S

struct forward {
    struct list_node node; /* in face->forwards */
    struct face *f;
    uint64_t handle;
    bool withdraw;
    struct pubkey pk;
};

/* ---- what was registered here ---- */

void face_drop(struct face *f, struct registered *r)
{
    face_changed(f, &r->pk);
    (void)map_del(&f->entries, &r->pk);
    list_remove(&r->node);
    f->stat.entries -= !r->gone;
    f->stat.waiting -= r->forward_ns != LOOP_NEVER;
    free(r);
}

struct registered *face_find(struct face *f, const struct pubkey *pk)
{
    struct registered *r = map_get(&f->entries, pk);
    return r != NULL && r->until_ns > face_now(f) ? r : NULL;
}

int face_put(struct face *f, const struct pubkey *pk, const char *text, size_t n, uint64_t until_ns,
             struct registered **out)
{
    struct registered *old = map_get(&f->entries, pk);
    struct registered *r = calloc(1, sizeof(*r) + n);
    if (r == NULL)
        return ERR_NOMEM;
    if (old != NULL)
        face_drop(f, old);
    r->pk = *pk;
    r->n = n;
    memcpy(r->text, text, n);
    r->since_ns = face_now(f);
    r->until_ns = until_ns;
    r->carry_ns = r->forward_ns = LOOP_NEVER;
    if (map_put(&f->entries, r) < 0) {
        free(r);
        return ERR_NO_SPACE;
    }
    list_push_back(&f->order, &r->node);
    f->stat.entries++;
    face_changed(f, pk);
    *out = r;
    return 0;
}

/* ---- into the DHT ---- */

static void carry(struct face *f, struct registered *r)
{
    struct kad_id target = kad_target(&r->pk, FACE_SALT, FACE_SALT_LEN);
    struct item it = {.seq = (uint64_t)env_wall_ns(f->cfg.env),
                      .v = (const uint8_t *)r->text,
                      .v_len = r->n,
                      .salt = (const uint8_t *)FACE_SALT,
                      .salt_len = FACE_SALT_LEN};
    r->carry_ns = face_now(f) + env_jitter_ns(f->cfg.env, FACE_CARRY_NS, 20);
    if (f->cfg.host == NULL || item_sign(&it, &f->cfg.carrier) < 0)
        return;
    if (kad_put_signed(host_kad(f->cfg.host), &it, &target, f, face_now(f)) == 0)
        f->stat.carry_failed++;
    else
        f->stat.carried++;
    host_kick(f->cfg.host);
}

/* ---- to the HTTP discovery ---- */

static void forward_free(struct forward *w)
{
    list_remove(&w->node);
    w->f->n_forwards--;
    free(w);
}

static void forward_later(struct face *f, struct registered *r, uint64_t at_ns)
{
    f->stat.waiting -= r->forward_ns != LOOP_NEVER;
    f->stat.waiting += at_ns != LOOP_NEVER;
    r->forward_ns = at_ns;
}

static void on_forwarded(void *arg, const struct disc_answer *a)
{
    struct forward *w = arg;
    struct face *f = w->f;
    struct registered *r = face_find(f, &w->pk);
    /* What the discovery has an opinion about is not sent again. */
    bool again = a->err != 0 && a->text == DISC_UNEXPECTED;
    f->stat.forwarded += a->err == 0;
    f->stat.forward_failed += a->err != 0;
    if (a->err != 0)
        log_limited_here(LOG_HTTP, LOG_LEVEL_WARN, "entry not forwarded reason=\"%s\"", a->why);
    if (again && !w->withdraw && r != NULL && !r->gone && r->forward_ns == LOOP_NEVER)
        forward_later(f, r, face_now(f) + env_jitter_ns(f->cfg.env, FACE_RETRY_NS, 50));
    forward_free(w);
}

static bool forward(struct face *f, bool withdraw, const struct pubkey *pk, const char *text,
                    size_t n)
{
    struct forward *w = f->n_forwards < FACE_FORWARDS ? calloc(1, sizeof(*w)) : NULL;
    if (w == NULL)
        return false;
    w->f = f;
    w->withdraw = withdraw;
    w->pk = *pk;
    list_push_back(&f->forwards, &w->node);
    f->n_forwards++;
    w->handle = f->port.send(f->port.arg, withdraw, text, n, on_forwarded, w);
    if (w->handle != 0)
        return true;
    forward_free(w);
    return false;
}

/* ---- as time goes by ---- */

static void on_tick(struct loop_timer *t)
{
    struct face *f = container_of(t, struct face, tick);
    struct list_node *pos, *tmp;
    list_for_each(pos, tmp, &f->order)
    {
        struct registered *r = container_of(pos, struct registered, node);
        if (r->until_ns <= face_now(f)) {
            face_drop(f, r);
            continue;
        }
        if (r->carry_ns <= face_now(f))
            carry(f, r);
        if (r->forward_ns <= face_now(f) && forward(f, false, &r->pk, r->text, r->n))
            forward_later(f, r, LOOP_NEVER);
    }
    loop_timer_set(f->cfg.loop, t, face_now(f) + TICK_NS);
}

static void on_save(struct loop_timer *t)
{
    face_save(container_of(t, struct face, save));
}

/* ---- hooks of the discovery ---- */

void face_stored(void *face, const struct entry *e, const char *text, size_t n)
{
    struct face *f = face;
    struct registered *r = face_find(f, &e->static_pk);
    f->stat.registered++;
    if (r == NULL)
        return;
    r->client = e->has_client;
    r->server = e->has_server;
    r->visor = strcmp(e->client_type, "visor") == 0;
    carry(f, r);
    if (f->cfg.forward && !forward(f, false, &r->pk, text, n))
        forward_later(f, r, face_now(f)); /* the next tick */
    if (e->has_server && f->cfg.learn != NULL)
        f->cfg.learn(f->cfg.arg, &e->static_pk, e->server.address);
    resolve_distrust(f->cfg.resolve, &e->static_pk); /* what is cached is older */
}

void face_taken_back(void *face, const struct entry *e)
{
    struct face *f = face;
    resolve_distrust(f->cfg.resolve, &e->static_pk);
    if (f->cfg.forward)
        (void)forward(f, true, &e->static_pk, e->text, e->text_len);
}

/* ---- the store ---- */

/* It is remembered for as long as what was carried may be found. */
static void take_back(struct face *f, struct registered *r)
{
    if (r->gone)
        return;
    r->gone = true;
    r->until_ns = face_now(f) + FACE_GONE_NS;
    r->carry_ns = LOOP_NEVER;
    forward_later(f, r, LOOP_NEVER);
    f->stat.entries--;
    face_changed(f, &r->pk);
}

static int write_op(struct face *f, const struct kv_op *op)
{
    struct pubkey pk;
    struct registered *r;
    if (op->key.n != PUBKEY_HEX || hex_decode(pk.b, PUBKEY_BYTES, op->key.p, op->key.n) < 0)
        return 0; /* a set: those are what they are */
    uint64_t life = op->ttl_ms != 0 ? op->ttl_ms * NS_PER_MS : FACE_ENTRY_NS;
    if (op->cmd == KV_SET)
        return face_put(f, &pk, op->value.p, op->value.n, face_now(f) + life, &r);
    if (op->cmd == KV_DEL && (r = face_find(f, &pk)) != NULL)
        take_back(f, r);
    return 0;
}

static int op_write(struct kv *kv, const struct kv_op *op, size_t n, kv_done_fn *fn, void *arg)
{
    struct kv_answer a = {0};
    for (size_t i = 0; i < n && a.err == 0; i++)
        a.err = write_op(face_of(kv), &op[i]);
    fn(arg, &a);
    return 0;
}

/* The discovery asks neither when its store is a view (disc_service_cfg.peek). */
static int op_ttl(struct kv *kv, const struct kv_str *keys, size_t n, kv_done_fn *fn, void *arg)
{
    (void)kv, (void)keys, (void)n, (void)fn, (void)arg;
    return ERR_UNSUPPORTED;
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
    (void)kv; /* face_free() */
}

static const struct kv_ops ops = {"node",       op_write, face_get, op_hget,
                                  face_members, op_ttl,   op_stat,  op_close};

struct kv *face_kv(struct face *f)
{
    return &f->kv;
}

/* ---- life ---- */

int face_new(struct face **out, const struct face_cfg *cfg)
{
    struct face *f = calloc(1, sizeof(*f));
    *out = f;
    if (f == NULL)
        return ERR_NOMEM;
    f->kv.ops = &ops;
    f->cfg = *cfg;
    if (cfg->port != NULL)
        f->port = *cfg->port;
    f->cfg.ask = cfg->ask && cfg->port != NULL;
    f->cfg.forward = cfg->forward && cfg->port != NULL;
    list_init(&f->order);
    list_init(&f->asks);
    list_init(&f->forwards);
    map_init(&f->entries, MAP_KEY(struct registered, pk), cfg->env->hash_key, FACE_ENTRIES);
    face_keys_init(f);
    f->tick.fn = on_tick;
    f->save.fn = on_save;
    face_load(f);
    loop_timer_set(cfg->loop, &f->tick, face_now(f) + TICK_NS);
    return 0;
}

void face_free(struct face *f)
{
    struct registered *r;
    struct forward *w;
    if (f == NULL)
        return;
    face_asks_free(f);
    face_keys_free(f);
    while ((w = list_first_as(&f->forwards, struct forward, node)) != NULL) {
        f->port.cancel(f->port.arg, w->handle);
        forward_free(w);
    }
    face_save(f);
    while ((r = list_first_as(&f->order, struct registered, node)) != NULL)
        face_drop(f, r);
    loop_timer_cancel(f->cfg.loop, &f->tick);
    loop_timer_cancel(f->cfg.loop, &f->save);
    map_free(&f->entries);
    seckey_wipe(&f->cfg.carrier);
    free(f);
}

void face_stat(const struct face *f, struct face_stat *out)
{
    *out = f->stat;
}
