/*
 * http - `kadmsg http`: a directory, read-only, on a dmsg port (docs/protocol/apps.md §1.4, §2.1).
 *
 * Files with ranges, conditions (ETag, Last-Modified), types by extension; directories by their index.html, else as a list of their entries; every method but OPTIONS,
 * TRACE and CONNECT is answered as GET, as upstream does. Nothing outside of the directory is ever served: paths are resolved by the kernel below the directory's
 * descriptor (openat2, RESOLVE_BENEATH), so symbolic links work as long as they stay inside; where the kernel has no openat2, symbolic links are refused. Only regular files
 * and directories are opened.
 *
 * With a whitelist everybody else gets 403. Each request is a line in the common log format, the key and port of the caller in place of the address.
 *
 * Threads: http_run() on the caller's, requests on the server's (compat-http/stream_server.h). Limits: those of stream_server.h; HTTP_ENTRIES entries of a directory.
 *
 *     struct http_cfg cfg = {.dir = "/srv/www", .port = 80, .stop = &stop};
 *     rc = http_new(&h, &cfg);
 *     if (rc == 0)
 *         rc = http_run(h, net);
 *     http_free(h);
 */
#pragma once

#include <signal.h>
#include <stdio.h>

#include "apps/net.h"
#include "apps/whitelist.h"

#define HTTP_ENTRIES 10000

struct http;

struct http_cfg {
    const char *dir;
    uint16_t port;
    const struct whitelist *whitelist; /* NULL or empty = everybody */
    FILE *log;                         /* NULL = none */
    bool no_listing;                   /* a directory without index.html is 404 */
    unsigned max_conns, max_per_peer;  /* 0 = as in stream_server.h */
    const volatile sig_atomic_t *stop; /* counts requests to stop; the second one does not wait */
    void (*ready)(void *arg, const struct pubkey *pk, uint16_t port); /* it can serve */
    void *arg;
};

/* Opens the directory: -errno when that fails; ERR_NOMEM, ERR_STATE. cfg and what it points to must outlive it. */
int http_new(struct http **out, const struct http_cfg *cfg) __attribute__((warn_unused_result));
void http_free(struct http *h);
/* Serves until *cfg->stop, then lets requests under way end, 5 s at most. 0, or an error with its text in net->failure. */
int http_run(struct http *h, struct app_net *net);
/* What was served, in words for a person, without line end. Returns out. */
char *http_summary(struct http *h, char *out, size_t cap);
/* One connection more, for tests. */
int http_add(struct http *h, int fd, const struct pubkey *pk, uint16_t port);
