/*
 * codec_msgpack - struct kad_msg as MessagePack-RPC (docs/protocol/dht-native.md).
 *
 *     request       [0, id, method, params]
 *     response      [1, id, error, result]      error: nil or [code, text]
 *     notification  [2, method, params]
 *
 * Messages follow each other on the stream without anything between them. struct kad_mp_frame
 * finds their ends while bytes come: the walk (base/mpscan.h) bounds every count and depth, so that
 * nothing is allocated for what a length promises, and msgpack-c sees only what passed.
 *
 * Owner: one stream, one thread; the rest are pure functions. Limits: KAD_MP_MAX bytes and
 * KAD_MP_OBJECTS objects a message, nesting KAD_MP_DEPTH. Errors: ERR_FORMAT, ERR_LIMIT,
 * ERR_TOO_LONG, ERR_UNSUPPORTED (a method that is not known), ERR_NOMEM.
 *
 *     kad_mp_frame_init(&f);
 *     while ((rc = kad_mp_frame_feed(&f, p, n, &used, &head)) == 0) {
 *         rc = kad_codec_msgpack.decode(&msg, head.method, head.type == KAD_MP_RESPONSE,
 *                                       head.body, head.body_len);
 *         kad_mp_frame_next(&f);
 *         p += used, n -= used;
 *     }
 */
#pragma once

#include "base/mpscan.h"
#include "kademlia/codec.h"

#define KAD_MP_MAX     4194304u
#define KAD_MP_OBJECTS 65536u
#define KAD_MP_DEPTH   6u

/* First bytes of messages: what tells a stream of this dialect from a frame of JSON (00). */
#define KAD_MP_FIRST(b) ((b) == 0x93 || (b) == 0x94)

enum kad_mp_type { KAD_MP_REQUEST, KAD_MP_RESPONSE, KAD_MP_NOTE };

struct kad_mp_head {
    enum kad_mp_type type;
    uint32_t id;           /* not of a notification */
    unsigned method;       /* enum kad_method; 0 = unknown. Of requests and notifications */
    int error;             /* of a response: ours for the peer's code, 0 = none */
    const uint8_t *body;   /* params or result: one object */
    size_t body_len, size; /* size: of the whole message */
};

struct kad_mp_frame { /* private */
    struct mpscan scan;
    uint8_t *p;
    size_t n, cap;
};

void kad_mp_frame_init(struct kad_mp_frame *f);
void kad_mp_frame_clear(struct kad_mp_frame *f);
/* Take from n bytes what belongs to the message under way; *used says how many were taken. 0 = it
 * is whole: head is valid until kad_mp_frame_next(), and body points into p or f. ERR_AGAIN = more is
 * needed, and all bytes were taken. Other errors are final. */
int kad_mp_frame_feed(struct kad_mp_frame *f, const void *p, size_t n, size_t *used,
                      struct kad_mp_head *head) __attribute__((warn_unused_result));
/* The message has been dealt with. */
void kad_mp_frame_next(struct kad_mp_frame *f);
/* Bytes held of a message under way. */
static inline size_t kad_mp_frame_held(const struct kad_mp_frame *f)
{
    return f->n;
}

/* A response that is an error. */
int kad_mp_encode_error(uint8_t **out, size_t *n, uint32_t id, int err)
    __attribute__((warn_unused_result));

/* Name of a method on the wire, NULL if there is none. */
const char *kad_mp_method_name(unsigned method);
