/*
 * cluster - hundreds of engines that live for hours of virtual time: users who publish and look up,
 * nodes that come and go, peers that lie, peers that speak the compat dialect only. And a judge who
 * knows what was published, when it was acknowledged, and what a look-up may bring then.
 *
 * Node 0 to boot - 1 are honest and stay. Behind them come the peers without an engine that speak JSON only
 * (old_peer.h; one of each form), then everybody else: liars by their share, the others honest. Honest
 * nodes publish one slot of their own, in versions, when they start and then now and then.
 *
 * Messages are handed over in memory, one of 64 passes the native codec; what peers that speak JSON only
 * send and get passes that one. Signatures are stand-ins unless real_signatures is set.
 *
 * Liars run an engine like everybody, so that they are known, and beside it answer with items of another
 * slot, with the first version they saw, with forged newer ones, with giant lists, with lists of nobody
 * and of each other, or not at all: each kind as many.
 *
 * The judge: a look-up may bring a version that its publisher has made, byte for byte, not older than the
 * last one acknowledged before it began; where a copy of ours answers, before it began minus the
 * freshness of copies. Look-ups of a publisher that lives and has something acknowledged must find it.
 *
 *     struct cluster c;
 *     cluster_init(&c, &(struct cluster_cfg){.nodes = 500, ...}, "churn");
 *     cluster_run(&c, 24 * 3600);
 *     cluster_assert(&c, 999);
 *     cluster_close(&c);
 */
#pragma once

#include "tests/unit/kademlia/net.h"
#include "tests/unit/kademlia/old_peer.h"

#define CLUSTER_ACKS 8
#define CLUSTER_SALT "cluster"

struct cluster_cfg {
    unsigned nodes;          /* all */
    unsigned boot, full;     /* of the first ones; the first `full` of them keep everything */
    unsigned liars_percent;  /* of the others */
    unsigned life_s, away_s; /* mean times; life 0: they stay */
    unsigned nth_publishes;  /* of the honest nodes; 0: each */
    unsigned put_s;          /* mean time between two versions of a publisher */
    unsigned get_ms;         /* mean time between two look-ups, all nodes together */
    unsigned cached_percent; /* of look-ups that may be answered by a copy */
    bool real_signatures;
};

struct cluster;

enum cluster_role {
    CLUSTER_HONEST,
    CLUSTER_OLD,
    CLUSTER_MUTE,
    CLUSTER_OTHER_SLOT,
    CLUSTER_STALE,
    CLUSTER_FORGED,
    CLUSTER_GIANT,
    CLUSTER_POISON,
    CLUSTER_ROLE__END
};

struct cluster_node {
    struct cluster *c;
    struct net_node *node;
    enum cluster_role role;
    bool publishes;
    bool up, stays, gone; /* gone: killed for good */
    unsigned side;        /* of a partition */
    unsigned version;     /* that it has tried to publish */
    struct {
        uint64_t at_ns;
        unsigned version;
    } acks[CLUSTER_ACKS];    /* the latest first */
    struct item_ref **first; /* CLUSTER_STALE: what it saw first, by publisher */
    struct old_peer old;     /* CLUSTER_OLD */
};

struct cluster_counts {
    uint64_t puts, acked, unacked;
    uint64_t gets, found, missed;     /* of publishers that live and have something acknowledged */
    uint64_t wrong, stale;            /* of those and all others */
    uint64_t other_gets, other_found; /* of publishers that are away */
    uint64_t local, joins, leaves;
};

struct cluster {
    struct net net;
    struct cluster_cfg cfg;
    struct cluster_node *nodes;
    struct cluster_counts n;
    struct pubkey *nobody; /* keys that no node has */
    bool cut;              /* the two sides do not hear each other */
    bool quiet;            /* users rest */
};

/* Nodes join one after the other within a minute, and publish; that takes five minutes. */
void cluster_init(struct cluster *c, const struct cluster_cfg *cfg, const char *what);
void cluster_close(struct cluster *c);

/* Let virtual time pass; the peers that speak JSON only do what their users want every ten minutes. */
void cluster_run(struct cluster *c, unsigned seconds);

/* Take a node down, for good or until cluster_up(). */
void cluster_down(struct cluster *c, unsigned i, bool for_good);
void cluster_up(struct cluster *c, unsigned i);

/* One look-up by a node that is up, waited for and judged: true when something acknowledged was found. */
bool cluster_get(struct cluster *c, unsigned reader, unsigned owner);
/* A random honest node that is up. */
unsigned cluster_any_up(struct cluster *c);
unsigned cluster_any_publisher(struct cluster *c);
/* The version that everybody must see who asks now; 0: none. */
unsigned cluster_acked(const struct cluster_node *cn, uint64_t before_ns);
/* Version of the owner's item that a running node holds for others; 0: none. */
unsigned cluster_held(struct cluster *c, unsigned holder, unsigned owner);

/* Nothing wrong, nothing stale, and at least this many of 10 000 look-ups found. Prints the figures. */
void cluster_assert(struct cluster *c, unsigned per_10000);
