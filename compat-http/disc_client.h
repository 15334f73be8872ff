/*
 * disc_client - asks a dmsg discovery: entries, servers, lists of keys; sends signed entries (docs/protocol/services.md §2, §3.1).
 *
 * An entry is given to the caller when its static key is the asked one. `verified` says whether its signature is good; a client's entry that does not verify is
 * ERR_SIG, and shown all the same. A server's is given unverified, as a hint: services put serverType in after the signature was made (§2.2 rule 4), and the handshake with the server proves
 * more. What the service says is found by its text, not by its status.
 *
 * The discovery may be http://, https:// or dmsg:// (compat-http/http_client.h, whose deadlines, retries, single flight and limits hold). Answers come from the loop.
 * Callbacks may start and cancel anything. At most DISC_CLIENT_SERVERS servers and DISC_CLIENT_KEYS keys of a list are taken; entries that cannot be read are skipped.
 * Errors: those of http_client, those of disc_text_err(), ERR_SIG, ERR_FORMAT (not an entry or list), ERR_PROTOCOL. One thread.
 *
 *     rc = disc_client_new(&d, &(struct disc_client_cfg){.http = http, .env = env, .url = "http://127.0.0.1:9090"});
 *     handle = disc_client_get(d, &pk, on_entry, arg);
 */
#pragma once

#include <stdbool.h>

#include "compat-http/disc_text.h"
#include "compat-http/http_client.h"
#include "transport/entry.h"

#define DISC_CLIENT_SERVERS    4096
#define DISC_CLIENT_KEYS       ((size_t)1 << 20)
#define DISC_CLIENT_TIMEOUT_MS 10000

struct disc_client;

struct disc_client_cfg {
    struct http_client *http;
    struct env *env;
    const char *url;     /* scheme://host[:port][/prefix]; copied */
    unsigned timeout_ms; /* 0 = DISC_CLIENT_TIMEOUT_MS */
};

struct disc_answer {
    int err;
    enum disc_text text; /* what the service said, when it said something */
    const char *why;     /* for people */
    unsigned ms;
    const struct entry *entry; /* get: valid during the callback */
    bool verified;
    struct entry *const *servers; /* servers: the same */
    const struct pubkey *keys;    /* keys: the same */
    size_t n;                     /* of servers or keys */
};

typedef void disc_answer_fn(void *arg, const struct disc_answer *a);

enum disc_list {
    DISC_AVAILABLE_SERVERS,
    DISC_ALL_SERVERS,
    DISC_CLIENTS,       /* keys of all clients */
    DISC_VISOR_CLIENTS, /* those of visors */
};

/* 0, ERR_NOMEM, ERR_FORMAT (url). */
int disc_client_new(struct disc_client **out, const struct disc_client_cfg *cfg)
    __attribute__((warn_unused_result));
/* Nobody is told. NULL is allowed. */
void disc_client_free(struct disc_client *d);
const char *disc_client_url(const struct disc_client *d);

/* All return a handle for disc_client_cancel(), or 0 when there is no memory; fn is not called then. */
uint64_t disc_client_get(struct disc_client *d, const struct pubkey *pk, disc_answer_fn *fn,
                         void *arg);
/* "No servers" and "no such list" (an older service) are empty lists. */
uint64_t disc_client_list(struct disc_client *d, enum disc_list what, disc_answer_fn *fn,
                          void *arg);
/* A signed entry, registered (POST) or taken back (DELETE). */
uint64_t disc_client_send(struct disc_client *d, bool withdraw, const char *text, size_t n,
                          disc_answer_fn *fn, void *arg);
void disc_client_cancel(struct disc_client *d, uint64_t handle);

/* The same as an interface, so that registration and look-ups can be tested without HTTP. */
struct disc_port {
    void *arg;
    uint64_t (*get)(void *arg, const struct pubkey *pk, disc_answer_fn *fn, void *fn_arg);
    uint64_t (*list)(void *arg, enum disc_list what, disc_answer_fn *fn, void *fn_arg);
    uint64_t (*send)(void *arg, bool withdraw, const char *text, size_t n, disc_answer_fn *fn,
                     void *fn_arg);
    void (*cancel)(void *arg, uint64_t handle);
};
struct disc_port disc_client_port(struct disc_client *d);
