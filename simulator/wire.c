/*
 * The way of a message. Without relays: one event at the other node. With relays: one event at each
 * relay on the way (that of the sender, then that of the receiver, or the one they share), which adds
 * its queue and its work, then one at the node. Every leg takes at least the floor, so what leaves a
 * shard arrives in a later window.
 */
#include <stdlib.h>

#include "kademlia/codec_json.h"
#include "kademlia/codec_msgpack.h"
#include "simulator/fixed.h"
#include "simulator/world.h"

#define NO_RELAY      UINT32_MAX
#define FRAME_HEAD    5    /* length and method */
#define BYTES_FRAME   40u  /* estimated: frame, names, stream overhead */
#define BYTES_SENDER  230u /* sender_id and sender_pk */
#define BYTES_TARGET  130u
#define BYTES_CONTACT 290u
#define BYTES_RANGE   5u /* native dialect */
#define BYTES_ENTRY   44u
#define BYTES_PART    20u

void *sim_must(void *p)
{
    if (p == NULL)
        abort();
    return p;
}

struct sim_msg *wire_new(uint32_t from, uint32_t to, enum msg_kind kind)
{
    struct sim_msg *m = sim_must(calloc(1, sizeof *m));

    m->from = from;
    m->to = to;
    m->kind = (uint8_t)kind;
    m->relay2 = NO_RELAY;
    return m;
}

void wire_free(struct sim_msg *m)
{
    kad_msg_clear(&m->m);
    free(m);
}

/* ---- bytes ---- */

/* What the JSON dialect would take, roughly: enough to load relays with. */
static uint32_t estimate(const struct sim_msg *m)
{
    size_t n = BYTES_FRAME + m->m.n_closest * BYTES_CONTACT;

    if (m->kind == MSG_FAIL || m->kind == MSG_GONE)
        return BYTES_FRAME;
    n += m->m.n_targets * sizeof(struct kad_id) + m->m.n_ranges * BYTES_RANGE;
    for (size_t i = 0; i < m->m.n_answers; i++)
        n += m->m.answers[i].is_list ? m->m.answers[i].n * BYTES_ENTRY : RECON_PARTS * BYTES_PART;
    if (!m->m.response || m->m.method == KAD_PING)
        n += BYTES_SENDER + (m->m.method != KAD_PING ? BYTES_TARGET : 0);
    for (size_t i = 0; i < m->m.n_items; i++) {
        if (m->m.items[i].item != NULL)
            n += kad_json_item_size(&m->m.items[i].item->item);
    }
    return (uint32_t)n;
}

static int read_native(struct kad_msg *out, enum kad_method method, bool response,
                       const uint8_t *bytes, size_t n)
{
    struct kad_mp_frame f;
    struct kad_mp_head head;
    size_t used = 0;

    kad_mp_frame_init(&f);
    int rc = kad_mp_frame_feed(&f, bytes, n, &used, &head);
    if (rc == 0)
        rc = kad_codec_msgpack.decode(out, method, response, head.body, head.body_len);
    kad_mp_frame_clear(&f);
    return rc;
}

static bool between_natives(const struct sim *s, const struct sim_msg *m)
{
    return s->cfg.codec == SIM_CODEC_NATIVE ||
           (keys_is_native(s, m->from) && keys_is_native(s, m->to));
}

/* Through the codec and back, as the peers would see it. What cannot be written or read is a failure. */
static void transcode(const struct sim *s, struct sim_msg *m)
{
    bool native = between_natives(s, m);
    const struct kad_codec *codec = native ? &kad_codec_msgpack : &kad_codec_json;
    enum kad_method method = m->m.method;
    bool response = m->m.response;
    uint8_t *bytes = NULL;
    size_t n = 0;
    int rc = codec->encode(&bytes, &n, &m->m, m->call);

    kad_msg_clear(&m->m);
    m->bytes = (uint32_t)n;
    if (rc == 0 && native)
        rc = read_native(&m->m, method, response, bytes, n);
    else if (rc == 0)
        rc = codec->decode(&m->m, method, response, bytes + FRAME_HEAD, n - FRAME_HEAD);
    free(bytes);
    m->m.wire_bytes = m->bytes;
    if (rc != 0 && response) {
        m->kind = MSG_FAIL;
        m->why = KAD_FAIL_FORMAT;
    }
}

static void weigh(struct sim_shard *sh, struct sim_msg *m)
{
    bool is_message = m->kind == MSG_REQUEST || m->kind == MSG_ANSWER || m->kind == MSG_NOTE;

    if (is_message && sh->sim->cfg.codec != SIM_CODEC_MEMORY)
        transcode(sh->sim, m);
    else
        m->bytes = estimate(m);
    m->m.wire_bytes = m->bytes;
    sh->sum.bytes += m->bytes;
}

/* ---- events ---- */

/* Items that leave the shard are copied: their counts belong to one thread. */
static void unshare(struct sim_msg *m)
{
    for (size_t i = 0; i < m->m.n_items; i++) {
        struct item_ref *mine = m->m.items[i].item;
        if (mine == NULL)
            continue;
        m->m.items[i].item = sim_must(item_ref_new(&mine->item));
        item_ref_put(mine);
    }
}

void wire_post(struct sim_shard *sh, const struct sim_event *ev)
{
    struct sim *s = sh->sim;
    uint32_t relays = ev->type == EV_HTTP ? s->cfg.relays.count : 0;
    uint32_t at = ev->type == EV_MSG ? ev->dst : ev->dst - s->cfg.nodes - relays;
    unsigned to = at % s->shards;
    int rc;

    if (to == sh->id) {
        rc = queue_add(&sh->queue, ev);
    } else {
        unshare((struct sim_msg *)(uintptr_t)ev->data);
        rc = exchange_send(s->exchange, sh->id, to, ev);
    }
    if (rc != 0)
        abort();
}

static struct sim_event event_of(const struct sim_msg *m, uint32_t src, uint32_t seq, uint32_t dst,
                                 enum ev_type type, uint64_t at_ns)
{
    return (struct sim_event){.at_ns = at_ns,
                              .data = (uintptr_t)m,
                              .src = src,
                              .seq = seq,
                              .dst = dst & 0xfffffffu,
                              .type = type & 0xfu};
}

/* ---- cuts ---- */

/* Is this partition, number i of the script, in force? */
static bool is_cut(const struct sim *s, uint32_t a, uint32_t b, uint64_t now_ns)
{
    if (s->cfg.n_script == 0)
        return false;
    uint32_t differ = s->nodes[a].sides ^ s->nodes[b].sides;
    for (size_t i = 0; differ != 0 && i < s->cfg.n_script; i++) {
        const struct sim_script *e = &s->cfg.script[i];
        uint64_t from = SIM_EPOCH_NS + e->at_ns;
        if ((differ & UINT32_C(1) << i) != 0 && now_ns >= from &&
            (e->for_ns == 0 || now_ns < from + e->for_ns))
            return true;
    }
    return false;
}

static bool is_relay_up(const struct sim *s, uint32_t relay, uint64_t now_ns)
{
    for (size_t i = 0; i < s->cfg.n_script; i++) {
        const struct sim_script *e = &s->cfg.script[i];
        uint64_t from = SIM_EPOCH_NS + e->at_ns;
        if (e->type == SIM_RELAY_CRASH && relay < e->relays && now_ns >= from &&
            (e->for_ns == 0 || now_ns < from + e->for_ns))
            return false;
    }
    return true;
}

/* ---- streams ---- */

/* Is there a stream from one node to the other? If not it is opened, at the cost of the handshake. */
static bool has_stream(struct sim_shard *sh, struct sim_node *n, uint32_t to)
{
    uint64_t now_s = sh->now_ns / NS_PER_S;
    unsigned oldest = 0;

    if (!sh->sim->cfg.relays.pooled)
        return false;
    if (n->streams == NULL)
        n->streams = sim_must(calloc(SIM_STREAMS, sizeof *n->streams));
    for (unsigned i = 0; i < SIM_STREAMS; i++) {
        uint64_t used = (uint32_t)n->streams[i];
        if (n->streams[i] >> 32 == to && used > 0 && now_s + 1 - used <= SIM_STREAM_NS / NS_PER_S) {
            n->streams[i] = (uint64_t)to << 32 | (uint32_t)(now_s + 1);
            return true;
        }
        if ((uint32_t)n->streams[i] < (uint32_t)n->streams[oldest])
            oldest = i;
    }
    n->streams[oldest] = (uint64_t)to << 32 | (uint32_t)(now_s + 1);
    return false;
}

/* ---- relays ---- */

/* The n-th relay of a node: another one for each n, where there are so many. */
static uint32_t relay_of(const struct sim *s, uint32_t node, uint32_t n)
{
    if (s->cfg.attack.eclipse_relay && s->nodes[node].role == ROLE_ECLIPSE)
        return 0;
    uint32_t first =
        (uint32_t)rng_below(rng_mix(s->cfg.seed ^ TRAIT_RELAY, node), s->cfg.relays.count);
    uint32_t apart = s->cfg.relays.count > 2 ? 1 + s->cfg.relays.count / 2 : 1;

    return (first + n * apart) % s->cfg.relays.count;
}

uint32_t wire_group(const struct sim *s, uint32_t node)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < s->cfg.relays.per_node; i++)
        sum += rng_mix(TRAIT_RELAY, relay_of(s, node, i)); /* whatever their order */
    return (uint32_t)sum | 1;
}

/* The relay through which a node is connected now; NO_RELAY when all of its are down. */
static uint32_t live_relay(const struct sim *s, uint32_t node, uint64_t now_ns)
{
    for (uint32_t i = 0; i < s->cfg.relays.per_node; i++) {
        uint32_t r = relay_of(s, node, i);
        if (is_relay_up(s, r, now_ns))
            return r;
    }
    return NO_RELAY;
}

static bool share_relay(const struct sim *s, uint32_t a, uint32_t b, uint64_t now_ns, uint32_t *out)
{
    for (uint32_t i = 0; i < s->cfg.relays.per_node; i++) {
        for (uint32_t j = 0; j < s->cfg.relays.per_node; j++) {
            *out = relay_of(s, a, i);
            if (*out == relay_of(s, b, j) && is_relay_up(s, *out, now_ns))
                return true;
        }
    }
    return false;
}

static uint64_t with_jitter(const struct sim *s, uint64_t ns, uint32_t draw)
{
    uint64_t most = fixed_ppm(ns, s->cfg.net.jitter_ppm);

    return ns + rng_below((uint64_t)draw << 32, most + 1);
}

static void lose(struct sim_msg *m, uint64_t *counter)
{
    (*counter)++;
    wire_free(m);
}

static void send_by_relay(struct sim_shard *sh, struct sim_msg *m, uint64_t at_ns, uint32_t draw)
{
    struct sim *s = sh->sim;
    uint32_t first, base = s->cfg.nodes;
    uint64_t once, twice = 0;

    if (!share_relay(s, m->from, m->to, sh->now_ns, &first)) {
        first = live_relay(s, m->from, sh->now_ns);
        m->relay2 = live_relay(s, m->to, sh->now_ns);
        if (first == NO_RELAY || m->relay2 == NO_RELAY) {
            lose(m, &sh->sum.cut);
            return;
        }
    }
    uint32_t last = m->relay2 != NO_RELAY ? m->relay2 : first;
    once = latency_of(s, m->from, base + first);
    if (m->kind == MSG_REQUEST && !has_stream(sh, &s->nodes[m->from], m->to)) {
        m->handshake = true;
        sh->sum.handshakes++;
        twice = 2 * (once + (last != first ? latency_of(s, base + first, base + last) : 0) +
                     latency_of(s, base + last, m->to));
    }
    struct sim_event ev = event_of(m, m->from, s->nodes[m->from].next_seq++, base + first, EV_RELAY,
                                   at_ns + twice + with_jitter(s, once, draw));
    wire_post(sh, &ev);
}

void wire_relay(struct sim_shard *sh, const struct sim_event *ev)
{
    struct sim *s = sh->sim;
    struct sim_msg *m = (struct sim_msg *)(uintptr_t)ev->data;
    uint32_t id = ev->dst - s->cfg.nodes;
    struct sim_relay *r = &s->relays[id];
    uint64_t work = s->cfg.relays.message_ns + (m->handshake ? s->cfg.relays.handshake_ns : 0) +
                    m->bytes * NS_PER_S / s->cfg.relays.bytes_per_s;
    uint64_t begin = r->busy_ns > ev->at_ns ? r->busy_ns : ev->at_ns;

    sh->sum.relayed++;
    r->digest = rng_mix(r->digest ^ ev->at_ns, (uint64_t)ev->src << 32 | ev->seq);
    if (!is_relay_up(s, id, ev->at_ns) || begin - ev->at_ns > s->cfg.relays.queue_ns) {
        lose(m, &sh->sum.relay_dropped);
        return;
    }
    r->busy_ns = begin + work;
    uint32_t next = m->relay2 != NO_RELAY ? s->cfg.nodes + m->relay2 : m->to;
    enum ev_type type = m->relay2 != NO_RELAY ? EV_RELAY : EV_MSG;
    m->relay2 = NO_RELAY;
    uint32_t draw = rng_at(s->cfg.seed, s->cfg.nodes + id, RNG_NET, r->draws++).w[0];
    struct sim_event out =
        event_of(m, ev->dst, r->next_seq++, next, type,
                 r->busy_ns + with_jitter(s, latency_of(s, ev->dst, next), draw));
    wire_post(sh, &out);
}

/* ---- sending ---- */

void wire_send(struct sim_shard *sh, struct sim_msg *m)
{
    struct sim *s = sh->sim;
    struct sim_node *n = &s->nodes[m->from];
    struct rng_block b = rng_at(s->cfg.seed, m->from, RNG_NET, n->draws[RNG_NET]++);

    weigh(sh, m);
    if (draw_share((uint64_t)b.w[0] << 32, s->cfg.net.loss_ppm)) {
        lose(m, &sh->sum.lost);
        return;
    }
    if (is_cut(s, m->from, m->to, sh->now_ns)) {
        lose(m, &sh->sum.cut);
        return;
    }
    uint64_t begin = sh->now_ns;
    if (n->role == ROLE_SLOW && m->kind == MSG_ANSWER)
        begin += s->cfg.attack.slow_by_ns;
    if (s->cfg.relays.count > 0) {
        send_by_relay(sh, m, begin, b.w[1]);
        return;
    }
    struct sim_event ev = event_of(m, m->from, n->next_seq++, m->to, EV_MSG,
                                   begin + with_jitter(s, latency_of(s, m->from, m->to), b.w[1]));
    wire_post(sh, &ev);
}

void wire_gone(struct sim_shard *sh, const struct sim_msg *note)
{
    wire_send(sh, wire_new(note->to, note->from, MSG_GONE));
}

void wire_fail(struct sim_shard *sh, const struct sim_msg *req, enum kad_fail why)
{
    struct sim_msg *m = wire_new(req->to, req->from, MSG_FAIL);

    m->call = req->call;
    m->life = req->life;
    m->why = (uint8_t)why;
    wire_send(sh, m);
}
