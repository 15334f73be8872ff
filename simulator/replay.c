/*
 * Replay: attackers that keep the first version of whatever they are given to store, and put it again
 * and again to the nodes closest to its slot, long after its owner has published newer ones: signed
 * well, only old. Whoever has a newer version refuses it; who has none, because it has just come, is
 * what the attack is about.
 */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "simulator/fixed.h"
#include "simulator/users.h"

#define KEPT        32         /* items of an attacker */
#define SHOTS       4          /* nodes that one is put to */
#define REPLAY_CALL UINT32_MAX /* no call of the engine has this number */

struct replayer {
    struct item_ref *kept[KEPT];
    uint32_t n;
};

int replay_init(struct sim *s)
{
    if (s->cfg.attack.replay_ppm == 0)
        return 0;
    s->replayers = calloc(s->cfg.nodes, sizeof(struct replayer *));
    return s->replayers != NULL ? 0 : ERR_NOMEM;
}

void replay_free(struct sim *s)
{
    for (uint32_t i = 0; s->replayers != NULL && i < s->cfg.nodes; i++) {
        struct replayer *r = s->replayers[i];
        for (uint32_t j = 0; r != NULL && j < r->n; j++)
            item_ref_put(r->kept[j]);
        free(r);
    }
    free(s->replayers);
}

void replay_schedule(struct sim_shard *sh, uint32_t node)
{
    const struct sim_cfg *c = &sh->sim->cfg;

    if (sh->sim->nodes[node].role == ROLE_REPLAY)
        node_schedule_task(sh, node, TASK_REPLAY,
                           SIM_EPOCH_NS + c->puts.start_ns +
                               rng_below(node_draw(sh, node, RNG_LOAD), c->attack.replay_every_ns));
}

void replay_see(struct sim_shard *sh, uint32_t node, const struct sim_msg *req)
{
    struct replayer **r = &sh->sim->replayers[node];

    if (req->m.method != KAD_PUT_VALUE || req->m.n_items == 0 || req->m.items[0].item == NULL)
        return;
    struct item_ref *item = req->m.items[0].item;
    if (*r == NULL)
        *r = sim_must(calloc(1, sizeof **r));
    for (uint32_t i = 0; i < (*r)->n; i++) {
        if (pubkey_equal(&(*r)->kept[i]->item.k, &item->item.k))
            return;
    }
    if ((*r)->n < KEPT)
        (*r)->kept[(*r)->n++] = item_ref_get(item);
}

static void put_again(struct sim_shard *sh, uint32_t node, struct item_ref *item)
{
    struct kad_id target = item_target(&item->item);
    struct pubkey closest[SHOTS];
    size_t n = kad_closest(sh->sim->nodes[node].kad, &target, closest, SHOTS);

    for (size_t i = 0; i < n; i++) {
        kad_peer to = sh->peers.intern(sh->peers.arg, &closest[i]);
        if (to == KAD_PEER_NONE)
            continue;
        struct sim_msg *m = wire_new(node, to, MSG_REQUEST);
        m->call = REPLAY_CALL;
        m->life = sh->sim->nodes[node].life;
        kad_msg_init(&m->m, KAD_PUT_VALUE, false);
        m->m.sender = sh->sim->keys[node].pk;
        if (kad_msg_add_item(&m->m, item, NULL) != 0)
            abort();
        sh->sum.replays++;
        wire_send(sh, m);
    }
}

void replay_shoot(struct sim_shard *sh, uint32_t node)
{
    struct sim *s = sh->sim;
    struct replayer *r = s->replayers[node];

    node_schedule_task(
        sh, node, TASK_REPLAY,
        sh->now_ns + 1 +
            fixed_exponential(node_draw(sh, node, RNG_LOAD), s->cfg.attack.replay_every_ns));
    if (r != NULL && r->n > 0 && s->nodes[node].kad != NULL)
        put_again(sh, node, r->kept[rng_below(node_draw(sh, node, RNG_LOAD), r->n)]);
}

bool replay_answered(struct sim_shard *sh, uint32_t node, const struct sim_msg *m)
{
    if (sh->sim->nodes[node].role != ROLE_REPLAY || m->call != REPLAY_CALL)
        return false;
    sh->sum.replays_taken += m->kind == MSG_ANSWER && m->m.stored;
    return true;
}
