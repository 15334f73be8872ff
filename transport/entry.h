/*
 * entry - the signed record of a key: where a client can be reached, what a server offers.
 *
 * One JSON object, the same over HTTP discovery and under DHT salt "dmsg"
 * (docs/protocol/services.md §2, dht.md §4). This module parses it, gives the canonical bytes that
 * are signed, checks the signature, builds and signs our own, and keeps the received text so that
 * members of a newer generation survive when the entry is stored or passed on.
 *
 * Ownership: a struct entry is created by entry_parse(), entry_new_client() or entry_new_server()
 * and freed by entry_free(); all strings and lists in it live in the entry. Entries are values:
 * nothing here is shared, no locks, any thread. The verification itself is public-key work and goes
 * through env_pk(): entry_check_begin() gives the digests to verify.
 *
 * Limits: text 65 536 bytes, 256 delegated servers, strings 512 bytes and without NUL, nesting as
 * in base/json.h. Errors: ERR_FORMAT (not an entry), ERR_KEY (bad key text), ERR_TOO_LONG,
 * ERR_NOMEM, ERR_SIG. A signature text that is no signature is a matter of verification (ERR_SIG),
 * as upstream has it. Peers' bytes never assert.
 *
 * Two canons: a verifier rebuilds the signed bytes from the members it knows (order and conditions
 * of services.md §2.1). If that does not verify, a second canon keeps unknown members at the place
 * where they stood (§2.2 rule 2). Either one suffices.
 *
 *     struct entry *e;
 *     if (entry_parse(&e, text, n) == 0) {
 *         if (entry_verify(e) == 0 && pubkey_equal(&e->static_pk, &asked))
 *             use(e->client.delegated, e->client.n_delegated);
 *         entry_free(e);
 *     }
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/crypto.h"

#define ENTRY_MAX_TEXT      65536
#define ENTRY_MAX_DELEGATED 256
#define ENTRY_MAX_STRING    512
#define ENTRY_VERSION       "0.0.1"

struct entry_client {
    bool delegated_null; /* the list was absent or null: written "null", not "[]"; the two have
                            different signatures */
    size_t n_delegated;
    struct pubkey *delegated;
};

struct entry_server { /* strings: "" = absent */
    const char *address, *address_v6, *address_udp, *address_udp_v6, *address_ws, *address_wt,
        *cert_hash_wt;
    int64_t available_sessions;
    const char *server_type;
    bool dht_bootstrap;
};

struct entry {
    const char *version;
    uint64_t sequence;
    int64_t timestamp_ns; /* wall clock of the signer, ns since 1970 */
    struct pubkey static_pk;
    bool has_client, has_server;
    struct entry_client client;
    struct entry_server server;
    const char *client_type; /* "" = absent */
    const char *protocol;    /* "" = absent = yamux */
    bool has_signature;
    struct sig signature;
    const char *text; /* as received or as signed last; what is stored and passed on */
    size_t text_len;
    bool unknown_members; /* text holds members that are not in this struct */
    void *arena;          /* owner of all of the above */
};

/* Parse n bytes of JSON (one object; white space around it, nothing else). A tombstone "{}" gives
 * ERR_NOT_FOUND. *out only on 0. */
int entry_parse(struct entry **out, const char *text, size_t n) __attribute__((warn_unused_result));
void entry_free(struct entry *e);

/* A new, unsigned entry of a client that is reachable through these servers (n <=
 * ENTRY_MAX_DELEGATED; n = 0 gives "[]"). client_type may be "" or "visor". */
int entry_new_client(struct entry **out, const struct pubkey *self, uint64_t sequence,
                     int64_t timestamp_ns, const struct pubkey *delegated, size_t n,
                     const char *client_type) __attribute__((warn_unused_result));

/* A new, unsigned entry of a server at HOST:PORT. */
int entry_new_server(struct entry **out, const struct pubkey *self, uint64_t sequence,
                     int64_t timestamp_ns, const char *address, int64_t available_sessions)
    __attribute__((warn_unused_result));

/* Where its server is dialled: the address of IPv4 (or a name), else that of IPv6; "" = nowhere. Other
 * carriers do not count. */
static inline const char *entry_server_address(const struct entry *e)
{
    return e->server.address[0] != '\0' ? e->server.address : e->server.address_v6;
}

/* Give an entry both halves: copies the server half of `server` (a node that is relay and client
 * under one key). */
int entry_add_server(struct entry *e, const char *address, int64_t available_sessions)
    __attribute__((warn_unused_result));

/* Take over a half of another entry of the same key, with every known member; the client's half
 * brings client_type and protocol along. ERR_NOMEM. */
int entry_copy_server(struct entry *e, const struct entry *from)
    __attribute__((warn_unused_result));
int entry_copy_client(struct entry *e, const struct entry *from)
    __attribute__((warn_unused_result));

/* Digest to be signed (canon of known members, signature absent). */
int entry_digest(struct hash *out, const struct entry *e) __attribute__((warn_unused_result));

/* Canonical bytes themselves into a malloc'ed buffer (caller frees). with_unknown: second canon.
 * For tests and tools. */
int entry_canonical(char **out, size_t *n, const struct entry *e, bool with_unknown)
    __attribute__((warn_unused_result));

/* Put a signature made over entry_digest() in and rebuild text. */
int entry_set_signature(struct entry *e, const struct sig *sig) __attribute__((warn_unused_result));

/* Digests whose signature by static_pk makes the entry valid: out[0] always, out[1] when the second
 * canon differs (unknown members, or the WebTransport members, whose place is not certain). Returns
 * how many (1 or 2), or ERR_SIG when there is no signature, ERR_KEY for a null static key,
 * ERR_NOMEM. The caller verifies through env_pk(); one success is enough. */
int entry_check_begin(struct hash out[2], const struct entry *e)
    __attribute__((warn_unused_result));

/* The same done at once on this thread (tools, tests, store verify). 0 or ERR_SIG / ERR_KEY. */
int entry_verify(const struct entry *e) __attribute__((warn_unused_result));

/* Order of two entries of one key: by timestamp, then sequence (design: never by a carrier's seq).
 * <0, 0, >0. */
int entry_cmp(const struct entry *a, const struct entry *b);

/* True when pk is among the delegated servers. */
bool entry_delegates_to(const struct entry *e, const struct pubkey *pk);
