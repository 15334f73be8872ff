/*
 * load - what the parts of kadmsg-load share. The program is a load generator for any dmsg server,
 * ours or another: clients with fresh keys, sessions, streams between pairs of clients.
 *
 *     main.c     command line, set-up, report
 *     usage.c    processor time and memory of a process
 *     pattern.c  the bytes that are sent, and their check
 *     end.c      a client: one session to the server
 *     flow.c     a stream between two clients
 *     sealed.c   the same with --e2e: client and stream as applications have them
 *     bulk.c ping.c open.c sess.c idle.c    the modes: what is done with them, and what is measured
 *     copy.c     a server of its own: the bare byte-copying relay, the ceiling of bulk
 *     entries.c  signed entries for the bench of HTTP services; transports.c  signed registrations of transports
 *     puts.c     signed items for the nodes of a network
 *     floor.c    processor time of single operations, the ceiling of set-up
 *
 * A mode is a table of functions (struct load_mode) that are called from the loop. load_begin() and
 * load_end() enclose what is measured. Whatever goes wrong is counted by load_error(); what makes
 * the rest pointless ends the run by load_fail().
 *
 * One thread; everything lives until the program ends.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/cmdline.h"
#include "base/env_sys.h"
#include "base/json.h"
#include "transport/drive_tcp.h"
#include "transport/link.h"
#include "transport/stream.h"

#define LOAD_PORT       7000           /* where clients listen */
#define LOAD_WARM_UP_NS (NS_PER_S / 2) /* between everything being open and the measurement */

struct load;
struct end;
struct flow;

struct load_opts {
    int mode;
    struct addr_hostport addr;
    struct pubkey pk;
    uint64_t pid, pairs, streams, write, seconds_ns, size, count, inflight, sessions, hold_ns, keys,
        slots;
    bool e2e, bare;
};

/* ---- usage.c ---- */

struct usage {
    uint64_t wall_ns;
    uint64_t server_cpu_ns, driver_cpu_ns;
    uint64_t rss_kib, anon_kib; /* of the server */
};

/* 0, or why the process cannot be looked at. pid 0: only the driver's own time. */
int usage_take(struct usage *out, uint64_t pid);

/* ---- pattern.c ---- */

void pattern_init(void);
/* Bytes at position `at` of the stream `seed`, at most *n of them; *n says how many. */
const uint8_t *pattern_at(uint32_t seed, uint64_t at, size_t *n);
bool pattern_check(uint32_t seed, uint64_t at, const uint8_t *p, size_t n);

/* ---- modes ---- */

struct load_mode {
    const char *name;
    const char *flags;                            /* the flags it knows, " pairs streams " */
    size_t (*ends)(const struct load_opts *o);    /* clients that it needs */
    void (*up)(struct end *e);                    /* may be NULL: a session is up */
    void (*ready)(struct load *l);                /* all are up, or have failed */
    void (*opened)(struct flow *f);               /* either end of a stream */
    void (*readable)(struct flow *f, uint64_t n); /* n good bytes came */
    void (*writable)(struct flow *f);
    void (*ended)(struct flow *f, int err); /* EOF or reset; the flow is gone afterwards */
    void (*report)(struct load *l, struct json_out *o); /* value, unit and more */
    bool tolerant; /* a session or stream that fails is counted and the run goes on */
};

extern const struct load_mode mode_bulk, mode_ping, mode_open, mode_sess, mode_idle;

struct load {
    struct load_opts o;
    const struct load_mode *mode;
    struct env_sys sys;
    struct drive_loop *drive;
    struct loop *loop;
    struct bufpool *pool;
    struct drive_tcp *tcp;
    struct sockaddr_storage to;
    socklen_t to_len;

    struct end *ends;
    size_t n_ends, started, up, failed;
    size_t flows_wanted, flows_started, flows_open; /* dialled ones, of load_dial_all() */
    uint64_t rx_bytes;
    struct usage first, before, after;
    struct loop_timer timer; /* for the mode */
    uint64_t errors, retries;
    char first_error[200];
    bool failed_hard;
    uint64_t *samples; /* durations, ns */
    size_t n_samples, samples_cap;
};

void load_error(struct load *l, const char *what, int err);
void load_fail(struct load *l, const char *what, int err);
void load_begin(struct load *l); /* take l->before */
void load_end(struct load *l);   /* take l->after and leave the loop */
/* Call fn after a while. One at a time. */
void load_after(struct load *l, uint64_t ns, void (*fn)(struct loop_timer *t));
/* Dial `streams` streams between the pairs (0, 1), (2, 3) … in turn, a few at a time; the mode sees
 * opened() of each. */
void load_dial_all(struct load *l, size_t streams);
void load_opened(struct flow *f); /* flow.c: either end of a stream is open */
void load_sample(struct load *l, uint64_t ns);
uint64_t load_percentile(struct load *l, unsigned percent);
double load_wall_s(const struct load *l);
void report_number(struct json_out *o, const char *name, double v);
/* About the server: null without --pid. */
void report_server(struct load *l, struct json_out *o, const char *name, double v);
double load_server_cpu_s(const struct load *l);
double load_driver_cpu_s(const struct load *l);

/* ---- end.c ---- */

struct end {
    struct load *load;
    struct seckey sk;
    struct pubkey pk;
    struct link *link;
    struct client *client; /* with --e2e, in place of link */
    struct loop_timer timer;
    bool up, retried;
    uint16_t last_port;
    uint64_t started_ns;
};

/* Start ends until `inflight` of them are under way. Called again by itself as they come up. */
void ends_start(struct load *l);
/* Its session is up, or cannot be had. */
void end_settled(struct end *e);
void end_failed(struct end *e, int err);
/* Close its session; its flows must be gone. */
void end_close(struct end *e);
/* The other client of its pair. */
struct end *end_partner(struct end *e);

/* ---- flow.c ---- */

enum flow_state { FLOW_DIALLING, FLOW_REQUEST, FLOW_OPEN };

struct flow {
    struct end *end;
    enum flow_state state;
    bool dialled;
    bool busy, over, linger; /* private */
    uint32_t seed;
    uint64_t sent, got;
    uint64_t started_ns;
    uint64_t mark; /* for the mode */
    struct loop_timer timer;
    struct hash req_hash;
    struct yamux_stream *st; /* one of the two */
    struct stream *stream;
};

struct load *load_of_flow(const struct flow *f);
/* Open a stream to the partner. False: it failed, and was counted. */
bool flow_dial(struct end *e);
/* An event of the end's mux. */
void flow_event(struct end *e, const struct yamux_event *ev);
/* Send up to n bytes of the pattern; returns how many were taken, and asks for writable() when it
 * were less. */
size_t flow_send(struct flow *f, size_t n);
/* FIN, and forget it. */
void flow_close(struct flow *f);

/* For sealed.c: between begin and end the flow may be closed, but stays. */
struct flow *flow_new(struct end *e, bool dialled);
uint32_t flow_seed(const struct pubkey *dialler, uint16_t port);
void flow_opened(struct flow *f);
void flow_failed(struct flow *f, const char *what, int err);
void flow_lost(struct flow *f, int err);
void flow_step(struct flow *f, bool writable);
void flow_hold(struct flow *f);
void flow_release(struct flow *f);

/* ---- sealed.c ---- */

/* Hold a session with a client of transport/client.h, and listen. 0 or an error. */
int sealed_start(struct end *e);
bool sealed_dial(struct flow *f);
void sealed_free(struct flow *f);

/* ---- copy.c, floor.c: return the exit code ---- */

int copy_run(struct load *l);
int floor_run(void);

/* ---- entries.c ---- */

int entries_run(const struct load_opts *o);

/* ---- transports.c ---- */

int transports_run(const struct load_opts *o);

/* ---- puts.c ---- */

int puts_run(const struct load_opts *o);
