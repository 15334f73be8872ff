/*
 * ctl_dht_status - commands that show the DHT: contacts, counters, groups of peers behind the same relays.
 */
#include <stdlib.h>

#include "kademlia/codec.h"
#include "kademlia/codec_msgpack.h"
#include "node/node_int.h"

#define GROUPS_SHOWN 64

static struct node *node_of(const struct ctl_req *req)
{
    return req->node_arg;
}

/* ---- relays that peers are behind (docs/protocol/dht.md §9.4) ---- */

static json_t *relays_of(struct node *n, uint32_t group)
{
    struct pubkey relays[4];
    size_t found = host_relays(n->host, group, relays, 4);
    json_t *v = json_array();
    for (size_t i = 0; i < found; i++)
        json_array_append_new(v, ctl_key_json(&relays[i]));
    return v;
}

/* ---- contacts ---- */

/* What is not known yet is spoken to in JSON. */
static const char *dialect_name(enum kad_dialect d)
{
    return d >= KAD_DIALECT_HINTED ? kad_codec_msgpack.name : kad_codec_json.name;
}

static bool peer_row(void *arg, const struct kad_contact *c)
{
    struct ctl_req *req = arg;
    struct node *n = node_of(req);
    const struct pubkey *pk = host_pk(n->host, c->peer);
    struct kad_id id = kad_id_of(pk);
    ctl_row(req,
            json_pack("{s:o, s:o, s:I, s:I, s:s, s:o, s:I, s:b}", "public_key", ctl_key_json(pk),
                      "node_id", ctl_id_json(&id), "bucket", (json_int_t)c->bucket, "last_seen_ms",
                      (json_int_t)((n->loop->now_ns - c->last_seen_ns) / NS_PER_MS), "dialect",
                      dialect_name(host_dialect(n->host, c->peer)), "relays",
                      relays_of(n, c->group), "unanswered", (json_int_t)c->unanswered, "suspect",
                      (int)kad_is_suspect(node_kad(n), c->group)));
    return true;
}

void ctl_dht_peers(struct ctl_req *req)
{
    kad_contacts(node_kad(node_of(req)), peer_row, req);
    ctl_ok(req, NULL, -1);
}

/* ---- counters ---- */

static json_t *by_method(const uint64_t counts[KAD_METHOD__END])
{
    static const char *const names[KAD_METHOD__END] = {
        [KAD_PING] = "ping",           [KAD_FIND_NODE] = "find_node", [KAD_GET_VALUE] = "get_value",
        [KAD_PUT_VALUE] = "put_value", [KAD_GET_ITEMS] = "get_items", [KAD_PUT_BATCH] = "put_batch",
        [KAD_GET_BATCH] = "get_batch", [KAD_WATCH] = "watch",         [KAD_CHANGED] = "changed",
        [KAD_RECONCILE] = "reconcile"};
    json_t *o = json_object();
    for (unsigned i = KAD_PING; i < KAD_METHOD__END; i++)
        json_object_set_new(o, names[i], json_integer((json_int_t)counts[i]));
    return o;
}

/* By reason; reasons are only ever added. */
static json_t *refused(const struct kad_stat *st)
{
    const struct {
        const char *reason;
        uint64_t n;
    } all[] = {
        {"rate", st->refused_rate},       {"size", st->refused_size},
        {"seq", st->refused_seq},         {"signature", st->refused_sig},
        {"quota", st->refused_quota},     {"relays", st->refused_group},
        {"foreign", st->refused_foreign}, {"busy", st->refused_busy},
        {"space", st->refused_space},     {"writer", st->refused_writer},
        {"reader", st->refused_reader},   {"shunned", st->refused_shunned},
        {"network", st->refused_network},
    };
    json_t *o = json_object();
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        json_object_set_new(o, all[i].reason, json_integer((json_int_t)all[i].n));
    return o;
}

/* Those with most contacts, as many as fit into an answer. */
static int by_contacts(const void *a, const void *b)
{
    const struct kad_group_info *x = a, *y = b;
    if (x->contacts != y->contacts)
        return x->contacts > y->contacts ? -1 : 1;
    return x->group < y->group ? -1 : x->group > y->group;
}

static json_t *groups_of(struct node *n)
{
    struct kad_group_info v[KAD_MAX_GROUPS];
    size_t found = kad_groups(node_kad(n), v, KAD_MAX_GROUPS);
    json_t *rows = json_array();
    qsort(v, found, sizeof(v[0]), by_contacts);
    for (size_t i = 0; i < found && i < GROUPS_SHOWN; i++) {
        bool down = v[i].suspect_ns != 0;
        uint64_t since = down ? n->loop->now_ns - v[i].suspect_ns : 0;
        json_array_append_new(
            rows, json_pack("{s:o, s:I, s:I, s:I, s:b, s:I}", "relays", relays_of(n, v[i].group),
                            "peers", (json_int_t)v[i].contacts, "slots", (json_int_t)v[i].slots,
                            "bytes", (json_int_t)v[i].bytes, "suspect", (int)down, "suspect_ms",
                            (json_int_t)(since / NS_PER_MS)));
    }
    return rows;
}

void ctl_dht_status(struct ctl_req *req)
{
    struct node *n = node_of(req);
    struct kad_stat st;
    struct store_stat store;
    struct host_stat host;
    struct kad_watch_stat watch;
    struct kad_id id = kad_id_of(&n->cfg.pk);
    kad_stat(node_kad(n), &st);
    kad_watch_stat(node_kad(n), &watch);
    n->store->ops->stat(n->store, &store);
    host_stat(n->host, &host);
    json_t *o = json_pack(
        "{s:o, s:I, s:I, s:b, s:I, s:I, s:I, s:I, s:b, s:b}", "node_id", ctl_id_json(&id),
        "routing_peers", (json_int_t)st.routing_peers, "stored_items", (json_int_t)store.items,
        "full_node", (int)n->cfg.full, "public_items", (json_int_t)store.by_tier[ITEM_TIER_PUBLIC],
        "trusted_items", (json_int_t)store.by_tier[ITEM_TIER_TRUSTED], "whitelisted_items",
        (json_int_t)store.by_tier[ITEM_TIER_WHITELISTED], "network_size",
        (json_int_t)st.network_size_estimate, "alone", (int)st.alone, "synced", (int)st.synced);
    json_object_set_new(o, "requests", by_method(st.requests));
    json_object_set_new(o, "calls", by_method(st.calls_sent));
    json_object_set_new(o, "calls_failed", by_method(st.calls_failed));
    json_object_set_new(o, "refused", refused(&st));
    json_object_set_new(o, "lookups", ctl_lookups_json(n));
    json_object_set_new(o, "relays", groups_of(n));
    json_object_set_new(o, "relay_groups",
                        json_pack("{s:I, s:I, s:I, s:I}", "suspect", (json_int_t)st.groups_suspect,
                                  "suspected", (json_int_t)st.groups_suspected, "passed_over",
                                  (json_int_t)st.passed_over, "diversified",
                                  (json_int_t)st.diversified));
    json_object_set_new(o, "lies",
                        json_pack("{s:I, s:I, s:I, s:I, s:I}", "signature",
                                  (json_int_t)st.lies[KAD_LIE_SIGNATURE], "target",
                                  (json_int_t)st.lies[KAD_LIE_TARGET], "stale",
                                  (json_int_t)st.lies[KAD_LIE_STALE], "contacts",
                                  (json_int_t)st.lies[KAD_LIE_CONTACTS], "protocol",
                                  (json_int_t)st.lies[KAD_LIE_PROTOCOL]));
    json_object_set_new(o, "shunned", json_integer((json_int_t)st.shunned));
    json_object_set_new(o, "sync",
                        json_pack("{s:I, s:I, s:I}", "pulled", (json_int_t)st.sync_pulled, "pushed",
                                  (json_int_t)st.sync_pushed, "bytes", (json_int_t)st.sync_bytes));
    json_object_set_new(o, "reconciled", json_integer((json_int_t)st.reconciled));
    json_object_set_new(o, "verified", json_integer((json_int_t)st.verified));
    json_object_set_new(o, "rejected_answers", json_integer((json_int_t)st.rejected_answers));
    json_object_set_new(o, "streams",
                        json_pack("{s:I, s:I, s:I, s:I}", "serving", (json_int_t)host.serving,
                                  "calling", (json_int_t)host.calling, "native_dialled",
                                  (json_int_t)host.dialled, "native_accepted",
                                  (json_int_t)host.accepted));
    json_object_set_new(
        o, "dialects",
        json_pack("{s:I, s:I, s:I, s:I, s:I}", "json_calls", (json_int_t)host.json_calls,
                  "msgpack_calls", (json_int_t)host.native_calls, "fallbacks",
                  (json_int_t)host.fallbacks, "pool_full", (json_int_t)host.pool_full, "bytes",
                  (json_int_t)host.bytes_in + (json_int_t)host.bytes_out));
    json_object_set_new(o, "watch",
                        json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "watches",
                                  (json_int_t)watch.watches, "watched", (json_int_t)watch.watched,
                                  "watchers", (json_int_t)watch.watchers, "events",
                                  (json_int_t)watch.events, "pushes_sent",
                                  (json_int_t)watch.pushes_sent, "pushes_received",
                                  (json_int_t)watch.pushes_got, "polls", (json_int_t)watch.polls));
    json_object_set_new(o, "refused_network", json_integer((json_int_t)st.refused_network));
    ctl_ok(req, o, -1);
}
