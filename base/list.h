/*
 * list - intrusive doubly linked list.
 *
 * A node is a member of the object that is linked; linking allocates nothing and cannot fail. An
 * object with several nodes can be in several lists. A zeroed node is "not linked"; removing an
 * unlinked node does nothing, so a destroy function may always call it. The list owns nothing.
 *
 *     struct list l; list_init(&l);
 *     list_push_back(&l, &x->node);
 *     struct thing *t = list_pop_front_as(&l, struct thing, node);
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

struct list_node {
    struct list_node *prev, *next; /* both NULL = not linked */
};

struct list {
    struct list_node head; /* circular through the head */
};

static inline void list_init(struct list *l)
{
    l->head.prev = l->head.next = &l->head;
}

static inline bool list_empty(const struct list *l)
{
    return l->head.next == &l->head;
}

static inline bool list_node_is_linked(const struct list_node *n)
{
    return n->next != NULL;
}

static inline void list_insert_before(struct list_node *at, struct list_node *n)
{
    n->prev = at->prev;
    n->next = at;
    at->prev->next = n;
    at->prev = n;
}

static inline void list_push_back(struct list *l, struct list_node *n)
{
    list_insert_before(&l->head, n);
}

static inline void list_push_front(struct list *l, struct list_node *n)
{
    list_insert_before(l->head.next, n);
}

static inline void list_remove(struct list_node *n)
{
    if (n->next == NULL)
        return;
    n->prev->next = n->next;
    n->next->prev = n->prev;
    n->prev = n->next = NULL;
}

/*
 * The node that a link leads to. A static analyser cannot know that neighbours point at each other, believes that a node which was removed
 * and freed is still linked, and warns: it gets a function it knows nothing about instead.
 */
#ifdef __clang_analyzer__
struct list_node *list_link(struct list_node *n) __attribute__((pure, returns_nonnull));
#else
static inline struct list_node *list_link(struct list_node *n)
{
    return n;
}
#endif

static inline struct list_node *list_first(const struct list *l)
{
    struct list_node *n = list_link(l->head.next);
    return n == &l->head ? NULL : n;
}

static inline struct list_node *list_next(const struct list *l, const struct list_node *n)
{
    struct list_node *next = list_link(n->next);
    return next == &l->head ? NULL : next;
}

static inline struct list_node *list_pop_front(struct list *l)
{
    struct list_node *n = list_first(l);
    if (n != NULL)
        list_remove(n);
    return n;
}

/* The object around a node; NULL for NULL. For the macros below. */
static inline void *list_object(struct list_node *n, size_t offset)
{
    return n != NULL ? (char *)n - offset : NULL;
}

/* Move all nodes of `from` to the end of `to`, in their order. O(1). */
static inline void list_splice(struct list *to, struct list *from)
{
    if (list_empty(from))
        return;
    struct list_node *first = from->head.next, *last = from->head.prev;
    first->prev = to->head.prev;
    to->head.prev->next = first;
    last->next = &to->head;
    to->head.prev = last;
    list_init(from);
}

#define list_first_as(l, type, member) ((type *)list_object(list_first(l), offsetof(type, member)))
#define list_pop_front_as(l, type, member)                                                         \
    ((type *)list_object(list_pop_front(l), offsetof(type, member)))

/* Iterate; the body may remove the current node but no other. */
#define list_for_each(pos, tmp, l)                                                                 \
    for ((pos) = list_link((l)->head.next), (tmp) = list_link((pos)->next); (pos) != &(l)->head;   \
         (pos) = (tmp), (tmp) = list_link((pos)->next))
