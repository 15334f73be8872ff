#include <stdio.h>

#include "apps/expose.h"
#include "apps/forward.h"
#include "base/err.h"
#include "node/cmds.h"
#include "node/tool_proxy.h"

#define SK_ENV "DMSGSK"

/* ---- server ---- */

struct server_opts {
    struct tool_proxy proxy; /* first */
    uint16_t dport;
    struct cmd_strs wl, allow, deny;
    bool allow_private;
};

static int read_rules(struct cmdline *cl, const struct cmd_strs *texts, bool allow,
                      struct netrule *rule)
{
    for (size_t i = 0; i < texts->n; i++) {
        const char *why;
        if (netrule_add(rule, texts->v[i], allow, &why) < 0)
            return cmdline_usage_error(cl, "--%s: %s: %s", allow ? "allow" : "deny", texts->v[i],
                                       why);
    }
    return 0;
}

static int serve(struct tool_hub *t, const struct server_opts *o, const struct expose_cfg *cfg)
{
    struct expose *e;
    char pk[PUBKEY_HEX + 1];
    if (expose_open(&e, t->hub, cfg) < 0)
        return tool_fail(t->net->failure.err, "%s", t->net->failure.text);
    fprintf(stderr, "SOCKS5 on %s:%u, for %s\n", pubkey_hex(pk, &t->net->self), expose_port(e),
            cfg->whitelist->n > 0 ? "the whitelist" : "everybody");
    tool_hub_ready(t, &o->proxy, json_pack("{s:i}", "port", (int)expose_port(e)));
    int rc = tool_hub_run(t);
    expose_close(e);
    return rc;
}

static int run_server(struct cmdline *cl)
{
    struct server_opts *o = cl->opts;
    struct whitelist wl = {0};
    struct netrule rule = {.private_ok = o->allow_private};
    struct tool_hub t = {0};
    struct expose_cfg cfg = {.port = o->dport, .rule = &rule, .whitelist = &wl};
    int rc = tool_whitelist(cl, &o->wl, &wl);
    if (rc == 0)
        rc = read_rules(cl, &o->allow, true, &rule);
    if (rc == 0)
        rc = read_rules(cl, &o->deny, false, &rule);
    if (rc == 0)
        rc = tool_hub_open(&t, cl, &o->proxy, SK_ENV, TOOL_REACHABLE);
    if (rc == 0)
        rc = serve(&t, o, &cfg);
    tool_hub_close(&t);
    whitelist_free(&wl);
    return rc;
}

static const struct cmd_opt server_flags[] = {
    {.name = "dport",
     .letter = 'q',
     CMD_PORT_AT(struct server_opts, dport),
     .def = "1081",
     .help = "dmsg port"},
    {.name = "wl",
     .letter = 'w',
     CMD_STRS_AT(struct server_opts, wl),
     .metavar = "PK,PK",
     .def_text = "everybody",
     .help = "keys that are served (commas, or repeated); others are closed"},
    {.name = "allow",
     CMD_STRS_AT(struct server_opts, allow),
     .metavar = "NETWORK",
     .help = "destinations that are allowed, such as 192.168.7.0/24"},
    {.name = "deny",
     CMD_STRS_AT(struct server_opts, deny),
     .metavar = "NETWORK",
     .help = "destinations that are forbidden"},
    {.name = "allow-private",
     CMD_FLAG_AT(struct server_opts, allow_private),
     .help = "destinations may also be on this host and in private networks"},
    {0}};
static const struct cmd_group server_groups[] = TOOL_PROXY_GROUPS(tool_compat_flags);

/* ---- client ---- */

struct client_opts {
    struct tool_proxy proxy; /* first */
    uint64_t port;
    uint16_t dport;
    struct pubkey pk;
};

static int run_client(struct cmdline *cl)
{
    struct client_opts *o = cl->opts;
    struct tool_hub t = {0};
    struct forward *f = NULL;
    char pk[PUBKEY_HEX + 1];
    if (!cmdline_given(cl, "pk"))
        return cmdline_usage_error(cl, "--pk is missing: the key of the server");
    int rc = tool_hub_open(&t, cl, &o->proxy, SK_ENV, TOOL_SESSION);
    if (rc == 0) {
        rc = forward_open(&f, t.hub, o->proxy.bind, (uint16_t)o->port, &o->pk, o->dport);
        if (rc < 0)
            rc = tool_fail(rc, "%s:%u: %s", o->proxy.bind, (unsigned)o->port, err_str(rc));
    }
    if (rc == 0) {
        fprintf(stderr, "SOCKS5 on %s:%u, through %s:%u\n", o->proxy.bind, forward_port(f),
                pubkey_hex(pk, &o->pk), o->dport);
        tool_hub_ready(&t, &o->proxy, json_pack("{s:i}", "port", (int)forward_port(f)));
        rc = tool_hub_run(&t);
    }
    forward_close(f);
    tool_hub_close(&t);
    return rc;
}

static const struct cmd_opt client_flags[] = {{.name = "pk",
                                               .letter = 'k',
                                               CMD_PUBKEY_AT(struct client_opts, pk),
                                               .help = "key of the server (required)"},
                                              {.name = "port",
                                               .letter = 'p',
                                               CMD_U64_AT(struct client_opts, port),
                                               .metavar = "PORT",
                                               .def = "1081",
                                               .max = 65535,
                                               .help = "local TCP port; 0 takes any"},
                                              {.name = "dport",
                                               .letter = 'q',
                                               CMD_PORT_AT(struct client_opts, dport),
                                               .def = "1081",
                                               .help = "dmsg port of the server"},
                                              {0}};
static const struct cmd_group client_groups[] = TOOL_PROXY_GROUPS(tool_compat_flags);

static const struct cmd subs[] = {
    {.name = "server",
     .help = "SOCKS5 for others, on a dmsg port",
     .about =
         "Every stream is one SOCKS5 conversation: CONNECT to IPv4, IPv6 and names, which are "
         "looked up here. Destinations that are not public (this host, private and link-local "
         "networks, multicast and the like) are refused unless --allow-private or --allow says "
         "otherwise; the rule with the longest prefix decides, and it is applied to each "
         "address that a name has.",
     .opts = server_flags,
     .groups = server_groups,
     .opts_size = sizeof(struct server_opts),
     .run = run_server},
    {.name = "client",
     .help = "a local SOCKS5 port that leads to such a server",
     .about = "Every connection to the local port is a stream of its own to the server.",
     .opts = client_flags,
     .groups = client_groups,
     .opts_size = sizeof(struct client_opts),
     .run = run_client},
    {0}};

const struct cmd cmd_socks = {
    .name = "socks",
    .help = "SOCKS5 over dmsg streams",
    .subs = subs,
};
