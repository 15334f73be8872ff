/*
 * kadmsg_int - what the files of the public library share: kadmsg.c has life, values and entries, kadmsg_keys.c keys, log
 * and texts, kadmsg_stream.c streams. Private to them.
 *
 * Every callback goes through kadmsg_enter_callback(): after kadmsg_free() from inside one nothing is called any more.
 */
#pragma once

#include <string.h>

#include "node/kadmsg.h"
#include "node/node_int.h"

struct kadmsg {
    struct event_base *base;
    struct event *free_event; /* kadmsg_free() from inside a callback */
    struct node *node;        /* NULL: not started */
    struct node_cfg cfg;
    struct addr_peer *bootstrap;
    char *store_dir, *network;
    struct kadmsg_pk pk;
    char why[NODE_WHY];
    struct list operations, streams, listeners;
    uint64_t last_op;
    unsigned depth; /* callbacks of the user's that are running */
    bool failed, stopping, dying;
    kadmsg_state_fn *on_state;
    void *state_arg;
    unsigned state_told;
    kadmsg_done_fn *stopped;
    void *stopped_arg;
};

struct kadmsg_stream {
    struct list_node node;
    struct kadmsg *k;
    struct stream *st;
    struct kadmsg_pk remote;
    struct kadmsg_stream_callbacks cb;
    void *arg;
};

struct listener {
    struct list_node node;
    struct kadmsg *k;
    uint16_t port;
    kadmsg_accept_fn *fn;
    void *arg;
};

static inline struct pubkey kadmsg_pk_of(const struct kadmsg_pk *pk)
{
    struct pubkey out;
    memcpy(&out, pk, sizeof(out));
    return out;
}

static inline void kadmsg_pk_set(struct kadmsg_pk *out, const struct pubkey *pk)
{
    memcpy(out, pk, sizeof(*out));
}

/* Around a callback of the user's; false: do not call. */
bool kadmsg_enter_callback(struct kadmsg *k);
void kadmsg_leave_callback(struct kadmsg *k);
/* At the start of a call of the user's. 0 or ERR_STATE. */
int kadmsg_begin_call(struct kadmsg *k);
/* Silence, unless kadmsg_log() has chosen something else. */
void kadmsg_log_default(void);
/* Off the list of streams; its stream is closed already. */
void kadmsg_stream_free(struct kadmsg_stream *s);
