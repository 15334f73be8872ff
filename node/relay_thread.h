/*
 * relay_thread - the relay role of a node: one relay of cfg.workers workers, each a relay core on a
 * thread, loop and buffer pool of its own.
 *
 * The workers are a crew (transport/crew.h). All listen on one address (SO_REUSEPORT; where that fails
 * the first accepts for all); a session goes to the worker of its key behind its handshake, as a
 * message with its descriptor; trunks are wires (transport/drive_wire.h). Limits are those of one
 * guard; counters are summed.
 *
 * Everything is built on the caller's thread, so that errors (port in use …) are reported before
 * anything runs; then the threads take over. The node reaches its own relay through a socketpair,
 * like any other client: relay_thread_pair() gives the client's end.
 *
 * Threads: start, stop, stat and pair may be called by the node's main thread only. changed() is
 * called on the relay's threads and must only post.
 */
#pragma once

#include "base/buf.h"
#include "transport/drive_env.h"
#include "transport/relay.h"

struct relay_thread;

struct relay_thread_cfg {
    struct pubkey self;
    struct seckey sk;
    const char *listen; /* "host:port" */
    struct pk_pool *pk_pool;
    struct buf_budget *budget;
    struct guard_cfg guard; /* hash_key is filled in */
    unsigned workers;       /* 0 = 1, at most CREW_MAX */
    uint64_t key_bytes_per_s;
    const struct relay_server *peers; /* other relays, and who may be one: relay.h */
    size_t n_peers;
    const struct pubkey *accepted;
    size_t n_accepted;
    bool accept_relayed;
    void (*changed)(void *arg);
    void *arg;
};

/* 0, or why it cannot serve (-EADDRINUSE …). */
int relay_thread_start(struct relay_thread **out, const struct relay_thread_cfg *cfg);
/* Closes all sessions, joins the threads. */
void relay_thread_stop(struct relay_thread *t);
/* "host:port" really bound. */
const char *relay_thread_addr(const struct relay_thread *t);
/* A new connection to the relay without network; returns a descriptor for the client's side, or
 * an error. */
int relay_thread_pair(struct relay_thread *t);
/* The other relays that were found, all of them: relay_mesh_found(). False: out of memory. */
bool relay_thread_found(struct relay_thread *t, const struct relay_server *list, size_t n);
/* Up to cap other relays, at most a second old; returns how many are known. */
#define RELAY_THREAD_PEERS 64
size_t relay_thread_peers(struct relay_thread *t, struct relay_peer_info *out, size_t cap);
/* What its workers share; lives as long as the relay. */
struct guard *relay_thread_guard(struct relay_thread *t);
/* The guard's lists of keys have changed: relay_recheck(). False: out of memory. */
bool relay_thread_recheck(struct relay_thread *t);
/* Counters and gauges, at most a second old: of all workers, and of one. */
void relay_thread_stat(struct relay_thread *t, struct relay_stat *out);
unsigned relay_thread_workers(const struct relay_thread *t);
void relay_thread_worker_stat(struct relay_thread *t, unsigned i, struct relay_stat *out);
