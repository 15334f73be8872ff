#include "base/heap.h"

#include <assert.h>
#include <stdlib.h>

#include "base/err.h"

#define ARITY   4
#define MIN_CAP 16

static bool before(const struct heap_entry *a, const struct heap_entry *b)
{
    return a->key != b->key ? a->key < b->key : a->order < b->order;
}

static void place(struct heap *h, size_t i, struct heap_entry e)
{
    h->v[i] = e;
    e.node->slot = (uint32_t)(i + 1);
}

static void sift_up(struct heap *h, size_t i, struct heap_entry e)
{
    while (i > 0) {
        size_t parent = (i - 1) / ARITY;
        if (!before(&e, &h->v[parent]))
            break;
        place(h, i, h->v[parent]);
        i = parent;
    }
    place(h, i, e);
}

static void sift_down(struct heap *h, size_t i, struct heap_entry e)
{
    for (;;) {
        size_t first = i * ARITY + 1;
        if (first >= h->len)
            break;
        size_t last = h->len - first < ARITY ? h->len : first + ARITY;
        size_t least = first;
        for (size_t c = first + 1; c < last; c++) {
            if (before(&h->v[c], &h->v[least]))
                least = c;
        }
        if (!before(&h->v[least], &e))
            break;
        place(h, i, h->v[least]);
        i = least;
    }
    place(h, i, e);
}

/* Put e where position i is free. */
static void settle(struct heap *h, size_t i, struct heap_entry e)
{
    if (i > 0 && before(&e, &h->v[(i - 1) / ARITY]))
        sift_up(h, i, e);
    else
        sift_down(h, i, e);
}

static int resize(struct heap *h, size_t cap)
{
    struct heap_entry *v = reallocarray(h->v, cap, sizeof *v);
    if (v == NULL)
        return ERR_NOMEM;
    h->v = v;
    h->cap = cap;
    return 0;
}

void heap_init(struct heap *h)
{
    *h = (struct heap){0};
}

void heap_free(struct heap *h)
{
    assert(h->len == 0);
    free(h->v);
    heap_init(h);
}

int heap_set(struct heap *h, struct heap_node *n, uint64_t key, uint64_t order)
{
    struct heap_entry e = {.key = key, .order = order, .node = n};
    if (n->slot != 0) {
        assert(n->slot <= h->len && h->v[n->slot - 1].node == n);
        settle(h, n->slot - 1, e);
        return 0;
    }
    if (h->len == h->cap) {
        assert(h->len < UINT32_MAX - 1);
        int rc = resize(h, h->cap > 0 ? h->cap * 2 : MIN_CAP);
        if (rc != 0)
            return rc;
    }
    h->len++;
    sift_up(h, h->len - 1, e);
    return 0;
}

void heap_remove(struct heap *h, struct heap_node *n)
{
    if (n->slot == 0)
        return;
    size_t i = n->slot - 1;
    assert(i < h->len && h->v[i].node == n);
    n->slot = 0;
    h->len--;
    if (i < h->len)
        settle(h, i, h->v[h->len]);
    if (h->cap > MIN_CAP && h->len < h->cap / 4)
        (void)resize(h, h->cap / 2); /* if it cannot shrink it stays */
}

struct heap_node *heap_pop(struct heap *h)
{
    if (h->len == 0)
        return NULL;
    struct heap_node *n = h->v[0].node;
    heap_remove(h, n);
    return n;
}
