/*
 * mirroring - the mirror of a daemon (compat-http/mirror.h) with its ways out: a Redis of its own connection, and full nodes of the DHT through the daemon's node.
 *
 * Full nodes are the bootstrap nodes of that node, MIRRORING_PEERS at most. Each is given every batch; a batch is written when one of them took it, the others hear of it when
 * full nodes compare what they have. They have to know the daemon's key as a mirror (--mirror KEY) for what does not certify itself; what they refuse is
 * counted, and not repeated before it changes.
 *
 * The way back at a start: mirroring_pull() has one of them give what it holds under a salt, as soon as it can be reached; it comes into the node's own store, and
 * pulled() says when it is all there. So a daemon whose store was lost has again what the DHT knows (incident 70).
 *
 * Order: mirroring_open() after the store, mirroring_set_node() when the node is there, mirroring_report() and mirroring_tick() from the node's report and changed hooks, mirroring_close() before the node
 * is freed. One thread.
 */
#pragma once

#include <stdio.h>

#include "compat-http/mirror.h"
#include "node/node.h"
#include "transport/drive_loop.h"

#define MIRRORING_PEERS 8

struct mirroring;

struct mirroring_cfg {
    struct drive_loop *drive;
    struct env *env;
    struct pubkey pk;
    struct seckey sk;
    const char *redis, *password; /* redis NULL: none */
    size_t n_full;                /* full nodes to write to; 0: none */
    void (*again)(void *arg);     /* see mirror.h */
    void (*pulled)(void *arg);    /* optional: a pull is complete */
    void *arg;
};

/* 0, ERR_FORMAT (redis is no URL), ERR_NOMEM. With neither way out *out is NULL. */
int mirroring_open(struct mirroring **out, const struct mirroring_cfg *cfg)
    __attribute__((warn_unused_result));
/* NULL is allowed, here and below. */
void mirroring_close(struct mirroring *m);
/* The node whose DHT full nodes are reached through; NULL: it goes. */
void mirroring_set_node(struct mirroring *m, struct node *n);
/* A report of the node's engine: true when it was ours. */
bool mirroring_report(struct mirroring *m, const struct kad_report *r);
/* Ask a full node for everything under this salt (kept), until one has given it. */
void mirroring_pull(struct mirroring *m, const char *salt);
/* At least once a second. */
void mirroring_tick(struct mirroring *m);
/* NULL when m is. */
struct mirror *mirroring_mirror(struct mirroring *m);
/* Lines of /metrics, each name after the prefix. */
void mirroring_metrics(struct mirroring *m, FILE *out, const char *prefix);
