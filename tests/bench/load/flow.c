/*
 * A stream between two clients of this process. With --e2e its bytes are sealed as an application's
 * would be; without, they are the bare pattern. The server cannot tell: it sees the same objects
 * and relays whatever follows. With --bare there is no server and no object, only the multiplexer.
 */
#include <assert.h>
#include <stdlib.h>

#include "base/cursor.h"
#include "base/err.h"
#include "tests/bench/load/load.h"
#include "transport/objects.h"

#define PORT            7000
#define FIRST_PORT      49152
#define SETUP_NS        (20 * NS_PER_S)
#define NOISE_MSG_BYTES 49
#define READ_STEP       65536u

struct load *load_of_flow(const struct flow *f)
{
    return f->end->load;
}

static void noise_free(struct flow *f)
{
    if (f->noise != NULL)
        noise_wipe(f->noise);
    free(f->noise);
    f->noise = NULL;
}

/* While one of its events is handled the flow only remembers that it is over. */
static void flow_free(struct flow *f, bool linger)
{
    struct end *e = f->end;
    f->over = true;
    f->linger = linger;
    if (f->busy)
        return;
    loop_timer_cancel(e->load->loop, &f->timer);
    noise_free(f);
    bufq_clear(&f->in);
    yamux_release(f->st, linger);
    link_kick(e->link);
    free(f);
}

void flow_close(struct flow *f)
{
    flow_free(f, true);
}

static void flow_failed(struct flow *f, const char *what, int err)
{
    struct load *l = load_of_flow(f);
    if (l->mode->tolerant && f->state != FLOW_OPEN) {
        load_error(l, what, err);
        l->mode->ended(f, err);
    } else {
        load_fail(l, what, err);
    }
    flow_free(f, false);
}

static void on_timeout(struct loop_timer *t)
{
    flow_failed(container_of(t, struct flow, timer), "stream set-up", ERR_TIMEOUT);
}

static struct flow *flow_new(struct end *e, struct yamux_stream *st, bool dialled)
{
    struct load *l = e->load;
    struct flow *f = calloc(1, sizeof *f);
    if (f == NULL) {
        load_fail(l, "stream", ERR_NOMEM);
        return NULL;
    }
    f->end = e;
    f->st = st;
    f->dialled = dialled;
    f->state = dialled ? FLOW_DIALLING : FLOW_REQUEST;
    f->started_ns = l->loop->now_ns;
    f->timer.fn = on_timeout;
    bufq_init(&f->in, l->pool);
    st->user = f;
    loop_timer_set(l->loop, &f->timer, l->loop->now_ns + SETUP_NS);
    return f;
}

static void flow_opened(struct flow *f)
{
    f->state = FLOW_OPEN;
    loop_timer_cancel(load_of_flow(f)->loop, &f->timer);
    load_opened(f);
}

/* ---- the end-to-end handshake ---- */

/* Public-key work is done at once here (env_sys). */
static void never_pending(struct noise *n, int rc)
{
    (void)n;
    assert(rc < 0);
}

static int noise_start(struct flow *f, const struct pubkey *remote)
{
    struct end *e = f->end;
    struct noise_cfg cfg = {.env = &e->load->sys.env,
                            .pattern = NOISE_KK,
                            .initiator = f->dialled,
                            .cls = PK_CLASS_STREAM,
                            .sk = &e->sk,
                            .pk = &e->pk,
                            .remote = remote,
                            .on_ready = never_pending};
    f->noise = calloc(1, sizeof *f->noise);
    return f->noise != NULL ? noise_init(f->noise, &cfg) : ERR_NOMEM;
}

/* Our message of the handshake; without --e2e bytes that only look like one. */
static int noise_message(struct flow *f, uint8_t out[NOISE_OUT_MAX], size_t *n)
{
    if (load_of_flow(f)->o.e2e)
        return noise_write(f->noise, out, NOISE_OUT_MAX, n);
    env_random(&load_of_flow(f)->sys.env, out, *n = NOISE_MSG_BYTES);
    return 0;
}

static void noise_finish(struct flow *f)
{
    if (f->noise != NULL)
        noise_split(f->noise, &f->tx, &f->rx.rx);
    noise_free(f);
}

/* ---- objects ---- */

static int object_send(struct flow *f, uint8_t *obj, size_t n)
{
    struct hash digest;
    struct sig sig;
    object_digest(&digest, obj, n);
    int rc = crypto_sign_digest(&sig, &f->end->sk, &digest);
    if (rc < 0)
        return rc;
    object_set_sig(obj, &sig);
    if (f->dialled)
        object_hash(&f->req_hash, obj, n);
    rc = session_write_object(link_session(f->end->link), f->st, obj, n);
    link_kick(f->end->link);
    return rc;
}

/* 0 and a good signature of the sender's, ERR_AGAIN, or what is wrong. */
static int object_receive(struct flow *f, uint8_t *obj, size_t *n)
{
    enum session_read what;
    int rc =
        session_read_object(link_session(f->end->link), f->st, &what, obj, SESSION_OBJECT_MAX, n);
    return rc == 0 && what != SESSION_READ_OBJECT ? ERR_DMSG_OBJECT : rc;
}

static int object_verify(const uint8_t *obj, size_t n, const struct pubkey *pk)
{
    struct hash digest;
    struct sig sig;
    object_digest(&digest, obj, n);
    object_get_sig(&sig, obj);
    return crypto_verify_digest(pk, &sig, &digest);
}

static int request_send(struct flow *f)
{
    struct end *e = f->end;
    uint8_t obj[OBJECT_ENCODED_MAX], msg[NOISE_OUT_MAX];
    size_t n = 0, msg_n = 0;
    const struct pubkey *to = &end_partner(e)->pk;
    uint16_t port = e->last_port = e->last_port < FIRST_PORT ? FIRST_PORT : e->last_port + 1u;
    int rc = e->load->o.e2e ? noise_start(f, to) : 0;
    if (rc == 0)
        rc = noise_message(f, msg, &msg_n);
    if (rc < 0)
        return rc;
    struct object_request req = {.timestamp_ns = env_wall_ns(&e->load->sys.env),
                                 .src = {e->pk, port},
                                 .dst = {*to, PORT},
                                 .noise_msg = {msg, msg_n}};
    f->seed = get_be32(e->pk.b + 1) + port;
    rc = object_encode_request(obj, sizeof obj, &n, &req, OBJECT_2023);
    return rc < 0 ? rc : object_send(f, obj, n);
}

static int request_answer(struct flow *f, const uint8_t *obj, size_t n)
{
    struct object_request req;
    uint8_t out[OBJECT_ENCODED_MAX], msg[NOISE_OUT_MAX];
    size_t out_n = 0, msg_n = 0;
    int rc = object_decode_request(&req, obj, n);
    if (rc == 0)
        rc = object_check_request(&req);
    if (rc == 0)
        rc = object_check_destination(&req, &f->end->pk);
    if (rc == 0)
        rc = object_verify(obj, n, &req.src.pk);
    if (rc == 0 && load_of_flow(f)->o.e2e) {
        rc = noise_start(f, &req.src.pk);
        if (rc == 0)
            rc = noise_read(f->noise, req.noise_msg.p, req.noise_msg.n);
    }
    if (rc == 0)
        rc = noise_message(f, msg, &msg_n);
    if (rc < 0)
        return rc;
    noise_finish(f);
    f->seed = get_be32(req.src.pk.b + 1) + req.src.port;
    struct object_response rsp = {.accepted = true, .noise_msg = {msg, msg_n}};
    object_hash(&rsp.req_hash, obj, n);
    rc = object_encode_response(out, sizeof out, &out_n, &rsp, OBJECT_2023);
    return rc < 0 ? rc : object_send(f, out, out_n);
}

static int response_take(struct flow *f, const uint8_t *obj, size_t n)
{
    struct object_response rsp;
    int rc = object_decode_response(&rsp, obj, n);
    if (rc == 0)
        rc = object_check_response(&rsp, &f->req_hash);
    if (rc == 0)
        rc = object_verify(obj, n, &end_partner(f->end)->pk);
    if (rc == 0)
        rc = object_response_verdict(&rsp);
    if (rc == 0 && f->noise != NULL)
        rc = noise_read(f->noise, rsp.noise_msg.p, rsp.noise_msg.n);
    if (rc == 0)
        noise_finish(f);
    return rc;
}

static void setup_step(struct flow *f)
{
    static uint8_t obj[SESSION_OBJECT_MAX];
    size_t n = 0;
    int rc = object_receive(f, obj, &n);
    if (rc == ERR_AGAIN)
        return;
    if (rc == 0)
        rc = f->dialled ? response_take(f, obj, n) : request_answer(f, obj, n);
    if (rc < 0)
        flow_failed(f, f->dialled ? "answer to a stream" : "request for a stream", rc);
    else
        flow_opened(f);
}

/* ---- bytes ---- */

/* Each direction has a pattern of its own. */
static uint32_t seed_of(const struct flow *f, bool sending)
{
    return f->seed + (f->dialled == sending ? 0u : 1u);
}

static size_t send_raw(struct flow *f, size_t n)
{
    struct slice s = {.n = n};
    s.p = pattern_at(seed_of(f, true), f->sent, &s.n);
    long taken = yamux_write_slice(f->st, s);
    if (taken < 0) {
        load_error(load_of_flow(f), "write", (int)taken);
        return 0;
    }
    return (size_t)taken;
}

static size_t send_sealed(struct flow *f, size_t n)
{
    struct bufq wire;
    size_t taken = 0, fit = record_plain_fit(yamux_writable(f->st));
    bufq_init(&wire, load_of_flow(f)->pool);
    n = n < fit ? n : fit;
    const uint8_t *p = pattern_at(seed_of(f, true), f->sent, &n);
    int rc = record_write(&f->tx, &wire, p, n, &taken);
    if (rc == 0)
        rc = yamux_write_q(f->st, &wire, bufq_len(&wire));
    bufq_clear(&wire);
    if (rc < 0) {
        load_fail(load_of_flow(f), "write", rc);
        return 0;
    }
    return taken;
}

size_t flow_send(struct flow *f, size_t n)
{
    size_t taken = load_of_flow(f)->o.e2e ? send_sealed(f, n) : send_raw(f, n);
    f->sent += taken;
    if (taken < n)
        yamux_want_write(f->st);
    link_kick(f->end->link);
    return taken;
}

/* Check and drop what is in q. */
static bool check(struct flow *f, struct bufq *q)
{
    while (bufq_len(q) > 0) {
        struct slice s = bufq_pop(q, READ_STEP);
        bool good = pattern_check(seed_of(f, false), f->got, s.p, s.n);
        f->got += s.n;
        slice_release(&s);
        if (!good)
            return false;
    }
    return true;
}

/* Take in what came. 0 or an error. */
static int receive(struct flow *f)
{
    struct bufq plain;
    bufq_init(&plain, load_of_flow(f)->pool);
    bool sealed = load_of_flow(f)->o.e2e;
    if (yamux_read_q(f->st, sealed ? &f->in : &plain, SIZE_MAX) == 0 && yamux_readable(f->st) > 0)
        return ERR_NOMEM;
    int rc = sealed ? record_read(&f->rx, &f->in, &plain, SIZE_MAX) : 0;
    if (rc == 0 && !check(f, &plain))
        rc = ERR_CORRUPT;
    bufq_clear(&plain);
    return rc;
}

static void open_step(struct flow *f, unsigned what)
{
    struct load *l = load_of_flow(f);
    uint64_t had = f->got;
    int rc = receive(f);
    if (rc < 0) {
        flow_failed(f, "bytes of a stream", rc);
        return;
    }
    l->rx_bytes += f->got - had;
    if (f->got > had)
        l->mode->readable(f, f->got - had);
    if (yamux_eof(f->st) && !f->over) {
        l->mode->ended(f, ERR_EOF);
        flow_free(f, true);
    }
    if ((what & YAMUX_WRITABLE) && !f->over)
        l->mode->writable(f);
}

/* ---- events ---- */

static struct flow *flow_accept(struct end *e, struct yamux_stream *st)
{
    int rc = yamux_accept(st);
    if (rc < 0) {
        load_error(e->load, "accept", rc);
        yamux_release(st, false);
        return NULL;
    }
    struct flow *f = flow_new(e, st, false);
    if (f != NULL && e->load->o.bare) {
        f->seed = st->id;
        flow_opened(f);
    }
    return f;
}

static void on_reset(struct flow *f)
{
    if (f->state == FLOW_OPEN) {
        load_of_flow(f)->mode->ended(f, f->st->reset_err);
        flow_free(f, false);
    } else {
        flow_failed(f, "stream set-up", f->st->reset_err);
    }
}

static void on_news(struct flow *f, unsigned what)
{
    if (f->state == FLOW_DIALLING && load_of_flow(f)->o.bare) {
        if (what & YAMUX_ACKED)
            flow_opened(f);
    } else if (f->state != FLOW_OPEN && (what & (YAMUX_READABLE | YAMUX_EOF))) {
        setup_step(f);
    }
    if (f->state == FLOW_OPEN && !f->over)
        open_step(f, what);
}

void flow_event(struct end *e, const struct yamux_event *ev)
{
    struct flow *f = ev->what & YAMUX_OPENED ? flow_accept(e, ev->stream) : ev->stream->user;
    if (f == NULL)
        return;
    f->busy = true;
    if (ev->what & YAMUX_RESET)
        on_reset(f);
    else
        on_news(f, ev->what);
    f->busy = false;
    if (f->over)
        flow_free(f, f->linger);
}

bool flow_dial(struct end *e)
{
    struct load *l = e->load;
    struct yamux_stream *st;
    int rc = yamux_open(link_mux(e->link), NULL, l->loop->now_ns, &st);
    if (rc < 0) {
        load_fail(l, "new stream", rc);
        return false;
    }
    struct flow *f = flow_new(e, st, true);
    if (f == NULL) {
        yamux_release(st, false);
        return false;
    }
    f->seed = st->id;
    link_kick(e->link);
    if (l->o.bare)
        return true;
    rc = request_send(f);
    if (rc < 0)
        flow_failed(f, "request", rc);
    return rc == 0;
}
