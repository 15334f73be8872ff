#include "simulator/pack.h"

#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "simulator/world.h"

void pack_room(struct pack_bytes *b, size_t n)
{
    if (b->cap - b->n >= n)
        return;
    while (b->cap - b->n < n)
        b->cap = b->cap > 0 ? 2 * b->cap : 4096;
    struct arena *before = arena_use(NULL); /* the exchange's */
    b->v = sim_must(realloc(b->v, b->cap));
    (void)arena_use(before);
}

static void put(struct pack_bytes *b, const void *p, size_t n)
{
    pack_room(b, n);
    if (n > 0)
        memcpy(b->v + b->n, p, n);
    b->n += n;
}

static void get(const uint8_t **p, void *out, size_t n)
{
    if (n > 0)
        memcpy(out, *p, n);
    *p += n;
}

/* An array of the message that follows it; NULL when it is empty. */
static void *get_array(const uint8_t **p, size_t n, size_t size)
{
    if (n == 0)
        return NULL;
    void *v = sim_must(calloc(n, size));
    get(p, v, n * size);
    return v;
}

/* ---- items ---- */

static void put_item(struct pack_bytes *b, const struct kad_msg_item *mi)
{
    put(b, mi, sizeof *mi);
    if (mi->item == NULL)
        return;
    const struct item *it = &mi->item->item;
    put(b, it, sizeof *it);
    put(b, it->v, it->v_len);
    put(b, it->salt, it->salt_len);
}

static void get_item(const uint8_t **p, struct kad_msg_item *mi)
{
    struct item it;

    get(p, mi, sizeof *mi);
    if (mi->item == NULL)
        return;
    get(p, &it, sizeof it);
    bool no_value = it.v == NULL;
    it.v = *p;
    it.salt = *p + it.v_len;
    *p += it.v_len + it.salt_len;
    if (no_value)
        it.v = NULL;
    mi->item = sim_must(item_ref_new(&it));
}

/* ---- messages ---- */

/* The message is gone afterwards. */
static void put_msg(struct pack_bytes *b, struct sim_msg *m)
{
    put(b, m, sizeof *m);
    put(b, m->m.closest, m->m.n_closest * sizeof *m->m.closest);
    put(b, m->m.targets, m->m.n_targets * sizeof *m->m.targets);
    for (size_t i = 0; i < m->m.n_items; i++)
        put_item(b, &m->m.items[i]);
    put(b, m->m.salt, m->m.salt_len);
    put(b, m->m.ranges, m->m.n_ranges * sizeof *m->m.ranges);
    put(b, m->m.answers, m->m.n_answers * sizeof *m->m.answers);
    for (size_t i = 0; i < m->m.n_answers; i++)
        put(b, m->m.answers[i].entries, m->m.answers[i].n * sizeof *m->m.answers[i].entries);
    wire_free(m);
}

static struct sim_msg *get_msg(const uint8_t **p)
{
    struct sim_msg *m = sim_must(malloc(sizeof *m));

    get(p, m, sizeof *m);
    m->m.closest = get_array(p, m->m.n_closest, sizeof *m->m.closest);
    m->m.targets = get_array(p, m->m.n_targets, sizeof *m->m.targets);
    m->m.items = m->m.n_items > 0 ? sim_must(calloc(m->m.n_items, sizeof *m->m.items)) : NULL;
    for (size_t i = 0; i < m->m.n_items; i++)
        get_item(p, &m->m.items[i]);
    m->m.salt = get_array(p, m->m.salt_len, 1);
    m->m.ranges = get_array(p, m->m.n_ranges, sizeof *m->m.ranges);
    m->m.answers = get_array(p, m->m.n_answers, sizeof *m->m.answers);
    for (size_t i = 0; i < m->m.n_answers; i++)
        m->m.answers[i].entries = get_array(p, m->m.answers[i].n, sizeof *m->m.answers[i].entries);
    return m;
}

/* ---- events ---- */

void pack_event(struct pack_bytes *b, uint32_t shard, const struct sim_event *ev)
{
    put(b, &shard, sizeof shard);
    put(b, ev, sizeof *ev);
    if (ev->type == EV_MSG || ev->type == EV_RELAY || ev->type == EV_HTTP) {
        put_msg(b, (struct sim_msg *)(uintptr_t)ev->data);
    } else if (ev->type == EV_CHECK) {
        struct sim_check *c = (struct sim_check *)(uintptr_t)ev->data;
        put(b, c, sizeof *c);
        free(c);
    }
}

bool pack_read(const uint8_t **p, const uint8_t *end, uint32_t *shard, struct sim_event *ev)
{
    if (*p >= end)
        return false;
    get(p, shard, sizeof *shard);
    get(p, ev, sizeof *ev);
    if (ev->type == EV_MSG || ev->type == EV_RELAY || ev->type == EV_HTTP) {
        ev->data = (uintptr_t)get_msg(p);
    } else if (ev->type == EV_CHECK) {
        struct sim_check *c = sim_must(malloc(sizeof *c));
        get(p, c, sizeof *c);
        ev->data = (uintptr_t)c;
    }
    return true;
}
