/*
 * hub - the event loop of a proxy: the network (apps/net.h), signals, the splices, a limit of connections, and what went wrong lately.
 *
 * hub_run() goes on until SIGINT, SIGTERM, hub_stop() or the end of the network. Everything a hub's user does happens in its callbacks, on the one thread that runs it.
 *
 * Limit: max_conns connections from their first byte to their last (hub_admit(), hub_leave()); more are closed at once and counted. The soft limit of descriptors is
 * raised to fit as far as the hard one allows; where it does not, max_conns becomes what fits.
 *
 *     rc = hub_new(&hub, net, 1024);
 *     rc = forward_open(…hub…);
 *     if (rc == 0)
 *         rc = hub_run(hub);
 *     hub_free(hub);
 */
#pragma once

#include <event2/dns.h>
#include <event2/event.h>
#include <time.h>

#include "apps/net.h"
#include "apps/splice.h"

#define HUB_NOTES     32
#define HUB_NOTE_TEXT 400

struct hub_note {
    time_t when;
    char text[HUB_NOTE_TEXT];
};

struct hub_stat {
    uint64_t admitted, refused_limit; /* connections */
    uint64_t refused_key;             /* not in the whitelist */
    uint64_t refused_rule;            /* destination forbidden */
    uint64_t bad_input;               /* neither SOCKS5 nor what else was expected */
    uint64_t dialled, dial_failed;
    uint64_t accept_failed;
};

struct hub {
    struct app_net *net;
    struct event_base *base;
    struct evdns_base *dns; /* NULL until the first name */
    struct splices splices;
    size_t conns, max_conns; /* gauge, cap */
    struct hub_stat stat;
    struct hub_note notes[HUB_NOTES]; /* ring: the newest is at (n_notes - 1) % HUB_NOTES */
    uint64_t n_notes;
    uint64_t started_ns;
    struct list guests; /* apps/guest.h */
    struct list turns;  /* of them, those that wait to dial */
    size_t dialling;    /* gauge: streams */
    struct list doors;  /* listeners that rest, apps/tcp.h */
    int err;
    struct event *events[4];
};

/* ERR_NOMEM. net must outlive it. */
int hub_new(struct hub **out, struct app_net *net, size_t max_conns)
    __attribute__((warn_unused_result));
/* Ends all connections. Services on it are closed by their owner before. NULL is allowed. */
void hub_free(struct hub *hub);
/* 0 after a signal or hub_stop(), else an error with its text in net->failure. */
int hub_run(struct hub *hub);
void hub_stop(struct hub *hub);

/* False: the limit is reached, counted. */
bool hub_admit(struct hub *hub);
void hub_leave(struct hub *hub);

/* Something a person may want to know: to the log (with a rate limit) and to the notes. */
void hub_note(struct hub *hub, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The DNS resolver, made at the first call; NULL: no memory. */
struct evdns_base *hub_dns(struct hub *hub);
