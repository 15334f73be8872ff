/*
 * service_int - what the parts of a service see of each other: service.c (requests), service_conn.c (connections). Private to them.
 */
#pragma once

#include <microhttpd.h>

#include "base/list.h"
#include "compat-http/rate.h"
#include "compat-http/service.h"

enum sconn_state {
    SCONN_HEADERS, /* a request's first line or the connection itself has come */
    SCONN_BODY,
    SCONN_BUSY, /* the application has it */
    SCONN_IDLE,
    SCONN__STATES
};

struct sconn {
    struct list_node
        node; /* in service->conns[state]; those of streams that are idle in stream_idle */
    struct service *service;
    struct service_caller caller;
    enum sconn_state state;
    uint64_t since_ns;
    int fd;
    bool begun;   /* something of a request was read */
    bool closing; /* we ended it */
    char *uri;
};

struct request {
    struct service_req q;  /* first: the application's pointer is ours */
    struct list_node node; /* in service->requests while the application has it */
    struct service *service;
    struct sconn *conn;
    struct MHD_Connection *mc;
    const struct service_route *route; /* NULL: answered by the frame */
    unsigned early;                    /* status that was found before the body; 0 = none */
    char *text;                        /* path, query and params */
    char *body;
    size_t cap, max;
    bool suspended, answered, in_handler, held;
    struct MHD_Response *response;
    unsigned status;
    struct {
        char *name, *value;
    } header[4];
    size_t n_headers;
};

/* A connection of which it is not known yet whether a proxy's line comes first. */
struct preface {
    struct list_node node; /* in service->prefaces, oldest first */
    struct service *service;
    struct event *ev;
    struct service_caller caller;
    uint64_t since_ns;
    int fd;
};

struct slistener {
    struct service *service;
    struct event *ev;
    int fd;
    char addr[64];
    struct loop_timer rest;
};

struct service {
    struct service_cfg cfg;
    struct loop *loop;
    struct MHD_Daemon *daemon;
    struct event *ready; /* the daemon's epoll descriptor */
    struct loop_task run;
    struct loop_timer again, tick;
    struct list conns[SCONN__STATES], stream_idle, prefaces, requests;
    size_t n_prefaces;
    struct slistener listener[SERVICE_LISTENERS];
    size_t n_listeners;
    struct rate stream_rate;
    bool ending;
    struct service_stat stat;
};

/* service_conn.c */
void sconn_set(struct sconn *c, enum sconn_state state);
struct sconn *sconn_of(struct MHD_Connection *mc);
void sconn_notify(void *arg, struct MHD_Connection *mc, void **context,
                  enum MHD_ConnectionNotificationCode code);
/* Close what was too slow. */
void sconn_sweep(struct service *s);
/* Let the daemon look at its descriptors at the end of this turn. */
void service_run_soon(struct service *s);
void service_listeners_free(struct service *s);
