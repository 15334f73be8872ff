/*
 * http_client - HTTP requests of a node: libcurl's multi interface on the node's loop.
 *
 * URLs are http://, https:// and dmsg://PK[:PORT]/…; the last ones go through a stream (compat-http/stream_client.h) when the owner gave socket_of().
 * Connections are kept alive and used again, so that a request over dmsg is no new handshake (incident 48).
 *
 * A request has one deadline for everything. GETs that fail on the way, or are answered 429, 502, 503 or 504, are repeated with jittered pauses that double
 * (100 ms … 2 s) while the deadline allows; other methods only when no connection could be made, so that nothing is done twice. GETs of one URL without headers
 * of their own that are asked for at the same time are one transfer (single flight); the first one's deadline and limits hold for all.
 *
 * Limits: HTTP_CLIENT_MAX requests at once (ERR_BUSY), 64 connections, 8 to one host, bodies max_body bytes (ERR_TOO_LONG), 3 redirects of a GET. Errors: ERR_FORMAT
 * (URL), ERR_TIMEOUT, ERR_NO_ROUTE (name or connection), ERR_RESET (the connection ended), ERR_PROTOCOL, ERR_TOO_LONG, ERR_NOMEM, ERR_BUSY,
 * ERR_UNSUPPORTED (dmsg:// without streams). Every answer comes from the loop, never from inside http_client_start(). One thread, the loop's.
 *
 *     struct http_client_cfg cfg = {.drive = drive, .env = env};
 *     rc = http_client_new(&c, &cfg);
 *     struct http_request req = {.method = "GET", .url = "http://127.0.0.1:9090/health"};
 *     handle = http_client_start(c, &req, on_answer, arg);
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/crypto.h"
#include "base/env.h"
#include "transport/drive_loop.h"

#define HTTP_CLIENT_MAX        1024
#define HTTP_CLIENT_PATH       108 /* of a unix socket, with the NUL */
#define HTTP_CLIENT_TIMEOUT_MS 10000
#define HTTP_CLIENT_BODY       ((size_t)4 << 20)

struct http_client;

struct http_client_cfg {
    struct drive_loop *drive;
    struct env *env;
    /* A unix socket that leads to pk:port. NULL: there are no streams. 0 or an error. */
    int (*socket_of)(void *arg, const struct pubkey *pk, uint16_t port,
                     char path[HTTP_CLIENT_PATH]);
    void *arg;
};

struct http_request {
    const char *method; /* "GET", "POST", …; static */
    const char *url;
    const void *body; /* copied */
    size_t body_len;
    const char *const *headers; /* "Name: value" …, NULL at the end; or NULL */
    unsigned timeout_ms;        /* 0 = HTTP_CLIENT_TIMEOUT_MS */
    unsigned attempts;          /* 0 = 3 */
    size_t max_body;            /* of the answer; 0 = HTTP_CLIENT_BODY */
};

struct http_answer {
    int err;          /* 0: status and body are valid, whatever the status is */
    long status;      /* 0: none */
    const char *body; /* valid during the callback, with a NUL behind it */
    size_t len;
    unsigned attempts, ms;
    const char *why; /* for people; "" when err is 0 */
};

typedef void http_answer_fn(void *arg, const struct http_answer *a);

struct http_client_stat {
    size_t running; /* gauge: transfers and pauses before the next attempt */
    uint64_t started, joined, retried, failed, busy, timeouts, too_long;
};

/* 0, ERR_NOMEM. */
int http_client_new(struct http_client **out, const struct http_client_cfg *cfg)
    __attribute__((warn_unused_result));
/* Ends all requests; nobody is told. NULL is allowed. */
void http_client_free(struct http_client *c);

/* Start a request; everything in req is copied. Returns a handle for http_client_cancel(). What cannot be started is told to fn too, but for want of memory:
 * 0 then, and no call. */
uint64_t http_client_start(struct http_client *c, const struct http_request *req,
                           http_answer_fn *fn, void *arg);
/* fn is not called any more. Unknown handles and 0 are ignored. */
void http_client_cancel(struct http_client *c, uint64_t handle);

void http_client_stat(const struct http_client *c, struct http_client_stat *out);
