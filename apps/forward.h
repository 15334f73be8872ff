/*
 * forward - a local TCP port of which every connection becomes a stream to one PK:PORT (docs/protocol/apps.md §2.4 `web -t`, §2.5 client).
 *
 *     rc = forward_open(&f, hub, "127.0.0.1", 8081, &pk, 80);   // forward_port(f)
 */
#pragma once

#include "apps/hub.h"

struct forward;

/* Errors of tcp_door_open(). */
int forward_open(struct forward **out, struct hub *hub, const char *address, uint16_t local_port,
                 const struct pubkey *pk, uint16_t port) __attribute__((warn_unused_result));
/* Connections live on. NULL is allowed. */
void forward_close(struct forward *f);
uint16_t forward_port(const struct forward *f);
