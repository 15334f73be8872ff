#include "store/tree.h"

#include <assert.h>
#include <string.h>

int tree_key_cmp(const void *a, size_t a_len, const void *b, size_t b_len)
{
    size_t n = a_len < b_len ? a_len : b_len;
    int c = n > 0 ? memcmp(a, b, n) : 0;

    if (c != 0)
        return c;
    return a_len < b_len ? -1 : a_len > b_len;
}

static int cmp(const void *key, size_t key_len, const struct tree_node *n)
{
    return tree_key_cmp(key, key_len, n->key, n->key_len);
}

/* splitmix64: any sequence that the choosers of keys cannot predict will do. */
static uint32_t next_prio(struct tree *t)
{
    uint64_t z = t->random += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (uint32_t)(z >> 32);
}

void tree_init(struct tree *t, uint64_t seed)
{
    *t = (struct tree){.random = seed};
}

/* Where the search for key goes on: the link that holds a node of a priority below prio, or the
 * one that holds the key. */
static struct tree_node **descend(struct tree *t, const void *key, size_t key_len, uint32_t prio)
{
    struct tree_node **link = &t->root;

    while (*link != NULL && (*link)->prio >= prio) {
        int c = cmp(key, key_len, *link);
        if (c == 0)
            break;
        link = c < 0 ? &(*link)->left : &(*link)->right;
    }
    return link;
}

void tree_insert(struct tree *t, struct tree_node *n, const void *key, size_t key_len)
{
    n->key = key;
    n->key_len = (uint32_t)key_len;
    n->prio = next_prio(t);
    struct tree_node **link = descend(t, key, key_len, n->prio);
    struct tree_node *rest = *link, **low = &n->left, **high = &n->right;
    /* Split what hangs below: smaller keys to the left, larger ones to the right. */
    *link = n;
    while (rest != NULL) {
        int c = cmp(key, key_len, rest);
        assert(c != 0);
        if (c < 0) {
            *high = rest;
            high = &rest->left;
            rest = rest->left;
        } else {
            *low = rest;
            low = &rest->right;
            rest = rest->right;
        }
    }
    *low = *high = NULL;
    t->count++;
}

void tree_remove(struct tree *t, struct tree_node *n)
{
    struct tree_node **link = descend(t, n->key, n->key_len, 0);
    struct tree_node *low = n->left, *high = n->right;

    assert(*link == n);
    while (low != NULL && high != NULL) {
        if (low->prio >= high->prio) {
            *link = low;
            link = &low->right;
            low = low->right;
        } else {
            *link = high;
            link = &high->left;
            high = high->left;
        }
    }
    *link = low != NULL ? low : high;
    n->left = n->right = NULL;
    t->count--;
}

struct tree_node *tree_find(const struct tree *t, const void *key, size_t key_len)
{
    struct tree_node *n = t->root;

    while (n != NULL) {
        int c = cmp(key, key_len, n);
        if (c == 0)
            break;
        n = c < 0 ? n->left : n->right;
    }
    return n;
}

/* First node above key; an equal one counts when `equal`. */
static struct tree_node *bound(const struct tree *t, const void *key, size_t key_len, bool equal)
{
    struct tree_node *n = t->root, *best = NULL;

    while (n != NULL) {
        int c = cmp(key, key_len, n);
        if (c < 0 || (c == 0 && equal)) {
            best = n;
            n = n->left;
        } else {
            n = n->right;
        }
    }
    return best;
}

struct tree_node *tree_seek(const struct tree *t, const void *key, size_t key_len)
{
    return bound(t, key, key_len, true);
}

struct tree_node *tree_after(const struct tree *t, const void *key, size_t key_len)
{
    return bound(t, key, key_len, false);
}

struct tree_node *tree_first(const struct tree *t)
{
    struct tree_node *n = t->root;

    while (n != NULL && n->left != NULL)
        n = n->left;
    return n;
}

struct tree_node *tree_next(const struct tree *t, const struct tree_node *n)
{
    return tree_after(t, n->key, n->key_len);
}
