/*
 * ctrl - the control protocol on port 7 of a client (docs/protocol/dmsg.md §6.4).
 *
 * Packets of one byte on an open stream: 9 asks, 10 answers; anything else ends the stream. Both
 * sides may ask; we answer, and take answers for what they are. One per client; it holds the
 * streams, and closes them in ctrl_free(), which comes before client_free(). Threads: the client's.
 *
 * Limits: CTRL_STREAMS streams, more are reset; CTRL_IDLE_NS without a packet ends one; a peer that
 * asks faster than it reads is reset. Counted.
 *
 *     rc = ctrl_new(&c, client);      // listens on port 7
 *     ctrl_free(c);
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "transport/client.h"

#define CTRL_PORT    7
#define CTRL_STREAMS 64
#define CTRL_IDLE_NS (300 * NS_PER_S)

struct ctrl;

/* 0, ERR_DMSG_PORT_OCCUPIED, ERR_NOMEM. */
int ctrl_new(struct ctrl **out, struct client *client) __attribute__((warn_unused_result));
/* NULL is allowed. */
void ctrl_free(struct ctrl *c);

struct ctrl_stat {
    size_t streams; /* gauge */
    uint64_t pings, refused, bad;
};
void ctrl_stat(const struct ctrl *c, struct ctrl_stat *out);
