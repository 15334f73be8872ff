/*
 * heap - priority queue of things that are due: an array-backed 4-ary heap of intrusive nodes.
 *
 * Ordered by (key, order): key is normally a time, order breaks ties so that runs are reproducible
 * (a counter of the caller). Both live in the heap's array, 24 bytes an entry, so that comparing
 * does not touch the objects; an object only embeds its position.
 *
 * The heap owns its array and nothing else. A zeroed node is "not in a heap". One thread. Limits:
 * 2^32 - 2 entries. The array grows by doubling and shrinks when three quarters are empty. Errors:
 * ERR_NOMEM from heap_set() of a node that is not in the heap yet; the heap is unchanged then.
 * Nothing else fails.
 *
 *     struct heap h; heap_init(&h);
 *     rc = heap_set(&h, &call->node, call->deadline_ns, next++);
 *     while (heap_min_key(&h) <= now_ns)
 *         call_timed_out(container_of(heap_pop(&h), struct call, node));
 *     heap_free(&h);
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HEAP_NO_KEY UINT64_MAX

struct heap_node {
    uint32_t slot; /* 0 = not in a heap, else position + 1 */
};

struct heap_entry {
    uint64_t key, order;
    struct heap_node *node;
};

struct heap {
    struct heap_entry *v;
    size_t len, cap;
};

/* An empty heap; allocates nothing. */
void heap_init(struct heap *h);

/* Give back the array. Nodes still inside are a bug (assert): they would keep their positions. */
void heap_free(struct heap *h);

/* Insert the node, or change its key and order when it is in this heap. O(log n). 0 or ERR_NOMEM
 * (insert only). */
int heap_set(struct heap *h, struct heap_node *n, uint64_t key, uint64_t order)
    __attribute__((warn_unused_result));

/* Take a node out; does nothing when it is in no heap. O(log n). */
void heap_remove(struct heap *h, struct heap_node *n);

/* The node with the smallest (key, order), taken out; NULL when empty. */
struct heap_node *heap_pop(struct heap *h);

static inline size_t heap_len(const struct heap *h)
{
    return h->len;
}

static inline bool heap_node_is_in(const struct heap_node *n)
{
    return n->slot != 0;
}

/* The smallest entry without taking it out; NULL when empty. Valid until the heap changes. */
static inline const struct heap_entry *heap_min(const struct heap *h)
{
    return h->len > 0 ? &h->v[0] : NULL;
}

/* Its key; HEAP_NO_KEY when empty. */
static inline uint64_t heap_min_key(const struct heap *h)
{
    return h->len > 0 ? h->v[0].key : HEAP_NO_KEY;
}

/* Key of a node that is in this heap. */
static inline uint64_t heap_key(const struct heap *h, const struct heap_node *n)
{
    return h->v[n->slot - 1].key;
}
