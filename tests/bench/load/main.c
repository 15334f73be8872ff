#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/err.h"
#include "base/hex.h"
#include "base/log.h"
#include "tests/bench/load/load.h"

#define DIALS_AT_ONCE 64 /* of load_dial_all() */
#define SPARE_FDS     64

static const struct load_mode *const modes[] = {&mode_bulk, &mode_ping, &mode_open, &mode_sess,
                                                &mode_idle};
#define MODE_COPY  (sizeof modes / sizeof modes[0])
#define MODE_WORDS "bulk|ping|open|sess|idle|copy|floor|entries|puts|transports"

static struct load load;

/* ---- command line ---- */

#define O struct load_opts
static const struct cmd_opt args[] = {
    {.name = "MODE",
     CMD_CHOICE_AT(O, mode),
     .choices = MODE_WORDS,
     .help =
         "what to measure: bulk, ping, open, sess or idle; copy and floor are ceilings; "
         "entries and transports print signed ones, puts gives items to the nodes of a network"},
    {0},
};
static const struct cmd_opt flags[] = {
    {.name = "addr",
     CMD_LISTEN_AT(O, addr),
     .def = "127.0.0.1:0",
     .help = "the server; of copy, where it listens"},
    {.name = "pk", CMD_PUBKEY_AT(O, pk), .help = "public key of the server"},
    {.name = "pid",
     CMD_U64_AT(O, pid),
     .min = 1,
     .max = INT32_MAX,
     .help = "process of the server, to be measured"},
    {.name = "pairs",
     CMD_U64_AT(O, pairs),
     .min = 1,
     .def = "1",
     .help = "pairs of clients that talk to each other"},
    {.name = "streams",
     CMD_U64_AT(O, streams),
     .def = "1",
     .help = "streams of each pair; of idle, of all pairs together"},
    {.name = "write",
     CMD_BYTES_AT(O, write),
     .min = 1,
     .max = 65536,
     .def = "4096",
     .help = "size of a write"},
    {.name = "seconds", CMD_SECONDS_AT(O, seconds_ns), .min = 1, .def = "5", .help = "duration"},
    {.name = "size",
     CMD_BYTES_AT(O, size),
     .min = 1,
     .max = 65536,
     .def = "64",
     .help = "size of a message"},
    {.name = "count",
     CMD_U64_AT(O, count),
     .min = 1,
     .max = 10000000,
     .def = "1000",
     .help = "messages, or sessions"},
    {.name = "inflight",
     CMD_U64_AT(O, inflight),
     .min = 2,
     .def = "32",
     .help = "sessions or streams under way at once"},
    {.name = "sessions",
     CMD_U64_AT(O, sessions),
     .min = 1,
     .max = 1000000,
     .def = "1000",
     .help = "idle sessions"},
    {.name = "keys", CMD_U64_AT(O, keys), .min = 1, .def = "500", .help = "keys that publish"},
    {.name = "slots",
     CMD_U64_AT(O, slots),
     .min = 1,
     .max = 50,
     .def = "4",
     .help = "slots of each key"},
    {.name = "hold", CMD_SECONDS_AT(O, hold_ns), .def = "5", .help = "how long all stays idle"},
    {.name = "e2e", CMD_FLAG_AT(O, e2e), .help = "seal the streams end to end"},
    {.name = "bare",
     CMD_FLAG_AT(O, bare),
     .help = "the server is a byte-copying relay (copy): clients talk to each other"},
    {0},
};
#undef O

static int run(struct cmdline *cl);
static const struct cmd root = {
    .name = "kadmsg-load",
    .help = "load generator for dmsg servers",
    .about = "Prints one JSON object: mode, parameters, value, unit, server_cpu_s, driver_cpu_s, "
             "server_rss_kib, errors and more.\n\n"
             "bulk    throughput:       --pairs --streams --write --seconds [--e2e] [--bare]\n\n"
             "ping    round trips:      --size --count [--e2e] [--bare]\n\n"
             "open    stream set-up:    --pairs --inflight --seconds [--e2e]\n\n"
             "sess    session set-up:   --count --inflight\n\n"
             "idle    memory:           --sessions --streams --inflight --hold\n\n"
             "puts    puts for tests:   --keys --slots\n\n"
             "copy    runs a bare byte-copying relay at --addr: what no server can beat\n\n"
             "floor   the cost of single cryptographic operations: likewise",
    .args = args,
    .opts = flags,
    .opts_size = sizeof(struct load_opts),
    .run = run,
};

/* A flag that the mode does not know is a mistake. */
static const char *stray_flag(const struct cmdline *cl, const char *known)
{
    char word[32];
    for (const struct cmd_opt *o = flags + 3; o->name != NULL; o++) { /* addr, pk, pid: all */
        snprintf(word, sizeof word, " %s ", o->name);
        if (strstr(known, word) == NULL && cmdline_given(cl, o->name))
            return o->name;
    }
    return NULL;
}

/* ---- for the modes ---- */

void load_error(struct load *l, const char *what, int err)
{
    if (l->errors++ == 0)
        snprintf(l->first_error, sizeof l->first_error, "%s: %s", what, err_str(err));
}

void load_fail(struct load *l, const char *what, int err)
{
    load_error(l, what, err);
    l->failed_hard = true;
    drive_loop_stop(l->drive);
}

static void take(struct load *l, struct usage *u)
{
    int rc = usage_take(u, l->o.pid);
    if (rc < 0)
        load_fail(l, "server process", rc);
}

void load_begin(struct load *l)
{
    take(l, &l->before);
}

void load_end(struct load *l)
{
    take(l, &l->after);
    drive_loop_stop(l->drive);
}

void load_after(struct load *l, uint64_t ns, void (*fn)(struct loop_timer *t))
{
    l->timer.fn = fn;
    loop_timer_set(l->loop, &l->timer, drive_loop_now(l->drive) + ns);
}

void load_sample(struct load *l, uint64_t ns)
{
    if (l->n_samples == l->samples_cap) {
        size_t cap = l->samples_cap > 0 ? l->samples_cap * 2 : 1024;
        uint64_t *more = reallocarray(l->samples, cap, sizeof *more);
        if (more == NULL) {
            load_fail(l, "samples", ERR_NOMEM);
            return;
        }
        l->samples = more;
        l->samples_cap = cap;
    }
    l->samples[l->n_samples++] = ns;
}

static int cmp_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

uint64_t load_percentile(struct load *l, unsigned percent)
{
    if (l->n_samples == 0)
        return 0;
    qsort(l->samples, l->n_samples, sizeof *l->samples, cmp_u64);
    return l->samples[(l->n_samples - 1) * percent / 100];
}

double load_wall_s(const struct load *l)
{
    return (double)(l->after.wall_ns - l->before.wall_ns) / 1e9;
}

double load_server_cpu_s(const struct load *l)
{
    return (double)(l->after.server_cpu_ns - l->before.server_cpu_ns) / 1e9;
}

double load_driver_cpu_s(const struct load *l)
{
    return (double)(l->after.driver_cpu_ns - l->before.driver_cpu_ns) / 1e9;
}

/* ---- streams of all pairs ---- */

static void dial_some(struct load *l)
{
    while (l->flows_started < l->flows_wanted && !l->failed_hard &&
           l->flows_started - l->flows_open < DIALS_AT_ONCE) {
        size_t pair = l->flows_started++ % (l->n_ends / 2);
        if (!flow_dial(&l->ends[pair * 2]))
            return;
    }
}

void load_dial_all(struct load *l, size_t streams)
{
    l->flows_wanted = streams;
    dial_some(l);
}

void load_opened(struct flow *f)
{
    struct load *l = load_of_flow(f);
    if (f->dialled && l->flows_wanted > 0) {
        l->flows_open++;
        dial_some(l);
    }
    l->mode->opened(f);
}

/* ---- report ---- */

void report_number(struct json_out *o, const char *name, double v)
{
    char text[32];
    int n = snprintf(text, sizeof text, "%.4f", v);
    json_out_name(o, name);
    if (v != v || v > 1e15) /* divided by nothing */
        json_out_null(o);
    else
        json_out_raw(o, text, (size_t)n);
}

void report_server(struct load *l, struct json_out *o, const char *name, double v)
{
    if (l->o.pid != 0) {
        report_number(o, name, v);
        return;
    }
    json_out_name(o, name);
    json_out_null(o);
}

static void report_u64(struct json_out *o, const char *name, uint64_t v)
{
    json_out_name(o, name);
    json_out_u64(o, v);
}

/* The flags of this mode, with the values that were used. */
static void report_parameters(struct load *l, struct json_out *o)
{
    json_out_name(o, "parameters");
    json_out_object(o);
    for (const struct cmd_opt *f = flags + 3; f->name != NULL; f++) {
        char word[32];
        const void *at = (const char *)&l->o + f->offset;
        snprintf(word, sizeof word, " %s ", f->name);
        if (strstr(l->mode->flags, word) == NULL)
            continue;
        json_out_name(o, f->name);
        if (f->type == CMD_FLAG) {
            json_out_bool(o, *(const bool *)at);
        } else if (f->type == CMD_SECONDS) {
            char text[32];
            int n = snprintf(text, sizeof text, "%g", (double)*(const uint64_t *)at / 1e9);
            json_out_raw(o, text, (size_t)n);
        } else {
            json_out_u64(o, *(const uint64_t *)at);
        }
    }
    json_out_object_end(o);
}

static void report(struct load *l)
{
    struct json_out o;
    json_out_grow(&o, JSON_FAST, 65536);
    json_out_object(&o);
    json_out_name(&o, "mode");
    json_out_str(&o, l->mode->name);
    report_parameters(l, &o);
    l->mode->report(l, &o);
    report_number(&o, "wall_s", load_wall_s(l));
    report_server(l, &o, "server_cpu_s", load_server_cpu_s(l));
    report_number(&o, "driver_cpu_s", load_driver_cpu_s(l));
    report_server(l, &o, "server_rss_kib", (double)l->after.rss_kib);
    report_server(l, &o, "server_rss_anon_kib", (double)l->after.anon_kib);
    report_u64(&o, "retries", l->retries);
    report_u64(&o, "errors", l->errors);
    if (l->errors > 0) {
        json_out_name(&o, "first_error");
        json_out_str(&o, l->first_error);
    }
    json_out_object_end(&o);
    printf("%.*s\n", (int)o.len, o.p);
    json_out_free(&o);
}

/* ---- start ---- */

static int resolve(struct load *l)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *res = NULL;
    char port[8];
    snprintf(port, sizeof port, "%u", l->o.addr.port);
    if (getaddrinfo(l->o.addr.host, port, &hints, &res) != 0)
        return ERR_NOT_FOUND;
    memcpy(&l->to, res->ai_addr, res->ai_addrlen);
    l->to_len = res->ai_addrlen;
    freeaddrinfo(res);
    return 0;
}

/* Room for so many sockets; only root can go above the hard limit. */
static int descriptors(size_t n)
{
    struct rlimit lim;
    n += SPARE_FDS;
    if (getrlimit(RLIMIT_NOFILE, &lim) < 0)
        return err_sys();
    if (lim.rlim_cur >= n)
        return 0;
    if (lim.rlim_max < n)
        lim.rlim_max = n;
    lim.rlim_cur = n;
    return setrlimit(RLIMIT_NOFILE, &lim) < 0 ? err_sys() : 0;
}

/* All of them at once are open in every mode but sess. */
static size_t sockets_at_once(const struct load *l)
{
    return l->mode == &mode_sess && l->o.inflight < l->n_ends ? l->o.inflight * 2 : l->n_ends;
}

static int start(struct load *l)
{
    int rc = env_sys_init(&l->sys);
    if (rc < 0)
        return rc;
    pattern_init();
    if ((l->drive = drive_loop_new(NULL)) == NULL || (l->pool = bufpool_new(NULL)) == NULL ||
        (l->tcp = drive_tcp_new(l->drive, l->pool)) == NULL ||
        (l->ends = calloc(l->n_ends, sizeof *l->ends)) == NULL)
        return ERR_NOMEM;
    l->loop = drive_loop_loop(l->drive);
    drive_loop_now(l->drive);
    for (size_t i = 0; i < l->n_ends; i++) {
        l->ends[i].load = l;
        env_keypair(&l->sys.env, &l->ends[i].sk, &l->ends[i].pk);
    }
    return resolve(l);
}

static int failed(const char *what, int err)
{
    fprintf(stderr, "kadmsg-load: %s: %s\n", what, err_str(err));
    return CMD_EXIT_FAIL;
}

static int drive(struct load *l)
{
    l->n_ends = l->mode->ends(&l->o);
    int rc = descriptors(sockets_at_once(l));
    if (rc < 0)
        return failed("descriptors for so many sessions", rc);
    if ((rc = start(l)) < 0)
        return failed("start", rc);
    if ((rc = usage_take(&l->first, l->o.pid)) < 0)
        return failed("server process", rc);
    l->before = l->first;
    ends_start(l);
    if (!l->failed_hard && (rc = drive_loop_run(l->drive)) < 0)
        return failed("event loop", rc);
    if (l->failed_hard) {
        fprintf(stderr, "kadmsg-load: %s\n", l->first_error);
        return CMD_EXIT_FAIL;
    }
    report(l);
    return l->errors > 0 ? CMD_EXIT_FAIL : CMD_EXIT_OK;
}

static int run(struct cmdline *cl)
{
    struct load *l = &load;
    l->o = *(const struct load_opts *)cl->opts;
    bool copy = l->o.mode == MODE_COPY, drives = l->o.mode < (int)MODE_COPY;
    l->mode = drives ? modes[l->o.mode] : NULL;
    bool entries = l->o.mode == (int)MODE_COPY + 2, puts = l->o.mode == (int)MODE_COPY + 3;
    bool transports = l->o.mode == (int)MODE_COPY + 4;
    const char *own = entries      ? " count bare "
                      : transports ? " count "
                      : puts       ? " keys slots "
                                   : "";
    const char *stray = stray_flag(cl, drives ? l->mode->flags : own);
    if (stray != NULL)
        return cmdline_usage_error(cl, "--%s does not belong to this mode", stray);
    signal(SIGPIPE, SIG_IGN);
    if (copy)
        return copy_run(l);
    if (entries)
        return entries_run(&l->o);
    if (transports)
        return transports_run(&l->o);
    if (!drives && !puts)
        return floor_run();
    if (l->o.addr.port == 0 || (!l->o.bare && !cmdline_given(cl, "pk")))
        return cmdline_usage_error(cl, "--addr and --pk say which server");
    if (l->o.bare && l->o.e2e)
        return cmdline_usage_error(cl, "--bare has no clients that could seal");
    return puts ? puts_run(&l->o) : drive(l);
}

int main(int argc, char **argv)
{
    char why[64];
    if (crypto_init() < 0 || log_set_levels("error", why, sizeof why) < 0)
        return failed("start", ERR_NOMEM);
    return cmdline_main(&root, argc, argv);
}
