/*
 * users - what nodes do beside putting and getting entries. Internal, as world.h.
 *
 *     full.c      full nodes: who is one, how those lie that do, what the others hold
 *     watches.c   watches of entries, and whether what they told is in time
 *     replay.c    attackers that put old versions again
 *     records.c   what visors tell of themselves: entries, transports, services, addresses
 *     transition.c, services.c   HTTP services beside the DHT, and the way from them to it
 *
 * Tasks are events of a node for itself (EV_TASK): struct sim_event.aux says which. What a report of
 * the engine is for stands in the upper half of its user pointer, a number in the lower one.
 */
#pragma once

#include "simulator/world.h"

enum user_task { TASK_WATCH, TASK_AUDIT, TASK_REPLAY, TASK_BEAT, TASK_CHANGE, TASK_READ };
#define USER_KIND_SHIFT 8 /* above the task: enum sim_record */

/* Upper halves of user pointers; load.c */
#define USER_PUT     (UINT64_C(1) << 32)
#define USER_GET     (UINT64_C(2) << 32)
#define USER_FLOOD   (UINT64_C(4) << 32)
#define USER_WATCH   (UINT64_C(8) << 32)
#define USER_REC_PUT (UINT64_C(16) << 32)
#define USER_REC_GET (UINT64_C(32) << 32)
#define USER_MIRROR  (UINT64_C(64) << 32)

int users_init(struct sim *s);
void users_free(struct sim *s);
/* At the beginning: the tasks of this node. */
void users_schedule(struct sim_shard *sh, uint32_t node);
void users_task(struct sim_shard *sh, uint32_t node, uint32_t task);

/* ---- full.c ---- */

static inline bool full_is(const struct sim *s, uint32_t node)
{
    return node < s->cfg.full.count;
}
/* The first node that is neither bootstrap nor full node. */
static inline uint32_t full_behind(const struct sim_cfg *c)
{
    return c->full.count > c->join.bootstrap ? c->full.count : c->join.bootstrap;
}
bool full_is_liar(const struct sim *s, uint32_t node);
/* True when the liar has dealt with the request itself; it is the caller's to free. */
bool full_lie(struct sim_shard *sh, uint32_t node, const struct sim_msg *req);
/* An answer of a liar's engine, before it goes: items are forged. */
void full_forge(struct sim_shard *sh, uint32_t node, struct kad_msg *m);
/* Add what the engine of this node has counted, before it ends. */
void full_count(const struct sim *s, uint32_t node, struct sim_counts *sum);
/* The newest version of each node's entry that honest full nodes here hold; best: one for each node. */
void full_best(const struct sim *s, uint64_t *best);
/* At the end: full_count() of all that are here, and how many of the records that some honest full node
 * holds the others have as well. */
void full_look(const struct sim *s, const uint64_t *best, struct sim_counts *sum);

/* ---- watches.c ---- */

int watches_init(struct sim *s);
void watches_free(struct sim *s);
void watches_schedule(struct sim_shard *sh, uint32_t node);
/* A task of this node is due. */
void watches_begin(struct sim_shard *sh, uint32_t node);
void watches_audit(struct sim_shard *sh, uint32_t node);
/* It is gone, and its watches with it. */
void watches_left(struct sim_shard *sh, uint32_t node);
void watches_told(struct sim_shard *sh, uint32_t node, const struct kad_report *r);
/* Judge an event or an audit, at the shard of what was watched. */
void watches_judge(struct sim_shard *sh, const struct sim_check *c);

/* ---- replay.c ---- */

int replay_init(struct sim *s);
void replay_free(struct sim *s);
void replay_schedule(struct sim_shard *sh, uint32_t node);
/* A request that this attacker gets. */
void replay_see(struct sim_shard *sh, uint32_t node, const struct sim_msg *req);
/* Its task is due. */
void replay_shoot(struct sim_shard *sh, uint32_t node);
/* True: the answer is one to the attack, and not for the engine. */
bool replay_answered(struct sim_shard *sh, uint32_t node, const struct sim_msg *m);

/* ---- records.c ---- */

int records_init(struct sim *s);
void records_free(struct sim *s);
void records_schedule(struct sim_shard *sh, uint32_t node);
/* Tasks that are due: register again, change something, read somebody's. */
void records_beat(struct sim_shard *sh, uint32_t node, enum sim_record kind);
void records_change(struct sim_shard *sh, uint32_t node, enum sim_record kind);
void records_read(struct sim_shard *sh, uint32_t node, enum sim_record kind);
bool records_has(const struct sim *s, uint32_t node, enum sim_record kind);
/* The record as an unsigned item of its subject; value: ITEM_MAX_VALUE bytes. Returns v_len. */
size_t records_item(const struct sim *s, struct item *out, uint8_t *value, uint32_t subject,
                    enum sim_record kind, uint32_t version);
void records_put_done(struct sim_shard *sh, uint32_t node, const struct kad_report *r);
void records_get_done(struct sim_shard *sh, uint32_t node, const struct kad_report *r);
/* Answers of HTTP services. */
void records_posted(struct sim_shard *sh, uint32_t node, enum sim_record kind, uint32_t version);
/* The relay tries again with the next beat. */
void records_push_failed(struct sim_shard *sh, uint32_t node, enum sim_record kind);
void records_got_http(struct sim_shard *sh, const struct sim_http *h);
void records_judge(struct sim_shard *sh, struct sim_check *c);

/* ---- transition.c ---- */

/* 1 to 4; 0 = there is nothing but the DHT. */
unsigned transition_phase(const struct sim *s, uint64_t now_ns);
/* When a visor becomes one of the new kind: 0 from the beginning, UINT64_MAX never. */
uint64_t transition_time(const struct sim *s, uint32_t node);
bool transition_is_new(const struct sim *s, uint32_t node, uint64_t now_ns);
bool transition_is_down(const struct sim *s, uint64_t now_ns);
/* Keys of the nodes that mirror; returns how many. */
size_t transition_mirrors(const struct sim *s, struct pubkey out[SIM_REC__COUNT]);
int transition_check(const struct sim_cfg *c, char *why, size_t cap);
/* At the end: rates before and after. */
void transition_result(const struct sim *s, struct sim_result *r);

/* ---- services.c ---- */

enum http_op { HTTP_GET, HTTP_POST, HTTP_PUSH, HTTP_OBSERVE };

int services_init(struct sim *s);
void services_free(struct sim *s);
uint64_t services_digest(const struct sim *s, unsigned kind);
/* A request of this node to the service of that kind; started: what a get reports as its beginning. */
void http_send(struct sim_shard *sh, uint32_t node, enum http_op op, enum sim_record kind,
               uint32_t subject, uint32_t version, uint64_t started_ns);
void services_event(struct sim_shard *sh, const struct sim_event *ev);
/* The answer is back. */
void http_answered(struct sim_shard *sh, uint32_t node, const struct sim_msg *m);
/* What this service's node has to put into the DHT. */
void http_mirror(struct sim_shard *sh, uint32_t node, const struct sim_http *h);
