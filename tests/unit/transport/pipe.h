/*
 * pipe - conns in memory, with virtual time and faults: what transport tests run on.
 *
 * A struct pipe_net drives a struct loop: pipe_net_run() takes turns at exactly the times that
 * something is due, so hours pass in microseconds and every run is the same. It makes conn pairs
 * (pipe_pair), is a carrier (net->carrier: dial "a:1" reaches pipe_listen(net, "a:1"); "hole…:1" is
 * an address that swallows everything), and each
 * end of a pair can be made bad, at any time:
 *
 *     delay_ns    from being sent until it arrives (a new value holds for what is sent from then
 *                 on; bytes never overtake each other)
 *     chunk       the other end gets its bytes in pieces of at most so many, 0 = up to 64 KiB
 *     rate        bytes per second that leave this end, 0 = any
 *     window      bytes that may be under way before this end can write no more (a socket's
 *                 buffers), 0 = any
 *     frozen      nothing of what leaves this end arrives any more, neither bytes nor the end: a
 *                 peer that vanished without FIN
 *     stalled     this end writes nothing: output is not even asked for
 *
 * The rules of conn.h hold: users are called from the loop only, a closed conn calls nobody, a
 * paused one gets no bytes (they stay under way and fill the window). A loop that spins without
 * time passing aborts.
 *
 * A closed end stays valid memory until the net is freed; all memory goes in pipe_net_free(), which
 * asserts that both ends of every pair were closed. Out of memory aborts: this is a
 * test tool. Gauges: conns open, bytes under way.
 *
 *     struct pipe_net net;
 *     pipe_net_init(&net, pool, &env.env);
 *     struct pipe_conn *a, *b;
 *     pipe_pair(&net, &a, &b);
 *     b->out.frozen = true;
 *     link = link_new(&net.loop, &a->conn, …);
 *     pipe_net_run(&net, 60 * NS_PER_S);
 */
#pragma once

#include "base/env_test.h"
#include "base/loop.h"
#include "transport/conn.h"

struct pipe_net;

struct pipe_fault { /* of the direction that begins at an end; see above */
    uint64_t delay_ns;
    size_t chunk;
    uint64_t rate;
    size_t window;
    bool frozen, stalled;
};

struct pipe_segment; /* bytes under way */

struct pipe_conn {
    struct conn conn; /* first member */
    struct pipe_net *net;
    struct pipe_conn *other;
    struct pipe_fault out; /* set it at will; call pipe_wake() after making it better */

    /* counters */
    uint64_t sent, received; /* bytes that left this end, that its user got */
    uint64_t writes, inputs; /* calls of output() that gave something, of input() */

    /* private */
    struct pipe_segment *head, *tail; /* under way to the other end */
    size_t under_way;
    uint64_t free_ns;    /* when the rate lets the next byte leave */
    uint64_t last_at_ns; /* arrival of the last segment */
    bool open, up, paused, down_told;
    int fin; /* 0 = none, else what the other end hears behind the last byte */
    uint64_t fin_at_ns;
    struct loop_timer arrive, depart;
    struct loop_task flush;
    int start_err;
    struct pipe_conn *next;
};

typedef void pipe_accept_fn(void *arg, struct conn *conn);

struct pipe_listener {
    char addr[CONN_ADDR_MAX];
    pipe_accept_fn *fn;
    void *arg;
    struct pipe_listener *next;
};

struct pipe_net {
    struct loop loop;
    struct carrier carrier; /* dials listeners of this net */
    struct bufpool *pool;
    struct env_test *env;    /* its deferred work is run between turns; NULL = none */
    struct pipe_fault fault; /* of new pairs, both directions */
    uint64_t dial_ns;        /* time that a dial takes */
    size_t pk_per_turn;      /* deferred public-key work answered after each turn, 0 = all */
    /* gauges and counters */
    size_t open; /* ends not yet closed */
    uint64_t dials, refused;
    /* private */
    struct pipe_conn *conns;
    struct pipe_listener *listeners;
    bool freeing;
};

/* Time starts at 1000 s. */
void pipe_net_init(struct pipe_net *net, struct bufpool *pool, struct env_test *env);
/* All conns must be closed; runs one more turn so that deferred destruction happens. */
void pipe_net_free(struct pipe_net *net);

/* Let for_ns pass. */
void pipe_net_run(struct pipe_net *net, uint64_t for_ns);
/* Let time pass until done(arg) is true, at most max_ns; returns whether it is. */
bool pipe_net_until(struct pipe_net *net, uint64_t max_ns, bool (*done)(void *arg), void *arg);
uint64_t pipe_now(const struct pipe_net *net);

/* Two ends of one pipe, both up. */
void pipe_pair(struct pipe_net *net, struct pipe_conn **a, struct pipe_conn **b);
/* Accept dials to addr; fn gets the accepted end and must take it over or close it. */
void pipe_listen(struct pipe_net *net, const char *addr, pipe_accept_fn *fn, void *arg);
void pipe_unlisten(struct pipe_net *net, const char *addr);

static inline struct pipe_conn *pipe_of(struct conn *conn)
{
    return (struct pipe_conn *)conn;
}

/* Break the pipe: both users hear this error. */
void pipe_break(struct pipe_conn *c, int err);
/* After faults were taken away: write and deliver again. */
void pipe_wake(struct pipe_conn *c);
