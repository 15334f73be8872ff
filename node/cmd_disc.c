/*
 * The dmsg discovery as a daemon, with the flags of upstream's (docs/protocol/services.md §3.7).
 *
 * With a secret key it is also served over dmsg port 80: a node of this process joins the servers that have registered here, through its own HTTP address.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "base/env_sys.h"
#include "base/err.h"
#include "base/log.h"
#include "compat-http/disc_service.h"
#include "compat-http/kv_open.h"
#include "compat-http/mirror_disc.h"
#include "node/cmds.h"
#include "node/keyfile.h"
#include "node/mirroring.h"
#include "node/node_int.h"
#include "node/tool.h"
#include "node/tool_key.h"

#define DMSG_PORT      80
#define DMSG_RATE      100
#define DMSG_BURST     200
#define DMSG_SESSIONS  16
#define REDIS_ATTEMPTS 10
#define GATHER_NS      (5 * NS_PER_S)

struct disc_opts {
    const char *addr, *redis, *store, *whitelist, *official, *auth, *metrics, *keyfile, *config,
        *tag, *syslog, *server_type, *log_level, *mirror_redis;
    struct cmd_peers bootstrap;
    const char *ignored;
    uint64_t entry_timeout, dmsg_port, commit;
    bool test_mode, load_testing, test_environment, ready, trust_proxy;
    int generation, mode;
    struct seckey sk;
};

static const struct cmd_opt opts[] = {
    {.name = "addr",
     .letter = 'a',
     CMD_STR_AT(struct disc_opts, addr),
     .def = ":9090",
     .metavar = "HOST:PORT",
     .help = "listen on this address; port 0 takes a free one"},
    {.name = "port",
     .letter = 'p',
     CMD_STR_AT(struct disc_opts, addr),
     .metavar = "HOST:PORT",
     .help = "the same as --addr"},
    {.name = "redis",
     CMD_STR_AT(struct disc_opts, redis),
     .metavar = "URL",
     .def_text = "an LMDB store",
     .help = "keep entries in this Redis, in upstream's layout; REDIS_PASSWORD is its password"},
    {.name = "redisurl",
     .letter = 'u',
     CMD_STR_AT(struct disc_opts, redis),
     .metavar = "URL",
     .help = "the same as --redis"},
    {.name = "store",
     CMD_STR_AT(struct disc_opts, store),
     .metavar = "DIR",
     .def_text = "disc in the state directory",
     .help = "where entries are kept without --redis"},
    {.name = "commit",
     CMD_SECONDS_AT(struct disc_opts, commit),
     .def = "2ms",
     .min = 1000000,
     .max = UINT64_C(1000000000),
     .help = "registrations that come within this time are one write to disk"},
    {.name = "whitelist-keys",
     CMD_STR_AT(struct disc_opts, whitelist),
     .metavar = "KEYS",
     .help = "network monitors that may deregister, separated by commas"},
    {.name = "whitelist",
     .letter = 'w',
     CMD_STR_AT(struct disc_opts, whitelist),
     .metavar = "KEYS",
     .help = "the same as --whitelist-keys"},
    {.name = "entry-timeout",
     CMD_SECONDS_AT(struct disc_opts, entry_timeout),
     .def = "60m",
     .help = "life of a client's entry; 0 is for ever"},
    {.name = "test-mode",
     .letter = 't',
     CMD_FLAG_AT(struct disc_opts, test_mode),
     .help = "let servers have loopback addresses"},
    {.name = "testmode",
     CMD_FLAG_AT(struct disc_opts, test_mode),
     .help = "the same as --test-mode"},
    {.name = "enable-load-testing",
     CMD_FLAG_AT(struct disc_opts, load_testing),
     .help = "check neither signatures nor times nor sequence numbers"},
    {.name = "test-environment",
     CMD_FLAG_AT(struct disc_opts, test_environment),
     .help = "nothing: there are no built-in lists"},
    {.name = "auth",
     CMD_STR_AT(struct disc_opts, auth),
     .metavar = "TEXT",
     .help = "servers that send this passphrase are official"},
    {.name = "official-servers",
     CMD_STR_AT(struct disc_opts, official),
     .metavar = "KEYS",
     .help = "servers that are official, separated by commas"},
    {.name = "sk",
     CMD_SECKEY_AT(struct disc_opts, sk),
     .def_text = "not served over dmsg",
     .help = "secret key: serve over dmsg too; others on this machine can see it, --keyfile is "
             "better"},
    {.name = "keyfile",
     CMD_STR_AT(struct disc_opts, keyfile),
     .metavar = "FILE",
     .help = "file of the secret key, made when it is missing"},
    {.name = "dmsg-port",
     CMD_U64_AT(struct disc_opts, dmsg_port),
     .def = "80",
     .min = 1,
     .max = 65535,
     .metavar = "PORT",
     .help = "port of the dmsg address"},
    {.name = "dmsgPort",
     CMD_U64_AT(struct disc_opts, dmsg_port),
     .min = 1,
     .max = 65535,
     .metavar = "PORT",
     .help = "the same as --dmsg-port"},
    {.name = "mode",
     CMD_CHOICE_AT(struct disc_opts, mode),
     .choices = "auto|http|dual",
     .def = "auto",
     .help = "dual, with a key, serves over dmsg too"},
    {.name = "metrics",
     .letter = 'm',
     CMD_STR_AT(struct disc_opts, metrics),
     .metavar = "HOST:PORT",
     .help = "serve /metrics on this address"},
    {.name = "config",
     .letter = 'c',
     CMD_STR_AT(struct disc_opts, config),
     .metavar = "FILE",
     .help = "JSON file with upstream's names for these settings; unknown ones are refused"},
    {.name = "bootstrap",
     CMD_PEERS_AT(struct disc_opts, bootstrap),
     .help = "full node of the DHT that entries are mirrored to; needs a key, which the full node "
             "has to have as --mirror"},
    {.name = "mirror-redis",
     CMD_STR_AT(struct disc_opts, mirror_redis),
     .metavar = "URL",
     .help = "mirror entries into this Redis, as items that Go full nodes load; needs a key; "
             "REDIS_PASSWORD is its password"},
    {.name = "generation",
     CMD_CHOICE_AT(struct disc_opts, generation),
     .choices = "2023|2024|2026",
     .def = "2026",
     .help = "whose layout to keep: 2023 writes no serverType and gives clients no life"},
    {.name = "trust-proxy",
     CMD_FLAG_AT(struct disc_opts, trust_proxy),
     .help = "believe address headers and PROXY lines of every host, not only of this one"},
    {.name = "dmsg-server-type",
     CMD_STR_AT(struct disc_opts, server_type),
     .metavar = "TYPE",
     .help = "taken for compatibility; every server is used"},
    {.name = "tag",
     CMD_STR_AT(struct disc_opts, tag),
     .metavar = "TEXT",
     .help = "taken for compatibility"},
    {.name = "syslog",
     CMD_STR_AT(struct disc_opts, syslog),
     .metavar = "HOST:PORT",
     .help = "taken for compatibility: the log goes to standard error, for the journal"},
    {.name = "syslog-net", CMD_STR_AT(struct disc_opts, ignored), .help = "see --syslog"},
    {.name = "syslog-lvl", CMD_STR_AT(struct disc_opts, ignored), .help = "see --syslog"},
    {.name = "pprofmode", CMD_STR_AT(struct disc_opts, ignored), .help = "taken for compatibility"},
    {.name = "pprofaddr", CMD_STR_AT(struct disc_opts, ignored), .help = "taken for compatibility"},
    {.name = "log-level",
     CMD_STR_AT(struct disc_opts, log_level),
     .def = "info",
     .metavar = "LEVELS",
     .help = "error, warn, info, debug or trace"},
    {.name = "ready",
     CMD_FLAG_AT(struct disc_opts, ready),
     .help = "print one JSON line on stdout when it serves"},
    {0}};

/* ---- the configuration file ---- */

static const struct {
    const char *member, *flag; /* flag NULL: known, and nothing to do */
} config_names[] = {
    {"addr", "addr"},
    {"mode", "mode"},
    {"dmsg_port", "dmsg-port"},
    {"redis", "redis"},
    {"redis_pool_size", NULL},
    {"entry_timeout", "entry-timeout"},
    {"log_level", "log-level"},
    {"tag", "tag"},
    {"metrics_addr", "metrics"},
    {"pprof_addr", NULL},
    {"testing", "test-mode"},
    {"survey_whitelist", NULL},
    {"test_environment", "test-environment"},
    {"auth_passphrase", "auth"},
    {"official_servers", "official-servers"},
    {"charts_addr", NULL},
    {"dmsg_server_type", "dmsg-server-type"},
    {"enable_load_testing", "enable-load-testing"},
    {"whitelist_keys", "whitelist-keys"},
    {"dmsg_servers", NULL},
    {"secret_key", "sk"},
    {"public_key", NULL},
};

/* A list becomes a text with commas. */
static void value_text(const json_t *v, char *out, size_t cap)
{
    size_t i, n = 0;
    const json_t *e;
    if (json_is_boolean(v))
        snprintf(out, cap, "%s", json_is_true(v) ? "true" : "false");
    else if (json_is_integer(v))
        snprintf(out, cap, "%lld", (long long)json_integer_value(v));
    else
        snprintf(out, cap, "%s", json_is_string(v) ? json_string_value(v) : "");
    json_array_foreach(v, i, e)
    {
        n += (size_t)snprintf(out + n, cap > n ? cap - n : 0, "%s%s", i > 0 ? "," : "",
                              json_is_string(e) ? json_string_value(e) : "");
        n = n < cap ? n : cap;
    }
}

static int config_member(struct cmdline *cl, const char *path, const char *name, const json_t *v)
{
    char text[65536], why[200];
    for (size_t i = 0; i < sizeof(config_names) / sizeof(config_names[0]); i++) {
        if (strcmp(config_names[i].member, name) != 0)
            continue;
        if (config_names[i].flag == NULL || json_is_null(v))
            return 0;
        value_text(v, text, sizeof(text));
        if (cmdline_set(cl, config_names[i].flag, text, why, sizeof(why)) < 0)
            return tool_fail(ERR_FORMAT, "%s: \"%s\": %s", path, name, why);
        return 0;
    }
    return tool_fail(ERR_FORMAT, "%s: no such setting: \"%.100s\"", path, name);
}

static int config_read(struct cmdline *cl, const char *path)
{
    json_error_t je;
    const char *name;
    json_t *root = json_load_file(path, 0, &je), *v;
    int rc = 0;
    if (!json_is_object(root)) {
        json_decref(root);
        return tool_fail(ERR_FORMAT, "%s: %s", path, root == NULL ? je.text : "not an object");
    }
    json_object_foreach(root, name, v)
    {
        rc = rc == 0 ? config_member(cl, path, name, v) : rc;
    }
    json_decref(root);
    return rc;
}

/* ---- the daemon ---- */

struct daemon {
    const struct disc_opts *o;
    struct drive_loop *drive;
    struct env_sys env;
    struct kv_open store;
    struct disc_service *disc;
    struct mirroring *mirroring;
    struct mirror_disc *walk;
    struct service *service, *metrics;
    struct node *node; /* over dmsg; NULL = not */
    struct pubkey pk;
    struct seckey sk;
    bool has_key, stopping;
    struct event *sigint, *sigterm;
    /* Redis at the start */
    bool known;
    int redis_err;
    unsigned attempts;
    char why[200];
    /* lists of the command line, cut in place */
    char *lists[2];
    const char **monitors;
    struct pubkey *official;
    size_t n_monitors, n_official;
    char address[ADDR_DMSG_MAX + 1], url[128];
};

static size_t count_words(const char *text)
{
    size_t n = text != NULL && *text != '\0';
    for (; text != NULL && *text != '\0'; text++)
        n += *text == ',';
    return n;
}

static int read_lists(struct daemon *m)
{
    const char *texts[] = {m->o->whitelist, m->o->official};
    for (int i = 0; i < 2; i++) {
        size_t n = count_words(texts[i]);
        char *rest, *word;
        m->lists[i] = strdup(texts[i] != NULL ? texts[i] : "");
        if (i == 0)
            m->monitors = calloc(n + 1, sizeof(*m->monitors));
        else
            m->official = calloc(n + 1, sizeof(*m->official));
        if (m->lists[i] == NULL || (i == 0 ? m->monitors == NULL : m->official == NULL))
            return tool_fail(ERR_NOMEM, "%s", err_str(ERR_NOMEM));
        rest = m->lists[i];
        while ((word = strsep(&rest, ",")) != NULL) {
            struct pubkey pk;
            if (*word == '\0')
                continue;
            if (pubkey_from_hex(&pk, word, strlen(word)) < 0)
                return tool_fail(ERR_USAGE, "%s: %.80s is not a public key",
                                 i == 0 ? "--whitelist-keys" : "--official-servers", word);
            if (i == 0)
                m->monitors[m->n_monitors++] = word;
            else
                m->official[m->n_official++] = pk;
        }
    }
    return 0;
}

static void on_redis(void *arg, int err, const char *why)
{
    struct daemon *m = arg;
    m->redis_err = err;
    snprintf(m->why, sizeof(m->why), "%s", why);
    m->attempts += err != 0;
    m->known = err == 0 || err == ERR_REFUSED || m->attempts >= REDIS_ATTEMPTS;
}

static int open_store(struct daemon *m)
{
    char dir[PATHS_MAX], why[512];
    const struct disc_opts *o = m->o;
    if (o->store != NULL) {
        snprintf(dir, sizeof(dir), "%s", o->store);
    } else if (o->redis == NULL) {
        char state[PATHS_MAX];
        int rc = paths_state(state);
        if (rc == 0)
            rc = paths_join(dir, state, "disc");
        if (rc < 0)
            return tool_fail(rc, "state directory: %s", err_str(rc));
    }
    struct kv_open_cfg cfg = {
        .drive = m->drive,
        .env = &m->env.env,
        .redis = o->redis,
        .password = getenv("REDIS_PASSWORD"),
        .dir = dir,
        .commit_ms = (unsigned)(o->commit / 1000000),
        .state = on_redis,
        .arg = m,
    };
    int rc = kv_open(&m->store, &cfg, why, sizeof(why));
    if (rc < 0)
        return tool_fail(rc, "%s", why);
    while (o->redis != NULL && !m->known && !m->stopping)
        event_base_loop(drive_loop_base(m->drive), EVLOOP_ONCE);
    return o->redis != NULL && m->redis_err != 0 ? tool_fail(m->redis_err, "redis: %s", m->why) : 0;
}

static void write_metrics(struct daemon *m, FILE *f)
{
    struct disc_service_stat d;
    struct service_stat s;
    struct kv_stat k;
    disc_service_stat(m->disc, &d);
    service_stat(m->service, &s);
    kv_stat(m->store.kv, &k);
    fprintf(f,
            "# TYPE dmsg_discovery_clients_count gauge\ndmsg_discovery_clients_count %zu\n"
            "# TYPE dmsg_discovery_servers_count gauge\ndmsg_discovery_servers_count %zu\n"
            "# TYPE vm_request_ongoing_count gauge\nvm_request_ongoing_count %zu\n"
            "# TYPE kadmsg_disc_requests_total counter\n",
            d.clients, d.servers, s.requests);
    for (unsigned i = 2; i < 6; i++)
        fprintf(f, "kadmsg_disc_requests_total{code=\"%uxx\"} %llu\n", i,
                (unsigned long long)s.status[i]);
    fprintf(f,
            "# TYPE kadmsg_disc_connections gauge\nkadmsg_disc_connections %zu\n"
            "# TYPE kadmsg_disc_posts_total counter\nkadmsg_disc_posts_total %llu\n"
            "# TYPE kadmsg_disc_refused_total counter\nkadmsg_disc_refused_total %llu\n"
            "# TYPE kadmsg_disc_store_errors_total counter\nkadmsg_disc_store_errors_total %llu\n"
            "# TYPE kadmsg_disc_store_pending gauge\nkadmsg_disc_store_pending %zu\n"
            "# TYPE kadmsg_disc_heartbeats_gathered gauge\nkadmsg_disc_heartbeats_gathered %zu\n"
            "# TYPE kadmsg_disc_heartbeats_lost_total counter\n"
            "kadmsg_disc_heartbeats_lost_total %llu\n",
            s.conns, (unsigned long long)d.posts, (unsigned long long)d.refused,
            (unsigned long long)d.store_errors, k.pending, d.uptime.gathered,
            (unsigned long long)d.uptime.lost);
    mirroring_metrics(m->mirroring, f, "kadmsg_disc");
}

static void handle_metrics(struct service_req *q)
{
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    if (f != NULL) {
        write_metrics(q->app, f);
        fclose(f);
    }
    service_answer(q, text != NULL ? 200 : 500, "text/plain; version=0.0.4; charset=utf-8",
                   text != NULL ? text : "", n);
    free(text);
}

static const struct service_route metrics_routes[] = {{SERVICE_GET, "/metrics", handle_metrics, 0}};

/* ---- into the DHT ---- */

static void on_stored(void *arg, const struct entry *e, const char *text, size_t n)
{
    struct daemon *m = arg;
    mirror_entry(mirroring_mirror(m->mirroring), e, text, n);
}

static void on_deleted(void *arg, const struct pubkey *pk)
{
    struct daemon *m = arg;
    mirror_delete(mirroring_mirror(m->mirroring), "dmsg", pk);
}

static void on_again(void *arg)
{
    struct daemon *m = arg;
    if (m->walk != NULL)
        mirror_disc_again(m->walk);
}

static int open_mirror(struct daemon *m)
{
    const struct disc_opts *o = m->o;
    struct mirroring_cfg cfg = {
        .drive = m->drive,
        .env = &m->env.env,
        .pk = m->pk,
        .sk = m->sk,
        .redis = o->mirror_redis,
        .password = getenv("REDIS_PASSWORD"),
        .n_full = o->bootstrap.n,
        .again = on_again,
        .arg = m,
    };
    if ((o->mirror_redis != NULL || o->bootstrap.n > 0) && !m->has_key)
        return tool_fail(ERR_USAGE, "--bootstrap and --mirror-redis need --keyfile or --sk: items "
                                    "are signed");
    int rc = mirroring_open(&m->mirroring, &cfg);
    seckey_wipe(&cfg.sk);
    if (rc < 0)
        return tool_fail(rc, "mirror: %s", rc == ERR_FORMAT ? "not a Redis URL" : err_str(rc));
    if (m->mirroring == NULL)
        return 0;
    m->walk =
        mirror_disc_new(mirroring_mirror(m->mirroring), m->store.kv, drive_loop_loop(m->drive));
    return m->walk != NULL ? 0 : tool_fail(ERR_NOMEM, "mirror: %s", err_str(ERR_NOMEM));
}

static int open_service(struct daemon *m)
{
    const struct disc_opts *o = m->o;
    struct disc_service_cfg disc = {
        .env = &m->env.env,
        .loop = drive_loop_loop(m->drive),
        .kv = m->store.kv,
        .generation = (enum disc_generation)o->generation,
        .test_mode = o->test_mode,
        .load_testing = o->load_testing,
        .auth = o->auth,
        .official = m->official,
        .n_official = m->n_official,
        .monitors = m->monitors,
        .n_monitors = m->n_monitors,
        .client_ttl_ms = o->generation >= DISC_2026 ? o->entry_timeout / 1000000 : 0,
        .gather_ns = o->redis == NULL ? GATHER_NS : 0, /* others may look at a Redis */
        .dmsg_address = m->has_key ? m->address : NULL,
        .stored = m->mirroring != NULL ? on_stored : NULL,
        .deleted = m->mirroring != NULL ? on_deleted : NULL,
        .arg = m,
    };
    struct service_cfg cfg = {
        .drive = m->drive,
        .env = &m->env.env,
        .routes = disc_service_routes,
        .n_routes = disc_service_n_routes,
        .dropped = disc_service_dropped,
        .stream_rate = o->load_testing ? 0 : DMSG_RATE,
        .stream_burst = DMSG_BURST,
        .trust_any_proxy = o->trust_proxy,
    };
    int rc = disc_service_new(&m->disc, &disc);
    cfg.app = m->disc;
    if (rc == 0)
        rc = service_new(&m->service, &cfg);
    if (rc < 0)
        return tool_fail(rc, "service: %s", err_str(rc));
    if ((rc = service_listen(m->service, o->addr)) < 0)
        return tool_fail(rc, "listen %s: %s", o->addr, err_str(rc));
    if (o->metrics == NULL || *o->metrics == '\0')
        return 0;
    struct service_cfg metrics = {
        .drive = m->drive, .env = &m->env.env, .routes = metrics_routes, .n_routes = 1, .app = m};
    rc = service_new(&m->metrics, &metrics);
    if (rc == 0)
        rc = service_listen(m->metrics, o->metrics);
    return rc < 0 ? tool_fail(rc, "listen %s: %s", o->metrics, err_str(rc)) : 0;
}

/* ---- over dmsg ---- */

static void on_stream(void *arg, struct stream *st)
{
    struct daemon *m = arg;
    struct pubkey pk = *stream_remote(st);
    uint16_t port = stream_remote_port(st);
    int fd = node_stream_to_fd(m->node, st);
    if (fd >= 0)
        (void)service_add_stream(m->service, fd, &pk, port);
}

static bool on_report(void *arg, const struct kad_report *r)
{
    struct daemon *m = arg;
    return mirroring_report(m->mirroring, r);
}

static void on_node_stopped(void *arg)
{
    struct daemon *m = arg;
    drive_loop_stop(m->drive);
}

/* Its relays are those that register here: it asks like every other client. */
static int open_node(struct daemon *m)
{
    char why[NODE_WHY];
    const char *addr = service_addr(m->service, 0), *port = strrchr(addr, ':');
    bool any = strncmp(addr, "[::]", 4) == 0 || strncmp(addr, "0.0.0.0", 7) == 0;
    if (!m->has_key)
        return 0;
    snprintf(m->url, sizeof(m->url), "http://%s", any ? "127.0.0.1" : addr);
    if (any)
        snprintf(m->url, sizeof(m->url), "http://127.0.0.1%s", port);
    struct node_cfg cfg = {
        .pk = m->pk,
        .sk = m->sk,
        .discovery = m->url,
        .mode = NODE_MODE_HTTP,
        .parts = node_parts,
        .publish = true,
        .lock = false,
        .sessions = DMSG_SESSIONS,
        .base = drive_loop_base(m->drive),
        .pk_inline = true,
        .bootstrap = m->o->bootstrap.v,
        .n_bootstrap = m->o->bootstrap.n,
        .mirrors = &m->pk,
        .n_mirrors = 1,
        .client_only = true,
        .stopped = on_node_stopped,
        .report = on_report,
        .arg = m,
    };
    int rc = node_new(&m->node, &cfg, why);
    seckey_wipe(&cfg.sk);
    if (rc < 0)
        return tool_fail(rc, "%s", why);
    mirroring_set_node(m->mirroring, m->node);
    rc = client_listen(m->node->client, (uint16_t)m->o->dmsg_port, on_stream, m);
    return rc < 0 ? tool_fail(rc, "dmsg port: %s", err_str(rc)) : 0;
}

/* ---- life ---- */

static void on_signal(evutil_socket_t sig, short what, void *arg)
{
    struct daemon *m = arg;
    (void)sig, (void)what;
    drive_loop_now(m->drive);
    bool again = m->stopping;
    m->stopping = true;
    if (m->node != NULL && !again)
        node_stop(m->node);
    else
        drive_loop_stop(m->drive);
}

static int open_all(struct daemon *m)
{
    const struct disc_opts *o = m->o;
    bool made;
    int rc = env_sys_init(&m->env);
    if (rc < 0 || (m->drive = drive_loop_new(NULL)) == NULL)
        return tool_fail(ERR_NOMEM, "event loop");
    struct event_base *base = drive_loop_base(m->drive);
    m->sigint = evsignal_new(base, SIGINT, on_signal, m);
    m->sigterm = evsignal_new(base, SIGTERM, on_signal, m);
    if (m->sigint == NULL || m->sigterm == NULL || event_add(m->sigint, NULL) < 0 ||
        event_add(m->sigterm, NULL) < 0)
        return tool_fail(ERR_NOMEM, "signals");
    drive_loop_now(m->drive);
    if (o->keyfile != NULL) {
        if ((rc = keyfile_open(&m->sk, &m->pk, o->keyfile, &made)) < 0)
            return tool_key_tell(rc, o->keyfile);
        m->has_key = true;
    } else if (m->has_key) {
        m->sk = o->sk;
        if (seckey_pubkey(&m->pk, &m->sk) < 0)
            return tool_fail(ERR_USAGE, "--sk: not a secret key");
    }
    struct addr_dmsg at = {m->pk, (uint16_t)o->dmsg_port};
    addr_dmsg_text(m->address, &at);
    if (o->mode == 1)
        m->has_key = false;
    if ((rc = read_lists(m)) != 0 || (rc = open_store(m)) != 0 || (rc = open_mirror(m)) != 0 ||
        (rc = open_service(m)) != 0)
        return rc;
    return open_node(m);
}

static void close_all(struct daemon *m)
{
    mirroring_set_node(m->mirroring, NULL);
    node_free(m->node);
    service_free(m->metrics);
    service_free(m->service);
    disc_service_free(m->disc);
    kv_open_close(&m->store);
    mirror_disc_free(m->walk);
    mirroring_close(m->mirroring);
    if (m->sigint != NULL)
        event_free(m->sigint);
    if (m->sigterm != NULL)
        event_free(m->sigterm);
    if (m->drive != NULL)
        drive_loop_free(m->drive);
    for (int i = 0; i < 2; i++)
        free(m->lists[i]);
    free(m->monitors);
    free(m->official);
    seckey_wipe(&m->sk);
}

static void say_ready(struct daemon *m)
{
    log_info(LOG_HTTP, "discovery serves addr=%s store=%s%s%s", service_addr(m->service, 0),
             m->store.kv->ops->name, m->has_key ? " dmsg=" : "", m->has_key ? m->address : "");
    sd_notify(0, "READY=1");
    if (m->o->ready)
        tool_print(json_pack("{s:s, s:s, s:s?, s:s?}", "event", "ready", "http",
                             service_addr(m->service, 0), "metrics",
                             m->metrics != NULL ? service_addr(m->metrics, 0) : NULL, "dmsg",
                             m->has_key ? m->address : NULL));
}

static int run(struct cmdline *cl)
{
    const struct disc_opts *o = cl->opts;
    char why[256];
    int rc = o->config != NULL ? config_read(cl, o->config) : 0;
    if (rc != 0)
        return rc;
    if (log_set_levels(o->log_level, why, sizeof(why)) < 0)
        return cmdline_usage_error(cl, "--log-level: %s", why);
    if (o->syslog != NULL)
        log_warn(LOG_HTTP, "--syslog is not used: the log goes to standard error");
    struct daemon *m = calloc(1, sizeof(*m));
    if (m == NULL)
        return tool_fail(ERR_NOMEM, "%s", err_str(ERR_NOMEM));
    m->o = o;
    m->has_key = cmdline_given(cl, "sk") && seckey_check(&o->sk) == 0;
    signal(SIGPIPE, SIG_IGN);
    rc = open_all(m);
    if (rc == 0) {
        say_ready(m);
        rc = drive_loop_run(m->drive) < 0 ? tool_fail(ERR_STATE, "event loop") : 0;
    }
    close_all(m);
    free(m);
    return rc;
}

const struct cmd cmd_disc = {
    .name = "disc",
    .help = "run a dmsg discovery",
    .about =
        "A daemon that takes the place of upstream's dmsg discovery: the same endpoints, answers "
        "and flags. Entries are kept in an LMDB store of its own, or with --redis in a Redis that "
        "upstream's daemon can take over again.\n\n"
        "A registration is answered after it is on disk (or confirmed by Redis). With a secret key "
        "the discovery is served over dmsg too, through the servers that have registered.",
    .opts = opts,
    .opts_size = sizeof(struct disc_opts),
    .run = run,
};
