/*
 * The advert of a full node, salt "fullnode" (docs/protocol/dht.md §4, §5.3):
 * {"pk":…,"stored_items":…,"full_node":true,"ts":…}
 */
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "kademlia/engine.h"

#define FRESH_NS (INT64_C(1800) * (int64_t)NS_PER_S)
#define PAGE     1000
#define PAGES    16 /* adverts looked at: whoever floods us with them is not all we see */

struct advert {
    struct pubkey pk;
    bool full_node;
    int64_t ts;
};

static bool parse(struct advert *out, const struct item *it)
{
    struct json_in j = json_in_init(it->v, it->v_len);
    char hex[PUBKEY_HEX + 1];
    size_t n = 0;

    memset(out, 0, sizeof *out);
    if (json_in_object(&j)) {
        while (json_in_member(&j)) {
            if (json_in_name_is(&j, "pk"))
                json_in_string(&j, hex, sizeof hex, &n);
            else if (json_in_name_is(&j, "full_node"))
                json_in_bool(&j, &out->full_node);
            else if (json_in_name_is(&j, "ts"))
                json_in_i64(&j, &out->ts);
            else
                json_in_skip(&j);
        }
    }
    return json_in_end_input(&j) == 0 && n == PUBKEY_HEX && pubkey_from_hex(&out->pk, hex, n) == 0;
}

/* Stale ones, and those that name somebody else than their signer, are not believed. */
static bool is_believed(const struct kad *k, const struct store_rec *r, struct advert *ad)
{
    if (r->kind != ITEM_OWNER || !kad_rec_is_live(k, r) || !parse(ad, &r->item))
        return false;
    int64_t now = env_wall_ns(k->env);
    return ad->full_node && pubkey_equal(&ad->pk, &r->item.k) && !pubkey_equal(&ad->pk, &k->self) &&
           ad->ts <= now + FRESH_NS && ad->ts >= now - FRESH_NS;
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
    struct advert ad;

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
    struct advert ad;

    return k->store->ops->get(k->store, &target, ITEM_OWNER, &r) == 0 && is_believed(k, &r, &ad) &&
           pubkey_equal(&ad.pk, pk);
}

size_t kad_advert_text(struct kad *k, char *out, size_t cap)
{
    char hex[PUBKEY_HEX + 1];
    struct store_stat st;

    k->store->ops->stat(k->store, &st);
    int n = snprintf(
        out, cap, "{\"pk\":\"%s\",\"stored_items\":%llu,\"full_node\":true,\"ts\":%lld}",
        pubkey_hex(hex, &k->self), (unsigned long long)st.items, (long long)env_wall_ns(k->env));
    return n > 0 && (size_t)n < cap ? (size_t)n : 0;
}
