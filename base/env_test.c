#include "base/env_test.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "base/err.h"
#include "base/list.h"

struct env_test_request {
    struct pk_wait *wait;
    struct pk_req req;
};

static struct env_test *self(struct env *env)
{
    return container_of(env, struct env_test, env);
}

static int64_t test_wall_ns(struct env *env)
{
    return self(env)->wall_ns;
}

/* Every call has a nonce of its own, so that a call's bytes depend on its number, not on earlier
 * sizes. */
static void stream(struct env_test *t, void *out, size_t n)
{
    uint8_t nonce[crypto_stream_chacha20_NONCEBYTES];

    for (size_t i = 0; i < sizeof nonce; i++)
        nonce[i] = (uint8_t)(t->random_calls >> (8 * i));
    t->random_calls++;
    crypto_stream_chacha20(out, n, nonce, t->key);
}

static void test_random(struct env *env, void *out, size_t n)
{
    struct env_test *t = self(env);

    for (size_t i = 0; n > 0 && i < ENV_TEST_SCRIPT_MAX; i++) {
        if (t->script[i].n != n)
            continue;
        memcpy(out, t->script[i].b, n);
        t->script[i].n = 0;
        return;
    }
    stream(t, out, n);
}

void env_test_script(struct env_test *t, const void *p, size_t n)
{
    size_t last = ENV_TEST_SCRIPT_MAX;

    assert(n > 0 && n <= ENV_TEST_SCRIPT_SIZE);
    /* Behind every waiting output, so that the order is kept. */
    while (last > 0 && t->script[last - 1].n == 0)
        last--;
    assert(last < ENV_TEST_SCRIPT_MAX);
    memcpy(t->script[last].b, p, n);
    t->script[last].n = n;
}

static void count(struct env_test *t, const struct pk_req *req)
{
    t->ops[req->op]++;
    if (req->op == PK_ECDH)
        t->ecdh++;
    if (req->op == PK_EPHEMERAL) {
        t->keygen++;
        t->ecdh += !pubkey_is_null(&req->pk);
        t->ecdh += !pubkey_is_null(&req->pk2);
    }
}

static int enqueue(struct env_test *t, struct pk_wait *wait, const struct pk_req *req)
{
    if (t->queue_len == t->queue_room) {
        size_t room = t->queue_room > 0 ? 2 * t->queue_room : 16;
        struct env_test_request *grown = realloc(t->queue, room * sizeof *grown);
        if (grown == NULL)
            abort();
        t->queue = grown;
        t->queue_room = room;
    }
    wait->ticket = ++t->next_ticket;
    t->queue[t->queue_len].wait = wait;
    t->queue[t->queue_len++].req = *req;
    t->stats[req->cls].queued++;
    return ERR_PENDING;
}

static int test_pk(struct env *env, struct pk_wait *wait, const struct pk_req *req)
{
    struct env_test *t = self(env);

    if (t->stats[req->cls].queued >= t->pk_cap) {
        t->stats[req->cls].dropped++;
        return ERR_BUSY;
    }
    t->stats[req->cls].submitted++;
    count(t, req);
    if (t->deferred)
        return enqueue(t, wait, req);
    pk_work(&wait->res, req);
    return 0;
}

/* Take a request out of the queue, its wait becomes idle. */
static void dequeue(struct env_test *t, size_t i, struct env_test_request *out)
{
    *out = t->queue[i];
    t->queue_len--;
    memmove(&t->queue[i], &t->queue[i + 1], (t->queue_len - i) * sizeof t->queue[0]);
    sodium_memzero(&t->queue[t->queue_len], sizeof t->queue[0]);
    t->stats[out->req.cls].queued--;
    out->wait->ticket = 0;
}

static void test_pk_cancel(struct env *env, struct pk_wait *wait)
{
    struct env_test *t = self(env);
    struct env_test_request r;

    for (size_t i = 0; i < t->queue_len; i++) {
        if (t->queue[i].wait == wait) {
            dequeue(t, i, &r);
            sodium_memzero(&r, sizeof r);
            return;
        }
    }
    assert(false && "ticket of another env");
}

static void test_pk_stats(struct env *env, enum pk_class cls, struct env_pk_stats *out)
{
    *out = self(env)->stats[cls];
}

size_t env_test_run(struct env_test *t, size_t max)
{
    struct env_test_request r;
    size_t done = 0;

    while (done < max && t->queue_len > 0) {
        size_t i = 0;
        if (t->shuffle) {
            uint64_t v;
            stream(t, &v, sizeof v);
            i = (size_t)(v % t->queue_len);
        }
        dequeue(t, i, &r);
        pk_work(&r.wait->res, &r.req);
        done++;
        /* The callback may cancel others, submit more, or free its wait. */
        r.wait->done(r.wait);
    }
    sodium_memzero(&r, sizeof r);
    return done;
}

size_t env_test_queued(const struct env_test *t)
{
    return t->queue_len;
}

static const struct env_ops test_ops = {
    .wall_ns = test_wall_ns,
    .random = test_random,
    .pk = test_pk,
    .pk_cancel = test_pk_cancel,
    .pk_stats = test_pk_stats,
};

void env_test_init(struct env_test *t, uint64_t seed)
{
    struct hash key;
    uint8_t b[8];

    if (crypto_init() != 0)
        abort();
    memset(t, 0, sizeof *t);
    t->env.ops = &test_ops;
    t->wall_ns = ENV_TEST_EPOCH_NS;
    t->pk_cap = ENV_TEST_PK_CAP;
    for (size_t i = 0; i < sizeof b; i++)
        b[i] = (uint8_t)(seed >> (8 * i));
    crypto_sha256_2(&key, "env_test", 8, b, sizeof b);
    memcpy(t->key, key.b, sizeof t->key);
    stream(t, t->env.hash_key, sizeof t->env.hash_key);
}

void env_test_close(struct env_test *t)
{
    assert(t->queue_len == 0);
    free(t->queue);
    sodium_memzero(t, sizeof *t);
}
