#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "node/cmds.h"
#include "node/keyfile.h"
#include "node/paths.h"
#include "node/tool.h"
#include "node/tool_key.h"
#include "store/lmdb.h"
#include "store/tools.h"

struct store_opts {
    const char *store, *sk_file, *file;
    bool json;
};

/* ---- which store ---- */

/* The folder that was named, or the one that a node with this key uses. */
static int find_dir(struct cmdline *cl, char dir[PATHS_MAX])
{
    const struct store_opts *o = cl->opts;
    struct seckey sk;
    struct pubkey pk;

    if (o->store != NULL) {
        if (strlen(o->store) >= PATHS_MAX)
            return cmdline_usage_error(cl, "--store: the path is too long");
        strcpy(dir, o->store);
        return 0;
    }
    if (o->sk_file == NULL)
        return cmdline_usage_error(cl, "which store? --store DIR is missing");
    int rc = keyfile_read(&sk, &pk, o->sk_file);
    if (rc < 0)
        return tool_key_tell(rc, o->sk_file);
    seckey_wipe(&sk);
    rc = paths_store(dir, &pk);
    return rc < 0 ? tool_fail(rc, "state directory: %s", err_str(rc)) : 0;
}

/* A store that cannot be used is a failure whatever the reason: 1. */
static int open_store(struct cmdline *cl, struct store **s, char dir[PATHS_MAX], bool read_only)
{
    char why[STORE_WHY_BYTES];
    int rc = find_dir(cl, dir);

    if (rc != 0)
        return rc;
    struct store_lmdb_cfg cfg = {.path = dir, .read_only = read_only};
    if (store_lmdb_open(s, &cfg, why, sizeof why) == 0)
        return 0;
    tool_fail(ERR_CORRUPT, "%s", why);
    return CMD_EXIT_FAIL;
}

/* ---- the commands ---- */

static int run_stat(struct cmdline *cl)
{
    const struct store_opts *o = cl->opts;
    char dir[PATHS_MAX];
    struct store *s;
    int rc = open_store(cl, &s, dir, true);

    if (rc != 0)
        return rc;
    rc = store_tool_stat(s, stdout, o->json);
    s->ops->close(s);
    return rc < 0 ? tool_fail(rc, "store %s: %s", dir, err_str(rc)) : 0;
}

/* stdin or stdout for none and "-". */
static FILE *open_file(const char *name, FILE *standard, const char *mode, int *rc)
{
    if (name == NULL || strcmp(name, "-") == 0)
        return standard;
    FILE *f = fopen(name, mode);
    if (f == NULL)
        *rc = tool_fail(err_sys(), "file %s: %s", name, err_str(err_sys()));
    return f;
}

static int run_dump(struct cmdline *cl)
{
    const struct store_opts *o = cl->opts;
    struct store_dump_report report;
    char dir[PATHS_MAX];
    struct store *s;
    int rc = open_store(cl, &s, dir, true);

    if (rc != 0)
        return rc;
    FILE *out = open_file(o->file, stdout, "wx", &rc);
    if (out != NULL) {
        rc = store_tool_dump(s, out, &report);
        if (out != stdout && fclose(out) != 0 && rc == 0)
            rc = err_sys();
        if (rc == ERR_CORRUPT)
            rc = tool_fail(rc, "store %s: %llu damaged records were left out", dir,
                           (unsigned long long)report.damaged);
        else if (rc < 0)
            rc = tool_fail(rc, "dump of store %s: %s", dir, err_str(rc));
    }
    s->ops->close(s);
    return rc;
}

static void print_load(const struct store_opts *o, const struct store_load_report *r)
{
    const unsigned long long lines = r->lines, stored = r->stored, older = r->older,
                             refused = r->refused;

    if (o->json)
        tool_print(json_pack("{s:I, s:I, s:I, s:I}", "lines", (json_int_t)lines, "stored",
                             (json_int_t)stored, "older", (json_int_t)older, "refused",
                             (json_int_t)refused));
    else
        printf("%llu lines: %llu stored, %llu not newer than what is there, %llu refused\n", lines,
               stored, older, refused);
}

static int run_load(struct cmdline *cl)
{
    const struct store_opts *o = cl->opts;
    struct store_load_report report;
    char dir[PATHS_MAX];
    struct store *s;
    int rc = 0;
    FILE *in = open_file(o->file, stdin, "r", &rc);

    if (in == NULL)
        return rc;
    rc = open_store(cl, &s, dir, false);
    if (rc == 0) {
        rc = store_tool_load(s, in, stderr, &report);
        s->ops->close(s);
        print_load(o, &report);
        if (rc < 0)
            rc = tool_fail(rc, "store %s: %s", dir,
                           rc == ERR_FORMAT ? "some lines were refused" : err_str(rc));
    }
    if (in != stdin)
        fclose(in);
    return rc;
}

static int run_verify(struct cmdline *cl)
{
    const struct store_opts *o = cl->opts;
    struct store_verify_report report;
    char dir[PATHS_MAX];
    struct store *s;
    int rc = open_store(cl, &s, dir, true);

    if (rc != 0)
        return rc;
    rc = store_tool_verify(s, stderr, &report);
    s->ops->close(s);
    if (o->json)
        tool_print(json_pack("{s:b, s:I, s:I}", "ok", rc == 0, "records",
                             (json_int_t)report.records, "damaged", (json_int_t)report.damaged));
    else if (rc == 0)
        printf("%llu records, all sound\n", (unsigned long long)report.records);
    if (rc == ERR_CORRUPT)
        return tool_fail(rc, "store %s: damaged in %llu places", dir,
                         (unsigned long long)report.damaged);
    return rc < 0 ? tool_fail(rc, "store %s: %s", dir, err_str(rc)) : 0;
}

/* ---- the table ---- */

#define WHERE                                                                                      \
    {.name = "store",                                                                              \
     CMD_STR_AT(struct store_opts, store),                                                         \
     .metavar = "DIR",                                                                             \
     .help = "folder of the store"},                                                               \
    {                                                                                              \
        .name = "sk-file", CMD_STR_AT(struct store_opts, sk_file), .metavar = "FILE",              \
        .help = "instead of --store: the store of the node that runs with this key"                \
    }
#define JSON_FLAG                                                                                  \
    {                                                                                              \
        .name = "json", CMD_FLAG_AT(struct store_opts, json), .help = "print JSON"                 \
    }

static const struct cmd_opt flags[] = {WHERE, JSON_FLAG, {0}};
static const struct cmd_opt dump_flags[] = {WHERE, {0}};
static const struct cmd_opt dump_args[] = {{.name = "FILE",
                                            CMD_STR_AT(struct store_opts, file),
                                            .optional = true,
                                            .help = "a new file; default or -: standard output"},
                                           {0}};
static const struct cmd_opt load_args[] = {
    {.name = "FILE",
     CMD_STR_AT(struct store_opts, file),
     .optional = true,
     .help = "what dump wrote; default or -: standard input"},
    {0}};

#define SIZE .opts_size = sizeof(struct store_opts)
static const struct cmd subs[] = {
    {.name = "stat",
     .help = "figures of a store, also of a running node's",
     .opts = flags,
     SIZE,
     .run = run_stat},
    {.name = "dump",
     .help = "all records, one JSON object a line, in the order of their targets",
     .opts = dump_flags,
     .args = dump_args,
     SIZE,
     .run = run_dump},
    {.name = "load",
     .help = "put the records of a dump in; signatures are checked, a seq is never lowered",
     .opts = flags,
     .args = load_args,
     SIZE,
     .run = run_load},
    {.name = "verify",
     .help = "check pages, records, signatures and indexes",
     .about = "Findings go to standard error, a line each; the exit code is 1 when there is any.",
     .opts = flags,
     SIZE,
     .run = run_verify},
    {0}};

const struct cmd cmd_store = {
    .name = "store", .help = "look into a store, save it and check it", .subs = subs};
