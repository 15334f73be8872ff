/*
 * Slots of our own key: which numbers were used, and what has to be republished.
 *
 * Kept in one small value of the store ("own"), which is durable before an item with a new number
 * leaves this node:
 *
 *     version u8 = 1 | for each slot: salt length u8 | salt | seq u64 BE
 *
 * Waiting for the disk at every publish would stop the loop too often, so numbers are kept ahead:
 * what stands in the store is up to KEEP_AHEAD_NS above what was used, and is written (and waited
 * for) only when a number passes it. After a restart numbers go on above what was kept.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cursor.h"
#include "base/err.h"
#include "kademlia/engine.h"

#define META_NAME    "own"
#define META_VERSION 1
#define JITTER       20 /* percent */
#define AT_ONCE      4  /* republished at the same time */

/* What a node of this age knows of the network is still growing, and so may the network be: it publishes
 * again as soon as a node that has restarted, not a whole period later. */
#define YOUNG_NS (300 * NS_PER_S)

#define KEEP_AHEAD_NS (60 * NS_PER_S) /* numbers are wall-clock nanoseconds */
#define DURABLE_MS    2000            /* longest wait for the disk */

struct kad_own {
    struct list_node node;
    uint64_t seq;    /* used last */
    uint64_t kept;   /* in the store: at least that */
    uint64_t due_ns; /* LOOP_NEVER = not to be republished */
    uint64_t
        acked_seq; /* of our last item that peers acknowledged, and who did: no references, a peer
                           is only compared */
    kad_peer acked[TABLE_MAX_K];
    size_t n_acked;
    size_t salt_len;
    uint8_t salt[];
};

static struct kad_own *find(const struct kad *k, const void *salt, size_t salt_len)
{
    struct list_node *n, *tmp;

    list_for_each(n, tmp, &k->own)
    {
        struct kad_own *o = container_of(n, struct kad_own, node);
        if (o->salt_len == salt_len && (salt_len == 0 || memcmp(o->salt, salt, salt_len) == 0))
            return o;
    }
    return NULL;
}

/* Make room: a slot that is not republished has a number of the past, below the clock by now. */
static void forget_one(struct kad *k)
{
    struct list_node *n, *tmp;

    list_for_each(n, tmp, &k->own)
    {
        struct kad_own *o = container_of(n, struct kad_own, node);
        if (o->due_ns != LOOP_NEVER)
            continue;
        list_remove(&o->node);
        free(o);
        k->n_own--;
        return;
    }
}

static struct kad_own *add(struct kad *k, const void *salt, size_t salt_len)
{
    if (k->n_own >= KAD_MAX_OWN)
        forget_one(k);
    struct kad_own *o = k->n_own < KAD_MAX_OWN ? calloc(1, sizeof *o + salt_len) : NULL;

    if (o == NULL)
        return NULL;
    o->due_ns = LOOP_NEVER;
    o->salt_len = salt_len;
    if (salt_len > 0)
        memcpy(o->salt, salt, salt_len);
    list_push_back(&k->own, &o->node);
    k->n_own++;
    return o;
}

uint64_t kad_own_seq(const struct kad *k, const void *salt, size_t salt_len)
{
    const struct kad_own *o = find(k, salt, salt_len);

    return o != NULL ? o->seq : 0;
}

void kad_own_acked(struct kad *k, const struct item *it, kad_peer p)
{
    struct kad_own *o = find(k, it->salt, it->salt_len);

    if (o == NULL || it->seq < o->acked_seq)
        return;
    if (it->seq > o->acked_seq)
        o->n_acked = 0;
    o->acked_seq = it->seq;
    if (o->n_acked < TABLE_MAX_K)
        o->acked[o->n_acked++] = p;
}

bool kad_own_is_behind(const struct kad *k, const struct item *it, kad_peer p)
{
    const struct kad_own *o =
        pubkey_equal(&it->k, &k->self) ? find(k, it->salt, it->salt_len) : NULL;

    for (size_t i = 0; o != NULL && it->seq < o->acked_seq && i < o->n_acked; i++) {
        if (o->acked[i] == p)
            return true;
    }
    return false;
}

static int save(struct kad *k)
{
    struct list_node *n, *tmp;
    size_t len = 1;

    list_for_each(n, tmp, &k->own)
    {
        len += 9 + container_of(n, struct kad_own, node)->salt_len;
    }
    uint8_t *p = malloc(len), *q = p;
    if (p == NULL)
        return ERR_NOMEM;
    *q++ = META_VERSION;
    list_for_each(n, tmp, &k->own)
    {
        const struct kad_own *o = container_of(n, struct kad_own, node);
        *q++ = (uint8_t)o->salt_len;
        memcpy(q, o->salt, o->salt_len);
        q += o->salt_len;
        put_be64(q, o->kept);
        q += 8;
    }
    int rc = k->store->ops->meta_put(k->store, META_NAME, p, len);
    free(p);
    return rc;
}

int kad_own_set(struct kad *k, const void *salt, size_t salt_len, uint64_t seq)
{
    struct kad_own *o = find(k, salt, salt_len);

    if (o != NULL && o->seq >= seq)
        return 0;
    if (o == NULL)
        o = add(k, salt, salt_len);
    if (o == NULL)
        return ERR_LIMIT;
    o->seq = seq;
    if (seq <= o->kept)
        return 0;
    o->kept = seq < UINT64_MAX - KEEP_AHEAD_NS ? seq + KEEP_AHEAD_NS : seq;
    int rc = save(k);
    if (rc == 0)
        rc = k->store->ops->sync(k->store, DURABLE_MS);
    if (rc != 0)
        o->kept = 0; /* not known to be there: the next number tries again */
    return rc;
}

/* A tenth to a fifth of a period from now. */
static uint64_t soon(const struct kad *k)
{
    uint64_t tenth = kad_ms(k->lim.republish_ms) / 10;

    return kad_after(k, tenth + env_random_below(k->env, tenth + 1));
}

void kad_own_published(struct kad *k, const void *salt, size_t salt_len, bool again)
{
    struct kad_own *o = find(k, salt, salt_len);
    uint64_t period = kad_ms(k->lim.republish_ms);

    if (o == NULL)
        return;
    /* Jittered downwards only: at the latest when half of the lifetime is over. */
    if (!again)
        o->due_ns = LOOP_NEVER;
    else if (k->now_ns - k->born_ns < YOUNG_NS)
        o->due_ns = soon(k);
    else
        o->due_ns = kad_after(k, period - env_random_below(k->env, period / 100 * JITTER + 1));
    kad_maintain_own_changed(k);
}

/* Read one slot; false at the end of the bytes or when they are damaged. */
static bool load_one(struct kad *k, const uint8_t **p, size_t *left)
{
    if (*left < 9 || *left - 9 < (*p)[0])
        return false;
    size_t salt_len = (*p)[0];
    struct kad_own *o = salt_len <= ITEM_MAX_SALT ? add(k, *p + 1, salt_len) : NULL;
    if (o == NULL)
        return false;
    o->seq = o->kept = get_be64(*p + 1 + salt_len);
    /* Soon after a start, so that what others still hold of us does not run out. */
    o->due_ns = soon(k);
    *p += 9 + salt_len;
    *left -= 9 + salt_len;
    return true;
}

/* Damaged or missing: the clock and the network give numbers that are high enough. */
void kad_own_load(struct kad *k)
{
    size_t n = 0;
    int rc = k->store->ops->meta_get(k->store, META_NAME, NULL, 0, &n);
    uint8_t *buf = rc == 0 && n > 0 ? malloc(n) : NULL;

    if (buf == NULL)
        return;
    size_t got = n;
    if (k->store->ops->meta_get(k->store, META_NAME, buf, n, &got) == 0 && got == n &&
        buf[0] == META_VERSION) {
        const uint8_t *p = buf + 1;
        size_t left = n - 1;
        while (load_one(k, &p, &left))
            continue;
    }
    free(buf);
}

void kad_own_free(struct kad *k)
{
    struct list_node *n;

    while ((n = list_pop_front(&k->own)) != NULL)
        free(container_of(n, struct kad_own, node));
    k->n_own = 0;
}

/* Publish what is in the slot again, under a new number. False: later, too much is under way. */
static bool republish(struct kad *k, struct kad_own *o)
{
    struct kad_id target = kad_target(&k->self, o->salt, o->salt_len);
    struct store_rec r;

    if (k->store->ops->get(k->store, &target, ITEM_OWNER, &r) != 0 ||
        (r.origin != STORE_OWN && !k->shared) || kad_is_tombstone(&r.item)) {
        o->due_ns = LOOP_NEVER;
        return true;
    }
    /* The old value must not overtake the new one. */
    if (kad_put_is_coming(k, &target) ||
        !kad_put_own(k, o->salt, o->salt_len, r.item.v, r.item.v_len, NULL))
        return false;
    o->due_ns = kad_after(k, kad_ms(k->lim.republish_ms)); /* set anew when it was published */
    k->stat->republished++;
    return true;
}

uint64_t kad_own_republish(struct kad *k)
{
    uint64_t next = LOOP_NEVER;
    struct list_node *n, *tmp;
    int started = 0;

    list_for_each(n, tmp, &k->own)
    {
        struct kad_own *o = container_of(n, struct kad_own, node);
        if (o->due_ns <= k->now_ns && (started++ >= AT_ONCE || !republish(k, o)))
            o->due_ns = kad_after(k, NS_PER_S); /* the rest in a moment */
        if (o->due_ns < next)
            next = o->due_ns;
    }
    return next;
}
