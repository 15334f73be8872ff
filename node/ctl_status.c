/*
 * ctl_status - commands that look at the node: status, sessions, wait.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/version.h"
#include "node/node_int.h"

json_t *ctl_key_json(const struct pubkey *pk)
{
    char hex[PUBKEY_HEX + 1];
    return json_string(pubkey_hex(hex, pk));
}

json_t *ctl_id_json(const struct kad_id *id)
{
    char hex[KAD_ID_HEX + 1];
    return json_string(kad_id_hex(hex, id));
}

static const char *link_kind(const struct relay_peer_info *p)
{
    return p->out && p->in ? "both" : p->out ? "out" : p->in ? "in" : "none";
}

/* The other relays that ours knows, linked or not. */
static json_t *relay_peers_json(struct node *n)
{
    struct relay_peer_info info[RELAY_THREAD_PEERS];
    size_t have = relay_thread_peers(n->relay, info, RELAY_THREAD_PEERS);
    json_t *list = json_array();
    for (size_t i = 0; i < have && i < RELAY_THREAD_PEERS; i++) {
        const struct relay_peer_info *p = &info[i];
        json_array_append_new(
            list,
            json_pack("{s:o, s:s, s:s, s:b, s:b, s:b, s:I, s:I, s:s}", "public_key",
                      ctl_key_json(&p->pk), "address", p->addr, "link", link_kind(p), "configured",
                      (int)p->configured, "found", (int)p->found, "announced", (int)p->announced,
                      "streams", (json_int_t)p->streams, "failures", (json_int_t)p->failures,
                      "last_error", p->last_err == 0 ? "" : err_str(p->last_err)));
    }
    return list;
}

static json_t *mesh_json(struct node *n, const struct relay_stat *st)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "peers",
                     (json_int_t)st->peers, "links", (json_int_t)st->peer_links, "relayed",
                     (json_int_t)st->relayed, "missed", (json_int_t)st->missed, "dials",
                     (json_int_t)st->dials, "dial_failed", (json_int_t)st->dial_failed, "announced",
                     (json_int_t)st->announce_ok, "accepted", (json_int_t)st->announce_accepted,
                     "refused", (json_int_t)st->announce_refused + (json_int_t)st->slot_refused,
                     "forwarded", (json_int_t)st->forwarded, "forward_failed",
                     (json_int_t)st->forward_failed, "known", relay_peers_json(n));
}

/* Every cap of the relay: what is in use, how often it refused. */
static json_t *limits_json(struct node *n, const struct relay_stat *st)
{
    struct guard_stat g;
    json_t *o = json_object();
    guard_stat(relay_thread_guard(n->relay), &g);
    const struct {
        const char *name;
        uint64_t value;
    } members[] = {
        {"links", g.links},
        {"max_links", g.caps.max_sessions},
        {"refused_links", g.refused_links},
        {"handshakes", g.handshakes},
        {"max_handshakes", g.caps.max_handshakes},
        {"refused_handshakes", g.refused_handshakes},
        {"addresses", g.addresses},
        {"max_handshakes_address", g.caps.max_handshakes_addr},
        {"refused_handshakes_address", g.refused_handshakes_addr},
        {"max_sessions_address", g.caps.max_sessions_addr},
        {"refused_sessions_address", g.refused_sessions_addr},
        {"handshake_rate", g.caps.handshakes_per_s},
        {"refused_rate", g.refused_rate},
        {"addresses_forgotten", g.forgotten},
        {"streams", g.streams},
        {"max_streams", g.caps.max_streams},
        {"refused_streams", g.refused_streams},
        {"syn_limited", st->syn_limited},
        {"setups", st->setups},
        {"keys_allowed", g.allowed},
        {"keys_denied", g.denied},
        {"refused_key", g.refused_key},
        {"closed_key", st->closed_key},
        {"key_rate", n->cfg.key_bytes_per_s},
        {"total_rate", g.caps.bytes_per_s},
        {"throttle_waits", st->throttle_waits},
        {"throttled", st->throttled},
        {"sockets_stopped", st->stopped},
        {"resets_budget", st->resets_budget},
        {"resets_idle", st->resets_idle},
        {"resets_drain", st->resets_drain},
        {"accept_rests", st->accept_rests},
        {"descriptors_exhausted", st->fd_exhausted},
        {"no_buffer", st->no_buffer},
    };
    for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++)
        json_object_set_new(o, members[i].name, json_integer((json_int_t)members[i].value));
    return o;
}

static json_t *workers_json(struct node *n)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < relay_thread_workers(n->relay); i++) {
        struct relay_stat st;
        relay_thread_worker_stat(n->relay, i, &st);
        json_array_append_new(
            list, json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "sessions",
                            (json_int_t)st.sessions, "bridges", (json_int_t)st.bridges, "buffered",
                            (json_int_t)st.buffered, "accepted", (json_int_t)st.accepted, "moved",
                            (json_int_t)st.moved, "bytes", (json_int_t)st.bytes, "loop_max_us",
                            (json_int_t)(st.loop_max_ns / NS_PER_US)));
    }
    return list;
}

static json_t *relay_json(struct node *n)
{
    struct relay_stat st;
    if (n->relay == NULL)
        return json_null();
    relay_thread_stat(n->relay, &st);
    json_t *o = json_pack(
        "{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "listen",
        n->relay_addr, "public_address", n->public_addr, "sessions", (json_int_t)st.sessions,
        "handshakes", (json_int_t)st.handshakes, "bridges", (json_int_t)st.bridges, "buffered",
        (json_int_t)st.buffered, "accepted", (json_int_t)st.accepted, "handshake_failed",
        (json_int_t)st.handshake_failed, "refused_limit", (json_int_t)st.refused_limit, "replaced",
        (json_int_t)st.replaced, "stream_ok", (json_int_t)st.stream_ok, "stream_failed",
        (json_int_t)st.stream_failed, "resets_budget", (json_int_t)st.resets_budget, "bytes",
        (json_int_t)st.bytes, "loop_max_us", (json_int_t)(st.loop_max_ns / NS_PER_US));
    json_object_set_new(o, "mesh", mesh_json(n, &st));
    json_object_set_new(o, "limits", limits_json(n, &st));
    json_object_set_new(o, "workers", workers_json(n));
    return o;
}

json_t *ctl_lookups_json(struct node *n)
{
    struct resolve_stat st;
    resolve_stat(n->resolve, &st);
    return json_pack("{s:I, s:I, s:I, s:I}", "cache", (json_int_t)st.cache, "dht",
                     (json_int_t)st.dht, "http", (json_int_t)st.http, "miss", (json_int_t)st.miss);
}

static json_t *published_json(struct node *n)
{
    struct publish_stat st;
    if (n->publish == NULL)
        return json_null();
    publish_stat(n->publish, &st);
    return json_pack("{s:I, s:i, s:I, s:s, s:f}", "times", (json_int_t)st.published, "stored",
                     (int)st.stored, "delegated", (json_int_t)st.delegated, "last_error",
                     st.last_err == 0 ? "" : err_str(st.last_err), "age_s",
                     st.last_ns == 0 ? -1.0 : (double)(n->loop->now_ns - st.last_ns) / 1e9);
}

/* Where this node registers itself: told, because who does not is not found (incident 39). */
static const char *registering(const struct node *n)
{
    if (n->publish == NULL)
        return "no";
    struct publish_stat st;
    publish_stat(n->publish, &st);
    bool http = n->policy.registers == NODE_REGISTERS_ALWAYS ||
                (n->policy.registers == NODE_REGISTERS_UNSEEN && !st.http.carried);
    if (http)
        return n->policy.publish_dht ? "dht+http" : "http";
    return n->policy.publish_dht ? "dht" : "no";
}

static json_t *store_json(struct node *n)
{
    struct store_stat st;
    n->store->ops->stat(n->store, &st);
    return json_pack("{s:s, s:b, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:s}", "backend",
                     n->store->ops->name, "shared", (int)st.shared, "busy_pid", st.busy_pid,
                     "items", (json_int_t)st.items, "bytes", (json_int_t)st.bytes, "budget_bytes",
                     (json_int_t)st.budget_bytes, "pending", (json_int_t)st.pending, "commits",
                     (json_int_t)st.commits, "corrupt", (json_int_t)st.corrupt, "last_error",
                     st.last_error == 0 ? "" : err_str(st.last_error));
}

static json_t *forwards_json(const struct node *n)
{
    const struct stream_forward_stat *f = &n->forward_stat.streams;
    return json_pack("{s:I, s:I, s:I, s:I, s:I}", "open", (json_int_t)n->forward_stat.forwards,
                     "accepted", (json_int_t)f->accepted, "dialled", (json_int_t)f->opened,
                     "dial_failed", (json_int_t)f->dial_failed, "accept_failed",
                     (json_int_t)f->accept_failed);
}

/* The discovery's API on this node, and what went to the HTTP discovery. */
static json_t *http_json(const struct node *n)
{
    struct face_stat st;
    struct publish_stat pub = {0};
    facade_stat(n, &st);
    if (n->publish != NULL)
        publish_stat(n->publish, &pub);
    return json_pack("{s:s?, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:I, s:I, s:I, s:I, "
                     "s:I, s:I, s:I, s:I}",
                     "address", node_http_addr(n), "registered", (json_int_t)st.registered,
                     "answered_own", (json_int_t)st.own, "carried", (json_int_t)st.carried,
                     "carry_failed", (json_int_t)st.carry_failed, "forwarded",
                     (json_int_t)st.forwarded, "forward_failed", (json_int_t)st.forward_failed,
                     "published", (json_int_t)pub.http.published, "publish_failed",
                     (json_int_t)pub.http.failed, "conflicts", (json_int_t)pub.http.conflicts,
                     "comes_by_dht", (int)pub.http.carried, "looks", (json_int_t)pub.http.looks,
                     "seen", (json_int_t)pub.http.seen, "resumed", (json_int_t)pub.http.resumed,
                     "entries", (json_int_t)st.entries, "restored", (json_int_t)st.restored,
                     "outdated", (json_int_t)st.outdated, "lists", (json_int_t)st.lists,
                     "lists_failed", (json_int_t)st.lists_failed);
}

/* The way back: entries of the DHT to the discovery. */
static json_t *push_json(const struct node *n)
{
    struct pusher_stat st;
    if (!push_stat(n, &st))
        return json_null();
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b}", "waiting",
                     (json_int_t)st.waiting, "known", (json_int_t)st.known, "pushed",
                     (json_int_t)st.pushed, "refused_old", (json_int_t)st.refused_old, "refused",
                     (json_int_t)st.refused, "failed", (json_int_t)st.failed, "dropped",
                     (json_int_t)st.dropped, "missing", (json_int_t)st.missing, "refills",
                     (json_int_t)st.refills, "away", (int)st.away);
}

static json_t *control_json(struct node *n)
{
    struct control_stat st;
    control_stat(n->control, &st);
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "connections", (json_int_t)st.conns,
                     "requests", (json_int_t)st.requests, "refused_user",
                     (json_int_t)st.refused_user, "refused_limit", (json_int_t)st.refused_limit,
                     "bad_packets", (json_int_t)st.bad_packets, "dropped", (json_int_t)st.dropped,
                     "accept_failed", (json_int_t)st.accept_failed);
}

void ctl_status(struct ctl_req *req)
{
    struct node *n = req->node_arg;
    struct kad_stat kad;
    struct client_stat client;
    struct store_stat store;
    struct relay_stat relay = {0};
    struct kad_id id = kad_id_of(&n->cfg.pk);
    char hex[KAD_ID_HEX + 1];

    kad_stat(node_kad(n), &kad);
    client_stat(n->client, &client);
    n->store->ops->stat(n->store, &store);
    if (n->relay != NULL)
        relay_thread_stat(n->relay, &relay);
    json_t *o =
        json_pack("{s:o, s:s, s:s, s:f, s:I, s:I, s:I, s:I, s:o, s:s, s:s}", "public_key",
                  ctl_key_json(&n->cfg.pk), "node_id", kad_id_hex(hex, &id), "role",
                  n->cfg.full        ? n->relay != NULL ? "full+relay" : "full"
                  : n->relay != NULL ? "relay"
                                     : "regular",
                  "uptime_s", (double)(n->loop->now_ns - n->started_ns) / 1e9, "sessions",
                  (json_int_t)(n->relay != NULL ? relay.sessions : client.sessions_up), "streams",
                  (json_int_t)(n->relay != NULL ? relay.bridges : client.streams), "routing_peers",
                  (json_int_t)kad.routing_peers, "stored_items", (json_int_t)store.items, "lookups",
                  ctl_lookups_json(n), "version", version_str(), "health", node_health(n));
    json_object_set_new(o, "relay", relay_json(n));
    json_object_set_new(o, "store", store_json(n));
    json_object_set_new(o, "registering", json_string(registering(n)));
    json_object_set_new(o, "entry", published_json(n));
    json_object_set_new(o, "control", control_json(n));
    json_object_set_new(o, "forwards", forwards_json(n));
    json_object_set_new(o, "http", http_json(n));
    json_object_set_new(o, "push", push_json(n));
    json_object_set_new(o, "phase", json_integer((json_int_t)n->policy.phase));
    json_object_set_new(o, "sessions_up", json_integer((json_int_t)client.sessions_up));
    json_object_set_new(o, "ports", json_integer((json_int_t)client.ports));
    json_object_set_new(o, "buffer_bytes", json_integer((json_int_t)atomic_load(&n->budget.used)));
    json_object_set_new(o, "synced", json_boolean(kad.synced));
    json_object_set_new(o, "loop_max_us",
                        json_integer((json_int_t)(drive_loop_max_turn_ns(n->drive) / NS_PER_US)));
    json_object_set_new(o, "pid", json_integer(getpid()));
    ctl_ok(req, o, -1);
}

void ctl_sessions(struct ctl_req *req)
{
    struct node *n = req->node_arg;
    struct client_session_info info[64];
    size_t have = client_sessions(n->client, info, 64);
    for (size_t i = 0; i < have && i < 64; i++) {
        const struct client_session_info *s = &info[i];
        ctl_row(req, json_pack(
                         "{s:o, s:s, s:b, s:i, s:I, s:I, s:s}", "server", ctl_key_json(&s->server),
                         "address", s->addr, "up", (int)s->up, "streams", (int)s->streams, "rtt_us",
                         (json_int_t)(s->rtt_ns / NS_PER_US), "failures", (json_int_t)s->failures,
                         "last_error", s->last_err == 0 ? "" : err_str(s->last_err)));
    }
    ctl_ok(req, NULL, -1);
}

/* ---- the settings in force ---- */

/* What cmd_node was told, and where it really listens and keeps things. */
void ctl_config(struct ctl_req *req)
{
    struct node *n = req->node_arg;
    char *text = n->cfg.config != NULL ? n->cfg.config(n->cfg.arg) : NULL;
    json_t *o = text != NULL ? json_loads(text, 0, NULL) : NULL;
    free(text);
    if (o == NULL) {
        ctl_fail(req, ERR_UNSUPPORTED, "config: this node was not started from settings");
        return;
    }
    if (n->relay != NULL) {
        json_object_set_new(o, "listen", json_string(node_relay_addr(n)));
        json_object_set_new(o, "public-address", json_string(node_public_addr(n)));
    }
    if (n->cfg.store_dir != NULL)
        json_object_set_new(o, "store", json_string(n->cfg.store_dir));
    if (node_control_path(n) != NULL)
        json_object_set_new(o, "control", json_string(node_control_path(n)));
    ctl_ok(req, json_pack("{s:o}", "config", o), -1);
}

/* ---- wait: for a session, or for a DHT peer ---- */

struct wait {
    struct list_node node;
    struct ctl_req *req;
    struct loop_timer timer;
    struct node *owner;
    bool dht;
};

static void wait_free(struct wait *w)
{
    loop_timer_cancel(w->owner->loop, &w->timer);
    list_remove(&w->node);
    free(w);
}

static void wait_gone(struct ctl_req *req)
{
    wait_free(req->user);
}

static bool wait_holds(const struct wait *w)
{
    struct client_stat client;
    struct kad_stat kad;
    client_stat(w->owner->client, &client);
    kad_stat(node_kad(w->owner), &kad);
    return client.sessions_up > 0 && (!w->dht || kad.routing_peers > 0);
}

/* Which servers were tried, and what came of it. */
static void wait_failed(struct wait *w)
{
    struct client_session_info info[8];
    struct ctl_req *req = w->req;
    char text[900] = "no relay is known";
    size_t at = 0, have = client_sessions(w->owner->client, info, 8);
    bool up = false;
    for (size_t i = 0; i < have && i < 8 && at < sizeof(text); i++) {
        char pk[PUBKEY_HEX + 1];
        up = up || info[i].up;
        int len = snprintf(text + at, sizeof(text) - at, "%srelay %s at %s: %s", at > 0 ? "; " : "",
                           pubkey_hex(pk, &info[i].server), info[i].addr,
                           info[i].up              ? "connected, but no DHT peer answers"
                           : info[i].last_err != 0 ? err_str(info[i].last_err)
                                                   : "no answer yet");
        at += len > 0 ? (size_t)len : 0;
    }
    wait_free(w);
    ctl_fail(req, ERR_NO_ROUTE, "%s", text);
}

static void wait_timeout(struct loop_timer *t)
{
    wait_failed(container_of(t, struct wait, timer));
}

void ctl_wait_check(struct node *n)
{
    struct list_node *pos, *tmp;
    list_for_each(pos, tmp, &n->waits)
    {
        struct wait *w = container_of(pos, struct wait, node);
        struct ctl_req *req = w->req;
        if (w->dht && n->other_network) {
            wait_free(w);
            ctl_fail(req, ERR_NETWORK, "the bootstrap nodes belong to another network");
            continue;
        }
        if (!wait_holds(w))
            continue;
        wait_free(w);
        ctl_ok(req, NULL, -1);
    }
}

void ctl_wait(struct ctl_req *req)
{
    struct node *n = req->node_arg;
    unsigned timeout_ms;
    if (ctl_arg_timeout(req, &timeout_ms) < 0)
        return;
    struct wait *w = calloc(1, sizeof(*w));
    if (w == NULL) {
        ctl_fail(req, ERR_NOMEM, NULL);
        return;
    }
    w->req = req;
    w->owner = n;
    w->dht = strcmp(ctl_arg_str(req, "for", "session"), "dht") == 0;
    w->timer.fn = wait_timeout;
    req->user = w;
    req->gone = wait_gone;
    list_push_back(&n->waits, &w->node);
    loop_timer_set(n->loop, &w->timer, n->loop->now_ns + timeout_ms * NS_PER_MS);
    ctl_wait_check(n);
}
