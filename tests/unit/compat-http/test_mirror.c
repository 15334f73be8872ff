/*
 * The mirror in virtual time, with sinks that count: what is signed, what is written, what is not.
 */
#include "compat-http/mirror.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/env_test.h"
#include "base/err.h"
#include "base/hex.h"
#include "base/map.h"
#include "kademlia/codec_json.h"
#include "tests/unit/prop.h"
#include "tests/unit/vectors.h"

#define KEYS 8

static struct loop loop;
static struct env_test env;
static struct mirror *mirror;
static struct seckey sk, subject_sk[KEYS];
static struct pubkey pk, subject[KEYS];

struct held { /* what a sink was given last for a slot */
    struct kad_id target;
    struct item_ref *item;
    bool gone;
};

struct taker {
    unsigned number;
    struct map held;
    uint64_t delay_ns;
    int down;       /* batches fail with this */
    int refuses;    /* write() itself does */
    size_t at_most; /* of a batch; 0 = all */
    size_t busy;    /* a batch is under way */
    uint64_t writes, batches;
    struct loop_timer timer;
};
static struct taker redis, dht;

static void note(struct taker *t, const struct mirror_write *w)
{
    struct held *h = map_get(&t->held, &w->target);
    if (h == NULL) {
        h = calloc(1, sizeof(*h));
        assert_non_null(h);
        h->target = w->target;
        assert_int_equal(map_put(&t->held, h), 0);
    }
    item_ref_put(h->item);
    h->item = item_ref_get(w->item);
    h->gone = w->gone;
    if (t->writes % 64 == 0 || t->writes < 500)
        assert_int_equal(item_verify(&w->item->item), 0);
    assert_true(pubkey_equal(&w->item->item.k, &pk));
    t->writes++;
}

static int take(void *arg, const struct mirror_write *w, size_t n, size_t *taken)
{
    struct taker *t = arg;
    assert_int_equal(t->busy, 0);
    assert_in_range(n, 1, MIRROR_BATCH);
    if (t->refuses != 0)
        return t->refuses;
    *taken = t->at_most != 0 && t->at_most < n ? t->at_most : n;
    for (size_t i = 0; t->down == 0 && i < *taken; i++)
        note(t, &w[i]);
    t->batches++;
    t->busy = *taken;
    loop_timer_set(&loop, &t->timer, loop.now_ns + t->delay_ns);
    return 0;
}

static void on_taken(struct loop_timer *timer)
{
    struct taker *t = container_of(timer, struct taker, timer);
    t->busy = 0;
    mirror_written(mirror, t->number, t->down);
}

static void taker_init(struct taker *t)
{
    *t = (struct taker){.delay_ns = NS_PER_MS, .timer.fn = on_taken};
    map_init(&t->held, MAP_KEY(struct held, target), env.env.hash_key, 0);
}

static void taker_free(struct taker *t)
{
    struct held *h;
    loop_timer_cancel(&loop, &t->timer);
    for (struct map_iter it = map_iter(&t->held); (h = map_next(&it)) != NULL;) {
        map_iter_del(&it);
        item_ref_put(h->item);
        free(h);
    }
    map_free(&t->held);
}

static const struct held *held(struct taker *t, const char *salt, const struct pubkey *of)
{
    struct kad_id target = kad_target(of, salt, strlen(salt));
    return map_get(&t->held, &target);
}

static bool holds(struct taker *t, const char *salt, size_t i, const char *text)
{
    const struct held *h = held(t, salt, &subject[i]);
    return h != NULL && h->item->item.v_len == strlen(text) &&
           memcmp(h->item->item.v, text, strlen(text)) == 0;
}

static unsigned again; /* times that everything was to be offered anew */

static void on_again(void *arg)
{
    (void)arg;
    again++;
}

static int setup(void **state)
{
    (void)state;
    env_test_init(&env, 1);
    loop_init(&loop, NS_PER_S);
    env_keypair(&env.env, &sk, &pk);
    for (int i = 0; i < KEYS; i++)
        env_keypair(&env.env, &subject_sk[i], &subject[i]);
    taker_init(&redis);
    taker_init(&dht);
    struct mirror_cfg cfg = {.env = &env.env, .loop = &loop, .pk = pk, .sk = sk, .again = on_again};
    again = 0;
    mirror = mirror_new(&cfg);
    assert_non_null(mirror);
    redis.number = mirror_add_sink(mirror, "redis", take, &redis);
    dht.number = mirror_add_sink(mirror, "dht", take, &dht);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    mirror_free(mirror);
    taker_free(&redis);
    taker_free(&dht);
    loop_close(&loop);
    env_test_close(&env);
    return 0;
}

static void run(uint64_t ns)
{
    uint64_t end = loop.now_ns + ns;
    for (uint64_t at; (at = loop_deadline(&loop)) <= end;) {
        at = at > loop.now_ns ? at : loop.now_ns;
        env.wall_ns += (int64_t)(at - loop.now_ns);
        loop_turn(&loop, at);
    }
    env.wall_ns += (int64_t)(end - loop.now_ns);
    loop_turn(&loop, end);
}

static struct mirror_stat stat_now(void)
{
    struct mirror_stat st;
    mirror_stat(mirror, &st);
    return st;
}

static void set(size_t i, const char *salt, const char *text)
{
    struct mirror_value v = {.salt = salt, .v = text, .n = strlen(text)};
    mirror_set(mirror, &v, &subject[i], 1);
}

/* ---- upstream's rules (dht.md §5.4, §8.1) ---- */

static void test_hash(void **state)
{
    json_t *root = vectors_load("dht"), *v;
    size_t i;
    (void)state;
    assert_true(json_array_size(json_object_get(root, "fnv1a64")) > 0);
    json_array_foreach(json_object_get(root, "fnv1a64"), i, v)
    {
        const char *text = json_string_value(json_object_get(v, "text"));
        assert_int_equal(mirror_hash(text, strlen(text)),
                         strtoull(json_string_value(json_object_get(v, "hash")), NULL, 16));
    }
    json_decref(root);
}

/* The text under which an item is kept in the peers' Redis. */
static void test_item_text(void **state)
{
    json_t *root = vectors_load("dht");
    json_t *r = json_object_get(json_object_get(root, "persistence"), "redis");
    const char *want = json_string_value(json_object_get(r, "value"));
    json_t *v = json_loads(want, 0, NULL);
    struct item it = {.seq = (uint64_t)json_integer_value(json_object_get(v, "seq")),
                      .v = (const uint8_t *)"[]",
                      .v_len = 2,
                      .salt = (const uint8_t *)"tp",
                      .salt_len = 2};
    const char *k = json_string_value(json_object_get(v, "k"));
    const char *sig = json_string_value(json_object_get(v, "sig"));
    char *text;
    size_t n;
    (void)state;
    assert_int_equal(pubkey_from_hex(&it.k, k, strlen(k)), 0);
    assert_int_equal(hex_decode(it.sig.b, sizeof(it.sig.b), sig, strlen(sig)), 0);
    assert_int_equal(kad_json_item(&text, &n, &it), 0);
    assert_int_equal(n, strlen(want));
    assert_memory_equal(text, want, n);
    free(text);
    json_decref(v);
    json_decref(root);
}

static void test_unchanged_is_skipped_for_an_hour(void **state)
{
    (void)state;
    set(0, "svc", "[1]");
    run(NS_PER_S);
    assert_true(holds(&redis, "svc", 0, "[1]") && holds(&dht, "svc", 0, "[1]"));
    assert_int_equal(stat_now().signatures, 1);
    run(3590 * NS_PER_S);
    set(0, "svc", "[1]");
    run(NS_PER_S);
    assert_int_equal(stat_now().signatures, 1);
    assert_int_equal(redis.writes, 1);
    run(20 * NS_PER_S);
    set(0, "svc", "[1]"); /* over an hour old */
    run(NS_PER_S);
    assert_int_equal(stat_now().signatures, 2);
    set(0, "svc", "[2]");
    run(NS_PER_S);
    assert_true(holds(&redis, "svc", 0, "[2]"));
    assert_int_equal(redis.writes, 3);
    assert_int_equal(dht.writes, 3);
}

/* One value for many subjects is signed once; in a mixed batch only what changed is written. */
static void test_signed_once_for_many(void **state)
{
    struct mirror_value v = {.salt = "tp", .v = "[1]", .n = 3};
    (void)state;
    mirror_set(mirror, &v, subject, 5);
    run(NS_PER_S);
    assert_int_equal(stat_now().signatures, 1);
    assert_int_equal(redis.writes, 5);
    assert_int_equal(redis.batches, 1);
    mirror_set(mirror, &v, subject, KEYS);
    run(NS_PER_S);
    assert_int_equal(stat_now().signatures, 2);
    assert_int_equal(redis.writes, KEYS);
    const struct held *a = held(&redis, "tp", &subject[0]), *b = held(&redis, "tp", &subject[4]);
    assert_ptr_equal(a->item, b->item);
}

static void test_many_changes_are_one(void **state)
{
    char text[32];
    (void)state;
    for (int i = 0; i < 1000; i++) {
        snprintf(text, sizeof(text), "[%d]", i);
        set(0, "svc", text);
    }
    run(NS_PER_S);
    assert_int_equal(stat_now().signatures, 1);
    assert_int_equal(dht.writes, 1);
    assert_true(holds(&dht, "svc", 0, "[999]"));
}

static void test_deletion(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++)
        set(i, "dmsg", "x");
    run(NS_PER_S);
    uint64_t before = held(&dht, "dmsg", &subject[0])->item->item.seq;
    for (size_t i = 0; i < 3; i++)
        mirror_delete(mirror, "dmsg", &subject[i]);
    run(NS_PER_S);
    const struct held *h = held(&dht, "dmsg", &subject[0]);
    assert_true(h->gone && holds(&dht, "dmsg", 0, "{}"));
    assert_true(h->item->item.seq > before);
    assert_int_equal(stat_now().signatures, 3 + 1); /* one tombstone for all */
    mirror_delete(mirror, "dmsg", &subject[0]);
    run(NS_PER_S);
    assert_int_equal(dht.writes, 6); /* known to be gone */
    set(0, "dmsg", "x");             /* the hash was forgotten */
    run(NS_PER_S);
    assert_true(holds(&dht, "dmsg", 0, "x"));
    mirror_delete(mirror, "svc", &subject[7]); /* of an earlier life, perhaps */
    run(NS_PER_S);
    assert_true(holds(&redis, "svc", 7, "[]") && held(&redis, "svc", &subject[7])->gone);
}

static void test_too_long(void **state)
{
    char *text = calloc(1, ITEM_MAX_VALUE + 1);
    struct mirror_value v = {.salt = "svc", .v = text, .n = ITEM_MAX_VALUE + 1};
    (void)state;
    assert_non_null(text);
    mirror_set(mirror, &v, subject, 1);
    v.n--;
    mirror_set(mirror, &v, &subject[1], 1);
    run(NS_PER_S);
    assert_int_equal(stat_now().too_long, 1);
    assert_int_equal(dht.writes, 1);
    free(text);
}

/* ---- entries ---- */

static struct entry *entry(size_t i, uint64_t sequence, size_t n_servers)
{
    struct entry *e;
    struct hash digest;
    struct sig sig;
    assert_int_equal(
        entry_new_client(&e, &subject[i], sequence, env_wall_ns(&env.env), subject, n_servers, ""),
        0);
    assert_int_equal(entry_digest(&digest, e), 0);
    assert_int_equal(crypto_sign_digest(&sig, &subject_sk[i], &digest), 0);
    assert_int_equal(entry_set_signature(e, &sig), 0);
    return e;
}

static void register_entry(size_t i, uint64_t sequence, size_t n_servers)
{
    struct entry *e = entry(i, sequence, n_servers);
    mirror_entry(mirror, e, e->text, e->text_len);
    entry_free(e);
}

/* A heartbeat with a new number, time and signature says nothing new; another server does. */
static void test_entries_by_content(void **state)
{
    (void)state;
    register_entry(0, 5, 2);
    run(NS_PER_S);
    assert_int_equal(held(&redis, "dmsg", &subject[0])->item->item.seq, 5);
    for (uint64_t s = 6; s < 20; s++) {
        run(60 * NS_PER_S);
        register_entry(0, s, 2);
    }
    run(NS_PER_S);
    assert_int_equal(redis.writes, 1);
    register_entry(0, 20, 3);
    run(NS_PER_S);
    assert_int_equal(redis.writes, 2);
    assert_int_equal(held(&redis, "dmsg", &subject[0])->item->item.seq, 20);
}

/* What the discovery put into a server's entry is taken out again: the DHT takes only what certifies itself. */
static void test_servers_certify_themselves(void **state)
{
    static const char *const said[] = {"", "community", "secret"};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct entry *e;
        struct hash digest;
        struct sig sig;
        assert_int_equal(entry_new_server(&e, &subject[i], 0, env_wall_ns(&env.env), "h:1", 7), 0);
        e->server.server_type = i == 2 ? said[2] : "";
        assert_int_equal(entry_digest(&digest, e), 0);
        assert_int_equal(crypto_sign_digest(&sig, &subject_sk[i], &digest), 0);
        e->server.server_type = said[i]; /* as it is stored */
        assert_int_equal(entry_set_signature(e, &sig), 0);
        mirror_entry(mirror, e, e->text, e->text_len);
        entry_free(e);
    }
    run(NS_PER_S);
    for (size_t i = 0; i < 2; i++) {
        const struct held *h = held(&dht, "dmsg", &subject[i]);
        struct entry *e;
        assert_int_equal(h->item->item.seq, 1); /* 0 would be in no listing */
        assert_int_equal(entry_parse(&e, (const char *)h->item->item.v, h->item->item.v_len), 0);
        assert_int_equal(entry_verify(e), 0);
        entry_free(e);
    }
    assert_null(held(&dht, "dmsg", &subject[2]));
    assert_int_equal(stat_now().uncertified, 1);
}

/* ---- transports ---- */

static struct tp_list transports(size_t n)
{
    struct tp_list l = {.e = calloc(n + 1, sizeof(*l.e)), .n = n};
    assert_non_null(l.e);
    for (size_t i = 0; i < n; i++) {
        struct tp_entry *e = &l.e[i];
        bool first = pubkey_cmp(&subject[0], &subject[1 + i % 7]) < 0;
        snprintf(e->type, sizeof(e->type), "t%zu", i);
        snprintf(e->label, sizeof(e->label), "user");
        e->edges[first ? 0 : 1] = subject[0];
        e->edges[first ? 1 : 0] = subject[1 + i % 7];
        e->id = tp_id_of(&e->edges[0], &e->edges[1], e->type);
    }
    return l;
}

static size_t listed(struct taker *t)
{
    struct tp_join j = {0};
    bool more = true;
    for (size_t i = 0; more; i++) {
        char salt[TP_SALT_MAX];
        const struct held *h = held(t, tp_salt(salt, i), &subject[0]);
        if (h == NULL || h->gone)
            break;
        assert_int_equal(tp_join_add(&j, &subject[0], h->item->item.v, h->item->item.v_len, &more),
                         0);
    }
    size_t n = j.list.n;
    tp_join_free(&j);
    return n;
}

/* The whole list in chunks; what a shorter list leaves behind is ended. */
static void test_transports_in_chunks(void **state)
{
    static const size_t sizes[] = {450, 401, 400, 3, 0, 200, 201, 0};
    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct tp_list l = transports(sizes[i]);
        mirror_transports(mirror, &subject[0], &l);
        run(NS_PER_S);
        assert_int_equal(listed(&dht), sizes[i]);
        uint64_t writes = dht.writes, signatures = stat_now().signatures;
        mirror_transports(mirror, &subject[0], &l);
        run(NS_PER_S);
        assert_int_equal(dht.writes, writes);
        assert_int_equal(stat_now().signatures, signatures);
        tp_list_free(&l);
    }
    assert_true(held(&redis, "tp", &subject[0])->gone);
    assert_true(held(&redis, "tp:2", &subject[0])->gone);
}

/* ---- cost (issue 6, part 4; incident 71: chunks of 256) ---- */

#define MANY 50000

/* 50 000 re-registrations in 90 s that change nothing sign nothing and write no item. */
static void test_incident_71_unchanged_registrations_cost_nothing(void **state)
{
    struct pubkey *many = calloc(MANY, sizeof(*many));
    (void)state;
    assert_non_null(many);
    for (uint32_t i = 0; i < MANY; i++) {
        many[i] = subject[0];
        memcpy(many[i].b + 1, &i, sizeof(i));
    }
    struct mirror_value v = {.salt = "tp", .v = "[{\"t_id\":1}]", .n = 12};
    for (size_t i = 0; i < MANY; i++)
        mirror_set(mirror, &v, &many[i], 1);
    run(60 * NS_PER_S);
    struct mirror_stat before = stat_now();
    assert_int_equal(redis.writes, MANY);
    assert_int_equal(dht.writes, MANY);
    assert_true(before.sink[0].batches >= MANY / MIRROR_BATCH);
    assert_int_equal(before.waiting, 0);
    assert_int_equal(before.bytes_waiting, 0);
    for (size_t i = 0; i < MANY; i++) {
        mirror_set(mirror, &v, &many[i], 1);
        run(90 * NS_PER_S / MANY);
    }
    run(NS_PER_S);
    struct mirror_stat after = stat_now();
    assert_int_equal(after.signatures, before.signatures);
    assert_int_equal(redis.writes, MANY);
    assert_int_equal(dht.writes, MANY);
    assert_int_equal(after.unchanged, before.unchanged + MANY);
    free(many);
}

/* ---- sinks that are away ---- */

/* One sink away: the other one goes on; when it is back it is given the present state, once. */
static void test_incident_70_sink_away_and_back(void **state)
{
    char text[32];
    (void)state;
    redis.down = ERR_RESET;
    for (int i = 0; i < 100; i++) {
        snprintf(text, sizeof(text), "[%d]", i);
        for (size_t k = 0; k < KEYS; k++)
            set(k, "svc", text);
        run(10 * NS_PER_S);
    }
    assert_int_equal(redis.writes, 0);
    assert_true(holds(&dht, "svc", 3, "[99]"));
    assert_in_range(stat_now().sink[0].failed, 10, 60); /* not in a hurry */
    assert_int_equal(stat_now().waiting, KEYS);
    redis.down = 0;
    mirror_kick(mirror, redis.number);
    run(NS_PER_S);
    assert_int_equal(redis.writes, KEYS);
    assert_true(holds(&redis, "svc", 3, "[99]"));
    assert_int_equal(stat_now().waiting, 0);
    assert_int_equal(stat_now().bytes_waiting, 0);
    /* What it had before may be lost: the same content is written once more. */
    assert_int_equal(again, 1);
    set(1, "svc", "[99]");
    run(NS_PER_S);
    assert_int_equal(redis.writes, KEYS + 1);
    set(1, "svc", "[99]");
    run(NS_PER_S);
    assert_int_equal(redis.writes, KEYS + 1);
    for (int i = 0; i < 10; i++)
        mirror_lost(mirror); /* flapping: once in 30 s */
    run(NS_PER_S);
    assert_int_equal(again, 1);
    run(60 * NS_PER_S);
    assert_int_equal(again, 2);
    redis.refuses = ERR_BUSY;
    set(0, "svc", "[new]");
    run(100 * NS_PER_S);
    redis.refuses = 0;
    run(100 * NS_PER_S);
    assert_true(holds(&redis, "svc", 0, "[new]"));
}

/* Random changes, small batches, failures, signatures that come late: in the end both sinks hold what was said last. */
static void test_any_order(void **state)
{
    struct prop r = prop_init("mirror");
    char said[KEYS][16];
    (void)state;
    memset(said, 0, sizeof(said));
    env.deferred = true;
    env.shuffle = true;
    for (int i = 0; i < 3000; i++) {
        size_t k = prop_u64(&r) % KEYS;
        redis.at_most = prop_u64(&r) % 4;
        redis.down = prop_u64(&r) % 3 == 0 ? ERR_TIMEOUT : 0;
        dht.delay_ns = prop_u64(&r) % (200 * NS_PER_MS);
        if (prop_u64(&r) % 4 == 0) {
            mirror_delete(mirror, "svc", &subject[k]);
            snprintf(said[k], sizeof(said[k]), "[]");
        } else {
            snprintf(said[k], sizeof(said[k]), "[%d]", (int)(prop_u64(&r) % 5));
            set(k, "svc", said[k]);
        }
        run(prop_u64(&r) % (100 * NS_PER_MS));
        if (prop_u64(&r) % 2 == 0)
            (void)env_test_run(&env, 1);
    }
    env.deferred = false;
    redis.down = 0;
    while (env_test_run(&env, 100) > 0)
        ;
    run(200 * NS_PER_S);
    for (size_t k = 0; k < KEYS; k++) {
        assert_true(holds(&redis, "svc", k, said[k]));
        assert_true(holds(&dht, "svc", k, said[k]));
    }
    assert_int_equal(stat_now().waiting, 0);
    assert_int_equal(stat_now().bytes_waiting, 0);
}

/* Freed in the middle of everything: env_test_close() and the sanitizers look. */
static void test_free_while_busy(void **state)
{
    (void)state;
    env.deferred = true;
    set(0, "svc", "[1]");
    set(1, "svc", "[2]");
    run(100 * NS_PER_MS);
    (void)env_test_run(&env, 1);
    mirror_delete(mirror, "svc", &subject[1]);
    run(NS_PER_MS / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_hash, setup, teardown),
        cmocka_unit_test_setup_teardown(test_item_text, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unchanged_is_skipped_for_an_hour, setup, teardown),
        cmocka_unit_test_setup_teardown(test_signed_once_for_many, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_changes_are_one, setup, teardown),
        cmocka_unit_test_setup_teardown(test_deletion, setup, teardown),
        cmocka_unit_test_setup_teardown(test_too_long, setup, teardown),
        cmocka_unit_test_setup_teardown(test_entries_by_content, setup, teardown),
        cmocka_unit_test_setup_teardown(test_servers_certify_themselves, setup, teardown),
        cmocka_unit_test_setup_teardown(test_transports_in_chunks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_incident_71_unchanged_registrations_cost_nothing,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_incident_70_sink_away_and_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_any_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_free_while_busy, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
