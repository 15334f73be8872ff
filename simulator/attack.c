/*
 * Attackers run the engine like everybody, so that they are in the tables; what they do beside it is
 * here. Mute: takes requests and never answers. Wrong: answers look-ups of values with an item that
 * is not what was asked for, half of them forged under the owner's key, half their own. Stale: keeps
 * the first version of every item that it was given, says "stored" to newer ones, and serves it.
 */
#include <string.h>

#include "base/err.h"
#include "simulator/world.h"

static void answer_with(struct sim_shard *sh, const struct sim_msg *req, struct item_ref *item)
{
    struct sim_msg *m = wire_new(req->to, req->from, MSG_ANSWER);

    m->call = req->call;
    m->life = req->life;
    kad_msg_init(&m->m, KAD_GET_VALUE, true);
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
    struct sim_msg *m = wire_new(req->to, req->from, MSG_ANSWER);
    m->call = req->call;
    m->life = req->life;
    kad_msg_init(&m->m, KAD_PUT_VALUE, true);
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
    }
    if (!done)
        return false;
    sh->sum.others++;
    wire_free(m);
    return true;
}
