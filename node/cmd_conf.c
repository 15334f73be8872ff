#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"
#include "compat-http/deploy_conf.h"
#include "node/cmds.h"
#include "node/config.h"
#include "node/keyfile.h"
#include "node/tool_compat.h"
#include "node/tool_key.h"

struct conf_opts {
    struct tool_opts conn;
    struct tool_compat compat;
    struct seckey sk;
    const char *config;
    bool dmsghttp, services;
};

/* ---- the list of servers ---- */

static void add_server(json_t *list, const char *pk, const char *addr)
{
    if (addr[0] != '\0')
        json_array_append_new(list,
                              json_pack("{s:s, s:{s:s}}", "static", pk, "server", "address", addr));
}

static void on_session(void *arg, json_t *row)
{
    add_server(arg, tool_str(row, "server"), tool_str(row, "address"));
}

/* The relay of the node itself, and those that it holds or tries sessions to. */
static int running_servers(const struct tool_opts *opts, json_t *list)
{
    struct tool *t;
    json_t *status = NULL;
    int rc = tool_open(&t, opts, TOOL_NODE);
    if (rc == 0)
        rc = tool_call(t, json_pack("{s:s}", "cmd", "status"), NULL, NULL, &status, NULL);
    if (rc == 0)
        add_server(list, tool_str(status, "public_key"),
                   tool_str(json_object_get(status, "relay"), "public_address"));
    if (rc == 0)
        rc = tool_call(t, json_pack("{s:s}", "cmd", "sessions"), on_session, list, NULL, NULL);
    json_decref(status);
    tool_close(t);
    return rc;
}

static int servers(struct cmdline *cl, json_t *list)
{
    struct conf_opts *o = cl->opts;
    struct tool_opts opts;
    char pk[PUBKEY_HEX + 1], addr[ADDR_HOSTPORT_MAX + 1];
    int rc = tool_compat_apply(cl, &o->compat, &o->conn, NULL, &opts);
    if (rc != 0)
        return rc;
    if (opts.bootstrap.n == 0)
        return running_servers(&opts, list);
    for (size_t i = 0; i < opts.bootstrap.n; i++)
        add_server(list, pubkey_hex(pk, &opts.bootstrap.v[i].pk),
                   addr_hostport_text(addr, &opts.bootstrap.v[i].at));
    return 0;
}

static void print_pretty(const struct conf_opts *o, json_t *v)
{
    json_dumpf(v, stdout, o->conn.json ? JSON_COMPACT : JSON_INDENT(2));
    putchar('\n');
}

static int list(struct cmdline *cl)
{
    const struct conf_opts *o = cl->opts;
    json_t *v = json_array();
    int rc = servers(cl, v);
    if (rc == 0 && o->conn.json)
        tool_print(json_pack("{s:O}", "dmsg_servers", v));
    else if (rc == 0)
        print_pretty(o, v);
    json_decref(v);
    return rc;
}

/* ---- print ---- */

/* The discovery that the running node asks, into root. */
static int running_discovery(const struct tool_opts *opts, json_t *root)
{
    struct tool *t;
    json_t *answer = NULL;
    int rc = tool_open(&t, opts, TOOL_NODE);
    if (rc == 0)
        rc = tool_call(t, json_pack("{s:s}", "cmd", "config"), NULL, NULL, &answer, NULL);
    json_t *url = json_object_get(json_object_get(answer, "config"), "discovery");
    if (rc == 0 && json_is_string(url) && json_string_length(url) > 0)
        json_object_set(root, "dmsg_discovery", url);
    json_decref(answer);
    tool_close(t);
    return rc;
}

/* The deployment that the flags name, else that of the running node, as a file of upstream's says it. */
static int named_deployment(struct cmdline *cl, json_t *root)
{
    struct conf_opts *o = cl->opts;
    struct tool_opts opts;
    json_t *list = json_array();
    int rc = servers(cl, list);
    if (rc == 0)
        rc = tool_compat_apply(cl, &o->compat, &o->conn, NULL, &opts);
    if (rc == 0 && opts.discovery != NULL)
        json_object_set_new(root, "dmsg_discovery", json_string(opts.discovery));
    else if (rc == 0 && opts.bootstrap.n == 0)
        rc = running_discovery(&opts, root);
    json_object_set_new(root, "dmsg_servers", list);
    return rc;
}

static int deployment(struct cmdline *cl, struct deploy_conf *c)
{
    const struct conf_opts *o = cl->opts;
    char why[256];
    struct stat st;
    if (o->compat.dmsgconf != NULL && stat(o->compat.dmsgconf, &st) == 0) {
        int rc = deploy_conf_load(c, o->compat.dmsgconf, "prod", why, sizeof(why));
        return rc < 0 ? tool_fail(rc, "%s: %s", o->compat.dmsgconf, why) : 0;
    }
    json_t *root = json_object();
    int rc = named_deployment(cl, root);
    char *text = rc == 0 ? json_dumps(root, JSON_COMPACT) : NULL;
    if (text != NULL &&
        (rc = deploy_conf_parse(c, text, strlen(text), "prod", why, sizeof(why))) < 0)
        rc = tool_fail(rc, "%s", why);
    free(text);
    json_decref(root);
    return rc;
}

/* The form of upstream's dmsghttp-config.json or services-config.json, with both environments. */
static int print_deployment(struct cmdline *cl)
{
    const struct conf_opts *o = cl->opts;
    struct deploy_conf c = {0}, none = {0};
    struct json_out out;
    int rc = deployment(cl, &c);
    json_out_grow(&out, JSON_FAST, DEPLOY_CONF_FILE);
    json_out_object(&out);
    for (int i = 0; i < 2; i++) {
        json_out_name(&out, i == 0 ? "test" : "prod");
        if (o->services)
            deploy_conf_write_services(&out, i == 0 ? &none : &c, true);
        else
            deploy_conf_write_dmsghttp(&out, i == 0 ? &none : &c);
    }
    json_out_object_end(&out);
    json_t *v = out.err == 0 ? json_loadb(out.p, out.len, 0, NULL) : NULL;
    if (rc == 0 && v == NULL)
        rc = tool_fail(ERR_NOMEM, "%s", err_str(ERR_NOMEM));
    else if (rc == 0)
        print_pretty(o, v);
    json_decref(v);
    json_out_free(&out);
    deploy_conf_free(&c);
    return rc;
}

/* What `kadmsg node --config FILE` would be told. */
static int print_file(const struct conf_opts *o)
{
    char name[] = "kadmsg", node[] = "node", *argv[] = {name, node, NULL};
    struct cmdline cl;
    int rc = 1;
    if (cmdline_parse(&cl, cmds_root(), 2, argv, stdout, stderr) &&
        (rc = config_load(&cl, o->config)) == 0) {
        json_t *v = config_json(&cl);
        print_pretty(o, v);
        json_decref(v);
    }
    cmdline_free(&cl);
    return rc;
}

static int print_running(struct cmdline *cl)
{
    struct conf_opts *o = cl->opts;
    struct tool *t;
    json_t *answer = NULL;
    int rc = tool_compat_open(&t, cl, &o->compat, &o->conn, NULL, TOOL_NODE);
    if (rc == 0)
        rc = tool_call(t, json_pack("{s:s}", "cmd", "config"), NULL, NULL, &answer, NULL);
    if (rc == 0)
        print_pretty(o, json_object_get(answer, "config"));
    json_decref(answer);
    tool_close(t);
    return rc;
}

static int print(struct cmdline *cl)
{
    const struct conf_opts *o = cl->opts;
    if (o->dmsghttp + o->services + (o->config != NULL) > 1)
        return cmdline_usage_error(cl, "--dmsghttp, --services and --config exclude each other");
    return o->dmsghttp || o->services ? print_deployment(cl)
           : o->config != NULL        ? print_file(o)
                                      : print_running(cl);
}

/* ---- keys ---- */

static int gen_keys(struct cmdline *cl)
{
    const struct conf_opts *o = cl->opts;
    return tool_key_gen(NULL, o->conn.json);
}

static int verify_keys(struct cmdline *cl)
{
    struct conf_opts *o = cl->opts;
    struct pubkey pk;
    char hex[PUBKEY_HEX + 1];
    bool on_argv = cmdline_given(cl, "SK");
    if (on_argv == (o->conn.sk_file != NULL))
        return cmdline_usage_error(cl, "SK or --sk-file");
    int rc = on_argv ? seckey_pubkey(&pk, &o->sk) : keyfile_read(&o->sk, &pk, o->conn.sk_file);
    if (rc < 0 && !on_argv)
        return tool_key_tell(rc, o->conn.sk_file);
    if (rc < 0)
        return tool_fail(rc, "failed to derive public key: %s", err_str(rc));
    if (o->conn.json)
        tool_print(json_pack("{s:s}", "public_key", pubkey_hex(hex, &pk)));
    else
        printf("%s\n", pubkey_hex(hex, &pk));
    return 0;
}

/* ---- the table ---- */

static const struct cmd_group groups[] = {
    {"Connection flags", tool_flags, offsetof(struct conf_opts, conn)},
    {TOOL_COMPAT_TITLE, tool_compat_flags, offsetof(struct conf_opts, compat)},
    {0}};
static const struct cmd_opt json_flags[] = {
    {.name = "json", CMD_FLAG_AT(struct conf_opts, conn.json), .help = "print JSON"}, {0}};
static const struct cmd_opt verify_flags[] = {
    {.name = "sk-file",
     CMD_STR_AT(struct conf_opts, conn.sk_file),
     .metavar = "FILE",
     .help = "the secret key is in this file; - reads standard input"},
    {.name = "json", CMD_FLAG_AT(struct conf_opts, conn.json), .help = "print JSON"},
    {0}};
static const struct cmd_opt verify_args[] = {{.name = "SK",
                                              CMD_SECKEY_AT(struct conf_opts, sk),
                                              .optional = true,
                                              .help = "the secret key; others on this machine can "
                                                      "see it, --sk-file is better"},
                                             {0}};
static const struct cmd_opt print_flags[] = {
    {.name = "config",
     CMD_STR_AT(struct conf_opts, config),
     .metavar = "FILE",
     .help =
         "what this configuration file means, with the defaults filled in, instead of a running "
         "node's settings"},
    {.name = "dmsghttp",
     CMD_FLAG_AT(struct conf_opts, dmsghttp),
     .help = "servers and services as upstream's dmsghttp-config.json has them"},
    {.name = "services",
     CMD_FLAG_AT(struct conf_opts, services),
     .help = "servers and services as upstream's services-config.json has them"},
    {0}};

#define SIZE .opts_size = sizeof(struct conf_opts)
static const struct cmd subs[] = {
    {.name = "gen-keys",
     .help = "make a key pair: public key and secret key, a line each",
     .opts = json_flags,
     SIZE,
     .run = gen_keys},
    {.name = "verify-keys",
     .help = "the public key of a secret key",
     .args = verify_args,
     .opts = verify_flags,
     SIZE,
     .run = verify_keys},
    {.name = "print",
     .help = "the settings that a running node has in force",
     .about =
         "In the form of its configuration file, so that kadmsg node --config takes the "
         "output. With --dmsghttp or --services a file of upstream's: what the file of -D says, "
         "in either spelling, else the servers and the discovery of the flags or of the "
         "running node.",
     .opts = print_flags,
     .groups = groups,
     SIZE,
     .run = print},
    {0}};

const struct cmd cmd_conf = {
    .name = "conf",
    .help = "servers and settings",
    .about =
        "Without sub-command: the list of servers as upstream's tool prints it, a JSON array of "
        "static and server.address. It is that of -D, -S or --bootstrap, else of the node that "
        "runs on this machine: its own relay and those that it has or seeks sessions to.",
    .groups = groups,
    .opts_size = sizeof(struct conf_opts),
    .run = list,
    .subs = subs,
};
