/*
 * session_side - one end of a session in a test, with its environment, its time and its output; two of
 * them make a pair.
 *
 *     struct session_side p[2];
 *     ss_pair_init(p);
 *     ss_pair_connect(p, 65536);         the handshake, in pieces of at most so many bytes
 *     ss_open_stream(p, st);
 *     ss_pass(&p[0], &p[1], 65536);      what 0 has to say reaches 1
 *     ss_pair_close(p);                  checks that no buffer and no work is left
 */
#pragma once

#include "base/env_test.h"
#include "transport/session.h"

struct session_side {
    struct env_test env;
    struct bufpool *pool;
    struct session *s;
    struct seckey sk;
    struct pubkey pk;
    uint64_t now_ns;
    uint8_t *out;
    size_t out_len, out_cap;
    unsigned readies; /* calls of cfg.ready since the last look */
    bool up, in_call;
    struct yamux_stream *streams[16]; /* by id, of the peer or our own */
};

void ss_init(struct session_side *p, uint64_t seed);
/* remote NULL: as responder. */
void ss_start(struct session_side *p, const struct pubkey *remote);
void ss_start_cfg(struct session_side *p, const struct pubkey *remote, struct session_cfg cfg);
/* The session only; start again. */
void ss_stop(struct session_side *p);
void ss_close(struct session_side *p);
/* Take what may be sent now. */
void ss_take(struct session_side *p);
/* Note all events. */
void ss_pump(struct session_side *p);
/* Answer deferred work and let the session go on, until nothing is left of it. */
int ss_work(struct session_side *p);
/* n bytes in pieces of at most chunk. */
int ss_feed(struct session_side *p, const void *bytes, size_t n, size_t chunk);
int ss_feed_hex(struct session_side *p, const char *hex);
/* Move what `from` has to say to `to`, and answer its work. */
int ss_pass(struct session_side *from, struct session_side *to, size_t chunk);

void ss_pair_init(struct session_side p[2]);
void ss_pair_connect(struct session_side p[2], size_t chunk);
void ss_pair_close(struct session_side p[2]);
/* A stream that side 0 opens; both ends know it. */
void ss_open_stream(struct session_side p[2], struct yamux_stream *st[2]);
