/*
 * tool_compat - the connection flags of upstream's tools, of all generations (docs/protocol/apps.md §1.2), on top of our own (tool.h).
 *
 *     -S PK@HOST:PORT          the same as --bootstrap
 *     -D FILE | URL            a dmsghttp-config.json: its servers are joined and its discovery is asked; or a discovery
 *     -B                       use only the servers that are named (-S, -D, --bootstrap, -A); needs one; no DHT: nothing is looked up or published
 *     -A dmsg://PK:PORT | URL  together with a list of servers: the one of this key, else a discovery; with -B alone: streams go through this relay, from the running node
 *     --proxy HOST:PORT        relays are dialled through a SOCKS5 proxy (a node of its own only)
 *     -e N                     sessions of a node of its own
 *     -s KEY, environment      the secret key itself
 *     -l LEVEL                 log level of a node of its own
 *
 * An HTTP discovery (--discovery, --dmsg-disc, --disc-url) is asked beside the DHT, except with -B.
 *
 *     struct curl_opts { struct tool_opts conn; struct tool_compat compat; … };
 *     struct tool_opts conn;
 *     rc = tool_compat_apply(cl, &o->compat, &o->conn, "DMSGCURL_SK", &conn);
 *     if (rc == 0)
 *         rc = app_net_open(&net, &conn, TOOL_SESSION);
 */
#pragma once

#include "compat-http/deploy_conf.h"
#include "node/tool.h"

#define TOOL_SERVERS 64

struct tool_compat {
    bool direct, http;
    struct addr_hostport proxy;
    char proxy_text[ADDR_HOSTPORT_MAX + 1];
    const char *disc_addr, *dmsgconf, *dmsg_disc, *disc_url;
    uint64_t sessions;
    int log_level;
    struct cmd_peers srv;
    struct seckey sk;
    struct pubkey via;
    char conf_discovery[ADDR_DMSG_MAX + 8]; /* of the file; "" = none */
    struct addr_peer servers[TOOL_SERVERS]; /* the union, filled in by tool_compat_apply() */
};

extern const struct cmd_opt tool_compat_flags[];
/* Other letters; without -l; without --srv, for commands that name relays themselves (tool_relays.h); without direct mode. */
extern const struct cmd_opt tool_compat_flags_curl[];
extern const struct cmd_opt tool_compat_flags_web[];
extern const struct cmd_opt tool_compat_flags_ip[];
extern const struct cmd_opt tool_compat_flags_no_l[];
extern const struct cmd_opt tool_compat_flags_no_srv[];
extern const struct cmd_opt tool_compat_flags_dht[];

#define TOOL_COMPAT_TITLE "Connection flags of upstream's tools"

/* The connection flags with those of upstream applied; *out borrows from c and given. sk_env: environment variables that may hold a secret key, separated by blanks; NULL =
 * none. 0, or the exit code (a line was printed). */
int tool_compat_apply(struct cmdline *cl, struct tool_compat *c, const struct tool_opts *given,
                      const char *sk_env, struct tool_opts *out);
/* tool_open() with them; TOOL_DHT excludes --direct. */
int tool_compat_open(struct tool **out, struct cmdline *cl, struct tool_compat *c,
                     const struct tool_opts *given, const char *sk_env, enum tool_needs needs);
