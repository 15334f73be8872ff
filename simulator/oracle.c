/*
 * Tables as they are in a network that has been up for long: each bucket holds up to k nodes out of
 * its range, drawn evenly; ranges with fewer nodes are held whole. Nodes are sorted by the first 64
 * bits of their IDs, where every bucket is a range.
 */
#include <stdlib.h>

#include "base/cursor.h"
#include "base/err.h"
#include "kademlia/table.h"
#include "simulator/world.h"

struct place {
    uint64_t key;
    uint32_t node;
};

static int compare(const void *a, const void *b)
{
    const struct place *x = a, *y = b;

    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return x->node < y->node ? -1 : x->node > y->node;
}

int oracle_init(struct sim *s)
{
    uint32_t n = s->cfg.nodes;
    struct place *p = calloc(n, sizeof *p);

    s->order_key = calloc(n, sizeof *s->order_key);
    s->order = calloc(n, sizeof *s->order);
    if (p == NULL || s->order_key == NULL || s->order == NULL) {
        free(p);
        return ERR_NOMEM;
    }
    for (uint32_t i = 0; i < n; i++)
        p[i] = (struct place){get_be64(s->keys[i].id.b), i};
    qsort(p, n, sizeof *p, compare);
    for (uint32_t i = 0; i < n; i++) {
        s->order_key[i] = p[i].key;
        s->order[i] = p[i].node;
    }
    free(p);
    return 0;
}

void oracle_free(struct sim *s)
{
    free(s->order_key);
    free(s->order);
    s->order_key = NULL;
    s->order = NULL;
}

static uint32_t lower_bound(const struct sim *s, uint32_t lo, uint32_t hi, uint64_t key)
{
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (s->order_key[mid] < key)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* At most k of the nodes at [lo, hi), without repetition. */
static void seed_range(struct sim_shard *sh, uint32_t node, uint32_t lo, uint32_t hi,
                       uint32_t *draws)
{
    struct sim *s = sh->sim;
    uint32_t chosen[TABLE_MAX_K], n = 0, k = s->limits.k != 0 ? s->limits.k : KAD_K;
    bool all = hi - lo <= k;

    while (n < (all ? hi - lo : k)) {
        uint32_t at = lo + n;
        if (!all)
            at = lo + (uint32_t)rng_below(node_trait(s, node, (*draws)++), hi - lo);
        bool twice = false;
        for (uint32_t i = 0; i < n && !all; i++)
            twice |= chosen[i] == at;
        if (twice)
            continue;
        chosen[n++] = at;
        if (s->order[at] != node)
            kad_seed_contact(s->nodes[node].kad, s->order[at], sh->now_ns);
    }
}

void oracle_fill(struct sim_shard *sh, uint32_t node)
{
    const struct sim *s = sh->sim;
    uint64_t own = get_be64(s->keys[node].id.b);
    uint32_t lo = 0, hi = s->cfg.nodes, draws = TRAIT_TABLE;

    for (unsigned bit = 0; bit < 64 && hi - lo > 1; bit++) {
        uint64_t half = UINT64_C(1) << (63 - bit);
        uint32_t split = lower_bound(s, lo, hi, (own & ~(half - 1)) | half);
        if (own & half) {
            seed_range(sh, node, lo, split, &draws);
            lo = split;
        } else {
            seed_range(sh, node, split, hi, &draws);
            hi = split;
        }
    }
}
