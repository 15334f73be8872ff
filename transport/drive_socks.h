/*
 * drive_socks - a carrier that dials through a SOCKS5 proxy (RFC 1928, no authentication, CONNECT), for networks whose only way out is one.
 *
 * It makes conns over conns of another carrier: each dial connects to the proxy, asks it for "host:port" (a name goes to the proxy as it is and is resolved there), and
 * is up when the proxy says that it is connected. From then on bytes are passed through as they are.
 *
 * Owner: who made it; it must outlive its conns. Closing a conn at any time is fine. The dial's time bounds connecting to the proxy and, again, its answer.
 *
 * Errors of a dial: those of the carrier below; -ECONNREFUSED, -ENETUNREACH, -EHOSTUNREACH, ERR_TIMEOUT as the proxy tells; ERR_REFUSED (its rules, or it wants a password);
 * ERR_FORMAT (no SOCKS5 proxy there, or no address).
 *
 *     struct carrier *ca = drive_socks_new(loop, drive_tcp_carrier(tcp), "127.0.0.1:1080");
 *     client_cfg.carrier = ca;
 *     drive_socks_free(ca);
 */
#pragma once

#include "base/loop.h"
#include "transport/conn.h"

/* NULL: out of memory, or the address is too long. */
struct carrier *drive_socks_new(struct loop *loop, struct carrier *below, const char *proxy);
/* All conns are closed, and the loop has run a turn since. NULL is allowed. */
void drive_socks_free(struct carrier *ca);
