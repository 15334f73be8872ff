/* A whole engine: the input is a script of what peers, users, clock and crypto service do to it.
 *
 *     0  from method len16 body     a request, read by the JSON codec
 *     1  call len16 body            the answer to an outstanding call
 *     2  call why                   its failure
 *     3  n                          2^n ms pass (n mod 24)
 *     4  op key salt n              an operation of this node's user
 *     5  n                          n answers of the crypto service
 *     6  from kind key salt seq     a well-signed item: put, or answer to an outstanding call
 *     7  n                          bits of configuration: full, distrust, cancel, restart
 *
 * Whatever comes: no crash, no leak, and exactly one answer for each request. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/env_test.h"
#include "base/err.h"
#include "base/loop.h"
#include "kademlia/codec_json.h"
#include "kademlia/kad.h"
#include "kademlia/peers.h"
#include "store/memory.h"

#define KEYS  8
#define CALLS 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct seckey sks[KEYS];
static struct pubkey pks[KEYS];

struct fuzz {
    const uint8_t *p, *end;
    struct env_test env;
    struct store *store;
    struct peers *peers;
    struct kad_peers ops;
    kad_peer handles[KEYS];
    struct kad *kad;
    bool full;
    uint64_t now_ns, requests, answers, dropped;
    uint32_t last_op;
    struct {
        uint32_t id;
        enum kad_method method;
    } calls[CALLS];
    size_t n_calls;
};

static uint8_t u8(struct fuzz *f)
{
    return f->p < f->end ? *f->p++ : 0;
}

static const uint8_t *bytes(struct fuzz *f, size_t *n)
{
    size_t want = (size_t)u8(f) << 8;
    want |= u8(f);
    size_t left = (size_t)(f->end - f->p);
    const uint8_t *p = f->p;

    *n = want < left ? want : left;
    f->p += *n;
    return p;
}

static void start(struct fuzz *f)
{
    struct kad_cfg cfg = {.self = pks[0],
                          .sk = sks[0],
                          .full = f->full,
                          .mirrors = &pks[6],
                          .n_mirrors = 1,
                          .trusted = &pks[7],
                          .n_trusted = 1,
                          .bootstrap = &pks[1],
                          .n_bootstrap = 2,
                          .limits = {.max_items = 20, .slots_per_key = 6, .k = 4}};

    if (kad_new(&f->kad, &cfg, &f->env.env, f->store, &f->ops, NULL, f->now_ns) != 0)
        abort();
    f->n_calls = 0;
}

/* Requests that die with the engine are answered by nobody. */
static void stop(struct fuzz *f)
{
    kad_free(f->kad);
    f->answers = f->requests;
}

static void drain(struct fuzz *f)
{
    struct kad_act a;

    while (kad_next(f->kad, &a)) {
        if (a.type == KAD_ACT_CALL && f->n_calls < CALLS) {
            f->calls[f->n_calls].id = a.call;
            f->calls[f->n_calls++].method = a.msg.method;
        }
        if (a.type == KAD_ACT_REPLY || a.type == KAD_ACT_REFUSE) {
            assert(a.token > 0 && a.token <= f->requests);
            f->answers++;
        }
        kad_act_clear(&a);
    }
}

/* An outstanding call; forgets it. */
static bool take_call(struct fuzz *f, uint32_t *id, enum kad_method *method)
{
    size_t i = u8(f);

    if (f->n_calls == 0)
        return false;
    i %= f->n_calls;
    *id = f->calls[i].id;
    *method = f->calls[i].method;
    f->calls[i] = f->calls[--f->n_calls];
    return true;
}

static void request(struct fuzz *f)
{
    kad_peer from = f->handles[1 + u8(f) % (KEYS - 1)];
    unsigned method = u8(f);
    struct kad_msg m;
    size_t n;
    const uint8_t *p = bytes(f, &n);

    if (kad_json_decode(&m, method, false, p, n) != 0)
        return;
    kad_request(f->kad, from, &m, ++f->requests, f->now_ns);
}

static void response(struct fuzz *f)
{
    uint32_t id;
    enum kad_method method;
    struct kad_msg m;
    bool any = take_call(f, &id, &method);
    size_t n;
    const uint8_t *p = bytes(f, &n);

    if (!any)
        return;
    if (kad_json_decode(&m, method, true, p, n) == 0)
        kad_response(f->kad, id, &m, f->now_ns);
    else
        kad_call_failed(f->kad, id, KAD_FAIL_FORMAT, f->now_ns);
}

static void failure(struct fuzz *f)
{
    uint32_t id;
    enum kad_method method;
    bool any = take_call(f, &id, &method);
    enum kad_fail why = (enum kad_fail)(u8(f) % (KAD_FAIL_GONE + 1));

    if (any)
        kad_call_failed(f->kad, id, why, f->now_ns);
}

static const char *salt_of(uint8_t n)
{
    static const char *const salts[] = {"dmsg", "tp", "fullnode", "svc:x"};

    return salts[n % 4];
}

static void operation(struct fuzz *f)
{
    unsigned op = u8(f);
    const struct pubkey *pk = &pks[u8(f) % KEYS];
    const char *salt = salt_of(u8(f));
    uint8_t n = u8(f);
    struct kad_id target = kad_target(pk, salt, strlen(salt));
    uint32_t number = 0;

    switch (op % 6) {
    case 0:
        number = kad_get(f->kad, pk, salt, strlen(salt), n % 8, NULL, f->now_ns);
        break;
    case 1:
        number = kad_put(f->kad, salt, strlen(salt), &n, n % 2, n > 200, n, NULL, f->now_ns);
        break;
    case 2:
        number = kad_find_node(f->kad, &target, NULL, f->now_ns);
        break;
    case 3:
        number = kad_ping(f->kad, f->handles[1 + n % (KEYS - 1)], NULL, f->now_ns);
        break;
    case 4:
        number = kad_sync(f->kad, f->handles[1 + n % (KEYS - 1)], NULL, f->now_ns);
        break;
    case 5:
        kad_distrust(f->kad, pk, salt, strlen(salt));
        break;
    }
    f->last_op = number != 0 ? number : f->last_op;
}

static struct item_ref *signed_item(struct fuzz *f)
{
    unsigned key = u8(f) % KEYS;
    const char *salt = salt_of(u8(f));
    uint8_t seq = u8(f);
    struct item it = {.seq = seq < 250 ? seq : UINT64_MAX - seq,
                      .v = &seq,
                      .v_len = 1,
                      .salt = (const uint8_t *)salt,
                      .salt_len = strlen(salt)};

    if (seq % 5 == 0) {
        it.v = (const uint8_t *)"{}";
        it.v_len = 2;
    }
    if (item_sign(&it, &sks[key]) != 0)
        abort();
    return item_ref_new(&it);
}

static void good_item(struct fuzz *f)
{
    kad_peer from = f->handles[1 + u8(f) % (KEYS - 1)];
    unsigned kind = u8(f);
    struct item_ref *item = signed_item(f);
    struct kad_id elsewhere = kad_target(&pks[kind % KEYS], "tp", 2);
    enum kad_method method = KAD_PUT_VALUE;
    uint32_t id = 0;
    struct kad_msg m;

    bool answer = kind % 2 == 1 && take_call(f, &id, &method);
    kad_msg_init(&m, method, answer);
    if (item == NULL || kad_msg_add_item(&m, item, kind & 64 ? &elsewhere : NULL) != 0)
        abort();
    m.has_more = kind & 128;
    if (kad_msg_set_closest(&m, pks, kind % 8) != 0)
        abort();
    if (answer)
        kad_response(f->kad, id, &m, f->now_ns);
    else
        kad_request(f->kad, from, &m, ++f->requests, f->now_ns);
    item_ref_put(item);
}

static void configure(struct fuzz *f)
{
    uint8_t n = u8(f);

    f->env.pk_cap = n & 1 ? 0 : 100;
    f->env.wall_ns += (n & 2 ? 1 : -1) * (int64_t)n * 3600 * (int64_t)NS_PER_S;
    if (n & 4)
        kad_cancel(f->kad, f->last_op);
    if (n & 8) {
        f->full = !f->full;
        kad_set_full(f->kad, f->full);
    }
    if (n & 16)
        (void)kad_bootstrap(f->kad, &pks[n % KEYS], 1, f->now_ns);
    if (n & 32) {
        stop(f);
        start(f);
    }
    if (n & 64) /* behind one or two relays of three */
        peers_set_relays(f->peers, f->handles[1 + n % (KEYS - 1)], &pks[n % 3 % KEYS], 1 + n % 2,
                         n & 128);
}

static void run(struct fuzz *f)
{
    switch (u8(f) % 8) {
    case 0:
        request(f);
        break;
    case 1:
        response(f);
        break;
    case 2:
        failure(f);
        break;
    case 3:
        f->now_ns += (UINT64_C(1) << u8(f) % 24) * NS_PER_MS;
        kad_tick(f->kad, f->now_ns);
        break;
    case 4:
        operation(f);
        break;
    case 5:
        env_test_run(&f->env, u8(f));
        break;
    case 6:
        good_item(f);
        break;
    case 7:
        configure(f);
        break;
    }
    drain(f);
}

static void setup_keys(void)
{
    static bool done;

    for (size_t i = 0; !done && i < KEYS; i++) {
        uint8_t seed[32] = {1, (uint8_t)i};
        if (crypto_init() != 0 || crypto_keypair(&sks[i], &pks[i], seed) != 0)
            abort();
    }
    done = true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz f = {.p = data, .end = data + size, .now_ns = NS_PER_S};

    setup_keys();
    env_test_init(&f.env, 1);
    f.env.deferred = true;
    f.env.shuffle = true;
    f.peers = peers_new(f.env.env.hash_key, 64);
    if (f.peers == NULL || store_memory_new(&f.store, 100000) != 0)
        abort();
    f.ops = peers_ops(f.peers);
    for (size_t i = 0; i < KEYS; i++)
        f.handles[i] = f.ops.intern(f.ops.arg, &pks[i]);
    start(&f);
    while (f.p < f.end)
        run(&f);
    f.env.pk_cap = 100;
    for (int i = 0; i < 2000 && env_test_run(&f.env, 100) > 0; i++)
        drain(&f);
    drain(&f);
    assert(f.answers == f.requests);
    stop(&f);
    for (size_t i = 0; i < KEYS; i++)
        f.ops.unref(f.ops.arg, f.handles[i]);
    assert(peers_len(f.peers) == 0);
    peers_free(f.peers);
    f.store->ops->close(f.store);
    env_test_close(&f.env);
    return 0;
}
