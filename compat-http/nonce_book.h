/*
 * nonce_book - who signs a request, in which turn: httpauth with its stored nonces, for every service that has it (docs/protocol/services.md §4).
 *
 *     enter -> (the key's turn) -> stored nonce -> number and signature -> fn(): the request is proved, the turn is the caller's
 *           -> nonce_turn_ops() into the write of an answer of status 200 -> answer -> leave
 *
 * Requests of one key have their turn one after the other, in the order they came, so that of two with one nonce one is refused (incident 49). Over a stream the identity is the channel's,
 * no nonce is read or counted, and the turn holds all the same.
 *
 * A nonce_turn is part of the caller's job and lives until nonce_turn_leave(); fn() is called once, from inside nonce_turn_enter() or later: 0 = proved; ERR_REFUSED = it was
 * answered 401 here; another error = the store did not answer, the request is the caller's to answer. Calls to the store that are under way hold a pointer to it: see store/kv.h.
 *
 * Layout (§4.4): <service>:nonces:<pk> a decimal number, <service>:nonces a set of raw keys. Limits: NONCE_KEYS keys at once (ERR_LIMIT). One thread.
 *
 *     rc = nonce_book_init(&book, kv, env, loop, "transport-discovery");
 *     job->turn.fn = on_proved;
 *     nonce_turn_enter(&book, &job->turn, q);
 */
#pragma once

#include "base/list.h"
#include "base/loop.h"
#include "base/map.h"
#include "compat-http/httpauth.h"
#include "store/kv.h"

#define NONCE_SERVICE_MAX 32
#define NONCE_KEYS        65536
#define NONCE_KEY         (NONCE_SERVICE_MAX + 8 + PUBKEY_HEX + 1)
#define NONCE_OPS         2

struct nonce_book {
    struct kv *kv;
    struct loop *loop;
    char service[NONCE_SERVICE_MAX];
    struct map keys;   /* of those that have their turn now */
    struct list ready; /* turns that come next */
    struct loop_task next;
    struct list shows; /* questions for a nonce */
    uint64_t refused;  /* counter: 401 */
};

struct nonce_turn {
    void (*fn)(struct nonce_turn *t, int err); /* set by the caller */
    /* private but pk */
    struct pubkey pk;
    struct nonce_book *book;
    struct nonce_key *key;
    struct service_req *q; /* the caller sets it NULL when the request is dropped */
    struct httpauth auth;
    struct list_node node;
    bool up; /* it has begun, or is the next of its key */
    char text[NONCE_KEY], set[NONCE_SERVICE_MAX + 8];
};

void nonce_book_init(struct nonce_book *b, struct kv *kv, struct env *env, struct loop *loop,
                     const char *service);
/* All turns must have left. Questions for nonces are forgotten. */
void nonce_book_free(struct nonce_book *b);

void nonce_turn_enter(struct nonce_book *b, struct nonce_turn *t, struct service_req *q);
/* What counts the nonce, for the write of an answer with status 200: 0 or NONCE_OPS operations; what they point to lives as long as the turn. */
size_t nonce_turn_ops(const struct nonce_turn *t, struct kv_op op[NONCE_OPS]);
/* Also when it never began. */
void nonce_turn_leave(struct nonce_turn *t);

/* GET /security/nonces/{pk}: answers now or later. */
void nonce_book_show(struct nonce_book *b, struct service_req *q);
/* For service_cfg.dropped, of requests that were given to nonce_book_show(). */
void nonce_show_dropped(struct service_req *q);
