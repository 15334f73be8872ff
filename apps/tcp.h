/*
 * tcp - TCP for proxies: doors (listeners) and dials that do not block, by name or address.
 *
 * A door hands over every connection it accepts. When descriptors run out it rests for a moment instead of spinning; what waits stays in the kernel's queue.
 *
 * A dial looks a name up (DNS and /etc/hosts; localhost is 127.0.0.1 without asking), then tries its addresses one after the other until one connects, all within one
 * deadline. Each address must pass the rule, so that a name cannot lead to where its address may not. done() is called once, from the loop, never from inside tcp_dial();
 * not after tcp_dial_cancel().
 *
 * Errors: -EACCES when all addresses are forbidden, ERR_NOT_FOUND for names, ERR_TIMEOUT, -errno of the last address.
 *
 *     rc = tcp_door_open(&door, hub, "127.0.0.1", 0, on_conn, arg);   // door->port
 *     rc = tcp_dial(&dial, hub, &dest, &rule, 10000, on_dialled, arg);
 */
#pragma once

#include <event2/listener.h>

#include "apps/hub.h"
#include "apps/netrule.h"
#include "apps/socks.h"

struct tcp_door;

typedef void tcp_conn_fn(void *arg, int fd);

/* address: IPv4, IPv6 in text form, or localhost. Port 0: any. -errno, ERR_FORMAT (no such address), ERR_NOMEM. */
int tcp_door_open(struct tcp_door **out, struct hub *hub, const char *address, uint16_t port,
                  tcp_conn_fn *fn, void *arg) __attribute__((warn_unused_result));
/* NULL is allowed. */
void tcp_door_close(struct tcp_door *door);
uint16_t tcp_door_port(const struct tcp_door *door);
/* For the hub: doors that rest open again. */
void tcp_doors_tick(struct hub *hub);

struct tcp_dial;

typedef void tcp_dial_fn(void *arg, int fd, int err);

/* rule NULL: everything is allowed. ERR_NOMEM. */
int tcp_dial(struct tcp_dial **out, struct hub *hub, const struct socks_dest *dest,
             const struct netrule *rule, unsigned timeout_ms, tcp_dial_fn *done, void *arg)
    __attribute__((warn_unused_result));
void tcp_dial_cancel(struct tcp_dial *dial);
