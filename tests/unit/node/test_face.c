/*
 * The face of a node in a network of two real engines with a discovery beside it: node 1 has the face, node 0 holds what is carried. Virtual time.
 */
#include "node/face.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"
#include "tests/unit/compat-http/fake_disc.h"
#include "tests/unit/kademlia/host_world.h"
#include "tests/unit/vectors.h"

#define TTL_MS 3600000

static struct host_world hw;
static struct resolve *r;
static struct face *face;
static struct fake_disc disc;
static struct disc_port port;
static struct { /* relays that the node knows */
    struct pubkey pk;
    char addr[40];
} relay;

static bool take(void *arg, const struct kad_report *rep)
{
    (void)arg;
    return r != NULL && resolve_report(r, rep);
}

static int setup(void **state)
{
    (void)state;
    host_world_init(&hw);
    world_relay_start(&hw.w, 0);
    r = resolve_new(&hw.w.net.loop, &hw.w.env.env);
    fake_disc_init(&disc, &hw.w.net.loop);
    port = fake_disc_port(&disc);
    memset(&relay, 0, sizeof(relay));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    face_free(face);
    face = NULL;
    resolve_set_http(r, NULL, false);
    fake_disc_free(&disc);
    resolve_free(r);
    r = NULL;
    host_world_free(&hw);
    return 0;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

static uint64_t now(void)
{
    return hw.w.net.loop.now_ns;
}

static const struct pubkey *key(int i)
{
    return &hw.w.client[i].key.pk;
}

static void each_server(void *arg, face_server_fn *fn, void *fn_arg)
{
    (void)arg;
    if (relay.addr[0] != '\0')
        fn(fn_arg, &relay.pk, relay.addr);
}

/* network: with node 0 as a DHT peer; beside: with the discovery. */
static void open_face(bool network, bool beside)
{
    if (network) {
        hw_start(&hw, 0, NULL, NULL);
        world_up(&hw.w, 0, 1);
    }
    hw_start(&hw, 1, network ? key(0) : NULL, NULL);
    hw.node[1].take = take;
    resolve_set_host(r, hw.node[1].h);
    if (network) {
        hw_peers(&hw, 1, 1);
        hw_peers(&hw, 0, 1);
    }
    if (beside)
        resolve_set_http(r, &port, false);
    struct face_cfg cfg = {.env = &hw.w.env.env,
                           .loop = &hw.w.net.loop,
                           .resolve = r,
                           .store = hw.node[1].store,
                           .host = hw.node[1].h,
                           .carrier = hw.w.client[1].key.sk,
                           .port = beside ? &port : NULL,
                           .ask = true,
                           .forward = true,
                           .servers = each_server};
    assert_int_equal(face_new(&face, &cfg), 0);
}

static struct face_stat stat_now(void)
{
    struct face_stat st;
    face_stat(face, &st);
    return st;
}

/* ---- asking ---- */

struct got {
    unsigned calls;
    int err;
    size_t n;
    char text[4096]; /* entry, or the keys of a list with blanks between them */
};

static void on_answer(void *arg, const struct kv_answer *a)
{
    struct got *g = arg;
    g->calls++;
    g->err = a->err;
    g->n = 0;
    g->text[0] = '\0';
    for (size_t i = 0; i < a->n; i++) {
        size_t len = strlen(g->text);
        g->n += a->v[i].p != NULL;
        snprintf(g->text + len, sizeof(g->text) - len, "%.*s ", (int)a->v[i].n,
                 a->v[i].p != NULL ? (const char *)a->v[i].p : "");
    }
}

static bool is_answered(void *arg)
{
    return ((struct got *)arg)->calls > 0;
}

static void ask_begin(struct got *g, const struct pubkey *pk, bool peek)
{
    char hex[PUBKEY_HEX + 1];
    struct kv_str k = {pubkey_hex(hex, pk), PUBKEY_HEX};
    *g = (struct got){0};
    assert_int_equal(peek ? face_peek(face_kv(face), &k, 1, on_answer, g)
                          : kv_get(face_kv(face), &k, 1, on_answer, g),
                     0);
}

/* The text of an entry, NULL when there is none. */
static const char *ask(const struct pubkey *pk)
{
    static struct got g;
    ask_begin(&g, pk, false);
    world_until(&hw.w, is_answered, &g);
    assert_true(g.calls == 1 && g.err == 0);
    return g.n == 1 ? g.text : NULL;
}

static struct got list(const char *set)
{
    struct got g = {0};
    struct kv_str s = {set, strlen(set)};
    assert_int_equal(kv_members(face_kv(face), s, on_answer, &g), 0);
    world_until(&hw.w, is_answered, &g);
    assert_int_equal(g.calls, 1);
    return g;
}

static bool has_key(const struct got *g, const struct pubkey *pk)
{
    char hex[PUBKEY_HEX + 1];
    return strstr(g->text, pubkey_hex(hex, pk)) != NULL;
}

/* ---- registering ---- */

static struct entry *entry_by(int i, uint64_t sequence, const char *type)
{
    struct entry *e;
    struct hash digest;
    struct sig sig;
    assert_int_equal(entry_new_client(&e, key(i), sequence, (int64_t)sequence * 1000,
                                      &hw.w.relay_key[0].pk, 1, type),
                     0);
    assert_int_equal(entry_digest(&digest, e), 0);
    assert_int_equal(crypto_sign_digest(&sig, &hw.w.client[i].key.sk, &digest), 0);
    assert_int_equal(entry_set_signature(e, &sig), 0);
    return e;
}

static void on_written(void *arg, const struct kv_answer *a)
{
    *(int *)arg = a->err == 0 ? 1 : a->err;
}

static void write_op(enum kv_cmd cmd, const struct pubkey *pk, const char *text, size_t n)
{
    char hex[PUBKEY_HEX + 1];
    int done = 0;
    struct kv_op op = {
        .cmd = cmd, .key = {pubkey_hex(hex, pk), PUBKEY_HEX}, .value = {text, n}, .ttl_ms = TTL_MS};
    assert_int_equal(kv_write(face_kv(face), &op, 1, on_written, &done), 0);
    assert_int_equal(done, 1);
}

/* As the discovery does after its checks. */
static void register_at_face(int i, uint64_t sequence, const char *type)
{
    struct entry *e = entry_by(i, sequence, type);
    write_op(KV_SET, key(i), e->text, e->text_len);
    face_stored(face, e, e->text, e->text_len);
    entry_free(e);
}

static void take_back(int i, uint64_t sequence)
{
    struct entry *e = entry_by(i, sequence, "");
    write_op(KV_DEL, key(i), NULL, 0);
    face_taken_back(face, e);
    entry_free(e);
}

static void register_at_discovery(int i, uint64_t sequence, const char *type)
{
    struct entry *e = entry_by(i, sequence, type);
    fake_disc_set(&disc, e->text, e->text_len);
    entry_free(e);
}

static bool says(const char *text, uint64_t sequence)
{
    char want[40];
    snprintf(want, sizeof(want), "\"sequence\":%llu,", (unsigned long long)sequence);
    return text != NULL && strstr(text, want) != NULL;
}

/* ---- tests ---- */

/* Somebody else finds what was registered here in the DHT, and so does the discovery get it. */
static void test_carried_and_forwarded(void **state)
{
    (void)state;
    open_face(true, true);
    register_at_face(2, 5, "");
    assert_true(says(ask(key(2)), 5));
    world_run(&hw.w, 5 * NS_PER_S);
    assert_int_equal(hw_get(&hw, 0, key(2), "dmsg", 0), 0);
    assert_true(says(hw.node[0].value, 5));
    assert_int_equal(fake_disc_entry(&disc, key(2))->sequence, 5);
    struct face_stat st = stat_now();
    assert_true(st.entries == 1 && st.registered == 1 && st.carried == 1 && st.forwarded == 1);
    assert_true(st.own >= 1 && st.waiting == 0);
    world_run(&hw.w, 2 * FACE_CARRY_NS);
    assert_true(stat_now().carried >= 2); /* again while it lives */
}

/* Unless it was a moment ago, what was registered here is no better than what is found. */
static void test_newer_elsewhere(void **state)
{
    (void)state;
    open_face(true, true);
    register_at_face(2, 5, "");
    world_run(&hw.w, NS_PER_S);
    register_at_discovery(2, 9, "");
    assert_true(says(ask(key(2)), 5));
    assert_int_equal(disc.gets, 0);
    world_run(&hw.w, 2 * FACE_OWN_NS);
    /* what the DHT holds is the carried one; the discovery's comes beside it or at the next question */
    resolve_distrust(r, key(2));
    (void)ask(key(2));
    world_run(&hw.w, NS_PER_S);
    resolve_set_http(r, &port, true);
    resolve_distrust(r, key(2));
    assert_true(says(ask(key(2)), 9));
    struct face_stat st = stat_now();
    assert_true(st.outdated == 1 && st.entries == 0);
}

/* What is taken back is not found again in the DHT, where nobody can delete it; a new one counts. */
static void test_taken_back(void **state)
{
    (void)state;
    open_face(true, true);
    register_at_face(2, 5, "visor");
    world_run(&hw.w, 5 * NS_PER_S);
    take_back(2, 6);
    assert_null(ask(key(2)));
    struct got g = list("clients");
    assert_false(has_key(&g, key(2)));
    world_run(&hw.w, 5 * NS_PER_S);
    assert_null(fake_disc_entry(&disc, key(2)));
    assert_int_equal(disc.deletes, 1);
    assert_null(ask(key(2)));
    assert_int_equal(stat_now().entries, 0);
    register_at_face(2, 7, "visor");
    assert_true(says(ask(key(2)), 7));
    take_back(2, 8);
    world_run(&hw.w, FACE_GONE_NS + 10 * NS_PER_S);
    assert_null(ask(key(2))); /* it has ended in the DHT too */
}

/* incident 45: the discovery is away when somebody registers, and gets it when it is back; what it refuses is not sent again. */
static void test_forwarded_later(void **state)
{
    (void)state;
    open_face(false, true);
    disc.down = ERR_NO_ROUTE;
    register_at_face(2, 5, "");
    world_run(&hw.w, 3 * FACE_RETRY_NS);
    assert_true(stat_now().waiting == 1 && stat_now().forward_failed >= 2);
    disc.down = 0;
    world_run(&hw.w, 2 * FACE_RETRY_NS);
    assert_int_equal(fake_disc_entry(&disc, key(2))->sequence, 5);
    assert_int_equal(stat_now().waiting, 0);
    register_at_discovery(3, 8, "");
    register_at_face(3, 7, "");
    world_run(&hw.w, 4 * FACE_RETRY_NS);
    assert_int_equal(disc.refused_seq, 1);
}

/* Those who ask for the same at once are one question, to the DHT as to the discovery. */
static void test_same_question(void **state)
{
    (void)state;
    struct got g[5];
    open_face(false, true);
    register_at_discovery(2, 3, "");
    for (int i = 0; i < 5; i++)
        ask_begin(&g[i], key(2), false);
    for (int i = 0; i < 5; i++) {
        world_until(&hw.w, is_answered, &g[i]);
        assert_true(says(g[i].text, 3));
    }
    assert_int_equal(disc.gets, 1);
    for (int i = 0; i < 5; i++)
        g[i] = (struct got){0};
    for (int i = 0; i < 5; i++)
        assert_int_equal(kv_members(face_kv(face), KV_STR("clients"), on_answer, &g[i]), 0);
    for (int i = 0; i < 5; i++) {
        world_until(&hw.w, is_answered, &g[i]);
        assert_true(has_key(&g[i], key(2)));
    }
    assert_int_equal(disc.lists, 1);
}

/* Found nowhere costs the slower of both; found in the DHT, the discovery is not waited for. */
static void test_race(void **state)
{
    (void)state;
    open_face(true, true);
    disc.delay_ns = 300 * NS_PER_MS;
    struct entry *e = entry_by(0, 4, "");
    char text[2048];
    snprintf(text, sizeof(text), "%.*s", (int)e->text_len, e->text);
    entry_free(e);
    assert_int_equal(hw_put(&hw, 0, "dmsg", text), 0);
    uint64_t from = now();
    assert_true(says(ask(key(0)), 4));
    assert_true(now() - from < RESOLVE_HTTP_AFTER_NS + disc.delay_ns);
    register_at_discovery(2, 6, "");
    from = now();
    assert_true(says(ask(key(2)), 6));
    assert_true(now() - from <= disc.delay_ns + 60 * NS_PER_MS);
    from = now();
    assert_null(ask(key(3)));
    assert_true(now() - from <= disc.delay_ns + 60 * NS_PER_MS);
}

/* Lists are merged: registered, in the DHT store, and listed by the discovery; what is old is shown while it is asked for anew. */
static void test_lists(void **state)
{
    (void)state;
    char text[2048];
    open_face(true, true);
    register_at_discovery(2, 1, "visor");
    register_at_discovery(1, 1, "");
    register_at_face(3, 1, "visor");
    struct entry *e = entry_by(0, 4, "");
    snprintf(text, sizeof(text), "%.*s", (int)e->text_len, e->text);
    entry_free(e);
    assert_int_equal(hw_put(&hw, 0, "dmsg", text), 0);
    world_run(&hw.w, 5 * NS_PER_S);
    struct got g = list("clients");
    assert_int_equal(g.n, 4);
    for (int i = 0; i < 4; i++)
        assert_true(has_key(&g, key(i)));
    g = list("visorClients");
    assert_true(g.n == 2 && has_key(&g, key(2)) && has_key(&g, key(3)));
    unsigned lists = disc.lists;
    assert_int_equal(list("clients").n, 4);
    assert_int_equal(disc.lists, lists);
    world_run(&hw.w, FACE_LIST_NS);
    disc.down = ERR_NO_ROUTE;
    uint64_t from = now();
    assert_int_equal(list("clients").n, 4);
    assert_true(now() == from && disc.lists == lists + 1);
    world_run(&hw.w, FACE_OLD_NS);
    assert_false(list("clients").n == 4 && now() == from);
    assert_true(stat_now().lists_failed > 0);
}

/* A discovery that hangs does not hold a list for longer than FACE_WAIT_NS. */
static void test_list_of_a_slow_discovery(void **state)
{
    (void)state;
    open_face(false, true);
    disc.delay_ns = 60 * NS_PER_S;
    register_at_face(3, 1, "");
    uint64_t from = now();
    struct got g = list("clients");
    assert_true(g.n == 1 && has_key(&g, key(3)));
    assert_true(now() - from <= FACE_WAIT_NS + 100 * NS_PER_MS);
}

/* Servers: as the discovery lists them, else by key and address; a question for one asks everybody first. */
static void test_servers(void **state)
{
    (void)state;
    struct got g;
    struct entry *e;
    open_face(false, true);
    relay.pk = *key(3);
    snprintf(relay.addr, sizeof(relay.addr), "192.0.2.1:8081");
    g = list("servers");
    assert_true(g.n == 1 && has_key(&g, key(3)));
    ask_begin(&g, key(3), true);
    assert_non_null(strstr(g.text, "\"sequence\":0"));
    assert_non_null(strstr(g.text, "192.0.2.1:8081"));
    assert_null(strstr(g.text, "signature"));
    assert_non_null(strstr(ask(key(3)), "192.0.2.1:8081"));
    assert_int_equal(disc.gets, 1); /* the list has asked for the next one */
    assert_int_equal(entry_new_server(&e, key(3), 4, 4000, "192.0.2.7:1", 11), 0);
    struct hash digest;
    struct sig sig;
    assert_int_equal(entry_digest(&digest, e), 0);
    assert_int_equal(crypto_sign_digest(&sig, &hw.w.client[3].key.sk, &digest), 0);
    assert_int_equal(entry_set_signature(e, &sig), 0);
    fake_disc_set(&disc, e->text, e->text_len);
    entry_free(e);
    world_run(&hw.w, FACE_LIST_NS);
    assert_int_equal(list("servers").n, 1);
    world_run(&hw.w, NS_PER_S);
    ask_begin(&g, key(3), true);
    assert_non_null(strstr(g.text, "192.0.2.7:1"));
    assert_non_null(strstr(g.text, "\"availableSessions\":11"));
}

/* What was registered is there after a restart, is carried again soon, and ends when it would have; what was taken back stays so. */
static void test_restart(void **state)
{
    (void)state;
    open_face(true, false);
    register_at_face(2, 5, "visor");
    register_at_face(3, 5, "");
    take_back(3, 6);
    world_run(&hw.w, FACE_SAVE_NS + NS_PER_S);
    face_free(face);
    struct face_cfg cfg = {.env = &hw.w.env.env,
                           .loop = &hw.w.net.loop,
                           .resolve = r,
                           .store = hw.node[1].store,
                           .host = hw.node[1].h,
                           .carrier = hw.w.client[1].key.sk};
    assert_int_equal(face_new(&face, &cfg), 0);
    struct face_stat st = stat_now();
    assert_true(st.restored == 1 && st.entries == 1);
    assert_true(says(ask(key(2)), 5));
    assert_null(ask(key(3)));
    struct got g = list("visorClients");
    assert_true(g.n == 1 && has_key(&g, key(2)));
    world_run(&hw.w, 40 * NS_PER_S);
    assert_int_equal(stat_now().carried, 1);
    face_free(face);
    hw.w.env.wall_ns += (int64_t)(TTL_MS * NS_PER_MS);
    assert_int_equal(face_new(&face, &cfg), 0);
    assert_int_equal(stat_now().restored, 0);
}

/* A damaged value is left where it breaks. */
static void test_damaged_values(void **state)
{
    (void)state;
    uint8_t junk[300];
    open_face(false, false);
    register_at_face(2, 5, "");
    face_free(face);
    face = NULL;
    struct store *s = hw.node[1].store;
    memset(junk, 0xff, sizeof(junk));
    for (unsigned i = 0; i < 16; i++) {
        char name[16];
        uint8_t had[4096];
        size_t n = 0;
        snprintf(name, sizeof(name), "facade.%x", i);
        if (s->ops->meta_get(s, name, had, sizeof(had) - sizeof(junk), &n) == 0 && n > 0) {
            memcpy(had + n, junk, sizeof(junk));
            assert_int_equal(s->ops->meta_put(s, name, had, n + sizeof(junk)), 0);
        } else {
            assert_int_equal(s->ops->meta_put(s, name, junk, i), 0);
        }
    }
    struct face_cfg cfg = {.env = &hw.w.env.env, .loop = &hw.w.net.loop, .resolve = r, .store = s};
    assert_int_equal(face_new(&face, &cfg), 0);
    assert_int_equal(stat_now().restored, 1);
}

/* An end while everything is under way. */
static void test_free_with_questions_under_way(void **state)
{
    (void)state;
    struct got a, b = {0};
    open_face(false, true);
    disc.delay_ns = 5 * NS_PER_S;
    register_at_face(3, 1, "");
    ask_begin(&a, key(2), false);
    assert_int_equal(kv_members(face_kv(face), KV_STR("clients"), on_answer, &b), 0);
    assert_true(a.calls == 0 && b.calls == 0);
    face_free(face);
    face = NULL;
    world_run(&hw.w, 20 * NS_PER_S);
    assert_true(a.calls == 0 && b.calls == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_carried_and_forwarded),
        TEST(test_newer_elsewhere),
        TEST(test_taken_back),
        TEST(test_forwarded_later),
        TEST(test_same_question),
        TEST(test_race),
        TEST(test_lists),
        TEST(test_list_of_a_slow_discovery),
        TEST(test_servers),
        TEST(test_restart),
        TEST(test_damaged_values),
        TEST(test_free_with_questions_under_way),
    };
    return crypto_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
