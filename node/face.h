/*
 * face - the store of a discovery that is the network: what kadmsg node --http serves (node/facade.c puts HTTP around it).
 *
 * The discovery itself (compat-http/disc_service.h: endpoints, checks, texts) sees a struct kv whose
 *     entry          is what was registered here, else the node's look-up (node/resolve.h: cache, local store, DHT, and the HTTP discovery beside it). Registered longer
 *                    than FACE_OWN_NS ago, it is looked up too, and the newer one counts: its owner may have gone elsewhere
 *     list of keys   is what was registered here, what the local DHT store has (all of it on a full node), and what the HTTP discovery lists
 *     servers        are in addition the relays that the node knows; one whose entry is not at hand is described by key and address without a signature: clients take
 *                    servers as hints, and nothing of that is published
 *     registration   is kept, also over a restart (in the node's store), carried into the DHT as an item that certifies itself (foreign-signed, in the
 *                    subject's own slot), again every FACE_CARRY_NS while it lives, and forwarded to the HTTP discovery, again when that was not there
 *
 * Nobody but its owner can sign a tombstone: what is taken back is forgotten here and at the HTTP discovery, no older entry of it is given for FACE_GONE_NS, and it is no
 * longer renewed in the DHT, where it ends by then.
 *
 * Lists of the HTTP discovery are kept for FACE_LIST_NS, asked for once however many wait, shown old for FACE_OLD_NS while they are asked for anew, and waited for no longer
 * than FACE_WAIT_NS.
 *
 * Limits: FACE_ENTRIES registrations (then 500), those of servers live 2 min, of clients FACE_ENTRY_NS; FACE_KEYS keys of a list; FACE_FORWARDS requests to the discovery at once,
 * the others wait. One thread, virtual time.
 *
 *     struct face_cfg cfg = {.env = env, .loop = loop, .resolve = resolve, .store = store, .host = host, .carrier = sk, .port = &port, .ask = true, .forward = true};
 *     rc = face_new(&f, &cfg);
 *     struct disc_service_cfg disc = {.kv = face_kv(f), .peek = face_peek, .stored = face_stored, .taken_back = face_taken_back, .arg = f, …};
 */
#pragma once

#include "compat-http/disc_client.h"
#include "kademlia/host.h"
#include "node/resolve.h"
#include "store/kv.h"

#define FACE_ENTRIES  4096
#define FACE_KEYS     65536
#define FACE_FORWARDS 32
#define FACE_ENTRY_NS (86400 * NS_PER_S)
#define FACE_CARRY_NS (240 * NS_PER_S)
#define FACE_OWN_NS   (300 * NS_PER_S)
#define FACE_GONE_NS  (660 * NS_PER_S)
#define FACE_LIST_NS  (15 * NS_PER_S)
#define FACE_OLD_NS   (600 * NS_PER_S)
#define FACE_WAIT_NS  (2 * NS_PER_S)
#define FACE_RETRY_NS (30 * NS_PER_S)
#define FACE_SAVE_NS  (2 * NS_PER_S)

struct face;

typedef void face_server_fn(void *arg, const struct pubkey *pk, const char *addr);

struct face_cfg {
    struct env *env;
    struct loop *loop;
    struct resolve *resolve;
    struct store *store;          /* of the DHT */
    struct host *host;            /* where entries are carried to; NULL = they are not */
    struct seckey carrier;        /* signs what is carried; copied, wiped */
    const struct disc_port *port; /* the HTTP discovery; copied; NULL = none */
    bool ask, forward;            /* it is asked for lists; registrations are sent there */
    /* The relays that are known; one that has registered is another. Both may be NULL. */
    void (*servers)(void *arg, face_server_fn *fn, void *fn_arg);
    void (*learn)(void *arg, const struct pubkey *pk, const char *addr);
    void *arg;
};

struct face_stat {
    size_t entries, waiting; /* gauges: registered; waiting to be forwarded */
    uint64_t own;            /* answered from what was registered here */
    uint64_t outdated;       /* of those, found to be newer elsewhere */
    uint64_t registered, restored, carried, carry_failed, forwarded, forward_failed, lists,
        lists_failed, not_saved;
};

/* 0, ERR_NOMEM. What was registered before a restart is there again. */
int face_new(struct face **out, const struct face_cfg *cfg) __attribute__((warn_unused_result));
/* Saves; nobody is told. NULL is allowed. */
void face_free(struct face *f);
struct kv *face_kv(struct face *f);
/* For disc_service_cfg, arg and kv being this face's. */
int face_peek(struct kv *kv, const struct kv_str *keys, size_t n, kv_done_fn *fn, void *arg);
void face_stored(void *face, const struct entry *e, const char *text, size_t n);
void face_taken_back(void *face, const struct entry *e);
void face_stat(const struct face *f, struct face_stat *out);
