#include "tests/unit/transport/mesh_world.h"

#include "tests/unit/vectors.h"

/* ---- several relays on one net; relay 0 is that of the rw_world ---- */

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
void mw_tell(struct mesh_world *m, int i, const struct relay_server *list, size_t n)
{
    if (i > 0)
        relay_mesh_found(m->relay[i], list, n);
    for (unsigned k = 0; i == 0 && k < m->w.workers; k++)
        relay_mesh_found(rw_worker(&m->w, k), list, n);
}

/* Up to one of them. */
size_t mw_peers(struct mesh_world *m, struct relay_peer_info *out)
{
    size_t n = 0;
    for (unsigned k = 0; k < m->w.workers; k++)
        n += relay_peers(rw_worker(&m->w, k), out, n == 0 && out != NULL ? 1 : 0);
    return n;
}

/* Peers that are made from now on connect to this relay. */
struct rw_world *mw_at(struct mesh_world *m, int i)
{
    m->w.relay = m->relay[i];
    m->w.key = m->key[i];
    return &m->w;
}

struct relay_server mw_server(const struct mesh_world *m, int i)
{
    struct relay_server s = {.pk = m->key[i].pk};
    snprintf(s.addr, sizeof s.addr, "%s", m->addr[i]);
    return s;
}

void mw_begin(struct mesh_world *m)
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
void mw_start(struct mesh_world *m, const struct relay_cfg *cfg)
{
    struct relay_cfg own = cfg != NULL ? *cfg : (struct relay_cfg){0};
    mw_begin(m);
    own.carrier = &m->w.net.carrier; /* made by rw_init(), before it is used */
    rw_init(&m->w, &own);
    m->relay[0] = m->w.relay;
    open_door(m, 0);
}

void mw_relay(struct mesh_world *m, int i, const struct relay_cfg *cfg)
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

void mw_stop(struct mesh_world *m, int i)
{
    pipe_unlisten(&m->w.net, m->addr[i]);
    relay_free(m->relay[i]);
    m->relay[i] = NULL;
}

struct relay_stat mw_stat(const struct mesh_world *m, int i)
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

void mw_finish(struct mesh_world *m)
{
    struct list_node *pos, *tmp;
    list_for_each(pos, tmp, &m->w.peers)(void)
        rw_peer_close(container_of(pos, struct rw_peer, node));
    rw_run(&m->w, NS_PER_S);
    for (int i = RELAYS - 1; i >= 0; i--) {
        if (m->relay[i] == NULL)
            continue;
        struct relay_stat st = mw_stat(m, i);
        assert_true(st.bridges == 0 && st.setups == 0 && st.buffered == 0 && st.relayed == 0);
        if (i > 0)
            mw_stop(m, i);
    }
    mw_at(m, 0);
    rw_run(&m->w, NS_PER_S);
    rw_free(&m->w);
}

unsigned mw_code_count(const struct mesh_world *m, int i, int err)
{
    return (unsigned)mw_stat(m, i).refused_by_code[relay_code_index(err)];
}

/* Relay i dials relay j, both ways of finding it alike. */
void mw_found(struct mesh_world *m, int i, int j)
{
    struct relay_server s = mw_server(m, j);
    mw_tell(m, i, &s, 1);
}

/* Relays 0 and 1, each dials the other. */
void mw_pair(struct mesh_world *m, const struct relay_cfg *cfg)
{
    mw_start(m, cfg);
    mw_relay(m, 1, cfg);
    mw_found(m, 0, 1);
    mw_found(m, 1, 0);
    rw_run(&m->w, NS_PER_S);
    assert_int_equal(mw_stat(m, 0).peers, 1);
    assert_int_equal(mw_stat(m, 1).peers, 1);
}

/* ---- announcements by the test ---- */

size_t mw_announcement(uint8_t *obj, const struct mesh_world *m, const struct pubkey *src,
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
int mw_announce_as(struct mesh_world *m, struct rw_peer *p, const struct pubkey *src,
                   const struct seckey *sk, const struct rw_key *relay)
{
    uint8_t obj[OBJECT_ENCODED_MAX];
    struct object_response rsp;
    struct hash hash, digest;
    struct sig sig;
    size_t n = mw_announcement(obj, m, src, sk);
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

int mw_announce(struct mesh_world *m, struct rw_peer *p)
{
    return mw_announce_as(m, p, &p->key.pk, &p->key.sk, &m->key[0]);
}

/* ---- a relay that the test plays ---- */

static void on_fake(void *arg, struct conn *conn)
{
    struct mesh_world *m = arg;
    struct rw_key k = rw_key_of(600);
    m->fake = rw_peer_accepted(&m->w, &k, conn);
    m->fake->answer = m->fake_answer;
    m->fakes++;
}

/* Relay 0 knows a relay that the test plays. */
void mw_fake(struct mesh_world *m, enum rw_answer answer)
{
    struct relay_server s = {.pk = rw_key_of(600).pk, .addr = "fake:1"};
    mw_start(m, NULL);
    m->fake_answer = answer;
    pipe_listen(&m->w.net, "fake:1", on_fake, m);
    mw_tell(m, 0, &s, 1);
    rw_run(&m->w, NS_PER_S);
    assert_true(m->fake != NULL && m->fake->up);
    assert_int_equal(m->fake->incoming, 1); /* the announcement */
}

void mw_fake_and_relay(struct mesh_world *m, enum rw_answer answer)
{
    mw_fake(m, answer);
    mw_relay(m, 1, NULL);
    mw_found(m, 1, 0);
    rw_run(&m->w, NS_PER_S);
}
