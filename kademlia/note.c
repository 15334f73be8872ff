#include <stdlib.h>

#include "kademlia/engine.h"

#define REQUEST_BURST 4 /* seconds' worth */
#define BYTES_BURST   8
#define MILLI         1000
#define REFILLED_NS   (60 * NS_PER_S) /* longer than any burst and debt together */

/* What is remembered of one peer. Tokens may be negative: a debt, at most one burst. */
struct note {
    kad_peer peer; /* a reference */
    struct list_node lru;
    int64_t requests; /* thousandths of a token */
    int64_t bytes;
    uint64_t at_ns; /* when the buckets were filled last */
    uint64_t no_dht_until_ns;
};

static int64_t request_burst(const struct kad *k)
{
    return (int64_t)k->lim.rate_per_s * REQUEST_BURST * MILLI;
}

static int64_t bytes_burst(const struct kad *k)
{
    return (int64_t)k->lim.rate_bytes_per_s * BYTES_BURST;
}

static void forget(struct kad *k, struct note *n)
{
    map_del(&k->notes, &n->peer);
    list_remove(&n->lru);
    kad_unref(k, n->peer);
    free(n);
}

static struct note *new_note(struct kad *k, kad_peer p)
{
    if (map_len(&k->notes) >= KAD_MAX_NOTES)
        forget(k, container_of(list_first(&k->notes_lru), struct note, lru));
    struct note *n = calloc(1, sizeof *n);
    if (n == NULL)
        return NULL;
    n->peer = p;
    n->requests = request_burst(k);
    n->bytes = bytes_burst(k);
    n->at_ns = k->now_ns;
    if (map_put(&k->notes, n) != 0) {
        free(n);
        return NULL;
    }
    k->peers.ref(k->peers.arg, p);
    list_push_back(&k->notes_lru, &n->lru);
    return n;
}

/* Tokens that flow in during so many ns at a rate per second. Rates are below 2^31 and times are
 * bounded by the burst first, so nothing overflows. */
static int64_t flow(uint64_t ns, uint64_t rate_per_s)
{
    return (int64_t)(ns / NS_PER_MS * rate_per_s / MILLI);
}

static void refill(const struct kad *k, struct note *n)
{
    uint64_t ns = k->now_ns - n->at_ns;

    if (ns < NS_PER_MS)
        return;
    if (ns > REFILLED_NS)
        ns = REFILLED_NS;
    n->requests += flow(ns, (uint64_t)k->lim.rate_per_s * MILLI);
    n->bytes += flow(ns, k->lim.rate_bytes_per_s);
    if (n->requests > request_burst(k))
        n->requests = request_burst(k);
    if (n->bytes > bytes_burst(k))
        n->bytes = bytes_burst(k);
    n->at_ns = k->now_ns;
}

/* The peer's note, filled up to now and marked as used; NULL when out of memory. */
static struct note *note_of(struct kad *k, kad_peer p)
{
    struct note *n = map_get(&k->notes, &p);

    if (n == NULL)
        return new_note(k, p);
    refill(k, n);
    list_remove(&n->lru);
    list_push_back(&k->notes_lru, &n->lru);
    return n;
}

bool kad_note_request(struct kad *k, kad_peer p)
{
    struct note *n = note_of(k, p);

    if (n == NULL || n->requests < MILLI) {
        k->stat.refused_rate++;
        return false;
    }
    n->requests -= MILLI;
    return true;
}

void kad_note_charge(struct kad *k, kad_peer p, unsigned requests)
{
    struct note *n = note_of(k, p);

    if (n == NULL)
        return;
    n->requests -= (int64_t)requests * MILLI;
    if (n->requests < -request_burst(k))
        n->requests = -request_burst(k);
}

bool kad_note_may_read(struct kad *k, kad_peer p)
{
    struct note *n = note_of(k, p);

    if (n == NULL || n->bytes <= 0) {
        k->stat.refused_rate++;
        return false;
    }
    return true;
}

void kad_note_bytes(struct kad *k, kad_peer p, size_t bytes)
{
    struct note *n = note_of(k, p);

    if (n == NULL)
        return;
    n->bytes -= (int64_t)bytes;
    if (n->bytes < -bytes_burst(k))
        n->bytes = -bytes_burst(k);
}

void kad_note_no_dht(struct kad *k, kad_peer p)
{
    struct note *n = note_of(k, p);

    if (n == NULL)
        return;
    n->no_dht_until_ns = kad_after(k, kad_ms(k->lim.neg_ttl_ms));
    k->stat.neg_cached++;
}

void kad_note_clear_no_dht(struct kad *k, kad_peer p)
{
    struct note *n = map_get(&k->notes, &p);

    if (n != NULL)
        n->no_dht_until_ns = 0;
}

bool kad_note_is_no_dht(const struct kad *k, kad_peer p)
{
    const struct note *n = map_get(&k->notes, &p);

    return n != NULL && n->no_dht_until_ns > k->now_ns;
}

/* Whoever has been quiet for so long that its buckets are full again is a stranger again: a node that
 * serves many peers does not remember each of them for ever. */
void kad_notes_sweep(struct kad *k)
{
    while (!list_empty(&k->notes_lru)) {
        struct note *n = container_of(list_first(&k->notes_lru), struct note, lru);
        if (k->now_ns - n->at_ns < REFILLED_NS || n->no_dht_until_ns > k->now_ns)
            return; /* one that must stay is bounded in time, and the cap holds meanwhile */
        forget(k, n);
    }
}

void kad_notes_init(struct kad *k)
{
    map_init(&k->notes, MAP_KEY(struct note, peer), k->env->hash_key, KAD_MAX_NOTES);
    list_init(&k->notes_lru);
}

void kad_notes_free(struct kad *k)
{
    while (!list_empty(&k->notes_lru))
        forget(k, container_of(list_first(&k->notes_lru), struct note, lru));
    map_free(&k->notes);
}
