/* mesh: streams over two relays, and what they may cost (docs/protocol/dmsg.md §5.2, §5.3) in virtual
 * time; incidents 27, 28, 29. */
#include "transport/mesh.h"

#include "base/log.h"
#include "tests/unit/prop.h"
#include "tests/unit/transport/mesh_world.h"
#include "tests/unit/vectors.h"

/* ---- forwarding ---- */

/* A client of relay 0 and one of relay 1 reach each other, in both directions, FIN after FIN. */
static void forwards(void)
{
    struct mesh_world m;
    mw_pair(&m, NULL);
    struct rw_peer *a = rw_peer_new(mw_at(&m, 0), 1), *b = rw_peer_new(mw_at(&m, 1), 2);
    b->echo = a->echo = true;
    for (int dir = 0; dir < 2; dir++) {
        struct rw_peer *from = dir == 0 ? a : b, *to = dir == 0 ? b : a;
        struct rw_stream *s = rw_dial(from, &to->key.pk);
        assert_int_equal(rw_verdict(s), 0);
        assert_int_equal(mw_stat(&m, 0).relayed, 1);
        assert_int_equal(mw_stat(&m, 1).relayed, 1);
        rw_pattern(s, 3 << 20, true);
        rw_run(&m.w, 10 * NS_PER_S);
        assert_true(s->eof && s->got == 3 << 20 && !s->wrong);
        struct rw_stream *in = rw_last_incoming(to);
        assert_int_equal(in->obj_n > 0, 1);
        struct object_request req; /* visible under the source's key */
        assert_int_equal(object_decode_request(&req, in->obj, in->obj_n), 0);
        assert_true(pubkey_equal(&req.src.pk, &from->key.pk));
        assert_int_equal(mw_stat(&m, dir).forwarded, 1);
        assert_int_equal(mw_stat(&m, 0).relayed, 0);
    }
    mw_finish(&m);
}

static void test_forwards(void **state)
{
    (void)state;
    rw_twice(forwards);
}

/* Row "two meshed servers, destination on neither": closed at once, no loop, remembered for 2 s, the
 * next time longer; heard of, it is tried again. */
static void nowhere(void)
{
    struct mesh_world m;
    mw_pair(&m, NULL);
    struct rw_peer *a = rw_peer_new(mw_at(&m, 0), 1);
    struct rw_key lost = rw_key_of(77);
    uint64_t from = pipe_now(&m.w.net);
    assert_int_equal(rw_verdict(rw_dial(a, &lost.pk)), -1);
    assert_true(pipe_now(&m.w.net) - from < NS_PER_S);
    assert_int_equal(mw_stat(&m, 0).forward_failed, 1);
    assert_int_equal(mw_code_count(&m, 0, ERR_DMSG_NO_NEXT_SESSION), 1);
    assert_int_equal(mw_code_count(&m, 1, ERR_DMSG_NO_NEXT_SESSION), 1);
    assert_int_equal(mw_stat(&m, 1).forward_failed, 0); /* never forwarded again */
    uint64_t asked = mw_stat(&m, 1).streams;
    for (int i = 0; i < 5; i++)
        assert_int_equal(rw_verdict(rw_dial(a, &lost.pk)), -1);
    assert_int_equal(mw_stat(&m, 0).miss_hits, 5);
    assert_int_equal(mw_stat(&m, 1).streams, asked); /* nobody was asked */
    /* 2 s, 4, 8, 16, 30, 30 */
    static const unsigned s_of[] = {2, 4, 8, 16, 30, 30};
    for (size_t i = 0; i < sizeof s_of / sizeof s_of[0]; i++) {
        rw_run(&m.w, s_of[i] * NS_PER_S - 200 * NS_PER_MS);
        uint64_t hits = mw_stat(&m, 0).miss_hits;
        assert_int_equal(rw_verdict(rw_dial(a, &lost.pk)), -1);
        assert_int_equal(mw_stat(&m, 0).miss_hits, hits + 1);
        rw_run(&m.w, 400 * NS_PER_MS);
        assert_int_equal(rw_verdict(rw_dial(a, &lost.pk)), -1);
        assert_int_equal(mw_stat(&m, 0).miss_hits, hits + 1);
        assert_int_equal(mw_stat(&m, 0).forward_failed, i + 2);
    }
    /* It comes to relay 1, and speaks: nobody waits for the end of the 30 s. */
    struct rw_peer *b = rw_peer_new(mw_at(&m, 1), 77);
    assert_int_equal(rw_verdict(rw_dial(b, &a->key.pk)), 0);
    assert_int_equal(rw_verdict(rw_dial(a, &b->key.pk)), 0);
    assert_int_equal(mw_stat(&m, 0).missed, 0);
    mw_finish(&m);
}

static void test_nowhere(void **state)
{
    (void)state;
    rw_twice(nowhere);
}

/* Incident 27: from relay to relay to relay is not forwarded. */
static void test_incident_27_two_relays_at_most(void **state)
{
    struct mesh_world m;
    (void)state;
    mw_pair(&m, NULL);
    mw_relay(&m, 2, NULL);
    mw_found(&m, 2, 1); /* 0 - 1 - 2, but not 0 - 2 */
    rw_run(&m.w, NS_PER_S);
    assert_int_equal(mw_stat(&m, 1).peers, 2);
    assert_int_equal(mw_stat(&m, 2).peers, 1);
    struct rw_peer *a = rw_peer_new(mw_at(&m, 0), 1), *c = rw_peer_new(mw_at(&m, 2), 2),
                   *b = rw_peer_new(mw_at(&m, 1), 3);
    assert_int_equal(rw_verdict(rw_dial(a, &c->key.pk)), -1);
    assert_int_equal(c->incoming, 0);
    assert_int_equal(rw_verdict(rw_dial(b, &c->key.pk)), 0);
    assert_int_equal(rw_verdict(rw_dial(b, &a->key.pk)), 0);
    mw_finish(&m);
}

/* Incident 27: a relay that cannot be dialled is reached through the link that it made. */
static void private_relay(void)
{
    struct mesh_world m;
    mw_start(&m, NULL);
    mw_relay(&m, 1, NULL);
    pipe_unlisten(&m.w.net, m.addr[1]);
    mw_found(&m, 1, 0);
    rw_run(&m.w, NS_PER_S);
    assert_int_equal(mw_stat(&m, 0).peers, 1);
    assert_int_equal(mw_stat(&m, 0).dials, 0);
    struct rw_peer *a = rw_peer_new(mw_at(&m, 0), 1), *b = rw_peer_new(mw_at(&m, 1), 2);
    assert_int_equal(rw_verdict(rw_dial(a, &b->key.pk)), 0);
    assert_int_equal(rw_verdict(rw_dial(b, &a->key.pk)), 0);
    mw_finish(&m);
}

static void test_incident_27_private_relay(void **state)
{
    (void)state;
    rw_twice(private_relay);
}

/* ---- incident 28: a session that speaks for another key ---- */

static int foreign_request(struct mesh_world *m, struct rw_peer *p, const struct pubkey *dst,
                           bool valid, bool ip)
{
    struct rw_key k = rw_key_of(44), wrong = rw_key_of(45);
    struct rw_stream *s = rw_open(p);
    struct object_request req = rw_request(s, dst);
    req.src.pk = k.pk;
    if (ip) {
        req.ip_info = true;
        req.noise_msg = (struct gob_bytes){0};
        req.dst = (struct object_addr){m->key[0].pk, 1};
    }
    rw_send_request(s, &req, valid ? &k.sk : &wrong.sk);
    uint64_t from = pipe_now(&m->w.net);
    for (int i = 0; i < 100 && !s->opened && !rw_over(s); i++)
        rw_run(&m->w, 10 * NS_PER_MS);
    assert_true(pipe_now(&m->w.net) - from < 500 * NS_PER_MS); /* refused at once */
    return rw_verdict(s);
}

static void incident_28(void)
{
    for (int on = 0; on < 2; on++) {
        struct mesh_world m;
        mw_start(&m, &(struct relay_cfg){.accept_relayed = on == 1});
        struct rw_peer *client = rw_peer_new(mw_at(&m, 0), 1), *link = rw_peer_new(&m.w, 2),
                       *dst = rw_peer_new(&m.w, 3);
        assert_int_equal(mw_announce(&m, link), 1);
        assert_int_equal(foreign_request(&m, client, &dst->key.pk, true, false), on ? 0 : -1);
        assert_int_equal(mw_stat(&m, 0).relayed, on);
        assert_int_equal(foreign_request(&m, client, &dst->key.pk, false, false), -1);
        assert_int_equal(foreign_request(&m, link, &dst->key.pk, true, false), 0);
        assert_int_equal(foreign_request(&m, link, &dst->key.pk, false, false), -1);
        assert_int_equal(foreign_request(&m, link, &dst->key.pk, true, true), -1);
        assert_int_equal(foreign_request(&m, client, &dst->key.pk, true, true), -1);
        assert_int_equal(dst->incoming, on ? 2 : 1);
        assert_int_equal(rw_verdict(rw_dial(client, &dst->key.pk)), 0); /* plain: without a slot */
        assert_int_equal(mw_stat(&m, 0).relayed, on ? 2 : 1);
        mw_finish(&m);
    }
}

static void test_incident_28_foreign_source(void **state)
{
    (void)state;
    rw_twice(incident_28);
}

/* Incident 28: a relay that does not answer costs a dialer 5 s, and for a minute nothing more. */
static void test_incident_28_mute_relay(void **state)
{
    struct mesh_world m;
    struct rw_key lost = rw_key_of(77), other = rw_key_of(78);
    (void)state;
    mw_fake(&m, RW_ACCEPT);
    m.fake->answer = RW_SILENT;
    struct rw_peer *a = rw_peer_new(mw_at(&m, 0), 1);
    uint64_t from = pipe_now(&m.w.net);
    assert_int_equal(rw_verdict(rw_dial(a, &lost.pk)), -1);
    assert_in_range(pipe_now(&m.w.net) - from, 5 * NS_PER_S, 5 * NS_PER_S + 100 * NS_PER_MS);
    for (int i = 0; i < 5; i++) {
        from = pipe_now(&m.w.net);
        assert_int_equal(rw_verdict(rw_dial(a, &lost.pk)), -1);
        assert_true(pipe_now(&m.w.net) - from < 100 * NS_PER_MS);
        rw_run(&m.w, 10 * NS_PER_S);
    }
    assert_int_equal(mw_stat(&m, 0).miss_hits, 0); /* a time-out is no denial */
    assert_int_equal(m.fake->incoming, 2);
    assert_int_equal(rw_verdict(rw_dial(a, &other.pk)), -1); /* for others it is asked */
    assert_int_equal(m.fake->incoming, 3);
    rw_run(&m.w, 15 * NS_PER_S);
    assert_int_equal(rw_verdict(rw_dial(a, &lost.pk)), -1);
    assert_int_equal(m.fake->incoming, 4);
    mw_finish(&m);
}

/* ---- verification and the next relay ---- */

/* What a relay says in the name of the destination is checked; the next one is asked. */
static void liars(void)
{
    static const enum rw_answer answers[] = {RW_ACCEPT /* signed by itself */,
                                             RW_WRONG_HASH,
                                             RW_BAD_GOB,
                                             RW_SHORT_OBJECT,
                                             RW_PING_MARKER,
                                             RW_FIN,
                                             RW_RESET,
                                             RW_REFUSE};
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        struct mesh_world m;
        mw_fake_and_relay(&m, RW_ACCEPT);
        m.fake->answer = answers[i];
        struct rw_peer *a = rw_peer_new(mw_at(&m, 0), 1), *b = rw_peer_new(mw_at(&m, 1), 2);
        struct rw_stream *s = rw_dial(a, &b->key.pk);
        assert_int_equal(rw_verdict(s), 0);
        assert_int_equal(m.fake->incoming, 2);
        assert_int_equal(b->incoming, 1);
        assert_int_equal(mw_stat(&m, 0).forward_failed, 1);
        assert_int_equal(mw_stat(&m, 0).forwarded, 1);
        struct rw_key lost = rw_key_of(77);
        assert_int_equal(rw_verdict(rw_dial(a, &lost.pk)), -1);
        assert_int_equal(mw_stat(&m, 0).missed, answers[i] == RW_FIN); /* both must deny */
        mw_finish(&m);
    }
}

static void test_liars(void **state)
{
    (void)state;
    rw_twice(liars);
}

/* A relay that vanished without FIN costs 1.5 s once, long before its session is given up. */
static void test_frozen_relay(void **state)
{
    struct mesh_world m;
    (void)state;
    mw_fake_and_relay(&m, RW_ACCEPT);
    struct rw_peer *a = rw_peer_new(mw_at(&m, 0), 1), *b = rw_peer_new(mw_at(&m, 1), 2),
                   *c = rw_peer_new(&m.w, 3);
    m.fake->conn->out.frozen = true;
    uint64_t from = pipe_now(&m.w.net);
    assert_int_equal(rw_verdict(rw_dial(a, &b->key.pk)), 0);
    assert_in_range(pipe_now(&m.w.net) - from, 1500 * NS_PER_MS, 1600 * NS_PER_MS);
    from = pipe_now(&m.w.net);
    assert_int_equal(rw_verdict(rw_dial(a, &c->key.pk)), 0);
    assert_true(pipe_now(&m.w.net) - from < 100 * NS_PER_MS);
    /* It is heard again: asked first, as before. */
    m.fake->conn->out.frozen = false;
    pipe_wake(m.fake->conn);
    m.fake->answer = RW_FIN;
    rw_run(&m.w, 5 * NS_PER_S);
    static const uint8_t marker[2] = {0, 0};
    rw_write(rw_open(m.fake), marker, 2);
    rw_run(&m.w, NS_PER_S);
    unsigned asked = m.fake->incoming;
    assert_int_equal(rw_verdict(rw_dial(a, &b->key.pk)), 0);
    assert_int_equal(m.fake->incoming, asked + 1);
    mw_finish(&m);
}

/* What does not answer announcements is asked last. */
static void test_lame_relay_is_asked_last(void **state)
{
    struct mesh_world m;
    (void)state;
    mw_fake(&m, RW_SILENT);
    mw_relay(&m, 1, NULL);
    mw_found(&m, 1, 0);
    for (int i = 0; i < 2; i++) { /* at once, and when its time is over */
        rw_run(&m.w, (i == 0 ? 1 : 10) * NS_PER_S);
        struct rw_peer *a = rw_peer_new(mw_at(&m, 0), 1 + 2 * (unsigned)i),
                       *b = rw_peer_new(mw_at(&m, 1), 2 + 2 * (unsigned)i);
        uint64_t from = pipe_now(&m.w.net);
        assert_int_equal(rw_verdict(rw_dial(a, &b->key.pk)), 0);
        assert_true(pipe_now(&m.w.net) - from < 100 * NS_PER_MS);
    }
    assert_int_equal(m.fake->incoming, 1);
    mw_finish(&m);
}

/* A signed refusal of the destination comes through two relays, and ends the search. */
static void refusal(void)
{
    struct mesh_world m;
    mw_pair(&m, NULL);
    struct rw_peer *a = rw_peer_new(mw_at(&m, 0), 1), *b = rw_peer_new(mw_at(&m, 1), 2);
    b->answer = RW_REFUSE;
    struct rw_stream *s = rw_dial(a, &b->key.pk);
    assert_int_equal(rw_verdict(s), ERR_DMSG_NO_LISTENER);
    assert_int_equal(mw_stat(&m, 0).missed, 0);
    assert_int_equal(mw_stat(&m, 0).relayed, 0);
    mw_finish(&m);
}

static void test_refusal(void **state)
{
    (void)state;
    rw_twice(refusal);
}

/* A link that breaks in the middle of a set-up or a transfer. */
static void test_link_breaks(void **state)
{
    struct mesh_world m;
    (void)state;
    mw_fake_and_relay(&m, RW_ACCEPT);
    m.fake->answer = RW_SILENT;
    struct rw_peer *a = rw_peer_new(mw_at(&m, 0), 1), *b = rw_peer_new(mw_at(&m, 1), 2);
    struct rw_stream *s = rw_open(a);
    struct object_request req = rw_request(s, &b->key.pk);
    rw_send_request(s, &req, &a->key.sk);
    rw_run(&m.w, NS_PER_S); /* relay 0 waits for the fake one */
    assert_false(s->opened);
    pipe_break(m.fake->conn, ERR_RESET);
    rw_run(&m.w, NS_PER_S);
    assert_int_equal(rw_verdict(s), 0); /* and asked the other then */
    b->keep = true;
    rw_pattern(s, 1 << 20, false);
    rw_run(&m.w, NS_PER_S);
    assert_int_equal(mw_stat(&m, 1).relayed, 1);
    mw_stop(&m, 1);
    rw_run(&m.w, NS_PER_S);
    assert_true(s->reset);
    assert_int_equal(mw_stat(&m, 0).relayed, 0);
    mw_finish(&m);
}

/* ---- incident 29: slots ---- */

static void slots(void)
{
    struct mesh_world m;
    mw_pair(&m, &(struct relay_cfg){.max_relayed = 40});
    struct rw_peer *greedy = rw_peer_new(mw_at(&m, 0), 1), *modest = rw_peer_new(&m.w, 2),
                   *b = rw_peer_new(mw_at(&m, 1), 3), *near = rw_peer_new(mw_at(&m, 0), 4);
    unsigned got = 0;
    while (got < 100 && rw_verdict(rw_dial(greedy, &b->key.pk)) == 0)
        got++;
    assert_int_equal(got, 10); /* a quarter; at relay 1 all of it is charged to relay 0 */
    assert_int_equal(mw_stat(&m, 0).relayed, 10);
    assert_int_equal(mw_stat(&m, 0).slot_refused, 1);
    assert_int_equal(rw_verdict(rw_dial(greedy, &near->key.pk)), 0); /* no slot is needed here */
    assert_int_equal(rw_verdict(rw_dial(modest, &b->key.pk)), -1);   /* relay 1 is full for 0 … */
    assert_int_equal(mw_stat(&m, 1).slot_refused, 1);
    assert_int_equal(rw_verdict(rw_dial(b, &modest->key.pk)), 0); /* … and not for others */
    rw_peer_close(greedy);
    rw_run(&m.w, 3 * NS_PER_S);
    assert_int_equal(mw_stat(&m, 0).relayed, 1);
    assert_int_equal(rw_verdict(rw_dial(modest, &b->key.pk)), 0);
    mw_finish(&m);
}

static void test_incident_29_fair_slots(void **state)
{
    (void)state;
    rw_twice(slots);
}

/* Two keys at one relay: the first takes all it can, the second still gets its streams. */
static void test_incident_29_second_client(void **state)
{
    struct mesh_world m;
    (void)state;
    mw_start(&m, &(struct relay_cfg){.max_relayed = 64, .accept_relayed = true});
    struct rw_peer *greedy = rw_peer_new(mw_at(&m, 0), 1), *modest = rw_peer_new(&m.w, 2),
                   *b = rw_peer_new(&m.w, 3);
    unsigned got = 0, second = 0;
    while (got < 100 && foreign_request(&m, greedy, &b->key.pk, true, false) == 0)
        got++;
    while (second < 100 && foreign_request(&m, modest, &b->key.pk, true, false) == 0)
        second++;
    assert_int_equal(got, 16);
    assert_true(second >= 10);
    mw_finish(&m);
}

static void test_incident_29_slots_come_back(void **state)
{
    struct mesh_world m;
    struct prop r = prop_init("mesh slots");
    (void)state;
    mw_pair(&m, NULL);
    struct rw_peer *b = rw_peer_new(mw_at(&m, 1), 3);
    for (int i = 0; i < 1000; i++) {
        struct rw_peer *a = rw_peer_new(mw_at(&m, 0), 1);
        struct rw_stream *s = rw_open(a);
        struct object_request req = rw_request(s, &b->key.pk);
        rw_send_request(s, &req, &a->key.sk);
        if (prop_chance(&r, 75)) /* else at once; or anywhere in the set-up; or when it is open */
            rw_run(&m.w, prop_chance(&r, 50) ? prop_below(&r, 100000) : NS_PER_MS);
        rw_peer_close(a); /* abruptly, with everything open */
        rw_run(&m.w, NS_PER_MS);
    }
    rw_run(&m.w, 6 * NS_PER_S);
    assert_int_equal(mw_stat(&m, 0).relayed, 0);
    assert_int_equal(mw_stat(&m, 1).relayed, 0);
    assert_int_equal(mw_stat(&m, 0).setups + mw_stat(&m, 0).bridges, 0);
    mw_finish(&m);
}

/* The share is never below one. */
static void test_incident_29_smallest_share(void **state)
{
    struct mesh_world m;
    (void)state;
    mw_pair(&m, &(struct relay_cfg){.max_relayed = 2});
    struct rw_peer *a = rw_peer_new(mw_at(&m, 0), 1), *b = rw_peer_new(mw_at(&m, 1), 3);
    assert_int_equal(rw_verdict(rw_dial(a, &b->key.pk)), 0);
    assert_int_equal(rw_verdict(rw_dial(a, &b->key.pk)), -1);
    mw_finish(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forwards),
        cmocka_unit_test(test_nowhere),
        cmocka_unit_test(test_incident_27_two_relays_at_most),
        cmocka_unit_test(test_incident_27_private_relay),
        cmocka_unit_test(test_incident_28_foreign_source),
        cmocka_unit_test(test_incident_28_mute_relay),
        cmocka_unit_test(test_liars),
        cmocka_unit_test(test_frozen_relay),
        cmocka_unit_test(test_lame_relay_is_asked_last),
        cmocka_unit_test(test_refusal),
        cmocka_unit_test(test_link_breaks),
        cmocka_unit_test(test_incident_29_fair_slots),
        cmocka_unit_test(test_incident_29_second_client),
        cmocka_unit_test(test_incident_29_slots_come_back),
        cmocka_unit_test(test_incident_29_smallest_share),
    };
    char why[64];
    if (crypto_init() < 0 || log_set_levels("warn", why, sizeof why) < 0)
        return 1;
    int failed = 0;
    for (rw_workers = 1; rw_workers <= 3; rw_workers += 2)
        failed +=
            cmocka_run_group_tests_name(rw_workers == 1 ? "alone" : "workers", tests, NULL, NULL);
    return failed;
}
