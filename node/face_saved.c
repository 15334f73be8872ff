/*
 * Registrations in the node's store, as values "facade.0" … "facade.f" by the last digit of their key: each a row of
 *     be64 wall clock ms when it ends | u8 gone | be32 n | n bytes of text
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cursor.h"
#include "base/err.h"
#include "node/face_int.h"

#define ROW_HEAD 13
#define SOON_NS  (30 * NS_PER_S) /* what was restored is carried again within */

static unsigned bucket_of(const struct pubkey *pk)
{
    return pk->b[PUBKEY_BYTES - 1] % FACE_BUCKETS;
}

static void name_of(char out[16], unsigned bucket)
{
    snprintf(out, 16, "facade.%x", bucket);
}

void face_changed(struct face *f, const struct pubkey *pk)
{
    f->dirty[bucket_of(pk)] = true;
    if (!loop_timer_armed(&f->save))
        loop_timer_set(f->cfg.loop, &f->save, face_now(f) + FACE_SAVE_NS);
}

/* One that does not fit any more is left out. */
static void write_row(struct face *f, struct wr *w, const struct registered *r)
{
    uint64_t now = face_now(f), wall_ms = (uint64_t)env_wall_ns(f->cfg.env) / NS_PER_MS;
    if (r->until_ns <= now)
        return;
    if (w->cap - wr_len(w) < ROW_HEAD + r->n) {
        f->stat.not_saved++;
        return;
    }
    wr_be64(w, wall_ms + (r->until_ns - now) / NS_PER_MS);
    wr_u8(w, r->gone);
    wr_be32(w, (uint32_t)r->n);
    wr_bytes(w, r->text, r->n);
}

static void save_bucket(struct face *f, unsigned bucket)
{
    struct store *s = f->cfg.store;
    struct list_node *pos, *tmp;
    char name[16];
    size_t size = 0;
    list_for_each(pos, tmp, &f->order)
    {
        const struct registered *r = container_of(pos, struct registered, node);
        if (bucket_of(&r->pk) == bucket)
            size += ROW_HEAD + r->n;
    }
    size = size < STORE_META_MAX ? size : STORE_META_MAX;
    uint8_t *p = malloc(size + 1);
    if (p == NULL) {
        f->stat.not_saved++;
        return;
    }
    struct wr w = wr_init(p, size);
    list_for_each(pos, tmp, &f->order)
    {
        const struct registered *r = container_of(pos, struct registered, node);
        if (bucket_of(&r->pk) == bucket)
            write_row(f, &w, r);
    }
    name_of(name, bucket);
    f->stat.not_saved += s->ops->meta_put(s, name, p, wr_len(&w)) < 0;
    free(p);
}

void face_save(struct face *f)
{
    for (unsigned i = 0; i < FACE_BUCKETS; i++) {
        if (f->dirty[i])
            save_bucket(f, i);
        f->dirty[i] = false;
    }
}

static void restore(struct face *f, uint64_t ends_ms, bool gone, const char *text, size_t n)
{
    uint64_t wall_ms = (uint64_t)env_wall_ns(f->cfg.env) / NS_PER_MS;
    struct registered *r;
    struct entry *e;
    uint64_t left_ms = ends_ms > wall_ms ? ends_ms - wall_ms : 0;
    if (left_ms > FACE_ENTRY_NS / NS_PER_MS) /* the clock went back */
        left_ms = FACE_ENTRY_NS / NS_PER_MS;
    if (left_ms == 0 || entry_parse(&e, text, n) < 0)
        return;
    if (face_put(f, &e->static_pk, text, n, face_now(f) + left_ms * NS_PER_MS, &r) == 0) {
        r->client = e->has_client;
        r->server = e->has_server;
        r->visor = strcmp(e->client_type, "visor") == 0;
        r->gone = gone;
        r->since_ns = 0; /* who knows what happened meanwhile: it is looked up too */
        if (!gone)
            r->carry_ns = face_now(f) + env_random_below(f->cfg.env, SOON_NS);
        f->stat.entries -= gone;
        f->stat.restored += !gone;
    }
    entry_free(e);
}

void face_load(struct face *f)
{
    struct store *s = f->cfg.store;
    uint8_t *p = malloc(STORE_META_MAX);
    for (unsigned i = 0; p != NULL && i < FACE_BUCKETS; i++) {
        char name[16];
        size_t n;
        name_of(name, i);
        if (s->ops->meta_get(s, name, p, STORE_META_MAX, &n) < 0 || n > STORE_META_MAX)
            continue;
        struct rd r = rd_init(p, n);
        while (rd_left(&r) > 0) {
            uint64_t ends_ms = rd_be64(&r);
            bool gone = rd_u8(&r) != 0;
            size_t len = rd_be32(&r);
            const char *text = (const char *)rd_bytes(&r, len);
            if (rd_failed(&r))
                break;
            restore(f, ends_ms, gone, text, len);
        }
    }
    free(p);
    memset(f->dirty, 0, sizeof(f->dirty));
    loop_timer_cancel(f->cfg.loop, &f->save);
}
