/*
 * net - the network as an application sees it: dial, listen, forward, under one key.
 *
 * Folders include only to their left, so applications do not know the node: they get a struct app_net, whose functions the program fills in (node/app_net.h asks a
 * running node, or one of its own in this process, over the control connection). Tests bring their own.
 *
 * A stream arrives as the end of a socketpair: read(), write(), shutdown(SHUT_WR) for a half-close, close(). Descriptors that are handed over belong to the receiver,
 * are close-on-exec and blocking.
 *
 * Answers come by callback, from app_net_dispatch() only; every request gets exactly one answer (listen: any number of streams, until it ends), none after
 * app_net_cancel(). Handles are never 0 and never used twice. To wait in poll() or an event loop use app_net_fd(), readable, level-triggered. The *_wait() functions
 * are for simple tools: they dispatch others' answers while they wait.
 *
 * Errors: base/err.h; `text` is the whole line for a person ("dial 02ab…:80: timed out (existing 03cd…: …)"), `exit` the exit code of the command-line contract. The last failure is
 * also kept in app_net_failure(). After ERR_RESET from app_net_dispatch() the node is gone: all requests have been answered with it, only closing is left.
 *
 * Forward: every connection to the returned unix socket becomes a new stream to pk:port, so that libraries that can only connect() work over streams (libcurl:
 * CURLOPT_UNIX_SOCKET_PATH). A dial that fails, or a stream that breaks, closes the connection; app_net_forward_failure() tells why. The socket lies in a fresh directory of mode 0700 and goes
 * away with app_net_cancel() or with the net.
 *
 * Limits: APP_NET_REQUESTS open requests (dials under way, listeners, forwards), ERR_LIMIT beyond. Dials have the deadline they were given. One thread: the one that
 * calls app_net_dispatch().
 *
 *     net->timeout_ms = 5000;
 *     rc = app_net_dial(net, &pk, 80, on_dialled, arg, &handle);
 *     rc = app_net_listen(net, 80, on_stream, on_end, arg, &handle);
 *     while (rc == 0)
 *         rc = app_net_dispatch(net, -1);
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/crypto.h"

#define APP_NET_REQUESTS 1000
#define APP_NET_TEXT     1024
#define APP_NET_SESSIONS 64
#define APP_NET_PATH     108 /* of a unix socket, with the NUL */

struct app_net;

struct app_net_failure {
    int err, exit; /* 0: none */
    bool broken;   /* of a forward: a stream that was open, not a dial */
    char text[APP_NET_TEXT];
};

/* fd >= 0, or -1 and the failure. */
typedef void app_net_dial_fn(void *arg, int fd, const struct app_net_failure *failure);
/* A stream of `pk`, its port `port`. */
typedef void app_net_stream_fn(void *arg, int fd, const struct pubkey *pk, uint16_t port);
/* A listener: it listens on `port` now (failure NULL), or it has ended. */
typedef void app_net_listen_fn(void *arg, uint16_t port, const struct app_net_failure *failure);
/* n is 4 or 16, in network order; server is the relay that answered. 0 and the failure. */
typedef void app_net_ip_fn(void *arg, const uint8_t *ip, size_t n, const struct pubkey *server,
                           const struct app_net_failure *failure);

/* A session of the node to a relay. */
struct app_net_session {
    struct pubkey server;
    char address[64];
    bool up;
    unsigned streams;
    uint64_t rtt_us;
    char last_error[128]; /* "" = none */
};
/* All of them, at most APP_NET_SESSIONS; v is gone after the call. Or the failure. */
typedef void app_net_sessions_fn(void *arg, const struct app_net_session *v, size_t n,
                                 const struct app_net_failure *failure);

struct app_net_ops {
    /* via NULL: any way */
    int (*dial_via)(struct app_net *net, const struct pubkey *via, const struct pubkey *pk,
                    uint16_t port, app_net_dial_fn *done, void *arg, uint64_t *handle);
    int (*dial)(struct app_net *net, const struct pubkey *pk, uint16_t port, app_net_dial_fn *done,
                void *arg, uint64_t *handle);
    int (*listen)(struct app_net *net, uint16_t port, app_net_stream_fn *stream,
                  app_net_listen_fn *state, void *arg, uint64_t *handle);
    int (*forward)(struct app_net *net, const struct pubkey *pk, uint16_t port,
                   char path[APP_NET_PATH], uint64_t *handle);
    const struct app_net_failure *(*forward_failure)(struct app_net *net, uint64_t handle);
    int (*lookup_ip)(struct app_net *net, const struct pubkey *server, app_net_ip_fn *done,
                     void *arg, uint64_t *handle);
    int (*sessions)(struct app_net *net, app_net_sessions_fn *done, void *arg, uint64_t *handle);
    void (*cancel)(struct app_net *net, uint64_t handle);
    int (*fd)(const struct app_net *net);
    int (*dispatch)(struct app_net *net, int timeout_ms);
};

struct app_net {
    const struct app_net_ops *ops;
    struct pubkey self;  /* the key it acts under */
    unsigned timeout_ms; /* of dials and other answers; may be changed at any time */
    bool direct; /* dials look up nothing in the network, but try the relays that are connected */
    struct app_net_failure failure; /* the last one */
};

/* A stream to pk:port. Immediate errors: ERR_LIMIT, ERR_RESET (the node is gone). */
static inline int app_net_dial(struct app_net *net, const struct pubkey *pk, uint16_t port,
                               app_net_dial_fn *done, void *arg, uint64_t *handle)
{
    return net->ops->dial(net, pk, port, done, arg, handle);
}

/* The same through one relay only, which is joined for it when there is no session yet. */
static inline int app_net_dial_via(struct app_net *net, const struct pubkey *via,
                                   const struct pubkey *pk, uint16_t port, app_net_dial_fn *done,
                                   void *arg, uint64_t *handle)
{
    return net->ops->dial_via(net, via, pk, port, done, arg, handle);
}

/* Streams to a port of ours; port 0 takes a free one. state may be NULL. */
static inline int app_net_listen(struct app_net *net, uint16_t port, app_net_stream_fn *stream,
                                 app_net_listen_fn *state, void *arg, uint64_t *handle)
{
    return net->ops->listen(net, port, stream, state, arg, handle);
}

/* A unix socket that leads to pk:port. Waits for the node's answer (no network is involved). */
static inline int app_net_forward(struct app_net *net, const struct pubkey *pk, uint16_t port,
                                  char path[APP_NET_PATH], uint64_t *handle)
{
    return net->ops->forward(net, pk, port, path, handle);
}

/* The last failed dial of a forward, or stream of it that did not end in order, and forgets it; err 0: none since. What has come is taken into account, without waiting. Never NULL; valid until the next
 * call. */
static inline const struct app_net_failure *app_net_forward_failure(struct app_net *net,
                                                                    uint64_t handle)
{
    return net->ops->forward_failure(net, handle);
}

/* Our address as a relay sees it (docs/protocol/apps.md §2.6); server NULL: any relay. */
static inline int app_net_lookup_ip(struct app_net *net, const struct pubkey *server,
                                    app_net_ip_fn *done, void *arg, uint64_t *handle)
{
    return net->ops->lookup_ip(net, server, done, arg, handle);
}

/* The node's sessions to relays, for people. */
static inline int app_net_sessions(struct app_net *net, app_net_sessions_fn *done, void *arg,
                                   uint64_t *handle)
{
    return net->ops->sessions(net, done, arg, handle);
}

/* Give up a request, end a listener or a forward (streams that came from it live on). Unknown and old handles, and 0, are ignored. */
static inline void app_net_cancel(struct app_net *net, uint64_t handle)
{
    net->ops->cancel(net, handle);
}

static inline int app_net_fd(const struct app_net *net)
{
    return net->ops->fd(net);
}

/* Wait for answers up to timeout_ms (0 = do not wait, < 0 = for ever) and call their callbacks; returns after the first batch. 0 (also when the time has passed or a signal
 * came), ERR_RESET, ERR_FORMAT. */
static inline int app_net_dispatch(struct app_net *net, int timeout_ms)
{
    return net->ops->dispatch(net, timeout_ms);
}

static inline const struct app_net_failure *app_net_failure(const struct app_net *net)
{
    return &net->failure;
}

/* apps/net.c: the same, waiting. The failure is in app_net_failure(). */

/* Returns the descriptor, or an error. */
int app_net_dial_wait(struct app_net *net, const struct pubkey *pk, uint16_t port)
    __attribute__((warn_unused_result));
/* ip: 16 bytes of room, *n becomes 4 or 16. */
int app_net_lookup_ip_wait(struct app_net *net, const struct pubkey *server, uint8_t ip[16],
                           size_t *n, struct pubkey *answered) __attribute__((warn_unused_result));
/* Fill in net->failure; returns err. For implementations of the ops. */
int app_net_fail(struct app_net *net, int err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
