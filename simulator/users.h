/*
 * users - what nodes do beside putting and getting entries. Internal, as world.h.
 *
 *     full.c      full nodes: who is one, how those lie that do, what the others hold
 *     watches.c   watches of entries, and whether what they told is in time
 *     replay.c    attackers that put old versions again
 *
 * Tasks are events of a node for itself (EV_TASK): struct sim_event.aux says which. What a report of
 * the engine is for stands in the upper half of its user pointer, a number in the lower one.
 */
#pragma once

#include "simulator/world.h"

enum user_task { TASK_WATCH, TASK_AUDIT, TASK_REPLAY };

/* Upper halves of user pointers; load.c */
#define USER_PUT   (UINT64_C(1) << 32)
#define USER_GET   (UINT64_C(2) << 32)
#define USER_FLOOD (UINT64_C(4) << 32)
#define USER_WATCH (UINT64_C(8) << 32)

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
