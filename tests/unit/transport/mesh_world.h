/*
 * mesh_world - several relays on one net in virtual time, for the tests of the mesh. Relay 0 is that of
 * its rw_world and may have several workers; the others have one. Peers are those of relay_world.h.
 *
 *     struct mesh_world m;
 *     mw_pair(&m, NULL);                          relays 0 and 1, linked both ways
 *     struct rw_peer *p = rw_peer_new(mw_at(&m, 1), 7);
 *     mw_finish(&m);                              checks that nothing is left
 */
#pragma once

#include "tests/unit/transport/relay_world.h"

#define RELAYS 4

struct mesh_world {
    struct rw_world w;
    struct relay *relay[RELAYS];
    struct rw_key key[RELAYS];
    char addr[RELAYS][24];
    unsigned dialled[RELAYS]; /* connections that reached its address */
    struct rw_peer *fake;     /* the newest session of a relay that the test plays */
    enum rw_answer fake_answer;
    unsigned fakes; /* such sessions, so far */
};

/* Keys and addresses only: for configurations that name other relays. */
void mw_begin(struct mesh_world *m);
/* Relay 0, which makes the net; it dials nobody unless told. */
void mw_start(struct mesh_world *m, const struct relay_cfg *cfg);
void mw_relay(struct mesh_world *m, int i, const struct relay_cfg *cfg);
/* Relays 0 and 1, each dials the other. */
void mw_pair(struct mesh_world *m, const struct relay_cfg *cfg);
/* An address is no longer answered, and its relay gone. */
void mw_stop(struct mesh_world *m, int i);
/* Everything is closed, and every gauge is back at zero. */
void mw_finish(struct mesh_world *m);
/* Of relay 0: sums of its workers. */
struct relay_stat mw_stat(const struct mesh_world *m, int i);
/* Streams that were refused for this reason. */
unsigned mw_code_count(const struct mesh_world *m, int i, int err);
/* Peers that are made from now on connect to this relay. */
struct rw_world *mw_at(struct mesh_world *m, int i);
struct relay_server mw_server(const struct mesh_world *m, int i);
/* Relay i is told of others; of relay j, which it dials. */
void mw_tell(struct mesh_world *m, int i, const struct relay_server *list, size_t n);
void mw_found(struct mesh_world *m, int i, int j);
/* Linked relays of relay 0; up to one of them into out. */
size_t mw_peers(struct mesh_world *m, struct relay_peer_info *out);

/* A signed announcement into obj[OBJECT_ENCODED_MAX]; its length. */
size_t mw_announcement(uint8_t *obj, const struct mesh_world *m, const struct pubkey *src,
                       const struct seckey *sk);
/* Sent on a session: 1 accepted, 0 refused in a signed answer, -1 the stream was closed without one. */
int mw_announce_as(struct mesh_world *m, struct rw_peer *p, const struct pubkey *src,
                   const struct seckey *sk, const struct rw_key *relay);
int mw_announce(struct mesh_world *m, struct rw_peer *p);
/* Relay 0 knows, dials and announces itself to a relay that the test plays: key 600, at fake:1. */
void mw_fake(struct mesh_world *m, enum rw_answer answer);
/* And then to relay 1, a real one: the younger link, which is asked last. */
void mw_fake_and_relay(struct mesh_world *m, enum rw_answer answer);
