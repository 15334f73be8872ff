#include "kademlia/digest.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/cursor.h"

struct leaf {
    uint64_t lo, hi;
    uint64_t count;
};

struct digest {
    uint64_t items;
    struct leaf leaf[DIGEST_LEAVES];
};

struct digest *digest_new(void)
{
    return calloc(1, sizeof(struct digest));
}

struct digest *digest_copy(const struct digest *d)
{
    struct digest *copy = malloc(sizeof *copy);

    if (copy != NULL)
        memcpy(copy, d, sizeof *copy);
    return copy;
}

void digest_free(struct digest *d)
{
    free(d);
}

uint64_t digest_items(const struct digest *d)
{
    return d->items;
}

static void add(struct leaf *to, uint64_t lo, uint64_t hi)
{
    to->lo += lo;
    to->hi += hi + (to->lo < lo);
}

static void sum_of(const struct digest_entry *e, uint64_t *lo, uint64_t *hi)
{
    uint8_t text[KAD_ID_BYTES + 1 + 16];
    struct hash h;

    memcpy(text, e->target.b, KAD_ID_BYTES);
    text[KAD_ID_BYTES] = (uint8_t)e->kind;
    put_be64(text + KAD_ID_BYTES + 1, e->rank[0]);
    put_be64(text + KAD_ID_BYTES + 9, e->rank[1]);
    crypto_sha256(&h, text, sizeof text);
    *hi = get_be64(h.b);
    *lo = get_be64(h.b + 8);
}

void digest_add(struct digest *d, const struct digest_entry *e)
{
    struct leaf *leaf = &d->leaf[digest_prefix(&e->target, DIGEST_BITS)];
    uint64_t lo, hi;

    sum_of(e, &lo, &hi);
    add(leaf, lo, hi);
    leaf->count++;
    d->items++;
}

void digest_del(struct digest *d, const struct digest_entry *e)
{
    struct leaf *leaf = &d->leaf[digest_prefix(&e->target, DIGEST_BITS)];
    uint64_t lo, hi;

    assert(leaf->count > 0);
    sum_of(e, &lo, &hi);
    hi += leaf->lo < lo; /* the borrow */
    leaf->lo -= lo;
    leaf->hi -= hi;
    leaf->count--;
    d->items--;
}

void digest_clear(struct digest *d, unsigned leaf)
{
    assert(leaf < DIGEST_LEAVES);
    d->items -= d->leaf[leaf].count;
    d->leaf[leaf] = (struct leaf){.count = 0};
}

struct digest_part digest_range(const struct digest *d, unsigned bits, unsigned prefix)
{
    struct leaf sum = {.count = 0};
    struct digest_part part;
    const size_t n = DIGEST_LEAVES >> bits, first = (size_t)prefix << (DIGEST_BITS - bits);

    assert(bits <= DIGEST_BITS && prefix < 1u << bits);
    for (size_t i = first; i < first + n; i++) {
        add(&sum, d->leaf[i].lo, d->leaf[i].hi);
        sum.count += d->leaf[i].count;
    }
    part.count = sum.count < UINT32_MAX ? (uint32_t)sum.count : UINT32_MAX;
    put_be64(part.sum, sum.hi);
    put_be64(part.sum + 8, sum.lo);
    return part;
}

bool digest_part_equal(const struct digest_part *a, const struct digest_part *b)
{
    return a->count == b->count && memcmp(a->sum, b->sum, sizeof a->sum) == 0;
}

int digest_entry_cmp(const struct digest_entry *a, const struct digest_entry *b)
{
    if (a->kind != b->kind)
        return a->kind < b->kind ? -1 : 1;
    for (int i = 0; i < 2; i++) {
        if (a->rank[i] != b->rank[i])
            return a->rank[i] > b->rank[i] ? -1 : 1;
    }
    return 0;
}
