/*
 * server_conf - dmsg-server.json, the configuration file of upstream's server
 * (docs/protocol/dmsg.md §7), of every generation.
 *
 * Reading follows the peers: member names in any case, the last of doubles wins, null is as if it
 * were not there, members that nobody knows are told to warn() and skipped; so are those that are
 * known and that this relay cannot do (other carriers). Members of the wrong type are errors. The
 * newer member wins over the older one (dmsg over discovery and public_address).
 *
 * The text holds a secret key: every copy that reading makes of it is wiped; the text itself is the
 * caller's to wipe. One thread at a time.
 */
#pragma once

#include <stdbool.h>
#include <stdio.h>

#include "base/addr.h"
#include "base/crypto.h"

#define SERVER_CONF_TEXT 512
#define SERVER_CONF_WHY  512

struct server_conf {
    struct pubkey pk;
    struct seckey sk;
    char discovery[SERVER_CONF_TEXT];      /* URL or dmsg:// address; "" = none */
    char public_address[SERVER_CONF_TEXT]; /* "" = the listening address */
    char local_address[SERVER_CONF_TEXT];  /* ":8081" */
    char health[SERVER_CONF_TEXT];         /* "" = port behind that of local_address */
    const char *log_level;                 /* of base/log.h, static */
    uint32_t max_sessions;
    unsigned sessions;                 /* of the server's own client; 0 = not said */
    struct addr_peer *peers, *servers; /* other relays; what its own client may start with */
    size_t n_peers, n_servers;
    struct pubkey *accepted;
    size_t n_accepted;
    bool dht, dht_said;
};

typedef void server_conf_warn_fn(void *arg, const char *text);

/* 0, or ERR_FORMAT, ERR_KEY, ERR_NOMEM with the reason in why. server_conf_free() afterwards in
 * every case. */
int server_conf_parse(struct server_conf *c, const char *text, size_t n, server_conf_warn_fn *warn,
                      void *arg, char *why, size_t cap) __attribute__((warn_unused_result));
/* Wipes the key. */
void server_conf_free(struct server_conf *c);

/* A file as upstream's generator writes it, for this key. */
void server_conf_write(FILE *out, const struct seckey *sk, const struct pubkey *pk,
                       const char *discovery);
