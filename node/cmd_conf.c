#include <stdio.h>
#include <string.h>

#include "base/err.h"
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
    bool dmsghttp;
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

/* The form of upstream's dmsghttp-config.json: what there is of it without its services. */
static int print_dmsghttp(struct cmdline *cl)
{
    json_t *v = json_array();
    int rc = servers(cl, v);
    json_t *root =
        json_pack("{s:{s:[]}, s:{s:O}}", "test", "dmsg_servers", "prod", "dmsg_servers", v);
    if (rc == 0)
        print_pretty(cl->opts, root);
    json_decref(root);
    json_decref(v);
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
    if (o->dmsghttp && o->config != NULL)
        return cmdline_usage_error(cl, "--dmsghttp and --config exclude each other");
    return o->dmsghttp ? print_dmsghttp(cl) : o->config != NULL ? print_file(o) : print_running(cl);
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
     .help = "the servers as upstream's dmsghttp-config.json has them"},
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
     .about = "In the form of its configuration file, so that kadmsg node --config takes the "
              "output. With --dmsghttp the file that upstream's tools take by -D; services of "
              "upstream that this network does not have are left out.",
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
