/* mesh: links between relays (docs/protocol/dmsg.md §5.2, §5.3, the rows of §8.3 about the mesh) in
 * virtual time; incidents 26, 27, 28, 29, 33. */
#include "transport/mesh.h"

#include "base/log.h"
#include "tests/unit/prop.h"
#include "tests/unit/transport/relay_world.h"
#include "tests/unit/vectors.h"

#define RELAYS 4

/* ---- several relays on one net; relay 0 is that of the rw_world ---- */

static bool deferred;

struct mesh_world {
    struct rw_world w;
    struct relay *relay[RELAYS];
    struct rw_key key[RELAYS];
    char addr[RELAYS][24];
    unsigned dialled[RELAYS]; /* connections that reached its address */
};

struct door {
    struct mesh_world *m;
    int i;
};
static struct door doors[RELAYS];

static void on_accept(void *arg, struct conn *conn)
{
    struct door *d = arg;
    struct rw_world *w = &d->m->w;
    d->m->dialled[d->i]++;
    struct relay *any = rw_worker(w, w->next_worker++ % w->workers);
    relay_accept(d->i == 0 ? any : d->m->relay[d->i], conn, false);
}

/* Relay 0 may have several workers. */
static void tell_found(struct mesh_world *m, int i, const struct relay_server *list, size_t n)
{
    if (i > 0)
        relay_mesh_found(m->relay[i], list, n);
    for (unsigned k = 0; i == 0 && k < m->w.workers; k++)
        relay_mesh_found(rw_worker(&m->w, k), list, n);
}

/* Up to one of them. */
static size_t peers_of(struct mesh_world *m, struct relay_peer_info *out)
{
    size_t n = 0;
    for (unsigned k = 0; k < m->w.workers; k++)
        n += relay_peers(rw_worker(&m->w, k), out, n == 0 && out != NULL ? 1 : 0);
    return n;
}

/* Peers that are made from now on connect to this relay. */
static struct rw_world *at(struct mesh_world *m, int i)
{
    m->w.relay = m->relay[i];
    m->w.key = m->key[i];
    return &m->w;
}

static struct relay_server server_of(const struct mesh_world *m, int i)
{
    struct relay_server s = {.pk = m->key[i].pk};
    snprintf(s.addr, sizeof s.addr, "%s", m->addr[i]);
    return s;
}

static void begin(struct mesh_world *m)
{
    memset(m, 0, sizeof *m);
    for (int i = 0; i < RELAYS; i++) {
        m->key[i] = rw_key_of(i == 0 ? 0 : 500 + (unsigned)i);
        snprintf(m->addr[i], sizeof m->addr[i], "relay%d:1", i);
        doors[i] = (struct door){m, i};
    }
}

static void open_door(struct mesh_world *m, int i)
{
    pipe_listen(&m->w.net, m->addr[i], on_accept, &doors[i]);
}

/* Relay 0, which makes the net; it dials nobody unless told by relay_mesh_found(). */
static void start_first(struct mesh_world *m, const struct relay_cfg *cfg)
{
    struct relay_cfg own = cfg != NULL ? *cfg : (struct relay_cfg){0};
    begin(m);
    own.carrier = &m->w.net.carrier; /* made by rw_init(), before it is used */
    rw_init(&m->w, &own);
    m->relay[0] = m->w.relay;
    m->w.env.deferred = deferred;
    m->w.env.shuffle = deferred;
    open_door(m, 0);
}

static void start_relay(struct mesh_world *m, int i, const struct relay_cfg *cfg)
{
    struct relay_cfg own = cfg != NULL ? *cfg : (struct relay_cfg){0};
    own.env = &m->w.env.env;
    own.loop = &m->w.net.loop;
    own.pool = m->w.pool;
    own.self = m->key[i].pk;
    own.sk = m->key[i].sk;
    own.carrier = &m->w.net.carrier;
    assert_int_equal(relay_new(&m->relay[i], &own), 0);
    open_door(m, i);
}

static void stop_relay(struct mesh_world *m, int i)
{
    pipe_unlisten(&m->w.net, m->addr[i]);
    relay_free(m->relay[i]);
    m->relay[i] = NULL;
}

static struct relay_stat stat_of(const struct mesh_world *m, int i)
{
    struct relay_stat st, sum = {0};
    if (i > 0) {
        relay_stat(m->relay[i], &st);
        return st;
    }
    for (unsigned k = 0; k < m->w.workers; k++) {
        relay_stat(rw_worker(&m->w, k), &st);
        relay_stat_add(&sum, &st);
    }
    return sum;
}

static void finish(struct mesh_world *m)
{
    struct list_node *pos, *tmp;
    list_for_each(pos, tmp, &m->w.peers)(void)
        rw_peer_close(container_of(pos, struct rw_peer, node));
    rw_run(&m->w, NS_PER_S);
    for (int i = RELAYS - 1; i >= 0; i--) {
        if (m->relay[i] == NULL)
            continue;
        struct relay_stat st = stat_of(m, i);
        assert_true(st.bridges == 0 && st.setups == 0 && st.buffered == 0 && st.relayed == 0);
        if (i > 0)
            stop_relay(m, i);
    }
    at(m, 0);
    rw_run(&m->w, NS_PER_S);
    rw_free(&m->w);
}

static unsigned code_count(const struct mesh_world *m, int i, int err)
{
    return (unsigned)stat_of(m, i).refused_by_code[relay_code_index(err)];
}

/* Relay i dials relay j, both ways of finding it alike. */
static void found(struct mesh_world *m, int i, int j)
{
    struct relay_server s = server_of(m, j);
    tell_found(m, i, &s, 1);
}

/* Relays 0 and 1, each dials the other. */
static void start_pair(struct mesh_world *m, const struct relay_cfg *cfg)
{
    start_first(m, cfg);
    start_relay(m, 1, cfg);
    found(m, 0, 1);
    found(m, 1, 0);
    rw_run(&m->w, NS_PER_S);
    assert_int_equal(stat_of(m, 0).peers, 1);
    assert_int_equal(stat_of(m, 1).peers, 1);
}

static void twice(void (*test)(void))
{
    deferred = false;
    test();
    deferred = true;
    test();
    deferred = false;
}

/* ---- announcements by the test ---- */

static size_t announcement(uint8_t *obj, const struct mesh_world *m, const struct pubkey *src,
                           const struct seckey *sk)
{
    struct object_announce ann = {env_wall_ns((struct env *)&m->w.peer_env.env), *src};
    struct hash digest;
    struct sig sig;
    size_t n;
    assert_int_equal(object_encode_announce(obj, OBJECT_ENCODED_MAX, &n, &ann), 0);
    object_digest(&digest, obj, n);
    assert_int_equal(crypto_sign_digest(&sig, sk, &digest), 0);
    object_set_sig(obj, &sig);
    return n;
}

/* 1 accepted, 0 refused in a signed answer, -1 the stream was closed without one. */
static int announce_as(struct mesh_world *m, struct rw_peer *p, const struct pubkey *src,
                       const struct seckey *sk, const struct rw_key *relay)
{
    uint8_t obj[OBJECT_ENCODED_MAX];
    struct object_response rsp;
    struct hash hash, digest;
    struct sig sig;
    size_t n = announcement(obj, m, src, sk);
    struct rw_stream *s = rw_open(p);
    rw_send_object(s, obj, n);
    rw_run(&m->w, 100 * NS_PER_MS);
    assert_true(rw_over(s)); /* never left open */
    if (!s->opened)
        return -1;
    assert_int_equal(object_decode_response(&rsp, s->obj, s->obj_n), 0);
    object_hash(&hash, obj, n);
    assert_int_equal(object_check_response(&rsp, &hash), 0);
    object_digest(&digest, s->obj, s->obj_n);
    object_get_sig(&sig, s->obj);
    assert_int_equal(crypto_verify_digest(&relay->pk, &sig, &digest), 0);
    assert_int_equal(rsp.err_code, 0);
    return rsp.accepted ? 1 : 0;
}

static int announce(struct mesh_world *m, struct rw_peer *p)
{
    return announce_as(m, p, &p->key.pk, &p->key.sk, &m->key[0]);
}

/* ---- forwarding ---- */

/* A client of relay 0 and one of relay 1 reach each other, in both directions, FIN after FIN. */
static void forwards(void)
{
    struct mesh_world m;
    start_pair(&m, NULL);
    struct rw_peer *a = rw_peer_new(at(&m, 0), 1), *b = rw_peer_new(at(&m, 1), 2);
    b->echo = a->echo = true;
    for (int dir = 0; dir < 2; dir++) {
        struct rw_peer *from = dir == 0 ? a : b, *to = dir == 0 ? b : a;
        struct rw_stream *s = rw_dial(from, &to->key.pk);
        assert_int_equal(rw_verdict(s), 0);
        assert_int_equal(stat_of(&m, 0).relayed, 1);
        assert_int_equal(stat_of(&m, 1).relayed, 1);
        rw_pattern(s, 3 << 20, true);
        rw_run(&m.w, 10 * NS_PER_S);
        assert_true(s->eof && s->got == 3 << 20 && !s->wrong);
        struct rw_stream *in = rw_last_incoming(to);
        assert_int_equal(in->obj_n > 0, 1);
        struct object_request req; /* visible under the source's key */
        assert_int_equal(object_decode_request(&req, in->obj, in->obj_n), 0);
        assert_true(pubkey_equal(&req.src.pk, &from->key.pk));
        assert_int_equal(stat_of(&m, dir).forwarded, 1);
        assert_int_equal(stat_of(&m, 0).relayed, 0);
    }
    finish(&m);
}

static void test_forwards(void **state)
{
    (void)state;
    twice(forwards);
}

/* Row "two meshed servers, destination on neither": closed at once, no loop, remembered for 2 s, the
 * next time longer; heard of, it is tried again. */
static void nowhere(void)
{
    struct mesh_world m;
    start_pair(&m, NULL);
    struct rw_peer *a = rw_peer_new(at(&m, 0), 1);
    struct rw_key lost = rw_key_of(77);
    uint64_t from = pipe_now(&m.w.net);
    assert_int_equal(rw_verdict(rw_dial(a, &lost.pk)), -1);
    assert_true(pipe_now(&m.w.net) - from < NS_PER_S);
    assert_int_equal(stat_of(&m, 0).forward_failed, 1);
    assert_int_equal(code_count(&m, 0, ERR_DMSG_NO_NEXT_SESSION), 1);
    assert_int_equal(code_count(&m, 1, ERR_DMSG_NO_NEXT_SESSION), 1);
    assert_int_equal(stat_of(&m, 1).forward_failed, 0); /* never forwarded again */
    uint64_t asked = stat_of(&m, 1).streams;
    for (int i = 0; i < 5; i++)
        assert_int_equal(rw_verdict(rw_dial(a, &lost.pk)), -1);
    assert_int_equal(stat_of(&m, 0).miss_hits, 5);
    assert_int_equal(stat_of(&m, 1).streams, asked); /* nobody was asked */
    /* 2 s, 4, 8, 16, 30, 30 */
    static const unsigned s_of[] = {2, 4, 8, 16, 30, 30};
    for (size_t i = 0; i < sizeof s_of / sizeof s_of[0]; i++) {
        rw_run(&m.w, s_of[i] * NS_PER_S - 200 * NS_PER_MS);
        uint64_t hits = stat_of(&m, 0).miss_hits;
        assert_int_equal(rw_verdict(rw_dial(a, &lost.pk)), -1);
        assert_int_equal(stat_of(&m, 0).miss_hits, hits + 1);
        rw_run(&m.w, 400 * NS_PER_MS);
        assert_int_equal(rw_verdict(rw_dial(a, &lost.pk)), -1);
        assert_int_equal(stat_of(&m, 0).miss_hits, hits + 1);
        assert_int_equal(stat_of(&m, 0).forward_failed, i + 2);
    }
    /* It comes to relay 1, and speaks: nobody waits for the end of the 30 s. */
    struct rw_peer *b = rw_peer_new(at(&m, 1), 77);
    assert_int_equal(rw_verdict(rw_dial(b, &a->key.pk)), 0);
    assert_int_equal(rw_verdict(rw_dial(a, &b->key.pk)), 0);
    assert_int_equal(stat_of(&m, 0).missed, 0);
    finish(&m);
}

static void test_nowhere(void **state)
{
    (void)state;
    twice(nowhere);
}

/* Incident 27: from relay to relay to relay is not forwarded. */
static void test_incident_27_two_relays_at_most(void **state)
{
    struct mesh_world m;
    (void)state;
    start_pair(&m, NULL);
    start_relay(&m, 2, NULL);
    found(&m, 2, 1); /* 0 - 1 - 2, but not 0 - 2 */
    rw_run(&m.w, NS_PER_S);
    assert_int_equal(stat_of(&m, 1).peers, 2);
    assert_int_equal(stat_of(&m, 2).peers, 1);
    struct rw_peer *a = rw_peer_new(at(&m, 0), 1), *c = rw_peer_new(at(&m, 2), 2),
                   *b = rw_peer_new(at(&m, 1), 3);
    assert_int_equal(rw_verdict(rw_dial(a, &c->key.pk)), -1);
    assert_int_equal(c->incoming, 0);
    assert_int_equal(rw_verdict(rw_dial(b, &c->key.pk)), 0);
    assert_int_equal(rw_verdict(rw_dial(b, &a->key.pk)), 0);
    finish(&m);
}

/* Incident 27: a relay that cannot be dialled is reached through the link that it made. */
static void private_relay(void)
{
    struct mesh_world m;
    start_first(&m, NULL);
    start_relay(&m, 1, NULL);
    pipe_unlisten(&m.w.net, m.addr[1]);
    found(&m, 1, 0);
    rw_run(&m.w, NS_PER_S);
    assert_int_equal(stat_of(&m, 0).peers, 1);
    assert_int_equal(stat_of(&m, 0).dials, 0);
    struct rw_peer *a = rw_peer_new(at(&m, 0), 1), *b = rw_peer_new(at(&m, 1), 2);
    assert_int_equal(rw_verdict(rw_dial(a, &b->key.pk)), 0);
    assert_int_equal(rw_verdict(rw_dial(b, &a->key.pk)), 0);
    finish(&m);
}

static void test_incident_27_private_relay(void **state)
{
    (void)state;
    twice(private_relay);
}

/* ---- announcements ---- */

/* The row of §8.3, with its limits made small; incident 27: forged ones. */
static void announcements(void)
{
    struct mesh_world m;
    struct rw_key other = rw_key_of(90);
    struct pubkey none = {{0}};
    start_first(&m, &(struct relay_cfg){.max_peers = 2});
    struct rw_peer *p = rw_peer_new(at(&m, 0), 10), *q = rw_peer_new(&m.w, 11),
                   *third = rw_peer_new(&m.w, 12);
    assert_int_equal(announce_as(&m, p, &none, &p->key.sk, &m.key[0]), -1);
    assert_int_equal(announce_as(&m, p, &p->key.pk, &other.sk, &m.key[0]), -1);
    assert_int_equal(announce_as(&m, p, &other.pk, &other.sk, &m.key[0]), -1);
    assert_int_equal(code_count(&m, 0, ERR_DMSG_REQ_SRC_PK), 3);
    assert_int_equal(stat_of(&m, 0).peers, 0);
    assert_int_equal(announce(&m, p), 1);
    assert_int_equal(announce(&m, p), 1);
    assert_int_equal(announce(&m, q), 1);
    assert_int_equal(announce(&m, third), 0); /* one more than there may be */
    assert_int_equal(announce(&m, q), 1);
    assert_int_equal(stat_of(&m, 0).peers, 2);
    assert_int_equal(stat_of(&m, 0).announce_accepted, 4);
    assert_int_equal(stat_of(&m, 0).announce_refused, 1);
    assert_true(!p->down && !q->down && !third->down);
    finish(&m);
}

static void test_announcements(void **state)
{
    (void)state;
    twice(announcements);
}

static void test_announcements_of_listed_keys(void **state)
{
    struct mesh_world m;
    struct rw_key ok = rw_key_of(10);
    (void)state;
    start_first(&m, &(struct relay_cfg){.accepted = &ok.pk, .n_accepted = 1});
    struct rw_peer *p = rw_peer_new(at(&m, 0), 10), *q = rw_peer_new(&m.w, 11);
    assert_int_equal(announce(&m, q), 0);
    assert_int_equal(announce(&m, p), 1);
    assert_true(!p->down && !q->down);
    start_relay(&m, 1, NULL); /* one that is not on the list is not dialled either */
    found(&m, 0, 1);
    rw_run(&m.w, 100 * NS_PER_S);
    assert_int_equal(stat_of(&m, 0).dials, 0);
    finish(&m);
}

/* The 513th. */
static void test_announcements_cap(void **state)
{
    struct mesh_world m;
    (void)state;
    start_first(&m, NULL);
    at(&m, 0);
    for (unsigned i = 0; i < 513; i++) {
        struct rw_peer *p = rw_peer_new(&m.w, 1000 + i);
        assert_int_equal(announce(&m, p), i < 512);
        assert_false(p->down);
    }
    assert_int_equal(stat_of(&m, 0).peers, 512);
    finish(&m);
    (void)state;
}

/* Incident 26: two relays configured for each other, one hour; announcements again and again. */
static void test_incident_26_no_flap(void **state)
{
    struct mesh_world m;
    (void)state;
    begin(&m);
    struct relay_server one = server_of(&m, 1), zero = server_of(&m, 0);
    start_first(&m, &(struct relay_cfg){.peers = &one, .n_peers = 1});
    start_relay(&m, 1, &(struct relay_cfg){.peers = &zero, .n_peers = 1});
    rw_run(&m.w, 3600 * NS_PER_S);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(stat_of(&m, i).dials, 1);
        assert_int_equal(stat_of(&m, i).announce_ok, 1);
        assert_int_equal(stat_of(&m, i).announce_accepted, 1);
        assert_int_equal(stat_of(&m, i).announce_refused, 0);
        assert_int_equal(stat_of(&m, i).peer_links, 2);
        assert_int_equal(stat_of(&m, i).stream_failed, 0);
        assert_int_equal(stat_of(&m, i).sessions, 0); /* a link is no client */
        assert_int_equal(m.dialled[i], 1);
    }
    struct rw_peer *p = rw_peer_new(at(&m, 0), 10);
    for (int i = 0; i < 100; i++)
        assert_int_equal(announce(&m, p), 1);
    assert_int_equal(stat_of(&m, 0).peer_links, 3);
    assert_false(p->down);
    finish(&m);
}

/* The answer of those that are no mesh: none, a refusal, the end, rubbish. The link stays. */
static struct rw_peer *fake;
static enum rw_answer fake_answer;
static unsigned fakes;

static void on_fake(void *arg, struct conn *conn)
{
    struct mesh_world *m = arg;
    struct rw_key k = rw_key_of(600);
    fake = rw_peer_accepted(&m->w, &k, conn);
    fake->answer = fake_answer;
    fakes++;
}

/* Relay 0 knows a relay that the test plays. */
static void start_fake(struct mesh_world *m, enum rw_answer answer)
{
    struct relay_server s = {.pk = rw_key_of(600).pk, .addr = "fake:1"};
    fake_answer = answer;
    fakes = 0;
    fake = NULL;
    start_first(m, NULL);
    pipe_listen(&m->w.net, "fake:1", on_fake, m);
    tell_found(m, 0, &s, 1);
    rw_run(&m->w, NS_PER_S);
    assert_true(fake != NULL && fake->up);
    assert_int_equal(fake->incoming, 1); /* the announcement */
}

static void announced_to(void)
{
    static const enum rw_answer answers[] = {
        RW_ACCEPT,     RW_SILENT,       RW_REFUSE_NO_REASON, RW_FIN,     RW_RESET,
        RW_WRONG_HASH, RW_WRONG_SIGNER, RW_SHORT_OBJECT,     RW_BAD_GOB, RW_PING_MARKER};
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        struct mesh_world m;
        struct object_announce ann;
        start_fake(&m, answers[i]);
        struct rw_stream *s = rw_last_incoming(fake);
        assert_int_equal(object_decode_announce(&ann, s->obj, s->obj_n), 0);
        assert_true(pubkey_equal(&ann.src_pk, &m.key[0].pk));
        rw_run(&m.w, 3600 * NS_PER_S);
        assert_int_equal(stat_of(&m, 0).announce_ok, i == 0);
        assert_true(answers[i] == RW_RESET || rw_over(s)); /* closed by the announcer */
        assert_int_equal(stat_of(&m, 0).peers, 1);
        assert_int_equal(fakes, 1);
        assert_false(fake->down);
        finish(&m);
    }
}

static void test_announced_to(void **state)
{
    (void)state;
    twice(announced_to);
}

/* ---- what a session is ---- */

/* Row "key with peer link and client session, both orders, then one closes". */
static void link_and_client(bool client_first, bool close_client)
{
    struct mesh_world m;
    start_first(&m, NULL);
    start_relay(&m, 1, NULL);
    found(&m, 0, 1); /* now relay 0 knows that key 1 is a relay's */
    rw_run(&m.w, NS_PER_S);
    struct rw_peer *a = rw_peer_new(at(&m, 0), 1), *c = NULL;
    for (int i = 0; i < 2; i++)
        if ((i == 0) == client_first) {
            c = rw_peer_start(&m.w, &m.key[1], false);
            rw_run(&m.w, 6 * NS_PER_S); /* it says nothing: a client after 5 s */
            assert_true(c->up && !c->down);
        } else {
            found(&m, 1, 0);
            rw_run(&m.w, NS_PER_S);
        }
    assert_int_equal(stat_of(&m, 0).sessions, 2);
    assert_int_equal(stat_of(&m, 0).peer_links, 2);
    assert_int_equal(stat_of(&m, 0).replaced, 0);
    struct rw_peer *b = rw_peer_new(at(&m, 1), 2);
    assert_int_equal(rw_verdict(rw_dial(a, &c->key.pk)), 0);
    assert_int_equal(rw_verdict(rw_dial(a, &b->key.pk)), 0);
    if (close_client) {
        rw_peer_close(c);
        rw_run(&m.w, NS_PER_S);
        assert_int_equal(stat_of(&m, 0).sessions, 1);
        assert_int_equal(stat_of(&m, 0).peer_links, 2);
        assert_int_equal(rw_verdict(rw_dial(a, &b->key.pk)), 0);
    } else {
        rw_peer_close(b);
        stop_relay(&m, 1);
        rw_run(&m.w, NS_PER_S);
        assert_int_equal(stat_of(&m, 0).peer_links, 0);
        assert_int_equal(stat_of(&m, 0).sessions, 2);
        assert_int_equal(rw_verdict(rw_dial(a, &c->key.pk)), 0);
    }
    finish(&m);
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
    start_first(&m, NULL);
    struct rw_peer *a = rw_peer_new(at(&m, 0), 1), *link = rw_peer_new(&m.w, 10);
    assert_int_equal(announce(&m, link), 1); /* unknown before: client and link */
    assert_int_equal(rw_verdict(rw_dial(a, &link->key.pk)), 0);
    struct rw_key k = rw_key_of(10);
    struct rw_peer *c = rw_peer_start(&m.w, &k, false);
    rw_run(&m.w, 6 * NS_PER_S);
    assert_true(!link->down && !c->down);
    assert_int_equal(rw_verdict(rw_dial(a, &k.pk)), 0);
    assert_int_equal(c->incoming, 1); /* the newer one is the client now */
    rw_peer_close(c);
    rw_run(&m.w, NS_PER_S);
    assert_int_equal(stat_of(&m, 0).peers, 1);
    assert_false(link->down);
    finish(&m);
}

/* The client session of a relay that is linked too: its requests are forwarded, not back to it, and
 * it may not speak for others. */
static void test_client_of_a_linked_relay(void **state)
{
    struct mesh_world m;
    struct rw_key lost = rw_key_of(77);
    (void)state;
    start_pair(&m, NULL);
    struct rw_peer *b = rw_peer_new(at(&m, 1), 2), *link = rw_peer_new(at(&m, 0), 10);
    assert_int_equal(announce(&m, link), 1);
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
    finish(&m);
}

/* A new link is a new way: what was nowhere is asked for again at once. */
static void test_new_link_ends_misses(void **state)
{
    struct mesh_world m;
    (void)state;
    start_pair(&m, NULL);
    start_relay(&m, 2, NULL);
    struct rw_peer *a = rw_peer_new(at(&m, 0), 1), *c = rw_peer_new(at(&m, 2), 3);
    for (int i = 0; i < 6; i++) { /* until it lasts for long */
        assert_int_equal(rw_verdict(rw_dial(a, &c->key.pk)), -1);
        rw_run(&m.w, (i < 5 ? 31 : 0) * NS_PER_S);
    }
    found(&m, 2, 0);
    rw_run(&m.w, NS_PER_S);
    assert_int_equal(rw_verdict(rw_dial(a, &c->key.pk)), 0);
    finish(&m);
}

/* A relay speaks for many: ten times the streams that a client may open at once. */
static void test_rate_of_links(void **state)
{
    struct mesh_world m;
    (void)state;
    start_first(&m, &(struct relay_cfg){.syn_per_s = 1});
    struct rw_peer *client = rw_peer_new(at(&m, 0), 1), *link = rw_peer_new(&m.w, 2);
    assert_int_equal(announce(&m, link), 1);
    for (int i = 0; i < 30; i++) {
        (void)rw_open(client);
        (void)rw_open(link);
    }
    rw_run(&m.w, NS_PER_S / 2);
    assert_int_equal(stat_of(&m, 0).syn_limited, 10);
    finish(&m);
}

/* A known relay's session: its first request decides, not a ping marker. */
static void test_first_event_decides(void **state)
{
    static const uint8_t marker[2] = {0, 0};
    (void)state;
    for (int own = 0; own < 2; own++) {
        struct mesh_world m;
        start_first(&m, NULL);
        start_relay(&m, 1, NULL);
        found(&m, 0, 1);
        rw_run(&m.w, NS_PER_S);
        struct rw_peer *a = rw_peer_new(at(&m, 0), 1);
        struct rw_peer *p = rw_peer_start(&m.w, &m.key[1], false);
        rw_run(&m.w, 100 * NS_PER_MS);
        struct rw_stream *ping = rw_open(p);
        rw_write(ping, marker, 2);
        rw_run(&m.w, 100 * NS_PER_MS);
        assert_true(ping->got == 2 && ping->eof);
        assert_int_equal(stat_of(&m, 0).sessions, 1); /* still neither */
        struct rw_stream *s = rw_open(p);
        struct object_request req = rw_request(s, &a->key.pk);
        struct rw_key foreign = rw_key_of(33);
        if (!own)
            req.src.pk = foreign.pk;
        rw_send_request(s, &req, own ? &p->key.sk : &foreign.sk);
        rw_run(&m.w, 100 * NS_PER_MS);
        assert_int_equal(rw_verdict(s), 0);
        assert_int_equal(stat_of(&m, 0).sessions, 2); /* a client */
        /* With an own request it is no longer marked: foreign ones are refused now. */
        s = rw_open(p);
        req = rw_request(s, &a->key.pk);
        req.src.pk = foreign.pk;
        rw_send_request(s, &req, &foreign.sk);
        rw_run(&m.w, 100 * NS_PER_MS);
        assert_int_equal(rw_verdict(s), own ? -1 : 0);
        finish(&m);
    }
}

/* Row "00 00 on a peer session": on links of both directions. */
static void test_ping_marker_on_links(void **state)
{
    static const uint8_t marker[2] = {0, 0};
    struct mesh_world m;
    (void)state;
    start_fake(&m, RW_ACCEPT);
    struct rw_peer *in = rw_peer_new(at(&m, 0), 10);
    assert_int_equal(announce(&m, in), 1);
    struct rw_peer *both[] = {in, fake};
    for (int i = 0; i < 2; i++) {
        struct rw_stream *s = rw_open(both[i]);
        rw_write(s, marker, 2);
        rw_run(&m.w, 100 * NS_PER_MS);
        assert_true(s->got == 2 && s->first[0] == 0 && s->first[1] == 0 && s->eof);
    }
    finish(&m);
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
        start_first(&m, &(struct relay_cfg){.accept_relayed = on == 1});
        struct rw_peer *client = rw_peer_new(at(&m, 0), 1), *link = rw_peer_new(&m.w, 2),
                       *dst = rw_peer_new(&m.w, 3);
        assert_int_equal(announce(&m, link), 1);
        assert_int_equal(foreign_request(&m, client, &dst->key.pk, true, false), on ? 0 : -1);
        assert_int_equal(stat_of(&m, 0).relayed, on);
        assert_int_equal(foreign_request(&m, client, &dst->key.pk, false, false), -1);
        assert_int_equal(foreign_request(&m, link, &dst->key.pk, true, false), 0);
        assert_int_equal(foreign_request(&m, link, &dst->key.pk, false, false), -1);
        assert_int_equal(foreign_request(&m, link, &dst->key.pk, true, true), -1);
        assert_int_equal(foreign_request(&m, client, &dst->key.pk, true, true), -1);
        assert_int_equal(dst->incoming, on ? 2 : 1);
        assert_int_equal(rw_verdict(rw_dial(client, &dst->key.pk)), 0); /* plain: without a slot */
        assert_int_equal(stat_of(&m, 0).relayed, on ? 2 : 1);
        finish(&m);
    }
}

static void test_incident_28_foreign_source(void **state)
{
    (void)state;
    twice(incident_28);
}

/* Incident 28: a relay that does not answer costs a dialer 5 s, and for a minute nothing more. */
static void test_incident_28_mute_relay(void **state)
{
    struct mesh_world m;
    struct rw_key lost = rw_key_of(77), other = rw_key_of(78);
    (void)state;
    start_fake(&m, RW_ACCEPT);
    fake->answer = RW_SILENT;
    struct rw_peer *a = rw_peer_new(at(&m, 0), 1);
    uint64_t from = pipe_now(&m.w.net);
    assert_int_equal(rw_verdict(rw_dial(a, &lost.pk)), -1);
    assert_in_range(pipe_now(&m.w.net) - from, 5 * NS_PER_S, 5 * NS_PER_S + 100 * NS_PER_MS);
    for (int i = 0; i < 5; i++) {
        from = pipe_now(&m.w.net);
        assert_int_equal(rw_verdict(rw_dial(a, &lost.pk)), -1);
        assert_true(pipe_now(&m.w.net) - from < 100 * NS_PER_MS);
        rw_run(&m.w, 10 * NS_PER_S);
    }
    assert_int_equal(stat_of(&m, 0).miss_hits, 0); /* a time-out is no denial */
    assert_int_equal(fake->incoming, 2);
    assert_int_equal(rw_verdict(rw_dial(a, &other.pk)), -1); /* for others it is asked */
    assert_int_equal(fake->incoming, 3);
    rw_run(&m.w, 15 * NS_PER_S);
    assert_int_equal(rw_verdict(rw_dial(a, &lost.pk)), -1);
    assert_int_equal(fake->incoming, 4);
    finish(&m);
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
        start_fake(&m, RW_ACCEPT);
        start_relay(&m, 1, NULL);
        found(&m, 1, 0); /* the younger link: asked last */
        rw_run(&m.w, NS_PER_S);
        fake->answer = answers[i];
        struct rw_peer *a = rw_peer_new(at(&m, 0), 1), *b = rw_peer_new(at(&m, 1), 2);
        struct rw_stream *s = rw_dial(a, &b->key.pk);
        assert_int_equal(rw_verdict(s), 0);
        assert_int_equal(fake->incoming, 2);
        assert_int_equal(b->incoming, 1);
        assert_int_equal(stat_of(&m, 0).forward_failed, 1);
        assert_int_equal(stat_of(&m, 0).forwarded, 1);
        struct rw_key lost = rw_key_of(77);
        assert_int_equal(rw_verdict(rw_dial(a, &lost.pk)), -1);
        assert_int_equal(stat_of(&m, 0).missed, answers[i] == RW_FIN); /* both must deny */
        finish(&m);
    }
}

static void test_liars(void **state)
{
    (void)state;
    twice(liars);
}

/* A relay that vanished without FIN costs 1.5 s once, long before its session is given up. */
static void test_frozen_relay(void **state)
{
    struct mesh_world m;
    (void)state;
    start_fake(&m, RW_ACCEPT);
    start_relay(&m, 1, NULL);
    found(&m, 1, 0);
    rw_run(&m.w, NS_PER_S);
    struct rw_peer *a = rw_peer_new(at(&m, 0), 1), *b = rw_peer_new(at(&m, 1), 2),
                   *c = rw_peer_new(&m.w, 3);
    fake->conn->out.frozen = true;
    uint64_t from = pipe_now(&m.w.net);
    assert_int_equal(rw_verdict(rw_dial(a, &b->key.pk)), 0);
    assert_in_range(pipe_now(&m.w.net) - from, 1500 * NS_PER_MS, 1600 * NS_PER_MS);
    from = pipe_now(&m.w.net);
    assert_int_equal(rw_verdict(rw_dial(a, &c->key.pk)), 0);
    assert_true(pipe_now(&m.w.net) - from < 100 * NS_PER_MS);
    /* It is heard again: asked first, as before. */
    fake->conn->out.frozen = false;
    pipe_wake(fake->conn);
    fake->answer = RW_FIN;
    rw_run(&m.w, 5 * NS_PER_S);
    static const uint8_t marker[2] = {0, 0};
    rw_write(rw_open(fake), marker, 2);
    rw_run(&m.w, NS_PER_S);
    unsigned asked = fake->incoming;
    assert_int_equal(rw_verdict(rw_dial(a, &b->key.pk)), 0);
    assert_int_equal(fake->incoming, asked + 1);
    finish(&m);
}

/* What does not answer announcements is asked last. */
static void test_lame_relay_is_asked_last(void **state)
{
    struct mesh_world m;
    (void)state;
    start_fake(&m, RW_SILENT);
    start_relay(&m, 1, NULL);
    found(&m, 1, 0);
    for (int i = 0; i < 2; i++) { /* at once, and when its time is over */
        rw_run(&m.w, (i == 0 ? 1 : 10) * NS_PER_S);
        struct rw_peer *a = rw_peer_new(at(&m, 0), 1 + 2 * (unsigned)i),
                       *b = rw_peer_new(at(&m, 1), 2 + 2 * (unsigned)i);
        uint64_t from = pipe_now(&m.w.net);
        assert_int_equal(rw_verdict(rw_dial(a, &b->key.pk)), 0);
        assert_true(pipe_now(&m.w.net) - from < 100 * NS_PER_MS);
    }
    assert_int_equal(fake->incoming, 1);
    finish(&m);
}

/* A signed refusal of the destination comes through two relays, and ends the search. */
static void refusal(void)
{
    struct mesh_world m;
    start_pair(&m, NULL);
    struct rw_peer *a = rw_peer_new(at(&m, 0), 1), *b = rw_peer_new(at(&m, 1), 2);
    b->answer = RW_REFUSE;
    struct rw_stream *s = rw_dial(a, &b->key.pk);
    assert_int_equal(rw_verdict(s), ERR_DMSG_NO_LISTENER);
    assert_int_equal(stat_of(&m, 0).missed, 0);
    assert_int_equal(stat_of(&m, 0).relayed, 0);
    finish(&m);
}

static void test_refusal(void **state)
{
    (void)state;
    twice(refusal);
}

/* A link that breaks in the middle of a set-up or a transfer. */
static void test_link_breaks(void **state)
{
    struct mesh_world m;
    (void)state;
    start_fake(&m, RW_ACCEPT);
    start_relay(&m, 1, NULL);
    found(&m, 1, 0);
    rw_run(&m.w, NS_PER_S);
    fake->answer = RW_SILENT;
    struct rw_peer *a = rw_peer_new(at(&m, 0), 1), *b = rw_peer_new(at(&m, 1), 2);
    struct rw_stream *s = rw_open(a);
    struct object_request req = rw_request(s, &b->key.pk);
    rw_send_request(s, &req, &a->key.sk);
    rw_run(&m.w, NS_PER_S); /* relay 0 waits for the fake one */
    assert_false(s->opened);
    pipe_break(fake->conn, ERR_RESET);
    rw_run(&m.w, NS_PER_S);
    assert_int_equal(rw_verdict(s), 0); /* and asked the other then */
    b->keep = true;
    rw_pattern(s, 1 << 20, false);
    rw_run(&m.w, NS_PER_S);
    assert_int_equal(stat_of(&m, 1).relayed, 1);
    stop_relay(&m, 1);
    rw_run(&m.w, NS_PER_S);
    assert_true(s->reset);
    assert_int_equal(stat_of(&m, 0).relayed, 0);
    finish(&m);
}

/* ---- incident 29: slots ---- */

static void slots(void)
{
    struct mesh_world m;
    start_pair(&m, &(struct relay_cfg){.max_relayed = 40});
    struct rw_peer *greedy = rw_peer_new(at(&m, 0), 1), *modest = rw_peer_new(&m.w, 2),
                   *b = rw_peer_new(at(&m, 1), 3), *near = rw_peer_new(at(&m, 0), 4);
    unsigned got = 0;
    while (got < 100 && rw_verdict(rw_dial(greedy, &b->key.pk)) == 0)
        got++;
    assert_int_equal(got, 10); /* a quarter; at relay 1 all of it is charged to relay 0 */
    assert_int_equal(stat_of(&m, 0).relayed, 10);
    assert_int_equal(stat_of(&m, 0).slot_refused, 1);
    assert_int_equal(rw_verdict(rw_dial(greedy, &near->key.pk)), 0); /* no slot is needed here */
    assert_int_equal(rw_verdict(rw_dial(modest, &b->key.pk)), -1);   /* relay 1 is full for 0 … */
    assert_int_equal(stat_of(&m, 1).slot_refused, 1);
    assert_int_equal(rw_verdict(rw_dial(b, &modest->key.pk)), 0); /* … and not for others */
    rw_peer_close(greedy);
    rw_run(&m.w, 3 * NS_PER_S);
    assert_int_equal(stat_of(&m, 0).relayed, 1);
    assert_int_equal(rw_verdict(rw_dial(modest, &b->key.pk)), 0);
    finish(&m);
}

static void test_incident_29_fair_slots(void **state)
{
    (void)state;
    twice(slots);
}

/* Two keys at one relay: the first takes all it can, the second still gets its streams. */
static void test_incident_29_second_client(void **state)
{
    struct mesh_world m;
    (void)state;
    start_first(&m, &(struct relay_cfg){.max_relayed = 64, .accept_relayed = true});
    struct rw_peer *greedy = rw_peer_new(at(&m, 0), 1), *modest = rw_peer_new(&m.w, 2),
                   *b = rw_peer_new(&m.w, 3);
    unsigned got = 0, second = 0;
    while (got < 100 && foreign_request(&m, greedy, &b->key.pk, true, false) == 0)
        got++;
    while (second < 100 && foreign_request(&m, modest, &b->key.pk, true, false) == 0)
        second++;
    assert_int_equal(got, 16);
    assert_true(second >= 10);
    finish(&m);
}

static void test_incident_29_slots_come_back(void **state)
{
    struct mesh_world m;
    struct prop r = prop_init("mesh slots");
    (void)state;
    start_pair(&m, NULL);
    struct rw_peer *b = rw_peer_new(at(&m, 1), 3);
    for (int i = 0; i < 1000; i++) {
        struct rw_peer *a = rw_peer_new(at(&m, 0), 1);
        struct rw_stream *s = rw_open(a);
        struct object_request req = rw_request(s, &b->key.pk);
        rw_send_request(s, &req, &a->key.sk);
        if (prop_chance(&r, 75)) /* else at once; or anywhere in the set-up; or when it is open */
            rw_run(&m.w, prop_chance(&r, 50) ? prop_below(&r, 100000) : NS_PER_MS);
        rw_peer_close(a); /* abruptly, with everything open */
        rw_run(&m.w, NS_PER_MS);
    }
    rw_run(&m.w, 6 * NS_PER_S);
    assert_int_equal(stat_of(&m, 0).relayed, 0);
    assert_int_equal(stat_of(&m, 1).relayed, 0);
    assert_int_equal(stat_of(&m, 0).setups + stat_of(&m, 0).bridges, 0);
    finish(&m);
}

/* The share is never below one. */
static void test_incident_29_smallest_share(void **state)
{
    struct mesh_world m;
    (void)state;
    start_pair(&m, &(struct relay_cfg){.max_relayed = 2});
    struct rw_peer *a = rw_peer_new(at(&m, 0), 1), *b = rw_peer_new(at(&m, 1), 3);
    assert_int_equal(rw_verdict(rw_dial(a, &b->key.pk)), 0);
    assert_int_equal(rw_verdict(rw_dial(a, &b->key.pk)), -1);
    finish(&m);
}

/* ---- incident 33: oneself ---- */

static void test_incident_33_never_itself(void **state)
{
    struct mesh_world m;
    (void)state;
    begin(&m);
    struct relay_server self = server_of(&m, 0);
    start_first(&m, &(struct relay_cfg){.peers = &self, .n_peers = 1});
    start_relay(&m, 1, NULL);
    found(&m, 1, 0);
    tell_found(&m, 0, &self, 1);
    rw_run(&m.w, 100 * NS_PER_S);
    assert_int_equal(stat_of(&m, 0).dials, 0);
    /* A client of the own key at another relay is not where streams to oneself go. */
    struct rw_peer *away = rw_peer_start(at(&m, 1), &m.key[0], false);
    rw_run(&m.w, 6 * NS_PER_S);
    struct rw_peer *a = rw_peer_new(at(&m, 0), 1);
    assert_int_equal(rw_verdict(rw_dial(a, &m.key[0].pk)), -1);
    assert_int_equal(away->incoming, 0);
    struct rw_peer *local = rw_peer_start(at(&m, 0), &m.key[0], true);
    rw_run(&m.w, 100 * NS_PER_MS);
    assert_int_equal(rw_verdict(rw_dial(a, &m.key[0].pk)), 0);
    assert_int_equal(local->incoming, 1);
    /* Its own announcement, should it come: no. */
    assert_int_equal(announce(&m, local), 0);
    finish(&m);
}

/* ---- dialling ---- */

/* Nobody there: 1 s, × 1.5 … 60 s, a fifth of jitter; some 20 dials in ten minutes. */
static void test_dials_back_off(void **state)
{
    struct mesh_world m;
    (void)state;
    start_first(&m, NULL);
    found(&m, 0, 1);
    rw_run(&m.w, 600 * NS_PER_S);
    assert_in_range(stat_of(&m, 0).dials, 15, 25);
    assert_int_equal(stat_of(&m, 0).dial_failed, stat_of(&m, 0).dials);
    uint64_t dials = stat_of(&m, 0).dials;
    rw_run(&m.w, 3600 * NS_PER_S);
    assert_in_range(stat_of(&m, 0).dials - dials, 50, 75);
    start_relay(&m, 1, NULL); /* there it is */
    rw_run(&m.w, 75 * NS_PER_S);
    assert_int_equal(stat_of(&m, 0).peers, 1);
    finish(&m);
}

/* Incident 26: links that end young are dialled less and less; a long life makes good. */
static void test_incident_26_young_deaths(void **state)
{
    struct mesh_world m;
    (void)state;
    start_fake(&m, RW_ACCEPT);
    uint64_t until = pipe_now(&m.w.net) + 3600 * NS_PER_S;
    while (pipe_now(&m.w.net) < until) {
        if (fake->up && !fake->down && fake->link != NULL)
            rw_peer_close(fake);
        rw_run(&m.w, 100 * NS_PER_MS);
    }
    assert_in_range(fakes, 50, 90);
    while (fake->link == NULL || !fake->up)
        rw_run(&m.w, 100 * NS_PER_MS);
    rw_run(&m.w, 31 * NS_PER_S);
    unsigned before = fakes;
    rw_peer_close(fake);
    rw_run(&m.w, 2 * NS_PER_S);
    assert_int_equal(fakes, before + 1);
    finish(&m);
}

/* Another key answers at the address. */
static void test_wrong_key(void **state)
{
    struct mesh_world m;
    (void)state;
    start_first(&m, NULL);
    start_relay(&m, 1, NULL);
    struct relay_server s = server_of(&m, 1);
    s.pk = rw_key_of(88).pk;
    tell_found(&m, 0, &s, 1);
    rw_run(&m.w, 600 * NS_PER_S);
    assert_in_range(m.dialled[1], 15, 25);
    assert_int_equal(stat_of(&m, 0).dial_failed, m.dialled[1]);
    assert_int_equal(stat_of(&m, 0).peers, 0);
    struct relay_peer_info info;
    assert_int_equal(peers_of(&m, &info), 1);
    assert_true(info.last_err < 0 && !info.out && !info.in && info.found);
    finish(&m);
}

/* The union of what is configured and what is found: the newest address is dialled first. */
static void test_addresses(void **state)
{
    struct mesh_world m;
    struct relay_peer_info info;
    (void)state;
    begin(&m);
    struct relay_server one = server_of(&m, 1), moved = one;
    snprintf(moved.addr, sizeof moved.addr, "elsewhere:1");
    start_first(&m,
                &(struct relay_cfg){.peers = &moved, .n_peers = 1}); /* what is configured is old */
    start_relay(&m, 1, NULL);
    rw_run(&m.w, 60 * NS_PER_S);
    assert_int_equal(stat_of(&m, 0).peers, 0);
    tell_found(&m, 0, &one, 1);
    rw_run(&m.w, NS_PER_S);
    assert_int_equal(stat_of(&m, 0).peers, 1); /* at once, not at the end of the pause */
    uint64_t dials = stat_of(&m, 0).dials;
    tell_found(&m, 0, &one, 1); /* nothing new */
    rw_run(&m.w, 100 * NS_PER_S);
    assert_int_equal(stat_of(&m, 0).dials, dials);
    /* It starts again on another port. */
    stop_relay(&m, 1);
    snprintf(m.addr[1], sizeof m.addr[1], "relay1:2");
    rw_run(&m.w, 60 * NS_PER_S);
    start_relay(&m, 1, NULL);
    found(&m, 0, 1);
    rw_run(&m.w, NS_PER_S);
    assert_int_equal(stat_of(&m, 0).peers, 1);
    assert_int_equal(peers_of(&m, &info), 1);
    assert_true(info.out && info.configured && info.found && info.last_err == 0);
    /* Found no more, and gone: what is configured is still tried. */
    tell_found(&m, 0, NULL, 0);
    rw_run(&m.w, 60 * NS_PER_S);
    assert_int_equal(stat_of(&m, 0).peers, 1); /* a link is not cut for that */
    stop_relay(&m, 1);
    dials = stat_of(&m, 0).dials;
    rw_run(&m.w, 60 * NS_PER_S);
    assert_true(stat_of(&m, 0).dials > dials);
    finish(&m);
}

/* Found, vanished: not dialled any more, and forgotten. */
static void test_vanished(void **state)
{
    struct mesh_world m;
    struct relay_server list[4];
    (void)state;
    start_first(&m, NULL);
    for (int i = 0; i < 4; i++)
        list[i] = server_of(&m, i);
    list[3] = list[2];                              /* a double */
    memset(list[1].addr, 'x', sizeof list[1].addr); /* no end */
    tell_found(&m, 0, list, 4);                     /* and itself */
    assert_int_equal(peers_of(&m, NULL), 1);
    rw_run(&m.w, 10 * NS_PER_S);
    uint64_t dials = stat_of(&m, 0).dials;
    assert_true(dials > 0);
    tell_found(&m, 0, NULL, 0);
    rw_run(&m.w, 600 * NS_PER_S);
    assert_int_equal(stat_of(&m, 0).dials, dials);
    assert_int_equal(peers_of(&m, NULL), 0);
    finish(&m);
}

/* One key, many links: the newest is used, a few are kept, another takes over. */
static void test_links_of_one_key(void **state)
{
    struct mesh_world m;
    struct rw_key k = rw_key_of(10);
    struct rw_peer *p[8];
    (void)state;
    start_first(&m, NULL);
    struct rw_peer *a = rw_peer_new(at(&m, 0), 1);
    for (int i = 0; i < 8; i++) {
        p[i] = rw_peer_start(&m.w, &k, false);
        rw_run(&m.w, 100 * NS_PER_MS);
        assert_int_equal(announce(&m, p[i]), 1);
        p[i]->answer = RW_FIN;
    }
    rw_run(&m.w, NS_PER_S);
    assert_int_equal(stat_of(&m, 0).peers, 1);
    assert_int_equal(stat_of(&m, 0).peer_links, 4);
    for (int i = 7; i >= 4; i--) {
        struct rw_key lost = rw_key_of(200 + (unsigned)i);
        assert_int_equal(rw_verdict(rw_dial(a, &lost.pk)), -1);
        assert_int_equal(p[i]->incoming, 1);
        rw_peer_close(p[i]);
        rw_run(&m.w, NS_PER_S);
    }
    assert_int_equal(stat_of(&m, 0).peers, 0);
    finish(&m);
}

/* Freed and drained while dials, announcements and searches are under way. */
static void test_end_at_any_time(void **state)
{
    (void)state;
    for (uint64_t at_ns = 0; at_ns < 400 * NS_PER_MS; at_ns += 7 * NS_PER_MS) {
        struct mesh_world m;
        deferred = (at_ns & 1) != 0;
        start_first(&m, NULL);
        m.w.net.fault.delay_ns = 10 * NS_PER_MS;
        m.w.net.dial_ns = 10 * NS_PER_MS;
        start_relay(&m, 1, NULL);
        start_relay(&m, 2, NULL);
        found(&m, 0, 1);
        found(&m, 1, 2);
        found(&m, 2, 0);
        struct rw_peer *a = rw_peer_new(at(&m, 0), 1);
        struct rw_stream *s = rw_open(a);
        struct object_request req = rw_request(s, &m.key[2].pk);
        rw_send_request(s, &req, &a->key.sk);
        rw_run(&m.w, at_ns);
        relay_drain(m.relay[2]);
        stop_relay(&m, 1);
        rw_run(&m.w, NS_PER_S);
        m.w.net.fault.delay_ns = 0;
        finish(&m);
    }
    deferred = false;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forwards),
        cmocka_unit_test(test_nowhere),
        cmocka_unit_test(test_incident_27_two_relays_at_most),
        cmocka_unit_test(test_incident_27_private_relay),
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
