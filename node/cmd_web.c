#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "apps/forward.h"
#include "apps/web.h"
#include "base/err.h"
#include "node/cmds.h"
#include "node/tool_proxy.h"

#define SK_ENV "DMSGWEBSK DMSGWEB_SK"

struct web_opts {
    struct tool_proxy proxy; /* first */
    struct cmd_strs port, resolve, rt, alias;
    uint64_t socks;
    const char *filter;
    struct addr_hostport addproxy;
    bool envs;
};

static const struct tool_env env_table[] = {{"WEBPORT", "port"},      {"PROXYPORT", "socks"},
                                            {"ADDPROXY", "addproxy"}, {"RESOLVEPK", "resolve"},
                                            {"RAWTCP", "rt"},         {NULL, NULL}};

static const char example[] =
    "# export DMSGWEB=/etc/dmsgweb.conf; flags win over what is set here\n"
    "# port of the resolving proxy\n"
    "PROXYPORT=4445\n"
    "# local ports: of the older form of the proxy, or one for each key of RESOLVEPK\n"
    "WEBPORT=('8080')\n"
    "# fixed destinations, PK[:PORT]\n"
    "RESOLVEPK=('')\n"
    "# every destination is raw TCP, whatever stands here\n"
    "RAWTCP=('false')\n"
    "# SOCKS5 proxy for everything else\n"
    "#ADDPROXY='127.0.0.1:1080'\n";

/* ---- the resolving proxy ---- */

static int read_aliases(struct cmdline *cl, const struct cmd_strs *texts, struct dmsg_aliases *out)
{
    for (size_t i = 0; i < texts->n; i++) {
        int rc = dmsg_alias_add(out, texts->v[i]);
        if (rc < 0)
            return cmdline_usage_error(cl, "--alias: %s: %s", texts->v[i],
                                       rc == ERR_EXISTS  ? "the name is taken"
                                       : rc == ERR_LIMIT ? "too many"
                                                         : "not NAME=PK");
    }
    return 0;
}

static int web_config(struct cmdline *cl, const struct web_opts *o, struct web_cfg *cfg,
                      struct dmsg_aliases *aliases, struct socks_dest *upstream)
{
    *cfg = (struct web_cfg){.bind = o->proxy.bind,
                            .suffix = o->filter,
                            .socks_port = (uint16_t)o->socks,
                            .aliases = aliases};
    if (!dmsg_suffix_ok(o->filter))
        return cmdline_usage_error(cl, "--filter: not a suffix such as .dmsg: %s", o->filter);
    if (cmdline_given(cl, "rt"))
        return cmdline_usage_error(cl, "--rt is for --resolve");
    if (o->port.n > 1)
        return cmdline_usage_error(cl, "several ports are for --resolve");
    if (cmdline_given(cl, "addproxy")) {
        (void)socks_dest_set(upstream, o->addproxy.host, strlen(o->addproxy.host),
                             o->addproxy.port);
        cfg->upstream = upstream;
    }
    int rc = tool_ports(cl, "port", &o->port, 8080, ADDR_PORT_0, cfg->http_port, WEB_PORTS,
                        &cfg->n_http);
    return rc != 0 ? rc : read_aliases(cl, &o->alias, aliases);
}

static int serve_web(const struct tool_hub *t, const struct web_opts *o, const struct web *w)
{
    char pk[PUBKEY_HEX + 1];
    unsigned socks = web_socks_port(w), older = web_http_port(w, 0);
    fprintf(stderr,
            "under the key %s\nSOCKS5 and HTTP proxy on %s:%u for *%s, status at http://status%s/\n"
            "requests with a key in their Host on %s:%u\n",
            pubkey_hex(pk, &t->net->self), o->proxy.bind, socks, o->filter, o->filter,
            o->proxy.bind, older);
    tool_hub_ready(t, &o->proxy,
                   json_pack("{s:i, s:i, s:i}", "port", (int)socks, "socks_port", (int)socks,
                             "web_port", (int)older));
    return 0;
}

static int run_proxy(struct cmdline *cl, struct web_opts *o)
{
    static struct dmsg_aliases aliases;
    struct socks_dest upstream;
    struct web_cfg cfg;
    struct tool_hub t = {0};
    struct web *w = NULL;
    uint16_t bad;
    int rc = web_config(cl, o, &cfg, &aliases, &upstream);
    if (rc == 0)
        rc = tool_hub_open(&t, cl, &o->proxy, SK_ENV, TOOL_SESSION);
    if (rc == 0 && (rc = web_open(&w, t.hub, &cfg, &bad)) != 0)
        rc = tool_fail(rc, "%s:%u: %s", o->proxy.bind, bad,
                       rc == ERR_EXISTS ? "the upstream proxy is this one" : err_str(rc));
    else if (rc == 0 && (rc = serve_web(&t, o, w)) == 0)
        rc = tool_hub_run(&t);
    web_close(w);
    tool_hub_close(&t);
    return rc;
}

/* ---- fixed forwards ---- */

struct forwards {
    struct tool_hub t;
    struct addr_dmsg to[WEB_PORTS];
    uint16_t port[WEB_PORTS];
    struct forward *open[WEB_PORTS];
    size_t n;
};

/* "[dmsg://]PK[:PORT]"; upstream's guide writes the scheme. */
static int read_target(struct addr_dmsg *out, const char *p, size_t n)
{
    if (n > 7 && strncasecmp(p, "dmsg://", 7) == 0) {
        p += 7;
        n -= 7;
    }
    if (n > 0 && p[n - 1] == '/')
        n--;
    const char *colon = memchr(p, ':', n);
    size_t key_n = colon != NULL ? (size_t)(colon - p) : n;
    out->port = 80;
    if (pubkey_from_hex(&out->pk, p, key_n) < 0)
        return ERR_KEY;
    return colon == NULL ? 0 : addr_port_parse(&out->port, colon + 1, n - key_n - 1, ADDR_STRICT);
}

static int read_targets(struct cmdline *cl, const struct cmd_strs *texts, struct forwards *f)
{
    for (size_t i = 0; i < texts->n; i++) {
        for (const char *p = texts->v[i]; *p != '\0'; p += *p == ',') {
            size_t n = strcspn(p, ",");
            struct addr_dmsg *to = &f->to[f->n];
            if (f->n == WEB_PORTS)
                return cmdline_usage_error(cl, "--resolve: more than %d", WEB_PORTS);
            if (read_target(to, p, n) < 0)
                return cmdline_usage_error(cl, "--resolve: not PK or PK:PORT: %.*s", (int)n, p);
            for (size_t k = 0; k < f->n; k++) {
                if (f->to[k].port == to->port && pubkey_equal(&f->to[k].pk, &to->pk))
                    return cmdline_usage_error(cl, "--resolve: given twice: %.*s", (int)n, p);
            }
            f->n++;
            p += n;
        }
    }
    return 0;
}

static int check_rt(struct cmdline *cl, const struct cmd_strs *texts)
{
    for (size_t i = 0; i < texts->n; i++) {
        for (const char *p = texts->v[i]; *p != '\0'; p += *p == ',') {
            size_t n = strcspn(p, ",");
            if (!(n == 4 && strncmp(p, "true", 4) == 0) && !(n == 5 && strncmp(p, "false", 5) == 0))
                return cmdline_usage_error(cl, "--rt: not true or false: %.*s", (int)n, p);
            p += n;
        }
    }
    return 0;
}

static int open_forwards(struct forwards *f, const struct web_opts *o)
{
    json_t *ports = json_array();
    for (size_t i = 0; i < f->n; i++) {
        char to[ADDR_DMSG_MAX + 1];
        int rc = forward_open(&f->open[i], f->t.hub, o->proxy.bind, f->port[i], &f->to[i].pk,
                              f->to[i].port);
        if (rc < 0) {
            json_decref(ports);
            return tool_fail(rc, "%s:%u: %s", o->proxy.bind, f->port[i], err_str(rc));
        }
        fprintf(stderr, "%s:%u leads to %s\n", o->proxy.bind, forward_port(f->open[i]),
                addr_dmsg_text(to, &f->to[i]));
        json_array_append_new(ports, json_integer(forward_port(f->open[i])));
    }
    tool_hub_ready(&f->t, &o->proxy,
                   json_pack("{s:i, s:o}", "port", (int)forward_port(f->open[0]), "ports", ports));
    return 0;
}

static int run_forwards(struct cmdline *cl, struct web_opts *o)
{
    struct forwards f = {0};
    size_t n_ports = 0;
    int rc = read_targets(cl, &o->resolve, &f);
    if (rc == 0)
        rc = tool_ports(cl, "port", &o->port, 8080, ADDR_PORT_0, f.port, WEB_PORTS, &n_ports);
    if (rc == 0)
        rc = check_rt(cl, &o->rt);
    if (rc == 0 && f.n != n_ports)
        rc = cmdline_usage_error(
            cl, "--resolve -t flag cannot contain a different number of elements than --port -p "
                "flag");
    if (rc == 0)
        rc = tool_hub_open(&f.t, cl, &o->proxy, SK_ENV, TOOL_SESSION);
    if (rc == 0)
        rc = open_forwards(&f, o);
    if (rc == 0)
        rc = tool_hub_run(&f.t);
    for (size_t i = 0; i < f.n; i++)
        forward_close(f.open[i]);
    tool_hub_close(&f.t);
    return rc;
}

/* ---- the command ---- */

static int run(struct cmdline *cl)
{
    struct web_opts *o = cl->opts;
    if (o->envs) {
        fputs(example, stdout);
        return 0;
    }
    int rc = tool_env_apply(cl, "DMSGWEB", env_table);
    if (rc != 0)
        return rc;
    return o->resolve.n > 0 ? run_forwards(cl, o) : run_proxy(cl, o);
}

static const struct cmd_opt flags[] = {
    {.name = "socks",
     .letter = 'q',
     CMD_U64_AT(struct web_opts, socks),
     .metavar = "PORT",
     .def = "4445",
     .max = 65535,
     .help = "port of the resolving proxy; 0 takes any"},
    {.name = "port",
     .letter = 'p',
     CMD_STRS_AT(struct web_opts, port),
     .metavar = "PORT,PORT",
     .def_text = "8080",
     .help = "port for requests with a key in their Host; with --resolve one port for each "
             "destination; 0 takes any"},
    {.name = "filter",
     .letter = 'f',
     CMD_STR_AT(struct web_opts, filter),
     .metavar = "SUFFIX",
     .def = ".dmsg",
     .help = "end of the names that lead into the network"},
    {.name = "addproxy",
     .letter = 'r',
     CMD_HOSTPORT_AT(struct web_opts, addproxy),
     .def_text = "dial directly",
     .help = "SOCKS5 proxy for everything else"},
    {.name = "resolve",
     .letter = 't',
     CMD_STRS_AT(struct web_opts, resolve),
     .metavar = "PK:PORT",
     .help = "no proxy: each of the ports leads to one of these (commas, or repeated)"},
    {.name = "rt",
     .letter = 'c',
     CMD_STRS_AT(struct web_opts, rt),
     .metavar = "BOOL",
     .help = "raw TCP for each --resolve; accepted, they all are"},
    {.name = "alias",
     CMD_STRS_AT(struct web_opts, alias),
     .metavar = "NAME=PK",
     .help = "a name of your own for a key"},
    {.name = "envs",
     .letter = 'E',
     CMD_FLAG_AT(struct web_opts, envs),
     .help = "print an example of the file that the environment variable DMSGWEB names"},
    {0}};
static const struct cmd_group groups[] = TOOL_PROXY_GROUPS(tool_compat_flags_web);

const struct cmd cmd_web = {
    .name = "web",
    .help = "web sites and TCP ports over dmsg, for browsers",
    .about =
        "A proxy for browsers, SOCKS5 and HTTP on one port. A host name KEY.dmsg leads to the dmsg "
        "port that the URL names (80 when it names none); KEY is the public key in hexadecimal, in "
        "base32 (53 characters) or an alias. With more labels before it, blog.KEY.dmsg, they "
        "become the Host of each request; a label that is a key, RELAY.KEY.dmsg, names the relay "
        "to go through. http://status.dmsg/ shows sessions, connections and "
        "errors, status.dmsg/json the same for programs; http://home.dmsg/ is a start page. A "
        "browser that cannot reach a site now gets a page that tries again. All other names go to "
        "--addproxy, or are dialled directly.\n\n"
        "The second port takes requests whose Host header has such a name, as browsers send "
        "them when KEY.dmsg resolves to this host; the dmsg port is that of the Host header, or "
        "80 when it is absent or this port.\n\n"
        "With --resolve there is no proxy: every connection to one of the ports is a stream to the "
        "destination of the same place in the list.",
    .opts = flags,
    .groups = groups,
    .opts_size = sizeof(struct web_opts),
    .run = run,
    .subs = cmd_web_subs,
};
