#include "base/env.h"

#include <assert.h>
#include <string.h>

#include <sodium.h>

#include "base/err.h"

uint64_t env_random_below(struct env *env, uint64_t bound)
{
    assert(bound > 0);
    /* The 2^64 mod bound lowest numbers would make some results likelier: draw again for those. */
    uint64_t v, uneven = (0 - bound) % bound;

    do {
        env_random(env, &v, sizeof v);
    } while (v < uneven);
    return v % bound;
}

uint64_t env_jitter_ns(struct env *env, uint64_t base_ns, unsigned percent)
{
    assert(percent <= 100);
    uint64_t span = base_ns / 100 * percent + base_ns % 100 * percent / 100;
    uint64_t low = base_ns - span;

    /* Times near the end of the range (LOOP_NEVER) stay there instead of wrapping around. */
    if (span > UINT64_MAX / 2 - 1 || low > UINT64_MAX - 2 * span)
        return base_ns;
    return low + env_random_below(env, 2 * span + 1);
}

int env_pk(struct env *env, struct pk_wait *wait, const struct pk_req *req)
{
    assert(wait->done != NULL && wait->ticket == 0);
    assert(req->cls < PK_CLASS__COUNT);
    int rc = env->ops->pk(env, wait, req);
    assert(rc == 0 || rc == ERR_PENDING || rc == ERR_BUSY);
    assert((rc == ERR_PENDING) == (wait->ticket != 0));
    return rc;
}

void env_pk_cancel(struct env *env, struct pk_wait *wait)
{
    if (wait->ticket != 0)
        env->ops->pk_cancel(env, wait);
    assert(wait->ticket == 0);
    pk_wait_wipe(wait);
}

void pk_wait_wipe(struct pk_wait *wait)
{
    sodium_memzero(&wait->res, sizeof wait->res);
}

static int work_ephemeral(struct pk_res *res, const struct pk_req *req)
{
    int rc = seckey_pubkey(&res->pub, &req->sk);
    if (rc == 0 && !pubkey_is_null(&req->pk))
        rc = crypto_ecdh(res->shared[0], &req->sk, &req->pk);
    if (rc == 0 && !pubkey_is_null(&req->pk2))
        rc = crypto_ecdh(res->shared[1], &req->sk, &req->pk2);
    return rc;
}

static int work(struct pk_res *res, const struct pk_req *req)
{
    switch (req->op) {
    case PK_ECDH:
        return crypto_ecdh(res->shared[0], &req->sk, &req->pk);
    case PK_EPHEMERAL:
        return work_ephemeral(res, req);
    case PK_SIGN:
        return crypto_sign_digest(&res->sig, &req->sk, &req->digest);
    case PK_VERIFY:
        return crypto_verify_digest(&req->pk, &req->sig, &req->digest);
    }
    assert(false && "unknown operation");
    return ERR_STATE;
}

void pk_work(struct pk_res *res, const struct pk_req *req)
{
    memset(res, 0, sizeof *res);
    int rc = work(res, req);
    if (rc != 0)
        sodium_memzero(res, sizeof *res); /* half a result is none */
    res->err = rc;
}

void env_keypair(struct env *env, struct seckey *sk, struct pubkey *pk)
{
    uint8_t draw[32];

    do {
        env_random(env, draw, sizeof draw);
    } while (crypto_keypair(sk, pk, draw) != 0);
    sodium_memzero(draw, sizeof draw);
}
