/* The responder's side of stream set-up (docs/protocol/dmsg.md §4.6). */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "transport/client_int.h"

#define SETUPS_MAX 1024u /* incoming streams in set-up, all ports together */

enum setup_state {
    SETUP_REQUEST, /* the object is coming */
    SETUP_VERIFY,  /* its signature is being checked */
    SETUP_READ,    /* KK message 1 is being read */
    SETUP_WRITE,   /* KK message 2 is being built */
    SETUP_SIGN,    /* the response is being signed */
    SETUP_SEND,    /* it waits for room */
};

struct setup {
    struct stream *stream;
    enum setup_state state;
    struct noise noise;
    struct pk_wait wait;
    uint64_t listener; /* serial of the one this counts for, 0 = none */
    struct object_addr dst;
    struct hash req_hash;
    int refusal; /* what the response says */
    size_t n;
    uint8_t bytes[OBJECT_ENCODED_MAX]; /* KK message 1, later the response */
};

_Static_assert(OBJECT_NOISE_MAX <= OBJECT_ENCODED_MAX, "a noise message fits");

static void listener_leave(struct setup *x)
{
    struct listener *l = client_listener(x->stream->client, x->dst.port);

    if (x->listener != 0 && l != NULL && l->serial == x->listener)
        l->setups--;
    x->listener = 0;
}

void setup_free(struct stream *st)
{
    struct setup *x = st->setup;

    if (x == NULL)
        return;
    st->setup = NULL;
    listener_leave(x);
    st->client->setups--;
    env_pk_cancel(st->client->cfg.env, &x->wait);
    noise_wipe(&x->noise);
    free(x);
}

/* Nobody is told but the peer: this stream ends, the session does not care (incident 8). */
static void refuse(struct setup *x, int err)
{
    struct stream *st = x->stream;
    struct client *c = st->client;

    c->stat.refused++;
    if (err != ERR_DMSG_NO_LISTENER && err != ERR_DMSG_ACCEPT_FULL)
        c->stat.bad_objects++;
    log_limited_here(LOG_STREAM, LOG_LEVEL_DEBUG, "stream refused from=%s port=%u reason=\"%s\"",
                     LOG_PK(&st->remote), x->dst.port, err_str(err));
    stream_drop(st, x->state == SETUP_SEND);
}

/* ---- the response ---- */

static void send_response(struct setup *x)
{
    struct stream *st = x->stream;

    x->state = SETUP_SEND;
    int rc = session_write_object(link_session(st->end.server->link), st->end.mux, x->bytes, x->n);
    endpoint_kick(&st->end);
    if (rc == ERR_AGAIN)
        return; /* YAMUX_WRITABLE follows */
    if (rc != 0 || x->refusal != 0) {
        refuse(x, rc != 0 ? rc : x->refusal);
    } else {
        st->client->stat.accepted++;
        client_dest_reached(st->client, &st->remote);
        stream_open(st, &x->noise, STREAM_NEWS_ACCEPTED);
    }
}

static void response_signed(struct pk_wait *w)
{
    struct setup *x = container_of(w, struct setup, wait);
    int rc = w->res.err;

    if (rc != 0) {
        refuse(x, rc);
        return;
    }
    object_set_sig(x->bytes, &w->res.sig);
    send_response(x);
}

static void answer(struct setup *x, const uint8_t *msg, size_t n)
{
    struct object_response rsp = {
        .req_hash = x->req_hash,
        .accepted = x->refusal == 0,
        .err_code = (uint16_t)err_dmsg_code(x->refusal),
        .noise_msg = {msg, n},
    };

    int rc = object_encode_response(x->bytes, sizeof x->bytes, &x->n, &rsp, OBJECT_2023);
    if (rc == 0) {
        x->state = SETUP_SIGN;
        x->wait.done = response_signed;
        rc = client_sign(x->stream->client, &x->wait, x->bytes, x->n);
    }
    if (rc == 0)
        response_signed(&x->wait);
    else if (rc != ERR_PENDING)
        refuse(x, rc);
}

/* A signed refusal: only for requests whose signature was right. */
static void answer_refusal(struct setup *x, int err)
{
    x->refusal = err;
    answer(x, NULL, 0);
}

/* ---- the handshake ---- */

static void write_message(struct setup *x)
{
    uint8_t msg[NOISE_OUT_MAX];
    size_t n;

    x->state = SETUP_WRITE;
    int rc = noise_write(&x->noise, msg, sizeof msg, &n);
    if (rc == 0)
        answer(x, msg, n);
    else if (rc != ERR_PENDING)
        refuse(x, rc);
}

static void message_read(struct setup *x)
{
    struct client *c = x->stream->client;
    struct listener *l = client_listener(c, x->dst.port);

    if (l == NULL) {
        answer_refusal(x, ERR_DMSG_NO_LISTENER);
    } else if (l->setups >= c->cfg.backlog) {
        answer_refusal(x, ERR_DMSG_ACCEPT_FULL);
    } else {
        l->setups++;
        x->listener = l->serial;
        write_message(x);
    }
}

static void on_noise(struct noise *n, int rc)
{
    struct setup *x = container_of(n, struct setup, noise);

    if (rc != 0)
        refuse(x, rc);
    else if (x->state == SETUP_READ)
        message_read(x);
    else
        write_message(x);
}

static void verified(struct pk_wait *w)
{
    struct setup *x = container_of(w, struct setup, wait);
    struct stream *st = x->stream;

    if (w->res.err != 0) {
        refuse(x, ERR_DMSG_REQ_SIG);
        return;
    }
    if (!pubkey_equal(&x->dst.pk, &st->client->cfg.self)) {
        answer_refusal(x, ERR_DMSG_REQ_DST_PK);
        return;
    }
    x->state = SETUP_READ;
    int rc = client_noise(st->client, &x->noise, false, &st->remote, on_noise);
    if (rc == 0)
        rc = noise_read(&x->noise, x->bytes, x->n);
    if (rc == 0)
        message_read(x);
    else if (rc != ERR_PENDING)
        refuse(x, rc);
}

/* ---- the request ---- */

static int keep_request(struct setup *x, const struct object_request *req, size_t n)
{
    struct stream *st = x->stream;

    if (req->noise_msg.n > OBJECT_NOISE_MAX)
        return ERR_TOO_LONG;
    st->remote = req->src.pk;
    st->remote_port = req->src.port;
    st->local_port = req->dst.port;
    x->dst = req->dst;
    x->n = req->noise_msg.n;
    memcpy(x->bytes, x->n > 0 ? req->noise_msg.p : x->bytes, x->n);
    object_hash(&x->req_hash, st->client->scratch, n);
    return 0;
}

static void read_request(struct setup *x)
{
    struct stream *st = x->stream;
    struct client *c = st->client;
    struct object_request req;
    size_t n;

    int rc = client_read_object(c, &st->end, &n);
    if (rc == ERR_AGAIN)
        return;
    if (rc == 0)
        rc = object_decode_request(&req, c->scratch, n);
    if (rc == 0)
        rc = object_check_request(&req);
    if (rc == 0)
        rc = keep_request(x, &req, n);
    if (rc == 0) {
        x->state = SETUP_VERIFY;
        x->wait.done = verified;
        rc = client_verify_scratch(c, &x->wait, &st->remote, n);
    }
    if (rc == 0)
        verified(&x->wait);
    else if (rc != ERR_PENDING)
        refuse(x, rc);
}

void setup_event(struct stream *st, unsigned what)
{
    struct setup *x = st->setup;

    switch (x->state) {
    case SETUP_REQUEST:
        if (what & (YAMUX_READABLE | YAMUX_EOF))
            read_request(x);
        return;
    case SETUP_SEND:
        if (what & YAMUX_WRITABLE)
            send_response(x);
        return;
    case SETUP_VERIFY:
    case SETUP_READ:
    case SETUP_WRITE:
    case SETUP_SIGN:
        return; /* data waits in the stream */
    }
}

void setup_timeout(struct stream *st)
{
    refuse(st->setup, ERR_TIMEOUT);
}

/* ---- a stream of the server ---- */

static struct stream *setup_new(struct client *c)
{
    struct stream *st = c->setups < SETUPS_MAX ? stream_new(c, STREAM_ACCEPTING) : NULL;

    if (st == NULL)
        return NULL;
    if ((st->setup = calloc(1, sizeof *st->setup)) == NULL) {
        stream_drop(st, false);
        return NULL;
    }
    st->setup->stream = st;
    c->setups++;
    return st;
}

bool setup_start(struct cserver *s, struct yamux_stream *mux)
{
    struct client *c = s->client;
    struct stream *st = setup_new(c);

    if (st == NULL || yamux_accept(mux) != 0) {
        c->stat.refused++;
        if (st != NULL)
            stream_drop(st, false);
        yamux_release(mux, false);
        link_kick(s->link);
        return false;
    }
    endpoint_attach(&st->end, s, mux);
    st->via = s->pk;
    loop_timer_set(c->cfg.loop, &st->timer, client_now(c) + CLIENT_SETUP_MS * NS_PER_MS);
    link_kick(s->link);
    return true;
}
