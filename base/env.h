/*
 * env - what a sans-I/O core may ask of the world: wall clock, random bytes and public-key work.
 *
 * Cores (noise, session, stream, relay, client, kademlia) take bytes, events and `now_ns`
 * (monotonic) as arguments. What they cannot take as an argument they ask of a struct env. Nothing
 * else reaches them: no socket, no clock, no event library.
 *
 * Implementations
 *     env_sys      operating system's clocks and random; public-key work done at once
 *                  (base/env_sys.h; tools)
 *     env_test     settable clock, seeded or scripted random, work done at once or when told
 *                  (base/env_test.h; tests, fuzzers)
 *     drive_env    the same as env_sys with a bounded pool of threads for public-key work
 *                  (transport/drive_env.h; node)
 *     simulator    virtual clock, counter-based random, cost model  (simulator/)
 * An implementation embeds struct env as its first member.
 *
 * Public-key work is a request with a ticket
 *     ECDH, key generation, sign and verify cost 20-60 us each; a flood of handshakes must not
 *     stall the byte path. So a core never calls crypto.h's public-key functions: it fills a struct
 *     pk_req, owns a struct pk_wait, and calls env_pk():
 *
 *         0            the result is in wait->res now, go on at once
 *         ERR_PENDING  wait->done(wait) is called later, from the loop, on the thread that owns the
 *                      env, never from inside env_pk()
 *         ERR_BUSY     the queue of this class is full; the request was dropped and counted. Treat
 *                      it as a failure of the peer's request: refuse it, do not retry in place
 *
 *     A core writes one function per step and calls it from both ways:
 *
 *         static void got_es(struct pk_wait *w)
 *         {
 *             struct noise *n = container_of(w, struct noise, wait);
 *             ...
 *         }
 *         ...
 *         int rc = env_pk(env, &n->wait, &req);
 *         if (rc == 0)
 *             got_es(&n->wait);
 *         else if (rc != ERR_PENDING)
 *             return rc;
 *
 *     One wait carries one request at a time. The request is copied; the wait belongs to the core
 *     and must stay where it is until the answer came or env_pk_cancel() was called. Cancel is
 *     idempotent, never calls done, and is part of every destroy function. Requests and results
 *     hold secrets: implementations wipe their copies; the core wipes wait->res with
 *     pk_wait_wipe().
 *
 * Threads: an env and its waits belong to one thread. Limits: each class has its own bounded queue
 * (PK_CLASS_*), with a counter of drops and a gauge; class SESSION cannot push out STREAM or ITEM
 * work and the other way round.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/crypto.h"

struct env;
struct pk_wait;

enum pk_op {
    PK_ECDH,      /* in: sk, pk                    out: shared[0] = ECDH(sk, pk)      */
    PK_EPHEMERAL, /* in: sk (fresh), pk?, pk2?     out: pub = public key of sk, shared[0] = ECDH(sk,
                     pk), shared[1] = ECDH(sk, pk2); a null pk or pk2 is skipped */
    PK_SIGN,      /* in: sk, digest                out: sig      */
    PK_VERIFY,    /* in: pk, digest, sig           out: err = 0 or ERR_SIG    */
};

enum pk_class {
    PK_CLASS_SESSION, /* XK handshakes of sessions                  */
    PK_CLASS_STREAM,  /* stream objects and KK handshakes           */
    PK_CLASS_ITEM,    /* DHT items, entries and everything behind a stream */
    PK_CLASS_OWN,     /* this node's own signatures: never dropped behind peers' work */
    PK_CLASS__COUNT
};

struct pk_req {
    enum pk_op op;
    enum pk_class cls;
    struct seckey sk;
    struct pubkey pk, pk2;
    struct hash digest;
    struct sig sig;
};

struct pk_res {
    int err; /* 0, ERR_KEY (invalid point or scalar) or ERR_SIG */
    struct pubkey pub;
    struct sig sig;
    uint8_t shared[2][32];
};

typedef void pk_done_fn(struct pk_wait *wait);

struct pk_wait {
    pk_done_fn *done; /* set by the owner before env_pk() */
    struct pk_res res;
    uint64_t ticket; /* 0 = idle; owned by the env implementation while a request is under way */
};

struct env_pk_stats { /* one per class */
    uint64_t submitted, dropped;
    size_t queued; /* gauge: submitted and not yet answered */
};

struct env_ops {
    int64_t (*wall_ns)(struct env *env); /* nanoseconds since 1970 UTC; may jump */
    void (*random)(struct env *env, void *out,
                   size_t n); /* cryptographic in the node; cannot fail */
    int (*pk)(struct env *env, struct pk_wait *wait, const struct pk_req *req);
    void (*pk_cancel)(struct env *env, struct pk_wait *wait);
    void (*pk_stats)(struct env *env, enum pk_class cls, struct env_pk_stats *out);
};

struct env {
    const struct env_ops *ops;
    uint8_t hash_key[16]; /* key of every hash table that a peer's input reaches; drawn once */
};

/* Wall clock in ns since 1970. For timestamps and sequence numbers only, never for time-outs. */
static inline int64_t env_wall_ns(struct env *env)
{
    return env->ops->wall_ns(env);
}

/* n random bytes. */
static inline void env_random(struct env *env, void *out, size_t n)
{
    env->ops->random(env, out, n);
}

/* Uniform number in [0, bound), bound > 0, without bias. */
uint64_t env_random_below(struct env *env, uint64_t bound);

/* base_ns shifted by a uniform amount within ±percent (0..100): every periodic timer goes through
 * this. */
uint64_t env_jitter_ns(struct env *env, uint64_t base_ns, unsigned percent);

/* Submit public-key work. 0, ERR_PENDING or ERR_BUSY; see the page above. wait->done must be set,
 * wait must be idle. */
int env_pk(struct env *env, struct pk_wait *wait, const struct pk_req *req)
    __attribute__((warn_unused_result));

/* Forget the request of this wait, if any. done will not be called. */
void env_pk_cancel(struct env *env, struct pk_wait *wait);

/* Wipe the result when it has been used. */
void pk_wait_wipe(struct pk_wait *wait);

/* Do the work of a request now, on this thread: what implementations call. Fills *res; res->err as
 * above. */
void pk_work(struct pk_res *res, const struct pk_req *req);

/* Fresh key pair from env's random bytes, at once (two cheap draws at most). */
void env_keypair(struct env *env, struct seckey *sk, struct pubkey *pk);
