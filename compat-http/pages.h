/*
 * pages - some texts over HTTP: health, metrics (docs/protocol/dmsg.md §6.5).
 *
 * Each page is a path, a content type and a text that its owner replaces whenever it likes; asking
 * for one never waits for the owner. Connections are handed in: descriptors that a TCP listener
 * accepted, or ends of socketpairs that lead to streams; each may ask only for the pages that were
 * named with it. Everything else about connections (clocks, limits, thread) is stream_server.h.
 *
 * GET and HEAD only, one request a connection: its header has 3 s, so that slow ones hold no slot for
 * long. A connection to a loopback address must name this host as what it is, an
 * address or "localhost": a page of a stranger's that a browser was led to is told nothing.
 *
 * Threads: any. Limits: PAGES_MAX pages, connections as in stream_server.h.
 *
 *     pages_new(&p, specs, 2);  pages_set(p, 0, text, strlen(text));
 *     rc = pages_serve_tcp(p, fd, PAGES_ALL);
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/crypto.h"

#define PAGES_MAX 8
#define PAGES_ALL 0xffu

struct pages;

struct page_spec { /* static strings */
    const char *path, *type;
};

int pages_new(struct pages **out, const struct page_spec *specs, size_t n)
    __attribute__((warn_unused_result));
/* Ends all connections. NULL is allowed. */
void pages_free(struct pages *p);
/* The text of page i, copied; without memory the old one stays. */
void pages_set(struct pages *p, size_t i, const char *text, size_t n);
/* Take over a descriptor. which: a bit for each page. 0 or an error, the descriptor is closed then. */
int pages_serve_tcp(struct pages *p, int fd, unsigned which);
int pages_serve_stream(struct pages *p, int fd, const struct pubkey *pk, unsigned which);
/* About once a second; now_ns monotonic. */
void pages_tick(struct pages *p, uint64_t now_ns);

struct pages_stat {
    size_t conns; /* gauge */
    uint64_t served, refused_limit, slow;
};
void pages_stat(struct pages *p, struct pages_stat *out);
