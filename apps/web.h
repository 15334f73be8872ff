/*
 * web - the resolving proxy: SOCKS5 and HTTP for browsers, whose host names may lead into the network (docs/protocol/apps.md §2.2, §2.3).
 *
 * One port speaks SOCKS5 and HTTP proxy (CONNECT and requests in absolute form), told apart by the first byte. <key>.dmsg:PORT is a stream to that key's dmsg port; a virtual
 * host in the name goes into the Host header of each request; a server key in it is the only way taken; status.dmsg is answered here (status.dmsg/json for programs), and home.dmsg, a start page; everything else goes to the upstream
 * SOCKS5 proxy with its name unresolved, or, without one, is dialled directly.
 *
 * Further ports take requests of the older form: the key is in the Host header; its port is the dmsg port, 80 when absent or our own port.
 *
 * HTTP requests that are not tunnelled are passed on one a connection (Connection: close), except for upgrades, which then flow untouched. A failed dial is a SOCKS reply
 * code, or a status with the reason in the body, and a note (apps/hub.h). When the destination may be there in a moment, a browser gets the reason as a page that loads itself
 * again.
 *
 *     rc = web_open(&w, hub, &cfg);   // cfg and what it points to must outlive it
 */
#pragma once

#include "apps/dmsg_name.h"
#include "apps/hub.h"
#include "apps/socks.h"

#define WEB_PORTS 16

struct web;

struct web_cfg {
    const char *bind;
    const char *suffix; /* ".dmsg" */
    uint16_t socks_port;
    uint16_t http_port[WEB_PORTS]; /* of the older form */
    size_t n_http;
    const struct socks_dest *upstream; /* NULL: dial directly */
    const struct dmsg_aliases *aliases;
};

/* On failure *bad_port is the port that could not be opened: errors of tcp_door_open(), ERR_EXISTS: the upstream proxy is this one. */
int web_open(struct web **out, struct hub *hub, const struct web_cfg *cfg, uint16_t *bad_port)
    __attribute__((warn_unused_result));
/* NULL is allowed. */
void web_close(struct web *w);
uint16_t web_socks_port(const struct web *w);
uint16_t web_http_port(const struct web *w, size_t i);

/* web_status.c: append the answer to a request for the status page. sessions NULL: not known. ERR_NOMEM. */
int web_status_answer(struct evbuffer *out, const struct hub *hub, bool json,
                      const struct app_net_session *sessions, size_t n_sessions);
/* The start page: aliases, the own key, where the status is. */
int web_home_answer(struct evbuffer *out, const struct hub *hub, const struct web_cfg *cfg);
/* The page that tries again: why host cannot be reached now. */
int web_wait_answer(struct evbuffer *out, unsigned status, const char *phrase, const char *host,
                    const char *why);
