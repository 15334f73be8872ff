#include "tests/unit/kademlia/cluster.h"

#include <string.h>

#include "base/cursor.h"
#include "base/err.h"

#define VALUE_BYTES 200
#define TTL_NS      (7200 * NS_PER_S)
#define FRESH_NS    (300 * NS_PER_S)
#define NOBODY      2048
#define GIANT       1000
#define JOIN_NS     (60 * NS_PER_S)
#define SETTLE_S    300
#define OLD_PEERS   2
#define SLICE_S     600

#define USER_PUT  (UINT64_C(1) << 60)
#define USER_GET  (UINT64_C(2) << 60)
#define USER_LIVE (UINT64_C(1) << 59) /* the publisher lived when the look-up began */

static unsigned index_of(const struct cluster_node *cn)
{
    return (unsigned)(cn - cn->c->nodes);
}

static struct prop *rnd(struct cluster *c)
{
    return &c->net.rnd;
}

/* Exponential with this mean, without libm: -ln of a fraction by halving. */
static uint64_t draw_ns(struct cluster *c, uint64_t mean_ns)
{
    uint64_t u = prop_u64(rnd(c)) | 1, halvings = 0;

    while ((u & UINT64_C(1) << 63) == 0) {
        u <<= 1;
        halvings++;
    }
    /* u / 2^64 is in [1/2, 1): -ln(x) ~ 2(1 - x) / (1 + x) */
    double x = (double)u / 18446744073709551616.0;
    return 1 + (uint64_t)((double)mean_ns *
                          ((double)halvings * 0.6931471805599453 + 2 * (1 - x) / (1 + x)));
}

/* ---- values ---- */

static void make_value(uint8_t out[VALUE_BYTES], unsigned owner, unsigned version)
{
    struct prop r = {.state = (uint64_t)owner << 32 | version};

    prop_bytes(&r, out, VALUE_BYTES);
    put_be32(out, owner);
    put_be32(out + 4, version);
}

/* 0: not a value that this node has made. */
static unsigned read_value(const struct cluster_node *owner, const struct item *it)
{
    uint8_t want[VALUE_BYTES];

    if (!pubkey_equal(&it->k, &owner->node->pk) || it->v_len != VALUE_BYTES)
        return 0;
    unsigned version = get_be32(it->v + 4);
    make_value(want, index_of(owner), version);
    bool ours = version > 0 && version <= owner->version && memcmp(want, it->v, VALUE_BYTES) == 0;
    return ours ? version : 0;
}

unsigned cluster_acked(const struct cluster_node *cn, uint64_t before_ns)
{
    for (unsigned i = 0; i < CLUSTER_ACKS; i++) {
        if (cn->acks[i].version != 0 && cn->acks[i].at_ns <= before_ns)
            return before_ns - cn->acks[i].at_ns < TTL_NS ? cn->acks[i].version : 0;
    }
    return 0;
}

unsigned cluster_held(struct cluster *c, unsigned holder, unsigned owner)
{
    struct kad_id target =
        kad_target(&c->nodes[owner].node->pk, CLUSTER_SALT, strlen(CLUSTER_SALT));
    struct store *s = c->nodes[holder].node->store;
    struct store_rec r;

    if (!c->nodes[holder].up || s->ops->get(s, &target, ITEM_OWNER, &r) != 0 ||
        r.origin == STORE_CACHE)
        return 0;
    return read_value(&c->nodes[owner], &r.item);
}

/* ---- the judge ---- */

static void acknowledged(struct cluster_node *cn, const struct kad_report *r)
{
    struct cluster *c = cn->c;

    if (r->err == ERR_CANCELLED)
        return; /* a newer version came before this one had a number */
    if (r->err != 0) {
        c->n.unacked++;
        return;
    }
    c->n.acked++;
    memmove(&cn->acks[1], &cn->acks[0], (CLUSTER_ACKS - 1) * sizeof cn->acks[0]);
    cn->acks[0].at_ns = c->net.now_ns;
    cn->acks[0].version = (unsigned)(uintptr_t)r->user;
}

static bool judge(struct cluster *c, const struct kad_report *r, bool live)
{
    struct cluster_node *owner = &c->nodes[(uint32_t)(uintptr_t)r->user];
    bool local = r->source == KAD_SRC_LOCAL, found = r->err == 0 && r->item != NULL;
    unsigned must = cluster_acked(owner, r->started_ns);
    unsigned oldest = local ? cluster_acked(owner, r->started_ns - FRESH_NS) : must;
    unsigned version = found ? read_value(owner, &r->item->item) : 0;

    c->n.wrong += found && version == 0;
    c->n.stale += version != 0 && version < oldest;
    c->n.local += local;
    if (must == 0)
        return false;
    if (live) {
        c->n.gets++;
        *(found ? &c->n.found : &c->n.missed) += 1;
    } else {
        c->n.other_gets++;
        c->n.other_found += found;
    }
    return found && version >= oldest;
}

static void done(struct net_node *node, const struct kad_report *r)
{
    uint64_t user = (uintptr_t)r->user;

    if (user & USER_PUT)
        acknowledged(node->arg, r);
    else if (user & USER_GET)
        (void)judge(((struct cluster_node *)node->arg)->c, r, (user & USER_LIVE) != 0);
}

/* ---- users ---- */

static void publish(struct cluster_node *cn)
{
    uint8_t v[VALUE_BYTES];

    if (!cn->up || !cn->publishes)
        return;
    make_value(v, index_of(cn), ++cn->version);
    cn->c->n.puts++;
    assert_int_not_equal(kad_put(cn->node->kad, CLUSTER_SALT, strlen(CLUSTER_SALT), v, sizeof v,
                                 false, 0, (void *)(uintptr_t)(USER_PUT | cn->version),
                                 cn->c->net.now_ns),
                         0);
    net_touch(cn->node);
}

static void publish_first(void *arg)
{
    publish(arg);
}

static void publish_again(void *arg)
{
    struct cluster_node *cn = arg;
    struct cluster *c = cn->c;

    if (!c->quiet)
        publish(cn);
    net_at(&c->net, c->net.now_ns + draw_ns(c, c->cfg.put_s * NS_PER_S), publish_again, cn);
}

unsigned cluster_any_up(struct cluster *c)
{
    unsigned i;

    do
        i = (unsigned)prop_below(rnd(c), c->cfg.nodes);
    while (!c->nodes[i].up || c->nodes[i].role != CLUSTER_HONEST);
    return i;
}

unsigned cluster_any_publisher(struct cluster *c)
{
    unsigned i;

    do
        i = cluster_any_up(c);
    while (!c->nodes[i].publishes);
    return i;
}

static uint32_t begin_get(struct cluster *c, unsigned reader, unsigned owner, unsigned flags)
{
    uint64_t user = USER_GET | owner;

    if (c->nodes[owner].up)
        user |= USER_LIVE;
    uint32_t op = kad_get(c->nodes[reader].node->kad, &c->nodes[owner].node->pk, CLUSTER_SALT,
                          strlen(CLUSTER_SALT), flags, (void *)(uintptr_t)user, c->net.now_ns);
    assert_int_not_equal(op, 0);
    net_touch(c->nodes[reader].node);
    return op;
}

static void look_up(void *arg)
{
    struct cluster *c = arg;
    unsigned owner = (unsigned)prop_below(rnd(c), c->cfg.nodes);

    net_at(&c->net, c->net.now_ns + draw_ns(c, c->cfg.get_ms * NS_PER_MS), look_up, c);
    if (c->quiet || !c->nodes[owner].publishes)
        return;
    (void)begin_get(c, cluster_any_up(c), owner,
                    prop_chance(rnd(c), c->cfg.cached_percent) ? 0 : KAD_GET_NETWORK);
}

bool cluster_get(struct cluster *c, unsigned reader, unsigned owner)
{
    struct net_node *node = c->nodes[reader].node;

    node->done = NULL;
    struct kad_report r = net_wait(node, begin_get(c, reader, owner, KAD_GET_NETWORK));
    node->done = done;
    bool good = judge(c, &r, c->nodes[owner].up);
    net_report_clear(&r);
    return good;
}

/* ---- coming and going ---- */

static void leave(void *arg);

static void stay_a_while(struct cluster_node *cn)
{
    struct cluster *c = cn->c;

    if (c->cfg.life_s > 0 && !cn->stays)
        net_at(&c->net, c->net.now_ns + draw_ns(c, c->cfg.life_s * NS_PER_S), leave, cn);
}

void cluster_up(struct cluster *c, unsigned i)
{
    struct cluster_node *cn = &c->nodes[i];

    if (cn->up || cn->gone)
        return;
    net_start(cn->node);
    cn->up = true;
    c->n.joins++;
    /* its user publishes as soon as it has joined */
    net_at(&c->net, c->net.now_ns + 3 * NS_PER_S, publish_first, cn);
}

static void come(void *arg)
{
    struct cluster_node *cn = arg;

    cluster_up(cn->c, index_of(cn));
    stay_a_while(cn);
}

void cluster_down(struct cluster *c, unsigned i, bool for_good)
{
    struct cluster_node *cn = &c->nodes[i];

    cn->gone |= for_good;
    if (!cn->up)
        return;
    net_stop(cn->node);
    cn->up = false;
    c->n.leaves++;
    if (prop_chance(rnd(c), 50))
        net_wipe(cn->node);
}

static void leave(void *arg)
{
    struct cluster_node *cn = arg;
    struct cluster *c = cn->c;

    if (!cn->up)
        return;
    cluster_down(c, index_of(cn), false);
    net_at(&c->net, c->net.now_ns + draw_ns(c, c->cfg.away_s * NS_PER_S), come, cn);
}

/* ---- liars ---- */

static bool is_value(const struct kad_msg *req)
{
    return req->method == KAD_GET_VALUE;
}

static bool give(struct kad_msg *rsp, const struct item *it)
{
    struct item_ref *ref = item_ref_new(it);

    assert_non_null(ref);
    assert_int_equal(kad_msg_add_item(rsp, ref, NULL), 0);
    item_ref_put(ref);
    return true;
}

static bool other_slot(struct net_node *node, struct net_node *from, struct kad_msg *req,
                       struct kad_msg *rsp, int *fail)
{
    static const uint8_t text[] = "of somebody else";
    struct item it = {.k = node->pk,
                      .seq = UINT64_C(1) << 62,
                      .v = text,
                      .v_len = sizeof text,
                      .salt = (const uint8_t *)CLUSTER_SALT,
                      .salt_len = strlen(CLUSTER_SALT)};

    (void)from;
    (void)fail;
    if (!is_value(req))
        return false;
    net_sign(node, &it);
    return give(rsp, &it);
}

/* Whose slot of the cluster's, as far as the item says so itself; -1: nobody's. */
static int owner_of(const struct cluster *c, const struct item *it)
{
    unsigned owner = it->v_len == VALUE_BYTES ? get_be32(it->v) : UINT32_MAX;

    return owner < c->cfg.nodes && pubkey_equal(&it->k, &c->nodes[owner].node->pk) ? (int)owner
                                                                                   : -1;
}

static bool stale(struct net_node *node, struct net_node *from, struct kad_msg *req,
                  struct kad_msg *rsp, int *fail)
{
    struct cluster_node *cn = node->arg;

    (void)from;
    (void)fail;
    if (req->method == KAD_PUT_VALUE && req->n_items == 1) {
        int owner = owner_of(cn->c, &req->items[0].item->item);
        if (owner >= 0 && cn->first[owner] == NULL)
            cn->first[owner] = item_ref_get(req->items[0].item);
        rsp->stored = true;
        return true;
    }
    for (unsigned i = 0; is_value(req) && i < cn->c->cfg.nodes; i++) {
        struct item_ref *first = cn->first[i];
        if (first == NULL)
            continue;
        struct kad_id target = item_target(&first->item);
        if (!kad_id_equal(&target, &req->target))
            continue;
        assert_int_equal(kad_msg_add_item(rsp, first, NULL), 0);
        return true;
    }
    return false;
}

/* A newer version than there is, under the signature of the one that it holds. */
static bool forged(struct net_node *node, struct net_node *from, struct kad_msg *req,
                   struct kad_msg *rsp, int *fail)
{
    uint8_t v[VALUE_BYTES] = {0};
    struct store_rec r;

    (void)from;
    (void)fail;
    if (!is_value(req) || node->store->ops->get(node->store, &req->target, ITEM_OWNER, &r) != 0)
        return false;
    struct item it = r.item;
    it.seq += NS_PER_S;
    it.v = v;
    it.v_len = sizeof v;
    return give(rsp, &it);
}

/* Room for the contacts of a lie; NULL: they were not asked for. */
static struct pubkey *name(const struct kad_msg *req, struct kad_msg *rsp, size_t n)
{
    if (req->method != KAD_FIND_NODE && !is_value(req))
        return NULL;
    rsp->closest = calloc(n, sizeof *rsp->closest);
    assert_non_null(rsp->closest);
    rsp->n_closest = n;
    return rsp->closest;
}

static bool giant(struct net_node *node, struct net_node *from, struct kad_msg *req,
                  struct kad_msg *rsp, int *fail)
{
    struct cluster *c = ((struct cluster_node *)node->arg)->c;

    (void)from;
    (void)fail;
    struct pubkey *pks = name(req, rsp, GIANT);
    if (pks != NULL)
        memcpy(pks, c->nobody, GIANT * sizeof *pks);
    return pks != NULL;
}

/* Half of them other liars, half nobody. */
static bool poison(struct net_node *node, struct net_node *from, struct kad_msg *req,
                   struct kad_msg *rsp, int *fail)
{
    struct cluster *c = ((struct cluster_node *)node->arg)->c;

    (void)from;
    (void)fail;
    struct pubkey *pks = name(req, rsp, KAD_K);
    for (size_t i = 0; pks != NULL && i < KAD_K; i++) {
        size_t at = prop_below(rnd(c), c->cfg.nodes);
        for (size_t tries = 0; tries < c->cfg.nodes && c->nodes[at].role != CLUSTER_POISON; tries++)
            at = (at + 1) % c->cfg.nodes;
        pks[i] = i % 2 == 0 ? c->nobody[prop_below(rnd(c), NOBODY)] : c->nodes[at].node->pk;
    }
    return pks != NULL;
}

/* ---- peers that speak JSON only ---- */

static int verify(void *arg, const struct item *it)
{
    return net_verify(arg, it);
}

static bool old(struct net_node *node, struct net_node *from, struct kad_msg *req,
                struct kad_msg *rsp, int *fail)
{
    struct cluster_node *cn = node->arg;

    (void)from;
    if (req->wire_bytes > old_frame_max(&cn->old) || !old_answer(&cn->old, &node->pk, req, rsp))
        *fail = KAD_FAIL_CLOSED;
    else
        cn->old.asked[req->method]++;
    return true;
}

static void ask(struct cluster *c, struct cluster_node *from, unsigned to, struct kad_msg *req,
                struct kad_msg *rsp)
{
    req->sender = from->node->pk;
    if (!net_ask(c->nodes[to].node, from->node, req, rsp))
        kad_msg_init(rsp, KAD_PING, true);
}

/* The honest nodes that are up and closest to a target, as its table would have them. */
static size_t closest_up(struct cluster *c, const struct kad_id *target, unsigned *out, size_t max)
{
    size_t n = 0;

    for (unsigned i = 0; i < c->cfg.nodes; i++) {
        if (!c->nodes[i].up || c->nodes[i].role != CLUSTER_HONEST)
            continue;
        size_t at = n < max ? n++ : max;
        while (at > 0 &&
               kad_id_closer(target, &c->nodes[i].node->id, &c->nodes[out[at - 1]].node->id) < 0) {
            if (at < max)
                out[at] = out[at - 1];
            at--;
        }
        if (at < max)
            out[at] = i;
    }
    return n;
}

/* It publishes: each of the closest says that it has it. */
static void old_publishes(struct cluster *c, struct cluster_node *cn)
{
    uint8_t v[VALUE_BYTES];
    struct item it = {.k = cn->node->pk,
                      .seq = (uint64_t)cn->node->env.wall_ns,
                      .v = v,
                      .v_len = sizeof v,
                      .salt = (const uint8_t *)CLUSTER_SALT,
                      .salt_len = strlen(CLUSTER_SALT)};
    unsigned to[KAD_K], stored = 0;
    struct kad_id target = item_target(&it);
    size_t n = closest_up(c, &target, to, KAD_K);

    make_value(v, index_of(cn), ++cn->version);
    net_sign(cn->node, &it);
    struct item_ref *ref = item_ref_new(&it);
    assert_non_null(ref);
    for (size_t i = 0; i < n; i++) {
        struct kad_msg req, rsp;
        kad_msg_init(&req, KAD_PUT_VALUE, false);
        assert_int_equal(kad_msg_add_item(&req, ref, NULL), 0);
        ask(c, cn, to[i], &req, &rsp);
        stored += rsp.stored;
        kad_msg_clear(&rsp);
    }
    item_ref_put(ref);
    assert_int_equal(stored, n);
    acknowledged(cn, &(struct kad_report){.user = (void *)(uintptr_t)cn->version});
}

/* It looks up: the newest of what the closest have is judged as for everybody. */
static void old_looks_up(struct cluster *c, struct cluster_node *cn, unsigned owner)
{
    struct kad_id target =
        kad_target(&c->nodes[owner].node->pk, CLUSTER_SALT, strlen(CLUSTER_SALT));
    struct kad_report r = {.started_ns = c->net.now_ns,
                           .err = ERR_NOT_FOUND,
                           .source = KAD_SRC_DHT,
                           .user = (void *)(uintptr_t)owner};
    unsigned to[KAD_K];
    size_t n = closest_up(c, &target, to, KAD_K);

    for (size_t i = 0; i < n; i++) {
        struct kad_msg req, rsp;
        kad_msg_init(&req, KAD_GET_VALUE, false);
        req.target = target;
        ask(c, cn, to[i], &req, &rsp);
        struct item_ref *got = rsp.n_items > 0 ? rsp.items[0].item : NULL;
        if (got != NULL && net_verify(&c->net, &got->item) == 0 &&
            (r.item == NULL || got->item.seq > r.item->item.seq)) {
            item_ref_put(r.item);
            r.item = item_ref_get(got);
            r.err = 0;
        }
        kad_msg_clear(&rsp);
    }
    (void)judge(c, &r, c->nodes[owner].up);
    item_ref_put(r.item);
}

static void old_pings(struct cluster *c, struct cluster_node *cn, unsigned to)
{
    struct kad_msg req, rsp;

    kad_msg_init(&req, KAD_PING, false);
    ask(c, cn, to, &req, &rsp);
    kad_msg_clear(&rsp);
}

/* It has met everybody. */
static void old_joins(struct cluster *c, struct cluster_node *cn)
{
    for (unsigned i = 0; i < c->cfg.nodes; i++) {
        if (c->nodes[i].up && c->nodes[i].role == CLUSTER_HONEST)
            old_pings(c, cn, i);
    }
}

static void old_calls(struct cluster *c, struct cluster_node *cn)
{
    for (unsigned i = 0; i < 20; i++) /* so as not to be forgotten */
        old_pings(c, cn, cluster_any_up(c));
    if (!c->quiet)
        old_publishes(c, cn);
    for (unsigned i = 0; i < 5; i++)
        old_looks_up(c, cn, cluster_any_publisher(c));
    /* And somebody looks for what it publishes. */
    (void)begin_get(c, cluster_any_up(c), index_of(cn), KAD_GET_NETWORK);
}

/* ---- life of the cluster ---- */

static bool is_cut(const struct net_node *a, const struct net_node *b)
{
    const struct cluster_node *x = a->arg, *y = b->arg;

    return x->c->cut && x->side != y->side;
}

static enum cluster_role role_of(const struct cluster *c, unsigned i)
{
    unsigned first = c->cfg.boot + OLD_PEERS, kinds = CLUSTER_ROLE__END - CLUSTER_MUTE;

    if (i < c->cfg.boot)
        return CLUSTER_HONEST;
    if (i < first)
        return CLUSTER_OLD;
    unsigned before = (i - first) * c->cfg.liars_percent / 100,
             with = (i + 1 - first) * c->cfg.liars_percent / 100;
    return with > before ? (enum cluster_role)(CLUSTER_MUTE + before % kinds) : CLUSTER_HONEST;
}

static void misbehave(struct cluster_node *cn)
{
    static net_answer_fn *const answers[CLUSTER_ROLE__END] = {
        [CLUSTER_OLD] = old,       [CLUSTER_OTHER_SLOT] = other_slot, [CLUSTER_STALE] = stale,
        [CLUSTER_FORGED] = forged, [CLUSTER_GIANT] = giant,           [CLUSTER_POISON] = poison};
    struct net_node *node = cn->node;

    node->answer = answers[cn->role];
    if (cn->role != CLUSTER_HONEST)
        node->mode = cn->role == CLUSTER_MUTE ? NET_MUTE : NET_CUSTOM;
    if (cn->role == CLUSTER_STALE) {
        cn->first = calloc(cn->c->cfg.nodes, sizeof *cn->first);
        assert_non_null(cn->first);
    }
    if (cn->role == CLUSTER_OLD) {
        node->json_only = true;
        cn->old.form = index_of(cn) % 2 == 0 ? OLD_EARLY : OLD_LATE;
        cn->old.verify = verify;
        cn->old.arg = &cn->c->net;
    }
}

static void add_node(struct cluster *c, unsigned i)
{
    struct cluster_node *cn = &c->nodes[i];
    enum cluster_role role = role_of(c, i);
    const struct pubkey none = {{0}};
    struct kad_cfg cfg = {.full = i < c->cfg.full};

    if (role == CLUSTER_OLD) /* the engine behind it does nothing */
        cfg.bootstrap = &none;
    *cn = (struct cluster_node){
        .c = c, .role = role, .up = true, .stays = i < c->cfg.boot || role == CLUSTER_OLD};
    cn->publishes =
        role == CLUSTER_HONEST && (c->cfg.nth_publishes == 0 || i % c->cfg.nth_publishes == 0);
    cn->node = net_add(&c->net, &cfg);
    cn->node->arg = cn;
    cn->node->done = done;
    misbehave(cn);
    c->n.joins++;
    net_at(&c->net, c->net.now_ns + 10 * NS_PER_S + draw_ns(c, 30 * NS_PER_S), publish_first, cn);
    net_at(&c->net, c->net.now_ns + draw_ns(c, c->cfg.put_s * NS_PER_S), publish_again, cn);
    stay_a_while(cn);
}

static void set_boot(struct cluster *c)
{
    struct pubkey boot[16];

    assert_true(c->cfg.boot <= 16);
    for (unsigned i = 0; i < c->cfg.boot; i++)
        boot[i] = c->nodes[i].node->pk;
    net_set_boot(&c->net, boot, c->cfg.boot);
}

void cluster_init(struct cluster *c, const struct cluster_cfg *cfg, const char *what)
{
    struct prop r = prop_init(what);

    memset(c, 0, sizeof *c);
    c->cfg = *cfg;
    net_init(&c->net, prop_u64(&r));
    c->net.native = true;
    c->net.sample = 64;
    c->net.model = !cfg->real_signatures;
    c->net.cut = is_cut;
    c->nodes = calloc(cfg->nodes, sizeof *c->nodes);
    c->nobody = calloc(NOBODY, sizeof *c->nobody);
    assert_true(c->nodes != NULL && c->nobody != NULL);
    for (unsigned i = 0; i < NOBODY; i++) {
        prop_bytes(rnd(c), &c->nobody[i], sizeof c->nobody[i]);
        c->nobody[i].b[0] = 2;
    }
    for (unsigned i = 0; i < cfg->nodes; i++) {
        add_node(c, i);
        if (i + 1 == cfg->boot)
            set_boot(c);
        net_run(&c->net, JOIN_NS / NS_PER_MS / cfg->nodes);
    }
    for (unsigned i = cfg->boot; i < cfg->boot + OLD_PEERS; i++)
        old_joins(c, &c->nodes[i]);
    cluster_run(c, SETTLE_S);
    net_at(&c->net, c->net.now_ns, look_up, c);
}

void cluster_run(struct cluster *c, unsigned seconds)
{
    while (seconds > 0) {
        unsigned slice = seconds < SLICE_S ? seconds : SLICE_S;
        for (unsigned i = c->cfg.boot; i < c->cfg.boot + OLD_PEERS; i++)
            old_calls(c, &c->nodes[i]);
        net_run(&c->net, slice * UINT64_C(1000));
        seconds -= slice;
    }
}

void cluster_close(struct cluster *c)
{
    c->quiet = true;
    for (unsigned i = 0; i < c->cfg.nodes; i++)
        c->nodes[i].gone = true; /* nobody comes back */
    net_close(&c->net);
    for (unsigned i = 0; i < c->cfg.nodes; i++) {
        for (unsigned j = 0; c->nodes[i].first != NULL && j < c->cfg.nodes; j++)
            item_ref_put(c->nodes[i].first[j]);
        free(c->nodes[i].first);
        old_free(&c->nodes[i].old);
    }
    free(c->nodes);
    free(c->nobody);
}

void cluster_assert(struct cluster *c, unsigned per_10000)
{
    const struct cluster_counts *n = &c->n;

    print_message("%" PRIu64 " messages; %" PRIu64 " joined, %" PRIu64 " left; puts %" PRIu64
                  ", acknowledged %" PRIu64 ", not %" PRIu64 "\n"
                  "look-ups of live publishers %" PRIu64 ", found %" PRIu64 ", missed %" PRIu64
                  ", by copies %" PRIu64 "; of others %" PRIu64 ", found %" PRIu64
                  "; wrong %" PRIu64 ", stale %" PRIu64 "\n",
                  c->net.messages, n->joins, n->leaves, n->puts, n->acked, n->unacked, n->gets,
                  n->found, n->missed, n->local, n->other_gets, n->other_found, n->wrong, n->stale);
    assert_int_equal(n->wrong, 0);
    assert_int_equal(n->stale, 0);
    assert_true(n->gets > 0);
    assert_true(n->found * 10000 >= n->gets * per_10000);
    /* The peers without an engine took part. */
    const struct old_peer *a = &c->nodes[c->cfg.boot].old, *b = &c->nodes[c->cfg.boot + 1].old;
    assert_true(a->asked[KAD_GET_VALUE] + a->asked[KAD_FIND_NODE] > 0);
    assert_true(b->asked[KAD_GET_VALUE] + b->asked[KAD_FIND_NODE] > 0);
    assert_true(a->asked[KAD_PUT_VALUE] + b->asked[KAD_PUT_VALUE] > 0 && a->n + b->n > 0);
}
