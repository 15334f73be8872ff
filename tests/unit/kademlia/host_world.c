#include "tests/unit/kademlia/host_world.h"

#include "store/memory.h"

void host_world_init(struct host_world *hw)
{
    memset(hw, 0, sizeof *hw);
    world_init(&hw->w);
    for (int i = 0; i < WORLD_CLIENTS; i++) {
        hw->node[i].hw = hw;
        hw->node[i].i = i;
    }
}

void host_world_free(struct host_world *hw)
{
    for (int i = 0; i < WORLD_CLIENTS; i++)
        hw_stop(hw, i);
    world_free(&hw->w);
}

static void on_report(void *arg, const struct kad_report *r)
{
    struct hw_node *n = arg;
    if (n->take != NULL && n->take(n->arg, r))
        return;
    if (r->user != n)
        return; /* the engine's own */
    n->op = r->op;
    n->err = r->err;
    n->stored = r->stored;
    n->asked = r->asked;
    n->source = r->source;
    n->reports++;
    n->value[0] = '\0';
    if (r->item != NULL)
        snprintf(n->value, sizeof n->value, "%.*s", (int)r->item->item.v_len,
                 (const char *)r->item->item.v);
}

static void on_stored(void *arg, const struct store_rec *rec)
{
    struct hw_node *n = arg;
    assert_true(rec->item.v_len > 0);
    n->accepted++;
}

void hw_start(struct host_world *hw, int i, const struct pubkey *bootstrap,
              const struct client_cfg *cfg)
{
    struct hw_node *n = &hw->node[i];
    struct world_client *c = &hw->w.client[i];
    world_client_start(&hw->w, i, cfg);
    world_join(&hw->w, i, 0);
    assert_int_equal(store_memory_new(&n->store, 64 << 20), 0);
    struct kad_cfg kad = {.self = c->key.pk,
                          .sk = c->key.sk,
                          .full = true,
                          .network = kad_network_tag(n->network),
                          .bootstrap = bootstrap,
                          .n_bootstrap = bootstrap != NULL};
    struct host_cfg host = {.env = &hw->w.env.env,
                            .loop = &hw->w.net.loop,
                            .client = c->c,
                            .store = n->store,
                            .kad = &kad,
                            .report = on_report,
                            .stored = on_stored,
                            .json_only = n->json_only,
                            .max_dialled = n->max_dialled,
                            .arg = n};
    assert_int_equal(host_new(&n->h, &host), 0);
}

void hw_stop(struct host_world *hw, int i)
{
    struct hw_node *n = &hw->node[i];
    if (n->h == NULL)
        return;
    host_free(n->h);
    n->h = NULL;
    world_client_stop(&hw->w, i);
    n->store->ops->close(n->store);
}

struct kad *hw_kad(struct host_world *hw, int i)
{
    return host_kad(hw->node[i].h);
}

struct op_wait {
    struct hw_node *n;
    uint32_t op;
};

static bool has_ended(void *arg)
{
    struct op_wait *w = arg;
    return w->n->op == w->op;
}

int hw_wait(struct host_world *hw, int i, uint32_t op)
{
    struct op_wait w = {&hw->node[i], op};
    assert_true(op != 0);
    host_kick(w.n->h);
    world_until(&hw->w, has_ended, &w);
    return w.n->err;
}

int hw_get(struct host_world *hw, int i, const struct pubkey *pk, const char *salt, unsigned flags)
{
    return hw_wait(
        hw, i,
        kad_get(hw_kad(hw, i), pk, salt, strlen(salt), flags, &hw->node[i], pipe_now(&hw->w.net)));
}

int hw_put(struct host_world *hw, int i, const char *salt, const char *value)
{
    return hw_wait(hw, i,
                   kad_put(hw_kad(hw, i), salt, strlen(salt), value, strlen(value), false, 0,
                           &hw->node[i], pipe_now(&hw->w.net)));
}

struct peers_wait {
    struct kad *k;
    size_t n;
};

static bool has_peers(void *arg)
{
    struct peers_wait *w = arg;
    struct kad_stat st;
    kad_stat(w->k, &st);
    return st.routing_peers == w->n;
}

void hw_peers(struct host_world *hw, int i, size_t n)
{
    struct peers_wait w = {hw_kad(hw, i), n};
    world_until(&hw->w, has_peers, &w);
}
