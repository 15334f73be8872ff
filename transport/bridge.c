#include "transport/relay_int.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "base/cursor.h"
#include "base/err.h"
#include "base/log.h"

enum answer { ANSWER_PING, ANSWER_IP, ANSWER_ANNOUNCE };

#define SILENT_MS                                                                                  \
    1500u /* a link to another relay on which nothing at all comes for so long is dead */
#define MEMBER_GRACE_MS 5000u /* before a worker ends what another one should have ended */
#define WALK_FACTOR     4u    /* times that one relay may take, for all of them */

/* What one worker tells another one about a request, in front of it: from whom it came, and what to do
 * with it. The answer is the response as it came, or the reason why there is none, as be32. */
#define HOP_BYTES    (2u + PUBKEY_BYTES)
#define HOP_MARKED   1u /* the session it came on is marked */
#define HOP_FOREIGN  2u /* its source is not the key of that session */
#define HOP_LINKS    4u /* ask your links to other relays, nothing else: those that are good … */
#define HOP_DOUBTFUL 8u /* … or those that may lead nowhere */
#define REASON_BYTES 4u

struct setup {
    struct pk_wait wait;
    struct bridge *bridge;
    uint8_t *obj; /* the signed object under way: request, response or our own answer */
    size_t obj_n;
    uint8_t *kept; /* the request, while another relay's response is at hand: it may be asked for */
    size_t kept_n; /* again */
    enum answer answer;
    struct mesh_walk walk;
    bool walking; /* the destination is asked for at other relays */
    uint64_t give_up_ns;
    uint64_t asked_ns;      /* when the request was sent on */
    struct pubkey src, dst; /* of the request */
    struct pubkey from;     /* key of the session that it came on */
    bool marked, foreign;   /* that session is marked; src is not from */
    bool ip_info;
    struct hash req_hash; /* of the request; the response must name it */
    int verdict;          /* of the destination: 0, or the refusal that is passed on */
};

/* ---- plumbing ---- */

static uint64_t now_of(const struct bridge *b)
{
    return b->relay->cfg.loop->now_ns;
}

/* Another worker has the session of its source, and does the counting. */
static bool for_member(const struct bridge *b)
{
    return b->src.session->trunk;
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

/* Bring the count of what waits at another worker up to date. Over two trunks nothing is counted: it
 * is where it came from. */
static void far_set(struct bridge *b, bool ended)
{
    bool src = b->src.session->trunk;
    struct leg *far = src ? &b->src : &b->dst, *near = src ? &b->dst : &b->src;
    if (far->st == NULL || near->st == NULL || !far->session->trunk || near->session->trunk)
        return;
    uint32_t now = ended ? 0 : yamux_under_way(far->st);
    if (now == b->far)
        return;
    near->session->far = near->session->far - b->far + now;
    b->far = now;
    b->far_since_ns = now_of(b);
    list_remove(&b->far_node);
    if (now > 0)
        list_push_back(&near->session->far_bridges, &b->far_node);
    relay_recount(near->session);
}

static void leg_detach(struct leg *leg, bool linger)
{
    if (leg->st == NULL)
        return;
    list_remove(&leg->node);
    flow_leave(leg);
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
    free(b->setup->kept);
    free(b->setup);
    b->setup = NULL;
}

static void bridge_end(struct bridge *b, bool linger)
{
    struct relay *r = b->relay;
    if (!for_member(b)) {
        *(b->state == BRIDGE_OPEN ? &r->stat.bridges : &r->stat.setups) -= 1;
        guard_stream_leave(r->guard);
    }
    loop_timer_cancel(r->cfg.loop, &b->timer);
    setup_free(b);
    if (b->share != NULL)
        mesh_slot_give(r, b->share);
    far_set(b, true);
    leg_detach(&b->src, linger);
    leg_detach(&b->dst, linger);
    list_remove(&b->node);
    free(b);
}

static void count_failure(struct bridge *b, int err)
{
    struct relay *r = b->relay;
    if (for_member(b))
        return;
    r->stat.stream_failed++;
    r->stat.refused_by_code[relay_code_index(err)]++;
    log_limited_here(LOG_RELAY, LOG_LEVEL_DEBUG, "stream refused from=%s reason=\"%s\"",
                     link_conn(b->src.session->link)->peer, err_str(err));
}

void bridge_kill(struct bridge *b, int err)
{
    if (b->state != BRIDGE_OPEN)
        count_failure(b, err);
    bridge_end(b, false);
}

static void give_reason(struct bridge *b, int err)
{
    struct rsession *to = b->src.session;
    uint8_t reason[REASON_BYTES];
    put_be32(reason, (uint32_t)err);
    /* Without it the stream just ends. */
    (void)!session_write_object(link_session(to->link), b->src.st, reason, sizeof(reason));
}

/* Set-up failed: the dialer reads the end of its stream at once (docs/protocol/dmsg.md §4.6, never
 * left open). */
static void refuse(struct bridge *b, int err)
{
    if (for_member(b))
        give_reason(b, err);
    count_failure(b, err);
    leg_detach(&b->dst, false);
    bridge_end(b, true);
}

static void forward_next(struct bridge *b);

/* What the destination's side did is wrong: another relay may do better. */
static void dst_failed(struct bridge *b, int err)
{
    struct setup *s = b->setup;
    if (!s->walking) {
        refuse(b, err);
        return;
    }
    env_pk_cancel(b->relay->cfg.env, &s->wait);
    leg_detach(&b->dst, false);
    mesh_failed(b->relay, &s->walk, &s->dst, err);
    forward_next(b);
}

void bridge_lost(struct bridge *b, struct leg *leg)
{
    if (b->state != BRIDGE_OPEN && b->state != BRIDGE_RETURN && leg == &b->dst)
        dst_failed(b, ERR_DMSG_SESSION_CLOSED);
    else
        bridge_kill(b, ERR_DMSG_SESSION_CLOSED);
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
    if (leg->session->trunk && n == REASON_BYTES)
        return (int)get_be32(tmp);
    if (n > RELAY_OBJECT_MAX + (leg->session->trunk ? HOP_BYTES : 0))
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

/* How long an open bridge may be silent. Where the source's session is, time is up first. */
static uint64_t open_limit_ms(const struct bridge *b)
{
    const struct relay_cfg *cfg = &b->relay->cfg;
    return (b->half ? cfg->drain_ms : cfg->idle_ms) + (for_member(b) ? MEMBER_GRACE_MS : 0);
}

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
    size_t may = flow_may(from);
    long n = may > 0 ? yamux_splice_some(to->st, from->st, may) : 0;
    bool fin = n >= 0 && yamux_eof(from->st);
    if (n < 0 || (fin && yamux_close_write(to->st) < 0)) {
        bridge_kill(b, ERR_NOMEM);
        return false;
    }
    if (n == 0 && !fin)
        return true;
    if (!from->session->trunk)
        b->relay->stat.bytes += (uint64_t)n;
    b->moved_ns = now_of(b);
    flow_moved(from, (size_t)n);
    far_set(b, false);
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
    deadline_set(b, open_limit_ms(b));
    return true;
}

static void open_event(struct bridge *b, struct yamux_stream *st, unsigned what)
{
    struct leg *other = other_leg(b, st), *self = other == &b->src ? &b->dst : &b->src;
    if (what & YAMUX_RESET) {
        bridge_kill(b, ERR_RESET);
        return;
    }
    if (what & YAMUX_CREDIT)
        far_set(b, false);
    if ((what & (YAMUX_READABLE | YAMUX_EOF)) && !pump(b, self, other))
        return;
    if (what & YAMUX_WRITABLE)
        (void)pump(b, other, self);
}

void bridge_resume(struct bridge *b, struct yamux_stream *st)
{
    open_event(b, st, YAMUX_READABLE);
}

bool bridge_waits(const struct bridge *b, const struct yamux_stream *st)
{
    return flow_waits(b->src.st == st ? &b->src : &b->dst);
}

static void bridge_open(struct bridge *b)
{
    struct relay *r = b->relay;
    setup_free(b);
    b->state = BRIDGE_OPEN;
    b->moved_ns = now_of(b);
    if (!for_member(b)) {
        r->stat.setups--;
        r->stat.bridges++;
        r->stat.stream_ok++;
    }
    deadline_set(b, open_limit_ms(b));
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

static void response_accepted(struct bridge *b)
{
    if (b->setup->walking)
        mesh_found(b->relay, &b->setup->dst);
    b->relay->stat.forwarded += b->setup->walking && !b->dst.session->trunk ? 1 : 0;
    b->state = BRIDGE_RETURN;
    if (b->dst.session->trunk) /* so much was not for this */
        deadline_set(b, b->relay->cfg.response_ms);
    return_response(b);
}

static void response_verified(struct pk_wait *w)
{
    struct bridge *b = container_of(w, struct setup, wait)->bridge;
    if (w->res.err != 0)
        dst_failed(b, ERR_DMSG_RSP_SIG);
    else
        response_accepted(b);
}

static void read_response(struct bridge *b)
{
    struct setup *s = b->setup;
    struct object_response rsp;
    enum session_read what;
    if (s->walking && s->kept == NULL) {
        s->kept = s->obj;
        s->kept_n = s->obj_n;
        s->obj = NULL;
    }
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
        dst_failed(b, rc);
        return;
    }
    s->verdict = object_response_verdict(&rsp);
    b->state = BRIDGE_VERIFY_RESPONSE;
    if (b->dst.session->trunk) /* it was verified there */
        response_accepted(b);
    else
        verify(b, &s->dst, response_verified);
}

/* ---- the request's way to the destination ---- */

static int write_hop(struct bridge *b)
{
    struct setup *s = b->setup;
    struct rsession *to = b->dst.session;
    uint8_t *hop = malloc(HOP_BYTES + s->obj_n);
    if (hop == NULL)
        return ERR_NOMEM;
    hop[0] = 0;
    hop[1] = (uint8_t)((s->marked ? HOP_MARKED : 0u) | (s->foreign ? HOP_FOREIGN : 0u) |
                       (s->walking ? HOP_LINKS : 0u) | (s->walk.doubtful ? HOP_DOUBTFUL : 0u));
    memcpy(hop + 2, s->from.b, PUBKEY_BYTES);
    memcpy(hop + HOP_BYTES, s->obj, s->obj_n);
    int rc = session_write_object(link_session(to->link), b->dst.st, hop, HOP_BYTES + s->obj_n);
    free(hop);
    link_kick(to->link);
    return rc;
}

static void write_request(struct bridge *b)
{
    int rc = b->dst.session->trunk ? write_hop(b) : write_object(b, &b->dst);
    if (rc == 0)
        b->state = BRIDGE_RESPONSE;
    else if (rc != ERR_AGAIN)
        dst_failed(b, rc);
}

/* How long the answer may take. Another worker bounds it itself, and says why there is none. */
static uint64_t patience_ms(const struct bridge *b, const struct rsession *to)
{
    uint64_t ms = b->relay->cfg.response_ms;
    if (to->trunk)
        return 2 * WALK_FACTOR * ms;
    return b->setup->walking && SILENT_MS < ms ? SILENT_MS : ms;
}

static void forward_to(struct bridge *b, struct rsession *to)
{
    struct yamux_stream *st = NULL;
    int rc = yamux_open(link_mux(to->link), NULL, now_of(b), &st);
    if (rc < 0) {
        dst_failed(b, rc);
        return;
    }
    leg_attach(&b->dst, to, st, b);
    b->setup->asked_ns = now_of(b);
    deadline_set(b, patience_ms(b, to));
    b->state = BRIDGE_FORWARD;
    write_request(b);
}

/* The next of the other relays, one after the other: asked at the same time, two of them might open
 * the stream (docs/protocol/dmsg.md §5.3-3). */
static void forward_next(struct bridge *b)
{
    struct relay *r = b->relay;
    struct setup *s = b->setup;
    struct rsession *to =
        now_of(b) >= s->give_up_ns ? NULL : mesh_next(r, &s->walk, &s->dst, &s->from);
    if (to == NULL) {
        bool denied = s->walk.gone == s->walk.asked;
        if (!s->walk.own_links)
            mesh_missed(r, &s->walk, &s->dst);
        refuse(b, denied || !for_member(b) ? ERR_DMSG_NO_NEXT_SESSION : ERR_TIMEOUT);
        return;
    }
    if (s->kept != NULL) {
        keep_object(s, s->kept, s->kept_n);
        s->kept = NULL;
    }
    forward_to(b, to);
}

static void forward_mesh(struct bridge *b)
{
    struct relay *r = b->relay;
    struct setup *s = b->setup;
    s->walking = true;
    s->give_up_ns = now_of(b) + WALK_FACTOR * r->cfg.response_ms * NS_PER_MS;
    forward_next(b);
}

/* The destination is ours, or we lead the search for it. */
static void forward_here(struct bridge *b)
{
    struct relay *r = b->relay;
    struct setup *s = b->setup;
    struct rsession *to = relay_find(r, &s->dst);
    bool nowhere = pubkey_equal(&s->dst, &r->cfg.self) || s->marked || mesh_is_missed(r, &s->dst) ||
                   !mesh_has_links(r);
    if (to == NULL && nowhere) {
        refuse(b, ERR_DMSG_NO_NEXT_SESSION);
        return;
    }
    if ((to == NULL || s->marked || to->marked || s->foreign) &&
        (b->share = mesh_slot_take(r, &s->from)) == NULL) {
        refuse(b, ERR_DMSG_PEER_CAPACITY);
        return;
    }
    if (to != NULL)
        forward_to(b, to);
    else
        forward_mesh(b);
}

static void forward(struct bridge *b)
{
    struct relay *r = b->relay;
    unsigned home = crew_home(r->crew, &b->setup->dst);
    if (home == r->cfg.index)
        forward_here(b);
    else if (r->trunks[home] != NULL)
        forward_to(b, r->trunks[home]);
    else
        refuse(b, ERR_DMSG_NO_NEXT_SESSION);
}

/* ---- answers of our own: ping marker (docs/protocol/dmsg.md §3.5), announcement (§5.2), IP
 * look-up (§6.1) ---- */

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
    struct relay *r = b->relay;
    enum answer answer = b->setup->answer;
    int rc = answer == ANSWER_PING ? write_marker(b) : write_object(b, &b->src);
    if (rc == ERR_AGAIN)
        return;
    if (rc < 0) {
        refuse(b, rc);
        return;
    }
    r->stat.pings += answer == ANSWER_PING ? 1 : 0;
    r->stat.ip_lookups += answer == ANSWER_IP ? 1 : 0;
    bridge_end(b, true);
}

static void answer_signed(struct pk_wait *w)
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

/* Sign it with the relay's key and send it. */
static void answer_with(struct bridge *b, enum answer answer, const struct object_response *rsp)
{
    struct relay *r = b->relay;
    struct setup *s = b->setup;
    struct pk_req req = {.op = PK_SIGN, .cls = PK_CLASS_STREAM, .sk = r->cfg.sk};
    enum object_shape shape = answer == ANSWER_IP ? OBJECT_2026 : OBJECT_2023;
    uint8_t *obj = malloc(OBJECT_ENCODED_MAX);
    size_t n = 0;
    int rc = ERR_NOMEM;

    if (obj == NULL || (rc = object_encode_response(obj, OBJECT_ENCODED_MAX, &n, rsp, shape)) < 0) {
        free(obj);
        goto out;
    }
    keep_object(s, obj, n);
    object_digest(&req.digest, obj, n);
    b->state = BRIDGE_SIGN;
    s->answer = answer;
    s->wait.done = answer_signed;
    rc = env_pk(r->cfg.env, &s->wait, &req);
    if (rc == 0)
        answer_signed(&s->wait);
out:
    sodium_memzero(&req, sizeof(req));
    if (rc < 0 && rc != ERR_PENDING)
        refuse(b, rc);
}

static void answer_ip(struct bridge *b)
{
    const struct conn *conn = link_conn(b->src.session->link);
    struct object_response rsp = {
        .req_hash = b->setup->req_hash, .accepted = true, .ip = {conn->peer_ip, conn->peer_ip_len}};
    if (conn->peer_ip_len > 0)
        answer_with(b, ANSWER_IP, &rsp);
    else
        refuse(b, ERR_UNSUPPORTED);
}

/* ---- the first object of a stream ---- */

static void request_verified(struct pk_wait *w)
{
    struct setup *s = container_of(w, struct setup, wait);
    struct bridge *b = s->bridge;
    struct rsession *from = b->src.session;
    struct relay *r = b->relay;
    struct object_request req = {.src.pk = s->src, .ip_info = s->ip_info};

    int rc = w->res.err != 0 ? ERR_DMSG_REQ_SIG : 0;
    if (rc == 0)
        rc = object_check_source(&req, &from->pk, from->marked || r->cfg.accept_relayed);
    if (rc < 0) {
        refuse(b, rc);
        return;
    }
    s->from = from->pk;
    s->foreign = !pubkey_equal(&s->src, &from->pk);
    if (s->foreign && !guard_allows(r->guard, &s->src, GUARD_CONFIGURED)) {
        r->stat.refused_key++;
        refuse(b, ERR_DMSG_REQ_SRC_PK);
        return;
    }
    object_hash(&s->req_hash, s->obj, s->obj_n);
    mesh_requested(from, !s->foreign);
    s->marked = from->marked;
    mesh_found(r, &s->src);
    if (s->ip_info && pubkey_equal(&s->dst, &r->cfg.self))
        answer_ip(b);
    else
        forward(b);
}

static void judge_request(struct bridge *b)
{
    struct setup *s = b->setup;
    struct object_request req;
    int rc = object_decode_request(&req, s->obj, s->obj_n);
    if (rc == 0)
        rc = object_check_request(&req);
    if (rc < 0) {
        refuse(b, rc);
        return;
    }
    s->src = req.src.pk;
    s->dst = req.dst.pk;
    s->ip_info = req.ip_info;
    b->state = BRIDGE_VERIFY_REQUEST;
    verify(b, &s->src, request_verified);
}

static void announcement_verified(struct pk_wait *w)
{
    struct setup *s = container_of(w, struct setup, wait);
    struct bridge *b = s->bridge;
    struct object_response rsp = {0};
    if (w->res.err != 0) { /* then it is no announcement */
        judge_request(b);
        return;
    }
    rsp.accepted = mesh_announced(b->src.session);
    object_hash(&rsp.req_hash, s->obj, s->obj_n);
    answer_with(b, ANSWER_ANNOUNCE, &rsp);
}

/* What an object is depends on the object alone, on every session (incident 26). */
static bool is_announcement(const struct bridge *b)
{
    struct object_announce ann;
    return object_decode_announce(&ann, b->setup->obj, b->setup->obj_n) == 0 &&
           object_check_announce(&ann, &b->src.session->pk) == 0;
}

/* A request that another worker has judged. */
static void take_hop(struct bridge *b)
{
    struct setup *s = b->setup;
    struct object_request req;
    if (s->obj_n <= HOP_BYTES ||
        object_decode_request(&req, s->obj + HOP_BYTES, s->obj_n - HOP_BYTES) < 0) {
        refuse(b, ERR_DMSG_OBJECT);
        return;
    }
    s->src = req.src.pk;
    s->dst = req.dst.pk;
    s->marked = (s->obj[1] & HOP_MARKED) != 0;
    s->foreign = (s->obj[1] & HOP_FOREIGN) != 0;
    s->walk.own_links = (s->obj[1] & HOP_LINKS) != 0;
    s->walk.doubtful = (s->obj[1] & HOP_DOUBTFUL) != 0;
    memcpy(s->from.b, s->obj + 2, PUBKEY_BYTES);
    s->obj_n -= HOP_BYTES;
    memmove(s->obj, s->obj + HOP_BYTES, s->obj_n);
    object_hash(&s->req_hash, s->obj, s->obj_n);
    if (s->walk.own_links)
        forward_mesh(b);
    else
        forward_here(b);
}

static void read_request(struct bridge *b)
{
    enum session_read what;
    int rc = read_object(b, &b->src, &what);
    if (rc == ERR_AGAIN)
        return;
    if (rc < 0) {
        refuse(b, rc);
    } else if (what == SESSION_READ_MARKER) {
        b->state = BRIDGE_ANSWER;
        b->setup->answer = ANSWER_PING;
        write_answer(b);
    } else if (for_member(b)) {
        take_hop(b);
    } else if (is_announcement(b)) {
        b->state = BRIDGE_VERIFY_REQUEST;
        verify(b, &b->src.session->pk, announcement_verified);
    } else {
        judge_request(b);
    }
}

/* ---- events ---- */

void bridge_event(struct bridge *b, struct yamux_stream *st, unsigned what)
{
    bool readable = (what & (YAMUX_READABLE | YAMUX_EOF)) != 0;
    if (b->state != BRIDGE_OPEN && (what & YAMUX_RESET)) {
        int err = st->reset_err != 0 ? st->reset_err : ERR_RESET;
        if (st == b->dst.st && b->state != BRIDGE_RETURN)
            dst_failed(b, err);
        else
            refuse(b, err);
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
    case BRIDGE_SIGN:
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
    uint64_t limit = open_limit_ms(b) * NS_PER_MS;
    if (flow_waits(&b->src) || flow_waits(&b->dst))
        b->moved_ns = now_of(b);
    if (now_of(b) - b->moved_ns < limit) {
        loop_timer_set(r->cfg.loop, &b->timer, b->moved_ns + limit);
        return;
    }
    if (!for_member(b))
        *(b->half ? &r->stat.resets_drain : &r->stat.resets_idle) += 1;
    bridge_kill(b, ERR_TIMEOUT);
}

static void dst_timer(struct bridge *b)
{
    struct setup *s = b->setup;
    struct rsession *to = b->dst.session;
    uint64_t limit = s->asked_ns + b->relay->cfg.response_ms * NS_PER_MS;
    if (to->trunk || now_of(b) >= limit) {
        dst_failed(b, ERR_TIMEOUT);
    } else if (to->stopped || session_heard_ns(link_session(to->link)) >= s->asked_ns) {
        loop_timer_set(b->relay->cfg.loop, &b->timer, limit);
    } else {
        mesh_silent(to, s->asked_ns);
        dst_failed(b, ERR_DMSG_SESSION_CLOSED);
    }
}

static void on_timer(struct loop_timer *t)
{
    struct bridge *b = container_of(t, struct bridge, timer);
    if (b->state == BRIDGE_OPEN)
        open_timer(b);
    else if (b->dst.st != NULL && b->state != BRIDGE_RETURN)
        dst_timer(b);
    else
        refuse(b, ERR_TIMEOUT);
}

bool bridge_start(struct rsession *s, struct yamux_stream *st)
{
    struct relay *r = s->relay;
    struct bridge *b = NULL;
    bool counted = false;
    if (!s->trunk && !relay_syn_allowed(s)) {
        r->stat.syn_limited++;
        goto refused;
    }
    if (!s->trunk && !(counted = guard_stream_enter(r->guard)))
        goto refused;
    if ((b = calloc(1, sizeof(*b))) == NULL || (b->setup = calloc(1, sizeof(*b->setup))) == NULL ||
        yamux_accept(st) < 0)
        goto refused;
    b->relay = r;
    b->setup->bridge = b;
    b->state = BRIDGE_OBJECT;
    b->timer.fn = on_timer;
    leg_attach(&b->src, s, st, b);
    list_push_back(&r->bridges, &b->node);
    deadline_set(b, r->cfg.object_ms);
    if (!for_member(b)) {
        r->stat.streams++;
        r->stat.setups++;
    }
    return true;
refused:
    if (counted)
        guard_stream_leave(r->guard);
    if (b != NULL)
        free(b->setup);
    free(b);
    yamux_release(st, false);
    return false;
}
