/*
 * kad - the Kademlia engine: one DHT node without sockets, clocks or threads.
 *
 * The host (node: kademlia/host.h over dmsg streams; tests and simulator: in memory) drives it:
 *
 *     in   kad_request()        an authenticated peer asks something; later comes
 *                               KAD_ACT_REPLY or KAD_ACT_REFUSE with the host's token
 *          kad_response()       the answer to a call that the engine asked for
 *          kad_call_failed()    that call failed, and how
 *          kad_get(), kad_put() and the like: operations of this node's own users; later
 *                               comes KAD_ACT_DONE with the operation's report
 *          kad_tick()           time passes
 *     out  kad_next()           next action, until it returns false
 *          kad_deadline()       when to tick
 *
 * Nothing is called back from inside these functions, except hooks->stored and hooks->removed.
 * Public-key work goes through env_pk() and its answers may produce new actions: the engine then
 * calls hooks->ready(arg) once, which must only schedule a kad_next() loop (post a task), not call
 * into the engine.
 *
 * Contacts are 4-byte handles (kad_peer) into a peer table owned by the host (struct kad_peers), so
 * that a million virtual nodes share one table. Buckets are allocated as they fill. Items are
 * counted references (item.h).
 *
 * Rules (design §6; the case in docs/protocol/dht.md is named where we differ from the Go peers)
 *  - Only a peer that answered, or called in over an authenticated stream, enters a bucket. A full
 *    bucket pings its least recently seen contact before it evicts it; the newcomer waits in a
 *    replacement cache (table.h). Contacts heard of in answers are candidates of that look-up only.
 *    Buckets without traffic are refreshed by a look-up of a random ID in their range.
 *  - Cheap checks first: the asker's rate bucket, length, kind, seq, unchanged bytes, quota; then
 *    one signature check; then the store, which compares seq again. Identical bytes are verified
 *    once.
 *  - An answer must match the question: an item counts only when it is owner-signed for the asked
 *    target, or self-certifying under salt "dmsg", or signed by a configured mirror key; it is
 *    verified before it is ranked (item.h kinds).
 *  - Own seq = max(stored, seen in the network, wall clock ns) + 1, persisted before it is
 *    published. A second put of a slot cancels one of the same slot that was not sent yet.
 *  - What is put goes to the k closest and to two full nodes that are known, bootstrap keys first.
 *  - The regular look-up of the own ID begins with a bootstrap key too, so that two halves of a network
 *    find each other again.
 *  - Look-ups keep alpha requests in flight and never wait for a whole round; a silent contact is
 *    overtaken after hedge_ms. They end when the k closest live candidates have all answered, or on
 *    the first acceptable item when the caller asked for that (KAD_GET_FIRST), or at their
 *    deadline.
 *  - At most 6 calls to one peer are under way, others wait for them: peers serve few streams of one
 *    caller. A contact that closes the stream of a look-up or put is asked again after a pause. What
 *    is published goes to full nodes, or the bootstrap nodes closest to the target, too; look-ups ask these
 *    where the k closest gave nothing, hardly any of them the best item, or are far more crowded than
 *    the network's size explains (incident 64).
 *  - "Not a DHT peer" is remembered for neg_ttl_ms only on KAD_FAIL_NO_DHT, never on time-out or
 *    unreachability, never for bootstrap keys, and is cleared when the peer calls in.
 *  - Peers are grouped by the relays that lead to them, where the host knows these. Publishers behind the same
 *    relays share a quota; a full bucket gives a contact of a group that has more than three quarters of it for
 *    one of another; requests of a look-up go to different groups where there are any; a group whose
 *    contacts fall silent together is passed over as a whole until one of it is heard (group.c).
 *  - Answers cost the asker: bytes of values are charged to its token bucket, a page of GET_ITEMS
 *    may put it into debt, and until that is paid it gets no other one.
 *  - Lifetime: ttl_ms from the last put by the owner. What others hand on is as old as its sequence
 *    number says, where that is a clock, so that nodes cannot keep an item alive among themselves.
 *    Expired records answer nobody; they block older numbers for another ttl_ms, then they go.
 *  - Foreign copies answer our own users for cache_fresh_ms; those that are used get revalidated in
 *    the background before that is over. Copies of look-ups are never counted as replicas.
 *
 * Limits (struct kad_limits) all have a counter of drops or a gauge in struct kad_stat. Errors are
 * reports, never asserts, for anything a peer or the store does. Memory of an idle node with an
 * empty table is below 2.5 KiB beside the configuration.
 *
 *     struct kad *k;
 *     kad_new(&k, &cfg, env, store, &peers, &hooks, now_ns);
 *     for (struct kad_act a; kad_next(k, &a); kad_act_clear(&a)) {
 *         if (a.type == KAD_ACT_CALL)
 *             send(a.call, a.peer, &a.msg);
 *         ...
 *     }
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/env.h"
#include "kademlia/id.h"
#include "kademlia/item.h"
#include "kademlia/msg.h"
#include "kademlia/records/ns.h"
#include "kademlia/store_if.h"

typedef uint32_t kad_peer; /* handle; KAD_PEER_NONE is never a peer */
#define KAD_PEER_NONE  UINT32_MAX
#define KAD_GROUP_NONE 0

/* The host's table of keys. Handles are counted; the engine holds one reference per place that it
 * keeps a handle in. */
struct kad_peers {
    void *arg;
    kad_peer (*intern)(void *arg,
                       const struct pubkey *pk); /* with a reference; KAD_PEER_NONE when full */
    void (*ref)(void *arg, kad_peer p);
    void (*unref)(void *arg, kad_peer p);
    const struct pubkey *(*pk)(void *arg, kad_peer p);
    const struct kad_id *(*id)(void *arg, kad_peer p);
    /* Optional: the dialect that a peer speaks, and what others say of it. Methods that only the native
     * one has are called for KAD_DIALECT_NATIVE and _HINTED only. */
    enum kad_dialect (*dialect)(void *arg, kad_peer p);
    void (*hint)(void *arg, kad_peer p, enum kad_dialect said);
    /* Optional: a number for the set of relays behind which the peer is, as far as that is known; peers
     * behind the same relays have the same one. KAD_GROUP_NONE: not known. */
    uint32_t (*group)(void *arg, kad_peer p);
};

struct kad_hooks {
    void *arg;
    void (*ready)(void *arg); /* actions appeared outside a call of the host; only schedule */
    /* optional: a record was accepted into the store (put, sync, own, cache) or removed. Must not
     * call into the engine. */
    void (*stored)(void *arg, const struct store_rec *rec);
    void (*removed)(void *arg, const struct kad_id *target, enum item_kind kind); /* evicted */
};

struct kad_limits {          /* 0 = default */
    unsigned k;              /* 20 */
    unsigned alpha;          /* 3 */
    unsigned rpc_timeout_ms; /* 10 000: dial and call; GET_ITEMS has three times that */
    unsigned hedge_ms;       /* 1 000: a contact silent for so long no longer counts as in flight */
    unsigned op_timeout_ms;  /* 30 000: whole operation */
    unsigned max_ops;        /* 256 operations at once */
    unsigned max_pending;    /* 512 requests of peers waiting for a signature check */
    unsigned slots_per_key;  /* 50: public tier, full and regular nodes */
    unsigned
        slots_per_group; /* of publishers behind the same relays, while others have any here too;
                                 half of max_items, and never more than half of max_bytes */
    unsigned max_items;  /* 10 000 on a regular node; a full node: none, bytes only */
    uint64_t max_bytes;  /* 1 GiB full, 64 MiB regular */
    unsigned ttl_ms;     /* 7 200 000: public items; also for trusted ones (trust extends quota, not
                        lifetime) */
    unsigned
        cert_ttl_ms; /* 600 000 for carried entries without renewal; those of a mirror key, which
                                can take them back, have ttl_ms */
    unsigned cache_fresh_ms; /* 300 000 */
    unsigned neg_ttl_ms;     /* 600 000 "not a DHT peer" */
    unsigned
        refresh_ms; /* 900 000 a bucket without traffic is refreshed; own ID every refresh_ms too; up to
                       four times as long while no peer fails */
    unsigned republish_ms;       /* 1 800 000 own items; replicas are handed on once an hour */
    unsigned bootstrap_retry_ms; /* 30 000 while the table is empty, 300 000 otherwise */
    unsigned rate_per_s;         /* requests a second per peer, 50, burst 4x */
    uint64_t rate_bytes_per_s; /* answer bytes per peer, 1 MiB, burst 8x; a full node gives 8 times
                                    that */
    unsigned clock_skew_ms;    /* not refused, only reported */
};

/* Whose items may be in a namespace. A namespace without any line is open to everybody. */
struct kad_writer {
    enum ns ns; /* NS__COUNT: all of them */
    struct pubkey pk;
};

struct kad_stat;

struct kad_cfg {
    struct pubkey self;
    struct seckey sk;
    bool full; /* keeps everything it is given and syncs with other full nodes */
    bool
        client_only; /* asks and puts, but serves nobody: says so in its requests, so that peers of our
                         kind do not take it for a contact, and looks at no range it has no question
                         about; not with full */
    uint64_t network; /* kad_network_tag(); peers of other networks are refused */
    const struct pubkey *whitelisted, *trusted, *mirrors, *bootstrap; /* copied */
    size_t n_whitelisted, n_trusted, n_mirrors, n_bootstrap;
    /* Private networks; empty: everybody. Items of others than the writers are refused, ignored in
     * answers, and not given away when they are in the store already; the charged key counts (store_if.h),
     * and ours always may. Whoever is neither a reader nor a bootstrap, trusted or whitelisted key is
     * told who is close, and no value. */
    const struct kad_writer *writers; /* copied */
    const struct pubkey *readers;     /* copied */
    size_t n_writers, n_readers;
    struct kad_limits limits;
    /* Optional: counters of several engines of one thread, zeroed by the host and alive as long as they;
     * kad_stat() of each gives the sums then, but gauges of its own. NULL: it has its own. */
    struct kad_stat *counters;
};

struct kad;

/* Create. cfg is copied (sk too; wiped by kad_free). The store and peers must outlive it. */
int kad_new(struct kad **out, const struct kad_cfg *cfg, struct env *env, struct store *store,
            const struct kad_peers *peers, const struct kad_hooks *hooks, uint64_t now_ns)
    __attribute__((warn_unused_result));
/* A hint for hosts of many engines: this one will be called soon. */
void kad_soon(const struct kad *k);
/* Cancels all public-key work, ends operations without report, drops references, wipes. Actions not
 * taken are dropped. NULL is allowed. */
void kad_free(struct kad *k);

/* Absolute now_ns of the next kad_tick(), LOOP_NEVER = none. */
uint64_t kad_deadline(const struct kad *k);
void kad_tick(struct kad *k, uint64_t now_ns);

/* ---- what peers do ---- */

/* A request read from an authenticated stream of `from`. Takes over *req's contents (cleared).
 * token comes back in KAD_ACT_REPLY / _REFUSE; exactly one of them is given for each request. */
void kad_request(struct kad *k, kad_peer from, struct kad_msg *req, uint64_t token,
                 uint64_t now_ns);

enum kad_fail {
    KAD_FAIL_TIMEOUT,     /* no whole answer in time */
    KAD_FAIL_UNREACHABLE, /* no session, no entry, relay gone */
    KAD_FAIL_NO_DHT,      /* reached, and nothing listens on port 100 */
    KAD_FAIL_CLOSED, /* the stream ended before the answer: method unknown or refused, or peer died
                      */
    KAD_FAIL_FORMAT, /* the answer could not be decoded */
    KAD_FAIL_TOO_LONG, /* the answer's length is over the limit: sync repeats with a smaller page */
    KAD_FAIL_LOCAL,    /* this node ran out of something */
    KAD_FAIL_NETWORK,  /* the peer belongs to another network */
    KAD_FAIL_GONE,     /* a relay of the peer answered that it is not there: the relay lives */
};

/* The answer to a.call. Takes over *rsp's contents. An unknown call number (late) is ignored. */
void kad_response(struct kad *k, uint32_t call, struct kad_msg *rsp, uint64_t now_ns);
void kad_call_failed(struct kad *k, uint32_t call, enum kad_fail why, uint64_t now_ns);

/* ---- what this node wants ---- */

enum kad_op_type {
    KAD_OP_FIND_NODE,
    KAD_OP_GET,
    KAD_OP_PUT,
    KAD_OP_PING,
    KAD_OP_SYNC,      /* pull everything from one full node, then push what it lacks */
    KAD_OP_BOOTSTRAP, /* internal, reported when it ends */
    KAD_OP_REFRESH,   /* internal */
    KAD_OP_WATCH,     /* one of many reports of a watch */
    KAD_OP_BATCH,     /* items given to one peer */
    KAD_OP_LEAVE,     /* pushed: items that heirs took */
};

enum kad_get_flags {
    KAD_GET_NETWORK = 1, /* do not answer from the local store */
    KAD_GET_FIRST =
        2, /* end with the first acceptable owner item instead of asking all k closest */
    KAD_GET_NO_CACHE = 4, /* do not keep the result */
    KAD_GET_NO_OWNER =
        8, /* do not ask the slot's owner when nobody else has it: it may be no DHT node,
                             or cannot be reached without the answer */
};

enum kad_source { KAD_SRC_NONE, KAD_SRC_LOCAL, KAD_SRC_DHT };

enum kad_end {                  /* why a look-up ended */
               KAD_END_CLOSEST, /* the k closest live candidates have answered */
               KAD_END_FOUND,   /* an acceptable item and KAD_GET_FIRST */
               KAD_END_LOCAL,
               KAD_END_NO_PEERS, /* routing table was empty */
               KAD_END_TIMEOUT,
               KAD_END_CANCELLED,
};

struct kad_step { /* one contact that a look-up asked */
    struct pubkey pk;
    unsigned hop; /* 1 = from our own table */
    enum { KAD_STEP_ANSWERED, KAD_STEP_FAILED, KAD_STEP_SILENT } how;
    uint64_t asked_ns;
};

struct kad_report {
    uint32_t op;
    enum kad_op_type type;
    void *user;
    int err; /* 0, ERR_NOT_FOUND, ERR_NO_ROUTE (no peers), ERR_NETWORK (those who answered belong
                to another network), ERR_TIMEOUT, ERR_REFUSED (put: all
                refused), ERR_SEQ (put: a newer one exists), ERR_QUOTA (put: all say that the key's
                slots are used up), ERR_CANCELLED. A tombstone of the owner is ERR_NOT_FOUND with
                item set */
    enum kad_source source;
    enum item_kind kind;
    struct item_ref *item; /* GET: the item (a reference of the report); PUT: what was published */
    struct kad_id target;
    unsigned hops, asked, answered, failed, refused, stored; /* stored: peers that accepted a put */
    unsigned rejected_items; /* answers that did not match the question or did not verify */
    uint64_t bytes, started_ns, ended_ns;
    enum kad_end end;
    struct pubkey *closest; /* FIND_NODE: n_closest keys, closest first */
    size_t n_closest;
    uint64_t pulled, pushed; /* SYNC; BATCH: pushed, and refused */
    struct kad_step *steps;  /* after kad_trace(): whom the look-up asked, closest first */
    size_t n_steps;
};

/* Start an operation; its number (> 0), or 0 when max_ops are running or an argument is out of
 * bounds. Results come by KAD_ACT_DONE, also when the answer is already known. user is given back
 * untouched. */
uint32_t kad_find_node(struct kad *k, const struct kad_id *target, void *user, uint64_t now_ns);
uint32_t kad_get(struct kad *k, const struct pubkey *pk, const void *salt, size_t salt_len,
                 unsigned flags, void *user, uint64_t now_ns);
/* Sign and publish under this node's key. has_seq forces a sequence number (dht put --seq),
 * otherwise the rule of the page above. */
uint32_t kad_put(struct kad *k, const void *salt, size_t salt_len, const void *v, size_t v_len,
                 bool has_seq, uint64_t seq, void *user, uint64_t now_ns);
/* Publish an item that is signed already, by whoever; verified first. target: the slot it is for,
 * NULL = its own (a carrier gives the subject's: an entry that certifies itself, or an item of a
 * mirror key). Peers that hold it already count as having stored it. */
uint32_t kad_put_signed(struct kad *k, const struct item *it, const struct kad_id *target,
                        void *user, uint64_t now_ns);
uint32_t kad_ping(struct kad *k, kad_peer peer, void *user, uint64_t now_ns);
uint32_t kad_sync(struct kad *k, kad_peer peer, void *user, uint64_t now_ns);
/* Pull the items of one namespace that a peer holds (GET_ITEMS); a text salt. Reported as KAD_OP_SYNC. */
uint32_t kad_pull(struct kad *k, kad_peer peer, const void *salt, size_t salt_len, void *user,
                  uint64_t now_ns);
/* Give signed items to one peer in one message, without a look-up: what a mirror does for full nodes
 * (dht.md §5.4). The first *taken of the n are in it: KAD_BATCH_ITEMS at most, and what fits a frame.
 * Reported as KAD_OP_BATCH: pushed were stored, or something newer is there; refused were not. Nothing
 * is repeated. References of items are taken by the call. */
#define KAD_BATCH_ITEMS 256
struct kad_batch_item {
    struct item_ref *item;
    struct kad_id target; /* the subject's slot */
};
uint32_t kad_put_batch(struct kad *k, kad_peer peer, const struct kad_batch_item *items, size_t n,
                       size_t *taken, void *user, uint64_t now_ns);
/* Going for good: what we hold as one of the k closest goes to those who are that without us, and our
 * nearest contacts are told to forget us. The report comes within two seconds; kad_free() follows. 0 when
 * this node serves nobody anyway, or too much is under way. */
uint32_t kad_leave_network(struct kad *k, void *user, uint64_t now_ns);
void kad_cancel(struct kad *k, uint32_t op);
/* The report of this operation is to list whom its look-up asked. Right after it was started. */
void kad_trace(struct kad *k, uint32_t op);

/* Local copy only: what the dial path asks first. 0 and a record valid until the next call of the
 * engine, or ERR_NOT_FOUND. `fresh` tells whether it may be used without asking the network. */
int kad_local(struct kad *k, const struct pubkey *pk, const void *salt, size_t salt_len,
              struct store_rec *out, bool *fresh, uint64_t now_ns);

/* Another process that shares the store changed this slot: watchers are told, and hooks.stored. target
 * NULL: any may have changed, watchers hear of it by asking again. */
void kad_store_changed(struct kad *k, const struct kad_id *target, enum item_kind kind,
                       uint64_t now_ns);

/* The same for the DHT's own dials: it is no use that has an old copy asked about again, since asking takes dials
 * in its turn. */
int kad_peek(struct kad *k, const struct pubkey *pk, const void *salt, size_t salt_len,
             struct store_rec *out, bool *fresh, uint64_t now_ns);

/* Replace the bootstrap keys (pinged at once and by the bootstrap loop). */
int kad_bootstrap(struct kad *k, const struct pubkey *pks, size_t n, uint64_t now_ns);
/* A dial to this peer failed after the entry we gave: bypass and revalidate the cached copy. */
void kad_distrust(struct kad *k, const struct pubkey *pk, const void *salt, size_t salt_len);

void kad_set_full(struct kad *k, bool full);

/* ---- watches (docs/protocol/dht-native.md §5) ---- */

/* Watch (pk, salt): KAD_ACT_DONE of KAD_OP_WATCH comes with the present item, if there is one, and then with
 * every newer one that this node learns of; err ERR_NOT_FOUND with an item is a tombstone. Two of the closest
 * nodes that speak the native dialect push changes, at most one a second; without any the slot is looked up
 * once a minute, or as often as 25 look-ups a second for all slots allow. The number (> 0) for kad_unwatch(), or 0: KAD_MAX_WATCHES, bounds or memory. */
uint32_t kad_watch(struct kad *k, const struct pubkey *pk, const void *salt, size_t salt_len,
                   void *user, uint64_t now_ns);
/* No report comes any more that is not in the queue of actions. */
void kad_unwatch(struct kad *k, uint32_t number);
/* A CHANGED notification of a peer. Takes over its contents. */
void kad_changed(struct kad *k, kad_peer from, struct kad_msg *m, uint64_t now_ns);
/* No stream to a peer that watches here: what it watches is forgotten. */
void kad_watcher_gone(struct kad *k, kad_peer peer, uint64_t now_ns);
/* Is there a watch, on either side, for which the stream to this peer has to stay? */
bool kad_keeps(const struct kad *k, kad_peer peer);
/* Another process that shares the store has put a newer item there: tell whoever watches it. */
void kad_slot_changed(struct kad *k, const struct kad_id *target);

/* ---- actions ---- */

enum kad_act_type {
    KAD_ACT_CALL,   /* send msg to peer, answer with kad_response() or kad_call_failed() within
                       timeout_ms */
    KAD_ACT_ABORT,  /* the engine no longer waits for this call: the host may close its stream */
    KAD_ACT_REPLY,  /* send msg as the answer to the request with this token */
    KAD_ACT_REFUSE, /* close the request's stream without an answer (malformed or over a limit: err)
                     */
    KAD_ACT_NOTE, /* send msg to peer over a stream that there is, without an answer; when there is
                       none: kad_watcher_gone() */
    KAD_ACT_DONE, /* report of an operation; of bootstrap rounds too (user is NULL) */
};

struct kad_act {
    enum kad_act_type type;
    kad_peer peer; /* CALL: valid until the call ends; the others: as long as the host holds it */
    uint32_t call;
    unsigned timeout_ms;
    uint64_t token;
    int err;
    struct kad_msg msg;       /* CALL, REPLY; owned by the action */
    struct kad_report report; /* DONE; owned by the action */
};

/* Take the next action. The caller clears it with kad_act_clear() when it is done with it. */
bool kad_next(struct kad *k, struct kad_act *out);
void kad_act_clear(struct kad_act *a);

/* A contact that is known from elsewhere to live: into the routing table as if it had just answered,
 * with no traffic. For snapshots of a whole network (simulator, tests); a node that restarts uses
 * kad_load_routing(). */
void kad_seed_contact(struct kad *k, kad_peer p, uint64_t now_ns);

/* ---- looking in ---- */

/* What peers are blamed for. */
enum kad_lie {
    KAD_LIE_SIGNATURE, /* an item whose signature is wrong: given as an answer, put, or in a page */
    KAD_LIE_TARGET, /* an item that is not for the slot that was asked for (or of a mirror that only
                          they know) */
    KAD_LIE_STALE,  /* an older item than it had acknowledged */
    KAD_LIE_CONTACTS, /* contacts whose IDs are not those of their keys, or far too many */
    KAD_LIE_PROTOCOL, /* an answer that cannot be decoded, or contradicts itself */
    KAD_LIE__COUNT
};

struct kad_stat {
    size_t routing_peers, buckets, ops, calls, pending; /* gauges */
    size_t calls_waiting;    /* gauge: calls that wait for others to the same peer */
    uint64_t calls_repeated; /* after a stream that a contact closed */
    uint64_t requests[KAD_METHOD__END], replies[KAD_METHOD__END], calls_sent[KAD_METHOD__END],
        calls_failed[KAD_METHOD__END]; /* by method */
    uint64_t refused_network, refused_rate, refused_size, refused_seq, refused_sig, refused_quota,
        refused_foreign, refused_busy, refused_space, refused_writer, refused_reader,
        refused_group; /* quota of the relays that the publisher is behind */
    uint64_t verified,
        verify_skipped; /* signature checks done / saved because the bytes were known */
    uint64_t lies[KAD_LIE__COUNT], shunned; /* peers that told too many */
    size_t shunning;                        /* gauge */
    uint64_t refused_shunned;
    uint64_t rejected_answers; /* items in answers that did not match or verify */
    uint64_t evicted_items;    /* from the store, for room */
    uint64_t dropped_acts;     /* actions lost for want of memory */
    uint64_t republished, handed_on, handed_over;  /* handed_over: items to newcomers */
    uint64_t sync_pulled, sync_pushed, sync_bytes; /* of all syncs: items, and bytes of answers */
    uint64_t reconciled; /* full nodes with which digests of ranges were compared to the end */
    uint64_t own_from_outside; /* newer items of our own key: an earlier life, or a twin */
    uint64_t future_seq;       /* items with a clock number more than clock_skew_ms ahead */
    uint64_t evictions, neg_cached;
    uint64_t diversified;  /* contacts that made room in a bucket for one behind other relays */
    size_t groups_suspect; /* gauge: sets of relays that nobody is heard through */
    uint64_t groups_suspected, groups_forgotten;
    uint64_t passed_over; /* contacts behind such relays that look-ups did not ask */
    uint64_t lookups, lookup_hops, lookup_messages;
    bool alone;  /* routing table empty although there are bootstrap keys */
    bool synced; /* full node: a complete pull is done; false while alone */
    uint64_t network_size_estimate;
};

void kad_stat(const struct kad *k, struct kad_stat *out);

struct kad_watch_stat {
    size_t watches, watched, watchers; /* gauges: of our users; slots of peers, and those peers */
    uint64_t events, polls, refused, servers_lost, watchers_lost;
    uint64_t pushes_sent, pushed_items, pushes_held; /* held: for want of tokens */
    uint64_t pushes_got, pushes_unasked;
};

void kad_watch_stat(const struct kad *k, struct kad_watch_stat *out);

struct kad_contact {
    kad_peer peer;
    unsigned bucket;
    uint64_t last_seen_ns; /* monotonic */
    unsigned unanswered;
    uint32_t group;
};
typedef bool kad_contact_fn(void *arg, const struct kad_contact *c);
void kad_contacts(const struct kad *k, kad_contact_fn *fn, void *arg);
bool kad_is_suspect(const struct kad *k, uint32_t group);

/* What is known of the peers behind the same relays. */
struct kad_group_info {
    uint32_t group;
    size_t contacts;       /* in the routing table */
    uint64_t slots, bytes; /* that its publishers have put here and that live */
    uint64_t heard_ns;     /* monotonic; 0 = never */
    uint64_t suspect_ns;   /* since when its relays seem to be down; 0 = they do not */
};
#define KAD_MAX_GROUPS 256
/* By number; returns how many, at most cap. Those without contacts, slots and suspicion are left out. */
size_t kad_groups(struct kad *k, struct kad_group_info *out, size_t cap);

/* Keys of the n closest contacts; returns how many were written. */
size_t kad_closest(const struct kad *k, const struct kad_id *target, struct pubkey *out, size_t n);

/* Bytes that restore the routing table after a restart (store meta "routing"), and back: loaded
 * contacts are candidates that are pinged first. */
int kad_save_routing(const struct kad *k, uint8_t *out, size_t cap, size_t *n);
int kad_load_routing(struct kad *k, const uint8_t *p, size_t n, uint64_t now_ns);
