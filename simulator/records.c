/*
 * Records: what a visor tells the others about itself beside plain entries (load.c): its discovery
 * entry, its list of transports (in chunks), its services, its addresses. Each has a version that goes
 * up when something changes, and a value that follows from node and version: lists are written by
 * kademlia/records, as the node writes them. Records are published again and again (beat), changed, and
 * read by others at random. Where that goes, to the DHT or to HTTP services, transition.c says.
 *
 * A read is judged by the shard of its subject: what came by HTTP says its version, what came by the DHT
 * must be byte for byte the value of a version of late.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cursor.h"
#include "base/err.h"
#include "kademlia/records/svc.h"
#include "kademlia/records/tp_chunks.h"
#include "kademlia/records/visor_addr.h"
#include "simulator/fixed.h"
#include "simulator/users.h"

#define OF_LATE     16 /* versions that a value may be of */
#define GRACE_NS    (60 * NS_PER_S)
#define DRAWS       16 /* for a subject that has such a record */
#define CHUNK_SHIFT 44
#define KIND_SHIFT  40

struct record {
    uint32_t version;
    struct sim_ack acks[SIM_ACKS]; /* latest first */
    uint64_t live_ns;              /* acknowledged last, in whatever version */
    uint64_t pushed_ns;            /* by its relay to HTTP */
    uint32_t putting;              /* version under way into the DHT */
    uint8_t chunks_left, dht_life; /* dht_life: life + 1 in which it was put */
    bool put_failed;
};

static struct record *state_of(const struct sim *s, uint32_t node, enum sim_record kind)
{
    return &s->records[(size_t)node * SIM_REC__COUNT + kind];
}

static const char *salt_of(char out[TP_SALT_MAX + 8], enum sim_record kind, unsigned chunk)
{
    switch (kind) {
    case SIM_REC_ENTRY:
        return "dmsg";
    case SIM_REC_TP:
        return tp_salt(out, chunk);
    case SIM_REC_SVC:
        return "svc";
    case SIM_REC_ADDR:
    case SIM_REC__COUNT:
        break;
    }
    return "addr:stcpr";
}

bool records_has(const struct sim *s, uint32_t node, enum sim_record kind)
{
    const struct sim_record_cfg *c = &s->cfg.record[kind];

    return (c->every_ns > 0 || c->change_ns > 0) && s->nodes[node].role == ROLE_HONEST &&
           draw_share(node_trait(s, node, TRAIT_RECORD + kind), c->share_ppm);
}

static unsigned chunks_of(const struct sim *s, enum sim_record kind)
{
    uint32_t rows = s->cfg.record[kind].count;

    return kind == SIM_REC_TP && rows > 0 ? (rows + TP_CHUNK_SIZE - 1) / TP_CHUNK_SIZE : 1;
}

/* ---- values ---- */

static size_t copy_text(uint8_t *out, const char *text, size_t n)
{
    if (n > ITEM_MAX_VALUE)
        abort(); /* a scenario's counts are below that */
    memcpy(out, text, n);
    return n;
}

static size_t entry_value(const struct sim *s, uint8_t *out, uint32_t node, uint32_t version)
{
    uint64_t h = rng_mix(s->cfg.seed ^ 1, (uint64_t)node << 32 | version);

    for (uint32_t i = 0; i < s->cfg.puts.bytes; i++)
        out[i] = (uint8_t)(h >> (8 * (i % 8))) ^ (uint8_t)(i >> 3);
    return s->cfg.puts.bytes;
}

/* With each version one of the transports goes to somebody else. */
static void make_transport(const struct sim *s, struct tp_entry *e, uint32_t node, uint32_t i,
                           uint32_t version)
{
    static const char *const types[] = {"stcpr", "sudph", "dmsg"};
    uint32_t n = s->cfg.record[SIM_REC_TP].count, turn = (version + n - 1 - i) / n;
    uint64_t h = rng_mix(s->cfg.seed ^ node, (uint64_t)i << 32 | turn);
    uint32_t peer = (uint32_t)(h % s->cfg.nodes);
    const struct pubkey *a = &s->keys[node].pk, *b = &s->keys[peer].pk;
    bool in_order = memcmp(a, b, sizeof *a) <= 0;

    memset(e, 0, sizeof *e);
    strcpy(e->type, types[i % 3]);
    strcpy(e->label, "automatic");
    e->id = tp_id_of(a, b, e->type);
    e->edges[0] = in_order ? *a : *b;
    e->edges[1] = in_order ? *b : *a;
}

static size_t tp_value(const struct sim *s, uint8_t *out, uint32_t node, unsigned chunk,
                       uint32_t version)
{
    uint32_t all = s->cfg.record[SIM_REC_TP].count, first = chunk * TP_CHUNK_SIZE;
    struct tp_list l = {.n = all - first < TP_CHUNK_SIZE ? all - first : TP_CHUNK_SIZE};
    struct tp_chunks c;

    l.e = sim_must(calloc(l.n + 1, sizeof *l.e));
    for (uint32_t i = 0; i < l.n; i++)
        make_transport(s, &l.e[i], node, first + i, version);
    if (tp_split(&c, &l, 0) != 0)
        abort();
    size_t n = copy_text(out, c.v[0].text, c.v[0].n);
    tp_chunks_free(&c);
    free(l.e);
    return n;
}

static size_t svc_value(const struct sim *s, uint8_t *out, uint32_t node, uint32_t version)
{
    static const char *const types[] = {"vpn", "proxy", "visor"};
    uint32_t count = s->cfg.record[SIM_REC_SVC].count;
    struct svc *e = sim_must(calloc(count + 1, sizeof *e));
    char *text;
    size_t n;

    for (uint32_t i = 0; i < count; i++) {
        e[i].pk = s->keys[node].pk;
        e[i].port = (uint16_t)(3 + i);
        strcpy(e[i].type, types[i % 3]);
        snprintf(e[i].version, sizeof e[i].version, "v1.3.%u", version);
    }
    if (svc_encode(&text, &n, e, count) != 0)
        abort();
    n = copy_text(out, text, n);
    free(text);
    free(e);
    return n;
}

static size_t addr_value(uint8_t *out, uint32_t node, uint32_t version)
{
    struct visor_addr a = {.n_addresses = 1};
    char text[VISOR_ADDR_MAX_TEXT];
    size_t n;

    snprintf(a.remote_addr, sizeof a.remote_addr, "10.%u.%u.%u", node >> 16 & 255, node >> 8 & 255,
             node & 255);
    strcpy(a.addresses[0], a.remote_addr);
    snprintf(a.port, sizeof a.port, "%u", 1024 + version % 60000);
    if (visor_addr_encode(text, sizeof text, &n, &a) != 0)
        abort();
    return copy_text(out, text, n);
}

/* out: ITEM_MAX_VALUE bytes. Returns how many there are. */
static size_t make_value(const struct sim *s, uint8_t *out, uint32_t node, enum sim_record kind,
                         unsigned chunk, uint32_t version)
{
    switch (kind) {
    case SIM_REC_ENTRY:
        return entry_value(s, out, node, version);
    case SIM_REC_TP:
        return tp_value(s, out, node, chunk, version);
    case SIM_REC_SVC:
        return svc_value(s, out, node, version);
    case SIM_REC_ADDR:
    case SIM_REC__COUNT:
        break;
    }
    return addr_value(out, node, version);
}

static uint64_t hash_of(const uint8_t *v, size_t n)
{
    uint64_t h = n;

    for (; n >= 8; n -= 8, v += 8)
        h = rng_mix(h, get_be64(v));
    for (; n > 0; n--, v++)
        h = rng_mix(h, *v);
    return h;
}

size_t records_item(const struct sim *s, struct item *out, uint8_t *value, uint32_t subject,
                    enum sim_record kind, uint32_t version)
{
    char salt[TP_SALT_MAX + 8];
    const char *text = salt_of(salt, kind, 0);

    memset(out, 0, sizeof *out);
    out->v = value;
    out->v_len = make_value(s, value, subject, kind, 0, version);
    /* kinds with more than one chunk are not mirrored: the text is constant */
    out->salt = (const uint8_t *)(kind == SIM_REC_TP ? "tp" : text);
    out->salt_len = strlen((const char *)out->salt);
    return out->v_len;
}

/* ---- life ---- */

int records_init(struct sim *s)
{
    bool any = false;

    for (unsigned k = 0; k < SIM_REC__COUNT; k++)
        any |= s->cfg.record[k].every_ns > 0 || s->cfg.record[k].change_ns > 0;
    if (!any)
        return 0;
    s->records = calloc((size_t)s->cfg.nodes * SIM_REC__COUNT, sizeof *s->records);
    return s->records != NULL ? 0 : ERR_NOMEM;
}

void records_free(struct sim *s)
{
    free(s->records);
}

static void schedule(struct sim_shard *sh, uint32_t node, enum user_task task, unsigned kind,
                     uint64_t at_ns)
{
    node_schedule_task(sh, node, (uint32_t)task | kind << USER_KIND_SHIFT, at_ns);
}

void records_schedule(struct sim_shard *sh, uint32_t node)
{
    const struct sim *s = sh->sim;
    uint64_t start = SIM_EPOCH_NS + s->cfg.records_start_ns;

    for (unsigned k = 0; s->records != NULL && k < SIM_REC__COUNT; k++) {
        const struct sim_record_cfg *c = &s->cfg.record[k];
        uint64_t first = c->every_ns > 0 ? c->every_ns : 60 * NS_PER_S;
        if (records_has(s, node, (enum sim_record)k)) {
            schedule(sh, node, TASK_BEAT, k,
                     start + rng_below(node_draw(sh, node, RNG_LOAD), first));
            if (c->change_ns > 0)
                schedule(sh, node, TASK_CHANGE, k,
                         start + first +
                             fixed_exponential(node_draw(sh, node, RNG_LOAD), c->change_ns));
        }
        if (c->read_ns > 0 && s->nodes[node].role == ROLE_HONEST)
            schedule(sh, node, TASK_READ, k,
                     start + 2 * first +
                         fixed_exponential(node_draw(sh, node, RNG_LOAD), c->read_ns));
    }
}

/* ---- writing ---- */

static void acknowledge(struct record *r, uint32_t version, uint64_t now_ns)
{
    r->live_ns = now_ns;
    if (version <= r->acks[0].version)
        return;
    memmove(&r->acks[1], &r->acks[0], (SIM_ACKS - 1) * sizeof r->acks[0]);
    r->acks[0] = (struct sim_ack){now_ns, version};
}

static void put_chunk(struct sim_shard *sh, uint32_t node, enum sim_record kind, unsigned chunk)
{
    struct sim *s = sh->sim;
    struct record *r = state_of(s, node, kind);
    uint8_t value[ITEM_MAX_VALUE];
    char room[TP_SALT_MAX + 8];
    const char *salt = salt_of(room, kind, chunk);
    uint64_t user = USER_REC_PUT | (uint64_t)kind << KIND_SHIFT | r->version;
    size_t n = make_value(s, value, node, kind, chunk, r->version);

    if (kad_put(s->nodes[node].kad, salt, strlen(salt), value, n, false, 0, (void *)(uintptr_t)user,
                sh->now_ns) == 0) {
        r->chunks_left--;
        r->put_failed = true;
        sh->sum.puts_failed++;
    }
}

static void put_to_dht(struct sim_shard *sh, uint32_t node, enum sim_record kind)
{
    struct record *r = state_of(sh->sim, node, kind);
    unsigned chunks = chunks_of(sh->sim, kind);

    r->putting = r->version;
    r->chunks_left = (uint8_t)chunks;
    r->put_failed = false;
    for (unsigned i = 0; i < chunks; i++)
        put_chunk(sh, node, kind, i);
    node_settle(sh, node);
}

static bool is_in_dht(const struct sim *s, uint32_t node, const struct record *r)
{
    return r->dht_life == s->nodes[node].life + 1u;
}

/* Those who may not write to the DHT are told by their relay: it has seen the put. */
static void tell_http(struct sim_shard *sh, uint32_t node, enum sim_record kind, unsigned phase)
{
    struct record *r = state_of(sh->sim, node, kind);

    if (phase == 0)
        return;
    r->pushed_ns = sh->now_ns;
    http_send(sh, node, phase < 4 ? HTTP_PUSH : HTTP_OBSERVE, kind, node, r->version, sh->now_ns);
}

static void publish(struct sim_shard *sh, uint32_t node, enum sim_record kind, bool changed)
{
    struct sim *s = sh->sim;
    struct record *r = state_of(s, node, kind);
    unsigned phase = transition_phase(s, sh->now_ns);
    bool modern = transition_is_new(s, node, sh->now_ns);

    if (phase > 0 && (!modern || phase < 3)) {
        http_send(sh, node, HTTP_POST, kind, node, r->version, sh->now_ns);
        return;
    }
    if (phase == 0 || changed || !is_in_dht(s, node, r)) {
        put_to_dht(sh, node, kind);
        return;
    }
    r->live_ns = sh->now_ns; /* the engine puts it again by itself */
    if (sh->now_ns - r->pushed_ns >= s->cfg.http.push_every_ns)
        tell_http(sh, node, kind, phase);
}

static bool is_present(const struct sim_shard *sh, uint32_t node)
{
    return sh->sim->nodes[node].kad != NULL || !transition_is_new(sh->sim, node, sh->now_ns);
}

void records_beat(struct sim_shard *sh, uint32_t node, enum sim_record kind)
{
    struct record *r = state_of(sh->sim, node, kind);
    uint64_t every = sh->sim->cfg.record[kind].every_ns;

    if (every == 0 && !is_present(sh, node))
        every = 30 * NS_PER_S; /* it has to be published once */
    if (every > 0)
        schedule(sh, node, TASK_BEAT, kind,
                 sh->now_ns + every - every / 20 +
                     rng_below(node_draw(sh, node, RNG_LOAD), every / 10 + 1));
    if (!is_present(sh, node))
        return;
    if (r->version == 0)
        r->version = 1;
    publish(sh, node, kind, false);
}

void records_change(struct sim_shard *sh, uint32_t node, enum sim_record kind)
{
    struct record *r = state_of(sh->sim, node, kind);

    schedule(
        sh, node, TASK_CHANGE, kind,
        sh->now_ns + 1 +
            fixed_exponential(node_draw(sh, node, RNG_LOAD), sh->sim->cfg.record[kind].change_ns));
    if (r->version == 0 || !is_present(sh, node))
        return;
    r->version++;
    sh->sum.changes++;
    publish(sh, node, kind, true);
}

void records_put_done(struct sim_shard *sh, uint32_t node, const struct kad_report *rep)
{
    uint64_t user = (uintptr_t)rep->user;
    enum sim_record kind = (enum sim_record)(user >> KIND_SHIFT & 15);
    struct record *r = state_of(sh->sim, node, kind);
    bool good = rep->err == 0 && rep->stored > 0;

    if (rep->err == ERR_CANCELLED)
        return; /* a newer one of the same slot */
    sh->sum.puts_ok += good;
    sh->sum.puts_failed += !good;
    if (good)
        hist_add(&sh->put_us, (rep->ended_ns - rep->started_ns) / NS_PER_US);
    if ((uint32_t)user != r->putting || r->chunks_left == 0)
        return;
    r->put_failed |= !good;
    if (--r->chunks_left > 0 || r->put_failed)
        return;
    r->dht_life = (uint8_t)(sh->sim->nodes[node].life + 1);
    acknowledge(r, r->putting, sh->now_ns);
    tell_http(sh, node, kind, transition_phase(sh->sim, sh->now_ns));
}

void records_posted(struct sim_shard *sh, uint32_t node, enum sim_record kind, uint32_t version)
{
    acknowledge(state_of(sh->sim, node, kind), version, sh->now_ns);
}

void records_push_failed(struct sim_shard *sh, uint32_t node, enum sim_record kind)
{
    state_of(sh->sim, node, kind)->pushed_ns = 0;
}

/* ---- reading ---- */

static bool draw_subject(struct sim_shard *sh, uint32_t node, enum sim_record kind, uint32_t *out)
{
    for (unsigned i = 0; i < DRAWS; i++) {
        *out = (uint32_t)rng_below(node_draw(sh, node, RNG_LOAD), sh->sim->cfg.nodes);
        if (*out != node && records_has(sh->sim, *out, kind))
            return true;
    }
    return false;
}

static void get_chunk(struct sim_shard *sh, uint32_t node, enum sim_record kind, uint32_t subject,
                      unsigned chunk)
{
    struct sim *s = sh->sim;
    char room[TP_SALT_MAX + 8];
    const char *salt = salt_of(room, kind, chunk);
    uint64_t user =
        USER_REC_GET | (uint64_t)kind << KIND_SHIFT | (uint64_t)chunk << CHUNK_SHIFT | subject;

    (void)kad_get(s->nodes[node].kad, &s->keys[subject].pk, salt, strlen(salt),
                  s->cfg.gets.network ? KAD_GET_NETWORK : 0, (void *)(uintptr_t)user, sh->now_ns);
}

void records_read(struct sim_shard *sh, uint32_t node, enum sim_record kind)
{
    struct sim *s = sh->sim;
    unsigned phase = transition_phase(s, sh->now_ns);
    uint32_t subject;

    schedule(sh, node, TASK_READ, kind,
             sh->now_ns + 1 +
                 fixed_exponential(node_draw(sh, node, RNG_LOAD), s->cfg.record[kind].read_ns));
    if (!is_present(sh, node) || !draw_subject(sh, node, kind, &subject))
        return;
    if (phase == 0 || (phase >= 2 && transition_is_new(s, node, sh->now_ns))) {
        get_chunk(sh, node, kind, subject, 0);
        node_settle(sh, node);
    } else {
        http_send(sh, node, HTTP_GET, kind, subject, 0, sh->now_ns);
    }
}

void records_get_done(struct sim_shard *sh, uint32_t node, const struct kad_report *rep)
{
    uint64_t user = (uintptr_t)rep->user;
    enum sim_record kind = (enum sim_record)(user >> KIND_SHIFT & 15);
    unsigned chunk = user >> CHUNK_SHIFT & 255, phase = transition_phase(sh->sim, sh->now_ns);
    struct sim_check c = {.kind = CHECK_RECORD,
                          .record = (uint8_t)kind,
                          .chunk = (uint8_t)chunk,
                          .by_dht = true,
                          .started_ns = rep->started_ns,
                          .took_ns = rep->ended_ns - rep->started_ns,
                          .target = (uint32_t)user,
                          .hops = rep->hops,
                          .asked = rep->asked,
                          .local = rep->source == KAD_SRC_LOCAL};

    sh->sum.answers_rejected += rep->rejected_items;
    c.found = rep->err == 0 && rep->item != NULL;
    if (!c.found && (phase == 2 || phase == 3)) {
        sh->sum.http_fallback++;
        http_send(sh, node, HTTP_GET, kind, c.target, 0, rep->started_ns);
        return;
    }
    if (c.found)
        c.hash = hash_of(rep->item->item.v, rep->item->item.v_len);
    load_post_check(sh, &c);
    if (c.found && chunk + 1 < chunks_of(sh->sim, kind))
        get_chunk(sh, node, kind, c.target, chunk + 1);
}

void records_got_http(struct sim_shard *sh, const struct sim_http *h)
{
    struct sim_check c = {.kind = CHECK_RECORD,
                          .record = h->record,
                          .started_ns = h->started_ns,
                          .took_ns = sh->now_ns - h->started_ns,
                          .target = h->subject,
                          .version = h->version,
                          .found = h->version != 0};

    load_post_check(sh, &c);
}

/* ---- judging ---- */

/* The version of late that this is the value of; 0: of none. */
static uint32_t version_of(const struct sim *s, const struct sim_check *c, uint32_t newest)
{
    uint8_t value[ITEM_MAX_VALUE];

    for (uint32_t v = newest; v > 0 && v + OF_LATE > newest; v--) {
        size_t n = make_value(s, value, c->target, (enum sim_record)c->record, c->chunk, v);
        if (hash_of(value, n) == c->hash)
            return v;
    }
    return 0;
}

static uint32_t acknowledged(const struct sim *s, const struct record *r, uint64_t before_ns)
{
    uint64_t ttl =
        s->cfg.http.phase > 0 ? s->cfg.http.ttl_ns : load_default_ms(s->cfg.kad.ttl_ms, 7200000);

    if (r->live_ns + ttl <= before_ns)
        return 0;
    for (unsigned i = 0; i < SIM_ACKS; i++) {
        if (r->acks[i].version != 0 && r->acks[i].at_ns <= before_ns)
            return r->acks[i].version;
    }
    return 0;
}

void records_judge(struct sim_shard *sh, struct sim_check *c)
{
    const struct sim *s = sh->sim;
    const struct record *r = state_of(s, c->target, (enum sim_record)c->record);
    uint64_t late = GRACE_NS + (c->local ? load_default_ms(s->cfg.kad.cache_fresh_ms, 300000) : 0);
    uint64_t before = c->started_ns > late ? c->started_ns - late : 0;

    if (c->by_dht && c->found) {
        c->version = version_of(s, c, r->version);
        c->wrong = c->version == 0;
    }
    c->wrong |= c->version > r->version;
    sh->sum.wrong += c->wrong;
    sh->sum.reads_dht += c->by_dht;
    sh->sum.reads_http += !c->by_dht;
    load_settle(sh, c, acknowledged(s, r, c->started_ns), acknowledged(s, r, before));
}
