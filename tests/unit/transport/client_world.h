/*
 * client_world - relays and clients in memory, for the tests of the client.
 *
 * Everything runs on one pipe_net in virtual time. Relay i has the address "r<i>:1" and a key of
 * its own, client i too. A struct app is the user of one stream: it writes down what it hears,
 * collects what comes and sends what it is given.
 */
#pragma once

#include "base/err.h"
#include "base/loop.h"
#include "tests/unit/prop.h"
#include "tests/unit/transport/pipe.h"
#include "tests/unit/vectors.h"
#include "transport/client.h"
#include "transport/relay.h"

#define WORLD_RELAYS  8
#define WORLD_CLIENTS 4

struct world;

struct world_key {
    struct seckey sk;
    struct pubkey pk;
};

struct app {
    struct world *w;
    struct stream *st;
    char log[64]; /* O opened, R readable, W writable, E ended, A accepted */
    int err;      /* of ended */
    uint8_t *got; /* all that was read */
    size_t got_n, got_room;
    const uint8_t *send; /* what is sent as far as there is room */
    size_t send_n, sent;
    size_t chunk;                           /* of one read; 0 = as much as there is */
    size_t piece;                           /* of one write; 0 = as much as there is */
    bool echo;                              /* send back what comes */
    bool keep;                              /* do not read */
    bool shut;                              /* half-close when all is sent */
    bool shut_at_eof;                       /* half-close when the other side did */
    bool eof;                               /* was seen */
    bool close_at_end;                      /* close the stream when it ended */
    void (*hook)(struct app *a, char what); /* after the log */
    void *arg;
};

struct world_client {
    struct client *c;
    struct world_key key;
    struct app in[64]; /* accepted streams, oldest first */
    size_t n_in;
    bool echo; /* what accepted apps do */
    bool refuse_accept;
    unsigned changed; /* calls of sessions_changed */
};

struct world {
    struct env_test env;
    struct bufpool *pool;
    struct pipe_net net;
    struct world_key relay_key[WORLD_RELAYS];
    struct relay *relay[WORLD_RELAYS];
    struct world_client client[WORLD_CLIENTS];
};

void world_init(struct world *w);
/* Frees all clients and relays, checks that nothing is left. */
void world_free(struct world *w);

void world_relay_start(struct world *w, int i);
void world_relay_stop(struct world *w, int i);
/* For pipe_listen() with w->relay[i]: another address of it. */
void client_world_accept(void *relay, struct conn *conn);
const char *world_addr(int relay);
/* A configuration for client i; clients with equal numbers have equal keys. */
struct client_cfg world_cfg(struct world *w, int i);
void world_client_start(struct world *w, int i, const struct client_cfg *cfg);
void world_client_stop(struct world *w, int i);
struct client_stat world_stat(struct world *w, int i);
/* Sessions of client i that are up. */
size_t world_sessions(struct world *w, int i);
/* Client i is told of the relay; what it knows of it then. */
void world_add(struct world *w, int i, int relay);
struct client_session_info world_info(struct world *w, int i, int relay);
/* Client i holds a session to the relay and listens on port 80. */
void world_join(struct world *w, int i, int relay);
void world_run(struct world *w, uint64_t ns);
/* Until n sessions of client i are up. */
void world_up(struct world *w, int i, size_t n);
/* Let it rain: until done(arg) or 60 s; fails the test when it does not come. */
void world_until(struct world *w, bool (*done)(void *arg), void *arg);

extern const struct stream_cb app_cb;
void app_init(struct app *a, struct world *w);
void app_free(struct app *a);
/* Take over an accepted stream. */
void app_take(struct app *a, struct stream *st);
/* Dial; asserts that it starts. */
void app_dial(struct app *a, int client, const struct pubkey *pk, uint16_t port, unsigned ms);
void app_send(struct app *a, const void *p, size_t n);
/* Write what waits; reads are made by its callbacks. */
void app_push(struct app *a);
void app_read(struct app *a);
void app_close(struct app *a);
bool app_saw(const struct app *a, char what);
/* Run until it is opened or ended; returns its error. */
int app_wait_open(struct app *a);
bool app_is_over(void *app); /* for world_until: eof or ended */
void client_accepts(void *world_client, struct stream *st);
