/*
 * codec - the one interface of both dialects: struct kad_msg to and from bytes.
 *
 *     kad_codec_json      frames of the Go peers, one request a stream (codec_json.h)
 *     kad_codec_msgpack   MessagePack-RPC, many calls a stream (codec_msgpack.h)
 *
 * A dialect that has no such method says ERR_UNSUPPORTED. Tables of functions, never freed; any
 * thread.
 *
 *     const struct kad_codec *codec = &kad_codec_msgpack;
 *     rc = codec->encode(&bytes, &n, &msg, call_id);
 */
#pragma once

#include "kademlia/msg.h"

struct kad_codec {
    const char *name; /* as in `dht peers` */
    /* The whole message, malloc'ed; m->wire_bytes is set. id: number of the call, for dialects that
     * have one. */
    int (*encode)(uint8_t **out, size_t *n, struct kad_msg *m, uint32_t id);
    /* What stands behind the head of a message: JSON body, or params or result of MessagePack-RPC. */
    int (*decode)(struct kad_msg *out, unsigned method, bool response, const void *body, size_t n);
    /* Bytes that an item with its target adds to a message at most. */
    size_t (*item_size)(const struct item *it);
};

extern const struct kad_codec kad_codec_json, kad_codec_msgpack;
