/*
 * stream_server - an HTTP/1.1 server whose connections are streams (docs/protocol/apps.md §2.1).
 *
 * libmicrohttpd does the work, on one epoll thread of its own, without a listening socket: whoever accepts streams hands in the end of a socketpair together with the
 * key at the other end (stream_server_add(), any thread). Handlers run on the server's thread and are libmicrohttpd's; in them stream_server_peer() says who calls and
 * stream_server_uri() what was asked for, as it was sent: nothing is decoded before.
 *
 * Three clocks for each connection: a request's header block (header_s, from its first line on; for the first request from the start), idle (idle_s without a byte,
 * at least 150 s so that clients' pools see ours close last), and suspended requests have the deadlines of those who suspend. The first one is looked after by
 * stream_server_tick(), to be called about once a second. A body takes as long as bytes flow.
 *
 * Limits: max_conns connections, max_per_peer of one key; beyond them the descriptor is closed. Header blocks bigger than conn_memory get 431. SIGPIPE must be
 * ignored by the process. The owner keeps the server until stream_server_free(), which ends all connections.
 *
 *     struct stream_server_cfg cfg = {.handler = on_request, .arg = app};
 *     rc = stream_server_new(&s, &cfg);
 *     rc = stream_server_add(s, fd, &pk, port);
 */
#pragma once

#include <microhttpd.h>
#include <stddef.h>
#include <stdint.h>

#include "base/crypto.h"

struct stream_server;

struct stream_server_cfg {
    MHD_AccessHandlerCallback handler;
    MHD_RequestCompletedCallback completed; /* optional */
    void *arg;                              /* of both */
    unsigned max_conns;                     /* 0 = 1024 */
    unsigned max_per_peer;                  /* 0 = 256 */
    unsigned idle_s;                        /* 0 = 150 */
    unsigned header_s;                      /* 0 = 10 */
    size_t conn_memory;                     /* 0 = 16 KiB */
};

struct stream_peer {
    struct pubkey pk;
    uint16_t port;
};

/* 0, ERR_NOMEM, ERR_STATE (the library refuses). */
int stream_server_new(struct stream_server **out, const struct stream_server_cfg *cfg)
    __attribute__((warn_unused_result));
/* Ends the thread and all connections. NULL is allowed. */
void stream_server_free(struct stream_server *s);

/* Serve a connected socket; takes it over, also when it fails: ERR_LIMIT, ERR_STATE. */
int stream_server_add(struct stream_server *s, int fd, const struct pubkey *pk, uint16_t port);
/* Closes what has been too slow. now_ns: monotonic, of the same clock every time. */
void stream_server_tick(struct stream_server *s, uint64_t now_ns);

/* In handlers: who calls. Valid as long as the connection. */
const struct stream_peer *stream_server_peer(struct MHD_Connection *conn);
/* In handlers and in completed(): "/a%20b?x=1" as it came; "" when none was read. Valid until the request is complete. */
const char *stream_server_uri(struct MHD_Connection *conn);

struct stream_server_stat {
    size_t conns, requests; /* gauges; requests: being answered */
    uint64_t accepted, served, refused_limit, slow_headers;
};
void stream_server_stat(struct stream_server *s, struct stream_server_stat *out);
