#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apps/expose.h"
#include "base/err.h"
#include "node/cmds.h"
#include "node/tool_proxy.h"

#define PORTS 64
#define CONNS 256 /* docs/protocol/apps.md §2.4 */

struct srv_opts {
    struct tool_proxy proxy; /* first */
    struct cmd_strs lport, dport, wl;
    bool envs;
};

static const struct tool_env env_table[] = {
    {"LOCALPORT", "lport"}, {"DMSGPORT", "dport"}, {"WHITELISTPKS", "wl"}, {NULL, NULL}};

static const char example[] =
    "# export DMSGWEBSRV=/etc/dmsgwebsrv.conf; flags win over what is set here\n"
    "# local TCP ports\n"
    "LOCALPORT=('8086')\n"
    "# dmsg ports, one for each local port\n"
    "DMSGPORT=('80')\n"
    "# keys that are served; none: everybody\n"
    "WHITELISTPKS=('')\n";

struct srv {
    struct tool_hub t;
    struct whitelist wl;
    struct expose *open[PORTS];
    size_t n;
};

static int open_all(struct srv *s, const uint16_t *local, const uint16_t *dmsg, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct socks_dest to;
        char pk[PUBKEY_HEX + 1];
        struct expose_cfg cfg = {.port = dmsg[i], .to = &to, .whitelist = &s->wl};
        int rc = socks_dest_set(&to, "127.0.0.1", 9, local[i]);
        if (rc < 0 || expose_open(&s->open[i], s->t.hub, &cfg) < 0)
            return tool_fail(s->t.net->failure.err, "%s", s->t.net->failure.text);
        s->n++;
        fprintf(stderr, "%s:%u leads to 127.0.0.1:%u, for %s\n", pubkey_hex(pk, &s->t.net->self),
                expose_port(s->open[i]), local[i], s->wl.n > 0 ? "the whitelist" : "everybody");
    }
    return 0;
}

static int serve(struct srv *s, const struct srv_opts *o)
{
    json_t *ports = json_array();
    for (size_t i = 0; i < s->n; i++)
        json_array_append_new(ports, json_integer(expose_port(s->open[i])));
    tool_hub_ready(&s->t, &o->proxy,
                   json_pack("{s:i, s:o}", "port", (int)expose_port(s->open[0]), "ports", ports));
    return tool_hub_run(&s->t);
}

static int run(struct cmdline *cl)
{
    struct srv_opts *o = cl->opts;
    uint16_t local[PORTS], dmsg[PORTS];
    size_t n_local = 0, n_dmsg = 0;
    struct srv s = {0};
    if (o->envs) {
        fputs(example, stdout);
        return 0;
    }
    int rc = tool_env_apply(cl, "DMSGWEBSRV", env_table);
    if (rc == 0)
        rc = tool_ports(cl, "lport", &o->lport, 8086, ADDR_STRICT, local, PORTS, &n_local);
    if (rc == 0)
        rc = tool_ports(cl, "dport", &o->dport, 80, ADDR_STRICT, dmsg, PORTS, &n_dmsg);
    if (rc == 0 && n_local != n_dmsg)
        rc = cmdline_usage_error(cl, "%zu local ports and %zu dmsg ports: they must be as many",
                                 n_local, n_dmsg);
    if (rc == 0)
        rc = tool_whitelist(cl, &o->wl, &s.wl);
    if (!cmdline_given(cl, "max-conns"))
        o->proxy.max_conns = CONNS;
    if (rc == 0)
        rc = tool_hub_open(&s.t, cl, &o->proxy, "DMSGWEBSRVSK DMSGWEBSRV_SK", TOOL_REACHABLE);
    if (rc == 0)
        rc = open_all(&s, local, dmsg, n_local);
    if (rc == 0)
        rc = serve(&s, o);
    for (size_t i = 0; i < s.n; i++)
        expose_close(s.open[i]);
    tool_hub_close(&s.t);
    whitelist_free(&s.wl);
    return rc;
}

static const struct cmd_opt flags[] = {
    {.name = "lport",
     .letter = 'p',
     CMD_STRS_AT(struct srv_opts, lport),
     .metavar = "PORT,PORT",
     .def_text = "8086",
     .help = "local TCP ports (commas, or repeated)"},
    {.name = "dport",
     .letter = 'd',
     CMD_STRS_AT(struct srv_opts, dport),
     .metavar = "PORT,PORT",
     .def_text = "80",
     .help = "dmsg ports, one for each local port"},
    {.name = "wl",
     .letter = 'w',
     CMD_STRS_AT(struct srv_opts, wl),
     .metavar = "PK,PK",
     .def_text = "everybody",
     .help = "keys that are served (commas, or repeated); others are closed"},
    {.name = "envs",
     .letter = 'E',
     CMD_FLAG_AT(struct srv_opts, envs),
     .help = "print an example of the file that the environment variable DMSGWEBSRV names"},
    {0}};
static const struct cmd_group groups[] = TOOL_PROXY_GROUPS(tool_compat_flags_web);

const struct cmd cmd_web_subs[] = {
    {.name = "srv",
     .help = "local TCP ports on dmsg ports",
     .about = "Every stream to a dmsg port becomes a connection to the local port of the same "
              "place in the list. Who is not in the whitelist is closed before anything is "
              "connected. Without --max-conns there are at most 256 connections at once.",
     .opts = flags,
     .groups = groups,
     .opts_size = sizeof(struct srv_opts),
     .run = run},
    {0}};
