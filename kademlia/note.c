#include <stdlib.h>

#include "kademlia/engine.h"

#define REQUEST_BURST 4 /* seconds' worth */
#define BYTES_BURST   8
#define FULL_TIMES    8
#define MILLI         1000
#define LIES_MAX      16              /* points from which on a peer is shunned */
#define LIE_FORGET_NS (15 * NS_PER_S) /* a point is forgotten after so long */
#define REFILLED_NS   (60 * NS_PER_S) /* longer than any burst and debt together */

/* What is remembered of one peer. Tokens may be negative: a debt, at most one burst. */
struct note {
    kad_peer peer; /* a reference */
    struct list_node lru;
    int64_t requests; /* thousandths of a token */
    int64_t bytes;
    uint64_t at_ns; /* when the buckets were filled last */
    uint64_t no_dht_until_ns;
    unsigned lies; /* points */
    uint64_t lies_at_ns;
    uint64_t shunned_until_ns; /* 0 = not */
};

static int64_t request_burst(const struct kad *k)
{
    return (int64_t)k->lim.rate_per_s * REQUEST_BURST * MILLI;
}

/* A full node is there to be read: a new one takes everything from it within seconds. */
static uint64_t bytes_rate(const struct kad *k)
{
    return k->lim.rate_bytes_per_s * (k->full ? FULL_TIMES : 1);
}

static int64_t bytes_burst(const struct kad *k)
{
    return (int64_t)bytes_rate(k) * BYTES_BURST;
}

static void forget(struct kad *k, struct note *n)
{
    k->shunning -= n->shunned_until_ns != 0;
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
    n->bytes += flow(ns, bytes_rate(k));
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
    if (n->shunned_until_ns != 0 && n->shunned_until_ns <= k->now_ns) {
        n->shunned_until_ns = 0;
        k->shunning--;
    }
    list_remove(&n->lru);
    list_push_back(&k->notes_lru, &n->lru);
    return n;
}

bool kad_note_request(struct kad *k, kad_peer p)
{
    struct note *n = note_of(k, p);

    if (n == NULL || n->requests < MILLI) {
        k->stat->refused_rate++;
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
        k->stat->refused_rate++;
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
    k->stat->neg_cached++;
}

void kad_note_clear_no_dht(struct kad *k, kad_peer p)
{
    struct note *n = map_get(&k->notes, &p);

    if (n != NULL)
        n->no_dht_until_ns = 0;
}

/* ---- lies ---- */

/* A peer that cannot tell a mirror of ours from one of its own is honest, and so is one that is behind:
 * these weigh little, and are forgotten between two look-ups. */
static const uint8_t points[KAD_LIE__COUNT] = {
    [KAD_LIE_SIGNATURE] = 8, [KAD_LIE_TARGET] = 1,   [KAD_LIE_STALE] = 2,
    [KAD_LIE_CONTACTS] = 2,  [KAD_LIE_PROTOCOL] = 4,
};

static void shun(struct kad *k, struct note *n)
{
    if (n->shunned_until_ns == 0)
        k->shunning++;
    n->shunned_until_ns = kad_after(k, kad_ms(k->lim.neg_ttl_ms));
    n->lies = 0;
    k->stat->shunned++;
    (void)table_remove(&k->table, n->peer);
}

void kad_note_lie(struct kad *k, kad_peer p, enum kad_lie lie)
{
    const struct pubkey *pk = kad_pk(k, p);
    struct note *n = note_of(k, p);

    k->stat->lies[lie]++;
    if (n == NULL || kad_tier_of(k, pk) != ITEM_TIER_PUBLIC || kad_keyset_has(&k->bootstrap, pk))
        return;
    uint64_t forgotten = (k->now_ns - n->lies_at_ns) / LIE_FORGET_NS;
    n->lies = forgotten < n->lies ? n->lies - (unsigned)forgotten : 0;
    n->lies_at_ns = k->now_ns;
    n->lies += points[lie];
    if (n->lies >= LIES_MAX)
        shun(k, n);
}

static bool is_shunned(const struct kad *k, const struct note *n)
{
    return n != NULL && n->shunned_until_ns > k->now_ns;
}

bool kad_note_is_shunned(const struct kad *k, kad_peer p)
{
    return k->shunning > 0 && is_shunned(k, map_get(&k->notes, &p));
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
        if (k->now_ns - n->at_ns < REFILLED_NS || n->no_dht_until_ns > k->now_ns ||
            is_shunned(k, n))
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
