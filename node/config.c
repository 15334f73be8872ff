#include "node/config.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "base/loop.h"
#include "node/tool.h"

const struct cmd_opt config_flags[] = {
    {.name = "config",
     CMD_STR_AT(struct node_opts, config),
     .metavar = "FILE",
     .help = "JSON file with the same names as these flags"},
    {.name = "sk-file",
     CMD_STR_AT(struct node_opts, sk_file),
     .metavar = "FILE",
     .def_text = "node.key in --store, else in the state directory; made at the first start",
     .help = "secret key; - reads standard input"},
    {.name = "listen",
     CMD_LISTEN_AT(struct node_opts, listen),
     .def_text = "no relay role",
     .help = "be a relay on this address; port 0 takes a free one"},
    {.name = "public-address",
     CMD_HOSTPORT_AT(struct node_opts, public_address),
     .def_text = "the listening address",
     .help = "address that is published for the relay"},
    {.name = "full",
     CMD_FLAG_AT(struct node_opts, full),
     .help = "full DHT node: keep every item, sync with other full nodes"},
    {.name = "bootstrap",
     CMD_PEERS_AT(struct node_opts, bootstrap),
     .help = "join through this node"},
    {.name = "discovery",
     CMD_STR_AT(struct node_opts, discovery),
     .metavar = "URL",
     .help =
         "also ask, and register with, this HTTP discovery: http://, https:// or dmsg://PK:PORT"},
    {.name = "mode",
     CMD_CHOICE_AT(struct node_opts, mode),
     .choices = "auto|dht|hybrid|http|dht-first",
     .def = "auto",
     .help = "where entries are looked up and published; auto is hybrid with --discovery, else "
             "dht. dht-first is hybrid, but registers over HTTP only while what was published in "
             "the DHT is not seen to come to the discovery"},
    {.name = "lookup",
     CMD_CHOICE_AT(struct node_opts, lookup),
     .choices = "auto|dht|hybrid|http",
     .def = "auto",
     .help = "where entries are looked up, in place of what --mode says"},
    {.name = "register",
     CMD_CHOICE_AT(struct node_opts, registration),
     .choices = "auto|always|unseen|never",
     .def = "auto",
     .help = "whether to register with the discovery, in place of what --mode says; a relay takes "
             "unseen for always"},
    {.name = "push",
     CMD_CHOICE_AT(struct node_opts, push),
     .choices = "auto|on|off",
     .def = "auto",
     .help = "bring entries of the DHT to the discovery; auto: as a relay or full node in hybrid "
             "and dht-first mode"},
    {.name = "http",
     CMD_LISTEN_AT(struct node_opts, http),
     .def_text = "not served",
     .help = "serve the dmsg discovery's API, for programs that know nothing of the DHT; without "
             "a host on 127.0.0.1"},
    {.name = "publish-sk-file",
     CMD_STR_AT(struct node_opts, publish_sk_file),
     .metavar = "FILE",
     .def_text = "the node's own key",
     .help = "key that signs what --http carries into the DHT for others"},
    {.name = "peers",
     CMD_PEERS_AT(struct node_opts, peers),
     .help = "link the relay to this relay, beside those found in the DHT"},
    {.name = "accepted-peer",
     CMD_PUBKEYS_AT(struct node_opts, accepted_peers),
     .def_text = "every relay",
     .help = "link only to relays of these keys and of --peers"},
    {.name = "accept-relayed",
     CMD_FLAG_AT(struct node_opts, accept_relayed),
     .help = "let clients of the relay bring requests of others"},
    {.name = "store",
     CMD_STR_AT(struct node_opts, store),
     .metavar = "DIR",
     .def_text = "a directory named after the key in the state directory",
     .help = "where items are kept"},
    {.name = "store-bytes",
     CMD_BYTES_AT(struct node_opts, store_bytes),
     .def_text = "1G for a full node, else 64M",
     .min = 1 << 20,
     .help = "byte budget of the store"},
    {.name = "commit",
     CMD_SECONDS_AT(struct node_opts, commit),
     .def = "50ms",
     .min = 1000000,
     .max = UINT64_C(60000000000),
     .help = "what is put is durable after this long"},
    {.name = "control",
     CMD_STR_AT(struct node_opts, control),
     .metavar = "PATH",
     .def_text = "control in the run directory, or control-KEY when that is taken",
     .help = "control socket"},
    {.name = "sessions",
     CMD_U64_AT(struct node_opts, sessions),
     .def = "2",
     .min = 1,
     .max = 32,
     .metavar = "N",
     .help = "sessions to relays that are held"},
    {.name = "max-sessions",
     CMD_U64_AT(struct node_opts, max_sessions),
     .def_text = "2048 in the entry, and as many as there is room for",
     .min = 1,
     .max = 1000000,
     .metavar = "N",
     .help = "sessions that the relay takes, and offers in its entry"},
    CONFIG_RELAY_FLAGS(struct node_opts),
    {.name = "health",
     CMD_LISTEN_AT(struct node_opts, health),
     .def_text = "not served",
     .help = "serve /health over HTTP there; without a host on 127.0.0.1"},
    {.name = "metrics",
     CMD_LISTEN_AT(struct node_opts, metrics),
     .def_text = "not served",
     .help = "serve /metrics in Prometheus' form, and /health; without a host on 127.0.0.1"},
    {.name = "dmsg-health",
     CMD_FLAG_AT(struct node_opts, dmsg_health),
     .help = "serve /health on dmsg port 80 too"},
    {.name = "whitelisted",
     CMD_PUBKEYS_AT(struct node_opts, whitelisted),
     .help = "publisher without quota"},
    {.name = "trusted",
     CMD_PUBKEYS_AT(struct node_opts, trusted),
     .help = "publisher without quota"},
    {.name = "mirror",
     CMD_PUBKEYS_AT(struct node_opts, mirrors),
     .help = "key that may publish for others"},
    {.name = "allow-writer",
     CMD_STRS_AT(struct node_opts, writers),
     .metavar = "NAMESPACE=KEY",
     .def_text = "everybody",
     .help = "private network: whose items may be under this salt (dmsg, tp, svc, addr:stcpr, "
             "addr:sudph, fullnode, dmsg-server, opaque for all others, or * for every one)"},
    {.name = "allow-reader",
     CMD_PUBKEYS_AT(struct node_opts, readers),
     .def_text = "everybody",
     .help = "private network: who is given values; --bootstrap, --trusted and --whitelisted are"},
    {.name = "network",
     CMD_STR_AT(struct node_opts, network),
     .metavar = "NAME",
     .def_text = "the default network",
     .help = "keep this DHT apart: nodes under different names share neither contacts nor items"},
    {.name = "pk-threads",
     CMD_U64_AT(struct node_opts, pk_threads),
     .min = 1,
     .max = 64,
     .metavar = "N",
     .def_text = "by cores, 1 to 4",
     .help = "threads for public-key work"},
    {.name = "log-level",
     CMD_STR_AT(struct node_opts, log_level),
     .def = "info",
     .metavar = "LEVELS",
     .help = "error, warn, info, debug or trace; also by subsystem: info,dht=debug"},
    {.name = "log-json", CMD_FLAG_AT(struct node_opts, log_json), .help = "log JSON lines"},
    {.name = "ready",
     CMD_FLAG_AT(struct node_opts, ready),
     .help = "print one JSON line on stdout when the node can serve"},
    {.name = "sample-config",
     CMD_FLAG_AT(struct node_opts, sample_config),
     .help = "print a configuration file with the defaults and leave"},
    {0}};

/* ---- private networks ---- */

static int parse_writer(struct kad_writer *out, const char *text, char *why, size_t cap)
{
    const char *eq = strchr(text, '=');
    size_t n = eq != NULL ? (size_t)(eq - text) : 0;
    bool all = n == 1 && text[0] == '*';

    out->ns = all ? NS__COUNT : ns_by_name(text, n);
    if (eq == NULL)
        snprintf(why, cap, "allow-writer: %s: not NAMESPACE=KEY", text);
    else if (out->ns == NS__COUNT && !all)
        snprintf(why, cap, "allow-writer: %.*s: no such namespace", (int)n, text);
    else if (pubkey_from_hex(&out->pk, eq + 1, strlen(eq + 1)) != 0)
        snprintf(why, cap, "allow-writer: %s: not a public key", eq + 1);
    else
        return 0;
    return ERR_USAGE;
}

int config_writers(struct kad_writer **out, size_t *n, const struct cmd_strs *texts, char *why,
                   size_t cap)
{
    *n = 0;
    *out = texts->n > 0 ? calloc(texts->n, sizeof **out) : NULL;
    if (texts->n > 0 && *out == NULL) {
        snprintf(why, cap, "%s", err_str(ERR_NOMEM));
        return ERR_NOMEM;
    }
    for (; *n < texts->n; ++*n) {
        int rc = parse_writer(&(*out)[*n], texts->v[*n], why, cap);
        if (rc != 0) {
            free(*out);
            *out = NULL;
            return rc;
        }
    }
    return 0;
}

void config_relay(struct node_cfg *cfg, const struct relay_flags *f)
{
    cfg->guard.max_sessions_addr = (uint32_t)f->max_sessions_addr;
    cfg->guard.handshakes_per_s = (uint32_t)f->handshake_rate;
    cfg->guard.max_streams = (uint32_t)f->max_streams;
    cfg->guard.bytes_per_s = f->total_rate;
    cfg->key_bytes_per_s = f->key_rate;
    cfg->allow = f->allow_keys;
    cfg->deny = f->deny_keys;
    cfg->workers = (unsigned)f->workers;
}

/* ---- reading ---- */

/* The whole file; NULL and *err. The caller frees it. */
static char *read_file(const char *path, size_t *n, int *err)
{
    FILE *f = fopen(path, "re");
    char *text = f != NULL ? malloc(CONFIG_FILE_MAX + 1) : NULL;
    *n = text != NULL ? fread(text, 1, CONFIG_FILE_MAX + 1, f) : 0;
    *err = f == NULL || (text != NULL && ferror(f)) ? err_sys()
           : text == NULL                           ? ERR_NOMEM
           : *n > CONFIG_FILE_MAX                   ? ERR_TOO_LONG
                                                    : 0;
    if (f != NULL)
        fclose(f);
    if (*err == 0)
        return text;
    free(text);
    return NULL;
}

static json_t *read_object(const char *text, size_t n, char *why, size_t cap)
{
    json_error_t je;
    json_t *root = json_loadb(text, n, JSON_REJECT_DUPLICATES, &je);
    if (json_is_object(root))
        return root;
    if (root == NULL)
        snprintf(why, cap, "line %d: %s", je.line, je.text);
    else
        snprintf(why, cap, "not a JSON object");
    json_decref(root);
    return NULL;
}

bool config_is_setting(const struct cmd_opt *o)
{
    return o->offset != offsetof(struct node_opts, config) &&
           o->offset != offsetof(struct node_opts, sample_config);
}

static const struct cmd_opt *setting(const char *name)
{
    const struct cmd_opt *o = config_flags;
    while (o->name != NULL && strcmp(o->name, name) != 0)
        o++;
    return o->name != NULL && config_is_setting(o) ? o : NULL;
}

/* What a flag would be given on the command line; NULL when the type does not fit. */
static const char *as_text(const struct cmd_opt *o, const json_t *v, char number[32])
{
    if (o->type == CMD_FLAG)
        return json_is_boolean(v) ? json_is_true(v) ? "true" : "false" : NULL;
    if (json_is_string(v))
        return json_string_value(v);
    if (!json_is_number(v) ||
        (o->type != CMD_U64 && o->type != CMD_BYTES && o->type != CMD_SECONDS))
        return NULL;
    if (json_is_integer(v))
        snprintf(number, 32, "%lld", (long long)json_integer_value(v));
    else
        snprintf(number, 32, "%.9g", json_real_value(v));
    return number;
}

static int set_one(struct cmdline *cl, const struct cmd_opt *o, const json_t *v, char *why,
                   size_t cap)
{
    char number[32], reason[200] = "";
    const char *text = as_text(o, v, number);
    if (text == NULL)
        snprintf(why, cap, "\"%s\": not %s", o->name,
                 o->type == CMD_FLAG ? "true or false" : "a text or a number that fits");
    else if (cmdline_set(cl, o->name, text, reason, sizeof(reason)) < 0)
        snprintf(why, cap, "\"%s\": %.200s: %s", o->name, text, reason);
    else
        return 0;
    return ERR_FORMAT;
}

static int set_any(struct cmdline *cl, const struct cmd_opt *o, const json_t *v, char *why,
                   size_t cap)
{
    int rc = 0;
    if (!json_is_array(v))
        return json_is_null(v) ? 0 : set_one(cl, o, v, why, cap);
    if (!o->list) {
        snprintf(why, cap, "\"%s\": only one value is possible", o->name);
        return ERR_FORMAT;
    }
    for (size_t i = 0; i < json_array_size(v) && rc == 0; i++)
        rc = set_one(cl, o, json_array_get(v, i), why, cap);
    return rc;
}

int config_parse(struct cmdline *cl, const char *text, size_t n, char *why, size_t cap)
{
    const char *name;
    json_t *v, *root = read_object(text, n, why, cap);
    int rc = root != NULL ? 0 : ERR_FORMAT;
    json_object_foreach(root, name, v)
    {
        const struct cmd_opt *o = setting(name);
        if (rc == 0 && o == NULL) {
            snprintf(why, cap, "no such setting: \"%.200s\"", name);
            rc = ERR_FORMAT;
        }
        if (rc == 0)
            rc = set_any(cl, o, v, why, cap);
    }
    json_decref(root);
    return rc;
}

int config_load(struct cmdline *cl, const char *path)
{
    char why[CONFIG_WHY];
    size_t n;
    int err;
    char *text = read_file(path, &n, &err);
    if (text == NULL)
        return tool_fail(err, "configuration file %s: %s", path, err_str(err));
    err = config_parse(cl, text, n, why, sizeof(why));
    free(text);
    return err < 0 ? tool_fail(err, "configuration file %s: %s", path, why) : 0;
}

/* The level that the file asks for, its default when it asks for none. */
static int set_level(struct cmdline *cl, const json_t *root, char *why, size_t cap)
{
    const struct cmd_opt *o = setting("log-level");
    const json_t *v = json_object_get(root, o->name);
    if (v != NULL && !json_is_null(v))
        return set_one(cl, o, v, why, cap);
    return cmdline_set(cl, o->name, o->def, why, cap);
}

int config_reload(struct cmdline *cl, const char *path, char *why, size_t cap)
{
    const struct node_opts *opts = cl->opts;
    char ignored[CONFIG_WHY];
    const char *before = opts->log_level;
    size_t n;
    int rc;
    char *text = read_file(path, &n, &rc);
    json_t *root = text != NULL ? read_object(text, n, why, cap) : NULL;
    if (text == NULL)
        snprintf(why, cap, "%s", err_str(rc));
    free(text);
    if (root == NULL)
        return rc < 0 ? rc : ERR_FORMAT;
    rc = set_level(cl, root, why, cap);
    if (rc == 0 && (rc = log_set_levels(opts->log_level, why, cap)) < 0)
        (void)!cmdline_set(cl, "log-level", before, ignored, sizeof(ignored));
    json_decref(root);
    return rc;
}

/* ---- settings as JSON ---- */

static json_t *time_json(uint64_t ns)
{
    char text[32];
    if (ns % NS_PER_S == 0)
        return json_integer((json_int_t)(ns / NS_PER_S));
    snprintf(text, sizeof(text), "%gms", (double)ns / 1e6);
    return json_string(text);
}

static json_t *key_json(const struct pubkey *pk)
{
    char hex[PUBKEY_HEX + 1];
    return json_string(pubkey_hex(hex, pk));
}

static json_t *list_json(const struct cmd_opt *o, const void *value)
{
    const struct cmd_peers *peers = value;
    const struct cmd_pubkeys *keys = value;
    json_t *list = json_array();
    char text[ADDR_PEER_MAX + 1];
    for (size_t i = 0; o->type == CMD_PEER && i < peers->n; i++)
        json_array_append_new(list, json_string(addr_peer_text(text, &peers->v[i])));
    for (size_t i = 0; o->type == CMD_PUBKEY && i < keys->n; i++)
        json_array_append_new(list, key_json(&keys->v[i]));
    return list;
}

static json_t *value_json(const struct cmd_opt *o, const void *value, bool given)
{
    char text[ADDR_HOSTPORT_MAX + 1];
    if (o->list)
        return list_json(o, value);
    if (o->type == CMD_FLAG)
        return json_boolean(*(const bool *)value);
    if (!given && o->def == NULL)
        return json_null();
    switch (o->type) {
    case CMD_STR:
        return json_string(*(const char *const *)value);
    case CMD_U64:
    case CMD_BYTES:
        return json_integer(*(const json_int_t *)value);
    case CMD_SECONDS:
        return time_json(*(const uint64_t *)value);
    case CMD_HOSTPORT:
    case CMD_LISTEN:
        return json_string(addr_hostport_text(text, value));
    case CMD_FLAG:
    case CMD_PORT:
    case CMD_CHOICE:
    case CMD_PUBKEY:
    case CMD_SECKEY:
    case CMD_PEER:
    case CMD_DMSG:
        break; /* no setting has such a value; a test walks over all */
    }
    return json_null();
}

json_t *config_json(const struct cmdline *cl)
{
    json_t *root = json_object();
    for (const struct cmd_opt *o = config_flags; o->name != NULL; o++) {
        if (config_is_setting(o))
            json_object_set_new(
                root, o->name,
                value_json(o, (const char *)cl->opts + o->offset, cmdline_given(cl, o->name)));
    }
    return root;
}

/* ---- the sample ---- */

static json_t *default_value(const struct cmd_opt *o)
{
    if (o->list)
        return json_array();
    if (o->type == CMD_FLAG)
        return json_false();
    if (o->type == CMD_U64 && o->def != NULL)
        return json_integer(strtoll(o->def, NULL, 10));
    return o->def != NULL ? json_string(o->def) : json_null();
}

void config_sample(FILE *out)
{
    json_t *root = json_object();
    for (const struct cmd_opt *o = config_flags; o->name != NULL; o++) {
        if (!config_is_setting(o))
            continue;
        json_object_set_new(root, o->name, default_value(o));
    }
    json_dumpf(root, out, JSON_INDENT(4));
    fputc('\n', out);
    json_decref(root);
}
