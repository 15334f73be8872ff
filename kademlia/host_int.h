/*
 * host_int - what the files of the host share. Internal: users include host.h only.
 *
 *     host.c         the engine's side: actions, timer, which dialect a call takes
 *     host_json.c    one request and one response a stream (docs/protocol/dht.md §3.1)
 *     host_native.c  the pool of MessagePack-RPC streams (docs/protocol/dht-native.md)
 *
 * A stream that is accepted belongs to host_json.c until its first byte tells the dialect.
 */
#pragma once

#include "base/list.h"
#include "base/map.h"
#include "kademlia/host.h"
#include "kademlia/peers.h"

#define HOST_PIECE 65536u /* bytes read or written at a time */

struct host {
    struct host_cfg cfg;
    uint64_t network; /* tag of ours */
    struct kad_id self;
    bool read_only; /* we serve nobody */
    struct peers *peers;
    struct kad_peers ops;
    struct kad *kad;
    struct loop_timer timer;
    struct loop_task pump;
    bool listening;
    struct host_stat stat;
    /* host_json.c */
    struct list serving; /* struct exchange of accepted streams */
    struct list calling; /* … of dialled ones */
    struct map by_token; /* serving exchanges whose request is with the engine */
    struct map callers;  /* struct caller: streams served by peer */
    /* host_native.c */
    struct map native_peers; /* struct of_peer */
    struct list cons;        /* struct con, least recently used first */
    struct map native_calls; /* struct con_call by the engine's number */
    struct map native_jobs;  /* struct con_job by token */
    size_t native_held;      /* bytes of messages under way */
    /* both */
    uint64_t next_token; /* of requests given to the engine */
};

static inline uint64_t host_now(const struct host *h)
{
    return h->cfg.loop->now_ns;
}

/* ---- host.c ---- */

/* What failed before any byte went out, what afterwards. */
enum kad_fail host_fail(const struct stream *st, int err, bool sent);
/* A stream with this peer came about. */
void host_seen_through(struct host *h, kad_peer peer, const struct stream *st);
/* The call ended without an answer. */
void host_call_failed(struct host *h, uint32_t call, enum kad_fail why);

/* ---- host_json.c ---- */

void json_init(struct host *h);
void json_free(struct host *h);
void json_accept(void *arg, struct stream *st);
/* Send a call; a PING carries the offer. call 0 is one of the host's own, only to learn the dialect.
 * The message stays the caller's. Failing is told to the engine. */
void json_call(struct host *h, kad_peer peer, uint32_t call, unsigned timeout_ms,
               struct kad_msg *msg);
/* False when there is no such call here. */
bool json_abort(struct host *h, uint32_t call);
/* The engine's answer to a request; false when it is no request of this dialect. */
bool json_reply(struct host *h, struct kad_act *a);

/* ---- host_native.c ---- */

void native_init(struct host *h);
void native_free(struct host *h);
/* An accepted stream of which the first bytes were read. Takes the stream over. */
void native_accept(struct host *h, struct stream *st, const uint8_t *p, size_t n);
/* Is there a stream to this peer that calls can be sent on? */
bool native_has(struct host *h, kad_peer peer);
/* Send a call over the pool. Takes over the message's contents only when it gives 0; ERR_LIMIT: no
 * room in the pool. */
int native_call(struct host *h, kad_peer peer, uint32_t call, unsigned timeout_ms,
                struct kad_msg *msg);
bool native_abort(struct host *h, uint32_t call);
bool native_reply(struct host *h, struct kad_act *a);
/* A notification; ERR_NOT_FOUND when there is no stream to the peer. */
int native_note(struct host *h, kad_peer peer, struct kad_msg *msg);
