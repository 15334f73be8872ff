/*
 * The HTTP services: one for each kind of record. A request reaches its service after one latency,
 * waits for a core, takes the CPU that such a request was measured to take, and is answered; behind a
 * queue of http.queue it is refused. What was registered is kept for http.ttl (what relays push: as
 * long as it would be in the DHT), and mirrored into the DHT when it is new, or was last an hour ago, by
 * a bootstrap node whose key everybody trusts for that.
 */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "simulator/fixed.h"
#include "simulator/users.h"

#define OBSERVE_NS UINT64_C(45000) /* verify what came through the DHT */

struct slot {
    uint32_t version, mirrored;
    uint64_t until_ns, mirrored_ns;
};

struct service {
    uint64_t busy_ns[SIM_CORES_MAX]; /* until when a core has work */
    uint64_t digest;
    uint32_t next_seq, draws;
    struct slot *slots; /* where its shard is */
};

static uint32_t number_of(const struct sim *s, unsigned kind)
{
    return s->cfg.nodes + s->cfg.relays.count + kind;
}

static bool is_here(const struct sim *s, unsigned kind)
{
    unsigned shard = kind % s->shards;

    return shard >= s->first && shard - s->first < s->locals;
}

int services_init(struct sim *s)
{
    if (s->cfg.http.phase == 0)
        return 0;
    s->services = calloc(SIM_REC__COUNT, sizeof *s->services);
    if (s->services == NULL)
        return ERR_NOMEM;
    for (unsigned k = 0; k < SIM_REC__COUNT; k++) {
        if (!is_here(s, k))
            continue;
        s->services[k].slots = calloc(s->cfg.nodes, sizeof(struct slot));
        if (s->services[k].slots == NULL)
            return ERR_NOMEM;
    }
    return 0;
}

void services_free(struct sim *s)
{
    for (unsigned k = 0; s->services != NULL && k < SIM_REC__COUNT; k++)
        free(s->services[k].slots);
    free(s->services);
}

uint64_t services_digest(const struct sim *s, unsigned kind)
{
    return s->services[kind].digest;
}

/* ---- asking ---- */

void http_send(struct sim_shard *sh, uint32_t node, enum http_op op, enum sim_record kind,
               uint32_t subject, uint32_t version, uint64_t started_ns)
{
    struct sim *s = sh->sim;
    struct sim_node *n = &s->nodes[node];
    struct rng_block b = rng_at(s->cfg.seed, node, RNG_NET, n->draws[RNG_NET]++);
    uint64_t once = latency_of(s, node, number_of(s, kind));
    struct sim_msg *m = wire_new(node, node, MSG_HTTP);

    m->life = n->life;
    m->http = (struct sim_http){.started_ns = started_ns,
                                .subject = subject,
                                .version = version,
                                .record = (uint8_t)kind,
                                .op = (uint8_t)op};
    struct sim_event ev = {
        .at_ns = sh->now_ns + once +
                 rng_below((uint64_t)b.w[1] << 32, fixed_ppm(once, s->cfg.net.jitter_ppm) + 1),
        .data = (uintptr_t)m,
        .src = node,
        .seq = n->next_seq++,
        .dst = number_of(s, kind) & 0xfffffffu,
        .type = EV_HTTP};
    wire_post(sh, &ev);
}

/* ---- serving ---- */

static void post_to_node(struct sim_shard *sh, unsigned kind, struct sim_msg *m, uint64_t at_ns)
{
    struct sim *s = sh->sim;
    struct service *v = &s->services[kind];
    uint32_t draw = rng_at(s->cfg.seed, number_of(s, kind), RNG_NET, v->draws++).w[0];
    uint64_t once = latency_of(s, number_of(s, kind), m->to);
    struct sim_event ev = {
        .at_ns = at_ns + once +
                 rng_below((uint64_t)draw << 32, fixed_ppm(once, s->cfg.net.jitter_ppm) + 1),
        .data = (uintptr_t)m,
        .src = number_of(s, kind),
        .seq = v->next_seq++,
        .dst = m->to & 0xfffffffu,
        .type = EV_MSG};

    wire_post(sh, &ev);
}

static void mirror(struct sim_shard *sh, const struct sim_http *h, uint64_t at_ns)
{
    uint32_t to = h->record % sh->sim->cfg.join.bootstrap;
    struct sim_msg *m = wire_new(to, to, MSG_MIRROR);

    m->http = *h;
    sh->sum.http_mirrored++;
    post_to_node(sh, h->record, m, at_ns);
}

/* A core that has time first. UINT64_MAX: none within what a request may wait. */
static uint64_t take_core(const struct sim *s, struct service *v, uint64_t now_ns, uint64_t work_ns)
{
    uint64_t *core = &v->busy_ns[0];

    for (uint32_t i = 1; i < s->cfg.http.cores; i++)
        core = v->busy_ns[i] < *core ? &v->busy_ns[i] : core;
    uint64_t begin = *core > now_ns ? *core : now_ns;
    if (begin - now_ns > s->cfg.http.queue_ns)
        return UINT64_MAX;
    *core = begin + work_ns;
    return *core;
}

static uint64_t work_of(const struct sim_cfg *c, const struct sim_http *h, bool mirrors)
{
    uint64_t mirroring = mirrors ? c->http.mirror_ns : 0;

    switch ((enum http_op)h->op) {
    case HTTP_GET:
        return c->http.get_ns;
    case HTTP_POST:
    case HTTP_PUSH:
        return c->http.post_ns + mirroring;
    case HTTP_OBSERVE:
        break;
    }
    return OBSERVE_NS;
}

static void take(const struct sim *s, struct slot *slot, const struct sim_http *h, uint64_t now_ns)
{
    uint64_t ttl =
        h->op == HTTP_POST ? s->cfg.http.ttl_ns : load_default_ms(s->cfg.kad.ttl_ms, 7200000);

    if (h->version >= slot->version || now_ns >= slot->until_ns) {
        slot->version = h->version;
        slot->until_ns = now_ns + ttl;
    }
}

static void serve(struct sim_shard *sh, struct sim_msg *m, uint64_t done_ns)
{
    const struct sim *s = sh->sim;
    struct sim_http *h = &m->http;
    struct slot *slot = &s->services[h->record].slots[h->subject];

    if (h->op == HTTP_GET)
        h->version = slot->version != 0 && done_ns < slot->until_ns ? slot->version : 0;
    else
        take(s, slot, h, done_ns);
    h->ok = true;
}

static bool is_to_mirror(const struct sim *s, const struct sim_http *h, uint64_t now_ns)
{
    const struct slot *slot = &s->services[h->record].slots[h->subject];

    return h->op == HTTP_POST && (slot->mirrored != h->version ||
                                  now_ns - slot->mirrored_ns >= s->cfg.http.mirror_every_ns);
}

static void count(struct sim_shard *sh, const struct sim_http *h, uint64_t work_ns)
{
    sh->sum.http += h->op != HTTP_OBSERVE;
    sh->sum.http_gets += h->op == HTTP_GET;
    sh->sum.http_posts += h->op == HTTP_POST;
    sh->sum.http_pushes += h->op == HTTP_PUSH;
    sh->sum.http_cpu_ns += work_ns;
    if (h->op == HTTP_POST && h->record == SIM_REC_TP)
        sh->sum.http_registered += sh->sim->cfg.record[SIM_REC_TP].count;
}

void services_event(struct sim_shard *sh, const struct sim_event *ev)
{
    struct sim *s = sh->sim;
    struct sim_msg *m = (struct sim_msg *)(uintptr_t)ev->data;
    struct service *v = &s->services[m->http.record];
    struct slot *slot = &v->slots[m->http.subject];

    v->digest = rng_mix(v->digest ^ ev->at_ns, (uint64_t)ev->src << 32 | ev->seq);
    sh->sum.others++;
    bool mirrors = is_to_mirror(s, &m->http, ev->at_ns);
    uint64_t work = work_of(&s->cfg, &m->http, mirrors);
    bool down = transition_is_down(s, ev->at_ns);
    uint64_t done = down ? UINT64_MAX : take_core(s, v, ev->at_ns, work);
    if (done == UINT64_MAX) {
        sh->sum.http_refused++;
        m->http.version = m->http.op == HTTP_GET ? 0 : m->http.version;
        post_to_node(sh, m->http.record, m, ev->at_ns);
        return;
    }
    count(sh, &m->http, work);
    serve(sh, m, done);
    if (mirrors) {
        slot->mirrored = m->http.version;
        slot->mirrored_ns = ev->at_ns;
        mirror(sh, &m->http, done);
    }
    post_to_node(sh, m->http.record, m, done);
}

/* ---- at the node ---- */

void http_answered(struct sim_shard *sh, uint32_t node, const struct sim_msg *m)
{
    const struct sim_http *h = &m->http;

    if (h->op == HTTP_GET && sh->sim->nodes[node].life == m->life)
        records_got_http(sh, h);
    else if (h->op == HTTP_POST && h->ok)
        records_posted(sh, node, (enum sim_record)h->record, h->version);
    else if (h->op != HTTP_POST && !h->ok)
        records_push_failed(sh, node, (enum sim_record)h->record);
}

void http_mirror(struct sim_shard *sh, uint32_t node, const struct sim_http *h)
{
    struct sim *s = sh->sim;
    char salt[16];
    uint8_t value[ITEM_MAX_VALUE];
    struct item it;

    if (s->nodes[node].kad == NULL)
        return;
    records_item(s, &it, value, h->subject, (enum sim_record)h->record, h->version);
    memcpy(salt, it.salt, it.salt_len);
    struct kad_id target = kad_target(&s->keys[h->subject].pk, salt, it.salt_len);
    it.k = s->keys[node].pk;
    it.seq = (uint64_t)SIM_WALL_NS + sh->now_ns;
    simenv_sign(sh, node, &it);
    (void)kad_put_signed(s->nodes[node].kad, &it, &target, (void *)(uintptr_t)USER_MIRROR,
                         sh->now_ns);
    node_settle(sh, node);
}
