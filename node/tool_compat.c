#include "node/tool_compat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

/* The lines that all tables have; those that differ are the log level's letter and what is said of --direct. */
#define SRV_LINE                                                                                   \
    {                                                                                              \
        .name = "srv", .letter = 'S', CMD_PEERS_AT(struct tool_compat, srv),                       \
        .help = "the same as --bootstrap"                                                          \
    }

#define SERVER_LINES                                                                               \
    {.name = "dmsgconf",                                                                           \
     .letter = 'D',                                                                                \
     .letter2 = 'F',                                                                               \
     CMD_STR_AT(struct tool_compat, dmsgconf),                                                     \
     .metavar = "FILE",                                                                            \
     .help = "join through the servers of a dmsghttp-config.json, and ask its discovery; or the "  \
             "URL of a discovery"},                                                                \
        {.name = "sess",                                                                           \
         .letter = 'e',                                                                            \
         CMD_U64_AT(struct tool_compat, sessions),                                                 \
         .metavar = "N",                                                                           \
         .max = 16,                                                                                \
         .help = "sessions of a node of its own"},                                                 \
        {.name = "disc-url",                                                                       \
         .letter = 'U',                                                                            \
         CMD_STR_AT(struct tool_compat, disc_url),                                                 \
         .metavar = "URL",                                                                         \
         .help = "the same as --discovery"},                                                       \
    {                                                                                              \
        .name = "sk", .letter = 's', CMD_SECKEY_AT(struct tool_compat, sk),                        \
        .def_text = "a fresh key",                                                                 \
        .help = "secret key to act as; others on this machine can see it, --sk-file is better"     \
    }

/* Upstream's tools disagree about the letters of these. */
#define DISC_LINE(letter_)                                                                         \
    {                                                                                              \
        .name = "dmsg-disc", .letter = (letter_), CMD_STR_AT(struct tool_compat, dmsg_disc),       \
        .metavar = "URL", .help = "the same as --discovery"                                        \
    }

#define PROXY_LINE(letter_)                                                                        \
    {                                                                                              \
        .name = "proxy", .letter = (letter_), CMD_HOSTPORT_AT(struct tool_compat, proxy),          \
        .help = "reach relays through this SOCKS5 proxy; without a running node"                   \
    }

#define HTTP_LINE                                                                                  \
    {                                                                                              \
        .name = "http", .letter = 'Z', .letter2 = 'z', CMD_FLAG_AT(struct tool_compat, http),      \
        .help = "accepted and without effect: the URL says how a discovery is asked"               \
    }

#define DIRECT_LINES                                                                               \
    {.name = "direct",                                                                             \
     .letter = 'B',                                                                                \
     CMD_FLAG_AT(struct tool_compat, direct),                                                      \
     .help = "no discovery of any kind: only the servers named by -S, -D, --bootstrap or -A, no "  \
             "look-up, nothing published"},                                                        \
    {                                                                                              \
        .name = "disc-addr", .letter = 'A', CMD_STR_AT(struct tool_compat, disc_addr),             \
        .metavar = "dmsg://PK:PORT",                                                               \
        .help = "of the servers named, use the one of this key; with -B and none named, go "       \
                "through this relay from the node that runs on this machine"                       \
    }

#define NO_DIRECT_LINES                                                                            \
    {.name = "direct",                                                                             \
     .letter = 'B',                                                                                \
     CMD_FLAG_AT(struct tool_compat, direct),                                                      \
     .help = "refused where the DHT is asked; -S and --bootstrap need no other discovery"},        \
    {                                                                                              \
        .name = "disc-addr", .letter = 'A', CMD_STR_AT(struct tool_compat, disc_addr),             \
        .metavar = "dmsg://PK:PORT",                                                               \
        .help = "of the servers named, use the one of this key; or "                               \
                "the discovery at this address"                                                    \
    }

#define LOG_LINE(letter_)                                                                          \
    {                                                                                              \
        .name = "loglvl", .letter = (letter_), CMD_CHOICE_AT(struct tool_compat, log_level),       \
        .choices = "panic|fatal|error|warn|info|debug|trace", .def = "warn",                       \
        .help = "log level of a node of its own"                                                   \
    }

#define ALL_LINES(disc_, proxy_)                                                                   \
    SERVER_LINES, DISC_LINE(disc_), HTTP_LINE, DIRECT_LINES, PROXY_LINE(proxy_)

const struct cmd_opt tool_compat_flags[] = {SRV_LINE, ALL_LINES(0, 0), LOG_LINE('l'), {0}};
const struct cmd_opt tool_compat_flags_curl[] = {SRV_LINE, ALL_LINES('c', 'p'), LOG_LINE('l'), {0}};
const struct cmd_opt tool_compat_flags_web[] = {SRV_LINE, ALL_LINES(0, 'x'), LOG_LINE('l'), {0}};
const struct cmd_opt tool_compat_flags_ip[] = {ALL_LINES('c', 'p'), LOG_LINE('l'), {0}};
const struct cmd_opt tool_compat_flags_no_srv[] = {ALL_LINES(0, 0), LOG_LINE('l'), {0}};
const struct cmd_opt tool_compat_flags_no_l[] = {SRV_LINE, ALL_LINES(0, 0), LOG_LINE(0), {0}};
const struct cmd_opt tool_compat_flags_dht[] = {
    SRV_LINE,        SERVER_LINES,  DISC_LINE(0),  HTTP_LINE,
    NO_DIRECT_LINES, PROXY_LINE(0), LOG_LINE('l'), {0}};

/* ---- a list of servers ---- */

static int add_server(struct tool_compat *c, size_t *n, const struct addr_peer *p)
{
    for (size_t i = 0; i < *n; i++)
        if (pubkey_equal(&c->servers[i].pk, &p->pk))
            return 0;
    if (*n == TOOL_SERVERS)
        return ERR_LIMIT;
    c->servers[(*n)++] = *p;
    return 0;
}

/* Servers of a dmsghttp-config.json or services-config.json, and its discovery. */
static int take_conf(struct tool_compat *c, size_t *n, const struct deploy_conf *conf)
{
    const char *url = conf->dmsg_url[DEPLOY_DMSG_DISCOVERY];
    if (url != NULL)
        snprintf(c->conf_discovery, sizeof(c->conf_discovery), "%s", url);
    if (conf->n_servers == 0)
        return tool_fail(ERR_NOT_FOUND, "%s: no dmsg_servers", c->dmsgconf);
    for (size_t i = 0; i < conf->n_servers; i++)
        if (add_server(c, n, &conf->servers[i]) < 0)
            return tool_fail(ERR_LIMIT, "%s: more than %d servers", c->dmsgconf, TOOL_SERVERS);
    return 0;
}

static int read_conf(struct tool_compat *c, size_t *n)
{
    struct deploy_conf conf;
    char why[256];
    int rc = deploy_conf_load(&conf, c->dmsgconf, "prod", why, sizeof(why));
    rc = rc < 0 ? tool_fail(rc, "%s: %s", c->dmsgconf, why) : take_conf(c, n, &conf);
    deploy_conf_free(&conf);
    return rc;
}

static bool is_url(const char *s)
{
    return s != NULL && (strncmp(s, "http://", 7) == 0 || strncmp(s, "https://", 8) == 0 ||
                         strncmp(s, "dmsg://", 7) == 0);
}

/* -A: keep the server of this key; direct and none named: *via is the relay to go through. When it is
 * no server that is named, it is a discovery. */
static int keep_one(struct cmdline *cl, struct tool_compat *c, size_t *n, const struct pubkey **via,
                    const char **discovery)
{
    struct addr_dmsg at;
    const char *text = c->disc_addr;
    if (strncmp(text, "http", 4) == 0 && !c->direct) {
        *discovery = text;
        return 0;
    }
    text += strncmp(text, "dmsg://", 7) == 0 ? 7 : 0;
    if (addr_dmsg_from_text(&at, text, strlen(text)) < 0)
        return cmdline_usage_error(cl, "--disc-addr: %s: not dmsg://PK:PORT", c->disc_addr);
    if (c->direct && *n == 0) {
        c->via = at.pk;
        *via = &c->via;
        return 0;
    }
    for (size_t i = 0; i < *n; i++) {
        if (!pubkey_equal(&c->servers[i].pk, &at.pk))
            continue;
        c->servers[0] = c->servers[i];
        *n = 1;
        return 0;
    }
    if (c->direct)
        return cmdline_usage_error(cl, "--disc-addr: no server of this key is named, and --direct "
                                       "looks nothing up");
    if (*n == 0)
        return tool_fail(ERR_NO_ROUTE, "--disc-addr: a discovery behind dmsg:// needs relays: give "
                                       "-S, -D or --bootstrap");
    *discovery = c->disc_addr;
    return 0;
}

/* ---- the key ---- */

static int key_from_env(struct tool_compat *c, const char *names, bool *has_key)
{
    char list[128], *rest = list;
    snprintf(list, sizeof(list), "%s", names);
    for (char *name; (name = strsep(&rest, " ")) != NULL;) {
        const char *hex = getenv(name);
        if (hex == NULL || *hex == '\0' || strspn(hex, "0") == strlen(hex))
            continue;
        *has_key = seckey_from_hex(&c->sk, hex, strlen(hex)) == 0;
        return *has_key ? 0
                        : tool_fail(ERR_USAGE, "environment variable %s: not a secret key", name);
    }
    return 0;
}

/* The union of what names servers. */
static int gather(struct cmdline *cl, struct tool_compat *c, const struct tool_opts *opts,
                  size_t *n)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < opts->bootstrap.n; i++)
        rc = add_server(c, n, &opts->bootstrap.v[i]);
    for (size_t i = 0; rc == 0 && i < c->srv.n; i++)
        rc = add_server(c, n, &c->srv.v[i]);
    if (rc < 0)
        return cmdline_usage_error(cl, "more than %d servers", TOOL_SERVERS);
    return c->dmsgconf != NULL && !is_url(c->dmsgconf) ? read_conf(c, n) : 0;
}

int tool_compat_apply(struct cmdline *cl, struct tool_compat *c, const struct tool_opts *given,
                      const char *sk_env, struct tool_opts *out)
{
    static const char *const levels[] = {"off", "error", "error", "warn", "info", "debug", "trace"};
    const struct pubkey *via = NULL;
    size_t n = 0;
    int rc = 0;
    bool has_key = cmdline_given(cl, "sk");
    const char *url = given->discovery != NULL ? given->discovery
                      : c->dmsg_disc != NULL   ? c->dmsg_disc
                      : is_url(c->dmsgconf)    ? c->dmsgconf
                                               : c->disc_url;
    if (has_key && given->sk_file != NULL)
        return cmdline_usage_error(cl, "--sk and --sk-file exclude each other");
    if ((rc = gather(cl, c, given, &n)) != 0)
        return rc;
    if (c->direct && n == 0 && c->disc_addr == NULL && given->control == NULL)
        return cmdline_usage_error(cl, "--direct needs -S, -D, --bootstrap or -A");
    if (url == NULL && c->conf_discovery[0] != '\0')
        url = c->conf_discovery;
    if (c->disc_addr != NULL && (rc = keep_one(cl, c, &n, &via, &url)) != 0)
        return rc;
    if (!has_key && sk_env != NULL && given->sk_file == NULL) {
        rc = key_from_env(c, sk_env, &has_key);
        if (rc != 0)
            return rc;
    }
    *out = *given;
    out->sk = has_key ? &c->sk : NULL;
    out->bootstrap = (struct cmd_peers){c->servers, n};
    out->discovery = c->direct ? NULL : url;
    out->sessions = (unsigned)c->sessions;
    out->direct = c->direct;
    out->via = via;
    out->proxy = c->proxy.port != 0 ? addr_hostport_text(c->proxy_text, &c->proxy) : NULL;
    out->log_level = levels[c->log_level];
    return 0;
}

int tool_compat_open(struct tool **out, struct cmdline *cl, struct tool_compat *c,
                     const struct tool_opts *given, const char *sk_env, enum tool_needs needs)
{
    struct tool_opts opts;
    *out = NULL;
    if (c->direct && needs == TOOL_DHT)
        return cmdline_usage_error(cl, "--direct: this command is about the DHT");
    int rc = tool_compat_apply(cl, c, given, sk_env, &opts);
    return rc != 0 ? rc : tool_open(out, &opts, needs);
}
