/*
 * sim - a network of virtual nodes that run the shipped Kademlia engine in virtual time.
 *
 * The engine (kademlia/kad.h) is the one the node runs: it gets messages, a clock, random numbers and
 * public-key work through the same interfaces. What is modelled is around it: latency, loss, relays,
 * users, failures, attackers (docs/simulator.md says how).
 *
 * Determinism: a run is a function of its configuration and seed. Every event has its place in the
 * order (time, source, sequence), every draw its number (rng.h), and shards of nodes run on threads
 * in windows as long as the shortest latency, so that nothing that happens in a window can matter to
 * another shard within it. The digest, a hash of what every node was given and when, is the same for
 * any number of threads, and of processes (cfg.others), each of which has as many threads: every process
 * calls the same functions, and each gets the result of all.
 *
 * Checkpoints: the state is written as it lies in memory (base/arena.h), so a file is good for the very
 * program that wrote it, on a machine of its kind, with as many threads and processes. A resumed run ends with
 * the digest of one that was never interrupted.
 *
 * Owner: one thread calls these functions; sim_run() starts cfg.threads - 1 more and ends them.
 * Limits: SIM_NODES_MAX nodes; memory, which sim_predict() tells before. Errors: sim_new() gives
 * ERR_NOMEM, ERR_USAGE (combination of settings, with the reason), ERR_FORMAT or a system error
 * (matrix file); sim_run() ERR_NOMEM. Running out of memory in the middle of a run ends the program.
 *
 *     struct sim *s;
 *     struct sim_result r;
 *     sim_cfg_default(&cfg);
 *     rc = sim_new(&s, &cfg, why, sizeof why);
 *     rc = sim_run(s);
 *     sim_result(s, &r);
 *     sim_free(s);
 */
#pragma once

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "simulator/hist.h"

#define SIM_NODES_MAX   (1u << 27)
#define SIM_THREADS_MAX 64
#define SIM_EVENTS_MAX  32
#define SIM_REGIONS_MAX 16
#define SIM_RANGES_MAX  16
#define SIM_MILLION     1000000u
#define SIM_SERIES_MAX  1024 /* points of the time series */
#define SIM_WATCHES_MAX 64
#define SIM_CORES_MAX   16

enum sim_latency { SIM_LAT_CONSTANT, SIM_LAT_LOGNORMAL, SIM_LAT_REGIONS, SIM_LAT_MATRIX };
enum sim_join { SIM_JOIN_PROTOCOL, SIM_JOIN_ORACLE };
enum sim_law { SIM_LAW_EXPONENTIAL, SIM_LAW_WEIBULL, SIM_LAW_PARETO, SIM_LAW_TRACE };
enum sim_codec { SIM_CODEC_MEMORY, SIM_CODEC_JSON, SIM_CODEC_NATIVE };
enum sim_unit { SIM_UNIT_MS, SIM_UNIT_S };
enum sim_signatures { SIM_SIG_MODEL, SIM_SIG_REAL };

/* Faults that tests plant to see that the invariants can fail. No scenario file reaches them. */
enum sim_defect {
    SIM_DEFECT_NONE,
    SIM_DEFECT_NO_VERIFY, /* every signature is taken for good */
    SIM_DEFECT_NO_CLOSE,  /* answers name no contacts: look-ups end too early */
    SIM_DEFECT_NO_EVICT,  /* no engine hears of a failed call: buckets keep the dead for ever */
};

enum sim_event_type {
    SIM_KILL,        /* a share of the nodes dies for good at once */
    SIM_PARTITION,   /* a share of the nodes is cut off from the others for a time */
    SIM_RELAY_CRASH, /* so many relays are down for a time */
    SIM_FLASH,       /* a share of the nodes asks for one and the same item within a time */
    SIM_PHASE,       /* the transition from HTTP to the DHT goes on to this phase */
    SIM_ADOPT,       /* this share of the visors is of the new kind then */
    SIM_HTTP_DOWN,   /* HTTP services answer nobody */
};

struct sim_script {
    uint64_t at_ns, for_ns; /* for_ns 0: for good */
    enum sim_event_type type;
    uint32_t share_ppm;
    uint32_t relays, phase;
};

enum sim_record { SIM_REC_ENTRY, SIM_REC_TP, SIM_REC_SVC, SIM_REC_ADDR, SIM_REC__COUNT };

struct sim_record_cfg { /* what visors tell of themselves; times are means, 0 = never */
    uint32_t share_ppm; /* of nodes that have one */
    uint32_t count;     /* transports, services in it */
    uint64_t every_ns;  /* registered again */
    uint64_t change_ns; /* a new version */
    uint64_t read_ns;   /* each node reads somebody's */
};

struct sim_range { /* of nodes */
    uint64_t first, last;
};

struct sim_traced { /* what a traced node was given (trace.h) */
    uint64_t at_ns;
    uint32_t node, src, seq;
    uint8_t type, kind, method, why; /* kind and so on: of messages */
    uint32_t aux, call, contacts, items;
    uint64_t content; /* hash of the message */
    uint64_t state;   /* hash of all that the node was given so far, this one too */
};

struct exchange_net;

struct sim_cfg { /* shares and losses in millionths */
    char name[64];
    uint64_t seed, duration_ns;
    uint32_t nodes;
    unsigned threads;
    enum sim_codec codec;
    enum sim_signatures signatures;
    uint32_t sample;     /* model: one of so many signatures is also made for real; 0 = none */
    uint64_t skew_ns;    /* wall clocks are off by up to this, either way */
    uint32_t native_ppm; /* nodes that speak the native dialect of the DHT to each other */
    bool check;          /* look at limits of tables while running */

    struct {
        enum sim_join by;
        uint64_t over_ns;   /* nodes come one after the other during this time */
        uint32_t bootstrap; /* the first nodes, whose keys everybody may know */
        uint32_t keys;      /* how many of these a node knows */
        uint32_t waves;     /* 0: evenly */
    } join;
    struct {
        enum sim_latency model;
        uint64_t floor_ns, median_ns; /* one way */
        uint32_t sigma_milli;         /* of ln(latency), thousandths */
        uint32_t jitter_ppm;          /* up to this is added to each message, of the latency */
        uint32_t loss_ppm;
        char matrix[256]; /* file of round trips, in matrix_unit */
        enum sim_unit matrix_unit;
        uint32_t n_regions;
        uint64_t region_ns[SIM_REGIONS_MAX][SIM_REGIONS_MAX];
    } net;
    struct {
        uint32_t count;    /* 0: messages go directly */
        uint32_t per_node; /* 1 or 2 */
        uint64_t bytes_per_s;
        uint64_t message_ns, handshake_ns; /* CPU of a relay per message, per new stream */
        uint64_t queue_ns;                 /* longer queues drop */
        bool pooled; /* streams stay open between two nodes (native dialect), else one each call */
    } relays;
    struct {
        uint32_t share_ppm; /* of nodes that publish */
        uint64_t every_ns, start_ns;
        uint32_t bytes; /* of a value */
    } puts;
    struct {
        uint64_t every_ns, start_ns;
        uint32_t zipf_milli;
        bool network, first; /* KAD_GET_NETWORK, KAD_GET_FIRST */
    } gets;
    struct {
        uint64_t up_ns, down_ns, start_ns; /* mean times; up 0: none; absences exponential */
        enum sim_law law;                  /* of lives */
        uint32_t shape_milli;              /* Weibull, Pareto */
        char trace[256];                   /* file: SECONDS NODE up|down */
        bool keep;                         /* a node that comes back has its store */
    } churn;
    struct {
        uint32_t count; /* the first so many nodes, bootstrap nodes among them, are full nodes */
        uint32_t liars; /* the last ones of these lie about what they hold */
    } full;
    uint64_t records_start_ns;
    struct sim_record_cfg record[SIM_REC__COUNT];
    struct {                                 /* HTTP services beside the DHT (transition.c) */
        uint32_t phase;                      /* 1 to 4; 0: there are none */
        uint32_t adoption_ppm;               /* visors of the new kind, at the beginning */
        uint32_t cores;                      /* of each service */
        uint64_t get_ns, post_ns, mirror_ns; /* CPU of a request, of signing what is mirrored */
        uint64_t queue_ns;                   /* who would wait longer is refused */
        uint64_t ttl_ns;                     /* of what is registered */
        uint64_t mirror_every_ns,
            push_every_ns;  /* what has not changed is mirrored, pushed again */
        uint64_t settle_ns; /* so long after the last change the new state is measured */
    } http;
    struct {                         /* of entries: puts.share publishes, these look on */
        uint32_t share_ppm;          /* of nodes that watch */
        uint32_t each;               /* entries that such a node watches, SIM_WATCHES_MAX at most */
        uint64_t start_ns, audit_ns; /* audit: how often what it knows is compared */
        uint64_t late_ns;            /* what was acknowledged longer ago than this must be known */
    } watches;
    struct {                /* gets and absences follow the hour */
        uint32_t swing_ppm; /* 0: no days */
        uint32_t zones;     /* of time, evenly spread over the nodes */
        uint64_t length_ns;
    } day;
    struct {
        uint32_t mute_ppm, wrong_ppm, stale_ppm, slow_ppm, poison_ppm, flood_ppm, replay_ppm;
        uint32_t eclipse;      /* this many nodes close in on the first publisher's item */
        uint32_t eclipse_bits; /* of its target that their IDs share */
        bool eclipse_relay;    /* they are all behind the first relay, and only there */
        uint64_t slow_by_ns, flood_every_ns, replay_every_ns;
    } attack;
    struct {
        uint32_t k, alpha, rpc_timeout_ms, hedge_ms, refresh_ms, republish_ms, ttl_ms,
            cache_fresh_ms, rate_per_s;
    } kad; /* 0 = default of the engine */
    struct sim_script script[SIM_EVENTS_MAX];
    size_t n_script;
    struct {
        uint32_t success_ppm; /* at least, of gets of published items */
        uint32_t stale_ppm;   /* at most, of gets that brought anything */
        uint32_t hops_milli;  /* mean at most; 0 = any */
        uint32_t late_ppm;    /* at most, of audits of watches that found an older value */
        uint32_t held_ppm;    /* at least, of the records that any honest full node holds */
        uint64_t p99_ns;      /* at most; 0 = any */
        uint32_t
            http_saved_ppm;     /* at least, of HTTP requests, from before the first change to after
                                    the last one */
        uint64_t registrations; /* at least, of transports, in 90 s before the first change */
    } expect;

    const struct exchange_net
        *others;            /* optional: other processes (exchange.h) with the same settings */
    enum sim_defect defect; /* tests */
    /* Optional: the whole state goes to this file every so often in virtual time, and when the run is stopped;
     * each process has a file of its own, with its number behind the name. Only the last one is kept. */
    char checkpoint[256];
    uint64_t checkpoint_every_ns; /* 0: only when stopped */
    /* Optional: events of these nodes, in order, by the thread of sim_run(). Only without others. */
    struct sim_range trace[SIM_RANGES_MAX];
    size_t n_trace;
    void (*traced)(void *arg, const struct sim_traced *ev);
    void *traced_arg;
    /* Optional. Set by a signal handler: the run ends at the next window, with what there is. */
    const volatile sig_atomic_t *stop;
    /* Optional: called by the thread of sim_run() every so many windows. */
    void (*progress)(void *arg, uint64_t virtual_ns, uint64_t events, uint32_t live);
    void *progress_arg;
};

struct sim_point { /* of the time series: sums since the start */
    uint64_t at_ns, events, gets_ok, gets_failed, puts_ok, puts_failed;
    uint64_t live;
    uint64_t http, http_cpu_ns, http_registered, reads_dht, reads_http;
};

struct sim_counts {
    uint64_t delivered;               /* messages to engines: "events" */
    uint64_t relayed, timers, others; /* what else the queues did */
    uint64_t bytes, lost, cut, relay_dropped, unreachable;
    uint64_t puts_ok, puts_failed;
    uint64_t gets, gets_ok, gets_failed; /* of published items */
    uint64_t gets_unpublished;           /* nothing acknowledged yet: not counted above */
    uint64_t gets_local;
    uint64_t victim_ok, victim_failed; /* gets of the eclipsed item, counted above too */
    uint64_t victim_stale;             /* … that brought an old version */
    /* relays, as engines see them: groups that fell silent, contacts not asked therefore, contacts that made
     * room for those of others, puts above the quota of a group */
    uint64_t groups_suspected, passed_over, diversified, refused_group;
    uint64_t floods;                 /* items that flooding nodes got stored somewhere */
    uint64_t replays, replays_taken; /* old versions put again; those that were stored */
    uint64_t wrong, stale, bounds, sampled, sampled_bad; /* violations, signatures */
    uint64_t signed_, verified, joins, leaves, handshakes;
    uint64_t answers_rejected;
    uint64_t cpu_ns;       /* public-key work by the cost model */
    uint64_t requests[16]; /* delivered, by enum kad_method */
    uint64_t watches, watch_events, watch_audits, watch_late; /* late: of audits */
    uint64_t notes;                                           /* delivered notifications */
    uint64_t changes, reads_dht, reads_http; /* of records; by where the answer came from */
    uint64_t http, http_gets, http_posts, http_pushes; /* requests served, all and by kind */
    uint64_t http_refused, http_fallback;              /* fallback: gets behind a miss of the DHT */
    uint64_t http_registered;                          /* transports, by POST */
    uint64_t http_mirrored, http_cpu_ns;
    uint64_t sync_pulled, sync_pushed, sync_bytes, reconciled; /* of full nodes */
    uint64_t lies, lies_seen; /* answers of lying full nodes; what full nodes noticed */
    /* At the end, summed over honest full nodes: records that at least one of them holds, of them those
     * that this one holds, and in the newest version; and records that any should find. */
    uint64_t to_hold, held, held_newest, records;
};

struct sim_http_rates {
    uint64_t requests_milli; /* a second, thousandths, of all services */
    uint64_t cpu_ppm;        /* of a core */
    uint64_t registered_90s; /* transports */
};

struct sim_result {
    struct sim_counts sum;
    uint64_t virtual_ns, windows, digest[4];
    uint32_t nodes, live;
    uint64_t contacts_mean_milli, stored_items, queue_peak;
    struct hist get_us, get_hops, get_asked, put_us;
    struct hist http_us;  /* reads that HTTP answered */
    struct hist watch_us; /* from the beginning of a put to the report of a watch */
    struct hist load;     /* requests served per node */
    uint64_t load_gini_ppm;
    struct sim_http_rates before, after; /* of the transition */
    uint32_t http_saved_ppm;
    bool interrupted;
    bool passed; /* no wrong value, no bound passed, sampled signatures good, expectations met */
    char failed[160]; /* the first that was not */
    struct sim_point series[SIM_SERIES_MAX];
    size_t n_series;
    unsigned checkpoints; /* written */
    int checkpoint_err;   /* 0, or why the last one that failed did; the run went on */
    char checkpoint_why[256];
};

struct sim_saved { /* a checkpoint */
    char name[64];
    uint64_t seed, virtual_ns, bytes; /* of memory that it will take */
    uint32_t nodes;
    unsigned threads;
};

struct sim;

void sim_cfg_default(struct sim_cfg *cfg);

/* Bytes of memory that a run will take, roughly (within a third). */
uint64_t sim_predict(const struct sim_cfg *cfg);

int sim_new(struct sim **out, const struct sim_cfg *cfg, char *why, size_t why_cap)
    __attribute__((warn_unused_result));
/* What is saved in a file; with others, in that of this process. ERR_VERSION: of another build or format;
 * ERR_CORRUPT; ERR_STATE: of another number of processes; a system error. */
int sim_saved(struct sim_saved *out, const char *path, const struct exchange_net *others, char *why,
              size_t why_cap) __attribute__((warn_unused_result));
/* A simulation as it was saved, sim_run() goes on from there. Of run only others, stop, progress, traced, their args
 * and the settings of checkpoints are used: all else is as it was. Errors as above. */
int sim_resume(struct sim **out, const char *path, const struct sim_cfg *run, char *why,
               size_t why_cap) __attribute__((warn_unused_result));
const struct sim_cfg *sim_cfg(const struct sim *s);
/* Bytes of memory that it has taken here; 0: it has no arenas (base/arena.h). */
uint64_t sim_memory(const struct sim *s);
int sim_run(struct sim *s) __attribute__((warn_unused_result));
void sim_result(struct sim *s, struct sim_result *out);
void sim_free(struct sim *s);
