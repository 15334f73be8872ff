#include <string.h>

#include "base/err.h"
#include "kademlia/engine.h"

#define EVICT_MAX    64 /* records removed to make room for one */
#define YEAR_2020_NS INT64_C(1577836800000000000)
#define DAY_NS       (INT64_C(86400) * (int64_t)NS_PER_S)

/* ---- what a record is good for ---- */

/* Nothing but our own lives longer than so from now: what seems to was stored under a clock that has been set back
 * since. */
static int64_t longest_ns(const struct kad *k, const struct store_rec *r)
{
    int64_t ttl = (int64_t)kad_ms(k->lim.ttl_ms);

    return r->origin == STORE_OWN ? INT64_MAX : ttl + ttl / 8;
}

static int64_t left_ns(const struct kad *k, const struct store_rec *r)
{
    int64_t until = r->expires_ns;

    if (r->origin == STORE_OWN && k->shared && !pubkey_equal(&r->charged, &k->self))
        until = r->stored_ns +
                (int64_t)kad_ms(k->lim.ttl_ms); /* of a node beside us, which publishes it anew */
    return until - kad_steady_ns(k);
}

/* Nothing of a key that may not write here any more. */
bool kad_rec_is_live(const struct kad *k, const struct store_rec *r)
{
    int64_t left = left_ns(k, r);

    return left > 0 && left <= longest_ns(k, r) && kad_may_write(k, &r->item, &r->charged);
}

int64_t kad_rec_turns_ns(const struct kad *k, const struct store_rec *r)
{
    int64_t left = left_ns(k, r), longest = longest_ns(k, r), now = kad_steady_ns(k);

    if (left <= 0)
        return INT64_MAX;
    return left <= longest ? now + left : now + left - longest;
}

bool kad_rec_is_fresh(const struct kad *k, const struct store_rec *r)
{
    int64_t now = kad_steady_ns(k);

    if (r->origin == STORE_OWN)
        return true;
    return r->stored_ns <= now && now - r->stored_ns < (int64_t)kad_ms(k->lim.cache_fresh_ms);
}

static bool is_usable(const struct kad *k, const struct store_rec *r, enum kad_use use)
{
    if (!kad_rec_is_live(k, r))
        return false;
    switch (use) {
    case KAD_USE_LIVE:
        return true;
    case KAD_USE_SERVED:
        return r->origin != STORE_CACHE || kad_rec_is_fresh(k, r);
    case KAD_USE_FRESH:
        return kad_rec_is_fresh(k, r);
    }
    return false;
}

int kad_store_best(struct kad *k, const struct kad_id *target, enum kad_use use,
                   struct store_rec *out)
{
    for (int kind = ITEM_OWNER; kind < ITEM_KIND__COUNT; kind++) {
        int rc = k->store->ops->get(k->store, target, (enum item_kind)kind, out);
        if (rc == 0 && is_usable(k, out, use))
            return 0;
    }
    return ERR_NOT_FOUND;
}

struct item_ref *kad_rec_item(const struct store_rec *r)
{
    return r->ref != NULL ? item_ref_get(r->ref) : item_ref_new(&r->item);
}

bool kad_seq_is_clock(const struct kad *k, uint64_t seq)
{
    int64_t now = env_wall_ns(k->env);

    return seq <= INT64_MAX && (int64_t)seq >= YEAR_2020_NS && (int64_t)seq <= now + DAY_NS;
}

int kad_store_del(struct kad *k, const struct kad_id *target, enum item_kind kind)
{
    int rc = k->store->ops->del(k->store, target, kind);

    if (rc == 0)
        kad_inventory_changed(k, target);
    return rc;
}

/* ---- lifetimes ---- */

/* An entry that certifies itself, brought by a service that has to mirror all of them and can take it
 * back: it lives as long as an item of its owner's (dht.md §5.4). */
static bool is_of_mirror(const struct kad_accept *a)
{
    return kad_keyset_has(&a->check.k->mirrors, &a->check.item->item.k);
}

/* How long the item may live from now on. Copies that came from somebody else than the owner (sync,
 * handing on, third parties) are as old as their sequence number says, when that is a clock:
 * otherwise nodes that hand an item to each other would keep it alive for ever (incident 63). */
static int64_t life_ns(const struct kad_accept *a)
{
    const struct kad *k = a->check.k;
    int64_t ttl = (int64_t)kad_ms(k->lim.ttl_ms);
    uint64_t seq = a->check.item->item.seq;

    if (a->check.cls.kind == ITEM_CERT && !is_of_mirror(a))
        return (int64_t)kad_ms(k->lim.cert_ttl_ms);
    if (a->check.cls.kind == ITEM_CERT && a->check.cls.rank_time > 0)
        seq = (uint64_t)a->check.cls.rank_time; /* a mirror's number is the entry's, no clock */
    if (a->from_owner || a->via == KAD_VIA_OWN || !kad_seq_is_clock(k, seq))
        return ttl;
    int64_t age = env_wall_ns(k->env) - (int64_t)seq;
    if (age <= 0)
        return ttl;
    return age < ttl - ttl / 8 ? ttl - age : ttl / 8;
}

static int64_t expiry(const struct kad_accept *a, enum store_origin origin)
{
    if (origin == STORE_OWN && !kad_is_tombstone(&a->check.item->item))
        return INT64_MAX;
    int64_t life = life_ns(a);
    return kad_steady_ns(a->check.k) + life -
           life % (int64_t)NS_PER_MS; /* whole ms take less room */
}

/* ---- room ---- */

enum over { OVER_ITEMS = 1, OVER_BYTES = 2 };

/* Which limits so many more would break. */
static unsigned is_over(const struct kad *k, uint64_t more_items, uint64_t more_bytes)
{
    struct store_stat st;
    unsigned over = 0;

    k->store->ops->stat(k->store, &st);
    /* One budget for all processes that share a store. */
    uint64_t max_bytes = st.shared ? st.budget_bytes : k->lim.max_bytes;
    if (k->lim.max_items > 0 && st.items + more_items > k->lim.max_items)
        over |= OVER_ITEMS;
    if (max_bytes > 0 && st.bytes + more_bytes > max_bytes)
        over |= OVER_BYTES;
    return over;
}

static bool is_protected(const struct store_rec *rec)
{
    return rec->tier != ITEM_TIER_PUBLIC || rec->origin == STORE_OWN;
}

static size_t item_len(const struct item *it)
{
    return it->v_len + it->salt_len;
}

/* Remove the record that should go first. For a newcomer of the public tier, a regular node does not
 * give up a replica that is closer to it than the newcomer: so a flood of far items cannot push out
 * those that this node is responsible for (incident 65). */
static bool evict_one(struct kad *k, const struct store_rec *newcomer)
{
    struct store_rec v;

    if (k->store->ops->victim(k->store, &v) != 0)
        return false;
    if (newcomer != NULL && !k->full && v.origin == STORE_REPLICA && !is_protected(newcomer) &&
        kad_id_closer(&k->table.self, &v.target, &newcomer->target) < 0)
        return false;
    struct kad_id target = v.target;
    enum item_kind kind = v.kind;
    if (v.origin == STORE_REPLICA)
        kad_group_removed(k, kad_group_of_key(k, &v.charged), item_len(&v.item), v.expires_ns);
    if (kad_store_del(k, &target, kind) != 0)
        return false;
    k->stat->evicted_items++;
    if (k->hooks.removed != NULL)
        k->hooks.removed(k->hooks.arg, &target, kind);
    return true;
}

/* Make room for a new record. Protected ones may go beyond the number of items, never beyond the
 * bytes. */
static bool make_room(struct kad *k, const struct store_rec *rec)
{
    uint64_t bytes = rec->item.v_len + rec->item.salt_len + STORE_RECORD_OVERHEAD;

    unsigned over = is_over(k, 1, bytes);

    for (int i = 0; i < EVICT_MAX && over != 0 && evict_one(k, rec); i++)
        over = is_over(k, 1, bytes);
    return over == 0 || (over == OVER_ITEMS && is_protected(rec));
}

void kad_store_trim(struct kad *k)
{
    for (int i = 0; i < EVICT_MAX && is_over(k, 0, 0) != 0 && evict_one(k, NULL); i++)
        continue;
}

/* ---- into the slot ---- */

static bool same_text(const struct item *a, const struct item *b)
{
    return a->v_len == b->v_len && (a->v_len == 0 || memcmp(a->v, b->v, a->v_len) == 0);
}

/* Older, the same or newer than what is in the slot: <0, 0, >0. */
static int compare(const struct kad_accept *a, const struct store_rec *old)
{
    const struct kad_class *cls = &a->check.cls;

    if (cls->kind != ITEM_CERT)
        return a->check.item->item.seq < old->item.seq ? -1
                                                       : a->check.item->item.seq > old->item.seq;
    if (cls->rank_time != old->rank_time)
        return cls->rank_time < old->rank_time ? -1 : 1;
    return cls->rank_seq < old->rank_seq ? -1 : cls->rank_seq > old->rank_seq;
}

/* What was in the slot leaves with its own expiry. */
static void count_for_group(const struct kad_accept *a, int64_t expires_ns)
{
    struct kad *k = a->check.k;

    if (a->group == KAD_GROUP_NONE || expires_ns == INT64_MAX)
        return;
    if (a->had)
        kad_group_removed(k, a->group, a->had_len, a->had_expires_ns);
    kad_group_stored(k, a->group, item_len(&a->check.item->item), expires_ns);
}

/* When somebody who knows said last that nothing newer exists: its owner, whose put it is, or the holders
 * that a look-up of ours began to ask then. What others hand on they may have missed a newer one of: no
 * user is told that without asking. */
static int64_t current_at(const struct kad_accept *a)
{
    const struct kad *k = a->check.k;
    bool handed_on = a->via == KAD_VIA_PULL || (a->via == KAD_VIA_PUT && !a->from_owner);

    return kad_steady_ns(k) - (int64_t)kad_ms(handed_on ? k->lim.cache_fresh_ms : a->age_ms);
}

/* The same item again. On the wire that is refused (incident 54). Inside, it makes a copy of ours a
 * replica, and it renews the lifetime when it comes from its owner, or carried again; what other
 * nodes hand around renews nothing. */
static int same_again(struct kad_accept *a, const struct store_rec *old)
{
    struct kad *k = a->check.k;
    struct store_rec rec = *old;
    bool was_cache = old->origin == STORE_CACHE;

    k->stat->verify_skipped++;
    if (a->via == KAD_VIA_PULL && !was_cache)
        return ERR_SEQ;
    if (current_at(a) > rec.stored_ns)
        rec.stored_ns = current_at(a);
    rec.tier = kad_tier_of(k, &old->charged);
    if (was_cache && a->via != KAD_VIA_CACHE)
        rec.origin = STORE_REPLICA;
    bool renews = a->from_owner || a->via == KAD_VIA_OWN ||
                  (a->check.cls.kind == ITEM_CERT && !is_of_mirror(a)) || rec.origin != old->origin;
    if (renews && expiry(a, rec.origin) > rec.expires_ns)
        rec.expires_ns = expiry(a, rec.origin);
    else if (!renews && a->via == KAD_VIA_PUT)
        return ERR_SEQ;
    int rc = k->store->ops->touch(k->store, &rec);
    if (rc != 0)
        return rc;
    count_for_group(a, rec.expires_ns);
    kad_inventory_changed(k, &rec.target);
    return rec.origin != old->origin ? 0 : ERR_SEQ;
}

/* The tombstone that a mirror put over an entry which certifies itself is in the slot of its own kind: it
 * ends what that mirror brought before, not what the owner or others bring. */
static bool is_taken_back(const struct kad_accept *a)
{
    struct kad *k = a->check.k;
    const struct kad_class *cls = &a->check.cls;
    struct store_rec gone;

    return cls->kind == ITEM_CERT && is_of_mirror(a) &&
           k->store->ops->get(k->store, &cls->target, ITEM_MIRROR, &gone) == 0 &&
           pubkey_equal(&gone.item.k, &a->check.item->item.k) && kad_is_tombstone(&gone.item) &&
           cls->rank_time >= 0 && (uint64_t)cls->rank_time <= gone.item.seq;
}

static void take_back(struct kad *k, const struct store_rec *gone)
{
    struct store_rec old;

    if (gone->kind == ITEM_MIRROR && kad_is_tombstone(&gone->item) &&
        k->store->ops->get(k->store, &gone->target, ITEM_CERT, &old) == 0 &&
        pubkey_equal(&old.item.k, &gone->item.k) &&
        kad_store_del(k, &gone->target, ITEM_CERT) == 0 && k->hooks.removed != NULL)
        k->hooks.removed(k->hooks.arg, &gone->target, ITEM_CERT);
}

/* A mirror brings an entry that somebody else carried here: from now on it is the mirror's, to renew and to
 * take back. */
static bool takes_over(const struct kad_accept *a, const struct store_rec *old)
{
    struct kad *k = a->check.k;

    return a->check.cls.kind == ITEM_CERT && a->from_owner && is_of_mirror(a) &&
           !pubkey_equal(&old->item.k, &a->check.item->item.k) &&
           kad_store_del(k, &a->check.cls.target, ITEM_CERT) == 0;
}

/* Compare with the slot before anything expensive is done: 0 = newer, and a->had tells whether the slot
 * was taken. Expired records still block (dht.md §2.3). */
static int look_at_slot(struct kad_accept *a)
{
    struct kad *k = a->check.k;
    struct store_rec old;
    int rc = is_taken_back(a)
                 ? ERR_SEQ
                 : k->store->ops->get(k->store, &a->check.cls.target, a->check.cls.kind, &old);

    a->had = rc == 0;
    if (rc != 0)
        return rc == ERR_NOT_FOUND || rc == ERR_CORRUPT ? 0 : rc;
    a->had_expires_ns = old.expires_ns;
    a->had_len = item_len(&old.item);
    int order = compare(a, &old);
    if (order > 0 || (order == 0 && takes_over(a, &old)))
        return 0;
    bool same = a->check.cls.kind == ITEM_CERT
                    ? order == 0 && same_text(&a->check.item->item, &old.item)
                    : item_equal(&a->check.item->item, &old.item);
    a->settled = same;
    return same ? same_again(a, &old) : ERR_SEQ;
}

/* The group that pays for the item of a peer's put: its publisher's where that is known, else that of
 * whoever brings it. Trusted and configured peers, and what we fetch ourselves, are not counted. */
static uint32_t group_that_pays(const struct kad_accept *a, const struct pubkey *from)
{
    const struct kad *k = a->check.k;
    const struct pubkey *charged = &a->check.cls.charged;

    if (k->peers.group == NULL || a->via != KAD_VIA_PUT || from == NULL ||
        kad_tier_of(k, charged) != ITEM_TIER_PUBLIC || kad_tier_of(k, from) != ITEM_TIER_PUBLIC ||
        kad_keyset_has(&k->bootstrap, from))
        return KAD_GROUP_NONE;
    uint32_t group = kad_group_of_key(k, charged);
    return group != KAD_GROUP_NONE ? group : kad_group_of_key(k, from);
}

static int check_quota(struct kad *k, const struct kad_class *cls)
{
    uint64_t slots = 0, bytes = 0;
    int rc = k->store->ops->usage(k->store, &cls->charged, &slots, &bytes);

    if (rc != 0 && rc != ERR_NOT_FOUND)
        return rc;
    return slots < k->lim.slots_per_key ? 0 : ERR_QUOTA;
}

static enum store_origin origin_of(const struct kad_accept *a)
{
    struct kad *k = a->check.k;
    struct store_rec old;

    if (a->via == KAD_VIA_OWN)
        return STORE_OWN;
    int rc = k->store->ops->get(k->store, &a->check.cls.target, a->check.cls.kind, &old);
    /* A newer item of our own key, from an earlier life of this node, stays ours; that of a node which
     * shares the store stays its own. */
    if (rc == 0 && old.origin == STORE_OWN &&
        (k->shared || pubkey_equal(&a->check.item->item.k, &k->self)))
        return STORE_OWN;
    if (a->via != KAD_VIA_CACHE || (rc == 0 && old.origin != STORE_CACHE))
        return STORE_REPLICA;
    return STORE_CACHE;
}

static int put_record(struct kad_accept *a)
{
    struct kad *k = a->check.k;
    const struct kad_class *cls = &a->check.cls;
    struct store_rec rec = {.target = cls->target,
                            .kind = cls->kind,
                            .item = a->check.item->item,
                            .stored_ns = current_at(a),
                            .tier = kad_tier_of(k, &cls->charged),
                            .origin = origin_of(a),
                            .charged = cls->charged,
                            .rank_time = cls->rank_time,
                            .rank_seq = cls->rank_seq,
                            .ref = a->check.item};

    rec.expires_ns = expiry(a, rec.origin);
    if (!make_room(k, &rec))
        return ERR_NO_SPACE;
    int rc = k->store->ops->put(k->store, &rec);
    for (int i = 0; rc == ERR_NO_SPACE && i < EVICT_MAX && evict_one(k, &rec); i++)
        rc = k->store->ops->put(k->store, &rec);
    if (rc == 0) {
        count_for_group(a, rec.expires_ns);
        take_back(k, &rec);
    }
    if (rc == 0 && k->hooks.stored != NULL)
        k->hooks.stored(k->hooks.arg, &rec);
    if (rc == 0) {
        kad_inventory_changed(k, &cls->target);
        kad_slot_changed(k, &cls->target);
    }
    return rc;
}

void kad_store_changed(struct kad *k, const struct kad_id *target, enum item_kind kind,
                       uint64_t now_ns)
{
    struct store_rec rec;

    kad_enter(k, now_ns);
    kad_inventory_changed(k, target);
    if (target != NULL)
        kad_slot_changed(k, target);
    if (target != NULL && k->hooks.stored != NULL &&
        k->store->ops->get(k->store, target, kind, &rec) == 0)
        k->hooks.stored(k->hooks.arg, &rec);
    kad_leave(k);
}

/* A number far ahead of our clock: the signer's is wrong, or ours (incident 53). The peers use other
 * numbers than clocks too, small and huge ones. */
static bool is_ahead(const struct kad *k, uint64_t seq)
{
    int64_t limit = env_wall_ns(k->env) + (int64_t)kad_ms(k->lim.clock_skew_ms);

    return seq < INT64_MAX && (int64_t)seq > limit;
}

/* What the slot and its owner's quota say: cheaper than a signature check. */
static int compare_slot(struct kad_accept *a)
{
    struct kad *k = a->check.k;
    int rc = look_at_slot(a);

    if (rc == 0 && !a->settled && !a->had && a->via != KAD_VIA_OWN &&
        a->check.cls.kind != ITEM_MIRROR &&
        kad_tier_of(k, &a->check.cls.charged) == ITEM_TIER_PUBLIC)
        rc = check_quota(k, &a->check.cls);
    if (rc == 0 && !a->settled && !a->had &&
        !kad_group_has_room(k, a->group, item_len(&a->check.item->item)))
        rc = ERR_QUOTA_GROUP;
    return rc;
}

/* Items that our own user wants published are verified whatever the slot holds: they go on to others
 * even when there is nothing new in them for us. */
static bool is_checked_first(const struct kad_accept *a)
{
    return a->via == KAD_VIA_LOCAL && !a->verified;
}

/* The item is what it says: remember our own numbers, then let the store decide about seq once
 * more. */
static int verified(struct kad_accept *a)
{
    struct kad *k = a->check.k;
    const struct item *it = &a->check.item->item;
    int rc = is_checked_first(a) ? compare_slot(a) : 0;

    if (rc != 0 || a->settled)
        return rc;
    if (a->check.cls.kind == ITEM_OWNER && pubkey_equal(&it->k, &k->self) &&
        a->via != KAD_VIA_OWN) {
        (void)kad_own_set(k, it->salt, it->salt_len, it->seq);
        k->stat->own_from_outside++;
    }
    k->stat->future_seq += is_ahead(k, it->seq);
    return put_record(a);
}

static void count_refusal(struct kad *k, int err)
{
    switch (err) {
    case ERR_TOO_LONG:
        k->stat->refused_size++;
        break;
    case ERR_SEQ:
        k->stat->refused_seq++;
        break;
    case ERR_SIG:
    case ERR_KEY:
        k->stat->refused_sig++;
        break;
    case ERR_QUOTA:
        k->stat->refused_quota++;
        break;
    case ERR_QUOTA_GROUP:
        k->stat->refused_group++;
        break;
    case ERR_REFUSED:
        k->stat->refused_foreign++;
        break;
    case ERR_BUSY:
        k->stat->refused_busy++;
        break;
    case ERR_NO_SPACE:
        k->stat->refused_space++;
        break;
    default:
        break;
    }
}

static void checked(struct kad_check *c, int err)
{
    struct kad_accept *a = container_of(c, struct kad_accept, check);

    if (err == 0)
        err = verified(a);
    count_refusal(c->k, err);
    a->done(a, err);
}

/* The checks of dht.md §2.3 with the signature moved to the end (design rule 4). */
int kad_accept_begin(struct kad_accept *a, struct kad *k, struct item_ref *item,
                     const struct kad_id *target, const struct pubkey *from)
{
    a->check.k = k;
    a->check.item = item_ref_get(item);
    a->check.done = checked;
    a->from_owner = from != NULL && pubkey_equal(from, &item->item.k);
    int rc = item_check_size(&item->item);
    if (rc == 0)
        rc = kad_classify(k, &item->item, target, &a->check.cls);
    if (rc == 0)
        a->group = group_that_pays(a, from);
    if (rc == 0 && !is_checked_first(a))
        rc = compare_slot(a);
    if (rc == 0 && !a->settled && !a->verified)
        rc = kad_check_begin(&a->check);
    if (rc == 0)
        rc = verified(a);
    if (rc != ERR_PENDING)
        count_refusal(k, rc);
    return rc;
}

void kad_accept_clear(struct kad_accept *a)
{
    kad_check_clear(&a->check);
}
