/*
 * iperf - throughput and latency between two keys: `kadmsg iperf` and its server. The streams are described in iperf_flow.h.
 *
 * Client: one echo stream measures the round trip, first with nothing else under way, then beside the load; `parallel` streams up, down or both carry checked bytes for
 * `time_ns`. Rates are the receiver's: of down by our own sink, of up as the server tells. Intervals and the result are given as JSON objects to the caller, who prints
 * them.
 *
 * Server: serves any number of clients until it is told to stop, IPERF_CONNS streams at once; a stream without a head after IPERF_HEAD_NS, or on which nothing has moved for
 * IPERF_IDLE_NS, is closed. Nothing is kept.
 *
 *     {"event": "interval", "from", "to", "up_bytes", "down_bytes", "rtt_ms"}     seconds; rtt_ms: the median, null = no answer in it
 *     {"event": "result", "public_key", "port", "direction", "parallel", "block", "seconds", "setup_ms",
 *      "up": {"bytes", "seconds", "mbit_s", "wrong_bytes", "streams": [bytes]} | null, "down": … | null,
 *      "latency": {"idle": {"count", "min_ms", "p50_ms", "p99_ms", "max_ms"} | null, "loaded": …}}
 *
 * Threads: the caller's; both run until their end or *stop. One client per call.
 *
 * Errors: 0, or an error with its text in net->failure (also a wrong byte: ERR_CORRUPT).
 */
#pragma once

#include <jansson.h>
#include <signal.h>

#include "apps/net.h"
#include "apps/whitelist.h"

#define IPERF_PARALLEL 64
#define IPERF_CONNS    256
#define IPERF_HEAD_NS  UINT64_C(10000000000)
#define IPERF_IDLE_NS  UINT64_C(60000000000)

struct iperf_cfg {
    struct pubkey pk;
    uint16_t port;
    bool up, down; /* at least one */
    unsigned parallel;
    uint32_t block;
    uint64_t time_ns, idle_ns,
        interval_ns; /* idle_ns 0: no latency without load; interval_ns 0: no intervals */
    const volatile sig_atomic_t *stop;
    void (*report)(void *arg, json_t *o); /* takes o over */
    void *arg;
};

int iperf_run(struct app_net *net, const struct iperf_cfg *cfg) __attribute__((warn_unused_result));

struct iperf_server_cfg {
    uint16_t port;
    const struct whitelist *whitelist; /* NULL or empty = everybody */
    const volatile sig_atomic_t *stop;
    void (*ready)(void *arg, const struct pubkey *pk, uint16_t port);
    /* A stream that carried data ended; mode as in iperf_flow.h. */
    void (*ended)(void *arg, const struct pubkey *pk, bool up, uint64_t bytes, uint64_t wrong);
    void *arg;
};

int iperf_serve(struct app_net *net, const struct iperf_server_cfg *cfg)
    __attribute__((warn_unused_result));
