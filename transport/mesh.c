#include "transport/mesh.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "transport/relay_int.h"

#define DIAL_MS       10000u
#define PAUSE_MIN_MS  1000u
#define PAUSE_MAX_MS  60000u
#define GOOD_LIFE_NS  (30 * NS_PER_S) /* a link that lived so long clears the pause */
#define DECIDE_NS     (5 * NS_PER_S)
#define ANNOUNCE_NS   (5 * NS_PER_S)
#define FOUND_MAX     1024u
#define LINKS_PER_KEY 4u
#define MISSES_MAX    8192u
#define MISS_MIN_NS   (2 * NS_PER_S)
#define MISS_MAX_NS   (30 * NS_PER_S)
#define MISS_KEEP_NS  (60 * NS_PER_S) /* after its end: a miss in a row lasts longer */
#define MUTE_NS       (60 * NS_PER_S) /* a peer that did not answer for a destination */
#define PURGE_NS      NS_PER_S

struct target {
    struct relay *relay;
    struct pubkey pk;
    struct list_node node;        /* in mesh.order */
    struct list_node forget_node; /* in mesh.forgetting: nothing but announced */
    char *found_addr, *own_addr;  /* NULL: not found, not configured */
    bool announced;
    uint64_t round; /* of relay_mesh_found() that it was in last */
    struct conn *conn;
    struct rsession *link;
    struct loop_timer timer; /* armed: WAIT */
    uint32_t pause_ms, failures;
    int last_err;
};

struct announce {
    struct rsession *session;
    struct yamux_stream *st;
    struct pk_wait wait;
    struct loop_timer timer;
    uint8_t *obj;
    size_t obj_n;
    struct hash hash;
    bool written, checking, accepted;
};

struct miss {
    uint8_t key[PUBKEY_BYTES]; /* destination; or 0 and the hash of peer and destination */
    uint64_t until_ns, pause_ns;
};

static uint64_t now_of(const struct relay *r)
{
    return r->cfg.loop->now_ns;
}

/* ---- targets ---- */

static struct target *target_get(const struct relay *r, const struct pubkey *pk)
{
    return map_get(&r->mesh.targets, pk);
}

static bool allowed(const struct relay *r, const struct pubkey *pk)
{
    for (size_t i = 0; i < r->cfg.n_accepted; i++)
        if (pubkey_equal(pk, &r->cfg.accepted[i]))
            return true;
    return r->cfg.n_accepted == 0;
}

bool mesh_is_configured(const struct relay *r, const struct pubkey *pk)
{
    const struct target *t = target_get(r, pk);
    return (t != NULL && t->own_addr != NULL) || (r->cfg.n_accepted > 0 && allowed(r, pk));
}

static void on_target_timer(struct loop_timer *t);

static struct target *target_make(struct relay *r, const struct pubkey *pk)
{
    struct target *t = target_get(r, pk);
    if (t != NULL || (t = calloc(1, sizeof(*t))) == NULL)
        return t;
    t->relay = r;
    t->pk = *pk;
    t->timer.fn = on_target_timer;
    t->pause_ms = PAUSE_MIN_MS;
    if (map_put(&r->mesh.targets, t) < 0) {
        free(t);
        return NULL;
    }
    list_push_back(&r->mesh.order, &t->node);
    return t;
}

static bool wanted(const struct target *t)
{
    return t->found_addr != NULL || t->own_addr != NULL;
}

static void target_free(struct target *t)
{
    struct relay *r = t->relay;
    loop_timer_cancel(r->cfg.loop, &t->timer);
    if (t->conn != NULL)
        conn_close(t->conn);
    map_del(&r->mesh.targets, &t->pk);
    list_remove(&t->node);
    list_remove(&t->forget_node);
    free(t->found_addr);
    free(t->own_addr);
    free(t);
}

/* Keys that only announced themselves are remembered, the latest of them: they are relays. */
static void target_settle(struct target *t)
{
    struct mesh *m = &t->relay->mesh;
    if (wanted(t) || t->link != NULL || t->conn != NULL) {
        list_remove(&t->forget_node);
        return;
    }
    loop_timer_cancel(t->relay->cfg.loop, &t->timer);
    if (!t->announced) {
        target_free(t);
        return;
    }
    if (list_node_is_linked(&t->forget_node))
        return;
    list_push_back(&m->forgetting, &t->forget_node);
    size_t n = 0;
    struct list_node *pos, *tmp;
    list_for_each(pos, tmp, &m->forgetting) n++;
    if (n > t->relay->cfg.max_peers)
        target_free(list_first_as(&m->forgetting, struct target, forget_node));
}

static void target_wait(struct target *t, uint64_t ns)
{
    struct relay *r = t->relay;
    if (r->draining || r->freeing || r->cfg.carrier == NULL || !wanted(t) || t->conn != NULL ||
        t->link != NULL)
        return;
    loop_timer_set(r->cfg.loop, &t->timer, now_of(r) + ns);
}

/* A dial failed, or a link ended. */
static void target_back_off(struct target *t)
{
    target_wait(t, env_jitter_ns(t->relay->cfg.env, t->pause_ms * NS_PER_MS, 20));
    t->pause_ms = t->pause_ms * 3 / 2;
    if (t->pause_ms > PAUSE_MAX_MS)
        t->pause_ms = PAUSE_MAX_MS;
}

static void target_soon(struct target *t)
{
    t->pause_ms = PAUSE_MIN_MS;
    target_wait(t, env_random_below(t->relay->cfg.env, NS_PER_S / 4));
}

/* ---- dialling ---- */

static void dial_failed(struct target *t, int err)
{
    t->relay->stat.dial_failed++;
    t->failures++;
    t->last_err = err;
    log_debug(LOG_RELAY, "other relay not reached pk=%s reason=\"%s\"", LOG_PK(&t->pk),
              err_str(err));
    target_back_off(t);
    target_settle(t);
}

static void dial_up(void *arg)
{
    struct target *t = arg;
    struct conn *conn = t->conn;
    t->conn = NULL;
    t->link = relay_dialled(t->relay, conn, t, &t->pk);
    if (t->link == NULL)
        dial_failed(t, ERR_NOMEM);
}

static void dial_down(void *arg, int err)
{
    struct target *t = arg;
    conn_close(t->conn);
    t->conn = NULL;
    dial_failed(t, err);
}

static void dial_input(void *arg, struct slice in, uint64_t now_ns)
{
    (void)arg;
    (void)in;
    (void)now_ns;
}

static int dial_output(void *arg, struct iovec *iov, int max, uint64_t now_ns)
{
    (void)arg;
    (void)iov;
    (void)max;
    (void)now_ns;
    return 0;
}

static void dial_sent(void *arg, size_t n, uint64_t now_ns)
{
    (void)arg;
    (void)n;
    (void)now_ns;
}

static const struct conn_user dial_user = {dial_up, dial_input, dial_output, dial_sent, dial_down};

static void on_target_timer(struct loop_timer *timer)
{
    struct target *t = container_of(timer, struct target, timer);
    struct relay *r = t->relay;
    /* What was found is newer than what was written down; every second try is for the latter. */
    bool own = t->found_addr == NULL || (t->own_addr != NULL && t->failures % 2 == 1);
    int rc = ERR_REFUSED;
    if (guard_allows(r->guard, &t->pk, GUARD_CONFIGURED)) {
        r->stat.dials++;
        rc = r->cfg.carrier->dial(r->cfg.carrier, own ? t->own_addr : t->found_addr, DIAL_MS,
                                  &dial_user, t, &t->conn);
    }
    if (rc < 0)
        dial_failed(t, rc);
}

/* ---- links ---- */

static size_t links_of(const struct mesh *m, const struct pubkey *pk, struct rsession **oldest_in,
                       struct rsession **newest)
{
    size_t n = 0;
    *oldest_in = *newest = NULL;
    for (struct list_node *pos = list_first(&m->links); pos != NULL;
         pos = list_next(&m->links, pos)) {
        struct rsession *s = container_of(pos, struct rsession, link_node);
        if (!pubkey_equal(&s->pk, pk))
            continue;
        n++;
        *newest = s;
        if (*oldest_in == NULL && !s->dialled)
            *oldest_in = s;
    }
    return n;
}

static void misses_clear(struct mesh *m)
{
    struct miss *x;
    for (struct map_iter it = map_iter(&m->misses); (x = map_next(&it)) != NULL;) {
        map_iter_del(&it);
        free(x);
    }
}

static void count_links(struct relay *r)
{
    crew_links_set(r->crew, r->cfg.index, map_len(&r->mesh.peers));
}

/* Streams may be opened on s. */
static void link_enter(struct rsession *s)
{
    struct relay *r = s->relay;
    struct mesh *m = &r->mesh;
    struct rsession *oldest_in, *newest;
    void *old;
    s->marked = true;
    s->link_no = ++m->next_link;
    list_push_back(&m->links, &s->link_node);
    r->stat.peer_links++;
    bool is_new = map_get(&m->peers, &s->pk) == NULL;
    if (map_replace(&m->peers, s, &old) < 0)
        return; /* out of memory: it serves, and is not asked */
    count_links(r);
    if (is_new) {
        misses_clear(m);
        crew_ways_changed(r->crew); /* for the other members */
    }
    if (links_of(m, &s->pk, &oldest_in, &newest) > LINKS_PER_KEY && oldest_in != s &&
        oldest_in != NULL)
        relay_session_drop(oldest_in);
}

static void link_leave(struct rsession *s)
{
    struct relay *r = s->relay;
    struct mesh *m = &r->mesh;
    struct rsession *oldest_in, *newest;
    void *old;
    if (!list_node_is_linked(&s->link_node))
        return;
    list_remove(&s->link_node);
    r->stat.peer_links--;
    if (map_get(&m->peers, &s->pk) != s)
        return;
    map_del(&m->peers, &s->pk);
    if (links_of(m, &s->pk, &oldest_in, &newest) > 0)
        (void)!map_replace(&m->peers, newest, &old);
    count_links(r);
}

static void announce_start(struct rsession *s);

void mesh_link_up(struct rsession *s)
{
    log_limited_here(LOG_RELAY, LOG_LEVEL_INFO, "linked to another relay pk=%s addr=%s",
                     LOG_PK(&s->pk), link_conn(s->link)->peer);
    s->target->last_err = 0;
    link_enter(s);
    announce_start(s);
}

void mesh_link_down(struct rsession *s, int err)
{
    s->target->last_err = err;
    if (!s->up)
        s->relay->stat.dial_failed++;
}

void mesh_gone(struct rsession *s)
{
    struct relay *r = s->relay;
    struct target *t = s->target;
    loop_timer_cancel(r->cfg.loop, &s->decide);
    mesh_announce_end(s);
    link_leave(s);
    if (t == NULL)
        return;
    s->target = NULL;
    t->link = NULL;
    if (s->up && now_of(r) - session_up_ns(link_session(s->link)) >= GOOD_LIFE_NS) {
        t->failures = 0;
        t->pause_ms = PAUSE_MIN_MS;
    } else {
        t->failures++;
    }
    target_back_off(t);
    target_settle(t);
}

/* ---- what an inbound session is ---- */

static void become_client(struct rsession *s, bool marked)
{
    loop_timer_cancel(s->relay->cfg.loop, &s->decide);
    s->marked = marked;
    if (relay_client(s) < 0)
        s->relay->stat.refused_limit++;
}

static void on_decide(struct loop_timer *t)
{
    struct rsession *s = container_of(t, struct rsession, decide);
    become_client(s, map_get(&s->relay->mesh.peers, &s->pk) == NULL);
}

bool mesh_hold_back(struct rsession *s)
{
    struct relay *r = s->relay;
    if (s->local || target_get(r, &s->pk) == NULL)
        return false;
    s->marked = true;
    s->decide.fn = on_decide;
    loop_timer_set(r->cfg.loop, &s->decide, now_of(r) + DECIDE_NS);
    return true;
}

void mesh_requested(struct rsession *s, bool own)
{
    if (loop_timer_armed(&s->decide))
        become_client(s, !own);
}

bool mesh_announced(struct rsession *s)
{
    struct relay *r = s->relay;
    bool ok = s->marked || (crew_links_all(r->crew) < r->cfg.max_peers && allowed(r, &s->pk));
    struct target *t = NULL;
    loop_timer_cancel(r->cfg.loop, &s->decide);
    if (s->local || pubkey_equal(&s->pk, &r->cfg.self) ||
        (ok && !s->announced && !s->dialled && (t = target_make(r, &s->pk)) == NULL))
        ok = false;
    r->stat.announce_accepted += ok ? 1 : 0;
    r->stat.announce_refused += ok ? 0 : 1;
    if (t == NULL)
        return ok; /* refused, or nothing new */
    s->announced = t->announced = true;
    target_settle(t);
    link_enter(s);
    log_limited_here(LOG_RELAY, LOG_LEVEL_INFO, "another relay linked to this one pk=%s from=%s",
                     LOG_PK(&s->pk), link_conn(s->link)->peer);
    return true;
}

/* ---- our own announcement ---- */

void mesh_announce_end(struct rsession *s)
{
    struct announce *a = s->announce;
    struct relay *r = s->relay;
    if (a == NULL)
        return;
    s->announce = NULL;
    loop_timer_cancel(r->cfg.loop, &a->timer);
    env_pk_cancel(r->cfg.env, &a->wait);
    pk_wait_wipe(&a->wait);
    if (a->st != NULL) {
        yamux_release(a->st, true);
        link_kick(s->link);
    }
    free(a->obj);
    free(a);
}

/* Whatever came of it, the link is used (docs/protocol/dmsg.md §5.2). */
static void announce_failed(struct rsession *s, int err)
{
    log_limited_here(LOG_RELAY, LOG_LEVEL_DEBUG, "announcement not accepted pk=%s reason=\"%s\"",
                     LOG_PK(&s->pk), err_str(err));
    s->lame = err == ERR_TIMEOUT; /* servers without a mesh let everything run into time-outs */
    mesh_announce_end(s);
}

static void on_announce_timer(struct loop_timer *t)
{
    announce_failed(container_of(t, struct announce, timer)->session, ERR_TIMEOUT);
}

static void response_verified(struct pk_wait *w)
{
    struct announce *a = container_of(w, struct announce, wait);
    struct rsession *s = a->session;
    if (w->res.err != 0 || !a->accepted) {
        announce_failed(s, w->res.err != 0 ? ERR_DMSG_RSP_SIG : ERR_DMSG_RSP_REJECTED);
        return;
    }
    s->relay->stat.announce_ok++;
    mesh_announce_end(s);
}

static int pk_work_start(struct announce *a, const struct pk_req *req, pk_done_fn *done)
{
    a->wait.done = done;
    int rc = env_pk(a->session->relay->cfg.env, &a->wait, req);
    if (rc == 0)
        done(&a->wait);
    return rc == ERR_PENDING ? 0 : rc;
}

static int read_response(struct announce *a)
{
    struct rsession *s = a->session;
    uint8_t *obj = s->relay->object;
    struct pk_req req = {.op = PK_VERIFY, .cls = PK_CLASS_STREAM, .pk = s->pk};
    struct object_response rsp;
    enum session_read what;
    size_t n = 0;
    int rc = session_read_object(link_session(s->link), a->st, &what, obj, SESSION_OBJECT_MAX, &n);
    if (rc == 0 && what != SESSION_READ_OBJECT)
        rc = ERR_DMSG_OBJECT;
    if (rc == 0)
        rc = object_decode_response(&rsp, obj, n);
    if (rc == 0)
        rc = object_check_response(&rsp, &a->hash);
    if (rc != 0)
        return rc;
    a->checking = true;
    a->accepted = rsp.accepted;
    object_digest(&req.digest, obj, n);
    object_get_sig(&req.sig, obj);
    return pk_work_start(a, &req, response_verified);
}

static int write_announcement(struct announce *a)
{
    struct rsession *s = a->session;
    int rc = session_write_object(link_session(s->link), a->st, a->obj, a->obj_n);
    link_kick(s->link);
    if (rc == 0) {
        a->written = true;
        s->relay->stat.announced++;
    }
    return rc;
}

void mesh_announce_event(struct rsession *s, struct yamux_stream *st, unsigned what)
{
    struct announce *a = s->announce;
    int rc = 0;
    if (a->st != st)
        return;
    if (what & YAMUX_RESET)
        rc = st->reset_err != 0 ? st->reset_err : ERR_RESET;
    else if (!a->written && (what & YAMUX_WRITABLE))
        rc = write_announcement(a);
    else if (a->written && !a->checking && (what & (YAMUX_READABLE | YAMUX_EOF)))
        rc = read_response(a);
    if (rc < 0 && rc != ERR_AGAIN)
        announce_failed(s, rc);
}

static void announcement_signed(struct pk_wait *w)
{
    struct announce *a = container_of(w, struct announce, wait);
    struct rsession *s = a->session;
    int rc = w->res.err;
    if (rc == 0) {
        object_set_sig(a->obj, &w->res.sig);
        object_hash(&a->hash, a->obj, a->obj_n);
        rc = yamux_open(link_mux(s->link), NULL, now_of(s->relay), &a->st);
    }
    if (rc == 0)
        rc = write_announcement(a);
    if (rc < 0 && rc != ERR_AGAIN)
        announce_failed(s, rc);
}

static void announce_start(struct rsession *s)
{
    struct relay *r = s->relay;
    struct object_announce ann = {env_wall_ns(r->cfg.env), r->cfg.self};
    struct pk_req req = {.op = PK_SIGN, .cls = PK_CLASS_OWN, .sk = r->cfg.sk};
    struct announce *a = calloc(1, sizeof(*a));
    if (a == NULL || (a->obj = malloc(OBJECT_ENCODED_MAX)) == NULL ||
        object_encode_announce(a->obj, OBJECT_ENCODED_MAX, &a->obj_n, &ann) < 0)
        goto fail;
    a->session = s;
    a->timer.fn = on_announce_timer;
    s->announce = a;
    loop_timer_set(r->cfg.loop, &a->timer, now_of(r) + ANNOUNCE_NS);
    object_digest(&req.digest, a->obj, a->obj_n);
    int rc = pk_work_start(a, &req, announcement_signed);
    seckey_wipe(&req.sk);
    if (rc < 0)
        announce_failed(s, rc);
    return;
fail:
    seckey_wipe(&req.sk);
    if (a != NULL)
        free(a->obj);
    free(a);
}

/* ---- misses ---- */

static void misses_purge(struct relay *r)
{
    struct miss *x;
    if (now_of(r) - r->mesh.purged_ns < PURGE_NS)
        return;
    r->mesh.purged_ns = now_of(r);
    for (struct map_iter it = map_iter(&r->mesh.misses); (x = map_next(&it)) != NULL;) {
        if (x->until_ns > now_of(r))
            continue;
        map_iter_del(&it);
        free(x);
    }
}

static struct miss *miss_make(struct relay *r, const uint8_t key[PUBKEY_BYTES])
{
    struct mesh *m = &r->mesh;
    struct miss *x = map_get(&m->misses, key);
    if (x != NULL)
        return x;
    if (map_len(&m->misses) >= MISSES_MAX)
        misses_purge(r);
    if (map_len(&m->misses) >= MISSES_MAX || (x = calloc(1, sizeof(*x))) == NULL) {
        r->stat.misses_full++;
        return NULL;
    }
    memcpy(x->key, key, PUBKEY_BYTES);
    if (map_put(&m->misses, x) == 0)
        return x;
    free(x);
    return NULL;
}

static void miss_drop(struct mesh *m, struct miss *x)
{
    map_del(&m->misses, x->key);
    free(x);
}

/* Still in force; what is long over goes. */
static bool miss_holds(struct relay *r, const uint8_t key[PUBKEY_BYTES])
{
    struct miss *x = map_get(&r->mesh.misses, key);
    if (x == NULL)
        return false;
    if (x->until_ns > now_of(r))
        return true;
    if (now_of(r) - x->until_ns > MISS_KEEP_NS)
        miss_drop(&r->mesh, x);
    return false;
}

static void mute_key(uint8_t key[PUBKEY_BYTES], const struct pubkey *peer, const struct pubkey *dst)
{
    uint8_t both[2 * PUBKEY_BYTES];
    struct hash h;
    memcpy(both, peer->b, PUBKEY_BYTES);
    memcpy(both + PUBKEY_BYTES, dst->b, PUBKEY_BYTES);
    crypto_sha256(&h, both, sizeof(both));
    key[0] = 0; /* no key begins so */
    memcpy(key + 1, h.b, PUBKEY_BYTES - 1);
}

bool mesh_is_missed(struct relay *r, const struct pubkey *dst)
{
    struct mesh *m = &r->mesh;
    if (m->ways != crew_ways(r->crew)) {
        m->ways = crew_ways(r->crew);
        misses_clear(m);
    }
    struct miss *x = map_get(&m->misses, dst->b);
    if (x != NULL && crew_heard_ns(r->crew, dst) >= x->until_ns - x->pause_ns)
        miss_drop(m, x); /* another member has found it */
    if (!miss_holds(r, dst->b))
        return false;
    r->stat.miss_hits++;
    return true;
}

void mesh_found(struct relay *r, const struct pubkey *dst)
{
    struct miss *x = map_get(&r->mesh.misses, dst->b);
    if (x != NULL)
        miss_drop(&r->mesh, x);
    if (crew_home(r->crew, dst) != r->cfg.index)
        crew_heard(r->crew, dst, now_of(r));
}

void mesh_missed(struct relay *r, const struct mesh_walk *w, const struct pubkey *dst)
{
    struct miss *x;
    if (w->asked == 0 || w->gone < w->asked || (x = miss_make(r, dst->b)) == NULL)
        return;
    x->pause_ns = x->pause_ns == 0 ? MISS_MIN_NS : x->pause_ns * 2;
    if (x->pause_ns > MISS_MAX_NS)
        x->pause_ns = MISS_MAX_NS;
    x->until_ns = now_of(r) + x->pause_ns;
}

/* ---- the search ---- */

void mesh_silent(struct rsession *s, uint64_t asked_ns)
{
    s->silent_ns = asked_ns;
}

/* What may lead nowhere: it does not answer announcements, or has not yet, or it is dead. */
static bool doubtful(const struct rsession *s)
{
    return s->lame || s->announce != NULL || session_heard_ns(link_session(s->link)) < s->silent_ns;
}

/* In this order: the destination itself, links, what other members have, doubtful links, theirs; the
 * oldest first. */
enum rank_class { RANK_DST, RANK_LINK, RANK_MEMBER, RANK_DOUBTFUL, RANK_MEMBER_DOUBTFUL };

static uint64_t rank_of(enum rank_class cls, uint64_t no)
{
    return (uint64_t)cls << 60 | no;
}

static uint64_t rank(const struct rsession *s, const struct pubkey *dst)
{
    enum rank_class cls = pubkey_equal(&s->pk, dst) ? RANK_DST
                          : doubtful(s)             ? RANK_DOUBTFUL
                                                    : RANK_LINK;
    return rank_of(cls, s->link_no);
}

static bool muted(struct relay *r, const struct pubkey *peer, const struct pubkey *dst)
{
    uint8_t key[PUBKEY_BYTES];
    if (map_len(&r->mesh.misses) == 0)
        return false;
    mute_key(key, peer, dst);
    return miss_holds(r, key);
}

bool mesh_has_links(const struct relay *r)
{
    return crew_links_all(r->crew) > 0;
}

struct candidate {
    struct rsession *s; /* NULL: none yet */
    uint64_t rank;
};

static void offer(struct candidate *best, const struct mesh_walk *w, struct rsession *s,
                  uint64_t rank)
{
    if (rank > w->last && (best->s == NULL || rank < best->rank))
        *best = (struct candidate){s, rank};
}

static void offer_link(struct relay *r, struct candidate *best, const struct mesh_walk *w,
                       struct rsession *s, const struct pubkey *dst, const struct pubkey *src)
{
    if (map_get(&r->mesh.peers, &s->pk) != s || pubkey_equal(&s->pk, src) ||
        muted(r, &s->pk, dst) || (w->own_links && w->doubtful != doubtful(s)))
        return;
    if (w->asked == 0 || !pubkey_equal(&s->pk, &w->peer)) /* it may have become doubtful by that */
        offer(best, w, s, rank(s, dst));
}

struct rsession *mesh_next(struct relay *r, struct mesh_walk *w, const struct pubkey *dst,
                           const struct pubkey *src)
{
    struct mesh *m = &r->mesh;
    struct candidate best = {0};
    for (struct list_node *pos = list_first(&m->links); pos != NULL;
         pos = list_next(&m->links, pos))
        offer_link(r, &best, w, container_of(pos, struct rsession, link_node), dst, src);
    for (unsigned i = 0; i < crew_size(r->crew) && !w->own_links; i++) {
        if (r->trunks[i] == NULL || crew_links(r->crew, i) == 0)
            continue;
        offer(&best, w, r->trunks[i], rank_of(RANK_MEMBER, i + 1));
        offer(&best, w, r->trunks[i], rank_of(RANK_MEMBER_DOUBTFUL, i + 1));
    }
    if (best.s == NULL)
        return NULL;
    w->last = best.rank;
    w->peer = best.s->pk;
    if (best.s->trunk)
        w->doubtful = best.rank >= rank_of(RANK_MEMBER_DOUBTFUL, 0);
    w->asked++;
    return best.s;
}

void mesh_failed(struct relay *r, struct mesh_walk *w, const struct pubkey *dst, int err)
{
    uint8_t key[PUBKEY_BYTES];
    struct miss *x;
    bool member = pubkey_equal(&w->peer, &r->cfg.self); /* it counts and mutes its own peers */
    r->stat.forward_failed += member ? 0 : 1;
    w->gone += err == ERR_EOF || err == ERR_DMSG_NO_NEXT_SESSION ? 1 : 0;
    if (err != ERR_TIMEOUT || member)
        return;
    mute_key(key, &w->peer, dst);
    if ((x = miss_make(r, key)) != NULL)
        x->until_ns = now_of(r) + MUTE_NS;
}

/* ---- slots ---- */

struct share *mesh_slot_take(struct relay *r, const struct pubkey *src)
{
    struct share *s = crew_slot_take(r->crew, src, r->cfg.max_relayed);
    if (s != NULL)
        r->stat.relayed++;
    else
        r->stat.slot_refused++;
    return s;
}

void mesh_slot_give(struct relay *r, struct share *s)
{
    r->stat.relayed--;
    crew_slot_give(r->crew, s);
}

/* ---- what the owner says and sees ---- */

static bool usable(const struct relay *r, const struct relay_server *s)
{
    size_t n = strnlen(s->addr, sizeof(s->addr));
    return !pubkey_is_null(&s->pk) && !pubkey_equal(&s->pk, &r->cfg.self) && n > 0 &&
           n < sizeof(s->addr) && crew_home(r->crew, &s->pk) == r->cfg.index;
}

/* Where it is dialled; a new place is tried at once. */
static void set_addr(struct target *t, char **slot, const char *addr)
{
    if (*slot != NULL && strcmp(*slot, addr) == 0)
        return;
    char *copy = strdup(addr);
    if (copy == NULL)
        return;
    free(*slot);
    *slot = copy;
    t->failures = 0;
    target_settle(t);
    target_soon(t);
}

void relay_mesh_found(struct relay *r, const struct relay_server *list, size_t n)
{
    struct mesh *m = &r->mesh;
    struct list_node *pos, *tmp;
    m->round++;
    for (size_t i = 0; i < n && i < FOUND_MAX; i++) {
        struct target *t =
            usable(r, &list[i]) && allowed(r, &list[i].pk) ? target_make(r, &list[i].pk) : NULL;
        if (t == NULL || t->round == m->round)
            continue;
        t->round = m->round;
        set_addr(t, &t->found_addr, list[i].addr);
    }
    list_for_each(pos, tmp, &m->order)
    {
        struct target *t = container_of(pos, struct target, node);
        if (t->round == m->round || t->found_addr == NULL)
            continue;
        free(t->found_addr);
        t->found_addr = NULL;
        target_settle(t);
    }
}

static void tell(const struct relay *r, const struct target *t, struct relay_peer_info *out)
{
    const char *addr = t->found_addr != NULL ? t->found_addr : t->own_addr;
    struct rsession *oldest_in, *newest, *used = map_get(&r->mesh.peers, &t->pk);
    struct yamux_stat st;
    *out = (struct relay_peer_info){.pk = t->pk,
                                    .configured = t->own_addr != NULL,
                                    .found = t->found_addr != NULL,
                                    .announced = t->announced,
                                    .out = t->link != NULL && t->link->up,
                                    .failures = t->failures,
                                    .last_err = t->last_err};
    (void)links_of(&r->mesh, &t->pk, &oldest_in, &newest);
    out->in = oldest_in != NULL;
    if (used != NULL) {
        addr = link_conn(used->link)->peer;
        yamux_stat(link_mux(used->link), &st);
        out->streams = st.streams;
        out->up_ns = session_up_ns(link_session(used->link));
    }
    if (addr != NULL)
        memcpy(out->addr, addr, strnlen(addr, sizeof(out->addr) - 1));
}

size_t relay_peers(const struct relay *r, struct relay_peer_info *out, size_t cap)
{
    size_t n = 0;
    for (struct list_node *pos = list_first(&r->mesh.order); pos != NULL;
         pos = list_next(&r->mesh.order, pos), n++)
        if (n < cap)
            tell(r, container_of(pos, struct target, node), &out[n]);
    return n;
}

/* ---- life ---- */

/* The lists of the configuration become ours. */
static int copy_lists(struct relay *r, const struct relay_cfg *cfg)
{
    struct pubkey *accepted = NULL;
    r->cfg.accepted = NULL;
    if (cfg->n_accepted > 0 && (accepted = calloc(cfg->n_accepted, sizeof(*accepted))) == NULL)
        return ERR_NOMEM;
    if (accepted != NULL)
        memcpy(accepted, cfg->accepted, cfg->n_accepted * sizeof(*accepted));
    r->cfg.accepted = accepted;
    r->cfg.peers = NULL;
    for (size_t i = 0; i < cfg->n_peers; i++) {
        struct target *t = usable(r, &cfg->peers[i]) ? target_make(r, &cfg->peers[i].pk) : NULL;
        if (t != NULL)
            set_addr(t, &t->own_addr, cfg->peers[i].addr);
    }
    return 0;
}

int mesh_init(struct relay *r, const struct relay_cfg *cfg)
{
    struct mesh *m = &r->mesh;
    const uint8_t *key = cfg->env->hash_key;
    map_init(&m->peers, MAP_KEY(struct rsession, pk), key, 0);
    map_init(&m->targets, MAP_KEY(struct target, pk), key, 0);
    map_init(&m->misses, MAP_KEY(struct miss, key), key, MISSES_MAX);
    list_init(&m->links);
    list_init(&m->order);
    list_init(&m->forgetting);
    return copy_lists(r, cfg);
}

void mesh_drain(struct relay *r)
{
    struct list_node *pos, *tmp;
    list_for_each(pos, tmp, &r->mesh.order)
    {
        struct target *t = container_of(pos, struct target, node);
        loop_timer_cancel(r->cfg.loop, &t->timer);
        if (t->conn != NULL)
            conn_close(t->conn);
        t->conn = NULL;
    }
}

void mesh_free(struct relay *r)
{
    struct mesh *m = &r->mesh;
    struct target *t;
    assert(list_empty(&m->links) && r->stat.relayed == 0);
    while ((t = list_first_as(&m->order, struct target, node)) != NULL)
        target_free(t);
    misses_clear(m);
    map_free(&m->peers);
    map_free(&m->targets);
    map_free(&m->misses);
    free((void *)r->cfg.accepted);
}
