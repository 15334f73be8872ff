/*
 * Groups of contacts. Keys are free and behind relays there are no addresses, so peers are grouped by the
 * relays that lead to them (docs/protocol/dht.md §9.4). What is kept here of each group: whether its relays
 * seem to be down, and how much its publishers have in our store.
 *
 *     well      a contact of it answered or called since the last failures
 *       | SUSPECT_AFTER different ones failed, and nobody of it was heard since they were asked, nor
 *       | within QUIET_NS
 *     suspect   look-ups pass its contacts over, one is tried every PROBE_NS; failures are not their fault
 *       | anybody of it is heard
 *     well
 *
 * Slots are counted by when they expire, in windows of an eighth of a lifetime: what lapses leaves the count
 * by itself, and a miscount (a publisher that moved to other relays) is gone with it.
 */
#include <stdlib.h>
#include <string.h>

#include "kademlia/engine.h"

#define SUSPECT_AFTER     4
#define SUSPECT_WITHIN_NS (60 * NS_PER_S)
#define QUIET_NS          NS_PER_S
#define PROBE_NS          (10 * NS_PER_S)
#define WINDOWS           11 /* lifetimes are at most 9/8 of ttl_ms, and the present one is not over */
#define UNIT_BYTES        256u
#define ROOM_SHARE        2 /* one group has at most a half of the store, beside others */

struct share {
    uint32_t slots, units;
};

struct group {
    uint32_t id;
    struct list_node lru;
    uint64_t heard_ns;
    uint64_t suspect_ns; /* since when; 0 = not */
    uint64_t probe_ns;   /* when one may be tried next */
    uint64_t failed_ns;  /* the first of those that failed */
    kad_peer failed[SUSPECT_AFTER];
    uint8_t n_failed;
    struct share all, window[WINDOWS]; /* by expiry, a ring */
    uint32_t contacts;                 /* while they are counted */
};

struct kad_groups {
    struct map by_id;
    struct list lru; /* least recently used first */
    int64_t at;      /* present window */
    struct share all;
};

static struct kad_groups *groups_of(struct kad *k)
{
    if (k->groups == NULL && (k->groups = calloc(1, sizeof *k->groups)) != NULL) {
        map_init(&k->groups->by_id, MAP_KEY(struct group, id), k->env->hash_key, KAD_MAX_GROUPS);
        list_init(&k->groups->lru);
    }
    return k->groups;
}

static void forget(struct kad_groups *gs, struct group *g)
{
    gs->all.slots -= g->all.slots;
    gs->all.units -= g->all.units;
    map_del(&gs->by_id, &g->id);
    list_remove(&g->lru);
    free(g);
}

static struct group *find(const struct kad *k, uint32_t id)
{
    return k->groups != NULL && id != KAD_GROUP_NONE ? map_get(&k->groups->by_id, &id) : NULL;
}

/* The group, marked as used; NULL: it is none, or no memory. */
static struct group *get(struct kad *k, uint32_t id)
{
    struct kad_groups *gs = id != KAD_GROUP_NONE ? groups_of(k) : NULL;
    struct group *g = find(k, id);

    if (gs == NULL)
        return NULL;
    if (g != NULL) {
        list_remove(&g->lru);
        list_push_back(&gs->lru, &g->lru);
        return g;
    }
    if (map_len(&gs->by_id) >= KAD_MAX_GROUPS) {
        g = list_first_as(&gs->lru, struct group, lru);
        k->groups_suspect -= g->suspect_ns != 0;
        k->stat->groups_forgotten++;
        forget(gs, g);
    }
    g = calloc(1, sizeof *g);
    if (g == NULL)
        return NULL;
    g->id = id;
    if (map_put(&gs->by_id, g) != 0) {
        free(g);
        return NULL;
    }
    list_push_back(&gs->lru, &g->lru);
    return g;
}

void kad_groups_free(struct kad *k)
{
    if (k->groups == NULL)
        return;
    while (!list_empty(&k->groups->lru))
        forget(k->groups, list_first_as(&k->groups->lru, struct group, lru));
    map_free(&k->groups->by_id);
    free(k->groups);
    k->groups = NULL;
}

uint32_t kad_group_of(const struct kad *k, kad_peer p)
{
    return k->peers.group != NULL && p != KAD_PEER_NONE ? k->peers.group(k->peers.arg, p)
                                                        : KAD_GROUP_NONE;
}

/* ---- health ---- */

void kad_group_heard(struct kad *k, kad_peer p)
{
    struct group *g = get(k, kad_group_of(k, p));

    if (g == NULL)
        return;
    g->heard_ns = k->now_ns;
    g->n_failed = 0;
    if (g->suspect_ns == 0)
        return;
    g->suspect_ns = 0;
    k->groups_suspect--;
}

static bool has_failed(const struct group *g, kad_peer p)
{
    for (unsigned i = 0; i < g->n_failed; i++) {
        if (g->failed[i] == p)
            return true;
    }
    return false;
}

void kad_group_failed(struct kad *k, kad_peer p, uint64_t asked_ns)
{
    struct group *g = get(k, kad_group_of(k, p));

    /* Whoever else of it was heard meanwhile came through the same relays. */
    if (g == NULL || g->suspect_ns != 0 || g->heard_ns >= asked_ns ||
        (g->heard_ns != 0 && k->now_ns - g->heard_ns < QUIET_NS))
        return;
    if (g->n_failed > 0 && k->now_ns - g->failed_ns > SUSPECT_WITHIN_NS)
        g->n_failed = 0;
    if (has_failed(g, p))
        return;
    if (g->n_failed == 0)
        g->failed_ns = k->now_ns;
    g->failed[g->n_failed++] = p;
    if (g->n_failed < SUSPECT_AFTER)
        return;
    g->suspect_ns = k->now_ns;
    g->probe_ns = k->now_ns; /* the first try at once: it may have been chance */
    k->groups_suspect++;
    k->stat->groups_suspected++;
}

bool kad_is_suspect(const struct kad *k, uint32_t id)
{
    const struct group *g = find(k, id);

    return g != NULL && g->suspect_ns != 0;
}

bool kad_group_is_suspect(const struct kad *k, kad_peer p)
{
    return k->groups_suspect > 0 && kad_is_suspect(k, kad_group_of(k, p));
}

bool kad_group_may_probe(const struct kad *k, kad_peer p)
{
    const struct group *g = find(k, kad_group_of(k, p));

    return g != NULL && k->now_ns >= g->probe_ns;
}

void kad_group_probed(struct kad *k, kad_peer p)
{
    struct group *g = find(k, kad_group_of(k, p));

    if (g != NULL)
        g->probe_ns = kad_after(k, PROBE_NS);
}

/* ---- quota ---- */

static int64_t window_ns(const struct kad *k)
{
    return (int64_t)kad_ms(k->lim.ttl_ms) / 8 + 1;
}

static struct share share_of(size_t len)
{
    return (struct share){.slots = 1,
                          .units = (uint32_t)((len + STORE_RECORD_OVERHEAD) / UNIT_BYTES)};
}

static void take_out(struct share *from, const struct share *s)
{
    from->slots -= s->slots < from->slots ? s->slots : from->slots;
    from->units -= s->units < from->units ? s->units : from->units;
}

static void put_in(struct share *to, const struct share *s)
{
    to->slots += s->slots;
    to->units += s->units;
}

/* Windows that are over leave the counts. */
static void age(struct kad *k)
{
    struct kad_groups *gs = k->groups;
    int64_t now = kad_steady_ns(k) / window_ns(k), gone = now - gs->at;
    struct list_node *n, *tmp;

    if (gone <= 0)
        return;
    list_for_each(n, tmp, &gs->lru)
    {
        struct group *g = container_of(n, struct group, lru);
        for (int64_t i = 0; i < gone && i < WINDOWS; i++) {
            struct share *s = &g->window[(gs->at + i) % WINDOWS];
            take_out(&g->all, s);
            take_out(&gs->all, s);
            memset(s, 0, sizeof *s);
        }
    }
    gs->at = now;
}

/* The window in which such a record expires; NULL: it has expired. */
static struct share *window_of(struct kad *k, struct group *g, int64_t expires_ns)
{
    int64_t at = expires_ns / window_ns(k), last = k->groups->at + WINDOWS - 1;

    if (at < k->groups->at)
        return NULL;
    return &g->window[(at < last ? at : last) % WINDOWS];
}

bool kad_group_has_room(struct kad *k, uint32_t id, size_t len)
{
    struct group *g = get(k, id);
    struct share more = share_of(len);
    struct store_stat st;

    if (g == NULL)
        return true;
    age(k);
    if (g->all.slots == k->groups->all.slots)
        return true; /* the only one */
    uint64_t slots =
        k->lim.slots_per_group > 0 ? k->lim.slots_per_group : k->lim.max_items / ROOM_SHARE;
    k->store->ops->stat(k->store, &st);
    uint64_t bytes = (st.shared ? st.budget_bytes : k->lim.max_bytes) / ROOM_SHARE;
    return (slots == 0 || g->all.slots < slots) &&
           (bytes == 0 || (uint64_t)(g->all.units + more.units) * UNIT_BYTES <= bytes);
}

void kad_group_stored(struct kad *k, uint32_t id, size_t len, int64_t expires_ns)
{
    struct group *g = get(k, id);
    struct share s = share_of(len);

    if (g == NULL)
        return;
    age(k);
    struct share *w = window_of(k, g, expires_ns);
    if (w == NULL)
        return;
    put_in(w, &s);
    put_in(&g->all, &s);
    put_in(&k->groups->all, &s);
}

void kad_group_removed(struct kad *k, uint32_t id, size_t len, int64_t expires_ns)
{
    struct group *g = find(k, id);
    struct share s = share_of(len);

    if (g == NULL)
        return;
    age(k);
    struct share *w = window_of(k, g, expires_ns);
    if (w == NULL)
        return;
    if (w->slots == 0) /* counted in another group, or before a restart */
        return;
    if (s.units > w->units)
        s.units = w->units;
    take_out(w, &s);
    take_out(&g->all, &s);
    take_out(&k->groups->all, &s);
}

uint32_t kad_group_of_key(const struct kad *k, const struct pubkey *pk)
{
    kad_peer p = k->peers.group != NULL ? kad_intern(k, pk) : KAD_PEER_NONE;
    uint32_t id = kad_group_of(k, p);

    if (p != KAD_PEER_NONE)
        kad_unref(k, p);
    return id;
}

/* ---- looking in ---- */

static bool count_contact(void *arg, const struct kad_contact *c)
{
    struct kad *k = arg;
    struct group *g = get(k, c->group);

    if (g != NULL)
        g->contacts++;
    return true;
}

static int by_id(const void *a, const void *b)
{
    const struct kad_group_info *x = a, *y = b;

    return x->group < y->group ? -1 : x->group > y->group;
}

size_t kad_groups(struct kad *k, struct kad_group_info *out, size_t cap)
{
    struct list_node *n, *tmp;
    size_t found = 0;

    kad_contacts(k, count_contact, k);
    if (k->groups == NULL)
        return 0;
    age(k);
    list_for_each(n, tmp, &k->groups->lru)
    {
        struct group *g = container_of(n, struct group, lru);
        if (found < cap && (g->contacts > 0 || g->all.slots > 0 || g->suspect_ns != 0))
            out[found++] = (struct kad_group_info){.group = g->id,
                                                   .contacts = g->contacts,
                                                   .slots = g->all.slots,
                                                   .bytes = (uint64_t)g->all.units * UNIT_BYTES,
                                                   .heard_ns = g->heard_ns,
                                                   .suspect_ns = g->suspect_ns};
        g->contacts = 0;
    }
    qsort(out, found, sizeof *out, by_id);
    return found;
}
