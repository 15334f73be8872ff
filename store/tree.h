/*
 * tree - an intrusive ordered map of byte-string keys, for indexes in memory.
 *
 * A treap: a node is a member of the object that is indexed, so that linking allocates nothing and
 * cannot fail; an object with several nodes is in several trees. Keys are compared as LMDB compares
 * them (memcmp, then the shorter one first), which lets one encoded key serve both sides of an
 * overlay. Keys are unique within a tree. The tree owns neither nodes nor keys: a key must stay
 * where it is and must not change while its node is linked.
 *
 * Depth is logarithmic whatever order keys arrive in, as long as the seed is not known to those who
 * choose the keys. Not recursive. One thread.
 *
 *     struct tree t;
 *     tree_init(&t, seed);
 *     tree_insert(&t, &x->by_name, x->name, strlen(x->name));
 *     for (struct tree_node *n = tree_seek(&t, "m", 1); n != NULL; n = tree_next(&t, n))
 *         show(container_of(n, struct thing, by_name));
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tree_node {
    struct tree_node *left, *right;
    const uint8_t *key;
    uint32_t key_len;
    uint32_t prio;
};

struct tree {
    struct tree_node *root;
    size_t count;
    uint64_t random; /* state of the generator of priorities */
};

/* Order of two keys: <0, 0, >0. */
int tree_key_cmp(const void *a, size_t a_len, const void *b, size_t b_len);

void tree_init(struct tree *t, uint64_t seed);

/* Link a node under a key that is not in the tree yet (assert). */
void tree_insert(struct tree *t, struct tree_node *n, const void *key, size_t key_len);
/* Unlink a node that is in this tree (assert). */
void tree_remove(struct tree *t, struct tree_node *n);

/* The node with exactly this key, or NULL. */
struct tree_node *tree_find(const struct tree *t, const void *key, size_t key_len);
/* First node whose key is >= (tree_seek) or > (tree_after) the given one, or NULL. */
struct tree_node *tree_seek(const struct tree *t, const void *key, size_t key_len);
struct tree_node *tree_after(const struct tree *t, const void *key, size_t key_len);
struct tree_node *tree_first(const struct tree *t);
/* Logarithmic, not constant: nodes have no link to their parent. */
struct tree_node *tree_next(const struct tree *t, const struct tree_node *n);
