/*
 * One env per shard: it speaks for the node whose engine runs.
 *
 * With stand-in signatures (standin.h), for one of so many the same digest is signed and verified for
 * real, and a spoilt one must be refused.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cursor.h"
#include "base/err.h"
#include "simulator/standin.h"
#include "simulator/world.h"

#define SIGN_NS   UINT64_C(30000) /* of public-key work on a small machine */
#define VERIFY_NS UINT64_C(45000)

static struct sim_shard *shard(struct env *env)
{
    return ((struct sim_env *)env)->shard;
}

static int64_t wall_ns(struct env *env)
{
    struct sim_shard *sh = shard(env);
    uint64_t span = sh->sim->cfg.skew_ns;
    int64_t skew = 0;

    if (span > 0)
        skew = (int64_t)rng_below(node_trait(sh->sim, sh->node, TRAIT_SKEW), 2 * span + 1) -
               (int64_t)span;
    return SIM_WALL_NS + (int64_t)sh->now_ns + skew;
}

static void fill(struct env *env, void *out, size_t n)
{
    struct sim_shard *sh = shard(env);
    struct sim_node *node = &sh->sim->nodes[sh->node];
    uint8_t *p = out;

    while (n > 0) {
        struct rng_block b =
            rng_at(sh->sim->cfg.seed, sh->node, RNG_ENGINE, node->draws[RNG_ENGINE]++);
        size_t part = n < sizeof b ? n : sizeof b;
        memcpy(p, &b, part);
        p += part;
        n -= part;
    }
}

/* The same for real, with the key that this node would have. */
static void sample(struct sim_shard *sh, const struct hash *digest)
{
    struct pk_req req = {.op = PK_SIGN, .cls = PK_CLASS_OWN, .digest = *digest};
    struct seckey random = keys_secret(sh->sim, sh->node);
    struct pk_res res;

    if (crypto_keypair(&req.sk, &req.pk, random.b) != 0)
        return;
    pk_work(&res, &req);
    req.op = PK_VERIFY;
    req.sig = res.sig;
    bool good = res.err == 0;
    pk_work(&res, &req);
    good = good && res.err == 0;
    req.digest.b[0] ^= 1;
    pk_work(&res, &req);
    sh->sum.sampled++;
    sh->sum.sampled_bad += !good || res.err != ERR_SIG;
}

static void model(struct sim_shard *sh, struct pk_res *res, const struct pk_req *req)
{
    const struct sim *s = sh->sim;

    memset(res, 0, sizeof *res);
    if (req->op == PK_SIGN) {
        standin_sign(&res->sig, s->cfg.seed, &s->keys[sh->node].pk, &req->digest);
        if (s->cfg.sample > 0 && get_be32(req->digest.b) % s->cfg.sample == 0)
            sample(sh, &req->digest);
    } else if (req->op == PK_VERIFY) {
        res->err = standin_is_good(&req->sig, s->cfg.seed, &req->pk, &req->digest) ? 0 : ERR_SIG;
    } else {
        res->err = ERR_STATE; /* the engine makes no handshakes */
    }
}

static int pk(struct env *env, struct pk_wait *wait, const struct pk_req *req)
{
    struct sim_shard *sh = shard(env);

    if (req->op == PK_SIGN)
        sh->sum.signed_++;
    else
        sh->sum.verified++;
    sh->sum.cpu_ns += req->op == PK_SIGN ? SIGN_NS : VERIFY_NS;
    if (sh->sim->cfg.signatures == SIM_SIG_REAL)
        pk_work(&wait->res, req);
    else
        model(sh, &wait->res, req);
    if (sh->sim->cfg.defect == SIM_DEFECT_NO_VERIFY && req->op == PK_VERIFY)
        wait->res.err = 0;
    return 0;
}

void simenv_sign(struct sim_shard *sh, uint32_t node, struct item *it)
{
    struct pk_wait wait = {0};
    struct pk_req req = {
        .op = PK_SIGN, .cls = PK_CLASS_OWN, .pk = it->k, .sk = keys_secret(sh->sim, node)};

    sh->node = node;
    item_digest(&req.digest, it);
    if (pk(&sh->env.env, &wait, &req) != 0 || wait.res.err != 0)
        abort();
    it->sig = wait.res.sig;
}

static void pk_cancel(struct env *env, struct pk_wait *wait)
{
    (void)env;
    wait->ticket = 0;
}

static void pk_stats(struct env *env, enum pk_class cls, struct env_pk_stats *out)
{
    (void)env;
    (void)cls;
    memset(out, 0, sizeof *out);
}

static const struct env_ops ops = {wall_ns, fill, pk, pk_cancel, pk_stats};

void simenv_init(struct sim_env *e, struct sim_shard *sh)
{
    memset(e, 0, sizeof *e);
    e->env.ops = &ops;
    e->shard = sh;
    put_be64(e->env.hash_key, rng_mix(sh->sim->cfg.seed, 1));
    put_be64(e->env.hash_key + 8, rng_mix(sh->sim->cfg.seed, 2));
}
