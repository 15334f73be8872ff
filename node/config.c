#include "node/config.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "node/tool.h"

const struct cmd_opt config_flags[] = {
    {.name = "config",
     CMD_STR_AT(struct node_opts, config),
     .metavar = "FILE",
     .help = "JSON file with the same names as these flags"},
    {.name = "sk-file",
     CMD_STR_AT(struct node_opts, sk_file),
     .metavar = "FILE",
     .def_text = "node.key in the store directory, made at the first start",
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

static int set_one(struct cmdline *cl, const char *path, const char *name, const json_t *v)
{
    char number[32], why[256] = "";
    const char *text = NULL;
    if (json_is_string(v)) {
        text = json_string_value(v);
    } else if (json_is_boolean(v)) {
        text = json_is_true(v) ? "true" : "false";
    } else if (json_is_integer(v)) {
        snprintf(number, sizeof(number), "%lld", (long long)json_integer_value(v));
        text = number;
    }
    int rc = text == NULL ? ERR_FORMAT : cmdline_set(cl, name, text, why, sizeof(why));
    if (rc == ERR_NOT_FOUND || strcmp(name, "config") == 0)
        return tool_fail(ERR_USAGE, "%s: no such setting: \"%s\"", path, name);
    return rc < 0 ? tool_fail(ERR_USAGE, "%s: \"%s\": %s", path, name,
                              why[0] != '\0' ? why : "not a text, number or boolean")
                  : 0;
}

static int set_all(struct cmdline *cl, const char *path, const json_t *root)
{
    const char *name;
    json_t *v, *e;
    size_t i;
    json_object_foreach((json_t *)(uintptr_t)root, name, v)
    {
        int rc = 0;
        if (json_is_array(v)) {
            json_array_foreach(v, i, e)
            {
                if (rc == 0)
                    rc = set_one(cl, path, name, e);
            }
        } else if (!json_is_null(v)) {
            rc = set_one(cl, path, name, v);
        }
        if (rc != 0)
            return rc;
    }
    return 0;
}

int config_load(struct cmdline *cl, const char *path)
{
    json_error_t je;
    FILE *f = fopen(path, "re");
    char *text = f != NULL ? malloc(CONFIG_FILE_MAX + 1) : NULL;
    if (f == NULL)
        return tool_fail(err_sys(), "configuration file %s: %s", path, strerror(errno));
    size_t n = text != NULL ? fread(text, 1, CONFIG_FILE_MAX + 1, f) : 0;
    bool failed = text == NULL || ferror(f) != 0;
    fclose(f);
    json_t *root =
        failed || n > CONFIG_FILE_MAX ? NULL : json_loadb(text, n, JSON_REJECT_DUPLICATES, &je);
    free(text);
    int rc;
    if (failed)
        rc = tool_fail(ERR_FORMAT, "configuration file %s: cannot be read", path);
    else if (n > CONFIG_FILE_MAX)
        rc = tool_fail(ERR_TOO_LONG, "configuration file %s: longer than %d bytes", path,
                       CONFIG_FILE_MAX);
    else if (root == NULL)
        rc = tool_fail(ERR_USAGE, "configuration file %s, line %d: %s", path, je.line, je.text);
    else if (!json_is_object(root))
        rc = tool_fail(ERR_USAGE, "configuration file %s: not a JSON object", path);
    else
        rc = set_all(cl, path, root);
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
        if (o->offset == offsetof(struct node_opts, config) ||
            o->offset == offsetof(struct node_opts, sample_config))
            continue;
        json_object_set_new(root, o->name, default_value(o));
    }
    json_dumpf(root, out, JSON_INDENT(4));
    fputc('\n', out);
    json_decref(root);
}
