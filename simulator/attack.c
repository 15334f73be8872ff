/*
 * Attackers run the engine like everybody, so that they are in the tables; what they do beside it is
 * here. Mute: takes requests and never answers. Wrong: answers look-ups of values with an item that
 * is not what was asked for, half of them forged under the owner's key, half their own. Stale: keeps
 * the first version of every item that it was given, says "stored" to newer ones, and serves it.
 * Slow: like everybody, but each answer comes late (wire.c). Poison: names other attackers instead of
 * who is close, and no value. Flood: stores item after item (load.c). Eclipse: has an ID close to one
 * item's target, says "stored" to it and throws it away, and names only its own kind to whoever asks.
 */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "simulator/users.h"

enum role attack_role(const struct sim *s, uint32_t node)
{
    uint64_t r = rng_below(node_trait(s, node, TRAIT_ROLE), SIM_MILLION);
    const uint32_t share[] = {s->cfg.attack.mute_ppm,   s->cfg.attack.wrong_ppm,
                              s->cfg.attack.stale_ppm,  s->cfg.attack.slow_ppm,
                              s->cfg.attack.poison_ppm, s->cfg.attack.flood_ppm,
                              s->cfg.attack.replay_ppm};

    if (full_is_liar(s, node))
        return ROLE_LIAR;
    if (node < full_behind(&s->cfg))
        return ROLE_HONEST;
    if (node - full_behind(&s->cfg) < s->cfg.attack.eclipse)
        return ROLE_ECLIPSE;
    for (unsigned i = 0; i < sizeof share / sizeof share[0]; i++) {
        if (r < share[i])
            return (enum role)(ROLE_MUTE + i);
        r -= share[i];
    }
    return ROLE_HONEST;
}

/* As if enough keys had been tried: 2^bits for each attacker. */
static void grind_id(struct sim *s, uint32_t node)
{
    uint8_t *id = s->keys[node].id.b;

    for (uint32_t bit = 0; bit < s->cfg.attack.eclipse_bits; bit++) {
        uint8_t mask = (uint8_t)(0x80u >> bit % 8);
        id[bit / 8] = (uint8_t)((id[bit / 8] & ~mask) | (s->victim.b[bit / 8] & mask));
    }
}

int attack_init(struct sim *s)
{
    s->attackers = calloc(s->cfg.nodes, sizeof *s->attackers);
    if (s->attackers == NULL)
        return ERR_NOMEM;
    if (s->n_publishers > 0)
        s->victim = kad_target(&s->keys[s->publishers[0]].pk, SIM_SALT, 3);
    for (uint32_t i = 0; i < s->cfg.nodes; i++) {
        enum role role = (enum role)s->nodes[i].role;
        if (role == ROLE_ECLIPSE)
            grind_id(s, i);
        if (role == ROLE_ECLIPSE || role == ROLE_POISON)
            s->attackers[s->n_attackers++] = i;
    }
    return 0;
}

static struct sim_msg *reply_to(const struct sim_msg *req)
{
    struct sim_msg *m = wire_new(req->to, req->from, MSG_ANSWER);

    m->call = req->call;
    m->life = req->life;
    kad_msg_init(&m->m, req->m.method, true);
    return m;
}

/* An answer that names up to k of our own. */
static bool name_ours(struct sim_shard *sh, uint32_t node, const struct sim_msg *req)
{
    const struct sim *s = sh->sim;
    size_t k = s->limits.k != 0 ? s->limits.k : KAD_K;

    if (req->m.method != KAD_FIND_NODE && req->m.method != KAD_GET_VALUE)
        return false;
    struct sim_msg *m = reply_to(req);
    uint32_t first = (uint32_t)rng_below(node_draw(sh, node, RNG_NET), s->n_attackers);
    m->m.n_closest = k < s->n_attackers ? k : s->n_attackers;
    m->m.closest = sim_must(calloc(m->m.n_closest, sizeof *m->m.closest));
    for (uint32_t i = 0; i < m->m.n_closest; i++)
        m->m.closest[i] = s->keys[s->attackers[(first + i) % s->n_attackers]].pk;
    wire_send(sh, m);
    return true;
}

static bool hide(struct sim_shard *sh, uint32_t node, const struct sim_msg *req)
{
    const struct sim *s = sh->sim;

    if (req->m.method != KAD_PUT_VALUE)
        return kad_id_equal(&req->m.target, &s->victim) && name_ours(sh, node, req);
    if (req->m.n_items == 0 || req->m.items[0].item == NULL)
        return false;
    struct kad_id target = item_target(&req->m.items[0].item->item);
    if (!kad_id_equal(&target, &s->victim))
        return false;
    struct sim_msg *m = reply_to(req);
    m->m.stored = true;
    wire_send(sh, m);
    return true;
}

static void answer_with(struct sim_shard *sh, const struct sim_msg *req, struct item_ref *item)
{
    struct sim_msg *m = reply_to(req);

    if (kad_msg_add_item(&m->m, item, NULL) == 0)
        wire_send(sh, m);
    else
        wire_free(m);
}

/* The owner's item with another value and a number that beats everything, its signature unchanged; or
 * an item of our own for a question that was not about us. */
static bool forge(struct sim_shard *sh, uint32_t node, const struct sim_msg *req)
{
    struct sim_node *n = &sh->sim->nodes[node];
    static const uint8_t lie[] = "something else";
    struct item it = {
        .v = lie, .v_len = sizeof lie, .salt = (const uint8_t *)SIM_SALT, .salt_len = 3};
    struct store_rec r;
    bool known = n->store->ops->get(n->store, &req->m.target, ITEM_OWNER, &r) == 0;

    it.k = known ? r.item.k : sh->sim->keys[node].pk;
    if (known) {
        it.salt = r.item.salt;
        it.salt_len = r.item.salt_len;
    }
    it.seq = known ? r.item.seq + 1000000 : (uint64_t)SIM_WALL_NS;
    if (known)
        it.sig = r.item.sig;
    struct item_ref *item = item_ref_new(&it);
    if (item == NULL)
        return false;
    answer_with(sh, req, item);
    item_ref_put(item);
    return true;
}

/* A newer version of what is there already: taken, and forgotten. */
static bool keep_old(struct sim_shard *sh, uint32_t node, const struct sim_msg *req)
{
    struct sim_node *n = &sh->sim->nodes[node];
    struct store_rec r;

    if (req->m.n_items == 0 || req->m.items[0].item == NULL)
        return false;
    struct kad_id target = item_target(&req->m.items[0].item->item);
    if (n->store->ops->get(n->store, &target, ITEM_OWNER, &r) != 0)
        return false;
    struct sim_msg *m = reply_to(req);
    m->m.stored = true;
    wire_send(sh, m);
    return true;
}

bool attack_request(struct sim_shard *sh, uint32_t node, struct sim_msg *m)
{
    bool done = false;

    switch ((enum role)sh->sim->nodes[node].role) {
    case ROLE_HONEST:
        break;
    case ROLE_MUTE:
        done = true;
        break;
    case ROLE_WRONG:
        done = m->m.method == KAD_GET_VALUE && forge(sh, node, m);
        break;
    case ROLE_STALE:
        done = m->m.method == KAD_PUT_VALUE && keep_old(sh, node, m);
        break;
    case ROLE_POISON:
        done = name_ours(sh, node, m);
        break;
    case ROLE_ECLIPSE:
        done = hide(sh, node, m);
        break;
    case ROLE_LIAR:
        done = full_lie(sh, node, m);
        break;
    case ROLE_REPLAY:
        replay_see(sh, node, m);
        break;
    case ROLE_SLOW:
    case ROLE_FLOOD:
        break;
    }
    if (!done)
        return false;
    sh->sum.others++;
    wire_free(m);
    return true;
}
