/* drive_env: the pool for public-key work, and the clock. */
#include <pthread.h>

#include "base/err.h"
#include "tests/unit/transport/drive_world.h"
#include "transport/drive_env.h"

struct work {
    struct pk_wait wait;
    unsigned done;
    pthread_t on;
};

static void on_work(struct pk_wait *w)
{
    struct work *k = container_of(w, struct work, wait);
    k->done++;
    k->on = pthread_self();
}

static bool work_done(void *arg)
{
    return ((struct work *)arg)->done > 0;
}

static struct pk_req sign_request(const struct seckey *sk, enum pk_class cls)
{
    struct pk_req req = {.op = PK_SIGN, .cls = cls, .sk = *sk};
    memset(req.digest.b, 7, sizeof req.digest.b);
    return req;
}

static void test_pool_results(void **state)
{
    struct drive_world *f = *state;
    struct pk_pool *pool = pk_pool_new(2, 64);
    struct env *env = drive_env_new(pool, f->drive);
    struct seckey sk;
    struct pubkey pk;
    assert_int_equal(crypto_init(), 0);
    env_keypair(env, &sk, &pk);
    struct work *w = calloc(40, sizeof *w);
    for (int i = 0; i < 40; i++) {
        struct pk_req req = sign_request(&sk, (enum pk_class)(i % PK_CLASS__COUNT));
        w[i].wait.done = on_work;
        assert_int_equal(env_pk(env, &w[i].wait, &req), ERR_PENDING);
    }
    for (int i = 0; i < 40; i++) {
        struct hash digest;
        memset(digest.b, 7, sizeof digest.b);
        dw_wait(f, work_done, &w[i]);
        assert_int_equal(w[i].done, 1);
        assert_int_equal(w[i].wait.res.err, 0);
        assert_int_equal(crypto_verify_digest(&pk, &w[i].wait.res.sig, &digest), 0);
        assert_true(pthread_equal(w[i].on, pthread_self())); /* on the loop's thread */
        assert_int_equal(w[i].wait.ticket, 0);
        pk_wait_wipe(&w[i].wait);
    }
    struct env_pk_stats st;
    env->ops->pk_stats(env, PK_CLASS_ITEM, &st);
    assert_int_equal(st.submitted, 10);
    assert_int_equal(st.queued, 0);
    free(w);
    drive_env_free(env);
    pk_pool_free(pool);
}

/* A class is full until answers are delivered: refused and counted, other classes go on. */
static void test_pool_full(void **state)
{
    struct drive_world *f = *state;
    struct pk_pool *pool = pk_pool_new(1, 4);
    struct env *env = drive_env_new(pool, f->drive);
    struct seckey sk;
    struct pubkey pk;
    struct work w[6];
    struct env_pk_stats st;
    memset(w, 0, sizeof w);
    env_keypair(env, &sk, &pk);
    struct pk_req session = sign_request(&sk, PK_CLASS_SESSION),
                  stream = sign_request(&sk, PK_CLASS_STREAM);
    for (int i = 0; i < 6; i++)
        w[i].wait.done = on_work;
    for (int i = 0; i < 4; i++)
        assert_int_equal(env_pk(env, &w[i].wait, &session), ERR_PENDING);
    assert_int_equal(env_pk(env, &w[4].wait, &session), ERR_BUSY);
    assert_int_equal(w[4].wait.ticket, 0);
    assert_int_equal(env_pk(env, &w[4].wait, &session), ERR_BUSY);
    assert_int_equal(env_pk(env, &w[5].wait, &stream), ERR_PENDING);
    env->ops->pk_stats(env, PK_CLASS_SESSION, &st);
    assert_int_equal(st.queued, 4);
    assert_int_equal(st.submitted, 4);
    assert_int_equal(st.dropped, 2);
    dw_wait(f, work_done, &w[3]);
    dw_wait(f, work_done, &w[5]);
    assert_int_equal(env_pk(env, &w[4].wait, &session), ERR_PENDING);
    dw_wait(f, work_done, &w[4]);
    drive_env_free(env);
    pk_pool_free(pool);
}

/* Cancelled work is never answered, wherever it was; the wait can be used again at once. */
static void test_pool_cancel(void **state)
{
    struct drive_world *f = *state;
    struct pk_pool *pool = pk_pool_new(1, 64);
    struct env *env = drive_env_new(pool, f->drive);
    struct seckey sk;
    struct pubkey pk;
    struct work w[40];
    memset(w, 0, sizeof w);
    env_keypair(env, &sk, &pk);
    struct pk_req req = sign_request(&sk, PK_CLASS_STREAM);
    for (int i = 0; i < 40; i++) {
        w[i].wait.done = on_work;
        assert_int_equal(env_pk(env, &w[i].wait, &req), ERR_PENDING);
        if (i % 2 == 0) {
            env_pk_cancel(env, &w[i].wait);
            env_pk_cancel(env, &w[i].wait);
        }
    }
    dw_wait(f, work_done, &w[39]);
    for (int i = 0; i < 40; i++)
        assert_int_equal(w[i].done, i % 2);
    assert_int_equal(env_pk(env, &w[0].wait, &req), ERR_PENDING);
    dw_wait(f, work_done, &w[0]);
    /* Freed while cancelled work is under way. */
    for (int i = 0; i < 20; i++) {
        assert_int_equal(env_pk(env, &w[i].wait, &req), ERR_PENDING);
        env_pk_cancel(env, &w[i].wait);
    }
    drive_env_free(env);
    pk_pool_free(pool);
    for (int i = 0; i < 20; i++)
        assert_true(w[i].done <= 1);
}

/* A flood of handshakes does not delay stream set-up, let alone our own signatures (incident 31). */
#define FLOOD 4000

struct flood {
    struct work session[FLOOD], stream, own;
    unsigned done, stream_at, own_at;
};

static struct flood *the_flood;

static void on_flood(struct pk_wait *w)
{
    struct flood *fl = the_flood;
    fl->done++;
    if (w == &fl->stream.wait)
        fl->stream_at = fl->done;
    if (w == &fl->own.wait)
        fl->own_at = fl->done;
}

static bool flood_done(void *arg)
{
    return ((struct flood *)arg)->done == FLOOD + 2;
}

static void test_pool_is_fair(void **state)
{
    struct drive_world *f = *state;
    struct pk_pool *pool = pk_pool_new(1, FLOOD);
    struct env *env = drive_env_new(pool, f->drive);
    struct flood *fl = calloc(1, sizeof *fl);
    struct seckey sk;
    struct pubkey pk;
    env_keypair(env, &sk, &pk);
    the_flood = fl;
    for (int i = 0; i < FLOOD + 2; i++) {
        struct work *w = i < FLOOD ? &fl->session[i] : i == FLOOD ? &fl->stream : &fl->own;
        struct pk_req req = sign_request(&sk, i < FLOOD    ? PK_CLASS_SESSION
                                              : i == FLOOD ? PK_CLASS_STREAM
                                                           : PK_CLASS_OWN);
        w->wait.done = on_flood;
        assert_int_equal(env_pk(env, &w->wait, &req), ERR_PENDING);
    }
    dw_wait(f, flood_done, fl);
    assert_in_range(fl->stream_at, 1, FLOOD); /* first come would be first served at FLOOD + 1 */
    assert_in_range(fl->own_at, 1, FLOOD);
    free(fl);
    drive_env_free(env);
    pk_pool_free(pool);
}

static void test_clock_offset(void **state)
{
    struct drive_world *f = *state;
    struct pk_pool *pool = pk_pool_new(1, 4);
    struct env *env = drive_env_new(pool, f->drive);
    int64_t before = env_wall_ns(env);
    drive_env_set_clock_offset(env, -INT64_C(3600000000000));
    assert_true(env_wall_ns(env) < before);
    uint8_t a[32] = {0}, b[32] = {0};
    env_random(env, a, sizeof a);
    env_random(env, b, sizeof b);
    assert_memory_not_equal(a, b, sizeof a);
    drive_env_free(env);
    pk_pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, dw_setup, dw_teardown)
        T(test_pool_results), T(test_pool_full),    T(test_pool_cancel),
        T(test_pool_is_fair), T(test_clock_offset),
#undef T
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
