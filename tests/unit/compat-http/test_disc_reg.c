/*
 * The registration loop in virtual time, against a discovery in memory.
 */
#include "compat-http/disc_reg.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/env_test.h"
#include "base/err.h"
#include "tests/unit/compat-http/fake_disc.h"
#include "tests/unit/vectors.h"

#define SERVERS 3

static struct loop loop;
static struct env_test env;
static struct fake_disc disc;
static struct seckey sk;
static struct pubkey pk, server[SERVERS];

/* A node: what it says, and its publisher. */
struct teller {
    struct disc_reg *reg;
    bool client, relay, silent;
    size_t n;
    const char *type;
    unsigned done;
};
static struct teller one, two;

static bool fill(void *arg, struct disc_self *out)
{
    struct teller *t = arg;
    *out = (struct disc_self){.client = t->client,
                              .delegated = server,
                              .n_delegated = t->n,
                              .client_type = t->type,
                              .server = t->relay,
                              .address = "203.0.113.5:8081",
                              .available_sessions = 7};
    return !t->silent;
}

static void start(struct teller *t)
{
    struct disc_reg_cfg cfg = {.env = &env.env,
                               .loop = &loop,
                               .port = fake_disc_port(&disc),
                               .self = pk,
                               .sk = sk,
                               .fill = fill,
                               .arg = t};
    t->reg = disc_reg_new(&cfg);
    assert_non_null(t->reg);
}

static int setup(void **state)
{
    (void)state;
    env_test_init(&env, 1);
    loop_init(&loop, NS_PER_S);
    fake_disc_init(&disc, &loop);
    env_keypair(&env.env, &sk, &pk);
    for (int i = 0; i < SERVERS; i++) {
        struct seckey other;
        env_keypair(&env.env, &other, &server[i]);
    }
    one = (struct teller){.client = true, .n = 1, .type = ""};
    two = (struct teller){.relay = true, .type = ""};
    start(&one);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    disc_reg_free(one.reg);
    disc_reg_free(two.reg);
    fake_disc_free(&disc);
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

static struct disc_reg_stat stat_of(const struct teller *t)
{
    struct disc_reg_stat st;
    disc_reg_stat(t->reg, &st);
    return st;
}

static const struct entry *stored(void)
{
    return fake_disc_entry(&disc, &pk);
}

static void on_done(void *arg)
{
    ((struct teller *)arg)->done++;
}

/* An entry of our key into the discovery. */
static void put(uint64_t sequence, int64_t timestamp, bool relay, bool sound)
{
    struct entry *e;
    struct hash digest;
    struct sig sig;
    if (relay)
        assert_int_equal(entry_new_server(&e, &pk, sequence, timestamp, "203.0.113.9:1", 3), 0);
    else
        assert_int_equal(entry_new_client(&e, &pk, sequence, timestamp, server, 2, ""), 0);
    assert_int_equal(entry_digest(&digest, e), 0);
    digest.b[0] ^= sound ? 0 : 1;
    assert_int_equal(crypto_sign_digest(&sig, &sk, &digest), 0);
    assert_int_equal(entry_set_signature(e, &sig), 0);
    fake_disc_set(&disc, e->text, e->text_len);
    entry_free(e);
}

/* ---- */

static void test_first_and_next(void **state)
{
    (void)state;
    disc_reg_kick(one.reg);
    run(NS_PER_S);
    assert_non_null(stored());
    assert_int_equal(entry_verify(stored()), 0);
    assert_int_equal(stored()->sequence, 0);
    assert_true(stored()->has_client && !stored()->has_server);
    assert_int_equal(stored()->client.n_delegated, 1);
    one.n = 2;
    disc_reg_kick(one.reg);
    run(10 * NS_PER_S);
    assert_int_equal(stored()->sequence, 1);
    assert_int_equal(stored()->client.n_delegated, 2);
    run(3600 * NS_PER_S); /* and every five minutes, also when nothing changes */
    assert_in_range(stat_of(&one).published, 12, 16);
    assert_int_equal(disc.refused_seq, 0);
    assert_int_equal(stat_of(&one).failed, 0);
}

/* incident 52: whatever is there, it ends in one valid entry within two round trips */
static void test_whatever_is_there(void **state)
{
    (void)state;
    static const struct {
        bool there, relay, sound;
        uint64_t sequence;
    } cases[] = {{false, false, true, 0}, {true, false, true, 0},   {true, false, true, 600},
                 {true, true, true, 9},   {true, false, false, 31}, {true, true, false, 5}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        disc_reg_free(one.reg);
        start(&one);
        fake_disc_drop(&disc, &pk);
        if (cases[i].there)
            put(cases[i].sequence, env.wall_ns - 5, cases[i].relay, cases[i].sound);
        disc.gets = disc.posts = 0;
        disc_reg_kick(one.reg);
        run(2 * NS_PER_S);
        assert_int_equal(entry_verify(stored()), 0);
        assert_true(stored()->has_client);
        assert_int_equal(stored()->sequence, cases[i].there ? cases[i].sequence + 1 : 0);
        assert_int_equal(stored()->has_server, cases[i].relay && cases[i].sound);
        assert_true(disc.gets == 1 && disc.posts == 1);
    }
    /* and not before there is something to say */
    one.silent = true;
    disc_reg_free(one.reg);
    start(&one);
    fake_disc_drop(&disc, &pk);
    disc.gets = 0;
    disc_reg_kick(one.reg);
    run(600 * NS_PER_S);
    assert_int_equal(disc.gets, 0);
    one.silent = false;
    disc_reg_kick(one.reg);
    run(NS_PER_S);
    assert_non_null(stored());
}

/* incident 42: no storm of conflicts, neither by many triggers nor by restarts */
static void test_no_conflict_storm(void **state)
{
    (void)state;
    for (int hour = 0; hour < 3600; hour++) {
        for (int i = 0; i < 3; i++)
            disc_reg_kick(one.reg);
        run(NS_PER_S);
    }
    assert_int_equal(disc.refused_seq, 0);
    assert_in_range(disc.posts, 100, 3600 / 5 + 2);
    for (int i = 0; i < 20; i++) {
        disc_reg_free(one.reg);
        start(&one);
        disc_reg_kick(one.reg);
        run(NS_PER_S);
    }
    assert_int_equal(disc.refused_seq, 0);
    /* somebody else writes between our question and our answer */
    disc.delay_ns = NS_PER_S;
    disc_reg_kick(one.reg);
    run(5700 * NS_PER_MS);
    uint64_t before = stat_of(&one).published;
    put(stored()->sequence + 100, env.wall_ns, false, true);
    run(20 * NS_PER_S);
    assert_int_equal(disc.refused_seq, 1);
    assert_true(stat_of(&one).published > before);
    assert_int_equal(stat_of(&one).conflicts, 1);
}

/* incident 42: at most five repeats, then a pause */
static void test_conflicts_end(void **state)
{
    (void)state;
    disc.down = ERR_SEQ; /* GET fails too */
    disc_reg_kick(one.reg);
    run(60 * NS_PER_S);
    assert_in_range(disc.gets, 1, 12);
    assert_int_equal(disc.posts, 0);
}

/* incident 43: a thousand changes a minute are few publications */
static void test_coalesced(void **state)
{
    (void)state;
    for (int i = 0; i < 60000; i += 60) {
        one.n = (size_t)(i / 60 % 3);
        disc_reg_kick(one.reg);
        run(60 * NS_PER_MS);
    }
    assert_in_range(disc.posts, 2, 13);
}

/* incident 45: down at the start or in between, for a minute or an hour; registered within two minutes after it is back */
static void test_outages(void **state)
{
    (void)state;
    static const uint64_t minutes[] = {0, 1, 60};
    for (int mid = 0; mid < 2; mid++)
        for (size_t i = 0; i < 3; i++) {
            disc_reg_free(one.reg);
            start(&one);
            fake_disc_drop(&disc, &pk);
            if (!mid)
                disc.down = ERR_NO_ROUTE;
            disc_reg_kick(one.reg);
            run(10 * NS_PER_S);
            if (mid) {
                disc.down = ERR_NO_ROUTE;
                fake_disc_drop(&disc, &pk);
                disc_reg_kick(one.reg);
            }
            unsigned gets = disc.gets;
            run(minutes[i] * 60 * NS_PER_S);
            assert_in_range(disc.gets - gets, 0, minutes[i] * 60 / 20 + 10); /* no flood */
            disc.down = 0;
            run(120 * NS_PER_S);
            assert_non_null(stored());
            assert_int_equal(entry_verify(stored()), 0);
        }
}

/* incident 51: two publishers of one key; both halves survive, with all their members */
static void test_two_halves(void **state)
{
    (void)state;
    start(&two);
    disc_reg_kick(one.reg);
    run(NS_PER_S);
    disc_reg_kick(two.reg);
    run(NS_PER_S);
    for (int i = 0; i < 60; i++) {
        run(60 * NS_PER_S);
        assert_true(stored()->has_client && stored()->has_server);
        assert_int_equal(stored()->client.n_delegated, 1);
        assert_string_equal(stored()->server.address, "203.0.113.5:8081");
        assert_int_equal(entry_verify(stored()), 0);
    }
    /* the other one is gone for good: its half goes too */
    disc_reg_free(two.reg);
    two.reg = NULL;
    run(2 * DISC_REG_FOREIGN_NS);
    assert_true(stored()->has_client && !stored()->has_server);
}

static void test_withdraw(void **state)
{
    (void)state;
    disc_reg_withdraw(one.reg, on_done, &one); /* before anything was published */
    run(NS_PER_S);
    assert_int_equal(one.done, 1);
    assert_int_equal(disc.gets, 0);
    disc_reg_free(one.reg);
    start(&one);
    disc_reg_kick(one.reg);
    run(NS_PER_S);
    disc_reg_withdraw(one.reg, on_done, &one);
    run(NS_PER_S);
    assert_int_equal(one.done, 2);
    assert_null(stored());
    disc_reg_kick(one.reg);
    run(600 * NS_PER_S);
    assert_null(stored());
    assert_int_equal(one.done, 2);
}

static void test_withdraw_one_half(void **state)
{
    (void)state;
    start(&two);
    disc_reg_kick(one.reg);
    run(NS_PER_S);
    disc_reg_kick(two.reg);
    run(NS_PER_S);
    disc_reg_withdraw(one.reg, on_done, &one);
    run(2 * NS_PER_S);
    assert_int_equal(one.done, 1);
    assert_true(stored()->has_server && !stored()->has_client);
    assert_int_equal(entry_verify(stored()), 0);
    disc.down = ERR_NO_ROUTE;
    disc_reg_withdraw(two.reg, on_done, &two);
    run(2 * NS_PER_S);
    assert_int_equal(two.done, 1); /* nobody answers: it is over all the same */
}

/* §2.2 rule 3: a service of 2023 */
static void test_old_service(void **state)
{
    (void)state;
    disc.old = true;
    one.type = "visor";
    disc_reg_kick(one.reg);
    run(5 * NS_PER_S);
    assert_non_null(stored());
    assert_string_equal(stored()->client_type, "");
    unsigned posts = disc.posts;
    assert_int_equal(posts, 2);
    disc_reg_kick(one.reg);
    run(10 * NS_PER_S);
    assert_int_equal(disc.posts, posts + 1); /* it is remembered */
}

/* A stored timestamp in the future blocks older ones (§3.2): it is taken over. */
static void test_clock_behind(void **state)
{
    (void)state;
    put(4, env.wall_ns + (int64_t)(86400 * NS_PER_S), false, true);
    disc_reg_kick(one.reg);
    run(NS_PER_S);
    assert_int_equal(stored()->sequence, 5);
    assert_int_equal(disc.refused_seq, 0);
}

static void test_freed_under_way(void **state)
{
    (void)state;
    env.deferred = true;
    disc_reg_kick(one.reg);
    run(NS_PER_S); /* waits for its signature */
    disc_reg_free(one.reg);
    start(&one);
    env.deferred = false;
    disc_reg_kick(one.reg);
    run(205 * NS_PER_MS); /* waits for the answer */
    assert_int_equal(fake_disc_pending(&disc), 1);
    disc_reg_free(one.reg);
    one.reg = NULL;
    assert_int_equal(fake_disc_pending(&disc), 0);
}

/* Incident 47. A fleet whose discovery comes back after an outage does not come at once: its pauses have drifted apart. All are there within two minutes. */
static void test_no_herd(void **state)
{
    (void)state;
    enum { FLEET = 60, SECONDS = 120 };
    static struct teller fleet[FLEET];
    struct pubkey own = pk;
    struct seckey own_sk = sk;
    unsigned most = 0;
    disc.down = ERR_NO_ROUTE;
    for (int i = 0; i < FLEET; i++) {
        env_keypair(&env.env, &sk, &pk);
        fleet[i] = (struct teller){.client = true, .n = 1, .type = ""};
        start(&fleet[i]);
        disc_reg_kick(fleet[i].reg); /* all in the same moment */
    }
    pk = own;
    sk = own_sk;
    run(600 * NS_PER_S);
    disc.down = 0;
    for (int i = 0; i < SECONDS; i++) {
        unsigned before = disc.posts;
        run(NS_PER_S);
        most = disc.posts - before > most ? disc.posts - before : most;
    }
    assert_int_equal(disc.n, FLEET);
    assert_in_range(most, 1, FLEET / 4);
    for (int i = 0; i < FLEET; i++)
        disc_reg_free(fleet[i].reg);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_first_and_next, setup, teardown),
        cmocka_unit_test_setup_teardown(test_whatever_is_there, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_conflict_storm, setup, teardown),
        cmocka_unit_test_setup_teardown(test_conflicts_end, setup, teardown),
        cmocka_unit_test_setup_teardown(test_coalesced, setup, teardown),
        cmocka_unit_test_setup_teardown(test_outages, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_herd, setup, teardown),
        cmocka_unit_test_setup_teardown(test_two_halves, setup, teardown),
        cmocka_unit_test_setup_teardown(test_withdraw, setup, teardown),
        cmocka_unit_test_setup_teardown(test_withdraw_one_half, setup, teardown),
        cmocka_unit_test_setup_teardown(test_old_service, setup, teardown),
        cmocka_unit_test_setup_teardown(test_clock_behind, setup, teardown),
        cmocka_unit_test_setup_teardown(test_freed_under_way, setup, teardown),
    };
    return crypto_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
