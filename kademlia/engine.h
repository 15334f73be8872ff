/*
 * engine - what the files of the Kademlia engine share. Internal: hosts include kad.h only.
 *
 *     kad.c       creation, configuration, the queue of actions, gauges
 *     call.c      requests of ours under way: numbers, time-outs, what an answer says about a peer
 *     dest.c      queues of calls by peer
 *     group.c     peers behind the same relays: whether these are up, what their publishers have here
 *     note.c      what is remembered of single peers: rate and byte buckets, "not a DHT peer"
 *     check.c     what kind of item this is for that slot, and whether its signatures verify
 *     accept.c    whether an item enters a slot: order of checks, lifetimes, quota, room
 *     lookup.c    iterative look-ups
 *     op.c        operations of this node's users: find, get, ping
 *     put.c       publishing: number, signature, the k closest
 *     allow.c     private networks: whose items, and who may read
 *     serve.c     the six methods as responder
 *     own.c       own slots: sequence numbers, republishing
 *     watch.c     what this node watches for its users
 *     watched.c   what peers watch here
 *     handover.c  items for nodes that have just joined
 *     inventory.c digests of what this full node holds
 *     fulls.c     who keeps everything, and is given what is put
 *     leave.c     going for good: heirs of what we hold, farewell to our contacts
 *     intake.c    items of a page, several at a time
 *     ranges.c    where two full nodes differ, by range digests
 *     sync.c      pull and push between full nodes
 *     batch.c     items given to one peer
 *     advert.c    who says that it is a full node
 *     maintain.c  bootstrap, refresh, expiry, handing on, advert
 *
 * Direction of calls: serve, sync, put, op, maintain -> lookup, accept -> check, call -> note, kad.
 *
 * Time: k->now_ns is what the host said last. It is not advanced by answers to public-key work, which
 * may make a time-out a little late, never early. Lifetimes of items are counted by a wall clock
 * that cannot jump while the engine lives (kad_steady_ns): a clock that is set back or forth neither
 * revives nor kills what is stored (docs/protocol/dht.md §8.2 point 15). Sequence numbers and the
 * age of adverts use the real one.
 *
 * Freed while in use: a call's callback may end its operation, which frees the operation, its
 * look-up and its other calls. So whoever may have ended an operation returns at once.
 */
#pragma once

#include "base/list.h"
#include "base/loop.h"
#include "base/map.h"
#include "kademlia/kad.h"
#include "kademlia/table.h"

#define KAD_MAX_CALLS        2048    /* requests of ours under way, all operations */
#define KAD_CALLS_PER_PEER   6       /* under way to one peer; peers of our kind serve 8 */
#define KAD_MAX_INTERNAL     64      /* operations of our own beside limits.max_ops */
#define KAD_MAX_NOTES        4096    /* peers of whom something is remembered */
#define KAD_MAX_OWN          1024    /* slots of our own key */
#define KAD_FULLS            8       /* full nodes known */
#define KAD_PUT_FULLS        2       /* full nodes that a put goes to beside the k closest */
#define KAD_PUT_PARALLEL     8       /* PUT_VALUE calls in flight of one put */
#define KAD_PAGE_ITEMS       1000    /* most items of a page that we serve or ask for at first */
#define KAD_FRAME_BYTES      3900000 /* estimated size of a frame of items: below the peers' 4 MiB */
#define KAD_BATCH_BYTES      3500000 /* the same for PUT_BATCH (dht.md §3.4 "size traps") */
#define KAD_PULL_LIMIT_MAX   KAD_MSG_MAX_ITEMS
#define KAD_SYNC_TIMEOUT_MS  300000
#define KAD_BATCH_COST       8     /* targets of a batch cost as much as one request */
#define KAD_MAX_WATCHES      16384 /* of our own users */
#define KAD_MAX_WATCHED      65536 /* subscriptions of peers */
#define KAD_MAX_WATCHERS     4096
#define KAD_WATCHES_PER_PEER 16384
#define KAD_WATCH_LEASE_S    600
#define KAD_RECENT           8 /* revalidations remembered */

struct kad_keyset { /* sorted */
    struct pubkey *v;
    size_t n;
};

struct kad_own; /* own.c */

struct kad_watching {
    struct kad *k;
    struct kad_watch_stat stat; /* gauges are filled in when asked for */
    struct map slots, watchers; /* watched.c: what peers watch here, and who */
    struct list all, dirty;
    size_t n_subs;
    struct loop_timer push;
    struct map watches, targets, servers; /* watch.c: what we watch, and where */
    struct list all_servers, pushed;
    struct list queue; /* slots to be looked up */
    struct loop_timer pace;
    unsigned polls; /* look-ups under way */
};

struct kad_full {  /* a peer that says that it keeps everything */
    kad_peer peer; /* a reference */
    uint64_t heard_ns;
};

struct kad {
    /* What nearly every call needs (kad_soon). */
    uint64_t now_ns, born_ns;
    int64_t born_wall_ns;
    unsigned inside; /* depth of calls by the host */
    bool signalled;  /* hooks.ready was called and the queue not emptied since */
    struct list acts;
    struct loop loop; /* timers of everything below */
    struct table table;
    struct kad_stat *stat; /* counters; its gauges are those below */
    bool own_stat;
    size_t pending, shunning, calls_waiting, groups_suspect;
    struct map calls, notes;
    uint32_t next_call, next_op;
    struct list notes_lru;     /* least recently used first */
    struct kad_groups *groups; /* group.c; NULL before any is known */
    struct env *env;
    struct store *store;
    struct kad_peers peers;
    struct kad_limits lim; /* defaults filled in */
    struct pubkey self;
    char hot_end[1];

    unsigned given_max_items; /* 0 = the default of the role */
    uint64_t given_max_bytes;
    struct seckey sk;
    bool leaving;                   /* kad_leave_network() was called */
    bool full, client_only, shared; /* shared: the store, with other processes */
    uint64_t network;               /* tag of ours */
    struct kad_keyset whitelisted, trusted, mirrors, bootstrap, readers;
    struct kad_writer *writers;
    size_t n_writers;
    struct kad_hooks hooks;

    struct map dests, ops;
    struct list op_list;
    size_t n_ops, n_internal;

    struct list jobs; /* requests of peers that wait for signature checks (serve.c) */
    struct list own;
    size_t n_own;

    struct maintain {
        bool running;
        struct loop_timer bootstrap, refresh, sweep, republish, hand_on, sync, advert;
        uint64_t bootstrap_ns;    /* when the last round began */
        uint64_t self_refresh_ns; /* when the own ID was looked up last */
        uint64_t disturbed_ns;    /* when somebody failed last */
        struct kad_id hand_on_after;
        bool bootstrapping, joined, refreshing, syncing, synced;
        int join_bucket;          /* next one to be looked at after joining */
        unsigned handing_on;      /* under way */
        struct pubkey *sync_keys; /* of this round */
        size_t n_sync_keys, sync_room, next_sync_key, sync_good;
    } m;

    struct kad_full *fulls; /* room for KAD_FULLS; NULL before the first */
    size_t n_fulls;

    struct kad_watching *w;          /* NULL until something is watched */
    struct kad_handover *handover;   /* handover.c; NULL before the first newcomer */
    struct kad_inventory *inventory; /* inventory.c; NULL before anybody asked */

    struct kad_recent {  /* revalidations of late */
        uint64_t target; /* first bytes */
        uint64_t at_ns;
    } * recent; /* KAD_RECENT; NULL before the first */
    unsigned next_recent;
};

/* ---- kad.c ---- */

/* New action at the end of the queue, or NULL (counted): out of memory. Calls hooks.ready when this
 * happens outside of a call by the host. */
struct kad_act *kad_act_push(struct kad *k, enum kad_act_type type);

/* The call ends before the host took it: its action must not outlive the call's reference to the
 * peer. False when the host has it already. */
bool kad_act_take_back(struct kad *k, uint32_t call);
/* Around every function that the host calls. */
void kad_enter(struct kad *k, uint64_t now_ns);
void kad_leave(struct kad *k);

bool kad_keyset_has(const struct kad_keyset *s, const struct pubkey *pk);
enum item_tier kad_tier_of(const struct kad *k, const struct pubkey *signer);

/* Wall clock that does not jump while the engine lives; see above. */
int64_t kad_steady_ns(const struct kad *k);

static inline uint64_t kad_after(const struct kad *k, uint64_t delay_ns)
{
    return k->now_ns > UINT64_MAX - delay_ns ? LOOP_NEVER : k->now_ns + delay_ns;
}
static inline uint64_t kad_ms(unsigned ms)
{
    return ms * NS_PER_MS;
}
static inline const struct pubkey *kad_pk(const struct kad *k, kad_peer p)
{
    return k->peers.pk(k->peers.arg, p);
}
/* Does this peer speak the native dialect, as far as we know? */
static inline bool kad_is_native(const struct kad *k, kad_peer p)
{
    return k->peers.dialect != NULL && k->peers.dialect(k->peers.arg, p) >= KAD_DIALECT_HINTED;
}
static inline void kad_unref(const struct kad *k, kad_peer p)
{
    k->peers.unref(k->peers.arg, p);
}
/* Handle of a key, with a reference; KAD_PEER_NONE when the host's table is full, or for a null key
 * or our own. */
kad_peer kad_intern(const struct kad *k, const struct pubkey *pk);

/* ---- call.c ---- */

struct kad_op;
struct kad_call;

/* The call has ended: rsp is its answer (the callee may move things out of it), or NULL and why. */
typedef void kad_call_fn(struct kad_call *c, struct kad_msg *rsp, enum kad_fail why);

struct kad_call {
    struct kad *k;
    uint32_t id;
    kad_peer peer; /* a reference */
    enum kad_method method;
    struct kad_op *op; /* NULL: nobody waits, the answer counts for the routing table only */
    struct list_node in_op;
    void *watch; /* without an operation: the server that it asks (watch.c) */
    kad_call_fn *done;
    struct kad_msg *held; /* in the queue of its peer (dest.c) */
    struct list_node in_queue;
    struct kad_id target; /* what is needed to send it again */
    struct item_ref *item;
    bool has_target;
    uint8_t tries;
    uint64_t sent_ns;
    struct loop_timer timeout;
};

void kad_calls_init(struct kad *k);

/* Ask a peer. Takes over *msg (cleared on failure too). op and done may be NULL. NULL when the cap
 * on calls or memory is reached: count it as KAD_FAIL_LOCAL. */
struct kad_call *kad_call_start(struct kad *k, struct kad_op *op, kad_peer peer,
                                struct kad_msg *msg, kad_call_fn *done);
/* The operation does not wait any longer: a call older than hedge_ms is aborted and counts against
 * the peer, a younger one goes on for the sake of the table. */
void kad_call_abandon(struct kad_call *c);
void kad_calls_free(struct kad *k);

/* A peer was heard: it answered, or it called us over an authenticated stream. probe: when it finds
 * its bucket full, the oldest contact there may be pinged. Not for a ping: whoever is pinged would
 * ping in turn, and the pings of a large network never end (docs/simulator.md). */
void kad_peer_heard(struct kad *k, kad_peer p, bool answered, bool probe);

/* Does the peer live? Its answer counts for the table only. */
void kad_ping_contact(struct kad *k, kad_peer p);

/* A number for the next call or operation: never 0. */
static inline uint32_t kad_number(uint32_t *next)
{
    *next += *next == UINT32_MAX ? 2 : 1;
    return *next;
}

/* Our error for the failure of a call. */
int kad_fail_err(enum kad_fail why);

/* ---- dest.c ---- */

void kad_dests_init(struct kad *k);
/* Send the call's message, or put it into the queue of its peer. It is taken over; false: no memory,
 * end the call. */
bool kad_dest_send(struct kad_call *c, struct kad_msg *msg);
/* The call ends: its place goes to the next one that waits. */
void kad_dest_leave(struct kad_call *c);
void kad_dest_answered(struct kad_call *c);
/* The peer closed the stream: true when the call will be sent again instead of ending. */
bool kad_dest_retry(struct kad_call *c);

/* ---- note.c ---- */

void kad_notes_init(struct kad *k);
void kad_notes_free(struct kad *k);
/* Forget peers of whom nothing is worth remembering any more. */
void kad_notes_sweep(struct kad *k);

/* Take tokens for a request of this peer; false (counted) when it has none left. */
bool kad_note_request(struct kad *k, kad_peer p);
/* Make it pay for work that turned out worthless or large; its debt is bounded. */
void kad_note_charge(struct kad *k, kad_peer p, unsigned requests);
/* May an answer of any size be sent to it, and: so many bytes were sent. */
bool kad_note_may_read(struct kad *k, kad_peer p);
void kad_note_bytes(struct kad *k, kad_peer p, size_t n);

/* It sent what an honest peer does not send. Who does so too often is shunned for neg_ttl_ms: out of the
 * table, in no look-up, none of its puts taken; reading costs us little. Configured peers are only counted. */
void kad_note_lie(struct kad *k, kad_peer p, enum kad_lie lie);
bool kad_note_is_shunned(const struct kad *k, kad_peer p);

void kad_note_no_dht(struct kad *k, kad_peer p);
void kad_note_clear_no_dht(struct kad *k, kad_peer p);
bool kad_note_is_no_dht(const struct kad *k, kad_peer p);

/* ---- group.c ---- */

void kad_groups_free(struct kad *k);
uint32_t kad_group_of(const struct kad *k, kad_peer p);
uint32_t kad_group_of_key(const struct kad *k, const struct pubkey *pk);
/* Somebody of the peer's group was heard; and: it did not answer what was asked then. */
void kad_group_heard(struct kad *k, kad_peer p);
void kad_group_failed(struct kad *k, kad_peer p, uint64_t asked_ns);
bool kad_group_is_suspect(const struct kad *k, kad_peer p);
/* Is it time to try one of this suspect group? Once every 10 s. And: one is being tried. */
bool kad_group_may_probe(const struct kad *k, kad_peer p);
void kad_group_probed(struct kad *k, kad_peer p);
/* May publishers of this group have one slot more, of so many bytes of value and salt? What they put, and
 * what left the store before it expired (a renewed record leaves with its old expiry). */
bool kad_group_has_room(struct kad *k, uint32_t group, size_t len);
void kad_group_stored(struct kad *k, uint32_t group, size_t len, int64_t expires_ns);
void kad_group_removed(struct kad *k, uint32_t group, size_t len, int64_t expires_ns);

/* ---- check.c ---- */

struct kad_class { /* what an item is for a slot */
    enum item_kind kind;
    struct kad_id target;
    struct pubkey charged; /* whose quota */
    int64_t rank_time;     /* ITEM_CERT: of the entry */
    uint64_t rank_seq;
    unsigned n_entry; /* ITEM_CERT: digests, one of which the entry's signature must fit */
    struct hash entry_digest[2];
    struct sig entry_sig;
};

/* Which kind of item this is for that slot (NULL: the item's own). 0, or ERR_REFUSED: neither the
 * owner's, nor an entry that certifies itself, nor of a mirror key; or of nobody who may write here
 * (counted). Costs no public-key work. */
int kad_classify(struct kad *k, const struct item *it, const struct kad_id *target,
                 struct kad_class *out);

struct kad_check;
typedef void kad_check_fn(struct kad_check *c, int err);

struct kad_check {
    struct pk_wait wait;
    struct kad *k;
    struct item_ref *item; /* a reference */
    struct kad_class cls;
    unsigned step;
    kad_check_fn *done; /* only after ERR_PENDING */
};

/* Verify the item's signature, and that of the entry in it. cls, k, item and done are set, the rest
 * zero. 0, ERR_PENDING, ERR_SIG, ERR_BUSY. */
int kad_check_begin(struct kad_check *c);
/* Cancel and drop the reference. */
void kad_check_clear(struct kad_check *c);

/* Is the value one that says "there is nothing any more" under this salt (dht.md §4)? */
bool kad_is_tombstone(const struct item *it);

/* ---- accept.c ---- */

enum kad_via {
    KAD_VIA_PUT,   /* a peer's PUT_VALUE or PUT_BATCH */
    KAD_VIA_PULL,  /* GET_ITEMS of a full node */
    KAD_VIA_CACHE, /* a look-up of ours found it */
    KAD_VIA_LOCAL, /* this node's user brought it, signed already */
    KAD_VIA_OWN,   /* just signed by this node */
};

struct kad_accept;
typedef void kad_accept_fn(struct kad_accept *a, int err);

struct kad_accept {
    struct kad_check check;
    enum kad_via via;
    uint32_t age_ms; /* KAD_VIA_CACHE: since the look-up began */
    bool from_owner; /* it came over a stream of its signer */
    bool verified;   /* signatures are known to be good */
    bool settled;    /* the slot holds this item, or entry, already */
    uint32_t group;  /* of peers that have a quota together; KAD_GROUP_NONE: not counted */
    bool had;        /* something was in the slot: */
    int64_t had_expires_ns;
    size_t had_len;
    kad_accept_fn *done;
    void *arg;
};

/* Let an item into its slot (target NULL: its own). via, verified, done, arg are set, the rest zero.
 * 0 stored; ERR_PENDING: done() comes later; ERR_TOO_LONG, ERR_REFUSED (foreign), ERR_SEQ,
 * ERR_QUOTA, ERR_SIG, ERR_BUSY, ERR_NO_SPACE, ERR_NOMEM. */
int kad_accept_begin(struct kad_accept *a, struct kad *k, struct item_ref *item,
                     const struct kad_id *target, const struct pubkey *from);
/* Cancel and drop the reference. */
void kad_accept_clear(struct kad_accept *a);

/* The record that answers for a slot now: not expired, owner's first; with fresh_only no foreign copy
 * of a look-up or older than cache_fresh_ms. 0 or ERR_NOT_FOUND. */
enum kad_use {
    KAD_USE_LIVE,   /* whatever is not expired */
    KAD_USE_SERVED, /* what peers are told: copies of our own look-ups only while fresh */
    KAD_USE_FRESH,  /* what our own users are told without asking the network */
};
int kad_store_best(struct kad *k, const struct kad_id *target, enum kad_use use,
                   struct store_rec *out);
bool kad_rec_is_live(const struct kad *k, const struct store_rec *r);
/* When that will change next without a write, as kad_steady_ns(); INT64_MAX: never. */
int64_t kad_rec_turns_ns(const struct kad *k, const struct store_rec *r);
bool kad_rec_is_fresh(const struct kad *k, const struct store_rec *r);
/* Delete a record that may be alive. Errors of the store. */
int kad_store_del(struct kad *k, const struct kad_id *target, enum item_kind kind);
/* A reference to the record's item, a copy if need be; NULL when out of memory. */
struct item_ref *kad_rec_item(const struct store_rec *r);
/* Does a sequence number look like a wall clock in ns? */
bool kad_seq_is_clock(const struct kad *k, uint64_t seq);
/* Evict what goes beyond the limits, after these were lowered. */
void kad_store_trim(struct kad *k);

/* ---- lookup.c ---- */

struct kad_found { /* an item that fits the question and verified */
    struct item_ref *item;
    enum item_kind kind;
    int64_t rank_time;
    uint64_t rank_seq;
    unsigned hop;
};

struct kad_cand;
struct kad_lookup;
typedef void kad_lookup_fn(struct kad_lookup *lk, enum kad_end end);

#define KAD_LOOKUP_ANCHORS 4 /* three full or bootstrap nodes, and the owner of the slot */

#define KAD_LOOKUP_BAD 4 /* items that did not verify, remembered so as not to try them again */

struct kad_lookup {
    struct kad_op *op;
    struct kad_id target;
    bool value; /* GET_VALUE, else FIND_NODE */
    bool first; /* ends with the first acceptable item of the owner */
    bool running;
    bool wide;              /* begins with a bootstrap key too: ours may be one half of a network */
    bool anchored;          /* anchors were added */
    bool desperate;         /* those behind relays that seem to be down are asked too */
    bool publishes;         /* what it is for goes to anchors too */
    struct pubkey owner;    /* whose slot it is; null: not known */
    struct kad_cand *cands; /* closest first */
    size_t n, cap;
    unsigned agree;      /* answers that gave the best item */
    unsigned in_flight;  /* asked and not overtaken */
    uint64_t slowest_ns; /* longest time an answer of this look-up took */
    struct loop_timer hedge;
    struct list checks;
    struct kad_found best;
    struct item_ref *bad[KAD_LOOKUP_BAD];
    unsigned n_bad;
    kad_lookup_fn *ended;
};

/* Begin; op, target, value, first, ended are set, the rest zero. ended() may be called before this
 * returns. */
void kad_lookup_begin(struct kad_lookup *lk);
/* End it now with what it has: calls ended(), which may free everything. */
void kad_lookup_end(struct kad_lookup *lk, enum kad_end why);
/* Stop without ended(). Also after it ended: frees what is left. */
void kad_lookup_clear(struct kad_lookup *lk);
/* Peers that answered, closest first, at most n of them. No references. */
size_t kad_lookup_closest(const struct kad_lookup *lk, kad_peer *out, size_t n);
/* All that were asked, closest first, into the report. */
void kad_lookup_steps(const struct kad_lookup *lk, struct kad_report *rep);
/* Those that answered beside the n closest. */
size_t kad_lookup_anchors(const struct kad_lookup *lk, size_t n, kad_peer out[KAD_LOOKUP_ANCHORS]);
/* Rank of a before b: kind, then seq or the entry's rank. */
bool kad_found_better(const struct kad_found *a, const struct kad_found *b);

/* ---- op.c ---- */

struct kad_put; /* put.c */

struct kad_op {
    struct kad *k;
    bool internal; /* no report, except of bootstrap rounds */
    bool trace;    /* the report lists whom the look-up asked */
    struct list_node node;
    struct list calls;
    struct loop_timer deadline;
    struct kad_report rep;
    struct kad_lookup lk;
    unsigned flags;                            /* enum kad_get_flags */
    void (*clear)(struct kad_op *op);          /* frees what the kind of operation added */
    void (*ended)(struct kad_op *op, int err); /* internal ones: before it is freed */
    void (*timeout)(struct kad_op *op);        /* deadline; NULL: finish with ERR_TIMEOUT */
    struct kad_put *put;                       /* KAD_OP_PUT */
    void *extra;                               /* KAD_OP_SYNC, KAD_OP_BOOTSTRAP: their own state */
};

/* New operation with its deadline set; NULL when too many run. */
struct kad_op *kad_op_new(struct kad *k, enum kad_op_type type, bool internal, void *user);
void kad_op_set_deadline(struct kad_op *op, unsigned timeout_ms);
/* Report and free. */
void kad_op_finish(struct kad_op *op, int err, enum kad_end end);
/* Free without a report. */
void kad_op_free(struct kad_op *op);
/* Start the look-up of an operation. */
void kad_op_lookup(struct kad_op *op, const struct kad_id *target, bool value,
                   kad_lookup_fn *ended);

/* Internal look-up of a node ID; wide: see struct kad_lookup. ended may be NULL. False when too many
 * operations run. */
bool kad_op_refresh(struct kad *k, const struct kad_id *target, bool wide,
                    void (*ended)(struct kad_op *, int));
/* A foreign copy of ours was used: ask the network about it when it gets old, or (now) at once. */
void kad_revalidate(struct kad *k, const struct store_rec *r, bool now);
/* Internal look-up of a value in the network, kept as any other. ended may be NULL. False when too many
 * operations run. */
bool kad_get_again(struct kad *k, const struct kad_id *target, void (*ended)(struct kad_op *, int));

/* ---- put.c ---- */

void kad_put_free(struct kad_put *put);
/* A newer value of this slot of ours is about to be signed. */
bool kad_put_is_coming(struct kad *k, const struct kad_id *target);
/* Internal puts: of a value under our own key, and of a stored item to the peers closest to its slot.
 * ended may be NULL. False when too many operations run. */
bool kad_put_own(struct kad *k, const void *salt, size_t salt_len, const void *v, size_t v_len,
                 void (*ended)(struct kad_op *, int));
bool kad_put_hand_on(struct kad *k, const struct store_rec *rec,
                     void (*ended)(struct kad_op *, int));

/* ---- allow.c ---- */

int kad_allow_set(struct kad *k, const struct kad_writer *w, size_t n);
/* May an item be in this namespace whose quota is that of `charged`? */
bool kad_may_write(const struct kad *k, const struct item *it, const struct pubkey *charged);
/* May this peer be given values? */
bool kad_is_reader(const struct kad *k, kad_peer p);

/* ---- serve.c ---- */

void kad_serve_free(struct kad *k);
/* Configured peers pay nothing: they may sync, and read for many. */
bool kad_is_exempt(const struct kad *k, kad_peer p);
/* Records of a page go into a message until the next one would make its frame too long. */
struct kad_filler {
    struct kad *k;
    struct kad_msg *m;
    size_t bytes, max_bytes;
    uint64_t last_seq; /* of the last record looked at */
    bool any, full;
};
/* store_visit_fn: adds what peers may have, which is no copy of a look-up and nothing expired. */
bool kad_fill(void *filler, const struct store_rec *r);

/* ---- own.c ---- */

/* Highest sequence number known for a slot of our key; 0 when none. */
uint64_t kad_own_seq(const struct kad *k, const void *salt, size_t salt_len);
/* seq was used or seen. Written through to the store. */
int kad_own_set(struct kad *k, const void *salt, size_t salt_len, uint64_t seq);
void kad_own_load(struct kad *k);
void kad_own_free(struct kad *k);
/* Republish what is due; returns when to come back (absolute). */
uint64_t kad_own_republish(struct kad *k);
/* This peer said that it has stored our item; and: does it answer with an older one now? */
void kad_own_acked(struct kad *k, const struct item *it, kad_peer p);
bool kad_own_is_behind(const struct kad *k, const struct item *it, kad_peer p);
/* The slot was published just now: republish it in republish_ms. */
void kad_own_published(struct kad *k, const void *salt, size_t salt_len, bool again);

/* ---- handover.c ---- */

#define KAD_HANDOVER_MAX     8  /* newcomers of a walk over the store */
#define KAD_HANDOVER_WAITING 64 /* that wait for the next one */

/* A contact that was not there before. */
void kad_handover_newcomer(struct kad *k, kad_peer peer);
void kad_handover_free(struct kad *k);

/* Does it show its age, and live long enough to be given to others? */
bool kad_is_to_be_given(const struct kad *k, const struct store_rec *r);

/* ---- fulls.c ---- */

/* In a PING or an answer to one. */
void kad_full_said(struct kad *k, kad_peer p);
/* It does not answer. */
void kad_full_lost(struct kad *k, kad_peer p);
/* Add up to KAD_PUT_FULLS to the n peers that get what is put; returns how many there are now. */
size_t kad_fulls_add(const struct kad *k, const struct kad_id *target, kad_peer *peers, size_t n);
/* A peer that knows nothing of them has put this here: the closest of us pass it on. */
void kad_fulls_tell(struct kad *k, kad_peer from, const struct kad_msg_item *mi);
/* Ask those who did not say so for this long. */
void kad_fulls_ping(struct kad *k, uint64_t older_ns);
void kad_fulls_free(struct kad *k);

/* ---- leave.c ---- */

/* It says that it serves nobody, or not any more. */
void kad_peer_left(struct kad *k, kad_peer p);

/* ---- intake.c ---- */

#define KAD_INTAKE_SLOTS 32

struct kad_intake_slot {
    enum { KAD_INTAKE_FREE, KAD_INTAKE_CHECKING, KAD_INTAKE_AGAIN } state;
    size_t item;
    struct kad_accept accept;
};

struct kad_intake {
    struct kad *k;
    kad_peer from; /* the owner's reference */
    struct kad_msg page;
    size_t next, under_way, again;
    uint64_t stored, rejected;
    struct loop_timer pause;
    void (*done)(struct kad_intake *in);
    struct kad_intake_slot slot[KAD_INTAKE_SLOTS];
};

void kad_intake_init(struct kad_intake *in, struct kad *k, kad_peer from,
                     void (*done)(struct kad_intake *in));
/* Let the items of a page in, which is taken over; done() comes when all are dealt with, perhaps
 * before this returns, and may clear the intake. */
void kad_intake_begin(struct kad_intake *in, struct kad_msg *page);
void kad_intake_clear(struct kad_intake *in);

/* ---- inventory.c ---- */

/* Digests of what we hold now and others may have; NULL: not yet, they are being made, or no memory.
 * Valid until the next turn. */
const struct digest *kad_inventory(struct kad *k);
/* Something was written into a slot of this target, or deleted; NULL: into any. Every write that may
 * change what others are given must come by here. */
void kad_inventory_changed(struct kad *k, const struct kad_id *target);
/* Lists of the same. */
struct recon_source kad_inventory_source(struct kad *k);
void kad_inventory_free(struct kad *k);

/* ---- ranges.c ---- */

struct kad_ranges;

/* Reconcile with a full node that speaks the native dialect, within a KAD_OP_SYNC. done(): 0, or why
 * not; ERR_UNSUPPORTED: read it by pages. It may free the operation. NULL: no memory. */
struct kad_ranges *kad_ranges_begin(struct kad_op *op, kad_peer peer, bool may_push,
                                    void (*done)(struct kad_op *op, int err));
void kad_ranges_free(struct kad_ranges *g); /* NULL is allowed */
/* Answer to a RECONCILE request, and about how many bytes it has. */
int kad_ranges_serve(struct kad *k, const struct kad_msg *req, struct kad_msg *rsp, size_t *cost);

/* ---- sync.c ---- */

/* Of a KAD_OP_SYNC. */
struct kad_ranges *kad_sync_ranges(struct kad_op *op);

/* Begin a sync with a peer; false when it cannot be started. number, ended may be NULL. */
bool kad_sync_begin(struct kad *k, kad_peer peer, bool internal, void *user, uint32_t *number,
                    void (*ended)(struct kad_op *, int));

/* ---- advert.c ---- */

/* Keys of nodes that advertise themselves as full in the local store (dht.md §5.3): fresh, their own
 * advert, neither ourselves nor a bootstrap key; a random choice of at most max. */
size_t kad_advertised(struct kad *k, struct pubkey *out, size_t max);
bool kad_is_advertised(struct kad *k, const struct pubkey *pk);
/* Text of our own advert; returns its length. */
size_t kad_advert_text(struct kad *k, char *out, size_t cap);

/* ---- watched.c ---- */

void kad_watched_init(struct kad *k);
void kad_watched_free(struct kad *k);
/* A WATCH request. 0, or why the stream is to be closed. */
int kad_watched_request(struct kad *k, kad_peer from, const struct kad_msg *req,
                        struct kad_msg *rsp);
/* The store took a newer item for this slot. */
void kad_watched_stored(struct kad *k, const struct kad_id *target);
bool kad_is_watcher(const struct kad *k, kad_peer peer);

/* ---- watch.c ---- */

/* State of both directions, made at the first use; NULL when out of memory. */
struct kad_watching *kad_watching(struct kad *k);
void kad_watching_free(struct kad *k);

/* ---- maintain.c ---- */

void kad_maintain_start(struct kad *k);
void kad_maintain_stop(struct kad *k);
/* Bootstrap keys changed, or the table got its first contact or lost its last. */
void kad_maintain_bootstrap_now(struct kad *k);
void kad_maintain_full_changed(struct kad *k);
/* Somebody who was expected to be there is not. */
void kad_maintain_disturbed(struct kad *k);
void kad_maintain_own_changed(struct kad *k);
uint64_t kad_network_size(const struct kad *k);
