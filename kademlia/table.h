/*
 * table - the routing table of one node: k-buckets of contacts (docs/protocol/dht.md §1.2).
 *
 * A contact is a kad_peer handle with eight bytes of state. Bucket i holds contacts whose IDs have
 * i leading bits in common with our own (255 also those with 256, which nobody has). Buckets are
 * allocated and grown as they fill: an empty table is one small struct, a node in a network of n
 * nodes pays for about log2(n) buckets.
 *
 * A bucket is a list in the order of last contact, least recently heard first, of at most k
 * contacts, and behind it a replacement cache of the most recent newcomers (TABLE_CACHE). Only
 * peers that were heard themselves get in: by answering a call or by calling over an authenticated
 * stream. The node's own ID never does.
 *
 * The table decides nothing that takes time. When a bucket is full, table_heard() names the contact
 * to ask, the caller pings it and reports with table_heard() or table_failed():
 *
 *     contact         in the bucket, unanswered = 0
 *        | table_failed()                        table_heard(answered): back to 0
 *     doubtful        1 … TABLE_DEAD - 1: still given by table_closest();
 *        |            from TABLE_REPLACE on it is replaced when a newcomer waits in the cache
 *     dead            TABLE_DEAD … TABLE_FORGET - 1: hidden from table_closest() and
 *        |            table_count(), replaced by the next newcomer, revived when heard
 *     forgotten       TABLE_FORGET: removed
 *
 * So one lost answer evicts nobody, and a node that was cut off from everybody for a while still
 * knows whom to try. A call of a peer shows that it lives but not that it can be reached: it brings
 * a contact back to at most one unanswered call, not to none.
 *
 * Relays: where the host tells groups of contacts (kad_peers.group), one group has at most
 * TABLE_GROUP_SHARE of a bucket's k places as its own. It may have the others too, on loan: when a
 * contact of another group answers and finds the bucket full, the one of the big group that was not
 * heard for longest gives way to it and waits in the cache. So a network behind one relay is not
 * limited at all, and with a second one a quarter of the places is open to whoever is behind that;
 * but whoever brings any number of relays gets no more than this quarter from those who were first.
 *
 * Refresh: every bucket has the time of the last look-up in its range; table_refresh_next() gives the
 * one that is due, of those that a look-up of our own ID does not cover.
 *
 * Handles are counted: the table holds one reference for each place that it keeps one in. Times are
 * monotonic ns and are kept in steps of 2^30 ns (1.07 s): what comes back is rounded down.
 *
 * Owner: one engine, one thread. Limits: k <= TABLE_MAX_K and TABLE_CACHE per bucket, 256 buckets.
 * Errors: out of memory loses the newcomer (TABLE_DROPPED), nothing else. Iteration orders depend
 * on nothing but the sequence of calls.
 *
 *     struct table t;
 *     table_init(&t, &my_id, &peers, 20, now_ns);
 *     if (table_heard(&t, p, true, now_ns, &ask) == TABLE_FULL && ask != KAD_PEER_NONE)
 *         ping(ask);
 *     n = table_closest(&t, &target, out, 20);
 *     table_close(&t);
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kademlia/id.h"
#include "kademlia/kad.h"

#define TABLE_MAX_K   64
#define TABLE_CACHE   8
#define TABLE_REPLACE 2
#define TABLE_DEAD    3
#define TABLE_FORGET  7

/* Places of k that one group of contacts has as its own. */
#define TABLE_GROUP_SHARE(k) ((k) - (k) / 4)

/* A contact heard within this time is not asked whether it lives when a newcomer finds the bucket
 * full: newcomers in plenty must not turn into pings in plenty. */
#define TABLE_QUIET_NS UINT64_C(30000000000)

/* Longest text of table_save(): version, count, keys. */
#define TABLE_SAVE_MAX (3 + 256u * (TABLE_MAX_K + TABLE_CACHE) * PUBKEY_BYTES)

enum table_result {
    TABLE_SELF,      /* our own ID: ignored */
    TABLE_INSERTED,  /* a new contact, perhaps in place of a dead one */
    TABLE_REFRESHED, /* was there */
    TABLE_FULL,      /* bucket full: waits in the cache */
    TABLE_DROPPED,   /* out of memory */
};

enum table_fate {
    TABLE_UNKNOWN,  /* not a contact */
    TABLE_KEPT,     /* still there */
    TABLE_ASK,      /* still there, and somebody waits for its place: ping it again */
    TABLE_REPLACED, /* its place went to the most recent newcomer of the cache */
    TABLE_REMOVED,  /* forgotten */
};

struct table_bucket;

struct table_slot {
    struct table_bucket *bucket; /* NULL = empty */
    uint32_t looked_up;          /* when a look-up last went to this range, in steps of 2^30 ns */
};

struct table { /* private, but of known size */
    struct kad_id self;
    const struct kad_peers *peers;
    struct table_slot *slots;
    uint16_t n_slots; /* buckets 0 … n_slots-1 have a slot */
    uint8_t k;
    uint32_t live, total; /* contacts that are not dead, all contacts; without caches */
    uint64_t evictions;   /* contacts that lost their place, since table_init() */
    uint64_t diversified; /* … to one behind other relays */
    uint32_t born;        /* of table_init(), in steps */
};

/* k: 1 … TABLE_MAX_K. peers must outlive the table. */
void table_init(struct table *t, const struct kad_id *self, const struct kad_peers *peers,
                unsigned k, uint64_t now_ns);
void table_close(struct table *t);

/* p was heard: it answered a call of ours (answered), or called us over an authenticated stream.
 * The table takes a reference of its own when it keeps p. *ask (NULL: nobody is to be asked) is the contact to ping
 * in p's full bucket, or KAD_PEER_NONE when there is nothing to ask: its least recently heard one
 * was heard within TABLE_QUIET_NS or is being asked already. */
enum table_result table_heard(struct table *t, kad_peer p, bool answered, uint64_t now_ns,
                              kad_peer *ask);

/* A call to p was not answered (time-out, unreachable; not: refused). */
enum table_fate table_failed(struct table *t, kad_peer p);

/* The ping that table_heard() asked for could not be sent at all: it may be asked for again. */
void table_ask_dropped(struct table *t, kad_peer p);

/* Drop p from bucket and cache: it turned out not to be a DHT peer. False when it was not there. */
bool table_remove(struct table *t, kad_peer p);

bool table_has(const struct table *t, kad_peer p);

/* The contacts closest to target, closest first, at most n (<= TABLE_MAX_K), dead ones left out.
 * Whoever asks is not left out of the answer (dht.md §1.2). Returns how many; takes no references.
 */
size_t table_closest(const struct table *t, const struct kad_id *target, kad_peer *out, size_t n);

/* Contacts that are not dead. */
size_t table_count(const struct table *t);
/* Buckets that hold any contact. */
size_t table_buckets(const struct table *t);

/* Every contact, dead ones too, by bucket (farthest first) and least recently heard first. fn must
 * not change the table; false stops. */
void table_contacts(const struct table *t, kad_contact_fn *fn, void *arg);

/* A look-up of target begins: its bucket needs no refresh for a while. */
void table_looked_up(struct table *t, const struct kad_id *target, uint64_t now_ns);

/* Buckets 0 … n-1 are to be refreshed. Those behind them, closer to us, have together no more than k
 * contacts: a look-up of our own ID meets all of them. With no more than k in the whole table: all. */
unsigned table_refresh_span(const struct table *t);

/* The bucket whose last look-up is longest ago, among those of table_refresh_span(), when that was interval_ns
 * ago or longer; -1 when none is due. *due_ns (may be NULL) = when the next one is, UINT64_MAX in
 * an empty table. Follow with table_looked_up() of an ID in its range. */
int table_refresh_next(const struct table *t, uint64_t interval_ns, uint64_t now_ns,
                       uint64_t *due_ns);

/* An ID in the range of bucket index (0 … 255), the other bits from 32 random bytes. */
struct kad_id table_range_id(const struct table *t, unsigned index,
                             const uint8_t random[KAD_ID_BYTES]);

/* Keys of all contacts as bytes for a later table_load(), the most recent one of each bucket first,
 * as many as fit into cap. *n = bytes written. ERR_TOO_LONG when cap is below 3. */
int table_save(const struct table *t, uint8_t *out, size_t cap, size_t *n);

/* Read such bytes: at most cap keys into out, *n = how many. The caller pings them; nobody enters
 * the table unheard. ERR_VERSION for a newer form, ERR_CORRUPT for damaged bytes (*n is 0 then). */
int table_load(const uint8_t *p, size_t len, struct pubkey *out, size_t cap, size_t *n);
