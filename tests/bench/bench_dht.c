/*
 * bench_dht - look-ups in a network of whole nodes in this process: one JSON line a measurement.
 *
 *     dht_get            a get that asks all of the k closest, N nodes behind one relay, over
 *                        encrypted streams through TCP: processor time of all nodes and of the relay
 *                        together. Ceiling: messages of the look-up times dht_round_trip
 *     dht_get_cold       the same for a node's first gets: streams are still being opened
 *     dht_get_full       a get answered by a full node, asked first. Same ceiling
 *     dht_round_trip     over one such stream as many bytes each way as a look-up's messages have
 *     dht_messages       requests of one look-up
 *     dht_get_small      N = 32, beside the next one
 *     opendht_get        the same with OpenDHT (Debian's python3-opendht): its nodes in one process,
 *                        UDP without relay or encryption; not there when it is not installed
 *     dht_idle_traffic   bytes that one idle node sends and receives in its streams and sessions, a
 *                        day, from IDLE_S seconds
 *     dht_idle_cpu       processor time of an idle node, percent of one core
 *     dht_watch_bytes    bytes of memory of WATCHES watches, of both ends, each
 *     dht_watch_cpu      processor time of WATCHES held watches, percent of a core, both ends
 *     dht_watch_push     processor time of one change: put, push and verification
 *
 * KADMSG_BENCH_IDLE_S sets IDLE_S (120). Processor time of the whole process counts, the relay's threads
 * included.
 */
#include <event2/event.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/addr.h"
#include "base/err.h"
#include "base/log.h"
#include "node/keyfile.h"
#include "node/node_int.h"
#include "tests/bench/figures.h"

#define MAX_NODES    100
#define GETTERS      4
#define WARM_UP      150 /* gets of each getter */
#define GETS         100 /* of one run; medians of RUNS */
#define RUNS         7
#define ASK_BYTES    64 /* about what the messages of a look-up have */
#define TELL_BYTES   1024
#define COLD         40
#define TRIPS        1000
#define KEYS         100
#define WATCHES      5000
#define PUSHES       200
#define PUSHED_SLOTS 40 /* below the quota of a key */
#define ECHO_PORT    77
#define WAIT_S       120

static struct event_base *base;
static struct node
    *nodes[MAX_NODES + 1]; /* 0: the relay, a full node; the last one a client of it */
static struct pubkey keys[MAX_NODES + 1];
static struct addr_peer join;
static size_t n_nodes;

static unsigned reports;
static int last_err;

/* ---- the network ---- */

static void turn(void)
{
    event_base_loop(base, EVLOOP_ONCE);
}

static void run_for(double seconds)
{
    for (double end = bench_wall_s() + seconds; bench_wall_s() < end;)
        turn();
}

static bool on_report(void *arg, const struct kad_report *r)
{
    (void)arg;
    if (r->user != &reports)
        return false;
    reports++;
    last_err = r->err;
    return true;
}

static void wait_reports(unsigned n)
{
    for (double end = bench_wall_s() + WAIT_S; reports < n;) {
        if (bench_wall_s() > end)
            bench_die("an operation does not end");
        turn();
    }
}

static void start_node(size_t i, bool client_only)
{
    char why[NODE_WHY] = "";
    struct node_cfg cfg = {
        .base = base, .report = on_report, .sessions = 1, .client_only = client_only};

    keyfile_fresh(&cfg.sk, &cfg.pk);
    keys[i] = cfg.pk;
    if (i == 0) {
        cfg.listen = "127.0.0.1:0";
        cfg.full = true;
        cfg.workers = 1;
        cfg.pk_threads = 1;
    } else {
        cfg.pk_inline = true;
        cfg.bootstrap = &join;
        cfg.n_bootstrap = 1;
    }
    cfg.publish = !client_only;
    if (node_new(&nodes[i], &cfg, why) < 0)
        bench_die(why);
}

static size_t peers_of(struct node *n)
{
    struct kad_stat st;

    kad_stat(node_kad(n), &st);
    return st.routing_peers;
}

static void start_network(size_t n)
{
    const char *why;
    char text[ADDR_HOSTPORT_MAX + PUBKEY_HEX + 2], hex[PUBKEY_HEX + 1];

    n_nodes = n;
    start_node(0, false);
    snprintf(text, sizeof text, "%s@%s", pubkey_hex(hex, &keys[0]), node_relay_addr(nodes[0]));
    if (addr_peer_parse(&join, text, strlen(text), &why) < 0)
        bench_die("address of the relay");
    for (size_t i = 1; i < n; i++)
        start_node(i, false);
    for (size_t i = 1; i < n; i++) {
        for (double end = bench_wall_s() + WAIT_S; peers_of(nodes[i]) < (n < 20 ? n - 1 : 20);) {
            if (bench_wall_s() > end)
                bench_die("a node does not join");
            turn();
        }
    }
    run_for(5);
}

static void stop_network(void)
{
    for (size_t i = MAX_NODES + 1; i-- > 0;) {
        node_free(nodes[i]);
        nodes[i] = NULL;
    }
}

/* ---- values ---- */

static char salt_of_key[KEYS][8];

static void put_all(void)
{
    char value[400];

    memset(value, 'v', sizeof value);
    for (size_t i = 0; i < KEYS; i++) {
        struct node *n = nodes[1 + i % (n_nodes - 1)];
        unsigned before = reports;
        snprintf(salt_of_key[i], sizeof salt_of_key[i], "k%zu", i);
        if (kad_put(node_kad(n), salt_of_key[i], strlen(salt_of_key[i]), value, sizeof value, false,
                    0, &reports, n->loop->now_ns) == 0)
            bench_die("put");
        host_kick(n->host);
        wait_reports(before + 1);
    }
}

static void get_one(struct node *n, unsigned flags)
{
    size_t i = (size_t)(bench_draw() % KEYS);
    const struct pubkey *pk = &keys[1 + i % (n_nodes - 1)];
    unsigned before = reports;

    if (kad_get(node_kad(n), pk, salt_of_key[i], strlen(salt_of_key[i]),
                KAD_GET_NETWORK | KAD_GET_NO_CACHE | flags, &reports, n->loop->now_ns) == 0)
        bench_die("get");
    host_kick(n->host);
    wait_reports(before + 1);
    if (last_err != 0)
        bench_die(err_str(last_err));
}

static uint64_t messages(struct node *n)
{
    struct kad_stat st;

    kad_stat(node_kad(n), &st);
    return st.lookup_messages;
}

/* Processor time that all nodes take in a second for their own affairs. */
static double own_affairs(void)
{
    double cpu = bench_cpu_s(), begin = bench_wall_s();

    run_for(2);
    return (bench_cpu_s() - cpu) / (bench_wall_s() - begin);
}

/* Processor time of a get, in ms, and requests of one, by the first getters in turn. What the nodes
 * do anyway meanwhile is taken off, as it is measured just before. */
static double gets(unsigned count, unsigned getters, double *per_get)
{
    uint64_t sent = 0;

    for (unsigned i = 1; i <= getters; i++)
        sent -= messages(nodes[i]);
    double own = own_affairs(), before = bench_cpu_s(), begin = bench_wall_s();
    for (unsigned i = 0; i < count; i++)
        get_one(nodes[1 + i % getters], 0);
    double took = bench_cpu_s() - before - own * (bench_wall_s() - begin);
    for (unsigned i = 1; i <= getters; i++)
        sent += messages(nodes[i]);
    *per_get = (double)sent / count;
    return took * 1000 / count;
}

/* ---- one round trip ---- */

static struct {
    size_t got;
    unsigned trips;
    bool open;
} trip;

static void trip_send(struct stream *st)
{
    char bytes[ASK_BYTES] = {0};

    if (stream_write(st, bytes, sizeof bytes) != (long)sizeof bytes)
        bench_die("round trip: no room");
}

static void trip_opened(struct stream *st, void *arg)
{
    (void)arg;
    trip.open = true;
    trip_send(st);
}

static void trip_readable(struct stream *st, void *arg)
{
    char bytes[4 * TELL_BYTES];

    (void)arg;
    trip.got += stream_read(st, bytes, sizeof bytes);
    while (trip.got >= TELL_BYTES) {
        trip.got -= TELL_BYTES;
        trip.trips++;
        trip_send(st);
    }
}

static void echo_readable(struct stream *st, void *arg)
{
    static const char answer[TELL_BYTES];
    char bytes[ASK_BYTES];

    (void)arg;
    while (stream_read(st, bytes, sizeof bytes) == sizeof bytes) {
        if (stream_write(st, answer, sizeof answer) != (long)sizeof answer)
            bench_die("round trip: no room");
    }
}

static void over(struct stream *st, void *arg, int err)
{
    (void)st;
    (void)arg;
    bench_die(err_str(err));
}

static const struct stream_cb trip_cb = {
    .opened = trip_opened, .readable = trip_readable, .ended = over};
static const struct stream_cb echo_cb = {.readable = echo_readable, .ended = over};
static struct stream *echo_end;

static void on_accept(void *arg, struct stream *st)
{
    (void)arg;
    echo_end = st;
    stream_set_cb(st, &echo_cb, NULL);
}

static void until_trips(unsigned n)
{
    for (double end = bench_wall_s() + WAIT_S; trip.trips < n;) {
        if (bench_wall_s() > end)
            bench_die("round trips do not go on");
        turn();
    }
}

/* Milliseconds of processor time of a round trip. */
static double round_trip(void)
{
    struct stream *st;

    echo_end = NULL;
    memset(&trip, 0, sizeof trip);
    if (client_listen(nodes[1]->client, ECHO_PORT, on_accept, NULL) < 0 ||
        client_dial(nodes[2]->client, &keys[1], ECHO_PORT, 20000, 0, &trip_cb, NULL, &st) < 0)
        bench_die("dial");
    until_trips(TRIPS / 4);
    double before = bench_cpu_s();
    unsigned first = trip.trips;
    until_trips(first + TRIPS);
    double ms = (bench_cpu_s() - before) * 1000 / (trip.trips - first);
    stream_abort(st);
    stream_abort(echo_end);
    client_unlisten(nodes[1]->client, ECHO_PORT);
    run_for(0.2);
    return ms;
}

/* ---- measurements ---- */

/* What nodes count as sent and received on their connections. */
static uint64_t tcp_bytes(size_t i)
{
    struct drive_tcp_stat st;

    drive_tcp_stat(nodes[i]->tcp, &st);
    return st.bytes_in + st.bytes_out;
}

/* Requests that all nodes but the relay's were sent. */
static void count_requests(double sum[KAD_METHOD__END], double sign)
{
    struct kad_stat st;

    for (size_t i = 0; i < n_nodes; i++) {
        kad_stat(node_kad(nodes[i]), &st);
        for (int m = 0; m < KAD_METHOD__END; m++)
            sum[m] += sign * (double)st.requests[m];
    }
}

static void measure_idle(void)
{
    const char *text = getenv("KADMSG_BENCH_IDLE_S");
    unsigned seconds = text != NULL ? (unsigned)atoi(text) : 120;
    char params[400];
    uint64_t bytes = 0;
    double r[KAD_METHOD__END] = {0};

    run_for(100); /* streams of the measurements before go */
    for (size_t i = 1; i < n_nodes; i++)
        bytes -= tcp_bytes(i);
    count_requests(r, -1);
    double before = bench_cpu_s();
    run_for(seconds);
    double cpu = bench_cpu_s() - before, nodes_n = (double)(n_nodes - 1);
    for (size_t i = 1; i < n_nodes; i++)
        bytes += tcp_bytes(i);
    count_requests(r, 1);
    double hourly = 3600.0 / seconds / nodes_n;
    snprintf(params, sizeof params,
             "{\"nodes\":%zu,\"seconds\":%u,\"extrapolated\":true,\"relay_included\":true,"
             "\"requests_an_hour\":{\"ping\":%.0f,\"find\":%.0f,\"get\":%.0f,\"put\":%.0f,"
             "\"list\":%.0f,\"put_many\":%.0f,\"watch\":%.0f}}",
             n_nodes, seconds, hourly * r[KAD_PING], hourly * r[KAD_FIND_NODE],
             hourly * r[KAD_GET_VALUE], hourly * r[KAD_PUT_VALUE], hourly * r[KAD_GET_ITEMS],
             hourly * r[KAD_PUT_BATCH], hourly * r[KAD_WATCH]);
    bench_report("dht_idle_traffic", params, (double)bytes / nodes_n * 86400 / seconds / 1e6,
                 "MB per day and node", cpu, 35);
    bench_report("dht_idle_cpu", params, cpu / nodes_n / seconds * 100,
                 "percent of a core and node", cpu, 0.1);
}

/* A client that knows the relay only, which is a full node. */
static void get_through_full(void)
{
    double trips[RUNS], ms[RUNS], begin = bench_cpu_s();
    char params[96];
    struct node *n;

    start_node(MAX_NODES, true);
    n = nodes[MAX_NODES];
    for (double end = bench_wall_s() + WAIT_S; peers_of(n) < 1;) {
        if (bench_wall_s() > end)
            bench_die("the client does not join");
        turn();
    }
    for (unsigned i = 0; i < WARM_UP; i++)
        get_one(n, KAD_GET_FIRST);
    uint64_t sent = messages(n);
    for (unsigned run = 0; run < RUNS; run++) {
        trips[run] = round_trip();
        double own = own_affairs(), before = bench_cpu_s(), wall = bench_wall_s();
        for (unsigned i = 0; i < GETS; i++)
            get_one(n, KAD_GET_FIRST);
        ms[run] = (bench_cpu_s() - before - own * (bench_wall_s() - wall)) * 1000 / GETS;
    }
    double per_get = (double)(messages(n) - sent) / (GETS * RUNS);
    snprintf(params, sizeof params, "{\"nodes\":%zu,\"messages\":%.2f}", n_nodes, per_get);
    bench_report("dht_get_full", params, bench_median(ms, RUNS), "ms", bench_cpu_s() - begin,
                 per_get * bench_median(trips, RUNS));
}

/* Gets and round trips in turn, so that both meet the same machine. */
static void measure_gets(const char *name, unsigned getters)
{
    char params[160];
    double per_get, cold_messages, trips[RUNS], ms[RUNS], begin = bench_cpu_s();

    put_all();
    run_for(15); /* what was put is handed on and settles */
    double cold = gets(COLD, 1, &cold_messages);
    (void)gets(WARM_UP * getters, getters, &per_get);
    for (unsigned run = 0; run < RUNS; run++) {
        trips[run] = round_trip();
        ms[run] = gets(GETS, getters, &per_get);
    }
    double trip_ms = bench_median(trips, RUNS);
    snprintf(params, sizeof params, "{\"nodes\":%zu,\"messages\":%.1f,\"gets\":%d,\"runs\":%d}",
             n_nodes, per_get, GETS, RUNS);
    bench_report(name, params, bench_median(ms, RUNS), "ms", bench_cpu_s() - begin,
                 per_get * trip_ms);
    if (n_nodes < MAX_NODES)
        return;
    bench_report("dht_messages", params, per_get, "requests", bench_cpu_s() - begin, KAD_K);
    snprintf(params, sizeof params, "{\"request\":%d,\"answer\":%d}", ASK_BYTES, TELL_BYTES);
    bench_report("dht_round_trip", params, trip_ms * 1000, "us", trip_ms * TRIPS * RUNS / 1000, 60);
    snprintf(params, sizeof params, "{\"nodes\":%zu,\"messages\":%.1f,\"gets\":%d}", n_nodes,
             cold_messages, COLD);
    bench_report("dht_get_cold", params, cold, "ms", cold * COLD / 1000, cold_messages * trip_ms);
    get_through_full();
}

/* ---- watches ---- */

static unsigned changes;

static bool on_change(void *arg, const struct kad_report *r)
{
    (void)arg;
    changes += r->type == KAD_OP_WATCH;
    return r->type == KAD_OP_WATCH || on_report(arg, r);
}

static size_t held(struct node *n)
{
    struct kad_watch_stat st;

    kad_watch_stat(node_kad(n), &st);
    return st.watched;
}

static void push_one(struct node *publisher, unsigned i)
{
    char salt[16], value[32];
    unsigned before = changes, puts = reports;

    snprintf(salt, sizeof salt, "w%u", i % PUSHED_SLOTS);
    snprintf(value, sizeof value, "change %u", i);
    if (kad_put(node_kad(publisher), salt, strlen(salt), value, strlen(value), false, 0, &reports,
                publisher->loop->now_ns) == 0)
        bench_die("put");
    host_kick(publisher->host);
    for (double end = bench_wall_s() + WAIT_S; changes == before || reports == puts;) {
        if (bench_wall_s() > end)
            bench_die("a change is not pushed");
        turn();
    }
}

/* One node watches, its only neighbours are the relay and a publisher. */
static void measure_watches(void)
{
    char params[96];

    start_network(3);
    struct node *watcher = nodes[2], *publisher = nodes[1];
    watcher->cfg.report = on_change;
    double idle = bench_cpu_s();
    run_for(30);
    idle = (bench_cpu_s() - idle) / 30;
    size_t heap = mallinfo2().uordblks;
    double begin = bench_cpu_s();
    for (unsigned i = 0; i < WATCHES; i++) {
        char salt[16];
        snprintf(salt, sizeof salt, "w%u", i);
        if (kad_watch(node_kad(watcher), &keys[1], salt, strlen(salt), NULL,
                      watcher->loop->now_ns) == 0)
            bench_die("watch");
    }
    host_kick(watcher->host);
    for (double end = bench_wall_s() + 600; held(nodes[0]) + held(publisher) < 2 * WATCHES;) {
        if (bench_wall_s() > end)
            bench_die("watches are not taken");
        turn();
    }
    double set_up = bench_cpu_s() - begin;
    run_for(2);
    snprintf(params, sizeof params, "{\"watches\":%d,\"servers\":2,\"set_up_cpu_s\":%.2f}", WATCHES,
             set_up);
    bench_report("dht_watch_bytes", params, (double)(mallinfo2().uordblks - heap) / WATCHES,
                 "bytes of three nodes", set_up, 1024);
    begin = bench_cpu_s();
    run_for(60);
    double cpu = bench_cpu_s() - begin;
    bench_report("dht_watch_cpu", params, (cpu / 60 - idle) * 100, "percent of a core, three nodes",
                 cpu, 1);
    begin = bench_cpu_s();
    for (unsigned i = 0; i < PUSHES; i++)
        push_one(publisher, i);
    cpu = bench_cpu_s() - begin;
    bench_report("dht_watch_push", params, cpu * 1000 / PUSHES, "ms", cpu, 1);
    stop_network();
}

/* ---- beside OpenDHT ---- */

static void compare(void)
{
    char line[512], command[256];
    bool any = false;

    start_network(32);
    measure_gets("dht_get_small", GETTERS);
    stop_network();
    const char *script = getenv("KADMSG_BENCH_OPENDHT");
    snprintf(command, sizeof command, "/usr/bin/python3 %s %d %d",
             script != NULL ? script : "tests/bench/opendht_get.py", 32, 200);
    FILE *f = popen(command, "r");
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        fputs(line, stdout);
        any = true;
    }
    if (f == NULL || pclose(f) != 0 || !any)
        fprintf(stderr, "bench_dht: no comparison, python3-opendht is not installed\n");
    fflush(stdout);
}

int main(int argc, char **argv)
{
    char why[64];

    if (crypto_init() != 0 || log_set_levels("error", why, sizeof why) < 0)
        bench_die("start");
    if ((base = event_base_new()) == NULL)
        bench_die("event base");
    const char *only = argc > 1 ? argv[1] : "";
    if (only[0] == '\0' || strcmp(only, "get") == 0 || strcmp(only, "idle") == 0) {
        start_network(MAX_NODES);
        if (strcmp(only, "idle") != 0)
            measure_gets("dht_get", GETTERS);
        if (strcmp(only, "get") != 0)
            measure_idle();
        stop_network();
    }
    if (only[0] == '\0' || strcmp(only, "small") == 0)
        compare();
    if (only[0] == '\0' || strcmp(only, "watch") == 0)
        measure_watches();
    event_base_free(base);
    return 0;
}
