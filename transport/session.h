/*
 * session - one authenticated connection between two keys: XK handshake, then yamux
 * (docs/protocol/dmsg.md §3).
 *
 * A sans-I/O core: bytes and now_ns in, bytes and events out. Carries the sealing of stream set-up
 * objects too (session keys, §4.2), with the receive window of 1024 counters (§2.5). The relay does
 * no other cryptography per session.
 *
 *     new -> HANDSHAKE -> (SESSION_EV_UP) -> OPEN -> CLOSED
 *               \-- 5 s, bad bytes, wrong key ---------^   session_error() says why
 *
 *     rc = session_input(s, in, now_ns)        rc < 0: close the connection
 *     session_next(s, &ev)                     UP once; afterwards session_mux() is there and
 * events come from yamux_next() session_output / session_sent / session_deadline / session_tick
 *
 * Public-key work may be pending (env.h): input that arrives meanwhile is kept (at most 64 KiB, see
 * session_stop_reading()) and parsed later; cfg.ready(arg) is called when the work is done, and must
 * only post a task that calls session_tick().
 *
 * Bytes glued to the last handshake message are fed to the multiplexer (§3.1, incident 4). As
 * initiator it holds back the first multiplexer bytes for hold_ms after message 3, because old
 * servers drop a session that does not pause there.
 *
 * Keep-alive: a yamux ping when the peer was silent for 30 s (jittered by a fifth); no byte for
 * 10 s more closes with ERR_TIMEOUT, unless the carrier still takes our bytes: slow is not dead.
 * Write progress: output waiting for 10 s without any byte taken by the carrier closes with
 * ERR_TIMEOUT.
 *
 * A session that has just come up may go to another thread: with cfg.wait_at_up its responder keeps
 * what comes behind the handshake until session_go() or session_export(); what the latter gives is
 * plain memory, and session_import() makes a session of it under another env and pool.
 *
 * The struct noise exists during the handshake only. Threads: one at a time. Secrets are wiped on
 * close.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/buf.h"
#include "base/env.h"
#include "transport/cipher.h"
#include "transport/yamux.h"

#define SESSION_OBJECT_MAX    65535 /* u16be length of a sealed object */
#define SESSION_SEAL_OVERHEAD 24
#define SESSION_NO_HOLD       UINT32_MAX

struct session;

struct session_cfg { /* 0 = default, but for keepalive_ms */
    struct env *env;
    struct bufpool *pool;
    bool initiator;
    struct pubkey self;
    const struct seckey *sk; /* must outlive the handshake */
    struct pubkey remote;    /* initiator: the server's key; responder: null */
    uint32_t handshake_ms;   /* 5 000 */
    uint32_t hold_ms;        /* initiator: 60; SESSION_NO_HOLD = none */
    uint32_t keepalive_ms;   /* 30 000; 0 = none */
    uint32_t dead_ms;        /* 10 000 */
    bool wait_at_up;         /* responder: see session_go() */
    bool patient; /* no limit to the time without write progress: a pipe inside the process */
    struct yamux_cfg mux;
    void (*ready)(void *arg); /* something happened outside a call: only schedule */
    void *arg;
};

enum session_what { SESSION_EV_NONE, SESSION_EV_UP };

struct session_state { /* of a session whose multiplexer has not begun */
    struct pubkey remote;
    struct cipher tx, rx;
    bool initiator;
    uint8_t *early; /* bytes of the multiplexer that have come already; malloc'd, or NULL */
    size_t early_n;
};

struct session *session_new(const struct session_cfg *cfg, uint64_t now_ns);
void session_free(struct session *s);

/* in stays the caller's. 0 or the error that ended the session (sticky). */
int session_input(struct session *s, struct slice in, uint64_t now_ns)
    __attribute__((warn_unused_result));
/* True while no more bytes should be read from the carrier: handshake work is pending and bytes
 * wait. */
bool session_stop_reading(const struct session *s);
enum session_what session_next(struct session *s);
size_t session_pending(const struct session *s, uint64_t now_ns); /* bytes that may be sent now */
int session_output(struct session *s, struct iovec *iov, int max, uint64_t now_ns);
void session_sent(struct session *s, size_t n, uint64_t now_ns);
uint64_t session_deadline(const struct session *s);
/* 0, or the error that ended the session. */
int session_tick(struct session *s, uint64_t now_ns) __attribute__((warn_unused_result));
int session_error(const struct session *s);

/* After UP, with cfg.wait_at_up: the multiplexer begins here (session_mux() is there afterwards) … */
int session_go(struct session *s) __attribute__((warn_unused_result));
/* … or somewhere else; here the session is over. ERR_NOMEM leaves it as it was. */
int session_export(struct session *s, struct session_state *out)
    __attribute__((warn_unused_result));
/* A session that is up, out of a state, which is wiped in every case; of cfg, self, sk and remote are
 * not used. NULL: out of memory. */
struct session *session_import(const struct session_cfg *cfg, struct session_state *st,
                               uint64_t now_ns);
void session_state_wipe(struct session_state *st);

bool session_is_up(const struct session *s);
bool session_initiator(const struct session *s);
const struct pubkey *session_remote(const struct session *s); /* valid once up */
struct yamux *session_mux(struct session *s);                 /* NULL before up */
uint64_t session_heard_ns(const struct session *s);           /* when the last byte came */
uint64_t session_up_ns(const struct session *s);
uint64_t session_rtt_ns(const struct session *s); /* last yamux ping, 0 = none yet */
int session_ping(struct session *s, uint64_t now_ns);

/* Write one object on a stream of this session: u16be(len) | u64be(c) | AEAD (§4.2). n + 24 <=
 * 65535. ERR_TOO_LONG, ERR_AGAIN when the stream's window or the output has no room for the whole,
 * ERR_CLOSED. */
int session_write_object(struct session *s, struct yamux_stream *st, const void *obj, size_t n)
    __attribute__((warn_unused_result));

enum session_read { SESSION_READ_OBJECT, SESSION_READ_MARKER };

/* Take the next object or ping marker ("00 00", §3.5) from a stream. ERR_AGAIN: not complete yet;
 * ERR_EOF: the stream ended before it did; ERR_SHORT, ERR_NONCE, ERR_TAG: refuse the stream (never
 * the session). On 0 *what tells which; for an object, n plaintext bytes are in out (cap >=
 * SESSION_OBJECT_MAX is always enough). Bytes behind the object stay in the stream. */
int session_read_object(struct session *s, struct yamux_stream *st, enum session_read *what,
                        uint8_t *out, size_t cap, size_t *n) __attribute__((warn_unused_result));
