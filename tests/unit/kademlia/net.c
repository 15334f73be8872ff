#include "tests/unit/kademlia/net.h"

#include "base/err.h"
#include "kademlia/codec_json.h"
#include "kademlia/codec_msgpack.h"
#include "simulator/standin.h"
#include "store/memory.h"

enum event_type { EV_REQUEST, EV_RESPONSE, EV_FAIL, EV_TIMER, EV_CALL };

struct net_event {
    uint64_t at_ns, order;
    enum event_type type;
    struct net_node *to, *from;
    uint32_t call, life; /* life: of whoever asked */
    enum kad_fail why;
    enum kad_method method;
    void (*fn)(void *arg); /* EV_CALL */
    void *arg;
    struct kad_msg msg;
};

/* A request that an engine is dealing with; its address is the token. */
struct pending {
    struct net_node *from;
    uint32_t call, life;
    enum kad_method method;
    struct kad_msg *out; /* net_ask() */
    bool *done, *refused;
};

/* ---- events ---- */

static bool before(const struct net_event *a, const struct net_event *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

static void push(struct net *n, struct net_event *ev)
{
    if (n->heap_len == n->heap_cap) {
        n->heap_cap = n->heap_cap > 0 ? 2 * n->heap_cap : 256;
        n->heap = realloc(n->heap, n->heap_cap * sizeof *n->heap);
        assert_non_null(n->heap);
    }
    ev->order = n->order++;
    size_t i = n->heap_len++;
    for (; i > 0 && before(ev, n->heap[(i - 1) / 2]); i = (i - 1) / 2)
        n->heap[i] = n->heap[(i - 1) / 2];
    n->heap[i] = ev;
}

static struct net_event *pop(struct net *n)
{
    struct net_event *top = n->heap[0], *last = n->heap[--n->heap_len];
    size_t i = 0, c;

    while ((c = 2 * i + 1) < n->heap_len) {
        if (c + 1 < n->heap_len && before(n->heap[c + 1], n->heap[c]))
            c++;
        if (!before(n->heap[c], last))
            break;
        n->heap[i] = n->heap[c];
        i = c;
    }
    if (n->heap_len > 0)
        n->heap[i] = last;
    return top;
}

static uint64_t delay_ns(struct net *n)
{
    uint64_t span = n->max_delay_ms - n->min_delay_ms;

    return n->min_delay_ms * NS_PER_MS +
           (span > 0 ? prop_below(&n->rnd, span * 1000) * NS_PER_US : 0);
}

static struct net_event *event_at(uint64_t at_ns, enum event_type type, struct net_node *to)
{
    struct net_event *ev = calloc(1, sizeof *ev);

    assert_non_null(ev);
    ev->at_ns = at_ns;
    ev->type = type;
    ev->to = to;
    return ev;
}

static struct net_event *new_event(struct net *n, enum event_type type, struct net_node *to,
                                   uint32_t call, uint32_t life)
{
    struct net_event *ev = event_at(n->now_ns + delay_ns(n), type, to);

    ev->call = call;
    ev->life = life;
    return ev;
}

void net_at(struct net *n, uint64_t at_ns, void (*fn)(void *arg), void *arg)
{
    struct net_event *ev = event_at(at_ns, EV_CALL, NULL);

    ev->fn = fn;
    ev->arg = arg;
    push(n, ev);
}

static void send_fail(struct net *n, struct net_node *to, uint32_t call, uint32_t life,
                      enum kad_fail why)
{
    struct net_event *ev = new_event(n, EV_FAIL, to, call, life);

    ev->why = why;
    push(n, ev);
}

static int transcode_native(struct net *n, struct kad_msg *m, enum kad_method method)
{
    struct kad_mp_frame f;
    struct kad_mp_head head;
    uint8_t *bytes = NULL;
    size_t len = 0, used;
    bool response = m->response;
    int rc = kad_codec_msgpack.encode(&bytes, &len, m, 1);

    kad_msg_clear(m);
    kad_mp_frame_init(&f);
    if (rc == 0)
        rc = kad_mp_frame_feed(&f, bytes, len, &used, &head);
    if (rc == 0)
        rc = kad_codec_msgpack.decode(m, method, response, head.body, head.body_len);
    n->bytes += len;
    kad_mp_frame_clear(&f);
    free(bytes);
    return rc;
}

static int transcode_json(struct net *n, struct kad_msg *m, enum kad_method method)
{
    uint8_t *bytes = NULL;
    size_t len = 0;
    bool response = m->response;
    int rc = kad_json_encode(&bytes, &len, m);

    kad_msg_clear(m);
    if (rc == 0)
        rc = kad_json_decode(m, method, response, bytes + KAD_FRAME_HEAD, len - KAD_FRAME_HEAD);
    if (rc == 0)
        m->wire_bytes = len;
    n->bytes += len;
    free(bytes);
    return rc;
}

/* Through the codec that the two speak and back, as on the wire. */
static int transcode(const struct net_node *a, const struct net_node *b, struct kad_msg *m,
                     enum kad_method method)
{
    struct net *n = a->net;
    bool compat = a->json_only || b->json_only;

    n->messages++;
    if (n->sample > 0 && !compat && n->messages % n->sample != 0)
        return 0;
    if (n->native && !compat)
        return transcode_native(n, m, method);
    return n->json || compat ? transcode_json(n, m, method) : 0;
}

static bool is_lost(const struct net_node *a, const struct net_node *b)
{
    struct net *n = a->net;

    if (n->cut != NULL && n->cut(a, b))
        return true;
    return n->loss_percent > 0 && prop_chance(&n->rnd, n->loss_percent);
}

static void send_response(struct net_node *from, struct net_node *to, const struct pending *p,
                          struct kad_msg *rsp)
{
    struct net *n = from->net;
    int rc = transcode(from, to, rsp, p->method);

    if (rc != 0) {
        kad_msg_clear(rsp);
        send_fail(n, to, p->call, p->life,
                  rc == ERR_TOO_LONG ? KAD_FAIL_TOO_LONG : KAD_FAIL_FORMAT);
        return;
    }
    if (is_lost(from, to)) {
        kad_msg_clear(rsp);
        return;
    }
    struct net_event *ev = new_event(n, EV_RESPONSE, to, p->call, p->life);
    ev->msg = *rsp;
    memset(rsp, 0, sizeof *rsp);
    push(n, ev);
}

/* ---- actions of the engines ---- */

static struct net_node *node_of(struct net *n, kad_peer p)
{
    return p < n->by_peer_cap ? n->by_peer[p] : NULL;
}

static void act_call(struct net_node *node, struct kad_act *a)
{
    struct net *n = node->net;
    struct net_node *to = node_of(n, a->peer);

    assert_true(a->timeout_ms > 0);
    if (to == NULL || to->mode == NET_DOWN || to->kad == NULL || node->mode == NET_DOWN) {
        n->messages++;
        send_fail(n, node, a->call, node->life, KAD_FAIL_UNREACHABLE);
        return;
    }
    assert_int_equal(transcode(node, to, &a->msg, a->msg.method), 0);
    if (is_lost(node, to))
        return;
    struct net_event *ev = new_event(n, EV_REQUEST, to, a->call, node->life);
    ev->from = node;
    ev->method = a->msg.method;
    ev->msg = a->msg;
    memset(&a->msg, 0, sizeof a->msg);
    push(n, ev);
}

static void act_answer(struct net_node *node, struct kad_act *a)
{
    struct pending *p = (struct pending *)(uintptr_t)a->token;

    assert_non_null(p);
    if (p->out != NULL) {
        *p->done = true;
        *p->refused = a->type == KAD_ACT_REFUSE;
        *p->out = a->msg;
        memset(&a->msg, 0, sizeof a->msg);
    } else if (a->type == KAD_ACT_REPLY) {
        send_response(node, p->from, p, &a->msg);
    } else {
        assert_true(a->err < 0);
        send_fail(node->net, p->from, p->call, p->life, KAD_FAIL_CLOSED);
    }
    free(p);
}

static void act_done(struct net_node *node, struct kad_act *a)
{
    if (a->report.type == KAD_OP_BOOTSTRAP)
        return;
    if (node->done != NULL) {
        node->done(node, &a->report);
        return;
    }
    node->reports = realloc(node->reports, (node->n_reports + 1) * sizeof *node->reports);
    assert_non_null(node->reports);
    node->reports[node->n_reports++] = a->report;
    a->report.item = NULL;
    a->report.closest = NULL;
    a->report.steps = NULL;
}

static void set_clock(struct net_node *node)
{
    node->env.wall_ns = ENV_TEST_EPOCH_NS + (int64_t)node->net->now_ns + node->skew_ns;
}

/* One timer event of a node counts, the earliest. */
static void arm(struct net_node *node)
{
    struct net *n = node->net;
    uint64_t due = node->kad != NULL ? kad_deadline(node->kad) : LOOP_NEVER;

    if (due < n->now_ns)
        due = n->now_ns;
    if (due >= node->timer_ns)
        return;
    node->timer_ns = due;
    push(n, event_at(due, EV_TIMER, node));
}

static void pump(struct net_node *node)
{
    struct kad_act a;

    node->dirty = false;
    set_clock(node);
    while (node->kad != NULL && kad_next(node->kad, &a)) {
        switch (a.type) {
        case KAD_ACT_CALL:
            act_call(node, &a);
            break;
        case KAD_ACT_ABORT:
            break;
        case KAD_ACT_REPLY:
        case KAD_ACT_REFUSE:
            act_answer(node, &a);
            break;
        case KAD_ACT_NOTE: /* nobody watches the native dialect here */
            break;
        case KAD_ACT_DONE:
            act_done(node, &a);
            break;
        }
        kad_act_clear(&a);
    }
    arm(node);
}

void net_touch(struct net_node *node)
{
    node->dirty = true;
    if (node->listed)
        return;
    node->listed = true;
    node->next_dirty = node->net->dirty;
    node->net->dirty = node;
}

static bool settle_dirty(struct net *n)
{
    bool busy = n->dirty != NULL;

    while (n->dirty != NULL) {
        struct net_node *node = n->dirty;
        n->dirty = node->next_dirty;
        node->listed = false;
        pump(node);
    }
    return busy;
}

/* Some of the public-key work that waits. */
static bool work(struct net *n)
{
    bool busy = false;

    for (size_t i = 0; i < n->n; i++) {
        struct net_node *node = n->nodes[i];
        if (env_test_queued(&node->env) == 0)
            continue;
        set_clock(node);
        env_test_run(&node->env, 1 + prop_below(&n->rnd, 3));
        net_touch(node);
        busy = true;
    }
    return busy;
}

/* What came of what was done last. */
static void settle(struct net *n)
{
    bool busy = true;

    while (busy) {
        busy = settle_dirty(n);
        busy |= n->deferring && work(n);
    }
}

/* Tests call functions of the engines without telling. */
static void settle_all(struct net *n)
{
    for (size_t i = 0; i < n->n; i++) {
        n->deferring |= n->nodes[i]->env.deferred || env_test_queued(&n->nodes[i]->env) > 0;
        net_touch(n->nodes[i]);
    }
    settle(n);
}

/* ---- delivery ---- */

static struct pending asked_by(const struct net_event *ev)
{
    return (struct pending){
        .from = ev->from, .call = ev->call, .life = ev->life, .method = ev->method};
}

static void custom(struct net_node *node, struct net_event *ev)
{
    const struct pending asked = asked_by(ev);
    struct kad_msg rsp;
    int fail = -1;

    kad_msg_init(&rsp, ev->msg.method, true);
    if (!node->answer(node, ev->from, &ev->msg, &rsp, &fail)) {
        struct pending *p = calloc(1, sizeof *p);
        assert_non_null(p);
        *p = asked;
        kad_request(node->kad, ev->from->peer, &ev->msg, (uintptr_t)p, node->net->now_ns);
        return;
    }
    if (fail >= 0) {
        kad_msg_clear(&rsp);
        send_fail(node->net, ev->from, ev->call, ev->life, (enum kad_fail)fail);
        return;
    }
    send_response(node, ev->from, &asked, &rsp);
}

static void deliver_request(struct net_event *ev)
{
    struct net_node *node = ev->to;
    struct net *n = node->net;
    struct pending *p;

    node->asked[ev->method]++;
    switch (node->kad != NULL ? node->mode : NET_DOWN) {
    case NET_HONEST:
        p = calloc(1, sizeof *p);
        assert_non_null(p);
        *p = asked_by(ev);
        kad_request(node->kad, ev->from->peer, &ev->msg, (uintptr_t)p, n->now_ns);
        break;
    case NET_DOWN:
        send_fail(n, ev->from, ev->call, ev->life, KAD_FAIL_UNREACHABLE);
        break;
    case NET_MUTE:
        break;
    case NET_NO_DHT:
        send_fail(n, ev->from, ev->call, ev->life, KAD_FAIL_NO_DHT);
        break;
    case NET_CLOSES:
        send_fail(n, ev->from, ev->call, ev->life, KAD_FAIL_CLOSED);
        break;
    case NET_CUSTOM:
        custom(node, ev);
        break;
    }
}

static void timer(struct net_node *node, uint64_t at_ns)
{
    if (node->timer_ns != at_ns)
        return; /* an earlier one came */
    node->timer_ns = LOOP_NEVER;
    if (node->kad != NULL && kad_deadline(node->kad) <= node->net->now_ns)
        kad_tick(node->kad, node->net->now_ns);
    net_touch(node);
}

static void answered(struct net_node *node, struct net_event *ev)
{
    if (node->kad == NULL || node->life != ev->life)
        return;
    if (ev->type == EV_RESPONSE)
        kad_response(node->kad, ev->call, &ev->msg, node->net->now_ns);
    else
        kad_call_failed(node->kad, ev->call, ev->why, node->net->now_ns);
    net_touch(node);
}

static void deliver(struct net_event *ev)
{
    if (ev->to != NULL)
        set_clock(ev->to);
    switch (ev->type) {
    case EV_REQUEST:
        deliver_request(ev);
        net_touch(ev->to);
        break;
    case EV_RESPONSE:
    case EV_FAIL:
        answered(ev->to, ev);
        break;
    case EV_TIMER:
        timer(ev->to, ev->at_ns);
        break;
    case EV_CALL:
        ev->fn(ev->arg);
        break;
    }
    kad_msg_clear(&ev->msg);
    free(ev);
}

/* Everything that is due at the next point of time, not after the end. False: nothing is. */
static bool step(struct net *n, uint64_t end_ns)
{
    settle(n);
    uint64_t at = n->heap_len > 0 ? n->heap[0]->at_ns : LOOP_NEVER;
    if (at > end_ns)
        return false;
    if (at > n->now_ns)
        n->now_ns = at;
    while (n->heap_len > 0 && n->heap[0]->at_ns <= n->now_ns) {
        deliver(pop(n));
        settle_dirty(n);
    }
    return true;
}

void net_run(struct net *n, uint64_t ms)
{
    uint64_t end = n->now_ns + ms * NS_PER_MS;

    settle_all(n);
    while (step(n, end))
        continue;
    n->now_ns = end;
    for (size_t i = 0; i < n->n; i++)
        set_clock(n->nodes[i]);
}

/* ---- nodes ---- */

static void ready(void *arg)
{
    net_touch(arg);
}

static void stored(void *arg, const struct store_rec *rec)
{
    assert_true(rec->item.v_len <= ITEM_MAX_VALUE);
    ((struct net_node *)arg)->stored++;
}

void net_init(struct net *n, uint64_t seed)
{
    memset(n, 0, sizeof *n);
    n->rnd.state = seed;
    n->now_ns = 1000 * NS_PER_S;
    n->min_delay_ms = 10;
    n->max_delay_ms = 60;
    n->json = true;
    peers_init(&n->peers);
    assert_int_equal(crypto_init(), 0);
}

/* ---- signatures that cost nothing ---- */

#define MODEL_SEED UINT64_C(0x6b61646d7367)

static int model_pk(struct env *env, struct pk_wait *wait, const struct pk_req *req)
{
    const struct net_node *node = container_of(env, struct net_node, env.env);

    memset(&wait->res, 0, sizeof wait->res);
    if (req->op == PK_SIGN)
        standin_sign(&wait->res.sig, MODEL_SEED, &node->pk, &req->digest);
    else if (!standin_is_good(&req->sig, MODEL_SEED, &req->pk, &req->digest))
        wait->res.err = ERR_SIG;
    return 0;
}

int net_verify(const struct net *n, const struct item *it)
{
    struct hash digest;

    if (!n->model)
        return item_verify(it);
    item_digest(&digest, it);
    return standin_is_good(&it->sig, MODEL_SEED, &it->k, &digest) ? 0 : ERR_SIG;
}

void net_sign(const struct net_node *node, struct item *it)
{
    struct hash digest;

    if (!node->net->model) {
        assert_int_equal(item_sign(it, &node->sk), 0);
        return;
    }
    item_digest(&digest, it);
    standin_sign(&it->sig, MODEL_SEED, &node->pk, &digest);
}

/* ---- life of nodes ---- */

static enum kad_dialect dialect_of(void *arg, kad_peer p)
{
    struct net *n = container_of(arg, struct net, peers);
    const struct net_node *node = node_of(n, p);

    return node == NULL || !node->json_only ? KAD_DIALECT_NATIVE : KAD_DIALECT_JSON;
}

void net_start(struct net_node *node)
{
    struct kad_hooks hooks = {.arg = node, .ready = ready, .stored = stored};

    if (node->net->native)
        node->net->peers.ops.dialect = dialect_of;
    if (node->net->model && node->env.env.ops->pk != model_pk) {
        node->net->model_ops = *node->env.env.ops;
        node->net->model_ops.pk = model_pk;
        node->env.env.ops = &node->net->model_ops;
    }
    node->life++;
    node->timer_ns = LOOP_NEVER;
    set_clock(node);
    assert_int_equal(kad_new(&node->kad, &node->cfg, &node->env.env, node->store,
                             &node->net->peers.ops, &hooks, node->net->now_ns),
                     0);
    net_touch(node);
}

void net_stop(struct net_node *node)
{
    struct net *n = node->net;

    /* Requests under way in the engine get no answer; take their tokens back first. */
    net_touch(node);
    settle(n);
    kad_free(node->kad);
    node->kad = NULL;
}

void net_wipe(struct net_node *node)
{
    node->store->ops->close(node->store);
    assert_int_equal(store_memory_new(&node->store, 0), 0);
}

void net_restart(struct net_node *node, bool wipe)
{
    net_stop(node);
    if (wipe)
        net_wipe(node);
    net_start(node);
}

void net_set_boot(struct net *n, const struct pubkey *pks, size_t count)
{
    n->boot = realloc(n->boot, (count + 1) * sizeof *pks);
    assert_non_null(n->boot);
    if (count > 0)
        memcpy(n->boot, pks, count * sizeof *pks);
    n->n_boot = count;
}

/* Of the node's own, for restarts. */
static struct pubkey *dup_keys(const struct pubkey *pks, size_t count)
{
    struct pubkey *copy = malloc((count + 1) * sizeof *copy);

    assert_non_null(copy);
    if (count > 0)
        memcpy(copy, pks, count * sizeof *copy);
    return copy;
}

static void know_peer(struct net *n, struct net_node *node)
{
    size_t old = n->by_peer_cap;

    if (node->peer >= old) {
        n->by_peer_cap = 2 * ((size_t)node->peer + 64);
        n->by_peer = realloc(n->by_peer, n->by_peer_cap * sizeof *n->by_peer);
        assert_non_null(n->by_peer);
        memset(n->by_peer + old, 0, (n->by_peer_cap - old) * sizeof *n->by_peer);
    }
    n->by_peer[node->peer] = node;
}

struct net_node *net_add_key(struct net *n, const struct kad_cfg *cfg, const struct seckey *sk)
{
    struct net_node *node = calloc(1, sizeof *node);

    assert_true(n->n < NET_MAX);
    assert_non_null(node);
    node->net = n;
    node->index = (unsigned)n->n;
    env_test_init(&node->env, prop_u64(&n->rnd));
    node->env.deferred = node->env.shuffle = n->deferred;
    node->sk = *sk;
    assert_int_equal(seckey_pubkey(&node->pk, sk), 0);
    node->id = kad_id_of(&node->pk);
    node->peer = peers_add(&n->peers, &node->pk);
    know_peer(n, node);
    assert_int_equal(store_memory_new(&node->store, 0), 0);
    if (n->n == 0 && n->boot == NULL && !n->no_bootstrap)
        net_set_boot(n, &node->pk, 1);
    if (cfg != NULL)
        node->cfg = *cfg;
    node->cfg.self = node->pk;
    node->cfg.sk = node->sk;
    if (node->cfg.bootstrap == NULL) {
        node->cfg.bootstrap = n->boot;
        node->cfg.n_bootstrap = n->n_boot;
    }
    node->cfg.bootstrap = dup_keys(node->cfg.bootstrap, node->cfg.n_bootstrap);
    n->nodes[n->n++] = node;
    net_start(node);
    return node;
}

struct net_node *net_add(struct net *n, const struct kad_cfg *cfg)
{
    struct seckey sk;
    struct pubkey pk;
    uint8_t seed[32];

    do
        prop_bytes(&n->rnd, seed, sizeof seed);
    while (crypto_keypair(&sk, &pk, seed) != 0);
    return net_add_key(n, cfg, &sk);
}

void net_report_clear(struct kad_report *r)
{
    item_ref_put(r->item);
    free(r->closest);
    free(r->steps);
    memset(r, 0, sizeof *r);
}

static void close_node(struct net_node *node)
{
    node->store->ops->close(node->store);
    for (size_t i = 0; i < node->n_reports; i++)
        net_report_clear(&node->reports[i]);
    free(node->reports);
    free((void *)(uintptr_t)node->cfg.bootstrap);
    env_test_close(&node->env);
    free(node);
}

void net_close(struct net *n)
{
    settle(n);
    net_run(n, 120000); /* until nobody owes an answer */
    settle(n);
    for (size_t i = 0; i < n->n; i++) {
        kad_free(n->nodes[i]->kad);
        n->nodes[i]->kad = NULL;
    }
    while (n->heap_len > 0) {
        struct net_event *ev = pop(n);
        kad_msg_clear(&ev->msg);
        free(ev);
    }
    for (size_t i = 0; i < n->n; i++)
        close_node(n->nodes[i]);
    free(n->heap);
    free(n->by_peer);
    free(n->boot);
    peers_close(&n->peers);
}

/* ---- operations ---- */

static bool take_report(struct net_node *node, uint32_t op, struct kad_report *out)
{
    for (size_t i = 0; i < node->n_reports; i++) {
        if (node->reports[i].op != op)
            continue;
        *out = node->reports[i];
        node->reports[i] = node->reports[--node->n_reports];
        return true;
    }
    return false;
}

struct kad_report net_wait(struct net_node *node, uint32_t op)
{
    struct net *n = node->net;
    uint64_t end = n->now_ns + 600 * NS_PER_S;
    struct kad_report r;

    assert_int_not_equal(op, 0);
    settle_all(n);
    while (!take_report(node, op, &r))
        assert_true(step(n, end));
    return r;
}

struct kad_report net_get(struct net_node *node, const struct pubkey *pk, const char *salt,
                          unsigned flags)
{
    set_clock(node);
    return net_wait(node,
                    kad_get(node->kad, pk, salt, strlen(salt), flags, node, node->net->now_ns));
}

struct kad_report net_put(struct net_node *node, const char *salt, const char *v)
{
    set_clock(node);
    return net_wait(node, kad_put(node->kad, salt, strlen(salt), v, strlen(v), false, 0, node,
                                  node->net->now_ns));
}

void net_assert_value(struct kad_report r, const char *v)
{
    assert_int_equal(r.err, 0);
    assert_non_null(r.item);
    assert_int_equal(r.item->item.v_len, strlen(v));
    assert_memory_equal(r.item->item.v, v, strlen(v));
    net_report_clear(&r);
}

bool net_ask(struct net_node *to, struct net_node *from, struct kad_msg *req, struct kad_msg *rsp)
{
    bool done = false, refused = false;
    struct pending *p = calloc(1, sizeof *p);
    enum kad_method method = req->method;

    assert_non_null(p);
    *p = (struct pending){.from = from, .out = rsp, .done = &done, .refused = &refused};
    assert_int_equal(transcode(from, to, req, method), 0);
    set_clock(to);
    if (method < KAD_METHOD__END) /* tests ask for what there is not, too */
        to->asked[method]++;
    kad_request(to->kad, from->peer, req, (uintptr_t)p, to->net->now_ns);
    net_touch(to);
    settle_all(to->net);
    assert_true(done);
    if (refused) {
        kad_msg_clear(rsp);
        return false;
    }
    assert_int_equal(transcode(to, from, rsp, method), 0);
    return true;
}

size_t net_holders(struct net *n, const struct pubkey *pk, const char *salt, uint64_t seq)
{
    struct kad_id target = kad_target(pk, salt, strlen(salt));
    struct store_rec r;
    size_t holders = 0;

    for (size_t i = 0; i < n->n; i++) {
        struct store *s = n->nodes[i]->store;
        if (n->nodes[i]->kad != NULL && s->ops->get(s, &target, ITEM_OWNER, &r) == 0 &&
            r.origin != STORE_CACHE && (seq == 0 || r.item.seq == seq))
            holders++;
    }
    return holders;
}

static bool count_contact(void *arg, const struct kad_contact *c)
{
    (void)c;
    ++*(size_t *)arg;
    return true;
}

size_t net_contacts(const struct net_node *node)
{
    size_t n = 0;

    kad_contacts(node->kad, count_contact, &n);
    return n;
}
