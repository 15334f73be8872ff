/*
 * Lists of keys: registered here, in the local DHT store, relays that are known, and what the HTTP discovery lists.
 */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "node/face_int.h"

struct asking {            /* somebody who wants a list */
    struct list_node node; /* in upstream->asking */
    kv_done_fn *fn;
    void *arg;
};

/* ---- merging ---- */

struct keys {
    struct map seen;
    struct kv_str *v;
    size_t n, cap;
    bool visors;
    struct face *f;
};

struct key { /* in keys->seen */
    struct pubkey pk;
    char hex[PUBKEY_HEX + 1];
};

static void add_key(struct keys *k, const struct pubkey *pk)
{
    const struct registered *r = face_find(k->f, pk);
    struct key *key = k->n < FACE_KEYS && (r == NULL || !r->gone) ? calloc(1, sizeof(*key)) : NULL;
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
    if (rec->expires_ns <= env_wall_ns(k->f->cfg.env) ||
        entry_parse(&e, (const char *)rec->item.v, rec->item.v_len) < 0)
        return true;
    if (e->has_client && (!k->visors || strcmp(e->client_type, "visor") == 0))
        add_key(k, &e->static_pk);
    entry_free(e);
    return true;
}

static void add_stored(struct keys *k)
{
    struct store *s = k->f->cfg.store;
    struct store_page page = {
        .salt = (const uint8_t *)FACE_SALT, .salt_len = FACE_SALT_LEN, .limit = FACE_KEYS};
    bool more;
    (void)s->ops->list(s, &page, add_client, k, &more);
}

static void add_all(struct keys *k, const struct upstream *u)
{
    struct face *f = k->f;
    struct list_node *pos, *tmp;
    list_for_each(pos, tmp, &f->order)
    {
        const struct registered *r = container_of(pos, struct registered, node);
        bool is[FACE__LISTS] = {r->server, r->client, r->visor};
        if (is[u->what] && r->until_ns > face_now(f))
            add_key(k, &r->pk);
    }
    if (u->what != FACE_SERVERS)
        add_stored(k);
    else if (f->cfg.servers != NULL)
        f->cfg.servers(f->cfg.arg, add_server, k);
    if (u->known && face_now(f) - u->since_ns < FACE_OLD_NS)
        for (size_t i = 0; i < u->n; i++)
            add_key(k, &u->pk[i]);
}

static void answer(struct upstream *u, kv_done_fn *fn, void *arg)
{
    struct keys k = {.f = u->f, .visors = u->what == FACE_VISORS};
    struct key *key;
    map_init(&k.seen, MAP_KEY(struct key, pk), u->f->cfg.env->hash_key, 0);
    add_all(&k, u);
    struct kv_answer a = {.v = k.v, .n = k.n};
    fn(arg, &a);
    for (struct map_iter it = map_iter(&k.seen); (key = map_next(&it)) != NULL;) {
        map_iter_del(&it);
        free(key);
    }
    map_free(&k.seen);
    free(k.v);
}

static void answer_all(struct upstream *u)
{
    struct list now;
    struct asking *a;
    loop_timer_cancel(u->f->cfg.loop, &u->impatient);
    list_init(&now);
    list_splice(&now, &u->asking);
    while ((a = list_pop_front_as(&now, struct asking, node)) != NULL) {
        answer(u, a->fn, a->arg);
        free(a);
    }
}

/* ---- the HTTP discovery's list ---- */

static void listed_clear(struct face *f)
{
    struct listed *l;
    for (struct map_iter it = map_iter(&f->listed); (l = map_next(&it)) != NULL;) {
        map_iter_del(&it);
        free(l);
    }
}

static void listed_add(struct face *f, const struct entry *e)
{
    struct listed *l = calloc(1, sizeof(*l) + e->text_len);
    if (l == NULL)
        return;
    l->pk = e->static_pk;
    l->n = e->text_len;
    memcpy(l->text, e->text, e->text_len);
    if (map_put(&f->listed, l) < 0)
        free(l);
}

static void take_list(struct upstream *u, const struct disc_answer *a)
{
    size_t n = a->n < FACE_KEYS ? a->n : FACE_KEYS;
    struct pubkey *pk = calloc(n + 1, sizeof(*pk));
    if (pk == NULL)
        return;
    if (u->what == FACE_SERVERS)
        listed_clear(u->f);
    for (size_t i = 0; i < n; i++) {
        pk[i] = u->what == FACE_SERVERS ? a->servers[i]->static_pk : a->keys[i];
        if (u->what == FACE_SERVERS)
            listed_add(u->f, a->servers[i]);
    }
    free(u->pk);
    u->pk = pk;
    u->n = n;
    u->known = true;
    u->since_ns = face_now(u->f);
}

static void on_list(void *arg, const struct disc_answer *a)
{
    struct upstream *u = arg;
    struct face *f = u->f;
    u->handle = 0;
    u->next_ns = face_now(f) + FACE_LIST_NS;
    f->stat.lists++;
    if (a->err == 0) {
        take_list(u, a);
    } else {
        f->stat.lists_failed++;
        log_limited_here(LOG_HTTP, LOG_LEVEL_WARN, "no list of the discovery reason=\"%s\"",
                         a->why);
    }
    answer_all(u);
}

static void on_impatient(struct loop_timer *t)
{
    answer_all(container_of(t, struct upstream, impatient));
}

static enum face_list list_of(struct kv_str set)
{
    if (set.n == strlen("servers") && memcmp(set.p, "servers", set.n) == 0)
        return FACE_SERVERS;
    return set.n == strlen("visorClients") ? FACE_VISORS : FACE_CLIENTS;
}

int face_members(struct kv *kv, struct kv_str set, kv_done_fn *fn, void *arg)
{
    static const enum disc_list names[] = {DISC_ALL_SERVERS, DISC_CLIENTS, DISC_VISOR_CLIENTS};
    struct face *f = face_of(kv);
    struct upstream *u = &f->upstream[list_of(set)];
    if (f->cfg.ask && u->handle == 0 && u->next_ns <= face_now(f))
        u->handle = f->port.list(f->port.arg, names[u->what], on_list, u);
    bool old = u->known && face_now(f) - u->since_ns < FACE_OLD_NS;
    struct asking *a = u->handle != 0 && !old ? calloc(1, sizeof(*a)) : NULL;
    if (a == NULL) {
        answer(u, fn, arg);
        return 0;
    }
    a->fn = fn;
    a->arg = arg;
    list_push_back(&u->asking, &a->node);
    if (!loop_timer_armed(&u->impatient))
        loop_timer_set(f->cfg.loop, &u->impatient, face_now(f) + FACE_WAIT_NS);
    return 0;
}

/* ---- life ---- */

void face_keys_init(struct face *f)
{
    map_init(&f->listed, MAP_KEY(struct listed, pk), f->cfg.env->hash_key, DISC_CLIENT_SERVERS);
    for (unsigned i = 0; i < FACE__LISTS; i++) {
        struct upstream *u = &f->upstream[i];
        u->f = f;
        u->what = (enum face_list)i;
        u->impatient.fn = on_impatient;
        list_init(&u->asking);
    }
}

void face_keys_free(struct face *f)
{
    struct asking *a;
    for (unsigned i = 0; i < FACE__LISTS; i++) {
        struct upstream *u = &f->upstream[i];
        if (u->handle != 0)
            f->port.cancel(f->port.arg, u->handle);
        loop_timer_cancel(f->cfg.loop, &u->impatient);
        while ((a = list_pop_front_as(&u->asking, struct asking, node)) != NULL)
            free(a);
        free(u->pk);
    }
    listed_clear(f);
    map_free(&f->listed);
}
