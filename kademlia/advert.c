/*
 * The advert of a full node, salt "fullnode" (docs/protocol/dht.md §4, §5.3):
 * {"pk":…,"stored_items":…,"full_node":true,"ts":…}
 */
#include "kademlia/engine.h"
#include "kademlia/records/fullnode.h"

#define PAGE  1000
#define PAGES 16 /* adverts looked at: whoever floods us with them is not all we see */

/* Stale ones, and those that name somebody else than their signer, are not believed. */
static bool is_believed(const struct kad *k, const struct store_rec *r, struct fullnode_rec *ad)
{
    return r->kind == ITEM_OWNER && kad_rec_is_live(k, r) &&
           fullnode_decode(ad, r->item.v, r->item.v_len) == 0 &&
           fullnode_check(ad, &r->item.k, env_wall_ns(k->env)) == 0 &&
           !pubkey_equal(&ad->pk, &k->self);
}

struct sample {
    struct kad *k;
    struct pubkey *out;
    size_t max, n;
    uint64_t seen;
    uint64_t last_seq;
};

/* Reservoir sampling: adverts are free, so no property of one may decide who is chosen. */
static bool visit(void *arg, const struct store_rec *r)
{
    struct sample *s = arg;
    struct fullnode_rec ad;

    s->last_seq = r->item.seq;
    if (!is_believed(s->k, r, &ad) || kad_keyset_has(&s->k->bootstrap, &ad.pk))
        return true;
    s->seen++;
    if (s->n < s->max) {
        s->out[s->n++] = ad.pk;
    } else {
        uint64_t i = env_random_below(s->k->env, s->seen);
        if (i < s->max)
            s->out[i] = ad.pk;
    }
    return true;
}

size_t kad_advertised(struct kad *k, struct pubkey *out, size_t max)
{
    struct sample s = {.k = k, .out = out, .max = max};
    struct store_page page = {.salt = (const uint8_t *)"fullnode", .salt_len = 8, .limit = PAGE};
    bool more = true;

    for (int i = 0; i < PAGES && more && max > 0; i++) {
        uint64_t before = page.since_seq;
        if (k->store->ops->list(k->store, &page, visit, &s, &more) != 0)
            break;
        page.since_seq = s.last_seq;
        if (page.since_seq <= before)
            break;
    }
    return s.n;
}

bool kad_is_advertised(struct kad *k, const struct pubkey *pk)
{
    struct kad_id target = kad_target(pk, "fullnode", 8);
    struct store_rec r;
    struct fullnode_rec ad;

    return k->store->ops->get(k->store, &target, ITEM_OWNER, &r) == 0 && is_believed(k, &r, &ad) &&
           pubkey_equal(&ad.pk, pk);
}

size_t kad_advert_text(struct kad *k, char *out, size_t cap)
{
    struct store_stat st;
    size_t n = 0;

    k->store->ops->stat(k->store, &st);
    struct fullnode_rec rec = {
        .pk = k->self, .stored_items = st.items, .full_node = true, .ts = env_wall_ns(k->env)};
    return fullnode_encode(out, cap, &n, &rec) == 0 ? n : 0;
}
