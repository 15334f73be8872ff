/*
 * A stream between two clients of this process: what comes is checked, and the mode hears of it.
 * With --e2e it is a stream of transport/client.h (sealed.c); without, a yamux stream on which the
 * objects are real and what follows is the bare pattern. The server cannot tell: it relays whatever
 * comes. With --bare there is no server and no object either.
 */
#include <stdlib.h>

#include "base/cursor.h"
#include "base/err.h"
#include "tests/bench/load/load.h"
#include "transport/objects.h"

#define FIRST_PORT      49152
#define SETUP_NS        (20 * NS_PER_S)
#define NOISE_MSG_BYTES 49
#define READ_STEP       65536u

struct load *load_of_flow(const struct flow *f)
{
    return f->end->load;
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
    if (f->stream != NULL) {
        sealed_free(f);
    } else {
        yamux_release(f->st, linger);
        link_kick(e->link);
    }
    free(f);
}

void flow_hold(struct flow *f)
{
    f->busy = true;
}

void flow_release(struct flow *f)
{
    f->busy = false;
    if (f->over)
        flow_free(f, f->linger);
}

void flow_close(struct flow *f)
{
    flow_free(f, true);
}

void flow_failed(struct flow *f, const char *what, int err)
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

struct flow *flow_new(struct end *e, bool dialled)
{
    struct load *l = e->load;
    struct flow *f = calloc(1, sizeof *f);
    if (f == NULL) {
        load_fail(l, "stream", ERR_NOMEM);
        return NULL;
    }
    f->end = e;
    f->dialled = dialled;
    f->state = dialled ? FLOW_DIALLING : FLOW_REQUEST;
    f->started_ns = l->loop->now_ns;
    f->timer.fn = on_timeout;
    loop_timer_set(l->loop, &f->timer, l->loop->now_ns + SETUP_NS);
    return f;
}

void flow_opened(struct flow *f)
{
    f->state = FLOW_OPEN;
    loop_timer_cancel(load_of_flow(f)->loop, &f->timer);
    load_opened(f);
}

/* Different for different streams, the same at both ends. */
uint32_t flow_seed(const struct pubkey *dialler, uint16_t port)
{
    return get_be32(dialler->b + 1) + port;
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
    uint8_t obj[OBJECT_ENCODED_MAX], msg[NOISE_MSG_BYTES]; /* looks like one to the server */
    size_t n = 0;
    uint16_t port = e->last_port = e->last_port < FIRST_PORT ? FIRST_PORT : e->last_port + 1u;
    env_random(&e->load->sys.env, msg, sizeof msg);
    struct object_request req = {.timestamp_ns = env_wall_ns(&e->load->sys.env),
                                 .src = {e->pk, port},
                                 .dst = {end_partner(e)->pk, LOAD_PORT},
                                 .noise_msg = {msg, sizeof msg}};
    f->seed = flow_seed(&e->pk, port);
    int rc = object_encode_request(obj, sizeof obj, &n, &req, OBJECT_2023);
    return rc < 0 ? rc : object_send(f, obj, n);
}

static int request_answer(struct flow *f, const uint8_t *obj, size_t n)
{
    struct object_request req;
    uint8_t out[OBJECT_ENCODED_MAX], msg[NOISE_MSG_BYTES];
    size_t out_n = 0;
    int rc = object_decode_request(&req, obj, n);
    if (rc == 0)
        rc = object_check_request(&req);
    if (rc == 0)
        rc = object_check_destination(&req, &f->end->pk);
    if (rc == 0)
        rc = object_verify(obj, n, &req.src.pk);
    if (rc < 0)
        return rc;
    env_random(&load_of_flow(f)->sys.env, msg, sizeof msg);
    f->seed = flow_seed(&req.src.pk, req.src.port);
    struct object_response rsp = {.accepted = true, .noise_msg = {msg, sizeof msg}};
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
    return rc == 0 ? object_response_verdict(&rsp) : rc;
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

size_t flow_send(struct flow *f, size_t n)
{
    size_t had = n;
    const uint8_t *p = pattern_at(seed_of(f, true), f->sent, &n);
    long taken = f->stream != NULL ? stream_write(f->stream, p, n)
                                   : yamux_write_slice(f->st, (struct slice){.p = p, .n = n});
    if (taken < 0) {
        load_error(load_of_flow(f), "write", (int)taken);
        return 0;
    }
    f->sent += (uint64_t)taken;
    if (f->stream == NULL) {
        if ((size_t)taken < had)
            yamux_want_write(f->st);
        link_kick(f->end->link);
    }
    return (size_t)taken;
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
    struct bufq came;
    bufq_init(&came, load_of_flow(f)->pool);
    if (f->stream != NULL)
        (void)stream_read_q(f->stream, &came, SIZE_MAX);
    else
        (void)yamux_read_q(f->st, &came, SIZE_MAX);
    int rc = check(f, &came) ? 0 : ERR_CORRUPT;
    bufq_clear(&came);
    return rc;
}

static bool at_eof(const struct flow *f)
{
    return f->stream != NULL ? stream_eof(f->stream) : yamux_eof(f->st);
}

void flow_step(struct flow *f, bool writable)
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
    if (!f->over && at_eof(f)) {
        l->mode->ended(f, ERR_EOF);
        flow_free(f, true);
    }
    if (writable && !f->over)
        l->mode->writable(f);
}

/* No more than what came before is there. */
void flow_lost(struct flow *f, int err)
{
    if (f->state == FLOW_OPEN) {
        load_of_flow(f)->mode->ended(f, err);
        flow_free(f, false);
    } else {
        flow_failed(f, "stream set-up", err);
    }
}

/* ---- events of the multiplexer ---- */

static struct flow *flow_accept(struct end *e, struct yamux_stream *st)
{
    int rc = yamux_accept(st);
    struct flow *f = rc == 0 ? flow_new(e, false) : NULL;
    if (f == NULL) {
        load_error(e->load, "accept", rc);
        yamux_release(st, false);
        return NULL;
    }
    f->st = st;
    st->user = f;
    if (e->load->o.bare) {
        f->seed = st->id;
        flow_opened(f);
    }
    return f;
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
        flow_step(f, (what & YAMUX_WRITABLE) != 0);
}

void flow_event(struct end *e, const struct yamux_event *ev)
{
    struct flow *f = ev->what & YAMUX_OPENED ? flow_accept(e, ev->stream) : ev->stream->user;
    if (f == NULL)
        return;
    flow_hold(f);
    if (ev->what & YAMUX_RESET)
        flow_lost(f, ev->stream->reset_err);
    else
        on_news(f, ev->what);
    flow_release(f);
}

static bool dial(struct flow *f)
{
    struct end *e = f->end;
    int rc = yamux_open(link_mux(e->link), f, e->load->loop->now_ns, &f->st);
    if (rc < 0) {
        loop_timer_cancel(e->load->loop, &f->timer);
        free(f);
        load_fail(e->load, "new stream", rc);
        return false;
    }
    f->seed = f->st->id;
    link_kick(e->link);
    rc = e->load->o.bare ? 0 : request_send(f);
    if (rc < 0)
        flow_failed(f, "request", rc);
    return rc == 0;
}

bool flow_dial(struct end *e)
{
    struct flow *f = flow_new(e, true);
    if (f == NULL)
        return false;
    return e->load->o.e2e ? sealed_dial(f) : dial(f);
}
