#include "store/pages.h"

#include <endian.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/err.h"

/* LMDB data format 1. Numbers are the machine's own. */
#define META_MAGIC    0xbeefc0deu
#define META_VERSION  1u
#define META_PAGES    2u
#define PAGE_BRANCH   0x01u
#define PAGE_LEAF     0x02u
#define PAGE_OVERFLOW 0x04u
#define PAGE_META     0x08u
#define NODE_BIG      0x01u /* the data stand in overflow pages */
#define NODE_TREE     0x02u /* the data are a struct tree_head */
#define NODE_HEAD     8u
#define KEY_MAX       511u
#define DEPTH_MAX     32u
#define PAGE_SIZE_MAX 0x10000u
#define DB_INTEGER    0x08u /* keys of the free list are numbers */

struct page_head {
    size_t number;
    uint16_t pad, flags;
    union {
        struct {
            uint16_t lower, upper; /* free space; offsets of the nodes stand below lower */
        };
        uint32_t count; /* overflow: pages of the run */
    };
};

struct tree_head {
    uint32_t pad; /* page size, in the free list's */
    uint16_t flags, depth;
    size_t branch_pages, leaf_pages, overflow_pages, entries, root;
};

struct meta {
    uint32_t magic, version;
    void *address;
    size_t map_size;
    struct tree_head free_tree, main_tree;
    size_t last_page, txn_id;
};

#define PAGE_HEAD   (sizeof(struct page_head))
#define TREES_MAX   16u
#define NO_ROOT     SIZE_MAX
#define SLACK_PAGES (1u << 20) /* pages that were given back before they were written */

struct named_tree {
    char name[32];
    struct tree_head head;
};

struct pages {
    const uint8_t *map;
    size_t size; /* bytes of the file */
    size_t page_size;
    struct meta meta; /* of the chosen snapshot */
    struct meta metas[META_PAGES];
    uint8_t *used; /* bitmap over 0 … last_page */
    bool listed;   /* trees[] is filled */
    size_t n_trees;
    struct named_tree trees[TREES_MAX];
    char *why;
    size_t why_size;
};

static int __attribute__((format(printf, 2, 3))) damaged(struct pages *p, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(p->why, p->why_size, fmt, ap);
    va_end(ap);
    return ERR_CORRUPT;
}

/* ---- pages ---- */

static bool in_file(const struct pages *p, size_t page, size_t count)
{
    size_t pages = p->size / p->page_size;

    return page < pages && count <= pages - page;
}

static struct page_head head_of(const struct pages *p, size_t page)
{
    struct page_head h;

    memcpy(&h, p->map + page * p->page_size, sizeof h);
    return h;
}

/* Mark pages as used; a second use is damage. */
static int claim(struct pages *p, size_t page, size_t count)
{
    if (page < META_PAGES || page > p->meta.last_page || count > p->meta.last_page + 1 - page)
        return damaged(p, "page %zu is out of range", page);
    for (size_t i = page; i < page + count; i++) {
        if ((p->used[i / 8] >> (i % 8) & 1) != 0)
            return damaged(p, "page %zu is used twice", i);
        p->used[i / 8] = (uint8_t)(p->used[i / 8] | 1u << (i % 8));
    }
    return 0;
}

/* ---- trees ---- */

struct key {
    const uint8_t *p;
    size_t n;
};

struct node {
    struct key key;
    unsigned flags;
    size_t child;        /* branch */
    const uint8_t *data; /* leaf; the page number when NODE_BIG */
    size_t data_len;
};

struct walk;
typedef int node_fn(struct walk *w, const struct node *n);

struct walk {
    struct pages *p;
    const char *name;
    const struct tree_head *head;
    node_fn *fn; /* called for each leaf node; may be NULL */
    size_t branch_pages, leaf_pages, overflow_pages, entries;
    struct key last;      /* the last key seen, in the order of the tree; p NULL: none yet */
    bool last_may_repeat; /* it was a separator: the next leaf may begin with the same key */
};

static int key_cmp(const struct walk *w, struct key a, struct key b)
{
    if ((w->head->flags & DB_INTEGER) != 0) {
        size_t x, y;
        memcpy(&x, a.p, sizeof x);
        memcpy(&y, b.p, sizeof y);
        return x < y ? -1 : x > y;
    }
    size_t n = a.n < b.n ? a.n : b.n;
    int c = memcmp(a.p, b.p, n);
    if (c != 0)
        return c < 0 ? -1 : 1;
    return a.n < b.n ? -1 : a.n > b.n;
}

static size_t even(size_t n)
{
    return n + (n & 1);
}

/* Node i of a page whose lower and upper were checked. *size gets what it takes on the page. */
static int read_node(const struct walk *w, size_t page, const struct page_head *h, size_t i,
                     struct node *out, size_t *size)
{
    struct pages *p = w->p;
    const uint8_t *base = p->map + page * p->page_size;
    uint16_t at, half[4];

    memcpy(&at, base + PAGE_HEAD + 2 * i, sizeof at);
    if (at < h->upper || (at & 1) != 0 || at > p->page_size - NODE_HEAD)
        return damaged(p, "%s: page %zu: node %zu is outside", w->name, page, i);
    memcpy(half, base + at, sizeof half);
    size_t left = p->page_size - at - NODE_HEAD;
    size_t low = __BYTE_ORDER == __LITTLE_ENDIAN ? half[0] : half[1];
    size_t high = __BYTE_ORDER == __LITTLE_ENDIAN ? half[1] : half[0];

    *out = (struct node){.key = {base + at + NODE_HEAD, half[3]}, .flags = half[2]};
    if (out->key.n > KEY_MAX || out->key.n > left)
        return damaged(p, "%s: page %zu: key %zu is too long", w->name, page, i);
    left -= out->key.n;
    *size = NODE_HEAD + out->key.n;
    if (h->flags == PAGE_BRANCH) {
        uint64_t child = low | high << 16 | (uint64_t)half[2] << 32;
        out->child = (size_t)child;
        out->flags = 0;
    } else {
        size_t inside;
        out->data = out->key.p + out->key.n;
        out->data_len = low | high << 16;
        inside = (out->flags & NODE_BIG) != 0 ? sizeof(size_t) : out->data_len;
        if ((out->flags & ~(NODE_BIG | NODE_TREE)) != 0 || inside > left)
            return damaged(p, "%s: page %zu: bad data of node %zu", w->name, page, i);
        *size += inside;
    }
    bool implied = h->flags == PAGE_BRANCH && i == 0; /* its key may be empty */
    if (!implied &&
        ((w->head->flags & DB_INTEGER) != 0 ? out->key.n != sizeof(size_t) : out->key.n == 0))
        return damaged(p, "%s: page %zu: bad key %zu", w->name, page, i);
    return 0;
}

/* Claim the overflow pages of a node and let data point there. */
static int follow_big(struct walk *w, struct node *n)
{
    struct pages *p = w->p;
    size_t first, count = (PAGE_HEAD + n->data_len + p->page_size - 1) / p->page_size;

    memcpy(&first, n->data, sizeof first);
    if (!in_file(p, first, count))
        return damaged(p, "%s: overflow page %zu is outside", w->name, first);
    struct page_head h = head_of(p, first);
    if (h.number != first || h.flags != PAGE_OVERFLOW || h.count != count)
        return damaged(p, "%s: overflow page %zu is damaged", w->name, first);
    n->data = p->map + first * p->page_size + PAGE_HEAD;
    w->overflow_pages += count;
    return claim(p, first, count);
}

static int check_leaf_node(struct walk *w, size_t page, struct node *n)
{
    if (w->last.p != NULL && key_cmp(w, w->last, n->key) >= (w->last_may_repeat ? 1 : 0))
        return damaged(w->p, "%s: page %zu: keys are out of order", w->name, page);
    w->last = n->key;
    w->last_may_repeat = false;
    w->entries++;
    if ((n->flags & NODE_BIG) != 0) {
        int rc = follow_big(w, n);
        if (rc != 0)
            return rc;
    }
    return w->fn != NULL ? w->fn(w, n) : 0;
}

static int check_page(struct walk *w, size_t page, unsigned depth);

/* A separator is above all keys to its left and not above any to its right; the first of a page is
 * not looked at by anybody. */
static int check_branch_node(struct walk *w, size_t page, size_t i, const struct node *n,
                             unsigned depth)
{
    if (i > 0) {
        if (key_cmp(w, w->last, n->key) >= 0)
            return damaged(w->p, "%s: page %zu: keys are out of order", w->name, page);
        w->last = n->key;
        w->last_may_repeat = true;
    }
    return check_page(w, n->child, depth + 1);
}

static int check_nodes(struct walk *w, size_t page, const struct page_head *h, unsigned depth)
{
    struct pages *p = w->p;
    size_t count = (h->lower - PAGE_HEAD) / 2, sum = 0;

    for (size_t i = 0; i < count; i++) {
        struct node n = {0};
        size_t size = 0;
        int rc = read_node(w, page, h, i, &n, &size);
        if (rc == 0)
            rc = h->flags == PAGE_LEAF ? check_leaf_node(w, page, &n)
                                       : check_branch_node(w, page, i, &n, depth);
        if (rc != 0)
            return rc;
        sum += even(size);
    }
    /* Nodes are packed without gaps: otherwise two of them overlap. */
    if (sum != p->page_size - h->upper)
        return damaged(p, "%s: page %zu: nodes overlap", w->name, page);
    return 0;
}

static int check_page(struct walk *w, size_t page, unsigned depth)
{
    struct pages *p = w->p;
    bool leaf = depth == w->head->depth;

    if (!in_file(p, page, 1))
        return damaged(p, "%s: page %zu is outside the file", w->name, page);
    struct page_head h = head_of(p, page);
    int rc = claim(p, page, 1);
    if (rc != 0)
        return rc;
    if (h.number != page || h.flags != (leaf ? PAGE_LEAF : PAGE_BRANCH) || h.lower < PAGE_HEAD ||
        (h.lower & 1) != 0 || h.lower > h.upper || h.upper > p->page_size ||
        h.lower < PAGE_HEAD + (leaf ? 2 : 4)) /* a branch has two children at least */
        return damaged(p, "%s: page %zu is damaged", w->name, page);
    *(leaf ? &w->leaf_pages : &w->branch_pages) += 1;
    return check_nodes(w, page, &h, depth);
}

static int check_tree(struct pages *p, const char *name, const struct tree_head *head, node_fn *fn)
{
    struct walk w = {.p = p, .name = name, .head = head, .fn = fn};

    if (head->root == NO_ROOT)
        return head->depth == 0 && head->entries == 0 ? 0 : damaged(p, "%s: no root", name);
    if (head->depth == 0 || head->depth > DEPTH_MAX)
        return damaged(p, "%s: depth %u", name, head->depth);
    int rc = check_page(&w, head->root, 1);
    if (rc != 0)
        return rc;
    if (w.entries != head->entries || w.leaf_pages != head->leaf_pages ||
        w.branch_pages != head->branch_pages || w.overflow_pages != head->overflow_pages)
        return damaged(p, "%s: wrong number of entries or pages", name);
    return 0;
}

/* ---- databases and free list ---- */

static int list_tree(struct walk *w, const struct node *n)
{
    struct pages *p = w->p;
    struct named_tree *t = &p->trees[p->n_trees];

    if (n->flags != NODE_TREE || n->data_len != sizeof t->head || n->key.n >= sizeof t->name)
        return damaged(p, "list of databases: unknown entry");
    if (p->n_trees == TREES_MAX)
        return damaged(p, "list of databases: too many");
    memcpy(&t->head, n->data, sizeof t->head);
    memcpy(t->name, n->key.p, n->key.n);
    t->name[n->key.n] = '\0';
    p->n_trees++;
    return 0;
}

/* Leaf nodes of our databases hold data, never trees. */
static int plain_node(struct walk *w, const struct node *n)
{
    return (n->flags & NODE_TREE) == 0 ? 0 : damaged(w->p, "%s: unknown entry", w->name);
}

/* A free list entry: a count and as many page numbers, descending. */
static int free_node(struct walk *w, const struct node *n)
{
    struct pages *p = w->p;
    size_t count, page, above = SIZE_MAX;

    if ((n->flags & NODE_TREE) != 0 || n->data_len < sizeof count)
        return damaged(p, "free list: unknown entry");
    memcpy(&count, n->data, sizeof count);
    if (count > n->data_len / sizeof page - 1)
        return damaged(p, "free list: entry is too short");
    for (size_t i = 1; i <= count; i++) {
        memcpy(&page, n->data + i * sizeof page, sizeof page);
        if (page >= above)
            return damaged(p, "free list: pages are out of order");
        int rc = claim(p, page, 1);
        if (rc != 0)
            return rc;
        above = page;
    }
    return 0;
}

static void forget(struct pages *p)
{
    free(p->used);
    p->used = NULL;
    p->listed = false;
    p->n_trees = 0;
}

static int list_trees(struct pages *p)
{
    if (p->listed)
        return 0;
    forget(p);
    p->used = calloc(p->meta.last_page / 8 + 1, 1);
    if (p->used == NULL)
        return ERR_NOMEM;
    if (p->meta.main_tree.flags != 0)
        return damaged(p, "list of databases: unknown flags");
    int rc = check_tree(p, "list of databases", &p->meta.main_tree, list_tree);
    p->listed = rc == 0;
    return rc;
}

static int check_named(struct pages *p, const struct named_tree *t)
{
    if (t->head.flags != 0)
        return damaged(p, "%s: unknown flags", t->name);
    return check_tree(p, t->name, &t->head, plain_node);
}

int pages_check_tree(struct pages *p, const char *name)
{
    forget(p);
    int rc = list_trees(p);
    for (size_t i = 0; rc == 0 && i < p->n_trees; i++) {
        if (strcmp(p->trees[i].name, name) == 0)
            return check_named(p, &p->trees[i]);
    }
    return rc != 0 ? rc : ERR_NOT_FOUND;
}

int pages_check_all(struct pages *p)
{
    forget(p);
    int rc = list_trees(p);
    for (size_t i = 0; rc == 0 && i < p->n_trees; i++)
        rc = check_named(p, &p->trees[i]);
    if (rc == 0)
        rc = check_tree(p, "free list", &p->meta.free_tree, free_node);
    return rc;
}

/* ---- file ---- */

static int check_meta(struct pages *p, unsigned i)
{
    const struct meta *m = &p->metas[i];
    struct page_head h = head_of(p, i);

    if (h.number != i || h.flags != PAGE_META || m->magic != META_MAGIC)
        return damaged(p, "meta page %u is damaged", i);
    if (m->version != META_VERSION) {
        snprintf(p->why, p->why_size, "data format %u is unknown", m->version);
        return ERR_VERSION;
    }
    if (m->free_tree.pad != p->page_size || m->free_tree.flags != DB_INTEGER ||
        m->last_page < META_PAGES - 1 || m->last_page > p->size / p->page_size + SLACK_PAGES)
        return damaged(p, "meta page %u is damaged", i);
    return 0;
}

/* The page size is in the first meta page, where the second one stands depends on it. */
static int read_metas(struct pages *p)
{
    const size_t first = PAGE_HEAD + sizeof(struct meta);

    if (p->size < first)
        return damaged(p, "the file is too short");
    memcpy(&p->metas[0], p->map + PAGE_HEAD, sizeof p->metas[0]);
    p->page_size = p->metas[0].free_tree.pad;
    if (p->page_size < 512 || p->page_size > PAGE_SIZE_MAX ||
        (p->page_size & (p->page_size - 1)) != 0)
        return damaged(p, "meta page 0 is damaged");
    if (!in_file(p, 0, META_PAGES))
        return damaged(p, "the file is too short");
    memcpy(&p->metas[1], p->map + p->page_size + PAGE_HEAD, sizeof p->metas[1]);
    for (unsigned i = 0; i < META_PAGES; i++) {
        int rc = check_meta(p, i);
        if (rc != 0)
            return rc;
    }
    /* Transactions write the two pages in turn. */
    size_t a = p->metas[0].txn_id, b = p->metas[1].txn_id;
    if ((a | b) != 0 && ((a & 1) != 0 || (b & 1) != 1 || (a > b ? a - b : b - a) != 1))
        return damaged(p, "meta pages contradict each other");
    return 0;
}

int pages_open(struct pages **out, int fd, char *why, size_t why_size)
{
    struct stat st;
    struct pages *p = calloc(1, sizeof *p);
    int rc;

    *out = NULL;
    if (p == NULL)
        return ERR_NOMEM;
    p->why = why;
    p->why_size = why_size;
    if (fstat(fd, &st) != 0) {
        rc = err_sys();
        goto fail;
    }
    p->size = (size_t)st.st_size;
    if (p->size == 0) {
        rc = damaged(p, "the file is empty");
        goto fail;
    }
    void *map = mmap(NULL, p->size, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        rc = err_sys();
        goto fail;
    }
    p->map = map;
    rc = read_metas(p);
    if (rc != 0)
        goto fail;
    p->meta = p->metas[p->metas[1].txn_id > p->metas[0].txn_id];
    *out = p;
    return 0;
fail:
    pages_close(p);
    return rc;
}

void pages_close(struct pages *p)
{
    if (p == NULL)
        return;
    forget(p);
    if (p->map != NULL)
        munmap((void *)(uintptr_t)p->map, p->size);
    free(p);
}

int pages_select(struct pages *p, uint64_t txn_id)
{
    for (unsigned i = 0; i < META_PAGES; i++) {
        if (p->metas[i].txn_id == txn_id) {
            p->meta = p->metas[i];
            forget(p);
            return 0;
        }
    }
    return damaged(p, "no snapshot of transaction %llu", (unsigned long long)txn_id);
}

uint64_t pages_txn_id(const struct pages *p)
{
    return p->meta.txn_id;
}
