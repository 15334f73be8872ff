/*
 * msg - the typed form of the DHT methods, whatever dialect carries them: the six of
 * docs/protocol/dht.md §3.4, and those that only docs/protocol/dht-native.md has.
 *
 * The engine speaks struct kad_msg; codecs (codec.h: JSON, MessagePack) turn it into bytes and
 * back; the simulator may hand it over as it is. A message owns nothing but references to
 * items: kad_msg_clear() drops them and frees the arrays.
 *
 * Contacts are given as keys only: IDs are recomputed from keys, whatever a peer claims (an answer
 * whose id differs from H(pk) is dropped by the decoder and counted in `bad_contacts`).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/crypto.h"
#include "kademlia/id.h"
#include "kademlia/item.h"
#include "kademlia/reconcile.h"

#define KAD_PORT            100
#define KAD_K               20
#define KAD_MSG_MAX_ITEMS   4096 /* per page or batch; a longer one is a malformed message */
#define KAD_MSG_MAX_TARGETS 512  /* of a GET_BATCH or WATCH request */
#define KAD_NATIVE_VERSION  1

enum kad_method {
    KAD_PING = 1,
    KAD_FIND_NODE = 2,
    KAD_GET_VALUE = 3,
    KAD_PUT_VALUE = 4,
    KAD_GET_ITEMS = 5,
    KAD_PUT_BATCH = 6,
    /* native dialect only */
    KAD_GET_BATCH = 7,
    KAD_WATCH = 8,
    KAD_CHANGED = 9,    /* a notification: no answer */
    KAD_RECONCILE = 10, /* full nodes */
    KAD_METHOD__END,
};

/* How a peer can be spoken to, as far as it is known. */
enum kad_dialect {
    KAD_DIALECT_UNKNOWN,
    KAD_DIALECT_JSON,   /* it said so, or a native stream came to nothing */
    KAD_DIALECT_HINTED, /* others say that it speaks the native one */
    KAD_DIALECT_NATIVE, /* it said so itself */
};

struct kad_msg_item {
    struct item_ref *item;
    bool has_target;      /* false: the item's own slot */
    struct kad_id target; /* explicit slot */
    int result; /* responses to PUT_BATCH: 0 = stored, else the error; to WATCH: 0 = granted */
};

struct kad_msg {
    enum kad_method method;
    bool response;
    /* requests: sender as claimed in the body (the engine believes the stream); responses to PING:
     * responder */
    struct pubkey sender;
    bool read_only;   /* requests: the sender serves nobody, and is to be no contact of anybody */
    uint64_t network; /* tag of the sender's network (kad_network_tag()); 0 = the default one */
    unsigned offer;   /* PING: version of the native dialect that the sender speaks; 0 = none */
    bool full;        /* PING, native: the sender keeps everything */
    struct kad_id target;   /* FIND_NODE, GET_VALUE */
    struct pubkey *closest; /* n_closest contacts, closest first */
    size_t n_closest;
    size_t bad_contacts;
    uint32_t native;        /* bit i: closest[i] is said to speak the native dialect */
    struct kad_id *targets; /* GET_BATCH, WATCH requests: n_targets */
    size_t n_targets;
    unsigned lease_s; /* WATCH: asked for, granted; 0 ends the watches named, or all */
    unsigned held;    /* WATCH response: subscriptions that the sender has now */
    struct kad_msg_item
        *items; /* GET_VALUE response and PUT_VALUE request: one; GET_ITEMS response, PUT_BATCH,
                  CHANGED: n; GET_BATCH response: one per target from the first one on, item NULL =
                  none, and what is missing at the end is to be asked for again; WATCH response: one
                  result per target */
    size_t n_items;
    struct recon_range *ranges; /* RECONCILE request: 1 … RECON_RANGES */
    size_t n_ranges;
    struct recon_answer
        *answers; /* RECONCILE response: to the first ranges; none: ask again soon */
    size_t n_answers;
    const char *salt; /* GET_ITEMS request: plain text, n bytes; owned */
    size_t salt_len;
    uint64_t since_seq;
    int64_t limit;
    bool has_more;
    bool stored;          /* PUT_VALUE response */
    int error;            /* PUT_VALUE response: our error for the text */
    char error_text[160]; /* the text itself, cut */
    bool targets_missing; /* GET_ITEMS response of a peer that sends none */
    size_t wire_bytes;    /* size on the wire, filled by the codec: charged to the peer */
};

/* Zeroed message of that method. */
void kad_msg_init(struct kad_msg *m, enum kad_method method, bool response);
void kad_msg_clear(struct kad_msg *m);
/* Append an item (takes a reference of its own); ERR_LIMIT, ERR_NOMEM. target may be NULL. */
int kad_msg_add_item(struct kad_msg *m, struct item_ref *item, const struct kad_id *target);
/* Copy the contact list (n <= KAD_K). */
int kad_msg_set_closest(struct kad_msg *m, const struct pubkey *pks, size_t n);
/* Copy the targets (n <= KAD_MSG_MAX_TARGETS). */
int kad_msg_set_targets(struct kad_msg *m, const struct kad_id *targets, size_t n);
