/*
 * stream_forward - a unix socket of which every accepted connection becomes a new stream to one pk:port.
 *
 * For libraries that can only connect(): libcurl reaches a service over dmsg through it (compat-http/http_client.h, apps/net.h). The connection and its stream are bridged
 * (transport/fdbridge.h) and outlive the forward; a dial that fails closes the connection, after failed() was told.
 *
 * Limits: STREAM_FORWARD_DIALS dials under way, then the rest waits in the socket's backlog. A dial has timeout_ms. One thread, the loop's.
 *
 *     struct stream_forward_cfg cfg = {.drive = drive, .client = client, .bridges = &bridges, .pk = pk, .port = 80, .timeout_ms = 20000};
 *     rc = stream_forward_new(&f, &cfg, "/run/user/0/kadmsg/x/1");
 */
#pragma once

#include "transport/client.h"
#include "transport/fdbridge.h"

#define STREAM_FORWARD_DIALS 256

struct stream_forward;

struct stream_forward_stat { /* the owner's, of all its forwards together */
    uint64_t accepted, opened, dial_failed, accept_failed;
};

struct stream_forward_cfg {
    struct drive_loop *drive;
    struct client *client;
    struct fdbridges *bridges;
    struct stream_forward_stat *stat; /* may be NULL */
    struct pubkey pk;
    uint16_t port;
    unsigned timeout_ms, flags; /* of client_dial() */
    struct pubkey via;          /* the only relay to go through; null = any */
    /* A dial failed; st, which may be NULL, is valid during the call. Optional. */
    void (*failed)(void *arg, int err, const struct stream *st);
    /* A stream did not end in order; its connection is closed behind this call. Optional. */
    void (*broken)(void *arg, int err);
    void *arg;
};

/* Listen at path, where nothing may be. 0, ERR_NOMEM, ERR_TOO_LONG (path), -errno. */
int stream_forward_new(struct stream_forward **out, const struct stream_forward_cfg *cfg,
                       const char *path) __attribute__((warn_unused_result));
/* Removes the socket; dials under way end. NULL is allowed. */
void stream_forward_free(struct stream_forward *f);
const char *stream_forward_path(const struct stream_forward *f);
