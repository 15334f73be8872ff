/*
 * What users do, and whether they get what they should.
 *
 * A publisher's value says who and which version it is, and the rest of its bytes follow from these
 * two, so that any value can be judged without keeping it. A get is judged between windows by the shard
 * of its target: against the versions that were acknowledged before it began. With a copy of an earlier
 * look-up the engine may answer for cache_fresh_ms; that much older is not stale.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cursor.h"
#include "base/err.h"
#include "simulator/fixed.h"
#include "simulator/users.h"

#define VALUE_HEAD 12 /* node, version, seed */

uint64_t load_default_ms(uint32_t given, uint32_t standard)
{
    return (given != 0 ? given : standard) * NS_PER_MS;
}

/* ---- values ---- */

static void make_value(const struct sim *s, uint8_t *out, uint32_t node, uint32_t version)
{
    uint64_t h = rng_mix(s->cfg.seed, (uint64_t)node << 32 | version);

    put_be32(out, node);
    put_be32(out + 4, version);
    put_be32(out + 8, (uint32_t)s->cfg.seed);
    for (uint32_t i = VALUE_HEAD; i < s->cfg.puts.bytes; i++)
        out[i] = (uint8_t)(h >> (8 * (i % 8))) ^ (uint8_t)(i >> 3);
}

bool load_read_value(const struct sim *s, const struct item *it, uint32_t node, uint32_t *version)
{
    uint8_t want[ITEM_MAX_VALUE];

    if (!pubkey_equal(&it->k, &s->keys[node].pk) || it->v_len != s->cfg.puts.bytes)
        return false;
    *version = get_be32(it->v + 4);
    make_value(s, want, node, *version);
    return memcmp(want, it->v, it->v_len) == 0;
}

/* ---- who publishes, and how popular it is ---- */

static int init_popularity(struct sim *s)
{
    uint64_t sum = 0;

    s->popularity = calloc(s->n_publishers + 1, sizeof *s->popularity);
    if (s->popularity == NULL)
        return ERR_NOMEM;
    for (uint32_t i = 0; i < s->n_publishers; i++) {
        sum += fixed_zipf_weight((uint64_t)i + 1, s->cfg.gets.zipf_milli) + 1;
        s->popularity[i] = sum;
    }
    return 0;
}

int load_init(struct sim *s)
{
    s->publishers = calloc(s->cfg.nodes, sizeof *s->publishers);
    if (s->publishers == NULL)
        return ERR_NOMEM;
    for (uint32_t i = 0; s->cfg.puts.every_ns > 0 && i < s->cfg.nodes; i++) {
        if (s->nodes[i].role == ROLE_HONEST &&
            draw_share(node_trait(s, i, TRAIT_PUBLISHES), s->cfg.puts.share_ppm))
            s->publishers[s->n_publishers++] = i;
    }
    return init_popularity(s);
}

uint32_t load_draw_target(const struct sim *s, uint64_t random)
{
    uint64_t at = rng_below(random, s->popularity[s->n_publishers - 1]);
    uint32_t lo = 0, hi = s->n_publishers - 1;

    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (s->popularity[mid] <= at)
            lo = mid + 1;
        else
            hi = mid;
    }
    return s->publishers[lo];
}

/* ---- operations ---- */

void load_put(struct sim_shard *sh, uint32_t node)
{
    struct sim *s = sh->sim;
    struct sim_node *n = &s->nodes[node];
    uint64_t every = s->cfg.puts.every_ns;
    uint8_t value[ITEM_MAX_VALUE];

    /* between half and one and a half times the mean: services re-register by a timer */
    node_schedule(sh, node, EV_PUT,
                  sh->now_ns + every / 2 + rng_below(node_draw(sh, node, RNG_LOAD), every + 1));
    if (n->kad == NULL)
        return;
    n->version++;
    if (s->put_ns != NULL)
        s->put_ns[node] = sh->now_ns;
    make_value(s, value, node, n->version);
    if (kad_put(n->kad, SIM_SALT, 3, value, s->cfg.puts.bytes, false, 0,
                (void *)(uintptr_t)(USER_PUT | n->version), sh->now_ns) == 0)
        sh->sum.puts_failed++;
    node_settle(sh, node);
}

static void get(struct sim_shard *sh, uint32_t node, uint32_t target)
{
    struct sim *s = sh->sim;
    unsigned flags =
        (s->cfg.gets.network ? KAD_GET_NETWORK : 0) | (s->cfg.gets.first ? KAD_GET_FIRST : 0);

    (void)kad_get(s->nodes[node].kad, &s->keys[target].pk, SIM_SALT, 3, flags,
                  (void *)(uintptr_t)(USER_GET | target), sh->now_ns);
    node_settle(sh, node);
}

void load_get(struct sim_shard *sh, uint32_t node)
{
    struct sim *s = sh->sim;
    uint64_t mean = churn_busiest(&s->cfg, s->cfg.gets.every_ns);

    node_schedule(sh, node, EV_GET,
                  sh->now_ns + 1 + fixed_exponential(node_draw(sh, node, RNG_LOAD), mean));
    if (s->nodes[node].kad == NULL || s->n_publishers == 0 || !churn_is_active(sh, node))
        return;
    get(sh, node, load_draw_target(s, node_draw(sh, node, RNG_LOAD)));
}

void load_flash(struct sim_shard *sh, uint32_t node)
{
    struct sim *s = sh->sim;

    if (s->nodes[node].kad != NULL && s->n_publishers > 0)
        get(sh, node, s->publishers[s->n_publishers - 1]);
}

/* Every time another slot, as big as other users' values. */
void load_flood(struct sim_shard *sh, uint32_t node)
{
    struct sim *s = sh->sim;
    struct sim_node *n = &s->nodes[node];
    uint8_t value[ITEM_MAX_VALUE] = {0}, salt[8] = "flood";

    node_schedule(
        sh, node, EV_FLOOD,
        sh->now_ns + 1 +
            fixed_exponential(node_draw(sh, node, RNG_LOAD), s->cfg.attack.flood_every_ns));
    if (n->kad == NULL)
        return;
    n->version++;
    put_be32(salt + 4, n->version);
    (void)kad_put(n->kad, salt, sizeof salt, value, s->cfg.puts.bytes, false, 0,
                  (void *)(uintptr_t)USER_FLOOD, sh->now_ns);
    node_settle(sh, node);
}

/* ---- results ---- */

static void put_done(struct sim_shard *sh, uint32_t node, const struct kad_report *r)
{
    struct sim_node *n = &sh->sim->nodes[node];

    if (r->err == ERR_CANCELLED)
        return;
    if (r->err != 0 || r->stored == 0) {
        sh->sum.puts_failed++;
        return;
    }
    sh->sum.puts_ok++;
    hist_add(&sh->put_us, (r->ended_ns - r->started_ns) / NS_PER_US);
    memmove(&n->acks[1], &n->acks[0], (SIM_ACKS - 1) * sizeof n->acks[0]);
    n->acks[0] = (struct sim_ack){sh->now_ns, (uint32_t)(uintptr_t)r->user};
}

void load_post_check(struct sim_shard *sh, const struct sim_check *c)
{
    unsigned to = c->target % sh->sim->shards;

    if (to == sh->id) {
        load_check(sh, c);
        return;
    }
    struct sim_check *copy = sim_must(malloc(sizeof *copy));
    *copy = *c;
    struct sim_event ev = {.at_ns = sh->now_ns, .data = (uintptr_t)copy, .type = EV_CHECK & 0xfu};
    if (exchange_send(sh->sim->exchange, sh->id, to, &ev) != 0)
        abort();
}

static void get_done(struct sim_shard *sh, const struct kad_report *r)
{
    struct sim_check c = {.started_ns = r->started_ns,
                          .took_ns = r->ended_ns - r->started_ns,
                          .target = (uint32_t)(uintptr_t)r->user,
                          .hops = r->hops,
                          .asked = r->asked,
                          .local = r->source == KAD_SRC_LOCAL};

    sh->sum.answers_rejected += r->rejected_items;
    c.found = r->err == 0 && r->item != NULL;
    c.wrong = c.found && !load_read_value(sh->sim, &r->item->item, c.target, &c.version);
    load_post_check(sh, &c);
}

void load_check(struct sim_shard *sh, const struct sim_check *c)
{
    if (sh->n_checks == sh->cap_checks) {
        sh->cap_checks = sh->cap_checks > 0 ? 2 * sh->cap_checks : 256;
        sh->checks = sim_must(realloc(sh->checks, sh->cap_checks * sizeof *sh->checks));
    }
    sh->checks[sh->n_checks++] = *c;
}

void load_done(struct sim_shard *sh, uint32_t node, const struct kad_report *r)
{
    uint64_t user = (uintptr_t)r->user;

    if (user & USER_FLOOD)
        sh->sum.floods += r->err == 0 && r->stored > 0;
    else if (user & USER_PUT)
        put_done(sh, node, r);
    else if (user & USER_GET)
        get_done(sh, r);
    else if (user & USER_REC_PUT)
        records_put_done(sh, node, r);
    else if (user & USER_REC_GET)
        records_get_done(sh, node, r);
    else if (user & USER_WATCH)
        watches_told(sh, node, r);
}

/* ---- judging ---- */

uint32_t load_acknowledged(const struct sim *s, uint32_t node, uint64_t before_ns)
{
    const struct sim_node *n = &s->nodes[node];
    uint64_t ttl = load_default_ms(s->cfg.kad.ttl_ms, 7200000);

    for (unsigned i = 0; i < SIM_ACKS; i++) {
        if (n->acks[i].version != 0 && n->acks[i].at_ns <= before_ns)
            return before_ns - n->acks[i].at_ns < ttl ? n->acks[i].version : 0;
    }
    return 0;
}

void load_settle(struct sim_shard *sh, const struct sim_check *c, uint32_t must, uint32_t oldest)
{
    if (must == 0) {
        sh->sum.gets_unpublished++;
        return;
    }
    sh->sum.gets++;
    if (!c->found) {
        sh->sum.gets_failed++;
        return;
    }
    sh->sum.gets_ok++;
    sh->sum.gets_local += c->local;
    sh->sum.stale += c->version < oldest;
    bool by_http = c->kind == CHECK_RECORD && !c->by_dht;
    hist_add(by_http ? &sh->http_us : &sh->get_us, c->took_ns / NS_PER_US);
    if (!c->local && !by_http) {
        hist_add(&sh->get_hops, c->hops);
        hist_add(&sh->get_asked, c->asked);
    }
}

static void judge(struct sim_shard *sh, const struct sim_check *c)
{
    const struct sim *s = sh->sim;
    uint64_t grace = c->local ? load_default_ms(s->cfg.kad.cache_fresh_ms, 300000) : 0;
    uint32_t must = load_acknowledged(s, c->target, c->started_ns);
    bool victim = must != 0 && s->cfg.attack.eclipse > 0 && c->target == s->publishers[0];

    sh->sum.wrong += c->wrong || c->version > s->nodes[c->target].version;
    sh->sum.victim_ok += victim && c->found;
    sh->sum.victim_failed += victim && !c->found;
    uint32_t oldest = grace > 0 ? load_acknowledged(s, c->target, c->started_ns - grace) : must;
    sh->sum.victim_stale += victim && c->found && c->version < oldest;
    load_settle(sh, c, must, oldest);
}

void load_judge(struct sim_shard *sh)
{
    for (size_t i = 0; i < sh->n_checks; i++) {
        if (sh->checks[i].kind == CHECK_GET)
            judge(sh, &sh->checks[i]);
        else if (sh->checks[i].kind == CHECK_RECORD)
            records_judge(sh, &sh->checks[i]);
        else
            watches_judge(sh, &sh->checks[i]);
    }
    sh->n_checks = 0;
}
