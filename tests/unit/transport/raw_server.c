#include "tests/unit/transport/raw_server.h"

/* ---- the link ---- */

static struct raw_stream *stream_add(struct raw_server *s, struct yamux_stream *st, bool ours)
{
    struct raw_stream *x = calloc(1, sizeof *x);

    assert_non_null(x);
    x->st = st;
    x->ours = ours;
    st->user = x;
    list_push_back(&s->streams, &x->node);
    return x;
}

static void on_up(struct link *l)
{
    struct raw_server *s = link_arg(l);
    s->up = true;
}

static void on_event(struct link *l, const struct yamux_event *ev)
{
    struct raw_server *s = link_arg(l);

    if (ev->stream == NULL)
        return;
    if ((ev->what & YAMUX_OPENED) && s->deaf)
        return;
    if (ev->what & YAMUX_OPENED) {
        assert_int_equal(yamux_accept(ev->stream), 0);
        s->opened = stream_add(s, ev->stream, false);
    }
    struct raw_stream *x = ev->stream->user;
    if (x == NULL)
        return;
    x->eof |= (ev->what & YAMUX_EOF) != 0;
    if (ev->what & YAMUX_RESET) {
        x->reset = true;
        raw_release(s, x);
    }
}

static void on_down(struct link *l, int err)
{
    struct raw_server *s = link_arg(l);
    struct list_node *pos, *tmp;

    (void)err;
    s->down = !s->leaves;
    s->ends++;
    list_for_each(pos, tmp, &s->streams) container_of(pos, struct raw_stream, node)->st = NULL;
    link_close(l);
    s->link = NULL;
}

static const struct link_owner owner = {on_up, on_event, on_down};

static void on_accept(void *arg, struct conn *conn)
{
    struct raw_server *s = arg;
    struct session_cfg cfg = {.env = &s->w.env.env,
                              .pool = s->w.pool,
                              .self = s->w.relay_key[0].pk,
                              .sk = &s->w.relay_key[0].sk};

    assert_null(s->link);
    s->sessions++;
    s->link = link_new(&s->w.net.loop, conn, &cfg, &owner, s);
    assert_non_null(s->link);
}

void raw_start(struct raw_server *s)
{
    memset(s, 0, sizeof *s);
    list_init(&s->streams);
    world_init(&s->w);
    pipe_listen(&s->w.net, world_addr(0), on_accept, s);
    world_join(&s->w, 0, 0);
    world_up(&s->w, 0, 1);
    raw_run(s, 200 * NS_PER_MS);
    assert_true(s->up);
}

void raw_stop(struct raw_server *s)
{
    struct raw_stream *x;

    assert_false(s->down);
    if (s->link != NULL)
        link_close(s->link);
    while ((x = list_pop_front_as(&s->streams, struct raw_stream, node)) != NULL)
        free(x);
    pipe_unlisten(&s->w.net, world_addr(0));
    world_free(&s->w);
}

void raw_run(struct raw_server *s, uint64_t ns)
{
    world_run(&s->w, ns);
}

/* ---- streams ---- */

struct raw_stream *raw_open(struct raw_server *s)
{
    struct yamux_stream *st;

    assert_int_equal(yamux_open(link_mux(s->link), NULL, pipe_now(&s->w.net), &st), 0);
    link_kick(s->link);
    return stream_add(s, st, true);
}

void raw_write(struct raw_server *s, struct raw_stream *x, const void *p, size_t n)
{
    assert_int_equal(yamux_write(x->st, p, n), n);
    link_kick(s->link);
}

void raw_object(struct raw_server *s, struct raw_stream *x, const void *obj, size_t n)
{
    assert_int_equal(session_write_object(link_session(s->link), x->st, obj, n), 0);
    link_kick(s->link);
}

int raw_read_object(struct raw_server *s, struct raw_stream *x, uint8_t *obj, size_t *n)
{
    static uint8_t buf[SESSION_OBJECT_MAX];
    enum session_read what;

    if (x->st == NULL)
        return ERR_RESET;
    int rc = session_read_object(link_session(s->link), x->st, &what, buf, sizeof buf, n);
    if (rc == 0) {
        assert_int_equal(what, SESSION_READ_OBJECT);
        assert_true(*n <= OBJECT_ENCODED_MAX);
        memcpy(obj, buf, *n);
    }
    return rc;
}

void raw_fin(struct raw_server *s, struct raw_stream *x)
{
    assert_int_equal(yamux_close_write(x->st), 0);
    link_kick(s->link);
}

void raw_release(struct raw_server *s, struct raw_stream *x)
{
    if (x->st == NULL)
        return;
    x->st->user = NULL;
    yamux_release(x->st, false);
    x->st = NULL;
    link_kick(s->link);
}

/* ---- peers ---- */

static void on_noise(struct noise *n, int rc)
{
    (void)n, (void)rc;
    fail_msg("work of the test's own peer is done at once");
}

void raw_peer_init(struct raw_peer *p, struct raw_server *s, int number)
{
    char seed[32];

    (void)s;
    memset(p, 0, sizeof *p);
    snprintf(seed, sizeof seed, "raw peer %d", number);
    assert_int_equal(
        crypto_keypair_from_seed(&p->key.sk, &p->key.pk, (const uint8_t *)seed, strlen(seed)), 0);
}

static void handshake(struct raw_peer *p, struct raw_server *s, bool initiator)
{
    struct noise_cfg cfg = {.env = &s->w.env.env,
                            .pattern = NOISE_KK,
                            .initiator = initiator,
                            .cls = PK_CLASS_ITEM,
                            .sk = &p->key.sk,
                            .pk = &p->key.pk,
                            .remote = &s->w.client[0].key.pk,
                            .on_ready = on_noise};
    assert_int_equal(noise_init(&p->noise, &cfg), 0);
}

/* Deferred or refused work of the env is for the client; the peer's own is done directly. */
struct own_env {
    bool deferred;
    size_t pk_cap;
};

static struct own_env own_begin(struct raw_server *s)
{
    struct own_env was = {s->w.env.deferred, s->w.env.pk_cap};

    s->w.env.deferred = false;
    s->w.env.pk_cap = ENV_TEST_PK_CAP;
    return was;
}

static void own_end(struct raw_server *s, struct own_env was)
{
    s->w.env.deferred = was.deferred;
    s->w.env.pk_cap = was.pk_cap;
}

void raw_request(struct raw_peer *p, struct raw_server *s, uint16_t port, uint8_t *msg,
                 struct object_request *req)
{
    struct own_env was = own_begin(s);
    size_t n;

    noise_wipe(&p->noise);
    handshake(p, s, true);
    assert_int_equal(noise_write(&p->noise, msg, NOISE_OUT_MAX, &n), 0);
    own_end(s, was);
    *req = (struct object_request){.timestamp_ns = s->w.env.wall_ns,
                                   .src = {p->key.pk, 50000},
                                   .dst = {s->w.client[0].key.pk, port},
                                   .noise_msg = {msg, n}};
}

static void sign(struct raw_peer *p, const struct seckey *sk)
{
    struct hash digest;
    struct sig sig;

    object_digest(&digest, p->obj, p->obj_n);
    assert_int_equal(crypto_sign_digest(&sig, sk, &digest), 0);
    object_set_sig(p->obj, &sig);
    object_hash(&p->hash, p->obj, p->obj_n);
}

void raw_sign_request(struct raw_peer *p, const struct object_request *req, const struct seckey *sk)
{
    assert_int_equal(object_encode_request(p->obj, sizeof p->obj, &p->obj_n, req, OBJECT_2023), 0);
    sign(p, sk);
}

void raw_sign_response(struct raw_peer *p, const struct object_response *rsp,
                       const struct seckey *sk)
{
    assert_int_equal(object_encode_response(p->obj, sizeof p->obj, &p->obj_n, rsp, OBJECT_2023), 0);
    sign(p, sk);
}

int raw_take_response(struct raw_peer *p, struct raw_server *s, struct raw_stream *x)
{
    uint8_t obj[OBJECT_ENCODED_MAX];
    struct object_response rsp;
    struct hash digest;
    struct sig sig;
    size_t n;

    int rc = raw_read_object(s, x, obj, &n);
    if (rc != 0)
        return rc;
    assert_int_equal(object_decode_response(&rsp, obj, n), 0);
    assert_int_equal(object_check_response(&rsp, &p->hash), 0);
    object_digest(&digest, obj, n);
    object_get_sig(&sig, obj);
    assert_int_equal(crypto_verify_digest(&s->w.client[0].key.pk, &sig, &digest), 0);
    rc = object_response_verdict(&rsp);
    assert_true((rc == 0) == (rsp.noise_msg.n > 0));
    if (rc != 0)
        return rc;
    struct own_env was = own_begin(s);
    assert_int_equal(noise_read(&p->noise, rsp.noise_msg.p, rsp.noise_msg.n), 0);
    own_end(s, was);
    noise_split(&p->noise, &p->tx, &p->rx.rx);
    return 0;
}

struct raw_stream *raw_dial(struct raw_server *s, struct raw_peer *p, uint16_t port)
{
    uint8_t msg[NOISE_OUT_MAX];
    struct object_request req;
    struct raw_stream *x = raw_open(s);

    raw_request(p, s, port, msg, &req);
    raw_sign_request(p, &req, &p->key.sk);
    raw_object(s, x, p->obj, p->obj_n);
    raw_run(s, 10 * NS_PER_MS);
    assert_int_equal(raw_take_response(p, s, x), 0);
    return x;
}

void raw_take_request(struct raw_peer *p, struct raw_server *s, struct raw_stream *x,
                      struct object_request *req, uint8_t *msg, size_t *n)
{
    assert_int_equal(raw_read_object(s, x, p->obj, &p->obj_n), 0);
    object_hash(&p->hash, p->obj, p->obj_n);
    assert_int_equal(object_decode_request(req, p->obj, p->obj_n), 0);
    struct own_env was = own_begin(s);
    noise_wipe(&p->noise);
    handshake(p, s, false);
    assert_int_equal(noise_read(&p->noise, req->noise_msg.p, req->noise_msg.n), 0);
    assert_int_equal(noise_write(&p->noise, msg, NOISE_OUT_MAX, n), 0);
    own_end(s, was);
    noise_split(&p->noise, &p->tx, &p->rx.rx);
}

void raw_send(struct raw_peer *p, struct raw_server *s, struct raw_stream *x, const void *data,
              size_t n)
{
    struct bufq q;
    size_t taken;

    bufq_init(&q, s->w.pool);
    assert_int_equal(record_write(&p->tx, &q, data, n, &taken), 0);
    assert_int_equal(taken, n);
    assert_int_equal(yamux_write_q(x->st, &q, bufq_len(&q)), 0);
    link_kick(s->link);
}
