#include "store/overlay.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

void overlay_init(struct overlay *o, uint64_t seed)
{
    *o = (struct overlay){0};
    tree_init(&o->by_key, seed);
    tree_init(&o->metas, seed + 1);
    tree_init(&o->usages, seed + 2);
    for (unsigned ix = 0; ix < IX__COUNT; ix++)
        tree_init(&o->by_index[ix], seed + 3 + ix);
}

/* ---- pends ---- */

static struct pend *pend_new(struct overlay *o, enum pend_type type, size_t extra)
{
    struct pend *p = calloc(1, sizeof *p + extra);

    if (p == NULL)
        return NULL;
    p->type = type;
    p->size = sizeof *p + extra;
    o->bytes += p->size;
    o->count++;
    return p;
}

/* Copy n bytes to *at and step over them; NULL stays NULL. */
static const uint8_t *place(uint8_t **at, const uint8_t *p, size_t n)
{
    uint8_t *to = *at;

    if (p == NULL)
        return NULL;
    if (n > 0)
        memcpy(to, p, n);
    *at += n;
    return to;
}

struct pend *pend_new_record(struct overlay *o, enum pend_type type, const struct store_rec *rec)
{
    uint8_t keys[IX__COUNT][RECORD_INDEX_KEY_MAX];
    size_t len[IX__COUNT], sum = 0;

    for (unsigned ix = 0; ix < IX__COUNT; ix++)
        sum += len[ix] = record_index_key(keys[ix], (enum record_index)ix, rec);
    struct pend *p = pend_new(o, type, sum + rec->item.salt_len + rec->item.v_len);
    if (p == NULL)
        return NULL;
    uint8_t *at = p->data;
    for (unsigned ix = 0; ix < IX__COUNT; ix++) {
        p->by_index[ix].key_len = (uint32_t)len[ix];
        p->by_index[ix].key = len[ix] > 0 ? place(&at, keys[ix], len[ix]) : NULL;
    }
    p->rec = *rec;
    p->rec.ref = NULL; /* a count belongs to the owner's thread */
    p->rec.item.salt = place(&at, rec->item.salt, rec->item.salt_len);
    p->rec.item.v = place(&at, rec->item.v, rec->item.v_len);
    record_key(p->key, &rec->target, rec->kind);
    p->key_len = RECORD_KEY_BYTES;
    return p;
}

struct pend *pend_new_del(struct overlay *o, const struct kad_id *target, enum item_kind kind)
{
    struct pend *p = pend_new(o, PEND_DEL, 0);

    if (p == NULL)
        return NULL;
    record_key(p->key, target, kind);
    p->key_len = RECORD_KEY_BYTES;
    return p;
}

struct pend *pend_new_meta(struct overlay *o, const struct pubkey *owner, const char *name,
                           const void *p, size_t n)
{
    size_t name_len = strlen(name);
    struct pend *m = pend_new(o, PEND_META, n);

    assert(name_len <= STORE_NAME_MAX);
    if (m == NULL)
        return NULL;
    memcpy(m->key, owner->b, sizeof owner->b);
    memcpy(m->key + sizeof owner->b, name, name_len);
    m->key_len = sizeof owner->b + name_len;
    m->value_len = n;
    if (n > 0)
        memcpy(m->data, p, n);
    return m;
}

void overlay_free_pend(struct overlay *o, struct pend *p)
{
    assert(!p->current && !list_node_is_linked(&p->link));
    overlay_usage_unref(o, p->before);
    overlay_usage_unref(o, p->after);
    o->bytes -= p->size;
    o->count--;
    free(p);
}

/* ---- trees ---- */

static struct tree *key_tree(struct overlay *o, const struct pend *p)
{
    return p->type == PEND_META ? &o->metas : &o->by_key;
}

struct pend *overlay_find(const struct overlay *o, const uint8_t key[RECORD_KEY_BYTES])
{
    struct tree_node *n = tree_find(&o->by_key, key, RECORD_KEY_BYTES);

    return n != NULL ? container_of(n, struct pend, by_key) : NULL;
}

struct pend *overlay_find_meta(const struct overlay *o, const void *key, size_t key_len)
{
    struct tree_node *n = tree_find(&o->metas, key, key_len);

    return n != NULL ? container_of(n, struct pend, by_key) : NULL;
}

bool overlay_hides(const struct overlay *o, const uint8_t ref[RECORD_REF_BYTES])
{
    const size_t prefix = RECORD_REF_BYTES - 1;
    const struct tree_node *n = tree_seek(&o->by_key, ref, prefix);

    while (n != NULL && memcmp(n->key, ref, prefix) == 0) {
        if (n->key[KAD_ID_BYTES] == ref[prefix])
            return true;
        n = tree_next(&o->by_key, n);
    }
    return false;
}

void overlay_link(struct overlay *o, struct pend *p)
{
    tree_insert(key_tree(o, p), &p->by_key, p->key, p->key_len);
    for (unsigned ix = 0; ix < IX__COUNT; ix++) {
        struct tree_node *n = &p->by_index[ix];
        if (n->key != NULL)
            tree_insert(&o->by_index[ix], n, n->key, n->key_len);
    }
    p->current = true;
}

void overlay_unlink(struct overlay *o, struct pend *p)
{
    tree_remove(key_tree(o, p), &p->by_key);
    for (unsigned ix = 0; ix < IX__COUNT; ix++) {
        if (p->by_index[ix].key != NULL)
            tree_remove(&o->by_index[ix], &p->by_index[ix]);
    }
    p->current = false;
}

/* ---- counters ---- */

struct usage *overlay_usage(const struct overlay *o, const struct pubkey *charged)
{
    struct tree_node *n = tree_find(&o->usages, charged->b, sizeof charged->b);

    return n != NULL ? container_of(n, struct usage, node) : NULL;
}

struct usage *overlay_usage_ref(struct overlay *o, const struct pubkey *charged, uint64_t slots,
                                uint64_t bytes)
{
    struct usage *u = overlay_usage(o, charged);

    if (u == NULL) {
        u = calloc(1, sizeof *u);
        if (u == NULL)
            return NULL;
        *u = (struct usage){.charged = *charged, .slots = slots, .bytes = bytes};
        tree_insert(&o->usages, &u->node, u->charged.b, sizeof u->charged.b);
    }
    u->refs++;
    return u;
}

void overlay_usage_unref(struct overlay *o, struct usage *u)
{
    if (u == NULL || --u->refs > 0)
        return;
    tree_remove(&o->usages, &u->node);
    free(u);
}
