#include "node/tool_proxy.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apps/envfile.h"
#include "base/err.h"
#include "base/loop.h"
#include "node/app_net.h"
#include "node/ready.h"

const struct cmd_opt tool_proxy_flags[] = {
    {.name = "bind",
     CMD_STR_AT(struct tool_proxy, bind),
     .metavar = "ADDRESS",
     .def = "127.0.0.1",
     .help = "address of local ports"},
    {.name = "max-conns",
     CMD_U64_AT(struct tool_proxy, max_conns),
     .metavar = "N",
     .def = "1024",
     .min = 1,
     .max = 100000,
     .help = "connections at once; more are closed"},
    {.name = "idle-time",
     CMD_SECONDS_AT(struct tool_proxy, idle),
     .def = "1h",
     .min = 1000000,
     .max = 30 * 86400 * NS_PER_S,
     .help = "close connections without a byte for so long"},
    {.name = "stall-time",
     CMD_SECONDS_AT(struct tool_proxy, stall),
     .def = "5m",
     .min = 1000000,
     .max = 30 * 86400 * NS_PER_S,
     .help = "close connections whose reader takes nothing for so long"},
    {.name = "ready",
     CMD_FLAG_AT(struct tool_proxy, ready),
     .help = "print one JSON line on stdout when it serves"},
    {0}};

static int say_failure(const struct app_net *net)
{
    fprintf(stderr, "kadmsg: %s\n", net->failure.text);
    return net->failure.exit != 0 ? net->failure.exit : 1;
}

int tool_hub_open(struct tool_hub *t, struct cmdline *cl, struct tool_proxy *o, const char *sk_env,
                  enum tool_needs needs)
{
    struct tool_opts conn;
    *t = (struct tool_hub){0};
    int rc = tool_compat_apply(cl, &o->compat, &o->conn, sk_env, &conn);
    if (rc == 0)
        rc = app_net_open(&t->net, &conn, needs);
    if (rc != 0)
        return rc;
    rc = hub_new(&t->hub, t->net, (size_t)o->max_conns);
    if (rc != 0) {
        tool_hub_close(t);
        return tool_fail(rc, "%s", err_str(rc));
    }
    t->hub->splices.idle_ns = o->idle;
    t->hub->splices.stall_ns = o->stall;
    if (t->hub->splices.half_ns > o->idle)
        t->hub->splices.half_ns = o->idle;
    return 0;
}

int tool_hub_run(struct tool_hub *t)
{
    return hub_run(t->hub) == 0 ? 0 : say_failure(t->net);
}

void tool_hub_close(struct tool_hub *t)
{
    hub_free(t->hub);
    app_net_close(t->net);
    *t = (struct tool_hub){0};
}

void tool_hub_ready(const struct tool_hub *t, const struct tool_proxy *o, json_t *members)
{
    if (o->ready) {
        json_t *line = ready_json(&t->net->self);
        json_object_update(line, members);
        tool_print(line);
    }
    json_decref(members);
}

int tool_whitelist(struct cmdline *cl, const struct cmd_strs *texts, struct whitelist *out)
{
    for (size_t i = 0; i < texts->n; i++) {
        const char *bad = "";
        int rc = whitelist_add(out, texts->v[i], &bad);
        if (rc == ERR_KEY)
            return cmdline_usage_error(cl, "--wl: not a public key: %.*s",
                                       (int)strcspn(bad, ", \t\r\n"), bad);
        if (rc < 0)
            return tool_fail(rc, "--wl: %s", err_str(rc));
    }
    if (texts->n > 0 && out->n == 0) /* an empty set would let everybody in */
        return cmdline_usage_error(cl, "--wl: no key");
    return 0;
}

int tool_ports(struct cmdline *cl, const char *flag, const struct cmd_strs *texts, uint16_t def,
               unsigned addr_flags, uint16_t *out, size_t max, size_t *n)
{
    *n = 0;
    for (size_t i = 0; i < texts->n; i++) {
        for (const char *p = texts->v[i]; *p != '\0'; p += *p == ',') {
            size_t len = strcspn(p, ",");
            if (*n == max)
                return cmdline_usage_error(cl, "--%s: more than %zu ports", flag, max);
            if (addr_port_parse(&out[*n], p, len, addr_flags) < 0)
                return cmdline_usage_error(cl, "--%s: not a port: %.*s", flag, (int)len, p);
            for (size_t k = 0; k < *n; k++) {
                if (out[k] == out[*n] && out[k] != 0)
                    return cmdline_usage_error(cl, "--%s: %u is given twice", flag, out[k]);
            }
            ++*n;
            p += len;
        }
    }
    if (*n == 0)
        out[(*n)++] = def;
    return 0;
}

/* ---- environment files ---- */

struct env_use {
    struct cmdline *cl;
    const char *path;
    const struct tool_env *table;
    int code; /* exit code of the first mistake */
};

static void on_variable(void *arg, const char *name, const char *value)
{
    struct env_use *u = arg;
    char why[256];
    for (const struct tool_env *e = u->table; e->variable != NULL && u->code == 0; e++) {
        /* An empty string stands for "not set" in upstream's example. */
        if (strcmp(e->variable, name) != 0 || value[0] == '\0')
            continue;
        if (cmdline_set(u->cl, e->flag, value, why, sizeof(why)) < 0)
            u->code = tool_fail(ERR_USAGE, "%s: %s: %s", u->path, name, why);
    }
}

int tool_env_apply(struct cmdline *cl, const char *env, const struct tool_env *table)
{
    struct env_use use = {.cl = cl, .path = getenv(env), .table = table};
    size_t line = 0;
    if (use.path == NULL || use.path[0] == '\0')
        return 0;
    int rc = envfile_read(use.path, on_variable, &use, &line);
    if (rc == ERR_FORMAT)
        return tool_fail(rc, "%s:%zu: not NAME=value or NAME=('value' …)", use.path, line);
    return rc < 0 ? tool_fail(rc, "%s: %s", use.path, err_str(rc)) : use.code;
}
