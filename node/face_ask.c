/*
 * Questions for entries: each key is answered from what is here, or by a look-up that all who ask for the same key share (node/resolve.h).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/hex.h"
#include "base/json.h"
#include "node/face_int.h"

#define SESSIONS_SAID 2048

struct ask {               /* a question for several keys */
    struct list_node node; /* in face->asks */
    struct face *f;
    kv_done_fn *fn;
    void *arg;
    size_t n, left;
    bool starting, peek;
    struct kv_str *v;
    struct one {
        struct ask *ask;
        uint64_t handle;
        struct pubkey pk;
    } one[];
};

static void ask_free(struct ask *a)
{
    for (size_t i = 0; i < a->n; i++) {
        resolve_cancel(a->f->cfg.resolve, a->one[i].handle);
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
    char *copy = malloc(n + 1);
    if (copy == NULL)
        return;
    free((void *)(uintptr_t)v->p);
    memcpy(copy, text, n);
    *v = (struct kv_str){copy, n};
}

/* ---- servers ---- */

struct known { /* is this key a relay's? */
    const struct pubkey *pk;
    char addr[CONN_ADDR_MAX];
};

static void on_known(void *arg, const struct pubkey *pk, const char *addr)
{
    struct known *k = arg;
    if (pubkey_equal(pk, k->pk))
        snprintf(k->addr, sizeof(k->addr), "%s", addr);
}

/* A relay whose entry is not at hand. */
static void describe(struct face *f, struct kv_str *v, const struct pubkey *pk, const char *addr)
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
    json_out_i64(&o, env_wall_ns(f->cfg.env));
    json_out_name(&o, "static");
    json_out_hex(&o, pk->b, PUBKEY_BYTES);
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

static void on_background(void *arg, const struct resolve_answer *r)
{
    (void)arg, (void)r;
}

/* What is said of a server whose entry nobody has, or is not at hand. */
static void hint(struct face *f, struct kv_str *v, const struct pubkey *pk)
{
    const struct listed *l = map_get(&f->listed, pk);
    struct known k = {.pk = pk};
    if (l != NULL) {
        keep(v, l->text, l->n);
        return;
    }
    if (f->cfg.servers != NULL)
        f->cfg.servers(f->cfg.arg, on_known, &k);
    if (k.addr[0] != '\0')
        describe(f, v, pk, k.addr);
}

/* ---- what is registered here, and what was found ---- */

/* Is the found one newer than what is registered here, or was taken back here? */
static bool is_newer(const struct registered *r, const struct entry *found)
{
    struct entry *own;
    if (entry_parse(&own, r->text, r->n) < 0)
        return true;
    bool newer = entry_cmp(found, own) > 0;
    entry_free(own);
    return newer;
}

/* The entry that counts, of what was found (NULL: nothing) and what is here. */
static void choose(struct ask *a, struct one *o, const struct entry *found)
{
    struct face *f = a->f;
    struct kv_str *v = &a->v[o - a->one];
    const struct pubkey *pk = &o->pk;
    struct registered *r = face_find(f, pk);
    if (r != NULL && found != NULL && is_newer(r, found)) {
        f->stat.outdated += !r->gone;
        face_drop(f, r); /* its owner keeps it up elsewhere */
        r = NULL;
    }
    if (r != NULL && r->gone)
        return;
    if (r != NULL) {
        f->stat.own++;
        keep(v, r->text, r->n);
        return;
    }
    /* In a list a relay is one, also when its entry only says where it can be reached. */
    if (found == NULL || (a->peek && !found->has_server))
        hint(f, v, pk);
    if (found == NULL && a->peek && v->p != NULL) /* the next list has it */
        (void)resolve_entry(f->cfg.resolve, pk, RESOLVE_UNCOUNTED, on_background, NULL);
    if (found != NULL && v->p == NULL)
        keep(v, found->text, found->text_len);
}

static void on_entry(void *arg, const struct resolve_answer *r)
{
    struct one *o = arg;
    struct ask *a = o->ask;
    o->handle = 0;
    choose(a, o, r->err == 0 ? r->entry : NULL);
    a->left--;
    ask_over(a);
}

/* What was registered a moment ago needs no look-up. */
static bool is_fresh(const struct face *f, const struct registered *r)
{
    return r != NULL && !r->gone && r->since_ns != 0 && face_now(f) - r->since_ns < FACE_OWN_NS;
}

static struct ask *ask_new(struct face *f, size_t n, kv_done_fn *fn, void *arg)
{
    struct ask *a = calloc(1, sizeof(*a) + n * sizeof(a->one[0]));
    if (a == NULL || (a->v = calloc(n + 1, sizeof(*a->v))) == NULL) {
        free(a);
        return NULL;
    }
    a->f = f;
    a->fn = fn;
    a->arg = arg;
    a->n = a->left = n;
    a->starting = true;
    list_push_back(&f->asks, &a->node);
    return a;
}

static int ask(struct kv *kv, const struct kv_str *keys, size_t n, unsigned flags, kv_done_fn *fn,
               void *arg)
{
    struct face *f = face_of(kv);
    struct ask *a = ask_new(f, n, fn, arg);
    if (a == NULL)
        return ERR_NOMEM;
    a->peek = (flags & RESOLVE_LOCAL_ONLY) != 0;
    for (size_t i = 0; i < n; i++) {
        struct one *o = &a->one[i];
        o->ask = a;
        if (keys[i].n != PUBKEY_HEX ||
            hex_decode(o->pk.b, PUBKEY_BYTES, keys[i].p, keys[i].n) < 0) {
            a->left--;
        } else if (is_fresh(f, face_find(f, &o->pk))) {
            choose(a, o, NULL);
            a->left--;
        } else {
            uint64_t handle = resolve_entry(f->cfg.resolve, &o->pk, flags, on_entry, o);
            if (handle != 0)
                o->handle = handle;
        }
    }
    a->starting = false;
    ask_over(a);
    return 0;
}

int face_get(struct kv *kv, const struct kv_str *keys, size_t n, kv_done_fn *fn, void *arg)
{
    return ask(kv, keys, n, 0, fn, arg);
}

int face_peek(struct kv *kv, const struct kv_str *keys, size_t n, kv_done_fn *fn, void *arg)
{
    return ask(kv, keys, n, RESOLVE_LOCAL_ONLY | RESOLVE_UNCOUNTED, fn, arg);
}

void face_asks_free(struct face *f)
{
    struct ask *a;
    while ((a = list_first_as(&f->asks, struct ask, node)) != NULL)
        ask_free(a);
}
