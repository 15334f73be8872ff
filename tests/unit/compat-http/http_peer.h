/*
 * http_peer - a small HTTP server for tests, on a thread of its own and a free port of 127.0.0.1.
 *
 * What a path answers: /ok a fixed text, /echo method and body, /slow nothing before the peer ends, /busy/N 503 to the first N requests and then "late", /big the number of
 * bytes in the query, /close nothing: the connection ends, /old 200 and the connection ends, /script/… what script() says.
 */
#pragma once

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

struct http_peer {
    struct MHD_Daemon *daemon;
    char url[64]; /* "http://127.0.0.1:PORT" */
    atomic_uint requests, connections;
    /* The status, and the body into out; on the server's thread. */
    unsigned (*script)(void *arg, const char *method, const char *path, const char *body,
                       size_t len, char *out, size_t cap);
    void *arg;
    /* private */
    pthread_mutex_t lock;
    struct MHD_Connection *held[2048];
    size_t n_held;
    atomic_bool stopping;
};

void http_peer_start(struct http_peer *p);
void http_peer_stop(struct http_peer *p);
