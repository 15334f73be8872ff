/*
 * world - what the files of the simulator share. Internal: users include sim.h only.
 *
 *     sim.c       creation, windows, threads
 *     totals.c    results
 *     node.c      events of one node: messages in, actions out, timers, coming and going
 *     churn.c     lives, traces, days, waves
 *     wire.c      messages between nodes: latency, loss, partitions, relays, size
 *     load.c      puts, gets, and whether what a get brought is right
 *     users.h     other things that users do: watches, full nodes
 *     attack.c    what attackers do instead of answering
 *     oracle.c    routing tables as they would be after a long time, without traffic
 *     keys.c      keys, IDs and handles of all nodes: the table that all engines share
 *     simenv.c    clock, random numbers and public-key work of the engines
 *     latency.c   latency of a pair of nodes
 *     pack.c      events as bytes, for other processes
 *     intern.c    one copy of an item per shard
 *     checkpoint.c  the whole state to a file and back
 *     trace.c     what chosen nodes are given
 *
 * Every node belongs to the shard (number % shards), which alone touches its state. Shards of other
 * processes have their nodes there; what follows from seed and scenario (keys, roles, places) is known
 * of all nodes everywhere. Times are virtual ns that start at SIM_EPOCH_NS, so that 0 stays "never" for
 * whoever uses it so, and no time looks like an address of the program (base/arena.h).
 *
 * Memory: what is allocated between sim_new() and the end of sim_run() lies in the arenas of the shards, and
 * points to nothing but these and the program, so that a checkpoint is a copy of them. Only the exchange, which
 * is empty between windows, and what cfg refers to are not; a resumed run has others.
 */
#pragma once

#include "base/env.h"
#include "base/loop.h"
#include "kademlia/kad.h"
#include "simulator/exchange.h"
#include "simulator/queue.h"
#include "simulator/rng.h"
#include "simulator/sim.h"

#define SIM_EPOCH_NS  (100000 * NS_PER_S)
#define SIM_WALL_NS   INT64_C(1700000000000000000) /* wall clock at virtual time 0 */
#define SIM_SALT      "sim"
#define SIM_LIVES     16 /* lives of a node are told apart modulo this */
#define SIM_STREAMS   16 /* of a node, with relays */
#define SIM_STREAM_NS (90 * NS_PER_S)

enum ev_type {
    EV_TIMER,
    EV_MSG,
    EV_RELAY,
    EV_JOIN,
    EV_CHURN,
    EV_KILL,
    EV_PUT,
    EV_GET,
    EV_LEAVE,
    EV_FLASH,
    EV_FLOOD,
    EV_CHECK, /* a get to be judged by its target's shard; in no queue */
    EV_TASK,  /* what a user does; aux: which (users.h) */
    EV_HTTP,  /* a request reaches a service */
};

enum role {
    ROLE_HONEST,
    ROLE_MUTE,
    ROLE_WRONG,
    ROLE_STALE,
    ROLE_SLOW,
    ROLE_POISON,
    ROLE_FLOOD,
    ROLE_REPLAY,
    ROLE_ECLIPSE,
    ROLE_LIAR /* full node */
};

enum msg_kind {
    MSG_REQUEST,
    MSG_ANSWER,
    MSG_FAIL,
    MSG_NOTE, /* a notification: no answer */
    MSG_GONE, /* there is no stream for it any more */
    MSG_HTTP,
    MSG_MIRROR, /* for a service's own node: to be put into the DHT */
};

struct sim_http { /* of MSG_HTTP and MSG_MIRROR */
    uint64_t started_ns;
    uint32_t subject, version;
    uint8_t record, op; /* enum sim_record, enum http_op */
    bool ok;
};

struct sim_msg { /* under way; owned by its event */
    struct kad_msg m;
    uint32_t from, to, call;
    uint32_t bytes;
    uint32_t relay2; /* still to cross, UINT32_MAX = none */
    uint8_t kind;    /* enum msg_kind */
    uint8_t life;    /* of the asker */
    uint8_t why;     /* MSG_FAIL: enum kad_fail */
    bool handshake;  /* opens a stream */
    struct sim_http http;
};

struct sim_ack { /* a put that was acknowledged */
    uint64_t at_ns;
    uint32_t version;
};

#define SIM_ACKS 3

struct sim_step { /* of a trace */
    uint64_t at_ns;
    uint32_t node;
    bool up;
};

struct sim_node {
    struct kad *kad; /* NULL: not there */
    struct store *store;
    uint64_t *streams; /* with relays: peer << 32 | second of last use + 1 */
    uint64_t timer_ns; /* of the timer event that counts; LOOP_NEVER: none */
    uint64_t digest;
    uint32_t timer_seq, next_seq;
    uint32_t draws[RNG__COUNT];
    uint32_t served; /* requests that reached the engine */
    uint32_t version;
    uint32_t sides; /* in which partitions it is on the far side */
    uint8_t life, role, region, ticks;
    bool dead, joined, traced;
    struct sim_ack acks[SIM_ACKS]; /* latest first */
};

struct sim_relay {
    uint64_t busy_ns; /* until when its queue is full of work */
    uint64_t digest;
    uint32_t next_seq, draws;
};

struct sim_key { /* what is looked at most lies in one line of the cache */
    _Alignas(8) struct kad_id id;
    struct pubkey pk;
};

enum check_kind { CHECK_GET, CHECK_WATCH, CHECK_AUDIT, CHECK_RECORD };

struct sim_check { /* what somebody has learnt of an entry, to be judged between windows */
    uint64_t started_ns, took_ns;
    uint32_t target, version, hops, asked;
    uint8_t kind; /* enum check_kind */
    uint8_t record, chunk;
    bool found, wrong, local, by_dht;
    uint64_t hash; /* of a record that came by the DHT */
};

struct sim_env {
    struct env env;
    struct sim_shard *shard;
};

struct trace_box { /* of one window */
    struct sim_traced *v;
    size_t n, cap;
};

struct intern {
    struct item_ref **v;
    size_t n, cap;
};

struct arena;

struct sim_shard {
    struct sim *sim;
    struct arena *arena; /* what its thread allocates from; NULL: there are none */
    unsigned id;         /* among those of all processes */
    struct queue queue;
    uint64_t now_ns;
    uint32_t node; /* whose engine runs */
    struct sim_env env;
    struct kad_peers peers;
    struct intern items;
    struct sim_check *checks;
    size_t n_checks, cap_checks;
    uint32_t live;
    /* The first shard empties one while the others fill the other. */
    struct trace_box traced[2];
    unsigned trace_box;
    struct kad_stat engines; /* counters of all but full nodes */
    struct sim_counts sum;
    struct hist get_us, get_hops, get_asked, put_us, http_us, watch_us;
};

struct record;
struct service;
struct watcher;
struct replayer;

struct sim {
    struct sim_cfg cfg;
    struct kad_limits limits;
    unsigned shards;                       /* of all processes */
    unsigned first, locals;                /* number of the first one here; how many there are */
    struct sim_shard *shard;               /* the locals */
    struct arena *arenas[SIM_THREADS_MAX]; /* theirs */
    struct exchange *exchange;
    struct sim_node *nodes;
    struct sim_relay *relays;
    struct sim_key *keys;
    uint32_t *key_index; /* real keys: open addressing */
    uint32_t key_mask;
    uint64_t *lat_table; /* lognormal: quantiles */
    uint32_t *matrix;    /* one-way, us; rows * rows */
    uint32_t *rows;      /* of the matrix, per node */
    uint32_t n_rows;
    uint32_t *publishers, n_publishers;
    uint64_t *popularity; /* cumulated weights */
    uint64_t life_scale;  /* churn.c */
    struct sim_step *steps;
    size_t n_steps;
    uint32_t *attackers, n_attackers; /* that name each other */
    struct record *records;           /* of users.h, as the next ones; NULL: there are none */
    struct service *services;
    struct watcher **watchers;   /* users.h; NULL: nobody watches */
    struct replayer **replayers; /* the same; NULL: there are none */
    uint64_t *put_ns;            /* with watchers: when each began to put its last version */
    struct kad_id victim;        /* target of the eclipsed item */
    uint64_t *order_key;         /* oracle */
    uint32_t *order;
    uint64_t end_ns, virtual_ns, windows;
    struct sim_point series[SIM_SERIES_MAX];
    size_t n_series;
    bool interrupted, resumed;
    unsigned checkpoints; /* written since sim_new() or sim_resume() */
    int checkpoint_err;   /* of the last one that failed */
    char checkpoint_why[256];
};

/* Out of memory in the middle of a run: there is no sensible way on. */
void *sim_must(void *p);

static inline struct sim_shard *shard_of(struct sim *s, uint32_t node)
{
    return &s->shard[node % s->shards - s->first];
}
static inline uint64_t node_draw(struct sim_shard *sh, uint32_t node, enum rng_stream stream)
{
    return rng_u64(sh->sim->cfg.seed, node, stream, sh->sim->nodes[node].draws[stream]++);
}
/* A draw that belongs to the node as such. */
static inline uint64_t node_trait(const struct sim *s, uint32_t node, uint32_t what)
{
    return rng_u64(s->cfg.seed, node, RNG_SETUP, what);
}
static inline bool draw_share(uint64_t random, uint32_t ppm)
{
    return rng_below(random, SIM_MILLION) < ppm;
}
enum trait {
    TRAIT_REGION = 1,
    TRAIT_ROW,
    TRAIT_ROLE,
    TRAIT_PUBLISHES,
    TRAIT_SKEW,
    TRAIT_JOIN,
    TRAIT_RELAY,
    TRAIT_ZONE,
    TRAIT_NATIVE,
    TRAIT_WATCHES,
    TRAIT_ADOPTS,
    TRAIT_RECORD,      /* SIM_REC__COUNT draws */
    TRAIT_KEY = 20,    /* four draws */
    TRAIT_SCRIPT = 32, /* SIM_EVENTS_MAX draws */
    TRAIT_TABLE = 256  /* from here on: oracle */
};

/* ---- node.c ---- */

/* An event of a node for itself. */
void node_schedule(struct sim_shard *sh, uint32_t node, enum ev_type type, uint64_t at_ns);
/* The same for a task of its user. */
void node_schedule_task(struct sim_shard *sh, uint32_t node, uint32_t task, uint64_t at_ns);
void node_event(struct sim_shard *sh, const struct sim_event *ev);
/* Create the engine; seeded = the routing table comes from the oracle. */
void node_start(struct sim_shard *sh, uint32_t node, bool seeded);
void node_close(struct sim_shard *sh, uint32_t node);
/* Let the engine of this node run what it wants: call after anything was given to it. */
void node_settle(struct sim_shard *sh, uint32_t node);

/* ---- wire.c ---- */

/* Send a message; takes it over. Draws latency and loss, finds the way. */
void wire_send(struct sim_shard *sh, struct sim_msg *m);
struct sim_msg *wire_new(uint32_t from, uint32_t to, enum msg_kind kind);
void wire_free(struct sim_msg *m);
/* A message reaches a relay. */
void wire_relay(struct sim_shard *sh, const struct sim_event *ev);
/* Give an event to the shard of its destination. */
void wire_post(struct sim_shard *sh, const struct sim_event *ev);
/* Say that a notification found nobody. */
void wire_gone(struct sim_shard *sh, const struct sim_msg *note);
/* With relays: a number for the set of those that a node is behind. */
uint32_t wire_group(const struct sim *s, uint32_t node);
/* Answer with a failure. */
void wire_fail(struct sim_shard *sh, const struct sim_msg *req, enum kad_fail why);

/* ---- load.c ---- */

int load_init(struct sim *s);
void load_put(struct sim_shard *sh, uint32_t node);
void load_get(struct sim_shard *sh, uint32_t node);
/* A get of the item that everybody wants. */
void load_flash(struct sim_shard *sh, uint32_t node);
/* One more item of a flooding node. */
void load_flood(struct sim_shard *sh, uint32_t node);
void load_done(struct sim_shard *sh, uint32_t node, const struct kad_report *r);
/* A publisher, by the popularity that the scenario says. n_publishers > 0. */
uint32_t load_draw_target(const struct sim *s, uint64_t random);
/* Is this a value that the node has made? Its version. */
bool load_read_value(const struct sim *s, const struct item *it, uint32_t node, uint32_t *version);
/* The version that everybody must see who asks from then on; 0: none that must still be there. */
uint32_t load_acknowledged(const struct sim *s, uint32_t node, uint64_t before_ns);
/* A finished read: must and oldest are the versions that it has to bring to be good, and not stale. */
void load_settle(struct sim_shard *sh, const struct sim_check *c, uint32_t must, uint32_t oldest);
uint64_t load_default_ms(uint32_t given, uint32_t standard);
/* Have it judged by the shard of its target. */
void load_post_check(struct sim_shard *sh, const struct sim_check *c);
/* A get of one of this shard's nodes' items has ended. */
void load_check(struct sim_shard *sh, const struct sim_check *c);
/* Judge the gets that ended in this window; between windows. */
void load_judge(struct sim_shard *sh);

/* ---- churn.c ---- */

int churn_init(struct sim *s, char *why, size_t why_cap);
uint64_t churn_join_time(const struct sim *s, uint32_t node);
/* False: the trace brings it later. */
bool churn_starts_up(const struct sim *s, uint32_t node);
void churn_schedule(struct sim_shard *sh, uint32_t node);
/* How long the node stays (up) or stays away. */
uint64_t churn_time(struct sim_shard *sh, uint32_t node, bool up);
/* With days: does the user do now what is drawn at the pace of the busiest hour? */
bool churn_is_active(struct sim_shard *sh, uint32_t node);
uint64_t churn_busiest(const struct sim_cfg *c, uint64_t every_ns);

/* ---- attack.c ---- */

/* Roles, and the IDs of those who close in on an item. Behind keys and load_init(). */
enum role attack_role(const struct sim *s, uint32_t node);
int attack_init(struct sim *s);

/* True when the attacker has dealt with the request (which is taken over then). */
bool attack_request(struct sim_shard *sh, uint32_t node, struct sim_msg *m);

/* ---- oracle.c ---- */

int oracle_init(struct sim *s);
void oracle_fill(struct sim_shard *sh, uint32_t node);
void oracle_free(struct sim *s);

/* ---- keys.c ---- */

int keys_init(struct sim *s);
void keys_make(struct sim *s, uint32_t node);
int keys_index(struct sim *s);
struct seckey keys_secret(const struct sim *s, uint32_t node);
/* These keys will be looked up: they are fetched into the cache all at once. */
void keys_soon(const struct sim *s, const struct pubkey *pks, size_t n);
struct kad_peers keys_peers(struct sim_shard *sh);
/* Does the node speak the native dialect of the DHT? */
bool keys_is_native(const struct sim *s, uint32_t node);

/* ---- simenv.c ---- */

void simenv_init(struct sim_env *e, struct sim_shard *sh);
/* Sign under the key of this node. */
void simenv_sign(struct sim_shard *sh, uint32_t node, struct item *it);

/* ---- latency.c ---- */

int latency_init(struct sim *s, char *why, size_t why_cap);
/* One way between two nodes or relays (numbers from cfg.nodes on), without jitter. */
uint64_t latency_of(const struct sim *s, uint32_t a, uint32_t b);

/* ---- intern.c ---- */

/* The shard's own copy of an item that came from another shard; takes the reference over. */
struct item_ref *intern_item(struct intern *t, struct item_ref *item);
void intern_free(struct intern *t);

/* ---- checkpoint.c ---- */

/* Between two windows that begin at begun_ns and next_ns: is the state to be saved? All shards of all processes
 * get the same answer. */
bool checkpoint_is_due(const struct sim *s, uint64_t begun_ns, uint64_t next_ns, bool stop);
/* By the first shard, while the others wait. What goes wrong is kept in s->checkpoint_err. */
void checkpoint_save(struct sim *s);

/* ---- trace.c ---- */

bool trace_has(const struct sim_cfg *cfg, uint32_t node);
/* An event that a traced node is given; behind its digest. */
void trace_note(struct sim_shard *sh, const struct sim_event *ev);
/* All that was noted in this box goes to cfg.traced. By the first shard, while nobody notes there. */
void trace_give(struct sim *s, unsigned box);
