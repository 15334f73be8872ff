/* mesh: links between relays (docs/protocol/dmsg.md §5.2, §5.3, the rows of §8.3 about the mesh) in
 * virtual time; incidents 26, 33. */
#include "transport/mesh.h"

#include "base/log.h"
#include "tests/unit/transport/mesh_world.h"
#include "tests/unit/vectors.h"

/* ---- announcements ---- */

/* The row of §8.3, with its limits made small; incident 27: forged ones. */
static void announcements(void)
{
    struct mesh_world m;
    struct rw_key other = rw_key_of(90);
    struct pubkey none = {{0}};
    mw_start(&m, &(struct relay_cfg){.max_peers = 2});
    struct rw_peer *p = rw_peer_new(mw_at(&m, 0), 10), *q = rw_peer_new(&m.w, 11),
                   *third = rw_peer_new(&m.w, 12);
    assert_int_equal(mw_announce_as(&m, p, &none, &p->key.sk, &m.key[0]), -1);
    assert_int_equal(mw_announce_as(&m, p, &p->key.pk, &other.sk, &m.key[0]), -1);
    assert_int_equal(mw_announce_as(&m, p, &other.pk, &other.sk, &m.key[0]), -1);
    assert_int_equal(mw_code_count(&m, 0, ERR_DMSG_REQ_SRC_PK), 3);
    assert_int_equal(mw_stat(&m, 0).peers, 0);
    assert_int_equal(mw_announce(&m, p), 1);
    assert_int_equal(mw_announce(&m, p), 1);
    assert_int_equal(mw_announce(&m, q), 1);
    assert_int_equal(mw_announce(&m, third), 0); /* one more than there may be */
    assert_int_equal(mw_announce(&m, q), 1);
    assert_int_equal(mw_stat(&m, 0).peers, 2);
    assert_int_equal(mw_stat(&m, 0).announce_accepted, 4);
    assert_int_equal(mw_stat(&m, 0).announce_refused, 1);
    assert_true(!p->down && !q->down && !third->down);
    mw_finish(&m);
}

static void test_announcements(void **state)
{
    (void)state;
    rw_twice(announcements);
}

static void test_announcements_of_listed_keys(void **state)
{
    struct mesh_world m;
    struct rw_key ok = rw_key_of(10);
    (void)state;
    mw_start(&m, &(struct relay_cfg){.accepted = &ok.pk, .n_accepted = 1});
    struct rw_peer *p = rw_peer_new(mw_at(&m, 0), 10), *q = rw_peer_new(&m.w, 11);
    assert_int_equal(mw_announce(&m, q), 0);
    assert_int_equal(mw_announce(&m, p), 1);
    assert_true(!p->down && !q->down);
    mw_relay(&m, 1, NULL); /* one that is not on the list is not dialled either */
    mw_found(&m, 0, 1);
    rw_run(&m.w, 100 * NS_PER_S);
    assert_int_equal(mw_stat(&m, 0).dials, 0);
    mw_finish(&m);
}

/* The 513th. */
static void test_announcements_cap(void **state)
{
    struct mesh_world m;
    (void)state;
    mw_start(&m, NULL);
    mw_at(&m, 0);
    for (unsigned i = 0; i < 513; i++) {
        struct rw_peer *p = rw_peer_new(&m.w, 1000 + i);
        assert_int_equal(mw_announce(&m, p), i < 512);
        assert_false(p->down);
    }
    assert_int_equal(mw_stat(&m, 0).peers, 512);
    mw_finish(&m);
    (void)state;
}

/* Incident 26: two relays configured for each other, one hour; announcements again and again. */
static void test_incident_26_no_flap(void **state)
{
    struct mesh_world m;
    (void)state;
    mw_begin(&m);
    struct relay_server one = mw_server(&m, 1), zero = mw_server(&m, 0);
    mw_start(&m, &(struct relay_cfg){.peers = &one, .n_peers = 1});
    mw_relay(&m, 1, &(struct relay_cfg){.peers = &zero, .n_peers = 1});
    rw_run(&m.w, 3600 * NS_PER_S);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(mw_stat(&m, i).dials, 1);
        assert_int_equal(mw_stat(&m, i).announce_ok, 1);
        assert_int_equal(mw_stat(&m, i).announce_accepted, 1);
        assert_int_equal(mw_stat(&m, i).announce_refused, 0);
        assert_int_equal(mw_stat(&m, i).peer_links, 2);
        assert_int_equal(mw_stat(&m, i).stream_failed, 0);
        assert_int_equal(mw_stat(&m, i).sessions, 0); /* a link is no client */
        assert_int_equal(m.dialled[i], 1);
    }
    struct rw_peer *p = rw_peer_new(mw_at(&m, 0), 10);
    for (int i = 0; i < 100; i++)
        assert_int_equal(mw_announce(&m, p), 1);
    assert_int_equal(mw_stat(&m, 0).peer_links, 3);
    assert_false(p->down);
    mw_finish(&m);
}

/* The answer of those that are no mesh: none, a refusal, the end, rubbish. The link stays. */
static void announced_to(void)
{
    static const enum rw_answer answers[] = {
        RW_ACCEPT,     RW_SILENT,       RW_REFUSE_NO_REASON, RW_FIN,     RW_RESET,
        RW_WRONG_HASH, RW_WRONG_SIGNER, RW_SHORT_OBJECT,     RW_BAD_GOB, RW_PING_MARKER};
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        struct mesh_world m;
        struct object_announce ann;
        mw_fake(&m, answers[i]);
        struct rw_stream *s = rw_last_incoming(m.fake);
        assert_int_equal(object_decode_announce(&ann, s->obj, s->obj_n), 0);
        assert_true(pubkey_equal(&ann.src_pk, &m.key[0].pk));
        rw_run(&m.w, 3600 * NS_PER_S);
        assert_int_equal(mw_stat(&m, 0).announce_ok, i == 0);
        assert_true(answers[i] == RW_RESET || rw_over(s)); /* closed by the announcer */
        assert_int_equal(mw_stat(&m, 0).peers, 1);
        assert_int_equal(m.fakes, 1);
        assert_false(m.fake->down);
        mw_finish(&m);
    }
}

static void test_announced_to(void **state)
{
    (void)state;
    rw_twice(announced_to);
}

/* ---- what a session is ---- */

/* Row "key with peer link and client session, both orders, then one closes". */
static void link_and_client(bool client_first, bool close_client)
{
    struct mesh_world m;
    mw_start(&m, NULL);
    mw_relay(&m, 1, NULL);
    mw_found(&m, 0, 1); /* now relay 0 knows that key 1 is a relay's */
    rw_run(&m.w, NS_PER_S);
    struct rw_peer *a = rw_peer_new(mw_at(&m, 0), 1), *c = NULL;
    for (int i = 0; i < 2; i++)
        if ((i == 0) == client_first) {
            c = rw_peer_start(&m.w, &m.key[1], false);
            rw_run(&m.w, 6 * NS_PER_S); /* it says nothing: a client after 5 s */
            assert_true(c->up && !c->down);
        } else {
            mw_found(&m, 1, 0);
            rw_run(&m.w, NS_PER_S);
        }
    assert_int_equal(mw_stat(&m, 0).sessions, 2);
    assert_int_equal(mw_stat(&m, 0).peer_links, 2);
    assert_int_equal(mw_stat(&m, 0).replaced, 0);
    struct rw_peer *b = rw_peer_new(mw_at(&m, 1), 2);
    assert_int_equal(rw_verdict(rw_dial(a, &c->key.pk)), 0);
    assert_int_equal(rw_verdict(rw_dial(a, &b->key.pk)), 0);
    if (close_client) {
        rw_peer_close(c);
        rw_run(&m.w, NS_PER_S);
        assert_int_equal(mw_stat(&m, 0).sessions, 1);
        assert_int_equal(mw_stat(&m, 0).peer_links, 2);
        assert_int_equal(rw_verdict(rw_dial(a, &b->key.pk)), 0);
    } else {
        rw_peer_close(b);
        mw_stop(&m, 1);
        rw_run(&m.w, NS_PER_S);
        assert_int_equal(mw_stat(&m, 0).peer_links, 0);
        assert_int_equal(mw_stat(&m, 0).sessions, 2);
        assert_int_equal(rw_verdict(rw_dial(a, &c->key.pk)), 0);
    }
    mw_finish(&m);
}

static void test_link_and_client(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++)
        link_and_client((i & 1) != 0, (i & 2) != 0);
}

/* A client session of a key that announced itself from another one does not take the link with it. */
static void test_link_first_as_client(void **state)
{
    struct mesh_world m;
    (void)state;
    mw_start(&m, NULL);
    struct rw_peer *a = rw_peer_new(mw_at(&m, 0), 1), *link = rw_peer_new(&m.w, 10);
    assert_int_equal(mw_announce(&m, link), 1); /* unknown before: client and link */
    assert_int_equal(rw_verdict(rw_dial(a, &link->key.pk)), 0);
    struct rw_key k = rw_key_of(10);
    struct rw_peer *c = rw_peer_start(&m.w, &k, false);
    rw_run(&m.w, 6 * NS_PER_S);
    assert_true(!link->down && !c->down);
    assert_int_equal(rw_verdict(rw_dial(a, &k.pk)), 0);
    assert_int_equal(c->incoming, 1); /* the newer one is the client now */
    rw_peer_close(c);
    rw_run(&m.w, NS_PER_S);
    assert_int_equal(mw_stat(&m, 0).peers, 1);
    assert_false(link->down);
    mw_finish(&m);
}

/* The client session of a relay that is linked too: its requests are forwarded, not back to it, and
 * it may not speak for others. */
static void test_client_of_a_linked_relay(void **state)
{
    struct mesh_world m;
    struct rw_key lost = rw_key_of(77);
    (void)state;
    mw_pair(&m, NULL);
    struct rw_peer *b = rw_peer_new(mw_at(&m, 1), 2), *link = rw_peer_new(mw_at(&m, 0), 10);
    assert_int_equal(mw_announce(&m, link), 1);
    struct rw_key k = rw_key_of(10), foreign = rw_key_of(33);
    struct rw_peer *c = rw_peer_start(&m.w, &k, false);
    rw_run(&m.w, 6 * NS_PER_S);
    struct rw_stream *s = rw_open(c);
    struct object_request req = rw_request(s, &b->key.pk);
    req.src.pk = foreign.pk;
    rw_send_request(s, &req, &foreign.sk);
    rw_run(&m.w, NS_PER_S);
    assert_int_equal(rw_verdict(s), -1);
    assert_int_equal(rw_verdict(rw_dial(c, &b->key.pk)), 0);
    assert_int_equal(rw_verdict(rw_dial(c, &lost.pk)), -1);
    assert_int_equal(link->incoming, 0);
    mw_finish(&m);
}

/* A new link is a new way: what was nowhere is asked for again at once. */
static void test_new_link_ends_misses(void **state)
{
    struct mesh_world m;
    (void)state;
    mw_pair(&m, NULL);
    mw_relay(&m, 2, NULL);
    struct rw_peer *a = rw_peer_new(mw_at(&m, 0), 1), *c = rw_peer_new(mw_at(&m, 2), 3);
    for (int i = 0; i < 6; i++) { /* until it lasts for long */
        assert_int_equal(rw_verdict(rw_dial(a, &c->key.pk)), -1);
        rw_run(&m.w, (i < 5 ? 31 : 0) * NS_PER_S);
    }
    mw_found(&m, 2, 0);
    rw_run(&m.w, NS_PER_S);
    assert_int_equal(rw_verdict(rw_dial(a, &c->key.pk)), 0);
    mw_finish(&m);
}

/* A relay speaks for many: ten times the streams that a client may open at once. */
static void test_rate_of_links(void **state)
{
    struct mesh_world m;
    (void)state;
    mw_start(&m, &(struct relay_cfg){.syn_per_s = 1});
    struct rw_peer *client = rw_peer_new(mw_at(&m, 0), 1), *link = rw_peer_new(&m.w, 2);
    assert_int_equal(mw_announce(&m, link), 1);
    for (int i = 0; i < 30; i++) {
        (void)rw_open(client);
        (void)rw_open(link);
    }
    rw_run(&m.w, NS_PER_S / 2);
    assert_int_equal(mw_stat(&m, 0).syn_limited, 10);
    mw_finish(&m);
}

/* A known relay's session: its first request decides, not a ping marker. */
static void test_first_event_decides(void **state)
{
    static const uint8_t marker[2] = {0, 0};
    (void)state;
    for (int own = 0; own < 2; own++) {
        struct mesh_world m;
        mw_start(&m, NULL);
        mw_relay(&m, 1, NULL);
        mw_found(&m, 0, 1);
        rw_run(&m.w, NS_PER_S);
        struct rw_peer *a = rw_peer_new(mw_at(&m, 0), 1);
        struct rw_peer *p = rw_peer_start(&m.w, &m.key[1], false);
        rw_run(&m.w, 100 * NS_PER_MS);
        struct rw_stream *ping = rw_open(p);
        rw_write(ping, marker, 2);
        rw_run(&m.w, 100 * NS_PER_MS);
        assert_true(ping->got == 2 && ping->eof);
        assert_int_equal(mw_stat(&m, 0).sessions, 1); /* still neither */
        struct rw_stream *s = rw_open(p);
        struct object_request req = rw_request(s, &a->key.pk);
        struct rw_key foreign = rw_key_of(33);
        if (!own)
            req.src.pk = foreign.pk;
        rw_send_request(s, &req, own ? &p->key.sk : &foreign.sk);
        rw_run(&m.w, 100 * NS_PER_MS);
        assert_int_equal(rw_verdict(s), 0);
        assert_int_equal(mw_stat(&m, 0).sessions, 2); /* a client */
        /* With an own request it is no longer marked: foreign ones are refused now. */
        s = rw_open(p);
        req = rw_request(s, &a->key.pk);
        req.src.pk = foreign.pk;
        rw_send_request(s, &req, &foreign.sk);
        rw_run(&m.w, 100 * NS_PER_MS);
        assert_int_equal(rw_verdict(s), own ? -1 : 0);
        mw_finish(&m);
    }
}

/* Row "00 00 on a peer session": on links of both directions. */
static void test_ping_marker_on_links(void **state)
{
    static const uint8_t marker[2] = {0, 0};
    struct mesh_world m;
    (void)state;
    mw_fake(&m, RW_ACCEPT);
    struct rw_peer *in = rw_peer_new(mw_at(&m, 0), 10);
    assert_int_equal(mw_announce(&m, in), 1);
    struct rw_peer *both[] = {in, m.fake};
    for (int i = 0; i < 2; i++) {
        struct rw_stream *s = rw_open(both[i]);
        rw_write(s, marker, 2);
        rw_run(&m.w, 100 * NS_PER_MS);
        assert_true(s->got == 2 && s->first[0] == 0 && s->first[1] == 0 && s->eof);
    }
    mw_finish(&m);
}

/* ---- incident 33: oneself ---- */

static void test_incident_33_never_itself(void **state)
{
    struct mesh_world m;
    (void)state;
    mw_begin(&m);
    struct relay_server self = mw_server(&m, 0);
    mw_start(&m, &(struct relay_cfg){.peers = &self, .n_peers = 1});
    mw_relay(&m, 1, NULL);
    mw_found(&m, 1, 0);
    mw_tell(&m, 0, &self, 1);
    rw_run(&m.w, 100 * NS_PER_S);
    assert_int_equal(mw_stat(&m, 0).dials, 0);
    /* A client of the own key at another relay is not where streams to oneself go. */
    struct rw_peer *away = rw_peer_start(mw_at(&m, 1), &m.key[0], false);
    rw_run(&m.w, 6 * NS_PER_S);
    struct rw_peer *a = rw_peer_new(mw_at(&m, 0), 1);
    assert_int_equal(rw_verdict(rw_dial(a, &m.key[0].pk)), -1);
    assert_int_equal(away->incoming, 0);
    struct rw_peer *local = rw_peer_start(mw_at(&m, 0), &m.key[0], true);
    rw_run(&m.w, 100 * NS_PER_MS);
    assert_int_equal(rw_verdict(rw_dial(a, &m.key[0].pk)), 0);
    assert_int_equal(local->incoming, 1);
    /* Its own announcement, should it come: no. */
    assert_int_equal(mw_announce(&m, local), 0);
    mw_finish(&m);
}

/* ---- dialling ---- */

/* Nobody there: 1 s, × 1.5 … 60 s, a fifth of jitter; some 20 dials in ten minutes. */
static void test_dials_back_off(void **state)
{
    struct mesh_world m;
    (void)state;
    mw_start(&m, NULL);
    mw_found(&m, 0, 1);
    rw_run(&m.w, 600 * NS_PER_S);
    assert_in_range(mw_stat(&m, 0).dials, 15, 25);
    assert_int_equal(mw_stat(&m, 0).dial_failed, mw_stat(&m, 0).dials);
    uint64_t dials = mw_stat(&m, 0).dials;
    rw_run(&m.w, 3600 * NS_PER_S);
    assert_in_range(mw_stat(&m, 0).dials - dials, 50, 75);
    mw_relay(&m, 1, NULL); /* there it is */
    rw_run(&m.w, 75 * NS_PER_S);
    assert_int_equal(mw_stat(&m, 0).peers, 1);
    mw_finish(&m);
}

/* Incident 26: links that end young are dialled less and less; a long life makes good. */
static void test_incident_26_young_deaths(void **state)
{
    struct mesh_world m;
    (void)state;
    mw_fake(&m, RW_ACCEPT);
    uint64_t until = pipe_now(&m.w.net) + 3600 * NS_PER_S;
    while (pipe_now(&m.w.net) < until) {
        if (m.fake->up && !m.fake->down && m.fake->link != NULL)
            rw_peer_close(m.fake);
        rw_run(&m.w, 100 * NS_PER_MS);
    }
    assert_in_range(m.fakes, 50, 90);
    while (m.fake->link == NULL || !m.fake->up)
        rw_run(&m.w, 100 * NS_PER_MS);
    rw_run(&m.w, 31 * NS_PER_S);
    unsigned before = m.fakes;
    rw_peer_close(m.fake);
    rw_run(&m.w, 2 * NS_PER_S);
    assert_int_equal(m.fakes, before + 1);
    mw_finish(&m);
}

/* Another key answers at the address. */
static void test_wrong_key(void **state)
{
    struct mesh_world m;
    (void)state;
    mw_start(&m, NULL);
    mw_relay(&m, 1, NULL);
    struct relay_server s = mw_server(&m, 1);
    s.pk = rw_key_of(88).pk;
    mw_tell(&m, 0, &s, 1);
    rw_run(&m.w, 600 * NS_PER_S);
    assert_in_range(m.dialled[1], 15, 25);
    assert_int_equal(mw_stat(&m, 0).dial_failed, m.dialled[1]);
    assert_int_equal(mw_stat(&m, 0).peers, 0);
    struct relay_peer_info info;
    assert_int_equal(mw_peers(&m, &info), 1);
    assert_true(info.last_err < 0 && !info.out && !info.in && info.found);
    mw_finish(&m);
}

/* The union of what is configured and what is found: the newest address is dialled first. */
static void test_addresses(void **state)
{
    struct mesh_world m;
    struct relay_peer_info info;
    (void)state;
    mw_begin(&m);
    struct relay_server one = mw_server(&m, 1), moved = one;
    snprintf(moved.addr, sizeof moved.addr, "elsewhere:1");
    mw_start(&m,
             &(struct relay_cfg){.peers = &moved, .n_peers = 1}); /* what is configured is old */
    mw_relay(&m, 1, NULL);
    rw_run(&m.w, 60 * NS_PER_S);
    assert_int_equal(mw_stat(&m, 0).peers, 0);
    mw_tell(&m, 0, &one, 1);
    rw_run(&m.w, NS_PER_S);
    assert_int_equal(mw_stat(&m, 0).peers, 1); /* at once, not at the end of the pause */
    uint64_t dials = mw_stat(&m, 0).dials;
    mw_tell(&m, 0, &one, 1); /* nothing new */
    rw_run(&m.w, 100 * NS_PER_S);
    assert_int_equal(mw_stat(&m, 0).dials, dials);
    /* It starts again on another port. */
    mw_stop(&m, 1);
    snprintf(m.addr[1], sizeof m.addr[1], "relay1:2");
    rw_run(&m.w, 60 * NS_PER_S);
    mw_relay(&m, 1, NULL);
    mw_found(&m, 0, 1);
    rw_run(&m.w, NS_PER_S);
    assert_int_equal(mw_stat(&m, 0).peers, 1);
    assert_int_equal(mw_peers(&m, &info), 1);
    assert_true(info.out && info.configured && info.found && info.last_err == 0);
    /* Found no more, and gone: what is configured is still tried. */
    mw_tell(&m, 0, NULL, 0);
    rw_run(&m.w, 60 * NS_PER_S);
    assert_int_equal(mw_stat(&m, 0).peers, 1); /* a link is not cut for that */
    mw_stop(&m, 1);
    dials = mw_stat(&m, 0).dials;
    rw_run(&m.w, 60 * NS_PER_S);
    assert_true(mw_stat(&m, 0).dials > dials);
    mw_finish(&m);
}

/* Found, vanished: not dialled any more, and forgotten. */
static void test_vanished(void **state)
{
    struct mesh_world m;
    struct relay_server list[4];
    (void)state;
    mw_start(&m, NULL);
    for (int i = 0; i < 4; i++)
        list[i] = mw_server(&m, i);
    list[3] = list[2];                              /* a double */
    memset(list[1].addr, 'x', sizeof list[1].addr); /* no end */
    mw_tell(&m, 0, list, 4);                        /* and itself */
    assert_int_equal(mw_peers(&m, NULL), 1);
    rw_run(&m.w, 10 * NS_PER_S);
    uint64_t dials = mw_stat(&m, 0).dials;
    assert_true(dials > 0);
    mw_tell(&m, 0, NULL, 0);
    rw_run(&m.w, 600 * NS_PER_S);
    assert_int_equal(mw_stat(&m, 0).dials, dials);
    assert_int_equal(mw_peers(&m, NULL), 0);
    mw_finish(&m);
}

/* One key, many links: the newest is used, a few are kept, another takes over. */
static void test_links_of_one_key(void **state)
{
    struct mesh_world m;
    struct rw_key k = rw_key_of(10);
    struct rw_peer *p[8];
    (void)state;
    mw_start(&m, NULL);
    struct rw_peer *a = rw_peer_new(mw_at(&m, 0), 1);
    for (int i = 0; i < 8; i++) {
        p[i] = rw_peer_start(&m.w, &k, false);
        rw_run(&m.w, 100 * NS_PER_MS);
        assert_int_equal(mw_announce(&m, p[i]), 1);
        p[i]->answer = RW_FIN;
    }
    rw_run(&m.w, NS_PER_S);
    assert_int_equal(mw_stat(&m, 0).peers, 1);
    assert_int_equal(mw_stat(&m, 0).peer_links, 4);
    for (int i = 7; i >= 4; i--) {
        struct rw_key lost = rw_key_of(200 + (unsigned)i);
        assert_int_equal(rw_verdict(rw_dial(a, &lost.pk)), -1);
        assert_int_equal(p[i]->incoming, 1);
        rw_peer_close(p[i]);
        rw_run(&m.w, NS_PER_S);
    }
    assert_int_equal(mw_stat(&m, 0).peers, 0);
    mw_finish(&m);
}

/* Freed and drained while dials, announcements and searches are under way. */
static void test_end_at_any_time(void **state)
{
    (void)state;
    for (uint64_t at_ns = 0; at_ns < 400 * NS_PER_MS; at_ns += 7 * NS_PER_MS) {
        struct mesh_world m;
        rw_deferred = (at_ns & 1) != 0;
        mw_start(&m, NULL);
        m.w.net.fault.delay_ns = 10 * NS_PER_MS;
        m.w.net.dial_ns = 10 * NS_PER_MS;
        mw_relay(&m, 1, NULL);
        mw_relay(&m, 2, NULL);
        mw_found(&m, 0, 1);
        mw_found(&m, 1, 2);
        mw_found(&m, 2, 0);
        struct rw_peer *a = rw_peer_new(mw_at(&m, 0), 1);
        struct rw_stream *s = rw_open(a);
        struct object_request req = rw_request(s, &m.key[2].pk);
        rw_send_request(s, &req, &a->key.sk);
        rw_run(&m.w, at_ns);
        relay_drain(m.relay[2]);
        mw_stop(&m, 1);
        rw_run(&m.w, NS_PER_S);
        m.w.net.fault.delay_ns = 0;
        mw_finish(&m);
    }
    rw_deferred = false;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_announcements),
        cmocka_unit_test(test_announcements_of_listed_keys),
        cmocka_unit_test(test_announcements_cap),
        cmocka_unit_test(test_incident_26_no_flap),
        cmocka_unit_test(test_announced_to),
        cmocka_unit_test(test_link_and_client),
        cmocka_unit_test(test_link_first_as_client),
        cmocka_unit_test(test_client_of_a_linked_relay),
        cmocka_unit_test(test_new_link_ends_misses),
        cmocka_unit_test(test_rate_of_links),
        cmocka_unit_test(test_first_event_decides),
        cmocka_unit_test(test_ping_marker_on_links),
        cmocka_unit_test(test_incident_33_never_itself),
        cmocka_unit_test(test_dials_back_off),
        cmocka_unit_test(test_incident_26_young_deaths),
        cmocka_unit_test(test_wrong_key),
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_vanished),
        cmocka_unit_test(test_links_of_one_key),
        cmocka_unit_test(test_end_at_any_time),
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
