/*
 * raw_server - a server whose streams are driven by the test: it forwards nothing and answers what
 * it is told to. Client 0 of its world holds a session to it (key of relay 0, address "r0:1").
 *
 * Objects of both directions can be made in any wrong way; struct raw_peer is the other end of a
 * stream: a key with its KK handshake and frames.
 */
#pragma once

#include "tests/unit/transport/client_world.h"
#include "transport/link.h"
#include "transport/noise.h"
#include "transport/objects.h"
#include "transport/record.h"

struct raw_stream {
    struct yamux_stream *st; /* NULL when it was reset or released */
    bool ours, eof, reset;
    struct list_node node;
};

struct raw_server {
    struct world w;
    struct link *link;
    bool up, down;
    bool deaf;   /* the test: streams of the client are left unaccepted */
    bool leaves; /* the test: the client may end sessions */
    unsigned sessions, ends;
    struct list streams;
    struct raw_stream *opened; /* the newest one that the client opened */
};

struct raw_peer {
    struct world_key key;
    struct noise noise;
    struct cipher tx;
    struct record_reader rx;
    uint8_t obj[OBJECT_ENCODED_MAX]; /* what was sent last: a signed object */
    size_t obj_n;
    struct hash hash; /* of it */
};

void raw_start(struct raw_server *s);
void raw_stop(struct raw_server *s);
void raw_run(struct raw_server *s, uint64_t ns);

struct raw_stream *raw_open(struct raw_server *s);
void raw_write(struct raw_server *s, struct raw_stream *x, const void *p, size_t n);
/* Seal and write an object. */
void raw_object(struct raw_server *s, struct raw_stream *x, const void *obj, size_t n);
/* Read an object that the client has sent: 0, ERR_AGAIN, ERR_EOF … */
int raw_read_object(struct raw_server *s, struct raw_stream *x, uint8_t *obj, size_t *n);
void raw_fin(struct raw_server *s, struct raw_stream *x);
void raw_release(struct raw_server *s, struct raw_stream *x);

void raw_peer_init(struct raw_peer *p, struct raw_server *s, int number);
/* A right request to client 0: fill req with it, ready to be spoilt. msg has room for KK message 1.
 */
void raw_request(struct raw_peer *p, struct raw_server *s, uint16_t port, uint8_t *msg,
                 struct object_request *req);
/* Encode and sign with this key. */
void raw_sign_request(struct raw_peer *p, const struct object_request *req,
                      const struct seckey *sk);
/* Take the client's response: its verdict, checked as a dialer does, and the handshake's end. */
int raw_take_response(struct raw_peer *p, struct raw_server *s, struct raw_stream *x);
/* A whole good dial: the stream is open on both sides. */
struct raw_stream *raw_dial(struct raw_server *s, struct raw_peer *p, uint16_t port);

/* As destination: take the request that the client has sent on x, make KK message 2. */
void raw_take_request(struct raw_peer *p, struct raw_server *s, struct raw_stream *x,
                      struct object_request *req, uint8_t *msg, size_t *n);
void raw_sign_response(struct raw_peer *p, const struct object_response *rsp,
                       const struct seckey *sk);
/* Frames of plaintext. */
void raw_send(struct raw_peer *p, struct raw_server *s, struct raw_stream *x, const void *data,
              size_t n);
