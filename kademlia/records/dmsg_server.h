/*
 * dmsg_server - where a relay can be reached, salt "dmsg-server" (docs/protocol/dht.md §4):
 *
 *     {"address":"host:port","dht_bootstrap":true,"max_sessions":N,"pk":KEY,
 *      "server_type":[{"public_key":KEY,"address":"host:port"}] or null}
 *
 * The last member is the relay's list of configured peers under a name that says something else; so
 * it is on the wire. A value without an address (`{}`) is the tombstone. pk may be missing; a wrong
 * one makes the value void.
 *
 * Values, any thread; fixed size, no allocation. Limits: DMSG_SERVER_MAX_PEERS peers are kept, the
 * rest is read over. Errors: ERR_FORMAT, ERR_NOMEM; encoding: ERR_TOO_LONG.
 *
 *     struct dmsg_server_rec rec;
 *     if (dmsg_server_decode(&rec, it->v, it->v_len) == 0 &&
 *         dmsg_server_check(&rec, &it->k) == 0)
 *         dial(&it->k, rec.address);
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"

#define DMSG_SERVER_MAX_PEERS 32
/* Longest encoded value whose addresses need no escapes. */
#define DMSG_SERVER_MAX_TEXT (512 + DMSG_SERVER_MAX_PEERS * (ADDR_PEER_MAX + 40))

struct dmsg_server_peer {
    struct pubkey pk;
    char address[ADDR_HOSTPORT_MAX + 1];
};

struct dmsg_server_rec {
    char address[ADDR_HOSTPORT_MAX + 1]; /* "" = none */
    bool dht_bootstrap;
    uint64_t max_sessions;
    struct pubkey pk; /* null: not said */
    size_t n_peers;
    struct dmsg_server_peer peers[DMSG_SERVER_MAX_PEERS];
};

int dmsg_server_decode(struct dmsg_server_rec *out, const void *v, size_t n)
    __attribute__((warn_unused_result));
int dmsg_server_encode(char *out, size_t cap, size_t *n, const struct dmsg_server_rec *rec)
    __attribute__((warn_unused_result));
/* 0; ERR_NOT_FOUND: says nothing (tombstone); ERR_REFUSED: of another key; ERR_FORMAT: the address
 * is no HOST:PORT. */
int dmsg_server_check(const struct dmsg_server_rec *rec, const struct pubkey *subject)
    __attribute__((warn_unused_result));
