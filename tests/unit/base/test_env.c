#include "base/env.h"

#include <time.h>

#include "base/env_sys.h"
#include "base/env_test.h"
#include "base/err.h"
#include "base/list.h"
#include "tests/unit/vectors.h"

struct asker {
    struct pk_wait wait;
    int done;              /* callbacks seen */
    struct asker *cancels; /* what the callback cancels */
    struct env *env;
    bool again; /* the callback asks once more */
};

static void fill(struct pk_req *req, enum pk_op op, enum pk_class cls)
{
    memset(req, 0, sizeof *req);
    req->op = op;
    req->cls = cls;
    assert_int_equal(crypto_keypair_from_seed(&req->sk, &req->pk, (const uint8_t *)"env", 3), 0);
    crypto_sha256(&req->digest, "m", 1);
    assert_int_equal(crypto_sign_digest(&req->sig, &req->sk, &req->digest), 0);
}

static void on_done(struct pk_wait *w)
{
    struct asker *a = container_of(w, struct asker, wait);
    struct pk_req req;

    a->done++;
    if (a->cancels != NULL)
        env_pk_cancel(a->env, &a->cancels->wait);
    if (a->again) {
        a->again = false;
        fill(&req, PK_ECDH, PK_CLASS_ITEM);
        assert_int_equal(env_pk(a->env, w, &req), ERR_PENDING);
    }
}

static void asker_init(struct asker *a, struct env *env)
{
    memset(a, 0, sizeof *a);
    a->wait.done = on_done;
    a->env = env;
}

static void test_random_below(void **state)
{
    struct env_test t;
    size_t seen[7] = {0};

    (void)state;
    env_test_init(&t, 1);
    for (int i = 0; i < 7000; i++) {
        uint64_t v = env_random_below(&t.env, 7);
        assert_true(v < 7);
        seen[v]++;
    }
    for (int i = 0; i < 7; i++) /* ±6 standard deviations; the seed is fixed */
        assert_in_range(seen[i], 820, 1180);
    assert_true(env_random_below(&t.env, 1) == 0);
    /* 2^64 mod bound = bound - 2: the draws below that are refused. */
    uint64_t bound = (UINT64_C(1) << 63) + 1, low = 5, high = UINT64_MAX;
    env_test_script(&t, &low, sizeof low);
    env_test_script(&t, &high, sizeof high);
    assert_true(env_random_below(&t.env, bound) == high % bound);
    env_test_close(&t);
}

static void test_jitter(void **state)
{
    struct env_test t;
    uint64_t low = UINT64_MAX, high = 0;

    (void)state;
    env_test_init(&t, 2);
    for (int i = 0; i < 5000; i++) {
        uint64_t v = env_jitter_ns(&t.env, 1000, 10);
        low = v < low ? v : low;
        high = v > high ? v : high;
    }
    assert_int_equal(low, 900);
    assert_int_equal(high, 1100);
    assert_int_equal(env_jitter_ns(&t.env, 1000, 0), 1000);
    assert_int_equal(env_jitter_ns(&t.env, 0, 100), 0);
    assert_true(env_jitter_ns(&t.env, UINT64_MAX, 10) == UINT64_MAX);
    assert_true(env_jitter_ns(&t.env, UINT64_MAX, 100) == UINT64_MAX);
    for (int i = 0; i < 100; i++)
        assert_true(env_jitter_ns(&t.env, 1000, 100) <= 2000);
    env_test_close(&t);
}

/* All operations, good and bad, by pk_work() as every implementation calls it. */
static void test_work(void **state)
{
    struct pk_req req;
    struct pk_res res;
    uint8_t shared[32];
    const uint8_t zero[32] = {0};

    (void)state;
    fill(&req, PK_ECDH, PK_CLASS_SESSION);
    assert_int_equal(crypto_ecdh(shared, &req.sk, &req.pk), 0);
    pk_work(&res, &req);
    assert_int_equal(res.err, 0);
    assert_memory_equal(res.shared[0], shared, 32);

    req.op = PK_EPHEMERAL;
    pk_work(&res, &req);
    assert_int_equal(res.err, 0);
    assert_true(pubkey_equal(&res.pub, &req.pk));
    assert_memory_equal(res.shared[0], shared, 32);
    assert_memory_equal(res.shared[1], zero, 32); /* pk2 is null: skipped */
    req.pk2 = req.pk;
    memset(&req.pk, 0, sizeof req.pk);
    pk_work(&res, &req);
    assert_memory_equal(res.shared[0], zero, 32);
    assert_memory_equal(res.shared[1], shared, 32);
    req.pk2.b[0] = 9;
    pk_work(&res, &req);
    assert_int_equal(res.err, ERR_KEY);
    assert_true(pubkey_is_null(&res.pub));

    fill(&req, PK_SIGN, PK_CLASS_OWN);
    pk_work(&res, &req);
    assert_int_equal(res.err, 0);
    assert_memory_equal(&res.sig, &req.sig, sizeof req.sig);
    req.op = PK_VERIFY;
    pk_work(&res, &req);
    assert_int_equal(res.err, 0);
    req.sig.b[3] ^= 1;
    pk_work(&res, &req);
    assert_int_equal(res.err, ERR_SIG);
}

static void test_immediate(void **state)
{
    struct env_sys sys;
    struct env_test t;
    struct asker a;
    struct pk_req req;
    struct env_pk_stats st;

    (void)state;
    assert_int_equal(env_sys_init(&sys), 0);
    env_test_init(&t, 3);
    fill(&req, PK_VERIFY, PK_CLASS_STREAM);
    struct env *envs[] = {&sys.env, &t.env};
    for (size_t i = 0; i < 2; i++) {
        asker_init(&a, envs[i]);
        assert_int_equal(env_pk(envs[i], &a.wait, &req), 0);
        assert_int_equal(a.wait.res.err, 0);
        assert_int_equal(a.done, 0); /* never from inside */
        envs[i]->ops->pk_stats(envs[i], PK_CLASS_STREAM, &st);
        assert_int_equal(st.submitted, 1);
        assert_int_equal(st.queued, 0);
        env_pk_cancel(envs[i], &a.wait); /* harmless */
        env_pk_cancel(envs[i], &a.wait);
    }
    assert_int_equal(t.ops[PK_VERIFY], 1);
    t.pk_cap = 0;
    assert_int_equal(env_pk(&t.env, &a.wait, &req), ERR_BUSY);
    env_test_close(&t);
}

static void test_deferred(void **state)
{
    struct env_test t;
    struct asker a[3];
    struct pk_req req;
    struct env_pk_stats st;

    (void)state;
    env_test_init(&t, 4);
    t.deferred = true;
    t.pk_cap = 2;
    fill(&req, PK_EPHEMERAL, PK_CLASS_SESSION);
    for (int i = 0; i < 3; i++)
        asker_init(&a[i], &t.env);
    assert_int_equal(env_pk(&t.env, &a[0].wait, &req), ERR_PENDING);
    assert_int_equal(env_pk(&t.env, &a[1].wait, &req), ERR_PENDING);
    assert_int_equal(env_pk(&t.env, &a[2].wait, &req), ERR_BUSY);
    assert_int_equal(a[2].wait.ticket, 0);
    /* A full class does not push out another one. */
    req.cls = PK_CLASS_OWN;
    assert_int_equal(env_pk(&t.env, &a[2].wait, &req), ERR_PENDING);
    t.env.ops->pk_stats(&t.env, PK_CLASS_SESSION, &st);
    assert_int_equal(st.submitted, 2);
    assert_int_equal(st.dropped, 1);
    assert_int_equal(st.queued, 2);
    assert_int_equal(t.keygen, 3);
    assert_int_equal(t.ecdh, 3);
    assert_int_equal(a[0].done + a[1].done + a[2].done, 0);

    assert_int_equal(env_test_run(&t, 1), 1);
    assert_int_equal(a[0].done, 1);
    assert_true(pubkey_equal(&a[0].wait.res.pub, &req.pk));
    assert_int_equal(env_test_queued(&t), 2);
    pk_wait_wipe(&a[0].wait);
    assert_true(pubkey_is_null(&a[0].wait.res.pub));

    env_pk_cancel(&t.env, &a[1].wait);
    env_pk_cancel(&t.env, &a[1].wait);
    t.env.ops->pk_stats(&t.env, PK_CLASS_SESSION, &st);
    assert_int_equal(st.queued, 0);
    assert_int_equal(env_test_run(&t, 10), 1);
    assert_int_equal(a[1].done, 0);
    assert_int_equal(a[2].done, 1);
    assert_int_equal(env_test_run(&t, 10), 0);
    env_test_close(&t);
}

/* A callback that cancels another request and asks again. */
static void test_callback_acts(void **state)
{
    struct env_test t;
    struct asker a[2];
    struct pk_req req;

    (void)state;
    env_test_init(&t, 5);
    t.deferred = true;
    fill(&req, PK_SIGN, PK_CLASS_ITEM);
    for (int i = 0; i < 2; i++) {
        asker_init(&a[i], &t.env);
        assert_int_equal(env_pk(&t.env, &a[i].wait, &req), ERR_PENDING);
    }
    a[0].cancels = &a[1];
    a[0].again = true;
    assert_int_equal(env_test_run(&t, 10), 2);
    assert_int_equal(a[0].done, 2);
    assert_int_equal(a[1].done, 0);
    env_test_close(&t);
}

static void test_shuffle(void **state)
{
    struct env_test t;
    struct asker a[8];
    struct pk_req req;
    bool out_of_order = false;

    (void)state;
    env_test_init(&t, 6);
    t.deferred = t.shuffle = true;
    fill(&req, PK_SIGN, PK_CLASS_ITEM);
    for (int i = 0; i < 8; i++) {
        asker_init(&a[i], &t.env);
        assert_int_equal(env_pk(&t.env, &a[i].wait, &req), ERR_PENDING);
    }
    for (int n = 0; n < 8; n++) {
        assert_int_equal(env_test_run(&t, 1), 1);
        out_of_order = out_of_order || !a[n].done;
    }
    for (int i = 0; i < 8; i++)
        assert_int_equal(a[i].done, 1);
    assert_true(out_of_order);
    env_test_close(&t);
}

static void test_random_stream(void **state)
{
    struct env_test t, u, w;
    uint8_t a[40], b[40], c[40];

    (void)state;
    env_test_init(&t, 7);
    env_test_init(&u, 7);
    env_test_init(&w, 8);
    assert_memory_equal(t.env.hash_key, u.env.hash_key, 16);
    assert_memory_not_equal(t.env.hash_key, w.env.hash_key, 16);
    env_random(&t.env, a, sizeof a);
    env_random(&u.env, b, sizeof b);
    env_random(&w.env, c, sizeof c);
    assert_memory_equal(a, b, sizeof a);
    assert_memory_not_equal(a, c, sizeof a);
    env_random(&t.env, b, sizeof b);
    assert_memory_not_equal(a, b, sizeof a);

    /* Scripted outputs: by size, oldest first, the rest from the seed. */
    uint8_t one[32] = {1}, two[32] = {2};
    env_test_script(&t, one, sizeof one);
    env_test_script(&t, two, sizeof two);
    env_random(&t.env, a, 8);
    env_random(&u.env, b, 8); /* one call behind: another number, other bytes */
    assert_memory_not_equal(a, b, 8);
    env_random(&t.env, a, 32);
    assert_memory_equal(a, one, 32);
    env_random(&t.env, a, 32);
    assert_memory_equal(a, two, 32);
    env_random(&t.env, a, 32);
    assert_memory_not_equal(a, two, 32);
    for (int i = 0; i < ENV_TEST_SCRIPT_MAX; i++)
        env_test_script(&t, one, sizeof one);
    env_test_close(&t);
    env_test_close(&u);
    env_test_close(&w);
}

static void test_keypair_draws_again(void **state)
{
    struct env_test t;
    uint8_t zero[32] = {0}, one[32] = {0};
    struct seckey sk;
    struct pubkey pk;

    (void)state;
    env_test_init(&t, 9);
    one[31] = 1;
    env_test_script(&t, zero, sizeof zero);
    env_test_script(&t, one, sizeof one);
    env_keypair(&t.env, &sk, &pk);
    assert_memory_equal(sk.b, one, sizeof one);
    assert_int_equal(pubkey_check(&pk), 0);
    env_test_close(&t);
}

static void test_clocks(void **state)
{
    struct env_sys sys;
    struct env_test t;

    (void)state;
    assert_int_equal(env_sys_init(&sys), 0);
    int64_t before = (int64_t)time(NULL);
    int64_t wall = env_wall_ns(&sys.env) / 1000000000;
    assert_true(wall >= before && wall <= (int64_t)time(NULL) + 1);
    uint64_t mono = env_sys_mono_ns();
    assert_true(mono > 0 && env_sys_mono_ns() >= mono);
    env_test_init(&t, 0);
    assert_true(env_wall_ns(&t.env) == ENV_TEST_EPOCH_NS);
    t.wall_ns = -5;
    assert_true(env_wall_ns(&t.env) == -5);
    env_test_close(&t);

    uint8_t a[16], b[16];
    env_random(&sys.env, a, sizeof a);
    env_random(&sys.env, b, sizeof b);
    assert_memory_not_equal(a, b, sizeof a);
}

static int setup(void **state)
{
    (void)state;
    return crypto_init();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_below),
        cmocka_unit_test(test_jitter),
        cmocka_unit_test(test_work),
        cmocka_unit_test(test_immediate),
        cmocka_unit_test(test_deferred),
        cmocka_unit_test(test_callback_acts),
        cmocka_unit_test(test_shuffle),
        cmocka_unit_test(test_random_stream),
        cmocka_unit_test(test_keypair_draws_again),
        cmocka_unit_test(test_clocks),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
