#include "kademlia/table.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/cursor.h"
#include "base/err.h"

#define STEP_BITS    30 /* times are kept in steps of 2^30 ns: 28 bits of them are nine years */
#define SAVE_VERSION 1

struct entry {
    kad_peer peer;
    uint32_t heard : 28;
    uint32_t unanswered : 3;
    uint32_t asked : 1; /* a ping is under way because somebody wants its place */
};

_Static_assert(sizeof(struct entry) == 8, "a million virtual nodes have twenty million of these");
_Static_assert(TABLE_FORGET <= 7, "three bits");

struct table_bucket {
    uint8_t n;       /* e[0 … n-1]: contacts, least recently heard first */
    uint8_t waiting; /* e[n … n+waiting-1]: replacement cache, the most recent one last */
    uint8_t cap;
    struct entry e[];
};

static uint32_t step_of(uint64_t now_ns)
{
    return (uint32_t)(now_ns >> STEP_BITS) & ((1u << 28) - 1);
}

void table_init(struct table *t, const struct kad_id *self, const struct kad_peers *peers,
                unsigned k, uint64_t now_ns)
{
    assert(k > 0 && k <= TABLE_MAX_K);
    memset(t, 0, sizeof *t);
    t->self = *self;
    t->peers = peers;
    t->k = (uint8_t)k;
    t->born = step_of(now_ns);
}

void table_close(struct table *t)
{
    for (size_t i = 0; i < t->n_slots; i++) {
        struct table_bucket *b = t->slots[i].bucket;
        for (size_t j = 0; b != NULL && j < (size_t)b->n + b->waiting; j++)
            t->peers->unref(t->peers->arg, b->e[j].peer);
        free(b);
    }
    free(t->slots);
    memset(t, 0, sizeof *t);
}

/* ---- buckets ---- */

static const struct kad_id *id_of(const struct table *t, kad_peer p)
{
    return t->peers->id(t->peers->arg, p);
}

static unsigned index_of(const struct table *t, kad_peer p)
{
    return kad_id_bucket(&t->self, id_of(t, p));
}

static struct table_bucket *bucket_at(const struct table *t, unsigned index)
{
    return index < t->n_slots ? t->slots[index].bucket : NULL;
}

static bool is_dead(const struct entry *e)
{
    return e->unanswered >= TABLE_DEAD;
}

/* Position in the bucket or, behind it, in the cache; -1 when p is in neither. */
static int find(const struct table_bucket *b, kad_peer p)
{
    for (int i = 0; b != NULL && i < b->n + b->waiting; i++) {
        if (b->e[i].peer == p)
            return i;
    }
    return -1;
}

/* Take entry i out; the order of the others stays. The caller owns its reference then. */
static struct entry take(struct table *t, struct table_bucket *b, int i)
{
    struct entry e = b->e[i];
    int all = b->n + b->waiting;

    memmove(&b->e[i], &b->e[i + 1], (size_t)(all - i - 1) * sizeof b->e[0]);
    if (i < b->n) {
        b->n--;
        t->total--;
        t->live -= !is_dead(&e);
    } else {
        b->waiting--;
    }
    return e;
}

/* Put a contact into the bucket proper, which has room, at its place in the order of last contact.
 */
static void put(struct table *t, struct table_bucket *b, struct entry e)
{
    int i = b->n;

    assert(b->n < t->k && b->n + b->waiting < b->cap);
    while (i > 0 && b->e[i - 1].heard > e.heard)
        i--;
    memmove(&b->e[i + 1], &b->e[i], (size_t)(b->n + b->waiting - i) * sizeof b->e[0]);
    b->e[i] = e;
    b->n++;
    t->total++;
    t->live += !is_dead(&e);
}

static void put_waiting(const struct table *t, struct table_bucket *b, struct entry e)
{
    if (b->waiting == TABLE_CACHE) {
        struct entry *oldest = &b->e[b->n];
        t->peers->unref(t->peers->arg, oldest->peer);
        memmove(oldest, oldest + 1, (TABLE_CACHE - 1) * sizeof *oldest);
        b->waiting--;
    }
    b->e[b->n + b->waiting++] = e;
}

static int grow_slots(struct table *t, unsigned index)
{
    if (index < t->n_slots)
        return 0;
    struct table_slot *slots = realloc(t->slots, (index + 1) * sizeof *slots);
    if (slots == NULL)
        return ERR_NOMEM;
    for (unsigned i = t->n_slots; i <= index; i++)
        slots[i] = (struct table_slot){.looked_up = t->born};
    t->slots = slots;
    t->n_slots = (uint16_t)(index + 1);
    return 0;
}

/* The bucket with room for one entry more in contacts or cache; NULL when out of memory. */
static struct table_bucket *bucket_for_one_more(struct table *t, unsigned index)
{
    if (grow_slots(t, index) != 0)
        return NULL;
    struct table_bucket *b = t->slots[index].bucket;
    unsigned used = b != NULL ? b->n + b->waiting : 0, most = t->k + TABLE_CACHE;
    if (b != NULL && (used < b->cap || b->cap == most))
        return b;
    unsigned cap = used < 4 ? used + 2 : used + used / 2;
    if (used < t->k && cap > t->k)
        cap = t->k; /* many never get a newcomer that waits */
    if (cap > most)
        cap = most;
    struct table_bucket *grown = realloc(b, sizeof *b + cap * sizeof b->e[0]);
    if (grown == NULL)
        return NULL;
    b = grown;
    if (used == 0)
        b->n = b->waiting = 0;
    b->cap = (uint8_t)cap;
    t->slots[index].bucket = b;
    return b;
}

/* ---- what was heard and what was not ---- */

static void mark_heard(struct entry *e, bool answered, uint64_t now_ns)
{
    unsigned bound = answered ? 0 : 1;

    e->heard = step_of(now_ns) & ((1u << 28) - 1);
    e->asked = e->asked && !answered;
    if (e->unanswered > bound)
        e->unanswered = bound & 7u;
}

/* Least recently heard contact that is dead, -1 when all live. */
static int find_dead(const struct table_bucket *b)
{
    for (int i = 0; i < b->n; i++) {
        if (is_dead(&b->e[i]))
            return i;
    }
    return -1;
}

static void drop(struct table *t, struct table_bucket *b, int i)
{
    struct entry e = take(t, b, i);
    t->peers->unref(t->peers->arg, e.peer);
}

static void evict(struct table *t, struct table_bucket *b, int i)
{
    drop(t, b, i);
    t->evictions++;
}

/* ---- contacts behind the same relays ---- */

static uint32_t group_of(const struct table *t, kad_peer p)
{
    return t->peers->group != NULL ? t->peers->group(t->peers->arg, p) : KAD_GROUP_NONE;
}

/* Contacts of a group in the bucket proper. */
static int count_group(const struct table *t, const struct table_bucket *b, uint32_t group)
{
    int n = 0;

    for (int i = 0; i < b->n; i++)
        n += group_of(t, b->e[i].peer) == group;
    return n;
}

/* Is it of a group that has all the places of its own here, or of which nothing is known? */
static bool is_common(const struct table *t, const struct table_bucket *b, kad_peer p)
{
    uint32_t group = group_of(t, p);

    return group == KAD_GROUP_NONE || count_group(t, b, group) >= TABLE_GROUP_SHARE(t->k);
}

/* The least recently heard contact of a group that has more places of a full bucket than its own, when
 * p is not of it; -1: there is none. */
static int find_on_loan(const struct table *t, const struct table_bucket *b, kad_peer p)
{
    uint32_t mine = group_of(t, p);

    /* The first contact of a group that has so many comes among the first few. */
    for (int i = 0; mine != KAD_GROUP_NONE && i <= b->n - TABLE_GROUP_SHARE(t->k); i++) {
        uint32_t group = group_of(t, b->e[i].peer);
        if (group == KAD_GROUP_NONE || group == mine)
            continue;
        if (count_group(t, b, group) > TABLE_GROUP_SHARE(t->k))
            return i;
    }
    return -1;
}

/* Give a place that has become free to the most recent newcomer, if there is one, rather to one whose
 * relays are not those of most others here. */
static void promote(struct table *t, struct table_bucket *b)
{
    int last = b->n + b->waiting - 1, i = last;

    if (b->waiting == 0)
        return;
    while (t->peers->group != NULL && i > b->n && is_common(t, b, b->e[i].peer))
        i--;
    if (is_common(t, b, b->e[i].peer))
        i = last;
    put(t, b, take(t, b, i));
}

/* The head of a full bucket, when it makes sense to ask whether it lives. */
static kad_peer head_to_ask(struct table_bucket *b, uint64_t now_ns)
{
    struct entry *head = &b->e[0];

    if (head->asked || ((uint64_t)head->heard << STEP_BITS) + TABLE_QUIET_NS > now_ns)
        return KAD_PEER_NONE;
    head->asked = 1;
    return head->peer;
}

enum table_result table_heard(struct table *t, kad_peer p, bool answered, uint64_t now_ns,
                              kad_peer *ask)
{
    unsigned index = index_of(t, p);
    struct table_bucket *b = bucket_at(t, index);
    int at = find(b, p);
    struct entry e = {.peer = p};

    if (ask != NULL)
        *ask = KAD_PEER_NONE;
    if (kad_id_equal(&t->self, id_of(t, p)))
        return TABLE_SELF;
    bool was_contact = at >= 0 && at < b->n;
    if (at >= 0) {
        e = take(t, b, at);
    } else {
        b = bucket_for_one_more(t, index);
        if (b == NULL)
            return TABLE_DROPPED;
        t->peers->ref(t->peers->arg, p);
    }
    mark_heard(&e, answered, now_ns);
    if (b->n == t->k && find_dead(b) >= 0)
        evict(t, b, find_dead(b));
    int loan = answered && b->n == t->k ? find_on_loan(t, b, p) : -1;
    if (loan >= 0) {
        put_waiting(t, b, take(t, b, loan));
        t->evictions++;
        t->diversified++;
    }
    if (b->n < t->k) {
        put(t, b, e);
        return was_contact ? TABLE_REFRESHED : TABLE_INSERTED;
    }
    put_waiting(t, b, e);
    if (ask != NULL)
        *ask = head_to_ask(b, now_ns);
    return TABLE_FULL;
}

enum table_fate table_failed(struct table *t, kad_peer p)
{
    struct table_bucket *b = bucket_at(t, index_of(t, p));
    int i = find(b, p);

    if (i < 0)
        return TABLE_UNKNOWN;
    if (i >= b->n) { /* a newcomer that is gone already */
        drop(t, b, i);
        return TABLE_REMOVED;
    }
    struct entry *e = &b->e[i];
    bool was_dead = is_dead(e);
    e->unanswered = (e->unanswered + 1u) & 7u;
    e->asked = 0;
    t->live -= !was_dead && is_dead(e);
    if (e->unanswered >= TABLE_REPLACE && b->waiting > 0) {
        evict(t, b, i);
        promote(t, b);
        return TABLE_REPLACED;
    }
    if (e->unanswered >= TABLE_FORGET) {
        evict(t, b, i);
        return TABLE_REMOVED;
    }
    e->asked = b->waiting > 0;
    return b->waiting > 0 ? TABLE_ASK : TABLE_KEPT;
}

void table_ask_dropped(struct table *t, kad_peer p)
{
    struct table_bucket *b = bucket_at(t, index_of(t, p));
    int i = find(b, p);

    if (i >= 0)
        b->e[i].asked = 0;
}

bool table_remove(struct table *t, kad_peer p)
{
    struct table_bucket *b = bucket_at(t, index_of(t, p));
    int i = find(b, p);

    if (i < 0)
        return false;
    drop(t, b, i);
    if (b->n < t->k)
        promote(t, b);
    return true;
}

/* ---- asking ---- */

bool table_has(const struct table *t, kad_peer p)
{
    const struct table_bucket *b = bucket_at(t, index_of(t, p));
    int i = find(b, p);

    return i >= 0 && i < b->n;
}

struct nearest {
    const struct table *t;
    const struct kad_id *target;
    const struct kad_id *ids[TABLE_MAX_K]; /* of out[] */
    uint64_t far[TABLE_MAX_K];             /* first bits of their distance */
    kad_peer *out;
    size_t n, max;
};

static bool is_nearer(const struct nearest *s, const struct kad_id *id, uint64_t far, size_t at)
{
    return far != s->far[at] ? far < s->far[at] : kad_id_closer(s->target, id, s->ids[at]) < 0;
}

static void offer_bucket(struct nearest *s, unsigned index)
{
    const struct table_bucket *b = bucket_at(s->t, index);
    const struct kad_id *ids[TABLE_MAX_K];

    for (int i = 0; b != NULL && i < b->n; i++) {
        ids[i] = id_of(s->t, b->e[i].peer);
        __builtin_prefetch(ids[i]); /* they lie anywhere */
    }
    for (int i = 0; b != NULL && i < b->n; i++) {
        const struct kad_id *id = ids[i];
        if (is_dead(&b->e[i]))
            continue;
        uint64_t far = kad_id_distance64(s->target, id);
        size_t at = s->n;
        while (at > 0 && is_nearer(s, id, far, at - 1))
            at--;
        if (at == s->max)
            continue;
        size_t moved = (s->n < s->max ? s->n : s->max - 1) - at;
        memmove(&s->out[at + 1], &s->out[at], moved * sizeof s->out[0]);
        memmove(&s->ids[at + 1], &s->ids[at], moved * sizeof(s->ids[0]));
        memmove(&s->far[at + 1], &s->far[at], moved * sizeof s->far[0]);
        s->out[at] = b->e[i].peer;
        s->ids[at] = id;
        s->far[at] = far;
        s->n = at + moved + 1;
    }
}

/* With c = cpl(self, target): contacts of bucket c share more than c bits with the target; all of
 * the deeper buckets share exactly c, bucket c-1 shares c-1, and so on. Hence three stages, each
 * farther than the one before. */
size_t table_closest(const struct table *t, const struct kad_id *target, kad_peer *out, size_t n)
{
    struct nearest s = {.t = t, .target = target, .out = out, .max = n};
    unsigned c = kad_id_cpl(&t->self, target);

    assert(n <= TABLE_MAX_K);
    if (n == 0)
        return 0;
    offer_bucket(&s, c);
    if (s.n < n) {
        for (unsigned i = c + 1; i < t->n_slots; i++)
            offer_bucket(&s, i);
    }
    unsigned i = c < t->n_slots ? c : t->n_slots;
    while (s.n < n && i > 0)
        offer_bucket(&s, --i);
    return s.n;
}

size_t table_count(const struct table *t)
{
    return t->live;
}

size_t table_buckets(const struct table *t)
{
    size_t n = 0;
    for (unsigned i = 0; i < t->n_slots; i++)
        n += t->slots[i].bucket != NULL && t->slots[i].bucket->n > 0;
    return n;
}

void table_contacts(const struct table *t, kad_contact_fn *fn, void *arg)
{
    for (unsigned i = 0; i < t->n_slots; i++) {
        const struct table_bucket *b = t->slots[i].bucket;
        for (int j = 0; b != NULL && j < b->n; j++) {
            const struct kad_contact c = {
                .peer = b->e[j].peer,
                .bucket = i,
                .last_seen_ns = (uint64_t)b->e[j].heard << STEP_BITS,
                .unanswered = b->e[j].unanswered,
                .group = group_of(t, b->e[j].peer),
            };
            if (!fn(arg, &c))
                return;
        }
    }
}

/* ---- refresh ---- */

void table_looked_up(struct table *t, const struct kad_id *target, uint64_t now_ns)
{
    unsigned index = kad_id_bucket(&t->self, target);

    /* The own ID and everything deeper than the deepest bucket lead there. */
    if (index >= t->n_slots && t->n_slots > 0)
        index = t->n_slots - 1u;
    if (index < t->n_slots)
        t->slots[index].looked_up = step_of(now_ns);
}

static unsigned live_in(const struct table *t, unsigned index)
{
    const struct table_bucket *b = bucket_at(t, index);
    unsigned n = 0;

    for (int i = 0; b != NULL && i < b->n; i++)
        n += !is_dead(&b->e[i]);
    return n;
}

unsigned table_refresh_span(const struct table *t)
{
    unsigned n = t->n_slots, behind = 0;

    if (t->live <= t->k)
        return n;
    while (n > 0 && behind + live_in(t, n - 1) <= t->k)
        behind += live_in(t, --n);
    return n;
}

int table_refresh_next(const struct table *t, uint64_t interval_ns, uint64_t now_ns,
                       uint64_t *due_ns)
{
    int oldest = -1, span = (int)table_refresh_span(t);

    for (int i = 0; i < span; i++) {
        if (oldest < 0 || t->slots[i].looked_up < t->slots[oldest].looked_up)
            oldest = i;
    }
    uint64_t due =
        oldest < 0 ? UINT64_MAX : ((uint64_t)t->slots[oldest].looked_up << STEP_BITS) + interval_ns;
    if (due_ns != NULL)
        *due_ns = due;
    return due <= now_ns ? oldest : -1;
}

struct kad_id table_range_id(const struct table *t, unsigned index,
                             const uint8_t random[KAD_ID_BYTES])
{
    struct kad_id id;
    unsigned byte = index / 8;
    uint8_t bit = (uint8_t)(0x80u >> index % 8);
    uint8_t before = (uint8_t) ~(bit | (bit - 1u)); /* bits in front of it */

    assert(index < KAD_ID_BITS);
    memcpy(id.b, t->self.b, byte);
    memcpy(id.b + byte, random + byte, KAD_ID_BYTES - byte);
    id.b[byte] = (uint8_t)((t->self.b[byte] & before) | (~t->self.b[byte] & bit) |
                           (random[byte] & (bit - 1u)));
    return id;
}

/* ---- across restarts: version u8 | count u16be | count keys ---- */

int table_save(const struct table *t, uint8_t *out, size_t cap, size_t *n)
{
    struct wr w = wr_init(out, cap);
    size_t count = 0;

    wr_u8(&w, SAVE_VERSION);
    uint8_t *count_at = wr_room(&w, 2);
    if (wr_failed(&w))
        return ERR_TOO_LONG;
    /* By recency before depth, so that a cut loses no bucket. */
    for (int recent = 1; recent <= t->k; recent++) {
        for (unsigned i = 0; i < t->n_slots; i++) {
            const struct table_bucket *b = t->slots[i].bucket;
            if (b == NULL || b->n < recent || cap - wr_len(&w) < PUBKEY_BYTES)
                continue;
            wr_bytes(&w, t->peers->pk(t->peers->arg, b->e[b->n - recent].peer)->b, PUBKEY_BYTES);
            count++;
        }
    }
    put_be16(count_at, (uint16_t)count);
    *n = wr_len(&w);
    return 0;
}

int table_load(const uint8_t *p, size_t len, struct pubkey *out, size_t cap, size_t *n)
{
    struct rd r = rd_init(p, len);
    uint8_t version = rd_u8(&r);
    size_t count = rd_be16(&r);

    *n = 0;
    if (rd_failed(&r))
        return ERR_CORRUPT;
    if (version != SAVE_VERSION)
        return version > SAVE_VERSION ? ERR_VERSION : ERR_CORRUPT;
    if (rd_left(&r) != count * PUBKEY_BYTES)
        return ERR_CORRUPT;
    for (size_t i = 0; i < count && i < cap; i++) {
        rd_copy(&r, out[i].b, PUBKEY_BYTES);
        if (pubkey_check(&out[i]) != 0)
            return ERR_CORRUPT;
    }
    *n = count < cap ? count : cap;
    return 0;
}
