/*
 * conformance - the tables of test_conformance.c: what a carrier and what a multiplexer must bring
 * along to be put to the tests that all of them have to pass (incident 7).
 *
 * A carrier gives connected pairs of conns and lets time pass; a mux makes a session of each conn
 * and has streams. No function may be missing: the tables are checked before the first test. To add
 * one, write its struct, name it in carriers[] or muxes[] (conformance_*.c), and every case runs
 * with it.
 */
#pragma once

#include "base/env_test.h"
#include "base/loop.h"
#include "transport/conn.h"

struct drive_loop;
struct drive_tcp;
struct drive_listener;
struct pipe_net;

struct bed { /* where one test runs */
    const struct carrier_kind *carrier;
    const struct mux_kind *mux;
    struct env_test env;
    struct bufpool *pool;
    struct loop *loop;
    void *own; /* the carrier's */
    struct side *side[2];
};

struct carrier_kind {
    const char *name;
    /* False: this machine cannot (no IPv6). Sets bed->loop. */
    bool (*begin)(struct bed *b);
    void (*end)(struct bed *b);
    void (*pair)(struct bed *b, struct conn **dialler, struct conn **acceptor);
    /* Let time pass until *stop, at most ns. */
    void (*run)(struct bed *b, const bool *stop, uint64_t ns);
};

struct mux_stream; /* one stream of any mux */

struct mux_kind {
    const char *name;
    /* Sessions over a pair, side 0 dialled. A ping when nothing was heard for ping_ms (0: none), the
     * end when nothing comes for dead_ms more. */
    struct side *(*begin)(struct bed *b, struct conn *conn, bool dialled, unsigned ping_ms,
                          unsigned dead_ms);
    void (*end)(struct side *s); /* also while streams are open */
    bool (*up)(const struct side *s);
    int (*down)(const struct side *s); /* 0, or why it ended */
    struct mux_stream *(*open)(struct side *s);
    /* The oldest stream of the other side that was not given yet, or NULL. */
    struct mux_stream *(*accept)(struct side *s);
    size_t (*write)(struct mux_stream *x, const void *p, size_t n); /* how many were taken */
    size_t (*read)(struct mux_stream *x, void *p, size_t n);
    size_t (*waiting)(const struct mux_stream *x); /* received, not read */
    void (*shut)(struct mux_stream *x);
    void (*reset)(struct mux_stream *x);
    bool (*eof)(const struct mux_stream *x);  /* everything was read and the end came */
    bool (*dead)(const struct mux_stream *x); /* reset, or its session ended */
    void (*release)(struct mux_stream *x);    /* after which it is gone */
    int (*ping)(struct side *s);
    unsigned (*pongs)(const struct side *s);
    size_t (*streams)(const struct side *s); /* ids in use */
    void (*deaf)(struct side *s);            /* reads nothing from its conn any more */
};

extern const struct carrier_kind *const carriers[]; /* ended by NULL */
extern const struct mux_kind *const muxes[];
