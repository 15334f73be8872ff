/*
 * disc_reg - keeps this node's own entry in a dmsg discovery (docs/protocol/services.md §2.3).
 *
 *            due                    404, own, other half           signed
 *     IDLE ------> GET (what is there?) ------> SIGN ------------> SEND --ok--> IDLE, next after period
 *      ^  failed: 1 s … 60 s, jittered |                             | 422 sequence: 100 ms … 2 s, at most 5 times
 *      +-------------------------------+<----------------------------+
 *
 * Every publication starts from what the discovery holds, whether it is the first or the hundredth (incident 52): nothing there, an entry of an earlier life, or one whose
 * other half somebody else keeps up under the same key. Only our half is replaced; another half stays while somebody renews it (DISC_REG_FOREIGN_NS). One publication at a
 * time for a key, and changes that come meanwhile are one publication afterwards (incidents 42, 43). Nothing is published before there is something to say: fill() false.
 *
 * disc_reg_withdraw() takes the entry back, or only our half of it.
 *
 * With carried() the discovery is written only when it has to be: whenever a publication is due, and after disc_reg_look(), what it holds is shown to the owner first. When that is what the
 * owner published in the DHT, it came there by another way (docs/protocol/dht.md §6.2) and nothing is sent; when it is not any more, it is sent at once.
 *
 * A service of 2023 drops members that it does not know and then finds the signature wrong: after "invalid signature" client_type is left out (§2.2 rule 3).
 *
 * One thread. The port's answers come from the loop, as do fill() and done().
 *
 *     struct disc_reg_cfg cfg = {.env = env, .loop = loop, .port = disc_client_port(d), .self = pk, .sk = sk, .fill = fill, .arg = me};
 *     reg = disc_reg_new(&cfg);
 *     disc_reg_kick(reg);
 */
#pragma once

#include "base/loop.h"
#include "compat-http/disc_client.h"

#define DISC_REG_DEBOUNCE_NS  (200 * NS_PER_MS)
#define DISC_REG_GAP_NS       (5 * NS_PER_S)
#define DISC_REG_CLIENT_NS    (300 * NS_PER_S)
#define DISC_REG_SERVER_NS    (60 * NS_PER_S)
#define DISC_REG_FOREIGN_NS   (600 * NS_PER_S)
#define DISC_REG_CONFLICTS    5
#define DISC_REG_RETRY_MAX_NS (60 * NS_PER_S)
#define DISC_REG_LOOK_NS      (3 * NS_PER_S)

struct disc_reg;

/* What is to be said of this node now; pointers are valid until the next fill(). */
struct disc_self {
    bool client;
    const struct pubkey *delegated;
    size_t n_delegated;
    const char *client_type; /* "" or "visor" */
    bool server;
    const char *address, *server_type;
    int64_t available_sessions;
};

enum disc_reg_carried { DISC_REG_MISSING, DISC_REG_CARRIED, DISC_REG_NOT_YET };

struct disc_reg_cfg {
    struct env *env;
    struct loop *loop;
    struct disc_port port;
    struct pubkey self;
    struct seckey sk; /* copied, wiped */
    bool (*fill)(void *arg, struct disc_self *out);
    /* Optional: what the discovery holds (NULL = nothing), against what was published elsewhere. NOT_YET: it is looked at again after DISC_REG_LOOK_NS. */
    enum disc_reg_carried (*carried)(void *arg, const struct entry *stored);
    /* Optional: it was sent and taken. */
    void (*sent)(void *arg);
    void *arg;
};

struct disc_reg_stat {
    uint64_t published, failed, conflicts, merged, withdrawn;
    uint64_t looks, seen,
        resumed; /* with carried(): seen there, so that nothing was sent; sent again because it was not any more */
    bool carried; /* gauge: as of the last look */
    int last_err;
    uint64_t last_ns;  /* of the last success, 0 = none */
    uint64_t sequence; /* of the entry that the discovery had then */
};

/* NULL when out of memory. Nothing is done before the first kick. */
struct disc_reg *disc_reg_new(const struct disc_reg_cfg *cfg);
void disc_reg_free(struct disc_reg *r);
/* Something that fill() says has changed. */
void disc_reg_kick(struct disc_reg *r);
/* Something was published elsewhere: see in in_ns whether it came to the discovery. Only with carried(). */
void disc_reg_look(struct disc_reg *r, uint64_t in_ns);
/* Take it back; done(arg) once, from the loop, when that succeeded or failed. Nothing is published afterwards. */
void disc_reg_withdraw(struct disc_reg *r, void (*done)(void *arg), void *arg);
void disc_reg_stat(const struct disc_reg *r, struct disc_reg_stat *out);
