/*
 * net - a network of kad engines in memory, for tests: virtual clock, shared table of peers, messages
 * with delay and loss, nodes that are down, mute, closed or lying.
 *
 * Everything is deterministic for one seed. Messages pass through the JSON codec when net.json is
 * set (the default), else they are handed over as they are. Each node has its own env_test, whose
 * wall clock is that of the net plus node.skew_ns; set net.deferred before nodes are added to have
 * signatures answered later and in a drawn order.
 *
 *     struct net n;
 *     net_init(&n, seed);
 *     for (int i = 0; i < 20; i++)
 *         net_add(&n, NULL);               // node 0 is everybody's bootstrap
 *     net_run(&n, 5000);                   // ms
 *     struct kad_report r = net_get(&n, net_node(&n, 3), &net_node(&n, 7)->pk, "dmsg", 0);
 *     net_report_clear(&r);
 *     net_close(&n);                       // fails the test when a reference is left
 */
#pragma once

#include "base/env_test.h"
#include "base/loop.h"
#include "kademlia/kad.h"
#include "tests/unit/kademlia/peers.h"
#include "tests/unit/prop.h"
#include "tests/unit/vectors.h"

#define NET_MAX 1024

enum net_mode {
    NET_HONEST,
    NET_DOWN,   /* cannot be reached: fails after a delay */
    NET_MUTE,   /* takes requests and never answers */
    NET_NO_DHT, /* reached, nobody listens */
    NET_CLOSES, /* closes every stream */
    NET_CUSTOM, /* node->answer decides; the engine behind it is not asked when it returned true */
};

struct net;
struct net_node;

/* Make the answer to a request. False: the engine of the node answers after all. *fail (KAD_FAIL_*)
 * may be set instead of an answer. */
typedef bool net_answer_fn(struct net_node *node, struct net_node *from, struct kad_msg *req,
                           struct kad_msg *rsp, int *fail);

struct net_node {
    struct net *net;
    unsigned index;
    struct kad *kad;
    struct env_test env;
    struct store *store;
    struct kad_cfg cfg;
    struct pubkey pk;
    struct seckey sk;
    struct kad_id id;
    kad_peer peer;
    int64_t skew_ns;
    enum net_mode mode;
    net_answer_fn *answer;
    void *arg;
    bool dirty;
    struct net_node *next_dirty; /* list of those that net.c knows to be dirty */
    bool listed;
    uint64_t timer_ns; /* of the earliest timer event of it in the heap */
    uint32_t life;     /* starts so far: answers to an earlier one are for nobody */
    bool json_only;    /* speaks the compat dialect only, whatever net.native says */
    struct kad_report *reports;
    size_t n_reports;
    void (*done)(struct net_node *node, const struct kad_report *r); /* takes reports instead */
    uint64_t asked[KAD_METHOD__END]; /* requests that reached it, by method */
    uint64_t stored;                 /* calls of the hook */
};

struct net_event;

struct net {
    uint64_t now_ns;
    struct prop rnd;
    struct peers peers;
    struct net_node *nodes[NET_MAX];
    size_t n;
    unsigned min_delay_ms, max_delay_ms; /* one way */
    unsigned loss_percent;
    bool json, deferred, no_bootstrap;
    bool
        native; /* the codec is MessagePack, and every peer is said to speak it; before nodes are added */
    bool deferring; /* some node's public-key work waits */
    struct env_ops model_ops;
    bool model; /* signatures that cost nothing; before nodes are added (simulator/standin.h) */
    unsigned
        sample; /* one message of so many passes the codec, and all of peers that speak JSON only;
                        instead of json and native */
    bool (*cut)(const struct net_node *a,
                const struct net_node *b); /* they do not reach each other */
    struct net_node **by_peer;
    size_t by_peer_cap;
    struct net_node *dirty;
    struct net_event **heap;
    size_t heap_len, heap_cap;
    uint64_t order, messages, bytes;
    struct pubkey *boot; /* bootstrap keys of nodes added from now on */
    size_t n_boot;
};

void net_init(struct net *n, uint64_t seed);
void net_close(struct net *n);

/* A node with a key of its own and a memory store. cfg may be NULL; self, sk and (when it has none)
 * the bootstrap keys are filled in: the first node's key. */
struct net_node *net_add(struct net *n, const struct kad_cfg *cfg);
/* The same with a given key pair. */
struct net_node *net_add_key(struct net *n, const struct kad_cfg *cfg, const struct seckey *sk);
static inline struct net_node *net_node(struct net *n, size_t i)
{
    return n->nodes[i];
}
/* Bootstrap keys for nodes added from now on. */
void net_set_boot(struct net *n, const struct pubkey *pks, size_t count);

/* Take down and start again with the same key; wipe: with an empty store. */
void net_stop(struct net_node *node);
void net_start(struct net_node *node);
/* An empty store for a node that is stopped. */
void net_wipe(struct net_node *node);
void net_restart(struct net_node *node, bool wipe);

/* Call fn at a virtual time, from net_run(). */
void net_at(struct net *n, uint64_t at_ns, void (*fn)(void *arg), void *arg);
/* Let the engine do what it wants after a function of it was called from such an fn. */
void net_touch(struct net_node *node);

/* Let time pass. */
void net_run(struct net *n, uint64_t ms);
/* Until the operation has ended; fails the test when that takes more than 10 virtual minutes. */
struct kad_report net_wait(struct net_node *node, uint32_t op);
void net_report_clear(struct kad_report *r);

/* Operations, waited for. */
struct kad_report net_get(struct net_node *node, const struct pubkey *pk, const char *salt,
                          unsigned flags);
struct kad_report net_put(struct net_node *node, const char *salt, const char *v);

/* The value of a GET as text compares equal; clears the report. */
void net_assert_value(struct kad_report r, const char *v);

/* A request to one node from the key of another one, answered by it; fails with *fail when it
 * closed. The caller clears rsp. */
bool net_ask(struct net_node *to, struct net_node *from, struct kad_msg *req, struct kad_msg *rsp);

/* Signatures as the engines make and take them, real or not. */
int net_verify(const struct net *n, const struct item *it);
void net_sign(const struct net_node *node, struct item *it);

/* How many running nodes hold the slot of (pk, salt), as replica or own; with this seq when
 * that is not 0. */
size_t net_holders(struct net *n, const struct pubkey *pk, const char *salt, uint64_t seq);
size_t net_contacts(const struct net_node *node);

static inline struct kad_stat stat_of(const struct net_node *node)
{
    struct kad_stat st;

    kad_stat(node->kad, &st);
    return st;
}
