/*
 * Items that come from other shards are copies; nodes of this shard share one of them. The table holds
 * a reference of its own to each, and drops those that nobody else has when it must grow.
 */
#include <stdlib.h>

#include "base/cursor.h"
#include "simulator/world.h"

static size_t slot_of(const struct intern *t, const struct item *it)
{
    return (size_t)rng_mix(get_be64(it->sig.b), it->seq) & (t->cap - 1);
}

static void insert(struct intern *t, struct item_ref *item)
{
    size_t at = slot_of(t, &item->item);

    while (t->v[at] != NULL)
        at = (at + 1) & (t->cap - 1);
    t->v[at] = item;
    t->n++;
}

/* Drop what only the table holds; double when that does not help enough. */
static void make_room(struct intern *t)
{
    struct intern old = *t;
    size_t kept = 0;

    for (size_t i = 0; i < old.cap; i++)
        kept += old.v[i] != NULL && old.v[i]->refs > 1;
    t->cap = old.cap > 0 ? old.cap : 256;
    while (kept > t->cap / 2)
        t->cap *= 2;
    t->n = 0;
    t->v = sim_must(calloc(t->cap, sizeof(struct item_ref *)));
    for (size_t i = 0; i < old.cap; i++) {
        if (old.v[i] != NULL && old.v[i]->refs > 1)
            insert(t, old.v[i]);
        else
            item_ref_put(old.v[i]);
    }
    free(old.v);
}

struct item_ref *intern_item(struct intern *t, struct item_ref *item)
{
    if (t->n >= t->cap / 4 * 3)
        make_room(t);
    for (size_t at = slot_of(t, &item->item); t->v[at] != NULL; at = (at + 1) & (t->cap - 1)) {
        if (item_equal(&t->v[at]->item, &item->item)) {
            item_ref_put(item);
            return item_ref_get(t->v[at]);
        }
    }
    insert(t, item_ref_get(item));
    return item;
}

void intern_free(struct intern *t)
{
    for (size_t i = 0; i < t->cap; i++)
        item_ref_put(t->v[i]);
    free(t->v);
    *t = (struct intern){0};
}
