/*
 * conn - a byte pipe to one peer, whatever carries it, and the carrier that makes them.
 *
 * Transport cores never see sockets. A struct conn is implemented by a driver (drive_tcp: TCP and
 * socketpairs on libevent; tests: a pipe in memory with virtual time and faults) and used by
 * link.h. The operation tables have no NULL members (checked at start, incident 7).
 *
 * Direction of calls: the driver calls the user's functions (input, output …) from the loop, never
 * from inside a conn_* call. The user may call conn_* at any time, also from inside its own
 * functions. conn_close() is final: no user function is called afterwards, memory goes at the end
 * of the turn.
 *
 * Back-pressure: conn_pause() stops reading (the driver removes its read interest). conn_flush()
 * says that output is waiting; the driver pulls it with user->output at the end of the turn and
 * whenever the carrier has room, so that many small writes become one writev().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/buf.h"

#define CONN_ADDR_MAX 272

struct conn;

struct conn_user {
    /* A dialled conn is connected. Not called for accepted ones. */
    void (*up)(void *arg);
    /* Bytes from the peer; the slice stays the driver's, take references with slice_sub(). */
    void (*input)(void *arg, struct slice in, uint64_t now_ns);
    /* Fill iovecs with what waits to be sent (0 = nothing); then sent() tells how much of it the
     * carrier took. */
    int (*output)(void *arg, struct iovec *iov, int max, uint64_t now_ns);
    void (*sent)(void *arg, size_t n, uint64_t now_ns);
    /* The pipe is broken: ERR_EOF, ERR_RESET, -errno, ERR_TIMEOUT (dial). The user must still call
     * conn_close(). */
    void (*down)(void *arg, int err);
};

struct conn_ops {
    void (*flush)(struct conn *c);
    void (*pause)(struct conn *c, bool paused);
    void (*close)(struct conn *c);
};

struct conn { /* embedded first in the driver's struct */
    const struct conn_ops *ops;
    const struct conn_user *user;
    void *arg;
    char peer[CONN_ADDR_MAX]; /* "host:port" of the other end, for messages */
    uint8_t peer_ip[16];      /* 4 or 16 bytes for the IP look-up; length 0 = none (socketpair) */
    uint8_t peer_ip_len;
};

static inline void conn_set_user(struct conn *c, const struct conn_user *user, void *arg)
{
    c->user = user;
    c->arg = arg;
}
static inline void conn_flush(struct conn *c)
{
    c->ops->flush(c);
}
static inline void conn_pause(struct conn *c, bool paused)
{
    c->ops->pause(c, paused);
}
static inline void conn_close(struct conn *c)
{
    c->ops->close(c);
}

/* Something that can dial "host:port". */
struct carrier {
    const char *name; /* "tcp" */
    /* Starts a dial; the result comes as user->up or user->down. Names are resolved without
     * blocking. 0 or an error for what cannot be dialled at all (ERR_FORMAT: not an address).
     * timeout_ms bounds resolve and connect together. */
    int (*dial)(struct carrier *ca, const char *addr, unsigned timeout_ms,
                const struct conn_user *user, void *arg, struct conn **out);
};
