/*
 * cmd_server - `kadmsg server`: our relay under the names, flags and file of upstream's dmsg-server
 * (docs/protocol/dmsg.md §7).
 */
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/log.h"
#include "node/cmds.h"
#include "node/config.h"
#include "node/keyfile.h"
#include "node/serve.h"
#include "node/server_conf.h"
#include "node/tool.h"

#define CONF_NAME      "config.json"
#define CONF_MAX       (1024 * 1024)
#define DISCOVERY      "http://dmsgd.skywire.skycoin.com"
#define DISCOVERY_TEST "http://dmsgd.skywire.dev"

/* ---- config gen ---- */

struct gen_opts {
    const char *out;
    bool test;
};

static int gen(struct cmdline *cl)
{
    const struct gen_opts *o = cl->opts;
    struct seckey sk;
    struct pubkey pk;
    int fd = open(o->out, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    FILE *f = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (f == NULL)
        return tool_fail(err_sys(), "%s: %s", o->out, strerror(errno));
    keyfile_fresh(&sk, &pk);
    server_conf_write(f, &sk, &pk, o->test ? DISCOVERY_TEST : DISCOVERY);
    seckey_wipe(&sk);
    if (fflush(f) != 0 || fsync(fd) != 0) {
        int rc = err_sys();
        fclose(f);
        unlink(o->out);
        return tool_fail(rc, "%s: %s", o->out, err_str(rc));
    }
    fclose(f);
    return 0;
}

/* ---- start ---- */

struct start_opts {
    const char *config, *store, *control;
    struct relay_flags relay;
    const char *metrics, *tag, *syslog, *syslog_net, *syslog_level, *auth;
    struct cmd_peers bootstrap;
    struct cmd_pubkeys mirrors;
    int dht;
    bool ready, log_json;
};

enum { DHT_AUTO, DHT_ON, DHT_OFF };

/* The whole file; the caller wipes and frees CONF_MAX bytes. */
static char *read_conf(const char *path, size_t *n, int *err)
{
    bool in = strcmp(path, "-") == 0;
    int fd = in ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    char *text = fd >= 0 ? malloc(CONF_MAX) : NULL;
    ssize_t got = 1;
    *err = fd < 0 ? err_sys() : text == NULL ? ERR_NOMEM : in ? 0 : keyfile_check(fd, path);
    for (*n = 0; *err == 0 && got > 0; *n += got > 0 ? (size_t)got : 0)
        if (*n == CONF_MAX)
            *err = ERR_TOO_LONG;
        else if ((got = read(fd, text + *n, CONF_MAX - *n)) < 0)
            *err = err_sys();
    if (fd >= 0 && !in)
        close(fd);
    if (*err == 0)
        return text;
    if (text != NULL)
        sodium_memzero(text, CONF_MAX);
    free(text);
    return NULL;
}

static void warn(void *arg, const char *text)
{
    log_warn(LOG_NODE, "configuration file=%s %s", (const char *)arg, text);
}

static int load_conf(struct server_conf *c, const char *path)
{
    char why[SERVER_CONF_WHY];
    size_t n;
    int rc;
    char *text = read_conf(path, &n, &rc);
    *c = (struct server_conf){0};
    if (text == NULL)
        return serve_bad(rc, "configuration file", path);
    rc = server_conf_parse(c, text, n, warn, (void *)(uintptr_t)path, why, sizeof(why));
    sodium_memzero(text, CONF_MAX);
    free(text);
    return rc < 0 ? tool_fail(rc, "configuration file %s: %s", path, why) : 0;
}

/* Where health is served when the file does not say: behind the relay's port, on this host. */
static int default_health(char out[SERVER_CONF_TEXT], const char *local)
{
    struct addr_hostport at;
    if (addr_hostport_parse(&at, local, strlen(local), ADDR_PORT_0 | ADDR_ANY_HOST, NULL) < 0)
        return ERR_FORMAT;
    snprintf(out, SERVER_CONF_TEXT, "127.0.0.1:%u",
             at.port > 0 && at.port < 65535 ? at.port + 1u : 0u);
    return 0;
}

static bool is_hostport(const char *text, unsigned flags)
{
    struct addr_hostport at;
    return addr_hostport_parse(&at, text, strlen(text), flags, NULL) == 0;
}

static int check_addresses(struct server_conf *c, const char *path)
{
    const char *wrong = NULL;
    if ((c->health[0] == '\0' && default_health(c->health, c->local_address) < 0) ||
        !is_hostport(c->local_address, ADDR_PORT_0 | ADDR_ANY_HOST))
        wrong = "local_address";
    else if (!is_hostport(c->health, ADDR_PORT_0 | ADDR_ANY_HOST))
        wrong = "health_endpoint_address";
    else if (c->public_address[0] != '\0' && !is_hostport(c->public_address, ADDR_STRICT))
        wrong = "public_address";
    return wrong == NULL
               ? 0
               : tool_fail(ERR_FORMAT, "configuration file %s: \"%s\": not HOST:PORT", path, wrong);
}

/* Bootstrap nodes of the flags, and the servers that the file names. */
static struct addr_peer *all_bootstrap(const struct start_opts *o, const struct server_conf *c,
                                       size_t *n)
{
    struct addr_peer *all = calloc(o->bootstrap.n + c->n_servers + 1, sizeof(*all));
    if (all == NULL)
        return NULL;
    if (o->bootstrap.n > 0)
        memcpy(all, o->bootstrap.v, o->bootstrap.n * sizeof(*all));
    if (c->n_servers > 0)
        memcpy(all + o->bootstrap.n, c->servers, c->n_servers * sizeof(*all));
    *n = o->bootstrap.n + c->n_servers;
    return all;
}

static void tell_ignored(const struct start_opts *o)
{
    if (o->syslog != NULL)
        log_warn(LOG_NODE, "--syslog is not supported: the log goes to standard error");
    if (o->auth != NULL)
        log_warn(LOG_NODE, "--auth is not supported: the server registers as any other");
}

static struct node_cfg config_of(const struct start_opts *o, const struct server_conf *c)
{
    bool dht = o->dht == DHT_ON || (o->dht == DHT_AUTO && (c->dht || !c->dht_said));
    struct node_cfg cfg = {
        .pk = c->pk,
        .sk = c->sk,
        .listen = c->local_address,
        .public_address = c->public_address[0] != '\0' ? c->public_address : NULL,
        .peers = c->peers,
        .n_peers = c->n_peers,
        .accepted_peers = c->accepted,
        .n_accepted_peers = c->n_accepted,
        .accept_relayed = true,
        .mirrors = o->mirrors.v,
        .n_mirrors = o->mirrors.n,
        .max_sessions = c->max_sessions,
        .sessions = c->sessions,
        .health = c->health,
        .metrics = o->metrics,
        .health_on_dmsg = true,
        .control_port = true,
        .discovery = c->discovery[0] != '\0' ? c->discovery : NULL,
        .mode = dht || c->discovery[0] == '\0' ? NODE_MODE_AUTO : NODE_MODE_HTTP,
        .no_dht = !dht,
        .publish = true,
        .lock = true,
    };
    config_relay(&cfg, &o->relay);
    return cfg;
}

static int run_server(const struct start_opts *o, struct server_conf *c)
{
    struct serve_places at;
    char why[256];
    struct node_cfg cfg = config_of(o, c);
    struct addr_peer *bootstrap = all_bootstrap(o, c, &cfg.n_bootstrap);
    int rc = bootstrap != NULL ? 0 : tool_fail(ERR_NOMEM, "%s", err_str(ERR_NOMEM));
    cfg.bootstrap = bootstrap;
    if (rc == 0 && log_set_levels(c->log_level, why, sizeof(why)) < 0)
        rc = tool_fail(ERR_FORMAT, "log_level: %s", why);
    if (rc == 0)
        rc = serve_find(&at, &cfg, o->store, o->control);
    if (rc == 0)
        rc = serve(&cfg, o->ready);
    seckey_wipe(&cfg.sk);
    free(bootstrap);
    return rc;
}

static int start(struct cmdline *cl)
{
    const struct start_opts *o = cl->opts;
    struct server_conf c;
    if (o->log_json)
        log_set_format(LOG_FORMAT_JSON);
    if (o->metrics != NULL && !is_hostport(o->metrics, ADDR_PORT_0 | ADDR_ANY_HOST))
        return cmdline_usage_error(cl, "--metrics: not HOST:PORT");
    int rc = load_conf(&c, o->config);
    if (rc == 0)
        rc = check_addresses(&c, o->config);
    if (rc == 0) {
        tell_ignored(o);
        rc = run_server(o, &c);
    }
    server_conf_free(&c);
    return rc;
}

/* ---- the table ---- */

static const struct cmd_opt gen_flags[] = {
    {.name = "output",
     .letter = 'o',
     CMD_STR_AT(struct gen_opts, out),
     .def = CONF_NAME,
     .metavar = "FILE",
     .help = "where to write it, with mode 0600, never over an existing file"},
    {.name = "testenv",
     .letter = 't',
     CMD_FLAG_AT(struct gen_opts, test),
     .help = "name the discovery of the test deployment"},
    {0}};

static const struct cmd_opt start_args[] = {{.name = "FILE",
                                             CMD_STR_AT(struct start_opts, config),
                                             .optional = true,
                                             .def = CONF_NAME,
                                             .help = "the configuration; - reads standard input"},
                                            {0}};

static const struct cmd_opt start_flags[] = {
    {.name = "metrics",
     .letter = 'm',
     CMD_STR_AT(struct start_opts, metrics),
     .metavar = "HOST:PORT",
     .def_text = "not served",
     .help = "serve /metrics in Prometheus' form there"},
    {.name = "dht",
     CMD_CHOICE_AT(struct start_opts, dht),
     .choices = "auto|on|off",
     .def = "auto",
     .help = "take part in the DHT; auto: unless enable_dht of the file is false"},
    {.name = "bootstrap",
     CMD_PEERS_AT(struct start_opts, bootstrap),
     .help = "join the DHT through this node"},
    {.name = "mirror",
     CMD_PUBKEYS_AT(struct start_opts, mirrors),
     .help = "key that may publish for others: of a service that mirrors into the DHT"},
    CONFIG_RELAY_FLAGS(struct start_opts),
    {.name = "store",
     CMD_STR_AT(struct start_opts, store),
     .metavar = "DIR",
     .def_text = "a directory named after the key in the state directory",
     .help = "where items are kept"},
    {.name = "control",
     CMD_STR_AT(struct start_opts, control),
     .metavar = "PATH",
     .def_text = "control in the run directory, or control-KEY when that is taken",
     .help = "control socket"},
    {.name = "ready",
     CMD_FLAG_AT(struct start_opts, ready),
     .help = "print one JSON line on stdout when the server can serve"},
    {.name = "log-json", CMD_FLAG_AT(struct start_opts, log_json), .help = "log JSON lines"},
    {.name = "tag",
     CMD_STR_AT(struct start_opts, tag),
     .metavar = "TEXT",
     .help = "accepted for compatibility, without effect"},
    {.name = "syslog",
     CMD_STR_AT(struct start_opts, syslog),
     .metavar = "ADDR",
     .help = "accepted for compatibility: a warning, the log goes to standard error"},
    {.name = "syslog-net",
     CMD_STR_AT(struct start_opts, syslog_net),
     .metavar = "NET",
     .help = "accepted for compatibility, without effect"},
    {.name = "syslog-lvl",
     CMD_STR_AT(struct start_opts, syslog_level),
     .metavar = "LEVEL",
     .help = "accepted for compatibility, without effect"},
    {.name = "auth",
     CMD_STR_AT(struct start_opts, auth),
     .metavar = "TEXT",
     .help = "accepted for compatibility: a warning"},
    {0}};

static const struct cmd config_subs[] = {{.name = "gen",
                                          .help = "write a configuration with a new key",
                                          .opts = gen_flags,
                                          .opts_size = sizeof(struct gen_opts),
                                          .run = gen},
                                         {0}};

const struct cmd cmd_server_config = {
    .name = "config", .help = "configuration files", .subs = config_subs};

const struct cmd cmd_server_start = {
    .name = "start",
    .help = "run a relay with the configuration file of upstream's server",
    .about =
        "The file may be one of any generation, unchanged; members that are not known, and those "
        "of carriers that this relay does not offer, are told and skipped. The relay serves "
        "/health on health_endpoint_address (when that is empty, on the port behind "
        "local_address, on 127.0.0.1) and on dmsg port 80, and takes part in the DHT unless the "
        "file or --dht says otherwise. It registers with the discovery that the file names, beside "
        "the DHT; with neither, only those find it who are told its address.\n\n"
        "max_sessions is what the entry offers, as with upstream; the hard cap is that of "
        "`kadmsg node`. Signals as with `kadmsg node`.",
    .args = start_args,
    .opts = start_flags,
    .opts_size = sizeof(struct start_opts),
    .run = start};
