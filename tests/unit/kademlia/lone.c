#include "tests/unit/kademlia/lone.h"

#include <string.h>

#include "base/cursor.h"
#include "tests/unit/vectors.h"

#define TOKEN 77

void lone_init(struct lone *l, uint64_t seed)
{
    memset(l, 0, sizeof *l);
    env_test_init(&l->env, seed);
    peers_init(&l->peers);
    l->now_ns = NS_PER_S;
    l->cfg.self = lone_key(0, &l->cfg.sk);
}

struct pubkey lone_key(unsigned number, struct seckey *sk)
{
    struct seckey dropped;
    struct pubkey pk;
    uint8_t seed[32] = {7};

    put_be32(seed + 1, number);
    assert_int_equal(crypto_keypair(sk != NULL ? sk : &dropped, &pk, seed), 0);
    return pk;
}

void lone_start(struct lone *l, struct store *store)
{
    const struct kad_hooks none = {0};

    l->store = store;
    assert_int_equal(kad_new(&l->kad, &l->cfg, &l->env.env, store, &l->peers.ops, &none, l->now_ns),
                     0);
}

void lone_stop(struct lone *l)
{
    kad_free(l->kad);
    l->kad = NULL;
}

void lone_close(struct lone *l)
{
    lone_stop(l);
    l->store->ops->close(l->store);
    peers_close(&l->peers);
    env_test_close(&l->env);
}

void lone_tick(struct lone *l)
{
    struct kad_act a;

    kad_tick(l->kad, l->now_ns);
    while (env_test_run(&l->env, 100) > 0)
        continue;
    while (kad_next(l->kad, &a))
        kad_act_clear(&a);
}

void lone_pass(struct lone *l, int64_t ns)
{
    l->now_ns += (uint64_t)ns;
    l->env.wall_ns += ns;
    lone_tick(l);
}

bool lone_ask(struct lone *l, kad_peer from, struct kad_msg *req, struct kad_msg *rsp)
{
    struct kad_act a;
    bool done = false, answered = false;

    kad_request(l->kad, from, req, TOKEN, l->now_ns);
    while (env_test_run(&l->env, 100) > 0)
        continue;
    while (kad_next(l->kad, &a)) {
        bool ours = (a.type == KAD_ACT_REPLY || a.type == KAD_ACT_REFUSE) && a.token == TOKEN;
        if (ours && a.type == KAD_ACT_REPLY) {
            *rsp = a.msg;
            memset(&a.msg, 0, sizeof a.msg);
            answered = true;
        }
        done |= ours;
        kad_act_clear(&a);
    }
    assert_true(done);
    return answered;
}
