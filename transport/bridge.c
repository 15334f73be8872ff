#include "transport/relay_int.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"

struct setup {
    struct pk_wait wait;
    struct bridge *bridge;
    uint8_t *obj; /* the signed object under way: request, response or our own answer */
    size_t obj_n; /* 0 in BRIDGE_ANSWER: the ping marker */
    struct pubkey dst;
    struct hash req_hash; /* of the request; the response must name it */
    int verdict;          /* of the destination: 0, or the refusal that is passed on */
};

/* ---- plumbing ---- */

static uint64_t now_of(const struct bridge *b)
{
    return b->relay->cfg.loop->now_ns;
}

static void deadline_set(struct bridge *b, uint64_t ms)
{
    loop_timer_set(b->relay->cfg.loop, &b->timer, now_of(b) + ms * NS_PER_MS);
}

static void leg_attach(struct leg *leg, struct rsession *s, struct yamux_stream *st,
                       struct bridge *b)
{
    leg->session = s;
    leg->st = st;
    st->user = b;
    list_push_back(&s->legs, &leg->node);
}

static void leg_detach(struct leg *leg, bool linger)
{
    if (leg->st == NULL)
        return;
    list_remove(&leg->node);
    yamux_release(leg->st, linger);
    leg->st = NULL;
    relay_recount(leg->session);
    link_kick(leg->session->link);
}

static void setup_free(struct bridge *b)
{
    if (b->setup == NULL)
        return;
    env_pk_cancel(b->relay->cfg.env, &b->setup->wait);
    pk_wait_wipe(&b->setup->wait);
    free(b->setup->obj);
    free(b->setup);
    b->setup = NULL;
}

static void bridge_end(struct bridge *b, bool linger)
{
    struct relay *r = b->relay;
    if (b->state == BRIDGE_OPEN)
        r->stat.bridges--;
    else
        r->stat.setups--;
    loop_timer_cancel(r->cfg.loop, &b->timer);
    setup_free(b);
    leg_detach(&b->src, linger);
    leg_detach(&b->dst, linger);
    list_remove(&b->node);
    free(b);
}

static void count_failure(struct bridge *b, int err)
{
    struct relay *r = b->relay;
    r->stat.stream_failed++;
    r->stat.refused_by_code[relay_code_index(err)]++;
    log_debug(LOG_RELAY, "stream refused from=%s reason=\"%s\"",
              link_conn(b->src.session->link)->peer, err_str(err));
}

void bridge_kill(struct bridge *b, int err)
{
    if (b->state != BRIDGE_OPEN)
        count_failure(b, err);
    bridge_end(b, false);
}

/* Set-up failed: the dialer reads the end of its stream at once (docs/protocol/dmsg.md §4.6, never
 * left open). */
static void refuse(struct bridge *b, int err)
{
    count_failure(b, err);
    leg_detach(&b->dst, false);
    bridge_end(b, true);
}

static void keep_object(struct setup *s, uint8_t *obj, size_t n)
{
    free(s->obj);
    s->obj = obj;
    s->obj_n = n;
}

/* Read one object from a leg and keep it. 0, ERR_AGAIN, or why the stream is refused. */
static int read_object(struct bridge *b, struct leg *leg, enum session_read *what)
{
    uint8_t *tmp = b->relay->object, *obj;
    size_t n = 0;
    int rc = session_read_object(link_session(leg->session->link), leg->st, what, tmp,
                                 sizeof(b->relay->object), &n);
    if (rc != 0 || *what != SESSION_READ_OBJECT)
        return rc;
    relay_recount(leg->session);
    if (n > RELAY_OBJECT_MAX)
        return ERR_TOO_LONG;
    if (n <= SIG_BYTES)
        return ERR_DMSG_OBJECT;
    if ((obj = malloc(n)) == NULL)
        return ERR_NOMEM;
    memcpy(obj, tmp, n);
    keep_object(b->setup, obj, n);
    return 0;
}

/* Write the object at hand to a leg; ERR_AGAIN: YAMUX_WRITABLE comes when there is room for it. */
static int write_object(struct bridge *b, struct leg *leg)
{
    int rc = session_write_object(link_session(leg->session->link), leg->st, b->setup->obj,
                                  b->setup->obj_n);
    link_kick(leg->session->link);
    return rc;
}

static void verify(struct bridge *b, const struct pubkey *pk, pk_done_fn *done)
{
    struct setup *s = b->setup;
    struct pk_req req = {.op = PK_VERIFY, .cls = PK_CLASS_STREAM, .pk = *pk};
    object_digest(&req.digest, s->obj, s->obj_n);
    object_get_sig(&req.sig, s->obj);
    s->wait.done = done;
    int rc = env_pk(b->relay->cfg.env, &s->wait, &req);
    if (rc == 0)
        done(&s->wait);
    else if (rc != ERR_PENDING)
        refuse(b, rc);
}

/* ---- open: bytes both ways ---- */

static struct leg *other_leg(struct bridge *b, const struct yamux_stream *st)
{
    return b->src.st == st ? &b->dst : &b->src;
}

/* Move what came on `from`; FIN follows its bytes, each direction for itself. Returns false when the
 * bridge is gone. */
static bool pump(struct bridge *b, struct leg *from, struct leg *to)
{
    if (yamux_write_closed(to->st))
        return true; /* this direction is over, or YAMUX_RESET is under way */
    long n = yamux_splice(to->st, from->st);
    bool fin = n >= 0 && yamux_eof(from->st);
    if (n < 0 || (fin && yamux_close_write(to->st) < 0)) {
        bridge_kill(b, ERR_NOMEM);
        return false;
    }
    if (n == 0 && !fin)
        return true;
    b->relay->stat.bytes += (uint64_t)n;
    b->moved_ns = now_of(b);
    relay_recount(from->session);
    link_kick(to->session->link);
    link_kick(from->session->link); /* credit */
    if (!fin)
        return true;
    if (b->half) { /* both FINs have been passed on */
        bridge_end(b, true);
        return false;
    }
    b->half = true;
    deadline_set(b, b->relay->cfg.drain_ms);
    return true;
}

static void open_event(struct bridge *b, struct yamux_stream *st, unsigned what)
{
    struct leg *other = other_leg(b, st), *self = other == &b->src ? &b->dst : &b->src;
    if (what & YAMUX_RESET) {
        bridge_kill(b, ERR_RESET);
        return;
    }
    if ((what & (YAMUX_READABLE | YAMUX_EOF)) && !pump(b, self, other))
        return;
    if (what & YAMUX_WRITABLE)
        (void)pump(b, other, self);
}

static void bridge_open(struct bridge *b)
{
    struct relay *r = b->relay;
    setup_free(b);
    b->state = BRIDGE_OPEN;
    b->moved_ns = now_of(b);
    r->stat.setups--;
    r->stat.bridges++;
    r->stat.stream_ok++;
    deadline_set(b, r->cfg.idle_ms);
    /* Bytes may have come right behind the objects. */
    if (pump(b, &b->dst, &b->src))
        (void)pump(b, &b->src, &b->dst);
}

/* ---- the destination's answer ---- */

static void return_response(struct bridge *b)
{
    int verdict = b->setup->verdict, rc = write_object(b, &b->src);
    if (rc == ERR_AGAIN)
        return;
    if (rc < 0) {
        refuse(b, rc);
    } else if (verdict == 0) {
        bridge_open(b);
    } else { /* the dialer has been told why: both streams end in order */
        count_failure(b, verdict);
        bridge_end(b, true);
    }
}

static void response_verified(struct pk_wait *w)
{
    struct bridge *b = container_of(w, struct setup, wait)->bridge;
    if (w->res.err != 0) {
        refuse(b, ERR_DMSG_RSP_SIG);
        return;
    }
    b->state = BRIDGE_RETURN;
    return_response(b);
}

static void read_response(struct bridge *b)
{
    struct setup *s = b->setup;
    struct object_response rsp;
    enum session_read what;
    int rc = read_object(b, &b->dst, &what);
    if (rc == ERR_AGAIN)
        return;
    if (rc == 0 && what != SESSION_READ_OBJECT)
        rc = ERR_DMSG_OBJECT;
    if (rc == 0)
        rc = object_decode_response(&rsp, s->obj, s->obj_n);
    if (rc == 0)
        rc = object_check_response(&rsp, &s->req_hash);
    if (rc < 0) {
        refuse(b, rc);
        return;
    }
    s->verdict = object_response_verdict(&rsp);
    b->state = BRIDGE_VERIFY_RESPONSE;
    verify(b, &s->dst, response_verified);
}

/* ---- the request's way to the destination ---- */

static void write_request(struct bridge *b)
{
    int rc = write_object(b, &b->dst);
    if (rc == 0)
        b->state = BRIDGE_RESPONSE;
    else if (rc != ERR_AGAIN)
        refuse(b, rc);
}

static void forward(struct bridge *b)
{
    struct relay *r = b->relay;
    struct rsession *to = relay_find(r, &b->setup->dst);
    struct yamux_stream *st = NULL;
    if (to == NULL) {
        refuse(b, ERR_DMSG_NO_NEXT_SESSION);
        return;
    }
    int rc = yamux_open(link_mux(to->link), NULL, now_of(b), &st);
    if (rc < 0) {
        refuse(b, rc);
        return;
    }
    leg_attach(&b->dst, to, st, b);
    deadline_set(b, r->cfg.response_ms);
    b->state = BRIDGE_FORWARD;
    write_request(b);
}

/* ---- answers of our own: ping marker (docs/protocol/dmsg.md §3.5), IP look-up (§6.1) ---- */

static int write_marker(struct bridge *b)
{
    static const uint8_t marker[2] = {0, 0};
    struct yamux_stream *st = b->src.st;
    struct bufq q;
    if (!yamux_write_fits(st, sizeof(marker))) {
        yamux_want_room(st, sizeof(marker));
        return ERR_AGAIN;
    }
    bufq_init(&q, b->relay->cfg.pool);
    int rc = bufq_append_copy(&q, marker, sizeof(marker));
    if (rc == 0)
        rc = yamux_write_q(st, &q, sizeof(marker));
    bufq_clear(&q);
    return rc;
}

static void write_answer(struct bridge *b)
{
    bool ping = b->setup->obj_n == 0;
    int rc = ping ? write_marker(b) : write_object(b, &b->src);
    if (rc == ERR_AGAIN)
        return;
    if (rc < 0) {
        refuse(b, rc);
        return;
    }
    if (ping)
        b->relay->stat.pings++;
    else
        b->relay->stat.ip_lookups++;
    bridge_end(b, true);
}

static void ip_signed(struct pk_wait *w)
{
    struct setup *s = container_of(w, struct setup, wait);
    if (w->res.err != 0) {
        refuse(s->bridge, w->res.err);
        return;
    }
    object_set_sig(s->obj, &w->res.sig);
    s->bridge->state = BRIDGE_ANSWER;
    write_answer(s->bridge);
}

static void answer_ip(struct bridge *b)
{
    struct relay *r = b->relay;
    struct setup *s = b->setup;
    const struct conn *conn = link_conn(b->src.session->link);
    struct object_response rsp = {
        .req_hash = s->req_hash, .accepted = true, .ip = {conn->peer_ip, conn->peer_ip_len}};
    struct pk_req req = {.op = PK_SIGN, .cls = PK_CLASS_STREAM, .sk = r->cfg.sk};
    uint8_t *obj = conn->peer_ip_len > 0 ? malloc(OBJECT_ENCODED_MAX) : NULL;
    size_t n = 0;

    if (obj == NULL || object_encode_response(obj, OBJECT_ENCODED_MAX, &n, &rsp, OBJECT_2026) < 0) {
        free(obj);
        refuse(b, ERR_UNSUPPORTED);
        return;
    }
    keep_object(s, obj, n);
    object_digest(&req.digest, obj, n);
    b->state = BRIDGE_SIGN_IP;
    s->wait.done = ip_signed;
    int rc = env_pk(r->cfg.env, &s->wait, &req);
    sodium_memzero(&req, sizeof(req));
    if (rc == 0)
        ip_signed(&s->wait);
    else if (rc != ERR_PENDING)
        refuse(b, rc);
}

/* ---- the first object of a stream ---- */

static void request_verified(struct pk_wait *w)
{
    struct setup *s = container_of(w, struct setup, wait);
    struct bridge *b = s->bridge;
    struct relay *r = b->relay;
    struct object_request req;

    int rc = w->res.err != 0 ? ERR_DMSG_REQ_SIG : object_decode_request(&req, s->obj, s->obj_n);
    if (rc == 0)
        rc = object_check_source(&req, &b->src.session->pk, false);
    if (rc < 0) {
        refuse(b, rc);
        return;
    }
    s->dst = req.dst.pk;
    object_hash(&s->req_hash, s->obj, s->obj_n);
    if (req.ip_info && pubkey_equal(&req.dst.pk, &r->cfg.self))
        answer_ip(b);
    else
        forward(b);
}

static void read_request(struct bridge *b)
{
    struct setup *s = b->setup;
    struct object_request req;
    enum session_read what;
    int rc = read_object(b, &b->src, &what);
    if (rc == ERR_AGAIN)
        return;
    if (rc == 0 && what == SESSION_READ_MARKER) {
        b->state = BRIDGE_ANSWER;
        write_answer(b);
        return;
    }
    if (rc == 0)
        rc = object_decode_request(&req, s->obj, s->obj_n);
    if (rc == 0)
        rc = object_check_request(&req);
    if (rc < 0) {
        refuse(b, rc);
        return;
    }
    b->state = BRIDGE_VERIFY_REQUEST;
    verify(b, &req.src.pk, request_verified);
}

/* ---- events ---- */

void bridge_event(struct bridge *b, struct yamux_stream *st, unsigned what)
{
    bool readable = (what & (YAMUX_READABLE | YAMUX_EOF)) != 0;
    if (b->state != BRIDGE_OPEN && (what & YAMUX_RESET)) {
        refuse(b, st->reset_err != 0 ? st->reset_err : ERR_RESET);
        return;
    }
    switch (b->state) {
    case BRIDGE_OBJECT:
        if (readable)
            read_request(b);
        return;
    case BRIDGE_FORWARD:
        if ((what & YAMUX_WRITABLE) && st == b->dst.st)
            write_request(b);
        return;
    case BRIDGE_RESPONSE:
        if (readable && st == b->dst.st)
            read_response(b);
        return;
    case BRIDGE_RETURN:
        if ((what & YAMUX_WRITABLE) && st == b->src.st)
            return_response(b);
        return;
    case BRIDGE_ANSWER:
        if (what & YAMUX_WRITABLE)
            write_answer(b);
        return;
    case BRIDGE_VERIFY_REQUEST:
    case BRIDGE_SIGN_IP:
    case BRIDGE_VERIFY_RESPONSE:
        return; /* bytes wait in the stream */
    case BRIDGE_OPEN:
        open_event(b, st, what);
        return;
    }
}

static void open_timer(struct bridge *b)
{
    struct relay *r = b->relay;
    uint64_t limit = (b->half ? r->cfg.drain_ms : r->cfg.idle_ms) * NS_PER_MS;
    if (now_of(b) - b->moved_ns < limit) {
        loop_timer_set(r->cfg.loop, &b->timer, b->moved_ns + limit);
        return;
    }
    if (b->half)
        r->stat.resets_drain++;
    else
        r->stat.resets_idle++;
    bridge_kill(b, ERR_TIMEOUT);
}

static void on_timer(struct loop_timer *t)
{
    struct bridge *b = container_of(t, struct bridge, timer);
    if (b->state == BRIDGE_OPEN)
        open_timer(b);
    else
        refuse(b, ERR_TIMEOUT);
}

bool bridge_start(struct rsession *s, struct yamux_stream *st)
{
    struct relay *r = s->relay;
    struct bridge *b = NULL;
    if (!relay_syn_allowed(s)) {
        r->stat.syn_limited++;
        goto refused;
    }
    if ((b = calloc(1, sizeof(*b))) == NULL || (b->setup = calloc(1, sizeof(*b->setup))) == NULL ||
        yamux_accept(st) < 0)
        goto refused;
    b->relay = r;
    b->setup->bridge = b;
    b->state = BRIDGE_OBJECT;
    b->timer.fn = on_timer;
    leg_attach(&b->src, s, st, b);
    list_push_back(&r->bridges, &b->node);
    r->stat.streams++;
    r->stat.setups++;
    deadline_set(b, r->cfg.object_ms);
    return true;
refused:
    if (b != NULL)
        free(b->setup);
    free(b);
    yamux_release(st, false);
    return false;
}
