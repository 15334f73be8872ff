/*
 * expose - services on a dmsg port for whoever the whitelist lets in: a local TCP port (docs/protocol/apps.md §2.4 `web srv`), or SOCKS5 on every stream (§2.5 server).
 *
 * Who is not in the whitelist is closed without a word, before anything else happens. A destination asked for by SOCKS must pass the rule, address by address.
 *
 *     rc = expose_open(&e, hub, &(struct expose_cfg){.port = 80, .to = &dest, .whitelist = &wl});
 */
#pragma once

#include "apps/hub.h"
#include "apps/netrule.h"
#include "apps/socks.h"
#include "apps/whitelist.h"

struct expose;

struct expose_cfg {
    uint16_t port;                     /* the dmsg port; 0: any */
    const struct socks_dest *to;       /* NULL: SOCKS5 */
    const struct netrule *rule;        /* of SOCKS5; must outlive it */
    const struct whitelist *whitelist; /* must outlive it */
};

/* It listens when this returns 0; else the text is in net->failure. */
int expose_open(struct expose **out, struct hub *hub, const struct expose_cfg *cfg)
    __attribute__((warn_unused_result));
/* Connections live on. NULL is allowed. */
void expose_close(struct expose *e);
uint16_t expose_port(const struct expose *e);
