/*
 * The way back in virtual time, against a discovery in memory, alone and with a mirror that closes the circle.
 */
#include "compat-http/pusher.h"

#include <stdlib.h>

#include "base/env_test.h"
#include "base/err.h"
#include "compat-http/mirror.h"
#include "tests/unit/compat-http/fake_disc.h"
#include "tests/unit/vectors.h"

#define KEYS 20

static struct loop loop;
static struct env_test env;
static struct fake_disc disc;
static struct pusher *pusher;
static struct seckey sk[KEYS];
static struct pubkey pk[KEYS];
static struct entry *held[KEYS]; /* what the DHT has */
static unsigned all_asked, one_asked;

static void offer(size_t i)
{
    if (held[i] != NULL)
        pusher_offer(pusher, &pk[i], held[i]->text, held[i]->text_len);
}

static void on_again(void *arg, const struct pubkey *of)
{
    (void)arg;
    all_asked += of == NULL;
    one_asked += of != NULL;
    for (size_t i = 0; i < KEYS; i++)
        if (of == NULL || pubkey_equal(of, &pk[i]))
            offer(i);
}

static int setup(void **state)
{
    (void)state;
    env_test_init(&env, 1);
    loop_init(&loop, NS_PER_S);
    fake_disc_init(&disc, &loop);
    for (int i = 0; i < KEYS; i++)
        env_keypair(&env.env, &sk[i], &pk[i]);
    struct pusher_cfg cfg = {
        .env = &env.env, .loop = &loop, .port = fake_disc_port(&disc), .again = on_again};
    pusher = pusher_new(&cfg);
    assert_non_null(pusher);
    all_asked = one_asked = 0;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    pusher_free(pusher);
    fake_disc_free(&disc);
    for (int i = 0; i < KEYS; i++) {
        entry_free(held[i]);
        held[i] = NULL;
    }
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

static struct pusher_stat stat_now(void)
{
    struct pusher_stat st;
    pusher_stat(pusher, &st);
    return st;
}

/* Key i publishes in the DHT; nobody is told yet. */
static void publish(size_t i, uint64_t sequence)
{
    struct hash digest;
    struct sig sig;
    entry_free(held[i]);
    assert_int_equal(entry_new_client(&held[i], &pk[i], sequence, env_wall_ns(&env.env), pk, 1, ""),
                     0);
    assert_int_equal(entry_digest(&digest, held[i]), 0);
    assert_int_equal(crypto_sign_digest(&sig, &sk[i], &digest), 0);
    assert_int_equal(entry_set_signature(held[i], &sig), 0);
}

static bool has(size_t i)
{
    const struct entry *e = fake_disc_entry(&disc, &pk[i]);
    return e != NULL && held[i] != NULL && entry_cmp(e, held[i]) == 0;
}

static void publish_all(uint64_t sequence)
{
    for (size_t i = 0; i < KEYS; i++) {
        publish(i, sequence);
        offer(i);
    }
}

static void test_pushed_once(void **state)
{
    (void)state;
    publish_all(5);
    for (int r = 0; r < 100; r++) { /* full nodes hand the same items around */
        for (size_t i = 0; i < KEYS; i++)
            offer(i);
        run(NS_PER_S);
    }
    for (size_t i = 0; i < KEYS; i++)
        assert_true(has(i));
    assert_int_equal(disc.posts, KEYS);
    assert_int_equal(stat_now().pushed, KEYS);
    publish(3, 6);
    offer(3);
    publish(3, 7);
    offer(3);
    run(NS_PER_S);
    assert_true(has(3));
    assert_in_range(disc.posts, KEYS + 1, KEYS + 2);
}

/* Two relays push the same: the second one is told "old", and that is the end of it. */
static void test_there_already(void **state)
{
    (void)state;
    publish(0, 5);
    fake_disc_set(&disc, held[0]->text, held[0]->text_len);
    for (int r = 0; r < 50; r++) {
        offer(0);
        run(NS_PER_S);
    }
    assert_int_equal(disc.posts, 1);
    assert_int_equal(stat_now().refused_old, 1);
    publish(1, 5);
    fake_disc_set(&disc, held[1]->text, held[1]->text_len);
    pusher_seen(pusher, &pk[1], held[1]->text, held[1]->text_len); /* its mirror brought it */
    offer(1);
    run(NS_PER_S);
    assert_int_equal(disc.posts, 1);
}

static void test_what_is_no_entry(void **state)
{
    (void)state;
    publish(0, 1);
    pusher_offer(pusher, &pk[0], "{}", 2);
    pusher_offer(pusher, &pk[0], "[1", 2);
    pusher_offer(pusher, &pk[1], held[0]->text, held[0]->text_len); /* of another key */
    run(NS_PER_S);
    assert_int_equal(disc.posts, 0);
    assert_int_equal(stat_now().dropped, 3);
    assert_int_equal(stat_now().waiting, 0);
}

/* Incident 70: the discovery comes back with nothing; it gets everything from the DHT, without being flooded while it is away. */
static void test_incident_70_refilled_after_a_loss(void **state)
{
    (void)state;
    publish_all(5);
    run(5 * NS_PER_S);
    disc.down = ERR_RESET;
    for (size_t i = 0; i < KEYS; i++)
        fake_disc_drop(&disc, &pk[i]);
    unsigned gets = disc.gets;
    publish(2, 6);
    offer(2);
    run(1000 * NS_PER_S);
    assert_true(stat_now().away);
    assert_in_range(stat_now().failed, 10, 80);
    assert_true(disc.gets - gets <= 80);
    disc.down = 0;
    run(200 * NS_PER_S);
    assert_int_equal(all_asked, 1);
    for (size_t i = 0; i < KEYS; i++)
        assert_true(has(i));
    assert_int_equal(stat_now().waiting, 0);
}

/* Lost without having been away: found out by looking. One that is missing is pushed alone. */
static void test_incident_70_lost_in_silence(void **state)
{
    (void)state;
    publish_all(5);
    run(5 * NS_PER_S);
    fake_disc_drop(&disc, &pk[7]);
    run(10 * PUSHER_PROBE_NS);
    assert_true(has(7));
    assert_int_equal(one_asked, 1);
    assert_int_equal(all_asked, 0);
    for (size_t i = 0; i < KEYS; i++)
        fake_disc_drop(&disc, &pk[i]);
    run(3 * PUSHER_PROBE_NS);
    assert_int_equal(all_asked, 1);
    for (size_t i = 0; i < KEYS; i++)
        assert_true(has(i));
}

/* A discovery that takes everything and has nothing costs less and less. */
static void test_lying(void **state)
{
    (void)state;
    publish_all(5);
    run(5 * NS_PER_S);
    for (int t = 0; t < 360; t++) {
        for (size_t i = 0; i < KEYS; i++)
            fake_disc_drop(&disc, &pk[i]);
        run(10 * NS_PER_S);
    }
    assert_in_range(all_asked, 2, 8); /* in an hour */
    assert_true(disc.posts < KEYS * 30);
}

/* What it does not want is not offered again, whether it is looked for or not. */
static void test_refused_for_itself(void **state)
{
    (void)state;
    disc.old = true;
    struct hash digest;
    struct sig sig;
    assert_int_equal(entry_new_client(&held[0], &pk[0], 1, 5, pk, 1, "visor"), 0);
    assert_int_equal(entry_digest(&digest, held[0]), 0);
    assert_int_equal(crypto_sign_digest(&sig, &sk[0], &digest), 0);
    assert_int_equal(entry_set_signature(held[0], &sig), 0);
    for (int i = 0; i < 100; i++) {
        offer(0);
        run(10 * NS_PER_S);
    }
    assert_int_equal(disc.posts, 1);
    assert_int_equal(stat_now().refused, 1);
}

static void test_slow_discovery(void **state)
{
    (void)state;
    disc.delay_ns = 9 * NS_PER_S;
    publish_all(1);
    for (int i = 0; i < 10; i++) { /* changes meanwhile are one */
        run(NS_PER_S);
        publish(0, (uint64_t)i + 2);
        offer(0);
        assert_true(fake_disc_pending(&disc) <= PUSHER_FLIGHT + PUSHER_PROBES);
    }
    run(200 * NS_PER_S);
    for (size_t i = 0; i < KEYS; i++)
        assert_true(has(i));
    assert_true(disc.posts <= KEYS + 3);
}

/* ---- the circle: discovery -> mirror -> DHT -> pusher -> discovery ---- */

static struct mirror *mirror;
static uint64_t mirrored;
static struct loop_timer taken;
static const struct entry *last_posted[KEYS];

static void on_taken(struct loop_timer *t)
{
    (void)t;
    mirror_written(mirror, 0, 0);
}

/* Full nodes: every item that is new to them goes to their pusher. */
static int take(void *arg, const struct mirror_write *w, size_t n, size_t *n_taken)
{
    (void)arg;
    *n_taken = n;
    for (size_t i = 0; i < n; i++) {
        const struct item *it = &w[i].item->item;
        struct entry *e;
        mirrored++;
        if (w[i].gone || entry_parse(&e, (const char *)it->v, it->v_len) != 0)
            continue;
        pusher_offer(pusher, &e->static_pk, (const char *)it->v, it->v_len);
        entry_free(e);
    }
    loop_timer_set(&loop, &taken, loop.now_ns + NS_PER_MS);
    return 0;
}

/* What the discovery accepted since the last look goes to its mirror. */
static void feed_mirror(void)
{
    for (size_t i = 0; i < KEYS; i++) {
        const struct entry *e = fake_disc_entry(&disc, &pk[i]);
        if (e != NULL && e != last_posted[i])
            mirror_entry(mirror, e, e->text, e->text_len);
        last_posted[i] = e;
    }
}

static void test_no_loop(void **state)
{
    struct mirror_cfg cfg = {.env = &env.env, .loop = &loop, .pk = pk[0], .sk = sk[0]};
    (void)state;
    mirror = mirror_new(&cfg);
    assert_non_null(mirror);
    taken.fn = on_taken;
    mirrored = 0;
    memset(last_posted, 0, sizeof(last_posted));
    (void)mirror_add_sink(mirror, "dht", take, NULL);
    publish_all(5); /* half by the DHT … */
    for (size_t i = 0; i < KEYS / 2; i++) {
        publish(i, 9); /* … and half over HTTP */
        fake_disc_set(&disc, held[i]->text, held[i]->text_len);
    }
    for (int t = 0; t < 600; t++) {
        feed_mirror();
        run(NS_PER_S);
    }
    assert_int_equal(mirrored, KEYS);
    assert_true(disc.posts <= 2 * KEYS);
    for (size_t i = 0; i < KEYS; i++)
        assert_true(has(i));
    mirror_free(mirror);
    loop_timer_cancel(&loop, &taken);
}

static void test_free_while_busy(void **state)
{
    (void)state;
    publish_all(1);
    run(NS_PER_MS);
    pusher_gone(pusher, &pk[0]); /* under way */
    publish(1, 2);
    offer(1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_pushed_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_there_already, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_no_entry, setup, teardown),
        cmocka_unit_test_setup_teardown(test_incident_70_refilled_after_a_loss, setup, teardown),
        cmocka_unit_test_setup_teardown(test_incident_70_lost_in_silence, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lying, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused_for_itself, setup, teardown),
        cmocka_unit_test_setup_teardown(test_slow_discovery, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_loop, setup, teardown),
        cmocka_unit_test_setup_teardown(test_free_while_busy, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
