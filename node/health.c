/*
 * health - what a node tells over HTTP about itself: /health as upstream's programs do, /metrics in
 * Prometheus' text form (docs/protocol/dmsg.md §6.5). On TCP addresses, and on port 80 of the node's
 * own key. The texts are written once a second on the node's thread.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/version.h"
#include "compat-http/health_text.h"
#include "compat-http/pages.h"
#include "node/node_int.h"

#define HEALTH_PORT  80
#define PACKET_TICKS 60u

enum { PAGE_HEALTH, PAGE_METRICS };

static const struct page_spec specs[] = {
    [PAGE_HEALTH] = {"/health", "application/json"},
    [PAGE_METRICS] = {"/metrics", "text/plain; version=0.0.4; charset=utf-8"},
};

struct health {
    struct pages *pages;
    struct drive_listener *listener[2]; /* of each page */
    bool on_port;
    struct timespec started;
    unsigned ticks;
    uint64_t last_setups, per_minute;
};

/* ---- /health ---- */

static void add_servers(struct node *n, json_t *o)
{
    struct client_session_info info[32];
    char pk[PUBKEY_HEX + 1];
    size_t have = client_sessions(n->client, info, 32);
    json_t *list = json_array();
    for (size_t i = 0; i < have && i < 32; i++)
        if (info[i].up)
            json_array_append_new(list, json_string(pubkey_hex(pk, &info[i].server)));
    if (json_array_size(list) > 0)
        json_object_set(o, "dmsg_servers", list);
    json_decref(list);
}

/* What can be wrong, each for itself: a listener that answers says little (incident 91). */
static void add_checks(struct node *n, json_t *o)
{
    struct client_stat client;
    struct store_stat store;
    struct kad_stat kad;
    client_stat(n->client, &client);
    n->store->ops->stat(n->store, &store);
    kad_stat(node_kad(n), &kad);
    json_object_set_new(
        o, "checks",
        json_pack("{s:I, s:I, s:s, s:I}", "sessions_up", (json_int_t)client.sessions_up,
                  "routing_peers", (json_int_t)kad.routing_peers, "store",
                  store.last_error == 0 ? "ok" : err_str(store.last_error), "loop_max_us",
                  (json_int_t)(drive_loop_max_turn_ns(n->drive) / NS_PER_US)));
}

static void write_health(struct node *n)
{
    char started[HEALTH_TIME], pk[PUBKEY_HEX + 1];
    const struct timespec *at = &n->health_http->started;
    (void)health_text_time(started, at->tv_sec * INT64_C(1000000000) + at->tv_nsec);
    json_t *o = json_pack("{s:{s:s, s:s, s:s}, s:s}", "build_info", "version", version_str(),
                          "commit", "unknown", "date", "unknown", "started_at", started);
    if (o == NULL)
        return;
    json_object_set_new(o, "dmsg_address",
                        json_sprintf("%s:%d", pubkey_hex(pk, &n->cfg.pk), HEALTH_PORT));
    add_servers(n, o);
    json_object_set_new(o, "service_name",
                        json_string(n->relay != NULL ? "dmsg-server" : "kadmsg"));
    json_object_set_new(o, "dht", json_boolean(!n->cfg.no_dht));
    json_object_set_new(o, "state", json_string(node_health(n)));
    add_checks(n, o);
    char *text = json_dumps(o, JSON_COMPACT);
    if (text != NULL)
        pages_set(n->health_http->pages, PAGE_HEALTH, text, strlen(text));
    free(text);
    json_decref(o);
}

/* ---- /metrics ---- */

static void metric(FILE *f, const char *name, const char *type, const char *help, uint64_t value)
{
    fprintf(f, "# HELP %s %s\n# TYPE %s %s\n%s %llu\n", name, help, name, type, name,
            (unsigned long long)value);
}

#define GAUGE(name, help, value)   metric(f, name, "gauge", help, (uint64_t)(value))
#define COUNTER(name, help, value) metric(f, name "_total", "counter", help, (uint64_t)(value))

/* The names of upstream's server. */
static void write_compat(FILE *f, const struct health *h, const struct relay_stat *st)
{
    uint64_t ended = st->handshake_failed + st->handshakes;
    GAUGE("dmsg_server_clients_count", "Clients with a session", st->sessions);
    GAUGE("dmsg_server_packets_per_minute", "Streams asked for in the last minute", h->per_minute);
    GAUGE("dmsg_server_packets_per_second", "Always 0, as with upstream's server", 0);
    GAUGE("dmsg_server_vm_active_sessions_count", "Sessions", st->sessions);
    COUNTER("dmsg_server_vm_session_success", "Handshakes that became a session",
            st->accepted > ended ? st->accepted - ended : 0);
    COUNTER("dmsg_server_vm_session_fail", "Connections that became none",
            st->handshake_failed + st->refused_limit);
    GAUGE("dmsg_server_vm_active_streams_count", "Streams that are relayed", st->bridges);
    COUNTER("dmsg_server_vm_stream_success", "Streams that were set up", st->stream_ok);
    COUNTER("dmsg_server_vm_stream_fail", "Streams that were not", st->stream_failed);
}

static void write_relay(FILE *f, const struct relay_stat *st)
{
    COUNTER("kadmsg_relay_bytes", "Payload relayed", st->bytes);
    GAUGE("kadmsg_relay_buffered_bytes", "Received and not yet drained", st->buffered);
    GAUGE("kadmsg_relay_setups", "Streams being set up", st->setups);
    COUNTER("kadmsg_relay_replaced", "Sessions whose key came again", st->replaced);
    COUNTER("kadmsg_relay_resets_budget", "Streams reset for the byte budget", st->resets_budget);
    COUNTER("kadmsg_relay_resets_idle", "Idle streams reset", st->resets_idle);
    COUNTER("kadmsg_relay_resets_drain", "Half-closed streams reset", st->resets_drain);
    COUNTER("kadmsg_relay_syn_limited", "Streams refused by a session's rate", st->syn_limited);
    COUNTER("kadmsg_relay_sockets_stopped", "Sockets not read for a while", st->stopped);
    COUNTER("kadmsg_relay_pings", "Ping markers answered", st->pings);
    COUNTER("kadmsg_relay_ip_lookups", "IP look-ups answered", st->ip_lookups);
    GAUGE("kadmsg_relay_throttle_waits", "Streams that wait for bandwidth", st->throttle_waits);
    COUNTER("kadmsg_relay_throttled", "Times that a stream had to", st->throttled);
    COUNTER("kadmsg_relay_closed_key", "Sessions closed for their key", st->closed_key);
    COUNTER("kadmsg_relay_accept_rests", "Pauses of the listener", st->accept_rests);
    COUNTER("kadmsg_relay_descriptors_exhausted", "Accepts without a descriptor", st->fd_exhausted);
    GAUGE("kadmsg_relay_mesh_peers", "Relays that are linked", st->peers);
    GAUGE("kadmsg_relay_mesh_relayed", "Streams over other relays", st->relayed);
    COUNTER("kadmsg_relay_mesh_forwarded", "Streams forwarded to other relays", st->forwarded);
    COUNTER("kadmsg_relay_mesh_forward_failed", "Forwards that failed", st->forward_failed);
    GAUGE("kadmsg_relay_loop_max_us", "Longest turn of the loop", st->loop_max_ns / NS_PER_US);
}

static void write_guard(FILE *f, struct guard *guard)
{
    struct guard_stat g;
    guard_stat(guard, &g);
    GAUGE("kadmsg_relay_links", "Sessions and handshakes", g.links);
    GAUGE("kadmsg_relay_links_max", "The cap of them", g.caps.max_sessions);
    GAUGE("kadmsg_relay_handshakes", "Handshakes pending", g.handshakes);
    GAUGE("kadmsg_relay_addresses", "Addresses that are connected", g.addresses);
    GAUGE("kadmsg_relay_streams", "Streams of all sessions", g.streams);
    GAUGE("kadmsg_relay_streams_max", "The cap of them", g.caps.max_streams);
    COUNTER("kadmsg_relay_refused_links", "Connections above the cap", g.refused_links);
    COUNTER("kadmsg_relay_refused_handshakes", "Too many pending", g.refused_handshakes);
    COUNTER("kadmsg_relay_refused_handshakes_address", "Too many pending of one address",
            g.refused_handshakes_addr);
    COUNTER("kadmsg_relay_refused_sessions_address", "Too many sessions of one address",
            g.refused_sessions_addr);
    COUNTER("kadmsg_relay_refused_rate", "Handshakes of one address too fast", g.refused_rate);
    COUNTER("kadmsg_relay_refused_streams", "Streams above the cap", g.refused_streams);
    COUNTER("kadmsg_relay_refused_key", "Keys that may not come in", g.refused_key);
}

static void write_node(FILE *f, struct node *n)
{
    struct kad_stat kad;
    struct client_stat client;
    struct store_stat store;
    kad_stat(node_kad(n), &kad);
    client_stat(n->client, &client);
    n->store->ops->stat(n->store, &store);
    GAUGE("kadmsg_up_seconds", "Since the start", (n->loop->now_ns - n->started_ns) / NS_PER_S);
    GAUGE("kadmsg_sessions_up", "Sessions to relays", client.sessions_up);
    GAUGE("kadmsg_routing_peers", "DHT peers in the routing table", kad.routing_peers);
    GAUGE("kadmsg_network_size", "Nodes of the DHT, estimated", kad.network_size_estimate);
    GAUGE("kadmsg_suspect_relay_groups", "Sets of relays that seem to be down", kad.groups_suspect);
    COUNTER("kadmsg_refused_quota", "Items above the quota of their publisher", kad.refused_quota);
    COUNTER("kadmsg_refused_relays", "Items above the quota of its relays", kad.refused_group);
    GAUGE("kadmsg_store_items", "Items in the store", store.items);
    GAUGE("kadmsg_store_bytes", "Bytes in the store", store.bytes);
    GAUGE("kadmsg_buffer_bytes", "Memory of all buffers", atomic_load(&n->budget.used));
}

/* Where entries were found, and the ways between DHT and discovery. */
static void write_phase(FILE *f, struct node *n)
{
    struct resolve_stat r;
    struct publish_stat pub = {0};
    struct pusher_stat push;
    resolve_stat(n->resolve, &r);
    GAUGE("kadmsg_phase", "Of the way from HTTP to the DHT, 1 to 4", n->policy.phase);
    fprintf(f,
            "# HELP kadmsg_lookups_total Look-ups of destinations by where they were found\n"
            "# TYPE kadmsg_lookups_total counter\n"
            "kadmsg_lookups_total{source=\"cache\"} %llu\n"
            "kadmsg_lookups_total{source=\"dht\"} %llu\n"
            "kadmsg_lookups_total{source=\"http\"} %llu\n"
            "kadmsg_lookups_total{source=\"miss\"} %llu\n",
            (unsigned long long)r.cache, (unsigned long long)r.dht, (unsigned long long)r.http,
            (unsigned long long)r.miss);
    if (n->publish != NULL)
        publish_stat(n->publish, &pub);
    COUNTER("kadmsg_http_registrations", "Entries sent to the discovery", pub.http.published);
    COUNTER("kadmsg_http_registrations_failed", "Those that failed", pub.http.failed);
    COUNTER("kadmsg_http_registrations_resumed", "Begun again: the entry was not seen there",
            pub.http.resumed);
    GAUGE("kadmsg_http_carried", "The entry comes to the discovery from the DHT", pub.http.carried);
    if (!push_stat(n, &push))
        return;
    GAUGE("kadmsg_push_waiting", "Entries to be pushed", push.waiting);
    GAUGE("kadmsg_push_away", "The discovery does not answer", push.away);
    COUNTER("kadmsg_push_entries", "Entries pushed to the discovery", push.pushed);
    COUNTER("kadmsg_push_refused", "Entries that it did not want", push.refused);
    COUNTER("kadmsg_push_failed", "Requests that failed", push.failed);
    COUNTER("kadmsg_push_dropped", "Entries dropped: too many, or none", push.dropped);
    COUNTER("kadmsg_push_refills", "Times that it had lost everything", push.refills);
}

static void write_metrics(struct node *n)
{
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    if (f == NULL)
        return;
    write_node(f, n);
    write_phase(f, n);
    if (n->relay != NULL) {
        struct relay_stat st;
        relay_thread_stat(n->relay, &st);
        write_compat(f, n->health_http, &st);
        write_relay(f, &st);
        write_guard(f, relay_thread_guard(n->relay));
    }
    if (fclose(f) == 0)
        pages_set(n->health_http->pages, PAGE_METRICS, text, len);
    free(text);
}

/* ---- serving ---- */

static void on_health_fd(void *arg, int fd)
{
    struct health *h = arg;
    (void)pages_serve_tcp(h->pages, fd, 1u << PAGE_HEALTH);
}

/* Metrics are for the operator, and health is no secret. */
static void on_metrics_fd(void *arg, int fd)
{
    struct health *h = arg;
    (void)pages_serve_tcp(h->pages, fd, 1u << PAGE_HEALTH | 1u << PAGE_METRICS);
}

static void on_stream(void *arg, struct stream *st)
{
    struct node *n = arg;
    struct pubkey pk = *stream_remote(st);
    int fd = node_stream_to_fd(n, st);
    if (fd >= 0)
        (void)pages_serve_stream(n->health_http->pages, fd, &pk, 1u << PAGE_HEALTH);
}

static int listen_on(struct node *n, const char *addr, drive_accept_fd_fn *fn, int page,
                     char why[NODE_WHY])
{
    struct health *h = n->health_http;
    int rc = addr == NULL ? 0 : drive_tcp_listen_fd(n->tcp, addr, fn, h, &h->listener[page]);
    if (rc < 0)
        snprintf(why, NODE_WHY, "listen for %s on %s: %s", specs[page].path, addr, err_str(rc));
    else if (addr != NULL)
        log_info(LOG_NODE, "serving %s addr=%s", specs[page].path,
                 drive_listener_addr(h->listener[page]));
    return rc;
}

static int health_open(struct node *n, char why[NODE_WHY])
{
    if (n->cfg.health == NULL && n->cfg.metrics == NULL && !n->cfg.health_on_dmsg)
        return 0;
    struct health *h = n->health_http = calloc(1, sizeof(*h));
    int rc = h == NULL ? ERR_NOMEM : pages_new(&h->pages, specs, sizeof(specs) / sizeof(specs[0]));
    if (rc < 0) {
        snprintf(why, NODE_WHY, "health: %s", err_str(rc));
        return rc;
    }
    clock_gettime(CLOCK_REALTIME, &h->started);
    rc = listen_on(n, n->cfg.health, on_health_fd, PAGE_HEALTH, why);
    if (rc == 0)
        rc = listen_on(n, n->cfg.metrics, on_metrics_fd, PAGE_METRICS, why);
    if (rc == 0 && n->cfg.health_on_dmsg) {
        h->on_port = client_listen(n->client, HEALTH_PORT, on_stream, n) >= 0;
        if (!h->on_port)
            log_warn(LOG_NODE, "health is not served over dmsg: port %d is taken", HEALTH_PORT);
    }
    return rc;
}

static void health_tick(struct node *n)
{
    struct health *h = n->health_http;
    struct relay_stat st = {0};
    if (h == NULL)
        return;
    if (n->relay != NULL && h->ticks++ % PACKET_TICKS == 0) {
        relay_thread_stat(n->relay, &st);
        h->per_minute = st.streams - h->last_setups;
        h->last_setups = st.streams;
    }
    write_health(n);
    write_metrics(n);
    pages_tick(h->pages, n->loop->now_ns);
}

const char *node_health_addr(const struct node *n)
{
    const struct health *h = n->health_http;
    return h != NULL && h->listener[PAGE_HEALTH] != NULL
               ? drive_listener_addr(h->listener[PAGE_HEALTH])
               : NULL;
}

const char *node_metrics_addr(const struct node *n)
{
    const struct health *h = n->health_http;
    return h != NULL && h->listener[PAGE_METRICS] != NULL
               ? drive_listener_addr(h->listener[PAGE_METRICS])
               : NULL;
}

static void health_close(struct node *n)
{
    struct health *h = n->health_http;
    if (h == NULL)
        return;
    if (h->on_port)
        client_unlisten(n->client, HEALTH_PORT);
    for (size_t i = 0; i < sizeof(h->listener) / sizeof(h->listener[0]); i++)
        drive_listener_close(h->listener[i]);
    pages_free(h->pages);
    free(h);
    n->health_http = NULL;
}

const struct node_part node_part_health = {
    .open = health_open, .close = health_close, .tick = health_tick};
