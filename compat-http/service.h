/*
 * service - the frame of every HTTP service: a libmicrohttpd daemon on the node's event loop, a table of routes, limits, who calls (docs/protocol/services.md §1, §13).
 *
 * An application gives routes and gets complete requests: method, path, what {} stood for, query, body, headers, caller. It answers each one exactly once with
 * service_answer(), at once or later; a request stays valid until then, also when its client is gone meanwhile. Connections come from TCP listeners (service_listen()) and,
 * as ends of socketpairs that lead to streams, from service_add_stream(): same routes, same handlers.
 *
 *     connection:  [PROXY line] -> headers -> body -> handler -> answer -> idle -> headers …
 *
 * What is answered without the application: 404 "404 page not found\n" for an unknown path, 405 without body for a known one with another method (HEAD too), 413 for a body over
 * the route's limit (an object as the discovery writes it), 429 "rate limit exceeded\n" with Retry-After to a stream key over stream_rate, 503 when bodies need more than body_total.
 *
 * Who calls: over a stream its key (caller.stream), which the channel proves; headers never change that (incident 49). Over TCP the address. A peer of trusted_proxies may name
 * another address by True-Client-IP, X-Real-IP, the first of X-Forwarded-For (then without a port), or a PROXY line of version 1 or 2; from anybody else these mean nothing.
 *
 * Clocks: header_ms for a block of headers (then 400), body_ms for a body (then the connection ends), idle_ms and stream_idle_ms between requests; for streams at least 150 s, so that clients' pools
 * see ours close last (incident 48). Judged after everything that had arrived was read.
 * Limits: max_conns (the connection that is slowest with its headers, else the longest idle one, makes room), 8 KiB for a request's line and headers (431), bodies per
 * route and in total. Every one has a counter.
 *
 * One thread, the loop's. Nothing calls handlers from inside service functions but the loop. service_free() ends everything; requests that are not answered by then must
 * not be answered any more (service_cfg.dropped tells of each). SIGPIPE must be ignored.
 *
 *     static void hello(struct service_req *q) { service_answer_text(q, 200, "text/plain", "hello"); }
 *     static const struct service_route routes[] = {{SERVICE_GET, "/hello/{}", hello, 0}};
 *     struct service_cfg cfg = {.drive = drive, .env = env, .routes = routes, .n_routes = 1, .app = me};
 *     rc = service_new(&s, &cfg);
 *     rc = service_listen(s, "127.0.0.1:9090");
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/crypto.h"
#include "base/env.h"
#include "transport/drive_loop.h"

#define SERVICE_PARAMS    4
#define SERVICE_PARAM_MAX 256 /* bytes of one {}; a longer one is an unknown path */
#define SERVICE_LISTENERS 8
#define SERVICE_MAX_BODY  ((size_t)1 << 20)
#define SERVICE_JSON      "application/json"
#define SERVICE_PLAIN     "text/plain; charset=utf-8"

struct service;
struct service_req;

enum service_method { SERVICE_GET, SERVICE_POST, SERVICE_DELETE, SERVICE_PUT, SERVICE_OPTIONS };

typedef void service_handler(struct service_req *q);

struct service_route {
    enum service_method method;
    const char
        *pattern; /* "/entry/{}", "/transports/id:{}": {} is one or more characters but '/' */
    service_handler *handler;
    size_t max_body; /* 0 = SERVICE_MAX_BODY */
};

struct service_caller {
    bool stream;
    struct pubkey pk;          /* of a stream */
    uint16_t port;             /* of the stream, or of the address; 0 = not known */
    char ip[INET6_ADDRSTRLEN]; /* "" over a stream */
};

struct service_req {
    void *app; /* service_cfg.app */
    enum service_method method;
    const char *path, *query;          /* as they came, nothing decoded; query without '?' */
    const char *param[SERVICE_PARAMS]; /* what {} stood for */
    const char *body;                  /* with a NUL behind it */
    size_t body_len;
    struct service_caller caller;
    void *user; /* the handler's */
};

struct service_cfg {
    struct drive_loop *drive;
    struct env *env;
    const struct service_route *routes; /* kept, not copied */
    size_t n_routes;
    void *app;
    /* Optional: the service ends and this request was not answered; it may not be any more. */
    void (*dropped)(struct service_req *q);
    unsigned max_conns;                                   /* 0 = 16 384 */
    unsigned header_ms, body_ms, idle_ms, stream_idle_ms; /* 0 = 3 000, 3 000, 30 000, 150 000 */
    size_t body_total;                                    /* 0 = 64 MiB */
    unsigned stream_rate, stream_burst; /* requests a second of one stream key; 0 = no limit */
    bool trust_any_proxy;               /* else those on this host only */
    bool check_host; /* connections of this host must call it by address or "localhost", else 403 */
};

struct service_stat {
    size_t conns, requests, body_bytes; /* gauges; requests: not answered yet */
    uint64_t accepted, served, refused_conns, evicted, slow_headers, slow_bodies, idle_closed,
        too_large, refused_rate, refused_memory, bad_proxy;
    uint64_t status[6]; /* answers by hundreds: [2] = 2xx */
};

/* 0, ERR_NOMEM, ERR_STATE (the library refuses). */
int service_new(struct service **out, const struct service_cfg *cfg)
    __attribute__((warn_unused_result));
void service_free(struct service *s);

/* Listen on "host:port" (":9090" = everywhere, port 0 = a free one). 0, ERR_FORMAT, ERR_LIMIT, -errno. */
int service_listen(struct service *s, const char *addr) __attribute__((warn_unused_result));
/* What the i-th listener is really bound to; NULL beyond the last. */
const char *service_addr(const struct service *s, size_t i);
/* Serve a connected socket that leads to a stream of this key; takes it over, also when it fails: ERR_LIMIT, ERR_STATE. */
int service_add_stream(struct service *s, int fd, const struct pubkey *pk, uint16_t port);

/* ---- in handlers, until the answer ---- */

/* The value of a request header, or NULL. */
const char *service_header(const struct service_req *q, const char *name);
/* The value of a query parameter, decoded (%XX, '+'), into out with a NUL: its length, or ERR_NOT_FOUND, ERR_TOO_LONG, ERR_FORMAT (bad escape, NUL). The first of several. */
int service_query(const struct service_req *q, const char *name, char *out, size_t cap);
/* The same for any query text. */
int service_query_find(const char *query, const char *name, char *out, size_t cap);

/* Another header of the answer. */
void service_answer_header(struct service_req *q, const char *name, const char *value);
/* Answer: n bytes are copied. type NULL: no Content-Type. The request is gone afterwards. */
void service_answer(struct service_req *q, unsigned status, const char *type, const void *body,
                    size_t n);
/* The same with memory from malloc() that is handed over. */
void service_answer_owned(struct service_req *q, unsigned status, const char *type,
                          void *owned_body, size_t n);
/* The same with memory that several answers share: release(arg) is called when this one needs it no more, at the latest by service_free(). */
void service_answer_shared(struct service_req *q, unsigned status, const char *type,
                           const void *body, size_t n, void (*release)(void *arg), void *arg);
/* The same with a text. */
void service_answer_text(struct service_req *q, unsigned status, const char *type,
                         const char *body);

/* As if there were no such path. */
void service_answer_unknown(struct service_req *q);

void service_stat(const struct service *s, struct service_stat *out);
