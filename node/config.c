#include "node/config.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"
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
     .help = "join through this node (repeatable)"},
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
     .def_text = "control in the run directory",
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
     .def = "2048",
     .min = 1,
     .max = 1000000,
     .metavar = "N",
     .help = "sessions that the relay offers in its entry"},
    {.name = "whitelisted",
     CMD_PUBKEYS_AT(struct node_opts, whitelisted),
     .help = "publisher without quota (repeatable)"},
    {.name = "trusted",
     CMD_PUBKEYS_AT(struct node_opts, trusted),
     .help = "publisher without quota (repeatable)"},
    {.name = "mirror",
     CMD_PUBKEYS_AT(struct node_opts, mirrors),
     .help = "key that may publish for others (repeatable)"},
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

/* ---- reading ---- */

/* The object in a file; NULL and *err with the reason in why. */
static json_t *read_object(const char *path, int *err, char *why, size_t cap)
{
    json_error_t je;
    json_t *root = NULL;
    FILE *f = fopen(path, "re");
    char *text = f != NULL ? malloc(CONFIG_FILE_MAX + 1) : NULL;
    size_t n = text != NULL ? fread(text, 1, CONFIG_FILE_MAX + 1, f) : 0;
    *err = f == NULL || (text != NULL && ferror(f)) ? err_sys() : text == NULL ? ERR_NOMEM : 0;
    if (*err == 0 && n > CONFIG_FILE_MAX)
        *err = ERR_TOO_LONG;
    if (*err != 0) {
        snprintf(why, cap, "%s", err_str(*err));
    } else if ((root = json_loadb(text, n, JSON_REJECT_DUPLICATES, &je)) == NULL) {
        *err = ERR_FORMAT;
        snprintf(why, cap, "line %d: %s", je.line, je.text);
    } else if (!json_is_object(root)) {
        *err = ERR_FORMAT;
        snprintf(why, cap, "not a JSON object");
        json_decref(root);
        root = NULL;
    }
    free(text);
    if (f != NULL)
        fclose(f);
    return root;
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

static int set_one(struct cmdline *cl, const char *path, const struct cmd_opt *o, const json_t *v)
{
    char number[32], why[256] = "";
    const char *text = as_text(o, v, number);
    if (text == NULL)
        return tool_fail(ERR_FORMAT, "configuration file %s: \"%s\": not %s", path, o->name,
                         o->type == CMD_FLAG ? "true or false" : "a text or a number that fits");
    if (cmdline_set(cl, o->name, text, why, sizeof(why)) < 0)
        return tool_fail(ERR_FORMAT, "configuration file %s: \"%s\": %s: %s", path, o->name, text,
                         why);
    return 0;
}

static int set_any(struct cmdline *cl, const char *path, const struct cmd_opt *o, const json_t *v)
{
    size_t i;
    json_t *e;
    int rc = 0;
    if (!json_is_array(v))
        return set_one(cl, path, o, v);
    if (!o->list)
        return tool_fail(ERR_FORMAT, "configuration file %s: \"%s\": only one value is possible",
                         path, o->name);
    json_array_foreach((json_t *)(uintptr_t)v, i, e)
    {
        if (rc == 0)
            rc = set_one(cl, path, o, e);
    }
    return rc;
}

int config_load(struct cmdline *cl, const char *path)
{
    char why[256];
    const char *name;
    json_t *v;
    int rc = 0, err;
    json_t *root = read_object(path, &err, why, sizeof(why));
    if (root == NULL)
        return tool_fail(err, "configuration file %s: %s", path, why);
    json_object_foreach(root, name, v)
    {
        const struct cmd_opt *o = setting(name);
        if (rc != 0 || (o != NULL && json_is_null(v)))
            continue;
        rc = o != NULL ? set_any(cl, path, o, v)
                       : tool_fail(ERR_FORMAT, "configuration file %s: no such setting: \"%s\"",
                                   path, name);
    }
    json_decref(root);
    return rc;
}

int config_reload(struct cmdline *cl, const char *path, char *why, size_t cap)
{
    const struct node_opts *opts = cl->opts;
    int err;
    json_t *root = read_object(path, &err, why, cap);
    if (root == NULL)
        return err;
    const struct cmd_opt *o = setting("log-level");
    const json_t *v = json_object_get(root, o->name);
    const char *level = json_string_value(v);
    snprintf(why, cap, "\"%s\": not a text", o->name);
    int rc = level == NULL && v != NULL && !json_is_null(v) ? ERR_FORMAT : 0;
    const char *before = opts->log_level;
    if (rc == 0)
        rc = cmdline_set(cl, o->name, level != NULL ? level : o->def, why, cap);
    if (rc == 0 && (rc = log_set_levels(opts->log_level, why, cap)) < 0) {
        char ignored[64];
        (void)!cmdline_set(cl, o->name, before, ignored, sizeof(ignored));
    }
    json_decref(root);
    return rc;
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
