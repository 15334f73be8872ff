/*
 * http_req - the little of HTTP/1.1 that a proxy must understand: request heads, where their bodies end, and how a request is passed on with another Host (RFC 9112).
 *
 * Strict, so that both ends of a proxy see the same requests: lines end in CRLF, no folding, no blank before a colon, one Host, Content-Length once and decimal,
 * Transfer-Encoding only "chunked" and not together with Content-Length. A head has at most HTTP_REQ_MAX bytes. Parsing is pure; the relay keeps at most one head.
 *
 *     n = http_req_parse(&r, p, len);                  // > 0: bytes of the head, 0: more are needed, < 0: an error
 *     http_req_write(out, p, &r, &(struct http_req_change){.host = "site", .close = true});
 *
 * A struct http_relay rewrites a whole connection of requests as it flows (keep-alive, pipelining); what turns out not to be HTTP at its first byte flows through
 * untouched, as does everything behind an Upgrade.
 */
#pragma once

#include <event2/buffer.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HTTP_REQ_MAX  32768
#define HTTP_HOST_MAX 300

struct http_text {
    const char *p;
    size_t n;
};

enum http_body { HTTP_NO_BODY, HTTP_LENGTH, HTTP_CHUNKED };

struct http_req {
    struct http_text method, target; /* into the parsed bytes */
    size_t headers;                  /* offset of the first header line */
    struct http_text host;           /* value of Host; n 0: none */
    enum http_body body;
    uint64_t length;
    bool upgrade;   /* the connection may become something else */
    unsigned minor; /* HTTP/1.minor */
};

/* Length of the head; 0: not complete; ERR_FORMAT; ERR_TOO_LONG; ERR_UNSUPPORTED: it does not look like HTTP/1 at all. r points into p. */
long http_req_parse(struct http_req *r, const char *p, size_t n);

struct http_req_change {
    struct http_text target; /* n 0: as it is */
    const char *host;        /* NULL: as it is */
    bool proxy;              /* take out what is for the proxy only */
    bool close;              /* ask for one request on this connection (unless it is an upgrade) */
};
/* Append the changed head. ERR_NOMEM. */
int http_req_write(struct evbuffer *out, const char *p, size_t head_n, const struct http_req *r,
                   const struct http_req_change *change);

/* "http://host[:port]/path" of a proxy request, or "host:port" of CONNECT (is_connect). Port 0: none was given. ERR_FORMAT: neither. rest: the origin form. */
int http_target_split(struct http_text target, bool is_connect, struct http_text *host,
                      uint16_t *port, struct http_text *rest);
/* "host[:port]"; IPv6 in brackets, which are not part of host. Port 0: none was given. */
int http_authority_split(struct http_text text, struct http_text *host, uint16_t *port);

enum http_relay_state {
    HTTP_HEAD,      /* collecting the next one */
    HTTP_BODY,      /* left bytes */
    HTTP_CHUNK,     /* collecting the line of a chunk's size */
    HTTP_DATA,      /* left bytes of a chunk and its CRLF */
    HTTP_TRAILER,   /* collecting lines until an empty one */
    HTTP_UNTOUCHED, /* everything */
    HTTP_OVER,      /* one request only, and that has ended */
};

struct http_relay {
    enum http_relay_state state;
    char host[HTTP_HOST_MAX]; /* "" = Host stays */
    bool one;                 /* only one request; then http_relay_input() says ERR_EOF */
    bool proxy; /* see struct http_req_change; an absolute target gets its origin form */
    bool later; /* not the first request */
    uint64_t left;
    struct evbuffer *line; /* what is collected; NULL: nothing */
};

void http_relay_free(struct http_relay *x);
/* Append to out what is to be sent for these bytes. 0; ERR_EOF: the one request has ended, the rest is not wanted; ERR_FORMAT, ERR_TOO_LONG, ERR_NOMEM. */
int http_relay_input(struct http_relay *x, const uint8_t *p, size_t n, struct evbuffer *out);
/* After the first head was sent by other means: what state its body leaves. */
void http_relay_behind(struct http_relay *x, const struct http_req *r);
