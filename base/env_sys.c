#include "base/env_sys.h"

#include <string.h>
#include <time.h>

#include <sodium.h>

#include "base/list.h"

/* The clocks asked for here exist on every kernel that we run on, so there is no failure to report.
 */
static int64_t clock_ns(clockid_t id)
{
    struct timespec ts = {0};

    clock_gettime(id, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

uint64_t env_sys_mono_ns(void)
{
    return (uint64_t)clock_ns(CLOCK_MONOTONIC);
}

int64_t env_sys_wall_ns(struct env *env)
{
    (void)env;
    return clock_ns(CLOCK_REALTIME);
}

void env_sys_random(struct env *env, void *out, size_t n)
{
    (void)env;
    randombytes_buf(out, n);
}

static int sys_pk(struct env *env, struct pk_wait *wait, const struct pk_req *req)
{
    struct env_sys *sys = container_of(env, struct env_sys, env);

    sys->stats[req->cls].submitted++;
    pk_work(&wait->res, req);
    return 0;
}

/* Nothing is ever under way. */
static void sys_pk_cancel(struct env *env, struct pk_wait *wait)
{
    (void)env;
    wait->ticket = 0;
}

static void sys_pk_stats(struct env *env, enum pk_class cls, struct env_pk_stats *out)
{
    struct env_sys *sys = container_of(env, struct env_sys, env);

    *out = sys->stats[cls];
}

static const struct env_ops sys_ops = {
    .wall_ns = env_sys_wall_ns,
    .random = env_sys_random,
    .pk = sys_pk,
    .pk_cancel = sys_pk_cancel,
    .pk_stats = sys_pk_stats,
};

int env_sys_init(struct env_sys *sys)
{
    int rc = crypto_init();
    if (rc != 0)
        return rc;
    memset(sys, 0, sizeof *sys);
    sys->env.ops = &sys_ops;
    randombytes_buf(sys->env.hash_key, sizeof sys->env.hash_key);
    return 0;
}
