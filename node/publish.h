/*
 * publish - this node's own records in the DHT: its signed entry under salt "dmsg", and a relay's
 * record under "dmsg-server".
 *
 * The entry's delegated servers are the sessions that are verified now (incident 14); it is built,
 * signed over the canonical bytes, and put when that set has changed: PUBLISH_DEBOUNCE_NS after a
 * server came, PUBLISH_LOSS_NS after one was only lost (jittered), and not at all when it is back by
 * then. One that was taken out of the entry is named again when it has lasted for PUBLISH_FLAP_NS,
 * doubled each time within an hour, unless there is no other; so a flapping server does not flood the
 * network (incident 11). It is also put when the first DHT peer
 * appeared, every PUBLISH_EVERY_NS (of a relay, and with a discovery, PUBLISH_OFTEN_NS; jittered), and again soon while nobody has stored it although
 * there are peers. A node without any verified session and without relay publishes nothing: its
 * entry would say that it cannot be reached. A node that finds its own relay record from an earlier
 * run, and is no relay any more, puts a tombstone over it (incident 32).
 *
 * publish_withdraw() puts tombstones ("{}") and tells when that is done or PUBLISH_WITHDRAW_NS have
 * passed.
 *
 * With a discovery (port), the same entry is kept up there too (compat-http/disc_reg.h), under the
 * discovery's own sequence numbers.
 *
 * With http_unseen it is kept up there only while it has to be: an entry that was put into the DHT, and that the discovery has without having had it from us, came there by
 * the way back (pushers of relays, docs/mirrors.md). PUBLISH_PROBE_NS after a registration the entry is put again, with a higher sequence number than the registered one, to see
 * whether that happens; PUBLISH_CARRY_NS after each put the discovery is asked. It is believed only by our signature. From then on nothing is registered, until a put does not
 * come there within PUBLISH_CARRY_MAX_NS.
 *
 * One thread. At most one operation per record is under way; changes meanwhile are taken up when it
 * ends.
 */
#pragma once

#include "compat-http/disc_reg.h"
#include "kademlia/host.h"

#define PUBLISH_DEBOUNCE_NS  (300 * NS_PER_MS)
#define PUBLISH_LOSS_NS      (15 * NS_PER_S)
#define PUBLISH_FLAP_NS      (300 * NS_PER_S)
#define PUBLISH_EVERY_NS     (900 * NS_PER_S)
#define PUBLISH_OFTEN_NS     (300 * NS_PER_S)
#define PUBLISH_RETRY_NS     (5 * NS_PER_S)
#define PUBLISH_WITHDRAW_NS  (2 * NS_PER_S)
#define PUBLISH_PROBE_NS     (2 * NS_PER_S)
#define PUBLISH_CARRY_NS     (3 * NS_PER_S)
#define PUBLISH_CARRY_MAX_NS (20 * NS_PER_S)

struct publish;

struct publish_cfg {
    struct env *env;
    struct loop *loop;
    struct client *client;
    struct host *host;
    struct pubkey self;
    struct seckey sk;           /* copied, wiped */
    const char *server_address; /* "host:port" of the relay; NULL = no relay role */
    uint32_t max_sessions;
    const char *client_type;      /* "" or "visor" */
    const struct disc_port *port; /* HTTP discovery; copied; NULL = none */
    bool http_only;               /* nothing is put into the DHT */
    bool http_unseen; /* registered there only while what the DHT has is not seen to come there */
};

struct publish_stat {
    uint64_t published, failed;
    unsigned stored; /* peers that hold the last entry */
    int last_err;
    uint64_t last_ns; /* when the entry was published last, 0 = never */
    size_t delegated;
    struct disc_reg_stat http;
};

/* NULL when out of memory. */
struct publish *publish_new(const struct publish_cfg *cfg);
void publish_free(struct publish *p);
/* The set of sessions may have changed. */
void publish_sessions_changed(struct publish *p);
/* The first DHT peer appeared, or somebody asks for it: soon, whether anything changed or not. */
void publish_kick(struct publish *p);
/* Put tombstones over what was published; done(arg) comes from the loop, once, after
 * PUBLISH_WITHDRAW_NS at the latest. */
void publish_withdraw(struct publish *p, void (*done)(void *arg), void *arg);
/* True when the report belonged to a record of ours. */
bool publish_report(struct publish *p, const struct kad_report *r);
void publish_stat(const struct publish *p, struct publish_stat *out);
