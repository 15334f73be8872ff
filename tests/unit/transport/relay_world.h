/*
 * relay_world - one relay and its peers in memory, for the tests of the relay and its fuzz target.
 *
 * Two kinds of peers, both in virtual time on one pipe_net:
 *
 *     struct rw_peer   a client made of link.h that follows the protocol: opens streams, sends
 *                      signed requests, answers those of others as told (enum rw_answer), sends and
 *                      checks a byte pattern
 *     struct rw_raw    a conn whose bytes the test writes itself: a handshake step by step, then
 *                      yamux frames of any kind and objects sealed with any counter
 *
 * With rw_workers above 1 the relay has as many workers, all on this one loop: connections are
 * accepted by each in turn, trunks are pipes, and a session that moves arrives later in the same turn.
 *
 * The relay has an env of its own (w->env: its work can be deferred or refused); peers share
 * another (w->peer_env). rw_free() closes everything and checks that every gauge of the relay and
 * of the pool is back at zero. Errors of the tool abort: it is used without cmocka too.
 */
#pragma once

#include <stdio.h>
#include <stdlib.h>

#include "base/env_test.h"
#include "base/err.h"
#include "tests/unit/transport/pipe.h"
#include "transport/cipher.h"
#include "transport/noise.h"
#include "transport/objects.h"
#include "transport/relay.h"

#define RW_MUST(x)                                                                                 \
    do {                                                                                           \
        if (!(x)) {                                                                                \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #x);                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

struct rw_key {
    struct seckey sk;
    struct pubkey pk;
};

#define RW_WORKERS_MAX 4
extern unsigned rw_workers; /* of worlds that are made from now on; 1 */
extern bool rw_deferred;    /* their relay's public-key work is done later, in any order */
/* A test with work done at once, and deferred. */
void rw_twice(void (*test)(void));

struct rw_world {
    struct env_test env, peer_env;
    struct bufpool *pool;
    struct pipe_net net;
    struct rw_key key;   /* the relay's */
    struct relay *relay; /* the first worker, or another server that peers now connect to */
    struct relay *worker[RW_WORKERS_MAX];
    unsigned workers, next_worker;
    struct guard *guard; /* of several workers */
    struct crew *crew;
    struct pipe_conn *trunk[RW_WORKERS_MAX][RW_WORKERS_MAX]; /* end of i towards k */
    struct list moves;                                       /* sessions between two workers */
    struct loop_task arrive;
    struct list peers; /* struct rw_peer */
    struct list raws;
    unsigned changed; /* calls of cfg.changed */
};

/* How a peer answers requests to it. */
enum rw_answer {
    RW_ACCEPT,
    RW_ACCEPT_GLUED, /* with bytes and FIN right behind the object */
    RW_SILENT,
    RW_REFUSE, /* correctly signed, code 306 */
    RW_REFUSE_NO_REASON,
    RW_REFUSE_BAD_SIG, /* the same by another key */
    RW_WRONG_HASH,
    RW_WRONG_SIGNER,
    RW_BAD_GOB,
    RW_SHORT_OBJECT,
    RW_LONG_OBJECT, /* right, but above RELAY_OBJECT_MAX */
    RW_PING_MARKER,
    RW_FIN,
    RW_RESET,
};

struct rw_stream {
    struct list_node node;
    struct rw_peer *peer;
    struct yamux_stream *st; /* NULL once released */
    bool incoming;
    bool acked, opened, eof, reset; /* opened: the object from the other side has come */
    bool keep;                      /* leave bytes unread */
    bool echo;                      /* write back what comes, and FIN behind FIN */
    int reset_err;
    uint8_t *obj; /* request or response that came, signed object */
    size_t obj_n;
    uint64_t got, sent, to_send; /* of the pattern */
    bool wrong;                  /* something else came */
    bool fin_behind;             /* FIN when all is sent */
    size_t first_n;              /* of the first bytes, as they came */
    uint8_t first[64];
};

struct rw_peer {
    struct list_node node;
    struct rw_world *w;
    struct rw_key key;
    struct link *link;       /* NULL when closed by the test */
    struct pipe_conn *conn;  /* the peer's end */
    struct pipe_conn *inner; /* the relay's end */
    bool up, down;
    int err;
    enum rw_answer answer;
    bool echo, keep; /* of incoming streams */
    struct list streams;
    unsigned incoming;
    uint16_t next_port;
    uint64_t before; /* sessions of the relay when it started */
};

struct rw_raw {
    struct list_node node;
    struct rw_world *w;
    struct rw_key key;
    struct pipe_conn *conn, *inner;
    bool closed, down;
    int err;
    struct noise noise;
    struct cipher tx, rx;
    uint8_t *out, *in;
    size_t out_n, out_at; /* out_at: sent */
    size_t out_room, in_room;
    size_t in_n, in_at; /* in_at: read by rw_raw_frame() */
};

struct rw_frame {
    unsigned type, flags;
    uint32_t id, len;
    const uint8_t *body; /* of data frames */
};

/* cfg: what is not default; env, loop, pool and keys are filled in. NULL: all default. */
void rw_init(struct rw_world *w, const struct relay_cfg *cfg);
void rw_free(struct rw_world *w);
/* The same without checks of counters, with peers left as they are. */
void rw_run(struct rw_world *w, uint64_t ns);
/* Sums of all workers. */
struct relay_stat rw_stat(const struct rw_world *w);
/* Streams that were refused for this reason. */
unsigned rw_code_count(const struct rw_world *w, int err);
/* Worker i, or NULL: freed by the test. */
struct relay *rw_worker(const struct rw_world *w, unsigned i);
void rw_worker_free(struct rw_world *w, unsigned i);
/* The worker whose turn it is to accept. */
struct relay *rw_acceptor(struct rw_world *w);
/* relay_drain() of all workers. */
void rw_drain(struct rw_world *w);
/* A key whose home is worker i; n: the n-th of those, from 0. */
unsigned rw_key_at(const struct rw_world *w, unsigned i, unsigned n);
/* Deterministic keys. */
struct rw_key rw_key_of(unsigned i);
bool rw_all_zero(const struct rw_world *w); /* gauges of bridges and buffers */

/* Connect, not yet run. */
struct rw_peer *rw_peer_start(struct rw_world *w, const struct rw_key *key, bool local);
/* One that the relay has dialled: another relay, played by the test. */
struct rw_peer *rw_peer_accepted(struct rw_world *w, const struct rw_key *key, struct conn *conn);
/* Connect and run until it is up. */
struct rw_peer *rw_peer_new(struct rw_world *w, unsigned key);
void rw_peer_close(struct rw_peer *p);

struct rw_stream *rw_open(struct rw_peer *p);
/* A valid request to dst, port 80; change it, then rw_send_request(). */
struct object_request rw_request(struct rw_stream *s, const struct pubkey *dst);
void rw_send_request(struct rw_stream *s, const struct object_request *req,
                     const struct seckey *sk);
/* Any signed object instead; then an answer is waited for. */
void rw_send_object(struct rw_stream *s, const uint8_t *obj, size_t n);
/* Signed object of a request into obj[OBJECT_ENCODED_MAX]; its length. */
size_t rw_sign_request(uint8_t *obj, const struct object_request *req, const struct seckey *sk);
/* Open and request; runs until there is an answer or an end, 10 s. */
struct rw_stream *rw_dial(struct rw_peer *p, const struct pubkey *dst);
/* The newest incoming stream of a peer, or NULL. */
struct rw_stream *rw_last_incoming(struct rw_peer *p);
void rw_write(struct rw_stream *s, const void *p, size_t n);
/* Send n more bytes of the pattern as far as windows allow; fin: then FIN. */
void rw_pattern(struct rw_stream *s, uint64_t n, bool fin);
/* Read what was kept, and go on reading. */
void rw_resume(struct rw_stream *s);
void rw_fin(struct rw_stream *s);
void rw_reset(struct rw_stream *s);
/* Ended from the peer's point of view. */
bool rw_over(const struct rw_stream *s);
/* Error that a response object carries: 0 accepted, -1 none came. */
int rw_verdict(const struct rw_stream *s);

/* Connect only. */
struct rw_raw *rw_raw_start(struct rw_world *w, const struct rw_key *key);
/* Connect and do the whole handshake. */
struct rw_raw *rw_raw_new(struct rw_world *w, unsigned key);
void rw_raw_close(struct rw_raw *r);
void rw_raw_send(struct rw_raw *r, const void *p, size_t n);
/* The next message of its handshake with its prefix, into out[128]; its length. */
size_t rw_raw_message(struct rw_raw *r, uint8_t *out);
/* Takes message 2, which must be there. */
void rw_raw_message_2(struct rw_raw *r);
/* After message 3 was made. */
void rw_raw_split(struct rw_raw *r);
void rw_raw_header(struct rw_raw *r, unsigned type, unsigned flags, uint32_t id, uint32_t len);
void rw_raw_data(struct rw_raw *r, unsigned flags, uint32_t id, const void *p, size_t n);
/* An object, sealed with the next counter, as one data frame. */
void rw_raw_object(struct rw_raw *r, uint32_t id, const void *obj, size_t n);
/* The next whole frame that has come. */
bool rw_raw_frame(struct rw_raw *r, struct rw_frame *f);
/* Skips frames until one of this id with one of these flags. */
bool rw_raw_expect(struct rw_raw *r, uint32_t id, unsigned flags);
