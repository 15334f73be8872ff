/*
 * drive_tcp - conns over sockets on libevent: the TCP carrier, listeners, and socketpairs inside the process.
 *
 * One struct drive_tcp per loop. It shares one read buffer among all its conns (an idle conn holds no buffer), reads at most DRIVE_TCP_TURN_BYTES per
 * conn and callback so that one fast peer does not starve the others, and writes with sendmsg() at the end of the turn. Names are resolved by evdns without
 * blocking; a dial tries every address of the name (IPv6 and IPv4) in order.
 *
 * Errors come as conn->user->down(): -errno, ERR_EOF, ERR_TIMEOUT. A listener that runs out of descriptors rests for 100 ms and counts it.
 *
 *     struct drive_tcp *t = drive_tcp_new(loop, pool);
 *     drive_tcp_listen(t, "127.0.0.1:0", on_accept, arg, &listener);
 *     client_cfg.carrier = drive_tcp_carrier(t);
 */
#pragma once

#include "transport/conn.h"
#include "transport/drive_loop.h"

#define DRIVE_TCP_TURN_BYTES (256u * 1024u)

struct drive_tcp;
struct drive_listener;

struct drive_tcp *drive_tcp_new(struct drive_loop *loop, struct bufpool *pool);
/* All conns and listeners must be closed. Not from a callback of the event base: names that are still
 * being resolved make it run for a moment. */
void drive_tcp_free(struct drive_tcp *t);
struct carrier *drive_tcp_carrier(struct drive_tcp *t);

/* Called for each accepted connection; must take it (conn_set_user …) or conn_close() it. */
typedef void drive_accept_fn(void *arg, struct conn *conn);

/* addr "host:port", numeric or a name; port 0 takes a free one. 0 or the reason (-EADDRINUSE, ERR_FORMAT …). */
int drive_tcp_listen(struct drive_tcp *t, const char *addr, drive_accept_fn *fn, void *arg,
                     struct drive_listener **out);
/* The same, without a conn: whoever is called takes the connected, non-blocking descriptor over. */
typedef void drive_accept_fd_fn(void *arg, int fd);
int drive_tcp_listen_fd(struct drive_tcp *t, const char *addr, drive_accept_fd_fn *fn, void *arg,
                        struct drive_listener **out);
/* One more listener at the address of l, of another loop: the system spreads connections among them
 * (SO_REUSEPORT). Other processes cannot listen there all the same. */
int drive_tcp_listen_too(struct drive_tcp *t, struct drive_listener *l, drive_accept_fn *fn,
                         void *arg, struct drive_listener **out);
void drive_listener_close(struct drive_listener *l);
/* "host:port" that is really bound. */
const char *drive_listener_addr(const struct drive_listener *l);
/* Stop or resume accepting. */
void drive_listener_pause(struct drive_listener *l, bool paused);

/* A conn over an open, connected stream socket; takes the descriptor over. NULL: out of memory, fd closed. */
struct conn *drive_tcp_adopt(struct drive_tcp *t, int fd, const char *peer);

struct drive_tcp_parcel { /* a connected conn between two loops */
    int fd;
    char peer[CONN_ADDR_MAX];
    uint8_t peer_ip[16], peer_ip_len;
};
/* Take the descriptor out of a conn, which is as closed afterwards. */
void drive_tcp_pack(struct conn *conn, struct drive_tcp_parcel *out);
/* NULL: out of memory, descriptor closed. */
struct conn *drive_tcp_unpack(struct drive_tcp *t, const struct drive_tcp_parcel *p);

struct drive_tcp_stat {
    size_t conns;
    uint64_t accepted, dialled, dial_failed, fd_exhausted, no_buffer;
    uint64_t bytes_in, bytes_out;
};
void drive_tcp_stat(const struct drive_tcp *t, struct drive_tcp_stat *out);
