/*
 * Full nodes are the engine's own: they sync with the bootstrap nodes and with whoever advertises
 * itself, by ranges of digests where both speak the native dialect, else by pages. Here is who is
 * one, and those that lie: every second one forges (what it gives away carries its owner's signature
 * over another value), the others hide (they list nothing, and have nothing); both say "stored" to
 * everything and keep none of it that comes in batches.
 */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "simulator/users.h"

bool full_is_liar(const struct sim *s, uint32_t node)
{
    return full_is(s, node) && node >= s->cfg.full.count - s->cfg.full.liars;
}

static bool forges(uint32_t node)
{
    return node % 2 == 0;
}

/* ---- liars ---- */

static void say_stored(struct kad_msg *rsp, const struct kad_msg *req)
{
    for (size_t i = 0; i < req->n_items; i++) {
        if (req->items[i].item != NULL)
            (void)kad_msg_add_item(rsp, req->items[i].item, NULL);
    }
}

/* Lists of nothing for every range. */
static void list_nothing(struct kad_msg *rsp, const struct kad_msg *req)
{
    rsp->answers = sim_must(calloc(req->n_ranges, sizeof *rsp->answers));
    rsp->n_answers = req->n_ranges;
    for (size_t i = 0; i < req->n_ranges; i++)
        rsp->answers[i].is_list = true;
}

bool full_lie(struct sim_shard *sh, uint32_t node, const struct sim_msg *req)
{
    enum kad_method method = req->m.method;
    bool hides = !forges(node) && (method == KAD_GET_ITEMS || method == KAD_GET_VALUE ||
                                   method == KAD_GET_BATCH || method == KAD_RECONCILE);

    if (method != KAD_PUT_BATCH && !hides)
        return false;
    struct sim_msg *m = wire_new(node, req->from, MSG_ANSWER);
    m->call = req->call;
    m->life = req->life;
    kad_msg_init(&m->m, method, true);
    if (method == KAD_PUT_BATCH)
        say_stored(&m->m, &req->m);
    else if (method == KAD_RECONCILE)
        list_nothing(&m->m, &req->m);
    sh->sum.lies++;
    wire_send(sh, m);
    return true;
}

void full_forge(struct sim_shard *sh, uint32_t node, struct kad_msg *m)
{
    if (!forges(node) || m->method == KAD_PUT_VALUE || m->method == KAD_PUT_BATCH)
        return;
    for (size_t i = 0; i < m->n_items; i++) {
        struct item_ref *mine = m->items[i].item;
        if (mine == NULL || mine->item.v_len == 0)
            continue;
        struct item_ref *lie = sim_must(item_ref_new(&mine->item));
        ((uint8_t *)(uintptr_t)lie->item.v)[0] ^= 1;
        lie->item.seq++;
        m->items[i].item = lie;
        item_ref_put(mine);
        sh->sum.lies++;
    }
}

/* ---- what came of it ---- */

void full_count(const struct sim *s, uint32_t node, struct sim_counts *sum)
{
    struct kad_stat st;

    if (!full_is(s, node) || s->nodes[node].kad == NULL)
        return;
    kad_stat(s->nodes[node].kad, &st);
    sum->sync_pulled += st.sync_pulled;
    sum->sync_pushed += st.sync_pushed;
    sum->sync_bytes += st.sync_bytes;
    sum->reconciled += st.reconciled;
    for (unsigned i = 0; i < KAD_LIE__COUNT; i++)
        sum->lies_seen += st.lies[i];
}

/* The version of a node's entry that a full node would give to others; 0 = none. */
static uint32_t version_at(const struct sim *s, uint32_t full, uint32_t of)
{
    struct sim_shard *sh = shard_of((struct sim *)(uintptr_t)s, full);
    struct store_rec r;
    uint32_t version = 0;
    bool fresh;

    sh->node = full; /* whose clock it is */
    if (kad_peek(s->nodes[full].kad, &s->keys[of].pk, SIM_SALT, 3, &r, &fresh, sh->now_ns) != 0 ||
        r.origin == STORE_CACHE || !load_read_value(s, &r.item, of, &version))
        return 0;
    return version;
}

static bool is_honest_and_here(const struct sim *s, uint32_t full)
{
    return s->nodes[full].kad != NULL && !full_is_liar(s, full);
}

void full_best(const struct sim *s, uint64_t *best)
{
    for (uint32_t f = 0; f < s->cfg.full.count; f++) {
        for (uint32_t i = 0; i < s->cfg.nodes && is_honest_and_here(s, f); i++) {
            uint64_t version = version_at(s, f, i);
            best[i] = version > best[i] ? version : best[i];
        }
    }
}

void full_look(const struct sim *s, const uint64_t *best, struct sim_counts *sum)
{
    for (uint32_t f = 0; f < s->cfg.full.count; f++) {
        full_count(s, f, sum);
        for (uint32_t i = 0; i < s->cfg.nodes && is_honest_and_here(s, f); i++) {
            uint32_t version = best[i] > 0 ? version_at(s, f, i) : 0;
            sum->to_hold += best[i] > 0;
            sum->held += version > 0;
            sum->held_newest += best[i] > 0 && version == best[i];
        }
    }
}
